"""From sources to a stub in the cache: the story of ``pack stub build``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import installer_stub
from pack import floor
from pack.stub import cpython, parts, store, toolchain
from pack.stub.store import OPENER, PROGRAM, Record, Stub, StubUnavailable
from pack.stub.toolchain import Target

Say = Callable[[str], None]
_SOURCES = "sources"


def build(architecture: str, sources: Path | None, say: Say = lambda line: None) -> Stub:
    """Return the stub of this version of pack for an architecture; build what of it is not in the cache.

    ``sources`` holds the archives of sources, by default ``sources`` in the cache. ``say`` is told each long
    step. Raises StubUnavailable with what is missing.
    """
    if (found := store.find(architecture)) is not None:
        return found
    toolchain.require()
    archives = cpython.find_sources(sources or store.cache() / _SOURCES)
    work = workplace(archives)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        if (found := store.find(architecture)) is not None:  # somebody else built it meanwhile
            return found
        native, target = Target(platform.machine(), work), Target(architecture, work)
        logs = work / "logs"
        for each in dict.fromkeys((native, target)):
            if not parts.are_built(each):
                say(f"building CPython {cpython.VERSION} for glibc {toolchain.GLIBC} on {each.architecture}: minutes")
                toolchain.install(work, logs)
                parts.build(each, archives, native, logs / each.architecture)
                _keep(archives.values())
        for name in ("compiler", "zig-cache"):  # half a gigabyte that freezing does not need
            shutil.rmtree(work / name, ignore_errors=True)
        say(f"freezing the relocator for {architecture}")
        with tempfile.TemporaryDirectory(prefix="freeze-", dir=work) as directory:
            copy_sources(Path(directory), native)
            recipe = store.recipe(Path(directory) / _SOURCES / "installer_stub")
            files = freeze(target, native, Path(directory), logs / "freeze")
            if target == native:
                toolchain.run([files / PROGRAM, "--version"], Path(directory), {}, logs / "freeze")
            return store.keep(files, record(files, target, recipe))


def _keep(archives: Iterable[Path]) -> None:
    """Keep the archives of sources in the cache: the next version of pack freezes anew, and asks for them."""
    folder = store.cache() / _SOURCES
    folder.mkdir(parents=True, exist_ok=True)
    for path in archives:
        if not (folder / path.name).exists():
            partial = folder / f"{path.name}.{os.getpid()}.partial"
            shutil.copyfile(path, partial)
            partial.rename(folder / path.name)


def copy_sources(directory: Path, native: Target) -> None:
    """Lay all that is frozen into ``directory``: the relocator as it is now, and zstandard."""
    origin = Path(str(resources.files(installer_stub)))
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(origin, directory / _SOURCES / "installer_stub", ignore=ignored)
    shutil.copytree(parts.packages(native), directory / _SOURCES, dirs_exist_ok=True)


def freeze(target: Target, native: Target, directory: Path, log: Path) -> Path:
    """Freeze what was copied into ``directory`` with what was built before.

    Return the directory of the stub's files, beside which the opener lies.
    Byte code does not depend on the architecture: for another one, only the compiled files are exchanged.
    """
    freezer = native.work / "freezer"
    for folder in freezer.glob("PyInstaller/bootloader/Linux-*"):
        shutil.copy(parts.loader(native), folder / "run")
    more = {
        **{"PYTHONPATH": str(freezer), "PYINSTALLER_CONFIG_DIR": str(directory), "HOME": str(directory)},
        **cpython.library_path(native),
    }
    python = native.folder / "python" / "bin" / f"python{cpython.VERSION}"
    command: list[str | Path] = [python, "-s", "-m", "PyInstaller", "--noconfirm", "--log-level=WARN"]
    spec = directory / _SOURCES / "installer_stub" / "stub.spec"
    command += [f"--distpath={directory / 'made'}", f"--workpath={directory / 'work'}", spec]
    toolchain.run(command, directory, native.environment(more), log)
    files = directory / "made" / PROGRAM
    # PyInstaller would join the two by this machine's objcopy, which knows no other architecture; the loader looks
    # for what it starts at its own end.
    program, modules = files / PROGRAM, files / f"{PROGRAM}.pkg"
    program.write_bytes(parts.loader(target).read_bytes() + modules.read_bytes())
    modules.unlink()
    shutil.copy(parts.opener(target), files.with_name(OPENER))
    if target != native:
        shutil.copyfile(target.folder / "python" / "lib" / cpython.LIBRARY, files / "_internal" / cpython.LIBRARY)
        shutil.copyfile(parts.packages(target) / parts.ZSTANDARD, files / "_internal" / parts.ZSTANDARD)
    return files


def record(files: Path, target: Target, recipe: str) -> Record:
    """Measure a stub and its opener. Raises StubUnavailable where one needs a newer glibc than it was built for."""
    measured = floor.of_tree(files.parent)
    if measured is None:
        raise StubUnavailable(f"{files} holds nothing that needs a glibc: this is no stub.")
    if measured.glibc != toolchain.GLIBC and not _older(measured.glibc):
        name = os.fsdecode(measured.path)
        raise StubUnavailable(f"{name} of the frozen stub needs glibc {measured.glibc}, and not {toolchain.GLIBC}.")
    sha256, size = store.measure(files)
    opener = store.sha256(files.with_name(OPENER))
    return Record(target.architecture, measured.glibc, cpython.VERSION, recipe, sha256, size, opener)


def _older(version: str) -> bool:
    return tuple(map(int, version.split("."))) < tuple(map(int, toolchain.GLIBC.split(".")))


def workplace(archives: Mapping[str, Path]) -> Path:
    """Name the directory in the cache for what is compiled, by a hash of all that decides what that is."""
    hasher = hashlib.sha256()
    recipes = [*(Path(str(module.__file__)) for module in (cpython, parts, toolchain)), parts.OPENER_SOURCE]
    for path in (*(archives[name] for name in sorted(archives)), *recipes):
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return store.cache() / "stub-build" / hasher.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
