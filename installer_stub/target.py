"""Which directories can be a prefix, and how a refusal reads."""

from __future__ import annotations

import os
from enum import Enum
from typing import Iterable, Iterator, List, NamedTuple, Set

from installer_stub import quoting, rewrite
from installer_stub.errors import NoRoom, TargetRefused
from installer_stub.fit import fit, longest_target, misfits
from installer_stub.model import Field, Finding, Fit, Force, Manifest, Reference
from installer_stub.rewrite import Form, Misfit

# Characters that mean something inside quotes, in one shell or another: "$(cmd)" in a script runs.
_QUOTING = b"\"'$\\`"

QUOTING = "needs quotes"

_PATH_MAX = 4095  # Linux's, without the NUL at the end


def check(prefix: bytes, has_text: bool) -> None:
    """Raise TargetRefused if no environment, or none with references in text, can work at ``prefix``.

    ``:`` ends a directory in PATH and in every search path; control characters end lines.
    """
    where = repr(os.fsdecode(prefix))
    if not prefix.startswith(b"/") or prefix == b"/":
        raise TargetRefused(f"{where} cannot be a prefix: it must be an absolute path below the root.")
    for byte in prefix:
        if byte < 0x20 or byte == 0x7F:
            raise TargetRefused(
                f"{where} cannot be a prefix: it holds the control character {byte:#04x}.",
                "Choose a directory without control characters and newlines in its path.",
            )
    if b":" in prefix:
        raise TargetRefused(
            f"{where} cannot be a prefix: a colon separates directories in PATH.",
            "Choose a directory without a colon in its path.",
        )
    quoting = sorted({chr(byte) for byte in prefix if byte in _QUOTING})
    if has_text and quoting:
        raise TargetRefused(
            f"{where} cannot be the prefix of this environment: it holds {' '.join(quoting)}, and the path is "
            "written into scripts, where that would be run or would end a string.",
            "Choose a directory without quotes, dollar signs, backslashes and backticks in its path.",
        )


def _check_lengths(manifest: Manifest, prefix: bytes) -> None:
    """Raise TargetRefused where a file to rewrite could not be opened: tar, which names no whole paths, made it."""
    longest = max((name for file in manifest.files for name in (file.path, *file.names)), key=len, default=b"")
    if len(prefix) + 1 + len(longest) > _PATH_MAX:
        raise TargetRefused(
            f"{os.fsdecode(prefix)!r} cannot be the prefix of this environment: with its {len(prefix)} bytes the path "
            f"of a file has more than the system's {_PATH_MAX}: {longest.decode('utf-8', 'backslashreplace')}",
            f"Choose a directory of at most {_PATH_MAX - 1 - len(longest)} bytes. Nothing was changed.",
        )


class Demand(Enum):
    """What relocation insists on."""

    ALLOW_UNRELOCATED = "other C strings may keep the old path"
    IN_FORCE = "every reference in force is written"
    STRICT = "every reference is written without loss"


def check_room(manifest: Manifest, prefix: bytes, demand: Demand = Demand.IN_FORCE, relative: bool = False) -> None:
    """Raise TargetRefused or NoRoom unless every reference in force can be written for ``prefix``.

    In force are shebangs, run paths, interpreters, text, and C strings in files whose package recorded a
    placeholder; other C strings, too, unless the demand allows for them. A strict demand also refuses what
    only C readers can read. All refusals are listed at once. A ``relative`` prefix begins with "./".
    """
    check(
        prefix[1:] if relative else prefix,
        any(r.field is Field.TEXT for file in manifest.files for r in file.references),
    )
    _check_lengths(manifest, prefix)
    forces: Set[Force] = {Force.ALWAYS}
    if demand is not Demand.ALLOW_UNRELOCATED:
        forces.add(Force.UNLESS_ALLOWED)
    lines: List[str] = []
    rooms: List[int] = []
    optional = False
    for file in manifest.files:
        for reference, misfit in misfits(file, Form(prefix)):
            if reference.force not in forces:
                continue
            optional = optional or reference.force is Force.UNLESS_ALLOWED
            lines.append(refusal(file.path, reference, misfit, prefix))
            rooms += [misfit.room] if misfit.room else []
    if demand is Demand.STRICT:
        lossy = [each for each in fits(manifest, prefix) if each.fit is Fit.C_READERS]
        lines += [_loss(each) for each in lossy if each.reference.force in forces]
    if not lines:
        return
    tips = [f"Choose a directory of at most {min(rooms)} bytes" if rooms else "Choose another directory"]
    if optional:
        tips.append("or permit C strings that keep the old path with --allow-unrelocated")
    if demand is Demand.STRICT:
        tips.append("or do without --strict")
    count = "1 reference does not fit" if len(lines) == 1 else f"{len(lines)} references do not fit"
    raise NoRoom(
        f"{os.fsdecode(prefix)} cannot be the prefix of this environment: {count} there.",
        lines,
        ", ".join(tips) + ". Nothing was changed.",
    )


class Fitted(NamedTuple):
    """What becomes of one string at a target; ``reference`` is its first. ``need`` and ``room`` are bytes, or 0."""

    path: bytes
    reference: Reference
    fit: Fit
    reason: str
    need: int = 0
    room: int = 0


def fits(manifest: Manifest, prefix: bytes) -> Iterator[Fitted]:
    """Tell for every reference to a prefix what becomes of it at the target ``prefix``."""
    form = Form(prefix)
    for file in manifest.files:
        unfit = dict(misfits(file, form))
        for region in rewrite.regions(file.references):
            first = region.references[0]
            if not first.prefix:
                continue
            error = unfit.get(first, Misfit(""))
            yield Fitted(file.path, first, fit(region, form), str(error), error.need, error.room)


def needing_quotes(manifest: Manifest, prefix: bytes) -> List[Finding]:
    """Find the words without quotes that a target with such characters as a space would split, for each file."""
    found: List[Finding] = []
    for file in manifest.files if quoting.is_special(prefix) else ():
        bare = [reference for reference in file.references if reference.bare]
        if bare:
            words = "1 word" if len(bare) == 1 else f"{len(bare)} words, this one first,"
            found.append(Finding(file.path, bare[0].offset, QUOTING, f"{words} without quotes"))
    return found


def _loss(fitted: Fitted) -> str:
    where = f"{_shown(fitted.path)}: the {fitted.reference.field.value} at byte {fitted.reference.offset}"
    return f"{where} would be right only for readers that stop at its first NUL."


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def refusal(path: bytes, reference: Reference, misfit: Misfit, prefix: bytes) -> str:
    """Say in one line why a reference refuses a prefix."""
    where = f"{_shown(path)}: the {reference.field.value} at byte {reference.offset}"
    if misfit.room:
        return f"{where} has room for {misfit.room} bytes, {os.fsdecode(prefix)!r} needs {misfit.need}."
    return f"{where} cannot be written: {misfit}."


def longest(manifest: Manifest, forces: Iterable[Force]) -> tuple[int, list[bytes]] | None:
    """Find the longest target in bytes for which all references of those forces have room.

    Returns it with the paths of the files that set it, or None where nothing limits it.
    """
    wanted = tuple(forces)
    limits = {
        file.path: limit
        for file in manifest.files
        for limit in [longest_target(file.references, wanted)]
        if limit is not None
    }
    if not limits:
        return None
    least = min(limits.values())
    return least, [path for path, limit in limits.items() if limit == least]
