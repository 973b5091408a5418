"""Mach-O files of real wheels and of two linkers are read as LIEF reads them; damaged ones are refused, cheaply."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import lief
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import macos
from installer_stub.errors import PackError
from installer_stub.macho import Command, CommandString, MachO, OddMachO, Section, Slice, parse
from tests.unit.reader import Reader

ARM64, X86_64 = 0x0100000C, 0x01000007
# A library's command: where its string is, a time and two versions, which are as they may be.
DYLIB = (24, 2, 0x10000, 0x10000)
ZERO_FILL, C_STRINGS, CODE = 0x1, 0x2, 0x80000400
FAT, FAT_64 = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"


def read(data: bytes) -> MachO:
    parsed = parse(Reader(data), len(data))
    assert parsed is not None
    return parsed


def command(number: int, body: bytes, order: str = "<", size: int | None = None) -> bytes:
    """Write a load command, padded as linkers do."""
    body = body.ljust(-len(body) % 8 + len(body), b"\0")
    return struct.pack(order + "2I", number, len(body) + 8 if size is None else size) + body


def named(which: Command, text: bytes, order: str = "<") -> bytes:
    """Write a load command with a string."""
    words = DYLIB if "DYLIB" in which.name else (12,)
    return command(which.value, struct.pack(f"{order}{len(words)}I", *words) + text + b"\0", order)


def segment(sections: Sequence[tuple[bytes, int, int, int]], bits: int = 64, order: str = "<", size: int = 1) -> bytes:
    """Write a segment's load command. ``sections``: name, offset, size, flags; ``size``: its bytes in the file."""
    word = "Q" if bits == 64 else "I"
    body = struct.pack(f"{order}16s4{word}4I", b"__TEXT", 0, 0, 0, size, 7, 5, len(sections), 0)
    for name, offset, length, flags in sections:
        rest = [offset, 0, 0, 0, flags, 0, 0] + [0] * (bits == 64)
        body += struct.pack(f"{order}16s16s2{word}{len(rest)}I", name, b"__TEXT", 0, length, *rest)
    return command(0x19 if bits == 64 else 0x1, body, order)


def thin(
    *commands: bytes, bits: int = 64, order: str = "<", count: int | None = None, size: int | None = None
) -> bytes:
    """Write a Mach-O file that is nothing but load commands."""
    table = b"".join(commands)
    words = [0xFEEDFACF if bits == 64 else 0xFEEDFACE, ARM64, 0, 2]
    words += [len(commands) if count is None else count, len(table) if size is None else size, 0x85]
    return struct.pack(f"{order}{len(words)}I", *words) + bytes(4 * (bits == 64)) + table


def fat(*parts: bytes, magic: bytes = FAT, places: Sequence[tuple[int, int]] | None = None) -> bytes:
    """Write a fat file. ``places`` are what it says of its parts, if that is not the truth: offset and size."""
    entry = ">5I" if magic == FAT else ">2I2Q2I"
    data = bytearray(64 + struct.calcsize(entry) * len(parts))
    where = []
    for part in parts:
        where.append((len(data), len(part)))
        data += part.ljust(-len(part) % 64 + len(part), b"\0")
    table = magic + len(parts).to_bytes(4, "big")
    for number, (offset, size) in enumerate(places or where):
        table += struct.pack(entry, X86_64 + number, 3, offset, size, 6, *([] if magic == FAT else [0]))
    data[: len(table)] = table
    return bytes(data)


def lief_string(found: lief.MachO.LoadCommand) -> tuple[str, int] | None:
    """Return the string that LIEF reads in a command, and where in it; the place only where LIEF tells it."""
    match found:
        case lief.MachO.RPathCommand():
            return str(found.path), found.path_offset
        case lief.MachO.DylibCommand():
            return str(found.name), found.name_offset
        case lief.MachO.DylinkerCommand():
            return str(found.name), 12
        case lief.MachO.DyldEnvironment():
            return str(found.value), 12
        case lief.MachO.SubFramework():
            return str(found.umbrella), 12
        case lief.MachO.SubClient():
            return str(found.client), 12
    return None


