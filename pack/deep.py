"""Give run paths more room than they have: for ``--grow-run-paths`` alone. The only module that imports lief.

A grown file keeps every byte where it was. Behind its end come a table of program headers with one segment more,
and a copy of the string table with the new run paths; the dynamic segment and the header then name these.
lief reads the result, and it must tell of it what it told of the original. It writes nothing: whatever it is
asked for, its builder writes hash tables anew, and moves addresses (docs/run-paths.md).
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from installer_stub import dynstr, elf
from installer_stub.elf import DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, Elf, OddElf, ReadAt
from installer_stub.manifest import encode
from installer_stub.model import Field, Fill, Reference
from pack import run_paths
from pack.splice import Splice, Spliced

GROWN = "run path grown"
NOT_GROWN = "run path not grown"

# A file is read as a whole to be compared, by lief too, which takes several times its size in memory.
LARGEST = 128 << 20
# A program's table of headers stands as far behind its beginning in the file as in memory: zeros fill what .bss takes.
LARGEST_GAP = 16 << 20

_LINKER = re.compile(rb"(ld-linux.*|ld-musl.*|ld-uClibc.*|ld64?\.so.*|ld-\d.*\.so|libc\.musl.*|libc\.so)\Z")
_LINKER_SYMBOLS = frozenset(["_r_debug", "_dl_debug_addr"])  # where debuggers look into glibc's, and into musl's
_PT_LOAD, _PT_DYNAMIC, _PT_PHDR = 1, 2, 6
_PF_R = 4
_SHT_PROGBITS, _SHT_STRTAB = 1, 3
_SHF_ALLOC = 2
_DT_FLAGS_1, _DF_1_PIE = 0x6FFFFFFB, 0x08000000
_SMALL_PAGES = (3, 62)  # i386 and x86-64; other machines may have pages of 64 KiB
_PIECE = 1 << 20


class NotGrown(ValueError):
    """The file has to stay as it is: the text says why."""


def described(old: bytes, new: bytes) -> str:
    """Say what became of a run path."""
    return f"{encode(old)} became {encode(new)}"


class Grown(NamedTuple):
    """The edits that grow the run paths of a file, and what they replaced: pairs of old and new."""

    splices: tuple[Splice, ...]
    changed: tuple[tuple[bytes, bytes], ...]
    references: tuple[Reference, ...]  # those that are left


class _Segment(NamedTuple):
    """A program header, its fields in the order of 64-bit files."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    size: int
    memory: int
    align: int


def grown(
    read_at: ReadAt, size: int, path: bytes, elsewhere: Sequence[bytes], found: Sequence[Reference]
) -> Grown | None:
    """Make the run paths of the file at ``path`` relative that have no room for it; None where there are none.

    ``found`` are its references; ``elsewhere`` are the other directories that it is opened from. That it gives
    its user another's rights is for the caller to know. Raises NotGrown.
    """
    slots = [each for each in found if each.field is Field.RUN_PATH and each.fill is not Fill.KEEP]
    if not slots:
        return None
    parsed = _parsed(read_at, size)
    prefixes = sorted({each.prefix for each in slots}, key=len, reverse=True)
    origins = {os.path.dirname(path), *elsewhere}
    new: dict[bytes, bytes] = {}
    for old in parsed.run_paths:
        if any(old.offset <= slot.offset < old.offset + len(old.text) for slot in slots):
            relative = run_paths.relative_entries(old.text, prefixes, origins)
            if relative is None:
                raise NotGrown("it is opened from directories that lead to its libraries by different ways")
            new[old.text] = relative
    start, length = parsed.dynstr or (0, 0)
    left = tuple(each for each in found if each not in slots)
    if any(start <= each.offset < start + length and each.fill is not Fill.KEEP for each in left):
        raise NotGrown("it names a library by a path in the prefix, which stands in the same table")
    return Grown(rebuilt(read_at, size, path, new), tuple(new.items()), left)


