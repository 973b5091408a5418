"""Every kind of target: installed there, sound, nothing beside it; or refused in words, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

import pytest

from tests.conftest import cases, need
from tests.integration.machines import NOBODY, mounts, need_root
from tests.integration.moving import PACK, SURROUNDINGS, Run, as_another_user, pack, run, short_directory, snapshot
from tests.integration.outcomes import complaint, faults

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def plain_sh(tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Path:
    """An installer of an environment that names its prefix in no text; its hook fails where it is told to."""
    prefix = tmp_path_factory.mktemp("plain") / "env"
    for name in ("bin", "conda-meta", "share"):
        (prefix / name).mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "share/text").write_text("text\n")
    (prefix / "bin/tool").write_text('#!/bin/sh\ncd -P -- "$(dirname -- "$0")/.." && pwd -P\n')
    (prefix / "bin/tool").chmod(0o755)
    hook = prefix.parent / "hook"
    hook.write_text('#!/bin/sh\nif [ "${FAILING-}" = "${0##*/}" ]; then exit 1; fi\n')
    options = [word for name in ("pre-install", "post-install") for word in (f"--{name}", hook)]
    made = make_installer(prefix, prefix.parent / "plain.sh", *options)
    assert b"\nhas_text=''\n" in made.read_bytes()
    return made


@pytest.fixture(params=["text", pytest.param("no text", marks=pytest.mark.slow)])
def installer(request: pytest.FixtureRequest) -> Path:
    """Installers of environments with and without the prefix in text."""
    path: Path = request.getfixturevalue("small_sh" if request.param == "text" else "plain_sh")
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, to work in."""
    with short_directory() as directory:
        yield directory


def to(
    installer: Path,
    target: str | bytes | Path,
    *options: str,
    cwd: Path | None = None,
    code: int | None = 0,
    before: list[str | bytes | Path] | None = None,
    env: dict[str, str] | None = None,
) -> Run:
    """Run an installer with a target as somebody types it."""
    return run([*(before or []), "sh", installer, "-p", target, *options], cwd=cwd, code=code, env=env)


def refused(done: Run, code: int, *words: str) -> None:
    """Fail unless a run was refused with a code and words."""
    assert done.returncode == code, done
    assert complaint(code, done.stderr) == ""
    for word in words:
        assert word in done.stderr, done.stderr


# What is accepted

# As typed in a directory with an empty directory "there", and where that is.
TYPED = {
    "env": "env",
    "a b": "a b",
    "./env": "env",
    "../here/env": "env",
    "there": "there",
    "there/": "there",
    "there/.": "there",
    "there/../env": "env",
    "missing/../env": "env",
    "missing/a/../../there": "there",
    "missing/a/b/../env": "missing/a/env",
    "env///": "env",
    "a//b///env/": "a/b/env",
    "a/./b/./env/.": "a/b/env",
    "-": "-",
    "-p": "-p",
    "--help": "--help",
    "-/-": "-/-",
    ".env": ".env",
    "...": "...",
    "=": "=",
    "ünï→☃": "ünï→☃",
    "n" * 200: "n" * 200,
    "n" * 255: "n" * 255,
}
# Only where nothing is written into scripts: in the others a shell would take them for its own.
SPECIAL = [
    "it's",
    'a"b',
    "$HOME",
    "$(touch x)",
    "`touch x`",
    "a\\b",
    "\\",
    "a\\040b",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "~",
    "#a",
]
SPECIAL += ["a;b", "a&b", "a|b", "(a)", "a<b>c", "!", "%s%n", "  ", " a", "a ", "a  b", "^", "@"]


def good(installer: Path, place: Path, typed: str | bytes, target: str) -> None:
    """Install to a target as typed, look at it, and remove all that is new."""
    here = place / "here"
    (here / "there").mkdir(parents=True, exist_ok=True)
    done = to(installer, typed, cwd=here)
    assert done.stderr == "" or "needs quotes" in done.stderr
    assert faults(here / target) == [], typed
    first = target.split("/")[0]
    assert sorted(os.listdir(here)) == sorted({first, "there"}), typed
    assert os.listdir(place) == ["here"]
    shutil.rmtree(here)


