"""Everything below a prefix is seen, once, in one order; what cannot be seen is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer_stub.model import Kind
from installer_stub.walk import Found, look, walk
from tests.unit.other_user import nobody, open_directory


def make(root: Path, *paths: str) -> Path:
    """Make files of one line, and directories where the path ends in a slash."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(f"{path}\n")
    return root


def walked(root: Path) -> dict[bytes, Found]:
    found = list(walk(bytes(root)))
    by_path = {each.path: each for each in found}
    assert len(by_path) == len(found)
    return by_path


def test_order_is_that_of_bytes_and_a_directory_comes_before_what_is_in_it(tmp_path: Path) -> None:
    make(tmp_path, "b/c", "b.txt", "b/a/x", "b-x/y", "B", "a", "empty/", "é")
    paths = [each.path.decode() for each in walk(bytes(tmp_path))]
    assert paths == ["B", "a", "b", "b/a", "b/a/x", "b/c", "b-x", "b-x/y", "b.txt", "empty", "é"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "-", ".", "é"]), min_size=1, max_size=3), max_size=12))
def test_order_is_that_of_the_components(paths: list[list[str]]) -> None:
    with TemporaryDirectory() as root:
        for path in paths:
            Path(root, *path).mkdir(parents=True, exist_ok=True)
        found = [each.path for each in walk(os.fsencode(root))]
    assert found == sorted(found, key=lambda path: path.split(b"/"))


def test_kinds_sizes_modes_and_times(tmp_path: Path) -> None:
    make(tmp_path, "file", "directory/")
    (tmp_path / "link").symlink_to("nowhere/\udcff")
    (tmp_path / "file").chmod(0o4751)
    (tmp_path / "directory").chmod(0o1777)
    os.utime(tmp_path / "file", ns=(0, 1_234_567_890_123_456_789))
    found = walked(tmp_path)
    status = (tmp_path / "file").stat()
    facts = (0o4751, 5, 1_234_567_890_123_456_789, b"", "", "", status.st_ctime_ns, status.st_ino)
    assert found[b"file"] == Found(b"file", Kind.FILE, *facts)
    assert (found[b"directory"].kind, found[b"directory"].mode) == (Kind.DIRECTORY, 0o1777)
    assert found[b"directory"].size == 0
    assert (found[b"link"].kind, found[b"link"].target) == (Kind.SYMLINK, b"nowhere/\xff")


def test_a_second_name_of_an_inode_is_a_link_to_the_first_in_order(tmp_path: Path) -> None:
    make(tmp_path, "m/middle", "other")
    (tmp_path / "z").hardlink_to(tmp_path / "m/middle")
    (tmp_path / "a").hardlink_to(tmp_path / "m/middle")
    found = walked(tmp_path)
    assert found[b"a"].kind is Kind.FILE
    for name in (b"m/middle", b"z"):
        assert (found[name].kind, found[name].target, found[name].size) == (Kind.HARD_LINK, b"a", 0)


def test_a_name_in_the_package_cache_makes_no_link(tmp_path: Path) -> None:
    """Clients link an environment's files to their cache: one name here, one there."""
    make(tmp_path, "env/file")
    (tmp_path / "cache").hardlink_to(tmp_path / "env/file")
    assert walked(tmp_path / "env")[b"file"].kind is Kind.FILE


def test_what_is_skipped_is_no_first_name(tmp_path: Path) -> None:
    make(tmp_path, "a/x")
    (tmp_path / "b").hardlink_to(tmp_path / "a/x")
    found = list(walk(bytes(tmp_path), lambda path: path == b"a"))
    assert [(each.path, each.kind) for each in found] == [(b"b", Kind.FILE)]


def test_directories_behind_symlinks_are_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "env/lib/x", "outside/secret")
    (tmp_path / "env/lib64").symlink_to("lib")
    (tmp_path / "env/out").symlink_to(tmp_path / "outside")
    (tmp_path / "env/loop").symlink_to(".")
    found = walked(tmp_path / "env")
    assert set(found) == {b"lib", b"lib/x", b"lib64", b"out", b"loop"}
    assert all(found[name].kind is Kind.SYMLINK for name in (b"lib64", b"out", b"loop"))


def test_what_no_archive_holds_has_no_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
    found = walked(tmp_path)
    facts = [(found[name].kind, found[name].error, found[name].special) for name in (b"fifo", b"socket")]
    assert facts == [(None, "", "a FIFO"), (None, "", "a socket")]


def test_names_of_any_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x01", b" ", b"-rf", b"%41", "é".encode(), b"n" * 255, b"...", b"\\"]
    for name in names:
        with open(os.path.join(bytes(tmp_path), name), "wb") as file:
            file.write(name)
    assert {path: each.size for path, each in walked(tmp_path).items()} == {name: len(name) for name in names}


def test_a_directory_that_cannot_be_listed_is_told() -> None:
    with open_directory() as root:
        make(root, "closed/file", "open/file")
        (root / "closed").chmod(0o000)
        with nobody():
            found = walked(root)
    assert found[b"closed"].error == "Permission denied"
    assert found[b"closed"].kind is Kind.DIRECTORY
    assert b"closed/file" not in found
    assert found[b"open/file"].error == ""


def test_a_directory_that_cannot_be_entered_is_told() -> None:
    """Its names can be listed, and nothing else."""
    with open_directory() as root:
        make(root, "listed/file")
        (root / "listed").chmod(0o444)
        with nobody():
            found = walked(root)
    assert (found[b"listed/file"].kind, found[b"listed/file"].error) == (None, "Permission denied")


@pytest.mark.parametrize(("name", "error"), [("missing", "No such file or directory"), ("file", "Not a directory")])
def test_a_prefix_that_is_none_is_told(tmp_path: Path, name: str, error: str) -> None:
    make(tmp_path, "file")
    assert [(each.path, each.error) for each in walk(bytes(tmp_path / name))] == [(b"", error)]


def test_a_tree_too_deep_for_a_path_is_told(tmp_path: Path) -> None:
    """The system takes no path of more than 4096 bytes; nothing below is lost without a word."""
    component = "d" * 250
    # In a process of its own: the working directory goes down.
    program = (
        "import os, sys\nfor _ in range(20):\n    os.mkdir(sys.argv[1])\n    os.chdir(sys.argv[1])\nopen('x', 'w')"
    )
    subprocess.run([sys.executable, "-c", program, component], cwd=tmp_path, check=True)
    try:
        found = list(walk(bytes(tmp_path)))
    finally:
        subprocess.run(["rm", "-rf", component], cwd=tmp_path, check=True)
    assert [each.error for each in found[:-1]] == [""] * (len(found) - 1)
    assert found[-1].error == "File name too long"
    assert len(found[-1].path) > 3500


def test_a_path_that_has_gone_is_told(tmp_path: Path) -> None:
    found = look(bytes(tmp_path), b"gone")
    assert (found.kind, found.error) == (None, "No such file or directory")


def test_many_directories_in_each_other(tmp_path: Path) -> None:
    """Deeper than Python calls itself."""
    path = bytes(tmp_path)
    for _ in range(1200):
        path += b"/d"
        os.mkdir(path)
    try:
        found = walked(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", "d"], cwd=tmp_path, check=True)
    assert len(found) == 1200
    assert path == os.path.join(bytes(tmp_path), max(found))
