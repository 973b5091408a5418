"""What ``make install`` leaves for compilers and desktops, read after a move by the programs that it is made for.

Each consumer is run twice: on a tree that was unpacked and not relocated, where it must fail, since the place
that the files name is gone; and on one that was relocated.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import need
from tests.integration.moving import SURROUNDINGS, Run, pack, pack_env, run, sh, unpack

# A library whose data lies in the prefix, another that is linked with it, and a program that uses them.
WELL_C = r"""
#include <stdio.h>
#include "well.h"
int well(void)
{
    int byte;
    FILE *data = fopen(DATADIR "/well.txt", "r");
    if (!data) {
        perror(DATADIR "/well.txt");
        return 1;
    }
    while ((byte = getc(data)) != EOF)
        putchar(byte);
    return 0;
}
"""
SPRING_C = '#include "well.h"\nint spring(void) { return well(); }\n'
HEADER = "int well(void);\nint spring(void);\n"
MAIN_C = "#include <well.h>\nint main(void) { return CALL(); }\n"
WATER = "clear water\n"

PC = """\
prefix={prefix}
exec_prefix=${{prefix}}
libdir=${{exec_prefix}}/lib/plain
includedir=${{prefix}}/include

Name: well
Description: Water
Version: 1.0
Cflags: -I${{includedir}}
Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -lwell
"""
CONFIG = """\
#!/bin/sh
prefix='{prefix}'
case $1 in
    --cflags) echo "-I$prefix/include" ;;
    --libs) echo "-L{prefix}/lib/plain -Wl,-rpath,{prefix}/lib/plain -lwell" ;;
esac
"""
CMAKE_PRODUCER = """\
cmake_minimum_required(VERSION 3.13)
project(well C)
add_library(well SHARED well.c)
target_compile_definitions(well PRIVATE DATADIR="${CMAKE_INSTALL_PREFIX}/share")
target_include_directories(well PUBLIC $<INSTALL_INTERFACE:${CMAKE_INSTALL_PREFIX}/include>)
install(TARGETS well EXPORT well DESTINATION ${CMAKE_INSTALL_PREFIX}/lib/built)
install(EXPORT well NAMESPACE water:: FILE well-config.cmake DESTINATION ${CMAKE_INSTALL_PREFIX}/lib/cmake/well)
"""
CMAKE_CONSUMER = """\
cmake_minimum_required(VERSION 3.13)
project(thirsty C)
find_package(well CONFIG REQUIRED NO_DEFAULT_PATH PATHS ${TREE})
add_executable(thirsty main.c)
target_compile_definitions(thirsty PRIVATE CALL=well)
target_link_libraries(thirsty water::well)
"""
LIBTOOL = "libtool --quiet --tag=CC --mode"


@dataclass(frozen=True)
class Trees:
    """The same archive unpacked twice; the prefix that it was made from, ``source``, is deleted."""

    source: Path
    stale: Path
    moved: Path


def install_plain(prefix: Path, work: Path) -> None:
    """Install what a Makefile of one library does: archive, library, ``.pc``, ``-config``, linker script, response."""
    for name in ("bin", "include", "lib/plain", "lib/pkgconfig", "lib/scripts", "share"):
        (prefix / name).mkdir(parents=True)
    (prefix / "share" / "well.txt").write_text(WATER)
    for directory in (work, prefix / "include"):
        (directory / "well.h").write_text(HEADER)
    (work / "well.c").write_text(WELL_C)
    (work / "spring.c").write_text(SPRING_C)
    (work / "main.c").write_text(MAIN_C)
    plain = prefix / "lib" / "plain"
    sh(
        f"gcc -O2 -g -fPIC -DDATADIR='\"{prefix}/share\"' -c well.c && ar crs {plain}/libwell.a well.o"
        f" && gcc -shared -Wl,-soname,libwell.so.1 -o {plain}/libwell.so.1 well.o"
        f" && ln -s {plain}/libwell.so.1 {plain}/libwell.so",
        cwd=work,
    )
    (prefix / "lib" / "pkgconfig" / "well.pc").write_text(PC.format(prefix=prefix))
    script = prefix / "bin" / "well-config"
    script.write_text(CONFIG.format(prefix=prefix))
    script.chmod(0o755)
    # Where ld expects a library it may find a script, as it does for glibc's own libc.so.
    (prefix / "lib" / "scripts" / "libwell.so").write_text(f"/* GNU ld script */\nGROUP ( {plain}/libwell.so.1 )\n")
    response = f"-I{prefix}/include -L{plain} -Wl,-rpath,{plain} -lwell"  # without a newline at its end
    (prefix / "share" / "well.rsp").write_text(response)


def install_libtool(prefix: Path, work: Path) -> None:
    """Install two libraries by libtool; the second one's ``.la`` names the first one's."""
    lib = prefix / "lib"
    sh(
        f"{LIBTOOL}=compile gcc -DDATADIR='\"{prefix}/share\"' -c well.c -o well.lo"
        f" && {LIBTOOL}=link gcc -o libwell.la well.lo -rpath {lib}"
        f" && {LIBTOOL}=install install -c libwell.la {lib}/libwell.la"
        f" && {LIBTOOL}=compile gcc -c spring.c -o spring.lo"
        f" && {LIBTOOL}=link gcc -o libspring.la spring.lo {lib}/libwell.la -rpath {lib}"
        f" && {LIBTOOL}=install install -c libspring.la {lib}/libspring.la",
        cwd=work,
    )


def install_cmake(prefix: Path, work: Path) -> None:
    """Install a library by CMake to absolute directories, which its package then names."""
    (work / "CMakeLists.txt").write_text(CMAKE_PRODUCER)
    run(["cmake", "-S", ".", "-B", "made", f"-DCMAKE_INSTALL_PREFIX={prefix}"], cwd=work)
    run(["cmake", "--build", "made", "--target", "install"], cwd=work)
    assert f'"{prefix}/include"' in (prefix / "lib/cmake/well/well-config.cmake").read_text()


def install_loaders(prefix: Path, work: Path) -> None:
    """Install a loader of gdk-pixbuf's and the cache that names it."""
    loaders = prefix / "lib" / "gdk-pixbuf-2.0" / "2.10.0" / "loaders"
    loaders.mkdir(parents=True)
    (query,) = Path("/usr/lib").glob("*/gdk-pixbuf-2.0/gdk-pixbuf-query-loaders")
    loader = shutil.copy(query.parent / "2.10.0" / "loaders" / "libpixbufloader-pnm.so", loaders)
    cache = run([query, loader]).stdout
    assert f'"{loader}"' in cache
    (loaders.parent / "loaders.cache").write_text(cache)


