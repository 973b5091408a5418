"""A tree appears whole or not at all, whatever interrupts it, and what it replaces comes back as it was."""

from __future__ import annotations

import ctypes  # another user may not be allowed to read where Python lies, and gets it from here
import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub import incomplete, landing, swap, workplace
from installer_stub.errors import ManifestError, OutputError
from installer_stub.incomplete import Marker, Phase
from installer_stub.landing import Replace, opened, place
from tests.unit.installers import ROOT, counting, failing, in_memory, killed, moments, names, shape, stage
from tests.unit.other_user import NOBODY, nobody, open_directory

assert ctypes.CDLL(None).syscall
GIVE_UP = RuntimeError("given up")


@pytest.fixture
def here() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


def fill(tree: Path, what: str) -> None:
    """Fill a directory as an environment of ours, with something of each kind in it."""
    for name in (".pack", "bin", "lib", "empty"):
        (tree / name).mkdir()
    (tree / ".pack/references.json").write_text("{}")
    (tree / "bin/tool").write_text(what)
    (tree / "bin/link").symlink_to("tool")
    (tree / "lib" / what).touch()
    (tree / "empty").chmod(0o555)


def land(
    target: Path,
    inside: bool = False,
    replace: Replace = Replace.NO,
    marked: bool = False,
    hook: Callable[[], object] = lambda: None,
    gid: int = -1,
) -> None:
    """Put a tree at a target, as an installer does."""
    with stage(target, inside) as script, opened(bytes(target), bytes(script), replace) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        way.appear(marked, gid)
        hook()
        way.settle()


def looked_at(target: Path, inside: bool) -> None:
    """Come after somebody who was killed, and give up when what that one left is cleared."""
    looking = partial(opened, bytes(target), replace=Replace.IF_THERE)
    with pytest.raises(RuntimeError, match="given up"), stage(target, inside) as script, looking(bytes(script)):
        raise GIVE_UP


# What can be there


@pytest.mark.parametrize("replace", Replace)
def test_where_nothing_is_or_an_empty_directory(replace: Replace, here: Path) -> None:
    (here / "empty").mkdir()
    (here / "link").symlink_to("empty")
    for name, physical in (("none", "none"), ("empty", "empty"), ("link", "empty")):
        if replace is Replace.YES:
            with pytest.raises(ManifestError, match="no environment of pack that could be replaced"):
                place(bytes(here / name), replace)
        else:
            assert place(bytes(here / name), replace) == bytes(here / physical)


def test_what_is_refused(here: Path) -> None:
    (here / "file").touch()
    (here / "full").mkdir()
    for number in range(12):
        (here / f"full/f{number:02}").touch()
    (here / "dangling").symlink_to("nowhere/at/all")
    words = {
        "file": "exists, and is no directory",
        "none/env": "none does not exist",
        "dangling": "at does not exist",
        "full": "not an empty directory: f00, f01, f02, f03, f04, f05, f06, f07, f08, f09, and 2 more",
    }
    for name, what in words.items():
        for replace in (Replace.NO, Replace.IF_THERE):
            with pytest.raises(OutputError, match=what) as caught:
                place(bytes(here / name), replace)
            assert caught.value.code == 5
    with pytest.raises(ManifestError) as refused:
        place(bytes(here / "full"), Replace.YES)
    assert refused.value.code == 6


def test_a_tree_of_ours_is_good_only_if_it_is_to_be_replaced(here: Path) -> None:
    (here / "env").mkdir()
    fill(here / "env", "old")
    assert place(bytes(here / "env"), Replace.YES) == place(bytes(here / "env"), Replace.IF_THERE)
    with pytest.raises(OutputError, match=r"not an empty directory: \.pack, bin, empty, lib"):
        place(bytes(here / "env"))


def test_only_what_is_ours_still_names_what_is_in_the_way(here: Path) -> None:
    """A directory that holds nothing but lost+found is empty for a mount point, and cannot be replaced elsewhere."""
    (here / "env/lost+found").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"not an empty directory: lost\+found"):
        land(here / "env")
    assert names(here) == ["env", "env/lost+found"]


# Every way, interrupted anywhere


