"""What a conda environment knows of itself: ``conda-meta``.

The records tell who owns a path, the hash of the file as its package shipped it, and the placeholder
that the installing client replaced. conda and rattler write them differently; both are read here. The
bytes always come from the prefix: a record only tells what is known about them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from installer_stub.errors import EnvironmentUnfit
from installer_stub.rewrite import Digest

META = b"conda-meta"
HISTORY = b"conda-meta/history"

# What an installing client leaves behind for itself; none of it is the environment's.
LITTER = (
    b"CACHEDIR.TAG",
    b"conda-meta/pixi",
    b"conda-meta/pixi_env_prefix",
    b"conda-meta/.pixi-environment-fingerprint",
    b".mamba",
)

# The body that conda and rattler generate for an entry point: theirs differ in white space alone.
_ENTRY_POINT = re.compile(
    rb"# -\*- coding: utf-8 -\*-\nimport re\nimport sys\n\n"
    rb"from (?P<module>[\w.]+) import (?P<name>\w+)\n\n"
    rb"if __name__ == ['\"]__main__['\"]:\n"
    rb"[ \t]+sys\.argv\[0\] = re\.sub\([^\n]*, sys\.argv\[0\]\)\n"
    rb"[ \t]+sys\.exit\((?P<function>[\w.]+)\(\)\)\n\Z"
)


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LISTS = ("files", "paths_data")
_COPY = 3  # conda's LinkType: nothing is linked to a package cache where this goes
_MARK = "digest %d"
_ROWS = 1000  # that are written at once


class Owned(NamedTuple):
    """What the records say of a path. ``sha256`` is that of the file as shipped, or empty."""

    package: str
    sha256: str
    placeholder: bytes
    text: bool  # how the client replaces the placeholder
    entry_point: bool
    byte_code: bool  # compiled by the installing client


class Records(NamedTuple):
    """All of ``conda-meta``: who owns which path, and the documents by path, without their lists of files.

    These are as large as all else that is known of an environment; `document` reads one again.
    """

    owners: Mapping[bytes, Owned]
    documents: Mapping[bytes, Mapping[str, Any]]
    site: str  # where noarch packages of Python go, relative to the prefix
    rivals: Mapping[bytes, tuple[Owned, ...]] = {}  # other packages that claim a path, too
    digests: Mapping[str, str] = {}  # of all that is recorded of a package, by its name

    def package_of(self, path: bytes) -> str:
        """Return the package that owns a path, or an empty string."""
        return self.owners[path].package if path in self.owners else ""


NONE = Records({}, {}, "")


def read(prefix: Path) -> Records:
    """Read the records of a prefix. Raises EnvironmentUnfit where one is damaged, naming it."""
    paths = sorted((prefix / "conda-meta").glob("*.json"))
    # Where noarch packages go is in one record, and needed for the others: as rows in memory they are large.
    likely = {_inside(each): document(each)[0] for each in paths if each.name.startswith("python-")}
    return _read(prefix, paths, _site_packages(likely))


def _read(prefix: Path, paths: Sequence[Path], site: str) -> Records:
    documents: dict[bytes, Mapping[str, Any]] = {}
    digests: dict[str, str] = {}
    owners: dict[bytes, Owned] = {}
    rivals: dict[bytes, tuple[Owned, ...]] = {}
    for each in paths:
        kept, digest, owned = _record(each, site)
        package = _package(kept)
        documents[_inside(each)] = kept
        digests[package] = digests.get(package, "") + digest
        for path, owner in owned:
            if path in owners:
                rivals[path] = (*rivals.get(path, ()), owners[path])
            owners[path] = owner
    right = _site_packages(documents)
    # The record of Python may lie under another name.
    return Records(owners, documents, site, rivals, digests) if right == site else _read(prefix, paths, right)


def _record(path: Path, site: str) -> tuple[Mapping[str, Any], str, list[tuple[bytes, Owned]]]:
    """Read a record; return all but its lists, its hash, and what it owns."""
    read, digest = document(path)
    try:
        owned = list(_owned(read, site))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    return {key: value for key, value in read.items() if key not in _LISTS}, digest, owned


def _inside(record: Path) -> bytes:
    return META + b"/" + os.fsencode(record.name)


def document(path: Path) -> tuple[Mapping[str, Any], str]:
    """Read a record; return it, and its SHA-256. Raises EnvironmentUnfit where it is damaged."""
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        surrogate = _SURROGATE.search(content)
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        del content  # some are so large that this counts
        read = json.loads(text)
        if not isinstance(read, dict) or not isinstance(read["name"], str):
            raise ValueError("it is no package record")
        if surrogate:
            json.dumps(read, ensure_ascii=False).encode()  # half a pair cannot be written again
        return read, digest
    except (ValueError, KeyError, RecursionError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> EnvironmentUnfit:
    return EnvironmentUnfit(
        f"{path}: this record of a package is damaged: {reason}.",
        "Have the client that installed the package install it again.",
    )


def _site_packages(documents: Mapping[bytes, Mapping[str, Any]]) -> str:
    """Find where noarch packages of Python go, relative to the prefix. Raises EnvironmentUnfit for two Pythons."""
    pythons = [(path, document) for path, document in documents.items() if document["name"] == "python"]
    if len(pythons) > 1:
        names = " and ".join(os.fsdecode(path) for path, _ in pythons)
        raise EnvironmentUnfit(
            f"more than one Python is recorded in it: {names}.",
            "Remove the record of the one that is not there, or have the client that made the environment repair it.",
        )
    for _, document in pythons:
        given = document.get("python_site_packages_path")
        if given:
            return str(given)
        major_minor = ".".join(str(document.get("version", "")).split(".")[:2])
        return f"lib/python{major_minor}/site-packages"
    return "lib/python/site-packages"


def _package(document: Mapping[str, Any]) -> str:
    return "-".join(str(document.get(key, "")) for key in ("name", "version", "build"))


def _owned(document: Mapping[str, Any], site: str) -> Iterator[tuple[bytes, Owned]]:
    package = _package(document)
    listed = document.get("files") or []
    installed = set(listed)
    seen: set[str] = set()
    for row in (document.get("paths_data") or {}).get("paths") or []:
        path = installed_path(row["_path"], installed, site)
        seen.add(path)
        kind = row.get("path_type", "hardlink")
        yield (
            on_disk(path),
            Owned(
                package,
                row.get("sha256") or "",
                on_disk(row.get("prefix_placeholder") or ""),
                row.get("file_mode") == "text",
                kind == "unix_python_entry_point",
                kind == "pyc_file",
            ),
        )
    for path in listed:
        if path not in seen:
            yield on_disk(path), Owned(package, "", b"", False, False, path.endswith(".pyc"))


def on_disk(path: str) -> bytes:
    """Return a path of a record as the system has it, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


