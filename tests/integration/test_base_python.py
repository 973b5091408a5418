"""A virtual environment that takes its Python along: packed, its Python deleted, moved, and run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.conformance import peer
from tests.conftest import MakeEnvironment
from tests.integration.installed import install, made_lean
from tests.integration.machines import mounts
from tests.integration.moving import (
    activated,
    move,
    pack,
    pack_env,
    run,
    sh,
    short_directory,
    snapshot,
    unpack,
    wheel,
)

MAKERS = ("venv", "venv --copies", "venv --system-site-packages", "virtualenv", "uv")
ASKED = (
    "python -c 'import bz2, ctypes, lzma, sqlite3, ssl, sys, sysconfig, zlib\n"
    'print(sys.prefix, sys.base_prefix, sysconfig.get_config_var("prefix"), sep="\\n")\' && tinyroot'
)


def installed(prefix: Path, channel: Path, cache: Path) -> Path:
    """Install a Python as ``make install`` leaves it: no package manager knows it, and it has a package of its own."""
    channels.install(prefix, ("python", "six"), [channel], cache=cache, hard_links=False)
    shutil.rmtree(prefix / "conda-meta")
    return made_lean(prefix)


def made(maker: str, base: Path, venv: Path, directory: Path) -> Path:
    """Make a virtual environment of a base, with a distribution in it."""
    python = base / "bin" / "python3"
    name, _, options = maker.partition(" ")
    if name == "virtualenv":
        run([peer.program("virtualenv"), "--no-download", "--python", python, venv], env=os.environ)
        run([venv / "bin/pip", "install", "--no-index", wheel(directory)], env=os.environ)
        return venv
    if name == "uv":
        run([peer.program("uv"), "venv", "--offline", "--python", python, venv], env=os.environ)
    else:
        run([python, "-m", "venv", "--without-pip", *options.split(), venv], env=os.environ)
    run([peer.program("uv"), "pip", "install", "--offline", "--python", venv / "bin/python", wheel(directory)])
    return venv


@pytest.fixture(scope="session")
def archives(session_directory: Path, channel: Path, package_cache: Path) -> dict[str, Path]:
    """The archive of a virtual environment of each kind, and others of the first. They and their Python are no more."""
    directory = session_directory / "base-python"
    directory.mkdir(parents=True, exist_ok=True)
    gone = directory / "gone"
    packed = {maker: directory / f"v{number}.tar" for number, maker in enumerate(MAKERS)}
    others = {
        directory / "venv.sh": ("--no-stub",),
        directory / "venv.zip": ("--zip-symlinks",),
        directory / "placed.tar": ("--dest-prefix", f"{directory}/placed"),
    }
    with channels.locked(directory):
        if not (directory / "complete").exists():
            base = installed(gone / "python", channel, package_cache)
            for maker, archive in packed.items():
                pack_env(made(maker, base, gone / archive.stem, directory), archive, "--with-python")
            for archive, options in others.items():
                pack_env(gone / "v0", archive, "--with-python", *options)
            shutil.rmtree(gone)
            (directory / "complete").touch()
    return {**packed, **{archive.name: archive for archive in others}}


def require_whole(tree: Path) -> None:
    """Require that a tree runs on the Python in it, and that no text in it speaks of another."""
    python = f"{tree}/share/pack-python"
    assert activated(tree, ASKED).stdout.splitlines() == [str(tree), python, python, str(tree)]
    assert "are right" in pack("verify", tree).stdout
    told = run(["grep", "-rIh", "--exclude-dir=.pack", "base-python/gone", tree], code=None).stdout.splitlines()
    assert not [line for line in told if not line.startswith(" 'WASM_")], "there it stands behind a dot, and is listed"


@pytest.mark.parametrize("maker", MAKERS)
def test_it_runs_wherever_it_goes_without_the_python_that_it_was_made_with(
    maker: str, archives: Mapping[str, Path], tmp_path: Path
) -> None:
    tree = unpack(archives[maker], tmp_path / "here")
    assert not os.path.isabs(os.readlink(tree / "bin/python3"))
    require_whole(tree)
    tree = move(tree, tmp_path / "there, with (some) spaces" / "and another name")
    sh(f"'{tree}/bin/conda-unpack'")
    require_whole(tree)
    others = activated(tree, "python -c 'import six; print(six.__file__)'", code=None)
    expected = f"{tree}/share/pack-python/lib/" if "system-site" in maker else ""
    assert others.stdout.startswith(expected)
    assert bool(others.stdout) == bool(expected), "the base's own packages come with those that see them"


def test_it_is_packed_again_as_it_was(archives: Mapping[str, Path], tmp_path: Path) -> None:
    """Where its Python is in it, nothing is asked for, and asking for it changes nothing."""
    tree = unpack(archives["venv"], tmp_path / "here")
    for options in ((), ("--with-python",)):
        again = pack_env(tree, tmp_path / f"again{len(options)}.tar", *options)
        assert again.read_bytes() == archives["venv"].read_bytes()
    activated(tree, "true")
    done = pack("-p", tree, "-o", tmp_path / "moved.tar", "--with-python")
    assert "Python is not packed" not in done.stderr
    assert (tmp_path / "moved.tar").read_bytes() == archives["venv"].read_bytes()


def test_every_way_to_unpack_it(archives: Mapping[str, Path], tmp_path: Path) -> None:
    """An installer without a frozen program runs on that very Python."""
    install(archives["venv.sh"], tmp_path / "installed")
    require_whole(tmp_path / "installed")
    pack("unpack", archives["venv"], tmp_path / "unpacked")
    require_whole(tmp_path / "unpacked")
    run(["unzip", "-q", archives["venv.zip"], "-d", tmp_path / "unzipped"])
    require_whole(tmp_path / "unzipped")
    placed = unpack(archives["placed.tar"], archives["placed.tar"].parent / "placed")
    assert run([placed / "bin/tinyroot"], env={}).stdout == f"{placed}\n"
    require_whole(placed)


def test_what_is_left_out_and_what_cannot_be_written_is_told(
    channel: Path, package_cache: Path, tmp_path: Path
) -> None:
    base = installed(tmp_path / "python", channel, package_cache)
    source = made("venv", base, tmp_path / "venv", tmp_path)
    configuration = source / "pyvenv.cfg"
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path)
    text = configuration.read_text().replace(f"{base}/", f"{alias}/python/")
    configuration.write_text(text.replace("\n", "  \n").replace(" = ", "="))
    (source / "bin/python3").unlink()
    (source / "bin/python3").symlink_to(alias / "python/bin/python3")
    before = snapshot(base)
    assert f"where it goes, {alias}/python/bin/python3" in pack("-p", source, "-o", tmp_path / "without.tar").stderr
    done = pack("-p", source, "-o", tmp_path / "v.tar", "--with-python", "--exclude", "*/email")
    assert "Python is not packed" not in done.stderr
    names = run(["tar", "-tf", tmp_path / "v.tar"]).stdout.splitlines()
    assert "share/pack-python/bin/python3" in names
    assert not [
        name for name in names if "/email/" in name or "share/pack-python/lib/python3.11/site-packages/" in name
    ]
    report = pack("-p", source, "--with-python", "--dry-run", "--slim", "headers").stdout
    assert "left out by --slim headers" in report
    assert "C string that names the base Python's old place" in report
    assert snapshot(base) == before
    require_whole(unpack(tmp_path / "v.tar", tmp_path / "here"))


def test_a_python_that_changes_meanwhile_is_read_anew(channel: Path, package_cache: Path, tmp_path: Path) -> None:
    """What is known of its files from the last time holds only as long as they are the same."""
    base = installed(tmp_path / "python", channel, package_cache)
    source = made("venv", base, tmp_path / "venv", tmp_path)
    library = next(base.glob("lib/python3.*"))
    module = library / "this.py"
    cache = ("--with-python", "--cache", str(tmp_path / "cache"))
    for text in (f"where = '{base}'\n", f"where = '{base}/lib'\n", "where = None\n"):
        module.write_text(text)
        os.utime(module, (1, 1))
        archive = pack_env(source, tmp_path / f"{len(text)}.tar", *cache)
        tree = unpack(archive, tmp_path / f"{len(text)}")
        found = activated(tree, "python -B -c 'import this; print(this.where)'").stdout.rstrip("\n")
        assert found == text.split("'")[1].replace(str(base), f"{tree}/share/pack-python") if "'" in text else "None"
    assert archive.read_bytes() == pack_env(source, tmp_path / "anew.tar", "--with-python", "--no-cache").read_bytes()


def test_a_python_in_a_place_that_others_share(channel: Path, package_cache: Path, tmp_path: Path) -> None:
    """Of /usr/local only what is Python's own is packed."""
    if sys.base_prefix == "/usr/local":
        pytest.skip("these tests run on the Python in /usr/local: make .venv with another")
    with short_directory() as room:
        local = installed(room / "local", channel, package_cache)
        (local / "bin/others").write_text("#!/bin/sh\n")
        venv, archive = tmp_path / "venv", tmp_path / "venv.tar"
        packing = f"{sys.executable.removesuffix('python')}pack -q -p {venv} -o {archive} --with-python --no-cache"
        make = f"/usr/local/bin/python3 -m venv --without-pip {venv}"
        mounts(f"mount --bind {local} /usr/local; {make}; {packing}")
    names = run(["tar", "-tf", archive]).stdout.splitlines()
    assert "share/pack-python/bin/others" not in names
    assert not [name for name in names if name.startswith("share/pack-python/lib/libssl")]
    shutil.rmtree(venv)
    tree = unpack(archive, tmp_path / "here")
    code = "import json, sys; print(sys.prefix, sys.base_prefix)"
    assert activated(tree, f"python -c '{code}'").stdout == f"{tree} {tree}/share/pack-python\n"


