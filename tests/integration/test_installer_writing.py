"""Installers as files: what is in them by hand, the same bytes each time, what lies beside them, and nothing half done.

What they do when they are run is tested elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import stub as stubs
from installer_stub import trailer
from installer_stub.errors import EnvironmentUnfit
from installer_stub.trailer import Trailer
from pack.archive import Format
from pack.environment import find
from pack.installer import asked
from pack.stub import store
from pack.stub.store import StubUnavailable
from pack.write import Options, write
from tests.conftest import NATIVE_SPECS, MakeEnvironment, need
from tests.integration.moving import PACK, SURROUNDINGS, digest, pack, pack_env, run, sh, snapshot, unpack

# As docs/installer.md has it.
BY_HAND = """
set -- $(tail -c 284 "$INSTALLER" | awk 'NR > 1 { print $2 }')
tail -c +$(($1 + $2 + 1)) "$INSTALLER" | head -c "$3" | tar --%s -xf - -C "$DIRECTORY"
"""


@pytest.fixture(scope="module")
def installer(native_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installer of the environment without Python, and without a stub."""
    return pack_env(native_env, tmp_path_factory.mktemp("installer") / "env.sh", "--no-stub")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small prefix that tests may change."""
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "tool").write_text(f"#!/bin/sh\necho {prefix}\n")
    (prefix / "data").write_bytes(bytes(range(256)) * 5000)
    return prefix


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Surroundings with a stub in the cache that is as one is, but for what its programs do."""
    cache = tmp_path_factory.mktemp("cache")
    files = cache / "relopack" / "new" / "made"
    (files / "_internal").mkdir(parents=True)
    for path in (files / "relocator", files.with_name("opener")):
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o755)
    (files / "_internal" / "library.so").write_bytes(os.urandom(100_000))
    sha256, size = store.measure(files)
    opener = store.sha256(files.with_name("opener"))
    record = store.Record(platform.machine(), "2.17", "3.11", store.recipe(), sha256, size, opener)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    try:
        store.keep(files, record)
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
    return {**SURROUNDINGS, "XDG_CACHE_HOME": str(cache)}


def read_trailer(path: Path) -> Trailer:
    data = path.read_bytes()
    return trailer.load(data[-trailer.SIZE :], len(data))


def by_hand(path: Path, directory: Path, compression: str) -> Path:
    """Unpack the payload with the programs of any system, and return the directory."""
    directory.mkdir(parents=True)
    sh(BY_HAND % compression, env={**SURROUNDINGS, "INSTALLER": str(path), "DIRECTORY": str(directory)})
    return directory


def facts(path: Path) -> dict[str, str]:
    """Read what the script is told."""
    header = path.read_bytes()[: read_trailer(path).header.length]
    names = ("payload", "entries", "unpacked", "opener_size", "stub_unpacked", "machine", "platform", "glibc", "limit")
    found = {name: re.search(rb"^%s=(.*)$" % name.encode(), header, re.MULTILINE) for name in names}
    return {name: shlex.split(match[1].decode())[0] for name, match in found.items() if match}


# By hand


@pytest.mark.parametrize("payload", ["zst", "gz"])
def test_the_payload_by_hand_is_the_archive(payload: str, native_env: Path, tmp_path: Path) -> None:
    """tail, head and tar unpack what an archive holds, and beside it what the installer is called and its hooks."""
    need("zstd")
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho done\n")
    options = ("--no-stub", "--payload", payload, "--post-install", str(hook), "--installer-version", "1")
    path = pack_env(native_env, tmp_path / "env.sh", *options)
    tree = by_hand(path, tmp_path / "by-hand", {"zst": "zstd", "gz": "gzip"}[payload])
    described = snapshot(tree)
    found = facts(path)
    assert found["payload"] == payload
    assert int(found["entries"]) == len({f[2] if isinstance(f[2], tuple) else n for n, f in described.items()})
    assert int(found["unpacked"]) == sum(
        each.stat().st_size for each in {p.stat().st_ino: p for p in tree.rglob("*") if is_regular(p)}.values()
    )
    assert (tree / ".pack" / "hooks" / "post-install").read_text() == hook.read_text()
    for name in (".pack/installer.json", ".pack/hooks", ".pack/hooks/post-install"):
        del described[name]
    archive = unpack(pack_env(native_env, tmp_path / "env.tar", "--no-stub"), tmp_path / "unpacked")
    assert described == snapshot(archive)


