"""Which directories can be a prefix, and how a refusal reads."""

from __future__ import annotations

import os
from typing import Iterable, List, Set

from installer_stub import rewrite
from installer_stub.errors import NoRoom, TargetRefused
from installer_stub.model import Field, Force, Manifest, Reference
from installer_stub.rewrite import Form, Misfit

# Characters that mean something inside quotes, in one shell or another: "$(cmd)" in a script runs.
_QUOTING = b"\"'$\\`"


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


def check_room(manifest: Manifest, prefix: bytes, allow_unrelocated: bool = False) -> None:
    """Raise TargetRefused or NoRoom unless every reference in force can be written for ``prefix``.

    In force are shebangs, run paths, interpreters, text, and C strings in files whose package recorded a
    placeholder; other C strings, too, unless ``allow_unrelocated``. All refusals are listed at once.
    """
    check(prefix, any(r.field is Field.TEXT for file in manifest.files for r in file.references))
    forces: Set[Force] = {Force.ALWAYS}
    if not allow_unrelocated:
        forces.add(Force.UNLESS_ALLOWED)
    lines: List[str] = []
    rooms: List[int] = []
    optional = False
    for file in manifest.files:
        for reference, misfit in rewrite.misfits(file, Form(prefix)):
            if reference.force not in forces:
                continue
            optional = optional or reference.force is Force.UNLESS_ALLOWED
            lines.append(refusal(file.path, reference, misfit, prefix))
            rooms += [misfit.room] if misfit.room else []
    if not lines:
        return
    tips = [f"Choose a directory of at most {min(rooms)} bytes" if rooms else "Choose another directory"]
    if optional:
        tips.append("or permit C strings that keep the old path with --allow-unrelocated")
    count = "1 reference has" if len(lines) == 1 else f"{len(lines)} references have"
    raise NoRoom(
        f"{os.fsdecode(prefix)} cannot be the prefix of this environment: {count} no room for it.",
        lines,
        ", ".join(tips) + ". Nothing was changed.",
    )


def refusal(path: bytes, reference: Reference, misfit: Misfit, prefix: bytes) -> str:
    """Say in one line why a reference refuses a prefix."""
    where = f"{path.decode('utf-8', 'backslashreplace')}: the {reference.field.value} at byte {reference.offset}"
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
        for limit in [rewrite.longest_target(file.references, wanted)]
        if limit is not None
    }
    if not limits:
        return None
    least = min(limits.values())
    return least, [path for path, limit in limits.items() if limit == least]
