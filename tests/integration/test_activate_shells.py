"""Activation in the real shells: one small tree, every shell, and what a user's shell may have done to itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from installer_stub import activation
from installer_stub.activation import Shell as Syntax
from tests.conftest import need


@dataclass(frozen=True)
class Shell:
    """A shell as a test starts it: without the user's own start-up files."""

    name: str
    argv: tuple[str, ...]
    syntax: Syntax = Syntax.SH
    names_itself: bool = False  # tells a sourced file its path; the others have it open

    @property
    def suffix(self) -> str:
        return "" if self.syntax is Syntax.SH else f".{self.syntax.value}"

    def quote(self, path: str | Path) -> str:
        return os.fsdecode(activation.quote(os.fsencode(path), self.syntax))

    def source(self, path: str | Path, *, quoted: bool = True) -> str:
        """Write the command that sources a file in this shell."""
        word = self.quote(path) if quoted else str(path)
        return f"{'.' if self.syntax is Syntax.SH else 'source'} {word}"

    def set(self, name: str, value: str) -> str:
        """Write the command that sets and exports a variable."""
        return {
            Syntax.SH: f"{name}={self.quote(value)}; export {name}",
            Syntax.FISH: f"set -gx {name} {self.quote(value)}",
            Syntax.CSH: f"setenv {name} {self.quote(value)}",
        }[self.syntax]

    def unset(self, name: str) -> str:
        return {Syntax.SH: f"unset {name}", Syntax.FISH: f"set -e {name}", Syntax.CSH: f"unsetenv {name}"}[self.syntax]

    @property
    def status(self) -> str:
        return "$?" if self.syntax is Syntax.SH else "$status"


SHELLS = (
    Shell("bash", ("bash", "--norc", "--noprofile"), names_itself=True),
    Shell("bash --posix", ("bash", "--posix", "--norc", "--noprofile"), names_itself=True),
    Shell("dash", ("dash",)),
    Shell("zsh", ("zsh", "-f"), names_itself=True),
    Shell("zsh --emulate sh", ("zsh", "--emulate", "sh", "-o", "no_rcs"), names_itself=True),
    Shell("ksh93", ("ksh93",), names_itself=True),
    Shell("mksh", ("mksh",)),
    Shell("yash", ("yash", "--norcfile", "--noprofile")),
    Shell("busybox sh", ("busybox", "sh")),
    Shell("fish", ("fish", "--no-config"), Syntax.FISH, names_itself=True),
    Shell("tcsh", ("tcsh", "-f"), Syntax.CSH),
)
POSIX = [shell for shell in SHELLS if shell.syntax is Syntax.SH]
BY_NAME = {shell.name: shell for shell in SHELLS}

every_shell = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)
every_sh = pytest.mark.parametrize("shell", POSIX, ids=lambda shell: shell.name)

BASE = "/usr/bin:/bin"
# Set by a shell itself, whoever sources what.
OF_SHELLS = {
    "_",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "HOST",
    "HOSTTYPE",
    "MACHTYPE",
    "OSTYPE",
    "VENDOR",
    "GROUP",
    "LOGNAME",
    "USER",
    "_AST_FEATURES",
}


@dataclass
class Run:
    """What a run left: its output, its code, and the environments that it dumped, in order."""

    stdout: str
    stderr: str
    code: int
    dumps: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Tree:
    """A tree as packing lays it out, with a conda-unpack that writes down how it was called."""

    root: Path
    called: Path

    def make(
        self, recorded: str | Path | None = "", variables: Sequence[tuple[bytes, bytes]] = (), stem: str = "activate"
    ) -> Tree:
        """Write the scripts; ``recorded`` is the root itself unless another path, or None, is given."""
        prefix = None if recorded is None else os.fsencode(recorded or self.root)
        (self.root / "bin").mkdir(parents=True, exist_ok=True)
        for path, content in activation.scripts(stem, prefix, b"node1", variables).items():
            target = self.root / os.fsdecode(path)
            target.write_bytes(content)
            target.chmod(activation.MODE)
        self.unpack(0)
        return self

    def unpack(self, code: int, body: str = "") -> None:
        """Replace conda-unpack by one that does ``body`` and exits with ``code``."""
        script = self.root / "bin/conda-unpack"
        script.write_text(
            f'#!/bin/sh\necho "$*" >>{shlex.quote(str(self.called))}\n{body}\n'
            f'if [ {code} -ne 0 ]; then echo "stale: {code}" >&2; fi\nexit {code}\n'
        )
        script.chmod(0o755)

    def script(self, directory: str, name: str, text: str) -> None:
        path = self.root / "etc/conda" / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def activate(self, shell: Shell) -> str:
        return shell.source(self.root / f"bin/activate{shell.suffix}")

    def deactivate(self, shell: Shell) -> str:
        return shell.source(self.root / f"bin/deactivate{shell.suffix}")

    @property
    def calls(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "env", tmp_path / "called").make()


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": BASE, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb", **more}


def run(
    shell: Shell,
    tmp_path: Path,
    lines: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    wrap: Sequence[str | Path] = (),
) -> Run:
    """Run lines as a script of a shell. The line "DUMP" writes down the environment at that point."""
    need(shell.argv[0])
    scratch = tmp_path / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    count = 0
    text = []
    for line in lines:
        if line == "DUMP":
            line = f"/usr/bin/env -0 > {shell.quote(scratch / f'dump{count}')}"
            count += 1
        text.append(line)
    script = scratch / "script"
    script.write_bytes(os.fsencode("\n".join(text) + "\n"))
    command = [*wrap, shutil.which(shell.argv[0]) or shell.argv[0], *shell.argv[1:], *options, script]
    done = subprocess.run(
        command,
        cwd=cwd or tmp_path,
        env=env or environment(tmp_path),
        input=b"a line that is for nobody\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    dumps = []
    for number in range(count):
        path = scratch / f"dump{number}"
        if path.exists():
            pairs = (os.fsdecode(item).partition("=") for item in path.read_bytes().split(b"\0") if item)
            dumps.append({name: value for name, _, value in pairs if name not in OF_SHELLS})
    return Run(os.fsdecode(done.stdout), os.fsdecode(done.stderr), done.returncode, dumps)


def expect_active(dump: Mapping[str, str], root: str | Path, *, level: int = 1) -> None:
    name = str(root).rpartition("/")[2]
    assert dump["CONDA_PREFIX"] == str(root)
    assert dump["CONDA_DEFAULT_ENV"] == name
    assert dump["CONDA_SHLVL"] == str(level)
    assert dump["PATH"].startswith(f"{root}/bin:")
    assert dump["PATH"].count(f"{root}/bin") == 1
    if re.fullmatch(r"[\w. -]+", name):
        assert dump["CONDA_PROMPT_MODIFIER"] == f"({name}) "


# --- where a script stands -------------------------------------------------------------------------

NAMES = {
    "plain": "env",
    "spaces": "my  own env ",
    "unicode": "Umgebung-é-漢字",
    "quotes": 'it\'s "an" env',
    "dollar": "e$HOME ${x} $(touch pwned) `touch pwned`",
    "backslashes": "a\\b\\\\c\\n\\",
    "patterns": "*[a-z]?{x,y}~",
    "history": "!! \\!x %n %% ^a^b",
    "newline": "two\nlines",
    "newline at the end": "line\n",
    "a leading dash": "-n -e",
    "a semicolon": ";touch pwned; #&|<>()",
    "a token of the templates": "@PREFIX@ # @VARIABLES@",
}


@every_shell
@pytest.mark.parametrize("kind", NAMES)
def test_any_path_activates_and_is_undone(shell: Shell, kind: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / NAMES[kind], tmp_path / "called").make()
    done = run(
        shell,
        tmp_path,
        ["DUMP", tree.activate(shell), f'echo "code {shell.status}"', "DUMP", tree.deactivate(shell), "DUMP"],
    )
    assert done.stderr == ""
    assert "code 0" in done.stdout
    before, active, after = done.dumps
    expect_active(active, tree.root)
    assert after == before
    assert tree.calls == []
    assert not (tmp_path / "pwned").exists()


@every_shell
@pytest.mark.parametrize("kind", NAMES)
def test_any_path_finds_itself_where_nothing_is_recorded(shell: Shell, kind: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / NAMES[kind], tmp_path / "called").make(None)
    tree.unpack(12)
    done = run(shell, tmp_path, [tree.activate(shell), "DUMP"])
    assert not (tmp_path / "pwned").exists()
    expect_active(done.dumps[0], tree.root)
    assert tree.calls == ["--activation"]


@every_shell
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "name", [b"latin-\xe9", b"\xff\xfe", b"cut-\xe2\x82", b"every-" + bytes(range(128, 256))], ids=repr
)
def test_path_that_is_not_utf8_activates(shell: Shell, locale: str, name: bytes, tmp_path: Path) -> None:
    tree = Tree(tmp_path / os.fsdecode(name), tmp_path / "called").make()
    link = tmp_path / "link"  # the command that sources need not hold the bytes; the script must
    link.symlink_to(tree.root)
    source = shell.source(link / f"bin/activate{shell.suffix}")
    done = run(shell, tmp_path, [source, "DUMP"], env=environment(tmp_path, LC_ALL=locale))
    if shell.name == "yash":
        # yash reads characters, not bytes, and refuses the file.
        assert done.dumps == [] or "CONDA_PREFIX" not in done.dumps[0]
        return
    assert done.dumps[0]["CONDA_PREFIX"] == str(tree.root)
    assert tree.calls == []


