"""What a tree does at an activation, by where it was relocated to, and what of that is still there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.integration.interrupting import (
    differences,
    inodes,
    kill,
    prefixes,
    relocate,
    shape,
    tricky,
    undisturbed,
)
from tests.integration.moving import activated, clone, move, pack, run, sh

PROGRAM = "python -B -c 'import sys; print(sys.prefix)'; printf '%s\\n' \"$CONDA_PREFIX\""


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, references_channel: Path, package_cache: Path) -> Path:
    return tricky(session_directory, channel, references_channel, package_cache)


@pytest.fixture
def tree(archive: Path, tmp_path: Path) -> Path:
    """A tree that is relocated to where it stands."""
    made = clone(archive, tmp_path / "original" / "env")
    relocate(made)
    return made


def copied(tree: Path, target: Path) -> Path:
    """Copy a tree with all of its times, links and modes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run(["cp", "-a", "-T", tree, target])
    return target


def test_one_tree_under_two_names_by_a_symlink(tree: Path, tmp_path: Path) -> None:
    """A tree that is reached through a symlink is at home under both names, and nobody writes to it."""
    (tmp_path / "alias").symlink_to(tree.parent)
    before = inodes(tree)
    for name in (tmp_path / "alias" / "env", tree, tmp_path / "alias" / "env"):
        done = activated(name, PROGRAM)
        assert (done.stdout, done.stderr) == (f"{tree}\n{tree}\n", "")
    run([tmp_path / "alias" / "env" / "bin" / "conda-unpack"])
    assert prefixes(tree) == [str(tree)]
    before.pop(".pack/state.json")
    assert {path: facts for path, facts in inodes(tree).items() if path in before} == before


def mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace of its own, where it may bind one directory to another."""
    if os.geteuid() != 0:
        pytest.skip("binding a directory to another needs root: run the tests as root")
    unshare = str(need("unshare"))
    if subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        pytest.skip("unshare -m is refused here: a container needs the capability SYS_ADMIN")
    return run([unshare, "-m", "sh", "-ec", script])


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_one_tree_under_two_mounts(tree: Path, tmp_path: Path, shell: str) -> None:
    """Activated in turn under two mounts, neither of them a symlink, it is never rewritten."""
    other = tmp_path / "mnt" / "env"
    other.mkdir(parents=True)
    before = inodes(tree)
    turn = f"{shell} -c {shlex.quote(f'. {other}/bin/activate; {PROGRAM}')}"
    home = f"{shell} -c {shlex.quote(f'. {tree}/bin/activate; {PROGRAM}')}"
    done = mounts(f"mount --bind {tree} {other}\n{turn}\n{home}\n{turn}")
    assert done.stderr == ""
    assert done.stdout == f"{tree}\n{tree}\n" * 3
    assert inodes(tree) == before


def test_two_mounts_and_first_activations_at_once(archive: Path, tmp_path: Path) -> None:
    """First activations under two mounts at once: one relocates, and the other takes it as it is."""
    tree = clone(archive, tmp_path / "original" / "env")
    other = tmp_path / "mnt" / "env"
    other.mkdir(parents=True)
    log = tmp_path / "log"
    both = "\n".join(f"sh -c '. {place}/bin/activate; python -B -c pass' 2>>{log} &" for place in (tree, other))
    mounts(f"mount --bind {tree} {other}\n{both}\nwait")
    assert log.read_text() == ""
    (winner,) = prefixes(tree)
    assert winner in (str(tree), str(other))
    state = json.loads((tree / ".pack" / "state.json").read_text())
    assert state["history"] == [winner], "one undid what the other had done"


def test_a_copy_of_what_still_exists_is_left_alone(tree: Path, tmp_path: Path) -> None:
    """Activating a copy sets everything, writes nothing, and prints one line that names bin/conda-unpack."""
    copy = copied(tree, tmp_path / "copy" / "env")
    before, original = inodes(copy), inodes(tree)
    show = 'printf "%s\\n" "$CONDA_PREFIX" "${PATH%%:*}"; test "$CONDA_SHLVL" = 1'
    done = activated(copy, show)
    assert done.stdout == f"{copy}\n{copy}/bin\n"
    (line,) = done.stderr.splitlines()
    assert f"{copy}/bin/conda-unpack" in line
    assert str(tree) in line
    assert inodes(copy) == before

    quiet = sh(f"PACK_RELOCATE=never; export PACK_RELOCATE\n. {copy}/bin/activate\n{show}")
    assert (quiet.stdout, quiet.stderr) == (f"{copy}\n{copy}/bin\n", "")
    refused = sh(f'PACK_RELOCATE=require . {copy}/bin/activate; echo "$? ${{CONDA_PREFIX-unset}}"')
    assert refused.stdout == "12 unset\n"
    assert f"{copy}/bin/conda-unpack" in refused.stderr
    assert inodes(copy) == before

    run([copy / "bin" / "conda-unpack"])
    done = activated(copy, PROGRAM)
    assert (done.stdout, done.stderr) == (f"{copy}\n{copy}\n", "")
    pack("verify", copy)
    assert inodes(tree) == original
    pack("verify", tree)


def test_a_copy_relocates_when_its_original_is_gone(tree: Path, tmp_path: Path) -> None:
    """After the original is deleted, activating the copy relocates it."""
    copy = copied(tree, tmp_path / "copy" / "env")
    shutil.rmtree(tree)
    done = activated(copy, PROGRAM)
    assert (done.stdout, done.stderr) == (f"{copy}\n{copy}\n", "")
    assert prefixes(copy) == [str(copy)]
    pack("verify", copy)


def test_a_tree_of_another_host_is_left_alone(tree: Path, tmp_path: Path) -> None:
    """Where the state names another host, its prefix may exist there: only conda-unpack relocates."""
    state = tree / ".pack" / "state.json"
    document = json.loads(state.read_text())
    document["host"] = "node-that-is-not-this-one"
    os.unlink(state)
    state.write_text(json.dumps(document))
    at_home = activated(tree, PROGRAM)
    assert (at_home.stdout, at_home.stderr) == (f"{tree}\n{tree}\n", "")
    moved = move(tree, tmp_path / "moved" / "env")
    before = inodes(moved)
    (line,) = activated(moved, "true").stderr.splitlines()
    assert f"{moved}/bin/conda-unpack" in line
    assert inodes(moved) == before
    assert sh(f"PACK_RELOCATE=require . {moved}/bin/activate", code=None).returncode == 12
    run([moved / "bin" / "conda-unpack"])
    assert activated(moved, PROGRAM).stderr == ""
    assert json.loads(state_of(moved))["host"] == os.uname().nodename


def state_of(tree: Path) -> str:
    """Read the state of a tree."""
    return (tree / ".pack" / "state.json").read_text()


def test_a_copy_of_a_half_relocated_tree(archive: Path, tmp_path: Path) -> None:
    """A copy made while a later relocation stood half-way is left alone until it is told, and then comes out right."""
    expected = undisturbed(archive, tmp_path / "copy" / "env", history=False)
    tree = clone(archive, tmp_path / "a" / "env")
    relocate(tree)
    tree = move(tree, tmp_path / "b" / "env")
    kill(tree, "rename", 100)
    copy = copied(tree, tmp_path / "copy" / "env")
    (line,) = activated(copy, "true").stderr.splitlines()
    assert f"{copy}/bin/conda-unpack" in line
    relocate(copy)
    assert not differences(expected, shape(copy, history=False))
    # The tree itself goes on where it stopped, by itself: this is the place it was on its way to.
    assert activated(tree, PROGRAM).stderr == ""
    pack("verify", tree)


def test_status(archive: Path, tmp_path: Path) -> None:
    """pack status says where a tree thinks it is, and whether that is so."""
    tree = clone(archive, tmp_path / "a" / "env")
    unpacked = pack("status", tree).stdout
    assert "nothing yet: it is as archived" in unpacked
    assert "stale" in unpacked
    assert "bin/conda-unpack" in unpacked
    kill(tree, "rename", 100)
    half = pack("status", tree).stdout
    assert "interrupted" in half
    assert f"as archived, {tree}" in half
    assert "stale" in half
    relocate(tree)
    done = pack("status", tree).stdout.splitlines()
    assert done == [f"stands at     {tree}", f"relocated to  {tree}", "up to date"]
    moved = move(tree, tmp_path / "b" / "env")
    stale = pack("status", moved).stdout.splitlines()
    assert stale[:2] == [f"stands at     {moved}", f"relocated to  {tree}"]
    assert stale[2].startswith("stale ")
    facts = json.loads(pack("status", "--json", moved).stdout)
    assert facts["root"] == str(moved)
    assert facts["prefixes"] == [str(tree)]
    assert (facts["current"], facts["complete"]) == (False, True)
    pack("status", tmp_path, code=6)


def test_verify_is_clean_after_each_move(tree: Path, tmp_path: Path) -> None:
    """After a move and its relocation nothing is damaged, and nothing names any place of before."""
    pack("verify", tree)
    for place in ("b", "much-longer-than-before", "c"):
        tree = move(tree, tmp_path / place / "env")
        relocate(tree)
        assert json.loads(pack("verify", "--json", tree).stdout)["damaged"] is False


def test_verify_finds_damage(tree: Path, tmp_path: Path) -> None:
    """A changed byte, a file that is gone, a path left over, a link that leads elsewhere: each is found and named."""
    listed = json.loads((tree / ".pack" / "references.json").read_text())["files"]
    assert listed
    program = tree / "bin" / "ref-c"
    content = program.read_bytes()
    rewrite(program, content[:-1] + bytes([content[-1] ^ 1]))
    (tree / "lib" / "python3.11" / "this.py").unlink()
    stale = tmp_path / "before" / "env"
    moved = move(tree, tmp_path / "b" / "env")
    relocate(moved)
    (moved / "lib" / "own.conf").write_text(f"x = {tree}/lib\ny = {stale}\n")
    (moved / "share" / "own-link").symlink_to(f"{tree}/bin/python")
    link = next(path for path in sorted((moved / "lib").iterdir()) if path.is_symlink())
    link.unlink()
    link.symlink_to("nowhere")
    twice = next(sorted(group)[-1] for group in groups(moved))
    rewrite(moved / twice, b"another file\n")

    told = json.loads(pack("verify", "--json", moved, code=11).stdout)
    assert told["damaged"] is True
    found = {(each["path"], each["what"]) for each in told["findings"]}
    assert ("bin/ref-c", "changed") in found
    assert ("lib/python3.11/this.py", "missing") in found
    assert ("lib/own.conf", "left-over reference") in found
    assert ("share/own-link", "left-over reference") in found
    assert (f"lib/{link.name}", "changed") in found
    assert (twice, "changed") in found
    offsets = (each["offset"] for each in told["findings"] if each["path"] == "lib/own.conf")
    (at,) = (offset for offset in offsets if offset is not None)
    assert at == 4
    words = pack("verify", moved, code=11)
    assert "lib/own.conf at byte 4" in words.stdout
    assert "is not as its manifest says" in words.stderr


def rewrite(path: Path, content: bytes) -> None:
    """Give a path another file, so that what it was linked to stays as it was."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def groups(tree: Path) -> list[set[str]]:
    """Group the names of the files that have several in a tree."""
    names: dict[int, set[str]] = {}
    for directory, _, files in os.walk(tree):
        for path in (Path(directory, name) for name in files):
            names.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(tree)))
    return [group for group in names.values() if len(group) > 1]


