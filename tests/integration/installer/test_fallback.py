"""Installers whose frozen program does not start, or that have none: the host's tools and the environment's Python."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from installer_stub import trailer
from pack.stub import store
from tests.conftest import need
from tests.integration.installed import (
    Hooks,
    Mounted,
    install,
    mounted,
    shared_lean_installer,
    shared_lean_python,
    tiny_prefix,
    tool,
    uninstall,
)
from tests.integration.moving import SURROUNDINGS, activated, pack, run, snapshot

Make = Callable[..., Path]

# What is there instead of the frozen program: its opener and itself, and what the words say of it.
OPENER = '#!/bin/sh\nPATH=/usr/bin:/bin\ncd "$1" && exec tar -xzf -\n'
NO_GLIBC = '#!/bin/sh\necho "relocator: /lib/libc.so.6: version \\`GLIBC_9.9\' not found" >&2\nexit 127\n'
PROGRAMS: Mapping[str, tuple[str, str, str]] = {
    "program": (OPENER, NO_GLIBC, "version `GLIBC_9.9' not found"),
    "opener": (
        "#!/bin/sh\necho 'ld.so: not for this machine' >&2\nexit 127\n",
        NO_GLIBC,
        "ld.so: not for this machine",
    ),
    "silent": (OPENER, "#!/bin/sh\nkill -ILL $$\n", "it ended with code 132"),
}


@pytest.fixture(autouse=True)
def _tools() -> None:
    for program in ("tar", "gzip", "zstd"):
        need(program)


def cache(directory: Path, opener: str, program: str) -> dict[str, str]:
    """Keep a stub of such programs where ``pack`` looks for one; return the variables with which it does."""
    files = directory / "relopack" / "new" / "made"
    files.mkdir(parents=True)
    for path, content in ((files / "relocator", program), (files.with_name("opener"), opener)):
        path.write_text(content)
        path.chmod(0o755)
    sha256, size = store.measure(files)
    found = store.sha256(files.with_name("opener"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory))
        store.keep(files, store.Record(platform.machine(), "2.17", "3.11", store.recipe(), sha256, size, found))
    return {**SURROUNDINGS, "XDG_CACHE_HOME": str(directory)}


@dataclass(frozen=True)
class Small:
    """Where installers are made of next to nothing and this machine's Python, with hooks."""

    directory: Path
    prefix: Path
    hooks: tuple[str | Path, ...]

    def installer(self, what: str, payload: str) -> Path:
        """Return the installer with the program ``what``, or none."""
        path = self.directory / f"{what}-{payload}.sh"
        if not path.exists():
            options = ["--payload", payload, *self.hooks]
            if what == "none":
                pack("-q", "-p", self.prefix, "-o", path, "--no-stub", *options)
            else:
                env = cache(self.directory / f"cache-{what}-{payload}", *PROGRAMS[what][:2])
                pack("-q", "-p", self.prefix, "-o", path, *options, env=env)
        return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    directory = tmp_path_factory.mktemp("small")
    prefix = tiny_prefix(directory / "env")
    (prefix / "bin/python3").symlink_to(need("/usr/bin/python3"))
    return Small(directory, prefix, tuple(Hooks(directory).options(directory / "hooks")))


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    (tmp_path / "record").mkdir()
    return Hooks(tmp_path / "record")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def no_zstd() -> Iterator[Mounted]:
    """A machine without zstd, wherever PATH leads."""
    with mounted(Path(os.path.realpath(need("zstd"))), "--bind", "/dev/null") as disk:
        yield disk


