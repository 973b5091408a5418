"""The script of an installer: which targets it takes and refuses, with which codes and in which words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.unit.headers import Installer, build, refused, snapshot, tools
from tests.unit.headers import run as started
from tests.unit.other_user import NOBODY, open_directory


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return build(tmp_path / "env.sh")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "place" / "env"


def somebody() -> Mapping[str, Any]:
    """Return what starts a process as a user who has to ask for permission."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


class TestTarget:
    @pytest.mark.parametrize(
        ("name", "facts", "code", "words"),
        [
            pytest.param("a:b", {}, 7, "a colon separates", id="colon"),
            pytest.param("a\nb", {}, 7, "a?b cannot be the target: it holds a newline", id="newline"),
            pytest.param("a\n", {}, 7, "a? cannot be the target: it holds a newline", id="newline at the end"),
            pytest.param("a\x1b[1mb", {}, 7, "a?[1mb cannot", id="escape"),
            pytest.param("a\x7fb", {}, 7, "a?b cannot", id="delete"),
            *(
                pytest.param(f"a{mark}b", {}, 7, "in it would be run, or end a string, in scripts", id=mark)
                for mark in "\"'$\\`"
            ),
            *(pytest.param(f"a{mark}b", {"has_text": False}, 0, "", id=f"{mark} without text") for mark in "\"'$\\`"),
            pytest.param("ä b*?[c]", {}, 0, "", id="spaces, patterns, other alphabets"),
            pytest.param("a", {"limit": "9", "limit_file": "bin/x"}, 8, "bin/x has room for 9", id="too long"),
            pytest.param("a", {"limit": "900"}, 0, "", id="not too long"),
            pytest.param("é" * 128, {}, 7, "a name in it has more than 255 bytes", id="NAME_MAX"),
            pytest.param("é" * 127 + "a", {}, 0, "", id="just that"),
            pytest.param("a" * 200, {"longest_path": 3900}, 7, "more than the system's 4095", id="PATH_MAX"),
        ],
    )
    def test_what_it_may_be(
        self, name: str, facts: Mapping[str, object], code: int, words: str, tmp_path: Path
    ) -> None:
        installer = build(tmp_path / "env.sh", facts=facts)
        before = snapshot(tmp_path)
        run = installer.run("-b", "-p", tmp_path / name)
        if code == 0:
            assert run.returncode == 0, run
            assert installer.record.value("--target") == str(tmp_path / name)
        else:
            refused(run, code, words)
            assert snapshot(tmp_path) == before

    @pytest.mark.parametrize(
        ("facts", "code", "words"),
        [
            pytest.param({"limit": "9", "limit_allowed": ""}, 0, "", id="without a limit then"),
            pytest.param({"limit": "9", "limit_allowed": "900"}, 0, "", id="within the limit then"),
            pytest.param(
                {"limit": "9", "limit_allowed": "10", "limit_allowed_file": "y"}, 8, "y has room for 10", id="beyond"
            ),
        ],
    )
    def test_allow_unrelocated(
        self, facts: Mapping[str, object], code: int, words: str, tmp_path: Path, target: Path
    ) -> None:
        installer = build(tmp_path / "env.sh", facts={"limit_file": "x", **facts})
        advised = b"--allow-unrelocated" in installer.run("-b", "-p", target).stderr
        assert advised == (code == 0)
        run = installer.run("-b", "-p", target, "--allow-unrelocated")
        assert (run.returncode, words in run.stderr.decode()) == (code, True), run

    @pytest.mark.parametrize(
        "written",
        [
            "place/env",
            "./place//env/",
            "place/./env/.",
            "nothing/../place/env",
            "place/nothing/../../place/x/../env",
            "link/env",
            "link/../../place/env",
            "-p/../place/env",
        ],
    )
    def test_the_physical_path(self, written: str, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "place").mkdir()
        (tmp_path / "real" / "deep").mkdir(parents=True)
        (tmp_path / "link").symlink_to("place")
        if written.startswith("link/.."):
            (tmp_path / "link").unlink()
            (tmp_path / "link").symlink_to("real/deep")
        assert installer.run("-b", "-p", written, cwd=tmp_path).returncode == 0
        assert installer.record.value("--target") == f"{tmp_path}/place/env"
        assert sorted(os.listdir(tmp_path / "place")) == ["env"]

    def test_a_dash_at_the_begin(self, installer: Installer, tmp_path: Path) -> None:
        assert installer.run("-p", "-n", cwd=tmp_path).returncode == 0
        assert installer.record.value("--target") == f"{tmp_path}/-n"

    def test_a_symlink_to_an_empty_directory(self, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert installer.run("-b", "-p", tmp_path / "link").returncode == 0
        assert installer.record.value("--target") == str(tmp_path / "real")

    def test_the_physical_path_is_judged(self, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "a:b").mkdir()
        (tmp_path / "link").symlink_to("a:b")
        refused(installer.run("-b", "-p", tmp_path / "link" / "env"), 7, f"{tmp_path}/a:b/env", "a colon")

    def test_the_root(self, installer: Installer) -> None:
        refused(installer.run("-b", "-p", "//"), 7, "the root directory")

    def test_a_directory_that_is_gone(self, installer: Installer, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        command = f"cd {gone} && rmdir {gone} && exec dash {installer.path} -p x"
        run = started("sh", "-c", command)
        refused(run, 5, "the current directory does not exist any more")


class TestWhatStandsThere:
    def test_a_dangling_symlink(self, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("nothing")
        for target in (tmp_path / "link", tmp_path / "link" / "env"):
            refused(installer.run("-b", "-p", target), 5, f"{tmp_path}/link is a symbolic link that leads nowhere")

    def test_a_file(self, installer: Installer) -> None:
        for target in (installer.path, installer.path / "env", f"{installer.path}/"):
            refused(installer.run("-b", "-p", target), 5, f"{installer.path} exists, and is no directory")

    def test_a_full_directory(self, installer: Installer, target: Path) -> None:
        target.mkdir(parents=True)
        for number in range(11):
            (target / f"f{number:02}").touch()
        (target / ".hidden\x1b").symlink_to("nothing")
        run = installer.run("-b", "-f", "-p", target)
        refused(run, 5, "is not an empty directory", "f00, f01", "and 2 more")
        assert b"\x1b" not in run.stderr

    @pytest.mark.parametrize(
        ("options", "code"),
        [([], 5), (["-f"], 0), (["-u"], 0), (["--update", "--force"], 0)],
        ids=["no option", "-f", "-u", "both"],
    )
    def test_an_installation(self, options: list[str], code: int, installer: Installer, target: Path) -> None:
        (target / ".pack").mkdir(parents=True)
        (target / ".pack" / "references.json").write_text("{}")
        run = installer.run("-b", *options, "-p", target)
        if code:
            refused(run, code, "there is an installation already", "--update")
        else:
            assert run.returncode == 0
            # With --force alone the program sees for itself, behind what an interrupted run has left.
            assert ("--update" in installer.record.arguments, "--force" in installer.record.arguments) == (
                {"-u", "--update"} & set(options) != set(),
                {"-f", "--force"} & set(options) != set(),
            )

    @pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
    def test_update_of_nothing(self, full: bool, installer: Installer, target: Path) -> None:
        refused(installer.run("-b", "-u", "-p", target), 6, "holds no installation")
        target.mkdir(parents=True)
        if full:
            (target / "x").touch()
        refused(installer.run("-b", "-u", "-p", target), 6, "holds no installation", "x" if full else "")

    def test_an_installation_that_was_interrupted(self, installer: Installer, target: Path) -> None:
        target.mkdir(parents=True)
        (target / ".installing").write_text("{}")
        assert installer.run("-b", "-p", target).returncode == 0
        assert "--update" not in installer.record.arguments

    @pytest.mark.parametrize("where", ["parent", "target"])
    def test_no_permission(self, where: str) -> None:
        with open_directory() as directory:
            installer = build(directory / "env.sh")
            place = directory / "place"
            place.mkdir(mode=0o555)
            as_user = somebody()
            if where == "target":
                (place / "env").mkdir(mode=0o555)
            run = installer.run("-b", "-p", place / "env", **as_user)
            refused(run, 5, f"{place / 'env' if where == 'target' else place} cannot be written")

    def test_a_target_in_a_directory_of_somebody_else(self) -> None:
        with open_directory() as directory:
            installer = build(directory / "env.sh")
            installer.record.directory.chmod(0o777)
            target = directory / "env"
            target.mkdir()
            target.chmod(0o777)
            as_user = somebody()
            if not as_user:
                directory.chmod(0o555)
            assert installer.run("-b", "-p", target, **as_user).returncode == 0
            staging = Path(installer.record.value("--staging"))
            assert staging.parent == target / ".pack-staging"
            assert os.listdir(target) == [".pack"]

    @pytest.mark.parametrize(
        ("df", "code", "words"),
        [
            pytest.param("echo fs 100000 99995 5 99% /x", 5, "there is room for 0 MB", id="full"),
            pytest.param("echo fs 100000 0 90000 0% /x", 0, "", id="empty"),
            pytest.param("echo fs 0 0 0 - /x", 0, "", id="says nothing"),
            pytest.param("echo fs 0 0 0 0% /x", 0, "", id="Lustre"),
            pytest.param("echo fs - - - - /x", 0, "", id="knows nothing"),
            pytest.param("exit 1", 0, "", id="fails"),
            pytest.param("echo //a 5 b 1000 999 1 99% /x 7 8 9 1%", 5, "0 MB", id="names with spaces and numbers"),
            pytest.param("echo fs 9000000000000 1 8999999999999 1% /x", 0, "", id="more than 32 bits"),
            pytest.param(
                "case $1 in -Pi) n=3 ;; *) n=90000 ;; esac; echo fs 99999 1 $n 1% /", 5, "3 more files", id="inodes"
            ),
        ],
    )
    @pytest.mark.parametrize("shell", ["dash", "mksh"])
    def test_space(self, df: str, code: int, words: str, shell: str, installer: Installer, target: Path) -> None:
        need(shell)
        environ = tools(installer.path.parent / "bin", df=df)
        run = installer.run("-b", "-p", target, env=environ, shell=shell)
        if code:
            refused(run, code, words)
            assert installer.run("-b", "-p", target, "--skip-space-check", env=environ).returncode == 0
        else:
            assert run.returncode == 0

    @pytest.mark.parametrize("name", ["a b", "tab\tback\\slash", "a#b"])
    def test_noexec(self, name: str, tmp_path: Path) -> None:
        need("unshare")
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        installer = build(tmp_path / "env.sh", facts={"has_text": False})
        place = tmp_path / name.replace("\t", " ")
        place.mkdir()
        (place / "below").mkdir()
        mount = 'mount -t tmpfs -o noexec none "$1" && mkdir "$1/below"; shift; exec "$@"'
        command: list[str | Path] = [
            "unshare",
            "-m",
            "sh",
            "-c",
            mount,
            "sh",
            place,
            "dash",
            installer.path,
            "-b",
            "-p",
            place / "below" / "x",
        ]
        run = started(*command)
        refused(run, 10, f"nothing may be run from {place}", "noexec")
        assert installer.run("-b", "-p", f"{place}2").returncode == 0

    def test_a_mount_point(self, installer: Installer, target: Path) -> None:
        need("unshare")
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        target.mkdir(parents=True)
        mount = 'mount -t tmpfs none "$1" && mkdir "$1/lost+found" && shift && "$@" && ls -A "$1"'
        command: list[str | Path] = [
            "unshare",
            "-m",
            "sh",
            "-c",
            mount,
            "sh",
            target,
            "dash",
            installer.path,
            "-b",
            "-p",
            target,
        ]
        run = started(*command)
        assert Path(installer.record.value("--staging")).parent == target / ".pack-staging", run
        (target / "lost+found").mkdir()
        refused(installer.run("-b", "-p", target), 5, "not an empty directory: lost+found")
