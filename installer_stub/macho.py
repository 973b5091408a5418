"""Read what relocation needs of a Mach-O file: the strings of its load commands and where its sections lie.

A fat file holds several such files, one for each kind of processor: its *slices*. A thin file is read as
one slice that begins at 0. All offsets given are those in the whole file. The formats are those of
<mach-o/loader.h> and <mach-o/fat.h>. Of each slice the header and the load commands are read, no more.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Callable, List, NamedTuple, Optional, Tuple

from installer_stub.errors import PackError

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> the bytes there; fewer only at the end of the file."""

_FAT = {b"\xca\xfe\xba\xbe": struct.Struct(">5I"), b"\xca\xfe\xba\xbf": struct.Struct(">2I2Q2I")}
_FAT_HEADER = 8
_LEAST_CLASS_VERSION = 45  # Java's class files share a magic, and have their version where a fat file has its count
_THIN = {
    b"\xfe\xed\xfa\xce": (">", 32),
    b"\xce\xfa\xed\xfe": ("<", 32),
    b"\xfe\xed\xfa\xcf": (">", 64),
    b"\xcf\xfa\xed\xfe": ("<", 64),
}
_LC_SEGMENT, _LC_SEGMENT_64, _LC_CODE_SIGNATURE = 0x1, 0x19, 0x1D
_S_CSTRING_LITERALS = 2
_S_ZERO_FILLS = (0x1, 0xC, 0x12)  # plain, more than 4 GB, of threads
_S_ATTR_INSTRUCTIONS = 0x80000000 | 0x400  # all, some

# Of all slices together. More than real files have, and little enough to hold whatever a file claims.
_MAX_COMMANDS = 1 << 22


class OddMachO(PackError, ValueError):
    """The file begins as a Mach-O file does and breaks the format's rules, at ``offset``: ``what``."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"not a sound Mach-O file: {what}, at byte {offset}")
        self.offset = offset
        self.what = what


class Command(Enum):
    """A load command that holds a string. dyld opens what these name, unless it says otherwise."""

    LOAD_DYLIB = 0xC
    ID_DYLIB = 0xD  # the library's own name: what is linked against it will ask for that
    LOAD_DYLINKER = 0xE  # opened by the kernel
    ID_DYLINKER = 0xF
    SUB_FRAMEWORK = 0x12  # names without a directory, read by the static linker
    SUB_UMBRELLA = 0x13
    SUB_CLIENT = 0x14
    SUB_LIBRARY = 0x15
    LOAD_WEAK_DYLIB = 0x80000018
    RPATH = 0x8000001C
    REEXPORT_DYLIB = 0x8000001F
    LAZY_LOAD_DYLIB = 0x20
    LOAD_UPWARD_DYLIB = 0x80000023
    DYLD_ENVIRONMENT = 0x27  # NAME=value


_DYLIBS = {
    Command.LOAD_DYLIB,
    Command.ID_DYLIB,
    Command.LOAD_WEAK_DYLIB,
    Command.REEXPORT_DYLIB,
    Command.LAZY_LOAD_DYLIB,
    Command.LOAD_UPWARD_DYLIB,
}
_COMMANDS = {command.value: command for command in Command}


class CommandString(NamedTuple):
    """The string of a load command: its first byte is at ``offset`` of the file, its NUL is not in ``text``.

    ``room`` bytes from ``offset`` on belong to it, to the end of the command; the last must be a NUL.
    """

    command: Command
    offset: int
    text: bytes
    room: int


class Section(NamedTuple):
    """A section: ``size`` bytes at ``offset`` of the file, or none in it unless ``in_file``."""

    segment: bytes
    name: bytes
    offset: int
    size: int
    flags: int
    in_file: bool

    @property
    def end(self) -> int:
        """The offset behind the section's last byte in the file."""
        return self.offset + self.size if self.in_file else self.offset

    @property
    def is_zero_fill(self) -> bool:
        """Whether the section is memory that begins as zeros."""
        return self.flags & 0xFF in _S_ZERO_FILLS

    @property
    def is_c_strings(self) -> bool:
        """Whether the section is nothing but NUL-terminated strings, of which the linker keeps one of each."""
        return self.flags & 0xFF == _S_CSTRING_LITERALS

    @property
    def is_code(self) -> bool:
        """Whether the section holds instructions."""
        return bool(self.flags & _S_ATTR_INSTRUCTIONS)


