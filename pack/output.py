"""The output of a run: it appears complete under its name, or not at all.

It is written under a unique partial name beside the final one, so that the last step is a rename on one
file system. The partial is removed on every exception; a program that is to clean up on a signal turns it
into one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from installer_stub.errors import OutputError, UsageError
from installer_stub.writing import begin_to_store, output_error, write_all, writing

__all__ = ["DirectoryOutput", "Output", "Stream", "output_error", "standard_output", "write_all", "writing"]

_BUFFER = 1 << 20
_MOST_PIECES = 1000  # the system takes 1,024 at once
_STRIDE = 8 << 20  # bytes that the system is told to store at once
_NAME_MAX = 255  # bytes; of every file system in use

# Some network and FUSE file systems have no fsync; there is nothing better to do there.
_NO_FSYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class Stream:
    """A buffered stream to a file descriptor, which it never closes. Its errors are `OutputError`."""

    def __init__(self, file: int, name: str) -> None:
        self._file = file
        self._name = name
        self._pieces: list[bytes] = []  # that wait until they are enough
        self._waiting = 0  # bytes of them
        self._stored = 0  # bytes that the system was told to store
        self.written = 0

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""
        self.written += len(data)
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= _BUFFER or len(self._pieces) >= _MOST_PIECES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand what waits to the system."""
        pieces, waiting = self._pieces, self._waiting
        self._pieces, self._waiting = [], 0
        if not waiting:
            return
        with writing(self._name):
            written = os.writev(self._file, pieces)  # uncopied
            if written < waiting:
                write_all(self._file, b"".join(pieces)[written:])
        fresh = self.written - self._stored
        if fresh >= _STRIDE:
            begin_to_store(self._file, self._stored, fresh)
            self._stored = self.written


class _Partial(ABC):
    """What a file and a directory output share: the checks, the unique name, the removal."""

    def __init__(self, path: Path, force: bool) -> None:
        self.path = path
        self.partial = _partial_beside(path)
        self._force = force

    def check(self) -> None:
        """Raise `OutputError` where the output cannot be written, as far as that shows without writing."""
        self._check()
        parent = self.path.parent
        if not self._force and not parent.exists():
            raise OutputError(
                f"{self.path}: the directory {parent} does not exist",
                tip="Make it, or use --force to have it made.",
            )
        if parent.exists() and not parent.is_dir():
            raise OutputError(f"{self.path}: {parent} is not a directory")

    @abstractmethod
    def _check(self) -> None:
        """Raise `OutputError` for what stands under the name, if it may not be replaced."""

    def _prepare(self) -> None:
        self.check()
        if self._force:
            with writing(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        # A signal's exception may arrive where no "with" holds yet, or any more.
        atexit.register(self._remove)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._remove()
            atexit.unregister(self._remove)

    @abstractmethod
    def _finish(self) -> None:
        """Make what was written durable, and give it its name."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove what was written under the partial name."""

    def _exists(self) -> OutputError:
        return OutputError(f"{self.path}: exists already", tip="Choose another output, or use --force to replace it.")


class Output(_Partial):
    """A file that appears whole or not at all.

    ``with Output(path, force) as stream:`` yields a `Stream`; leaving the block without an exception makes
    the file durable and gives it its name. Without ``force`` an existing file is never replaced, not even one
    that appeared meanwhile; with it a missing parent directory is made, too. ``mode`` is subject to the umask.
    ``partial`` is the path under which it is written: a scan leaves it and ``path`` out.
    Raises `OutputError`.
    """

    def __init__(self, path: Path, force: bool, mode: int = 0o666) -> None:
        super().__init__(path, force)
        self._mode = mode
        self._file = -1
        self._stream: Stream | None = None

    def __enter__(self) -> Stream:
        self._prepare()
        try:
            with writing(self.path):
                self._file = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
            self._stream = Stream(self._file, str(self.path))
        except BaseException:  # a signal's exception may arrive between the two lines
            self._remove()
            raise
        return self._stream

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a directory", tip="Name a file in it, or use --format no-archive.")
        if not self._force:
            raise self._exists()
        # Replacing a device, a pipe or the link to one, such as /dev/stdout, breaks it for everybody.
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise OutputError(f"{self.path}: is not a regular file", tip="Use -o - and redirect the output to it.")

    def _finish(self) -> None:
        assert self._stream is not None
        self._stream.flush()
        with writing(self.path):
            _sync(self._file)
            file, self._file = self._file, -1
            os.close(file)  # some file systems report a full disk only here
            if self._force:
                os.replace(self.partial, self.path)
            else:
                self._name_it()
            _sync_directory(self.path.parent)

    def _name_it(self) -> None:
        try:
            os.link(self.partial, self.path)
        except FileExistsError:
            # NFS may answer so to a repeated request whose first answer was lost.
            if not os.path.samestat(os.lstat(self.partial), os.lstat(self.path)):
                raise self._exists() from None
        except OSError:
            # No hard links here (FAT, some FUSE). A file that appears between these two lines is lost.
            if os.path.lexists(self.path):
                raise self._exists() from None
            os.rename(self.partial, self.path)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.partial)
        if self._file >= 0:
            file, self._file = self._file, -1
            with contextlib.suppress(OSError):
                os.close(file)


