"""Read a file once: its hash, whether it is text, and every reference to a prefix in it."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from installer_stub import bytecode, elf, match, shebang
from installer_stub.classify import Format, classify
from installer_stub.match import Hit
from installer_stub.model import Field, Fill, Finding, Force, Reference, Spelling
from installer_stub.spelling import spelled

ReadAt = Callable[[int, int], bytes]

_PIECE = 4 << 20
_STRING = 1 << 16  # the longest C string that is looked at
_PATH = 4096  # PATH_MAX
_REST = re.compile(rb"(/[^\s\0\"'`,:;=()<>\[\]{}|&\\$]+)?")
_BYTECODE = 64 << 20  # the largest byte code file that is parsed

# What an assertion or a debug message compiled in: nobody opens it at run time.
_SOURCE = re.compile(rb"\.(c|cc|cpp|cxx|c\+\+|h|hh|hpp|hxx|inc|rs|go|s|S|f|f90|F90|pyx|y|l)\Z")
_CONTAINERS = {
    Format.ZIP: "a zip file",
    Format.GZIP: "a gzip stream",
    Format.BZIP2: "a bzip2 stream",
    Format.XZ: "an xz stream",
    Format.ZSTD: "a zstd stream",
    Format.SQLITE: "an SQLite database",
    Format.PE: "a Windows program",
    Format.MACHO: "a Mach-O file",
}

NOT_REWRITABLE = "not rewritable"
UNCERTAIN = "uncertain"
ODD = "odd file"
HARMLESS = "harmless"


def is_common(prefix: bytes) -> bool:
    """Whether a prefix is so short or so widely shared that its name alone tells nothing.

    A default PATH names /usr/local/bin in many programs, and is nobody's reference.
    """
    return prefix.count(b"/") == 1 or prefix == b"/usr/local"


class Mode(Enum):
    """What is known of the prefix that is looked for.

    A placeholder that a package recorded is a reference wherever it occurs, whatever stands beside it,
    since its channel replaces it so; the package also says whether the file is text or binary, and in a
    binary C strings take NULs.
    """

    SEARCH = "search"
    PLACEHOLDER_TEXT = "text"
    PLACEHOLDER_BINARY = "binary"


@dataclass(frozen=True)
class Reading:
    """What one pass over a file told: all offsets are those of the bytes as read."""

    sha256: str
    size: int
    format: Format
    text: bool
    head: bytes  # the first bytes, over the first two lines
    references: Tuple[Reference, ...]
    findings: Tuple[Finding, ...]


def read(
    read_at: ReadAt,
    size: int,
    path: bytes,
    prefixes: Sequence[bytes],
    mode: Mode = Mode.SEARCH,
    root: Optional[bytes] = None,
) -> Reading:
    """Read a file of ``size`` bytes and find every reference to one of ``prefixes``, longest first.

    ``root`` is where the tree stands, if that is none of them: what a common prefix names is looked for
    there. Memory is that of a piece, whatever the size, and of what is found.
    """
    literal = mode is not Mode.SEARCH
    hasher = hashlib.sha256()
    head = read_at(0, 4096)
    format = classify(head, path)
    seen = _Seen()
    utf16 = {Format.UTF16LE: Spelling.UTF16LE, Format.UTF16BE: Spelling.UTF16BE}.get(format, Spelling.PLAIN)
    table = {p: (p, Spelling.PLAIN) for p in prefixes} if literal else _needles(tuple(prefixes), utf16)
    hits = list(match.search(_pieces(read_at, size, hasher.update, seen), table))
    text = mode is Mode.PLACEHOLDER_TEXT if literal else not seen.nul or utf16 is not Spelling.PLAIN
    find = _Find(read_at, seen.size, path, head, literal, root)
    if hits:
        if text:
            find.text(hits, utf16)
        elif format is Format.BYTECODE:
            find.byte_code(hits)
        elif format in _CONTAINERS:
            find.refuse(hits, f"inside {_CONTAINERS[format]}")
        else:
            find.binary(hits, format)
    return Reading(hasher.hexdigest(), seen.size, format, text, head, tuple(find.references), tuple(find.findings))


@lru_cache(maxsize=64)
def _needles(prefixes: Tuple[bytes, ...], utf16: Spelling) -> Dict[bytes, Tuple[bytes, Spelling]]:
    return match.needles(prefixes, utf16)


@contextmanager
def opened(path: bytes) -> Iterator[ReadAt]:
    """Open a file for ``read``: yield a function (offset, length) -> bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield lambda offset, length: os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


