"""What a parcel is called, and what is in its directory ``meta``."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from installer_stub.errors import UsageError
from pack.archive import Format
from pack.environment import find
from pack.parcel import parcel
from pack.write import Options, write
from tests.integration import moving
from tests.unit.test_bake import Silent


def test_names_and_places() -> None:
    made = parcel("env", None, None, None, None, {"SOURCE_DATE_EPOCH": "0"})
    assert (made.file_name, made.prefix) == ("env-1970.01.01-el7.parcel", "/opt/cloudera/parcels/env-1970.01.01")
    made = parcel("env", "/p", "other", "1-2", "sles12", {})
    assert (made.file_name, made.prefix, made.directory) == ("other-1-2-sles12.parcel", "/p/other-1-2", "other-1-2")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, "my-env", None, None), "--parcel-name my-env"),
        ((None, None, None, "el-7"), "--parcel-distro el-7"),
        ((None, "a/b", None, None), "--parcel-name"),
        ((None, None, "1\n2", None), "--parcel-version"),
        (("relative", None, None, None), "--parcel-root"),
    ],
)
def test_what_cannot_be_called_so(given: tuple[str | None, str | None, str | None, str | None], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parcel("env", *given, {})
    with pytest.raises(UsageError, match="may hold no dash"):
        parcel("my-env", None, None, None, None, {})


def test_it_holds_what_cloudera_manager_reads(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    (prefix / "conda-meta").mkdir(parents=True)
    record = {"name": "zlib", "version": "1.2", "build": "h_0", "files": ["lib.txt"]}
    (prefix / "conda-meta/zlib-1.2-h_0.json").write_text(json.dumps(record))
    (prefix / "lib.txt").write_text(f"{prefix}\n")
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/x.sh").write_text("export FROM_SCRIPT=1\n")
    made = parcel("env", str(tmp_path / "parcels"), None, "2", None, {})
    output = tmp_path / made.file_name
    options = Options(
        output,
        Format.PARCEL,
        parcel=made,
        dest_prefix=made.prefix.encode(),
        arcroot=made.directory.encode(),
    )
    write(find(None, str(prefix)), options, "1", Silent())
    with tarfile.open(output) as archive:
        assert {name.split("/")[0] for name in archive.getnames()} == {"env-2"}
    moving.unpack(output, tmp_path / "parcels")
    root = tmp_path / "parcels/env-2"
    described = json.loads((root / "meta/parcel.json").read_text())
    assert (described["name"], described["version"], described["schema_version"]) == ("env", "2", 1)
    assert described["packages"] == [{"name": "zlib", "version": "1.2-h_0"}]
    assert described["scripts"]["defines"] == "conda_env.sh"
    assert (root / "lib.txt").read_text() == f"{root}\n"
    script = (
        f'PARCELS_ROOT={root.parent} PARCEL_DIRNAME=env-2; . {root}/meta/conda_env.sh; echo "$CDH_PYTHON $FROM_SCRIPT"'
    )
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == f"{root}/bin/python 1\n"
