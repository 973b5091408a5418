"""The floor of an environment is what the loader would ask for: no more, no less, and never a reason not to pack."""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer_stub.elf import OddElf
from installer_stub.model import Entry, Kind, Standing
from pack import floor
from pack.environment import find
from pack.examine import Context, Job, examine
from pack.floor import Binary, Floor
from pack.scan import Options, Scan, scan
from pack.selection import Rule
from tests.conftest import need
from tests.unit.reader import Reader, damaged

HERE = platform.machine()


def read(data: bytes) -> Binary | None:
    return floor.read(Reader(data), len(data), data[:4096])


def gcc(directory: Path, source: str, name: str, *options: str, compiler: str = "gcc") -> Path:
    """Compile a program, or whatever the options ask for."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (directory / "source.c").write_text(source)
    subprocess.run([need(compiler), directory / "source.c", "-o", path, *options], cwd=directory, check=True)
    (directory / "source.c").unlink()
    return path


def library(folder: Path, *versions: str, compiler: str = "gcc") -> bytes:
    """Link a library that needs versions of a libc of our own making; "GLIBC_2.9" sorts below "GLIBC_2.17"."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(len(versions))
    (folder / "map").write_text("".join(f"{name} {{ global: f{n}; }};\n" for n, name in enumerate(versions)))
    shared = ("-shared", "-fPIC", "-nostdlib")
    functions = "".join(f"void f{n}(void) {{}}\n" for n in numbers)
    of_libc = ("-Wl,--version-script=map", "-Wl,-soname,libc.so.6")
    gcc(folder, functions, "libour.so", *shared, *of_libc, compiler=compiler)
    declared, called = "".join(f"void f{n}(void);\n" for n in numbers), "".join(f"f{n}();" for n in numbers)
    source = f"{declared}void use(void) {{ {called} }}\n"
    data = gcc(folder, source, "libuse.so", *shared, "-L.", "-lour", compiler=compiler).read_bytes()
    for name in ("map", "libour.so", "libuse.so"):
        (folder / name).unlink()
    return data


def weakened(data: bytes, version: str) -> bytes:
    """Mark the need of a version as weak: linkers do so where the version was declared weak, and tools afterwards."""
    value = 0
    for byte in version.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    need = struct.pack("<IH", value, 0)
    assert data.count(need) == 1
    return data.replace(need, struct.pack("<IH", value, 2))


# --- one file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "newest"),
    [
        pytest.param(("GLIBC_2.2.5",), "2.2.5", id="three numbers"),
        pytest.param(("GLIBC_2.9", "GLIBC_2.17"), "2.17", id="compared as numbers"),
        pytest.param(("GLIBC_2.17", "GLIBC_2.9", "GLIBC_2.2.5"), "2.17", id="in any order"),
        pytest.param(("GLIBC_2.17", "GLIBC_ABI_DT_RELR"), "2.36", id="a mark stands for the version that brought it"),
        pytest.param(("GLIBC_2.40", "GLIBC_ABI_DT_RELR"), "2.40", id="an older mark"),
        pytest.param(("GLIBC_2.4", "GLIBC_ABI_GNU2_TLS"), "2.42", id="a newer mark"),
        pytest.param(("GLIBC_2.17", "GLIBCXX_3.4.30", "GCC_7"), "2.17", id="versions of other libraries"),
        pytest.param(("GLIBC_2.17", "GLIBC_PRIVATE"), "2.17", id="what glibc keeps for itself"),
        pytest.param(("GLIBC_PRIVATE",), "", id="that alone"),
        pytest.param(("OPENSSL_3",), "", id="none of glibc's"),
        pytest.param(("GLIBC_2.x", "GLIBC_", "XGLIBC_2.99", "GLIBC_2.17extra"), "", id="names that only look like it"),
    ],
)
def test_the_newest_need_counts(needs: tuple[str, ...], newest: str, tmp_path: Path) -> None:
    data = library(tmp_path, *needs)
    assert floor.needs(Reader(data), len(data)) == set(needs)
    assert read(data) == Binary(HERE, True, newest)


