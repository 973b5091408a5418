"""Zip archives: written so that others read them, and read back as tar streams that our extractor checks."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from installer_stub.errors import OutputError, UsageError
from installer_stub.model import Kind
from installer_stub.tarstream import ArchiveDamaged, TarStream
from pack.archive import Member, reading
from pack.archive.zip import TIMES, write_zip
from pack.dereference import NOWHERE, without_links
from pack.environment import find
from pack.scan import Options, scan
from tests.conftest import need

TIME = 1_500_000_001  # odd: a zip's own times are even


def member(path: bytes, kind: Kind, content: bytes = b"", mode: int = 0o644, target: bytes = b"") -> Member:
    return Member(path, kind, mode, TIME, len(content), target, lambda: iter((content,)))


MEMBERS = [
    member(b"bin", Kind.DIRECTORY, mode=0o755),
    member(b"bin/tool", Kind.FILE, b"#!/bin/sh\necho tool\n", 0o755),
    member(b"bin/link", Kind.SYMLINK, mode=0o777, target=b"tool"),
    member("bin/é".encode(), Kind.FILE, b""),
    member(b"data", Kind.FILE, bytes(3_000_000)),
    member(b"empty", Kind.DIRECTORY, mode=0o700),
]


def zipped(members: list[Member], level: int = 6, zip64: bool = True) -> bytes:
    out = io.BytesIO()
    write_zip(members, _WriteOnly(out), level, zip64)
    return out.getvalue()


class _WriteOnly:
    def __init__(self, out: io.BytesIO) -> None:
        self.write = out.write


def test_unzip_makes_the_tree(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(MEMBERS))
    env = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    subprocess.run([need("unzip"), "-q", "a.zip", "-d", "out"], cwd=tmp_path, env=env, check=True)
    tool = tmp_path / "out/bin/tool"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755 and int(tool.stat().st_mtime) == TIME
    assert os.readlink(tmp_path / "out/bin/link") == "tool"
    assert stat.S_IMODE((tmp_path / "out/empty").stat().st_mode) == 0o700
    assert (tmp_path / "out/bin/é").read_bytes() == b""
    assert (tmp_path / "out/data").stat().st_size == 3_000_000


def test_the_same_members_give_the_same_bytes_and_levels_count() -> None:
    text = [member(b"f", Kind.FILE, b"".join(b"%d " % (n * n) for n in range(50_000)))]
    assert zipped(text) == zipped(text)
    assert len(zipped(text, 0)) > len(zipped(text, 1)) > len(zipped(text, 9))
    assert zipfile.ZipFile(io.BytesIO(zipped(MEMBERS))).testzip() is None


def test_what_a_zip_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        zipped([member(b"\xff", Kind.FILE)])
    huge = Member(b"huge", Kind.FILE, 0o644, TIME, 1 << 33, b"", lambda: iter(()))
    with pytest.raises(OutputError, match="ZIP64"):
        zipped([huge], zip64=False)
    with pytest.raises(UsageError, match="2038"):
        zipped([Member(b"late", Kind.FILE, 0o644, 1 << 40, 0, b"", lambda: iter(()))])


def members_of(data: bytes, tmp_path: Path) -> list[tuple[bytes, Kind, int, int, bytes]]:
    path = tmp_path / "read.zip"
    path.write_bytes(data)
    found = []
    with reading.zipped(path) as read:
        stream = TarStream(read)
        while (each := stream.next()) is not None:
            found.append((each.path, each.kind, each.mode, each.mtime, each.target or stream.read(each.size)))
    return found


def test_read_back_it_is_what_was_written(tmp_path: Path) -> None:
    expected = [(m.path, m.kind, m.mode, m.mtime, m.target or b"".join(m.chunks())) for m in MEMBERS]
    assert members_of(zipped(MEMBERS), tmp_path) == expected


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../b"])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.extra = TIMES.pack(0x5455, 5, 1, TIME)
        archive.writestr(info, b"x")
    with pytest.raises(ArchiveDamaged):
        members_of(out.getvalue(), tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-30],
        lambda data: data.replace(b"PK\x05\x06", b"PK\x05\x07"),
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    ],
)
def test_damage_is_told(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(ArchiveDamaged):
        members_of(damage(zipped(MEMBERS[1:2])), tmp_path)


# Without links


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib/deep").mkdir(parents=True)
    (prefix / "bin/tool").write_text(f"#!/bin/sh\necho {prefix}\n")
    (prefix / "bin/hard").hardlink_to(prefix / "bin/tool")
    (prefix / "bin/soft").symlink_to("tool")
    (prefix / "bin/soft-hard").symlink_to(prefix / "bin/hard")
    (prefix / "lib/deep/file").write_text("x")
    (prefix / "lib/deep/up").symlink_to("..")
    (prefix / "lib64").symlink_to("lib")
    (prefix / "through").symlink_to("lib64/deep/file")
    (prefix / "dangling").symlink_to("nowhere")
    (prefix / "outside").symlink_to("/usr/bin")
    return prefix


def test_links_become_copies_with_their_references(linked: Path) -> None:
    found = without_links(scan(find(None, str(linked)), Options(1)), symlinks=False)
    kinds = {os.fsdecode(item.entry.path): item.entry.kind for item in found.items}
    assert set(kinds.values()) == {Kind.FILE, Kind.DIRECTORY}
    assert {"bin/hard", "bin/soft", "bin/soft-hard", "lib64/deep/file", "through"} <= set(kinds)
    assert {note.path for note in found.notes if note.what == NOWHERE} == {b"dangling", b"outside", b"lib/deep/up"}
    rewritten = {file.path for file in found.manifest.files}
    assert rewritten == {b"bin/tool", b"bin/hard", b"bin/soft", b"bin/soft-hard"}
    assert all(file.names == () for file in found.manifest.files)


def test_symlinks_stay_where_they_are_wanted(linked: Path) -> None:
    found = without_links(scan(find(None, str(linked)), Options(1)), symlinks=True)
    kinds = {os.fsdecode(item.entry.path): item.entry.kind for item in found.items}
    assert (kinds["bin/hard"], kinds["bin/soft"], kinds["dangling"]) == (Kind.FILE, Kind.SYMLINK, Kind.SYMLINK)
