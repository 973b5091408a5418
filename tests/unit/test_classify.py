"""The first bytes of real files tell their format; bytes that only look alike do not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import py_compile
import sqlite3
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
import zstandard

from installer_stub.classify import HEAD, Format, classify
from tests.conftest import need

TEXT = b"prefix = /opt/env\n"


def pe(offset: int, mark: bytes = b"PE\0\0") -> bytes:
    return b"MZ".ljust(60, b"\x90") + struct.pack("<I", offset) + bytes(offset - 64) + mark


def zip_file(members: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(members):
            archive.writestr(f"{number}", TEXT)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected", "why"),
    [
        (gzip.compress(TEXT), Format.GZIP, "a gzip member"),
        (bz2.compress(TEXT), Format.BZIP2, "a bzip2 stream"),
        (bz2.compress(b""), Format.BZIP2, "a bzip2 stream without blocks"),
        (lzma.compress(TEXT), Format.XZ, "an xz stream"),
        (zstandard.compress(TEXT), Format.ZSTD, "a Zstandard frame"),
        (
            b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard.compress(TEXT),
            Format.ZSTD,
            "a skippable frame first",
        ),
        (zip_file(1), Format.ZIP, "a zip with a member"),
        (zip_file(0), Format.ZIP, "a zip without members"),
        (b"\xcf\xfa\xed\xfe\x07\0\0\x01", Format.MACHO, "64-bit Mach-O as x86 and arm write it"),
        (b"\xfe\xed\xfa\xce\0\0\0\x12", Format.MACHO, "32-bit Mach-O as PowerPC wrote it"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02\x01\0\0\x07", Format.MACHO, "a fat binary of two architectures"),
        (b"\xca\xfe\xba\xbf\0\0\0\x01\x01\0\0\x0c", Format.MACHO, "a fat binary with 64-bit offsets"),
        (pe(0x80), Format.PE, "a PE file"),
        (pe(0x80)[:HEAD], Format.PE, "a PE file whose PE header lies behind the head"),
        ("\ufeffx=1".encode("utf-16-le"), Format.UTF16LE, "UTF-16 with the byte order mark of Windows"),
        ("\ufeffx=1".encode("utf-16-be"), Format.UTF16BE, "UTF-16, big end first"),
        (pickle.dumps([TEXT], 2), Format.PICKLE, "a pickle without a frame"),
        (pickle.dumps({"a": TEXT}, 4), Format.PICKLE, "a pickle with a frame"),
        (pickle.dumps(None, 5), Format.PICKLE, "a pickle too short for a frame"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known(data: bytes, expected: Format, why: str) -> None:
    assert classify(data[:HEAD]) is expected, why
    assert classify(data) is expected, "more than the head changes nothing"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (TEXT, "text"),
        (b"\x7fEL", "less than ELF's magic"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(56), "a Java class file of Java 8"),
        (b"\xca\xfe\xba\xbe\0\x03\0\x2d" + bytes(56), "a Java class file of Java 1.1"),
        (b"\xca\xfe\xba\xbe\xff\xff\0\x41" + bytes(56), "a Java class file with preview features"),
        (b"\xca\xfe\xba\xbe", "nothing but the magic"),
        (
            b"MZ is how executables of DOS begin, and how this sentence does, which is text of 64 bytes\n",
            "text",
        ),
        (b"MZ", "nothing but the mark"),
        (b"BZh is the start of a line of text", "text"),
        (b"BZh91 is the start of a line of text", "text"),
        (b"PK is somebody's initials", "text"),
        (b"\x1f\x8b\x07", "gzip with an unknown method"),
        (b"\xff\xfe\0\0x\0\0\0", "UTF-32"),
        (b"\0\0\xfe\xff\0\0\0x", "UTF-32, big end first"),
        (b"\xef\xbb\xbfx = 1\n", "UTF-8 with a byte order mark"),
        (b"\x80\x02 is no letter", "a byte 128 before what begins no pickle"),
        (b"#!/bin/sh\n", "a script: its shebang is a field, not a format"),
        (b"#!/usr/bin/env python\nPK\x03\x04", "a zip behind a shebang"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other(data: bytes, why: str) -> None:
    assert classify(data[:HEAD]) is Format.OTHER, why
    assert classify(data) is Format.OTHER, "more than the head changes nothing"


def test_old_executable() -> None:
    """One of Windows 3 is told from a PE file where the second header is among the bytes given."""
    assert classify(pe(0x80, b"NE\0\0")) is Format.OTHER


def test_database(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    connection = sqlite3.connect(database)
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()
    assert classify(database.read_bytes()[:HEAD]) is Format.SQLITE


def test_compiled(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("int f(void) { return 1; }\n")
    subprocess.run([need("gcc"), "-c", source, "-o", tmp_path / "a.o"], check=True)
    for modifiers, name in (("rcs", "a.a"), ("rcsT", "thin.a")):
        subprocess.run([need("ar"), modifiers, tmp_path / name, tmp_path / "a.o"], check=True)
        assert classify((tmp_path / name).read_bytes()[:HEAD]) is Format.STATIC_ARCHIVE, name
    assert classify((tmp_path / "a.o").read_bytes()[:HEAD]) is Format.ELF


@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode))
def test_byte_code(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> None:
    source = tmp_path / "m.py"
    source.write_text("x = 1\n")
    cached = py_compile.compile(str(source), invalidation_mode=mode)
    assert cached is not None
    head = Path(cached).read_bytes()[:HEAD]
    assert classify(head, cached.encode()) is Format.BYTECODE
    assert classify(head, b"m.py") is Format.OTHER, "the mark of two bytes is not enough"
    assert classify(head) is Format.OTHER, "nor is it without a name"


@pytest.mark.parametrize(
    ("head", "expected", "why"),
    [
        (b"\x03\xf3\r\n" + bytes(4) + b"c" + bytes(20), Format.BYTECODE, "Python 2.7: a header of 8 bytes"),
        (
            b"\x33\x0d\r\n" + bytes(8) + b"\xe3" + bytes(20),
            Format.BYTECODE,
            "Python 3.6: a header of 12 bytes",
        ),
        (b"\x33\x0d\r\n" + bytes(60), Format.OTHER, "no code behind the header"),
        (
            b"hi\r\nthis is text with the line ends of Windows\r\n",
            Format.OTHER,
            "text with a misleading name",
        ),
    ],
)
def test_old_byte_code(head: bytes, expected: Format, why: str) -> None:
    assert classify(head, b"lib/m.pyc") is expected, why