def test_a_mark_that_is_not_known_is_told(tmp_path: Path) -> None:
    """Nobody can say which glibc it needs; the rest is told all the same."""
    binary = read(library(tmp_path, "GLIBC_2.30", "GLIBC_ABI_SOMETHING"))
    assert binary is not None
    assert (binary.glibc, "GLIBC_ABI_SOMETHING" in binary.odd) == ("2.30", True)


def test_a_weak_need_does_not_count(tmp_path: Path) -> None:
    data = weakened(library(tmp_path, "GLIBC_2.30", "GLIBC_2.17", "GLIBC_2.9"), "GLIBC_2.30")
    assert read(data) == Binary(HERE, True, "2.17")
    assert "GLIBC_2.30" not in floor.needs(Reader(data), len(data))
    assert "GLIBC_2.30" in floor.needs(Reader(data), len(data), weak=True)


def test_the_loader_has_the_same_opinion(tmp_path: Path) -> None:
    """A program that calls a newer function where there is one: with a weak need it starts without it, else not."""
    shared = ("-shared", "-fPIC", "-Wl,-soname,libour.so", "-Wl,--version-script=map")
    (tmp_path / "map").write_text("GLIBC_2.0 { global: old; };\nGLIBC_9.9 { global: new; };\n")
    gcc(tmp_path, "int old(void) { return 0; }\nint new(void) { return 7; }\n", "libour.so", *shared)
    source = "#pragma weak new\nint old(void);\nint new(void);\nint main(void) { return new ? new() : old(); }\n"
    strong = gcc(tmp_path, source, "program", "-L.", "-lour", "-Wl,-rpath,$ORIGIN")
    weak = tmp_path / "weak"
    weak.write_bytes(weakened(strong.read_bytes(), "GLIBC_9.9"))
    weak.chmod(0o755)
    codes = [subprocess.run([path], check=False).returncode for path in (strong, weak)]
    assert codes == [7, 7]
    (tmp_path / "map").write_text("GLIBC_2.0 { global: old; };\nGLIBC_9.8 { global: other; };\n")
    gcc(tmp_path, "int old(void) { return 0; }\nint other(void) { return 1; }\n", "libour.so", *shared)
    refused = subprocess.run([strong], capture_output=True, text=True, check=False)
    assert refused.returncode and "version `GLIBC_9.9' not found" in refused.stderr
    assert subprocess.run([weak], check=False).returncode == 0
    found = [read(path.read_bytes()) for path in (strong, weak)]
    assert [binary.glibc if binary else "" for binary in found] == ["9.9", newest_by_readelf(weak)]


MEMCPY = """
#include <string.h>
__asm__(".symver memcpy, memcpy@%s");
void *copy(void *to, const void *from, size_t size) { return memcpy(to, from, size); }
"""


@pytest.mark.parametrize(("version", "glibc"), [("GLIBC_2.2.5", "2.2.5"), ("GLIBC_2.14", "2.14")])
def test_the_version_of_a_symbol_decides_and_not_the_glibc_of_the_compiler(
    version: str, glibc: str, tmp_path: Path
) -> None:
    """Both are in the glibc of any x86-64 machine of today."""
    if HERE != "x86_64":
        pytest.skip("only x86-64 has two versions of memcpy")
    path = gcc(tmp_path, MEMCPY % version, "libcopy.so", "-shared", "-fPIC", "-O1", "-nostartfiles")
    assert read(path.read_bytes()) == Binary(HERE, True, glibc)


@pytest.mark.parametrize("options", [["-static"], ["-static-pie"], ["-shared", "-fPIC", "-nostdlib"]], ids=" ".join)
def test_what_needs_no_glibc(options: list[str], tmp_path: Path) -> None:
    source = "int main(void) { return 0; }\n"
    assert read(gcc(tmp_path, source, "program", *options).read_bytes()) == Binary(HERE, True)


