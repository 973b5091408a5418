"""Where frozen stubs lie: in the user's cache, each under the SHA-256 of its files, with a record beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import installer_stub
from installer_stub.errors import PackError
from installer_stub.stub_main import RECORD

PROGRAM = "relocator"  # the file that is started
OPENER = "opener"
_FILES = "program"  # the directory with what PyInstaller made
# All that decides what a stub of given sources of CPython does.
_BUILDERS = ("cpython.py", "freeze.py", "parts.py", "toolchain.py")


class StubUnavailable(PackError):
    """No frozen stub can be had: the message says what is missing, or what is wrong with the one that is there."""


class Record(NamedTuple):
    """What is known of a stub. ``glibc`` is the oldest that every bundled file starts with, as "2.17"."""

    architecture: str  # as platform.machine() names it
    glibc: str
    python: str
    recipe: str  # the SHA-256 of all that decides what it does
    sha256: str  # of its files: names, modes, contents
    size: int  # in bytes
    opener: str  # the SHA-256 of the program that unpacks them


class Stub(NamedTuple):
    """A frozen stub in the cache."""

    path: Path  # the directory of its files
    record: Record

    @property
    def program(self) -> Path:
        """The file that is started."""
        return self.path / PROGRAM

    @property
    def opener(self) -> Path:
        """The small program that unpacks them where there is no tar; it is none of them."""
        return self.path.with_name(OPENER)

    @property
    def is_current(self) -> bool:
        """Whether it is of this version of pack: one that is not does what another version did."""
        return self.record.recipe == recipe()


def cache() -> Path:
    """Return the directory that everything about stubs is kept in; it need not exist."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of base directories has a relative path ignored.
    base = Path(named) if named.startswith("/") else _home() / ".cache"
    return base / "relopack"


def _home() -> Path:
    """Return the user's home directory: ``HOME``, or, where that is unset or empty, the one that the system knows."""
    with contextlib.suppress(KeyError):  # a user without a name
        return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    return Path("/nonexistent")


def stubs() -> list[Stub]:
    """List the stubs in the cache, by architecture and SHA-256. What has no sound record is none."""
    found = []
    for path in sorted(cache().joinpath("stubs").glob(f"*/{RECORD}")):
        try:
            record = Record(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if record.sha256 == path.parent.name:
            found.append(Stub(path.parent / _FILES, record))
    return sorted(found, key=lambda stub: (stub.record.architecture, stub.record.sha256))


def find(architecture: str) -> Stub | None:
    """Return the stub of this version of pack for an architecture, or None where none was built."""
    wanted = recipe()
    return next(
        (each for each in stubs() if (each.record.architecture, each.record.recipe) == (architecture, wanted)), None
    )


def keep(files: Path, record: Record) -> Stub:
    """Move the files of a new stub, and the opener beside them, into the cache, complete or not at all.

    ``files`` must lie on the cache's file system, in a directory that may be moved with them.
    """
    target = cache() / "stubs" / record.sha256
    around = files.with_name("kept")
    around.mkdir()
    files.rename(around / _FILES)
    files.with_name(OPENER).rename(around / OPENER)
    (around / RECORD).write_bytes(dump(record))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # the same files, by another recipe
        for name in (OPENER, RECORD):
            (around / name).replace(target / name)
    else:
        around.rename(target)
    return Stub(target / _FILES, record)


def dump(record: Record) -> bytes:
    """Write a record: as it lies in the cache, and in archives."""
    return (json.dumps(record._asdict(), indent=1, sort_keys=True) + "\n").encode()


def measure(files: Path) -> tuple[str, int]:
    """Return the SHA-256 of a stub's files, by name, permission to run and content, and their size."""
    total, whole = 0, hashlib.sha256()
    for path in sorted(each for each in files.rglob("*") if not each.is_dir()):
        content = path.read_bytes()
        total += len(content)
        name = path.relative_to(files).as_posix()
        whole.update(f"{name}\0{mode(path):o}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest(), total


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def mode(path: Path) -> int:
    """Give the permission bits that a file of a stub is archived with, whatever the umask was."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def recipe(package: Path | None = None) -> str:
    """Hash all that decides what a stub does: the modules that it holds, and how it is built.

    ``package`` is a copy of ``installer_stub`` to be frozen, by default the one that is installed.
    """
    hasher = hashlib.sha256()
    package = package or Path(str(resources.files(installer_stub)))
    here = Path(__file__).parent
    templates = sorted(path for path in (package / "activate").iterdir() if path.is_file())
    builders = [package / "stub.spec", package / "opener.c", *(here / name for name in _BUILDERS)]
    for path in (*sorted(package.glob("*.py")), *templates, *builders):
        content = path.read_bytes()
        hasher.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return hasher.hexdigest()
