"""From a scan to the members of an archive: the two manifest files first, then the environment, then ours."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from importlib import resources

import installer_stub
from installer_stub import activation, hooks, install, manifest, state
from installer_stub.model import Kind
from pack import lock
from pack.archive import FIXED_MTIME, Member, changed_while_packing
from pack.bake import Baked
from pack.installer import Installer, platform_name
from pack.scan import Item, Scan
from pack.splice import pieces, stacked
from pack.stub import carry
from pack.stub.store import Stub

RELOCATOR = manifest.DIRECTORY + b"/relocator"
_MAIN = "from installer_stub.__main__ import main\n\nmain({version!r})\n"


def members(
    scan: Scan,
    version: str,
    stub: Stub | None = None,
    installer: Installer | None = None,
    baked: Baked | None = None,
) -> Iterator[Member]:
    """Yield everything that an archive of the scanned environment holds, in order; ``stub`` is carried, if any.

    The payload of an ``installer`` also holds what that is called, and its hooks. ``baked`` has the files in the form
    of one target.

    All that is in a directory comes in one run: tar sets the directory's time when it leaves it.
    Reading a file's content raises EnvironmentUnfit if the file is not what the scan saw.
    """
    prefix = os.fsencode(scan.environment.prefix)
    yield _directory(manifest.DIRECTORY)
    yield _file(manifest.REFERENCES, manifest.dump(scan.manifest))
    yield _file(manifest.FILES, manifest.dump_listing(scan.listing))
    if baked is not None:
        yield _file(state.STATE, state.dump(baked.state))
        scan = baked.scan
    for path, content in lock.files(scan.lock):
        yield _file(path, content)
    if installer is not None:
        yield from _installer(scan, version, installer)
    yield from _relocator(version)
    if stub is not None:
        yield from carry.members(stub)
    paths = (item.entry.path for item in scan.items)
    behind = max((n for n, path in enumerate(paths, 1) if path.startswith(b"bin/") or path == b"bin"), default=0)
    for item in scan.items[:behind]:
        yield _member(prefix, item)
    if not behind:
        yield _directory(b"bin")
    variables = activation.read_variables(scan.environment.prefix)
    # A relative place is another one wherever the shell stands: the scripts then find their own.
    stands = baked.prefix if baked is not None and baked.prefix.startswith(b"/") else None
    for path, content in sorted(activation.scripts(scan.manifest.stem, stands, b"", variables).items()):
        yield _file(path, content, 0o755)
    for item in scan.items[behind:]:
        yield _member(prefix, item)


def _installer(scan: Scan, version: str, installer: Installer) -> Iterator[Member]:
    """Yield what stays of an installer where it was run: its name, and what it runs before the tree is removed."""
    about = {"name": installer.name, "version": installer.version, "pack": version}
    about["platform"] = platform_name(scan.architecture)
    yield _file(install.FACTS, json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    if installer.hooks:
        yield _directory(hooks.DIRECTORY)
    for name, content in installer.hooks:
        yield _file(hooks.DIRECTORY + b"/" + name.encode(), content, 0o755)


def _relocator(version: str) -> Iterator[Member]:
    """Yield the program that rewrites the tree where it goes: the stub's own modules."""
    package = RELOCATOR + b"/installer_stub"
    yield _directory(RELOCATOR)
    yield _file(RELOCATOR + b"/__main__.py", _MAIN.format(version=version).encode())
    yield _directory(package)
    root = resources.files(installer_stub)
    for name in sorted(each.name for each in root.iterdir() if each.name.endswith(".py")):
        yield _file(package + b"/" + name.encode(), root.joinpath(name).read_bytes())
    yield _directory(package + b"/activate")
    templates = root.joinpath("activate")
    for name in sorted(each.name for each in templates.iterdir() if each.is_file()):
        yield _file(package + b"/activate/" + name.encode(), templates.joinpath(name).read_bytes())


def _member(prefix: bytes, item: Item) -> Member:
    entry = item.entry
    chunks = _chunks(prefix, item)
    facts = (entry.path, entry.kind, entry.mode, entry.mtime, entry.size, entry.target)
    return Member(*facts, chunks, item.privileges, entry.sha256)


def _chunks(prefix: bytes, item: Item) -> Callable[[], Iterator[bytes]]:
    content = item.content
    if content is not None:
        return lambda: _cut(content)
    return lambda: _from_disk(prefix, item)


def _from_disk(prefix: bytes, item: Item) -> Iterator[bytes]:
    """Read a file's archived bytes, and hold them against what the scan saw."""
    path = os.path.join(prefix, item.source or item.entry.path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise changed_while_packing(path, error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (item.disk_size, item.disk_mtime_ns):
            raise changed_while_packing(path, "its size or its time is another")
        view, _ = stacked(lambda offset, length: os.pread(descriptor, length, offset), item.disk_size, item.layers)
        hasher = hashlib.sha256()
        for piece in pieces(view):
            hasher.update(piece)
            yield piece
        if hasher.hexdigest() != item.entry.sha256:
            raise changed_while_packing(path, "its content is another")
    finally:
        os.close(descriptor)


def _directory(path: bytes) -> Member:
    return Member(path, Kind.DIRECTORY, 0o755, FIXED_MTIME, 0, b"", lambda: iter(()))


def _file(path: bytes, content: bytes, mode: int = 0o644) -> Member:
    return Member(path, Kind.FILE, mode, FIXED_MTIME, len(content), b"", lambda: _cut(content))


def _cut(content: bytes) -> Iterator[bytes]:
    """Yield content in pieces: the full list of files is so long that no writer should copy it as a whole."""
    return pieces(lambda offset, length: content[offset : offset + length])