WAYS = (
    "absolute",
    "relative",
    "dotted",
    "in bin",
    "from below",
    "symlink to the root",
    "symlink to bin",
    "symlink to the file",
    "chain",
    "PATH",
)
# fish and tcsh do not look for a sourced file in PATH.
NAMED = [(shell, way) for shell in SHELLS for way in WAYS if way != "PATH" or shell.syntax is Syntax.SH]


@pytest.mark.parametrize(("shell", "way"), NAMED, ids=[f"{shell.name}-{way}" for shell, way in NAMED])
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unknown"])
def test_script_finds_itself_however_it_is_named(shell: Shell, way: str, recorded: bool, tmp_path: Path) -> None:
    root = tmp_path / "a b" / "env"
    tree = Tree(root, tmp_path / "called").make("" if recorded else None)
    tree.unpack(12)
    file = f"activate{shell.suffix}"
    (tmp_path / "to-root").symlink_to(root)
    (tmp_path / "to-bin").symlink_to("a b/env/bin")
    (tmp_path / "to-file").symlink_to(root / "bin" / file)
    (tmp_path / "second").symlink_to("to-file")
    (root / "deep").mkdir()
    cwd, name = {
        "absolute": (tmp_path, f"{root}/bin/{file}"),
        "relative": (tmp_path, f"a b/env/bin/{file}"),
        "dotted": (root, f"./bin/{file}"),
        "in bin": (root / "bin", f"./{file}"),
        "from below": (root / "deep", f"../bin/../bin/{file}"),
        "symlink to the root": (tmp_path, f"to-root/bin/{file}"),
        "symlink to bin": (tmp_path, f"to-bin/{file}"),
        "symlink to the file": (tmp_path, "./to-file"),
        "chain": (tmp_path, f"{tmp_path}/second"),
        "PATH": (tmp_path, file),
    }[way]
    lines = [shell.source(name), "DUMP"]
    if way == "PATH":
        lines.insert(0, shell.set("PATH", f"{root}/bin:{BASE}"))
    done = run(shell, tmp_path, lines, cwd=cwd)
    expect_active(done.dumps[0], root)
    assert tree.calls == ([] if recorded else ["--activation"])


@every_shell
def test_tree_is_current_under_another_name(shell: Shell, tmp_path: Path) -> None:
    """One tree seen under two names keeps the one that its files hold, and is not relocated."""
    tree = Tree(tmp_path / "env", tmp_path / "called").make()
    other = tmp_path / "other"
    other.mkdir()
    unshare = need("unshare")
    if subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    mount = f'mount --bind {shlex.quote(str(tree.root))} {shlex.quote(str(other))} && exec "$@"'
    done = run(
        shell,
        tmp_path,
        [shell.source(other / f"bin/activate{shell.suffix}"), "DUMP"],
        wrap=[unshare, "-rm", "sh", "-c", mount, "sh"],
    )
    expect_active(done.dumps[0], tree.root)
    assert tree.calls == []


@every_shell
def test_moved_tree_is_not_current_though_its_old_place_is_taken(shell: Shell, tmp_path: Path) -> None:
    original = Tree(tmp_path / "env", tmp_path / "called").make()
    copy = Tree(tmp_path / "copy", tmp_path / "called")
    shutil.copytree(original.root, copy.root)
    done = run(shell, tmp_path, [copy.activate(shell), "DUMP"])
    expect_active(done.dumps[0], copy.root)
    assert copy.calls == ["--activation"]


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell.names_itself], ids=lambda shell: shell.name)
def test_copy_made_of_hard_links_is_not_its_original(shell: Shell, tmp_path: Path) -> None:
    original = Tree(tmp_path / "env", tmp_path / "called").make()
    copy = Tree(tmp_path / "copy", tmp_path / "called")
    shutil.copytree(original.root, copy.root, copy_function=os.link)
    done = run(shell, tmp_path, [copy.activate(shell), "DUMP"])
    expect_active(done.dumps[0], copy.root)


@every_sh
def test_subshell_finds_the_tree(shell: Shell, tmp_path: Path) -> None:
    """There $$ is another process, which does not have the file open."""
    tree = Tree(tmp_path / "env", tmp_path / "called").make(None)
    done = run(shell, tmp_path, ["(", tree.activate(shell), "DUMP", ")", "DUMP"])
    expect_active(done.dumps[0], tree.root)
    assert "CONDA_PREFIX" not in done.dumps[1]


