"""From one archive to a tree that stands relocated at its place: the story of unpacking."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from installer_stub import admission, extract, landing, payload
from installer_stub import target as targets
from installer_stub.errors import PackError, UsageError
from installer_stub.extract import Extracted
from installer_stub.target import Demand
from pack.archive import stem
from pack.expand import expanded
from pack.output import writing

if TYPE_CHECKING:
    from pack.write import Progress


@dataclass(frozen=True)
class Options:
    """What is unpacked, and where. ``archive`` None stands for standard input."""

    archive: Path | None
    target: Path
    relocate: bool = True
    demand: Demand = Demand.IN_FORCE


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
    with _opened(options.archive) as (read, finish), _without_collection():
        opened = admission.open_archive(read)
        if options.relocate:
            targets.check_room(opened.manifest, target, options.demand)
        progress.start("unpacking", sum(entry.size for entry in opened.listing.entries))
        with writing(path), landing.staged(target) as tree:
            done = extract.extract(opened, tree, target if options.relocate else None, progress.advance)
            finish()
    return path, done


@contextlib.contextmanager
def _opened(archive: Path | None) -> Iterator[tuple[Callable[[int], bytes], Callable[[], None]]]:
    """Yield what reads the tar stream of an archive or of an installer, and what says at its end that all was right."""
    if archive is not None and _is_installer(archive):
        with payload.opened(os.fsencode(archive), os.cpu_count() or 1) as installer:
            yield installer.read, installer.finish
    else:
        with _Source(archive) as source:
            yield expanded(source.read), lambda: None


def _is_installer(archive: Path) -> bool:
    try:
        with archive.open("rb") as file:
            return file.read(len(payload.BEGIN)) == payload.BEGIN
    except OSError:
        return False  # which reading it will tell


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


class _Source:
    """The bytes of the archive. What goes wrong in reading them is not to be taken for an error in writing."""

    def __init__(self, archive: Path | None) -> None:
        self._name = archive or "standard input"
        self._file = 0
        if archive is not None:
            with self._reading():
                self._file = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        elif os.isatty(0):
            raise UsageError("the standard input is a terminal", "Redirect an archive to it.")

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            os.close(self._file)

    def read(self, count: int) -> bytes:
        """Return 1 to ``count`` bytes, none at the end."""
        with self._reading():
            return os.read(self._file, count)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except IsADirectoryError as error:
            raise UsageError(
                f"{self._name}: is a directory, not an archive", "Copy it, and run bin/conda-unpack there."
            ) from error
        except FileNotFoundError as error:
            raise UsageError(f"{self._name}: no such archive") from error
        except OSError as error:
            raise PackError(f"{self._name}: cannot be read: {error.strerror}") from error
