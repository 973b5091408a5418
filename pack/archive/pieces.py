"""A tar stream in pieces, each of which is compressed once as long as its members stay the same.

Where a piece ends is decided by nothing but the last member in it, by its path and its size: what is added, removed
or changed elsewhere moves no other end. ``docs/cache.md`` has what was measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import resources
from typing import Protocol
from zlib import crc32

from installer_stub.model import Kind
from pack.compress import Block, Compressor, Keep

from . import Member, Progress
from .tar import end, headers, headers_length, padded, write_content, write_tar

_ALL = 1 << 32
_DECIDING = (("pack", "compress.py"), ("pack.archive", "tar.py"), ("pack.archive", "pieces.py"))


class Pieces(Protocol):
    """Compressed pieces by what they hold."""

    def find(self, key: bytes, /) -> Iterable[Block] | None:
        """Return the blocks of a piece, or None where it is not kept."""

    def keep(self, key: bytes, /) -> Keep | None:
        """Return what takes the blocks of a piece, or None where none is kept any more."""


class _Piece:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self.length = 0  # of its part of the tar
        self.known = True  # the hashes of all contents are

    def key(self, seed: bytes) -> bytes:
        """Hash all that decides its bytes: what headers are made of, the hashes of the contents, and the program."""
        facts = [
            # No path and no target holds a NUL.
            b"%b\0%b\0" % (path, target) + f"{kind.value} {mode:o} {mtime} {size} {sha256} {privileges!r}\n".encode()
            for path, kind, mode, mtime, size, target, _, privileges, sha256 in self.members
        ]
        return hashlib.sha256(b"".join([seed, _program(), *facts])).digest()


@lru_cache(maxsize=1)
def _program() -> bytes:
    """Hash the modules that write pieces: another version may write them otherwise."""
    hasher = hashlib.sha256()
    for package, name in _DECIDING:
        hasher.update(resources.files(package).joinpath(name).read_bytes())
    return hasher.digest()


def write_compressed(
    members: Iterable[Member], out: Compressor, kept: Pieces | None, seed: bytes, progress: Progress | None = None
) -> None:
    """Write members as ``write_tar`` does, and take what ``kept`` has of the compressed stream from there.

    The bytes are the same whatever ``kept`` has. ``seed`` is what decides the bytes beside the members: the format, its
    level, its library. Raises what ``write_tar`` does; what comes from ``kept`` is not read in the environment.
    """
    if not out.piece:
        write_tar(members, out, progress)
        return
    written = 0
    for piece in _pieces(members, out.piece):
        written += piece.length
        key = piece.key(seed) if kept is not None and piece.known else b""
        found = kept.find(key) if kept is not None and key else None
        if found is not None:
            out.put(found)
            if progress:
                progress(sum(member.size for member in piece.members if member.kind is Kind.FILE))
            continue
        out.begin(kept.keep(key) if kept is not None and key else None)
        for member in piece.members:
            out.write(headers(member))
            if member.kind is Kind.FILE:
                write_content(member, out, progress)
    out.begin(None)
    out.write(end(written))


def _pieces(members: Iterable[Member], size: int) -> Iterator[_Piece]:
    """Cut members into pieces of about ``size`` bytes. What is made for each archive anew gets its own."""
    piece = _Piece()
    for member in members:
        known = bool(member.sha256) or member.kind is not Kind.FILE
        if piece.members and known is not piece.known:
            yield piece
            piece = _Piece()
        length = headers_length(member) + (padded(member.size) if member.kind is Kind.FILE else 0)
        piece.members.append(member)
        piece.length += length
        piece.known = known
        if crc32(member.path) * size < length * _ALL:
            yield piece
            piece = _Piece()
    if piece.members:
        yield piece
