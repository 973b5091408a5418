"""A prefix is written as each syntax wants it, and what a syntax cannot hold is refused."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, unquote_to_bytes
from xml.sax.saxutils import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer_stub.model import Spelling
from installer_stub.spelling import Unspellable, spelled, spellings

# Paths without control characters: a target has none.
PATHS = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", codec="utf-8")).map(lambda s: f"/{s}")


@pytest.mark.parametrize(
    ("prefix", "spelling", "expected"),
    [
        (b"/opt/env", Spelling.PLAIN, b"/opt/env"),
        (b"/opt/\xff", Spelling.PLAIN, b"/opt/\xff"),
        (b"/opt/my env", Spelling.URL, b"/opt/my%20env"),
        (b"/opt/50%#?", Spelling.URL, b"/opt/50%25%23%3F"),
        ("/opt/é".encode(), Spelling.URL, b"/opt/%C3%A9"),
        (b"/opt/\xff", Spelling.URL, b"/opt/%FF"),
        (b"/opt/a+b@c~d", Spelling.URL, b"/opt/a+b@c~d"),
        (b"/opt/a+b@c~d", Spelling.URL_STRICT, b"/opt/a%2Bb%40c~d"),
        ("/é".encode(), Spelling.JSON_ASCII, b"/\\u00e9"),
        ("/🙂".encode(), Spelling.JSON_ASCII_SLASHES, b"\\/\\ud83d\\ude42"),
        (b"/R&D/<a>'\"", Spelling.XML, b"/R&amp;D/&lt;a&gt;&apos;&quot;"),
        (b"/opt/\xff", Spelling.XML, b"/opt/\xff"),
        (b"/opt/env", Spelling.JSON, b"\\/opt\\/env"),
        (b'/a"b\\c', Spelling.JSON, b'\\/a\\"b\\\\c'),
        (b"/opt/my env", Spelling.SHELL, b"/opt/my\\ env"),
        (b"/a$b`c(d)'e", Spelling.SHELL, b"/a\\$b\\`c\\(d\\)\\'e"),
        ("/opt/é".encode(), Spelling.SHELL, "/opt/é".encode()),
        (b"/a", Spelling.UTF16LE, b"/\0a\0"),
        (b"/a", Spelling.UTF16BE, b"\0/\0a"),
        ("/🙂".encode(), Spelling.UTF16LE, b"/\0\x3d\xd8\x42\xde"),
    ],
)
def test_spelled(prefix: bytes, spelling: Spelling, expected: bytes) -> None:
    assert spelled(prefix, spelling) == expected


@pytest.mark.parametrize(
    "spelling",
    [Spelling.JSON, Spelling.JSON_ASCII, Spelling.JSON_ASCII_SLASHES, Spelling.UTF16LE, Spelling.UTF16BE],
)
def test_text_cannot_hold_any_path(spelling: Spelling) -> None:
    with pytest.raises(Unspellable, match=r"not UTF-8"):
        spelled(b"/opt/\xff", spelling)


@pytest.mark.parametrize("spelling", [Spelling.HEX, Spelling.RECORD, Spelling.SHA256])
def test_a_digest_is_no_place_for_a_prefix(spelling: Spelling) -> None:
    with pytest.raises(Unspellable, match="digest"):
        spelled(b"/opt/env", spelling)


@given(PATHS)
def test_readers_read_what_was_written(path: str) -> None:
    prefix = path.encode()
    assert unquote_to_bytes(spelled(prefix, Spelling.URL)) == prefix
    assert unquote_to_bytes(spelled(prefix, Spelling.URL_STRICT)) == prefix
    assert f"file://{spelled(prefix, Spelling.URL_STRICT).decode()}" == "file://" + quote(path, safe="/")
    for spelling in (Spelling.JSON, Spelling.JSON_ASCII, Spelling.JSON_ASCII_SLASHES):
        assert json.loads(b'"' + spelled(prefix, spelling) + b'"') == path
    assert unescape(spelled(prefix, Spelling.XML).decode(), {"&quot;": '"', "&apos;": "'"}) == path
    assert shlex.split(spelled(prefix, Spelling.SHELL).decode()) == [path]
    assert spelled(prefix, Spelling.UTF16BE).decode("utf-16-be") == path


def test_what_is_written_alike_is_looked_for_once() -> None:
    assert spellings(b"/opt/env") == {b"/opt/env": Spelling.PLAIN, b"\\/opt\\/env": Spelling.JSON}


def test_a_utf16_file_holds_nothing_else() -> None:
    assert spellings(b"/a", Spelling.UTF16LE) == {b"/\0a\0": Spelling.UTF16LE}


def test_what_cannot_be_written_is_not_looked_for() -> None:
    assert spellings(b"/\xff", Spelling.UTF16LE) == {}
    assert spellings(b"/\xff") == {b"/\xff": Spelling.PLAIN, b"/%FF": Spelling.URL}
