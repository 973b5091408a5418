"""The hash of every page of a signature is found, and after a change the right ones are written anew.

No Mac had a say in this: that a hash is the SHA-256 of its page is what the format says, and what three
independent producers do. Whether macOS loads the file is not shown here.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import macos
from installer_stub.codesign import (
    HashKind,
    PageHash,
    Signature,
    SignatureTouched,
    page_hashes,
    signatures,
)
from installer_stub.errors import PackError
from installer_stub.macho import Command, MachO, OddMachO, Section, Slice, parse
from tests.unit.reader import Reader

OLD, NEW = b"/opt/environment", b"/a/very/different"[:16]
assert len(OLD) == len(NEW)


def headers(data: bytes) -> MachO:
    parsed = parse(Reader(data), len(data))
    assert parsed is not None
    return parsed


def read(data: bytes) -> tuple[Signature, ...]:
    return signatures(Reader(data), headers(data))


def holds(data: bytes | bytearray, found: PageHash) -> bool:
    """Whether a hash in the signature is that of its page."""
    return found.of(data[found.start : found.end]) == data[found.offset : found.offset + found.length]


def broken(data: bytes) -> list[PageHash]:
    """Return all hashes of all signatures that do not hold."""
    return [found for signature in read(data) for found in signature.hashes() if not holds(data, found)]


def changed(data: bytes, places: Sequence[int], new: bytes = NEW) -> bytes:
    """Write ``new`` over the bytes at some places."""
    out = bytearray(data)
    for place in places:
        out[place : place + len(new)] = new
    return bytes(out)


def signed_again(data: bytes, touched: Sequence[tuple[int, int]]) -> bytes:
    """Compute the hashes of the touched pages anew, as relocation does."""
    out = bytearray(data)
    for found in page_hashes(Reader(data), headers(data), touched):
        out[found.offset : found.offset + found.length] = found.of(data[found.start : found.end])
    return bytes(out)


def occurrences(data: bytes, what: bytes) -> list[int]:
    places, at = [], data.find(what)
    while at >= 0:
        places.append(at)
        at = data.find(what, at + 1)
    return places


def blob(magic: int, body: bytes) -> bytes:
    return struct.pack(">2I", magic, len(body) + 8) + body


def directory(
    code: bytes,
    *,
    kind: int = 2,
    page_bits: int = 4,
    version: int = 0x20400,
    flags: int = 2,
    special: Sequence[bytes] = (),
    runs: Sequence[tuple[int, int]] = (),
    **said: int,
) -> bytes:
    """Write a code directory over ``code``. ``runs``: number and first of scattered pages; ``said``: what it lies."""
    digest: Callable[[bytes], bytes] = {
        1: lambda page: hashlib.sha1(page).digest(),
        2: lambda page: hashlib.sha256(page).digest(),
        3: lambda page: hashlib.sha256(page).digest()[:20],
        4: lambda page: hashlib.sha384(page).digest(),
    }[kind]
    page = 1 << page_bits if page_bits else max(len(code), 1)
    pages = [code[at : at + page] for at in range(0, len(code), page)]
    if runs:
        pages = [pages[number] for count, first in runs for number in range(first, first + count)]
    scatter = b"".join(struct.pack(">2I2Q", count, first, 0, 0) for count, first in [*runs, (0, 0)]) if runs else b""
    size = {0x20001: 44, 0x20100: 48, 0x20300: 64, 0x20400: 88}[version]
    identifier = size + len(scatter)
    hashes_at = identifier + 8 + len(special) * len(digest(b""))
    values = {"hashes_at": hashes_at, "count": len(pages), "limit": len(code), "limit_64": 0, **said}
    fixed = struct.pack(
        ">7I4B4x",
        version,
        flags,
        values["hashes_at"],
        identifier,
        values.get("special_count", len(special)),
        values["count"],
        values["limit"],
        values.get("length", len(digest(b""))),
        values.get("kind_said", kind),
        0,
        page_bits,
    )
    rest = struct.pack(">3IQ24x", size if runs else 0, 0, 0, values["limit_64"])
    body = (fixed + rest)[: size - 8] + scatter + b"program\0" + b"".join(special)
    return blob(0xFADE0C02, body + b"".join(map(digest, pages)))


def super_blob(*parts: tuple[int, bytes], count: int | None = None) -> bytes:
    index, data = b"", b""
    for kind, part in parts:
        index += struct.pack(">2I", kind, 12 + 8 * len(parts) + len(data))
        data += part
    return blob(0xFADE0CC0, struct.pack(">I", len(parts) if count is None else count) + index + data)


def signed(code: bytes, signature: bytes, before: bytes = b"") -> tuple[bytes, MachO]:
    """Lay code and its signature into a file, behind ``before``, as a slice that has no load commands."""
    at = len(before) + len(code)
    part = Slice(len(before), len(code) + len(signature), 64, True, 12, 2, signature=(at, len(signature)))
    return before + code + signature, MachO(bool(before), (part,))


CODE = bytes(range(100))


def wheels() -> list[Path]:
    return macos.mach_o_files(macos.or_skip(macos.wheels))


def test_apples_signatures_hold() -> None:
    """Every page of every library for Arm hashes as Apple's ld and codesign say, in thin and in fat files."""
    pages, kinds = 0, set()
    for path in wheels():
        data = path.read_bytes()
        assert broken(data) == [], path
        for signature in read(data):
            assert signature.is_adhoc and signature.says_adhoc
            covered = list(signature.hashes())
            assert covered[-1].end == signature.offset, "all before the signature is covered"
            assert [found.end for found in covered[:-1]] == [found.start for found in covered[1:]]
            pages += len(covered)
            kinds.add((signature.is_linker_signed, headers(data).is_fat))
    assert pages > 3000
    assert kinds >= {(True, True), (True, False), (False, False)}, "by ld and by codesign"


