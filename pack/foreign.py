"""Directories in a prefix that are not the environment's: package caches, other environments, caches of programs.

The prefix of a conda or mamba installation holds ``pkgs`` and ``envs``. They are known by what they are, not by
their names: an environment's own data may be called so, too.
"""

from __future__ import annotations

import os

from installer_stub.walk import Found

# https://bford.info/cachedir/: the first 43 bytes of the file CACHEDIR.TAG.
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_TAG = b"CACHEDIR.TAG"


def directories(prefix: bytes) -> dict[bytes, str]:
    """Find package caches and directories of environments right below a prefix, with what each is."""
    found = {}
    for name in _names(prefix):
        path = os.path.join(prefix, name)
        if os.path.islink(path) or not os.path.isdir(path):
            continue
        if _is_package_cache(path):
            found[name] = "a package cache"
        elif _holds_environments(path):
            found[name] = "a directory of other environments"
    return found


def caches(prefix: bytes, found: list[Found]) -> dict[bytes, str]:
    """Find the directories that say of themselves, or show by what is in them, that they are caches."""
    paths = {each.path for each in found}
    marked = {}
    for each in found:
        if not each.path.endswith((_TAG, b"selfcheck")):
            continue
        directory, _, name = each.path.rpartition(b"/")
        if name == _TAG and directory and _is_tag(os.path.join(prefix, each.path)):
            marked[directory] = "a cache"
        elif name == b"selfcheck" and {directory + b"/http", directory + b"/http-v2"} & paths:
            marked[directory] = "a cache of pip"
    return marked


def _is_package_cache(path: bytes) -> bool:
    """Whether conda, mamba or rattler keeps packages here: each in a directory of its name, with its metadata."""
    names = set(_names(path))
    if b"urls.txt" in names or b"urls" in names:
        return True
    packages = (name[: -len(suffix)] for name in names for suffix in (b".conda", b".tar.bz2") if name.endswith(suffix))
    return any(os.path.isfile(os.path.join(path, package, b"info", b"index.json")) for package in packages)


def _holds_environments(path: bytes) -> bool:
    """Whether every directory in it is an environment, and there is one; or conda's mark of where it makes them."""
    names = _names(path)
    below = [name for name in names if os.path.isdir(os.path.join(path, name))]
    if below:
        return all(os.path.isdir(os.path.join(path, name, b"conda-meta")) for name in below)
    return names == [b".conda_envs_dir_test"]


def _is_tag(path: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


def _names(path: bytes) -> list[bytes]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
