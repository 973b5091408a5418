"""conda-meta is read as conda and as rattler write it, and written without a word of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from installer_stub.errors import EnvironmentUnfit
from installer_stub.rewrite import Digest
from pack.layouts import conda
from pack.layouts.conda import Owned

PLACEHOLDER = "/opt/placeholder"
HASH, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
PYTHON = {"name": "python", "version": "3.11.2", "build": "h1_0", "files": []}

# The same noarch package of Python as each client records it.
BY_CONDA = {
    "name": "tool",
    "version": "1.0",
    "build": "py_0",
    "noarch": "python",
    "extracted_package_dir": "/home/me/pkgs/tool-1.0-py_0",
    "package_tarball_full_path": "/home/me/pkgs/tool-1.0-py_0.conda",
    "link": {"source": "/home/me/pkgs/tool-1.0-py_0", "type": 1},
    "files": [
        "lib/python3.11/site-packages/tool.py",
        "lib/python3.11/site-packages/__pycache__/tool.cpython-311.pyc",
        "bin/helper",
        "bin/tool",
    ],
    "paths_data": {
        "paths_version": 1,
        "paths": [
            {
                "_path": "site-packages/tool.py",
                "path_type": "hardlink",
                "sha256": HASH,
                "sha256_in_prefix": HASH,
                "size_in_bytes": 10,
            },
            {
                "_path": "python-scripts/helper",
                "path_type": "hardlink",
                "sha256": HASH,
                "sha256_in_prefix": OTHER,
                "size_in_bytes": 20,
                "file_mode": "text",
                "prefix_placeholder": PLACEHOLDER,
            },
            {"_path": "lib/python3.11/site-packages/__pycache__/tool.cpython-311.pyc", "path_type": "pyc_file"},
            {"_path": "bin/tool", "path_type": "unix_python_entry_point"},
        ],
    },
}
BY_RATTLER = {
    **{key: BY_CONDA[key] for key in ("name", "version", "build", "noarch")},
    "extracted_package_dir": "/home/me/.cache/tool-1.0-py_0",
    "package_tarball_full_path": "/home/me/.cache/tool-1.0-py_0.conda",
    "link": None,
    "files": ["bin/helper", "bin/tool", "lib/python3.11/site-packages/tool.py"],
    "paths_data": {
        "paths_version": 1,
        "paths": [
            {
                "_path": "bin/helper",
                "path_type": "hardlink",
                "sha256": HASH,
                "sha256_in_prefix": OTHER,
                "size_in_bytes": 18,
                "file_mode": "text",
                "prefix_placeholder": PLACEHOLDER,
            },
            {"_path": "bin/tool", "path_type": "unix_python_entry_point", "sha256": OTHER, "size_in_bytes": 200},
            {
                "_path": "lib/python3.11/site-packages/tool.py",
                "path_type": "hardlink",
                "sha256": HASH,
                "size_in_bytes": 10,
            },
        ],
    },
}


def installed(prefix: Path, *documents: Any) -> Path:
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    for document in documents:
        name = "-".join(str(document.get(key)) for key in ("name", "version", "build"))
        (prefix / "conda-meta" / f"{name}.json").write_text(json.dumps(document))
    return prefix


@pytest.mark.parametrize("document", [BY_CONDA, BY_RATTLER])
def test_owners(tmp_path: Path, document: dict[str, Any]) -> None:
    records = conda.read(installed(tmp_path, PYTHON, document))
    package = "tool-1.0-py_0"
    assert records.owners[b"lib/python3.11/site-packages/tool.py"] == Owned(package, HASH, b"", False, False, False)
    assert records.owners[b"bin/helper"] == Owned(package, HASH, PLACEHOLDER.encode(), True, False, False)
    assert records.owners[b"bin/tool"].entry_point
    assert not any(path.startswith((b"site-packages", b"python-scripts")) for path in records.owners)
    assert records.site == "lib/python3.11/site-packages"
    assert set(records.documents) == {b"conda-meta/python-3.11.2-h1_0.json", b"conda-meta/tool-1.0-py_0.json"}


def test_byte_code_that_the_client_compiled_is_known(tmp_path: Path) -> None:
    owner = conda.read(installed(tmp_path, PYTHON, BY_CONDA)).owners[
        b"lib/python3.11/site-packages/__pycache__/tool.cpython-311.pyc"
    ]
    assert (owner.byte_code, owner.sha256) == (True, "")


@pytest.mark.parametrize(
    ("python", "site"),
    [
        (None, "lib/python/site-packages"),
        (PYTHON, "lib/python3.11/site-packages"),
        ({**PYTHON, "python_site_packages_path": "lib/python3.13t/site-packages"}, "lib/python3.13t/site-packages"),
    ],
)
def test_where_packages_of_python_go(tmp_path: Path, python: dict[str, Any] | None, site: str) -> None:
    records = conda.read(installed(tmp_path, BY_CONDA, *([python] if python else [])))
    assert records.site == site


@pytest.mark.parametrize(
    ("path", "files", "expected", "why"),
    [
        ("lib/x", set(), "lib/x", "as it is"),
        ("site-packages/x.py", set(), "lib/p/site-packages/x.py", "in the package"),
        ("python-scripts/x", set(), "bin/x", "a script in the package"),
        ("site-packages/x.py", {"site-packages/x.py"}, "site-packages/x.py", "a directory of that very name"),
        ("site-packages-2/x", set(), "site-packages-2/x", "another name that begins so"),
    ],
)
def test_installed_path(path: str, files: set[str], expected: str, why: str) -> None:
    assert conda.installed_path(path, files, "lib/p/site-packages") == expected, why


def test_a_record_may_be_bare(tmp_path: Path) -> None:
    """Packages without files, and records of clients that write less."""
    bare = {"name": "meta", "version": "1", "build": "0"}
    old = {"name": "old", "version": "1", "build": "0", "files": ["bin/old", "lib/old.pyc"], "paths_data": None}
    empty: dict[str, Any] = {"name": "empty", "version": "1", "build": "0", "files": None, "paths_data": {}}
    owners = conda.read(installed(tmp_path, bare, old, empty)).owners
    assert owners == {
        b"bin/old": Owned("old-1-0", "", b"", False, False, False),
        b"lib/old.pyc": Owned("old-1-0", "", b"", False, False, True),
    }


def test_no_records_are_none(tmp_path: Path) -> None:
    assert conda.read(tmp_path) == conda.Records({}, {}, "lib/python/site-packages")
    (tmp_path / "conda-meta").mkdir()
    for name in ("history", "state", "pixi", "frozen"):
        (tmp_path / "conda-meta" / name).write_text("not JSON")
    assert conda.read(tmp_path).documents == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"name": 5}',
        b"[" * 200_000,
        b'{"name": "x", "files": 5}',
        b'{"name": "x", "files": [5]}',
        b'{"name": "x", "paths_data": [1]}',
        b'{"name": "x", "paths_data": {"paths": [{}]}}',
        b'{"name": "x", "paths_data": {"paths": [null]}}',
        b'{"name": "x", "paths_data": {"paths": [{"_path": 5}]}}',
        b'{"name": "x", "paths_data": {"paths": [{"_path": "a", "prefix_placeholder": 5}]}}',
        b'{"name": "x", "files": ["\\ud800"]}',
        b'{"name": "x", "summary": "\\ud800"}',
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    installed(tmp_path, PYTHON)
    (tmp_path / "conda-meta/broken-1-0.json").write_bytes(content)
    with pytest.raises(EnvironmentUnfit, match=r"conda-meta/broken-1-0\.json: this record of a package is damaged"):
        conda.read(tmp_path)


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    installed(tmp_path, PYTHON)
    (tmp_path / "conda-meta/broken-1-0.json").mkdir()
    with pytest.raises(EnvironmentUnfit, match="broken-1-0"):
        conda.read(tmp_path)


BODY = b"""# -*- coding: utf-8 -*-
import re
import sys

