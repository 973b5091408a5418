"""The two files that tell what an archive holds, read and written strictly.

``references.json`` is all that relocation reads; ``files.json`` is the full list with hashes. Both are
JSON with one fact a line, so that two of them can be compared by eye. Paths are UTF-8 with ``%`` and every
other byte percent-encoded. Enums are written by name.
"""

from __future__ import annotations

import io
import json
import re
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, Callable, Dict, Iterator, List, Match, Sequence, Tuple, TypeVar

from installer_stub.activation import STEM, STEM_BESIDE
from installer_stub.errors import ManifestError
from installer_stub.match import is_relative
from installer_stub.model import (
    Entry,
    Field,
    Fill,
    Finding,
    Force,
    Kind,
    Listing,
    Manifest,
    Reference,
    Relocatable,
    Spelling,
    Standing,
)
from installer_stub.spelling import spelled

FORMAT = 1
DIRECTORY = b".pack"
REFERENCES = DIRECTORY + b"/references.json"
FILES = DIRECTORY + b"/files.json"
INSTALLING = b".installing"  # at the root, while an installation there is not complete

_T = TypeVar("_T")
_ROWS = 1000  # of a table that are written at once: all of them are as large as the document
_MAX_ROOM = 1 << 20  # a run path can be as long; a slot is held in memory
_PAGE_HASHES = (Spelling.SHA1, Spelling.SHA256, Spelling.SHA384)
_ESCAPED = re.compile("[%\x00-\x1f\x7f\udc80-\udcff]")
_PLAIN = re.compile(rb"[ !#$&-[\]-~]*\Z")  # of which neither ``encode`` nor JSON escapes anything
_HASH = re.compile(r"[0-9a-f]{64}\Z")


def encode(path: bytes) -> str:
    """Write bytes as text: UTF-8 stays, ``%``, control characters and other bytes become ``%XX``."""
    text = path.decode("utf-8", "surrogateescape")
    return _ESCAPED.sub(_escape, text) if _ESCAPED.search(text) else text


def _escape(found: Match[str]) -> str:
    code = ord(found.group())
    return f"%{code - 0xDC00 if code >= 0xDC80 else code:02X}"


def decode(text: str) -> bytes:
    """Read back what ``encode`` wrote."""
    if "%" not in text:
        return text.encode()
    return re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m.group(1), 16)]), text.encode())


def is_ours(path: bytes, manifest: Manifest) -> bool:
    """Whether packing or installing put a path into an unpacked tree: it is no part of the environment."""
    return path in (DIRECTORY, INSTALLING) or path in manifest.added


def dump(manifest: Manifest) -> bytes:
    """Write ``references.json``."""
    head = {
        "format": FORMAT,
        "prefixes": [encode(prefix) for prefix in manifest.prefixes],
        "added": [encode(path) for path in manifest.added],
        "stem": manifest.stem,
    }
    rows = (_json(_row(file, manifest.prefixes)) for file in manifest.files)
    return _document(head, {"files": rows})


def load(data: bytes) -> Manifest:
    """Read ``references.json``. Raises ManifestError for anything that ``dump`` does not write."""

    def build(document: Dict[str, Any]) -> Manifest:
        prefixes = tuple(_named(text) for text in document["prefixes"])
        if document["stem"] not in (STEM, STEM_BESIDE):
            raise ValueError(f"{document['stem']!r} is no name of an activation script")
        return Manifest(
            prefixes,
            tuple(_file(row, prefixes) for row in document["files"]),
            tuple(_path(text) for text in document["added"]),
            document["stem"],
        )

    return _strictly(REFERENCES, data, build)


def dump_listing(listing: Listing) -> bytes:
    """Write ``files.json``."""
    # Written by hand: the encoder of the standard library takes three times as long, and there are 80,000.
    kinds = {kind: f'"{kind.name}"' for kind in Kind}
    standings = {standing: f'"{standing.name}"' for standing in Standing}
    packages = {entry.package: encode_basestring(entry.package) for entry in listing.entries}
    entries = (
        f"[{_quoted(path)},{kinds[kind]},{mode},{size},{mtime},{_quoted(target)},"
        f'"{sha256}",{standings[standing]},{packages[package]}]'
        for path, kind, mode, size, mtime, target, sha256, standing, package in listing.entries
    )
    findings = (_json([encode(f.path), f.offset, f.what, f.detail]) for f in listing.findings)
    return _document({"format": FORMAT}, {"entries": entries, "findings": findings})


