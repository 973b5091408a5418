"""The compressed streams, read: in bounded memory, whatever a stream says, and to its very end."""

from __future__ import annotations

import bz2
import itertools
import lzma
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import zstandard
from zlib_ng import zlib_ng

from installer_stub.tarstream import damaged

_KIB, _MIB = 1 << 10, 1 << 20


def zstandard_expander(window: int) -> Callable[[bytes], bytes]:
    """Return a function that takes the next bytes of one zstd frame and returns what they hold.

    That may be all that they can be expanded to. It raises ValueError for bytes that are no zstd, and for a
    frame that refers further back than ``window`` bytes.
    """
    engine = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()

    def expand(packed: bytes) -> bytes:
        try:
            return engine.decompress(packed)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return expand


def expanded(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return a function that gives the bytes of a compressed stream, or of one that is not compressed.

    Both take a number and give at most that many bytes, none only at the end; what is given never takes more
    than 128 MiB of memory, whatever the stream says. Its first bytes tell its format. Raises
    `ArchiveDamaged` for a stream that is damaged or cut, or that is not the last thing in its file.
    """
    first = read(_PACKED)
    engine = next((make() for magic, make in _MAGIC.items() if first.startswith(magic)), None)
    pieces: Iterator[bytes] = itertools.chain((first,), iter(lambda: read(_PACKED), b""))
    if engine is not None:
        pieces = _expand(engine, pieces)
    rest = b""

    def take(count: int) -> bytes:
        nonlocal rest
        piece = rest or next(pieces, b"")
        rest = piece[count:]
        return piece[:count]

    return take


class _Expander(Protocol):
    """A decompressor as those of ``bz2`` and ``lzma`` are."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Gunzip:
    def __init__(self) -> None:
        self._engine = zlib_ng.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def needs_input(self) -> bool:
        return not self._full

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        out = self._engine.decompress(self._engine.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length  # there may be more in it
        return out


class _Unzstd:
    """The library cannot be told how much to give: a few bytes may stand for 128 KiB."""

    def __init__(self) -> None:
        self._engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def needs_input(self) -> bool:
        return not self._left

    @property
    def unused_data(self) -> bytes:
        return self._engine.unused_data + self._left

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        data = self._left + data
        self._left = data[_ZSTD_STEP:]
        return self._engine.decompress(data[:_ZSTD_STEP])


_ZLIB_ERROR = cast("type[Exception]", zlib_ng.error)  # its stub calls it an instance
_PACKED = 256 * _KIB
_EXPANDED = _MIB
_ZSTD_WINDOW = 128 * _MIB  # as much as zstd itself takes without being told
_ZSTD_STEP = 4 * _KIB  # at 128 KiB for 4 bytes, 128 MiB
_MAGIC: dict[bytes, Callable[[], _Expander]] = {
    b"\x1f\x8b": _Gunzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    b"\x28\xb5\x2f\xfd": _Unzstd,
}


def _expand(engine: _Expander, packed: Iterator[bytes]) -> Iterator[bytes]:
    while not engine.eof:
        data = b""
        if engine.needs_input:
            data = next(packed, b"")
            if not data:
                raise damaged("its compressed stream is cut")
        try:
            piece = engine.decompress(data, _EXPANDED)
        except (OSError, ValueError, EOFError, _ZLIB_ERROR, lzma.LZMAError, zstandard.ZstdError) as error:
            raise damaged(f"its compressed stream is damaged: {error}") from error
        if piece:
            yield piece
    if engine.unused_data or next(packed, b""):
        raise damaged("it goes on behind its compressed stream")