def rebuilt(read_at: ReadAt, size: int, path: bytes, new: Mapping[bytes, bytes]) -> tuple[Splice, ...]:
    """Put ``new`` run paths in the place of old ones, whatever their length; ``path`` tells what the file is.

    Tags keep their kind, nothing moves. The result was read again and compared. Raises NotGrown for files that
    must not be rebuilt or cannot be, and where the comparison finds a difference.
    """
    parsed = _parsed(read_at, size)
    _require_growable(parsed, size, path)
    try:
        splices = _Rebuilding(read_at, size, parsed).splices(new)
        view = Spliced(read_at, size, splices)
        _compare(read_at, parsed, view, splices, new)
    except (OddElf, struct.error) as error:
        raise NotGrown(str(error)) from error
    _compare_deeply(read_at(0, size), view.read_at(0, view.size))
    return splices


def _parsed(read_at: ReadAt, size: int) -> Elf:
    try:
        parsed = elf.parse(read_at, size)
    except OddElf as error:
        raise NotGrown(str(error)) from error
    if parsed is None:
        raise NotGrown("it is no ELF file")
    return parsed


def _require_growable(parsed: Elf, size: int, path: bytes) -> None:
    """Refuse what is not the loader's ordinary business."""
    names = [os.path.basename(path), parsed.soname.text if parsed.soname else b""]
    if any(_LINKER.match(name) for name in names):
        raise NotGrown("it is a dynamic linker")
    if not parsed.dynamic or parsed.dynstr is None:
        raise NotGrown("it has no dynamic segment")
    if parsed.interpreter is None and dict(parsed.dynamic).get(_DT_FLAGS_1, 0) & _DF_1_PIE:
        raise NotGrown("it is a static program")
    if size > parsed.end + 1:  # patchelf leaves one NUL there
        raise NotGrown(f"something is appended to it, at byte {parsed.end}")
    for section in parsed.sections:
        # What compilers and linkers name begins with a dot: programs look for the rest behind the end.
        foreign = section.type == _SHT_PROGBITS and not section.flags & _SHF_ALLOC
        if foreign and not section.name.startswith(b"."):
            raise NotGrown(f"something is added to it, as section {section.name.decode(errors='backslashreplace')}")
    if size > LARGEST:
        raise NotGrown(f"it has more than {LARGEST >> 20} MiB")


