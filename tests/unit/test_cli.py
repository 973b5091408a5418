"""The command says what it did, ends with the code that is documented, and its JSON is JSON anywhere."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from pack.cli.terminal import Bar
from tests.integration import moving

PACK = Path(sys.executable).with_name("pack")
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
UTF8 = {**BARE, "LC_ALL": "C.UTF-8"}
# A terminal that knows ASCII alone; Python would choose UTF-8 by itself.
ASCII = {**BARE, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}

Run = subprocess.CompletedProcess[str]


def pack(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] = UTF8, redirect: str | None = None
) -> Run:
    """Run the command; ``redirect`` is what a shell is told behind it."""
    command: list[str | Path] = [PACK, *arguments]
    if redirect is not None:
        command = ["sh", "-c", f'exec "$0" "$@" {redirect}', *command]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, errors="surrogateescape")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A small conda environment: a script, a C string, a name that is not ASCII."""
    prefix = tmp_path / "envs" / "small"
    for directory in ("bin", "lib", "conda-meta"):
        (prefix / directory).mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "bin/tool").write_bytes(b"#!/bin/sh\necho " + bytes(prefix) + b"/share\n")
    (prefix / "lib/x.bin").write_bytes(b"\0" + bytes(prefix) + b"/share\0" + bytes(20))
    (prefix / "lib/é\udcff").write_bytes(b"\0x" + bytes(prefix) + b"\0")
    return prefix


@pytest.fixture
def tree(tmp_path: Path, environment: Path) -> Path:
    """The environment packed and unpacked in another place, whose name is not longer."""
    return unpacked(environment, tmp_path / "t")


def unpacked(environment: Path, target: Path) -> Path:
    archive = target.parent / "small.tar"
    done = pack("-p", environment, "-o", archive, "-f")
    assert done.returncode == 0, done.stderr
    return moving.unpack(archive, target)


