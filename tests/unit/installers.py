"""Installers of a small environment, made in memory, and what their script does before and behind their program.

Shared by the tests of what an installer does; the script itself has its own.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from installer_stub import activation, install, manifest, trailer
from installer_stub.install import Installed, Order, Talk
from installer_stub.landing import Replace
from installer_stub.model import (
    Entry,
    Field,
    Fill,
    Force,
    Kind,
    Listing,
    Manifest,
    Reference,
    Relocatable,
    Spelling,
    Standing,
)
from installer_stub.trailer import Section, Trailer
from pack.archive import Member
from pack.archive.tar import write_tar
from tests.unit.other_user import NOBODY

ROOT = Path(__file__).resolve().parents[2]
OLD = b"/opt/placeholder"
TIME = 1_000_000_000
HEADER = b"#!/bin/sh\nexit 1\n"
FACTS = {"name": "tools", "version": "1.0", "platform": "linux-64", "pack": "0"}


@dataclass(frozen=True)
class Part:
    """A path of an environment. A file that names ``OLD`` is text with references."""

    path: bytes
    kind: Kind = Kind.FILE
    content: bytes = b""
    target: bytes = b""
    mode: int = 0o644

    @property
    def references(self) -> tuple[Reference, ...]:
        at = self.content.find(OLD)
        one = Reference(at, len(OLD), OLD, Field.TEXT, Spelling.PLAIN, Fill.GROW, Force.ALWAYS)
        return (one,) if at >= 0 else ()

    @property
    def entry(self) -> Entry:
        sha256 = hashlib.sha256(self.content).hexdigest() if self.kind is Kind.FILE else ""
        return Entry(self.path, self.kind, self.mode, len(self.content), TIME, self.target, sha256, Standing.ADDED, "")

    @property
    def member(self) -> Member:
        chunks = (self.content,) if self.content else ()
        return Member(self.path, self.kind, self.mode, TIME, len(self.content), self.target, lambda: iter(chunks))


def directory(path: bytes, mode: int = 0o755) -> Part:
    return Part(path, Kind.DIRECTORY, mode=mode)


def environment(version: bytes, *more: Part, lib: int = 0o755) -> list[Part]:
    """List the paths of an environment: a program that says where it is, a library, links; ``lib`` is a mode."""
    return [
        directory(b"bin"),
        Part(b"bin/tool", content=b"#!/bin/sh\necho " + OLD + b" " + version + b"\n", mode=0o755),
        directory(b"conda-meta"),
        Part(b"conda-meta/history"),
        directory(b"lib", lib),
        directory(b"lib/empty"),
        Part(b"lib/link", Kind.SYMLINK, target=b"mod.py", mode=0o777),
        Part(b"lib/mod.py", content=b"version = '" + version + b"'\n"),
        Part(b"lib/twin.py", Kind.HARD_LINK, target=b"lib/mod.py"),
        *more,
    ]


def payload(
    parts: Sequence[Part],
    hooks: Mapping[str, str] | None = None,
    facts: bytes = json.dumps(FACTS).encode(),
    stem: str = "activate",
) -> bytes:
    """Write the tar that is the payload of an installer."""
    scripts = activation.scripts(stem, None, b"", ())
    names: dict[bytes, tuple[bytes, ...]] = {}
    for part in parts:
        if part.kind is Kind.HARD_LINK:
            names[part.target] = (*names.get(part.target, ()), part.path)
    files = tuple(
        Relocatable(part.path, names.get(part.path, ()), len(part.content), part.entry.sha256, part.references)
        for part in parts
        if part.references
    )
    own = [
        directory(b".pack"),
        Part(b".pack/references.json", content=manifest.dump(Manifest((OLD,), files, tuple(sorted(scripts)), stem))),
        Part(b".pack/files.json", content=manifest.dump_listing(Listing(tuple(p.entry for p in parts), ()))),
        Part(b".pack/installer.json", content=facts),
        *([directory(b".pack/hooks")] if hooks else []),
        *(
            Part(b".pack/hooks/" + name.encode(), content=body.encode(), mode=0o755)
            for name, body in (hooks or {}).items()
        ),
    ]
    added = [Part(path, content=content, mode=0o755) for path, content in sorted(scripts.items())]
    out = io.BytesIO()
    write_tar([part.member for part in (*own, parts[0], *added, *parts[1:])], out)
    return out.getvalue()


def packed(tar: bytes, form: str = "gz") -> bytes:
    if form == "zst":
        return zstandard.ZstdCompressor().compress(tar)
    return gzip.compress(tar, 1, mtime=0) if form == "gz" else tar


def sections(header: bytes, stub: bytes, body: bytes) -> Trailer:
    found: list[Section] = []
    at = 0
    for part in (header, stub, body):
        found.append(Section(at, len(part), hashlib.sha256(part).hexdigest()))
        at += len(part)
    return Trailer(*found)


def whole(body: bytes, header: bytes = HEADER, stub: bytes = b"") -> bytes:
    """Put an installer together of its parts."""
    return header + stub + body + trailer.dump(sections(header, stub, body))


def write(path: Path, parts: Sequence[Part], hooks: Mapping[str, str] | None = None, **more: object) -> Path:
    """Write an installer of an environment."""
    path.write_bytes(whole(packed(payload(parts, hooks, **more))))  # type: ignore[arg-type]
    return path


def noise(size: int) -> Part:
    """Make a file that does not compress."""
    return Part(b"noise", content=random.Random(0).randbytes(size))


# Where and how


@contextmanager
def in_memory() -> Iterator[Path]:
    """Lend a directory that every user may enter, where writing is quick and waits for no disk, if there is such."""
    memory = "/dev/shm"
    usable = os.access(memory, os.W_OK) and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    made = Path(tempfile.mkdtemp(dir=memory if usable else None))
    made.chmod(0o755)
    try:
        yield made
    finally:
        for each, _, _ in os.walk(made):
            Path(each).chmod(0o700)
        shutil.rmtree(made)


@contextmanager
def stage(target: Path, inside: bool = False, owner: str | None = None) -> Iterator[Path]:
    """Make the directory that an installer's script makes, and remove it as that does."""
    with uncounted():
        if inside:
            (target / ".pack-staging").mkdir(mode=0o700, exist_ok=True)
        prefix = b"" if inside else b".%s.pack-" % os.fsencode(target.name)[:238]
        place = bytes(target / ".pack-staging" if inside else target.parent)
        made = Path(os.fsdecode(tempfile.mkdtemp(prefix=prefix, dir=place)))
        (made / "owner").write_text(owner or f"{os.uname().nodename} {os.getpid()}\n")
    try:
        yield made
    finally:
        with uncounted():
            shutil.rmtree(made)
            if inside and target.exists() and not os.listdir(target / ".pack-staging"):
                (target / ".pack-staging").rmdir()


