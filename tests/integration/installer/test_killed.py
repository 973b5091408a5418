"""An installer that is ended at any moment leaves nothing or all, and the next run finds its way from there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fixtures.selection import cases
from tests.integration.installed import Mounted, children, is_running, mounted, tiny_prefix, wait_for
from tests.integration.moving import PACK, SURROUNDINGS, Run, run, short_directory
from tests.integration.outcomes import TIMEOUT, faults, install, is_good

MOMENTS = 100
FEWER = 30  # where it has to be prepared each time
TERMED = (128 + signal.SIGTERM, -signal.SIGTERM)  # by its trap; before it has one


def was_ended(code: int, said: str) -> bool:
    """Tell whether it ended as TERM ends it; or a program that it had started did, before the signal reached itself."""
    return code in TERMED or (code == 5 and "Terminated" in said)


RM = """#!/bin/sh
for path; do
    if [ -e "$path/owner" ]; then /bin/rm -f "$path/lock" "$path/owner"; kill -KILL 0; fi
done
exec /bin/rm "$@"
"""
HOOK = '#!/bin/sh\nsleep 0.1\n[ -z "${FAILING-}" ]\n'


@dataclass(frozen=True)
class Begun:
    """A run of an installer in a process group of its own."""

    shell: subprocess.Popen[str]

    @classmethod
    def at(
        cls,
        installer: Path,
        target: Path,
        *options: str,
        before: Sequence[str | Path] = (),
        path: str = SURROUNDINGS["PATH"],
    ) -> Begun:
        """Begin one; ``before`` are the words before its command."""
        command: list[str | Path] = [*before, "sh", installer, "-b", "-p", target, *options]
        return cls(
            subprocess.Popen(
                command,
                env={**SURROUNDINGS, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )

    def all(self, number: int) -> None:
        """Send a signal to the shell and whatever it runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.shell.pid, number)

    def program(self) -> int:
        """Wait for the program; return its process."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [each for each in children(self.shell.pid) if b"\0--staging\0" in _command(each)]
            return bool(found) or self.shell.poll() is not None

        wait_for(is_there)
        assert found, self.shell.communicate()
        return found[0]

    def end(self) -> tuple[int, str]:
        """Wait until nothing of the group runs; return the code and what was said."""
        _, said = self.shell.communicate(timeout=TIMEOUT)
        wait_for(lambda: not _members(self.shell.pid))
        return self.shell.returncode, said


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _members(group: int) -> list[int]:
    """List the processes of a group that are more than zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its = path.read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state not in "ZX":
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        (directory / "parent").mkdir()
        yield directory / "parent"


@dataclass(frozen=True)
class Versions:
    """Two installers of one environment, the second with a hook, and the first installed."""

    old: Path
    new: Path
    target: Path
    seconds: float  # that an update takes
    removal: float

    def restore(self) -> None:
        """Have the first version at the target, and nothing else beside it."""
        shutil.rmtree(self.target.parent, ignore_errors=True)
        self.target.parent.mkdir()
        run(["cp", "-a", self.old.parent / "pristine", self.target])

    def version(self) -> str:
        """Tell which of them works at the target: "1", "2", or none."""
        return next((number for number in "12" if is_good(self.target, f" {number}")), "none")


@pytest.fixture(scope="module")
def versions(make_installer: Callable[..., Path]) -> Iterator[Versions]:
    with short_directory() as place:
        (place / "hook").write_text(HOOK)
        (place / "hook").chmod(0o755)
        old = make_installer(tiny_prefix(place / "one" / "env", "1"), place / "old.sh")
        options = ("--post-install", place / "hook")
        new = make_installer(tiny_prefix(place / "two" / "env", "2"), place / "new.sh", *options)
        target = place / "parent" / "env"
        assert install(old, target).returncode == 0
        shutil.copytree(target, place / "pristine", symlinks=True)
        seconds = measured(lambda: install(new, target, "--update"))
        removal = measured(lambda: install(new, target, "--uninstall"))
        yield Versions(old, new, target, seconds, removal)