class _Rebuilding:
    """An ELF file's headers, and how each of them is written anew."""

    def __init__(self, read_at: ReadAt, size: int, parsed: Elf) -> None:
        self.read_at, self.size, self.elf = read_at, size, parsed
        order, self.wide = "<" if parsed.little_endian else ">", parsed.bits == 64
        word = "Q" if self.wide else "I"
        self.header = struct.Struct(f"{order}16sHHI3{word}I6H")
        self.segment = struct.Struct(order + ("II6Q" if self.wide else "8I"))
        self.section = struct.Struct(order + ("II4QII2Q" if self.wide else "10I"))
        self.dynamic = struct.Struct(f"{order}2{word}")
        self.fields = list(self.header.unpack(read_at(0, self.header.size)))

    def segments(self) -> list[_Segment]:
        """Read the program headers."""
        at, count = self.fields[5], self.fields[10]
        if count >= 0xFFFE:
            raise NotGrown("its table of program headers is full")
        rows = self.segment.iter_unpack(self.read_at(at, count * self.segment.size))
        return [_Segment(*(row if self.wide else (row[0], row[6], *row[1:6], row[7]))) for row in rows]

    def splices(self, new: Mapping[bytes, bytes]) -> tuple[Splice, ...]:
        """Write what changes, and what is appended."""
        assert self.elf.dynstr is not None
        start, length = self.elf.dynstr
        scrubs = list(self._scrubbed(new))
        strings = bytearray(self.read_at(start, length))
        for scrub in scrubs:
            strings[scrub.offset - start : scrub.offset - start + scrub.length] = bytes(scrub.new)
        places: dict[bytes, int] = {}
        for old, text in new.items():
            places[old] = len(strings)
            strings += text + b"\0"

        segments = self.segments()
        headers = (len(segments) + 1) * self.segment.size
        at, address = self._place(segments, headers + len(strings))
        appended = bytes(at - self.size) + self._headers(segments, at, address, headers + len(strings)) + strings
        self.fields[5], self.fields[10] = at, len(segments) + 1
        splices = [
            Splice(0, self.header.size, self.header.pack(*self.fields)),
            *scrubs,
            self._dynamic(segments, address + headers, len(strings), places),
            *self._section(at + headers, address + headers, len(strings)),
            Splice(self.size, 0, appended),
        ]
        return tuple(sorted(splices, key=lambda splice: splice.offset))

    def _scrubbed(self, new: Mapping[bytes, bytes]) -> Iterator[Splice]:
        """Wipe the old run paths out, but for what other strings share of them."""
        names = dynstr.names_in(self.read_at, self.size, self.elf)
        for offset, text in {run_path.offset: run_path.text for run_path in self.elf.run_paths}.items():
            if text in new and self.read_at(offset - 1, 1) == b"\0":
                end = min((name for name in names if offset < name < offset + len(text)), default=offset + len(text))
                yield Splice(offset, end - offset, bytes(end - offset))

    def _place(self, segments: Sequence[_Segment], length: int) -> tuple[int, int]:
        """Find the place of ``length`` more bytes in the file and in memory, behind all that is there."""
        loaded = [segment for segment in segments if segment.type == _PT_LOAD]
        if not loaded or loaded != sorted(loaded, key=lambda segment: segment.address):
            raise NotGrown("its segments are in no order")
        page = self._page(loaded)
        free = _aligned(max(segment.address + segment.memory for segment in loaded), page)
        at = _aligned(self.size, 16)
        if self.elf.interpreter is None:
            address = free + at % page
        else:
            # Linux before 5.18 tells a program that its headers are as far from the first segment as in the file.
            shift = loaded[0].address - loaded[0].offset
            at = max(_aligned(self.size, page), free - shift)
            address = at + shift
            if at - self.size > LARGEST_GAP:
                raise NotGrown(f"more than {LARGEST_GAP >> 20} MiB of zeros would have to be stored with it")
        if address + length >= 1 << (self.elf.bits - 1):
            raise NotGrown("there is no room for it in memory")
        return at, address

    def _page(self, loaded: Sequence[_Segment]) -> int:
        """Return the size of the largest page that the file is made for."""
        if self.elf.machine in _SMALL_PAGES:
            return 1 << 12
        return max(1 << 16, *(min(segment.align, 1 << 16) for segment in loaded))

    def _headers(self, segments: Sequence[_Segment], at: int, address: int, length: int) -> bytes:
        """Write the program headers, with the new segment behind the last one that is loaded."""
        page = self._page([segment for segment in segments if segment.type == _PT_LOAD])
        added = _Segment(_PT_LOAD, _PF_R, at, address, address, length, length, page)
        last = max(number for number, segment in enumerate(segments) if segment.type == _PT_LOAD)
        size = (len(segments) + 1) * self.segment.size
        table = [
            each._replace(offset=at, address=address, physical=address, size=size, memory=size)
            if each.type == _PT_PHDR
            else each
            for each in (*segments[: last + 1], added, *segments[last + 1 :])
        ]
        return b"".join(
            self.segment.pack(*(each if self.wide else (each[0], *each[2:7], each[1], each[7]))) for each in table
        )

    def _dynamic(self, segments: Sequence[_Segment], table: int, size: int, places: Mapping[bytes, int]) -> Splice:
        """Write the dynamic segment: its length and all tags stay."""
        at = next(segment.offset for segment in segments if segment.type == _PT_DYNAMIC)
        run_paths_left = iter(self.elf.run_paths)  # in the order of the segment
        rows = bytearray()
        for tag, value in self.elf.dynamic:
            if tag in (DT_RPATH, DT_RUNPATH):
                value = places.get(next(run_paths_left).text, value)
            elif tag in (DT_STRTAB, DT_STRSZ):
                value = table if tag == DT_STRTAB else size
            rows += self.dynamic.pack(tag, value)
        return Splice(at, len(rows), bytes(rows))

    def _section(self, at: int, address: int, size: int) -> Iterator[Splice]:
        """Write the section header of the string table, if there is one: nm and strip go by it."""
        for number, section in enumerate(self.elf.sections):
            if section.type == _SHT_STRTAB and (section.offset, section.size) == self.elf.dynstr:
                place = self.fields[6] + number * self.section.size
                name, kind, flags, _, _, _, *rest = self.section.unpack(self.read_at(place, self.section.size))
                new = self.section.pack(name, kind, flags, address, at, size, *rest)
                yield Splice(place, self.section.size, new)


