"""Examine one file: how it stands to its owner, what its archived bytes are, and what they refer to.

This is what runs in the worker processes of a scan. It reads a file once where nothing is known of it,
and once more where the bytes as shipped must be rebuilt from it.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from installer_stub import activation, bytecode, match, references, rewrite, shebang
from installer_stub.classify import Format
from installer_stub.elf import ReadAt
from installer_stub.model import Entry, Field, Finding, Reference, Relocatable, Spelling, Standing
from installer_stub.references import Mode, Reading
from installer_stub.rewrite import Digest, Form, Unlike
from installer_stub.shebang import Unwritable
from pack import binaries, containers, deep, floor, run_paths
from pack.layouts import conda
from pack.layouts.conda import Owned
from pack.splice import Splice, Spliced, pieces, stacked

Layers = tuple[tuple[Splice, ...], ...]

_STRING = 1 << 16  # no string with a placeholder in it is longer

# What conda makes of a shebang that the kernel would not take, in a package's own scripts.
_ENV = re.compile(rb"#!/usr/bin/env (?P<command>[^\n]*)\n")

# A string before any statement: some scripts print theirs as their help.
_DOCSTRING = re.compile(rb"(?:[ \t\f]*(?:#[^\n]*)?\r?\n)*[rRuU]?[\"']")


@dataclass(frozen=True)
class Context:
    """What is the same for all files: the prefix, its names, and the forms of an earlier packing."""

    prefix: bytes
    names: tuple[bytes, ...]  # longest first
    forms: tuple[Form, ...] = ()
    grow: bool = False  # whether a file is rebuilt where its run path has no room to be made relative
    venv: bool = False  # whether it is a virtual environment, whose own activation scripts are to relocate it

    @cached_property
    def all_names(self) -> tuple[bytes, ...]:
        """The names of the prefix, and those at which it stood before, longest first."""
        earlier = [form.prefix for form in self.forms if form.prefix is not None]
        return tuple(sorted({*self.names, *earlier}, key=lambda name: (-len(name), name)))

    def path_of(self, job: Job) -> bytes:
        """The absolute path of a file on disk."""
        return job.source or self.prefix + b"/" + job.path


class Job(NamedTuple):
    """A file to examine. ``known``, ``relocatable`` and ``findings`` are what an earlier packing says of it.

    ``elsewhere`` are the other directories from which it can be opened; a ``privileged`` one runs with other rights
    than its user's. A file from outside of the prefix is examined through ``layers``, and has ``findings`` already.
    """

    path: bytes
    size: int
    mtime_ns: int
    owned: Owned | None = None
    known: Entry | None = None
    relocatable: Relocatable | None = None
    findings: tuple[Finding, ...] = ()
    elsewhere: tuple[bytes, ...] = ()
    privileged: bool = False
    source: bytes = b""  # the absolute path of a file that is packed from outside of the prefix
    layers: Layers = ()


class Examined(NamedTuple):
    """The verdict on a file. ``layers`` lead from the bytes on disk to the archived bytes."""

    job: Job
    disk: Digest
    archived: Digest
    standing: Standing
    layers: Layers = ()
    references: tuple[Reference, ...] = ()
    findings: tuple[Finding, ...] = ()
    compiled: bytecode.Header | None = None
    from_manifest: bool = False
    error: str = ""
    binary: floor.Binary | None = None  # of an ELF file
    attributes: tuple[str, ...] = ()  # the names of its extended attributes

    @classmethod
    def again(cls, job: Job, row: tuple[Any, ...]) -> Examined:
        """Make a verdict of all but its job, as it was sent or kept; a hash is held once in memory, which counts."""
        disk, archived, *rest = row
        if job.owned is not None and archived.sha256 == job.owned.sha256:
            archived = Digest(job.owned.sha256, archived.size)
        return cls(job, archived if disk == archived else disk, archived, *rest)


def examine(job: Job, context: Context) -> Examined:
    """Examine one file of the prefix. An unreadable file is a verdict, too: ``error`` says why."""
    path = context.path_of(job)
    try:
        with references.Opened(path) as read_at:
            verdict = _verdict(job, context, read_at)
    except OSError as error:
        nothing = Digest("", 0)
        return Examined(job, nothing, nothing, Standing.ADDED, error=error.strerror or str(error))
    attributes = attributes_of(path)
    return verdict._replace(attributes=attributes) if attributes else verdict


def _verdict(job: Job, context: Context, read_at: ReadAt) -> Examined:
    if not job.source:
        return _File(job, context, read_at).verdict()
    below, size = stacked(read_at, job.size, job.layers)
    verdict = _File(job._replace(size=size), context, below).verdict()
    return verdict._replace(job=job, layers=(*job.layers, *verdict.layers), findings=(*job.findings, *verdict.findings))


def attributes_of(path: bytes) -> tuple[str, ...]:
    """List the names of the extended attributes of a path, without following it if it is a symlink."""
    if not hasattr(os, "listxattr"):
        return ()  # not on Linux
    try:
        return tuple(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return ()  # a file system without them


class _File:
    def __init__(self, job: Job, context: Context, read_at: ReadAt) -> None:
        self.job = job
        self.context = context
        self.read_at = read_at
        self.names = context.all_names

    def verdict(self) -> Examined:
        """Decide what the file is, and read what it needs where it runs: no relocation changes that."""
        reading = references.read(self.read_at, self.job.size, self.job.path, self.names, root=self.context.prefix)
        verdict = self._judged(reading)
        if reading.format is not Format.ELF:
            return verdict
        return verdict._replace(binary=floor.read(self.read_at, reading.size, reading.head))

    def _judged(self, reading: Reading) -> Examined:
        """Judge the file by what is known best: an earlier manifest, a record, the bytes."""
        disk = Digest(reading.sha256, reading.size)
        known = self._known(disk, reading)
        if known is not None:
            return known
        owned = self.job.owned
        standing = Standing.ADDED if owned is None else Standing.MODIFIED
        if owned is not None and owned.entry_point:
            # Its recorded hash is that of the script with this very prefix in it.
            generated = self._generated(reading)
            if generated is not None:
                return self._finished(generated, disk, Standing.GENERATED)
        elif owned is not None and owned.sha256:
            shipped = self._shipped(reading, owned)
            if shipped is not None:
                return self._finished(shipped, disk, Standing.INTACT)
        return self._finished(_Archived((), reading), disk, standing)

    def _known(self, disk: Digest, reading: Reading) -> Examined | None:
        """Take the verdict of an earlier packing, if undoing its relocation gives the recorded bytes."""
        entry, file = self.job.known, self.job.relocatable
        if entry is None:
            return None
        if file is None:
            if disk != (entry.sha256, entry.size):
                return None
            return self._as_known(disk, entry, ())._replace(compiled=self._compiled(reading))
        for form in self.context.forms:
            splices = self._undone(file, form)
            if splices is not None:
                return self._as_known(disk, entry, (splices,), file.references)
        return None

    def _as_known(self, disk: Digest, entry: Entry, layers: Layers, found: tuple[Reference, ...] = ()) -> Examined:
        archived = Digest(entry.sha256, entry.size)
        return Examined(self.job, disk, archived, entry.standing, layers, found, self.job.findings, from_manifest=True)

    def _undone(self, file: Relocatable, form: Form) -> tuple[Splice, ...] | None:
        """Find the splices that undo ``form``, if the file is in it."""
        splices: list[Splice] = []
        shift = 0  # from archived offsets to those on disk
        try:
            for region in rewrite.regions(file.references):
                room = rewrite.length(region, form)
                at = region.start + shift
                current = self.read_at(at, room)
                splices.append(Splice(at, room, rewrite.undo(region, current, form)))
                shift += room - (region.end - region.start)
            view = Spliced(self.read_at, self.job.size, splices)
        except (Unlike, rewrite.Misfit, ValueError):
            return None
        digest = references.read(view.read_at, view.size, file.path, ())
        return tuple(splices) if (digest.sha256, digest.size) == (file.sha256, file.size) else None

    def _shipped(self, reading: Reading, owned: Owned) -> _Archived | None:
        """Rebuild the file as its package shipped it. The proof is exact: it hashes as recorded."""
        if reading.sha256 == owned.sha256 and not owned.placeholder:
            plain = not reading.references and not reading.findings
            return _Archived((), reading if plain else reading._replace(references=(), findings=()))
        if not owned.placeholder:
            return None
        mode = Mode.PLACEHOLDER_TEXT if owned.text else Mode.PLACEHOLDER_BINARY
        for layer in self._candidates(reading, owned):
            view = Spliced(self.read_at, self.job.size, layer)
            rebuilt = references.read(view.read_at, view.size, self.job.path, (owned.placeholder,), mode)
            if rebuilt.sha256 == owned.sha256:
                return _Archived((layer,) if layer else (), rebuilt)
        return None

    def _candidates(self, reading: Reading, owned: Owned) -> Iterator[tuple[Splice, ...]]:
        """Guess how the client may have replaced the placeholder, the likeliest first."""
        if reading.sha256 == owned.sha256:
            yield ()
            return
        for name in self.names:
            hits = list(match.search(pieces(self.read_at), {name: (name, Spelling.PLAIN)}))
            # In an environment at /env the package's own /environ and /usr/bin/env are no replaced placeholders.
            ending = [hit.offset for hit in hits if match.right_boundary(hit.right)]
            certain = [hit.offset for hit in hits if match.is_reference(hit)]
            for offsets in dict.fromkeys(map(tuple, ([hit.offset for hit in hits], ending, certain))):
                if owned.text:
                    plain = tuple(Splice(at, len(name), owned.placeholder) for at in offsets)
                    yield plain
                    yield from self._unconverted(plain, reading.head, name, owned.placeholder)
                elif len(name) <= len(owned.placeholder):
                    yield tuple(self._unpadded(offsets, name, owned.placeholder))

    def _unpadded(self, offsets: Sequence[int], name: bytes, placeholder: bytes) -> Iterator[Splice]:
        """Give the C strings with names at ``offsets`` their placeholders back, and take back the NULs behind them.

        A string without such NULs was the package's own.
        """
        gain = len(placeholder) - len(name)
        number = 0
        while number < len(offsets):
            start = offsets[number]
            string = self.read_at(start, _STRING).partition(b"\0")[0]
            stop = bisect_left(offsets, start + len(string), number)
            inside, number = offsets[number:stop], stop
            room = len(inside) * gain
            if self.read_at(start + len(string), room) != bytes(room):
                continue
            literals = [string[a + len(name) - start : b - start] for a, b in pairwise([*inside, start + len(string)])]
            yield Splice(start, len(string) + room, b"".join(placeholder + literal for literal in literals))

    @staticmethod
    def _unconverted(
        plain: tuple[Splice, ...], head: bytes, name: bytes, placeholder: bytes
    ) -> Iterator[tuple[Splice, ...]]:
        """Undo what clients make of a shebang that is too long: ``/bin/sh`` and exec, or ``env``."""
        parsed, length = shebang.parse_through_sh(head) or (None, 0)
        through_env = _ENV.match(head)
        if parsed is not None and parsed.interpreter.startswith(name + b"/"):
            options = b" " + parsed.options if parsed.options else b""
            line = b"#!" + placeholder + parsed.interpreter[len(name) :] + options + b"\n"
        elif through_env is not None:
            length = through_env.end()
            line = b"#!" + placeholder + b"/bin/" + through_env["command"] + b"\n"
        else:
            return
        yield (Splice(0, length, line), *(splice for splice in plain if splice.offset >= length))

    def _generated(self, reading: Reading) -> _Archived | None:
        """Generate an entry point's script again, with a head that finds the interpreter beside it."""
        if reading.size > len(reading.head):
            return None
        parsed, length = shebang.parse_through_sh(reading.head) or (None, 0)
        if parsed is None:
            parsed, length = shebang.parse(reading.head), reading.head.find(b"\n") + 1
        new = conda.entry_point(reading.head[length:])
        if new is None or parsed is None or not shebang.is_python(parsed.name):
            return None
        here = os.path.dirname(self.job.path)
        if os.path.dirname(parsed.interpreter) not in [os.path.join(name, here) for name in self.names]:
            return None  # somebody chose another interpreter
        layer = (Splice(0, reading.size, shebang.beside(parsed._replace(coding=b"")) + new),)
        return self._reread((layer,), Mode.SEARCH, self.names)

    def _reread(self, layers: Layers, mode: Mode, prefixes: Sequence[bytes]) -> _Archived:
        read_at, size = stacked(self.read_at, self.job.size, layers)
        return _Archived(layers, references.read(read_at, size, self.job.path, prefixes, mode, self.context.prefix))

    def _finished(self, archived: _Archived, disk: Digest, standing: Standing) -> Examined:
        if archived.reading.references:
            archived = self._with_run_paths(self._refined(self._with_head(self._beside(archived))))
        if standing is not Standing.INTACT:  # what is as shipped names at most the placeholder
            archived = self._looked_inside(archived)
        reading = archived.reading
        return Examined(
            self.job,
            disk,
            Digest(reading.sha256, reading.size),
            standing,
            archived.layers,
            reading.references,
            reading.findings,
            self._compiled(reading),
        )

    def _beside(self, archived: _Archived) -> _Archived:
        """Let a Python script find its interpreter in its own directory, where it is: no rewriting then."""
        reading = archived.reading
        if not reading.text:
            return archived
        first = reading.references[0]
        if first.field is Field.SHEBANG:
            parsed, room = shebang.parse(first.archived), first.room
        else:
            parsed, room = shebang.parse_through_sh(reading.head) or (None, 0)
        here = first.prefix + b"/" + os.path.dirname(self.job.path)
        if parsed is None or os.path.dirname(parsed.interpreter) != here:
            return archived
        if first.prefix in parsed.options or not shebang.is_python(parsed.name):
            return archived
        if first.field is Field.SHEBANG and _DOCSTRING.match(reading.head, room):
            return archived  # what sh runs would take its place
        try:
            head = shebang.beside(parsed)
        except Unwritable:
            return archived
        layers = (*archived.layers, (Splice(0, room, head),))
        owned = self.job.owned
        if owned is not None and first.prefix == owned.placeholder:
            mode = Mode.PLACEHOLDER_TEXT if owned.text else Mode.PLACEHOLDER_BINARY
            return self._reread(layers, mode, (owned.placeholder,))
        return self._reread(layers, Mode.SEARCH, self.names)

    def _with_head(self, archived: _Archived) -> _Archived:
        """Have a virtual environment's own activation script relocate the tree, as ours do: no other is sourced."""
        reading = archived.reading
        if not self.context.venv or not reading.text:
            return archived
        head = activation.own_head(self.job.path, reading.head, self.context.prefix)
        if not head:
            return archived
        made = self._reread((*archived.layers, (Splice(0, 0, head),)), Mode.SEARCH, self.names)
        # A path that is written otherwise between its quotes would not be rewritten there.
        return made if len(made.reading.references) > len(reading.references) else archived

    def _refined(self, archived: _Archived) -> _Archived:
        """Decide how the strings of a binary are rewritten."""
        if archived.reading.format is not Format.ELF:
            return archived
        read_at, _ = stacked(self.read_at, self.job.size, archived.layers)
        return archived._replace(reading=binaries.refined(read_at, archived.reading))

    def _with_run_paths(self, archived: _Archived) -> _Archived:
        """Make run paths relative where that fits: no rewriting then."""
        reading = archived.reading
        if self.job.privileged or all(each.field is not Field.RUN_PATH for each in reading.references):
            return archived  # the loader takes no $ORIGIN for a program that gives its user another's rights
        read_at, size = stacked(self.read_at, self.job.size, archived.layers)
        made = run_paths.made_relative(read_at, self.job.path, self.job.elsewhere, reading.references)
        if made is not None:
            digest = references.read(Spliced(read_at, size, made.splices).read_at, size, self.job.path, ())
            reading = reading._replace(sha256=digest.sha256, references=made.references)
            archived = _Archived((*archived.layers, made.splices), reading)
        return self._grown(archived) if self.context.grow else archived

    def _grown(self, archived: _Archived) -> _Archived:
        """Rebuild a file whose run paths have no room; where that cannot be, they stay slots, and a finding says so."""
        reading = archived.reading
        read_at, size = stacked(self.read_at, self.job.size, archived.layers)
        try:
            made = deep.grown(read_at, size, self.job.path, self.job.elsewhere, reading.references)
        except deep.NotGrown as error:
            note = Finding(self.job.path, -1, deep.NOT_GROWN, str(error))
            return archived._replace(reading=reading._replace(findings=(*reading.findings, note)))
        if made is None:
            return archived
        view = Spliced(read_at, size, made.splices)
        digest = references.read(view.read_at, view.size, self.job.path, ())
        notes = [Finding(self.job.path, -1, deep.GROWN, deep.described(old, new)) for old, new in made.changed]
        reading = reading._replace(sha256=digest.sha256, size=digest.size, references=made.references)
        reading = reading._replace(findings=(*reading.findings, *notes))
        return _Archived((*archived.layers, made.splices), reading)

    def _looked_inside(self, archived: _Archived) -> _Archived:
        """Search what a container holds, compressed or not, and tell it by member; nothing there is rewritten."""
        reading = archived.reading
        read_at, size = stacked(self.read_at, self.job.size, archived.layers)
        format, start = reading.format, 0
        if format is Format.OTHER and not reading.text and containers.is_zip_behind(read_at, size):
            format, start = Format.ZIP, containers.zip_start(read_at, size)
        if format not in containers.FORMATS:
            return archived
        before = tuple(each for each in reading.findings if each.offset < start)
        inside = containers.search(read_at, size, self.job.path, format, self.names)
        kept = tuple(each for each in reading.references if each.end <= start)
        return archived._replace(reading=reading._replace(references=kept, findings=(*before, *inside)))

    def _compiled(self, reading: Reading) -> bytecode.Header | None:
        if reading.format is not Format.BYTECODE:
            return None
        try:
            return bytecode.header(reading.head)
        except bytecode.OddBytecode:
            return None


class _Archived(NamedTuple):
    layers: Layers
    reading: Reading
