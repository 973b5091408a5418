"""The list of what recreates an environment."""

from __future__ import annotations

import os

import click

from installer_stub.errors import UsageError

from .options import environment_of, environment_options
from .packing import pack
from .terminal import say


@pack.command("lock")
@click.argument("archive", metavar="[ARCHIVE]", required=False)
@environment_options
@click.option("--sha256", is_flag=True, help="Give SHA-256 instead of MD5; of an environment, not of an archive.")
@click.option("--pip", "only_pip", is_flag=True, help="Print only what pip installed, as requirements.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _lock(
    archive: str | None, name: str | None, prefix: str | None, sha256: bool, only_pip: bool, as_json: bool
) -> None:
    """Print what recreates an environment, or the one in an archive: address and hash of each package.

    It is an explicit specification: conda create --name NAME --file FILE. What pip installed is listed in comments.
    """
    from pack import lock

    if archive is not None:
        if name is not None or prefix is not None or sha256:
            raise UsageError("an archive has its own list", "Give the archive alone, or an environment by -n or -p.")
        from pathlib import Path

        from pack import unpack

        source = None if archive == "-" else Path(archive)
        specification, required = lock.of_archive(unpack.kept(source, (lock.PATH, lock.REQUIREMENTS)), archive)
    else:
        from pack.scan import listed

        environment = environment_of(name, prefix)
        where = os.fsencode(environment.prefix)
        found = lock.of(where, *listed(environment), {})
        lock.require_known(found, where)
        specification, required = lock.explicit(found, sha256), lock.requirements(found)
    if as_json:
        say(lock.as_json(specification, required))
    elif only_pip:
        say(required.rstrip("\n"))
    else:
        say(lock.as_text(specification, required).rstrip("\n"))
