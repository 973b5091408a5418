"""Slots are written for a target, undone, and written again; what is beside them never changes."""

from __future__ import annotations

import hashlib
import io
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from installer_stub.fit import fit, longest_target, misfits
from installer_stub.model import Field, Fill, Fit, Force, Reference, Relocatable, Spelling
from installer_stub.rewrite import (
    Digest,
    Form,
    Misfit,
    Region,
    Unlike,
    digest_spelled,
    length,
    regions,
    slashes,
    transform,
    undo,
    write,
)
from installer_stub.spelling import spelled

ARCHIVED = Form(None)
OLD = b"/old/place/env"
FIELDS = {
    Fill.GROW: Field.TEXT,
    Fill.NULS: Field.C_STRING,
    Fill.SLASHES: Field.C_STRING,
    Fill.TERMINATE: Field.RUN_PATH,
    Fill.KEEP: Field.RUN_PATH,
}


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def slot(
    offset: int,
    room: int,
    fill: Fill,
    spelling: Spelling = Spelling.PLAIN,
    force: Force = Force.ALWAYS,
    prefix: bytes = OLD,
    keep: int | None = 0,
) -> Reference:
    return Reference(offset, room, prefix, FIELDS[fill], spelling, fill, force, keep=keep)


def in_form(data: bytes, references: Sequence[Reference], new: Form, old: Form = ARCHIVED) -> bytes:
    """Copy a file from one form to another; what is digested on the way must be the archived file."""
    out = io.BytesIO()
    seen, same = transform(io.BytesIO(data).read, out.write, regions(references), old, new)
    assert new is not ARCHIVED or seen == digest(out.getvalue())
    assert old is not ARCHIVED or seen == digest(data)
    assert same == (out.getvalue() == data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("prefix", "room", "expected", "why"),
    [
        (b"/x/env", 6, b"/x/env", "nothing is left over"),
        (b"/x/env", 7, b"/x//env", "one byte"),
        (b"/x/env", 8, b"/x///env", "two bytes"),
        (b"/a/b/env", 12, b"/a/b/////env", "only before the last component"),
        (b"/env", 4, b"/env", "at the root, nothing is left over"),
        (b"/env", 6, b"/./env", "at the root, two bytes"),
        (b"/env", 7, b"/.//env", "at the root, three bytes"),
        (b"/e", 9, b"/.//////e", "at the root, many"),
    ],
)
def test_slashes(prefix: bytes, room: int, expected: bytes, why: str) -> None:
    assert slashes(prefix, room) == expected, why
    assert len(expected) == room


@pytest.mark.parametrize(
    ("prefix", "room", "need", "why"),
    [
        (b"/x/env", 5, 6, "too long"),
        (b"/env", 3, 4, "too long at the root"),
        (b"/env", 5, 0, "at the root there is no place for one byte"),
    ],
)
def test_slashes_that_do_not_fit(prefix: bytes, room: int, need: int, why: str) -> None:
    with pytest.raises(Misfit) as caught:
        slashes(prefix, room)
    assert caught.value.need == need, why


