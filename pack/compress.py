"""The compressed streams: one gzip member, one bzip2 stream, one xz stream, one zstd frame.

All are compressed by several threads in bounded memory, and give the same bytes for every number of
threads, because blocks are cut at fixed places of the input. ``docs/compression.md`` says how they are
joined, why with these libraries, and what was measured.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import NamedTuple, Protocol

import zstandard
from zlib_ng import zlib_ng

from installer_stub.errors import UsageError

from .archive import Format, Writable

LEVELS = {
    Format.TAR: (0, 0, 9),
    Format.TAR_GZ: (0, 5, 9),
    Format.TAR_BZ2: (1, 9, 9),
    Format.TAR_XZ: (0, 6, 9),
    Format.TAR_ZST: (0, 3, 22),
    Format.ZIP: (0, 6, 9),
    Format.SQUASHFS: (0, 6, 9),
    Format.DIRECTORY: (0, 0, 9),
}
"""The lowest, the default and the highest level of each format; an installer has those of its payload.

What is not compressed takes the usual levels, so that a command need not change with the format.
"""

_KIB, _MIB = 1 << 10, 1 << 20
_JOB = 2  # windows: half of what zstd takes, which is half of the memory for 0.4 % more bytes
_WAITING = 4 * _MIB  # of blocks in flight, beside one for each thread: the first of them may take long
_XZ_BUDGET = 2048 * _MIB
_CHECKED = struct.Struct("<IQ")  # a CRC and a length
_TWO_INTEGERS = re.compile(rb"(?s:[\x80-\xff]*[\x00-\x7f]){2}")


def checked_level(format: Format, level: int | None) -> int:
    """Return the level to use, the format's default for None.

    Raises `UsageError` for a level that the format does not have.
    """
    lowest, default, highest = LEVELS[format]
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise UsageError(
            f"--compress-level {level}: {format.value} has the levels {lowest} to {highest}",
            tip=f"The default is {default}.",
        )
    return level


def library(format: Format) -> str:
    """Return the library that decides the compressed bytes, with its version; empty where none does."""
    return {
        Format.TAR_GZ: f"zlib-ng {zlib_ng.ZLIBNG_RUNTIME_VERSION}",
        Format.TAR_BZ2: "libbz2",  # Python does not tell the versions of these two
        Format.TAR_XZ: "liblzma",
        Format.TAR_ZST: f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}",
    }.get(format, "")


def checksum(data: bytes, before: int = 0) -> int:
    """Return the CRC-32 of ``data``, behind bytes whose CRC-32 is ``before``."""
    return zlib_ng.crc32(data, before)


def compressor(
    out: Writable, format: Format, level: int | None = None, threads: int = 1, threads_asked: bool = False
) -> Compressor:
    """Return a stream that compresses into ``out``.

    Use it in a ``with`` block, which closes it, or abandons it on an exception; ``out`` stays open. ``level``
    is None for the default. An xz stream takes no more threads than fit into 2 GiB of memory, unless
    ``threads_asked``: the user named the number. Raises `UsageError` for a wrong level.
    """
    level = checked_level(format, level)
    threads = max(1, threads)
    if format is Format.TAR_GZ:
        return _Blocks(out, _Gzip(level), threads)
    if format is Format.TAR_BZ2:
        return _Blocks(out, _Bzip2(level), threads)
    if format is Format.TAR_XZ:
        codec = _Xz(level)
        fitting = threads if threads_asked else max(1, _XZ_BUDGET // codec.memory)
        return _Blocks(out, codec, min(threads, fitting))
    if format is Format.TAR_ZST:  # whose level 0 is its default
        return _Zstandard(out, level, threads)
    return _Stored(out)


class Block(NamedTuple):
    """A compressed block of a stream, wherever in a stream it will stand.

    ``data`` are its bytes, and ``note`` what the format must know of it to join it: a checksum, lengths.
    """

    data: bytes
    note: bytes


class Keep(Protocol):
    """Takes the blocks of one piece of a stream, to put it into another stream."""

    def add(self, block: Block, /) -> None:
        """Take the next block."""

    def done(self) -> None:
        """Take it that there are no more."""


class Compressor(ABC):
    """A stream that is being compressed.

    Where ``piece`` is not 0 the stream can be put together from pieces, of which this many bytes of input are a good
    size: the bytes of a piece do not depend on what stands before it.
    """

    piece = 0

    def begin(self, keep: Keep | None) -> None:
        """End the piece that is being written, and begin another, whose blocks ``keep`` is given."""
        raise NotImplementedError

    def put(self, blocks: Iterable[Block]) -> None:
        """End the piece that is being written, and take one that was compressed before."""
        raise NotImplementedError

    @abstractmethod
    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and the end of the stream."""

    @abstractmethod
    def abandon(self) -> None:
        """Stop without writing anything more."""

    def __enter__(self) -> Compressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


