"""Zip archives, by Python's ``zipfile``: every file with its mode, symlinks as Info-ZIP stores them.

A zip has no hard links, and many readers make files of symlinks: ``pack.dereference`` turns both into copies
beforehand, symlinks unless they are asked for.
"""

from __future__ import annotations

import stat
import struct
import time
import zipfile
from collections.abc import Iterable
from typing import IO, cast

from installer_stub.errors import OutputError, UsageError
from installer_stub.model import Kind

from . import Member, Progress, Writable, checked_chunks

_UNIX = 3  # "made by"
_FIRST = (1980, 1, 1, 0, 0, 0)  # a zip knows no time before, nor behind 2107
_LAST = (2107, 12, 31, 23, 59, 58)
_MOST = (1 << 32) - 1  # bytes, without ZIP64
_MOST_MEMBERS = (1 << 16) - 1
TIMES = struct.Struct("<HHBi")  # tag 0x5455, length, flags, mtime: Info-ZIP's time of Unix, in UTC
_TYPES = {Kind.FILE: stat.S_IFREG, Kind.SYMLINK: stat.S_IFLNK, Kind.DIRECTORY: stat.S_IFDIR}
_ZIP64_TIP = "Leave out --no-zip-64, or choose another format."


def write_zip(
    members: Iterable[Member], out: Writable, level: int, zip64: bool = True, progress: Progress | None = None
) -> None:
    """Write members, in their order, as one zip archive; without ``zip64`` only what every reader can read.

    Raises `EnvironmentUnfit` when a member yields more or fewer bytes than its size, `UsageError` for a name that is
    not UTF-8, `OutputError` for what needs ZIP64 and may not have it.
    """
    try:
        # It asks an output without tell() for nothing but write().
        with zipfile.ZipFile(cast("IO[bytes]", _Forward(out)), "w", zipfile.ZIP_DEFLATED, zip64, level) as archive:
            for number, member in enumerate(members, 1):
                if not zip64 and (number > _MOST_MEMBERS or member.size > _MOST):
                    raise zipfile.LargeZipFile("too many members, or one is too large")
                _add(archive, member, level, zip64, progress)
    except zipfile.LargeZipFile as error:
        raise OutputError(f"--no-zip-64: the archive needs ZIP64: {error}", _ZIP64_TIP) from error


class _Forward:
    """An output that can only be written to."""

    def __init__(self, out: Writable) -> None:
        self._out = out

    def write(self, data: bytes, /) -> int:
        self._out.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back here."""


def _add(archive: zipfile.ZipFile, member: Member, level: int, zip64: bool, progress: Progress | None) -> None:
    try:
        name = member.path.decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"{member.path!r}: a zip archive holds names in UTF-8 alone",
            "Rename it, leave it out with --exclude, or choose another format.",
        ) from None
    info = zipfile.ZipInfo(name + ("/" if member.kind is Kind.DIRECTORY else ""), _time(member.mtime))
    info.create_system = _UNIX
    try:
        info.extra = TIMES.pack(0x5455, TIMES.size - 4, 1, member.mtime)
    except struct.error:
        raise UsageError(
            f"{member.path!r}: a zip archive holds no time behind the year 2038",
            "Set its time with touch, or choose another format.",
        ) from None
    info.external_attr = (_TYPES[member.kind] | member.mode) << 16 | (0x10 if member.kind is Kind.DIRECTORY else 0)
    if member.kind is not Kind.FILE:
        archive.writestr(info, member.target, zipfile.ZIP_STORED)
        return
    info.compress_type = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    info._compresslevel = level  # type: ignore[attr-defined]  # as ZipFile.write does; public only from 3.13 on
    info.file_size = member.size
    with archive.open(info, "w", force_zip64=zip64 and member.size > _MOST // 2) as file:
        for chunk in checked_chunks(member):
            file.write(chunk)
            if progress:
                progress(len(chunk))


def _time(mtime: int) -> tuple[int, int, int, int, int, int]:
    """Give a time as a zip holds it: of no zone, so that of UTC; in steps of two seconds."""
    try:
        told = time.gmtime(mtime)[:6]
    except (OverflowError, ValueError, OSError):
        told = _LAST if mtime > 0 else _FIRST
    return min(max(told, _FIRST), _LAST)
