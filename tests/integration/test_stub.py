"""The frozen relocator: built, measured, carried by archives without Python, and run where there is next to nothing."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import stub as stubs
from fixtures.channel import CACHE, ROOT
from pack import floor
from pack.stub import cpython, freeze, parts, section, store
from pack.stub.store import Stub, StubUnavailable
from pack.stub.toolchain import Target
from tests.conftest import NATIVE_SPECS, MakeEnvironment, need
from tests.integration.moving import SURROUNDINGS, activated, pack, run, sh, short_directory, snapshot, unpack

FINDING_IT = {**SURROUNDINGS, **stubs.surroundings()}
# What a system of any age has; libm and libutil are glibc's own as well.
LIBRARIES = ("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libutil.so.1")


Command = list[str | Path]


@pytest.fixture(scope="session")
def program() -> Path:
    """The program of the frozen stub; tests are skipped, with the reason, where none can be built."""
    try:
        return stubs.build()
    except StubUnavailable as error:
        pytest.skip(str(error))


def stub_of(program: Path) -> Stub:
    """Name the stub that a program is of."""
    record = store.Record(**json.loads((program.parent.parent / "stub.json").read_bytes()))
    return Stub(program.parent, record)


@pytest.fixture
def native(program: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Where the interpreter of the stub, and all else that was compiled for it, lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    target = Target(platform.machine(), freeze.workplace(cpython.find_sources(stubs.SOURCES)))
    if not parts.are_built(target):
        pytest.skip(f"{target.folder} was removed: remove the stub in {program.parent.parent}, too")
    return target


@pytest.fixture(scope="module")
def archive(program: Path, native_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an environment without Python, which carries the stub."""
    path = tmp_path_factory.mktemp("carried") / "env.tar"
    pack("-q", "-p", native_env, "-o", path, env=FINDING_IT)
    return path


@pytest.fixture(scope="module")
def installer(program: Path, native_env: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installer of the same environment, compressed by zstd."""
    path = tmp_path_factory.mktemp("installer") / "env.sh"
    pack("-q", "-p", native_env, "-o", path, "--payload", "zst", env=FINDING_IT)
    return path


@pytest.fixture
def tree(archive: Path, tmp_path: Path) -> Path:
    return unpack(archive, tmp_path / "apps" / "native")


def test_its_floor_is_measured_over_every_file(program: Path) -> None:
    """What the record says is what the files need, by our reading and by binutils' of the same files."""
    need("readelf")
    measured = floor.of_tree(program.parent)
    assert measured is not None and measured.glibc == "2.17"
    said = set()
    for path in program.parent.rglob("*"):
        if path.is_file():
            shown = subprocess.run(["readelf", "-V", path], capture_output=True, text=True).stdout
            said |= {word.removeprefix("GLIBC_") for word in shown.split() if word.startswith("GLIBC_")}
    assert max(said, key=lambda version: tuple(map(int, version.split(".")))) == "2.17"


def test_the_list_and_the_path(program: Path) -> None:
    """`pack stub list` and `pack stub path` agree with what lies there."""
    shown = json.loads(pack("stub", "list", "--json", env=FINDING_IT).stdout)
    (listed,) = (each for each in shown if each["architecture"] == platform.machine() and each["current"])
    assert listed["path"] == str(program.parent)
    assert (listed["sha256"], listed["size"]) == store.measure(program.parent)
    assert pack("stub", "path", env=FINDING_IT).stdout == f"{program}\n"
    line = pack("stub", "list", env=FINDING_IT).stdout
    assert "glibc 2.17 or newer" in line and listed["sha256"] in line


@pytest.mark.slow
def test_freezing_twice_gives_the_same_bytes(program: Path, native: Target, tmp_path: Path) -> None:
    """Byte code, archives and records do not depend on when, where and how often they are made."""
    freeze.copy_sources(tmp_path, native)
    files = freeze.freeze(native, native, tmp_path, tmp_path / "log")
    assert store.measure(files) == store.measure(program.parent)


def test_it_needs_nothing_of_what_is_left_out(native: Target, tmp_path: Path) -> None:
    """Every module of the relocator, and zstandard, on the interpreter that was frozen, without what was left out."""
    script = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({stubs.left_out()!r}))
sys.path[:0] = [{str(ROOT)!r}, {str(parts.packages(native))!r}]
import installer_stub, zstandard
for module in pkgutil.iter_modules(installer_stub.__path__):
    importlib.import_module("installer_stub." + module.name)
