"""An environment without links: for outputs that hold none, each becomes a copy of what it leads to.

A copy has the references of its original, so that it is relocated like it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from installer_stub.model import Finding, Kind, Relocatable
from pack.scan import Item, Scan

NOWHERE = "a symlink that leads to nothing in the archive"
_MOST_LINKS = 40  # as many as the kernel follows


def without_links(scan: Scan, symlinks: bool) -> Scan:
    """Return a scan in which hard links are files, and symlinks, too, unless ``symlinks`` are to stay.

    A symlink to a directory becomes a directory with copies of all that is in that. One that leads to nothing
    within, or into itself, is left out and noted.
    """
    tree = _Tree(scan)
    items: list[Item] = []
    notes: list[Finding] = []
    for item in scan.items:
        kind = item.entry.kind
        if kind is Kind.HARD_LINK:
            items.append(tree.copied(item.entry.target, item.entry.path))
        elif kind is Kind.SYMLINK and not symlinks:
            copies = list(tree.followed(item.entry.path, ()))
            items += copies
            if not copies:
                notes.append(
                    Finding(item.entry.path, -1, NOWHERE, item.entry.target.decode("utf-8", "backslashreplace"))
                )
        else:
            items.append(item)
    entries = tuple(item.entry for item in items)
    relocatables = tuple(
        found._replace(path=item.entry.path, names=())
        for item in items
        if (found := tree.relocatable(item)) is not None
    )
    return scan._replace(
        items=tuple(items),
        manifest=scan.manifest._replace(files=relocatables),
        listing=scan.listing._replace(entries=entries),
        notes=(*scan.notes, *notes),
    )


class _Tree:
    """The items by their paths, and what a path leads to."""

    def __init__(self, scan: Scan) -> None:
        self._items = {item.entry.path: item for item in scan.items}
        self._relocatables = {file.path: file for file in scan.manifest.files}
        self._originals: dict[bytes, bytes] = {}  # by the path of a copy
        self._below: dict[bytes, list[bytes]] = {}
        for path in self._items:
            self._below.setdefault(path.rpartition(b"/")[0], []).append(path)

    def relocatable(self, item: Item) -> Relocatable | None:
        """Return the references of an item: of a copy, those of its original."""
        path = item.entry.path
        return self._relocatables.get(self._originals.get(path, path)) if item.entry.kind is Kind.FILE else None

    def copied(self, original: bytes, path: bytes) -> Item:
        """Return the item of a file under another path."""
        item = self._items[original]
        self._originals[path] = original
        return item._replace(entry=item.entry._replace(path=path), source=item.source or original)

    def followed(self, path: bytes, above: tuple[bytes, ...], name: bytes = b"") -> Iterator[Item]:
        """Yield what a path leads to under ``name``: a copy, or a directory of copies; nothing where it leads nowhere.

        ``above`` are the directories that are being copied: one in itself would have no end.
        """
        name = name or path
        resolved = self._resolved(path)
        item = self._items.get(resolved) if resolved is not None else None
        if item is None or resolved is None:
            return
        if item.entry.kind is Kind.DIRECTORY:
            if resolved in above or (name + b"/").startswith(resolved + b"/"):
                return
            yield item._replace(entry=item.entry._replace(path=name))
            for each in self._below.get(resolved, ()):
                yield from self.followed(each, (*above, resolved), name + b"/" + each.rpartition(b"/")[2])
        elif item.entry.kind is Kind.HARD_LINK:
            yield self.copied(item.entry.target, name)
        else:
            yield self.copied(resolved, name)

    def _resolved(self, path: bytes) -> bytes | None:
        """Follow every symlink of a path, also of the directories that it goes through, inside the prefix."""
        for _ in range(_MOST_LINKS):
            parts = path.split(b"/")
            for count in range(1, len(parts) + 1):
                start = b"/".join(parts[:count])
                item = self._items.get(start)
                if item is not None and item.entry.kind is Kind.SYMLINK:
                    if item.entry.target.startswith(b"/"):
                        return None
                    joined = posixpath.join(posixpath.dirname(start), item.entry.target, *parts[count:])
                    path = posixpath.normpath(joined)
                    if path.startswith(b"../") or path == b"..":
                        return None
                    break
            else:
                return path
        return None
