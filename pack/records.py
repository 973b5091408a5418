"""The digests that an environment keeps of its own files: ``RECORD`` and ``conda-meta``.

They are made to hold for the archived bytes, and become references where those bytes change again with
the prefix: only where they matched at pack time. A digest that was wrong before stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from installer_stub import references
from installer_stub.model import Field, Fill, Force, Reference, Spelling, Standing
from installer_stub.rewrite import Digest, digest_spelled
from pack import workers
from pack.archive import changed_while_packing
from pack.examine import Context, Examined, Job, Layers
from pack.layouts import conda
from pack.splice import Splice, pieces, stacked
from pack.squeezed import Squeezed

_BATCH_BYTES = 1 << 20  # of records: more are worth another process
_RECORD = re.compile(rb"(?:^|/)[^/]+\.dist-info/RECORD\Z")
_NOT_NORMAL = re.compile(rb"(?:^|/)\.{0,2}(?:/|\Z)")
_ROW = re.compile(rb"^(?P<path>\"(?:[^\"]|\"\")*\"|[^,\r\n]*),(?P<digest>[^,\r\n]*,[0-9]*)\r?$", re.MULTILINE)


class _Row(NamedTuple):
    path: bytes  # relative to the prefix
    start: int  # of the digest and the size, in the RECORD
    digest: bytes


class Claim(NamedTuple):
    """What the RECORD of a distribution says of a path."""

    distribution: str  # name and version
    digest: bytes

    def holds(self, disk: Digest) -> bool:
        """Whether a file is the one that was recorded."""
        return digest_spelled(disk, Spelling.RECORD) == self.digest


def pip_claims(examined: Mapping[bytes, Examined], context: Context) -> dict[bytes, Claim]:
    """Read what the RECORDs of distributions that no package owns say."""
    claims = {}
    for path, verdict in examined.items():
        if verdict.job.owned is None and _is_record(path):
            directory = os.path.basename(os.path.dirname(path))
            distribution = directory.removesuffix(b".dist-info").decode("utf-8", "backslashreplace")
            for row in _rows(path, content_of(verdict, context)):
                claims[row.path] = Claim(distribution, row.digest)
    return claims


def pip_owned(examined: Mapping[bytes, Examined], context: Context) -> frozenset[bytes]:
    """List the paths that the ``RECORD`` of an installed distribution claims."""
    return frozenset(
        row.path
        for path, verdict in examined.items()
        if _is_record(path)
        for row in _rows(path, content_of(verdict, context))
    )


def with_pip_digests(
    examined: Mapping[bytes, Examined], links: Mapping[bytes, bytes], context: Context
) -> dict[bytes, Examined]:
    """Refresh the digests in every RECORD of what pip installed. Those of a package are left as shipped.

    ``links`` gives the first name of the inode for each other name that a file has.
    """
    new = dict(examined)
    for path, verdict in examined.items():
        if verdict.standing is Standing.INTACT or not _is_record(path):
            continue
        if not _holds(verdict, examined):
            new[path] = _refreshed(verdict, examined, links, context)
    return new


def _refreshed(
    verdict: Examined, examined: Mapping[bytes, Examined], links: Mapping[bytes, bytes], context: Context
) -> Examined:
    path = verdict.job.path
    if verdict.from_manifest:  # the digests of an earlier packing hold no longer: begin with the disk
        verdict = verdict._replace(layers=(), references=(), from_manifest=False)
    content = content_of(verdict, context)
    splices: list[Splice] = []
    slots: list[Reference] = []
    shift = 0
    for row in _rows(path, content):
        first = links.get(row.path, row.path)
        of = examined.get(first)
        if of is None or digest_spelled(of.disk, Spelling.RECORD) != row.digest:
            continue
        written = digest_spelled(of.archived, Spelling.RECORD)
        if of.references:
            slots.append(_slot(row.start + shift, written, Spelling.RECORD, first))
        if written != row.digest:
            splices.append(Splice(row.start, len(row.digest), written))
            shift += len(written) - len(row.digest)
    layers = (*verdict.layers, tuple(splices)) if splices else verdict.layers
    return through(verdict, layers, slots, context)


def _is_record(path: bytes) -> bool:
    return path.endswith(b"/RECORD") and _RECORD.search(path) is not None


def _rows(record: bytes, content: bytes) -> Iterator[_Row]:
    """Read a RECORD: where each path is, and where its digest stands."""
    site = os.path.dirname(os.path.dirname(record))
    start = site + b"/" if site else b""
    for match in _ROW.finditer(content):
        path, digest = match.groups()
        if path.startswith(b'"'):
            path = path[1:-1].replace(b'""', b'"')
        if path.startswith(b"/"):
            continue
        inside = start + path
        if _NOT_NORMAL.search(path):
            inside = os.path.normpath(b"/" + inside)[1:]
        yield _Row(inside, match.start(2), digest)


def content_of(verdict: Examined, context: Context) -> bytes:
    """Read the archived bytes of a file."""
    with references.Opened(context.path_of(verdict.job)) as below:
        read_at, _ = stacked(below, verdict.job.size, verdict.layers)
        return b"".join(pieces(read_at))


def _slot(offset: int, written: bytes, spelling: Spelling, of: bytes) -> Reference:
    return Reference(offset, len(written), b"", Field.DIGEST, spelling, Fill.GROW, Force.NEVER, written, of)


def with_conda_meta(
    examined: Mapping[bytes, Examined],
    recorded: conda.Records,
    left_out: Collection[bytes],
    links: Mapping[bytes, bytes],
    context: Context,
    processes: int = 1,
) -> dict[bytes, Examined]:
    """Write every record of conda-meta, and its history, as they are archived; ``processes`` is how many do that.

    ``links`` as above.
    """
    new = dict(examined)
    changed = {path: verdict for path, verdict in examined.items() if _differs(verdict)}
    changed |= {name: changed[first] for name, first in links.items() if first in changed}
    archived = {conda.recorded(path): verdict.archived for path, verdict in changed.items()}
    gone = frozenset(map(conda.recorded, left_out))
    documents = [examined[path] for path in recorded.documents if path in examined]
    jobs = [verdict.job for verdict in documents if not _holds(verdict, examined)]

    def written(job: Job) -> Examined:
        # A record takes twice as much memory as its text: by then it is gone.
        text, marked = _canonical_text(job.path, examined[job.path], recorded.site, gone, archived, context)
        canonical = conda.filled(text, marked, archived)
        del text
        digested = [(offset, conda.on_disk(of)) for offset, of in canonical.digests]
        slots = tuple(
            _slot(offset, changed[of].archived.sha256.encode(), Spelling.HEX, links.get(of, of))
            for offset, of in digested
            if changed[of].references
        )
        return _written(examined[job.path], canonical.content, slots, context)

    new.update((verdict.job.path, verdict) for verdict in workers.judged(written, jobs, processes, most=_BATCH_BYTES))
    history = examined.get(conda.HISTORY)
    if history is not None and not history.from_manifest:
        content = conda.canonical_history(content_of(history, context))
        new[conda.HISTORY] = _written(history, content, (), context)
    return new


def _canonical_text(
    path: bytes,
    verdict: Examined,
    site: str,
    left_out: Collection[str],
    archived: Mapping[str, Digest],
    context: Context,
) -> tuple[list[str], list[str]]:
    """Read a record again, and write it anew, as `conda.canonical_text` does."""
    document, sha256 = conda.document(Path(os.fsdecode(os.path.join(context.prefix, path))))
    if sha256 != verdict.disk.sha256:
        raise changed_while_packing(os.path.join(context.prefix, path), "its content is another")
    return conda.canonical_text(document, site, left_out, archived)


def _differs(verdict: Examined) -> bool:
    """Whether an intact file's bytes are not the package's, as archived or when it is relocated."""
    if verdict.standing is not Standing.INTACT or verdict.job.owned is None:
        return False
    return bool(verdict.references) or verdict.archived.sha256 != verdict.job.owned.sha256


def _holds(verdict: Examined, examined: Mapping[bytes, Examined]) -> bool:
    """Whether the archived bytes of an earlier packing still hold: so do those of all that it digests."""
    digested = [examined.get(reference.of) for reference in verdict.references if reference.of]
    return verdict.from_manifest and all(of is not None and of.from_manifest for of in digested)


def _written(verdict: Examined, content: bytes, slots: Sequence[Reference], context: Context) -> Examined:
    """Archive ``content`` in the place of a file."""
    verdict = verdict._replace(standing=Standing.GENERATED, from_manifest=False)
    return through(verdict, ((Splice(0, verdict.job.size, Squeezed(content)),),), slots, context)


def through(verdict: Examined, layers: Layers, slots: Sequence[Reference], context: Context) -> Examined:
    """Archive a file as it is through ``layers``; what it says of the prefix besides ``slots`` is a reference, too."""
    path = verdict.job.path
    with references.Opened(context.path_of(verdict.job)) as below:
        read_at, size = stacked(below, verdict.job.size, layers)
        reading = references.read(read_at, size, path, context.names)
    merged = sorted((*reading.references, *slots), key=lambda reference: reference.offset)
    return verdict._replace(
        archived=Digest(reading.sha256, reading.size),
        layers=layers,
        references=tuple(merged),
        findings=reading.findings,
    )
