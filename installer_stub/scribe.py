"""A second process that makes files, so that a tree is extracted on two processors.

The first one checks what comes; small files, which are most, it hands over by their contents in memory that
both share. On a tmpfs making a file takes as long as all else about it.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import List, Tuple

from installer_stub.beside import Line, Second, write_all

LARGEST = (1 << 20) - 1  # bytes of a file that is handed over: in larger ones holes are made
_HALF = 4 << 20  # of the shared memory: one is filled while the other is worked on
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_Order = Tuple[bytes, int, int, int, int]  # path, permission bits, mtime in seconds, offset and length of the content


class Scribe:
    """The other process, as this one sees it. Whatever becomes of it, `close` ends it.

    A file is made below the directory that is open as ``root``, as ``gid``'s unless that is -1. An error of
    making one is raised by a later call, as OSError; one of starting it by the first.
    """

    def __init__(self, root: int, gid: int) -> None:
        self._orders: List[_Order] = []
        self._half = 0
        self._used = 0
        self._waiting = 0  # answers that have not come
        self._second = Second(2 * _HALF, partial(_serve, root, gid))

    def make(self, path: bytes, mode: int, mtime: int, content: bytes) -> None:
        """Have a file made, whose directory is there, of at most `LARGEST` bytes."""
        if self._used + len(content) > _HALF:
            self._send()
        at = self._half * _HALF + self._used
        self._second.shared[at : at + len(content)] = content
        self._orders.append((path, mode, mtime, at, len(content)))
        self._used += len(content)

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
        self._orders, self._used, self._half = [], 0, 1 - self._half
        if self._waiting == 2:  # the half that is filled next is still worked on
            self._answer()

    def _answer(self) -> None:
        code, path = self._second.line.receive()
        self._waiting -= 1
        if code:
            raise OSError(code, os.strerror(code), path)


def _serve(root: int, gid: int, shared: memoryview, line: Line) -> None:
    """Make files as told."""
    while True:
        orders: List[_Order] = line.receive()
        code, path = 0, b""
        try:
            for path, mode, mtime, at, length in orders:
                _make(root, path, mode, mtime, gid, shared[at : at + length])
        except OSError as error:
            code = error.errno or errno.EIO
        line.send((code, path))


def _make(root: int, path: bytes, mode: int, mtime: int, gid: int, content: memoryview) -> None:
    descriptor = os.open(path, NEW, 0o600, dir_fd=root)
    try:
        write_all(descriptor, content)
        if gid >= 0:
            os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime * 10**9, mtime * 10**9))
    finally:
        os.close(descriptor)
