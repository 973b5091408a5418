"""Permissions as somebody meets them who is not root, also where root runs the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def nobody() -> Iterator[None]:
    """Run a block without root's permission to pass over permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)  # os.access asks for the real user, not the effective one
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def open_directory() -> Iterator[Path]:
    """Lend a directory that every user may enter; those of pytest are private."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        for each, _, _ in os.walk(directory):
            Path(each).chmod(0o700)
        shutil.rmtree(directory)
