"""What packing leaves behind: the same tree in every format, and nothing at all when it fails."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer_stub.errors import EnvironmentUnfit
from pack.archive import Format
from pack.environment import find
from pack.write import Options, write
from tests.conftest import NATIVE_SPECS, MakeEnvironment
from tests.integration.moving import (
    PACK,
    SURROUNDINGS,
    digest,
    pack,
    pack_env,
    run,
    snapshot,
    unpack,
)

FORMATS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prefix with every kind of entry that a tree can hold."""
    prefix = tmp_path_factory.mktemp("odd") / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "empty").mkdir(mode=0o700)
    (prefix / "script").write_text(f"#!/bin/sh\necho {prefix}\n")
    (prefix / "script").chmod(0o751)
    (prefix / "bin" / "other name").hardlink_to(prefix / "script")
    (prefix / "bin" / "link").symlink_to("../script")
    (prefix / "bin" / "dangling").symlink_to("nowhere")
    (prefix / "directory").symlink_to("bin", target_is_directory=True)
    (prefix / os.fsdecode(b"latin \xe9\n")).write_bytes(bytes(range(256)) * 500)
    (prefix / ("n" * 200)).write_bytes(b"")
    os.utime(prefix / "script", ns=(10**18, 10**18 + 999))
    return prefix


@pytest.mark.parametrize("environment", ["native", "odd"])
def test_every_format_unpacks_to_the_same_tree(environment: str, native_env: Path, odd: Path, tmp_path: Path) -> None:
    """Archives of every format and the directory unpack to one tree: paths, modes, times, bytes, links."""
    prefix = native_env if environment == "native" else odd
    whole = pack_env(prefix, tmp_path / "directory", "--format", "no-archive")
    expected = snapshot(whole)
    assert len(expected) > len(snapshot(prefix))
    for suffix in FORMATS if environment == "odd" else ("tar.gz", "tar.zst"):
        options = ["--compress-level", "1"] if suffix not in ("tar", "tar.zst") else []
        tree = unpack(pack_env(prefix, tmp_path / f"env.{suffix}", *options), tmp_path / "unpacked")
        assert snapshot(tree) == expected, suffix
        shutil.rmtree(tree)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_directory_shares_no_inode_with_the_environment(odd: Path, tmp_path: Path) -> None:
    """What is written into a packed directory is never written into the environment."""
    whole = pack_env(odd, tmp_path / "directory", "--format", "no-archive")
    inodes = {path.lstat().st_ino for path in odd.rglob("*")}
    assert [path for path in whole.rglob("*") if path.lstat().st_ino in inodes] == []


def test_streaming_to_standard_output(odd: Path, tmp_path: Path) -> None:
    """`-o -` writes the archive, and nothing else, to a pipe."""
    expected = pack_env(odd, tmp_path / "env.tar.gz").read_bytes()
    done = subprocess.run([PACK, "-p", odd, "-o", "-"], env=SURROUNDINGS, capture_output=True)
    assert (done.returncode, done.stdout) == (0, expected)
    with (
        subprocess.Popen([PACK, "-p", odd, "-o", "-", "--format", "tar"], stdout=subprocess.PIPE) as packer,
        tarfile.open(fileobj=packer.stdout, mode="r|") as stream,
    ):
        names = [member.name for member in stream]
    assert packer.returncode == 0
    assert names[:3] == [".pack", ".pack/references.json", ".pack/files.json"]


def test_an_output_inside_the_prefix(odd: Path, tmp_path: Path) -> None:
    """An archive that is written into the environment does not hold itself, nor what it is written under."""
    prefix = tmp_path / "env"
    run(["cp", "-a", "-T", odd, prefix])
    expected = digest(pack_env(prefix, tmp_path / "outside.tar"))
    inside = pack_env(prefix, prefix / "inside.tar")
    assert digest(inside) == expected
    assert digest(pack_env(prefix, inside, "--force")) == expected
    inside.unlink()
    whole = pack_env(prefix, prefix / "directory inside", "--format", "no-archive")
    assert snapshot(whole) == snapshot(unpack(tmp_path / "outside.tar", tmp_path / "unpacked"))


