"""Telling Jupyter of the kernels in an environment: a kernel of the user's, that starts the environment's.

Jupyter looks for kernels in a directory of the user's, one directory for each, whose ``kernel.json`` says how to start
it. Ours activates the environment first, and is marked as ours, so that it can be taken away.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import suppress
from typing import Any, Dict, Iterator, List, Optional

from installer_stub.errors import OutputError

_KERNELS = b"share/jupyter/kernels"
_SPECIFICATION = b"kernel.json"
_MARK = "pack"
_UNFIT = re.compile(rb"[^a-zA-Z0-9._-]+")  # what Jupyter takes in no kernel's name
_START = '. "$0/bin/%s" && exec "$@"'


def register(prefix: bytes, stem: str) -> List[bytes]:
    """Make a kernel of the user's for each one in a prefix; ``stem`` is the name of its activation script.

    Returns the directories that were made or made again. Raises OutputError.
    """
    directory = _directory()
    made: List[bytes] = []
    for name, specification in _in(os.path.join(prefix, _KERNELS)):
        if directory is None:
            raise OutputError(
                "no kernel can be registered: HOME is not set, so nothing says where Jupyter looks for them.",
                "Set HOME, or do without --register.",
            )
        place = _place(directory, prefix, name)
        argv = [os.fsdecode(_absolute(prefix, os.fsencode(word))) for word in specification["argv"][:1]]
        started = ["/bin/sh", "-c", _START % stem, os.fsdecode(prefix), *argv, *specification["argv"][1:]]
        shown = f"{specification.get('display_name', os.fsdecode(name))} ({os.fsdecode(os.path.basename(prefix))})"
        metadata = {**specification.get("metadata", {}), _MARK: {"prefix": os.fsdecode(prefix)}}
        new = {**specification, "argv": started, "display_name": shown, "metadata": metadata}
        try:
            os.makedirs(place, exist_ok=True)
            with open(os.path.join(place, _SPECIFICATION), "w", encoding="utf-8") as file:
                json.dump(new, file, indent=1)
        except OSError as error:
            raise OutputError(
                f"{os.fsdecode(place)}: the kernel cannot be registered: {error.strerror}.", "Do without --register."
            ) from error
        made.append(place)
    return made


def unregister(prefix: bytes) -> None:
    """Take away the kernels that were made for a prefix, if they can be removed."""
    directory = _directory()
    for name, specification in _in(directory) if directory is not None else ():
        if _marked(specification) == os.fsdecode(prefix):
            with suppress(OSError):
                shutil.rmtree(os.path.join(directory or b"", name))


def _in(directory: bytes) -> Iterator[tuple[bytes, Dict[str, Any]]]:
    """Yield the kernels in a directory: those that say how they are started."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(directory, name, _SPECIFICATION), "rb") as file:
                specification = json.loads(file.read().decode())
            argv = specification["argv"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv):
            yield name, specification


def _marked(specification: Dict[str, Any]) -> Optional[str]:
    try:
        return str(specification["metadata"][_MARK]["prefix"])
    except (KeyError, TypeError):
        return None


def _place(directory: bytes, prefix: bytes, name: bytes) -> bytes:
    """Return a directory for a kernel: the one that was made before, or one that nobody has."""
    taken = dict(_in(directory))
    start = _UNFIT.sub(b"-", os.path.basename(prefix) + b"-" + name).lower()
    candidate, number = start, 2
    while os.path.lexists(os.path.join(directory, candidate)):
        if candidate in taken and _marked(taken[candidate]) == os.fsdecode(prefix):
            break
        candidate, number = start + b"-%d" % number, number + 1
    return os.path.join(directory, candidate)


def _absolute(prefix: bytes, program: bytes) -> bytes:
    """Return the program of a kernel: one without a directory is the environment's."""
    own = os.path.join(prefix, b"bin", program)
    return own if b"/" not in program and os.path.exists(own) else program


def _directory() -> Optional[bytes]:
    """Return where Jupyter looks for the user's kernels, as ``jupyter --paths`` tells."""
    environ = os.environb
    home = environ.get(b"HOME")
    if environ.get(b"JUPYTER_DATA_DIR"):
        data: Optional[bytes] = environ[b"JUPYTER_DATA_DIR"]
    elif sys.platform == "darwin":
        data = os.path.join(home, b"Library/Jupyter") if home else None
    elif environ.get(b"XDG_DATA_HOME"):
        data = os.path.join(environ[b"XDG_DATA_HOME"], b"jupyter")
    else:
        data = os.path.join(home, b".local/share/jupyter") if home else None
    return None if data is None else os.path.join(data, b"kernels")
