"""Bytes to bytes: how the slots of a file are written for a target, and how that is undone.

A *form* is a way in which a tree may stand on disk: as archived, or relocated to a prefix. A *region*
is a run of bytes that is rewritten as one: a string with all of its references, a first line, a digest,
or one name of the prefix in a text. Regions keep their order and never overlap, so a file goes from one
form to another in one pass: undo each region to its archived bytes, then write it anew.
"""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64encode
from typing import Callable, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from installer_stub import shebang
from installer_stub.model import Field, Fill, Force, Reference, Spelling
from installer_stub.spelling import Unspellable, spelled

_PIECE = 1 << 20
_HASHES = {Spelling.SHA1: hashlib.sha1, Spelling.SHA256: hashlib.sha256, Spelling.SHA384: hashlib.sha384}


class Digest(NamedTuple):
    """A file's SHA-256 in hexadecimal digits, and its size in bytes."""

    sha256: str
    size: int


class Form(NamedTuple):
    """A way in which a tree may stand on disk: ``prefix`` is None for the tree as archived.

    ``digests`` are those of the files as they are in this form, by path.
    """

    prefix: Optional[bytes]
    digests: Mapping[bytes, Digest] = {}


class Region(NamedTuple):
    """References that are rewritten together, and the archived bytes ``[start, end)`` that they fill."""

    start: int
    end: int
    references: Tuple[Reference, ...]

    @property
    def keep(self) -> int:
        """Count the bytes at the end that another string is known to share."""
        return max(reference.keep or 0 for reference in self.references)


class Misfit(ValueError):
    """A region cannot be written for a form. ``need`` and ``room`` are bytes, or 0 where it is not length."""

    def __init__(self, reason: str, need: int = 0, room: int = 0) -> None:
        super().__init__(reason)
        self.need = need
        self.room = room


class Unlike(ValueError):
    """The bytes on disk are not those of the form."""


def regions(references: Iterable[Reference]) -> List[Region]:
    """Group references, given by offset, into regions: those of one NUL-terminated string share its end."""
    grouped: List[Region] = []
    for reference in references:
        last = grouped[-1] if grouped else None
        if last is not None and reference.offset < last.end:
            grouped[-1] = Region(last.start, last.end, (*last.references, reference))
        else:
            grouped.append(Region(reference.offset, reference.end, (reference,)))
    return grouped


def slashes(prefix: bytes, room: int) -> bytes:
    """Lengthen ``prefix`` to ``room`` bytes without changing what it names: ``/x/env`` -> ``/x///env``.

    The slashes go before the last component, which the linker may have shared with another string. They
    never go in front, where ``//x`` is not ``/x`` in POSIX: a prefix at the root takes ``/./``.
    Raises Misfit where the prefix is longer, or stands at the root and one byte is left over.
    """
    gap = room - len(prefix)
    if gap < 0:
        raise Misfit("too long", need=len(prefix), room=room)
    if gap == 0:
        return prefix
    parent, _, name = prefix.rpartition(b"/")
    if parent:
        return parent + b"/" * (gap + 1) + name
    if gap == 1:
        raise Misfit("one byte is left over, and a directory at the root has no place for it")
    return b"/." + b"/" * (gap - 1) + name


def write(region: Region, archived: bytes, form: Form) -> bytes:
    """Write the archived bytes of a region in ``form``.

    Raises Misfit where that cannot be done and the region is always in force. Any other keeps its archived
    bytes there: the target was accepted without it.
    """
    try:
        return _written(region, archived, form)
    except Misfit:
        if region.references[0].force is Force.ALWAYS:
            raise
        return archived


def _written(region: Region, archived: bytes, form: Form) -> bytes:
    first = region.references[0]
    if form.prefix is None or first.fill is Fill.KEEP:
        return archived
    if first.field is Field.DIGEST:
        return _digest(first, form)
    if first.field is Field.SHEBANG and first.fill is Fill.GROW:
        try:
            return shebang.written(archived, first.prefix, form.prefix)
        except shebang.Unwritable as error:
            raise Misfit(str(error)) from error
    if first.fill is Fill.GROW:
        return _spelled(form.prefix, first.spelling)
    if _by_slashes(region, form.prefix):
        string = _join(region, archived, [_lengthened(form.prefix, r) for r in region.references])
    else:
        string = _terminated(region, archived, form.prefix)
    if string[len(string) - region.keep :] != archived[len(archived) - region.keep :]:
        name = first.prefix.rpartition(b"/")[2]
        other = f"another string begins in it, {region.keep} bytes before its end, and would change"
        raise Misfit(f"{other}, but at a directory named {os.fsdecode(name)!r}" if region.keep <= len(name) else other)
    return string


