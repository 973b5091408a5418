"""The command line of the relocator that travels inside an archive. ``bin/conda-unpack`` starts it.

``python .pack/relocator unpack ROOT [options]``. The script of an installer starts it with another command, which
``console`` runs. These two are the modules here that print and exit.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import List, Optional

from installer_stub import relocate
from installer_stub.errors import PackError, Stale, TreeReadOnly
from installer_stub.model import counts
from installer_stub.relocate import Tree
from installer_stub.target import Demand

_UNPACK = "unpack"


def main(version: str, argv: Optional[List[str]] = None) -> None:
    """Run the relocator; exit with 0, or with the code of the error."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] != _UNPACK and not argv[0].startswith("-"):
        from installer_stub import console  # with what it needs half of all modules, which nobody has compiled yet

        if argv[0] in console.COMMANDS:
            console.main(argv)
    options = _parser(version).parse_args(argv)
    try:
        if options.activation:
            activate(options.root)
        else:
            unpack(options)
    except PackError as error:
        _complain(f"conda-unpack: {error}")
        if error.tip:
            _complain(f"TIP: {error.tip}")
        sys.exit(error.code)
    except OSError as error:
        _complain(f"conda-unpack: {os.fsdecode(options.root)}: {error}")
        _complain("TIP: run it again when that is mended; it goes on where it stopped.")
        sys.exit(1)
    except KeyboardInterrupt:
        _complain(f"conda-unpack: {os.fsdecode(options.root)}: interrupted; run it again, and it goes on.")
        sys.exit(130)


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="conda-unpack",
        description="Rewrite the paths in this environment for the place where it stands.",
    )
    parser.add_argument("command", choices=[_UNPACK], help=argparse.SUPPRESS)
    parser.add_argument("root", type=os.fsencode, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what was done")
    demand = parser.add_mutually_exclusive_group()
    demand.add_argument(
        "--allow-unrelocated",
        action="store_const",
        const=Demand.ALLOW_UNRELOCATED,
        default=Demand.IN_FORCE,
        dest="demand",
        help="permit C strings without room to keep the old path",
    )
    demand.add_argument(
        "--strict",
        action="store_const",
        const=Demand.STRICT,
        dest="demand",
        help="refuse a directory at which not every reference is written without loss",
    )
    parser.add_argument(
        "--no-rescan", action="store_true", help="do not search files added after unpacking for old paths"
    )
    parser.add_argument("--activation", action="store_true", help=argparse.SUPPRESS)
    return parser


def activate(root: bytes) -> None:
    """Relocate the tree if an activation may do so by itself; raise Stale where it may not."""
    tree = relocate.open_tree(root)
    if relocate.is_current(tree):
        if tree.state.prefix == tree.root:
            _refresh(tree)
        return
    if not relocate.may_by_itself(tree):
        raise Stale(
            f"{os.fsdecode(tree.root)}: it is relocated to {os.fsdecode(tree.state.newest.form.prefix or b'')}, "
            f"so paths in it are stale; {os.fsdecode(tree.root)}/bin/conda-unpack mends that."
        )
    try:
        relocate.relocate(tree)
    except TreeReadOnly as error:
        here = os.fsdecode(tree.root)
        raise TreeReadOnly(
            f"{here}: it cannot be written, so paths in it are stale; {here}/bin/conda-unpack mends that for its owner."
        ) from error


def _refresh(tree: Tree) -> None:
    """Write the activation scripts again: an interruption may have come between the state and them."""
    try:
        relocate.refresh(tree)
    except (OSError, TreeReadOnly):
        return  # they work as they are, at the cost of asking here each time


def unpack(options: argparse.Namespace) -> None:
    """Relocate the tree, as told."""
    tree = relocate.open_tree(options.root)
    outcome = relocate.relocate(tree, options.demand, not options.no_rescan)
    if options.verbose:
        print(f"{os.fsdecode(outcome.target)}: {outcome.written} files rewritten, {outcome.right} right already")
    for what, count in counts(outcome.findings).items():
        _complain(f"conda-unpack: {count} files: {what}")
        if options.verbose:
            for finding in outcome.findings:
                if finding.what == what:
                    at = f" at byte {finding.offset}" if finding.offset >= 0 else ""
                    _complain(f"  {os.fsdecode(finding.path)}{at} {finding.detail}")


def _complain(line: str) -> None:
    print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
