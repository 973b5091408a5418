"""Turn the hits of one file into references and findings: what each is part of, and so what may be done to it."""

from __future__ import annotations

import os
import re
from typing import Dict, FrozenSet, Iterable, List, Optional, Sequence, Tuple

from installer_stub import bytecode, codesign, elf, macho, match, quoting, shebang
from installer_stub.classify import Format
from installer_stub.elf import ReadAt
from installer_stub.match import Hit
from installer_stub.model import (
    HARMLESS,
    HIDDEN,
    NOT_REWRITABLE,
    ODD,
    UNCERTAIN,
    Field,
    Fill,
    Finding,
    Force,
    Reference,
    Spelling,
)
from installer_stub.spelling import spelled

_PIECE = 4 << 20
_STRING = 1 << 16  # the longest C string that is looked at
_PATH = 4096  # PATH_MAX
_REST = re.compile(rb"(/[^\s\0\"'`,:;=()<>\[\]{}|&\\$]+)?")
_BYTECODE = 64 << 20  # the largest byte code file that is parsed
# gcc -O2 splits an inlined string into immediate operands, of which the first has this many bytes.
INLINED = 8
_BLOCK = 16  # or copies it through a register of this many bytes
_XML = re.compile(rb"(\xef\xbb\xbf)?\s*<([?]xml\b|!DOCTYPE\b|!--|html\b|svg\b|plist\b)", re.IGNORECASE)

# What an assertion or a debug message compiled in: nobody opens it at run time.
_SOURCE = re.compile(rb"\.(c|cc|cpp|cxx|c\+\+|h|hh|hpp|hxx|inc|rs|go|s|S|f|f90|F90|pyx|y|l)\Z")
CONTAINERS = {
    Format.ZIP: "a zip file",
    Format.GZIP: "a gzip stream",
    Format.BZIP2: "a bzip2 stream",
    Format.XZ: "an xz stream",
    Format.ZSTD: "a zstd stream",
    Format.SQLITE: "an SQLite database",
    Format.TAR: "a tar archive",
    Format.PICKLE: "a pickle",
    Format.PE: "a Windows program",
}

_PAGE_HASHES = {
    codesign.HashKind.SHA1: Spelling.SHA1,
    codesign.HashKind.SHA256: Spelling.SHA256,
    codesign.HashKind.SHA384: Spelling.SHA384,
}


def is_common(prefix: bytes) -> bool:
    """Whether a prefix is so short or so widely shared that its name alone tells nothing.

    A default PATH names /usr/local/bin in many programs, and is nobody's reference.
    """
    return prefix.count(b"/") == 1 or prefix == b"/usr/local"


