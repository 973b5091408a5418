"""One pass over a file tells its hash, whether it is text, and every reference, with who reads it."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import py_compile
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fixtures import macos
from installer_stub import codesign, macho, references
from installer_stub.classify import Format
from installer_stub.fit import fit
from installer_stub.model import (
    HARMLESS,
    HIDDEN,
    NOT_REWRITABLE,
    ODD,
    UNCERTAIN,
    Field,
    Fill,
    Fit,
    Force,
    Reference,
    Spelling,
)
from installer_stub.references import Mode, Opened, Reading
from installer_stub.rewrite import Form, regions, transform
from installer_stub.slots import is_common
from tests.conftest import need

PREFIX = b"/opt/env"
PLACEHOLDER = b"/".ljust(255, b"p")


def read(
    data: bytes,
    prefixes: Sequence[bytes] = (PREFIX,),
    mode: Mode = Mode.SEARCH,
    path: bytes = b"file",
    root: bytes | None = None,
) -> Reading:
    return references.read(lambda at, n: data[at : at + n], len(data), path, prefixes, mode, root)


def slots(reading: Reading) -> list[tuple[int, int, Field, Fill, Force]]:
    return [(r.offset, r.room, r.field, r.fill, r.force) for r in reading.references]


def findings(reading: Reading) -> list[tuple[int, str]]:
    return [(finding.offset, finding.what) for finding in reading.findings]


TEXT = (Field.TEXT, Fill.GROW, Force.ALWAYS)
BINARY = (Field.C_STRING, Fill.SLASHES, Force.UNLESS_ALLOWED)
SHIPPED = (Field.C_STRING, Fill.NULS, Force.ALWAYS)


@pytest.mark.parametrize(
    ("data", "expected", "why"),
    [
        (b"", [], "nothing"),
        (b"x", [], "one byte"),
        (b"/opt/env", [(0, 8, *TEXT)], "text may grow"),
        (b"a=/opt/env/x\nb=/opt/env\n", [(2, 8, *TEXT), (15, 8, *TEXT)], "each name is a slot"),
        (b"caf\xe9 /opt/env\n", [(5, 8, *TEXT)], "Latin-1 is text"),
        (b"/opt/env2 /usr/opt/env", [], "other directories"),
        (b"\0/opt/env\0", [(1, 8, *BINARY)], "a NUL makes it binary: a string keeps its length"),
        (b"\0/opt/env/a:/opt/env/b\0", [(1, 8, *BINARY), (12, 8, *BINARY)], "each name is a slot"),
        (b"\0/opt/env/src/x.c\0", [(1, 8, Field.C_STRING, Fill.SLASHES, Force.NEVER)], "the name of a source"),
        (
            b"!<arch>\n\0/opt/env\0",
            [(9, 8, Field.C_STRING, Fill.SLASHES, Force.NEVER)],
            "a static archive refuses nothing",
        ),
        (
            b"#!/opt/env/bin/python\n",
            [(0, 22, Field.SHEBANG, Fill.GROW, Force.ALWAYS)],
            "a shebang is rewritten with its line",
        ),
        (
            b"#!/opt/env/bin/python -I/opt/env/x\n# coding: latin-1\n/opt/env\n",
            [(0, 53, Field.SHEBANG, Fill.GROW, Force.ALWAYS), (53, 8, *TEXT)],
            "options and a coding line belong to it",
        ),
        (b"#!/bin/sh\n/opt/env/bin/x\n", [(10, 8, *TEXT)], "another interpreter"),
        (
            b"#!/usr/bin/env /opt/env/bin/x\n",
            [(0, 30, Field.SHEBANG, Fill.GROW, Force.ALWAYS)],
            "the prefix in an option",
        ),
        (
            b"#!/opt/env/bin/python\nPK\x03\x04\0",
            [(2, 8, Field.SHEBANG, Fill.SLASHES, Force.ALWAYS)],
            "a file with NULs may not grow",
        ),
        (b"#!/opt/env2/bin/python\nPK\x03\x04\0", [], "another directory in a file with NULs"),
    ],
)
def test_search(data: bytes, expected: list[tuple[int, int, Field, Fill, Force]], why: str) -> None:
    reading = read(data)
    assert slots(reading) == expected, why
    assert (reading.sha256, reading.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert reading.text == (b"\0" not in data)


def test_the_line_of_a_shebang_is_kept() -> None:
    [reference] = read(b"#!/opt/env/bin/python -I\nx\n").references
    assert reference.archived == b"#!/opt/env/bin/python -I\n"


@pytest.mark.parametrize(
    ("data", "offsets", "why"),
    [
        (b"a\x05/opt/env/x\0", [2], "a length in front"),
        (b"\0betaword/opt/envgammaword\0", [9], "counted strings of Rust"),
        (b"\0/opt/env2\0", [1], "another string behind, or another directory"),
        (b"x/opt/env\0/opt/env\0", [1], "only what cannot be told"),
    ],
)
def test_what_cannot_be_told_in_a_binary_is_reported(data: bytes, offsets: list[int], why: str) -> None:
    assert findings(read(data)) == [(offset, UNCERTAIN) for offset in offsets], why


def test_in_text_another_directory_is_not_reported() -> None:
    assert findings(read(b"/opt/env2")) == []
    assert findings(read(b"x/opt/env")) == [(1, UNCERTAIN)]


@pytest.mark.parametrize(
    ("data", "spelling", "room"),
    [
        (b"file:///opt/env/x", Spelling.URL, 8),
        (b'"\\/opt\\/env"', Spelling.JSON, 10),
        ("\ufeff/opt/env".encode("utf-16-le"), Spelling.UTF16LE, 16),
        ("\ufeff/opt/env".encode("utf-16-be"), Spelling.UTF16BE, 16),
    ],
)
def test_the_spelling_is_kept(data: bytes, spelling: Spelling, room: int) -> None:
    [reference] = read(data).references
    assert (reference.spelling, reference.room, reference.fill) == (spelling, room, Fill.GROW)


def test_a_path_with_a_space_behind_file_is_no_url() -> None:
    """A percent-encoded prefix there would be read as its letters."""
    [reference] = read(b"file:///opt/my env/x", [b"/opt/my env"]).references
    assert reference.spelling is Spelling.PLAIN


def test_a_placeholder_is_a_reference_wherever_it_is() -> None:
    """Its channel replaces it so, and the package says what the file is."""
    data = b"a" + PLACEHOLDER + b"b\0" + PLACEHOLDER + b"/x:" + PLACEHOLDER + b"\0\0"
    assert slots(read(data, [PLACEHOLDER], Mode.PLACEHOLDER_BINARY)) == [
        (1, 256, *SHIPPED),
        (258, 513, *SHIPPED),
        (516, 255, *SHIPPED),
    ]
    assert [(r.offset, r.fill) for r in read(data, [PLACEHOLDER], Mode.PLACEHOLDER_TEXT).references] == [
        (1, Fill.GROW),
        (258, Fill.GROW),
        (516, Fill.GROW),
    ]
    assert read(PLACEHOLDER, [PLACEHOLDER], Mode.PLACEHOLDER_BINARY).references[0].fill is Fill.NULS


@pytest.mark.parametrize(
    ("data", "prefix", "spelling"),
    [
        (b'<?xml version="1.0"?><a b="/opt/env"/>', b"/opt/env", Spelling.XML),
        (b"\n<!DOCTYPE html><a>/opt/R&amp;D</a>", b"/opt/R&D", Spelling.XML),
        (b"<a>/opt/env</a>", b"/opt/env", Spelling.PLAIN),
        (b"<?xml?><a>file:///opt/env</a>", b"/opt/env", Spelling.URL),
        (b'"/opt/\\u00e9"', "/opt/é".encode(), Spelling.JSON_ASCII),
        (b"file:///opt/a%2Bb", b"/opt/a+b", Spelling.URL_STRICT),
    ],
)
def test_the_syntax_around_it_is_kept(data: bytes, prefix: bytes, spelling: Spelling) -> None:
    [reference] = read(data, [prefix]).references
    assert reference.spelling is spelling


@pytest.mark.parametrize(
    ("path", "data", "bare"),
    [
        (b"lib/a.pc", b"prefix=/opt/env\n", [True]),
        (b"bin/a", b"#!/bin/sh\na=/opt/env b='/opt/env'\n", [True, False]),
        (b"lib/a.py", b"a = '/opt/env'\nb = '-I/opt/env/include'\n", [False, True]),
        (b"etc/a.json", b'{"a": "/opt/env"}', [False]),
    ],
)
def test_words_without_quotes_are_marked(path: bytes, data: bytes, bare: list[bool]) -> None:
    assert [reference.bare for reference in read(data, path=path).references] == bare


@pytest.mark.parametrize(
    ("path", "line", "spelling"),
    [
        (b"bin/activate", b"VIRTUAL_ENV=/opt/env\n", Spelling.SHELL),
        (b"bin/activate", b"    VIRTUAL_ENV=$(cygpath /opt/env)\n", Spelling.SHELL),
        (b"bin/activate", b'VIRTUAL_ENV="/opt/env"\n', Spelling.PLAIN),
        (b"bin/activate", b"VIRTUAL_ENV='/opt/env'\n", Spelling.PLAIN),
        (b"bin/activate.csh", b"setenv VIRTUAL_ENV /opt/env\n", Spelling.SHELL),
        (b"bin/activate.fish", b"set -gx VIRTUAL_ENV /opt/env\n", Spelling.SHELL),
        (b"bin/activate.nu", b"let virtual_env = r#'/opt/env'#\n", Spelling.PLAIN),
        (b"bin/activate_this.py", b"VIRTUAL_ENV=/opt/env\n", Spelling.PLAIN),
        (b"share/activate", b"VIRTUAL_ENV=/opt/env\n", Spelling.PLAIN),
    ],
)
def test_words_of_an_activation_script_are_escaped(path: bytes, line: bytes, spelling: Spelling) -> None:
    [reference] = read(line, path=path).references
    assert (reference.spelling, reference.bare) == (spelling, False)


def test_halves_of_a_longer_name_in_utf16_are_passed_by() -> None:
    assert findings(read("\ufeff/opt/env2".encode("utf-16-be"))) == []


def container(kind: str, directory: Path) -> bytes:
    if kind == "a pickle":
        return pickle.dumps([PREFIX.decode() + "/x"] * 2)
    if kind == "a tar archive":
        (directory / "member").write_bytes(PREFIX)
        with tarfile.open(directory / "container", "w") as tar:
            tar.add(directory / "member", "member")
        return (directory / "container").read_bytes()
    if kind == "a gzip stream":
        return gzip.compress(b"/opt/env\n" + bytes(200), 0)
    path = directory / "container"
    if kind == "a zip file":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("member", b"/opt/env/x")
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("create table t (c)")
            database.execute("insert into t values ('/opt/env/x')")
            database.commit()
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["a zip file", "an SQLite database", "a gzip stream", "a pickle", "a tar archive"])
def test_inside_a_container_nothing_is_rewritten(tmp_path: Path, kind: str) -> None:
    data = container(kind, tmp_path)
    reading = read(data)
    assert reading.references == ()
    assert findings(reading) == [(data.index(PREFIX), NOT_REWRITABLE)]
    assert reading.findings[0].detail == f"inside {kind}"


def compiled(directory: Path, *options: str) -> bytes:
    (directory / "a.c").write_text('#include <stdio.h>\nint main(void) { puts("/opt/env/share"); return 0; }\n')
    subprocess.run([need("gcc"), "a.c", "-o", "a", *options], cwd=directory, check=True)
    return (directory / "a").read_bytes()


def test_what_the_loader_reads_ends_early(tmp_path: Path) -> None:
    data = compiled(
        tmp_path,
        "-Wl,--enable-new-dtags,-rpath,/opt/env/lib:/usr/lib:/opt/env",
        "-Wl,--dynamic-linker=/opt/env/lib/ld.so",
    )
    found = slots(read(data, path=b"bin/a"))
    run_path, interpreter = data.index(b"/opt/env/lib:"), data.index(b"/opt/env/lib/ld.so")
    loaded = (Fill.TERMINATE, Force.ALWAYS)
    assert (interpreter, 18, Field.INTERPRETER, *loaded) in found
    assert (run_path, 30, Field.RUN_PATH, *loaded) in found
    assert (run_path + 22, 8, Field.RUN_PATH, *loaded) in found
    assert (data.index(b"/opt/env/share"), 8, *BINARY) in found
    assert read(data).format is Format.ELF


@pytest.mark.parametrize("path", ["/opt/env2/lib", "/usr/opt/env/lib", "$ORIGIN/opt/env/lib", "/opt/env.old"])
def test_a_run_path_of_another_directory_is_left_alone(tmp_path: Path, path: str) -> None:
    data = compiled(tmp_path, f"-Wl,-rpath,{path}:/opt/env/lib")
    own = data.index(b":/opt/env/lib") + 1
    assert [r.offset for r in read(data).references if r.field is Field.RUN_PATH] == [own]


def test_an_interpreter_of_another_directory_is_left_alone(tmp_path: Path) -> None:
    data = compiled(tmp_path, "-Wl,--dynamic-linker=/opt/env2/lib/ld.so")
    assert not [r for r in read(data).references if r.field is Field.INTERPRETER]


def test_debug_sections_refuse_nothing(tmp_path: Path) -> None:
    # Without a suffix, so that no name of a source tells.
    data = compiled(tmp_path, "-g", f"-fdebug-prefix-map={tmp_path}=/opt/env/src")
    forces = {r.force for r in read(data).references if data[r.offset :].startswith(b"/opt/env/src")}
    assert forces == {Force.NEVER}


def test_names_of_libraries_end_early(tmp_path: Path) -> None:
    (tmp_path / "b.c").write_text("int b(void) { return 0; }\n")
    name = "-Wl,-soname,/opt/env/lib/libb.so"
    subprocess.run([need("gcc"), "-shared", "b.c", "-o", "libb.so", name], cwd=tmp_path, check=True)
    library = (tmp_path / "libb.so").read_bytes()
    program = compiled(tmp_path, "-Wl,--no-as-needed", "./libb.so")
    for data in (library, program):
        at = data.index(b"/opt/env/lib/libb.so")
        assert (at, 20, Field.LOAD_COMMAND, Fill.TERMINATE, Force.ALWAYS) in slots(read(data))


def test_the_begin_of_a_prefix_in_machine_code_is_reported(tmp_path: Path) -> None:
    """gcc moves eight bytes of a short string at once, and the others with other instructions."""
    (tmp_path / "a.c").write_text(
        '#include <string.h>\nvoid f(char *to) { strcpy(to, "/opt/enviro/x"); }\n'
        'const char whole[] = "/opt/enviro/y";\nint main(void) { return 0; }\n'
    )
    subprocess.run([need("gcc"), "-O2", "a.c", "-o", "a"], cwd=tmp_path, check=True)
    data = (tmp_path / "a").read_bytes()
    reading = read(data, [b"/opt/enviro"])
    assert [reference.offset for reference in reading.references] == [data.index(b"/opt/enviro/y")]
    hidden = [each for each in reading.findings if each.what == HIDDEN]
    assert [data[each.offset :][:8] for each in hidden] == [b"/opt/env"]
    assert not [each for each in read(data, [b"/opt/envelope"]).references]
    assert not read(data, [b"/opt/n"]).findings, "a short prefix has no such begin"


def signed_programs() -> list[Path]:
    return macos.mach_o_files(macos.or_skip(macos.programs_of_llvm))


def test_a_moved_mach_o_file_keeps_its_signature() -> None:
    """Every page hash is that of its page, before the move and after it, and it can be undone."""
    prefix = macos.PREFIX.encode()
    fields: set[Field] = set()
    for path in signed_programs():
        data = path.read_bytes()
        reading = read(data, [prefix])
        fields |= {reference.field for reference in reading.references}
        for new in (Form(b"/a/environment"), Form(b"/opt/elsewherenment")):
            out = io.BytesIO()
            parts = regions(reading.references)
            if any(fit(part, new) is Fit.NO_ROOM for part in parts if part.references[0].prefix):
                continue
            transform(io.BytesIO(data).read, out.write, parts, Form(None), new)
            written = out.getvalue()
            assert len(written) == len(data)
            assert prefix not in written
            assert signed_pages(written) == signed_pages(data)
            back = io.BytesIO()
            transform(io.BytesIO(written).read, back.write, parts, new, Form(None))
            assert back.getvalue() == data
    assert {Field.LOAD_COMMAND, Field.C_STRING, Field.PAGE_HASH} <= fields


def signed_pages(data: bytes) -> int:
    """Count the pages that a signature holds the hash of; each must hold."""

    def read_at(at: int, count: int) -> bytes:
        return data[at : at + count]

    parsed = macho.parse(read_at, len(data))
    assert parsed is not None
    hashes = [each for signature in codesign.signatures(read_at, parsed) for each in signature.hashes()]
    for each in hashes:
        assert each.of(data[each.start : each.end]) == data[each.offset : each.offset + each.length]
    return len(hashes)


def test_an_odd_elf_file_is_searched_all_the_same() -> None:
    reading = read(b"\x7fELF\2\1\1".ljust(64, b"\xff") + b"\0/opt/env\0")
    assert slots(reading) == [(65, 8, *BINARY)]
    assert (-1, ODD) in findings(reading)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def f(): pass\n", {HARMLESS}),
        ("x = '/opt/env/share'\n", {HARMLESS, NOT_REWRITABLE}),
        ("x = 'a=/opt/env:b'\n", {HARMLESS, NOT_REWRITABLE}),
        ("x = './opt/env/share'\n", {HARMLESS, UNCERTAIN}),
        ("x = '/opt/env2'\n", {HARMLESS, UNCERTAIN}),
    ],
)
def test_constants_and_names_of_sources_in_byte_code(tmp_path: Path, source: str, what: set[str]) -> None:
    """A constant counts by what is in it: the bytes beside it are its length and the next one's type."""
    (tmp_path / "x.py").write_text(source)
    py_compile.compile(str(tmp_path / "x.py"), str(tmp_path / "x.pyc"), "/opt/env/lib/x.py", doraise=True)
    reading = read((tmp_path / "x.pyc").read_bytes(), path=b"lib/x.pyc")
    assert (reading.format, reading.references) == (Format.BYTECODE, ())
    assert {finding.what for finding in reading.findings} == what


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [(b"/env", True), (b"/usr/local", True), (b"/opt/env", False), (b"/usr/local/env", False)],
)
def test_is_common(prefix: bytes, expected: bool) -> None:
    assert is_common(prefix) is expected


