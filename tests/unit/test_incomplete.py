"""What an installation says of itself is believed only where it can be, and leads back to what was before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from installer_stub import incomplete, swap, workplace
from installer_stub.errors import OutputError
from installer_stub.incomplete import Before, Marker, Phase, dump, load, marker
from tests.unit.installers import failing, in_memory, killed, moments, names
from tests.unit.other_user import NOBODY, nobody, open_directory


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture
def target(place: Path) -> Path:
    (place / "env").mkdir()
    return place / "env"


def write(target: Path, one: Marker) -> Path:
    (target / ".installing").write_bytes(dump(one))
    return target


# Reading and writing


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", [b".env.pack-abcdefgh", b".\xff%\n.pack-abcdefgh", b"abcdefgh"])
def test_what_is_written_is_read_again(phase: Phase, inside: bool, name: bytes, target: Path) -> None:
    one = Marker(phase, name, inside, Before.TREE)
    assert load(bytes(write(target, one))) == one
    parent = target / ".pack-staging" if inside else target.parent
    assert one.around(bytes(target)) == os.path.join(bytes(parent), name)


def test_it_names_no_path_so_a_tree_may_be_moved_and_seen_under_many_names(place: Path, target: Path) -> None:
    with workplace.workplace(bytes(target), True) as work:
        write(target, marker(Phase.OUT, bytes(target), work))
        (place / "alias").symlink_to(place)
        for seen in (target, place / "alias/env"):
            found = load(bytes(seen))
            assert found is not None
            assert os.path.samefile(found.around(bytes(seen)), work)
        moved = target.rename(place / "moved")
        found = load(bytes(moved))
        assert found is not None
        assert os.path.isdir(found.around(bytes(moved)))
        moved.rename(target)


def test_where_there_is_none(place: Path, target: Path) -> None:
    assert load(bytes(target)) is None
    assert load(bytes(place / "missing")) is None
    (place / "file").touch()
    assert load(bytes(place / "file")) is None


DAMAGED = {
    "nothing": b"",
    "half": b'{"phase": "he',
    "not JSON": b"here\n",
    "not UTF-8": b'{"phase": "\xff"}',
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "no phase": b'{"workplace": "x", "inside": true, "before": "nothing"}',
    "another phase": b'{"phase": "there", "workplace": "x", "inside": true, "before": "nothing"}',
    "no workplace": b'{"phase": "here", "inside": true, "before": "nothing"}',
    "a workplace that is a path": b'{"phase": "here", "workplace": "../x", "inside": false, "before": "a tree"}',
    "an encoded path": b'{"phase": "here", "workplace": "..%2Fx", "inside": false, "before": "a tree"}',
    "an absolute one": b'{"phase": "here", "workplace": "/home", "inside": false, "before": "a tree"}',
    "the directory above": b'{"phase": "here", "workplace": "..", "inside": false, "before": "a tree"}',
    "the directory itself": b'{"phase": "here", "workplace": ".", "inside": false, "before": "a tree"}',
    "none": b'{"phase": "here", "workplace": "", "inside": false, "before": "a tree"}',
    "a workplace that is a number": b'{"phase": "here", "workplace": 7, "inside": false, "before": "a tree"}',
    "nothing of what was before": b'{"phase": "here", "workplace": "x", "inside": true}',
    "something else before": b'{"phase": "here", "workplace": "x", "inside": true, "before": "a house"}',
    "too deep": b"[" * 60_000,
    "too long": b'{"phase": "here", "workplace": "' + b"x" * 100_000 + b'"}',
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_one_is_left_to_a_person(what: str, target: Path) -> None:
    (target / ".installing").write_bytes(DAMAGED[what])
    (target / "file").touch()
    for function in (load, lambda path: incomplete.recover(path, bytes(target))):
        with pytest.raises(
            OutputError, match=r"\.installing: an installation here was not completed.* is damaged"
        ) as caught:
            function(bytes(target))
        assert "remove the file if it is good" in caught.value.tip
    assert names(target) == [".installing", "file"]


@pytest.mark.parametrize("what", ["a symlink", "a dangling symlink", "a FIFO", "a directory", "unreadable"])
def test_what_is_no_file_is_not_read(what: str, place: Path, target: Path) -> None:
    path = target / ".installing"
    (place / "good").write_bytes(dump(Marker(Phase.HERE, b"x", False)))
    make: dict[str, Callable[[], object]] = {
        "a symlink": lambda: path.symlink_to(place / "good"),
        "a dangling symlink": lambda: path.symlink_to(place / "missing"),
        "a FIFO": lambda: os.mkfifo(path),
        "a directory": path.mkdir,
        "unreadable": lambda: path.touch(0),
    }
    make[what]()
    with pytest.raises(OutputError, match="is damaged"):
        load(bytes(target))
    assert os.path.lexists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the file of another user")
def test_one_that_another_user_wrote_is_not_obeyed() -> None:
    """Else who may write into the target could have anything of whoever installs there moved."""
    with open_directory() as place:
        target, victim = place / "env", place / ".env.pack-precious"
        target.mkdir()
        (victim / "old").mkdir(parents=True)
        (victim / "old/x").touch()
        for path in (place, target, victim, victim / "old"):
            path.chmod(0o777)
        write(target, Marker(Phase.HERE, bytes(victim.name.encode()), False, Before.TREE))
        os.chown(target / ".installing", 1234, 1234)
        before = names(place)
        with pytest.raises(OutputError, match="the user with the number 1234 is installing there") as caught:
            incomplete.recover(bytes(target), bytes(place))
        assert "remove" in caught.value.tip
        with nobody(), pytest.raises(OutputError, match="number 1234"):
            load(bytes(target))
        os.chown(target / ".installing", 0, 0)
        with nobody(), pytest.raises(OutputError, match="number 0 is"):
            load(bytes(target))
        os.unlink(target / ".installing")
        (target / ".installing").symlink_to("/etc/passwd")
        os.chown(target / ".installing", NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(OutputError, match=f"number {NOBODY}"):
            load(bytes(target))
        os.unlink(target / ".installing")
        assert names(place) == [name for name in before if name != "env/.installing"]


def test_the_first_one_is_whole_from_the_start(target: Path) -> None:
    """Whoever is killed in the middle leaves none, or one that can be read."""
    one, other = Marker(Phase.OUT, b"x", True), Marker(Phase.OUT, b"y", True)
    (target / "work").mkdir()

    def claim() -> None:
        incomplete.claim(bytes(target), one, bytes(target / "work"))

    for number in range(1, len(moments(claim)) + 1):
        (target / ".installing").unlink()
        assert killed(claim, number)
        if load(bytes(target)) is None:
            claim()
        assert load(bytes(target)) == one
    with pytest.raises(FileExistsError):
        incomplete.claim(bytes(target), other, bytes(target / "work"))
    assert load(bytes(target)) == one


def test_the_first_one_where_there_are_no_hard_links(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    one = Marker(Phase.OUT, b"x", True)
    (target / "work").mkdir()
    incomplete.claim(bytes(target), one, bytes(target / "work"))
    assert load(bytes(target)) == one
    with pytest.raises(FileExistsError):
        incomplete.claim(bytes(target), Marker(Phase.OUT, b"y", True), bytes(target / "work"))
    assert load(bytes(target)) == one


def test_it_goes_from_a_directory_without_write_permission() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            target = place / "env"
            target.mkdir()
            write(target, Marker(Phase.HERE, b"x", False))
            target.chmod(0o555)
            incomplete.clear(bytes(target))
            assert (os.listdir(target), target.stat().st_mode & 0o777) == ([], 0o555)
            incomplete.clear(bytes(target))


def test_what_is_ours_at_the_root_is_no_entry(target: Path) -> None:
    for name in (".installing", ".pack-staging", "lost+found", "bin", ".hidden", "lib"):
        (target / name).mkdir()
    assert incomplete.entries(bytes(target)) == [b".hidden", b"bin", b"lib"]


# Taking back


def recover(target: Path) -> None:
    """Take back as the next run does, in a workplace beside the target."""
    with workplace.workplace(bytes(target), False) as work:
        incomplete.recover(bytes(target), work)


def dead(target: Path, inside: bool = False, old: tuple[str, ...] | None = None) -> Path:
    """Make the workplace of a process that was killed, with an old tree of files."""
    name = "abcdefgh" if inside else f".{target.name}.pack-abcdefgh"
    path = (target / ".pack-staging" if inside else target.parent) / name
    path.mkdir(parents=True, mode=0o700)
    (path / "lock").touch()
    if old is not None:
        (path / "old").mkdir()
        for each in old:
            (path / "old" / each).touch()
    return path


def test_a_tree_that_was_never_complete_goes(place: Path, target: Path) -> None:
    (target / "new").touch()
    write(target, marker(Phase.HERE, bytes(target), bytes(dead(target))))
    recover(target)
    assert os.listdir(place) == [".env.pack-abcdefgh"]


@pytest.mark.parametrize("exchange", [True, False])
def test_an_empty_directory_is_made_again_as_it_was(
    exchange: bool, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree that was put over it has its mode, owner and group."""
    if not exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    if os.geteuid() == 0:
        os.chown(target, 1234, 4321)
    target.chmod(0o2570)
    before = target.stat()
    (target / "new").touch()
    write(target, marker(Phase.HERE, bytes(target), bytes(dead(target)), Before.EMPTY))
    recover(target)
    after = target.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(target) == []
    assert sorted(os.listdir(target.parent)) == [".env.pack-abcdefgh", "env"]


