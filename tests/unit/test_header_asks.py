"""The script of an installer in conversation: the licence and the target, at a terminal and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import need
from tests.unit.headers import SHELLS, Installer, build, refused, snapshot

LICENCE = b"EOF\n`touch no` $(touch no) '\"\\ %s \xc3\xa9\xe6\x97\xa5 \xff\n"
QUESTION = "Do you accept the licence? [yes|no] "
INTERRUPT = "\x03"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(SHELLS[name][0])
    return name


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return build(tmp_path / "env.sh", licence=LICENCE, welcome=b"Welcome!\n", conclusion=b"Bye.\n")


def answer(
    installer: Installer, answers: bytes, *options: str | Path, shell: str = "dash"
) -> subprocess.CompletedProcess[bytes]:
    """Run an installer, with answers from a pipe."""
    home = installer.path.parent
    return installer.run(
        *options, shell=shell, stdin=None, input=answers, cwd=home, env={**os.environ, "HOME": str(home)}
    )


def converse(
    installer: Installer, dialogue: Sequence[tuple[str, str]], *options: str | Path, shell: str = "dash"
) -> tuple[int, str]:
    """Run an installer in a terminal: wait for each question, give its answer; return the code and all it printed."""
    own, its = pty.openpty()
    home = installer.path.parent
    environ = {**os.environ, "HOME": str(home), "TERM": "xterm"}
    command = [*SHELLS[shell], installer.path, *options]
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        cwd=home,
        env=environ,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    printed, answers = "", list(dialogue)
    deadline, again = time.monotonic() + 30, float("inf")
    while time.monotonic() < deadline:
        if time.monotonic() > again:
            os.write(own, INTERRUPT.encode())
            again = time.monotonic() + 2
        if not select.select([own], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(own, 4096)
        except OSError:
            break
        if not data:
            break
        printed += data.decode(errors="replace")
        if answers and answers[0][0] in printed.rpartition("\n")[2]:
            given = answers.pop(0)[1]
            os.write(own, given.encode())
            # busybox takes note of a signal that comes just before it waits for an answer, and waits: press it again.
            again = time.monotonic() + 2 if given == INTERRUPT else again
    else:
        process.kill()
    os.close(own)
    code = process.wait()
    assert not answers, (answers, printed)
    return code, printed.replace("\r\n", "\n")


class TestWithoutATerminal:
    def test_all_in_order(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        run = answer(installer, b"yes\n\n", "-i", shell=shell)
        assert (run.returncode, run.stderr) == (0, b"")
        assert run.stdout.startswith(b"Welcome!\n\n" + LICENCE + b"\n" + QUESTION.encode())
        assert run.stdout.endswith(f"Install to [{tmp_path}/fake]: ".encode() + b"Bye.\n")
        assert "--unattended" not in installer.record.arguments
        assert not (tmp_path / "no").exists()

    @pytest.mark.parametrize("said", [b"no\n", b"", b"maybe\n", b"n"])
    def test_not_accepted(self, said: bytes, shell: str, installer: Installer) -> None:
        before = snapshot(installer.path.parent)
        refused(answer(installer, said, "-i", shell=shell), 14, "the licence was not accepted")
        assert snapshot(installer.path.parent) == before

    def test_a_nul(self, tmp_path: Path) -> None:
        installer = build(tmp_path / "env.sh", licence=b"a\0b\x1b\n")
        assert b"\na\0b\x1b\n" in answer(installer, b"no\n", "-i").stdout
        assert installer.run("--info").stdout.endswith(b"\n\na\0b\x1b\n")

    def test_no_answer_to_where(self, installer: Installer) -> None:
        refused(answer(installer, b"yes\n", "-i"), 2, "no target was chosen")

    def test_other_answers(self, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        run = answer(installer, b"what\nYes\na:b\nfull\n~/ a b \n", "-i", "-p", "elsewhere")
        assert run.returncode == 0
        assert b'Please answer "yes" or "no".' in run.stdout
        assert run.stdout.count(b"Install to [elsewhere]: ") == 3
        assert b"a colon separates" in run.stderr and b"not an empty directory: x" in run.stderr
        assert installer.record.value("--target") == f"{tmp_path}/ a b "

    @pytest.mark.parametrize("options", [["--accept-license"], ["-b"]], ids=str)
    def test_accepted_beforehand(self, options: list[str], installer: Installer, tmp_path: Path) -> None:
        run = installer.run(*options, "-p", tmp_path / "env")
        assert (run.returncode, run.stdout) == (0, b"")

    def test_not_asked(self, installer: Installer, tmp_path: Path) -> None:
        refused(installer.run("-p", tmp_path / "env"), 14, "--accept-license")
        refused(installer.run("--extract", tmp_path / "env"), 14, "--accept-license")
        refused(installer.run("-p", tmp_path / "a:b"), 7, "a colon")

    def test_accepted_and_asked_where(self, installer: Installer, tmp_path: Path) -> None:
        run = answer(installer, b"\n", "-i", "--accept-license", "-p", "env")
        assert run.returncode == 0
        assert LICENCE not in run.stdout
        assert installer.record.value("--target") == f"{tmp_path}/env"

    def test_extract_asks_for_the_licence_alone(self, installer: Installer, tmp_path: Path) -> None:
        run = answer(installer, b"yes\n", "-i", "--extract", "env")
        assert (run.returncode, b"Install to" in run.stdout) == (0, False)


class TestAtATerminal:
    def test_all_in_order(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        dialogue = [(QUESTION, "yes\n"), ("Install to [", "place/é\n")]
        code, printed = converse(installer, dialogue, shell=shell)
        assert code == 0, printed
        assert printed.startswith("Welcome!\n")
        assert "`touch no` $(touch no)" in printed
        assert printed.endswith("Bye.\n")
        assert installer.record.value("--target") == f"{tmp_path}/place/é"
        assert not (tmp_path / "no").exists()

    def test_no_welcome(self, tmp_path: Path) -> None:
        installer = build(tmp_path / "env.sh")
        code, printed = converse(installer, [("Install to [", "\n")])
        assert (code, printed.startswith("This installs Fake 1.2.\n")) == (0, True)

    def test_the_end_of_input(self, installer: Installer) -> None:
        assert converse(installer, [(QUESTION, "\x04")])[0] == 14
        assert converse(installer, [("Install to [", "\x04")], "--accept-license")[0] == 2

    def test_ctrl_c_at_a_question(self, shell: str, installer: Installer) -> None:
        before = snapshot(installer.path.parent)
        code, _ = converse(installer, [(QUESTION, INTERRUPT)], shell=shell)
        assert code in (-2, 130)
        assert snapshot(installer.path.parent) == before

    def test_a_target_is_enough(self, tmp_path: Path) -> None:
        installer = build(tmp_path / "env.sh")
        code, printed = converse(installer, [], "-p", "env")
        assert (code, printed) == (0, "")
