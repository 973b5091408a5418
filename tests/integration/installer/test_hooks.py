"""Hooks of installers: what they find, what their failure takes back, and that none outlives its installation."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.selection import all_run
from tests.integration.installed import (
    HOOKS,
    Hooks,
    begin,
    children,
    converse,
    install,
    is_running,
    tiny_prefix,
    tool,
    uninstall,
    wait_for,
)
from tests.integration.moving import SURROUNDINGS, activated, pack, snapshot

Make = Callable[..., Path]

# What a hook is told; PREFIX and INSTALLER_PATH differ from run to run.
TOLD = {
    "INSTALLER_NAME": "Tiny 'n' $(touch no)",
    "INSTALLER_VER": "1",
    "INSTALLER_PLAT": "noarch",
    "INSTALLER_TYPE": "SH",
    "INSTALLER_UNATTENDED": "1",
    "FORCE": "0",
}
# Of a shell, of activation.
SHELLS_OWN = ("PWD", "OLDPWD", "SHLVL", "_")
ACTIVATIONS = ("CONDA_", "_PACK_", "PACK_PREFIX", "PATH")

# Waits for as long as it may, with a child of its own and one in a process group of its own, as job control has it.
HANGS = """
echo before >"$PREFIX/written" 2>/dev/null
sleep 1000 &
echo $! >"$RECORD/child"
bash -c 'set -m; sleep 1001 & echo $! >"$RECORD/job"'
echo $$ >"$RECORD/pid.new" && mv "$RECORD/pid.new" "$RECORD/pid"
wait
"""
WAITS = ': >"$RECORD/there"; while [ ! -e "$RECORD/go" ]; do sleep 0.05; done\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Path:
    """A directory with two versions of an installer, whose hooks do what a test says."""
    directory = tmp_path_factory.mktemp("hooked")
    options = Hooks(directory).options(directory / "hooks")
    for version in ("1", "2"):
        prefix = tiny_prefix(directory / version / "env", version)
        named = ("--installer-name", TOLD["INSTALLER_NAME"], "--installer-version", version)
        make_installer(prefix, directory / f"{version}.sh", *named, *options)
    return directory


@pytest.fixture
def installer(made: Path) -> Path:
    return made / "1.sh"


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    (tmp_path / "record").mkdir()
    return Hooks(tmp_path / "record")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory in which nothing is but what an installer puts there."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def target(place: Path) -> Path:
    """Where to: two directories above it are missing."""
    return place / "some" / "where" / "env"


def told(variables: dict[str, str]) -> dict[str, str]:
    """Keep what is neither of a shell nor of activation."""
    return {
        name: value for name, value in variables.items() if name not in SHELLS_OWN and not name.startswith(ACTIVATIONS)
    }


# What they find


def test_the_variables_are_those_of_the_caller_and_constructor(installer: Path, target: Path, hooks: Hooks) -> None:
    """Nothing of the frozen program's loader, and LD_LIBRARY_PATH as the caller had it."""
    for hook in HOOKS:
        hooks.do(hook, f'env -0 >"$RECORD/{hook}.env"')
    env = hooks.env | {"WORDS": " a  'b' $(c)\n", "LD_LIBRARY_PATH": "/nonexistent/lib:/another"}
    install(installer, target, env=env)
    uninstall(installer, target, env=env)
    expected = {**env, **TOLD, "PREFIX": str(target), "INSTALLER_PATH": str(installer)}
    for hook in HOOKS:
        found = hooks.variables(f"{hook}.env")
        assert told(found) == told(expected), hook
        if hook == "pre-install":
            assert found["PATH"] == env["PATH"]
            assert [name for name in found if name.startswith(("CONDA", "_PACK"))] == []
        else:
            assert found["PATH"] == f"{target}/bin:{env['PATH']}"
            assert (found["CONDA_PREFIX"], found["CONDA_SHLVL"]) == (str(target), "1")


def test_where_they_run_and_what_they_read(installer: Path, target: Path, hooks: Hooks) -> None:
    """Before, in a directory for the time of the run; then in the environment, active. There is nothing to read."""
    for hook in HOOKS:
        hooks.do(hook, 'pwd -P; cat; echo "read: $?"; command -v tool; umask; ps -o sid= -o pid= $$; trap\n')
    command: list[str | Path] = ["/bin/sh", installer, "-p", target]
    done = subprocess.run(
        command, env=hooks.env, input=b"not for hooks\n", capture_output=True, umask=0o027, preexec_fn=_ignoring
    )
    assert done.returncode == 0
    before, after = (lines(done.stderr.decode())[i : i + 6] for i in (0, 4))
    assert Path(before[0]).parent == target.parent and not Path(before[0]).exists()
    assert before[1:3] == ["read: 0", "0027"]
    assert after[:4] == [str(target), "read: 0", str(target / "bin/tool"), "0027"]
    for session, process in (before[3].split(), after[4].split()):
        assert session == process
    done = subprocess.run([*command, "--uninstall"], env=hooks.env, capture_output=True)
    assert lines(done.stderr.decode())[:3] == [str(target), "read: 0", str(target / "bin/tool")]