def damaged(installer: Path, copy: Path) -> Path:
    """Copy an installer, with one bit of its payload changed."""
    data = bytearray(installer.read_bytes())
    parts = trailer.load(bytes(data[-trailer.SIZE :]), len(data))
    data[parts.payload.offset + parts.payload.length // 2] ^= 1
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("what", ["none", "opener", "silent"])
def test_the_words_say_why(what: str, small: Small, place: Path) -> None:
    why = "this installer carries none" if what == "none" else PROGRAMS[what][2]
    done = install(small.installer(what, "gz"), place / "env")
    assert "the frozen relocator cannot be used: " in done.stderr and why in done.stderr
    tool(place / "env")


def test_the_whole_life(small: Small, place: Path, hooks: Hooks) -> None:
    """Hooks, update, failure and uninstalling are as ever."""
    installer, why = small.installer("program", "zst"), PROGRAMS["program"][2]
    target = place / "some" / "env"
    hooks.do("post-install", 'env -0 >"$RECORD/env"; command -v tool >"$RECORD/tool"')
    done = install(installer, target, env={**hooks.env, "LD_LIBRARY_PATH": "/nonexistent"})
    assert "the frozen relocator cannot be used: " in done.stderr and why in done.stderr
    assert "Trying the environment's own Python." in done.stderr
    assert done.stdout.startswith(f"{target}: installed: ")
    tool(target)
    variables = hooks.variables("env")
    assert variables["LD_LIBRARY_PATH"] == "/nonexistent"
    assert (variables["INSTALLER_PATH"], hooks.text("tool")) == (str(installer), f"{target}/bin/tool\n")
    assert "are right" in pack("verify", target).stdout
    (target / "mine").touch()
    before = snapshot(target)
    hooks.do("post-install", "exit 1")
    install(installer, target, "-u", env=hooks.env, code=15)
    assert snapshot(target) == before
    assert "carried over: mine" in install(installer, target, "-us", env=hooks.env).stdout
    assert os.listdir(target.parent) == ["env"]
    assert uninstall(installer, target, env=hooks.env) == ["mine"]


def test_what_else_it_does(small: Small, place: Path) -> None:
    """--extract and --list need a program, too."""
    installer = small.installer("none", "gz")
    run(["sh", installer, "--extract", place / "env"], cwd=place)
    assert not (place / "env/.pack/state.json").exists()
    assert activated(place / "env", "tool").stdout == f"{place}/env 1\n"
    listed = json.loads(run(["sh", installer, "--list", "--json"], cwd=place).stdout)["entries"]
    assert {"bin/tool", "share/noise"} <= {entry["path"] for entry in listed}
    assert os.listdir(place) == ["env"]


@pytest.mark.parametrize("what", ["none", "program"])
def test_without_zstd(what: str, small: Small, place: Path, no_zstd: Mounted) -> None:
    """A payload in zst cannot be opened; one in gz can."""
    done = install(small.installer(what, "zst"), place / "env", before=no_zstd.before, code=10)
    assert "there is no zstd to unpack its Python with" in done.stderr
    assert "nothing can do the work here" in done.stderr
    assert os.listdir(place) == []
    install(small.installer("none", "gz"), place / "env", before=no_zstd.before)
    tool(place / "env")


@pytest.mark.parametrize(("what", "payload"), [("none", "gz"), ("program", "zst")])
def test_a_damaged_payload(what: str, payload: str, small: Small, place: Path, tmp_path: Path) -> None:
    """It is not opened: its hash is compared first."""
    installer = damaged(small.installer(what, payload), tmp_path / "damaged.sh")
    done = install(installer, place / "some" / "env", code=11)
    assert "its payload is not what it was" in done.stderr
    assert os.listdir(place) == []


def test_an_environment_without_python(place: Path, tmp_path: Path) -> None:
    """Nothing can do the work: that is said when it is packed, and where it should be installed."""
    prefix = tiny_prefix(tmp_path / "native")
    said = pack("-p", prefix, "-o", tmp_path / "env.sh", "--no-stub").stderr
    assert "nothing in it relocates what it installs: that has no Python, and --no-stub was given" in said
    done = install(tmp_path / "env.sh", place / "some" / "env", code=10)
    assert "The frozen relocator: this installer carries none" in done.stderr
    assert "The environment's own Python: it holds no Python 3.8 or newer that runs here" in done.stderr
    assert os.listdir(place) == []
    # The way out that the words name.
    (place / "env").mkdir()
    facts = json.loads(run(["sh", tmp_path / "env.sh", "--info", "--json"]).stdout)
    cut = f"tail -c +{facts['payload-first-byte']} env.sh | head -c {facts['payload-bytes']} | tar -xz -C place/env"
    run(["sh", "-c", cut], cwd=tmp_path)
    pack("relocate", place / "env")
    tool(place / "env")


def test_a_real_environment(
    session_directory: Path, channel: Path, package_cache: Path, make_installer: Make, place: Path
) -> None:
    """What its own Python makes of it is, to the byte, what the frozen program makes of it; and that works."""
    source = shared_lean_python(session_directory, channel, package_cache)
    frozen = shared_lean_installer(source, make_installer)
    target = place / "apps" / "env"
    install(frozen, target)
    expected = snapshot(target, times=False)
    shutil.rmtree(target)
    without = place / "without.sh"
    pack("-q", "-p", source, "-o", without, "--no-stub")
    done = install(without, target, env={"PATH": "/nonexistent"})
    assert "the frozen relocator cannot be used: this installer carries none" in done.stderr
    assert snapshot(target, times=False) == expected
    code = "import ssl, sqlite3, sys; print(sys.prefix, ssl.get_default_verify_paths().cafile)"
    assert activated(target, f"python -B -c '{code}'").stdout == f"{target} {target}/ssl/cert.pem\n"
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert f" from {target}/lib/" in run([target / "bin/pip", "--version"], env=env).stdout
    assert uninstall(without, target) == []
    assert not target.exists()


def test_no_stub_and_nothing_to_build_one_from(small: Small, tmp_path: Path) -> None:
    """Packing names the sources that are missing, and what can be done without them."""
    env = {**SURROUNDINGS, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = pack("-p", small.prefix, "-o", tmp_path / "env.sh", env=env, code=1)
    for word in ("CPython 3.11", "zlib 1", "libffi 3", "--no-stub", "pack stub build --arch"):
        assert word in done.stderr
    assert list(tmp_path.glob("env.sh*")) == []
