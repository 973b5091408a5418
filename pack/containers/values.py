"""Which value of a pickle or an SQLite database a place in the file belongs to.

Both are only read. No pickle is loaded, only its opcodes are counted off; no SQL is run, only the tree of
pages is walked. (The formats: ``pickletools``; https://www.sqlite.org/fileformat2.html.)
"""

from __future__ import annotations

import pickletools
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from installer_stub.elf import ReadAt
from installer_stub.manifest import encode
from installer_stub.match import Hit
from installer_stub.model import Spelling
from pack.containers.streams import Stream, span

_OPCODES = 4 << 20  # those of a pickle that are counted off: about five seconds
_PAGES = 1 << 18  # those of a database that are walked: about two seconds
_COLUMNS = 8 << 20  # those that are looked at; behind them a hit's neighbours decide, as in any binary file
_TABLES, _NAME = 10_000, 256  # how many are named, and how long a name may be

_COUNTED = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_ARGUMENTS = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Opcode(NamedTuple):
    """An opcode of a pickle that has text or bytes: the opcode's offset, and where they begin and end."""

    name: str
    start: int
    begin: int
    end: int


def pickled(hits: Iterable[Hit], read_at: ReadAt, size: int) -> Iterator[tuple[Opcode | None, Hit]]:
    """Yield each hit with the opcode that it lies in, and without the neighbours that are not in its string.

    Behind what is no pickle (an array that joblib put there) the opcode is None.
    """
    opcodes = _opcodes(Stream(span(read_at, 0, size)))
    opcode: Opcode | None = None
    for hit in hits:
        end = hit.offset + len(hit.needle)
        while opcode is None or opcode.end < end:
            following = next(opcodes, None)
            if following is None:
                break
            opcode = following
        if opcode is None or not opcode.begin <= hit.offset < end <= opcode.end:
            yield None, hit
            continue
        before = hit.offset - opcode.begin
        left = hit.left[-before:] if before else b""
        yield opcode, hit._replace(left=left, right=hit.right[: opcode.end - end])


def _opcodes(source: Stream) -> Iterator[Opcode]:
    at = 0
    for _ in range(_OPCODES):
        info = _ARGUMENTS.get(source.read(1))
        if info is None:
            return
        start, at = at, at + 1
        fixed = info.arg.n if info.arg else 0
        if fixed >= 0:
            at += len(source.read(fixed))
            continue
        if fixed in _COUNTED:
            width = _COUNTED[fixed]
            length = int.from_bytes(source.read(width), "little")
            at += width
            begin, end = at, at + sum(map(len, source.take(length)))
            at = end
        else:
            lines = 2 if info.arg is not None and info.arg.name.endswith("pair") else 1
            begin = at
            for _line in range(lines):
                at += _line_length(source)
            end = at - 1
        yield Opcode(info.name, start, begin, end)


def _line_length(source: Stream) -> int:
    """Take a line; return its length with the newline."""
    length = 0
    while data := source.some():
        at = data.find(b"\n")
        if at >= 0:
            source.unread(data[at + 1 :])
            return length + at + 1
        length += len(data)
    return length


def encoding(read_at: ReadAt) -> Spelling:
    """Return how an SQLite database writes text."""
    number = read_at(56, 4)
    return {b"\0\0\0\2": Spelling.UTF16LE, b"\0\0\0\3": Spelling.UTF16BE}.get(number, Spelling.PLAIN)


def stored(hits: Iterable[Hit], read_at: ReadAt, size: int) -> Iterator[tuple[str, Hit]]:
    """Yield each hit with the name of the table in which, or in an index of which, it lies; or an empty name.

    Where it lies in a value, it comes without the neighbours that do not.
    """
    database: _Database | None = None
    for hit in hits:
        database = database or _Database(read_at, size)
        end = hit.offset + len(hit.needle)
        begin, stop = database.value_at(hit.offset, end)
        before = hit.offset - begin
        left = hit.left[-before:] if before else b""
        yield database.table_at(hit.offset), hit._replace(left=left, right=hit.right[: stop - end])


