"""The library, with conda-pack's names, keywords and meanings."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pack
from fixtures import peers

EXAMPLE = ("bin/tool", "lib/x.pyx", "lib/cytoolz/y.pyx", "share/doc/z")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "envs" / "example"
    for name in (*EXAMPLE, "conda-meta/history"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    (root / "link").symlink_to("bin")
    return root


def names(archive: str | Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {name for name in opened.getnames() if not name.startswith(".pack")}


def test_the_examples_of_conda_packs_documentation(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, by prefix, and the active one; a filter makes another environment and leaves the first as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONDA_ENVS_DIRS", str(prefix.parent))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("CONDA_PREFIX", str(prefix))
    assert pack.pack(name="example", output="example.tar.gz") == "example.tar.gz"
    assert pack.CondaEnv.from_name("example").pack(output="foo.zip") == "foo.zip"
    parcel = pack.CondaEnv.from_prefix(str(prefix)).pack(format="parcel", parcel_version="2020.09.01")
    assert parcel == "example-2020.09.01-el7.parcel"
    assert pack.CondaEnv.from_default().pack(output="output.tar.gz") == "output.tar.gz"
    env = pack.CondaEnv.from_default()
    filtered = env.exclude("*.pyx").include("lib/cytoolz/*.pyx")
    assert repr(filtered) == f"CondaEnv<{str(prefix)!r}, {len(env) - 1} files>"
    assert filtered.name == "example" and filtered.prefix == str(prefix)
    assert {file.target for file in env} - {file.target for file in filtered} == {"lib/x.pyx"}
    assert "lib/x.pyx" not in names(filtered.pack(output="filtered.tar"))
    assert {"lib/x.pyx", "empty", "link"} <= names("example.tar.gz")
    assert "lib/cytoolz/y.pyx" in names("filtered.tar") and "bin/tool" in zipfile.ZipFile("foo.zip").namelist()


def test_files_tell_what_packages_say(prefix: Path) -> None:
    found = {file.target: file for file in pack.CondaEnv.from_prefix(prefix)}
    assert found["bin/tool"] == pack.File(str(prefix / "bin/tool"), "bin/tool", False, "unknown", None)
    assert {"empty", "link", "conda-meta/history"} <= set(found) and "lib" not in found


def test_a_list_of_files_decides_what_is_packed(prefix: Path, tmp_path: Path) -> None:
    env = pack.CondaEnv.from_prefix(prefix)
    some = pack.CondaEnv(env.prefix, [file for file in env.files if not file.target.startswith("lib/")])
    assert "lib" not in names(some.pack(output=str(tmp_path / "some.tar")))


def test_filters_in_their_order(prefix: Path, tmp_path: Path) -> None:
    filters = [("exclude", "*.pyx"), ("include", "lib/x.pyx"), ("exclude", "share/doc")]
    output = pack.pack(prefix=prefix, output=tmp_path / "a.tar", filters=filters, n_threads=-1)
    assert set(EXAMPLE) & names(output) == {"bin/tool", "lib/x.pyx"}


def test_what_is_refused(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "there.tar").touch()
    for keywords in (
        {"name": "x", "prefix": str(prefix)},
        {"prefix": str(tmp_path / "none")},
        {"prefix": str(prefix), "output": str(tmp_path / "a.rar")},
        {"prefix": str(prefix), "format": "rar"},
        {"prefix": str(prefix), "output": str(tmp_path / "there.tar")},
        {"prefix": str(prefix), "output": str(tmp_path / "none/a.tar")},
        {"prefix": str(prefix), "output": str(tmp_path / "a.sh")},
        {"prefix": str(prefix), "format": "parcel", "arcroot": "x"},
        {"prefix": str(prefix), "filters": [("drop", "x")]},
        {"prefix": str(prefix), "n_threads": 0},
    ):
        with pytest.raises(pack.CondaPackException):
            pack.pack(**keywords)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envs", "there.tar"]


def test_a_script_without_a_guard_uses_all_cores(prefix: Path, tmp_path: Path) -> None:
    """Processes that are started to help would run it again, and again."""
    for number in range(600):
        (prefix / f"lib/{number}").write_text(str(number))
    script = tmp_path / "script.py"
    script.write_text(f"import pack\nprint('once')\npack.pack(prefix={str(prefix)!r}, output='a.tar', n_threads=2)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")


def test_signatures_are_those_of_conda_pack() -> None:
    """Every keyword of conda-pack's is ours, with its default."""
    ours = {
        "pack": inspect.signature(pack.pack),
        "CondaEnv.pack": inspect.signature(pack.CondaEnv.pack),
        "CondaEnv": inspect.signature(pack.CondaEnv),
        "CondaEnv.exclude": inspect.signature(pack.CondaEnv.exclude),
        "CondaEnv.include": inspect.signature(pack.CondaEnv.include),
        "File": inspect.signature(pack.File),
    }
    code = "import conda_pack, inspect\n" + "".join(
        f"for p in inspect.signature(conda_pack.{name}).parameters.values(): print({name!r}, p.name, repr(p.default))\n"
        for name in ours
    )
    said = subprocess.run(
        [peers.program("conda-pack").with_name("python"), "-c", code], capture_output=True, text=True, check=True
    )
    lines = said.stdout.splitlines()
    assert len(lines) > 40
    for line in lines:
        name, parameter, default = line.split(" ", 2)
        assert repr(ours[name].parameters[parameter].default) == default, line