from pip._internal.cli.main import main

if __name__ == '__main__':
\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
\tsys.exit(main())
"""


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (BODY, "as rattler writes it"),
        (BODY.replace(b"\t", b"    "), "as conda writes it"),
        (BODY.replace(b"'__main__'", b'"__main__"'), "other quotes"),
    ],
)
def test_an_entry_point_is_generated_again(body: bytes, why: str) -> None:
    made = conda.entry_point(body)
    assert made is not None, why
    assert b"from pip._internal.cli.main import main\n" in made
    assert b"    sys.exit(main())\n" in made
    compile(made, "tool", "exec")


def test_the_function_of_a_class_is_called() -> None:
    body = BODY.replace(b"import main", b"import App").replace(b"exit(main())", b"exit(App.run())")
    made = conda.entry_point(body)
    assert made is not None
    assert made.endswith(b"sys.exit(App.run())\n")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "nothing"),
        (b"import sys\n", "another script"),
        (BODY + b"print()\n", "a line behind it"),
        (b"import os\nos.environ['X'] = '1'\n" + BODY, "lines in front of it"),
        (BODY.replace(b"import sys\n", b"import sys\nimport os\n"), "a line in it"),
        (BODY.replace(b"main())", b"main(5))"), "another call"),
        (BODY.rstrip(b"\n"), "cut"),
    ],
)
def test_an_edited_entry_point_is_not(body: bytes, why: str) -> None:
    assert conda.entry_point(body) is None, why


def test_history_keeps_what_was_asked_for() -> None:
    history = (
        b"==> 2024-05-06 07:08:09 <==\n"
        b"# cmd: /home/me/bin/conda create -p /home/me/env python\n"
        b"# conda version: 26.7\n"
        b"+https://conda.anaconda.org/main/linux-64::python-3.11.2-h1_0\n"
        b"# update specs: ['python']\n"
    )
    assert conda.canonical_history(history) == (
        b"==> 2000-01-01 00:00:00 <==\n"
        b"+https://conda.anaconda.org/main/linux-64::python-3.11.2-h1_0\n"
        b"# update specs: ['python']\n"
    )
    assert conda.canonical_history(b"") == b""
    assert conda.canonical_history(conda.canonical_history(history)) == conda.canonical_history(history)


@pytest.mark.parametrize(
    ("path", "expected"),
    [(b"CACHEDIR.TAG", True), (b"conda-meta/pixi", True), (b"lib/CACHEDIR.TAG", False), (b"conda-meta/state", False)],
)
def test_litter(path: bytes, expected: bool) -> None:
    assert (path in conda.LITTER) is expected


def canonical(
    document: Mapping[str, Any], site: str, left_out: Collection[str], archived: Mapping[str, Digest]
) -> conda.Canonical:
    return conda.filled(*conda.canonical_text(document, site, left_out, archived), archived)


ARCHIVED = {"bin/helper": Digest(hashlib.sha256(b"archived").hexdigest(), 8)}
PYC = "lib/python3.11/site-packages/__pycache__/tool.cpython-311.pyc"


@pytest.mark.parametrize("document", [BY_CONDA, BY_RATTLER])
def test_a_canonical_record_has_no_local_path(document: dict[str, Any]) -> None:
    made = canonical(document, "lib/python3.11/site-packages", {PYC}, ARCHIVED)
    assert b"/home/me" not in made.content
    rewritten = json.loads(made.content)
    rows = {row["_path"].rpartition("/")[2]: row for row in rewritten["paths_data"]["paths"]}
    assert set(rows) == {"tool.py", "helper", "tool"}
    assert (rows["helper"]["sha256"], rows["helper"]["sha256_in_prefix"]) == (HASH, ARCHIVED["bin/helper"].sha256)
    assert rows["helper"]["size_in_bytes"] == 8
    assert not {"sha256", "sha256_in_prefix", "size_in_bytes"} & set(rows["tool"])
    assert rewritten["files"] == [path for path in document["files"] if path != PYC]
    assert rewritten["link"] == {"source": "", "type": 3}
    [(offset, of)] = made.digests
    assert of == "bin/helper"
    assert made.content[offset : offset + 64] == ARCHIVED["bin/helper"].sha256.encode()


def test_a_canonical_record_does_not_depend_on_where_it_was_installed() -> None:
    elsewhere = json.loads(json.dumps(BY_RATTLER).replace("/home/me", "/srv/you"))
    elsewhere["paths_data"]["paths"][0]["sha256_in_prefix"] = HASH
    elsewhere["paths_data"]["paths"][0]["size_in_bytes"] = 5000
    elsewhere["paths_data"]["paths"][1]["sha256"] = HASH
    made = [canonical(each, "", (), ARCHIVED) for each in (BY_RATTLER, elsewhere)]
    assert made[0] == made[1]


def test_a_file_that_is_as_shipped_has_its_shipped_hash() -> None:
    made = canonical(BY_RATTLER, "", (), {})
    [helper] = [row for row in json.loads(made.content)["paths_data"]["paths"] if row["_path"] == "bin/helper"]
    assert helper["sha256_in_prefix"] == HASH
    assert made.digests == ()


def test_digests_are_where_they_are_said_to_be() -> None:
    """Also where the text before them is not ASCII, and where there are more than ten."""
    paths = [f"lib/é{number}" for number in range(12)]
    rows = [{"_path": path, "path_type": "hardlink", "sha256": HASH} for path in paths]
    document = {"name": "x", "summary": "ü", "files": paths, "paths_data": {"paths": rows}}
    archived = {path: Digest(hashlib.sha256(path.encode()).hexdigest(), 1) for path in paths}
    made = canonical(document, "", (), archived)
    assert {of for _, of in made.digests} == set(archived)
    for offset, of in made.digests:
        assert made.content[offset : offset + 64].decode() == archived[of].sha256
    found = {row["_path"]: row["sha256_in_prefix"] for row in json.loads(made.content)["paths_data"]["paths"]}
    assert found == {path: digest.sha256 for path, digest in archived.items()}


def test_a_record_that_lacks_everything_is_kept() -> None:
    made = canonical({"name": "x"}, "", (), {})
    assert json.loads(made.content) == {"name": "x"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/t/to-ken-1/channel/linux-64/a.conda", "https://host/t/<TOKEN>/channel/linux-64/a.conda"),
        ("https://me:secret@host/channel", "https://host/channel"),
        ("https://host/channel/t", "https://host/channel/t"),
        ("file:///channel/noarch/a@b.conda", "file:///channel/noarch/a@b.conda"),
    ],
)
def test_an_archive_tells_nobody_a_token_or_a_password(url: str, expected: str) -> None:
    assert conda.without_secrets(url) == expected
    made = canonical({"name": "x", "url": url, "channel": url}, "", (), {})
    assert json.loads(made.content) == {"name": "x", "url": expected, "channel": expected}
