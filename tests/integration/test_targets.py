"""Where an environment can be moved to, and where it cannot; what is refused is refused before any write."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import NATIVE_SPECS, need
from tests.integration.moving import (
    Run,
    activated,
    as_another_user,
    clone,
    move,
    pack,
    packed_and_deleted,
    run,
    short_directory,
    snapshot,
    stamps,
    unpack,
)


@pytest.fixture(scope="module")
def native(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    return packed_and_deleted(session_directory / "native-gone", NATIVE_SPECS, [channel], package_cache)


@pytest.fixture(scope="module")
def small_python(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    return packed_and_deleted(session_directory / "small-gone", ("python", "pip"), [channel], package_cache)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory whose path is short, and open to every user."""
    with short_directory() as directory:
        yield directory


def of_length(base: Path, length: int) -> Path:
    """Give a path below ``base`` of so many bytes in all."""
    path = base
    while (left := length - len(os.fsencode(path))) > 0:
        assert left > 1
        # No component is longer than 255, and none of the last ones is empty.
        path = path / ("d" * (left - 1 if left <= 201 else 198))
    return path


# A name, and how the target follows from a short directory and from where the environment was.
ACCEPTED: dict[str, Callable[[Path, Path], Path]] = {
    "shorter": lambda room, old: room / "e",
    "longer": lambda room, old: of_length(room, 200),
    "the longest shebang": lambda room, old: of_length(room, 127 - len("#!/bin/python3.11\n")),
    "one more than that": lambda room, old: of_length(room, 128 - len("#!/bin/python3.11\n")),
    "spaces": lambda room, old: room / "my  apps" / "an env ",
    "unicode": lambda room, old: room / "größe 数学 🐍" / "é",
    "hyphens and percent signs": lambda room, old: room / "-x" / "%2F%s" / "a+b,c;d#e~(f)[g]{h}&i=j|k<l>m!n?o*p^q@r",
    "begins with the old path": lambda room, old: old.with_name(old.name + "-2"),
    "inside the old path": lambda room, old: old / "below" / old.name,
    "above the old path": lambda room, old: old.parent,
    "the old path cut short": lambda room, old: old.with_name(old.name[:-1]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_native_programs_work_there(case: str, native: Path, room: Path, tmp_path: Path) -> None:
    """An environment can be unpacked at such a path, and relocated from one place to the next."""
    # The place of installation is shared by tests: it is a second move that goes near the old path.
    old = tmp_path / "first" / "apps" / "env"
    tree = unpack(native, old)
    pack("relocate", old)
    target = ACCEPTED[case](room, old)
    aside = move(tree, tmp_path / "aside")
    if target == old.parent:
        old.parent.rmdir()
    tree = move(aside, target)
    pack("relocate", target)
    found = run([tree / "bin" / "openssl", "version", "-d"]).stdout
    assert found == f'OPENSSLDIR: "{target}/ssl"\n'
    assert f"from file: {target}/share/terminfo/" in run([tree / "bin" / "infocmp", "xterm"]).stdout
    assert "are right" in pack("verify", target).stdout


@pytest.mark.parametrize(
    "case", ["longer", "the longest shebang", "one more than that", "spaces", "unicode", "hyphens and percent signs"]
)
def test_python_relocates_itself_there(case: str, small_python: Path, room: Path, tmp_path: Path) -> None:
    """The first activation at such a path is enough: Python, pip and TLS work, and each later one is silent."""
    target = ACCEPTED[case](room, tmp_path / "old" / "env")
    tree = clone(small_python, target)
    script = "python -c 'import ssl, sys; print(sys.prefix, ssl.get_default_verify_paths().cafile, sep=chr(10))'"
    done = activated(tree, f"{script}; pip --version")
    lines = done.stdout.splitlines()
    assert lines[:2] == [str(target), f"{target}/ssl/cert.pem"]
    assert f" from {target}/lib/python3.11/site-packages/pip " in lines[2]
    again = activated(tree, "python -c 'import sysconfig; print(sysconfig.get_config_var(\"LIBDIR\"))'")
    assert (again.stdout, again.stderr) == (f"{target}/lib\n", "")
    assert "are right" in pack("verify", target).stdout


def test_one_component_at_the_root(native: Path) -> None:
    """`/env` is as good a place as any other."""
    if not os.access("/", os.W_OK):
        pytest.skip("only root may make a directory at the root")
    target = Path("/x" + secrets.token_hex(4))
    try:
        tree = unpack(native, target)
        pack("relocate", tree)
        assert run([tree / "bin" / "openssl", "version", "-d"]).stdout == f'OPENSSLDIR: "{target}/ssl"\n'
        assert f"from file: {target}/share/terminfo/" in run([tree / "bin" / "infocmp", "xterm"]).stdout
    finally:
        shutil.rmtree(target, ignore_errors=True)


def test_too_long_a_target_is_refused_before_any_write(native: Path, small_python: Path, room: Path) -> None:
    """A path for which one string has no room is refused; every such file is named, and nothing has changed."""
    accepted = 255
    limits = pack("scan", "--limits", "-p", clone(native, room / "scanned")).stdout
    assert f"{accepted} bytes" in limits
    for archive in (native, small_python):
        tree = clone(archive, of_length(room, accepted + 1))
        before = snapshot(tree)
        if archive == native:
            runs = [pack("relocate", tree, code=8)]
        else:
            runs = [run([tree / "bin" / "conda-unpack"], code=8), activated(tree, "echo went on", code=8)]
        assert snapshot(tree) == before
        for done in runs:
            assert done.stdout == ""
            assert f"at most {accepted} bytes" in done.stderr
            refusals = re.findall(
                rf"^(\S+): the C string at byte (\d+) has room for {accepted} bytes, .* needs {accepted + 1}\.$",
                done.stderr,
                re.MULTILINE,
            )
            assert len(refusals) > 3
            for path, offset in refusals:
                with (tree / path).open("rb") as file:
                    file.seek(int(offset))
                    assert file.read(1) == b"/"
        shutil.rmtree(tree)


REFUSED = {
    "newline": "a\nb",
    "tab": "a\tb",
    "colon": "a:b",
    "command": "$(touch pwned)",
    "variable": "a$HOME",
    "backticks": "`touch pwned`",
    "double quote": 'a"; touch pwned; "',
    "single quote": "it's",
    "backslash": "a\\b",
}


def refused(tree: Path, done: Run, before: object, beside: Path) -> None:
    assert "cannot be" in done.stderr
    assert "Choose" in done.stderr
    assert "Traceback" not in done.stderr
    assert stamps(tree) == before
    assert [path for path in beside.iterdir() if path.name == "pwned"] == []
    assert not (tree / "pwned").exists()


@pytest.mark.parametrize("case", REFUSED)
def test_a_dangerous_target_is_refused(case: str, native: Path, tmp_path: Path) -> None:
    """A path that would mean something inside the environment's scripts is refused in words, and never run."""
    tree = clone(native, tmp_path / REFUSED[case] / "env")
    before = stamps(tree)
    refused(tree, pack("relocate", tree, code=7), before, Path.cwd())


@pytest.mark.parametrize("case", ["newline", "colon", "command", "double quote", "single quote"])
def test_scripts_survive_a_dangerous_place(case: str, small_python: Path, tmp_path: Path) -> None:
    """Unpacked at such a path, neither conda-unpack nor activation runs any of it or changes the tree."""
    tree = clone(small_python, tmp_path / REFUSED[case] / "env")
    before = stamps(tree)
    refused(tree, run([tree / "bin" / "conda-unpack"], cwd=tmp_path, code=7), before, tmp_path)
    done = activated(tree, "echo went on", cwd=tmp_path, code=7)
    refused(tree, done, before, tmp_path)
    assert done.stdout == ""


@dataclass(frozen=True)
class Fixed:
    """A tree that whoever runs ``wrap(command)`` cannot write."""

    tree: Path
    how: str

    def wrap(self, script: str) -> list[str | bytes | Path]:
        if self.how == "another user's":
            return as_another_user(["bash", "--norc", "-c", script])
        # A namespace of its own, in which root is who runs the test.
        need("unshare")
        tree = shlex.quote(str(self.tree))
        mounts = f"mount --bind {tree} {tree} && mount -o remount,bind,ro {tree} || exit 99"
        return ["unshare", "--map-root-user", "--mount", "bash", "--norc", "-c", f"{mounts}\n{script}"]

    def run(self, script: str, code: int = 0) -> Run:
        return run(self.wrap(script), code=code)


@pytest.fixture(params=["another user's", "a read-only mount"])
def fixed(request: pytest.FixtureRequest, small_python: Path, room: Path) -> Iterator[Fixed]:
    tree = room / "env"
    run(["cp", "-a", "-T", clone(small_python, room / "clone"), tree])
    done = Fixed(tree, request.param)
    if done.how == "another user's":
        run(["chmod", "-R", "a-w", tree])
    yield done
    run(["chmod", "-R", "u+w", tree])


def test_a_tree_that_cannot_be_written_activates(fixed: Fixed) -> None:
    """In a group's installation, or on a read-only mount, activation sets everything and says what is stale."""
    before = snapshot(fixed.tree)
    source = f". {shlex.quote(str(fixed.tree / 'bin' / 'activate'))} || exit"
    done = fixed.run(f"{source}\npip --version && python -c 'import ssl, sys; print(sys.prefix)' && echo $CONDA_PREFIX")
    assert f" from {fixed.tree}/lib/python3.11/site-packages/pip " in done.stdout
    assert done.stdout.splitlines()[1:] == [str(fixed.tree)] * 2
    assert "stale" in done.stderr
    assert f"{fixed.tree}/bin/conda-unpack" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert fixed.run(f"export PACK_RELOCATE=never\n{source}").stderr == ""
    assert fixed.run(f"export PACK_RELOCATE=require\n{source}\necho went on", code=9).stdout == ""
    assert snapshot(fixed.tree) == before


def test_conda_unpack_refuses_a_tree_that_cannot_be_written(fixed: Fixed) -> None:
    """conda-unpack says that it cannot write, with a code of its own, and has changed nothing."""
    before = snapshot(fixed.tree)
    done = fixed.run(f"exec {shlex.quote(str(fixed.tree / 'bin' / 'conda-unpack'))}", code=9)
    assert "cannot be written" in done.stderr
    assert snapshot(fixed.tree) == before


def test_a_relocated_tree_that_cannot_be_written_is_used_as_it_is(fixed: Fixed) -> None:
    """Relocated by its owner, a tree that others cannot write activates for them without a word."""
    run(["chmod", "-R", "u+w", fixed.tree])
    activated(fixed.tree, "true")
    run(["chmod", "-R", "a-w", fixed.tree])
    source = f". {shlex.quote(str(fixed.tree / 'bin' / 'activate'))}"
    done = fixed.run(f"{source} && python -c 'import ssl; print(ssl.get_default_verify_paths().cafile)'")
    assert (done.stdout, done.stderr) == (f"{fixed.tree}/ssl/cert.pem\n", "")
