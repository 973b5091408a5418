"""Hold a tree against its manifest: hashes, and names of prefixes where it stands no longer."""

from __future__ import annotations

import os
import re
import stat
from typing import Dict, Iterator, List, Optional, Tuple

from installer_stub import manifest, match, references, staging, walk
from installer_stub.fit import misfits
from installer_stub.model import HARMLESS, NOT_REWRITABLE, Entry, Fill, Finding, Kind, Relocatable
from installer_stub.relocate import Tree, listing_of
from installer_stub.rewrite import Form, Misfit, slashes

CHANGED = "changed"
MISSING = "missing"
ADDED = "added"
LEFT_OVER = "left-over reference"
UNREADABLE = "unreadable"

_RECORD = re.compile(rb"conda-meta/[^/]+\.json\Z")

# Somebody's own files, and files that somebody changed, are no damage.
NO_DAMAGE = (ADDED, HARMLESS, staging.NO_ROOM)


def verify(tree: Tree) -> List[Finding]:
    """Compare every file with the manifest and look for left-over references.

    A left-over reference names a placeholder, or a prefix where the tree stood before. Returns findings
    by path; those whose ``what`` is in NO_DAMAGE are not damage.
    """
    listing = listing_of(tree)
    files = {file.path: file for file in tree.manifest.files}
    entries = {entry.path: entry for entry in listing.entries}
    found: Dict[bytes, walk.Found] = {
        f.path: f for f in walk.walk(tree.root, lambda path: manifest.is_ours(path, tree.manifest))
    }
    findings: List[Finding] = []
    for entry in listing.entries:
        if entry.path not in found:
            findings.append(Finding(entry.path, -1, MISSING))
        else:
            first = entries.get(entry.target, entry) if entry.kind is Kind.HARD_LINK else entry
            findings += _compare(tree, entry, first, found[entry.path], files)
    stale = _stale_prefixes(tree)
    current = tree.state.prefix
    for path, item in found.items():
        if path not in entries and item.kind is not Kind.DIRECTORY:
            findings.append(Finding(path, -1, ADDED))
        if item.kind is Kind.FILE:
            # A record of conda-meta tells its package's placeholder as a fact.
            facts = tree.manifest.prefixes if _RECORD.match(path) else ()
            wanted = tuple(prefix for prefix in stale if prefix not in facts)
            left = _left_over(tree, item, wanted, files.get(path))
            findings += _with_permitted(tree, files.get(path), list(left))
        elif item.kind is Kind.SYMLINK:
            for prefix in stale:
                if current is not None and match.within(item.target, prefix) and not match.within(item.target, current):
                    findings.append(Finding(path, -1, LEFT_OVER, os.fsdecode(item.target)))
                    break
    return sorted(findings, key=lambda f: (f.path, f.offset, f.what))


def _compare(
    tree: Tree, entry: Entry, first: Entry, found: walk.Found, files: Dict[bytes, Relocatable]
) -> Iterator[Finding]:
    """Compare a path with its entry; ``first`` is the entry of its inode's first name."""
    if found.error:
        yield Finding(entry.path, -1, UNREADABLE, found.error)
        return
    full = os.path.join(tree.root, entry.path)
    kinds = (Kind.FILE, Kind.HARD_LINK)
    if found.kind is not entry.kind and not (found.kind in kinds and entry.kind in kinds):
        yield Finding(entry.path, -1, CHANGED, f"it was a {entry.kind.value}")
    elif entry.kind is Kind.SYMLINK:
        if found.target != entry.target:
            yield Finding(entry.path, -1, CHANGED, "it leads elsewhere")
    elif entry.kind in kinds:
        file = files.get(first.path) or Relocatable(first.path, (), first.size, first.sha256, ())
        forms = [stand.form for stand in tree.state.stands] if file.references else [Form(None)]
        if not any(staging.is_in_form(full, file, form) for form in forms):
            yield Finding(entry.path, -1, CHANGED, "its bytes are not those of the manifest")
    # A directory that is made in one with the setgid bit has it, too.
    inherited = stat.S_ISGID if entry.kind is Kind.DIRECTORY else 0
    lost, gained = entry.mode & ~found.mode, found.mode & ~entry.mode & ~inherited
    # What the umask of whoever unpacked it took from group and others is no damage.
    if entry.kind is not Kind.SYMLINK and (gained or lost & 0o700):
        yield Finding(entry.path, -1, "mode", f"{found.mode:o}, and it was {entry.mode:o}")


def _stale_prefixes(tree: Tree) -> Tuple[bytes, ...]:
    """Every prefix that nothing should name any more, the longest first."""
    current = tree.state.prefix
    if current is None:
        return ()
    named = {*tree.manifest.prefixes, *tree.state.history} - {current}
    return tuple(sorted(named, key=len, reverse=True))


def _with_permitted(tree: Tree, file: Optional[Relocatable], left: List[Finding]) -> List[Finding]:
    """Tell the references that keep an old path because the target was accepted without them."""
    if file is None or not left or tree.state.prefix is None:
        return left
    kept = {reference.offset for reference, _ in misfits(file, Form(tree.state.prefix))}
    return [
        Finding(f.path, f.offset, staging.NO_ROOM, f.detail) if f.what == LEFT_OVER and f.offset in kept else f
        for f in left
    ]


def _left_over(
    tree: Tree, found: walk.Found, stale: Tuple[bytes, ...], file: Optional[Relocatable]
) -> Iterator[Finding]:
    if not stale:
        return
    # The old tail behind a terminated string may name the prefix once more; no loader reads that far.
    slots = file.references if file is not None else ()
    tails = [(slot.offset, slot.end) for slot in slots if slot.fill is Fill.TERMINATE]
    tails += [(slot.offset - 1, slot.end) for slot in slots if slot.fill is Fill.KEEP]
    current = tree.state.prefix or b""
    full = os.path.join(tree.root, found.path)
    try:
        with references.Opened(full) as read_at:
            reading = references.read(read_at, found.size, found.path, (current, *stale), root=tree.root)
            # /a/env/env may be written /a/env////env, and is not /a/env then.
            right = {
                slot.offset
                for slot in slots
                if slot.fill is Fill.SLASHES and _is_lengthened(current, read_at(slot.offset, len(slot.prefix)))
            }
    except OSError as error:
        yield Finding(found.path, -1, UNREADABLE, error.strerror or "")
        return
    for reference in reading.references:
        # The search takes the longest at each place, so a stale prefix inside the current one is no hit.
        if reference.prefix in (b"", current) or reference.offset in right:
            continue
        if not any(start < reference.offset < end for start, end in tails):
            yield Finding(found.path, reference.offset, LEFT_OVER, os.fsdecode(reference.prefix))
    for finding in reading.findings:
        if finding.what == NOT_REWRITABLE and finding.offset >= 0:
            with references.Opened(full) as read_at:
                window = read_at(finding.offset, len(current))
            if window != current:
                yield Finding(found.path, finding.offset, LEFT_OVER, finding.detail)


def _is_lengthened(prefix: bytes, written: bytes) -> bool:
    try:
        return written == slashes(prefix, len(written))
    except Misfit:
        return False
