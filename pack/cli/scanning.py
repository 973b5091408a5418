"""The report of a scan."""

from __future__ import annotations

import os

import click

from installer_stub.errors import UsageError

from .options import (
    Ordered,
    cores,
    environment_of,
    environment_options,
    grow_option,
    jobs_option,
    profiles,
    rules,
    unreadable_option,
    which_options,
)
from .packing import pack
from .terminal import Bar, say


@pack.command("scan", cls=Ordered)
@environment_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--limits", "only_limits", is_flag=True, help="Print only how long a target may be, and why.")
@click.option("--target", "at", metavar="DIR", help="Print what would become of every reference at DIR.")
@click.option("--strict", is_flag=True, help="With --target: fail unless all is rewritten there without loss.")
@click.option("--sizes", is_flag=True, help="Print only the size of each package, before and after what is left out.")
@which_options
@jobs_option
@unreadable_option()
@grow_option
@click.pass_context
def _scan(
    context: click.Context,
    /,
    name: str | None,
    prefix: str | None,
    as_json: bool,
    only_limits: bool,
    at: str | None,
    strict: bool,
    sizes: bool,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    slim: str | None,
    threads: int | None,
    ignore_unreadable: bool,
    grow: bool,
) -> None:
    """Report every reference to the prefix, and what cannot be rewritten."""
    from pack import fitting, report
    from pack.editables import Editables
    from pack.scan import Options, scan

    if strict and at is None:
        raise UsageError("--strict says nothing without a target", "Name one with --target DIR.")
    if sum((only_limits, at is not None, sizes)) > 1:
        raise UsageError("--limits, --target and --sizes are different reports", "Ask for one of them.")
    environment = environment_of(name, prefix)
    with Bar(quiet=as_json) as bar:
        bar.start("scanning", None)
        options = Options(
            cores(threads),
            ignore_unreadable,
            grow_run_paths=grow,
            rules=rules(context),
            slim=profiles(slim),
            editables=Editables.SKIP,  # listed with all else
        )
        found = scan(environment, options, progress=bar.advance)
    if at is not None:
        fitted = fitting.at(found, os.fsencode(os.path.abspath(at)))
        say(fitting.as_json(fitted) if as_json else fitting.as_text(fitted))
        if strict:
            fitting.require_lossless(fitted)
    elif sizes:
        say(report.sizes(found) if as_json else "\n".join(report.sizes_text(found)))
    elif only_limits:
        say(report.limits(found) if as_json else "\n".join(report.limits_text(found)))
    else:
        say(report.as_json(found) if as_json else report.as_text(found))
