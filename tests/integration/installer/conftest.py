"""Installers for the tests in this directory, each made once for all processes of a run, as ``pack`` makes them.

They carry the frozen program; where none can be built, the tests skip and say why.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fixtures import stub as stubs
from fixtures.channel import locked
from pack.stub.store import StubUnavailable
from tests.integration.moving import SURROUNDINGS, pack

FINDING_THE_STUB = {**SURROUNDINGS, **stubs.surroundings()}

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def frozen() -> Path:
    """The program of the frozen stub."""
    try:
        return stubs.build()
    except StubUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def make_installer(frozen: Path) -> Make:
    """Write the installer of a prefix: ``make_installer(prefix, output, *options)``."""

    def make(prefix: Path, output: Path, *options: str | Path) -> Path:
        pack("-q", "-p", prefix, "-o", output, *options, env=FINDING_THE_STUB)
        return output

    return make


def once(directory: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return the file ``directory/name``, made by the first process that asks for it."""
    path = directory / name
    with locked(directory / f"making-{name}"):
        if not path.exists():
            make(path)
    return path


def small_prefix(prefix: Path, noise: int = 1 << 20, extra: Sequence[tuple[str, str]] = ()) -> Path:
    """Fill a prefix with next to nothing: a script that prints where it stands, text, a symlink, and noise."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    (prefix / "share").mkdir()
    (prefix / "share/text").write_text(f"{prefix}\n")
    (prefix / "share/noise").write_bytes(random.Random(0).randbytes(noise))
    (prefix / "share/link").symlink_to("text")
    for name, content in (("bin/tool", f"#!/bin/sh\necho {prefix}\n"), *extra):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(content)
    (prefix / "bin/tool").chmod(0o755)
    return prefix


@pytest.fixture(scope="session")
def small_sh(session_directory: Path, make_installer: Make) -> Path:
    """An installer of next to nothing, with the frozen program: for long series."""
    directory = session_directory / "installers"
    directory.mkdir(parents=True, exist_ok=True)
    return once(directory, "small.sh", lambda path: make_installer(small_prefix(directory / "small" / "env"), path))


@pytest.fixture(scope="session")
def native_sh(session_directory: Path, native_env: Path, make_installer: Make) -> Path:
    """An installer of a real environment without Python."""
    directory = session_directory / "installers"
    directory.mkdir(parents=True, exist_ok=True)
    return once(directory, "native.sh", lambda path: make_installer(native_env, path))


@pytest.fixture(scope="session")
def python_sh(session_directory: Path, python_env: Path, make_installer: Make) -> Path:
    """An installer of a real environment with Python."""
    directory = session_directory / "installers"
    directory.mkdir(parents=True, exist_ok=True)
    return once(directory, "python.sh", lambda path: make_installer(python_env, path))
