"""The packages made for the tests hold what they are there for, as shipped and as installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import lief
import pytest

from fixtures import references
from fixtures.selection import need
from tests.conftest import MakeEnvironment


@pytest.fixture(scope="session")
def shipped(references_env: Path, package_cache: Path) -> dict[str, Path]:
    """Where the package cache holds each package, as its channel ships it."""
    found = {name: list((package_cache / "pkgs").glob(f"{name}-1.0-*/info")) for name in references.available()}
    return {name: folders[0].parent for name, folders in found.items()}


@pytest.fixture(scope="session")
def placeholders(shipped: dict[str, Path]) -> dict[str, tuple[str, bytes]]:
    """Every shipped file with a placeholder: its path, and its mode with its placeholder."""
    recorded: dict[str, tuple[str, bytes]] = {}
    for folder in shipped.values():
        for path in json.loads((folder / "info" / "paths.json").read_text())["paths"]:
            if "prefix_placeholder" in path:
                recorded[path["_path"]] = path["file_mode"], path["prefix_placeholder"].encode()
    return recorded


def elf(path: Path) -> lief.ELF.Binary:
    binary = lief.ELF.parse(path)
    assert binary is not None
    return binary


def section(path: Path, name: str) -> bytes:
    binary = elf(path)  # held while its parts are read: they do not keep it alive
    found = binary.get_section(name)
    assert found is not None, f"{path} has no section {name}"
    return bytes(found.content)


def run_paths(path: Path) -> dict[lief.ELF.DynamicEntry.TAG, str]:
    binary = elf(path)
    return {
        entry.tag: str(getattr(entry, "rpath", None) or getattr(entry, "runpath", ""))
        for entry in binary.dynamic_entries
        if entry.tag in (lief.ELF.DynamicEntry.TAG.RPATH, lief.ELF.DynamicEntry.TAG.RUNPATH)
    }


BINARY = [
    "bin/ref-c",
    "bin/ref-c-debug",
    "bin/ref-c-twin",
    "lib/libref-c.a",
    "bin/ref-cxx",
    "bin/ref-exports",
    "bin/ref-interpreter",
    "bin/ref-rpath",
    "bin/ref-runpath",
    "bin/ref-runpath-mixed",
    "lib/libref-tail.so",
    "lib/refdeep/libref-deep.so",
]
TEXT = [
    "bin/ref-text",
    "lib/pkgconfig/ref-text.pc",
    "share/ref-text/latin1.conf",
    "share/ref-text/plain.conf",
    "share/ref-text/url.html",
    "share/ref-text/windows.ini",
    "bin/ref-shell",
    "bin/ref-shell-option",
    "bin/ref-latin1",
    "bin/ref-perl",
    "python-scripts/ref-python-script",
    "site-packages/ref_python.py",
    "etc/conda/activate.d/ref-activate.sh",
    "etc/conda/activate.d/ref-activate.fish",
    "etc/conda/activate.d/ref-activate.csh",
    "etc/conda/env_vars.d/ref-activate.json",
]


def test_placeholders_of_255_characters_are_recorded(placeholders: dict[str, tuple[str, bytes]]) -> None:
    modes = {path: mode for path, (mode, _) in placeholders.items() if path != "bin/ref-rust"}
    assert modes == {path: "binary" for path in BINARY} | {path: "text" for path in TEXT}
    assert {len(placeholder) for _, placeholder in placeholders.values()} == {255}


@pytest.mark.parametrize(
    ("package", "path", "where", "suffix"),
    [
        pytest.param("ref-c", "bin/ref-c", ".rodata", b"/share/ref-c/array.txt\0", id="C string"),
        pytest.param("ref-c", "bin/ref-c", ".data", b"/share/ref-c/data.txt\0" + bytes(64), id="zeros behind it"),
        pytest.param("ref-c", "bin/ref-c-debug", ".debug_str", b'"\0', id="debug section"),
        pytest.param("ref-cxx", "bin/ref-cxx", ".rodata", b"/share/ref-cxx/view.txt", id="C++ string_view"),
        pytest.param("ref-cxx", "bin/ref-cxx", ".rodata", b"/share/ref-cxx/string.txt", id="C++ string"),
        pytest.param("ref-runpath", "bin/ref-interpreter", ".interp", b"/lib/ref-interpreter.so\0", id="interpreter"),
        pytest.param("ref-runpath", "bin/ref-rpath", ".dynstr", b"/lib/refdeep\0", id="run path"),
    ],
)
def test_a_compiled_placeholder_lies_where_it_should(
    package: str,
    path: str,
    where: str,
    suffix: bytes,
    shipped: dict[str, Path],
    placeholders: dict[str, tuple[str, bytes]],
) -> None:
    assert placeholders[path][1] + suffix in section(shipped[package] / path, where)


def test_the_linker_shares_the_tail_of_a_path(
    shipped: dict[str, Path], placeholders: dict[str, tuple[str, bytes]]
) -> None:
    strings = section(shipped["ref-c"] / "bin/ref-c", ".rodata")
    assert placeholders["bin/ref-c"][1] + b"/share/ref-c/tail.txt\0" in strings
    assert strings.count(b"ref-c/tail.txt\0") == 1


def test_the_linker_shares_an_exported_name_with_a_run_path(
    shipped: dict[str, Path], placeholders: dict[str, tuple[str, bytes]]
) -> None:
    library = shipped["ref-runpath"] / "lib/libref-tail.so"
    binary = elf(library)
    assert "reftail" in {symbol.name for symbol in binary.exported_symbols}
    names = section(library, ".dynstr")
    assert placeholders["lib/libref-tail.so"][1] + b"/lib/reftail\0" in names
    assert names.count(b"reftail\0") == 1


def test_rust_literals_have_no_terminator(shipped: dict[str, Path], placeholders: dict[str, tuple[str, bytes]]) -> None:
    need("rustc")
    program = (shipped["ref-rust"] / "bin/ref-rust").read_bytes()
    placeholder = placeholders["bin/ref-rust"][1]
    assert b"betaword" + placeholder + b"/share/ref-rust/word.txtgammaword" in program


def test_run_paths_have_both_tags_and_several_entries(
    shipped: dict[str, Path], placeholders: dict[str, tuple[str, bytes]]
) -> None:
    prefix = placeholders["bin/ref-runpath"][1].decode()
    both = f"{prefix}/lib:{prefix}/lib/refdeep"
    mixed = f"/usr/lib/ref-nowhere:{prefix}/lib:$ORIGIN/../share:{prefix}/lib/refdeep/:/opt"
    rpath, runpath = lief.ELF.DynamicEntry.TAG.RPATH, lief.ELF.DynamicEntry.TAG.RUNPATH
    programs = shipped["ref-runpath"] / "bin"
    assert run_paths(programs / "ref-runpath") == {runpath: both}
    assert run_paths(programs / "ref-rpath") == {rpath: both}
    assert run_paths(programs / "ref-runpath-mixed") == {runpath: mixed}
    assert run_paths(programs / "ref-runpath-origin") == {runpath: "$ORIGIN/../lib:$ORIGIN/../lib/refdeep"}


# What every program prints where nothing is damaged.
C = """array: found array
search: found search
table: found table-1
table: found table-2
whole: found tail
tail: ref-c/tail.txt
writable: found data
zeros: kept
"""
NEAR_AND_DEEP = "near: found near\ndeep: found deep\n"
WHOLE = {
    "ref-c": C,
    "ref-c-debug": C,
    "ref-c-twin": C,
    "ref-cxx": "string: found string\nview: found view\njoined: found joined\n",
    "ref-exports": "library: found\nexport: kept\n",
    "ref-interpreter": NEAR_AND_DEEP,
    "ref-latin1": "latin1: found data\n",
    "ref-perl": "warnings: kept\nperl: found data\n",
    "ref-python": "constant: found data\ninterpreter: its own\n",
    "ref-python-script": "constant: found data\ninterpreter: its own\n",
    "ref-rpath": NEAR_AND_DEEP,
    "ref-runpath": NEAR_AND_DEEP,
    "ref-runpath-mixed": NEAR_AND_DEEP,
    "ref-runpath-origin": NEAR_AND_DEEP,
    "ref-rust": "literal: found literal\nword: found word\nneighbours: 6641 36974\n",
    "ref-shell": "shell: found data, 0\n",
    "ref-shell-option": "option: kept\nfound data\n",
    "ref-text": """plain: found data
