"""Disks that are full or fail, mounts and limits that forbid, and whatever a login may have set."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import pytest

from tests.conftest import cases
from tests.integration.installed import install
from tests.integration.machines import NOBODY, failing, mounts, need_mounts, need_root
from tests.integration.moving import SURROUNDINGS, Run, as_another_user, pack, run, short_directory
from tests.integration.outcomes import complaint, faults

Make = Callable[..., Path]

LINKED = ("share/first", "share/second")
HOLE = 16 << 20  # bytes of one file, more than any other has
# What is not as umasks leave it.
MODES = {"share/closed": 0o555, "share/secret": 0o600, "share/open": 0o666, "share/all": 0o777, "share/fixed": 0o444}


@pytest.fixture(scope="module")
def odd_sh(tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Path:
    """An installer with modes of all kinds, hard links, a file that is nearly all hole, and a hook that records."""
    prefix = tmp_path_factory.mktemp("odd") / "env"
    for name in ("bin", "conda-meta", "share/closed"):
        (prefix / name).mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "bin/tool").write_text(f"#!/bin/sh\necho {prefix}\n")
    (prefix / "bin/tool").chmod(0o755)
    (prefix / "share/first").write_text(f"{prefix}\n")
    os.link(prefix / "share/first", prefix / "share/second")
    with (prefix / "share/hole").open("wb") as file:
        file.truncate(HOLE)
    (prefix / "share/closed/file").write_text("closed\n")
    for name, mode in MODES.items():
        if name != "share/closed":
            (prefix / name).write_text(f"{prefix}\n")
        (prefix / name).chmod(mode)
    hook = prefix.parent / "hook"
    hook.write_text('#!/bin/sh\nif [ "${RECORD-}" ]; then /usr/bin/env -0 >"$RECORD"; fi\n')
    return make_installer(prefix, prefix.parent / "odd.sh", "--post-install", hook)


@dataclass(frozen=True)
class Room:
    """A directory that every user may enter, with an installer, a directory to install into, and nothing else."""

    path: Path
    installer: Path

    @property
    def place(self) -> Path:
        """What a target goes into; every user may write there."""
        return self.path / "place"

    @property
    def target(self) -> Path:
        """Where to install."""
        return self.place / "env"

    def left(self) -> list[str]:
        """List what is in the directory around the target."""
        return sorted(os.listdir(self.place))


def room_for(installer: Path, parent: str) -> Iterator[Room]:
    with short_directory(parent) as path:
        shutil.copy(installer, path / "env.sh")
        (path / "env.sh").chmod(0o644)
        (path / "place").mkdir()
        (path / "place").chmod(0o777)
        yield Room(path, path / "env.sh")


@pytest.fixture
def room(small_sh: Path) -> Iterator[Room]:
    """A room for the installer of next to nothing."""
    yield from room_for(small_sh, "/tmp")


@pytest.fixture
def far_room(small_sh: Path) -> Iterator[Room]:
    """The same, not in ``/tmp``."""
    yield from room_for(small_sh, "/var/tmp")


@pytest.fixture
def odd(odd_sh: Path) -> Iterator[Room]:
    """A room for the installer with all sorts of files."""
    yield from room_for(odd_sh, "/tmp")


def good(room: Room, done: Run | None = None) -> None:
    """Fail unless there is a sound installation at the target, and nothing beside it."""
    assert room.left() == ["env"], done
    assert faults(room.target) == [], done


def refused(room: Room, done: Run, code: int, *words: str) -> None:
    """Fail unless a run was refused with a code and words, and has left nothing."""
    assert done.returncode == code, done
    assert complaint(code, done.stderr) == ""
    for word in words:
        assert word in done.stderr, done.stderr
    assert "parameter not set" not in done.stderr
    assert room.left() == []


# Disks that are full

NEEDED = ("bytes", "entries", "stub-bytes")


@pytest.fixture(scope="module")
def needed(small_sh: Path) -> dict[str, int]:
    """Tell how many KiB and inodes the installer of next to nothing needs, as its own check has it."""
    script = small_sh.read_bytes().split(b"\ninstaller_name=", 1)[1][:2000].decode()
    unpacked = int(script.split("\nstub_unpacked='")[1].split("'")[0])
    facts = json.loads(run(["sh", small_sh, "--info", "--json"]).stdout)
    return {
        "size": (facts["bytes"] + unpacked + facts["stub-bytes"]) // 1024 + 2 * (facts["entries"] + 50),
        "nr_inodes": facts["entries"] + 50,
    }


@pytest.mark.parametrize(("option", "words"), [("size=8m", "MB are needed"), ("nr_inodes=60", "more files, and")])
def test_too_little_room_is_found_before_anything_is_written(option: str, words: str, room: Room) -> None:
    """Not even a directory is made, which its parent's times would show."""
    done = mounts(f"""
        mount -t tmpfs -o {option} none {room.place}
        stat -c '%y %z' {room.place}
        code=0; sh {room.installer} -p {room.target} 2>{room.path}/errors || code=$?
        stat -c '%y %z' {room.place}
        ls -A {room.place}
        echo $code
    """)
    before, after, code = done.stdout.splitlines()
    assert (code, before) == ("5", after)
    assert words in (room.path / "errors").read_text()