def lines(text: str) -> list[str]:
    return text.splitlines()


def _ignoring() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_in_conversation_it_is_not_unattended(installer: Path, target: Path, hooks: Hooks, tmp_path: Path) -> None:
    hooks.do("post-install", 'echo "$INSTALLER_UNATTENDED $FORCE" >>"$RECORD/told"')
    dialogue = [(f"Install to [{target}]: ", "\n")]
    code, printed, errors = converse(["/bin/sh", installer, "-if", "-p", target], dialogue, hooks.env, tmp_path)
    assert (code, errors) == (0, b""), printed
    assert hooks.text("told") == "0 1\n"


def test_the_order_of_events(made: Path, target: Path, hooks: Hooks) -> None:
    """First nothing is there, then all under a marker; of an update's two versions the new one's hooks run."""
    look = 'echo "{}: $(cd "$PREFIX" 2>/dev/null && echo * .inst* && "$PREFIX/bin/tool")" >>"$RECORD/events"'
    for hook in HOOKS:
        hooks.do(hook, look.format(f"{hook} $FORCE $INSTALLER_VER"))
    names = "bin conda-meta share"
    install(made / "1.sh", target, env=hooks.env)
    install(made / "2.sh", target, "-u", env=hooks.env)
    uninstall(made / "1.sh", target, env=hooks.env)
    assert hooks.text("events").splitlines() == [
        "pre-install 0 1: ",
        f"post-install 0 1: {names} .installing",
        f"{target} 1",
        f"pre-install 1 2: {names} .inst*",
        f"{target} 1",
        f"post-install 1 2: {names} .installing",
        f"{target} 2",
        f"pre-uninstall 0 2: {names} .inst*",
        f"{target} 2",
    ]
    assert not target.exists()


def test_left_out(installer: Path, target: Path, hooks: Hooks) -> None:
    for hook in HOOKS:
        hooks.do(hook, "exit 1")
    install(installer, target, "-s", env=hooks.env)
    install(installer, target, "-us", env=hooks.env)
    assert uninstall(installer, target, "-s", env=hooks.env) == []
    assert not target.exists()


# While one runs


def test_nobody_takes_what_is_not_complete(made: Path, target: Path, hooks: Hooks) -> None:
    """Activation refuses, and so does whatever else would read or change the tree; after the hook all is good."""
    hooks.do("post-install", WAITS)
    with begin(made / "1.sh", target, env=hooks.env) as installing:
        wait_for((hooks.record / "there").exists)
        assert (target / ".installing").exists()
        done = activated(target, "echo went on", code=12)
        assert (done.stdout, "not complete" in done.stderr) == ("", True)
        assert activated(target, "", env={**SURROUNDINGS, "PACK_RELOCATE": "never"}, code=12).stdout == ""
        for options in ((), ("-u",), ("--uninstall",)):
            done = install(made / "2.sh", target, *options, code=5)
            assert "at work there" in done.stderr, options
        (hooks.record / "go").touch()
        assert installing.communicate()[0] == f"{target}: installed: ".encode() + installing_rest(target)
    assert installing.returncode == 0
    assert not (target / ".installing").exists()
    assert activated(target, "tool").stdout == f"{target} 1\n"
    assert os.listdir(target.parent) == ["env"]


def installing_rest(target: Path) -> bytes:
    """Give what is said behind "installed": it counts what is in the tree."""
    members = sum(1 for path in target.rglob("*") if path.name not in ("state.json", "lock"))
    return f"{members:,} members; 2 files rewritten, 0 right already\n".encode()


