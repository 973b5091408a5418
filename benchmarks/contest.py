"""Contests: the same work done by several programs in turn, each result checked before its time counts."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Wrong(Exception):
    """A contestant failed, or its result is not what it should be. The message names both."""


@dataclass(frozen=True)
class Contestant:
    """A program that does the work: a command for a shell, run in a new directory."""

    name: str
    command: str
    check: Callable[[Path, str], object]  # raises an AssertionError; gets the directory and the standard output
    output: str = ""  # whose size counts
    before: str = ""  # a command that prepares the directory, and is not measured
    input: int = 0  # bytes that it is given, where that is what contestants differ in


@dataclass
class Figures:
    """What was measured of a contestant, a figure for each round."""

    seconds: list[float] = field(default_factory=list)  # by the clock
    cpu: list[float] = field(default_factory=list)  # of all its processes
    memory: list[int] = field(default_factory=list)  # bytes, of its largest process
    size: int = 0  # bytes of its output
    input: int = 0  # bytes of its input, if that is told

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Figures:
        """Return the figures that `as_json` described."""
        facts = (document["rounds"], [document["cpu_seconds"]], [document["memory"]])
        return cls(*facts, document["size"], document["input"])

    def as_json(self) -> dict[str, object]:
        """Return all of it, with the medians."""
        return {
            "seconds": statistics.median(self.seconds),
            "cpu_seconds": statistics.median(self.cpu),
            "memory": max(self.memory),
            "size": self.size,
            "input": self.input,
            "rounds": self.seconds,
        }


@dataclass(frozen=True)
class Contest:
    """One kind of work. The first contestant is ours."""

    name: str
    contestants: Sequence[Contestant]
    work: Path  # the directory in which each gets a new one


def run(
    contests: Sequence[Contest], rounds: int, say: Callable[[str], None]
) -> Iterator[dict[str, dict[str, Figures]]]:
    """Run every contestant in turn; yield all figures after each contest. Raises Wrong."""
    figures = {each.name: {one.name: Figures(input=one.input) for one in each.contestants} for each in contests}
    for number in range(rounds):
        for contest in contests:
            for contestant in contest.contestants:
                taken = figures[contest.name][contestant.name]
                _measure(contestant, contest.work / "contest", taken)
                say(f"round {number + 1}: {contest.name}: {contestant.name}: {taken.seconds[-1]:.2f} s")
            held = contests if number else contests[: contests.index(contest) + 1]
            yield {each.name: figures[each.name] for each in held}


def _measure(contestant: Contestant, work: Path, figures: Figures) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if contestant.before:
            subprocess.run(["bash", "-ec", contestant.before], cwd=work, check=True, stdout=subprocess.DEVNULL)
        os.sync()  # what the one before left unwritten is not ours to pay
        with (work / ".stdout").open("w+") as out, (work / ".stderr").open("w+") as errors:
            start = time.perf_counter()
            command = ["bash", "-o", "pipefail", "-ec", contestant.command]
            process = subprocess.Popen(command, cwd=work, stdout=out, stderr=errors, stdin=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            if status:
                raise Wrong(f"{contestant.name}: ended with {process.returncode}: {errors.read()[-1000:]}")
            try:
                contestant.check(work, out.read())
            except AssertionError as error:
                raise Wrong(f"{contestant.name}: {error}") from error
        figures.seconds.append(seconds)
        figures.cpu.append(usage.ru_utime + usage.ru_stime)
        figures.memory.append(usage.ru_maxrss * 1024)
        if contestant.output:
            figures.size = (work / contestant.output).stat().st_size
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table(figures: Mapping[str, Mapping[str, Figures]]) -> str:
    """Write the figures as a table in Markdown: medians of all rounds, and each peer's time as a multiple of ours."""
    lines = [
        "| work | program | rounds | seconds | times ours | CPU seconds | peak memory | output |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for contest, contestants in figures.items():
        ours = statistics.median(next(iter(contestants.values())).seconds)
        for name, each in contestants.items():
            seconds = statistics.median(each.seconds)
            size = f"{each.size / 1e6:.1f} MB" if each.size else ""
            cells = [
                contest,
                name.replace("|", "\\|"),
                f"{len(each.seconds)}",
                f"{seconds:.2f}",
                f"{seconds / ours:.2f}",
                f"{statistics.median(each.cpu):.2f}",
            ]
            lines.append(f"| {' | '.join([*cells, f'{max(each.memory) / 1e6:.0f} MB', size])} |")
    return "\n".join(lines) + "\n"


def plot(figures: Mapping[str, Mapping[str, Figures]]) -> str:
    """Draw, as SVG, how many times as long as ours each peer takes; a bar beyond 8 times is cut."""
    rows: list[str] = []
    y = 10
    for contest, contestants in figures.items():
        ours = statistics.median(next(iter(contestants.values())).seconds)
        rows.append(f'<text x="10" y="{y + 14}" font-weight="bold">{_escaped(contest)}</text>')
        y += 20
        for number, (name, each) in enumerate(contestants.items()):
            ratio = statistics.median(each.seconds) / ours
            width = min(ratio, 8) * 60
            colour = "#2a7" if number == 0 else "#99a"
            rows.append(f'<text x="200" y="{y + 12}" text-anchor="end">{_escaped(name)}</text>')
            rows.append(f'<rect x="208" y="{y}" width="{width:.1f}" height="15" fill="{colour}"/>')
            rows.append(f'<text x="{214 + width:.1f}" y="{y + 12}">{ratio:.2f}</text>')
            y += 19
        y += 8
    return _svg(760, y, rows)


def growth(figures: Mapping[str, Figures]) -> str:
    """Draw, as SVG, the seconds of contestants against the bytes of their inputs, with a line to the largest."""
    points = [(each.input / 1e6, statistics.median(each.seconds)) for each in figures.values()]
    width, height, left, bottom = 460, 260, 50, 40
    most, longest = max(x for x, _ in points), max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / most * (width - left - 60), height - bottom - y / longest * (height - bottom - 30)

    (x0, y0), (x1, y1) = at(0, 0), at(most, longest)
    rows = [
        f'<line x1="{x0}" y1="{y0}" x2="{x1 + 40}" y2="{y0}" stroke="#333"/>',
        f'<line x1="{x0}" y1="{y0}" x2="{x0}" y2="{y1 - 10}" stroke="#333"/>',
        f'<line x1="{x0}" y1="{y0}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#99a" stroke-dasharray="4"/>',
        f'<text x="{x1:.1f}" y="{height - 4}" text-anchor="end">MB in the environment</text>',
        f'<text x="{x0 + 4}" y="{y1 - 2:.1f}">seconds</text>',
    ]
    for megabytes, seconds in points:
        x, y = at(megabytes, seconds)
        rows.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2a7"/>')
        rows.append(f'<text x="{x + 7:.1f}" y="{y + 13:.1f}">{seconds:.1f}</text>')
        rows.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{megabytes:,.0f}</text>')
    return _svg(width, height, rows)


def _svg(width: int, height: int, rows: Sequence[str]) -> str:
    size = f'width="{width}" height="{height}" font-family="sans-serif" font-size="12"'
    body = "\n".join(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
