"""The output appears whole or not at all: full disks, limits, signals, races, what is there already."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub.errors import OutputError, UsageError
from installer_stub.model import Kind
from pack.archive import Member
from pack.archive.directory import write_directory
from pack.output import DirectoryOutput, Output, output_error, standard_output

MIB = 1 << 20


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def put(path: Path, content: bytes = b"new", force: bool = False) -> None:
    with Output(path, force) as stream:
        stream.write(content)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_file_appears_at_the_end_with_the_mode_of_the_umask(tmp_path: Path) -> None:
    output = Output(tmp_path / "env.tar", force=False)
    with output as stream:
        stream.write(b"1")
        stream.flush()
        assert names(tmp_path) == [output.partial.name]
        assert output.partial.name.startswith("env.tar.") and output.partial.name.endswith(".partial")
        stream.write(b"2" * (3 * MIB))
        stream.write(b"3")
    assert names(tmp_path) == ["env.tar"]
    assert (tmp_path / "env.tar").read_bytes() == b"1" + b"2" * (3 * MIB) + b"3"
    assert stream.written == 3 * MIB + 2
    assert stat.S_IMODE((tmp_path / "env.tar").stat().st_mode) == 0o640
    assert (tmp_path / "env.tar").stat().st_nlink == 1


def test_a_large_file_is_stored_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def advised(descriptor: int, offset: int, length: int) -> None:
        assert os.fstat(descriptor).st_size >= offset + length, "only what was written can be stored"
        told.append((offset, length))

    monkeypatch.setattr("pack.output.begin_to_store", advised)
    with Output(tmp_path / "env.tar", force=False) as stream:
        for size in (5 << 20, 700, 3 << 20, 1 << 19, 20 << 20, 1):
            stream.write(bytes(size))
    ends = [0, *(offset + length for offset, length in told)]
    assert [offset for offset, _ in told] == ends[:-1], "each byte is stored once"
    assert len(told) > 1
    assert ends[-1] > (tmp_path / "env.tar").stat().st_size - (8 << 20)


@pytest.mark.usefixtures("umask")
def test_an_installer_may_ask_to_be_executable(tmp_path: Path) -> None:
    with Output(tmp_path / "env.sh", force=False, mode=0o777):
        pass
    assert stat.S_IMODE((tmp_path / "env.sh").stat().st_mode) == 0o750


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("kind", [Output, DirectoryOutput])
def test_nothing_is_left_after_an_exception(
    kind: type[Output] | type[DirectoryOutput], error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(error), kind(tmp_path / "out", False):
        assert len(names(tmp_path)) == 1
        raise error
    assert names(tmp_path) == []


def test_an_existing_file_is_kept_without_force_and_replaced_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.tar: exists already") as refusal:
        put(path)
    assert "--force" in refusal.value.tip
    assert path.read_bytes() == b"old"
    put(path, force=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.tar"]


def test_a_failure_with_force_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="x"), Output(path, True) as stream:
        stream.write(b"new")
        raise ValueError("x")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.tar"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with pytest.raises(OutputError, match="exists already"), Output(path, False) as stream:
        stream.write(b"new")
        path.write_bytes(b"somebody else's")
    assert path.read_bytes() == b"somebody else's"
    assert names(tmp_path) == ["a.tar"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links on FAT")

    monkeypatch.setattr(os, "link", refuse)
    put(tmp_path / "a.tar")
    assert names(tmp_path) == ["a.tar"]
    with pytest.raises(OutputError, match="exists already"), Output(tmp_path / "b.tar", False):
        (tmp_path / "b.tar").write_bytes(b"somebody else's")
    assert (tmp_path / "b.tar").read_bytes() == b"somebody else's"
    assert names(tmp_path) == ["a.tar", "b.tar"]


def test_two_at_once_do_not_meet_and_the_first_to_end_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with pytest.raises(OutputError, match="exists already"), Output(path, False) as late:
        late.write(b"late")
        put(path, b"early")
    assert path.read_bytes() == b"early"
    assert names(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("kind", [Output, DirectoryOutput])
def test_a_missing_parent_is_an_error_with_a_tip_and_made_with_force(
    kind: type[Output] | type[DirectoryOutput], tmp_path: Path
) -> None:
    path = tmp_path / "a/b/out"
    with pytest.raises(OutputError, match="does not exist") as refusal, kind(path, False):
        pass
    assert "--force" in refusal.value.tip
    assert names(tmp_path) == []
    with kind(path, True):
        pass
    assert path.exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_in_the_place_of_the_file_is_refused(force: bool, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        put(tmp_path, force=force)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is a directory"):
        put(tmp_path / "link", force=force)
    assert names(tmp_path) == ["link"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_place_of_the_parent_is_refused(force: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        put(tmp_path / "file/a.tar", force=force)


def test_devices_and_pipes_are_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "null"):
        with pytest.raises(OutputError, match="not a regular file") as refusal:
            put(path, force=True)
        assert "-o -" in refusal.value.tip
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "null").is_symlink()


@pytest.mark.parametrize("target", ["target", "missing"])
def test_a_symlink_is_replaced_itself_and_what_it_leads_to_is_not_touched(target: str, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    path = tmp_path / "a.tar"
    path.symlink_to(target)
    with pytest.raises(OutputError, match="exists already"):
        put(path)
    put(path, force=True)
    assert not path.is_symlink()
    assert path.read_bytes() == b"new"
    assert (tmp_path / "target").read_bytes() == b"old"
    assert names(tmp_path) == ["a.tar", "target"]


def test_a_name_of_255_bytes_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / (b"\xc3\xa9" * 125 + b".tar\xff").decode("utf-8", "surrogateescape")
    put(path)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EIO, "input/output error"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
    ],
)
def test_what_the_system_says_is_put_in_words_with_a_tip(number: int, words: str) -> None:
    error = output_error(OSError(number, os.strerror(number)), "/x/a.tar")
    assert words in str(error) and "/x/a.tar" in str(error)
    assert error.tip


def test_the_file_size_limit_is_reported_and_nothing_left(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pack.output import *\n"
        "try:\n"
        "    with Output(Path(sys.argv[1]), False) as stream:\n"
        "        for _ in range(9): stream.write(bytes(1 << 20))\n"
        "except OutputError as error: sys.exit(str(error))"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB + 5, 3 * MIB + 5))

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.tar"], preexec_fn=limit, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 1
    assert b"a.tar: cannot be written" in done.stderr and b"ulimit -f" in done.stderr
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        [need("mount"), "-t", "tmpfs", "-o", "size=2m,nr_inodes=20", "tmpfs", disk],
        stderr=subprocess.PIPE,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root: run the tests as root to see what a full one does")
    yield disk
    subprocess.run([need("umount"), disk], check=True)


def test_a_full_disk_is_reported_and_nothing_left(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        put(small_disk / "a.tar", bytes(3 * MIB))
    assert names(small_disk) == []
    put(small_disk / "a.tar", bytes(MIB))
    assert (small_disk / "a.tar").stat().st_size == MIB


def test_a_full_disk_fails_when_only_the_last_buffer_does_not_fit(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"), Output(small_disk / "a.tar", False) as stream:
        for _ in range(2 * MIB // 1000 + 1):
            stream.write(bytes(1000))
    assert names(small_disk) == []


def test_a_disk_without_inodes_leaves_no_directory(small_disk: Path) -> None:
    members = [Member(b"d/%d" % n, Kind.FILE, 0o444, 0, 1, b"", lambda: iter([b"x"])) for n in range(30)]
    with pytest.raises(OutputError, match="disk is full"), DirectoryOutput(small_disk / "env", False) as directory:
        write_directory(members, directory)
    assert names(small_disk) == []


SLOW_WRITER = """
import signal, sys, time
from pathlib import Path
from pack.archive import Format
from pack.compress import compressor
from pack.output import DirectoryOutput, Output

