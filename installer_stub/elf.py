"""Read what relocation needs of an ELF file: its loader's strings and where its sections lie.

Program headers and the dynamic segment count here, as they do for the loader; section headers may be
missing. The formats are those of the System V ABI, chapters 4 and 5. A file is read in a few small pieces,
whatever its size.
"""

from __future__ import annotations

import struct
from itertools import takewhile
from operator import itemgetter
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from installer_stub.errors import PackError

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> the bytes there; fewer only at the end of the file."""

DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 10, 14, 15, 29
_RUN_PATHS = (DT_RPATH, DT_RUNPATH)
SHT_NULL, SHT_NOBITS, SHT_DYNSYM = 0, 8, 11
SHF_ALLOC, SHF_EXECINSTR = 2, 4
PF_X, PF_W = 1, 2
_PT_NULL, _PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 0, 1, 2, 3
_IN_SECTION_0 = 0xFFFF  # e_phnum and e_shstrndx: the number has no room here, see the first section header

# More than real files have, and little enough to read at once whatever a file claims.
_MAX_HEADERS = 1 << 17
_MAX_NAME = 1 << 16  # a C++ compiler puts a mangled name of some kilobytes into a section's
_MAX_NAMES = 1 << 24
_MAX_DYNAMIC = 1 << 20
_MAX_INTERPRETER = 4096  # PATH_MAX, which is the kernel's own limit
_MAX_STRINGS = 1 << 20  # of all strings of the dynamic segment together


class OddElf(PackError, ValueError):
    """The file begins as an ELF file does and breaks the format's rules, at ``offset``: ``what``."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"not a sound ELF file: {what}, at byte {offset}")
        self.offset = offset
        self.what = what


class Text(NamedTuple):
    """A NUL-terminated string: the offset in the file of its first byte, and its bytes without the NUL."""

    offset: int
    text: bytes


class RunPath(NamedTuple):
    """A run path, as `Text`. ``tag`` is DT_RPATH or DT_RUNPATH; the loader ignores the former beside the latter."""

    offset: int
    text: bytes
    tag: int


class Section(NamedTuple):
    """A section header. ``size`` bytes at ``offset`` of the file, or none in it if ``type`` is SHT_NOBITS."""

    name: bytes
    offset: int
    size: int
    type: int
    flags: int

    @property
    def end(self) -> int:
        """The offset behind the section's last byte in the file."""
        return self.offset if self.type in (SHT_NULL, SHT_NOBITS) else self.offset + self.size


class Segment(NamedTuple):
    """A program header. The ``size`` bytes at ``offset`` of the file are loaded at ``address``."""

    type: int
    offset: int
    address: int
    size: int  # in the file
    flags: int


class Elf(NamedTuple):
    """What an ELF file says of itself. Offsets are in the file."""

    bits: int  # 32 or 64
    little_endian: bool
    machine: int  # e_machine
    kind: int  # e_type
    interpreter: Optional[Text]
    run_paths: Tuple[RunPath, ...]
    needed: Tuple[Text, ...]
    soname: Optional[Text]
    dynstr: Optional[Tuple[int, int]]  # offset and size of the dynamic segment's string table
    dynamic: Tuple[Tuple[int, int], ...]  # tag and value of each entry of the dynamic segment
    segments: Tuple[Segment, ...]  # those that are loaded
    sections: Tuple[Section, ...]
    end: int  # behind the last byte that headers, sections and segments cover: an appended payload follows

    def section_at(self, offset: int) -> Optional[Section]:
        """Return the first section whose bytes in the file include the one at `offset`."""
        for section in self.sections:
            if section.offset <= offset < section.end:
                return section
        return None