def test_what_has_no_python_of_its_own_is_refused(
    make_env: MakeEnvironment, channel: Path, package_cache: Path, tmp_path: Path
) -> None:
    def refused(prefix: Path, code: int, *options: str) -> str:
        said = pack("-p", prefix, "-o", tmp_path / "x.zip", "--with-python", *options, code=code).stderr
        assert not (tmp_path / "x.zip").exists()
        return said

    env = make_env(("python",))
    assert "is no virtual environment" in refused(env, 2, "--zip-symlinks")
    run([env / "bin/python3", "-m", "venv", "--without-pip", tmp_path / "inside"], env=os.environ)
    assert f"is that of another one, {env}" in refused(tmp_path / "inside", 4, "--zip-symlinks")
    assert "a copy would not start" in refused(tmp_path / "inside", 2)

    base = installed(tmp_path / "python", channel, package_cache)
    venv = made("venv", base, tmp_path / "venv", tmp_path)
    configuration = venv / "pyvenv.cfg"
    text = configuration.read_text()
    (venv / "share/pack-python").mkdir(parents=True)
    assert "has a share/pack-python already" in refused(venv, 4, "--zip-symlinks")
    (venv / "share/pack-python").rmdir()
    shutil.rmtree(base)
    assert f"{base}/bin leads to no CPython 3" in refused(venv, 4, "--zip-symlinks")
    system = next(Path("/usr/lib").glob("python3.*[0-9]"), None)
    if system is not None:
        configuration.write_text(text.replace(f"{base}/bin", "/usr/bin"))
        next(venv.glob("lib/python3.*")).rename(venv / "lib" / system.name)
        assert "is the system's" in refused(venv, 4, "--zip-symlinks")
