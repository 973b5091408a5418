"""Editable packages of real build backends: copied into the archive, they work where it goes, without their sources."""

from __future__ import annotations

import json
from pathlib import Path

from fixtures.selection import all_run, long_series
from tests.conftest import MakeEnvironment
from tests.integration.moving import activated, move, pack, run, unpack, wrong_rows

BACKENDS = {  # requirement, module, layout
    "setuptools-flat": ("setuptools", "setuptools.build_meta", "."),
    "setuptools-src": ("setuptools", "setuptools.build_meta", "src"),
    "hatchling": ("hatchling", "hatchling.build", "src"),
    "flit": ("flit_core", "flit_core.buildapi", "."),
    "poetry": ("poetry-core", "poetry.core.masonry.api", "."),
    "pdm": ("pdm-backend", "pdm.backend", "src"),
}


def project(directory: Path, name: str, requirement: str, backend: str, layout: str) -> Path:
    """Write a project with a package that reads a file beside it, and an entry point."""
    package = directory / name / layout / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from pathlib import Path\n\n\ndef main():\n    print(Path(__file__).with_name('data.txt').read_text())\n"
    )
    (package / "data.txt").write_text(f"data of {name}")
    (directory / name / ".git").mkdir()
    (directory / name / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (directory / name / "pyproject.toml").write_text(
        f"[build-system]\nrequires = ['{requirement}']\nbuild-backend = '{backend}'\n\n"
        f"[project]\nname = '{name}'\nversion = '1.0'\ndescription = 'x'\n\n[project.scripts]\n{name} = '{name}:main'\n"
    )
    return directory / name


ALWAYS = ("setuptools-flat", "flit")  # an import hook, and a line of a .pth file


@long_series
def test_backends(make_env: MakeEnvironment, tmp_path: Path) -> None:
    prefix = make_env(["python", "pip"], tmp_path / "source" / "env")
    names = {}
    for backend in BACKENDS if all_run() else ALWAYS:
        names[backend] = backend.replace("-", "_") + "_project"
        source = project(tmp_path / "my sources", names[backend], *BACKENDS[backend])
        run([prefix / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "-e", source])
    refused = pack("-p", prefix, "-o", tmp_path / "no.tar", code=4).stderr
    assert all(f"  {name}: {tmp_path}/my sources/{name}" in refused for name in names.values()), refused

    pack("-q", "-p", prefix, "-o", tmp_path / "env.tar", "--editables", "vendor")
    pack("-q", "-p", prefix, "-o", tmp_path / "skipped.tar", "--editables", "skip")
    prefix.rename(tmp_path / "hidden")
    (tmp_path / "my sources").rename(tmp_path / "hidden sources")
    target = unpack(tmp_path / "env.tar", tmp_path / "apps/env")
    for place in (target, tmp_path / "moved with a space/env"):
        if place != target:
            target = move(target, place)
        run([target / "bin/conda-unpack"])
        for name in names.values():
            assert activated(target, name).stdout == f"data of {name}\n"
            asked = f"import importlib.metadata as m; print(m.distribution('{name}').read_text('direct_url.json'))"
            url = json.loads(activated(target, f'python -c "{asked}"').stdout)["url"]
            assert "/share/pack-editables/" in url and "my%20sources" not in url
            assert wrong_rows(target, name) == []
        assert "are right" in pack("verify", target).stdout
    assert not list(target.rglob("share/pack-editables/**/.git"))
    left = unpack(tmp_path / "skipped.tar", tmp_path / "skipped")
    assert "No module named" in activated(left, f"python -c 'import {names['flit']}'", code=1).stderr


def test_what_a_copied_source_says_of_the_prefix_is_written_also_where_there_are_no_links(tmp_path: Path) -> None:
    prefix = tmp_path / "source" / "prefix"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/here.txt").write_text(f"{prefix}/data\n")
    (prefix / "lib/python3.11/site-packages").mkdir(parents=True)
    (prefix / "lib/python3.11/site-packages/mine.pth").write_text(f"{tmp_path}/mine\n")
    for suffix, extract in (("zip", ["unzip", "-q"]), ("tar", ["tar", "-xf"])):
        pack("-q", "-p", prefix, "-o", tmp_path / f"env.{suffix}", "--editables", "vendor")
        tree = tmp_path / suffix
        tree.mkdir()
        run([*extract, tmp_path / f"env.{suffix}"], cwd=tree)
        pack("relocate", tree)
        assert (tree / "share/pack-editables/mine/mine/here.txt").read_text() == f"{tree}/data\n"
