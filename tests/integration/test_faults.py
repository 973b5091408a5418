"""Disks that are full or fail, directories that cannot be written, users that own nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NATIVE_SPECS, need
from tests.integration.interrupting import (
    differences,
    failing,
    inodes,
    prefixes,
    relocate,
    relocator,
    shape,
    tricky,
    undisturbed,
)
from tests.integration.machines import mounts, need_root
from tests.integration.moving import (
    activated,
    as_another_user,
    clone,
    move,
    pack,
    packed_and_deleted,
    run,
    sh,
    short_directory,
)

NOBODY = 65534


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, references_channel: Path, package_cache: Path) -> Path:
    return tricky(session_directory, channel, references_channel, package_cache)


@pytest.fixture(scope="module")
def native(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    return packed_and_deleted(session_directory / "native-gone", NATIVE_SPECS, [channel], package_cache)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that every user may enter."""
    with short_directory() as directory:
        yield directory


# What fails, how, from the which call on; and what the system says of it.
BEFORE_ANY_WRITE = {
    "the disk is full before the first file is staged": ("mkdir", "ENOSPC", "1", "No space left"),
    "the disk is full while files are staged": ("write", "ENOSPC", "60", "No space left"),
    "over quota while files are staged": ("write", "EDQUOT", "60", "quota"),
    "the disk fails while files are staged": ("write", "EIO", "60", "Input/output error"),
    "staged files do not reach the disk": ("syncfs", "EIO", "1", "Input/output error"),
    "the state does not reach the disk": ("fsync", "EIO", "1", "Input/output error"),
    "the state cannot be renamed": ("rename", "ENOSPC", "1+", "No space left"),
}
IN_THE_MIDDLE = {
    "one rename fails": ("rename", "EIO", "100", "Input/output error"),
    "renames fail from some point on": ("rename", "EXDEV", "50+", "cross-device"),
    "a mode cannot be set": ("chmod", "EIO", "30", "Input/output error"),
    "what was renamed does not reach the disk": ("syncfs", "EIO", "2", "Input/output error"),
    "a link fails": ("link", "EIO", "1", "Input/output error"),
    "the disk is full when the state is written again": ("fsync", "ENOSPC", "3+", "No space left"),
}


@pytest.mark.parametrize("fault", BEFORE_ANY_WRITE)
def test_a_fault_before_anything_is_written(archive: Path, tmp_path: Path, fault: str) -> None:
    """A fault while files are staged leaves the tree as it was, is said in words, and can be tried again."""
    calls, error, when, words = BEFORE_ANY_WRITE[fault]
    expected = undisturbed(archive, tmp_path / "b" / "env")
    tree = clone(archive, tmp_path / "b" / "env")
    before, written = inodes(tree), shape(tree)
    done = failing(tree, calls, error, when)
    assert_in_words(done.stderr, words)
    assert inodes(tree) == before
    assert not differences(written, shape(tree))
    relocate(tree)
    assert not differences(expected, shape(tree))


@pytest.mark.parametrize("fault", IN_THE_MIDDLE)
def test_a_fault_in_the_middle(archive: Path, tmp_path: Path, fault: str) -> None:
    """A fault while files are put in place is said in words; run again, it comes to the same end."""
    calls, error, when, words = IN_THE_MIDDLE[fault]
    expected = undisturbed(archive, tmp_path / "b" / "env")
    tree = clone(archive, tmp_path / "b" / "env")
    done = failing(tree, calls, error, when)
    assert_in_words(done.stderr, words)
    assert prefixes(tree) == [None, str(tree)]
    assert not list((tree / ".pack").glob("staging-*"))
    relocate(tree)
    assert not differences(expected, shape(tree))


def assert_in_words(printed: str, words: str) -> None:
    """Assert that an error is said in words, with what to do, and not by where the program stood."""
    assert "Traceback" not in printed
    assert words in printed
    assert "TIP: run it again" in printed


