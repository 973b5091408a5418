"""The end of an installer is read as it was written, or not at all."""

from __future__ import annotations

import hashlib

import pytest

from installer_stub import trailer
from installer_stub.tarstream import ArchiveDamaged
from installer_stub.trailer import SIZE, Section, Trailer

A, C = "a" * 64, "f" * 64
B = hashlib.sha256().hexdigest()
GOOD = Trailer(Section(0, 120, A), Section(120, 0, B), Section(120, 4567, C))
DATA = trailer.dump(GOOD)
LENGTH = 120 + 4567 + SIZE


def test_what_was_written_is_read_again() -> None:
    assert len(DATA) == SIZE
    assert DATA.decode() == (
        f"pack-installer 1\nheader              120 {A}\nstub                  0 {B}\npayload            4567 {C}\n"
    )
    assert trailer.load(DATA, LENGTH) == GOOD


@pytest.mark.parametrize("lengths", [(0, 0, 0), (1, 10**9, 10**12), (10**14, 10**14, 10**14)])
def test_lengths_of_any_size(lengths: tuple[int, int, int]) -> None:
    header, stub, payload = lengths
    one, other = (A, C) if any(lengths) else (B, B)
    parts = Trailer(Section(0, header, one), Section(header, stub, B), Section(header + stub, payload, other))
    assert trailer.load(trailer.dump(parts), sum(lengths) + SIZE) == parts


def test_every_flipped_bit_is_refused() -> None:
    """But where it makes another hash of one, which whoever reads the part will notice."""
    hashes = [start + at for start in (DATA.index(A.encode()), DATA.index(C.encode())) for at in range(64)]
    for at in range(SIZE):
        for bit in range(8):
            data = bytearray(DATA)
            data[at] ^= 1 << bit
            if at in hashes and chr(data[at]) in "0123456789abcdef":
                assert trailer.load(bytes(data), LENGTH) != GOOD
                continue
            with pytest.raises(ArchiveDamaged, match="do not end as they should"):
                trailer.load(bytes(data), LENGTH)


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


HEADER, STUB, PAYLOAD = DATA.decode().splitlines()[1:]
FIRST = "pack-installer 1"

REFUSED = {
    "nothing": b"",
    "cut in front": DATA[1:],
    "cut behind": DATA[:-1],
    "a byte more in front": b"x" + DATA,
    "a byte more behind": DATA + b"\n",
    "another version": lines("pack-installer 2", HEADER, STUB, PAYLOAD),
    "parts in another order": lines(FIRST, STUB, HEADER, PAYLOAD),
    "a part that is missing": lines(FIRST, HEADER, PAYLOAD),
    "a part twice": lines(FIRST, HEADER, STUB, STUB, PAYLOAD),
    "a part that nobody knows": lines(FIRST, HEADER, STUB, PAYLOAD.replace("payload", "payloaf")),
    "a leading zero": lines(FIRST, HEADER.replace("  120", " 0120"), STUB, PAYLOAD),
    "a sign": lines(FIRST, HEADER.replace("  120", " +120"), STUB, PAYLOAD),
    "a negative length": lines(FIRST, HEADER.replace("  120", " -120"), STUB, PAYLOAD),
    "an underscore": lines(FIRST, HEADER.replace("  120", " 12_0"), STUB, PAYLOAD),
    "digits that are not ASCII": lines(FIRST, HEADER.replace("  120", "  12\u0660"), STUB, PAYLOAD),
    "spaces behind": lines(FIRST, HEADER.replace("     120", "120     "), STUB, PAYLOAD),
    "a tab": lines(FIRST, HEADER.replace("  120", "\t 120"), STUB, PAYLOAD),
    "a newline where a space was": lines(FIRST, HEADER.replace("  120", "\n 120"), STUB, PAYLOAD),
    "a space where a newline was": lines(FIRST, f"{HEADER} {STUB}", PAYLOAD),
    "lines as on Windows": DATA.replace(b"\n", b"\r\n"),
    "capitals": lines(FIRST, HEADER, STUB.upper(), PAYLOAD),
    "a short hash": lines(FIRST, HEADER[:-1] + " ", STUB, PAYLOAD),
    "a NUL": DATA.replace(b"      120", b"\0     120"),
    "twice the same": DATA * 2,
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_written_so_is_refused(what: str) -> None:
    for size in (LENGTH, len(REFUSED[what])):
        with pytest.raises(ArchiveDamaged) as caught:
            trailer.load(REFUSED[what], size)
        assert caught.value.code == 11


@pytest.mark.parametrize("size", [0, SIZE, LENGTH - 1, LENGTH + 1, -1, 10**18])
def test_lengths_that_do_not_add_up_are_refused(size: int) -> None:
    with pytest.raises(ArchiveDamaged, match=f"its {size} bytes"):
        trailer.load(DATA, size)


def test_a_length_that_does_not_fit_its_column_is_refused() -> None:
    """It could be written, and be read again, but not where a shell looks for it."""
    wide = Trailer(Section(0, 10**15, A), Section(10**15, 0, B), Section(10**15, 0, C))
    with pytest.raises(ArchiveDamaged):
        trailer.load(trailer.dump(wide), 10**15 + SIZE)
