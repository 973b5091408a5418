"""A compressed stream, read to its very end in bounded memory, whatever it says. The engines come from the caller."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterator, Mapping, Tuple, Type

from installer_stub.tarstream import damaged

_KIB, _MIB = 1 << 10, 1 << 20
_PACKED = 256 * _KIB
_EXPANDED = _MIB
_ZSTD_STEP = 4 * _KIB  # at 128 KiB for 4 bytes, 128 MiB

ZSTD_WINDOW = 128 * _MIB  # as much as zstd itself takes without being told
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

# Makes a decompressor as those of ``bz2`` and ``lzma`` are.
Make = Callable[[], Any]


def expanded(
    read: Callable[[int], bytes], engines: Mapping[bytes, Make], errors: Tuple[Type[Exception], ...]
) -> Callable[[int], bytes]:
    """Return a function that gives the bytes of a compressed stream, or of one that is not compressed.

    Both take a number and give at most that many bytes, none only at the end; what is given never takes more
    than 128 MiB of memory, whatever the stream says. Its first bytes, the keys of ``engines``, tell its format;
    ``errors`` are what these raise. Raises ArchiveDamaged for a stream that is damaged or cut, or that is not
    the last thing in its file.
    """
    first = read(_PACKED)
    engine = next((make() for magic, make in engines.items() if first.startswith(magic)), None)
    pieces: Iterator[bytes] = itertools.chain((first,), iter(lambda: read(_PACKED), b""))
    if engine is not None:
        pieces = _expand(engine, pieces, errors)
    rest = b""

    def take(count: int) -> bytes:
        nonlocal rest
        piece = rest or next(pieces, b"")
        rest = piece[count:]
        return piece[:count]

    return take


def _expand(engine: Any, packed: Iterator[bytes], errors: Tuple[Type[Exception], ...]) -> Iterator[bytes]:
    expected: Tuple[Type[Exception], ...] = (*errors, OSError, ValueError, EOFError)
    while not engine.eof:
        data = b""
        if engine.needs_input:
            data = next(packed, b"")
            if not data:
                raise damaged("its compressed stream is cut")
        try:
            piece = engine.decompress(data, _EXPANDED)
        except expected as error:
            raise damaged(f"its compressed stream is damaged: {error}") from error
        if piece:
            yield piece
    if engine.unused_data or next(packed, b""):
        raise damaged("it goes on behind its compressed stream")


class Gunzip:
    """One gzip member, by an object as ``zlib.decompressobj(31)`` gives it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._full = False

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return bool(self._engine.eof)

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to give without more bytes."""
        return not self._full

    @property
    def unused_data(self) -> bytes:
        """What came behind the end of the stream."""
        return bytes(self._engine.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes, at most ``max_length`` of them."""
        out: bytes = self._engine.decompress(self._engine.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length  # there may be more in it
        return out


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
        step = self._data[self._at : self._at + _ZSTD_STEP]
        self._at += len(step)
        out: bytes = self._engine.decompress(step)
        return out
