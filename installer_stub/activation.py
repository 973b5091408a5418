"""The activation scripts of a tree: the templates in ``activate/``, filled in for where the tree stands.

Those named ``find`` are how a sourced script finds itself, a part of the others. The recorded prefix and the variables
of the environment are written into the scripts, each quoted as its shell reads it: a shell can then activate without
starting a process to parse JSON or to resolve a path.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from installer_stub.errors import EnvironmentUnfit

MODE = 0o755  # of every script
STEM = "activate"
STEM_BESIDE = "pack-activate"  # where the environment brings an activate of its own

# Written by "conda env config vars unset" for a variable that is to be left alone.
_UNSET = "***unset***"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What activation itself sets, or rests on while it runs.
_RESERVED = re.compile(
    r"(PATH|PS1|IFS|LC_ALL|CONDA_PREFIX(_\d+)?|CONDA_SHLVL|CONDA_DEFAULT_ENV"
    r"|CONDA_PROMPT_MODIFIER|CONDA_STACKED_\d+|_PACK_.*|_pack_.*)\Z"
)
_TOKEN = re.compile(rb"'@(PREFIX|HOST)@'|@(STEM|BESIDE|DEACTIVATE)@|^[ \t]*# @(NAMES|VARIABLES)@\n", re.MULTILINE)
_FIND = b"# @FIND@\n"
_ADDED = b"# Added by pack.\n"  # what the three heads of `own_head` begin with


class Shell(Enum):
    """A syntax that scripts are written in; the value is the suffix of its templates."""

    SH = "sh"
    FISH = "fish"
    CSH = "csh"


def quote(value: bytes, shell: Shell) -> bytes:
    """Write ``value`` as one word of ``shell`` that stands for these bytes and nothing else."""
    if shell is Shell.FISH:
        return b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
    value = value.replace(b"'", b"'\\''")
    if shell is Shell.CSH:
        # History and the end of the line count inside single quotes too.
        value = value.replace(b"!", b"\\!").replace(b"\n", b"\\\n")
    return b"'" + value + b"'"


def scripts(
    stem: str, prefix: Optional[bytes], host: bytes, variables: Sequence[Tuple[bytes, bytes]] = ()
) -> Dict[bytes, bytes]:
    """Render the scripts of a tree: path relative to its root -> content, all of mode ``MODE``.

    ``stem`` is ``STEM`` or ``STEM_BESIDE``; ``prefix`` is the physical path that the tree is relocated to,
    None for a tree as archived; ``host`` is where that was done; ``variables`` come from
    ``read_variables``. Any bytes do, except NUL. The same arguments give the same bytes.
    """
    if stem not in (STEM, STEM_BESIDE):
        raise ValueError(f"stem must be {STEM!r} or {STEM_BESIDE!r}, not {stem!r}")
    names = {b"activate": stem.encode(), b"deactivate": stem.replace("activate", "deactivate").encode()}
    made = {b"bin/conda-unpack": _template("conda-unpack.sh")}
    for shell in Shell:
        facts = {
            b"PREFIX": quote(prefix or b"", shell),
            b"HOST": quote(host, shell),
            b"STEM": names[b"activate"],
            b"DEACTIVATE": names[b"deactivate"],
            b"NAMES": b"".join(b"    set _pack_names = ( $_pack_names %s )\n" % name for name, _ in variables),
            b"VARIABLES": b"".join(_assignment(name, value, shell) for name, value in variables),
        }

        for template, name in names.items():
            made[_path(name, shell)] = _rendered(template.decode(), shell, facts)
    return made


def own_head(path: bytes, content: bytes, prefix: bytes) -> bytes:
    """Render what is put before a virtual environment's own activation script, so that it relocates the tree.

    ``path`` is that of the script below ``prefix``, and ``content`` what it begins with. Empty for any other file, and
    where such a head is there already.
    """
    for shell in Shell:
        if path == _path(STEM.encode(), shell) and not content.startswith(_ADDED):
            names = {b"STEM": STEM.encode(), b"BESIDE": STEM_BESIDE.encode()}
            return _rendered("own", shell, {**names, b"PREFIX": quote(prefix, shell), b"HOST": quote(b"", shell)})
    return b""


def _path(name: bytes, shell: Shell) -> bytes:
    return b"bin/" + name + (b"" if shell is Shell.SH else b"." + shell.value.encode())


def _rendered(template: str, shell: Shell, facts: Dict[bytes, bytes]) -> bytes:
    source = _template(f"{template}.{shell.value}").replace(_FIND, _template(f"find.{shell.value}"))
    # In one pass: a prefix may hold what looks like a token.
    return _TOKEN.sub(lambda found: facts[found[1] or found[2] or found[3]], source)


def read_variables(prefix: Path) -> List[Tuple[bytes, bytes]]:
    """Read the variables that the environment wants set, as conda does.

    They come from ``etc/conda/env_vars.d/*.json`` in the order of their names, then from
    ``conda-meta/state``, which wins; none of these need exist. Raises EnvironmentUnfit for a file that is
    not what conda writes, and for a name or value that no shell can hold.
    """
    found: Dict[bytes, bytes] = {}
    directory = prefix / "etc" / "conda" / "env_vars.d"
    if directory.is_dir():
        for path in sorted(directory.glob("*.json"), key=os.fsencode):
            found.update(_pairs(path, _object(path)))
    state = prefix / "conda-meta" / "state"
    if state.is_file():
        env_vars = _object(state).get("env_vars", {})
        if not isinstance(env_vars, dict):
            raise _unfit(state, f"env_vars is {env_vars!r}, not an object")
        # A variable that is unset there is not taken from a package either.
        for name, value in _pairs(state, env_vars).items():
            if value == _UNSET.encode():
                found.pop(name, None)
            else:
                found[name] = value
    return [(name, value) for name, value in found.items() if value != _UNSET.encode()]


def _template(name: str) -> bytes:
    data = pkgutil.get_data("installer_stub", f"activate/{name}")
    if data is None:
        raise FileNotFoundError(f"installer_stub/activate/{name}")
    return data


def _assignment(name: bytes, value: bytes, shell: Shell) -> bytes:
    setter = b"setenv" if shell is Shell.CSH else b"_pack_set"
    return b"    %s %s %s\n" % (setter, name, quote(value, shell))


def _object(path: Path) -> Dict[str, Any]:
    try:
        document = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _unfit(path, str(error)) from error
    if not isinstance(document, dict):
        raise _unfit(path, f"it holds {document!r:.40}, not an object")
    return document


def _pairs(path: Path, document: Dict[str, Any]) -> Dict[bytes, bytes]:
    pairs: Dict[bytes, bytes] = {}
    for name, value in document.items():
        if not _NAME.match(name):
            raise _unfit(path, f"{name!r} is no name that a shell can give to a variable")
        if _RESERVED.match(name):
            raise _unfit(path, f"activation sets {name} itself")
        # conda writes a number or a truth value into the shell as Python prints it.
        if not isinstance(value, (str, int, float)):
            raise _unfit(path, f"the value of {name} is {value!r:.40}, not a string")
        if "\0" in str(value):
            raise _unfit(path, f"the value of {name} holds a NUL")
        try:
            pairs[name.encode()] = str(value).encode()
        except UnicodeEncodeError as error:
            raise _unfit(path, f"the value of {name} holds half a surrogate pair") from error
    return pairs


def _unfit(path: Path, why: str) -> EnvironmentUnfit:
    return EnvironmentUnfit(
        f"{path}: the environment's variables cannot be read: {why}.",
        'Mend the file, or set the variables again with "conda env config vars".',
    )
