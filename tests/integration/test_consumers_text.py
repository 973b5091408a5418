"""Text that names a file of the prefix, in every syntax and encoding, read after a move by a program of that syntax.

Each reader says which path it was told. Before a move that is the deleted one; afterwards it is the new one, and
the file is there.
"""

from __future__ import annotations

import configparser
import csv
import json
import os
import plistlib
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import pytest

from tests.conftest import need
from tests.integration.moving import pack, pack_env, run, unpack

WATER = "lib/water.txt"


@dataclass(frozen=True)
class Case:
    """A file: how it is written for a path, and how it is read."""

    name: str
    write: Callable[[str], bytes]
    read: Callable[[Path], str]
    tool: str = ""
    # Words that have quotes only where the source needs some: a target with spaces is listed.
    bare: bool = False
    # Read as Latin-1: a path that is UTF-8 on disk cannot be named there.
    latin1: bool = False


def _xml(path: str) -> bytes:
    # The prefix in an attribute, in text, and behind an entity.
    return f'<?xml version="1.0"?>\n<a b={quoteattr(path)}><c>&lt;{escape(path)}</c></a>\n'.encode()


def _read_xml(file: Path) -> str:
    root = ElementTree.parse(file).getroot()
    (text,) = [child.text or "" for child in root]
    assert text == "<" + root.attrib["b"]
    return root.attrib["b"]


def _ini(encoding: str) -> Callable[[Path], str]:
    def read(file: Path) -> str:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(file, encoding)
        return parser["water"]["path"]

    return read


def _as_json(path: str) -> str:
    return json.dumps({"path": path}, ensure_ascii=False)


def _json(file: Path) -> str:
    return str(json.loads(file.read_bytes())["path"])


def _url(url: str) -> str:
    return url2pathname(urlsplit(url).path)


def _as_url(path: str) -> str:
    return "file://" + quote(path, safe="/!$&'()*+,;=:@~")


def _json_url(path: str) -> bytes:
    return json.dumps({"path": _as_url(path)}).encode()


def _escaped(path: str) -> str:
    return path.replace(" ", "\\ ").replace("&", "\\&")


def _shell(file: Path) -> str:
    return run(["sh", "-c", '. "$1"; printf %s "$water"', "sh", file]).stdout


CASES = (
    Case("json", lambda path: _as_json(path).encode(), _json),
    Case("json ascii", lambda path: json.dumps({"path": path}).encode(), _json),
    Case("json slashes", lambda path: _as_json(path).replace("/", "\\/").encode(), _json),
    Case("json utf-16-le", lambda path: ("\ufeff" + _as_json(path)).encode("utf-16-le"), _json),
    Case("json utf-16-be", lambda path: ("\ufeff" + _as_json(path)).encode("utf-16-be"), _json),
    Case("uri", lambda path: Path(path).as_uri().encode(), lambda file: _url(file.read_text())),
    Case("url", _json_url, lambda file: _url(_json(file))),
    Case("url host", lambda path: _json_url(path).replace(b"//", b"//localhost"), lambda file: _url(_json(file))),
    Case("ini crlf", lambda path: f"[water]\r\npath = {path}\r\n".encode(), _ini("utf-8")),
    Case("ini without newline", lambda path: f"[water]\npath={path}".encode(), _ini("utf-8")),
    Case("ini mark", lambda path: f"\ufeff[water]\npath: {path}\n".encode(), _ini("utf-8-sig")),
    Case("mark", lambda path: f"\ufeff{path}\n".encode(), lambda file: file.read_text("utf-8-sig").strip()),
    Case("latin-1", lambda path: b"[water]\n# caf\xe9\npath=" + path.encode() + b"\n", _ini("latin-1"), latin1=True),
    Case(
        "iconv",
        lambda path: f"path={path}\r\n".encode("utf-16"),
        lambda file: run(["iconv", "-f", "UTF-16", "-t", "UTF-8", file]).stdout.strip()[5:],
        tool="iconv",
    ),
    Case("xml", _xml, _read_xml),
    Case(
        "plist",
        lambda path: plistlib.dumps({"path": path}),
        lambda file: str(plistlib.loads(file.read_bytes())["path"]),
    ),
    Case(
        "xmllint", _xml, lambda file: run(["xmllint", "--xpath", "string(/a/@b)", file]).stdout.strip(), tool="xmllint"
    ),
    Case("csv", lambda path: f'a,"{path}",b\n'.encode(), lambda file: next(csv.reader(file.open(newline="")))[1]),
    Case("sh single", lambda path: f"water={shlex.quote(path)}\n".encode(), _shell, bare=True),
    Case("sh double", lambda path: f'export water="{path}"; : caf\xe9\n'.encode(), _shell),
    Case("sh escaped", lambda path: f"water={_escaped(path)}\n".encode(), _shell, bare=True),
    Case(
        "python latin-1",
        lambda path: b"# -*- coding: latin-1 -*-\nnote = 'caf\xe9'\nprint('" + path.encode() + b"', end='')\n",
        lambda file: run(["python3", "-I", file]).stdout,
        tool="python3",
        latin1=True,
    ),
    Case("perl", lambda path: f"print '{path}';".encode(), lambda file: run(["perl", file]).stdout, tool="perl"),
    Case(
        "git",
        lambda path: f'[water]\n\tpath = "{path}"\n'.encode(),
        lambda file: run(["git", "config", "-f", file, "water.path"]).stdout[:-1],
        tool="git",
    ),
    Case(
        "make",
        lambda path: f"water := {path}\nall:\n\t@printf %s '$(water)'\n".encode(),
        lambda file: run(["make", "-f", file]).stdout,
        tool="make",
    ),
)
SOURCES = {
    "plain": "prepared/at/a/place",
    "special": "prepared here & there/at/a/place",
    "accented": "pr\xe9par\xe9/\xe0/une/place",
}
TARGETS = {"short": "env", "spaces": "two words/env", "accents": "d\xe9j\xe0/env"}


