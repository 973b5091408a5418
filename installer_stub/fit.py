"""Which references have room at a target, and what becomes of those that have: without reading their files."""

from __future__ import annotations

from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

from installer_stub import shebang
from installer_stub.model import Field, Fill, Fit, Force, Reference, Relocatable, Spelling
from installer_stub.rewrite import Form, Misfit, Region, misfit, regions
from installer_stub.spelling import spelled

_DERIVED = (Field.DIGEST, Field.PAGE_HASH)  # what other bytes decide


def misfits(file: Relocatable, form: Form) -> Iterator[Tuple[Reference, Misfit]]:
    """Yield every reference of a file that has no room in ``form``, without reading the file."""
    for part in regions(file.references):
        first = part.references[0]
        if first.field in _DERIVED or form.prefix is None:
            continue
        error = misfit(part, form)
        if error is not None:
            yield first, error


def fit(region: Region, form: Form) -> Fit:
    """Tell what becomes of a region that names the prefix in ``form``, without its content."""
    first = region.references[0]
    error = misfit(region, form)
    if error is not None:
        return Fit.NO_ROOM if error.room else Fit.NOT_REWRITABLE
    if form.prefix is None or first.fill in (Fill.GROW, Fill.KEEP, Fill.TERMINATE):
        return Fit.LOSSLESS
    if first.fill is Fill.NULS:
        same = all(len(form.prefix) == len(r.prefix) for r in region.references)
        return Fit.LOSSLESS if same or first.field is Field.LOAD_COMMAND else Fit.C_READERS
    # Another string may begin inside the prefix only if it is its end: "env" or "/env" of "/opt/env".
    kept = all(r.keep is not None or _name(form.prefix) == _name(r.prefix) for r in region.references)
    return Fit.LOSSLESS if kept else Fit.C_READERS


def _name(prefix: bytes) -> bytes:
    return prefix.rpartition(b"/")[2]


def longest_target(references: Iterable[Reference], forces: Sequence[Force]) -> Optional[int]:
    """Return the longest target in bytes for which every slot of those forces has room; None: no limit."""
    limits: List[int] = []
    for r in references:
        if r.force not in forces or r.fill is Fill.KEEP:
            continue
        if r.field is Field.LOAD_COMMAND and r.fill is Fill.NULS:
            limits.append(len(r.prefix) + r.room - len(r.archived.rstrip(b"\0")))
        elif r.fill is not Fill.GROW:
            wide = r.spelling in (Spelling.UTF16LE, Spelling.UTF16BE)
            limits.append(len(spelled(r.prefix, r.spelling)) // (2 if wide else 1))
        elif r.field is Field.SHEBANG:
            longest = shebang.longest(r.archived, r.prefix)
            limits += [] if longest is None else [longest]
    return min(limits, default=None)