@every_sh
@pytest.mark.parametrize("pushed", [True, False], ids=["-c", "function"])
def test_command_line_and_function_find_the_tree(shell: Shell, pushed: bool, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called").make(None)
    if pushed:
        inner = f"{tree.activate(shell)}; echo $CONDA_PREFIX"
        line = f"exec {shlex.join(shell.argv)} -c {shlex.quote(inner)} activate other arguments"
        done = run(shell, tmp_path, [line])
    else:
        done = run(
            shell,
            tmp_path,
            ["f() {", tree.activate(shell), "}", "set -- one two", "f three", 'echo "$CONDA_PREFIX $*"'],
        )
        assert done.stdout.rstrip().endswith("one two")
    assert str(tree.root) in done.stdout


def without_proc(shell: Shell, tmp_path: Path, lines: Sequence[str], cwd: Path | None = None) -> Run:
    unshare = need("unshare")
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    if subprocess.run([unshare, "-rm", "sh", "-c", hide, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("/proc cannot be hidden here")
    return run(shell, tmp_path, lines, wrap=[unshare, "-rm", "sh", "-c", hide, "sh"], cwd=cwd)


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if not shell.names_itself], ids=lambda shell: shell.name)
def test_without_proc_the_way_out_is_named_and_works(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    done = without_proc(shell, tmp_path, [tree.activate(shell), f'echo "code {shell.status}"', "DUMP"])
    assert "code 3" in done.stdout
    assert "PACK_PREFIX" in done.stderr and "cd to the root" in done.stderr and "node1" in done.stderr
    assert "CONDA_PREFIX" not in done.dumps[0]
    told = [shell.set("PACK_PREFIX", str(tree.root)), tree.activate(shell), "DUMP"]
    expect_active(without_proc(shell, tmp_path, told).dumps[0], tree.root)
    expect_active(without_proc(shell, tmp_path, [tree.activate(shell), "DUMP"], cwd=tree.root).dumps[0], tree.root)


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shell.names_itself], ids=lambda shell: shell.name)
def test_without_proc_a_shell_that_names_the_file_needs_nothing(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    if (
        shell.name == "fish"
        and "version 3"
        not in subprocess.run([need("fish"), "--version"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("only fish 3 is known to start without /proc")
    expect_active(without_proc(shell, tmp_path, [tree.activate(shell), "DUMP"]).dumps[0], tree.root)


@every_sh
def test_script_that_is_run_says_that_it_must_be_sourced(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    for name in (tree.root / "bin/activate", "env/bin/activate"):
        line = f"{shlex.join(shell.argv)} {shlex.quote(str(name))}; echo code $?"
        done = run(shell, tmp_path, [line])
        assert "code 2" in done.stdout
        assert "must be sourced" in done.stderr
    assert "must be sourced" in run(shell, tmp_path, [str(tree.root / "bin/activate")]).stderr


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("posh", ". ./env/bin/activate"),
        ("bsd-csh", "source env/bin/activate.csh"),
        ("bsd-csh", "source env/bin/deactivate.csh"),
    ],
)
def test_shell_that_cannot_is_refused_in_words(program: str, line: str, tree: Tree, tmp_path: Path) -> None:
    shell = Shell(program, (program,), Syntax.CSH if "csh" in program else Syntax.SH)
    done = run(shell, tmp_path, [line, "DUMP"])
    assert "not supported" in done.stderr or "only tcsh" in done.stderr
    assert all("CONDA_PREFIX" not in dump for dump in done.dumps)


# --- no process ------------------------------------------------------------------------------------


def processes(shell: Shell, tmp_path: Path, lines: Sequence[str]) -> list[str]:
    """Return the system calls by which a script started a process or a program.

    Those of an empty script are left out: tcsh forks once when it starts.
    """
    trace = tmp_path / "trace"
    strace: list[str | Path] = [
        need("strace"),
        "-f",
        "-qq",
        "-e",
        "trace=clone,clone3,fork,vfork,execve,execveat",
        "-o",
        trace,
    ]
    own = 0
    if lines:
        own = len(processes(shell, tmp_path, []))
    run(shell, tmp_path, lines, wrap=strace)
    calls = [line for line in trace.read_text().splitlines() if re.search(r"\b(clone3?|v?fork|execve(at)?)\(", line)]
    return [line for line in calls if "CLONE_THREAD" not in line][own:]


@every_shell
def test_current_tree_is_activated_and_left_without_a_process(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    for directory in ("activate.d", "deactivate.d"):
        tree.script(directory, f"one.{shell.syntax.value}", ":" if shell.syntax is not Syntax.FISH else "true")
    lines = [tree.activate(shell), tree.activate(shell), tree.deactivate(shell)]
    assert processes(shell, tmp_path, lines) == []
    assert processes(shell, tmp_path, ["/bin/true"]) != []


@every_shell
def test_stale_tree_needs_processes(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    """The other side of the test above: strace would see them."""
    tree.make(None)
    assert processes(shell, tmp_path, [tree.activate(shell)]) != []


# --- relocation ------------------------------------------------------------------------------------


@every_shell
@pytest.mark.parametrize("code", [0, 9, 10, 12, 1, 7, 8, 126])
@pytest.mark.parametrize("mode", ["", "require", "never"])
def test_what_relocation_says_decides(shell: Shell, code: int, mode: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called").make(tmp_path / "gone")
    tree.unpack(code)
    lines = [tree.activate(shell), f'echo "code {shell.status}"', "DUMP"]
    if mode:
        lines.insert(0, shell.set("PACK_RELOCATE", mode))
    done = run(shell, tmp_path, lines)
    if mode == "never":
        assert tree.calls == []
        assert done.stderr == ""
    else:
        assert tree.calls == ["--activation"]
        assert done.stderr == (f"stale: {code}\n" if code else "")
    if mode == "never" or code == 0 or (mode != "require" and code in (9, 10, 12)):
        assert "code 0" in done.stdout
        expect_active(done.dumps[0], tree.root)
    else:
        assert f"code {code}" in done.stdout
        assert not [name for name in done.dumps[0] if name.startswith(("CONDA", "_PACK"))]
        assert done.dumps[0]["PATH"] == BASE


@every_shell
def test_activation_that_relocates_uses_what_relocation_wrote(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "env"
    old, new = [(b"DATA", b"/old/env/share")], [(b"DATA", os.fsencode(root) + b"/share")]
    fresh = Tree(tmp_path / "fresh", tmp_path / "none").make(root, new)
    tree = Tree(root, tmp_path / "called").make("/old/env", old)
    tree.unpack(0, f"rm {root}/bin/*activate*\ncp {fresh.root}/bin/*activate* {root}/bin/\nread -r line && exit 1")
    done = run(
        shell, tmp_path, [tree.activate(shell), f'echo "code {shell.status}"', "DUMP", tree.deactivate(shell), "DUMP"]
    )
    assert (done.stderr, done.stdout) == ("", "code 0\n")
    expect_active(done.dumps[0], root)
    assert done.dumps[0]["DATA"] == f"{root}/share"
    assert tree.calls == ["--activation"]
    assert not [name for name in done.dumps[1] if name.startswith(("CONDA", "_PACK", "DATA"))]


def test_relocation_keeps_the_options_of_tcsh(tmp_path: Path) -> None:
    """The script is read twice then, and both readings change them."""
    shell = BY_NAME["tcsh"]
    fresh = Tree(tmp_path / "fresh", tmp_path / "none").make(tmp_path / "env")
    tree = Tree(tmp_path / "env", tmp_path / "called").make(None)
    tree.unpack(0, f"cp {fresh.root}/bin/activate.csh {tree.root}/bin/")
    asked = "echo $?noglob $?nonomatch $?backslash_quote"
    lines = ["set noglob; set backslash_quote", asked, tree.activate(shell), asked]
    assert run(shell, tmp_path, lines).stdout.splitlines() == ["1 0 1", "1 0 1"]


@every_shell
def test_path_with_a_colon_is_refused(shell: Shell, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "a:b", tmp_path / "called").make()
    done = run(shell, tmp_path, [tree.activate(shell), f'echo "code {shell.status}"', "DUMP"])
    assert "code 7" in done.stdout
    assert "cannot stand in PATH" in done.stderr
    assert done.dumps[0]["PATH"] == BASE


# --- an installation that was not completed --------------------------------------------------------

NOT_COMPLETED = "an installation here was not completed. Run the installer again, or unpack the delta with its base."


@every_shell
@pytest.mark.parametrize("kind", NAMES)
def test_tree_that_is_not_completely_installed_is_refused(shell: Shell, kind: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / NAMES[kind], tmp_path / "called").make()
    (tree.root / ".installing").write_text("{}")
    done = run(shell, tmp_path, ["DUMP", tree.activate(shell), f'echo "code {shell.status}"', "DUMP"])
    assert done.stdout == "code 12\n"
    assert done.stderr == f"activate{shell.suffix}: {tree.root}: {NOT_COMPLETED}\n"
    assert done.dumps[1] == done.dumps[0]
    assert tree.calls == []
    assert not (tmp_path / "pwned").exists()


@every_shell
@pytest.mark.parametrize("mode", ["", "require", "never"])
def test_such_a_tree_is_refused_before_it_is_relocated(shell: Shell, mode: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called").make(tmp_path / "gone")
    (tree.root / ".installing").write_text("{}")
    lines = [shell.set("PACK_RELOCATE", mode), "DUMP", tree.activate(shell), f'echo "code {shell.status}"', "DUMP"]
    done = run(shell, tmp_path, lines)
    assert (done.stdout, done.stderr.count("\n")) == ("code 12\n", 1)
    assert NOT_COMPLETED in done.stderr
    assert done.dumps[1] == done.dumps[0]
    assert tree.calls == []


@every_shell
@pytest.mark.parametrize("value", ["1", "a b'c", ""])
def test_hook_of_the_installer_may_activate_it(shell: Shell, value: str, tree: Tree, tmp_path: Path) -> None:
    """The variable counts if it is not empty."""
    (tree.root / ".installing").write_text("{}")
    lines = [shell.set("_PACK_INSTALLING", value), "DUMP", tree.activate(shell), f'echo "code {shell.status}"', "DUMP"]
    done = run(shell, tmp_path, [*lines, tree.deactivate(shell), "DUMP"])
    if value:
        assert (done.stdout, done.stderr) == ("code 0\n", "")
        expect_active(done.dumps[1], tree.root)
    else:
        assert done.stdout == "code 12\n"
        assert done.dumps[1] == done.dumps[0]
    assert done.dumps[2] == done.dumps[0]


@every_shell
def test_refusing_it_leaves_nothing_behind(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    (tree.root / ".installing").write_text("{}")
    shown = {Syntax.SH: "set", Syntax.FISH: "set; functions -a", Syntax.CSH: "set; alias"}[shell.syntax]
    done = run(shell, tmp_path, [tree.activate(shell), shown])
    assert re.search(r"_pack_|_PACK_", done.stdout) is None
    if shell.syntax is Syntax.SH:
        functions = re.findall(r"^(_pack\w+)\(\)", (tree.root / "bin/activate").read_text(), re.M)
        asked = [f"command -v {name} && echo left" for name in functions]
        assert run(shell, tmp_path, [tree.activate(shell), *asked]).stdout == ""


@every_sh
@pytest.mark.parametrize("options", ["set -eu", "set -euf; IFS=0123456789/abc", "set -C; umask 777"])
def test_refusal_can_be_caught_whatever_the_options_are(shell: Shell, options: str, tree: Tree, tmp_path: Path) -> None:
    """In a sourced file dash and busybox sh obey "set -e" whatever stands around it."""
    (tree.root / ".installing").write_text("{}")
    done = run(shell, tmp_path, [options, f'{tree.activate(shell)} || echo "code $?"', "echo after"])
    if "set -e" in options and shell.name in ("dash", "busybox sh"):
        assert (done.stdout, done.code) == ("", 12)
    else:
        assert done.stdout == "code 12\nafter\n"
    assert (NOT_COMPLETED in done.stderr, done.stderr.count("\n")) == (True, 1)


@every_shell
def test_looking_for_it_starts_no_process(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    """Nor does refusing; but tcsh and mksh cannot write to standard error by themselves."""
    (tree.root / ".installing").write_text("{}")
    lines = [shell.set("_PACK_INSTALLING", "1"), tree.activate(shell), tree.deactivate(shell)]
    assert processes(shell, tmp_path, lines) == []
    if shell.name not in ("tcsh", "mksh"):
        assert processes(shell, tmp_path, [tree.activate(shell)]) == []


# --- what is set, and undone -----------------------------------------------------------------------

VALUES = {
    "PLAIN": "1",
    "EMPTY": "",
    "QUOTES": 'it\'s "a" `touch pwned` $(touch pwned) $HOME',
    "SLASHES": "a\\b\\\\ \\n \\",
    "MANY": "one\ntwo\n",
    "HISTORY": "!! \\! !x",
    "SPACES": "  two  spaces ",
    "PATTERN": "* ? [a] {x,y} ~",
    "UNICODE": "é漢",
    "mixed_Case1": "x=y;z",
}


@every_shell
def test_variables_of_the_environment_are_set_and_put_back(shell: Shell, tmp_path: Path) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in VALUES.items()]
    tree = Tree(tmp_path / "env", tmp_path / "called").make("", pairs)
    former = {"PLAIN": "before !x\\! 'q' $HOME", "EMPTY": "", "MANY": "a\nb", "CONDA_DEFAULT_ENV": "mine"}
    done = run(
        shell,
        tmp_path,
        ["DUMP", tree.activate(shell), "DUMP", tree.deactivate(shell), "DUMP"],
        env=environment(tmp_path, **former),
    )
    before, active, after = done.dumps
    assert {name: active[name] for name in VALUES} == VALUES
    assert after == before
    assert {name: after[name] for name in former} == former
    assert not (tmp_path / "pwned").exists()


@every_shell
def test_scripts_of_packages_run_in_order_in_their_own_language_only(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    for directory in ("activate.d", "deactivate.d"):
        for syntax in ("sh", "fish", "csh", "bat", "xsh", "sh.bak"):
            for name in ("b two", "~last", "C", "a'1"):
                tree.script(directory, f"{name}.{syntax}", f"echo '{directory} {name.replace(chr(39), '')}' {syntax}")
        (tree.root / f"etc/conda/{directory}/directory.{shell.syntax.value}").mkdir()
    done = run(shell, tmp_path, [tree.activate(shell), "echo between", tree.deactivate(shell)])
    order = ["C", "a1", "b two", "~last"]
    if shell.syntax is Syntax.FISH:
        order = ["a1", "b two", "C", "~last"]  # fish sorts without regard to case
    kind = shell.syntax.value
    expected = [f"activate.d {name} {kind}" for name in order] + ["between"]
    expected += [f"deactivate.d {name} {kind}" for name in reversed(order)]
    assert done.stdout.splitlines() == expected
    assert done.stderr == ""


@every_shell
def test_scripts_of_packages_run_as_the_users_own_commands(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    """What they set stays, with the environment's variables already there."""
    plain = {
        Syntax.SH: "SEEN=$CONDA_PREFIX; LATER=1",
        Syntax.FISH: "set SEEN $CONDA_PREFIX; set LATER 1",
        Syntax.CSH: "set SEEN = $CONDA_PREFIX:q; set LATER = 1",
    }[shell.syntax]
    tree.script("activate.d", f"x.{shell.syntax.value}", plain)
    done = run(shell, tmp_path, [tree.activate(shell), 'echo "$SEEN $LATER"'])
    assert done.stdout == f"{tree.root} 1\n"


@every_shell
@pytest.mark.parametrize("empty", [True, False], ids=["empty", "none"])
def test_directory_without_scripts_is_no_error(shell: Shell, empty: bool, tree: Tree, tmp_path: Path) -> None:
    if empty:
        for directory in ("activate.d", "deactivate.d"):
            (tree.root / "etc/conda" / directory).mkdir(parents=True)
    done = run(shell, tmp_path, [tree.activate(shell), tree.deactivate(shell), f'echo "code {shell.status}"'])
    assert (done.stdout, done.stderr) == ("code 0\n", "")


STRICT_GLOBS = [
    (shell, option)
    for name, option in [("bash", "shopt -s failglob"), ("zsh", "setopt nomatch"), ("zsh", "setopt csh_null_glob")]
    for shell in SHELLS
    if shell.argv[0] == name
]


@pytest.mark.parametrize(
    ("shell", "option"), STRICT_GLOBS, ids=[f"{shell.name}: {option}" for shell, option in STRICT_GLOBS]
)
def test_empty_directory_is_no_error_where_a_pattern_without_a_match_is(
    shell: Shell, option: str, tree: Tree, tmp_path: Path
) -> None:
    for directory in ("activate.d", "deactivate.d"):
        (tree.root / "etc/conda" / directory).mkdir(parents=True)
    lines = [option, tree.activate(shell), "echo $CONDA_SHLVL", tree.deactivate(shell), 'echo "code $?"']
    done = run(shell, tmp_path, lines)
    assert (done.stdout, done.stderr) == ("1\ncode 0\n", "")


@pytest.fixture(scope="session")
def american(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for LOCPATH with a locale that sorts without regard to case and punctuation."""
    if not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("no sources of locales: apt-get install locales")
    directory = tmp_path_factory.mktemp("locales")
    subprocess.run([need("localedef"), "-i", "en_US", "-f", "UTF-8", directory / "en_US.UTF-8"], check=True)
    return directory


@every_sh
def test_locale_does_not_sort_the_scripts(shell: Shell, american: Path, tree: Tree, tmp_path: Path) -> None:
    for name in ("~a", "B", "c"):
        tree.script("activate.d", f"{name}.{shell.syntax.value}", f"echo '{name}'")
        tree.script("deactivate.d", f"{name}.{shell.syntax.value}", f"echo '{name}'")
    lines = [tree.activate(shell), tree.deactivate(shell)]
    done = run(shell, tmp_path, lines, env=environment(tmp_path, LC_ALL="en_US.UTF-8", LOCPATH=str(american)))
    assert done.stdout.split() == ["B", "c", "~a", "~a", "c", "B"]


@every_shell
def test_environments_nest(shell: Shell, tmp_path: Path) -> None:
    first = Tree(tmp_path / "first", tmp_path / "called").make("", [(b"VALUE", b"of first")])
    second = Tree(tmp_path / "second", tmp_path / "called").make("", [(b"VALUE", b"of second")])
    lines = ["DUMP", first.activate(shell), "DUMP", second.activate(shell), "DUMP", first.activate(shell), "DUMP"]
    lines += [first.deactivate(shell), "DUMP", second.deactivate(shell), "DUMP", first.deactivate(shell), "DUMP"]
    nothing, one, two, three, two_again, one_again, nothing_again = run(shell, tmp_path, lines).dumps
    expect_active(one, first.root)
    expect_active(two, second.root, level=2)
    expect_active(three, first.root, level=3)
    assert two["PATH"] == f"{second.root}/bin:{first.root}/bin:{BASE}"
    assert (two["CONDA_PREFIX_1"], two["VALUE"]) == (str(first.root), "of second")
    assert (three["CONDA_PREFIX_2"], three["PATH"]) == (str(second.root), f"{first.root}/bin:{second.root}/bin:{BASE}")
    assert (two_again, one_again, nothing_again) == (two, one, nothing)


@every_shell
def test_nests_over_an_environment_of_conda(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    conda = {
        "PATH": f"/opt/conda/bin:{BASE}",
        "CONDA_PREFIX": "/opt/conda",
        "CONDA_SHLVL": "1",
        "CONDA_DEFAULT_ENV": "base",
        "CONDA_PROMPT_MODIFIER": "(base) ",
    }
    lines = ["DUMP", tree.activate(shell), "DUMP", tree.deactivate(shell), "DUMP"]
    before, active, after = run(shell, tmp_path, lines, env=environment(tmp_path, **conda)).dumps
    expect_active(active, tree.root, level=2)
    assert active["CONDA_PREFIX_1"] == "/opt/conda"
    assert active["CONDA_STACKED_2"] == "true"
    assert after == before


@every_shell
def test_under_an_environment_of_conda_it_stays(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    """What another program put on top must be taken off by that program."""
    over = [
        shell.set("CONDA_SHLVL", "2"),
        shell.set("CONDA_PREFIX_1", str(tree.root)),
        shell.set("CONDA_PREFIX", "/opt/conda/envs/x"),
    ]
    lines = [tree.activate(shell), *over, "DUMP", tree.deactivate(shell), f'echo "code {shell.status}"', "DUMP"]
    done = run(shell, tmp_path, lines)
    assert "code 1" in done.stdout
    assert "/opt/conda/envs/x was activated on top" in done.stderr
    assert done.dumps[1] == done.dumps[0]


@every_shell
@pytest.mark.parametrize("level", ["0", "", "garbage", "-1", "08", "1000", "x[$(touch pwned)]"])
def test_odd_level_counts_as_none(shell: Shell, level: str, tree: Tree, tmp_path: Path) -> None:
    env = environment(tmp_path, CONDA_SHLVL=level)
    before, active, after = run(
        shell, tmp_path, ["DUMP", tree.activate(shell), "DUMP", tree.deactivate(shell), "DUMP"], env=env
    ).dumps
    expect_active(active, tree.root)
    assert after == before
    assert not (tmp_path / "pwned").exists()


@every_shell
def test_activating_twice_is_activating_once(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    tree.script("activate.d", f"x.{shell.syntax.value}", "echo on")
    tree.script("deactivate.d", f"x.{shell.syntax.value}", "echo off")
    lines = ["DUMP", tree.activate(shell), "DUMP", tree.activate(shell), "DUMP", tree.deactivate(shell), "DUMP"]
    done = run(shell, tmp_path, lines)
    before, once, twice, after = done.dumps
    assert twice == once
    assert after == before
    assert done.stdout.split() == ["on", "off", "on", "off"]


@every_shell
def test_deactivating_what_is_not_active_does_nothing(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    off = tree.deactivate(shell)
    lines = ["DUMP", off, "DUMP", tree.activate(shell), off, off, f'echo "code {shell.status}"', "DUMP"]
    done = run(shell, tmp_path, lines)
    assert done.dumps[1] == done.dumps[0] == done.dumps[2]
    assert (done.stdout, done.stderr) == ("code 0\n", "")


@every_shell
def test_deactivates_though_the_environment_is_gone(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    shutil.copy(tree.root / f"bin/deactivate{shell.suffix}", tmp_path / "off")
    lines = [
        "DUMP",
        tree.activate(shell),
        f"rm -rf {tree.root}",
        shell.source("./off"),
        f'echo "code {shell.status}"',
        "DUMP",
    ]
    done = run(shell, tmp_path, lines)
    assert (done.stdout, done.stderr) == ("code 0\n", "")
    assert done.dumps[1] == done.dumps[0]


@every_shell
def test_child_shell_can_deactivate(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    child = tmp_path / "child"
    child.write_text(f"{tree.deactivate(shell)}\n/usr/bin/env -0 > {tmp_path}/of-child\n")
    line = f"{shlex.join(shell.argv)} {child}"
    done = run(shell, tmp_path, ["DUMP", tree.activate(shell), line])
    left = dict(item.partition("=")[::2] for item in (tmp_path / "of-child").read_text().split("\0") if item)
    assert {name: value for name, value in left.items() if name not in OF_SHELLS} == done.dumps[0]


PATHS = [
    ("before", "/mine:@", f"/mine:{BASE}"),
    ("behind", "@:/mine", f"{BASE}:/mine"),
    ("around", "/a:@:/b", f"/a:{BASE}:/b"),
    ("inside", "ROOT/bin:/in:/usr/bin:/bin", f"/in:{BASE}"),
    ("without ours", "/usr/bin:/bin", BASE),
]


@every_shell
@pytest.mark.parametrize(("changed", "after"), [row[1:] for row in PATHS], ids=[row[0] for row in PATHS])
def test_changes_of_path_survive(shell: Shell, changed: str, after: str, tree: Tree, tmp_path: Path) -> None:
    ours = f"{tree.root}/bin:{BASE}"
    change = shell.set("PATH", changed.replace("@", ours).replace("ROOT", str(tree.root)))
    done = run(shell, tmp_path, [tree.activate(shell), change, tree.deactivate(shell), "DUMP"])
    assert done.dumps[0]["PATH"] == after


@every_shell
def test_former_path_with_the_environment_in_it_is_put_back(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    former = f"/usr/bin:{tree.root}/bin:/bin:{tree.root}/bin"
    done = run(
        shell,
        tmp_path,
        [tree.activate(shell), "DUMP", tree.deactivate(shell), "DUMP"],
        env=environment(tmp_path, PATH=former),
    )
    assert done.dumps[0]["PATH"] == f"{tree.root}/bin:/usr/bin:/bin"
    assert done.dumps[1]["PATH"] == former


@pytest.mark.parametrize("shell", [*POSIX, BY_NAME["fish"]], ids=lambda shell: shell.name)
def test_former_path_is_put_back_inside_a_changed_one(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    former = f"/usr/bin:{tree.root}/bin:/bin"
    change = shell.set("PATH", f"/mine:{tree.root}/bin:/usr/bin:/bin")
    lines = [tree.activate(shell), change, tree.deactivate(shell), "DUMP"]
    assert run(shell, tmp_path, lines, env=environment(tmp_path, PATH=former)).dumps[0]["PATH"] == f"/mine:{former}"


@every_shell
def test_nothing_of_its_own_is_left_behind(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    shown = {Syntax.SH: "set", Syntax.FISH: "set; functions -a", Syntax.CSH: "set; alias"}[shell.syntax]
    done = run(shell, tmp_path, [tree.activate(shell), shown, "echo -----", tree.deactivate(shell), shown])
    active, after = done.stdout.split("-----")
    assert re.search(r"_pack_", active) is None
    assert shell.syntax is Syntax.CSH or "_PACK_PREFIX_1" in active
    assert re.search(r"_pack_|_PACK_", after) is None
    if shell.syntax is Syntax.SH:
        functions = re.findall(r"^(_pack\w+)\(\)", (tree.root / "bin/activate").read_text(), re.M)
        assert len(functions) > 5
        asked = [f"command -v {name} && echo left" for name in functions]
        assert run(shell, tmp_path, [tree.activate(shell), *asked, tree.deactivate(shell), *asked]).stdout == ""


# --- shells as users have set them -----------------------------------------------------------------

HOSTILE = [
    ("*", "set -eu"),
    ("*", "set -f"),
    ("*", "set -euf; IFS=0123456789/abc; trap ':' EXIT"),
    ("*", "unset IFS; set -eu"),
    ("*", "set -C; umask 777"),
    ("*", "set -a"),
    ("*", "cd() { echo BAD; }; CDPATH=/tmp; export CDPATH"),
    ("*", "alias unset=BAD export=BAD eval=BAD printf=BAD set=BAD command=BAD cd=BAD readlink=BAD"),
    (
        "bash",
        "shopt -s expand_aliases; alias unset=BAD export=BAD eval=BAD printf=BAD set=BAD command=BAD",
    ),
    ("bash", "shopt -s failglob; set -eu"),
    ("bash", "shopt -s nullglob dotglob nocasematch nocaseglob extglob; set -o pipefail"),
    ("bash", "set -E; trap 'echo B\"\"AD' ERR"),
    ("bash", "set -eET; trap 'echo B\"\"AD >&2' ERR; trap ':' DEBUG RETURN"),
    ("zsh", "setopt sh_word_split ksh_arrays extended_glob glob_subst; setopt err_exit no_unset"),
    ("zsh", "setopt null_glob; setopt err_return"),
    ("zsh", "setopt csh_null_glob no_bare_glob_qual warn_create_global"),
    ("zsh", "setopt rc_quotes rc_expand_param ignore_braces no_equals"),
    ("zsh", "setopt no_glob no_unset"),
    ("zsh", "setopt ksh_glob sh_glob no_function_argzero posix_builtins"),
    ("zsh", "chpwd() { echo BAD; }; alias -g A=BAD; typeset -U path"),
    ("zsh", "unsetopt global_export"),
    ("zsh", "TRAPZERR() { echo B''AD; }"),
    ("zsh", "TRAPEXIT() { :; }"),
    ("ksh93", "set -o pipefail; set -eu; trap 'echo B\"\"AD' ERR"),
    ("mksh", "set -o pipefail; set -eu"),
    ("yash", "set -o nullglob; set -eu"),
    ("fish", "function cd; echo BAD; end"),
    ("fish", "set -U CONDA_PREFIX universal"),
    ("tcsh", "set noglob"),
    ("tcsh", "set nonomatch"),
    ("tcsh", "set backslash_quote; set noclobber"),
    ("tcsh", "set echo_style = both"),
]


def hostile() -> list[ParameterSet]:
    rows: list[ParameterSet] = []
    for name, preamble in HOSTILE:
        for shell in POSIX if name == "*" else [one for one in SHELLS if one.argv[0] == name]:
            rows.append(pytest.param(shell, preamble, id=f"{shell.name}: {preamble}"))
    return rows


@pytest.mark.parametrize(("shell", "preamble"), hostile())
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unknown"])
def test_survives_what_users_do_to_their_shell(shell: Shell, preamble: str, recorded: bool, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "it's an é!\\", tmp_path / "called").make(
        "" if recorded else None, [(b"VALUE", b"a '!b' $c")]
    )
    tree.unpack(12)
    kind = shell.syntax.value
    tree.script("activate.d", f"one.{kind}", "echo one")
    tree.script("activate.d", f"two.{kind}", "echo two $_NOT_SET" if shell.syntax is Syntax.SH else "echo two")
    tree.script("activate.d", f"three.{kind}", "false")
    tree.script("deactivate.d", f"one.{kind}", "echo gone")
    options = {
        Syntax.SH: 'echo "[$-][${IFS-unset}][$(trap)]"',
        Syntax.FISH: "true",
        Syntax.CSH: "echo $?noglob $?nonomatch $?backslash_quote $?noclobber",
    }[shell.syntax]
    if shell.argv[0] == "zsh":
        options += "; setopt"
    if shell.argv[0] == "bash":
        options += "; shopt"
    if "noglob" in preamble and shell.syntax is Syntax.CSH:
        options = "echo $?noglob"
    umask = "umask 022" if shell.syntax is Syntax.SH else "true"
    source, off = tree.activate(shell), tree.deactivate(shell)
    lines = [
        "DUMP", preamble, options,
        "echo -----", source, f"echo \"code {shell.status}\"", "echo -----", options, umask, "DUMP",
        "echo -----", off, f"echo \"code {shell.status}\"", "echo -----", options, "DUMP",
    ]  # fmt: skip
    if "umask 777" in preamble:
        lines = [umask if line == "DUMP" else line for line in lines]
    done = run(shell, tmp_path, lines)
    assert "BAD" not in done.stdout + done.stderr
    assert done.stderr.replace("stale: 12\n", "") == ""
    first, on, second, gone, third = done.stdout.split("-----\n")
    assert first == second == third
    ordered = ["one", "three", "two"]
    assert on.split() == [name for name in ordered if name != "three"] + ["code", "0"]
    assert gone.split() == ["gone", "code", "0"]
    if done.dumps:
        before, active, after = done.dumps
        assert active["CONDA_PREFIX"] == str(tree.root)
        assert active["VALUE"] == "a '!b' $c"
        left = {name: value for name, value in after.items() if name not in before}
        assert set(left) <= {"IFS", "CDPATH"}
        assert after["PATH"] == before["PATH"]


@every_sh
def test_leaves_the_positional_parameters_and_the_directory_alone(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    tree.make(None)
    done = run(
        shell,
        tmp_path,
        ["set -- a 'b c'", tree.activate(shell), 'echo "${#} $1$2"', "pwd", tree.deactivate(shell), 'echo "${#} $1$2"'],
    )
    assert done.stdout.splitlines() == ["2 ab c", str(tmp_path), "2 ab c"]


def test_locale_is_as_it_was(tree: Tree, tmp_path: Path) -> None:
    """Set or not, exported or not."""
    shell = BY_NAME["bash"]
    tree.script("activate.d", "x.sh", "")
    asked = 'echo "${LC_ALL-none} ${LC_ALL@a}"'
    lines = [asked, tree.activate(shell), asked, "unset LC_ALL", tree.deactivate(shell), tree.activate(shell), asked]
    assert run(shell, tmp_path, lines).stdout.splitlines() == ["C.UTF-8 x", "C.UTF-8 x", "none "]


# --- prompts ---------------------------------------------------------------------------------------


def interactive(shell: Shell, tmp_path: Path, lines: Sequence[str], **more: str) -> str:
    need(shell.argv[0])
    done = subprocess.run(
        [*shell.argv, "-i"],
        input="\n".join(lines) + "\n",
        cwd=tmp_path,
        env=environment(tmp_path, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


SHOW = {
    Syntax.SH: 'echo "<<$PS1>>"',
    Syntax.FISH: 'echo "<<"(fish_prompt | string collect)">>"',
    Syntax.CSH: 'echo "<<$prompt:q>>"',
}


def prompts(shell: Shell, tmp_path: Path, lines: Sequence[str], **more: str) -> list[str]:
    first = {
        Syntax.SH: "PS1='ready> '",
        Syntax.FISH: "function fish_prompt; echo 'ready> '; end",
        Syntax.CSH: "set prompt = 'ready> '",
    }
    shown = interactive(shell, tmp_path, [first[shell.syntax], *lines], **more)
    return [found for found in re.findall(r"<<(.*?)>>", shown, re.S) if "$" not in found and '"' not in found]


@every_shell
def test_prompt_of_an_interactive_shell_names_the_environment(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    show = SHOW[shell.syntax]
    other = Tree(tmp_path / "other", tmp_path / "called").make()
    lines = [
        show,
        tree.activate(shell),
        show,
        other.activate(shell),
        show,
        other.deactivate(shell),
        show,
        tree.deactivate(shell),
        show,
    ]
    plain, one, two = "ready> ", "(env) ready> ", "(other) ready> "
    if shell.syntax is Syntax.CSH:
        two = "(other) (env) ready> "
    assert prompts(shell, tmp_path, lines) == [plain, one, two, one, plain]


@every_shell
def test_prompt_cannot_be_made_to_run_anything(shell: Shell, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "a$(touch pwned)`touch pwned`\\$!%n", tmp_path / "called").make()
    show = SHOW[shell.syntax]
    lines = [tree.activate(shell), ":" if shell.syntax is not Syntax.FISH else "true", show]
    assert prompts(shell, tmp_path, lines) == ["(a_(touch pwned)_touch pwned_____n) ready> "]
    assert not (tmp_path / "pwned").exists()


@every_sh
def test_prompt_of_conda_is_replaced_and_put_back(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    conda = {"CONDA_PREFIX": "/opt/conda", "CONDA_SHLVL": "1", "CONDA_PROMPT_MODIFIER": "(base) "}
    show = SHOW[shell.syntax]
    lines = ["PS1='(base) ready> '", tree.activate(shell), show, 'PS1="${PS1}more "', tree.deactivate(shell), show]
    assert prompts(shell, tmp_path, lines, **conda) == ["(env) ready> ", "(base) ready> more "]


@every_sh
def test_prompt_is_left_alone_in_a_script(shell: Shell, tree: Tree, tmp_path: Path) -> None:
    done = run(
        shell, tmp_path, ["PS1='> '", tree.activate(shell), 'echo "<$PS1>"', tree.deactivate(shell), 'echo "<$PS1>"']
    )
    assert done.stdout.splitlines() == ["<> >", "<> >"]


# --- an environment that brings its own activate ---------------------------------------------------


@every_shell
def test_stands_beside_the_environments_own_activate(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "env"
    tree = Tree(root, tmp_path / "called").make(None, stem="pack-activate")
    (root / f"bin/activate{shell.suffix}").write_text("echo not ours\n")
    source = shell.source(root / f"bin/pack-activate{shell.suffix}")
    lines = ["DUMP", source, "DUMP", source, "DUMP", shell.source(root / f"bin/pack-deactivate{shell.suffix}"), "DUMP"]
    done = run(shell, tmp_path, lines)
    before, active, again, after = done.dumps
    expect_active(active, root)
    assert again == active
    assert after == before
    assert done.stdout == ""
    assert tree.calls == ["--activation", "--activation"]


# --- a virtual environment's own script ------------------------------------------------------------


def own(tree: Tree, shell: Shell, recorded: str | Path, text: str) -> str:
    """Give a tree a script of its own with our head, ours beside it; return the command that sources the former."""
    tree.make(recorded, stem="pack-activate")
    path = f"bin/activate{shell.suffix}"
    head = activation.own_head(os.fsencode(path), b"", os.fsencode(recorded))
    (tree.root / path).write_bytes(head + text.encode() + b"\n")
    return shell.source(tree.root / path)


@every_shell
@pytest.mark.parametrize("kind", NAMES)
def test_own_script_of_a_current_tree_is_read(shell: Shell, kind: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path / NAMES[kind], tmp_path / "called")
    source = own(tree, shell, tree.root, "echo the maker")
    shown = {Syntax.SH: "set", Syntax.FISH: "set; functions -a", Syntax.CSH: "set; alias"}[shell.syntax]
    done = run(shell, tmp_path, ["DUMP", source, source, f'echo "code {shell.status}"', "DUMP", "echo -----", shown])
    said, left = done.stdout.split("-----", 1)
    assert (said, done.stderr) == ("the maker\nthe maker\ncode 0\n", "")
    assert done.dumps[1] == done.dumps[0]
    assert re.search("_pack_|_PACK_", left.replace(str(tree.root), "")) is None
    assert tree.calls == []
    assert processes(shell, tmp_path, [source]) == []
    assert not (tmp_path / "pwned").exists()


@every_shell
@pytest.mark.parametrize("way", ["from inside", "from above", "through a symlink"])
def test_own_script_relocates_and_is_read_again(shell: Shell, way: str, tmp_path: Path) -> None:
    """The place where it stood is taken by another, as it is where the source is still there."""
    (tmp_path / "old" / "bin").mkdir(parents=True)
    tree = Tree(tmp_path / "my env", tmp_path / "called")
    own(tree, shell, tmp_path / "old", f"echo the maker of {tmp_path}/old")
    fresh = Tree(tmp_path / "fresh", tmp_path / "none").make(tree.root, stem="pack-activate")
    copy = f"cp --remove-destination {fresh.root}/bin/pack-*activate* '{tree.root}/bin/'"
    tree.unpack(0, f"{copy}\nsed -i 's|{tmp_path}/old|{tree.root}|' '{tree.root}/bin/activate{shell.suffix}'")
    where, name = tree.root / "bin", f"./activate{shell.suffix}"
    if way == "from above":
        where, name = tmp_path, f"./my env/bin/activate{shell.suffix}"
    elif way == "through a symlink":
        (tmp_path / "link").symlink_to(tree.root)
        where, name = tmp_path, f"{tmp_path}/link/bin/activate{shell.suffix}"
    source = shell.source(name)
    lines = ["DUMP", source, f'echo "code {shell.status}"', "DUMP", source]
    done = run(shell, tmp_path, lines, cwd=where)
    assert done.stderr == ""
    assert done.stdout == f"the maker of {tree.root}\ncode 0\nthe maker of {tree.root}\n"
    assert done.dumps[1] == done.dumps[0]
    assert tree.calls == ["--activation"]


@every_shell
@pytest.mark.parametrize("code", [0, 9, 10, 12, 1, 7, 8, 126])
@pytest.mark.parametrize("mode", ["", "require", "never"])
def test_own_script_of_a_stale_tree_is_not_read(shell: Shell, code: int, mode: str, tmp_path: Path) -> None:
    """It would set paths of the past: ours does its work, or nobody. So where relocation has not changed it."""
    tree = Tree(tmp_path / "env", tmp_path / "called")
    lines = [own(tree, shell, tmp_path / "gone", "echo the maker"), f'echo "code {shell.status}"', "DUMP"]
    tree.unpack(code)
    if mode:
        lines.insert(0, shell.set("PACK_RELOCATE", mode))
    done = run(shell, tmp_path, lines)
    assert tree.calls == ([] if mode == "never" else ["--activation"])
    assert done.stderr == ("" if mode == "never" or not code else f"stale: {code}\n")
    if mode == "never" or not code or (mode != "require" and code in (9, 10, 12)):
        assert done.stdout == "code 0\n"
        expect_active(done.dumps[0], tree.root)
    else:
        assert done.stdout == f"code {code}\n"
        assert not [name for name in done.dumps[0] if name.startswith(("CONDA", "_PACK"))]


@every_shell
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unknown"])
def test_own_script_of_an_incomplete_tree_is_not_read(shell: Shell, recorded: bool, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called")
    source = own(tree, shell, tree.root if recorded else tmp_path / "gone", "echo the maker")
    (tree.root / ".installing").write_text("{}")
    done = run(shell, tmp_path, ["DUMP", source, f'echo "code {shell.status}"', "DUMP"])
    assert (done.stdout, done.stderr.count("\n")) == ("code 12\n", 1)
    assert NOT_COMPLETED in done.stderr
    assert done.dumps[1] == done.dumps[0]
    hook = run(shell, tmp_path, [shell.set("_PACK_INSTALLING", "1"), source])
    assert (hook.stdout, hook.stderr) == ("the maker\n" if recorded else "", "")
    assert len(tree.calls) == (0 if recorded else 1)


@pytest.mark.parametrize(("shell", "preamble"), hostile())
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "stale"])
def test_own_script_survives_what_users_do(shell: Shell, preamble: str, recorded: bool, tmp_path: Path) -> None:
    if "umask 777" in preamble:
        preamble = "set -C"  # the test could not read what it wrote
    tree = Tree(tmp_path / "it's an é!\\", tmp_path / "called")
    source = own(tree, shell, tree.root if recorded else tmp_path / "gone", "echo the maker")
    tree.unpack(12)
    done = run(shell, tmp_path, [preamble, source, f'echo "code {shell.status}"', "DUMP"])
    assert "BAD" not in done.stdout + done.stderr
    assert done.stderr == ("" if recorded else "stale: 12\n")
    assert done.stdout.splitlines() == [*(["the maker"] if recorded else []), "code 0"]
    if not recorded:
        assert done.dumps[0]["CONDA_PREFIX"] == str(tree.root)


@every_sh
def test_own_script_that_is_run_says_that_it_must_be_sourced(shell: Shell, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called")
    own(tree, shell, tree.root, "echo the maker")
    done = run(shell, tmp_path, [f"{shlex.join(shell.argv)} env/bin/activate; echo code $?"])
    assert done.stdout == "code 2\n"
    assert "must be sourced" in done.stderr


@every_shell
def test_own_script_says_where_it_cannot_find_itself(shell: Shell, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called")
    source = own(tree, shell, tree.root, "echo the maker")
    lines = [source, f'echo "code {shell.status}"']
    done = without_proc(shell, tmp_path, lines, cwd=Path("/"))
    if shell.names_itself:
        assert (done.stdout, done.stderr) == ("the maker\ncode 0\n", "")
    else:
        assert done.stdout == "code 3\n"
        assert f"'{tree.root}'" in done.stderr or f"{tree.root} " in done.stderr


# --- conda-unpack ----------------------------------------------------------------------------------

RELOCATOR = """
import json, os, sys
flags = sys.flags
print(json.dumps([sys.argv[1:], flags.isolated, flags.no_site, flags.utf8_mode, flags.dont_write_bytecode]))
"""


@pytest.fixture
def unpackable(tmp_path: Path) -> Path:
    """A tree with a relocator that says how it was run, and with no Python yet."""
    root = tmp_path / "my env"
    (root / "bin").mkdir(parents=True)
    (root / ".pack/relocator").mkdir(parents=True)
    (root / ".pack/relocator/__main__.py").write_text(RELOCATOR)
    script = root / "bin/conda-unpack"
    script.write_bytes(activation.scripts("activate", None, b"")[b"bin/conda-unpack"])
    script.chmod(activation.MODE)
    return root


def fake_python(path: Path, *, new_enough: bool = True, condition: str = "true") -> None:
    """Put a Python there that stays inside the tree: a program that hands over to the real one."""
    answer = "exit 1" if not new_enough else f'exec {shlex.quote(sys.executable)} "$@"'
    path.write_text(
        f"#!/bin/sh\n{condition} || exit 127\necho {path.name} >>{shlex.quote(str(path.parent / 'tried'))}\n{answer}\n"
    )
    path.chmod(0o755)


def unpack(command: Sequence[str | Path], tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(tmp_path, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [[], ["-v"], ["--version"], ["-h"], ["--activation"], ["a b", "$(x)", ""]], ids=repr
)
def test_conda_unpack_hands_over_root_and_arguments(arguments: list[str], unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3")
    done = unpack([unpackable / "bin/conda-unpack", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'["unpack", "{unpackable}"' in done.stdout
    assert done.stdout.rstrip().endswith("1, 1, 1, 1]")
    for argument in arguments:
        assert f'"{argument}"' in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--activation"], ["--version"]], ids=repr)
def test_conda_unpack_refuses_what_is_not_completely_installed(
    arguments: list[str], unpackable: Path, tmp_path: Path
) -> None:
    fake_python(unpackable / "bin/python3")
    (unpackable / ".installing").write_text("{}")
    command: list[str | Path] = [unpackable / "bin/conda-unpack", *arguments]
    for refused in (unpack(command, tmp_path), unpack(command, tmp_path, _PACK_INSTALLING="")):
        assert (refused.returncode, refused.stdout) == (12, "")
        assert refused.stderr == f"conda-unpack: {unpackable}: {NOT_COMPLETED}\n"
    assert not (unpackable / "bin/tried").exists()
    done = unpack(command, tmp_path, _PACK_INSTALLING="1")
    assert done.returncode == 0 and f'["unpack", "{unpackable}"' in done.stdout


@pytest.mark.parametrize("way", ["relative", "in bin", "PATH", "symlink", "chain", "sh", "symlinked directory"])
def test_conda_unpack_finds_its_tree(way: str, unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/one").symlink_to("../my env/bin/conda-unpack")
    (tmp_path / "two").symlink_to("links/one")
    (tmp_path / "root").symlink_to(unpackable)
    command: Sequence[str | Path] = {
        "relative": ["./my env/bin/conda-unpack"],
        "in bin": ["sh", "-c", 'cd "my env/bin" && sh conda-unpack'],
        "PATH": ["sh", "-c", 'PATH="$PWD/my env/bin:$PATH" && conda-unpack'],
        "symlink": ["links/one"],
        "chain": ["./two"],
        "sh": ["sh", "my env/bin/conda-unpack"],
        "symlinked directory": ["./root/bin/conda-unpack"],
    }[way]
    done = unpack(command, tmp_path, CDPATH="/tmp")
    assert f'["unpack", "{unpackable}"]' in done.stdout, done.stderr


# Native zsh is no sh, and nothing runs a "#!/bin/sh" with it.
@pytest.mark.parametrize("shell", [shell for shell in POSIX if shell.name != "zsh"], ids=lambda shell: shell.name)
def test_conda_unpack_runs_in_any_sh(shell: Shell, unpackable: Path, tmp_path: Path) -> None:
    need(shell.argv[0])
    fake_python(unpackable / "bin/python3.12")
    done = unpack([*shell.argv, unpackable / "bin/conda-unpack", "-v"], tmp_path)
    assert f'["unpack", "{unpackable}", "-v"]' in done.stdout, done.stderr


def test_conda_unpack_needs_nothing_of_the_users_environment(unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3")
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("python3", "python", "readlink", "dirname"):
        (trap / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/trapped\n")
        (trap / name).chmod(0o755)
    (trap / "json.py").write_text("raise SystemExit(1)\n")
    hostile = {"PYTHONHOME": "/nowhere", "PYTHONPATH": str(trap), "PYTHONSTARTUP": "/x", "LD_LIBRARY_PATH": str(trap)}
    (tmp_path / "link").symlink_to(unpackable / "bin/conda-unpack")
    for path in (str(trap), "", "/nowhere"):
        done = unpack([tmp_path / "link"], tmp_path, PATH=path, **hostile)
        assert f'["unpack", "{unpackable}"]' in done.stdout, done.stderr
    assert not (tmp_path / "trapped").exists()


def test_conda_unpack_takes_the_first_python_that_runs_and_is_new_enough(unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3", new_enough=False)
    (unpackable / "bin/python").write_text("#!/nowhere/python\n")
    (unpackable / "bin/python").chmod(0o755)
    (unpackable / "bin/python3-config").write_text("#!/bin/sh\ntouch wrong\n")
    (unpackable / "bin/python3-config").chmod(0o755)
    (unpackable / "bin/python3.9").mkdir()
    fake_python(unpackable / "bin/python3.12")
    done = unpack([unpackable / "bin/conda-unpack"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (unpackable / "bin/tried").read_text().split() == ["python3", "python3.12", "python3.12"]


def test_conda_unpack_prefers_a_python_inside_and_takes_one_outside(unpackable: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    fake_python(outside / "python3")
    (unpackable / "bin/python3").symlink_to(outside / "python3")
    (unpackable / "bin/python").symlink_to("python3")
    done = unpack([unpackable / "bin/conda-unpack"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (outside / "tried").read_text()
    (outside / "tried").unlink()
    fake_python(unpackable / "bin/python3.12")
    done = unpack([unpackable / "bin/conda-unpack"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (outside / "tried").exists()


def test_conda_unpack_keeps_strange_libraries_from_a_python_that_runs_without(unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3", condition='test -z "${LD_LIBRARY_PATH+set}"')
    assert unpack([unpackable / "bin/conda-unpack"], tmp_path, LD_LIBRARY_PATH="/hostile").returncode == 0


def test_conda_unpack_lends_a_python_the_library_path_that_it_needs(unpackable: Path, tmp_path: Path) -> None:
    fake_python(unpackable / "bin/python3", condition='test "$LD_LIBRARY_PATH" = /module/lib')
    assert unpack([unpackable / "bin/conda-unpack"], tmp_path, LD_LIBRARY_PATH="/module/lib").returncode == 0
    assert unpack([unpackable / "bin/conda-unpack"], tmp_path).returncode == 10


@pytest.mark.parametrize("what", ["nothing", "dangling", "not executable", "too old"])
def test_conda_unpack_without_python_says_so(what: str, unpackable: Path, tmp_path: Path) -> None:
    python = unpackable / "bin/python3"
    if what == "dangling":
        python.symlink_to("/nowhere/python3")
    elif what == "not executable":
        python.write_text("")
    elif what == "too old":
        fake_python(python, new_enough=False)
    done = unpack([unpackable / "bin/conda-unpack"], tmp_path)
    assert done.returncode == 10
    assert "holds no Python" in done.stderr
    gone = "Its bin/python3 is a link to /nowhere/python3, which is not on this machine: put the same Python there.\n"
    assert (gone in done.stderr) == (what == "dangling")
    assert f"pack relocate {unpackable}" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_conda_unpack_survives_any_path(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    (root / "bin").mkdir(parents=True)
    (root / ".pack/relocator").mkdir(parents=True)
    (root / ".pack/relocator/__main__.py").write_text("import sys, os\nos.write(1, os.fsencode(sys.argv[2]))\n")
    script = root / "bin/conda-unpack"
    script.write_bytes(activation.scripts("activate", None, b"")[b"bin/conda-unpack"])
    script.chmod(activation.MODE)
    (root / "bin/python3").symlink_to(sys.executable)
    (tmp_path / "link").symlink_to(script)
    for command in (script, tmp_path / "link"):
        done = unpack([command], tmp_path)
        assert done.stdout == str(root), done.stderr
    assert not (tmp_path / "pwned").exists()


# --- lint ------------------------------------------------------------------------------------------


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "env", tmp_path / "called")
    (tree.root / "bin").mkdir(parents=True)
    files = []
    for path, content in activation.scripts("activate", os.fsencode(tree.root), b"h", [(b"A", b"x y")]).items():
        if not path.endswith((b".fish", b".csh")):
            files.append(tree.root / os.fsdecode(path))
            files[-1].write_bytes(content)
    files.append(tree.root / "bin/own")
    files[-1].write_bytes(activation.own_head(b"bin/activate", b"", os.fsencode(tree.root)))
    assert len(files) == 4
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "-s", "sh", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
