"""A relocation that is killed, at any moment, any number of times, comes to the same end."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.selection import cases, long_series
from tests.integration.interrupting import (
    Moment,
    differences,
    inodes,
    kill,
    moments,
    prefixes,
    relocate,
    shape,
    tricky,
    undisturbed,
)
from tests.integration.moving import activated, clone, move, pack, run, wheel

SEED = 20_240_611
KILLS = 200


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, references_channel: Path, package_cache: Path) -> Path:
    return tricky(session_directory, channel, references_channel, package_cache)


@pytest.fixture(scope="module")
def calls(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """The system calls of the first relocation of a tree."""
    directory = tmp_path_factory.mktemp("calls")
    found = moments(clone(archive, directory / "env"), directory / "log")
    assert sum(moment.call == "rename" for moment in found) > 200
    return found


def add_own_files(tree: Path) -> None:
    """Do what people do in an environment: add files and links that name it, and edit one."""
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc" / "own.conf").write_text(f"root={tree}\nlib={tree}/lib\n")
    (tree / "etc" / "plain.conf").write_text("colour=green\n")
    (tree / "share" / "own-link").symlink_to(tree / "bin" / "python")
    package = tree / "lib" / "own"
    package.mkdir()
    (package / "place.py").write_text(f"PLACE = {str(tree)!r}\n")
    edited = next(path for path in sorted((tree / "bin").glob("ref-*")) if text_naming(path, tree))
    replace(edited, edited.read_bytes() + b"# edited at %s\n" % os.fsencode(tree))


def text_naming(path: Path, tree: Path) -> bool:
    """Whether a file is text and names the tree."""
    content = path.read_bytes()
    return b"\0" not in content and os.fsencode(tree) in content


def replace(path: Path, content: bytes) -> None:
    """Write a file as an editor does, so that what is linked to it stays as it was."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def as_unpacked(archive: Path, directory: Path) -> Callable[[Path], Path]:
    """Make trees that were never relocated."""
    return lambda target: clone(archive, target)


def as_used(archive: Path, directory: Path) -> Callable[[Path], Path]:
    """Make trees that were relocated elsewhere, to a place with a name of the same length, and used there."""
    used = clone(archive, directory / "one" / "env")
    relocate(used)
    add_own_files(used)
    stored = move(used, directory / "stored")

    def make(target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        run(["cp", "-al", "-T", stored, target])
        return target

    return make


@long_series
@pytest.mark.parametrize("prepared", [as_unpacked, as_used])
def test_killed_at_any_moment(
    archive: Path, tmp_path: Path, prepared: Callable[[Path, Path], Callable[[Path], Path]]
) -> None:
    """Killed at moments that are spread evenly over a relocation, and run again, it leaves the same bytes."""
    make = prepared(archive, tmp_path)
    target = tmp_path / "two" / "env"
    found = moments(make(target), tmp_path / "log")
    expected = shape(target)
    assert prefixes(target) == [str(target)]
    shutil.rmtree(target)
    seen = {"before": 0, "middle": 0, "after": 0}
    half = KILLS // 2
    for case in cases(SEED + (prepared is as_used), half):
        # Each case has a slice of its own of all that happens, and a moment in it by chance.
        at = (case + random.Random(SEED + case).random()) / half
        call, count, arguments = found[int(at * len(found))]
        before = inodes(make(target))
        start = prefixes(target)
        kill(target, call, count)

        after = inodes(target)
        names = [name for name in before if not name.startswith(".pack/")]
        written = sum(before[name] != after.get(name) for name in names)
        if prefixes(target) == start:
            assert written == 0, f"{call} {count}: {written} files were written before the state said so"
            seen["before"] += 1
        elif len(prefixes(target)) > 1:
            seen["middle"] += written > 0
        else:
            seen["after"] += 1

        relocate(target)
        wrong = differences(expected, shape(target))
        assert not wrong, f"killed at {call} {count} ({arguments:.80}): {wrong[:10]}"
        shutil.rmtree(target)
    assert seen["before"] and seen["middle"] >= 2, seen


# At which rename each of two relocations is killed; what a relocation renames: its state, every file, its state again,
# seven scripts. "last" is the state at the end.
TWICE = {
    "the first file, and the first": (2, 2),
    "before any file, and in the middle": (1, 90),
    "in the middle, and less far": (150, 60),
    "between the state and its scripts": (-6, 100),
    "in the middle, and before any file": (110, 1),
    "in the middle, and further on": (60, 150),
    "every file but not the state, twice": (-8, -8),
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(*at, id=name.replace(",", ""), marks=[pytest.mark.slow] if number > 3 else [])
        for number, (name, at) in enumerate(TWICE.items())
    ],
)
def test_interrupted_moved_interrupted_moved(
    archive: Path, calls: list[Moment], tmp_path: Path, first: int, second: int
) -> None:
    """Killed on the way to B, moved, killed on the way to C, moved to D and finished, it is as if it went there."""
    renames = [moment.number for moment in calls if moment.call == "rename"]
    counts = [number if number > 0 else renames[-1] + 1 + number for number in (first, second)]
    expected = undisturbed(archive, tmp_path / "d" / "env", history=False)
    tree = clone(archive, tmp_path / "b" / "env")
    kill(tree, "rename", counts[0])
    tree = move(tree, tmp_path / "longer-than-before" / "env")
    kill(tree, "rename", counts[1])
    stands = prefixes(tree)
    tree = move(tree, tmp_path / "d" / "env")
    activated(tree, "python -c 'import sys; assert sys.prefix'", env=None)
    assert prefixes(tree) == [str(tree)], stands
    run(["find", tree, "-name", "*.pyc", "-newer", tree / "bin" / "activate", "-delete"])
    assert not differences(expected, shape(tree, history=False))
    pack("verify", tree)