@dataclass(frozen=True)
class Way:
    """How a tree can come to its target: what is there before, and by which means."""

    before: str = ""  # "", "empty" or "old"
    inside: bool = False
    marked: bool = False
    exchange: bool = True

    def prepare(self, target: Path) -> None:
        target.parent.mkdir()
        if self.before:
            target.mkdir()
            target.chmod(0o2750)
        if self.before == "old":
            fill(target, "old")
        if self.inside:
            (target / "lost+found").mkdir()

    def go(self, target: Path) -> None:
        # The one that a script makes, and what its removal costs, is no part of this.
        replace = Replace.YES if self.before == "old" else Replace.NO
        script = bytes(target / ".pack-staging/script") if self.inside else None
        with opened(bytes(target), script, replace) as way:
            fill(Path(os.fsdecode(way.tree)), "new")
            way.appear(self.marked)
            if self.marked:
                (target / "made-by-hook").touch()
                (target / "made-by-hook").unlink()
            way.settle()


WAYS = {
    "to where nothing is": Way(),
    "to where nothing is, with a hook": Way(marked=True),
    "to an empty directory": Way("empty"),
    "to an empty directory, with a hook": Way("empty", marked=True),
    "to an empty directory, without exchange": Way("empty", marked=True, exchange=False),
    "in the place of another": Way("old", marked=True),
    "in the place of another, without exchange": Way("old", marked=True, exchange=False),
    "into a mount point": Way("empty", inside=True),
    "into a mount point, with a hook": Way("empty", inside=True, marked=True),
    "in the place of another in a mount point": Way("old", inside=True, marked=True),
}  # fmt: skip


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    found = WAYS[request.param]
    if not found.exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    # A script's directory, which it would lock, too.
    monkeypatch.setattr(
        workplace, "_locked", lambda path, name=b"", real=workplace._locked: real(path, name) if name else -1
    )
    return found


def both(way: Way, here: Path) -> tuple[dict[str, tuple[object, ...]], dict[str, tuple[object, ...]], int]:
    """Describe a target before and after, and count the calls between."""
    way.prepare(here / "undisturbed/env")
    before = shape(here / "undisturbed/env", times=False)
    count = len(moments(lambda: way.go(here / "undisturbed/env")))
    after = shape(here / "undisturbed/env", times=False)
    assert ".installing" not in after
    assert after["bin/tool"][-1] == ("bin/tool", b"new")
    assert "lib/old" not in after
    assert os.listdir(here / "undisturbed") == ["env"]
    return before, after, count


def test_killed_anywhere_the_next_run_finds_the_old_or_the_new(way: Way, here: Path) -> None:
    before, after, count = both(way, here)
    seen: list[bool] = []
    for number in range(1, count + 1):
        target = here / f"k{number}/env"
        way.prepare(target)
        assert killed(lambda target=target: way.go(target), number)  # type: ignore[misc]
        looked_at(target, way.inside)
        found = shape(target, times=False)
        assert found in (before, after), f"killed before call {number} of {count}"
        seen.append(found == after)
        assert os.listdir(target.parent) == (["env"] if target.exists() else [])
    assert seen == sorted(seen), "from one moment on it is the new one"
    assert seen[-1], "the last calls remove what is not needed any more"


def test_killed_while_it_takes_back_what_a_killed_one_did(way: Way, here: Path) -> None:
    way.prepare(here / "first/env")
    before = shape(here / "first/env", times=False)

    def die(target: Path) -> None:
        child = os.fork()
        if child == 0:
            replace = Replace.YES if way.before == "old" else Replace.NO
            with opened(bytes(target), bytes(target / ".pack-staging/s") if way.inside else None, replace) as landing:
                fill(Path(os.fsdecode(landing.tree)), "new")
                landing.appear(True)
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert (target / ".installing").exists()

    die(here / "first/env")
    for number in range(1, len(moments(lambda: looked_at(here / "first/env", way.inside))) + 1):
        target = here / f"b{number}/env"
        way.prepare(target)
        die(target)
        assert killed(lambda target=target: looked_at(target, way.inside), number)  # type: ignore[misc]
        looked_at(target, way.inside)
        for path in target.parent.glob(".env.pack-*"):
            assert os.listdir(path) in (["owner"], ["lock", "owner"], ["owner", "lock"]), "of this living process"
            workplace.discard(bytes(path))
        workplace.discard(bytes(target / ".pack-staging"))
        assert shape(target, times=False) == before, f"killed before call {number}"
        assert os.listdir(target.parent) == (["env"] if way.before else [])


