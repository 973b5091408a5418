"""A virtual environment's base Python, packed with it: what ``--with-python`` asks for.

It goes to ``share/pack-python``. What names its old place is written for the new one, by the rules by which a tree is
relocated: so it names the prefix, and moves with it. See ``docs/base-python.md``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from installer_stub import match, walk
from installer_stub.classify import HEAD, Format, classify
from installer_stub.errors import EnvironmentUnfit, NoRoom, UsageError
from installer_stub.manifest import encode
from installer_stub.model import NOT_REWRITABLE, Field, Fill, Finding, Kind, Manifest, Reference
from installer_stub.walk import Found
from pack import bake, environment, vendor
from pack.archive import changed_while_packing
from pack.editables import Editables
from pack.environment import Environment, Layout
from pack.examine import Layers
from pack.scan import LEAVES, Item, Options, Progress, Scan, scan
from pack.selection import EXCLUDED, UNMATCHED, Rule
from pack.vendor import PYTHON, Vendored

_CONFIGURATION = b"pyvenv.cfg"
_LINE = re.compile(rb"^[ \t]*(?P<key>[^=\n]*?)[ \t]*=[ \t]*(?P<value>[^\n]*)", re.MULTILINE)
_LIBRARY = re.compile(r"python3\.[0-9]+t?\Z")
_PROGRAM = re.compile(rb"python[0-9.]*t?\Z")

# What of a place that others share is Python's own.
_OWN = ("bin/{0}", "bin/python3", "bin/python", "include/{0}", "lib*/{0}", "lib*/lib{0}.so*", "lib*/libpython3.so")
# Without the packages of the base, programs of theirs would not run: these are of the standard library.
_PROGRAMS = ("bin/python*", "bin/pydoc*", "bin/idle*", "bin/2to3*")
# What is written for the new place. Python asks none of its C strings where it is.
_WRITTEN = (Field.SHEBANG, Field.TEXT, Field.RUN_PATH, Field.INTERPRETER, Field.DIGEST)


class Base(NamedTuple):
    """A Python outside of the prefix. ``library`` is the name of its directory in ``lib``, such as python3.11."""

    environment: Environment
    library: str
    with_packages: bool  # whether the virtual environment imports the base's own packages


def plan(venv: Environment, options: Options, progress: Progress, walked: Sequence[Found]) -> Vendored:
    """Find a virtual environment's Python, and decide what of it is packed, and how.

    ``walked`` is what stands in the virtual environment. Returns NOTHING where the Python stands inside the prefix.
    Raises UsageError for what is no virtual environment, EnvironmentUnfit for a Python that cannot be packed.
    """
    if venv.layout is not Layout.VENV:
        raise UsageError(
            f"--with-python: {venv.prefix} is no virtual environment: what Python it has is packed with it",
            "Leave the option out.",
        )
    prefix = os.fsencode(venv.prefix)
    configuration = _read_configuration(prefix)
    base = _located(venv, configuration)
    if base is None:
        return vendor.NOTHING
    place = os.path.join(prefix, PYTHON)
    if os.path.lexists(place):
        raise EnvironmentUnfit(
            f"--with-python: {encode(prefix)} has a {encode(PYTHON)} already, which is not its Python.",
            "Move it away.",
        )
    own = scan(base.environment, _options(base, options), (), progress)
    manifest, kept = _divided(own.manifest)
    try:
        written = bake.bake(own._replace(manifest=manifest), place).scan
    except NoRoom as error:
        raise EnvironmentUnfit(
            f"--with-python: {base.environment.prefix} cannot be packed into the environment. {error}",
            "Rebuild what has no room for its run path with --grow-run-paths.",
        ) from error
    findings: dict[bytes, list[Finding]] = {}
    for each in (*own.listing.findings, *kept):
        findings.setdefault(_place(each.path), []).append(each._replace(path=_place(each.path)))
    found, sources, layers = _placed(own, written)
    links = _led(prefix, walked, base, {each.path for each in found})
    edits = tuple(_edits(configuration.values(), base, place))
    notes = [each._replace(path=_place(each.path)) for each in own.notes if each.what not in (EXCLUDED, UNMATCHED)]
    return Vendored(
        (*found, *links),
        sources,
        frozenset(each.path for each in links),
        {_CONFIGURATION: edits},
        layers,
        {path: tuple(each) for path, each in findings.items()},
        tuple(notes),
    )


def _place(path: bytes) -> bytes:
    return PYTHON + b"/" + path


def _read_configuration(prefix: bytes) -> dict[bytes, bytes]:
    path = os.path.join(prefix, _CONFIGURATION)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise EnvironmentUnfit(f"{encode(path)}: cannot be read: {error.strerror}") from error
    return {line["key"].lower(): line["value"] for line in _LINE.finditer(content)}


def _located(venv: Environment, configuration: Mapping[bytes, bytes]) -> Base | None:
    """Find the base, as Python does: its programs are in ``home``, or where the virtual environment's link leads."""
    prefix = os.fsencode(venv.prefix)
    libraries = sorted(path.name for path in venv.prefix.glob("lib/python3.*") if _LIBRARY.match(path.name))
    homes = [configuration.get(b"home", b"").rstrip()]
    homes += [os.path.dirname(os.path.realpath(os.path.join(prefix, b"bin", name))) for name in (b"python3", b"python")]
    for home in filter(os.path.isabs, homes):
        root = os.path.dirname(home)
        for library in libraries:
            if not os.path.isfile(os.path.join(root, b"lib", os.fsencode(library), b"os.py")):
                continue
            if any(match.within(os.path.realpath(root), name) for name in (os.path.realpath(prefix), *venv.names)):
                return None
            with_packages = configuration.get(b"include-system-site-packages", b"").strip().lower() == b"true"
            return Base(_environment(root), library, with_packages)
    raise EnvironmentUnfit(
        f"--with-python: the Python of {encode(prefix)} was not found: {encode(homes[0]) or 'its pyvenv.cfg'} "
        "leads to no CPython 3.",
        "Packing works without the option, for machines on which that Python stands.",
    )


