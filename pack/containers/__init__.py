"""Find the prefix in what lies inside a container: a zip, a compressed stream, a pickle, an SQLite database.

Nothing there can be rewritten where it is, and a raw search sees nothing of what is compressed. So the
members are unpacked as streams and searched, and each that names the prefix is a line in the report.
``docs/containers.md`` says what is opened, how deep, and what bounds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from installer_stub import match
from installer_stub.classify import Format, classify
from installer_stub.elf import ReadAt
from installer_stub.manifest import encode
from installer_stub.match import Hit
from installer_stub.model import NOT_REWRITABLE, UNCERTAIN, Finding, Spelling
from installer_stub.references import UTF16
from installer_stub.slots import CONTAINERS, is_common
from pack.containers import nested, values
from pack.containers.streams import Budget, Exhausted, Stream, Unreadable, decompressed, span

NOT_SEARCHED = "not searched"

LAYERS = 4  # containers in each other that are opened: a jar in a tar in gzip in a zip
_MOST = 1000  # findings of one file

_COMPRESSED = (Format.GZIP, Format.BZIP2, Format.XZ, Format.ZSTD)
FORMATS = frozenset([Format.ZIP, *_COMPRESSED, Format.SQLITE, Format.PICKLE])  # those that `search` opens


def is_zip_behind(read_at: ReadAt, size: int) -> bool:
    """Whether the file ends as a zip does, whatever it begins with: a shebang, a program, a script."""
    return nested.zip_directory(read_at, size) is not None


def zip_start(read_at: ReadAt, size: int) -> int:
    """Return where the zip in a file begins, behind a shebang or a program: ``size`` if there is none.

    What lies before is nothing that `search` reports.
    """
    directory = nested.zip_directory(read_at, size)
    if directory is None:
        return size
    try:
        offsets = [member.offset for member in nested.zip_members(read_at, directory, 1)]
    except Unreadable:
        offsets = []
    return min(offsets, default=directory.start)


def search(read_at: ReadAt, size: int, path: bytes, format: Format, prefixes: Sequence[bytes]) -> tuple[Finding, ...]:
    """Find what names one of ``prefixes``, longest first, inside a container; nothing for other formats.

    One finding for each member: NOT_REWRITABLE, or UNCERTAIN for a hit in a binary member whose neighbours
    say nothing, with the offset in the file if the bytes stand there as they are, else -1; and NOT_SEARCHED
    for what cannot be opened. Memory is that of a piece and of a decompressor's window. Raises nothing but
    the OSError of ``read_at``.
    """
    found = _Search(read_at, size, path, prefixes)
    try:
        if format is Format.ZIP:
            found.zip_file()
        elif format in _COMPRESSED:
            found.compressed(format)
        elif format is Format.SQLITE:
            found.database()
        elif format is Format.PICKLE:
            found.pickle()
    except Exhausted as end:
        found.findings.append(Finding(path, -1, NOT_SEARCHED, f"the rest of the file: {end}"))
    return tuple(found.findings)


class _Search:
    def __init__(self, read_at: ReadAt, size: int, path: bytes, prefixes: Sequence[bytes]) -> None:
        self.read_at = read_at
        self.size = size
        self.path = path
        self.prefixes = prefixes
        self.needles = match.needles(prefixes)
        self.budget = Budget(size)
        self.findings: list[Finding] = []

    def zip_file(self) -> None:
        """Search the members that the directory lists, and then the bytes that no member searched covers."""
        directory = nested.zip_directory(self.read_at, self.size)
        if directory is None:
            self._unsearched("a zip file", "its directory is missing or damaged")
            self._raw(0, self.size, "a zip file")
            return
        start, covered = directory.start, []
        try:
            for member in nested.zip_members(self.read_at, directory, 1):
                start = min(start, member.offset)
                place = self._zip_member(member)
                if place is not None:
                    covered.append(place)
        except Unreadable as error:
            self._unsearched("a zip file", str(error))
        at = start  # what lies before it is a program or a shebang, and no part of the zip
        for begin, end in sorted(covered):
            self._raw(at, begin, "a zip file, outside of what was searched")
            at = max(at, end)
        self._raw(at, self.size, "a zip file, outside of what was searched")

    def _zip_member(self, member: nested.ZipMember) -> tuple[int, int] | None:
        """Search a member; return where it lies if all of it was searched, or something found."""
        where = f"the member {encode(member.name)} of a zip file"
        place, before = None, len(self.findings)
        try:
            place = nested.zip_place(self.read_at, member, 1)
            source = Stream(span(self.read_at, *place))
            pieces = self.budget.meter(nested.zip_content(source, member, 1))
            self._content(pieces, member.name, where, 1, place)
        except Unreadable as error:
            if not self._hits_since(before):
                place = None
            self._unsearched(where, str(error))
        return place

    def compressed(self, format: Format) -> None:
        """Search a file that is one compressed stream, or several; raw, if that finds damage and nothing else."""
        where = CONTAINERS[format]
        try:
            source = Stream(span(self.read_at, 0, self.size))
            pieces = decompressed(source, format, 1, self.budget)
            self._content(pieces, self.path, where, 1, (0, self.size))
        except Unreadable as error:
            if not self._hits_since(0):
                self._raw(0, self.size, f"{where}, outside of what was searched")
            self._unsearched(where, str(error))

    def pickle(self) -> None:
        """Search a pickle: its strings are counted, so what stands beside them are not their neighbours."""
        hits = match.search(span(self.read_at, 0, self.size), self.needles)
        for opcode, group in groupby(values.pickled(hits, self.read_at, self.size), lambda pair: pair[0]):
            tally = _Tally()
            for _, hit in group:
                tally.note(hit)
            where = f"the opcode {opcode.name} at byte {opcode.start} of a pickle" if opcode else "a pickle"
            self._report(tally, opcode is not None, where)

    def database(self) -> None:
        """Search a database: one finding for each table that names a prefix."""
        spelling = values.encoding(self.read_at)
        table = match.needles(self.prefixes, spelling)
        tallies: dict[str, _Tally] = {}
        hits = match.search(span(self.read_at, 0, self.size), table)
        for name, hit in values.stored(hits, self.read_at, self.size):
            tallies.setdefault(name, _Tally()).note(hit, aligned=False)
        for name, tally in tallies.items():
            where = f"the table {name} of an SQLite database" if name else "an SQLite database"
            self._report(tally, False, where)

    def _content(
        self, pieces: Iterator[bytes], name: bytes, where: str, layer: int, place: tuple[int, int] | None = None
    ) -> None:
        """Search what a member or a stream holds, or open it if that is a container.

        ``place`` is where its bytes lie in the file, packed or not. Raises `Unreadable` for ``layer``.
        """
        source = Stream(pieces)
        head = source.peek(512)
        format = classify(head, name)
        inner = self._opener(source, format, head, where, layer + 1)
        if inner is None:
            self._plain(source, UTF16.get(format, Spelling.PLAIN), where, place)
            return
        if layer >= LAYERS:
            self._unsearched(where, f"it is a container inside {layer} others")
        else:
            try:
                inner()
            except Unreadable as error:
                if error.layer <= layer:
                    raise
                self._unsearched(where, str(error))
        for _ in source.rest():  # so that whoever gave the pieces goes on behind them
            pass

    def _opener(self, source: Stream, format: Format, head: bytes, where: str, layer: int) -> Callable[[], None] | None:
        """Return what searches the container in ``source``, or None if there is none."""
        if format is Format.ZIP:
            return lambda: self._streamed_zip(source, where, layer)
        if format in _COMPRESSED:
            inside = f"{CONTAINERS[format]} in {where}"
            return lambda: self._content(decompressed(source, format, layer, self.budget), b"", inside, layer)
        if nested.is_tar(head):
            return lambda: self._tar(source, where, layer)
        return None

    def _streamed_zip(self, source: Stream, where: str, layer: int) -> None:
        for member, pieces in nested.streamed_zip(source, layer):
            inside = f"the member {encode(member.name)} of a zip file in {where}"
            try:
                self._content(self.budget.meter(pieces), member.name, inside, layer)
            except Unreadable as error:
                if error.layer < layer:
                    raise
                self._unsearched(inside, str(error))

    def _tar(self, source: Stream, where: str, layer: int) -> None:
        for member, pieces in nested.tar_members(source, layer):
            self.budget.spend()
            inside = f"the member {encode(member.name)} of a tar archive in {where}"
            for text, of in ((member.name, "name"), (member.link, "link target")):
                self._plain(Stream(iter([text])), Spelling.PLAIN, f"the {of} of {inside}", None)
            self._content(pieces, member.name, inside, layer)

    def _plain(self, source: Stream, utf16: Spelling, where: str, place: tuple[int, int] | None) -> None:
        tally, seen = _Tally(), _Seen()
        table = self.needles if utf16 is Spelling.PLAIN else match.needles(self.prefixes, utf16)
        for hit in match.search(seen.watched(source.rest()), table):
            tally.note(hit)
        text = not seen.nul or utf16 is not Spelling.PLAIN
        verdict = tally.verdict(text)
        if verdict is not None:
            self._report(tally, text, where, self._offset(verdict[1], place, table) if place else -1)
        if seen.error:
            raise seen.error

    def _offset(self, at: int, place: tuple[int, int], table: Mapping[bytes, tuple[bytes, Spelling]]) -> int:
        """Return where a hit at ``at`` in a content is in the file: it may be stored, or in a stored block."""
        start = place[0]
        if any(self.read_at(start + at, len(needle)) == needle for needle in table):
            return start + at
        raw = match.search(span(self.read_at, *place), table)
        return next((start + hit.offset for hit in raw if match.right_boundary(hit.right)), -1)

    def _raw(self, start: int, end: int, where: str) -> None:
        tally = _Tally(start)
        for hit in match.search(span(self.read_at, start, end), self.needles):
            tally.note(hit)
        self._report(tally, False, where)

    def _report(self, tally: _Tally, text: bool, where: str, offset: int | None = None) -> None:
        """Note a verdict. ``offset`` is where it is in the file, if that is not the place in ``where``."""
        verdict = tally.verdict(text)
        if verdict is not None:
            what, at, more = verdict
            others = f", and {more} more" if more else ""
            detail = f"in {where}, at byte {at}{others}"
            self._found(Finding(self.path, at if offset is None else offset, what, detail))

    def _hits_since(self, number: int) -> bool:
        return any(finding.what != NOT_SEARCHED for finding in self.findings[number:])

    def _unsearched(self, where: str, why: str) -> None:
        self._found(Finding(self.path, -1, NOT_SEARCHED, f"{where}: {why}"))

    def _found(self, finding: Finding) -> None:
        if len(self.findings) >= _MOST:
            raise Exhausted(f"more than {_MOST} of its members are to be listed")
        self.findings.append(finding)


class _Tally:
    """The hits of one member, by what their neighbours say (as in ``references``). ``base`` is added to offsets."""

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.certain: list[int] = []  # the first offset, and how many
        self.doubtful: list[int] = []
        self.longer: list[int] = []  # a longer name: in text another directory, elsewhere perhaps another string

    def note(self, hit: Hit, aligned: bool = True) -> None:
        """Count a hit. UTF-16 that is not ``aligned`` may begin at an odd offset."""
        if match.is_reference(hit if aligned else hit._replace(offset=0)):
            kind = self.doubtful if is_common(hit.prefix) else self.certain
        else:
            kind = self.doubtful if match.may_end(hit) else self.longer
        if kind:
            kind[1] += 1
        else:
            kind += [self.base + hit.offset, 1]

    def verdict(self, text: bool) -> tuple[str, int, int] | None:
        """Return what is to be said, of which offset, and of how many hits more; None if of none."""
        if self.certain:
            return NOT_REWRITABLE, self.certain[0], self.certain[1] - 1
        kinds = [kind for kind in (self.doubtful, [] if text else self.longer) if kind]
        if not kinds:
            return None
        return UNCERTAIN, min(kind[0] for kind in kinds), sum(kind[1] for kind in kinds) - 1


class _Seen:
    """Whether a NUL went by, and what ended the pieces before their time."""

    def __init__(self) -> None:
        self.nul = False
        self.error: Unreadable | Exhausted | None = None

    def watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                self.nul = self.nul or b"\0" in piece
                yield piece
        except (Unreadable, Exhausted) as error:
            self.error = error  # raised again when what came before it was searched
