"""A run path is made relative where the relative one is right from wherever the file is opened, and fits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub import elf, references, walk
from installer_stub.elf import ReadAt
from installer_stub.model import Field, Fill, Force, Kind, Reference, Spelling
from pack import run_paths
from pack.environment import find
from pack.scan import Options, scan
from pack.splice import Spliced, stacked

ENV = b"/opt/some/env"
BEFORE, BEHIND = b"before\0", b"\0behind\0"


def reading(data: bytes) -> ReadAt:
    return lambda offset, length: data[offset : offset + length]


def slots(run_path: bytes, prefix: bytes = ENV, keep: int = 0, field: Field = Field.RUN_PATH) -> list[Reference]:
    """What reading a file tells of a run path that stands behind ``BEFORE``."""
    at, end = len(BEFORE), len(BEFORE) + len(run_path)
    starts = [at + match.start() for match in re.finditer(re.escape(prefix), run_path)]
    return [
        Reference(start, end - start, prefix, field, Spelling.PLAIN, Fill.TERMINATE, Force.ALWAYS, keep=keep)
        for start in starts
    ]


# path of the file, its run path, the run path as archived (to the NUL), what is shown
FITS = [
    (b"bin/a", b"/opt/some/env/lib", b"$ORIGIN/../lib", "one entry"),
    (b"lib/a.so", b"/opt/some/env/lib", b"$ORIGIN", "the file's own directory"),
    (b"a", b"/opt/some/env/lib", b"$ORIGIN/lib", "a file at the top"),
    (b"lib/a", b"/opt/some/env", b"$ORIGIN/..", "the prefix itself"),
    (b"a", b"/opt/some/env", b"$ORIGIN", "the prefix itself, from its top"),
    (b"lib/a", b"/opt/some/env/", b"$ORIGIN/..", "the prefix itself, with a slash"),
    (b"lib/a", b"/opt/some/env/lib/:/opt/some/env//x", b"$ORIGIN:$ORIGIN/../x", "slashes behind and doubled"),
    (b"bin/a", b"/opt/some/env/lib:/opt/some/env/l", b"$ORIGIN/../lib:$ORIGIN/../l", "several entries, in their order"),
    (b"bin/a", b"/opt/some/env/lib:/usr/lib", b"$ORIGIN/../lib:/usr/lib", "an entry outside, behind"),
    (b"bin/a", b"/usr/lib:/opt/some/env/lib", b"/usr/lib:$ORIGIN/../lib", "an entry outside, in front"),
    (b"bin/a", b"/opt/some/env/lib:$ORIGIN/x", b"$ORIGIN/../lib:$ORIGIN/x", "an entry that is relative already"),
    (b"bin/a", b"/opt/some/env/lib:/opt/some/env2", b"$ORIGIN/../lib:/opt/some/env2", "a name that only begins so"),
    (b"bin/a", b"/opt/some/env/lib:", b"$ORIGIN/../lib:", "an empty entry: the current directory, as it was"),
    (b"bin/a", b"/opt/some/env/lib:/opt/some/env/lib", b"$ORIGIN/../lib:$ORIGIN/../lib", "the same entry twice"),
    (b"a", b"/opt/some/env/lib64/../x", b"$ORIGIN/lib64/../x", "up from what may be a link: not its parent by text"),
    (b"x/y/a", b"/opt/some/env/lib64/../x", b"$ORIGIN/../../lib64/../x", "the same from two directories below"),
    (b"x/y/a", b"/opt/some/env/a/b/c", b"$ORIGIN/../../a/b/c", "as long as it was: no NUL is needed"),
]


@pytest.mark.parametrize(("path", "run_path", "relative", "why"), FITS, ids=[case[-1] for case in FITS])
def test_made_relative_in_place(path: bytes, run_path: bytes, relative: bytes, why: str) -> None:
    data = BEFORE + run_path + BEHIND
    made = run_paths.made_relative(reading(data), path, (), slots(run_path))
    assert made is not None
    archived = Spliced(reading(data), len(data), made.splices).read_at(0, len(data))
    assert archived[len(BEFORE) :].partition(b"\0")[0] == relative
    changed = len(BEFORE) + len(relative) + 1
    assert len(archived) == len(data)
    assert archived.startswith(BEFORE)
    assert archived[changed:] == data[changed:], "the old tail stays: other strings may share it"
    (kept,) = made.references
    assert (kept.fill, kept.archived) == (Fill.KEEP, run_path[kept.offset - len(BEFORE) :])


# path of the file, other directories that it is opened from, its run path, the bytes shared at its end, what is shown
STAYS = [
    (b"a/b/c/d/e", (), b"/opt/some/env/lib", 0, "the relative run path is longer"),
    (b"bin/a", (), b"/usr/lib", 0, "nothing in it is in the prefix"),
    (b"bin/a", (), b"$ORIGIN/../lib", 0, "packed again: it is relative"),
    (b"bin/a", (b"libexec/tools",), b"/opt/some/env/lib", 0, "it is opened from a directory at another depth, too"),
    (b"bin/a", (b"",), b"/opt/some/env/lib", 0, "it is opened from the top, too"),
    (b"lib/a", (b"bin",), b"/opt/some/env/lib", 0, "its own directory is not the other's"),
    (b"bin/a", (), b"/opt/some/env/l", 3, "the shared end leaves no room, and is not kept"),
]


@pytest.mark.parametrize(("path", "elsewhere", "run_path", "keep", "why"), STAYS, ids=[case[-1] for case in STAYS])
def test_stays_as_it_is(path: bytes, elsewhere: tuple[bytes, ...], run_path: bytes, keep: int, why: str) -> None:
    data = BEFORE + run_path + BEHIND
    assert run_paths.made_relative(reading(data), path, elsewhere, slots(run_path, keep=keep)) is None


def test_the_same_relative_way_from_two_directories_is_right() -> None:
    """``../lib`` leads to the same place from bin and from sbin."""
    data = BEFORE + b"/opt/some/env/lib" + BEHIND
    made = run_paths.made_relative(reading(data), b"bin/a", (b"sbin",), slots(b"/opt/some/env/lib"))
    assert made is not None and bytes(made.splices[0].new).startswith(b"$ORIGIN/../lib\0")


def test_a_shared_end_is_kept() -> None:
    """An export named "lib" is stored as the end of the run path: slashes bring the relative one to its length."""
    run_path = b"/opt/some/env/lib"
    data = BEFORE + run_path + BEHIND
    made = run_paths.made_relative(reading(data), b"bin/a", (), slots(run_path, keep=3))
    assert made is not None
    (splice,) = made.splices
    assert (splice.new, splice.length) == (b"$ORIGIN////../lib", len(run_path))


def test_a_shared_end_behind_the_new_string_is_kept() -> None:
    """Where a NUL fits in front of what is shared, there need be no slashes."""
    run_path = b"/opt/some/env//////////a"
    data = BEFORE + run_path + BEHIND
    made = run_paths.made_relative(reading(data), b"bin/a", (), slots(run_path, keep=2))
    assert made is not None
    assert made.splices[0].new == b"$ORIGIN/../a\0" + run_path[13:]


@pytest.mark.parametrize("field", [Field.C_STRING, Field.INTERPRETER, Field.LOAD_COMMAND])
def test_only_run_paths_know_their_origin(field: Field) -> None:
    """An interpreter is opened by the kernel, which knows no ``$ORIGIN``."""
    data = BEFORE + b"/opt/some/env/lib" + BEHIND
    assert run_paths.made_relative(reading(data), b"bin/a", (), slots(b"/opt/some/env/lib", field=field)) is None


def test_a_prefix_under_two_names() -> None:
    """A run path may call it by the name of a symlink and by its real path, in one string."""
    names = (b"/data/volume/env", b"/opt/env")
    relative = run_paths.relative_entries(b"/opt/env/lib:/data/volume/env/x:/opt/env2", names, [b"bin"])
    assert relative == b"$ORIGIN/../lib:$ORIGIN/../x:/opt/env2"


# what the tree holds (link -> target; "=" for a hard link), and from where else lib/a.so is opened
REACHED = [
    ({}, (), "no link"),
    ({"lib64": "lib"}, (), "a directory's link: the kernel finds the true parent"),
    ({"bin/a": "../lib/a.so"}, (b"bin",), "a file's link in another directory"),
    ({"lib/b.so": "a.so"}, (b"lib",), "a file's link beside it"),
    ({"bin/a": "b", "bin/b": "../lib/a.so"}, (b"bin",), "a chain"),
    ({"bin/a": "TOP/lib/a.so"}, (b"bin",), "an absolute link"),
    ({"bin/a": "../lib64/a.so", "lib64": "lib"}, (b"bin",), "a link through a directory's link"),
    ({"bin/a": "=lib/a.so"}, (b"bin",), "a hard link in another directory"),
    ({"bin/a": "=lib/a.so", "sbin/a": "../bin/a"}, (b"bin", b"sbin"), "a link to a hard link"),
    ({"bin/a": "../lib/none"}, (), "a link to what is not there"),
    ({"bin/a": "/usr/lib/a.so"}, (), "a link out of the prefix"),
]


@pytest.mark.parametrize(("links", "expected", "why"), REACHED, ids=[case[-1] for case in REACHED])
def test_directories(tmp_path: Path, links: dict[str, str], expected: tuple[bytes, ...], why: str) -> None:
    for directory in ("lib", "bin", "sbin"):
        (tmp_path / directory).mkdir()
    (tmp_path / "lib/a.so").write_bytes(b"a")
    for link, target in links.items():
        if target.startswith("="):
            os.link(tmp_path / target[1:], tmp_path / link)
        else:
            (tmp_path / link).symlink_to(target.replace("TOP", str(tmp_path)))
    prefix = os.fsencode(tmp_path)
    found = list(walk.walk(prefix, lambda path: False))
    first = next(each.path for each in found if each.kind is Kind.FILE and each.size == 1)
    reached = run_paths.directories(found, prefix, [prefix])
    elsewhere = {os.path.dirname(first), *reached.get(first, ())} - {b"lib"}
    assert elsewhere == set(expected) - {b"lib"}


def linked(prefix: Path, tags: str, *, symbol: str = "nothing") -> Path:
    """Link a library in ``lib`` of a prefix, with a run path there."""
    need("gcc")
    (prefix / "lib").mkdir()
    source = prefix / "lib/a.c"
    source.write_text(f"int {symbol}(void) {{ return 1; }}\n")
    output = prefix / "lib/liba.so"
    options = ["-shared", "-fPIC", "-nostdlib", "-s", f"-Wl,{tags},-rpath,{prefix}/lib:{prefix}/share"]
    subprocess.run(["gcc", *options, source, "-o", output], check=True)
    return output


def archived(prefix: Path, path: bytes) -> elf.Elf:
    """Scan a prefix, and read a file as it is archived."""
    item = next(item for item in scan(find(None, str(prefix)), Options(1)).items if item.entry.path == path)
    with references.Opened(os.path.join(os.fsencode(prefix), path)) as below:
        view, size = stacked(below, item.disk_size, item.layers)
        parsed = elf.parse(view, size)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("tags", "kind"), [("--enable-new-dtags", elf.DT_RUNPATH), ("--disable-new-dtags", elf.DT_RPATH)]
)
def test_the_tag_keeps_its_kind(tmp_path: Path, tags: str, kind: int) -> None:
    """The loader asks an RPATH before LD_LIBRARY_PATH, and a RUNPATH behind it."""
    linked(tmp_path, tags)
    (run_path,) = archived(tmp_path, b"lib/liba.so").run_paths
    assert (run_path.tag, run_path.text) == (kind, b"$ORIGIN:$ORIGIN/../share")


def test_both_tags_are_made_relative(tmp_path: Path) -> None:
    """Some linkers write both; their strings may be one."""
    path = linked(tmp_path, "--enable-new-dtags")
    data = bytearray(path.read_bytes())
    parsed = elf.parse(reading(bytes(data)), len(data))
    assert parsed is not None
    tag, value = next(each for each in parsed.dynamic if each[0] == elf.DT_RUNPATH)
    entry = tag.to_bytes(8, "little") + value.to_bytes(8, "little")
    end = data.find(entry) + 16 * (len(parsed.dynamic) - parsed.dynamic.index((tag, value)))
    assert not any(data[end : end + 32]), "linkers leave room behind the last entry"
    data[end : end + 16] = elf.DT_RPATH.to_bytes(8, "little") + value.to_bytes(8, "little")
    path.write_bytes(data)
    found = [(each.tag, each.text) for each in archived(tmp_path, b"lib/liba.so").run_paths]
    relative = b"$ORIGIN:$ORIGIN/../share"
    assert found == [(elf.DT_RUNPATH, relative), (elf.DT_RPATH, relative)]


def test_exports_that_share_the_end_of_a_run_path_stay(tmp_path: Path) -> None:
    """Such an export keeps its name, whatever the linker stored it as."""
    path = linked(tmp_path, "--enable-new-dtags", symbol="share")
    data = path.read_bytes()
    assert data.count(b"share\0") == data.count(b"/share\0") > 0, "this linker does not share ends"
    item = next(i for i in scan(find(None, str(tmp_path)), Options(1)).items if i.entry.path == b"lib/liba.so")
    after = Spliced(reading(data), len(data), item.layers[0]).read_at(0, len(data))
    (tmp_path / "after.so").write_bytes(after)
    names = [subprocess.check_output(["nm", "-D", each]) for each in (path, tmp_path / "after.so")]
    assert names[0] == names[1]
    assert b"$ORIGIN" in after and b" T share" in names[0]


def test_a_setuid_file_keeps_its_run_path(tmp_path: Path) -> None:
    """The loader takes no ``$ORIGIN`` for a program that gives its user another's rights."""
    path = linked(tmp_path, "--enable-new-dtags")
    path.chmod(0o4755)
    (run_path,) = archived(tmp_path, b"lib/liba.so").run_paths
    assert run_path.text == os.fsencode(f"{tmp_path}/lib:{tmp_path}/share")


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symlink", "hard link"])
def test_a_file_that_is_opened_elsewhere_keeps_its_run_path(tmp_path: Path, link: object) -> None:
    """``$ORIGIN`` is the directory of the link through which the loader opened it."""
    path = linked(tmp_path, "--enable-new-dtags")
    (tmp_path / "plugins").mkdir()
    assert callable(link)
    link(path, tmp_path / "plugins/liba.so")
    (run_path,) = archived(tmp_path, b"lib/liba.so").run_paths
    assert run_path.text.startswith(os.fsencode(tmp_path))
    shutil.rmtree(tmp_path / "plugins")
    (run_path,) = archived(tmp_path, b"lib/liba.so").run_paths
    assert run_path.text.startswith(b"$ORIGIN")
