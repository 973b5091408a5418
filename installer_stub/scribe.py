"""A second process that makes files, so that a tree is extracted on two processors.

The first one checks what comes, and hands over contents in memory that both share. On a tmpfs making a file takes as
long as all else about it.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import List, Optional, Tuple

from installer_stub.beside import Line, Second
from installer_stub.sink import NEW, PIECE, Sink
from installer_stub.tarstream import Bytes

_PARTS = 16  # of the shared memory: while some are worked on, others are filled

# Path, permission bits, mtime in seconds, the pieces of the content in the shared memory, whether it ends with them.
_Order = Tuple[bytes, int, int, List[Tuple[int, int]], bool]


class Scribe:
    """The other process, as this one sees it. Whatever becomes of it, `close` ends it.

    A file is made below the directory that is open as ``root``, as ``gid``'s unless that is -1. An error of
    making one is raised by a later call, as OSError; one of starting it by the first.
    """

    def __init__(self, root: int, gid: int) -> None:
        self._orders: List[_Order] = []
        self._file: Tuple[bytes, int, int] = (b"", 0, 0)  # the one that is being written
        self._pieces: List[Tuple[int, int]] = []  # of it
        self._part = 0  # the one that is being filled
        self._used = 0  # bytes of it
        self._waiting = 0  # answers that have not come
        self._second = Second(_PARTS * PIECE, partial(_serve, root, gid))

    def begin(self, path: bytes, mode: int, mtime: int) -> None:
        """Have a file made, whose directory is there; its content is written behind this."""
        self._file = (path, mode, mtime)

    def write(self, piece: Bytes) -> None:
        """Take the next bytes of the file, at most `PIECE`."""
        if self._used + len(piece) > PIECE:
            if self._pieces:
                self._order(ends=False)
            self._send()
        at = self._part * PIECE + self._used
        self._second.shared[at : at + len(piece)] = piece
        self._pieces.append((at, len(piece)))
        self._used += len(piece)

    def end(self) -> None:
        """Take it that the file is whole."""
        self._order(ends=True)

    def _order(self, ends: bool) -> None:
        self._orders.append((*self._file, self._pieces, ends))
        self._pieces = []

    def finish(self) -> None:
        """Wait until all files are made, and end the process."""
        self._send()
        while self._waiting:
            self._answer()
        self.close()

    def close(self) -> None:
        """End the process, wherever it is."""
        self._second.end(at_once=self._waiting > 0)

    def _send(self) -> None:
        if not self._orders:
            return
        self._second.line.send(self._orders)
        self._waiting += 1
        self._orders, self._used, self._part = [], 0, (self._part + 1) % _PARTS
        if self._waiting == _PARTS:  # the part that is filled next is still worked on
            self._answer()

    def _answer(self) -> None:
        code, path = self._second.line.receive()
        self._waiting -= 1
        if code:
            raise OSError(code, os.strerror(code), path)


def _serve(root: int, gid: int, shared: memoryview, line: Line) -> None:
    """Make files as told."""
    sink: Optional[Sink] = None  # of a file that goes on with the next orders
    while True:
        orders: List[_Order] = line.receive()
        code, path = 0, b""
        try:
            for path, mode, mtime, pieces, ends in orders:
                sink = sink or Sink(os.open(path, NEW, 0o600, dir_fd=root))
                for at, length in pieces:
                    sink.write(shared[at : at + length])
                if ends:
                    _finish(sink, mode, mtime, gid)
                    sink = None
        except OSError as error:
            code = error.errno or errno.EIO
        line.send((code, path))


def _finish(sink: Sink, mode: int, mtime: int, gid: int) -> None:
    sink.end()
    if gid >= 0:
        os.fchown(sink.descriptor, -1, gid)
    os.fchmod(sink.descriptor, mode)
    os.utime(sink.descriptor, ns=(mtime * 10**9, mtime * 10**9))
    os.close(sink.descriptor)
