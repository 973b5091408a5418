"""What a scan tells a person or a program."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from installer_stub import target
from installer_stub.manifest import described, encode
from installer_stub.model import HARMLESS, Fill, Finding, Force, Kind, Standing
from pack import brought, deep, entries
from pack.dereference import NOWHERE
from pack.scan import ABSENT, EDITABLE, LEAVES, Scan
from pack.selection import EXCLUDED, UNMATCHED
from pack.selection import described as described_savings

_SHOWN = 20  # lines of one kind in the text; JSON has all
_NAMED = 8  # libraries in the line of the text

_ARCHIVED = (entries.CASE, *brought.TOLD)  # notes about what is in the archive

_PYTHON = re.compile(rb"bin/python[0-9.]*\Z")
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
        **_standings(scan),
        "left_out": [
            {"why": each.why, "package": each.package, "files": each.files, "bytes": each.size} for each in scan.saved
        ],
        "references": _counted(slot.field.value for slot in slots),
        "made_relative": len(every) - len(slots),
        "harmless": sum(slot.force is Force.NEVER and slot.prefix != b"" for slot in slots),
        "files_with_references": sum(file.is_rewritten for file in scan.manifest.files),
        "prefixes": [encode(prefix) for prefix in scan.manifest.prefixes],
        "limits": limits(scan),
        "architecture": scan.architecture,
        "glibc": scan.floor.glibc if scan.floor else None,
        "glibc_file": encode(scan.floor.path) if scan.floor else None,
        "libraries_outside": [
            {"name": encode(each.name), "files": [encode(path) for path in each.files]} for each in scan.outside
        ],
        "not_measured": [described(each) for each in scan.not_measured],
        "findings": [described(each) for each in scan.listing.findings],
        "notes": [described(note) for note in scan.notes],
    }


def _standings(scan: Scan) -> dict[str, Any]:
    """Tell the paths apart: restored and added ones by their names, the others with who is involved."""
    told = scan.standings
    kinds = {"modified": told.modified, "missing": told.missing, "clobbered": told.clobbered}
    by_kind = {name: [described(each) for each in findings] for name, findings in kinds.items()}
    added = [item.entry.path for item in scan.items if item.entry.sha256 and item.entry.standing is Standing.ADDED]
    paths = {"restored": told.restored, "added": added}
    return {**{name: [encode(path) for path in each] for name, each in paths.items()}, **by_kind}


def as_text(scan: Scan) -> str:
    """Describe a scan in lines for a person."""
    facts = as_json(scan)
    files = facts["entries"].get("file", 0)
    lines = [
        f"{facts['prefix']}: a {facts['layout']} environment, {len(scan.items):,} entries, "
        f"{files:,} files, {scan.size / 1e6:,.1f} MB",
        f"files       {_joined(facts['standing'])}{_restored(scan)}",
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
    if scan.outside:
        names = [encode(each.name) for each in scan.outside]
        more = f" and {len(names) - _NAMED:,} more; --json lists all" if len(names) > _NAMED else ""
        lines.append(f"libraries   from the machine, beside glibc's: {', '.join(names[:_NAMED])}{more}")
    name = encode(os.path.basename(os.fsencode(scan.environment.prefix)))
    lines.append(
        f"target      any directory named {name!r} is best: strings that keep their length keep their ends, too"
    )
    lines += [f"{'':12}{line}" for line in described_savings(scan.saved)]
    lines += listed("as it stands", (*scan.standings.clobbered, *scan.standings.modified))
    lines += listed("rebuilt", [f for f in scan.listing.findings if f.what == deep.GROWN])
    lines += listed("glibc", scan.not_measured)
    certain = [f for f in scan.listing.findings if f.what not in (HARMLESS, deep.GROWN)]
    lines += listed("not rewritten", certain)
    harmless = sum(f.what == HARMLESS for f in scan.listing.findings)
    if harmless:
        lines.append(f"harmless    {harmless:,} files of byte code name their sources, which Python mends")
    absent = [note for note in scan.notes if note.what not in (*_ARCHIVED, EXCLUDED, UNMATCHED)]
    lines += listed("not archived", absent)
    lines += [f"{note.detail} {note.what}" for note in scan.notes if note.what == UNMATCHED]
    lines += listed("archived", [note for note in scan.notes if note.what in _ARCHIVED])
    return "\n".join(lines)


def sizes(scan: Scan) -> list[dict[str, Any]]:
    """Tell of each package, the largest first, its files and bytes: of all ``before``, and of those packed ``after``.

    What no package owns is told under the name "".
    """
    files: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for item in scan.items:
        if item.entry.kind in (Kind.FILE, Kind.SYMLINK):
            files[item.entry.package] += 1
            size[item.entry.package] += item.entry.size
    gone_files: Counter[str] = Counter()
    gone_size: Counter[str] = Counter()
    for each in scan.saved:
        gone_files[each.package] += each.files
        gone_size[each.package] += each.size
    packages = sorted({*files, *gone_files}, key=lambda name: (-size[name] - gone_size[name], name))
    return [
        {
            "package": name,
            "before": {"files": files[name] + gone_files[name], "bytes": size[name] + gone_size[name]},
            "after": {"files": files[name], "bytes": size[name]},
        }
        for name in packages
    ]


def sizes_text(scan: Scan) -> list[str]:
    """Describe the sizes of packages in lines, with their sum."""
    rows = sizes(scan)
    kinds = ("before", "after")
    total = {kind: {key: sum(row[kind][key] for row in rows) for key in ("files", "bytes")} for kind in kinds}
    rows.append({"package": "all", **total})
    lines = [f"{'MB before':>10} {'MB after':>10} {'files before':>13} {'files after':>12}  package"]
    for row in rows:
        before, after = row["before"], row["after"]
        lines.append(
            f"{before['bytes'] / 1e6:10,.1f} {after['bytes'] / 1e6:10,.1f} "
            f"{before['files']:13,} {after['files']:12,}  {row['package'] or '(no package)'}"
        )
    return lines


def warnings(scan: Scan) -> list[str]:
    """Say in a few lines what the packed environment lacks."""
    absent = sum(note.what in (*ABSENT, NOWHERE) for note in scan.notes)
    told = (*ABSENT, NOWHERE, *_ARCHIVED, EXCLUDED, UNMATCHED, EDITABLE)
    bare = len({note.path for note in scan.notes if note.what not in told})
    lines = [f"{note.detail} {note.what}" for note in scan.notes if note.what == UNMATCHED]
    left = {note.detail for note in scan.notes if note.what == EDITABLE}
    outside = {note.detail for note in scan.listing.findings if note.what == LEAVES and _PYTHON.match(note.path)}
    lines += [
        f"its Python is not packed: where it goes, {each} must be, too; --with-python packs it"
        for each in sorted(outside)
    ]
    lines += [f"{len(left):,} sources of editable packages stay behind; pack scan lists them"] if left else []
    lines += [f"{absent:,} paths are not archived; pack scan lists them"] if absent else []
    other = len(scan.standings.modified) + len(scan.standings.clobbered)
    if other:
        lines.append(f"{other:,} paths are packed as they are, not as their packages were; pack scan lists them")
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


def _restored(scan: Scan) -> str:
    count = len(scan.standings.restored)
    return f"; {count:,} of them restored to what their packages shipped" if count else ""


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _joined(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
