"""The errors of both programs: one root, one stable exit code for each class.

The codes are part of the interface: they are documented in ``docs/exit-codes.md`` and never reused.
"""

from __future__ import annotations

from typing import ClassVar, Sequence


class PackError(Exception):
    """What went wrong, where, why and what to do about it.

    ``str(error)`` is one or more lines for a person. ``tip`` is what to try, or empty.
    """

    code: ClassVar[int] = 1

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(message)
        self.tip = tip


class UsageError(PackError):
    """The command was called with arguments that make no sense together."""

    code = 2


class EnvironmentNotFound(PackError):
    """No environment, or more than one, answers to the name or path."""

    code = 3


class EnvironmentUnfit(PackError):
    """The environment cannot be packed as it stands: unreadable, damaged or changing."""

    code = 4


class OutputError(PackError):
    """The output cannot be written: it exists, its directory is missing, the disk is full."""

    code = 5


class ManifestError(PackError):
    """The tree holds no manifest of ours, or one that is damaged or of an unknown format."""

    code = 6


class TargetRefused(PackError):
    """The target cannot be used at all: a character in it, or what stands there."""

    code = 7


class NoRoom(PackError):
    """Edits in force cannot be done for this target. ``refusals`` holds one line for each."""

    code = 8

    def __init__(self, message: str, refusals: Sequence[str], tip: str = "") -> None:
        super().__init__("\n".join([message, *refusals]), tip)
        self.refusals = tuple(refusals)


class TreeReadOnly(PackError):
    """The tree must be relocated and cannot be written."""

    code = 9


class NoRelocator(PackError):
    """Nothing in the tree can run the relocator."""

    code = 10


class VerifyFailed(PackError):
    """The tree differs from its manifest, or still names a prefix where it no longer stands."""

    code = 11


class Stale(PackError):
    """The tree is not relocated to where it stands, and was required to be."""

    code = 12


class MachineUnfit(PackError):
    """The machine is of another platform, or its glibc is older than what is packed needs."""

    code = 13


class LicenceNotAccepted(PackError):
    """The licence of what is to be installed was not accepted."""

    code = 14


class HookFailed(PackError):
    """A hook of the installer failed; what had been done was taken back."""

    code = 15
