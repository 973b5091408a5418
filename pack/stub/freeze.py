"""From sources to a stub in the cache: the story of ``pack stub build``."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import installer_stub
from pack.stub import cpython, floor, store, toolchain
from pack.stub.store import PROGRAM, Record, Stub, StubUnavailable
from pack.stub.toolchain import Target

Say = Callable[[str], None]


def build(architecture: str, sources: Path | None, say: Say = lambda line: None) -> Stub:
    """Return the stub of this version of pack for an architecture; build what of it is not in the cache.

    ``sources`` holds the archives of sources, by default ``sources`` in the cache. ``say`` is told each long
    step. Raises StubUnavailable with what is missing.
    """
    if (found := store.find(architecture)) is not None:
        return found
    toolchain.require()
    archives = cpython.find_sources(sources or store.cache() / "sources")
    work = workplace(archives)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        if (found := store.find(architecture)) is not None:  # somebody else built it meanwhile
            return found
        native, target = Target(platform.machine(), work), Target(architecture, work)
        log = work / "log"
        for each in dict.fromkeys((native, target)):
            if not (each.folder / "loader").is_file():
                say(f"building CPython {cpython.VERSION} for glibc {toolchain.GLIBC} on {each.architecture}: minutes")
                toolchain.install(work, log)
                shutil.rmtree(each.folder, ignore_errors=True)
                cpython.build(each, archives, native, log)
        for name in ("compiler", "zig-cache", "sdist"):  # half a gigabyte that freezing does not need
            shutil.rmtree(work / name, ignore_errors=True)
        say(f"freezing the relocator for {architecture}")
        with tempfile.TemporaryDirectory(prefix="freeze-", dir=work) as directory:
            recipe = store.recipe()
            files = freeze(target, native, Path(directory), log)
            if target == native:
                toolchain.run([files / PROGRAM, "--version"], Path(directory), {}, log)
            return store.keep(files, record(files, target, recipe))


def freeze(target: Target, native: Target, directory: Path, log: Path) -> Path:
    """Freeze the relocator with what was built before, in an empty directory; return that of the stub's files.

    Byte code does not depend on the architecture: for another one, only the two compiled files are exchanged.
    """
    sources = directory / "sources"
    package = sources / "installer_stub"
    origin = Path(str(resources.files(installer_stub)))
    shutil.copytree(origin, package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    freezer = native.work / "freezer"
    for folder in freezer.glob("PyInstaller/bootloader/Linux-*"):
        shutil.copy(native.folder / "loader", folder / "run")
    more = {
        **{"RELOPACK_SOURCES": str(sources), "PYTHONPATH": str(freezer), "PYINSTALLER_CONFIG_DIR": str(directory)},
        **{"HOME": str(directory), **cpython.library_path(native)},
    }
    python = native.folder / "python" / "bin" / f"python{cpython.VERSION}"
    command: list[str | Path] = [python, "-s", "-m", "PyInstaller", "--noconfirm", "--log-level=WARN"]
    command += [f"--distpath={directory / 'made'}", f"--workpath={directory / 'work'}", package / "stub.spec"]
    toolchain.run(command, directory, native.environment(more), log)
    files = directory / "made" / PROGRAM
    # PyInstaller would join the two by this machine's objcopy, which knows no other architecture; the loader looks
    # for what it starts at its own end.
    program, modules = files / PROGRAM, files / f"{PROGRAM}.pkg"
    program.write_bytes((target.folder / "loader").read_bytes() + modules.read_bytes())
    modules.unlink()
    if target != native:
        shutil.copyfile(target.folder / "python" / "lib" / cpython.LIBRARY, files / "_internal" / cpython.LIBRARY)
    return files


def record(files: Path, target: Target, recipe: str) -> Record:
    """Measure a stub. Raises StubUnavailable where a file of it needs a newer glibc than it was built for."""
    measured = floor.of_tree(files)
    if measured is None:
        raise StubUnavailable(f"{files} holds nothing that needs a glibc: this is no stub.")
    if measured.glibc != toolchain.GLIBC and not _older(measured.glibc):
        raise StubUnavailable(f"{measured.path} needs glibc {measured.glibc}, and not {toolchain.GLIBC}.")
    sha256, size = store.measure(files)
    return Record(target.architecture, measured.glibc, cpython.VERSION, recipe, sha256, size)


def _older(version: str) -> bool:
    return tuple(map(int, version.split("."))) < tuple(map(int, toolchain.GLIBC.split(".")))


def workplace(archives: Mapping[str, Path]) -> Path:
    """Name the directory in the cache for what is compiled, by a hash of all that decides what that is."""
    hasher = hashlib.sha256()
    for path in (*(archives[name] for name in sorted(archives)), Path(cpython.__file__), Path(toolchain.__file__)):
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return store.cache() / "stub-build" / hasher.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