class Stopped(BaseException): pass
def stop(number, frame): raise Stopped(number)
for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, stop)

def work(step):
    for number in range(100_000):
        step(number)
        if number == 50: print("writing", flush=True)

path = Path(sys.argv[2])
try:
    if sys.argv[1] == "file":
        with Output(path, False) as stream, compressor(stream, Format.TAR_GZ, 1, 2) as packed:
            work(lambda number: packed.write(bytes(100_000)))
    else:
        with DirectoryOutput(path, False) as directory:
            (directory / "read-only").mkdir()
            (directory / "read-only/x").write_bytes(b"")
            (directory / "read-only").chmod(0o555)
            def step(number):
                (directory / str(number)).write_bytes(b"x")
                time.sleep(0.001)
            work(step)
except Stopped as stopped: sys.exit(128 + stopped.args[0])
except KeyboardInterrupt: sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_signal_leaves_nothing(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, kind, tmp_path / "out"], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        assert len(names(tmp_path)) == 1
        writer.send_signal(number)
    assert writer.returncode == 128 + number
    assert names(tmp_path) == []


def test_a_signal_at_any_moment_leaves_the_whole_file_or_nothing(tmp_path: Path) -> None:
    code = SLOW_WRITER.replace("100_000):", "60):")
    source = random.Random(3)
    for _ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", code, "file", tmp_path / "out"], stdout=subprocess.PIPE)
        with writer, contextlib.suppress(ProcessLookupError):
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(source.random() * 0.03)
            writer.send_signal(signal.SIGTERM)
        left = names(tmp_path)
        assert left in ([], ["out"])
        if left:
            subprocess.run([need("gzip"), "-t"], input=(tmp_path / "out").read_bytes(), check=True)
            (tmp_path / "out").unlink()


