"""What the package index gives: a compiler for glibc 2.17 on any Linux, PyInstaller, and sources of two programs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pack.stub.store import StubUnavailable

GLIBC = "2.17"  # of RHEL 7 and of manylinux2014: the oldest that zig's headers and this CPython meet in
COMPILER = "ziglang==0.17.1"
FREEZER = "pyinstaller==6.22.3"
ZSTANDARD = "zstandard==0.25.0"
_NEEDED_BY_FREEZER = ("altgraph==0.17.5", "packaging==26.3", "setuptools==84.2.1", "pyinstaller-hooks-contrib==2026.9")
ARCHITECTURES = ("x86_64", "aarch64")
PROGRAMS = ("make", "objcopy", "sh", "tar")  # beside a Python with pip
SOURCES = {"loader": FREEZER, "zstandard": ZSTANDARD}  # what is compiled of packages, and where it is unpacked
EPOCH = "946684800"  # 2000-01-01T00:00:00Z, the time of all that is made


class Target(NamedTuple):
    """What is compiled for, and the directory of a compiler for it."""

    architecture: str
    work: Path

    @property
    def triple(self) -> str:
        """Name the target as configure scripts do."""
        return f"{self.architecture}-linux-gnu"

    @property
    def folder(self) -> Path:
        """What is made for this target."""
        return self.work / self.architecture

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Give the variables that builds run with: nothing of the caller's but where programs and files lie."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        cache = str(self.work / "zig-cache")
        # zig's own checks make programs abort where C leaves something undefined, which CPython does; and it would
        # keep a register for debuggers.
        flags = "-O2 -g0 -fPIC -fomit-frame-pointer -fno-sanitize=undefined -Wno-date-time"
        linked = "-s -Wl,-Bsymbolic"  # no symbols but exported ones, and a library's own calls lead straight to itself
        programs = {name.upper(): str(self.folder / "bin" / name) for name in ("cc", "ar", "ranlib")}
        return {
            **kept,
            **programs,
            **{"LC_ALL": "C.UTF-8", "PKG_CONFIG": "/bin/false", "CFLAGS": flags, "LDFLAGS": linked},
            **{"SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            **{"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
            **(more or {}),
        }


def require(programs: Sequence[str] = PROGRAMS) -> None:
    """Raise StubUnavailable unless this machine can build: it names all that is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if platform.system() != "Linux" or platform.machine() not in ARCHITECTURES:
        raise StubUnavailable(
            f"A frozen stub is built on Linux on {' or '.join(ARCHITECTURES)}; "
            f"this is {platform.system()} on {platform.machine()}."
        )
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        missing.append(f"pip in {sys.executable}")
    if missing:
        raise StubUnavailable(
            f"Building a frozen stub needs {', '.join(missing)}, which this machine does not have.",
            "Install these and run it again.",
        )


def install(work: Path, logs: Path) -> None:
    """Put the compiler, PyInstaller and the sources of packages into ``work``, unless they are there."""
    with ThreadPoolExecutor() as pool:
        steps = [
            pool.submit(_install, work, "compiler", [COMPILER], logs),
            pool.submit(_install, work, "freezer", [FREEZER, *_NEEDED_BY_FREEZER], logs),
            *(pool.submit(_unpack_sdist, work, name, wanted, logs) for name, wanted in SOURCES.items()),
        ]
        for step in steps:
            step.result()


def _install(work: Path, name: str, packages: Sequence[str], logs: Path) -> None:
    if not (work / name).is_dir():
        partial = work / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        options = ["--only-binary=:all:", "--no-deps", "--no-compile", f"--target={partial}"]
        _pip(["install", *options, *packages], work, logs / name)
        partial.rename(work / name)


def _unpack_sdist(work: Path, name: str, wanted: str, logs: Path) -> None:
    if not (work / name).is_dir():
        package, folder = wanted.partition("==")[0], work / f"{name}.sdist"
        _pip(["download", "--no-deps", f"--no-binary={package}", f"--dest={folder}", wanted], work, logs / name)
        (archive,) = folder.glob("*.tar.gz")
        unpack(archive, work / name, logs / name)
        shutil.rmtree(folder)


def compiler(target: Target) -> None:
    """Write the programs ``cc``, ``ar`` and ``ranlib`` for a target."""
    zig = target.work / "compiler" / "ziglang" / "zig"
    zig.chmod(0o755)
    folder = target.folder / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {
        # "-" is how PyInstaller's build asks for the predefined macros; zig must be told the language first.
        "cc": f'for last; do :; done\n[ "${{last-}}" != - ] || set -- -x c "$@"\n'
        f'exec {_quoted(zig)} cc -target {target.triple}.{GLIBC} "$@"\n',
        "ar": f'exec {_quoted(zig)} ar "$@"\n',
        "ranlib": f'exec {_quoted(zig)} ranlib "$@"\n',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}")
        (folder / name).chmod(0o755)


def unpack(archive: Path, folder: Path, log: Path) -> None:
    """Unpack an archive of sources whose files lie in one directory, as ``folder``."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    run(["tar", "-xf", archive, "-C", partial, "--strip-components=1"], partial, dict(os.environ), log)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def run(command: Sequence[str | Path], where: Path, environment: Mapping[str, str], log: Path) -> None:
    """Run a step of a build; what it prints goes to the log. Raises StubUnavailable with the end of that."""
    line = " ".join(map(str, command))
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"\n$ cd {where}; {line}\n".encode())
        file.flush()
        done = subprocess.run(
            command, cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        file.write(f"# {time.monotonic() - started:.1f} s, exit code {done.returncode}\n".encode())
    if done.returncode:
        said = log.read_text(errors="replace").splitlines()[-15:]
        words = "\n".join(f"  {each:.300}" for each in said)
        raise StubUnavailable(f"Building the frozen stub failed:\n{words}", f"{log} holds all that was said.")


def _pip(arguments: Sequence[str], work: Path, log: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    run(command, work, dict(os.environ), log)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
