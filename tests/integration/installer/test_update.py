"""Replacing an installation by another version: what comes, what goes, what stays, and what a failure leaves."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fixtures import channel as channels
from tests.integration.installed import (
    Hooks,
    Mounted,
    begin,
    install,
    lean_python,
    mounted,
    shared_lean_installer,
    shared_lean_python,
    tiny_prefix,
    tool,
    uninstall,
    wait_for,
)
from tests.integration.moving import SURROUNDINGS, activated, pack, run, snapshot, wheel, wrong_rows

Make = Callable[..., Path]

# Beside what tiny_prefix has. Text names the prefix, so it is rewritten; a file became a directory, and the reverse.
FILES = {
    "1": {"lib/same.py": "same = 1\n", "lib/changed.py": "version = 1\n", "lib/gone.py": "", "lib/turns": "a file\n"},
    "2": {"lib/same.py": "same = 1\n", "lib/changed.py": "version = 2\n", "lib/new.py": "", "lib/turns/into": "two\n"},
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Path:
    """A directory with the installers of two versions, 1.sh and 2.sh, whose hooks do what a test says."""
    directory = tmp_path_factory.mktemp("versions")
    options = Hooks(directory).options(directory / "hooks")
    for version, files in FILES.items():
        prefix = tiny_prefix(directory / version / "env", version, files)
        make_installer(prefix, directory / f"{version}.sh", "--installer-version", version, *options)
        shutil.rmtree(prefix)
    return directory


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    (tmp_path / "record").mkdir()
    return Hooks(tmp_path / "record")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    (tmp_path / "apps").mkdir()
    return tmp_path / "apps" / "env"


def used(target: Path) -> None:
    """Do what people do to an installation: add, change, remove."""
    (target / "etc").mkdir()
    (target / "etc/my settings").write_text("mine\n")
    (target / "etc/my settings").chmod(0o640)
    (target / "etc/link").symlink_to("my settings")
    (target / "lib/__pycache__").mkdir()
    (target / "lib/__pycache__/same.cpython-311.pyc").write_bytes(b"made of same.py")
    (target / "lib/__pycache__/mine.cpython-311.pyc").write_bytes(b"made of nothing there")
    (target / "lib/new.py").write_text("# somebody else's, of a name that comes\n")
    (target / "lib/changed.py").write_text("version = 'edited'\n")
    (target / "share/text").write_text("edited, too\n")
    (target / "lib/gone.py").unlink()


# What an update makes of that: where each of them is afterwards.
KEPT = {
    "etc/my settings": "mine\n",
    "lib/__pycache__/mine.cpython-311.pyc": "made of nothing there",
    "lib/new.py.before-update": "# somebody else's, of a name that comes\n",
    "lib/changed.py.before-update": "version = 'edited'\n",
    "share/text.before-update": "edited, too\n",
}


def update(versions: Path, target: Path, *options: str, **more: object) -> dict[str, set[str]]:
    """Update to version 2; return the paths of what was found, by what was said of them."""
    done = install(versions / "2.sh", target, "-u", "--json", *options, **more)  # type: ignore[arg-type]
    facts = json.loads(done.stdout)
    assert facts["replaced"] is True
    found: dict[str, set[str]] = {}
    for each in facts["findings"]:
        found.setdefault(each["what"], set()).add(each["path"])
    return found


@pytest.fixture(scope="module")
def fresh(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[object, ...]]:
    """Describe version 2 as it is installed where nothing was."""
    target = tmp_path_factory.mktemp("fresh") / "env"
    install(versions / "2.sh", target, "-s")
    return {name: facts for name, facts in snapshot(target, times=False).items() if name not in PLACED}


# Whose content is that of a place, or directories that hold more after an update.
PLACED = ("bin/tool", "share/text", ".pack/state.json", "bin/activate", "bin/activate.fish", "bin/activate.csh")


# A process that a hook started writes into the new tree before that is in its place.
DAMAGE = 'for each in {}/tree/lib/same.py; do echo damaged >"$each"; done'


# What comes and goes


def test_what_an_update_keeps_and_lists(versions: Path, target: Path, fresh: Mapping[str, tuple[object, ...]]) -> None:
    """Exactly the new version, what was added, what was edited aside; and that is what uninstalling leaves."""
    install(versions / "1.sh", target)
    used(target)
    inode = (target / "etc/my settings").stat().st_ino
    found = update(versions, target)
    assert found == {
        "carried over": {"etc/my settings", "etc/link", "lib/__pycache__/mine.cpython-311.pyc"},
        "carried over beside the new one": {"lib/new.py", "lib/changed.py", "share/text"},
    }
    tool(target, "2")
    assert {name: (target / name).read_text() for name in KEPT} == KEPT
    assert (target / "etc/my settings").stat().st_mode & 0o777 == 0o640
    assert (target / "etc/my settings").stat().st_ino == inode  # a hard link, no copy
    described = snapshot(target, times=False)
    added = {*KEPT, "etc", "etc/link", "lib/__pycache__"}
    assert {name: facts for name, facts in described.items() if name not in {*added, *PLACED}} == fresh
    assert "are right" in pack("verify", target).stdout
    assert set(uninstall(versions / "2.sh", target)) == added | {"lib", "share"}
    assert snapshot(target, times=False).keys() == added | {"lib", "share"}


def test_what_was_added_is_dropped_where_that_is_wanted(
    versions: Path, target: Path, fresh: Mapping[str, tuple[object, ...]]
) -> None:
    """It is listed all the same."""
    install(versions / "1.sh", target)
    used(target)
    found = update(versions, target, "--added", "drop")
    assert found == {"not carried over": {*(name.removesuffix(".before-update") for name in KEPT), "etc/link"}}
    described = {name: facts for name, facts in snapshot(target, times=False).items() if name not in PLACED}
    assert described == fresh
    assert uninstall(versions / "1.sh", target) == []
    assert not target.exists()


def test_there_and_back_again(versions: Path, target: Path) -> None:
    """Any version replaces any other; what was added comes along each time, and no name grows each time."""
    install(versions / "1.sh", target, "-f")
    (target / "mine").write_text("mine\n")
    for version in ("2", "2", "1"):
        done = install(versions / f"{version}.sh", target, "-f")
        assert done.stdout.splitlines()[1:] == ["carried over: mine"]
        tool(target, version)
    assert sorted(os.listdir(target)) == [".pack", "bin", "conda-meta", "lib", "mine", "share"]


def test_what_can_be_updated(versions: Path, target: Path) -> None:
    """Not what is nothing or somebody else's, and not without being told."""
    parent = target.parent
    refused = install(versions / "2.sh", target, "-u", code=6)
    assert "holds no installation" in refused.stderr
    (target / "mine").mkdir(parents=True)
    before = snapshot(parent)
    assert "but: mine" in install(versions / "2.sh", target, "-u", code=6).stderr
    assert "not an empty directory: mine" in install(versions / "2.sh", target, "-f", code=5).stderr
    assert snapshot(parent) == before
    (target / "mine").rmdir()
    install(versions / "1.sh", target, "-f")
    before = snapshot(parent)
    assert "--update" in install(versions / "2.sh", target, code=5).stderr
    assert snapshot(parent) == before
    tool(target, "1")


