"""Systems that have next to nothing, another glibc, none, or say that they are another kind of machine."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

import pytest

from fixtures import roots
from tests.conftest import need
from tests.integration.machines import mounts, need_mounts, need_root, tools
from tests.integration.moving import SURROUNDINGS, Run, run, short_directory
from tests.integration.outcomes import complaint

LIBRARIES = ("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libutil.so.1")


@pytest.fixture
def empty_root() -> Iterator[Path]:
    """A root directory with a static busybox as its shell and coreutils, ``/dev/null``, and nothing else."""
    need_root("another root directory")
    with short_directory() as root:
        tools(root / "bin", "busybox")
        (root / "bin/sh").symlink_to(".busybox")
        for name in ("dev", "apps"):
            (root / name).mkdir()
        try:
            os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("root may make no devices here")
        yield root


@pytest.fixture
def bare_root(empty_root: Path) -> Path:
    """The same, with this machine's glibc."""
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in ("lib", "lib64"):
        (empty_root / name).mkdir()
    loader = "ld-linux-x86-64.so.2"
    shutil.copy(os.path.realpath(f"/lib64/{loader}"), empty_root / "lib64" / loader)
    for name in LIBRARIES:
        path = next(line.split("=> ")[1] for line in listed.splitlines() if name in line and "x86-64" in line)
        shutil.copy(os.path.realpath(path), empty_root / "lib" / name)
    return empty_root


def inside(root: Path, script: str, code: int | None = 0) -> Run:
    """Run a script in another root directory, with the installers that lie in ``/``."""
    return run(["/usr/sbin/chroot", root, "/bin/sh", "-c", f"cd / && {script}"], env={"PATH": "/bin"}, code=code)


def refused(done: Run, code: int, *words: str) -> None:
    """Fail unless a run was refused with a code and words."""
    assert done.returncode == code, done
    assert complaint(code, done.stderr) == ""
    for word in words:
        assert word in done.stderr, done.stderr


def facts(installer: Path) -> dict[str, str]:
    """Read what an installer says of itself."""
    told: dict[str, str] = json.loads(run(["sh", installer, "--info", "--json"]).stdout)
    return told


def numbers(version: str) -> tuple[int, ...]:
    """Make a version comparable."""
    return tuple(map(int, version.split(".")))


# Next to nothing


def test_with_glibc_and_coreutils_alone(bare_root: Path, small_sh: Path) -> None:
    """No tar, no gzip, no ``/proc``, no ``/tmp``, no ``/etc``: it installs, updates, activates, uninstalls."""
    shutil.copy(small_sh, bare_root / "env.sh")
    assert sorted(os.listdir(bare_root)) == ["apps", "bin", "dev", "env.sh", "lib", "lib64"]
    done = inside(bare_root, "sh env.sh -p /apps/env")
    assert (done.stdout.split(": ")[:2], done.stderr) == (["/apps/env", "installed"], "")
    done = inside(bare_root, "cd /apps/env && . ./bin/activate && echo $CONDA_PREFIX && tool")
    assert (done.stdout, done.stderr) == ("/apps/env\n/apps/env\n", "")
    assert inside(bare_root, "sh env.sh -u -p /apps/env").stdout.startswith("/apps/env: updated")
    assert inside(bare_root, "sh env.sh --check").stdout.endswith("OK\n")
    refused(inside(bare_root, "sh env.sh -p /apps/env", code=None), 5, "there is an installation already")
    done = inside(bare_root, "sh env.sh --uninstall -p /apps/env")
    assert (done.stdout.split(": ")[:2], done.stderr) == (["/apps/env", "uninstalled"], "")
    assert sorted(os.listdir(bare_root)) == ["apps", "bin", "dev", "env.sh", "lib", "lib64"]
    assert os.listdir(bare_root / "apps") == []


def test_the_version_of_glibc_where_it_is_all_there_is(bare_root: Path, native_sh: Path) -> None:
    """It is found without getconf and ldd, for a compiled environment that needs to know."""
    shutil.copy(native_sh, bare_root / "env.sh")
    done = inside(bare_root, "sh env.sh --dry-run -p /apps/env")
    assert (done.stdout.split("\n")[2], done.stderr) == ("target: /apps/env", "")
    assert os.listdir(bare_root / "apps") == []


