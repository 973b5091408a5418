"""What points into the middle of a string is found, in programs of real compilers and in single instructions."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer_stub.elf import PF_W, PF_X, OddElf, parse
from pack.pointers import pointed_at
from tests.conftest import need
from tests.unit.reader import Reader, damaged

PF_R = 4
X86_64, AARCH64, RISCV = 62, 183, 243
BASE = 0x400000
HEADER = 64 + 56

# Long strings and the strings that a linker may store as their ends. Where strings are aligned by eight, as those of
# AArch64 mostly are, only an end behind the eight bytes "/opt/env" can be shared.
SHARED = {
    b"/opt/env/share": {b"share", b"env/share", b"/share"},
    b"/opt/env/lib/data": {b"data", b"lib/data", b"/lib/data"},
    b"/opt/env/etc/conf": {b"etc/conf", b"/etc/conf"},
    b"/opt/env/share/two": {b"share/two", b"/share/two"},
    b"/opt/env/tmp": {b"tmp", b"/tmp"},
    b"/opt/env/in/a/loop": {b"in/a/loop", b"/in/a/loop"},
    b"/opt/env/single": set(),
}
SOURCE = """
int puts(const char *);
const char *table[] = {"/opt/env/lib/data", "data", "lib/data", "/lib/data"};
static const char *const more[] = {"etc/conf", "/opt/env/etc/conf", "/etc/conf", "K", "L"};
__attribute__((noinline)) void show(const char *s) { puts(s); }
const char *pick(int n) {
  switch (n) {
    case 0: return "one";
    case 1: return "share/two";
    case 2: return "/opt/env/share/two";
    case 3: return "/share/two";
    case 4: return "five";
    default: return 0;
  }
}
int main(int argc, char **argv) {
  show("/opt/env/share"); show("share"); show("env/share"); show("/share"); show("/opt/env/single");
  show(argc > 1 ? "/opt/env/tmp" : "tmp"); show("/tmp");
  for (int i = 0; i < argc; i++) { show(table[i % 4]); show(more[i % 5]); show(pick(i)); show("in/a/loop"); }
  for (int i = 0; i < argc; i++) show("/in/a/loop");
  show("/opt/env/in/a/loop");
  return 0;
}
"""


def pointed(data: bytes, *slots: tuple[int, int]) -> list[tuple[int, ...] | None]:
    def read_at(offset: int, length: int) -> bytes:
        assert offset >= 0 <= length
        return data[offset : offset + length]

    parsed = parse(read_at, len(data))
    assert parsed is not None
    return pointed_at(read_at, len(data), parsed, slots)


def compiled(directory: Path, compiler: str, *options: str) -> bytes:
    (directory / "a.c").write_text(SOURCE)
    subprocess.run([need(compiler), *options, "-Wl,-O2", directory / "a.c", "-o", directory / "a"], check=True)
    return (directory / "a").read_bytes()


def assert_all_found(data: bytes, least: int = 13) -> None:
    """A tail that does not stand in the file by itself is shared, and nothing else is pointed to."""
    slots = {long: (data.index(long + b"\0"), data.index(long + b"\0") + len(long)) for long in SHARED}
    found = dict(zip(slots, pointed(data, *slots.values()), strict=True))
    some = 0
    for long, tails in SHARED.items():
        offsets = found[long]
        assert offsets is not None
        shared = {tail for tail in tails if b"\0" + tail + b"\0" not in data}
        assert {data[offset : slots[long][1]] for offset in offsets} == shared
        some += len(shared)
    assert some >= least, "this linker stores strings as ends of others"


@pytest.mark.parametrize(
    "options",
    [
        ["-O0", "-fmerge-constants"],
        ["-O2"],
        ["-Os"],
        ["-O2", "-flto"],
        ["-O3", "-mavx2"],
        ["-O0", "-fmerge-constants", "-no-pie", "-fno-pie"],
        ["-O2", "-no-pie", "-fno-pie"],
        ["-O2", "-fPIC", "-shared"],
        ["-O2", "-Wl,-z,noseparate-code"],
        ["-O2", "-s"],
    ],
    ids=" ".join,
)
def test_x86_64_programs(tmp_path: Path, options: list[str]) -> None:
    assert_all_found(compiled(tmp_path, "gcc", *options))


def test_without_section_headers(tmp_path: Path) -> None:
    data = bytearray(compiled(tmp_path, "gcc", "-O2"))
    data[40:48] = bytes(8)  # e_shoff
    data[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    assert_all_found(bytes(data))


@pytest.mark.parametrize("options", [["-O0", "-fmerge-constants"], ["-O2"], ["-Os"], ["-O2", "-fno-pic"]], ids=" ".join)
def test_aarch64_libraries(tmp_path: Path, options: list[str]) -> None:
    bare = ["-nostdlib", "-shared", "-fPIC"] if "-fno-pic" not in options else ["-nostdlib", "-static", "-Wl,-e,main"]
    if "-fno-pic" in options:
        bare.append("-Wl,--unresolved-symbols=ignore-all")
    assert_all_found(compiled(tmp_path, "aarch64-linux-gnu-gcc", *bare, *options), 6)


def image(machine: int, content: bytes, *, base: int = BASE, kind: int = 3, flags: int = PF_X | PF_R) -> bytes:
    """Write an ELF file of one segment, without sections; ``content`` begins at HEADER."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = ident + struct.pack("<HHI3QI6H", kind, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = HEADER + len(content)
    return head + struct.pack("<II6Q", 1, flags, 0, base, base, size, size, 4096) + content


