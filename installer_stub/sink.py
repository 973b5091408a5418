"""A new file that is being written."""

from __future__ import annotations

import hashlib
import os
from typing import Union

from installer_stub.rewrite import Digest
from installer_stub.writing import write_all

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PIECE = 1 << 20  # bytes in which a file is written: where all of them are zeros there will be a hole

_ZEROS = bytes(PIECE)


class Sink:
    """A file that is open as ``descriptor`` and empty; whole pieces of zeros become holes in it."""

    def __init__(self, descriptor: int, hashed: bool = False) -> None:
        self.descriptor = descriptor
        self._hasher = hashlib.sha256() if hashed else None
        self._size = 0

    def write(self, piece: Union[bytes, memoryview]) -> None:
        """Take the next bytes."""
        self._size += len(piece)
        if self._hasher is not None:
            self._hasher.update(piece)
        if len(piece) == PIECE and piece == _ZEROS:
            os.lseek(self.descriptor, PIECE, os.SEEK_CUR)
        else:
            write_all(self.descriptor, piece)

    def end(self) -> None:
        """Let the file end where its content does, also behind a hole."""
        if self._size >= PIECE:
            os.ftruncate(self.descriptor, self._size)

    @property
    def digest(self) -> Digest:
        """The digest of what was written."""
        return Digest(self._hasher.hexdigest() if self._hasher is not None else "", self._size)
