"""Programs of real compilers and linkers in a prefix that no package manager knows, moved and run.

What a client of conda damages in the same programs, and what becomes of that, is in ``test_padding.py``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from installer_stub import manifest, match
from installer_stub.model import Field, Fill, Listing, Manifest, Spelling
from tests.conftest import need
from tests.integration import compiling
from tests.integration.moving import PACK, move, pack, pack_env, run, short_directory, snapshot, stamps, unpack

LENGTH = 60  # of the old prefix


@dataclass(frozen=True)
class Built:
    """The archive of a prefix that is gone, and what was seen there."""

    archive: Path
    old: Path
    printed: dict[str, str]
    exported: dict[str, str]
    occurrences: dict[bytes, list[int]]  # of the prefix in ELF files


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory whose path is short."""
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """All that the compilers of this machine make of the sources, packed; the prefix is named ``env``."""
    need("gcc")
    need("g++")
    with short_directory() as base:
        old = base / ("p" * (LENGTH - len(str(base)) - 5)) / "env"
        compiling.everything(old, tmp_path_factory.mktemp("work"))
        for level in ("0", "2"):
            compiling.c(old, base, f"counted-{level}", compiling.COUNTED, f"-O{level}")
        assert len(str(old)) == LENGTH
        printed = compiling.printed(old)
        assert not [text for text in printed.values() if re.search("not found|exit|^F|NULs", text)]
        made = Built(
            pack_env(old, base / "env.tar"), old, printed, compiling.exported(old), _occurrences(old, os.fsencode(old))
        )
        shutil.rmtree(old.parent)
        yield made


def _occurrences(tree: Path, prefix: bytes) -> dict[bytes, list[int]]:
    found = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            hits = match.search([content], {prefix: (prefix, Spelling.PLAIN)})
            found[os.fsencode(path.relative_to(tree))] = [hit.offset for hit in hits]
    return found


def documents(tree: Path) -> tuple[Manifest, Listing]:
    """Read both files of a tree's manifest."""
    own = tree / ".pack"
    listing = manifest.load_listing((own / "files.json").read_bytes())
    return manifest.load((own / "references.json").read_bytes()), listing


def works(built: Built, tree: Path) -> None:
    """Require that all programs print what they did, and export what they did.

    Where literals run into one another, as many may still name the old place as were reported to be uncertain.
    """
    uncertain = [os.fsdecode(each.path) for each in documents(tree)[1].findings if each.what == "uncertain"]
    printed = compiling.printed(tree)
    assert printed.keys() == built.printed.keys()
    for name, wanted in built.printed.items():
        text = printed[name]
        if name.partition("-")[0] in compiling.POOLED:
            old = compiling.named(str(built.old), tree)
            assert old == "PREFIX" or text.count(old) <= 2 * uncertain.count(f"bin/{name}"), name
            text, wanted = (_told(each.replace(old, "PREFIX")) for each in (text, wanted))
        assert text == wanted, name
    assert compiling.exported(tree) == built.exported
    assert "are right" in pack("verify", tree).stdout


def _told(text: str) -> str:
    """Leave out whether a file was found: not at the old place."""
    return re.sub(r": (found \w+|not found) at |^[TF] ", ": ", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("env", "second/env"),
        ("a/b/env", "e"),
        ("e", "other"),
        ("as long", "env"),
        ("another as long", "as long"),
    ],
)
def test_programs_work_wherever_they_fit(built: Built, room: Path, first: str, second: str) -> None:
    """At two places in turn, of the same last component or another, shorter or as long, programs print the same."""

    def place(name: str) -> Path:
        gap = LENGTH - len(str(room)) - 5
        return {"as long": room / ("q" * gap) / "env", "another as long": room / ("r" * (gap + 4))}.get(
            name, room / name
        )

    tree = unpack(built.archive, place(first))
    pack("relocate", tree)
    works(built, tree)
    tree = move(tree, place(second))
    pack("relocate", tree)
    works(built, tree)
    before = _stamps(tree)
    pack("relocate", tree)
    assert _stamps(tree) == before