# A string of 16 bytes is at 0x1000 of these files, and each instruction behind it names the place in its middle.
STRING, MIDDLE, CODE = 0x1000, 0x1008, 0x2000
SLOT = (STRING, STRING + 16)


def with_code(
    machine: int, code: bytes, at: int = CODE, *, kind: int = 3, base: int = BASE, flags: int = PF_X | PF_R
) -> bytes:
    content = bytes(STRING - HEADER) + b"/opt/env/share/x"
    return image(machine, content.ljust(at - HEADER, b"\0") + code + bytes(8), kind=kind, base=base, flags=flags)


def relative(before: str, behind: str = "", at: int = CODE) -> bytes:
    """An instruction of x86-64 with the distance from its end to MIDDLE between two parts of it."""
    length = len(bytes.fromhex(before)) + 4 + len(bytes.fromhex(behind))
    return bytes.fromhex(before) + struct.pack("<i", MIDDLE - at - length) + bytes.fromhex(behind)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("48 8d 3d", ""),  # lea rdi
        ("4c 8d 05", ""),  # lea r8
        ("48 8b 05", ""),  # mov rax
        ("0f b6 05", ""),  # movzx eax, byte
        ("f3 0f 6f 05", ""),  # movdqu xmm0
        ("c5 fa 6f 05", ""),  # vmovdqu xmm0
        ("62 f1 7f 28 6f 05", ""),  # vmovdqu8 ymm0
        ("80 3d", "2f"),  # cmp byte, imm8
        ("66 81 3d", "2f 6f"),  # cmp word, imm16
        ("81 3d", "2f 6f 70 74"),  # cmp dword, imm32
        ("f6 05", "01"),  # test byte, imm8
        ("ff 35", ""),  # push
        ("66 0f 3a 0f 05", "04"),  # palignr xmm0, imm8
        ("c4 e3 79 0f 05", "04"),  # vpalignr xmm0, imm8
        ("66 0f 38 00 05", ""),  # pshufb xmm0
        ("66 0f 70 05", "1b"),  # pshufd xmm0, imm8
    ],
)
def test_x86_64_instruction(before: str, behind: str) -> None:
    found = pointed(with_code(X86_64, b"\x90" * 16 + relative(before, behind, CODE + 16)), SLOT)
    assert found[0] is not None and MIDDLE in found[0]


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("e8", ""),  # call: strings are not called
        ("48 3d", ""),  # cmp rax, imm32
        ("48 8d 3d", "00"),  # lea has nothing behind
        ("eb 05", ""),  # jmp
    ],
)
def test_x86_64_bytes_that_name_nothing(before: str, behind: str) -> None:
    found = pointed(with_code(X86_64, b"\x90" * 16 + relative(before, behind, CODE + 16)), SLOT)
    assert found[0] is not None and MIDDLE not in found[0]


