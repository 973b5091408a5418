"""The program behind an installer's script: what it prints, what it ends with, and what can end it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.selection import cases, need
from installer_stub.landing import Replace
from tests.unit.installers import (
    PROGRAM,
    Part,
    as_nobody,
    command,
    environment,
    has_ended,
    in_memory,
    installed,
    noise,
    run,
    says,
    shape,
    stage,
    write,
)
from tests.unit.other_user import open_directory

ONE = environment(b"one")


@pytest.fixture
def here() -> Iterator[Path]:
    with in_memory() as place:
        yield place


@pytest.fixture
def files() -> Iterator[Path]:
    with in_memory() as place:
        yield place


@pytest.fixture
def one(files: Path) -> Path:
    return write(files / "one.sh", ONE)


@pytest.fixture(scope="module")
def large() -> Iterator[Path]:
    """An installer that takes a while, and whose hooks take until a file says that it is enough."""
    wait = '#!/bin/sh\necho $$ >"${PREFIX%/*}/ready"\nwhile [ ! -e "${PREFIX%/*}/enough" ]; do sleep 0.05; done\n'
    again = wait.replace("/ready", "/ready again").replace("/enough", "/never")
    with in_memory() as place:
        yield write(place / "large.sh", [*ONE, noise(8 << 20)], {"pre-install": wait, "post-install": again})


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """Read the JSON that is all of the standard output, and one line."""
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


# What is printed


def test_words_for_a_person(here: Path, one: Path) -> None:
    done = run("install", one, here / "env")
    words = rf"{here}/env: installed: \d+ members; 1 files rewritten, 0 right already\n"
    assert re.fullmatch(words, done.stdout)
    assert done.stderr == ""
    (here / "env/mine").touch()
    done = run("install", one, here / "env", "--update")
    assert done.stdout.splitlines()[1:] == ["carried over: mine"]
    done = run("uninstall", one, here / "env")
    assert done.stdout.splitlines()[1:] == ["left: mine"]
    assert "paths removed; 1 left" in done.stdout
    done = run("extract", one, here / "archived")
    assert "as archived" in done.stdout
    done = run("list", one, here / "none")
    assert done.stdout.splitlines()[-1].split() == ["hard-link", "0644", "0", "lib/twin.py", "->", "lib/mod.py"]
    assert done.stderr == ""


def test_an_error_for_a_person(here: Path, one: Path) -> None:
    (here / "env").mkdir()
    (here / "env/x").touch()
    done = run("install", one, here / "env", code=5)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"one.sh: error: {here}/env: exists, and is not an empty directory: x.",
        "TIP: Remove it yourself, or choose another one.",
    ]


def test_json_alone_is_on_the_standard_output(here: Path, files: Path) -> None:
    """Also what hooks print goes elsewhere."""
    installer = write(
        files / "env.sh", ONE, dict.fromkeys(("pre-install", "post-install", "pre-uninstall"), "echo hook")
    )
    done = run("install", installer, here / "env", "--json")
    facts = said(done)
    assert (facts["prefix"], facts["written"], facts["replaced"], facts["findings"]) == (f"{here}/env", 1, False, [])
    assert done.stderr.count("hook\n") == 2
    (here / "env/mi\u00e9ne%").touch()
    facts = said(run("install", installer, here / "env", "--json", "--update"))
    finding = {"path": "mi\u00e9ne%25", "offset": None, "what": "carried over", "detail": ""}
    assert (facts["replaced"], facts["findings"]) == (True, [finding])
    done = run("list", installer, here / "env", "--json")
    entries = said(done)["entries"]
    assert [entry["path"] for entry in entries] == [part.path.decode() for part in ONE]
    assert set(entries[1]) == {"path", "kind", "mode", "size", "sha256", "package"}
    assert done.stderr == ""
    done = run("uninstall", installer, here / "env", "--json")
    facts = said(done)
    assert (facts["prefix"], facts["left"]) == (f"{here}/env", ["mi\u00e9ne%25"])
    assert said(run("extract", installer, here / "archived", "--json"))["written"] == 0


ERRORS: dict[str, tuple[str, Sequence[str], int]] = {
    "nothing to update": ("install", ["--update"], 6),
    "a group that nobody knows": ("install", ["--group", "no-such-group"], 2),
    "a umask against the owner": ("install", ["--umask", "700"], 2),
    "nothing to uninstall": ("uninstall", [], 6),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_in_json(what: str, here: Path, one: Path) -> None:
    name, options, code = ERRORS[what]
    done = run(name, one, here / "env", "--json", *options, code=code)
    facts = said(done)
    assert (facts["code"], facts["error"] in done.stderr) == (code, True)
    assert set(facts) == {"code", "error"}
    assert os.listdir(here) == []


def test_damage_in_json(here: Path, one: Path) -> None:
    one.write_bytes(one.read_bytes()[:-1])
    for name in ("install", "extract", "list"):
        assert said(run(name, one, here / "env", "--json", code=11))["code"] == 11


def test_quiet_says_errors_only(here: Path, one: Path) -> None:
    for name, more in (("install", ()), ("install", ("--update",)), ("uninstall", ())):
        done = run(name, one, here / "env", "--quiet", *more)
        assert (done.stdout, done.stderr) == ("", "")
    done = run("uninstall", one, here / "env", "--quiet", code=6)
    assert done.stdout == ""
    assert "error:" in done.stderr
    assert said(run("install", one, here / "env", "--quiet", "--json"))["written"] == 1


def test_the_log_has_all_that_is_said_and_what_hooks_print(here: Path, files: Path) -> None:
    log = files / "log"
    log.write_text("earlier\n")
    installer = write(files / "env.sh", ONE, {"post-install": "echo said; echo err >&2; exit 1\n"})
    done = run("install", installer, here / "env", "--log", str(log), "--quiet", code=15)
    assert "said" not in done.stderr
    lines = log.read_text().splitlines()
    assert lines[:3] == ["earlier", "said", "err"]
    assert lines[3].startswith("env.sh: error: ")
    assert lines[4].startswith("TIP: ")
    run("install", installer, here / "env", "--log", str(log), "--skip-scripts", "--json")
    assert "installed: " in log.read_text()
    done = run("install", installer, here / "other", "--log", str(files / "no/such/log"), "--skip-scripts")
    assert "installed: " in done.stdout, "the script has said that it cannot be written"


def test_many_findings_are_counted(here: Path, one: Path) -> None:
    installed(one, here / "env")
    for number in range(25):
        (here / f"env/mine{number:02}").touch()
    done = run("install", one, here / "env", "--update")
    lines = done.stdout.splitlines()
    assert lines[1:] == [
        *(f"carried over: mine{number:02}" for number in range(10)),
        "carried over: and 15 more; --json lists all",
    ]
    assert len(said(run("install", one, here / "env", "--update", "--json"))["findings"]) == 25


def test_names_that_no_terminal_can_show(here: Path, files: Path) -> None:
    strange = [Part("s\u00e9\u4e16".encode()), Part(b"\xff\n")]
    installer = write(files / "\udcff.sh", [*ONE, *strange])
    for locale in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8"}):
        more = {"env": {**os.environ, **locale}, "errors": "surrogateescape"}
        done = run("list", installer, here / "env", **more)  # type: ignore[arg-type]
        assert done.stdout.splitlines()[-1].endswith(" %FF%0A")
    (here / "env").mkdir()
    (here / "env/x").touch()
    done = run("install", installer, here / "env", code=5)
    assert "\\udcff.sh: error: " in done.stderr
    plain = [each for each in PROGRAM if each not in ("-X", "utf8", "-I")]
    surroundings = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with stage(here / "new") as staging:
        words = command("list", installer, here / "new", staging)[len(PROGRAM) :]
        listed = subprocess.run([*plain, *words], capture_output=True, text=True, env=surroundings)
    assert listed.returncode == 0, listed.stderr
    assert "s\\xe9\\u4e16" in listed.stdout


# Streams that are not there


def test_streams_that_the_caller_has_closed(here: Path, files: Path) -> None:
    """No file that is opened gets the number of one, to be written into by a hook."""
    installer = write(files / "env.sh", ONE, {"post-install": "echo hello; echo hello >&2\n"})
    for closed, (number, json_too) in enumerate((("0", True), ("1", False), ("2", True), ("0 1 2", False))):
        script = "".join(f"exec {each}>&-; " for each in number.split()) + 'exec "$@"'
        done = run("install", installer, here / f"env{closed}", "--json", before=["sh", "-c", script, "sh"])
        assert sorted(os.listdir(here / f"env{closed}")) == [".pack", "bin", "conda-meta", "lib"]
        if json_too:
            assert said(done)["written"] == 1
        else:
            assert done.stdout == ""
        done = run("install", installer, here / f"env{closed}", "--json", before=["sh", "-c", script, "sh"], code=5)
        assert not json_too or said(done)["code"] == 5


def piped(arguments: Sequence[str], reader: str) -> tuple[int, str]:
    """Run a program into one that reads what it likes; return the code of the first, and what it complained of."""
    script = f'{{ "$@"; echo "code $?" >&2; }} | {reader}'
    done = subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, timeout=60)
    *words, code = done.stderr.splitlines()
    return int(code.removeprefix("code ")), "\n".join(words)


def test_who_reads_and_goes_away_changes_nothing(here: Path, files: Path) -> None:
    many = [Part(b"f%05d" % number) for number in range(4000)]
    installer = write(files / "env.sh", [*ONE, *many])
    with stage(here / "env") as staging:
        for options in ((), ("--json",)):
            assert piped(command("list", installer, here / "env", staging, *options), "head -c 10") == (0, "")
        assert piped(command("install", installer, here / "env", staging), "true") == (0, "")
    assert os.listdir(here) == ["env"]


def test_what_was_asked_for_and_cannot_be_printed_is_an_error(here: Path, one: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for name, options in (("list", ()), ("list", ("--json",)), ("install", ("--json",))):
            done = run(
                name, one, here / "env", *options, code=1, capture_output=False, stdout=full, stderr=subprocess.PIPE
            )
            assert done.stderr.splitlines()[-1].endswith("No space left on device")
    assert says(here / "env") == f"{here}/env one\n", "it is there all the same"
    with Path("/dev/full").open("w") as full:
        run("install", one, here / "env", code=5, capture_output=False, stdout=subprocess.PIPE, stderr=full)


# Who runs it, and how


@pytest.mark.parametrize("mask", ["077", "000", "027"])
def test_a_umask_of_its_own(mask: str, one: Path) -> None:
    with open_directory() as here:
        here.chmod(0o777)
        run("install", one, here / "root", "--umask", mask)
        (here / "program").mkdir()
        done = run_as_nobody(here, one, "--umask", mask)
        assert done.returncode == 0, done.stderr
        for name in (".", "bin/tool", "lib/mod.py", ".pack/state.json"):
            assert shape(here / "root")[name][0] == shape(here / "nobody")[name][0], name
        expected = {"077": "-rwx------", "000": "-rwxr-xr-x", "027": "-rwxr-x---"}[mask]
        assert shape(here / "nobody")["bin/tool"][0] == expected


def run_as_nobody(here: Path, installer: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the program as another user, who may not be able to read where the tests' own Python lies."""
    shutil.copytree(Path(__file__).parents[2] / "installer_stub", here / "program/installer_stub", dirs_exist_ok=True)
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("there is no Python that every user may run")
    start = (
        f"import sys; sys.path.insert(0, {str(here / 'program')!r}); import installer_stub.__main__ as p; p.main('x')"
    )
    target = here / "nobody"
    with stage(target) as staging:
        if os.geteuid() == 0:
            os.chown(staging, 65534, 65534)
        where = ("--installer", str(installer), "--staging", str(staging), "--target", str(target))
        arguments = [python, "-I", "-S", "-B", "-X", "utf8", "-c", start, "install", *where, *options]
        return subprocess.run(arguments, capture_output=True, text=True, **as_nobody())  # type: ignore[call-overload, no-any-return]