@pytest.mark.parametrize(
    ("archived", "references", "target", "expected", "why"),
    [
        (b"a /old/place/env/b", [slot(2, 14, Fill.GROW)], b"/n", b"a /n/b", "text shrinks"),
        (b"a /old/place/env/b", [slot(2, 14, Fill.GROW)], b"/n" * 9, b"a " + b"/n" * 9 + b"/b", "text grows"),
        (
            b"/old/place/env:/old/place/env/x\n",
            [slot(0, 14, Fill.GROW), slot(15, 14, Fill.GROW)],
            b"/n",
            b"/n:/n/x\n",
            "two in a text: the second has moved",
        ),
        (
            b"\1/old/place/env/lib\0\2",
            [slot(1, 18, Fill.NULS)],
            b"/n",
            b"\1/n/lib" + b"\0" * 12 + b"\0\2",
            "NULs behind a C string",
        ),
        (
            b"\1/old/place/env/a:/old/place/env/b\0\2",
            [slot(1, 33, Fill.NULS), slot(18, 16, Fill.NULS)],
            b"/n",
            b"\1/n/a:/n/b" + b"\0" * 24 + b"\0\2",
            "NULs behind a C string with two prefixes: the room of both",
        ),
        (
            b"\1/old/place/env/lib\0\2",
            [slot(1, 14, Fill.SLASHES)],
            b"/n/env",
            b"\1/n/////////env/lib\0\2",
            "slashes in a string whose length counts",
        ),
        (
            b"/old/place/env/a:/old/place/env/b",
            [slot(0, 14, Fill.SLASHES), slot(17, 14, Fill.SLASHES)],
            b"/n/env",
            b"/n/////////env/a:/n/////////env/b",
            "each prefix keeps its place",
        ),
        (
            b"\0/old/place/env/lib:/usr/lib\0\3",
            [slot(1, 27, Fill.TERMINATE)],
            b"/n",
            b"\0/n/lib:/usr/lib\0" + b"ib:/usr/lib\0\3",
            "a run path ends early, and its old tail is left",
        ),
        (
            b"/old/place/env/a:/old/place/env/b\0\3",
            [slot(0, 33, Fill.TERMINATE), slot(17, 16, Fill.TERMINATE)],
            b"/n",
            b"/n/a:/n/b\0" + b"/env/a:/old/place/env/b\0\3",
            "two in a run path",
        ),
        (
            b"/old/place/env/b\0",
            [slot(0, 16, Fill.TERMINATE)],
            b"/old/placf/env",
            b"/old/placf/env/b\0",
            "the same length",
        ),
        (
            b"/old/place/env/lib\0",
            [slot(0, 18, Fill.TERMINATE, keep=3)],
            b"/n",
            b"/n/lib\0ace/env/lib\0",
            "a symbol is named lib: a run path that ends before it is right",
        ),
        (
            b"/old/place/env/lib\0",
            [slot(0, 18, Fill.TERMINATE, keep=3)],
            b"/o/place/env",
            b"/o/place///env/lib\0",
            "one that would end in it keeps its length",
        ),
        (
            b"\0/old/place/env/b\0",
            [slot(1, 16, Fill.SLASHES, keep=5)],
            b"/n/env",
            b"\0/n/////////env/b\0",
            "nv/b is another string: the last component stays in its place",
        ),
        (
            b"$ORIGIN/../lib\0/lib",
            [slot(0, 19, Fill.KEEP)._replace(archived=b"/old/place/env/lib\0")],
            b"/n",
            b"$ORIGIN/../lib\0/lib",
            "what was made relative stays",
        ),
        (
            b'<a b="/old/place/env/c"/>',
            [slot(6, 14, Fill.GROW, Spelling.XML)],
            b"/R&D",
            b'<a b="/R&amp;D/c"/>',
            "an entity in XML",
        ),
        (
            b'"\\/old\\/place\\/env\\/b"',
            [slot(1, 17, Fill.GROW, Spelling.JSON)],
            b'/n"/o',
            b'"\\/n\\"\\/o\\/b"',
            "JSON escapes what it must",
        ),
        (
            b"file:///old/place/env/b",
            [slot(7, 14, Fill.GROW, Spelling.URL)],
            b"/my env",
            b"file:///my%20env/b",
            "a URL",
        ),
        (
            b"cd /old/place/env/b",
            [slot(3, 14, Fill.GROW, Spelling.SHELL)],
            b"/my env",
            b"cd /my\\ env/b",
            "a shell word",
        ),
        (
            "\ufeff/old/place/env!".encode("utf-16-le"),
            [slot(2, 28, Fill.GROW, Spelling.UTF16LE)],
            "/é".encode(),
            "\ufeff/é!".encode("utf-16-le"),
            "UTF-16",
        ),
    ],
)
def test_written_and_undone(
    archived: bytes, references: list[Reference], target: bytes, expected: bytes, why: str
) -> None:
    form = Form(target)
    written = in_form(archived, references, form)
    assert written == expected, why
    assert in_form(written, references, ARCHIVED, form) == archived, why
    assert in_form(written, references, form, form) == written, "applying twice changes nothing"


