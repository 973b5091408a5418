"""The options that several commands have, and what is made of their values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from installer_stub.errors import UsageError

if TYPE_CHECKING:
    from installer_stub.target import Demand
    from pack.environment import Environment
    from pack.selection import Rule

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class SelectionOption(click.Option):
    """An option that says what is packed."""


class ParcelOption(click.Option):
    """An option that only a parcel has."""


class InstallerOption(click.Option):
    """An option that only an installer has."""


# Those of pack.slim and pack.editables, which are imported only by what needs them.
SLIM = ("docs", "tests", "static", "headers", "locales", "pyc")
EDITABLES = ("error", "skip", "vendor")

_SECTIONS: dict[type[click.Option], str] = {
    click.Option: "Options",
    SelectionOption: "What is packed",
    ParcelOption: "Parcels",
    InstallerOption: "Installers",
}
_ORDER = "pack.order"


class Ordered(click.Command):
    """A command that keeps the order in which its options were given: of --exclude and --include it decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments twice, once for the order alone."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [each.name for each in order]
        return super().parse_args(ctx, args)


class Group(Ordered, click.Group):
    """A group whose own options come first in its help: packing is the command without a name."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for kind, title in _SECTIONS.items():
            options = [each for each in self.get_params(ctx) if type(each) is kind]
            records = [record for record in (each.get_help_record(ctx) for each in options) if record is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        self.format_commands(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("pack", "[-n NAME | -p PREFIX] [-o OUTPUT] [OPTIONS]")
        formatter.write_usage("pack", "COMMAND [ARGS]...")


def environment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-p", "--prefix", metavar="PATH", help="The directory of the environment."),
        click.option(
            "-n",
            "--name",
            metavar="NAME",
            shell_complete=_environments,
            help="The name of the environment (default: the active one).",
        ),
    ):
        command = option(command)
    return command


def rules(context: click.Context) -> tuple[Rule, ...]:
    """Make the rules of --exclude and --include, in the order in which they were typed. Raises UsageError."""
    from pack.selection import rule

    return tuple(rule(kind, pattern) for kind, pattern in in_order(context, "exclude", "include"))


def profiles(text: str | None) -> tuple[str, ...]:
    """Read the value of --slim. Raises UsageError."""
    from pack import slim

    return slim.profiles(text) if text is not None else ()


def _open_log(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if path is None or context.resilient_parsing:
        return
    from pack.log import Log

    from .terminal import log_to

    log_to(Log(path, sys.argv, version()))


def add_log(command: click.Command) -> None:
    """Give a command, and all below it, the option --log."""
    option = click.Option(
        ["--log"],
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_open_log,
        help="Add what was asked for, what is said, and how it ends to a file.",
    )
    command.params.append(option)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            add_log(each)


def _environments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from pathlib import Path

    from pack.environment import list_environments

    return [name for name, _ in list_environments(os.environ, Path.cwd()) if name.startswith(incomplete)]


def in_order(context: click.Context, *names: str) -> list[tuple[str, str]]:
    """Return the values of options that can be given more than once, with the options' names, as they were typed."""
    values = {name: iter(context.params[name]) for name in names}
    return [(name, next(values[name])) for name in context.meta[_ORDER] if name in values]


