"""Where a symlink of an environment leads, and how it says so wherever the environment stands."""

from __future__ import annotations

import os
from collections.abc import Iterable

from installer_stub import match
from installer_stub.walk import Found


def inside(link: Found, prefix: bytes, names: Iterable[bytes]) -> bytes | None:
    """Return the text of a symlink that leads inside the prefix as one that holds wherever the prefix stands.

    ``prefix`` is where the environment is read, ``names`` are all names of it, the longest first. An absolute
    text becomes relative to the link, and so does one that leaves the prefix and comes back by its name
    (``../env/lib``); any other relative text stays as it is. None: the link leaves the prefix. A chain is
    followed one link far: each of its links is seen to by itself.
    """
    here = [part for part in os.path.dirname(link.path).split(b"/") if part]
    parts = _parts(link.target)
    if not link.target.startswith(b"/"):
        if not _may_leave(parts, len(here)):
            return link.target
        base = os.path.dirname(link.path)
        found = _followed(os.path.realpath(prefix), base, base, parts)
        return link.target if found == (base, parts) else found and _relative(here, *found)
    for name in names:
        if match.within(link.target, name):
            rest = _parts(link.target[len(name) :])
            found = (b"", rest) if b".." not in rest else _followed(os.path.realpath(prefix), b"", b"", rest)
            return found and _relative(here, *found)
    found = _followed(os.path.realpath(prefix), b"/", None, parts)
    return found and _relative(here, *found)


def _parts(text: bytes) -> list[bytes]:
    return [part for part in text.split(b"/") if part not in (b"", b".")]


def _may_leave(parts: list[bytes], depth: int) -> bool:
    """Whether a relative text can climb out: what lies between link and prefix are directories, no symlinks."""
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    return climbs > depth or b".." in parts[climbs:]


def _followed(root: bytes, start: bytes, base: bytes | None, parts: list[bytes]) -> tuple[bytes, list[bytes]] | None:
    """Follow a text from ``start`` as the kernel does, and say where it last came into ``root`` and how it goes on.

    ``base`` is the path in ``root`` at which it starts, None outside. A step to a symlink that leads out stays
    inside: that link speaks for itself. Returns None where the text ends outside.
    """
    at = os.path.join(root, start)
    tail: list[bytes] = []
    for part in parts:
        before, at = at, os.path.realpath(os.path.join(at, part))
        if match.within(at, root) and not match.within(before, root):
            base, tail = at[len(root) + 1 :], []
        elif base is not None and (part != b".." or match.within(at, root)):
            tail.append(part)
        else:
            base = None
    return None if base is None else (base, tail)


def _relative(here: list[bytes], base: bytes, tail: list[bytes]) -> bytes:
    """Write the way from the directory ``here`` to ``base`` and on. Only leading parts that are ``here``'s own are cut.

    To drop a part before ``..`` would be wrong where it is a symlink.
    """
    parts = [*_parts(base), *tail]
    common = 0
    while common < min(len(here), len(parts)) and here[common] == parts[common]:
        common += 1
    return b"/".join([*[b".."] * (len(here) - common), *parts[common:]]) or b"."
