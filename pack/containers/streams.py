"""Compressed bytes as streams: read once, in pieces, never more of them than a budget allows.

Every loop here ends with its input or with the budget, and holds a piece of the data and the window of
the decompressor, whatever the input says of itself. What cannot be read on raises `Unreadable`.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator

from installer_stub.classify import Format
from installer_stub.elf import ReadAt
from pack.expand import zstandard_expander

PIECE = 256 << 10
WINDOW = 128 << 20  # what a decompressor may keep of the past: xz -9 and zstd --long=27 keep no more

_MOST = 4 << 30
_FREE, _RATIO = 64 << 20, 200  # few real files are denser; a bomb is a thousand times and more
_FIXED = 1024  # what a member costs beside its bytes: millions of empty ones take time, too


class Unreadable(Exception):
    """A container cannot be read on. ``layer`` tells which of those that lie in each other, from 1."""

    def __init__(self, layer: int, why: str) -> None:
        super().__init__(why)
        self.layer = layer


class Exhausted(Exception):
    """The budget is spent: nothing more of this file is searched."""


class Budget:
    """How many bytes may still come out of a file of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.total = min(_MOST, _FREE + _RATIO * size)
        self._left = self.total

    def spend(self, count: int = _FIXED) -> None:
        """Take ``count`` bytes, by default what one more member costs. Raises `Exhausted`."""
        self._left -= count
        if self._left < 0:
            raise Exhausted(f"it holds more than the {self.total >> 20} MiB that are unpacked of a file of its size")

    def meter(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass pieces on and take their sizes."""
        self.spend()
        for piece in pieces:
            self.spend(len(piece))
            yield piece


class Stream:
    """Bytes that come once, with a look ahead. What came before an error is given out before it is raised."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ahead = b""
        self._at = 0  # what lies before is taken: small reads do not copy the rest
        self._error: Unreadable | Exhausted | None = None

    def _next(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except (Unreadable, Exhausted) as error:
            self._error = error
            return b""

    def peek(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer only at the end, and leave them there."""
        length = len(self._ahead) - self._at
        if length < count:
            parts = [self._ahead[self._at :]]
            while length < count and (piece := self._next()):
                parts.append(piece)
                length += len(piece)
            self._ahead, self._at = b"".join(parts), 0
        return self._ahead[self._at : self._at + count]

    def read(self, count: int) -> bytes:
        """Return and take the next ``count`` bytes, fewer only at the end; they are held at once."""
        data = self.peek(count)
        if len(data) < count and self._error:
            raise self._error
        self._at += len(data)
        return data

    def some(self, most: int = 32 << 10) -> bytes:
        """Return and take the next bytes, as many as are at hand and no more than ``most``; none at the end."""
        if self._at == len(self._ahead):
            self._ahead, self._at = self._next(), 0
        data = self._ahead[self._at : self._at + most]
        if not data and self._error:
            raise self._error
        self._at += len(data)
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of the next."""
        if data:
            self._ahead, self._at = data + self._ahead[self._at :], 0

    def take(self, count: int) -> Iterator[bytes]:
        """Return and take the next ``count`` bytes in pieces, fewer only at the end."""
        while count and (data := self.some(min(count, PIECE))):
            count -= len(data)
            yield data

    def rest(self) -> Iterator[bytes]:
        """Return and take all that is left, in pieces."""
        while data := self.some(PIECE):
            yield data


def span(read_at: ReadAt, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes ``[start, end)`` of a file in pieces; fewer if the file is shorter."""
    while start < end and (piece := read_at(start, min(PIECE, end - start))):
        start += len(piece)
        yield piece


def inflated(source: Stream, layer: int, wbits: int = -15) -> Iterator[bytes]:
    """Yield what one deflate stream holds, and leave what follows it. ``wbits`` 31 is a gzip member."""
    engine = zlib.decompressobj(wbits)
    while not engine.eof:
        packed = engine.unconsumed_tail or source.some()
        try:
            data = engine.decompress(packed, PIECE)
        except zlib.error as error:
            raise Unreadable(layer, f"it is damaged ({error})") from error
        if data:
            yield data
        elif not packed:
            raise Unreadable(layer, "it ends early")
    source.unread(engine.unused_data)


def bunzipped(source: Stream, layer: int) -> Iterator[bytes]:
    """Yield what one bzip2 stream holds, and leave what follows it."""
    return _decoded(bz2.BZ2Decompressor(), source, layer)


def unxzed(source: Stream, layer: int) -> Iterator[bytes]:
    """Yield what one xz stream holds, and leave what follows it."""
    return _decoded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW), source, layer)


def unlzmaed(source: Stream, layer: int) -> Iterator[bytes]:
    """Yield what an LZMA member of a zip holds: version, size of the properties, properties, raw LZMA.

    It need not mark its end: who reads it knows the size. (APPNOTE.TXT 5.8.8.)
    """
    head = source.read(9)
    packed, dictionary = head[4:5], int.from_bytes(head[5:9], "little")
    if len(head) < 9 or head[2:4] != b"\x05\x00" or packed[0] >= 9 * 5 * 5 or dictionary > WINDOW:
        raise Unreadable(layer, "its LZMA properties are odd")
    rest, lc = divmod(packed[0], 9)
    pb, lp = divmod(rest, 5)
    chain = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}]
    try:
        engine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)
    except lzma.LZMAError as error:
        raise Unreadable(layer, "its LZMA properties are odd") from error
    yield from _decoded(engine, source, layer)


def _decoded(engine: bz2.BZ2Decompressor | lzma.LZMADecompressor, source: Stream, layer: int) -> Iterator[bytes]:
    while not engine.eof:
        asked = engine.needs_input
        packed = source.some() if asked else b""
        try:
            data = engine.decompress(packed, PIECE)
        except (OSError, ValueError, EOFError, lzma.LZMAError) as error:  # bz2 raises OSError for bad data
            raise Unreadable(layer, f"it is damaged ({error})") from error
        if data:
            yield data
        elif asked and not packed:
            raise Unreadable(layer, "it ends early")
    source.unread(engine.unused_data)


def unzstded(source: Stream, layer: int) -> Iterator[bytes]:
    """Yield what one zstd frame holds, block by block (RFC 8878, 3.1.1), and leave what follows it.

    A block gives 128 KiB at most; fed with whole pieces, the library would return all that they hold.
    """
    return filter(None, _blocks(source, layer))  # an empty piece would be an end


def _blocks(source: Stream, layer: int) -> Iterator[bytes]:
    def exactly(count: int) -> bytes:
        data = source.read(count)
        if len(data) < count:
            raise Unreadable(layer, "it ends early")
        return data

    head = exactly(5)
    if head[0] & 0xF0 == 0x50:  # a skippable frame: a size, and that many bytes
        count = int.from_bytes(head[4:] + exactly(3), "little")
        if sum(map(len, source.take(count))) < count:
            raise Unreadable(layer, "it ends early")
        return
    single, checksum = head[4] >> 5 & 1, head[4] >> 2 & 1
    content = (single, 2, 4, 8)[head[4] >> 6]
    expand = zstandard_expander(WINDOW)
    packed = head + exactly((0 if single else 1) + (0, 1, 2, 4)[head[4] & 3] + content)
    last = 0
    try:
        yield expand(packed)
        while not last:
            header = exactly(3)
            number = int.from_bytes(header, "little")
            last, kind, count = number & 1, number >> 1 & 3, number >> 3
            yield expand(header + exactly(1 if kind == 1 else count))  # 1: one byte, repeated
        yield expand(exactly(4)) if checksum else b""
    except ValueError as error:
        raise Unreadable(layer, f"it is damaged ({error})") from error


Decoder = Callable[[Stream, int], Iterator[bytes]]

_STREAMS: dict[Format, tuple[bytes, Decoder]] = {
    Format.GZIP: (b"\x1f\x8b", lambda source, layer: inflated(source, layer, 31)),
    Format.BZIP2: (b"BZh", bunzipped),
    Format.XZ: (b"\xfd7zXZ\0", unxzed),
    Format.ZSTD: (b"", unzstded),  # frames have several magics
}


def decompressed(source: Stream, format: Format, layer: int, budget: Budget) -> Iterator[bytes]:
    """Yield all that a compressed file holds: its streams one after the other, NULs between and behind them.

    Raises `Unreadable` where it is damaged, ends early or something else follows, and `Exhausted`.
    """
    magic, decoder = _STREAMS[format]
    while True:
        yield from budget.meter(decoder(source, layer))
        while (head := source.peek(PIECE)) and not head.strip(b"\0"):
            source.read(len(head))
        head = source.peek(PIECE)
        if not head:
            return
        source.read(len(head) - len(head.lstrip(b"\0")))
        if not source.peek(8).startswith(magic):
            raise Unreadable(layer, "something else follows its end")
