"""Killing a relocation, or failing it, at a chosen system call; shared by the tests of what comes after."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from fixtures import references
from tests.conftest import need
from tests.integration.moving import Run, clone, digest, packed_and_deleted, run

# Calls that can change what is on disk, or that wait for the disk. "?": not every machine has it.
CHANGES = (
    "?open,openat,write,?rename,renameat,renameat2,?unlink,unlinkat,?link,linkat,?symlink,symlinkat,?mkdir,mkdirat,"
    "?rmdir,?chmod,fchmod,fchmodat,?chown,fchown,fsync,syncfs"
)
_CALL = re.compile(r"(\w+)\((.*)")


class Moment(NamedTuple):
    """A system call of one process: its name, and how many of that name there were up to it."""

    call: str
    number: int
    arguments: str


def tricky(directory: Path, channel: Path, references_channel: Path, cache: Path) -> Path:
    """Pack an environment that has every kind of reference, hard links and pip, and delete it."""
    specs = ("python", "pip", *references.available())
    return packed_and_deleted(directory / "tricky", specs, [channel, references_channel], cache)


def relocator(tree: Path, *options: str) -> list[str]:
    """Give the command that relocates a tree by what came in its archive, on the Python of these tests."""
    return [
        sys.executable,
        "-I",
        "-S",
        "-B",
        "-X",
        "utf8",
        str(tree / ".pack" / "relocator"),
        "unpack",
        str(tree),
        *options,
    ]


def relocate(tree: Path, *options: str, code: int | None = 0) -> Run:
    """Relocate a tree by what came in its archive."""
    return run(relocator(tree, *options), code=code)


def moments(tree: Path, log: Path) -> list[Moment]:
    """Relocate a tree undisturbed; return each system call that changed it or could have, in order."""
    run([need("strace"), "-o", log, "-e", f"trace={CHANGES}", *relocator(tree)])
    counts: dict[str, int] = {}
    found: list[Moment] = []
    for line in log.read_text(errors="replace").splitlines():
        if not (match := _CALL.match(line)):
            continue
        call, arguments = match.groups()
        counts[call] = counts.get(call, 0) + 1
        # What Python itself opens when it starts comes before the lock; reading changes nothing.
        if (found or ".pack/lock" in arguments) and not (call == "openat" and "O_CREAT" not in arguments):
            found.append(Moment(call, counts[call], arguments))
    return found


def kill(tree: Path, call: str, number: int, *options: str) -> None:
    """Start to relocate a tree, and kill that at the beginning of the ``number``-th call of a name."""
    inject = f"inject={call}:signal=KILL:when={number}"
    done = run(
        [need("strace"), "-o", os.devnull, "-e", f"trace={call}", "-e", inject, *relocator(tree, *options)], code=None
    )
    assert done.returncode in (-9, 137), f"{call} {number} was not reached: {done.returncode}\n{done.stderr}"


def failing(tree: Path, calls: str, error: str, when: str, *options: str, code: int = 1) -> Run:
    """Relocate a tree while system calls fail with ``error``; ``when`` is as strace has it."""
    inject = f"inject={calls}:error={error}:when={when}"
    strace: list[str | bytes | Path] = [need("strace"), "-o", os.devnull, "-e", f"trace={calls}", "-e", inject]
    return run([*strace, *relocator(tree, *options)], code=code)


def prefixes(tree: Path) -> list[str | None]:
    """Return the prefixes that the state of a tree names, the newest last; None stands for the tree as archived."""
    try:
        state = json.loads((tree / ".pack" / "state.json").read_text())
    except FileNotFoundError:
        return [None]
    return [stand["prefix"] for stand in state["stands"]]


def shape(tree: Path, *, history: bool = True) -> dict[str, tuple[object, ...]]:
    """Describe a tree but for its lock; without ``history``, but for its state, too.

    What a killed process may leave behind counts: a tree that was finished has none of it.
    """
    left_out = {".pack/lock"} if history else {".pack/lock", ".pack/state.json"}
    first: dict[int, str] = {}
    described: dict[str, tuple[object, ...]] = {}
    for directory, directories, names in os.walk(tree):
        directories.sort()
        for name in sorted([*directories, *names]):
            path = Path(directory, name)
            relative = str(path.relative_to(tree))
            if relative in left_out:
                continue
            status = path.lstat()
            content: object = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = (first.setdefault(status.st_ino, relative), _hash(path, status))
            described[relative] = (stat.filemode(status.st_mode), content)
    return described


_hashes: dict[tuple[int, int, int, int], str] = {}


def _hash(path: Path, status: os.stat_result) -> str:
    """Hash a file, but what many clones share only once."""
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = digest(path)
    return _hashes[key]


def differences(one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]) -> list[str]:
    """List the paths in which two descriptions differ."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def inodes(tree: Path) -> dict[str, tuple[int, int]]:
    """Tell the inode and time of every file and link of a tree, which change if anybody writes it."""
    found: dict[str, tuple[int, int]] = {}
    for directory, _, names in os.walk(tree):
        for path in (Path(directory, name) for name in names):
            if path != tree / ".pack" / "lock":
                status = path.lstat()
                found[str(path.relative_to(tree))] = (status.st_ino, status.st_mtime_ns)
    return found


def undisturbed(archive: Path, target: Path, *, history: bool = True) -> dict[str, tuple[object, ...]]:
    """Describe an environment as it is after one relocation from its archive to a target, where nothing is left."""
    relocate(clone(archive, target))
    described = shape(target, history=history)
    shutil.rmtree(target)
    return described
