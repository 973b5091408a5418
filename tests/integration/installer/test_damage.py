"""An installer that was cut, changed or put together of other parts: it says so, ends with a code, does nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from fixtures.selection import cases, long_series
from installer_stub import trailer
from installer_stub.trailer import Trailer
from tests.integration.moving import stamps
from tests.integration.outcomes import DOCUMENTED, Sandbox, complaint
from tests.unit.installers import in_memory
from tests.unit.other_user import NOBODY

STEP = 61  # bytes between two cuts of the header
CUTS = 50
FLIPS = 200
THREADS = 3
SPARE = 8  # in CI, one of so many of the tenth of the header's bytes: 20 ms of processor each
SECONDS = 60  # for one run; each ends in a fraction of one
ENDLESS = f"still at work after {SECONDS} seconds"
DAMAGED = frozenset({11})
# What dash and bash end with where a script is no script to its end; nothing of it has run.
NO_SCRIPT = frozenset({2})
# And where a changed byte has made another word of a command's name: there is none, or it is no program.
ANOTHER_SCRIPT = DOCUMENTED | {126, 127}


@dataclass(frozen=True)
class Made:
    """An installer as it was made."""

    data: bytes
    parts: Trailer

    def part(self, name: str) -> bytes:
        if name == "trailer":
            return self.data[-trailer.SIZE :]
        section = getattr(self.parts, name)
        return self.data[section.offset : section.offset + section.length]

    def where(self, offset: int) -> str:
        """Name a byte: its offset, the part that it is in, what stands around it."""
        ends = [(part, section.offset + section.length) for part, section in self.parts._asdict().items()]
        part = next((part for part, end in ends if offset < end), "trailer")
        around = self.data[max(0, offset - 20) : offset] + b" >>>" + self.data[offset : offset + 1] + b"<<< "
        return f"byte {offset} of the {part}: {around + self.data[offset + 1 : offset + 20]!r}"


@pytest.fixture(scope="module")
def made(small_sh: Path) -> Made:
    data = small_sh.read_bytes()
    return Made(data, trailer.load(data[-trailer.SIZE :], len(data)))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


class Stand:
    """A sandbox in which a file is run as an installer, by a user who can write nothing else, and looked over."""

    def __init__(self, root: Path, data: bytes) -> None:
        self.file = root / "env.sh"
        self._data = data
        self._prepare(root)

    def _prepare(self, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        self.sandbox = Sandbox.made(root)
        self.file.write_bytes(self._data)
        for path in (root, *root.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        self._before = stamps(root)

    def run(self, codes: frozenset[int]) -> str:
        """Run the file; tell what is wrong with how that ended, or nothing."""
        process = subprocess.Popen(  # type: ignore[call-overload]
            ["sh", self.file, "-b", "-p", self.sandbox.target],
            cwd=self.sandbox.root / "here",
            env=self.sandbox.surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
            **_AS_NOBODY,
        )
        try:
            _, said = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            # What it has started may be what does not end.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=SECONDS)
            self._prepare(self.sandbox.root)
            return ENDLESS
        wrong = [complaint(process.returncode, said, codes)]
        if os.path.lexists(self.sandbox.target):
            wrong.append("a target")
        if touched := self.sandbox.changes(self._before, self.file):
            wrong += [f"touched {path}" for path in touched]
            self._prepare(self.sandbox.root)
        wrong = [each for each in wrong if each]
        return "; ".join([*wrong, f"said {said[:200]!r}"]) if wrong else ""

    def run_with(self, data: bytes, codes: frozenset[int]) -> str:
        """Run the file with other content."""
        self.file.write_bytes(data)
        return self.run(codes)

    @contextmanager
    def flipped(self, offset: int, byte: int) -> Iterator[None]:
        """Have another value in one byte of the file."""
        self._write(offset, bytes([byte]))
        changed = self.file.stat()
        yield
        found = self.file.stat()
        if (found.st_ino, found.st_mtime_ns) != (changed.st_ino, changed.st_mtime_ns):
            self.file.write_bytes(self._data)  # it has overwritten itself
        else:
            self._write(offset, self._data[offset : offset + 1])

    def _write(self, offset: int, data: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(offset)
            file.write(data)


_AS_NOBODY: dict[str, object] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture
def stand(memory: Path, made: Made, request: pytest.FixtureRequest) -> Stand:
    return Stand(memory / re.sub(r"\W", "-", request.node.name), made.data)


def refused(outcomes: Iterable[tuple[str, str]]) -> None:
    """Fail with every damage that did not end as it should: what it was, and what happened."""
    bad = [f"{damage}: {outcome}" for damage, outcome in outcomes if outcome]
    assert not bad, "\n".join(["", *bad])


# Cut


def test_whole_it_installs(stand: Stand) -> None:
    """Else all the other tests here would pass for another reason."""
    assert "code 0; a target" in stand.run(DAMAGED)


def test_cut_in_the_header(stand: Stand, made: Made) -> None:
    """To a shell it is a script without an end: 2, and not one command of it has run."""
    points = range(STEP, made.parts.header.length, STEP)
    chosen = [points[number] for number in cases(21, len(points))]
    refused((f"cut at {at}", stand.run_with(made.data[:at], NO_SCRIPT)) for at in chosen)


def test_cut_at_the_end_of_the_script(stand: Stand, made: Made) -> None:
    """The last byte of the script is a newline, which no shell needs; the one before it ends the group."""
    end = made.parts.header.length
    refused((f"cut at {at}", stand.run_with(made.data[:at], NO_SCRIPT)) for at in (11, 12, 30, 31, 32, end - 2))
    refused((f"cut at {at}", stand.run_with(made.data[:at], DAMAGED)) for at in (end - 1, end))


def test_cut_in_its_first_line_it_is_an_empty_script(stand: Stand, made: Made) -> None:
    """No shell can be made to complain of that; it does nothing, either."""
    for at in range(11):
        assert re.match(r"code 0; said ''$", stand.run_with(made.data[:at], NO_SCRIPT)), at


def test_cut_behind_the_header(stand: Stand, made: Made) -> None:
    chance = random.Random(22)
    points = [chance.randrange(made.parts.stub.offset, len(made.data) - trailer.SIZE) for _ in range(CUTS)]
    chosen = [points[number] for number in cases(22, CUTS)]
    borders = [made.parts.payload.offset, len(made.data) - trailer.SIZE]
    refused((f"cut at {at}", stand.run_with(made.data[:at], DAMAGED)) for at in (*chosen, *borders))


def test_cut_in_the_trailer(stand: Stand, made: Made) -> None:
    size = len(made.data)
    chosen = [size - trailer.SIZE + number for number in cases(23, trailer.SIZE)]
    refused((f"cut at {at}", stand.run_with(made.data[:at], DAMAGED)) for at in (*chosen, size - 1))


def test_a_download_that_broke_off_and_was_filled_up(stand: Stand, made: Made) -> None:
    """With NULs, to its full length, as programs do that make the file first."""
    chance = random.Random(24)
    size, header = len(made.data), made.parts.header.length
    # Shells pass over a NUL in a script, or take it for the end of the file.
    inside = [chance.randrange(11, header - 2) for _ in range(20)]
    behind = [*(chance.randrange(header, size) for _ in range(20)), size - 1]
    for points, codes in ((inside, NO_SCRIPT), (behind, DAMAGED)):
        chosen = [points[number] for number in cases(24, len(points))]
        filled = ((at, made.data[:at].ljust(size, b"\0")) for at in chosen)
        refused((f"NULs from {at} on", stand.run_with(data, codes)) for at, data in filled)


# Changed


def masks(number: int) -> tuple[int, ...]:
    """Give the values that a byte is changed by: a bit, the lowest, that of the case of letters, all."""
    return 1 << random.Random(number).randrange(8), 0x01, 0x20, 0xFF


@pytest.mark.parametrize("part", ["stub", "payload", "trailer"])
def test_a_byte_changed(part: str, stand: Stand, made: Made) -> None:
    """In full each of the four values at each place, else one."""
    chance = random.Random(part)
    begin, length = len(made.data) - len(made.part("trailer")), len(made.part(part))
    if part != "trailer":
        begin = getattr(made.parts, part).offset
    places = [begin + chance.randrange(length) for _ in range(FLIPS)]
    chosen = cases(25, FLIPS)
    if len(chosen) == FLIPS:
        damages = [(places[number], mask) for number in chosen for mask in masks(number)]
    else:
        damages = [(places[number], masks(number)[number % 4]) for number in chosen]
    refused(flips(stand, made, damages))


def flips(
    stand: Stand, made: Made, damages: Sequence[tuple[int, int]], codes: frozenset[int] = DAMAGED
) -> Iterator[tuple[str, str]]:
    """Change bytes, each alone by a value, and run what that gives."""
    for at, mask in damages:
        with stand.flipped(at, made.data[at] ^ mask):
            yield f"{made.where(at)} changed by {mask:#04x}", stand.run(codes)


# Every byte of the header


class Harm(Enum):
    """What came of a changed byte of the header, where it did not just end in words; the first one must not be."""

    SEVERE = "ended with 0, installed, or changed or removed what was there"
    STRAY = "left a new file in its directory or the current one: a byte of it was, or became, a redirection"
    ENDLESS = "did not end: a byte of a loop"
    SILENT = "ended without a word: a byte of a line of which the complaints are not wanted"


@dataclass(frozen=True)
class Survivor:
    """A changed byte of the header that did not end the run as it should."""

    offset: int
    value: int
    harm: Harm
    what: str

    def described(self, made: Made) -> str:
        return f"{made.where(self.offset)} as {bytes([self.value])!r}: {self.what}"


def judged(what: str) -> Harm:
    """Tell how bad an outcome is, as a stand reports it."""
    problems = what.split("; ")[:-1] or [what]
    if problems == [ENDLESS]:
        return Harm.ENDLESS
    if problems == ["no word"]:
        return Harm.SILENT
    # The directory is touched because something new is in it.
    if all(re.fullmatch(r"touched ('here'|'\.'|new '(here/)?[^/]+')", each) for each in problems):
        return Harm.STRAY
    return Harm.SEVERE


def harmed(stands: Sequence[Stand], made: Made, offsets: Iterable[int]) -> list[Survivor]:
    """Change each of some bytes to another value, one after the other in each of the stands."""
    taken = threading.Lock()
    left = iter(offsets)

    def work(stand: Stand) -> list[Survivor]:
        found: list[Survivor] = []
        while True:
            with taken:
                offset = next(left, None)
            if offset is None:
                return found
            value = made.data[offset] ^ random.Random(offset).randrange(1, 256)
            with stand.flipped(offset, value):
                what = stand.run(ANOTHER_SCRIPT)
            if what:
                found.append(Survivor(offset, value, judged(what), what))

    with ThreadPoolExecutor(len(stands)) as pool:
        return sorted((each for part in pool.map(work, stands) for each in part), key=lambda each: each.offset)


@long_series
def test_each_byte_of_the_header(memory: Path, made: Made) -> None:
    """A changed script is another script; none installs, none ends with 0, none touches what is there.

    What else one of them may do is told by the page on installing.
    """
    stands = [Stand(memory / f"header-{number}", made.data) for number in range(THREADS)]
    offsets = cases(26, made.parts.header.length)
    if len(offsets) < made.parts.header.length:
        offsets = offsets[::SPARE]
    survivors = harmed(stands, made, offsets)
    print(f"{len(offsets)} bytes of the header changed")
    for harm in Harm:
        found = [each.described(made) for each in survivors if each.harm is harm]
        print("\n".join([f"{len(found)} {harm.value}", *found]))
        assert not found or harm is not Harm.SEVERE, "\n".join(["", *found])
    assert len(survivors) < 3 + len(offsets) // 100


def test_the_first_brace_of_a_function(stand: Stand, made: Made) -> None:
    """The second one must not end the group: dash would run the function's body at once, and end where that returns."""
    braces = [match.end() - 1 for match in re.finditer(rb"^\w+\(\) \{", made.part("header"), re.MULTILINE)]
    assert len(braces) > 50
    refused(flips(stand, made, [(at, 1) for at in braces], ANOTHER_SCRIPT))


