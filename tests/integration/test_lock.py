"""The list of an environment is read by a client's own reader, and names exactly what was installed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from rattler.explicit_environment import ExplicitEnvironmentSpec

from tests.conftest import MakeEnvironment
from tests.integration.installed import made_lean
from tests.integration.moving import pack, pack_env, run, unpack, wheel


def entries(text: str) -> dict[str, str]:
    """Read a list by rattler: hash by address."""
    found = (str(entry.url).partition("#") for entry in ExplicitEnvironmentSpec.from_str(text).packages)
    return {url: digest for url, _, digest in found}


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_every_package_is_where_and_what_it_says(algorithm: str, python_env: Path) -> None:
    options = ["--sha256"] if algorithm == "sha256" else []
    listed = entries(pack("lock", "-p", python_env, *options).stdout)
    records = [json.loads(path.read_text()) for path in (python_env / "conda-meta").glob("*.json")]
    assert set(listed) == {record["url"] for record in records} and len(listed) > 15
    for url, digest in listed.items():
        content = Path(unquote(urlsplit(url).path)).read_bytes()
        assert hashlib.new(algorithm, content).hexdigest() == digest.removeprefix("sha256:")


def test_archives_keep_it(make_env: MakeEnvironment, tmp_path: Path) -> None:
    prefix = made_lean(make_env(["xz", "python", "pip"]))
    run([prefix / "bin/python", "-m", "pip", "install", "-q", "--no-index", wheel(tmp_path)])
    of_prefix = pack("lock", "-p", prefix).stdout
    for suffix in ("tar.zst", "tar.gz", "zip", "squashfs", "no-archive"):
        archive = pack_env(prefix, tmp_path / f"env.{suffix}")
        assert pack("lock", archive).stdout == of_prefix, suffix
    (requirement,) = pack("lock", "--pip", archive).stdout.splitlines()
    assert requirement.startswith("tinyroot @ file://")
    told = json.loads(pack("lock", archive, "--json").stdout)
    assert told["platform"] == "linux-64" and told["pip"] == [requirement]
    target = unpack(tmp_path / "env.tar.gz", tmp_path / "apps")
    assert pack("lock", target).stdout == of_prefix
    assert entries(pack("lock", "-p", target).stdout) == entries(of_prefix)


def test_what_has_no_list(tmp_path: Path) -> None:
    (tmp_path / "plain/bin").mkdir(parents=True)
    assert "no package manager" in pack("lock", "-p", tmp_path / "plain", code=4).stderr
    archive = pack_env(tmp_path / "plain", tmp_path / "plain.tar")
    assert "no list of packages" in pack("lock", archive, code=6).stderr
    pack("lock", archive, "-p", tmp_path / "plain", code=2)
