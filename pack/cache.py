"""What packing keeps for the next time: compressed pieces of archives, and what scans found.

Everything is named by what decides it, so nothing in it is ever out of date, and what is missing or damaged is made
again. Whoever can write here decides what is packed: so it belongs to the user alone. ``docs/cache.md`` says more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, NamedTuple

from installer_stub.errors import PackError, UsageError
from pack.compress import Block, checksum
from pack.stub import store

LIMIT = 5 << 30
"""The bytes that are kept unless told otherwise."""

_SPARE = 2 << 30  # bytes that are left free on the cache's file system: the output may lie there, too
_ABANDONED = 24 * 3600  # seconds after which nobody writes to a partial file any more
_PIECES, _SCANS, _LIMIT = "pieces", "scans", "limit"
_PARTIAL = ".partial"
_MAGIC = b"piece 1\n"
_HELD = 2 << 20  # bytes of a piece that is checked and held; of larger ones no more than a block is
_HEAD = struct.Struct("<IHI")  # of a block: the lengths of its data and its note, the CRC of both


def default() -> Path | None:
    """Return the directory of the cache where none is named; None where there is no home for it. It need not exist."""
    ours = store.cache()
    return ours / "packing" if ours.parent.parent.is_dir() else None


class Contents(NamedTuple):
    """What a cache holds: numbers of files, and bytes."""

    pieces: int
    scans: int
    size: int


class Cache:
    """A directory of compressed pieces and scans. ``trouble`` says why it was given up, if it was.

    Nothing that goes wrong in it ends a packing: what cannot be kept is not, and what cannot be read is made again.
    """

    def __init__(self, directory: Path) -> None:
        """Open a cache, or make one. Raises UsageError where it cannot be, or others may write to it."""
        try:
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            status = directory.stat()
        except OSError as error:
            raise _unusable(directory, error.strerror or str(error)) from error
        if status.st_uid != os.geteuid():
            raise _unusable(directory, "it belongs to somebody else, who could decide what is packed")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _unusable(directory, "others may write to it, and could decide what is packed")
        self.directory = directory
        self.limit = _limit(directory)
        self.trouble = ""
        self._kept = 0

    def find(self, key: bytes, /) -> Iterator[Block] | None:
        """Return the blocks of a piece, or None where there is none that is sound."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._piece(key).open("rb", buffering=0))
                os.utime(file.fileno())
                size = os.fstat(file.fileno()).st_size
                if size <= _HELD:
                    held = os.pread(file.fileno(), size, 0)
                    return iter(list(_blocks(lambda length, at: held[at : at + length])))
                for _ in _blocks(functools.partial(os.pread, file.fileno())):
                    pass
            except (OSError, _Damaged):
                return None
            stack.pop_all()
            return _once_more(file)

    def keep(self, key: bytes, /) -> Piece | None:
        """Return what takes the blocks of a piece, or None where no more is kept."""
        if self.trouble or self._kept >= self.limit:
            return None
        try:
            space = os.statvfs(self.directory)
            if space.f_bavail * space.f_frsize < _SPARE:
                self.trouble = f"{self.directory}: fewer than {_SPARE / 1e9:.1f} GB are free there: no more is kept"
                return None
            path = self._piece(key)
            path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            partial = _partial(path)
            return Piece(self, path, partial, partial.open("xb"))
        except OSError as error:
            self.give_up(error)
            return None

    def load(self, name: str) -> bytes | None:
        """Return what was saved of a scan, or None where that is missing or damaged."""
        path = self.directory / _SCANS / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, content = data[:32], data[32:]
        return content if hashlib.sha256(content).digest() == digest else None

    def save(self, name: str, content: bytes) -> None:
        """Keep something of a scan under a name."""
        if self.trouble or not self.limit:
            return
        try:
            path = self.directory / _SCANS / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _put(path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            self.give_up(error)

    def tidy(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        files = sorted(self._files(), key=lambda each: each[1].st_mtime_ns)
        size = sum(status.st_size for _, status in files)
        for path, status in files:
            abandoned = path.name.endswith(_PARTIAL) and status.st_mtime < time.time() - _ABANDONED
            if size > self.limit or abandoned:
                with contextlib.suppress(OSError):
                    path.unlink()
                    size -= status.st_size

    def contents(self) -> Contents:
        """Measure what is kept."""
        files = [(path, status) for path, status in self._files() if not path.name.endswith(_PARTIAL)]
        scans = sum(path.parent.name == _SCANS for path, _ in files)
        return Contents(len(files) - scans, scans, sum(status.st_size for _, status in files))

    def clear(self) -> None:
        """Remove all that is kept. Raises UsageError where that fails."""
        try:
            for name in (_PIECES, _SCANS):
                if (self.directory / name).exists():
                    shutil.rmtree(self.directory / name)
        except OSError as error:
            raise _unusable(self.directory, error.strerror or str(error)) from error

    def set_limit(self, limit: int) -> None:
        """Keep at most ``limit`` bytes from now on. Raises UsageError where that cannot be written down."""
        try:
            _put(self.directory / _LIMIT, b"%d\n" % limit)
        except OSError as error:
            raise _unusable(self.directory, error.strerror or str(error)) from error
        self.limit = limit
        self.tidy()

    def give_up(self, error: OSError) -> None:
        """Keep nothing more in this run, and say why."""
        self.trouble = f"{self.directory}: {error.strerror or error}: no more is kept there"

    def count(self, size: int) -> None:
        """Count bytes that were kept."""
        self._kept += size

    def _piece(self, key: bytes) -> Path:
        name = key.hex()
        return self.directory / _PIECES / name[:2] / name

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for pattern in (f"{_SCANS}/*", f"{_PIECES}/*/*"):
            for path in self.directory.glob(pattern):
                with contextlib.suppress(OSError):
                    yield path, path.stat()


class Piece:
    """A piece that is being kept: it appears in the cache whole or not at all."""

    def __init__(self, cache: Cache, path: Path, partial: Path, file: BinaryIO) -> None:
        self._cache = cache
        self._path = path
        self._partial = partial
        self._file = file
        self._number = 0
        self._file.write(_MAGIC)

    def add(self, block: Block, /) -> None:
        """Take the next block."""
        if self._file.closed:
            return
        try:
            self._file.write(_HEAD.pack(len(block.data), len(block.note), checksum(block.data, checksum(block.note))))
            self._file.write(block.note)
            self._file.write(block.data)
            self._number += 1
        except OSError as error:
            self._give_up(error)

    def done(self) -> None:
        """Give the piece its name."""
        if self._file.closed:
            return
        try:
            self._file.write(_HEAD.pack(0, 0, self._number))
            self._cache.count(self._file.tell())
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._cache.give_up(error)
        with contextlib.suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __del__(self) -> None:
        if not self._file.closed:  # the packing broke off
            self._file.close()
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)


class _Damaged(PackError):
    """A piece is not what was written. Nobody hears of it but where one changes while it is read."""

    def __init__(self) -> None:
        super().__init__("a piece in the cache changed while it was read.", "Pack again with --no-cache.")


def _once_more(file: RawIOBase | BinaryIO) -> Iterator[Block]:
    """Read the blocks of a large piece one by one, and close it behind the last. Raises _Damaged."""
    with file:
        yield from _blocks(functools.partial(os.pread, file.fileno()))


def _blocks(read: Callable[[int, int], bytes]) -> Iterator[Block]:
    """Read the blocks of a piece, to its end; ``read`` is given a length and an offset. Raises _Damaged."""
    at = len(_MAGIC)
    if read(at, 0) != _MAGIC:
        raise _Damaged
    count = 0
    while True:
        head = read(_HEAD.size, at)
        if len(head) < _HEAD.size:
            raise _Damaged
        length, noted, crc = _HEAD.unpack(head)
        if not noted:
            if (length, crc) != (0, count):
                raise _Damaged
            return
        at += len(head)
        note, data = read(noted, at), read(length, at + noted)
        if len(data) < length or checksum(data, checksum(note)) != crc:
            raise _Damaged
        at += noted + length
        count += 1
        yield Block(data, note)


def _put(path: Path, content: bytes) -> None:
    """Write a file, which appears whole or not at all."""
    partial = _partial(path)
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")


def _limit(directory: Path) -> int:
    """Read how much is kept. What cannot be read counts for nothing: then it is the default."""
    try:
        return int((directory / _LIMIT).read_text())
    except (OSError, ValueError):
        return LIMIT


def _unusable(directory: Path, why: str) -> UsageError:
    return UsageError(
        f"{directory}: cannot be the cache: {why}.",
        "Name a directory of yours with --cache DIR, or pack with --no-cache.",
    )
