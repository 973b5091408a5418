"""The same environment gives the same archive: on any number of cores, at any path, after a move, without a cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.conftest import NATIVE_SPECS, MakeEnvironment
from tests.integration.moving import (
    SURROUNDINGS,
    activated,
    clone,
    digest,
    move,
    pack,
    pack_env,
    packed_and_deleted,
    run,
    wheel,
    wrong_rows,
)

PYTHON = ("python", "pip", "requests", "rich")


def assert_equal(archive: Path, other: Path) -> None:
    """Require that two tar archives are equal byte for byte, and name the members that are not."""
    if digest(archive) == digest(other):
        return
    one, two = contents(archive), contents(other)
    differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    pytest.fail(f"{archive} and {other} differ in {len(differing)} members: {differing[:20]}")


def made(directory: Path) -> Path:
    """Make a directory, and return it."""
    directory.mkdir()
    return directory


def contents(archive: Path) -> dict[str, tuple[object, ...]]:
    """Read an archive: the facts and the hash of each member."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else io.BytesIO()
            assert file is not None
            sha256 = hashlib.sha256(file.read()).hexdigest()
            found[member.name] = (member.mode, member.mtime, member.size, member.linkname, sha256)
    return found


@pytest.fixture(scope="module")
def archive(session_directory: Path, channel: Path, package_cache: Path) -> Path:
    """The first archive of an environment with Python, which stood at a path of ordinary length."""
    return packed_and_deleted(session_directory / "repacked", PYTHON, [channel], package_cache)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.zst"])
def test_any_number_of_threads_gives_the_same_bytes(suffix: str, native_env: Path, tmp_path: Path) -> None:
    """Two packings of one environment are equal byte for byte, whatever -j."""
    packed = [pack_env(native_env, tmp_path / f"{n}.{suffix}", "-j", n) for n in ("1", "2", "3")]
    packed.append(pack_env(native_env, tmp_path / f"again.{suffix}"))
    assert len({digest(path) for path in packed}) == 1


def test_packed_again_after_a_move(archive: Path, tmp_path: Path) -> None:
    """Unpacked, activated, used, moved and used again, an environment packs to the archive that it came from."""
    tree = clone(archive, tmp_path / "first" / "env")
    use = "python -c 'import ssl, requests, rich.table, sqlite3' && pip list && pip check"
    activated(tree, use)
    assert_equal(archive, pack_env(tree, tmp_path / "second.tar"))
    tree = move(tree, tmp_path / "a longer directory, with spaces" / "and another name")
    activated(tree, use)
    assert list(tree.rglob("requests/__pycache__/*.pyc"))  # it left what is no part of the environment
    assert_equal(archive, pack_env(tree, tmp_path / "third.tar"))


def test_packed_again_as_unpacked(archive: Path, tmp_path: Path) -> None:
    """An archive that was unpacked and never activated packs to itself."""
    tree = clone(archive, tmp_path / "env")
    assert_equal(archive, pack_env(tree, tmp_path / "again.tar"))


@pytest.mark.parametrize("length", [0, 180])
def test_installed_at_another_path(
    length: int, archive: Path, tmp_path: Path, channel: Path, package_cache: Path
) -> None:
    """The same packages installed elsewhere give the same archive, even where shebangs are too long to be such."""
    prefix = tmp_path / "other"
    if length:
        prefix = prefix / ("d" * (length - len(str(prefix)) - 5)) / "env"
        assert len(str(prefix)) == length
    channels.install(prefix, PYTHON, [channel], cache=package_cache, hard_links=False)
    head = (prefix / "bin" / "pip").read_bytes()[:9]
    assert head == (b"#!/bin/sh" if length > 127 else f"#!{prefix}".encode()[:9])
    packed = pack_env(prefix, tmp_path / "other.tar")
    if length > 127:
        # pip writes such a head, too: its script finds its interpreter at once, wherever it goes.
        command: list[str | Path] = [prefix / "bin" / "python", "-m", "pip", "install", "--no-index", wheel(tmp_path)]
        run(command, env={**SURROUNDINGS, "PATH": f"{prefix}/bin:/usr/bin:/bin"})
        assert (prefix / "bin" / "tinyroot").read_bytes().startswith(b"#!/bin/sh\n'''exec' /")
        added = pack_env(prefix, made(tmp_path / "added") / "env.tar")
        shutil.rmtree(prefix)
        tree = clone(added, tmp_path / "moved" / "env")
        assert run([tree / "bin" / "tinyroot"], env={}).stdout == f"{tree}\n"
        assert wrong_rows(tree, "tinyroot") == []
    assert_equal(archive, packed)


