"""The commands about archives and unpacked trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from installer_stub.errors import UsageError, VerifyFailed

from .options import demand
from .packing import pack
from .terminal import Bar, findings_json, print_findings, say, shown

if TYPE_CHECKING:
    from pathlib import Path


@pack.command("unpack")
@click.argument("archive", metavar="ARCHIVE")
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("-p", "--prefix", "target", metavar="DIR", help="Where to (default: the archive's name, here).")
@click.option("--check", "only_check", is_flag=True, help="Only hold the archive against its manifest; write nothing.")
@click.option("--base", metavar="OLD", help="The unpacked tree that holds what a delta leaves out; see docs/delta.md.")
@click.option("--register", is_flag=True, help="Tell conda of it, and Jupyter, if a kernel is in it.")
@click.option("--no-relocate", is_flag=True, help="Leave the files as archived; the first activation relocates them.")
@click.option("--allow-unrelocated", is_flag=True, help="Permit C strings without room to keep the old path.")
@click.option("--strict", is_flag=True, help="Refuse a directory where not every reference is written without loss.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _unpack(
    archive: str,
    directory: str | None,
    target: str | None,
    only_check: bool,
    base: str | None,
    register: bool,
    no_relocate: bool,
    allow_unrelocated: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Unpack an archive, relocated to where it goes, in one pass; - is standard input.

    DIR, which -p names as well, appears complete or not at all. It must not exist, or be empty. Every format that
    pack writes is read: tars, zip, squashfs, parcels, installers, directories.
    """
    from pathlib import Path

    from pack import unpack as unpacking

    if no_relocate and (allow_unrelocated or strict):
        raise UsageError("--no-relocate contradicts --allow-unrelocated and --strict", "Give one of them.")
    if directory is not None and target is not None:
        raise UsageError("the directory is given twice", "Give it behind the archive, or with -p.")
    source = None if archive == "-" else Path(archive)
    if only_check:
        if directory is not None or target is not None or register or no_relocate or allow_unrelocated or strict:
            raise UsageError("--check writes nothing", "Give it alone, or without it what is to be written.")
        _check(source, None if base is None else Path(base), quiet, as_json)
        return
    demanded = demand(allow_unrelocated, strict)
    given = target if directory is None else directory
    if given is not None:
        to = Path(given)
    elif source is not None:
        to = unpacking.default_target(source)
    else:
        raise UsageError("standard input has no name for the directory", "Name one behind the -.")
    old = None if base is None else Path(base)
    with Bar(quiet or as_json) as bar:
        path, done = unpacking.unpack(unpacking.Options(source, to, not no_relocate, demanded, old, register), bar)
    if as_json:
        counts = {"members": done.members, "written": done.written, "right": done.right}
        say({"prefix": shown(os.fsencode(path)), **counts, "findings": findings_json(done.findings)})
    elif not quiet:
        files = f"{done.written} files rewritten, {done.right} right already"
        say(f"{shown(os.fsencode(path))}: {done.members:,} members; {'as archived' if no_relocate else files}")
        print_findings(done.findings)


def _check(source: Path | None, base: Path | None, quiet: bool, as_json: bool) -> None:
    from pack import unpack as unpacking

    with Bar(quiet or as_json) as bar:
        count = unpacking.check(source, bar, base)
    if as_json:
        say({"archive": None if source is None else shown(os.fsencode(source)), "members": count})
    elif not quiet:
        say(f"{source or 'standard input'}: all of its {count:,} members are as its manifest says")


@pack.command("relocate")
@click.argument("tree", metavar="PREFIX")
@click.option("--allow-unrelocated", is_flag=True, help="Permit C strings without room to keep the old path.")
@click.option("--strict", is_flag=True, help="Refuse a directory where not every reference is written without loss.")
@click.option("--no-rescan", is_flag=True, help="Do not search files added after unpacking for old paths.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _relocate(tree: str, allow_unrelocated: bool, strict: bool, no_rescan: bool, as_json: bool) -> None:
    """Rewrite an unpacked environment for the place where it stands."""
    from installer_stub import relocate

    demanded = demand(allow_unrelocated, strict)
    opened = relocate.open_tree(os.fsencode(tree))
    relocate.require_complete(opened)
    outcome = relocate.relocate(opened, demanded, rescan=not no_rescan)
    if as_json:
        facts = {"prefix": shown(outcome.target), "written": outcome.written, "right": outcome.right}
        say({**facts, "findings": findings_json(outcome.findings)})
        return
    say(f"{shown(outcome.target)}: {outcome.written} files rewritten, {outcome.right} right already")
    print_findings(outcome.findings)


@pack.command("status")
@click.argument("tree", metavar="PREFIX")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _status(tree: str, as_json: bool) -> None:
    """Say where an unpacked environment thinks it is, and whether that is stale."""
    from installer_stub import relocate

    opened = relocate.open_tree(os.fsencode(tree))
    relocate.require_complete(opened)
    stands = [stand.form.prefix for stand in opened.state.stands]
    current = relocate.is_current(opened)
    if as_json:
        names = [None if prefix is None else shown(prefix) for prefix in stands]
        facts = {"root": shown(opened.root), "current": current, "complete": opened.state.complete}
        say({**facts, "prefixes": names, "host": shown(opened.state.host)})
        return
    named = [shown(prefix) if prefix is not None else "as archived" for prefix in stands]
    say(f"stands at     {shown(opened.root)}")
    if not opened.state.complete:
        say(f"interrupted   files may be in any of these forms: {', '.join(named)}")
    else:
        say(f"relocated to  {named[0] if stands[0] is not None else 'nothing yet: it is as archived'}")
    stale = sum(file.is_rewritten for file in opened.manifest.files)
    say("up to date" if current else f"stale         {stale} files; bin/conda-unpack mends them")


@pack.command("verify")
@click.argument("tree", metavar="PREFIX")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _verify(tree: str, as_json: bool) -> None:
    """Compare an unpacked environment with its manifest; look for paths left over from other places."""
    from installer_stub import relocate, verify
    from installer_stub.model import counts

    opened = relocate.open_tree(os.fsencode(tree))
    findings = verify.verify(opened)
    damage = [finding for finding in findings if finding.what not in verify.NO_DAMAGE]
    if as_json:
        say({"root": shown(opened.root), "damaged": bool(damage), "findings": findings_json(findings)})
    else:
        print_findings(findings)
    if damage:
        counted = ", ".join(f"{count} {what}" for what, count in counts(damage).items())
        raise VerifyFailed(
            f"{shown(opened.root)} is not as its manifest says: {counted}.",
            "Unpack the archive again, or run bin/conda-unpack if paths are left over.",
        )
    if not as_json:
        say(f"{shown(opened.root)}: {len(opened.manifest.files)} files with references, and all others, are right")