def _places(case: Case) -> list[tuple[str, str]]:
    """List the sources and targets between which the file is to work."""
    places = [(source, target) for source in SOURCES for target in TARGETS]
    if case.bare:
        places = [(source, target) for source, target in places if target != "spaces" or source == "special"]
    if case.latin1:
        places = [place for place in places if "accented" not in place and "accents" not in place]
    return places


@dataclass(frozen=True)
class Moved:
    """The place where the files were written, the tree as it was unpacked, and the relocated one."""

    source: Path
    stale: Path
    tree: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """For each source the path where every file was written, now deleted, and the archive."""
    made = {}
    for name, source in SOURCES.items():
        directory = tmp_path_factory.mktemp("text")
        prefix = directory / source
        (prefix / "text").mkdir(parents=True)
        (prefix / "lib").mkdir()
        (prefix / WATER).write_text("clear")
        for case in CASES:
            (prefix / "text" / case.name).write_bytes(case.write(str(prefix / WATER)))
        made[name] = prefix, pack_env(prefix, directory / "env.tar")
        shutil.rmtree(prefix)
    return made


@pytest.fixture(scope="module")
def move_from(
    archives: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Moved]:
    """Give the files of a source at a target, once for all tests."""

    @cache
    def make(source: str, target: str) -> Moved:
        prefix, archive = archives[source]
        directory = tmp_path_factory.mktemp("moved")
        moved = Moved(prefix, unpack(archive, directory / "stale"), unpack(archive, directory / TARGETS[target]))
        pack("relocate", moved.tree)
        return moved

    return make


@pytest.mark.parametrize(
    "case, source, target",
    [pytest.param(case, *place, id=f"{case.name}-{'-'.join(place)}") for case in CASES for place in _places(case)],
)
def test_a_reader_finds_the_file(case: Case, source: str, target: str, move_from: Callable[[str, str], Moved]) -> None:
    """The reader of each syntax is told the old path before the move and the new path after it."""
    if case.tool:
        need(case.tool)
    moved = move_from(source, target)
    assert case.read(moved.stale / "text" / case.name) == str(moved.source / WATER)
    found = case.read(moved.tree / "text" / case.name)
    assert found == str(moved.tree / WATER)
    assert Path(found).read_text() == "clear"


@pytest.mark.parametrize("source, target", [("plain", "spaces"), ("special", "short"), ("accented", "accents")])
def test_only_the_path_changes(source: str, target: str, move_from: Callable[[str, str], Moved]) -> None:
    """Line ends, marks, missing newlines and bytes that are no UTF-8 stay as they were."""
    moved = move_from(source, target)
    for name in ("ini crlf", "ini without newline", "mark", "latin-1", "perl"):
        old, new = ((tree / "text" / name).read_bytes() for tree in (moved.stale, moved.tree))
        assert new == old.replace(os.fsencode(moved.source), os.fsencode(moved.tree)) != old


def test_a_large_line(tmp_path: Path) -> None:
    """A line of 100 MB is read and written in pieces, with a path at each end; the JSON parser finds both."""
    prefix = tmp_path / "made" / "env"
    (prefix / "lib").mkdir(parents=True)
    with (prefix / "lib" / "large.json").open("w") as file:
        file.write(f'["{prefix}/first", "')
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write(f'", "{prefix}/last"]')
    tree = unpack(pack_env(prefix, tmp_path / "env.tar"), tmp_path / "longer than it was" / "env")
    shutil.rmtree(prefix)
    pack("relocate", tree)
    first, filler, last = json.loads((tree / "lib" / "large.json").read_bytes())
    assert [first, last] == [f"{tree}/first", f"{tree}/last"]
    assert filler == "x" * 100_000_000


def test_a_script_with_a_payload(tmp_path: Path) -> None:
    """A script before binary data keeps its length, since it tells by a number where the data begin."""
    prefix = tmp_path / "made" / "there" / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "interpreter").symlink_to("/bin/sh")
    payload = bytes(range(256)) * 8
    (prefix / "payload").write_bytes(payload)
    head = f"#!{prefix}/bin/interpreter\ntail -c +%05d \"$0\" | cmp - '{prefix}/payload'; exit\n"
    size = len((head % 0).encode())
    script = prefix / "bin" / "script"
    script.write_bytes((head % (size + 1)).encode() + payload)
    script.chmod(0o755)
    run([script])
    archive = pack_env(prefix, tmp_path / "env.tar")
    shutil.rmtree(prefix)
    for target in (tmp_path / "x" / "env", tmp_path / "y"):
        tree = unpack(archive, target)
        assert f"{prefix}/payload: No such file" in run(["sh", tree / "bin" / "script"], code=2).stderr
        pack("relocate", tree)
        run([tree / "bin" / "script"])
        assert (tree / "bin" / "script").read_bytes()[size:] == payload