def _by_slashes(region: Region, prefix: bytes) -> bool:
    """Whether a string keeps its length; one that could end earlier does so where that spares a shared end."""
    first = region.references[0]
    if first.fill is not Fill.TERMINATE or not region.keep:
        return first.fill is Fill.SLASHES
    longer = sum(len(_spelled(prefix, r.spelling)) - len(spelled(r.prefix, r.spelling)) for r in region.references)
    return longer + 1 + region.keep > 0


def _terminated(region: Region, archived: bytes, prefix: bytes) -> bytes:
    """Write a string that may end before its slot does."""
    first = region.references[0]
    names = [_spelled(prefix, r.spelling) for r in region.references]
    string = _join(region, archived, names)
    if first.fill is Fill.NULS:
        string = string.rstrip(b"\0")  # a load command is padded with them
    excess = len(string) - len(archived)
    if excess > 0:
        raise Misfit("too long", need=len(names[0]), room=len(names[0]) + -excess // len(names))
    if first.fill is Fill.NULS:
        return string.ljust(len(archived), b"\0")
    if len(string) == len(archived):
        return string
    return string + b"\0" + archived[len(string) + 1 :]


def undo(region: Region, current: bytes, form: Form) -> bytes:
    """Give the archived bytes of a region back from its bytes in ``form``.

    Raises Unlike where the bytes cannot be those of that form. The file's hash has the last word.
    """
    first = region.references[0]
    if first.fill is Fill.KEEP:
        return current
    if form.prefix is None:
        _require_recorded(region, current)
        return current
    if first.field is Field.PAGE_HASH:
        return first.archived
    if first.field is Field.DIGEST or (first.field is Field.SHEBANG and first.fill is Fill.GROW):
        archived = first.archived
    elif first.fill is Fill.GROW:
        archived = _spelled(first.prefix, first.spelling)
    elif first.force is not Force.ALWAYS and misfit(region, form) is not None:
        archived = current
    else:
        archived = _undo_string(region, current, form.prefix)
    try:
        expected = write(region, archived, form)
    except Misfit as error:
        raise Unlike(str(error)) from error
    if expected != current:
        raise Unlike(f"{current[:80]!r} is not {expected[:80]!r}")
    return archived


def _require_recorded(region: Region, archived: bytes) -> None:
    """Hold the archived bytes of a region against its references: a hash tells nothing of where the slots are."""
    for reference in region.references:
        recorded = reference.archived or spelled(reference.prefix, reference.spelling)
        if not archived.startswith(recorded, reference.offset - region.start):
            raise Unlike(f"the manifest names {recorded[:80]!r} at byte {reference.offset}, and it is not there")


def _undo_string(region: Region, current: bytes, prefix: bytes) -> bytes:
    """Put the archived prefixes back: the literal text between them has the same length in every form."""
    out: List[bytes] = []
    at = 0
    by_slashes = _by_slashes(region, prefix)
    ends = [r.offset for r in region.references[1:]] + [region.end]
    for reference, end in zip(region.references, ends):
        old = spelled(reference.prefix, reference.spelling)
        if by_slashes:
            at += len(old)
        else:
            at += len(_spelled(prefix, reference.spelling))
        literal = end - reference.offset - len(old)
        out += [old, current[at : at + literal]]
        at += literal
    archived = b"".join(out)
    if region.references[0].fill is Fill.NULS:
        archived = archived.ljust(region.end - region.start, b"\0")
    if len(archived) != region.end - region.start:
        raise Unlike("the string is cut short")
    return archived


def length(region: Region, form: Form) -> int:
    """Count the bytes of a region in ``form`` without its content. Raises Misfit as ``write`` does."""
    first = region.references[0]
    if form.prefix is None or first.fill is not Fill.GROW or first.field is Field.PAGE_HASH:
        return region.end - region.start
    return len(write(region, first.archived, form))


class Transformed(NamedTuple):
    """What became of a file: the digest of its bytes as archived, and whether both forms have the same bytes."""

    archived: Digest
    same: bool


def transform(
    read: Callable[[int], bytes],
    emit: Callable[[bytes], object],
    parts: Sequence[Region],
    old: Form,
    new: Form,
    hashed: bool = True,
) -> Transformed:
    """Copy a file from one form to another. Unless it is ``hashed``, its digest has a size only.

    ``read(n)`` gives the next bytes, fewer than ``n`` only at the end. Memory is that of the longest
    region. Raises Unlike where a slot does not hold what ``old`` says, Misfit where ``new`` has no room.
    """
    hasher = hashlib.sha256() if hashed else None
    size = 0
    same = True
    at = 0  # in the archived file
    before, after = _Pages(parts), _Pages(parts)

    def plain(count: int) -> None:
        done = 0
        while done < count:
            piece = read(min(count - done, _PIECE))
            if not piece:
                raise Unlike("the file is too short")
            if hasher is not None:
                hasher.update(piece)
            before.update(at + done, piece)
            after.update(at + done, piece)
            emit(piece)
            done += len(piece)

    for part in parts:
        plain(part.start - at)
        try:
            wanted = length(part, old)
        except Misfit as error:
            raise Unlike(str(error)) from error
        current = read(wanted)
        archived = undo(part, current, old)
        if hasher is not None:
            hasher.update(archived)
        if part.references[0].field is Field.PAGE_HASH:
            if current != before.digest(part.references[0]):
                raise Unlike("a page hash is not that of its page")
            written = after.digest(part.references[0])
        else:
            written = write(part, archived, new)
        before.update(part.start, current)
        after.update(part.start, written)
        emit(written)
        same = same and written == current
        size += part.end - at
        at = part.end
    while True:
        piece = read(_PIECE)
        if not piece:
            break
        if hasher is not None:
            hasher.update(piece)
        emit(piece)
        size += len(piece)
    return Transformed(Digest(hasher.hexdigest() if hasher is not None else "", size), same)


class _Pages:
    """The pages that a code signature holds the hashes of, hashed as they pass: they stand before it."""

    def __init__(self, parts: Sequence[Region]) -> None:
        self._pages = [
            (*r.page, _HASHES[r.spelling](), r.offset)
            for part in parts
            for r in part.references
            if r.field is Field.PAGE_HASH
        ]

    def update(self, at: int, piece: bytes) -> None:
        """Take the bytes at ``at``: a file with a code signature has one length in every form."""
        for start, end, hasher, _ in self._pages:
            if start < at + len(piece) and at < end:
                hasher.update(piece[max(start - at, 0) : end - at])

    def digest(self, reference: Reference) -> bytes:
        """Return the hash that belongs into a slot."""
        hasher = next(hasher for _, _, hasher, offset in self._pages if offset == reference.offset)
        return hasher.digest()[: reference.room]


def misfit(region: Region, form: Form) -> Optional[Misfit]:
    """Say why a region cannot be written for a form, if so, without its content."""
    archived = region.references[0].archived or _template(region)
    try:
        _written(region, archived, form)
    except Misfit as error:
        return error
    return None


def _template(region: Region) -> bytes:
    """Make up a region's bytes: the literal text around prefixes has the same length in every form, so any will do."""
    out = bytearray(b"\1" * (region.end - region.start))
    for reference in region.references:
        at = reference.offset - region.start
        old = spelled(reference.prefix, reference.spelling)
        out[at : at + len(old)] = old
    return bytes(out)


def _join(region: Region, archived: bytes, names: Sequence[bytes]) -> bytes:
    out: List[bytes] = []
    ends = [r.offset for r in region.references[1:]] + [region.end]
    for reference, name, end in zip(region.references, names, ends):
        old = len(spelled(reference.prefix, reference.spelling))
        out += [name, archived[reference.offset - region.start + old : end - region.start]]
    return b"".join(out)


def _lengthened(prefix: bytes, reference: Reference) -> bytes:
    room = len(spelled(reference.prefix, reference.spelling))
    if reference.spelling is Spelling.PLAIN:
        return slashes(prefix, room)
    written = _spelled(prefix, reference.spelling)
    if len(written) != room:
        raise Misfit(f"a {reference.spelling.value} spelling cannot be lengthened", len(written), room)
    return written


def _spelled(prefix: bytes, spelling: Spelling) -> bytes:
    try:
        return spelled(prefix, spelling)
    except Unspellable as error:
        raise Misfit(str(error)) from error


def _digest(reference: Reference, form: Form) -> bytes:
    digest = form.digests.get(reference.of)
    if digest is None:
        return reference.archived
    return digest_spelled(digest, reference.spelling)


def digest_spelled(digest: Digest, spelling: Spelling) -> bytes:
    """Write a digest as hexadecimal digits, or as a row of a wheel's RECORD has it."""
    if spelling is Spelling.HEX:
        return digest.sha256.encode()
    encoded = urlsafe_b64encode(bytes.fromhex(digest.sha256)).rstrip(b"=")
    return b"sha256=" + encoded + b"," + str(digest.size).encode()
