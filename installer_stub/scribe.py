"""A second process that makes files, so that a tree is extracted on two processors.

The first one reads, checks and hashes; small files, which are most, it hands over by their contents in memory that
both share. On a tmpfs making a file takes as long as all else about it.
"""

from __future__ import annotations

import errno
import marshal
import mmap
import os
import signal
import struct
from contextlib import suppress
from typing import Any, List, Optional, Tuple

LARGEST = (1 << 20) - 1  # bytes of a file that is handed over: in larger ones holes are made
_HALF = 4 << 20  # of the shared memory: one is filled while the other is worked on
_LENGTH = struct.Struct("<I")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        self._process: Optional[int] = None
        self._shared = mmap.mmap(-1, 2 * _HALF)
        reading, self._sending = os.pipe()
        self._answers, answering = os.pipe()
        # Signals wait: the other process must not clean up as this one does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = os.fork()
            if not self._process:
                _serve(self._shared, root, gid, reading, answering, (self._sending, self._answers))
        except OSError:
            os.close(self._sending)
            os.close(self._answers)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(reading)
            os.close(answering)

    def make(self, path: bytes, mode: int, mtime: int, content: bytes) -> None:
        """Have a file made, whose directory is there, of at most `LARGEST` bytes."""
        if self._used + len(content) > _HALF:
            self._send()
        at = self._half * _HALF + self._used
        self._shared[at : at + len(content)] = content
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
        if self._process is None:
            return
        process, self._process = self._process, None
        os.close(self._sending)  # at whose end it ends
        os.close(self._answers)
        if self._waiting:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        self._shared.close()

    def _send(self) -> None:
        if not self._orders:
            return
        data = marshal.dumps(self._orders)
        try:
            _write(self._sending, _LENGTH.pack(len(data)) + data)
        except BrokenPipeError as error:
            raise _ended() from error
        self._waiting += 1
        self._orders, self._used, self._half = [], 0, 1 - self._half
        if self._waiting == 2:  # the half that is filled next is still worked on
            self._answer()

    def _answer(self) -> None:
        code, path = marshal.loads(_received(self._answers))
        self._waiting -= 1
        if code:
            raise OSError(code, os.strerror(code), path)


def _serve(shared: mmap.mmap, root: int, gid: int, reading: int, answering: int, others: Tuple[int, ...]) -> None:
    """Make files as told, until there is nobody more who tells; then end this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, too, and ends this one
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for descriptor in others:
            os.close(descriptor)
        view = memoryview(shared)
        while True:
            orders: List[Any] = marshal.loads(_received(reading))
            code, path = 0, b""
            try:
                for path, mode, mtime, at, length in orders:
                    _make(root, path, mode, mtime, gid, view[at : at + length])
            except OSError as error:
                code = error.errno or errno.EIO
            data = marshal.dumps((code, path))
            _write(answering, _LENGTH.pack(len(data)) + data)
    finally:
        os._exit(0)  # nothing of the first process's is cleaned up here


def _make(root: int, path: bytes, mode: int, mtime: int, gid: int, content: memoryview) -> None:
    descriptor = os.open(path, NEW, 0o600, dir_fd=root)
    try:
        _write(descriptor, content)
        if gid >= 0:
            os.fchown(descriptor, -1, gid)
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime * 10**9, mtime * 10**9))
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: Any) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


def _received(descriptor: int) -> bytes:
    """Read one message. Raises OSError where the other side has ended."""
    length = _LENGTH.unpack(_read(descriptor, _LENGTH.size))[0]
    return _read(descriptor, length)


def _read(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = os.read(descriptor, count - len(data))
        if not piece:
            raise _ended()
        data += piece
    return data


def _ended() -> OSError:
    return OSError(errno.EPIPE, "the process that makes its files was ended")
