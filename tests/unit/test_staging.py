"""What a relocation would change is staged, and nothing else; put in place, it is undone by the way back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from installer_stub import references, staging
from installer_stub.model import (
    NOT_REWRITABLE,
    Entry,
    Field,
    Fill,
    Finding,
    Force,
    Kind,
    Listing,
    Manifest,
    Reference,
    Relocatable,
    Spelling,
    Standing,
)
from installer_stub.rewrite import Digest, Form, digest_spelled
from installer_stub.staging import CHANGED, MISSING, Plan, is_in_form
from installer_stub.state import ARCHIVED, Stand, State

OLD = b"/old/prefix"
MTIME = 1_000_000_000


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


@dataclass
class Tree:
    """An unpacked tree with the manifest of what was written into it."""

    root: Path
    files: list[Relocatable] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def add(self, path: str, data: bytes, names: Iterable[str] = (), slots: Iterable[Reference] = ()) -> Path:
        """Add a file as archived; its references are what a search finds, and ``slots``."""
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)
        os.utime(full, (MTIME, MTIME))
        found = references.read(lambda at, n: data[at : at + n], len(data), path.encode(), (OLD,)).references
        merged = tuple(sorted((*found, *slots), key=lambda each: each.offset))
        if merged:
            others = tuple(name.encode() for name in names)
            self.files.append(Relocatable(path.encode(), others, len(data), digest(data).sha256, merged))
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).hardlink_to(full)
        self.entries.append(
            Entry(path.encode(), Kind.FILE, 0o644, len(data), MTIME, b"", digest(data).sha256, Standing.ADDED, "")
        )
        return full

    @property
    def manifest(self) -> Manifest:
        return Manifest((OLD,), tuple(self.files), (b"bin/activate",), "activate")

    @property
    def listing(self) -> Listing:
        return Listing(tuple(self.entries), ())

    def plan(self, current: State = ARCHIVED, rescan: bool = False) -> Plan:
        """Stage what relocating to where the tree is changes."""
        directory = self.root.parent / "staging"
        directory.mkdir(exist_ok=True)
        known = self.listing if rescan else None
        return staging.plan(bytes(self.root), self.manifest, current, bytes(directory), known)

    def relocate(self, current: State = ARCHIVED, rescan: bool = False) -> State:
        made = self.plan(current, rescan=rescan)
        staging.put_in_place(bytes(self.root), made, bytes(self.root.parent / "staging"))
        return State((Stand(Form(bytes(self.root), made.digests), made.others),))

    def move(self, to: Path) -> None:
        self.root = self.root.rename(to)

    def contents(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "place").mkdir()
    (tmp_path / "place/env").mkdir()
    return Tree(tmp_path / "place/env")


def told(plan: Plan) -> list[tuple[bytes, str]]:
    return [(finding.path, finding.what) for finding in plan.findings]


def test_files_with_references_are_rewritten_and_no_others(tree: Tree) -> None:
    script = tree.add("bin/tool", b"#!/old/prefix/bin/sh\n/old/prefix/x /old/prefix2\n")
    script.chmod(0o755)
    tree.add("share/plain", b"no reference")
    plan = tree.plan()
    assert (list(plan.staged), plan.right, plan.findings) == ([b"bin/tool"], 0, [])
    assert script.read_bytes().startswith(b"#!/old/prefix"), "nothing is written before all is staged"
    tree.relocate()
    root = bytes(tree.root)
    written = script.read_bytes()
    assert written.endswith(root + b"/x /old/prefix2\n")
    assert script.stat().st_mode & 0o777 == 0o755


def test_relocating_again_changes_nothing(tree: Tree) -> None:
    tree.add("a", b"/old/prefix/x\n")
    state = tree.relocate()
    plan = tree.plan(state)
    assert (plan.staged, plan.right) == ({}, 1)


def test_moves_converge(tree: Tree, tmp_path: Path) -> None:
    """Moved three times, among it below its own old name, and back: as if moved once."""
    tree.add("a", b"/old/prefix/x:/old/prefix\n")
    tree.add("b", b"nothing")
    places = [tmp_path / "place/env", tmp_path / "place/env2", tmp_path / "place/p", tmp_path / "place/env"]
    state = tree.relocate()
    first = tree.contents()
    for place in places[1:]:
        tree.move(place)
        state = tree.relocate(state)
        assert tree.contents()["a"] == bytes(place) + b"/x:" + bytes(place) + b"\n"
    assert tree.contents() == first


def test_an_interrupted_run_is_finished_from_elsewhere(tree: Tree, tmp_path: Path) -> None:
    """One file was put in place, the other not; then the tree moved."""
    tree.add("a", b"/old/prefix/a\n")
    tree.add("b", b"/old/prefix/b\n")
    before = tree.root
    plan = tree.plan()
    del plan.staged[b"b"]
    staging.put_in_place(bytes(tree.root), plan, bytes(tmp_path / "place/staging"))
    state = State((*ARCHIVED.stands, Stand(Form(bytes(before), plan.digests))))
    tree.move(tmp_path / "place/elsewhere")
    tree.relocate(state)
    root = bytes(tree.root)
    assert tree.contents() == {"a": root + b"/a\n", "b": root + b"/b\n"}


def test_digests_follow_what_they_are_of(tree: Tree) -> None:
    """A RECORD holds the hash of a script, and a record of conda-meta that of the RECORD."""
    script = b"#!/old/prefix/bin/sh\n"
    row = digest_spelled(digest(script), Spelling.RECORD)

    def slot(data: bytes, written: bytes, spelling: Spelling, of: bytes) -> Reference:
        at = data.index(written)
        return Reference(at, len(written), b"", Field.DIGEST, spelling, Fill.GROW, Force.NEVER, written, of)

    record = b"bin/tool," + row + b"\n"
    hexed = digest(record).sha256.encode()
    meta = b'{"sha256_in_prefix": "' + hexed + b'"}'
    # Not in the order in which they depend on each other.
    tree.add("conda-meta/x.json", meta, slots=[slot(meta, hexed, Spelling.HEX, b"lib/RECORD")])
    tree.add("lib/RECORD", record, slots=[slot(record, row, Spelling.RECORD, b"bin/tool")])
    tree.add("bin/tool", script)
    tree.relocate()
    now = tree.contents()
    assert now["lib/RECORD"] == b"bin/tool," + digest_spelled(digest(now["bin/tool"]), Spelling.RECORD) + b"\n"
    assert digest(now["lib/RECORD"]).sha256.encode() in now["conda-meta/x.json"]


def test_a_missing_file_is_skipped_and_told(tree: Tree) -> None:
    tree.add("a", b"/old/prefix/x\n").unlink()
    tree.add("b", b"/old/prefix/x\n")
    plan = tree.plan()
    assert (list(plan.staged), told(plan)) == ([b"b"], [(b"a", MISSING)])


def test_an_edited_text_is_searched_again(tree: Tree) -> None:
    path = tree.add("a", b"/old/prefix/x\n")
    path.write_bytes(b"mine: /old/prefix/y\n")
    plan = tree.plan()
    assert told(plan) == [(b"a", CHANGED)]
    tree.relocate()
    assert path.read_bytes() == b"mine: " + bytes(tree.root) + b"/y\n"


def test_an_edited_binary_is_listed_and_left(tree: Tree) -> None:
    path = tree.add("a", b"\0/old/prefix/x\0")
    path.write_bytes(b"\0\0/old/prefix/x\0")
    plan = tree.plan()
    assert plan.staged == {}
    assert [(f.path, f.offset, f.what) for f in plan.findings] == [
        (b"a", -1, CHANGED),
        (b"a", 2, NOT_REWRITABLE),
    ]


def test_the_digest_of_an_edited_file_stays(tree: Tree) -> None:
    """It was right for the file that was there, and is wrong for the one that is."""
    script = b"/old/prefix\n"
    row = digest_spelled(digest(script), Spelling.RECORD)
    slot = Reference(0, len(row), b"", Field.DIGEST, Spelling.RECORD, Fill.GROW, Force.NEVER, row, b"a")
    record = tree.add("RECORD", row, slots=[slot])
    tree.add("a", script).write_bytes(b"edited /old/prefix\n")
    tree.relocate()
    assert record.read_bytes() == row


def test_all_names_of_an_inode_are_names_of_the_new_one(tree: Tree) -> None:
    path = tree.add("a", b"/old/prefix/x\n", names=["b", "c/d"])
    outside = tree.root.parent / "cache"
    outside.hardlink_to(path)
    tree.relocate()
    assert path.samefile(tree.root / "b")
    assert path.samefile(tree.root / "c/d")
    assert path.read_bytes() == bytes(tree.root) + b"/x\n"
    assert outside.read_bytes() == b"/old/prefix/x\n", "never through a link to somebody else's file"


def test_a_copy_of_a_group_is_joined_again(tree: Tree) -> None:
    """Copying a tree makes files of their own of hard links."""
    path = tree.add("a", b"/old/prefix/x\n", names=["b"])
    (tree.root / "b").unlink()
    (tree.root / "b").write_bytes(b"/old/prefix/x\n")
    tree.relocate()
    assert path.samefile(tree.root / "b")


def test_a_name_of_a_group_that_was_replaced_is_left(tree: Tree) -> None:
    tree.add("a", b"/old/prefix/x\n", names=["b"])
    (tree.root / "b").unlink()
    (tree.root / "b").write_bytes(b"mine")
    plan = tree.plan()
    assert (plan.links, told(plan)) == ({}, [(b"b", CHANGED)])


def test_a_directory_that_became_a_link_is_not_followed(tree: Tree) -> None:
    """What it leads to may be anybody's."""
    tree.add("lib/a", b"/old/prefix/x\n")
    outside = tree.root.parent / "shared"
    (tree.root / "lib").rename(outside)
    (tree.root / "lib").symlink_to(outside)
    plan = tree.plan()
    assert (plan.staged, told(plan)) == ({}, [(b"lib/a", MISSING)])
    tree.relocate()
    assert (outside / "a").read_bytes() == b"/old/prefix/x\n"


