"""Which words white space in a path would cut in two."""

from __future__ import annotations

import pytest

from installer_stub import shebang
from installer_stub.quoting import is_bare, is_special, splits


@pytest.mark.parametrize(
    ("prefix", "special"),
    [
        (b"/opt/env-1.0_a", False),
        ("/opt/é".encode(), False),
        (b"/opt/my env", True),
        (b"/opt/R&D", True),
        (b"/opt/env(1)", True),
        (b"/opt/env*", True),
        (b"/opt/#1", True),
    ],
)
def test_special(prefix: bytes, special: bool) -> None:
    assert is_special(prefix) is special


@pytest.mark.parametrize(
    ("path", "head", "expected"),
    [
        (b"bin/tool.sh", b"", True),
        (b"lib/pkgconfig/a.pc", b"", True),
        (b"lib/liba.la", b"", True),
        (b"share/Makefile", b"", True),
        (b"share/Makefile.in", b"", True),
        (b"lib/cmake/a/aConfig.cmake", b"", True),
        (b"bin/tool-config", b"#!/bin/sh\n", True),
        (b"bin/tool", b"#!/opt/env/bin/bash -e\n", True),
        (b"bin/tool", b"#!/opt/env/bin/python\n", False),
        (b"lib/python3.11/a.py", b"", False),
        (b"share/notMakefile", b"", False),
        (b"share/a.pcx", b"", False),
    ],
)
def test_files_that_split_words(path: bytes, head: bytes, expected: bool) -> None:
    assert splits(path, shebang.parse(head)) is expected


@pytest.mark.parametrize(
    ("left", "in_shell", "elsewhere", "why"),
    [
        (b"prefix=", True, False, "an assignment"),
        (b'prefix="', False, False, "in double quotes"),
        (b"prefix='", False, False, "in single quotes"),
        (b"echo 'a' ", True, False, "behind a closed quote"),
        (b'echo "a', False, False, "in the middle of a quoted text"),
        (b'echo \\"', True, False, "behind an escaped quote"),
        (b"echo 'a\\' ", True, False, "single quotes know no escapes"),
        (b'x="a\nb=', True, False, "a quote of an earlier line does not count"),
        (b"cc -I", True, True, "an option"),
        (b"'CFLAGS': '-O2 -I", True, True, "an option of a command that is quoted as a whole"),
        (b"-Wl,-rpath,", True, True, "an option for the linker"),
        (b"x = sub-dir", True, False, "a dash in a word is no option"),
    ],
)
def test_bare_words(left: bytes, in_shell: bool, elsewhere: bool, why: str) -> None:
    assert is_bare(left, True) is in_shell, why
    assert is_bare(left, False) is elsewhere, why
