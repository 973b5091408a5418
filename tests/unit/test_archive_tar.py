"""The tar stream: what real tars make of it, for the names and sizes that break archives."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub.errors import EnvironmentUnfit, PackError, UsageError
from installer_stub.model import Kind
from pack.archive import NAMES, Format, Member, Privileges, below, infer, parse
from pack.archive.tar import headers, headers_length, write_tar

GIB = 1 << 30
TIME = 1_600_000_000


def file(path: bytes, content: bytes, mode: int = 0o644, mtime: int = TIME) -> Member:
    return Member(path, Kind.FILE, mode, mtime, len(content), b"", lambda: iter([content]))


def other(path: bytes, kind: Kind, target: bytes = b"", mode: int = 0o755) -> Member:
    def none() -> Iterator[bytes]:
        raise AssertionError("this kind has no content")

    return Member(path, kind, mode, TIME, 0, target, none)


LONG = b"/".join([b"d" * 60] * 4)
NAMES_THAT_BREAK_TARS = [
    b"plain",
    b"with a space",
    b"new\nline",
    b"tab\tand \x1b[31m",
    b"latin-1 \xe9\xff",
    "unicode \N{SNOWMAN}".encode(),
    b"-rf",
    b"back\\slash",
    b"x" * 99,
    b"y" * 100,
    b"z" * 101,
    b"\xff" * 200,
    b"@LongLink",
    b"*?[a]",
]
TREE = [
    other(b"a directory", Kind.DIRECTORY),
    other(b"a directory/read-only", Kind.DIRECTORY, mode=0o555),
    *[file(b"a directory/" + name, name, mode=0o640) for name in NAMES_THAT_BREAK_TARS],
    *[other(LONG[: 61 * n - 1], Kind.DIRECTORY) for n in range(1, 5)],
    file(LONG + b"/deep", b"deep" * 1000, mode=0o755),
    other(LONG + b"/hard", Kind.HARD_LINK, LONG + b"/deep"),
    file(b"empty", b""),
    file(b"one block", bytes(512)),
    other(b"link", Kind.SYMLINK, b"a directory/plain"),
    other(b"link to a long path", Kind.SYMLINK, LONG + b"/deep"),
    other(b"dangling", Kind.SYMLINK, b"/nowhere/\xff\n"),
    other(b"hard", Kind.HARD_LINK, b"a directory/plain"),
]


def tar_of(members: list[Member], arcroot: bytes = b"") -> bytes:
    out = io.BytesIO()
    write_tar(below(arcroot, members), out)
    return out.getvalue()


def check_tree(root: Path, directory_times: bool = True) -> None:
    """Compare an extracted tree with TREE."""
    top = os.fsencode(root)
    found = {
        os.path.relpath(os.path.join(directory, name), top)
        for directory, directories, files in os.walk(top)
        for name in directories + files
    }
    assert found == {member.path for member in TREE}
    for member in TREE:
        path = os.path.join(top, member.path)
        facts = os.lstat(path)
        if member.kind is Kind.SYMLINK:
            assert os.readlink(path) == member.target
        elif member.kind is Kind.HARD_LINK:
            assert os.path.samefile(path, os.path.join(top, member.target))
        else:
            assert stat.S_IMODE(facts.st_mode) == member.mode
            if member.kind is Kind.FILE or directory_times:
                assert facts.st_mtime == TIME, member.path
        if member.kind is Kind.FILE:
            with open(path, "rb") as content:
                assert content.read() == b"".join(member.chunks())


@pytest.mark.parametrize(
    "command",
    [["tar", "-xpf", "-"], ["bsdtar", "-xpf", "-"], ["busybox", "tar", "-xpf", "-"]],
    ids=["GNU tar", "bsdtar", "busybox tar"],
)
def test_it_extracts_to_the_same_tree(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [need(command[0]), *command[1:]],
        input=tar_of(TREE),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stderr=subprocess.PIPE,
        check=True,
    )
    assert done.stderr == b""
    # busybox sets a directory's time at once, and changes it by what it extracts there.
    check_tree(tmp_path, directory_times=command[0] != "busybox")


@pytest.mark.parametrize("mode", ["r:", "r|"])
def test_tarfile_lists_every_member_as_it_is(mode: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(TREE)), mode=mode) as archive:  # type: ignore[call-overload]
        listed = list(archive)
    kinds = {b"0": Kind.FILE, b"1": Kind.HARD_LINK, b"2": Kind.SYMLINK, b"5": Kind.DIRECTORY}
    assert [(os.fsencode(m.name), kinds[m.type], m.mode, m.mtime, m.size, os.fsencode(m.linkname)) for m in listed] == [
        (m.path, m.kind, m.mode, m.mtime, m.size, m.target) for m in TREE
    ]
    assert {(m.uid, m.gid, m.uname, m.gname) for m in listed} == {(0, 0, "", "")}


@pytest.mark.parametrize("member", [*TREE, other(b"n" * 100, Kind.DIRECTORY), other(b"n" * 99, Kind.DIRECTORY)])
@pytest.mark.parametrize("privileges", [None, Privileges(0, 0, b"", b"", b"capability")])
def test_the_length_of_headers_is_known_before_them(member: Member, privileges: Privileges | None) -> None:
    member = member._replace(privileges=privileges)
    assert headers_length(member) == len(headers(member))


def test_the_header_of_a_plain_name_is_the_one_that_tarfile_writes() -> None:
    theirs = tarfile.TarInfo("bin/tool")
    theirs.mode, theirs.mtime, theirs.size = 0o755, TIME, 5
    written = theirs.tobuf(tarfile.GNU_FORMAT)
    assert tar_of([file(b"bin/tool", b"hello", mode=0o755)])[:512] == written


def test_the_archive_ends_with_two_blocks_of_zeros_and_fills_its_last_record() -> None:
    for count in (0, 1, 18, 19, 20, 21):
        archive = tar_of([file(b"f%d" % number, b"") for number in range(count)])
        assert archive.endswith(bytes(1024))
        assert len(archive) % 10_240 == 0
        assert len(archive) == (10_240 if count <= 18 else 20_480)


CAPABILITY = b"\x01\0\0\2\0\x20\0\0\n=\0\0\0\0\0\0\0\0\0\0"


@pytest.mark.parametrize("path", [b"tool", b"lib/" + b"\xff" * 200], ids=["short name", "long name"])
@pytest.mark.parametrize(
    "privileges",
    [
        Privileges(0, 0, b"root", b"root"),
        Privileges(1000, 7, b"", b"lp", CAPABILITY),
        Privileges(8**7 - 1, 8**7, b"a" * 31, b"\xc3\xa9"),
        Privileges(4_000_000_000, 4_000_000_001, b"a" * 32, b"b" * 300, CAPABILITY),
    ],
    ids=["root", "a capability", "the largest number in octal digits", "large numbers, long names"],
)
def test_privileged_members_have_their_owner(path: bytes, privileges: Privileges) -> None:
    member = Member(path, Kind.FILE, 0o4755, TIME, 1, b"", lambda: iter([b"x"]), privileges)
    with tarfile.open(fileobj=io.BytesIO(tar_of([file(b"a", b""), member, file(b"z", b"")]))) as archive:
        first, tool, last = archive
    assert (os.fsencode(tool.name), tool.mode, tool.uid, tool.gid) == (path, 0o4755, privileges.uid, privileges.gid)
    names = [b"" if len(name) > 31 else name for name in (privileges.user, privileges.group)]
    assert [os.fsencode(name) for name in (tool.uname, tool.gname)] == names
    headers = tool.pax_headers
    expected = {"SCHILY.xattr.security.capability"} if privileges.capability else set()
    assert set(headers) == expected
    if expected:
        assert headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == CAPABILITY
    for other_member in (first, last):
        assert (other_member.uid, other_member.gid, other_member.uname, other_member.gname) == (0, 0, "", "")
        assert other_member.pax_headers == {}


@pytest.mark.parametrize("length", [1, 60, 61, 62, 63, 64, 65, 958, 959, 960, 961, 962, 963])
def test_the_length_of_a_pax_record_counts_itself(length: int) -> None:
    """Where the length gets another digit, that digit counts, too."""
    privileges = Privileges(0, 0, b"", b"", b"c" * length)
    member = Member(b"f", Kind.FILE, 0o755, TIME, 0, b"", lambda: iter([]), privileges)
    with tarfile.open(fileobj=io.BytesIO(tar_of([member]))) as archive:
        (found,) = archive
    assert found.pax_headers == {"SCHILY.xattr.security.capability": "c" * length}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and set capabilities")
@pytest.mark.parametrize(
    "command",
    [["tar", "--xattrs", "--xattrs-include=*", "-xpf", "-"], ["bsdtar", "-xpf", "-"]],
    ids=["GNU tar", "bsdtar"],
)
def test_tars_give_privileges_back(command: list[str], tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"no capabilities on this file system: {error.strerror}")
    numbers = Privileges(4_000_000_000, 2_000_000, b"", b"")
    capable = Privileges(65534, 0, b"", b"", CAPABILITY)
    members = [
        Member(b"shared", Kind.DIRECTORY, 0o2770, TIME, 0, b"", lambda: iter([]), numbers),
        Member(b"shared/" + b"s" * 150, Kind.FILE, 0o6711, TIME, 1, b"", lambda: iter([b"x"]), numbers),
        Member(b"c" * 150, Kind.FILE, 0o755, TIME, 1, b"", lambda: iter([b"x"]), capable),
        Member(b"link", Kind.HARD_LINK, 0o755, TIME, 0, b"c" * 150, lambda: iter([]), capable),
    ]
    done = subprocess.run(
        [need(command[0]), *command[1:]], input=tar_of(members), cwd=tmp_path, check=True, stderr=subprocess.PIPE
    )
    assert done.stderr == b""
    for member in members:
        facts = os.lstat(os.path.join(bytes(tmp_path), member.path))
        assert member.privileges is not None
        owner = (member.privileges.uid, member.privileges.gid)
        assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (member.mode, *owner)
    assert os.getxattr(tmp_path / "link", "security.capability") == CAPABILITY
    assert (tmp_path / "link").samefile(tmp_path / ("c" * 150))


class Sparse:
    """Counts and keeps only the first bytes and the headers behind large members."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def write(self, data: bytes, /) -> None:
        if len(data) < 1 << 20:
            self.kept += data


