"""The checklist of conda-pack: every option, format and check has its name and meaning here. A test for each line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import peers
from tests.conformance.peer import hidden
from tests.conftest import MakeEnvironment, need
from tests.integration.moving import PACK, SURROUNDINGS, activated, pack, run, sh, unpack

Own = Callable[..., Path]

SUFFIXES = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz", "tar.zst", "tzst", "parcel", "squashfs")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A conda environment of a few files."""
    prefix = tmp_path / "envs" / "small"
    for name in ("bin/tool", "lib/a.pyx", "lib/b.pyx", "share/doc/x"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(f"#!/bin/sh\necho {prefix}\n")
        (prefix / name).chmod(0o755)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    return prefix


def names(archive: Path) -> set[str]:
    """List a tar without what is ours."""
    with tarfile.open(archive) as opened:
        return {name for name in opened.getnames() if ".pack" not in name}


# The command line


def test_every_option_of_its_help_is_ours(small: Path) -> None:
    """Long and short, with and without a value."""
    theirs = run([peers.program("conda-pack"), "--help"]).stdout
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", theirs.partition("options:")[2]))
    # Without what was cut at the end of a line, and the name of a format.
    described = {option for option in options if not option.endswith("-") and option != "--no-archive"}
    assert len(described) > 25
    ours = pack("--help").stdout
    mine = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z0-9-]*", ours))
    assert described - mine == set()


def test_name_prefix_and_the_active_environment(small: Path, tmp_path: Path) -> None:
    env = {**SURROUNDINGS, "CONDA_ENVS_DIRS": str(small.parent)}
    for options, more in (
        (["-n", "small"], {}),
        (["--name", "small"], {}),
        (["-p", small], {}),
        (["--prefix", small], {}),
        ([], {"CONDA_PREFIX": str(small)}),
    ):
        run([PACK, *options], env={**env, **more}, cwd=tmp_path)
        assert "bin/tool" in names(tmp_path / "small.tar.gz")
        (tmp_path / "small.tar.gz").unlink()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats_by_suffix_and_by_name(suffix: str, small: Path, tmp_path: Path) -> None:
    need("mksquashfs")
    by_name = tmp_path / "by-name"
    pack("-q", "-p", small, "-o", tmp_path / f"x.{suffix}")
    pack("-q", "-p", small, "-o", by_name, "--format", suffix)
    assert by_name.read_bytes() == (tmp_path / f"x.{suffix}").read_bytes()
    target = tmp_path / "apps"
    pack("unpack", by_name, target)
    assert run([target / "bin/tool"]).stdout == f"{target}\n"
    default = {"parcel": r"small-\d{4}\.\d\d\.\d\d-el7\.parcel"}.get(suffix, rf"small\.{re.escape(suffix)}")
    run([PACK, "-q", "-p", small, "--format", suffix], cwd=tmp_path)
    assert any(re.fullmatch(default, name) for name in os.listdir(tmp_path))


def test_no_archive(small: Path, tmp_path: Path) -> None:
    pack("-q", "-p", small, "--format", "no-archive", "-o", tmp_path / "tree")
    pack("-q", "-p", small, "-o", tmp_path / "other.no-archive")
    for tree in (tmp_path / "tree", tmp_path / "other.no-archive"):
        run([tree / "bin/conda-unpack"], code=10)  # there is no Python in it
        pack("relocate", tree)
        assert run([tree / "bin/tool"]).stdout == f"{tree}\n"


def test_levels_threads_and_zip_options(small: Path, tmp_path: Path) -> None:
    (small / "link").symlink_to("bin/tool")
    for level in ("0", "4", "9"):
        for suffix in ("zip", "tar", "tar.gz", "tar.xz", "tar.zst", "parcel", "squashfs"):
            pack("-q", "-f", "-p", small, "-o", tmp_path / f"x.{suffix}", "--compress-level", level, "-j", "-1")
    pack("-q", "-f", "-p", small, "-o", tmp_path / "x.zip", "--n-threads", "2", "--no-zip-64")
    kinds = {info.filename: info.external_attr >> 28 for info in zipfile.ZipFile(tmp_path / "x.zip").infolist()}
    assert (kinds["link"], kinds["bin/tool"]) == (8, 8)
    pack("-q", "-f", "-p", small, "-o", tmp_path / "x.zip", "--zip-symlinks")
    kinds = {info.filename: info.external_attr >> 28 for info in zipfile.ZipFile(tmp_path / "x.zip").infolist()}
    assert kinds["link"] == 10


@pytest.mark.parametrize("suffix", ["tar.gz", "zip"])
def test_arcroot(suffix: str, small: Path, tmp_path: Path) -> None:
    archive = tmp_path / f"x.{suffix}"
    pack("-q", "-p", small, "-o", archive, "--arcroot", "my/root/")
    listed = names(archive) if suffix == "tar.gz" else set(zipfile.ZipFile(archive).namelist())
    assert "my/root/bin/tool" in listed and not [name for name in listed if not name.startswith("my")]


