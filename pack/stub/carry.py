"""Which archives carry a stub, and what of it they hold."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from installer_stub import manifest
from installer_stub.model import Kind
from installer_stub.stub_main import RECORD
from pack.archive import Member
from pack.scan import FIXED_MTIME, Scan
from pack.stub import floor, store
from pack.stub.store import Stub, StubUnavailable
from pack.stub.toolchain import ARCHITECTURES

DIRECTORY = manifest.DIRECTORY + b"/stub"
_MACHINES = {62: "x86_64", 183: "aarch64", 3: "i686", 21: "ppc64le", 243: "riscv64"}  # e_machine
_PYTHON = re.compile(rb"bin/python3\.([0-9]+)\Z")
_OLDEST = 8  # Python 3.8: what installer_stub runs on


def chosen(scan: Scan) -> Stub | None:
    """Return the stub that an archive of the environment carries: None where none is needed, or none is there."""
    return store.find(architecture(scan)) if is_needed(scan) else None


def advice(scan: Scan) -> str:
    """Say what is missing where a stub is needed and none is there; else nothing."""
    if not is_needed(scan):
        return ""
    machine = architecture(scan)
    if not machine or store.find(machine) is not None:
        return ""  # nothing but files that somebody else's programs read, or it is there
    what = "this environment holds no Python to relocate itself with; where it goes, pack relocate does it."
    if machine not in ARCHITECTURES:
        return f"{what} There is no frozen relocator for {machine}."
    return (
        f'{what} To have it relocate itself, build the frozen relocator once, "pack stub build --arch {machine}", '
        "and pack again; --no-stub silences this."
    )


def is_needed(scan: Scan) -> bool:
    """Whether nothing in the environment can run the relocator: no Python 3.8 or newer stands in its ``bin``."""
    names = {item.entry.path for item in scan.items if item.entry.kind is not Kind.DIRECTORY}
    versions = [int(match[1]) for match in map(_PYTHON.match, names) if match]
    return max(versions) < _OLDEST if versions else b"bin/python3" not in names


def architecture(scan: Scan) -> str:
    """Name the architecture that most programs and libraries of the environment are for, or "" if none is."""
    prefix = os.fsencode(scan.environment.prefix)
    counted: Counter[str] = Counter()
    for item in scan.items:
        path = item.entry.path
        if item.entry.kind is Kind.FILE and item.content is None and path.startswith((b"bin/", b"lib/")):
            try:
                machine = floor.machine(Path(os.fsdecode(os.path.join(prefix, path))))
            except OSError:
                continue  # reading it for the archive tells what is wrong
            if machine is not None:
                counted[_MACHINES.get(machine, str(machine))] += 1
    return min(counted, key=lambda name: (-counted[name], name), default="")


def members(stub: Stub) -> Iterator[Member]:
    """Yield what an archive holds of a stub: its record and its files.

    Raises StubUnavailable where the files are not those that the record speaks of.
    """
    if store.measure(stub.path)[0] != stub.record.sha256:
        raise StubUnavailable(
            f"{stub.path}: the frozen stub was changed since it was built.",
            f"Remove {stub.path.parent} and build it again: pack stub build",
        )
    yield _member(DIRECTORY, Kind.DIRECTORY, 0o755, b"")
    yield _member(DIRECTORY + b"/" + RECORD.encode(), Kind.FILE, 0o644, store.dump(stub.record))
    yield from _below(stub.path, DIRECTORY)


def _below(folder: Path, at: bytes) -> Iterator[Member]:
    """Yield a directory's files before its directories: all that is in one comes in one run."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in paths:
        name = at + b"/" + os.fsencode(path.name)
        if path.is_dir():
            yield _member(name, Kind.DIRECTORY, 0o755, b"")
            yield from _below(path, name)
        else:
            yield _member(name, Kind.FILE, store.mode(path), path.read_bytes())


def _member(path: bytes, kind: Kind, mode: int, content: bytes) -> Member:
    return Member(path, kind, mode, FIXED_MTIME, len(content), b"", lambda: iter((content,) if content else ()))
