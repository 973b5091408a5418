"""Removing what a manifest lists, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Callable, Container, Dict, List, NamedTuple, Set, Tuple

from installer_stub import carry_over, durable, incomplete, kernels, manifest, register, swap, walk
from installer_stub.incomplete import OURS, Phase
from installer_stub.model import Kind, Listing
from installer_stub.relocate import Tree

_IN_USE = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)  # somebody put something into it, or mounted something there
_KEPT = (manifest.DIRECTORY, *OURS)  # to the last, or for good


class Removed(NamedTuple):
    """How many paths were removed, and which are left: somebody added them."""

    removed: int
    left: Tuple[bytes, ...]


def uninstall(tree: Tree, listing: Listing, work: bytes) -> Removed:
    """Remove all that the tree's full list names, the byte code made of it, and what packing and installing added.

    Directories go when nothing is left in them. No symlink is followed. When this is interrupted, running it
    again goes on. ``work`` is a workplace on the tree's file system. Raises OSError.
    """
    root = tree.root
    listed = {entry.path for entry in listing.entries} | set(tree.manifest.added)
    incomplete.write(root, incomplete.marker(Phase.REMOVAL, root, work), work)
    register.unregister(root)
    kernels.unregister(root)
    count = _remove(root, listed)
    # As a whole: up to that moment it tells what is to be removed.
    own = os.path.join(root, manifest.DIRECTORY)
    durable.in_directory(own, lambda: swap.move(own, os.path.join(work, b"manifest")))
    incomplete.clear(root)
    return Removed(count, finish(root))


def finish(root: bytes) -> Tuple[bytes, ...]:
    """Remove the root of a tree that is gone, if nothing is left in it; return what is."""
    left = tuple(found.path for found in walk.walk(root, lambda path: path in _KEPT))
    if not left:
        with suppress(OSError):  # a mount point stays, and what is in a directory of somebody else's
            os.rmdir(root)
    return left


def _remove(root: bytes, listed: Set[bytes]) -> int:
    """Remove the listed files, then the directories that are empty and were the tree's; return how many paths."""
    holding = {parent for path in listed for parent in _parents(path)}
    directories: List[bytes] = []
    count = 0
    opened: Dict[bytes, int] = {}  # directory -> the mode that it had
    try:
        for found in walk.walk(root, lambda path: path in _KEPT):
            if found.kind is Kind.DIRECTORY:
                directories.append(found.path)
            elif found.path in listed or carry_over.is_compiled(found.path, listed):
                count += _removed(os.path.join(root, found.path), os.unlink, opened)
        for path in reversed(directories):
            if path in listed or path in holding or _is_cache(path, holding):
                try:
                    count += _removed(os.path.join(root, path), os.rmdir, opened)
                except OSError as error:
                    if error.errno not in _IN_USE:
                        raise
    finally:
        for directory, mode in opened.items():
            with suppress(OSError):  # most of them are gone
                os.chmod(directory, mode)
    return count


def _parents(path: bytes) -> List[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def _is_cache(path: bytes, holding: Container[bytes]) -> bool:
    directory, _, name = path.rpartition(b"/")
    return name == b"__pycache__" and directory in holding


def _removed(path: bytes, remove: Callable[[bytes], None], opened: Dict[bytes, int]) -> int:
    """Remove a path, also from a directory that its owner may not write; return how many that were."""
    try:
        remove(path)
    except FileNotFoundError:
        return 0
    except PermissionError:
        directory = os.path.dirname(path)
        mode = stat.S_IMODE(os.stat(directory).st_mode)
        if mode & stat.S_IWUSR:
            raise
        os.chmod(directory, mode | stat.S_IRWXU)
        opened[directory] = mode
        remove(path)
    return 1
