"""`pack unpack` gives the tree that tar and bin/conda-unpack give, or says why not and leaves nothing."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.selection import all_run
from tests.conftest import need
from tests.integration.machines import mounts
from tests.integration.moving import (
    PACK,
    SURROUNDINGS,
    activated,
    digest,
    pack,
    pack_env,
    run,
    short_directory,
    snapshot,
    unpack,
)

SUFFIXES = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def native(place: Path, native_env: Path) -> Path:
    return pack_env(native_env, place / "native.tar")


@pytest.fixture(scope="module")
def packed(place: Path) -> dict[str, Path]:
    """A small environment in every format."""
    prefix = place / "small"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "share").mkdir()
    (prefix / "share/text").write_bytes(bytes(prefix))
    (prefix / "share/noise").write_bytes(random.Random(0).randbytes(3 << 20))
    return {suffix: pack_env(prefix, place / f"packed.{suffix}") for suffix in SUFFIXES}


@pytest.fixture(scope="module")
def tricky(references_env: Path, place: Path) -> Path:
    return pack_env(references_env, place / "references.tar")


def same_as_tar(archive: Path, directory: Path) -> None:
    """Unpack an archive twice to one path, by tar and by us, and compare all that can be compared."""
    target = directory / "env"
    plain = snapshot(unpack(archive, target))
    began = time.time_ns()
    run([target / "bin" / "conda-unpack"])
    expected = snapshot(target)
    expected.pop(".pack/lock")
    shutil.rmtree(target)
    pack("unpack", archive, "-p", target)
    found = snapshot(target)
    assert found.keys() == expected.keys()
    for path, (mode, mtime, content) in found.items():
        assert isinstance(mtime, int)
        assert (mode, content) == (expected[path][0], expected[path][2]), path
        if mode[0] == "d":  # type: ignore[index]
            assert mtime == plain[path][1], path  # conda-unpack has put files there since
        elif expected[path][1] != mtime:
            # What is rewritten has the time of that.
            assert min(mtime, int(str(expected[path][1]))) > began - 10**9, path
    assert os.listdir(directory) == ["env"]


def test_the_tree_is_that_of_tar_and_conda_unpack(tricky: Path, tmp_path: Path) -> None:
    same_as_tar(tricky, tmp_path)


def test_python_runs_where_it_is_unpacked_and_all_is_right(python_env: Path, place: Path) -> None:
    archive = pack_env(python_env, place / "python.tar")
    (place / "same").mkdir()
    same_as_tar(archive, place / "same")
    tree = place / "same" / "env"
    done = activated(tree, "python -c 'import sys, numpy; print(sys.prefix)'; pip --version")
    assert done.stdout.splitlines()[0] == str(tree)
    pack("verify", tree)
    status = json.loads(pack("status", tree, "--json").stdout)
    assert (status["current"], status["prefixes"]) == (True, [str(tree)])
    run([tree / "bin" / "conda-unpack"])
    archive.unlink()


def test_a_damaged_zip_is_refused_in_words(packed: dict[str, Path], tmp_path: Path) -> None:
    archive = pack_env(packed["tar"].parent / "small", tmp_path / "env.zip")
    with zipfile.ZipFile(archive) as opened:
        members = [info for info in opened.infolist() if info.compress_size > 600]
    whole = archive.read_bytes()
    assert len(members) > 20
    for info in members if all_run() else members[::4]:
        at = info.header_offset + 30 + len(info.filename) + 300
        archive.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        done = pack("unpack", archive, tmp_path / "unpacked", code=11)
        assert re.fullmatch(r"pack: error: .*\n(TIP: .*\n)?", done.stderr), (info.filename, done.stderr)
        assert os.listdir(tmp_path) == ["env.zip"]


@pytest.mark.parametrize(("suffix", "what"), [("zip", "zip"), ("squashfs", "SquashFS image")])
def test_what_is_no_stream_is_not_read_from_the_standard_input(
    suffix: str, what: str, packed: dict[str, Path], tmp_path: Path
) -> None:
    if suffix == "squashfs":
        need("mksquashfs")
    archive = pack_env(packed["tar"].parent / "small", tmp_path / f"env.{suffix}")
    for command in (["unpack", "-", tmp_path / "unpacked"], ["lock", "-"]):
        done = run(["sh", "-c", f"cat {archive} | {PACK} {' '.join(map(str, command))}"], code=2)
        assert f"standard input is a {what}" in done.stderr
    assert os.listdir(tmp_path) == [archive.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_that_pack_writes_is_read_also_from_a_pipe(
    suffix: str, packed: dict[str, Path], tmp_path: Path
) -> None:
    env = {**SURROUNDINGS, "PWD": str(tmp_path)}
    done = run([PACK, "unpack", packed[suffix]], env=env, cwd=tmp_path)
    assert f"{tmp_path}/packed: " in done.stdout
    pack("verify", tmp_path / "packed")
    with packed[suffix].open("rb") as archive:
        piped = subprocess.Popen(["cat"], stdin=archive, stdout=subprocess.PIPE)
        command: list[str | Path] = [PACK, "unpack", "-q", "--no-relocate", "-", "-p", tmp_path / "piped"]
        quiet = subprocess.run(command, stdin=piped.stdout, capture_output=True)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")
    pack("verify", tmp_path / "piped")
    assert not (tmp_path / "piped/.pack/state.json").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pipe_whose_first_bytes_come_one_by_one(suffix: str, packed: dict[str, Path], tmp_path: Path) -> None:
    data = packed[suffix].read_bytes()
    command: list[str | Path] = [PACK, "unpack", "-", "-p", tmp_path / "piped"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdin is not None
        for at in range(8):
            unpacking.stdin.write(data[at : at + 1])
            unpacking.stdin.flush()
            time.sleep(0.1)
        unpacking.stdin.write(data[8:])
        unpacking.communicate()
    assert unpacking.returncode == 0
    pack("verify", tmp_path / "piped")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["a byte more", "a stream more", "cut by one", "cut in half", "a byte changed"])
def test_a_stream_that_is_damaged_leaves_nothing(
    suffix: str, damage: str, packed: dict[str, Path], tmp_path: Path
) -> None:
    data = packed[suffix].read_bytes()
    middle = len(data) // 2
    changed = {
        "a byte more": data + b"\0",
        "a stream more": data + data,
        "cut by one": data[:-1],
        "cut in half": data[:middle],
        "a byte changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[damage]
    archive = tmp_path / "archives" / f"a.{suffix}"
    archive.parent.mkdir()
    archive.write_bytes(changed)
    done = pack("unpack", archive, "-p", tmp_path / "env", code=11)
    assert "cannot be unpacked" in done.stderr
    assert os.listdir(tmp_path) == ["archives"]


def test_json_says_what_was_done(native: Path, tmp_path: Path) -> None:
    facts = json.loads(pack("unpack", native, "-p", tmp_path / "env", "--json").stdout)
    assert facts["prefix"] == str(tmp_path / "env")
    assert facts["written"] > 0
    assert facts["members"] > facts["written"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["none.tar"], 2, "no such archive"),
        (["."], 2, "does not say"),
        ([".", "-p", "env"], 6, "no archive of pack"),
        (["-"], 2, "no name"),
        (["x.tar", "--strict", "--allow-unrelocated"], 2, "contradict"),
        (["x.tar", "--strict", "--no-relocate"], 2, "contradict"),
        (["full.tar"], 5, "not an empty directory"),
        (["native.tar", "-p", "none/env"], 5, "does not exist"),
        (["native.tar", "-p", "a:b"], 7, "colon"),
        (["native.tar", "-p", "long"], 8, "room"),
        (["text.tar"], 11, "cut"),
        (["tar.tar"], 6, "no archive of pack"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    arguments: list[str], code: int, word: str, native: Path, tmp_path: Path
) -> None:
    os.link(native, tmp_path / "native.tar")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "text.tar").write_text("not a tar")
    run(["tar", "-cf", tmp_path / "tar.tar", "-C", tmp_path, "full"])
    arguments = ["n" * 240 if argument == "long" else argument for argument in arguments]
    if "n" * 240 in arguments:
        arguments[-1] = "/".join(["n" * 200, "m" * 200])
        (tmp_path / ("n" * 200)).mkdir()
    before = snapshot(tmp_path)
    done = run([PACK, "unpack", *arguments], cwd=tmp_path, code=code)
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path) == before


def slow_archive(archive: Path, tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Begin to unpack an archive of which the second half does not come; return that, and the end that it waits for."""
    reading, writing = os.pipe()
    command: list[str | Path] = [PACK, "unpack", "-", "-p", tmp_path / "env"]
    process = subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=SURROUNDINGS)
    os.close(reading)
    data = archive.read_bytes()
    view = memoryview(data)[: len(data) // 2]
    while view:
        view = view[os.write(writing, view) :]
    while not list(tmp_path.glob(".env.pack-*/tree/bin/*")):
        time.sleep(0.01)
    return process, writing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: int, native: Path, tmp_path: Path, hang_up: None) -> None:
    process, writing = slow_archive(native, tmp_path)
    process.send_signal(number)
    process.communicate()
    os.close(writing)
    assert process.returncode == 128 + number
    assert os.listdir(tmp_path) == []


