"""A directory of this process's own beside a target, and what killed processes left of theirs.

``.NAME.pack-XXXXXXXX`` holds what is not complete yet, and a lock that lives as long as its process: the next
run on the same target removes what a killed one left, also one on another host that shares the locks. Where a
target's directory cannot take it, it is ``.pack-staging/XXXXXXXX`` in the target.

An installer's script makes one of the same name for its program, which it removes whatever became of that: nothing
is kept there. Its ``owner``, a line of host and process, says whether it lives before there is anybody to lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import Iterator, List, Optional, Tuple

from installer_stub import durable
from installer_stub.errors import OutputError
from installer_stub.manifest import INSTALLING

_NAME_MAX = 255  # bytes; of every file system in use
_RANDOM = 8  # characters that mkdtemp adds
_OURS = b".%s.pack-"
_MOST = _NAME_MAX - len(_OURS % b"") - _RANDOM  # bytes of a target's name
_LOCK = b"lock"  # holds the target's name
_OWNER = b"owner"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OLD = b"old"  # in a workplace: what is being replaced
_GONE = b"gone"
STAGING = b".pack-staging"  # in a target


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until the block ends: what is done in it and what is remembered of it must agree."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def workplace(target: bytes, inside: bool, script: Optional[bytes] = None) -> Iterator[bytes]:
    """Yield a locked directory for work on ``target``, which is empty, and gone when the block ends.

    It lies in the target if ``inside``, else beside it. If a tree that was being replaced is still in it then, it
    stays for whoever comes next. ``script`` is the one of an installer's script, which nobody takes for left behind
    as long as the block runs. Raises OutputError where somebody else's directory is in the way.
    """
    locks: List[int] = []
    around = b""
    try:
        if script is not None:
            with suppress(BlockingIOError):  # somebody looks at this moment whether it is left behind
                locks.append(_locked(script))
        with uninterrupted():
            around, lock = _made(target, inside)
            locks.append(lock)
        yield around
    finally:
        with uninterrupted():
            if around and old_in(around) is None:
                remove(around)
            for each in locks:
                if each >= 0:
                    os.close(each)
            staging = os.path.join(target, STAGING)
            with suppress(OSError):
                if inside and _is_own(os.lstat(staging)):
                    os.rmdir(staging)  # unless somebody else works there


def workplaces(target: bytes, inside: bool) -> List[bytes]:
    """List the workplaces for ``target``, of living processes and of killed ones."""
    parent = os.path.join(target, STAGING) if inside else os.path.dirname(target)
    beginning = b"" if inside else _beginning(target)
    try:
        names = os.listdir(parent) if not inside or _is_own(os.lstat(parent)) else []
    except OSError:
        return []
    paths = [
        os.path.join(parent, name)
        for name in sorted(names)
        if name.startswith(beginning) and len(name) == len(beginning) + _RANDOM
    ]
    name = os.path.basename(target)
    # Names that begin alike for so long are told apart by what the lock says.
    return paths if inside or len(name) < _MOST else [path for path in paths if _named_in(path) in (name, b"")]


def old_in(around: bytes) -> Optional[bytes]:
    """Return the tree that was being replaced, if one lies in a workplace. One with a marker is a new one."""
    path = os.path.join(around, OLD)
    return path if os.path.lexists(path) and not os.path.lexists(os.path.join(path, INSTALLING)) else None


@contextmanager
def seized(around: bytes) -> Iterator[bool]:
    """Tell whether nobody works in a workplace any more: by its lock or its owner; where neither tells, after a week.

    If so, it is this process's until the block ends, and nobody else is told the same.
    """
    is_left, lock = _seize(around)
    try:
        yield is_left
    finally:
        if lock >= 0:
            os.close(lock)


def _seize(around: bytes) -> Tuple[bool, int]:
    try:
        if not _is_own(os.lstat(around)):
            return False, -1
        lock = os.open(os.path.join(around, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return not os.path.lexists(around) or _is_owner_gone(around), -1
    except OSError:
        return durable.is_old(around), -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its program ended, or has not come to locking yet: the script may live all the same.
        if _is_alive(around) is not True or durable.is_old(around):
            return True, lock
    except BlockingIOError:
        pass
    except OSError:
        os.close(lock)
        return durable.is_old(around), -1
    os.close(lock)
    return False, -1


def _is_owner_gone(around: bytes) -> bool:
    """Whether the script that made a workplace, and started nothing yet, has ended."""
    if not os.path.lexists(os.path.join(around, _OWNER)):
        # Made a moment ago, or left by a process that was killed right then: only one that is empty goes.
        with suppress(OSError):
            os.rmdir(around)
    return _is_alive(around) is False or durable.is_old(around)


def _is_alive(around: bytes) -> Optional[bool]:
    """Whether the script that made a workplace lives; None where nobody here can tell."""
    try:
        with open(os.path.join(around, _OWNER), "rb") as file:
            host, _, number = file.read(1000).strip().rpartition(b" ")
        if host != os.fsencode(os.uname().nodename) or not number.isdigit():
            return None
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return None
    return True


def _beginning(target: bytes) -> bytes:
    return _OURS % os.path.basename(target)[:_MOST]


def _named_in(around: bytes) -> bytes:
    """Read the name of the target that a workplace is for; nothing where it does not say."""
    try:
        with open(os.path.join(around, _LOCK), "rb") as file:
            return file.read(_NAME_MAX)
    except OSError:
        return b""


def _is_own(status: os.stat_result) -> bool:
    """Whether that is of a directory, and no symlink to one, and this user's."""
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _make_staging(path: bytes) -> None:
    """Make the directory for workplaces in a target. In one that others may write, nothing is safe from them."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    with suppress(FileNotFoundError):  # whoever worked there has just left
        if not _is_own(os.lstat(path)):
            raise OutputError(
                f"{os.fsdecode(path)}: is somebody else's, or no directory.",
                "Another user may be installing there. If nobody is, remove it.",
            )


def _made(target: bytes, inside: bool) -> Tuple[bytes, int]:
    """Make a directory of this process's own and lock it; -1 stands for no lock on such a file system."""
    parent = os.path.join(target, STAGING) if inside else os.path.dirname(target)
    while True:
        if inside:
            _make_staging(parent)
        try:
            around = tempfile.mkdtemp(prefix=b"" if inside else _beginning(target), dir=parent)
        except FileNotFoundError:
            if inside:
                continue  # whoever worked there has just left
            raise
        try:
            lock = _locked(around, os.path.basename(target))
            if os.path.isdir(around):
                return around, lock
            if lock >= 0:
                os.close(lock)
        except (BlockingIOError, FileNotFoundError):
            continue  # another run took it for left behind, and removes it
        except BaseException:
            discard(around)
            raise


