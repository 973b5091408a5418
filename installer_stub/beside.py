"""A second process of this program, which shares memory with the first and talks with it.

It is forked, so it begins with all that the first one has; it ends when the first one does, however that happens.
"""

from __future__ import annotations

import errno
import marshal
import mmap
import os
import signal
import struct
from contextlib import suppress
from typing import Any, Callable, Optional

from installer_stub.writing import write_all

_LENGTH = struct.Struct("<I")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Line:
    """One side's end of the talk. A message is anything that ``marshal`` takes."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing

    def send(self, message: Any) -> None:
        """Send a message. Raises OSError where the other side has ended."""
        data = marshal.dumps(message)
        try:
            write_all(self._writing, _LENGTH.pack(len(data)) + data)
        except BrokenPipeError as error:
            raise _ended() from error

    def receive(self) -> Any:
        """Wait for a message. Raises OSError where the other side has ended."""
        return marshal.loads(self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0]))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = os.read(self._reading, count - len(data))
            if not piece:
                raise _ended()
            data += piece
        return data

    def fileno(self) -> int:
        """Return the descriptor that can be read when a message comes."""
        return self._reading

    def close(self) -> None:
        """Hang up."""
        os.close(self._reading)
        os.close(self._writing)


Work = Callable[[memoryview, Line], object]


class Second:
    """The other process, as the first one sees it: ``shared`` memory, and a ``line`` to it.

    It calls ``work`` with the same two, and ends when that returns or raises. Raises OSError where it cannot be
    started: there may be no more processes, or no memory to share.
    """

    def __init__(self, size: int, work: Work) -> None:
        self._process: Optional[int] = None
        self.shared = mmap.mmap(-1, size)
        told, telling = os.pipe()
        answers, answering = os.pipe()
        self.line = Line(answers, telling)
        # Signals wait: the other process must not clean up as this one does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = os.fork()
            if not self._process:
                _serve(work, self.shared, Line(told, answering), self.line)
        except OSError:
            self.line.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(told)
            os.close(answering)

    def end(self, at_once: bool) -> None:
        """End the process: ``at_once``, or when it has done what it was told. Called again, this does nothing.

        The memory goes when nobody looks at it any more.
        """
        if self._process is None:
            return
        process, self._process = self._process, None
        self.line.close()  # at whose end it ends
        if at_once:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _serve(work: Work, shared: mmap.mmap, line: Line, others: Line) -> None:
    """Work until there is nobody more who tells; then end this process."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, too, and ends this one
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        others.close()
        work(memoryview(shared), line)
    finally:
        os._exit(0)  # nothing of the first process's is cleaned up here


def _ended() -> OSError:
    return OSError(errno.ECHILD, "a second process of this program was ended")
