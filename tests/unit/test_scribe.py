"""Files made by a second process are what was asked for; its errors arrive, and it never outlives the first."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer_stub.scribe import Scribe
from installer_stub.sink import PIECE


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    descriptor = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def scribe(root: int) -> Iterator[Scribe]:
    made = Scribe(root, -1)
    yield made
    made.close()


def make(scribe: Scribe, path: bytes, mode: int, mtime: int, content: bytes) -> None:
    scribe.begin(path, mode, mtime)
    for at in range(0, len(content), PIECE):
        scribe.write(content[at : at + PIECE])
    scribe.end()


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_files_are_made_as_told(scribe: Scribe, tmp_path: Path) -> None:
    """More of them than fit into the memory that is shared, several times over, of all sizes."""
    sizes = [0, 1, 4095, 70_000, PIECE - 1, PIECE, PIECE + 1, 11 * PIECE, 4 * PIECE + 5] * 6 + [10] * 3000
    contents = {
        b"%d \xff\n" % number: os.urandom(16) * (size // 16) + bytes(size % 16) for number, size in enumerate(sizes)
    }
    contents |= {b"zeros %d" % size: bytes(size) for size in sizes}
    for number, (path, content) in enumerate(contents.items()):
        make(scribe, path, 0o400 | number % 0o400, 1_000_000_000 + number, content)
    scribe.finish()
    for number, (path, content) in enumerate(contents.items()):
        full = os.path.join(os.fsencode(tmp_path), b"root", path)
        status = os.stat(full)
        assert stat.S_IMODE(status.st_mode) == 0o400 | number % 0o400
        assert status.st_mtime == 1_000_000_000 + number
        assert Path(os.fsdecode(full)).read_bytes() == content


def test_its_errors_are_raised_here(scribe: Scribe) -> None:
    make(scribe, b"missing/file", 0o644, 0, b"content")
    with pytest.raises(FileNotFoundError) as raised:
        scribe.finish()
    assert raised.value.filename == b"missing/file"


def test_nothing_is_replaced(scribe: Scribe, tmp_path: Path) -> None:
    (tmp_path / "root/there").write_bytes(b"old")
    make(scribe, b"there", 0o644, 0, b"new")
    with pytest.raises(FileExistsError):
        scribe.finish()
    assert (tmp_path / "root/there").read_bytes() == b"old"


def test_an_error_ends_what_goes_on_and_on(scribe: Scribe) -> None:
    """Long before all files are handed over."""
    with pytest.raises(FileNotFoundError):
        for number in range(1000):
            make(scribe, b"missing/%d" % number, 0o644, 0, bytes(PIECE))
    scribe.close()


def test_it_was_killed(scribe: Scribe) -> None:
    assert scribe._second._process is not None
    os.kill(scribe._second._process, signal.SIGKILL)
    with pytest.raises(OSError, match="was ended") as raised:
        for number in range(20):
            make(scribe, b"%d" % number, 0o644, 0, bytes(PIECE))
    assert raised.value.errno == errno.ECHILD


def test_given_up_it_ends(scribe: Scribe) -> None:
    process = scribe._second._process
    assert process is not None
    make(scribe, b"file", 0o644, 0, b"content")
    scribe.close()
    scribe.close()
    assert is_gone(process)


def test_it_cannot_be_started(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open where there may be no more processes."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(BlockingIOError):
        Scribe(root, -1)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_it_ends_with_the_first_process(root: int) -> None:
    """Also where that is killed, and can end nothing."""
    reading, writing = os.pipe()
    first = os.fork()
    if not first:
        try:
            scribe = Scribe(root, -1)
            os.write(writing, b"%d" % (scribe._second._process or 0))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(first, 0)
    process = int(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    deadline = time.monotonic() + 60
    while not is_gone(process) and time.monotonic() < deadline:
        if Path(f"/proc/{process}/stat").exists() and ") Z " in Path(f"/proc/{process}/stat").read_text():
            break  # it has ended, and nobody has asked how
        time.sleep(0.01)
    else:
        assert is_gone(process)