@pytest.mark.parametrize("option", ["-d", "--dest-prefix"])
def test_dest_prefix(option: str, small: Path, tmp_path: Path) -> None:
    target = tmp_path / "apps/env"
    pack("-q", "-p", small, "-o", tmp_path / "a.tar", option, str(target))
    pack("-q", "-p", small, "-o", tmp_path / "b.tar", option, "./environment")
    hidden(small)
    assert run([unpack(tmp_path / "a.tar", target) / "bin/tool"]).stdout == f"{target}\n"
    relative = unpack(tmp_path / "b.tar", tmp_path / "environment")
    assert run([relative / "bin/tool"]).stdout == "./environment\n"


def test_exclude_and_include_in_order(small: Path, tmp_path: Path) -> None:
    options = ["--exclude", "*.pyx", "--include", "lib/a.pyx", "--exclude", "share/doc"]
    pack("-q", "-p", small, "-o", tmp_path / "x.tar", *options)
    listed = names(tmp_path / "x.tar")
    assert "lib/a.pyx" in listed and not {"lib/b.pyx", "share/doc/x"} & listed


def test_ignored_editables_and_missing_files_and_quiet(own: Own, tmp_path: Path) -> None:
    prefix = own("python")
    site = next(prefix.glob("lib/python3*/site-packages"))
    (tmp_path / "src").mkdir()
    (site / "mine.pth").write_text(f"{tmp_path / 'src'}\n")
    (prefix / "include/zlib.h").unlink()
    refused = pack("-p", prefix, "-o", tmp_path / "x.tar", code=4)
    assert "editable packages" in refused.stderr and not (tmp_path / "x.tar").exists()
    options = ["--ignore-editable-packages", "--ignore-missing-files"]
    done = pack("-q", "-p", prefix, "-o", tmp_path / "x.tar", *options)
    assert (done.stdout, done.stderr) == ("", "")


def test_parcels(small: Path, tmp_path: Path) -> None:
    options = ["--parcel-root", "/p", "--parcel-name", "n", "--parcel-version", "1", "--parcel-distro", "sles"]
    run([PACK, "-q", "-p", small, "--format", "parcel", *options], cwd=tmp_path)
    with tarfile.open(tmp_path / "n-1-sles.parcel") as archive:
        told = json.load(archive.extractfile("n-1/meta/parcel.json"))  # type: ignore[arg-type]
        tool = archive.extractfile("n-1/bin/tool")
        assert tool is not None and b"echo /p/n-1\n" in tool.read()
    assert told["extraVersionInfo"]["fullVersion"] == "1-sles"


