"""Files from outside of a prefix that are packed in it: the sources of editable packages, and a Python.

The sources that ``--editables vendor`` asks for go to ``share/pack-editables``, and what led to them leads there.
Version control, virtual environments and caches of tools stay behind. ``pack.base_python`` has the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from installer_stub import walk
from installer_stub.errors import EnvironmentUnfit
from installer_stub.manifest import encode
from installer_stub.model import Finding, Kind
from installer_stub.walk import Found
from pack.editables import Editable, Leads
from pack.examine import Context, Examined, Layers
from pack.records import content_of, through
from pack.splice import Splice

EDITABLES = b"share/pack-editables"
PYTHON = b"share/pack-python"

_NOT_SOURCE = {
    b".git", b".hg", b".svn", b".bzr", b".tox", b".nox", b".mypy_cache", b".pytest_cache", b".ruff_cache",
    b".hypothesis", b"__pycache__", b"node_modules", b".DS_Store", b".eggs",
}  # fmt: skip


class Vendored(NamedTuple):
    """What is packed beside the prefix's own: new paths with where they come from, and what leads to them."""

    found: tuple[Found, ...] = ()
    sources: Mapping[bytes, bytes] = {}  # the absolute path of each new file
    replaced: frozenset[bytes] = frozenset()  # the prefix's own paths in whose place something new stands
    edits: Mapping[bytes, tuple[tuple[bytes, bytes], ...]] = {}  # by file: what is written there -> what shall be
    layers: Mapping[bytes, Layers] = {}  # by new file: what leads from its source to what is packed
    findings: Mapping[bytes, tuple[Finding, ...]] = {}  # by new file
    notes: tuple[Finding, ...] = ()  # about what is not packed


NOTHING = Vendored()


def plan(prefix: bytes, ways: Sequence[Editable]) -> Vendored:
    """Decide where each source goes. Raises EnvironmentUnfit for what no copy replaces, listing all of it."""
    _require_possible(ways)
    places = _places(ways)
    made: dict[bytes, Found] = {}
    sources: dict[bytes, bytes] = {}
    edits: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for way in ways:
        if way.leads is Leads.SYMLINK:
            _copy(way.source, way.path, made, sources)
        else:
            edits.setdefault(way.path, []).append((way.written, _written(prefix, way, _place(way, places))))
    for root, place in places.items():
        _copy(root, place, made, sources)
        for parent in parents(place):
            made.setdefault(parent.path, parent)
    replaced = frozenset(way.path for way in ways if way.leads is Leads.SYMLINK)
    return Vendored(tuple(made.values()), sources, replaced, {path: tuple(each) for path, each in edits.items()})


def both(one: Vendored, other: Vendored) -> Vendored:
    """Put together what two have found: no path in one is in the other, but for directories on the way."""
    return Vendored(
        (*one.found, *other.found),
        {**one.sources, **other.sources},
        one.replaced | other.replaced,
        {**one.edits, **other.edits},
        {**one.layers, **other.layers},
        {**one.findings, **other.findings},
        (*one.notes, *other.notes),
    )


def _require_possible(ways: Sequence[Editable]) -> None:
    lines = []
    for way in ways:
        name = way.name or encode(os.path.basename(way.path))
        if way.leads is Leads.BUILDING_HOOK:
            lines.append(f"  {name}: {encode(way.path)} builds it anew on each import, with a compiler")
        elif way.leads is Leads.CODE_LINE:
            lines.append(f"  {name}: {encode(way.path)} runs code that names {encode(way.source)}")
        elif way.is_missing:
            lines.append(f"  {name}: {encode(way.source)} is missing")
    if lines:
        raise EnvironmentUnfit(
            "\n".join(["--editables vendor: no copy can stand for these:", *lines]),
            "Install them as they are, without -e, or leave them behind with --editables skip.",
        )


def _places(ways: Sequence[Editable]) -> dict[bytes, bytes]:
    """Give each source its place, under the name of its distribution: one that lies in another goes with that."""
    led = {way.source: way for way in ways if way.leads is not Leads.SYMLINK}
    places: dict[bytes, bytes] = {}
    for source in sorted(led, key=lambda path: (len(path), path)):
        # What a URL names is the whole project: where something else leads into it, that is what is imported.
        project = led[source].leads is Leads.URL
        if project and any(each != source and _is_in(each, source) for each in led):
            continue
        if any(_is_in(source, other) for other in places):
            continue
        name = os.path.basename(source)
        start = _home(led[source]) + b"/"
        place, number = start + name, 2
        while place in places.values():
            place, number = start + b"%s-%d" % (name, number), number + 1
        places[source] = place
    return places


