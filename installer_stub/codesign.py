"""Read the code signature of a Mach-O file: which hash, at which offset, is of which bytes of the file.

A signature holds one or more *code directories*, each a table with one hash for each page of the code, and
perhaps a CMS message that signs them. Without that message the signature is *ad hoc*: whoever changes a page
can write its hash anew, and the signature holds. Everything in it is big-endian, whatever the file is. The
formats are those of <kern/cs_blobs.h>.
"""

from __future__ import annotations

import hashlib
import struct
from enum import Enum
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from installer_stub.errors import PackError
from installer_stub.macho import MachO, OddMachO, ReadAt, Slice

_BLOB = struct.Struct(">2I")  # magic, length; in the index of the signature: kind, offset
_SUPER_BLOB, _CODE_DIRECTORY, _CMS = 0xFADE0CC0, 0xFADE0C02, 0xFADE0B01
_CMS_SLOT = 0x10000

# Magic, length, version, flags, offsets of hashes and identifier, numbers of special and code slots, limit of
# the code; size and kind of a hash, platform, binary logarithm of a page.
_DIRECTORY = struct.Struct(">9I4B")
_WITH_SCATTER, _WITH_LIMIT_64 = 0x20100, 0x20300  # versions
_SCATTER_AT, _LIMIT_64_AT = 44, 56
_SCATTER = struct.Struct(">2I2Q")  # pages, number of the first of them, an offset that nobody reads, spare
_FLAG_ADHOC, _FLAG_LINKER_SIGNED = 0x2, 0x20000
_INFO_PLIST_SLOT = 1

# More than real signatures have, and little enough to hold whatever a file claims.
_MAX_BLOBS = 16
_MAX_SCATTERS = 64
_MAX_INFO_PLIST = 1 << 20
_MAX_HASHES = 1 << 18  # asked for at once


class HashKind(Enum):
    """What a hash is computed with, by hashlib's name. A SHA-256 of 20 bytes is a truncated one."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"


_KINDS = {1: (HashKind.SHA1, 20), 2: (HashKind.SHA256, 32), 3: (HashKind.SHA256, 20), 4: (HashKind.SHA384, 48)}


class SignatureTouched(PackError, ValueError):
    """Bytes of a code signature itself were to be changed, at ``offset``."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the bytes at {offset} are part of the code signature, and cannot be changed in it")
        self.offset = offset


class PageHash(NamedTuple):
    """A hash in a code signature: ``length`` bytes at ``offset``, of the bytes ``[start, end)`` of the file."""

    offset: int
    length: int
    kind: HashKind
    start: int
    end: int

    def of(self, page: Union[bytes, bytearray]) -> bytes:
        """Compute the hash of a page's bytes."""
        return hashlib.new(self.kind.value, page).digest()[: self.length]


class CodeDirectory(NamedTuple):
    """A table of hashes. ``runs`` are of pages that lie side by side: (begin, end, offset of the first hash)."""

    kind: HashKind
    length: int  # of a hash
    page: int  # bytes of a page; 0: each run is one
    flags: int
    runs: Tuple[Tuple[int, int, int], ...]
    info_plist: Optional[int]  # the offset of the hash of the file's or the bundle's Info.plist

    def hashes(self, start: int, end: int) -> Iterator[PageHash]:
        """Yield the hashes of all pages that share a byte with ``[start, end)``, by page."""
        for first, limit, at in self.runs:
            begin = max(start, first)
            page = self.page or limit - first
            while begin < min(end, limit):
                number = (begin - first) // page
                page_end = min(first + (number + 1) * page, limit)
                yield PageHash(at + number * self.length, self.length, self.kind, first + number * page, page_end)
                begin = page_end


