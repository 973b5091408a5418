"""What a manifest lists is removed, and nothing else; what interrupts that is gone on from."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.selection import cases
from installer_stub import incomplete, workplace
from installer_stub.errors import HookFailed, ManifestError, OutputError, TreeReadOnly
from installer_stub.incomplete import Phase
from tests.unit.installers import (
    directory,
    environment,
    failing,
    in_memory,
    installed,
    killed,
    moments,
    names,
    shape,
    uninstalled,
    updated,
    write,
)
from tests.unit.other_user import NOBODY, nobody, open_directory

assert ctypes.CDLL(None).syscall
PARTS = environment(b"one", directory(b"share"), directory(b"share/closed", 0o555))


@pytest.fixture
def here() -> Iterator[Path]:
    with in_memory() as place:
        yield place


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def installer() -> Iterator[Path]:
    with in_memory() as place:
        yield write(place / "one.sh", PARTS)


@pytest.fixture
def target(here: Path, installer: Path) -> Path:
    installed(installer, here / "env")
    return here / "env"


def test_nothing_stays_of_a_tree_that_nobody_touched(target: Path, installer: Path) -> None:
    (target / "lib/__pycache__").mkdir()
    (target / "lib/__pycache__/mod.cpython-311.pyc").touch()
    assert uninstalled(installer, target) == []
    assert os.listdir(target.parent) == []


def test_what_somebody_added_stays_and_is_listed(target: Path, installer: Path, here: Path) -> None:
    (here / "outside").mkdir()
    (here / "outside/mod.py").touch()
    (target / "lib/mine.py").touch()
    (target / "lib/__pycache__").mkdir()
    (target / "lib/__pycache__/mine.cpython-311.pyc").touch()
    (target / "mine/empty").mkdir(parents=True)
    (target / "link").symlink_to(here / "outside")
    (target / "lib/mod.py").write_text("changed")
    os.mkfifo(target / "fifo")
    left = ["fifo", "lib", "lib/__pycache__", "lib/__pycache__/mine.cpython-311.pyc", "lib/mine.py", "link", "mine"]
    assert uninstalled(installer, target) == [*left, "mine/empty"]
    assert names(target) == [*left, "mine/empty"]
    assert os.listdir(here / "outside") == ["mod.py"]


def test_a_directory_that_somebody_led_elsewhere_is_not_followed(target: Path, installer: Path, here: Path) -> None:
    (target / "lib").rename(here / "elsewhere")
    (target / "lib").symlink_to(here / "elsewhere")
    before = shape(here / "elsewhere")
    uninstalled(installer, target)
    assert shape(here / "elsewhere") == before


def test_directories_that_nobody_may_write_go_or_stay_as_they_are(installer: Path) -> None:
    with open_directory() as place:
        place.chmod(0o777)
        target = place / "env"
        with nobody():
            installed(installer, target)
            (target / "lib/mine").touch()
            for name in ("lib", "bin", "share", "."):
                (target / name).chmod(0o555)
            assert uninstalled(installer, target) == ["lib", "lib/mine"]
            assert names(target) == ["lib", "lib/mine"]
            assert {stat.S_IMODE((target / name).stat().st_mode) for name in (".", "lib")} == {0o555}
        (target / "lib").chmod(0o755)


def test_a_root_that_nobody_may_write_goes(installer: Path) -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            installed(installer, place / "env")
            (place / "env").chmod(0o555)
            assert uninstalled(installer, place / "env") == []
        assert os.listdir(place) == []


def test_a_mount_point_or_the_like_stays(here: Path, installer: Path) -> None:
    target = here / "env"
    (target / "lost+found").mkdir(parents=True)
    installed(installer, target, inside=True)
    assert uninstalled(installer, target, inside=True) == []
    assert names(target) == ["lost+found"]


def test_a_tree_that_was_moved_since(target: Path, installer: Path, here: Path) -> None:
    moved = target.rename(here / "moved")
    assert uninstalled(installer, moved) == []
    assert os.listdir(here) == []


def test_any_installer_removes_any_tree(target: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.sh", environment(b"two", directory(b"more")))
    assert uninstalled(other, target) == []


def test_what_it_carried_over_stays(target: Path, tmp_path: Path) -> None:
    (target / "mine").touch()
    (target / "bin/tool").write_text("changed")
    two = write(tmp_path / "two.sh", environment(b"two"))
    updated(two, target)
    assert uninstalled(two, target) == ["bin", "bin/tool.before-update", "mine"]


def test_its_line_in_condas_list_goes(target: Path, installer: Path, home: Path) -> None:
    (home / ".conda").mkdir()
    (home / ".conda/environments.txt").write_text(f"/a\n{target}\n")
    uninstalled(installer, target)
    assert (home / ".conda/environments.txt").read_text() == "/a\n"


@pytest.mark.parametrize("what", ["nothing", "an empty directory", "a directory", "a damaged list"])
def test_what_is_no_tree_of_ours_is_refused(what: str, here: Path, installer: Path) -> None:
    target = here / "env"
    if what == "a damaged list":
        installed(installer, target)
        (target / ".pack/files.json").write_text("{")
    elif what != "nothing":
        target.mkdir()
        if what == "a directory":
            (target / "x").touch()
    before = shape(target)
    with pytest.raises(ManifestError) as caught:
        uninstalled(installer, target)
    assert caught.value.code == 6
    assert shape(target) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the tree of another user")
def test_the_tree_of_somebody_else_is_refused(installer: Path) -> None:
    with open_directory() as place:
        place.chmod(0o777)
        installed(installer, place / "env")
        before = shape(place / "env")
        with nobody(), pytest.raises(TreeReadOnly, match=r"it is somebody else's.* cannot be removed"):
            uninstalled(installer, place / "env")
        assert shape(place / "env") == before


# The hook


def test_a_hook_runs_first_and_its_failure_changes_nothing(here: Path, tmp_path: Path) -> None:
    text = '#!/bin/sh\nprintf "%s\\n" "$PREFIX" "$CONDA_PREFIX" "$(pwd -P)" >"$PREFIX/../told"; exit 3\n'
    installer = write(tmp_path / "one.sh", PARTS, {"pre-uninstall": text})
    installed(installer, here / "env")
    before = shape(here / "env")
    with pytest.raises(HookFailed, match="code 3"):
        uninstalled(installer, here / "env")
    assert shape(here / "env") == before
    assert (here / "told").read_text().splitlines() == [str(here / "env")] * 3
    assert uninstalled(installer, here / "env", scripts=False) == []


def test_a_hook_in_a_tree_that_was_moved_is_not_waited_for(here: Path, tmp_path: Path) -> None:
    """Its activation would relocate the tree, and wait for who works on it."""
    installer = write(tmp_path / "one.sh", PARTS, {"pre-uninstall": 'echo ran >"$PREFIX/../told"\n'})
    installed(installer, here / "env")
    moved = (here / "env").rename(here / "moved")
    assert uninstalled(installer, moved) == []
    assert (here / "told").read_text() == "ran\n"


# Interrupted


def begun(here: Path, number: int, installer: Path) -> Path:
    """Install an environment to which somebody has added something."""
    target = here / f"t{number}/env"
    target.parent.mkdir()
    installed(installer, target)
    (target / "lib/mine").touch()
    return target


def ended(target: Path, run: Callable[[], object]) -> None:
    """Go on; the last moments are those in which it is done, and only the root is left."""
    if (target / ".pack").exists() or (target / ".installing").exists():
        run()
    else:
        with pytest.raises(ManifestError):
            run()
    assert names(target) == ["lib", "lib/mine"]
    assert incomplete.load(bytes(target)) is None
    with pytest.raises(ManifestError):
        run()
    assert os.listdir(target.parent) == ["env"]


@pytest.mark.parametrize("how", ["killed", "failing"])
def test_interrupted_anywhere_it_is_gone_on_with(how: str, here: Path, installer: Path) -> None:
    whole = begun(here, 0, installer)
    count = len(moments(lambda: uninstalled(installer, whole)))
    numbers = [*cases(7, count), *range(count - 12, count)]
    for number in sorted({each + 1 for each in numbers}):
        target = begun(here, number, installer)
        before = shape(target, times=False)

        def run(target: Path = target) -> object:
            return uninstalled(installer, target)

        if how == "killed":
            assert killed(run, number)
        else:
            try:
                failing(run, number, OSError(errno.EIO, "Input/output error"))
            except OutputError as error:
                assert "input/output error" in str(error)
        ended(target, run)
        assert shape(target, times=False) != before


def test_while_it_is_under_way_nobody_else_begins(target: Path, installer: Path, tmp_path: Path) -> None:
    """Neither a second one, nor an installation; and after it was killed only a removal goes on."""
    two = write(tmp_path / "two.sh", environment(b"two"))
    with workplace.workplace(bytes(target), False) as work:
        incomplete.write(bytes(target), incomplete.marker(Phase.REMOVAL, bytes(target), work), work)
        for run in (uninstalled, updated, installed):
            with pytest.raises(OutputError, match="another installation is at work there"):
                run(two, target)
    for run in (updated, installed):
        with pytest.raises(OutputError, match="it was being uninstalled"):
            run(two, target)
    assert uninstalled(installer, target) == []
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize("was", ["nothing", "an empty directory", "a tree"])
def test_of_an_installation_that_was_never_complete(was: str, here: Path, tmp_path: Path) -> None:
    """What it replaced is back then, and that is what is uninstalled; if it was nothing, nothing stays."""
    target = here / "env"
    one = write(tmp_path / "one.sh", environment(b"one"))
    two = write(tmp_path / "two.sh", environment(b"two"), {"post-install": "kill -9 $PPID\n"})
    if was == "a tree":
        installed(one, target)
    elif was != "nothing":
        target.mkdir()
    child = os.fork()
    if child == 0:
        (updated if was == "a tree" else installed)(two, target)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (target / ".installing").exists()
    assert uninstalled(one, target) == []
    assert target.exists() == (was == "an empty directory")
    assert os.listdir(here) == (["env"] if target.exists() else [])


def test_nobody_is_root_here() -> None:
    with nobody():
        assert os.geteuid() in (NOBODY, os.getuid())
