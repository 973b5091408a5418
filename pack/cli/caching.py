"""The command about what packing keeps for the next time."""

from __future__ import annotations

import os
import re

import click

from installer_stub.errors import UsageError

from .packing import pack
from .terminal import say, shown

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)b?", re.IGNORECASE)


@pack.command("cache")
@click.option("--cache", "directory", metavar="DIR", help="Which cache (default: relopack/packing in the user's).")
@click.option("--limit", metavar="SIZE", help="Keep at most so much from now on, such as 20GB; 0 keeps nothing.")
@click.option("--clear", is_flag=True, help="Remove all that is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _cache(directory: str | None, limit: str | None, clear: bool, as_json: bool) -> None:
    """Print what packing keeps for the next time: where, how much, and how much at most. See docs/cache.md."""
    from pathlib import Path

    from pack import cache

    where = Path(directory) if directory else cache.default()
    if where is None:
        raise UsageError("there is no home directory to keep anything in", "Name a directory with --cache DIR.")
    kept = cache.Cache(where)
    if clear:
        kept.clear()
    if limit is not None:
        kept.set_limit(_bytes(limit))
    holds = kept.contents()
    path = shown(os.fsencode(kept.directory))
    if as_json:
        facts = {"pieces": holds.pieces, "scans": holds.scans, "bytes": holds.size, "limit": kept.limit}
        say({"directory": path, **facts})
        return
    say(f"{path}: {holds.pieces:,} pieces of archives and {holds.scans:,} scans, {holds.size / 1e6:,.1f} MB")
    say(f"at most {kept.limit / 1e6:,.1f} MB are kept; what was not used for longest goes first")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--limit {text}: is no size", "Give a number with a unit, such as 20GB or 500M.")
    return int(float(match[1]) * _UNITS[match[2].lower()])
