"""What lies inside a container is found, named and placed; what cannot be opened is said; nothing hangs or raises."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipapp
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from installer_stub import match
from installer_stub.classify import Format, classify
from installer_stub.model import NOT_REWRITABLE, UNCERTAIN, Finding, Spelling
from pack.containers import LAYERS, NOT_SEARCHED, is_zip_behind, search, zip_start
from tests.conftest import need

PREFIX = b"/opt/env"
TEXT = b"path = /opt/env/bin\n"
OTHER = b"path = /opt/env2/bin:/usr/opt/environment\n"  # other directories


def find(data: bytes, prefixes: Sequence[bytes] = (PREFIX,), format: Format | None = None) -> list[Finding]:
    format = format or classify(data[:64], b"file")
    return list(search(lambda at, n: data[at : at + n], len(data), b"file", format, prefixes))


def seen(data: bytes, format: Format | None = None) -> list[tuple[int, str, str]]:
    return [(finding.offset, finding.what, finding.detail) for finding in find(data, format=format)]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def tarred(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT, link: str = "") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return file.getvalue()


def gz(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)


# --- zip ---


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_member_is_named_and_has_no_offset_in_the_file(method: int) -> None:
    data = zipped({"pkg/x.py": TEXT, "pkg/y.py": OTHER}, method)
    assert seen(data) == [(-1, NOT_REWRITABLE, "in the member pkg/x.py of a zip file, at byte 7")]


def test_stored_member_has_the_offset_of_its_bytes() -> None:
    data = zipped({"pkg/x.py": TEXT * 2, "pkg/y.py": OTHER}, zipfile.ZIP_STORED)
    detail = "in the member pkg/x.py of a zip file, at byte 7, and 1 more"
    assert seen(data) == [(data.index(PREFIX), NOT_REWRITABLE, detail)]


def test_member_packed_by_zstd() -> None:
    """The zipfile module of most Pythons cannot write it: the method of a stored member is changed."""
    packed = zstandard.ZstdCompressor().compress(TEXT)
    data = bytearray(zipped({"x": packed}, zipfile.ZIP_STORED))
    at = data.index(b"PK\x01\x02")
    for start, skip in ((0, 8), (at, 10)):
        struct.pack_into("<H", data, start + skip, 93)
        struct.pack_into("<L", data, start + skip + 6, zlib.crc32(TEXT))
        struct.pack_into("<L", data, start + skip + 14, len(TEXT))
    # So little text stands in the frame as it is.
    assert seen(bytes(data)) == [(data.index(PREFIX), NOT_REWRITABLE, "in the member x of a zip file, at byte 7")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0" + TEXT, NOT_REWRITABLE),
        (b"\0e/opt/env/lib", UNCERTAIN),
        (b"\0\x10/opt/env2", UNCERTAIN),
        (b"e/opt/env/lib", UNCERTAIN),
        (b"/opt/env2", None),
        (b'"file:///opt/env/x"', NOT_REWRITABLE),
        (b'"\\/opt\\/env\\/x"', NOT_REWRITABLE),
        ("\ufeff/opt/env".encode("utf-16-le"), NOT_REWRITABLE),
        ("\ufeff/opt/env2".encode("utf-16-be"), None),
    ],
)
def test_neighbours_decide_as_in_any_other_file(content: bytes, what: str | None) -> None:
    assert [finding.what for finding in find(zipped({"x": content}))] == ([what] if what else [])


def test_prefix_that_everybody_names_is_uncertain() -> None:
    assert [each.what for each in find(zipped({"x": b"/usr/local/bin"}), (b"/usr/local",))] == [UNCERTAIN]


def test_hit_over_two_pieces() -> None:
    pad = bytes(random.Random(1).choices(range(1, 256), k=(256 << 10) - 4)).replace(b"/", b"-")
    assert [at for at, _, _ in seen(zipped({"x": pad + b" /opt/env"}, zipfile.ZIP_STORED))] == [31 + len(pad) + 1]
    assert [what for _, what, _ in seen(gz(pad + b" /opt/env"))] == [NOT_REWRITABLE]
    assert seen(gz(pad + b" /opt/env2")) == []


def test_names_are_only_words() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../etc/passwd", TEXT)
        archive.writestr("caf\xe9", TEXT)
        archive.writestr("a\nb", TEXT)
    data = file.getvalue().replace("caf\xe9".encode(), b"caf\xe9\xff")
    names = [detail.split(" of a zip")[0] for _, _, detail in seen(data)]
    assert names == [f"in the member {name}" for name in ("../../etc/passwd", "caf%E9%FF", "a%0Ab")]


def test_hit_in_the_directory_of_a_zip() -> None:
    data = zipped({"x": b"", "y": OTHER})
    commented = data[:-2] + struct.pack("<H", len(TEXT)) + TEXT
    detail = f"in a zip file, outside of what was searched, at byte {len(data) + 7}"
    assert seen(commented) == [(len(data) + 7, NOT_REWRITABLE, detail)]


def test_encrypted_member_is_not_searched() -> None:
    data = bytearray(zipped({"x": OTHER, "y": TEXT}))
    for mark, skip in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + skip] |= 1
    assert seen(bytes(data)) == [
        (-1, NOT_SEARCHED, "the member x of a zip file: it is encrypted"),
        (-1, NOT_REWRITABLE, "in the member y of a zip file, at byte 7"),
    ]


def test_really_encrypted_member(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(TEXT)
    subprocess.run([need("zip"), "-q", "-P", "secret", "x.zip", "x"], cwd=tmp_path, check=True)
    assert [what for _, what, _ in seen((tmp_path / "x.zip").read_bytes())] == [NOT_SEARCHED]


def test_unknown_method_is_not_searched() -> None:
    data = bytearray(zipped({"x": TEXT}))
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 9
    detail = "the member x of a zip file: it is compressed by method 9, which is not known here"
    assert seen(bytes(data)) == [(-1, NOT_SEARCHED, detail)]


def test_damaged_member_is_said_and_the_others_are_searched() -> None:
    data = bytearray(zipped({"x": bytes(range(256)) * 9, "y": TEXT}))
    data[60:64] = b"\xff\xff\xff\xff"
    assert [
        (what, "member " + name in detail) for (_, what, detail), name in zip(seen(bytes(data)), "xy", strict=True)
    ] == [
        (NOT_SEARCHED, True),
        (NOT_REWRITABLE, True),
    ]


def test_damage_behind_a_hit_does_not_hide_it() -> None:
    data = bytearray(zipped({"x": TEXT}, zipfile.ZIP_STORED))
    data[data.index(b"bin")] ^= 1
    assert [(at, what) for at, what, _ in seen(bytes(data))] == [
        (data.index(PREFIX), NOT_REWRITABLE),
        (-1, NOT_SEARCHED),
    ]


def test_zip_without_directory_is_searched_raw() -> None:
    data = zipped({"x": TEXT}, zipfile.ZIP_STORED)
    data = data[: data.index(b"PK\x01\x02")]
    assert [(at, what) for at, what, _ in seen(data)] == [(-1, NOT_SEARCHED), (data.index(PREFIX), NOT_REWRITABLE)]


def test_members_that_overlap_count_each_time() -> None:
    """A directory that names the same megabytes thousands of times (D. Fifield's bomb)."""
    one = zipped({"x": bytes(1 << 20)})
    at, end = one.index(b"PK\x01\x02"), one.rindex(b"PK\x05\x06")
    data = (
        one[:at] + one[at:end] * 9999 + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 9999, 9999, (end - at) * 9999, at, 0)
    )
    assert [what for _, what, _ in seen(data)] == [NOT_SEARCHED]