class Signature(NamedTuple):
    """The code signature of one slice: ``[offset, end)`` of the file."""

    offset: int
    end: int
    has_cms: bool
    directories: Tuple[CodeDirectory, ...]

    @property
    def is_adhoc(self) -> bool:
        """Whether nothing signs the hashes, so that they may be written anew.

        The message decides, not the flag: it signs the code directories even where they say that none does.
        """
        return not self.has_cms

    @property
    def says_adhoc(self) -> bool:
        """Whether every code directory has the flag for ad hoc."""
        return all(directory.flags & _FLAG_ADHOC for directory in self.directories)

    @property
    def is_linker_signed(self) -> bool:
        """Whether the linker made it, so that other tools replace it without being asked."""
        return any(directory.flags & _FLAG_LINKER_SIGNED for directory in self.directories)

    def hashes(self) -> Iterator[PageHash]:
        """Yield the hashes of all pages, directory by directory."""
        for directory in self.directories:
            for start, end, _ in directory.runs:
                yield from directory.hashes(start, end)


def signatures(read_at: ReadAt, macho: MachO) -> Tuple[Signature, ...]:
    """Read the signatures of all slices that have one. Raises OddMachO for a damaged one."""
    return tuple(_signature(_Blob(read_at, *s.signature), s) for s in macho.slices if s.signature)


def page_hashes(read_at: ReadAt, macho: MachO, touched: Sequence[Tuple[int, int]]) -> List[PageHash]:
    """List the hashes that no longer hold once the bytes of ``touched``, (begin, end) each, are changed.

    By offset, each once. Every hash lies behind the bytes that it is of. Where a signature is not ad hoc the
    hashes can be written anew and the message that signs them cannot: ask for `signatures` first. Raises
    OddMachO for a damaged signature, SignatureTouched where a range shares a byte with one.
    """
    found: Dict[int, PageHash] = {}
    for part in macho.slices:
        inside = [(a, b) for a, b in touched if a < part.end and b > part.offset]
        if not part.signature or not inside:
            continue
        signature = _signature(_Blob(read_at, *part.signature), part)
        for start, end in inside:
            if start < signature.end and end > signature.offset:
                raise SignatureTouched(max(start, signature.offset))
            for directory in signature.directories:
                for each in (*directory.hashes(start, end), *_info_plist(read_at, part, directory, start, end)):
                    found[each.offset] = each
                    if len(found) > _MAX_HASHES:
                        raise OddMachO(signature.offset, f"more than {_MAX_HASHES} hashes are of the same bytes")
    return [found[offset] for offset in sorted(found)]


class _Blob:
    """A piece of a file that says itself how long it is."""

    def __init__(self, read_at: ReadAt, offset: int, size: int) -> None:
        self.read_at, self.offset, self.size = read_at, offset, size

    def odd(self, what: str) -> OddMachO:
        return OddMachO(self.offset, f"in the code signature, {what}")

    def read(self, at: int, length: int) -> bytes:
        if at + length > self.size:
            raise self.odd(f"{length} bytes at {at} are more than the {self.size} that are there")
        data = self.read_at(self.offset + at, length)
        if len(data) != length:
            raise self.odd(f"{length} bytes at {at} could not be read")
        return data

    def inner(self, at: int, least: int) -> Tuple[int, _Blob]:
        """Return the magic of the blob that begins at `at`, and the blob."""
        magic, length = _BLOB.unpack(self.read(at, _BLOB.size))
        if not least <= length <= self.size - at:
            raise self.odd(f"a part at {at} has {length} bytes")
        return magic, _Blob(self.read_at, self.offset + at, length)


def _signature(whole: _Blob, part: Slice) -> Signature:
    magic, blob = whole.inner(0, _BLOB.size + 4)
    if magic != _SUPER_BLOB:
        raise whole.odd(f"the magic number is {magic:#x}")
    count = int.from_bytes(blob.read(8, 4), "big")
    if count > _MAX_BLOBS:
        raise whole.odd(f"there are {count} parts")
    directories: Dict[int, CodeDirectory] = {}
    has_cms = False
    for kind, at in _BLOB.iter_unpack(blob.read(12, count * _BLOB.size)):
        magic, inner = blob.inner(at, _BLOB.size)
        if magic == _CODE_DIRECTORY:
            directories[at] = _directory(inner, part, whole.offset)
        elif magic == _CMS or kind == _CMS_SLOT:
            has_cms = has_cms or inner.size > _BLOB.size
    if not directories:
        raise whole.odd("there is no code directory")
    return Signature(whole.offset, whole.offset + whole.size, has_cms, tuple(directories.values()))