@pytest.mark.parametrize("edge", [1 << 16, 1 << 20, (1 << 20) + (1 << 16), 1 << 21])
@pytest.mark.parametrize("before", range(12))
def test_instruction_across_the_edge_of_a_piece(edge: int, before: int) -> None:
    at = edge - before
    assert pointed(with_code(X86_64, relative("48 8d 3d", at=at), at), SLOT) == [(MIDDLE,)]
    at = HEADER + edge - before
    assert pointed(with_code(X86_64, relative("48 8d 3d", at=at), at), SLOT) == [(MIDDLE,)]


def test_distance_forward() -> None:
    """Code before its strings, as most linkers lay them out."""
    code = bytes.fromhex("90909090 488d3d") + struct.pack("<i", 0x200000 - HEADER - 11)
    content = code.ljust(0x200000 - 8 - HEADER, b"\0") + b"/opt/env/share/x\0"
    assert pointed(image(X86_64, content), (0x200000 - 8, 0x200000 + 8)) == [(0x200000,)]


def test_absolute_address_in_code() -> None:
    """Only a program that is not moved can hold one: mov edi, imm32."""
    code = b"\x90\xbf" + struct.pack("<I", BASE + MIDDLE)
    assert pointed(with_code(X86_64, code, kind=2), SLOT) == [(MIDDLE,)]
    assert pointed(with_code(X86_64, code, kind=3), SLOT) == [()]


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_word_of_data(machine: int) -> None:
    """Aligned: in place, or as an addend. Also at the address 0x1008 itself, whose bytes are nearly all zero."""
    word, data = struct.pack("<Q", BASE + MIDDLE), PF_R | PF_W
    assert pointed(with_code(machine, word, flags=data), SLOT) == [(MIDDLE,)]
    assert pointed(with_code(machine, struct.pack("<Q", MIDDLE), base=0, flags=data), SLOT) == [(MIDDLE,)]
    assert pointed(with_code(machine, bytes(4) + word, flags=data), SLOT) == [()]
    assert pointed(with_code(machine, word, (1 << 20) + 8, flags=data), SLOT) == [(MIDDLE,)]


def test_word_that_the_loader_does_not_write() -> None:
    """It is a pointer only where the program is loaded at the address that it was linked for; else it is text."""
    word = struct.pack("<Q", BASE + MIDDLE)
    assert pointed(with_code(X86_64, word), SLOT) == [()]
    assert pointed(with_code(X86_64, word, kind=2), SLOT) == [(MIDDLE,)]


def adrp(at: int, target: int, register: int) -> bytes:
    pages = (target >> 12) - (at >> 12)
    return struct.pack("<I", 0x90000000 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5 | register)


def taking(code: int, place: int, source: int, register: int) -> bytes:
    return struct.pack("<I", code | place << 10 | source << 5 | register)