# The string of a load command is padded with NULs to the command's end, and the last of them is not its slot's.
LOAD_COMMAND = Reference(
    0,
    30,
    OLD,
    Field.LOAD_COMMAND,
    Spelling.PLAIN,
    Fill.NULS,
    Force.ALWAYS,
    b"/old/place/env/lib/x.dylib".ljust(30, b"\0"),
)


@pytest.mark.parametrize(
    ("target", "written"),
    [
        (b"/n", b"/n/lib/x.dylib".ljust(32, b"\0")),
        (OLD, b"/old/place/env/lib/x.dylib".ljust(32, b"\0")),
        (b"/older/placing/env", b"/older/placing/env/lib/x.dylib\0\0"),
    ],
)
def test_a_load_command_takes_the_padding_behind_it(target: bytes, written: bytes) -> None:
    data = LOAD_COMMAND.archived + b"\0\0"
    assert in_form(data, [LOAD_COMMAND], Form(target)) == written
    assert in_form(written, [LOAD_COMMAND], ARCHIVED, Form(target)) == data
    assert longest_target([LOAD_COMMAND], [Force.ALWAYS]) == 18


def test_page_hashes_are_those_of_the_bytes_as_written() -> None:
    body = b"....../old/place/env/lib......"
    sha1, sha256 = hashlib.sha1(body[:16]).digest(), hashlib.sha256(body[16:]).digest()
    data = body + sha1 + sha256[:20]
    slots = [
        slot(6, 14, Fill.SLASHES),
        Reference(30, 20, b"", Field.PAGE_HASH, Spelling.SHA1, Fill.GROW, Force.NEVER, sha1, page=(0, 16)),
        Reference(50, 20, b"", Field.PAGE_HASH, Spelling.SHA256, Fill.GROW, Force.NEVER, sha256[:20], page=(16, 30)),
    ]
    written = in_form(data, slots, Form(b"/n/env"))
    assert written[:30] == b"....../n/////////env/lib......"
    assert written[30:50] == hashlib.sha1(written[:16]).digest()
    assert written[50:] == hashlib.sha256(written[16:30]).digest()[:20]
    assert in_form(written, slots, ARCHIVED, Form(b"/n/env")) == data
    assert in_form(written, slots, Form(b"/m/env"), Form(b"/n/env")) == in_form(data, slots, Form(b"/m/env"))


@pytest.mark.parametrize(
    ("reference", "target", "expected"),
    [
        (slot(0, 14, Fill.GROW), b"/n", Fit.LOSSLESS),
        (slot(0, 18, Fill.TERMINATE), b"/n", Fit.LOSSLESS),
        (slot(0, 18, Fill.TERMINATE), b"/n" * 10, Fit.NO_ROOM),
        (slot(0, 18, Fill.NULS), b"/n", Fit.C_READERS),
        (slot(0, 18, Fill.NULS), b"/new/place/env", Fit.LOSSLESS),
        (LOAD_COMMAND, b"/n", Fit.LOSSLESS),
        (slot(0, 14, Fill.SLASHES), b"/n/other", Fit.LOSSLESS),
        (slot(0, 14, Fill.SLASHES, keep=None), b"/n/env", Fit.LOSSLESS),
        (slot(0, 14, Fill.SLASHES, keep=None), b"/n/other", Fit.C_READERS),
        (slot(0, 14, Fill.SLASHES, keep=2), b"/n/other", Fit.NOT_REWRITABLE),
        (slot(0, 14, Fill.SLASHES), b"/n" * 10, Fit.NO_ROOM),
        (slot(0, 17, Fill.GROW, Spelling.JSON), b"/\xff", Fit.NOT_REWRITABLE),
        (slot(0, 14, Fill.KEEP)._replace(archived=OLD), b"/n" * 10, Fit.LOSSLESS),
    ],
)
def test_fit(reference: Reference, target: bytes, expected: Fit) -> None:
    [region] = regions([reference])
    assert fit(region, Form(target)) is expected


