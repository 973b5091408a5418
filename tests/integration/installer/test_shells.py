"""Every shell, on coreutils of every make and nothing else, however the file is called or found."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import cases, need
from tests.integration.machines import MAKES, copied, mounts, need_mounts, tools
from tests.integration.moving import SURROUNDINGS, Run, run, short_directory
from tests.integration.outcomes import faults

SHELLS = {
    "sh": ["sh"],
    "bash as POSIX": ["bash", "--posix"],
    "dash": ["dash"],
    "bash": ["bash"],
    "zsh": ["zsh"],
    "ksh93": ["ksh93"],
    "mksh": ["mksh"],
    "yash": ["yash"],
    "busybox": ["busybox", "sh"],
}
# Each shell on one make's coreutils, each make's in several; the other pairs take long.
PAIRS = [
    pytest.param(shell, make, marks=[] if (number - other) % 3 == 0 and number > 1 else [pytest.mark.slow])
    for number, shell in enumerate(SHELLS)
    for other, make in enumerate(MAKES)
]
PIPED = ("the installer cannot be found: was it read from a pipe?", "TIP: Save it to a file, and run that: sh FILE")


@dataclass(frozen=True)
class Bare:
    """A machine with one shell and coreutils of one make: what lies in its ``/usr/bin``, and a place to work in."""

    tools: Path
    place: Path
    empty: Path

    def run(self, *command: str | Path, code: int = 0) -> Run:
        """Run a command where there are no other programs than these."""
        hide = "\n".join(
            f'mount --bind "{path}" {directory}'
            for path, directory in ((self.empty, "/usr/local/bin"), (self.tools, "/bin"), (self.tools, "/usr/bin"))
            if directory == "/usr/bin" or (os.path.isdir(directory) and not os.path.islink(directory))
        )
        others = "tar gzip zstd sed awk grep perl python3 getconf ldd"
        none = f"for each in {others}; do if command -v $each; then exit 99; fi; done"
        script = f'{hide}\n{none}\nexec "$@"'
        env = {"PATH": "/usr/bin", "LC_ALL": "C.UTF-8"}
        # Mounting is over when the last program that is needed for it has been hidden.
        return run(
            ["/usr/bin/unshare", "-m", "/bin/sh", "-ec", script, "sh", *command], env=env, cwd=self.place, code=code
        )


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def bare(place: Path, make: str, shell: str) -> Bare:
    need_mounts()
    program = SHELLS[shell][0]
    directory = tools(place / "tools", make)
    copied(["sh", *([program] if program != "sh" else [])], directory)
    for name in ("empty", "place"):
        (place / name).mkdir()
    return Bare(directory, place / "place", place / "empty")


@pytest.mark.parametrize(("shell", "make"), PAIRS)
def test_all_it_does_in_every_shell_with_nothing_but_coreutils(
    shell: str, make: str, bare: Bare, small_sh: Path
) -> None:
    """Installing, telling, checking, an error, an update, uninstalling."""
    target = bare.place / "env"

    def installer(*options: str | Path, code: int = 0) -> str:
        done = bare.run(*SHELLS[shell], small_sh, "-p", target, *options, code=code)
        if code:
            assert [line.split(":")[0] for line in done.stderr.splitlines()] == [small_sh.name, "TIP"]
        else:
            assert done.stderr == ""
        return done.stdout

    assert installer("--check").endswith("OK\n")
    assert json.loads(installer("--info", "--json"))["name"] == "env"
    assert json.loads(installer("-u", "--json", code=6))["code"] == 6
    assert installer().startswith(f"{target}: installed: ")
    assert faults(target) == []
    assert installer(code=5) == ""
    (target / "share/mine").write_text("mine\n")
    assert installer("-u").startswith(f"{target}: updated: ")
    assert (target / "share/mine").read_text() == "mine\n"
    assert os.listdir(bare.place) == ["env"]
    (target / "share/mine").unlink()
    assert installer("--uninstall").startswith(f"{target}: uninstalled: ")
    assert os.listdir(bare.place) == []


# How it is called

NAMES = ["env", "a b.sh", "-p.sh", "-", "$x`y`.sh", "a'b\"c.sh", "ünï.sh", "a\\b\n.sh", "*.sh", "a=b.sh", ".sh", "sh"]


# Each shell with some of the names; with all of them takes long.
SOME = [
    pytest.param(shell, some, marks=[] if number == some else [pytest.mark.slow])
    for number, shell in enumerate(("dash", "bash", "zsh", "ksh93", "mksh", "yash", "busybox"))
    for some in range(7)
]


@pytest.mark.parametrize(("shell", "some"), SOME)
def test_any_name(shell: str, some: int, small_sh: Path, place: Path) -> None:
    """It finds itself under names that mean something to shells and programs, in directories of such names."""
    need(SHELLS[shell][0])
    for number, name in enumerate(NAMES[some::7]):
        directory = place / f"{number}{name}"
        directory.mkdir()
        shutil.copy(small_sh, directory / name)
        done = run([*SHELLS[shell], f"./{name}", "--version"], cwd=directory)
        assert (done.stdout.split()[0], done.stderr) == ("env", ""), name
        done = run([*SHELLS[shell], directory / name, "--version"], cwd=Path("/"))
        assert (done.stdout.split()[0], done.stderr) == ("env", ""), name
        if not name.startswith("-"):
            done = run([*SHELLS[shell], name, "--version"], cwd=directory)
            assert (done.stdout.split()[0], done.stderr) == ("env", ""), name


@pytest.mark.parametrize("name", [NAMES[number] for number in cases(71, len(NAMES))])
def test_installing_from_any_name(name: str, small_sh: Path, place: Path) -> None:
    """The program finds the file, too."""
    directory = place / "from here"
    directory.mkdir()
    shutil.copy(small_sh, directory / name)
    (directory / name).chmod(0o755)
    (place / "to").mkdir()
    done = run([f"./{name}", "-p", "../to/env"], cwd=directory)
    assert done.stderr == ""
    assert faults(place / "to/env") == []
    assert os.listdir(place / "to") == ["env"]


def good_and_gone(target: Path) -> None:
    """Fail unless there is an installation in which all is right; remove it."""
    assert faults(target) == []
    assert os.listdir(target.parent) == ["env"]
    shutil.rmtree(target)


def test_every_way_to_it(small_sh: Path, place: Path) -> None:
    """By a symlink, also a chain of them; by PATH; from elsewhere; from a file system that is read-only and noexec."""
    for name in ("bin", "links", "to", "mount"):
        (place / name).mkdir()
    installer, target = place / "bin/env.sh", place / "to/env"
    shutil.copy(small_sh, installer)
    installer.chmod(0o755)
    (place / "links/one").symlink_to("../bin/env.sh")
    (place / "links/two.sh").symlink_to(place / "links/one")
    found = {**SURROUNDINGS, "PATH": f"{place}/bin:{SURROUNDINGS['PATH']}"}
    ways: list[tuple[Sequence[str | Path], dict[str, str], Path]] = [
        ([place / "links/two.sh"], SURROUNDINGS, place),
        (["sh", "links/one"], SURROUNDINGS, place),
        (["sh", "-c", 'env.sh "$@"', "sh"], found, place / "to"),
        (["bash", "env.sh"], found, place),
        (["sh", "env.sh"], SURROUNDINGS, place / "bin"),
        (["bash", "../bin/./env.sh"], SURROUNDINGS, place / "to"),
    ]
    for command, env, directory in ways:
        run([*command, "-p", target], env=env, cwd=directory)
        good_and_gone(target)
    installer.chmod(0o444)
    mounts(f"""
        mount --bind {place}/bin {place}/mount
        mount -o remount,ro,noexec,bind {place}/mount
        cd {place}/mount
        sh env.sh -p {target}
    """)
    good_and_gone(target)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pipe_is_refused(shell: str, small_sh: Path, place: Path) -> None:
    """What a shell reads ahead of its script is lost to it: it is told, whatever it was called with."""
    need(SHELLS[shell][0])
    words = " ".join(SHELLS[shell])
    for script in (
        f"cat {small_sh} | {words}",
        f"{words} < {small_sh}",
        f"{words} -s < {small_sh}",
        f"cat {small_sh} | {words} -s -- -p {place}/env",
        f"{words} -s -- -b -p {place}/env < {small_sh}",
    ):
        done = run(["sh", "-c", script], cwd=place, code=None)
        assert done.returncode == 2, (script, done)
        for word in PIPED:
            assert word in done.stderr
        assert done.stdout == ""
    assert os.listdir(place) == []


# What reads it all before it runs anything of it meets bytes that are no text.
SOURCED = {
    "bash": (126, "cannot execute binary file"),
    "bash as POSIX": (126, "cannot execute binary file"),
    "ksh93": (3, "zero byte"),
    "zsh": (2, "the installer was sourced"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_sourcing_it_is_refused(shell: str, small_sh: Path, place: Path) -> None:
    """By the script, or by the shell itself."""
    need(SHELLS[shell][0])
    done = run([*SHELLS[shell], "-c", f"set -- -p {place}/env; . {small_sh}"], cwd=place, code=None)
    code, words = SOURCED.get(shell, (2, PIPED[0]))
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert os.listdir(place) == []


def test_a_copy_that_is_being_written(small_sh: Path, place: Path) -> None:
    """A download that has not ended is damaged, not run."""
    content = small_sh.read_bytes()
    for size in (len(content) // 2, len(content) - 1, len(content) - 284):
        (place / "env.sh").write_bytes(content[:size])
        done = run(["sh", place / "env.sh", "-p", place / "env"], code=11)
        assert "it was cut" in done.stderr
        assert os.listdir(place) == ["env.sh"]
