"""What is compiled for a stub: interpreter, loader, opener, zstandard, and the two libraries that these link."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import installer_stub
from pack.stub import cpython, toolchain
from pack.stub.toolchain import Target, run

OPENER_SOURCE = Path(str(resources.files(installer_stub))) / "opener.c"
ZSTANDARD = Path("zstandard", "backend_c.so")  # where Python looks for it, whatever the architecture
# Of zstandard's own two modules only the compiled one is taken: the other looks for more than one such, and lets a
# variable of the caller choose.
_ZSTANDARD_INIT = '"""zstandard with its C backend alone."""\n\nfrom zstandard.backend_c import *\n'
# As zstandard's setup.py has it. A stub expands only; these are zstd's own switches for the slower ways to compress.
_MATCH_FINDERS = ("DFAST", "GREEDY", "LAZY", "LAZY2", "BTLAZY2", "BTOPT", "BTULTRA")
_ZSTANDARD_FLAGS = (
    *("-DZSTD_SINGLE_FILE", "-DZSTDLIB_VISIBLE=", "-DZDICTLIB_VISIBLE=", "-DZSTDERRORLIB_VISIBLE="),
    *(f"-DZSTD_EXCLUDE_{each}_BLOCK_COMPRESSOR" for each in _MATCH_FINDERS),
    *("-fvisibility=hidden", "-DNDEBUG", "-shared"),
)
_JOBS = f"-j{os.cpu_count() or 1}"


def are_built(target: Target) -> bool:
    """Whether all parts for a target lie in its directory."""
    return (target.folder / "complete").is_file()


def loader(target: Target) -> Path:
    """Name the program with which PyInstaller starts what it froze."""
    return target.folder / "loader"


def opener(target: Target) -> Path:
    """Name the program that unpacks a stub."""
    return target.folder / "opener"


def packages(target: Target) -> Path:
    """Name the directory of the package ``zstandard``."""
    return target.folder / "packages"


def build(target: Target, sources: Mapping[str, Path], native: Target, logs: Path) -> None:
    """Build all parts into ``target.folder``. What each step prints is a file in ``logs``.

    ``native`` is the target that this machine runs; it must be built first where another is wanted.
    """
    shutil.rmtree(target.folder, ignore_errors=True)
    toolchain.compiler(target)
    static = target.folder / "static"
    for name in ("zlib", "libffi", "python"):
        toolchain.unpack(sources[name], target.folder / "source" / name, logs / name)
    # Not beside others: whatever is compiled first has the compiler build its glibc, and the rest would wait.
    _zlib(target, static, logs / "zlib")
    # Finding out what the target has takes CPython a minute, on one core.
    with ThreadPoolExecutor() as pool:
        others = pool.submit(_small_parts, target, static, logs)
        cpython.configure(target, native, static, logs / "python")
        others.result()
        zstandard = pool.submit(_zstandard, target, logs / "zstandard")
        cpython.build(target, native, static, logs / "python")
        zstandard.result()
    shutil.rmtree(target.folder / "source")
    (target.folder / "complete").touch()


def _small_parts(target: Target, static: Path, logs: Path) -> None:
    _libffi(target, static, logs / "libffi")
    _loader(target, logs / "loader")
    _opener(target, static, logs / "opener")


def _zlib(target: Target, static: Path, log: Path) -> None:
    source = target.folder / "source" / "zlib"
    environment = target.environment({"CHOST": target.triple})
    run(["sh", "./configure", "--static", f"--prefix={static}"], source, environment, log)
    run(["make", _JOBS, "libz.a"], source, environment, log)
    for name in ("include/zlib.h", "include/zconf.h", "lib/libz.a"):
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / Path(name).name, static / name)


def _libffi(target: Target, static: Path, log: Path) -> None:
    """Build libffi, for ctypes: PyInstaller imports it, and the relocator finds syncfs with it."""
    source = target.folder / "source" / "libffi"
    options = ["--disable-shared", "--disable-exec-static-tramp", "--disable-docs", "--disable-multi-os-directory"]
    where = [f"--prefix={static}", f"--libdir={static / 'lib'}", f"--host={target.triple}"]
    environment = target.environment()
    run(["sh", "./configure", *options, *where], source, environment, log)
    run(["make", _JOBS], source, environment, log)
    run(["make", "install"], source, environment, log)


def _loader(target: Target, log: Path) -> None:
    """Compile the loader with zlib inside."""
    source = target.folder / "source" / "loader"
    shutil.copytree(target.work / "loader", source)
    waf = [sys.executable, "./waf", "--clang", "configure", "build_release"]
    # It is linked without symbols; this machine's strip knows no other architecture.
    run(waf, source / "bootloader", target.environment({"PYI_STATIC_ZLIB": "1", "STRIP": "true"}), log)
    shutil.copy(source / "bootloader" / "build" / "release" / "run", loader(target))


def _opener(target: Target, static: Path, log: Path) -> None:
    options = ["-O2", "-g0", "-s", f"-I{static / 'include'}", f"-L{static / 'lib'}"]
    command: list[str | Path] = [target.folder / "bin" / "cc", *options, OPENER_SOURCE, "-lz", "-o", opener(target)]
    run(command, target.folder, target.environment(), log)


def _zstandard(target: Target, log: Path) -> None:
    """Compile zstandard's C backend, with zstd inside; the headers of CPython must be configured."""
    source, made = target.work / "zstandard", packages(target) / ZSTANDARD
    made.parent.mkdir(parents=True)
    (made.parent / "__init__.py").write_text(_ZSTANDARD_INIT)
    folders = [source / "c-ext", source / "zstd", *cpython.headers(target)]
    environment = target.environment()
    flags = [*environment["CFLAGS"].split(), *_ZSTANDARD_FLAGS, *(f"-I{folder}" for folder in folders)]
    command: list[str | Path] = [
        target.folder / "bin" / "cc",
        *flags,
        "-s",
        source / "c-ext" / "backend_c.c",
        "-o",
        made,
    ]
    run(command, target.folder, environment, log)
