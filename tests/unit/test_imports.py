"""Who may import what, who may print and who may exit: the rules of the architecture, read with ``ast``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"pack", "installer_stub"}

# The package that is the command line.
CLI = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pack" / "cli").glob("*.py")}

# A package that is not in the standard library, and the modules that may import it.
ALLOWED = {
    "click": CLI,
    "tqdm": CLI,
    "zstandard": {"pack/compress.py", "pack/expand.py", "pack/squeezed.py", "installer_stub/payload.py"},
    "zlib_ng": {"pack/compress.py", "pack/expand.py"},
    "lief": {"pack/deep.py"},
    "yaml": {"pack/condarc.py"},
}

# The module whose second process ends by itself, and in which nothing of the first may run.
FORKS = {"installer_stub/beside.py"}

# The modules that may print and exit: the command lines.
TALKERS = {*CLI, "installer_stub/__main__.py", "installer_stub/console.py"}


def imports(source: str, module: str) -> Iterator[str]:
    """Yield the top-level name of everything that a module imports, also inside functions and by name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0]
            case ast.ImportFrom(level=level) if level > len(Path(module).parts) - 1:
                yield "a relative import that leaves the package"
            case ast.ImportFrom():
                yield Path(module).parts[0]
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name.partition(".")[0]
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                yield "a name computed at run time"


def talk(source: str) -> Iterator[str]:
    """Yield every way in which a module prints to the terminal or ends the process."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="print" | "exit" | "quit" | "input" as name)):
                yield f"line {node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id="sys"), attr="exit" | "stdout" | "stderr" as name):
                yield f"line {node.lineno}: sys.{name}"
            case ast.ImportFrom(module="sys", names=names):
                for alias in names:
                    if alias.name in {"exit", "stdout", "stderr"}:
                        yield f"line {node.lineno}: sys.{alias.name}"
            case ast.Attribute(value=ast.Name(id="os"), attr="_exit"):
                yield f"line {node.lineno}: os._exit"
            case ast.Name(id="SystemExit"):
                yield f"line {node.lineno}: SystemExit"


def forbidden(source: str, module: str) -> list[str]:
    """List what a module, named by its path in the checkout, does against the rules."""
    found: list[str] = []
    package = Path(module).parts[0]
    for name in imports(source, module):
        if name in sys.stdlib_module_names or name == package:
            continue
        if name == "installer_stub" and package == "pack":
            continue
        if module not in ALLOWED.get(name, ()):
            found.append(f"imports {name}")
    if module not in TALKERS:
        said = talk(source)
        found += [each for each in said if not (module in FORKS and each.endswith("os._exit"))]
    return found


def modules() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for package in OURS for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("module", modules())
def test_module_keeps_the_rules(module: str) -> None:
    assert forbidden((ROOT / module).read_text(), module) == []


def test_both_packages_are_read() -> None:
    assert {Path(module).parts[0] for module in modules()} == OURS


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("installer_stub/elf.py", "import lief", "imports lief"),
        ("installer_stub/extract.py", "import zstandard", "imports zstandard"),
        ("installer_stub/walk.py", "from pack.scan import scan", "imports pack"),
        ("installer_stub/walk.py", "def walk():\n    import pack.scan", "imports pack"),
        ("installer_stub/walk.py", "import importlib\nimportlib.import_module('pack')", "imports pack"),
        ("installer_stub/walk.py", "__import__(name)", "imports a name computed at run time"),
        (
            "installer_stub/walk.py",
            "from .. import pack",
            "imports a relative import that leaves the package",
        ),
        ("pack/scan.py", "import click", "imports click"),
        ("pack/scan.py", "from tqdm.auto import tqdm", "imports tqdm"),
        ("pack/archive/tar.py", "import zstandard", "imports zstandard"),
        ("pack/scan.py", "import requests", "imports requests"),
        ("pack/scan.py", "import tests.conftest", "imports tests"),
        ("pack/scan.py", "print('x')", "line 1: print()"),
        ("pack/scan.py", "import sys\nsys.exit(1)", "line 2: sys.exit"),
        ("pack/scan.py", "from sys import exit", "line 1: sys.exit"),
        ("pack/scan.py", "raise SystemExit(1)", "line 1: SystemExit"),
        ("pack/scan.py", "import sys\nsys.stderr.write('x')", "line 2: sys.stderr"),
        ("installer_stub/relocate.py", "import os\nos._exit(1)", "line 2: os._exit"),
    ],
)
def test_rule_is_noticed_when_broken(module: str, source: str, reason: str) -> None:
    assert forbidden(source, module) == [reason]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pack/cli/terminal.py", "import click, tqdm, sys\nprint('x')\nsys.exit(1)"),
        ("pack/compress.py", "import zstandard, zlib"),
        ("pack/deep.py", "import lief"),
        ("pack/scan.py", "from installer_stub import walk\nfrom pack.layouts import conda"),
        ("pack/archive/tar.py", "from . import entry\nfrom .. import compress"),
        ("installer_stub/walk.py", "from __future__ import annotations\nfrom . import model\nimport os.path"),
        ("installer_stub/__main__.py", "import sys\nprint('x')\nsys.exit(1)"),
    ],
)
def test_rule_leaves_alone_what_is_right(module: str, source: str) -> None:
    assert forbidden(source, module) == []
