"""The stub runs on Python 3.8: shown by reading it, and by running it where a Python 3.8 is found."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "installer_stub"

# Only an import shows a type that is evaluated at run time (X | Y in an alias); __main__ would start to work.
IMPORT_ALL = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def modules() -> list[Path]:
    return sorted(STUB.rglob("*.py"))


def vermin(target: Path) -> subprocess.CompletedProcess[str]:
    """Ask vermin whether all below a path runs on Python 3.8; its exit code is 0 if so."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("vermin")),
            "--target=3.8-",
            "--violations",
            "--no-tips",
            str(target),
        ],
        capture_output=True,
        text=True,
    )


def pythons_38() -> list[str]:
    """Return every Python 3.8 that is on PATH or among pyenv's, and that really starts."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which("python3.8"), *map(str, sorted(root.glob("versions/3.8.*/bin/python")))]
    version = "import sys; sys.exit(sys.version_info[:2] != (3, 8))"
    return [
        python
        for python in found
        if python and subprocess.run([python, "-c", version], capture_output=True).returncode == 0
    ]


def test_vermin_finds_nothing_newer() -> None:
    checked = vermin(STUB)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "source",
    [
        "import graphlib\n",
        "with (open('a') as a, open('b') as b):\n    pass\n",
        "print('x'.removeprefix('y'))\n",
    ],
)
def test_vermin_would_find_what_is_newer(tmp_path: Path, source: str) -> None:
    (tmp_path / "newer.py").write_text(source)
    assert vermin(tmp_path).returncode != 0


@pytest.mark.parametrize("module", modules(), ids=lambda path: path.relative_to(STUB).as_posix())
def test_module_has_the_grammar_of_38(module: Path) -> None:
    ast.parse(module.read_bytes(), filename=str(module), feature_version=(3, 8))


def test_every_module_imports_on_38_where_there_is_one() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules()
        if path.name not in {"__main__.py", "__init__.py"}
    ]
    for python in pythons_38():
        run = subprocess.run(
            [python, "-I", "-S", "-B", "-c", IMPORT_ALL, str(ROOT), *names], capture_output=True, text=True
        )
        assert run.returncode == 0, f"{python}: {run.stderr}"
