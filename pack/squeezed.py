"""What is held compressed in memory: a scan's result stays there while all of it is written."""

from __future__ import annotations

import zstandard


class Squeezed:
    """Bytes of which memory holds less than they are, since they are needed much later, and ``bytes`` gives them."""

    __slots__ = ("_packed", "_size")

    def __init__(self, data: bytes) -> None:
        # A copy: what the library returns has as much room as the data could need.
        self._packed = bytes(memoryview(zstandard.compress(data, 1)))
        self._size = len(data)

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return zstandard.decompress(self._packed)
