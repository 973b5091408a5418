"""From an environment to everything that is known of it: what is archived, and what refers to the prefix."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from installer_stub import activation, walk
from installer_stub.errors import EnvironmentUnfit
from installer_stub.manifest import encode
from installer_stub.model import Entry, Finding, Kind, Listing, Manifest, Reference, Relocatable, Standing
from installer_stub.slots import is_common
from installer_stub.walk import Found
from pack import (
    byte_code,
    editables,
    entries,
    floor,
    foreign,
    links,
    lock,
    records,
    run_paths,
    standing,
    vendor,
    workers,
)
from pack.archive import FIXED_MTIME, Privileges
from pack.brought import brought
from pack.cache import Cache
from pack.earlier import Earlier
from pack.editables import Editables
from pack.environment import Environment, Layout
from pack.examine import Context, Examined, Job, Layers
from pack.floor import Binary, Floor, Outside
from pack.layouts import conda
from pack.lock import Lock
from pack.recall import Recall
from pack.selection import Rule, Saved, select
from pack.slim import slimming
from pack.standing import Standings
from pack.vendor import Vendored

Progress = Callable[[int], None]
Beside = Callable[[Sequence[Found]], Vendored]

LEFT_OUT = "left out"
UNREADABLE = "unreadable"
LEAVES = "leaves the prefix"
EDITABLE = "editable, and its source stays behind"
ABSENT = (LEFT_OUT, UNREADABLE, standing.MISSING)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 4 << 20  # bytes; files are read in smaller pieces, which are better taken from the heap


class Options(NamedTuple):
    """How an environment is scanned.

    ``workers`` is how many processes read (0: one for each core). With ``keep_setuid`` entries with a setuid bit, a
    setgid bit or a file capability keep it and their owner; with ``grow_run_paths`` files are rebuilt whose run
    paths have no room to be made relative. ``rules`` and ``slim`` leave paths out. With ``strict`` an environment is
    unfit whose paths are not as their packages were installed.
    """

    workers: int = 0
    ignore_unreadable: bool = False
    keep_setuid: bool = False
    grow_run_paths: bool = False
    rules: tuple[Rule, ...] = ()
    slim: tuple[str, ...] = ()  # profiles of ``pack.slim``
    strict: bool = False
    editables: Editables = Editables.ERROR
    cache: Cache | None = None  # of earlier verdicts
    trust_mtime: bool = True  # take an earlier verdict on a file that looks unchanged


class Item(NamedTuple):
    """An entry, and where its archived bytes come from: the disk through ``layers``, or ``content``.

    ``source`` is the path on disk where that is not the entry's: relative to the prefix, or absolute.
    """

    entry: Entry
    layers: Layers = ()
    disk_size: int = 0
    disk_mtime_ns: int = 0
    content: bytes | None = None
    privileges: Privileges | None = None
    source: bytes = b""


class Scan(NamedTuple):
    """All that is known of an environment. ``notes`` are about what is not archived.

    ``architecture`` is what its programs are for, as ``uname -m`` has it, or "" where nothing is compiled; ``floor``
    is the glibc that they need, and ``not_measured`` lists those of which that cannot be told; ``outside`` are the
    libraries that they take from the machine, beside glibc's.
    """

    environment: Environment
    items: tuple[Item, ...]
    manifest: Manifest
    listing: Listing
    notes: tuple[Finding, ...]
    architecture: str = ""
    floor: Floor | None = None
    not_measured: tuple[Finding, ...] = ()
    outside: tuple[Outside, ...] = ()
    standings: Standings = Standings()
    saved: tuple[Saved, ...] = ()  # by what the user left out
    lock: Lock = Lock("", (), ())

    @property
    def size(self) -> int:
        """The bytes of content that an archive holds."""
        return sum(item.entry.size for item in self.items)

    @property
    def relocates_itself(self) -> bool:
        """Whether ``bin/activate`` relocates the tree: it is ours, or a virtual environment's own with our head."""
        if self.manifest.stem == activation.STEM:
            return True
        own = b"bin/" + activation.STEM.encode()
        venv = self.environment.layout is Layout.VENV
        return venv and any(item.layers for item in self.items if item.entry.path == own)


_USUAL = Options()


