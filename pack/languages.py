"""Tell by the marks that survive `strip` whether a program is in a language whose strings have a length.

A C string ends at its NUL. Where the length is kept beside the string, NULs put behind a shorter one are
read as a part of it, and what follows is not a NUL but the next string. docs/strings.md has the rates at which
these answers are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from installer_stub.elf import SHF_ALLOC, SHF_EXECINSTR, Elf, ReadAt

_PIECE = 4 << 20
_LONGEST = 64  # no mark is longer
_NAMES = 64 << 20  # the largest table of dynamic strings that is searched
_COMMENT = 1 << 20
_TABLES = (b".dynstr", b".dynsym", b".eh_frame", b".rela.dyn", b".gnu.hash", b".gnu.version")  # large, and no strings


class Language(Enum):
    """A language whose string literals are read by a length. A file with several is of the first."""

    GO = "Go"
    RUST = "Rust"
    SWIFT = "Swift"
    HASKELL = "Haskell"
    OCAML = "OCaml"
    PASCAL = "Pascal"
    D = "D"
    ADA = "Ada"
    FORTRAN = "Fortran"
    CPP = "C++"


# How the names of its libraries begin.
_LIBRARIES = {
    Language.GO: (b"libgo.so",),
    Language.RUST: (b"libstd-", b"librustc_driver-"),
    Language.SWIFT: (b"libswiftCore.so",),
    Language.HASKELL: (b"libHS",),
    Language.OCAML: (b"libasmrun", b"libcamlrun"),
    Language.D: (b"libgphobos.so", b"libgdruntime.so", b"libphobos2", b"libdruntime", b"libphobos-", b"libtango"),
    Language.ADA: (b"libgnat-", b"libgnarl-"),
    Language.FORTRAN: (b"libgfortran.so", b"libflang", b"libFortran", b"libifcore"),
    Language.CPP: (b"libstdc++.so", b"libc++.so", b"libc++abi.so"),
}
_SECTIONS = {
    Language.GO: (b".gopclntab", b".go.buildinfo", b".note.go.buildid", b".go_export"),
    Language.RUST: (b".rustc",),
    Language.SWIFT: (b"swift5_",),
    Language.PASCAL: (b".fpc",),
    Language.D: (b"minfo",),
}
# Names of dynamic symbols.
_SYMBOLS = {
    Language.RUST: (b"rust_eh_personality", b"__rust_alloc", b"rust_begin_unwind"),
    Language.SWIFT: (b"swift_retain",),
    Language.OCAML: (b"caml_startup",),
    Language.D: (b"_d_run_main", b"_D6object"),
    Language.ADA: (b"__gnat_rcheck", b"system__secondary_stack"),
    Language.FORTRAN: (b"_gfortran_", b"_FortranA"),
    Language.CPP: (b"\0_Z", b"__gxx_personality_v0"),  # any mangled name; those of Rust begin so, too
}
# In .comment, where compilers leave their names. `strip -s` keeps it.
_COMPILERS = {
    Language.RUST: (b"rustc version ",),
    Language.SWIFT: (b"Swift version ",),
    Language.HASKELL: (b"GHC ",),
    Language.D: (b"ldc version ", b"LDC ", b"DMD "),
}
# Strings of the languages' own run-time libraries, for programs that are linked with these statically.
_RUN_TIMES = {
    Language.GO: (b"\xff Go buildinf:", b"runtime: bad pointer in frame"),
    Language.RUST: (b"library/core/src/", b"library/std/src/", b"library/alloc/src/", b"RUST_BACKTRACE"),
    Language.HASKELL: (b"\0GHCRTS\0",),
    Language.OCAML: (b"\0OCAMLRUNPARAM\0",),
    Language.PASCAL: (b"FPC 2.", b"FPC 3."),
    Language.D: (b"core.exception.RangeError", b"core.exception.ArrayIndexError"),
    Language.ADA: (b"GNAT Version: ",),
    Language.FORTRAN: (b"Fortran runtime error: ", b"\0FORT_CONVERT"),
    Language.CPP: (b"N10__cxxabiv1", b"St9exception", b"basic_string::", b"NSt3__1", b"NSt7__cxx11", b"NSt6__ndk1"),
}


def counts_strings(read_at: ReadAt, size: int, elf: Elf) -> Language | None:
    """Return the language of a file of `size` bytes if its literals are read by their length, or None.

    Of several the first in the order of Language: it is that of the strings that are hardest to tell apart.
    None is no proof: it is what C is, C++ without its library, and a language that leaves no mark. The names of
    libraries and sections are asked first, then dynamic symbols; the file's data are searched for what these
    leave open, but for code and what only debuggers read.
    """
    marked = {language for language, marks in _LIBRARIES.items() if any(_is_one_of(n.text, marks) for n in elf.needed)}
    marked |= {language for language, marks in _SECTIONS.items() if any(s.name.startswith(marks) for s in elf.sections)}
    if elf.dynstr is not None:
        start, length = elf.dynstr
        names = read_at(start, min(length, _NAMES))
        marked |= _marked(names, _SYMBOLS)
    for section in elf.sections:
        if section.name == b".comment":
            marked |= _marked(read_at(section.offset, min(section.end - section.offset, _COMMENT)), _COMPILERS)
    for piece in _data(read_at, size, elf):
        open_to = {language: marks for language, marks in _RUN_TIMES.items() if language not in marked}
        marked |= _marked(piece, open_to)
    return next((language for language in Language if language in marked), None)


def _is_one_of(library: bytes, names: tuple[bytes, ...]) -> bool:
    return library.rpartition(b"/")[2].startswith(names)


def _marked(data: bytes, marks: Mapping[Language, tuple[bytes, ...]]) -> set[Language]:
    return {language for language, parts in marks.items() if any(part in data for part in parts)}


def _data(read_at: ReadAt, size: int, elf: Elf) -> Iterator[bytes]:
    """Yield what the file loads and does not run, in pieces that overlap."""
    parts = [
        (section.offset, section.end)
        for section in elf.sections
        if section.flags & SHF_ALLOC and not section.flags & SHF_EXECINSTR and section.name not in _TABLES
    ]
    at = 0
    for start, end in sorted(parts or [(0, size)]):
        at = max(at, start)  # whatever the headers say, no byte is read twice
        while at < end:
            yield read_at(at, min(_PIECE + _LONGEST, end - at))
            at = min(at + _PIECE, end)
