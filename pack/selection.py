"""Which of the paths below a prefix are packed: the rules of ``--include`` and ``--exclude``, and what is slimmed.

See ``docs/selection.md``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from installer_stub import walk
from installer_stub.errors import UsageError
from installer_stub.model import Finding, Kind
from installer_stub.walk import Found

EXCLUDED = "excluded"
UNMATCHED = "matched nothing"


class Rule(NamedTuple):
    """Take away what matches a pattern, or, with ``keep``, take it back.

    The pattern is one of ``fnmatch``, in which ``*`` matches slashes too, for paths relative to the prefix. A
    directory that it matches stands for all that is in it.
    """

    pattern: str
    keep: bool = False


class Saved(NamedTuple):
    """What one reason left out of one package, or of what no package owns."""

    why: str
    package: str
    files: int
    size: int  # in bytes


class Selected(NamedTuple):
    """What stays, and what does not, with the reason for each path."""

    found: tuple[Found, ...]
    left_out: Mapping[bytes, str]
    saved: tuple[Saved, ...]
    notes: tuple[Finding, ...]


def rule(kind: str, pattern: str) -> Rule:
    """Make a rule of the kind "include" or "exclude". Raises UsageError for another, and for what can match nothing."""
    if kind not in ("include", "exclude"):
        raise UsageError(f"a filter of the unknown kind {kind!r}", "There are 'include' and 'exclude'.")
    if not pattern.strip("/") or pattern.startswith("/") or "\0" in pattern:
        raise UsageError(
            f"--{kind} {pattern!r}: matches no path: paths are relative to the prefix",
            "Give one such as '*.pyx', or the name of a directory such as share/doc.",
        )
    return Rule(pattern.rstrip("/"), kind == "include")


def select(
    prefix: bytes,
    found: Sequence[Found],
    rules: Sequence[Rule],
    slimmed: Callable[[bytes], str] | None = None,
    package: Callable[[bytes], str] = lambda path: "",
) -> Selected:
    """Apply rules to the paths of a walk, in their order, after ``slimmed``, which gives the reason to drop a path.

    ``package`` names the package of a path. A directory goes with the last path in it, one that was empty only if it
    matches itself. Where the first name of an inode goes, the next that stays becomes the file.
    """
    out: dict[bytes, str] = {}
    if slimmed is not None:
        out = {each.path: why for each in found if each.kind is not Kind.DIRECTORY and (why := slimmed(each.path))}
    notes = []
    for each in rules:
        matched = _matched(each.pattern, found)
        if not matched:
            option = "--include" if each.keep else "--exclude"
            notes.append(Finding(b"", -1, UNMATCHED, f"{option} {each.pattern}"))
        for path in matched:
            if each.keep:
                out.pop(path, None)
            else:
                out.setdefault(path, f"--exclude {each.pattern}")
    if out:
        out = _with_directories(found, out)
    if not out:
        return Selected(tuple(found), {}, (), tuple(notes))
    notes += [Finding(path, -1, EXCLUDED, why) for path, why in out.items()]
    sizes = {each.path: each.size for each in found if each.kind is not Kind.DIRECTORY}
    gone: dict[tuple[str, str], list[int]] = {}
    for path, why in out.items():
        if path in sizes:
            gone.setdefault((why, package(path)), []).append(sizes[path])
    saved = tuple(Saved(why, owner, len(each), sum(each)) for (why, owner), each in gone.items())
    return Selected(tuple(_relinked(prefix, found, out)), out, saved, tuple(notes))


def _matched(pattern: str, found: Sequence[Found]) -> list[bytes]:
    """List the paths that match, and those in directories that do; a walk gives a directory before what is in it."""
    compiled = re.compile(fnmatch.translate(pattern))
    directories: set[bytes] = set()
    matched = []
    for each in found:
        inside = each.path.rpartition(b"/")[0] in directories
        if inside or compiled.match(each.path.decode("utf-8", "surrogateescape")):
            matched.append(each.path)
            if each.kind is Kind.DIRECTORY:
                directories.add(each.path)
    return matched


def _with_directories(found: Sequence[Found], out: Mapping[bytes, str]) -> dict[bytes, str]:
    """Decide about directories by what is in them."""
    out = dict(out)
    needed: set[bytes] = set()
    emptied: dict[bytes, str] = {}
    for each in reversed(found):  # what is in a directory before the directory
        parent = each.path.rpartition(b"/")[0]
        directory = each.kind is Kind.DIRECTORY
        if directory and each.path in needed:
            out.pop(each.path, None)
        elif directory and each.path in emptied:
            out.setdefault(each.path, emptied[each.path])
        if each.path in out:
            emptied.setdefault(parent, out[each.path])
        else:
            needed.add(parent)
    return out


def _relinked(prefix: bytes, found: Sequence[Found], out: Collection[bytes]) -> list[Found]:
    heirs: dict[bytes, bytes] = {}  # a first name that is gone -> the one in its place
    kept = []
    for each in found:
        if each.path in out:
            continue
        if each.kind is Kind.HARD_LINK and each.target in out:
            heir = heirs.setdefault(each.target, each.path)
            each = walk.look(prefix, each.path) if heir == each.path else each._replace(target=heir)
        kept.append(each)
    return kept


def described(saved: Sequence[Saved]) -> list[str]:
    """Tell in a line for each reason what it left out, the largest first."""
    totals = {why: [each for each in saved if each.why == why] for why in dict.fromkeys(each.why for each in saved)}
    counted = [(sum(each.size for each in of), sum(each.files for each in of), why) for why, of in totals.items()]
    return [f"left out by {why}: {files:,} files, {size / 1e6:,.1f} MB" for size, files, why in sorted(counted)[::-1]]
