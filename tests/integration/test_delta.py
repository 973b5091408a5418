"""Deltas: a small archive and the tree unpacked before are the whole archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeEnvironment
from tests.integration.moving import activated, move, pack, pack_env, run, snapshot, unpack


@pytest.fixture
def versions(make_env: MakeEnvironment, tmp_path: Path) -> Path:
    """A directory with 1.tar, a delta against it, 2.tar, and the tree of 1.tar, moved twice."""
    prefix = make_env(["python", "pip"], tmp_path / "source" / "env")
    first = pack_env(prefix, tmp_path / "1.tar.zst")
    (prefix / "share/new").write_text(f"{prefix}\n")
    (prefix / "share/linked").hardlink_to(prefix / "share/new")
    (prefix / "lib/python3.11/this.py").write_text("print('edited')\n")
    (prefix / "bin/pydoc3").unlink()
    pack_env(prefix, tmp_path / "2.tar.zst")
    pack_env(prefix, tmp_path / "delta.tar.zst", "--base", str(first))
    tree = move(unpack(first, tmp_path / "apps/first"), tmp_path / "apps/a longer name, with spaces")
    run([tree / "bin/conda-unpack"])
    pack_env(prefix, tmp_path / "by-tree.tar.gz", "--base", str(tree))
    prefix.rename(tmp_path / "hidden")
    return tmp_path


def test_a_delta_and_its_base_are_the_whole(versions: Path) -> None:
    base = versions / "apps/a longer name, with spaces"
    target = versions / "apps/env"
    pack("unpack", versions / "2.tar.zst", target)
    expected = snapshot(target, times=False)
    for delta in ("delta.tar.zst", "by-tree.tar.gz"):
        assert (versions / delta).stat().st_size < (versions / "2.tar.zst").stat().st_size / 20
        target.rename(versions / f"not {delta}")
        pack("unpack", "--check", versions / delta, "--base", base)
        pack("unpack", versions / delta, target, "--base", base)
        assert snapshot(target, times=False) == expected
    assert "are right" in pack("verify", target).stdout
    assert activated(target, "python -m this && pip --version").stdout.startswith("edited\npip ")
    assert (target / "share/linked").samefile(target / "share/new")


def test_what_is_refused(versions: Path) -> None:
    """A delta without its base, with another, with one that lacks a file; unpacked by tar; what cannot be one."""
    for option in (str(versions / "apps/env"), "--check"):
        assert "--base" in pack("unpack", versions / "delta.tar.zst", option, code=6).stderr
    done = pack("unpack", versions / "delta.tar.zst", versions / "apps/x", "--base", versions, code=6)
    assert "no readable" in done.stderr
    tree = unpack(versions / "delta.tar.zst", versions / "by tar")
    assert "not completed" in activated(tree, "echo went on", code=12).stderr

    base = versions / "apps/a longer name, with spaces"
    for options in (["-o", "x.zip"], ["-o", "x.sh"], ["-o", "x.tar", "-d", "/x"], ["-o", "x/"]):
        assert "--base" in pack("-p", versions / "hidden", *options, "--base", base, code=2).stderr
    lacking = base / "lib/python3.11/os.py"
    for change in (lambda: lacking.write_text("edited\n"), lacking.unlink):
        change()
        refused = pack("unpack", versions / "delta.tar.zst", versions / "apps/env", "--base", base, code=4)
        assert "lib/python3.11/os.py" in refused.stderr
    assert sorted(path.name for path in (versions / "apps").iterdir()) == [base.name]
