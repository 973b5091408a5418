"""A prefix is found wherever it is written, and only there: its neighbours tell."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from installer_stub.match import (
    LEFT,
    Hit,
    is_reference,
    is_url,
    landmarks,
    left_boundary,
    needles,
    right_boundary,
    search,
)
from installer_stub.model import Spelling

PREFIX = b"/opt/env"


def hits(data: bytes, *prefixes: bytes, utf16: Spelling = Spelling.PLAIN) -> list[Hit]:
    return list(search([data], needles(prefixes or (PREFIX,), utf16)))


def references(data: bytes, *prefixes: bytes, utf16: Spelling = Spelling.PLAIN) -> list[int]:
    return [hit.offset for hit in hits(data, *prefixes, utf16=utf16) if is_reference(hit)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"/opt/env", "nothing beside it"),
        (b"/opt/env/bin", "a path in it"),
        (b"-I/opt/env/include", "an option with its value"),
        (b"cc -L/opt/env/lib", "an option in a command"),
        (b"-isystem/opt/env/include", "an option of several letters"),
        (b"-Wl,-rpath,/opt/env/lib", "an option for the linker"),
        (b"-Wl,-rpath=/opt/env/lib", "an option for the linker with an equals sign"),
        (b"--prefix=/opt/env", "a long option"),
        (b"@/opt/env/args", "a response file"),
        (b"file:///opt/env/x", "a file URL without a host"),
        (b"file://localhost/opt/env/x", "a file URL with a host"),
        (b"file:/opt/env/x", "a file URL with one slash"),
        (b"see <file:///opt/env>", "a file URL in angle brackets"),
        (b"PATH=/opt/env/bin:", "the first directory of a search path"),
        (b"PATH=/bin:/opt/env/bin:/usr/bin", "a later directory of a search path"),
        (b"PATH=/opt/env:/bin", "a colon behind it"),
        (b'"/opt/env"', "double quotes"),
        (b"'/opt/env'", "single quotes"),
        (b"`/opt/env/bin/x`", "backticks"),
        (b"(/opt/env)", "parentheses"),
        (b"[/opt/env]", "brackets"),
        (b"{/opt/env,/x}", "a comma behind it"),
        (b"a|/opt/env|b", "bars"),
        (b"x;/opt/env;y", "semicolons"),
        (b"x&/opt/env&y", "ampersands"),
        (b"</opt/env>", "angle brackets"),
        (b"It is in /opt/env.", "the end of a sentence at the end of the file"),
        (b"It is in /opt/env. Then", "the end of a sentence"),
        (b"It is in /opt/env.\n", "the end of a paragraph"),
        (b"in /opt/env, or", "a comma in a sentence"),
        (b"is it /opt/env?", "a question"),
        (b"\0/opt/env\0", "a C string"),
        (b"\xef\xbb\xbf/opt/env", "a byte order mark"),
        (b"\t/opt/env\r\n", "white space"),
        (b"#!/opt/env/bin/python", "a shebang"),
        (b'"prefix":"/opt/env\\n"', "an escaped newline behind it"),
        (b'{"a":"\\/opt\\/env\\/bin"}', "JSON with its slashes escaped"),
    ],
)
def test_reference(data: bytes, why: str) -> None:
    assert len(references(data)) == 1, why


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"/opt/env2/x", "another directory, a digit longer"),
        (b"/opt/env-old", "another directory with a dash"),
        (b"/opt/env_old", "another directory with an underscore"),
        (b"/opt/env.old/x", "another directory with a suffix"),
        (b"/opt/env..", "a name that ends in full stops"),
        (b"/opt/env~", "a backup"),
        (b"/opt/env+x", "another directory with a plus sign"),
        (b"/opt/env@2", "another directory with an at sign"),
        (b"/opt/env%20x", "a percent-encoded name that is longer"),
        (b"/opt/env\xc3\xa9", "a name that goes on in UTF-8"),
        (b"/opt/env\xe9", "a name that goes on in Latin-1"),
        (b"/opt/env\\ x", "an escaped space that belongs to the name"),
        (b"/usr/opt/env", "another directory above it"),
        (b"relative/opt/env", "a relative path"),
        (b"./opt/env", "a relative path with a dot"),
        (b"../opt/env", "a relative path upwards"),
        (b"~/opt/env", "a path in a home directory"),
        (b"$HOME/opt/env", "a path behind a variable"),
        (b"${HOME}/opt/env", "a path behind a variable in braces"),
        (b"$(pwd)/opt/env", "a path behind a command"),
        (b"http://host/opt/env", "the URL of another host"),
        (b"https://example.org:80/x/opt/env", "a path deep in a URL"),
        (b"profile://host/opt/env", "another scheme that ends in file"),
        (b"-I2/opt/env", "an option with a relative path"),
        (b"--I/opt/env", "no option that takes its value so"),
        (b"\xe9/opt/env", "a name in Latin-1 above it"),
        (b"/opt/en", "a name that is too short"),
        (b"/OPT/ENV", "a name in capitals"),
    ],
)
def test_no_reference(data: bytes, why: str) -> None:
    assert references(data) == [], why


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (b"", True),
        (b"x" * LEFT, False),
        (b" " + b"x" * LEFT, False),
        (b"x" * LEFT + b"-I", False),
        (b" -I", True),
        (b"file://", True),
        (b"file://a.b-c", True),
        (b"file://a_b", False),
    ],
)
def test_left_boundary(left: bytes, expected: bool) -> None:
    assert left_boundary(left) is expected


def test_a_url_is_told_from_a_path() -> None:
    assert is_url(b"see file://")
    assert is_url(b"file:")
    assert not is_url(b"see ")
    assert not is_url(b"myfile:")


@pytest.mark.parametrize(("right", "expected"), [(b"", True), (b".", True), (b"./", False), (b".x", False)])
def test_right_boundary(right: bytes, expected: bool) -> None:
    assert right_boundary(right) is expected


def test_every_spelling_is_found_and_named() -> None:
    prefix = b"/opt/my env"
    text = b'/opt/my env|file:///opt/my%20env/x|"\\/opt\\/my env\\/x"|cd /opt/my\\ env/x'
    assert [(hit.spelling, hit.prefix) for hit in hits(text, prefix) if is_reference(hit)] == [
        (Spelling.PLAIN, prefix),
        (Spelling.URL, prefix),
        (Spelling.JSON, prefix),
        (Spelling.SHELL, prefix),
    ]


@pytest.mark.parametrize("spelling", [Spelling.UTF16LE, Spelling.UTF16BE])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/opt/env", 1),
        ("a = /opt/env\n", 1),
        ("file:///opt/env/x /opt/env2 /usr/opt/env -I/opt/env", 2),
        ("é/opt/env", 0),
        ("/opt/envé", 0),
        ("🙂 /opt/env 🙂", 1),
        ("/opt/env🙂", 0),
    ],
)
def test_utf16_neighbours_are_characters(spelling: Spelling, text: str, expected: int) -> None:
    data = ("\ufeff" + text).encode(spelling.value)
    assert len(references(data, utf16=spelling)) == expected


def test_utf16_begins_at_an_even_offset() -> None:
    data = b"\xff\xfe\x20" + "/opt/env".encode("utf-16-le") + b"\x20"
    assert references(data, utf16=Spelling.UTF16LE) == []


def test_of_two_names_the_longest_stands() -> None:
    found = hits(b"/opt/env/sub/x /opt/env/x", b"/opt/env/sub", b"/opt/env")
    assert [hit.prefix for hit in found] == [b"/opt/env/sub", b"/opt/env"]


def test_a_longer_name_that_does_not_end_hides_no_shorter_one() -> None:
    """A tree stood at /a/env, then at /a/env/env; /a/env/environ is a file of the first."""
    found = hits(b" /a/env/environ", b"/a/env/env", b"/a/env")
    assert [(hit.prefix, is_reference(hit)) for hit in found] == [(b"/a/env", True)]


def test_a_name_inside_another_is_no_hit_of_its_own() -> None:
    found = hits(b"/mnt/data/env/x", b"/mnt/data/env", b"/data/env", b"/env")
    assert [hit.offset for hit in found] == [0]


def test_an_earlier_prefix_has_precedence() -> None:
    """Two prefixes may be written alike in different spellings."""
    table = needles([b"/a b", b"/a%20b"])
    assert table[b"/a%20b"] == (b"/a b", Spelling.URL)


def test_nothing_to_look_for_reads_the_stream_to_its_end() -> None:
    """Whoever counts and hashes the stream relies on it."""
    seen = []

    def chunks() -> Iterator[bytes]:
        for chunk in (b"a", b"b"):
            seen.append(chunk)
            yield chunk

    assert list(search(chunks(), {})) == []
    assert seen == [b"a", b"b"]


PIECES = st.sampled_from(
    [b"/opt/env", b"/a/a", b"/b/a", b"/", b"a", b"/opt", b"/env", b" ", b"x" * 300, b".", b"2", b"\0", b"file://"]
)
NAMES = [b"/opt/env/opt/env", b"/opt/env", b"/a/a", b"/b/a", b"/a"]


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 3000), max_size=8))
@example(b"/b/a/a/a/a", [5, 6, 7])
@example(b"/opt/env/opt/env/opt/env", [1, 9])
def test_the_same_hits_however_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    table = needles(NAMES)
    whole = list(search([data], table))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert list(search([data[a:b] for a, b in pairwise(edges)], table)) == whole
    assert list(search((data[at : at + 1] for at in range(len(data))), table)) == whole


@pytest.mark.parametrize("at", [*range(980, 1021), *range(1980, 2021), 0, 500, 1500, 2990])
def test_a_hit_across_the_edge_of_chunks_that_hold_none(at: int) -> None:
    data = bytearray(b" " * 3000)
    data[at : at + len(PREFIX)] = PREFIX
    found = list(search([bytes(data[edge : edge + 1000]) for edge in (0, 1000, 2000)], needles(NAMES)))
    assert [(hit.offset, hit.left, hit.right) for hit in found] == [
        (at, bytes(data[max(0, at - LEFT) : at]), bytes(data[at + len(PREFIX) :][:4]))
    ]


@pytest.mark.parametrize(
    ("prefixes", "utf16", "expected"),
    [
        ([b"/opt/my env"], Spelling.PLAIN, [b"opt"]),
        ([b"/opt/env-3.11"], Spelling.PLAIN, [b"env-3.11"]),
        ([b"/opt/env", b"/srv/env"], Spelling.PLAIN, [b"opt", b"srv"]),
        (["/é".encode()], Spelling.PLAIN, ["/é".encode(), b"C3", b"u00e9"]),
        ([b"/o"], Spelling.UTF16LE, [b"o"]),
    ],
)
def test_each_needle_holds_a_landmark(prefixes: list[bytes], utf16: Spelling, expected: list[bytes]) -> None:
    table = needles(prefixes, utf16)
    marks = landmarks(tuple(table))
    assert list(marks) == expected
    assert all(any(mark in needle for mark in marks) for needle in table)


@given(st.lists(PIECES, max_size=12).map(b"".join))
def test_hits_are_in_order_and_do_not_overlap(data: bytes) -> None:
    found = hits(data, *NAMES)
    for hit in found:
        assert data[hit.offset : hit.offset + len(hit.needle)] == hit.needle
        assert data[: hit.offset].endswith(hit.left)
        assert data[hit.offset + len(hit.needle) :].startswith(hit.right)
    assert all(a.offset + len(a.needle) <= b.offset for a, b in pairwise(found))
    for name in NAMES:  # none is missed: each occurrence is a hit or overlaps one
        at = data.find(name)
        while at >= 0:
            assert any(hit.offset < at + len(name) and at < hit.offset + len(hit.needle) for hit in found)
            at = data.find(name, at + 1)


def test_memory_is_that_of_a_chunk() -> None:
    """A line of 64 MB is looked at in pieces of 64 kB."""
    piece = b"x" * (1 << 16)

    def chunks() -> Iterator[bytes]:
        for _ in range(1024):
            yield piece
        yield b" /opt/env"

    tracemalloc.start()
    try:
        found = list(search(chunks(), needles([PREFIX])))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [hit.offset for hit in found] == [(1 << 26) + 1]
    assert peak < 1 << 20
