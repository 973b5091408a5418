"""The command line: the only package that prints, exits or draws a progress bar."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

import click

from installer_stub import streams
from installer_stub.errors import PackError, UsageError

from . import caching, locking, manual, scanning, stubs, trees
from .options import add_log
from .packing import pack
from .terminal import Signalled, complain, ended, on_signal

__all__ = ["caching", "locking", "main", "manual", "pack", "scanning", "stubs", "trees"]

add_log(pack)


def main() -> NoReturn:
    """Run the program: errors become words and exit codes here, and nowhere else."""
    if 2 in streams.reserved():
        streams.silenced(2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, on_signal)
    try:
        pack.main(prog_name="pack", standalone_mode=False)
        if sys.stdout is not None:  # as it is where the caller has closed it
            sys.stdout.flush()
        code = 0
    except PackError as error:
        complain(error)
        code = error.code
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = UsageError.code
    except (KeyboardInterrupt, click.Abort):
        code = 128 + signal.SIGINT
    except Signalled as signalled:
        end_at_once(128 + signalled.number)
    except BrokenPipeError:
        code = 1  # whoever read the output has gone
    except OSError as error:
        complain(PackError(f"{error.filename or 'an operation'}: {error.strerror or error}"))
        code = PackError.code
    settle()
    ended(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """End without waiting for threads that compress: what they are at may take minutes, and nobody wants it now."""
    settle()
    ended(code)
    atexit._run_exitfuncs()  # partial outputs
    os._exit(code)


def settle() -> None:
    """Write what was printed, or give it up: Python would try again at exit, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
