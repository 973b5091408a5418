"""Packages installed as editable: what a prefix holds of them only leads to sources elsewhere.

Every kind is found by what it leads to, not by who wrote it: a line of a ``.pth`` file, the mapping of an import hook,
an ``.egg-link``, a symlink. See ``docs/editables.md``.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from installer_stub.errors import EnvironmentUnfit
from installer_stub.manifest import encode
from installer_stub.model import Kind
from installer_stub.walk import Found

_MOST = 1 << 20  # bytes of a file that is read for this
_SITE = re.compile(rb"(?:^|/)(?:site|dist)-packages\Z")
_DIRECT_URL = re.compile(rb"(?P<site>.*/)?(?P<name>[^/]+)-[^/-]+\.dist-info/direct_url\.json\Z")
_HOOK = re.compile(rb"(?:__editable___.*_finder|_.*_editable(?:_loader)?)\.py\Z")
_REBUILDS = re.compile(rb"_.*_editable(?:_loader)?\.py\Z")  # of scikit-build-core and meson-python


class Editables(Enum):
    """What is done about them."""

    ERROR = "error"
    SKIP = "skip"
    VENDOR = "vendor"


class Leads(Enum):
    """How a file leads to a source."""

    PATH_LINE = "a line of a .pth file"
    CODE_LINE = "code in a .pth file"
    HOOK = "an import hook"
    BUILDING_HOOK = "an import hook that builds anew"
    EGG_LINK = "an .egg-link"
    SYMLINK = "a symlink"
    URL = "a direct_url.json"


class Editable(NamedTuple):
    """One way out of the prefix. ``source`` is absolute; ``written`` is how the file has it."""

    path: bytes  # of the file that leads there, relative to the prefix
    leads: Leads
    source: bytes
    written: bytes
    name: str = ""  # of the distribution, where one is known

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing at the source."""
        return not os.path.lexists(self.source)


def find(prefix: bytes, names: Sequence[bytes], found: Iterable[Found]) -> list[Editable]:
    """Find what leads out of a prefix in its directories of Python packages; ``names`` are its spellings."""
    ways: list[Editable] = []
    sites: dict[bytes, bool] = {}
    for each in found:
        directory, _, name = each.path.rpartition(b"/")
        is_site = sites.get(directory)
        if is_site is None:
            is_site = sites[directory] = _SITE.search(directory) is not None
        if is_site:
            ways += _of_entry(prefix, names, each, name)
            continue
        url = _DIRECT_URL.match(each.path) if name == b"direct_url.json" else None
        if url is not None and each.kind is not Kind.DIRECTORY:
            ways += _of_url(prefix, names, each.path, url["name"].decode("utf-8", "backslashreplace"))
    return _named(ways)


def _of_entry(prefix: bytes, names: Sequence[bytes], found: Found, name: bytes) -> Iterator[Editable]:
    directory = os.path.dirname(found.path)
    if found.kind is Kind.SYMLINK:
        to = os.path.normpath(os.path.join(prefix, directory, found.target))
        if _leaves(to, names) and (os.path.isdir(to) or name.endswith(b".py")):
            yield Editable(found.path, Leads.SYMLINK, to, found.target)
    elif found.kind is Kind.DIRECTORY:
        return
    elif name.endswith(b".pth"):
        yield from _of_pth(prefix, names, found.path)
    elif name.endswith(b".egg-link"):
        line = _read(prefix, found.path).partition(b"\n")[0].strip()
        to = os.path.normpath(os.path.join(prefix, directory, line))
        if line and _leaves(to, names):
            yield Editable(found.path, Leads.EGG_LINK, to, line)
    elif _HOOK.match(name):
        leads = Leads.BUILDING_HOOK if _REBUILDS.match(name) else Leads.HOOK
        for text in _literals(_read(prefix, found.path)):
            if _leaves(text, names) and os.path.isabs(text):
                yield Editable(found.path, leads, os.path.normpath(text), text)


def _of_pth(prefix: bytes, names: Sequence[bytes], path: bytes) -> Iterator[Editable]:
    """Read a .pth file as ``site`` does: lines that begin with "import" run, the others are directories."""
    directory = os.path.join(prefix, os.path.dirname(path))
    for line in _read(prefix, path).splitlines():
        line = line.rstrip()
        if line.startswith((b"import ", b"import\t")):
            for text in _literals(line):
                if os.path.isabs(text) and _leaves(text, names) and os.path.exists(text):
                    yield Editable(path, Leads.CODE_LINE, os.path.normpath(text), text)
        elif line and not line.startswith(b"#"):
            to = os.path.normpath(os.path.join(directory, line))
            if _leaves(to, names):
                yield Editable(path, Leads.PATH_LINE, to, line)


def _of_url(prefix: bytes, names: Sequence[bytes], path: bytes, name: str) -> Iterator[Editable]:
    try:
        document = json.loads(_read(prefix, path))
        url = document["url"]
        editable = document["dir_info"]["editable"] is True
    except (ValueError, KeyError, TypeError):
        return  # an archive or a repository, or nothing that pip would read
    if editable and isinstance(url, str) and url.startswith("file:"):
        to = os.path.normpath(os.fsencode(unquote(urlsplit(url).path)))
        if _leaves(to, names):
            yield Editable(path, Leads.URL, to, url.encode(), name)


def _named(ways: Sequence[Editable]) -> list[Editable]:
    """Give each the name of the distribution whose source it leads into."""
    urls = [each for each in ways if each.leads is Leads.URL]

    def named(way: Editable) -> Editable:
        for url in urls:
            if (way.source + b"/").startswith(url.source + b"/"):
                return way._replace(name=url.name)
        return way

    return [each if each.name else named(each) for each in ways]


def _leaves(path: bytes, names: Sequence[bytes]) -> bool:
    """Whether an absolute path leads out of the prefix, by whatever name that is called."""
    if not os.path.isabs(path) or b"\0" in path:
        return False
    spellings = {os.path.normpath(path), os.path.realpath(path)}
    return not any((each + b"/").startswith(name + b"/") for each in spellings for name in names)


def _literals(code: bytes) -> Iterator[bytes]:
    """Yield the strings in Python code."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.encode("utf-8", "surrogateescape")


def _read(prefix: bytes, path: bytes) -> bytes:
    try:
        with open(os.path.join(prefix, path), "rb") as file:
            return file.read(_MOST)
    except OSError:
        return b""  # which the scan tells


def refuse(prefix: bytes, ways: Sequence[Editable]) -> EnvironmentUnfit:
    """Return the error that lists them."""
    other = {each.name for each in ways if each.leads is not Leads.URL}
    shown = [each for each in ways if each.leads is not Leads.URL or each.name not in other]
    lines = [
        f"  {each.name or encode(os.path.basename(each.path))}: {encode(each.source)}"
        f"{' (missing)' if each.is_missing else ''}, by {each.leads.value}, {encode(each.path)}"
        for each in shown
    ]
    return EnvironmentUnfit(
        "\n".join([f"{encode(prefix)}: editable packages, whose sources lie outside of it:", *lines]),
        "Pack copies of the sources with --editables vendor, or leave them behind with --editables skip.",
    )