class Slots:
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
        self.xml = _XML.match(head) is not None
        self.splits = False
        self.activates = False
        self.starts: FrozenSet[int] = frozenset()  # where sections of a binary begin

    def text(self, hits: Iterable[Hit], utf16: Spelling) -> None:
        """A text file may grow: each name of the prefix is a slot of its own."""
        line = shebang.parse(self.head) if utf16 is Spelling.PLAIN else None
        self.splits = quoting.splits(self.path, line)
        self.activates = quoting.is_activation(self.path)
        head_end = 0
        for hit in hits:
            if line is not None and line.names(hit.prefix) and not head_end:
                head_end = shebang.length(line, self.head)
                self._add(hit, Field.SHEBANG, Fill.GROW, Force.ALWAYS, 0, head_end, self.head[:head_end])
            elif hit.offset < head_end:
                if hit.prefix != self.references[0].prefix:  # an option of the shebang is rewritten with its line
                    self.refuse([hit], "a shebang that names the prefix in two ways")
            elif self._certain(hit, text=True):
                self._add(hit, Field.TEXT, Fill.GROW, Force.ALWAYS, hit.offset, len(hit.needle))

    def binary(self, hits: Iterable[Hit], format: Format) -> None:
        """A file with offsets in it keeps its length, and so does everything in it."""
        parsed = self._elf() if format is Format.ELF else None
        self.starts = frozenset(section.offset for section in parsed.sections) if parsed else frozenset()
        paths = parsed.run_paths if parsed else ()
        loaded = _loaded(parsed) if parsed else {}
        for hit in hits:
            run_path = next((p for p in paths if p.offset <= hit.offset < p.offset + len(p.text)), None)
            if run_path is not None and (self.literal or _is_listed(hit, run_path)):
                end = run_path.offset + len(run_path.text)
                self._add(hit, Field.RUN_PATH, Fill.TERMINATE, Force.ALWAYS, hit.offset, end - hit.offset)
            elif hit.offset in loaded and self._ends(hit):
                field, room = loaded[hit.offset]
                self._add(hit, field, Fill.TERMINATE, Force.ALWAYS, hit.offset, room)
            elif hit.offset == 2 and self.head.startswith(b"#!") and self._ends(hit):
                self._add(hit, Field.SHEBANG, Fill.SLASHES, Force.ALWAYS, hit.offset, len(hit.needle))
            else:
                self._string_hit(hit, format, parsed)

    def mach_o(self, hits: Sequence[Hit]) -> None:
        """A Mach-O file is as an ELF file; the hashes in its signature are of its pages."""
        try:
            parsed = macho.parse(self.read_at, self.size)
            signed = codesign.signatures(self.read_at, parsed) if parsed else ()
        except macho.OddMachO as error:
            self.findings.append(Finding(self.path, -1, ODD, str(error)))
            self.refuse(hits, "inside a damaged Mach-O file")
            return
        if not all(each.is_adhoc for each in signed):
            self.refuse(hits, "inside a Mach-O file whose signature only its signer can make anew")
            return
        strings = parsed.strings if parsed else ()
        self.starts = frozenset(s.offset for part in parsed.slices for s in part.sections) if parsed else frozenset()
        for hit in hits:
            command = next((c for c in strings if c.offset <= hit.offset < c.offset + len(c.text)), None)
            if any(each.offset <= hit.offset < each.end for each in signed):
                self.refuse([hit], "inside a code signature")
            elif command is None:
                self._string_hit(hit, Format.MACHO, None)
            elif self._certain(hit, text=False):
                room = command.offset + command.room - 1 - hit.offset  # the last NUL is not the string's
                slot = self.read_at(hit.offset, room)
                self._add(hit, Field.LOAD_COMMAND, Fill.NULS, Force.ALWAYS, hit.offset, room, slot)
        if parsed and signed:
            self._page_hashes(parsed)

    def _page_hashes(self, parsed: macho.MachO) -> None:
        """Record the page hashes that the slots make stale; one that is wrong already stays so."""
        for each in codesign.page_hashes(self.read_at, parsed, [(r.offset, r.end) for r in self.references]):
            archived = self.read_at(each.offset, each.length)
            if each.of(self.read_at(each.start, each.end - each.start)) != archived:
                self.findings.append(Finding(self.path, each.offset, ODD, "a page's hash is not that of the page"))
                continue
            spelling = _PAGE_HASHES[each.kind]
            slot = Reference(each.offset, each.length, b"", Field.PAGE_HASH, spelling, Fill.GROW, Force.NEVER, archived)
            self.references.append(slot._replace(page=(each.start, each.end)))
        self.references.sort(key=lambda reference: reference.offset)

    def _string_hit(self, hit: Hit, format: Format, parsed: Optional[elf.Elf]) -> None:
        if self.literal:
            room = len(self._string(hit.offset))
            self._add(hit, Field.C_STRING, Fill.NULS, Force.ALWAYS, hit.offset, room)
        elif self._certain(hit, text=False):
            force = self._force(hit, format, parsed)
            self._add(hit, Field.C_STRING, Fill.SLASHES, force, hit.offset, len(hit.needle), keep=None)

    def hidden(self, heads: Iterable[bytes], prefixes: Sequence[bytes]) -> None:
        """Report the beginning of a prefix where a compiler may have put a string in pieces.

        That is in machine code, and in data in blocks of 16 bytes: instructions copy such a string from there.
        """
        parsed = self._elf()
        wanted = [prefix for prefix in prefixes if prefix[:INLINED] in heads]
        for section in parsed.sections if parsed else ():
            if section.flags & elf.SHF_EXECINSTR:
                self._pieces_in(section, {prefix[:INLINED]: (prefix, Spelling.PLAIN) for prefix in wanted}, 1, prefixes)
            elif section.flags & elf.SHF_ALLOC:
                blocks = {prefix[:_BLOCK]: (prefix, Spelling.PLAIN) for prefix in wanted if len(prefix) > _BLOCK}
                self._pieces_in(section, blocks, _BLOCK, prefixes)

    def _pieces_in(
        self,
        section: elf.Section,
        wanted: Dict[bytes, Tuple[bytes, Spelling]],
        alignment: int,
        prefixes: Sequence[bytes],
    ) -> None:
        if not wanted or section.end == section.offset:
            return
        steps = range(section.offset, section.end, _PIECE)
        data = (self.read_at(at, min(_PIECE, section.end - at)) for at in steps)
        for hit in match.search(data, wanted):
            at = section.offset + hit.offset
            whole = any(self.read_at(at, len(prefix)) == prefix for prefix in prefixes)
            if not whole and at % alignment == 0:
                detail = f"a piece of a string, with which the prefix begins: {hit.needle!r}"
                self.findings.append(Finding(self.path, at, HIDDEN, detail))

    def byte_code(self, hits: Sequence[Hit]) -> None:
        """Byte code is never rewritten: its strings are counted, and its importer mends the file names."""
        constants: List[bytecode.Constant] = []
        if self.size <= _BYTECODE:
            try:
                holding = sorted(hit.offset for hit in hits)
                constants = list(bytecode.strings(self.read_at(0, self.size), holding))
            except (bytecode.OddBytecode, bytecode.UnknownBytecode) as error:
                self.findings.append(Finding(self.path, -1, ODD, str(error)))
        names: List[Hit] = []
        for hit in hits:
            around = next((c for c in constants if c.offset <= hit.offset < c.offset + c.length), None)
            if around is not None and around.role is bytecode.Role.FILENAME:
                names.append(hit)
            elif around is None or self._certain(_alone(hit, around), text=False):
                self.refuse([hit], "a constant in byte code")
        if names:
            detail = f"{len(names)} names of sources, which Python mends"
            self.findings.append(Finding(self.path, names[0].offset, HARMLESS, detail))

    def refuse(self, hits: Iterable[Hit], why: str) -> None:
        """Nothing can be rewritten there."""
        self.findings += [Finding(self.path, hit.offset, NOT_REWRITABLE, why) for hit in hits]

    def _ends(self, hit: Hit) -> bool:
        return self.literal or match.right_boundary(hit.right)

    def _certain(self, hit: Hit, text: bool) -> bool:
        """Whether the neighbours of a hit let it be a reference; note it where that cannot be told."""
        if self.literal:
            return True
        if hit.offset in self.starts:  # what stands before is of another section
            hit = hit._replace(left=b"")
        if match.is_reference(hit):
            if not is_common(hit.prefix) or self._names_something(hit):
                return True
            detail = "names nothing in the prefix"
            self.findings.append(Finding(self.path, hit.offset, UNCERTAIN, detail))
            return False
        # In text /opt/env2 is another directory; among counted strings it may be this one, and then another string.
        if not text or match.may_end(hit):
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
        self,
        hit: Hit,
        field: Field,
        fill: Fill,
        force: Force,
        offset: int,
        room: int,
        archived: bytes = b"",
        keep: Optional[int] = 0,
    ) -> None:
        text = field is Field.TEXT
        spelling = self._spelling(hit) if text and hit.spelling is Spelling.PLAIN else hit.spelling
        bare = text and spelling is Spelling.PLAIN and quoting.is_bare(hit.left, self.splits)
        self.references.append(
            Reference(offset, room, hit.prefix, field, spelling, fill, force, archived, keep=keep, bare=bare)
        )

    def _spelling(self, hit: Hit) -> Spelling:
        """Tell the syntax in which a prefix stands that is written plainly there."""
        if match.is_url(hit.left) and spelled(hit.prefix, Spelling.URL) == hit.needle:
            return Spelling.URL
        if self.xml and spelled(hit.prefix, Spelling.XML) == hit.needle:
            return Spelling.XML
        if self.activates and quoting.is_unquoted(hit.left) and spelled(hit.prefix, Spelling.SHELL) == hit.needle:
            return Spelling.SHELL
        return Spelling.PLAIN