class Editor:
    """Told how packing goes, it edits the environment between the scan and the writing."""

    def __init__(self, path: Path, content: bytes, keep_time: bool) -> None:
        self.path, self.content, self.keep_time = path, content, keep_time

    def start(self, what: str, total: int | None) -> None:
        if what == "writing":
            status = self.path.stat()
            self.path.write_bytes(self.content)
            if self.keep_time:
                os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def advance(self, count: int) -> None:
        pass


@pytest.mark.parametrize("format", [Format.TAR, Format.TAR_GZ, Format.TAR_XZ, Format.DIRECTORY])
@pytest.mark.parametrize(
    ("content", "keep_time"),
    [
        pytest.param(b"another length", False, id="longer"),
        pytest.param(b"", False, id="emptied"),
        pytest.param(b"abd", False, id="of the same length"),
        pytest.param(b"abd", True, id="of the same length and time"),
    ],
)
def test_a_file_that_changes_while_packing(format: Format, content: bytes, keep_time: bool, tmp_path: Path) -> None:
    """An archive never mixes two states of a file: packing stops, names it, and leaves no output."""
    prefix = tmp_path / "env"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "early").write_bytes(b"x" * 3_000_000)
    (prefix / "late").write_bytes(b"abc")
    output = tmp_path / "out" / "env"
    output.parent.mkdir()
    editor = Editor(prefix / "late", content, keep_time)
    with pytest.raises(EnvironmentUnfit, match="late: changed while packing"):
        write(find(None, prefix), Options(output, format, threads=1), "1.0", editor)
    assert list(output.parent.iterdir()) == []


