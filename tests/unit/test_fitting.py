"""What would become of every reference at one target: counts, the worst first, and what refuses."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from installer_stub.errors import NoRoom, TargetRefused
from installer_stub.model import Fit
from pack import fitting
from pack.environment import find
from pack.fitting import Fitting
from pack.scan import Options, scan

DEEP = "opt/a/quite/deep/place/env"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with text, a string in a binary, a word without quotes, the name of a source, and a zip."""
    root = tmp_path / DEEP
    (root / "bin").mkdir(parents=True)
    (root / "lib").mkdir()
    name = bytes(root)
    (root / "bin/tool.sh").write_bytes(b"cd " + name + b"/share\ncd '" + name + b"'\n")
    (root / "lib/x.bin").write_bytes(b"\0" + name + b"/share\0\0" + name + b"/src/x.c\0")
    with zipfile.ZipFile(root / "lib/x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member.txt", b"see " + name + b"/share\n" * 10)
    return root


def fitted(prefix: Path, target: bytes) -> Fitting:
    return fitting.at(scan(find(None, str(prefix)), Options(1)), target)


def test_counts_tell_the_worst_first(prefix: Path) -> None:
    found = fitted(prefix, b"/" + b"x" * 300)
    assert list(found.counts().items()) == [(Fit.NOT_REWRITABLE, 1), (Fit.NO_ROOM, 1), (Fit.LOSSLESS, 2)]
    assert found.harmless == 1
    facts = fitting.as_json(found)
    assert facts["counts"] == {"not rewritable": 1, "no room": 1, "lossless": 2}
    assert facts["refused"] == 1
    [string] = facts["strings"]
    assert (string["path"], string["offset"], string["field"], string["fit"]) == ("lib/x.bin", 1, "C string", "no room")
    assert (string["need"], string["room"]) == (301, len(bytes(prefix)))
    [left] = facts["left"]
    assert left["path"] == "lib/x.zip"
    assert "member.txt" in left["detail"]


def test_the_name_decides_what_nobody_can_tell(prefix: Path) -> None:
    """A file that is no program tells nothing of pointers: with the same name all ends are kept."""
    same, other = fitted(prefix, b"/n/env"), fitted(prefix, b"/n/other")
    assert Fit.C_READERS not in same.counts()
    assert other.counts()[Fit.C_READERS] == 1
    assert "the last component is 'env' as before" in fitting.as_text(same)
    assert "with 'env' as its last component" in fitting.as_text(other)


def test_lines_for_a_person(prefix: Path) -> None:
    lines = fitting.as_text(fitted(prefix, b"/my own/" + b"x" * 300)).splitlines()
    assert lines[0] == f"/my own/{'x' * 300}: what becomes there of every string that names the prefix"
    assert [line.split() for line in lines[1:4]] == [["1", "not", "rewritable"], ["1", "no", "room"], ["2", "lossless"]]
    assert "refused     1 strings are in force and do not fit" in lines
    assert f"  lib/x.bin at byte 1: a C string with room for {len(bytes(prefix))} bytes" in lines
    assert "check: 1 needs quotes" in lines
    assert "  bin/tool.sh at byte 3: 1 word without quotes" in lines
    assert "accepted    by default" in fitting.as_text(fitted(prefix, b"/n/env")).splitlines()


def test_strict_refuses_what_is_not_lossless(prefix: Path) -> None:
    with pytest.raises(NoRoom, match="not every reference") as caught:
        fitting.require_lossless(fitted(prefix, b"/n/other"))
    assert [refusal.split(":")[0] for refusal in caught.value.refusals] == ["lib/x.bin at byte 1", "lib/x.zip"]
    (prefix / "lib/x.zip").unlink()
    fitting.require_lossless(fitted(prefix, b"/n/env"))


def test_a_target_where_nothing_can_stand_is_refused(prefix: Path) -> None:
    with pytest.raises(TargetRefused, match="colon"):
        fitted(prefix, b"/a:b")
    with pytest.raises(TargetRefused, match="written into scripts"):
        fitted(prefix, b"/a$b")