def test_interrupted_again_and_again_in_one_place(archive: Path, tmp_path: Path) -> None:
    """Killed five times at one place, each time further on, it finishes; the state does not grow with the attempts."""
    expected = undisturbed(archive, tmp_path / "b" / "env")
    tree = clone(archive, tmp_path / "b" / "env")
    sizes = []
    for _ in range(5):
        kill(tree, "rename", 20)  # of which one is the state's
        sizes.append((tree / ".pack" / "state.json").stat().st_size)
    assert prefixes(tree) == [None, str(tree)]
    assert len(set(sizes)) == 1, sizes
    relocate(tree)
    assert not differences(expected, shape(tree))


def test_edited_between_interruptions(archive: Path, calls: list[Moment], tmp_path: Path) -> None:
    """What is edited, added and linked in a half relocated tree names the right place in the end."""
    renames = [moment for moment in calls if moment.call == "rename"]
    tree = clone(archive, tmp_path / "b" / "env")
    kill(tree, "rename", renames[150].number)
    done, left = [], []
    for path in sorted((tree / "lib").rglob("*")):
        if path.suffix in (".pc", ".py", ".sh", ".txt", ".cmake", ".la") and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if os.fsencode(tree) in content:
                done.append(path)
            elif b"_placehold" in content:
                left.append(path)
    for path in sorted((tree / "bin").iterdir()):
        if path.is_file() and not path.is_symlink() and text_naming(path, tree):
            done.append(path)
    assert done, "the kill came before any text"
    edited = [path.relative_to(tree) for path in (done[0], *left[:1])]
    for name in edited:
        replace(tree / name, (tree / name).read_bytes() + b"\n# see %s/share\n" % os.fsencode(tree))
    add_own_files(tree)
    os.link(tree / "etc" / "own.conf", tree / "etc" / "own-too.conf")

    tree = move(tree, tmp_path / "cc" / "env")
    kill(tree, "rename", 100)
    tree = move(tree, tmp_path / "ddd" / "env")
    relocate(tree)
    for changed in edited:
        assert (tree / changed).read_bytes().endswith(b"# see %s/share\n" % os.fsencode(tree)), changed
    stale = [tmp_path / "b" / "env", tmp_path / "cc" / "env"]
    for own in ("etc/own.conf", "etc/own-too.conf"):
        assert (tree / own).read_text() == f"root={tree}\nlib={tree}/lib\n"
    assert (tree / "etc" / "plain.conf").read_text() == "colour=green\n"
    assert os.readlink(tree / "share" / "own-link") == f"{tree}/bin/python"
    for path in tree.rglob("*"):
        if path.is_file() and ".pack" not in path.parts and not path.is_symlink():
            content = path.read_bytes()
            assert not any(os.fsencode(place) in content for place in stale), path


def test_hard_links_are_made_again(archive: Path, calls: list[Moment], tmp_path: Path) -> None:
    """Killed between two names of one file, it links them again; so does a later move."""
    links = [moment for moment in calls if moment.call in ("link", "linkat")]
    assert links, "the environment has no hard-linked file with references"
    # The bytes are in place under the first name, and every other one is another file.
    for link in links:
        tree = clone(archive, tmp_path / "b" / "env")
        groups = linked(tree)
        kill(tree, link.call, link.number)
        assert linked(tree) != groups
        relocate(tree)
        assert linked(tree) == groups
        shutil.rmtree(tree)
    tree = clone(archive, tmp_path / "b" / "env")
    kill(tree, links[0].call, links[0].number)
    tree = move(tree, tmp_path / "c" / "env")
    kill(tree, links[-1].call, links[-1].number)
    tree = move(tree, tmp_path / "d" / "env")
    relocate(tree)
    assert linked(tree) == groups