def _alone(hit: Hit, constant: bytecode.Constant) -> Hit:
    """Give a hit no neighbours but those in its own constant: before it may stand a length, behind it a type."""
    before, behind = hit.offset - constant.offset, constant.offset + constant.length - hit.offset - len(hit.needle)
    return hit._replace(left=hit.left[max(len(hit.left) - before, 0) :], right=hit.right[: max(behind, 0)])


def _loaded(parsed: elf.Elf) -> Dict[int, Tuple[Field, int]]:
    """The strings besides run paths that the loader opens or compares: where each begins, what it is, its length."""
    libraries = (*parsed.needed, *((parsed.soname,) if parsed.soname else ()))
    found = {text.offset: (Field.LOAD_COMMAND, len(text.text)) for text in libraries}
    if parsed.interpreter:
        found[parsed.interpreter.offset] = (Field.INTERPRETER, len(parsed.interpreter.text))
    return found


def _is_listed(hit: Hit, run_path: elf.RunPath) -> bool:
    """Whether a directory of a run path begins with the hit and ends with it, or lies in it."""
    at = hit.offset - run_path.offset
    before, after = run_path.text[:at], run_path.text[at + len(hit.needle) :]
    return (not before or before.endswith(b":")) and match.right_boundary(after[: match.RIGHT])
