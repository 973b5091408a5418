"""A script runs with its own interpreter wherever it goes, or is refused: seen by running it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from installer_stub.shebang import (
    LIMIT,
    Shebang,
    Unwritable,
    beside,
    is_python,
    length,
    longest,
    parse,
    parse_through_sh,
    quoted,
    written,
)
from tests.conftest import need

LATIN = b"# -*- coding: latin-1 -*-\n"
DEEP = b"/" + b"d" * 200


@pytest.mark.parametrize(
    ("head", "expected", "taken", "why"),
    [
        (b"#!/e/bin/python\nx = 1\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 16, "a line"),
        (b"#! /e/bin/python\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 17, "a space in front"),
        (b"#!\t/e/bin/python \t\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 19, "white space around"),
        (b"#!/e/bin/perl  -w -T \n", Shebang(b"/e/bin/perl", b"-w -T", b"\n", b""), 22, "options are one word"),
        (b"#!/e/bin/sh\r\n", Shebang(b"/e/bin/sh", b"", b"\r\n", b""), 13, "CR LF"),
        (b"#!/e/bin/sh", Shebang(b"/e/bin/sh", b"", b"", b""), 11, "no newline"),
        (b"#!/e/bin/python\n" + LATIN, Shebang(b"/e/bin/python", b"", b"\n", LATIN), 42, "a coding line"),
        (
            b"#!/e/bin/python\n#coding=cp1252",
            Shebang(b"/e/bin/python", b"", b"\n", b"#coding=cp1252"),
            30,
            "at the end",
        ),
        (b"#!/e/bin/python\n# vim: set fileencoding=utf-8\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 16, "UTF-8"),
        (b"#!/e/bin/python\n# coding: UTF8\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 16, "UTF-8 in capitals"),
        (b"#!/e/bin/python\nx = 1 # coding: latin-1\n", Shebang(b"/e/bin/python", b"", b"\n", b""), 16, "code first"),
        (b"#!/e/bin/python\n\n" + LATIN, Shebang(b"/e/bin/python", b"", b"\n", b""), 16, "a third line does not count"),
    ],
)
def test_parse(head: bytes, expected: Shebang, taken: int, why: str) -> None:
    parsed = parse(head)
    assert parsed == expected, why
    assert length(expected, head) == taken, why


@pytest.mark.parametrize(
    "head", [b"", b"#", b"# !/bin/sh\n", b" #!/bin/sh\n", b"#!\n", b"#! \t\n/bin/sh\n", b"\x7fELF"]
)
def test_no_shebang(head: bytes) -> None:
    assert parse(head) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"python", True),
        (b"python3", True),
        (b"python3.13t", True),
        (b"pypy3.10", True),
        (b"python3-config", False),
        (b"ipython", False),
        (b"pythonw", False),
        (b"perl", False),
    ],
)
def test_is_python(name: bytes, expected: bool) -> None:
    assert is_python(name) is expected


@pytest.mark.parametrize(
    ("archived", "old", "new", "expected", "why"),
    [
        (b"#!/e/bin/python3\n", b"/e", b"/opt/new", b"#!/opt/new/bin/python3\n", "a longer prefix"),
        (b"#!/opt/old/bin/sh -e\n", b"/opt/old", b"/e", b"#!/e/bin/sh -e\n", "a shorter prefix"),
        (b"#!/e/bin/Rscript --vanilla\n", b"/e", b"/n", b"#!/n/bin/Rscript --vanilla\n", "any interpreter"),
        (b"#! /e/bin/sh \n", b"/e", b"/n", b"#!/n/bin/sh\n", "white space is not kept"),
        (b"#!/e/bin/sh", b"/e", b"/n", b"#!/n/bin/sh", "no newline stays none"),
        (b"#!/e/bin/perl -w\r\n", b"/e", b"/n", b"#!/n/bin/perl -w\r\n", "CR LF stays"),
        (b"#!/e/bin/python\n" + LATIN, b"/e", b"/n", b"#!/n/bin/python\n" + LATIN, "the coding line stays the second"),
        (b"#!/e/bin/perl -I/e/lib\n", b"/e", b"/n", b"#!/n/bin/perl -I/n/lib\n", "an option that names the prefix"),
        (b"#!/e/bin/x --root=/e\n", b"/e", b"/n", b"#!/n/bin/x --root=/n\n", "an option that is the prefix"),
        (b"#!/e/bin/x -I/usr/e/lib\n", b"/e", b"/n", b"#!/n/bin/x -I/usr/e/lib\n", "another directory in an option"),
        (b"#!/e/bin/x -I/e2/lib\n", b"/e", b"/n", b"#!/n/bin/x -I/e2/lib\n", "a longer name in an option"),
        (b"#!/e/bin/x -I/e/lib\n", b"/e", b"/e/e", b"#!/e/e/bin/x -I/e/e/lib\n", "a prefix that begins with the old"),
        (b"#!/e/bin/python\n" + LATIN, b"/e", b"/\xff", b"#!/\xff/bin/python\n" + LATIN, "Latin-1 is any byte"),
        (b"#!/e/bin/sh\n", b"/e", b"/\xff", b"#!/\xff/bin/sh\n", "sh does not read the line"),
        (b"#!/e/bin/sh\n", b"/e", b"/a$b'c", b"#!/a$b'c/bin/sh\n", "the kernel quotes nothing"),
    ],
)
def test_written_as_one_line(archived: bytes, old: bytes, new: bytes, expected: bytes, why: str) -> None:
    assert written(archived, old, new) == expected, why


@pytest.mark.parametrize(
    ("size", "fits"),
    [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)],
)
def test_the_limit_counts_the_newline(size: int, fits: bool) -> None:
    """127 bytes with the newline; one more is for sh to start."""
    new = b"/".ljust(size - len(b"#!/bin/python\n"), b"n")
    line = written(b"#!/e/bin/python\n", b"/e", new)
    assert line.startswith(b"#!/n" if fits else b'#!/bin/sh\n\f# 2>/dev/null || :; exec "/n')
    assert not fits or len(line) == size


def test_the_limit_counts_the_options_and_a_carriage_return() -> None:
    new = b"/".ljust(LIMIT - len(b"#!/bin/awk -f\n"), b"n")
    assert len(written(b"#!/e/bin/awk -f\n", b"/e", new)) == LIMIT
    with pytest.raises(Unwritable):
        written(b"#!/e/bin/awk -f\r\n", b"/e", new)


GUARD = (
    b'if [ "${shebang_of-}" = "$0" ]; then unset shebang_of; shebang_of=$0; elif [ -f "$0" ] && '
    b"(case ${ZSH_EVAL_CONTEXT-} in *file*) exit 1;; esac; read -r line; read -r line; "
    b'case $line in \'if [ "${shebang_of-}"\'*) ;; *) exit 1;; esac) <"$0"; '
    b"then shebang_of=$0; export shebang_of; "
)
COMMENT = b"\f# 2>/dev/null || :; "
BLANK = b"/a b"


@pytest.mark.parametrize(
    ("archived", "second", "why"),
    [
        (b"#!/e/bin/python -I\n", COMMENT + b'exec "/a b/bin/python" "-I" "$0" "$@"\n', "a comment to Python"),
        (b"#!/e/bin/python\r\n", COMMENT + b'exec "/a b/bin/python" "$0" "$@"\n', "the CR goes with its line"),
        (b"#!/e/bin/python", COMMENT + b'exec "/a b/bin/python" "$0" "$@"\n', "sh wants its newline"),
        (b"#! \t/e/bin/pypy3  \n", COMMENT + b'exec "/a b/bin/pypy3" "$0" "$@"\n', "blanks around"),
        (
            b"#!/e/bin/python\n" + LATIN,
            LATIN + COMMENT + b'exec "/a b/bin/python" "$0" "$@"\n',
            "a coding line stays the second",
        ),
        (
            b"#!/e/bin/python2.7\n#coding=utf-8",
            b"#coding=utf-8\n" + COMMENT + b'exec "/a b/bin/python2.7" "$0" "$@"\n',
            "Python 2 must be told of UTF-8",
        ),
        (b"#!/e/bin/perl -w\n", b'exec "/a b/bin/perl" -x "-w" "$0" "$@"\n#!perl\n', "perl skips"),
        (
            b"#!/e/bin/perl -I/e/lib -w\n",
            b'exec "/a b/bin/perl" -x "-I/a b/lib -w" "$0" "$@"\n#!perl\n',
            "what the kernel hands over is one word",
        ),
        (
            b"#!/usr/bin/perl -I/e/lib\n",
            b'exec "/usr/bin/perl" -x "-I/a b/lib" "$0" "$@"\n#!perl\n',
            "perl would split its line at the space",
        ),
        (
            b"#!/e/bin/ruby\n" + LATIN,
            b'exec "/a b/bin/ruby" -x "$0" "$@"\n#!ruby\n' + LATIN,
            "a coding line behind the line that ruby looks for",
        ),
        (b"#!/e/bin/bash -e\n", GUARD + b'exec "/a b/bin/bash" "-e" "$0" "$@"; fi\n', "a shell that starts twice"),
        (b"#!/e/bin/sh -\n", GUARD + b'exec "/a b/bin/sh" "-" "$0" "$@"; fi\n', "an option that ends options"),
        (
            b"#!/e/bin/Rscript --vanilla\n",
            b'shebang=\'\\\';exec "/a b/bin/Rscript" "--vanilla" "$0" "$@" #\';rm(shebang)\n',
            "a string to R",
        ),
        (b"#!/e/bin/tclsh8.6\n", b'# \\\nexec "/a b/bin/tclsh8.6" "$0" "$@"\n', "a comment that goes on to Tcl"),
        (b"#!/e/bin/expect -f\n", b'# \\\nexec "/a b/bin/expect" "-f" "$0" "$@"\n', "expect is a Tcl"),
        (b"#!/e/bin/lua5.4\n", b'shebang=[[;exec "/a b/bin/lua5.4" "$0" "$@" #]]shebang=nil\n', "a string to Lua"),
        (b"#!/e/bin/node\n", b'":" /*;exec "/a b/bin/node" "$0" "$@" #*/;\n', "a directive and a comment"),
        (
            b"#!/usr/bin/env /e/bin/python\n",
            None,
            "one word, which the kernel hands over whole",
        ),
        (b"#!/bin/sh /e/bin/x\n", None, "one word, too"),
        (b"#!/usr/bin/env -S /e/bin/awk -f\n", b'-S "/a b/bin/awk" -f', "env knows quotes"),
        (b"#!/usr/bin/env -S A=/e/x python -u\n", b'-S "A=/a b/x" python -u', "an assignment"),
        (b"#!/usr/bin/env -iS '/e/bin/python' -u\n", b'-S -i "/a b/bin/python" -u', "quotes were there"),
        (b"#!/usr/bin/env -S/e/bin/python '' ';'\n", b'-S "/a b/bin/python" "" ;', "an empty word"),
    ],
)
def test_written_for_a_path_with_a_space(archived: bytes, second: bytes | None, why: str) -> None:
    head = written(archived, b"/e", BLANK)
    if b"exec" in (second or b""):
        assert head == b"#!/bin/sh\n" + (second or b""), why
    elif second is not None:
        assert head == b"#!/usr/bin/env " + second + b"\n", why
    else:
        assert head == archived.replace(b"/e/", b"/a b/"), why
    assert written(archived, b"/e", BLANK) == head, "equal input, equal output"


@pytest.mark.parametrize(
    ("archived", "second", "why"),
    [
        (b"#!/e/bin/python\n", COMMENT + b'exec "%s/bin/python" "$0" "$@"\n', "Python"),
        (
            b"#!/usr/bin/env -S A=1 /e/bin/python -I -u\n",
            COMMENT + b'exec "/usr/bin/env" "A=1" "%s/bin/python" "-I" "-u" "$0" "$@"\n',
            "env stays, and each option a word",
        ),
        (
            b"#!/usr/bin/env -iS /e/bin/sh -e\n",
            GUARD + b'exec "/usr/bin/env" "-i" shebang_of="$0" "%s/bin/sh" "-e" "$0" "$@"; fi\n',
            "env clears the mark, and sets it again",
        ),
        (b"#!/usr/bin/env /e/bin/node\n", b'":" /*;exec "%s/bin/node" "$0" "$@" #*/;\n', "env without options goes"),
    ],
)
def test_written_for_a_long_path(archived: bytes, second: bytes, why: str) -> None:
    assert written(archived, b"/e", DEEP) == b"#!/bin/sh\n" + second.replace(b"%s", DEEP), why


@pytest.mark.parametrize(
    ("archived", "new", "why"),
    [
        (b"#!/e/bin/awk -f\n", DEEP, "no way through sh for b'awk'"),
        (b"#!/e/bin/sed -nf\n", BLANK, "no way through sh"),
        (b"#!/e/bin/make -f\n", BLANK, "no way through sh"),
        (b"#!/e/bin/fish\n", BLANK, "no way through sh"),
        (b"#!/e/bin/R --vanilla -f\n", BLANK, "no way through sh"),
        (b"#!/e/bin/python3-config\n", BLANK, "no way through sh"),
        (b"#!/usr/bin/env -S /e/bin/awk -f\n", DEEP, "no way through sh for b'awk'"),
        (b"#!/bin/sh /e/bin/x\n", DEEP, "what reads the script is not known"),
        (b"#!/e/bin/python /e/bin/x\n", BLANK, "what reads the script is not known"),
        (b"#!/usr/bin/env -S /e/bin/python -m x\n", DEEP, "what reads the script is not known"),
        (b"#!/usr/bin/env -S -u A /e/bin/python\n", DEEP, "no way to start"),
        (b"#!/usr/bin/env -S -u A /e/bin/python\n", BLANK, "no way to start"),
        (b"#!/usr/bin/env -S /e/bin/python \\c\n", BLANK, "no way to start"),
        (b"#!/usr/bin/env -S $HOME/x /e/bin/python\n", BLANK, "no way to start"),
        (b"#!/usr/bin/env -S A=1 B=/e\n", DEEP, "no way to start"),
        (b"#!/usr/bin/env -S /e/bin/python\n", b"/a=b", "assignment"),
        (b"#!/usr/bin/env -S /e/bin/python\n", b"/a$b", "env would not take"),
        (b"#!/usr/bin/env -S /e/bin/python '$'\n", BLANK, "dollar"),
        (b"#!/e/bin/python\n", b"/a b$(x)", "dollar"),
        (b"#!/e/bin/python\n", b"/a b\\c", "backslash"),
        (b"#!/e/bin/sh\n", b"/a b'''c", "quote"),
        (b'#!/e/bin/perl -e"x"\n', DEEP, "quote"),
        (b"#!/e/bin/lua\n", b"/a b]]", "two brackets"),
        (b"#!/e/bin/node\n", b"/a b*", "end a comment"),
        (b"#!/e/bin/Rscript\n", b"/a b\xff", "UTF-8"),
        (b"#!/e/bin/tclsh\n", b"/a b\xff", "UTF-8"),
        (b"#!/e/bin/python\n", b"/\xff", "UTF-8"),
        (b"#!/e/bin/python\n", b"/a b\xff", "UTF-8"),
        (b"#!/e/bin/python\n# coding: shift_jis\n", b"/\xe9", "SHIFT-JIS"),
        (b"#!/e/bin/python\n# coding: future-fstrings\n", b"/\xe9", "not ASCII"),
        (b"#!/e/bin/python\n", b"/coding=x", "name of an encoding"),
        (b"#!/e/bin/python\n" + LATIN, b"/coding=x", "name of an encoding"),
        (b"#!/e/bin/python\n", b"/a b/coding=x", "name of an encoding"),
        (b"#!/e2/bin/python\n", b"/n", "does not name"),
        (b"#!/usr/bin/env python\n", b"/n", "does not name"),
        (b"x = 1\n", b"/n", "not a shebang"),
    ],
)
def test_refused(archived: bytes, new: bytes, why: str) -> None:
    with pytest.raises(Unwritable, match=why):
        written(archived, b"/e", new)


@pytest.mark.parametrize(
    ("archived", "new", "expected"),
    [
        (b"#!/e/bin/python\n" + LATIN, b"/a b/coding=x", b"/a b/coding=x/bin/python"),
        (b"#!/e/bin/python\n# coding: shift_jis\n", b"/\x93\xfa", b"#!/\x93\xfa/bin/python\n"),
        (b"#!/e/bin/python\n# coding: utf-8-unix\n", "/é".encode(), "#!/é/bin/python\n".encode()),
        (b"#!/e/bin/python\n# coding: future-fstrings\n", b"/n", b"#!/n/bin/python\n# coding: future-fstrings\n"),
        (b"#!/e/bin/node\n", b"/\xff*", b"#!/\xff*/bin/node\n"),
        (b"#!/e/bin/node\n", b"/a b\xff", b'"/a b\xff/bin/node"'),
    ],
)
def test_taken_beside_what_is_refused(archived: bytes, new: bytes, expected: bytes) -> None:
    assert expected in written(archived, b"/e", new)


@pytest.mark.parametrize(
    ("head", "prefix", "expected", "why"),
    [
        (b"#!/e/bin/python\n", b"/e", True, "the interpreter"),
        (b"#!/usr/bin/env -S /e/bin/python -u\n", b"/e", True, "behind env"),
        (b"#!/usr/bin/env -S/e/bin/python -u\n", b"/e", True, "behind an option"),
        (b"#!/usr/bin/env -S A=/e/x python\n", b"/e", True, "an assignment"),
        (b"#!/bin/sh /e/bin/x\n", b"/e", True, "an argument"),
        (b"#!/usr/bin/perl -I/e/lib\n", b"/e", True, "a directory in an option"),
        (b"#!/usr/bin/env python\n", b"/e", False, "whatever is first in PATH"),
        (b"#!/usr/bin/env python\n", b"/usr/bin", True, "env lies there"),
        (b"#!/e2/bin/python -I/x/e/lib\n", b"/e", False, "other directories"),
        (b"#!/bin/sh\n/e/bin/x\n", b"/e", False, "another line"),
    ],
)
def test_names(head: bytes, prefix: bytes, expected: bool, why: str) -> None:
    parsed = parse(head)
    assert parsed is not None
    assert parsed.names(prefix) is expected, why


@pytest.mark.parametrize("word", [b"a'b", b'a"b', b"a$b", b"a`b", b"a\\b"])
def test_what_needs_an_escape_is_not_quoted(word: bytes) -> None:
    with pytest.raises(Unwritable):
        quoted(word)


@pytest.mark.parametrize(
    ("archived", "expected"),
    [
        (b"#!/e/bin/python -I\n", None),
        (b"#!/e/bin/perl -w\n", None),
        (b"#!/e/bin/bash -e\n", None),
        (b"#!/e/bin/python -I/e/x\n" + LATIN, None),
        (b"#!/usr/bin/env -S /e/bin/Rscript\n", None),
        (b"#!/e/bin/awk -f\n", LIMIT - len(b"#!/bin/awk -f\n")),
        (b"#!/e/bin/awk -f", LIMIT - len(b"#!/bin/awk -f\n")),
        (b"#!/e/bin/awk -f\r\n", LIMIT - len(b"#!/bin/awk -f\r\n")),
        (b"#!/e/bin/x -I/e/x\n", (LIMIT - len(b"#!/bin/x -I/x\n")) // 2),
        (b"#!/bin/sh /e/bin/x\n", LIMIT - len(b"#!/bin/sh /bin/x\n")),
        (b"#!/usr/bin/env -S /e/bin/awk -f\n", LIMIT - len(b"#!/usr/bin/env -S /bin/awk -f\n")),
        (b"#!/e/bin/" + b"x" * 118 + b"\n", 0),
    ],
)
def test_longest(archived: bytes, expected: int | None) -> None:
    assert longest(archived, b"/e") == expected
    if expected is not None and expected > 1:
        assert written(archived, b"/e", b"/".ljust(expected, b"n"))
        with pytest.raises(Unwritable):
            written(archived, b"/e", b"/".ljust(expected + 1, b"n"))


@pytest.mark.parametrize(
    ("head", "expected", "why"),
    [
        (
            b"#!/bin/sh\n'''exec' \"/a b/bin/python3\" \"$0\" \"$@\" #'''\nimport x\n",
            (b"/a b/bin/python3", b""),
            "as rattler writes it",
        ),
        (
            b"#!/bin/sh\n'''exec' /e/bin/python3 -sE \"$0\" \"$@\"\n' '''\nimport x\n",
            (b"/e/bin/python3", b"-sE"),
            "as pip and conda write it",
        ),
        (b"#!/bin/sh\n'''exec' \"$(x)\"/python \"$0\" \"$@\"\n' '''\n", None, "a head that finds the interpreter"),
        (b'#!/bin/sh\nexec /e/bin/python "$0"\n', None, "a shell script"),
        (b"#!/bin/sh", None, "a line alone"),
    ],
)
def test_parse_through_sh(head: bytes, expected: tuple[bytes, bytes] | None, why: str) -> None:
    found = parse_through_sh(head)
    assert (found and (found[0].interpreter, found[0].options)) == expected, why
    assert found is None or head[found[1] :] == b"import x\n", why


# From here on, scripts run.

SHOW_PYTHON = b"import sys\nprint([sys.executable, sys.argv[1:], sys.flags.no_site])\n"
SHOW_PERL = b'print "[$^X] [@ARGV] [$^W ${^TAINT}]\\n"; print <DATA>;\n__END__\ndata\n'
DIRECTORIES = [b"env", b"my env", "é ü".encode(), b"d" * 140, b"(a) &;*b #c"]


def interpreter(directory: Path, name: str, real: str) -> Path:
    """An interpreter that tells where it was started from: a link to the real one."""
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    path = directory / "bin" / name
    path.symlink_to(real)
    return path


def script(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def output(*command: str | bytes | Path, cwd: Path | None = None, path: str = "/usr/bin:/bin") -> str:
    env = {"PATH": path, "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, timeout=60).stdout.decode()


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_python_runs(tmp_path: Path, directory: bytes) -> None:
    prefix = tmp_path / directory.decode()
    python = interpreter(prefix, "python3", sys.executable)
    head = written(b"#!/e/bin/python3 -S\n", b"/e", bytes(prefix))
    tool = script(prefix / "bin" / "tool", head + SHOW_PYTHON)
    assert output(tool, "a b", "", "$x") == f"{[str(python), ['a b', '', '$x'], 1]}\n"


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_perl_runs(tmp_path: Path, directory: bytes) -> None:
    prefix = tmp_path / directory.decode()
    # $^X is read from /proc/self/exe: a copy tells where it is, a link does not.
    (prefix / "bin").mkdir(parents=True)
    perl = script(prefix / "bin" / "perl", need("perl").resolve().read_bytes())
    head = written(b"#!/e/bin/perl -w -T\n", b"/e", bytes(prefix))
    tool = script(prefix / "bin" / "tool", head + SHOW_PERL)
    assert output(tool, "a b", "c") == f"[{perl}] [a b c] [1 1]\ndata\n"


def test_perl_runs_with_an_option_that_ends_options(tmp_path: Path) -> None:
    prefix = tmp_path / "a b"
    interpreter(prefix, "perl", str(need("perl")))
    head = written(b"#!/e/bin/perl -- # -*- perl -*-\n", b"/e", bytes(prefix))
    assert output(script(prefix / "bin" / "tool", head + b'print "ran @ARGV\\n";\n'), "x") == "ran x\n"


def test_an_option_is_no_command(tmp_path: Path) -> None:
    """The kernel hands ``;`` over; so must sh."""
    prefix = tmp_path / "a b"
    interpreter(prefix, "python3", sys.executable)
    head = written(b"#!/e/bin/python3 -Wignore;echo;*\n", b"/e", bytes(prefix))
    tool = script(prefix / "bin" / "tool", head + b"import sys\nprint(sys.warnoptions)\n")
    assert output(tool) == "['ignore;echo;*']\n"


def test_a_path_that_python_could_not_read_is_refused_with_reason(tmp_path: Path) -> None:
    """Python refuses a script whose first line is not UTF-8, though that is a comment."""
    tool = script(tmp_path / "tool", b"#!/\xff\n")
    assert subprocess.run([sys.executable, tool], capture_output=True).returncode == 1


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_beside_runs(tmp_path: Path, directory: bytes) -> None:
    """By path, by name, by a relative path, through links, moved, without an environment."""
    prefix = tmp_path / directory.decode()
    parsed = parse(b"#!/anywhere/bin/python3 -S\n")
    assert parsed is not None
    interpreter(prefix, "python3", sys.executable)
    tool = script(prefix / "bin" / "tool", beside(parsed) + SHOW_PYTHON)

    def shown(prefix: Path) -> str:
        return f"{[str(prefix / 'bin' / 'python3'), ['a b', '$x'], 1]}\n"

    arguments = ("a b", "$x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(tool)
    (tmp_path / "elsewhere" / "second").symlink_to("link")
    assert output(tool, *arguments) == shown(prefix)
    assert output(tool, *arguments, cwd=tmp_path / "elsewhere") == shown(prefix)
    assert output("./tool", *arguments, cwd=tool.parent) == shown(prefix)
    assert output(Path("bin", "tool"), *arguments, cwd=prefix) == shown(prefix)
    assert output("sh", "tool", *arguments, cwd=tool.parent) == shown(prefix)
    assert output("tool", *arguments, path=f"{tool.parent}:/usr/bin:/bin") == shown(prefix)
    assert output(tmp_path / "elsewhere" / "link", *arguments) == shown(prefix)
    assert output("elsewhere/second", *arguments, cwd=tmp_path) == shown(prefix)
    assert output("./second", *arguments, cwd=tmp_path / "elsewhere") == shown(prefix)
    (tmp_path / "moved").mkdir()
    moved = prefix.rename(tmp_path / "moved" / "env")
    assert output(moved / "bin" / "tool", *arguments) == shown(moved)


def test_beside_runs_with_busybox(tmp_path: Path) -> None:
    """Neither bash nor coreutils are there in a small container."""
    busybox = need("busybox")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink"):
        (tools / name).symlink_to(busybox)
    parsed = parse(b"#!/anywhere/bin/python3 -S\n")
    assert parsed is not None
    python = interpreter(tmp_path / "my env", "python3", sys.executable)
    tool = script(tmp_path / "my env" / "bin" / "tool", beside(parsed) + SHOW_PYTHON)
    assert output(tools / "sh", tool, "a b", path=str(tools)) == f"{[str(python), ['a b'], 1]}\n"


def test_beside_takes_no_other_language() -> None:
    parsed = parse(b"#!/e/bin/ruby\n")
    assert parsed is not None
    with pytest.raises(Unwritable):
        beside(parsed)


def test_beside_keeps_the_coding_of_a_source() -> None:
    parsed = parse(b"#!/e/bin/python\n" + LATIN)
    assert parsed is not None
    with pytest.raises(Unwritable, match="coding"):
        beside(parsed)