def assert_as_lief(path: Path) -> MachO:
    """Compare every answer of ours about a file with LIEF's."""
    parsed = read(path.read_bytes())
    theirs = lief.MachO.parse(str(path))  # bound to a name: iterating over a temporary crashes
    assert theirs is not None
    found_binaries = [binary for number in range(theirs.size) if (binary := theirs.at(number)) is not None]
    binaries = sorted(found_binaries, key=lambda binary: binary.fat_offset)
    assert [part.offset for part in parsed.slices] == [binary.fat_offset for binary in binaries]
    for part, binary in zip(parsed.slices, binaries, strict=True):
        base = binary.fat_offset
        header = binary.header
        assert (part.cpu_type, part.file_type) == (header.cpu_type.value, header.file_type.value)
        strings = []
        for found in binary.commands:
            text = lief_string(found)
            if text is not None:
                room = found.size - text[1]
                strings.append((found.command.value, base + found.command_offset + text[1], text[0].encode(), room))
        assert [(s.command.value, s.offset, s.text, s.room) for s in part.strings] == strings
        sections = [(s.segment_name, s.name, s.offset, s.size, s.flags.value | s.type.value) for s in binary.sections]
        ours = [(s.segment.decode(), s.name.decode(), s.offset - base, s.size, s.flags) for s in part.sections]
        assert ours == sections
        place = None
        if binary.has_code_signature and binary.code_signature is not None:
            place = (base + binary.code_signature.data_offset, binary.code_signature.data_size)
        assert part.signature == place
    return parsed


def real_files() -> list[Path]:
    return macos.mach_o_files(macos.or_skip(macos.wheels))


def test_wheels_as_lief() -> None:
    """Thin and fat libraries of both processors, linked by Apple's linkers."""
    paths = real_files()
    assert len(paths) > 60
    parsed = [assert_as_lief(path) for path in paths]
    assert {part.cpu_type for each in parsed for part in each.slices} == {ARM64, X86_64}
    assert sum(each.is_fat for each in parsed) > 2
    kinds = {string.command for each in parsed for string in each.strings}
    assert kinds >= {Command.LOAD_DYLIB, Command.ID_DYLIB}


@pytest.mark.parametrize("find", macos.producers())
def test_linked_here_as_lief(find: Callable[[], Path]) -> None:
    paths = macos.mach_o_files(macos.or_skip(find))
    assert paths
    for path in paths:
        data = path.read_bytes()
        for string in assert_as_lief(path).strings:
            assert data[string.offset : string.offset + string.room] == string.text.ljust(string.room, b"\0")


@pytest.mark.parametrize("find", macos.producers())
def test_program_and_library(find: Callable[[], Path]) -> None:
    folder = macos.or_skip(find) / "arm64"
    (part,) = read((folder / "program").read_bytes()).slices
    texts = {(string.command, string.text) for string in part.strings}
    assert texts >= {
        (Command.RPATH, b"/opt/environment/lib"),
        (Command.LOAD_DYLIB, b"/opt/environment/lib/library.dylib"),
        (Command.LOAD_DYLINKER, b"/usr/lib/dyld"),
    }
    (part,) = read((folder / "library.dylib").read_bytes()).slices
    assert (Command.ID_DYLIB, b"/opt/environment/lib/library.dylib") in {(s.command, s.text) for s in part.strings}


def test_section_of_an_offset() -> None:
    """Never one that is filled with zeros: those have the offset of something else, or of nothing."""
    path = macos.or_skip(macos.programs_of_llvm) / "fat" / "program"
    data = path.read_bytes()
    parsed = read(data)
    first, second = parsed.slices
    for part in parsed.slices:
        at = data.index(b"/opt/environment/share/data", part.offset)
        found = parsed.section_at(at)
        assert found is not None and found == part.section_at(at)
        assert (found.segment, found.name, found.is_c_strings) == (b"__TEXT", b"__cstring", True)
        zeros = next(section for section in part.sections if section.is_zero_fill)
        assert zeros.size >= 40000 and zeros.end == zeros.offset
        assert parsed.section_at(zeros.offset) != zeros
        assert [s.name for s in part.sections if s.is_code][:1] == [b"__text"]
    assert first.section_at(data.index(b"/opt/environment/share/data", second.offset)) is None
    assert parsed.section_at(0) is None and parsed.slice_at(0) is None, "the table of slices belongs to none"