def _aligned(number: int, to: int) -> int:
    return -(-number // to) * to


def _compare(
    read_at: ReadAt, before: Elf, view: Spliced, splices: Sequence[Splice], new: Mapping[bytes, bytes]
) -> None:
    """Hold a rebuilt file against the original as our own reader sees both, and what is loaded byte by byte."""
    after = elf.parse(view.read_at, view.size)
    if after is None or _meaning(after, {}) != _meaning(before, new) or after.segments[:-1] != before.segments:
        raise NotGrown("read again, it says something else of itself")
    written = [(splice.offset, splice.offset + splice.length) for splice in splices]
    for segment in before.segments:
        for at in range(segment.offset, segment.offset + segment.size, _PIECE):
            length = min(_PIECE, segment.offset + segment.size - at)
            if _blanked(read_at(at, length), at, written) != _blanked(view.read_at(at, length), at, written):
                raise NotGrown("read again, it has other bytes in memory")


def _meaning(parsed: Elf, new: Mapping[bytes, bytes]) -> tuple[object, ...]:
    """Gather what a file says to the loader, with ``new`` run paths in the place of old ones."""
    strings = (DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH)
    return (
        (parsed.bits, parsed.little_endian, parsed.machine, parsed.kind, parsed.interpreter),
        [(run_path.tag, new.get(run_path.text, run_path.text)) for run_path in parsed.run_paths],
        [name.text for name in parsed.needed],
        parsed.soname.text if parsed.soname else None,
        [(tag, None if tag in strings else value) for tag, value in parsed.dynamic],
        [(section.name, section.flags, section.type) for section in parsed.sections],
    )


def _blanked(piece: bytes, at: int, ranges: Sequence[tuple[int, int]]) -> bytes:
    """Blank the ``ranges`` of the file in a piece of it: what is written there is compared by its meaning."""
    blanked = bytearray(piece)
    for start, end in ranges:
        low, high = max(start - at, 0), min(end - at, len(piece))
        if low < high:
            blanked[low:high] = bytes(high - low)
    return bytes(blanked)


def _compare_deeply(before: bytes, after: bytes) -> None:
    """Hold a rebuilt file against the original, as lief sees both."""
    import lief  # takes most of a second

    def facts(data: bytes) -> tuple[object, ...]:
        binary = lief.ELF.parse(io.BytesIO(data))
        if binary is None:
            raise NotGrown("lief cannot read it")
        symbols = [
            (each.name, each.value, each.size, each.type, each.binding, each.shndx, str(each.symbol_version))
            for each in binary.dynamic_symbols
        ]
        if not binary.has_interpreter and any(name in _LINKER_SYMBOLS and index for name, *_, index, _ in symbols):
            raise NotGrown("it is a dynamic linker")
        sections = [
            (each.name, each.virtual_address, each.offset, each.size, each.type, each.flags)
            for each in binary.sections
            if each.name != ".dynstr"
        ]
        interpreter = binary.interpreter if binary.has_interpreter else None
        return binary.header.entrypoint, interpreter, list(binary.libraries), symbols, sections

    if facts(before) != facts(after):
        raise NotGrown("read again by lief, it says something else of itself")