def test_interrupted_from_the_keyboard(archive: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a relocation in a line; nothing of its own is left, and it goes on when it is run again."""
    expected = undisturbed(archive, tmp_path / "b" / "env")
    tree = clone(archive, tmp_path / "b" / "env")
    inject = ["-e", "trace=rename", "-e", "inject=rename:signal=INT:when=100"]
    done = run([need("strace"), "-o", os.devnull, *inject, *relocator(tree)], code=None)
    assert done.returncode in (130, -2)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((tree / ".pack").glob("staging-*"))
    relocate(tree)
    assert not differences(expected, shape(tree))


def test_no_hard_links_on_the_file_system(archive: Path, tmp_path: Path) -> None:
    """Where a file system refuses hard links, each name gets a file of its own, and all are right."""
    tree = clone(archive, tmp_path / "b" / "env")
    failing(tree, "link", "EPERM", "1+", code=0)
    pack("verify", tree)
    assert prefixes(tree) == [str(tree)]


def test_a_file_system_that_is_really_full(native: Path, tmp_path: Path) -> None:
    """On a full tmpfs nothing changes; once there is room, the relocation is done."""
    pristine = clone(native, tmp_path / "pristine")
    expected = undisturbed(native, tmp_path / "mnt" / "env")
    (tmp_path / "mnt").mkdir(exist_ok=True)
    tree = tmp_path / "mnt" / "env"
    size = sum(path.lstat().st_size // 4096 * 4 + 5 for path in pristine.rglob("*"))
    script = f"""
        mount -t tmpfs -o size=2g none {tmp_path}/mnt
        cp -a -T {pristine} {tree}
        used=$(df --output=used {tree} | tail -n 1)
        mount -o remount,size=$((used + 200))k {tmp_path}/mnt
        code=0; {shlex.join(relocator(tree))} 2>{tmp_path}/errors || code=$?
        echo $code
        test ! -e {tree}/.pack/state.json
        diff -r --no-dereference -x lock {pristine} {tree}
        mount -o remount,size=2g {tmp_path}/mnt
        {shlex.join(relocator(tree))}
        cp -a -T {tree} {tmp_path}/result
    """
    assert size > 1000
    assert mounts(script).stdout == "1\n"
    assert_in_words((tmp_path / "errors").read_text(), "No space left")
    assert not differences(expected, shape(tmp_path / "result"))


def test_a_part_of_the_tree_on_another_file_system(native: Path, tmp_path: Path) -> None:
    """Where a file cannot be renamed into its place, that is found out before anything is written."""
    pristine = clone(native, tmp_path / "pristine")
    tree = clone(native, tmp_path / "env")
    mounts(f"""
        mount -t tmpfs none {tree}/lib
        cp -a {pristine}/lib/. {tree}/lib
        code=0; {shlex.join(relocator(tree))} 2>{tmp_path}/errors || code=$?
        test $code = 9
        diff -r --no-dereference -x lock {pristine} {tree}
    """)
    errors = (tmp_path / "errors").read_text()
    assert f"{tree}/lib is on another file system" in errors
    assert "Nothing was changed" in errors
    assert prefixes(tree) == [None]


def given_to_nobody(archive: Path, target: Path) -> Path:
    """Unpack a tree that belongs to a user who owns nothing else; without root, to whoever runs the tests."""
    target.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(target, NOBODY, NOBODY)
    run(as_another_user(["tar", "-xf", archive, "-C", target]))
    return target


@pytest.fixture
def readable(archive: Path, room: Path) -> Path:
    """The archive, where every user can read it."""
    shutil.copy(archive, room / "env.tar")
    (room / "env.tar").chmod(0o644)
    return room / "env.tar"


@pytest.mark.parametrize("umask", ["022", "077"])
def test_an_ordinary_user_with_read_only_directories(readable: Path, room: Path, umask: str) -> None:
    """A user relocates a tree of theirs; directories and files without write permission keep that they have none."""
    tree = room / "b" / "env"
    tree.parent.mkdir()
    tree.mkdir()
    if os.geteuid() == 0:
        os.chown(tree, NOBODY, NOBODY)
    unpack = f"umask {umask}; tar -xf {readable} -C {tree}; chmod 500 {tree}/bin {tree}/lib/pkgconfig 2>/dev/null; true"
    run(as_another_user(["sh", "-c", unpack]))
    read_only = [tree / "bin", *(path for path in [tree / "lib" / "pkgconfig"] if path.is_dir())]
    (tree / "bin" / "ref-c").chmod(0o555)
    script = f". {tree}/bin/activate && python -B -c 'import sys, ssl; print(sys.prefix)' && ref-c >/dev/null"
    done = run(as_another_user(["sh", "-c", script]))
    assert (done.stdout, done.stderr) == (f"{tree}\n", "")
    assert [stat.S_IMODE(path.stat().st_mode) for path in read_only] == [0o500] * len(read_only)
    assert stat.S_IMODE((tree / "bin" / "ref-c").stat().st_mode) == 0o555
    assert {path.lstat().st_uid for path in tree.rglob("*")} == {tree.stat().st_uid}
    # A user's umask takes permissions from what tar unpacks: no damage.
    for path in read_only:
        path.chmod(0o755)
    (tree / "bin" / "ref-c").chmod(0o755)
    pack("verify", tree)


def test_root_relocates_for_a_user(readable: Path, room: Path) -> None:
    """What root relocates still belongs to its user, who can relocate it again."""
    need_root("owning another user's tree")
    tree = given_to_nobody(readable, room / "b" / "env")
    run([tree / "bin" / "conda-unpack"])
    state = {".pack/state.json", ".pack/lock"}
    scripts = {f"bin/{name}{suffix}" for name in ("activate", "deactivate") for suffix in ("", ".fish", ".csh")}
    owners = {str(path.relative_to(tree)): path.lstat().st_uid for path in tree.rglob("*")}
    foreign = {name for name, owner in owners.items() if owner != NOBODY}
    assert foreign <= state | scripts | {"bin/conda-unpack"}
    tree = move(tree, room / "c" / "env")
    done = run(as_another_user(["sh", "-c", f". {tree}/bin/activate && python -B -c 'import sys; print(sys.prefix)'"]))
    assert (done.stdout, done.stderr) == (f"{tree}\n", "")


def test_a_tree_of_somebody_else(readable: Path, room: Path) -> None:
    """Who may not write a tree activates it, and is told in a line what is stale; conda-unpack refuses."""
    need_root("a tree of another user")
    tree = room / "b" / "env"
    tree.mkdir(parents=True)
    run(["tar", "-xf", readable, "-C", tree])
    before = inodes(tree)
    done = run(as_another_user(["sh", "-c", f'. {tree}/bin/activate; echo "$? $CONDA_PREFIX"']))
    assert done.stdout == f"0 {tree}\n"
    (line,) = done.stderr.splitlines()
    assert "stale" in line
    assert f"{tree}/bin/conda-unpack" in line
    refused = run(as_another_user([tree / "bin" / "conda-unpack"]), code=9)
    assert str(tree) in refused.stderr
    required = run(as_another_user(["sh", "-c", f"PACK_RELOCATE=require . {tree}/bin/activate"]), code=None)
    assert required.returncode == 9
    assert inodes(tree) == before


def test_a_directory_of_somebody_else(readable: Path, room: Path) -> None:
    """One directory that its user cannot write refuses the whole relocation, before any write, by name."""
    need_root("a directory of another user")
    tree = given_to_nobody(readable, room / "b" / "env")
    os.chown(tree / "lib", 0, 0)
    before = inodes(tree)
    refused = run(as_another_user([tree / "bin" / "conda-unpack"]), code=9)
    assert f"{tree}/lib belongs to somebody else" in refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert inodes(tree) == before


def test_nothing_is_written_behind_a_symlink(archive: Path, tmp_path: Path) -> None:
    """A directory that was put elsewhere, with a symlink in its place, is somebody else's: it is left, and listed."""
    tree = clone(archive, tmp_path / "b" / "env")
    elsewhere = move(tree / "share", tmp_path / "elsewhere")
    (tree / "share").symlink_to(elsewhere)
    assert any(b"_placehold" in path.read_bytes() for path in elsewhere.rglob("*") if path.is_file())
    before = inodes(elsewhere)
    done = relocate(tree, "-v")
    assert inodes(elsewhere) == before
    assert "missing" in done.stderr
    assert "  share/" in done.stderr
    assert "behind a symlink" in done.stderr
    activated(tree, "python -B -c 'import ssl'")


def test_a_copy_made_of_hard_links(archive: Path, tmp_path: Path) -> None:
    """Relocating a tree that is hard-linked with another leaves that as it was, to the byte."""
    original = clone(archive, tmp_path / "b" / "env")
    relocate(original)
    copy = tmp_path / "copy" / "env"
    copy.parent.mkdir()
    run(["cp", "-al", "-T", original, copy])
    before, described = inodes(original), shape(original)
    run([copy / "bin" / "conda-unpack"])
    assert prefixes(copy) == [str(copy)]
    pack("verify", copy)
    assert inodes(original) == before
    assert not differences(described, shape(original))
    for tree in (original, copy):
        done = activated(tree, "python -B -c 'import sys; print(sys.prefix)'")
        assert (done.stdout, done.stderr) == (f"{tree}\n", "")


def test_a_hard_link_group_that_lost_its_first_name(archive: Path, tmp_path: Path) -> None:
    """When the first name of a file is deleted, or edited by itself, the others are relocated all the same."""
    expected = undisturbed(archive, tmp_path / "b" / "env")
    for deleted in (True, False):
        tree = clone(archive, tmp_path / "b" / "env")
        group = sorted(linked_text(tree, expected))
        first = tree / group[0]
        content = first.read_bytes()
        first.unlink()
        if not deleted:
            first.write_bytes(content + b"# mine\n")
        done = relocate(tree)
        assert ("missing" if deleted else "changed") in done.stderr
        after = shape(tree)
        for name in group[1:]:
            assert after[name][1][1] == expected[name][1][1], name  # type: ignore[index]
        shutil.rmtree(tree)


def linked_text(tree: Path, relocated: dict[str, tuple[object, ...]]) -> set[str]:
    """Find the names of a file that has several, and that a relocation rewrites."""
    names: dict[int, set[str]] = {}
    for directory, _, files in os.walk(tree):
        for path in (Path(directory, name) for name in files):
            names.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(tree)))
    now = shape(tree)
    return next(group for group in names.values() if len(group) > 1 and all(now[n] != relocated[n] for n in group))