def test_an_object_file_is_nothing_that_is_loaded(tmp_path: Path) -> None:
    path = gcc(tmp_path, "int main(void) { return 0; }\n", "main.o", "-c")
    assert read(path.read_bytes()) == Binary(HERE, False)


def test_detached_debug_information_needs_nothing(tmp_path: Path) -> None:
    """It describes segments that it does not have."""
    path = gcc(tmp_path, '#include <stdio.h>\nint main(void) { return puts("x"); }\n', "program", "-g")
    subprocess.run([need("objcopy"), "--only-keep-debug", path, tmp_path / "debug"], check=True)
    assert read((tmp_path / "debug").read_bytes()) == Binary(HERE, True)


@pytest.mark.parametrize(
    ("bits", "order", "machine", "expected"),
    [
        (2, 1, 62, "x86_64"),
        (2, 1, 183, "aarch64"),
        (2, 1, 21, "ppc64le"),
        (2, 2, 21, "ppc64"),
        (2, 2, 22, "s390x"),
        (2, 1, 243, "riscv64"),
        (1, 1, 243, "243"),
        (1, 1, 3, "i686"),
        (1, 1, 62, "62"),  # x32: another loader, and other libraries
        (2, 1, 9999, "9999"),
        (3, 1, 62, ""),
        (2, 3, 62, ""),
    ],
)
def test_the_architecture_of_a_file(bits: int, order: int, machine: int, expected: str) -> None:
    head = bytes([*b"\x7fELF", bits, order, 1]).ljust(16, b"\0")
    head += b"".join(number.to_bytes(2, "little" if order == 1 else "big") for number in (3, machine))
    assert floor.architecture(head) == expected
    assert floor.architecture(head[:19]) == ""
    assert floor.architecture(b"x" + head[1:]) == ""


