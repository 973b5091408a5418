"""An installer as its own program reads it: the script held against its hash, the payload hashed as it passes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Dict, Iterator, List, Optional, Tuple, Type

from installer_stub import ahead, expand, trailer
from installer_stub.ahead import Expanding, Source
from installer_stub.errors import NoRelocator, PackError
from installer_stub.expand import Make
from installer_stub.tarstream import ArchiveDamaged
from installer_stub.trailer import Section

BEGIN = b"#!/bin/sh\n{ : pack-installer 1\n"  # of every installer

_PIECE = 1 << 18
_APART = 4 << 20  # bytes from which a second process is worth its start
# The first takes a fifth of the time, where the processor has instructions for it.
_HASHERS = (("openssl", "dgst", "-sha256", "-r"), ("sha256sum",))
_SAID = re.compile(rb"[0-9a-f]{64}[ \n]")


class Payload:
    """The archive in an installer. ``read`` gives its tar stream; ``finish`` tells whether its bytes were right.

    ``expanded`` is where the host's tools give the same stream, of bytes that they have checked, or None.
    """

    def __init__(self, path: bytes, jobs: int, expanded: Optional[int] = None) -> None:
        self.is_checked = expanded is None  # whether all bytes that ``read`` gives are hashed as a whole
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            part = _checked(self._file)
            source: Source
            if expanded is None:
                apart = jobs > 1 and part.length > _APART
                source = ahead.started(partial(_Packed, path, self._file, part, apart), apart)
            else:
                source = _Expanded(path, expanded)
        except BaseException:
            os.close(self._file)
            raise
        self.read = source.read
        self.finish = source.finish
        self.require_whole = source.require_whole
        self._source = source

    def close(self) -> None:
        """Close the file, and end what reads it."""
        try:
            self._source.close()
        finally:
            os.close(self._file)


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


def _checked(file: int) -> Section:
    """Read the trailer, and hold the header against it: it ran before anything could. Return where the payload is."""
    size = os.fstat(file).st_size
    parts = trailer.load(os.pread(file, trailer.SIZE, max(0, size - trailer.SIZE)), size)
    hasher = hashlib.sha256()
    header = parts.header
    for at in range(header.offset, header.offset + header.length, _PIECE):
        hasher.update(os.pread(file, min(_PIECE, header.offset + header.length - at), at))
    if hasher.hexdigest() != header.sha256:
        raise _damaged("its first part, the script, has other bytes than it was made with")
    return parts.payload


class _Packed(Expanding):
    """The payload, expanded and hashed here. ``apart``: hashed by a process of the system's, beside this one."""

    def __init__(self, path: bytes, file: int, part: Section, apart: bool) -> None:
        super().__init__(lambda: expand.expanded(self._take, *_engines()))
        self._path = path
        self._file = file
        self._sha256 = part.sha256
        self._left = part.length
        self._hash = _Hash(apart)
        os.lseek(file, part.offset, os.SEEK_SET)

    def _take(self, count: int) -> bytes:
        try:
            piece = os.read(self._file, min(count, self._left))
        except OSError as error:  # not to be taken for an error of what is written
            raise _unreadable(self._path, error) from error
        if not piece and self._left:
            raise _damaged("it became shorter while it was read")
        self._left -= len(piece)
        self._hash.update(piece)
        return piece

    def require_whole(self) -> None:
        """Read on to the end, and do what ``finish`` does: damage is to be called that, whatever it looked like."""
        while self._take(_PIECE):
            pass
        self.finish()

    def finish(self) -> None:
        """Raise ArchiveDamaged unless the payload, which must have been read to its end, has the right SHA-256."""
        if self._left or self._hash.digest() != self._sha256:
            raise _damaged("its payload has other bytes than it was made with")

    def close(self) -> None:
        """End what hashes it."""
        self._hash.close()


class _Expanded(Source):
    """What the host's tools expand. They have checked it."""

    def __init__(self, path: bytes, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, count: int, /) -> bytes:
        """Return 1 to ``count`` bytes of the tar stream, none at the end."""
        try:
            return os.read(self._descriptor, count)
        except OSError as error:
            raise _unreadable(self._path, error) from error


class _Hash:
    """The SHA-256 of what passes. ``apart``: by a program of the system's, which works beside this process."""

    def __init__(self, apart: bool) -> None:
        self._here = hashlib.sha256()
        # Without OpenSSL, as in the frozen program, Python hashes 200 MB/s, and nothing beside it.
        self._command = _hasher() if apart else None
        self._there: Optional[subprocess.Popen[bytes]] = None
        if self._command is not None:
            with suppress(OSError):  # there may be no more processes
                self._there = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._there is None:
            self._here.update(piece)
            return
        assert self._there.stdin is not None
        try:
            self._there.stdin.write(piece)
        except BrokenPipeError as error:
            raise self._failed() from error

    def digest(self) -> str:
        """Return the hexadecimal digits."""
        if self._there is None:
            return self._here.hexdigest()
        said, _ = self._there.communicate()
        if self._there.returncode or not _SAID.match(said):
            raise self._failed()
        return said[:64].decode("ascii")

    def _failed(self) -> PackError:
        program = self._command[0] if self._command else ""
        return PackError(
            f"{program} failed, which was to hash the payload, so whether that is whole is not known.",
            "With --jobs 1 it is done without. Nothing was installed.",
        )

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


def _hasher() -> Optional[List[str]]:
    """Return the command that hashes its input fastest here, of those that get the hash of nothing right."""
    for name, *arguments in _HASHERS:
        program = shutil.which(name)
        if program is None:
            continue
        command = [program, *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
            )
        except OSError:
            continue  # it does not start
        if done.returncode == 0 and done.stdout[:64] == hashlib.sha256().hexdigest().encode("ascii"):
            return command
    return None


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


def _damaged(what: str) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"the installer is damaged: {what}.",
        "Copy or download it again, and compare its SHA-256. Nothing was installed.",
    )
