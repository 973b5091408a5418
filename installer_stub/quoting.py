"""Where white space in a path would cut it in two: words that their file's syntax leaves without quotes."""

from __future__ import annotations

import re
from typing import Optional

from installer_stub import shebang

# What a POSIX shell, make, pkg-config and libtool take for one word, whatever stands beside it.
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=^~") | frozenset(
    range(0x80, 0x100)
)
_SPLIT_NAMES = re.compile(
    rb"(\A|/)(GNUm|M|m)akefile[^/]*\Z"
    rb"|\.(sh|bash|zsh|ksh|csh|tcsh|fish|mk|mak|pc|la|cmake|desktop|service)\Z"
)
_SHELLS = re.compile(rb"(ba|da|k|mk|pdk|ya|z|c|tc|fi|a)?sh[0-9.]*\Z")
# Those of a virtual environment, whose makers quote a path only where it needs that: CPython since 3.12.8, virtualenv.
_ACTIVATION = re.compile(rb"(\A|/)bin/activate(\.csh|\.fish)?\Z")
_OPTION = re.compile(rb"(\A|[\s\"'=,])-[A-Za-z][A-Za-z,=-]*\Z")


def is_special(prefix: bytes) -> bool:
    """Whether a prefix holds a character that ends a word, or means something, outside of quotes."""
    return any(byte not in _WORD for byte in prefix)


def splits(path: bytes, line: Optional[shebang.Shebang]) -> bool:
    """Whether a file's syntax ends words at white space, by its name or its shebang."""
    return _SPLIT_NAMES.search(path) is not None or (line is not None and _SHELLS.match(line.name) is not None)


def is_activation(path: bytes) -> bool:
    """Whether a file is the activation script of a virtual environment, each word of which one shell reads."""
    return _ACTIVATION.search(path) is not None


def is_bare(left: bytes, splitting: bool) -> bool:
    """Whether the path that begins behind ``left`` is a word without quotes.

    A path behind an option, such as ``-I``, belongs to a command that somebody splits later, whatever quotes
    stand around it. Any other is bare where the file splits words and no quote is open on its line.
    """
    if _OPTION.search(left[left.rfind(b"\n") + 1 :]):
        return True
    return splitting and is_unquoted(left)


def is_unquoted(left: bytes) -> bool:
    """Whether no quote is open behind ``left`` that was opened on its last line."""
    line = left[left.rfind(b"\n") + 1 :]
    open_quote = 0
    escaped = False
    for byte in line:
        if escaped:
            escaped = False
        elif byte == 0x5C and open_quote != 0x27:
            escaped = True
        elif open_quote:
            open_quote = 0 if byte == open_quote else open_quote
        elif byte in b"\"'":
            open_quote = byte
    return not open_quote