def test_targets_as_people_type_them(small_sh: Path, place: Path) -> None:
    """The script finds what is meant; a seeded tenth are installed, too."""
    here = place / "here"
    for number, (typed, target) in enumerate(TYPED.items()):
        (here / "there").mkdir(parents=True, exist_ok=True)
        told = json.loads(to(small_sh, typed, "--dry-run", "--json", cwd=here).stdout)
        assert told["target"] == str(here / target), typed
        if number in cases(61, len(TYPED)):
            good(small_sh, place, typed, target)


def test_targets_that_mean_something_to_shells(plain_sh: Path, place: Path) -> None:
    here = place / "here"
    for number, name in enumerate(SPECIAL):
        (here / "there").mkdir(parents=True, exist_ok=True)
        told = json.loads(to(plain_sh, name, "--dry-run", "--json", cwd=here).stdout)
        assert told["target"] == str(here / name)
        if number in cases(62, len(SPECIAL)):
            good(plain_sh, place, name, name)


def test_a_target_that_is_not_utf_8(plain_sh: Path, place: Path) -> None:
    """PyInstaller's loader cannot stand there, and there is no other Python in this environment."""
    for target in (b"latin \xff", b"\xc0\xaf/env"):
        refused(to(plain_sh, target, cwd=place, code=None), 10, "it does not start where a path is not UTF-8")
    assert os.listdir(place) == []


@pytest.mark.parametrize("name", ["it's", 'a"b', "$HOME", "`a`", "a\\b"])
def test_quotes_where_the_path_is_written_into_scripts(name: str, small_sh: Path, place: Path) -> None:
    for target in (name, f"missing/{name}/env"):
        refused(to(small_sh, target, cwd=place, code=None), 7, "in scripts", "TIP: ")
    assert os.listdir(place) == []


@pytest.mark.parametrize("name", ["a\nb", "a\n", "\n", "a\tb", "a\x1b[1mb", "a\x7f", "a:b", ":", "a\rb"])
def test_what_no_prefix_can_hold(name: str, installer: Path, place: Path) -> None:
    """The message shows no byte that a terminal would act upon."""
    done = to(installer, name, cwd=place, code=None)
    refused(done, 7, "cannot be the target", "TIP: ")
    assert not {character for character in done.stderr if character < " " and character != "\n"}
    assert os.listdir(place) == []


@pytest.mark.parametrize("name", ["/", "//", "/..", "/.", "/usr/..", "/nonexistent/.."])
def test_the_root_directory(name: str, installer: Path) -> None:
    refused(to(installer, name, code=None), 7, "the root directory cannot be the target")


def test_a_symlink_that_holds_what_none_can_hold(small_sh: Path, place: Path) -> None:
    """It is the path that the environment would see which counts."""
    (place / "a:b").mkdir()
    (place / "link").symlink_to("a:b")
    refused(to(small_sh, place / "link/env", code=None), 7, "a colon separates")
    assert os.listdir(place / "a:b") == []


# How long it may be


def test_a_name_that_no_file_system_takes(small_sh: Path, place: Path) -> None:
    for target in ("n" * 256, "n" * 256 + "/env"):
        refused(to(small_sh, target, cwd=place, code=None), 7, "more than 255 bytes")
        assert os.listdir(place) == []


def of_length(place: Path, length: int) -> Path:
    """Give a path of so many bytes below a directory."""
    path = str(place)
    while length - len(path) > 201:
        path += "/" + "n" * 100
    path += "/" + "n" * (length - len(path) - 1)
    assert len(path) == length
    return Path(path)


@pytest.mark.parametrize("kind", ["native_sh", pytest.param("python_sh", marks=pytest.mark.slow)])
def test_the_longest_target_that_the_environment_can_have(
    kind: str, request: pytest.FixtureRequest, place: Path
) -> None:
    """One byte more is refused, naming the file that has no room, before anything is written."""
    installer: Path = request.getfixturevalue(kind)
    facts = json.loads(run(["sh", installer, "--info", "--json"]).stdout)
    limit, file = facts["longest-target"], facts["longest-target-set-by"]
    refused(to(installer, of_length(place, limit + 1), code=None), 8, f"{file} has room for {limit}", str(limit + 1))
    assert os.listdir(place) == []
    target = of_length(place, limit)
    to(installer, target)
    pack("verify", target)
    if kind == "native_sh":
        assert str(target) in run([target / "bin/openssl", "version", "-d"]).stdout
    else:
        assert run([target / "bin/python", "-c", "import sys; print(sys.prefix)"]).stdout == f"{target}\n"