def test_linkers_keep_tails_apart() -> None:
    """A string that is the tail of another stands by itself: Apple's linkers share whole strings only.

    Else no string of a section would be another's tail.
    """
    alone = twice = 0
    for path in real_files():
        data = path.read_bytes()
        for part in read(data).slices:
            for section in part.sections:
                if section.is_c_strings and section.name == b"__cstring":
                    strings = [text for text in data[section.offset : section.end].split(b"\0") if text]
                    ends = sorted(text[::-1] for text in strings)
                    alone += sum(a != b and b.startswith(a) for a, b in pairwise(ends))
                    twice += len(strings) - len(set(strings))
    assert (alone > 1000, twice) == (True, 0)


@pytest.mark.parametrize("find", macos.producers())
def test_other_linkers_keep_tails_apart(find: Callable[[], Path]) -> None:
    data = (macos.or_skip(find) / "arm64" / "program").read_bytes()
    assert b"\0share/data\0" in data and b"/opt/environment/share/data\0" in data


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_word_sizes_and_byte_orders(tmp_path: Path, bits: int, order: str) -> None:
    strings = [(which, f"/opt/env/{which.name}".encode()) for which in Command]
    commands = [named(which, text, order) for which, text in strings]
    commands.append(command(0x1D, struct.pack(order + "2I", 16, 8), order))
    commands.append(segment([(b"__cstring", 0, 32, C_STRINGS), (b"__bss", 0, 1 << 20, ZERO_FILL)], bits, order))
    data = thin(*commands, bits=bits, order=order)
    parsed = read(data)
    (part,) = parsed.slices
    assert (part.bits, part.little_endian, part.offset, part.size) == (bits, order == "<", 0, len(data))
    assert (part.cpu_type, part.file_type, part.signature, parsed.is_fat) == (ARM64, 2, (16, 8), False)
    assert [(s.command, s.text) for s in part.strings] == strings
    for string in parsed.strings:
        assert data[string.offset : string.offset + string.room] == string.text.ljust(string.room, b"\0")
        assert string.offset + string.room in [data.find(c) + len(c) for c in commands], "to the command's end"
    assert part.sections == (
        Section(b"__TEXT", b"__cstring", 0, 32, C_STRINGS, True),
        Section(b"__TEXT", b"__bss", 0, 1 << 20, ZERO_FILL, False),
    )


@pytest.mark.parametrize("magic", [FAT, FAT_64])
def test_fat_files(magic: bytes) -> None:
    """The offsets are those in the whole file, whatever order and width the slices have."""
    old = thin(named(Command.RPATH, b"/opt/env/old", ">"), bits=32, order=">")
    new = thin(named(Command.RPATH, b"/opt/env/new"), segment([(b"__cstring", 32, 8, C_STRINGS)]))
    data = fat(old, new, magic=magic)
    parsed = read(data)
    assert parsed.is_fat
    assert [(part.bits, part.offset) for part in parsed.slices] == [(32, data.index(old)), (64, data.index(new))]
    assert parsed.strings == (
        CommandString(Command.RPATH, data.index(b"/opt/env/old"), b"/opt/env/old", 20),
        CommandString(Command.RPATH, data.index(b"/opt/env/new"), b"/opt/env/new", 20),
    )
    found = parsed.section_at(data.index(new) + 39)
    assert found is not None and found.offset == data.index(new) + 32


def test_slices_that_are_no_mach_o_files() -> None:
    """A static library for several processors is a fat file of archives."""
    parsed = read(fat(b"!<arch>\n" + bytes(60), thin(named(Command.RPATH, b"/x")), b"BC"))
    first, second, third = parsed.slices
    assert first == Slice(first.offset, 68, 0, False, X86_64, 0)
    assert [string.text for string in second.strings] == [b"/x"]
    assert third.sections == ()


