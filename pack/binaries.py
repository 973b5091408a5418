"""Decide how the strings of an ELF file are rewritten: who counts their bytes, and who shares their ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from installer_stub import dynstr, elf
from installer_stub.classify import Format
from installer_stub.elf import Elf, OddElf, ReadAt
from installer_stub.model import Field, Fill, Force, Reference
from installer_stub.references import Reading
from installer_stub.rewrite import Region, regions
from pack import languages, pointers

_STRINGS = (Field.C_STRING, Field.COUNTED)
_LOADED = (Field.RUN_PATH, Field.LOAD_COMMAND)


def refined(read_at: ReadAt, reading: Reading) -> Reading:
    """Give each string of an ELF file its field, its fill and the end that it shares with others.

    A string in a file of a language that counts keeps its length; so does one into which something points,
    which also keeps its end. Other formats, and damaged files, stay as they were read.
    """
    wanted = [each for each in reading.references if each.field in (*_STRINGS, *_LOADED)]
    if reading.format is not Format.ELF or not wanted:
        return reading
    try:
        parsed = elf.parse(read_at, reading.size)
        if parsed is None:
            return reading
        found = _counted(read_at, parsed, reading)
        found = _pointed(read_at, parsed, reading.size, found)
        found = _named(read_at, parsed, reading.size, found)
    except OddElf:
        return reading  # what is odd was reported when it was read
    return reading._replace(references=tuple(found))


def _counted(read_at: ReadAt, parsed: Elf, reading: Reading) -> list[Reference]:
    """Tell the strings whose readers may count bytes: NULs inside them would be part of the path."""
    if not any(each.field in _STRINGS for each in reading.references):
        return list(reading.references)
    if languages.counts_strings(read_at, reading.size, parsed) is None:
        return list(reading.references)
    return [
        each._replace(field=Field.COUNTED, fill=Fill.SLASHES, room=len(each.prefix)) if each.field in _STRINGS else each
        for each in reading.references
    ]


def _pointed(read_at: ReadAt, parsed: Elf, size: int, found: Sequence[Reference]) -> list[Reference]:
    """Find what points into strings: there another string begins, which the linker stored as the end of this one."""
    grouped = regions(found)
    strings = [region for region in grouped if region.references[0].field in _STRINGS]
    answers = pointers.pointed_at(read_at, size, parsed, [(region.start, region.end) for region in strings])
    inside = dict(zip(strings, answers, strict=True))
    return [each for region in grouped for each in _keeping(region, inside.get(region, ()))]


def _keeping(region: Region, inside: Sequence[int] | None) -> Iterator[Reference]:
    """Let a string keep its length where something points into it, and each of its slots the end that is shared.

    No other string is the end of a placeholder that a package recorded: what seems to point into that is chance.
    """
    if inside is None:
        yield from (each._replace(keep=None) for each in region.references)
        return
    placeholder = region.references[0].force is Force.ALWAYS
    names = [range(each.offset + 1, each.offset + len(each.prefix)) for each in region.references]
    pointed = [offset for offset in inside if not (placeholder and any(offset in name for name in names))]
    for each, name in zip(region.references, names, strict=True):
        if each.field not in _STRINGS:
            yield each
        elif pointed:
            shared = [offset for offset in pointed if offset in name]
            room = len(each.prefix)
            keep = each.offset + room - min(shared, default=each.offset + room)
            yield each._replace(fill=Fill.SLASHES, room=room, keep=keep)
        else:
            yield each._replace(keep=0)


def _named(read_at: ReadAt, parsed: Elf, size: int, found: Sequence[Reference]) -> list[Reference]:
    """Find the symbols, libraries and versions whose names are the ends of run paths and names of libraries."""
    if not any(each.field in _LOADED for each in found):
        return list(found)
    names = dynstr.names_in(read_at, size, parsed)
    out: list[Reference] = []
    for each in found:
        if each.field in _LOADED:
            inside = [name for name in names if each.offset < name < each.end]
            # The slot of an entry behind the first lies in that of the first, and begins no string.
            each = each._replace(keep=each.end - min(inside, default=each.end))
        out.append(each)
    return out