def scan(
    environment: Environment,
    options: Options = _USUAL,
    leave_out: Collection[bytes] = (),
    progress: Progress = lambda count: None,
    beside: Beside | None = None,
) -> Scan:
    """Walk, read and match everything below the prefix.

    ``beside`` is told what was found there, and says what is packed beside it.
    ``leave_out`` are paths below the prefix that are no part of it, such as the output. ``progress`` is told the
    bytes as they are read. Raises EnvironmentUnfit for a damaged record, and for unreadable files unless these are
    ignored.
    """
    _keep_large_apart()
    with uncollected():
        scanned = _scan(environment, options, leave_out, progress, beside)
    _give_back()
    return scanned


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector of cycles from work.

    Some twenty objects a file are made by a scan, and kept, none in a cycle: it would look at all of them again and
    again, which took a fifth of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _keep_large_apart() -> None:
    """Have the C library take each large block from the system, and give it back when it is freed.

    By itself it takes from its heap whatever is no larger than the largest block that was ever freed: of records and
    lists of many megabytes holes stay, which were a tenth of all memory.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_M_TRIM_THRESHOLD, _LARGE)  # else each buffer is given back, to be asked for again at once


def _give_back() -> None:
    """Have the C library give back to the system what a scan needed: that is as much as writing takes."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _scan(
    environment: Environment, options: Options, leave_out: Collection[bytes], progress: Progress, beside: Beside | None
) -> Scan:
    prefix = os.fsencode(environment.prefix)
    started_ns = time.time_ns()
    earlier = Earlier.of(prefix)
    recorded = conda.read(environment.prefix) if environment.layout is Layout.CONDA else conda.NONE
    found, notes = _walked(prefix, earlier, leave_out)
    more = beside(found) if beside else vendor.NOTHING
    vendored = vendor.both(_vendored(prefix, environment, options.editables, found, notes), more)
    notes += vendored.notes
    found = vendor.joined(found, vendored)
    there = {each.path for each in found}
    missing = _missing(recorded, there)
    slimmed = slimming(options.slim, there) if options.slim else None
    selected = select(prefix, found, options.rules, slimmed, recorded.package_of)
    found = list(selected.found)
    elsewhere = run_paths.directories(found, prefix, environment.names)
    files = [each for each in found if each.kind is Kind.FILE]
    jobs = [_job(prefix, each, recorded, earlier, elsewhere, vendored) for each in files]
    locked = lock.of(prefix, recorded, found, vendored.sources)
    recorded = recorded._replace(owners={})  # a job has its own
    venv = environment.layout is Layout.VENV
    context = Context(prefix, environment.names, earlier.forms, options.grow_run_paths, venv)
    # What a common prefix names counts if it is there: then a verdict depends on other files.
    cache = None if any(map(is_common, environment.names)) else options.cache
    decisive = (recorded.site.encode(), earlier.digest)
    recall = Recall(cache, context, decisive, started_ns, options.trust_mtime)
    processes = options.workers or os.cpu_count() or 1
    verdicts = _judged(recall, files, jobs, recorded.digests, context, processes, progress)
    del recall, jobs, files  # which are much, and needed no more
    notes += [Finding(each.job.path, -1, UNREADABLE, each.error) for each in verdicts if each.error]
    notes += [*missing, *selected.notes, *brought(each.path for each in found)]
    _require_readable(environment, notes, options.ignore_unreadable)

    examined = {each.job.path: each for each in verdicts if not each.error}
    del verdicts
    standings = standing.of(examined, recorded, records.pip_claims(examined, context), tuple(missing))
    if options.strict:
        standing.require_as_installed(standings)
    examined = vendor.redirected(examined, vendored, context)
    dropped = byte_code.left_out(examined, functools.cache(functools.partial(records.pip_owned, examined, context)))
    notes += [Finding(path, -1, LEFT_OUT, why) for path, why in dropped.items()]
    examined = {path: each for path, each in examined.items() if path not in dropped}
    other_names = {each.path: each.target for each in found if each.kind is Kind.HARD_LINK}
    examined = records.with_pip_digests(examined, other_names, context)
    gone = frozenset((*dropped, *selected.left_out))
    examined = records.with_conda_meta(examined, recorded, gone, other_names, context, processes)
    found, privileges, lost = entries.without_bits(prefix, found, examined, options.keep_setuid)
    scanned = _assembled(environment, found, examined, notes + lost, privileges)
    return scanned._replace(standings=standings, saved=selected.saved, lock=locked)


def _judged(
    recall: Recall,
    files: Sequence[Found],
    jobs: Sequence[Job],
    digests: Mapping[str, str],
    context: Context,
    processes: int,
    progress: Progress,
) -> list[Examined]:
    """Return the verdict on each file: the one that is known, or that of an examination."""
    known = [recall(job, found, digests) for job, found in zip(jobs, files, strict=True)]
    unknown = [job for job, verdict in zip(jobs, known, strict=True) if verdict is None]
    fresh = workers.examined(unknown, context, processes, progress)
    verdicts = [verdict or next(fresh) for verdict in known]
    recall.keep(files, verdicts, [verdict is not None for verdict in known], digests)
    return verdicts