# --- compressed streams ---

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gz,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
KINDS = {"gzip": "a gzip stream", "bzip2": "a bzip2 stream", "xz": "an xz stream", "zstd": "a zstd stream"}


@pytest.mark.parametrize("program", PACKERS)
def test_stream_of_the_real_program(program: str) -> None:
    def run(data: bytes) -> bytes:
        return subprocess.run([need(program), "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout

    large = bytes(random.Random(1).choices(b"0123456789", k=1 << 18)) * 4
    detail = f"in {KINDS[program]}, at byte {len(large) + 7}"
    assert [found[1:] for found in seen(run(large + TEXT))] == [(NOT_REWRITABLE, detail)]
    assert seen(run(large + OTHER)) == []
    assert [what for _, what, _ in seen(run(OTHER) + run(TEXT))] == [NOT_REWRITABLE], "the second of two streams"


@pytest.mark.parametrize("kind", PACKERS)
def test_stream_that_ends_early_or_goes_on(kind: str) -> None:
    packed = PACKERS[kind](b"/opt/other")
    assert seen(packed + bytes(64)) == []
    assert [what for _, what, _ in seen(packed[:-1])] == [NOT_SEARCHED]
    assert [what for _, what, _ in seen(packed + b"junk of somebody")] == [NOT_SEARCHED]
    after = seen(PACKERS[kind](TEXT) + b"junk of somebody")
    assert [what for _, what, _ in after] == [NOT_REWRITABLE, NOT_SEARCHED], "what was found before stands"


def test_zstd_frames_without_sizes_and_skippable_ones() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    unsized = stream.compress(bytes(1 << 20) + TEXT) + stream.flush()
    assert [what for _, what, _ in seen(b"\x51\x2a\x4d\x18\x03\0\0\0abc" + unsized)] == [NOT_REWRITABLE]


def test_stored_block_of_a_stream_has_an_offset() -> None:
    data = gz(b"\n" + TEXT, 0)
    assert seen(data) == [(data.index(PREFIX), NOT_REWRITABLE, "in a gzip stream, at byte 8")]
    assert seen(gz(OTHER, 0)) == []


def test_damaged_stream_is_searched_raw() -> None:
    data = gz(b"\n" + TEXT, 0)
    assert [(at, what) for at, what, _ in seen(data[:10] + b"\xff" + data[11:])] == [
        (data.index(PREFIX), NOT_REWRITABLE),
        (-1, NOT_SEARCHED),
    ]


@pytest.mark.parametrize("kind", PACKERS)
def test_bomb_is_not_searched_to_its_end(kind: str) -> None:
    data = PACKERS[kind](bytes(100 << 20))
    assert [(what, "MiB that are unpacked" in detail) for _, what, detail in seen(data)] == [(NOT_SEARCHED, True)]


@pytest.mark.parametrize("kind", PACKERS)
def test_memory_is_that_of_a_piece(kind: str) -> None:
    data = PACKERS[kind](bytes(40 << 20) + TEXT)
    tracemalloc.start()
    try:
        assert len(find(data)) == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # the window of xz is 8 MiB
    finally:
        tracemalloc.stop()


# --- containers in containers ---


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_in_a_stream(format: int) -> None:
    name = "deep/" * 40 + "x.py"
    data = gz(tarred({"a": OTHER, name: TEXT, "b": OTHER}, format, link="/opt/env/lib"))
    assert seen(data) == [
        (-1, NOT_REWRITABLE, f"in the member {name} of a tar archive in a gzip stream, at byte 7"),
        (-1, NOT_REWRITABLE, "in the link target of the member link of a tar archive in a gzip stream, at byte 0"),
    ]
    assert seen(gz(tarred({"a": OTHER}, format, link="/opt/env2/lib"))) == []


def test_tar_that_ends_early() -> None:
    data = tarred({"a": OTHER, "b": bytes(5000)})
    assert [what for _, what, _ in seen(gz(data[:3000]))] == [NOT_SEARCHED]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_wheel_in_a_zip_and_jar_in_a_tar(method: int) -> None:
    inner = zipped({"a": OTHER, "b/c.py": TEXT, "d": b""}, method)
    where = "in the member b/c.py of a zip file in the member w.whl of"
    assert [detail for _, _, detail in seen(zipped({"w.whl": inner}))] == [f"{where} a zip file, at byte 7"]
    data = lzma.compress(tarred({"w.whl": inner}))
    assert [detail for _, _, detail in seen(data)] == [f"{where} a tar archive in an xz stream, at byte 7"]
    assert seen(zipped({"w.whl": zipped({"a": OTHER}, method), "x": OTHER})) == []


def test_inner_zip_whose_sizes_follow_its_members() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError

        tell = seek

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"m{number}", TEXT)
    assert len(seen(gz(tarred({"w.jar": pipe.getvalue()})))) == 3


def test_deeper_than_the_limit_is_said() -> None:
    data = TEXT
    for _ in range(LAYERS):
        data = gz(data)
    assert [what for _, what, _ in seen(data)] == [NOT_REWRITABLE]
    assert [what for _, what, _ in seen(gz(data))] == [NOT_SEARCHED]


def test_damaged_inner_container_leaves_its_neighbours() -> None:
    inner = gz(OTHER)[:-9]
    found = [(what, detail) for _, what, detail in seen(gz(tarred({"bad.gz": inner, "good": TEXT})))]
    assert [what for what, _ in found] == [NOT_SEARCHED, NOT_REWRITABLE]
    assert found[0][1] == "the member bad.gz of a tar archive in a gzip stream: it ends early"


# --- real producers ---


def test_jar(tmp_path: Path) -> None:
    jar = need("jar")
    (tmp_path / "a.properties").write_bytes(TEXT)
    (tmp_path / "b.properties").write_bytes(OTHER)
    subprocess.run([jar, "cf", "x.jar", "a.properties", "b.properties"], cwd=tmp_path, check=True)
    data = (tmp_path / "x.jar").read_bytes()
    assert seen(data) == [(-1, NOT_REWRITABLE, "in the member a.properties of a zip file, at byte 7")]
    inside = "in the member a.properties of a zip file in the member x.jar of a tar archive in a gzip stream, at byte 7"
    assert [detail for _, _, detail in seen(gz(tarred({"x.jar": data})))] == [inside]


def test_every_member_of_real_wheels() -> None:
    """The wheels that every Python brings, against what ``zipfile`` reads from them."""
    bundled = Path(sys.base_prefix).glob("lib/python3*/ensurepip/_bundled/*.whl")
    wheels = sorted([*bundled, *Path("/usr/share/python-wheels").glob("*.whl")])  # Debian's are there
    if not wheels:
        pytest.skip("this Python comes without wheels")
    prefix = b"/usr/local/share"
    expected = found = 0
    for wheel in wheels:
        data = wheel.read_bytes()
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                hits = list(match.search([archive.read(info)], {prefix: (prefix, Spelling.PLAIN)}))
                expected += any(map(match.is_reference, hits))
        found += sum(each.what == NOT_REWRITABLE for each in find(data, (prefix,)))
    assert found == expected > 0


def test_arrays_of_numpy() -> None:
    """An .npz is a zip of .npy files; its strings have fixed slots, with NULs behind."""
    header = b"{'descr': '|S16', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    head = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header
    good = zipped({"names.npy": head + b"/opt/env/x".ljust(16, b"\0") + bytes(16)})
    assert [(what, "names.npy" in detail) for _, what, detail in seen(good)] == [(NOT_REWRITABLE, True)]
    assert [what for _, what, _ in seen(zipped({"names.npy": head + b"/usr/env".ljust(32, b"\0")}))] == []


def test_zipapp(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_bytes(b"x = '/opt/env/x'\n")
    (tmp_path / "app" / "other.py").write_bytes(b"x = '/opt/env2/x'\n")
    zipapp.create_archive(tmp_path / "app", tmp_path / "x.pyz", "/opt/env/bin/python", compressed=True)
    data = (tmp_path / "x.pyz").read_bytes()
    assert classify(data[:64]) is Format.OTHER
    assert is_zip_behind(lambda at, n: data[at : at + n], len(data))
    assert zip_start(lambda at, n: data[at : at + n], len(data)) == data.index(b"PK\x03\x04")
    expected = [(-1, NOT_REWRITABLE, "in the member __main__.py of a zip file, at byte 5")]
    assert seen(data, Format.ZIP) == expected, "the shebang is not the zip's"


@pytest.mark.parametrize("head", [b"", b"#!/bin/sh\nexec java -jar $0\n", b"MZ" + bytes(5000)])
@pytest.mark.parametrize("comment", [b"", b"words", b"w" * 65535])
def test_zip_behind_a_head_that_its_offsets_do_not_count(head: bytes, comment: bytes) -> None:
    data = head + zipped({"x": TEXT})[:-2] + struct.pack("<H", len(comment)) + comment
    assert is_zip_behind(lambda at, n: data[at : at + n], len(data))
    assert zip_start(lambda at, n: data[at : at + n], len(data)) == len(head)
    assert [what for _, what, _ in seen(data, Format.ZIP)] == [NOT_REWRITABLE]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06",
        bytes(100) + b"PK\x05\x06" + b"\xff" * 18,
        zipped({"x": TEXT})[:-1],
        zipped({"x": b""}).replace(b"PK\x01\x02", b"PK\x01\x03"),
    ],
)
def test_no_zip_behind(data: bytes) -> None:
    assert not is_zip_behind(lambda at, n: data[at : at + n], len(data))
    assert zip_start(lambda at, n: data[at : at + n], len(data)) == len(data)


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        with archive.open(zipfile.ZipInfo("x"), "w", force_zip64=True) as member:
            member.write(TEXT)
        archive.writestr("y", OTHER)
    data = (tmp_path / "x.zip").read_bytes()
    assert b"PK\x06\x06" in data
    assert [(what, "member x" in detail) for _, what, detail in seen(data)] == [(NOT_REWRITABLE, True)]