class _Stored(Compressor):
    def __init__(self, out: Writable) -> None:
        self._out = out

    def write(self, data: bytes, /) -> int:
        self._out.write(data)
        return len(data)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Zstandard(Compressor):
    """One frame with a checksum of its content."""

    def __init__(self, out: Writable, level: int, threads: int) -> None:
        # With one worker or more zstd cuts its jobs at places that only the level decides; with none it
        # compresses otherwise. So -j1 is one worker, never none.
        window = zstandard.ZstdCompressionParameters.from_level(level).window_log
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, threads=threads, write_checksum=True, job_size=_JOB << window
        )
        engine = zstandard.ZstdCompressor(compression_params=parameters)
        self._out = out
        # Not stream_writer: writing here, an error of ``out`` cannot be lost in foreign code.
        self._engine = engine.compressobj()
        self._pending = bytearray()
        # At the highest levels a call may take minutes: whoever waits for a thread hears of a signal meanwhile.
        self._pool = ThreadPoolExecutor(1, "compress")

    def write(self, data: bytes, /) -> int:
        self._pending += data
        if len(self._pending) >= _MIB:  # each call costs as much as some kilobytes in it
            self._compress()
        return len(data)

    def _compress(self) -> None:
        data, self._pending = self._pending, bytearray()
        packed = self._pool.submit(self._engine.compress, data).result()
        if packed:
            self._out.write(packed)

    def close(self) -> None:
        try:
            self._compress()
            self._out.write(self._pool.submit(self._engine.flush).result())
        finally:
            self.abandon()

    def abandon(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Codec(ABC):
    """Compresses blocks independently of each other, and joins them to one stream."""

    size: int
    """Of a block of input, in bytes."""

    blocks: int
    """In a piece of a good size: with more a piece has more changes in it, with fewer more of them end too early."""

    @abstractmethod
    def header(self) -> bytes:
        """Return what the stream begins with."""

    @abstractmethod
    def encode(self, block: bytes, before: bytes) -> Block:
        """Compress a block, knowing the one before it. Runs in any thread."""

    @abstractmethod
    def join(self, block: Block) -> bytes:
        """Return the bytes of the stream. Called in the order of the blocks, in one thread."""

    @abstractmethod
    def trailer(self) -> bytes:
        """Return what the stream ends with, after the last block."""


class _Blocks(Compressor):
    """Cuts its input into blocks, has them compressed by several threads, and writes them in order."""

    def __init__(self, out: Writable, codec: _Codec, threads: int) -> None:
        self.piece = codec.size * codec.blocks
        self._out = out
        self._codec = codec
        self._pending = bytearray()
        self._before = b""
        self._keep: Keep | None = None
        self._ahead = threads + max(2, _WAITING // codec.size) if threads > 1 else 1  # steps in flight
        self._flight: deque[Callable[[], None]] = deque()
        # A large block may take a minute: whoever waits for a thread hears of a signal meanwhile.
        self._pool = ThreadPoolExecutor(threads, "compress") if threads > 1 or codec.size > _WAITING else None
        out.write(codec.header())

    def write(self, data: bytes, /) -> int:
        self._pending += data
        while len(self._pending) >= self._codec.size:
            block = bytes(self._pending[: self._codec.size])
            del self._pending[: self._codec.size]
            self._take(block)
        return len(data)

    def begin(self, keep: Keep | None) -> None:
        if self._pending:
            self._take(bytes(self._pending))
            self._pending.clear()
        if self._keep is not None:
            self._follow(self._keep.done)
        self._before = b""
        self._keep = keep

    def put(self, blocks: Iterable[Block]) -> None:
        self.begin(None)
        if self._flight:
            self._follow(partial(self._join_all, blocks))
        else:
            self._join_all(blocks)

    def close(self) -> None:
        try:
            self.begin(None)
            while self._flight:
                self._flight.popleft()()
            self._out.write(self._codec.trailer())
        finally:
            self.abandon()

    def abandon(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, block: bytes) -> None:
        before, self._before = self._before, block
        encoded: Callable[[], Block] = partial(self._codec.encode, block, before)
        if self._pool is not None:
            encoded = self._pool.submit(encoded).result
        self._follow(partial(self._join, encoded, self._keep))

    def _follow(self, step: Callable[[], None]) -> None:
        """Do ``step`` after all that was to be done before."""
        if self._pool is None:
            step()
            return
        self._flight.append(step)
        if len(self._flight) >= self._ahead:
            self._flight.popleft()()

    def _join(self, encoded: Callable[[], Block], keep: Keep | None) -> None:
        block = encoded()
        self._out.write(self._codec.join(block))
        if keep is not None:
            keep.add(block)

    def _join_all(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._out.write(self._codec.join(block))


class _Gzip(_Codec):
    """One member (RFC 1952). Deflate's sync flush ends each block at a byte boundary, so they join as they are."""

    size = 256 * _KIB
    blocks = 8

    def __init__(self, level: int) -> None:
        self._level = level
        self._crc = 0
        self._length = 0

    def header(self) -> bytes:
        extra = {9: 2, 1: 4}.get(self._level, 0)
        return struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, extra, 255)  # no name, no time, no system

    def encode(self, block: bytes, before: bytes) -> Block:
        # Primed with the window that a reader has there, a block loses nothing against one long stream.
        engine = zlib_ng.compressobj(self._level, zlib_ng.DEFLATED, -15, 8, 0, before[-32 * _KIB :])
        packed = engine.compress(block) + engine.flush(zlib_ng.Z_SYNC_FLUSH)
        return Block(packed, _CHECKED.pack(zlib_ng.crc32(block), len(block)))

    def join(self, block: Block) -> bytes:
        crc, length = _CHECKED.unpack(block.note)
        self._crc = zlib_ng.crc32_combine(self._crc, crc, length)
        self._length += length
        return block.data

    def trailer(self) -> bytes:
        last = b"\x03\x00"  # an empty block that is marked as the last
        return last + struct.pack("<II", self._crc, self._length & 0xFFFFFFFF)


class _Bzip2(_Codec):
    """One stream. Its blocks know nothing of each other, but end at any bit: they are shifted together."""

    blocks = 8
    _END = 0x177245385090

    def __init__(self, level: int) -> None:
        # Runs of four become five bytes before a block's size is counted: 4/5 always fits into one block.
        self.size = (level * 100_000 - 19) * 4 // 5 - 1
        self._level = level
        self._crc = 0
        self._rest = 0  # bits that are not yet a byte: their value and their number
        self._rest_length = 0

    def header(self) -> bytes:
        return b"BZh%d" % self._level

    def encode(self, block: bytes, before: bytes) -> Block:
        stream = int.from_bytes(bz2.compress(block, self._level)[4:], "big")
        padding = next(n for n in range(8) if (stream >> 32 + n) & 0xFFFF_FFFF_FFFF == self._END)
        bits = stream >> 80 + padding  # without the end mark and the checksum behind it
        length = bits.bit_length() + 2  # it begins with the digits of pi, 0x3141: two zero bits
        crc = bits >> length - 80 & 0xFFFF_FFFF
        return Block(bits.to_bytes(-(-length // 8), "big"), _CHECKED.pack(crc, length))

    def join(self, block: Block) -> bytes:
        crc, length = _CHECKED.unpack(block.note)
        self._crc = (self._crc << 1 | self._crc >> 31) & 0xFFFF_FFFF ^ crc
        return self._shift(int.from_bytes(block.data, "big"), length)

    def trailer(self) -> bytes:
        packed = self._shift(self._END << 32 | self._crc, 80)
        return packed + self._shift(0, -self._rest_length % 8)

    def _shift(self, bits: int, length: int) -> bytes:
        bits |= self._rest << length
        length += self._rest_length
        self._rest_length = length % 8
        self._rest = bits & (1 << self._rest_length) - 1
        return (bits >> self._rest_length).to_bytes(length // 8, "big")


class _Xz(_Codec):
    """One stream of many blocks, as ``xz -T`` writes it, with the index of them at its end."""

    blocks = 2
    _FLAGS = bytes([0, lzma.CHECK_CRC64])

    def __init__(self, level: int) -> None:
        dictionary = (256 * _KIB, *(mib * _MIB for mib in (1, 2, 4, 4, 8, 8, 16, 32, 64)))[level]
        self.size = max(3 * dictionary, _MIB)  # the sizes that xz -T takes
        # The encoder takes eleven dictionaries and some; a block is held twice, and once compressed.
        self.memory = 12 * dictionary + 3 * self.size
        self._level = level
        self._records: list[bytes] = []

    def header(self) -> bytes:
        return b"\xfd7zXZ\0" + self._FLAGS + struct.pack("<I", zlib_ng.crc32(self._FLAGS))

    def encode(self, block: bytes, before: bytes) -> Block:
        stream = lzma.compress(block, check=lzma.CHECK_CRC64, preset=self._level)
        index_length = 4 * struct.unpack("<I", stream[-8:-4])[0] + 4
        index = stream[-12 - index_length : -12]
        # An index is a zero, the number of records, here one, the records, zeros to a multiple of 4, a CRC32.
        record = _TWO_INTEGERS.match(index, 2)
        assert record is not None
        return Block(stream[12 : -12 - index_length], record.group())

    def join(self, block: Block) -> bytes:
        self._records.append(block.note)
        return block.data

    def trailer(self) -> bytes:
        index = b"\0" + _integer(len(self._records)) + b"".join(self._records)
        index += bytes(-len(index) % 4)
        size = struct.pack("<I", len(index) // 4)  # with the CRC32, less one, in units of 4 bytes
        checks = struct.pack("<II", zlib_ng.crc32(index), zlib_ng.crc32(size + self._FLAGS))
        return index + checks + size + self._FLAGS + b"YZ"


def _integer(value: int) -> bytes:
    """Return a number as xz writes it: seven bits a byte, the lowest first."""
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)