windows: found data
latin1: found data
url: found data
pkgconfig: found data
libtool: found data
json: found data
shell: found data
utf-16-le: found data
utf-16-be: found data
encoded: found data
absolute-file: found data
absolute-directory: found data
relative-file: found data
hard-a: found data
hard-b: found data
""",
}
# What the client's NULs do to programs that count bytes, or share them, from the installation on.
DAMAGED = {
    **{name: C.replace("tail: ref-c/tail.txt", "tail: ") for name in ("ref-c", "ref-c-debug", "ref-c-twin")},
    "ref-cxx": "string: found string, with NULs inside\nview: found view, with NULs inside\n"
    "joined: not found, with NULs inside\n",
    "ref-exports": "library: found\nexport: lost\n",
    "ref-rust": "literal: not found\nword: not found\nneighbours: 6641 0\n",
}


def test_installed_programs_find_all_but_what_padding_damages(references_env: Path) -> None:
    present = set(references.run_programs(references_env))
    assert references.run_programs(references_env) == {name: (WHOLE | DAMAGED)[name] for name in present}
    assert present >= set(WHOLE) - {"ref-rust"}


def test_programs_built_into_a_prefix_find_all(tmp_path: Path) -> None:
    """As by ``make install``: no package, no placeholder, no padding; a long prefix and a path with no Python."""
    prefix = tmp_path / "prefix"
    references.build_into(prefix)
    printed = references.run_programs(prefix)
    assert printed == {name: WHOLE[name] for name in printed}
    assert set(printed) >= set(WHOLE) - {"ref-rust", "ref-python", "ref-python-script"}
    prefix.rename(tmp_path / "elsewhere")
    moved = references.run_programs(tmp_path / "elsewhere")
    assert {name for name in moved if moved[name] == printed[name]} == {"ref-runpath-origin"}


def test_links_stand_in_the_environment(references_env: Path) -> None:
    share = references_env / "share" / "ref-text"
    for first, second in [
        (references_env / "bin/ref-c", references_env / "bin/ref-c-twin"),
        (references_env / "share/ref-c/data.txt", references_env / "share/ref-c/data-twin.txt"),
        (share / "hard-a.conf", share / "hard-b.conf"),
    ]:
        assert first.samefile(second) and not first.is_symlink()
    assert os.readlink(share / "absolute-file") == f"{share}/data.txt"
    assert os.readlink(share / "absolute-directory") == str(share)
    assert os.readlink(share / "absolute-dangling") == f"{share}/nowhere.txt"
    assert os.readlink(references_env / "bin/perl") == "/usr/bin/perl"


def test_scripts_have_the_shebangs_that_they_are_for(references_env: Path) -> None:
    def first_line(name: str) -> str:
        return (references_env / "bin" / name).read_bytes().split(b"\n")[0].decode()

    assert first_line("ref-perl") == f"#!{references_env}/bin/perl -w"
    assert first_line("ref-shell") == f"#!{references_env}/bin/ref-sh"
    assert first_line("ref-shell-option") == f"#!{references_env}/bin/ref-sh -e"
    assert first_line("ref-python-script") == f"#!{references_env}/bin/python"
    assert re.fullmatch(rf"#!{re.escape(str(references_env))}/bin/python3\.\d+", first_line("ref-python"))
    with pytest.raises(UnicodeDecodeError):
        (references_env / "bin/ref-latin1").read_text(encoding="utf-8")


def test_source_and_byte_code_name_the_prefix(references_env: Path) -> None:
    (source,) = references_env.glob("lib/python3.*/site-packages/ref_python.py")
    (compiled,) = source.parent.glob("__pycache__/ref_python.cpython-*.pyc")
    assert f'PREFIX = "{references_env}"\n' in source.read_text()
    assert compiled.read_bytes().count(os.fsencode(references_env)) >= 3


def test_text_is_spelled_in_every_way(make_env: MakeEnvironment, tmp_path: Path) -> None:
    """A space in the prefix is what tells the escaped spellings from the plain one."""
    prefix = make_env(["ref-text"], tmp_path / "with space")
    share = prefix / "share" / "ref-text"
    plain = str(share)
    assert plain.replace("/", "\\/") in (share / "escaped.json").read_text()
    assert plain.replace(" ", "\\ ") in (share / "escaped.sh").read_text()
    assert "file://" + plain.replace(" ", "%20") in (share / "encoded.url").read_text()
    assert (share / "wide-le.txt").read_bytes().startswith(b"\xff\xfe" + "data".encode("utf-16-le"))
    assert plain.encode("utf-16-le") in (share / "wide-le.txt").read_bytes()
    assert (share / "wide-be.txt").read_bytes().startswith(b"\xfe\xff" + "data".encode("utf-16-be"))
    assert plain.encode("utf-16-be") in (share / "wide-be.txt").read_bytes()
    assert b"/data.txt\r\n" in (share / "windows.ini").read_bytes()
    assert b"caf\xe9 = " + os.fsencode(plain) in (share / "latin1.conf").read_bytes()
    assert f"libdir='{prefix}/lib'" in (prefix / "lib/libref-text.la").read_text()
    assert (share / "decoys.txt").read_text().splitlines() == [
        f"{prefix}2/x",
        f"{prefix}-old/x",
        f"/usr{prefix}/x",
        f"relative{prefix}/x",
    ]
    assert references.run_programs(prefix) == {"ref-text": WHOLE["ref-text"]}


ASK = {
    "sh": (". '{0}/activate.d/ref-activate.sh'", "echo $REF_ACTIVATE_SHELL $REF_ACTIVATE_HOME", ".sh"),
    "fish": ("source '{0}/activate.d/ref-activate.fish'", "echo $REF_ACTIVATE_SHELL $REF_ACTIVATE_HOME", ".fish"),
    "tcsh": ("source '{0}/activate.d/ref-activate.csh'", "echo $REF_ACTIVATE_SHELL $REF_ACTIVATE_HOME", ".csh"),
}


@pytest.mark.parametrize("shell", ASK)
def test_activation_scripts_run_in_their_own_shell(shell: str, references_env: Path, tmp_path: Path) -> None:
    activate, ask, suffix = ASK[shell]
    folder = references_env / "etc" / "conda"
    deactivate = activate.replace("activate.d", "deactivate.d")
    script = "\n".join([activate.format(folder), ask, deactivate.format(folder), "env"])
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    program = need(shell)
    run = subprocess.run([program, "-c", script], env=surroundings, capture_output=True, text=True, check=True)
    said, *left = run.stdout.splitlines()
    assert said == f"{suffix[1:]} {references_env}/share/ref-activate"
    assert not [line for line in left if line.startswith("REF_ACTIVATE")]


def test_variables_of_packages_are_json(references_env: Path) -> None:
    text = (references_env / "etc/conda/env_vars.d/ref-activate.json").read_text()
    assert json.loads(text) == {
        "REF_ACTIVATE_VARIABLE": "a value with spaces",
        "REF_ACTIVATE_PATH": f"{references_env}/share/ref-activate",
    }
