"""What leads out of a prefix to sources elsewhere, of every kind; and copies in its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from installer_stub import walk
from installer_stub.errors import EnvironmentUnfit
from pack.cli.options import EDITABLES
from pack.editables import Editables, Leads, find, refuse
from pack.environment import find as find_environment
from pack.scan import EDITABLE, Options, Scan, scan

SITE = "lib/python3.11/site-packages"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    (root / SITE).mkdir(parents=True)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "my src" / "proj"
    (root / "proj").mkdir(parents=True)
    (root / "proj/__init__.py").write_text("x = 1\n")
    (root / "alone.py").write_text("y = 2\n")
    (root / ".git").mkdir()
    (root / ".git/HEAD").write_text("ref")
    (root / "proj/__pycache__").mkdir()
    (root / "proj/__pycache__/old.cpython-311.pyc").write_bytes(b"")
    return root


def found(prefix: Path) -> list[tuple[str, Leads, str]]:
    ways = find(os.fsencode(prefix), (os.fsencode(prefix),), list(walk.walk(os.fsencode(prefix))))
    return [(os.path.basename(os.fsdecode(way.path)), way.leads, os.fsdecode(way.source)) for way in ways]


def test_every_kind(prefix: Path, source: Path) -> None:
    site = prefix / SITE
    finder = f"MAPPING = {{'proj': {str(source / 'proj')!r}}}\nNAMESPACES = {{'ns': [{str(source)!r}]}}\n"
    files = {
        "easy-install.pth": f"import sys; sys.__plen = len(sys.path)\n./inside\n{source}\n",
        "conda.pth": f"{source}\n",
        "relative.pth": "../../../../my src/proj\n",
        "code.pth": f"import sys; sys.path.insert(0, {str(source)!r})\n",
        "proj.egg-link": f"{source}\n.",
        "__editable___proj_1_0_finder.py": finder,
        "_proj_editable_loader.py": f"ROOT = {str(source)!r}\n",
    }
    for name, content in files.items():
        (site / name).write_text(content)
    (site / "proj").symlink_to(source / "proj")
    (site / "proj-1.0.dist-info").mkdir()
    direct = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (site / "proj-1.0.dist-info/direct_url.json").write_text(json.dumps(direct))
    project, package = str(source), str(source / "proj")
    assert sorted(found(prefix), key=str) == sorted(
        [
            ("easy-install.pth", Leads.PATH_LINE, project),
            ("conda.pth", Leads.PATH_LINE, project),
            ("relative.pth", Leads.PATH_LINE, project),
            ("code.pth", Leads.CODE_LINE, project),
            ("proj.egg-link", Leads.EGG_LINK, project),
            ("__editable___proj_1_0_finder.py", Leads.HOOK, package),
            ("__editable___proj_1_0_finder.py", Leads.HOOK, project),
            ("_proj_editable_loader.py", Leads.BUILDING_HOOK, project),
            ("proj", Leads.SYMLINK, package),
            ("direct_url.json", Leads.URL, project),
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inside.pth", "../../../share/src\n"),
        ("absolute-inside.pth", "{prefix}/share/src\n"),
        ("distutils-precedence.pth", "import os; var = 'X'; os.environ.get(var, 'local')\n"),
        ("x-nspkg.pth", "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('a',))\n"),
        ("comment.pth", "# /usr/lib\n\n"),
        ("x.egg-link", "../../../share/src\n."),
        ("broken_finder.py", "MAPPING = {{'a': '/usr/lib'}}\n"),
        ("__editable___x_finder.py", "not python (\n"),
    ],
)
def test_what_stays_inside_is_none(prefix: Path, name: str, content: str) -> None:
    (prefix / SITE / name).write_text(content.format(prefix=prefix))
    assert found(prefix) == []


def test_a_distribution_that_was_only_built_from_a_directory_is_none(prefix: Path, source: Path) -> None:
    info = prefix / SITE / "proj-1.0.dist-info"
    info.mkdir()
    documents: list[object] = [{"url": source.as_uri(), "dir_info": {}}, {"url": "https://x/y", "vcs_info": {}}, [], 1]
    for document in documents:
        (info / "direct_url.json").write_text(json.dumps(document))
        assert found(prefix) == []


def test_the_error_names_package_source_and_file(prefix: Path, source: Path) -> None:
    (prefix / SITE / "conda.pth").write_text(f"{source}\n/nowhere/at/all\n")
    ways = find(os.fsencode(prefix), (os.fsencode(prefix),), list(walk.walk(os.fsencode(prefix))))
    error = refuse(os.fsencode(prefix), ways)
    assert str(source).replace(" ", " ") in str(error) and "/nowhere/at/all (missing)" in str(error)
    assert "--editables vendor" in error.tip and error.code == 4


def scanned(prefix: Path, editables: Editables) -> Scan:
    return scan(find_environment(None, str(prefix)), Options(1, editables=editables))


def test_they_are_refused_noted_or_copied(prefix: Path, source: Path) -> None:
    (prefix / SITE / "conda.pth").write_text(f"{source}\n")
    with pytest.raises(EnvironmentUnfit, match="editable packages"):
        scanned(prefix, Editables.ERROR)
    skipped = scanned(prefix, Editables.SKIP)
    assert [note.path for note in skipped.notes if note.what == EDITABLE] == [f"{SITE}/conda.pth".encode()]
    vendored = {os.fsdecode(item.entry.path): item for item in scanned(prefix, Editables.VENDOR).items}
    home = "share/pack-editables/conda/proj"
    assert {f"{home}/proj/__init__.py", f"{home}/alone.py"} <= set(vendored)
    assert not any(".git" in path or "__pycache__" in path for path in vendored)
    (splices,) = vendored[f"{SITE}/conda.pth"].layers
    assert [splice.new for splice in splices] == [b"../../../share/pack-editables/conda/proj"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("_proj_editable_loader.py", "X = {source!r}\n", "builds it anew"),
        ("code.pth", "import sys; sys.path.insert(0, {source!r})\n", "runs code"),
        ("gone.pth", "/nowhere/at/all\n", "is missing"),
    ],
)
def test_what_no_copy_replaces_is_refused(prefix: Path, source: Path, name: str, content: str, words: str) -> None:
    (prefix / SITE / name).write_text(content.format(source=str(source)))
    with pytest.raises(EnvironmentUnfit, match=words):
        scanned(prefix, Editables.VENDOR)


def test_a_symlink_becomes_the_copy(prefix: Path, source: Path) -> None:
    (prefix / SITE / "proj").symlink_to(source / "proj")
    (prefix / SITE / "alone.py").symlink_to(source / "alone.py")
    items = {os.fsdecode(item.entry.path): item.entry.kind.value for item in scanned(prefix, Editables.VENDOR).items}
    assert items[f"{SITE}/proj"] == "directory"
    assert items[f"{SITE}/proj/__init__.py"] == items[f"{SITE}/alone.py"] == "file"


def test_the_command_line_offers_them() -> None:
    assert tuple(each.value for each in Editables) == EDITABLES