def full(room: Room, *options: str) -> list[str]:
    """Install without the check on disks with less room than needed; list those where that ended as it should not."""
    each = "\n".join(
        f"""
        mount -t tmpfs -o {option} none {room.place}
        code=0; sh {room.installer} -p {room.target} --skip-space-check 2>{room.path}/errors || code=$?
        if [ $code != 5 ] || [ "$(ls -A {room.place})" ] || grep -q -e damaged -e 'parameter not set' {room.path}/errors
        then echo {option}: $code $(cat {room.path}/errors); fi
        umount {room.place}"""
        for option in options
    )
    return mounts(each).stdout.splitlines()


def test_a_disk_that_is_full_in_the_middle(room: Room, needed: dict[str, int]) -> None:
    """Whether it is the program that has no room, what it unpacks, or the environment: code 5, and nothing stays."""
    size, inodes = needed["size"], needed["nr_inodes"]
    options = [f"size={size * percent // 100}k" for percent in (4, 20, 45, 85)]
    options += [f"nr_inodes={number}" for number in (2, 5, 8, 20, inodes - 30)]
    assert full(room, *options) == []


def test_disks_that_are_full_at_any_point(room: Room, needed: dict[str, int]) -> None:
    options = [f"size={needed['size'] * (number + 1) // 23}k" for number in cases(51, 20)]
    options += [f"nr_inodes={2 + number * (needed['nr_inodes'] - 30) // 20}" for number in cases(52, 20)]
    assert full(room, *options) == []


def test_the_check_asks_for_enough(room: Room, needed: dict[str, int]) -> None:
    """On the smallest disk that passes it, there is room."""
    options = f"size={needed['size'] + 4}k,nr_inodes={needed['nr_inodes'] + 2}"
    mounts(f"""
        mount -t tmpfs -o {options} none {room.place}
        sh {room.installer} -p {room.target}
        {room.target}/bin/tool
    """)


def test_a_file_system_that_does_not_say_how_full_it_is(room: Room) -> None:
    """Lustre has nothing, of nothing: nothing is concluded. One that says how little it has is believed."""
    tools = room.path / "tools"
    tools.mkdir()
    for said, code in (("0 0 0 -", 0), ("1000 999 1 99%", 5)):
        (tools / "df").write_text(
            f"#!/bin/sh\necho 'Filesystem 1K-blocks Used Available Use% Mounted'\necho 'fs {said} /'\n"
        )
        (tools / "df").chmod(0o755)
        env = {**SURROUNDINGS, "PATH": f"{tools}:{SURROUNDINGS['PATH']}"}
        done = install(room.installer, room.target, env=env, code=code)
        if code == 0:
            good(room)
            shutil.rmtree(room.target)
        else:
            refused(room, done, 5, "MB are needed")


