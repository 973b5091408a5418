"""An installer as its own program reads it: the script held against its hash, the payload hashed as it passes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zlib
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, Type

from installer_stub import expand, trailer
from installer_stub.errors import NoRelocator, PackError
from installer_stub.expand import Make
from installer_stub.tarstream import ArchiveDamaged
from installer_stub.trailer import Section, Trailer

BEGIN = b"#!/bin/sh\n{ : pack-installer 1\n"  # of every installer

_PIECE = 1 << 18
_APART = 4 << 20  # bytes from which a second process is worth its start
_SAID = re.compile(rb"[0-9a-f]{64}[ \n]")


class Payload:
    """The archive in an installer. ``read`` gives its tar stream; ``finish`` tells whether its bytes were right.

    ``expanded`` is where the host's tools give the same stream, of bytes that they have checked, or None.
    """

    def __init__(self, path: bytes, jobs: int, expanded: Optional[int] = None) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._hash: Optional[_Hash] = None
        try:
            self._parts = self._checked()
            self._left = self._parts.payload.length
            self.is_checked = expanded is None  # whether all bytes that ``read`` gives are hashed as a whole
            if expanded is None:
                self._hash = _Hash(jobs > 1 and self._left > _APART)
                os.lseek(self._file, self._parts.payload.offset, os.SEEK_SET)
                self.read = expand.expanded(self._take, *_engines())
            else:
                self.read = self._from_host(expanded)
        except BaseException:
            self.close()
            raise

    def _checked(self) -> Trailer:
        """Read the trailer, and hold the header against it: it ran before anything could."""
        size = os.fstat(self._file).st_size
        parts = trailer.load(os.pread(self._file, trailer.SIZE, max(0, size - trailer.SIZE)), size)
        if self._sha256(parts.header) != parts.header.sha256:
            raise _damaged("its first part, the script, has other bytes than it was made with")
        return parts

    def _sha256(self, part: Section) -> str:
        hasher = hashlib.sha256()
        for at in range(part.offset, part.offset + part.length, _PIECE):
            hasher.update(os.pread(self._file, min(_PIECE, part.offset + part.length - at), at))
        return hasher.hexdigest()

    def _take(self, count: int) -> bytes:
        try:
            piece = os.read(self._file, min(count, self._left))
        except OSError as error:  # not to be taken for an error of what is written
            raise _unreadable(self._path, error) from error
        if not piece and self._left:
            raise _damaged("it became shorter while it was read")
        self._left -= len(piece)
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def _from_host(self, descriptor: int) -> Callable[[int], bytes]:
        def read(count: int) -> bytes:
            try:
                return os.read(descriptor, count)
            except OSError as error:
                raise _unreadable(self._path, error) from error

        return read

    def require_whole(self) -> None:
        """Read on to the end, and do what ``finish`` does: damage is to be called that, whatever it looked like."""
        if self._hash is not None:
            while self._take(_PIECE):
                pass
        self.finish()

    def finish(self) -> None:
        """Raise ArchiveDamaged unless the payload, which must have been read to its end, has the right SHA-256."""
        if self._hash is not None and (self._left or self._hash.digest() != self._parts.payload.sha256):
            raise _damaged("its payload has other bytes than it was made with")

    def close(self) -> None:
        """Close the file, and end what hashes it."""
        os.close(self._file)
        if self._hash is not None:
            self._hash.close()


@contextmanager
def opened(path: bytes, jobs: int, expanded: Optional[int] = None) -> Iterator[Payload]:
    """Open an installer whose program this is. Raises ArchiveDamaged, and PackError where it cannot be read.

    ``jobs`` is how many processors may be used; ``expanded`` the descriptor of a stream that the host expands.
    """
    try:
        payload = Payload(path, jobs, expanded)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        yield payload
    finally:
        payload.close()


class _Hash:
    """The SHA-256 of what passes. ``apart``: by the system's sha256sum, which works beside this process."""

    def __init__(self, apart: bool) -> None:
        self._here = hashlib.sha256()
        self._there: Optional[subprocess.Popen[bytes]] = None
        program = shutil.which("sha256sum") if apart else None
        if program is not None:
            # Without OpenSSL, as in the frozen program, Python hashes 200 MB/s, and nothing beside it.
            with suppress(OSError):  # it does not start, or there may be no more processes
                self._there = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._there is None:
            self._here.update(piece)
            return
        assert self._there.stdin is not None
        try:
            self._there.stdin.write(piece)
        except BrokenPipeError as error:
            raise _unhashed() from error

    def digest(self) -> str:
        """Return the hexadecimal digits."""
        if self._there is None:
            return self._here.hexdigest()
        said, _ = self._there.communicate()
        if self._there.returncode or not _SAID.match(said):
            raise _unhashed()
        return said[:64].decode("ascii")

    def close(self) -> None:
        """End the other process, if it still runs."""
        if self._there is None:
            return
        self._there.kill()
        for pipe in (self._there.stdin, self._there.stdout):
            with suppress(OSError):  # what it has not read
                if pipe is not None:
                    pipe.close()
        self._there.wait()


def _engines() -> Tuple[Dict[bytes, Make], Tuple[Type[Exception], ...]]:
    """Give the formats that payloads are in; the frozen program alone brings zstd with it."""
    engines: Dict[bytes, Make] = {expand.GZIP: lambda: expand.Gunzip(zlib.decompressobj(31)), expand.ZSTD: _no_zstd}
    errors: Tuple[Type[Exception], ...] = (zlib.error,)
    try:
        import zstandard
    except ImportError:
        return engines, errors

    def unzstd() -> Any:
        return expand.Unzstd(zstandard.ZstdDecompressor(max_window_size=expand.ZSTD_WINDOW).decompressobj())

    engines[expand.ZSTD] = unzstd
    return engines, (*errors, zstandard.ZstdError)


def _no_zstd() -> Any:
    raise NoRelocator("this Python cannot expand zstd, which the payload is packed with.")


def _unreadable(path: bytes, error: OSError) -> PackError:
    return PackError(f"{os.fsdecode(path)}: cannot be read: {error.strerror}")


def _unhashed() -> PackError:
    return PackError(
        "sha256sum failed, which was to hash the payload, so whether that is whole is not known.",
        "With --jobs 1 it is done without. Nothing was installed.",
    )


def _damaged(what: str) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"the installer is damaged: {what}.",
        "Copy or download it again, and compare its SHA-256. Nothing was installed.",
    )