def test_without_the_package_cache(channel: Path, tmp_path: Path) -> None:
    """Packing needs no package cache: deleting it changes nothing."""
    cache = tmp_path / "cache"
    prefix = channels.install(tmp_path / "env", NATIVE_SPECS, [channel], cache=cache)
    before = pack_env(prefix, tmp_path / "before.tar")
    shutil.rmtree(cache)
    assert_equal(before, pack_env(prefix, tmp_path / "after.tar"))


def test_a_managed_file_edited_by_hand(make_env: MakeEnvironment, tmp_path: Path) -> None:
    """What you changed in a package's file is packed as you changed it, and reported."""
    prefix = make_env(NATIVE_SPECS)
    pristine = json.loads(pack("scan", "--json", "-p", prefix).stdout)
    assert "modified" not in pristine["standing"]
    (config,) = (path for path in prefix.rglob("openssl.cnf") if not path.is_symlink())
    edited = config.read_text() + f"\n# mine: {prefix}/share\n"
    config.write_text(edited)
    program = prefix / "bin" / "xz"
    program.chmod(0o755)
    with program.open("ab") as file:
        file.write(b"appended by hand")
    report = json.loads(pack("scan", "--json", "-p", prefix).stdout)
    assert report["standing"]["modified"] == 2
    assert [each["path"] for each in report["modified"]] == ["bin/xz", str(config.relative_to(prefix))]
    assert report["standing"]["intact"] == pristine["standing"]["intact"] - 2
    archive = pack_env(prefix, made(tmp_path / "packed") / "env.tar")
    shutil.rmtree(prefix)
    tree = clone(archive, prefix.with_name("new"))  # no longer: nobody vouches for the NULs in an edited program
    assert (tree / config.relative_to(prefix)).read_text() == edited
    pack("relocate", tree)
    assert (tree / config.relative_to(prefix)).read_text() == edited.replace(str(prefix), str(tree))
    assert (tree / "bin" / "xz").read_bytes().endswith(b"appended by hand")
    assert run([tree / "bin" / "xz", "--version"]).stdout.startswith("xz")


def test_what_pip_installed_between_moves(archive: Path, tmp_path: Path) -> None:
    """A wheel installed after one move is in the next archive, works after the next move, and its RECORD holds."""
    tree = clone(archive, tmp_path / "first" / "env")
    activated(tree, f"pip install --no-index {shlex.quote(str(wheel(tmp_path)))}")
    direct = pack_env(tree, made(tmp_path / "direct") / "env.tar")
    assert sorted(set(contents(direct)) - set(contents(archive))) == sorted(
        f"{directory}{name}"
        for directory, names in {
            "": [".pack/requirements.txt", "bin/tinyroot"],
            "lib/python3.11/site-packages/": [
                "tinyroot/",
                "tinyroot/__init__.py",
                "tinyroot/__pycache__/",
                "tinyroot/__pycache__/__init__.cpython-311.pyc",
                *(f"tinyroot-1.0.dist-info/{name}" for name in ["", *DIST_INFO]),
            ],
        }.items()
        for name in (name.rstrip("/") for name in names)
    )
    shutil.rmtree(tree)
    tree = clone(direct, tmp_path / "second place" / "env of another name")
    works(tree)
    assert wrong_rows(tree, "tinyroot") == []
    assert_equal(direct, pack_env(tree, tmp_path / "again.tar"))


def test_what_pip_installed_moves_on_without_packing(archive: Path, tmp_path: Path) -> None:
    """A wheel installed between two moves works after the second, and so does what is packed there."""
    tree = clone(archive, tmp_path / "first" / "env")
    activated(tree, f"pip install --no-index {shlex.quote(str(wheel(tmp_path)))}")
    tree = move(tree, tmp_path / "second place" / "env of another name")
    works(tree)
    packed = pack_env(tree, made(tmp_path / "packed") / "env.tar")
    assert_equal(packed, pack_env(tree, tmp_path / "again.tar"))
    records = wrong_rows(tree, "tinyroot")
    shutil.rmtree(tree)
    works(clone(packed, tmp_path / "third" / "env"))
    # What packing did not see has its digests left alone: only that of the rewritten script no longer holds.
    assert [row.split(",")[0] for row in records] == ["../../../bin/tinyroot"]


DIST_INFO = ("INSTALLER", "METADATA", "RECORD", "REQUESTED", "WHEEL", "direct_url.json", "entry_points.txt")


def works(tree: Path) -> None:
    """Require that the wheel works in a tree, for pip, too."""
    assert activated(tree, "tinyroot && pip check").stdout == f"{tree}\nNo broken requirements found.\n"
    assert run([tree / "bin" / "tinyroot"], env={}).stdout == f"{tree}\n"
    listed = activated(tree, "pip show -f tinyroot").stdout
    assert re.search(rf"^Location: {re.escape(os.fspath(tree))}/lib/", listed, re.MULTILINE)