def test_a_change_ends_the_program_with_its_code(tmp_path: Path) -> None:
    """`pack` ends with exit code 4 where a file changes under it, even when it streams."""
    prefix = tmp_path / "env"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "early").write_bytes(b"x" * 3_000_000)  # more than a pipe holds
    (prefix / "late").write_bytes(b"abc")
    command: list[str | Path] = [PACK, "-p", prefix, "-o", "-", "--format", "tar"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as packer:
        assert packer.stdout is not None
        packer.stdout.read(1)  # the scan is over
        (prefix / "late").write_bytes(b"abd")
        _, stderr = packer.communicate()
    assert packer.returncode == 4
    assert b"late: changed while packing" in stderr


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A prefix with two files and a directory that nobody may read."""
    prefix = tmp_path / "env"
    (prefix / "closed").mkdir(parents=True)
    (prefix / "lib").mkdir()
    for name in ("readable", "secret", "closed/inside", "key"):
        (prefix / name).write_text(f"{name} of {prefix}\n")
    for name in ("secret", "key", "closed"):
        (prefix / name).chmod(0)
    yield prefix
    (prefix / "closed").chmod(0o700)


def without_rights(*command: str | Path) -> list[str | bytes | Path]:
    """Give the command that runs ``command`` without root's right to read everything."""
    rights = "-dac_override,-dac_read_search"
    drop: list[str | bytes | Path] = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    return [*drop, *command] if os.geteuid() == 0 else list(command)


def test_unreadable_files_are_an_error_that_lists_all(locked: Path, tmp_path: Path) -> None:
    """Files that you may not read stop packing, all of them named, and nothing is written."""
    done = run(without_rights(PACK, "-p", locked, "-o", tmp_path / "env.tar"), code=4)
    for name in ("secret", "key", "closed"):
        assert f"  {name}: Permission denied\n" in done.stderr
    assert "readable: " not in done.stderr
    assert "--ignore-unreadable" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


def test_unreadable_files_are_left_out_on_demand(locked: Path, tmp_path: Path) -> None:
    """With --ignore-unreadable the rest is packed, and the report says what is missing."""
    output = tmp_path / "env.tar"
    done = run(without_rights(PACK, "-p", locked, "-o", output, "--ignore-unreadable"))
    assert "3 paths are not archived" in done.stderr
    tree = unpack(output, tmp_path / "unpacked")
    assert (tree / "readable").is_file()
    assert not (tree / "secret").exists()
    assert not (tree / "key").exists()
    assert not (tree / "closed" / "inside").exists()
    scanned = run(without_rights(PACK, "scan", "-p", locked, "--ignore-unreadable"))
    assert "3 unreadable" in scanned.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix that takes a while to compress."""
    prefix = tmp_path_factory.mktemp("large") / "env"
    (prefix / "lib").mkdir(parents=True)
    for number in range(40):
        (prefix / f"file{number}").write_bytes(os.urandom(1_000_000))
    return prefix


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("output", ["env.tar.bz2", "env.tar.gz", "directory/"])
@pytest.mark.parametrize("stage", ["from the start", "while writing"])
def test_a_signal_leaves_nothing_behind(
    number: signal.Signals, output: str, stage: str, large: Path, tmp_path: Path
) -> None:
    """Killed while packing, `pack` removes what it had written, and an output that was there before stays."""
    kept = tmp_path / "kept.txt"
    kept.write_text("not the packer's")
    command: list[str | Path] = [PACK, "-q", "-p", large, "-o", f"{tmp_path}/{output}"]
    command += ["-j", "1"] if "gz" in output else []
    with subprocess.Popen(command, stderr=subprocess.PIPE) as packer:
        while packer.poll() is None:
            begun = [path for path in tmp_path.iterdir() if path != kept]
            if begun and (stage == "from the start" or any(map(_holds_something, begun))):
                packer.send_signal(number)
                break
            time.sleep(0.005)
        _, stderr = packer.communicate()
    assert packer.returncode == 128 + number, stderr
    assert list(tmp_path.iterdir()) == [kept]
    # Python prints what it lost in a callback of its own; the signal is heeded all the same.
    assert b"Traceback" not in stderr or stderr.startswith(b"Exception ignored in")


@pytest.mark.parametrize(("suffix", "level"), [("tar.zst", "22"), ("tar.xz", "9")])
def test_a_signal_does_not_wait_for_what_takes_minutes(suffix: str, level: str, tmp_path: Path) -> None:
    """Blocks of the highest levels take so long that their end is not waited for."""
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "lib" / "text").write_text(random.Random(0).randbytes(100 << 20).hex())
    command: list[str | Path] = [PACK, "-q", "-p", tmp_path / "env", "-o", tmp_path / f"env.{suffix}"]
    with subprocess.Popen([*command, "--compress-level", level, "--no-cache"], stderr=subprocess.PIPE) as packer:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        time.sleep(8)  # it is scanned by then, and is being compressed
        assert packer.poll() is None
        began = time.monotonic()
        packer.send_signal(signal.SIGINT)
        _, stderr = packer.communicate()
    assert (packer.returncode, stderr) == (128 + signal.SIGINT, b"")
    assert time.monotonic() - began < 30
    assert os.listdir(tmp_path) == ["env"]


def test_streams_that_the_caller_has_closed(make_env: MakeEnvironment, tmp_path: Path) -> None:
    """What is said is lost, and nothing of it gets into a file that has the number of such a stream."""
    prefix = make_env(NATIVE_SPECS)
    expected = digest(pack_env(prefix, tmp_path / "env.tar"))
    for closed in ("2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-"):
        output = tmp_path / "closed.tar"
        run(["sh", "-c", f"{PACK} -p {prefix} -o {output} {closed}"])
        assert digest(output) == expected, closed
        output.unlink()
    done = run(["sh", "-c", f"{PACK} -p {prefix} --format tar -o - 1>&-"], code=5)
    assert "the standard output is closed" in done.stderr


def test_an_empty_name_of_the_output_is_refused(make_env: MakeEnvironment, tmp_path: Path) -> None:
    """It is that of a variable which is not set."""
    prefix = make_env(NATIVE_SPECS)
    done = run([PACK, "-p", prefix, "-o", ""], cwd=tmp_path, code=2)
    assert "-o: the name is empty" in done.stderr
    assert not list(tmp_path.glob("*.tar.gz"))


def _holds_something(path: Path) -> bool:
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except FileNotFoundError:
        return False


def test_a_failure_keeps_the_old_output(make_env: MakeEnvironment, tmp_path: Path) -> None:
    """An output that exists is refused without --force, and with it stays whole until the new one is."""
    prefix = make_env(NATIVE_SPECS)
    output = pack_env(prefix, tmp_path / "env.tar.gz")
    before = digest(output)
    assert "exists" in pack("-p", prefix, "-o", output, code=5).stderr
    command: list[str | Path] = [PACK, "-q", "-p", prefix, "-o", output, "--force"]
    with subprocess.Popen(command) as packer:
        while packer.poll() is None and len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.005)
        packer.terminate()
    assert packer.returncode == 128 + signal.SIGTERM
    assert digest(output) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env.tar.gz", "env1"]
