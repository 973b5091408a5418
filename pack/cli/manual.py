"""The manual page and the completion of shells, both made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from installer_stub.errors import PackError

from .options import version
from .packing import pack
from .terminal import say

_SHELLS = ("bash", "zsh", "fish")


@pack.command("man")
def _man() -> None:
    """Print the manual page: pack man >pack.1"""
    say("\n".join(page(pack)))


@pack.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def _completion(shell: str) -> None:
    """Print what completes commands, options and environments in a shell.

    For bash: eval "$(pack completion bash)" in ~/.bashrc.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    say(kind(pack, {}, "pack", "_PACK_COMPLETE").source())


def page(group: click.Group) -> Iterator[str]:
    """Yield the lines of a manual page in roff: the group's own options, each command, the exit codes."""
    context = click.Context(group, info_name="pack")
    yield f'.TH PACK 1 "" "pack {version()}" "pack"'
    yield from (".SH NAME", "pack \\- move software environments")
    yield from (".SH SYNOPSIS", ".B pack", "[\\-n NAME | \\-p PREFIX] [\\-o OUTPUT] [OPTIONS]", ".br")
    yield from (".B pack", "COMMAND [ARGUMENTS]")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(group.help or "")
    yield ".SH OPTIONS"
    yield from _options(context)
    yield ".SH COMMANDS"
    yield from _commands(context, group, "")
    yield ".SH EXIT STATUS"
    yield from (".TP", ".B 0", "All was done.")
    for kind in sorted(_errors(PackError), key=lambda each: each.code):
        yield from (".TP", f".B {kind.code}", _text((kind.__doc__ or "").partition("\n")[0]))
    yield from (".TP", ".B 128 + N", "A signal of that number ended it.")


def _commands(context: click.Context, group: click.Group, before: str) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        within = click.Context(command, parent=context, info_name=name)
        usage = " ".join(command.collect_usage_pieces(within))
        yield from (f".SS {_text(f'pack {before}{name} {usage}')}", *_paragraphs(command.help or ""))
        yield from _options(within)
        if isinstance(command, click.Group):
            yield from _commands(within, command, f"{before}{name} ")


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Write text so that roff takes none of it for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def _errors(root: type[PackError]) -> set[type[PackError]]:
    return {root}.union(*(_errors(each) for each in root.__subclasses__()))
