"""An environment without Python, moved: nothing in it can run the relocator, so `pack relocate` does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import NATIVE_SPECS
from tests.integration.moving import SURROUNDINGS, activated, pack, packed_and_deleted, run, snapshot, unpack


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    return packed_and_deleted(session_directory / "native-gone", NATIVE_SPECS, [channel], package_cache)


@pytest.fixture
def tree(archive: Path, tmp_path: Path) -> Path:
    return unpack(archive, tmp_path / "apps" / "native")


def test_conda_unpack_names_the_command(tree: Path) -> None:
    """Where no Python can run the relocator, conda-unpack changes nothing and says which command does it."""
    before = snapshot(tree)
    done = run([tree / "bin" / "conda-unpack"], code=10)
    assert f"pack relocate {tree}" in done.stderr
    assert snapshot(tree) == before


def test_activation_goes_on_with_a_message(tree: Path) -> None:
    """Activating what cannot be relocated yet sets everything, and says what is left to do."""
    before = snapshot(tree)
    done = activated(tree, 'echo "$CONDA_PREFIX"; command -v xz')
    assert done.stdout == f"{tree}\n{tree}/bin/xz\n"
    assert f"pack relocate {tree}" in done.stderr
    assert snapshot(tree) == before
    assert activated(tree, "true", env={**SURROUNDINGS, "PACK_RELOCATE": "never"}).stderr == ""
    required = activated(tree, "echo went on", env={**SURROUNDINGS, "PACK_RELOCATE": "require"}, code=10)
    assert required.stdout == ""


def test_programs_find_their_data(tree: Path) -> None:
    """After `pack relocate` the programs read configuration, terminals and libraries at the new place."""
    pack("relocate", tree)
    found = activated(tree, "openssl version -d && infocmp xterm && echo 'select 6 * 7;' | sqlite3 && xz --version")
    assert found.stderr == ""
    assert f'OPENSSLDIR: "{tree}/ssl"' in found.stdout
    assert re.search(rf"from file: {re.escape(str(tree))}/share/terminfo/\S+\n", found.stdout)
    assert "\n42\n" in found.stdout
    roundtrip = "echo packed | xz | xz -d && openssl rand -hex 4 && openssl list -providers"
    assert activated(tree, roundtrip).stdout.startswith("packed\n")
    loaded = run(["ldd", *(tree / "bin" / name for name in ("openssl", "infocmp", "sqlite3", "xz"))]).stdout
    assert "not found" not in loaded
    for library in ("libcrypto", "libtinfo", "libreadline", "liblzma"):
        paths = re.findall(rf"\b{library}\S* => (\S+)", loaded)
        assert paths
        assert [path for path in paths if not Path(path).resolve().is_relative_to(tree)] == []


def test_the_relocated_tree_verifies(tree: Path) -> None:
    """`pack verify` and `pack status` agree that a relocated tree is right, and stale before."""
    assert "stale" in pack("status", tree).stdout
    pack("relocate", tree)
    assert "up to date" in pack("status", tree).stdout
    assert "are right" in pack("verify", tree).stdout
    assert activated(tree, "true").stderr == ""
