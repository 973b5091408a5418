"""Every way in which a file can name its prefix, moved: in packages, in a plain prefix, in a virtual environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import references
from tests.conformance import peer
from tests.conftest import need
from tests.integration.machines import mounts
from tests.integration.moving import (
    activated,
    clone,
    move,
    pack,
    pack_env,
    packed_and_deleted,
    run,
    sh,
    short_directory,
    snapshot,
    unpack,
    wheel,
)

# The Python that the virtual environment of the tests was made with.
BASE = getattr(sys, "_base_executable", sys.executable)
DAMAGE = re.compile(r"not found|damaged|lost|NULs inside|another|exit code|cannot be run")


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory whose path is short."""
    with short_directory() as directory:
        yield directory


def same_but_for(before: dict[str, str], after: dict[str, str], old: Path, new: Path) -> None:
    """Require that every program prints the same, with the new prefix in the place of the old."""
    assert before
    after = {name: printed for name, printed in after.items() if name in before}
    assert after == {name: printed.replace(str(old), str(new)) for name, printed in before.items()}


# --- packages, installed by a client


@pytest.fixture(scope="module")
def packages(
    session_directory: Path, channel: Path, references_channel: Path, package_cache: Path
) -> tuple[Path, dict[str, str]]:
    """The archive of all packages made for the tests, and what their programs printed before it was made."""
    directory = session_directory / "references-gone"
    printed = directory / "printed.json"

    def note(prefix: Path) -> None:
        printed.write_text(json.dumps(references.run_programs(prefix)))

    specs = ("python", *references.available())
    archive = packed_and_deleted(directory, specs, [channel, references_channel], package_cache, note)
    return archive, json.loads(printed.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tell what the compiled programs print that no client has padded."""
    prefix = tmp_path_factory.mktemp("whole") / "env"
    references.build_into(prefix, [name for name in references.COMPILED if name in references.available()])
    return references.run_programs(prefix)


def test_packages_print_the_same_after_each_move(
    packages: tuple[Path, dict[str, str]], whole: dict[str, str], tmp_path: Path
) -> None:
    """Programs of packages work at a new place as they did where a client installed them, and at the next.

    What the client's NULs destroyed is whole again, as where no client was: names of symbols, strings whose end
    another shares, and strings whose readers count.
    """
    archive, before = packages
    damaged = {name for name, printed in before.items() if DAMAGE.search(printed) or "tail: \n" in printed}
    assert damaged >= {"ref-exports", "ref-c", "ref-cxx"}
    before = {name: whole[name] if name in damaged else printed for name, printed in before.items()}
    assert not any(DAMAGE.search(printed) for printed in before.values())
    old = archive.parent / "source" / "env"
    tree = clone(archive, tmp_path / "one" / "env")
    for target in (tree, tmp_path / "two" / "another name of another length", tmp_path / "three" / "env"):
        tree = move(tree, target) if target != tree else tree
        if " " in target.name:
            continue  # see test_an_interpreter_without_a_way_through_sh: just a place on the way
        activated(tree, "true")
        same_but_for(before, references.run_programs(tree), old, target)
        assert "are right" in pack("verify", tree).stdout


@pytest.mark.parametrize("maker", ["virtualenv", "uv"])
def test_what_others_make_moves(maker: str, tmp_path: Path) -> None:
    """A virtual environment of virtualenv and of uv, with a distribution in it that they installed."""
    program = peer.program(maker)
    source = tmp_path / "source" / "venv"
    python = ["--python", BASE]
    install: list[str | Path]
    if maker == "uv":
        run([program, "venv", "--offline", *python, source], env=os.environ)
        install = [program, "pip", "install", "--offline", "--python", source / "bin/python"]
    else:
        run([program, "--no-download", *python, source], env=os.environ)
        install = [source / "bin/pip", "install", "--no-index"]
    run([*install, wheel(tmp_path)], env=os.environ)
    archive = pack_env(source, tmp_path / "venv.tar")
    run(["rm", "-rf", source])
    for script in ("pack-activate", "activate"):
        for shell, suffix in (("bash", ""), ("zsh", ""), ("fish", ".fish"), ("tcsh", ".csh")):
            tree = unpack(archive, tmp_path / "a place, with (some) spaces" / f"{script} in {shell}")
            for _ in range(2):
                command = f"source '{tree}/bin/{script}{suffix}'; tinyroot"
                assert run([need(shell), "-c", command]).stdout == f"{tree}\n", (script, shell)
            assert run([tree / "bin" / "tinyroot"]).stdout == f"{tree}\n"
            assert "are right" in pack("verify", tree).stdout


def empty_venv(path: Path) -> Path:
    run([BASE, "-m", "venv", "--without-pip", path], env=os.environ)
    return path


def test_a_copy_of_a_virtual_environment_is_not_its_source(tmp_path: Path) -> None:
    """The first activation relocates it, though the place that its scripts name is still there."""
    source = empty_venv(tmp_path / "venv")
    tree = unpack(pack_env(source, tmp_path / "venv.tar"), tmp_path / "copy")
    before = snapshot(source)
    asked = "echo $VIRTUAL_ENV; command -v python; deactivate; echo ${VIRTUAL_ENV-none}"
    assert activated(tree, asked).stdout.splitlines() == [str(tree), f"{tree}/bin/python", "none"]
    assert "are right" in pack("verify", tree).stdout
    assert snapshot(source) == before


def test_a_virtual_environment_that_cannot_be_written_is_activated_all_the_same(tmp_path: Path) -> None:
    """Its own script would set the paths of the past: ours stands in, and says what is stale."""
    source = empty_venv(tmp_path / "source" / "venv")
    archive = pack_env(source, tmp_path / "venv.tar")
    run(["rm", "-rf", source])
    tree = unpack(archive, tmp_path / "tree")
    before = snapshot(tree)
    asked = "command -v python; python -c 'import sys; print(sys.prefix)'"
    read_only = f"mount --bind {tree} {tree}; mount -o remount,bind,ro {tree}"
    done = mounts(f"{read_only}; . {tree}/bin/activate; {asked}")
    assert done.stdout.splitlines() == [f"{tree}/bin/python", str(tree)]
    assert "cannot be written" in done.stderr
    mounts(f"{read_only}; PACK_RELOCATE=require; . {tree}/bin/activate; echo on", code=9)
    assert snapshot(tree) == before


def test_a_virtual_environment_is_packed_again_as_it_was(tmp_path: Path) -> None:
    """What relocates it is put before its scripts once, and not again where the user has edited them since."""
    source = empty_venv(tmp_path / "source" / "venv")
    archive = pack_env(source, tmp_path / "venv.tar")
    run(["rm", "-rf", source])
    tree = unpack(archive, tmp_path / "here" / "venv")
    assert pack_env(tree, tmp_path / "unpacked.tar").read_bytes() == archive.read_bytes()
    activated(tree, ":")
    again = pack_env(tree, tmp_path / "again.tar")
    assert again.read_bytes() == archive.read_bytes()
    script = tree / "bin" / "activate"
    script.write_text(script.read_text() + "echo edited\n")
    there = unpack(pack_env(tree, tmp_path / "edited.tar"), tmp_path / "there")
    assert activated(there, "echo $VIRTUAL_ENV").stdout.splitlines() == ["edited", str(there)]
    assert (there / "bin" / "activate").read_text().count("# Added by pack.") == 1


def test_where_no_script_can_relocate_a_virtual_environment_packing_says_so(tmp_path: Path) -> None:
    """Inside the quotes of a shell such a path is written otherwise, and would not be found there again."""
    source = empty_venv(tmp_path / "it's")
    said = "activate it with bin/pack-activate first:"
    assert said in pack("-p", source, "-o", tmp_path / "venv.tar").stdout
    plain = empty_venv(tmp_path / "plain")
    assert said not in pack("-p", plain, "-o", tmp_path / "plain.tar").stdout


def test_a_virtual_environments_python_is_asked_for_in_words(tmp_path: Path) -> None:
    """It is not packed: packing says so, and so do those who miss it where the environment goes."""
    base = tmp_path / "base" / "python3"
    source = empty_venv(tmp_path / "source" / "venv")
    base.parent.mkdir()
    base.symlink_to((source / "bin" / "python3").resolve())
    for link in [path for path in (source / "bin").iterdir() if path.name.startswith("python")]:
        link.unlink()
        link.symlink_to(base)
    archive = tmp_path / "venv.tar"
    done = pack("-p", source, "-o", archive)
    assert f"its Python is not packed: where it goes, {base} must be, too; --with-python packs it\n" in done.stderr
    run(["rm", "-rf", source, base])
    unpacked = pack("unpack", archive, tmp_path / "unpacked")
    assert f"leads to what is not on this machine: bin/python3: {base}\n" in unpacked.stdout
    tree = unpack(archive, tmp_path / "tree")
    said = f"Its bin/python3 is a link to {base}, which is not on this machine: put the same Python there.\n"
    assert said in activated(tree, ":").stderr
    base.symlink_to(BASE)
    assert activated(tree, "python -c 'import sys; print(sys.prefix)'").stdout == f"{tree}\n"


@pytest.mark.parametrize(
    ("shell", "script", "say"),
    [
        ("bash", "activate", 'echo "$VIRTUAL_ENV"'),
        ("zsh", "activate", 'echo "$VIRTUAL_ENV"'),
        ("tcsh", "activate.csh", 'echo "$VIRTUAL_ENV:q"'),
        ("fish", "activate.fish", 'echo "$VIRTUAL_ENV"'),
    ],
)
def test_activation_scripts_without_quotes(shell: str, script: str, say: str, tmp_path: Path) -> None:
    """As CPython writes them since 3.12.8: where a virtual environment is made at a path that needs no quotes."""
    need(shell)
    source = empty_venv(tmp_path / "source" / "venv")
    own = source / "bin" / script
    bare = re.sub(f"([\"']){re.escape(str(source))}\\1", str(source), own.read_text())
    assert re.search(f"VIRTUAL_ENV[ =]{re.escape(str(source))}$", bare, re.MULTILINE)
    own.write_text(bare)
    archive = tmp_path / "venv.tar"
    pack("-p", source, "-o", archive)
    run(["rm", "-rf", source])
    tree = unpack(archive, tmp_path / "here & there; (a new) place" / "venv")
    python = "python -c 'import sys; print(sys.prefix)'"
    printed = run([shell, "-c", f"source '{tree}/bin/{script}'; {say}; {python}"]).stdout
    assert printed.splitlines() == [str(tree)] * 2
    back = move(tree, tmp_path / "plain")
    run([back / "bin" / "conda-unpack"])
    assert (back / "bin" / script).read_text().endswith("\n" + bare.replace(str(source), str(back)))


def test_an_interpreter_without_a_way_through_sh(packages: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """A script that no first line can start at a path with spaces refuses that path, by name, before any write."""
    tree = clone(packages[0], tmp_path / "with spaces" / "env")
    before = snapshot(tree)
    done = run([tree / "bin" / "conda-unpack"], code=8)
    assert re.search(r"^bin/ref-shell: the shebang at byte 0 cannot be written: .*ref-sh", done.stderr, re.MULTILINE)
    assert "ref-python" not in done.stderr
    assert "ref-perl" not in done.stderr
    assert snapshot(tree) == before


# --- what "make install" leaves


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    """A prefix of 100 bytes that no package manager knows: its archive, its path, and what its programs print."""
    directory = tmp_path_factory.mktemp("plain")
    prefix = directory / ("p" * (100 - len(os.fsencode(directory)) - 5)) / "env"
    references.build_into(prefix)
    before = references.run_programs(prefix)
    assert [f"{name}: {printed}" for name, printed in before.items() if DAMAGE.search(printed)] == []
    scanned = json.loads(pack("scan", "--json", "-p", prefix).stdout)
    archive = pack_env(prefix, directory / "plain.tar")
    run(["rm", "-rf", prefix.parent])
    # Rust's literals run into one another, so nothing proves where one begins: reported, and left alone.
    uncertain = {finding["path"] for finding in scanned["findings"] if finding["what"] == "uncertain"}
    assert uncertain - {"share/ref-text/decoys.txt"} == {"bin/ref-rust"} & {f"bin/{name}" for name in before}
    before.pop("ref-rust", None)
    return archive, prefix, before


@pytest.mark.parametrize(
    "name",
    ["env", "e", "other", "", "a/much/deeper/directory/env", "same length"],
)
def test_a_plain_prefix_works_where_it_fits(
    name: str, plain: tuple[Path, Path, dict[str, str]], room: Path, tmp_path: Path
) -> None:
    """Compiled programs, scripts and text of a `make install` work at any place that is not longer."""
    archive, old, before = plain
    target = room / name if name else room / "x"
    if name == "same length":
        target = room / ("y" * (len(str(old)) - len(str(room)) - 1))
        assert len(str(target)) == len(str(old))
    tree = unpack(archive, target)
    pack("relocate", tree)
    same_but_for(before, references.run_programs(tree), old, target)
    assert "are right" in pack("verify", tree).stdout
    # And on to the next place, back in the long one.
    back = move(tree, old.with_name("again"))
    pack("relocate", back, code=8)
    back = move(back, old)
    pack("relocate", back)
    same_but_for(before, references.run_programs(back), old, old)
    run(["rm", "-rf", back.parent])


def test_a_plain_prefix_refuses_what_is_longer(plain: tuple[Path, Path, dict[str, str]], room: Path) -> None:
    """A path longer by one byte than a compiled-in one is refused, naming each file and offset, before any write."""
    archive, old, _ = plain
    tree = unpack(archive, room / ("y" * (len(str(old)) - len(str(room)))))
    before = snapshot(tree)
    done = pack("relocate", tree, code=8)
    assert snapshot(tree) == before
    for path, what in {
        "bin/ref-c": "C string",
        "bin/ref-cxx": "counted string",
        "bin/ref-interpreter": "interpreter",
    }.items():
        pattern = (
            rf"^{path}: the {what} at byte \d+ has room for {len(str(old))} bytes, .* needs {len(str(old)) + 1}\.$"
        )
        assert re.search(pattern, done.stderr, re.MULTILINE), done.stderr
    # C strings may be given up, on demand; what a program is loaded by may not.
    forced = pack("relocate", "--allow-unrelocated", tree, code=8)
    assert "C string" not in forced.stderr
    assert snapshot(tree) == before


def test_at_the_root(plain: tuple[Path, Path, dict[str, str]]) -> None:
    """Compiled-in paths are filled up without changing their length where the prefix is one component."""
    archive, old, before = plain
    if not os.access("/", os.W_OK):
        pytest.skip("only root may make a directory at the root")
    with short_directory("/") as directory:
        directory.rmdir()
        tree = unpack(archive, directory)
        pack("relocate", tree)
        same_but_for(before, references.run_programs(tree), old, tree)


def test_make_install_of_one_program(room: Path, tmp_path: Path) -> None:
    """A program that was copied into a directory with the library that its RUNPATH names moves as it is."""
    need("gcc")
    prefix = tmp_path / "opt" / "hello-1.0"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").mkdir()
    (tmp_path / "l.c").write_text('const char *word(void) { return "hello"; }\n')
    (tmp_path / "p.c").write_text("#include <stdio.h>\nconst char *word(void);\nint main() { puts(word()); }\n")
    run(["gcc", "-shared", "-fPIC", "-o", prefix / "lib" / "libword.so", tmp_path / "l.c"])
    run(["gcc", "-o", tmp_path / "p", tmp_path / "p.c", f"-L{prefix}/lib", "-lword", f"-Wl,-rpath,{prefix}/lib"])
    run(["cp", tmp_path / "p", prefix / "bin" / "hello"])
    archive = pack_env(prefix, tmp_path / "hello.tar.gz")
    run(["rm", "-rf", prefix])
    tree = unpack(archive, room / "hello")
    pack("relocate", tree)
    assert run([tree / "bin" / "hello"], env={}).stdout == "hello\n"


# --- neighbours whose names contain the prefix's


def test_neighbours_are_left_alone(room: Path) -> None:
    """Paths below /opt/env2, /opt/env-old or /usr/opt/env are none of /opt/env, in text and in programs."""
    need("gcc")
    prefix, neighbour = room / "opt" / "env", room / "opt" / "env2"
    for directory in (prefix, neighbour):
        (directory / "bin").mkdir(parents=True)
        (directory / "data").write_text(f"data of {directory.name}\n")
    others = [
        f"{neighbour}/data",
        f"{prefix}-old/data",
        f"{prefix}.d/data",
        f"/usr{prefix}/data",
        f"relative{prefix}/x",
    ]
    lines = [f"{prefix}/data", *others, f"PATH={neighbour}/bin:{prefix}/bin:/usr{prefix}/bin"]
    (prefix / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    strings = ", ".join(json.dumps(line) for line in lines[:-1])
    (room / "p.c").write_text(
        f"#include <stdio.h>\nstatic const char *volatile all[] = {{{strings}}};\n"
        "int main() { for (unsigned i = 0; i < sizeof all / sizeof *all; i++) puts(all[i]); }\n"
    )
    run(["gcc", "-O2", "-o", prefix / "bin" / "list", room / "p.c"])
    archive = pack_env(prefix, room / "env.tar")
    run(["rm", "-rf", prefix])
    tree = unpack(archive, room / "n" / "env")
    pack("relocate", tree)
    assert (tree / "list.txt").read_text().splitlines() == [
        f"{tree}/data",
        *others,
        f"PATH={neighbour}/bin:{tree}/bin:/usr{prefix}/bin",
    ]
    own, *rest = run([tree / "bin" / "list"]).stdout.splitlines()
    assert os.path.normpath(own) == f"{tree}/data"
    assert Path(own).read_text() == "data of env\n"
    assert rest == others


# --- a virtual environment


def test_a_virtual_environment_moves(room: Path, tmp_path: Path) -> None:
    """A venv works after a move, with its packages, its scripts and pip, on the Python that it was made with."""
    source = tmp_path / "source" / "venv"
    made = subprocess.run([BASE, "-m", "venv", source], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    module = source / "lib" / version / "site-packages" / "mine.py"
    module.write_text(f"WHERE = {str(source)!r}\n")
    archive = pack_env(source, tmp_path / "venv.tar")
    run(["rm", "-rf", source])
    code = "import mine, pip, sys; print(sys.prefix, mine.WHERE, pip.__file__, sep=chr(10))"
    for target in (room / "v", tmp_path / "longer than before, with spaces" / "the virtual environment"):
        tree = unpack(archive, target)
        pip = f"{tree}/lib/{version}/site-packages/pip"
        expected = [str(tree), str(tree), f"{pip}/__init__.py"]
        # Before relocation: the interpreter finds its pyvenv.cfg, and pip's script the interpreter.
        assert f" from {pip} " in run([tree / "bin" / "pip", "--version"], env={}).stdout
        assert run([tree / "bin" / "python", "-c", "import sys; print(sys.prefix)"], env={}).stdout == f"{tree}\n"
        # bin/activate is the virtual environment's own, and relocates it.
        for _ in range(2):
            assert activated(tree, f"python -c '{code}'").stdout.splitlines() == expected
        assert sh(f". {shlex.quote(f'{tree}/bin/pack-activate')} && python -c '{code}'").stdout.splitlines() == expected
        assert f" from {pip} " in activated(tree, "pip --version && deactivate").stdout
        assert "are right" in pack("verify", tree).stdout
