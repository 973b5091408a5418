"""Shebang lines: what the kernel takes, and what stands in where it does not.

127 bytes with the newline is the longest line that works everywhere (Linux before 5.1 cuts there), and
beyond the kernel's limit bash and dash run the file as a shell script and return 0 without a word.
A path with white space in it cannot be written in a shebang at all. ``docs/shebangs.md`` has each form.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from installer_stub import match
from installer_stub.model import Spelling

LIMIT = 127

# PEP 263.
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_UTF8 = (b"utf-8", b"utf8", b"u8", b"ascii", b"us-ascii")
# What pip and conda clients write for Python where the line would be too long; rattler writes one line less.
_THROUGH_SH = re.compile(
    rb"#!/bin/sh\n'''exec' (?:\"(?P<quoted>/[^\"\n]*)\"|(?P<plain>/[^\s\"']*))"
    rb"(?P<options>[^\"\n]*) \"\$0\" \"\$@\"(?:\n' | #)'''\n"
)
_QUOTES = re.compile(rb"['\"`$\\]")
_BLANK = re.compile(rb"[ \t]")
_PLAIN = re.compile(rb"[^ \t'\"`$\\]+\Z")
# The words of a string for ``env -S``, as far as they need no escape and no variable.
_ENV_WORD = re.compile(rb"(?:\"[^\"\\$]*\"|'[^'\\]*'|[^ \t\"'\\$])+")
_ENV_QUOTED = re.compile(rb"\"([^\"]*)\"|'([^']*)'")
# They read the options in their first line themselves, and split them at blanks.
_READS_ITS_LINE = re.compile(rb"(perl|ruby)[0-9.]*\Z")


class Unwritable(ValueError):
    """No first line makes this script run with its interpreter there."""


class Shebang(NamedTuple):
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

    def names(self, prefix: bytes) -> bool:
        """Whether the interpreter lies in ``prefix``, or an option names it: then the line is one slot."""
        return any(True for word in (self.interpreter, self.options) for _ in _named(word, prefix))


class _Command(NamedTuple):
    """What a line starts: ``launcher`` is env with its own options and assignments, or nothing."""

    launcher: Tuple[bytes, ...]
    interpreter: bytes
    options: Tuple[bytes, ...]


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
    if not words or b"\0" in line:
        return None
    second = rest.partition(b"\n")
    coding = _encoding(second[0])
    # Python 2 reads ASCII where no line says otherwise.
    foreign = coding and (coding not in _UTF8 or _base(words[0]).startswith(b"python2"))
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
    where neither works: a stand-in must be nothing to the interpreter and a command to sh, and that is
    known only of the languages in ``_FORMS``.
    """
    shebang = parse(archived)
    if shebang is None:
        raise Unwritable(f"not a shebang: {archived[:40]!r}")
    if not shebang.names(old):
        raise Unwritable(f"the shebang {archived[:40]!r} does not name {old!r}")
    command = _command(shebang)
    if command is not None:
        words = (*command.launcher, command.interpreter, *command.options)
        moved = tuple(_moved(word, old, new) for word in words)
        at = len(command.launcher)
        command = _Command(moved[:at], moved[at], moved[at + 1 :])
        if command.launcher and b"=" in command.interpreter:
            raise Unwritable("env would take the path for an assignment")
    line = _one_line(shebang, command, old, new)
    if line is None:
        if command is None:
            raise Unwritable(f"no way to start {shebang.interpreter!r} with {shebang.options!r} through sh")
        head = _through_sh(command, shebang.coding)
    else:
        head = line + shebang.coding
    if command is not None and is_python(_base(command.interpreter)):
        _check_python(head, archived, shebang.coding)
    return head


def longest(archived: bytes, old: bytes) -> Optional[int]:
    """Return the longest prefix in bytes for which ``written`` works; None where any length does.

    That is for prefixes of plain characters: blanks and others may need another form.
    """
    for length in (4095, *range(LIMIT, 1, -1)):
        try:
            written(archived, old, b"/".ljust(length, b"x"))
        except Unwritable:
            continue
        return None if length > LIMIT else length
    return 0


def beside(shebang: Shebang) -> bytes:
    """Write a head for a Python script that finds its interpreter in the script's own directory.

    The script may be reached through symlinks. Such a head needs no rewriting, wherever it goes. Python
    reads lines two and three as one string, so sh runs what Python skips.
    """
    if not is_python(shebang.name):
        raise Unwritable(f"{shebang.name!r} reads no Python")
    if _QUOTES.search(shebang.name):
        raise Unwritable(f"the interpreter's name {shebang.name!r} needs quoting")
    if b"\r" in shebang.newline:
        raise Unwritable("a line that ends in CR LF cannot be handed to sh")
    if shebang.coding:
        raise Unwritable("its coding line must stay among the first two, and it is not UTF-8")
    # `readlink -f`, since busybox's `realpath` takes no options; its answer begins with a slash.
    command = b'"$(dirname "$(readlink -f "$0")")"/' + shebang.name
    options = b" " + quoted(shebang.options) if shebang.options else b""
    return b"#!/bin/sh\n'''exec' " + command + options + b' "$0" "$@"\n' + b"' '''\n"


