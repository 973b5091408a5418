"""Machines other than this one, on this one: mounts of their own, fewer tools, other users; shared by the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.conftest import need
from tests.integration.moving import Run, run

NOBODY = 65534


def need_root(why: str) -> None:
    """Skip a test that only root can prepare."""
    if os.geteuid() != 0:
        pytest.skip(f"{why} needs root: run the tests as root")


def need_mounts() -> None:
    """Skip a test that mounts where nobody may."""
    need_root("mounting")
    need("mount")
    if subprocess.run([need("unshare"), "-m", "true"], capture_output=True).returncode:
        pytest.skip("unshare -m is refused here: a container needs the capability SYS_ADMIN")


def mounts(script: str, *, env: Mapping[str, str] | None = None, code: int | None = 0) -> Run:
    """Run a script in a mount namespace of its own, which takes what it mounts along when it ends."""
    need_mounts()
    return run(["unshare", "-m", "/bin/sh", "-ec", script], env=env, code=code)


def failing(*rules: str) -> list[str | Path]:
    """Give the words before a command in whose processes system calls fail.

    A rule is as strace has it: ``fsync:error=EIO:when=1``. It counts the calls of each process apart.
    """
    calls = ",".join(rule.split(":")[0] for rule in rules)
    words: list[str | Path] = [need("strace"), "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", f"trace={calls}"]
    return [*words, *(word for rule in rules for word in ("-e", f"inject={rule}"))]


# Coreutils of three makes. What POSIX calls utilities is more: tar, sed, grep and awk are in none of them.
MAKES = ("GNU", "busybox", "Rust")
_COREUTILS = frozenset(
    """[ basename cat chgrp chmod chown comm cp cut date dd df dirname du echo env expand expr factor false fold head
    hostid id install join link ln ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc od paste pathchk printenv
    printf ptx pwd readlink realpath rm rmdir seq sha256sum shred shuf sleep sort split stat stty sum sync tac tail tee
    test timeout touch tr true truncate tsort tty uname unexpand uniq unlink users wc who whoami yes""".split()  # noqa: SIM905  # ninety lines else
)


def tools(directory: Path, make: str) -> Path:
    """Fill a directory with the coreutils of one make, and nothing else; skip where this machine has not got them."""
    directory.mkdir(parents=True, exist_ok=True)
    if make == "GNU":
        for name in sorted(_COREUTILS):
            found = shutil.which(name, path="/usr/bin:/bin")
            if found is not None:
                shutil.copy2(found, directory / name)
        return directory
    box = need({"busybox": "busybox", "Rust": "coreutils"}[make])
    shutil.copy2(os.path.realpath(box), directory / f".{box.name}")
    for name in _held(box) & _COREUTILS:
        (directory / name).symlink_to(f".{box.name}")
    return directory


def _held(box: Path) -> set[str]:
    """List what a program that is many is asked for by name."""
    if box.name == "busybox":
        return set(run([box, "--list"]).stdout.split())
    said = run([box], code=None).stdout
    return {word.strip(" ,\n") for word in said.partition("functions:")[2].split(",")}


def copied(names: Iterable[str], directory: Path) -> None:
    """Copy programs of this machine into a directory, under their names."""
    for name in names:
        shutil.copy2(os.path.realpath(need(name)), directory / name)
