"""The head of an installer: a script for any POSIX shell, with what is known of the environment filled in."""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import installer_stub

_PLACE = b"@FACTS@\n"


class Facts(NamedTuple):
    """What the script is told. Each field becomes a variable of that name: text as it is, a number in digits.

    A limit is the longest target in bytes, or empty where nothing limits it; beside it the file that sets it.
    """

    installer_name: str
    installer_version: str
    pack_version: str
    environment: str  # the base name of the packed prefix
    platform: str  # as conda names it: linux-64
    system: str  # as uname -s names it
    machine: str  # as uname -m names it; empty where nothing is compiled, or uname has several names for it
    glibc: str  # the oldest that will do, or empty
    glibc_file: str
    limit: str
    limit_file: str
    limit_allowed: str  # the same where C strings may keep the old path
    limit_allowed_file: str
    longest_path: int  # in bytes, relative to the prefix
    has_text: bool  # whether the prefix is written into text, where quotes would mean something
    entries: int  # inodes needed
    unpacked: int  # bytes of content
    stub_unpacked: int
    opener_size: int  # 0: there is no stub
    payload: str  # zst or gz
    default_prefix: str  # absolute, or ~/ and what follows
    licence_size: int
    welcome_size: int
    conclusion_size: int
    hooks: str  # the names of those that are packed, with spaces between


def template() -> bytes:
    """Read the script without its facts."""
    return resources.files(installer_stub).joinpath("header.sh").read_bytes()


def render(template: bytes, facts: Facts) -> bytes:
    """Fill facts into a script, in the place of its one line ``@FACTS@``.

    Lines that are nothing but a comment are left out, behind the first. Values are data: whatever they hold, the
    shell takes them as they are.
    """
    first, *others = template.splitlines(keepends=True)
    lines = [first, *(line for line in others if not line.lstrip().startswith(b"#"))]
    place = lines.index(_PLACE)
    lines[place : place + 1] = [f"{name}={_quoted(_text(value))}\n".encode() for name, value in facts._asdict().items()]
    return b"".join(lines)


def _text(value: str | int) -> str:
    if isinstance(value, bool):
        return "1" if value else ""
    return str(value)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
