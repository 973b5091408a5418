"""Packing: the command without a name."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from installer_stub.errors import UsageError

from .options import (
    CONTEXT,
    Group,
    cores,
    environment_of,
    environment_options,
    grow_option,
    installer_options,
    jobs_option,
    unreadable_option,
    version,
)
from .terminal import Bar

if TYPE_CHECKING:
    from pack.archive import Format
    from pack.environment import Environment
    from pack.installer import Installer

_FORMATS = (
    "tar, tar.gz (tgz), tar.bz2 (tbz2), tar.xz (txz), tar.zst (tzst), sh (an installer), no-archive (a directory)"
)


@click.group(cls=Group, invoke_without_command=True, context_settings=CONTEXT)
@environment_options
@click.option("-o", "--output", metavar="PATH", help="Where to write; - is standard output (default: <name>.tar.gz).")
@click.option(
    "--format",
    "format_name",
    default="infer",
    metavar="FORMAT",
    help=f"{_FORMATS}, or infer it from the output's suffix, the default.",
)
@click.option("--compress-level", "level", type=int, metavar="N", help="How hard to compress; see docs/compression.md.")
@jobs_option
@click.option("-f", "--force", is_flag=True, help="Replace an existing output; make its directory.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@unreadable_option
@click.option(
    "--keep-setuid",
    is_flag=True,
    help="Keep setuid and setgid bits and file capabilities, and their owners; see docs/entries.md.",
)
@grow_option
@click.option(
    "--no-stub",
    is_flag=True,
    help="Carry no frozen relocator: archives have one where there is no Python, installers always; see docs/stub.md.",
)
@installer_options
@click.version_option(package_name="relopack", prog_name="pack")
@click.pass_context
def pack(
    context: click.Context,
    /,
    name: str | None,
    prefix: str | None,
    output: str | None,
    format_name: str,
    level: int | None,
    threads: int | None,
    force: bool,
    quiet: bool,
    ignore_unreadable: bool,
    keep_setuid: bool,
    grow: bool,
    no_stub: bool,
    **installer_options: str | None,
) -> None:
    """Make an installed environment relocatable and write it into one file.

    Unpack the file anywhere and activate what is in it: the first activation rewrites every path that
    named the old place. An output that ends with .sh is an installer, which does all of that when it is run.

    bzip2 and xz are written as one stream, whatever the number of cores.
    """
    if context.invoked_subcommand is not None:
        given = [each for each in context.params if context.get_parameter_source(each) is ParameterSource.COMMANDLINE]
        if given:
            raise UsageError(
                f"options before {context.invoked_subcommand!r} are those of packing",
                f"Put them behind it: pack {context.invoked_subcommand} -p PREFIX",
            )
        return
    from installer_stub.model import Fill
    from pack import report
    from pack.archive import Format
    from pack.compress import library
    from pack.scan import Options as ScanOptions
    from pack.signature import SIGNATURE, beside
    from pack.stub import carry
    from pack.write import Options, write

    environment = environment_of(name, prefix)
    format = _format(format_name, output)
    if output == "-":
        path = None
    else:
        path = Path(output.rstrip("/") or "/") if output else Path(f"{environment.name}.{format.value}")
    installer = _installer(environment, format, path, installer_options, no_stub)
    scanning = ScanOptions(ignore_unreadable=ignore_unreadable, keep_setuid=keep_setuid, grow_run_paths=grow)
    options = Options(path, format, force, level, cores(threads), scanning, not no_stub, installer)
    with Bar(quiet) as bar:
        found = write(environment, options, version(), bar, bar.say)
    if quiet or path is None:
        return
    size = f", {path.stat().st_size / 1e6:,.1f} MB" if path.is_file() else ""
    if library(options.compression):  # another version of it may write other bytes
        size += f" by {library(options.compression)}"
    rewritten = [file for file in found.manifest.files if file.is_rewritten]
    slots = sum(reference.fill is not Fill.KEEP for file in rewritten for reference in file.references)
    click.echo(
        f"{path}: {len(found.items):,} entries{size}; {slots:,} references in "
        f"{len(rewritten):,} files are rewritten where it goes"
    )
    if format is Format.INSTALLER:
        click.echo(f"to install it: sh {shlex.quote(str(path))} --prefix DIR")
    for line in report.warnings(found):
        click.echo(line, err=True)
    if installer is not None:
        if no_stub and carry.is_needed(found):
            click.echo(
                "nothing in it relocates what it installs: that has no Python, and --no-stub was given", err=True
            )
        if installer.key is None and (older := beside(path, SIGNATURE)).exists():
            click.echo(f"{older}: this signature is of an older file", err=True)
    elif not no_stub and (advice := carry.advice(found)):
        click.echo(advice, err=True)


def _format(format_name: str, output: str | None) -> Format:
    from pack.archive import Format, infer, parse

    format = parse(format_name)
    if format is None:
        format = infer(output) if output and output != "-" else Format.TAR_GZ
    if format is Format.DIRECTORY and output == "-":
        raise UsageError("a directory cannot be written to standard output", "Name one with -o.")
    return format


def _installer(
    environment: Environment, format: Format, output: Path | None, given: Mapping[str, str | None], no_stub: bool
) -> Installer | None:
    from pack.archive import Format
    from pack.installer import asked

    options = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    if format is not Format.INSTALLER:
        if options:
            typed = ", ".join(f"--{name}" for name in options)
            raise UsageError(
                f"{typed}: only an installer has this, and {format.value} is none",
                "End the output's name with .sh, or give --format sh.",
            )
        return None
    if output is None and "sign-with" in options:
        raise UsageError("--sign-with: there is no place beside the standard output", "Name a file with -o.")
    return asked(environment.name, options, not no_stub)
