"""Programs that name their prefix in every way in which compilers and linkers store strings, built by the tests.

They print what they found at each path, and the path. ``fixtures/recipes/references`` holds packages of the same
kind, made once for many tests; these are built for every compiler, at every level of optimization, into any prefix.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.integration.moving import run

# Each finds a file; "tail" and "end" are stored by the linker as the ends of "word".
C = r"""
#include <stdio.h>
#include <string.h>
static void show(const char *kind, const char *path) {
    char line[64] = "not found\n";
    FILE *file = fopen(path, "r");
    if (file) { if (!fgets(line, sizeof line, file)) strcpy(line, "empty\n"); fclose(file); }
    line[strcspn(line, "\n")] = 0;
    printf("%s: %s at %s\n", kind, line, path);
}
static const char exact[] = PREFIX;
static const char *volatile word = PREFIX "/share/word";
static const char *volatile tail = "share/word";
static const char *volatile end = "word";
static const char *volatile search = "/nowhere:" PREFIX "/lib:" PREFIX "/share:/usr/nowhere";
static const char table[][250 + sizeof PREFIX] = {PREFIX "/share/one", "between", PREFIX "/share/three"};
static struct { char path[sizeof PREFIX "/share/one"]; char zeros[32]; } data = {PREFIX "/share/one", {0}};
int main(int argc, char **argv) {
    char path[8192];
    unsigned i, sum = 0;
    volatile unsigned row = (unsigned)argc - 1;
    snprintf(path, sizeof path, "%s/share/word", exact + row);
    show("exact", path);
    show("word", word);
    printf("tail: %s\nend: %s\nsearch: %s\n", tail, end, search);
    snprintf(path, sizeof path, "%s", search);
    strtok(path, ":"); strtok(NULL, ":");
    strcat(strcpy(path, strtok(NULL, ":")), "/word");
    show("search", path);
    show("table", table[row]);
    printf("table: %s\n", table[row + 1]);
    show("table", table[row + 2]);
    data.path[0] = argc > 100 ? 'x' : '/';
    show("data", data.path);
    for (i = 0; i < sizeof data.zeros; i++) sum += data.zeros[i];
    printf("zeros: %u\n", sum);
    return !argv;
}
"""

# C that counts, which no channel's placeholder allows: it writes a literal by its size, and an array without a NUL.
COUNTED = r"""
#include <stdio.h>
static const char literal[] = PREFIX "/share/word";
static struct { char path[sizeof PREFIX "/share" - 1]; char next[6]; } slot = {PREFIX "/share", "/word"};
int main(int argc, char **argv) {
    slot.path[0] = argc > 100 ? 'x' : '/';
    fwrite(literal, 1, sizeof literal - 1, stdout);
    printf("\n%s\n", slot.path);
    return !argv;
}
"""

# The name of the prefix as a string of its own: the linker stores it inside the prefix.
NAME = r"""
#include <stdio.h>
static const char *volatile prefix = PREFIX;
static const char *volatile name = "env";
int main(void) { printf("%s %s\n", prefix, name); return 0; }
"""

CPP = r"""
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
constexpr std::string_view folder = PREFIX "/share", table[] = {PREFIX "/share/one", "between", PREFIX "/share/three"};
static const std::string early = PREFIX "/share/one";
static const char *volatile c = PREFIX "/share/word";
[[gnu::noinline]] std::string text(std::string_view literal) { return std::string(literal); }
[[gnu::noinline]] void show(const char *kind, const std::string &path) {
    std::ifstream file(path.c_str());
    std::string line, printed = path;
    if (!std::getline(file, line)) line = "not found";
    for (char &each : printed) if (!each) each = '#';
    std::cout << kind << ": " << line << (path.find('\0') == path.npos ? "" : ", NULs inside") << " at " << printed
              << '\n';
}
int main(int argc, char **) {
    show("string", text(PREFIX "/share/word"));
    show("exact", text(PREFIX) + "/share/word");
    show("view", text(folder) + "/word");
    show("table", text(table[argc - 1]));
    std::cout << "table: " << table[argc] << '\n';
    show("table", text(table[argc + 1]));
    show("early", early);
    show("c", std::string(c));
    std::cout << "sizes: " << folder.size() << ' ' << table[argc + 1].size() << '\n';
}
"""

RUST = r"""
use std::fs;
use std::hint::black_box;
static WORDS: [&str; 5] = [
    "betaword", concat!(env!("PREFIX"), "/share/one"), "gammaword", concat!(env!("PREFIX"), "/share/three"), "delta",
];
#[inline(never)]
fn show(kind: &str, path: &str) {
    let found = fs::read_to_string(path).unwrap_or_else(|_| "not found".to_string());
    println!("{kind}: {} at {path}", found.trim_end());
}
fn main() {
    show("word", concat!(env!("PREFIX"), "/share/word"));
    show("exact", &format!("{}/share/word", black_box(env!("PREFIX"))));
    for number in [0, 2, 4] { println!("neighbour: {}", black_box(&WORDS)[number]); }
    for number in [1, 3] { show("table", black_box(&WORDS)[number]); }
    println!("sizes: {} {}", black_box(&WORDS)[1].len(), black_box(&WORDS)[3].len());
}
"""

FORTRAN = """
program main
  implicit none
  character(len=*), parameter :: word = "@PREFIX@/share/word", table(2) = ["@PREFIX@/share/one", "@PREFIX@/share/two"]
  logical :: there
  inquire(file=word, exist=there)
  print "(l1,1x,i0,1x,a)", there, len(word), word
  print "(i0,1x,a)", len(table), table(1 + command_argument_count())
