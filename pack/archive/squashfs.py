"""SquashFS images, by ``mksquashfs``, which is fed our tar stream: nothing is staged on disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from installer_stub.errors import OutputError

from . import FIXED_MTIME, Member, Progress
from .tar import write_tar

_PROGRAM = "mksquashfs"
_PACKAGE = "It is in the package squashfs-tools of Linux distributions and of conda-forge."
_OLDEST = (4, 5)  # the first that reads a tar stream
_STORED = ["-noI", "-noD", "-noF", "-noX"]
_BLOCK = 256 << 10  # a larger block than its default of 128 KiB packs a little better


def program() -> str:
    """Return the path of ``mksquashfs``. Raises `OutputError` where it is missing or too old."""
    path = shutil.which(_PROGRAM)
    if path is None:
        raise OutputError(f"{_PROGRAM} is not in PATH, and it makes the image", _PACKAGE)
    said = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace").stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        version = found[0] if found else "of an unknown version"
        raise OutputError(f"{path} is {version}: none before 4.5 reads a tar stream", _PACKAGE)
    return path


def write_squashfs(
    members: Iterable[Member],
    path: Path,
    level: int,
    threads: int,
    owners: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write members as the SquashFS image ``path``, a file that exists and is replaced.

    ``level`` 0 stores, 1 to 9 are levels of zstd; the image is the same for any number of threads. All belongs to
    root, unless members have ``owners``. Raises `OutputError`, with the words of the program.
    """
    command = [program(), "-", os.fspath(path), "-tar", "-noappend", "-no-progress", "-quiet"]
    command += ["-processors", str(threads), "-b", str(_BLOCK), "-root-mode", "755"]
    command += [] if owners else ["-all-root"]
    command += ["-comp", "zstd", "-Xcompression-level", str(_zstd(level))] if level else _STORED
    # Its options for times leave that of the root as it is where it reads a tar (seen in 4.5.1); this does not, and
    # lowers later ones: so it is the latest of all.
    members = tuple(members)
    latest = max((member.mtime for member in members), default=FIXED_MTIME)
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(max(latest, FIXED_MTIME))}
    with tempfile.TemporaryFile(dir=path.parent) as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=env)
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                write_tar(members, pipe, progress)
        except BrokenPipeError:
            pass  # it says why
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        if code:
            said.seek(0)
            words = said.read().decode(errors="replace").strip() or "it does not say why; the disk may be full"
            raise OutputError(f"{path}: {_PROGRAM} failed with code {code}: {words}")


def _zstd(level: int) -> int:
    """Spread the levels 1 to 9 over those of zstd, 1 to 22."""
    return max(1, level * 22 // 9)
