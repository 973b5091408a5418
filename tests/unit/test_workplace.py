"""A workplace is one process's own; what killed ones left goes, and nothing else does."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub import workplace
from installer_stub.errors import OutputError
from installer_stub.workplace import OLD, STAGING, discard, old_in, seized, uninterrupted, workplaces
from tests.unit.installers import ROOT, in_memory, stage
from tests.unit.other_user import NOBODY, nobody, open_directory

WEEK = 7 * 86_400
HERE = os.uname().nodename


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture
def target(place: Path) -> Path:
    return place / "env"


def left(target: Path, inside: bool = False) -> Path:
    """Make the workplace of a process that was killed."""
    child = os.fork()
    if child == 0:
        with workplace.workplace(bytes(target), inside):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (path,) = workplaces(bytes(target), inside)
    return Path(os.fsdecode(path))


def is_left(path: Path) -> bool:
    with seized(bytes(path)) as answer:
        return answer


def aged(path: Path, seconds: float = WEEK + 60) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def owned(path: Path, text: str) -> Path:
    path.mkdir(mode=0o700)
    (path / "owner").write_text(text)
    return path


def dead_process() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


# One's own


@pytest.mark.parametrize("inside", [False, True])
def test_it_is_empty_private_locked_and_gone_afterwards(inside: bool, target: Path) -> None:
    if inside:
        target.mkdir()
    with workplace.workplace(bytes(target), inside) as work:
        path = Path(os.fsdecode(work))
        assert path.parent == (target / ".pack-staging" if inside else target.parent)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.stat().st_mode) == (0o700 if inside else 0o755)
        assert os.listdir(path) == ["lock"]
        assert workplaces(bytes(target), inside) == [work]
        assert not is_left(path)
        (path / "tree").mkdir()
        (path / "tree/x").touch()
        (path / "tree").chmod(0o500)
    assert list(target.parent.iterdir()) == ([target] if inside else [])
    assert not inside or list(target.iterdir()) == []


@pytest.mark.parametrize("inside", [False, True])
def test_the_directory_of_a_script_stays_and_is_nobodys_prey_meanwhile(inside: bool, target: Path) -> None:
    """The script removes it, whatever became of its program: so nothing of worth is put there."""
    target.mkdir()
    with stage(target, inside) as script:
        with workplace.workplace(bytes(target), inside, bytes(script)) as work:
            assert Path(os.fsdecode(work)).parent == script.parent
            assert not work.startswith(bytes(script))
            (script / "owner").write_text(f"{HERE} {dead_process()}\n")  # as seen from another container
            assert not is_left(script)
        assert sorted(os.listdir(script)) == ["lock", "owner"]
        assert os.listdir(script.parent) == [script.name] if inside else True
        assert is_left(script)
    assert os.listdir(target) == []


def test_two_at_once_do_not_meet(target: Path) -> None:
    with workplace.workplace(bytes(target), False) as one, workplace.workplace(bytes(target), False) as other:
        assert one != other
        assert workplaces(bytes(target), False) == sorted([one, other])
        assert not is_left(Path(os.fsdecode(one)))


def test_twenty_at_once_inside_leave_nothing(target: Path) -> None:
    """Each removes the directory for all of them when it is the last, and finds it removed by another."""
    target.mkdir()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                with workplace.workplace(bytes(target), True) as path:
                    os.listdir(path)
                    for each in workplaces(bytes(target), True):
                        with seized(each) as answer:
                            if answer:  # it was just made, and not locked yet: its process makes another
                                discard(each)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(target) == []


@pytest.mark.parametrize("name", ["e", "x" * 238, "x" * 239, "x" * 255, "\u00e9" * 127, "-rf", ".hidden", "a b\tc'\"$"])
def test_names_of_every_length(name: str, place: Path) -> None:
    target = place / name
    with workplace.workplace(bytes(target), False) as work:
        assert workplaces(bytes(target), False) == [work]
    assert os.listdir(place) == []
    path = left(target)
    assert is_left(path)
    discard(bytes(path))


def test_names_that_begin_alike_for_too_long_are_told_apart(place: Path) -> None:
    one, other = place / ("x" * 250 + "one"), place / ("x" * 250 + "other")
    path = left(one)
    assert workplaces(bytes(other), False) == []
    assert workplaces(bytes(place / ("x" * 238)), False) == []
    assert workplaces(bytes(one), False) == [bytes(path)]
    with stage(place / ("x" * 238)) as script:
        assert bytes(script) in workplaces(bytes(place / ("x" * 238)), False), "it does not say for whom it is"


def test_one_that_holds_what_was_replaced_stays(target: Path) -> None:
    """Whoever knows that it is not needed any more removes it first; if nobody came to that, the next run decides."""
    with workplace.workplace(bytes(target), False) as work:
        os.mkdir(os.path.join(work, OLD))
        assert old_in(work) == os.path.join(work, OLD)
    assert os.listdir(work) == [b"lock", b"old"] or sorted(os.listdir(work)) == [b"lock", b"old"]
    assert is_left(Path(os.fsdecode(work)))
    with open(os.path.join(work, OLD, b".installing"), "wb"):
        pass
    assert old_in(work) is None, "it is a tree that was never complete"
    with workplace.workplace(bytes(target), False) as work:
        os.mkdir(os.path.join(work, OLD))
        os.symlink("nowhere", os.path.join(work, OLD, b".installing"))
    assert not os.path.exists(work)


def test_an_error_leaves_nothing(target: Path) -> None:
    with pytest.raises(KeyboardInterrupt), workplace.workplace(bytes(target), False):
        raise KeyboardInterrupt
    assert os.listdir(target.parent) == []
    with pytest.raises(FileNotFoundError), workplace.workplace(bytes(target / "no" / "such"), False):
        pass
    with pytest.raises(FileNotFoundError), workplace.workplace(bytes(target), True):
        pass
    assert os.listdir(target.parent) == []


def test_a_signal_waits_for_the_clearing_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun to be removed is removed, however many signals come."""

    def interrupted(path: bytes) -> None:
        signal.raise_signal(signal.SIGTERM)
        discard(path)

    def handler(number: int, frame: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(workplace, "discard", interrupted)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(InterruptedError), workplace.workplace(bytes(target), False) as work:
            os.makedirs(os.path.join(work, b"tree"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(target.parent) == []


def test_signals_are_let_in_again() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with uninterrupted():
        assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with uninterrupted():
            pass
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "only when the outer block ends"
    with pytest.raises(ValueError, match="x"), uninterrupted():
        raise ValueError("x")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


# Those of others


def test_what_a_killed_process_left_is_told_from_what_lives(target: Path) -> None:
    path = left(target)
    assert is_left(path)
    with seized(bytes(path)) as first:
        assert first
        assert not is_left(path), "it is somebody's while it is looked at"
    assert is_left(path)
    assert is_left(target.parent / ".env.pack-gonegone"), "what is not there is nobody's"


OWNERS: dict[str, tuple[Callable[[], str], bool, bool]] = {
    "a process that lives": (lambda: f"{HERE} {os.getpid()}\n", False, True),
    "a process that has ended": (lambda: f"{HERE} {dead_process()}\n", True, True),
    "a process of somebody else that lives": (lambda: f"{HERE} 1\n", False, True),
    "a process on another host": (lambda: f"not-{HERE} {dead_process()}\n", False, True),
    "a host with a space in its name": (lambda: f"{HERE} 2 {dead_process()}\n", False, True),
    "no number": (lambda: f"{HERE} x\n", False, True),
    "a number that no process has": (lambda: f"{HERE} {10**30}\n", False, True),
    "a negative number": (lambda: f"{HERE} -1\n", False, True),
    "nothing": (lambda: "", False, True),
    "a book": (lambda: "x" * 100_000, False, True),
}


@pytest.mark.parametrize("who", OWNERS)
def test_the_owner_speaks_as_long_as_there_is_no_lock(who: str, target: Path) -> None:
    text, now, later = OWNERS[who]
    path = owned(target.parent / ".env.pack-abcdefgh", text())
    assert (is_left(path), is_left(aged(path))) == (now, later)
    assert path.exists()


def test_a_lock_that_is_free_does_not_outvote_a_script_that_lives(target: Path) -> None:
    """Its program has made the lock and not come to locking it, or has ended."""
    path = owned(target.parent / ".env.pack-abcdefgh", f"{HERE} {os.getpid()}\n")
    (path / "lock").touch()
    assert not is_left(path)
    assert is_left(aged(path))
    (path / "owner").write_text(f"{HERE} {dead_process()}\n")
    aged(path, 0)
    assert is_left(path)
    (path / "owner").write_text(f"not-{HERE} 1\n")
    aged(path, 0)
    assert is_left(path), "locks are shared by hosts that have them"


def test_one_without_owner_and_lock_goes_if_it_is_empty(target: Path) -> None:
    """A script that finds its directory gone makes another."""
    empty = target.parent / ".env.pack-abcdefgh"
    empty.mkdir()
    assert not is_left(empty)
    assert not empty.exists()
    full = target.parent / ".env.pack-abcdefgi"
    (full / "x").mkdir(parents=True)
    assert not is_left(full)
    assert full.exists()
    assert is_left(aged(full))


def test_what_is_named_like_a_workplace_and_is_none(target: Path) -> None:
    there = target.parent / "elsewhere"
    (there / "x").mkdir(parents=True)
    link = target.parent / ".env.pack-abcdefgh"
    link.symlink_to(there)
    file = target.parent / ".env.pack-abcdefgi"
    file.touch()
    for path in (link, file):
        assert not is_left(path)
        assert not is_left(aged(path))
    aged(there)
    assert not is_left(link)
    assert (there / "x").exists()
    names = (".env.pack-", ".env.pack-short", ".env.pack-longer-ones", ".env2.pack-abcdefgh", "env.pack-abcdefgh")
    for name in names:
        (target.parent / name).mkdir()
    assert workplaces(bytes(target), False) == [bytes(link), bytes(file)]


@pytest.mark.parametrize("what", ["a FIFO", "a symlink", "a directory", "unreadable"])
def test_a_lock_that_is_none_hangs_nobody(what: str, target: Path) -> None:
    path = owned(target.parent / ".env.pack-abcdefgh", f"not-{HERE} 1\n")
    lock = path / "lock"
    make: dict[str, Callable[[], object]] = {
        "a FIFO": lambda: os.mkfifo(lock),
        "a symlink": lambda: lock.symlink_to(target.parent / "lock"),
        "a directory": lock.mkdir,
        "unreadable": lambda: lock.touch(0),
    }
    make[what]()
    aged(path, 0)
    is_left(path)
    assert is_left(aged(path))
    assert not (target.parent / "lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the directory of another user")
def test_one_of_another_user_is_left_alone(place: Path) -> None:
    path = owned(place / ".env.pack-abcdefgh", f"{HERE} {dead_process()}\n")
    (path / "lock").touch()
    os.chown(path, NOBODY, NOBODY)
    assert not is_left(aged(path)), "not even by root: its owner could exchange what is in it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the directory of another user")
@pytest.mark.parametrize("what", ["a directory", "a symlink to one of ours", "a file"])
def test_a_staging_directory_of_somebody_else_is_refused(what: str) -> None:
    """In a target that others may write one could have been put there, to lead what is removed elsewhere."""
    with open_directory() as place:
        target, home = place / "env", place / "home"
        for path in (target, home):
            path.mkdir()
            path.chmod(0o777)
        pictures = home / "pictures"
        with nobody():
            pictures.mkdir()
            (pictures / "one").touch()
            aged(pictures)
        staging = target / ".pack-staging"
        if what == "a symlink to one of ours":
            staging.symlink_to(home)
        elif what == "a directory":
            staging.mkdir(mode=0o777)
        else:
            staging.touch()
        with nobody():
            assert workplaces(bytes(target), True) == []
            refused = pytest.raises(OutputError, match=r"\.pack-staging: is somebody else's, or no directory")
            with refused, workplace.workplace(bytes(target), True):
                pass
        assert os.listdir(home) == ["pictures"]
        assert os.path.lexists(staging)


def test_a_directory_that_cannot_be_listed_holds_none() -> None:
    with open_directory() as place:
        place.chmod(0o711)
        with nobody():
            assert workplaces(bytes(place / "env"), False) == []
    assert workplaces(bytes(place / "env"), False) == []


# File systems without locks


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_week_decides(target: Path) -> None:
    with workplace.workplace(bytes(target), False) as work:
        path = Path(os.fsdecode(work))
        assert not is_left(path)
        assert is_left(aged(path))
    assert os.listdir(target.parent) == []
    with stage(target) as script, workplace.workplace(bytes(target), False, bytes(script)):
        assert not is_left(script)


def test_locks_that_fail_are_done_without(target: Path) -> None:
    """As on some mounts of Lustre and NFS; the system's own answer, not a made-up one."""
    strace = need("strace")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from installer_stub import workplace\n"
        "with workplace.workplace(sys.argv[1].encode(), False) as work:\n"
        "    with workplace.seized(work) as answer: print(answer)\n"
    )
    trace = [str(strace), "-o", os.devnull, "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]
    done = subprocess.run([*trace, sys.executable, "-c", program, str(target)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert os.listdir(target.parent) == []


# Removing


def test_discard_takes_read_only_directories_and_leaves_what_links_lead_to() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            outside = place / "outside"
            outside.mkdir()
            (outside / "x").touch()
            outside.chmod(0o555)
            tree = place / "tree"
            (tree / "a/b/c").mkdir(parents=True)
            (tree / "a/b/link").symlink_to(outside)
            (tree / "a/b/file").touch()
            for path, mode in ((tree / "a/b/c", 0), (tree / "a/b", 0o111), (tree / "a", 0o500), (tree, 0o555)):
                path.chmod(mode)
            discard(bytes(tree))
        assert os.listdir(place) == ["outside"]
        assert stat.S_IMODE(outside.stat().st_mode) == 0o555
        assert os.listdir(outside) == ["x"]
        link = place / "link"
        link.symlink_to(outside)
        discard(bytes(link))
        assert os.listdir(outside) == ["x"]
        discard(bytes(place / "missing"))


def test_the_staging_directory_has_its_name() -> None:
    assert STAGING == b".pack-staging", "which the script makes, too"
