"""conda-pack beside ours: the same environment packed by both, unpacked, moved and run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fixtures import peers
from tests.integration.moving import SURROUNDINGS, Run, run, unpack


def program(name: str = "conda-pack") -> Path:
    """Return a peer, or skip in words where it cannot be installed."""
    try:
        return peers.program(name)
    except peers.PeerUnavailable as error:
        pytest.skip(str(error))


def conda_pack(prefix: Path, output: Path, *options: str | Path, code: int | None = 0) -> Run:
    """Pack a prefix by conda-pack."""
    return run([program(), "-q", "-p", prefix, "-o", output, *options], code=code)


def conda_unpacked(archive: Path, target: Path) -> Path:
    """Unpack its archive by tar, and run its ``conda-unpack`` there; return the target."""
    unpack(archive, target)
    run(
        [target / "bin/python", target / "bin/conda-unpack"],
        env={**SURROUNDINGS, "PATH": f"{target}/bin:/usr/bin:/bin"},
    )
    return target


def hidden(prefix: Path) -> Path:
    """Take the source away, so that nothing can read it by chance; return where it went."""
    away = prefix.with_name(prefix.name + " hidden")
    shutil.rmtree(away, ignore_errors=True)
    return prefix.rename(away)
