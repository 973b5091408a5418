"""Environments for the tests that hold ours against the checklist and the pains of conda-pack's users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.integration.installed import LEAN_SPECS, shared_lean_python

MakeLean = Callable[..., Path]


@pytest.fixture
def lean(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    """A real Python with pip and six, which no test may change."""
    return shared_lean_python(session_directory, channel, package_cache)


@pytest.fixture
def own(tmp_path: Path, channel: Path, package_cache: Path) -> MakeLean:
    """Install such environments, complete, and each the test's own. Their files are links into the package cache."""

    def make(*specs: str, name: str = "env") -> Path:
        return channels.install(tmp_path / "source" / name, specs or LEAN_SPECS, [channel], cache=package_cache)

    return make