# Put together of other parts


def test_something_appended(stand: Stand, made: Made) -> None:
    more = {
        "a NUL": b"\0",
        "a newline": b"\n",
        "a trailer's length": b"x" * trailer.SIZE,
        "its own trailer": made.part("trailer"),
        "a whole installer": made.data,
    }
    refused((f"{what} appended", stand.run_with(made.data + data, DAMAGED)) for what, data in more.items())


def test_parts_in_another_order(stand: Stand, made: Made) -> None:
    header, stub, payload, end = (made.part(name) for name in ("header", "stub", "payload", "trailer"))
    first, *lines = end.splitlines(keepends=True)
    half = len(payload) // 2
    orders = {
        "stub and payload exchanged": header + payload + stub + end,
        "the same, and their lines": header + payload + stub + b"".join([first, lines[0], lines[2], lines[1]]),
        "the lines alone": header + stub + payload + b"".join([first, lines[0], lines[2], lines[1]]),
        "the trailer before the payload": header + stub + end + payload,
        "the halves of the payload exchanged": header + stub + payload[half:] + payload[:half] + end,
        "the payload twice": header + payload + payload + end,
        "no stub": header + payload + end,
        "no payload": header + stub + end,
        "a byte of the stub counted to the payload": header + stub + payload + moved(end, made.parts),
    }
    refused((what, stand.run_with(data, DAMAGED)) for what, data in orders.items())


def moved(end: bytes, parts: Trailer) -> bytes:
    """Write a trailer whose lengths have the same sum."""
    stub, payload = (b"%15d" % part.length for part in (parts.stub, parts.payload))
    end = end.replace(stub, b"%15d" % (parts.stub.length - 1))
    return end.replace(payload, b"%15d" % (parts.payload.length + 1))
