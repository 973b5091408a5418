"""The commands about the frozen relocator."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import click

from .packing import pack
from .terminal import say, shown, step

if TYPE_CHECKING:
    from pack.stub.store import Stub


@pack.group("stub")
def _stub() -> None:
    """Build and find the frozen relocator, for environments without Python."""


ARCHITECTURES = ("x86_64", "aarch64")  # those of pack.stub.toolchain, which only these commands import


@_stub.command("build")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="What to build it for (default: this machine's).")
@click.option(
    "--sources",
    metavar="DIR",
    help="Where the source archives of CPython 3.11, zlib and libffi lie (default: relopack/sources in the cache).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _stub_build(arch: str | None, sources: str | None, as_json: bool) -> None:
    """Build the frozen relocator of this version of pack, unless it is in the cache; print where it lies.

    It starts on every Linux with glibc 2.17 or newer. The compiler and PyInstaller come from the package index.
    """
    from pathlib import Path

    from pack.stub import freeze

    built = freeze.build(arch or platform.machine(), Path(sources) if sources else None, step)
    if as_json:
        say(_stub_json(built))
        return
    say(_stub_line(built))
    say(shown(os.fsencode(built.program)))


@_stub.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _stub_list(as_json: bool) -> None:
    """Print each frozen relocator in the cache: for what, its size, its glibc and its SHA-256."""
    from pack.stub import store

    kept = store.stubs()
    if as_json:
        say([_stub_json(each) for each in kept])
    elif not kept:
        say("none; pack stub build makes one")
    else:
        for each in kept:
            say(_stub_line(each))


@_stub.command("path")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="Which (default: this machine's).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _stub_path(arch: str | None, as_json: bool) -> None:
    """Print where the frozen relocator lies that archives are given."""
    from pack.stub import store

    wanted = arch or platform.machine()
    found = store.find(wanted)
    if found is None:
        raise store.StubUnavailable(
            f"{shown(os.fsencode(store.cache()))} holds no frozen relocator of this version of pack for {wanted}.",
            "Build it: pack stub build",
        )
    say(_stub_json(found) if as_json else shown(os.fsencode(found.program)))


def _stub_json(stub: Stub) -> dict[str, Any]:
    return {**stub.record._asdict(), "current": stub.is_current, "path": shown(os.fsencode(stub.path))}


def _stub_line(stub: Stub) -> str:
    record = stub.record
    other = "" if stub.is_current else ", of another version of pack"
    return (
        f"{record.architecture:8} {record.size / 1e6:5.1f} MB  glibc {record.glibc} or newer  "
        f"sha256 {record.sha256}{other}"
    )
