"""What somebody added to a tree, or changed in it, goes over into the tree that replaces it."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Container, Dict, Iterator, List, Optional, Tuple

from installer_stub import durable, manifest, relocate, staging, walk
from installer_stub.errors import OutputError
from installer_stub.incomplete import OURS
from installer_stub.model import Entry, Finding, Kind, Relocatable
from installer_stub.relocate import Tree
from installer_stub.rewrite import Form

CARRIED = "carried over"
ASIDE = "carried over beside the new one"
GIVEN_UP = "not carried over"

_ASIDE = b".before-update"  # behind the name of what the new tree has a version of its own of
_NAME_MAX = 255  # bytes; of every file system in use
_CACHE = b"__pycache__"
_COMPILED = re.compile(rb"(.*/)?__pycache__/([^/]+?)\.[^./]+(\.opt-[12])?\.pyc\Z", re.DOTALL)


class Added(Enum):
    """What becomes of the files that somebody added or changed."""

    CARRY = "carry"
    DROP = "drop"


def carry_over(old: Tree, tree: bytes, wish: Added) -> List[Finding]:
    """Link what is not the old tree's own into the new one at ``tree``; return a finding for each such path.

    Where the new tree has something of that name, what was added gets another one. Byte code of the old
    tree's own sources is nobody's. With ``DROP`` nothing is linked. Both trees are on one file system, and what is
    around the new one is this process's own. Raises OutputError for what cannot be read, and would be lost.
    """
    new = _New(tree, old.root)
    findings: List[Finding] = []
    for found in _added(old):
        if wish is Added.DROP:
            if found.kind is not Kind.DIRECTORY or found.error:
                findings.append(Finding(found.path, -1, GIVEN_UP, found.error))
        elif found.error:
            raise _unreadable(os.path.join(old.root, found.path), found.error)
        elif found.kind is None:
            findings.append(Finding(found.path, -1, GIVEN_UP, f"it is {found.special}"))
        else:
            findings += new.take(found)
    new.dress()
    return findings


def _added(old: Tree) -> Iterator[walk.Found]:
    """Yield what is in the old tree and not as its manifest says, each directory before what is in it."""
    entries = {entry.path: entry for entry in relocate.listing_of(old).entries}
    files = {file.path: file for file in old.manifest.files}
    for found in walk.walk(old.root, lambda path: path in OURS or manifest.is_ours(path, old.manifest)):
        is_cache = found.kind is Kind.DIRECTORY and os.path.basename(found.path) == _CACHE  # made for what is in it
        entry = entries.get(found.path)
        if found.error or not (
            is_cache
            or is_compiled(found.path, entries)
            or (entry is not None and _is_as_listed(old, entry, entries, files, found))
        ):
            yield found


def is_compiled(path: bytes, listed: Container[bytes]) -> bool:
    """Whether a path is byte code that Python made of a source that is listed."""
    match = _COMPILED.match(path)
    return match is not None and (match[1] or b"") + match[2] + b".py" in listed


def _is_as_listed(
    old: Tree, entry: Entry, entries: Dict[bytes, Entry], files: Dict[bytes, Relocatable], found: walk.Found
) -> bool:
    """Whether a path is what the manifest lists: its bytes, in a form that the state knows."""
    links = (Kind.FILE, Kind.HARD_LINK)
    if entry.kind not in links or found.kind not in links:
        return entry.kind is found.kind and entry.target == (found.target if entry.kind is Kind.SYMLINK else b"")
    first = entries.get(entry.target, entry) if entry.kind is Kind.HARD_LINK else entry
    file = files.get(first.path)
    if file is None:
        if (first.size, first.mtime) == (found.size, found.mtime_ns // 10**9):
            return True
        file = Relocatable(first.path, (), first.size, first.sha256, ())
    full = os.path.join(old.root, entry.path)
    forms = [stand.form for stand in old.state.stands] if file.references else [Form(None)]
    return any(staging.is_in_form(full, file, form) for form in forms)


class _New:
    """The new tree as it takes in what was added to the old one at ``old``."""

    def __init__(self, root: bytes, old: bytes) -> None:
        self._root = root
        self._old = old
        self._work = os.path.dirname(root)
        self._places: Dict[bytes, Optional[bytes]] = {b"": b""}  # directory of the old tree -> that of the new one
        self._made: Dict[bytes, bytes] = {}  # directory -> the one that it is like

    def take(self, found: walk.Found) -> Iterator[Finding]:
        """Give one path of the old tree a name in this one. No byte is copied where there are hard links."""
        path = found.path
        directory = self._directory(path if found.kind is Kind.DIRECTORY else os.path.dirname(path))
        if directory is None:
            yield Finding(path, -1, GIVEN_UP, "the new version has something else where its directory was")
        elif found.kind is not Kind.DIRECTORY:
            places = [os.path.join(directory, name) for name in _names(path)]
            place = next((each for each in places if self._is_free(each)), None)
            if place is None:
                yield Finding(path, -1, GIVEN_UP, f"there is a {os.fsdecode(places[-1])} already")
                return
            self._link(found, os.path.join(self._root, place))
            beside = place != path
            yield Finding(path, -1, ASIDE if beside else CARRIED, os.fsdecode(place) if beside else "")

    def _link(self, found: walk.Found, to: bytes) -> None:
        source = os.path.join(self._old, found.path)
        if found.kind is Kind.SYMLINK:
            durable.symlink(found.target, to, self._work)
            status = os.lstat(source)
            with suppress(OSError):  # only root gives to others what is theirs
                os.chown(to, status.st_uid, status.st_gid, follow_symlinks=False)
            return
        try:
            durable.link(source, to, self._work)
        except PermissionError as error:
            raise _unreadable(source, error.strerror or "") from error

    def _is_free(self, path: bytes) -> bool:
        return not os.path.lexists(os.path.join(self._root, path))

    def _directory(self, path: bytes) -> Optional[bytes]:
        """Return where a directory of the old tree is in this one, and make it if need be; None where it cannot be.

        All that it goes through is directories: nothing is written through a symlink of the new version.
        """
        if path not in self._places:
            self._places[path] = None
            above = self._directory(os.path.dirname(path))
            for place in [os.path.join(above, name) for name in _names(path)] if above is not None else []:
                full = os.path.join(self._root, place)
                if self._is_free(place):
                    durable.in_directory(full, partial(os.mkdir, full, 0o700))
                    self._made[full] = os.path.join(self._old, path)
                if stat.S_ISDIR(os.lstat(full).st_mode):
                    self._places[path] = place
                    break
        return self._places[path]

    def dress(self) -> None:
        """Give the directories that were made what belongs to them, now that they are filled."""
        for full, like in reversed(list(self._made.items())):
            durable.dress(full, like)
            status = os.stat(like)
            os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns))


def _names(path: bytes) -> Tuple[bytes, bytes]:
    """Return the name of a path, and the one that it gets where the first is taken."""
    name = os.path.basename(path)
    return name, name[: _NAME_MAX - len(_ASIDE)] + _ASIDE


def _unreadable(path: bytes, why: str) -> OutputError:
    return OutputError(
        f"{os.fsdecode(path)}: cannot be carried over into the new version: {why}.",
        "Let its owner move it away, or leave what was added behind with --added drop. Nothing was changed.",
    )