# System calls that fail

IN_THE_PROGRAM = {
    "files do not reach the disk": ("syncfs:error=EIO:when=1", "input/output error"),
    "the rename does not reach the disk": ("fsync:error=EIO:when=1", "input/output error"),
    "the rename crosses file systems": ("?rename,?renameat,?renameat2:error=EXDEV", "on another file system"),
    "no directory can be made in the tree": ("mkdirat:error=EACCES", "ermission"),
    "no directory can be made at all": ("mkdir:error=EACCES", "cannot be made"),
    "no symlink can be made": ("symlinkat:error=EACCES:when=1", "no permission"),
    "a file with a hole cannot grow": ("ftruncate:error=ENOSPC:when=1", "the disk is full"),
    "over quota": ("ftruncate:error=EDQUOT:when=1", "quota"),
    "a time cannot be set": ("utimensat:error=EIO:when=3", "input/output error"),
    "the program's mode cannot be set": ("fchmod:error=EPERM:when=1", "Operation not permitted"),
}


# What differs from others by little.
LIKE_OTHERS = (
    "over quota",
    "a time cannot be set",
    "no directory can be made at all",
    "the program's mode cannot be set",
)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[pytest.mark.slow] if fault in LIKE_OTHERS else []) for fault in IN_THE_PROGRAM],
)
def test_a_system_call_that_fails(fault: str, room: Room) -> None:
    """It is said in words, with code 5, and nothing stays; tried again, it works."""
    rule, words = IN_THE_PROGRAM[fault]
    done = install(room.installer, room.target, code=None, before=failing(rule))
    refused(room, done, 5, words)


@pytest.mark.parametrize(("error", "number", "jobs"), [("ENOSPC", 20, "2"), ("EIO", 20, "2"), ("EIO", 70, "1")])
def test_a_write_of_the_program_that_fails(error: str, number: int, jobs: str, room: Room, frozen: Path) -> None:
    """The script writes more often than its program: called by itself, that meets the fault.

    With two jobs it is the second process that does, which makes the small files.
    """
    stage = room.place / ".env.pack-aaaaaaaa"
    stage.mkdir(0o700)
    (stage / "owner").write_text(f"{os.uname().nodename} {os.getpid()}\n")
    order: list[str | Path] = ["install", "--installer", room.installer, "--staging", stage, "--target", room.target]
    order += ["--jobs", jobs]
    done = run([*failing(f"write:error={error}:when={number}"), frozen, *order], code=5)
    assert {"ENOSPC": "the disk is full", "EIO": "input/output error"}[error] in done.stderr
    assert room.left() == [stage.name]


@pytest.mark.parametrize(
    "rule",
    [
        "link,?linkat:error=EPERM",
        pytest.param("link,?linkat:error=EOPNOTSUPP", marks=pytest.mark.slow),
        "flock:error=ENOLCK",
        pytest.param("flock:error=ENOSYS", marks=pytest.mark.slow),
        "renameat2:error=EINVAL",
        "syncfs:error=ENOSYS",
    ],
)
def test_what_a_file_system_may_lack(rule: str, odd: Room) -> None:
    """Without hard links, locks, exchanges and syncfs, all is right all the same."""
    good(odd, install(odd.installer, odd.target, before=failing(rule)))
    links = (odd.target / LINKED[0]).stat().st_nlink
    assert links == (1 if rule.startswith("link") else 2)


# Mounts

READ_ONLY = "mount -t tmpfs none {place} && mount -o remount,ro,bind {place}"
NOEXEC = "mount -t tmpfs -o noexec none {place}"


