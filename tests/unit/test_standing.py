"""How each path stands to its package: changed by whom, missing, restored."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from installer_stub.errors import EnvironmentUnfit
from pack import report
from pack.environment import find
from pack.scan import Options, Scan, scan

PLACEHOLDER = "/placeholder_of_many_bytes"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def record(prefix: Path, name: str, files: dict[str, bytes], **placeholders: str) -> None:
    """Write the record of a package that shipped these files."""
    rows: list[dict[str, Any]] = []
    for path, content in files.items():
        row: dict[str, Any] = {"_path": path, "path_type": "hardlink", "sha256": sha256(content)}
        if path in placeholders:
            row |= {"prefix_placeholder": placeholders[path], "file_mode": "text"}
        rows.append(row)
    document = {"name": name, "version": "1", "build": "0", "files": list(files), "paths_data": {"paths": rows}}
    (prefix / "conda-meta" / f"{name}-1-0.json").write_text(json.dumps(document))


def pip_record(prefix: Path, name: str, path: str, content: bytes) -> None:
    """Write the metadata of a distribution that pip installed, with one file."""
    info = prefix / f"lib/python3.11/site-packages/{name}-2.0.dist-info"
    info.mkdir(parents=True)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    (info / "RECORD").write_text(f"{path},sha256={digest},{len(content)}\n{name}-2.0.dist-info/RECORD,,\n")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    for name in ("conda-meta", "lib/python3.11/site-packages"):
        (root / name).mkdir(parents=True)
    return root


def scanned(prefix: Path, **options: Any) -> Scan:
    return scan(find(None, str(prefix)), Options(1, **options))


def write(prefix: Path, **files: bytes) -> dict[str, bytes]:
    for name, content in files.items():
        (prefix / name).write_bytes(content)
    return files


def test_each_path_is_told_apart(prefix: Path) -> None:
    shipped = {"intact": b"a", "restored": PLACEHOLDER.encode(), "modified": b"b", "missing": b"c"}
    record(prefix, "one", shipped, restored=PLACEHOLDER)
    write(prefix, intact=b"a", restored=bytes(prefix), modified=b"other", added=b"d")
    told = report.as_json(scanned(prefix))
    assert told["restored"] == ["restored"] and told["added"] == ["added"]
    assert [(each["path"], each["detail"]) for each in told["modified"]] == [("modified", "one-1-0")]
    assert [each["path"] for each in told["missing"]] == ["missing"] and told["clobbered"] == []
    text = report.as_text(scanned(prefix))
    assert "1 of them restored" in text and "modified: one-1-0" in text and "missing: of one-1-0" in text


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (b"one's", "one-1-0, which overwrote that of two-1-0"),
        (b"two's", "two-1-0, which overwrote that of one-1-0"),
        (b"nobody's", "both claim it, and it is neither's"),
    ],
)
def test_two_packages_claim_a_path(prefix: Path, there: bytes, words: str) -> None:
    record(prefix, "one", {"file": b"one's"})
    record(prefix, "two", {"file": b"two's"})
    write(prefix, file=there)
    (clobbered,) = report.as_json(scanned(prefix))["clobbered"]
    assert words in clobbered["detail"]


def test_two_packages_with_the_same_file_are_no_fault(prefix: Path) -> None:
    for name in ("one", "two"):
        record(prefix, name, {"file": b"same"})
    write(prefix, file=b"same")
    scanned(prefix, strict=True)


def test_pip_overwrote_a_file_of_a_package(prefix: Path) -> None:
    path = "lib/python3.11/site-packages/six.py"
    record(prefix, "six", {path: b"conda's"})
    (prefix / path).write_bytes(b"pip's")
    pip_record(prefix, "six", "six.py", b"pip's")
    (clobbered,) = report.as_json(scanned(prefix))["clobbered"]
    assert clobbered["path"] == path
    assert clobbered["detail"] == "six-2.0 by pip, which overwrote that of six-1-0"
    assert report.as_json(scanned(prefix))["modified"] == []


def test_strict_refuses_what_is_not_as_installed(prefix: Path) -> None:
    record(prefix, "one", {"modified": b"a", "missing": b"b"})
    write(prefix, modified=b"c", added=b"d")
    with pytest.raises(EnvironmentUnfit, match=r"--strict: 2 paths") as refused:
        scanned(prefix, strict=True)
    assert "missing: missing: of one-1-0" in str(refused.value) and refused.value.tip
    record(prefix, "one", {"modified": b"c"})
    scanned(prefix, strict=True)


def test_more_than_one_python_is_refused(prefix: Path) -> None:
    record(prefix, "python", {})
    (prefix / "conda-meta/python-2-0.json").write_bytes((prefix / "conda-meta/python-1-0.json").read_bytes())
    with pytest.raises(EnvironmentUnfit, match="more than one Python"):
        scanned(prefix)