def _directory(blob: _Blob, part: Slice, signature_at: int) -> CodeDirectory:
    fields = _DIRECTORY.unpack(blob.read(0, _DIRECTORY.size))
    _, _, version, flags, hashes_at, _, special, count, limit, length, kind, _, page_bits = fields
    if _KINDS.get(kind, (None, 0))[1] != length:
        raise blob.odd(f"hashes of kind {kind} have {length} bytes")
    if page_bits > 32:
        raise blob.odd(f"a page has 2**{page_bits} bytes")
    if version >= _WITH_LIMIT_64:
        limit = int.from_bytes(blob.read(_LIMIT_64_AT, 8), "big") or limit
    if special * length > hashes_at or hashes_at + count * length > blob.size:
        raise blob.odd(f"{special} and {count} hashes at {hashes_at} do not fit")
    if part.offset + limit > signature_at:  # a hash of itself, or of what comes after it
        raise blob.odd(f"the code has {limit} bytes, and reaches into the signature")
    page = 1 << page_bits if page_bits else 0
    scattered = _scatters(blob, version)
    runs = []
    slot = 0
    for pages, first in scattered or [(count, 0)]:
        begin = first * page
        end = min(begin + pages * page, limit) if page else limit
        # One hash for each page: the kernel kills whoever touches a page that has none.
        if begin > end or pages != (-(-(end - begin) // page) if page else int(end > 0)) or (scattered and not page):
            raise blob.odd(f"{pages} hashes are of the code from {begin} to {end}")
        runs.append((part.offset + begin, part.offset + end, blob.offset + hashes_at + slot * length))
        slot += pages
    if slot != count or not (scattered or end == limit):
        raise blob.odd(f"{count} hashes are of {limit} bytes of code")
    plist = blob.offset + hashes_at - _INFO_PLIST_SLOT * length if special >= _INFO_PLIST_SLOT else None
    return CodeDirectory(_KINDS[kind][0], length, page, flags, tuple(runs), plist)


def _scatters(blob: _Blob, version: int) -> List[Tuple[int, int]]:
    """Return (number of pages, number of the first) for each run of pages, if the code is scattered."""
    at = int.from_bytes(blob.read(_SCATTER_AT, 4), "big") if version >= _WITH_SCATTER else 0
    found: List[Tuple[int, int]] = []
    while at:
        pages, first, _, _ = _SCATTER.unpack(blob.read(at, _SCATTER.size))
        if not pages:
            break
        if (found and first < sum(found[-1])) or len(found) == _MAX_SCATTERS:
            raise blob.odd("the runs of pages overlap, or are too many")
        found.append((pages, first))
        at += _SCATTER.size
    return found


def _info_plist(read_at: ReadAt, part: Slice, directory: CodeDirectory, start: int, end: int) -> Iterator[PageHash]:
    """Yield the hash of the Info.plist that is a section of the file, if ``[start, end)`` touches it.

    Of a bundle's main program the hash is that of a file beside it: then it is not the section's, and is left.
    """
    for section in part.sections:
        if (section.segment, section.name) != (b"__TEXT", b"__info_plist") or directory.info_plist is None:
            continue
        if start < section.end and end > section.offset and section.size <= _MAX_INFO_PLIST:
            found = PageHash(directory.info_plist, directory.length, directory.kind, section.offset, section.end)
            if found.of(read_at(section.offset, section.size)) == read_at(found.offset, found.length):
                yield found
