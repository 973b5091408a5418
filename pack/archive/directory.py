"""A directory: the members as files, each new, none linked to where its content comes from, zeros as holes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from installer_stub.errors import OutputError
from installer_stub.model import Kind

from ..output import write_all, writing
from . import Member, Progress, checked_chunks

_ZEROS = bytes(1 << 20)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_directory(members: Iterable[Member], directory: Path, progress: Progress | None = None) -> None:
    """Write members into an existing empty directory, with their modes and times.

    Parents that are no members are made. Nothing is written through a link: a member below a path that is
    not a directory of this call is refused. Raises `OutputError`, also for an owner that this user cannot give,
    and `EnvironmentUnfit` when a member yields more or fewer bytes than its size. What was written until then
    stays: the caller removes it.
    """
    tree = _Tree(os.fsencode(directory))
    for member in members:
        tree.add(member, progress)
    tree.finish()


class _Tree:
    def __init__(self, root: bytes) -> None:
        self._root = root
        self._directories = {b""}
        self._others: set[bytes] = set()
        self._unfinished: list[Member] = []

    def add(self, member: Member, progress: Progress | None) -> None:
        self._make_parents(member.path)
        path = self._place(member.path)
        if member.kind is Kind.FILE:
            _write_file(member, path, progress)
        else:
            with writing(path):
                self._make(member, path)
        if member.kind is Kind.DIRECTORY:
            self._directories.add(member.path)
            self._unfinished.append(member)
        else:
            self._others.add(member.path)

    def finish(self) -> None:
        """Set the directories' modes and times: writing into one needs a mode, and changes its time."""
        for member in sorted(self._unfinished, key=lambda member: member.path, reverse=True):
            path = self._place(member.path)
            with writing(path):
                os.utime(path, (member.mtime, member.mtime))
                _own(path, member)
                os.chmod(path, member.mode)

    def _make(self, member: Member, path: bytes) -> None:
        if member.kind is Kind.DIRECTORY:
            if member.path not in self._directories:  # it may have been made as a parent
                os.mkdir(path, 0o700)
        elif member.kind is Kind.SYMLINK:
            os.symlink(member.target, path)
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
        else:
            if member.target not in self._others:
                raise OutputError(f"{member.path!r}: a hard link to {member.target!r}, which is no earlier file")
            os.link(self._place(member.target), path, follow_symlinks=False)

    def _make_parents(self, path: bytes) -> None:
        parts = path.split(b"/")
        if any(part in (b"", b".", b"..") for part in parts):
            raise OutputError(f"{path!r}: not a path inside the output")
        for count in range(1, len(parts)):
            parent = b"/".join(parts[:count])
            if parent in self._others:
                raise OutputError(f"{path!r}: {parent!r} above it is not a directory")
            if parent not in self._directories:
                with writing(self._place(parent)):
                    os.mkdir(self._place(parent))
                self._directories.add(parent)

    def _place(self, path: bytes) -> bytes:
        return os.path.join(self._root, path)


def _write_file(member: Member, path: bytes, progress: Progress | None) -> None:
    with writing(path):
        file = os.open(path, _NEW, 0o600)
    try:
        for chunk in checked_chunks(member):  # an error of reading is not one of the output
            with writing(path):
                if chunk == _ZEROS[: len(chunk)]:
                    os.lseek(file, len(chunk), os.SEEK_CUR)
                else:
                    write_all(file, chunk)
            if progress:
                progress(len(chunk))
        with writing(path):
            os.ftruncate(file, member.size)  # the file may end in a hole
            _own(file, member)  # which takes bits and capabilities away, so before these
            os.fchmod(file, member.mode)
            if member.privileges and member.privileges.capability:
                os.setxattr(file, "security.capability", member.privileges.capability)
            os.utime(file, (member.mtime, member.mtime))
    finally:
        with writing(path):  # some file systems report a full disk only here
            os.close(file)


def _own(file: int | bytes, member: Member) -> None:
    """Give a privileged member its owner. Raises `OutputError` where this user may not."""
    privileges = member.privileges
    if privileges is None:
        return
    try:
        os.chown(file, privileges.uid, privileges.gid)
    except PermissionError as error:
        raise OutputError(
            f"{member.path!r}: only root can give it to user {privileges.uid}, group {privileges.gid}, "
            f"and with another owner its mode {member.mode:o} means another thing",
            tip="Write an archive, write the directory as root, or leave out --keep-setuid.",
        ) from error