def test_the_next_run_clears_what_a_killed_one_left(native: Path, tmp_path: Path) -> None:
    process, writing = slow_archive(native, tmp_path)
    process.kill()
    process.communicate()
    os.close(writing)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".env.pack-")
    pack("unpack", native, "-p", tmp_path / "env")
    assert os.listdir(tmp_path) == ["env"]
    pack("verify", tmp_path / "env")


def test_two_at_once_make_one_tree_and_one_refusal(native: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [PACK, "unpack", "-q", native, "-p", tmp_path / "env"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, env=SURROUNDINGS) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5], errors
    assert os.listdir(tmp_path) == ["env"]
    pack("verify", tmp_path / "env")


def test_a_full_disk_leaves_nothing(native: Path, tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o size=4m none {tmp_path}
        code=0; {PACK} unpack {native} -p {tmp_path}/env || code=$?
        ls -A {tmp_path}
        exit $code
    """
    done = mounts(script, code=5)
    assert "the disk is full" in done.stderr
    assert done.stdout == ""


def test_the_tree_is_on_the_disk_before_it_has_its_name(native: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    trace = "trace=syncfs,?rename,renameat,renameat2,fsync"
    run([need("strace"), "-f", "-o", log, "-e", trace, PACK, "unpack", native, "-p", tmp_path / "env"])
    calls = [line.split(" ", 1)[1].split("(")[0].strip() for line in log.read_text().splitlines() if "(" in line]
    names = [call for call in calls if call in ("syncfs", "rename", "renameat", "renameat2", "fsync")]
    at = names.index("syncfs")
    assert names[at:] in (["syncfs", "rename", "fsync"], ["syncfs", "renameat2", "fsync"])


def test_a_stub_of_python_38_extracts(native: Path, tmp_path: Path) -> None:
    """The extractor runs from the stub, where there is neither ``pack`` nor a package."""
    script = """
import os, sys
sys.path.insert(0, sys.argv[1])
from installer_stub import admission, extract, landing
with open(sys.argv[2], "rb") as file:
    place = landing.place(os.fsencode(sys.argv[3]))
    archive = admission.open_archive(file.read)
    with landing.staged(place) as tree:
        extract.extract(archive, tree, place)
"""
    root = Path(__file__).resolve().parents[2]
    pythons = [sys.executable, *map(str, (Path.home() / ".pyenv/versions").glob("3.8.*/bin/python"))]
    for number, python in enumerate(pythons):
        run([python, "-I", "-S", "-B", "-c", script, root, native, tmp_path / f"env{number}"])
        pack("verify", tmp_path / f"env{number}")


def test_hard_links_modes_and_umask_are_those_of_tar(native_env: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(native_env, source, symlinks=True)
    (source / "share/one").write_bytes(bytes(source))
    os.link(source / "share/one", source / "share/two")
    (source / "share/closed").mkdir(mode=0o555)
    (source / "share/one").chmod(0o440)
    archive = pack_env(source, tmp_path / "a.tar")
    pack("unpack", archive, "-p", tmp_path / "env")
    assert digest(tmp_path / "env/share/one") == digest(tmp_path / "env/share/two")
    assert (tmp_path / "env/share/one").samefile(tmp_path / "env/share/two")
    assert stat.S_IMODE((tmp_path / "env/share/one").stat().st_mode) == 0o440
    assert stat.S_IMODE((tmp_path / "env/share/closed").stat().st_mode) == 0o555
    assert (tmp_path / "env/share/one").read_bytes() == bytes(tmp_path / "env")
