"""Zips, images and directories that hold what their manifest does not list: refused, and nothing is left."""

from __future__ import annotations

import os
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pack.archive.zip import TIMES
from tests.conftest import need
from tests.integration.moving import pack, pack_env, run


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "env"
    for name in ("bin/tool", "lib/data", "conda-meta/history"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{root}\n")
    (root / "link").symlink_to("lib")
    return root


def add(archive: Path, name: str, content: bytes, mode: int = stat.S_IFREG | 0o644) -> None:
    """Append a member to a zip, as anybody can."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.extra = TIMES.pack(0x5455, TIMES.size - 4, 1, 946_684_800)
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "a") as opened:
        warnings.simplefilter("ignore")  # of a name that is there twice
        opened.writestr(info, content)


ZIPS: dict[str, Callable[[Path], None]] = {
    "a file more": lambda path: add(path, "lib/evil", b"x"),
    "one that is there twice": lambda path: add(path, "lib/data", b"x"),
    "an absolute name": lambda path: add(path, "/tmp/evil", b"x"),
    "a name that leads up": lambda path: add(path, "../evil", b"x"),
    "a file through a symlink": lambda path: add(path, "link/evil", b"x"),
    "a symlink more": lambda path: add(path, "lib/out", b"/etc", stat.S_IFLNK | 0o777),
    "a device": lambda path: add(path, "lib/null", b"", stat.S_IFCHR | 0o666),
    "a state": lambda path: add(path, ".pack/state.json", b"{}"),
}


@pytest.mark.parametrize("what", ZIPS)
def test_zips(what: str, prefix: Path, tmp_path: Path) -> None:
    archive = pack_env(prefix, tmp_path / "env.zip", "--zip-symlinks")
    pack("unpack", "--check", archive)
    ZIPS[what](archive)
    for option in (str(tmp_path / "apps"), "--check"):
        assert "pack: error: " in pack("unpack", archive, option, code=11).stderr
    assert not (tmp_path / "apps").exists() and not (tmp_path / "evil").exists()


def test_a_zip_cut_anywhere(prefix: Path, tmp_path: Path) -> None:
    data = pack_env(prefix, tmp_path / "env.zip").read_bytes()
    for length in range(3, len(data), len(data) // 20):
        (tmp_path / "cut.zip").write_bytes(data[:length])
        assert pack("unpack", tmp_path / "cut.zip", tmp_path / "apps", code=None).returncode in (6, 11)
    assert not (tmp_path / "apps").exists()


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file more": lambda root: (root / "lib/evil").write_text("x"),
    "a file less": lambda root: (root / "lib/data").unlink(),
    "other bytes": lambda root: os.utime(rewritten(root / "conda-meta/history"), (946_684_800, 946_684_800)),
    "another mode": lambda root: (root / "bin/tool").chmod(0o777),
    "another target": lambda root: relinked(root / "link"),
}


def relinked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc")


def rewritten(path: Path) -> Path:
    path.write_text("x" * path.stat().st_size)
    return path


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("kind", ["squashfs", "directory"])
def test_images_and_directories(kind: str, what: str, prefix: Path, tmp_path: Path) -> None:
    tree = pack_env(prefix, tmp_path / "tree", "--format", "no-archive")
    CHANGES[what](tree)
    archive = tree
    if kind == "squashfs":
        archive = tmp_path / "env.squashfs"
        run([need("mksquashfs"), tree, archive, "-quiet", "-no-progress", "-all-root"])
        shutil.rmtree(tree)
    assert "pack: error: " in pack("unpack", archive, tmp_path / "apps", code=11).stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("apps", ".", "root"))) == []


def test_an_image_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.squashfs").write_bytes(b"hsqs" + bytes(5000))
    assert "unsquashfs failed" in pack("unpack", tmp_path / "x.squashfs", tmp_path / "apps", code=11).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.squashfs"]
