"""Find the strings in byte code files, and read and set what makes a file stale.

A .pyc file is a header (PEP 552) and one marshalled code object. Marshal counts its strings, so where one
ends cannot be told by looking at neighbour bytes: the stream is parsed. Its form is that of CPython's
marshal.c; the fields of a code object differ between versions, and are known for each magic number below.
"""

from __future__ import annotations

import re
import struct
from enum import Enum
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from installer_stub.errors import PackError


class OddBytecode(PackError, ValueError):
    """Byte code that cannot be read, or not changed as asked: at ``offset``, ``what``."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"byte code that cannot be used: {what}, at byte {offset}")
        self.offset = offset
        self.what = what


class UnknownBytecode(OddBytecode):
    """Byte code of a Python whose format is not known, by its ``magic``; or no byte code."""

    def __init__(self, magic: int) -> None:
        super().__init__(0, f"the magic number {magic} is of no known Python")
        self.magic = magic


class Header(NamedTuple):
    """The start of a .pyc file. ``mtime`` and ``source_size`` are None where a hash of the source counts."""

    magic: int
    flags: int
    mtime: Optional[int]  # seconds, modulo 2**32
    source_size: Optional[int]  # bytes, modulo 2**32
    size: int  # of the header itself: the code begins here


class Role(Enum):
    """Who reads a string. OTHER is stronger: a file name that is also used otherwise is OTHER."""

    FILENAME = "file name"  # nothing but the co_filename of code objects; the importer mends it
    OTHER = "other"


class Constant(NamedTuple):
    """A marshalled str or bytes: ``length`` bytes of content at ``offset`` in the file.

    In a str that is ``ascii`` the loader reads each byte as one character, without decoding: UTF-8 written
    there becomes another text. In one that is not, the bytes are UTF-8, or a bytes object's own.
    """

    offset: int
    length: int
    role: Role
    ascii: bool


class _Layout(NamedTuple):
    """How a version writes a code object: numbers, values, the file name, values, the first line, values."""

    header: int
    numbers: int
    before: int
    after: int
    last: int


_L36 = _Layout(header=12, numbers=5, before=6, after=1, last=1)
_L37 = _Layout(header=16, numbers=5, before=6, after=1, last=1)
_L38 = _Layout(header=16, numbers=6, before=6, after=1, last=1)  # co_posonlyargcount came
_L311 = _Layout(header=16, numbers=5, before=5, after=2, last=2)  # co_qualname and the exception table came

# The magic numbers of final releases, and of 3.14 from its first beta on: alphas changed the layout.
_LAYOUTS = {
    3379: _L36,
    3394: _L37,
    3413: _L38,
    3425: _L38,  # 3.9
    3439: _L38,  # 3.10
    3495: _L311,
    3531: _L311,  # 3.12
    3571: _L311,  # 3.13
    **dict.fromkeys(range(3624, 3628), _L311),  # 3.14
}

_HASH_BASED, _CHECK_SOURCE = 1, 2
_MAX_STACK = 8000  # CPython refuses values nested deeper than 2000; a code object takes up to four places here
_ENDLESS = 1 << 62  # a dict has no count: TYPE_NULL ends it

# The type codes of marshal. The highest bit says that later references may name the value by its number.
_REF, _NULL, _CODE, _SMALL_TUPLE, _SLICE, _MAPPING, _BIG_INT = b"r0c):{l"
_FIXED = {**dict.fromkeys(b"NTFS.", 0), ord("i"): 4, ord("I"): 8, ord("g"): 8, ord("y"): 16}
_NUMBERS = frozenset(b"iIgy")  # of the fixed ones, those that are numbered when flagged
_TEXT_NUMBERS = {ord("f"): 1, ord("x"): 2}  # written as short strings
_SHORT_ASCII = frozenset(b"zZ")
_COUNTED_STRINGS = frozenset(b"stuaA")
_ASCII = frozenset(b"zZaA")
_CONTAINERS = frozenset(b"([<>")

# What a run of values is: where in its container, or what ends it.
_PLAIN, _FILENAME, _AFTER_LINE, _DICT = range(4)

_LONG = struct.Struct("<I")
_SIGNED = struct.Struct("<i")
_CACHED = re.compile(rb"(?P<stem>[^/]+?)\.(?!opt-)[a-z]+-?[0-9]+[a-z0-9_]*(?:\.opt-[0-9A-Za-z]+)?\.pyc")


def header(data: bytes) -> Header:
    """Read the header of a .pyc file.

    Raises UnknownBytecode, and OddBytecode where the header is cut or its flags are unknown.
    """
    magic = int.from_bytes(data[:2], "little")
    layout = _LAYOUTS.get(magic)
    if layout is None or data[2:4] != b"\r\n":
        raise UnknownBytecode(magic)
    if len(data) < layout.header:
        raise OddBytecode(len(data), "the header is cut")
    flags = 0 if layout is _L36 else _LONG.unpack_from(data, 4)[0]
    if flags & ~(_HASH_BASED | _CHECK_SOURCE):  # the importer refuses these, too
        raise OddBytecode(4, f"the flags are {flags:#x}")
    if flags & _HASH_BASED:
        return Header(magic, flags, None, None, layout.header)
    mtime, size = struct.unpack_from("<II", data, layout.header - 8)
    return Header(magic, flags, mtime, size, layout.header)


def with_mtime(data: bytes, mtime: int) -> bytes:
    """Return the .pyc file with another mtime of its source, in seconds.

    Raises as `header` does, and OddBytecode for a file that is checked by its source's hash and has no mtime.
    """
    known = header(data)
    if known.mtime is None:
        raise OddBytecode(4, "it is checked by the hash of its source and records no mtime")
    at = known.size - 8
    return data[:at] + _LONG.pack(mtime & 0xFFFFFFFF) + data[at + 4 :]


def source_path(pyc_path: bytes) -> Optional[bytes]:
    """Return the path of the source that a .pyc file in ``__pycache__`` caches (PEP 3147, PEP 488).

    None for any other path: a .pyc beside its source's place is a module of its own.
    """
    if not pyc_path.endswith(b".pyc"):
        return None
    directory, _, name = pyc_path.rpartition(b"/")
    parent, _, cache = directory.rpartition(b"/")
    match = _CACHED.fullmatch(name) if cache == b"__pycache__" else None
    if match is None:
        return None
    source = match.group("stem") + b".py"
    return parent + b"/" + source if parent or pyc_path.startswith(b"/") else source


def strings(data: bytes, holding: Optional[Sequence[int]] = None) -> Iterator[Constant]:
    """Yield every str and bytes object that a .pyc file stores, by offset.

    With ``holding``, offsets in order, only those in which one of them lies, and perhaps a few more: of all that is
    in a file they are few, and to make the others takes as long as to find them.

    Raises UnknownBytecode for a version that is not known, and OddBytecode for a damaged file, both before
    the first string. Time and memory are bounded by the file's size. Bytes behind the code object are
    ignored, as the importer ignores them.
    """
    start = header(data).size
    layout = _LAYOUTS[int.from_bytes(data[:2], "little")]
    found, filenames = _walk(data, start, layout, [-1] if holding is None else [*holding, len(data)])
    return (
        Constant(offset, length, Role.FILENAME if offset in filenames else Role.OTHER, is_ascii)
        for offset, length, is_ascii in found
    )


def _walk(
    data: bytes, pos: int, layout: _Layout, wanted: Sequence[int]
) -> Tuple[List[Tuple[int, int, bool]], Set[int]]:
    """Return (offset, length, ascii) of strings, and the offsets of those that are file names only.

    A string counts if it ends behind the first offset that is ``wanted`` and was not passed yet; the last stays.
    One value is read at a time. ``left`` counts the values that the innermost container still lacks,
    ``stack`` holds the containers around it. A code object counts as four of them, one for each run of
    values between its fixed fields. Of a reference only its number matters, so no value is kept.
    """
    found: List[Tuple[int, int, bool]] = []
    filenames: Dict[int, int] = {}  # number for references, or below 0 if it has none -> offset
    references = 0
    stack: List[Tuple[int, int]] = []
    left, run = 1, _PLAIN
    offsets = iter(wanted)
    awaited = next(offsets)
    numbers, before, after, last = (
        4 * layout.numbers,
        layout.before,
        (layout.after, _PLAIN),
        (layout.last, _AFTER_LINE),
    )
    try:
        while True:
            while not left:
                if not stack:
                    if pos > len(data):
                        raise OddBytecode(len(data), "it is cut")
                    return found, set(filenames.values())
                left, run = stack.pop()
                if run == _AFTER_LINE:
                    pos += 4
                    run = _PLAIN
            left -= 1
            code = data[pos]
            pos += 1
            kind = code & 0x7F
            if kind in _SHORT_ASCII:
                length = data[pos]
                pos += 1
            elif kind == _REF:
                number = _LONG.unpack_from(data, pos)[0]
                if number >= references:
                    raise OddBytecode(pos, "a reference to a value that was not yet there")
                pos += 4
                if run != _FILENAME:
                    filenames.pop(number, None)
                continue
            elif kind in _FIXED:
                pos += _FIXED[kind]
                references += code >> 7 if kind in _NUMBERS else 0
                continue
            elif kind in _COUNTED_STRINGS:
                length = _LONG.unpack_from(data, pos)[0]
                pos += 4
            else:
                if kind == _NULL:
                    if run != _DICT:
                        raise OddBytecode(pos - 1, "no value where one must be")
                    left = 0
                    continue
                references += code >> 7
                if kind in _TEXT_NUMBERS:
                    for _ in range(_TEXT_NUMBERS[kind]):
                        pos += 1 + data[pos]
                    continue
                if kind == _BIG_INT:
                    count = _SIGNED.unpack_from(data, pos)[0]
                    pos += 4 + 2 * abs(count)
                    continue
                stack.append((left, run))
                run = _PLAIN
                if kind == _CODE:
                    pos += numbers
                    stack += (last, after, (1, _FILENAME))
                    left = before
                elif kind == _SMALL_TUPLE:
                    left = data[pos]
                    pos += 1
                elif kind in _CONTAINERS:
                    left = _LONG.unpack_from(data, pos)[0]
                    pos += 4
                elif kind == _SLICE:
                    left = 3
                elif kind == _MAPPING:
                    left, run = _ENDLESS, _DICT
                else:
                    raise OddBytecode(pos - 1, f"a value of the unknown type {code:#x}")
                if len(stack) > _MAX_STACK:
                    raise OddBytecode(pos, "values are nested too deep")
                continue
            if pos + length > awaited:
                found.append((pos, length, kind in _ASCII))
                awaited = next((offset for offset in offsets if offset >= pos + length), wanted[-1])
            if run == _FILENAME:
                filenames[references if code & 0x80 else ~pos] = pos
            references += code >> 7
            pos += length
    except (IndexError, struct.error):
        raise OddBytecode(len(data), "it is cut") from None
