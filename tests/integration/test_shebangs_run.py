"""A script runs the same wherever its interpreter went: what the kernel starts and what sh starts are compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from installer_stub.references import read
from installer_stub.rewrite import Form, regions, undo, write
from installer_stub.shebang import LIMIT, Unwritable, written
from tests.conftest import need
from tests.integration.moving import short_directory

SHELL = rb"""printf '<%s>' "$0" "$#" "$@" "$-" "$?"; echo
env | sed 's/=.*//' | sort | tr '\n' ' '
tr '\0' '\n' </proc/$$/cmdline
read -r line; echo "read $line"
sh -c 'exit 3'; echo "$?"
if [ "$#" = 3 ]; then "$0" alone; echo "$?"; fi
exit 7
"""
SCRIPTS = {
    # name, options: a body that shows arguments, input, variables and how it was started, and exits with 7
    "python3 -S": b'''"""Usage: tool"""
from __future__ import annotations
import os, sys
print(__doc__, __file__, sys.argv, *sorted(os.environ), sys.flags.no_site, sys.executable)
print(sorted(globals()), sys.stdin.readline(), open("/proc/self/cmdline").read().split("\\0"))
sys.exit(7)
''',
    "perl -w": b"""print join("|", $0, @ARGV, $^W, sort keys %ENV), "\\n", scalar(<STDIN>), <DATA>;
exit 7;
__END__
data
""",
    "ruby -w": b"""# frozen_string_literal: true
p $0, __FILE__, ARGV, $VERBOSE, "".frozen?, ENV.keys.sort, STDIN.gets, DATA.read
exit 7
__END__
data
""",
    "Rscript --vanilla": b"""cat(ls(all.names = TRUE), commandArgs(), sort(names(Sys.getenv())), sep = "|")
print(readLines(file("stdin"), 1)); quit(status = 7)
""",
    "tclsh": b"""puts [join [list $argv0 $argv [info script] [info nameofexecutable]] |]
puts [join [list [lsort [array names env]] [gets stdin]] |]
exit 7
""",
    "expect -f": b"puts [join [list $argv0 $argv [lsort [array names env]] [gets stdin]] |]\nexit 7\n",
    "lua5.4 -W": b"""local names = {}
