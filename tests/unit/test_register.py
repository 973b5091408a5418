"""conda's list gets a line, loses it again, and is otherwise as it was."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from installer_stub.errors import OutputError
from installer_stub.register import register, unregister
from tests.unit.installers import ROOT
from tests.unit.other_user import nobody, open_directory

ENV = b"/apps/env"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def listed(home: Path) -> Path:
    return home / ".conda/environments.txt"


def write(home: Path, content: bytes) -> Path:
    listed(home).parent.mkdir(exist_ok=True)
    listed(home).write_bytes(content)
    return listed(home)


def test_the_list_is_made(home: Path) -> None:
    assert register(ENV) == bytes(listed(home))
    assert listed(home).read_bytes() == b"/apps/env\n"


BEFORE = {
    "nothing": (b"", b"/apps/env\n"),
    "another": (b"/other\n", b"/other\n/apps/env\n"),
    "no newline at its end": (b"/other", b"/other\n/apps/env\n"),
    "lines as on Windows": (b"/other\r\n", b"/other\r\n/apps/env\n"),
    "it is there": (b"/a\n/apps/env\n/b\n", b"/a\n/apps/env\n/b\n"),
    "it is there, last and without newline": (b"/apps/env", b"/apps/env"),
    "it is there as on Windows": (b"/apps/env\r\n/b\r\n", b"/apps/env\r\n/b\r\n"),
    "one that begins alike": (b"/apps/env2\n/apps/en\n", b"/apps/env2\n/apps/en\n/apps/env\n"),
    "bytes that are no text": (b"/\xff\0\n", b"/\xff\0\n/apps/env\n"),
    "empty lines": (b"\n\n", b"\n\n/apps/env\n"),
}


@pytest.mark.parametrize("what", BEFORE)
def test_a_line_is_added_unless_it_is_there(what: str, home: Path) -> None:
    before, after = BEFORE[what]
    write(home, before)
    for _ in range(2):
        register(ENV)
        assert listed(home).read_bytes() == after


REMOVED = {
    "alone": (b"/apps/env\n", b""),
    "first": (b"/apps/env\n/b\n", b"/b\n"),
    "in the middle": (b"/a\n/apps/env\n/b", b"/a\n/b"),
    "last, without newline": (b"/a\n/apps/env", b"/a\n"),
    "as on Windows": (b"/a\r\n/apps/env\r\n/b\r\n", b"/a\r\n/b\r\n"),
    "twice": (b"/apps/env\n/a\n/apps/env\n", b"/a\n"),
    "not there": (b"/apps/env2\n/a", b"/apps/env2\n/a"),
}


@pytest.mark.parametrize("what", REMOVED)
def test_its_line_is_taken_out_and_no_other(what: str, home: Path) -> None:
    before, after = REMOVED[what]
    write(home, before)
    for _ in range(2):
        unregister(ENV)
        assert listed(home).read_bytes() == after


def test_a_list_that_does_not_have_it_is_not_written(home: Path) -> None:
    path = write(home, b"/a\n")
    os.utime(path, (1, 1))
    unregister(ENV)
    write(home, b"/apps/env\n")
    os.utime(path, (1, 1))
    register(ENV)
    assert path.stat().st_mtime == 1


def test_one_that_is_a_symlink_stays_one(home: Path) -> None:
    """Some keep their configuration in another place."""
    (home / "dotfiles").mkdir()
    listed(home).parent.mkdir()
    listed(home).symlink_to(home / "dotfiles/environments.txt")
    register(ENV)
    register(b"/b")
    unregister(ENV)
    assert listed(home).is_symlink()
    assert (home / "dotfiles/environments.txt").read_bytes() == b"/b\n"


def test_its_mode_stays(home: Path) -> None:
    path = write(home, b"/a\n")
    path.chmod(0o640)
    register(ENV)
    unregister(ENV)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_twenty_at_once(home: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub.register import register\n"
        "for number in range(10): register(b'/env/%s-%d' % (sys.argv[1].encode(), number))\n"
    )
    started = [subprocess.Popen([sys.executable, "-S", "-c", program, str(number)]) for number in range(20)]
    assert [process.wait() for process in started] == [0] * 20
    lines = listed(home).read_bytes().splitlines()
    assert sorted(lines) == sorted(b"/env/%d-%d" % (one, other) for one in range(20) for other in range(10))


def test_without_locks_no_line_of_another_is_overwritten(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*arguments: object) -> None:
        with listed(home).open("ab") as other:
            other.write(b"/another-one\n")
        raise OSError(37, "No locks available")

    write(home, b"/a\n")
    monkeypatch.setattr(fcntl, "flock", meanwhile)
    register(ENV)
    assert listed(home).read_bytes() == b"/a\n/another-one\n/apps/env\n"


@pytest.mark.parametrize("home", ["", None])
def test_without_a_home_it_is_refused(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(OutputError, match="HOME is not set") as caught:
        register(ENV)
    assert "without --register" in caught.value.tip
    unregister(ENV)


def test_a_home_that_cannot_be_written_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_directory() as home:
        monkeypatch.setenv("HOME", str(home))
        with (
            nobody(),
            pytest.raises(OutputError, match=r"environments\.txt: the environment cannot be registered: Perm"),
        ):
            register(ENV)
        write(home, b"/apps/env\n")
        listed(home).chmod(0o444)
        with nobody():
            with pytest.raises(OutputError, match="Permission denied"):
                register(b"/other")
            unregister(ENV)
        assert listed(home).read_bytes() == b"/apps/env\n"


@pytest.mark.parametrize("what", ["a directory", "a file where its directory is to be"])
def test_what_is_in_the_way_is_told(what: str, home: Path) -> None:
    if what == "a directory":
        listed(home).mkdir(parents=True)
    else:
        listed(home).parent.touch()
    with pytest.raises(OutputError, match="cannot be registered"):
        register(ENV)
    unregister(ENV)
