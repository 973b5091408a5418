"""The command line between an installer's script and its program; the script has checked what people wrote."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any, BinaryIO, Callable, Dict, List, NoReturn, Optional, Sequence

from installer_stub import install, manifest, streams
from installer_stub.carry_over import Added
from installer_stub.errors import PackError, UsageError
from installer_stub.install import Installed, Order, Talk
from installer_stub.landing import Replace
from installer_stub.model import Finding
from installer_stub.target import Demand

_PR_SET_PDEATHSIG = 1
_BAR_SECONDS = 0.2  # between two drawings
_SHOWN = 10  # findings of one kind

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_AFTERWARDS = {
    "install": "the target is as it was before",
    "extract": "the target is as it was before",
    "uninstall": "what is left is removed when it is run again",
}

Facts = Dict[str, Any]


def main(argv: List[str]) -> NoReturn:
    """Run a command; exit with 0, with the code of the error, or with 128 and the number of a signal."""
    for number in streams.reserved():
        streams.silenced(number)
    options = _parser().parse_args(argv)
    talk = _Console(options)
    gc.disable()  # a manifest has no cycles, and looking for them takes a tenth of the time
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)
        _end_with_the_script(options.staging)
        if options.umask is not None:
            _set_umask(options.umask)
        talk.result(_COMMANDS[options.command](_order(options), talk))
        code = 0
    except PackError as error:
        code = error.code
        talk.failure(code, str(error), error.tip)
    except _Signalled as signalled:
        code = 128 + signalled.number
        talk.failure(code, f"interrupted; {_AFTERWARDS.get(options.command, 'nothing was changed')}.", "")
    except OSError as error:
        code = PackError.code
        where = "an operation" if error.filename is None else os.fsdecode(error.filename)
        talk.failure(code, f"{where}: {error.strerror or error}", "")
    sys.exit(code)


def _install(order: Order, talk: _Console) -> Facts:
    return _installed(install.install(order, talk), talk, "rewritten")


def _extract(order: Order, talk: _Console) -> Facts:
    return _installed(install.extract_only(order, talk), talk, "")


def _installed(done: Installed, talk: _Console, how: str) -> Facts:
    prefix = manifest.encode(done.prefix)
    files = f"{done.written:,} files rewritten, {done.right:,} right already" if how else "as archived"
    talk.say(f"{prefix}: {'updated' if done.replaced else 'installed'}: {done.members:,} members; {files}")
    talk.findings(done.findings)
    counts = {"members": done.members, "written": done.written, "right": done.right, "replaced": done.replaced}
    return {"prefix": prefix, **counts, "findings": [manifest.described(each) for each in done.findings]}


def _list(order: Order, talk: _Console) -> Facts:
    entries = install.listed(order).entries
    for entry in () if talk.is_json else entries:
        arrow = f" -> {manifest.encode(entry.target)}" if entry.target else ""
        talk.say(f"{entry.kind.value:9} {entry.mode:04o} {entry.size:12} {manifest.encode(entry.path)}{arrow}")
    rows = [
        {
            "path": manifest.encode(entry.path),
            "kind": entry.kind.value,
            "mode": entry.mode,
            "size": entry.size,
            "sha256": entry.sha256,
            "package": entry.package,
        }
        for entry in entries
    ]
    return {"entries": rows}


def _uninstall(order: Order, talk: _Console) -> Facts:
    done = install.remove(order, talk)
    prefix = manifest.encode(order.target)
    left = [manifest.encode(path) for path in done.left]
    talk.say(f"{prefix}: uninstalled: {done.removed:,} paths removed" + (f"; {len(left):,} left" if left else ""))
    for path in left:
        talk.say(f"left: {path}")
    return {"prefix": prefix, "removed": done.removed, "left": left}


_COMMANDS: Dict[str, Callable[[Order, Any], Facts]] = {
    "install": _install,
    "extract": _extract,
    "list": _list,
    "uninstall": _uninstall,
}
COMMANDS = tuple(_COMMANDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="installer", allow_abbrev=False)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--installer", type=os.fsencode, required=True)
    parser.add_argument("--staging", type=os.fsencode, required=True)
    parser.add_argument("--target", type=os.fsencode, default=b"")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--log", type=os.fsencode)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--umask", type=lambda text: int(text, 8))
    parser.add_argument("--group", default="")
    parser.add_argument("--added", type=Added, default=Added.CARRY)
    for name in ("update", "force", "skip-scripts", "unattended", "allow-unrelocated", "json", "quiet", "register"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--expanded", action="store_true")
    return parser


def _order(options: argparse.Namespace) -> Order:
    return Order(
        installer=options.installer,
        staging=options.staging,
        target=options.target,
        size=options.size,
        # The script says "update", too, where "force" was asked for and it has seen something to replace.
        replace=Replace.IF_THERE if options.force else Replace.YES if options.update else Replace.NO,
        scripts=not options.skip_scripts,
        unattended=options.unattended,
        demand=Demand.ALLOW_UNRELOCATED if options.allow_unrelocated else Demand.IN_FORCE,
        jobs=options.jobs,
        group=options.group,
        register=options.register,
        added=options.added,
        expanded=0 if options.expanded else None,
    )


class _Console(Talk):
    """Says what happens: results to the standard output, all else to the standard error; both into the log."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._name = os.fsdecode(os.path.basename(options.installer))
        self.is_json = bool(options.json)
        self._quiet = bool(options.quiet)
        self._bar = not (self._quiet or self.is_json) and sys.stderr.isatty()
        self._log: Optional[BinaryIO] = None
        if options.log is not None:
            with suppress(OSError):  # the script has written to it, and will say if it cannot
                self._log = open(options.log, "ab", buffering=0)  # noqa: SIM115  # for as long as the program runs
        self.out = self._log.fileno() if self._log is not None else 2
        self._what, self._total, self._done, self._drawn = "", 0, 0, 0.0

    def start(self, what: str, total: int) -> None:
        """Begin a stage of ``total`` bytes."""
        self._what, self._total, self._done = what, total, 0

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the stage, and draw them now and then."""
        self._done += count
        if self._bar and time.monotonic() > self._drawn + _BAR_SECONDS:
            self._drawn = time.monotonic()
            share = self._done * 100 // max(1, self._total)
            self._draw(f"\r{self._what} {share:3}%  {self._done / 1e6:,.1f} of {self._total / 1e6:,.1f} MB ")

    def settled(self) -> None:
        """Let no signal interrupt what is left to do."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def say(self, line: str) -> None:
        """Print a line for a person."""
        self._wipe()
        if not self._quiet:
            self._print(line, sys.stderr if self.is_json else sys.stdout)
        self._write(line)

    def findings(self, findings: Sequence[Finding]) -> None:
        """Say what is to be known of the files: the first few of each kind, and how many there are."""
        counts: Dict[str, int] = {}
        for each in findings:
            counts[each.what] = counts.get(each.what, 0) + 1
            if counts[each.what] <= _SHOWN:
                at = f" at byte {each.offset}" if each.offset >= 0 else ""
                detail = f": {each.detail}" if each.detail else ""
                self.say(f"{each.what}: {manifest.encode(each.path)}{at}{detail}")
        for what, count in counts.items():
            if count > _SHOWN:
                self.say(f"{what}: and {count - _SHOWN:,} more; --json lists all")

    def result(self, facts: Facts) -> None:
        """Print what came of it, if that is wanted in JSON."""
        if self.is_json:
            self._print(json.dumps(facts), sys.stdout)

    def failure(self, code: int, message: str, tip: str) -> None:
        """Print what went wrong, and what to do."""
        self._wipe()
        lines = [f"{self._name}: error: {message}", *([f"TIP: {tip}"] if tip else [])]
        for line in lines:
            self._print(line, sys.stderr)
            self._write(line)
        if self.is_json:
            self._print(json.dumps({"code": code, "error": message}), sys.stdout)

    def _wipe(self) -> None:
        if self._bar and self._drawn:
            self._draw("\r" + " " * 70 + "\r")
            self._drawn = 0.0

    def _draw(self, text: str) -> None:
        try:
            print(text, end="", file=sys.stderr, flush=True)
        except OSError:
            self._bar = False  # the terminal has gone

    def _print(self, line: str, file: Any) -> None:
        try:
            # The terminal's encoding may hold less than a path does.
            print(line.encode(file.encoding, "backslashreplace").decode(file.encoding), file=file, flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # Python would try once more when it ends
            if file is sys.stdout and not isinstance(error, BrokenPipeError):
                raise  # what was asked for is not there, as on a full disk

    def _write(self, line: str) -> None:
        if self._log is not None:
            with suppress(OSError):
                self._log.write(line.encode("utf-8", "backslashreplace") + b"\n")


class _Signalled(BaseException):
    """A signal asked the program to end: unwind, so that nothing half done is left."""

    def __init__(self, number: int) -> None:
        self.number = number


def _on_signal(number: int, frame: object) -> NoReturn:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # what is under way now is the clearing up
    raise _Signalled(number)


def _end_with_the_script(staging: bytes) -> None:
    """Have the system end this process when the script does, however that ends: it alone removes the workplace."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        with open(os.path.join(staging, b"owner"), "rb") as file:
            script = int(file.read(1000).split()[-1])
    except (ImportError, OSError, AttributeError, ValueError, IndexError):
        return  # no ctypes in this Python
    if not _is_there(script) or os.getppid() == 1 != script:
        raise _Signalled(signal.SIGTERM)  # it ended before the system was told


def _is_there(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _set_umask(mask: int) -> None:
    if mask & 0o700:
        raise UsageError(f"--umask {mask:03o}: it would take the files from their owner.", "Such as 022 is meant.")
    os.umask(mask)