@pytest.mark.parametrize("find", macos.producers())
def test_signatures_of_linkers_hold(find: Callable[[], Path]) -> None:
    paths = macos.mach_o_files(macos.or_skip(find))
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert broken(data) == [], path
        assert len(read(data)) == len(headers(data).slices)


@pytest.mark.parametrize("find", macos.producers())
def test_changed_and_signed_again(find: Callable[[], Path]) -> None:
    """A run path, a library's name and a C string are changed; only the pages that hold them have new hashes."""
    paths = [path for path in macos.mach_o_files(macos.or_skip(find)) if path.name == "program"]
    assert paths
    for path in paths:
        data = path.read_bytes()
        places = occurrences(data, OLD)
        parsed = headers(data)
        sections = [parsed.section_at(place) for place in places]
        names = {section.name if section else b"" for section in sections}
        assert names == {b"", b"__cstring"}, "in load commands and in C strings"
        touched = [(place, place + len(NEW)) for place in places]
        without = changed(data, places)
        wrong = broken(without)
        assert 0 < len(wrong) < len(list(read(data)[0].hashes())) * len(parsed.slices)
        assert sorted(wrong, key=lambda found: found.offset) == page_hashes(Reader(data), parsed, touched)
        again = signed_again(without, touched)
        assert broken(again) == []
        slots = [*touched, *((found.offset, found.offset + found.length) for found in wrong)]
        assert all(data[at] == again[at] or any(a <= at < b for a, b in slots) for at in range(len(data)))
        assert signed_again(changed(again, places, OLD), touched) == data, "and back"


def install_name_tool(path: Path, *arguments: str) -> bytes:
    subprocess.run([tool("llvm-install-name-tool"), *arguments, path], check=True)
    return path.read_bytes()


def tool(program: str) -> str:
    try:
        return macos.llvm(program)
    except macos.MacFilesUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("find", macos.producers())
@pytest.mark.parametrize(
    ("name", "option"),
    [("program", "-rpath"), ("program", "-change"), ("library.dylib", "-id")],
)
def test_as_install_name_tool(tmp_path: Path, find: Callable[[], Path], name: str, option: str) -> None:
    """The same change made by LLVM's tool, which lays the file out anew and signs it, gives the same bytes.

    So the file is first brought into that tool's layout: by the change, and back.
    """
    path = tmp_path / name
    shutil.copy(macos.or_skip(find) / "arm64" / name, path)
    old = "/opt/environment/lib" + ("" if option == "-rpath" else "/library.dylib")
    new = old.replace(OLD.decode(), NEW.decode())
    forth = [option, new] if option == "-id" else [option, old, new]
    back = [option, old] if option == "-id" else [option, new, old]
    theirs = install_name_tool(path, *forth)
    before = install_name_tool(path, *back)
    (string,) = [string for string in headers(before).strings if string.text == old.encode()]
    assert theirs != before
    without = changed(before, [string.offset])
    assert without != theirs and broken(without)
    assert signed_again(without, [(string.offset, string.offset + string.room)]) == theirs
    assert broken(theirs) == []