def test_a_file_that_became_a_link_is_not_followed(tree: Tree) -> None:
    path = tree.add("a", b"/old/prefix/x\n")
    outside = path.rename(tree.root.parent / "outside")
    path.symlink_to(outside)
    tree.relocate()
    assert path.is_symlink()
    assert outside.read_bytes() == b"/old/prefix/x\n"


def test_stale_byte_code_goes_with_its_source(tree: Tree) -> None:
    """A source of the same size with its time restored would run the old byte code."""
    tree.add("lib/m.py", b"x = '/old/prefix'\n")
    tree.add("lib/n.py", b"x = 1\n")
    cache = tree.root / "lib/__pycache__"
    cache.mkdir()
    for name in ("m.cpython-311.pyc", "m.cpython-311.opt-1.pyc", "mm.cpython-311.pyc", "n.cpython-311.pyc"):
        (cache / name).touch()
    tree.relocate()
    assert sorted(os.listdir(cache)) == ["mm.cpython-311.pyc", "n.cpython-311.pyc"]


def test_what_was_added_after_unpacking_is_found(tree: Tree, tmp_path: Path) -> None:
    tree.add("share/known", b"a file that names nothing\n")
    state = tree.relocate()
    first = bytes(tree.root)
    (tree.root / "new.sh").write_bytes(b"#!" + first + b"/bin/sh\n" + first + b"2\n")
    (tree.root / "new.so").write_bytes(b"\0" + first + b"/x\0")
    (tree.root / "link").symlink_to(tree.root / "share")
    (tree.root / "other").symlink_to("/usr")
    tree.move(tmp_path / "place/second")
    second = bytes(tree.root)
    assert tree.plan(state).staged == {}, "without a rescan"
    plan = tree.plan(state, rescan=True)
    assert (list(plan.staged), plan.symlinks) == ([b"new.sh"], {b"link": second + b"/share"})
    assert [(f.path, f.what) for f in plan.findings] == [(b"new.so", NOT_REWRITABLE)]
    tree.relocate(state, rescan=True)
    assert (tree.root / "new.sh").read_bytes() == b"#!" + second + b"/bin/sh\n" + first + b"2\n"
    assert (tree.root / "link").readlink() == tree.root / "share"
    assert (tree.root / "other").readlink() == Path("/usr")


