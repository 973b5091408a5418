"""The script of an installer in every shell: what it starts and with which environment, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from tests.conftest import need
from tests.unit.headers import SHELLS, Installer, build, payload_with_python, refused, snapshot
from tests.unit.headers import run as started

# Set by a shell itself, whatever it runs.
OF_SHELLS = {b"_", b"PWD", b"OLDPWD", b"SHLVL", b"LOGNAME", b"A__z"}
OURS = {b"PYINSTALLER_RESET_ENVIRONMENT": b"1"}
RECORD = ("arguments", "environ", "owner", "stage", "status", "stdin")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(SHELLS[name][0])
    return name


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return build(tmp_path / "env.sh")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "some" / "place" / "env"


def left(installer: Installer) -> list[str]:
    """List what stands beside an installer and its record."""
    return [name for name in snapshot(installer.path.parent) if not name.startswith(installer.path.name)]


def environment(run: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in run.items() if name not in OF_SHELLS}


@dataclass(frozen=True)
class Words:
    """What dash says for some command lines."""

    OPTIONS: ClassVar[Mapping[tuple[str, ...], int]] = {
        ("--help",): 0,
        ("--info", "--json"): 0,
        ("--check", "--json"): 0,
        ("--list",): 0,
        ("--dry-run", "--json"): 0,
        ("--uninstall",): 6,
        ("--json", "-p", 'a"\\:'): 7,
        ("--json", "-p", "a\n:"): 7,
        ("-bfk",): 2,
    }

    installer: Installer
    said: dict[tuple[str, ...], subprocess.CompletedProcess[bytes]] = field(default_factory=dict)

    def run(self, shell: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        home = self.installer.path.parent
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
        return self.installer.run(*options, shell=shell, cwd=home, env=environ)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    licence = "é\x00\x01\"'$(touch no)`touch no`\nEOF\n".encode()
    words = Words(build(tmp_path_factory.mktemp("words") / "env.sh", licence=licence))
    for options, code in words.OPTIONS.items():
        words.said[options] = words.run("dash", options)
        assert words.said[options].returncode == code
    return words


class TestEveryShell:
    def test_install(self, shell: str, installer: Installer, target: Path) -> None:
        run = installer.run("-b", "-p", target, shell=shell, umask=0o027)
        assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
        staging = Path(installer.record.value("--staging"))
        assert staging.parent == target.parent
        assert staging.name.startswith(".env.pack-") and len(staging.name) == len(".env.pack-") + 8
        assert installer.record.text("stage").splitlines()[0].startswith(f"drwx------ 3 {os.geteuid()} ")
        assert installer.record.text("stdin") == "/dev/null\n"
        host, process = installer.record.text("owner").split()
        assert (host, process.isdigit()) == (os.uname().nodename, True)
        assert "Umask:\t0027" in installer.record.text("status")
        assert (target.parent.stat().st_mode & 0o777, os.listdir(target.parent)) == (0o750, ["env"])

    def test_the_same_words(self, shell: str, words: Words) -> None:
        """Whatever shell runs it, it says the same, and leaves the same."""
        for options, expected in words.said.items():
            run = words.run(shell, options)
            assert (run.returncode, run.stdout, run.stderr) == (expected.returncode, expected.stdout, expected.stderr)
            assert left(words.installer) == []

    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_facts_are_data(self, locale: str, shell: str, tmp_path: Path) -> None:
        name = "'\"$(x)`x`\\n %s ${HOME} " + "".join(map(chr, range(0xA1, 0x180))) + "日本😀"
        installer = build(tmp_path / "env.sh", facts={"installer_name": name})
        run = installer.run("--version", shell=shell, env={"PATH": os.environ["PATH"], "LC_ALL": locale})
        if (shell, locale) == ("yash", "C"):
            assert run.returncode != 0  # it reads characters, and there are none of these
        else:
            assert (run.returncode, run.stdout.decode()) == (0, f"{name} 1.2 (packed by pack 0.1)\n")

    def test_a_full_directory(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        place = tmp_path / "a * [b]"
        place.mkdir()
        for name in ("*", " x", ".y", "..z"):
            (place / name).touch()
        refused(installer.run("-b", "-p", place, shell=shell), 5, "not an empty directory: ", "*", " x", ".y", "..z")
        refused(installer.run("-b", "-p", place / "*" / "x", shell=shell), 5, f"{place}/* exists, and is no directory")

    def test_update(self, shell: str, installer: Installer, target: Path) -> None:
        assert installer.run("-b", "-p", target, shell=shell).returncode == 0
        assert installer.run("-buqs", "-p", target, "--log=x", "--added=drop", shell=shell, cwd=target).returncode == 0
        words = ["--quiet", "--log", "x", "--unattended", "--skip-scripts"]
        words += ["--size", "10000", "--update", "--added", "drop"]
        assert installer.record.arguments[7:] == words

    def test_a_directory_that_is_gone(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        command: list[str | Path] = [
            "sh",
            "-c",
            'cd "$1" && rmdir "$1" && shift && exec "$@"',
            "sh",
            gone,
            *SHELLS[shell],
            installer.path,
        ]
        run = started(*command, "-p", "x")
        assert run.returncode != 0
        assert not installer.record.exists

    def test_another_directory(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        """It finds itself by a relative name, and under names that shells take for something else."""
        for name in ("-e", "a b'\"$(x)", "é\n"):
            path = tmp_path / "else" / name
            path.parent.mkdir(exist_ok=True)
            shutil.copy(installer.path, path)
            for words in (["--", name], [f"./{name}"]) if name != "-e" else ([f"./{name}"],):
                if words[0] == "--" and shell.startswith(("busybox", "yash")):
                    continue
                run = started(*SHELLS[shell], *words, "-p", "../env", cwd=path.parent)
                assert run.returncode == 0, run
                assert installer.record.value("--installer") == str(path)
                shutil.rmtree(tmp_path / "env")


class TestEnvironment:
    HOSTILE: Mapping[bytes, bytes] = {
        b"PATH": b"/nonexistent",
        b"HOME": b"/nonexistent",
        b"LC_ALL": b"garbage",
        b"LD_LIBRARY_PATH": b"/nonexistent",
        b"TMPDIR": b"/nonexistent",
        b"PYTHONHOME": b"/nonexistent",
        b"POSIXLY_CORRECT": b"1",
        b"GREP_OPTIONS": b"-v",
        b"CDPATH": b"/",
        b"ENV": b"/nonexistent",
        b"BASH_ENV": b"/nonexistent",
        b"empty": b"",
        b"words": b" a 'b' \"c\" $(d) `e` \\f\n\n g\t*\n",
        b"bytes": b"\xff\xfe\x80\x9c\xc3\xa9",
        b"letters": "é日本😀Ü".encode(),
    }
    # Names of the script's own variables.
    OWN: Mapping[bytes, bytes] = dict.fromkeys(
        b"name self log quiet json title action wanted force update stage made running program caller platform system "
        b"machine glibc limit entries payload hooks environment target parent base inside way signal whole".split(),
        b"theirs",
    )

    def test_the_program_gets_the_callers(self, shell: str, installer: Installer, target: Path) -> None:
        environ = {**self.HOSTILE, **self.OWN}
        run = installer.run("-b", "-p", target, shell=shell, env=environ, executable=need(SHELLS[shell][0]))
        assert run.returncode == 0, run
        assert environment(installer.record.environ) == environment({**environ, **OURS})

    def test_no_variables_at_all(self, shell: str, installer: Installer, target: Path) -> None:
        run = installer.run("-b", "-p", target, shell=shell, env={}, executable=need(SHELLS[shell][0]))
        assert run.returncode == 0, run
        # Some shells export the PATH that they begin with where they find none.
        assert set(environment(installer.record.environ)) - {b"PATH", b"HOME"} == set(OURS)

    def test_options_of_the_shell(self, shell: str, installer: Installer, target: Path) -> None:
        command: list[str | Path] = [*SHELLS[shell], "-efCu", installer.path, "-b", "-p", target]
        environ = {"PATH": os.environ["PATH"]}
        run = started(*command, env=environ)
        assert run.returncode == 0, run
        assert set(environment(installer.record.environ)) - {b"HOME"} == {b"PATH", *OURS}

    @pytest.mark.parametrize("bash", ["bash", "bash --posix"])
    def test_what_a_bash_exports(self, bash: str, installer: Installer, target: Path) -> None:
        """Options that are read-only, and functions with the names of programs."""
        need("bash")
        environ = {
            "PATH": os.environ["PATH"],
            "SHELLOPTS": "allexport:braceexpand",
            "BASH_FUNC_tail%%": "() { echo function; }",
            "BASH_FUNC_rm%%": "() { echo function; }",
        }
        assert installer.run("-b", "-p", target, shell=bash, env=environ).returncode == 0
        names = set(installer.record.environ) - OF_SHELLS - {b"SHELLOPTS"}
        assert names - {b"BASH_FUNC_tail%%", b"BASH_FUNC_rm%%"} == {b"PATH", *OURS}


class TestTools:
    def test_those_of_busybox(self, shell: str, installer: Installer, target: Path, tmp_path: Path) -> None:
        busybox = need("busybox")
        (tmp_path / "bin").mkdir()
        tools = (
            "cat chmod cut df expr gzip head id mkdir mkfifo mktemp od printf rm rmdir sha256sum tail tar tr uname wc"
        )
        for name in tools.split():
            (tmp_path / "bin" / name).symlink_to(busybox)
        environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        assert installer.run("-b", "-p", target, shell=shell, env=environ).returncode == 0
        assert installer.run("--check", "--json", shell=shell, env=environ).returncode == 0
        without = build(tmp_path / "env.sh", opener=None, licence=b"\xc3\xa9\n")
        assert without.run("-b", "-p", f"{target}2", shell=shell, env=environ).returncode == 0
        assert without.run("--info", "--json", env=environ).stdout == without.run("--info", "--json").stdout
        refused(without.run("-p", "a\x01b:", env=environ), 7, "a?b:")


class TestStaging:
    def test_nothing_stays_of_a_run_that_failed(self, shell: str, installer: Installer, target: Path) -> None:
        installer.record.behave('mkdir "$staging/deep" && chmod 500 "$staging/deep"; exit 8\n')
        assert installer.run("-b", "-p", target, shell=shell).returncode == 8
        assert left(installer) == []

    def test_an_empty_target_stays_so_until_the_program_comes(
        self, shell: str, installer: Installer, target: Path
    ) -> None:
        installer.record.behave('ls -A "$target" >"$record/found"; exit 8\n')
        target.mkdir(parents=True)
        assert installer.run("-b", "-p", target, shell=shell).returncode == 8
        assert installer.record.text("found") == ""
        assert Path(installer.record.value("--staging")).parent == target.parent
        assert left(installer) == ["some", "some/place", "some/place/env"]

    def test_parents_that_others_use_stay(self, installer: Installer, target: Path) -> None:
        installer.record.behave('mkdir "$staging/../other"; exit 8\n')
        target.parent.parent.mkdir()
        assert installer.run("-b", "-p", target).returncode == 8
        assert left(installer) == ["some", "some/place", "some/place/other"]

    def test_a_tree_that_stands_after_a_failure_stays(self, installer: Installer, target: Path) -> None:
        installer.record.behave('mkdir "$target"; exit 15\n')
        assert installer.run("-b", "-p", target).returncode == 15
        assert left(installer) == ["some", "some/place", "some/place/env"]

    def test_a_long_name(self, installer: Installer, tmp_path: Path) -> None:
        name = "é" * 127
        assert installer.run("-b", "-p", tmp_path / name).returncode == 0
        staging = os.path.basename(installer.record.value("--staging"))
        assert len(os.fsencode(staging)) == 1 + 238 + 6 + 8
        assert left(installer) == [name, f"{name}/.pack", f"{name}/.pack/references.json"]

    def test_the_code_of_the_program(self, shell: str, installer: Installer, target: Path) -> None:
        for code in (1, 127):
            installer.record.behave(f"exit {code}\n")
            assert installer.run("-b", "-p", target, shell=shell).returncode == code

    def test_a_program_that_is_killed(self, shell: str, installer: Installer, target: Path) -> None:
        installer.record.behave("kill -KILL $$\n")
        refused(installer.run("-b", "-p", target, shell=shell), 137, "the program was ended by signal 9")
        assert left(installer) == []

    def test_a_full_disk(self, tmp_path: Path) -> None:
        need("unshare")
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        installer = build(tmp_path / "env.sh", opener=os.urandom(60_000))
        place = tmp_path / "small"
        place.mkdir()
        mount = (
            'mount -t tmpfs -o size=32k none "$1" && "$2" "$3" -p "$1/env" --skip-space-check; e=$?; ls "$1"; exit $e'
        )
        command: list[str | Path] = ["unshare", "-m", "sh", "-c", mount, "sh", place, "dash", installer.path]
        run = started(*command)
        refused(run, 5, "cannot be written there")
        assert run.stdout == b""


WAITING = """trap 'echo TERM >>"$record/got"; exit 143' TERM
: >"$record/ready"
n=0
while [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
"""


def start(installer: Installer, shell: str, *options: str | Path) -> subprocess.Popen[bytes]:
    """Start an installer, and wait until its program has begun to wait."""
    command: list[str | Path] = [*SHELLS[shell], installer.path, *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (installer.record.directory / "ready").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    return process


class TestSignals:
    @pytest.mark.parametrize(
        "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT], ids=lambda each: each.name
    )
    def test_each_is_passed_on(
        self, number: signal.Signals, shell: str, installer: Installer, target: Path, hang_up: None
    ) -> None:
        installer.record.behave(WAITING)
        process = start(installer, shell, "-b", "-p", target)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert installer.record.text("got") == "TERM\n"
        assert left(installer) == []

    def test_two_of_them(self, shell: str, installer: Installer, target: Path) -> None:
        installer.record.behave(WAITING.replace("exit 143", "sleep 0.3; exit 143"))
        process = start(installer, shell, "-b", "-p", target)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode in (130, 143)
        assert left(installer) == []

    def test_a_program_that_was_done_all_the_same(self, shell: str, installer: Installer, target: Path) -> None:
        installer.record.behave(WAITING.replace("exit 143", "mkdir $target; sleep 0.2; exit 0"))
        process = start(installer, shell, "-b", "-p", target)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert left(installer) == ["some", "some/place", "some/place/env"]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda each: each.name)
    def test_what_the_caller_ignores_stays_ignored(
        self, number: signal.Signals, shell: str, installer: Installer, target: Path
    ) -> None:
        installer.record.behave(WAITING.replace("-lt 100", "-lt 3"))
        before = signal.signal(number, signal.SIG_IGN)
        try:
            process = start(installer, shell, "-b", "-p", target)
        finally:
            signal.signal(number, before)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert not (installer.record.directory / "got").exists()

    def test_while_the_stub_is_unpacked(self, shell: str, tmp_path: Path, target: Path) -> None:
        opener = f"#!/bin/sh\nPATH=/usr/bin:/bin\n: >'{tmp_path}/env.sh.record/ready'\nexec sleep 10\n"
        installer = build(tmp_path / "env.sh", opener=opener.encode())
        process = start(installer, shell, "-b", "-p", target)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 143
        assert b"interrupted by a signal" in said
        assert left(installer) == []

    def test_while_python_is_unpacked(self, shell: str, tmp_path: Path, target: Path) -> None:
        (tmp_path / "env.sh.bin").mkdir()
        zstd = tmp_path / "env.sh.bin" / "zstd"
        zstd.write_text(f"#!/bin/sh\n: >'{tmp_path}/env.sh.record/ready'\nexec sleep 2\n")
        zstd.chmod(0o755)
        installer = build(tmp_path / "env.sh", opener=None, payload="zst")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{zstd.parent}:{os.environ['PATH']}")
            process = start(installer, shell, "-b", "-p", target)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 143
        assert left(installer) == []


class TestWithoutAStub:
    @pytest.fixture(autouse=True)
    def _tools(self) -> Iterator[None]:
        need("tar"), need("gzip"), need("/usr/bin/python3")
        yield

    def test_the_environments_python_does_it(self, shell: str, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", opener=None)
        environ = {**os.environ, "payload": "theirs"}
        run = installer.run("-b", "-p", target, "--jobs", "2", shell=shell, env=environ)
        assert run.returncode == 0, run
        assert b"this installer carries none. Trying the environment's own Python" in run.stderr
        words = installer.record.arguments
        assert words[:4] == ["install", "--installer", str(installer.path), "--staging"]
        assert words[5:] == ["--target", str(target), "--unattended", "--size", "10000", "--jobs", "2", "--expanded"]
        assert (installer.record.directory / "stream").read_bytes()[:11] == b"bin/python3"
        assert installer.record.environ[b"payload"] == b"theirs"
        assert left(installer) == ["some", "some/place", "some/place/env"]

    def test_a_stub_of_another_machine(self, shell: str, tmp_path: Path, target: Path) -> None:
        """No shell takes it for a script."""
        opener = b"\x7fELF\x02\x01\x01\n: >run\n" + bytes(30)
        run = build(tmp_path / "env.sh", opener=opener).run("-b", "-p", target, shell=shell, cwd=tmp_path)
        assert run.returncode == 0, run
        assert b"it is for another kind of machine" in run.stderr
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("parts", "why"),
        [
            pytest.param(
                {"opener": b"#!/bin/sh\necho no glibc >&2; exit 1\n"}, "does not start: no glibc", id="opener"
            ),
            pytest.param(
                {"program": b"#!/bin/sh\necho GLIBC_9 >&2; exit 127\n"}, "does not start: GLIBC_9", id="program"
            ),
            pytest.param({"program": b"#!/bin/sh\nkill -9 $$\n"}, "it ended with code 137", id="killed"),
        ],
    )
    def test_a_stub_that_does_not_start(
        self, parts: Mapping[str, bytes], why: str, tmp_path: Path, target: Path
    ) -> None:
        run = build(tmp_path / "env.sh", **parts).run("-b", "-p", target)  # type: ignore[arg-type]
        assert (run.returncode, why in run.stderr.decode()) == (0, True), run

    def test_zstd(self, tmp_path: Path, target: Path) -> None:
        zstd = need("zstd")
        installer = build(tmp_path / "env.sh", opener=None, payload="zst", compress=[str(zstd), "-q"])
        assert installer.run("-b", "-p", target).returncode == 0

    @pytest.mark.parametrize(
        ("files", "why"),
        [
            pytest.param([("bin/perl", b"")], "no Python 3.8", id="no Python"),
            pytest.param([("bin/python3", b"#!/bin/sh\nexit 1\n")], "no Python 3.8", id="too old"),
        ],
    )
    def test_no_python(self, files: list[tuple[str, bytes]], why: str, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", opener=None, files=files)
        run = installer.run("-b", "-p", target, "--json")
        assert run.returncode == 10
        assert why in run.stderr.decode()
        assert left(installer) == []

    def test_a_python_that_the_callers_libraries_hinder(self, tmp_path: Path, target: Path) -> None:
        record = build(tmp_path / "env.sh").record
        python, relocator = payload_with_python(record)
        hindered = python[1].replace(b"exec", b'[ -z "$LD_LIBRARY_PATH" ] || exit 1\nexec')
        installer = build(tmp_path / "env.sh", opener=None, files=[("bin/python3.11", hindered), relocator])
        run = installer.run("-b", "-p", target, env={**os.environ, "LD_LIBRARY_PATH": "/nonexistent"})
        assert run.returncode == 0

    def test_a_payload_that_is_damaged(self, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", opener=None)
        data = bytearray(installer.path.read_bytes())
        data[-400] ^= 1
        run = installer.write(bytes(data)).run("-b", "-p", target)
        assert run.returncode == 11
        assert b"its payload is not what it was" in run.stderr
        assert left(installer) == []

    def test_a_program_that_does_not_read_it(self, shell: str, tmp_path: Path, target: Path) -> None:
        """Nobody waits for ever for a pipe that is not read to its end."""
        record = build(tmp_path / "env.sh").record
        files = [
            payload_with_python(record)[0],
            (".pack/relocator", b"raise SystemExit(8)\n"),
            ("x", os.urandom(300_000)),
        ]
        installer = build(tmp_path / "env.sh", opener=None, files=files)
        assert installer.run("-b", "-p", target, shell=shell).returncode == 8
        assert left(installer) == []