print(zstandard.ZstdDecompressor().decompressobj().decompress(zstandard.ZstdCompressor().compress(b"x" * 9)))
"""
    python = native.folder / "python" / "bin" / f"python{cpython.VERSION}"
    done = run([python, "-I", "-S", "-B", "-X", "utf8", "-c", script], env=cpython.library_path(native))
    assert done.stdout == "b'xxxxxxxxx'\n"


def test_it_reads_zstd(program: Path, installer: Path, tmp_path: Path) -> None:
    """With zstandard's C backend alone, whatever a variable of the caller wants of the package."""
    assert (program.parent / "_internal" / parts.ZSTANDARD).is_file()
    env = {"PYTHON_ZSTANDARD_IMPORT_POLICY": "cffi"}
    done = run([program, "list", "--installer", installer, "--staging", tmp_path], env=env)
    assert "share/terminfo/x/xterm" in done.stdout


def test_the_section_of_an_installer(program: Path, tmp_path: Path) -> None:
    """The opener unpacks the archive, on no more than glibc 2.17; what it unpacked is the stub, and starts."""
    stub = stub_of(program)
    made = section.section(stub)
    assert made == section.section(stub)
    (tmp_path / "made").mkdir()
    opener = tmp_path / "made" / "opener"
    opener.write_bytes(made.opener)
    opener.chmod(0o755)
    measured = floor.of_tree(opener.parent)
    assert measured is not None and tuple(map(int, measured.glibc.split("."))) <= (2, 17)
    files = tmp_path / "stub"
    files.mkdir()
    done = subprocess.run([opener, files], input=made.archive, env={}, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sum(path.stat().st_size for path in files.rglob("*") if path.is_file()) == made.unpacked
    (files / "stub.json").unlink()
    assert store.measure(files) == (stub.record.sha256, stub.record.size)
    assert run([files / "relocator", "--version"], env={}).stdout == "conda-unpack frozen\n"


def test_the_archive_names_the_stub(archive: Path, program: Path, tmp_path: Path) -> None:
    """It lies in `.pack/stub`, with its SHA-256; unpacking it all by `pack` gives the same tree."""
    tree = unpack(archive, tmp_path / "by-tar")
    carried = tree / ".pack" / "stub"
    record = json.loads((carried / "stub.json").read_bytes())
    (carried / "stub.json").unlink()
    assert (record["sha256"], record["size"]) == store.measure(carried) == store.measure(program.parent)


def test_packing_twice_gives_the_same_archive(archive: Path, native_env: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    pack("-q", "-p", native_env, "-o", again, env=FINDING_IT)
    assert again.read_bytes() == archive.read_bytes()


def test_packing_what_was_moved_gives_the_same_archive(archive: Path, tree: Path, tmp_path: Path) -> None:
    """The stub is no part of the environment: packing a moved tree again adds it once."""
    activated(tree, "true")
    again = tmp_path / "again.tar"
    pack("-q", "-p", tree, "-o", again, env=FINDING_IT)
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_activation_relocates_by_itself(shell: str, tree: Path) -> None:
    """The first activation rewrites everything, in silence; what runs then finds its files at the new place."""
    need(shell)
    script = f'cd {shlex.quote(str(tree))} && . ./bin/activate && echo "$CONDA_PREFIX" && openssl version -d'
    done = run([shell, "-c", script])
    assert done.stdout == f'{tree}\nOPENSSLDIR: "{tree}/ssl"\n'
    assert done.stderr == ""
    assert "up to date" in pack("status", tree).stdout
    assert "are right" in pack("verify", tree).stdout


def test_it_does_what_pack_relocate_does(archive: Path, tmp_path: Path) -> None:
    """The same bytes, modes and times at the same place, whichever of the two programs relocated."""
    with short_directory() as room:
        by_stub = unpack(archive, room / "env")
        run([by_stub / "bin" / "conda-unpack"])
        theirs = snapshot(by_stub, times=False)
        shutil.rmtree(by_stub)
        by_pack = unpack(archive, room / "env")
        pack("relocate", by_pack)
        assert snapshot(by_pack, times=False) == theirs


def test_moved_again_and_refused(tree: Path, tmp_path: Path) -> None:
    """It moves back and forth, verifies, and ends with the documented code where a target is refused."""
    run([tree / "bin" / "conda-unpack"])
    moved = tree.rename(tmp_path / "elsewhere")
    done = run([moved / "bin" / "conda-unpack", "-v"])
    assert done.stdout.startswith(f"{moved}: ")
    assert "are right" in pack("verify", moved).stdout
    refused = moved.rename(tmp_path / "a:b")
    assert "TIP" in run([refused / "bin" / "conda-unpack"], code=7).stderr


def test_version_names_the_stub(tree: Path) -> None:
    sha256 = json.loads((tree / ".pack" / "stub" / "stub.json").read_bytes())["sha256"]
    assert run([tree / "bin" / "conda-unpack", "--version"]).stdout == f"conda-unpack frozen {sha256[:12]}\n"


@pytest.mark.parametrize(
    "hostile",
    [
        {"LD_LIBRARY_PATH": "/nonexistent", "PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent"},
        {"_PYI_ARCHIVE_FILE": "/nonexistent", "_PYI_APPLICATION_HOME_DIR": "/x", "_PYI_PARENT_PROCESS_LEVEL": "1"},
        {"_MEIPASS2": "/nonexistent", "TMPDIR": "/nonexistent", "LC_ALL": "xx_XX.nothing"},
    ],
    ids=["libraries-and-python", "another-frozen-program", "directories"],
)
def test_hostile_surroundings(hostile: dict[str, str], tree: Path) -> None:
    """Nothing that a login or another program has set gets in its way."""
    run([tree / "bin" / "conda-unpack"], env={**SURROUNDINGS, **hostile})
    assert "are right" in pack("verify", tree).stdout


def test_nothing_set_at_all(tree: Path) -> None:
    """It needs no HOME, no TMPDIR, no PATH, and writes nothing outside of the tree."""
    run(["/bin/sh", tree / "bin" / "conda-unpack"], env={})
    assert "are right" in pack("verify", tree).stdout


def test_a_stub_that_does_not_start(tree: Path) -> None:
    """Where the frozen program cannot run, the message says what the system said, and what does it instead."""
    program = tree / ".pack" / "stub" / "relocator"
    program.write_bytes(b"\x7fELF not for this machine")
    done = run([tree / "bin" / "conda-unpack"], code=10)
    assert "Its frozen relocator does not start on this machine" in done.stderr
    assert f"pack relocate {tree}" in done.stderr


def test_left_out_when_asked(program: Path, native_env: Path, tmp_path: Path) -> None:
    """`--no-stub` packs without it, and says nothing of it."""
    plain = tmp_path / "plain.tar"
    done = pack("-p", native_env, "-o", plain, "--no-stub", env=FINDING_IT)
    assert "stub" not in done.stderr
    assert not (unpack(plain, tmp_path / "x") / ".pack" / "stub").exists()


def test_where_none_was_built(native_env: Path, tmp_path: Path) -> None:
    """Packing goes on and names the command, which names what it lacks; neither leaves anything behind."""
    nothing = {**SURROUNDINGS, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = pack("-p", native_env, "-o", tmp_path / "x.tar", "--no-cache", env=nothing)
    assert f"pack stub build --arch {platform.machine()}" in done.stderr
    assert not (unpack(tmp_path / "x.tar", tmp_path / "x") / ".pack" / "stub").exists()
    assert pack("stub", "list", env=nothing).stdout == "none; pack stub build makes one\n"
    assert "pack stub build" in pack("stub", "path", env=nothing, code=1).stderr
    missing = pack("stub", "build", env=nothing, code=1).stderr
    assert "CPython 3.11" in missing and "zlib 1" in missing and "libffi 3" in missing and "--sources" in missing
    assert not (tmp_path / "cache").exists()
    pack("stub", "build", "--arch", "sparc64", env=nothing, code=2)


def test_an_environment_with_python_needs_none(program: Path, make_env: MakeEnvironment, tmp_path: Path) -> None:
    """It is the environment's own Python that relocates where there is one."""
    prefix = make_env(NATIVE_SPECS)
    for name in ("python3", "python3.11"):
        (prefix / "bin" / name).symlink_to("/usr/bin/true")
    done = pack("-p", prefix, "-o", tmp_path / "x.tar", env=FINDING_IT)
    assert "stub" not in done.stderr
    assert not (unpack(tmp_path / "x.tar", tmp_path / "x") / ".pack" / "stub").exists()


def test_a_changed_stub_is_not_carried(program: Path, native_env: Path, tmp_path: Path) -> None:
    """A file of the stub that was changed in the cache is an error, with what to do."""
    kept = tmp_path / "cache" / "relopack" / "stubs" / program.parent.parent.name
    shutil.copytree(program.parent.parent, kept)
    with (kept / "program" / "_internal" / "base_library.zip").open("ab") as file:
        file.write(b"x")
    env = {**SURROUNDINGS, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = pack("-p", native_env, "-o", tmp_path / "x.tar", env=env, code=1)
    assert "was changed since it was built" in done.stderr
    assert not (tmp_path / "x.tar").exists()


@pytest.fixture
def bare_root() -> Iterator[Path]:
    """A root directory with this machine's glibc, a static busybox as its shell, and nothing else."""
    if os.geteuid() != 0:
        pytest.skip("only root may change its root directory")
    busybox = need("busybox")
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    with short_directory() as root:
        (root / "bin").mkdir()
        shutil.copy(busybox, root / "bin" / "busybox")
        for name in ("sh", "readlink", "env"):
            (root / "bin" / name).symlink_to("busybox")
        (root / "dev").mkdir()
        try:
            os.mknod(root / "dev" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("root may make no devices here")
        (root / "lib64").mkdir()
        shutil.copy(os.path.realpath("/lib64/ld-linux-x86-64.so.2"), root / "lib64" / "ld-linux-x86-64.so.2")
        (root / "lib").mkdir()
        for name in LIBRARIES:
            path = next(line.split("=> ")[1] for line in listed.splitlines() if name in line and "x86-64" in line)
            shutil.copy(os.path.realpath(path), root / "lib" / name)
        yield root


def test_in_a_root_without_anything(archive: Path, bare_root: Path) -> None:
    """glibc, a shell and /dev/null will do: no Python, no coreutils, no /proc, no /tmp, no locale."""
    tree = unpack(archive, bare_root / "apps" / "env")
    script = "cd /apps/env && . ./bin/activate && echo $CONDA_PREFIX"
    done = run(["/usr/sbin/chroot", bare_root, "/bin/sh", "-c", script], env={"PATH": "/bin"})
    assert done.stdout == "/apps/env\n", done.stderr
    assert done.stderr == ""
    state = (tree / ".pack" / "state.json").read_text()
    assert "/apps/env" in state


def test_where_temporary_directories_execute_nothing(tree: Path) -> None:
    """It unpacks nothing to /tmp: one from which nothing may be run is as good as any other."""
    need("unshare")
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    script = f"mount -t tmpfs -o noexec none /var/tmp && TMPDIR=/var/tmp {shlex.quote(str(tree / 'bin/conda-unpack'))}"
    sh(f'unshare --mount sh -c {shlex.quote(script)} && test -z "$(ls -A /var/tmp/_MEI* 2>/dev/null)"')
    assert "are right" in pack("verify", tree).stdout


@pytest.fixture(scope="module")
def emulator() -> Command:
    """The command that runs a program for aarch64."""
    sysroot = Path("/usr/aarch64-linux-gnu")
    command: Command = [need("qemu-aarch64"), "-L", sysroot]
    if not (sysroot / "lib" / "libc.so.6").exists():
        pytest.skip("there is no glibc for aarch64: apt-get install libc6-dev-arm64-cross")
    return command


def second_start(program: Path) -> list[str]:
    """Tell the emulator the variables of a program's second start, in which the kernel would run a foreign one."""
    variables = {
        "_PYI_ARCHIVE_FILE": str(program),
        "_PYI_PARENT_PROCESS_LEVEL": "-1",
        "LD_LIBRARY_PATH": str(program.parent / "_internal"),
    }
    return [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]


@pytest.fixture(scope="module")
def foreign(emulator: Command) -> Path:
    """The program of the stub for aarch64, built here."""
    try:
        return stubs.build("aarch64")
    except StubUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_one_for_aarch64(foreign: Path, emulator: Command, native_env: Path, tmp_path: Path) -> None:
    """Built here for another architecture, it relocates as `pack relocate` does; qemu runs it."""
    program = foreign
    measured = floor.of_tree(program.parent)
    assert measured is not None and measured.glibc == "2.17"
    heads = [path.read_bytes()[:20] for path in program.parent.rglob("*") if path.is_file()]
    assert {floor.architecture(head) for head in heads} == {"", "aarch64"}
    plain = tmp_path / "plain.tar"
    pack("-q", "-p", native_env, "-o", plain, "--no-stub")
    with short_directory() as room:
        by_stub = unpack(plain, room / "env")
        run([*emulator, *second_start(program), program, "unpack", by_stub])
        theirs = snapshot(by_stub, times=False)
        shutil.rmtree(by_stub)
        pack("relocate", unpack(plain, room / "env"))
        assert snapshot(room / "env", times=False) == theirs


@pytest.mark.slow
def test_the_section_for_aarch64(foreign: Path, emulator: Command, tmp_path: Path) -> None:
    """Its opener unpacks it there, and what was unpacked is the stub for that architecture."""
    stub = stub_of(foreign)
    made = section.section(stub)
    opener = tmp_path / "opener"
    opener.write_bytes(made.opener)
    opener.chmod(0o755)
    (tmp_path / "stub").mkdir()
    done = subprocess.run([*emulator, opener, tmp_path / "stub"], input=made.archive, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "stub" / "stub.json").unlink()
    assert store.measure(tmp_path / "stub") == (stub.record.sha256, stub.record.size)


@pytest.mark.slow
def test_zstd_on_aarch64(foreign: Path, program: Path, emulator: Command, installer: Path, tmp_path: Path) -> None:
    """It reads what the one for this machine reads."""
    arguments: Command = ["list", "--installer", installer, "--staging", tmp_path]
    theirs = run([*emulator, *second_start(foreign), foreign, *arguments]).stdout
    assert theirs == run([program, *arguments]).stdout != ""