def test_an_added_file_is_not_rewritten_twice(tree: Tree, tmp_path: Path) -> None:
    """After an interruption on the way to /p/env/env, is /p/env/env/x done, or is it env/x of /p/env?"""
    state = tree.relocate()
    first = bytes(tree.root)
    for name in ("done", "left"):
        (tree.root / name).write_bytes(first + b"/env/x\n")
    (tmp_path / "place/t").mkdir()
    tree.move(tmp_path / "place/t/env")
    os.rename(tmp_path / "place/t", first)
    tree.root = Path(os.fsdecode(first)) / "env"
    second = bytes(tree.root)
    assert second.startswith(first + b"/")
    plan = tree.plan(state, rescan=True)
    during = State((*state.stands, Stand(Form(second, plan.digests), plan.others)))
    del plan.staged[b"left"]
    staging.put_in_place(second, plan, bytes(tree.root.parent / "staging"))
    tree.relocate(during, rescan=True)
    assert tree.contents() == {"done": second + b"/env/x\n", "left": second + b"/env/x\n"}


def test_a_known_file_is_not_read_again(tree: Tree, tmp_path: Path) -> None:
    """The full list vouches for it by size and time."""
    state = tree.relocate()
    tree.add("share/names", bytes(tree.root) + b"/x\n")
    tree.move(tmp_path / "place/second")
    assert tree.plan(state, rescan=True).staged == {}
    os.utime(tree.root / "share/names", (MTIME + 1, MTIME + 1))
    assert list(tree.plan(state, rescan=True).staged) == [b"share/names"]