def test_a_read_only_file_system(room: Room) -> None:
    done = mounts(f"{READ_ONLY.format(place=room.place)}\nsh {room.installer} -p {room.target}", code=5)
    assert f"{room.place} cannot be written" in done.stderr
    done = mounts(f"{READ_ONLY.format(place=room.place)}\nsh {room.installer} -p {room.target}/a/b", code=5)
    assert f"{room.place} cannot be written" in done.stderr


@pytest.mark.parametrize("name", ["env", "a/b/env"])
def test_a_file_system_from_which_nothing_runs(name: str, room: Room) -> None:
    """It is refused before anything is written, with the mount point."""
    script = f"""
        {NOEXEC.format(place=room.place)}
        code=0; sh {room.installer} -p {room.place}/{name} || code=$?
        ls -A {room.place}
        exit $code
    """
    done = mounts(script, code=10)
    assert f"nothing may be run from {room.place}, which is mounted with noexec" in done.stderr
    assert done.stdout == ""


def test_noexec_counts_where_the_target_is(room: Room) -> None:
    """A mount point in another one may run things, and its name may have spaces."""
    inner = room.place / "in here"
    mounts(f"""
        {NOEXEC.format(place=room.place)}
        mkdir {quote(str(inner))} {quote(str(inner))}x
        mount -t tmpfs none {quote(str(inner))}
        sh {room.installer} -p {quote(str(inner / "env"))}
        {quote(str(inner / "env/bin/tool"))}
        code=0; sh {room.installer} -p {quote(f"{inner}x/env")} || code=$?
        test $code = 10
    """)


def test_temporary_directories_are_not_needed(far_room: Room) -> None:
    """Where nothing runs from ``/tmp``, or nothing can be written there, nothing is lost."""
    mounts(f"""
        mount -t tmpfs -o noexec none /tmp
        TMPDIR=/tmp sh {far_room.installer} -p {far_room.target}
        ls -A /tmp
        mount -o remount,ro /tmp
        sh {far_room.installer} -u -p {far_room.target}
        test ! "$(ls -A /tmp)"
    """)
    good(far_room)


SELDOM = [pytest.param(value, marks=pytest.mark.slow) for value in ("/nonexistent", "/dev/null", "\\", "-p", "/proc")]


@pytest.mark.parametrize("value", ["$(touch here)`touch here`", "a b\nc", *SELDOM])
def test_hostile_temporary_directories(value: str, room: Room) -> None:
    done = install(room.installer, room.target, env={**SURROUNDINGS, "TMPDIR": value}, cwd=room.path)
    good(room, done)
    assert done.stderr == ""
    assert sorted(os.listdir(room.path)) == ["env.sh", "place"]


def test_a_home_that_cannot_be_written(room: Room) -> None:
    """With a target, the home counts for nothing; without one it is where the environment would go."""
    home = room.path / "home"
    home.mkdir()
    done = mounts(
        f"""
        mount --bind {home} {home} && mount -o remount,ro,bind {home}
        export HOME={home}
        sh {room.installer} -p {room.target}
        code=0; sh {room.installer} -b || code=$?
        exit $code
    """,
        code=5,
    )
    assert f"{home} cannot be written" in done.stderr
    assert os.listdir(home) == []
    good(room)


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home(home: str | None, room: Room) -> None:
    env = {"PATH": SURROUNDINGS["PATH"]} if home is None else {**SURROUNDINGS, "HOME": home}
    done = run(["sh", room.installer, "-b"], env=env, code=2)
    refused(room, done, 2, "HOME is not set", "-p DIR")
    good(room, install(room.installer, room.target, env=env))


def test_without_proc(room: Room) -> None:
    """Neither the script nor the program needs ``/proc``."""
    mounts(f"mount -t tmpfs none /proc\nsh {room.installer} -p {room.target}")
    good(room)


# Whose files they are, and who may use them