def is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def test_the_trailer_tells_what_each_part_hashes_to(installer: Path) -> None:
    """Told by the programs that whoever distrusts the file has."""
    read = read_trailer(installer)
    for part in (read.header, read.stub, read.payload):
        script = f"tail -c +{part.offset + 1} {shlex.quote(str(installer))} | head -c {part.length} | sha256sum"
        assert sh(script).stdout.split()[0] == part.sha256
    assert run(["tail", "-c", "284", installer]).stdout.startswith("pack-installer 1\nheader ")


def test_the_script_is_one_for_every_shell(installer: Path) -> None:
    """The first part is text of its own that a shell can parse, and names neither the environment's place nor ours."""
    head = installer.read_bytes()[: read_trailer(installer).header.length]
    subprocess.run(["sh", "-n"], input=head, check=True)
    assert str(Path(__file__).parents[2]).encode() not in head
    assert platform.node().encode() + b"'" not in head


def test_the_environment_is_measured(installer: Path) -> None:
    found = facts(installer)
    assert (found["machine"], found["opener_size"]) == (platform.machine(), "0")
    assert re.fullmatch(r"linux-[a-z0-9]+", found["platform"])
    assert re.fullmatch(r"2\.[0-9]+", found["glibc"])
    assert found["limit"] == "255"


# The same bytes


def test_the_same_bytes_from_another_place(make_env: MakeEnvironment, installer: Path, tmp_path: Path) -> None:
    """Installed at another path, with other threads, at another time of another zone: the same file."""
    made = []
    for number, threads in enumerate(("1", "2")):
        prefix = make_env(NATIVE_SPECS, tmp_path / ("place" * (number + 1)) / "env")
        (tmp_path / str(number)).mkdir()
        output = tmp_path / str(number) / "env.sh"
        surroundings = {**SURROUNDINGS, "TZ": f"UTC{number}"}
        pack("-q", "-p", prefix, "-o", output, "--no-stub", "-j", threads, env=surroundings)
        made.append(output.read_bytes())
        shutil.rmtree(prefix)
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in made[0]