def test_failing_anywhere_it_is_the_old_or_the_new_at_once(way: Way, here: Path) -> None:
    before, after, count = both(way, here)
    for number in range(1, count + 1):
        target = here / f"f{number}/env"
        way.prepare(target)
        try:
            failing(lambda target=target: way.go(target), number, OSError(errno.EIO, "Input/output error"))  # type: ignore[misc]
        except OSError as error:
            assert error.errno == errno.EIO
        found = shape(target, times=False)
        if os.listdir(target.parent) not in (["env"], []) or ".pack-staging" in found:
            looked_at(target, way.inside)  # it was the clearing up that failed
            found = shape(target, times=False)
        assert found in (before, after), f"call {number} of {count} failed"
        assert os.listdir(target.parent) == (["env"] if target.exists() else [])


def test_a_signal_anywhere_leaves_the_old_or_the_new(way: Way, here: Path) -> None:
    before, after, count = both(way, here)

    class Signalled(BaseException):
        pass

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the program does
        raise Signalled

    kept = signal.getsignal(signal.SIGTERM)
    try:
        for number in range(1, count + 1):
            target = here / f"s{number}/env"
            way.prepare(target)
            signal.signal(signal.SIGTERM, handler)
            try:
                with signalled_before(number):
                    way.go(target)
            except Signalled:
                pass
            assert shape(target, times=False) in (before, after), f"before call {number} of {count}"
            assert os.listdir(target.parent) == (["env"] if target.exists() else [])
    finally:
        signal.signal(signal.SIGTERM, kept)


def signalled_before(number: int) -> AbstractContextManager[None]:
    # To this thread: of several, as in a worker of pytest, one that blocks nothing would take it.
    return counting(lambda at, name: signal.raise_signal(signal.SIGTERM) if at == number else None)


def test_a_hook_that_fails_brings_back_what_was_there(way: Way, here: Path) -> None:
    target = here / "hook/env"
    way.prepare(target)
    before = shape(target)

    def hook() -> None:
        assert (target / ".installing").exists()
        assert (target / "bin/tool").read_text() == "new"
        assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, ()), "it can be ended"
        (target / "litter").mkdir()
        raise GIVE_UP

    replace = Replace.YES if way.before == "old" else Replace.NO
    with pytest.raises(RuntimeError):
        land(target, way.inside, replace, marked=True, hook=hook)
    assert shape(target) == before
    assert os.listdir(target.parent) == (["env"] if way.before else [])
    land(target, way.inside, replace)
    assert (target / "bin/tool").read_text() == "new"
    assert "lib/old" not in names(target)


def test_a_run_that_clears_and_then_fails_itself_leaves_what_was_there(way: Way, here: Path) -> None:
    """Two trees that were never complete in one workplace."""
    before, _, count = both(way, here)
    target = here / "twice/env"
    way.prepare(target)
    number = next(n for n in range(count, 0, -1) if not _came_through(way, target, n))
    assert number

    def fail() -> None:
        raise GIVE_UP

    with pytest.raises(RuntimeError):
        land(target, way.inside, Replace.YES if way.before == "old" else Replace.NO, marked=True, hook=fail)
    assert shape(target, times=False) == before
    assert os.listdir(target.parent) == (["env"] if way.before else [])


def _came_through(way: Way, target: Path, number: int) -> bool:
    """Kill a run; say whether it left nothing that is not complete."""
    assert killed(lambda: way.go(target), number)
    if not (target / ".installing").exists() and "lib/new" in names(target):
        for path in target.parent.iterdir():
            workplace.discard(bytes(path))
        target.parent.rmdir()
        way.prepare(target)
        return True
    return False


# Two at once


def test_two_that_replace_one_tree(here: Path) -> None:
    target = here / "env"
    target.mkdir()
    fill(target, "old")

    def second() -> None:
        with pytest.raises(OutputError, match="another installation is at work there"):
            land(target, replace=Replace.YES)

    with opened(bytes(target), None, Replace.YES) as way:
        second()
        fill(Path(os.fsdecode(way.tree)), "new")
        second()
        way.appear(True)
        second()  # while its hook runs
        with pytest.raises(OutputError, match="another installation is at work there"):
            land(target)
        way.settle()
    assert (names(here)[0], (target / "bin/tool").read_text(), os.listdir(here)) == ("env", "new", ["env"])


