"""List the strings that begin in the dynamic string table of an ELF file: each may be the end of a longer one.

Among them are the names of the versions that a file needs of its libraries.
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, Set, Tuple

from installer_stub.elf import (
    DT_NEEDED,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    SHT_DYNSYM,
    Elf,
    ElfBytes,
    OddElf,
    ReadAt,
    offset_of,
)

_DT_HASH, _DT_SYMTAB, _DT_GNU_HASH, _DT_VERDEF, _DT_VERNEED = 4, 6, 0x6FFFFEF5, 0x6FFFFFFC, 0x6FFFFFFE
_NAMES = (
    *(DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH),
    *(0x6FFFFEFA, 0x6FFFFEFB, 0x6FFFFEFC),  # DT_CONFIG, DT_DEPAUDIT, DT_AUDIT
    *(0x7FFFFFFD, 0x7FFFFFFF),  # DT_AUXILIARY, DT_FILTER
)
# DT_PLTGOT, DT_HASH, DT_STRTAB, DT_RELA, DT_INIT, DT_FINI, DT_REL, DT_JMPREL, DT_RELR: addresses in the file.
_TABLES = (3, 4, 5, 7, 12, 13, 17, 23, 36, _DT_GNU_HASH, 0x6FFFFFF0, _DT_VERDEF, _DT_VERNEED)  # and DT_VERSYM
_WIDE_HASH = (22, 0x9026)  # s390x and Alpha: the words of their 64-bit hash tables have 8 bytes

# More than real files have.
_MAX_VERSIONS = 1 << 17
_MAX_CHAIN = 1 << 16


def names_in(read_at: ReadAt, size: int, elf: Elf) -> Tuple[int, ...]:
    """Return the offsets in the file, sorted, at which the strings in use of the dynamic string table begin.

    They are the names of the dynamic symbols, of libraries and versions, and the run paths. A linker stores
    "lib" as the end of "/opt/env/lib": then an offset lies inside of another string. Raises OddElf, also where
    nothing tells how many symbols there are: for that the loader has its hash tables, and section headers
    are asked too.
    """
    if elf.dynstr is None:
        return ()
    file = ElfBytes(read_at, size, "<" if elf.little_endian else ">", elf.bits)
    start, length = elf.dynstr
    names: Set[int] = {value for tag, value in elf.dynamic if tag in _NAMES}
    values = dict(elf.dynamic)
    names.update(_symbol_names(file, elf, values))
    for library, versions in needed_versions(file, elf):
        names.update((library, *(name for _, name in versions)))
    if _DT_VERDEF in values:
        for _, parts in _linked(file, elf, values[_DT_VERDEF], "12x2I", "2I"):
            names.update(name for (name,) in parts)
    return tuple(start + name for name in sorted(names) if name < length)


def _symbol_names(file: ElfBytes, elf: Elf, values: Dict[int, int]) -> Iterator[int]:
    symbol = struct.Struct(file.order + ("I20x" if elf.bits == 64 else "I12x"))
    tables = [(section.offset, section.size // symbol.size) for section in elf.sections if section.type == SHT_DYNSYM]
    if _DT_SYMTAB in values:
        offset = offset_of(elf.segments, values[_DT_SYMTAB], "table of symbols")
        counts = [count for at, count in tables if at == offset]
        if _DT_HASH in values:
            word = "Q" if elf.bits == 64 and elf.machine in _WIDE_HASH else "I"
            head = struct.Struct(f"{file.order}2{word}")
            at = offset_of(elf.segments, values[_DT_HASH], "hash table")
            counts.append(head.unpack(file.read(at, head.size, "hash table"))[1])
        if _DT_GNU_HASH in values:
            counts.append(_hashed(file, offset_of(elf.segments, values[_DT_GNU_HASH], "hash table")))
        if not any(counts):  # up to what follows: bytes that are no symbols only make for more names
            behind = [values[tag] for tag in _TABLES if values.get(tag, 0) > values[_DT_SYMTAB]]
            if not behind:
                raise OddElf(offset, "nothing tells how many dynamic symbols there are")
            counts = [(min(behind) - values[_DT_SYMTAB]) // symbol.size]
        tables.append((offset, max(counts)))
    for offset, count in dict.fromkeys(tables):
        for (name,) in symbol.iter_unpack(file.read(offset, count * symbol.size, "table of symbols")):
            yield name


def _hashed(file: ElfBytes, at: int) -> int:
    """Return the number of symbols by a GNU hash table: the last chain ends with the last symbol.

    It is 0 where the table is empty: then it does not count the symbols that are only imported.
    """
    head, word = struct.Struct(file.order + "4I"), struct.Struct(file.order + "I")
    buckets, first, filters, _ = head.unpack(file.read(at, head.size, "hash table"))
    at += head.size + filters * (file.bits // 8)
    last = max((bucket for (bucket,) in word.iter_unpack(file.read(at, 4 * buckets, "hash table"))), default=0)
    if last < first:
        return 0
    at += 4 * (buckets + last - first)
    for more in range(_MAX_CHAIN):
        if word.unpack(file.read(at + 4 * more, 4, "hash table"))[0] & 1:
            return last + more + 1
    raise OddElf(at, "the last chain of the hash table has no end")


def needed_versions(
    file: ElfBytes, elf: Elf, limit: int = _MAX_VERSIONS
) -> Iterator[Tuple[int, List[Tuple[int, int]]]]:
    """Yield the name of each library of which a file needs versions, and these: flags and name of each.

    Names are offsets in the dynamic string table. Raises OddElf, also for more than ``limit`` of both together.
    """
    address = dict(elf.dynamic).get(_DT_VERNEED)
    if address is not None:
        for (library,), parts in _linked(file, elf, address, "4x3I", "4xH2x2I", limit):
            yield library, [(flags, name) for flags, name in parts]


def _linked(
    file: ElfBytes, elf: Elf, address: int, entry: str, part: str, limit: int = _MAX_VERSIONS
) -> Iterator[Tuple[List[int], List[List[int]]]]:
    """Yield the entries of the version needs or definitions: the fields of each, and those of its parts.

    The last two words of an entry are the distances to its first part and to the next entry, and are left out, as is
    the last of a part, the distance to the next one. As for the loader, distances count, and not numbers of parts.
    """
    entries, parts = struct.Struct(file.order + entry), struct.Struct(file.order + part)
    at, left, onward = offset_of(elf.segments, address, "table of versions"), limit, 1
    while onward:
        *fields, inward, onward = entries.unpack(file.read(at, entries.size, "table of versions"))
        found: List[List[int]] = []
        part_at = at
        left -= 1
        while inward and left > 0:
            left -= 1
            part_at += inward
            *of_part, inward = parts.unpack(file.read(part_at, parts.size, "table of versions"))
            found.append(of_part)
        if left <= 0:
            raise OddElf(at, f"the table of versions has more than {limit} entries")
        yield fields, found
        at += onward
