"""The tree of a prefix, path by path."""

from __future__ import annotations

import os
import stat
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from installer_stub.model import Kind


class Found(NamedTuple):
    """A path as it stands on disk. ``kind`` is None for what no archive holds; ``special`` says what that is.

    ``target`` is the text of a symlink; of a hard link, the path of the first name of its inode. ``ctime_ns`` and
    ``inode`` change when a file is changed in a way that leaves its size and its time.
    ``error`` says why the path could not be read, else it is empty.
    """

    path: bytes
    kind: Optional[Kind]
    mode: int
    size: int
    mtime_ns: int
    target: bytes = b""
    error: str = ""
    special: str = ""
    ctime_ns: int = 0
    inode: int = 0


_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def walk(prefix: bytes, skip: Callable[[bytes], bool] = lambda path: False) -> Iterator[Found]:
    """Yield everything below ``prefix``: each directory, then what is in it, names in byte order.

    Symlinks are never followed. ``skip(path)`` leaves a path out, and all that is below it.
    """
    first_names: Dict[Tuple[int, int], bytes] = {}
    pending = _names(prefix, b"")
    if isinstance(pending, OSError):
        yield Found(b"", Kind.DIRECTORY, 0, 0, 0, error=_reason(pending))
        return
    while pending:
        path = pending.pop()
        if skip(path):
            continue
        found = look(prefix, path, first_names)
        if found.kind is Kind.DIRECTORY:
            below = _names(prefix, path)
            if isinstance(below, OSError):
                found = found._replace(error=_reason(below))
            else:
                pending += below
        yield found


def _names(prefix: bytes, path: bytes) -> Union[List[bytes], OSError]:
    """List the paths in a directory, the last first, or say why that cannot be done."""
    try:
        names = os.listdir(os.path.join(prefix, path))
    except OSError as error:
        return error
    start = path + b"/" if path else b""
    return [start + name for name in sorted(names, reverse=True)]


def look(prefix: bytes, path: bytes, first_names: Optional[Dict[Tuple[int, int], bytes]] = None) -> Found:
    """Describe one path, without following it if it is a symlink.

    ``first_names`` maps the inodes seen so far, as (device, number), to the path of their first name.
    """
    full = prefix + b"/" + path
    try:
        status = os.lstat(full)
        type_ = stat.S_IFMT(status.st_mode)
        kind = _KINDS.get(type_)
        target = os.readlink(full) if kind is Kind.SYMLINK else b""
    except OSError as error:
        return Found(path, None, 0, 0, 0, error=_reason(error))
    size = status.st_size if kind is Kind.FILE else 0
    if kind is Kind.FILE and status.st_nlink > 1 and first_names is not None:
        first = first_names.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            kind, size, target = Kind.HARD_LINK, 0, first
    special = "" if kind else _SPECIAL.get(type_, "of an unknown kind")
    mode, changed = stat.S_IMODE(status.st_mode), status.st_ctime_ns
    return Found(path, kind, mode, size, status.st_mtime_ns, target, "", special, changed, status.st_ino)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
