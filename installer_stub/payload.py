"""An installer as its own program reads it: the script held against its hash, the payload hashed as it passes."""

from __future__ import annotations

import hashlib
import os
import queue
import re
import shutil
import subprocess
import threading
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional

from installer_stub import ahead, expand, trailer
from installer_stub.ahead import Expanding, Source
from installer_stub.errors import NoRelocator, PackError
from installer_stub.expand import Make
from installer_stub.tarstream import ArchiveDamaged, Bytes, damaged
from installer_stub.trailer import Section

BEGIN = b"#!/bin/sh\n{ : pack-installer 1\n"  # of every installer

_PIECE = 1 << 18
_WAITING = 8  # pieces that wait to be hashed
_GZIP: Dict[bytes, Make] = {expand.GZIP: lambda: expand.Gunzip(zlib.decompressobj(31))}
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


class _Packed(Source):
    """The payload, expanded and hashed here. ``apart``: hashed by a process of the system's, beside this one."""

    def __init__(self, path: bytes, file: int, part: Section, apart: bool) -> None:
        self._path = path
        self._file = file
        self._sha256 = part.sha256
        self._left = part.length
        self._hash = _Hash(apart)
        os.lseek(file, part.offset, os.SEEK_SET)
        is_zstd = os.pread(file, len(expand.ZSTD), part.offset) == expand.ZSTD
        self._expanding = (
            _Unzstd(self._take) if is_zstd else Expanding(lambda: expand.expanded(self._take, _GZIP, (zlib.error,)))
        )

    def read(self, count: int, /) -> Bytes:
        """Return 1 to ``count`` bytes of the tar stream, none at the end."""
        return self._expanding.read(count)

    def fill(self, room: memoryview) -> int:
        """Put the next bytes of the tar stream there, as many as it takes; return how many these are."""
        return self._expanding.fill(room)

    def _take(self, count: int) -> bytes:
        # The last byte comes alone: whoever ends before it has left something.
        count = min(count, self._left - (self._left > 1))
        try:
            piece = os.read(self._file, count)
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


class _Unzstd(Source):
    """A zstd frame, expanded to where its bytes are to be; ``packed`` gives the last of its own alone."""

    def __init__(self, packed: Callable[[int], bytes]) -> None:
        self._packed = packed
        self._reader: Any = None

    def read(self, count: int, /) -> bytes:
        """Return 1 to ``count`` bytes, none at the end."""
        room = bytearray(min(count, _PIECE))
        return bytes(memoryview(room)[: self.fill(memoryview(room))])

    def fill(self, room: memoryview) -> int:
        """Put the next bytes there, as many as it takes; return how many these are, fewer only at the end."""
        try:
            import zstandard  # the frozen program has it
        except ImportError as error:
            raise NoRelocator("this Python cannot expand zstd, which the payload is packed with.") from error
        if self._reader is None:
            engine: Any = zstandard.ZstdDecompressor(max_window_size=expand.ZSTD_WINDOW)
            self._reader = engine.stream_reader(SimpleNamespace(read=self._packed), read_size=_PIECE)
        try:
            size = int(self._reader.readinto(room))
        except zstandard.ZstdError as error:
            raise damaged(f"its compressed stream is damaged: {error}") from error
        if size < len(room) and self._packed(1):
            raise damaged("it goes on behind its compressed stream")
        return size


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
    """The SHA-256 of what passes. ``apart``: by a program of the system's, which works beside this process.

    A thread feeds it, so that what is expanded here does not wait for what is hashed there.
    """

    def __init__(self, apart: bool) -> None:
        self._here = hashlib.sha256()
        # Without OpenSSL, as in the frozen program, Python hashes 200 MB/s, and nothing beside it.
        self._command = _hasher() if apart else None
        self._there: Optional[subprocess.Popen[bytes]] = None
        if self._command is not None:
            with suppress(OSError):  # there may be no more processes
                self._there = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._pieces: queue.Queue[Optional[bytes]] = queue.Queue(_WAITING)
        self._failed = False
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        if self._there is not None:
            self._feeder.start()

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._there is None:
            self._here.update(piece)
        else:
            self._pieces.put(piece)

    def _feed(self) -> None:
        """Hand on what comes, until None does; when nobody takes it any more, let it go."""
        assert self._there is not None
        assert self._there.stdin is not None
        for piece in iter(self._pieces.get, None):
            if not self._failed:
                try:
                    self._there.stdin.write(piece)
                except OSError:
                    self._failed = True

    def digest(self) -> str:
        """Return the hexadecimal digits."""
        if self._there is None:
            return self._here.hexdigest()
        self._pieces.put(None)
        self._feeder.join()
        said, _ = self._there.communicate()
        if not self._failed and self._there.returncode == 0 and _SAID.match(said):
            return said[:64].decode("ascii")
        program = self._command[0] if self._command else ""
        raise PackError(
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


def _unreadable(path: bytes, error: OSError) -> PackError:
    return PackError(f"{os.fsdecode(path)}: cannot be read: {error.strerror}")


def _damaged(what: str) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"the installer is damaged: {what}.",
        "Copy or download it again, and compare its SHA-256. Nothing was installed.",
    )