for name in pairs(_G) do names[#names + 1] = name end
table.sort(names)
print(arg[0], ..., table.concat(names, " "), os.getenv("shebang"), io.read("l"))
os.exit(7)
""",
    "node --no-warnings": b"""'use strict';
(function () {
  console.log(JSON.stringify([process.argv, process.execArgv, this === undefined]));
  console.log(['', ...Object.keys(process.env).sort(), ''].join('|'));
})();
console.log(require('fs').readFileSync(0).toString());
process.exit(7);
""",
    "sh": SHELL,
    "bash -u": SHELL,
    "dash -": SHELL,
    "ksh93": SHELL,
    "mksh --": SHELL,
    "zsh -f": SHELL,
    "yash": SHELL,
    "posh": SHELL,
}
AWKWARD = ["my env", "d" * 140, "(a) &;*b #c [x] é", "~ %s!"]
FIRST = ["dash", "bash --posix", "busybox sh", "ksh93", "mksh", "zsh --emulate sh", "yash", "posh"]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PWD": "/", "OLDPWD": "/", "SHLVL": "1", "_": "x"}

# Variables that one shell or the other exports as soon as it runs, whatever it runs.
_SHELLS_OWN = re.compile(rb"""['"]?\b(A__z|HOME|LOGNAME|_|_AST_FEATURES)\b['"]?,?[| ]?""")


def install(prefix: Path, interpreter: str) -> None:
    """Put a link to the real interpreter into ``prefix``."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / interpreter).symlink_to(need(interpreter))


def tool(prefix: Path, archived: bytes, body: bytes) -> Path:
    """Write a script as archived for /e into ``prefix``, where it now is."""
    path = prefix / "bin" / "tool"
    path.write_bytes(written(archived, b"/e", os.fsencode(prefix)) + body)
    path.chmod(0o755)
    return path


def run(*command: str | Path, prefix: Path, environment: dict[str, str] = ENVIRONMENT) -> str:
    """Run a script; return what it said, with P for its prefix."""
    done = subprocess.run(command, input=b"first\nsecond\n", capture_output=True, cwd="/", env=environment, timeout=60)
    assert done.stderr == b""
    assert done.returncode == 7
    # What skips to a line that names it is told so.
    said = done.stdout.replace(b"~+~", b" ")  # as R's own start script hands a space over
    said = said.replace(os.fsencode(prefix), b"P").replace(b"'-x', ", b"").replace(b"[1] -x\n", b"")
    return _SHELLS_OWN.sub(b"", said).decode()


@pytest.fixture(params=SCRIPTS)
def started_by_kernel(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, bytes, bytes, str]:
    """An interpreter, its shebang as archived, its script, and what that says where the kernel starts it."""
    interpreter = request.param.split()[0]
    archived = f"#!/e/bin/{request.param}\n".encode()
    body = SCRIPTS[request.param]
    prefix = tmp_path / "e"
    install(prefix, interpreter)
    path = tool(prefix, archived, body)
    assert path.read_bytes().startswith(b"#!" + os.fsencode(prefix)), "a longer directory than the kernel takes"
    said = run(path, "a b", "$x", "", prefix=prefix)
    assert "P/bin" in said, "it tells where it is"
    return interpreter, archived, body, said


def test_equal_to_what_the_kernel_starts(started_by_kernel: tuple[str, bytes, bytes, str], tmp_path: Path) -> None:
    """Arguments, input, exit code, variables, the first string, whatever stands in for the line."""
    interpreter, archived, body, said = started_by_kernel
    for directory in AWKWARD:
        prefix = tmp_path / directory
        install(prefix, interpreter)
        path = tool(prefix, archived, body)
        assert path.read_bytes().startswith(b"#!/bin/sh\n")
        assert run(path, "a b", "$x", "", prefix=prefix) == said, directory


def test_equal_whatever_sh_is(started_by_kernel: tuple[str, bytes, bytes, str], tmp_path: Path) -> None:
    interpreter, archived, body, said = started_by_kernel
    prefix = tmp_path / "my env"
    install(prefix, interpreter)
    path = tool(prefix, archived, body)
    for first in FIRST:
        if shutil.which(first.split()[0]):
            assert run(*first.split(), path, "a b", "$x", "", prefix=prefix) == said, first


@pytest.mark.parametrize("interpreter", ["python3", "perl", "ruby", "tclsh", "lua5.4", "node"])
def test_a_body_with_carriage_returns(interpreter: str, tmp_path: Path) -> None:
    """The kernel took the CR for a part of the name; sh starts what was meant."""
    body = b"puts(7)" if interpreter == "ruby" else b"puts 7" if interpreter == "tclsh" else b"print(7)"
    body = b"console.log(7)" if interpreter == "node" else body
    prefix = tmp_path / "my env"
    install(prefix, interpreter)
    path = tool(prefix, f"#!/e/bin/{interpreter}\r\n".encode(), body + b";\r\n")
    assert subprocess.run([path], capture_output=True, check=True).stdout.strip() == b"7"


def test_an_empty_script(tmp_path: Path) -> None:
    """One line without a newline, and nothing behind it."""
    for interpreter in ("python3", "bash", "perl"):
        prefix = tmp_path / "a b" / interpreter
        install(prefix, interpreter)
        path = tool(prefix, f"#!/e/bin/{interpreter}".encode(), b"")
        assert subprocess.run([path, "x"], capture_output=True, check=True, timeout=60).stdout == b""


def test_a_source_that_is_not_utf_8(tmp_path: Path) -> None:
    prefix = tmp_path / "my env é"
    install(prefix, "python3")
    archived = b"#!/e/bin/python3\n# -*- coding: latin-1 -*-\n"
    path = tool(prefix, archived, b'"""\xe9"""\nprint(ascii(__doc__))\n')
    assert subprocess.run([path], capture_output=True, check=True).stdout == b"'\\xe9'\n"


def test_what_others_write_takes_the_place_of_the_first_string(tmp_path: Path) -> None:
    """So the table above can fail: a parser that reads its own help would read the head."""
    install(tmp_path / "my env", "python3")
    path = tmp_path / "tool"
    path.write_bytes(
        b"#!/bin/sh\n'''exec' \"%s/my env/bin/python3\" \"$0\" \"$@\"\n' '''\n" % os.fsencode(tmp_path)
        + b'"""Usage"""\nprint(__doc__)\n'
    )
    path.chmod(0o755)
    assert b"exec" in subprocess.run([path], capture_output=True, check=True).stdout


# Modules of JavaScript, and functions that begin a line


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("tool.mjs", b"import process from 'process'\nexport default 1\nconsole.log('ran', process.argv[2])\n"),
        ("tool.cjs", b"(function () { console.log('ran', process.argv[2]) })()\n"),
        ("tool.cjs", b"'use strict'\nconsole.log((function () { return this ? '' : 'ran' })(), process.argv[2])\n"),
        ("tool.cjs", b"`x`\nconsole.log('ran', process.argv[2])\n"),
    ],
)
def test_javascript(name: str, body: bytes, tmp_path: Path) -> None:
    prefix = tmp_path / "my env"
    install(prefix, "node")
    path = tool(prefix, b"#!/e/bin/node\n", body).rename(prefix / "bin" / name)
    assert subprocess.run([path, "x"], capture_output=True, check=True).stdout == b"ran x\n"


# Shells: once, not for ever, and never where a script is sourced


@pytest.fixture
def shells(tmp_path: Path) -> Path:
    """A prefix at a path with a space, whose bash is started through sh."""
    prefix = tmp_path / "my env"
    install(prefix, "bash")
    path = tool(prefix, b"#!/e/bin/bash\n", b'shown="sourced $# $BASH_VERSION"\n').rename(prefix / "bin" / "library")
    path.chmod(0o644)
    return prefix


@pytest.mark.parametrize("shell", ["bash", "dash", "busybox sh", "ksh93", "mksh", "zsh", "yash", "posh"])
@pytest.mark.parametrize("way", ["input", "command", "script"])
def test_a_sourced_script_replaces_no_shell(shell: str, way: str, shells: Path, tmp_path: Path) -> None:
    """By a shell that reads commands, as one that a person uses does; by -c; by a script."""
    need(shell.split()[0])
    commands = f'. "{shells}/bin/library"\necho "$$ ${{shown%% *}} ${{shebang_of-none}}"\n'
    (tmp_path / "caller").write_text(commands)
    ways = {"input": [], "command": ["-c", commands], "script": [str(tmp_path / "caller")]}
    with subprocess.Popen([*shell.split(), *ways[way]], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(commands.encode() if way == "input" else b"", timeout=60)
    assert said.decode() == f"{process.pid} sourced none\n"


def test_a_script_sources_another_of_its_kind(shells: Path) -> None:
    body = f'. "{shells}/bin/library"; echo "${{shown%% *}} $BASH"; env | grep shebang\n'
    path = tool(shells, b"#!/e/bin/bash\n", body.encode())
    done = subprocess.run([path], capture_output=True, env=ENVIRONMENT, timeout=60)
    assert done.stdout.decode() == f"sourced {shells}/bin/bash\n"


def test_an_interpreter_that_is_a_script_is_started_once(tmp_path: Path) -> None:
    """It starts a shell as a child: neither process would ever be the one that was told."""
    prefix = tmp_path / "my env"
    (prefix / "bin").mkdir(parents=True)
    wrapper = prefix / "bin" / "bash"
    wrapper.write_text('#!/bin/sh\necho wrapped\n/bin/bash "$@"\nexit "$?"\n')
    wrapper.chmod(0o755)
    path = tool(prefix, b"#!/e/bin/bash\n", b"echo ran; exit 7\n")
    done = subprocess.run([path], capture_output=True, timeout=60)
    assert (done.stdout, done.returncode) == (b"wrapped\nran\n", 7)


def test_a_start_file_may_run_another_such_script(shells: Path, tmp_path: Path) -> None:
    """What marks the second start is the script's own name: another script is not marked by it."""
    other = tool(shells, b"#!/e/bin/bash\n", b'echo "other $BASH"\n').rename(shells / "bin" / "other")
    (tmp_path / "start").write_text(f'unset BASH_ENV; "{other}"\n')
    path = tool(shells, b"#!/e/bin/bash\n", b"echo tool $BASH_VERSION\n")
    done = subprocess.run([path], env={**ENVIRONMENT, "BASH_ENV": str(tmp_path / "start")}, capture_output=True)
    assert re.fullmatch(rf"other {re.escape(str(shells))}/bin/bash\ntool [^ ]+\n", done.stdout.decode())


def test_options_hold_in_the_second_shell_and_not_in_the_first(shells: Path) -> None:
    path = tool(shells, b"#!/e/bin/bash -eu\n", b"echo begun; false; echo not reached\n")
    done = subprocess.run([path], capture_output=True)
    assert (done.stdout, done.returncode) == (b"begun\n", 1)


def test_a_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    """The shell that comes first never goes on to read another language."""
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    for name in ("python3", "perl", "ruby", "bash", "Rscript", "tclsh", "lua", "node"):
        path = tool(tmp_path / "my env", f"#!/e/bin/{name}\n".encode(), b"echo wrong\n")
        for first in FIRST:
            if shutil.which(first.split()[0]):
                done = subprocess.run([*first.split(), path], capture_output=True, timeout=60)
                assert done.returncode in (126, 127), (name, first)
                assert b"wrong" not in done.stdout


# env


@pytest.mark.parametrize("directory", ["e", *AWKWARD])
@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("/usr/bin/env -S A=1 /e/bin/python3 -S -u", b"import os, sys\nprint(os.environ['A'], sys.argv[1:])\n"),
        ("/usr/bin/env -S A=1 /e/bin/perl -w -T", b'print "$ENV{A} [\'", join("\', \'", @ARGV), "\']\\n";\n'),
        ("/usr/bin/env -iS A=1 /e/bin/bash -e -u", b'printf "%s [\'%s\', \'%s\']\\n" "$A" "$@"\n'),
        ("/usr/bin/env /e/bin/bash", b"printf \"1 ['%s', '%s']\\n\" \"$@\"\n"),
    ],
)
def test_behind_env(line: str, body: bytes, directory: str) -> None:
    with short_directory() as base:  # so that all but one of the lines are short enough
        prefix = base / directory
        install(prefix, re.sub(r".*/e/bin/(\w+).*", r"\1", line))
        path = tool(prefix, b"#!" + line.encode() + b"\n", body)
        assert path.read_bytes().startswith(b"#!/bin/sh\n" if len(directory) > 100 else b"#!/usr/bin/env")
        assert subprocess.run([path, "a b", "c"], capture_output=True, check=True).stdout == b"1 ['a b', 'c']\n"


