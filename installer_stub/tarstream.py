"""Read a tar archive once, from front to back, member by member.

The formats are ustar, pax and GNU's, with what such archives of environments hold: files, directories and
links. Everything else is refused, and so is what tars let pass: a wrong sum, bytes where padding belongs, an
end that is missing, anything behind it. Python's ``tarfile`` takes eight times as long as GNU tar.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import lru_cache
from typing import Any, Callable, Dict, NamedTuple, NoReturn, Optional, Union

from installer_stub.errors import VerifyFailed
from installer_stub.match import is_relative
from installer_stub.model import Kind

BLOCK = 512
SPECIAL_BITS = 0o6000  # setuid and setgid
RECORD = 20 * BLOCK  # tars fill the whole archive up to a multiple of it
_PIECE = 1 << 20
_MOST_EXTENDED = 1 << 20  # bytes of a header that carries a long name or attributes

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*\Z")
_RECORD_OF_PAX = re.compile(rb"([1-9][0-9]{0,6}) ")
_TIME = re.compile(rb"(-?[0-9]{1,18})(\.[0-9]*)?\Z")
_CAPABILITY = b"SCHILY.xattr.security.capability"
_PAX_IGNORED = {b"atime", b"ctime", b"comment", b"hdrcharset"}  # names are bytes here, whatever the charset
_PAX_KNOWN = {b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"uname", b"gname", _CAPABILITY}

_KINDS = {b"0": Kind.FILE, b"\0": Kind.FILE, b"1": Kind.HARD_LINK, b"2": Kind.SYMLINK, b"5": Kind.DIRECTORY}
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO", b"S": "a sparse file"}
_EXTENDED = (b"x", b"L", b"K")


class ArchiveDamaged(VerifyFailed):
    """The archive is cut, damaged, or holds what no archive of an environment may."""


class Privileges(NamedTuple):
    """The owner of a setuid or setgid file, by number and by name, and a file capability, or none."""

    uid: int
    gid: int
    user: bytes
    group: bytes
    capability: bytes  # the extended attribute security.capability


class Member(NamedTuple):
    """One member as its headers describe it; ``size`` bytes of content are read from the stream."""

    path: bytes  # relative, without "." and "..", and without a slash at its end
    kind: Kind
    mode: int  # permission bits
    size: int
    mtime: int  # whole seconds
    target: bytes  # of a symlink as it is written; of a hard link, a path as above
    privileges: Optional[Privileges] = None  # of a file that runs as somebody else than its caller


Bytes = Union[bytes, memoryview]


class TarStream:
    """The members of an archive in order.

    ``read(n)`` gives 1 to ``n`` bytes of it, none at its end; each time they need to stay only until the next.
    """

    def __init__(self, read: Callable[[int], Bytes]) -> None:
        self._source = read
        self._buffer = memoryview(b"")
        self._at = 0  # what lies before is taken
        self._position = 0  # in the archive
        self._left = 0  # content of the member that was not read yet
        self._padding = 0
        self._root = b""

    def enter(self, directory: bytes) -> None:
        """Give the members from here on relative to a directory, in which all of them must be."""
        self._root += directory + b"/"

    def next(self) -> Optional[Member]:
        """Return the next member, or None at the end of the archive, which must then be its last byte.

        The content of the one before must have been read. Raises ArchiveDamaged.
        """
        if self._left:
            raise ValueError(f"{self._left} bytes of content were not read")
        padding, self._padding = self._padding, 0
        block = self._take(padding + BLOCK)
        if padding:
            if not block.startswith(_ZEROS[:padding]):
                self._refuse("there are bytes where padding belongs")
            block = block[padding:]
        extended: Dict[bytes, bytes] = {}
        while True:
            if block == _ZEROS:
                if extended:
                    self._refuse("a header announces a member, and none follows")
                self._end()
                return None
            fields = self._fields(block)
            if fields[7] not in _EXTENDED:
                member = self._inside(self._member(fields, extended))
                self._left = member.size
                self._padding = -member.size % BLOCK
                return member
            more = self._extended(fields)
            if set(more) & set(extended):
                self._refuse("two headers tell the same about one member")
            extended.update(more)
            block = self._take(BLOCK)

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes of the member's content, fewer only at its end."""
        count = min(count, self._left)
        self._left -= count
        return self._take(count)

    def view(self, count: int) -> memoryview:
        """Return 1 to ``count`` bytes of it, none at its end; uncopied, they stay until the next call of anything."""
        count = min(count, self._left)
        if count and self._at == len(self._buffer):
            self._advance()
        data = self._buffer[self._at : self._at + count]
        self._left -= len(data)
        self._at += len(data)
        self._position += len(data)
        return data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[self._at : self._at + count])
        self._at += len(data)
        missing = count - len(data)
        if missing:
            pieces = [data]
            while missing:
                self._advance()
                self._at = min(missing, len(self._buffer))
                pieces.append(bytes(self._buffer[: self._at]))
                missing -= self._at
            data = b"".join(pieces)
        self._position += count
        return data

    def _advance(self) -> None:
        self._buffer, self._at = memoryview(self._source(_PIECE)), 0
        if not self._buffer:
            self._refuse("it ends there: it is cut")

    def _end(self) -> None:
        """Read the second block of the end's mark and the rest of the record; nothing may follow."""
        rest = BLOCK + -(self._position + BLOCK) % RECORD
        if self._take(rest).strip(b"\0"):
            self._refuse("there are bytes behind the end of the archive")
        if self._at < len(self._buffer) or self._source(1):
            self._refuse("it goes on behind its end")

    def _fields(self, block: bytes) -> Any:
        fields = _FIELDS.unpack(block)
        # The sum is taken with its own field as eight spaces.
        if self._number(fields[6]) != _sum(block[:148]) + _sum(block[156:412]) + _sum(block[412:]) + 8 * 0x20:
            self._refuse("the sum of a header is wrong")
        if not fields[9].startswith(b"ustar"):
            self._refuse("a header is none of ustar, pax or GNU tar")
        return fields

    def _member(self, fields: Any, extended: Dict[bytes, bytes]) -> Member:
        name, mode, _, _, size, mtime, _, type_, target, magic, _, _, _, _, prefix = fields
        path = extended.get(b"path")
        if path is None:
            path = _text(name)
            if magic == b"ustar\x0000" and prefix[0]:
                path = _text(prefix) + b"/" + path
        kind = _KINDS.get(type_)
        if kind is None:
            self._refuse(f"{path!r} is {_REFUSED.get(type_, f'of the unknown type {type_!r}')}")
        if kind is Kind.DIRECTORY and path.endswith(b"/"):
            path = path[:-1]
        self._require_inside(path, path)
        to = extended.get(b"linkpath") or _text(target)
        if kind is Kind.HARD_LINK:
            self._require_inside(path, to)
        elif kind is Kind.SYMLINK and (not to or b"\0" in to):
            self._refuse(f"the symlink {path!r} leads to {to!r}")
        length = self._decimal(extended[b"size"]) if b"size" in extended else self._number(size)
        if length < 0 or (length and kind is not Kind.FILE):
            self._refuse(f"{path!r} has {length} bytes of content")
        bits = self._number(mode)
        return Member(
            path,
            kind,
            bits,
            length,
            self._time(extended[b"mtime"]) if b"mtime" in extended else self._number(mtime),
            to if kind is Kind.HARD_LINK or kind is Kind.SYMLINK else b"",
            self._privileges(fields, extended) if bits & SPECIAL_BITS or _CAPABILITY in extended else None,
        )

    def _inside(self, member: Member) -> Member:
        root = self._root
        if not root:
            return member
        link = member.kind is Kind.HARD_LINK
        if not member.path.startswith(root) or (link and not member.target.startswith(root)):
            self._refuse(f"{member.path!r} lies outside of {root!r}, where the environment is")
        target = member.target[len(root) :] if link else member.target
        return member._replace(path=member.path[len(root) :], target=target)

    def _privileges(self, fields: Any, extended: Dict[bytes, bytes]) -> Privileges:
        return Privileges(
            self._decimal(extended[b"uid"]) if b"uid" in extended else self._number(fields[2]),
            self._decimal(extended[b"gid"]) if b"gid" in extended else self._number(fields[3]),
            extended.get(b"uname", _text(fields[10])),
            extended.get(b"gname", _text(fields[11])),
            extended.get(_CAPABILITY, b""),
        )

    def _require_inside(self, path: bytes, name: bytes) -> None:
        """Refuse a name that could lead anywhere but below the directory into which the archive goes."""
        if name.startswith(b"/"):
            self._refuse(f"{path!r}: {name!r} is an absolute path")
        if not is_relative(name):
            self._refuse(f"{path!r}: {name!r} is no plain path below the directory that is unpacked")

    def _extended(self, fields: Any) -> Dict[bytes, bytes]:
        """Read a header that says something about the member behind it."""
        size = self._number(fields[4])
        if not 0 < size <= _MOST_EXTENDED:
            self._refuse(f"a header carries {size} bytes")
        data = self._take(size)
        if self._take(-size % BLOCK).strip(b"\0"):
            self._refuse("there are bytes where padding belongs")
        if fields[7] == b"x":
            return self._pax(data)
        if data.find(b"\0") not in (-1, size - 1):
            self._refuse("a long name holds a NUL")
        return {b"path" if fields[7] == b"L" else b"linkpath": data.rstrip(b"\0")}

    def _pax(self, data: bytes) -> Dict[bytes, bytes]:
        """Read records: ``length key=value``, each with its newline, the length counting the whole record."""
        found: Dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            start = _RECORD_OF_PAX.match(data, at)
            end = at + int(start[1]) if start else 0
            if start is None or not start.end() < end <= len(data) or data[end - 1 : end] != b"\n":
                self._refuse("a record of pax is damaged")
            key, equals, value = data[start.end() : end - 1].partition(b"=")
            if not equals or key in found or key not in _PAX_KNOWN | _PAX_IGNORED:
                self._refuse(f"the record of pax {key!r} is not known")
            if key in _PAX_KNOWN:
                found[key] = value
            at = end
        return found

    def _number(self, field: bytes) -> int:
        if field[0] & 0x80:
            # GNU's base-256: behind the highest bit, a number in two's complement.
            value = int.from_bytes(field, "big") - (1 << (8 * len(field) - 1))
            return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
        value = _octal(field)
        if value < 0:
            self._refuse(f"{field!r} is no number")
        return value

    def _decimal(self, value: bytes) -> int:
        if not value.isdigit() or len(value) > 18:
            self._refuse(f"{value!r} is no number")
        return int(value)

    def _time(self, value: bytes) -> int:
        match = _TIME.match(value)
        if match is None:
            self._refuse(f"{value!r} is no time")
        return int(match[1])

    def _refuse(self, what: str) -> NoReturn:
        raise damaged(f"at byte {self._position} of its tar stream: {what}")


def damaged(what: str) -> ArchiveDamaged:
    """Return the error that says what is wrong with the archive."""
    return ArchiveDamaged(
        f"the archive cannot be unpacked: {what}.",
        "Compare the file with its source, or pack or copy it again. Nothing was left behind.",
    )


def _sum(part: bytes) -> int:
    """Add up to 256 bytes. Half of an Adler-32 is one more than their sum, modulo 65521, which is more than that."""
    return (zlib.adler32(part) & 0xFFFF) - 1


@lru_cache(maxsize=4096)
def _octal(field: bytes) -> int:
    """Return a number, -1 for what is none. Most modes and times are those of other members."""
    match = _OCTAL.match(field)
    return int(match[1] or b"0", 8) if match is not None else -1


def _text(field: bytes) -> bytes:
    return field[: field.find(b"\0")] if b"\0" in field else field
