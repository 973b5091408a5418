"""Which paths are packed: rules on the paths of a walk, in their order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from installer_stub import walk
from installer_stub.errors import UsageError
from installer_stub.model import Kind
from pack.selection import EXCLUDED, UNMATCHED, Rule, described, rule, select


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    for name in (
        "bin/python",
        "share/doc/a/x.html",
        "share/doc/b",
        "share/man/m",
        "lib/p/x.pyx",
        "lib/p/y.py",
        "lib/q/z.pyx",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def kept(prefix: Path, *rules: tuple[str, str]) -> set[str]:
    """Return the paths that stay; a directory only where it is all that does."""
    found = list(walk.walk(os.fsencode(prefix)))
    stays = select(os.fsencode(prefix), found, [rule(*each) for each in rules]).found
    paths = {os.fsdecode(each.path) for each in stays}
    return {path for path in paths if not any(other.startswith(path + "/") for other in paths)}


ALL = {
    "bin/python",
    "empty",
    "share/doc/a/x.html",
    "share/doc/b",
    "share/man/m",
    "lib/p/x.pyx",
    "lib/p/y.py",
    "lib/q/z.pyx",
}


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ([], set()),
        ([("exclude", "*.pyx")], {"lib/p/x.pyx", "lib/q/z.pyx"}),
        ([("exclude", "*.pyx"), ("include", "lib/p/*.pyx")], {"lib/q/z.pyx"}),
        ([("include", "lib/p/*.pyx"), ("exclude", "*.pyx")], {"lib/p/x.pyx", "lib/q/z.pyx"}),
        ([("exclude", "share/doc")], {"share/doc/a/x.html", "share/doc/b"}),
        ([("exclude", "share/doc/")], {"share/doc/a/x.html", "share/doc/b"}),
        ([("exclude", "share/doc/*")], {"share/doc/a/x.html", "share/doc/b"}),
        ([("exclude", "doc")], set()),
        ([("exclude", "share"), ("include", "share/doc/b")], {"share/doc/a/x.html", "share/man/m"}),
        ([("exclude", "empty")], {"empty"}),
        ([("exclude", "*"), ("include", "bin")], ALL - {"bin/python"}),
        ([("exclude", "lib/[pr]/*")], {"lib/p/x.pyx", "lib/p/y.py"}),
        ([("exclude", "lib/?/y.py")], {"lib/p/y.py"}),
    ],
)
def test_rules_apply_in_their_order(prefix: Path, rules: list[tuple[str, str]], gone: set[str]) -> None:
    assert kept(prefix, *rules) == ALL - gone


def test_a_directory_goes_with_the_last_path_in_it(prefix: Path) -> None:
    found = list(walk.walk(os.fsencode(prefix)))
    selected = select(os.fsencode(prefix), found, [Rule("share/doc/*"), Rule("share/man/m")])
    paths = {each.path for each in selected.found}
    assert not any(path.startswith(b"share") for path in paths) and b"empty" in paths
    assert (
        selected.left_out[b"share"] == "--exclude share/man/m" or selected.left_out[b"share"] == "--exclude share/doc/*"
    )


def test_the_next_name_of_an_inode_becomes_the_file(prefix: Path) -> None:
    for name in ("bin/b", "bin/c"):
        (prefix / name).hardlink_to(prefix / "bin/python")
    found = list(walk.walk(os.fsencode(prefix)))
    stays = {each.path: each for each in select(os.fsencode(prefix), found, [Rule("bin/b")]).found}
    assert (stays[b"bin/c"].kind, stays[b"bin/c"].size) == (Kind.FILE, len("bin/python"))
    assert (stays[b"bin/python"].kind, stays[b"bin/python"].target) == (Kind.HARD_LINK, b"bin/c")


def test_what_is_left_out_is_told(prefix: Path) -> None:
    found = list(walk.walk(os.fsencode(prefix)))
    owners = {b"lib/p/x.pyx": "p-1-0"}
    rules = [Rule("*.pyx"), Rule("nothing"), Rule("no", keep=True)]
    selected = select(os.fsencode(prefix), found, rules, lambda path: "", lambda path: owners.get(path, ""))
    notes = [(note.path, note.what, note.detail) for note in selected.notes]
    assert (b"lib/p/x.pyx", EXCLUDED, "--exclude *.pyx") in notes
    assert {detail for _, what, detail in notes if what == UNMATCHED} == {"--exclude nothing", "--include no"}
    assert {(each.package, each.files) for each in selected.saved} == {("p-1-0", 1), ("", 1)}
    assert described(selected.saved) == ["left out by --exclude *.pyx: 2 files, 0.0 MB"]


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("exclude", ""), ("exclude", "/"), ("include", "/opt/env/bin"), ("exclude", "a\0"), ("x", "y")],
)
def test_what_can_match_nothing_is_refused(kind: str, pattern: str) -> None:
    with pytest.raises(UsageError) as refused:
        rule(kind, pattern)
    assert refused.value.tip
