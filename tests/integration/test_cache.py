"""Packing real environments again: the same bytes with a cache as without, whatever changed or became of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fixtures.selection import need
from tests.conftest import MakeEnvironment
from tests.integration.installed import made_lean
from tests.integration.moving import PACK, SURROUNDINGS, digest, pack, pack_env, run

SPECS = ("python", "requests", "rich", "ncurses")


def settle() -> None:
    """Wait until no file of an environment that was just made counts as one that may still change."""
    time.sleep(2.2)


def holds(cache: Path) -> dict[str, int]:
    told: dict[str, int] = json.loads(pack("cache", "--cache", cache, "--json").stdout)
    return told


def opened(prefix: Path, output: Path, *options: str | Path) -> set[str]:
    """Pack, and tell which files of the prefix were opened for reading."""
    log = output.with_suffix(".strace")
    trace: list[str] = [
        str(need("strace")),
        "-f",
        "-qq",
        "-e",
        "trace=openat",
        "-e",
        "signal=none",
        "-s",
        "4096",
        "-o",
        str(log),
    ]
    run([*trace, PACK, "-q", "-p", prefix, "-o", output, *options])
    lines = (line for line in log.read_text(errors="replace").splitlines() if "O_DIRECTORY" not in line)
    names = (line.split('"')[1] for line in lines if '"' in line)
    return {name for name in names if name.startswith(f"{prefix}/")}


@pytest.fixture
def prefix(make_env: MakeEnvironment) -> Path:
    prefix = made_lean(make_env(SPECS))
    settle()
    return prefix


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.zst", "tar.xz", "zip"])
def test_the_same_bytes_with_a_cache_and_without(suffix: str, prefix: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = ("--compress-level", "1")
    without = pack_env(prefix, tmp_path / f"without.{suffix}", "--no-cache", *options)
    for number in range(3):
        packed = pack_env(
            prefix, tmp_path / f"{number}.{suffix}", "--cache", str(cache), "-j", str(1 + number), *options
        )
        assert digest(packed) == digest(without)
    assert holds(cache)["scans"] == 1
    assert (holds(cache)["pieces"] > 0) == (suffix in ("tar.gz", "tar.xz"))


def test_a_changed_package_is_read_and_nothing_else(tmp_path: Path, make_env: MakeEnvironment) -> None:
    """What is not changed is not even opened: neither to be searched, nor to be compressed."""
    prefix = make_env(SPECS)  # all of it: a piece is as large in any environment
    settle()
    cache = ("--cache", tmp_path / "cache")
    first = opened(prefix, tmp_path / "first.tar.gz", *cache)
    assert len(first) > 1000
    again = opened(prefix, tmp_path / "again.tar.gz", *cache)
    assert digest(tmp_path / "again.tar.gz") == digest(tmp_path / "first.tar.gz")
    metadata = {path for path in again if "/conda-meta/" in path or ".dist-info/" in path or path.endswith(".pth")}
    assert again == metadata  # which is read for what it says of other files
    module = next(prefix.glob("lib/python3*/site-packages/rich/console.py"))
    module.write_text(module.read_text() + "# changed\n")
    settle()
    changed = opened(prefix, tmp_path / "changed.tar.gz", *cache)
    assert str(module) in changed
    assert len(changed - metadata) < len(first) / 4  # the piece in which it is
    assert digest(tmp_path / "changed.tar.gz") == digest(pack_env(prefix, tmp_path / "new.tar.gz", "--no-cache"))


def test_what_is_packed_from_a_cache_works(prefix: Path, tmp_path: Path) -> None:
    """Packed twice, changed between, the source deleted: the second archive runs, and has the change."""
    cache = ("--cache", str(tmp_path / "cache"))
    pack_env(prefix, tmp_path / "first.tar.gz", *cache)
    module = next(prefix.glob("lib/python3*/site-packages/rich/__init__.py"))
    module.write_text(module.read_text() + "packed_again = True\n")
    pack_env(prefix, tmp_path / "second.tar.gz", *cache)
    shutil.rmtree(prefix)
    tree = tmp_path / "unpacked"
    pack("unpack", tmp_path / "second.tar.gz", tree)
    assert run([tree / "bin" / "python", "-c", "import rich; print(rich.packed_again)"]).stdout == "True\n"
    pack("verify", tree)


def test_an_unpacked_tree_is_remembered_too(prefix: Path, tmp_path: Path) -> None:
    """Relocated, it packs to the archive that it came from, also by what was kept of it."""
    cache = ("--cache", str(tmp_path / "cache"))
    archive = pack_env(prefix, tmp_path / "first.tar.gz", *cache)
    tree = tmp_path / "unpacked"
    pack("unpack", archive, tree)
    settle()
    for number in range(2):
        again = pack_env(tree, tmp_path / f"again{number}.tar.gz", *cache)
        assert digest(again) == digest(archive)
    pack("relocate", tree.rename(tmp_path / "moved"))
    assert digest(pack_env(tmp_path / "moved", tmp_path / "moved.tar.gz", *cache)) == digest(archive)


def test_damage_changes_nothing(prefix: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = pack_env(prefix, tmp_path / "first.tar.gz", "--cache", str(cache))
    for number, path in enumerate(sorted(path for path in cache.rglob("*") if path.is_file())):
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + (bytes([content[middle] ^ 255]) + content[middle + 1 :]) * (number % 2))
    assert digest(pack_env(prefix, tmp_path / "again.tar.gz", "--cache", str(cache))) == digest(first)


def test_two_at_once_and_one_that_is_killed(prefix: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    outputs = [tmp_path / f"{number}.tar.gz" for number in range(3)]
    running = [
        subprocess.Popen([PACK, "-q", "-p", prefix, "-o", output, "--cache", cache], env=SURROUNDINGS)
        for output in outputs
    ]
    deadline = time.monotonic() + 60
    while not list(cache.glob("pieces/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running[0].send_signal(signal.SIGKILL)
    assert [each.wait(300) for each in running] == [-signal.SIGKILL, 0, 0]
    without = digest(pack_env(prefix, tmp_path / "without.tar.gz", "--no-cache"))
    again = pack_env(prefix, tmp_path / "again.tar.gz", "--cache", str(cache))
    assert {digest(path) for path in (*outputs[1:], again)} == {without}


def test_a_cache_that_cannot_be_written_ends_nothing(prefix: Path, tmp_path: Path) -> None:
    """A full disk under the cache: it is said, and the archive is written."""
    need("mount")
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", small], code=None).returncode
    ):
        pytest.skip("a file system of its own has to be mounted, which only root may")
    try:
        done = pack("-p", prefix, "-o", tmp_path / "env.tar.gz", "--cache", small / "cache")
        assert "no more is kept" in done.stderr
    finally:
        run(["umount", small])
    assert digest(tmp_path / "env.tar.gz") == digest(pack_env(prefix, tmp_path / "without.tar.gz", "--no-cache"))


def test_the_user_s_cache_is_used_unless_told_otherwise(prefix: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {**SURROUNDINGS, "HOME": str(home)}
    pack("-q", "-p", prefix, "-o", tmp_path / "0.tar.gz", "--no-cache", env=env)
    pack("-q", "-p", prefix, "-o", tmp_path / "1.tar.gz", "--cache", tmp_path / "other", env=env)
    assert list(home.iterdir()) == []
    pack("-q", "-p", prefix, "-o", tmp_path / "2.tar.gz", env=env)
    cache = home / ".cache" / "relopack" / "packing"
    assert holds(cache)["pieces"] > 0
    told = pack("cache", "--limit", "1.5 MB", env=env).stdout
    assert str(cache) in told
    assert "at most 1.5 MB" in told
    assert holds(cache)["bytes"] <= 1_500_000
    pack("cache", "--clear", env=env)
    assert holds(cache) == {"directory": str(cache), "pieces": 0, "scans": 0, "bytes": 0, "limit": 1_500_000}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cache", "{tmp}/open"), "others may write to it"),
        (("--cache", "{tmp}/file"), "cannot be the cache"),
        (("--cache", "{tmp}/new", "--no-cache"), "contradicts"),
    ],
)
def test_a_cache_that_is_named_has_to_be_one(
    options: tuple[str, ...], said: str, native_env: Path, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").touch()
    given = [option.format(tmp=tmp_path) for option in options]
    done = pack("-p", native_env, "-o", tmp_path / "env.tar.gz", *given, code=2)
    assert said in done.stderr
    assert not (tmp_path / "env.tar.gz").exists()


def test_a_home_that_cannot_be_used_is_told(native_env: Path, tmp_path: Path) -> None:
    """The default is no wish of the user's: it is left with a word, and without one where that is not wanted."""
    (tmp_path / ".cache").touch()
    env = {**SURROUNDINGS, "HOME": str(tmp_path)}
    done = pack("-p", native_env, "-o", tmp_path / "1.tar.gz", env=env)
    assert "packing without a cache" in done.stderr
    assert pack("-q", "-p", native_env, "-o", tmp_path / "2.tar.gz", env=env).stderr == ""


def test_a_size_that_is_none(tmp_path: Path) -> None:
    done = pack("cache", "--cache", tmp_path / "cache", "--limit", "much", code=2)
    assert "is no size" in done.stderr