def _stamps(tree: Path) -> dict[str, tuple[int, ...]]:
    return {path: each for path, each in stamps(tree).items() if f"{tree}/.pack" not in path}


@pytest.mark.parametrize(("compiler", "program"), [("rustc", "rust-2"), ("gfortran", "fortran-2"), ("go", "go")])
def test_the_compiler_was_there(built: Built, compiler: str, program: str) -> None:
    """The other tests pass without the compilers that few machines have; this one says so."""
    need(compiler)
    assert "PREFIX/share/" in built.printed[program]


def test_no_occurrence_is_passed_over(built: Built, room: Path) -> None:
    """Each place where a program of whatever language held the prefix is in a slot, or reported with its offset."""
    tree = unpack(built.archive, room / "env")
    recorded, listing = documents(tree)
    slots = {file.path: file.references for file in recorded.files}
    reported = {(finding.path, finding.offset) for finding in listing.findings}
    held = {path: offsets for path, offsets in built.occurrences.items() if offsets}
    assert b"bin/c-2" in held
    assert b"lib/libexports.so" in held
    for path, offsets in held.items():
        for offset in offsets:
            covered = any(each.offset <= offset < each.end for each in slots.get(path, ()))
            assert covered != ((path, offset) in reported), (path, offset)


def test_strings_of_the_loader(built: Built, room: Path) -> None:
    """Run paths become relative where that fits; the others, names of libraries and interpreters stay slots."""
    tree = unpack(built.archive, room / "env")
    recorded, _ = documents(tree)
    found = {
        (os.fsdecode(file.path).rpartition("/")[2], reference.field, reference.fill)
        for file in recorded.files
        for reference in file.references
        if reference.field not in (Field.C_STRING, Field.COUNTED)
    }
    assert found == {
        *((name, Field.RUN_PATH, Fill.KEEP) for name in ("runpath", "rpath", "interpreter", "libexports.so")),
        *((name, Field.RUN_PATH, Fill.TERMINATE) for name in ("deep", "libdeep.so")),
        ("interpreter", Field.INTERPRETER, Fill.TERMINATE),
        ("absolute", Field.LOAD_COMMAND, Fill.TERMINATE),
        ("libabsolute.so", Field.LOAD_COMMAND, Fill.TERMINATE),
    }
    # The tags stay what they were, and entries outside of the prefix stay where they were.
    dynamic = run(["readelf", "-dW", tree / "bin" / "rpath"]).stdout
    assert "Library rpath: [/nowhere:$ORIGIN/../lib]" in dynamic
    assert (
        "Library runpath: [$ORIGIN/../lib:$ORIGIN/../share]" in run(["readelf", "-dW", tree / "bin" / "runpath"]).stdout
    )
    pack("relocate", tree)
    assert f"Library soname: [{tree}/lib/libabsolute.so]" in run(["readelf", "-dW", tree / "lib/libabsolute.so"]).stdout
    assert compiling.interpreter(tree / "bin" / "interpreter") == f"{tree}/lib/ld-copy.so"


def _dynamic(path: Path) -> str:
    return run(["readelf", "-dW", path]).stdout


def test_one_byte_too_long_is_refused(built: Built, room: Path) -> None:
    """No program is changed for a place that is longer by one byte than the old one, and each is named."""
    tree = unpack(built.archive, room / ("l" * (LENGTH - len(str(room)))))
    before = snapshot(tree)
    done = pack("relocate", tree, code=8)
    assert snapshot(tree) == before
    for path in ("bin/c-2", "bin/cpp-0", "bin/interpreter", "bin/absolute", "lib/libabsolute.so"):
        pattern = rf"^{path}: .* has room for {LENGTH} bytes, .* needs {LENGTH + 1}\.$"
        assert re.search(pattern, done.stderr, re.MULTILINE), done.stderr
    for path in ("bin/runpath", "lib/libexports.so"):  # they need no rewriting any more
        assert f"\n{path}: " not in done.stderr