def test_another_user_where_nothing_is_permitted(one: Path) -> None:
    """The directory above is closed, so the script has made its own in the target."""
    with open_directory() as here:
        (here / "program").mkdir()
        here.chmod(0o755)
        done = run_as_nobody(here, one)
        assert done.returncode == (5 if os.geteuid() == 0 else 0)
        if os.geteuid() == 0:
            assert f"{here}/nobody: cannot be written: no permission" in done.stderr
            assert os.listdir(here) == ["program"]


@pytest.mark.parametrize("options", [(), ("--force",), ("--force", "--update"), ("--update",)])
def test_update_and_force(options: Sequence[str], here: Path, one: Path) -> None:
    """The script says both where "force" was asked for and it has seen something; what it saw may be incomplete."""
    code = 6 if options == ("--update",) else 0
    run("install", one, here / "env", *options, code=code)
    if code == 0:
        run("install", one, here / "env", *options, code=0 if options else 5)


def test_locks_that_there_are_none_of(here: Path, one: Path) -> None:
    trace = [str(need("strace")), "-f", "-o", os.devnull, "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]
    run("install", one, here / "env", before=trace)
    run("install", one, here / "env", "--update", before=trace)
    assert says(here / "env") == f"{here}/env one\n"
    run("uninstall", one, here / "env", before=trace)
    assert os.listdir(here) == []


def test_it_is_killed_at_any_system_call(here: Path, files: Path) -> None:
    """As the system sees it, also what no function of Python shows: the next run finds what was before, or installs."""
    strace = str(need("strace"))
    installer = write(files / "env.sh", environment(b"two"), {"post-install": "true\n"})
    calls = (
        "?rename,renameat,renameat2,linkat,?link,unlinkat,?unlink,?mkdir,mkdirat,?rmdir,fsync,syncfs,?chmod,fchmodat"
    )
    first = here / "first/env"
    first.parent.mkdir()
    installed(write(files / "one.sh", ONE), first)
    log = files / "log"
    run("install", installer, first, "--update", before=[strace, "-o", str(log), "-e", f"trace={calls}"])
    seen: dict[str, int] = {}
    moments: list[tuple[str, int]] = []
    for line in log.read_text(errors="replace").splitlines():
        call = line.partition("(")[0]
        if call.isidentifier():
            seen[call] = seen.get(call, 0) + 1
            moments.append((call, seen[call]))
    chosen = [moments[number] for number in cases(1, len(moments))]
    for number, (call, when) in enumerate([*chosen, ("renameat2", 1)]):
        target = here / f"t{number}/env"
        target.parent.mkdir()
        installed(files / "one.sh", target)
        before = shape(target)
        inject = f"inject={call}:signal=KILL:when={when}"
        trace = [strace, "-o", os.devnull, "-e", f"trace={call}", "-e", inject]
        with stage(target) as staging:
            done = subprocess.run(
                [*trace, *command("install", installer, target, staging, "--update")], capture_output=True
            )
            assert done.returncode in (-9, 137), f"{call} {when} was not reached"
        assert shape(target) == before or (target / ".installing").exists() or says(target).endswith("two\n")
        installed(installer, target, replace=Replace.YES)
        assert says(target) == f"{target} two\n"
        assert os.listdir(target.parent) == ["env"]


@pytest.mark.parametrize("before", ["nothing", "an empty directory", "an environment"])
def test_many_at_once(before: str, here: Path, files: Path) -> None:
    """One of them, or one after the other; whoever loses says so and leaves nothing."""
    target = here / "env"
    installer = write(files / "two.sh", environment(b"two", noise(1 << 20)), {"post-install": "sleep 0.1\n"})
    options = ["--update"] if before == "an environment" else []
    if options:
        installed(write(files / "one.sh", ONE), target)
    elif before != "nothing":
        target.mkdir()
    with ExitStack() as stack:
        stages = [stack.enter_context(stage(target)) for _ in range(6)]
        started_ones = [
            stack.enter_context(started(command("install", installer, target, each, *options))) for each in stages
        ]
        ends = [(process.communicate()[1], process.returncode) for process in started_ones]
    assert [said for said, code in ends if code == 0].count("") >= 1
    losers = [said for said, code in ends if code != 0]
    assert all("at work there" in said or "not an empty directory" in said for said in losers), losers
    assert {code for _, code in ends} <= {0, 5}
    assert options or len(losers) == 5
    assert says(target) == f"{target} two\n"
    assert os.listdir(here) == ["env"]


@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=40"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_disk_that_is_full(limit: str, inside: bool, here: Path, files: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    many = [Part(b"f%05d" % number) for number in range(60)]
    write(files / "one.sh", ONE)
    write(files / "two.sh", environment(b"two", noise(2 << 20), *many))
    target = here / "disk" if inside else here / "disk/env"
    (here / "disk").mkdir()
    work = target / ".pack-staging/abcdefgh" if inside else target.parent / ".env.pack-abcdefgh"
    one, two = (
        " ".join(map(shlex.quote, command("install", files / name, target, work, option)))
        for name, option in (("one.sh", "--force"), ("two.sh", "--update"))
    )
    script = (
        f"cd {here}; mount -t tmpfs -o {limit} none disk; mkdir -p {work}; {one}; find disk | sort >before;"
        f" if {two}; then exit 1; else echo $?; fi; find disk | sort >after; cmp before after; {target}/bin/tool"
    )
    done = subprocess.run([need("unshare"), "-m", "sh", "-ec", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["5", f"{target} one"], done.stderr
    assert "cannot be written: the disk is full" in done.stderr


# What ends it


@contextmanager
def started(arguments: Sequence[str], **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Start something that is not to outlive the test, whatever becomes of that."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process: subprocess.Popen[str] = subprocess.Popen(arguments, text=True, **{**streams, **more})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(9000):
        if condition():
            return
        assert process.poll() is None, "it ended too early"
        time.sleep(0.01)
    raise AssertionError("it took too long")


def written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def starting(target: Path, process: subprocess.Popen[str]) -> None:
    time.sleep(0.2)


def unpacking(target: Path, process: subprocess.Popen[str]) -> None:
    until(lambda: list(target.parent.glob(".env.pack-*/tree/bin")), process)


def first_hook(target: Path, process: subprocess.Popen[str]) -> None:
    until(lambda: written(target.parent / "ready"), process)


def second_hook(target: Path, process: subprocess.Popen[str]) -> None:
    first_hook(target, process)
    (target.parent / "enough").touch()
    until(lambda: written(target.parent / "ready again"), process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("moment", [starting, unpacking, first_hook, second_hook])
@pytest.mark.usefixtures("hang_up")
def test_a_signal_leaves_nothing(
    moment: Callable[[Path, subprocess.Popen[str]], None], number: signal.Signals, here: Path, large: Path
) -> None:
    target = here / "env"
    with stage(target) as staging, started(command("install", large, target, staging, "--json")) as process:
        moment(target, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    if moment is not starting or out:  # before it knew of signals, it ended as any program does
        assert process.returncode == 128 + number, err
        assert json.loads(out)["code"] == 128 + number
        assert "interrupted; the target is as it was before" in err
    for name in ("ready", "ready again", "enough"):
        (here / name).unlink(missing_ok=True)
    assert os.listdir(here) == []


def test_a_signal_that_the_caller_ignores_is_ignored(here: Path, one: Path) -> None:
    """As under nohup, and as shells have INT ignored by what runs in the background."""
    begin = ["sh", "-c", "trap '' HUP INT; echo; exec \"$@\"", "sh"]
    with stage(here / "env") as staging, started([*begin, *command("install", one, here / "env", staging)]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:
            for number in (signal.SIGHUP, signal.SIGINT):
                process.send_signal(number)
            time.sleep(0.01)
    assert process.returncode == 0
    assert os.listdir(here) == ["env"]


def test_who_was_interrupted_while_uninstalling_is_told_to_run_it_again(here: Path, files: Path) -> None:
    text = '#!/bin/sh\ntouch "$PREFIX/../ready"; sleep 60\n'
    installer = write(files / "env.sh", ONE, {"pre-uninstall": text})
    installed(installer, here / "env")
    arguments = ("uninstall", installer, here / "env")
    with stage(here / "env") as staging, started(command(*arguments, staging)) as process:
        until(lambda: (here / "ready").exists(), process)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "what is left is removed when it is run again" in err
    (here / "ready").unlink()
    run("uninstall", installer, here / "env", "--skip-scripts")
    assert os.listdir(here) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_script_however_that_ends(number: signal.Signals, here: Path, large: Path) -> None:
    """Nobody else removes what the script has made, and nobody knows of what goes on."""
    target = here / "env"
    staging = here / ".env.pack-abcdefgh"
    staging.mkdir(mode=0o700)
    script = f'echo "$(uname -n) $$" >{staging}/owner; "$@" & echo $! >{here}/program; wait'
    with started(["sh", "-c", script, "sh", *command("install", large, target, staging)]) as parent:
        until(lambda: written(here / "program") and written(here / "ready"), parent)
        parent.send_signal(number)
        parent.wait()
        assert has_ended(int((here / "program").read_text()))
    for name in ("ready", "program"):
        (here / name).unlink()
    assert sorted(os.listdir(staging)) == ["lock", "owner"]
    assert os.listdir(here) == [staging.name], "which the next run removes"
    run("install", write(here / "one.sh", ONE), target)
    assert sorted(os.listdir(here)) == ["env", "one.sh"]


def test_a_script_that_had_ended_before_is_noticed(here: Path, one: Path) -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    with stage(here / "env", owner=f"{os.uname().nodename} {gone}\n") as staging:
        done = subprocess.run(command("install", one, here / "env", staging), capture_output=True, text=True)
    assert done.returncode == 143
    assert os.listdir(here) == []
    for owner in ("", "nonsense", "x y", f"{os.uname().nodename} {10**30}\n"):
        with stage(here / "env", owner=owner or " ") as staging:
            arguments = command("install", one, here / "env", staging, "--force")
            assert subprocess.run(arguments, capture_output=True).returncode == 0
