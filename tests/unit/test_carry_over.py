"""What somebody added to an environment or changed in it goes over into the new version, and nothing of it is lost."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from installer_stub import admission, carry_over, extract, relocate
from installer_stub.carry_over import ASIDE, CARRIED, GIVEN_UP, Added
from installer_stub.errors import ManifestError, OutputError
from installer_stub.model import Kind
from tests.unit.installers import OLD, Part, changed, directory, environment, in_memory, names, payload, shape
from tests.unit.other_user import NOBODY, nobody, open_directory

assert ctypes.CDLL(None).syscall


@pytest.fixture
def here() -> Iterator[Path]:
    with in_memory() as place:
        yield place


def unpacked(tree: Path, parts: list[Part], prefix: Path) -> Path:
    """Fill a directory with an environment that stands relocated to a prefix."""
    tree.mkdir(parents=True)
    extract.extract(admission.open_archive(BytesIO(payload(parts)).read), bytes(tree), bytes(prefix))
    return tree


ONE = environment(b"one", directory(b"gone"), Part(b"gone/module.py", content=b"x = 1\n"))
TWO = environment(b"two")


class Update:
    """An old tree, and a new one in which nothing was carried yet."""

    def __init__(self, here: Path, one: list[Part] = ONE, two: list[Part] = TWO) -> None:
        self.old = unpacked(here / "env", one, here / "env")
        self.new = unpacked(here / "work/tree", two, here / "env")
        self.before = shape(self.new)

    def carry(self, wish: Added = Added.CARRY) -> list[tuple[str, str, str]]:
        tree = relocate.open_tree(bytes(self.old))
        found = carry_over.carry_over(tree, bytes(self.new), wish)
        assert sorted(os.listdir(self.new.parent)) == ["tree"], "what it needs on the way is gone"
        return [(os.fsdecode(each.path), each.what, each.detail) for each in found]


@pytest.fixture
def update(here: Path) -> Update:
    return Update(here)


def test_of_a_tree_that_nobody_touched_nothing_goes_over(update: Update) -> None:
    assert update.carry() == []
    assert shape(update.new) == update.before


def test_of_one_that_was_never_relocated_neither(here: Path) -> None:
    tree = here / "archived"
    tree.mkdir()
    extract.extract(admission.open_archive(BytesIO(payload(ONE)).read), bytes(tree), None)
    update = Update(here)
    update.old = tree
    assert update.carry() == []


def test_files_and_directories(update: Update) -> None:
    (update.old / "etc/deep/er").mkdir(parents=True)
    (update.old / "etc/deep/er/config").write_text("mine")
    (update.old / "lib/added.py").write_text("x")
    (update.old / "lib/added.py").chmod(0o640)
    os.utime(update.old / "lib/added.py", (5, 5))
    (update.old / os.fsdecode(b"\xff\n")).touch()
    assert update.carry() == [
        ("etc/deep/er/config", CARRIED, ""),
        ("lib/added.py", CARRIED, ""),
        (os.fsdecode(b"\xff\n"), CARRIED, ""),
    ]
    assert (update.new / "lib/added.py").samefile(update.old / "lib/added.py"), "no byte is copied"
    assert (update.new / "etc/deep/er/config").read_text() == "mine"


def test_empty_and_read_only_directories_keep_their_mode_and_time(here: Path) -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            update = Update(place)
            for name, mode in (("empty", 0o750), ("closed/in", 0o555), ("closed", 0o500)):
                (update.old / name).mkdir(parents=True, exist_ok=True)
                if name == "closed/in":
                    (update.old / name / "file").touch()
                (update.old / name).chmod(mode)
            for name in ("closed/in", "closed", "empty"):
                os.utime(update.old / name, (7, 7))
            assert update.carry() == [("closed/in/file", CARRIED, "")]
            for name in ("empty", "closed", "closed/in"):
                one, other = (update.old / name).stat(), (update.new / name).stat()
                assert (one.st_mode, one.st_mtime) == (other.st_mode, other.st_mtime)


def test_what_goes_into_a_directory_of_the_new_version_that_is_read_only() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            update = Update(place, environment(b"one", lib=0o755), environment(b"two", lib=0o555))
            (update.old / "lib/added.py").touch()
            (update.old / "lib/sub").mkdir()
            (update.old / "lib/sub/link").symlink_to("x")
            update.carry()
            assert stat.S_IMODE((update.new / "lib").stat().st_mode) == 0o555
            assert {"lib/added.py", "lib/sub/link"} <= set(names(update.new))


def test_symlinks_are_carried_and_not_followed(update: Update, here: Path) -> None:
    (here / "outside").mkdir()
    (here / "outside/x").touch()
    links: dict[str, str | Path] = {
        "out": here / "outside",
        "dangling": "nowhere",
        "lib/up": "../bin/tool",
        "loop": "loop",
        "to-dir": "lib",
    }
    for name, to in links.items():
        (update.old / name).symlink_to(to)
    assert [what for _, what, _ in update.carry()] == [CARRIED] * len(links)
    for name, to in links.items():
        assert os.readlink(update.new / name) == str(to)
    assert os.listdir(here / "outside") == ["x"]


def test_hard_links_stay_with_each_other(update: Update) -> None:
    (update.old / "data").write_text("x")
    os.link(update.old / "data", update.old / "lib/data")
    os.link(update.old / "lib/mod.py", update.old / "kept.py")
    assert [(path, what) for path, what, _ in update.carry()] == [
        ("data", CARRIED),
        ("kept.py", CARRIED),
        ("lib/data", CARRIED),
    ]
    assert (update.new / "data").samefile(update.new / "lib/data")
    assert (update.new / "kept.py").read_text() == "version = 'one'\n", "somebody wanted it kept"
    assert (update.new / "lib/mod.py").read_text() == "version = 'two'\n"


def test_where_there_are_no_hard_links_it_is_copied(update: Update, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (update.old / "added").write_text("mine")
    (update.old / "added").chmod(0o604)
    monkeypatch.setattr(os, "link", link)
    assert update.carry() == [("added", CARRIED, "")]
    assert (update.new / "added").read_text() == "mine"
    assert stat.S_IMODE((update.new / "added").stat().st_mode) == 0o604


def test_what_no_tree_can_hold_is_listed(update: Update) -> None:
    os.mkfifo(update.old / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(update.old / "lib")
        try:
            bound.bind("socket")
        finally:
            os.chdir(before)
        expected = [("fifo", GIVEN_UP, "it is a FIFO"), ("lib/socket", GIVEN_UP, "it is a socket")]
        assert update.carry() == expected
    assert shape(update.new) == update.before


CACHED = "__pycache__/mod.cpython-311.pyc"


def test_byte_code_of_the_environments_own_sources_is_dropped(update: Update) -> None:
    (update.old / "lib/own.py").touch()
    for name in ("mod.cpython-311", "mod.cpython-311.opt-1", "twin.pypy39", "own.cpython-311", "orphan.cpython-311"):
        (update.old / "lib/__pycache__").mkdir(exist_ok=True)
        (update.old / f"lib/__pycache__/{name}.pyc").touch()
    (update.old / "gone/__pycache__").mkdir()
    (update.old / "gone/__pycache__/module.cpython-311.pyc").touch()
    assert [path for path, _, _ in update.carry()] == [
        "lib/__pycache__/orphan.cpython-311.pyc",
        "lib/__pycache__/own.cpython-311.pyc",
        "lib/own.py",
    ]
    assert "gone" not in names(update.new), "of a module that is gone, nothing stays"


def test_is_compiled() -> None:
    listed = {b"lib/m.py", b"m.py", b"odd\nname/m.py"}
    for path in (b"lib/__pycache__/m.cpython-38.pyc", b"__pycache__/m.x.opt-2.pyc", b"odd\nname/__pycache__/m.y.pyc"):
        assert carry_over.is_compiled(path, listed)
    for path in (b"lib/__pycache__/n.x.pyc", b"lib/m.pyc", b"lib/__pycache__/m.pyc", b"lib/__pycache__/m.x.pyc.txt"):
        assert not carry_over.is_compiled(path, listed)


# What has another version in the new one


@pytest.mark.parametrize("how", ["bytes", "a file with references", "same size", "a name of a group"])
def test_a_changed_file_is_kept_beside_the_new_one(how: str, update: Update) -> None:
    name = {"a file with references": "bin/tool", "a name of a group": "lib/twin.py"}.get(how, "lib/mod.py")
    path = update.old / name
    content = path.read_text()
    path.unlink()
    path.write_text(content.replace("one", "1ne") if how == "same size" else content + "# mine\n")
    if how == "same size":
        os.utime(path, (9, 9))
    mine = path.read_text()
    aside = f"{name}.before-update"
    assert update.carry() == [(name, ASIDE, aside)]
    assert (update.new / aside).read_text() == mine
    assert "two" in (update.new / name).read_text()


def test_a_file_of_which_only_the_time_changed_is_no_change(update: Update) -> None:
    for name in ("lib/mod.py", "bin/tool", "conda-meta/history"):
        os.utime(update.old / name, (9, 9))
    assert update.carry() == []


def test_a_changed_file_that_the_new_version_does_not_have(update: Update) -> None:
    (update.old / "gone/module.py").write_text("mine")
    (update.old / "gone").chmod(0o700)
    assert update.carry() == [("gone/module.py", CARRIED, "")]
    assert (update.new / "gone/module.py").read_text() == "mine"
    assert stat.S_IMODE((update.new / "gone").stat().st_mode) == 0o700


def test_an_added_file_of_a_name_that_the_new_version_brings(here: Path) -> None:
    update = Update(here, ONE, [*TWO, Part(b"lib/new", content=b"theirs")])
    (update.old / "lib/new").write_text("mine")
    assert update.carry() == [("lib/new", ASIDE, "lib/new.before-update")]
    assert ((update.new / "lib/new").read_text(), (update.new / "lib/new.before-update").read_text()) == (
        "theirs",
        "mine",
    )


def test_what_was_kept_at_the_last_update_is_kept_again(update: Update) -> None:
    (update.old / "bin/tool").write_text("the second time")
    (update.old / "bin/tool.before-update").write_text("the first time")
    assert [detail or path for path, _, detail in update.carry()] == [
        "bin/tool.before-update",
        "bin/tool.before-update.before-update",
    ]
    contents = [(update.new / name).read_text() for name in names(update.new) if name.startswith("bin/tool.")]
    assert contents == ["the second time", "the first time"]


def test_a_third_of_one_name_is_listed_as_left_behind(here: Path) -> None:
    both = [Part(b"a", content=b"theirs"), Part(b"a.before-update", content=b"theirs")]
    update = Update(here, ONE, [*TWO, *both])
    (update.old / "a").write_text("mine")
    assert update.carry() == [("a", GIVEN_UP, "there is a a.before-update already")]


@pytest.mark.parametrize("length", [241, 242, 255])
def test_the_longest_names_are_cut_for_it(length: int, here: Path) -> None:
    name = "n" * length
    update = Update(here, ONE, [*TWO, Part(name.encode(), content=b"theirs")])
    (update.old / name).write_text("mine")
    ((path, what, aside),) = update.carry()
    assert (path, what, len(aside)) == (name, ASIDE, min(255, length + len(".before-update")))
    assert (update.new / aside).read_text() == "mine"


NOW = {
    "a file": Part(b"gone", content=b"theirs"),
    "a symlink to a directory": Part(b"gone", Kind.SYMLINK, target=b"lib", mode=0o777),
    "a symlink that leads out": Part(b"gone", Kind.SYMLINK, target=b"../outside", mode=0o777),
    "a dangling symlink": Part(b"gone", Kind.SYMLINK, target=b"nowhere", mode=0o777),
}  # fmt: skip


@pytest.mark.parametrize("what", NOW)
def test_a_directory_that_is_something_else_now_gets_another_name(what: str, here: Path) -> None:
    """Nothing is written through a link of the new version."""
    (here / "outside").mkdir()
    (here / "work/outside").mkdir(parents=True)
    update = Update(here, ONE, [*TWO, NOW[what]])
    (here / "work/outside").rename(here / "outside2")
    (update.old / "gone/deep").mkdir()
    (update.old / "gone/deep/mine").write_text("mine")
    (update.old / "gone/module.py").write_text("mine, too")
    found = {path: (kind, aside) for path, kind, aside in update.carry()}
    assert found == {
        "gone/deep/mine": (ASIDE, "gone.before-update/deep/mine"),
        "gone/module.py": (ASIDE, "gone.before-update/module.py"),
    }
    assert (update.new / "gone.before-update/deep/mine").read_text() == "mine"
    assert os.listdir(here / "outside") == os.listdir(here / "outside2") == []
    assert {name for name in names(update.new) if name.startswith("lib")} == {
        name for name in update.before if name.startswith("lib")
    }


def test_both_names_are_taken_by_what_is_no_directory(here: Path) -> None:
    second = Part(b"gone.before-update", Kind.SYMLINK, target=b"lib", mode=0o777)
    update = Update(here, ONE, [*TWO, NOW["a file"], second])
    (update.old / "gone/mine").write_text("mine")
    why = "the new version has something else where its directory was"
    assert update.carry() == [("gone/mine", GIVEN_UP, why)]


@pytest.mark.parametrize("now", ["a symlink", "a file"])
def test_a_directory_that_somebody_made_something_else_of(now: str, update: Update, here: Path) -> None:
    (here / "outside").mkdir()
    for path in (update.old / "lib").iterdir():
        (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
    (update.old / "lib").rmdir()
    if now == "a symlink":
        (update.old / "lib").symlink_to(here / "outside")
    else:
        (update.old / "lib").write_text("mine")
    assert update.carry() == [("lib", ASIDE, "lib.before-update")]
    assert (update.new / "lib/mod.py").exists()
    assert (update.new / "lib.before-update").is_symlink() == (now == "a symlink")


def test_a_file_that_somebody_made_a_directory_of(update: Update) -> None:
    (update.old / "bin/tool").unlink()
    (update.old / "bin/tool").mkdir()
    (update.old / "bin/tool/mine").touch()
    assert update.carry() == [("bin/tool/mine", ASIDE, "bin/tool.before-update/mine")]
    assert (update.new / "bin/tool").is_file()


def test_a_symlink_that_somebody_led_elsewhere(update: Update) -> None:
    (update.old / "lib/link").unlink()
    (update.old / "lib/link").symlink_to("empty")
    assert update.carry() == [("lib/link", ASIDE, "lib/link.before-update")]


def test_what_somebody_removed_comes_back(update: Update) -> None:
    (update.old / "lib/mod.py").unlink()
    assert update.carry() == []
    assert (update.new / "lib/mod.py").exists()


# What is nobody's


def test_what_packing_and_installing_put_there_is_not_carried(update: Update) -> None:
    (update.old / ".installing").touch()
    (update.old / ".pack-staging").mkdir()
    (update.old / ".pack-staging/x").touch()
    (update.old / ".pack/lock").touch()
    (update.old / "lost+found").mkdir()
    (update.old / "bin/activate").write_text("changed")
    assert update.carry() == []
    assert shape(update.new) == update.before


def test_to_drop_lists_and_leaves(update: Update) -> None:
    (update.old / "etc").mkdir()
    (update.old / "etc/mine").touch()
    (update.old / "bin/tool").write_text("changed")
    os.mkfifo(update.old / "fifo")
    assert update.carry(Added.DROP) == [("bin/tool", GIVEN_UP, ""), ("etc/mine", GIVEN_UP, ""), ("fifo", GIVEN_UP, "")]
    assert shape(update.new) == update.before


def refusal(update: Update) -> None:
    with nobody(), pytest.raises(OutputError, match="private: cannot be carried over into the new version: ") as caught:
        update.carry()
    assert caught.value.code == 5
    assert "--added drop" in caught.value.tip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the files of another user")
def test_what_cannot_be_read_is_not_lost_in_silence() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            update = Update(place)
            (update.old / "private").mkdir(mode=0o777)
        os.chown(update.old / "private", 1234, 1234)
        (update.old / "private").chmod(0o700)
        refusal(update)
        with nobody():
            assert update.carry(Added.DROP) == [("private", GIVEN_UP, "Permission denied")]
        (update.old / "private").rmdir()
        (update.old / "private").write_text("x")
        os.chown(update.old / "private", 1234, 1234)
        (update.old / "private").chmod(0o600)
        refusal(update)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_to_others_what_is_theirs(update: Update) -> None:
    (update.old / "theirs").mkdir()
    (update.old / "theirs/file").touch()
    (update.old / "theirs/link").symlink_to("x")
    for path in (update.old / "theirs", *(update.old / "theirs").iterdir()):
        os.chown(path, NOBODY, 1234, follow_symlinks=False)
    (update.old / "theirs").chmod(0o2770)
    update.carry()
    for name in ("theirs", "theirs/file", "theirs/link"):
        one, other = (update.old / name).lstat(), (update.new / name).lstat()
        assert (one.st_uid, one.st_gid, one.st_mode) == (other.st_uid, other.st_gid, other.st_mode)


def test_a_damaged_list_is_refused(update: Update) -> None:
    """Then nobody can say what was added."""
    path = update.old / ".pack/files.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ManifestError, match=r"files\.json is damaged"):
        update.carry()


def test_references_are_not_what_is_compared(here: Path) -> None:
    """A file in its relocated form is not changed; one that was edited is, also where it no longer names the prefix."""
    assert any(OLD in part.content for part in ONE)
    update = Update(here, changed(ONE, b"lib/mod.py", content=OLD + b"/x " + OLD + b"\n"))
    assert update.carry() == []
    (update.old / "lib/mod.py").write_text("nothing\n")
    assert [path for path, _, _ in update.carry()] == ["lib/mod.py", "lib/twin.py"]