# A real environment


@pytest.fixture(scope="module")
def pythons(session_directory: Path, channel: Path, package_cache: Path, make_installer: Make) -> tuple[Path, Path]:
    """Two installers of a Python with other packages, of which one was edited before it was packed."""
    directory = session_directory / "updated-pythons"
    first = shared_lean_python(session_directory, channel, package_cache)
    with channels.locked(directory):
        if not (directory / "2.sh").exists():
            directory.mkdir(exist_ok=True)
            second = lean_python(directory / "source" / "env", channel, package_cache, ("python", "pip", "idna"))
            edited = next(second.glob("lib/python3.*/site-packages/idna/package_data.py"))
            edited.unlink()  # a hard link into the cache
            edited.write_text("__version__ = 'edited'\n")
            make_installer(second, directory / "2.sh", "--force")
            shutil.rmtree(second)
    return shared_lean_installer(first, make_installer), directory / "2.sh"


def test_a_real_environment(pythons: tuple[Path, Path], target: Path, tmp_path: Path) -> None:
    """What pip added works in the new version; programs and shells that were running go on."""
    install(pythons[0], target)
    added = f"pip install --no-index --no-compile {shlex.quote(str(wheel(tmp_path)))}"
    activated(target, f"{added} && python -c 'import six'")
    activate, deactivate = (f". {shlex.quote(str(target / 'bin' / name))}" for name in ("activate", "deactivate"))
    # A program of the old version: it has its modules, and computes when it is asked.
    code = "import sys, sqlite3, json\nfor line in sys.stdin: print(eval(line), flush=True)\n"
    running = subprocess.Popen(
        [target / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={}
    )
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=SURROUNDINGS
    )
    with running, shell:
        assert said(shell, f"{activate}; cd $CONDA_PREFIX; pwd") == str(target)
        assert said(running, "sys.prefix") == str(target)
        done = install(pythons[1], target, "-u")
        assert said(running, "sqlite3.connect(':memory:').execute('select 6 * 7').fetchone()") == "(42,)"
        assert said(shell, "python -B -c 'import idna; print(idna.__version__)' || echo failed") == "edited"
        assert said(shell, "cd $CONDA_PREFIX && tinyroot || echo failed") == str(target)
        assert said(shell, f"{deactivate}; echo $PATH") == SURROUNDINGS["PATH"]
    assert (running.returncode, shell.returncode) == (0, 0)
    carried = done.stdout.splitlines()[1:]
    assert carried
    assert [line for line in carried if "tinyroot" not in line] == []
    assert run([target / "bin/tinyroot"], env={"PYTHONDONTWRITEBYTECODE": "1"}).stdout == f"{target}\n"
    assert wrong_rows(target, "tinyroot") == []
    listed = json.loads(activated(target, "python -B -m pip list --format json; python -B -m pip check >&2").stdout)
    assert {each["name"] for each in listed} == {"pip", "idna", "tinyroot"}
    assert "are right" in pack("verify", target).stdout
    left = uninstall(pythons[1], target)
    directories = {str(parent) for path in left for parent in Path(path).parents}
    assert [path for path in left if "tinyroot" not in path and path not in directories] == []
    assert any(path.endswith("site-packages/tinyroot/__init__.py") for path in left)
    assert sorted(snapshot(target)) == sorted(left)