class ElfBytes:
    """An ELF file's bytes under the byte order and word size that it declares."""

    def __init__(self, read_at: ReadAt, size: int, order: str, bits: int) -> None:
        self.read_at, self.size, self.order, self.bits = read_at, size, order, bits
        word = "Q" if bits == 64 else "I"
        self.header = struct.Struct(f"{order}HHI3{word}I6H")
        self.segment = struct.Struct(order + ("II6Q" if bits == 64 else "8I"))
        self.section = struct.Struct(order + ("II4QII2Q" if bits == 64 else "10I"))
        self.dynamic = struct.Struct(f"{order}2{word}")

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly `length` bytes; an OddElf names `what` they were to be."""
        if offset + length > self.size:
            raise OddElf(offset, f"the {what} ends behind the end of the file")
        data = self.read_at(offset, length)
        if len(data) != length:
            raise OddElf(offset, f"the {what} could not be read")
        return data

    def string(self, offset: int, end: int, what: str) -> Text:
        """Return the string at `offset` whose NUL stands before `end`."""
        length = 128
        while offset < end:
            length = min(length, end - offset)
            head, nul, _ = self.read(offset, length, what).partition(b"\0")
            if nul:
                return Text(offset, head)
            if length == end - offset or length >= _MAX_STRINGS:
                break
            length *= 4
        raise OddElf(offset, f"the {what} has no end")


def parse(read_at: ReadAt, size: int) -> Optional[Elf]:
    """Read an ELF file of `size` bytes through `read_at`.

    Returns None for a file that is no ELF file at all. Raises OddElf for one that is truncated or damaged,
    or larger in some respect than any real file. A file of detached debug information describes the
    segments of the file that it was detached from, whose bytes it does not have: of it, only header and
    sections are returned.
    """
    ident = read_at(0, 16)
    if ident[:4] != b"\x7fELF":
        return None
    if len(ident) < 16 or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise OddElf(4, "the word size or byte order is unknown")
    file = ElfBytes(read_at, size, "<" if ident[5] == 1 else ">", 32 * ident[4])
    header = file.header.unpack(file.read(16, file.header.size, "header"))
    kind, machine, _, _, segments_at, sections_at, _, _ = header[:8]
    segment_size, segment_count, section_size, section_count, names_index = header[8:]
    ends = [16 + file.header.size]

    sections: Tuple[Section, ...] = ()
    if sections_at:
        _check_entry(section_size, file.section.size, sections_at, "section header")
        first = file.section.unpack(file.read(sections_at, section_size, "first section header"))
        section_count = section_count or first[5]
        names_index = first[6] if names_index == _IN_SECTION_0 else names_index
        segment_count = first[7] if segment_count == _IN_SECTION_0 else segment_count
        sections = _sections(file, sections_at, section_count, names_index)
        ends.append(sections_at + section_count * section_size)
        ends.extend(end for section in sections for end in [section.end] if end > section.offset)

    segments: List[Segment] = []
    if segments_at and segment_count and not _is_debug_only(sections):
        _check_entry(segment_size, file.segment.size, segments_at, "program header")
        segments = _segments(file, segments_at, segment_count)
        ends.append(segments_at + segment_count * segment_size)
        ends.extend(segment.offset + segment.size for segment in segments if segment.size)

    strings = _dynamic_strings(file, segments)
    return Elf(
        bits=file.bits,
        little_endian=ident[5] == 1,
        machine=machine,
        kind=kind,
        interpreter=_interpreter(file, segments),
        run_paths=tuple(RunPath(t.offset, t.text, tag) for tag, t in strings.found if tag in _RUN_PATHS),
        needed=tuple(text for tag, text in strings.found if tag == DT_NEEDED),
        soname=next((text for tag, text in strings.found if tag == DT_SONAME), None),
        dynstr=strings.table,
        dynamic=strings.entries,
        segments=tuple(segment for segment in segments if segment.type == _PT_LOAD),
        sections=sections,
        end=max(ends),
    )


def _check_entry(size: int, expected: int, offset: int, what: str) -> None:
    if size != expected:  # the kernel and glibc refuse these, too
        raise OddElf(offset, f"a {what} has {size} bytes instead of {expected}")


def _is_debug_only(sections: Sequence[Section]) -> bool:
    """Whether this is what `objcopy --only-keep-debug` leaves: code that has no bytes."""
    return any(section.type == SHT_NOBITS and section.flags & SHF_EXECINSTR for section in sections)


def _sections(file: ElfBytes, at: int, count: int, names_index: int) -> Tuple[Section, ...]:
    if count > _MAX_HEADERS:
        raise OddElf(at, f"there are {count} section headers")
    headers = list(file.section.iter_unpack(file.read(at, count * file.section.size, "table of section headers")))
    names = b""
    if names_index:
        if names_index >= count:
            raise OddElf(at, f"the section names are in section {names_index} of {count}")
        names_at, names_size = headers[names_index][4:6]
        # Only as far as the last name begins: the names may share a table with a million symbols.
        names_size = min(names_size, max(header[0] for header in headers) + _MAX_NAME)
        if names_size > _MAX_NAMES:
            raise OddElf(names_at, f"the table of section names has {names_size} bytes")
        names = file.read(names_at, names_size, "table of section names")
    found, total = [], 0
    for name_at, kind, flags, _, offset, size, _, _, _, _ in headers:
        name_end = names.find(b"\0", name_at, name_at + _MAX_NAME) if names else name_at
        total += name_end - name_at  # names may overlap, so that their sum has no limit of its own
        if name_end < 0 or total > _MAX_NAMES:
            raise OddElf(at, "the name of a section is outside the table of names, or too long")
        section = Section(names[name_at:name_end], offset, size, kind, flags)
        if offset + size > file.size and section.end > offset:
            raise OddElf(offset, f"section {section.name!r} ends behind the end of the file")
        found.append(section)
    return tuple(found)


def _segments(file: ElfBytes, at: int, count: int) -> List[Segment]:
    if count > _MAX_HEADERS:
        raise OddElf(at, f"there are {count} program headers")
    segments = []
    for fields in file.segment.iter_unpack(file.read(at, count * file.segment.size, "table of program headers")):
        if file.bits == 64:
            kind, flags, offset, address, _, size, _, _ = fields
        else:
            kind, offset, address, _, size, _, flags, _ = fields
        if kind == _PT_NULL:  # its other fields may be anything
            continue
        if size and offset + size > file.size:
            raise OddElf(offset, "a segment ends behind the end of the file")
        segments.append(Segment(kind, offset, address, size, flags))
    return segments


def _only(segments: Sequence[Segment], kind: int, what: str) -> Optional[Segment]:
    found = [segment for segment in segments if segment.type == kind]
    if len(found) > 1:  # the kernel and the loader disagree about which one counts
        raise OddElf(found[1].offset, f"there are {len(found)} {what} segments")
    return found[0] if found and found[0].size else None


def _interpreter(file: ElfBytes, segments: Sequence[Segment]) -> Optional[Text]:
    segment = _only(segments, _PT_INTERP, "interpreter")
    if segment is None:
        return None
    if segment.size > _MAX_INTERPRETER:
        raise OddElf(segment.offset, f"the interpreter has {segment.size} bytes")
    return file.string(segment.offset, segment.offset + segment.size, "interpreter")


class _DynamicStrings(NamedTuple):
    table: Optional[Tuple[int, int]]
    found: Tuple[Tuple[int, Text], ...]  # tag and string, in the order of the segment
    entries: Tuple[Tuple[int, int], ...] = ()


def _dynamic_strings(file: ElfBytes, segments: Sequence[Segment]) -> _DynamicStrings:
    segment = _only(segments, _PT_DYNAMIC, "dynamic")
    if segment is None:
        return _DynamicStrings(None, ())
    if segment.size > _MAX_DYNAMIC:
        raise OddElf(segment.offset, f"the dynamic segment has {segment.size} bytes")
    # The size may end inside an entry only in damaged files; what counts ends at DT_NULL.
    data = file.read(segment.offset, segment.size - segment.size % file.dynamic.size, "dynamic segment")
    entries = tuple(takewhile(itemgetter(0), file.dynamic.iter_unpack(data)))
    wanted: List[Tuple[int, int]] = []
    values: Dict[int, int] = {}
    for tag, value in entries:
        if tag in (DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH):
            wanted.append((tag, value))
        elif tag in (DT_STRTAB, DT_STRSZ):
            values[tag] = value
    table = _string_table(file, segments, values) if len(values) == 2 else None
    if table is None:
        if wanted:
            raise OddElf(segment.offset, "the dynamic segment has strings and no table of strings")
        return _DynamicStrings(None, (), entries)
    found, total = [], 0
    for tag, value in wanted:
        if value >= table[1]:
            raise OddElf(table[0], f"a string of the dynamic segment is at {value} in a table of {table[1]} bytes")
        text = file.string(table[0] + value, table[0] + table[1], "string of the dynamic segment")
        total += len(text.text) + 1
        if total > _MAX_STRINGS:
            raise OddElf(text.offset, f"the dynamic segment has more than {_MAX_STRINGS} bytes of strings")
        found.append((tag, text))
    return _DynamicStrings(table, tuple(found), entries)


def _string_table(file: ElfBytes, segments: Sequence[Segment], values: Dict[int, int]) -> Tuple[int, int]:
    """Return offset and size of the string table, by the segment that is loaded at its address."""
    loaded = [segment for segment in segments if segment.type == _PT_LOAD]
    offset, size = offset_of(loaded, values[DT_STRTAB], "table of strings"), values[DT_STRSZ]
    if offset + size > file.size:
        raise OddElf(offset, "the table of strings ends behind the end of the file")
    return offset, size


def offset_of(loaded: Sequence[Segment], address: int, what: str) -> int:
    """Return the offset in the file of what is loaded at `address`; an OddElf names `what` should be there."""
    for segment in loaded:
        if segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    raise OddElf(0, f"no segment of the file is loaded at {address:#x}, where the {what} should be")