def linked(tree: Path) -> set[frozenset[str]]:
    """Group the names of each file of a tree that has several there."""
    names: dict[int, set[str]] = {}
    for directory, _, files in os.walk(tree):
        for path in (Path(directory, name) for name in files):
            names.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(tree)))
    return {frozenset(group) for group in names.values() if len(group) > 1}


@pytest.mark.parametrize("way", ["inwards", "outwards"])
def test_into_a_directory_of_its_own_old_name(archive: Path, tmp_path: Path, way: str) -> None:
    """From /a/env to /a/env/env, and back, where the bytes of a path mean two things: killed, and finished."""
    outer, inner = tmp_path / "a" / "env", tmp_path / "a" / "env" / "env"
    here, there = (outer, inner) if way == "inwards" else (inner, outer)
    expected = undisturbed(archive, there, history=False)
    shutil.rmtree(outer, ignore_errors=True)
    tree = clone(archive, here)
    relocate(tree)
    # A file that names a directory "env" inside the environment.
    (tree / "env").mkdir()
    (tree / "env" / "own.conf").write_text(f"{here}/env/own.conf\n{here}/bin\n")
    waiting = move(tree, tmp_path / "waiting")
    shutil.rmtree(outer, ignore_errors=True)
    for count in (60, 160):
        tree = move(waiting, there)
        kill(tree, "rename", count)
        waiting = move(tree, tmp_path / "waiting")
        shutil.rmtree(outer, ignore_errors=True)
    tree = move(waiting, there)
    relocate(tree)
    assert (tree / "env" / "own.conf").read_text() == f"{there}/env/own.conf\n{there}/bin\n"
    shutil.rmtree(tree / "env")
    assert not differences(expected, shape(tree, history=False))


def test_moved_three_times_and_back(archive: Path, tmp_path: Path) -> None:
    """Moved three times and back, with a pip install, edits and runs of Python in between, it works each time."""
    package = wheel(tmp_path)
    first = clone(archive, tmp_path / "b" / "env")
    plain = first / "etc" / "plain.conf"
    plain.parent.mkdir(exist_ok=True)
    tree = first
    for number, place in enumerate(("b", "a-longer-name", "c", "b")):
        if number:
            tree = move(tree, tmp_path / place / "env")
        # Byte code is written, so a source that is rewritten at the same length could be shadowed by its old one.
        shown = activated(tree, "python -c 'import sys; print(sys.prefix)'; pip --version").stdout
        assert shown.splitlines()[0] == str(tree)
        assert f"{tree}/lib/" in shown.splitlines()[1]
        if number == 0:
            run([tree / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-deps", package])
            (tree / "lib" / "own.txt").write_text(f"{tree}/lib\n")
        if number == 1:
            (tree / "etc" / "plain.conf").write_text("colour=green\n")
            (tree / "etc" / "late.conf").write_text(f"prefix = {tree}\n")
        if number > 1:
            assert (tree / "etc" / "late.conf").read_text() == f"prefix = {tree}\n"
            assert (tree / "etc" / "plain.conf").read_text() == "colour=green\n"
        assert run([tree / "bin" / "tinyroot"], env={}).stdout == f"{tree}\n"
        assert (tree / "lib" / "own.txt").read_text() == f"{tree}/lib\n"
        assert prefixes(tree) == [str(tree)]
        pack("verify", tree)


@pytest.mark.parametrize("count", [None, 120])
def test_no_stale_byte_code(archive: Path, tmp_path: Path, count: int | None) -> None:
    """A source that is rewritten at the same length within a second, or whose relocation was killed, runs as it is."""
    tree = clone(archive, tmp_path / "b" / "env")
    relocate(tree)
    package = tree / "lib" / "own"
    package.mkdir()
    (package / "place.py").write_text(f"PLACE = {str(tree)!r}\n")
    program = "import sys; sys.path.insert(0, sys.prefix + '/lib/own'); import place; print(place.PLACE)"
    # Byte code that is never held against its source: only removing it helps.
    compile_it = (
        "import py_compile, sys; py_compile.compile(sys.argv[1], doraise=True,"
        " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    )
    for place in ("c", "d"):
        assert run([tree / "bin" / "python", "-c", program]).stdout == f"{tree}\n"
        run([tree / "bin" / "python", "-c", compile_it, package / "place.py"])
        tree = move(tree, tmp_path / place / "env")
        package = tree / "lib" / "own"
        if count:
            kill(tree, "rename", count)
        relocate(tree)
        assert run([tree / "bin" / "python", "-c", program]).stdout == f"{tree}\n"
