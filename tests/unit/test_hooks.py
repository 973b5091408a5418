"""A hook runs as it was promised, its failure is told, and nothing of it outlives what interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from installer_stub import activation, hooks
from installer_stub.errors import HookFailed
from tests.unit.installers import ROOT, has_ended, in_memory


@pytest.fixture
def here() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def hook(here: Path, text: str, mode: int = 0o755) -> Path:
    path = here / "a hook"
    path.write_text(text)
    path.chmod(mode)
    return path


def run(
    here: Path, text: str, variables: Mapping[str, str] | None = None, activate: Path | None = None, mode: int = 0o755
) -> str:
    """Run a hook; return what it printed."""
    path = hook(here, text, mode)
    with (here / "out").open("ab") as out:
        hooks.run(bytes(path), variables or {}, bytes(here), bytes(activate) if activate else None, out)
    return (here / "out").read_text()


def ended(here: Path, name: str = "pid") -> bool:
    """Whether the process that wrote its number has ended."""
    return has_ended(int((here / name).read_text()))


# How it runs


@pytest.mark.parametrize(
    "begin", ["#!/bin/sh\n", "#!/bin/bash\n", f"#!{sys.executable}\nimport os\nprint('hello')\n''':'\n", ""]
)
def test_with_any_shebang_and_without(begin: str, here: Path) -> None:
    text = begin if "import" in begin else begin + "echo hello\n"
    text = text.replace("\n''':'\n", "\n")
    assert run(here, text) == "hello\n"


def test_what_it_sees(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "as the caller had it")
    monkeypatch.setenv("NAME", "of the caller")
    text = '#!/bin/sh\npwd -P\necho "$KEPT/$NAME/$1"; cat; echo "$?"; echo to stderr >&2\nreadlink /proc/self/fd/0\n'
    assert run(here, text, {"NAME": "new"}) == (f"{here}\nas the caller had it/new/\n0\nto stderr\n/dev/null\n")


def test_signals_are_as_usual_whatever_a_shell_does_to_what_it_starts(here: Path) -> None:
    """INT and QUIT are ignored in what runs in the background; others may be blocked for a moment."""
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)]
    try:
        said = run(here, '#!/bin/sh\ngrep -E "^(SigBlk|SigIgn)" /proc/self/status\n').split()
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGQUIT), before, strict=True):
            signal.signal(number, handler)
    blocked, ignored = int(said[1], 16), int(said[3], 16)
    assert blocked == 0
    assert ignored & (1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1 | 1 << signal.SIGPIPE - 1) == 0


CODES = {
    "it fails": ("#!/bin/sh\nexit 3\n", "it ended with code 3"),
    "it fails as another says it": ("#!/bin/sh\nexit 255\n", "it ended with code 255"),
    "it is killed": ("#!/bin/sh\nkill -9 $$\n", "it was ended by signal 9"),
    "it ends itself": ("#!/bin/sh\nkill -TERM $$\n", "it was ended by signal 15"),
    "its interpreter is missing": ("#!/no/such/interpreter\n", "it ended with code 12"),
    "a command in it is missing, with -e": ("#!/bin/sh\nset -e\nno-such-command-here\n", "it ended with code 127"),
}  # fmt: skip


@pytest.mark.parametrize("how", CODES)
def test_its_failure_is_told(how: str, here: Path) -> None:
    text, words = CODES[how]
    with pytest.raises(HookFailed, match=f"a hook: the hook failed: {words}") as caught:
        run(here, text)
    assert caught.value.code == 15
    assert "--skip-scripts" in caught.value.tip


def test_one_that_may_not_be_run_fails(here: Path) -> None:
    with pytest.raises(HookFailed, match="it ended with code 126"):
        run(here, "#!/bin/sh\n", mode=0o644)


def test_one_that_closes_its_output(here: Path) -> None:
    assert run(here, "#!/bin/sh\necho before\nexec >&- 2>&-\necho lost\ntrue\n") == "before\n"


def test_what_it_prints_is_appended(here: Path) -> None:
    (here / "out").write_text("earlier\n")
    assert run(here, "#!/bin/sh\necho now\n") == "earlier\nnow\n"


def test_the_path_of_one_that_is_there(here: Path) -> None:
    (here / ".pack/hooks").mkdir(parents=True)
    (here / ".pack/hooks/post-install").touch()
    (here / ".pack/hooks/pre-uninstall").mkdir()
    assert hooks.path(bytes(here), hooks.POST_INSTALL) == bytes(here / ".pack/hooks/post-install")
    assert hooks.path(bytes(here), hooks.PRE_INSTALL) is None
    assert hooks.path(bytes(here), hooks.PRE_UNINSTALL) is None


# What it leaves


def test_one_that_leaves_something_running_is_not_waited_for(here: Path) -> None:
    """A service that it starts is to stay."""
    began = time.monotonic()
    run(here, '#!/bin/sh\nsleep 60 &\necho $! >"${0%/*}/pid"\n')
    assert time.monotonic() - began < 30
    os.kill(int((here / "pid").read_text()), signal.SIGKILL)


def interrupted(here: Path, text: str, wait: str = "pid") -> float:
    """Run a hook, and interrupt that when it has written its number; return how long it took from there."""

    def interrupt() -> None:
        while not (here / wait).exists() or not (here / wait).read_text():
            time.sleep(0.01)
        began.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    class Interrupted(BaseException):
        pass

    def handler(number: int, frame: object) -> None:
        raise Interrupted

    began: list[float] = []
    before = signal.signal(signal.SIGTERM, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            run(here, text)
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    return time.monotonic() - began[0]


def test_what_interrupts_it_ends_it_and_what_it_started(here: Path) -> None:
    text = '#!/bin/sh\ncd "${0%/*}"\nsleep 60 & echo $! >child\necho $$ >pid\nwait\nsleep 60\n'
    assert interrupted(here, text) < 30
    assert ended(here)
    assert ended(here, "child")


def test_a_signal_that_interrupts_no_wait_ends_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that comes just before the system waits."""
    wait = os.waitpid

    def deaf(process: int, options: int) -> tuple[int, int]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return wait(process, options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    monkeypatch.setattr(os, "waitpid", deaf)
    assert interrupted(here, "#!/bin/sh\necho $$ >pid; exec sleep 60\n") < 30
    assert ended(here)


def test_one_that_does_not_listen_is_killed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_GRACE_SECONDS", 0.2)
    text = (
        "#!/bin/sh\ncd \"${0%/*}\"\ntrap '' TERM INT HUP\n"
        "(while :; do sleep 1; done) & echo $! >child\necho $$ >pid\nwhile :; do sleep 1; done\n"
    )
    assert interrupted(here, text) < 30
    assert ended(here)
    assert ended(here, "child")


def test_one_that_clears_up_first_is_given_the_time(here: Path) -> None:
    text = (
        "#!/bin/sh\ncd \"${0%/*}\"\ntrap 'sleep 0.3; echo cleared >told; exit 1' TERM\necho $$ >pid\nsleep 60 &\nwait\n"
    )
    interrupted(here, text)
    assert (here / "told").read_text() == "cleared\n"


def test_it_ends_with_its_parent_however_that_ends(here: Path) -> None:
    path = hook(here, '#!/bin/sh\necho $$ >"${0%/*}/pid"\nexec sleep 60\n')
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub import hooks\n"
        f"hooks.run({bytes(path)!r}, {{}}, {bytes(here)!r}, None, 2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while not (here / "pid").exists() or not (here / "pid").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert ended(here)


def test_without_ctypes_it_runs_all_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert run(here, "#!/bin/sh\necho hello\n") == "hello\n"


# In the activated environment


def activated(here: Path, stem: str = "activate", **scripts: str) -> Path:
    """Make an environment of which nothing is there but its activation."""
    for path, content in activation.scripts(stem, bytes(here), os.fsencode(os.uname().nodename), ()).items():
        full = here / os.fsdecode(path)
        full.parent.mkdir(exist_ok=True)
        full.write_bytes(content)
        full.chmod(0o755)
    for name, text in scripts.items():
        script = here / "etc/conda/activate.d" / f"{name}.sh"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text)
    return here / "bin" / stem


