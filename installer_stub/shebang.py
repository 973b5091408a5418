"""Shebang lines: what the kernel takes, and what stands in where it does not.

127 bytes with the newline is the longest line that works everywhere (Linux before 5.1 cuts there), and
beyond the kernel's limit bash and dash run the file as a shell script and return 0 without a word.
A path with white space in it cannot be written in a shebang at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import List, Optional, Tuple

from installer_stub import match
from installer_stub.model import Spelling

LIMIT = 127

# PEP 263.
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_UTF8 = (b"utf-8", b"utf8", b"utf_8", b"u8", b"ascii", b"us-ascii")
# What pip and conda clients write for Python where the line would be too long; rattler writes one line less.
_THROUGH_SH = re.compile(
    rb"#!/bin/sh\n'''exec' (?:\"(?P<quoted>/[^\"\n]*)\"|(?P<plain>/[^\s\"']*))"
    rb"(?P<options>[^\"\n]*) \"\$0\" \"\$@\"(?:\n' | #)'''\n"
)
_QUOTES = re.compile(rb"['\"`$\\]")


class Unwritable(ValueError):
    """No first line makes this script run with its interpreter there."""


@dataclass(frozen=True)
class Shebang:
    """The head of a script, cut where the words end.

    ``interpreter`` is the absolute path, ``options`` what stands behind it, ``newline`` the line's end as
    written (perhaps empty), ``coding`` a second line that declares an encoding other than UTF-8, or empty.
    """

    interpreter: bytes
    options: bytes
    newline: bytes
    coding: bytes

    @property
    def name(self) -> bytes:
        """The interpreter's base name."""
        return self.interpreter.rpartition(b"/")[2]


def parse(head: bytes) -> Optional[Shebang]:
    """Read the shebang at the begin of ``head``, or None where there is none.

    ``head`` must reach over the first two lines, if the file has them.
    """
    if not head.startswith(b"#!"):
        return None
    line, newline, rest = head.partition(b"\n")
    if line.endswith(b"\r"):
        line, newline = line[:-1], b"\r" + newline
    words = line[2:].strip(b" \t").split(None, 1)
    if not words:
        return None
    second = rest.partition(b"\n")
    coding = _CODING.match(second[0])
    foreign = coding is not None and coding.group(1).lower() not in _UTF8
    return Shebang(
        words[0],
        words[1].strip(b" \t") if len(words) == 2 else b"",
        newline,
        second[0] + second[1] if foreign else b"",
    )


def parse_through_sh(head: bytes) -> Optional[Tuple[Shebang, int]]:
    """Read a head that has ``/bin/sh`` start Python: the shebang that it stands for, and its length in bytes."""
    found = _THROUGH_SH.match(head)
    if found is None:
        return None
    shebang = Shebang(found["quoted"] or found["plain"], found["options"].strip(b" \t"), b"\n", b"")
    return shebang, found.end()


def length(shebang: Shebang, head: bytes) -> int:
    """Count the bytes of ``head`` that the shebang takes, its coding line included."""
    return head.index(b"\n") + 1 + len(shebang.coding) if b"\n" in head else len(head)


def is_python(name: bytes) -> bool:
    """Whether an interpreter of this base name reads Python."""
    return re.match(rb"(python|pypy)[0-9.]*t?\Z", name) is not None


def written(archived: bytes, old: bytes, new: bytes) -> bytes:
    """Rewrite the shebang ``archived`` from prefix ``old`` to ``new``.

    It stays one line where the kernel takes it; else ``/bin/sh`` starts the interpreter. Raises Unwritable
    where neither works: ``sh`` can stand in for Python and perl only, since their files tell them where to
    begin; and a Python source that is not UTF-8 must keep its coding line among the first two.
    """
    shebang = parse(archived)
    if shebang is None:
        raise Unwritable(f"not a shebang: {archived[:40]!r}")
    if not shebang.interpreter.startswith(old + b"/"):
        raise Unwritable(f"the shebang {archived[:40]!r} does not name {old!r}")
    interpreter = new + shebang.interpreter[len(old) :]
    shebang = replace(shebang, options=_moved(shebang.options, old, new))
    line = b"#!" + interpreter + (b" " + shebang.options if shebang.options else b"") + shebang.newline
    if is_python(shebang.name) and not shebang.coding and not _is_utf8(line):
        raise Unwritable("Python reads the line, too, and the path is not UTF-8")
    # The kernel takes a CR for a part of the line.
    if len(line.rstrip(b"\n")) < LIMIT and not re.search(rb"[ \t]", interpreter):
        return line + shebang.coding
    return through_sh(shebang, quoted(interpreter))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def longest(archived: bytes, old: bytes) -> Optional[int]:
    """Return the longest prefix in bytes for which ``written`` works; None where any length does."""
    for length in (4095, *range(LIMIT, 1, -1)):
        try:
            written(archived, old, b"/".ljust(length, b"x"))
        except Unwritable:
            continue
        return None if length > LIMIT else length
    return 0


def _moved(options: bytes, old: bytes, new: bytes) -> bytes:
    out: List[bytes] = []
    at = 0
    for hit in match.search([options], {old: (old, Spelling.PLAIN)}):
        if match.is_reference(hit):
            out += [options[at : hit.offset], new]
            at = hit.offset + len(old)
    return b"".join([*out, options[at:]])


def beside(shebang: Shebang) -> bytes:
    """Write a head for a Python script that finds its interpreter in the script's own directory.

    The script may be reached through symlinks. Such a head needs no rewriting, wherever it goes.
    """
    if _QUOTES.search(shebang.name):
        raise Unwritable(f"the interpreter's name {shebang.name!r} needs quoting")
    # `readlink -f`, since busybox's `realpath` takes no options; its answer begins with a slash.
    return through_sh(shebang, b'"$(dirname "$(readlink -f "$0")")"/' + shebang.name)


def through_sh(shebang: Shebang, command: bytes) -> bytes:
    """Write a head that has ``/bin/sh`` start ``command``, an interpreter in shell words.

    Python reads lines two and three as one string, so sh runs what Python skips. perl skips to a line
    that names it when told ``-x``. The options stay one word, as the kernel hands them over.
    """
    if b"\r" in shebang.newline:
        raise Unwritable("a line that ends in CR LF cannot be handed to sh")
    options = b" " + quoted(shebang.options) if shebang.options else b""
    if is_python(shebang.name):
        if shebang.coding:
            raise Unwritable("its coding line must stay among the first two, and it is not UTF-8")
        return b"#!/bin/sh\n'''exec' " + command + options + b' "$0" "$@"\n' + b"' '''\n"
    if shebang.name.startswith(b"perl"):
        # -x comes first: some write "#!perl -- # -*- perl -*-".
        return b"#!/bin/sh\nexec " + command + b" -x" + options + b' "$0" "$@"\n#!perl\n' + shebang.coding
    raise Unwritable(f"a longer line than {LIMIT} bytes, or a space, and no way through sh for {shebang.name!r}")


def quoted(word: bytes) -> bytes:
    """Quote ``word`` for sh inside double quotes; a word that would need an escape there is refused.

    Backslashes are refused since Python reads the same line as a string.
    """
    if _QUOTES.search(word):
        raise Unwritable(f"{word!r} holds a quote, a dollar sign, a backtick or a backslash")
    return b'"' + word + b'"'