def load_listing(data: bytes) -> Listing:
    """Read ``files.json``. Raises ManifestError for anything that ``dump_listing`` does not write."""

    def build(document: Dict[str, Any]) -> Listing:
        # By columns: row by row it takes three times as long, and there are 80,000.
        rows = document["entries"]
        if set(map(len, rows)) - {len(Entry._fields)}:
            raise ValueError(f"an entry has not {len(Entry._fields)} columns")
        columns = list(zip(*rows)) or [()] * len(Entry._fields)
        texts, kinds, modes, sizes, mtimes, targets, hashes, standings, packages = columns
        paths = _paths(texts)
        hard_link = Kind.HARD_LINK.name
        _paths([target for kind, target in zip(kinds, targets) if kind == hard_link])
        for numbers in (modes, sizes):
            _require(int, numbers, count)
            if min(numbers, default=0) < 0:
                raise ValueError(f"{min(numbers)} is not a count")
        _require(int, mtimes, _number)
        _require(str, packages, _text)
        if set(map(len, hashes)) - {0, 64} or "".join(hashes).strip("0123456789abcdef"):
            list(map(sha256_of, filter(None, hashes)))
        entries = zip(
            paths,
            map(Kind.__members__.__getitem__, kinds),
            modes,
            sizes,
            mtimes,
            map(decode, targets),
            hashes,
            map(Standing.__members__.__getitem__, standings),
            packages,
        )
        findings = tuple(
            Finding(decode(path), _number(offset), _text(what), _text(detail))
            for path, offset, what, detail in document["findings"]
        )
        return Listing(tuple(map(Entry._make, entries)), findings)

    return _strictly(FILES, data, build)


def described(finding: Finding) -> Dict[str, Any]:
    """Describe a finding in plain JSON types; the offset is null where it is about the whole file."""
    offset = finding.offset if finding.offset >= 0 else None
    return {"path": encode(finding.path), "offset": offset, "what": finding.what, "detail": finding.detail}


def _row(file: Relocatable, prefixes: Sequence[bytes]) -> List[Any]:
    references: List[List[Any]] = []
    for r in file.references:
        row: List[Any] = [
            r.offset,
            r.room,
            prefixes.index(r.prefix) if r.prefix else -1,
            r.field.name,
            r.spelling.name,
            r.fill.name,
            r.force.name,
        ]
        more = {
            **({"archived": encode(r.archived)} if r.archived else {}),
            **({"of": encode(r.of)} if r.of else {}),
            **({"keep": r.keep} if r.keep != 0 else {}),
            **({"page": list(r.page)} if r.page != (0, 0) else {}),
            **({"bare": True} if r.bare else {}),
        }
        references.append([*row, more] if more else row)
    return [encode(file.path), [encode(n) for n in file.names], file.size, file.sha256, references]


def _file(row: Sequence[Any], prefixes: Sequence[bytes]) -> Relocatable:
    path, names, size, sha256, rows = row
    references = tuple(_reference(item, prefixes, count(size)) for item in rows)
    end = 0
    for reference in references:
        if reference.offset < end:
            raise ValueError(f"{path}: references are not in order")
        end = reference.offset + _least(reference)
    return Relocatable(_path(path), tuple(_path(n) for n in names), size, sha256_of(sha256), references)


def _reference(item: Sequence[Any], prefixes: Sequence[bytes], size: int) -> Reference:
    offset, room, index, field, spelling, fill, force = item[:7]
    more = _more(item[7:])
    if not 0 <= count(offset) + count(room) <= size:
        raise ValueError(f"the slot at byte {offset} reaches beyond the file's {size} bytes")
    if room > _MAX_ROOM:
        raise ValueError(f"the slot at byte {offset} has {room} bytes, more than any string")
    if not -1 <= _number(index) < len(prefixes):
        raise ValueError(f"there is no prefix {index}")
    reference = Reference(
        offset,
        room,
        prefixes[index] if index >= 0 else b"",
        Field[field],
        Spelling[spelling],
        Fill[fill],
        Force[force],
        decode(more.get("archived", "")),
        _path(more["of"]) if "of" in more else b"",
        None if "keep" in more and more["keep"] is None else count(more.get("keep", 0)),
        _page(more["page"], size) if "page" in more else (0, 0),
        more.get("bare", False) is True,
    )
    if reference.field is Field.PAGE_HASH and reference.spelling not in _PAGE_HASHES:
        raise ValueError(f"the slot at byte {offset}: {spelling} is no hash of a page")
    if (reference.field in (Field.DIGEST, Field.PAGE_HASH)) == bool(reference.prefix):
        raise ValueError(f"the slot at byte {offset}: {'a digest names a' if index >= 0 else 'there is no'} prefix")
    if not 0 < _least(reference) <= room:
        raise ValueError(f"the slot at byte {offset} has no room for its own {_least(reference)} bytes")
    return reference