SHEBANG = b"#!/old/place/env/bin/python -I\n"


def test_a_shebang_is_written_as_a_line() -> None:
    line = Reference(0, len(SHEBANG), OLD, Field.SHEBANG, Spelling.PLAIN, Fill.GROW, Force.ALWAYS, SHEBANG)
    data = SHEBANG + b"print()\n"
    for target, head in (
        (b"/n", b"#!/n/bin/python -I\n"),
        (b"/n m", b'#!/bin/sh\n\f# 2>/dev/null || :; exec "/n m/bin/python" '),
    ):
        written = in_form(data, [line], Form(target))
        assert written.startswith(head)
        assert written.endswith(b"\nprint()\n")
        assert in_form(written, [line], ARCHIVED, Form(target)) == data


def test_a_shebang_that_may_not_grow_takes_slashes() -> None:
    line = slot(2, 14, Fill.SLASHES)._replace(field=Field.SHEBANG)
    assert in_form(SHEBANG + b"PK\0", [line], Form(b"/n/env")) == b"#!/n/////////env/bin/python -I\nPK\0"


def test_a_digest_is_that_of_the_form() -> None:
    """A digest that the form does not know stays as archived: its file is not the environment's any more."""
    before, after = digest(b"old"), digest(b"a new content")
    row = digest_spelled(before, Spelling.RECORD)
    data = b"bin/x," + row + b"\nhex " + before.sha256.encode() + b"\n"
    in_record = Reference(6, len(row), b"", Field.DIGEST, Spelling.RECORD, Fill.GROW, Force.NEVER, row, b"bin/x")
    at = data.index(b"hex ") + 4
    hexed = before.sha256.encode()
    in_hex = Reference(at, 64, b"", Field.DIGEST, Spelling.HEX, Fill.GROW, Force.NEVER, hexed, b"bin/x")
    slots = [in_record, in_hex]
    form = Form(b"/n", {b"bin/x": after})
    written = in_form(data, slots, form)
    encoded = urlsafe_b64encode(hashlib.sha256(b"a new content").digest()).rstrip(b"=")
    assert written == b"bin/x,sha256=" + encoded + b",13\nhex " + after.sha256.encode() + b"\n"
    assert in_form(written, slots, ARCHIVED, form) == data
    assert in_form(data, slots, Form(b"/n")) == data


@pytest.mark.parametrize(
    ("reference", "target", "need", "room"),
    [
        (slot(0, 20, Fill.NULS), b"/" + b"n" * 14, 15, 14),
        (slot(0, 20, Fill.TERMINATE), b"/" + b"n" * 14, 15, 14),
        (slot(0, 14, Fill.SLASHES), b"/" + b"n" * 14, 15, 14),
        (slot(0, 14, Fill.SLASHES), b"/" + b"n" * 12, 0, 0),
        (slot(0, 17, Fill.SLASHES, Spelling.JSON), b"/n/env", 8, 17),
        (slot(0, 17, Fill.GROW, Spelling.JSON), b"/\xff", 0, 0),
        (slot(0, 28, Fill.GROW, Spelling.UTF16LE), b"/\xff", 0, 0),
        (slot(0, 16, Fill.SLASHES, keep=5), b"/n/emv", 0, 0),
        (slot(0, 14, Fill.SLASHES, keep=5), b"/n/env", 0, 0),
        (slot(0, 18, Fill.TERMINATE, keep=5), b"/old/place/enw", 0, 0),
        (LOAD_COMMAND, b"/" + b"n" * 18, 19, 18),
    ],
)
def test_no_room(reference: Reference, target: bytes, need: int, room: int) -> None:
    file = Relocatable(b"f", (), 100, "0" * 64, (reference,))
    [(refused, misfit)] = misfits(file, Form(target))
    assert (refused, misfit.need, misfit.room) == (reference, need, room)
    data = (reference.archived or spelled(reference.prefix, reference.spelling)).ljust(40, b"x")
    with pytest.raises(Misfit):
        in_form(data, [reference], Form(target))


