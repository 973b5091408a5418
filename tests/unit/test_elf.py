"""ELF files of real environments are read as LIEF reads them; damaged ones are refused, and cost nothing."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import lief
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer_stub.dynstr import names_in
from installer_stub.elf import DT_RPATH, DT_RUNPATH, Elf, OddElf, RunPath, Text, parse
from installer_stub.errors import PackError
from tests.conftest import need
from tests.unit.reader import Reader

SOURCE = '#include <stdio.h>\nint main(void) { puts("/opt/env/share/data"); return 0; }\n'
PREFIX = "/opt/environment/with/some/length"

# The numbers of the fields of the header that tests overwrite.
PHOFF, SHOFF, PHENTSIZE, PHNUM, SHENTSIZE, SHNUM, SHSTRNDX = 4, 5, 8, 9, 10, 11, 12


def read(data: bytes) -> Elf:
    parsed = parse(Reader(data), len(data))
    assert parsed is not None
    return parsed


def compiled(directory: Path, *options: str, source: str = SOURCE) -> bytes:
    (directory / "a.c").write_text(source)
    subprocess.run([need("gcc"), directory / "a.c", "-o", directory / "a", *options], check=True)
    return (directory / "a").read_bytes()


def crafted(
    bits: int = 64,
    order: str = "<",
    *,
    strings: bytes = b"\0liba.so\0libb.so.1\0/opt/env/lib\0/opt/env/old\0",
    entries: Sequence[tuple[int, int]] = ((14, 1), (1, 9), (29, 19), (15, 32)),
    interpreter: bytes = b"/lib/ld.so.1\0",
    strings_address: int | None = None,
    strings_size: int | None = None,
    header: dict[int, int] | None = None,
) -> bytes:
    """Write an ELF file without section headers: an interpreter, a dynamic segment and its strings.

    ``entries`` are tags and offsets in ``strings``; ``header`` overwrites fields of the header, by number.
    """
    base, word = 0x400000, "Q" if bits == 64 else "I"
    head = struct.Struct(f"{order}HHI3{word}I6H")
    segment = struct.Struct(order + ("II6Q" if bits == 64 else "8I"))
    at_interpreter = 16 + head.size + 3 * segment.size
    at_strings = at_interpreter + len(interpreter)
    at_dynamic = at_strings + len(strings)
    address = base + at_strings if strings_address is None else strings_address
    size = len(strings) if strings_size is None else strings_size
    dynamic = b"".join(struct.pack(f"{order}2{word}", *entry) for entry in [*entries, (5, address), (10, size), (0, 0)])
    end = at_dynamic + len(dynamic)
    segments = b""
    for kind, offset, length in (
        (3, at_interpreter, len(interpreter)),
        (1, 0, end),
        (2, at_dynamic, len(dynamic)),
    ):
        place = [offset, base + offset, base + offset, length, length]
        segments += segment.pack(*([kind, 4, *place, 1] if bits == 64 else [kind, *place, 4, 1]))
    fields = [3, 243, 1, 0, 16 + head.size, 0, 0, 16 + head.size, segment.size, 3, 0, 0, 0]
    for number, value in (header or {}).items():
        fields[number] = value
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]).ljust(12, b"\0")
    return ident + head.pack(*fields) + segments + interpreter + strings + dynamic


def with_segment(data: bytes, number: int, kind: int, offset: int, address: int, size: int) -> bytes:
    """Overwrite one program header of a crafted 64-bit file."""
    fields = struct.pack("<II6Q", kind, 4, offset, address, address, size, size, 1)
    at = 64 + number * len(fields)
    return data[:at] + fields + data[at + len(fields) :]


def elf_files(*directories: Path) -> Iterator[Path]:
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def assert_as_lief(path: Path) -> None:
    data = path.read_bytes()
    ours, theirs = read(data), lief.ELF.parse(data)
    assert theirs is not None
    tags = lief.ELF.DynamicEntry.TAG
    run_paths: list[tuple[int, str]] = []
    named: dict[lief.ELF.DynamicEntry.TAG, list[str]] = {tags.NEEDED: [], tags.SONAME: []}
    for entry in theirs.dynamic_entries:
        if isinstance(entry, lief.ELF.DynamicEntryRpath):
            run_paths.append((DT_RPATH, str(entry.rpath)))
        elif isinstance(entry, lief.ELF.DynamicEntryRunPath):
            run_paths.append((DT_RUNPATH, str(entry.runpath)))
        elif isinstance(entry, lief.ELF.DynamicEntryLibrary | lief.ELF.DynamicSharedObject):
            named[entry.tag].append(str(entry.name))
    assert [(path.tag, path.text.decode()) for path in ours.run_paths] == run_paths
    assert [text.text.decode() for text in ours.needed] == named[tags.NEEDED]
    assert [text.text.decode() for text in (ours.soname,) if text] == named[tags.SONAME]
    interpreter = ours.interpreter.text.decode() if ours.interpreter else ""
    assert interpreter == (theirs.interpreter if theirs.has_interpreter else "")
    sections = [(section.name.decode(), section.offset, section.size) for section in ours.sections]
    assert sections == [(str(section.name), section.offset, section.size) for section in theirs.sections]
    for text in (*ours.run_paths, *ours.needed, ours.soname, ours.interpreter):
        if text is not None:
            assert data[text.offset : text.offset + len(text.text) + 1] == text.text + b"\0"
    assert 0 <= len(data) - ours.end <= 1, "no payload; patchelf leaves one byte"


def test_environment_as_lief(python_env: Path) -> None:
    paths = list(elf_files(python_env))
    assert len(paths) > 50
    for path in paths:
        assert_as_lief(path)


def test_interpreter_as_lief() -> None:
    library = Path(sys.base_prefix, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    dynload = list(elf_files(library / "lib-dynload"))
    assert dynload, "this Python has extension modules of its own"
    for path in [Path(sys.executable).resolve(), *dynload]:
        assert_as_lief(path)


@pytest.mark.parametrize(("options", "tag"), [("--disable-new-dtags", DT_RPATH), ("--enable-new-dtags", DT_RUNPATH)])
def test_run_path(tmp_path: Path, options: str, tag: int) -> None:
    data = compiled(tmp_path, f"-Wl,-rpath,{PREFIX}/lib:$ORIGIN/../lib,{options}")
    (run_path,) = read(data).run_paths
    text = f"{PREFIX}/lib:$ORIGIN/../lib".encode()
    assert run_path == RunPath(data.index(text), text, tag)


def test_shared_library(tmp_path: Path) -> None:
    data = compiled(tmp_path, "-shared", "-fPIC", "-Wl,-soname,libdata.so.1")
    parsed = read(data)
    assert parsed.soname == Text(data.index(b"libdata.so.1\0"), b"libdata.so.1")
    assert [text.text for text in parsed.needed] == [b"libc.so.6"]
    assert (parsed.interpreter, parsed.run_paths, parsed.kind) == (None, (), 3)


@pytest.mark.parametrize(
    ("options", "kind", "has_interpreter"),
    [(["-static"], 2, False), (["-static-pie"], 3, False), (["-no-pie"], 2, True), (["-pie"], 3, True)],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_executables(tmp_path: Path, options: list[str], kind: int, has_interpreter: bool) -> None:
    parsed = read(compiled(tmp_path, *options))
    assert parsed.kind == kind
    assert (parsed.interpreter is not None) is has_interpreter
    assert bool(parsed.needed) is has_interpreter


def test_object_file(tmp_path: Path) -> None:
    parsed = read(compiled(tmp_path, "-c"))
    assert (parsed.kind, parsed.needed, parsed.dynstr, parsed.interpreter) == (1, (), None, None)
    assert b".text" in {section.name for section in parsed.sections}


def test_more_sections_than_the_header_can_count(tmp_path: Path) -> None:
    """With 65280 sections and more their number is in the first section header."""
    source = "".join(f"int f{number}(void) {{ return 0; }}\n" for number in range(300))
    few = read(compiled(tmp_path, "-c", "-ffunction-sections", source=source))
    assembly = "".join(f".section .s{number}\n.byte 0\n" for number in range(65300))
    (tmp_path / "b.s").write_text(assembly)
    subprocess.run([need("gcc"), "-c", tmp_path / "b.s", "-o", tmp_path / "b.o"], check=True)
    many = read((tmp_path / "b.o").read_bytes())
    assert 300 < len(few.sections) < 65280 < 65300 < len(many.sections)
    assert b".s65299" in {section.name for section in many.sections}
    assert many.sections[0].size == len(many.sections), "the size of the first is the number of all"
    assert many.section_at(0) is None, "and so it is no place"


def test_more_segments_than_the_header_can_count() -> None:
    """With 65535 segments and more their number is in the first section header, as memory dumps have it."""
    size = len(crafted())
    data = crafted(header={PHNUM: 0xFFFF, SHOFF: size, SHENTSIZE: 64, SHNUM: 1})
    data += struct.pack("<II4QII2Q", 0, 0, 0, 0, 0, 0, 0, 3, 0, 0)
    assert read(data).run_paths == read(crafted()).run_paths


def test_unused_segment() -> None:
    """The fields of PT_NULL may be anything."""
    parsed = read(with_segment(crafted(), 0, 0, 1 << 63, 0, 1 << 63))
    assert (parsed.interpreter, len(parsed.run_paths), parsed.end) == (None, 2, len(crafted()))


def test_empty_places_are_no_places() -> None:
    """Wherever a segment without bytes is said to begin, the file ends where it ends."""
    assert read(with_segment(crafted(), 0, 4, 1 << 40, 0, 0)).end == len(crafted())


def test_only_loaded_segments_map_addresses() -> None:
    """A note whose address is that of the strings, and whose place in the file is not."""
    address = 0x400000 + crafted().index(b"\0liba")
    assert read(with_segment(crafted(), 0, 4, 0, address, 100)).run_paths == read(crafted()).run_paths


def test_no_section_headers(tmp_path: Path) -> None:
    """The loader does not read section headers: a file without them has the same run paths."""
    data = bytearray(compiled(tmp_path, f"-Wl,-rpath,{PREFIX}/lib"))
    before = read(bytes(data))
    data[40:48] = bytes(8)  # e_shoff
    data[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    after = read(bytes(data))
    assert after.sections == ()
    assert (after.run_paths, after.needed, after.interpreter) == (
        before.run_paths,
        before.needed,
        before.interpreter,
    )
    assert after.section_at(0x1000) is None


def test_detached_debug_information(tmp_path: Path) -> None:
    """Its program headers are those of the program, and would be read where its sections now stand."""
    compiled(tmp_path, "-g", f"-Wl,-rpath,{PREFIX}/lib")
    subprocess.run([need("objcopy"), "--only-keep-debug", tmp_path / "a", tmp_path / "a.debug"], check=True)
    data = (tmp_path / "a.debug").read_bytes()
    parsed = read(data)
    assert (parsed.run_paths, parsed.needed, parsed.interpreter) == ((), (), None)
    info = next(section for section in parsed.sections if section.name == b".debug_info")
    assert parsed.section_at(info.offset) == info
    assert parsed.end == len(data)


def test_detached_debug_information_with_the_program_headers_as_they_were(tmp_path: Path) -> None:
    """Tools other than objcopy leave sizes in them, which here still lead to a run path."""
    data = bytearray(compiled(tmp_path, f"-Wl,-rpath,{PREFIX}/lib"))
    table = struct.unpack_from("<Q", data, 40)[0]
    names = [section.name for section in read(bytes(data)).sections]
    struct.pack_into("<I", data, table + 64 * names.index(b".text") + 4, 8)  # SHT_NOBITS
    assert (read(bytes(data)).run_paths, read(bytes(data)).dynstr) == ((), None)


def test_section_of_an_offset(tmp_path: Path) -> None:
    data = compiled(tmp_path, "-g", source=SOURCE + "static char zeroed[100000]; char *f(void) { return zeroed; }\n")
    parsed = read(data)
    found = parsed.section_at(data.index(b"/opt/env/share/data"))
    assert found is not None and found.name == b".rodata"
    assert parsed.section_at(0) is None, "the header belongs to no section"
    zeroed = next(section for section in parsed.sections if section.name == b".bss")
    assert zeroed.size >= 100000
    assert parsed.section_at(zeroed.offset) != zeroed, "it has no bytes in the file"


def test_appended_payload(tmp_path: Path) -> None:
    data = compiled(tmp_path)
    parsed = read(data + b"payload")
    assert parsed.end == len(data)
    assert parsed.section_at(len(data)) is None


def test_32_bit_library(tmp_path: Path) -> None:
    """Made by the real linker from an object file that needs no 32-bit libc."""
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    obj, library = tmp_path / "a.o", tmp_path / "liba.so"
    done = subprocess.run([need("gcc"), "-m32", "-c", tmp_path / "a.c", "-o", obj], check=False)
    if done.returncode != 0:
        pytest.skip("this gcc cannot compile for 32 bits")
    link = f"{need('ld')} -m elf_i386 -shared {obj} -soname liba.so -rpath /x/lib -o {library}"
    subprocess.run(link.split(), check=True)
    parsed = read(library.read_bytes())
    assert (parsed.bits, parsed.little_endian, parsed.machine) == (32, True, 3)
    assert [path.text for path in parsed.run_paths] == [b"/x/lib"]
    assert_as_lief(library)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_word_sizes_and_byte_orders(bits: int, order: str) -> None:
    data = crafted(bits, order)
    parsed = read(data)
    assert (parsed.bits, parsed.little_endian, parsed.machine, parsed.kind) == (bits, order == "<", 243, 3)
    assert parsed.interpreter == Text(data.index(b"/lib/ld"), b"/lib/ld.so.1")
    assert parsed.soname == Text(data.index(b"liba"), b"liba.so")
    assert parsed.needed == (Text(data.index(b"libb"), b"libb.so.1"),)
    assert parsed.run_paths == (
        RunPath(data.index(b"/opt/env/lib"), b"/opt/env/lib", DT_RUNPATH),
        RunPath(data.index(b"/opt/env/old"), b"/opt/env/old", DT_RPATH),
    )
    assert parsed.dynstr == (data.index(b"\0liba"), 45)
    assert parsed.end == len(data)


def test_string_longer_than_a_read() -> None:
    path = b"/opt/env".ljust(5000, b"x")
    (run_path,) = read(crafted(strings=b"\0" + path + b"\0", entries=[(29, 1)])).run_paths
    assert run_path.text == path


def test_reads_little(python_env: Path) -> None:
    """What a file costs does not grow with its size."""
    path = max(elf_files(python_env), key=lambda path: path.stat().st_size)
    reader = Reader(path.read_bytes())
    assert len(reader.data) > 5_000_000
    assert parse(reader, len(reader.data)) is not None
    assert len(reader.reads) < 40
    assert sum(reader.reads) < 40_000


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"\x7fELG" + bytes(60), b"#!/bin/sh\n", b"MZ" + bytes(100)])
def test_no_elf_at_all(data: bytes) -> None:
    assert parse(Reader(data), len(data)) is None


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x7fELF", "word size"),
        (b"\x7fELF\x03\x01" + bytes(58), "word size"),
        (b"\x7fELF\x02\x03" + bytes(58), "byte order"),
        (crafted()[:63], "header ends behind"),
        (crafted()[:100], "program headers ends behind"),
        (crafted()[:-1], "segment ends behind"),
        (crafted(header={PHOFF: 1 << 63}), "program headers ends behind"),
        (crafted(header={PHNUM: 60000}), "program headers ends behind"),
        (crafted(header={PHENTSIZE: 1}), "program header has 1 bytes"),
        (crafted(header={SHOFF: 1 << 63, SHENTSIZE: 64}), "section header ends behind"),
        (crafted(header={SHOFF: 64, SHENTSIZE: 0}), "section header has 0 bytes"),
        (crafted(header={SHOFF: 64, SHENTSIZE: 64, SHNUM: 60000}), "section headers ends behind"),
        (crafted(header={SHOFF: 64, SHENTSIZE: 64, SHNUM: 1, SHSTRNDX: 1}), "section names are in"),
        (with_segment(crafted(), 1, 2, 0, 0, 0), "there are 2 dynamic segments"),
        (with_segment(crafted(), 2, 3, 0, 0, 0), "there are 2 interpreter segments"),
        (crafted(interpreter=b"/lib/ld.so"), "interpreter has no end"),
        (crafted(interpreter=b"/".ljust(4097, b"x")), "interpreter has 4097 bytes"),
        (crafted(strings=b"\0/opt/env", entries=[(29, 1)]), "has no end"),
        (crafted(entries=[(29, 45)]), "is at 45 in a table of 45 bytes"),
        (crafted(entries=[(29, 1 << 63)]), "in a table of"),
        (crafted(strings_size=1 << 62), "table of strings ends behind"),
        (crafted(strings_size=0), "in a table of 0 bytes"),
        (crafted(strings_address=8), "no segment of the file is loaded at 0x8"),
        (crafted(strings=bytes(1 << 20) + b"\0", entries=[(29, 0)] * 70000), "dynamic segment has"),
        (crafted(strings=b"x" * 70000 + b"\0", entries=[(1, 0)] * 16), "bytes of strings"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(data: bytes, what: str) -> None:
    reader = Reader(data)
    with pytest.raises(OddElf, match=what) as raised:
        parse(reader, len(data))
    assert issubclass(OddElf, PackError) and issubclass(OddElf, ValueError)
    assert str(raised.value.offset) in str(raised.value)
    assert sum(reader.reads) <= 4 << 20


def test_endless_section_names(tmp_path: Path) -> None:
    """Names may overlap: a thousand headers that share one long name are a thousand copies of it."""
    names = b"\0" + b"x" * 60000 + b"\0"
    header = struct.Struct("<II4QII2Q")
    table_at = 64 + len(names)
    headers = header.pack(1, 3, 0, 0, 64, len(names), 0, 0, 1, 0) * 1000
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    data = ident + struct.pack("<HHI3QI6H", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 1000, 0) + names + headers
    assert len(read(data).sections) == 1000
    data = ident + struct.pack("<HHI3QI6H", 1, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 1000, 1) + names + headers
    with pytest.raises(OddElf, match="too long"):
        read(data)


def test_too_many_sections() -> None:
    """The file is long enough for the table that it claims, and still is not read."""
    data = crafted(header={SHOFF: 1024, SHENTSIZE: 64, SHNUM: 0}).ljust(1024, b"\0")
    reader = Reader(data + struct.pack("<II4QII2Q", 0, 0, 0, 0, 0, 131073, 0, 0, 0, 0) + bytes(131072 * 64))
    with pytest.raises(OddElf, match="131073 section headers"):
        parse(reader, len(reader.data))
    assert sum(reader.reads) < 1000


def test_end_of_the_dynamic_segment() -> None:
    """What follows DT_NULL does not count."""
    parsed = read(crafted(entries=[(0, 0), (29, 19)]))
    assert (parsed.run_paths, parsed.dynstr) == ((), None)


def test_changed_while_reading(tmp_path: Path) -> None:
    """A file that is now shorter than its size was refused like a truncated one."""
    data = compiled(tmp_path)
    with pytest.raises(OddElf, match="could not be read"):
        parse(Reader(data[: len(data) // 2]), len(data))


def names(data: bytes) -> set[bytes]:
    """The strings in use of the dynamic string table, after a look at where they are."""
    parsed = read(data)
    offsets = names_in(Reader(data), len(data), parsed)
    assert list(offsets) == sorted(set(offsets))
    if parsed.dynstr is None:
        assert offsets == ()
        return set()
    assert all(parsed.dynstr[0] <= offset < sum(parsed.dynstr) for offset in offsets)
    return {data[offset : data.index(b"\0", offset)] for offset in offsets} - {b""}


def names_by_lief(data: bytes) -> set[bytes]:
    theirs = lief.ELF.parse(data)
    assert theirs is not None
    found = {str(symbol.name).partition("@")[0] for symbol in theirs.dynamic_symbols}
    for required in theirs.symbols_version_requirement:
        found |= {str(required.name), *(str(aux.name) for aux in required.get_auxiliary_symbols())}
    for definition in theirs.symbols_version_definition:
        found |= {str(aux.name) for aux in definition.auxiliary_symbols}
    parsed = read(data)
    texts = {text.text for text in (*parsed.run_paths, *parsed.needed, parsed.soname) if text is not None}
    return {name.encode() for name in found if name} | texts


def without_sections(data: bytes) -> bytes:
    """What the loader sees: no section headers."""
    changed = bytearray(data)
    changed[40:48] = bytes(8)  # e_shoff
    changed[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(changed)


def test_names_of_an_environment_as_lief(python_env: Path) -> None:
    total = 0
    for path in elf_files(python_env):
        data = path.read_bytes()
        expected = names_by_lief(data)
        total += len(expected)
        assert names(data) == expected, path
    assert total > 5000


def test_names_of_an_environment_without_section_headers(native_env: Path) -> None:
    """Where the hash table counts no imported symbols, bytes behind the last symbol may be taken for one, too."""
    for path in elf_files(native_env):
        data = path.read_bytes()
        assert names(without_sections(data)) >= names_by_lief(data), path


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("options", [[], ["-shared", "-fPIC"], ["-rdynamic"], ["-static-pie"]], ids=" ".join)
def test_names_by_each_hash_table(tmp_path: Path, style: str, options: list[str]) -> None:
    """An executable that exports nothing has a GNU hash table that counts nothing, and imports all the same."""
    data = compiled(tmp_path, *options, f"-Wl,--hash-style={style},-rpath,{PREFIX}/lib")
    expected = names_by_lief(data)
    assert f"{PREFIX}/lib".encode() in expected and ("-static-pie" in options or b"puts" in expected)
    assert names(data) == expected
    assert names(without_sections(data)) >= expected


def test_names_with_shared_tails(tmp_path: Path) -> None:
    """A symbol whose name is the end of the run path begins inside of it."""
    source = "int env_lib(void) { return 1; }\nint lib(void) { return 2; }\n"
    data = compiled(tmp_path, "-shared", "-fPIC", f"-Wl,-rpath,{PREFIX}/env_lib", source=source)
    (run_path,) = read(data).run_paths
    end = run_path.offset + len(run_path.text)
    offsets = names_in(Reader(data), len(data), read(data))
    assert {data[at:end] for at in offsets if run_path.offset < at < end} == {b"env_lib", b"lib"}


def test_names_of_versions(tmp_path: Path) -> None:
    """Definitions with parents, and needs."""
    (tmp_path / "v.map").write_text("ONE_1 { global: one; local: *; };\nTWO_2 { global: two; } ONE_1;\n")
    source = '#include <stdio.h>\nint one(void) { return puts("x"); }\nint two(void) { return 2; }\n'
    data = compiled(tmp_path, "-shared", "-fPIC", f"-Wl,--version-script={tmp_path / 'v.map'}", source=source)
    assert {b"ONE_1", b"TWO_2", b"libc.so.6", b"one", b"two"} <= names(data)
    assert names(data) == names_by_lief(data)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_names_of_the_dynamic_segment(bits: int, order: str) -> None:
    """Filters and auxiliary libraries are named there, too."""
    entries = [(14, 1), (1, 9), (29, 19), (0x7FFFFFFD, 4), (0x7FFFFFFF, 23)]
    assert names(crafted(bits, order, entries=entries)) == {
        b"liba.so",
        b"libb.so.1",
        b"/opt/env/lib",
        b"a.so",
        b"/env/lib",
    }


BASE = 0x400000


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([(6, 8)], "no segment of the file is loaded at 0x8"),
        ([(6, BASE + 64), (4, BASE - 1)], "where the hash table should be"),
        ([(6, BASE + 64), (4, BASE)], "table of symbols ends behind"),
        ([(6, BASE + 64), (0x6FFFFEF5, BASE)], "hash table ends behind"),
        ([(0x6FFFFFFE, 8)], "where the table of versions should be"),
        ([(0x6FFFFFFE, BASE + crafted().index(b"\0liba"))], "table of versions ends behind"),
        ([(6, BASE + crafted().index(b"/opt/env/old"))], "nothing tells how many"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_refused(entries: list[tuple[int, int]], what: str) -> None:
    data = crafted(entries=entries)
    reader = Reader(data)
    parsed = parse(reader, len(data))
    assert parsed is not None
    with pytest.raises(OddElf, match=what):
        names_in(reader, len(data), parsed)
    assert sum(reader.reads) < 10 * len(data)


def test_names_of_versions_without_end() -> None:
    """Parts that lead into each other cost no more than a number of parts that no real file has."""
    step = struct.pack("<4I", 0, 0, 1, 1)
    strings = b"\0" + step * 70000 + b"\0"
    data = crafted(strings=strings, entries=[(0x6FFFFFFE, BASE + crafted(strings=strings).index(step))])
    with pytest.raises(OddElf, match="table of versions"):
        names_in(Reader(data), len(data), read(data))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(tmp_path_factory.mktemp("real"), "-s", f"-Wl,-rpath,{PREFIX}/lib,--disable-new-dtags")


HYPOTHESIS = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_damaged(data: bytes) -> None:
    """Read what may be anything: only one exception is allowed, and reading stays in proportion."""
    reader = Reader(data)
    try:
        parsed = parse(reader, len(data))
    except OddElf:
        pass
    else:
        assert parsed is None or parsed.end <= len(data)
        with contextlib.suppress(OddElf):
            assert parsed is None or all(0 <= offset < len(data) for offset in names_in(reader, len(data), parsed))
    assert sum(reader.reads) < 10 * len(data) + (4 << 20)


@HYPOTHESIS
@given(st.data())
def test_truncated(real: bytes, draw: st.DataObject) -> None:
    read_damaged(real[: draw.draw(st.integers(0, len(real)))])


@HYPOTHESIS
@given(st.data())
def test_flipped_bits(real: bytes, draw: st.DataObject) -> None:
    """Headers and dynamic segment are hit more often than the rest."""
    dynamic = next(section for section in read(real).sections if section.name == b".dynamic")
    table = len(real) - 64 * len(read(real).sections)
    places = st.one_of(
        st.integers(0, 0x400),
        st.integers(dynamic.offset, dynamic.end - 1),
        st.integers(table, len(real) - 1),
        st.integers(0, len(real) - 1),
    )
    damaged = bytearray(real)
    for place, value in draw.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=6)):
        damaged[place] ^= value
    read_damaged(bytes(damaged))


@HYPOTHESIS
@given(st.binary(max_size=300), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
def test_any_bytes(rest: bytes, bits: int, order: int) -> None:
    read_damaged(b"\x7fELF" + bytes([bits, order]) + rest)
