"""What would become of every reference of an environment at one target."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NamedTuple

from installer_stub import target
from installer_stub.errors import NoRoom
from installer_stub.manifest import described, encode
from installer_stub.model import HARMLESS, NOT_REWRITABLE, Field, Finding, Fit, Force
from installer_stub.target import Fitted
from pack import report
from pack.scan import Scan


class Fitting(NamedTuple):
    """A target, and what becomes there of each string that names the prefix; ``left`` has no slot at all."""

    target: bytes
    name: bytes  # the last component of the environment's own prefix
    strings: tuple[Fitted, ...]
    left: tuple[Finding, ...]
    quoting: tuple[Finding, ...]

    def counts(self) -> dict[Fit, int]:
        """Count the strings that somebody reads, the worst fit first."""
        counted = Counter(each.fit for each in self.strings if each.reference.force is not Force.NEVER)
        counted[Fit.NOT_REWRITABLE] += len(self.left)
        return {fit: counted[fit] for fit in reversed(Fit) if counted[fit]}

    @property
    def harmless(self) -> int:
        """Count the strings in debug information, static archives and names of sources."""
        return sum(each.reference.force is Force.NEVER for each in self.strings)


def at(scan: Scan, prefix: bytes) -> Fitting:
    """Fit a scanned environment to a target. Raises TargetRefused for one where nothing can stand."""
    slots = [reference for file in scan.manifest.files for reference in file.references]
    target.check(prefix, any(reference.field is Field.TEXT for reference in slots))
    left = tuple(each for each in scan.listing.findings if each.what == NOT_REWRITABLE)
    return Fitting(
        prefix,
        os.path.basename(os.fsencode(scan.environment.prefix)),
        tuple(target.fits(scan.manifest, prefix)),
        left,
        tuple(target.needing_quotes(scan.manifest, prefix)),
    )


def as_json(fitted: Fitting) -> dict[str, Any]:
    """Describe it in plain JSON types: counts first, then every string that is not lossless, the worst first."""
    return {
        "target": encode(fitted.target),
        "counts": {fit.value: count for fit, count in fitted.counts().items()},
        "harmless": fitted.harmless,
        "refused": len(_refusing(fitted)),
        "strings": [_row(each) for each in _worst_first(fitted)],
        "left": [described(each) for each in fitted.left],
        "needing_quotes": [described(each) for each in fitted.quoting],
    }


def as_text(fitted: Fitting) -> str:
    """Describe it in lines for a person."""
    shown = encode(fitted.target)
    lines = [f"{shown}: what becomes there of every string that names the prefix"]
    lines += [f"{count:>11,}  {fit.value}" for fit, count in fitted.counts().items()]
    if fitted.harmless:
        lines.append(f"{fitted.harmless:>11,}  {HARMLESS}: debug information, static archives, names of sources")
    refusing = len(_refusing(fitted))
    lines.append(
        f"refused     {refusing:,} strings are in force and do not fit" if refusing else "accepted    by default"
    )
    if os.path.basename(fitted.target) == fitted.name:
        kept = f"the last component is {encode(fitted.name)!r} as before: strings that share an end keep it"
    else:
        kept = f"with {encode(fitted.name)!r} as its last component, every string that shares an end would keep it"
    lines.append(f"name        {kept}")
    for fit in (Fit.NOT_REWRITABLE, Fit.NO_ROOM, Fit.C_READERS):
        rows = [each for each in _worst_first(fitted) if each.fit is fit]
        lines += report.listed("not lossless", [_finding(each) for each in rows])
    lines += report.listed("left", fitted.left)
    lines += report.listed("check", fitted.quoting)
    return "\n".join(lines)


def require_lossless(fitted: Fitting) -> None:
    """Raise NoRoom unless every string that somebody reads is written without loss."""
    lossy = [_finding(each) for each in _worst_first(fitted)] + list(fitted.left)
    if lossy:
        lines = [_line(each) for each in lossy]
        raise NoRoom(
            f"{encode(fitted.target)}: not every reference would be written without loss.",
            lines,
            "Choose a target of the same length that ends in the environment's name, or do without --strict.",
        )


def _line(each: Finding) -> str:
    at = f" at byte {each.offset}" if each.offset >= 0 else ""
    return f"{encode(each.path)}{at}: {each.what}: {each.detail}"


def _refusing(fitted: Fitting) -> list[Fitted]:
    unfit = (Fit.NO_ROOM, Fit.NOT_REWRITABLE)
    return [each for each in fitted.strings if each.fit in unfit and each.reference.force is not Force.NEVER]


def _worst_first(fitted: Fitting) -> list[Fitted]:
    order = {fit: number for number, fit in enumerate(reversed(Fit))}
    read = [each for each in fitted.strings if each.reference.force is not Force.NEVER]
    lossy = [each for each in read if each.fit is not Fit.LOSSLESS]
    return sorted(lossy, key=lambda each: (order[each.fit], each.path, each.reference.offset))


def _row(each: Fitted) -> dict[str, Any]:
    return {
        "path": encode(each.path),
        "offset": each.reference.offset,
        "field": each.reference.field.value,
        "fit": each.fit.value,
        "force": each.reference.force.value,
        "need": each.need or None,
        "room": each.room or None,
        "reason": each.reason,
    }


def _finding(each: Fitted) -> Finding:
    detail = f"a {each.reference.field.value}"
    if each.room:
        detail += f" with room for {each.room} bytes"
    elif each.reason:
        detail += f": {each.reason}"
    return Finding(each.path, each.reference.offset, each.fit.value, detail)
