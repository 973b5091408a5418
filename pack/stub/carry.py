"""Which archives carry a stub, and what of it they hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from installer_stub import manifest
from installer_stub.model import Kind
from installer_stub.stub_main import RECORD
from pack.archive import FIXED_MTIME, Member
from pack.scan import Scan
from pack.stub import store
from pack.stub.store import Stub, StubUnavailable
from pack.stub.toolchain import ARCHITECTURES

DIRECTORY = manifest.DIRECTORY + b"/stub"
_PYTHON = re.compile(rb"bin/python3\.([0-9]+)\Z")
_OLDEST = 8  # Python 3.8: what installer_stub runs on


def chosen(scan: Scan) -> Stub | None:
    """Return the stub that an archive of the environment carries: None where none is needed, or none is there."""
    return store.find(scan.architecture) if is_needed(scan) else None


def advice(scan: Scan) -> str:
    """Say what is missing where a stub is needed and none is there; else nothing."""
    if not is_needed(scan):
        return ""
    machine = scan.architecture
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
    entries = (item.entry for item in scan.items)
    names = {each.path for each in entries if each.path.startswith(b"bin/python3") and each.kind is not Kind.DIRECTORY}
    versions = [int(match[1]) for match in map(_PYTHON.match, names) if match]
    return max(versions) < _OLDEST if versions else b"bin/python3" not in names


def members(stub: Stub, directory: bytes = DIRECTORY) -> Iterator[Member]:
    """Yield what an archive holds of a stub, in a directory of it: its record and its files.

    Raises StubUnavailable where the files are not those that the record speaks of.
    """
    if store.measure(stub.path)[0] != stub.record.sha256:
        raise changed(stub)
    if directory:
        yield _member(directory, Kind.DIRECTORY, 0o755, b"")
    yield _member(_join(directory, RECORD.encode()), Kind.FILE, 0o644, store.dump(stub.record))
    yield from _below(stub.path, directory)


def changed(stub: Stub) -> StubUnavailable:
    """Make the error for a stub whose files are not those that its record speaks of."""
    return StubUnavailable(
        f"{stub.path}: the frozen stub was changed since it was built.",
        f"Remove {stub.path.parent} and build it again: pack stub build",
    )


def _below(folder: Path, at: bytes) -> Iterator[Member]:
    """Yield a directory's files before its directories: all that is in one comes in one run."""
    paths = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in paths:
        name = _join(at, os.fsencode(path.name))
        if path.is_dir():
            yield _member(name, Kind.DIRECTORY, 0o755, b"")
            yield from _below(path, name)
        else:
            yield _member(name, Kind.FILE, store.mode(path), path.read_bytes())


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _member(path: bytes, kind: Kind, mode: int, content: bytes) -> Member:
    return Member(path, kind, mode, FIXED_MTIME, len(content), b"", lambda: iter((content,) if content else ()))