@pytest.mark.parametrize(
    ("size", "field"),
    [
        (8 * GIB - 1, b"77777777777\0"),
        (8 * GIB, b"\x80\0\0\0\0\0\0\x02\0\0\0\0"),
        (20 * GIB, b"\x80\0\0\0\0\0\0\x05\0\0\0\0"),
    ],
)
def test_sizes_from_8_gib_on_are_in_base_256(size: int, field: bytes) -> None:
    chunk = bytes(1 << 28)

    def chunks() -> Iterator[bytes]:
        for _ in range(size // len(chunk)):
            yield chunk
        if size % len(chunk):
            yield chunk[: size % len(chunk)]

    out = Sparse()
    write_tar([Member(b"large", Kind.FILE, 0o644, TIME, size, b"", chunks), file(b"next", b"")], out)
    assert out.kept[124:136] == field
    assert tarfile.TarInfo.frombuf(bytes(out.kept[:512]), "utf-8", "strict").size == size


@pytest.mark.parametrize("mtime", [0, -1, -(10**9), 8**11 - 1, 8**11, 10**12])
def test_times_before_1970_and_after_2242_are_kept(mtime: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of([file(b"a", b"", mtime=mtime)]))) as archive:
        assert archive.getmember("a").mtime == mtime


@pytest.mark.parametrize("arcroot", [b"env", b"env/", b"./env", b"env/.", b"./env//"])
def test_arcroot_is_put_before_names_and_hard_links_and_not_before_symlinks(arcroot: bytes) -> None:
    members = [file(b"f", b"1"), other(b"h", Kind.HARD_LINK, b"f"), other(b"s", Kind.SYMLINK, b"f")]
    with tarfile.open(fileobj=io.BytesIO(tar_of(members, arcroot))) as archive:
        names = [(m.name, m.linkname) for m in archive]
    assert names == [("env", ""), ("env/f", ""), ("env/h", "env/f"), ("env/s", "f")]