def test_awk_behind_env(tmp_path: Path) -> None:
    """What sh cannot start, env can where there is but a space; and a line too long is refused."""
    prefix = tmp_path / "my env"
    install(prefix, "awk")
    path = tool(prefix, b"#!/usr/bin/env -S /e/bin/awk -f\n", b"BEGIN { print ARGV[1] }\n")
    assert subprocess.run([path, "a b"], capture_output=True, check=True).stdout == b"a b\n"
    with pytest.raises(Unwritable):
        written(b"#!/usr/bin/env -S /e/bin/awk -f\n", b"/e", b"/" + b"d" * LIMIT)


def test_an_argument_that_the_kernel_hands_over_whole(tmp_path: Path) -> None:
    prefix = tmp_path / "my env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "x").write_text('echo "x reads $1"\n')
    path = tool(prefix, b"#!/bin/sh /e/bin/x\n", b"anything\n")
    assert subprocess.run([path], capture_output=True, check=True).stdout.decode() == f"x reads {path}\n"


# A copy that was edited is text like any other


@pytest.mark.parametrize("request_line", ["python3 -S", "perl -w", "bash -u", "lua5.4", "tclsh", "node", "Rscript"])
def test_an_edited_copy_moves_as_text(request_line: str, tmp_path: Path) -> None:
    """The head keeps its form, since nobody knows any more what it stood for; its path moves."""
    interpreter = request_line.split()[0]
    first, targets = tmp_path / "my env", [tmp_path / "other env", tmp_path / "e", tmp_path / ("d" * 140)]
    install(first, interpreter)
    body = SCRIPTS.get(request_line, b"") or next(b for k, b in SCRIPTS.items() if k.startswith(interpreter))
    path = tool(first, f"#!/e/bin/{request_line}\n".encode(), body)
    data = path.read_bytes()
    slots = read(lambda at, n: data[at : at + n], len(data), b"bin/tool", [os.fsencode(first)]).references
    assert [slot.field.value for slot in slots] == ["text"]
    (region,) = regions(slots)
    said = run(path, "a b", "$x", "", prefix=first)
    for target in targets:
        install(target, interpreter)
        form = Form(os.fsencode(target))
        slot = write(region, data[region.start : region.end], form)
        assert undo(region, slot, form) == data[region.start : region.end]
        moved = target / "bin" / "tool"
        moved.write_bytes(data[: region.start] + slot + data[region.end :])
        moved.chmod(0o755)
        assert run(moved, "a b", "$x", "", prefix=target) == said