def test_a_common_prefix_must_name_something_that_is_there(tmp_path: Path) -> None:
    """A default PATH is nobody's reference. After a move the files are elsewhere."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").touch()
    data = b"PATH=/env/sbin:/env/bin\nrun /env/bin/tool.\nsee /env/etc\n"
    reading = read(data, [b"/env"], root=bytes(tmp_path))
    assert [r.offset for r in reading.references] == [data.index(b"/env/bin"), data.index(b"/env/bin/tool")]
    assert [f.offset for f in reading.findings] == [data.index(b"/env/sbin"), data.index(b"/env/etc")]
    assert read(data, [b"/env"]).references == ()


def test_a_shebang_of_a_common_prefix_counts() -> None:
    assert [r.field for r in read(b"#!/env/bin/python\n", [b"/env"]).references] == [Field.SHEBANG]


def test_a_file_is_read_in_pieces() -> None:
    size = 20 << 20
    longest = 0

    def read_at(offset: int, length: int) -> bytes:
        nonlocal longest
        longest = max(longest, length)
        piece = b"x" * min(length, size - offset)
        at = size - 8 - offset  # the prefix stands at the end
        return piece[:at] + PREFIX if 0 <= at <= len(piece) - 8 else piece

    reading = references.read(read_at, size, b"file", [PREFIX])
    assert reading.size == size
    assert findings(reading) == [(size - 8, UNCERTAIN)]
    assert longest <= 4 << 20


def test_a_symlink_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    with Opened(bytes(tmp_path / "file")) as read_at:
        assert (read_at(1, 2), read_at(3, 9), read_at(4, 1)) == (b"at", b"a", b"")
    with pytest.raises(OSError, match="symbolic link"), Opened(bytes(tmp_path / "link")):
        pass


def test_references_are_in_order() -> None:
    """Whoever rewrites goes through the file once."""
    data = b"#!/opt/env/bin/python\n" + b" ".join([b"/opt/env", b"\\/opt\\/env", b"file:///opt/env"] * 5)
    found: list[Reference] = list(read(data).references)
    assert len(found) == 16
    assert found == sorted(found, key=lambda each: each.offset)


def test_the_longest_name_stands() -> None:
    facts: dict[str, Any] = {"prefixes": [b"/mnt/opt/env", PREFIX]}
    assert [r.prefix for r in read(b"/mnt/opt/env/x /opt/env/y", **facts).references] == [b"/mnt/opt/env", PREFIX]