def recorded(path: bytes) -> str:
    """Return a path as a record has it."""
    return path.decode("utf-8", "surrogateescape")


def installed_path(path: str, installed: set[str], site: str) -> str:
    """Tell where a recorded path is. conda records those of a noarch Python package as in the package."""
    if path in installed:
        return path
    if path.startswith("site-packages/"):
        return site + path[len("site-packages") :]
    if path.startswith("python-scripts/"):
        return "bin" + path[len("python-scripts") :]
    return path


def entry_point(body: bytes) -> bytes | None:
    """Generate the body of an entry point's script again, or None if ``body`` is not a client's."""
    match = _ENTRY_POINT.match(body)
    if match is None:
        return None
    module, name, function = match["module"], match["name"], match["function"]
    return (
        b"import sys\n\nfrom " + module + b" import " + name + b"\n\n"
        b'if __name__ == "__main__":\n    sys.exit(' + function + b"())\n"
    )


def canonical_history(history: bytes) -> bytes:
    """Keep of ``conda-meta/history`` what was asked for and what was done, without times and commands.

    The specs that the user asked for steer a later update; the command lines hold paths of this machine.
    """
    lines = []
    for line in history.splitlines():
        if line.startswith(b"==>"):
            lines.append(b"==> 2000-01-01 00:00:00 <==")
        elif not line.startswith((b"# cmd:", b"# conda version:")):
            lines.append(line)
    return b"".join(line + b"\n" for line in lines)


