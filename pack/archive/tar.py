"""Tar archives in GNU format, the one that every tar reads whatever the bytes and lengths of the names.

Our own header writer: names are bytes from end to end, and it is several times faster than ``tarfile``,
which rounds each header through text. Owners are 0 without names, so the same members give the same bytes;
only a member with privileges has its own, and its file capability in a header of pax, as other tars write it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from installer_stub.model import Kind

from . import Member, Privileges, Progress, Writable, checked_chunks

BLOCK = 512
_RECORD = 20 * BLOCK  # tar pads the whole archive to this, and warns of some that are not
_NAME = 100

_TYPES = {Kind.FILE: b"0", Kind.HARD_LINK: b"1", Kind.SYMLINK: b"2", Kind.DIRECTORY: b"5"}
_LONG_NAME = b"L"
_LONG_TARGET = b"K"
_PAX = b"x"
_CAPABILITY = b"SCHILY.xattr.security.capability"


def write_tar(members: Iterable[Member], out: Writable, progress: Progress | None = None) -> None:
    """Write members, in their order, as one tar stream with its end mark.

    Raises `EnvironmentUnfit` when a member yields more or fewer bytes than its size.
    """
    written = 0
    for member in members:
        head = headers(member)
        out.write(head)
        written += len(head)
        if member.kind is Kind.FILE:
            written += write_content(member, out, progress)
    out.write(end(written))


def write_content(member: Member, out: Writable, progress: Progress | None) -> int:
    """Write the content of a file, filled up to whole blocks; return how many bytes that are. Raises as `write_tar`."""
    for chunk in checked_chunks(member):
        out.write(chunk)
        if progress:
            progress(len(chunk))
    whole = padded(member.size)
    if whole > member.size:
        out.write(bytes(whole - member.size))
    return whole


def padded(size: int) -> int:
    """Return how many bytes a content of ``size`` bytes takes in a tar: whole blocks."""
    return size + -size % BLOCK


def headers(member: Member) -> bytes:
    """Return the header of a member, with those that carry what has no room in it."""
    name = member.path + (b"/" if member.kind is Kind.DIRECTORY else b"")
    size = member.size if member.kind is Kind.FILE else 0
    return _headers(name, _TYPES[member.kind], member.mode, size, member.mtime, member.target, member.privileges)


def headers_length(member: Member) -> int:
    """Return how many bytes ``headers`` gives, without making them but for a member with privileges, which are few."""
    if member.privileges is not None:
        return len(headers(member))
    length = BLOCK
    for value in (len(member.path) + (member.kind is Kind.DIRECTORY), len(member.target)):
        if value > _NAME:
            length += BLOCK + padded(value + 1)
    return length


def end(written: int) -> bytes:
    """Return what ends an archive of which ``written`` bytes were written."""
    mark = 2 * BLOCK
    return bytes(mark + -(written + mark) % _RECORD)


def _headers(
    name: bytes, type_: bytes, mode: int, size: int, mtime: int, target: bytes, privileges: Privileges | None
) -> bytes:
    owner, tail = (_NOBODY, _TAIL) if privileges is None else _owner(privileges)
    if len(name) <= _NAME and len(target) <= _NAME and privileges is None:
        return _header(name, type_, mode, size, mtime, target, owner, tail)
    before = b""
    if privileges is not None and privileges.capability:
        before += _extended(_CAPABILITY, privileges.capability)
    if len(target) > _NAME:
        before += _long(_LONG_TARGET, target)
    if len(name) > _NAME:
        before += _long(_LONG_NAME, name)
    return before + _header(name[:_NAME], type_, mode, size, mtime, target[:_NAME], owner, tail)


def _long(type_: bytes, value: bytes) -> bytes:
    """Return the member that carries a name which is too long for the header behind it."""
    return _carrier(b"././@LongLink", type_, value + b"\0")


def _extended(key: bytes, value: bytes) -> bytes:
    """Return the member that carries a record of pax for the header behind it: ``length key=value``, itself counted."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return _carrier(b"././@PaxHeader", _PAX, b"%d" % length + rest)


def _carrier(name: bytes, type_: bytes, data: bytes) -> bytes:
    return _carrying(name, type_, len(data)) + data + bytes(-len(data) % BLOCK)


@lru_cache(maxsize=512)
def _carrying(name: bytes, type_: bytes, length: int) -> bytes:
    return _header(name, type_, 0, length, 0, b"", _NOBODY, _TAIL)


def _owner(privileges: Privileges) -> tuple[bytes, bytes]:
    """Return the two fields of a header that tell the owner; a name without room is left to the number."""
    names = [name if len(name) < _OWNER else b"" for name in (privileges.user, privileges.group)]
    tail = _MAGIC + b"".join(name.ljust(_OWNER, b"\0") for name in names)
    return _id(privileges.uid) + _id(privileges.gid), tail.ljust(len(_TAIL), b"\0")


def _header(
    name: bytes, type_: bytes, mode: int, size: int, mtime: int, target: bytes, owner: bytes, tail: bytes
) -> bytes:
    before = b"%07o\0%s%s%s" % (mode, owner, _number(size), _number(mtime))
    # The sum is taken with its own field as eight spaces; what fills a field up adds nothing.
    total = sum(name) + sum(before) + 8 * 0x20 + ord(type_) + sum(target) + _sum(tail)
    return b"%b%b%06o\0 %b%b%b" % (name.ljust(_NAME, b"\0"), before, total, type_, target.ljust(_NAME, b"\0"), tail)


@lru_cache(maxsize=64)
def _sum(tail: bytes) -> int:
    return sum(tail)


def _number(value: int) -> bytes:
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    # GNU's base-256: the high bit of the first byte marks it, the rest is two's complement.
    return (value + ((1 << 96) if value < 0 else (1 << 95))).to_bytes(12, "big")


def _id(value: int) -> bytes:
    return b"%07o\0" % value if value < 8**7 else (value + (1 << 63)).to_bytes(8, "big")


_OWNER = 32
_MAGIC = b"ustar  \0"
_NOBODY = b"0000000\0" * 2  # uid, gid
_TAIL = _MAGIC.ljust(BLOCK - 257, b"\0")  # no owner names, no device