def test_places_that_begin_with_each_other(built: Built) -> None:
    """From /t/env to /t/env/env, /t/env2, /t and back no name is taken for a part of another."""
    with short_directory() as base:
        top = base / "t"
        aside = base / "aside"
        tree = unpack(built.archive, top / "env")
        stations = [top / "env", top / "env" / "env", top / "env2", top / "env-old" / "env2", top, top / "env"]
        for station in stations:
            move(tree, aside)
            shutil.rmtree(top, ignore_errors=True)
            tree = move(aside, station)
            pack("relocate", tree)
            works(built, tree)


def test_places_that_begin_with_the_old_one(built: Built, tmp_path: Path) -> None:
    """Directories inside the old prefix have no room in its programs; its parents, and itself, have."""
    tree = tmp_path / "tree"
    unpack(built.archive, tree)
    base = built.archive.parent
    stations = [built.old / "env", built.old, built.old.parent, built.old.with_name("env2"), built.old]
    try:
        for station in stations:
            move(tree, tmp_path / "aside")
            shutil.rmtree(built.old.parent, ignore_errors=True)
            tree = move(tmp_path / "aside", station)
            longer = len(str(station)) > LENGTH
            pack("relocate", tree, code=8 if longer else 0)
            if not longer:
                works(built, tree)
    finally:
        shutil.rmtree(base / built.old.relative_to(base).parts[0], ignore_errors=True)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A program in which the name of the prefix is a string of its own, stored as the end of the prefix."""
    need("gcc")
    with short_directory() as base:
        old = base / ("p" * 20) / "env"
        (old / "bin").mkdir(parents=True)
        program = compiling.c(old, base, "name", compiling.NAME, "-Os", "-Wl,-O2")
        assert b"\0env\0" not in program.read_bytes()  # shared, else the tests below show nothing
        assert compiling.printed(old) == {"name": "PREFIX env\n"}
        archive = pack_env(old, base / "env.tar")
        shutil.rmtree(old.parent)
        yield archive, old


def test_the_name_of_the_prefix_in_a_string(named: tuple[Path, Path], room: Path) -> None:
    """A directory of the same name is fine; one of another would change a string that is no path."""
    archive, old = named
    tree = unpack(archive, room / "env")
    pack("relocate", tree)
    assert compiling.printed(tree) == {"name": "PREFIX env\n"}
    for name in ("e", "other", "o" * (len(str(old)) - len(str(room)) - 1)):
        tree = move(tree, room / name)
        before = snapshot(tree)
        done = pack("relocate", tree, code=8)
        assert re.search(r"^bin/name: .*another string begins in it.*named 'env'", done.stderr, re.MULTILINE), (
            done.stderr
        )
        assert snapshot(tree) == before
    # Whoever wants it so keeps the string as it was archived; the name is whole.
    pack("relocate", "--allow-unrelocated", tree)
    assert run([tree / "bin" / "name"]).stdout == f"{old} env\n"
    tree = move(tree, room / "again" / "env")
    pack("relocate", tree)
    assert compiling.printed(tree) == {"name": "PREFIX env\n"}


@pytest.mark.parametrize("level", ["-O0", "-O2"])
@pytest.mark.parametrize("length", [24, 32, 60])
def test_a_string_that_instructions_hold(room: Path, level: str, length: int) -> None:
    """A literal of which only the pieces are left that instructions copy is never left behind without a word.

    It is rewritten where the pieces came to lie side by side again, refused, or reported as possibly hidden.
    """
    need("gcc")
    prefix = room / ("p" * (length - len(str(room)) - 5)) / "env"
    (prefix / "bin").mkdir(parents=True)
    program = compiling.c(prefix, room, "inlined", compiling.INLINED, level)
    assert run([program]).stdout == f"{prefix}/a\n"
    tree = unpack(pack_env(prefix, room / "env.tar"), room / "env")
    relocated = run([PACK, "relocate", tree], code=None)
    assert relocated.returncode == 0 or "bin/inlined: " in relocated.stderr
    hidden = [each for each in documents(tree)[1].findings if each.what == "possible hidden reference"]
    if relocated.returncode == 0 and not hidden:
        assert compiling.named(run([tree / "bin" / "inlined"]).stdout, tree) == "PREFIX/a\n"
