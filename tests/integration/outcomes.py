"""What a run of an installer came to: nothing at all, or a whole environment. Shared by the tests that harm it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from installer_stub import relocate, verify
from installer_stub.errors import PackError
from tests.integration.moving import SURROUNDINGS, Run, stamps

DOCUMENTED = frozenset(range(1, 16))  # the codes of docs/exit-codes.md but those of signals
TIMEOUT = 300  # seconds; what hangs meets it


def install(installer: Path, target: Path, *options: str, env: Mapping[str, str] | None = None) -> Run:
    """Run an installer as a batch job does; its code is for the caller to judge."""
    return subprocess.run(
        ["sh", installer, "-b", "-p", target, *options],
        env=SURROUNDINGS if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=TIMEOUT,
    )


def faults(target: Path, says: str = "") -> list[str]:
    """List what is wrong with an installed environment: its program must say where it is, every file be as listed.

    ``says`` is what the program says behind its place.
    """
    wrong: list[str] = []
    with suppress(FileNotFoundError):
        wrong += [f"{each.path!r}: {each.what}" for each in verify.verify(relocate.open_tree(bytes(target)))]
    try:
        done = subprocess.run([target / "bin" / "tool"], capture_output=True, text=True, timeout=TIMEOUT)
        if done.stdout != f"{target}{says}\n":
            wrong.append(f"bin/tool says {done.stdout!r} and {done.stderr!r}")
    except OSError as error:
        wrong.append(str(error))
    return wrong


def is_good(target: Path, says: str = "") -> bool:
    """Tell whether there is an installed environment in which nothing is wrong; ``says`` as for ``faults``."""
    try:
        return not faults(target, says)
    except (OSError, PackError):
        return False


@dataclass(frozen=True)
class Sandbox:
    """A directory with a home, a current directory, and one that a target goes into, each holding what must stay."""

    root: Path

    @classmethod
    def made(cls, root: Path) -> Sandbox:
        """Make one, for whoever the tests let run things."""
        for name in ("home/.cache", "here", "parent", "other", "tmp"):
            (root / name).mkdir(parents=True)
        for name in ("home/.bashrc", "home/.cache/kept", "here/kept", "other/kept"):
            (root / name).write_text(f"{name}\n")
        return cls(root)

    @property
    def target(self) -> Path:
        """Where to install."""
        return self.root / "parent" / "env"

    @property
    def surroundings(self) -> dict[str, str]:
        """The variables of a run."""
        return {**SURROUNDINGS, "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}

    def changes(self, before: Mapping[str, tuple[int, ...]], but: Path) -> list[str]:
        """List what is new, went or was written since ``stamps`` said ``before``; ``but`` is the installer itself.

        That something was for a while beside the target is no change.
        """
        now = stamps(self.root)
        kept = (str(but), str(self.target.parent))
        paths = (path for path in before.keys() | now.keys() if before.get(path) != now.get(path) and path not in kept)
        return sorted(f"{'' if path in before else 'new '}{os.path.relpath(path, self.root)!a}" for path in paths)


def complaint(code: int, stderr: str, codes: frozenset[int] = DOCUMENTED) -> str:
    """Say what is wrong with how a refusal ended: the code, no word, a traceback. Empty if nothing is."""
    if code not in codes:
        return f"code {code}"
    if not stderr.strip():
        return "no word"
    return "a traceback" if re.search(r"Traceback|\[PYI-", stderr) else ""
