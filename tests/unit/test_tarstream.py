"""Members come out as every tar writes them; whatever is odd, cut or in the wrong place is refused."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator

import pytest

from installer_stub.model import Kind
from installer_stub.tarstream import BLOCK, RECORD, ArchiveDamaged, Member, Privileges, TarStream
from pack import archive
from pack.archive.tar import write_tar

LONG = b"d/" + b"n" * 150 + b"/" + b"m" * 250
HIGH = b"\xff" * 150 + b"/" + b"\xff" * 100  # the sum of whose header is more than 65521


def read_all(data: bytes, most: int = 1 << 20) -> list[tuple[Member, bytes]]:
    """Read a whole archive from a source that gives at most ``most`` bytes at once."""
    source = io.BytesIO(data)
    stream = TarStream(lambda count: source.read(min(count, most)))
    found = []
    while (member := stream.next()) is not None:
        found.append((member, stream.read(member.size + 1)))
    return found


def by_tarfile(members: list[tarfile.TarInfo], format: int, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as file:
        for member in members:
            file.addfile(member, io.BytesIO(content * member.size))
    return out.getvalue()


def info(name: bytes, type: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(os.fsdecode(name))
    made.type = type
    for key, value in more.items():
        setattr(made, key, value)
    return made


def file(path: bytes, content: bytes, **more: object) -> archive.Member:
    def chunks() -> Iterator[bytes]:
        return iter([content] if content else [])

    facts: dict[str, object] = {"mode": 0o644, "mtime": 5, "target": b"", "privileges": None, **more}
    return archive.Member(path, Kind.FILE, size=len(content), chunks=chunks, **facts)  # type: ignore[arg-type]


def tar_of(*members: archive.Member) -> bytes:
    out = io.BytesIO()
    write_tar(members, out)
    return out.getvalue()


def small() -> bytes:
    link = archive.Member(b"d/link", Kind.SYMLINK, 0o777, 5, 0, b"../a", lambda: iter(()))
    directory = archive.Member(b"d", Kind.DIRECTORY, 0o755, 5, 0, b"", lambda: iter(()))
    return tar_of(file(b"a", b"content"), directory, link, file(LONG[:101], b"y" * 513))


@pytest.mark.parametrize("most", [1, 7, 511, 512, 513, 1 << 20])
def test_pieces_of_any_size_give_the_same_members(most: int) -> None:
    found = read_all(small(), most)
    assert [(member.path, member.kind, member.target, content) for member, content in found] == [
        (b"a", Kind.FILE, b"", b"content"),
        (b"d", Kind.DIRECTORY, b"", b""),
        (b"d/link", Kind.SYMLINK, b"../a", b""),
        (LONG[:101], Kind.FILE, b"", b"y" * 513),
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", [b"a", b"d/\xff\n b", b"d/" + b"n" * 98, b"p" * 90 + b"/" + b"q" * 90, HIGH, "é/ü".encode()]
)
def test_every_format_and_name(format: int, name: bytes) -> None:
    data = by_tarfile([info(name, size=3, mode=0o751, mtime=12), info(b"l", tarfile.LNKTYPE, linkname="a")], format)
    (member, content), (link, nothing) = read_all(data)
    assert (member, content) == (Member(name, Kind.FILE, 0o751, 3, 12, b""), b"xxx")
    assert (link.kind, link.target, nothing) == (Kind.HARD_LINK, b"a", b"")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [-1, -(10**9), 8**11 - 1, 8**11, 10**12])
def test_names_and_times_beyond_ustar(format: int, mtime: int) -> None:
    data = by_tarfile([info(LONG, tarfile.SYMTYPE, linkname="/" + "t" * 300, mtime=mtime)], format)
    ((member, _),) = read_all(data)
    assert (member.path, member.target, member.mtime) == (LONG, b"/" + b"t" * 300, mtime)


def test_a_fraction_of_a_second_is_cut() -> None:
    ((member, _),) = read_all(by_tarfile([info(b"a", mtime=12.75)], tarfile.PAX_FORMAT))
    assert member.mtime == 12


def test_privileges_are_told_where_there_are_some() -> None:
    capability = b"\1\0\0\2\0\4\0\0" + bytes(12)
    owner = archive.Privileges(4_000_000_000, 7, b"root", b"lp", capability)
    found = read_all(tar_of(file(b"a", b"", mode=0o4755, privileges=owner), file(b"b", b"")))
    assert found[0][0].privileges == Privileges(4_000_000_000, 7, b"root", b"lp", capability)
    assert found[1][0].privileges is None


def refused(data: bytes, *words: str) -> None:
    with pytest.raises(ArchiveDamaged) as error:
        read_all(data)
    for word in words:
        assert word in str(error.value)
    assert error.value.code == 11


@pytest.mark.parametrize(
    ("member", "word"),
    [
        (info(b"/etc/x"), "absolute"),
        (info(b"../x"), "no plain path"),
        (info(b"a/../x"), "no plain path"),
        (info(b"./x"), "no plain path"),
        (info(b"a//x"), "no plain path"),
        (info(b".", tarfile.DIRTYPE), "no plain path"),
        (info(b"x/", tarfile.REGTYPE), "no plain path"),
        (info(b"x", tarfile.LNKTYPE, linkname="/etc/passwd"), "absolute"),
        (info(b"x", tarfile.LNKTYPE, linkname="../x"), "no plain path"),
        (info(b"x", tarfile.SYMTYPE, linkname=""), "leads to"),
        (info(b"x", tarfile.CHRTYPE), "a character device"),
        (info(b"x", tarfile.BLKTYPE), "a block device"),
        (info(b"x", tarfile.FIFOTYPE), "a FIFO"),
        (info(b"x", tarfile.CONTTYPE), "unknown type"),
        (info(b"x", tarfile.GNUTYPE_SPARSE), "sparse"),
        (info(b"x", pax_headers={"GNU.sparse.size": "5"}), "not known"),
        (info(b"x", pax_headers={"SCHILY.xattr.user.x": "5"}), "not known"),
        (info(b"x", pax_headers={"path": "/etc/x"}), "absolute"),
        (info(b"x", pax_headers={"size": "-5"}), "no number"),
        (info(b"x", pax_headers={"mtime": "now"}), "no time"),
    ],
)
def test_a_member_that_no_environment_has_is_refused(member: tarfile.TarInfo, word: str) -> None:
    refused(by_tarfile([member], tarfile.PAX_FORMAT), word)


def test_an_archive_cut_anywhere_is_refused() -> None:
    data = small()
    assert len(data) == RECORD
    for end in range(0, len(data), 61):
        refused(data[:end], "cut")


@pytest.mark.parametrize("more", [b"x", b"\0", bytes(BLOCK), bytes(RECORD), b"\0" * 99 + b"x"])
def test_whatever_follows_the_end_is_refused(more: bytes) -> None:
    refused(small() + more, "goes on behind its end")


def header(data: bytes, start: int, old: bytes, new: bytes) -> bytes:
    """Replace bytes of the header that begins at ``start``, and mend its sum."""
    block = data[start : start + BLOCK].replace(old, new, 1)
    assert block != data[start : start + BLOCK]
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    return data[:start] + block[:148] + b"%06o\0 " % total + block[156:] + data[start + BLOCK :]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data[:3] + b"x" + data[4:], "the sum of a header"),
        (lambda data: data[: BLOCK + 9] + b"x" + data[BLOCK + 10 :], "where padding belongs"),
        (lambda data: data[:-1] + b"x", "behind the end"),
        (lambda data: header(data, 0, b"ustar  ", b"tar    "), "none of ustar"),
        (lambda data: header(data, 0, b"00000000007\0", b"0000000000x\0"), "no number"),
        (lambda data: header(data, 0, b"00000000007\0", b"\xff" * 12), "-1 bytes"),
        (lambda data: header(data, 0, b"00000000007\0", b"\x80" + b"\x7f" * 11), "cut"),
        (lambda data: header(data, 2 * BLOCK, b"00000000000\0", b"00000000001\0"), "1 bytes of content"),
        (lambda data: header(data, 4 * BLOCK, b"00000000146\0", b"77777777777\0"), "a header carries"),
        (lambda data: data[: 6 * BLOCK] + data[4 * BLOCK :], "two headers tell the same"),
        (lambda data: data[: 6 * BLOCK] + bytes(RECORD - 6 * BLOCK), "announces a member"),
    ],
)
def test_a_header_that_is_odd_is_refused(change: Callable[[bytes], bytes], word: str) -> None:
    refused(change(small()), word)


@pytest.mark.parametrize(
    "record", [b"5 a=\n9", b"99 path=", b"0 path=x\n", b"9 path=xy", b"path=xyz\n", b"8 path=x\n", b"7 path\n9\n"]
)
def test_a_record_of_pax_that_is_damaged_is_refused(record: bytes) -> None:
    data = by_tarfile([info(b"a", pax_headers={"path": "b"})], tarfile.PAX_FORMAT)
    assert data[BLOCK : BLOCK + 9] == b"9 path=b\n"
    refused(data[:BLOCK] + record.ljust(9, b"\n") + data[BLOCK + 9 :], "pax")


def test_one_flipped_bit_of_a_header_is_noticed() -> None:
    data = small()
    for at in (*range(148), *range(156, BLOCK)):  # the sum itself may begin with a zero or a space
        for bit in (0x01, 0x10, 0x80):
            refused(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])


def test_content_must_be_read_before_the_next_member() -> None:
    stream = TarStream(io.BytesIO(small()).read)
    stream.next()
    with pytest.raises(ValueError, match="7 bytes"):
        stream.next()
