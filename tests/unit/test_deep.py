"""A run path grows only in files that may be rebuilt, and nothing but the run path differs afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import lief
import pytest

from fixtures.selection import need
from installer_stub import elf
from installer_stub.elf import ReadAt
from installer_stub.model import Field, Fill, Force, Reference, Spelling
from pack import deep
from pack.splice import Splice, Spliced

OLD, NEW = b"/e/lib", b"$ORIGIN/../lib:$ORIGIN/a/much/longer/way"
SOURCE = """
int lib(void) { return 1; }
static char zeros[ZEROS];
char *more(void) { return zeros; }
int main(void) { return zeros[ZEROS - 1] + lib() - 1; }
"""


def reading(data: bytes) -> ReadAt:
    return lambda offset, length: data[offset : offset + length]


def parsed(data: bytes) -> elf.Elf:
    found = elf.parse(reading(data), len(data))
    assert found is not None
    return found


def linked(work: Path, *options: str, run_path: bytes = OLD, zeros: int = 64) -> bytes:
    """Link the source with gcc."""
    need("gcc")
    (work / "a.c").write_text(SOURCE)
    found = f"-Wl,-rpath,{run_path.decode()}"
    subprocess.run(["gcc", work / "a.c", f"-DZEROS={zeros}", found, "-o", work / "out", *options], check=True)
    return (work / "out").read_bytes()


def rebuilt(data: bytes, path: bytes = b"bin/a", old: bytes = OLD, new: bytes = NEW) -> bytes:
    """Grow a run path."""
    view = Spliced(reading(data), len(data), deep.rebuilt(reading(data), len(data), path, {old: new}))
    return view.read_at(0, view.size)


KINDS = {
    "a program": [],
    "a program at a fixed address": ["-no-pie"],
    "a stripped program": ["-s"],
    "a program with hash tables of both kinds": ["-Wl,--hash-style=both"],
    "a program with few segments": ["-Wl,-z,noseparate-code"],
    "a program for large pages": ["-Wl,-z,max-page-size=65536"],
    "a library": ["-shared", "-fPIC"],
    "a library for 32 bits": ["-shared", "-fPIC", "-m32", "-nostdlib"],
    "a library with DT_RPATH": ["-shared", "-fPIC", "-Wl,--disable-new-dtags"],
    "a library whose run path's end is an export": ["-shared", "-fPIC", "-Wl,--hash-style=gnu", "-O2"],
    "a library linked by gold": ["-shared", "-fPIC", "-fuse-ld=gold"],
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_grown(tmp_path: Path, options: list[str]) -> None:
    """Every byte that is loaded stays at its address; the loader reads another run path, of the same kind."""
    if "-fuse-ld=gold" in options:
        need("ld.gold")
    before = linked(tmp_path, *options)
    after = rebuilt(before)
    old, new = parsed(before), parsed(after)
    assert [(each.tag, each.text) for each in new.run_paths] == [(each.tag, NEW) for each in old.run_paths]
    assert new.segments[:-1] == old.segments
    assert new.segments[-1].flags == 4, "what is added is only read"
    assert OLD not in after
    assert old.dynstr and old.dynamic
    dynamic = before.find(b"".join(value.to_bytes(old.bits // 8, "little") for value in old.dynamic[0]))
    different = {at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other}
    allowed = {*range(64), *range(dynamic, dynamic + len(old.dynamic) * old.bits // 4)}
    allowed |= {*range(old.dynstr[0], sum(old.dynstr))}
    headers = int.from_bytes(before[40:48] if old.bits == 64 else before[32:36], "little")
    section = next((i for i, s in enumerate(old.sections) if s.name == b".dynstr"), None)
    if section is not None:
        size = 64 if old.bits == 64 else 40
        allowed |= {*range(headers + section * size, headers + (section + 1) * size)}
    assert different <= allowed
    (tmp_path / "grown").write_bytes(after)
    names = [subprocess.check_output(["nm", "-D", tmp_path / name]) for name in ("out", "grown")]
    assert names[0] == names[1]
    if "-shared" not in options:
        (tmp_path / "grown").chmod(0o755)
        subprocess.run([tmp_path / "grown"], check=True)


def test_grown_again(tmp_path: Path) -> None:
    """A file that has grown is a file like any other."""
    once = rebuilt(linked(tmp_path))
    twice = rebuilt(once, old=NEW, new=NEW + b":/usr/lib")
    assert [each.text for each in parsed(twice).run_paths] == [NEW + b":/usr/lib"]
    (tmp_path / "grown").write_bytes(twice)
    (tmp_path / "grown").chmod(0o755)
    subprocess.run([tmp_path / "grown"], check=True)


def test_programs_find_their_headers_in_old_kernels(tmp_path: Path) -> None:
    """Linux before 5.18 adds the offset in the file to where the first segment is loaded."""
    for options in ([], ["-no-pie"], ["-no-pie", "-Wl,-z,max-page-size=65536"]):
        after = rebuilt(linked(tmp_path, *options, zeros=1 << 20))
        first, last = parsed(after).segments[0], parsed(after).segments[-1]
        assert int.from_bytes(after[32:40], "little") == last.offset
        assert last.address - last.offset == first.address - first.offset


def test_the_page_of_other_machines(tmp_path: Path) -> None:
    """AArch64 may have pages of 64 KiB: offset and address must agree in what lies within one."""
    data = bytearray(linked(tmp_path, "-shared", "-fPIC", "-Wl,-z,max-page-size=65536", "-nostdlib"))
    data[18:20] = (183).to_bytes(2, "little")
    *_, before, last = parsed(rebuilt(bytes(data))).segments
    assert last.offset % (1 << 16) == last.address % (1 << 16)
    assert last.address >> 16 > (before.address + before.size) >> 16


def test_one_nul_of_patchelf_is_no_payload(tmp_path: Path) -> None:
    data = linked(tmp_path)
    assert parsed(rebuilt(data + b"\0")).run_paths[0].text == NEW


def appended(work: Path) -> bytes:
    return linked(work) + b"PK\5\6" + bytes(18)


def in_a_section(work: Path) -> bytes:
    linked(work)
    (work / "payload").write_bytes(b"payload")
    need("objcopy")
    subprocess.run(["objcopy", "--add-section", f"pydata={work}/payload", work / "out"], check=True)
    return (work / "out").read_bytes()


def dynamic_linker(work: Path) -> bytes:
    linked(work)
    need("readelf")
    found = re.search(rb"interpreter: (.*)\]", subprocess.check_output(["readelf", "-lW", work / "out"]))
    assert found is not None
    return Path(os.fsdecode(found[1])).read_bytes()


def nameless_linker(work: Path) -> bytes:
    """What only its symbols give away."""
    (work / "b.c").write_text("struct { int version; } _r_debug = {1};\n")
    return linked(work, "-shared", "-fPIC", "-nostdlib", str(work / "b.c"))


def object_file(work: Path) -> bytes:
    linked(work)
    subprocess.run(["gcc", "-c", work / "a.c", "-DZEROS=4", "-o", work / "a.o"], check=True)
    return (work / "a.o").read_bytes()


REFUSED: dict[str, tuple[Callable[[Path], bytes], bytes, str]] = {
    "a payload behind the end": (appended, b"bin/a", "appended"),
    "a payload in a section": (in_a_section, b"bin/a", "section pydata"),
    "the dynamic linker, by its soname": (dynamic_linker, b"lib/copy", "a dynamic linker"),
    "glibc's linker, by its name": (linked, b"lib/ld-linux-x86-64.so.2", "a dynamic linker"),
    "its older name": (linked, b"lib/ld-2.31.so", "a dynamic linker"),
    "musl's linker, by its name": (linked, b"lib/ld-musl-x86_64.so.1", "a dynamic linker"),
    "musl's library, which is its linker": (linked, b"lib/libc.musl-x86_64.so.1", "a dynamic linker"),
    "a linker, by what it exports": (nameless_linker, b"lib/a", "a dynamic linker"),
    "a static program": (lambda work: linked(work, "-static"), b"bin/a", "no dynamic segment"),
    "a static program at any address": (lambda work: linked(work, "-static-pie"), b"bin/a", "a static program"),
    "an object file": (object_file, b"lib/a.o", "no dynamic segment"),
    "no ELF file": (lambda work: b"#!/bin/sh\n", b"bin/a", "no ELF file"),
    "a truncated file": (lambda work: linked(work)[:5000], b"bin/a", "not a sound ELF file"),
    "a .bss of 64 MiB": (lambda work: linked(work, zeros=64 << 20), b"bin/a", "16 MiB of zeros"),
}


@pytest.mark.parametrize(("make", "path", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, make: Callable[[Path], bytes], path: bytes, why: str) -> None:
    data = make(tmp_path)
    with pytest.raises(deep.NotGrown, match=why):
        deep.rebuilt(reading(data), len(data), path, {OLD: NEW})


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = linked(tmp_path)
    monkeypatch.setattr(deep, "LARGEST", len(data))
    rebuilt(data)
    monkeypatch.setattr(deep, "LARGEST", len(data) - 1)
    with pytest.raises(deep.NotGrown, match="it has more than"):
        rebuilt(data)


def test_a_run_path_that_another_string_ends_with_stays_in_it(tmp_path: Path) -> None:
    """The linker stored it as the end of a library's name: that name must stay."""
    data = linked(tmp_path, "-shared", "-fPIC", "-Wl,-soname,x/e/lib")
    assert data.count(OLD + b"\0") == 1, "this linker does not share ends"
    after = parsed(rebuilt(data))
    assert after.soname and after.soname.text == b"x" + OLD
    assert after.run_paths[0].text == NEW