@pytest.mark.parametrize("inside", [False, True])
def test_two_that_want_one_free_place(inside: bool, here: Path) -> None:
    target = here / "env"
    if inside:
        target.mkdir()
    with pytest.raises(OutputError), stage(target, inside) as script, opened(bytes(target), bytes(script)) as way:
        fill(Path(os.fsdecode(way.tree)), "first")
        if inside:
            with pytest.raises(OutputError, match="another installation is at work there"):
                land(target, inside)
            (target / "somebody").touch()
        else:
            land(target)
        way.appear()
    assert names(target)[0] == ("somebody" if inside else ".pack")
    assert os.listdir(here) == ["env"]


def test_what_somebody_puts_into_the_empty_directory_meanwhile_stays(here: Path) -> None:
    target = here / "env"
    target.mkdir()
    with pytest.raises(OutputError, match="not an empty directory: mine"), opened(bytes(target)) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        (target / "mine").write_text("x")
        way.appear(True)
    assert (names(here), (target / "mine").read_text()) == (["env", "env/mine"], "x")


@pytest.mark.parametrize("what", ["a symlink", "a file", "a tree"])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("was", ["nothing", "an empty directory"])
def test_what_takes_the_place_meanwhile_stays(what: str, marked: bool, was: str, here: Path) -> None:
    target, outside = here / "env", here / "outside"
    outside.mkdir()
    if was != "nothing":
        target.mkdir()
    with pytest.raises(OutputError), opened(bytes(target)) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        if was != "nothing":
            target.rmdir()
        if what == "a symlink":
            target.symlink_to(outside)
        elif what == "a file":
            target.touch()
        else:
            target.mkdir()
            (target / "x").touch()
        before = shape(here / "env", times=False) if what == "a tree" else target.lstat().st_ino
        way.appear(marked)
    assert before == (shape(here / "env", times=False) if what == "a tree" else target.lstat().st_ino)
    assert os.listdir(outside) == []
    assert sorted(os.listdir(here)) == ["env", "outside"]


def test_a_lock_that_was_taken_on_what_is_replaced_since_is_taken_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = here / "env"
    target.mkdir()
    flock = fcntl.flock
    taken: list[int] = []

    def late(descriptor: int, how: int) -> None:
        if not taken:
            target.rename(here / "before")
            target.mkdir()
        taken.append(os.fstat(descriptor).st_ino)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with landing.held(bytes(target)):
        assert taken[-1] == target.stat().st_ino
    assert len(taken) == 2