def ordered(installer: Path, target: Path, staging: Path, **more: object) -> Order:
    facts = {"installer": bytes(installer), "staging": bytes(staging), "target": bytes(target), "jobs": 1}
    return Order(**{**facts, **more})  # type: ignore[arg-type]


def installed(installer: Path, target: Path, inside: bool = False, **more: object) -> Installed:
    """Install in this process."""
    with stage(target, inside) as staging:
        return install.install(ordered(installer, target, staging, **more), Talk())


def updated(installer: Path, target: Path, inside: bool = False, **more: object) -> Installed:
    return installed(installer, target, inside, replace=Replace.YES, **more)


def uninstalled(installer: Path, target: Path, inside: bool = False, **more: object) -> list[str]:
    """Uninstall in this process; return what is left."""
    with stage(target, inside) as staging:
        done = install.remove(ordered(installer, target, staging, **more), Talk())
    return [os.fsdecode(path) for path in done.left]


PROGRAM = (
    *(sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c"),
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub.__main__ import main; main('test')",
)


def command(name: str, installer: Path, target: Path, staging: Path, *options: str) -> list[str]:
    """Give the command by which a script starts the program."""
    where = ("--installer", str(installer), "--staging", str(staging), "--target", str(target))
    return [*PROGRAM, name, *where, *options]


def run(
    name: str,
    installer: Path,
    target: Path,
    *options: str,
    code: int = 0,
    inside: bool = False,
    before: Sequence[str] = (),
    **more: object,
) -> subprocess.CompletedProcess[str]:
    """Run the program as a script does, behind the words ``before``; expect its exit code."""
    with stage(target, inside) as staging:
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [*before, *command(name, installer, target, staging, *options)],
            **{"capture_output": True, "text": True, "timeout": 120, **more},
        )
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    return done


