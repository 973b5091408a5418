"""Digests that an environment keeps of its own files hold for what is archived, and follow it where it goes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from installer_stub import references
from installer_stub.model import Field, Spelling, Standing
from pack import records
from pack.examine import Context, Examined, Job, examine
from pack.layouts import conda
from pack.layouts.conda import Owned
from pack.splice import pieces, stacked

SITE = "lib/python3.11/site-packages"
RECORD = f"{SITE}/tool-1.0.dist-info/RECORD"


def row(path: str, data: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n".encode()


class Environment:
    """Files of an environment, and the verdicts on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.context = Context(bytes(root), (bytes(root),))
        self.verdicts: dict[bytes, Examined] = {}

    def add(self, path: str, data: bytes, owned: Owned | None = None) -> bytes:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)
        self.verdicts[path.encode()] = examine(Job(path.encode(), len(data), 0, owned), self.context)
        return data

    def archived(self, path: str, verdicts: Mapping[bytes, Examined]) -> bytes:
        verdict = verdicts[path.encode()]
        with references.Opened(os.path.join(bytes(self.root), path.encode())) as below:
            view, _ = stacked(below, verdict.job.size, verdict.layers)
            data = b"".join(pieces(view))
        assert hashlib.sha256(data).hexdigest() == verdict.archived.sha256
        assert len(data) == verdict.archived.size
        return data


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def owned(data: bytes, **facts: Any) -> Owned:
    default: dict[str, Any] = {
        "package": "x-1-0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "placeholder": b"",
        "text": True,
        "entry_point": False,
        "byte_code": False,
    }
    return Owned(**{**default, **facts})


# RECORD


def test_what_pip_owns_is_what_its_records_list(environment: Environment) -> None:
    environment.add(
        RECORD,
        b'tool/__init__.py,sha256=x,0\r\n../../../bin/tool,,\n"tool/a, b.py",,\n"tool/q""q.py",,\n/etc/x,,\n'
        b"../../../../../../etc/y,,\n" + f"{RECORD},,\n".encode(),
    )
    environment.add("lib/RECORD", b"not/one,,\n")
    paths = records.pip_owned(environment.verdicts, environment.context)
    assert {f"{SITE}/tool/__init__.py", "bin/tool", f"{SITE}/tool/a, b.py", f'{SITE}/tool/q"q.py'} <= {
        path.decode() for path in paths
    }
    assert not {b"not/one", b"etc/x"} & paths


def test_a_digest_follows_a_script_that_gets_another_head(environment: Environment) -> None:
    """The script is archived with a head that needs no rewriting: its digest is right at once, and for good."""
    script = environment.add("bin/tool", b"#!" + bytes(environment.root) + b"/bin/python\nimport x\n")
    plain = environment.add(f"{SITE}/tool.py", b"x = 1\n")
    before = row("../../../bin/tool", script) + row("tool.py", plain) + b"tool-1.0.dist-info/RECORD,,\n"
    environment.add(RECORD, before)
    made = records.with_pip_digests(environment.verdicts, {}, environment.context)
    after = environment.archived(RECORD, made)
    archived = environment.archived("bin/tool", made)
    assert archived != script
    assert after == before.replace(row("../../../bin/tool", script), row("../../../bin/tool", archived))
    assert made[RECORD.encode()].references == ()


def test_a_digest_of_another_name_is_that_of_the_first(environment: Environment) -> None:
    """Two names of one inode have one digest, and both rows follow it."""
    text = environment.add("share/config", b"root = " + bytes(environment.root) + b"\n")
    environment.add(RECORD, row("../../../share/config", text) + row("../../../share/other", text))
    links = {b"share/other": b"share/config"}
    made = records.with_pip_digests(environment.verdicts, links, environment.context)
    assert [slot.of for slot in made[RECORD.encode()].references] == [b"share/config"] * 2


def test_a_digest_of_what_is_rewritten_is_a_reference(environment: Environment) -> None:
    script = environment.add("bin/tool", b"#!" + bytes(environment.root) + b"/bin/perl\n1;\n")
    text = environment.add("share/config", b"root = " + bytes(environment.root) + b"\n")
    environment.add(RECORD, "é,,\n".encode() + row("../../../bin/tool", script) + row("../../../share/config", text))
    made = records.with_pip_digests(environment.verdicts, {}, environment.context)
    data = environment.archived(RECORD, made)
    slots = made[RECORD.encode()].references
    assert [(slot.field, slot.spelling, slot.of) for slot in slots] == [
        (Field.DIGEST, Spelling.RECORD, b"bin/tool"),
        (Field.DIGEST, Spelling.RECORD, b"share/config"),
    ]
    for slot in slots:
        assert data[slot.offset : slot.end] == slot.archived
        assert slot.archived.startswith(b"sha256=")


def test_a_digest_that_was_wrong_stays_wrong(environment: Environment) -> None:
    environment.add("bin/tool", b"#!" + bytes(environment.root) + b"/bin/python\nedited()\n")
    before = environment.add(RECORD, row("../../../bin/tool", b"as installed"))
    made = records.with_pip_digests(environment.verdicts, {}, environment.context)
    assert environment.archived(RECORD, made) == before
    assert made[RECORD.encode()].references == ()


