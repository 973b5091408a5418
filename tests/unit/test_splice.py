"""A file is read as if it were edited: any range, any number of layers, nothing held in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer_stub.elf import ReadAt
from pack.splice import Splice, Spliced, pieces, stacked
from pack.squeezed import Squeezed

DATA = b"0123456789"


def reader(data: bytes) -> ReadAt:
    return lambda offset, length: data[offset : offset + length]


def applied(data: bytes, splices: list[Splice]) -> bytes:
    """Edit from the end, so that offsets stay true."""
    for splice in reversed(splices):
        data = data[: splice.offset] + bytes(splice.new) + data[splice.offset + splice.length :]
    return data


@pytest.mark.parametrize(
    ("splices", "expected", "why"),
    [
        ([], DATA, "none"),
        ([Splice(2, 3, b"ab")], b"01ab56789", "shorter"),
        ([Splice(2, 3, b"abcd")], b"01abcd56789", "longer"),
        ([Splice(0, 1, b"a")], b"a123456789", "at the begin"),
        ([Splice(9, 1, b"a")], b"012345678a", "at the end"),
        ([Splice(10, 0, b"a")], b"0123456789a", "behind the end"),
        ([Splice(0, 0, b"a")], b"a0123456789", "before the begin"),
        ([Splice(3, 2, b"")], b"01256789", "nothing in its place"),
        ([Splice(0, 10, b"")], b"", "nothing is left"),
        ([Splice(2, 2, b"a"), Splice(4, 2, b"b")], b"01ab6789", "side by side"),
        ([Splice(2, 0, b"a"), Splice(2, 0, b"b")], b"01ab23456789", "two in one place"),
    ],
)
def test_spliced(splices: list[Splice], expected: bytes, why: str) -> None:
    view = Spliced(reader(DATA), len(DATA), splices)
    assert view.read_at(0, 100) == expected, why
    assert view.size == len(expected)
    assert view.read_at(view.size, 1) == b""
    assert view.read_at(view.size + 5, 1) == b""


@pytest.mark.parametrize(
    ("splices", "why"),
    [
        ([Splice(2, 3, b""), Splice(4, 1, b"")], "they overlap"),
        ([Splice(4, 1, b""), Splice(2, 1, b"")], "out of order"),
        ([Splice(8, 3, b"")], "it leaves the file"),
        ([Splice(11, 0, b"a")], "it is outside"),
    ],
)
def test_refused(splices: list[Splice], why: str) -> None:
    with pytest.raises(ValueError, match="splice"):
        Spliced(reader(DATA), len(DATA), splices)


@st.composite
def layers(draw: st.DrawFn, size: int) -> tuple[list[list[Splice]], int]:
    made = []
    for _ in range(draw(st.integers(0, 3))):
        edges = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
        splices = [
            Splice(start, stop - start, draw(st.binary(max_size=5)))
            for start, stop in zip(edges[::2], edges[1::2], strict=False)
        ]
        made.append(splices)
        size += sum(len(splice.new) - splice.length for splice in splices)
    return made, size


@given(st.binary(max_size=40), st.data())
def test_any_range_of_any_layers(data: bytes, draws: st.DataObject) -> None:
    made, size = draws.draw(layers(len(data)))
    expected = data
    for splices in made:
        expected = applied(expected, splices)
    read_at, seen = stacked(reader(data), len(data), made)
    assert seen == size == len(expected)
    offset, length = draws.draw(st.integers(0, size + 3)), draws.draw(st.integers(0, size + 3))
    assert read_at(offset, length) == expected[offset : offset + length]
    assert b"".join(pieces(read_at)) == expected


def test_a_file_that_became_shorter_ends_there() -> None:
    """Whoever reads counts and hashes the bytes."""
    view = Spliced(reader(DATA[:4]), len(DATA), [Splice(8, 1, b"x")])
    assert view.read_at(0, 100) == DATA[:4]


def test_only_what_is_wanted_is_read() -> None:
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return bytes(length)

    view = Spliced(read_at, 1 << 40, [Splice(1 << 39, 1, b"ab")])
    assert view.read_at((1 << 39) - 2, 6) == b"\0\0ab\0\0"
    assert asked == [((1 << 39) - 2, 2), ((1 << 39) + 1, 2)]


def test_pieces_of_a_large_file() -> None:
    data = bytes(range(256)) * 10_000
    made = list(pieces(reader(data)))
    assert b"".join(made) == data
    assert max(map(len, made)) <= 1 << 20


def test_what_is_much_may_be_squeezed() -> None:
    new = b"lib/python3.11/site-packages/module.py\n" * 100_000
    squeezed = Squeezed(new)
    assert len(squeezed) == len(new)
    assert len(squeezed._packed) < len(new) // 20
    view = Spliced(reader(b"before, behind"), 14, [Splice(7, 1, squeezed)])
    assert view.read_at(0, view.size) == b"before," + new + b"behind"