@pytest.fixture(scope="module")
def seconds(small_sh: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The time that a whole run takes, when not much else runs."""
    directory = tmp_path_factory.mktemp("measured")
    return min(measured(partial(install, small_sh, directory / name)) for name in ("one", "two", "three"))


def measured(work: Callable[[], Run]) -> float:
    began = time.monotonic()
    done = work()
    assert done.returncode == 0, done
    return time.monotonic() - began


def moments(seed: int, total: int, seconds: float) -> list[tuple[int, float]]:
    """Choose moments within so many seconds, and a bit beyond: the number of each, and when it is."""
    chosen = [(number, random.Random(seed * 1000 + number).random() * seconds * 1.1) for number in range(total)]
    return [chosen[number] for number in cases(seed, total)]


class Report:
    """Collects what went wrong at which moment."""

    def __init__(self) -> None:
        self._wrong: list[str] = []
        self._counts: dict[str, int] = {}

    def count(self, outcome: str) -> None:
        self._counts[outcome] = self._counts.get(outcome, 0) + 1

    def check(self, holds: object, moment: tuple[int, float], *what: object) -> None:
        if not holds:
            self._wrong.append(f"moment {moment[0]}, after {moment[1]:.3f} s: " + ", ".join(map(str, what)))

    def close(self) -> None:
        print(", ".join(f"{outcome}: {count}" for outcome, count in sorted(self._counts.items())))
        assert not self._wrong, "\n".join(["", *self._wrong])


def again(installer: Path, target: Path, report: Report, moment: tuple[int, float]) -> None:
    """Run once more after one that was killed: it installs, or replaces a whole installation, and leaves no litter."""
    there = os.path.lexists(target)
    if there:
        report.check(not (wrong := faults(target)), moment, "half an environment", wrong, os.listdir(target))
    report.count("complete" if there else "nothing")
    # One that waits for its hook, or was not declared complete, counts as none.
    force = ["--force"] if there and not (target / ".installing").exists() else []
    done = install(installer, target, *force)
    report.check(done.returncode == 0, moment, f"the next run ended with {done.returncode}", done.stderr)
    report.check(is_good(target), moment, "nothing good after the next run")
    names = os.listdir(target.parent)
    report.check(names == ["env"], moment, "litter", names)
    report.check(not (target / ".installing").exists(), moment, "a marker stays")
    shutil.rmtree(target, ignore_errors=True)
    for name in os.listdir(target.parent):  # what was reported is not reported again
        shutil.rmtree(target.parent / name)


# Installing


def test_killed_at_any_moment(small_sh: Path, seconds: float, place: Path) -> None:
    report = Report()
    for moment in moments(31, MOMENTS, seconds):
        begun = Begun.at(small_sh, place / "env")
        time.sleep(moment[1])
        begun.all(signal.SIGKILL)
        begun.end()
        again(small_sh, place / "env", report, moment)
    report.close()


def test_killed_while_it_clears_up(small_sh: Path, place: Path) -> None:
    """By an rm that takes first what tells that a directory was left: the next run sees that all the same."""
    tools = place.parent / "tools"
    tools.mkdir()
    (tools / "rm").write_text(RM)
    (tools / "rm").chmod(0o755)
    begun = Begun.at(small_sh, place / "env", path=f"{tools}:/usr/bin:/bin")
    code, said = begun.end()
    assert (code, said) == (-signal.SIGKILL, "")
    left = [name for name in os.listdir(place) if name != "env"]
    assert len(left) == 1
    report = Report()
    again(small_sh, place / "env", report, (0, 0))
    report.close()


@pytest.mark.parametrize("whom", ["the shell", "all"])
def test_ended_at_any_moment(whom: str, small_sh: Path, seconds: float, place: Path) -> None:
    """By TERM: with that code and without a trace, unless all was done already."""
    report = Report()
    for moment in moments(32 if whom == "all" else 33, MOMENTS // 2, seconds):
        begun = Begun.at(small_sh, place / "env")
        time.sleep(moment[1])
        if whom == "all":
            begun.all(signal.SIGTERM)
        else:
            begun.shell.send_signal(signal.SIGTERM)
        code, said = begun.end()
        names = os.listdir(place)
        if code == 0:
            report.check(names == ["env"] and is_good(place / "env"), moment, "ended with 0", names, said)
            report.count("complete")
        else:
            report.check(was_ended(code, said), moment, f"ended with {code}", said)
            report.check(names == [], moment, f"ended with {code}, leaves", names, said)
            report.check("Traceback" not in said, moment, said)
            report.count("nothing")
        for name in names:
            shutil.rmtree(place / name)
    report.close()


def test_the_shell_alone_killed(small_sh: Path, seconds: float, place: Path) -> None:
    """The program ends by itself, and takes back what it has begun; what the shell made goes in the next run."""
    report = Report()
    for moment in moments(34, MOMENTS // 4, seconds / 3):
        begun = Begun.at(small_sh, place / "env")
        program = begun.program()
        time.sleep(moment[1])
        begun.shell.kill()
        begun.end()
        report.check(not is_running(program), moment, "the program still runs")
        again(small_sh, place / "env", report, moment)
    report.close()


def test_the_program_alone_killed(small_sh: Path, seconds: float, place: Path) -> None:
    """The shell says so, ends with its code, and removes what is the shell's."""
    report = Report()
    for moment in moments(35, MOMENTS // 4, seconds / 3):
        begun = Begun.at(small_sh, place / "env")
        program = begun.program()
        time.sleep(moment[1])
        with suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)
        code, said = begun.end()
        if code != 0:
            report.check(code == 128 + signal.SIGKILL, moment, f"ended with {code}", said)
            report.check("was ended by signal 9" in said, moment, said)
        owned = list(place.glob(".env.pack-*/owner"))
        report.check(not owned, moment, "the shell's directory stays", owned)
        again(small_sh, place / "env", report, moment)
    report.close()


# Updating


def test_an_update_killed_at_any_moment(versions: Versions) -> None:
    """One of the two versions works at every moment, and after the next run: an update, or one whose hook fails."""
    report = Report()
    for moment in moments(36, FEWER, versions.seconds):
        versions.restore()
        begun = Begun.at(versions.new, versions.target, "--update")
        time.sleep(moment[1])
        begun.all(signal.SIGKILL)
        begun.end()
        left = versions.version()
        half = (versions.target / ".installing").exists()
        report.check(left != "none", moment, "no version works")
        report.count(f"version {left}{', its hook not done' if half else ''}")
        failing = moment[0] % 2 == 1
        done = install(
            versions.new, versions.target, "--update", env={**SURROUNDINGS, **({"FAILING": "1"} if failing else {})}
        )
        expected = "2" if not failing else "1" if half else left
        report.check(done.returncode == (15 if failing else 0), moment, f"the next ended with {done.returncode}", done)
        report.check((now := versions.version()) == expected, moment, f"was {left}, is {now}, not {expected}")
        names = os.listdir(versions.target.parent)
        report.check(names == ["env"], moment, "litter", names)
        report.check(not (versions.target / ".installing").exists(), moment, "a marker stays")
    report.close()


def test_an_update_ended_at_any_moment(versions: Versions) -> None:
    """By TERM to all: the old version is there, and no trace of the new one, unless all was done already."""
    report = Report()
    for moment in moments(37, FEWER, versions.seconds):
        versions.restore()
        begun = Begun.at(versions.new, versions.target, "--update")
        time.sleep(moment[1])
        begun.all(signal.SIGTERM)
        code, said = begun.end()
        now, names = versions.version(), os.listdir(versions.target.parent)
        report.check((code == 0 and now == "2") or (code in TERMED and now == "1"), moment, f"{code}: {now}", said)
        report.check(names == ["env"], moment, "litter", names)
        report.check(not (versions.target / ".installing").exists(), moment, "a marker stays")
        report.count(f"version {now}")
    report.close()


# Uninstalling


def test_an_uninstallation_killed_at_any_moment(versions: Versions) -> None:
    """Run again, it goes on to the end."""
    report = Report()
    for moment in moments(38, FEWER, versions.removal):
        versions.restore()
        begun = Begun.at(versions.new, versions.target, "--uninstall")
        time.sleep(moment[1])
        begun.all(signal.SIGKILL)
        begun.end()
        there = os.path.lexists(versions.target)
        report.count(
            "nothing" if not there else "version 1" if versions.version() == "1" else "half of it, to be gone on with"
        )
        done = install(versions.new, versions.target, "--uninstall")
        expected = 0 if there else 6
        report.check(done.returncode == expected, moment, f"the next run ended with {done.returncode}", done.stderr)
        names = os.listdir(versions.target.parent)
        report.check(names == [] or not there, moment, "it leaves", names)
        if not there:
            done = install(versions.old, versions.target)
            report.check(done.returncode == 0 and versions.version() == "1", moment, done)
            names = os.listdir(versions.target.parent)
            report.check(names == ["env"], moment, "litter after installing again", names)
    report.close()


# In a mount point


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def state_in(place: Mounted) -> str:
    """Tell what is at a target that is mounted: nothing, all, what says itself that it is not complete, or half."""
    names = set(os.listdir(place.seen))
    if ".installing" in names:
        return "marked"
    if not names - {".pack-staging"}:
        return "nothing"
    verified = run([*place.before, PACK, "verify", place.directory], code=None)
    said = run([*place.before, place.directory / "bin" / "tool"], code=None).stdout
    return "complete" if verified.returncode == 0 and said == f"{place.directory}\n" else f"half: {sorted(names)}"


def test_in_a_mount_point_killed_at_any_moment(small_sh: Path, seconds: float, place: Path) -> None:
    """Its entries are moved in one by one: half of them are never there without a mark, nor after the next run."""
    report = Report()
    (place / "env").mkdir()
    with mounted(place / "env") as there:
        for moment in moments(39, FEWER, seconds):
            begun = Begun.at(small_sh, place / "env", before=there.before)
            time.sleep(moment[1])
            begun.all(signal.SIGKILL)
            begun.end()
            left = state_in(there)
            report.count(left)
            report.check(left in ("nothing", "complete", "marked"), moment, left)
            command = [*there.before, "sh", small_sh, "-b", "-p", place / "env"]
            done = run([*command, *(["--force"] if left == "complete" else [])], code=None)
            report.check(done.returncode == 0, moment, f"was {left}, the next run ended with {done.returncode}", done)
            names = os.listdir(there.seen)
            report.check(state_in(there) == "complete", moment, f"was {left}, is", state_in(there), done.stderr)
            report.check(".pack-staging" not in names, moment, "litter", names)
            report.check(os.listdir(place) == ["env"], moment, "litter beside it")
            empty(there.seen)
    report.close()


def test_in_a_mount_point_ended_at_any_moment(small_sh: Path, seconds: float, place: Path) -> None:
    report = Report()
    (place / "env").mkdir()
    with mounted(place / "env") as there:
        for moment in moments(40, FEWER, seconds):
            begun = Begun.at(small_sh, place / "env", before=there.before)
            time.sleep(moment[1])
            begun.all(signal.SIGTERM)
            code, said = begun.end()
            names = os.listdir(there.seen)
            if code == 0:
                report.check((state := state_in(there)) == "complete", moment, "ended with 0", state)
            else:
                report.check(was_ended(code, said) and not names, moment, f"ended with {code}, leaves", names, said)
            report.count("complete" if code == 0 else "nothing")
            empty(there.seen)
    report.close()