@pytest.fixture(scope="module")
def listed(odd_sh: Path) -> dict[str, int]:
    """The modes of the archive, but of symlinks, which have none."""
    entries = json.loads(run(["sh", odd_sh, "--list", "--json", "-p", "/nonexistent/env"], cwd=Path("/")).stdout)[
        "entries"
    ]
    found = {entry["path"]: entry["mode"] for entry in entries if entry["kind"] != "symlink"}
    assert {name: found[name] for name in MODES} == MODES
    return found


def modes(target: Path, names: dict[str, int]) -> dict[str, int]:
    return {name: stat.S_IMODE((target / name).lstat().st_mode) for name in names}


@pytest.mark.parametrize("umask", [0o077, pytest.param(0o000, marks=pytest.mark.slow), 0o022])
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_modes_are_those_of_the_archive_less_the_umask(
    user: str, umask: int, odd: Room, listed: dict[str, int]
) -> None:
    """Root's, too, which tar would not do; so are directories that were made above."""
    target = odd.place / "above" / "env"
    command: list[str | Path | bytes] = ["sh", "-c", f"umask {umask:03o} && exec sh {odd.installer} -p {target}"]
    if user == "nobody":
        need_root("another user")
        command = as_another_user(command)
    run(command)
    assert modes(target, listed) == {name: mode & ~umask for name, mode in listed.items()}
    assert {stat.S_IMODE(path.lstat().st_mode) for path in (target, target.parent)} == {0o777 & ~umask}
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (target, target.parent, *target.rglob("*"))}
    assert owners == {(NOBODY, NOBODY) if user == "nobody" else (os.geteuid(), os.getegid())}
    assert os.listdir(target.parent) == ["env"]
    target.chmod(0o755)
    pack("verify", target)


def test_a_umask_for_the_installation_alone(odd: Room, listed: dict[str, int]) -> None:
    target = odd.place / "above" / "env"
    run(["sh", "-c", f"umask 077 && exec sh {odd.installer} -p {target} --umask 002"])
    assert modes(target, listed) == {name: mode & ~0o002 for name, mode in listed.items()}
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o775
    shutil.rmtree(target.parent)
    refused(odd, install(odd.installer, odd.target, "--umask", "777", code=None), 2, "--umask 777")


@pytest.mark.parametrize("group", [pytest.param("65534", marks=pytest.mark.slow), "nogroup"])
def test_a_group(group: str, odd: Room) -> None:
    """Everything belongs to it, and directories hand it on."""
    need_root("another group")
    install(odd.installer, odd.target, "--group", group)
    for path in (odd.target, *odd.target.rglob("*")):
        assert path.lstat().st_gid == 65534, path
        assert bool(path.lstat().st_mode & stat.S_ISGID) == (path.is_dir() and not path.is_symlink()), path
    good(odd)


def test_groups_that_cannot_be(odd: Room) -> None:
    """One that is not there, and one that the user is not in."""
    refused(odd, install(odd.installer, odd.target, "--group", "none-such", code=None), 2, "no such group")
    need_root("another user")
    done = run(as_another_user(["sh", odd.installer, "-p", odd.target, "--group", "daemon"]), code=None)
    refused(odd, done, 2, "daemon")


# What a login has set

LIBRARIES = ("libz.so.1", "libdl.so.2", "libm.so.6", "libpthread.so.0", "libffi.so.8", "libutil.so.1", "libcrypto.so.3")


