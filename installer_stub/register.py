"""Telling conda where an environment is: a line of ``~/.conda/environments.txt``, as conda itself writes it.

conda reads that file for ``conda env list`` and ``conda activate``, and passes over lines of what is gone.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import BinaryIO, Iterator, Optional

from installer_stub.errors import OutputError


def register(prefix: bytes) -> bytes:
    """Add a prefix to the list, unless it is in it; return the path of the list. Raises OutputError."""
    path = _path()
    if path is None:
        raise OutputError(
            "the environment cannot be registered: HOME is not set, so nothing says where conda's list is.",
            "Set HOME, or do without --register.",
        )
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with _locked(path, os.O_CREAT | os.O_APPEND) as file:  # also where there are no locks
            content = file.read()
            if prefix not in content.splitlines():
                file.write((b"" if content.endswith(b"\n") or not content else b"\n") + prefix + b"\n")
    except OSError as error:
        raise OutputError(
            f"{os.fsdecode(path)}: the environment cannot be registered: {error.strerror}.",
            "Do without --register.",
        ) from error
    return path


def unregister(prefix: bytes) -> None:
    """Take a prefix out of the list, if it can be read and written."""
    path = _path()
    if path is None:
        return
    with suppress(OSError), _locked(path, 0) as file:
        lines = file.read().splitlines(keepends=True)
        kept = [line for line in lines if line.rstrip(b"\r\n") != prefix]
        if kept != lines:
            file.seek(0)
            file.write(b"".join(kept))
            file.truncate()


def _path() -> Optional[bytes]:
    home = os.environb.get(b"HOME")
    return os.path.join(home, b".conda", b"environments.txt") if home else None


@contextmanager
def _locked(path: bytes, flags: int) -> Iterator[BinaryIO]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        with suppress(OSError):  # no locks there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield file
