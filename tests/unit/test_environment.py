"""Environments are found by name, by path and by activation, in real directory trees."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from installer_stub.errors import EnvironmentNotFound, EnvironmentUnfit, PackError, UsageError
from pack import condarc
from pack.environment import Layout, find, list_environments


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that stands for the machine: its /etc, a home and a working directory."""
    monkeypatch.setattr(condarc, "SYSTEM_DIRECTORIES", (tmp_path / "etc/conda", tmp_path / "var/lib/conda"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path


def conda_env(prefix: Path) -> Path:
    """Make the least that is a conda environment."""
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    return prefix


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def filled(tree: Path, settings: dict[str, str]) -> dict[str, str]:
    """Return variables in which T stands for the tree."""
    return {name: value.replace("T/", f"{tree}/") for name, value in settings.items()}


def by_name(tree: Path, name: str, **settings: str) -> Path:
    """Return the prefix found for a name, relative to the tree, with a home unless settings say otherwise."""
    environ = filled(tree, {"HOME": "T/home", **settings})
    return find(name, None, environ, tree / "work").prefix.relative_to(tree)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Give up root's right to read everything, and yield a new directory that anyone may enter."""
    importlib.import_module("yaml")  # which may be where only root reads
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        if before == 0:
            os.chown(directory, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(directory)
        finally:
            os.seteuid(before)


# --- by name: (sentence, where the environment is, variables, files with their text) ---

PLACES = [
    ("CONDA_ENVS_PATH", "a/py", {"CONDA_ENVS_PATH": "T/none:T/a"}, {}),
    ("CONDA_ENVS_DIRS, with an empty entry", "a/py", {"CONDA_ENVS_DIRS": ":T/a:"}, {}),
    ("a tilde in CONDA_ENVS_DIRS", "home/mine/py", {"CONDA_ENVS_DIRS": "~/mine"}, {}),
    ("~/.conda/envs", "home/.conda/envs/py", {}, {}),
    ("the registered prefixes", "far/py", {}, {"home/.conda/environments.txt": "T/gone/py\nT/far/py/\n"}),
    ("the envs of CONDA_EXE's root", "opt/conda/envs/py", {"CONDA_EXE": "T/opt/conda/bin/conda"}, {}),
    ("the envs of CONDA_ROOT", "opt/conda/envs/py", {"CONDA_ROOT": "T/opt/conda"}, {}),
    ("a sibling of the active environment", "opt/conda/envs/py", {"CONDA_PREFIX": "T/opt/conda/envs/x"}, {}),
    ("the envs of MAMBA_ROOT_PREFIX", "mamba/envs/py", {"MAMBA_ROOT_PREFIX": "T/mamba"}, {}),
    ("micromamba's first default", "home/micromamba/envs/py", {}, {}),
    ("mamba's default", "home/.local/share/mamba/envs/py", {}, {}),
    ("mamba's default in XDG_DATA_HOME", "data/mamba/envs/py", {"XDG_DATA_HOME": "T/data"}, {}),
    (
        "conda in PATH",
        "opt/conda/envs/py",
        {"PATH": "T/opt/conda/condabin"},
        {"opt/conda/condabin/conda": ""},
    ),
    ("pixi, in the working directory", "work/.pixi/envs/py", {}, {}),
    ("pixi, in a directory above", ".pixi/envs/py", {}, {}),
    ("pixi's active project", "proj/.pixi/envs/py", {"PIXI_PROJECT_ROOT": "T/proj"}, {}),
    ("pixi's global environments", "home/.pixi/envs/py", {}, {}),
    ("pixi's global environments elsewhere", "pixi/envs/py", {"PIXI_HOME": "T/pixi"}, {}),
    ("a list in a condarc", "a/py", {}, {"home/.condarc": "envs_dirs:\n  - T/none\n  - T/a\n"}),
    ("the other name of the setting", "a/py", {}, {"home/.condarc": "envs_path: [T/a]\n"}),
    ("a string in a condarc", "a/py", {}, {"home/.condarc": "envs_dirs: T/none:T/a\n"}),
    ("a tilde in a condarc", "home/mine/py", {}, {"home/.condarc": "envs_dirs: ['~/mine']\n"}),
    ("a bare tilde, which YAML calls null", "home/py", {}, {"home/.condarc": "envs_dirs: [~]\n"}),
    (
        "variables in a condarc",
        "a/b/py",
        {"A": "T/a", "B": "b"},
        {"home/.condarc": "envs_dirs:\n- $A/${B}\n"},
    ),
    ("a relative path in a condarc", "a/py", {}, {"home/.condarc": "envs_dirs: [../a]\n"}),
    ("CONDARC", "a/py", {"CONDARC": "T/my.rc"}, {"my.rc": "envs_dirs: [T/a]\n"}),
    ("MAMBARC", "a/py", {"MAMBARC": "~/my.rc"}, {"home/my.rc": "envs_dirs: [T/a]\n"}),
    ("XDG_CONFIG_HOME", "a/py", {"XDG_CONFIG_HOME": "T/x"}, {"x/conda/condarc": "envs_dirs: [T/a]\n"}),
    ("the active environment's", "a/py", {"CONDA_PREFIX": "T/e"}, {"e/.condarc": "envs_dirs: [T/a]\n"}),
    ("the root's", "a/py", {"MAMBA_ROOT_PREFIX": "T/m"}, {"m/.mambarc": "envs_dirs: [T/a]\n"}),
    *(
        (f"a condarc at {file}", "a/py", {}, {file: "channels: [x]\nenvs_dirs: [T/a]\n"})
        for file in (
            "etc/conda/.condarc",
            "etc/conda/condarc",
            "etc/conda/condarc.d/site.yml",
            "var/lib/conda/condarc.d/site.yaml",
            "home/.config/conda/.condarc",
            "home/.config/conda/condarc.d/a.yml",
            "home/.conda/.condarc",
            "home/.conda/condarc",
            "home/.conda/condarc.d/a.yaml",
            "home/.config/mamba/mambarc",
            "home/.mamba/.mambarc",
            "home/.mambarc",
        )
    ),
]


@pytest.mark.parametrize(("sentence", "where", "settings", "files"), PLACES, ids=[row[0] for row in PLACES])
def test_a_name_is_found_in(
    tree: Path, sentence: str, where: str, settings: dict[str, str], files: dict[str, str]
) -> None:
    conda_env(tree / "opt/conda")
    prefix = conda_env(tree / where)
    for path, text in files.items():
        write(tree / path, text.replace("T/", f"{tree}/"))
    assert by_name(tree, "py", **settings) == Path(where)
    environ = filled(tree, {"HOME": "T/home", **settings})
    assert ("py", prefix) in list_environments(environ, tree / "work")


NOT_PLACES = [
    ("a file without YAML's suffix", "a/py", {}, {"home/.conda/condarc.d/site.txt": "envs_dirs: [T/a]\n"}),
    ("a directory without records", None, {"CONDA_ENVS_DIRS": "T/a"}, {"a/py/bin/python": ""}),
    ("another name registered", "far/python", {}, {"home/.conda/environments.txt": "T/far/python\n"}),
    ("a relative line, or a comment", "work/py", {}, {"home/.conda/environments.txt": "py\n# T/work/py\n"}),
    ("a variable that is not set", "a/py", {}, {"home/.condarc": "envs_dirs:\n- $UNSETT/a\n"}),
    (
        "micromamba alone, in a directory of programs",
        "home/.local/envs/py",
        {"MAMBA_EXE": "T/home/.local/bin/m"},
        {},
    ),
    (
        "a pixi project that the nearer one hides",
        ".pixi/envs/py",
        {},
        {"work/.pixi/envs/other/conda-meta/history": ""},
    ),
]


@pytest.mark.parametrize(("sentence", "where", "settings", "files"), NOT_PLACES, ids=[row[0] for row in NOT_PLACES])
def test_a_name_is_not_found_in(
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    sentence: str,
    where: str | None,
    settings: dict[str, str],
    files: dict[str, str],
) -> None:
    monkeypatch.chdir(tree / "work")
    if where:
        conda_env(tree / where)
    for path, text in files.items():
        write(tree / path, text.replace("T/", f"{tree}/"))
    with pytest.raises(EnvironmentNotFound):
        by_name(tree, "py", **settings)


@pytest.mark.parametrize(
    ("sentence", "settings", "where"),
    [
        ("the root of CONDA_EXE", {"CONDA_EXE": "T/conda/bin/conda"}, "conda"),
        ("the root of conda's program in condabin", {"CONDA_EXE": "T/conda/condabin/conda"}, "conda"),
        ("the root of MAMBA_EXE", {"MAMBA_EXE": "T/conda/bin/mamba"}, "conda"),
        ("a symlink to the program", {"CONDA_EXE": "T/home/bin/conda"}, "conda"),
        ("the root above the active environment", {"CONDA_PREFIX": "T/conda/envs/x"}, "conda"),
        ("the active root", {"CONDA_PREFIX": "T/conda"}, "conda"),
        ("a conda inside an environment stands for its root", {"PATH": "T/conda/envs/x/bin"}, "conda"),
        ("two variables that agree", {"CONDA_ROOT": "T/conda", "MAMBA_ROOT_PREFIX": "T/conda/"}, "conda"),
        ("MAMBA_ROOT_PREFIX", {"MAMBA_ROOT_PREFIX": "T/mamba"}, "mamba"),
        ("PATH does not count beside a variable", {"CONDA_ROOT": "T/mamba", "PATH": "T/conda/bin"}, "mamba"),
    ],
)
@pytest.mark.parametrize("name", ["base", "root"])
def test_base_is(tree: Path, sentence: str, settings: dict[str, str], where: str, name: str) -> None:
    for root in ("conda", "mamba", "conda/envs/x"):
        conda_env(tree / root)
        write(tree / root / "bin/conda")
    (tree / "conda/condabin").mkdir()
    (tree / "home/bin").mkdir()
    (tree / "home/bin/conda").symlink_to(tree / "conda/bin/conda")
    assert by_name(tree, name, **settings) == Path(where)


def test_without_home_and_path_nothing_is_found_and_nothing_crashes(tree: Path) -> None:
    with pytest.raises(EnvironmentNotFound, match="nothing says where environments are") as caught:
        find("py", None, {}, tree / "work")
    assert "CONDA_ENVS_DIRS" in caught.value.tip


def test_one_directory_under_several_names_counts_once_and_all_its_names_are_kept(tree: Path) -> None:
    prefix = conda_env(tree / "disk/envs/py")
    (tree / "link").symlink_to(tree / "disk")
    write(tree / "home/.condarc", f"envs_dirs: [{tree}/link/envs, {tree}/disk/envs/]\n")
    (tree / "home/.conda").mkdir()
    (tree / "home/.conda/envs").symlink_to(tree / "disk/envs")
    environment = find("py", None, {"HOME": f"{tree}/home"}, tree / "work")
    assert environment.prefix == tree / "link/envs/py"
    assert environment.names == tuple(
        os.fsencode(path) for path in (tree / "home/.conda/envs/py", prefix, tree / "link/envs/py")
    )


def test_an_ambiguous_name_lists_all_candidates(tree: Path) -> None:
    first, second = conda_env(tree / "a/py"), conda_env(tree / "b/py")
    with pytest.raises(EnvironmentNotFound) as caught:
        by_name(tree, "py", CONDA_ENVS_DIRS="T/a:T/b")
    assert str(caught.value) == f"2 environments are named 'py':\n  {first}\n  {second}"
    assert caught.value.tip.endswith(f"-p {first}")


def test_two_roots_make_base_ambiguous(tree: Path) -> None:
    conda_env(tree / "a")
    conda_env(tree / "b")
    with pytest.raises(EnvironmentNotFound, match="2 environments are named 'base'"):
        by_name(tree, "base", CONDA_ROOT="T/a", MAMBA_ROOT_PREFIX="T/b")


def test_an_unknown_name_lists_what_there_is(tree: Path) -> None:
    root, native = conda_env(tree / "conda"), conda_env(tree / "conda/envs/native")
    odd = conda_env(tree / os.fsdecode(b"conda/envs/\xff"))
    write(tree / "home/.conda/environments.txt", f"{root}\n{native}\n")
    with pytest.raises(EnvironmentNotFound) as caught:
        by_name(tree, "py", CONDA_ROOT="T/conda")
    assert str(caught.value) == (
        f"no environment is named 'py'. There are:\n  base    {root}\n  native  {native}\n  \\xff    {odd.parent}/\\xff"
    )


def test_where_there_is_none_the_places_are_listed(tree: Path) -> None:
    with pytest.raises(EnvironmentNotFound, match="none at all was found in") as caught:
        by_name(tree, "py", CONDA_ENVS_DIRS="T/a")
    assert f"\n  {tree}/a\n" in str(caught.value)
    assert f"\n  {tree}/home/.conda/envs\n" in str(caught.value)


BROKEN = [
    ("an open bracket", b"envs_dirs: [", "line 1: "),
    ("a tab for indentation", b"channels:\n\t- x\n", "line 2: "),
    ("a list of settings", b"- envs_dirs\n", "not a mapping of settings"),
    ("bytes that are not UTF-8", b"envs_dirs: [\xff]\n", "not YAML: "),
    ("a mapping for the list", b"envs_dirs: {a: b}\n", "envs_dirs is not a list of directories"),
    ("a list in the list", b"envs_dirs: [[a]]\n", "envs_dirs is not a list of directories"),
    ("a list as a key", b"? [a]\n: b\n", "line 1: "),
    ("thousands of brackets", b"[" * 20_000, "nested too deeply"),
]


@pytest.mark.parametrize(("sentence", "text", "reason"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_condarc_is_passed_over_and_named(tree: Path, sentence: str, text: bytes, reason: str) -> None:
    file = write(tree / "home/.condarc", text)
    conda_env(tree / "home/.conda/envs/there")
    assert by_name(tree, "there") == Path("home/.conda/envs/there")
    with pytest.raises(EnvironmentNotFound) as caught:
        by_name(tree, "py")
    assert f"{file}: {reason}" in caught.value.tip


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# nothing\n",
        b"envs_dirs:\n",
        b"envs_dirs: []\n",
        b"since: 2024-99-99\n",
        b"x: !!python/object:os.system y\n",
    ],
)
def test_a_condarc_that_says_nothing_about_environments_is_no_finding(tree: Path, text: bytes) -> None:
    assert condarc.environment_directories(write(tree / "home/.condarc", text)) == []


def test_an_unreadable_condarc_is_passed_over_and_named() -> None:
    with unprivileged() as home:
        file = write(home / ".condarc", "envs_dirs: []\n")
        file.chmod(0)
        with pytest.raises(EnvironmentNotFound) as caught:
            find("py", None, {"HOME": str(home)}, home)
    assert f"{file}: Permission denied" in caught.value.tip


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/abs", "a\0b"])
def test_what_is_no_name_is_refused(tree: Path, name: str) -> None:
    conda_env(tree / "home/.conda/envs/py")
    conda_env(tree / "home/.conda/other")
    with pytest.raises(UsageError):
        by_name(tree, name)


def test_the_tip_for_a_name_with_a_slash_is_p(tree: Path) -> None:
    with pytest.raises(UsageError) as caught:
        by_name(tree, "envs/py")
    assert "-p envs/py" in caught.value.tip


# --- by prefix ---


@pytest.mark.parametrize(
    ("sentence", "files", "layout"),
    [
        ("a history", ["conda-meta/history"], Layout.CONDA),
        ("records without a history, as pixi leaves them", ["conda-meta/zlib-1-0.json"], Layout.CONDA),
        ("conda wins over venv", ["conda-meta/history", "pyvenv.cfg", "bin/python"], Layout.CONDA),
        ("a venv", ["pyvenv.cfg", "bin/python"], Layout.VENV),
        ("conda-meta without records", ["conda-meta/.keep", "pyvenv.cfg"], Layout.VENV),
        ("programs", ["bin/tool"], Layout.PLAIN),
        ("libraries", ["lib/libx.so"], Layout.PLAIN),
        ("conda-meta that is a file", ["conda-meta", "lib/libx.so"], Layout.PLAIN),
    ],
)
def test_the_layout_of_a_prefix(tree: Path, sentence: str, files: list[str], layout: Layout) -> None:
    for file in files:
        write(tree / "env" / file)
    environment = find(None, tree / "env", {}, tree)
    assert (environment.prefix, environment.layout, environment.name) == (tree / "env", layout, "env")
    assert environment.names == (os.fsencode(tree / "env"),)


def test_a_real_venv_is_one(tree: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree / "v"], check=True)
    assert find(None, tree / "v", {}, tree).layout is Layout.VENV
    with pytest.raises(EnvironmentNotFound, match="is not a directory") as caught:
        find(None, tree / "v/pyvenv.cfg", {}, tree)
    assert caught.value.tip.endswith(f"-p {tree}/v")


@pytest.mark.parametrize(
    ("sentence", "given", "found"),
    [
        ("as it is", "T/disk/env", "disk/env"),
        ("a trailing slash", "T/disk/env/", "disk/env"),
        ("dots", "T/disk/./x/../env", "disk/env"),
        ("two slashes in front", "/T/disk/env", "disk/env"),
        ("relative", "../disk/env", "disk/env"),
        ("a tilde", "~/../disk/env", "disk/env"),
        ("a symlink is kept", "T/link", "link"),
        ("a symlink in the middle is kept", "T/short/env", "short/env"),
        ("above a symlink is above its target", "T/home/deep/../env", "disk/x/env"),
    ],
)
def test_a_prefix_is_absolute_and_normal(tree: Path, sentence: str, given: str, found: str) -> None:
    conda_env(tree / "disk/env")
    conda_env(tree / "disk/x/env")
    conda_env(tree / "home/env")  # what "home/deep/.." is if symlinks are not heeded
    (tree / "disk/x/y").mkdir()
    (tree / "link").symlink_to("disk/env")
    (tree / "short").symlink_to("disk")
    (tree / "home/deep").symlink_to("../disk/x/y")
    environ = {"HOME": f"{tree}/home"}
    environment = find(None, given.replace("T/", f"{tree}/"), environ, tree / "work")
    assert environment.prefix == tree / found
    spellings = {os.fsencode(tree / found), os.fsencode(os.path.realpath(tree / found))}
    assert set(environment.names) == spellings
    assert [len(name) for name in environment.names] == sorted(map(len, environment.names), reverse=True)


def test_the_name_under_which_an_environment_is_active_or_registered_is_one_of_its_names(tree: Path) -> None:
    prefix = conda_env(tree / "disk/py")
    for link in ("active", "listed", "neither"):
        (tree / link).symlink_to("disk")
    other = conda_env(tree / "other/py")
    write(tree / "home/.conda/environments.txt", f"{tree}/listed/py\n{other}\n{tree}/gone/py\n")
    environ = {"HOME": f"{tree}/home", "CONDA_PREFIX": f"{tree}/active/py"}
    names = find(None, prefix, environ, tree).names
    assert set(names) == {os.fsencode(tree / path) for path in ("disk/py", "active/py", "listed/py")}


def test_a_relative_prefix_is_relative_to_the_directory_that_the_shell_shows(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conda_env(tree / "disk/env")
    (tree / "link").symlink_to("disk")
    monkeypatch.chdir(tree / "disk")
    assert find(None, "env", {"PWD": f"{tree}/link"}).prefix == tree / "link/env"
    assert find(None, "env", {"PWD": f"{tree}/work"}).prefix == tree / "disk/env"
    assert find(None, "env", {}).prefix == tree / "disk/env"


def test_a_working_directory_that_is_gone_is_said(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "gone").mkdir()
    monkeypatch.chdir(tree / "gone")
    (tree / "gone").rmdir()
    with pytest.raises(EnvironmentNotFound, match="no longer exists"):
        find(None, "env", {})


REFUSED: list[tuple[str, str, type[PackError], str]] = [
    ("missing", "T/none", EnvironmentNotFound, "no environment at .*No such file"),
    ("a dangling symlink", "T/dangling", EnvironmentNotFound, "no environment at"),
    ("a symlink to itself", "T/loop", EnvironmentNotFound, "no environment at .*symbolic links"),
    ("a name longer than any", "T/" + "x" * 300, EnvironmentNotFound, "no environment at .*too long"),
    ("a NUL", "T/\0", EnvironmentNotFound, "no environment at"),
    ("a file", "T/file", EnvironmentNotFound, "is not a directory"),
    ("an empty directory", "T/work", EnvironmentNotFound, "is not an environment"),
    ("bin that is a file", "T/odd", EnvironmentNotFound, "is not an environment"),
    ("the root", "/", EnvironmentUnfit, "belongs to the operating system"),
    ("the root, written twice", "//", EnvironmentUnfit, "belongs to the operating system"),
    ("/usr", "/usr", EnvironmentUnfit, "belongs to the operating system"),
    ("/usr, dressed up", "//usr/bin/..", EnvironmentUnfit, "belongs to the operating system"),
    ("/usr behind a symlink", "T/usr", EnvironmentUnfit, "belongs to the operating system"),
    ("one that an installer has not completed", "T/half", EnvironmentUnfit, "an installation there was not completed"),
    ("empty", "", UsageError, "empty"),
]


@pytest.mark.parametrize(("sentence", "given", "error", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_prefix_is_refused(tree: Path, sentence: str, given: str, error: type[PackError], words: str) -> None:
    write(tree / "file")
    write(tree / "odd/bin")
    write(tree / "half/bin/tool")
    write(tree / "half/.installing")
    (tree / "dangling").symlink_to("none")
    (tree / "loop").symlink_to("loop")
    (tree / "usr").symlink_to("/usr")
    with pytest.raises(error, match=words) as caught:
        find(None, given.replace("T/", f"{tree}/"), {}, tree)
    assert type(caught.value) is error
    assert caught.value.tip


def test_a_directory_inside_an_environment_is_told_where_it_is(tree: Path) -> None:
    conda_env(tree / "conda")
    (tree / "conda/share/empty").mkdir(parents=True)
    with pytest.raises(EnvironmentNotFound) as caught:
        find(None, tree / "conda/share/empty", {}, tree)
    assert caught.value.tip.endswith(f"-p {tree}/conda")


@pytest.mark.parametrize(("closed", "words"), [("env", "cannot be read"), (".", "cannot be reached")])
def test_a_prefix_that_may_not_be_read_is_unfit(closed: str, words: str) -> None:
    with unprivileged() as directory:
        prefix = conda_env(directory / "env")
        (directory / closed).chmod(0)
        with pytest.raises(EnvironmentUnfit, match=words):
            find(None, prefix, {}, Path("/"))
        (directory / closed).chmod(0o755)


def test_a_name_and_a_prefix_together_are_refused(tree: Path) -> None:
    conda_env(tree / "env")
    with pytest.raises(UsageError, match="both"):
        find("env", tree / "env", {}, tree)


# --- the active environment ---


@pytest.mark.parametrize(
    ("sentence", "settings", "found"),
    [
        ("conda's", {"CONDA_PREFIX": "T/c"}, "c"),
        ("a venv", {"VIRTUAL_ENV": "T/v"}, "v"),
        ("an empty variable is none", {"CONDA_PREFIX": "", "VIRTUAL_ENV": "T/v"}, "v"),
        ("a venv over conda", {"CONDA_PREFIX": "T/c", "VIRTUAL_ENV": "T/v", "PATH": "T/v/bin:T/c/bin"}, "v"),
        ("conda over a venv", {"CONDA_PREFIX": "T/c", "VIRTUAL_ENV": "T/v", "PATH": "T/c/bin:T/v/bin"}, "c"),
        ("only one in PATH", {"CONDA_PREFIX": "T/c", "VIRTUAL_ENV": "T/v", "PATH": "/bin:T/v/bin"}, "v"),
        ("another spelling in PATH", {"CONDA_PREFIX": "T/c", "VIRTUAL_ENV": "T/l", "PATH": "T/v//bin/"}, "l"),
        ("both, and none in PATH", {"CONDA_PREFIX": "T/c", "VIRTUAL_ENV": "T/v"}, "c"),
    ],
)
def test_the_active_environment(tree: Path, sentence: str, settings: dict[str, str], found: str) -> None:
    conda_env(tree / "c")
    write(tree / "v/pyvenv.cfg")
    (tree / "c/bin").mkdir()
    (tree / "v/bin").mkdir()
    (tree / "l").symlink_to("v")
    assert find(None, None, filled(tree, settings), tree).prefix == tree / found


def test_no_active_environment_is_said(tree: Path) -> None:
    with pytest.raises(EnvironmentNotFound, match="no environment is active") as caught:
        find(None, None, {"PATH": "/bin"}, tree)
    assert "-n" in caught.value.tip
    assert "-p" in caught.value.tip


def test_an_active_environment_that_is_gone_is_named_with_its_variable(tree: Path) -> None:
    with pytest.raises(EnvironmentNotFound, match=f"CONDA_PREFIX.*{tree}/gone"):
        find(None, None, {"CONDA_PREFIX": f"{tree}/gone"}, tree)
