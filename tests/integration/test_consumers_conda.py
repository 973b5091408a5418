"""What compilers, Python, pip, Jupyter and conda read in a conda environment, read by them after a move.

As in ``test_consumers.py`` each consumer is run on a tree that was not relocated, where it must fail, and on one
that was; the environment's first place is deleted.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rattler import PrefixRecord

from tests.conftest import need
from tests.integration.moving import (
    SURROUNDINGS,
    Run,
    activated,
    clone,
    digest,
    packed_and_deleted,
    run,
    sh,
    source_of,
    wrong_rows,
)

SPECS = ("python", "pip", "setuptools", "wheel", "jupyter-core")
SITE = "lib/python3.11/site-packages"
CONFIG = "lib/python3.11/config-3.11-x86_64-linux-gnu"
# No byte code: the tests do not change the trees that they share.
QUIET = {**SURROUNDINGS, "PYTHONDONTWRITEBYTECODE": "1"}

# A distribution with an extension module that needs a header and a library of the environment, and with a script
# that begins with a string: such a one keeps an absolute shebang.
SETUP_PY = """\
import sysconfig
from setuptools import Extension, setup

includes = [sysconfig.get_config_var("INCLUDEDIR")]
module = Extension("tinywater", ["tinywater.c"], libraries=["private"], include_dirs=includes)
setup(name="tinywater", version="1.0", ext_modules=[module], scripts=["water-doc"])
"""
MODULE_C = """\
#include <Python.h>
#include <private.h>
static PyObject *depth(PyObject *self, PyObject *ignored) { return PyLong_FromLong(private_depth()); }
static PyMethodDef methods[] = {{"depth", depth, METH_NOARGS, ""}, {0}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "tinywater", .m_size = -1, .m_methods = methods};
PyMODINIT_FUNC PyInit_tinywater(void) { return PyModule_Create(&module); }
"""
SCRIPT = '#!python\n"""Tell where water is."""\nimport sys\n\nprint(sys.prefix)\n'

# Prints where an embedded Python finds its library, by the prefix that was compiled in.
EMBED_C = """\
#include <Python.h>
int main(void) { Py_Initialize(); return PyRun_SimpleString("import sys; print(sys.prefix, flush=True)"); }
"""
# Prints which library a symbol comes from.
LOADED_C = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include HEADER
int main(void) { Dl_info info; dladdr((void *)FUNCTION, &info); puts(info.dli_fname); return 0; }
"""


@dataclass(frozen=True)
class Trees:
    """An archive, unpacked twice. The environment that it was made from is deleted."""

    archive: Path
    stale: Path
    moved: Path


def write_project(directory: Path) -> Path:
    """Write the source of the distribution ``tinywater``."""
    directory.mkdir()
    (directory / "setup.py").write_text(SETUP_PY)
    (directory / "tinywater.c").write_text(MODULE_C)
    (directory / "water-doc").write_text(SCRIPT)
    return directory