def test_force_makes_the_directory_and_overwrites(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "new/dir/x.tar"
    pack("-q", "-p", small, "-o", output, code=5)
    for _ in range(2):
        pack("-q", "-p", small, "-o", output, "-f")
    pack("-q", "-p", small, "-o", output, code=5)


# In the archive


def test_what_is_in_the_archive(lean: Path, tmp_path: Path) -> None:
    target = unpack(pack_of(lean, tmp_path / "x.tar"), tmp_path / "env")
    for name in ("activate", "deactivate", "activate.fish", "conda-unpack"):
        assert (target / "bin" / name).is_file()
    for option in ("-v", "--version", "-h"):
        assert run([target / "bin/conda-unpack", option]).stdout
    record = json.loads(next((target / "conda-meta").glob("python-*.json")).read_text())
    assert record["link"]["source"] == "" and str(lean) not in json.dumps(record)


def pack_of(prefix: Path, output: Path) -> Path:
    pack("-q", "-p", prefix, "-o", output)
    return output


# Environments


def test_environments_without_python_history_or_links(small: Path, tmp_path: Path) -> None:
    """As pixi writes them: ``link`` is null, and there is no history."""
    (small / "conda-meta/history").unlink()
    record = {"name": "tool", "version": "1", "build": "0", "files": ["bin/tool"], "link": None}
    (small / "conda-meta/tool-1-0.json").write_text(json.dumps(record))
    target = unpack(pack_of(small, tmp_path / "x.tar"), tmp_path / "env")
    assert (target / "conda-meta/history").read_bytes() == b""
    pack("relocate", target)
    assert run([target / "bin/tool"]).stdout == f"{target}\n"


def test_noarch_packages_with_entry_points(lean: Path, tmp_path: Path) -> None:
    target = unpack(pack_of(lean, tmp_path / "x.tar"), tmp_path / "env")
    assert str(target) in run([target / "bin/pip", "--version"]).stdout


def test_base_without_its_packages_and_environments(own: Own, tmp_path: Path) -> None:
    prefix = own("python")
    for name in ("pkgs/urls.txt", "pkgs/x-1-0/info/index.json", "envs/other/conda-meta/history", "share/envs/mine"):
        (prefix / name).parent.mkdir(parents=True)
        (prefix / name).write_text("{}")
    listed = names(pack_of(prefix, tmp_path / "x.tar"))
    assert "share/envs/mine" in listed and not {"pkgs", "envs"} & listed


def test_empty_directories_and_symlinks_to_directories(small: Path, tmp_path: Path) -> None:
    (small / "empty").mkdir()
    (small / "lib64").symlink_to("lib")
    with tarfile.open(pack_of(small, tmp_path / "x.tar")) as archive:
        assert archive.getmember("empty").isdir() and archive.getmember("lib64").linkname == "lib"


def test_files_that_pip_installed(own: Own, tmp_path: Path) -> None:
    from tests.integration.moving import wheel

    prefix = own("python", "pip")
    run([prefix / "bin/python", "-m", "pip", "install", "-q", "--no-index", wheel(tmp_path)])
    archive = pack_of(prefix, tmp_path / "x.tar")
    hidden(prefix)
    target = unpack(archive, tmp_path / "env")
    assert activated(target, "tinyroot").stdout == f"{target}\n"


# Checks


def test_checks(small: Path, tmp_path: Path, make_env: MakeEnvironment) -> None:
    """Each says what is wrong, ends with the code for its kind, and leaves nothing."""
    output = ["-o", str(tmp_path / "x.tar")]
    (tmp_path / "there.tar").touch()
    (tmp_path / "not-an-environment").mkdir()
    other = tmp_path / "more" / "small" / "conda-meta"
    other.mkdir(parents=True)
    (other / "history").touch()
    env = {**SURROUNDINGS, "CONDA_ENVS_DIRS": f"{small.parent}:{other.parent.parent}"}
    for arguments, code, words in (
        (["-p", str(tmp_path / "none"), *output], 3, "there is no environment at"),
        (["-p", str(tmp_path / "not-an-environment"), *output], 3, "is not an environment"),
        (["-n", "unknown", *output], 3, "no environment is named"),
        (["-n", "small", *output], 3, "2 environments are named"),
        (["-n", "small", "-p", str(small), *output], 2, "both a name and a prefix"),
        (["-p", str(small), "-o", str(tmp_path / "there.tar")], 5, "exists already"),
        (["-p", str(small), "-o", str(tmp_path / "none/x.tar")], 5, "does not exist"),
        (["-p", str(small), "-o", str(tmp_path / "x.rar")], 2, "does not say which format"),
        (["-p", str(small), "--format", "parcel", "--parcel-name", "a-b"], 2, "may hold no dash"),
        (["-p", str(small), *output, "--exclude", ""], 2, "matches no path"),
        (["-p", str(small), *output, "-j", "0"], 2, "no such number"),
        (["-p", str(small), *output, "-d", "/a:b"], 7, "a colon separates"),
    ):
        done = run([PACK, *arguments], env=env, cwd=tmp_path, code=code)
        assert words in done.stderr, arguments
    assert not (tmp_path / "x.tar").exists()


def test_mksquashfs_missing(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [PACK, "-p", small, "-o", tmp_path / "x.squashfs"], env={"PATH": "/nonexistent"}, capture_output=True, text=True
    )
    assert done.returncode == 5 and "mksquashfs is not in PATH" in done.stderr and "squashfs-tools" in done.stderr
    assert not (tmp_path / "x.squashfs").exists()


def test_more_than_one_python(small: Path, tmp_path: Path) -> None:
    for version in ("3.11", "3.12"):
        record: dict[str, object] = {"name": "python", "version": version, "build": "0", "files": []}
        (small / f"conda-meta/python-{version}-0.json").write_text(json.dumps(record))
    assert "more than one Python" in pack("-p", small, "-o", tmp_path / "x.tar", code=4).stderr


def test_a_squashfs_is_mounted_at_its_destination(small: Path, tmp_path: Path) -> None:
    """Baked in, it works where nothing can be written."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    target = tmp_path / "mounted"
    target.mkdir()
    pack("-q", "-p", small, "-o", tmp_path / "x.squashfs", "--dest-prefix", str(target))
    image = tmp_path / "x.squashfs"
    if Path("/dev/fuse").exists():
        script = f"squashfuse {image} {target} && {target}/bin/tool; code=$?; umount {target}; exit $code"
        need("squashfuse")
    else:  # no file system of a program's own here: the same tree, laid out
        script = f"unsquashfs -quiet -no-progress -force -d {target} {image} && {target}/bin/tool"
    assert sh(script).stdout.endswith(f"{target}\n")
