"""A log of one run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from installer_stub.errors import UsageError
from pack.log import Log
from tests.integration.moving import PACK


def test_lines_have_times_and_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    log = Log(str(tmp_path / "log"), ["pack", "--x", "https://me:word@host/t/token/c"], "1")
    log.line("one\ntwo\udcff")
    log.end(3)
    first, *lines = (tmp_path / "log").read_text().splitlines()
    assert first == "before"
    assert [line.split(" ", 1)[1] for line in lines] == [
        "pack 1: pack --x https://host/t//c",
        "one",
        r"two\udcff",
        "ended with code 3",
    ]


def test_a_log_that_cannot_be_opened_is_refused_and_a_full_disk_is_not_felt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        Log(str(tmp_path / "none/log"), ["pack"], "1")
    Log("/dev/full", ["pack"], "1").line("lost")


def test_every_command_has_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for command, code in (
        (["scan", "-p", "none"], 3),
        (["-p", "none"], 3),
        (["stub", "list"], 0),
        (["status", "."], 6),
    ):
        done = subprocess.run([PACK, *command, "--log", log], cwd=tmp_path, capture_output=True, env=os.environ)
        assert done.returncode == code
        assert log.read_text().endswith(f"ended with code {code}\n")
    assert "there is no environment at" in log.read_text() and "TIP: " in log.read_text()
