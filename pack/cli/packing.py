"""Packing: the command without a name."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from installer_stub.errors import OutputError, UsageError

from .options import (
    CONTEXT,
    INSTALLER_NAMES,
    Group,
    cache_options,
    cores,
    environment_of,
    environment_options,
    grow_option,
    installer_options,
    jobs_option,
    parcel_options,
    profiles,
    rules,
    selection_options,
    version,
)
from .terminal import Bar, say, shown, step

if TYPE_CHECKING:
    from pathlib import Path

    from pack.archive import Format
    from pack.cache import Cache
    from pack.editables import Editables
    from pack.environment import Environment
    from pack.installer import Installer
    from pack.scan import Options as ScanOptions
    from pack.scan import Scan
    from pack.write import Options

_FORMATS = (
    "tar, tar.gz (tgz), tar.bz2 (tbz2), tar.xz (txz), tar.zst (tzst), zip, squashfs, parcel, sh (an installer), "
    "no-archive (a directory)"
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
@cache_options
@click.option("-f", "--force", is_flag=True, help="Replace an existing output; make its directory.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option(
    "-d",
    "--dest-prefix",
    metavar="DIR",
    help="Rewrite all paths for DIR, absolute or relative like ./environment: nothing is left to do there.",
)
@click.option("--arcroot", metavar="DIR", help="The directory in the archive in which everything lies (default: none).")
@click.option(
    "--base",
    metavar="OLD",
    help="Write a tar without the files of OLD, an earlier archive or the tree unpacked from it; see docs/delta.md.",
)
@click.option("--zip-symlinks", is_flag=True, help="In a zip, store symlinks and not copies of what they lead to.")
@click.option("--no-zip-64", is_flag=True, help="In a zip, use no ZIP64, or fail.")
@click.option("--dry-run", is_flag=True, help="Write nothing; report what would be written.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
@selection_options
@parcel_options
@installer_options
@click.version_option(package_name="relopack", prog_name="pack")
@click.pass_context
def pack(context: click.Context, /, **given: Any) -> None:
    """Make an installed environment relocatable and write it into one file.

    Unpack the file anywhere and activate what is in it: the first activation rewrites every path that
    named the old place. An output that ends with .sh is an installer, which does all of that when it is run.

    bzip2 and xz are written as one stream, whatever the number of cores.
    """
    if context.invoked_subcommand is not None:
        typed = [each for each in context.params if context.get_parameter_source(each) is ParameterSource.COMMANDLINE]
        if typed:
            raise UsageError(
                f"options before {context.invoked_subcommand!r} are those of packing",
                f"Put them behind it: pack {context.invoked_subcommand} -p PREFIX",
            )
        return
    environment = environment_of(given["name"], given["prefix"])
    options = _options(context, environment)
    quiet = given["quiet"] or given["as_json"]
    if given["dry_run"]:
        _dry_run(environment, options, quiet, given["as_json"])
        return
    from pack.write import write

    with Bar(quiet) as bar:
        found = write(environment, options, version(), bar, bar.say)
    if given["as_json"]:
        if options.path is not None:  # else the standard output has the archive
            say({**_summary(found, options), "bytes_written": _size(options.path)})
    elif not quiet and options.path is not None:
        _tell(found, options)


def _options(context: click.Context, environment: Environment) -> Options:
    """Make of the command line what is to be written. Raises UsageError for what makes no sense together."""
    from pathlib import Path

    from pack import bake, parcel
    from pack.archive import INFER, Format
    from pack.write import Options

    given: dict[str, Any] = context.params
    if given["output"] == "":
        raise UsageError("-o: the name is empty", "It may be that of a variable that is not set.")
    if given["output"] == "-" and sys.stdout is None:
        raise OutputError("-o -: the standard output is closed", "Redirect it to a file or a program.")
    format = _format(given["format_name"], given["output"])
    parcels = {name: given[f"parcel_{name}"] for name in ("root", "name", "version", "distro")}
    _require_sense(given, format)
    made = parcel.parcel(environment.name, **parcels) if format is Format.PARCEL else None
    path = None
    if given["output"] != "-":
        suffix = format.value if given["format_name"] == INFER else given["format_name"]
        default = made.file_name if made is not None else f"{environment.name}.{suffix}"
        path = Path(given["output"].rstrip("/") or "/") if given["output"] else Path(default)
    installers = {name: given[name] for name in INSTALLER_NAMES}
    dest_prefix = made.prefix if made is not None else given["dest_prefix"]
    return Options(
        path=path,
        format=format,
        force=given["force"],
        level=given["level"],
        threads=cores(given["threads"]),
        scan=_scan_options(context),
        with_python=given["with_python"],
        stub=not given["no_stub"],
        installer=_installer(environment, format, path, installers, given["no_stub"]),
        parcel=made,
        dest_prefix=None if dest_prefix is None else bake.destination(dest_prefix),
        arcroot=os.fsencode(made.directory if made is not None else given["arcroot"] or ""),
        zip_symlinks=given["zip_symlinks"],
        zip64=not given["no_zip_64"],
        held=None if given["base"] is None else _held(Path(given["base"])),
    )


def _require_sense(given: Mapping[str, Any], format: Format) -> None:
    """Raise UsageError for options that mean nothing for the format, or contradict each other."""
    from pack.archive import Format

    parcels = [
        f"--parcel-{name}" for name in ("root", "name", "version", "distro") if given[f"parcel_{name}"] is not None
    ]
    if format is not Format.PARCEL and parcels:
        raise UsageError(
            f"{', '.join(parcels)}: only a parcel has this, and {format.value} is none", "Give --format parcel."
        )
    if format is Format.PARCEL and (given["dest_prefix"] or given["arcroot"]):
        raise UsageError(
            "--dest-prefix and --arcroot contradict a parcel, which has its own",
            "Say where it goes with --parcel-root, --parcel-name and --parcel-version.",
        )
    if format is Format.INSTALLER and given["dest_prefix"]:
        raise UsageError(
            "--dest-prefix: an installer rewrites everything for where it is told to install",
            "Say where that is by default with --default-prefix.",
        )
    if format is Format.INSTALLER and given["arcroot"]:
        raise UsageError("--arcroot: an installer has no directory around its environment", "Leave it out.")
    if format is Format.ZIP and given["keep_setuid"]:
        raise UsageError(
            "--keep-setuid: a zip holds no owners, and with another owner these bits mean another thing",
            "Leave it out, or choose a tar.",
        )
    if format is Format.ZIP and given["with_python"] and not given["zip_symlinks"]:
        raise UsageError(
            "--with-python: the virtual environment's program is a symlink to its Python, and a copy would not start",
            "Give --zip-symlinks, too, or choose a tar.",
        )
    elsewhere = given["dest_prefix"] or given["arcroot"]
    if given["base"] is not None and (elsewhere or not format.value.startswith("tar")):
        raise UsageError(
            "--base: only a tar can leave out files, as archived, and not in a directory of its own",
            "Choose a tar as the output, and leave out --dest-prefix and --arcroot.",
        )


def _held(base: Path) -> frozenset[str]:
    from pack import delta, unpack

    return delta.hashes(base, unpack.listing_of(base).entries)


def _scan_options(context: click.Context) -> ScanOptions:
    from pack.scan import Options

    given = context.params
    return Options(
        ignore_unreadable=given["ignore_unreadable"],
        keep_setuid=given["keep_setuid"],
        grow_run_paths=given["grow"],
        rules=rules(context),
        slim=profiles(given["slim"]),
        strict=given["strict"],
        editables=_editables(given["editables"], given["ignore_editable_packages"]),
        cache=_cache(given["cache_directory"], given["no_cache"], given["quiet"]),
        trust_mtime=not given["no_trust_mtime"],
    )


def _cache(directory: str | None, unwanted: bool, quiet: bool) -> Cache | None:
    """Open the cache that is named, or the user's. Raises UsageError for one that is named and cannot be used."""
    from pathlib import Path

    from pack import cache

    if unwanted:
        if directory is not None:
            raise UsageError("--no-cache contradicts --cache", "Give one of them.")
        return None
    if directory is not None:
        return cache.Cache(Path(directory))
    default = cache.default()
    try:
        return None if default is None else cache.Cache(default)
    except UsageError as error:
        if not quiet:
            step(f"packing without a cache: {error}")
        return None


