"""The command line: the only module that prints, exits or draws a progress bar."""

from __future__ import annotations

import codecs
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from installer_stub.errors import PackError, UsageError, VerifyFailed

if TYPE_CHECKING:
    from tqdm import tqdm

    from installer_stub.model import Finding
    from installer_stub.target import Demand
    from pack.archive import Format
    from pack.environment import Environment
    from pack.installer import Installer
    from pack.stub.store import Stub

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FORMATS = (
    "tar, tar.gz (tgz), tar.bz2 (tbz2), tar.xz (txz), tar.zst (tzst), sh (an installer), no-archive (a directory)"
)


class _InstallerOption(click.Option):
    """An option that only an installer has."""


class _Group(click.Group):
    """A group whose own options come first in its help: packing is the command without a name."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, kind in (("Options", False), ("Installers", True)):
            options = [each for each in self.get_params(ctx) if isinstance(each, _InstallerOption) is kind]
            records = [record for record in (each.get_help_record(ctx) for each in options) if record is not None]
            with formatter.section(title):
                formatter.write_dl(records)
        self.format_commands(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("pack", "[-n NAME | -p PREFIX] [-o OUTPUT] [OPTIONS]")
        formatter.write_usage("pack", "COMMAND [ARGS]...")


def _environment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-p", "--prefix", metavar="PATH", help="The directory of the environment."),
        click.option("-n", "--name", metavar="NAME", help="The name of the environment (default: the active one)."),
    ):
        command = option(command)
    return command


def _installer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, metavar, text in (
        ("installer-name", "NAME", "What it calls itself (default: the environment's name)."),
        ("installer-version", "VERSION", "The version that it says of itself."),
        ("license-file", "FILE", "A licence that has to be accepted."),
        ("welcome", "FILE", "A text that is shown before anything is asked."),
        ("conclusion", "FILE", "A text that is shown at the end."),
        ("pre-install", "FILE", "A script to run before the environment gets its place."),
        ("post-install", "FILE", "A script to run when the environment stands."),
        ("pre-uninstall", "FILE", "A script to run before it is removed."),
        ("default-prefix", "DIR", "Where to, unless told otherwise: absolute, or ~/ and a path (default: ~/NAME)."),
        ("payload", "zst|gz", "How the environment is compressed (default: zst; with --no-stub gz)."),
        ("sign-with", "KEY", "A key of OpenSSH; the signature lies beside the output, as OUTPUT.sig."),
    )[::-1]:
        kind = click.Choice(metavar.split("|")) if "|" in metavar else click.STRING
        command = click.option(f"--{name}", cls=_InstallerOption, type=kind, metavar=metavar, help=text)(command)
    return command


_jobs_option = click.option(
    "-j",
    "--n-threads",
    "threads",
    type=int,
    metavar="N",
    help="Cores to use; -1 stands for all, the default.",
)
_unreadable_option = click.option(
    "--ignore-unreadable", is_flag=True, help="Leave out files that cannot be read instead of stopping."
)
_grow_option = click.option(
    "--grow-run-paths",
    "grow",
    is_flag=True,
    help="Rebuild programs and libraries whose run paths have no room to be made relative; see docs/run-paths.md.",
)


@click.group(cls=_Group, invoke_without_command=True, context_settings=_CONTEXT)
@_environment_options
@click.option("-o", "--output", metavar="PATH", help="Where to write; - is standard output (default: <name>.tar.gz).")
@click.option(
    "--format",
    "format_name",
    default="infer",
    metavar="FORMAT",
    help=f"{_FORMATS}, or infer it from the output's suffix, the default.",
)
@click.option("--compress-level", "level", type=int, metavar="N", help="How hard to compress; see docs/compression.md.")
@_jobs_option
@click.option("-f", "--force", is_flag=True, help="Replace an existing output; make its directory.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_unreadable_option
@click.option(
    "--keep-setuid",
    is_flag=True,
    help="Keep setuid and setgid bits and file capabilities, and their owners; see docs/entries.md.",
)
@_grow_option
@click.option(
    "--no-stub",
    is_flag=True,
    help="Carry no frozen relocator: archives have one where there is no Python, installers always; see docs/stub.md.",
)
@_installer_options
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

    environment = _environment(name, prefix)
    format = _format(format_name, output)
    if output == "-":
        path = None
    else:
        path = Path(output.rstrip("/") or "/") if output else Path(f"{environment.name}.{format.value}")
    installer = _installer(environment, format, path, installer_options, no_stub)
    scanning = ScanOptions(ignore_unreadable=ignore_unreadable, keep_setuid=keep_setuid, grow_run_paths=grow)
    options = Options(path, format, force, level, _threads(threads), scanning, not no_stub, installer)
    with _Bar(quiet) as bar:
        found = write(environment, options, _version(), bar, bar.say)
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


@pack.command("scan")
@_environment_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--limits", "only_limits", is_flag=True, help="Print only how long a target may be, and why.")
@click.option("--target", "at", metavar="DIR", help="Print what would become of every reference at DIR.")
@click.option("--strict", is_flag=True, help="With --target: fail unless all is rewritten there without loss.")
@_jobs_option
@_unreadable_option
@_grow_option
def _scan(
    name: str | None,
    prefix: str | None,
    as_json: bool,
    only_limits: bool,
    at: str | None,
    strict: bool,
    threads: int | None,
    ignore_unreadable: bool,
    grow: bool,
) -> None:
    """Report every reference to the prefix, and what cannot be rewritten."""
    from pack import fitting, report
    from pack.scan import Options, scan

    if strict and at is None:
        raise UsageError("--strict says nothing without a target", "Name one with --target DIR.")
    if only_limits and at is not None:
        raise UsageError("--limits and --target are two different reports", "Ask for one of them.")
    environment = _environment(name, prefix)
    with _Bar(quiet=as_json) as bar:
        bar.start("scanning", None)
        options = Options(_threads(threads), ignore_unreadable, grow_run_paths=grow)
        found = scan(environment, options, progress=bar.advance)
    if at is not None:
        fitted = fitting.at(found, os.fsencode(os.path.abspath(at)))
        _print(fitting.as_json(fitted) if as_json else fitting.as_text(fitted))
        if strict:
            fitting.require_lossless(fitted)
    elif only_limits:
        _print(report.limits(found) if as_json else "\n".join(report.limits_text(found)))
    else:
        _print(report.as_json(found) if as_json else report.as_text(found))


@pack.command("unpack")
@click.argument("archive", metavar="ARCHIVE")
@click.option("-p", "--prefix", "target", metavar="DIR", help="Where to (default: the archive's name, here).")
@click.option("--no-relocate", is_flag=True, help="Leave the files as archived; the first activation relocates them.")
@click.option("--allow-unrelocated", is_flag=True, help="Permit C strings without room to keep the old path.")
@click.option("--strict", is_flag=True, help="Refuse a directory where not every reference is written without loss.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _unpack(
    archive: str,
    target: str | None,
    no_relocate: bool,
    allow_unrelocated: bool,
    strict: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Unpack an archive, relocated to where it goes, in one pass; - is standard input.

    The directory appears complete or not at all. It must not exist, or be empty.
    """
    from pack import unpack as unpacking

    if no_relocate and (allow_unrelocated or strict):
        raise UsageError("--no-relocate contradicts --allow-unrelocated and --strict", "Give one of them.")
    demand = _demand(allow_unrelocated, strict)
    source = None if archive == "-" else Path(archive)
    if target is not None:
        to = Path(target)
    elif source is not None:
        to = unpacking.default_target(source)
    else:
        raise UsageError("standard input has no name for the directory", "Name one with -p DIR.")
    with _Bar(quiet or as_json) as bar:
        path, done = unpacking.unpack(unpacking.Options(source, to, not no_relocate, demand), bar)
    if as_json:
        counts = {"members": done.members, "written": done.written, "right": done.right}
        _print({"prefix": _shown(os.fsencode(path)), **counts, "findings": _findings(done.findings)})
    elif not quiet:
        files = f"{done.written} files rewritten, {done.right} right already"
        _print(f"{_shown(os.fsencode(path))}: {done.members:,} members; {'as archived' if no_relocate else files}")
        _print_findings(done.findings)


