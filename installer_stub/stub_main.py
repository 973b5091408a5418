"""Where the frozen relocator begins: it takes back what freezing did to the environment, then relocates.

PyInstaller's loader starts the program a second time, with its own variables and its own directory in
``LD_LIBRARY_PATH``. Nothing that this program starts may see any of them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Dict, Mapping, Optional

_OF_THE_LOADER = ("_PYI_", "_MEI")
_LIBRARIES = "LD_LIBRARY_PATH"
# What the caller had stands in variables of these names and this ending: the loader saves its path there, and an
# installer's script both, where they kept this program from starting.
_ENDING = "_ORIG"
_SAVED = (_LIBRARIES, "LD_PRELOAD")

RECORD = "stub.json"  # beside the program


def restored(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables as the caller of the frozen program had them."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_OF_THE_LOADER)}
    kept.pop(_LIBRARIES, None)
    for name in _SAVED:
        saved = kept.pop(name + _ENDING, None)
        if saved is not None:
            kept[name] = saved
    return kept


def version(program: str) -> str:
    """Name the stub that ``program`` is of: the start of the SHA-256 in the record beside it."""
    record: Optional[Dict[str, object]] = None
    try:
        with open(os.path.join(os.path.dirname(program), RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        pass  # a program without its record relocates all the same
    return "frozen {:.12}".format(record["sha256"]) if isinstance(record, dict) and "sha256" in record else "frozen"


if __name__ == "__main__":
    from installer_stub.__main__ import main

    before = restored(os.environ)
    os.environ.clear()
    os.environ.update(before)
    main(version(sys.executable))
