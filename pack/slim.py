"""What running an environment does not need: the profiles of ``--slim``.

Each is a list of places that are known for it, never a guess from a name alone; ``docs/selection.md`` lists them,
with what breaks without each. Licences stay, wherever they lie.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence

from installer_stub import bytecode
from installer_stub.errors import UsageError
from pack import vendor

ALL = "all"

# Patterns of fnmatch for paths relative to the prefix; "*" matches slashes, too.
_PATTERNS = {
    "docs": (
        "share/doc/*",
        "share/man/*",
        "man/*",
        "share/info/*",
        "share/gtk-doc/*",
        "share/devhelp/*",
        "lib/python3*/site-packages/*/doc/*.html",
        "lib/R/doc/manual/*",
        "lib/R/library/*/doc/*",
        "lib/R/library/*/help/*",
        "lib/R/library/*/html/*",
    ),
    "tests": (
        "lib/python3*/site-packages/*/tests/*",
        "lib/python3.[0-9]*/test/*",
        "lib/python3.[0-9]*/idlelib/idle_test/*",
        "lib/python3.[0-9]*/ctypes/test/*",
        "lib/python3.[0-9]*/distutils/tests/*",
        "lib/python3.[0-9]*/lib2to3/tests/*",
        "lib/python3.[0-9]*/sqlite3/test/*",
        "lib/python3.[0-9]*/tkinter/test/*",
        "lib/python3.[0-9]*/unittest/test/*",
        "lib/R/library/*/tests/*",
    ),
    "static": ("*.a", "*.la"),
    "headers": (
        "include/*",
        "lib/pkgconfig/*",
        "share/pkgconfig/*",
        "lib/cmake/*",
        "share/aclocal/*",
        "lib/python3*/site-packages/*/include/*.h",
        "lib/python3*/site-packages/*/include/*.hpp",
    ),
    "locales": ("share/locale/*/LC_MESSAGES/*", "lib/R/library/translations/*", "share/i18n/*"),
    "pyc": ("*/__pycache__/*.pyc",),
}  # fmt: skip
PROFILES = tuple(_PATTERNS)

_LICENCE = re.compile(rb"(?:^|/)(?:licen[cs]es?|copying|copyright|notice|authors)(?:[./_-]|$)", re.IGNORECASE)
# Inside a package that others import: their tests are part of what they offer.
_IMPORTED = re.compile(rb"/site-packages/(?:[^/]+/)*(?:testing|test_utils)/")


def profiles(text: str) -> tuple[str, ...]:
    """Read the value of ``--slim``: names of profiles with commas between, or "all". Raises UsageError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*PROFILES, ALL)]
    if unknown or not names:
        raise UsageError(
            f"--slim {text!r}: {'there is no profile ' + repr(unknown[0]) if unknown else 'names no profile'}",
            f"Give some of: {', '.join(PROFILES)}; or {ALL}.",
        )
    return PROFILES if ALL in names else tuple(name for name in PROFILES if name in names)


def slimming(names: Sequence[str], paths: Collection[bytes]) -> Callable[[bytes], str]:
    """Return what tells by which of the profiles a path goes, or "" where it stays.

    ``paths`` are all that the prefix holds: byte code goes only where its source is one of them.
    """
    compiled = {
        name: re.compile("|".join(fnmatch.translate(each) for each in _PATTERNS[name]).encode()) for name in names
    }

    def slimmed(path: bytes) -> str:
        inside = path.removeprefix(vendor.PYTHON + b"/")  # it has the same directories as a prefix
        for name, pattern in compiled.items():
            if pattern.match(inside) and not _LICENCE.search(path) and _goes(name, path, paths):
                return f"--slim {name}"
        return ""

    return slimmed


def _goes(profile: str, path: bytes, paths: Collection[bytes]) -> bool:
    if profile == "pyc":
        return (bytecode.source_path(path) or b"") in paths
    return profile != "tests" or not _IMPORTED.search(path)