def _environment(root: bytes) -> Environment:
    if os.path.realpath(root) in (b"/", b"/usr"):
        raise EnvironmentUnfit(
            "--with-python: the Python of this environment is the system's, whose files and libraries are all over it.",
            "Make the virtual environment with a Python that has a directory of its own, as uv and pyenv install it.",
        )
    found = environment.find(None, os.fsdecode(root))
    if found.layout is not Layout.PLAIN:
        raise EnvironmentUnfit(
            f"--with-python: the Python of this environment is that of another one, {found.prefix}.",
            "Install the packages there, and pack that one: it brings its Python along.",
        )
    return found


def _options(base: Base, options: Options) -> Options:
    """Say how the base is scanned. What the user leaves out is left out of the whole, later."""
    rules: list[Rule] = []
    if os.path.realpath(base.environment.prefix) == "/usr/local":
        rules += [Rule("*"), *(Rule(each.format(base.library), keep=True) for each in _OWN)]
    elif not base.with_packages:
        rules += [Rule("bin/*"), *(Rule(each, keep=True) for each in _PROGRAMS)]
    if not base.with_packages:
        rules.append(Rule(f"lib*/{base.library}/site-packages/*"))
    editables = options.editables if base.with_packages else Editables.SKIP
    return options._replace(rules=tuple(rules), slim=(), strict=False, keep_setuid=False, editables=editables)


def _divided(manifest: Manifest) -> tuple[Manifest, list[Finding]]:
    """Tell what is written for the new place from the strings in binaries that are left as they are, and listed."""
    files = []
    findings = []
    for file in manifest.files:
        written = tuple(each for each in file.references if _is_written(each))
        findings += [
            Finding(
                file.path, each.offset, NOT_REWRITABLE, f"{each.field.value} that names the base Python's old place"
            )
            for each in file.references
            if not _is_written(each)
        ]
        if written:
            files.append(file._replace(references=written))
    return manifest._replace(files=tuple(files)), findings


def _is_written(reference: Reference) -> bool:
    return reference.field in _WRITTEN or reference.fill is Fill.KEEP


def _placed(own: Scan, written: Scan) -> tuple[list[Found], dict[bytes, bytes], dict[bytes, Layers]]:
    """Give everything its place in the virtual environment: paths, where each file is read, and through what."""
    prefix = os.fsencode(own.environment.prefix)
    leaving = {each.path for each in own.listing.findings if each.what == LEAVES}
    found = [*vendor.parents(PYTHON), Found(PYTHON, Kind.DIRECTORY, 0o755, 0, 0)]
    sources: dict[bytes, bytes] = {}
    layers: dict[bytes, Layers] = {}
    for item in written.items:
        entry = item.entry
        path = _place(entry.path)
        if entry.kind is Kind.FILE:
            source = os.path.join(prefix, item.source or entry.path)
            found.append(_unchanged(source, item)._replace(path=path, mode=entry.mode))
            sources[path] = source
            if item.layers:
                layers[path] = item.layers
            continue
        target = entry.target
        if entry.kind is Kind.HARD_LINK:
            target = _place(target)
        elif entry.path in leaving:
            target = os.path.normpath(os.path.join(prefix, os.path.dirname(entry.path), target))
        found.append(Found(path, entry.kind, entry.mode, 0, 0, target))
    return found, sources, layers


def _unchanged(source: bytes, item: Item) -> Found:
    now = walk.look(*os.path.split(source))
    if (now.kind, now.size, now.mtime_ns) != (Kind.FILE, item.disk_size, item.disk_mtime_ns):
        raise changed_while_packing(source, "its size or its time is another")
    return now


def _led(prefix: bytes, walked: Iterable[Found], base: Base, places: Collection[bytes]) -> list[Found]:
    """Have the links that lead to the base, and copies of its program, lead to what is packed of it."""
    links = []
    for each in walked:
        directory, _, name = each.path.rpartition(b"/")
        inside = None
        if each.kind is Kind.SYMLINK:
            inside = _inside(os.path.join(prefix, directory, each.target), base)
        elif directory == b"bin" and _PROGRAM.match(name) and _is_program(os.path.join(prefix, each.path)):
            inside = b"/bin/" + os.fsencode(base.library)
        if inside is not None and PYTHON + inside in places:
            target = os.path.relpath(b"/" + PYTHON + inside, b"/" + directory)
            links.append(Found(each.path, Kind.SYMLINK, 0o777, 0, 0, target))
    return links


def _is_program(path: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return classify(file.read(HEAD)) is Format.ELF
    except OSError:
        return False  # which the scan tells


def _inside(path: bytes, base: Base) -> bytes | None:
    """Return the part of an absolute path that is below the base, with its slash; None for all others."""
    directory, name = os.path.split(os.path.normpath(path))
    for spelling in (directory, os.path.realpath(directory)):
        normal = os.path.join(spelling, name)
        for root in base.environment.names:
            if match.within(normal, root):
                return normal[len(root) :]
    return None


def _edits(values: Iterable[bytes], base: Base, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield what the configuration says of the base, and what it shall say: a path, or a command that begins so."""
    for value in values:
        for path in (value.rstrip(), value.partition(b" ")[0]):
            inside = _inside(path, base) if os.path.isabs(path) else None
            if inside is not None:
                yield value, place + inside + value[len(path) :]
                break
