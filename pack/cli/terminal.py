"""What the command line prints, and the bar that it draws."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from installer_stub.errors import PackError

if TYPE_CHECKING:
    from tqdm import tqdm

    from installer_stub.model import Finding
    from pack.log import Log


def shown(path: bytes) -> str:
    """Return a path as text: UTF-8, with ``%`` and all other bytes percent-encoded."""
    from installer_stub.manifest import encode

    return encode(path)


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Describe findings in plain JSON types."""
    from installer_stub.manifest import described

    return [described(each) for each in findings]


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings, a line each."""
    for finding in findings:
        at = f" at byte {finding.offset}" if finding.offset >= 0 else ""
        detail = f": {finding.detail}" if finding.detail else ""
        say(f"{finding.what}: {shown(finding.path)}{at}{detail}")


_log: Log | None = None


def log_to(log: Log) -> None:
    """Write all that is printed from now on into a log, too."""
    global _log
    _log = log


def ended(code: int) -> None:
    """Tell the log, if there is one, how the run ended."""
    if _log is not None:
        _log.end(code)


def _logged(text: str) -> None:
    if _log is not None:
        _log.line(text)


def say(what: Any) -> None:
    """Print text, or anything else as JSON, on standard output."""
    import json

    # The terminal's encoding may hold less than a path does.
    encoding = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name
    text = what if isinstance(what, str) else json.dumps(what, indent=2, ensure_ascii=encoding != "utf-8")
    _logged(text)
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def step(line: str) -> None:
    """Print a line about the work on standard error."""
    _logged(line)
    click.echo(line, err=True)


class Signalled(BaseException):
    """A signal asked the program to end: unwind, so that nothing half done is left."""

    def __init__(self, number: int) -> None:
        self.number = number


_received: int | None = None


def on_signal(number: int, frame: object) -> NoReturn:
    """Take a signal that asks the program to end."""
    global _received
    _received = number
    raise Signalled(number)


class Bar:
    """A progress bar in bytes on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._silent = quiet
        self._quiet = quiet or not sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` bytes, or of an unknown number."""
        self._close()
        if not self._quiet:
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # without its thread: what has threads had better not fork
            self._bar = tqdm(
                desc=what,
                total=total,
                miniters=1,  # it is drawn by the time alone
                unit="B",
                unit_scale=True,
                unit_divisor=1000,
                leave=False,
                dynamic_ncols=True,
            )

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the stage; heed a signal whose exception Python lost in a callback."""
        if _received is not None:
            raise Signalled(_received)
        if self._bar is not None:
            self._bar.update(count)

    def say(self, line: str) -> None:
        """Print a line about what takes long, without the bar of what is over."""
        self._close()
        if not self._silent:
            step(line)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def complain(error: PackError) -> None:
    """Print an error, and what to do about it, on standard error."""
    _logged(f"error: {error}" + (f"\nTIP: {error.tip}" if error.tip else ""))
    click.echo(f"pack: error: {error}", err=True)
    if error.tip:
        click.echo(f"TIP: {error.tip}", err=True)
