"""Make run paths that name the prefix relative to the file that holds them: they then need no rewriting.

The loader puts the directory of the file, as it was opened, in the place of ``$ORIGIN``. So a library that is
also opened through a link in another directory may look in the wrong place, and keeps its absolute run path.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from installer_stub import match, rewrite
from installer_stub.elf import ReadAt
from installer_stub.model import Field, Fill, Kind, Reference
from installer_stub.rewrite import Region
from installer_stub.walk import Found
from pack.splice import Splice

_ORIGIN = b"$ORIGIN"


class Relative(NamedTuple):
    """What becomes of a file: the edits, and its references after them."""

    splices: tuple[Splice, ...]
    references: tuple[Reference, ...]


def directories(found: Sequence[Found], prefix: bytes, names: Collection[bytes]) -> Mapping[bytes, tuple[bytes, ...]]:
    """Find the directories from which files of the prefix can be opened, where there is more than their own.

    These are of the other names of an inode and of symlinks, through whatever chain of links, that lead to it.
    ``names`` are those of the prefix. A link to a directory changes nothing: the kernel finds the true parent.
    """
    reached: dict[bytes, set[bytes]] = {}
    for each in found:
        if each.kind is Kind.HARD_LINK:
            reached.setdefault(each.target, set()).add(os.path.dirname(each.path))
        elif each.kind is Kind.SYMLINK:
            final = os.path.realpath(os.path.join(prefix, each.path))
            inside = next((final[len(name) + 1 :] for name in names if match.within(final, name)), None)
            if inside is not None:
                reached.setdefault(inside, set()).add(os.path.dirname(each.path))
    # A link may lead to a second name of an inode, which stands for the first.
    first = {each.path: each.target for each in found if each.kind is Kind.HARD_LINK}
    for name, owner in first.items():
        reached[owner] |= reached.get(name, set())
    return {path: tuple(sorted(where)) for path, where in reached.items()}


def made_relative(
    read_at: ReadAt, path: bytes, elsewhere: Sequence[bytes], found: Sequence[Reference]
) -> Relative | None:
    """Make the run paths of the file at ``path`` relative where they fit in their place; None where none does.

    ``found`` are its references; ``elsewhere`` are the other directories that it is opened from. The old tail of
    a string is left, since other strings may share it.
    """
    origins = {os.path.dirname(path), *elsewhere}
    splices: list[Splice] = []
    kept: list[Reference] = []
    for region in rewrite.regions(found):
        new = _relative(read_at, region, origins) if region.references[0].field is Field.RUN_PATH else None
        if new is None:
            kept += region.references
            continue
        room = region.end - region.start
        splices.append(Splice(region.start, room, new))
        archived = read_at(region.start, room)
        kept.append(region.references[0]._replace(room=room, fill=Fill.KEEP, archived=archived, keep=0))
    return Relative(tuple(splices), tuple(kept)) if splices else None


def relative_entries(run_path: bytes, prefixes: Collection[bytes], origins: Collection[bytes]) -> bytes | None:
    """Write a run path with ``$ORIGIN`` for every directory in a prefix; None where origins disagree.

    ``origins`` are relative to the prefix.
    """
    written = {_entries(run_path, prefixes, origin) for origin in origins}
    return written.pop() if len(written) == 1 else None


def _entries(run_path: bytes, prefixes: Collection[bytes], origin: bytes) -> bytes:
    entries: list[bytes] = []
    for entry in run_path.split(b":"):
        prefix = next((each for each in prefixes if match.within(entry, each)), None)
        if prefix is None:
            entries.append(entry)
            continue
        inside = entry[len(prefix) :].strip(b"/")
        way = os.path.relpath(b"/" + inside, b"/" + origin)
        if b".." in inside.split(b"/"):  # behind a link the kernel's way up is another than the text's
            way = os.path.join(b"../" * (origin.count(b"/") + 1 if origin else 0), inside)
        entries.append(_ORIGIN if way == b"." else _ORIGIN + b"/" + way)
    return b":".join(entries)


def _relative(read_at: ReadAt, region: Region, origins: Collection[bytes]) -> bytes | None:
    """Write the slot of a run path anew, in its length; None where it does not fit or is no whole entry."""
    room = region.end - region.start
    old = read_at(region.start, room)
    if region.start and read_at(region.start - 1, 1) not in (b":", b"\0"):
        return None
    prefixes = sorted({reference.prefix for reference in region.references}, key=len, reverse=True)
    new = relative_entries(old, prefixes, origins)
    if new is None or new == old:
        return None
    if len(new) + 1 + region.keep <= room:
        return new + b"\0" + old[len(new) + 1 :]
    # The rest of the string must stay in its place: slashes behind the first $ORIGIN lengthen what is before.
    head, origin, rest = new.partition(_ORIGIN + b"/")
    padded = head + origin + b"/" * (room - len(new)) + rest if origin else new
    kept = padded[room - region.keep :] == old[room - region.keep :]
    return padded if len(padded) == room and kept else None