def _editables(named: str | None, ignored: bool) -> Editables:
    from pack.editables import Editables

    if ignored and named not in (None, Editables.SKIP.value):
        raise UsageError(f"--ignore-editable-packages contradicts --editables {named}", "Give one of them.")
    return Editables.SKIP if ignored else Editables(named or Editables.ERROR.value)


def _dry_run(environment: Environment, options: Options, quiet: bool, as_json: bool) -> None:
    from pack import report
    from pack.write import dry_run

    with Bar(quiet) as bar:
        found = dry_run(environment, options, bar)
    if as_json:
        say({**_summary(found, options), **report.as_json(found)})
    elif not quiet:
        say(report.as_text(found))
        say("\n".join(["", *report.sizes_text(found)]))
        say(f"dry run: {options.path or 'standard output'} was not written")


def _summary(found: Scan, options: Options) -> dict[str, Any]:
    """Describe what is written."""
    rewritten, slots = _references(found)
    return {
        "output": None if options.path is None else shown(os.fsencode(options.path)),
        "format": options.format.value,
        "members": len(found.items),
        "content": found.size,
        "rewritten_files": rewritten,
        "rewritten_references": slots,
        "warnings": _warnings(found, options),
    }


def _references(found: Scan) -> tuple[int, int]:
    """Count the files that are rewritten where the environment goes, and the references in them."""
    from installer_stub.model import Fill

    rewritten = [file for file in found.manifest.files if file.is_rewritten]
    return len(rewritten), sum(r.fill is not Fill.KEEP for file in rewritten for r in file.references)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _tell(found: Scan, options: Options) -> None:
    """Print what was written, and what to know of it."""
    from pack import selection
    from pack.archive import Format
    from pack.compress import library

    path = options.path
    assert path is not None
    size = f", {path.stat().st_size / 1e6:,.1f} MB" if path.is_file() else ""
    if library(options.compression):  # another version of it may write other bytes
        size += f" by {library(options.compression)}"
    rewritten, slots = _references(found)
    where = "where it goes" if options.dest_prefix is None else f"for {shown(options.dest_prefix)}"
    tense = "are" if options.dest_prefix is None else "were"
    say(
        f"{path}: {len(found.items):,} entries{size}; {slots:,} references in "
        f"{rewritten:,} files {tense} rewritten {where}"
    )
    for line in selection.described(found.saved):
        say(line)
    if options.format is Format.INSTALLER:
        say(f"to install it: sh {shlex.quote(str(path))} --prefix DIR")
    elif options.dest_prefix is None and not found.relocates_itself:
        say(f"activate it with bin/{found.manifest.stem} first: its own bin/activate is right from then on")
    for line in _warnings(found, options):
        step(line)


def _warnings(found: Scan, options: Options) -> list[str]:
    from pack import report
    from pack.signature import SIGNATURE, beside
    from pack.stub import carry

    lines = report.warnings(found)
    installer = options.installer
    if installer is None:
        advice = carry.advice(found) if options.stub else None
        return [*lines, advice] if advice else lines
    if not options.stub and carry.is_needed(found):
        lines.append("nothing in it relocates what it installs: that has no Python, and --no-stub was given")
    if installer.key is None and options.path is not None and (older := beside(options.path, SIGNATURE)).exists():
        lines.append(f"{older}: this signature is of an older file")
    return lines


def _format(format_name: str, output: str | None) -> Format:
    from pack.archive import Format, infer, parse

    format = parse(format_name)
    if format is None:
        format = infer(output) if output and output != "-" else Format.TAR_GZ
    if output == "-" and format in (Format.DIRECTORY, Format.SQUASHFS):
        raise UsageError(f"{format.value} cannot be written to standard output", "Name the output with -o.")
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