# --- pickle ---

NESTED = {"a": ["/opt/env/x", {"b": ("/opt/env2", b"/opt/env/y", "z")}], "/opt/env": 1, "none": "/usr/opt/env"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_strings_of_a_pickle(protocol: int) -> None:
    data = pickle.dumps(NESTED, protocol)
    found = seen(data, Format.PICKLE)
    assert [what for _, what, _ in found if what == NOT_REWRITABLE] == [NOT_REWRITABLE] * 3
    assert all(data.startswith(PREFIX, at) for at, _, _ in found)
    assert all(" of a pickle, at byte " in detail for _, _, detail in found)
    if protocol >= 2:
        assert classify(data[:64]) is Format.PICKLE
    assert seen(pickle.dumps(["/opt/env2", "/opt/environment/x"], protocol), Format.PICKLE) == []


def test_string_of_a_pickle_is_named_by_its_opcode() -> None:
    data = pickle.dumps("/opt/env", 4)
    at = data.index(PREFIX)
    detail = f"in the opcode SHORT_BINUNICODE at byte {at - 2} of a pickle, at byte {at}"
    assert seen(data) == [(at, NOT_REWRITABLE, detail)]


def test_pickle_with_foreign_bytes_behind_it() -> None:
    data = pickle.dumps("x", 4) + b"\xfe\0/opt/env/x\0"
    assert [(what, detail.startswith("in a pickle")) for _, what, detail in seen(data)] == [(NOT_REWRITABLE, True)]


def test_pickle_is_not_loaded(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    find(pickle.dumps([Bad(), "/opt/env"], 4))
    assert not (tmp_path / "made").exists()


# --- SQLite ---


def database(path: Path, encoding: str, *rows: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE other (a, b)")
        connection.execute("CREATE TABLE paths (number, path, word)")
        connection.execute("CREATE INDEX by_path ON paths (path)")
        connection.executemany("INSERT INTO other VALUES (?, 'x')", [(f"/opt/env2/{n}",) for n in range(2000)])
        connection.executemany("INSERT INTO paths VALUES (1, ?, 'word')", [(row,) for row in rows])
        connection.commit()
    return path.read_bytes()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_table_of_a_database(tmp_path: Path, encoding: str) -> None:
    data = database(tmp_path / "x.db", encoding, *["/opt/env", "/opt/env/x"] * 500)
    found = [(what, detail.partition(", at byte")[0]) for _, what, detail in seen(data) if what == NOT_REWRITABLE]
    assert found == [(NOT_REWRITABLE, "in the table paths of an SQLite database")]
    codec = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}[encoding]
    assert all(data.startswith("/opt/env".encode(codec), at) for at, _, _ in seen(data))
    assert "999 more" in seen(data)[-1][2] or "1999 more" in seen(data)[-1][2], "in the table and in its index"


def test_database_without_the_prefix(tmp_path: Path) -> None:
    assert [
        what for _, what, _ in seen(database(tmp_path / "x.db", "UTF-8", "/usr/env")) if what == NOT_REWRITABLE
    ] == []


def test_database_that_is_damaged_is_searched_all_the_same(tmp_path: Path) -> None:
    data = bytearray(database(tmp_path / "x.db", "UTF-8", "/opt/env/x"))
    data[100:4096] = bytes(3996)
    assert NOT_REWRITABLE in [what for _, what, _ in seen(bytes(data))] or UNCERTAIN in [
        what for _, what, _ in seen(bytes(data))
    ]


# --- any bytes ---


def samples() -> dict[str, bytes]:
    inner = {"a": TEXT, "w.whl": zipped({"b": TEXT}), "t.tar.gz": gz(tarred({"c": TEXT}))}
    kinds = {f"zip {method}": zipped(inner, method) for method in (0, 8, 12, 14)}
    kinds |= {
        f"tar {kind}": pack(tarred({"n" * 120: TEXT, **inner}, link="/opt/env")) for kind, pack in PACKERS.items()
    }
    kinds |= {f"pickle {protocol}": pickle.dumps(NESTED, protocol) for protocol in range(2, 6)}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"/opt/env/{n}",) for n in range(300)])
        connection.commit()
        if sys.version_info >= (3, 11):
            kinds["sqlite"] = connection.serialize()
    return kinds