@pytest.mark.parametrize("kind", ["small_sh", "native_sh"])
def test_without_a_libc(kind: str, request: pytest.FixtureRequest, empty_root: Path) -> None:
    """Neither the program nor anything in its stead runs: code 10, in words, and nothing stays."""
    shutil.copy(request.getfixturevalue(kind), empty_root / "env.sh")
    done = inside(empty_root, "sh env.sh -p /apps/env", code=None)
    # busybox's shell finds its own tar, whatever lies in PATH.
    refused(done, 10, "nothing can do the work here", "does not start", "to unpack its Python with", "TIP: ")
    assert ("cannot be found out" in done.stderr) == (kind == "native_sh")
    assert os.listdir(empty_root / "apps") == []
    assert inside(empty_root, "sh env.sh --check").stdout.endswith("OK\n")


def test_without_a_libc_and_with_tar(empty_root: Path, small_sh: Path, small_prefix_sh: Path) -> None:
    """The tools of the machine unpack the environment, and find no Python in it."""
    for name in ("tar", "gzip"):
        (empty_root / "bin" / name).symlink_to(".busybox")
    shutil.copy(small_prefix_sh, empty_root / "env.sh")
    done = inside(empty_root, "sh env.sh -p /apps/env", code=None)
    refused(done, 10, "does not start", "it holds no Python 3.8 or newer that runs here")
    assert os.listdir(empty_root / "apps") == []
    shutil.copy(small_sh, empty_root / "env.sh")
    refused(inside(empty_root, "sh env.sh -p /apps/env", code=None), 10, "there is no zstd")
    assert os.listdir(empty_root / "apps") == []


@pytest.fixture(scope="module")
def small_prefix_sh(tmp_path_factory: pytest.TempPathFactory, make_installer: Callable[..., Path]) -> Path:
    """An installer of next to nothing, packed so that gzip opens it."""
    prefix = tmp_path_factory.mktemp("small") / "env"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "conda-meta/history").write_text("")
    return make_installer(prefix, prefix.parent / "env.sh", "--payload", "gz")


# An older system


@pytest.fixture(scope="module")
def bullseye() -> Path:
    """The root directory of Debian 11, with glibc 2.31."""
    need_mounts()
    try:
        return roots.debian("bullseye")
    except roots.RootUnavailable as error:
        pytest.skip(str(error))


def on(root: Path, installer: Path, script: str, code: int | None = 0) -> Run:
    """Run a script in a root that stays as it is, where ``/mnt`` is a file system with the installer."""
    return mounts(
        f"""
        mount --bind {root} {root} && mount -o remount,ro,bind {root}
        mount -t tmpfs none {root}/mnt
        mount -t proc proc {root}/proc
        cp {installer} {root}/mnt/env.sh
        mkdir {root}/mnt/apps
        code=0
        PATH=/usr/bin:/bin /usr/sbin/chroot {root} /bin/sh -c {quote(script)} || code=$?
        ls -A {root}/mnt/apps >&2
        exit $code
        """,
        code=code,
    )


def test_an_older_glibc_runs_the_program(bullseye: Path, small_sh: Path) -> None:
    """The frozen program wants no more than glibc 2.17; what it installs runs there."""
    done = on(bullseye, small_sh, "sh /mnt/env.sh -p /mnt/apps/env && cd /mnt/apps/env && . bin/activate && tool")
    assert done.stdout.endswith("\n/mnt/apps/env\n")
    assert done.stderr == "env\n"


def test_an_older_glibc_than_the_environment_needs(bullseye: Path, native_sh: Path) -> None:
    """It is refused where what is in it would not start, and only there."""
    told = facts(native_sh)
    here = on(bullseye, native_sh, "getconf GNU_LIBC_VERSION").stdout.split()[1]
    go_on = "sh /mnt/env.sh -p /mnt/apps/env --skip-glibc-check && ls /mnt/apps/env/bin"
    start = "/mnt/apps/env/bin/openssl version -d"
    if numbers(told["glibc"]) > numbers(here):
        done = on(bullseye, native_sh, "sh /mnt/env.sh -p /mnt/apps/env", code=13)
        for word in (told["glibc"], told["glibc-needed-by"], f"this machine has {here}", "--skip-glibc-check"):
            assert word in done.stderr
        assert "\nenv" not in done.stderr
        done = on(bullseye, native_sh, f"{go_on} && {start}", code=None)
        assert "openssl" in done.stdout.splitlines()
        assert f"GLIBC_{told['glibc']}' not found" in done.stderr  # as it was told
    else:
        done = on(bullseye, native_sh, f"sh /mnt/env.sh -p /mnt/apps/env && {start}")
        assert 'OPENSSLDIR: "/mnt/apps/env/ssl"' in done.stdout