def test_strings_that_may_keep_the_old_path(tmp_path: Path, make_installer: Make, place: Path) -> None:
    """A string of which no package says that it is a prefix is no reason to refuse, if that is wanted."""
    prefix = tmp_path / "env"
    for name in ("bin", "conda-meta", "share"):
        (prefix / name).mkdir(parents=True)
    (prefix / "conda-meta/history").touch()
    (prefix / "share/strings").write_bytes(b"\1\2\0" + bytes(prefix) + b"\0\3\4\0")
    (prefix / "bin/tool").write_text('#!/bin/sh\ncd -P -- "$(dirname -- "$0")/.." && pwd -P\n')
    (prefix / "bin/tool").chmod(0o755)
    installer = make_installer(prefix, tmp_path / "env.sh")
    limit = len(bytes(prefix))
    target = of_length(place, limit + 1)
    done = to(installer, target, code=None)
    refused(done, 8, f"share/strings has room for {limit}", "--allow-unrelocated")
    assert os.listdir(place) == []
    done = to(installer, target, "--allow-unrelocated")
    assert "share/strings" in done.stdout
    assert bytes(prefix) in (target / "share/strings").read_bytes()
    assert run([target / "bin/tool"]).stdout == f"{target}\n"


def test_the_longest_paths_of_the_system(small_sh: Path, place: Path) -> None:
    """What has no room for its longest path is refused; some bytes before that the program has none for its own."""
    script = small_sh.read_bytes()[:100_000].decode(errors="replace")
    most = 4094 - int(script.split("\nlongest_path='")[1].split("'")[0])
    for length in (most + 1, 5000):
        refused(to(small_sh, of_length(place, length), code=None), 7, f"at most {most} bytes")
    refused(to(small_sh, of_length(place, most), code=None), 5, "too long")
    assert os.listdir(place) == []
    target = of_length(place, most - 64)
    to(small_sh, target)
    assert faults(target) == []
    assert os.listdir(target.parent) == [target.name]


# What stands there


@pytest.mark.parametrize("mode", [0o700, 0o2750, 0o1777])
def test_an_empty_directory_keeps_what_is_its_own(mode: int, installer: Path, place: Path) -> None:
    """Its mode, its owner, its group, its ACL, also the one for what is made in it."""
    target = place / "env"
    target.mkdir()
    if os.geteuid() == 0:
        os.chown(target, NOBODY, NOBODY)
    target.chmod(mode)
    facls: list[str | Path] = [need("getfacl"), "-p", "-c", target]
    run([need("setfacl"), "-m", "u:65534:rwx,g:1:r-x,d:u:65534:rwx", target])
    before = (target.stat().st_mode, target.stat().st_uid, target.stat().st_gid, run(facls).stdout)
    to(installer, target)
    assert (target.stat().st_mode, target.stat().st_uid, target.stat().st_gid, run(facls).stdout) == before
    assert faults(target) == []
    assert os.listdir(place) == ["env"]


def test_what_is_in_the_way_is_listed(installer: Path, place: Path) -> None:
    target = place / "env"
    target.mkdir()
    for number in range(12):
        (target / f"f{number:02}").touch()
    before = snapshot(place)
    refused(to(installer, target, code=None), 5, "f00, f01", "f09 and 2 more")
    refused(to(installer, target, "-f", code=None), 5, "f00, f01")
    refused(to(installer, target, "-u", code=None), 6, "f00, f01")
    assert snapshot(place) == before


@pytest.mark.parametrize("name", [".hidden", "-", "a b", "*", "..."])
def test_one_name_is_enough_to_be_in_the_way(name: str, small_sh: Path, place: Path) -> None:
    (place / "env").mkdir()
    (place / "env" / name).symlink_to("nowhere")
    refused(to(small_sh, place / "env", code=None), 5, f"is not an empty directory: {name}.")


