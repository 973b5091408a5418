"""The engines for the compressed streams that are read."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from typing import cast

import zstandard
from zlib_ng import zlib_ng

from installer_stub import expand
from installer_stub.expand import Make

_ZLIB_ERROR = cast("type[Exception]", zlib_ng.error)  # its stub calls it an instance
_ERRORS = (_ZLIB_ERROR, lzma.LZMAError, zstandard.ZstdError)
_ENGINES: dict[bytes, Make] = {
    expand.GZIP: lambda: expand.Gunzip(zlib_ng.decompressobj(wbits=31)),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    expand.ZSTD: lambda: expand.Unzstd(zstandard.ZstdDecompressor(max_window_size=expand.ZSTD_WINDOW).decompressobj()),
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
