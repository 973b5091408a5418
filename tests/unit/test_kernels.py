"""Kernels of the user's that start those of an environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from installer_stub.errors import OutputError
from installer_stub.kernels import register, unregister


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "my env"
    (root / "bin").mkdir(parents=True)
    (root / "bin/python").touch()
    kernel(root / "share/jupyter/kernels/python3", "python")
    return root


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home/.local/share/jupyter/kernels"


def kernel(directory: Path, *argv: str, **more: Any) -> None:
    directory.mkdir(parents=True)
    words = [*argv, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (directory / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "Python 3", **more}))


def test_it_activates_and_starts_the_environments_program(prefix: Path, home: Path) -> None:
    (made,) = register(os.fsencode(prefix), "activate")
    assert Path(os.fsdecode(made)) == home / "my-env-python3"
    told = json.loads((home / "my-env-python3/kernel.json").read_text())
    assert told["display_name"] == "Python 3 (my env)"
    assert told["argv"][0] == "/bin/sh" and told["argv"][3:5] == [str(prefix), f"{prefix}/bin/python"]
    assert '. "$0/bin/activate"' in told["argv"][2] and told["argv"][-1] == "{connection_file}"
    assert register(os.fsencode(prefix), "activate") == [made], "again, it is the same one"
    unregister(os.fsencode(prefix))
    assert os.listdir(home) == []


def test_nobody_elses_kernel_is_touched(prefix: Path, home: Path) -> None:
    kernel(home / "my-env-python3", "/usr/bin/python")
    (home / "broken").mkdir()
    (home / "broken/kernel.json").write_text("not json")
    (made,) = register(os.fsencode(prefix), "pack-activate")
    assert os.path.basename(made) == b"my-env-python3-2"
    unregister(os.fsencode(prefix))
    assert sorted(os.listdir(home)) == ["broken", "my-env-python3"]


def test_without_kernels_there_is_nothing_to_do(tmp_path: Path, home: Path) -> None:
    (tmp_path / "bare").mkdir()
    assert register(os.fsencode(tmp_path / "bare"), "activate") == []
    unregister(os.fsencode(tmp_path / "bare"))
    assert not home.exists()


def test_directories_of_others(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert register(os.fsencode(prefix), "activate") == [os.fsencode(tmp_path / "data/jupyter/kernels/my-env-python3")]
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    assert register(os.fsencode(prefix), "activate") == [os.fsencode(tmp_path / "jupyter/kernels/my-env-python3")]
    monkeypatch.delenv("JUPYTER_DATA_DIR")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HOME")
    with pytest.raises(OutputError, match="HOME is not set"):
        register(os.fsencode(prefix), "activate")