def as_nobody(umask: int = 0o022) -> dict[str, object]:
    """Give what makes ``subprocess`` run something as a user who owns nothing; for anybody but root, as they are."""
    return {"umask": umask, **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {})}


# What came of it


def shape(tree: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Describe a tree, its root too: kind, mode, owner, and content; of files and links also the time."""
    described: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    paths = [tree, *(Path(at, name) for at, names, files in os.walk(tree) for name in (*names, *files))]
    for path in paths if os.path.lexists(tree) else []:
        status = path.lstat()
        name = str(path.relative_to(tree))
        content: object = ""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = (first.setdefault(status.st_ino, name), path.read_bytes())
        when = status.st_mtime_ns if times and not stat.S_ISDIR(status.st_mode) else 0
        described[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, when, content)
    return described


def names(tree: Path) -> list[str]:
    """List everything below a directory."""
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))


def says(target: Path) -> str:
    """Run the program of an installed environment."""
    return subprocess.run([target / "bin/tool"], capture_output=True, text=True, check=True).stdout


def has_ended(number: int) -> bool:
    """Whether a process has ended, or does so soon; one that nobody has waited for counts."""
    for _ in range(500):
        try:
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


# Ends that nobody chooses

_CALLS = ("rename", "mkdir", "rmdir", "unlink", "link", "symlink", "chmod", "fsync", "write", "ftruncate")


_uncounted: list[bool] = []


@contextmanager
def uncounted() -> Iterator[None]:
    """Do what a test does around what it counts the calls of."""
    _uncounted.append(True)
    try:
        yield
    finally:
        _uncounted.pop()


@contextmanager
def counting(before: Callable[[int, str], None]) -> Iterator[None]:
    """Have ``before`` told the number and name of each call that changes what is on disk, before it is made."""
    count = 0
    kept: dict[str, Callable[..., object]] = {name: getattr(os, name) for name in _CALLS}

    def watched(name: str) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            nonlocal count
            if not _uncounted:
                count += 1
                before(count, name)
            return kept[name](*arguments, **more)

        return call

    for name in _CALLS:
        setattr(os, name, watched(name))
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(os, name, function)


def moments(work: Callable[[], object]) -> list[str]:
    """Do some work; return the names of the calls in it, in order, that change what is on disk."""
    calls: list[str] = []
    with counting(lambda number, name: calls.append(name)):
        work()
    return calls


def killed(work: Callable[[], object], number: int) -> bool:
    """Do some work in another process, and kill that before its call ``number``; return whether it came so far."""
    child = os.fork()
    if child == 0:

        def kill(at: int, name: str) -> None:
            if at == number:
                os.kill(os.getpid(), 9)

        try:
            with open(os.devnull, "wb") as nothing, counting(kill):
                os.dup2(nothing.fileno(), 2)
                work()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


def failing(work: Callable[[], object], number: int, error: OSError) -> bool:
    """Do some work, of which the call ``number`` fails; return whether it came so far."""
    reached = False

    def fail(at: int, name: str) -> None:
        nonlocal reached
        if at == number:
            reached = True
            raise error

    with counting(fail):
        work()
    return reached


def changed(parts: Iterable[Part], path: bytes, **facts: object) -> list[Part]:
    """Change facts about one of some parts."""
    return [replace(part, **facts) if part.path == path else part for part in parts]  # type: ignore[arg-type]