@pytest.mark.parametrize("fill", [fill for fill in Fill if fill is not Fill.KEEP])
def test_a_slot_where_the_manifest_is_wrong_is_told(fill: Fill) -> None:
    """The hash of a file is right whatever a damaged manifest says of the places in it."""
    data = b"before /old/place/env/lib\0after"
    with pytest.raises(Unlike, match=r"at byte 8, and it is not there"):
        in_form(data, [slot(8, 14, fill)], Form(b"/n/env"))


def test_all_misfits_of_a_file_are_told() -> None:
    slots = (slot(0, 14, Fill.SLASHES), slot(20, 14, Fill.GROW), slot(40, 14, Fill.NULS))
    file = Relocatable(b"f", (), 100, "0" * 64, slots)
    assert [r.offset for r, _ in misfits(file, Form(b"/" * 20))] == [0, 40]
    assert list(misfits(file, ARCHIVED)) == []


def test_what_is_not_in_force_keeps_its_archived_bytes() -> None:
    """The target was accepted without it; moved on, it finds its way again."""
    slots = [slot(2, 14, Fill.SLASHES, force=Force.UNLESS_ALLOWED), slot(20, 14, Fill.GROW)]
    data = b"a /old/place/env/x, /old/place/env/y"
    long = Form(b"/quite/a/long/new/place")
    written = in_form(data, slots, long)
    assert written == b"a /old/place/env/x, /quite/a/long/new/place/y"
    assert in_form(written, slots, ARCHIVED, long) == data
    assert in_form(written, slots, Form(b"/n/env"), long) == b"a /n/////////env/x, /n/env/y"


def test_the_longest_target_is_that_of_the_smallest_slot() -> None:
    awk = b"#!/old/place/env/bin/awk\n"
    slots = [
        slot(0, 14, Fill.SLASHES, force=Force.UNLESS_ALLOWED),
        slot(20, 255, Fill.NULS, prefix=b"/".ljust(255, b"p")),
        slot(300, 14, Fill.GROW),
        slot(320, 8, Fill.SLASHES, Spelling.UTF16LE, Force.NEVER, b"/env"),
    ]
    assert longest_target(slots, [Force.ALWAYS]) == 255
    assert longest_target(slots, [Force.ALWAYS, Force.UNLESS_ALLOWED]) == 14
    assert longest_target(slots, list(Force)) == 4
    assert longest_target(slots[2:3], list(Force)) is None
    line = Reference(0, len(awk), OLD, Field.SHEBANG, Spelling.PLAIN, Fill.GROW, Force.ALWAYS, awk)
    longest = longest_target([line], [Force.ALWAYS])
    assert longest == 127 - len(b"#!/bin/awk\n")
    file = Relocatable(b"f", (), 100, "0" * 64, (line,))
    assert [list(misfits(file, Form(b"/".ljust(longest + more, b"n")))) == [] for more in (0, 1)] == [True, False]


def test_regions_of_one_string() -> None:
    first, second, other = slot(1, 33, Fill.NULS), slot(18, 16, Fill.NULS), slot(34, 14, Fill.NULS)
    assert regions([first, second, other]) == [Region(1, 34, (first, second)), Region(34, 48, (other,))]


@pytest.mark.parametrize("fill", [fill for fill in Fill if fill is not Fill.KEEP])
def test_a_slot_that_holds_another_thing_is_told(fill: Fill) -> None:
    room = 14 if fill in (Fill.GROW, Fill.SLASHES) else 18
    data = b"before /old/place/env/lib\0after"
    form = Form(b"/n/env")
    written = in_form(data, [slot(7, room, fill)], form)
    changed = bytearray(written)
    changed[8] ^= 1
    with pytest.raises(Unlike):
        in_form(bytes(changed), [slot(7, room, fill)], ARCHIVED, form)