class Slice(NamedTuple):
    """One Mach-O file: all of a thin file, or a part of a fat one.

    What a fat file holds beside that (a static archive, bitcode) is a slice with ``bits`` and ``file_type`` 0
    and with nothing in it.
    """

    offset: int
    size: int
    bits: int  # 32 or 64
    little_endian: bool
    cpu_type: int
    file_type: int
    strings: Tuple[CommandString, ...] = ()  # in the order of the commands
    sections: Tuple[Section, ...] = ()
    signature: Optional[Tuple[int, int]] = None  # offset in the file, and size

    @property
    def end(self) -> int:
        """The offset behind the slice's last byte."""
        return self.offset + self.size

    def section_at(self, offset: int) -> Optional[Section]:
        """Return the first section whose bytes in the file include the one at `offset`."""
        return next((s for s in self.sections if s.offset <= offset < s.end), None)


class MachO(NamedTuple):
    """What a Mach-O file says of itself."""

    is_fat: bool
    slices: Tuple[Slice, ...]  # by offset

    def slice_at(self, offset: int) -> Optional[Slice]:
        """Return the slice that includes the byte at `offset`."""
        return next((s for s in self.slices if s.offset <= offset < s.end), None)

    def section_at(self, offset: int) -> Optional[Section]:
        """Return the first section of any slice whose bytes in the file include the one at `offset`."""
        found = self.slice_at(offset)
        return found.section_at(offset) if found else None

    @property
    def strings(self) -> Tuple[CommandString, ...]:
        """The strings of the load commands of all slices, by offset of the slice."""
        return tuple(string for each in self.slices for string in each.strings)


