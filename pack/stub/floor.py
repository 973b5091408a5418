"""The glibc that ELF files ask for: the newest of the versions that their dynamic segments need.

What counts is what the loader reads, DT_VERNEED: one need of a newer version and the file does not start.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from installer_stub import elf
from installer_stub.elf import Elf, ElfBytes, OddElf

_DT_VERNEED = 0x6FFFFFFE
_MOST_VERSIONS = 1 << 12  # more than real files have
_NUMBER = re.compile(r"GLIBC_([0-9]+(?:\.[0-9]+)*)\Z")
# What glibc itself adds where a file rests on something that older loaders would misread.
_MARKS = {"GLIBC_ABI_DT_RELR": "2.36", "GLIBC_ABI_GNU_TLS": "2.42", "GLIBC_ABI_GNU2_TLS": "2.42"}


@dataclass(frozen=True)
class Floor:
    """The oldest glibc that will do, as "2.17", and the first of the files that ask for it."""

    glibc: str
    path: Path


def of_tree(root: Path) -> Floor | None:
    """Measure every ELF file below a directory; None where no file needs any version of glibc.

    Raises OddElf for a file that begins as an ELF file does and is none.
    """
    found = [Floor(need, path) for path in sorted(root.rglob("*")) if path.is_file() for need in of_file(path)]
    return max(found, key=lambda floor: _order(floor.glibc), default=None)


def of_file(path: Path) -> list[str]:
    """List the versions of glibc that a file needs, as "2.17"; nothing for a file that is no ELF file."""
    with path.open("rb") as file:

        def read_at(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        size = path.stat().st_size
        parsed = elf.parse(read_at, size)
        if parsed is None:
            return []
        raw = ElfBytes(read_at, size, "<" if parsed.little_endian else ">", parsed.bits)
        versions = {_MARKS.get(name, name) for name in _needed(raw, parsed)}
    numbers = (_NUMBER.match(version) for version in versions)
    plain = {version for version in versions if version in _MARKS.values()}
    return sorted({*(number[1] for number in numbers if number), *plain}, key=_order)


def machine(path: Path) -> int | None:
    """Read e_machine, or None for a file that is no little-endian ELF file."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] != 1:
        return None
    return int.from_bytes(head[18:20], "little")


def _needed(file: ElfBytes, parsed: Elf) -> Iterator[str]:
    """Yield the names of all versions that a file needs of its libraries."""
    values = dict(parsed.dynamic)
    if _DT_VERNEED not in values or parsed.dynstr is None:
        return
    strings, length = parsed.dynstr
    need, part = struct.Struct(file.order + "HHIII"), struct.Struct(file.order + "IHHII")
    at, left, onward = elf.offset_of(parsed.segments, values[_DT_VERNEED], "table of versions"), _MOST_VERSIONS, 1
    while onward:
        _, count, _, inward, onward = need.unpack(file.read(at, need.size, "table of versions"))
        part_at = at
        for _ in range(count):
            left -= 1
            if left < 0:
                raise OddElf(at, f"the table of versions has more than {_MOST_VERSIONS} entries")
            part_at += inward
            _, _, _, name, inward = part.unpack(file.read(part_at, part.size, "table of versions"))
            yield file.string(strings + name, strings + length, "name of a version").text.decode("latin-1")
        left -= 1
        if left < 0:
            raise OddElf(at, f"the table of versions has more than {_MOST_VERSIONS} entries")
        at += onward


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