def test_a_directory_appears_at_the_end(tmp_path: Path) -> None:
    output = DirectoryOutput(tmp_path / "env", False)
    with output as directory:
        assert directory == output.partial
        (directory / "f").write_bytes(b"1")
        assert names(tmp_path) == [output.partial.name]
    assert names(tmp_path) == ["env"]
    assert names(tmp_path / "env") == ["f"]


def test_what_is_read_only_or_unreadable_is_removed_too_and_nothing_outside_touched() -> None:
    """Root removes it anyway, so this runs as somebody else where it can."""
    code = (
        "import os, sys; from pathlib import Path; from pack.output import *\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "with DirectoryOutput(Path('env'), False) as directory:\n"
        "    (directory / 'a/b/c').mkdir(parents=True)\n"
        "    (directory / 'a/b/c/f').write_bytes(b'')\n"
        "    (directory / 'a/link').symlink_to(Path('outside').resolve())\n"
        "    (directory / 'a/b').chmod(0); (directory / 'a').chmod(0o555); directory.chmod(0o555)\n"
        "    raise SystemExit(7)"
    )
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to other users
        work = Path(name)
        outside = work / "outside"
        outside.mkdir()
        if os.getuid() == 0:
            work.chmod(0o755)
            os.chown(work, 65534, 65534)
            os.chown(outside, 65534, 65534)
        outside.chmod(0o711)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        assert subprocess.run([sys.executable, "-c", code], cwd=work, env=environment, check=False).returncode == 7
        assert names(work) == ["outside"]
        assert stat.S_IMODE(outside.stat().st_mode) == 0o711


def test_force_replaces_an_empty_directory_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="exists already"), DirectoryOutput(tmp_path / "empty", False):
        pass
    with DirectoryOutput(tmp_path / "empty", True) as directory:
        (directory / "f").write_bytes(b"")
    assert names(tmp_path / "empty") == ["f"]

    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("empty")
    for name in ("empty", "file", "link"):
        with pytest.raises(OutputError, match="not an empty directory"), DirectoryOutput(tmp_path / name, True):
            pass
    assert names(tmp_path) == ["empty", "file", "link"]
    assert names(tmp_path / "empty") == ["f"]


@pytest.mark.parametrize("force", [False, True])
def test_a_directory_that_appears_meanwhile_is_not_replaced(force: bool, tmp_path: Path) -> None:
    path = tmp_path / "env"
    with pytest.raises(OutputError, match="exists"), DirectoryOutput(path, force):
        path.mkdir()
        (path / "work").write_bytes(b"")
    assert names(tmp_path) == ["env"]
    assert names(path) == ["work"]


STREAM = """
import sys
from pack.output import OutputError, standard_output
try:
    with standard_output() as stream:
        for _ in range(100): stream.write(b"x" * 99_999)
except OutputError as error: sys.exit(f"{error.code} {error}")
"""


def test_standard_output_streams() -> None:
    done = subprocess.run([sys.executable, "-c", STREAM], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"x" * 9_999_900


def test_a_reader_that_stops_reading_is_an_output_error() -> None:
    with subprocess.Popen([sys.executable, "-c", STREAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        writer.stdout.read(10)
        writer.stdout.close()
        said = writer.stderr.read()
    assert said.strip() == (
        b"5 standard output: cannot be written: the program that reads the output has stopped reading"
    )


def test_a_full_device_behind_standard_output_is_an_output_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", STREAM], stdout=full, stderr=subprocess.PIPE, check=False)
    assert b"the disk is full" in done.stderr


def test_an_archive_is_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    with pytest.raises(UsageError, match="terminal"), standard_output():
        pass
