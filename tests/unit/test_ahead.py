"""What a second process reads ahead is what the first one would have read, errors and end included."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from installer_stub import ahead
from installer_stub.ahead import Ahead, Source
from installer_stub.errors import NoRelocator, PackError, VerifyFailed
from installer_stub.tarstream import ArchiveDamaged

LARGE = random.Random(7).randbytes(40 << 20)  # more than all that is read ahead


class Memory(Source):
    """Gives ``content`` in pieces of all sizes; then it raises ``error``, if any; ``log`` is told what it is asked."""

    def __init__(self, content: bytes, error: Exception | None = None, log: Path | None = None) -> None:
        self._content = content
        self._error = error
        self._log = log
        self._at = 0

    def read(self, count: int, /) -> bytes:
        size = min(count, 1 + self._at % 300_000)
        piece = self._content[self._at : self._at + size]
        self._at += len(piece)
        if not piece and self._error is not None:
            raise self._error
        self._note(f"{self._at}")
        return piece

    def finish(self) -> None:
        self._note("finish")
        if self._at < len(self._content):
            raise ArchiveDamaged("not at the end", "read on")

    def require_whole(self) -> None:
        self._at = len(self._content)
        self._note("whole")

    def close(self) -> None:
        self._note("close")

    def _note(self, what: str) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(what + "\n")


def read_all(source: Source, count: int = 1 << 20) -> bytes:
    return b"".join(iter(lambda: bytes(source.read(count)), b""))


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, len(LARGE)])
@pytest.mark.parametrize("count", [1000, 1 << 20, 1 << 30])
def test_the_same_bytes_come(size: int, count: int) -> None:
    source = Ahead(partial(Memory, LARGE[:size]))
    assert read_all(source, count if size < len(LARGE) else 1 << 20) == LARGE[:size]
    assert source.read(1) == b"", "the end stays the end"
    source.finish()
    source.close()


@pytest.mark.parametrize("kind", [PackError, ArchiveDamaged, NoRelocator])
@pytest.mark.parametrize("size", [0, 5 << 20])
def test_its_errors_are_raised_here(kind: type[PackError], size: int) -> None:
    source = Ahead(partial(Memory, LARGE[:size], kind("what is wrong", "what to do")))
    with pytest.raises(kind, match="what is wrong") as raised:
        read_all(source)
    assert type(raised.value) is kind
    assert raised.value.tip == "what to do"
    source.require_whole()
    source.close()


def test_an_error_of_another_kind_keeps_its_words() -> None:
    source = Ahead(partial(Memory, b"", VerifyFailed("something else")))
    with pytest.raises(PackError, match="something else"):
        source.read(1)
    source.close()


def test_it_is_asked_at_the_end_or_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = Ahead(partial(Memory, LARGE, None, log))
    source.read(10)
    with pytest.raises(ArchiveDamaged, match="not at the end") as raised:
        source.finish()
    assert raised.value.tip == "read on"
    source.require_whole()
    source.finish()
    source.close()
    assert log.read_text().splitlines()[-3:] == ["finish", "whole", "finish"]


def test_it_reads_no_further_ahead_than_there_is_room(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = Ahead(partial(Memory, LARGE, None, log))
    source.read(1)
    with pytest.raises(ArchiveDamaged):
        source.finish()  # which is answered when there is no room any more
    positions = [int(line) for line in log.read_text().splitlines() if line.isdigit()]
    assert max(positions) <= 33 << 20 < len(LARGE)
    source.close()


def test_it_was_killed() -> None:
    source = Ahead(partial(Memory, LARGE))
    assert source._second._process is not None
    os.kill(source._second._process, signal.SIGKILL)
    with pytest.raises(PackError, match="ended before its time") as raised:
        read_all(source)
    assert raised.value.code == 1
    with pytest.raises(PackError, match="ended before its time"):
        source.finish()
    source.close()


def test_where_there_may_be_no_more_processes_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    before = sorted(os.listdir("/proc/self/fd"))
    source = ahead.started(partial(Memory, LARGE), apart=True)
    assert isinstance(source, Memory)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert read_all(source) == LARGE


@pytest.mark.parametrize("work", [lambda source: None, lambda source: source.read(100), read_all])
def test_no_process_and_no_file_stays(work: Callable[[Source], object]) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    source = Ahead(partial(Memory, LARGE))
    process = source._second._process
    work(source)
    source.close()
    source.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_it_ends_with_the_first_process(tmp_path: Path) -> None:
    """Also where that is killed, and can end nothing."""
    log = tmp_path / "log"
    first = os.fork()
    if not first:
        try:
            Ahead(partial(Memory, LARGE, None, log)).read(100)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(first, 0)
    deadline = time.monotonic() + 60
    while "close" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