def pip_install(tree: Path, project: Path, *options: str | Path) -> list[str | Path]:
    """Give the command that builds a project with an environment's own pip, setuptools and compiler flags."""
    pip: list[str | Path] = [tree / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-build-isolation"]
    return [*pip, "--no-cache-dir", "--disable-pip-version-check", *options, project]


def furnish(prefix: Path) -> None:
    """Add what users add: a library, a distribution, a kernel, ``.pth`` files."""
    work = prefix.parent / "work"
    project = write_project(work)
    (prefix / "include" / "private.h").write_text("int private_depth(void);\n")
    (work / "private.c").write_text("int private_depth(void) { return 42; }\n")
    sh(f"gcc -shared -fPIC -o {prefix}/lib/libprivate.so {work}/private.c")
    run(pip_install(prefix, project), env=QUIET)

    kernel = prefix / "share" / "jupyter" / "kernels" / "water"
    kernel.mkdir(parents=True)
    (prefix / "share" / "water.txt").write_text("clear water\n")
    code = "import os, sys; print(sys.argv[1], sys.prefix, open(os.environ['WATER']).read())"
    argv = [f"{prefix}/bin/python", "-c", code, "{connection_file}"]
    spec = {"argv": argv, "display_name": "Water", "language": "water", "env": {"WATER": f"{prefix}/share/water.txt"}}
    (kernel / "kernel.json").write_text(json.dumps(spec, indent=1))

    for name in ("path", "line"):
        (prefix / "opt" / name).mkdir(parents=True)
        (prefix / "opt" / name / f"by_{name}.py").write_text("")
    (prefix / SITE / "water-path.pth").write_bytes(f"# comment\r\n{prefix}/opt/path".encode())
    (prefix / SITE / "water-line.pth").write_text(f"import sys; sys.path.append('{prefix}/opt/line')\n")


@pytest.fixture(scope="module")
def trees(
    session_directory: Path, channel: Path, package_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trees:
    """Two trees in which nothing may be written; the second was activated once."""
    for tool in ("gcc", "make", "pkg-config"):
        need(tool)
    home = session_directory / "consumers-gone"
    archive = packed_and_deleted(home, SPECS, [channel], package_cache, furnish)
    # Run paths that the user's compiler wrote keep their length: no deeper than the source.
    directory = tmp_path_factory.mktemp("c")
    assert not source_of(archive).exists()
    trees = Trees(archive, clone(archive, directory / "s" / "env"), clone(archive, directory / "env"))
    activated(trees.moved, "true", env=QUIET)
    return trees


def python(tree: Path, code: str, code_expected: int | None = 0) -> Run:
    """Run code with a tree's own Python."""
    return run([tree / "bin" / "python", "-c", code], env=QUIET, code=code_expected)


def test_an_extension_module_is_built(trees: Trees, tmp_path: Path) -> None:
    """setuptools takes compiler flags from the moved `_sysconfigdata`: the module links, and loads its library."""
    project = write_project(tmp_path / "project")
    failed = run(pip_install(trees.stale, project, "--target", tmp_path / "none"), env=QUIET, code=1)
    assert "private.h: No such file" in failed.stdout + failed.stderr
    run(pip_install(trees.moved, project, "--target", tmp_path / "site"), env=QUIET)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import tinywater as t"
    assert python(trees.moved, f"{code}; print(t.__file__, t.depth())").stdout.startswith(f"{tmp_path}/site/tinywater")


def test_an_extension_module_built_before(trees: Trees) -> None:
    """A module that was compiled before packing loads its library from the new place."""
    maps = "import tinywater; print(tinywater.depth(), open('/proc/self/maps').read())"
    printed = python(trees.moved, maps).stdout
    assert printed.startswith("42 ") and f" {trees.moved}/lib/libprivate.so\n" in printed


@pytest.mark.parametrize("library", ["shared", "static"])
def test_python_is_embedded(library: str, trees: Trees, tmp_path: Path) -> None:
    """A program built by `python3-config`, or with the static `libpython`, finds the standard library by itself."""
    (tmp_path / "embed.c").write_text(EMBED_C)
    static = f"-Wl,-export-dynamic embed.c {{0}}/{CONFIG}/libpython3.11.a -lm -ldl -o embed"
    shared = "embed.c $({0}/bin/python3-config --ldflags --embed) -Wl,-rpath,{0}/lib -o embed"
    build = "gcc $({0}/bin/python3-config --includes) " + (static if library == "static" else shared)
    build += " && env -i PATH=/nonexistent ./embed"  # it would take the prefix of a python3 there
    failed = sh(build.format(trees.stale), cwd=tmp_path, code=None)
    assert failed.returncode != 0 and "No module named 'encodings'" in failed.stderr
    assert sh(build.format(trees.moved), cwd=tmp_path).stdout == f"{trees.moved}\n"


def test_the_makefile_of_python(trees: Trees, tmp_path: Path) -> None:
    """make, and whoever parses Python's Makefile, is told the new place."""
    (tmp_path / "show.mk").write_text("show:\n\t@echo $(LIBDIR)\n")
    for tree, right in ((trees.stale, False), (trees.moved, True)):
        printed = run(["make", "-f", tree / CONFIG / "Makefile", "-f", "show.mk", "show"], cwd=tmp_path).stdout
        assert (printed == f"{tree}/lib\n") is right
    told = run([trees.moved / "bin" / "python", trees.moved / CONFIG / "python-config.py", "--includes"], env=QUIET)
    assert f"-I{trees.moved}/include/python3.11" in told.stdout.split()


PKG_CONFIG = (
    "export PKG_CONFIG_LIBDIR={0}/lib/pkgconfig; "
    "pkg-config --cflags --libs NAME; echo -Wl,-rpath,$(pkg-config --variable=libdir NAME)"
)


@pytest.mark.parametrize(
    "header, function, flags",
    [
        ("sqlite3.h", "sqlite3_libversion", PKG_CONFIG.replace("NAME", "sqlite3")),
        ("openssl/ssl.h", "SSL_new", PKG_CONFIG.replace("NAME", "openssl")),
        ("curses.h", "initscr", "{0}/bin/ncursesw6-config --cflags --libs"),
    ],
)
def test_packages_are_built_against(header: str, function: str, flags: str, trees: Trees, tmp_path: Path) -> None:
    """What `pkg-config` and `ncursesw6-config` say leads compilers to the libraries at the new place."""
    (tmp_path / "loaded.c").write_text(LOADED_C)
    define = f"-DHEADER='<{header}>' -DFUNCTION={function}"
    build = f"gcc {define} loaded.c $({flags}) -Wl,--no-as-needed -o loaded && ./loaded"
    # The machine may have a library of that name, too.
    assert f"{trees.stale}/" not in sh(build.format(trees.stale), cwd=tmp_path, code=None).stdout
    assert sh(build.format(trees.moved), cwd=tmp_path).stdout.startswith(f"{trees.moved}/lib/lib")


def kernel_command(tree: Path) -> tuple[list[str], dict[str, str]]:
    """Find the kernel ``water`` where Jupyter looks, and fill in its command as Jupyter does."""
    paths = json.loads(run([tree / "bin" / "jupyter", "--paths", "--json"], env=QUIET).stdout)
    found = [Path(path, "kernels", "water", "kernel.json") for path in paths["data"]]
    (path,) = [path for path in found if path.exists()]
    assert path.is_relative_to(tree)
    spec: dict[str, Any] = json.loads(path.read_text())
    return [word.format(connection_file="/run/connection") for word in spec["argv"]], {**QUIET, **spec["env"]}


def test_jupyter_kernel(trees: Trees) -> None:
    """The command of a moved kernel specification starts the moved Python, with the environment that it names."""
    command, _ = kernel_command(trees.stale)
    assert not os.path.exists(command[0])
    command, env = kernel_command(trees.moved)
    assert run(command, env=env).stdout == f"/run/connection {trees.moved} clear water\n\n"


@pytest.mark.parametrize("module", ["by_path", "by_line"])
def test_pth_files(module: str, trees: Trees) -> None:
    """`site` adds the moved directories of `.pth` files: a bare path behind CRLF, and one within a statement."""
    assert "ModuleNotFoundError" in python(trees.stale, f"import {module}", 1).stderr
    python(trees.moved, f"import {module}")


def rows(tree: Path) -> dict[str, str]:
    """Read the digests of ``tinywater``'s ``RECORD``."""
    with (tree / SITE / "tinywater-1.0.dist-info" / "RECORD").open(newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file)}


def test_record(trees: Trees) -> None:
    """pip finds its distributions whole: every digest holds, also of the script whose shebang moved."""
    script = "../../../bin/water-doc"
    assert rows(trees.stale)[script] != rows(trees.moved)[script]
    assert wrong_rows(trees.moved, "tinywater") == []
    assert run([trees.moved / "bin" / "water-doc"], env=QUIET).stdout == f"{trees.moved}\n"
    pip: list[str | Path] = [trees.moved / "bin" / "pip", "--disable-pip-version-check"]
    run([*pip, "check"], env=QUIET)
    listed = run([*pip, "show", "-f", "tinywater"], env=QUIET).stdout
    assert f"Location: {trees.moved}/{SITE}\n" in listed and f"  {script}\n" in listed


def test_pip_uninstalls(trees: Trees) -> None:
    """pip removes from a moved tree all that it installed before packing."""
    tree = clone(trees.archive, trees.moved.with_name("u"))
    activated(tree, "pip uninstall -y tinywater", env=QUIET)
    assert list(tree.rglob("*tinywater*")) == [] and not (tree / "bin" / "water-doc").exists()


def test_conda_meta(trees: Trees) -> None:
    """rattler reads every record, and the files of the moved tree hash as these say."""
    changed = 0
    for path in sorted((trees.moved / "conda-meta").glob("*.json")):
        record = PrefixRecord.from_path(path)
        assert record.paths_data.paths
        for entry in json.loads(path.read_text())["paths_data"]["paths"]:
            file = trees.moved / entry["_path"]
            if entry["path_type"] == "hardlink" and file.suffix != ".pyc":
                assert entry.get("sha256_in_prefix", entry["sha256"]) == digest(file), file
                changed += entry.get("sha256_in_prefix", entry["sha256"]) != entry["sha256"]
    assert changed > 15