def listed(environment: Environment) -> tuple[conda.Records, list[Found]]:
    """Read the records of an environment, and list what is in it. Raises EnvironmentUnfit for a damaged record."""
    prefix = os.fsencode(environment.prefix)
    recorded = conda.read(environment.prefix) if environment.layout is Layout.CONDA else conda.NONE
    return recorded, _walked(prefix, Earlier.of(prefix), ())[0]


def require_no_editables(environment: Environment) -> None:
    """Raise EnvironmentUnfit for an environment with editable packages."""
    prefix = os.fsencode(environment.prefix)
    ways = editables.find(prefix, environment.names, listed(environment)[1])
    if ways:
        raise editables.refuse(prefix, ways)


def _vendored(
    prefix: bytes, environment: Environment, wanted: Editables, found: Sequence[Found], notes: list[Finding]
) -> Vendored:
    """Find what leads out of the prefix to editable packages, and do about it what is wanted."""
    ways = editables.find(prefix, environment.names, found)
    if ways and wanted is Editables.ERROR:
        raise editables.refuse(prefix, ways)
    if wanted is Editables.SKIP:
        notes += [Finding(each.path, -1, EDITABLE, encode(each.source)) for each in ways]
    return vendor.plan(prefix, ways) if wanted is Editables.VENDOR else vendor.NOTHING


def _walked(prefix: bytes, earlier: Earlier, leave_out: Collection[bytes]) -> tuple[list[Found], list[Finding]]:
    """Walk the prefix; tell what belongs to the environment from what does not, and note the latter."""
    found: list[Found] = []
    elsewhere = foreign.directories(prefix)
    notes = [Finding(path, -1, LEFT_OUT, what) for path, what in elsewhere.items()]
    skipped = frozenset((*leave_out, *elsewhere, *earlier.added))
    for each in walk.walk(prefix, skipped.__contains__):
        if each.error:
            notes.append(Finding(each.path, -1, UNREADABLE, each.error))
        elif each.kind is None:
            notes.append(Finding(each.path, -1, LEFT_OUT, each.special))
        elif each.path in conda.LITTER:
            notes.append(Finding(each.path, -1, LEFT_OUT, "a note of the installing client to itself"))
        else:
            found.append(each)
    cached = foreign.caches(prefix, found)
    notes += [Finding(path, -1, LEFT_OUT, what) for path, what in cached.items()]
    if cached:
        below = tuple(path + b"/" for path in cached)
        found = [each for each in found if not (each.path + b"/").startswith(below)]
    return found, notes


def _missing(recorded: conda.Records, there: Collection[bytes]) -> list[Finding]:
    """Note what a package owns and the prefix does not hold. Byte code comes and goes."""
    return [
        Finding(path, -1, standing.MISSING, f"of {owned.package}")
        for path, owned in recorded.owners.items()
        if path not in there and not owned.byte_code
    ]


def _require_readable(environment: Environment, notes: Sequence[Finding], ignore: bool) -> None:
    unreadable = [note for note in notes if note.what == UNREADABLE]
    if unreadable and not ignore:
        lines = [f"  {os.fsdecode(note.path) or '.'}: {note.detail}" for note in unreadable]
        too_long = any(note.detail == os.strerror(errno.ENAMETOOLONG) for note in unreadable)
        shorten = " The system opens no path of more than 4,095 bytes: shorten those." if too_long else ""
        raise EnvironmentUnfit(
            "\n".join([f"{environment.prefix}: {len(unreadable)} paths cannot be read:", *lines]),
            f"Pack as a user who may read them, or leave them out with --ignore-unreadable.{shorten}",
        )


def _job(
    prefix: bytes,
    found: Found,
    recorded: conda.Records,
    earlier: Earlier,
    elsewhere: Mapping[bytes, tuple[bytes, ...]],
    vendored: Vendored,
) -> Job:
    return Job(
        found.path,
        found.size,
        found.mtime_ns,
        recorded.owners.get(found.path),
        earlier.entries.get(found.path),
        earlier.relocatables.get(found.path),
        earlier.findings.get(found.path, ()) or vendored.findings.get(found.path, ()),
        elsewhere.get(found.path, ()),
        entries.is_privileged(prefix, found),
        vendored.sources.get(found.path, b""),
        vendored.layers.get(found.path, ()),
    )