@pytest.mark.parametrize("cut", [3, 7, 10, 20])
def test_a_file_that_ends_early_is_told(cut: int) -> None:
    data = b"before /old/place/env/lib\0after"
    form = Form(b"/n/env")
    written = in_form(data, [slot(7, 18, Fill.NULS)], form)
    with pytest.raises(Unlike):
        in_form(written[:cut], [slot(7, 18, Fill.NULS)], ARCHIVED, form)


def test_a_form_without_room_is_not_on_disk() -> None:
    with pytest.raises(Unlike):
        in_form(b"x" * 40, [slot(0, 14, Fill.NULS)], ARCHIVED, Form(b"/" + b"n" * 20))


# Files of literal text and references, moved from target to target.


@dataclass(frozen=True)
class File:
    """A file as archived, with its slots."""

    data: bytes
    references: tuple[Reference, ...]


LITERAL = st.binary(max_size=12) | st.sampled_from([b"/old/place/env", b"/n", b"/", b"\0\0", b":", b"/env"])
# What may follow in a string: no NUL.
TAIL = st.binary(max_size=10).map(lambda tail: tail.replace(b"\0", b"/"))
COMPONENT = st.text("ab.- é", min_size=1, max_size=6).map(str.encode).filter(lambda c: c not in (b".", b".."))
TARGET = st.lists(COMPONENT, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
_OF_DIGESTS = {Spelling.HEX, Spelling.RECORD, Spelling.SHA1, Spelling.SHA256, Spelling.SHA384}
SPELLINGS = [spelling for spelling in Spelling if spelling not in _OF_DIGESTS]


@st.composite
def files(draw: st.DrawFn, prefix: bytes = OLD, growing: bool = False) -> File:
    """Build a file; one that takes any target if it is ``growing``."""
    data = b""
    references: list[Reference] = []
    for _ in range(draw(st.integers(1, 5))):
        data += draw(LITERAL)
        fill = draw(st.sampled_from([Fill.GROW, Fill.SLASHES] if growing else list(Fill)))
        if fill is Fill.GROW:
            spelling = draw(st.sampled_from(SPELLINGS))
            written = spelled(prefix, spelling)
            references.append(slot(len(data), len(written), fill, spelling, prefix=prefix))
            data += written
        elif fill is Fill.SLASHES:
            force = draw(st.sampled_from([Force.UNLESS_ALLOWED, Force.NEVER] if growing else list(Force)))
            keep = draw(st.none() | st.integers(0, len(prefix)))
            references.append(slot(len(data), len(prefix), fill, force=force, prefix=prefix, keep=keep))
            data += prefix
        elif fill is Fill.KEEP:
            references.append(slot(len(data), 3, fill, prefix=prefix)._replace(archived=b"abc"))
            data += b"$OR"
        else:
            tails = draw(st.lists(TAIL, min_size=1, max_size=3))
            string = b"".join(prefix + tail for tail in tails)
            end, at = len(data) + len(string), len(data)
            keep = draw(st.integers(0, len(prefix) + len(tails[-1]))) if fill is Fill.TERMINATE else 0
            for tail in tails:
                references.append(slot(at, end - at, fill, prefix=prefix, keep=keep))
                at += len(prefix) + len(tail)
            data += string + b"\0"
    data += draw(LITERAL)
    if not any(reference.fill is Fill.GROW for reference in references) and draw(st.booleans()):
        start = draw(st.integers(0, len(data) - 1))
        page = (start, draw(st.integers(start + 1, len(data))))
        hashed = hashlib.sha256(data[slice(*page)]).digest()
        references.append(
            Reference(len(data), 32, b"", Field.PAGE_HASH, Spelling.SHA256, Fill.GROW, Force.NEVER, hashed, page=page)
        )
        data += hashed
    return File(data, tuple(references))


def fitting(file: File, target: bytes) -> bool:
    listed = Relocatable(b"f", (), len(file.data), "0" * 64, file.references)
    return all(reference.force is not Force.ALWAYS for reference, _ in misfits(listed, Form(target)))


def outside(file: File, data: bytes, form: Form) -> Iterator[bytes]:
    """Yield the bytes between the slots."""
    at = 0
    end = 0
    for region in regions(file.references):
        yield data[at : at + region.start - end]
        at += region.start - end + length(region, form)
        end = region.end
    yield data[at:]


# Pairs of targets that mislead whoever guesses from the bytes alone.
PAIRS = [
    (OLD + b"/env", b"/n/env"),
    (OLD + b"2", OLD + b"/x"),
    (b"/old/place", b"/old"),
    (b"/n", b"/n/env"),
    (b"/n/env", b"/n"),
    (b"/m/env", b"/n/env"),
    (b"/e", b"/n/n"),
    (b"/env", b"/e"),
    (OLD, b"/n"),
    (b"/n", OLD),
    (b"/x", b"/x"),
]


def check_moves(file: File, a: bytes, b: bytes) -> None:
    forms = {target: Form(target) for target in (a, b)}
    for target, form in forms.items():
        assume(fitting(file, target))
        written = in_form(file.data, file.references, form)
        assert in_form(written, file.references, ARCHIVED, form) == file.data
        assert in_form(written, file.references, form, form) == written
        assert list(outside(file, written, form)) == list(outside(file, file.data, ARCHIVED))
        grown = 0
        for region in regions(file.references):
            room = length(region, form)
            if region.references[0].fill is not Fill.GROW:
                assert room == region.end - region.start
                kept = slice(region.end + grown - region.keep, region.end + grown)
                assert written[kept] == file.data[region.end - region.keep : region.end]
            grown += room - (region.end - region.start)
    at_a = in_form(file.data, file.references, forms[a])
    assert in_form(at_a, file.references, forms[b], forms[a]) == in_form(file.data, file.references, forms[b])


@given(files(), TARGET, TARGET)
def test_any_two_moves(file: File, a: bytes, b: bytes) -> None:
    check_moves(file, a, b)


@pytest.mark.parametrize(("a", "b"), PAIRS)
@settings(max_examples=40)
@given(data=st.data())
def test_moves_that_mislead(a: bytes, b: bytes, data: st.DataObject) -> None:
    check_moves(data.draw(files(growing=max(len(a), len(b)) > len(OLD))), a, b)


@given(files(b"/n", growing=True), TARGET, TARGET)
@example(File(b"/n/n/n", (slot(0, 2, Fill.GROW, prefix=b"/n"),)), b"/n/n", b"/n/n/n")
def test_moves_from_the_root(file: File, a: bytes, b: bytes) -> None:
    check_moves(file, a, b)


@given(files(), TARGET, st.data())
def test_a_changed_byte_is_never_taken_for_the_file(file: File, target: bytes, data: st.DataObject) -> None:
    """In a slot it is unlike at once; beside one the digest tells."""
    assume(fitting(file, target))
    form = Form(target)
    written = bytearray(in_form(file.data, file.references, form))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    try:
        seen, _ = transform(
            io.BytesIO(bytes(written)).read, lambda piece: None, regions(file.references), form, ARCHIVED
        )
    except Unlike:
        return
    assert seen != digest(file.data)


@given(files(), TARGET)
def test_regions_are_written_alone_as_in_a_file(file: File, target: bytes) -> None:
    assume(fitting(file, target))
    form = Form(target)
    for region in regions(file.references):
        if region.references[0].field is Field.PAGE_HASH:
            continue
        archived = file.data[region.start : region.end]
        written = write(region, archived, form)
        assert len(written) == length(region, form)
        assert undo(region, written, form) == archived
        assert write(region, archived, ARCHIVED) == undo(region, archived, ARCHIVED) == archived
