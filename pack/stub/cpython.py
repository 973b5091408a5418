"""CPython for glibc 2.17: one library, with the compiled modules of the standard library that the relocator imports."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

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


# What configure would find out by a program that it runs, and differently for another fixed time, niceness, network or
# /dev: the same interpreter is to be made everywhere, and where it runs is another machine anyhow.
_KNOWN = (
    *("ac_cv_working_tzset=yes", "ac_cv_broken_nice=no", "ac_cv_buggy_getaddrinfo=no"),
    *("ac_cv_posix_semaphores_enabled=yes", "ac_cv_broken_sem_getvalue=no"),
    *("ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no"),
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


def configure(target: Target, native: Target, static: Path, log: Path) -> None:
    """Have the unpacked source find out what the target has; zlib must lie in ``static``.

    ``native`` is the target that this machine runs; its Python must be built first where another is wanted.
    """
    source = _source(target)
    makefile = source / "Makefile.pre.in"
    makefile.write_text(makefile.read_text().replace("-Wl,-h", "-Wl,-soname,"))  # zig's linker knows no -h
    (source / "Modules" / "Setup.local").write_text(_MODULES + _CTYPES.format(static=static))
    options = ["--enable-shared", "--without-ensurepip", "--without-doc-strings", "--disable-test-modules"]
    if target != native:
        options.append(f"--with-build-python={native.folder}/python/bin/python{VERSION}")
        options += [f"--host={target.triple}", f"--build={native.triple}"]
    # The library holds this name, and nobody uses it: it must not be that of somebody's cache.
    command = ["sh", "./configure", "--prefix=/relopack", *options, *_KNOWN]
    run(command, source, _environment(target, native, static), log)


def build(target: Target, native: Target, static: Path, log: Path) -> None:
    """Compile what was configured into ``target.folder / "python"``; libffi must lie in ``static``."""
    source, prefix = _source(target), target.folder / "python"
    # The first has the interpreter built, too, and what sysconfig says of it.
    wanted = "pybuilddir.txt" if target == native else f"libpython{VERSION}.so"
    command = ["make", f"-j{os.cpu_count() or 1}", "PY3LIBRARY=", wanted]
    run(command, source, _environment(target, native, static), log)
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


def headers(target: Target) -> list[Path]:
    """Give the directories of Python.h and of what was configured for it."""
    return [_source(target) / "Include", _source(target)]


def _source(target: Target) -> Path:
    return target.folder / "source" / "python"


def _environment(target: Target, native: Target, static: Path) -> dict[str, str]:
    return target.environment(
        {
            "OPT": "-DNDEBUG -fwrapv -O3",
            "ZLIB_CFLAGS": f"-I{static}/include",
            "ZLIB_LIBS": f"-L{static}/lib -lz",
            **({} if target == native else library_path(native)),
        }
    )