class DirectoryOutput(_Partial):
    """A directory that appears whole or not at all.

    ``with DirectoryOutput(path, force) as directory:`` yields the path of an empty directory to fill. With
    ``force`` an existing empty directory is replaced; anything else that exists is refused: a tree that may
    hold somebody's work is not removed on the way to another. Raises `OutputError`.
    """

    def __enter__(self) -> Path:
        self._prepare()
        try:
            with writing(self.path):
                self.partial.mkdir()
        except BaseException:
            self._remove()
            raise
        return self.partial

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self._force:
            raise OutputError(
                f"{self.path}: exists already",
                tip="Choose another output. --force replaces an empty directory, and nothing else.",
            )
        with writing(self.path):
            if self.path.is_symlink() or not self.path.is_dir() or any(self.path.iterdir()):
                raise self._refused()

    def _refused(self) -> OutputError:
        return OutputError(
            f"{self.path}: exists and is not an empty directory; it is not replaced, even with --force",
            tip="Remove it yourself, or choose another output.",
        )

    def _finish(self) -> None:
        with writing(self.path):
            _sync_file_system(self.partial)
            if not self._force and os.path.lexists(self.path):
                raise self._exists()
            try:
                # Replaces nothing but an empty directory, whatever appeared meanwhile.
                os.rename(self.partial, self.path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise self._refused() from error
                raise
            _sync_directory(self.path.parent)

    def _remove(self) -> None:
        if not os.path.lexists(self.partial):
            return
        with contextlib.suppress(OSError):
            self.partial.chmod(0o700)
        # Top down: what is archived as read-only or unreadable must be entered to be removed.
        for directory, below, _ in os.walk(self.partial):
            for path in (Path(directory, name) for name in below):
                with contextlib.suppress(OSError):
                    if not path.is_symlink():  # chmod would follow it, out of the tree
                        path.chmod(0o700)
        shutil.rmtree(self.partial, ignore_errors=True)


@contextlib.contextmanager
def standard_output() -> Iterator[Stream]:
    """Yield a `Stream` to the standard output.

    Raises `UsageError` when it is a terminal, `OutputError` when its reader stops reading.
    """
    if os.isatty(1):
        raise UsageError("-o -: the standard output is a terminal", tip="Redirect it to a file or a program.")
    stream = Stream(1, "standard output")
    yield stream
    stream.flush()


def _partial_beside(path: Path) -> Path:
    suffix = f".{os.getpid()}-{secrets.token_hex(4)}.partial"
    name = os.fsencode(path.name)[: _NAME_MAX - len(suffix)]
    return path.parent / (os.fsdecode(name) + suffix)


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise


def _sync_directory(directory: Path) -> None:
    # The output has its name: what fails here cannot be undone, and no reader would be better off.
    with contextlib.suppress(OSError):
        file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _sync_file_system(directory: Path) -> None:
    """Make a tree durable with one call: an fsync for each of 60,000 files takes minutes on a hard disk."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(file) != 0 and ctypes.get_errno() not in _NO_FSYNC:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(file)
