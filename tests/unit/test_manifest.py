"""What is written is read back, whatever the paths; anything else is refused as damaged, with its name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer_stub.errors import ManifestError
from installer_stub.manifest import FORMAT, decode, dump, dump_listing, encode, is_ours, load, load_listing
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

HASH = "0123456789abcdef" * 4
PLACEHOLDER = b"/".ljust(255, b"p")
LINE = b"#!/opt/env/bin/python\n"
ROW = b"sha256=" + b"A" * 43 + b",12"


def reference(offset: int, room: int, field: Field, fill: Fill, **more: Any) -> Reference:
    facts: dict[str, Any] = {"prefix": b"/opt/env", "spelling": Spelling.PLAIN, "force": Force.ALWAYS, **more}
    return Reference(offset=offset, room=room, field=field, fill=fill, **facts)


MANIFEST = Manifest(
    (PLACEHOLDER, b"/opt/env"),
    (
        Relocatable(
            b"bin/tool",
            (b"bin/tool-1.0", b"lib/\xff"),
            1000,
            HASH,
            (
                reference(0, len(LINE), Field.SHEBANG, Fill.GROW, archived=LINE),
                reference(30, 8, Field.TEXT, Fill.GROW),
                reference(40, 11, Field.TEXT, Fill.GROW, spelling=Spelling.JSON),
            ),
        ),
        Relocatable(
            b"lib/a.so",
            (),
            5000,
            HASH,
            (
                reference(0, 600, Field.C_STRING, Fill.NULS, prefix=PLACEHOLDER),
                reference(300, 300, Field.C_STRING, Fill.NULS, prefix=PLACEHOLDER),
                reference(700, 8, Field.C_STRING, Fill.SLASHES, force=Force.UNLESS_ALLOWED),
                reference(800, 12, Field.RUN_PATH, Fill.TERMINATE),
                reference(900, 16, Field.TEXT, Fill.GROW, spelling=Spelling.UTF16LE),
                reference(930, 12, Field.RUN_PATH, Fill.KEEP, archived=b"/opt/env/lib"),
                reference(950, 8, Field.C_STRING, Fill.SLASHES, keep=3),
                reference(960, 8, Field.C_STRING, Fill.SLASHES, keep=None),
                reference(970, 8, Field.TEXT, Fill.GROW, bare=True),
                Reference(
                    980,
                    20,
                    b"",
                    Field.PAGE_HASH,
                    Spelling.SHA1,
                    Fill.GROW,
                    Force.NEVER,
                    bytes(range(20)),
                    page=(0, 980),
                ),
            ),
        ),
        Relocatable(
            b"lib/x.dist-info/RECORD",
            (),
            200,
            HASH,
            (
                Reference(
                    10,
                    len(ROW),
                    b"",
                    Field.DIGEST,
                    Spelling.RECORD,
                    Fill.GROW,
                    Force.NEVER,
                    ROW,
                    b"bin/tool",
                ),
            ),
        ),
    ),
    (b"bin/activate", b"bin/conda-unpack"),
    "activate",
)
LISTING = Listing(
    (
        Entry(b"bin", Kind.DIRECTORY, 0o755, 0, 0, b"", "", Standing.ADDED, ""),
        Entry(b"bin/tool", Kind.FILE, 0o755, 1000, 1_700_000_000, b"", HASH, Standing.INTACT, "tool-1.0-0"),
        Entry(b"bin/tool-1.0", Kind.HARD_LINK, 0o755, 0, -1, b"bin/tool", "", Standing.INTACT, "tool-1.0-0"),
        Entry(b"lib/link", Kind.SYMLINK, 0o777, 0, 0, b"../../\xff", "", Standing.ADDED, ""),
    ),
    (Finding(b"lib/\xff", 17, "uncertain", "'é\n\u2028"), Finding(b"lib/link", -1, "leaves", "\udcff")),
)

PATHS = st.binary(min_size=1, max_size=40).filter(
    lambda path: b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))
)


def test_both_files_are_read_back() -> None:
    assert load(dump(MANIFEST)) == MANIFEST
    assert load_listing(dump_listing(LISTING)) == LISTING


def test_a_placeholder_of_windows_is_a_prefix_that_files_name() -> None:
    """Packages without architecture are built there, too, and installed here."""
    manifest = Manifest((b"D:\\bld\\env",), (), (), "activate")
    assert load(dump(manifest)) == manifest


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b".pack", True),
        (b".installing", True),
        (b"bin/activate", True),
        (b"bin", False),
        (b"bin/tool", False),
        (b"share/.installing", False),
        (b".installing2", False),
    ],
)
def test_what_packing_and_installing_put_into_a_tree(path: bytes, expected: bool) -> None:
    assert is_ours(path, MANIFEST) is expected


def test_there_is_a_line_for_each_fact() -> None:
    """So that two manifests can be compared by eye."""
    lines = dump(MANIFEST).decode().splitlines()
    assert [line for line in lines if line.startswith('["bin/tool"')] == [lines[6]]
    assert len(lines) == 11
    assert dump(MANIFEST).endswith(b"}\n")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"bin/tool", "bin/tool"),
        ("é/🙂".encode(), "é/🙂"),
        (b"100%", "100%25"),
        (b"a\nb\x7f", "a%0Ab%7F"),
        (b"\xff\xc3", "%FF%C3"),
        (b"\xed\xa0\x80", "%ED%A0%80"),
        (b'"\\', '"\\'),
        (b"", ""),
    ],
)
def test_encode(path: bytes, text: str) -> None:
    assert encode(path) == text
    assert decode(text) == path


@given(st.binary())
def test_any_bytes_are_read_back(path: bytes) -> None:
    text = encode(path)
    assert decode(text) == path
    assert decode(json.loads(json.dumps(text))) == path
    text.encode()
    assert text.isprintable() or not any(ord(char) < 0x20 for char in text)


@given(st.lists(PATHS, max_size=4), PATHS, st.text(), st.binary())
def test_any_paths_are_read_back(names: list[bytes], path: bytes, detail: str, target: bytes) -> None:
    file = Relocatable(path, tuple(names), 0, HASH, ())
    manifest = Manifest((b"/" + path,), (file,), tuple(names), "pack-activate")
    assert load(dump(manifest)) == manifest
    entries = tuple(Entry(name, Kind.SYMLINK, 0, 0, 0, target, "", Standing.ADDED, detail) for name in names)
    listing = Listing(entries, (Finding(path, -1, detail, detail),))
    assert load_listing(dump_listing(listing)) == listing


def changed(document: bytes, change: Callable[[Any], object]) -> bytes:
    parsed = json.loads(document)
    change(parsed)
    return json.dumps(parsed).encode()


def put(*where: Any) -> Callable[[Any], None]:
    """Give a change that puts the last of ``where`` in the place that the others name."""
    *path, last, value = where

    def change(document: Any) -> None:
        for step in path:
            document = document[step]
        document[last] = value

    return change


FILE, LIBRARY, RECORD = ("files", 0), ("files", 1), ("files", 2)
FIRST, SECOND = (*FILE, 4, 0), (*FILE, 4, 1)
DIGEST = (*RECORD, 4, 0)
SHARED, PAGE = (*LIBRARY, 4, 6), (*LIBRARY, 4, 9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put(*FILE, 0, "../x"), "a path that leaves the prefix"),
        (put(*FILE, 0, "a/../../x"), "a path that leaves it on the way"),
        (put(*FILE, 0, "%2E%2E/x"), "a path that leaves it in disguise"),
        (put(*FILE, 0, "a%2F..%2Fx"), "a slash in disguise"),
        (put(*FILE, 0, "/etc/passwd"), "an absolute path"),
        (put(*FILE, 0, ""), "no path"),
        (put(*FILE, 0, "."), "the prefix itself"),
        (put(*FILE, 0, "a//b"), "an empty component"),
        (put(*FILE, 0, "a/"), "a slash at the end"),
        (put(*FILE, 0, "a%00b"), "a NUL"),
        (put(*FILE, 0, 5), "a number for a path"),
        (put(*FILE, 0, None), "null for a path"),
        (put(*FILE, 0, ["a"]), "a list for a path"),
        (put(*FILE, 0, "\ud800"), "half a surrogate pair"),
        (put(*FILE, 1, ["../x"]), "another name that leaves the prefix"),
        (put(*FILE, 1, "../x"), "text for a list of names"),
        (put(*FILE, 2, -1), "a negative size"),
        (put(*FILE, 2, 1000.0), "a size that is not whole"),
        (put(*FILE, 2, "1000"), "a size in quotes"),
        (put(*FILE, 2, True), "a truth value for a size"),
        (put(*FILE, 2, 45), "a size that a slot reaches beyond"),
        (put(*FILE, 3, HASH[1:]), "a short hash"),
        (put(*FILE, 3, HASH + "0"), "a long hash"),
        (put(*FILE, 3, HASH.upper()), "a hash in capitals"),
        (put(*FILE, 3, 0), "a number for a hash"),
        (put(*FILE, 4, None), "null for the references"),
        (put(*FILE, []), "an empty row"),
        (put(*FIRST, 0, -1), "a negative offset"),
        (put(*FIRST, 0, 1.5), "an offset that is not whole"),
        (put(*FIRST, 0, 999), "a slot that reaches beyond the file"),
        (put(*FIRST, 1, 10**30), "a slot of any length"),
        (put(*SECOND, 0, 10), "a slot inside another"),
        (put(*SECOND, 0, 50), "slots out of order"),
        (put(*SECOND, 2, 2), "a prefix that is not listed"),
        (put(*SECOND, 2, -2), "a prefix that is not listed, from the end"),
        (put(*SECOND, 2, -1), "no prefix"),
        (put(*SECOND, 2, True), "a truth value for a number"),
        (put(*SECOND, 2, 0.5), "half a prefix"),
        (put(*SECOND, 1, 0), "no room"),
        (put(*LIBRARY, 4, 2, 1, 7), "less room than the prefix takes"),
        (put(*LIBRARY, 4, 2, 4, "HEX"), "a prefix written as a digest"),
        (put(*SECOND, 3, "text"), "a value for a name"),
        (put(*SECOND, 3, ["TEXT"]), "a list for a name"),
        (put(*SECOND, 4, "ROT13"), "an unknown spelling"),
        (put(*SECOND, 5, "SHRINK"), "an unknown fill"),
        (put(*SECOND, 6, "MAYBE"), "an unknown force"),
        (put(*FIRST, 7, ""), "a shebang without its line"),
        (put(*DIGEST, 2, 0), "a digest with a prefix"),
        (put(*DIGEST, 7, "of", "../x"), "a digest of a file outside"),
        (put(*PAGE, 7, "page", [0, 5001]), "a page that reaches beyond the file"),
        (put(*PAGE, 7, "page", [5, 5]), "a page without a byte"),
        (put(*PAGE, 7, "page", [5]), "a page without an end"),
        (put(*PAGE, 2, 0), "a page hash with a prefix"),
        (put(*SHARED, 7, "keep", -1), "fewer than no bytes are shared"),
        (put(*SHARED, 7, "kept", 1), "a fact that is not known"),
        (put(*SHARED, 7, 5), "a number for facts"),
        (put("prefixes", 0, ""), "an empty prefix"),
        (put("prefixes", 0, "/"), "the root"),
        (put("prefixes", 0, "/a%00b"), "a NUL in a prefix"),
        (put("prefixes", None), "no prefixes"),
        (put("added", ["../../etc/x"]), "an added path outside"),
        (put("stem", "../../x"), "a script outside"),
        (put("stem", None), "no name for the scripts"),
        (put("format", None), "no format"),
        (put("format", True), "a truth value for the format"),
        (lambda document: document.pop("format"), "the format is missing"),
        (lambda document: document.pop("files"), "the files are missing"),
        (lambda document: document.pop("stem"), "the stem is missing"),
    ],
)
def test_a_damaged_manifest_is_refused(change: Callable[[Any], object], why: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(changed(dump(MANIFEST), change))
    assert str(caught.value).startswith(".pack/references.json is damaged: "), why
    assert caught.value.tip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("entries", 1, 0, "../x"), "a path that leaves the prefix"),
        (put("entries", 1, 1, "FIFO"), "an unknown kind"),
        (put("entries", 1, 1, {}), "an object for a kind"),
        (put("entries", 1, 2, -1), "a negative mode"),
        (put("entries", 1, 2, True), "a truth for a mode"),
        (put("entries", 1, 3, -1), "a negative size"),
        (put("entries", 1, 3, None), "no size"),
        (put("entries", 1, 4, 1e999), "a time without end"),
        (put("entries", 1, 4, 1.5), "half a second"),
        (put("entries", 1, 5, 0), "a number for a target"),
        (put("entries", 2, 5, "../../etc/passwd"), "a hard link to a file outside"),
        (put("entries", 2, 5, "/etc/passwd"), "a hard link to an absolute path"),
        (put("entries", 1, 6, "x"), "no hash"),
        (put("entries", 1, 6, "AB" * 32), "a hash in capitals"),
        (put("entries", 1, 6, "0" * 63), "a hash that is cut"),
        (put("entries", 1, 6, 5), "a number for a hash"),
        (put("entries", 1, 6, None), "null for a hash"),
        (put("entries", 1, 7, "intact"), "a value for a name"),
        (put("entries", 1, 8, None), "no package"),
        (put("entries", 1, [1, 2]), "a short row"),
        (put("entries", 1, "nineletts"), "text for a row"),
        (put("entries", 1, None), "no row"),
        (put("findings", 0, 1, 1e999), "an offset without end"),
        (put("findings", 0, 2, None), "no word"),
        (put("findings", 0, 3, 5), "a number for a detail"),
        (lambda document: document.pop("entries"), "the entries are missing"),
    ],
)
def test_a_damaged_listing_is_refused(change: Callable[[Any], object], why: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_listing(changed(dump_listing(LISTING), change))
    assert str(caught.value).startswith(".pack/files.json is damaged: "), why


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"null",
        b"5",
        b"[]",
        b'"format"',
        b"{}",
        b"[" * 200_000,
        b'{"format":' * 50_000,
        b'{"format": NaN}',
        b'{"format": 1, "prefixes": 5, "files": [], "added": [], "stem": "activate"}',
        b'{"format": 1, "prefixes": [], "files": {"a": 1}, "added": [], "stem": "activate"}',
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    for read in (load, load_listing):
        with pytest.raises(ManifestError):
            read(data)


def test_another_format_is_told_from_damage() -> None:
    newer = put("format", FORMAT + 1)
    for read, document in ((load, dump(MANIFEST)), (load_listing, dump_listing(LISTING))):
        with pytest.raises(ManifestError, match=f"its format is {FORMAT + 1}, and this version reads {FORMAT}"):
            read(changed(document, newer))


@pytest.mark.parametrize("document", [dump(MANIFEST), dump_listing(LISTING)])
def test_a_document_cut_anywhere_is_refused(document: bytes) -> None:
    for end in range(len(document.rstrip(b"}\n"))):
        with pytest.raises(ManifestError):
            load(document[:end])
        with pytest.raises(ManifestError):
            load_listing(document[:end])


@given(st.data())
def test_whatever_is_put_anywhere_is_a_manifest_or_refused(data: st.DataObject) -> None:
    """No other exception leaves the reader."""
    document = copy.deepcopy(json.loads(data.draw(st.sampled_from([dump(MANIFEST), dump_listing(LISTING)]))))
    at: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if isinstance(at[key], (dict, list)) and at[key] and data.draw(st.booleans()):
            at = at[key]
        else:
            break
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    )
    at[key] = data.draw(anything)
    for read in (load, load_listing):
        try:
            read(json.dumps(document).encode())
        except ManifestError:
            continue
