"""What tells others that a file is whole and whose it is: its SHA-256 beside it, and a signature.

Both are what programs that are everywhere check: ``sha256sum -c`` and ``ssh-keygen -Y verify``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from installer_stub.errors import OutputError, PackError, UsageError
from pack.archive import Writable
from pack.output import Output

NAMESPACE = "pack-installer"  # a signature is of a file for one purpose; this names it
CHECKSUM, SIGNATURE = ".sha256", ".sig"
_NAME_MAX = 255  # bytes; of every file system in use


class Hashed:
    """Passes bytes on, and knows their number and their SHA-256."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._hasher = hashlib.sha256()
        self.length = 0

    @property
    def sha256(self) -> str:
        """The SHA-256 of all that was written so far, in hexadecimal digits."""
        return self._hasher.hexdigest()

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""
        self._out.write(data)
        self._hasher.update(data)
        self.length += len(data)
        return len(data)


class SignedOutput:
    """A file with its SHA-256 beside it, and, where a key is given, its signature.

    ``with SignedOutput(path, force, key).opened() as stream`` is as with an `Output`: leaving the block names the file
    and then what is beside it, or nothing. ``paths`` are the names of all, final and partial. Raises what `Output`
    does, and PackError where the file cannot be signed.
    """

    def __init__(self, path: Path, force: bool, key: Path | None, mode: int) -> None:
        self._file = Output(path, force, mode)
        self._checksum = Output(beside(path, CHECKSUM), force)
        self._signature = Output(beside(path, SIGNATURE), force) if key is not None else None
        self._key = key

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where anything is written; and an older signature, which is no part of anything else either."""
        outputs = [self._file, self._checksum, *([self._signature] if self._signature else [])]
        written = [path for output in outputs for path in (output.path, output.partial)]
        return (*written, beside(self._file.path, SIGNATURE))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Hashed]:
        """Yield a stream to the file."""
        # What is beside the file is opened behind it, so that an error names the file first, and gets its name behind
        # it: whoever finds a checksum finds what it is of.
        with contextlib.ExitStack() as outer, self._file as stream:
            checksum = outer.enter_context(self._checksum)
            signature = outer.enter_context(self._signature) if self._signature else None
            hashed = Hashed(stream)
            yield hashed
            stream.flush()
            checksum.write(line(hashed.sha256, self._file.path.name))
            checksum.flush()  # a full disk shows here, before anything has its name
            if signature is not None and self._key is not None:
                signature.write(sign(self._file.partial, self._key))
                signature.flush()


def beside(path: Path, suffix: str) -> Path:
    """Name the file beside another one. Raises OutputError where that name is longer than names can be."""
    name = path.name + suffix
    if len(os.fsencode(name)) > _NAME_MAX:
        raise OutputError(f"{path}: the name has no room for {suffix} behind it", "Choose a shorter one.")
    return path.with_name(name)


def line(sha256: str, name: str) -> bytes:
    """Write a line as ``sha256sum`` does: a name that holds a backslash or a newline is escaped, and so marked."""
    raw = os.fsencode(name)
    escaped = raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return (b"\\" if escaped != raw else b"") + sha256.encode() + b"  " + escaped + b"\n"


def checked_key(key: str) -> Path:
    """Return the key to sign with, of which all is known that can be known without asking for its passphrase.

    Raises UsageError where it is missing or no key, or where there is no ``ssh-keygen``.
    """
    path = Path(key)
    if shutil.which("ssh-keygen") is None:
        raise UsageError("--sign-with: this needs ssh-keygen, which is not on the PATH", "Install OpenSSH's client.")
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UsageError(f"--sign-with {key}: cannot be read: {error.strerror}") from error
    done = _ssh_keygen("-l", "-f", os.fspath(path))
    if done.returncode:
        raise UsageError(
            f"--sign-with {key}: this is no key that ssh-keygen can use: {_said(done)}",
            "Name a private key of OpenSSH, or the public one of a key that ssh-agent holds.",
        )
    return path


def sign(file: Path, key: Path) -> bytes:
    """Return the signature of a file. Where the key has a passphrase, ssh-keygen asks for it on the terminal.

    Raises PackError with what ssh-keygen says.
    """
    # Without a terminal ssh-keygen takes a passphrase from its standard input: not the place for what is signed.
    with tempfile.TemporaryDirectory(prefix="pack-sign-") as directory:
        link = Path(directory, "installer")
        link.symlink_to(file.absolute())
        done = _ssh_keygen("-Y", "sign", "-f", os.fspath(key), "-n", NAMESPACE, os.fspath(link))
        if done.returncode:
            raise PackError(
                f"--sign-with {key}: ssh-keygen cannot sign: {_said(done)}",
                "Load the key into ssh-agent, or make it one without a passphrase. No output was written.",
            )
        return link.with_name(link.name + SIGNATURE).read_bytes()


def _ssh_keygen(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *arguments], stdin=subprocess.DEVNULL, capture_output=True)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = (done.stderr or done.stdout).decode("utf-8", "backslashreplace").strip().splitlines()
    return lines[-1] if lines else f"it ended with {done.returncode}"
