"""Many processes relocate one tree at once: it is relocated once, and works for all of them."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import need
from tests.integration.interrupting import differences, kill, prefixes, relocator, shape, tricky, undisturbed
from tests.integration.moving import SURROUNDINGS, clone, move, pack

# The program that each of them runs in the environment: what it loads has been rewritten.
PROGRAM = "import sys, ssl, sqlite3, ctypes; print(sys.prefix, sys.executable)"
QUIET = {**SURROUNDINGS, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, references_channel: Path, package_cache: Path) -> Path:
    return tricky(session_directory, channel, references_channel, package_cache)


def all_at_once(commands: Sequence[Sequence[str | Path]], cwd: Path) -> list[tuple[int, str, str]]:
    """Start all of the commands, wait for all, and return what each ended with and printed."""
    started = [
        subprocess.Popen(
            command,
            env=QUIET,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = []
    for process in started:
        out, errors = process.communicate()
        ended.append((process.returncode, out, errors))
    return ended


def test_fifty_first_activations(archive: Path, tmp_path: Path) -> None:
    """Fifty shells that activate a tree nobody has activated before all work in it, and leave one good environment."""
    expected = undisturbed(archive, tmp_path / "x")
    tree = clone(archive, tmp_path / "x")
    script = f'. x/bin/activate && python -c "{PROGRAM}" && ref-c'
    shells = ["sh", "bash"]
    ended = all_at_once([[shells[number % 2], "-c", script] for number in range(50)], tmp_path)
    failed = [each for each in ended if each[0] != 0 or each[2]]
    assert not failed, failed[:3]
    assert {each[1].splitlines()[0] for each in ended} == {f"{tree} {tree}/bin/python"}
    assert len({each[1] for each in ended}) == 1
    assert not differences(expected, shape(tree))
    pack("verify", tree)


def test_without_locks(archive: Path, tmp_path: Path) -> None:
    """On a file system without locks they do the same work, and none undoes or trips over another's."""
    expected = undisturbed(archive, tmp_path / "x" / "env")
    tree = clone(archive, tmp_path / "x" / "env")
    unlocked: list[str | Path] = [
        need("strace"),
        "-o",
        os.devnull,
        "-e",
        "trace=flock",
        "-e",
        "inject=flock:error=ENOLCK",
    ]
    ended = all_at_once([[*unlocked, *relocator(tree)] for _ in range(6)], tmp_path)
    assert [(code, errors) for code, _, errors in ended] == [(0, "")] * 6
    assert not differences(expected, shape(tree))
    # And again from somewhere else, now that there are files of an earlier place.
    (tree / "etc" / "own.conf").write_text(f"{tree}\n")
    expected = undisturbed(archive, tmp_path / "y" / "env", history=False)
    tree = move(tree, tmp_path / "y" / "env")
    ended = all_at_once([[*unlocked, *relocator(tree)] for _ in range(6)], tmp_path)
    assert [(code, errors) for code, _, errors in ended] == [(0, "")] * 6
    assert (tree / "etc" / "own.conf").read_text() == f"{tree}\n"
    (tree / "etc" / "own.conf").unlink()
    assert prefixes(tree) == [str(tree)]
    assert not differences(expected, shape(tree, history=False))


def test_some_are_killed(archive: Path, tmp_path: Path) -> None:
    """Of twelve half are killed, half have no locks; those that begin when the first dies finish as if one had run."""
    chance = random.Random(20_240_611)
    expected = undisturbed(archive, tmp_path / "x" / "env")
    tree = clone(archive, tmp_path / "x" / "env")
    hold = tmp_path / "hold"
    hold.touch()
    strace: list[str | Path] = [need("strace"), "-o", os.devnull, "-e", "trace=flock,rename"]
    doomed: list[list[str | Path]] = []
    others: list[list[str | Path]] = []
    for number in range(12):
        unlocked: list[str | Path] = ["-e", "inject=flock:error=ENOLCK"] if number % 4 > 1 else []
        if number % 2:
            # The tree takes more than a hundred renames: six cannot end it without one that reaches its death.
            death = f"inject=rename:signal=KILL:when={chance.randrange(1, 17)}"
            ends: list[str | Path] = ["sh", "-c", '"$@"; code=$?; rm -f "$0"; exit $code', hold]
            doomed.append([*ends, *strace, *unlocked, "-e", death, *relocator(tree)])
        else:
            waits: list[str | Path] = ["sh", "-c", 'while [ -e "$0" ]; do sleep 0.01; done; exec "$@"', hold]
            others.append([*waits, *strace, *unlocked, *relocator(tree)])
    ended = all_at_once([*doomed, *others], tmp_path)
    assert {code for code, _, _ in ended[len(doomed) :]} == {0}, ended
    assert 137 in {code for code, _, _ in ended[: len(doomed)]}, ended
    # One that was killed last leaves its staging behind, and whoever comes next removes it.
    assert all_at_once([relocator(tree)], tmp_path)[0][0] == 0
    assert not differences(expected, shape(tree))


def test_an_activation_finishes_what_another_left(archive: Path, tmp_path: Path) -> None:
    """Ten shells activate a tree whose relocation was killed half-way: it is finished, and each works."""
    expected = undisturbed(archive, tmp_path / "x")
    tree = clone(archive, tmp_path / "x")
    kill(tree, "rename", 100)
    script = f'. x/bin/activate && python -c "{PROGRAM}"'
    ended = all_at_once([["sh", "-c", script] for _ in range(10)], tmp_path)
    assert {each for each in ended} == {(0, f"{tree} {tree}/bin/python\n", "")}
    assert not differences(expected, shape(tree))
