"""A directory as the output: each file new, nothing written through a link, nothing outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer_stub.errors import EnvironmentUnfit, OutputError
from installer_stub.model import Kind
from pack.archive import Member, Privileges
from pack.archive.directory import write_directory
from tests.unit.other_user import NOBODY, nobody, open_directory

TIME = 1_600_000_000


def file(path: bytes, content: bytes, mode: int = 0o644) -> Member:
    return Member(path, Kind.FILE, mode, TIME, len(content), b"", lambda: iter([content]))


def other(path: bytes, kind: Kind, target: bytes = b"", mode: int = 0o755) -> Member:
    return Member(path, kind, mode, TIME, 0, target, lambda: iter([]))


def facts(root: Path, path: bytes) -> os.stat_result:
    return os.lstat(os.path.join(os.fsencode(root), path))


def test_every_kind_is_written_with_its_mode_and_time(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        write_directory(
            [
                other(b"read-only", Kind.DIRECTORY, mode=0o555),
                other(b"read-only/sub\xff\n", Kind.DIRECTORY, mode=0o750),
                file(b"read-only/sub\xff\n/tool", b"#!/bin/sh\n", mode=0o755),
                other(b"hard", Kind.HARD_LINK, b"read-only/sub\xff\n/tool"),
                other(b"soft", Kind.SYMLINK, b"/nowhere/\xff"),
                file(b"unreadable", b"x", mode=0o000),
                file(b"empty", b"", mode=0o444),
            ],
            tmp_path,
        )
    finally:
        os.umask(umask)
    modes = {
        b"read-only": 0o555,
        b"read-only/sub\xff\n": 0o750,
        b"read-only/sub\xff\n/tool": 0o755,
        b"unreadable": 0,
        b"empty": 0o444,
    }
    for path, mode in modes.items():
        assert stat.S_IMODE(facts(tmp_path, path).st_mode) == mode
        assert facts(tmp_path, path).st_mtime == TIME
    assert facts(tmp_path, b"hard").st_ino == facts(tmp_path, b"read-only/sub\xff\n/tool").st_ino
    assert os.readlink(os.path.join(os.fsencode(tmp_path), b"soft")) == b"/nowhere/\xff"
    assert facts(tmp_path, b"soft").st_mtime == TIME
    assert (tmp_path / "hard").read_bytes() == b"#!/bin/sh\n"


def test_a_parent_may_come_after_its_children_or_never(tmp_path: Path) -> None:
    write_directory([file(b"a/b/c", b"1"), other(b"a", Kind.DIRECTORY, mode=0o700)], tmp_path)
    assert (tmp_path / "a/b/c").read_bytes() == b"1"
    assert stat.S_IMODE(facts(tmp_path, b"a").st_mode) == 0o700


@pytest.mark.parametrize("path", [b"", b"/etc/x", b"../x", b"a/../../x", b"a//x", b"./x", b"a/", b".."])
def test_a_path_that_may_lead_outside_is_refused(path: bytes, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OutputError, match="not a path inside"):
        write_directory([file(path, b"evil")], target)
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("path", [b"link/file", b"link/sub/file"])
def test_nothing_is_written_below_a_symlink(path: bytes, tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    link = other(b"link", Kind.SYMLINK, os.fsencode(outside))
    with pytest.raises(OutputError, match=r"link' above it is not a directory"):
        write_directory([link, file(path, b"evil")], target)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "second",
    [
        file(b"taken", b"evil"),
        other(b"taken", Kind.SYMLINK, b"x"),
        other(b"taken", Kind.DIRECTORY),
        other(b"taken", Kind.HARD_LINK, b"taken"),
    ],
    ids=lambda member: member.kind.value,
)
@pytest.mark.parametrize("first", ["file", "symlink"])
def test_a_name_is_written_once(first: str, second: Member, tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.write_bytes(b"good")
    member = file(b"taken", b"good") if first == "file" else other(b"taken", Kind.SYMLINK, os.fsencode(outside))
    with pytest.raises(OutputError, match=r"taken.*exists already"):
        write_directory([member, second], target)
    assert (target / "taken").read_bytes() == b"good"
    assert outside.read_bytes() == b"good"


@pytest.mark.parametrize("target", [b"later", b"../outside", b"/etc/passwd", b"directory"])
def test_a_hard_link_leads_only_to_an_earlier_file(target: bytes, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    members = [other(b"directory", Kind.DIRECTORY), other(b"h", Kind.HARD_LINK, target), file(b"later", b"")]
    with pytest.raises(OutputError, match="no earlier file"):
        write_directory(members, root)
    assert not (root / "h").exists()


def test_content_is_copied_and_never_shares_an_inode_with_its_source(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"package cache")
    target.mkdir()

    def chunks() -> Iterator[bytes]:
        yield source.read_bytes()

    write_directory([Member(b"f", Kind.FILE, 0o644, TIME, 13, b"", chunks)], target)
    (target / "f").write_bytes(b"edited")
    assert source.read_bytes() == b"package cache"


@pytest.mark.parametrize("content", [b"123", b"12345"])
def test_content_of_another_size_than_promised_is_an_error(content: bytes, tmp_path: Path) -> None:
    member = Member(b"lib/x", Kind.FILE, 0o644, TIME, 4, b"", lambda: iter([content]))
    with pytest.raises(EnvironmentUnfit, match=r"lib/x.*changed while packing"):
        write_directory([member], tmp_path)


def test_an_error_of_reading_the_environment_is_not_one_of_the_output(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1"
        raise OSError(errno.EIO, "bad disk")

    member = Member(b"x", Kind.FILE, 0o644, TIME, 4, b"", chunks)
    with pytest.raises(OSError, match="bad disk"):
        write_directory([member], tmp_path)


def test_a_target_that_cannot_be_written_is_an_output_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_directory([file(b"x", b"1")], tmp_path / "missing")


def test_progress_counts_the_content(tmp_path: Path) -> None:
    seen: list[int] = []
    member = Member(b"a", Kind.FILE, 0o644, TIME, 7, b"", lambda: iter([b"1234", b"567"]))
    write_directory([member, other(b"d", Kind.DIRECTORY)], tmp_path, seen.append)
    assert seen == [4, 3]


def test_zeros_become_holes(tmp_path: Path) -> None:
    """A sparse file is archived dense; in a directory what was a hole, and any other large run of zeros, is one."""
    mib = 1 << 20
    cases = {
        b"hole": [bytes(mib)] * 8,
        b"hole at the end": [b"x" * mib, *[bytes(mib)] * 7],
        b"hole in the middle": [b"x" * 5, *[bytes(mib)] * 7, b"y"],
        b"none": [b"x" * mib] * 2,
        b"a few zeros": [b"\0" * 5],
        b"empty": [],
        b"an empty chunk": [b"", b"x"],
    }
    for name, chunks in cases.items():
        content = b"".join(chunks)
        member = Member(name, Kind.FILE, 0o644, TIME, len(content), b"", lambda chunks=chunks: iter(chunks))  # type: ignore[misc]
        write_directory([member], tmp_path)
        assert (tmp_path / os.fsdecode(name)).read_bytes() == content, name
    assert facts(tmp_path, b"none").st_blocks * 512 >= 2 * mib
    for name in (b"hole", b"hole at the end", b"hole in the middle"):
        assert facts(tmp_path, name).st_blocks * 512 < 3 * mib, name


PRIVILEGED = Privileges(NOBODY, 7, b"nobody", b"lp")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_privileged_members_get_their_owner_and_their_bits(tmp_path: Path) -> None:
    members = [
        Member(b"d", Kind.DIRECTORY, 0o2770, TIME, 0, b"", lambda: iter([]), PRIVILEGED),
        Member(b"d/f", Kind.FILE, 0o6711, TIME, 1, b"", lambda: iter([b"x"]), PRIVILEGED),
        Member(b"h", Kind.HARD_LINK, 0o6711, TIME, 0, b"d/f", lambda: iter([]), PRIVILEGED),
        file(b"plain", b""),
    ]
    write_directory(members, tmp_path)
    for path, mode, owner in (
        (b"d", 0o2770, (NOBODY, 7)),
        (b"d/f", 0o6711, (NOBODY, 7)),
        (b"h", 0o6711, (NOBODY, 7)),
        (b"plain", 0o644, (0, 0)),
    ):
        there = facts(tmp_path, path)
        assert (stat.S_IMODE(there.st_mode), (there.st_uid, there.st_gid), there.st_mtime) == (mode, owner, TIME)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY], ids=lambda kind: kind.value)
def test_an_owner_that_cannot_be_given_is_an_error_and_nothing_gets_its_bits(kind: Kind) -> None:
    root = Privileges(0, 0, b"root", b"root")
    member = Member(b"tool", kind, 0o6755, TIME, 0, b"", lambda: iter([]), root)
    with open_directory() as room:
        room.chmod(0o777)
        with nobody(), pytest.raises(OutputError, match=r"'tool': only root can give it to user 0") as caught:
            write_directory([member], room)
        assert "--keep-setuid" in caught.value.tip
        assert not (room / "tool").stat().st_mode & 0o6000