def _more(items: Sequence[Any]) -> Dict[str, Any]:
    """Read what only a few references have: an object behind the columns of the row."""
    more = items[0] if items else {}
    if len(items) > 1 or set(more) - {"archived", "of", "keep", "page", "bare"}:
        raise ValueError(f"{items!r} is not known")
    return dict(more)


def _page(value: Any, size: int) -> Tuple[int, int]:
    start, end = value
    if not count(start) < count(end) <= size:
        raise ValueError(f"{value!r} is no page of a file of {size} bytes")
    return start, end


def _least(reference: Reference) -> int:
    """Count the bytes at the begin of a slot that are surely its own; another may begin behind them."""
    if reference.fill is Fill.KEEP or reference.field in (Field.DIGEST, Field.PAGE_HASH):
        return len(reference.archived)
    if reference.fill is not Fill.GROW:
        return len(spelled(reference.prefix, reference.spelling))
    return len(reference.archived) if reference.field is Field.SHEBANG else reference.room


def _path(text: str) -> bytes:
    """Read a path that must stay inside the prefix."""
    path = decode(text)
    if not is_relative(path):
        raise ValueError(f"{text!r} is not a path inside the prefix")
    return path


def _paths(texts: Sequence[str]) -> List[bytes]:
    """Read paths that must stay inside the prefix."""
    paths = list(map(decode, texts))
    if paths and not is_relative(b"/\n/".join(paths)):  # not all are
        return list(map(_path, texts))
    return paths


def _require(kind: type, values: Sequence[Any], check: Callable[[Any], object]) -> None:
    """Raise what ``check`` raises of a value that is not of one kind."""
    if set(map(type, values)) - {kind}:
        for value in values:
            check(value)


def _named(text: str) -> bytes:
    """Read a prefix that files name; the placeholder of a package that Windows built is one, too."""
    prefix = decode(text)
    if prefix in (b"", b"/") or b"\0" in prefix:
        raise ValueError(f"{text!r} is not a prefix")
    return prefix


def prefix_of(text: str) -> bytes:
    """Read a prefix where a tree can stand. Raises ValueError for anything else."""
    prefix = _named(text)
    if not prefix.startswith(b"/"):
        raise ValueError(f"{text!r} is not an absolute path")
    return prefix


def sha256_of(value: Any) -> str:
    """Read a SHA-256 in hexadecimal digits. Raises ValueError or TypeError for anything else."""
    if not _HASH.match(value):
        raise ValueError(f"{value!r} is not a SHA-256")
    return str(value)


def count(value: Any) -> int:
    """Read a number that is not negative. Raises ValueError for anything else."""
    if _number(value) < 0:
        raise ValueError(f"{value!r} is not a count")
    return int(value)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _document(head: Dict[str, Any], tables: Dict[str, Iterator[str]]) -> bytes:
    """Write a document, row by row; the rows of its tables are JSON already."""
    out = io.BytesIO()

    def write(text: str) -> None:
        # Half a surrogate pair in a detail becomes its escape in JSON.
        out.write(text.encode("utf-8", "backslashreplace"))

    write("{\n" + ",\n".join(f"{json.dumps(key)}: {_json(value)}" for key, value in head.items()))
    for key, rows in tables.items():
        write(f",\n{json.dumps(key)}: [")
        separator = "\n"
        while some := list(islice(rows, _ROWS)):
            write(separator + ",\n".join(some))
            separator = ",\n"
        write("\n]")
    write("\n}\n")
    return out.getvalue()


def _quoted(path: bytes) -> str:
    """Write the encoded path as JSON."""
    if not path:  # the target of most
        return '""'
    return f'"{path.decode()}"' if _PLAIN.match(path) else encode_basestring(encode(path))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _strictly(name: bytes, data: bytes, build: Callable[[Dict[str, Any]], _T]) -> _T:
    """Parse and build; whatever a damaged document raises becomes a ManifestError that names it."""
    try:
        document = json.loads(data.decode())
        if _number(document["format"]) == FORMAT:
            return build(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f"{name.decode()} is damaged: {type(error).__name__}: {error}.",
            "Unpack the archive again; nothing was changed.",
        ) from error
    raise ManifestError(
        f"{name.decode()}: its format is {document['format']!r}, and this version reads {FORMAT}.",
        "Use the version of pack that wrote the archive, or a newer one.",
    )
