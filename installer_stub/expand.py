"""A compressed stream, read to its very end in bounded memory, whatever it says. The engines come from the caller."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterator, Mapping, Tuple, Type

from installer_stub.tarstream import damaged

_PACKED = 256 << 10
_EXPANDED = 1 << 20

ZSTD_WINDOW = 128 << 20  # as much as zstd itself takes without being told
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
    while len(first) < max(map(len, engines)) and (more := read(_PACKED)):  # a pipe gives what it has
        first += more
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
