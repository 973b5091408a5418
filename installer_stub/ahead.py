"""A second process that reads ahead: expanding a stream, and hashing it, then take no time of the first one's."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Callable, Dict, Optional, Type

from installer_stub.beside import Line, Second
from installer_stub.errors import NoRelocator, PackError
from installer_stub.tarstream import ArchiveDamaged, Bytes

_SLOT = 1 << 20  # bytes of the shared memory that are filled, and given back, as one
_SLOTS = 32

# By name, since the other process can send no more. What is none of these reads as the last.
_ERRORS: Dict[str, Type[PackError]] = {kind.__name__: kind for kind in (ArchiveDamaged, NoRelocator, PackError)}


class Source:
    """Gives the bytes of a tar stream. Where nothing tells whether they are right, all but ``read`` do nothing."""

    def read(self, count: int, /) -> Bytes:
        """Return 1 to ``count`` bytes, none at the end; they stay until the next call."""
        raise NotImplementedError

    def fill(self, room: memoryview) -> int:
        """Put the next bytes there, as many as it takes; return how many these are, fewer only at the end."""
        size = 0
        while size < len(room):
            piece = self.read(len(room) - size)
            if not piece:
                break
            room[size : size + len(piece)] = piece
            size += len(piece)
        return size

    def finish(self) -> None:
        """Raise ArchiveDamaged unless all that was read, which must be all that there is, was right."""

    def require_whole(self) -> None:
        """Read on to the end of what is packed, and do what ``finish`` does."""

    def close(self) -> None:
        """End what works for it."""


class Expanding(Source):
    """What ``begin`` expands: it is called when the first bytes are asked for, and may raise then what a stream may."""

    def __init__(self, begin: Callable[[], Callable[[int], bytes]]) -> None:
        self._begin = begin
        self._expanded: Optional[Callable[[int], bytes]] = None

    def read(self, count: int, /) -> bytes:
        """Return 1 to ``count`` bytes, none at the end."""
        if self._expanded is None:
            self._expanded = self._begin()
        return self._expanded(count)


class Ahead(Source):
    """A source that the other process makes and reads. What it raises there is raised here, by the call that meets it.

    Raises OSError where there may be no more processes.
    """

    def __init__(self, make: Callable[[], Source]) -> None:
        self._second = Second(_SLOTS * _SLOT, partial(_serve, make))
        self._shared = memoryview(self._second.shared)
        self._slot = -1  # none yet
        self._at = 0
        self._length = 0  # of what the slot holds
        self._ended = False

    def read(self, count: int, /) -> Bytes:
        """Return 1 to ``count`` bytes, none at the end; they stay until the next call."""
        if self._at == self._length:
            self._advance()
        start = self._slot * _SLOT + self._at
        size = min(count, self._length - self._at)
        self._at += size
        return self._shared[start : start + size]

    def _advance(self) -> None:
        """Give a slot back, and take the next; at the end that is empty."""
        if self._ended:
            return
        if self._slot >= 0:
            self._tell(_FREE)
        self._slot = (self._slot + 1) % _SLOTS
        self._at, self._length = 0, 0
        self._ended = True  # also where this raises
        self._length = _value(self._told()[1])
        self._ended = not self._length

    def finish(self) -> None:
        """Raise ArchiveDamaged unless all that was read, which must be all that there is, was right."""
        self._ask(_FINISH)

    def require_whole(self) -> None:
        """Read on to the end of what is packed, and do what ``finish`` does."""
        self._ask(_REQUIRE_WHOLE)

    def close(self) -> None:
        """End the other process, wherever it is."""
        self._second.end(at_once=True)

    def _ask(self, what: str) -> None:
        self._tell(what)
        while True:
            of_asking, answer = self._told()
            if of_asking:  # else it is of reading ahead, for which nobody asks any more
                _value(answer)
                return

    def _tell(self, what: str) -> None:
        try:
            self._second.line.send(what)
        except OSError as error:
            raise _lost() from error

    def _told(self) -> Any:
        try:
            return self._second.line.receive()
        except OSError as error:
            raise _lost() from error


def started(make: Callable[[], Source], apart: bool) -> Source:
    """Make a source; ``apart`` by a second process, if there may be one."""
    if apart:
        with suppress(OSError):
            return Ahead(make)
    return make()


_FREE, _FINISH, _REQUIRE_WHOLE = "free", "finish", "require whole"  # what is asked


def _serve(make: Callable[[], Source], shared: memoryview, line: Line) -> None:
    """Fill the slots that are free, in turn; when none is, or nothing is left, do as asked."""
    source = make()
    asked: Dict[str, Callable[[], None]] = {_FINISH: source.finish, _REQUIRE_WHOLE: source.require_whole}
    slot, free, more = 0, _SLOTS, True
    try:
        while True:
            if free and more:
                answer = _attempt(partial(source.fill, shared[slot * _SLOT : (slot + 1) * _SLOT]))
                more = isinstance(answer, int) and answer > 0
                slot, free = (slot + 1) % _SLOTS, free - 1
                line.send((False, answer))
                continue
            told = line.receive()
            if told == _FREE:
                free += 1
            else:
                line.send((True, _attempt(asked[told])))
    finally:
        source.close()


def _attempt(work: Callable[[], Optional[int]]) -> Any:
    """Return what comes of some work: a number or None, or what makes its error again."""
    try:
        return work()
    except PackError as error:
        kind = type(error).__name__
        return kind if kind in _ERRORS else PackError.__name__, str(error), error.tip


def _value(answer: Any) -> int:
    if isinstance(answer, tuple):
        kind, message, tip = answer
        raise _ERRORS[kind](message, tip)
    return int(answer or 0)


def _lost() -> PackError:
    return PackError(
        "the process that reads the archive ended before its time.",
        "It may have been short of memory. Nothing was left behind; try again.",
    )
