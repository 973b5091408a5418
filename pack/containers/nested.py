"""The members of zip files and tar archives, each as a stream.

A zip that is a file is read by its central directory, as its readers do; one that comes as a stream, in
another container, by the headers in front of its members. Nothing is extracted: names are words in a
report, whatever they say. (The formats: PKWARE's APPNOTE.TXT; POSIX, pax, "ustar Interchange Format".)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from installer_stub.elf import ReadAt
from pack.containers.streams import Decoder, Stream, Unreadable, bunzipped, inflated, span, unlzmaed, unxzed, unzstded

_END, _LOCAL, _CENTRAL = b"PK\x05\x06", b"PK\x03\x04", b"PK\x01\x02"
_END64, _END64_LOCATOR, _DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_COMMENT = 0xFFFF
_ENCRYPTED, _DESCRIBED, _MASKED = 0x1, 0x8, 0x2000  # general purpose flags
_METHODS: dict[int, Decoder] = {8: inflated, 12: bunzipped, 14: unlzmaed, 20: unzstded, 93: unzstded, 95: unxzed}
_LONGEST = 1 << 20  # what is read of a tar's extended header; PATH_MAX is 4096


class ZipDirectory(NamedTuple):
    """Where the central directory of a zip file lies, and how far its offsets are from those in the file."""

    start: int
    end: int
    members: int
    shift: int


class ZipMember(NamedTuple):
    """A member as one of its headers describes it. ``offset`` is that of its local header in the file."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int = 0


def zip_directory(read_at: ReadAt, size: int) -> ZipDirectory | None:
    """Find the central directory of a zip file, whatever lies in front of the zip; None if it is no zip."""
    for length in (22, min(size, 22 + _COMMENT)):  # mostly there is no comment
        tail = read_at(max(0, size - length), length)
        at = tail.rfind(_END, 0, max(0, len(tail) - 18))
        if at >= 0:
            break
    else:
        return None
    count, length, offset, comment = struct.unpack_from("<HLLH", tail, at + 10)
    end = size - len(tail) + at
    if at + 22 + comment > len(tail):
        return None
    locator = read_at(max(0, end - 20), 20)
    if locator.startswith(_END64_LOCATOR):
        record = read_at(max(0, end - 76), 56)
        if len(record) == 56 and record.startswith(_END64):
            end -= 76
            count, length, offset = struct.unpack_from("<QQQ", record, 32)
    start = end - length
    if start < 0 or offset > start or (count and read_at(start, 4) != _CENTRAL):
        return None
    return ZipDirectory(start, end, count, start - offset)


def zip_members(read_at: ReadAt, directory: ZipDirectory, layer: int) -> Iterator[ZipMember]:
    """Yield the members that a central directory lists. Raises `Unreadable` where it is damaged."""
    source = Stream(span(read_at, directory.start, directory.end))
    number = 0
    while head := source.read(46):
        if len(head) < 46 or not head.startswith(_CENTRAL):
            raise Unreadable(layer, f"its directory is damaged behind {number} members")
        flags, method, _, crc, packed, size, a, b, c = struct.unpack_from("<HHLLLLHHH", head, 8)
        name, extra, _comment = source.read(a), source.read(b), source.read(c)
        numbers = _extended(extra, [size, packed, *struct.unpack_from("<L", head, 42)])
        yield ZipMember(name, flags, method, crc, numbers[1], numbers[0], numbers[2] + directory.shift)
        number += 1
    if number % 0x10000 != directory.members % 0x10000:
        raise Unreadable(layer, f"its directory has {number} members, and should have {directory.members}")


def zip_place(read_at: ReadAt, member: ZipMember, layer: int) -> tuple[int, int]:
    """Return where the packed bytes of a member begin and end. Raises `Unreadable` if it is not there."""
    head = read_at(member.offset, 30)
    if len(head) < 30 or not head.startswith(_LOCAL):
        raise Unreadable(layer, "it is damaged (it is not where the directory says)")
    start = member.offset + 30 + sum(struct.unpack_from("<HH", head, 26))
    return start, start + member.packed


