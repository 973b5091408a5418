"""CPython for glibc 2.17, with all that the relocator imports inside its one library, and PyInstaller's loader."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pack.stub import toolchain
from pack.stub.store import StubUnavailable
from pack.stub.toolchain import Target, run

VERSION = "3.11"
LIBRARY = f"libpython{VERSION}.so.1.0"
SOURCES = {
    "python": re.compile(r"([Pp]ython3\.11_3\.11\.\d+|Python-3\.11\.\d+)(\.orig)?\.(tar\.(gz|xz)|tgz)\Z"),
    "zlib": re.compile(r"zlib[-_]1\.[0-9.]+(\.dfsg)?(\.orig)?\.tar\.(gz|xz|bz2)\Z"),
    "libffi": re.compile(r"libffi[-_]3\.[0-9.]+(\.orig)?\.tar\.(gz|xz)\Z"),
}
# What the relocator and PyInstaller import, as Modules/Setup names it; the rest of the standard library is Python.
_MODULES = """\
*static*
array arraymodule.c
_bisect _bisectmodule.c
_contextvars _contextvarsmodule.c
_csv _csv.c
_heapq _heapqmodule.c
_json _json.c
_opcode _opcode.c
_pickle _pickle.c
_queue _queuemodule.c
_random _randommodule.c
_struct _struct.c
_typing _typingmodule.c
math mathmodule.c
_datetime _datetimemodule.c
binascii binascii.c
zlib zlibmodule.c
_md5 md5module.c
_sha1 sha1module.c
_sha256 sha256module.c
_sha512 sha512module.c
_sha3 _sha3/sha3module.c
_blake2 _blake2/blake2module.c _blake2/blake2b_impl.c _blake2/blake2s_impl.c
pyexpat pyexpat.c
unicodedata unicodedata.c
fcntl fcntlmodule.c
grp grpmodule.c
mmap mmapmodule.c
_posixsubprocess _posixsubprocess.c
resource resource.c
select selectmodule.c
_socket socketmodule.c
termios termios.c
_multiprocessing _multiprocessing/multiprocessing.c _multiprocessing/semaphore.c
"""
_CTYPES = (
    "_ctypes _ctypes/_ctypes.c _ctypes/callbacks.c _ctypes/callproc.c _ctypes/stgdict.c _ctypes/cfield.c"
    " -I{static}/include -DHAVE_FFI_PREP_CIF_VAR -DHAVE_FFI_PREP_CLOSURE_LOC -DHAVE_FFI_CLOSURE_ALLOC"
    " -L{static}/lib -lffi -ldl\n"
)


def find_sources(folder: Path) -> dict[str, Path]:
    """Find the source archives in a directory, or one level below. Raises StubUnavailable for those missing."""
    names = sorted([*folder.glob("*"), *folder.glob("*/*")]) if folder.is_dir() else []
    found = {
        name: path for name, pattern in SOURCES.items() for path in names if pattern.match(path.name) and path.is_file()
    }
    missing = [name for name in SOURCES if name not in found]
    if missing:
        wanted = {
            "python": f"CPython {VERSION} (Python-{VERSION}.*.tar.xz, from python.org)",
            "zlib": "zlib 1 (zlib-1.*.tar.gz, from zlib.net)",
            "libffi": "libffi 3 (libffi-3.*.tar.gz, from its releases on GitHub)",
        }
        raise StubUnavailable(
            f"{folder} does not hold the source of {'; nor of '.join(wanted[name] for name in missing)}.",
            "Put them there, or name another directory with --sources. Debian 12 has them all: "
            "apt-get source --download-only python3.11 zlib libffi",
        )
    return found


def library_path(target: Target) -> dict[str, str]:
    """Give the variable with which the Python of ``target`` finds its library, wherever the cache lies."""
    return {"LD_LIBRARY_PATH": str(target.folder / "python" / "lib")}


def build(target: Target, sources: Mapping[str, Path], native: Target, log: Path) -> None:
    """Build CPython and the loader into ``target.folder``: ``python/`` and ``loader``.

    ``native`` is the target that this machine runs; its Python must be built first where another is wanted.
    """
    if (target.folder / "loader").is_file():
        return
    toolchain.compiler(target)
    for name in ("zlib", "libffi", "python"):
        toolchain.unpack(sources[name], target.folder / "source" / name, log)
    jobs = f"-j{os.cpu_count() or 1}"
    static = target.folder / "static"
    _zlib(target, static, jobs, log)
    _libffi(target, static, jobs, log)
    _python(target, static, native, jobs, log)
    _loader(target, log)
    shutil.rmtree(target.folder / "source")


def _zlib(target: Target, static: Path, jobs: str, log: Path) -> None:
    source = target.folder / "source" / "zlib"
    environment = target.environment({"CHOST": target.triple})
    run(["sh", "./configure", "--static", f"--prefix={static}"], source, environment, log)
    run(["make", jobs, "libz.a"], source, environment, log)
    for name in ("include/zlib.h", "include/zconf.h", "lib/libz.a"):
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / Path(name).name, static / name)


def _libffi(target: Target, static: Path, jobs: str, log: Path) -> None:
    """Build libffi, for ctypes: PyInstaller imports it, and the relocator finds syncfs with it."""
    source = target.folder / "source" / "libffi"
    options = ["--disable-shared", "--disable-exec-static-tramp", "--disable-docs", "--disable-multi-os-directory"]
    where = [f"--prefix={static}", f"--libdir={static / 'lib'}", f"--host={target.triple}"]
    environment = target.environment()
    run(["sh", "./configure", *options, *where], source, environment, log)
    run(["make", jobs], source, environment, log)
    run(["make", "install"], source, environment, log)


def _python(target: Target, static: Path, native: Target, jobs: str, log: Path) -> None:
    source, prefix = target.folder / "source" / "python", target.folder / "python"
    environment = target.environment(
        {
            "OPT": "-DNDEBUG -fwrapv -O3",
            "ZLIB_CFLAGS": f"-I{static}/include",
            "ZLIB_LIBS": f"-L{static}/lib -lz",
            **({} if target == native else library_path(native)),
        }
    )
    makefile = source / "Makefile.pre.in"
    makefile.write_text(makefile.read_text().replace("-Wl,-h", "-Wl,-soname,"))  # zig's linker knows no -h
    (source / "Modules" / "Setup.local").write_text(_MODULES + _CTYPES.format(static=static))
    options = ["--enable-shared", "--without-ensurepip", "--without-doc-strings", "--disable-test-modules"]
    # The test for tzset runs a program that a reproducible build's fixed time does not suit.
    known = ["ac_cv_working_tzset=yes"]
    if target != native:
        options.append(f"--with-build-python={native.folder}/python/bin/python{VERSION}")
        options += [f"--host={target.triple}", f"--build={native.triple}"]
        known += ["ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no"]
    # The library holds this name, and nobody uses it: it must not be that of somebody's cache.
    run(["sh", "./configure", "--prefix=/relopack", *options, *known], source, environment, log)
    # The first has the interpreter built, too, and what sysconfig says of it.
    wanted = "pybuilddir.txt" if target == native else f"libpython{VERSION}.so"
    run(["make", jobs, "PY3LIBRARY=", wanted], source, environment, log)
    (prefix / "lib").mkdir(parents=True)
    shutil.copyfile(source / LIBRARY, prefix / "lib" / LIBRARY)
    if target != native:
        return
    # "make install" would compile every module three times, and want setup.py's modules.
    (prefix / "bin").mkdir()
    shutil.copy(source / "python", prefix / "bin" / f"python{VERSION}")
    library = prefix / "lib" / f"python{VERSION}"
    unneeded = shutil.ignore_patterns("test", "tests", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip")
    shutil.copytree(source / "Lib", library, ignore=unneeded)
    (library / "lib-dynload").mkdir()
    for path in (source / "build").glob("lib*/_sysconfigdata*.py"):
        shutil.copy(path, library)


def _loader(target: Target, log: Path) -> None:
    """Compile the program with which PyInstaller starts what it froze, with zlib inside."""
    source = target.folder / "source" / "loader"
    shutil.copytree(target.work / "loader", source)
    waf = [sys.executable, "./waf", "--clang", "configure", "build_release"]
    # It is linked without symbols; this machine's strip knows no other architecture.
    run(waf, source / "bootloader", target.environment({"PYI_STATIC_ZLIB": "1", "STRIP": "true"}), log)
    shutil.copy(source / "bootloader" / "build" / "release" / "run", target.folder / "loader")
