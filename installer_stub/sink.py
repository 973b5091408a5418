"""A new file that is being written."""

from __future__ import annotations

import hashlib
import os

from installer_stub.rewrite import Digest
from installer_stub.tarstream import Bytes
from installer_stub.writing import begin_to_store, write_all

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PIECE = 1 << 20  # bytes, the most that are written at once

_ZEROS = bytes(PIECE)
_HOLE = 1 << 16  # bytes
_LARGE = 1 << 16  # bytes from which a file is stored at once; for smaller ones that costs more than it gains


class Sink:
    """A file that is open as ``descriptor`` and empty; long pieces of zeros become holes in it."""

    def __init__(self, descriptor: int, hashed: bool = False) -> None:
        self.descriptor = descriptor
        self._hasher = hashlib.sha256() if hashed else None
        self._size = 0

    def write(self, piece: Bytes) -> None:
        """Take the next bytes, at most `PIECE`."""
        self._size += len(piece)
        if self._hasher is not None:
            self._hasher.update(piece)
        if len(piece) >= _HOLE and not piece[0] and not piece[-1] and bytes(piece) == _ZEROS[: len(piece)]:
            os.lseek(self.descriptor, len(piece), os.SEEK_CUR)
        else:
            write_all(self.descriptor, piece)

    def end(self) -> None:
        """Let the file end where its content does, also behind a hole."""
        if self._size >= _HOLE:
            os.ftruncate(self.descriptor, self._size)
        if self._size >= _LARGE:
            begin_to_store(self.descriptor)

    @property
    def digest(self) -> Digest:
        """The digest of what was written."""
        return Digest(self._hasher.hexdigest() if self._hasher is not None else "", self._size)
