"""Where an environment appears: a tree that is filled apart, and takes its place last, as a whole.

It is renamed, or changes places with the one that it replaces. Where that cannot be (the target is a mount
point, or is in a directory that this user may not write), its entries are moved one by one, under a marker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Iterator, List, Optional, Tuple, Union

from installer_stub import durable, incomplete, manifest, match, swap, workplace
from installer_stub.errors import ManifestError, OutputError
from installer_stub.incomplete import Before, Marker, Phase, marker
from installer_stub.workplace import OLD, STAGING, uninterrupted

_TREE = b"tree"
_SHOWN = 10  # names of what stands in the way


class Replace(Enum):
    """Whether a tree of ours at the target is replaced."""

    NO = "no"
    IF_THERE = "if there is one"
    YES = "yes"


def place(target: bytes, replace: Replace = Replace.NO) -> bytes:
    """Return the physical path of a target, which must be free: nothing there, or an empty directory.

    A tree of ours is good, too, if it is to be replaced, and wanted if that is all. What an interrupted
    installation left counts as nothing: ``opened`` takes it back. Raises OutputError where something else is,
    or where the directory above is missing, ManifestError where there is nothing to replace.
    """
    path = os.path.realpath(target)
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise OutputError(
            f"{os.fsdecode(path)}: the directory {os.fsdecode(parent)} does not exist.", "Make it, or choose another."
        )
    if os.path.lexists(path) and not os.path.isdir(path):
        raise OutputError(f"{os.fsdecode(path)}: exists, and is no directory.", "Choose another directory.")
    if os.path.lexists(os.path.join(path, manifest.INSTALLING)):
        return path
    if is_replaced(path, replace):
        return path
    if replace is Replace.YES:
        raise ManifestError(
            f"{os.fsdecode(path)}: there is no environment of pack that could be replaced.",
            "Choose the directory of one, or install it without updating.",
        )
    if os.path.isdir(path) and incomplete.entries(path):
        raise _taken(path)
    return path


def is_replaced(target: bytes, replace: Replace) -> bool:
    """Whether a tree of ours stands at the target that is to be replaced."""
    return replace is not Replace.NO and os.path.lexists(os.path.join(target, manifest.REFERENCES))


class Landing(ABC):
    """A tree on its way: ``tree`` is the empty directory to fill, ``target`` where it goes, ``work`` for the rest.

    ``replacing`` tells whether it takes the place of another.
    """

    def __init__(self, target: bytes, work: bytes, replacing: bool) -> None:
        self.target = target
        self.work = work
        self.tree = os.path.join(work, _TREE)
        self.replacing = replacing
        self._settled = False

    @abstractmethod
    def appear(self, marked: bool = False, gid: int = -1) -> None:
        """Put the tree in its place, on the disk. ``marked``: it counts as incomplete until ``settle``.

        ``gid`` is the group that its root gets, and hands on. Raises OutputError where somebody was faster.
        """

    @abstractmethod
    def _undo(self) -> None:
        """Take the tree away again, if it has appeared, and put back what it replaced."""

    @abstractmethod
    def _is_here(self) -> bool:
        """Whether the tree is at the target."""

    def settle(self) -> None:
        """Declare the installation complete: from here on nothing is taken back."""
        with uninterrupted():
            if not self._is_here():
                raise incomplete.at_work(self.target)  # somebody whom no lock held back
            if os.path.lexists(os.path.join(self.target, manifest.INSTALLING)):
                incomplete.clear(self.target)
            self._settled = True

    def close(self) -> None:
        """Remove what was replaced, if the installation was settled; else take it back."""
        with uninterrupted():
            if self._settled:
                workplace.discard(os.path.join(self.work, OLD))
            else:
                self._undo()


class _Whole(Landing):
    """By one rename, or one exchange."""

    _marker: Marker
    _mine: Optional[Tuple[int, int]] = None  # the root of the tree, once it may have appeared

    def appear(self, marked: bool = False, gid: int = -1) -> None:
        """Put the tree in its place with the owner, mode and ACL of what it replaces, also of an empty directory."""
        with suppress(FileNotFoundError):
            durable.dress(self.tree, self.target)
        if gid >= 0:
            os.chown(self.tree, -1, gid)
            os.chmod(self.tree, stat.S_IMODE(os.lstat(self.tree).st_mode) | stat.S_ISGID)
        before = Before.TREE if self.replacing else Before.EMPTY if os.path.isdir(self.target) else Before.NOTHING
        self._marker = marker(Phase.HERE, self.target, self.work, before)
        if marked or self.replacing:
            incomplete.write(self.tree, self._marker, self.work)
        durable.flush(self.work)
        self._mine = _identity(self.tree)
        with uninterrupted():
            if self.replacing:
                self._supplant()
            else:
                self._move()
        durable.flush_directory(os.path.dirname(self.target))

    def _supplant(self) -> None:
        old = os.path.join(self.work, OLD)
        swap.supplant(self.tree, self.target, old)
        if os.path.lexists(os.path.join(old, manifest.INSTALLING)):  # of somebody whom no lock held back
            swap.put_back(old, self.target, self.tree)
            raise incomplete.at_work(self.target)

    def _move(self) -> None:
        try:
            swap.move(self.tree, self.target)  # replaces nothing but an empty directory
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _taken(self.target) from error
            raise

    def _is_here(self) -> bool:
        return self._mine is not None and _identity(self.target) == self._mine

    def _undo(self) -> None:
        old = workplace.old_in(self.work)
        if self._is_here():
            incomplete.back(self.target, self._marker, self.work)
        elif old is not None and not os.path.lexists(self.target):
            swap.move(old, self.target)


class _Piecewise(Landing):
    """Entry by entry, in a directory that stays what it is."""

    def appear(self, marked: bool = False, gid: int = -1) -> None:
        """Move the entries of the tree in, always under a marker."""
        durable.flush(self.work)
        with uninterrupted():
            self._appear()
        durable.flush_directory(self.target)

    def _appear(self) -> None:
        before = Before.TREE if self.replacing else Before.EMPTY
        here = marker(Phase.OUT, self.target, self.work, before)
        try:
            incomplete.claim(self.target, here, self.work)
        except FileExistsError as error:
            raise incomplete.at_work(self.target) from error
        if self.replacing:
            old = os.path.join(self.work, OLD)
            os.mkdir(old, 0o700)
            for name in incomplete.entries(self.target):
                swap.move(os.path.join(self.target, name), os.path.join(old, name))
        elif incomplete.entries(self.target):
            raise _taken(self.target)
        incomplete.write(self.target, here._replace(phase=Phase.IN), self.work)
        for name in sorted(os.listdir(self.tree)):
            swap.move(os.path.join(self.tree, name), os.path.join(self.target, name))

    def _found(self) -> Optional[Marker]:
        """Return the marker at the target if it is of this landing."""
        found = incomplete.load(self.target)
        return found if found is not None and found.around(self.target) == self.work else None

    def _is_here(self) -> bool:
        return self._found() is not None

    def _undo(self) -> None:
        found = self._found()
        if found is not None:
            incomplete.restore(self.target, found, self.work)


@contextmanager
def opened(target: bytes, script: Optional[bytes] = None, replace: Replace = Replace.NO) -> Iterator[Landing]:
    """Yield a way to ``target``, a result of ``place``. What was not settled when the block ends is taken back.

    ``script`` is the workplace of an installer's script. What killed processes left at the target or beside it is
    cleared first. Raises OutputError where somebody else is at work, or something stands there.
    """
    if script is not None:
        inside = os.path.dirname(script) != os.path.dirname(target)
    else:
        inside = os.path.isdir(target) and (_is_mount_point(target) or not _is_writable(os.path.dirname(target)))
    with workplace.workplace(target, inside, script) as work:
        with held(target):
            incomplete.recover(target, work)
            clear(target, inside, work)
        with held(target):
            if os.path.lexists(os.path.join(target, manifest.INSTALLING)):
                raise incomplete.at_work(target)
            place(target, replace)
            replacing = is_replaced(target, replace)
            if replacing:
                _require_one_file_system(target)
            landing = (_Piecewise if inside else _Whole)(target, work, replacing)
            os.mkdir(landing.tree)  # with the mode that the umask gives
            try:
                yield landing
            finally:
                try:
                    landing.close()
                finally:
                    landing.close()  # a signal may have come before it could begin; there is only one


@contextmanager
def staged(target: bytes) -> Iterator[bytes]:
    """Yield an empty directory which becomes ``target``, a result of ``place``, when the block ends.

    If the block raises, or what it wrote does not reach the disk, nothing stays. The directory around the one
    that is yielded is this process's own, for what is not to stay. Raises OutputError.
    """
    with opened(target) as landing:
        yield landing.tree
        landing.appear()
        landing.settle()


@contextmanager
def held(target: bytes) -> Iterator[None]:
    """Hold the lock of what is at the target: the inode of its root, which has no file of its own to spare."""
    root = -1
    try:
        while os.path.isdir(target):
            with suppress(OSError):
                root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise incomplete.at_work(target) from error
            if root < 0 or _identity(target) == _identity(root):
                break
            os.close(root)  # another has taken its place since
            root = -1
        yield
    finally:
        if root >= 0:
            os.close(root)


def clear(target: bytes, inside: bool, work: bytes) -> None:
    """Remove what killed processes left of their workplaces; ``work`` is this process's own.

    A tree that one of them had taken away and not replaced yet is put back.
    """
    for each in (*workplace.workplaces(target, False), *workplace.workplaces(target, True)):
        if each == work:
            continue
        with workplace.seized(each) as is_left:
            if not is_left:
                continue
            old = workplace.old_in(each)
            if old is not None and not os.path.lexists(target):
                swap.move(old, target)
            elif old is not None and not _is_empty(old) and not is_replaced(target, Replace.YES):
                continue  # something else stands there now: only a person can tell which of the two is wanted
            workplace.remove(each)
    if not inside:
        with suppress(OSError):
            os.rmdir(os.path.join(target, STAGING))


def _identity(path: Union[bytes, int]) -> Optional[Tuple[int, int]]:
    try:
        status = os.stat(path, follow_symlinks=False) if isinstance(path, bytes) else os.fstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_empty(directory: bytes) -> bool:
    return not os.path.islink(directory) and os.path.isdir(directory) and not os.listdir(directory)


def _is_writable(directory: bytes) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


def _mount_points() -> List[bytes]:
    """List the mount points, also those of directories, which the file system's number does not show."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            fields = [line.split(b" ")[4] for line in file]
    except (OSError, IndexError):
        return []
    return [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field) for field in fields]


def _is_mount_point(directory: bytes) -> bool:
    return os.path.ismount(directory) or directory in _mount_points()


def _require_one_file_system(target: bytes) -> None:
    """Raise OutputError where something is mounted in a tree that is to be replaced: it would be emptied with it."""
    for point in _mount_points():
        if point != target and match.within(point, target):
            raise OutputError(
                f"{os.fsdecode(target)}: something is mounted in it, at {os.fsdecode(point)}.",
                "Unmount it for as long as the update takes. Nothing was changed.",
            )


def _taken(path: bytes) -> OutputError:
    names = incomplete.entries(path) or sorted(os.listdir(path)) if os.path.isdir(path) else []
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    shown = ", ".join([*(os.fsdecode(name) for name in names[:_SHOWN]), *more])
    return OutputError(
        f"{os.fsdecode(path)}: exists, and is not an empty directory: {shown or 'it is no directory'}.",
        "Remove it yourself, or choose another one.",
    )