def test_verify_of_modes(tree: Path) -> None:
    """A program that cannot be run any more or that others may write is damage; what a umask took is none."""
    program, record = tree / "bin" / "ref-c", tree / "conda-meta" / "history"
    # The tree is made of links to another, whose modes are not to change.
    for path in (program, record):
        rewrite(path, path.read_bytes())
    program.chmod(0o700)
    record.chmod(0o640)
    pack("verify", tree)
    program.chmod(0o600)
    record.chmod(0o666)
    told = json.loads(pack("verify", "--json", tree, code=11).stdout)
    damage = {(each["path"], each["what"]) for each in told["findings"]}
    assert damage >= {("bin/ref-c", "mode"), ("conda-meta/history", "mode")}


def test_the_marker_of_an_installation_is_nobodys_file(tree: Path, tmp_path: Path) -> None:
    """It is no finding of `verify`, no relocation writes it, and what it stands in is neither run nor packed."""
    marker = tree / ".installing"
    marker.write_text(json.dumps({"old": str(tree)}))
    told = json.loads(pack("verify", "--json", tree).stdout)
    assert [each for each in told["findings"] if each["path"] == ".installing"] == []
    moved = move(tree, tmp_path / "moved" / "env")
    refused = sh(f'. {moved}/bin/activate; echo "$? ${{CONDA_PREFIX-unset}}"')
    assert refused.stdout == "12 unset\n"
    (line,) = refused.stderr.splitlines()
    assert f"{moved}: an installation here was not completed" in line
    assert "was not completed" in run([moved / "bin" / "conda-unpack"], code=12).stderr
    assert "was not completed" in pack("-p", moved, "-o", tmp_path / "env.tar", code=4).stderr
    for command in ("relocate", "status"):
        said = pack(command, moved, code=12).stderr
        assert f"{moved}: an installation here was not completed" in said
        assert "Run the installer again, or unpack the delta with its base." in said
    assert json.loads((moved / ".installing").read_text()) == {"old": str(tree)}
    (moved / ".installing").unlink()
    pack("relocate", moved)
    assert prefixes(moved) == [str(moved)]
    pack("verify", moved)