def spoiled_dynamic(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deep._Rebuilding._dynamic

    def other(self: deep._Rebuilding, *rest: object) -> Splice:
        splice = honest(self, *rest)  # type: ignore[arg-type]
        new = bytes(splice.new).replace(b"\x0c" + bytes(7), b"\x0d" + bytes(7), 1)
        return Splice(splice.offset, splice.length, new)

    monkeypatch.setattr(deep._Rebuilding, "_dynamic", other)


def spoiled_name(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deep._Rebuilding._scrubbed

    def other(self: deep._Rebuilding, *rest: object) -> Iterator[Splice]:
        yield from honest(self, *rest)  # type: ignore[arg-type]
        assert self.elf.dynstr is not None
        start, length = self.elf.dynstr
        yield Splice(start + self.read_at(start, length).index(b"more\0"), 4, b"less")

    monkeypatch.setattr(deep._Rebuilding, "_scrubbed", other)


def spoiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = deep._Rebuilding._headers

    def other(self: deep._Rebuilding, segments: list[deep._Segment], *rest: int) -> bytes:
        moved = [each._replace(offset=each.offset + (each.flags == 5) * 4096) for each in segments]
        return honest(self, moved, *rest)

    monkeypatch.setattr(deep._Rebuilding, "_headers", other)


@pytest.mark.parametrize("spoil", [spoiled_dynamic, spoiled_name, spoiled_code])
def test_a_difference_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Were the rebuilding wrong, its result would not be taken."""
    data = linked(tmp_path, "-shared", "-fPIC")
    rebuilt(data)
    spoil(monkeypatch)
    with pytest.raises(deep.NotGrown, match="read again"):
        rebuilt(data)


def slot(data: bytes, field: Field = Field.RUN_PATH, text: bytes = OLD) -> Reference:
    at = data.index(text + b"\0")
    return Reference(at, len(text), b"/e", field, Spelling.PLAIN, Fill.TERMINATE, Force.ALWAYS)


def test_the_slots_of_what_has_grown_are_gone(tmp_path: Path) -> None:
    data = linked(tmp_path)
    other = Reference(5, 2, b"/e", Field.C_STRING, Spelling.PLAIN, Fill.SLASHES, Force.ALWAYS)
    made = deep.grown(reading(data), len(data), b"bin/x/y/a", (), [other, slot(data)])
    assert made is not None
    assert made.references == (other,)
    assert made.changed == ((OLD, b"$ORIGIN/../../../lib"),)


def test_without_slots_nothing_is_read(tmp_path: Path) -> None:
    def unreadable(offset: int, length: int) -> bytes:
        raise AssertionError

    assert deep.grown(unreadable, 10, b"bin/a", (), []) is None


def test_a_way_that_is_not_the_same_from_everywhere_is_refused(tmp_path: Path) -> None:
    data = linked(tmp_path)
    with pytest.raises(deep.NotGrown, match="different ways"):
        deep.grown(reading(data), len(data), b"bin/a", (b"",), [slot(data)])


def test_a_slot_in_the_table_that_is_left_behind_is_refused(tmp_path: Path) -> None:
    data = linked(tmp_path, "-shared", "-fPIC", "-Wl,-soname,/e/lib/liba.so")
    name = slot(data, Field.LOAD_COMMAND, b"/e/lib/liba.so")
    with pytest.raises(deep.NotGrown, match="the same table"):
        deep.grown(reading(data), len(data), b"bin/a", (), sorted([slot(data), name], key=lambda each: each.offset))


def test_lief_s_builder_would_not_do(tmp_path: Path) -> None:
    """Why it only reads: asked for nothing, it writes a program's hash table anew."""
    before = linked(tmp_path)
    binary = lief.ELF.parse(str(tmp_path / "out"))
    assert binary is not None
    config = lief.ELF.Builder.config_t()
    for name in [name for name in dir(config) if not name.startswith("_")]:
        setattr(config, name, False)
    builder = lief.ELF.Builder(binary, config)
    builder.build()
    table = next(section for section in parsed(before).sections if section.name == b".gnu.hash")
    assert bytes(builder.get_build())[table.offset : table.end] != before[table.offset : table.end]


def test_lief_is_loaded_only_to_compare() -> None:
    """It takes most of a second: a scan without the option does not wait for it."""
    script = "import sys, pack.cli, pack.write, pack.report, pack.deep; sys.exit('lief' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