def test_files_of_ones_own_that_are_linked(archive: Path, tmp_path: Path) -> None:
    """Two names of a file that packing never saw are both right after a move, and still one file."""
    tree = clone(archive, tmp_path / "b" / "env")
    relocate(tree)
    (tree / "lib" / "one.conf").write_text(f"{tree}/lib\n")
    os.link(tree / "lib" / "one.conf", tree / "lib" / "two.conf")
    tree = move(tree, tmp_path / "c" / "env")
    relocate(tree)
    assert (tree / "lib" / "one.conf").read_text() == f"{tree}/lib\n"
    assert (tree / "lib" / "one.conf").samefile(tree / "lib" / "two.conf")


def test_a_process_of_the_same_number_was_killed(archive: Path, tmp_path: Path) -> None:
    """What a killed process left goes away, also when the next has its number, as it happens in containers."""
    tree = clone(archive, tmp_path / "b" / "env")
    leave = "os.mkdir(sys.argv[1] % (os.uname().nodename, os.getpid()))"
    program = f"import os, sys; {leave}; os.execv(sys.argv[2], sys.argv[2:])"
    command = relocator(tree)
    run([command[0], "-c", program, f"{tree}/.pack/staging-%s-%d-1", *command])
    (tree / ".pack" / "staging-of-mine").mkdir()
    relocate(tree)
    assert [path.name for path in (tree / ".pack").glob("staging-*")] == ["staging-of-mine"]