@pytest.mark.parametrize("arcroot", [b"..", b"a/../..", b"/env", b"a/.."])
def test_an_arcroot_that_may_lead_out_of_the_archive_is_refused(arcroot: bytes) -> None:
    with pytest.raises(UsageError, match="arcroot"):
        tar_of([file(b"f", b"")], arcroot)


@pytest.mark.parametrize(
    "chunks",
    [[b"12345"], [b"1234", b"5"], [b"123456789" * 1000], [b"123"], [], [b"12", b"1"]],
    ids=["one more", "a chunk more", "much more", "one less", "nothing", "a chunk less"],
)
def test_content_of_another_size_than_promised_is_an_error_that_names_the_member(chunks: list[bytes]) -> None:
    member = Member(b"lib/changing", Kind.FILE, 0o644, TIME, 4, b"", lambda: iter(chunks))
    with pytest.raises(EnvironmentUnfit, match=r"lib/changing.*changed while packing"):
        tar_of([member])


def test_progress_counts_the_content_and_nothing_else() -> None:
    seen: list[int] = []
    member = Member(b"a", Kind.FILE, 0o644, TIME, 7, b"", lambda: iter([b"1234", b"567"]))
    write_tar([member, other(b"d", Kind.DIRECTORY), file(b"b", b"x")], io.BytesIO(), progress=seen.append)
    assert seen == [4, 3, 1]


