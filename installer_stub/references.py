"""Read a file once: its hash, whether it is text, and every reference to a prefix in it."""

from __future__ import annotations

import hashlib
import os
from enum import Enum
from functools import lru_cache
from typing import Callable, Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Set, Tuple

from installer_stub import match
from installer_stub.classify import Format, classify
from installer_stub.elf import ReadAt
from installer_stub.model import Finding, Reference, Spelling
from installer_stub.slots import CONTAINERS, INLINED, Slots

_PIECE = 1 << 20
_HEAD = 4096


UTF16 = {Format.UTF16LE: Spelling.UTF16LE, Format.UTF16BE: Spelling.UTF16BE}


class Mode(Enum):
    """What is known of the prefix that is looked for.

    A placeholder that a package recorded is a reference wherever it occurs, whatever stands beside it,
    since its channel replaces it so; the package also says whether the file is text or binary, and in a
    binary C strings take NULs.
    """

    SEARCH = "search"
    PLACEHOLDER_TEXT = "text"
    PLACEHOLDER_BINARY = "binary"


class Reading(NamedTuple):
    """What one pass over a file told: all offsets are those of the bytes as read."""

    sha256: str
    size: int
    format: Format
    text: bool
    head: bytes  # the first bytes, over the first two lines
    references: Tuple[Reference, ...]
    findings: Tuple[Finding, ...]


def read(
    read_at: ReadAt,
    size: int,
    path: bytes,
    prefixes: Sequence[bytes],
    mode: Mode = Mode.SEARCH,
    root: Optional[bytes] = None,
) -> Reading:
    """Read a file of ``size`` bytes and find every reference to one of ``prefixes``, longest first.

    ``root`` is where the tree stands, if that is none of them: what a common prefix names is looked for
    there. Memory is that of a piece, whatever the size, and of what is found.
    """
    literal = mode is not Mode.SEARCH
    asked = _asked(size, 0)
    first = read_at(0, asked)
    head = first[:_HEAD]
    format = classify(head, path)
    utf16 = UTF16.get(format, Spelling.PLAIN)
    table = {p: (p, Spelling.PLAIN) for p in prefixes} if literal else _needles(tuple(prefixes), utf16)
    if len(first) < asked and format is not Format.ELF and not match.may_hold(first, table):
        # Most files are of one piece, and name nothing.
        text = _is_text(mode, utf16, b"\0" in first)
        return Reading(hashlib.sha256(first).hexdigest(), len(first), format, text, head, (), ())
    hasher = hashlib.sha256()
    seen = _Seen({p[:INLINED] for p in prefixes if len(p) > INLINED} if format is Format.ELF else set())
    hits = list(match.search(_pieces(read_at, size, first, hasher.update, seen), table))
    text = _is_text(mode, utf16, seen.nul)
    if not hits and not seen.heads:
        return Reading(hasher.hexdigest(), seen.size, format, text, head, (), ())
    find = Slots(read_at, seen.size, path, head, literal, root)
    if hits:
        if text:
            find.text(hits, utf16)
        elif format is Format.BYTECODE:
            find.byte_code(hits)
        elif format in CONTAINERS:
            find.refuse(hits, f"inside {CONTAINERS[format]}")
        elif format is Format.MACHO:
            find.mach_o(hits)
        else:
            find.binary(hits, format)
    if seen.heads:
        find.hidden(seen.heads, prefixes)
    return Reading(hasher.hexdigest(), seen.size, format, text, head, tuple(find.references), tuple(find.findings))


@lru_cache(maxsize=64)
def _needles(prefixes: Tuple[bytes, ...], utf16: Spelling) -> Dict[bytes, Tuple[bytes, Spelling]]:
    return match.needles(prefixes, utf16)


def _is_text(mode: Mode, utf16: Spelling, nul: bool) -> bool:
    """Whether a file is text: as its package says, or else without NUL, or UTF-16."""
    if mode is not Mode.SEARCH:
        return mode is Mode.PLACEHOLDER_TEXT
    return not nul or utf16 is not Spelling.PLAIN


class Opened:
    """Opens a file for ``read``: in its block there is a function (offset, length) -> bytes."""

    def __init__(self, path: bytes) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __enter__(self) -> ReadAt:
        descriptor = self._descriptor
        return lambda offset, length: os.pread(descriptor, length, offset)

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


class _Seen:
    """What went by in the stream; ``heads`` are those of the wanted beginnings of a prefix that did."""

    def __init__(self, wanted: Iterable[bytes]) -> None:
        self.nul = False
        self.size = 0
        self.wanted = frozenset(wanted)
        self.heads: Set[bytes] = set()
        self._last = b""

    def take(self, piece: bytes) -> None:
        """Look at the next piece."""
        self.size += len(piece)
        self.nul = self.nul or b"\0" in piece
        if self.wanted:
            self.heads |= {
                head for head in self.wanted - self.heads if head in piece or head in self._last + piece[:INLINED]
            }
            self._last = piece[-INLINED:]


def _pieces(read_at: ReadAt, size: int, piece: bytes, update: Callable[[bytes], None], seen: _Seen) -> Iterator[bytes]:
    """Yield ``piece``, the first, and all that come behind it, also where there is more than ``size``."""
    while piece:
        asked = _asked(size, seen.size)
        update(piece)
        seen.take(piece)
        yield piece
        if len(piece) < asked:
            return
        piece = read_at(seen.size, _asked(size, seen.size))


def _asked(size: int, at: int) -> int:
    """Say how much to read at an offset: a byte beyond the end, so that less tells the end without asking again."""
    return min(_PIECE, max(size - at, 0) + 1)