@pytest.mark.parametrize("find", macos.producers())
def test_shorter_as_install_name_tool(tmp_path: Path, find: Callable[[], Path]) -> None:
    """A shorter run path is filled with NULs to the end of its command, if the command keeps its size."""
    path = tmp_path / "program"
    shutil.copy(macos.or_skip(find) / "arm64" / "program", path)
    old, new = "/opt/environment/lib/python", "/opt/environment/lib"
    before = install_name_tool(path, "-rpath", new, old)
    (string,) = [s for s in headers(before).strings if s.command is Command.RPATH]
    assert (len(old), len(new), string.room) == (27, 20, 28), "the command has the same size for both"
    theirs = install_name_tool(path, "-rpath", old, new)
    ours = changed(before, [string.offset], new.encode().ljust(string.room, b"\0"))
    assert signed_again(ours, [(string.offset, string.offset + string.room)]) == theirs


def test_apples_signature_changed_and_signed_again() -> None:
    """Any bytes of a real library, also those on both sides of a page's end."""
    files = [data for data in (path.read_bytes() for path in wheels()) if read(data)]
    for data in (min(files, key=len), max(files, key=len)):
        (signature,) = read(data)
        pages = list(signature.hashes())
        border = pages[len(pages) // 2].end
        touched = [(pages[0].start + 40, pages[0].start + 56), (border - 8, border + 8)]
        expected = {pages[0], pages[len(pages) // 2], pages[len(pages) // 2 + 1]}
        assert set(page_hashes(Reader(data), headers(data), touched)) == expected
        without = changed(data, [border - 8], b"/opt/environment")
        assert set(broken(without)) == expected - {pages[0]}
        assert broken(signed_again(without, touched)) == []


def test_last_page_ends_where_the_code_does() -> None:
    data, parsed = signed(CODE, super_blob((0, directory(CODE))))
    (found,) = page_hashes(Reader(data), parsed, [(99, 100)])
    assert (found.start, found.end, found.kind) == (96, 100, HashKind.SHA256)
    assert holds(data, found)


@pytest.mark.parametrize(
    ("touched", "pages"),
    [
        ([], []),
        ([(0, 1)], [0]),
        ([(15, 16)], [0]),
        ([(15, 17)], [0, 1]),
        ([(16, 16)], []),
        ([(0, 40), (20, 33), (99, 100)], [0, 1, 2, 6]),
        ([(0, 100)], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_pages_that_are_touched(touched: list[tuple[int, int]], pages: list[int]) -> None:
    """Each once, however many slots it holds."""
    before = bytes(32)  # as in a fat file
    data, parsed = signed(CODE, super_blob((0, directory(CODE))), before)
    found = page_hashes(Reader(data), parsed, [(32 + start, 32 + end) for start, end in touched])
    assert [(each.start - 32) // 16 for each in found] == pages
    assert all(holds(data, each) for each in found)
    assert page_hashes(Reader(data), parsed, [(0, 32)]) == [], "before the slice nothing is signed"


def test_slices_without_a_signature() -> None:
    data, _ = signed(CODE, super_blob((0, directory(CODE))))
    bare = MachO(True, (Slice(0, 100, 64, True, 7, 2),))
    assert page_hashes(Reader(data), bare, [(0, 100)]) == []
    assert signatures(Reader(data), bare) == ()


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("version", [0x20001, 0x20100, 0x20300, 0x20400])
def test_kinds_of_hash(kind: int, version: int) -> None:
    data, parsed = signed(CODE, super_blob((0, directory(CODE, kind=kind, version=version))))
    found = page_hashes(Reader(data), parsed, [(0, 100)])
    assert len(found) == 7 and all(holds(data, each) for each in found)
    assert (found[0].kind.value, found[0].length) == {
        1: ("sha1", 20),
        2: ("sha256", 32),
        3: ("sha256", 20),
        4: ("sha384", 48),
    }[kind]


def test_two_directories() -> None:
    """For old systems and for new ones: SHA-1 first, SHA-256 as the alternative."""
    signature = super_blob((0, directory(CODE, kind=1)), (2, blob(0xFADE0C01, bytes(4))), (0x1000, directory(CODE)))
    data, parsed = signed(CODE, signature)
    found = page_hashes(Reader(data), parsed, [(17, 18)])
    assert [(each.start, each.end, each.kind) for each in found] == [
        (16, 32, HashKind.SHA1),
        (16, 32, HashKind.SHA256),
    ]
    assert all(holds(data, each) for each in found)


def test_one_page_of_any_size() -> None:
    data, parsed = signed(CODE, super_blob((0, directory(CODE, page_bits=0))))
    (found,) = page_hashes(Reader(data), parsed, [(50, 51), (70, 71)])
    assert (found.start, found.end) == (0, 100) and holds(data, found)


def test_scattered_pages() -> None:
    """The hashes of page 1, and of pages 4 to 6, follow each other; the other pages have none."""
    data, parsed = signed(CODE, super_blob((0, directory(CODE, runs=[(1, 1), (3, 4)]))))
    found = page_hashes(Reader(data), parsed, [(0, 100)])
    assert [(each.start, each.end) for each in found] == [(16, 32), (64, 80), (80, 96), (96, 100)]
    assert all(holds(data, each) for each in found)


def test_code_of_more_than_4_gigabytes() -> None:
    """Only the headers are read: nothing is made of that size."""
    size = 5 << 30
    table = directory(b"", page_bits=30, count=5, limit_64=size) + bytes(160)
    signature = super_blob((0, struct.pack(">2I", 0xFADE0C02, len(table)) + table[8:]))
    parsed = MachO(False, (Slice(0, size + len(signature), 64, True, 12, 2, signature=(size, len(signature))),))
    found = page_hashes(lambda offset, length: signature[offset - size :][:length], parsed, [(size - 1, size)])
    assert [(each.start, each.end) for each in found] == [(4 << 30, 5 << 30)]


PLIST = b"<plist>/opt/env</plist>"


@pytest.mark.parametrize(("sealed", "count"), [(PLIST, 2), (b"that of a bundle", 1)])
def test_info_plist_in_the_file(sealed: bytes, count: int) -> None:
    """Its hash is in the signature twice: as part of a page, and by itself."""
    code = CODE + PLIST
    special = [bytes(32), hashlib.sha256(sealed).digest()]
    data, parsed = signed(code, super_blob((0, directory(code, special=special, page_bits=6))))
    section = Section(b"__TEXT", b"__info_plist", 100, len(PLIST), 0, True)
    parsed = MachO(False, (Slice(0, len(data), 64, True, 12, 2, (), (section,), parsed.slices[0].signature),))
    found = page_hashes(Reader(data), parsed, [(107, 115)])
    assert len(found) == count and all(holds(data, each) for each in found)
    assert [(each.start, each.end) for each in found][-2:] == [(100, 123), (64, 123)][-count:]
    assert len(page_hashes(Reader(data), parsed, [(90, 100)])) == 1, "beside it"


@pytest.mark.parametrize(
    ("flags", "message", "adhoc", "says", "linker"),
    [
        (0x2, None, True, True, False),
        (0x20002, None, True, True, True),
        (0x2, b"", True, True, False),
        (0x0, b"", True, False, False),
        (0x0, b"\x30\x80 a CMS message", False, False, False),
        (0x10000, b"\x30\x80 a CMS message", False, False, False),
        (0x2, b"\x30\x80 a CMS message", False, True, False),
    ],
)
def test_who_signed(flags: int, message: bytes | None, adhoc: bool, says: bool, linker: bool) -> None:
    """A message that signs the hashes is a real signature, whatever the flags say; an empty one is none."""
    parts = [(0, directory(CODE, flags=flags))]
    if message is not None:
        parts.append((0x10000, blob(0xFADE0B01, message)))
    data, parsed = signed(CODE, super_blob(*parts))
    (found,) = signatures(Reader(data), parsed)
    assert (found.is_adhoc, found.says_adhoc, found.is_linker_signed) == (adhoc, says, linker)


def test_real_signature_in_a_real_file() -> None:
    """A library that codesign signed ad hoc, with a message put where its empty one is."""
    path = next(path for path in wheels() if path.name.startswith("_imagingft"))
    data = bytearray(path.read_bytes())
    (signature,) = read(bytes(data))
    assert (signature.is_adhoc, signature.is_linker_signed) == (True, False)
    at = data.index(struct.pack(">2I", 0xFADE0B01, 8), signature.offset)
    total = struct.unpack_from(">I", data, signature.offset + 4)[0]
    assert at + 8 == signature.offset + total and total + 100 < signature.end - signature.offset
    struct.pack_into(">I", data, at + 4, 108)
    struct.pack_into(">I", data, signature.offset + 4, total + 100)
    (signature,) = read(bytes(data))
    assert not signature.is_adhoc
    assert broken(bytes(data)) == [], "its hashes hold all the same"


@pytest.mark.parametrize("touched", [(99, 101), (100, 101), (150, 160), (0, 5000)])
def test_signature_is_not_touched(touched: tuple[int, int]) -> None:
    data, parsed = signed(CODE, super_blob((0, directory(CODE))))
    with pytest.raises(SignatureTouched, match="part of the code signature") as raised:
        page_hashes(Reader(data), parsed, [(0, 1), touched])
    assert raised.value.offset >= 100
    assert issubclass(SignatureTouched, PackError)


@pytest.mark.parametrize(
    ("signature", "what"),
    [
        (b"", "more than the 0 that are there"),
        (bytes(40), "has 0 bytes"),
        (blob(0xFADE0C01, bytes(40)), "magic number is 0xfade0c01"),
        (super_blob((0, directory(CODE)))[:-1], "a part at 0 has"),
        (super_blob(), "no code directory"),
        (super_blob((2, blob(0xFADE0C01, bytes(4)))), "no code directory"),
        (super_blob((0, directory(CODE)), count=17), "there are 17 parts"),
        (super_blob((0, directory(CODE)), count=16), "bytes at|has"),
        (super_blob((0, blob(0xFADE0C02, bytes(8)))), "40 bytes at 0 are more"),
        (super_blob((0, directory(CODE, length=20))), "hashes of kind 2 have 20 bytes"),
        (super_blob((0, directory(CODE, kind_said=6))), "hashes of kind 6 have 32 bytes"),
        (super_blob((0, directory(CODE, limit=101))), "reaches into the signature"),
        (super_blob((0, directory(CODE, limit=96))), "7 hashes are of the code from 0 to 96"),
        (super_blob((0, directory(CODE, count=6))), "6 hashes are of 100 bytes of code"),
        (super_blob((0, directory(CODE, count=8))), "do not fit"),
        (super_blob((0, directory(CODE, count=1 << 31))), "do not fit"),
        (super_blob((0, directory(CODE, special_count=9))), "do not fit"),
        (super_blob((0, directory(CODE, hashes_at=1 << 31))), "do not fit"),
        (super_blob((0, directory(CODE, page_bits=0, limit_64=1 << 60))), "reaches into the signature"),
        (super_blob((0, directory(CODE, runs=[(1, 1), (1, 1)]))), "runs of pages overlap"),
        (super_blob((0, directory(CODE, runs=[(1, 1), (2, 5)], count=2))), "2 hashes are of 100 bytes of code"),
    ],
)
def test_refused(signature: bytes, what: str) -> None:
    data, parsed = signed(CODE, signature)
    reader = Reader(data)
    with pytest.raises(OddMachO, match=what):
        signatures(reader, parsed)
    with pytest.raises(OddMachO, match=what):
        page_hashes(reader, parsed, [(0, 1)])
    assert sum(reader.reads) < 5000


def test_page_too_large() -> None:
    data, parsed = signed(CODE, super_blob((0, directory(CODE, page_bits=33))))
    with pytest.raises(OddMachO, match=r"2\*\*33 bytes"):
        signatures(Reader(data), parsed)


def test_scattered_without_pages() -> None:
    table = bytearray(directory(CODE, runs=[(7, 0)]))
    table[39] = 0
    data, parsed = signed(CODE, super_blob((0, bytes(table))))
    with pytest.raises(OddMachO, match="7 hashes are of the code"):
        signatures(Reader(data), parsed)


def test_too_many_hashes() -> None:
    """Pages of two bytes: a hash for each is in the file, and still they are not all listed."""
    limit = 1 << 18
    code = bytes(2 * limit + 2)
    data, parsed = signed(code, super_blob((0, directory(code, page_bits=1))))
    assert len(page_hashes(Reader(data), parsed, [(0, 20000)])) == 10000
    with pytest.raises(OddMachO, match=f"more than {limit} hashes"):
        page_hashes(Reader(data), parsed, [(0, len(code))])


def test_too_many_runs_of_pages() -> None:
    runs = [(1, 2 * number) for number in range(65)]
    code = bytes(130)
    data, parsed = signed(code, super_blob((0, directory(code, page_bits=0, runs=[]))))
    assert len(signatures(Reader(data), parsed)) == 1
    data, parsed = signed(code, super_blob((0, directory(bytes(2 * 130), page_bits=1, runs=runs, limit=130))))
    with pytest.raises(OddMachO, match="too many"):
        signatures(Reader(data), parsed)


def test_reads_little() -> None:
    path = max((path for path in wheels() if read(path.read_bytes())), key=lambda path: path.stat().st_size)
    reader = Reader(path.read_bytes())
    parsed = headers(reader.data)
    assert len(page_hashes(reader, parsed, [(0, 5000)])) == 2
    assert sum(reader.reads) < 1000 and len(reader.reads) < 20


HYPOTHESIS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["arm64/library.dylib", "fat/program"])
def real(request: pytest.FixtureRequest) -> bytes:
    path: str = request.param
    return (macos.or_skip(macos.programs_of_llvm) / path).read_bytes()


def read_damaged(data: bytes) -> None:
    """Read what may be anything: only one exception is allowed, and every hash lies behind its page."""
    reader = Reader(data)
    try:
        parsed = parse(reader, len(data))
        if parsed is None:
            return
        limits = [(part.signature or (part.end, 0))[0] for part in parsed.slices]
        touched = [(part.offset, limit) for part, limit in zip(parsed.slices, limits, strict=True)]
        found = page_hashes(reader, parsed, touched)
    except OddMachO:
        return
    for each in found:
        assert each.start < each.end <= each.offset <= len(data) - each.length
    assert sum(reader.reads) < 2 * len(data) + 4096


@HYPOTHESIS
@given(st.data())
def test_flipped_bits(real: bytes, draw: st.DataObject) -> None:
    """The fixed fields of signatures are hit more often than the rest."""
    places = [st.integers(each.offset, each.offset + 120) for each in read(real)]
    places += [st.integers(each.offset, each.end - 1) for each in read(real)] + [st.integers(0, 1600)]
    damaged = bytearray(real)
    for place, value in draw.draw(st.lists(st.tuples(st.one_of(places), st.integers(1, 255)), min_size=1, max_size=6)):
        damaged[place] ^= value
    read_damaged(bytes(damaged))


@HYPOTHESIS
@given(st.data())
def test_truncated(real: bytes, draw: st.DataObject) -> None:
    """As a file that is cut, and as a signature that is."""
    read_damaged(real[: draw.draw(st.integers(0, len(real)))])
    (signature, *_) = read(real)
    whole = real[signature.offset : signature.end]
    cut = whole[: draw.draw(st.integers(0, len(whole)))]
    data, parsed = signed(real[: signature.offset], cut)
    with suppress(OddMachO):
        assert signatures(Reader(data), parsed)[0].end == len(data)


@HYPOTHESIS
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100)), max_size=5), st.integers(2, 11))
def test_exactly_the_hashes_that_break(slots: list[tuple[int, int]], page_bits: int) -> None:
    """For any slots: the hashes that no longer hold are those that were listed, and written anew they hold."""
    code = bytes(range(250)) * 4
    data, parsed = signed(code, super_blob((0, directory(code, page_bits=page_bits)), (4096, directory(code, kind=1))))
    touched = [(start, min(start + length, len(code))) for start, length in slots]
    out = bytearray(data)
    for at in {at for start, end in touched for at in range(start, end)}:
        out[at] ^= 0xFF
    (signature,) = signatures(Reader(data), parsed)
    listed = page_hashes(Reader(data), parsed, touched)
    assert [each for each in sorted(signature.hashes(), key=lambda e: e.offset) if not holds(out, each)] == listed