def test_the_record_of_a_package_is_left_as_shipped(environment: Environment) -> None:
    """Its own digests were made before the placeholder was replaced, and pip never checked them."""
    script = environment.add("bin/tool", b"#!" + bytes(environment.root) + b"/bin/python\nimport x\n")
    before = row("../../../bin/tool", script)
    environment.add(RECORD, before, owned(before))
    made = records.with_pip_digests(environment.verdicts, {}, environment.context)
    assert environment.archived(RECORD, made) == before


# conda-meta


def package(*rows: dict[str, Any], **facts: Any) -> dict[str, Any]:
    files = [each["_path"] for each in rows]
    document = {"name": "x", "version": "1", "build": "0", "files": files, "paths_data": {"paths": list(rows)}}
    return {**document, **facts}


def with_conda_meta(
    environment: Environment, document: dict[str, Any], left_out: frozenset[bytes] = frozenset()
) -> Any:
    environment.add("conda-meta/x-1-0.json", json.dumps(document).encode())
    recorded = conda.read(environment.root)
    return records.with_conda_meta(environment.verdicts, recorded, left_out, {}, environment.context)


PLACEHOLDER = b"/".ljust(255, b"p")


def test_a_record_holds_for_the_archived_bytes(environment: Environment) -> None:
    shipped = b"root = " + PLACEHOLDER + b"\n"
    digest = hashlib.sha256(shipped).hexdigest()
    installed = shipped.replace(PLACEHOLDER, bytes(environment.root))
    environment.add("etc/x", installed, owned(shipped, placeholder=PLACEHOLDER))
    document = package(
        {
            "_path": "etc/x",
            "path_type": "hardlink",
            "sha256": digest,
            "sha256_in_prefix": hashlib.sha256(installed).hexdigest(),
            "prefix_placeholder": PLACEHOLDER.decode(),
            "file_mode": "text",
        }
    )
    made = with_conda_meta(environment, document)
    written = environment.archived("conda-meta/x-1-0.json", made)
    assert json.loads(written)["paths_data"]["paths"][0]["sha256_in_prefix"] == digest
    [slot] = made[b"conda-meta/x-1-0.json"].references
    assert (slot.field, slot.spelling, slot.of) == (Field.DIGEST, Spelling.HEX, b"etc/x")
    assert written[slot.offset : slot.end] == digest.encode() == slot.archived
    assert made[b"conda-meta/x-1-0.json"].standing is Standing.GENERATED


def test_a_record_of_a_modified_file_is_left(environment: Environment) -> None:
    """The hash of what the package shipped tells that the file was edited."""
    digest = hashlib.sha256(b"shipped").hexdigest()
    environment.add("etc/x", b"edited " + bytes(environment.root), owned(b"shipped"))
    made = with_conda_meta(environment, package({"_path": "etc/x", "path_type": "hardlink", "sha256": digest}))
    document = json.loads(environment.archived("conda-meta/x-1-0.json", made))
    assert document["paths_data"]["paths"] == [{"_path": "etc/x", "path_type": "hardlink", "sha256": digest}]
    assert made[b"conda-meta/x-1-0.json"].references == ()


def test_a_record_does_not_list_what_is_left_out(environment: Environment) -> None:
    document = package({"_path": "a.pyc", "path_type": "pyc_file"}, {"_path": "a.py", "path_type": "hardlink"})
    made = with_conda_meta(environment, document, frozenset([b"a.pyc"]))
    written = json.loads(environment.archived("conda-meta/x-1-0.json", made))
    assert written["files"] == ["a.py"]
    assert [each["_path"] for each in written["paths_data"]["paths"]] == ["a.py"]


def test_what_a_record_says_of_the_prefix_is_a_reference(environment: Environment) -> None:
    made = with_conda_meta(environment, package(note=f"installed in {environment.root}"))
    [slot] = made[b"conda-meta/x-1-0.json"].references
    assert (slot.field, slot.prefix) == (Field.TEXT, bytes(environment.root))


def test_history_is_written_without_times_and_commands(environment: Environment) -> None:
    environment.add("conda-meta/history", b"==> 2024-01-02 03:04:05 <==\n# cmd: conda create -p /home/me\n+x-1-0\n")
    made = with_conda_meta(environment, package())
    assert environment.archived("conda-meta/history", made) == b"==> 2000-01-01 00:00:00 <==\n+x-1-0\n"


def test_what_an_earlier_packing_wrote_is_kept_where_it_holds(environment: Environment) -> None:
    document = package(link={"source": "/home/me", "type": 1})
    environment.add("conda-meta/x-1-0.json", json.dumps(document).encode())
    path = b"conda-meta/x-1-0.json"
    environment.verdicts[path] = environment.verdicts[path]._replace(from_manifest=True)
    recorded = conda.read(environment.root)
    made = records.with_conda_meta(environment.verdicts, recorded, (), {}, environment.context)
    assert made[path] is environment.verdicts[path]
