"""What a scan tells a person or a program."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from installer_stub import target
from installer_stub.manifest import described, encode
from installer_stub.model import Fill, Finding, Force, Standing
from installer_stub.slots import HARMLESS
from pack import deep, entries
from pack.scan import ABSENT, Scan

_SHOWN = 20  # lines of one kind in the text; JSON has all

_ACCEPTED = (Force.ALWAYS, Force.UNLESS_ALLOWED)
_COMPLETE = (Force.ALWAYS, Force.UNLESS_ALLOWED, Force.NEVER)


def limits(scan: Scan) -> dict[str, Any]:
    """Compute the two target limits: ``complete`` rewrites everything, ``accepted`` is not refused.

    Each is ``{"bytes": n, "files": [...]}`` with the files that set it, or None where nothing limits.
    """
    return {name: _limit(scan, forces) for name, forces in (("complete", _COMPLETE), ("accepted", _ACCEPTED))}


def _limit(scan: Scan, forces: Sequence[Force]) -> dict[str, Any] | None:
    longest = target.longest(scan.manifest, forces)
    if longest is None:
        return None
    return {"bytes": longest[0], "files": [encode(path) for path in longest[1]]}


def as_json(scan: Scan) -> dict[str, Any]:
    """Describe a scan in plain JSON types. Paths are UTF-8 with ``%`` and other bytes percent-encoded."""
    every = [reference for file in scan.manifest.files for reference in file.references]
    slots = [reference for reference in every if reference.fill is not Fill.KEEP]
    return {
        "prefix": encode(os.fsencode(scan.environment.prefix)),
        "layout": scan.environment.layout.value,
        "bytes": scan.size,
        "entries": _counted(item.entry.kind.value for item in scan.items),
        "standing": _counted(item.entry.standing.value for item in scan.items if item.entry.sha256),
        "modified": [encode(item.entry.path) for item in scan.items if item.entry.standing is Standing.MODIFIED],
        "references": _counted(slot.field.value for slot in slots),
        "made_relative": len(every) - len(slots),
        "harmless": sum(slot.force is Force.NEVER and slot.prefix != b"" for slot in slots),
        "files_with_references": sum(file.is_rewritten for file in scan.manifest.files),
        "prefixes": [encode(prefix) for prefix in scan.manifest.prefixes],
        "limits": limits(scan),
        "architecture": scan.architecture,
        "glibc": scan.floor.glibc if scan.floor else None,
        "glibc_file": encode(scan.floor.path) if scan.floor else None,
        "not_measured": [described(each) for each in scan.not_measured],
        "findings": [described(each) for each in scan.listing.findings],
        "notes": [described(note) for note in scan.notes],
    }


def as_text(scan: Scan) -> str:
    """Describe a scan in lines for a person."""
    facts = as_json(scan)
    files = facts["entries"].get("file", 0)
    lines = [
        f"{facts['prefix']}: a {facts['layout']} environment, {len(scan.items):,} entries, "
        f"{files:,} files, {scan.size / 1e6:,.1f} MB",
        f"files       {_joined(facts['standing'])}",
        f"references  {sum(facts['references'].values()):,} in {facts['files_with_references']:,} files: "
        f"{_joined(facts['references'])}",
    ]
    if facts["made_relative"]:
        paths = "run path" if facts["made_relative"] == 1 else "run paths"
        lines.append(f"relative    {facts['made_relative']:,} {paths}: made relative to the file, never rewritten")
    if facts["harmless"]:
        lines.append(f"harmless    {facts['harmless']:,} of them: debug information, static archives, names of sources")
    lines += limits_text(scan)
    if scan.floor:
        lines.append(f"glibc       {scan.floor.glibc} or newer ({encode(scan.floor.path)})")
    name = encode(os.path.basename(os.fsencode(scan.environment.prefix)))
    lines.append(
        f"target      any directory named {name!r} is best: strings that keep their length keep their ends, too"
    )
    modified = [
        Finding(item.entry.path, -1, "modified since it was installed", item.entry.package)
        for item in scan.items
        if item.entry.standing is Standing.MODIFIED
    ]
    lines += listed("as it stands", modified)
    lines += listed("rebuilt", [f for f in scan.listing.findings if f.what == deep.GROWN])
    lines += listed("glibc", scan.not_measured)
    certain = [f for f in scan.listing.findings if f.what not in (HARMLESS, deep.GROWN)]
    lines += listed("not rewritten", certain)
    harmless = sum(f.what == HARMLESS for f in scan.listing.findings)
    if harmless:
        lines.append(f"harmless    {harmless:,} files of byte code name their sources, which Python mends")
    lines += listed("not archived", [note for note in scan.notes if note.what != entries.CASE])
    lines += listed("archived", [note for note in scan.notes if note.what == entries.CASE])
    return "\n".join(lines)


def warnings(scan: Scan) -> list[str]:
    """Say in at most two lines what the packed environment lacks."""
    absent = sum(note.what in ABSENT for note in scan.notes)
    bare = len({note.path for note in scan.notes if note.what not in (*ABSENT, entries.CASE)})
    lines = [f"{absent:,} paths are not archived; pack scan lists them"] if absent else []
    return [*lines, f"{bare:,} paths lose bits or attributes; pack scan lists them"] if bare else lines


def limits_text(scan: Scan) -> list[str]:
    """Describe the two target limits in two lines."""
    words = {"complete": "everything is rewritten", "accepted": "nothing is refused"}
    lines = []
    for name, limit in limits(scan).items():
        if limit is None:
            lines.append(f"limit       none: {words[name]} at a target of any length")
            continue
        more = len(limit["files"]) - 1
        others = f" and {more} more" if more else ""
        lines.append(f"limit       {limit['bytes']} bytes: {words[name]} up to there ({limit['files'][0]}{others})")
    return lines


def listed(title: str, findings: Sequence[Finding]) -> list[str]:
    """Describe findings in lines: how many of each kind, and the first of them."""
    lines = []
    for what, count in Counter(finding.what for finding in findings).most_common():
        lines.append(f"{title}: {count:,} {what}")
        shown = [finding for finding in findings if finding.what == what]
        for finding in shown[:_SHOWN]:
            at = f" at byte {finding.offset}" if finding.offset >= 0 else ""
            detail = f": {finding.detail}" if finding.detail else ""
            lines.append(f"  {encode(finding.path)}{at}{detail}")
        if count > _SHOWN:
            lines.append(f"  and {count - _SHOWN:,} more; --json lists all")
    return lines


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _joined(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
