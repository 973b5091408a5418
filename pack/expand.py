"""The engines for the compressed streams that are read."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from typing import Any, cast

import zstandard
from zlib_ng import zlib_ng

from installer_stub import expand
from installer_stub.expand import Make

_STEP = 4 << 10  # bytes of zstd; at 128 KiB for 4 bytes, 128 MiB


class Unzstd:
    """One zstd frame. The library cannot be told how much to give: a few bytes may stand for 128 KiB."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._data = b""
        self._at = 0  # what lies before is taken

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return bool(self._engine.eof)

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to give without more bytes."""
        return self._at >= len(self._data)

    @property
    def unused_data(self) -> bytes:
        """What came behind the end of the stream."""
        return bytes(self._engine.unused_data) + self._data[self._at :]

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes."""
        if data:
            self._data, self._at = data, 0
        step = self._data[self._at : self._at + _STEP]
        self._at += len(step)
        out: bytes = self._engine.decompress(step)
        return out


_ZLIB_ERROR = cast("type[Exception]", zlib_ng.error)  # its stub calls it an instance
_ERRORS = (_ZLIB_ERROR, lzma.LZMAError, zstandard.ZstdError)
_ENGINES: dict[bytes, Make] = {
    expand.GZIP: lambda: expand.Gunzip(zlib_ng.decompressobj(wbits=31)),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    expand.ZSTD: lambda: Unzstd(zstandard.ZstdDecompressor(max_window_size=expand.ZSTD_WINDOW).decompressobj()),
}


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
    """Return a function that gives the bytes of a stream in any format that we write; see ``installer_stub.expand``."""
    return expand.expanded(read, _ENGINES, _ERRORS)
