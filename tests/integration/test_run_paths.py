"""Programs find their libraries where they are unpacked: by run paths made relative in place, and by grown ones."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.selection import need
from tests.integration.moving import SURROUNDINGS, pack, pack_env, run, unpack

TAGS = {"--enable-new-dtags": "RUNPATH", "--disable-new-dtags": "RPATH"}

# "lib" and "deep" are exported: linkers store the names as the ends of run paths.
SOURCES = {
    "first.c": "int lib(void) { return 40; }\n",
    "second.c": "int lib(void); int deep(void) { return lib() + 2; }\n",
    "program.c": """
        #include <stdio.h>
        int deep(void);
        static char zeros[300000];
        int main(void) { printf("%d %d\\n", deep(), zeros[299999]); return 0; }
    """,
    "throwing.cpp": """
        #include <stdexcept>
        #include <string>
        extern "C" int deep();
        thread_local std::string last = "none";
        void thrower(int number) { last = std::to_string(number + deep()); throw std::runtime_error(last); }
        std::string told() { return last; }
    """,
    "catching.cpp": """
        #include <iostream>
        #include <stdexcept>
        #include <string>
        #include <thread>
        void thrower(int); std::string told();
        int main() {
            try { thrower(1); } catch (const std::runtime_error &error) { std::cout << error.what() << ' '; }
            std::thread([] { std::cout << told() << ' '; }).join();
            std::cout << told() << std::endl;
        }
    """,
    "extension.c": """
        #include <Python.h>
        int deep(void);
        static PyObject *answer(PyObject *self, PyObject *nothing) { return PyLong_FromLong(deep()); }
        static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
        static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "extension", 0, -1, methods};
        PyMODINIT_FUNC PyInit_extension(void) { return PyModule_Create(&module); }
    """,
}
DEEP = "lib/private/deep"
RUNNING = {"bin/program": "42 0", "bin/fixed": "42 0", "bin/stripped": "42 0", "bin/catching": "43 none 43"}
PAYLOAD = b"payload" * 1000


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """A directory whose name leaves no run path in it room for ``$ORIGIN``."""
    while True:
        directory = Path("/tmp", secrets.token_hex(1))
        try:
            directory.mkdir()
            break
        except FileExistsError:
            continue
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def build(prefix: Path, work: Path, tags: str) -> None:
    """Fill a prefix with two libraries, one far below the other, and with what uses them."""
    need("g++")
    for name, source in SOURCES.items():
        (work / name).write_text(source)
    for directory in ("bin", DEEP, "python"):
        (prefix / directory).mkdir(parents=True)
    deep = prefix / DEEP
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").is_file():
        pytest.skip("Python.h is not installed: apt-get install python3-dev")

    def link(output: str, source: str, *options: str | Path) -> None:
        found = f"-Wl,{tags},-rpath,{deep}:{prefix}/lib,-rpath-link,{prefix}/lib"
        compiler = "g++" if source.endswith(".cpp") else "gcc"
        run([compiler, work / source, *options, found, f"-I{include}", "-o", prefix / output])

    shared = ("-shared", "-fPIC")
    second, throwing = deep / "libsecond.so", deep / "libthrowing.so"
    link("lib/libfirst.so", "first.c", *shared, "-Wl,-soname,libfirst.so")
    link(f"{DEEP}/libsecond.so", "second.c", *shared, "-Wl,-soname,libsecond.so", prefix / "lib/libfirst.so")
    link("bin/program", "program.c", second)
    link("bin/fixed", "program.c", second, "-no-pie")
    link("bin/stripped", "program.c", second, "-s")
    link(f"{DEEP}/libthrowing.so", "throwing.cpp", *shared, "-Wl,-soname,libthrowing.so", second)
    link("bin/catching", "catching.cpp", throwing, second, "-pthread")
    link("python/extension.so", "extension.c", *shared, second)
    appended = prefix / "bin/appended"
    appended.write_bytes((prefix / "bin/program").read_bytes() + PAYLOAD)
    appended.chmod(0o755)
    loader = re.search(r"interpreter: (.*)\]", run(["readelf", "-lW", prefix / "bin/program"]).stdout)
    assert loader is not None
    shutil.copy(os.path.realpath(loader[1]), prefix / "lib" / os.path.basename(loader[1]))


def elves(tree: Path) -> dict[str, Path]:
    """Find the ELF files of a tree."""
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(tree)): path for path in files if path.read_bytes()[:4] == b"\x7fELF"}


def tags(path: Path) -> list[str]:
    """List the kinds of run path that a file has."""
    return re.findall(r"\((RPATH|RUNPATH)\)", run(["readelf", "-dW", path]).stdout)


def run_paths(path: Path) -> list[str]:
    """List the run paths of a file."""
    return re.findall(r"Library r(?:un)?path: \[(.*)\]", run(["readelf", "-dW", path]).stdout)


def symbols(path: Path) -> str:
    """List the dynamic symbols with their versions and values."""
    return run(["nm", "-D", "--with-symbol-versions", path], code=None).stdout


def check_running(tree: Path) -> None:
    """Run all that needs a library of the tree, also with every symbol bound at once."""
    for surroundings in (SURROUNDINGS, {**SURROUNDINGS, "LD_BIND_NOW": "1"}):
        for name, printed in RUNNING.items():
            assert run([tree / name], env=surroundings).stdout.strip() == printed, name
        script = "import sys; sys.path.insert(0, sys.argv[1]); import extension; print(extension.answer())"
        command: list[str | Path] = [sys.executable, "-I", "-B", "-c", script, tree / "python"]
        assert run(command, env=surroundings).stdout == "42\n"


@pytest.mark.parametrize("option", TAGS)
def test_relative_run_paths_need_no_relocation(tmp_path: Path, option: str) -> None:
    """A prefix with a name of usual length: everything runs where it is unpacked, its source gone."""
    source = tmp_path / "a prefix with a name of usual length".replace(" ", "-")
    build(source, tmp_path, option)
    before = {name: (tags(path), symbols(path), path.stat().st_size) for name, path in elves(source).items()}
    archive = pack_env(source, tmp_path / "env.tar")
    shutil.rmtree(source)
    tree = unpack(archive, tmp_path / "elsewhere" / "moved")
    after = {name: (tags(path), symbols(path), path.stat().st_size) for name, path in elves(tree).items()}
    assert after == before
    assert run_paths(tree / "bin/program") == ["$ORIGIN/../lib/private/deep:$ORIGIN/../lib"]
    assert tags(tree / "bin/program") == [TAGS[option]]
    check_running(tree)
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert pack_env(copy, tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    pack("relocate", tree)
    check_running(tree)
    pack("verify", tree)


@pytest.mark.parametrize("option", TAGS)
def test_grown_run_paths_need_no_relocation(tmp_path: Path, short: Path, option: str) -> None:
    """A prefix with a short name: without the option run paths are slots, with it all that may grow has grown."""
    source = short / "e"
    build(source, tmp_path, option)
    archived = {name: path.read_bytes() for name, path in elves(source).items()}
    before = {name: (tags(path), symbols(path)) for name, path in elves(source).items()}
    untouched = {name: data for name, data in archived.items() if name == "bin/appended" or "/ld" in name}
    assert len(untouched) == 2
    slots = pack_env(source, tmp_path / "slots.tar")
    grown = pack_env(source, tmp_path / "grown.tar", "--grow-run-paths")
    scanned = json.loads(pack("scan", "-p", source, "--json", "--grow-run-paths").stdout)
    shutil.rmtree(source)

    tree = unpack(slots, tmp_path / "slots" / "moved")
    program = elves(tree)
    # The names of symbols hold some run paths' places; what did fit was written in place.
    assert {name: path.read_bytes() for name, path in program.items() if name in untouched} == untouched
    assert {name: len(path.read_bytes()) for name, path in program.items()} == {n: len(d) for n, d in archived.items()}
    assert run([tree / "bin/program"], code=None).returncode == 127

    tree = unpack(grown, tmp_path / "grown" / "moved")
    assert {name: path.read_bytes() for name, path in elves(tree).items() if name in untouched} == untouched
    assert {name: (tags(path), symbols(path)) for name, path in elves(tree).items()} == before
    assert tags(tree / "bin/program") == [TAGS[option]]
    assert run_paths(tree / "bin/program") == ["$ORIGIN/../lib/private/deep:$ORIGIN/../lib"]
    check_running(tree)
    told = {each["path"]: each["what"] for each in scanned["findings"]}
    assert told["bin/program"] == told["python/extension.so"] == "run path grown"
    assert told["bin/appended"] == "run path not grown"
    data = {name: path.read_bytes() for name, path in elves(tree).items() if told.get(name) == "run path grown"}
    assert data and not [name for name, each in data.items() if os.fsencode(source) in each]

    copy = shutil.copytree(tree, tmp_path / "copy")
    again = pack_env(copy, tmp_path / "again.tar")
    assert again.read_bytes() == grown.read_bytes()
    run(["strip", *(copy / name for name in RUNNING), copy / DEEP / "libsecond.so"])
    for name, printed in RUNNING.items():
        assert run([copy / name]).stdout.strip() == printed, f"{name}, stripped when it had grown"


def test_what_is_not_grown_is_relocated(tmp_path: Path, short: Path) -> None:
    """Slots of short prefixes are rewritten at a target that is as short, grown files need no rewriting there."""
    source = short / "f"
    build(source, tmp_path, "--enable-new-dtags")
    for name, options in {"slots": (), "grown": ("--grow-run-paths",)}.items():
        archive = pack_env(source, tmp_path / f"{name}.tar", *options)
        tree = unpack(archive, short / "g")
        hidden = source.rename(short / "hidden")
        pack("relocate", tree)
        check_running(tree)
        assert run([tree / "bin/appended"]).stdout == "42 0\n"
        pack("verify", tree)
        shutil.rmtree(tree)
        hidden.rename(source)
    refused = unpack(tmp_path / "slots.tar", tmp_path / "a" / "longer" / "place")
    assert pack("relocate", refused, code=None).returncode != 0