def test_what_is_no_directory(installer: Path, place: Path) -> None:
    (place / "file").touch()
    os.mkfifo(place / "pipe")
    (place / "dangling").symlink_to("nowhere")
    (place / "loop").symlink_to("loop")
    (place / "to file").symlink_to("file")
    before = snapshot(place)
    for name in ("file", "pipe", "to file", "file/env", "pipe/a/b", "to file/env"):
        refused(to(installer, place / name, code=None), 5, "is no directory")
    for name in ("dangling", "loop", "dangling/env", "loop/a/b"):
        refused(to(installer, place / name, code=None), 5, "is a symbolic link that leads nowhere")
    refused(to(installer, "/dev/null", code=None), 5, "is no directory")
    assert snapshot(place) == before


def test_a_symlink_to_a_directory(installer: Path, place: Path) -> None:
    """The environment stands where it leads, and it stays."""
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    done = to(installer, place / "link")
    assert done.stdout.startswith(f"{place}/real: installed: ")
    assert faults(place / "real") == []
    to(installer, f"{place}/link/../link/sub/env/")
    assert faults(place / "real/sub/env") == []
    assert os.readlink(place / "link") == "real"
    assert sorted(os.listdir(place)) == ["link", "real"]


def test_the_current_directory(installer: Path, place: Path) -> None:
    """It is another directory afterwards, with the same name."""
    (place / "env").mkdir()
    to(installer, ".", cwd=place / "env")
    assert faults(place / "env") == []
    assert os.listdir(place) == ["env"]


def test_a_current_directory_that_is_gone(small_sh: Path, place: Path) -> None:
    script = f"mkdir {place}/gone && cd {place}/gone && rmdir {place}/gone && exec sh {small_sh} -p"
    refused(run(["sh", "-c", f"{script} env"], code=None), 5, "the current directory does not exist any more")
    run(["sh", "-c", f"{script} {place}/env"])
    assert faults(place / "env") == []


@pytest.mark.parametrize("failing", ["pre-install", "post-install"])
def test_parents_that_were_made_go_again(failing: str, plain_sh: Path, place: Path) -> None:
    """What goes wrong afterwards leaves none of them; those that were there stay."""
    (place / "a").mkdir()
    done = to(plain_sh, place / "a/b b/c/env", code=None, env={**SURROUNDINGS, "FAILING": failing})
    refused(done, 15, failing)
    assert os.listdir(place) == ["a"]
    assert os.listdir(place / "a") == []
    to(plain_sh, place / "a/b b/c/env", "--skip-scripts", env={**SURROUNDINGS, "FAILING": failing})
    assert faults(place / "a/b b/c/env") == []


# Whose it is


def test_in_a_directory_of_somebody_else(installer: Path, place: Path) -> None:
    """A user's own empty directory in it is filled in place; beside it nothing could be made."""
    need_root("another user")
    shutil.copy(installer, place / "env.sh")
    (place / "env.sh").chmod(0o644)
    target = place / "env"
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    target.chmod(0o750)
    inode = target.stat().st_ino
    user: list[str | bytes | Path] = as_another_user([])
    to(place / "env.sh", target, before=user)
    assert (target.stat().st_ino, stat.S_IMODE(target.stat().st_mode)) == (inode, 0o750)
    assert faults(target) == []
    to(place / "env.sh", target, "-u", before=user)
    assert faults(target) == []
    assert {path.lstat().st_uid for path in target.rglob("*")} == {NOBODY}
    refused(to(place / "env.sh", place / "other", code=None, before=user), 5, f"{place} cannot be written")
    refused(to(place / "env.sh", place / "a/b", code=None, before=user), 5, f"{place} cannot be written")
    assert sorted(os.listdir(place)) == ["env", "env.sh"]
    to(place / "env.sh", target, "--uninstall", before=user)
    assert sorted(os.listdir(place)) in (["env", "env.sh"], ["env.sh"])


