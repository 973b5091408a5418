"""Archives that are no tars, read as tar streams: then one extractor, with one set of checks, reads them all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from installer_stub import manifest, walk
from installer_stub.errors import OutputError, PackError
from installer_stub.model import Kind
from installer_stub.tarstream import ArchiveDamaged

from . import Member
from .tar import end, headers, padded
from .zip import TIMES

_PIECE = 1 << 20
_FIRST = (manifest.DIRECTORY, manifest.REFERENCES, manifest.FILES)
_KINDS = {stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFREG: Kind.FILE, 0: Kind.FILE}

Read = Callable[[int], bytes]


def tar_of(members: Iterable[Member]) -> Read:
    """Return what reads the tar stream of members: 1 to n bytes, none at its end."""
    pieces = _pieces(members)
    left = b""

    def read(count: int) -> bytes:
        nonlocal left
        while not left:
            piece = next(pieces, None)
            if piece is None:
                return b""
            left = piece
        taken, left = left[:count], left[count:]
        return taken

    return read


def _pieces(members: Iterable[Member]) -> Iterator[bytes]:
    written = 0
    for member in members:
        head = headers(member)
        yield head
        size = 0
        if member.kind is Kind.FILE:
            for chunk in member.chunks():
                size += len(chunk)
                yield chunk
            if size != member.size:
                raise ArchiveDamaged(f"the archive is damaged: {member.path!r} has {size} bytes, not {member.size}.")
            yield bytes(padded(size) - size)
        written += len(head) + padded(size)
    yield end(written)


@contextlib.contextmanager
def zipped(path: Path) -> Iterator[Read]:
    """Read a zip archive, in the order of its directory. Raises ArchiveDamaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield tar_of(_of_zip(archive, each) for each in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error, zlib.error) as error:
        raise ArchiveDamaged(
            f"{path}: the archive is damaged: {error}.", "Copy it again, and compare its SHA-256 with the original's."
        ) from error


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    kind = Kind.DIRECTORY if info.is_dir() else _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        raise ArchiveDamaged(f"the archive is damaged: {info.filename!r} is of a kind that no environment holds.")
    name = info.orig_filename.encode("utf-8", "surrogateescape")
    target = archive.read(info) if kind is Kind.SYMLINK else b""
    size = info.file_size if kind is Kind.FILE else 0
    path = name.rstrip(b"/") if kind is Kind.DIRECTORY else name
    return Member(path, kind, stat.S_IMODE(mode), _mtime(info), size, target, lambda: _content(archive, info))


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(info) as file:
        while piece := file.read(_PIECE):
            yield piece


def _mtime(info: zipfile.ZipInfo) -> int:
    """Return the time that the archive holds to the second."""
    extra = info.extra
    while len(extra) >= TIMES.size:
        tag, size, flags, mtime = TIMES.unpack_from(extra)
        if tag == 0x5455 and flags & 1:
            return int(mtime)
        extra = extra[4 + size :]
    raise ArchiveDamaged(f"the archive is damaged: {info.filename!r} has no time of Unix.")


@contextlib.contextmanager
def squashed(path: Path, beside: Path) -> Iterator[Read]:
    """Read a SquashFS image, by ``unsquashfs``, which unpacks it into a directory ``beside`` first.

    Raises PackError where there is none, OutputError where the disk is full, ArchiveDamaged with its words.
    """
    program = shutil.which("unsquashfs")
    if program is None:
        raise PackError(
            f"{path}: unsquashfs is not in PATH, and it reads the image",
            "It is in the package squashfs-tools of Linux distributions and of conda-forge. Or mount the image.",
        )
    with TemporaryDirectory(prefix=".pack-", dir=beside) as directory:
        root = Path(directory, "root")
        done = subprocess.run(
            [program, "-no-progress", "-quiet", "-d", root, path], capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            if os.strerror(errno.ENOSPC) in words:
                raise OutputError(f"{beside}: the disk is full: {words}", "Free some space, or unpack to another disk.")
            raise ArchiveDamaged(f"{path}: unsquashfs failed with code {done.returncode}: {words}")
        yield standing(root)


def standing(root: Path) -> Read:
    """Read a directory that was written as an output, or unpacked from one."""
    directory = os.fsencode(root)
    found = list(walk.walk(directory))
    start = b""
    while not any(each.path == start + manifest.DIRECTORY for each in found) and len(_right_below(found, start)) == 1:
        start = _right_below(found, start)[0] + b"/"
    order = {start + path: number for number, path in enumerate(_FIRST)}
    outer = [each for each in found if start.startswith(each.path + b"/")]
    inner = [each for each in found if not start.startswith(each.path + b"/")]
    inner.sort(
        key=lambda each: (
            order.get(each.path, len(order)),
            not each.path.startswith(start + manifest.DIRECTORY + b"/"),
            each.path.startswith(start + manifest.DIRECTORY + b"/relocator"),
        )
    )
    return tar_of(_of_walk(directory, each) for each in (*outer, *inner))


def _right_below(found: list[walk.Found], start: bytes) -> list[bytes]:
    return [each.path for each in found if each.path.rpartition(b"/")[0] == start.rstrip(b"/")]


def _of_walk(root: bytes, found: walk.Found) -> Member:
    if found.error or found.kind is None:
        raise PackError(f"{os.fsdecode(os.path.join(root, found.path))}: {found.error or found.special}")
    mode = 0o777 if found.kind is Kind.SYMLINK else found.mode
    mtime = found.mtime_ns // 10**9
    return Member(found.path, found.kind, mode, mtime, found.size, found.target, lambda: _file(root, found.path))


def _file(root: bytes, path: bytes) -> Iterator[bytes]:
    with open(os.path.join(root, path), "rb") as file:
        while piece := file.read(_PIECE):
            yield piece