@pytest.mark.parametrize("exchange", [True, False])
def test_what_it_replaced_comes_back(
    exchange: bool, place: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    (target / "new").touch()
    write(target, marker(Phase.HERE, bytes(target), bytes(dead(target, old=("one",))), Before.TREE))
    recover(target)
    assert names(target) == ["one"]


def test_what_it_replaced_is_nowhere(place: Path, target: Path) -> None:
    """Then the new tree is all that there is, and nobody but a person can say whether it is any good."""
    (target / "new").touch()
    path = dead(target)
    write(target, marker(Phase.HERE, bytes(target), bytes(path), Before.TREE))
    for _ in range(2):
        with pytest.raises(OutputError, match=r"what it replaced is no longer in .*\.env\.pack-abcdefgh"):
            recover(target)
        assert names(target) == [".installing", "new"]
        if path.exists():
            workplace.discard(bytes(path))


def test_a_workplace_that_is_gone_is_nobodys(place: Path, target: Path) -> None:
    write(target, Marker(Phase.HERE, b".env.pack-gonegone", False))
    recover(target)
    assert os.listdir(place) == []


def test_where_somebody_is_at_work_nothing_is_taken_back(place: Path, target: Path) -> None:
    for phase in Phase:
        with workplace.workplace(bytes(target), False) as work:
            write(target, marker(phase, bytes(target), work))
            with pytest.raises(OutputError, match="another installation is at work there"):
                recover(target)
        (target / ".installing").unlink()
    assert names(place) == ["env"]


def test_who_completes_it_in_the_meantime_is_not_robbed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marker was read, then it was settled and its lock was free: the marker is read once more."""
    seized = workplace.seized
    (target / "good").touch()
    write(target, marker(Phase.HERE, bytes(target), bytes(dead(target))))

    def completed(around: bytes) -> object:
        incomplete.clear(bytes(target))
        return seized(around)

    monkeypatch.setattr(workplace, "seized", completed)
    recover(target)
    assert names(target) == ["good"]


def test_a_removal_is_gone_on_with_only_by_a_removal(target: Path) -> None:
    one = marker(Phase.REMOVAL, bytes(target), bytes(dead(target)))
    (target / ".pack").mkdir()
    (target / ".pack/references.json").touch()
    write(target, one)
    with pytest.raises(OutputError, match="it was being uninstalled") as caught:
        recover(target)
    assert "Run the uninstallation again" in caught.value.tip
    assert load(bytes(target)) == one
    (target / ".pack/references.json").unlink()
    recover(target)
    assert names(target) == [".pack"], "nothing of it was left but the marker"


@pytest.mark.parametrize("phase", [Phase.OUT, Phase.IN])
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_entries_are_put_back_wherever_the_target_is_by_now(
    phase: Phase, replaces: bool, moved: bool, place: Path, target: Path
) -> None:
    """A mount point may be mounted elsewhere by then."""
    path = dead(target, True, ("one", "two") if replaces else None)
    (target / "lost+found").mkdir()
    if phase is Phase.IN:
        (target / "new").mkdir()
        (target / "one").write_text("the new one")
    elif replaces:
        (target / "three").touch()
    write(target, marker(phase, bytes(target), bytes(path), Before.TREE if replaces else Before.EMPTY))
    if moved:
        target = target.rename(place / "moved")
        path = target / ".pack-staging/abcdefgh"
    recover(target)
    workplace.discard(bytes(target / ".pack-staging"))
    expected = ["lost+found", *(["one", "two"] if replaces else [])]
    assert names(target) == sorted([*expected, "three"] if phase is Phase.OUT and replaces else expected)
    assert not replaces or (target / "one").read_text() == ""


def test_new_entries_stay_where_the_old_ones_are_nowhere(target: Path) -> None:
    path = dead(target, True)
    (target / "new").touch()
    write(target, marker(Phase.IN, bytes(target), bytes(path), Before.TREE))
    with pytest.raises(OutputError, match="what it replaced is no longer in"):
        recover(target)
    assert (target / "new").exists()


@pytest.mark.parametrize("how", ["killed", "failing"])
def test_taking_back_can_be_interrupted_anywhere_and_done_again(how: str, place: Path) -> None:
    """What is back already is not taken for what has to go."""

    def prepared(number: int) -> Path:
        target = place / f"t{number}/env"
        target.mkdir(parents=True)
        path = dead(target, True, ("a", "b", "c"))
        for name in ("a", "n"):
            (target / name).write_text("new")
        return write(target, marker(Phase.IN, bytes(target), bytes(path), Before.TREE))

    def work(target: Path) -> None:
        with workplace.workplace(bytes(target), True) as own:
            incomplete.recover(bytes(target), own)

    whole = prepared(0)
    count = len(moments(lambda: work(whole)))
    assert count > 15
    for number in range(1, count + 1):
        target = prepared(number)
        if how == "killed":
            assert killed(lambda target=target: work(target), number)  # type: ignore[misc]
        else:
            try:
                failing(lambda target=target: work(target), number, OSError(5, "Input/output error"))  # type: ignore[misc]
            except OSError as error:
                assert error.errno == 5
        work(target)
        workplace.discard(bytes(target / ".pack-staging"))
        assert names(target) == ["a", "b", "c"]
        assert (target / "a").read_text() == "", "not the new one"


def test_the_words_for_somebody_at_work(target: Path) -> None:
    error = incomplete.at_work(bytes(target))
    assert (error.code, str(error)) == (5, f"{target}: another installation is at work there.")


def test_a_marker_is_json_for_whoever_looks(target: Path) -> None:
    facts = json.loads((write(target, Marker(Phase.IN, b"abcdefgh", True, Before.TREE)) / ".installing").read_text())
    assert facts == {"phase": "in", "workplace": "abcdefgh", "inside": True, "before": "a tree"}