def without_secrets(url: str) -> str:
    """Take the token and the password out of a channel's URL: an archive goes to other people."""
    url = re.sub(r"(?<=/t/)[^/]+(?=/)", "<TOKEN>", url)
    return re.sub(r"(?<=://)[^/@]*@", "", url)


class Canonical(NamedTuple):
    """A record as it is archived, and where it holds digests: (offset, path of the file), 64 digits each."""

    content: bytes
    digests: tuple[tuple[int, str], ...]


def canonical_text(
    document: Mapping[str, Any],
    site: str,
    left_out: Collection[str],
    archived: Mapping[str, Digest],
) -> tuple[list[str], list[str]]:
    """Write a record as it is archived, without local paths, and with marks where `filled` puts hashes.

    Returns it in pieces, with the paths of the files that the marks are of, in their order. ``left_out`` are the
    paths that the archive does not hold though the record does; ``archived`` the digests of the archived files
    whose bytes differ from the package's or will differ when relocated.
    """
    new = dict(document)
    for key in ("extracted_package_dir", "package_tarball_full_path"):
        if key in new:
            new[key] = ""
    for key in ("url", "channel"):
        if isinstance(new.get(key), str):
            new[key] = without_secrets(new[key])
    if "link" in new:
        new["link"] = {"source": "", "type": _COPY}
    installed = set(document.get("files") or [])
    if "files" in new:
        new["files"] = [path for path in document["files"] or [] if path not in left_out]
    marked: list[str] = []
    if document.get("paths_data"):
        rows = []
        for row in document["paths_data"].get("paths") or []:
            path = installed_path(row["_path"], installed, site)
            if path not in left_out:
                rows.append(_row(row, path, archived, marked))
        new["paths_data"] = {**document["paths_data"], "paths": rows}
    return list(_dumped(new)), marked


def _dumped(record: Mapping[str, Any], of_paths: bool = False) -> Iterator[str]:
    """Write a record, or the part of it ``of_paths``, in pieces: what is written as one is in memory twice."""
    start = "{"
    for key, value in sorted(record.items()):
        yield f"{start}{_json(key)}: "
        start = ", "
        if key == "paths_data" and value and not of_paths:
            yield from _dumped(value, of_paths=True)
        elif key == "paths" and of_paths:
            for at in range(0, len(value), _ROWS):
                yield ("[" if at == 0 else ", ") + _json(value[at : at + _ROWS])[1:-1]
            yield "]" if value else "[]"
        else:
            yield _json(value)
    yield "}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)  # indented takes ten times as long


def _row(row: Mapping[str, Any], path: str, archived: Mapping[str, Digest], marked: list[str]) -> Mapping[str, Any]:
    if row.get("path_type") == "unix_python_entry_point":
        # Of a script that every client makes anew; conda records no hash of it.
        hashes = ("sha256", "sha256_in_prefix", "size_in_bytes")
        return {key: value for key, value in row.items() if key not in hashes}
    if path in archived:
        marked.append(path)
        # rattler records the size in its prefix, conda the size in the package.
        return {**row, "sha256_in_prefix": _MARK % (len(marked) - 1), "size_in_bytes": archived[path].size}
    if "prefix_placeholder" in row and "sha256" in row:
        return {**row, "sha256_in_prefix": row["sha256"]}
    return row


def filled(pieces: Iterable[str], marked: Sequence[str], archived: Mapping[str, Digest]) -> Canonical:
    """Put the digests of archived files in the place of the marks of `canonical_text`."""
    out: list[bytes] = []
    digests: list[tuple[int, str]] = []
    length = number = 0
    for piece in pieces:
        text, at = piece.encode(), 0
        while number < len(marked):
            mark = (_MARK % number).encode()
            start = text.find(b'"' + mark + b'"', at) + 1
            if not start:
                break  # it is in a piece behind this
            out += [text[at:start], archived[marked[number]].sha256.encode()]
            length += start - at
            digests.append((length, marked[number]))
            length += len(out[-1])
            at = start + len(mark)
            number += 1
        out.append(text[at:])
        length += len(out[-1])
    assert number == len(marked), "each mark is there, in its order"
    return Canonical(b"".join([*out, b"\n"]), tuple(digests))