def install_qt(prefix: Path, work: Path) -> None:
    """Install qmake, which asks Qt for its directories as every Qt program does, and a ``qt.conf`` beside it."""
    shutil.copy(Path(shutil.which("qmake6") or "").resolve(), prefix / "bin" / "qmake6")
    conf = f"[Paths]\nPrefix = {prefix}\nPlugins={prefix}/lib/qt/plugins\n"
    (prefix / "bin" / "qt.conf").write_text(conf)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """A prefix with everything whose producer is installed. Nothing may be written in its trees."""
    directory = tmp_path_factory.mktemp("consumers")
    # Compiled-in paths keep their length: the source lies deeper than where it goes.
    prefix = directory / "built-where-it-was-prepared" / "env"
    work = directory / "work"
    work.mkdir()
    install_plain(prefix, work)
    producers: dict[str, Callable[[Path, Path], None]] = {
        "libtool": install_libtool,
        "cmake": install_cmake,
        "gdk-pixbuf-csource": install_loaders,
        "qmake6": install_qt,
    }
    for program, install in producers.items():
        if shutil.which(program):
            install(prefix, work)
    archive = pack_env(prefix, directory / "env.tar")
    shutil.rmtree(prefix.parent)
    shutil.rmtree(work)
    trees = Trees(prefix, unpack(archive, directory / "stale" / "env"), unpack(archive, directory / "apps" / "water"))
    pack("relocate", trees.moved)
    return trees


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory with the source of a program that calls the function ``CALL``."""
    (tmp_path / "main.c").write_text(MAIN_C)
    return tmp_path


def drinks(work: Path, build: str, code: int | None = 0) -> Run:
    """Build ``work/thirsty`` by a script and run it; with ``code`` 0 it must print the data."""
    done = sh(f"{{ {build}; }} && ./thirsty", cwd=work, code=code)
    if code == 0:
        assert done.stdout.endswith(WATER), done.stderr
    return done


def fails(work: Path, build: str, because: str) -> None:
    """Do what ``drinks`` does, and expect it to fail for the reason that its output gives."""
    done = drinks(work, build, code=None)
    assert done.returncode != 0 and WATER not in done.stdout
    assert because in done.stdout + done.stderr


def test_static_archive(trees: Trees, work: Path) -> None:
    """A program linked with the moved archive finds its data, and the archive's members are as long as before."""
    build = "gcc -DCALL=well -I{0}/include main.c {0}/lib/plain/libwell.a -o thirsty"
    fails(work, build.format(trees.stale), f"{trees.source}/share/well.txt: No such file")
    drinks(work, build.format(trees.moved))
    listing = [run(["ar", "tvO", tree / "lib" / "plain" / "libwell.a"]).stdout for tree in (trees.stale, trees.moved)]
    assert listing[0] == listing[1] != ""
    symbols = run(["nm", "--print-armap", trees.moved / "lib" / "plain" / "libwell.a"]).stdout
    assert "well in well.o" in symbols


