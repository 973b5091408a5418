"""An archive without the files that an earlier one has: small where little changed.

It lists all files and holds those that the base lacks, by their hashes. With the base, a tree that was unpacked
before, ``pack unpack`` reads it as the archive that it stands for. Unpacked by tar it is marked as incomplete, and
activation refuses it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from installer_stub import manifest, relocate, rewrite
from installer_stub.admission import Read
from installer_stub.errors import EnvironmentUnfit, ManifestError
from installer_stub.model import Entry, Kind, Relocatable
from installer_stub.relocate import Tree
from installer_stub.rewrite import Form, Unlike
from installer_stub.tarstream import Bytes, TarStream
from pack.archive import FIXED_MTIME, Member
from pack.archive.reading import tar_of

MARK = manifest.INSTALLING
_WORDS = b"Not complete: this archive holds what another lacks. pack unpack ARCHIVE DIR --base OLD_TREE\n"
_PIECE = 1 << 20


def reduced(members: Iterable[Member], entries: Iterable[Entry], held: Collection[str]) -> Iterator[Member]:
    """Yield the mark, and the members that a base does not hold; ``held`` are the SHA-256 of its files, as archived."""
    gone = {entry.path for entry in entries if entry.kind is Kind.FILE and entry.sha256 in held}
    yield Member(MARK, Kind.FILE, 0o644, FIXED_MTIME, len(_WORDS), b"", lambda: iter((_WORDS,)))
    for member in members:
        if member.path not in gone and not (member.kind is Kind.HARD_LINK and member.target in gone):
            yield member


def completed(read: Read, base: Path | None) -> Read:
    """Return what reads a tar stream whole: as it is, or, of a delta, with what the tree ``base`` holds.

    Raises ManifestError for a delta without its base, and EnvironmentUnfit for a base that lacks a file.
    """
    head = _filled(read, 512)
    again = _behind(head, read)
    if not head.startswith(MARK + b"\0"):
        return again
    if base is None:
        raise ManifestError(
            "the archive is a delta: it holds only what an earlier archive lacks.",
            "Name the tree that was unpacked from that one: --base DIR.",
        )
    return tar_of(_members(TarStream(again), _Base(base)))


def hashes(base: Path, listing: Iterable[Entry]) -> frozenset[str]:
    """Return the SHA-256 of the files that a base lists. Raises ManifestError for one that lists none."""
    found = frozenset(entry.sha256 for entry in listing if entry.kind is Kind.FILE)
    if not found:
        raise ManifestError(f"{base}: lists no file: it is no base.", "Name an archive, or a tree unpacked from one.")
    return found


def _filled(read: Read, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := read(count - len(data))):
        data += piece
    return data


def _behind(head: bytes, read: Read) -> Read:
    left = head

    def again(count: int) -> Bytes:
        nonlocal left
        if not left:
            return read(count)
        taken, left = left[:count], left[count:]
        return taken

    return again


def _members(stream: TarStream, base: _Base) -> Iterator[Member]:
    """Yield the members of the archive that a delta stands for."""
    seen: set[bytes] = set()
    listed: tuple[Entry, ...] = ()
    while (member := stream.next()) is not None:
        if member.path == MARK:
            stream.read(member.size)
            continue
        seen.add(member.path)
        chunks = partial(_content, stream, member.size)
        if member.path == manifest.FILES:
            content = b"".join(chunks())
            listed = manifest.load_listing(content).entries
            chunks = partial(iter, (content,))
        yield Member(member.path, member.kind, member.mode, member.mtime, member.size, member.target, chunks)
    missing = [entry for entry in listed if entry.path not in seen]
    for kind in (Kind.FILE, Kind.HARD_LINK):
        for entry in missing:
            if entry.kind is kind:
                yield _from_base(entry, base)


def _content(stream: TarStream, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, _PIECE))
        size -= len(piece)
        yield piece


def _from_base(entry: Entry, base: _Base) -> Member:
    return Member(
        entry.path, entry.kind, entry.mode, entry.mtime, entry.size, entry.target, lambda: base.content(entry)
    )


class _Base:
    """The tree from which the files come that a delta does not hold."""

    def __init__(self, path: Path) -> None:
        self._tree: Tree = relocate.open_tree(os.fsencode(path))
        self._paths: dict[str, list[bytes]] = {}
        for entry in relocate.listing_of(self._tree).entries:
            if entry.kind is Kind.FILE:
                self._paths.setdefault(entry.sha256, []).append(entry.path)
        self._files: Mapping[bytes, Relocatable] = {file.path: file for file in self._tree.manifest.files}

    def content(self, entry: Entry) -> Iterator[bytes]:
        """Yield the archived bytes of a file. Raises EnvironmentUnfit where no file of the base has them."""
        for path in self._paths.get(entry.sha256, ()):
            for stand in self._tree.state.stands:
                if self._digest(path, stand.form) == entry.sha256:
                    return self._pieces(path, stand.form)
        raise EnvironmentUnfit(
            f"{os.fsdecode(self._tree.root)}: no file in it has the bytes of {manifest.encode(entry.path)}, as it had "
            "when it was unpacked.",
            "Name the tree that the delta was made for, as it was unpacked; or take a whole archive.",
        )

    def _digest(self, path: bytes, form: Form) -> str:
        hasher = hashlib.sha256()
        try:
            for piece in self._pieces(path, form):
                hasher.update(piece)
        except (OSError, Unlike):
            return ""
        return hasher.hexdigest()

    def _pieces(self, path: bytes, form: Form) -> Iterator[bytes]:
        """Yield a file undone to its archived bytes; one without references piece by piece."""
        file = self._files.get(path)
        with open(os.path.join(self._tree.root, path), "rb") as opened:
            if file is None or form.prefix is None:
                while piece := opened.read(_PIECE):
                    yield piece
                return
            out: list[bytes] = []
            rewrite.transform(opened.read, out.append, rewrite.regions(file.references), form, Form(None))
        yield from out
