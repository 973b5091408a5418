"""Package caches and other environments in a prefix are known by what they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from installer_stub import walk
from pack import foreign

TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n"


def made(prefix: Path, *names: str) -> bytes:
    for name in names:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(TAG if name.endswith("CACHEDIR.TAG") else "{}")
    return os.fsencode(prefix)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["pkgs/urls.txt"], {b"pkgs": "a package cache"}),
        (["cache/x-1-0.conda", "cache/x-1-0/info/index.json"], {b"cache": "a package cache"}),
        (["pkgs/x-1-0/info/index.json"], {}),
        (["pkgs/data.txt"], {}),
        (["envs/a/conda-meta/history", "envs/b/conda-meta/history"], {b"envs": "a directory of other environments"}),
        (["envs/.conda_envs_dir_test"], {b"envs": "a directory of other environments"}),
        (["envs/a/conda-meta/history", "envs/template/x"], {}),
        (["envs/readme"], {}),
        (["share/envs/a/conda-meta/history"], {}),
    ],
)
def test_directories_right_below_the_prefix(tmp_path: Path, names: list[str], found: dict[bytes, str]) -> None:
    assert foreign.directories(made(tmp_path, *names)) == found


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["var/cache/CACHEDIR.TAG", "var/cache/x"], {b"var/cache"}),
        (["CACHEDIR.TAG"], set()),
        ([".cache/pip/selfcheck/x", ".cache/pip/http-v2/y"], {b".cache/pip"}),
        (["share/selfcheck/x"], set()),
    ],
)
def test_caches_anywhere(tmp_path: Path, names: list[str], found: set[bytes]) -> None:
    prefix = made(tmp_path, *names)
    assert set(foreign.caches(prefix, list(walk.walk(prefix)))) == found


def test_a_file_that_is_only_called_so_is_no_mark(tmp_path: Path) -> None:
    prefix = made(tmp_path, "data/CACHEDIR.TAG")
    (tmp_path / "data/CACHEDIR.TAG").write_text("not this")
    assert foreign.caches(prefix, list(walk.walk(prefix))) == {}