def _locked(around: bytes, name: bytes = b"") -> int:
    """Lock a workplace; -1 stands for no lock on such a file system. Raises BlockingIOError where it is locked."""
    lock = os.open(os.path.join(around, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if name:
            with suppress(OSError):  # the disk is full
                os.write(lock, name)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError:
        os.close(lock)
        raise
    except OSError:
        os.close(lock)
        return -1


def remove(around: bytes) -> None:
    """Remove a workplace. Half of it must not look as if it held a tree that was replaced."""
    old = os.path.join(around, OLD)
    if os.path.lexists(old):
        with suppress(OSError):
            os.rename(old, os.path.join(around, _GONE))
    # What tells that it was left goes last: the next run may have to go on with this.
    with suppress(OSError):
        for name in os.listdir(around):
            path = os.path.join(around, name)
            if name not in (_LOCK, _OWNER):
                discard(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    discard(around)


def discard(path: bytes) -> None:
    """Remove a directory and what is in it, also below directories without write permission."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.islink(path) or not os.path.isdir(path):
        return
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
    for directory, names, _ in os.walk(path):
        for each in (os.path.join(directory, name) for name in names):
            if not os.path.islink(each):
                with suppress(OSError):
                    os.chmod(each, stat.S_IRWXU)
    shutil.rmtree(path, ignore_errors=True)