def quoted(word: bytes) -> bytes:
    """Quote ``word`` for sh inside double quotes; a word that would need an escape there is refused.

    Backslashes are refused since the script's language may read the same line as a string.
    """
    if _QUOTES.search(word):
        raise Unwritable(f"{word!r} holds a quote, a dollar sign, a backtick or a backslash")
    return b'"' + word + b'"'


def _base(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _named(word: bytes, prefix: bytes) -> Iterator[int]:
    """Yield the offsets at which ``word`` names the prefix."""
    for hit in match.search([word], {prefix: (prefix, Spelling.PLAIN)}):
        if match.is_reference(hit):
            yield hit.offset


def _moved(word: bytes, old: bytes, new: bytes) -> bytes:
    out: List[bytes] = []
    at = 0
    for offset in _named(word, old):
        out += [word[at:offset], new]
        at = offset + len(old)
    return b"".join([*out, word[at:]])


def _command(shebang: Shebang) -> Optional[_Command]:
    """Find the interpreter that reads the script: behind env it is an argument. None where that is not plain."""
    options = shebang.options
    if shebang.name != b"env":
        return _Command((), shebang.interpreter, (options,) if options else ())
    split = re.match(rb"-([iv]*)S", options)
    if split is None:
        # The kernel hands one word over, and env takes it for one name.
        plain = options[:1] != b"-" and not _BLANK.search(options) and b"=" not in options
        return _Command((), options, ()) if plain and options else None
    words = _split(options[split.end() :])
    at = next((i for i, word in enumerate(words) if word[:1] != b"-" and b"=" not in word), None)
    if at is None or re.search(rb"-\w*[uCSPL]\Z|--\w[^=]*\Z", words[at - 1] if at else b""):
        return None  # that word may be the value of an option
    flags = (b"-" + split.group(1),) if split.group(1) else ()
    return _Command((shebang.interpreter, *flags, *words[:at]), words[at], tuple(words[at + 1 :]))


def _split(text: bytes) -> Sequence[bytes]:
    """Split a string for ``env -S`` into words; none where it holds an escape, a variable or a comment."""
    words: List[bytes] = _ENV_WORD.findall(text)
    if _ENV_WORD.sub(b"", text).strip(b" \t") or any(word.startswith(b"#") for word in words):
        return ()
    return [_ENV_QUOTED.sub(lambda found: found[1] or found[2] or b"", word) for word in words]


def _one_line(shebang: Shebang, command: Optional[_Command], old: bytes, new: bytes) -> Optional[bytes]:
    """Write the line for ``new``, or None where the kernel, env or the interpreter would not take it."""
    interpreter, options = _moved(shebang.interpreter, old, new), _moved(shebang.options, old, new)
    if _BLANK.search(interpreter):
        return None
    if options != shebang.options:
        if shebang.name == b"env" and options.startswith(b"-"):
            if command is None and not _PLAIN.match(new):
                return None
            if command is not None and _BLANK.search(new):
                words = (*command.launcher[1:], command.interpreter, *command.options)
                options = b"-S " + b" ".join(word if _PLAIN.match(word) else quoted(word) for word in words)
            elif _QUOTES.search(new):
                raise Unwritable(f"env would not take {new!r} as it is written")
        elif _BLANK.search(new) and _READS_ITS_LINE.match(shebang.name):
            return None
        elif shebang.name == b"env" and b"=" in options:
            return None  # env would take it for an assignment
    line = b"#!" + interpreter + (b" " + options if options else b"") + shebang.newline
    # The kernel takes a CR for a part of the line.
    return line if len(line.rstrip(b"\n")) < LIMIT else None


def _through_sh(command: _Command, coding: bytes) -> bytes:
    """Write a head that has ``/bin/sh`` start ``command``. Each option stays the word that it was."""
    name = _base(command.interpreter)
    form = next((form for names, form in _FORMS if re.match(names + rb"\Z", name)), None)
    if form is None:
        raise Unwritable(f"a longer line than {LIMIT} bytes, or a space, and no way through sh for {name!r}")
    odd = [word for word in command.options if word[:1] not in (b"-", b"+")]
    if odd or (is_python(name) and any(word[:2] in (b"-m", b"-c") for word in command.options)):
        raise Unwritable(f"{name!r} is started with {b' '.join(command.options)!r}: what reads the script is not known")
    # env may have been told to clear the environment: it says again what the shell must know.
    told = (b'shebang_of="$0"',) if form is _shell and command.launcher else ()
    start = b" ".join((*map(quoted, command.launcher), *told, quoted(command.interpreter)))
    options = b"".join(b" " + quoted(word) for word in command.options)
    return b"#!/bin/sh\n" + form(start, options, coding)


def _encoding(line: bytes) -> bytes:
    """Return the encoding that a line declares to Python, as Python understands it; empty if none."""
    found = _CODING.match(line)
    name = found.group(1).lower().replace(b"_", b"-") if found else b""
    # Emacs writes "utf-8-unix".
    return re.sub(rb"(utf-8|latin-1|iso-8859-1|iso-latin-1)-.*", rb"\1", name)


def _check_python(head: bytes, archived: bytes, coding: bytes) -> None:
    """Refuse a head that Python could not read: it decodes every line, comments, too."""
    for line in head.split(b"\n")[:2]:
        if _encoding(line) and not coding.startswith(line) and not _encoding(archived.partition(b"\n")[0]):
            raise Unwritable("Python would read the path as the name of an encoding")
    name = (_encoding(coding) or b"utf-8").decode()
    try:
        head.decode(name)
    except UnicodeDecodeError as error:
        raise Unwritable(f"Python reads the line, too, and the path is not {name.upper()}") from error
    except LookupError as error:  # packages bring encodings, such as future-fstrings
        if re.search(rb"[\x80-\xff]", head):
            raise Unwritable(f"Python reads the line, too: {error}, and the path is not ASCII") from error


def _check_utf8(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise Unwritable("the interpreter reads the line, too, and the path is not UTF-8") from error


_ARGUMENTS = b' "$0" "$@"'


def _python(start: bytes, options: bytes, coding: bytes) -> bytes:
    """A comment to Python, which takes a form feed for white space; a command that is not there to sh.

    So the script's own first string stays its ``__doc__``, and a coding line stays among the first two.
    """
    if coding and not coding.endswith(b"\n"):
        coding += b"\n"
    return coding + b"\f# 2>/dev/null || :; exec " + start + options + _ARGUMENTS + b"\n"


def _perl(start: bytes, options: bytes, coding: bytes, name: bytes = b"perl") -> bytes:
    """perl and ruby skip to a line that names them when told ``-x``; the next may declare an encoding."""
    # -x comes first: some write "#!perl -- # -*- perl -*-".
    return b"exec " + start + b" -x" + options + _ARGUMENTS + b"\n#!" + name + b"\n" + coding


def _shell(start: bytes, options: bytes, coding: bytes) -> bytes:
    """The shell that comes second knows by a variable that it is; the variable ends there.

    A script that is sourced is not ``$0``; zsh says that it is, and tells the truth in a variable.
    """
    return (
        b'if [ "${shebang_of-}" = "$0" ]; then unset shebang_of; shebang_of=$0; '
        b'elif [ -f "$0" ] && (case ${ZSH_EVAL_CONTEXT-} in *file*) exit 1;; esac; read -r line; read -r line; '
        b'case $line in \'if [ "${shebang_of-}"\'*) ;; *) exit 1;; esac) <"$0"; then shebang_of=$0; export shebang_of; '
        b"exec " + start + options + _ARGUMENTS + b"; fi\n" + coding
    )


def _r(start: bytes, options: bytes, coding: bytes) -> bytes:
    r"""sh knows no escape in single quotes, so ``'\'`` is a word; to R the string goes on to the end."""
    _check_utf8(start + options)
    return b"shebang='\\';exec " + start + options + _ARGUMENTS + b" #';rm(shebang)\n" + coding


def _tcl(start: bytes, options: bytes, coding: bytes) -> bytes:
    """To Tcl a comment that ends in a backslash goes on in the next line; to sh it does not."""
    _check_utf8(start + options)
    return b"# \\\nexec " + start + options + _ARGUMENTS + b"\n" + coding


def _lua(start: bytes, options: bytes, coding: bytes) -> bytes:
    """A long string to Lua."""
    if b"]]" in start + options:
        raise Unwritable("Lua would end a string at the two brackets in the path")
    return b"shebang=[[;exec " + start + options + _ARGUMENTS + b" #]]shebang=nil\n" + coding


def _node(start: bytes, options: bytes, coding: bytes) -> bytes:
    """A directive and a comment to JavaScript, so that a "use strict" behind it stays a directive."""
    if b"*/" in start + options:
        raise Unwritable("JavaScript would end a comment in the path")
    return b'":" /*;exec ' + start + options + _ARGUMENTS + b" #*/;\n" + coding


_FORMS: Tuple[Tuple[bytes, Callable[[bytes, bytes, bytes], bytes]], ...] = (
    (rb"(python|pypy)[0-9.]*t?", _python),
    (rb"perl[0-9.]*", _perl),
    (rb"ruby[0-9.]*", partial(_perl, name=b"ruby")),
    (rb"(|a|ba|da|k|mk|po|ya|z)sh|ksh93", _shell),
    (rb"Rscript", _r),
    (rb"(tclsh|wish|expect)[0-9.]*", _tcl),
    (rb"lua(jit)?[-0-9.]*", _lua),
    (rb"node(js)?", _node),
)