end program
"""

GO = r"""
package main
const word = "@PREFIX@/share/word"
var table = []string{"beta", "@PREFIX@/share/one", "gamma"}
func main() { println(word, len(word)); for _, each := range table { println(each, len(each)) } }
"""

# Copied by instructions: no string is left of it, but for what these hold.
INLINED = r"""
#include <stdio.h>
#include <string.h>
__attribute__((noinline)) static void show(const char *path) { puts(path); }
int main(void) { char path[sizeof PREFIX + 8]; strcpy(path, PREFIX "/a"); show(path); return 0; }
"""

LIBRARY = "int lib(void) { return 1; }\nint ib(void) { return 2; }\nint share(void) { return 3; }\n"
CALLER = r"""
#include <stdio.h>
int lib(void), ib(void), share(void);
int main(void) { printf("%d %d %d\n", lib(), ib(), share()); return 0; }
"""

FILES = {"word": "found word", "one": "found one", "three": "found three", "two": "found two"}
GCC = {
    "c-0": ["-O0"],
    "c-2": ["-O2"],
    "c-lto": ["-O2", "-flto"],
    "c-tails": ["-Os", "-Wl,-O2"],
    "c-static": ["-O2", "-static"],
    "c-fixed": ["-O2", "-no-pie"],
    "c-debug": ["-O0", "-g3"],
}
GPP = {"cpp-0": ["-O0"], "cpp-2": ["-O2"], "cpp-lto": ["-O2", "-flto"], "cpp-static": ["-O2", "-static-libstdc++"]}
PROGRAMS = (
    "c",
    "counted",
    "cpp",
    "rust",
    "fortran",
    "go",
    "name",
    "runpath",
    "rpath",
    "absolute",
    "deep",
    "interpreter",
)
POOLED = ("rust", "fortran", "go")  # whose literals have nothing between them
RUSTC = {"rust-0": ["opt-level=0"], "rust-2": ["opt-level=2", "strip=symbols"]}


def data(prefix: Path) -> None:
    """Write the files that the programs look for."""
    for directory in ("bin", "lib", "share"):
        (prefix / directory).mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (prefix / "share" / name).write_text(content + "\n")


def c(prefix: Path, work: Path, name: str, source: str, *options: str, compiler: str = "gcc") -> Path:
    """Compile one source for a prefix into its ``bin``."""
    suffix = {"gcc": "c", "g++": "cpp", "gfortran": "f90"}[compiler]
    path = work / f"{name}.{suffix}"
    path.write_text(source.replace("@PREFIX@", str(prefix)))
    output = prefix / "bin" / name
    define = [] if compiler == "gfortran" else [f'-DPREFIX="{prefix}"']
    run([compiler, *define, "-o", output, path, *options])
    return output


def rust(prefix: Path, work: Path, name: str, options: list[str]) -> Path:
    """Compile the program in Rust for a prefix."""
    (work / "program.rs").write_text(RUST)
    output = prefix / "bin" / name
    flags = [f"-C{option}" for option in options]
    run(
        ["rustc", "--edition=2021", *flags, "-o", output, work / "program.rs"],
        env={**os.environ, "PREFIX": str(prefix)},
    )
    return output


def go(prefix: Path, work: Path, name: str) -> Path:
    """Compile the program in Go for a prefix; it prints to its standard error."""
    (work / "program.go").write_text(GO.replace("@PREFIX@", str(prefix)))
    output = prefix / "bin" / name
    surroundings = {**os.environ, "GOCACHE": str(work / "go"), "GO111MODULE": "off", "CGO_ENABLED": "0"}
    run(["go", "build", "-o", output, work / "program.go"], env=surroundings)
    return output


def dynamic(prefix: Path, work: Path) -> None:
    """Link libraries and programs by every string that the loader reads.

    The library exports functions, and has versions, whose names are the ends of run paths. ``deep`` lies so far
    below that a relative run path does not fit.
    """
    (work / "library.c").write_text(LIBRARY)
    (work / "caller.c").write_text(CALLER)
    (work / "versions").write_text("are { global: *; };\n")
    lib = prefix / "lib"
    shared: list[str | bytes | Path] = ["gcc", "-shared", "-fPIC", work / "library.c"]
    shared.append(f"-Wl,--version-script={work}/versions")
    deep = prefix / "libexec" / Path(*"d" * (len(str(prefix)) // 3))
    deep.mkdir(parents=True)
    run([*shared, f"-Wl,-soname,libexports.so,-rpath,{lib}", "-o", lib / "libexports.so"])
    run([*shared, f"-Wl,-soname,libdeep.so,-rpath,{lib}:{prefix}/share", "-o", deep / "libdeep.so"])
    run([*shared, f"-Wl,-soname,{lib}/libabsolute.so", "-o", lib / "libabsolute.so"])

    def link(path: Path, *options: str | Path) -> None:
        run(["gcc", work / "caller.c", "-o", path, *options])

    link(prefix / "bin" / "runpath", lib / "libexports.so", f"-Wl,--enable-new-dtags,-rpath,{lib}:{prefix}/share")
    link(prefix / "bin" / "rpath", lib / "libexports.so", f"-Wl,--disable-new-dtags,-rpath,/nowhere:{lib}")
    link(prefix / "bin" / "absolute", lib / "libabsolute.so")
    link(deep / "deep", lib / "libexports.so", f"-Wl,-rpath,{lib}")
    (prefix / "bin" / "deep").symlink_to(deep / "deep")
    loader = interpreter(prefix / "bin" / "runpath")
    shutil.copy(os.path.realpath(loader), lib / "ld-copy.so")
    link(prefix / "bin" / "interpreter", lib / "libexports.so", f"-Wl,-rpath,{lib},--dynamic-linker,{lib}/ld-copy.so")


def interpreter(program: Path) -> str:
    """Read the path of a program's interpreter."""
    found = re.search(r"interpreter: (.*)\]", run(["readelf", "-lW", program]).stdout)
    assert found is not None
    return found[1]