def test_our_own_files_are_not_searched(tree: Tree, tmp_path: Path) -> None:
    state = tree.relocate()
    for name in ("bin/activate", ".pack/note", ".installing"):
        (tree.root / name).parent.mkdir(exist_ok=True)
        (tree.root / name).write_bytes(bytes(tree.root))
    tree.move(tmp_path / "place/second")
    assert tree.plan(state, rescan=True).staged == {}


def test_what_may_keep_the_old_path_is_told(tree: Tree) -> None:
    data = b"\0/old/prefix/x\0"
    tree.add("a", data)
    assert len(bytes(tree.root)) > len(OLD)
    plan = tree.plan()
    assert plan.staged == {}
    assert plan.findings == [Finding(b"a", 1, staging.NO_ROOM, "too long")]


def test_is_in_form_wants_every_byte(tree: Tree) -> None:
    path = tree.add("a", b"x /old/prefix y\n")
    [file] = tree.files
    here = Form(bytes(tree.root))
    assert is_in_form(bytes(path), file, Form(None))
    assert not is_in_form(bytes(path), file, here)
    tree.relocate()
    assert is_in_form(bytes(path), file, here)
    assert not is_in_form(bytes(path), file, Form(None))
    path.write_bytes(path.read_bytes() + b"z")
    assert not is_in_form(bytes(path), file, here)
    assert not is_in_form(bytes(path) + b"-missing", file, here)


def test_was_relocated() -> None:
    assert not staging.was_relocated(ARCHIVED)
    assert staging.was_relocated(State((*ARCHIVED.stands, Stand(Form(b"/a")))))


def test_what_was_made_relative_is_not_even_read(tree: Tree) -> None:
    """A file of which packing left nothing to rewrite is as any other: neither staged nor counted as right."""
    relative = Reference(0, 11, OLD, Field.RUN_PATH, Spelling.PLAIN, Fill.KEEP, Force.ALWAYS, b"/old/prefix")
    path = tree.add("lib/x.so", b"$ORIGIN\0fix\0", slots=[relative])
    path.chmod(0)
    made = tree.plan()
    assert (made.staged, made.right, made.findings) == ({}, 0, [])