def test_a_damaged_file_is_no_error(tmp_path: Path) -> None:
    data = gcc(tmp_path, "int main(void) { return 0; }\n", "program").read_bytes()
    binary = read(data[: len(data) // 2])
    assert binary is not None
    assert (binary.architecture, binary.glibc, "not a sound ELF file" in binary.odd) == (HERE, "", True)
    assert read(b"\x7fELF") is None
    assert read(b"") is None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    source = '#include <stdio.h>\nint main(void) { return puts("x"); }\n'
    return gcc(tmp_path_factory.mktemp("real"), source, "program", "-s").read_bytes()


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_stands_in_a_file(real: bytes, draw: st.DataObject) -> None:
    """It is read to an end, in proportion, without an error."""
    data = draw.draw(damaged(real))
    reader = Reader(data)
    binary = floor.read(reader, len(data), data[:4096])
    assert binary is None or re.fullmatch(r"([0-9]+(\.[0-9]+)*)?", binary.glibc)
    assert sum(reader.reads) < 10 * len(data) + (4 << 20)


def needs_by_readelf(*paths: Path) -> dict[Path, set[tuple[str, bool]]]:
    """Let binutils tell the versions that files need, and whether a need is weak."""
    command: list[str | Path] = [need("readelf"), "--version-info", "--wide", *paths]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[Path, set[tuple[str, bool]]] = {path: set() for path in paths}
    current, inside = paths[0], False
    for line in shown.splitlines():
        if line.startswith("File: "):
            current = Path(line.removeprefix("File: "))
        elif line.startswith("Version "):
            inside = line.startswith("Version needs")
        elif inside and (match := re.search(r"Name: (\S+)  Flags: (.*?) +Version:", line)):
            found[current].add((match[1], "WEAK" in match[2]))
    return found


def newest_by_readelf(path: Path) -> str:
    """Tell the floor of one file by what binutils says."""
    names = [name for name, weak in needs_by_readelf(path)[path] if not weak and re.fullmatch(r"GLIBC_[0-9.]+", name)]
    numbers = [name.removeprefix("GLIBC_") for name in names]
    return max(numbers, key=lambda number: [int(part) for part in number.split(".")], default="")


def elf_files(*directories: Path) -> Iterator[Path]:
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path


def test_files_of_the_system_as_readelf() -> None:
    """Programs, libraries and object files, as a distribution builds them."""
    chosen = [path for _, path in zip(range(400), elf_files(Path("/usr/bin"), Path("/usr/lib")), strict=False)]
    if len(chosen) < 100:
        pytest.skip("fewer than a hundred ELF files in /usr/bin and /usr/lib")
    expected = needs_by_readelf(*chosen)
    assert sum(bool(each) for each in expected.values()) > 50
    for path, versions in expected.items():
        data = path.read_bytes()
        told = floor.needs(Reader(data), len(data)), floor.needs(Reader(data), len(data), weak=True)
        assert told == ({name for name, weak in versions if not weak}, {name for name, _ in versions}), path


# --- an environment --------------------------------------------------------------------------------


def loaded(glibc: str, architecture: str = "x86_64", odd: str = "") -> Binary:
    return Binary(architecture, True, glibc, odd)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, ("", None), id="nothing compiled"),
        pytest.param({"bin/a": loaded("")}, ("x86_64", None), id="nothing that needs a glibc"),
        pytest.param({"bin/a": loaded("2.9"), "lib/b": loaded("2.17")}, ("x86_64", ("2.17", "lib/b")), id="numbers"),
        pytest.param({"bin/a": loaded("2.3"), "lib/b": loaded("2.3.4")}, ("x86_64", ("2.3.4", "lib/b")), id="thirds"),
        pytest.param(
            {"lib/z": loaded("2.28"), "lib/b": loaded("2.28"), "a": loaded("2.4"), "lib/c": loaded("2.28")},
            ("x86_64", ("2.28", "lib/b")),
            id="the first by path",
        ),
        pytest.param(
            {"bin/a": loaded("2.17"), "lib/b": loaded("2.34", "aarch64"), "lib/c": loaded("2.5")},
            ("x86_64", ("2.17", "bin/a")),
            id="another architecture's",
        ),
        pytest.param(
            {"bin/a": loaded("2.17"), "lib/b": loaded("2.34", "aarch64"), "lib/c": loaded("", "aarch64")},
            ("aarch64", ("2.34", "lib/b")),
            id="most files decide",
        ),
        pytest.param(
            {"bin/a": loaded("2.17"), "bin/b": loaded("2.4", "aarch64")},
            ("aarch64", ("2.4", "bin/b")),
            id="the first by name where they are even",
        ),
        pytest.param(
            {"bin/a": loaded("2.17"), "x/b": loaded("2.34", "i686"), "x/c": loaded("2.34", "i686")},
            ("x86_64", ("2.17", "bin/a")),
            id="bin and lib decide",
        ),
        pytest.param({"lib64/a": loaded("2.17")}, ("x86_64", ("2.17", "lib64/a")), id="neither bin nor lib"),
        pytest.param(
            {
                "bin/gcc": loaded("2.17"),
                "x86_64-conda-linux-gnu/sysroot/lib64/libm.so.6": loaded("2.39"),
                "sysroot/lib/libc.so.6": loaded("2.38"),
                "lib/sysroot/usr/lib/x": loaded("2.37"),
                "bin/sysroot": loaded("2.3"),
            },
            ("x86_64", ("2.17", "bin/gcc")),
            id="what compilers link against",
        ),
        pytest.param({"bin/sysroot": loaded("2.3")}, ("x86_64", ("2.3", "bin/sysroot")), id="a file of that name"),
        pytest.param(
            {"bin/a": loaded("2.17"), "lib/my-sysroot/b": loaded("2.30")},
            ("x86_64", ("2.30", "lib/my-sysroot/b")),
            id="a directory of another name",
        ),
        pytest.param({"lib/a.o": Binary("x86_64", False)}, ("", None), id="object files alone"),
    ],
)
def test_the_floor_of_an_environment(files: dict[str, Binary], expected: tuple[str, tuple[str, str] | None]) -> None:
    for order in (files, dict(reversed(files.items()))):
        binaries = {path.encode(): binary for path, binary in order.items()}
        architecture = floor.own_architecture(binaries)
        found = floor.of_environment(binaries, architecture)
        assert (architecture, found and (found.glibc, found.path.decode())) == expected


