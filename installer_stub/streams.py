"""The standard streams of a program whose caller has closed some of them."""

from __future__ import annotations

import os
import sys
from typing import List


def reserved() -> List[int]:
    """Open /dev/null in the place of each that is closed, and return their numbers.

    Else a file that is opened later has such a number, and what somebody says there goes into it.
    """
    closed = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(number, True)
            closed.append(number)
    return closed


def silenced(number: int) -> None:
    """Have Python take a stream that was closed and is reserved now: nothing comes from there, what is said is lost."""
    name = ("stdin", "stdout", "stderr")[number]
    setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