@pytest.mark.parametrize("static", ["", "-static"])
def test_libtool_archive(static: str, trees: Trees, work: Path) -> None:
    """libtool links with a moved `.la` and, for a static program, with the other `.la` that it names."""
    need("libtool")
    build = f"{LIBTOOL}=link gcc {static} -DCALL=spring -I{{0}}/include main.c {{0}}/lib/libspring.la -o thirsty"
    fails(work, build.format(trees.stale), f"'{trees.source}/lib/libwell.la'" if static else "No such file")
    done = drinks(work, build.format(trees.moved))
    assert "was moved" not in done.stderr
    text = (trees.moved / "lib" / "libspring.la").read_text()
    assert f"libdir='{trees.moved}/lib'" in text
    assert f"dependency_libs=' {trees.moved}/lib/libwell.la'" in text


def test_pkg_config(trees: Trees, work: Path) -> None:
    """What pkg-config says of a moved `.pc` compiles, links and runs."""
    need("pkg-config")
    build = "flags=$(PKG_CONFIG_LIBDIR={}/lib/pkgconfig pkg-config --cflags --libs well)"
    build += " && gcc -DCALL=well main.c $flags -o thirsty"
    fails(work, build.format(trees.stale), "well.h: No such file")
    drinks(work, build.format(trees.moved))
    told = run(
        ["pkg-config", "--variable=libdir", "well"],
        env={**SURROUNDINGS, "PKG_CONFIG_LIBDIR": str(trees.moved / "lib" / "pkgconfig")},
    )
    assert told.stdout == f"{trees.moved}/lib/plain\n"


def test_config_script(trees: Trees, work: Path) -> None:
    """A `-config` script tells compilers the new place, in a variable and in the midst of its options."""
    build = "gcc -DCALL=well $({0}/bin/well-config --cflags) main.c $({0}/bin/well-config --libs) -o thirsty"
    fails(work, build.format(trees.stale), "well.h: No such file")
    drinks(work, build.format(trees.moved))


def test_cmake_package(trees: Trees, work: Path) -> None:
    """CMake finds the moved package, checks the files that it names, and builds with it."""
    need("cmake")
    (work / "CMakeLists.txt").write_text(CMAKE_CONSUMER)
    build = "rm -rf made && cmake -S . -B made -DTREE={0} && cmake --build made && cp made/thirsty ."
    fails(work, build.format(trees.stale), "not all the files it references")
    drinks(work, build.format(trees.moved))


def test_linker_script(trees: Trees, work: Path) -> None:
    """ld follows a script that stands in for a library to the library at the new place."""
    build = "gcc -DCALL=well -I{0}/include main.c -L{0}/lib/scripts -lwell -Wl,-rpath,{0}/lib/plain -o thirsty"
    fails(work, build.format(trees.stale), f"cannot find {trees.source}/lib/plain/libwell.so.1")
    drinks(work, build.format(trees.moved))


def test_response_file(trees: Trees, work: Path) -> None:
    """gcc reads its options from a moved file that has no newline at its end."""
    build = "gcc -DCALL=well main.c @{}/share/well.rsp -o thirsty"
    fails(work, build.format(trees.stale), "well.h: No such file")
    drinks(work, build.format(trees.moved))


def test_gdk_pixbuf_loaders(trees: Trees, tmp_path: Path) -> None:
    """gdk-pixbuf loads an image through the loader that the moved cache names."""
    csource = need("gdk-pixbuf-csource")
    image = tmp_path / "image.ppm"
    image.write_text("P3\n1 1\n255\n255 0 0\n")
    for tree, code in ((trees.stale, 1), (trees.moved, 0)):
        cache = tree / "lib" / "gdk-pixbuf-2.0" / "2.10.0" / "loaders.cache"
        done = run([csource, image], env={**SURROUNDINGS, "GDK_PIXBUF_MODULE_FILE": str(cache)}, code=code)
    assert "pixel_data" in done.stdout


def test_qt_conf(trees: Trees) -> None:
    """A Qt program is told the directories of the moved `qt.conf`, the one that it names and those derived."""
    need("qmake6")
    for tree, place in ((trees.stale, trees.source), (trees.moved, trees.moved)):
        asked = [run([tree / "bin" / "qmake6", "-query", f"QT_INSTALL_{name}"]).stdout for name in ("PLUGINS", "LIBS")]
        assert asked == [f"{place}/lib/qt/plugins\n", f"{place}/lib\n"]
