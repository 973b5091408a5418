"""The scripts that an installer brings for before and after: they run with the variables that constructor's get."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any, Callable, Mapping, Optional, Set

from installer_stub import manifest
from installer_stub.errors import HookFailed
from installer_stub.workplace import uninterrupted

PRE_INSTALL = "pre-install"
POST_INSTALL = "post-install"
PRE_UNINSTALL = "pre-uninstall"
NAMES = (PRE_INSTALL, POST_INSTALL, PRE_UNINSTALL)
DIRECTORY = manifest.DIRECTORY + b"/hooks"

_GRACE_SECONDS = 5.0
_STEP_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
# "exec" of a script without a shebang runs it by the shell, as POSIX wants.
_PLAIN = b'exec "$1"'
# What a package has run when it is activated may set the positional parameters.
_ACTIVATED = b'_pack_hook=$1; . "$2" || exit; exec "$_pack_hook"'
_RESET = (signal.SIGINT, signal.SIGQUIT)  # a shell has them ignored in what it runs in the background


def path(tree: bytes, name: str) -> Optional[bytes]:
    """Return the path of a hook in a tree, or None where the tree has none of that name."""
    full = os.path.join(tree, DIRECTORY, name.encode())
    return full if os.path.isfile(full) else None


def run(script: bytes, variables: Mapping[str, str], directory: bytes, activate: Optional[bytes], out: Any) -> None:
    """Run a hook in ``directory``; ``activate`` is the script to activate by first, ``out`` takes all that it prints.

    Raises HookFailed. Whatever interrupts this ends the hook, too, and what it started.
    """
    command = [_PLAIN, b"sh", script] if activate is None else [_ACTIVATED, b"sh", script, activate]
    process: Optional[subprocess.Popen[bytes]] = None
    try:
        with uninterrupted():  # until there is something that can be ended
            process = subprocess.Popen(
                [b"/bin/sh", b"-c", *command],
                cwd=directory,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_prepared(),
            )
        code = _waited(process)
    except BaseException:
        if process is not None:
            _end(process)
        raise
    if code:
        what = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
        raise HookFailed(
            f"{os.fsdecode(script)}: the hook failed: {what}.",
            "Mend what it complains of, or leave the hooks out with --skip-scripts. What was done was taken back.",
        )


def _waited(process: subprocess.Popen[bytes]) -> int:
    """Wait for a hook, in steps: a signal that came just before a wait does not interrupt that."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_STEP_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a hook and all that is in its session: politely, and then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in {process.pid, *_groups(process.pid)}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def _groups(session: int) -> Set[int]:
    """Find the process groups of a session: a shell with job control gives each job one of its own."""
    found: Set[int] = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with suppress(OSError, ValueError, IndexError):  # it is no process, or has just ended
            with open(f"/proc/{int(name)}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # behind the name, which may be anything
            if int(fields[3]) == session:
                found.add(int(fields[2]))
    return found


def _prepared() -> Callable[[], None]:
    """Return what a new process does first: take signals as usual, and end with this one, however that ends."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        prctl = None  # no ctypes in this Python

    def prepare() -> None:
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))

    return prepare