def printed(prefix: Path) -> dict[str, str]:
    """Run the programs in ``bin`` without any environment; return what each printed, by name, with PREFIX in it."""
    out: dict[str, str] = {}
    for program in sorted((prefix / "bin").iterdir()):
        if program.name.partition("-")[0] in PROGRAMS:
            done = run([program], env={}, code=None)
            text = done.stdout + done.stderr + (f"exit {done.returncode}\n" if done.returncode else "")
            out[program.name] = named(text, prefix)
    return out


def everything(prefix: Path, work: Path, rusts: Mapping[str, list[str]] = RUSTC) -> None:
    """Build all programs for which there is a compiler, beside the files that they look for."""
    data(prefix)
    work.mkdir(parents=True, exist_ok=True)
    for name, options in GCC.items():
        c(prefix, work, name, C, *options)
    for name, options in GPP.items():
        c(prefix, work, name, CPP, "-std=c++17", *options, compiler="g++")
    if shutil.which("rustc"):
        for name, options in rusts.items():
            rust(prefix, work, name, options)
    if shutil.which("gfortran"):
        for level in ("0", "2"):
            options = [f"-O{level}", "-ffree-line-length-none"]
            c(prefix, work, f"fortran-{level}", FORTRAN, *options, compiler="gfortran")
    if shutil.which("go"):
        go(prefix, work, "go")
    dynamic(prefix, work)


def exported(prefix: Path) -> dict[str, str]:
    """List the dynamic symbols of every library and program, with their versions."""
    found = {}
    for path in sorted(prefix.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.open("rb").read(4) == b"\x7fELF":
            listed = run(["nm", "-D", path], code=None)
            found[str(path.relative_to(prefix))] = listed.stdout
    return found


def named(text: str, prefix: Path) -> str:
    """Write a prefix as PREFIX, however many slashes are in it."""
    return re.sub(r"/(?:\.?/)+", "/", text).replace(str(prefix), "PREFIX")
