"""What a conda environment brings along that acts outside of its files: menu entries, and scripts of packages.

All of it is archived. None of it is done again where the environment goes; so it is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from installer_stub.model import Finding

MENU = "a menu entry, which is made on no target"
POST_LINK = "a script that ran when its package was installed, and runs on no target: what it made is archived"
PRE_UNLINK = "a script that runs when its package is removed"
TOLD = (MENU, POST_LINK, PRE_UNLINK)

_MENU = re.compile(rb"Menu/[^/]+\.json\Z")
_SCRIPT = re.compile(rb"bin/\.(?P<package>.+)-(?P<when>post-link|pre-link|pre-unlink|post-unlink)\.sh\Z")
_WHERE = (b"Menu/", b"bin/.")  # what both begin with: most paths begin otherwise


def brought(paths: Iterable[bytes]) -> list[Finding]:
    """Note each such path, with the package of a script."""
    notes = []
    for path in paths:
        if not path.startswith(_WHERE):
            continue
        script = _SCRIPT.match(path)
        if _MENU.match(path):
            notes.append(Finding(path, -1, MENU))
        elif script is not None:
            what = PRE_UNLINK if script["when"].endswith(b"unlink") else POST_LINK
            notes.append(Finding(path, -1, what, script["package"].decode("utf-8", "backslashreplace")))
    return notes