def test_locks_that_there_are_none_of_hinder_nobody(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    (here / "env").mkdir()
    fill(here / "env", "old")
    land(here / "env", replace=Replace.YES, marked=True)
    assert (here / "env/bin/tool").read_text() == "new"
    assert os.listdir(here) == ["env"]


@contextmanager
def nothing_held(target: bytes) -> Iterator[None]:
    yield


def test_two_that_no_lock_holds_back(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds that what it replaced is not complete either puts that back, and leaves."""
    monkeypatch.setattr(landing, "held", nothing_held)
    target = here / "env"
    target.mkdir()
    fill(target, "old")
    with opened(bytes(target), None, Replace.YES) as first, opened(bytes(target), None, Replace.YES) as second:
        fill(Path(os.fsdecode(first.tree)), "first")
        fill(Path(os.fsdecode(second.tree)), "second")
        second.appear(True)
        with pytest.raises(OutputError, match="another installation is at work there"):
            first.appear(True)
        assert (target / "bin/tool").read_text() == "second"
        second.settle()
        with pytest.raises(OutputError, match="another installation is at work there"):
            first.settle()
    assert (target / "bin/tool").read_text() == "second"
    assert os.listdir(here) == ["env"]


@pytest.mark.parametrize("inside", [False, True])
def test_who_was_robbed_does_not_declare_what_is_there_complete(inside: bool, here: Path) -> None:
    target = here / "env"
    target.mkdir()
    mine = Marker(Phase.HERE, b".env.pack-abcdefgh", False)
    refused = pytest.raises(OutputError, match="another installation is at work there")
    with refused, stage(target, inside) as script, opened(bytes(target), bytes(script)) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        way.appear(True)
        if not inside:
            target.rename(here / "robbed")
            target.mkdir()
        (target / ".installing").write_bytes(incomplete.dump(mine))
        way.settle()
    assert incomplete.load(bytes(target)) == mine
    assert sorted(os.listdir(here)) == (["env"] if inside else ["env", "robbed"])


# What was left


def test_an_old_tree_that_was_taken_away_is_put_back_though_nobody_asked(here: Path) -> None:
    """Killed between two renames: then a run that finds nothing at the target puts it there, and is refused."""
    target = here / "env"
    work = here / ".env.pack-abcdefgh"
    (work / "old").mkdir(parents=True)
    fill(work / "old", "old")
    (work / "lock").touch()
    with pytest.raises(OutputError, match="not an empty directory"):
        land(target)
    assert os.listdir(here) == ["env"]
    assert (target / "bin/tool").read_text() == "old"


def test_an_old_tree_is_not_thrown_away_for_what_somebody_put_there_since(here: Path) -> None:
    """Which of the two is wanted, only a person can say."""
    target = here / "env"
    work = here / ".env.pack-abcdefgh"
    (work / "old").mkdir(parents=True)
    fill(work / "old", "old")
    (work / "lock").touch()
    target.mkdir()
    land(target)
    assert sorted(os.listdir(here)) == [".env.pack-abcdefgh", "env"]
    assert (work / "old/bin/tool").read_text() == "old"
    land(target, replace=Replace.YES)
    assert os.listdir(here) == ["env"], "there is a tree of ours now, which was complete"


def test_what_was_left_in_the_other_place_goes_too(here: Path) -> None:
    """A user without permission was killed in the target; its owner, who has it, works beside it."""
    target = here / "env"
    for path in (target / ".pack-staging/abcdefgh", here / ".env.pack-abcdefgh"):
        (path / "tree/x").mkdir(parents=True)
        (path / "lock").touch()
    land(target)
    assert os.listdir(here) == ["env"]
    assert ".pack-staging" not in names(target)


def test_a_tree_that_was_removed_by_hand_while_it_was_incomplete(here: Path) -> None:
    """What it replaced was kept for it, and is there again."""
    target = here / "env"
    target.mkdir()
    fill(target, "old")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        with opened(bytes(target), None, Replace.YES) as way:
            fill(Path(os.fsdecode(way.tree)), "new")
            way.appear(True)
            die()
    os.waitpid(child, 0)
    assert (target / "bin/tool").read_text() == "new"
    workplace.discard(bytes(target))
    looked_at(target, False)
    assert (target / "bin/tool").read_text() == "old"
    assert os.listdir(here) == ["env"]


def test_a_tree_that_was_moved_while_it_was_incomplete(here: Path) -> None:
    """Nothing is lost: the new one says what it is, the old one is where it was put."""
    target = here / "env"
    target.mkdir()
    fill(target, "old")
    child = os.fork()
    if child == 0:
        with opened(bytes(target), None, Replace.YES) as way:
            fill(Path(os.fsdecode(way.tree)), "new")
            way.appear(True)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (here / "elsewhere").mkdir()
    moved = target.rename(here / "elsewhere/env")
    with pytest.raises(OutputError, match="what it replaced is no longer in"):
        looked_at(moved, False)
    assert (moved / "bin/tool").read_text() == "new"
    looked_at(target, False)
    assert (target / "bin/tool").read_text() == "old"


def test_a_damaged_marker_stops_every_run(here: Path) -> None:
    target = here / "env"
    target.mkdir()
    (target / ".installing").write_text("{")
    for inside in (False, True):
        with pytest.raises(OutputError, match="is damaged"):
            land(target, inside, Replace.IF_THERE)
    assert names(here) == ["env", "env/.installing"]


def test_undoing_that_fails_keeps_what_was_replaced(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = here / "env"
    target.mkdir()
    fill(target, "old")
    before = shape(target)
    back = incomplete.back

    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError, match="Read-only"), opened(bytes(target), None, Replace.YES) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        way.appear(True)
        monkeypatch.setattr(incomplete, "back", fail)
        raise GIVE_UP
    assert (target / ".installing").exists()
    monkeypatch.setattr(incomplete, "back", back)
    looked_at(target, False)
    assert shape(target) == before
    assert os.listdir(here) == ["env"]


# Whose it is


def acl() -> bytes:
    """An ACL that lets the user 1234 read and enter, as the system keeps it."""
    entries = [(1, 7, 0xFFFFFFFF), (2, 5, 1234), (4, 5, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize("before", ["empty", "old"])
def test_the_root_keeps_mode_group_and_acl(before: str) -> None:
    with open_directory() as here:
        target = here / "env"
        target.mkdir()
        if before == "old":
            fill(target, "old")
        target.chmod(0o2750)
        if os.geteuid() == 0:
            os.chown(target, 1234, 4321)
            target.chmod(0o2750)
        try:
            os.setxattr(target, "system.posix_acl_access", acl())
        except OSError as error:
            assert error.errno == errno.ENOTSUP
        facts = target.stat()

        def what() -> object:
            xattrs = {name: os.getxattr(target, name) for name in os.listxattr(target)}
            status = target.stat()
            return (status.st_mode, status.st_uid, status.st_gid, xattrs)

        kept = what()
        land(target, replace=Replace.IF_THERE)
        assert what() == kept
        assert target.stat().st_ino != facts.st_ino
        land(target, replace=Replace.YES, gid=os.getegid())
        assert stat.S_IMODE(target.stat().st_mode) & 0o7000 == 0o2000
        assert target.stat().st_gid == os.getegid(), "what was asked for goes before what was there"


@pytest.mark.parametrize("before", ["", "empty"])
def test_a_group_is_given_to_the_root(before: str, here: Path) -> None:
    target = here / "env"
    if before:
        target.mkdir()
        target.chmod(0o700)
    group = 4321 if os.geteuid() == 0 else os.getegid()
    land(target, gid=group)
    assert (target.stat().st_gid, stat.S_IMODE(target.stat().st_mode)) == (group, 0o2700 if before else 0o2755)


@pytest.mark.parametrize("marked", [False, True])
def test_an_empty_directory_of_somebody_else_is_replaced_where_that_is_permitted(marked: bool) -> None:
    """Its directory may be written: then it may be removed, but not moved to where it would be kept."""
    with open_directory() as here:
        here.chmod(0o777)
        (here / "env").mkdir()
        with nobody():
            land(here / "env", marked=marked)
            assert (here / "env/bin/tool").read_text() == "new"
        assert os.listdir(here) == ["env"]


@pytest.mark.parametrize("mode", [0o555, 0o755])
def test_another_user_with_read_only_directories(mode: int) -> None:
    with open_directory() as here:
        here.chmod(0o777)
        target = here / "env"
        with nobody():
            target.mkdir()
            fill(target, "old")
            (target / "bin").chmod(0o555)
            target.chmod(mode)
            before = shape(target, times=False)

            def fail() -> None:
                raise GIVE_UP

            with pytest.raises(RuntimeError):
                land(target, replace=Replace.YES, marked=True, hook=fail)
            assert shape(target, times=False) == before
            land(target, replace=Replace.YES, marked=True)
            assert (target / "bin/tool").read_text() == "new"
            assert stat.S_IMODE(target.stat().st_mode) == mode
        assert os.listdir(here) == ["env"]


def test_another_user_where_the_directory_above_is_closed() -> None:
    """Nothing can be made beside the target, so it is done in it."""
    with open_directory() as here:
        target = here / "env"
        target.mkdir()
        if os.geteuid() == 0:
            os.chown(target, NOBODY, NOBODY)
        here.chmod(0o555)
        with nobody():
            with landing.staged(place(bytes(target))) as tree:
                assert tree.startswith(bytes(target / ".pack-staging"))
                fill(Path(os.fsdecode(tree)), "new")
            assert (target / "bin/tool").read_text() == "new"
            with opened(bytes(target), None, Replace.YES) as way:
                fill(Path(os.fsdecode(way.tree)), "newer")
                way.appear()
                way.settle()
            assert (target / "bin/tool").read_text() == "newer"
            assert names(target)[0] == ".pack"
            workplace.discard(bytes(target / "bin"))
        here.chmod(0o755)


# Mount points

_MOUNTED = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from installer_stub.errors import PackError
from installer_stub.landing import Replace, opened
from tests.unit.test_landing import fill, names
target = (*sys.argv, "env")[3]
try:
    with opened(os.path.realpath(os.fsencode(target)), None, Replace[sys.argv[1]]) as way:
        fill(Path(os.fsdecode(way.tree)), sys.argv[2])
        way.appear(True)
        if sys.argv[2] == "bad":
            raise PackError("given up")
        way.settle()
except (PackError, OSError) as error:
    print(error)
print(" ".join(names(Path(target))))
"""


def mounted(here: Path, script: str) -> list[str]:
    """Run a script of the shell in which "land HOW WHAT" puts a tree at env, and mounts vanish by themselves."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    (here / "env").mkdir()
    define = f'land() {{ "$python" -c "$program" "$@"; }}; cd {here} && {script}'
    surroundings = {**os.environ, "python": sys.executable, "program": _MOUNTED}
    done = subprocess.run(
        [need("unshare"), "-m", "sh", "-ec", define], capture_output=True, text=True, env=surroundings, cwd=ROOT
    )
    assert done.stderr == ""
    assert os.listdir(here / "env") == []
    return done.stdout.splitlines()


NEW = ".pack .pack/references.json bin bin/link bin/tool empty lib lib/new"


def test_a_mount_point_is_filled_and_updated(here: Path) -> None:
    script = "mount -t tmpfs none env; mkdir env/lost+found; land NO new; touch env/mine; land YES bad; land YES newer"
    assert mounted(here, script) == [
        f"{NEW} lost+found",
        "given up",
        f"{NEW} lost+found mine",
        f"{NEW.replace('lib/new', 'lib/newer')} lost+found",
    ]


def test_a_directory_that_is_mounted_on_another_of_the_same_file_system(here: Path) -> None:
    """The numbers of file systems do not show it, and a rename is refused."""
    (here / "real").mkdir()
    assert mounted(here, "mount --bind real env; land NO new") == [NEW]
    assert " ".join(names(here / "real")) == NEW


@pytest.mark.parametrize("what", ["mount -t tmpfs none 'env/lib/a b'", "mount --bind data 'env/lib/a b'"])
def test_what_is_mounted_in_a_tree_is_not_emptied_with_it(what: str, here: Path) -> None:
    (here / "data").mkdir()
    (here / "data/precious").touch()
    script = f"mount -t tmpfs none env; land NO new; mkdir 'env/lib/a b'; {what}; land YES newer"
    lines = mounted(here, script)
    assert lines[1] == f"{here}/env: something is mounted in it, at {here}/env/lib/a b."
    assert lines[2].startswith(NEW.replace("lib/new", "lib/a b"))
    assert os.listdir(here / "data") == ["precious"]


def test_in_a_lower_layer_of_an_overlay(here: Path) -> None:
    """As a directory that an earlier step of building an image has made: it can be written over, but not moved."""
    script = (
        "mount -t tmpfs none env; cd env; mkdir -p lower/one lower/two/.pack lower/three upper work all;"
        " chmod 750 lower/one; touch lower/two/.pack/references.json; cd ..;"
        " mount -t overlay -o lowerdir=env/lower,upperdir=env/upper,workdir=env/work none env/all;"
        " land NO new env/all/one; stat -c %a env/all/one; land NO bad env/all/three; stat -c %a env/all/three;"
        " land YES newer env/all/two; ls -A env/all"
    )
    if "overlay" not in Path("/proc/filesystems").read_text():
        pytest.skip("this system has no overlays")
    assert mounted(here, script) == [
        *(NEW, "750", "given up", "", "755"),
        f"[Errno 18] Invalid cross-device link: {str(here / 'env/all/two').encode()!r}",
        *(".pack .pack/references.json", "one", "three", "two"),
    ]


def test_the_marker_is_of_a_workplace_that_is_there(here: Path) -> None:
    target = here / "env"
    with opened(bytes(target)) as way:
        fill(Path(os.fsdecode(way.tree)), "new")
        way.appear(True)
        found = incomplete.load(bytes(target))
        assert found == Marker(Phase.HERE, os.path.basename(way.work), False)
        assert found.around(bytes(target)) == way.work
        way.settle()
    assert incomplete.load(bytes(target)) is None