def said(process: subprocess.Popen[str], line: str) -> str:
    """Say a line to a program, and return the line that it answers."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline().rstrip("\n")


# What a failure leaves


@pytest.fixture
def old(versions: Path, target: Path) -> dict[str, tuple[object, ...]]:
    """Version 1 at the target, used for a while: its description."""
    install(versions / "1.sh", target)
    used(target)
    return snapshot(target)


def as_before(target: Path, old: dict[str, tuple[object, ...]]) -> None:
    """The old version is there, byte for byte, works, and nothing is beside it."""
    assert snapshot(target) == old
    tool(target, "1")
    assert os.listdir(target.parent) == ["env"]


def test_a_version_that_is_not_as_its_manifest_says(
    versions: Path, target: Path, old: dict[str, tuple[object, ...]], hooks: Hooks
) -> None:
    """That is seen where it stands."""
    beside = DAMAGE.format('"${PREFIX%/*}"/.env.pack-*')
    hooks.do("pre-install", f'{beside}; : >"$RECORD/was"')
    hooks.do("post-install", ': >"$RECORD/post"')
    done = install(versions / "2.sh", target, "-u", env=hooks.env, code=11)
    assert "lib/same.py" in done.stderr and "put back" in done.stderr
    assert sorted(os.listdir(hooks.record)) == ["post-install", "pre-install", "was"]
    as_before(target, old)


def test_a_payload_that_is_damaged(
    versions: Path, target: Path, old: dict[str, tuple[object, ...]], tmp_path: Path
) -> None:
    data = bytearray((versions / "2.sh").read_bytes())
    data[-5000] ^= 1
    (tmp_path / "2.sh").write_bytes(data)
    install(tmp_path / "2.sh", target, "-u", code=11)
    as_before(target, old)


@pytest.mark.parametrize("hook", ["pre-install", "post-install"])
def test_interrupted(hook: str, versions: Path, target: Path, old: dict[str, tuple[object, ...]], hooks: Hooks) -> None:
    hooks.do("post-install", ': >"$RECORD/there"; sleep 1000')
    with begin(versions / "2.sh", target, "-u", env=hooks.env) as updating:
        wait_for((hooks.record / "there").exists)
        updating.send_signal(signal.SIGTERM)
        updating.communicate(timeout=60)
    assert updating.returncode == 143
    as_before(target, old)


# On a file system of its own


@pytest.fixture
def small_disk(target: Path) -> Iterator[Mounted]:
    with mounted(target.parent, "-t", "tmpfs", "-o", "size=24m", "none") as disk:
        yield disk


@pytest.fixture
def mount_point(target: Path) -> Iterator[Mounted]:
    target.mkdir()
    with mounted(target, "-t", "tmpfs", "-o", "size=24m", "none") as disk:
        yield disk


def test_a_full_disk(versions: Path, target: Path, small_disk: Mounted) -> None:
    """There is room for the program and a part of the new version: the old one stays."""
    before, seen = small_disk.before, small_disk.seen / "env"
    install(versions / "1.sh", target, before=before)
    (seen / "share/mine").write_bytes(bytes(1_500_000))
    old = snapshot(seen)
    # What the program needs, and a little more.
    run(
        [
            *before,
            "sh",
            "-c",
            'head -c "$1" /dev/zero >"$2"',
            "sh",
            str(free(seen) - 13_900_000),
            target.parent / "full",
        ]
    )
    for options in ((), ("--skip-space-check",)):
        done = install(versions / "2.sh", target, "-u", *options, before=before, code=5)
        assert "room for" in done.stderr if not options else "full" in done.stderr, done.stderr
        assert snapshot(seen) == old
        assert sorted(os.listdir(small_disk.seen)) == ["env", "full"]
    (small_disk.seen / "full").unlink()
    install(versions / "2.sh", target, "-u", before=before)
    assert run([*before, target / "bin/tool"]).stdout == f"{target} 2\n"


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def test_in_place(versions: Path, target: Path, mount_point: Mounted, hooks: Hooks) -> None:
    """A mount point stays what it is, and what is exchanged is in it: updated, taken back, uninstalled."""
    before, seen = mount_point.before, mount_point.seen
    (seen / "lost+found").mkdir(mode=0o700)
    install(versions / "1.sh", target, before=before)
    used(seen)
    old = snapshot(seen)
    for hook, script, code in (
        ("post-install", "exit 1", 15),
        ("pre-install", DAMAGE.format('"$PREFIX"/.pack-staging/*'), 11),
    ):
        hooks.do(hook, script)
        install(versions / "2.sh", target, "-u", env=hooks.env, before=before, code=code)
        found = snapshot(seen)
        assert {name: facts for name, facts in found.items() if name != "lost+found"} == {
            name: facts for name, facts in old.items() if name != "lost+found"
        }, hook
        hooks.do(hook, "")
    told = update(versions, target, before=before)
    assert told["carried over"] == {"etc/my settings", "etc/link", "lib/__pycache__/mine.cpython-311.pyc"}
    assert run([*before, target / "bin/tool"]).stdout == f"{target} 2\n"
    assert {name: (seen / name).read_text() for name in KEPT} == KEPT
    assert sorted(os.listdir(seen)) == [".pack", "bin", "conda-meta", "etc", "lib", "lost+found", "share"]
    left = set(uninstall(versions / "2.sh", target, before=before))
    assert left == {*KEPT, "etc", "etc/link", "lib", "lib/__pycache__", "share"}
    assert snapshot(seen).keys() == left | {"lost+found"}
