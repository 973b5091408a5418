"""Writing so that a file changes only as a whole, and so that it survives a power cut.

Locks only save work here: some network file systems have none, and correctness never rests on them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import sys
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, List, Tuple

from installer_stub import match
from installer_stub.errors import TreeReadOnly

_STAGING = b"staging-"
_LOCK_SECONDS = 600.0
_LITTER_SECONDS = 7 * 86_400.0
_SPECIAL_BITS = 0o6000


def require_replaceable(root: bytes, path: bytes, staging: bytes) -> None:
    """Raise TreeReadOnly unless this user can rename a file from ``staging`` to ``path``, which must be in ``root``."""
    directory = os.path.dirname(os.path.join(root, path))
    status = os.stat(directory)
    if not match.within(os.path.realpath(directory), os.path.realpath(root)):
        why = "leads out of it through a symlink"
    elif status.st_dev != os.stat(staging).st_dev:
        why = "is on another file system"
    elif os.access(directory, os.W_OK | os.X_OK) or status.st_uid == os.geteuid():
        return
    else:
        why = "belongs to somebody else and cannot be written"
    raise TreeReadOnly(
        f"{os.fsdecode(root)} cannot be relocated: {os.fsdecode(directory)} {why}. Nothing was changed.",
        "Relocate it as its owner, or unpack a copy of your own.",
    )


@contextmanager
def lock(directory: bytes) -> Iterator[None]:
    """Wait for whoever works in ``directory``, for at most ten minutes; go on without where locks fail."""
    try:
        descriptor = os.open(os.path.join(directory, b"lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break  # no locks on this file system
        yield
    finally:
        os.close(descriptor)


@contextmanager
def staging(root: bytes, directory: bytes) -> Iterator[bytes]:
    """Make a directory of this process's own in ``directory``; remove it, and what killed ones left.

    Raises TreeReadOnly where the tree at ``root``, of which ``directory`` is a part, cannot be written.
    """
    host = os.fsencode(os.uname().nodename)
    for name in os.listdir(directory):
        left = os.path.join(directory, name)
        if name.startswith(_STAGING) and (_is_litter(name, host) or is_old(left)):
            shutil.rmtree(left, ignore_errors=True)
    path = os.path.join(directory, _STAGING + b"%s-%d-%d" % (host, os.getpid(), time.monotonic_ns()))
    try:
        os.mkdir(path, 0o700)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise TreeReadOnly(
            f"{os.fsdecode(root)} cannot be relocated: {os.fsdecode(directory)} cannot be written ({error.strerror}).",
            "Relocate it as its owner where it is writable, or unpack a copy of your own.",
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _is_litter(name: bytes, host: bytes) -> bool:
    parts = name[len(_STAGING) :].rsplit(b"-", 2)
    if len(parts) != 3 or parts[0] != host or not parts[1].isdigit():
        return False
    pid = int(parts[1])
    if pid == os.getpid():
        return True  # in a container every process may get the same number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def is_old(path: bytes) -> bool:
    """Whether nothing can be at work in a directory any more, on whatever host: no relocation takes a week."""
    try:
        return time.time() - os.lstat(path).st_mtime > _LITTER_SECONDS
    except OSError:
        return False  # another process removed it


def replace(staged: bytes, path: bytes) -> List[str]:
    """Put a staged file in the place of ``path``, with its mode and, where allowed, its owner and attributes.

    Returns words for what it lost: a file that cannot have its owner again loses its setuid and setgid bits.
    """
    lost = dress(staged, path)
    _rename(staged, path)
    return lost


def dress(staged: bytes, path: bytes) -> List[str]:
    """Give a new file what belongs to the one at ``path`` beside its bytes; return words for what it lost."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    lost: List[str] = []
    if not _own(staged, (status.st_uid, status.st_gid)) and mode & _SPECIAL_BITS:
        # With another owner they would give away other rights than whoever set them meant to.
        mode &= ~_SPECIAL_BITS
        lost.append("setuid or setgid bit")
    os.chmod(staged, mode)  # behind the owner, whose change takes these bits away
    return lost + _copy_attributes(path, staged)


def _copy_attributes(path: bytes, staged: bytes) -> List[str]:
    """Copy extended attributes, of which an ACL is one; return words for those that this user may not set."""
    if sys.platform != "linux":
        return []  # Python has no functions for them
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []  # a file system without them
    lost: List[str] = []
    for name in names:
        try:
            os.setxattr(staged, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
        except OSError:
            if name == "security.capability":
                lost.append("file capability")
            elif name.startswith(("user.", "system.posix_acl_")):
                lost.append("ACL" if name.startswith("system.") else "extended attribute " + name)
            # The others the system gives to each new file by its own rules.
    return lost


def write(path: bytes, data: bytes, mode: int, staging: bytes) -> None:
    """Write a small file whole, by way of ``staging``."""
    staged = os.path.join(staging, b"write-" + os.path.basename(path))
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(staged)
        raise
    os.chmod(staged, mode)
    _rename(staged, path)
    flush_directory(os.path.dirname(path))


def link(first: bytes, path: bytes, staging: bytes) -> None:
    """Make ``path`` a name of the inode of ``first``, or a copy where there are no hard links."""
    staged = os.path.join(staging, b"link")
    try:
        os.link(first, staged)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copyfile(first, staged)  # the file system has no hard links: unpacking made a file of its own, too
        dress(staged, first)
    _rename(staged, path)
    # Where both are names of one inode, which another process may have seen to, rename does nothing.
    with suppress(FileNotFoundError):
        os.unlink(staged)


def symlink(target: bytes, path: bytes, staging: bytes) -> None:
    """Make ``path`` a symlink to ``target``."""
    staged = os.path.join(staging, b"symlink")
    os.symlink(target, staged)
    _rename(staged, path)


def remove(path: bytes) -> None:
    """Remove a file, unless another process already has."""
    with suppress(FileNotFoundError):
        in_directory(path, lambda: os.unlink(path))


def flush(path: bytes) -> None:
    """Have everything written so far on the disk before going on. Raises OSError where that failed."""
    try:
        import ctypes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        os.sync()  # no ctypes in this Python, or no syncfs in this libc
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor) == 0:
            return
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
        raise OSError(number, os.strerror(number), path)
    os.sync()


def flush_directory(path: bytes) -> None:
    """Have the names in a directory on the disk: a rename is there only when its directory is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems on which directories need no fsync
            raise
    finally:
        os.close(descriptor)


def _rename(staged: bytes, path: bytes) -> None:
    in_directory(path, lambda: os.rename(staged, path))


def in_directory(path: bytes, change: Callable[[], None]) -> None:
    """Change the name ``path`` in its directory, also where its owner has to permit that first."""
    directory = os.path.dirname(path)
    try:
        change()
        return
    except PermissionError:
        mode = stat.S_IMODE(os.stat(directory).st_mode)
        if mode & stat.S_IWUSR:
            raise
    # Packages hold directories without write permission; their owner may lift it for a moment.
    os.chmod(directory, mode | stat.S_IWUSR)
    try:
        change()
    finally:
        os.chmod(directory, mode)


def _own(path: bytes, owner: Tuple[int, int]) -> bool:
    """Give a file its owner and group, or its group at least; return whether it has both."""
    for uid in (owner[0], -1):
        status = os.stat(path)
        if (status.st_uid, status.st_gid) == owner:
            break
        with suppress(PermissionError):  # a file of somebody else in a tree that this user may write
            os.chown(path, uid, owner[1])
    status = os.stat(path)
    return (status.st_uid, status.st_gid) == owner
