"""Renaming what is not simply renamed: read-only directories, and one directory in the place of another."""

from __future__ import annotations

import errno
import os
import platform
import stat
import sys
from contextlib import suppress

_RENAME_EXCHANGE = 2
_NUMBERS = {"x86_64": 316, "aarch64": 276}  # of renameat2; older libcs have no function for it
_AT_FDCWD = -100
# Kernels before 3.15 do not have it, many file systems cannot do it.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def move(path: bytes, to: bytes) -> None:
    """Rename, also a directory that its owner may not write: moving one changes its ``..``."""
    try:
        os.rename(path, to)
        return
    except PermissionError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWUSR:
            raise
    mode = stat.S_IMODE(status.st_mode)
    os.chmod(path, mode | stat.S_IWUSR)
    try:
        os.rename(path, to)
    except BaseException:
        os.chmod(path, mode)
        raise
    os.chmod(to, mode)


def supplant(new: bytes, target: bytes, old: bytes) -> None:
    """Put a directory in the place of ``target``, which goes to ``old``, at one moment where the system can do that.

    ``old`` must be free. Before that moment it is a name of ``new``. Else there is nothing at ``target`` for a
    moment; if what was there cannot be followed, it is put back.
    """
    move(new, old)
    try:
        if _exchanged(old, target):
            return
    except BaseException:
        move(old, new)
        raise
    move(old, new)
    _in_turn(new, target, old)


def put_back(old: bytes, target: bytes, wreck: bytes) -> None:
    """Undo ``supplant``: ``old`` goes to ``target``, and what is there to ``wreck``, which must be free."""
    if _exchanged(old, target):
        move(old, wreck)
    else:
        _in_turn(old, target, wreck)


def _in_turn(new: bytes, target: bytes, old: bytes) -> None:
    move(target, old)
    try:
        move(new, target)
    except BaseException:
        move(old, target)
        raise


def _exchanged(one: bytes, other: bytes) -> bool:
    number = _NUMBERS.get(platform.machine())
    if number is None or sys.maxsize < 1 << 32:  # a 32-bit program on a 64-bit system has other numbers
        return False
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).syscall
    except (ImportError, OSError, AttributeError):
        return False  # no ctypes in this Python
    modes = {path: stat.S_IMODE(os.lstat(path).st_mode) for path in (one, other)}
    for path, mode in modes.items():
        if not mode & stat.S_IWUSR:
            with suppress(OSError):
                os.chmod(path, mode | stat.S_IWUSR)
    failed = call(
        ctypes.c_long(number),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(one),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(other),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    code = ctypes.get_errno()
    ends = {one: other, other: one} if not failed else {one: one, other: other}
    for path, mode in modes.items():
        if not mode & stat.S_IWUSR:
            with suppress(OSError):
                os.chmod(ends[path], mode)
    if failed and code not in _CANNOT:
        raise OSError(code, os.strerror(code), other)
    return not failed