def _demand(allow_unrelocated: bool, strict: bool) -> Demand:
    from installer_stub.target import Demand

    if allow_unrelocated and strict:
        raise UsageError("--allow-unrelocated and --strict contradict each other", "Give one of them.")
    return Demand.STRICT if strict else Demand.ALLOW_UNRELOCATED if allow_unrelocated else Demand.IN_FORCE


@pack.command("relocate")
@click.argument("tree", metavar="PREFIX")
@click.option("--allow-unrelocated", is_flag=True, help="Permit C strings without room to keep the old path.")
@click.option("--strict", is_flag=True, help="Refuse a directory where not every reference is written without loss.")
@click.option("--no-rescan", is_flag=True, help="Do not search files added after unpacking for old paths.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _relocate(tree: str, allow_unrelocated: bool, strict: bool, no_rescan: bool, as_json: bool) -> None:
    """Rewrite an unpacked environment for the place where it stands."""
    from installer_stub import relocate

    demand = _demand(allow_unrelocated, strict)
    outcome = relocate.relocate(relocate.open_tree(os.fsencode(tree)), demand, rescan=not no_rescan)
    if as_json:
        facts = {"prefix": _shown(outcome.target), "written": outcome.written, "right": outcome.right}
        _print({**facts, "findings": _findings(outcome.findings)})
        return
    _print(f"{_shown(outcome.target)}: {outcome.written} files rewritten, {outcome.right} right already")
    _print_findings(outcome.findings)


@pack.command("status")
@click.argument("tree", metavar="PREFIX")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _status(tree: str, as_json: bool) -> None:
    """Say where an unpacked environment thinks it is, and whether that is stale."""
    from installer_stub import relocate

    opened = relocate.open_tree(os.fsencode(tree))
    stands = [stand.form.prefix for stand in opened.state.stands]
    current = relocate.is_current(opened)
    if as_json:
        names = [None if prefix is None else _shown(prefix) for prefix in stands]
        facts = {"root": _shown(opened.root), "current": current, "complete": opened.state.complete}
        _print({**facts, "prefixes": names, "host": _shown(opened.state.host)})
        return
    named = [_shown(prefix) if prefix is not None else "as archived" for prefix in stands]
    _print(f"stands at     {_shown(opened.root)}")
    if not opened.state.complete:
        _print(f"interrupted   files may be in any of these forms: {', '.join(named)}")
    else:
        _print(f"relocated to  {named[0] if stands[0] is not None else 'nothing yet: it is as archived'}")
    stale = sum(file.is_rewritten for file in opened.manifest.files)
    _print("up to date" if current else f"stale         {stale} files; bin/conda-unpack mends them")


@pack.command("verify")
@click.argument("tree", metavar="PREFIX")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _verify(tree: str, as_json: bool) -> None:
    """Compare an unpacked environment with its manifest; look for paths left over from other places."""
    from installer_stub import relocate, verify

    opened = relocate.open_tree(os.fsencode(tree))
    findings = verify.verify(opened)
    damage = [finding for finding in findings if finding.what not in verify.NO_DAMAGE]
    if as_json:
        _print({"root": _shown(opened.root), "damaged": bool(damage), "findings": _findings(findings)})
    else:
        _print_findings(findings)
    if damage:
        counted = ", ".join(f"{count} {what}" for what, count in verify.counts(damage).items())
        raise VerifyFailed(
            f"{_shown(opened.root)} is not as its manifest says: {counted}.",
            "Unpack the archive again, or run bin/conda-unpack if paths are left over.",
        )
    if not as_json:
        _print(f"{_shown(opened.root)}: {len(opened.manifest.files)} files with references, and all others, are right")


@pack.group("stub")
def _stub() -> None:
    """Build and find the frozen relocator, for environments without Python."""


_ARCHITECTURES = ("x86_64", "aarch64")  # those of pack.stub.toolchain, which only these commands import


@_stub.command("build")
@click.option("--arch", type=click.Choice(_ARCHITECTURES), help="What to build it for (default: this machine's).")
@click.option(
    "--sources",
    metavar="DIR",
    help="Where the source archives of CPython 3.11, zlib and libffi lie (default: relopack/sources in the cache).",
)
def _stub_build(arch: str | None, sources: str | None) -> None:
    """Build the frozen relocator of this version of pack, unless it is in the cache; print where it lies.

    It starts on every Linux with glibc 2.17 or newer. The compiler and PyInstaller come from the package index.
    """
    from pack.stub import freeze

    built = freeze.build(arch or platform.machine(), Path(sources) if sources else None, _step)
    _print(_stub_line(built))
    _print(_shown(os.fsencode(built.program)))


def _step(line: str) -> None:
    click.echo(line, err=True)


@_stub.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _stub_list(as_json: bool) -> None:
    """Print each frozen relocator in the cache: for what, its size, its glibc and its SHA-256."""
    from dataclasses import asdict

    from pack.stub import store

    kept = store.stubs()
    if as_json:
        _print([{**asdict(each.record), "current": each.is_current, "path": str(each.path)} for each in kept])
    elif not kept:
        _print("none; pack stub build makes one")
    else:
        for each in kept:
            _print(_stub_line(each))


@_stub.command("path")
@click.option("--arch", type=click.Choice(_ARCHITECTURES), help="Which (default: this machine's).")
def _stub_path(arch: str | None) -> None:
    """Print where the frozen relocator lies that archives are given."""
    from pack.stub import store

    wanted = arch or platform.machine()
    found = store.find(wanted)
    if found is None:
        raise store.StubUnavailable(
            f"{_shown(os.fsencode(store.cache()))} holds no frozen relocator of this version of pack for {wanted}.",
            "Build it: pack stub build",
        )
    _print(_shown(os.fsencode(found.program)))


def _stub_line(stub: Stub) -> str:
    record = stub.record
    other = "" if stub.is_current else ", of another version of pack"
    return (
        f"{record.architecture:8} {record.size / 1e6:5.1f} MB  glibc {record.glibc} or newer  "
        f"sha256 {record.sha256}{other}"
    )


def _environment(name: str | None, prefix: str | None) -> Environment:
    from pack.environment import find

    return find(name, prefix)


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


def _threads(given: int | None) -> int:
    if given is None or given == -1:
        return 0
    if given < 1:
        raise UsageError(f"--n-threads {given}: there is no such number of cores", "Give 1 or more, or -1 for all.")
    return given


def _version() -> str:
    from importlib import metadata

    return metadata.version("relopack")


def _shown(path: bytes) -> str:
    from installer_stub.manifest import encode

    return encode(path)


def _findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    from installer_stub.manifest import described

    return [described(each) for each in findings]


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        at = f" at byte {finding.offset}" if finding.offset >= 0 else ""
        detail = f": {finding.detail}" if finding.detail else ""
        _print(f"{finding.what}: {_shown(finding.path)}{at}{detail}")


def _print(what: Any) -> None:
    # The terminal's encoding may hold less than a path does.
    encoding = codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name
    text = what if isinstance(what, str) else json.dumps(what, indent=2, ensure_ascii=encoding != "utf-8")
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


class _Bar:
    """A progress bar in bytes on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._silent = quiet
        self._quiet = quiet or not sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage of ``total`` bytes, or of an unknown number."""
        self._close()
        if not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=what,
                total=total,
                unit="B",
                unit_scale=True,
                unit_divisor=1000,
                leave=False,
                dynamic_ncols=True,
            )

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the stage."""
        if self._bar is not None:
            self._bar.update(count)

    def say(self, line: str) -> None:
        """Print a line about what takes long, without the bar of what is over."""
        self._close()
        if not self._silent:
            _step(line)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Signalled(BaseException):
    """A signal asked the program to end: unwind, so that nothing half done is left."""

    def __init__(self, number: int) -> None:
        self.number = number


def _on_signal(number: int, frame: object) -> NoReturn:
    raise _Signalled(number)


def main() -> NoReturn:
    """Run the program: errors become words and exit codes here, and nowhere else."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _on_signal)
    try:
        pack.main(prog_name="pack", standalone_mode=False)
        if sys.stdout is not None:  # as it is where the caller has closed it
            sys.stdout.flush()
        code = 0
    except PackError as error:
        _complain(error)
        code = error.code
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = UsageError.code
    except (KeyboardInterrupt, click.Abort):
        code = 128 + signal.SIGINT
    except _Signalled as signalled:
        code = 128 + signalled.number
    except BrokenPipeError:
        code = 1  # whoever read the output has gone
    except OSError as error:
        _complain(PackError(f"{error.filename or 'an operation'}: {error.strerror or error}"))
        code = PackError.code
    _settle()
    sys.exit(code)


def _settle() -> None:
    """Write what was printed, or give it up: Python would try again at exit, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: PackError) -> None:
    click.echo(f"pack: error: {error}", err=True)
    if error.tip:
        click.echo(f"TIP: {error.tip}", err=True)