SAMPLES = samples()


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_a_finding_or_nothing(kind: str, data: st.DataObject) -> None:
    original = SAMPLES[kind]
    damaged = bytearray(original)
    for at in data.draw(st.lists(st.integers(0, len(original) - 1), max_size=4)):
        damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, damaged[at] ^ 1]))
    cut = data.draw(st.integers(0, len(original)) | st.just(len(original)))
    format = classify(original[:64])
    for finding in find(bytes(damaged[:cut]), format=format):
        assert finding.what in (NOT_REWRITABLE, UNCERTAIN, NOT_SEARCHED)
        assert -1 <= finding.offset < cut
        finding.detail.encode()


@settings(max_examples=100, deadline=None)
@given(tail=st.binary(max_size=300), kind=st.sampled_from(sorted(SAMPLES)))
def test_any_bytes_behind_a_head(tail: bytes, kind: str) -> None:
    head = SAMPLES[kind][:30]
    find(head + tail, format=classify(SAMPLES[kind][:64]))
    is_zip_behind(lambda at, n: (head + tail)[at : at + n], len(head + tail))


@pytest.mark.parametrize("kind", SAMPLES)
def test_file_that_is_shorter_than_it_was(kind: str) -> None:
    data = SAMPLES[kind]
    half = data[: len(data) // 2]
    search(lambda at, n: half[at : at + n], len(data), b"file", classify(data[:64]), (PREFIX,))


def test_error_of_the_disk_is_not_swallowed() -> None:
    data = gz(TEXT * 100_000, 0)

    def read_at(at: int, count: int) -> bytes:
        if at > 0:
            raise OSError(5, "Input/output error")
        return data[at : at + count]

    with pytest.raises(OSError, match="Input/output"):
        search(read_at, len(data), b"file", Format.GZIP, (PREFIX,))


def test_findings_of_a_file_are_bounded() -> None:
    found = find(zipped({str(number): TEXT for number in range(1200)}))
    assert len(found) == 1001
    assert found[-1].what == NOT_SEARCHED


def test_other_formats_are_left_alone() -> None:
    assert find(TEXT) == []
    assert find(b"\x7fELF" + TEXT) == []
