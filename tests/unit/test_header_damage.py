"""The script of an installer that was cut, changed, or read from somewhere else than its file: it never goes on."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.conftest import cases, need
from tests.unit.headers import SHELLS, Installer, build, refused
from tests.unit.headers import run as started

STEP = 61  # bytes
FLIPS = 300


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(SHELLS[name][0])
    return name


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return build(tmp_path / "env.sh", licence=b"A\nB\n", welcome=os.urandom(3000))


def install(installer: Installer, shell: str = "dash") -> subprocess.CompletedProcess[bytes]:
    return installer.run("-b", "-p", target(installer), shell=shell, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})


def target(installer: Installer) -> Path:
    return installer.path.parent / "env"


def test_cut_anywhere(shell: str, installer: Installer) -> None:
    """Behind its first line, which alone is an empty script, no cut is silent, and none installs anything."""
    data = installer.path.read_bytes()
    points = list(range(11, len(data), STEP))
    end = len(installer.header)
    for point in {*(points[number] for number in cases(4, len(points))), 11, 12, end - 1, end, end + 1, len(data) - 1}:
        run = install(installer.write(data[:point]), shell)
        assert run.returncode != 0 and run.stderr, point
        assert not target(installer).exists()
    assert install(installer.write(data), shell).returncode == 0


def test_something_appended(shell: str, installer: Installer) -> None:
    data = installer.path.read_bytes()
    for more in (b"\n", b"\0", b"x" * 284, data[-284:]):
        refused(install(installer.write(data + more), shell), 11, "it does not end as it should")
    refused(install(installer.write(data + data), shell), 11, "it does not end as it should")


def test_each_byte_of_the_trailer(installer: Installer) -> None:
    data = installer.path.read_bytes()
    begin = len(data) - 284
    sums = [begin + data[begin:].index(hashlib.sha256(part).hexdigest().encode()) for part in installer.parts[1:]]
    for place in range(begin, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        # What the program and the payload hash to is compared only where these are read.
        option = "--check" if any(place in range(at, at + 64) for at in sums) else "--version"
        refused(installer.write(bytes(damaged)).run(option), 11, "the installer is damaged")


def test_bytes_of_the_trailer_in_every_shell(shell: str, installer: Installer) -> None:
    data = installer.path.read_bytes()
    for place in random.Random(6).sample(range(len(data) - 284, len(data)), 6):
        for value in (0, 0x80, data[place] ^ 1):
            damaged = bytearray(data)
            damaged[place] = value
            refused(installer.write(bytes(damaged)).run("--check", shell=shell), 11, "the installer is damaged")


@pytest.mark.parametrize("number", cases(7, FLIPS))
def test_bytes_of_the_script(number: int, installer: Installer) -> None:
    """A flipped byte may make another script of it, but none that is content with itself."""
    data = bytearray(installer.path.read_bytes())
    chance = random.Random(number)
    texts = 3004
    # Of the check itself a byte or two could be others and let it pass; then all the rest is as it was.
    begin = data.index(b"check_header() {")
    check = range(begin, data.index(b"\n}\n", begin))
    place = chance.choice([place for place in range(10, len(installer.header) - texts) if place not in check])
    data[place] ^= 1 << chance.randrange(8)
    run = install(installer.write(bytes(data)))
    assert run.returncode != 0 and not target(installer).exists(), (place, data[place - 20 : place + 20], run)


def test_bytes_of_the_texts(shell: str, installer: Installer) -> None:
    data = bytearray(installer.path.read_bytes())
    data[len(installer.header) - 1] ^= 1
    refused(install(installer.write(bytes(data)), shell), 11, "its script is not what it was")


def test_bytes_of_the_stub(shell: str, installer: Installer) -> None:
    whole = installer.path.read_bytes()
    for place in (0, len(installer.stub) // 2, len(installer.stub) - 1):
        data = bytearray(whole)
        data[len(installer.header) + place] ^= 1
        refused(install(installer.write(bytes(data)), shell), 11, "its program is not what it was")
        assert sorted(os.listdir(installer.path.parent)) == ["env.sh", "env.sh.record"]


def test_numbers_with_another_spelling(installer: Installer) -> None:
    """The same numbers written otherwise are another file."""
    data = installer.path.read_bytes()
    header, trailer = data[:-284], data[-284:]
    size = b"%15d" % len(installer.payload)
    for spelling in (size.replace(b" ", b"0"), size.replace(b" ", b"\t", 1), size.replace(b" ", b"+", 1)):
        refused(
            installer.write(header + trailer.replace(size, spelling)).run("--check"), 11, "does not end as it should"
        )


class TestFromElsewhere:
    def test_a_pipe(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        for name in ("sh", "dash", "bash", "zsh"):
            (tmp_path / name).write_text("#!/bin/sh\necho other\n")
        for options in ([], ["-s", "--", "-b", "-p", "env"]):
            run = started(*SHELLS[shell], *options, input=installer.path.read_bytes(), cwd=tmp_path)
            refused(run, 2, "was it read from a pipe?", "Save it to a file")
            assert not target(installer).exists()

    def test_a_redirection(self, shell: str, installer: Installer, tmp_path: Path) -> None:
        with installer.path.open() as file:
            run = started(*SHELLS[shell], stdin=file, cwd=tmp_path)
        refused(run, 2, "was it read from a pipe?")

    def test_found_by_path(self, installer: Installer, tmp_path: Path) -> None:
        """bash looks for a script without a slash in PATH, too."""
        (tmp_path / "elsewhere").mkdir()
        environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        installer.path.chmod(0o755)
        run = started(need("bash"), "env.sh", "-bp", target(installer), cwd=tmp_path / "elsewhere", env=environ)
        assert run.returncode == 0, run
        assert installer.record.value("--installer") == str(installer.path)

    def test_run_by_its_first_line(self, installer: Installer) -> None:
        installer.path.chmod(0o755)
        assert started(installer.path, "-b", "-p", target(installer)).returncode == 0

    def test_by_a_symlink(self, installer: Installer, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "link").symlink_to("../env.sh")
        assert started("dash", tmp_path / "sub" / "link", "-b", "-p", target(installer)).returncode == 0
        assert installer.record.value("--installer") == f"{tmp_path}/sub/link"
