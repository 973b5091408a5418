"""A scan whose files are archived as they are at a target: what ``--dest-prefix`` asks for.

The manifest stays what it is, and a state says where the tree stands: unpacked at the target, it is what a
relocation would have made there, and can be moved on from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from installer_stub import references, rewrite, target
from installer_stub.errors import UsageError
from installer_stub.model import Field, Fill, Relocatable
from installer_stub.rewrite import Digest, Form
from installer_stub.state import Stand, State
from pack.scan import Item, Scan
from pack.splice import Splice, pieces, stacked


class Baked(NamedTuple):
    """The scan as it is archived, and the state of the tree. ``prefix`` is where it stands, perhaps relative."""

    scan: Scan
    state: State
    prefix: bytes


def destination(text: str) -> bytes:
    """Read the value of ``--dest-prefix``: an absolute path, or one relative to the working directory of its users.

    Returns it normal; a relative one begins with "./". Raises UsageError.
    """
    if not text.strip() or "\0" in text:
        raise UsageError("--dest-prefix is empty", "Give the directory where the environment is going to be.")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise UsageError(
            f"--dest-prefix {text}: {'leads up by' if parts else 'names'} a directory that is no prefix",
            "Give an absolute path below the root, or a relative one such as ./environment, without '..'.",
        )
    return os.fsencode(("/" if text.startswith("/") else "./") + "/".join(parts))


def bake(scan: Scan, prefix: bytes) -> Baked:
    """Rewrite every file with references for a target. Raises TargetRefused and NoRoom as a relocation does."""
    target.check_room(scan.manifest, prefix, relative=prefix.startswith(b"./"))
    digests: dict[bytes, Digest] = {}
    form = Form(prefix, digests)
    files = {file.path: file for file in scan.manifest.files if file.is_rewritten}
    items = {item.entry.path: item for item in scan.items}
    digested = {reference.of for file in files.values() for reference in file.references if reference.of}
    root = os.fsencode(scan.environment.prefix)
    made: dict[bytes, Item] = {}

    def make(path: bytes) -> None:
        """Bake a file, after those that it holds the digests of: file, RECORD, conda-meta."""
        if path in made:
            return
        made[path] = items[path]  # a circle of digests ends here
        for reference in files[path].references:
            if reference.of in files:
                make(reference.of)
        made[path] = _baked(root, items[path], files[path], form)
        if path in digested:
            digests[path] = Digest(made[path].entry.sha256, made[path].entry.size)

    for path in files:
        make(path)
    baked = scan._replace(items=tuple(made.get(item.entry.path, item) for item in scan.items))
    return Baked(baked, State((Stand(Form(prefix, digests)),), b"", (prefix,)), prefix)


def _baked(root: bytes, item: Item, file: Relocatable, form: Form) -> Item:
    """Add what a relocation writes to the layers of an item, and take the size and the hash that come of it."""
    path = os.path.join(root, item.source or item.entry.path)
    with references.Opened(path) as below:
        view = stacked(below, item.disk_size, item.layers)[0]
        if any(reference.field is Field.PAGE_HASH for reference in file.references):
            return _whole(item, file, form, b"".join(pieces(view)))
        splices = []
        for region in rewrite.regions(file.references):
            if region.references[0].fill is not Fill.KEEP:
                archived = view(region.start, region.end - region.start)
                written = rewrite.write(region, archived, form)
                if written != archived:
                    splices.append(Splice(region.start, len(archived), written))
        layers = (*item.layers, tuple(splices)) if splices else item.layers
        digest = _digest(pieces(stacked(below, item.disk_size, layers)[0]))
    entry = item.entry._replace(sha256=digest.sha256, size=digest.size)
    return item._replace(entry=entry, layers=layers)


def _digest(content: Iterable[bytes]) -> Digest:
    hasher = hashlib.sha256()
    size = 0
    for piece in content:
        hasher.update(piece)
        size += len(piece)
    return Digest(hasher.hexdigest(), size)


def _whole(item: Item, file: Relocatable, form: Form, archived: bytes) -> Item:
    """Bake a signed program: the hashes of its pages stand before what they are of."""
    left = memoryview(archived)

    def read(count: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:count]), left[count:]
        return piece

    out: list[bytes] = []
    rewrite.transform(read, out.append, rewrite.regions(file.references), Form(None), form)
    digest = _digest(out)
    entry = item.entry._replace(sha256=digest.sha256, size=digest.size)
    return item._replace(entry=entry, content=b"".join(out))
