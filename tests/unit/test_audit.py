"""An archive held against its manifest, without writing a tree."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from installer_stub import admission, audit
from installer_stub.tarstream import ArchiveDamaged
from pack.archive import Format
from pack.environment import find
from pack.write import Options, write
from tests.unit.test_bake import Silent


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    prefix = tmp_path / "env"
    for name in ("bin/tool", "lib/data"):
        (prefix / name).parent.mkdir(parents=True)
        (prefix / name).write_text(f"{name} of {prefix}\n")
    (prefix / "lib/hard").hardlink_to(prefix / "lib/data")
    (prefix / "lib/soft").symlink_to("data")
    write(find(None, str(prefix)), Options(tmp_path / "env.tar", Format.TAR, threads=1), "1", Silent())
    return (tmp_path / "env.tar").read_bytes()


def checked(data: bytes) -> int:
    return audit.check(admission.open_archive(io.BytesIO(data).read))


def test_a_whole_archive_is_right(archive: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert checked(archive) == len(opened.getnames())


@pytest.mark.parametrize(("old", "new"), [(b"lib/data of ", b"lib/dota of "), (b"bin/tool of ", b"bin/toll of ")])
def test_other_bytes_are_told(archive: bytes, old: bytes, new: bytes) -> None:
    changed = archive.replace(old, new)
    if changed == archive:
        pytest.fail(f"{old!r} is not in it")
    with pytest.raises(ArchiveDamaged, match="other bytes"):
        checked(changed)


def test_what_is_missing_is_told(archive: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.name != "lib/soft":
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    with pytest.raises(ArchiveDamaged, match=r"lib/soft.* is missing"):
        checked(out.getvalue())