def test_a_damaged_state_is_refused(archive: Path, tmp_path: Path) -> None:
    """A state that is damaged refuses the run, in words, before any write."""
    tree = clone(archive, tmp_path / "b" / "env")
    relocate(tree)
    for content in ("", "{}", '{"format": 2}', '{"format": 1, "host": "", "history": [], "stands": []}'):
        (tree / ".pack" / "state.json").unlink()
        (tree / ".pack" / "state.json").write_text(content)
        before = inodes(tree)
        done = run([tree / "bin" / "conda-unpack"], code=6)
        assert "is damaged" in done.stderr
        assert "Traceback" not in done.stderr
        assert inodes(tree) == before
    assert sh(f". {tree}/bin/activate").returncode == 0


def test_a_bin_that_leads_out_of_the_tree(native: Path, tmp_path: Path) -> None:
    """A tree whose ``bin`` somebody moved outside and linked is refused, and nothing is written there."""
    tree = clone(native, tmp_path / "x" / "env")
    outside = tmp_path / "outside"
    (tree / "bin").rename(outside)
    (tree / "bin").symlink_to(outside)
    before, inside = inodes(outside), inodes(tree)
    done = pack("relocate", tree, code=9)
    assert "/bin leads out of it through a symlink. Nothing was changed.\nTIP: " in done.stderr
    assert inodes(outside) == before
    assert inodes(tree) == inside
