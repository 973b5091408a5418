"""Programs whose strings have lengths are told from C by marks that survive `strip`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer_stub.elf import OddElf, parse
from pack.languages import Language, counts_strings
from tests.conftest import need
from tests.unit.reader import Reader, damaged

SOURCES = {
    "gcc": ("a.c", '#include <stdio.h>\nint main(void) { puts("/opt/env/share"); return 0; }\n'),
    "g++": ("a.cc", '#include <iostream>\n#include <string>\nint main() { std::cout << std::string("/opt/env"); }\n'),
    "rustc": ("a.rs", 'fn main() { println!("{} {}", "/opt/env/share", std::env::args().count()); }\n'),
    "gfortran": ("a.f90", 'program a\n  print *, "/opt/env/share"\nend program\n'),
}


def language(data: bytes) -> Language | None:
    def read_at(offset: int, length: int) -> bytes:
        assert offset >= 0 <= length
        return data[offset : offset + length]

    parsed = parse(read_at, len(data))
    assert parsed is not None
    return counts_strings(read_at, len(data), parsed)


def compiled(directory: Path, compiler: str, *options: str) -> Path:
    name, source = SOURCES[compiler]
    (directory / name).write_text(source)
    subprocess.run([need(compiler), *options, name, "-o", "a"], check=True, cwd=directory, capture_output=True)
    return directory / "a"


def as_built(path: Path) -> bytes:
    return path.read_bytes()


def stripped(path: Path) -> bytes:
    subprocess.run([need("strip"), "-s", path], check=True)
    return path.read_bytes()


def without_comment(path: Path) -> bytes:
    """What names the compiler is gone, too: the language must be known by its library's own strings."""
    subprocess.run([need("objcopy"), "--strip-all", "-R", ".comment", path], check=True)
    return path.read_bytes()


def without_sections(path: Path) -> bytes:
    data = bytearray(without_comment(path))
    data[40:48] = bytes(8)  # e_shoff
    data[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(data)


@pytest.mark.parametrize(
    ("compiler", "options", "expected"),
    [
        ("gcc", ["-O0"], None),
        ("gcc", ["-O2", "-static"], None),
        ("g++", ["-O0"], Language.CPP),
        ("g++", ["-O2"], Language.CPP),
        ("g++", ["-O2", "-flto"], Language.CPP),
        ("g++", ["-O2", "-static"], Language.CPP),
        ("g++", ["-O2", "-static-libstdc++", "-static-libgcc"], Language.CPP),
        ("g++", ["-O2", "-fno-rtti", "-fno-exceptions", "-static-libstdc++"], Language.CPP),
        ("rustc", ["-Copt-level=0"], Language.RUST),
        ("rustc", ["-O", "-Clto=fat", "-Cpanic=abort"], Language.RUST),
        ("rustc", ["-O", "--crate-type=cdylib"], Language.RUST),
        ("gfortran", ["-O2"], Language.FORTRAN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_language(tmp_path: Path, compiler: str, options: list[str], expected: Language | None) -> None:
    program = compiled(tmp_path, compiler, *options)
    for treated in (as_built, stripped, without_comment, without_sections):
        assert language(treated(program)) is expected, treated.__name__


def test_rust_with_cpp_in_it_is_rust(tmp_path: Path) -> None:
    """Its strings are the harder ones: they have no NULs between them."""
    assert language(as_built(compiled(tmp_path, "rustc", "-Clink-arg=-Wl,--no-as-needed,-lstdc++"))) is Language.RUST


def test_mark_across_two_pieces(tmp_path: Path) -> None:
    """Data are searched in pieces: a mark that lies across the edge of one is found."""
    piece = 4 << 20
    source = "const char pad[9000000] = {1}; const char *f(void) { return pad; }\nint main(void) { return 0; }\n"
    (tmp_path / "b.c").write_text(source)
    subprocess.run([need("gcc"), "b.c", "-o", "b"], check=True, cwd=tmp_path)
    data = bytearray((tmp_path / "b").read_bytes())
    assert language(bytes(data)) is None
    parsed = parse(lambda offset, length: bytes(data[offset : offset + length]), len(data))
    assert parsed is not None
    rodata = next(section for section in parsed.sections if section.name == b".rodata")
    mark = b"library/core/src/"
    data[rodata.offset + piece - 5 : rodata.offset + piece - 5 + len(mark)] = mark
    assert language(bytes(data)) is Language.RUST


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return stripped(compiled(tmp_path_factory.mktemp("real"), "g++", "-O2"))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged(real: bytes, draw: st.DataObject) -> None:
    """Only one exception is allowed, and what is read stays in proportion."""
    data = draw.draw(damaged(real))
    read_at = Reader(data)

    try:
        parsed = parse(read_at, len(data))
        if parsed is not None:
            counts_strings(read_at, len(data), parsed)
    except OddElf:
        pass
    assert sum(read_at.reads) < 20 * len(data) + (4 << 20)