def test_directories_that_cannot_be_entered_or_read(small_sh: Path, place: Path) -> None:
    need_root("another user")
    shutil.copy(small_sh, place / "env.sh")
    (place / "env.sh").chmod(0o644)
    for name, mode in (("closed", 0o700), ("unreadable", 0o733), ("empty", 0o755)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    user = as_another_user([])
    refused(to(place / "env.sh", place / "closed/env", code=None, before=user), 5, "cannot")
    refused(to(place / "env.sh", place / "unreadable", code=None, before=user), 5, "cannot be read")
    refused(to(place / "env.sh", place / "empty", code=None, before=user), 5, "cannot be written")
    assert [os.listdir(place / name) for name in ("closed", "unreadable", "empty")] == [[], [], []]


@pytest.mark.parametrize(
    "name", ["a b", pytest.param("env", marks=pytest.mark.slow), pytest.param("c#d", marks=pytest.mark.slow)]
)
def test_a_mount_point(name: str, installer: Path, place: Path) -> None:
    """It is filled in place, updated and emptied again; ``lost+found`` is nobody's business."""
    target = place / name
    target.mkdir()
    mounts(f"""
        cd {quote(str(target))} && mount -t tmpfs none {quote(str(target))} && cd {quote(str(target))}
        mkdir lost+found && touch lost+found/x
        sh {installer} -p {quote(str(target))}
        test "$({quote(str(target))}/bin/tool)" = {quote(str(target))}
        {quote(str(PACK))} verify {quote(str(target))}
        test ! -e .pack-staging && test -f lost+found/x
        touch mine
        sh {installer} -u -p {quote(str(target))}
        test ! -e .pack-staging && test -f lost+found/x && test -f mine
        {quote(str(PACK))} verify {quote(str(target))}
        sh {installer} --uninstall -p {quote(str(target))}
        test -f lost+found/x && test "$(ls -A)" = "$(printf 'lost+found\\nmine')"
    """)
    assert os.listdir(target) == []


def test_something_is_mounted_in_it(small_sh: Path, place: Path) -> None:
    """An update would empty it."""
    target = place / "env"
    to(small_sh, target)
    (target / "data").mkdir()
    done = mounts(
        f"""
        mount -t tmpfs none {target}/data && touch {target}/data/x
        code=0; sh {small_sh} -u -p {target} || code=$?
        test -e {target}/data/x && exit $code
        """,
        code=5,
    )
    assert f"something is mounted in it, at {target}/data" in done.stderr


# Environments in environments


def test_inside_of_another_environment(installer: Path, small_sh: Path, place: Path) -> None:
    """It is a guest: the host knows its own files, and is updated and removed around it."""
    host, guest = place / "env", place / "env/share/guests/env"
    to(small_sh, host)
    to(installer, guest)
    assert faults(guest) == []
    assert [fault for fault in faults(host) if not fault.startswith("b'share/guests")] == []
    to(small_sh, host, "-u")
    assert faults(guest) == []
    to(small_sh, host, "--uninstall")
    assert faults(guest) == []
    assert os.listdir(host) == ["share"]


def test_by_an_installer_that_lies_in_it(small_sh: Path, place: Path) -> None:
    """It is in the way of installing, and is carried over by an update."""
    target = place / "env"
    target.mkdir()
    shutil.copy(small_sh, target / "env.sh")
    refused(to(target / "env.sh", target, code=None), 5, "not an empty directory: env.sh")
    refused(to(target / "env.sh", ".", code=None, cwd=target), 5, "not an empty directory: env.sh")
    to(target / "env.sh", target / "env")
    assert faults(target / "env") == []
    shutil.move(target / "env.sh", target / "env/env.sh")
    to(target / "env/env.sh", target / "env", "-u")
    assert (target / "env/env.sh").read_bytes() == small_sh.read_bytes()
    to("env.sh", ".", "--uninstall", cwd=target / "env")  # type: ignore[arg-type]
    assert os.listdir(target / "env") == ["env.sh"]


def test_the_program_runs_in_its_own_directory(small_sh: Path, place: Path) -> None:
    """With a current directory that does not let it in, for one that is another user's."""
    need_root("another user")
    (place / "to").mkdir()
    os.chown(place / "to", NOBODY, NOBODY)
    shutil.copy(small_sh, place / "env.sh")
    (place / "env.sh").chmod(0o644)
    (place / "private").mkdir(0o700)
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        f"{place}/env.sh",
        "-p",
        f"{place}/to/env",
    ]
    done = subprocess.run(command, cwd=place / "private", env=SURROUNDINGS, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert faults(place / "to/env") == []
