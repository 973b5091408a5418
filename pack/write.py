"""From an environment to one output: the story of packing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

from pack import base_python, compress, delta
from pack import parcel as parcels
from pack.archive import Format, Member, Writable, below, squashfs
from pack.archive.directory import write_directory
from pack.archive.pieces import write_compressed
from pack.archive.zip import write_zip
from pack.bake import bake
from pack.dereference import without_links
from pack.environment import Environment
from pack.installer import Installer, stub_for, write_installer
from pack.members import members
from pack.output import DirectoryOutput, Output, standard_output
from pack.parcel import Parcel
from pack.scan import Options as ScanOptions
from pack.scan import Scan, scan, uncollected
from pack.signature import SignedOutput
from pack.stub import carry
from pack.stub.section import section
from pack.stub.store import Stub


class Progress(Protocol):
    """Is told how the work goes."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` bytes, or of an unknown number."""

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the stage."""


class Options(NamedTuple):
    """How an output is written. ``threads`` 0 stands for all cores, also to scan; ``path`` None for standard output.

    A directory and a SquashFS image have a path.
    """

    path: Path | None
    format: Format
    force: bool = False
    level: int | None = None
    threads: int = 0
    scan: ScanOptions = ScanOptions()
    with_python: bool = False  # pack a virtual environment's base Python in it; see ``pack.base_python``
    stub: bool = False  # carry the frozen relocator: in an archive where one is needed, and one was built
    installer: Installer | None = None  # with the format of installers, and only with it
    parcel: Parcel | None = None  # with the format of parcels, and only with it
    dest_prefix: bytes | None = None  # for which the files are rewritten; see ``pack.bake.destination``
    arcroot: bytes = b""  # the directory in which everything lies in the output
    zip_symlinks: bool = False  # store symlinks instead of copies of what they lead to
    zip64: bool = True
    held: frozenset[str] | None = None  # the hashes of files that a base has, in an archive that leaves them out

    @property
    def compression(self) -> Format:
        """The format of the stream that the output is, or holds."""
        if self.installer is not None:
            return self.installer.payload
        return Format.TAR_GZ if self.format is Format.PARCEL else self.format


def write(
    environment: Environment,
    options: Options,
    version: str,
    progress: Progress,
    say: Callable[[str], None] = lambda line: None,
) -> Scan:
    """Pack an environment into one output, which appears whole or not at all; return what was scanned.

    ``say`` is told what takes long, but for reading and writing. Raises EnvironmentUnfit for what cannot be read or
    changes meanwhile, OutputError for the output, UsageError for a level that the format does not have, StubUnavailable
    for an installer without its stub.
    """
    with uncollected():
        found = _written(environment, options, version, progress, say)
    cache = options.scan.cache
    if cache is not None:
        cache.tidy()
        if cache.trouble:
            say(cache.trouble)
    return found


def _written(
    environment: Environment, options: Options, version: str, progress: Progress, say: Callable[[str], None]
) -> Scan:
    level = compress.checked_level(options.compression, options.level)
    threads = options.threads or os.cpu_count() or 1

    def written(contents: Iterable[Member], out: Writable) -> None:
        format = options.compression
        seed = f"{format.value} {level} {compress.library(format)}\n".encode()
        with compress.compressor(out, format, level, threads, options.threads > 0) as stream:
            write_compressed(contents, stream, options.scan.cache, seed, progress.advance)

    if options.format is Format.DIRECTORY:
        assert options.path is not None
        directory = DirectoryOutput(options.path, options.force)
        with directory as partial:
            found = _scanned(environment, options, _inside(environment, options.path, directory.partial), progress)
            progress.start("writing", found.size)
            write_directory(_contents(found, options, version), partial, progress.advance)
        return found

    if options.format is Format.SQUASHFS:
        assert options.path is not None
        squashfs.program()  # before the scan, which may take long
        image = Output(options.path, options.force)
        with image:
            found = _scanned(environment, options, _inside(environment, options.path, image.partial), progress)
            progress.start("writing", found.size)
            contents = _contents(found, options, version)
            owners = options.scan.keep_setuid
            squashfs.write_squashfs(contents, image.partial, level, threads, owners, progress.advance)
        return found

    output, leave_out = _opened(environment, options)
    with output as stream:
        found = _scanned(environment, options, leave_out, progress)
        if options.installer is not None:
            frozen = section(stub_for(found, say)) if options.stub else None
            payload = tuple(members(found, version, _stub(found, options), options.installer))
            progress.start("writing", found.size)
            write_installer(stream, found, options.installer, version, payload, frozen, written)
            if options.installer.key is not None:
                say(f"signing with {options.installer.key}")
            return found
        progress.start("writing", found.size)
        contents = _contents(found, options, version)
        if options.format is Format.ZIP:
            write_zip(contents, stream, level, options.zip64, progress.advance)
        else:
            written(contents, stream)
    return found


def dry_run(environment: Environment, options: Options, progress: Progress) -> Scan:
    """Scan as `write` does, and raise what it would, but write nothing."""
    compress.checked_level(options.compression, options.level)
    if options.format is Format.SQUASHFS:
        squashfs.program()
    leave_out: frozenset[bytes] = frozenset()
    if options.path is not None:
        kind = DirectoryOutput if options.format is Format.DIRECTORY else Output
        kind(options.path, options.force).check()
        leave_out = _inside(environment, options.path)
    found = _scanned(environment, options, leave_out, progress)
    if options.installer is None:
        for _ in _contents(found, options, "dry run"):
            pass  # what cannot be a member is told when it is asked for
    return found


def _scanned(environment: Environment, options: Options, leave_out: frozenset[bytes], progress: Progress) -> Scan:
    """Scan the environment as the output holds it: a zip has no links."""
    progress.start("scanning", None)
    how = options.scan._replace(workers=options.threads)
    beside = partial(base_python.plan, environment, how, progress.advance) if options.with_python else None
    found = scan(environment, how, leave_out, progress.advance, beside)
    return without_links(found, options.zip_symlinks) if options.format is Format.ZIP else found


def _contents(found: Scan, options: Options, version: str) -> Iterator[Member]:
    """Yield the members of an output that is no installer."""
    meta: Iterator[Member] = iter(())
    if options.parcel is not None:
        found = found._replace(manifest=found.manifest._replace(added=(*found.manifest.added, *parcels.PATHS)))
        meta = parcels.meta(options.parcel, found)
    baked = bake(found, options.dest_prefix) if options.dest_prefix is not None else None
    made = members(found, version, _stub(found, options), baked=baked)
    if options.held is not None:
        made = delta.reduced(made, found.listing.entries, options.held)
    return below(options.arcroot, chain(made, meta))


def _stub(found: Scan, options: Options) -> Stub | None:
    return carry.chosen(found) if options.stub else None


def _opened(environment: Environment, options: Options) -> tuple[AbstractContextManager[Writable], frozenset[bytes]]:
    if options.path is None:
        return standard_output(), frozenset()
    if options.installer is not None:
        signed = SignedOutput(options.path, options.force, options.installer.key, 0o777)
        return signed.opened(), _inside(environment, *signed.paths)
    output = Output(options.path, options.force)
    return output, _inside(environment, options.path, output.partial)


def _inside(environment: Environment, *paths: Path) -> frozenset[bytes]:
    """Give the paths of outputs that lie in the prefix, relative to it."""
    prefix = os.path.realpath(os.fsencode(environment.prefix))
    inside = []
    for path in paths:
        parent = os.path.realpath(os.fsencode(path.parent))
        full = os.path.join(parent, os.fsencode(path.name))
        if full.startswith(prefix + b"/"):
            inside.append(full[len(prefix) + 1 :])
    return frozenset(inside)