def zip_content(source: Stream, member: ZipMember, layer: int) -> Iterator[bytes]:
    """Yield the content of a member out of its packed bytes. Raises `Unreadable`."""
    if member.flags & (_ENCRYPTED | _MASKED):
        raise Unreadable(layer, "it is encrypted")
    if member.method and member.method not in _METHODS:
        raise Unreadable(layer, f"it is compressed by method {member.method}, which is not known here")
    pieces = _METHODS[member.method](source, layer) if member.method else source.take(member.packed)  # 0: stored
    size = crc = 0
    while size < member.size and (piece := next(pieces, b"")):
        size += len(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != member.size or crc != member.crc:
        raise Unreadable(layer, "it is damaged (its size or its checksum is another)")


def streamed_zip(source: Stream, layer: int) -> Iterator[tuple[ZipMember, Iterator[bytes]]]:
    """Yield the members of a zip that comes as a stream, and what each holds: take it before the next.

    Raises `Unreadable` where it cannot be known where a member ends.
    """
    while source.peek(4) == _LOCAL:
        head = source.read(30)
        if len(head) < 30:
            raise Unreadable(layer, "it ends early")
        flags, method, _, crc, packed, size, a, b = struct.unpack_from("<HHLLLLHH", head, 6)
        name, extra = source.read(a), source.read(b)
        size, packed = _extended(extra, [size, packed])
        member = ZipMember(name, flags, method, crc, packed, size)
        if flags & _DESCRIBED and not packed:
            if flags & _ENCRYPTED or method not in _METHODS:
                if method or not name.endswith(b"/"):
                    raise Unreadable(layer, f"its members from {name!r} on do not say where they end")
                yield member, iter(())
            else:
                yield member, _METHODS[method](source, layer)
            _skip_descriptor(source, layer)
            continue
        body = Stream(_whole(source, packed, layer))
        yield member, zip_content(body, member, layer)
        for _ in body.rest():
            pass
    if source.peek(4) not in (_CENTRAL, _END):
        raise Unreadable(layer, "it is damaged or ends early")
    for _ in source.rest():
        pass


def _skip_descriptor(source: Stream, layer: int) -> None:
    """Skip checksum and sizes behind a member: with a mark or without, of 4 or 8 bytes."""
    ahead = source.peek(28)
    for length in (16, 24) if ahead.startswith(_DESCRIPTOR) else (12, 20):
        if ahead[length : length + 4] in (_LOCAL, _CENTRAL):
            source.read(length)
            return
    raise Unreadable(layer, "it is damaged (no member follows a member)")


def _extended(extra: bytes, numbers: list[int]) -> list[int]:
    """Replace those numbers that do not fit into 32 bits by the ones in the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + length]
            wide = iter(struct.unpack(f"<{len(body) // 8}Q", body[: len(body) // 8 * 8]))
            return [next(wide, n) if n == 0xFFFFFFFF else n for n in numbers]
        at += 4 + length
    return numbers


class TarMember(NamedTuple):
    """A member of a tar archive. ``link`` is what it links to, or empty."""

    name: bytes
    link: bytes


def is_tar(head: bytes) -> bool:
    """Whether the first 512 bytes are the header of a tar archive."""
    return len(head) >= 512 and head[257:262] == b"ustar" and _sum(head) == _number(head[148:156])


def tar_members(source: Stream, layer: int) -> Iterator[tuple[TarMember, Iterator[bytes]]]:
    """Yield the members of a tar archive, and what each holds: take it before the next. Raises `Unreadable`."""
    known: dict[bytes, bytes] = {}  # of the member to come, by its extended headers
    while (head := source.read(512)).strip(b"\0"):
        size, kind = _number(head[124:136]), head[156:157]
        if len(head) < 512 or size < 0 or _sum(head) != _number(head[148:156]):
            raise Unreadable(layer, "it is damaged (the header of a member)")
        if (digits := known.get(b"size", b"")).isdigit() and len(digits) < 20:
            size = int(digits)
        if kind in b"123456":
            size = 0  # links, devices, directories: some writers give a size, and no data
        more = kind == b"S" and head[482]
        while more:  # the rest of a sparse file's map
            more = source.read(512).ljust(512, b"\0")[504]
        body = Stream(_whole(source, size, layer))
        if kind in b"LKxg":
            known.update(_extended_header(kind, body.read(min(size, _LONGEST))))
        else:
            name, link = _cut(head[:100]), _cut(head[157:257])
            if head[257:263] == b"ustar\0" and head[345]:
                name = _cut(head[345:500]) + b"/" + name
            yield TarMember(known.get(b"path", name), known.get(b"linkpath", link)), body.rest()
            known = {}
        for _ in body.rest():
            pass
        source.read(-size % 512)
    if any(piece.strip(b"\0") for piece in source.rest()):
        raise Unreadable(layer, "something else follows its end")


def _whole(source: Stream, count: int, layer: int) -> Iterator[bytes]:
    for piece in source.take(count):
        count -= len(piece)
        yield piece
    if count:
        raise Unreadable(layer, "it ends early")


def _extended_header(kind: bytes, body: bytes) -> dict[bytes, bytes]:
    """Read path, link target and size in an extended header: GNU's (L, K) or pax's (x)."""
    if kind in b"LK":
        return {b"path" if kind == b"L" else b"linkpath": _cut(body)}
    known: dict[bytes, bytes] = {}
    at = 0
    while kind == b"x" and at < len(body):
        digits, _, _ = body[at : at + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits):
            break
        key, _, value = body[at + len(digits) + 1 : at + length - 1].partition(b"=")
        known[key] = value
        at += length
    return known


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _sum(head: bytes) -> int:
    return sum(head[:148]) + 8 * 32 + sum(head[156:512])


def _number(field: bytes) -> int:
    """Read a number of a tar header: octal digits, or GNU's base 256; -1 if it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not all(48 <= each < 56 for each in digits):
        return -1
    return int(digits or b"0", 8)
