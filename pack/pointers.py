"""Find what points into the middle of a string: a linker stores "share" as the end of "/opt/env/share".

There are three ways to hold an address. A word of data holds it whole, in place or as a relocation's addend.
An instruction of x86-64 holds its distance, in four bytes, and without PIE the address itself. One of AArch64
(`adr`) holds a distance of 21 bits, or two hold a page (`adrp`) and the place in it (`add`, or a load).
What is found too much only keeps bytes that could have been changed; what is not found damages a program:
docs/strings.md has the measured rates, and what is not looked for.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from installer_stub.elf import PF_W, PF_X, SHF_EXECINSTR, Elf, ReadAt

_X86_64, _AARCH64 = 62, 183
_DT_RELA, _DT_RELASZ = 7, 8
_LINKED_IN_PLACE = 2  # ET_EXEC: the program is loaded at the address that it was linked for

_PIECE = 1 << 20
_OVERLAP = 16  # bytes before and behind a piece: no instruction is cut
_BLOCK = 1 << 16
_PAGE = 1 << 12

# Operation codes of x86-64 with an operand in memory, of one byte: how many bytes of an immediate operand follow its
# address. Where the ModRM byte or a prefix decides, all that it may be.
_BEHIND_CODE: dict[int, tuple[int, ...]] = {
    **{row + low: (0,) for row in range(0, 0x40, 8) for low in range(4)},
    **dict.fromkeys([0x63, *range(0x84, 0x90), *range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xFE, 0xFF], (0,)),
    **dict.fromkeys([0x6B, 0x80, 0x83, 0xC0, 0xC1, 0xC6], (1,)),
    **dict.fromkeys([0x69, 0x81, 0xC7], (2, 4)),
    **{0xF6: (0, 1), 0xF7: (0, 2, 4)},
}
_LEA = 0x8D
# Those of two bytes, the first 0F, that have a byte behind; of 0F 3A and a third byte all have one, of 0F 38 none.
_BYTE_BEHIND = frozenset([0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6])

# Compilers move an adrp up a function: as many bytes behind it are looked at for what takes its page.
_APART = 1 << 13
_ADR_REACH = 1 << 20


class _Range(NamedTuple):
    """Bytes of the file, ``[start, end)``, and what is to be added to their offsets for their addresses."""

    start: int
    end: int
    shift: int


def pointed_at(read_at: ReadAt, size: int, elf: Elf, slots: Sequence[tuple[int, int]]) -> list[tuple[int, ...] | None]:
    """Return for each slot the sorted offsets strictly inside it to which anything in the file points.

    A slot is (start, end), in offsets of the file of `size` bytes, as is what is returned. Slots may overlap.
    None means that it cannot be told: the machine is neither x86-64 nor AArch64, or no segment loads
    the slot, as in an object file. ``()`` means that all was searched and nothing found.
    """
    if elf.bits != 64 or not elf.little_endian or elf.machine not in (_X86_64, _AARCH64):
        return [None] * len(slots)
    loaded = _loaded(elf, size)
    shifts = [_shift(loaded, slot) for slot in slots]
    inside = frozenset(
        offset + shift
        for (start, end), shift in zip(slots, shifts, strict=True)
        if shift is not None
        for offset in range(start + 1, end)
    )
    found: set[int] = set()
    if inside:
        code = _code(elf, loaded)
        found.update(_words(read_at, _addresses(elf, loaded), inside))
        if elf.machine == _AARCH64:
            found.update(_adr(read_at, code, inside))
            found.update(_adrp(read_at, code, inside))
        else:
            found.update(_distances(read_at, code, inside))
            if elf.kind == _LINKED_IN_PLACE:
                found.update(_immediates(read_at, code, inside))
    return [
        None if shift is None else tuple(offset for offset in range(start + 1, end) if offset + shift in found)
        for (start, end), shift in zip(slots, shifts, strict=True)
    ]


def _loaded(elf: Elf, size: int) -> list[_Range]:
    return _disjoint(_Range(s.offset, min(s.offset + s.size, size), s.address - s.offset) for s in elf.segments)


def _code(elf: Elf, loaded: Sequence[_Range]) -> list[_Range]:
    """Return what holds instructions, by sections if there are any: older linkers load strings with the code."""
    parts = [(section.offset, section.end) for section in elf.sections if section.flags & SHF_EXECINSTR]
    parts = parts or [(s.offset, s.offset + s.size) for s in elf.segments if s.flags & PF_X]
    return _disjoint(
        _Range(max(start, part.start), min(end, part.end), part.shift)
        for start, end in dict.fromkeys(parts)
        for part in loaded
    )


def _disjoint(ranges: Iterable[_Range]) -> list[_Range]:
    """Sort ranges and cut what overlaps: no byte is searched twice, whatever the headers say."""
    result: list[_Range] = []
    for part in sorted(ranges, key=lambda part: part.start):
        start = max(part.start, result[-1].end) if result else part.start
        if start < part.end:
            result.append(_Range(start, part.end, part.shift))
    return result


def _shift(loaded: Sequence[_Range], slot: tuple[int, int]) -> int | None:
    return next((part.shift for part in loaded if part.start <= slot[0] and slot[1] <= part.end), None)


def _pieces(read_at: ReadAt, part: _Range) -> Iterator[tuple[int, int, bytes]]:
    """Yield (address of the first byte, number of bytes to leave out at the front, bytes) all over a range.

    Pieces begin at addresses that are a whole number of pages, but for the bytes in front.
    """
    at = part.start
    while at < part.end:
        end = min(part.end, at + _PIECE - (at + part.shift) % _PAGE)
        front = min(_OVERLAP, at - part.start)
        yield at - front + part.shift, front, read_at(at - front, min(end + _OVERLAP, part.end) - at + front)
        at = end


def _numbers(data: bytes, code: Literal["I", "Q"]) -> array[int]:
    numbers = array(code, data[: len(data) - len(data) % array(code).itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _addresses(elf: Elf, loaded: Sequence[_Range]) -> list[_Range]:
    """Return what can hold addresses whole: in a file that is loaded anywhere, what the loader writes into or reads."""
    if elf.kind == _LINKED_IN_PLACE:
        return list(loaded)
    parts = [(s.offset, s.offset + s.size) for s in elf.segments if s.flags & PF_W]
    values = dict(elf.dynamic)
    if _DT_RELA in values and _DT_RELASZ in values:
        address, length = values[_DT_RELA], values[_DT_RELASZ]
        table = next((p for p in loaded if p.start + p.shift <= address < p.end + p.shift), None)
        if table is not None:
            parts.append((address - table.shift, address - table.shift + length))
    return _disjoint(
        _Range(max(start, part.start), min(end, part.end), part.shift) for start, end in parts for part in loaded
    )


def _words(read_at: ReadAt, parts: Sequence[_Range], inside: frozenset[int]) -> Iterator[int]:
    """Yield what aligned words of 8 bytes hold: pointers, and the addends of the relocations that make pointers."""
    for part in parts:
        for address, _, data in _pieces(read_at, part):
            yield from inside.intersection(_numbers(data[-address % 8 :], "Q"))


def _distances(read_at: ReadAt, code: Sequence[_Range], inside: frozenset[int]) -> Iterator[int]:
    """Yield what instructions of x86-64 name by its distance from the next instruction."""
    spans = _spans(inside)
    for part in code:
        for base, front, data in _pieces(read_at, part):
            for block in range(front, len(data), _BLOCK):
                # Of the distances from one block to one span the two upper bytes have few values.
                here = base + block
                tops = {
                    top
                    for first, last in spans
                    for top in range((first - here - _BLOCK - 8) >> 16, ((last - here + 8) >> 16) + 1)
                    if -0x8000 <= top < 0x8000
                }
                for at in _found(data, (top.to_bytes(2, "little", signed=True) for top in tops), block):
                    if at >= 4 and data[at - 3] & 0xC7 == 5:  # ModRM: relative to the instruction pointer
                        end = base + at + 2
                        target = end + int.from_bytes(data[at - 2 : at + 2], "little", signed=True)
                        for more in (0, 1, 2, 4):
                            if target + more in inside and more in _behind(data, at - 4):
                                yield target + more


def _behind(data: bytes, at: int) -> set[int]:
    """Return how many bytes may be behind the address in an instruction with its operation code at `at`.

    It is empty if no instruction with an operand in memory has that code there.
    """
    code, before = data[at], data[max(at - 4, 0) : at].rjust(4, b"\0")
    if code == _LEA and before[3] & 0xF8 == 0x48:  # by far the most frequent, and nothing else looks so
        return {0}
    sizes = set(_BEHIND_CODE.get(code, ()))
    # The map of codes is named by the bytes before, 0F or 0F 38 or 0F 3A, or by a field of the prefixes VEX and EVEX.
    maps = {1} if before[3] == 0x0F or before[2] == 0xC5 else set()
    maps |= {2} if before[2:] == b"\x0f\x38" else {3} if before[2:] == b"\x0f\x3a" else set()
    maps |= {before[2] & 31} if before[1] == 0xC4 else set()
    maps |= {before[1] & 7} if before[0] == 0x62 else set()
    for number in maps:
        sizes.add(1 if number == 3 or (number == 1 and code in _BYTE_BEHIND) else 0)
    return sizes


def _immediates(read_at: ReadAt, code: Sequence[_Range], inside: frozenset[int]) -> Iterator[int]:
    """Yield what instructions of a program without PIE hold whole, in four bytes."""
    tops = [top.to_bytes(2, "little") for top in {address >> 16 for address in inside} if top < 0x10000]
    for part in code:
        for _, front, data in _pieces(read_at, part):
            for block in range(front, len(data), _BLOCK):
                for at in _found(data, tops, block):
                    if at >= 2 and (address := int.from_bytes(data[at - 2 : at + 2], "little")) in inside:
                        yield address


def _spans(inside: Collection[int]) -> list[tuple[int, int]]:
    """Gather addresses into spans, first and last, with less than a block between them."""
    spans: list[tuple[int, int]] = []
    for address in sorted(inside):
        if spans and address - spans[-1][1] < _BLOCK:
            spans[-1] = (spans[-1][0], address)
        else:
            spans.append((address, address))
    return spans


def _found(data: bytes, needles: Iterable[bytes], start: int, length: int = _BLOCK) -> Iterator[int]:
    """Yield where each of `needles` begins in the `length` bytes at `start`."""
    for needle in needles:
        end = start + length + len(needle) - 1
        at = data.find(needle, start, end)
        while at >= 0:
            yield at
            at = data.find(needle, at + 1, end)


def _adr(read_at: ReadAt, code: Sequence[_Range], inside: frozenset[int]) -> Iterator[int]:
    """Yield what `adr` of AArch64 names: the linker makes it of adrp and add where the distance allows."""
    spans = _spans(inside)
    for part in code:
        for base, front, data in _pieces(read_at, part):
            last = base + len(data)
            if not any(base - _ADR_REACH <= high and low <= last + _ADR_REACH for low, high in spans):
                continue
            start = front + -(base + front) % 4
            for number, word in enumerate(_numbers(data[start:], "I")):
                if word & 0x9F000000 == 0x10000000:
                    distance = (word >> 3 & 0x1FFFFC) | (word >> 29 & 3)
                    distance -= (distance & 0x100000) << 1
                    if (target := base + start + 4 * number + distance) in inside:
                        yield target


def _adrp(read_at: ReadAt, code: Sequence[_Range], inside: frozenset[int]) -> Iterator[int]:
    """Yield what `adrp` of AArch64 and a later `add` or load name together."""
    pages = {address & -_PAGE for address in inside}
    for part in code:
        for base, front, data in _pieces(read_at, part):
            for page in range((base + front) & -_PAGE, base + len(data), _PAGE):
                for target in pages:
                    for at, register in _pages_named(data, base, page, target):
                        start = at + 4 - part.shift
                        behind = _numbers(read_at(start, min(_APART, part.end - start)), "I")
                        yield from inside.intersection(target + place for place in _taken(behind, register))


def _pages_named(data: bytes, base: int, page: int, target: int) -> Iterator[tuple[int, int]]:
    """Yield the addresses of the `adrp` in a page of code that name the page `target`, and their registers."""
    distance = (target - page) >> 12
    if not -(1 << 20) <= distance < 1 << 20:
        return
    word = 0x90000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
    first, last = max(page - base, 0), min(page + _PAGE - base, len(data))
    for at in _found(data, [(word >> 8).to_bytes(3, "little")], first + 1, last - first - 3):
        if (base + at) % 4 == 1 and data[at - 1] & 0xE0 == word & 0xE0:
            yield base + at - 1, data[at - 1] & 31


def _taken(words: Iterable[int], register: int) -> Iterator[int]:
    """Yield the places in a page that instructions take which find its address in `register`.

    An `adrp` is for one symbol, so all is said when a place was taken and the register is written again. What
    writes it before that is on another branch.
    """
    taken = False
    for word in words:
        if word >> 5 & 31 == register:
            if word & 0xFFC00000 == 0x91000000:  # add
                taken = True
                yield word >> 10 & 0xFFF
            elif word & 0x3B000000 == 0x39000000:  # loads and stores of 1, 2, 4, 8, and if V is set 16 bytes
                taken = True
                yield (word >> 10 & 0xFFF) << (4 if word & 0x04800000 == 0x04800000 else word >> 30)
        if taken and _writes(word, register):
            return


def _writes(word: int, register: int) -> bool:
    """Whether an instruction of AArch64 writes a general register, as far as the groups of codes tell."""
    if word & 0xFC000000 == 0x94000000 or word & 0xFFFFFC1F == 0xD63F0000:  # bl, blr: what is called may
        return register <= 18 or register == 30
    computes = word & 0x1C000000 == 0x10000000 or word & 0x0E000000 == 0x0A000000
    loads = word & 0x0E400000 == 0x08400000 or word & 0x3F800000 == 0x39800000  # to no vector register; sign extended
    return (computes or loads) and word & 31 == register
