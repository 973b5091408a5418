"""Find a prefix in bytes, and tell by the neighbour bytes whether a hit is a reference.

A literal search finds the hits; the neighbours are looked at afterwards. (A look-behind regular
expression ran a hundred times slower than ``bytes.find``.)
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from functools import lru_cache
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Tuple

from installer_stub.model import Spelling
from installer_stub.spelling import spellings

LEFT = 256  # bytes looked at before a hit
RIGHT = 4  # bytes looked at behind it

# The word before a hit ends at white space, a quote, NUL or one of these.
_STOPS = frozenset(b" \t\n\r\v\f\0\"'`,:;=(<>[{|&")
_OPTION = re.compile(rb"-[A-Za-z]+\Z")
_URL = re.compile(rb"\bfile:(//[A-Za-z0-9.-]*)?\Z")
_PLAIN = re.compile(rb"[A-Za-z0-9._-]+")  # what every spelling but those of UTF-16 leaves as it is
_NAME = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+~@%^") | frozenset(
    range(0x80, 0x100)
)


class Hit(NamedTuple):
    """Where a prefix is written: ``needle`` begins at ``offset``; ``left`` and ``right`` are its neighbours."""

    offset: int
    needle: bytes
    prefix: bytes
    spelling: Spelling
    left: bytes
    right: bytes


def search(chunks: Iterable[bytes], needles: Mapping[bytes, Tuple[bytes, Spelling]]) -> Iterator[Hit]:
    """Find every needle in a stream, in order; where hits overlap the first stands.

    Of several that begin together it is the longest that is a reference, or else the longest.

    ``needles`` maps the written bytes to the prefix and the spelling that they are. Memory is that of one
    chunk and a margin, whatever the length of the stream.
    """
    longest = max((len(needle) for needle in needles), default=0)
    if not longest:
        for _ in chunks:
            pass
        return
    margin = longest + RIGHT
    window, base, done = b"", 0, 0  # base: the offset of window[0]; done: hits before it are settled
    for chunk in chunks:
        # Nothing in it, nor where it is joined: then it need not be joined.
        quiet = len(chunk) > LEFT + margin and not may_hold(chunk, needles)
        quiet = quiet and not may_hold(window + chunk[:margin], needles)
        base, window = (base + len(window), chunk) if quiet else (base, window + chunk)
        settled = base + len(window) - margin
        for hit in () if quiet else _window(window, base, done, needles):
            if hit.offset > settled:
                break
            yield hit
            done = hit.offset + len(hit.needle)
        done = max(done, settled + 1)
        keep = max(0, done - base - LEFT)
        base += keep
        window = window[keep:]
    yield from _window(window, base, done, needles)


def _window(window: bytes, base: int, done: int, needles: Mapping[bytes, Tuple[bytes, Spelling]]) -> Iterator[Hit]:
    start = max(0, done - base)
    nearest = {needle: window.find(needle, start) for needle in needles}
    while True:
        at = min((offset for offset in nearest.values() if offset >= 0), default=-1)
        if at < 0:
            return
        hits: List[Hit] = []
        for needle in sorted((each for each, offset in nearest.items() if offset == at), key=len, reverse=True):
            left, end = window[max(0, at - LEFT) : at], at + len(needle)
            hits.append(Hit(base + at, needle, *needles[needle], left, window[end : end + RIGHT]))
        # /opt/env/lib is longer than /opt/env, but /opt/env/lib64 lies in the shorter one.
        hit = next((each for each in hits if is_reference(each)), hits[0])
        yield hit
        end = at + len(hit.needle)
        for needle, offset in nearest.items():
            if 0 <= offset < end:
                nearest[needle] = window.find(needle, end)


def may_hold(data: bytes, needles: Iterable[bytes]) -> bool:
    """Whether a needle can be in ``data``: for most data one look tells that none is."""
    return any(mark in data for mark in landmarks(tuple(needles)))


@lru_cache(maxsize=64)
def landmarks(needles: Tuple[bytes, ...]) -> Tuple[bytes, ...]:
    """Return a few byte strings, of which every needle holds one: where there is none of them, there is no needle.

    Spellings of a prefix differ in what stands between the names in it, so that one name will do for most of them.
    """
    left, marks = list(needles), []
    while left:
        mark = max(_PLAIN.findall(left[0]), key=len, default=left[0])
        marks.append(mark)
        left = [needle for needle in left if mark not in needle]
    return tuple(marks)


def is_relative(path: bytes) -> bool:
    """Whether a path leads below where it begins, one name after the other: not up, not out, and over no ``.``."""
    framed = b"/%b/" % path
    return not (b"//" in framed or b"/./" in framed or b"/../" in framed or b"\0" in framed)


def within(path: bytes, prefix: bytes) -> bool:
    """Whether an absolute path is ``prefix`` or lies in it: ``/opt/env2`` does not lie in ``/opt/env``."""
    return (path + b"/").startswith(prefix + b"/")


def left_boundary(left: bytes) -> bool:
    """Whether a reference may begin behind ``left``: DESIGN's rule for text and NUL-terminated strings.

    What lies between the nearest stop and the hit must be nothing, ``file://`` and perhaps a host, a
    one-dash option such as ``-I``, ``#!``, the ``@`` of a response file, or a byte order mark.
    """
    at = len(left)
    while at and left[at - 1] not in _STOPS:
        at -= 1
    between = left[at:]
    if not between or between in (b"#!", b"@", BOM_UTF8) or _OPTION.match(between):
        return True
    return is_url(left)


def is_url(left: bytes) -> bool:
    """Whether the hit behind ``left`` is the path of a file URL: ``file:/p``, ``file:///p``, ``file://h/p``."""
    return _URL.search(left) is not None


def right_boundary(right: bytes) -> bool:
    """Whether a prefix may end before ``right``: ``/opt/env`` is not in ``/opt/env2`` nor ``/opt/env.old``.

    A full stop ends a sentence unless a name goes on behind it; a backslash is part of the name if it
    escapes a space.
    """
    if not right:
        return True
    if right[0] in _NAME:
        return False
    if right[:1] == b".":
        return len(right) < 2 or (right[1] not in _NAME and right[1:2] not in (b".", b"/"))
    return right[:2] != b"\\ "


def needles(prefixes: Iterable[bytes], utf16: Spelling = Spelling.PLAIN) -> Dict[bytes, Tuple[bytes, Spelling]]:
    """Make the table for ``search``: every spelling of every prefix; an earlier prefix has precedence."""
    table: Dict[bytes, Tuple[bytes, Spelling]] = {}
    for prefix in prefixes:
        for written, spelling in spellings(prefix, utf16).items():
            table.setdefault(written, (prefix, spelling))
    return table


def is_reference(hit: Hit) -> bool:
    """Whether both neighbours let the hit be the path of the prefix, or of something in it."""
    left = hit.left
    if hit.spelling in (Spelling.UTF16LE, Spelling.UTF16BE):
        if hit.offset % 2:
            return False  # halves of two other characters
        left = left[len(left) % 2 :].decode(hit.spelling.value, "replace").encode("utf-8", "replace")
    return left_boundary(left) and may_end(hit)


def may_end(hit: Hit) -> bool:
    """Whether the neighbour behind a hit lets the prefix end there."""
    if hit.spelling in (Spelling.UTF16LE, Spelling.UTF16BE):
        return right_boundary(hit.right.decode(hit.spelling.value, "replace").encode("utf-8", "replace"))
    return right_boundary(hit.right)