def test_standard_output_takes_the_same_bytes(small: Path, tmp_path: Path) -> None:
    """And nothing is laid beside anything."""
    expected = pack_env(small, tmp_path / "env.sh", "--no-stub").read_bytes()
    before = sorted(tmp_path.iterdir())
    command: list[str | Path] = [PACK, "-p", small, "-o", "-", "--format", "sh", "--no-stub"]
    done = subprocess.run(command, env=SURROUNDINGS, capture_output=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (expected, b"")
    assert sorted(tmp_path.iterdir()) == before


def test_packing_what_was_unpacked_gives_the_same_bytes(installer: Path, tmp_path: Path) -> None:
    """What an installer leaves in the tree is no part of the environment."""
    tree = by_hand(installer, tmp_path / "native", "gzip")
    assert pack_env(tree, tmp_path / "env.sh", "--no-stub").read_bytes() == installer.read_bytes()


# Beside it


def test_pack_unpack_opens_it(installer: Path, tmp_path: Path) -> None:
    """Without running anything of it, and not if a byte is missing or another."""
    pack("unpack", installer, "-p", tmp_path / "env")
    pack("verify", tmp_path / "env")
    data = installer.read_bytes()
    for damaged in (
        data[:-1],
        data + b"x",
        data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        data[:-300] + data[-299:],
    ):
        (tmp_path / "damaged.sh").write_bytes(damaged)
        assert "damaged" in pack("unpack", tmp_path / "damaged.sh", "-p", tmp_path / "none", code=11).stderr
    assert sorted(os.listdir(tmp_path)) == ["damaged.sh", "env"]


def test_the_checksum_is_one(installer: Path) -> None:
    done = run(["sha256sum", "--strict", "-c", f"{installer.name}.sha256"], cwd=installer.parent)
    assert done.stdout == f"{installer.name}: OK\n"


def test_signed(small: Path, tmp_path: Path) -> None:
    """ssh-keygen verifies the signature against the public key, and not if a byte is another."""
    need("ssh-keygen")
    key = tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
    path = pack_env(small, tmp_path / "env.sh", "--no-stub", "--sign-with", str(key))
    (tmp_path / "signers").write_text(f"me@example.org {(tmp_path / 'key.pub').read_text()}")
    verify = "ssh-keygen -Y verify -f signers -I me@example.org -n pack-installer -s env.sh.sig"
    assert "Good" in sh(f"{verify} < env.sh", cwd=tmp_path).stdout
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.sh").write_bytes(flipped)
    sh(f"{verify} < flipped.sh", cwd=tmp_path, code=255)
    # Packed again without the key, the old signature is of another file: said, and not removed.
    (small / "data").write_bytes(b"changed")
    done = pack("-p", small, "-o", path, "--no-stub", "--force")
    assert f"{path}.sig: this signature is of an older file" in done.stderr
    run(["sha256sum", "-c", "env.sh.sha256"], cwd=tmp_path)


@pytest.mark.parametrize("mask", ["022", "077"])
def test_it_can_be_run_by_whom_the_umask_permits(mask: str, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    sh(f"umask {mask}; exec {shlex.quote(str(PACK))} -q -p {shlex.quote(str(small))} -o {path} --no-stub")
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~int(mask, 8)
    assert stat.S_IMODE(path.with_name("env.sh.sha256").stat().st_mode) == 0o666 & ~int(mask, 8)


def test_an_output_inside_the_prefix(small: Path, tmp_path: Path) -> None:
    """Neither the installer nor what lies beside it is part of the environment, not even of the next one."""
    need("ssh-keygen")
    key = tmp_path / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    expected = digest(pack_env(small, tmp_path / "env.sh", "--no-stub"))
    for options in (["--sign-with", str(key)], ["--force", "--sign-with", str(key)], ["--force"]):
        assert digest(pack_env(small, small / "env.sh", "--no-stub", *options)) == expected
    assert sorted(path.name for path in small.iterdir()) == [
        "bin", "data", "env.sh", "env.sh.sha256", "env.sh.sig",
    ]  # fmt: skip


# Nothing half done


class Editor:
    """Told how packing goes, it edits the environment between the scan and the writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, what: str, total: int | None) -> None:
        if what == "writing":
            self.path.write_bytes(b"changed")

    def advance(self, count: int) -> None:
        pass


def test_a_change_while_packing_leaves_nothing(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "env.sh"
    output.parent.mkdir()
    options = Options(output, Format.INSTALLER, threads=1, installer=asked("env", {}, stub=False))
    with pytest.raises(EnvironmentUnfit, match="data: changed while packing"):
        write(find(None, small), options, "1.0", Editor(small / "data"))
    assert list(output.parent.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(small: Path, tmp_path: Path) -> None:
    """The limit on the size of a file stands for it."""
    (small / "noise").write_bytes(os.urandom(3_000_000))
    output = tmp_path / "env.sh"
    for name in ("env.sh", "env.sh.sha256"):
        (tmp_path / name).write_bytes(b"old")
    before = snapshot(tmp_path)
    command = f"ulimit -f 1000; exec {shlex.quote(str(PACK))} -p {shlex.quote(str(small))} -o {output} --no-stub -f"
    assert "ulimit -f" in sh(command, code=5).stderr
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(number: signal.Signals, small: Path, tmp_path: Path) -> None:
    for each in range(20):
        (small / f"noise{each}").write_bytes(os.urandom(1_000_000))
    directory = tmp_path / "out"
    directory.mkdir()
    command: list[str | Path] = [PACK, "-q", "-p", small, "-o", directory / "env.sh", "--no-stub", "-j", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as packer:
        while packer.poll() is None and not any(path.stat().st_size for path in directory.glob("env.sh.*.partial")):
            time.sleep(0.005)
        packer.send_signal(number)
        _, stderr = packer.communicate()
    assert packer.returncode == 128 + number, stderr
    assert list(directory.iterdir()) == []


# The stub


def test_the_stub_lies_between_the_script_and_the_payload(
    cached: dict[str, str], native_env: Path, tmp_path: Path
) -> None:
    """Its opener, then its archive; the payload of an environment without Python carries it as archives do."""
    need("zstd")
    path = tmp_path / "env.sh"
    done = pack("-p", native_env, "-o", path, env=cached)
    assert "relocator" not in done.stderr
    part, found = read_trailer(path).stub, facts(path)
    content = path.read_bytes()[part.offset : part.offset + part.length]
    opener = int(found["opener_size"])
    assert content[:opener] == b"#!/bin/sh\nexit 0\n"
    (tmp_path / "stub.tar.gz").write_bytes(content[opener:])
    tree = unpack(tmp_path / "stub.tar.gz", tmp_path / "stub")
    assert sorted(each.name for each in tree.iterdir()) == ["_internal", "relocator", "stub.json"]
    assert int(found["stub_unpacked"]) == sum(each.stat().st_size for each in tree.rglob("*") if each.is_file())
    assert found["payload"] == "zst"
    described = snapshot(by_hand(path, tmp_path / "by-hand", "zstd"))
    del described[".pack/installer.json"]
    pack("-q", "-p", native_env, "-o", tmp_path / "env.tar", env=cached)
    assert described == snapshot(unpack(tmp_path / "env.tar", tmp_path / "unpacked"))
    assert ".pack/stub/relocator" in described
    pack("-q", "-p", native_env, "-o", tmp_path / "again.sh", "-j", "1", env=cached)
    assert digest(tmp_path / "again.sh") == digest(path)


def test_an_environment_with_nothing_compiled_runs_this_machines(
    cached: dict[str, str], small: Path, tmp_path: Path
) -> None:
    pack("-q", "-p", small, "-o", tmp_path / "env.sh", env=cached)
    found = facts(tmp_path / "env.sh")
    assert (found["machine"], found["platform"], found["glibc"]) == ("", "noarch", "")
    assert int(found["opener_size"]) > 0


def test_without_a_stub_it_is_refused(small: Path, tmp_path: Path) -> None:
    """It cannot be built here, where no sources are; both ways out are named, and nothing is left."""
    env = {**SURROUNDINGS, "XDG_CACHE_HOME": str(tmp_path)}
    done = pack("-p", small, "-o", tmp_path / "env.sh", "--no-cache", env=env, code=1)
    assert "An installer runs a frozen relocator" in done.stderr
    assert "pack stub build --arch" in done.stderr and "--no-stub" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["env"]


@pytest.mark.slow
def test_the_stub_that_was_built_unpacks_itself(native_env: Path, tmp_path: Path) -> None:
    """The opener, carved out with tail and head, unpacks the program, and that starts."""
    try:
        program = stubs.build()
    except StubUnavailable as error:
        pytest.skip(str(error))
    path = tmp_path / "env.sh"
    pack("-q", "-p", native_env, "-o", path, env={**SURROUNDINGS, **stubs.surroundings()})
    part, size = read_trailer(path).stub, facts(path)["opener_size"]
    script = f"""
        tail -c +{part.offset + 1} {shlex.quote(str(path))} | head -c {size} > opener && chmod +x opener && mkdir stub
        tail -c +{part.offset + 1 + int(size)} {shlex.quote(str(path))} | head -c {part.length - int(size)} |
            ./opener stub && ./stub/relocator --version
    """
    assert sh(script, cwd=tmp_path).stdout
    (tmp_path / "stub" / "stub.json").unlink()
    assert store.measure(tmp_path / "stub") == store.measure(program.parent)


def test_hashing_agrees_with_the_file(installer: Path) -> None:
    """The checksum beside it was taken while writing, and is that of the bytes on the disk."""
    said = installer.with_name(f"{installer.name}.sha256").read_text().split()[0]
    assert said == hashlib.sha256(installer.read_bytes()).hexdigest()