ADD, LDRB, LDR, LDR_Q, NOP, BL = 0x91000000, 0x39400000, 0xF9400000, 0x3DC00000, 0xD503201F, 0x94000000
PLACE = MIDDLE % 4096


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([taking(ADD, PLACE, 3, 3)], True),
        ([taking(ADD, PLACE, 3, 0)], True),
        ([struct.pack("<I", NOP)] * 1000 + [taking(ADD, PLACE, 3, 0)], True),
        ([taking(LDRB, PLACE, 3, 0)], True),
        ([taking(LDR, PLACE // 8, 3, 0)], True),
        ([taking(LDR, PLACE, 3, 0)], False),
        ([taking(ADD, PLACE, 4, 3)], False),
        ([struct.pack("<I", BL), taking(ADD, PLACE, 3, 0)], True),
        ([taking(ADD, 0, 3, 3), taking(ADD, PLACE, 3, 0)], False),
        ([taking(ADD, 0, 3, 4), taking(ADD, PLACE, 3, 0)], True),
    ],
    ids=[
        "adds to the register itself",
        "adds to another register",
        "far from its adrp",
        "loads a byte",
        "loads eight bytes, by eights",
        "loads from another place",
        "takes another register",
        "behind a branch around a call",
        "adds to what is the address of something else by then",
        "takes the page twice",
    ],
)
def test_aarch64_page_and_place(words: list[bytes], found: bool) -> None:
    code = adrp(CODE + 8, MIDDLE, 3) + b"".join(words)
    assert pointed(with_code(AARCH64, struct.pack("<2I", NOP, NOP) + code), SLOT) == [(MIDDLE,) if found else ()]


def test_aarch64_load_of_sixteen_bytes() -> None:
    code = adrp(CODE, STRING, 3) + taking(LDR_Q, 1, 3, 0)
    assert pointed(with_code(AARCH64, code), (STRING, STRING + 32)) == [(STRING + 16,)]


@pytest.mark.parametrize("at", [CODE, (1 << 20) - 4, 1 << 20, (1 << 20) + 4, 0x1FFFFC, 0x300000])
def test_aarch64_page_from_afar(at: int) -> None:
    code = adrp(at, MIDDLE, 20) + taking(ADD, PLACE, 20, 1)
    assert pointed(with_code(AARCH64, code, at), SLOT) == [(MIDDLE,)]


@pytest.mark.parametrize("at", [CODE, CODE + 4, 0x100000, 0x100004])
def test_aarch64_adr(at: int) -> None:
    """The linker makes it of adrp and add where the distance allows."""
    distance = MIDDLE - at
    code = struct.pack("<I", 0x10000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | 7)
    assert pointed(with_code(AARCH64, code, at), SLOT) == [(MIDDLE,)]


def test_only_strictly_inside() -> None:
    """Who reads a whole string points to its first byte, and who reads by a length perhaps behind its last."""
    words = struct.pack("<3Q", BASE + STRING, BASE + STRING + 16, BASE + STRING + 15)
    data = with_code(X86_64, words, flags=PF_R | PF_W)
    assert pointed(data, SLOT) == [(STRING + 15,)]
    assert pointed(data, (STRING, STRING), (STRING, STRING + 1), (STRING - 2, STRING + 2)) == [(), (), (STRING,)]


def test_cannot_be_told() -> None:
    """That is another answer than that nothing points there."""
    assert pointed(with_code(RISCV, b""), SLOT) == [None]
    data = with_code(X86_64, b"") + b"/opt/env/appended"
    assert pointed(data, SLOT, (len(data) - 17, len(data))) == [(), None]


def test_object_file(tmp_path: Path) -> None:
    data = compiled(tmp_path, "gcc", "-c")
    assert pointed(data, (data.index(b"/opt/env/single"), data.index(b"/opt/env/single") + 15)) == [None]


@pytest.fixture(scope="module", params=["gcc", "aarch64-linux-gnu-gcc"])
def real(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> bytes:
    return compiled(tmp_path_factory.mktemp("real"), str(request.param), "-nostdlib", "-shared", "-fPIC", "-s")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged(real: bytes, draw: st.DataObject) -> None:
    """Only one exception is allowed, and what is read stays in proportion."""
    data = draw.draw(damaged(real))
    read_at = Reader(data)

    start = real.index(b"/opt/env/share\0")
    try:
        parsed = parse(read_at, len(data))
        if parsed is not None:
            pointed_at(read_at, len(data), parsed, [(start, start + 14)])
    except OddElf:
        pass
    assert sum(read_at.reads) < 20 * len(data) + (4 << 20)