def _assembled(
    environment: Environment,
    found: list[Found],
    examined: dict[bytes, Examined],
    notes: list[Finding],
    privileges: Mapping[bytes, Privileges],
) -> Scan:
    """Put the verdicts on all paths together. Memory would not hold both for long: these are used up on the way."""
    mtimes = byte_code.source_mtimes(examined)
    caches = byte_code.empty_caches(found, examined)
    with_history = conda.HISTORY in examined
    linked = {each.target for each in found if each.kind is Kind.HARD_LINK}
    items: list[Item] = []
    findings: list[Finding] = []
    referring: list[tuple[Entry, tuple[Reference, ...]]] = []
    binaries: dict[bytes, Binary] = {}
    names: dict[bytes, list[bytes]] = {}
    found.reverse()
    while found:
        each = found.pop()
        if each.kind is Kind.FILE:
            verdict = examined.get(each.path) if each.path in linked else examined.pop(each.path, None)
            if verdict is None:
                continue  # it is left out
            item = _file(each, verdict, mtimes.get(each.path))
            items.append(item)
            findings += verdict.findings
            if verdict.references:
                referring.append((item.entry, verdict.references))
            if verdict.binary is not None:
                binaries[each.path] = verdict.binary
        elif each.kind is Kind.HARD_LINK and each.target in examined:
            names.setdefault(each.target, []).append(each.path)
            first = examined[each.target]
            items.append(Item(_entry(each, first.standing, _package(first), FIXED_MTIME)))
        elif each.kind is Kind.HARD_LINK:
            notes.append(Finding(each.path, -1, LEFT_OUT, f"another name of {encode(each.target)}"))
        elif each.kind is Kind.DIRECTORY and each.path not in caches:
            items.append(Item(_entry(each, Standing.ADDED, "", FIXED_MTIME)))
        elif each.kind is Kind.SYMLINK:
            relative = links.inside(each, os.fsencode(environment.prefix), environment.names)
            if relative is None:
                findings.append(Finding(each.path, -1, LEAVES, encode(each.target)))
            entry = _entry(each, Standing.ADDED, "", FIXED_MTIME)
            items.append(Item(entry if relative is None else entry._replace(target=relative)))
    relocatables = [
        Relocatable(entry.path, tuple(names.get(entry.path, ())), entry.size, entry.sha256, references)
        for entry, references in referring
    ]
    if environment.layout is Layout.CONDA and not with_history:
        items = _with_history(items)
    paths = {item.entry.path for item in items}
    stem = "pack-activate" if b"bin/activate" in paths else "activate"
    added = tuple(sorted(activation.scripts(stem, None, b"", ())))
    clash = [path for path in added if path in paths]
    notes += [Finding(path, -1, LEFT_OUT, "replaced by ours of the same name") for path in clash]
    items = [item for item in items if item.entry.path not in added]
    if privileges:
        items = [item._replace(privileges=privileges.get(item.entry.path)) for item in items]
    notes += entries.same_but_case([*added, *(item.entry.path for item in items)])
    prefixes = {r.prefix for file in relocatables for r in file.references if r.prefix}
    ordered = tuple(sorted(prefixes, key=lambda prefix: (-len(prefix), prefix)))
    architecture = floor.own_architecture(binaries)
    return Scan(
        environment,
        tuple(items),
        Manifest(ordered, tuple(relocatables), added, stem),
        Listing(tuple(item.entry for item in items), tuple(findings)),
        tuple(sorted(notes, key=lambda note: (note.what, note.path))),
        architecture,
        floor.of_environment(binaries, architecture),
        floor.not_measured(binaries, architecture),
        floor.from_outside(binaries, architecture, paths),
    )


def _file(found: Found, verdict: Examined, source_mtime: int | None) -> Item:
    known = verdict.job.known
    if verdict.from_manifest and known is not None:
        mtime = known.mtime
    elif verdict.standing in (Standing.INTACT, Standing.GENERATED):
        mtime = FIXED_MTIME if source_mtime is None else source_mtime
    else:
        mtime = found.mtime_ns // 10**9
    mode = found.mode
    if verdict.standing is Standing.GENERATED:
        mode = 0o755 if mode & 0o100 else 0o644  # the client's umask is nobody's wish
    archived = verdict.archived
    entry = Entry(
        found.path, Kind.FILE, mode, archived.size, mtime, b"", archived.sha256, verdict.standing, _package(verdict)
    )
    return Item(entry, verdict.layers, found.size, found.mtime_ns, source=verdict.job.source)


def _entry(found: Found, standing: Standing, package: str, mtime: int) -> Entry:
    assert found.kind is not None
    mode = 0o777 if found.kind is Kind.SYMLINK else found.mode
    return Entry(found.path, found.kind, mode, 0, mtime, found.target, "", standing, package)


def _package(verdict: Examined) -> str:
    if verdict.from_manifest and verdict.job.known is not None:
        return verdict.job.known.package
    return verdict.job.owned.package if verdict.job.owned else ""


def _with_history(items: Sequence[Item]) -> list[Item]:
    """Add an empty ``conda-meta/history``: without one conda knows no environment there."""
    nothing = hashlib.sha256().hexdigest()
    entry = Entry(conda.HISTORY, Kind.FILE, 0o644, 0, FIXED_MTIME, b"", nothing, Standing.GENERATED, "")
    return sorted([*items, Item(entry, content=b"")], key=lambda item: item.entry.path.split(b"/"))
