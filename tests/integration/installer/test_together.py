"""Installers that run at once: each target gets one whole environment, and who comes second says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fixtures.selection import all_run, cases
from tests.integration.installed import tiny_prefix
from tests.integration.moving import SURROUNDINGS, short_directory
from tests.integration.outcomes import TIMEOUT, faults, install

TIMES = 20
# Of processes at once: in CI two processors have to do for them.
MANY = 20 if all_run() else 6


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def together(installers: Sequence[Path], targets: Sequence[Path], *options: str) -> list[tuple[int, str]]:
    """Start installers with a target each, wait for all; return what each ended with and said."""
    started = [
        subprocess.Popen(
            ["sh", installer, "-b", "-p", target, *options],
            env=SURROUNDINGS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for installer, target in zip(installers, targets, strict=True)
    ]
    said = [process.communicate(timeout=TIMEOUT)[1] for process in started]
    return [(process.returncode, each) for process, each in zip(started, said, strict=True)]


def refused_in_words(ended: Sequence[tuple[int, str]]) -> bool:
    """Tell whether whoever failed said that somebody else is at work, or that the place is taken."""
    words = ("another installation is at work", "exists")
    return all(code == 0 or (code == 5 and any(word in said for word in words)) for code, said in ended)


@pytest.mark.parametrize("time", cases(51, TIMES))
def test_two_to_one_target(time: int, small_sh: Path, place: Path) -> None:
    ended = together([small_sh] * 2, [place / "env"] * 2)
    assert sorted(code for code, _ in ended) == [0, 5], ended
    assert refused_in_words(ended), ended
    assert faults(place / "env") == []
    assert os.listdir(place) == ["env"]


def test_two_to_one_empty_directory(small_sh: Path, place: Path) -> None:
    (place / "env").mkdir(mode=0o750)
    ended = together([small_sh] * 2, [place / "env"] * 2)
    assert sorted(code for code, _ in ended) == [0, 5], ended
    assert faults(place / "env") == []
    assert (place / "env").stat().st_mode & 0o777 == 0o750
    assert os.listdir(place) == ["env"]


def test_many_to_one_target(small_sh: Path, place: Path) -> None:
    ended = together([small_sh] * MANY, [place / "env"] * MANY)
    assert sorted(code for code, _ in ended) == [0, *[5] * (MANY - 1)], ended
    assert refused_in_words(ended), ended
    assert faults(place / "env") == []
    assert os.listdir(place) == ["env"]


def test_many_to_targets_of_their_own(small_sh: Path, place: Path) -> None:
    """In one directory, which all of them look over for what others have left."""
    targets = [place / f"env{number}" for number in range(MANY)]
    ended = together([small_sh] * MANY, targets)
    assert [each for each in ended if each[0] != 0] == []
    assert [(target.name, wrong) for target in targets if (wrong := faults(target))] == []
    assert sorted(os.listdir(place)) == sorted(target.name for target in targets)


# Updates


@pytest.fixture(scope="module")
def versions(make_installer: Callable[..., Path]) -> Iterator[list[Path]]:
    """Installers of three versions; the first is installed beside them."""
    with short_directory() as directory:
        (directory / "hook").write_text("#!/bin/sh\nsleep 0.1\n")
        (directory / "hook").chmod(0o755)
        made = []
        for number in "123":
            prefix = tiny_prefix(directory / number / "env", number)
            options = ("--post-install", directory / "hook")
            made.append(make_installer(prefix, directory / f"{number}.sh", *options))
        assert install(made[0], directory / "parent" / "env").returncode == 0
        yield made


@pytest.mark.parametrize("time", cases(52, TIMES))
def test_two_updates_of_one_target(time: int, versions: list[Path]) -> None:
    """To different versions: what is there in the end is one that was updated to, as a whole."""
    target = versions[0].parent / "parent" / "env"
    ended = together(versions[1:], [target] * 2, "--update")
    codes = [code for code, _ in ended]
    assert 0 in codes and set(codes) <= {0, 5}, ended
    assert refused_in_words(ended), ended
    done = [number for number, code in zip("23", codes, strict=True) if code == 0]
    wrong = {number: faults(target, f" {number}") for number in done}
    assert [] in wrong.values(), wrong
    assert os.listdir(target.parent) == ["env"]
    assert not (target / ".installing").exists()


@pytest.mark.parametrize("time", cases(53, TIMES))
def test_an_update_with_an_uninstallation(time: int, versions: list[Path]) -> None:
    """Whichever wins, there is a whole version in the end, or none at all."""
    target = versions[0].parent / "other" / "env"
    assert install(versions[0], target).returncode == 0
    command: list[str | Path] = ["sh", versions[1], "-b", "-p", target]
    both = [
        subprocess.Popen(
            [*command, option], env=SURROUNDINGS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for option in ("--update", "--uninstall")
    ]
    said = [process.communicate(timeout=TIMEOUT)[1] for process in both]
    update, removal = (process.returncode for process in both)
    assert 0 in (update, removal), said
    assert update in (0, 5, 6) and removal in (0, 5, 6), (update, removal, said)
    left = os.listdir(target.parent)
    if removal == 0 and left == []:
        return
    assert left == ["env"], (update, removal, said)
    wrong = {number: faults(target, f" {number}") for number in "12"}
    assert [] in wrong.values(), (update, removal, wrong, said)
    shutil.rmtree(target)
