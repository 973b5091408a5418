"""A log of one run: what was asked for, what was said, and how it ended. Lines are added to a file that exists."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Sequence

from installer_stub.errors import UsageError

# A password or a token in an address.
_SECRET = re.compile(r"(?<=://)[^/@\s]*@|(?<=/t/)[^/\s]+(?=/)")


class Log:
    """The file of ``--log``. A line that cannot be written, on a full disk, is lost, and the run goes on."""

    def __init__(self, path: str, arguments: Sequence[str], version: str) -> None:
        """Open the file and write how the run began. Raises UsageError where it cannot be opened."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"--log {path}: cannot be written: {error.strerror}", "Name another file.") from error
        self.line(f"pack {version}: {_SECRET.sub('', shlex.join(arguments))}")

    def line(self, text: str) -> None:
        """Add what was said, each line with its time."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        data = "".join(f"{now} {line}\n" for line in text.splitlines())
        with contextlib.suppress(OSError):  # the run matters more
            os.write(self._file, data.encode("utf-8", "backslashreplace"))

    def end(self, code: int) -> None:
        """Say how the run ended."""
        self.line(f"ended with code {code}")
