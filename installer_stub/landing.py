"""Where an environment appears: a directory that is filled beside its place, and renamed into it last.

``.NAME.pack-XXXX`` holds the tree that is being filled, and a lock that lives as long as its process: the
next run on the same target removes what a killed one left, also one on another host that shares the locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import Iterator

from installer_stub import durable
from installer_stub.errors import OutputError

_NAME_MAX = 255  # bytes; of every file system in use
_RANDOM = 8  # characters that mkdtemp adds
_TREE = b"tree"
_LOCK = b"lock"


def place(target: bytes) -> bytes:
    """Return the physical path of a target, which must be free: nothing there, or an empty directory.

    Raises OutputError where something is, or where the directory above is missing.
    """
    path = os.path.realpath(target)
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise OutputError(
            f"{os.fsdecode(path)}: the directory {os.fsdecode(parent)} does not exist.", "Make it, or choose another."
        )
    if os.path.lexists(path):
        if not os.path.isdir(path):
            raise OutputError(f"{os.fsdecode(path)}: exists, and is no directory.", "Choose another directory.")
        if os.listdir(path):
            raise _taken(path)
        if os.path.ismount(path):
            raise OutputError(
                f"{os.fsdecode(path)}: is a mount point, which no complete directory can be renamed to.",
                "Choose a directory in it.",
            )
    return path


@contextmanager
def staged(target: bytes) -> Iterator[bytes]:
    """Yield an empty directory which becomes ``target``, a result of ``place``, when the block ends.

    The directory around it is this process's own, for what is not to stay. If the block raises, or what it
    wrote does not reach the disk, nothing stays. Raises OutputError where somebody was faster.
    """
    _clear(target)
    around, lock = _made(target)
    try:
        tree = os.path.join(around, _TREE)
        os.mkdir(tree)  # with the mode that the umask gives
        yield tree
        _dress(tree, target)
        durable.flush(around)
        _appear(tree, target)
    finally:
        discard(around)
        if lock >= 0:
            os.close(lock)


def _dress(tree: bytes, target: bytes) -> None:
    with suppress(FileNotFoundError):
        durable.dress(tree, target)


def _appear(tree: bytes, target: bytes) -> None:
    try:
        os.rename(tree, target)  # replaces nothing but an empty directory
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(target) from error
        raise
    try:
        durable.flush_directory(os.path.dirname(target))
    except BaseException:
        os.rename(target, tree)
        raise


def _taken(path: bytes) -> OutputError:
    return OutputError(
        f"{os.fsdecode(path)}: exists, and is not an empty directory.", "Remove it yourself, or choose another one."
    )


def _beginning(target: bytes) -> bytes:
    ours = b".%s.pack-"
    return ours % os.path.basename(target)[: _NAME_MAX - len(ours) - _RANDOM]


def _made(target: bytes) -> tuple[bytes, int]:
    """Make a directory of this process's own and lock it; -1 stands for no lock on such a file system."""
    while True:
        around = tempfile.mkdtemp(prefix=_beginning(target), dir=os.path.dirname(target))
        try:
            lock = os.open(os.path.join(around, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue  # another run takes it for left behind, and removes it
            except OSError:
                os.close(lock)
                return around, -1
            if os.path.isdir(around):
                return around, lock
            os.close(lock)
        except FileNotFoundError:
            continue
        except BaseException:
            discard(around)
            raise


def _clear(target: bytes) -> None:
    """Remove what killed runs left beside a target: whoever lives holds its lock."""
    parent, beginning = os.path.dirname(target), _beginning(target)
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(beginning) and len(name) == len(beginning) + _RANDOM and _is_left(path):
            discard(path)


def _is_left(path: bytes) -> bool:
    try:
        status = os.lstat(path)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            return False
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return durable.is_old(path)  # not locked yet, or killed before it was
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return durable.is_old(path)
    finally:
        os.close(lock)


def discard(path: bytes) -> None:
    """Remove a directory and what is in it, also below directories without write permission."""
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.isdir(path):
        return
    for directory, names, _ in os.walk(path):
        for each in (os.path.join(directory, name) for name in names):
            if not os.path.islink(each):
                with suppress(OSError):
                    os.chmod(each, stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)
