"""An installer leaves its environment at the target, or everything as it was: the whole story, from file to tree."""

from __future__ import annotations

import ctypes
import errno
import grp
import json
import os
import signal
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.selection import cases
from installer_stub import install, landing, relocate, trailer, verify, workplace
from installer_stub.carry_over import ASIDE, CARRIED, GIVEN_UP, Added
from installer_stub.errors import (
    HookFailed,
    ManifestError,
    NoRoom,
    OutputError,
    PackError,
    TargetRefused,
    UsageError,
    VerifyFailed,
)
from installer_stub.install import Order, Talk
from installer_stub.landing import Replace
from installer_stub.model import Field, Fill, Force, Reference, Spelling
from installer_stub.target import Demand
from installer_stub.tarstream import ArchiveDamaged
from tests.unit.installers import (
    FACTS,
    OLD,
    Part,
    changed,
    environment,
    failing,
    in_memory,
    installed,
    killed,
    moments,
    names,
    noise,
    ordered,
    packed,
    payload,
    says,
    shape,
    stage,
    uninstalled,
    updated,
    whole,
    write,
)
from tests.unit.other_user import nobody, open_directory

assert ctypes.CDLL(None).syscall
ONE, TWO = environment(b"one"), environment(b"two", Part(b"lib/new.py"))


@pytest.fixture
def here() -> Iterator[Path]:
    """A directory for targets, of which all that is in it is looked at."""
    with in_memory() as place:
        yield place


@pytest.fixture
def files() -> Iterator[Path]:
    """A directory for installers, and what hooks write."""
    with in_memory() as place:
        yield place


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def one(files: Path) -> Path:
    return write(files / "one.sh", ONE)


@pytest.fixture
def two(files: Path) -> Path:
    return write(files / "two.sh", TWO)


def sound(tree: Path) -> bool:
    """Whether an environment is as its manifest says, where it stands."""
    found = relocate.open_tree(bytes(tree))
    damage = [each for each in verify.verify(found) if each.what not in verify.NO_DAMAGE]
    return relocate.is_current(found) and damage == []


# Fresh


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_environment_is_installed(form: str, jobs: int, here: Path, files: Path) -> None:
    installer = files / "env.sh"
    installer.write_bytes(whole(packed(payload([*ONE, noise(5 << 20)]), form), stub=b"a stub"))
    done = installed(installer, here / "env", jobs=jobs)
    assert says(here / "env") == f"{here}/env one\n"
    assert sound(here / "env")
    assert (done.prefix, done.replaced, done.written, done.findings) == (bytes(here / "env"), False, 1, ())
    assert os.listdir(here) == ["env"]
    assert not (here / "env/.installing").exists()


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, " a b ", "-rf", ".hidden", "\udcff", "[a]*?"])
def test_targets_of_any_name(name: str, here: Path, files: Path) -> None:
    one = write(files / "one.sh", ONE, {"post-install": '#!/bin/sh\n[ "$CONDA_PREFIX" = "$PREFIX" ]\n'})
    for install_it in (installed, updated):
        install_it(one, here / name)
        assert sound(here / name)
        assert os.listdir(here) == [name]
    assert uninstalled(one, here / name) == []
    assert os.listdir(here) == []


def test_it_can_be_put_there_as_archived(here: Path, files: Path) -> None:
    """Without hooks: nothing in it is for this place yet."""
    installer = write(files / "env.sh", ONE, dict.fromkeys(("pre-install", "post-install"), "exit 1"))
    with stage(here / "env") as staging:
        done = install.extract_only(ordered(installer, here / "env", staging), Talk())
    assert (done.written, "/opt/placeholder" in (here / "env/bin/tool").read_text()) == (0, True)
    assert not relocate.is_current(relocate.open_tree(bytes(here / "env")))
    assert os.listdir(here) == ["env"]


def test_the_list_of_what_is_in_it(here: Path, one: Path) -> None:
    with stage(here / "env") as staging:
        entries = install.listed(ordered(one, here / "env", staging)).entries
    assert [entry.path for entry in entries] == [part.path for part in ONE]
    assert os.listdir(here) == []