# What a machine says of itself


def answering(directory: Path, **scripts: str) -> dict[str, str]:
    """Give the variables with which programs of these names do what scripts say."""
    directory.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return {**SURROUNDINGS, "PATH": f"{directory}:{SURROUNDINGS['PATH']}"}


@pytest.mark.parametrize(
    ("system", "machine", "kinds"),
    [
        ("Linux", "aarch64", ["native_sh"]),
        ("Linux", "i686", ["native_sh"]),
        ("Darwin", "x86_64", ["native_sh", "small_sh"]),
        ("Darwin", "arm64", ["native_sh", "small_sh"]),
        ("MINGW64_NT-10.0", "x86_64", ["native_sh", "small_sh"]),
    ],
)
def test_another_kind_of_machine(
    system: str, machine: str, kinds: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It is refused before anything else is looked at. What is not compiled is for every machine of its system."""
    env = answering(
        tmp_path / "bin", uname=f"case $1 in -s) echo {system} ;; -m) echo {machine} ;; *) /usr/bin/uname $1 ;; esac"
    )
    for kind in kinds:
        installer: Path = request.getfixturevalue(kind)
        for options in (["-p", tmp_path / "to" / "env"], ["-p", "a:b"], ["--dry-run", "-p", tmp_path / "env"]):
            done = run(["sh", installer, *options], env=env, code=None, cwd=tmp_path)
            refused(done, 13, facts(installer)["platform"], f"this machine is {system} on {machine}", "TIP: ")
        assert run(["sh", installer, "--check"], env=env).stdout.endswith("OK\n")
    assert os.listdir(tmp_path) == ["bin"]


OLD = {
    "getconf": {"getconf": "echo glibc 2.5"},
    "ldd": {"getconf": "exit 1", "ldd": "echo 'ldd (GNU libc) 2.5'"},
    "ldd of Debian": {"getconf": "exit 1", "ldd": "echo 'ldd (Debian GLIBC 2.5-1+deb4u1) 2.5'; echo more"},
    "musl": {"getconf": "exit 1", "ldd": "echo 'musl libc (x86_64)' >&2; echo 'Version 1.2.5' >&2; exit 1"},
}


@pytest.mark.parametrize("answers", OLD)
def test_a_glibc_that_is_too_old(answers: str, native_sh: Path, tmp_path: Path) -> None:
    """It is believed, and the file is named that needs more; who knows better goes on."""
    env = answering(tmp_path / "bin", **OLD[answers])
    told = facts(native_sh)
    command: list[str | Path] = ["sh", native_sh, "--dry-run", "-p", tmp_path / "env"]
    refused(run(command, env=env, code=None), 13, told["glibc"], told["glibc-needed-by"], "--skip-glibc-check")
    run([*command, "--skip-glibc-check"], env=env)
    assert os.listdir(tmp_path) == ["bin"]


def test_an_old_glibc_that_only_its_library_tells(empty_root: Path, native_sh: Path) -> None:
    """Where there is neither getconf nor ldd, libc itself is run."""
    shutil.copy(native_sh, empty_root / "env.sh")
    for directory in ("lib64", "lib/x86_64-linux-gnu", "usr/lib64", "lib"):
        library = empty_root / directory / "libc.so.6"
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_text(
            "#!/bin/sh\necho 'GNU C Library (Debian GLIBC 2.5-1) stable release version 2.5.'\necho more\n"
        )
        library.chmod(0o755)
        done = inside(empty_root, "sh env.sh -p /apps/env", code=None)
        refused(done, 13, "this machine has 2.5.", facts(native_sh)["glibc-needed-by"])
        library.unlink()
    refused(inside(empty_root, "sh env.sh -p /apps/env", code=None), 10, "cannot be found out")
    assert os.listdir(empty_root / "apps") == []


@pytest.mark.parametrize("missing", [["getconf"], ["getconf", "ldd"]])
def test_this_machine_without_the_programs_that_tell(missing: list[str], native_sh: Path, tmp_path: Path) -> None:
    """The answer comes from what is left."""
    hidden = "\n".join(f"mount --bind /dev/null {need(name).resolve()}" for name in missing)
    done = mounts(f"{hidden}\nsh {native_sh} --dry-run -p {tmp_path}/env")
    assert "cannot be found out" not in done.stderr
    assert facts(native_sh)["glibc"]
