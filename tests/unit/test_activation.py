"""Activation scripts as bytes: what is written into them, and where the variables come from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer_stub import activation
from installer_stub.activation import Shell, own_head, quote, read_variables, scripts
from installer_stub.errors import EnvironmentUnfit
from tests.conftest import need

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "shell", "word"),
    [
        (b"", Shell.SH, b"''"),
        (b"/a b", Shell.SH, b"'/a b'"),
        (b"it's", Shell.SH, b"'it'\\''s'"),
        (b"$x `y` \\ \n", Shell.SH, b"'$x `y` \\ \n'"),
        (b"it's \\", Shell.FISH, b"'it\\'s \\\\'"),
        (b"it's", Shell.CSH, b"'it'\\''s'"),
        (b"a!\nb", Shell.CSH, b"'a\\!\\\nb'"),
        (b"\xff\xfe", Shell.SH, b"'\xff\xfe'"),
    ],
)
def test_quote(value: bytes, shell: Shell, word: bytes) -> None:
    assert quote(value, shell) == word


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda value: b"\0" not in value), min_size=1, max_size=30))
def test_sh_reads_back_what_was_quoted(values: list[bytes]) -> None:
    script = b"printf '%s|' " + b" ".join(quote(value, Shell.SH) for value in values)
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout == b"|".join([*values, b""])


@pytest.mark.parametrize(
    ("shell", "program"), [(Shell.FISH, ("fish", "--no-config", "-c")), (Shell.CSH, ("tcsh", "-f", "-c"))]
)
def test_other_shells_read_back_what_was_quoted(shell: Shell, program: tuple[str, ...]) -> None:
    need(program[0])
    value = "".join(map(chr, range(1, 127))).replace("\r", "") + "é漢 \\! \\\\ '' \\"
    script = b"exec /usr/bin/printf %s " + quote(value.encode(), shell)
    done = subprocess.run([*program, script], capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.stdout == value.encode()


def test_scripts_are_named_for_every_shell() -> None:
    assert sorted(scripts("activate", None, b"")) == [
        b"bin/activate",
        b"bin/activate.csh",
        b"bin/activate.fish",
        b"bin/conda-unpack",
        b"bin/deactivate",
        b"bin/deactivate.csh",
        b"bin/deactivate.fish",
    ]
    assert sorted(scripts("pack-activate", None, b"")) == [
        b"bin/conda-unpack",
        b"bin/pack-activate",
        b"bin/pack-activate.csh",
        b"bin/pack-activate.fish",
        b"bin/pack-deactivate",
        b"bin/pack-deactivate.csh",
        b"bin/pack-deactivate.fish",
    ]


def test_another_stem_is_refused() -> None:
    with pytest.raises(ValueError, match="stem must be"):
        scripts("$(x)", None, b"")


@pytest.mark.parametrize("stem", ["activate", "pack-activate"])
def test_no_token_is_left_over(stem: str) -> None:
    for path, content in scripts(stem, b"/opt/env", b"node1").items():
        assert re.search(rb"@[A-Z]+@", content) is None, path


def test_head_is_for_the_three_scripts_of_a_virtual_environment_and_only_once() -> None:
    for path, setting in (
        (b"bin/activate", b"\n_pack_recorded='/opt/it'\\''s'\n"),
        (b"bin/activate.fish", b"\nset -l _pack_recorded '/opt/it\\'s'\n"),
        (b"bin/activate.csh", b"\nset _pack_recorded = '/opt/it'\\''s'\n"),
    ):
        head = own_head(path, b"# This file must be used with source", b"/opt/it's")
        assert head.startswith(b"# Added by pack.\n")
        assert setting in head
        assert re.search(rb"@[A-Z]+@", head) is None
        assert own_head(path, head + b"echo", b"/elsewhere") == b""
    for path in (b"bin/activate.ps1", b"bin/Activate.ps1", b"bin/activate_this.py", b"lib/bin/activate", b"activate"):
        assert own_head(path, b"", b"/opt/env") == b""


def test_prefix_that_looks_like_a_token_is_no_token() -> None:
    made = scripts("activate", b"/@HOST@/@STEM@", b"node1")
    for path in (b"bin/activate", b"bin/activate.fish", b"bin/activate.csh"):
        assert b"'/@HOST@/@STEM@'" in made[path]


def test_rendering_is_deterministic_and_as_archived_names_nothing() -> None:
    archived = scripts("activate", None, b"")
    assert archived == scripts("activate", None, b"")
    assert b"_pack_recorded=''\n" in archived[b"bin/activate"]
    assert archived != scripts("activate", b"/opt/env", b"node1")


def test_variables_are_written_for_every_shell() -> None:
    made = scripts("activate", None, b"", [(b"A", b"it's"), (b"B", b"!")])
    assert b"    _pack_set A 'it'\\''s'\n    _pack_set B '!'\n" in made[b"bin/activate"]
    assert b"    _pack_set A 'it\\'s'\n" in made[b"bin/activate.fish"]
    assert b"    setenv A 'it'\\''s'\n    setenv B '\\!'\n" in made[b"bin/activate.csh"]
    assert b"    set _pack_names = ( $_pack_names B )\n" in made[b"bin/activate.csh"]


def test_templates_are_read_from_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "stub.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in [*(ROOT / "installer_stub").glob("*.py"), *(ROOT / "installer_stub/activate").iterdir()]:
            file.write(path, path.relative_to(ROOT))
    script = "import sys; sys.path.insert(0, sys.argv[1]); from installer_stub.activation import scripts; "
    script += "sys.stdout.buffer.write(scripts('activate', b'/x', b'h')[b'bin/activate'])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script, archive], capture_output=True, check=True)
    assert done.stdout == scripts("activate", b"/x", b"h")[b"bin/activate"]


# --- the environment's variables -------------------------------------------------------------------


def prefix(tmp_path: Path, files: dict[str, object]) -> Path:
    for name, document in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return tmp_path


STATE = "conda-meta/state"
PACKAGES = "etc/conda/env_vars.d"


@pytest.mark.parametrize(
    ("files", "variables"),
    [
        ({}, []),
        ({STATE: {"version": 1, "env_vars": {}}}, []),
        ({STATE: {"version": 1}}, []),
        ({STATE: {"env_vars": {"A": "x y", "b_1": ""}}}, [(b"A", b"x y"), (b"b_1", b"")]),
        ({STATE: {"env_vars": {"A": "é", "B": 1, "C": True}}}, [(b"A", "é".encode()), (b"B", b"1"), (b"C", b"True")]),
        ({f"{PACKAGES}/b.json": {"A": "b"}, f"{PACKAGES}/a.json": {"A": "a", "Z": "z"}}, [(b"A", b"b"), (b"Z", b"z")]),
        ({f"{PACKAGES}/a.json": {"A": "package"}, STATE: {"env_vars": {"A": "user"}}}, [(b"A", b"user")]),
        ({f"{PACKAGES}/a.json": {"A": "x", "B": "y"}, STATE: {"env_vars": {"A": "***unset***"}}}, [(b"B", b"y")]),
        ({f"{PACKAGES}/README": b"not JSON", f"{PACKAGES}/a.json": {"A": "x"}}, [(b"A", b"x")]),
    ],
    ids=[
        "no files",
        "none set",
        "no env_vars",
        "two",
        "numbers and truth as conda prints them",
        "packages by name, a later one wins",
        "the user wins",
        "the user unsets",
        "other files are none of ours",
    ],
)
def test_variables_are_read_as_conda_does(
    files: dict[str, object], variables: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    assert read_variables(prefix(tmp_path, files)) == variables


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "recursion"),
        ([], "not an object"),
        ({"env_vars": []}, "not an object"),
        ({"env_vars": {"A": None}}, "not a string"),
        ({"env_vars": {"A": ["x"]}}, "not a string"),
        ({"env_vars": {"A": "a\0b"}}, "NUL"),
        ({"env_vars": {"A": "\ud800"}}, "surrogate"),
        ({"env_vars": {"": "x"}}, "no name"),
        ({"env_vars": {"1A": "x"}}, "no name"),
        ({"env_vars": {"A-B": "x"}}, "no name"),
        ({"env_vars": {"A;touch x": "x"}}, "no name"),
        ({"env_vars": {"A\n": "x"}}, "no name"),
        ({"env_vars": {"É": "x"}}, "no name"),
        ({"env_vars": {"PATH": "/x"}}, "activation sets PATH itself"),
        ({"env_vars": {"CONDA_PREFIX_1": "/x"}}, "itself"),
        ({"env_vars": {"_PACK_OLD_1_A": "/x"}}, "itself"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_no_shell_could_hold_is_refused(document: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match=re.escape(reason)) as refused:
        read_variables(prefix(tmp_path, {STATE: document}))
    assert "conda-meta/state" in str(refused.value)
    assert refused.value.tip


def test_broken_file_of_a_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match=r"env_vars\.d/a\.json"):
        read_variables(prefix(tmp_path, {f"{PACKAGES}/a.json": b"{"}))


def test_mode_is_that_of_a_program() -> None:
    assert activation.MODE == 0o755