@pytest.mark.parametrize("stem", ["activate", "pack-activate"])
def test_it_sees_the_environment(stem: str, here: Path) -> None:
    script = activated(here, stem, a="export FROM_PACKAGE=yes\n")
    (here / "bin/own-tool").write_text("#!/bin/sh\necho found\n")
    (here / "bin/own-tool").chmod(0o755)
    text = '#!/bin/sh\necho "$CONDA_PREFIX/$FROM_PACKAGE"; own-tool\n'
    assert run(here, text, {"PACK_PREFIX": str(here)}, script) == f"{here}/yes\nfound\n"


def test_what_a_package_does_on_activation_does_not_lead_it_astray(here: Path) -> None:
    script = activated(here, a="set -- other things; set -f; IFS=o\n", b="false\n")
    assert run(here, "#!/bin/sh\necho hello\n", {"PACK_PREFIX": str(here)}, script) == "hello\n"


def test_an_activation_that_fails_fails_it(here: Path) -> None:
    script = activated(here)
    (here / ".installing").touch()
    with pytest.raises(HookFailed, match="it ended with code 12"):
        run(here, "#!/bin/sh\necho hello\n", {"PACK_PREFIX": str(here)}, script)
    assert "was not completed" in (here / "out").read_text()
    said = run(here, "#!/bin/sh\necho hello\n", {"PACK_PREFIX": str(here), "_PACK_INSTALLING": "1"}, script)
    assert said.endswith("hello\n")
    with pytest.raises(HookFailed):
        run(here, "#!/bin/sh\necho hello\n", {}, here / "bin/missing")
