"""Running installers of real environments, and looking at what they made; shared by the tests of their whole story."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.conftest import need
from tests.integration.moving import SURROUNDINGS, Run, run

# What an installation has beside that of the archive.
OURS = (
    ".pack/installer.json",
    ".pack/hooks",
    ".pack/hooks/pre-install",
    ".pack/hooks/post-install",
    ".pack/hooks/pre-uninstall",
)
HOOKS = ("pre-install", "post-install", "pre-uninstall")

# A real Python and pip, without what is only data: installed in a third of the time.
LEAN_SPECS = ("python", "pip", "six")
_DATA = ("share/terminfo", "share/zoneinfo", "share/locale", "share/man", "share/doc", "include", "man")
_MODULES = ("config-*", "ensurepip", "idlelib", "lib2to3", "turtledemo", "tkinter", "pydoc_data")


def install(
    installer: Path,
    target: Path,
    *options: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    code: int | None = 0,
    before: Sequence[str | Path] = (),
) -> Run:
    """Run an installer with a target, behind the words ``before``."""
    return run([*before, "/bin/sh", installer, "-p", target, *options], env=env, cwd=cwd, code=code)


def uninstall(installer: Path, target: Path, *options: str, **more: object) -> list[str]:
    """Uninstall, and return what is said to be left."""
    said = install(installer, target, "--uninstall", *options, **more).stdout  # type: ignore[arg-type]
    return [line.removeprefix("left: ") for line in said.splitlines() if line.startswith("left: ")]


def lean_python(prefix: Path, channel: Path, cache: Path, specs: Sequence[str] = LEAN_SPECS) -> Path:
    """Install an environment with Python, and remove from it what no test runs."""
    channels.install(prefix, specs, [channel], cache=cache)
    return made_lean(prefix)


def made_lean(prefix: Path) -> Path:
    """Remove from an environment with Python what is only data, and modules that no test runs."""
    library = next(prefix.glob("lib/python3.*"))
    for path in (*(prefix / name for name in _DATA), *(each for name in _MODULES for each in library.glob(name))):
        shutil.rmtree(path, ignore_errors=True)
    return prefix


def shared_lean_python(session_directory: Path, channel: Path, cache: Path) -> Path:
    """Return such an environment that all tests of a run share, and none may change."""
    prefix = session_directory / "lean" / "env"
    with channels.locked(prefix.parent):
        if not (prefix.parent / "complete").exists():
            lean_python(prefix, channel, cache)
            (prefix.parent / "complete").touch()
    return prefix


def shared_lean_installer(prefix: Path, make_installer: Callable[..., Path]) -> Path:
    """Return the installer of the shared environment, made once."""
    installer = prefix.with_name("env.sh")
    with channels.locked(installer):
        if not installer.with_suffix(".made").exists():
            make_installer(prefix, installer, "--force")
            installer.with_suffix(".made").touch()
    return installer


def tiny_prefix(prefix: Path, version: str = "1", files: Mapping[str, str] | None = None, noise: int = 300_000) -> Path:
    """Fill a prefix with a program that prints where it stands and its version, text, a symlink, and noise."""
    contents = {
        "bin/tool": f'#!/bin/sh\necho "{prefix} {version}"\n',
        "share/text": f"{prefix}\n",
        f"share/only-in-{version}": f"{version}\n",
        "conda-meta/history": "",
        **(files or {}),
    }
    for name, content in contents.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(content)
    (prefix / "bin/tool").chmod(0o755)
    (prefix / "share/link").symlink_to("text")
    (prefix / "share/noise").write_bytes(os.urandom(noise))
    return prefix


def tool(target: Path, version: str = "1") -> None:
    """Fail unless the program of a tiny prefix runs at its place."""
    assert run([target / "bin/tool"], env={}).stdout == f"{target} {version}\n"


# Hooks


@dataclass(frozen=True)
class Hooks:
    """What the hooks of an installer of ours do in one run, and where they keep their records."""

    record: Path

    def do(self, hook: str, script: str) -> None:
        """Have a hook run a script of the shell. It finds the directory for records in ``$RECORD``."""
        (self.record / hook).write_text(script)

    @property
    def env(self) -> dict[str, str]:
        """The variables with which the installer is called."""
        return {**SURROUNDINGS, "HOME": str(self.record), "RECORD": str(self.record)}

    def options(self, directory: Path, *names: str) -> list[str | Path]:
        """Write the hooks into a directory, and give the options by which ``pack`` takes them."""
        options: list[str | Path] = []
        for name in names or HOOKS:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'#!/bin/sh\nif [ -f "${{RECORD-}}/{name}" ]; then . "$RECORD/{name}"; fi\n')
            options += [f"--{name}", path]
        return options

    def text(self, name: str) -> str:
        return (self.record / name).read_text()

    def variables(self, name: str) -> dict[str, str]:
        """Read what ``env -0`` wrote."""
        lines = (self.record / name).read_bytes().split(b"\0")[:-1]
        return {os.fsdecode(key): os.fsdecode(value) for key, _, value in (line.partition(b"=") for line in lines)}


# Runs that are not waited for


def begin(
    installer: Path, target: Path, *options: str | Path, env: Mapping[str, str] | None = None, **more: object
) -> subprocess.Popen[bytes]:
    """Start an installer in a session of its own."""
    command: list[str | Path] = ["/bin/sh", installer, "-p", target, *options]
    facts = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen(command, env=SURROUNDINGS if env is None else env, start_new_session=True, **facts)  # type: ignore[call-overload, no-any-return]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def is_running(process: int) -> bool:
    """Whether a process is there, and more than a zombie."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def children(process: int) -> list[int]:
    """List the processes below one, the nearest first."""
    found: list[int] = []
    for each in [process]:
        with suppress(OSError):
            below = [int(word) for word in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
            found += [*below, *(deeper for one in below for deeper in children(one))]
    return found


# Terminals


def converse(
    command: Sequence[str | Path], dialogue: Sequence[tuple[str, str]], env: Mapping[str, str], cwd: Path
) -> tuple[int, bytes, bytes]:
    """Run a command in a terminal that changes no byte: give each answer when its question is the last that was said.

    Returns the exit code, all that came to the terminal, and what went to the standard error, which is none.
    """
    own, its = pty.openpty()
    attributes = termios.tcgetattr(its)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(its, termios.TCSANOW, attributes)
    process = subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={"TERM": "xterm", **env},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its)
    assert process.stderr is not None
    printed, errors, answers, answered = bytearray(), bytearray(), list(dialogue), 0
    ends = {own: printed, process.stderr.fileno(): errors}
    deadline = time.monotonic() + 120
    while ends and time.monotonic() < deadline:
        for end in select.select(list(ends), [], [], 0.5)[0]:
            try:
                data = os.read(end, 1 << 16)
            except OSError:  # nobody has the terminal open any more
                data = b""
            ends[end] += data
            if not data:
                del ends[end]
        if answers and len(printed) > answered and printed.endswith(answers[0][0].encode()):
            answered = len(printed)
            os.write(own, answers.pop(0)[1].encode())
    if ends:
        os.killpg(process.pid, signal.SIGKILL)
    os.close(own)
    process.stderr.close()
    assert not answers, (answers, bytes(printed[-500:]), bytes(errors[-500:]))
    return process.wait(), bytes(printed), bytes(errors)


# File systems


@dataclass(frozen=True)
class Mounted:
    """A file system that is mounted for some processes alone: how they are started, and the way there for others."""

    namespace: int
    directory: Path

    @property
    def before(self) -> list[str | Path]:
        """The words before a command that shall see it."""
        return ["nsenter", f"--mount=/proc/{self.namespace}/ns/mnt"]

    @property
    def seen(self) -> Path:
        """The path by which everybody else sees the directory."""
        return Path(f"/proc/{self.namespace}/root{self.directory}")


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Mounted]:
    """Mount a file system in memory on a directory, for who is started with ``before``; as root."""
    need("unshare"), need("nsenter")
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    script = 'mount "$@" && echo && read -r end'
    what = options or ("-t", "tmpfs", "none")
    command: list[str | Path] = ["unshare", "-m", "sh", "-c", script, "sh", *what, directory]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        yield Mounted(holder.pid, directory)
    finally:
        holder.kill()
        holder.communicate()
