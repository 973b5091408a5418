"""The same environments packed by conda-pack and by ours: the same paths, and programs that say the same.

What differs is a table of ``docs/conda-pack.md``; it is read here.
"""

from __future__ import annotations

import fnmatch
import re
import tarfile
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.conformance.peer import conda_pack, conda_unpacked, hidden
from tests.conftest import NATIVE_SPECS, PYTHON_SPECS
from tests.integration.moving import SURROUNDINGS, activated, pack, run, unpack

DOCUMENT = Path(__file__).parents[2] / "docs/conda-pack.md"
SPECS = {"python": PYTHON_SPECS, "native": NATIVE_SPECS}
PROGRAMS = {
    "python": (
        "python -c 'import sys, numpy; print(sys.prefix, numpy.arange(3).sum())'",
        "python -c 'import ssl; print(ssl.get_default_verify_paths().openssl_cafile)'",
        "pip list --format freeze",
        "python3.11-config --includes",
        "openssl version -d",
        "infocmp -x xterm | head -n 1",
    ),
    "native": ("openssl version -d", "infocmp xterm | head -n 1", "xz --version", "sqlite3 :memory: 'select 1'"),
}


def rows(heading: str) -> set[str]:
    """Read the first column of the table under a heading."""
    section = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = {name for row in section.splitlines() for name in re.findall(r"^\| `([^`|]+)`", row)}
    assert found, heading
    return found


def paths(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {member.name for member in opened if not member.isdir()}


@pytest.mark.parametrize("kind", SPECS)
def test_paths_and_programs(kind: str, tmp_path: Path, channel: Path, package_cache: Path) -> None:
    prefix = channels.install(tmp_path / "source/env", SPECS[kind], [channel], cache=package_cache)
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack("-q", "-p", prefix, "-o", tmp_path / "ours.tar")
    hidden(prefix)
    theirs, ours = paths(tmp_path / "theirs.tar"), paths(tmp_path / "ours.tar")
    for only, heading in ((theirs - ours, "Only in its archives"), (ours - theirs, "Only in ours")):
        patterns = rows(heading)
        unexplained = [path for path in only if not any(fnmatch.fnmatchcase(path, each) for each in patterns)]
        assert unexplained == [], heading
    assert len(theirs & ours) > (7000 if kind == "python" else 3000)

    target = unpack(tmp_path / "ours.tar", tmp_path / "apps/ours")
    if kind == "python":
        other = conda_unpacked(tmp_path / "theirs.tar", tmp_path / "apps/them")
        activated(target, "true")
    else:  # it needs a Python to run its conda-unpack
        other = unpack(tmp_path / "theirs.tar", tmp_path / "apps/them")
        run(["python3", other / "bin/conda-unpack"])
        pack("relocate", target)
    assert len(str(other)) == len(str(target))  # so that what prints columns prints the same
    for program in PROGRAMS[kind]:
        said = []
        for tree in (other, target):
            env = {**SURROUNDINGS, "PATH": f"{tree}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(tree)}
            done = run(["sh", "-c", program], env=env)
            said.append(done.stdout.replace(str(tree), "PREFIX"))
        assert said[0] == said[1] != "", program
