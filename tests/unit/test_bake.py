"""A destination that is baked in: the files name it, and the tree can be moved on from it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from installer_stub import relocate, state, verify
from installer_stub.errors import NoRoom, TargetRefused, UsageError
from installer_stub.rewrite import Form
from installer_stub.tarstream import ArchiveDamaged
from pack import unpack
from pack.archive import Format
from pack.bake import bake, destination
from pack.environment import find
from pack.scan import Options as ScanOptions
from pack.scan import scan
from pack.write import Options, write
from tests.integration import moving


class Silent:
    def start(self, what: str, total: int | None) -> None: ...

    def advance(self, count: int) -> None: ...


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "env"
    for name in ("bin", "lib", "conda-meta"):
        (root / name).mkdir(parents=True)
    (root / "conda-meta/history").touch()
    (root / "bin/tool").write_text(f"#!{root}/bin/own\nx\n")
    (root / "lib/text").write_text(f"first {root}/lib\nsecond {root}\n")
    (root / "lib/other").hardlink_to(root / "lib/text")
    (root / "lib/binary").write_bytes(b"\0" + bytes(root) + b"/lib\0\0\0tail\0")
    return root


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/apps/env", b"/apps/env"),
        ("/apps//env/", b"/apps/env"),
        ("./environment", b"./environment"),
        ("environment", b"./environment"),
        ("a/b", b"./a/b"),
    ],
)
def test_destinations(text: str, path: bytes) -> None:
    assert destination(text) == path


@pytest.mark.parametrize("text", ["", " ", "/", ".", "../env", "/a/../b", "a/..", "a\0b"])
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(UsageError, match="--dest-prefix"):
        destination(text)


def packed(prefix: Path, to: str, output: Path) -> None:
    options = Options(output, Format.TAR, dest_prefix=destination(to), scan=ScanOptions(1))
    write(find(None, str(prefix)), options, "1", Silent())


def test_unpacked_at_its_place_there_is_nothing_to_do(prefix: Path, tmp_path: Path) -> None:
    target = tmp_path / "apps/e"
    packed(prefix, str(target), tmp_path / "env.tar")
    shutil.rmtree(prefix)
    moving.unpack(tmp_path / "env.tar", target)
    assert (target / "bin/tool").read_text().startswith(f"#!{target}/bin/own\n")
    assert (target / "lib/text").read_text() == f"first {target}/lib\nsecond {target}\n"
    assert (target / "lib/other").samefile(target / "lib/text")  # one inode, as it was
    tree = relocate.open_tree(os.fsencode(target))
    assert relocate.is_current(tree) and verify.verify(tree) == []
    again = relocate.relocate(tree)
    assert (again.written, again.right) == (0, 3)
    moved = target.rename(tmp_path / "elsewhere")
    relocate.relocate(relocate.open_tree(os.fsencode(moved)))
    assert (moved / "lib/other").read_text() == f"first {moved}/lib\nsecond {moved}\n"


@pytest.mark.parametrize("relocated", [True, False])
@pytest.mark.parametrize("to", ["/somewhere/e", "./environment"])
def test_unpack_undoes_it(prefix: Path, tmp_path: Path, to: str, relocated: bool) -> None:
    packed(prefix, to, tmp_path / "env.tar")
    assert unpack.check(tmp_path / "env.tar", Silent()) > 10
    target = tmp_path / "t"
    unpack.unpack(unpack.Options(tmp_path / "env.tar", target, relocated), Silent())
    named = str(target) if relocated else to
    assert (target / "lib/text").read_text() == f"first {named}/lib\nsecond {named}\n"
    assert state.load(os.fsencode(target)).newest.form.prefix == os.fsencode(named)
    assert verify.verify(relocate.open_tree(os.fsencode(target))) == []


def test_a_damaged_one_is_refused(prefix: Path, tmp_path: Path) -> None:
    packed(prefix, "/somewhere/e", tmp_path / "env.tar")
    data = (tmp_path / "env.tar").read_bytes()
    for old, new in ((b"second /somewhere/e", b"second /somewhere/f"), (b"\0tail\0", b"\0tial\0")):
        assert data.count(old) == 1
        (tmp_path / "bad.tar").write_bytes(data.replace(old, new))
        with pytest.raises(ArchiveDamaged):
            unpack.unpack(unpack.Options(tmp_path / "bad.tar", tmp_path / "t"), Silent())
        with pytest.raises(ArchiveDamaged):
            unpack.check(tmp_path / "bad.tar", Silent())
        assert not (tmp_path / "t").exists()


def test_a_destination_that_does_not_fit_writes_nothing(prefix: Path, tmp_path: Path) -> None:
    for to, error in ((f"/{'d' * 3000}", NoRoom), ("/a:b", TargetRefused), ("./a\nb", TargetRefused)):
        with pytest.raises(error):
            packed(prefix, to, tmp_path / "env.tar")
        assert not (tmp_path / "env.tar").exists()


def test_the_manifest_is_that_of_the_archived_form(prefix: Path) -> None:
    found = scan(find(None, str(prefix)), ScanOptions(1))
    baked = bake(found, b"/somewhere/e")
    assert (baked.scan.manifest, baked.scan.listing) == (found.manifest, found.listing)
    assert baked.state.newest.form == Form(b"/somewhere/e", baked.state.newest.form.digests)
