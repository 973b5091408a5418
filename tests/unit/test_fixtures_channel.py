"""The channel is found, environments are installed from it, and a skipped test can be made to fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import channel as channels
from fixtures.channel import ChannelUnavailable, InstallationFailed
from fixtures.selection import cases, need
from tests.conftest import MakeEnvironment, lend


def records(prefix: Path) -> list[dict[str, object]]:
    """Read the client's records of what it installed."""
    return [json.loads(path.read_text()) for path in sorted((prefix / "conda-meta").glob("*.json"))]


def test_the_python_environment_runs_what_it_promises(python_env: Path) -> None:
    python = [str(python_env / "bin" / "python"), "-I", "-B"]
    modules = "sqlite3, curses, readline, zlib, bz2, lzma, ctypes, numpy, requests, rich, jupyter_core"
    program = f"import setuptools, wheel, ssl, sys, {modules}; print(sys.prefix, ssl.get_default_verify_paths()[3])"
    run = subprocess.run([*python, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == (f"{python_env} {python_env}/ssl/cert.pem\n", "")
    assert str(python_env) in subprocess.check_output([*python, "-m", "pip", "--version"], text=True)


def test_the_native_environment_has_no_python_and_finds_its_data(native_env: Path) -> None:
    bin_ = native_env / "bin"
    assert not list(bin_.glob("python*"))
    assert str(native_env) in subprocess.check_output([bin_ / "openssl", "version", "-d"], text=True)
    terminal = subprocess.check_output([bin_ / "infocmp", "xterm"], text=True, env={"TERMINFO": ""})
    assert str(native_env / "share" / "terminfo") in terminal
    assert subprocess.check_output([bin_ / "sqlite3", ":memory:", "select 6 * 7"], text=True) == "42\n"
    squeezed = subprocess.check_output([bin_ / "xz", "-c"], input=b"x" * 1000)
    assert subprocess.check_output([bin_ / "xz", "-dc"], input=squeezed) == b"x" * 1000


def test_every_recorded_placeholder_is_real(python_env: Path, native_env: Path) -> None:
    for prefix in (python_env, native_env):
        placeholders = [
            (path["prefix_placeholder"], path["file_mode"])
            for record in records(prefix)
            for path in record["paths_data"]["paths"]  # type: ignore[index]
            if path.get("prefix_placeholder")
        ]
        assert {len(placeholder) for placeholder, _ in placeholders} == {255}
        assert {mode for _, mode in placeholders} == {"text", "binary"}


def test_a_fresh_environment_shares_no_inode(make_env: MakeEnvironment, native_env: Path, tmp_path: Path) -> None:
    """Or a test that edits a file in place would edit the package cache and every other environment."""
    fresh = make_env(["xz"], tmp_path / "a path with spaces")
    assert fresh == tmp_path / "a path with spaces"
    assert {path.lstat().st_nlink for path in fresh.rglob("*") if path.is_file() and not path.is_symlink()} == {1}
    assert (native_env / "include" / "lzma.h").stat().st_nlink > 1


def test_a_changed_shared_environment_is_found_out(channel: Path, package_cache: Path, tmp_path: Path) -> None:
    lent = lend(tmp_path / "shared", ["zlib"], [channel], package_cache)
    prefix = next(lent)
    (prefix / "lib" / "added.txt").write_text("by a test")
    with pytest.raises(pytest.fail.Exception, match=r"a test changed the shared environment.*\n.*lib/added.txt"):
        next(lent)


def test_nothing_is_written_outside_of_prefix_and_cache(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    channels.install(tmp_path / "env", ["zlib"], channel, cache=tmp_path / "cache")
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "env", "home"]


def test_an_unknown_package_is_an_error_that_names_it(channel: Path, tmp_path: Path) -> None:
    with pytest.raises(InstallationFailed, match="no-such-package could not be solved"):
        channels.install(tmp_path / "env", ["no-such-package"], channel, cache=tmp_path / "cache")


def test_a_client_that_dies_half_way_is_found_out(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code says nothing, since a complete installation may crash at exit: the files decide."""
    dying = tmp_path / "fixtures" / "client.py"
    dying.parent.mkdir()
    text = (channels.ROOT / "fixtures" / "client.py").read_text()
    assert "    await install(" in text
    dying.write_text(text.replace("    await install(", "    os._exit(0)\n    await install("))
    monkeypatch.setattr(channels, "ROOT", tmp_path)
    with pytest.raises(InstallationFailed, match=r"missing: conda-meta/zlib-.*\.json"):
        channels.install(tmp_path / "env", ["zlib"], channel, cache=tmp_path / "cache")


def test_a_client_that_crashes_after_its_work_has_done_it(
    channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "fixtures" / "client.py"
    crashing.parent.mkdir()
    text = (channels.ROOT / "fixtures" / "client.py").read_text()
    assert "os._exit(0)" in text
    crashing.write_text(text.replace("os._exit(0)", "os.abort()"))
    monkeypatch.setattr(channels, "ROOT", tmp_path)
    made = channels.install(tmp_path / "env", ["zlib"], channel, cache=tmp_path / "cache")
    assert (made / "lib" / "libz.so").exists()


def test_the_variable_must_name_a_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACK_TEST_CHANNEL", str(tmp_path))
    with pytest.raises(ChannelUnavailable, match=r"linux-64/repodata.json is missing"):
        channels.find_channel()
    for subdir in ("linux-64", "noarch"):
        (tmp_path / subdir).mkdir()
        (tmp_path / subdir / "repodata.json").write_text("{}")
    assert channels.find_channel() == tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the fixtures, so that a test can change recipes and caches."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(channels.ROOT / "fixtures", tmp_path / "fixtures", ignore=ignore)
    monkeypatch.setattr(channels, "ROOT", tmp_path)
    monkeypatch.setattr(channels, "RECIPES", tmp_path / "fixtures" / "recipes")
    monkeypatch.setattr(channels, "CACHE", tmp_path / ".cache")
    monkeypatch.delenv("PACK_TEST_CHANNEL", raising=False)
    yield tmp_path


def test_the_cache_is_used_and_belongs_to_the_recipes(elsewhere: Path) -> None:
    with pytest.raises(ChannelUnavailable, match="no system channel"):
        channels.find_channel(build=False)
    cached = elsewhere / ".cache" / "channel" / channels.content_hash("system")
    cached.mkdir(parents=True)
    assert channels.find_channel() == cached
    (elsewhere / "fixtures" / "recipes" / "system" / "zlib.sh").write_text("make\n")
    with pytest.raises(ChannelUnavailable, match="no system channel"):
        channels.find_channel(build=False)


def test_a_channel_that_cannot_be_built_says_what_is_missing(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither compiler nor apt in reach: the message names them and what installs them."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nice").symlink_to(need("nice"))
    shutil.copytree(Path(channels.__file__).parent.parent / "installer_stub", elsewhere / "installer_stub")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ChannelUnavailable, match=r"(?s)Building needs .*gcc.*apt-get install .*gcc"):
        channels.find_channel()


def test_a_seeded_tenth_runs_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACK_TEST_ALL", raising=False)
    tenth = cases(1, 200)
    assert len(tenth) == len(set(tenth)) == 20
    assert set(tenth) < set(range(200))
    assert cases(1, 200) == tenth != cases(2, 200)
    assert len(cases(1, 5)) == 1
    monkeypatch.setenv("PACK_TEST_ALL", "1")
    assert cases(1, 200) == list(range(200))


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="readelf is not installed: apt-get install binutils"):
        need("readelf")


INNER_TESTS = """
import pytest
def test_skipped(): pytest.skip("no such thing here")
@pytest.mark.skipif(True, reason="by a mark")
def test_marked(): pass
@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.mark.parametrize(
    ("setting", "summary"),
    [
        pytest.param("", "2 skipped, 1 xfailed", id="as it is, skipped tests are skipped"),
        pytest.param("1", "1 failed, 1 xfailed, 1 error", id="PACK_TEST_NO_SKIP makes them fail, and nothing else"),
    ],
)
def test_skips_can_be_forbidden(setting: str, summary: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_inner.py").write_text(INNER_TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PACK_TEST_NO_SKIP": setting, "PYTHONPATH": str(channels.ROOT), "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert summary in run.stdout
    assert ("no such thing here" in run.stdout) == bool(setting)
