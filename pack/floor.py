"""What compiled files ask of the machine: its architecture, its glibc, its other libraries. See docs/glibc.md.

What counts is what the loader reads before anything of a file runs, DT_VERNEED: where the glibc at hand lacks
one of the versions there, the file does not start.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from installer_stub import dynstr, elf
from installer_stub.elf import Elf, ElfBytes, OddElf, ReadAt
from installer_stub.model import Finding

NOT_MEASURED = "not measured"

_MOST_VERSIONS = 1 << 12  # more than real files have
_WEAK = 2  # VER_FLG_WEAK
_NUMBER = re.compile(r"GLIBC_([0-9]+(?:\.[0-9]+)*)\Z")
# What linkers add where a file rests on something that older loaders would misread. The last three came after the
# first release of 2.42, with the corrections that distributions take.
_MARK = "GLIBC_ABI_"
_MARKS = {
    "GLIBC_ABI_DT_RELR": "2.36",
    "GLIBC_ABI_GNU_TLS": "2.42",
    "GLIBC_ABI_GNU2_TLS": "2.42",
    "GLIBC_ABI_DT_X86_64_PLT": "2.42",
}
_LOADED = (2, 3)  # ET_EXEC and ET_DYN: programs and shared libraries
# What every glibc brings. Its libcrypt and libnsl are left to other packages by now, and may be missing.
_OF_GLIBC = re.compile(
    rb"(ld(-linux[-\w]*|64)?|lib(c|m|mvec|dl|pthread|rt|util|resolv|anl|thread_db|BrokenLocale|nss_\w+))\.so\.[0-9]+\Z"
)
# e_machine, bits, little-endian -> as uname -m has it; of arm it has several.
_ARCHITECTURES = {
    (3, 32, True): "i686",
    (8, 32, True): "mips",
    (8, 32, False): "mips",
    (8, 64, True): "mips64",
    (8, 64, False): "mips64",
    (20, 32, False): "ppc",
    (21, 64, False): "ppc64",
    (21, 64, True): "ppc64le",
    (22, 64, False): "s390x",
    (40, 32, True): "arm",
    (62, 64, True): "x86_64",
    (183, 64, True): "aarch64",
    (243, 64, True): "riscv64",
    (258, 64, True): "loongarch64",
}


class Floor(NamedTuple):
    """The oldest glibc that will do, as "2.17", and the first by path of the files that ask for it."""

    glibc: str
    path: bytes


class Binary(NamedTuple):
    """An ELF file: what it is for, and the newest version of glibc that it needs, as "2.17", or ""."""

    architecture: str
    is_loaded: bool  # whether it is a program or a shared library; nobody loads an object file
    glibc: str = ""
    odd: str = ""  # why that cannot be told, or not wholly
    libraries: tuple[bytes, ...] = ()  # that it needs, by name, but for those of glibc


class Outside(NamedTuple):
    """A library that is needed and is not in the environment, and the files that need it, in order."""

    name: bytes
    files: tuple[bytes, ...]


def read(read_at: ReadAt, size: int, head: bytes) -> Binary | None:
    """Read what an ELF file that begins with ``head`` is for and needs; None for any other file.

    A damaged one is no error: what is returned says what is wrong with it.
    """
    built_for = architecture(head)
    if not built_for:
        return None
    if int.from_bytes(head[16:18], _order_of(head)) not in _LOADED:
        return Binary(built_for, False)
    try:
        parsed = elf.parse(read_at, size)
        versions = _versions(read_at, size, parsed)
    except OddElf as error:
        return Binary(built_for, True, odd=str(error))
    unknown = sorted(name for name in versions if name.startswith(_MARK) and name not in _MARKS)
    odd = f"it needs {', '.join(unknown)}, and of which glibc that is, is not known" if unknown else ""
    needed = (name.text for name in parsed.needed) if parsed is not None else ()
    libraries = tuple(name for name in needed if b"/" not in name and not _OF_GLIBC.match(name))
    return Binary(built_for, True, _newest(versions), odd, libraries)


def architecture(head: bytes) -> str:
    """Name the architecture of the ELF file that begins with ``head``, as ``uname -m`` does; "" if it is none."""
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return ""
    machine = int.from_bytes(head[18:20], _order_of(head))
    return _ARCHITECTURES.get((machine, 32 * head[4], head[5] == 1), str(machine))


def needs(read_at: ReadAt, size: int, weak: bool = False) -> set[str]:
    """Name the versions that an ELF file needs of its libraries; nothing for any other file.

    Weak needs count only if asked for: the loader goes on without what they name. Raises OddElf.
    """
    return _versions(read_at, size, elf.parse(read_at, size), weak)


def _versions(read_at: ReadAt, size: int, parsed: Elf | None, weak: bool = False) -> set[str]:
    if parsed is None or parsed.dynstr is None:
        return set()
    file = ElfBytes(read_at, size, "<" if parsed.little_endian else ">", parsed.bits)
    start, length = parsed.dynstr
    return {
        file.string(start + name, start + length, "name of a version").text.decode("latin-1")
        for _, versions in dynstr.needed_versions(file, parsed, _MOST_VERSIONS)
        for flags, name in versions
        if weak or not flags & _WEAK
    }


def own_architecture(binaries: Mapping[bytes, Binary]) -> str:
    """Name the architecture that most programs and libraries in ``bin`` and ``lib`` are for; "" if there are none.

    Where these hold none, all others count.
    """
    counted = {path: each.architecture for path, each in binaries.items() if each.is_loaded and not _in_sysroot(path)}
    inside = [each for path, each in counted.items() if path.startswith((b"bin/", b"lib/"))]
    votes = Counter(inside or counted.values())
    return min(votes, key=lambda name: (-votes[name], name), default="")


def of_environment(binaries: Mapping[bytes, Binary], architecture: str) -> Floor | None:
    """Measure the files of one architecture; None where none of them needs any version of glibc."""
    found = {path: each.glibc for path, each in _counting(binaries, architecture) if each.glibc}
    if not found:
        return None
    highest = max(found.values(), key=_numbers)
    return Floor(highest, min(path for path, glibc in found.items() if glibc == highest))


def not_measured(binaries: Mapping[bytes, Binary], architecture: str) -> tuple[Finding, ...]:
    """List the files whose needs cannot be told: nobody knows whether the floor is theirs, too."""
    found = [Finding(path, -1, NOT_MEASURED, each.odd) for path, each in _counting(binaries, architecture) if each.odd]
    return tuple(sorted(found, key=lambda finding: finding.path))


def from_outside(binaries: Mapping[bytes, Binary], architecture: str, paths: Iterable[bytes]) -> tuple[Outside, ...]:
    """List the libraries that files of one architecture need, and none of ``paths`` is called."""
    there = {os.path.basename(path) for path in paths if not _in_sysroot(path)}
    files: dict[bytes, list[bytes]] = {}
    for path, each in _counting(binaries, architecture):
        for name in each.libraries:
            if name not in there:
                files.setdefault(name, []).append(path)
    return tuple(Outside(name, tuple(sorted(files[name]))) for name in sorted(files))


def of_tree(root: Path) -> Floor | None:
    """Measure every ELF file below a directory, weak needs included; None where none needs any version of glibc.

    Raises OddElf for a file that begins as an ELF file does and is none.
    """
    found: dict[bytes, Binary] = {}
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:

                def read_at(offset: int, length: int) -> bytes:
                    file.seek(offset)
                    return file.read(length)

                glibc = _newest(needs(read_at, path.stat().st_size, weak=True))
                found[os.fsencode(path.relative_to(root))] = Binary("", True, glibc)
    return of_environment(found, "")


def _counting(binaries: Mapping[bytes, Binary], architecture: str) -> Iterator[tuple[bytes, Binary]]:
    """Yield the programs and libraries that run where the environment goes."""
    for path, each in binaries.items():
        if each.is_loaded and each.architecture == architecture and not _in_sysroot(path):
            yield path, each


def _in_sysroot(path: bytes) -> bool:
    """Whether a file is part of the system that a compiler builds for: there it is linked against, not loaded."""
    return b"sysroot" in path.split(b"/")[:-1]


def _newest(versions: set[str]) -> str:
    """Return the newest of the versions that are glibc's, as "2.17", or "" where none is."""
    numbers = [_MARKS.get(name) or (match[1] if (match := _NUMBER.match(name)) else "") for name in versions]
    return max(filter(None, numbers), key=_numbers, default="")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _order_of(head: bytes) -> Literal["little", "big"]:
    return "little" if head[5] == 1 else "big"