def test_hostile_variables_harm_nothing_and_are_handed_on(odd: Room) -> None:
    """A hook finds what the caller had, but for what a frozen program has set for itself."""
    broken = odd.path / "broken"
    broken.mkdir()
    for name in LIBRARIES:
        (broken / name).write_text("no library\n")
    (broken / "encodings.py").write_text("raise SystemExit(99)\n")
    hostile = {
        "LD_LIBRARY_PATH": str(broken),
        "LD_PRELOAD": str(broken / "none.so"),
        "PYTHONHOME": str(broken),
        "PYTHONPATH": str(broken),
        "PYTHONSTARTUP": "/nonexistent",
        "PYTHONINSPECT": "1",
        "PYTHONOPTIMIZE": "2",
        "ENV": "/nonexistent",
        "CDPATH": "/usr",
        "POSIXLY_CORRECT": "1",
        "TAR_OPTIONS": "--none-such",
        "GZIP": "-9",
        "LC_ALL": "xx_XX.nothing",
        "odd": "a\nb'c\"d $(touch here) \\ ",
    }
    frozen = {
        "_MEIPASS2": str(broken),
        "_PYI_ARCHIVE_FILE": str(broken / "x"),
        "_PYI_APPLICATION_HOME_DIR": str(broken),
        "_PYI_PARENT_PROCESS_LEVEL": "1",
        "_PYI_SPLASH_IPC": "0",
    }
    env = {"PATH": SURROUNDINGS["PATH"], "IFS": "e", **hostile, **frozen, "RECORD": str(odd.path / "record")}
    good(odd, install(odd.installer, odd.target, env=env, cwd=odd.path))
    record = (odd.path / "record").read_bytes().split(b"\0")[:-1]
    found = {os.fsdecode(name): os.fsdecode(value) for name, _, value in (line.partition(b"=") for line in record)}
    assert {name: found.get(name) for name in hostile} == hostile
    assert not [name for name in found if name.startswith(("_PYI", "_MEI", "PYINSTALLER"))]
    assert sorted(os.listdir(odd.path)) == ["broken", "env.sh", "place", "record"]


ONE_CLOSED = [pytest.param(closed, marks=pytest.mark.slow) for closed in ("<&-", ">&-", "2>&-")]


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", *ONE_CLOSED])
def test_closed_streams(closed: str, odd: Room) -> None:
    """No file that is opened gets the number of a stream: nothing is written into one by mistake."""
    run(["sh", "-c", f"exec sh {odd.installer} -p {odd.target} {closed}"])
    good(odd)


def test_an_error_where_nobody_can_be_told(room: Room) -> None:
    room.target.mkdir()
    (room.target / "x").touch()
    run(["sh", "-c", f"exec sh {room.installer} -p {room.target} <&- >&- 2>&-"], code=5)
    assert room.left() == ["env"]


def test_few_descriptors(room: Room) -> None:
    good(room, run(["sh", "-c", f"ulimit -n 20 && exec sh {room.installer} -p {room.target}"]))


def test_a_limit_to_the_size_of_files(odd: Room) -> None:
    """Whether it is the program that is too large, or a file of the environment."""
    for blocks, words in ((2000, "cannot be written"), (HOLE // 512 - 2000, "ulimit -f")):
        done = run(["sh", "-c", f"ulimit -f {blocks} && exec sh {odd.installer} -p {odd.target}"], code=5)
        refused(odd, done, 5, words)


def test_a_log_on_a_full_disk(odd: Room) -> None:
    """It says less, and hinders nothing. One that cannot be opened is an error of the one who named it."""
    done = install(odd.installer, odd.target, "--log", "/dev/full")
    good(odd, done)
    assert done.stdout.startswith(f"{odd.target}: installed: ")
    shutil.rmtree(odd.target)
    refused(
        odd, install(odd.installer, odd.target, "--log", "/dev/null/log", code=None), 5, "the log cannot be written"
    )


def test_without_a_controlling_terminal_or_any_variable(room: Room) -> None:
    done = subprocess.run(
        ["/bin/sh", room.installer, "-p", room.target],
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0
    good(room, done)


def test_root_that_may_not_override(room: Room) -> None:
    """Root without its powers is a user like any other, as in many containers and on NFS."""
    need_root("dropping capabilities")
    need_mounts()
    os.chown(room.place, NOBODY, NOBODY)
    room.place.chmod(0o755)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    done = install(room.installer, room.target, before=powerless, code=None)
    refused(room, done, 5, "cannot be written")
    room.place.chmod(0o777)
    good(room, install(room.installer, room.target, before=powerless))