def test_what_could_not_be_measured_is_told() -> None:
    """But not where it is nobody's floor."""
    files = {
        b"lib/b": loaded("", odd="why"),
        b"lib/a": loaded("2.4", odd="why, too"),
        b"lib/c": loaded("2.4"),
        b"x/sysroot/d": loaded("", odd="why"),
        b"lib/e": loaded("", "aarch64", odd="why"),
    }
    told = floor.not_measured(files, "x86_64")
    assert [(each.path, each.what, each.detail) for each in told] == [
        (b"lib/a", "not measured", "why, too"),
        (b"lib/b", "not measured", "why"),
    ]


def scanned(prefix: Path, workers: int = 1) -> Scan:
    return scan(find(None, str(prefix)), Options(workers))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A plain environment whose library asks for most."""
    prefix = tmp_path / "env"
    for path, needs in {
        "bin/program": ("GLIBC_2.17",),
        "lib/libnew.so": ("GLIBC_2.30", "GLIBC_2.9"),
        "lib/cc/sysroot/lib/libc.so": ("GLIBC_2.39",),
    }.items():
        data = library(tmp_path / "build", *needs)
        (prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (prefix / path).write_bytes(data)
    (prefix / "lib/text").write_text("GLIBC_2.99")
    (prefix / "bin/link").symlink_to("program")
    os.link(prefix / "lib/libnew.so", prefix / "lib/libother.so")
    return prefix


def test_it_is_part_of_a_scan(prefix: Path) -> None:
    found = scanned(prefix)
    assert (found.architecture, found.floor, found.not_measured) == (HERE, Floor("2.30", b"lib/libnew.so"), ())


def test_files_for_another_machine_are_passed_over(prefix: Path, tmp_path: Path) -> None:
    """A cross compiler brings some; where most are for it, the environment is for it."""
    foreign = library(tmp_path / "build", "GLIBC_2.38", compiler="aarch64-linux-gnu-gcc")
    assert read(foreign) == Binary("aarch64", True, "2.38")
    (prefix / "bin/foreign").write_bytes(foreign)
    assert scanned(prefix).floor == Floor("2.30", b"lib/libnew.so")
    for name in ("one", "two"):
        (prefix / "lib" / name).write_bytes(foreign)
    found = scanned(prefix)
    assert (found.architecture, found.floor) == ("aarch64", Floor("2.38", b"bin/foreign"))


def test_an_odd_file_does_not_stop_packing(prefix: Path) -> None:
    """It is passed over, and told: nobody knows what it needs."""
    data = (prefix / "lib/libnew.so").read_bytes()
    (prefix / "lib/libnew.so").unlink()
    (prefix / "lib/libother.so").write_bytes(data[: len(data) // 2])
    (prefix / "lib/cc/sysroot/lib/odd").write_bytes(data[: len(data) // 2])
    (prefix / "lib/short").write_bytes(data[:10])
    found = scanned(prefix)
    assert found.floor == Floor("2.17", b"bin/program")
    (told,) = found.not_measured
    assert (told.path, told.what) == (b"lib/libother.so", "not measured")
    assert "not a sound ELF file" in told.detail
    assert {item.entry.path for item in found.items} >= {b"lib/libother.so", b"lib/short"}


def test_an_environment_without_compiled_files(tmp_path: Path) -> None:
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/script").write_text("#!/bin/sh\n")
    found = scanned(tmp_path / "env")
    assert (found.architecture, found.floor, found.not_measured) == ("", None, ())


def test_a_file_that_an_earlier_packing_knew_is_measured_all_the_same(prefix: Path) -> None:
    path = b"lib/libnew.so"
    context = Context(bytes(prefix), (bytes(prefix),))
    size = (prefix / os.fsdecode(path)).stat().st_size
    first = examine(Job(path, size, 0), context)
    known = Entry(path, Kind.FILE, 0o755, size, 0, b"", first.disk.sha256, Standing.INTACT, "x-1-0")
    again = examine(Job(path, size, 0, known=known), context)
    assert (first.from_manifest, again.from_manifest) == (False, True)
    assert first.binary == again.binary == Binary(HERE, True, "2.30")


def test_a_real_environment_as_readelf(native_env: Path) -> None:
    """By several processes, as it is packed."""
    newest = {path.relative_to(native_env): newest_by_readelf(path) for path in elf_files(native_env)}
    highest = max(newest.values(), key=lambda number: [int(part or 0) for part in number.split(".")])
    found = scanned(native_env, workers=2)
    assert found.architecture == HERE and found.not_measured == ()
    assert found.floor == Floor(highest, min(bytes(path) for path, number in newest.items() if number == highest))


# --- libraries from the machine -----------------------------------------------------------------------


def linked(directory: Path, *needed: str) -> bytes:
    """Link a library that needs others, by the names given: those that these call themselves, or paths to them."""
    directory.mkdir(parents=True, exist_ok=True)
    shared = ("-shared", "-fPIC", "-nostdlib")
    for number, name in enumerate(needed):
        own = () if "/" in name else (f"-Wl,-soname,{name}",)  # without a name of its own it is needed by its path
        gcc(directory, f"void g{number}(void) {{}}\n", name if "/" in name else f"in{number}.so", *shared, *own)
    calls = "".join(f"void g{number}(void); void h{number}(void) {{ g{number}(); }}\n" for number in range(len(needed)))
    files = [name if "/" in name else f"in{number}.so" for number, name in enumerate(needed)]
    # The compiler runs there, so a relative name with a slash stands in the file as it is given.
    return gcc(directory, calls, "user.so", *shared, "-Wl,--no-as-needed", *files).read_bytes()


OF_GLIBC = (
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "ld-linux.so.2",
    "ld64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libmvec.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "libanl.so.1",
    "libnss_files.so.2",
)


def test_a_file_tells_which_libraries_it_needs(tmp_path: Path) -> None:
    """Those of glibc are everywhere, and its floor tells of them; a path is no name that the loader looks up."""
    others = ("libX11.so.6", "libcrypt.so.1", "libnsl.so.1", "libmy.so", "libc.so.6.old", "ld-linux.so")
    found = read(linked(tmp_path, *OF_GLIBC, "./path/libhere.so", *others))
    assert found is not None and found.libraries == tuple(map(os.fsencode, others))


def needing(*names: str, architecture: str = "x86_64") -> Binary:
    return Binary(architecture, True, libraries=tuple(map(os.fsencode, names)))


@pytest.mark.parametrize(
    ("files", "paths", "outside"),
    [
        pytest.param({"bin/a": needing()}, (), {}, id="nothing is needed"),
        pytest.param({"bin/a": needing("libx.so.1")}, (), {"libx.so.1": ["bin/a"]}, id="it is not there"),
        pytest.param({"bin/a": needing("libx.so.1")}, ("lib/libx.so.1",), {}, id="it is there"),
        pytest.param(
            {"bin/a": needing("libx.so.1")}, ("lib/libx.so.1.2",), {"libx.so.1": ["bin/a"]}, id="a longer name"
        ),
        pytest.param({"bin/a": needing("libx.so.1")}, ("site/x.libs/libx.so.1",), {}, id="in any directory"),
        pytest.param(
            {"bin/a": needing("libx.so.1")}, ("cc/sysroot/lib/libx.so.1",), {"libx.so.1": ["bin/a"]}, id="in a sysroot"
        ),
        pytest.param(
            {"bin/b": needing("liby.so", "libx.so"), "bin/a": needing("liby.so")},
            (),
            {"libx.so": ["bin/b"], "liby.so": ["bin/a", "bin/b"]},
            id="in order",
        ),
        pytest.param({"bin/a": needing("libx.so", architecture="aarch64")}, (), {}, id="for another machine"),
        pytest.param({"cc/sysroot/lib/a": needing("libx.so")}, (), {}, id="what a compiler links against"),
    ],
)
def test_what_is_not_in_the_environment_comes_from_the_machine(
    files: dict[str, Binary], paths: tuple[str, ...], outside: dict[str, list[str]]
) -> None:
    binaries = {path.encode(): binary for path, binary in files.items()}
    found = floor.from_outside(binaries, "x86_64", [path.encode() for path in paths])
    assert {each.name.decode(): [path.decode() for path in each.files] for each in found} == outside
    assert [each.name for each in found] == sorted(each.name for each in found)


def test_libraries_from_the_machine_are_part_of_a_scan(prefix: Path, tmp_path: Path) -> None:
    """A symlink of the name will do, and what is left out is not there."""
    (prefix / "lib/libuser.so").write_bytes(linked(tmp_path / "in", "libaway.so.1", "liblink.so.2", "libgone.so.3"))
    (prefix / "lib/liblink.so.2").symlink_to("libnew.so")
    (prefix / "lib/libgone.so.3").write_bytes(b"")
    assert [each.name for each in scanned(prefix).outside] == [b"libaway.so.1"]
    found = scan(find(None, str(prefix)), Options(1, rules=(Rule("lib/libgone.so.3"),)))
    assert [(each.name, each.files) for each in found.outside] == [
        (b"libaway.so.1", (b"lib/libuser.so",)),
        (b"libgone.so.3", (b"lib/libuser.so",)),
    ]


def test_libraries_of_a_real_environment_as_readelf(native_env: Path) -> None:
    there = {path.name for path in native_env.rglob("*")}
    needed: dict[str, list[bytes]] = {}
    for path in elf_files(native_env):
        said = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"\(NEEDED\)\s+Shared library: \[(.*)\]", said):
            if name not in there and not name.startswith(
                ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "libutil.", "ld-")
            ):
                needed.setdefault(name, []).append(bytes(path.relative_to(native_env)))
    found = scanned(native_env, workers=2).outside
    assert {each.name.decode(): list(each.files) for each in found} == {n: sorted(p) for n, p in needed.items()}
    assert needed, "a test that compares nothing"


# --- the frozen stub -------------------------------------------------------------------------------


def test_the_floor_of_a_tree(tmp_path: Path) -> None:
    """The newest need of all files counts, and the file is named; what is no ELF file counts for nothing."""
    root = tmp_path / "stub"
    root.mkdir()
    assert floor.of_tree(root) is None
    for name, version in (("old", "GLIBC_2.9"), ("new", "GLIBC_2.30")):
        (root / name).mkdir()
        (root / name / "libuse.so").write_bytes(library(tmp_path / "build", version))
    (root / "text").write_text("GLIBC_2.99")
    assert floor.of_tree(root) == Floor("2.30", b"new/libuse.so")


def test_of_what_we_build_ourselves_weak_needs_count_and_odd_files_are_errors(tmp_path: Path) -> None:
    """The stub promises to be the same on every glibc from its floor on; a weak need would make it another."""
    root = tmp_path / "stub"
    root.mkdir()
    data = library(tmp_path / "build", "GLIBC_2.30", "GLIBC_2.17")
    (root / "program").write_bytes(weakened(data, "GLIBC_2.30"))
    assert floor.of_tree(root) == Floor("2.30", b"program")
    (root / "odd").write_bytes(data[: len(data) // 2])
    with pytest.raises(OddElf):
        floor.of_tree(root)
