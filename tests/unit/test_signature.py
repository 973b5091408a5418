"""What lies beside a file: its SHA-256 as ``sha256sum`` writes it, and a signature that ``ssh-keygen`` verifies."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from installer_stub.errors import OutputError, PackError, UsageError
from pack import signature
from pack.signature import Hashed, SignedOutput
from tests.conftest import need


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key without a passphrase, with its public half beside it."""
    return made(tmp_path / "key")


def made(path: Path, passphrase: str = "") -> Path:
    need("ssh-keygen")
    command: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def verified(file: Path, key: Path) -> bool:
    """Whether ssh-keygen takes the signature beside a file for one of the key."""
    signers = key.with_name("signers")
    signers.write_text(f"me {key.with_name(key.name + '.pub').read_text()}")
    command: list[str | Path] = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "me", "-n", "pack-installer"]
    with file.open("rb") as content:
        done = subprocess.run([*command, "-s", f"{file}.sig"], stdin=content, capture_output=True)
    return done.returncode == 0


def test_hashing_on_the_way() -> None:
    out = io.BytesIO()
    hashed = Hashed(out)
    for part in (b"one ", b"", b"two"):
        assert hashed.write(part) == len(part)
    assert (out.getvalue(), hashed.length) == (b"one two", 7)
    assert hashed.sha256 == hashlib.sha256(b"one two").hexdigest()


@pytest.mark.parametrize("name", ["env.sh", " two  spaces ", "back\\slash", "new\nline", "*star", "é", "\udcff"])
def test_the_line_is_one_of_sha256sum(name: str, tmp_path: Path) -> None:
    """It is what the program writes itself, and what it takes, whatever the name."""
    (tmp_path / name).write_bytes(b"content")
    written = subprocess.run(["sha256sum", "--", name], cwd=tmp_path, capture_output=True, check=True).stdout
    assert signature.line(hashlib.sha256(b"content").hexdigest(), name) == written


def test_all_appear_with_their_contents(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "env.sh"
    with SignedOutput(path, False, key, 0o777).opened() as stream:
        stream.write(b"content")
        assert not path.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "env.sh",
        "env.sh.sha256",
        "env.sh.sig",
        "key",
        "key.pub",
    ]
    assert path.read_bytes() == b"content"
    subprocess.run(["sha256sum", "--strict", "-c", "env.sh.sha256"], cwd=tmp_path, check=True, capture_output=True)
    assert verified(path, key)
    path.write_bytes(b"content.")
    assert not verified(path, key)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_and_run(mask: int, tmp_path: Path) -> None:
    path = tmp_path / "env.sh"
    before = os.umask(mask)
    try:
        with SignedOutput(path, False, None, 0o777).opened() as stream:
            stream.write(b"content")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "env.sh.sha256").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("there", ["env.sh", "env.sh.sha256", "env.sh.sig"])
def test_nothing_is_replaced_without_force(there: str, tmp_path: Path, key: Path) -> None:
    (tmp_path / there).write_bytes(b"mine")
    output = SignedOutput(tmp_path / "env.sh", False, key, 0o777)
    with pytest.raises(OutputError, match=f"{there}: exists already"), output.opened():
        pytest.fail("it should have been refused before anything is written")
    assert sorted(each.name for each in tmp_path.iterdir()) == [there, "key", "key.pub"]
    assert (tmp_path / there).read_bytes() == b"mine"
    with SignedOutput(tmp_path / "env.sh", True, key, 0o777).opened() as stream:
        stream.write(b"new")
    assert verified(tmp_path / "env.sh", key)


def test_the_file_is_named_where_all_of_them_exist(tmp_path: Path) -> None:
    for name in ("env.sh", "env.sh.sha256"):
        (tmp_path / name).write_bytes(b"mine")
    with (
        pytest.raises(OutputError, match=r"env\.sh: exists"),
        SignedOutput(tmp_path / "env.sh", False, None, 0o777).opened(),
    ):
        pass


def test_a_failure_leaves_nothing(tmp_path: Path, key: Path) -> None:
    with pytest.raises(ZeroDivisionError), SignedOutput(tmp_path / "env.sh", False, key, 0o777).opened() as stream:
        stream.write(b"content")
        raise ZeroDivisionError
    assert sorted(each.name for each in tmp_path.iterdir()) == ["key", "key.pub"]


def test_what_cannot_be_signed_gets_no_name(tmp_path: Path, key: Path) -> None:
    """The old output, and all beside it, stay where the key vanishes meanwhile."""
    for name in ("env.sh", "env.sh.sha256", "env.sh.sig"):
        (tmp_path / name).write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    with (
        pytest.raises(PackError, match="ssh-keygen cannot sign"),
        SignedOutput(tmp_path / "env.sh", True, key, 0o777).opened() as stream,
    ):
        stream.write(b"content")
        key.unlink()
        key.with_suffix(".pub").unlink()
    assert sorted(tmp_path.iterdir()) == [each for each in before if each.name not in ("key", "key.pub")]
    assert {each.read_bytes() for each in tmp_path.iterdir()} == {b"old"}


def test_a_name_without_room_for_another_behind_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no room for \.sha256"):
        SignedOutput(tmp_path / ("n" * 249), False, None, 0o777)
    path = tmp_path / ("n" * 248)
    with SignedOutput(path, False, None, 0o777).opened() as stream:
        stream.write(b"content")
    assert path.is_file()


def test_keys_that_are_none(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that can be known without a passphrase is said before anything is done."""
    assert signature.checked_key(str(key)) == key
    assert signature.checked_key(f"{key}.pub") == Path(f"{key}.pub")
    with pytest.raises(UsageError, match="No such file"):
        signature.checked_key(str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="Is a directory"):
        signature.checked_key(str(tmp_path))
    (tmp_path / "text").write_text("no key")
    with pytest.raises(UsageError, match="not a public key file"):
        signature.checked_key(str(tmp_path / "text"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs ssh-keygen"):
        signature.checked_key(str(key))


def test_a_passphrase_that_nobody_can_be_asked_for(tmp_path: Path) -> None:
    """Without a terminal it is an error, and what is signed is not taken for the passphrase."""
    key = signature.checked_key(str(made(tmp_path / "secret", "the passphrase")))
    (tmp_path / "file").write_text("the passphrase\n")
    script = (
        "import os, sys; os.setsid(); from pathlib import Path; from pack.signature import sign\n"
        "try: sign(Path(sys.argv[1]), Path(sys.argv[2]))\nexcept Exception as error: sys.exit(f'{error}')"
    )
    command: list[str | Path] = [sys.executable, "-c", script, tmp_path / "file", key]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "incorrect passphrase" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_passphrase_is_asked_for_on_the_terminal(tmp_path: Path) -> None:
    key = made(tmp_path / "secret", "the passphrase")
    (tmp_path / "file").write_bytes(b"content")
    child, terminal = pty.fork()
    if child == 0:
        code = 1
        try:
            (tmp_path / "file.sig").write_bytes(signature.sign(tmp_path / "file", key))
            code = 0
        finally:
            os._exit(code)
    shown = b""
    while b"passphrase" not in shown:
        shown += os.read(terminal, 1000)
    time.sleep(0.2)  # it empties what was typed before it asks
    os.write(terminal, b"the passphrase\n")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert verified(tmp_path / "file", key)
