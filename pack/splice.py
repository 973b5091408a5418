"""A file seen with edits: the archived bytes of a file, read from the bytes on disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from installer_stub.elf import ReadAt
from pack.squeezed import Squeezed

_PIECE = 1 << 20


class Splice(NamedTuple):
    """Put ``new`` in the place of ``length`` bytes at ``offset``; what is much may be held `Squeezed`."""

    offset: int
    length: int
    new: bytes | Squeezed


class _Segment(NamedTuple):
    start: int  # in the spliced file
    stop: int
    offset: int  # in the file below
    new: bytes | None


class Spliced:
    """``read_at`` of a file with splices applied, which must be in order and must not overlap.

    Views stack: the file below may be spliced itself. Nothing is held but the splices.
    """

    def __init__(self, below: ReadAt, size: int, splices: Sequence[Splice]) -> None:
        self._below = below
        self._segments: list[_Segment] = []
        at = start = 0
        for splice in splices:
            if splice.offset < at or splice.offset + splice.length > size:
                raise ValueError(f"a splice at {splice.offset} overlaps another or leaves the file")
            kept = splice.offset - at
            if kept:
                self._segments.append(_Segment(start, start + kept, at, None))
                start += kept
            if splice.new:
                new = bytes(splice.new)
                self._segments.append(_Segment(start, start + len(new), 0, new))
                start += len(new)
            at = splice.offset + splice.length
        if size > at:
            self._segments.append(_Segment(start, start + size - at, at, None))
            start += size - at
        self._starts = [segment.start for segment in self._segments]
        self.size = start

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes at ``offset``; fewer only at the end of the file."""
        out: list[bytes] = []
        number = max(bisect_right(self._starts, offset) - 1, 0)
        while length > 0 and number < len(self._segments):
            segment = self._segments[number]
            inside = offset - segment.start
            take = min(length, segment.stop - offset)
            if take <= 0:
                break
            if segment.new is None:
                piece = self._below(segment.offset + inside, take)
            else:
                piece = segment.new[inside : inside + take]
            out.append(piece)
            if len(piece) < take:
                break
            offset += take
            length -= take
            number += 1
        return b"".join(out)


def stacked(below: ReadAt, size: int, layers: Sequence[Sequence[Splice]]) -> tuple[ReadAt, int]:
    """Apply several layers of splices, the lowest first; return the view and its size in bytes."""
    for splices in layers:
        view = Spliced(below, size, splices)
        below, size = view.read_at, view.size
    return below, size


def pieces(read_at: ReadAt) -> Iterator[bytes]:
    """Yield a file piece by piece, to its end."""
    at = 0
    while piece := read_at(at, _PIECE):
        yield piece
        if len(piece) < _PIECE:
            return
        at += len(piece)