REFUSED: dict[str, tuple[str, Mapping[str, Any], type[PackError], int]] = {
    "a target that exists": ("full", {}, OutputError, 5),
    "a target that is no environment of ours": ("full", {"replace": Replace.YES}, ManifestError, 6),
    "a target in a directory that is missing": ("missing/env", {}, OutputError, 5),
    "a target with a colon": ("a:b", {}, TargetRefused, 7),
    "a target with a newline": ("a\nb", {}, TargetRefused, 7),
    "a target with a dollar sign": ("$HOME", {}, TargetRefused, 7),
    "nothing to update": ("none", {"replace": Replace.YES}, ManifestError, 6),
    "a group that nobody knows": ("env", {"group": "no-such-group"}, UsageError, 2),
    "a group with another digit": ("env", {"group": "\u00b2"}, UsageError, 2),
    "a group that is too large": ("env", {"group": str(2**32 - 1)}, UsageError, 2),
    "a group that is far too large": ("env", {"group": "9" * 30}, UsageError, 2),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_nothing(what: str, here: Path, one: Path) -> None:
    name, more, error, code = REFUSED[what]
    (here / "full").mkdir()
    (here / "full/x").touch()
    before = shape(here)
    if name.startswith("missing"):
        with stage(here / "x") as staging, pytest.raises(error) as caught:
            install.install(ordered(one, here / name, staging, **more), Talk())
    else:
        with pytest.raises(error) as caught:
            installed(one, here / name, **more)
    assert caught.value.code == code
    assert shape(here) == before


def test_a_target_without_room_is_refused_unless_that_is_permitted(here: Path, files: Path) -> None:
    class Rigid(Part):
        @property
        def references(self) -> tuple[Reference, ...]:
            how = (Field.C_STRING, Spelling.PLAIN, Fill.SLASHES, Force.UNLESS_ALLOWED)
            return (Reference(4, len(OLD), OLD, *how),)

    installer = write(files / "env.sh", [*ONE, Rigid(b"lib/x.so", content=bytes(4) + OLD + b"/share\0")])
    with pytest.raises(NoRoom) as caught:
        installed(installer, here / "env")
    assert caught.value.code == 8
    assert os.listdir(here) == []
    done = installed(installer, here / "env", demand=Demand.ALLOW_UNRELOCATED)
    assert [each.what for each in done.findings] == ["keeps the old path"]
    updated(installer, here / "env", demand=Demand.ALLOW_UNRELOCATED)


# Damage


@pytest.mark.parametrize("form", ["gz", "zst", "tar"])
def test_every_flipped_byte_is_called_damage_and_leaves_nothing(form: str, here: Path, files: Path) -> None:
    """Also where it makes another manifest of the manifest, and whatever that seems to say."""
    good = whole(packed(payload(ONE), form))
    installer = files / "env.sh"
    for number in cases(len(form), len(good) // 30):
        at = 30 * number
        installer.write_bytes(good[:at] + bytes([good[at] ^ (1 << number % 8)]) + good[at + 1 :])
        with pytest.raises(VerifyFailed) as caught:
            installed(installer, here / "env")
        assert caught.value.code == 11
        assert os.listdir(here) == [], f"byte {at}"


def test_a_manifest_that_refuses_the_target_is_not_believed_if_it_is_damaged(here: Path, files: Path) -> None:
    good = whole(payload(ONE))
    for damage in (
        good.replace(b'"format":1', b'"format":2').replace(b'"format": 1', b'"format": 2'),
        good.replace(b'"GROW"', b'"KEEP"'),
        good.replace(b".pack/references.json", b".pack/references.jsom", 1),
    ):
        assert damage != good
        (files / "env.sh").write_bytes(damage)
        with pytest.raises(ArchiveDamaged):
            installed(files / "env.sh", here / "env")
    with stage(here / "env") as staging, pytest.raises(ArchiveDamaged):
        install.listed(ordered(files / "env.sh", here / "env", staging))
    assert os.listdir(here) == []


def test_a_payload_that_is_no_archive_of_ours_but_whole(here: Path, files: Path) -> None:
    (files / "env.sh").write_bytes(whole(packed(bytes(10240))))
    with pytest.raises(ManifestError, match="this is no archive of pack"):
        installed(files / "env.sh", here / "env")
    assert os.listdir(here) == []


@pytest.mark.parametrize("cut", [1, 300, 5000])
def test_a_cut_file_leaves_nothing_and_does_not_touch_what_is_incomplete(cut: int, here: Path, two: Path) -> None:
    two.write_bytes(two.read_bytes()[:-cut])
    (here / "env").mkdir()
    (here / "env/.installing").write_text("{")
    before = shape(here)
    with pytest.raises(ArchiveDamaged, match="do not end as they should"):
        installed(two, here / "env")
    assert shape(here) == before


def test_damage_while_updating_leaves_the_old_version(here: Path, one: Path, two: Path) -> None:
    installed(one, here / "env")
    before = shape(here)
    data = two.read_bytes()
    at = len(data) - trailer.SIZE - 100
    two.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ArchiveDamaged):
        updated(two, here / "env")
    assert shape(here) == before


def test_what_the_host_expands_is_held_against_the_manifest(here: Path, files: Path) -> None:
    """Its own hash is of what it was expanded from, and that was checked by the script."""
    installer = write(files / "env.sh", ONE)
    tar = payload(ONE)
    for data, good in (
        (tar, True),
        (tar.replace(b"version = 'one'", b"version = 'two'", 1), False),
        (tar[:-512], False),
    ):
        end = os.memfd_create("tar")
        os.write(end, data)
        os.lseek(end, 0, os.SEEK_SET)
        if good:
            installed(installer, here / "env", expanded=end)
            assert sound(here / "env")
            uninstalled(installer, here / "env")
        else:
            with pytest.raises(ArchiveDamaged):
                installed(installer, here / "env", expanded=end)
        assert os.listdir(here) == []
        os.close(end)


# Updates


def test_an_update_takes_the_place_and_what_was_added_along(here: Path, one: Path, two: Path) -> None:
    target = here / "env"
    installed(one, target)
    (target / "mine").write_text("mine")
    (target / "lib/mod.py").unlink()
    (target / "lib/mod.py").write_text("changed")
    done = updated(two, target)
    assert says(target) == f"{target} two\n"
    assert sound(target)
    assert done.replaced
    told = {(os.fsdecode(each.path), each.what) for each in done.findings}
    assert told == {("mine", CARRIED), ("lib/mod.py", ASIDE)}
    assert (target / "lib/mod.py.before-update").read_text() == "changed"
    assert os.listdir(here) == ["env"]
    done = updated(one, target, added=Added.DROP)
    assert {each.what for each in done.findings} == {GIVEN_UP}
    assert "mine" not in names(target)
    assert sound(target)


def test_force_updates_if_there_is_something_and_installs_otherwise(here: Path, one: Path, two: Path) -> None:
    assert not installed(one, here / "env", replace=Replace.IF_THERE).replaced
    assert installed(two, here / "env", replace=Replace.IF_THERE).replaced
    (here / "full").mkdir()
    (here / "full/x").touch()
    with pytest.raises(OutputError, match="not an empty directory"):
        installed(one, here / "full", replace=Replace.IF_THERE)


@pytest.mark.parametrize("inside", [False, True])
def test_a_hook_that_fails_brings_the_old_version_back(inside: bool, here: Path, files: Path, one: Path) -> None:
    target = here / "env"
    target.mkdir()
    installed(one, target, inside)
    (target / "mine").touch()
    before = shape(target)
    text = '#!/bin/sh\ntouch "$PREFIX/../ran"; mkdir "$PREFIX/litter"; exit 7\n'
    two = write(files / "two.sh", TWO, {"post-install": text})
    with pytest.raises(HookFailed, match="code 7"):
        updated(two, target, inside)
    assert shape(target) == before
    assert sorted(os.listdir(here)) == ["env", "ran"]
    updated(two, target, inside, scripts=False)
    assert sound(target)


def test_a_new_version_that_is_damaged_in_its_place_is_taken_back(
    here: Path, one: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a disk that fails: every file is read where it stands now."""
    target = here / "env"
    installed(one, target)
    before = shape(target)
    appear = landing._Whole.appear

    def damaging(way: landing._Whole, *arguments: object) -> None:
        appear(way, *arguments)  # type: ignore[arg-type]
        (target / "lib/new.py").write_text("x")

    monkeypatch.setattr(landing._Whole, "appear", damaging)
    with pytest.raises(VerifyFailed, match=r"the new version is not as its manifest says, at 'lib/new.py'"):
        updated(two, target)
    assert shape(target) == before


def test_a_damaged_old_version_is_not_guessed_at(here: Path, one: Path, two: Path) -> None:
    installed(one, here / "env")
    (here / "env/.pack/files.json").write_text("{")
    before = shape(here)
    with pytest.raises(ManifestError, match=r"files\.json is damaged"):
        updated(two, here / "env")
    assert shape(here) == before


@pytest.mark.parametrize("seed", [3])
def test_killed_anywhere_the_next_run_installs(seed: int, here: Path, files: Path, one: Path) -> None:
    """With a hook, over an older version to which somebody has added something."""
    two = write(files / "two.sh", TWO, {"post-install": "true\n"})

    def prepared(number: int) -> Path:
        target = here / f"t{number}/env"
        target.parent.mkdir()
        installed(one, target)
        (target / "mine").touch()
        return target

    undisturbed = prepared(0)
    count = len(moments(lambda: updated(two, undisturbed)))
    for number in cases(seed, count):
        target = prepared(number + 1)
        old = shape(target)
        assert killed(lambda target=target: updated(two, target), number + 1)  # type: ignore[misc]
        looking = partial(landing.opened, bytes(target), replace=Replace.YES)
        with pytest.raises(RuntimeError), stage(target) as staging, looking(bytes(staging)):
            raise RuntimeError  # what was left is cleared by now
        assert shape(target) == old or (sound(target) and says(target).endswith(" two\n"))
        updated(two, target)
        assert sound(target)
        assert says(target).endswith(" two\n")
        assert {"mine", "lib/new.py"} <= set(names(target))
        assert os.listdir(target.parent) == ["env"]


def test_failing_anywhere_leaves_the_old_version_or_the_new(here: Path, one: Path, two: Path) -> None:
    def prepared(number: int) -> Path:
        target = here / f"t{number}/env"
        target.parent.mkdir()
        installed(one, target)
        return target

    undisturbed = prepared(0)
    count = len(moments(lambda: updated(two, undisturbed)))
    for number in cases(5, count):
        target = prepared(number + 1)
        old = shape(target)
        words = "ENOSPC" if number % 2 else "EIO"
        error = OSError(getattr(errno, words), os.strerror(getattr(errno, words)))
        try:
            failing(lambda target=target: updated(two, target), number + 1, error)  # type: ignore[misc]
        except OutputError as refused:
            assert ("disk is full" if number % 2 else "input/output error") in str(refused)
            assert shape(target) == old
        else:
            assert sound(target)
        for path in target.parent.glob(".env.pack-*"):
            with workplace.seized(bytes(path)) as is_left:
                assert is_left


# Hooks


def test_hooks_are_told_what_they_were_promised(here: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "#!/bin/sh\nfor name in PREFIX INSTALLER_NAME INSTALLER_VER INSTALLER_PLAT INSTALLER_TYPE INSTALLER_PATH "
        'INSTALLER_UNATTENDED FORCE CONDA_PREFIX; do eval "echo $name=\\${$name-}"; done >"$FILES/${0##*/}"\n'
        'ls -A "$PREFIX" >>"$FILES/${0##*/}" 2>&1; command -v tool >>"$FILES/${0##*/}"; true\n'
    )
    monkeypatch.setenv("FILES", str(files))
    installer = write(files / "env.sh", ONE, dict.fromkeys(("pre-install", "post-install", "pre-uninstall"), text))
    target = here / "env"
    installed(installer, target, unattended=True)
    common = [
        *(f"PREFIX={target}", "INSTALLER_NAME=tools", "INSTALLER_VER=1.0", "INSTALLER_PLAT=linux-64"),
        *("INSTALLER_TYPE=SH", f"INSTALLER_PATH={installer}", "INSTALLER_UNATTENDED=1", "FORCE=0"),
    ]
    before = (files / "pre-install").read_text().splitlines()
    assert before[: len(common)] == common
    assert before[len(common)] == f"CONDA_PREFIX={os.environ.get('CONDA_PREFIX', '')}"
    assert len(before) == len(common) + 2, "nothing is at the target yet, and nothing on PATH"
    after = (files / "post-install").read_text().splitlines()
    expected = [*common, f"CONDA_PREFIX={target}", ".installing", ".pack", "bin", "conda-meta", "lib"]
    assert after == [*expected, f"{target}/bin/tool"]
    uninstalled(installer, target)
    removed = (files / "pre-uninstall").read_text().splitlines()
    assert removed[:6] == common[:6]
    assert removed[6:9] == ["INSTALLER_UNATTENDED=0", "FORCE=0", f"CONDA_PREFIX={target}"]
    assert removed[9:] == [".pack", "bin", "conda-meta", "lib", f"{target}/bin/tool"]


@pytest.mark.parametrize("hook", ["pre-install", "post-install"])
@pytest.mark.parametrize("before", ["nothing", "an empty directory"])
def test_one_that_fails_leaves_what_was_there(hook: str, before: str, here: Path, files: Path) -> None:
    installer = write(files / "env.sh", ONE, {hook: "#!/bin/sh\nexit 3\n"})
    if before != "nothing":
        (here / "env").mkdir(mode=0o700)
    kept = shape(here)
    with pytest.raises(HookFailed, match=f"{hook}: the hook failed: it ended with code 3"):
        installed(installer, here / "env")
    assert shape(here) == kept


def test_without_scripts_none_runs(here: Path, files: Path) -> None:
    installer = write(files / "env.sh", ONE, dict.fromkeys(("pre-install", "post-install", "pre-uninstall"), "exit 1"))
    installed(installer, here / "env", scripts=False)
    assert sound(here / "env")
    assert uninstalled(installer, here / "env", scripts=False) == []


def test_one_that_activates_where_activate_is_a_file_of_the_environment(here: Path, files: Path) -> None:
    parts = [*ONE[:2], Part(b"bin/activate", content=b"exit 1\n", mode=0o755), *ONE[2:]]
    text = {"post-install": '#!/bin/sh\n[ "$CONDA_PREFIX" = "$PREFIX" ]\n'}
    write(files / "env.sh", parts, text, stem="pack-activate")
    installed(files / "env.sh", here / "env")
    assert sound(here / "env")


TAMPERED = {
    "not JSON": b"{",
    "a list": b"[]",
    "a NUL": json.dumps({**FACTS, "name": "a\0b"}).encode(),
    "half a character": b'{"name": "\\ud800"}',
    "not UTF-8": b'{"name": "\xff"}',
    "too deep": b'{"name": ' + b"[" * 50_000,
    "too long": b'{"name": "' + b"x" * 100_000 + b'"}',
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_a_tree_says_of_its_installer_is_not_trusted(what: str, here: Path, files: Path) -> None:
    installer = write(files / "env.sh", ONE, {"pre-uninstall": "#!/bin/sh\n"})
    installed(installer, here / "env")
    (here / "env/.pack/installer.json").write_bytes(TAMPERED[what])
    with pytest.raises(ManifestError, match=r"installer\.json is damaged") as caught:
        uninstalled(installer, here / "env")
    assert "--skip-scripts" in caught.value.tip
    assert sound(here / "env")
    assert uninstalled(installer, here / "env", scripts=False) == []


@pytest.mark.parametrize("facts", [b"{}", b'{"name": 7, "version": ["x"], "platform": null, "more": 1}'])
def test_what_it_says_strangely_is_passed_on_as_text(facts: bytes, here: Path, files: Path) -> None:
    write(files / "env.sh", ONE, {"post-install": '#!/bin/sh\n[ -n "${INSTALLER_NAME+set}" ]\n'}, facts=facts)
    installed(files / "env.sh", here / "env")


# Modes, groups, the list of conda

MODES = ("bin", "bin/tool", "lib/mod.py", ".", ".pack", ".pack/state.json", "bin/activate", ".pack/hooks/post-install")


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002, 0o000])
@pytest.mark.parametrize("who", ["root", "nobody"])
def test_modes_are_those_of_the_archive_less_the_umask(mask: int, who: str, files: Path) -> None:
    installer = write(files / "env.sh", changed(ONE, b"bin/tool", mode=0o775), {"post-install": "true\n"})
    with open_directory() as here:
        here.chmod(0o777)
        before = os.umask(mask)
        try:
            if who == "root":
                installed(installer, here / "env")
                found = shape(here / "env")
            else:
                with nobody():
                    installed(installer, here / "env")
                    found = shape(here / "env")
                    workplace.discard(bytes(here / "env"))
        finally:
            os.umask(before)
    archived = {".": 0o777, ".pack/state.json": 0o644, "lib/mod.py": 0o644, "bin/tool": 0o775}
    for name in MODES:
        expected = archived.get(name, 0o755) & ~mask
        assert str(found[name][0])[1:] == stat.filemode(expected)[1:], name


def test_a_group_gets_everything_and_directories_hand_it_on(here: Path, one: Path, two: Path) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid != os.getegid()) if os.geteuid() == 0 else None
    gid = group.gr_gid if group else os.getegid()
    before = os.umask(0o007)
    try:
        installed(one, here / "env", group=group.gr_name if group else str(gid))
        (here / "env/mine").touch()
        updated(two, here / "env", group=str(gid))
    finally:
        os.umask(before)
    for name, (mode, _, owner, _, _) in shape(here / "env").items():
        assert owner == gid, name
        assert str(mode)[6] == "s" if str(mode)[0] == "d" else str(mode)[6] in "x-", name
    assert stat.S_IMODE((here / "env").stat().st_mode) == 0o2770
    assert sound(here / "env")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_group_that_this_user_is_not_in_is_refused_at_once(one: Path) -> None:
    with open_directory() as here:
        here.chmod(0o777)
        with nobody(), pytest.raises(UsageError, match="--group 54321: this user cannot give files to that group"):
            installed(one, here / "env", group="54321")
        assert os.listdir(here) == []


def test_the_environment_is_registered_last_and_not_if_anything_fails(here: Path, files: Path, home: Path) -> None:
    listed = home / ".conda/environments.txt"
    installer = write(files / "env.sh", ONE, {"post-install": "exit 3\n"})
    with pytest.raises(HookFailed):
        installed(installer, here / "env", register=True)
    assert not listed.exists()
    installed(installer, here / "env", register=True, scripts=False)
    assert listed.read_text() == f"{here}/env\n"
    uninstalled(installer, here / "env")
    assert listed.read_text() == ""


@pytest.mark.parametrize("before", ["nothing", "an older version"])
def test_a_list_that_cannot_be_written_takes_the_installation_back(
    before: str, here: Path, one: Path, two: Path, home: Path
) -> None:
    if before != "nothing":
        installed(one, here / "env")
    kept = shape(here)
    (home / ".conda").touch()
    with pytest.raises(OutputError, match="cannot be registered"):
        installed(two, here / "env", register=True, replace=Replace.IF_THERE)
    assert shape(here) == kept


# What is said, and when


class Listening(Talk):
    """Remembers what it is told."""

    def __init__(self, here: Path) -> None:
        self.told: list[str] = []
        self.bytes = 0
        self._here = here

    def start(self, what: str, total: int) -> None:
        self.told.append(f"{what} {total}")

    def advance(self, count: int) -> None:
        self.bytes += count

    def settled(self) -> None:
        assert not (self._here / "env/.installing").exists()
        self.told.append("settled")


def test_how_it_goes_is_told(here: Path, one: Path, two: Path) -> None:
    for number, (installer, replace) in enumerate(((one, Replace.NO), (two, Replace.YES))):
        talk = Listening(here)
        total = sum(part.entry.size for part in (ONE, TWO)[number])
        with stage(here / "env") as staging:
            install.install(ordered(installer, here / "env", staging, replace=replace, size=total), talk)
        assert talk.told == [f"installing {total}", "settled"]
        assert talk.bytes >= total
    talk = Listening(here)
    with stage(here / "env") as staging:
        install.remove(ordered(one, here / "env", staging), talk)
    assert talk.told == ["settled"]


def test_a_signal_while_it_settles_waits_and_then_counts_for_nothing(here: Path, one: Path) -> None:
    class Late(Talk):
        def settled(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with stage(here / "env") as staging:
            install.install(ordered(one, here / "env", staging), Late())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sound(here / "env")
    assert os.listdir(here) == ["env"]


def test_an_order_has_what_a_script_leaves_out() -> None:
    order = Order(b"/i", b"/s")
    assert (order.replace, order.scripts, order.added, order.jobs) == (Replace.NO, True, Added.CARRY, os.cpu_count())