def test_slices_out_of_order() -> None:
    one, two = thin(named(Command.RPATH, b"/one")), thin(named(Command.RPATH, b"/two"))
    straight = read(fat(one, two)).slices
    turned = read(fat(one, two, places=[(part.offset, part.size) for part in reversed(straight)]))
    assert turned.slices == straight


def test_file_of_debug_information() -> None:
    """It has the sections of the program it was made from, in a segment without bytes."""
    (part,) = read(thin(segment([(b"__cstring", 1 << 30, 99, C_STRINGS)], size=0))).slices
    assert (part.sections[0].in_file, part.sections[0].end) == (False, 1 << 30)


@pytest.mark.parametrize("kind", [0x1, 0xC, 0x12])
def test_sections_of_zeros(kind: int) -> None:
    """Of any size, of more than 4 GB, of a thread's own: their bytes are nowhere in the file."""
    (part,) = read(thin(segment([(b"__bss", 0, 1 << 40, kind)]))).slices
    (section,) = part.sections
    assert (section.is_zero_fill, section.in_file, section.end) == (True, False, 0)
    assert part.section_at(0) is None


def test_commands_of_no_interest() -> None:
    """Whatever they are, and whatever a segment of the other word size is doing here."""
    parsed = read(thin(command(0x7777, b"/opt/env/lib"), segment([(b"a", 1 << 31, 9, 0)], bits=32), segment([])))
    assert (parsed.strings, parsed.slices[0].sections) == ((), ())


def test_bytes_behind_the_string() -> None:
    """The string ends at its first NUL; the room does not."""
    parsed = read(thin(named(Command.RPATH, b"/opt/env\0/old/tail")))
    assert [(string.text, string.room) for string in parsed.strings] == [(b"/opt/env", 20)]


def test_reads_little() -> None:
    """What a file costs does not grow with its size."""
    path = max(real_files(), key=lambda path: path.stat().st_size)
    reader = Reader(path.read_bytes())
    assert len(reader.data) > 3_000_000
    assert parse(reader, len(reader.data)) is not None
    assert len(reader.reads) < 5
    assert sum(reader.reads) < 10_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xcf\xfa\xed",
        b"\x7fELF" + bytes(60),
        b"#!/bin/sh\n",
        FAT,
        FAT + bytes(4),
        FAT + b"\0\0\0\x34" + bytes(60),  # a Java class file of version 52
    ],
)
def test_no_mach_o_at_all(data: bytes) -> None:
    assert parse(Reader(data), len(data)) is None