def which_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--exclude",
            multiple=True,
            cls=SelectionOption,
            metavar="PATTERN",
            help="Leave out what matches, such as '*.pyx' or share/doc; see docs/selection.md.",
        ),
        click.option(
            "--include",
            multiple=True,
            cls=SelectionOption,
            metavar="PATTERN",
            help="Take what an --exclude before it left out. Both may be repeated; their order counts.",
        ),
        click.option(
            "--slim",
            cls=SelectionOption,
            metavar="PROFILE,...",
            help=f"Leave out what running needs not: {', '.join(SLIM)}, or all; prints what each saves.",
        ),
    )[::-1]:
        command = option(command)
    return command


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        which_options,
        click.option(
            "--editables",
            type=click.Choice(EDITABLES),
            cls=SelectionOption,
            help="What to do about packages whose source lies elsewhere: refuse, the default, pack without it, or"
            " with a copy of it; see docs/editables.md.",
        ),
        click.option(
            "--with-python",
            is_flag=True,
            cls=SelectionOption,
            help="Pack the Python that a virtual environment was made with, too; see docs/base-python.md.",
        ),
        click.option(
            "--ignore-editable-packages", is_flag=True, cls=SelectionOption, help="The same as --editables skip."
        ),
        click.option(
            "--ignore-missing-files",
            is_flag=True,
            cls=SelectionOption,
            help="Accepted, and changes nothing: files of packages that are missing are reported.",
        ),
        click.option(
            "--strict",
            is_flag=True,
            cls=SelectionOption,
            help="Fail where files of packages were modified, overwritten by others, or are missing.",
        ),
        unreadable_option(SelectionOption),
    )[::-1]:
        command = option(command)
    return command


def parcel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, metavar, text in (
        ("root", "DIR", "Where parcels lie on the cluster (default: /opt/cloudera/parcels)."),
        ("name", "NAME", "Its name, without dashes (default: the environment's name)."),
        ("version", "VERSION", "Its version (default: the date, as YYYY.MM.DD)."),
        ("distro", "DISTRO", "The distribution that it is for, without dashes (default: el7)."),
    )[::-1]:
        command = click.option(f"--parcel-{name}", cls=ParcelOption, metavar=metavar, help=text)(command)
    return command


_INSTALLER = (
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
)
INSTALLER_NAMES = tuple(name.replace("-", "_") for name, _, _ in _INSTALLER)


def installer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, metavar, text in _INSTALLER[::-1]:
        kind = click.Choice(metavar.split("|")) if "|" in metavar else click.STRING
        command = click.option(f"--{name}", cls=InstallerOption, type=kind, metavar=metavar, help=text)(command)
    return command


jobs_option = click.option(
    "-j",
    "--n-threads",
    "threads",
    type=int,
    metavar="N",
    help="Cores to use; -1 stands for all, the default.",
)


def cache_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--cache",
            "cache_directory",
            metavar="DIR",
            help="Where to keep what makes packing again fast (default: relopack/packing in the user's cache);"
            " see docs/cache.md.",
        ),
        click.option("--no-cache", is_flag=True, help="Keep nothing, and take nothing that was kept."),
        click.option(
            "--no-trust-mtime",
            is_flag=True,
            help="Read every file, also those whose size, times and inode are as they were the last time.",
        ),
    )[::-1]:
        command = option(command)
    return command


def unreadable_option(kind: type[click.Option] = click.Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--ignore-unreadable",
        is_flag=True,
        cls=kind,
        help="Leave out files that cannot be read instead of stopping.",
    )


grow_option = click.option(
    "--grow-run-paths",
    "grow",
    is_flag=True,
    help="Rebuild programs and libraries whose run paths have no room to be made relative; see docs/run-paths.md.",
)


def demand(allow_unrelocated: bool, strict: bool) -> Demand:
    from installer_stub.target import Demand

    if allow_unrelocated and strict:
        raise UsageError("--allow-unrelocated and --strict contradict each other", "Give one of them.")
    return Demand.STRICT if strict else Demand.ALLOW_UNRELOCATED if allow_unrelocated else Demand.IN_FORCE


def environment_of(name: str | None, prefix: str | None) -> Environment:
    from pack.environment import find

    return find(name, prefix)


def cores(given: int | None) -> int:
    if given is None or given == -1:
        return 0
    if given < 1:
        raise UsageError(f"--n-threads {given}: there is no such number of cores", "Give 1 or more, or -1 for all.")
    return given


def version() -> str:
    from importlib import metadata

    return metadata.version("relopack")