def test_a_daemon_is_not_waited_for(installer: Path, target: Path, hooks: Hooks, tmp_path: Path) -> None:
    """A hook may start something that lives on, and holds what it printed to: the installation ends with the hook."""
    hooks.do("post-install", 'setsid sleep 300 & echo $! >"$RECORD/daemon"')
    with (tmp_path / "said").open("wb") as said:
        done = subprocess.run(["/bin/sh", installer, "-p", target], env=hooks.env, stdout=said, stderr=said, timeout=60)
    assert done.returncode == 0
    daemon = int(hooks.text("daemon"))
    try:
        assert is_running(daemon)
        assert os.listdir(target.parent) == ["env"]
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_what_they_print_is_handed_on_as_it_is(installer: Path, target: Path, hooks: Hooks, tmp_path: Path) -> None:
    """Never to where results go; with --log into that, beside what is said; --quiet silences only the installer."""
    printed = bytes(range(256)) * 40
    (hooks.record / "bytes").write_bytes(printed)
    for hook in HOOKS:
        hooks.do(hook, 'cat "$RECORD/bytes"; cat "$RECORD/bytes" >&2')
    log = tmp_path / "log"
    command: list[str | Path] = ["/bin/sh", installer, "-p", target]
    for options, expected in ((["--json"], printed * 4), (["-uq"], printed * 4), (["-u", "--log", log], b"")):
        done = subprocess.run([*command, *options], env=hooks.env, capture_output=True)
        assert (done.returncode, expected in done.stderr) == (0, True), options
        assert done.stderr.count(printed) == len(expected) // len(printed)
        if "--json" in options:
            assert json.loads(done.stdout)["prefix"] == str(target)
        elif "-uq" in options:
            assert (done.stdout, done.stderr) == (b"", expected)
    assert log.read_bytes().startswith(printed * 4)
    assert f"{target}: updated: ".encode() in log.read_bytes()


def test_what_they_write_is_what_somebody_added(installer: Path, target: Path, hooks: Hooks) -> None:
    """Files in the prefix from a hook stay when it is updated, and when it is uninstalled, and are listed."""
    hooks.do("post-install", 'mkdir -p "$PREFIX/etc"; echo "$INSTALLER_VER" >"$PREFIX/etc/by-hook"')
    install(installer, target, env=hooks.env)
    hooks.do("post-install", "")
    done = install(installer, target, "-u", env=hooks.env)
    assert "carried over: etc/by-hook\n" in done.stdout
    assert uninstall(installer, target, env=hooks.env) == ["etc", "etc/by-hook"]
    assert (target / "etc/by-hook").read_text() == "1\n"


# When they fail


@pytest.mark.parametrize(
    ("hook", "script", "why"),
    [
        pytest.param("pre-install", "exit 3", "it ended with code 3", id="before, a code"),
        pytest.param("post-install", "kill -SEGV $$", "it was ended by signal 11", id="a signal"),
        pytest.param(
            "post-install", 'rm -rf "$PREFIX"/*; chmod a-w "$PREFIX"; exit 1', "code 1", id="it breaks what is there"
        ),
        pytest.param("post-install", 'mkdir -p "$PREFIX/a/b"; chmod 500 "$PREFIX/a"; exit 1', "code 1", id="it adds"),
    ],
)
def test_nothing_is_left(hook: str, script: str, why: str, installer: Path, place: Path, hooks: Hooks) -> None:
    """Neither of the tree nor of the directories that were made for it."""
    hooks.do(hook, script)
    done = install(installer, place / "some" / "where" / "env", "--json", env=hooks.env, code=15)
    assert why in done.stderr and hook in done.stderr and "--skip-scripts" in done.stderr
    said = json.loads(done.stdout)
    assert (said["code"], why in said["error"]) == (15, True)
    assert os.listdir(place) == []


def test_a_target_that_a_hook_fills_is_not_taken(installer: Path, target: Path, hooks: Hooks) -> None:
    hooks.do("pre-install", 'mkdir -p "$PREFIX" && echo mine >"$PREFIX/file"')
    done = install(installer, target, env=hooks.env, code=5)
    assert "not an empty directory: file" in done.stderr
    assert snapshot(target, times=False).keys() == {"file"}
    assert os.listdir(target.parent) == ["env"]


def test_no_such_interpreter(make_installer: Make, target: Path, place: Path, tmp_path: Path) -> None:
    """A hook that the system cannot start has failed."""
    hook = tmp_path / "hook"
    hook.write_text("#!/nonexistent/python\n")
    installer = make_installer(tiny_prefix(tmp_path / "env"), tmp_path / "env.sh", "--post-install", hook)
    assert "post-install: the hook failed" in install(installer, target, code=15).stderr
    assert os.listdir(place) == []


def test_an_update_is_taken_back(made: Path, target: Path, hooks: Hooks) -> None:
    """The old version is where it was, byte for byte, and works."""
    install(made / "1.sh", target, env=hooks.env)
    (target / "share/added").write_text("mine\n")
    (target / "share/text").write_text("changed\n")
    before = snapshot(target)
    hooks.do("post-install", 'echo broken >"$PREFIX/share/by-hook"; exit 1')
    done = install(made / "2.sh", target, "-u", env=hooks.env, code=15)
    assert "taken back" in done.stderr
    assert snapshot(target) == before
    assert os.listdir(target.parent) == ["env"]
    tool(target, "1")


