"""A symlink leads to the same file before and after, wherever the environment stands: realpath is the judge."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from installer_stub import walk
from pack.links import inside

# what is shown: path of the link, its text (ENV is the prefix, TOP what it lies in), the text as archived
INSIDE: dict[str, tuple[str, str, str]] = {
    "to a file": ("bin/a", "ENV/lib/x", "../lib/x"),
    "to a directory": ("bin/a", "ENV/lib/sub", "../lib/sub"),
    "to a directory, with a slash": ("bin/a", "ENV/lib/sub/", "../lib/sub"),
    "to what is not there": ("bin/a", "ENV/no/such", "../no/such"),
    "to a name of any bytes": ("bin/a", "ENV/lib/\udcff\n", "../lib/\udcff\n"),
    "to itself": ("bin/a", "ENV/bin/a", "a"),
    "to the prefix": ("bin/a", "ENV", ".."),
    "to the prefix, with slashes": ("bin/a", "ENV//", ".."),
    "to the prefix, from its top": ("a", "ENV", "."),
    "to its own directory": ("lib/sub/a", "ENV/lib/sub", "."),
    "to the directory above": ("lib/sub/a", "ENV/lib", ".."),
    "to a link, which is followed no further": ("bin/a", "ENV/lib64/x", "../lib64/x"),
    "through a link and up: that is not its parent by text": ("bin/a", "ENV/lib64/../x", "../lib64/../x"),
    "up and down again": ("lib/a", "ENV/lib/sub/../x", "sub/../x"),
    "doubled slashes": ("bin/a", "ENV//lib///x", "../lib/x"),
    "two slashes in front": ("bin/a", "/ENV/lib/x", "../lib/x"),
    "a dot in the prefix": ("bin/a", "TOP/./env/lib/x", "../lib/x"),
    "another name of the prefix on this disk": ("bin/a", "TOP/alias/lib/x", "../lib/x"),
    "out of the prefix and back by its name": ("bin/a", "ENV/../env/lib/x", "../lib/x"),
    "out by a link and back by its name": ("bin/a", "ENV/out/../env/lib/x", "../lib/x"),
    "out by a link, for which that link answers": ("bin/a", "ENV/out/f", "../out/f"),
    "relative": ("bin/a", "../lib/x", "../lib/x"),
    "relative, its text kept": ("bin/a", "..//lib/./sub/", "..//lib/./sub/"),
    "relative, through a link and up": ("bin/a", "../lib64/../x", "../lib64/../x"),
    "relative, to the prefix by its name": ("a", "../env", "."),
    "relative, out and back by its name": ("bin/a", "../../env/lib/x", "../lib/x"),
    "relative, out and back by another name": ("bin/a", "../../alias/lib/x", "../lib/x"),
    "relative, out and back, and not there": ("bin/a", "../../env/no/such", "../no/such"),
}

OUTSIDE: dict[str, tuple[str, str]] = {
    "absolute": ("bin/a", "TOP/outside/f"),
    "not there": ("bin/a", "/no/such"),
    "the root": ("bin/a", "/"),
    "a name that only begins like the prefix": ("bin/a", "ENV2/f"),
    "inside by its text alone": ("bin/a", "ENV/../outside/f"),
    "inside by its text alone, through a link": ("bin/a", "ENV/out/../alias2"),
    "relative": ("bin/a", "../../outside/f"),
    "relative, from the top": ("a", ".."),
    "relative, by the name of another that is not there": ("bin/a", "../../environment/lib/x"),
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for directory in ("env/bin", "env/lib/sub", "outside"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("env/x", "env/lib/x", "env/lib/sub/x", "outside/f"):
        (tmp_path / file).touch()
    (tmp_path / "env/lib64").symlink_to("lib/sub")
    (tmp_path / "env/out").symlink_to(tmp_path / "outside")
    (tmp_path / "alias").symlink_to("env")
    return tmp_path


def archived(top: Path, path: str, text: str) -> bytes | None:
    """Make a link, and return its text as archived."""
    prefix = bytes(top / "env")
    (top / "env" / path).symlink_to(text.replace("ENV", f"{top}/env").replace("TOP", str(top)))
    return inside(walk.look(prefix, path.encode()), prefix, (prefix,))


def resolved(prefix: Path, path: str) -> bytes:
    return os.path.realpath(bytes(prefix / path))


@pytest.mark.parametrize(("path", "text", "expected"), INSIDE.values(), ids=INSIDE)
def test_a_link_inside_leads_to_the_same_after_a_move(top: Path, path: str, text: str, expected: str) -> None:
    assert archived(top, path, text) == os.fsencode(expected)
    before = resolved(top / "env", path)
    moved = shutil.copytree(top / "env", top / "elsewhere" / "other", symlinks=True)
    (top / "env").rename(top / "gone")
    (moved / path).unlink()
    (moved / path).symlink_to(expected)
    assert resolved(moved, path) == before.replace(bytes(top / "env"), bytes(moved))


@pytest.mark.parametrize(("path", "text"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_link_that_leaves_is_told(top: Path, path: str, text: str) -> None:
    assert archived(top, path, text) is None


def test_each_link_of_a_chain_is_seen_to_by_itself(top: Path) -> None:
    assert archived(top, "bin/one", "ENV/bin/two") == b"two"
    assert archived(top, "bin/two", "ENV/lib/three") == b"../lib/three"
    assert archived(top, "lib/three", "ENV/lib/x") == b"x"


def test_links_in_a_circle_are_no_trouble(top: Path) -> None:
    assert archived(top, "bin/one", "ENV/lib/../bin/two") == b"../lib/../bin/two"
    assert archived(top, "bin/two", "../../env/bin/one") == b"one"


def test_a_name_that_exists_nowhere_any_more_counts(top: Path) -> None:
    """What the client wrote into its records, or where the tree stood before."""
    prefix = bytes(top / "env")
    for text, expected in (("/gone/env/lib/x", b"../lib/x"), ("/gone/env/lib64/../x", b"../lib64/../x")):
        (top / "env/bin/a").unlink(missing_ok=True)
        (top / "env/bin/a").symlink_to(text)
        assert inside(walk.look(prefix, b"bin/a"), prefix, (prefix, b"/gone/env")) == expected