@pytest.mark.parametrize(
    ("output", "format"),
    [
        ("a.tar", Format.TAR),
        ("a.tar.gz", Format.TAR_GZ),
        ("a.tgz", Format.TAR_GZ),
        ("a.b.TAR.GZ", Format.TAR_GZ),
        ("/x.tar/a.tar.bz2", Format.TAR_BZ2),
        ("a.tbz2", Format.TAR_BZ2),
        ("a.tar.xz", Format.TAR_XZ),
        ("a.txz", Format.TAR_XZ),
        ("a.tar.zst", Format.TAR_ZST),
        ("a.tzst", Format.TAR_ZST),
        ("a/", Format.DIRECTORY),
        ("a.tar/", Format.DIRECTORY),
    ],
)
def test_a_name_tells_its_format(output: str, format: Format) -> None:
    assert infer(output) is format


@pytest.mark.parametrize("output", ["a", "a.gz", "a.zip.part", "x.tar.gz/a", ".tar.gz", "a.tar.lz4", "tar"])
def test_a_name_that_tells_no_format_is_refused_with_those_that_do(output: str) -> None:
    with pytest.raises(UsageError, match=r"\.tar\.gz .*\.tgz") as refusal:
        infer(output)
    assert "--format" in refusal.value.tip


def test_every_name_of_a_format_is_understood_and_no_other() -> None:
    assert [parse(name) for name in NAMES if name != "infer"].count(None) == 0
    assert parse("infer") is None
    assert parse("tgz") is parse("tar.gz") is Format.TAR_GZ
    assert parse("no-archive") is Format.DIRECTORY
    with pytest.raises(PackError, match=r"rar: unknown.*tar\.zst"):
        parse("rar")
