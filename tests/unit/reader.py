"""Files in memory for the tests of parsers: read through a count, and damaged at random."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st


@dataclass
class Reader:
    """A file in memory that counts what is read of it."""

    data: bytes
    reads: list[int] = field(default_factory=list)

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0 <= length
        self.reads.append(length)
        return self.data[offset : offset + length]


@st.composite
def damaged(draw: st.DrawFn, real: bytes) -> bytes:
    """Change up to six bytes of a file, where headers and tables are more often than elsewhere, and perhaps cut it."""
    changed = bytearray(real)
    places = st.one_of(
        st.integers(0, 0x200), st.integers(0, len(real) - 1), st.integers(len(real) - 2000, len(real) - 1)
    )
    for place, value in draw(st.lists(st.tuples(places, st.integers(1, 255)), max_size=6)):
        changed[place] ^= value
    return bytes(changed[: draw(st.one_of(st.just(len(real)), st.integers(0, len(real))))])