def complains(done: Run, code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# Help


@pytest.mark.parametrize("env", [UTF8, BARE, ASCII, {**UTF8, "TERM": "dumb"}, {**UTF8, "COLUMNS": "20"}])
@pytest.mark.parametrize("command", [[], ["scan"], ["relocate"], ["status"], ["verify"]])
def test_help_under_any_terminal(env: dict[str, str], command: list[str]) -> None:
    for option in ("-h", "--help"):
        done = pack(*command, option, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: pack")


def test_help_on_a_narrow_terminal_and_into_nowhere() -> None:
    main, side = pty.openpty()
    try:
        with os.fdopen(side, "wb") as terminal:
            done = subprocess.run(
                [PACK, "--help"], stdout=terminal, stderr=subprocess.PIPE, env={**UTF8, "TERM": "vt52"}
            )
    finally:
        os.close(main)
    assert (done.returncode, done.stderr) == (0, b"")
    closed = pack("--help", redirect=">&-")
    assert (closed.returncode, closed.stderr) == (0, "")


def test_version() -> None:
    done = pack("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("pack, version ")


# Errors: each has its code


def test_usage_errors(tmp_path: Path, environment: Path) -> None:
    complains(pack("-p", environment, "-n", "small"), 2, "both a name and a prefix")
    complains(pack("--bogus"), 2, "No such option")
    complains(pack("bogus"), 2, "No such command")
    complains(pack("-p", environment, "-o", "x.rar", cwd=tmp_path), 2, "rar")
    complains(pack("-p", environment, "--format", "rar", cwd=tmp_path), 2, "rar")
    complains(pack("-p", environment, "-o", "-", "--format", "no-archive"), 2, "standard output", "TIP")
    complains(pack("-p", environment, "-j", "0"), 2, "--n-threads 0")
    complains(pack("-p", environment, "-j", "-2"), 2, "--n-threads -2")
    complains(pack("-p", environment, "-j", "many"), 2)
    complains(pack("-p", environment, "-o", "x.tar.gz", "--compress-level", "99", cwd=tmp_path), 2, "99")
    complains(pack("relocate"), 2, "PREFIX")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envs"], "nothing was written"


TEXTS = ("license-file", "welcome", "conclusion", "pre-install", "post-install", "pre-uninstall")
INSTALLER_OPTIONS = [
    f"--{name}" for name in (*TEXTS, "installer-name", "installer-version", "default-prefix", "sign-with")
]


@pytest.mark.parametrize("option", [*([each, "x"] for each in INSTALLER_OPTIONS), ["--payload", "gz"]])
@pytest.mark.parametrize("output", ["x.tar.gz", "directory/", "-"])
def test_options_that_only_installers_have(tmp_path: Path, environment: Path, option: list[str], output: str) -> None:
    complains(pack("-p", environment, "-o", output, *option, cwd=tmp_path), 2, option[0], "only an installer", "TIP")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envs"], "nothing was written"


def test_usage_errors_of_installers(tmp_path: Path, environment: Path) -> None:
    """All of them are said before the environment is read."""
    installer: list[str | Path] = ["-p", environment, "-o", "x.sh", "--no-stub"]
    (environment / "conda-meta/x-1-0.json").write_text("a scan would refuse this")
    complains(pack(*installer, "--welcome", "missing", cwd=tmp_path), 2, "--welcome missing", "No such file")
    complains(pack(*installer, "--post-install", "/dev/null", cwd=tmp_path), 2, "--post-install", "nothing in it")
    complains(pack(*installer, "--sign-with", "missing", cwd=tmp_path), 2, "--sign-with missing")
    complains(pack(*installer, "--payload", "bz2", cwd=tmp_path), 2, "bz2")
    complains(pack(*installer, "--default-prefix", "env", cwd=tmp_path), 2, "is relative")
    complains(pack(*installer, "--installer-name", "a\nb", cwd=tmp_path), 2, "newline")
    complains(pack(*installer, "--compress-level", "10", cwd=tmp_path), 2, "tar.gz has the levels 0 to 9")
    complains(pack(*installer, "--payload", "zst", "--compress-level", "23", cwd=tmp_path), 2, "0 to 22")
    streamed: list[str | Path] = ["-p", environment, "-o", "-", "--format", "sh", "--no-stub"]
    complains(pack(*streamed, "--sign-with", "key", cwd=tmp_path), 2, "--sign-with", "standard output")
    (tmp_path / "x.sh.sha256").touch()
    complains(pack(*installer, cwd=tmp_path), 5, "x.sh.sha256: exists already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envs", "x.sh.sha256"]


@pytest.mark.parametrize("options", [["-n", "x"], ["-p", "x"], ["-f"], ["-q"], ["--format", "tar"], ["-j", "2"]])
def test_options_of_packing_before_a_command_are_not_ignored(options: list[str]) -> None:
    complains(pack(*options, "scan", "-p", "x"), 2, "'scan'", "TIP")


def test_environments_that_are_not_there(tmp_path: Path, environment: Path) -> None:
    complains(pack(cwd=tmp_path), 3, "no environment is active")
    complains(pack("scan", cwd=tmp_path), 3, "no environment is active")
    complains(pack("-n", "nosuch", env={**UTF8, "CONDA_ENVS_PATH": str(environment.parent)}), 3, "nosuch", "small")
    complains(pack("-p", tmp_path / "missing"), 3, "missing")
    complains(pack("-p", environment / "bin/tool"), 3, "not a directory")


def test_a_damaged_environment(tmp_path: Path, environment: Path) -> None:
    (environment / "conda-meta/x-1-0.json").write_text("{")
    complains(pack("-p", environment, "-o", tmp_path / "x.tar"), 4, "x-1-0.json", "damaged")
    assert not list(tmp_path.glob("x.tar*"))


def test_outputs_that_cannot_be_written(tmp_path: Path, environment: Path) -> None:
    output = tmp_path / "x.tar"
    output.write_bytes(b"mine")
    complains(pack("-p", environment, "-o", output), 5, "exists")
    assert output.read_bytes() == b"mine"
    complains(pack("-p", environment, "-o", tmp_path / "missing/x.tar"), 5, "missing")
    (tmp_path / "directory.tar").mkdir()
    complains(pack("-p", environment, "-o", tmp_path / "directory.tar"), 5)
    assert pack("-p", environment, "-o", output, "-f").returncode == 0
    assert tarfile.is_tarfile(output)


@pytest.mark.parametrize("command", ["relocate", "status", "verify"])
def test_trees_that_are_none_of_ours(tmp_path: Path, tree: Path, command: str) -> None:
    complains(pack(command, tmp_path / "missing"), 6, "missing")
    complains(pack(command, tmp_path), 6, "TIP")
    (tree / ".pack/references.json").write_text('{"format": 1}')
    complains(pack(command, tree), 6, "damaged", "TIP")


def test_targets_that_are_refused(tree: Path) -> None:
    colon = tree.rename(tree.with_name("a:b"))
    before = (colon / "bin/tool").read_bytes()
    complains(pack("relocate", colon), 7, "colon")
    assert (colon / "bin/tool").read_bytes() == before


def test_targets_without_room(tree: Path) -> None:
    long = tree.rename(tree.with_name("t" * 100))
    complains(pack("relocate", long), 8, "lib/x.bin: the C string at byte 1 has room for", "--allow-unrelocated")
    done = pack("relocate", long, "--allow-unrelocated")
    assert done.returncode == 0, done.stderr
    assert bytes(long) in (long / "bin/tool").read_bytes()


def test_a_strict_relocation_takes_no_half_measures(tree: Path) -> None:
    complains(pack("relocate", tree, "--strict", "--allow-unrelocated"), 2, "contradict")
    other = tree.rename(tree.with_name("o"))
    complains(pack("relocate", other, "--strict"), 8, "lib/x.bin: the C string at byte 1", "without --strict")
    same = other.rename(tree.with_name("small"))
    assert pack("relocate", same, "--strict").returncode == 0


def test_the_fit_at_a_target(environment: Path) -> None:
    done = pack("scan", "-p", environment, "--target", environment.parent / "small")
    assert (done.returncode, done.stderr) == (0, "")
    assert "accepted    by default" in done.stdout
    facts = json.loads(pack("scan", "-p", environment, "--target", "/" + "t" * 200, "--json").stdout)
    assert facts["target"] == "/" + "t" * 200
    assert facts["counts"]["no room"] == facts["refused"] == len(facts["strings"]) > 0
    strict = pack("scan", "-p", environment, "--target", "/" + "t" * 200, "--strict")
    assert strict.returncode == 8
    assert "lib/x.bin at byte 1: no room" in strict.stderr
    complains(pack("scan", "-p", environment, "--target", "/a:b"), 7, "colon")
    complains(pack("scan", "-p", environment, "--strict"), 2, "--target DIR")
    complains(pack("scan", "-p", environment, "--limits", "--target", "/a"), 2, "different reports")


def test_verify_fails_with_words(tree: Path) -> None:
    assert pack("relocate", tree).returncode == 0
    done = pack("verify", tree)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    (tree / "lib/x.bin").write_bytes(b"damaged")
    done = pack("verify", tree)
    assert done.returncode == 11
    assert "lib/x.bin" in done.stdout
    assert "TIP" in done.stderr


# What it prints


@pytest.mark.parametrize("env", [UTF8, ASCII, {**UTF8, "PYTHONIOENCODING": "latin-1"}])
def test_json_is_json_in_any_encoding(environment: Path, tree: Path, env: dict[str, str]) -> None:
    """Names that the terminal cannot show included."""
    commands: list[list[str | Path]] = [
        ["scan", "-p", environment],
        ["scan", "--limits", "-p", environment],
        ["status", tree],
        ["relocate", tree],
        ["status", tree],
        ["verify", tree],
    ]
    (tree / "added é").write_bytes(b"x")
    for command in commands:
        done = pack(*command, "--json", env=env)
        assert (done.returncode, done.stderr) == (0, ""), command
        raw = done.stdout.encode("utf-8", "surrogateescape")
        document = json.loads(raw.decode(env.get("PYTHONIOENCODING", "utf-8")))
        assert isinstance(document, dict)
        if command[0] == "scan" and "findings" in document:
            assert "lib/é%FF" in [finding["path"] for finding in document["findings"]]
        if command[0] == "verify":
            assert "added é" in [finding["path"] for finding in document["findings"]]


def test_text_in_any_encoding(environment: Path, tree: Path) -> None:
    assert "lib/é%FF" in pack("scan", "-p", environment).stdout
    shown = pack("scan", "-p", environment, env=ASCII)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "lib/\\xe9%FF" in shown.stdout


def test_status_tells_where_a_tree_thinks_it_is(tree: Path) -> None:
    fresh = json.loads(pack("status", tree, "--json").stdout)
    assert (fresh["current"], fresh["complete"], fresh["prefixes"]) == (False, True, [None])
    assert "nothing yet" in pack("status", tree).stdout
    assert pack("relocate", tree).returncode == 0
    done = json.loads(pack("status", tree, "--json").stdout)
    assert (done["current"], done["prefixes"], done["root"]) == (True, [str(tree)], str(tree))
    assert "up to date" in pack("status", tree).stdout
    moved = tree.rename(tree.with_name("u"))
    stale = json.loads(pack("status", moved, "--json").stdout)
    assert (stale["current"], stale["prefixes"], stale["root"]) == (False, [str(tree)], str(moved))
    assert "stale" in pack("status", moved).stdout


def test_relocate_tells_what_it_did(tree: Path) -> None:
    first = json.loads(pack("relocate", tree, "--json").stdout)
    assert (first["prefix"], first["written"], first["right"]) == (str(tree), 2, 0)
    again = json.loads(pack("relocate", tree, "--json").stdout)
    assert (again["written"], again["right"]) == (0, 2)


def test_packing_tells_what_it_made(tmp_path: Path, environment: Path) -> None:
    done = pack("-p", environment, cwd=tmp_path)
    assert done.returncode == 0
    assert re.match(r"small\.tar\.gz: 7 entries, [0-9.]+ MB by zlib-ng [0-9.]+; ", done.stdout)
    assert "; 2 references in 2 files are rewritten where it goes" in done.stdout
    assert "\r" not in done.stderr, "no progress bar where there is no terminal"
    installer = pack("-p", environment, "-o", "a b.sh", "--no-stub", cwd=tmp_path)
    assert installer.returncode == 0
    assert re.match(r"a b\.sh: 7 entries, [0-9.]+ MB by zlib-ng [0-9.]+; ", installer.stdout)
    assert installer.stdout.endswith("\nto install it: sh 'a b.sh' --prefix DIR\n")
    assert "that has no Python, and --no-stub was given" in installer.stderr
    quiet = pack("-p", environment, "-q", "-f", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_the_active_environment_is_packed(tmp_path: Path, environment: Path) -> None:
    done = pack("-o", "x.tar", cwd=tmp_path, env={**UTF8, "CONDA_PREFIX": str(environment)})
    assert done.returncode == 0, done.stderr
    assert tarfile.is_tarfile(tmp_path / "x.tar")


def test_an_archive_on_standard_output_is_all_that_is_there(tmp_path: Path, environment: Path) -> None:
    command: list[str | Path] = [PACK, "-p", environment, "-o", "-", "--format", "tar"]
    done = subprocess.run(command, env=UTF8, capture_output=True, check=True)
    assert pack("-p", environment, "-o", tmp_path / "x.tar").returncode == 0
    assert done.stdout == (tmp_path / "x.tar").read_bytes()


def test_a_reader_that_goes_away(environment: Path) -> None:
    """As with ``| head``: no traceback."""
    done = pack("scan", "-p", environment, "--json", redirect="| head -c 1 >/dev/null")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_full_disk_is_told(environment: Path) -> None:
    done = pack("scan", "-p", environment, "--json", redirect=">/dev/full")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(tmp_path: Path, environment: Path, number: signal.Signals) -> None:
    """The reader of a FIFO decides how far packing has come."""
    os.mkfifo(tmp_path / "fifo")
    (environment / "big").write_bytes(os.urandom(1 << 20))
    command: list[str | Path] = [PACK, "-p", environment, "-o", "-", "--format", "tar"]
    with (
        subprocess.Popen(["sh", "-c", 'exec "$@" >fifo', "sh", *command], cwd=tmp_path, env=UTF8) as process,
        (tmp_path / "fifo").open("rb") as reader,
    ):
        assert reader.read(512)  # it is writing, and cannot go on
        process.send_signal(number)
        process.wait(60)
    assert process.returncode == 128 + number


def test_a_bar_is_drawn_on_a_terminal_by_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scans and unpacks forks, which a process with threads had better not."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    before = threading.active_count()
    with Bar(quiet=False) as bar:
        bar.start("scanning", 1000)
        bar.advance(500)
        assert threading.active_count() == before
    assert "scanning:   0%|" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")  # and is gone


@pytest.mark.parametrize("command", [[PACK], [sys.executable, "-m", "pack"]])
def test_an_interrupt_while_the_program_is_loaded_says_nothing(command: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\ntime.sleep(60)\n")
    environ = {**UTF8, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([*command, "--help"], env=environ, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "begun").exists() and process.poll() is None:
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (-signal.SIGINT, "")


def test_the_program_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "pack", "--version"], env=UTF8, capture_output=True, text=True)
    assert done.stdout == pack("--version").stdout
    assert done.stdout.startswith("pack, version ")