def _home(way: Editable) -> bytes:
    """Return the directory for the sources of a distribution."""
    return EDITABLES + b"/" + (way.name.encode() or os.path.basename(way.path).removesuffix(b".pth"))


def _is_in(path: bytes, directory: bytes) -> bool:
    return (path + b"/").startswith(directory + b"/")


def _place(way: Editable, places: Mapping[bytes, bytes]) -> bytes:
    """Return where a source is in the environment; a project of which only parts are copied is where these are."""
    for root, place in places.items():
        if _is_in(way.source, root):
            return place + way.source[len(root) :]
    return _home(way)


def _written(prefix: bytes, way: Editable, place: bytes) -> bytes:
    """Write a place as the file that leads there needs it: relative where it can be."""
    if way.leads is Leads.PATH_LINE:
        return os.path.relpath(b"/" + place, b"/" + os.path.dirname(way.path))
    absolute = os.path.join(prefix, place)
    if way.leads is Leads.URL:
        return b"file://" + quote(absolute).encode()
    return absolute


def _copy(source: bytes, place: bytes, made: dict[bytes, Found], sources: dict[bytes, bytes]) -> None:
    """Find all of a source tree that is copied; a source may be one file."""
    whole = walk.look(*os.path.split(source))
    if whole.kind is not Kind.DIRECTORY:
        made[place] = whole._replace(path=place, mode=whole.mode & 0o777)
        sources[place] = source
        return
    made[place] = Found(place, Kind.DIRECTORY, whole.mode, 0, whole.mtime_ns)
    for each in walk.walk(source, lambda path: _stays_behind(source, path)):
        if each.kind is None and not each.error:
            continue  # a socket or a pipe
        path = place + b"/" + each.path
        target = place + b"/" + each.target if each.kind is Kind.HARD_LINK else each.target
        made[path] = each._replace(path=path, target=target, mode=each.mode & 0o777)
        if each.kind is Kind.FILE:
            sources[path] = os.path.join(source, each.path)


def _stays_behind(source: bytes, path: bytes) -> bool:
    name = os.path.basename(path)
    return (
        name in _NOT_SOURCE
        or name.endswith((b".pyc", b".pyo"))
        or os.path.lexists(os.path.join(source, path, b"pyvenv.cfg"))
    )


def parents(path: bytes) -> Iterator[Found]:
    """Yield the directories on the way to a path of what is vendored."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield Found(b"/".join(parts[:count]), Kind.DIRECTORY, 0o755, 0, 0)


def joined(found: Sequence[Found], vendored: Vendored) -> list[Found]:
    """Put what is vendored among the paths of a walk, in its order; a directory that is there stays as it is."""
    if not vendored.found:
        return list(found)
    paths = {each.path: each for each in vendored.found}
    paths.update((each.path, each) for each in found if each.path not in vendored.replaced)
    return sorted(paths.values(), key=lambda each: each.path.split(b"/"))


def redirected(examined: Mapping[bytes, Examined], vendored: Vendored, context: Context) -> dict[bytes, Examined]:
    """Have the files that led to the sources lead to their copies."""
    new = dict(examined)
    for path, edits in vendored.edits.items():
        verdict = examined.get(path)
        if verdict is None:
            continue
        content = content_of(verdict, context)
        splices = tuple(_splices(content, edits))
        if splices:
            new[path] = through(verdict, (*verdict.layers, splices), (), context)
    return new


def _splices(content: bytes, edits: Sequence[tuple[bytes, bytes]]) -> Iterator[Splice]:
    """Find each path as a whole: not as the beginning of a longer one."""
    spots: dict[int, tuple[bytes, bytes]] = {}
    for old, new in edits:
        at = content.find(old)
        while at >= 0:
            behind = content[at + len(old) : at + len(old) + 1]
            if behind in (b"", b"\n", b"\r", b"'", b'"') and len(spots.get(at, (b"", b""))[0]) < len(old):
                spots[at] = (old, new)
            at = content.find(old, at + 1)
    end = 0
    for at, (old, new) in sorted(spots.items()):
        if at >= end:
            yield Splice(at, len(old), new)
            end = at + len(old)
