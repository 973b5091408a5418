"""What putting NULs behind strings does to programs, and that the same programs are whole after a move of ours.

The programs are built for a placeholder of 255 bytes and installed as a client of conda does it, with a record. The
damage that others do is the measure of these tests: where it did not show, they could not fail.
"""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.integration import compiling, padding
from tests.integration.moving import SURROUNDINGS, move, pack, pack_env, run, short_directory, unpack

PLACEHOLDER = 255
COUNTING = {"cpp-2": "g++", "cpp-lto": "g++", "rust-0": "rustc", "rust-2": "rustc", "fortran-2": "gfortran", "go": "go"}


@dataclass(frozen=True)
class Package:
    """The archive of an environment that holds the programs, and what they printed and exported.

    ``built`` is as they were built, ``padded`` as a client installed them.
    """

    archive: Path
    built: dict[str, str]
    exported: dict[str, str]
    padded: dict[str, str]
    padded_exports: dict[str, str]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """An environment that a client made of the programs, packed and gone."""
    need("gcc")
    need("g++")
    with short_directory() as base:
        placeholder = base / ("_placeholder" * 30)[: PLACEHOLDER - len(str(base)) - 1]
        assert len(str(placeholder)) == PLACEHOLDER
        compiling.everything(placeholder, tmp_path_factory.mktemp("work"))
        built, exported = compiling.printed(placeholder), compiling.exported(placeholder)
        assert not [text for text in built.values() if re.search("not found|exit|^F|NULs", text)]
        prefix = base / "source" / "env"
        padding.install(placeholder, prefix)
        shutil.rmtree(placeholder)
        padded, padded_exports = compiling.printed(prefix), compiling.exported(prefix)
        archive = pack_env(prefix, base / "env.tar")
        shutil.rmtree(prefix)
        yield Package(archive, built, exported, padded, padded_exports)


@pytest.mark.parametrize("name", ["env", "other"])
def test_all_is_whole_after_a_move(package: Package, name: str) -> None:
    """Every program prints and exports what it did where it was built, at two places in turn."""
    with short_directory() as base:
        tree = unpack(package.archive, base / name)
        for target in (tree, base / "further" / "on" / name):
            tree = move(tree, target) if target != tree else tree
            pack("relocate", tree)
            assert compiling.printed(tree) == package.built
            assert compiling.exported(tree) == package.exported
            assert "are right" in pack("verify", tree).stdout


def test_as_long_as_the_placeholder(package: Package) -> None:
    """The whole room of the placeholder can be used, and one byte more is refused."""
    with short_directory() as base:
        target = base / ("l" * (PLACEHOLDER - len(str(base)) - 1))
        tree = unpack(package.archive, target)
        pack("relocate", tree)
        assert compiling.printed(tree) == package.built
        tree = move(tree, base / (target.name[1:]) / "y")
        assert len(str(tree)) == PLACEHOLDER + 1
        assert "bin/c-2: the C string at byte" in pack("relocate", tree, code=8).stderr


# --- the damage


@pytest.mark.parametrize("name", ["c-0", "c-2", "c-lto", "c-static", "c-fixed", "c-debug"])
def test_padding_spares_strings_that_end_at_their_nul(package: Package, name: str) -> None:
    """A C program that reads its strings up to the NUL, and shares no tails, is right: this is what NULs are for."""
    assert package.padded[name] == package.built[name]


@pytest.mark.parametrize(("name", "compiler"), COUNTING.items())
def test_padding_damages_counted_strings(package: Package, name: str, compiler: str) -> None:
    """Literals that are read by their length have NULs inside, or are another string."""
    need(compiler)
    wrong = {
        "cpp": "found one, NULs inside at PREFIX/share/one#",
        "rust": "neighbour: \n|not found at",  # which, is up to the order in the pool
        "fortran": "PREFIX/share/onePREFIX",
        "go": "PREFIX/share/onePREFIX",
    }
    assert re.search(wrong[name.partition("-")[0]], package.padded[name].replace("\0", ""))


def test_padding_empties_shared_tails(package: Package) -> None:
    """A string that the linker stored as the end of another one is empty."""
    assert "tail: share/word\nend: word\n" in package.built["c-tails"]
    assert "tail: \nend: \n" in package.padded["c-tails"]


def test_padding_destroys_exports(package: Package) -> None:
    """Functions whose names are the ends of a run path cannot be found any more."""
    assert {" lib@", " ib@"} <= set(re.findall(r" \w+@", package.exported["lib/libexports.so"]))
    assert not {" lib@", " ib@"} & set(re.findall(r" \w+@", package.padded_exports["lib/libexports.so"]))
    for name in ("runpath", "rpath", "deep", "interpreter"):
        assert package.built[name] == "1 2 3\n"
        assert re.search("not found|undefined symbol", package.padded[name])


def test_padding_damages_byte_code(tmp_path: Path) -> None:
    """Byte code with NULs put into it cannot be loaded; ours stays as it is, and is reported."""
    prefix, target = tmp_path / "a longer name" / "env", tmp_path / "t" / "env"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib" / "word.py").write_text(f"WORD = {f'{prefix}/share/word'!r}\n")
    compiled = prefix / "lib" / "word.pyc"
    py_compile.compile(str(prefix / "lib" / "word.py"), str(compiled), doraise=True)
    (prefix / "lib" / "word.py").unlink()
    content = compiled.read_bytes()

    def imported(where: Path) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-c", "import word"], env={**SURROUNDINGS, "PYTHONPATH": str(where)}, code=None)

    assert imported(prefix / "lib").returncode == 0
    (tmp_path / "padded").mkdir()
    (tmp_path / "padded" / "word.pyc").write_bytes(padding.padded(content, os.fsencode(prefix), os.fsencode(target)))
    assert "bad marshal data" in imported(tmp_path / "padded").stderr

    assert re.search(r"not rewritten: .*not rewritable", pack("scan", "-p", prefix).stdout)
    tree = unpack(pack_env(prefix, tmp_path / "env.tar"), target)
    pack("relocate", tree)
    assert (tree / "lib" / "word.pyc").read_bytes() == content
    assert imported(tree / "lib").returncode == 0