class _Slice:
    """The bytes of a slice: places count from its begin, as they do in its headers."""

    def __init__(self, read_at: ReadAt, offset: int, size: int) -> None:
        self.read_at, self.offset, self.size = read_at, offset, size

    def check(self, offset: int, length: int, what: str) -> None:
        if offset + length > self.size:
            raise OddMachO(self.offset + offset, f"the {what} ends behind the end of the file")

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly `length` bytes; an OddMachO names `what` they were to be."""
        self.check(offset, length, what)
        data = self.read_at(self.offset + offset, length)
        if len(data) != length:
            raise OddMachO(self.offset + offset, f"the {what} could not be read")
        return data


def parse(read_at: ReadAt, size: int) -> Optional[MachO]:
    """Read a Mach-O file of `size` bytes through `read_at`.

    Returns None for a file that is no Mach-O file at all. Raises OddMachO for one that is truncated or
    damaged, or larger in some respect than any real file.
    """
    magic = read_at(0, 4)
    if magic in _THIN:
        return MachO(False, (_slice(_Slice(read_at, 0, size), 0, _MAX_COMMANDS)[0],))
    if magic not in _FAT:
        return None
    count = int.from_bytes(read_at(4, 4), "big")
    if not 0 < count < _LEAST_CLASS_VERSION:
        return None
    slices: List[Slice] = []
    left = _MAX_COMMANDS
    for part, cpu_type in _parts(_Slice(read_at, 0, size), _FAT[magic], count):
        found, used = _slice(part, cpu_type, left)
        left -= used
        slices.append(found)
    return MachO(True, tuple(slices))


def _parts(file: _Slice, entry: struct.Struct, count: int) -> List[Tuple[_Slice, int]]:
    """Return the slices of a fat file, by offset, and the processors that they are for."""
    parts = []
    end = _FAT_HEADER + count * entry.size
    table = file.read(_FAT_HEADER, count * entry.size, "table of slices")
    for cpu_type, _, offset, size, *_ in sorted(entry.iter_unpack(table), key=lambda fields: fields[2]):
        if offset < end:
            raise OddMachO(offset, "a slice begins inside of the one before it, or of the table of slices")
        file.check(offset, size, "slice")
        end = offset + size
        parts.append((_Slice(file.read_at, offset, size), cpu_type))
    return parts


def _slice(part: _Slice, cpu_type: int, most: int) -> Tuple[Slice, int]:
    """Read one slice, and say how many bytes its commands have. `most` is how many they may have."""
    magic = part.read_at(part.offset, min(4, part.size))
    if magic not in _THIN:
        return Slice(part.offset, part.size, 0, False, cpu_type, 0), 0
    order, bits = _THIN[magic]
    header = struct.Struct(order + ("7I" if bits == 32 else "8I"))
    _, cpu_type, _, file_type, count, commands_size, *_ = header.unpack(part.read(0, header.size, "header"))
    if commands_size > most:
        raise OddMachO(part.offset + 20, f"there are {commands_size} bytes of load commands")
    commands = _Commands(part, order, bits, header.size)
    commands.read(count, part.read(header.size, commands_size, "table of load commands"))
    found = Slice(
        offset=part.offset,
        size=part.size,
        bits=bits,
        little_endian=order == "<",
        cpu_type=cpu_type,
        file_type=file_type,
        strings=tuple(commands.strings),
        sections=tuple(commands.sections),
        signature=commands.signature,
    )
    return found, commands_size


class _Commands:
    """What the load commands of a slice say; they begin at `start` of it."""

    def __init__(self, part: _Slice, order: str, bits: int, start: int) -> None:
        self.part, self.start = part, start
        self.command = struct.Struct(order + "2I")
        self.word = struct.Struct(order + "I")
        self.segment = struct.Struct(order + ("8x16s8I" if bits == 32 else "8x16s4Q4I"))
        self.section = struct.Struct(order + ("16s16s9I" if bits == 32 else "16s16s2Q8I"))
        self.segment_command = _LC_SEGMENT if bits == 32 else _LC_SEGMENT_64
        self.strings: List[CommandString] = []
        self.sections: List[Section] = []
        self.signature: Optional[Tuple[int, int]] = None

    def read(self, count: int, table: bytes) -> None:
        """Go through `count` commands that should fit into their table."""
        at = 0
        for _ in range(count):
            place = self.part.offset + self.start + at
            if len(table) - at < self.command.size:
                raise OddMachO(place, "the load commands end behind the end of their table")
            number, size = self.command.unpack_from(table, at)
            if size < self.command.size or size % 4 or size > len(table) - at:  # as dyld does
                raise OddMachO(place, f"a load command has {size} bytes")
            body = table[at : at + size]
            if number in _COMMANDS:
                self.strings.append(self._string(_COMMANDS[number], body, place))
            elif number == self.segment_command:
                self._segment(body, place)
            elif number == _LC_CODE_SIGNATURE:
                self._signature(body, place)
            at += size

    def _string(self, command: Command, body: bytes, place: int) -> CommandString:
        least = 24 if command in _DYLIBS else 12  # a library's times and versions, and the string's offset
        if len(body) < least:
            raise OddMachO(place, f"a load command with a string has {len(body)} bytes")
        (offset,) = self.word.unpack_from(body, 8)
        if not least <= offset < len(body):
            raise OddMachO(place, f"the string of a load command of {len(body)} bytes is at {offset}")
        text, nul, _ = body[offset:].partition(b"\0")
        if not nul:
            raise OddMachO(place + offset, "the string of a load command has no end")
        return CommandString(command, place + offset, text, len(body) - offset)

    def _segment(self, body: bytes, place: int) -> None:
        if len(body) < self.segment.size:
            raise OddMachO(place, f"a segment's load command has {len(body)} bytes")
        _, _, _, _, file_size, _, _, count, _ = self.segment.unpack_from(body)
        if count * self.section.size > len(body) - self.segment.size:
            raise OddMachO(place, f"there are {count} sections in a load command of {len(body)} bytes")
        sections = body[self.segment.size : self.segment.size + count * self.section.size]
        for name, segment, _, size, offset, _, _, _, flags, *_ in self.section.iter_unpack(sections):
            names = (segment.partition(b"\0")[0], name.partition(b"\0")[0])
            # A file of debug information alone keeps the sections of the program, and none of their bytes.
            in_file = file_size > 0 and flags & 0xFF not in _S_ZERO_FILLS
            if in_file:
                self.part.check(offset, size, f"section {b','.join(names)!r}")
            self.sections.append(Section(*names, self.part.offset + offset, size, flags, in_file))

    def _signature(self, body: bytes, place: int) -> None:
        if len(body) < 16 or self.signature is not None:
            raise OddMachO(place, "there is more than one code signature, or one without a place")
        offset, size = (self.word.unpack_from(body, at)[0] for at in (8, 12))
        self.part.check(offset, size, "code signature")
        self.signature = (self.part.offset + offset, size)