ONE = thin(named(Command.RPATH, b"/x"))
SIGNATURE = command(0x1D, struct.pack("<2I", 32, 8))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (ONE[:4], "header ends behind"),
        (ONE[:31], "header ends behind"),
        (ONE[:-1], "table of load commands ends behind"),
        (thin(count=1), "end behind the end of their table"),
        (thin(SIGNATURE, count=1 << 31), "end behind the end of their table"),
        (thin(SIGNATURE, size=(1 << 22) + 1), "4194305 bytes of load commands"),
        (thin(command(2, b"", size=0)), "command has 0 bytes"),
        (thin(command(2, bytes(8), size=10)), "command has 10 bytes"),
        (thin(command(2, bytes(8), size=24)), "command has 24 bytes"),
        (thin(command(Command.RPATH.value, b"")), "with a string has 8 bytes"),
        (thin(command(Command.LOAD_DYLIB.value, bytes(8))), "with a string has 16 bytes"),
        (thin(command(Command.RPATH.value, struct.pack("<I", 8) + b"/x\0\0")), "of 16 bytes is at 8"),
        (thin(command(Command.ID_DYLIB.value, struct.pack("<4I", 20, 2, 0, 0) + bytes(8))), "of 32 bytes is at 20"),
        (thin(command(Command.RPATH.value, struct.pack("<I", 16) + b"/x\0\0")), "of 16 bytes is at 16"),
        (thin(command(Command.RPATH.value, struct.pack("<I", 12) + b"/xyz")), "has no end"),
        (thin(command(0x19, bytes(8))), "segment's load command has 16 bytes"),
        (thin(segment([(b"a", 0, 1, 0)])[:-8], size=152), "behind"),
        (thin(segment([(b"__text", 0, 1 << 40, CODE)])), "b'__TEXT,__text' ends behind"),
        (thin(SIGNATURE, SIGNATURE), "more than one code signature"),
        (thin(command(0x1D, b"")), "without a place"),
        (thin(command(0x1D, struct.pack("<2I", 40, 9))), "code signature ends behind"),
        (fat(ONE)[:20], "table of slices ends behind"),
        (fat(ONE)[:90], "slice ends behind"),
        (fat(ONE, places=[(8, 60)]), "inside of the one before it"),
        (fat(ONE, ONE, places=[(128, 56), (130, 56)]), "inside of the one before it"),
        (fat(ONE, magic=FAT_64, places=[(1 << 63, 1 << 63)]), "slice ends behind"),
        (fat(ONE[:40]), "table of load commands ends behind"),
        (fat(thin(command(0x1D, struct.pack("<2I", 40, 9)))) + bytes(99), "code signature ends behind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(data: bytes, what: str) -> None:
    reader = Reader(data)
    with pytest.raises(OddMachO, match=what) as raised:
        parse(reader, len(data))
    assert issubclass(OddMachO, PackError) and issubclass(OddMachO, ValueError)
    assert str(raised.value.offset) in str(raised.value)
    assert sum(reader.reads) < 10_000


def test_too_many_sections_for_their_command() -> None:
    data = bytearray(thin(segment([(b"a", 0, 1, 0)])))
    struct.pack_into("<I", data, 32 + 64, 1 << 31)
    with pytest.raises(OddMachO, match="2147483648 sections in a load command of 152 bytes"):
        read(bytes(data))


def test_all_slices_share_the_limit() -> None:
    """Forty slices of 4 MB of load commands are not 160 MB to hold."""
    part = thin(command(2, bytes((1 << 22) - 64)))
    assert len(read(fat(part)).slices) == 1
    with pytest.raises(OddMachO, match="bytes of load commands"):
        read(fat(part, part))


def test_changed_while_reading() -> None:
    with pytest.raises(OddMachO, match="could not be read"):
        parse(Reader(ONE[:40]), len(ONE))


HYPOTHESIS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_damaged(data: bytes) -> None:
    """Read what may be anything: only one exception is allowed, and reading stays in proportion."""
    reader = Reader(data)
    try:
        parsed = parse(reader, len(data))
    except OddMachO:
        pass
    else:
        for part in parsed.slices if parsed else ():
            assert part.end <= len(data)
            assert all(string.offset + string.room <= part.end for string in part.strings)
            assert all(section.end <= part.end for section in part.sections if section.in_file)
    assert sum(reader.reads) <= len(data) + 4096
    assert len(reader.reads) < 3 * 45 + 2


@pytest.fixture(scope="module", params=["arm64/library.dylib", "x86_64/program", "fat/program"])
def real(request: pytest.FixtureRequest) -> bytes:
    path: str = request.param
    return (macos.or_skip(macos.programs_of_llvm) / path).read_bytes()


@HYPOTHESIS
@given(st.data())
def test_truncated(real: bytes, draw: st.DataObject) -> None:
    read_damaged(real[: draw.draw(st.integers(0, len(real)))])


@HYPOTHESIS
@given(st.data())
def test_flipped_bits(real: bytes, draw: st.DataObject) -> None:
    """Headers and load commands are hit, which alone are read."""
    places = st.one_of([st.integers(part.offset, part.offset + 2000) for part in read(real).slices])
    damaged = bytearray(real)
    for place, value in draw.draw(
        st.lists(st.tuples(st.one_of(places, st.integers(0, 60)), st.integers(1, 255)), min_size=1, max_size=6)
    ):
        damaged[place] ^= value
    read_damaged(bytes(damaged))


@HYPOTHESIS
@given(st.sampled_from([FAT, FAT_64, ONE[:4], ONE[:16]]), st.binary(max_size=300))
def test_any_bytes(magic: bytes, rest: bytes) -> None:
    read_damaged(magic + rest)
