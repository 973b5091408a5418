"""From one archive to a tree that stands relocated at its place: the story of unpacking."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from installer_stub import admission, ahead, audit, extract, kernels, landing, manifest, payload, register, relocate
from installer_stub import target as targets
from installer_stub.admission import Read
from installer_stub.ahead import Expanding
from installer_stub.errors import OutputError, PackError, UsageError
from installer_stub.extract import Extracted
from installer_stub.model import Listing
from installer_stub.target import Demand
from pack import delta
from pack.archive import reading, stem
from pack.expand import expanded
from pack.output import writing

if TYPE_CHECKING:
    from pack.write import Progress


_ZIP = b"PK"
_SQUASHFS = b"hsqs"
_RELOCATOR = manifest.DIRECTORY + b"/relocator"  # behind all that is read from the beginning


class Options(NamedTuple):
    """What is unpacked, and where. ``archive`` None stands for standard input."""

    archive: Path | None
    target: Path
    relocate: bool = True
    demand: Demand = Demand.IN_FORCE
    base: Path | None = None  # the tree that holds what a delta does not
    register: bool = False  # tell conda, and Jupyter, if there is a kernel, where it is


def default_target(archive: Path) -> Path:
    """Return the directory that an archive is unpacked to by default: its name without suffixes, here.

    Raises UsageError for a name that has none.
    """
    name = stem(archive.name)
    if name is None:
        raise UsageError(
            f"{archive}: its name does not say what the directory is to be called", "Name one with -p DIR."
        )
    return Path(name)


def unpack(options: Options, progress: Progress) -> tuple[Path, Extracted]:
    """Unpack an archive into a directory, which appears whole or not at all; return its physical path.

    Raises OutputError for what stands there and for what cannot be written, TargetRefused and NoRoom where
    the environment cannot stand there, ManifestError and ArchiveDamaged for the archive. Nothing is written
    before the manifest was read and the target accepted.
    """
    with writing(options.target):
        target = landing.place(os.fsencode(options.target))
    path = Path(os.fsdecode(target))
    with _opened(options.archive, path.parent) as (read, finish), _without_collection():
        opened = admission.open_archive(delta.completed(read, options.base))
        if options.relocate:
            targets.check_room(opened.manifest, target, options.demand)
        sizes = [member.size for member, _ in opened.head] + [entry.size for entry in opened.listing.entries]
        progress.start("unpacking", sum(sizes))
        with writing(path), landing.staged(target) as tree:
            prefix = target if options.relocate else None
            done = extract.extract(opened, tree, prefix, progress.advance, jobs=os.cpu_count() or 1)
            finish()
    if options.register:
        try:
            register.register(target)
            kernels.register(target, opened.manifest.stem)
        except OutputError as error:
            raise OutputError(f"{path} is unpacked and complete, but {error}", error.tip) from error
    return path, done


def check(archive: Path | None, progress: Progress, base: Path | None = None) -> int:
    """Read all of an archive, and hold every file against the hash in its manifest; return the number of members.

    Raises ManifestError and ArchiveDamaged. A SquashFS image is unpacked for it in the directory of the image.
    """
    beside = Path() if archive is None else archive.parent
    with _opened(archive, beside) as (read, finish), _without_collection():
        opened = admission.open_archive(delta.completed(read, base))
        progress.start("checking", sum(entry.size for entry in opened.listing.entries))
        count = audit.check(opened, progress.advance)
        finish()
    return count


def listing_of(base: Path) -> Listing:
    """Read the full list of files of an archive, or of a tree unpacked from one. Raises ManifestError."""
    if base.is_dir():
        return relocate.listing_of(relocate.open_tree(os.fsencode(base)))
    with _opened(base, base.parent) as (read, _):
        return admission.open_archive(delta.completed(read, None)).listing


def kept(archive: Path | None, paths: Collection[bytes]) -> dict[bytes, bytes]:
    """Read files of ours that lie at the beginning of an archive, and no more than that beginning.

    Raises ManifestError and ArchiveDamaged.
    """
    found: dict[bytes, bytes] = {}
    beside = Path() if archive is None else archive.parent
    with contextlib.ExitStack() as stack:
        read, _ = stack.enter_context(_opened(archive, beside))
        opened = admission.open_archive(delta.completed(read, None))
        while (member := opened.stream.next()) is not None and member.path.startswith(manifest.DIRECTORY + b"/"):
            content = opened.stream.read(member.size)
            if member.path in paths:
                found[member.path] = content
            elif member.path.startswith(_RELOCATOR):
                break
    return found


@contextlib.contextmanager
def _opened(archive: Path | None, beside: Path) -> Iterator[tuple[Read, Callable[[], None]]]:
    """Yield what reads an archive or an installer as a tar stream, and what says at its end that all was right."""
    begin = b"" if archive is None else _beginning(archive)
    if archive is not None and begin.startswith(payload.BEGIN):
        with payload.opened(os.fsencode(archive), os.cpu_count() or 1) as installer:
            yield installer.read, installer.finish
    elif archive is not None and begin.startswith(_ZIP):
        with reading.zipped(archive) as read:
            yield read, lambda: None
    elif archive is not None and begin.startswith(_SQUASHFS):
        with reading.squashed(archive, beside) as read:
            yield read, lambda: None
    elif archive is not None and archive.is_dir():
        yield reading.standing(archive), lambda: None
    else:
        with _Packed(archive) as packed:
            apart = packed.is_file and (os.cpu_count() or 1) > 1
            source = ahead.started(lambda: Expanding(lambda: expanded(packed.read)), apart)
            try:
                yield source.read, source.finish
            finally:
                source.close()


def _beginning(archive: Path) -> bytes:
    try:
        with archive.open("rb") as file:
            return file.read(len(payload.BEGIN))
    except OSError:
        return b""  # which reading it will tell


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no cycles among objects: a manifest has none, and looking for them takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Packed:
    """The bytes of an archive, a stream. What goes wrong in reading is not to be taken for an error in writing."""

    def __init__(self, archive: Path | None) -> None:
        self._name = archive or "standard input"
        self._file = 0
        if archive is not None:
            with self._reading():
                self._file = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        elif os.isatty(0):
            raise UsageError("the standard input is a terminal", "Redirect an archive to it.")
        # Of a pipe, a read may last as long as whoever writes to it: another process would hang in it, all alone.
        self.is_file = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._begin = b""
        if archive is None:
            self._require_stream()

    def _require_stream(self) -> None:
        """Raise UsageError where what comes cannot be read from its beginning to its end."""
        while len(self._begin) < len(_SQUASHFS) and (more := self._read(len(_SQUASHFS) - len(self._begin))):
            self._begin += more
        for begin, what in ((_ZIP, "zip"), (_SQUASHFS, "SquashFS image")):
            if self._begin.startswith(begin):
                raise UsageError(
                    f"{self._name} is a {what}, which is not read from its beginning to its end",
                    "Save it to a file, and name that.",
                )

    def __enter__(self) -> _Packed:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            os.close(self._file)

    def read(self, count: int) -> bytes:
        """Return 1 to ``count`` bytes, none at the end."""
        if self._begin:
            begin, self._begin = self._begin[:count], self._begin[count:]
            return begin
        return self._read(count)

    def _read(self, count: int) -> bytes:
        with self._reading():
            return os.read(self._file, count)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise UsageError(f"{self._name}: no such archive") from error
        except OSError as error:
            raise PackError(f"{self._name}: cannot be read: {error.strerror}") from error
