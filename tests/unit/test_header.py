"""The script of an installer: its command line, the machines that it refuses, what it does without a program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import need
from tests.unit.headers import Installer, assembled, build, refused, snapshot, tools

LICENCE = b"You may.\n"


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return build(tmp_path / "env.sh")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "place" / "env"


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "passed"),
        [
            pytest.param([], [], id="none"),
            pytest.param(["-b"], [], id="-b"),
            pytest.param(["--batch"], [], id="--batch"),
            pytest.param(["-f"], ["--force"], id="-f"),
            pytest.param(["-s"], ["--skip-scripts"], id="-s"),
            pytest.param(["-bfs"], ["--skip-scripts", "--force"], id="joined"),
            pytest.param(["--jobs", "3"], ["--jobs", "3"], id="--jobs"),
            pytest.param(["--jobs=12", "--umask=027"], ["--jobs", "12", "--umask", "027"], id="with ="),
            pytest.param(["--group", "a b"], ["--group", "a b"], id="a value with a space"),
            pytest.param(["--allow-unrelocated"], ["--allow-unrelocated"], id="--allow-unrelocated"),
            pytest.param(["--register", "--added", "drop"], ["--register", "--added", "drop"], id="--register --added"),
            pytest.param(["--json"], ["--json"], id="--json"),
            pytest.param(["-q"], ["--quiet"], id="-q"),
            pytest.param(["--"], [], id="the end of the options"),
        ],
    )
    def test_what_the_program_is_told(
        self, options: list[str], passed: list[str], installer: Installer, target: Path
    ) -> None:
        run = installer.run(*options, "-p", target) if "--" not in options else installer.run("-p", target, *options)
        assert run.returncode == 0, run
        command = ["install", "--installer", str(installer.path), "--staging"]
        assert installer.record.arguments[:4] == command
        assert installer.record.arguments[5:7] == ["--target", str(target)]
        assert sorted(installer.record.arguments[7:]) == sorted([*passed, "--unattended", "--size", "10000"])

    @pytest.mark.parametrize("way", ["-p {}", "-p{}", "-bp {}", "-bp{}", "--prefix {}", "--prefix={}"])
    def test_a_target(self, way: str, installer: Installer, target: Path) -> None:
        assert installer.run(*way.format(target).split()).returncode == 0
        assert installer.record.value("--target") == str(target)

    def test_the_default_target(self, installer: Installer, tmp_path: Path) -> None:
        assert installer.run("-b", env={**os.environ, "HOME": f"{tmp_path}/"}).returncode == 0
        assert installer.record.value("--target") == f"{tmp_path}/fake"

    def test_no_home(self, installer: Installer) -> None:
        environ = {name: value for name, value in os.environ.items() if name != "HOME"}
        refused(installer.run("-b", env=environ), 2, "~/fake", "HOME is not set")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            pytest.param(["/opt/env"], "/opt/env: is no option", id="an operand"),
            pytest.param(["-b", "--", "x"], "x: is no option", id="an operand behind --"),
            pytest.param([""], "is no option", id="an empty operand"),
            pytest.param(["-"], "-: is no option", id="a dash"),
            pytest.param(["--wrong"], "--wrong: there is no such option", id="unknown"),
            pytest.param(["-bx"], "-x: there is no such option", id="unknown in joined ones"),
            pytest.param(["-b-foo"], "-b-foo: there is no such option", id="a dash in joined ones"),
            pytest.param(["--prefix"], "--prefix: its value is missing", id="no value"),
            pytest.param(["-bp"], "-p: its value is missing", id="no value for a joined one"),
            pytest.param(["-p", ""], "-p: its value is empty", id="an empty value"),
            pytest.param(["--prefix="], "--prefix: its value is empty", id="an empty value behind ="),
            pytest.param(["--batch=1"], "--batch takes no value", id="a value too much"),
            pytest.param(["-bi"], "-b and -i contradict", id="-b and -i"),
            pytest.param(["-i", "--json"], "-i and --json contradict", id="-i and --json"),
            pytest.param(["--list", "--check"], "--check and --list contradict", id="two things to do"),
            pytest.param(["--list", "-u"], "-u and --list do not go together", id="an option of another thing"),
            pytest.param(["--extract", "x", "-p", "y"], "--extract DIR says where to", id="two targets"),
            pytest.param(["--allowed-signers", "x"], "is for --check", id="--allowed-signers alone"),
            pytest.param(["--jobs", "0"], "--jobs 0", id="no jobs"),
            pytest.param(["--jobs", "two"], "--jobs two", id="jobs in words"),
            pytest.param(["--umask", "9"], "--umask 9", id="no umask"),
            pytest.param(["--added", "keep"], "--added keep", id="another way with what was added"),
            pytest.param(["--group", "-x"], "--group -x", id="a group like an option"),
            pytest.param(["-k"], "no directory of packages", id="constructor's -k"),
            pytest.param(["-m"], "no menu items", id="constructor's -m"),
            pytest.param(["-t"], "no tests of packages", id="constructor's -t"),
            pytest.param(["-bc"], "no start-up file", id="constructor's -c"),
        ],
    )
    def test_misuse(self, options: list[str], words: str, installer: Installer, tmp_path: Path) -> None:
        refused(installer.run(*options, cwd=tmp_path), 2, words)
        assert not installer.record.exists

    def test_help(self, installer: Installer) -> None:
        run = installer.run("-h")
        assert (run.returncode, run.stderr) == (0, b"")
        assert b"default: ~/fake" in run.stdout and b"--allow-unrelocated" in run.stdout

    def test_version(self, installer: Installer) -> None:
        assert installer.run("--version").stdout == b"Fake 1.2 (packed by pack 0.1)\n"


class TestMachine:
    def test_another_machine(self, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", facts={"machine": "pdp11", "platform": "linux-pdp11"})
        words = ("linux-pdp11", f"this machine is Linux on {os.uname().machine}")
        refused(installer.run("-b", "-p", target), 13, *words)

    def test_another_system(self, tmp_path: Path, target: Path) -> None:
        refused(
            build(tmp_path / "env.sh", facts={"system": "Plan9"}).run("-b", "-p", target), 13, "this machine is Linux"
        )

    def test_nothing_is_compiled(self, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", facts={"machine": "", "glibc": "", "platform": "noarch"})
        assert installer.run("-b", "-p", target).returncode == 0

    @pytest.mark.parametrize(
        ("scripts", "code", "words"),
        [
            pytest.param({"getconf": "echo glibc 2.17"}, 13, "this machine has 2.17", id="older"),
            pytest.param({"getconf": "echo glibc 2.28"}, 0, "", id="the same"),
            pytest.param({"getconf": "echo glibc 2.100"}, 0, "", id="three digits"),
            pytest.param({"getconf": "echo glibc 3.0"}, 0, "", id="the next"),
            pytest.param(
                {"getconf": "exit 1", "ldd": "echo 'ldd (Debian GLIBC 2.9-1) 2.9'"}, 13, "has 2.9", id="from ldd"
            ),
            pytest.param(
                {"getconf": "exit 1", "ldd": "echo 'musl libc (x86_64)' >&2; exit 1"}, 13, "is musl", id="musl"
            ),
        ],
    )
    def test_glibc(self, scripts: Mapping[str, str], code: int, words: str, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", facts={"glibc": "2.28", "glibc_file": "lib/libm.so"})
        run = installer.run("-b", "-p", target, env=tools(tmp_path / "bin", **scripts))
        assert (run.returncode, words in run.stderr.decode()) == (code, True), run
        if code == 13:
            assert b"lib/libm.so" in run.stderr
            run = installer.run("-b", "-p", target, "--skip-glibc-check", env=tools(tmp_path / "tools", **scripts))
            assert run.returncode == 0

    def test_glibc_by_its_library(self, tmp_path: Path, target: Path) -> None:
        environ = tools(tmp_path / "bin", getconf="exit 1", ldd="exit 1")
        run = build(tmp_path / "env.sh", facts={"glibc": "9.1"}).run("-b", "-p", target, env=environ)
        refused(run, 13, f"this machine has {os.confstr('CS_GNU_LIBC_VERSION').split()[1]}")  # type: ignore[union-attr]

    @pytest.mark.parametrize("hasher", ["shasum", "openssl"])
    def test_another_program_for_sha256(self, hasher: str, tmp_path: Path, target: Path) -> None:
        installer, program = build(tmp_path / "env.sh"), need(hasher)
        environ = only(tmp_path / "bin")
        (tmp_path / "bin" / "sha256sum").unlink()
        refused(run_alone(installer, environ, target), 10, "can compute a SHA-256")
        (tmp_path / "bin" / hasher).symlink_to(program)
        assert run_alone(installer, environ, target).returncode == 0


# All that the script may take for granted.
_COREUTILS = "cat chmod cut df expr head id mkdir mkfifo mktemp od rm rmdir sha256sum tail tr uname wc"


def only(directory: Path) -> Mapping[str, str]:
    """Return variables with which nothing but the least is found; see `run_alone`."""
    directory.mkdir()
    for name in _COREUTILS.split():
        (directory / name).symlink_to(need(name))
    return {"PATH": str(directory)}


def run_alone(installer: Installer, environ: Mapping[str, str], target: Path) -> subprocess.CompletedProcess[bytes]:
    """Run an installer where its own PATH leads to no more than that of the caller."""
    data = installer.path.read_bytes()
    begin = b"PATH=${PATH:+$PATH:}/usr/bin:/bin:/usr/local/bin:/run/current-system/sw/bin\n"
    header = installer.header.replace(begin, b"")
    assert header != installer.header
    alone = build_like(installer, header)
    try:
        return alone.run("-b", "-p", target, "--skip-glibc-check", env=environ, executable=need("dash"))
    finally:
        alone.write(data)


def build_like(installer: Installer, header: bytes) -> Installer:
    """Write an installer again, with another header."""
    return installer.write(assembled(header, installer.stub, installer.payload))


class TestWithoutAProgram:
    FACTS: Mapping[str, object] = {"limit": "99", "limit_file": "bin/x", "hooks": "pre-install post-install"}

    def test_dry_run(self, tmp_path: Path, target: Path) -> None:
        installer = build(tmp_path / "env.sh", facts={**self.FACTS, "limit": "999"})
        before = snapshot(tmp_path)
        run = installer.run("--dry-run", "-p", target)
        assert run.returncode == 0
        lines = dict(line.split(": ", 1) for line in run.stdout.decode().splitlines())
        assert lines["target"] == str(target)
        assert lines["staging"] == f"{target.parent}/.env.pack-XXXXXXXX"
        assert (lines["update"], lines["scripts"]) == ("false", "pre-install post-install")
        told = json.loads(installer.run("--dry-run", "-s", "-p", target, "--json").stdout)
        assert (told["target"], told["update"], told["scripts"], told["entries"]) == (str(target), False, "", 12)
        assert snapshot(tmp_path) == before
        refused(installer.run("--dry-run", "-p", f"{target}:"), 7, "a colon")

    def test_info(self, tmp_path: Path) -> None:
        installer = build(tmp_path / "env.sh", licence=LICENCE, facts=self.FACTS)
        run = installer.run("--info")
        assert run.returncode == 0
        assert run.stdout.endswith(b"\n\n" + LICENCE)
        for line in (
            "glibc: 2.3",
            "glibc-needed-by: lib/libfake.so",
            "longest-target: 99",
            "scripts: pre-install post",
        ):
            assert line in run.stdout.decode()

    def test_info_as_json(self, tmp_path: Path) -> None:
        licence = 'Bytes: "\\ \t\r\x1b\x7f % %s é 日 😀'.encode() + b"\xff\xc3( \xed\xa0\x80 \xf5 \xe0\x80\x80 \xe6\x97"
        told = json.loads(build(tmp_path / "env.sh", licence=licence).run("--info", "--json").stdout)
        assert told["licence"].replace("\ufffd", "") == licence.decode(errors="replace").replace("\ufffd", "")
        assert (told["name"], told["entries"], told["glibc"]) == ("Fake", 12, "2.3")

    def test_check(self, installer: Installer) -> None:
        run = installer.run("--check")
        assert run.returncode == 0
        assert [line.split()[0] for line in run.stdout.splitlines()] == [b"header", b"stub", b"payload", b"OK"]
        told = json.loads(installer.run("--check", "--json").stdout)
        assert told["ok"] is True

    def test_check_finds_what_is_damaged(self, installer: Installer) -> None:
        data = bytearray(installer.path.read_bytes())
        data[len(installer.header) + len(installer.stub) + 5] ^= 1
        installer.write(bytes(data))
        refused(installer.run("--check"), 11, "its payload is not what it was")
        data[len(installer.header) + 5] ^= 1
        refused(
            installer.write(bytes(data)).run("--check", "--json"), 11, "its program is not what it was. its payload"
        )

    def test_a_sum_beside_it(self, installer: Installer) -> None:
        sums = subprocess.run(
            ["sha256sum", installer.path.name], cwd=installer.path.parent, capture_output=True, check=True
        )
        beside = Path(f"{installer.path}.sha256")
        beside.write_bytes(sums.stdout)
        assert b"says the same" in installer.run("--check").stdout
        other = "1" if sums.stdout.startswith(b"0") else "0"
        beside.write_bytes(other.encode() + sums.stdout[1:])
        refused(installer.run("--check"), 11, f"env.sh.sha256 says {other}")


class TestSignature:
    @pytest.fixture
    def signed(self, installer: Installer, tmp_path: Path) -> Installer:
        need("ssh-keygen")
        for key in ("key", "other"):
            command: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / key]
            subprocess.run(command, check=True)
            public = (tmp_path / f"{key}.pub").read_text()
            (tmp_path / f"{key}.signers").write_text(f"{key}@example.org {public}")
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "pack-installer", "-f", tmp_path / "key", installer.path]
        subprocess.run(command, check=True, capture_output=True)
        return installer

    def test_whose_key_is_not_asked(self, signed: Installer) -> None:
        run = signed.run("--check")
        assert run.returncode == 0
        assert b'Good "pack-installer" signature with ED25519 key SHA256:' in run.stdout
        assert b"Whose key that is was not checked" in run.stdout

    def test_whose_key_is_asked(self, signed: Installer, tmp_path: Path) -> None:
        run = signed.run("--check", "--allowed-signers", tmp_path / "key.signers")
        assert run.returncode == 0
        assert b"for key@example.org" in run.stdout
        refused(signed.run("--check", f"--allowed-signers={tmp_path / 'other.signers'}"), 11, "other.signers")

    def test_a_signature_of_another_file(self, signed: Installer) -> None:
        build(signed.path, welcome=b"other\n")
        refused(signed.run("--check"), 11, "no valid signature")

    def test_no_signature_where_one_is_demanded(self, installer: Installer, tmp_path: Path) -> None:
        refused(installer.run("--check", "--allowed-signers", tmp_path / "x"), 11, "there is no signature")

    def test_no_ssh_keygen(self, signed: Installer, tmp_path: Path) -> None:
        environ = tools(tmp_path / "bin", **{"ssh-keygen": "echo 'unknown option -- Y' >&2; exit 1"})
        refused(signed.run("--check", env=environ), 10, "too old")


class TestWhatIsSaid:
    @pytest.mark.parametrize("name", ['a"b:', "a\\b:", "é日:", "a\x01\nb", "a\tb", "a/\x80\xff:"])
    def test_errors_in_json(self, name: str, installer: Installer, tmp_path: Path) -> None:
        run = installer.run("--json", "-b", "-p", f"{tmp_path}/{name}")
        told = json.loads(run.stdout)
        assert told["code"] == run.returncode == 7
        assert f"env.sh: error: {told['error']}\n" in run.stderr.decode()

    def test_misuse_in_json(self, installer: Installer) -> None:
        run = installer.run("--wrong", "--json")
        assert json.loads(run.stdout) == {"code": 2, "error": "--wrong: there is no such option."}

    def test_the_log(self, installer: Installer, tmp_path: Path) -> None:
        for options in (["--check"], ["--check", "-q"], ["-p", "a:b"]):
            installer.run(*options, "--log", "-log", cwd=tmp_path)
        lines = (tmp_path / "-log").read_text().splitlines()
        assert lines.count("OK") == 2
        assert lines[-2].startswith("env.sh: error: ") and lines[-1].startswith("TIP: ")
        assert installer.run("--log", "-log", "-p", tmp_path / "env", cwd=tmp_path).returncode == 0
        assert installer.record.value("--log") == "./-log"

    def test_no_log(self, installer: Installer, tmp_path: Path) -> None:
        refused(installer.run("--log", tmp_path, "-p", tmp_path / "env"), 5, "the log cannot be written")

    def test_quiet(self, installer: Installer) -> None:
        assert installer.run("--check", "--quiet").stdout == b""
        assert installer.run("-q", "-x").stderr != b""


def test_uninstall(installer: Installer, target: Path) -> None:
    refused(installer.run("--uninstall", "-p", target), 6, "does not exist")
    assert installer.run("-b", "-p", target).returncode == 0
    run = installer.run("--uninstall", "-s", "-p", target)
    assert run.returncode == 0
    assert installer.record.arguments[0] == "uninstall"
    assert installer.record.arguments[5:] == ["--target", str(target), "--unattended", "--skip-scripts"]
    assert os.listdir(target.parent) == []


def test_extract(tmp_path: Path, target: Path) -> None:
    installer = build(tmp_path / "env.sh", facts={"limit": "3", "limit_file": "x"})
    assert installer.run("--extract", target, "--jobs=2", "--json").returncode == 0
    assert installer.record.arguments[0] == "extract"
    assert installer.record.arguments[5:] == ["--target", str(target), "--size", "10000", "--jobs", "2", "--json"]
    refused(installer.run("--extract", target), 5, "not an empty directory: .pack")


def test_list(installer: Installer, target: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    run = installer.run("--list", "-p", target)
    assert (run.returncode, run.stdout) == (0, b"listed\n")
    assert installer.record.arguments[:1] == ["list"] and "--target" not in installer.record.arguments
    assert Path(installer.record.value("--staging")).parent == tmp_path
    for name in ("arguments", "environ", "owner", "stage", "status", "stdin"):
        (installer.record.directory / name).unlink()
    assert snapshot(tmp_path) == before