def test_what_cannot_be_prepared_for_its_end_is_not_removed(installer: Path, target: Path, hooks: Hooks) -> None:
    install(installer, target, env=hooks.env)
    before = snapshot(target)
    hooks.do("pre-uninstall", "exit 9")
    done = install(installer, target, "--uninstall", env=hooks.env, code=15)
    assert "pre-uninstall: the hook failed: it ended with code 9" in done.stderr
    assert snapshot(target) == before
    assert uninstall(installer, target, "-s", env=hooks.env) == []


# When they are interrupted


def the_hooks_processes(hooks: Hooks) -> list[int]:
    wait_for((hooks.record / "pid").exists)
    return [int(hooks.text(name)) for name in ("pid", "child", "job")]


@pytest.mark.parametrize(
    ("hook", "number"),
    [("pre-install", signal.SIGHUP), ("post-install", signal.SIGTERM), ("pre-uninstall", signal.SIGINT)],
)
@pytest.mark.usefixtures("hang_up")
def test_they_end_with_the_installer(
    hook: str, number: signal.Signals, installer: Path, place: Path, target: Path, hooks: Hooks
) -> None:
    """They and all that they started; the target is as it was."""
    if hook == "pre-uninstall":
        install(installer, target, env=hooks.env)
    before = snapshot(place)
    hooks.do(hook, HANGS)
    option = ["--uninstall"] if hook == "pre-uninstall" else []
    with begin(installer, target, *option, env=hooks.env) as installing:
        started = the_hooks_processes(hooks)
        installing.send_signal(number)
        _, said = installing.communicate(timeout=60)
    assert installing.returncode == 128 + number
    assert b": error: interrupted" in said
    wait_for(lambda: not any(map(is_running, started)), 10)
    if hook == "pre-uninstall":
        (target / "written").unlink()
        assert snapshot(place, times=False) == {name: (f[0], 0, f[2]) for name, f in before.items()}
    else:
        assert snapshot(place) == before == {}


def test_one_that_will_not_end_is_killed(installer: Path, place: Path, target: Path, hooks: Hooks) -> None:
    hooks.do("post-install", "trap '' TERM INT HUP\n" + HANGS.replace("wait", "while :; do sleep 1; done"))
    with begin(installer, target, env=hooks.env) as installing:
        started = the_hooks_processes(hooks)
        installing.terminate()
        installing.communicate(timeout=60)
    assert installing.returncode == 143
    wait_for(lambda: not any(map(is_running, started)), 10)
    assert os.listdir(place) == []


def test_ctrl_c_ends_all(installer: Path, place: Path, target: Path, hooks: Hooks, tmp_path: Path) -> None:
    """A terminal sends it to everything in the foreground; a hook has a session of its own."""
    hooks.do("post-install", f"{HANGS.replace('wait', '')}printf waiting; wait")
    command: list[str | Path] = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", "/bin/sh", installer, "-p", target]
    code, printed, _ = converse(command, [("waiting", "\x03")], hooks.env, tmp_path)
    assert code == 130, printed
    wait_for(lambda: not any(map(is_running, the_hooks_processes(hooks))), 10)
    assert os.listdir(place) == []


# hook, whether the script's program is killed, too, whether it is an update: two of them are for every change
KILLS = list(itertools.product(("post-install", "pre-install"), (True, False), (True, False)))
KILLS_OF_CI = (0, 7)


@pytest.mark.parametrize("number", range(len(KILLS)) if all_run() else KILLS_OF_CI)
def test_killed_with_one_running(number: int, made: Path, target: Path, hooks: Hooks) -> None:
    """The hook ends, too; the next run finds what was there before, and is as good as any."""
    hook, all_of_it, update = KILLS[number]
    if update:
        install(made / "1.sh", target, env=hooks.env)
        before = snapshot(target)
    hooks.do(hook, HANGS)
    options = ["-u"] if update else []
    with begin(made / "2.sh", target, *options, env=hooks.env) as installing:
        pid, *others = the_hooks_processes(hooks)
        below = [each for each in children(installing.pid) if each not in (pid, *others)]
        # Stopped first: whoever outlives another for a moment begins to clean up behind it.
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            for each in (installing.pid, *below) if all_of_it else (installing.pid,):
                os.kill(each, sent)
        installing.wait()
        wait_for(lambda: not any(map(is_running, (pid, *below))), 30)
    if all_of_it:  # nobody is left to end what it started
        for each in others:
            os.kill(each, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, others)), 30)
    hooks.do(hook, "")
    if hook == "post-install" and all_of_it:
        assert activated(target, "", code=12).stdout == ""
    elif update:
        (target / "written").unlink(missing_ok=True)
        assert snapshot(target, times=False) == {name: (f[0], 0, f[2]) for name, f in before.items()}
    install(made / "2.sh", target, *options, env=hooks.env)
    tool(target, "2")
    assert os.listdir(target.parent) == ["env"]
    assert "are right" in pack("verify", target).stdout
