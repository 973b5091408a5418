"""Writing to a descriptor, and what the system says of a write that failed, in words."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Iterator, Union

from installer_stub.errors import OutputError

Where = Union[str, bytes, "os.PathLike[str]"]

_WORDS = {
    errno.ENOSPC: ("the disk is full", "Free some space there, or choose an output on another disk."),
    errno.EDQUOT: (
        "your disk quota is used up",
        "Free some space there, or choose an output on another disk.",
    ),
    errno.EFBIG: (
        "the file is larger than the file system or the file size limit (ulimit -f) allows",
        "Raise the limit, compress more, or choose an output on another disk.",
    ),
    errno.EIO: ("the disk reports an input/output error", "The disk or its connection may be failing."),
    errno.EROFS: ("the file system is read-only", "Choose an output elsewhere."),
    errno.EACCES: ("no permission to write there", "Choose an output in a directory that is yours."),
    errno.EPERM: ("no permission to write there", "Choose an output in a directory that is yours."),
    errno.EBUSY: ("something is mounted there, or it is in use", "Choose a directory in it, or another one."),
    errno.EXDEV: (
        "something there is on another file system, or in a lower layer of an overlay, and cannot be moved",
        "Choose another directory, or remove what is there yourself.",
    ),
    errno.EPIPE: ("the program that reads the output has stopped reading", ""),
    errno.EEXIST: (
        "something of this name appeared or exists already",
        "Names may differ only in case: choose an output on a file system that tells them apart.",
    ),
}


def write_all(descriptor: int, data: Union[bytes, bytearray, memoryview]) -> None:
    """Write all of ``data``; a write to a pipe or a nearly full disk may take a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def begin_to_store(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Have the system begin to store what was written, ``length`` bytes of it or, with 0, all behind ``offset``.

    Else it begins when it is asked to flush the file, and only then the disk works. What ``posix_fadvise`` says is that
    nobody needs the pages: Linux writes them out for that, and keeps those that it is still writing.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with contextlib.suppress(OSError):  # a pipe, or a file system that takes no advice
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def output_error(error: OSError, path: Where) -> OutputError:
    """Return what the system said about a write, in words, with what to do about it."""
    what, tip = _WORDS.get(error.errno or 0, (error.strerror or str(error), ""))
    return OutputError(f"{os.fsdecode(path)}: cannot be written: {what}", tip)


@contextlib.contextmanager
def writing(path: Where) -> Iterator[None]:
    """Turn an `OSError` of the block into the `OutputError` for ``path``."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error