class _Seen:
    """What went by in the stream."""

    def __init__(self) -> None:
        self.nul = False
        self.size = 0


def _pieces(read_at: ReadAt, size: int, update: Callable[[bytes], None], seen: _Seen) -> Iterator[bytes]:
    while True:
        piece = read_at(seen.size, min(_PIECE, max(size - seen.size, 1)))
        if not piece:
            return
        update(piece)
        seen.size += len(piece)
        seen.nul = seen.nul or b"\0" in piece
        yield piece


class _Find:
    """Turn the hits of one file into references and findings."""

    def __init__(
        self, read_at: ReadAt, size: int, path: bytes, head: bytes, literal: bool, root: Optional[bytes]
    ) -> None:
        self.read_at = read_at
        self.size = size
        self.path = path
        self.head = head
        self.literal = literal
        self.root = root
        self.references: List[Reference] = []
        self.findings: List[Finding] = []

    def text(self, hits: Iterable[Hit], utf16: Spelling) -> None:
        """A text file may grow: each name of the prefix is a slot of its own."""
        line = shebang.parse(self.head) if utf16 is Spelling.PLAIN else None
        head_end = 0
        for hit in hits:
            if line is not None and line.interpreter.startswith(hit.prefix + b"/") and not head_end:
                head_end = shebang.length(line, self.head)
                self._add(hit, Field.SHEBANG, Fill.GROW, Force.ALWAYS, 0, head_end, self.head[:head_end])
            elif hit.offset < head_end:
                continue  # an option of the shebang: rewritten with its line
            elif self._certain(hit, text=True):
                self._add(hit, Field.TEXT, Fill.GROW, Force.ALWAYS, hit.offset, len(hit.needle))

    def binary(self, hits: Iterable[Hit], format: Format) -> None:
        """A file with offsets in it keeps its length, and so does everything in it."""
        parsed = self._elf() if format is Format.ELF else None
        paths = parsed.run_paths if parsed else ()
        for hit in hits:
            run_path = next((p for p in paths if p.offset <= hit.offset < p.offset + len(p.text)), None)
            if run_path is not None and (self.literal or _is_listed(hit, run_path)):
                end = run_path.offset + len(run_path.text)
                self._add(hit, Field.RUN_PATH, Fill.TERMINATE, Force.ALWAYS, hit.offset, end - hit.offset)
            elif parsed and parsed.interpreter and parsed.interpreter.offset == hit.offset and self._ends(hit):
                room = len(parsed.interpreter.text)
                self._add(hit, Field.INTERPRETER, Fill.TERMINATE, Force.ALWAYS, hit.offset, room)
            elif hit.offset == 2 and self.head.startswith(b"#!") and self._ends(hit):
                self._add(hit, Field.SHEBANG, Fill.SLASHES, Force.ALWAYS, hit.offset, len(hit.needle))
            elif self.literal:
                room = len(self._string(hit.offset))
                self._add(hit, Field.C_STRING, Fill.NULS, Force.ALWAYS, hit.offset, room)
            elif self._certain(hit, text=False):
                force = self._force(hit, format, parsed)
                self._add(hit, Field.C_STRING, Fill.SLASHES, force, hit.offset, len(hit.needle))

    def byte_code(self, hits: Sequence[Hit]) -> None:
        """Byte code is never rewritten: its strings are counted, and its importer mends the file names."""
        harmless = False
        if self.size <= _BYTECODE:
            try:
                constants = bytecode.strings(self.read_at(0, self.size))
                roles = [(c.offset, c.offset + c.length, c.role) for c in constants]
                names = [(a, b) for a, b, role in roles if role is bytecode.Role.FILENAME]
                harmless = bool(names) and all(any(a <= h.offset < b for a, b in names) for h in hits)
            except (bytecode.OddBytecode, bytecode.UnknownBytecode) as error:
                self.findings.append(Finding(self.path, -1, ODD, str(error)))
        if harmless:
            detail = f"{len(hits)} names of sources, which Python mends"
            self.findings.append(Finding(self.path, hits[0].offset, HARMLESS, detail))
        else:
            self.refuse(hits, "a constant in byte code")

    def refuse(self, hits: Iterable[Hit], why: str) -> None:
        """Nothing can be rewritten there."""
        self.findings += [Finding(self.path, hit.offset, NOT_REWRITABLE, why) for hit in hits]

    def _ends(self, hit: Hit) -> bool:
        return self.literal or match.right_boundary(hit.right)

    def _certain(self, hit: Hit, text: bool) -> bool:
        """Whether the neighbours of a hit let it be a reference; note it where that cannot be told."""
        if self.literal:
            return True
        if match.is_reference(hit):
            if not is_common(hit.prefix) or self._names_something(hit):
                return True
            detail = "names nothing in the prefix"
            self.findings.append(Finding(self.path, hit.offset, UNCERTAIN, detail))
            return False
        # In text /opt/env2 is another directory; among counted strings it may be this one, and then another string.
        if not text or match.right_boundary(hit.right):
            detail = f"between {repr(hit.left[-16:])[1:]} and {repr(hit.right)[1:]}"
            self.findings.append(Finding(self.path, hit.offset, UNCERTAIN, detail))
        return False

    def _names_something(self, hit: Hit) -> bool:
        """Whether the path that begins with the hit is there."""
        rest = _REST.match(self.read_at(hit.offset + len(hit.needle), _PATH))
        return rest is not None and os.path.lexists((self.root or hit.prefix) + rest.group().rstrip(b"."))

    def _force(self, hit: Hit, format: Format, parsed: Optional[elf.Elf]) -> Force:
        if format is Format.STATIC_ARCHIVE:
            return Force.NEVER
        section = parsed.section_at(hit.offset) if parsed else None
        if section is not None and section.name.startswith((b".debug", b".note", b".comment")):
            return Force.NEVER
        return Force.NEVER if _SOURCE.search(self._string(hit.offset)) else Force.UNLESS_ALLOWED

    def _string(self, offset: int) -> bytes:
        """The bytes from ``offset`` up to the next NUL."""
        return self.read_at(offset, _STRING).partition(b"\0")[0]

    def _elf(self) -> Optional[elf.Elf]:
        try:
            return elf.parse(self.read_at, self.size)
        except elf.OddElf as error:
            self.findings.append(Finding(self.path, -1, ODD, str(error)))
            return None

    def _add(
        self, hit: Hit, field: Field, fill: Fill, force: Force, offset: int, room: int, archived: bytes = b""
    ) -> None:
        spelling = hit.spelling
        url = field is Field.TEXT and spelling is Spelling.PLAIN and match.is_url(hit.left)
        if url and spelled(hit.prefix, Spelling.URL) == hit.needle:
            spelling = Spelling.URL
        self.references.append(Reference(offset, room, hit.prefix, field, spelling, fill, force, archived))


def _is_listed(hit: Hit, run_path: elf.Text) -> bool:
    """Whether a directory of a run path begins with the hit and ends with it, or lies in it."""
    at = hit.offset - run_path.offset
    before, after = run_path.text[:at], run_path.text[at + len(hit.needle) :]
    return (not before or before.endswith(b":")) and match.right_boundary(after[: match.RIGHT])