class _Database:
    def __init__(self, read_at: ReadAt, size: int) -> None:
        self.read_at = read_at
        number = int.from_bytes(read_at(16, 2), "big")
        self.page_size = 65536 if number == 1 else max(number, 512)
        spelling = encoding(read_at)
        self.codec = "utf-8" if spelling is Spelling.PLAIN else spelling.value
        count = min(size // self.page_size, _PAGES)
        self.owners = array("L", bytes(array("L").itemsize * (count + 1)))  # of each page, a number in names
        self.steps = _COLUMNS
        self.names = ["", "sqlite_schema"]
        self.values: tuple[int, list[tuple[int, int]]] = 0, []  # of the page that was asked for last
        self._own(1, 1)
        schema = [number for number, owner in enumerate(self.owners) if owner == 1]
        for name, root in (entry for page in schema for entry in self._schema(page)):
            if name != self.names[-1] and len(self.names) <= _TABLES:
                self.names.append(name)
            self._own(root, len(self.names) - 1)

    def table_at(self, offset: int) -> str:
        page = offset // self.page_size + 1
        return self.names[self.owners[page]] if page < len(self.owners) else ""

    def _own(self, root: int, owner: int) -> None:
        """Note the owner of all pages of a tree; a page has one owner, so this ends."""
        pages = [root]
        while pages:
            number = pages.pop()
            if not 0 < number < len(self.owners) or self.owners[number]:
                continue
            self.owners[number] = owner
            head, cells = self._page(number)
            if head[:1] in (b"\2", b"\5"):
                data = self.read_at((number - 1) * self.page_size, self.page_size)
                children = {int.from_bytes(data[at : at + 4], "big") for at in cells}
                children.add(int.from_bytes(head[8:12], "big"))
                pages += [child for child in children if child < len(self.owners) and not self.owners[child]]

    def _page(self, number: int) -> tuple[bytes, list[int]]:
        """Return the header of a page, and where its cells are."""
        start, skip = (number - 1) * self.page_size, 100 if number == 1 else 0
        head = self.read_at(start + skip, 12)
        interior = head[:1] in (b"\2", b"\5")
        if not interior and head[:1] not in (b"\n", b"\r"):
            return head, []
        count = min(int.from_bytes(head[3:5], "big"), self.page_size // 6)  # two bytes, and a cell of four
        pointers = self.read_at(start + skip + (12 if interior else 8), 2 * count)
        return head, [int.from_bytes(pointers[at : at + 2], "big") for at in range(0, len(pointers) - 1, 2)]

    def value_at(self, begin: int, end: int) -> tuple[int, int]:
        """Return where the value begins and ends that has the bytes ``[begin, end)``; far away if none has."""
        page = begin // self.page_size + 1
        if page != self.values[0]:
            start = (page - 1) * self.page_size
            columns = [column for row in self._rows(page) for column in row]
            self.values = page, sorted((start + at, start + at + width) for at, width, _ in columns if width)
        number = bisect_right(self.values[1], (begin, 1 << 62)) - 1
        if number >= 0 and self.values[1][number][1] >= end:
            return self.values[1][number]
        return 0, 1 << 62

    def _schema(self, page: int) -> Iterator[tuple[str, int]]:
        """Yield the table and the root page of each entry on a leaf of the schema."""
        data = self.read_at((page - 1) * self.page_size, self.page_size)
        for row in self._rows(page):
            if len(row) >= 4 and row[3][2] < 12:
                name, root = (data[at : at + width] for at, width, _ in row[2:4])
                text = name[:_NAME].decode(self.codec, "replace")
                yield encode(text.encode("utf-8", "replace")), int.from_bytes(root, "big")

    def _rows(self, page: int) -> Iterator[list[tuple[int, int, int]]]:
        """Yield the columns of each row on a page: where the value begins in it, its length, its serial type."""
        head, cells = self._page(page)
        data = self.read_at((page - 1) * self.page_size, self.page_size)
        for at in cells if head[:1] != b"\5" else ():
            at += 4 if head[:1] == b"\2" else 0  # the child
            _, at = _varint(data, at)  # the length of the record
            if head[:1] == b"\r":
                _, at = _varint(data, at)  # its key
            start = at
            length, at = _varint(data, at)
            value, row = start + length, []
            while at < start + length and value < len(data) and self.steps:
                self.steps -= 1
                kind, at = _varint(data, at)
                width = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind] if kind < 12 else (kind - 12) // 2
                row.append((value, width, kind))
                value += width
            yield row


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of one to nine bytes; return it, and where it ends."""
    value = 0
    for count in range(9):
        byte = data[at + count] if at + count < len(data) else 0
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value, at + 9
