"""One directory takes the place of another, or everything is as it was; read-only ones too."""

from __future__ import annotations

import ctypes  # another user may not be allowed to read where Python lies, and gets it from here
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub import swap
from tests.unit.installers import ROOT, failing, in_memory, killed, moments
from tests.unit.other_user import nobody, open_directory


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def made(path: Path, content: str, mode: int = 0o755) -> Path:
    path.mkdir(parents=True)
    (path / content).touch()
    path.chmod(mode)
    return path


def told(place: Path) -> dict[str, tuple[int, list[str]]]:
    """Tell the mode and the content of what is in two directories, as these three functions find them."""
    return {
        str(path.relative_to(place)): (stat.S_IMODE(path.stat().st_mode), sorted(os.listdir(path)))
        for path in (place / "env", place / "work/tree", place / "work/old", place / "work/wreck")
        if path.exists()
    }


@pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once as the system does it, once as where it cannot."""
    if not request.param:
        monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    return bool(request.param)


def supplant(place: Path) -> None:
    swap.supplant(bytes(place / "work/tree"), bytes(place / "env"), bytes(place / "work/old"))


def put_back(place: Path) -> None:
    swap.put_back(bytes(place / "work/old"), bytes(place / "env"), bytes(place / "work/wreck"))


@pytest.mark.parametrize("old", [0o755, 0o555, 0o700, 0o2775])
@pytest.mark.parametrize("new", [0o755, 0o555])
def test_there_and_back(ways: bool, old: int, new: int) -> None:
    """Also as a user who may not write into the directories: renaming one changes what is in it, its way up."""
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            made(place / "env", "one", old)
            made(place / "work/tree", "two", new)
            supplant(place)
            assert told(place) == {"env": (new, ["two"]), "work/old": (old, ["one"])}
            put_back(place)
            assert told(place) == {"env": (old, ["one"]), "work/wreck": (new, ["two"])}


def test_the_system_here_can_exchange(place: Path) -> None:
    """Else the half of these tests says nothing."""
    assert ctypes.CDLL(None).syscall
    one, other = made(place / "one", "1"), made(place / "other", "2")
    assert swap._exchanged(bytes(one), bytes(other))
    assert (os.listdir(one), os.listdir(other)) == (["2"], ["1"])


@pytest.mark.parametrize("what", ["target", "tree"])
def test_what_is_missing_is_an_error_and_changes_nothing(ways: bool, what: str, place: Path) -> None:
    made(place / "env", "one")
    made(place / "work/tree", "two")
    (place / ("env" if what == "target" else "work/tree")).rename(place / "gone")
    before = told(place)
    with pytest.raises(FileNotFoundError):
        supplant(place)
    assert told(place) == before


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5])
def test_a_rename_that_fails_changes_nothing(ways: bool, when: int, place: Path) -> None:
    made(place / "env", "one")
    made(place / "work/tree", "two")
    before = told(place)
    try:
        reached = failing(lambda: supplant(place), when, OSError(errno.EIO, "Input/output error"))
    except OSError as error:
        assert error.errno == errno.EIO
        # Where renaming back is what failed, the new tree lies under another name; the target is whole.
        assert {**told(place), "work/old": ()} in ({**before, "work/old": ()}, {"env": before["env"], "work/old": ()})
    else:
        assert not reached
        assert told(place)["env"] == (0o755, ["two"])


@pytest.mark.parametrize("step", [supplant, put_back])
def test_killed_anywhere_nothing_is_lost(ways: bool, step: Callable[[Path], None], place: Path) -> None:
    """With an exchange there is always something at the target. Without, the old tree is under its name for that."""

    def prepared(name: str) -> Path:
        here = place / name
        made(here / "env", "one")
        made(here / "work/tree", "two")
        if step is put_back:
            supplant(here)
        return here

    whole = prepared("whole")
    count = len(moments(lambda: step(whole)))
    for number in range(1, count + 1):
        here = prepared(f"killed{number}")
        assert killed(lambda here=here: step(here), number)  # type: ignore[misc]
        found = told(here)
        assert sorted(content for _, (content,) in found.values()) == ["one", "two"]
        if ways:
            assert "env" in found
        elif "env" not in found:
            assert found["work/old"] == (0o755, ["one"])


def test_a_target_that_is_a_mount_point_is_an_error() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    unshare = need("unshare")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub import swap\n"
        "try: swap.supplant(b'tree', b'env', b'old')\n"
        "except OSError as error: print(error.errno)\n"
    )
    with in_memory() as place:
        (place / "env").mkdir()
        (place / "tree").mkdir()
        script = f'cd {place} && mount -t tmpfs none env && exec "$@"'
        command = [str(unshare), "-m", "sh", "-c", script, "sh", sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(errno.EBUSY)
        assert sorted(os.listdir(place)) == ["env", "tree"]


@pytest.mark.parametrize("error", ["ENOSYS", "EINVAL", "EPERM", "EOPNOTSUPP", "EIO"])
def test_a_system_that_cannot_exchange_says_so_in_many_ways(error: str, place: Path) -> None:
    """An old kernel, a file system, a sandbox. What is none of these is an error."""
    strace = need("strace")
    made(place / "env", "one")
    made(place / "work/tree", "two")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub import swap\n"
        "swap.supplant(b'work/tree', b'env', b'work/old')\n"
    )
    trace = [str(strace), "-o", os.devnull, "-e", "trace=renameat2", "-e", f"inject=renameat2:error={error}"]
    done = subprocess.run([*trace, sys.executable, "-c", program], cwd=place, capture_output=True, text=True)
    if error == "EIO":
        assert "Input/output error" in done.stderr
        assert told(place) == {"env": (0o755, ["one"]), "work/tree": (0o755, ["two"])}
    else:
        assert done.stderr == ""
        assert told(place) == {"env": (0o755, ["two"]), "work/old": (0o755, ["one"])}


def test_without_ctypes_there_is_no_exchange(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    made(place / "env", "one")
    made(place / "work/tree", "two")
    supplant(place)
    assert told(place) == {"env": (0o755, ["two"]), "work/old": (0o755, ["one"])}


@pytest.mark.parametrize("machine", ["sparc64", ""])
def test_on_another_machine_no_number_is_guessed(machine: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    one, other = made(place / "one", "1"), made(place / "other", "2")
    assert not swap._exchanged(bytes(one), bytes(other))
    monkeypatch.undo()
    monkeypatch.setattr(sys, "maxsize", (1 << 31) - 1)
    assert not swap._exchanged(bytes(one), bytes(other)), "a 32-bit program on a 64-bit kernel"


def test_a_file_is_renamed_and_a_refusal_leaves_the_mode() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            made(place / "closed", "x", 0o555)
            made(place / "tree", "y", 0o555)
            with pytest.raises(PermissionError):
                swap.move(bytes(place / "tree"), bytes(place / "closed/tree"))
            assert stat.S_IMODE((place / "tree").stat().st_mode) == 0o555
            (place / "file").touch(0o444)
            swap.move(bytes(place / "file"), bytes(place / "moved"))
            with pytest.raises(PermissionError):
                swap.move(bytes(place / "closed/x"), bytes(place / "x"))
        assert sorted(os.listdir(place)) == ["closed", "moved", "tree"]
