"""What recreates an environment, as lists."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from installer_stub.errors import EnvironmentUnfit, ManifestError
from pack import lock
from pack.environment import find
from pack.scan import listed

MD5, SHA256 = "0" * 32, "1" * 64
INFO = "lib/python3.11/site-packages"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "env"
    (root / "conda-meta").mkdir(parents=True)
    (root / "conda-meta/history").touch()
    return root


def package(prefix: Path, name: str, **more: Any) -> None:
    url = f"https://user:secret@host/t/token/channel/linux-64/{name}-1-0.conda"
    document = {
        "name": name,
        "version": "1",
        "build": "0",
        "subdir": "linux-64",
        "url": url,
        "md5": MD5,
        "sha256": SHA256,
    }
    (prefix / f"conda-meta/{name}-1-0.json").write_text(json.dumps({**document, "files": [], **more}))


def distribution(prefix: Path, name: str, direct: dict[str, Any] | None = None) -> None:
    info = prefix / INFO / f"{name}-2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2\n\nText: no header\n")
    if direct is not None:
        (info / "direct_url.json").write_text(json.dumps(direct))


def locked(prefix: Path) -> lock.Lock:
    return lock.of(os.fsencode(prefix), *listed(find(None, str(prefix))), {})


def test_the_explicit_specification(prefix: Path) -> None:
    package(prefix, "zlib")
    package(prefix, "bzip2", md5=None)
    package(prefix, "local", url=None)
    package(prefix, "bare", md5="", sha256="")
    start = "https://host/t/<TOKEN>/channel/linux-64/"
    lines = lock.explicit(locked(prefix)).splitlines()
    assert lines[2:] == [
        "# platform: linux-64",
        "@EXPLICIT",
        f"{start}bare-1-0.conda",
        f"{start}bzip2-1-0.conda#sha256:{SHA256}",
        "# no address is recorded of local=1=0",
        f"{start}zlib-1-0.conda#{MD5}",
    ]
    assert f"{start}zlib-1-0.conda#sha256:{SHA256}" in lock.explicit(locked(prefix), sha256=True)


def test_what_pip_installed(prefix: Path) -> None:
    package(prefix, "six", files=[f"{INFO}/six-2.dist-info/METADATA"])
    distribution(prefix, "six")
    distribution(prefix, "plain")
    distribution(prefix, "Wheel", {"url": "https://x/w.whl", "archive_info": {"hashes": {"sha256": SHA256}}})
    distribution(prefix, "vcs", {"url": "https://x/r", "vcs_info": {"vcs": "git", "commit_id": "abc"}})
    distribution(prefix, "mine", {"url": "file:///home/me/src", "dir_info": {"editable": True}})
    assert lock.requirements(locked(prefix)).splitlines() == [
        "# editable: mine==2",
        "plain==2",
        "vcs @ git+https://x/r@abc",
        f"Wheel @ https://x/w.whl#sha256={SHA256}",
    ]
    text = lock.as_text(lock.explicit(locked(prefix)), lock.requirements(locked(prefix)))
    assert "#   plain==2\n" in text and "/home/me" not in text
    told = lock.as_json(lock.explicit(locked(prefix)), lock.requirements(locked(prefix)))
    assert told["platform"] == "linux-64" and told["explicit"][0]["hash"] == MD5 and "plain==2" in told["pip"]


def test_where_nothing_is_known(prefix: Path) -> None:
    with pytest.raises(EnvironmentUnfit, match="no package manager"):
        lock.require_known(locked(prefix), b"/env")
    with pytest.raises(ManifestError, match="no list of packages"):
        lock.of_archive({}, "x.tar")
    assert lock.files(locked(prefix)) == []
