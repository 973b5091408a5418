"""The options that several commands have, and what is made of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from installer_stub.errors import UsageError

if TYPE_CHECKING:
    from installer_stub.target import Demand
    from pack.environment import Environment

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class InstallerOption(click.Option):
    """An option that only an installer has."""


class Group(click.Group):
    """A group whose own options come first in its help: packing is the command without a name."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, kind in (("Options", False), ("Installers", True)):
            options = [each for each in self.get_params(ctx) if isinstance(each, InstallerOption) is kind]
            records = [record for record in (each.get_help_record(ctx) for each in options) if record is not None]
            with formatter.section(title):
                formatter.write_dl(records)
        self.format_commands(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("pack", "[-n NAME | -p PREFIX] [-o OUTPUT] [OPTIONS]")
        formatter.write_usage("pack", "COMMAND [ARGS]...")


def environment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-p", "--prefix", metavar="PATH", help="The directory of the environment."),
        click.option("-n", "--name", metavar="NAME", help="The name of the environment (default: the active one)."),
    ):
        command = option(command)
    return command


def installer_options(command: Callable[..., Any]) -> Callable[..., Any]:
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
unreadable_option = click.option(
    "--ignore-unreadable", is_flag=True, help="Leave out files that cannot be read instead of stopping."
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
