"""What an output holds and which outputs there are; each writer is a module beside this one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple, Protocol

from installer_stub.errors import EnvironmentUnfit, UsageError
from installer_stub.model import Kind

# The time of every file whose own means nothing: the client that installed it set it.
FIXED_MTIME = 946_684_800  # 2000-01-01T00:00:00Z

Progress = Callable[[int], None]
"""Called with the number of bytes of content that were just written."""


class Writable(Protocol):
    """Takes bytes, in order."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class Privileges(NamedTuple):
    """What a program runs with that is not its caller's: without its owner a setuid bit means another thing."""

    uid: int
    gid: int
    user: bytes  # the owner's name where it was read, or empty
    group: bytes
    capability: bytes = b""  # the extended attribute security.capability as it stands


class Member(NamedTuple):
    """One path of an output, and where its content comes from."""

    path: bytes  # relative to the root of the output, without a slash at either end
    kind: Kind
    mode: int  # permission bits
    mtime: int  # whole seconds
    size: int  # of the content in bytes; 0 for what has none
    target: bytes  # of a symlink; of a hard link, the path of an earlier member
    chunks: Callable[[], Iterator[bytes]]  # of a FILE: exactly ``size`` bytes; not called for other kinds
    privileges: Privileges | None = None  # None: it belongs to whoever extracts it
    sha256: str = ""  # of the content of a FILE, where it is known beforehand


def below(root: bytes, members: Iterable[Member]) -> Iterator[Member]:
    """Put members into a directory of the output, with the directories that lead to it. Raises `UsageError`."""
    parts = [part for part in root.split(b"/") if part not in (b"", b".")]
    if b".." in parts or root.startswith(b"/"):
        raise UsageError(
            f"--arcroot {os.fsdecode(root)}: leads out of the archive",
            "Give a relative path without '..', such as env or opt/env.",
        )
    if not parts:
        yield from members
        return
    for count in range(1, len(parts) + 1):
        path = b"/".join(parts[:count])
        yield Member(path, Kind.DIRECTORY, 0o755, FIXED_MTIME, 0, b"", lambda: iter(()))
    start = b"/".join(parts) + b"/"
    for member in members:
        target = start + member.target if member.kind is Kind.HARD_LINK else member.target
        yield member._replace(path=start + member.path, target=target)


def checked_chunks(member: Member) -> Iterator[bytes]:
    """Yield the content of a member, never more than its size.

    Raises `EnvironmentUnfit` when there is more or less: a header that promises another size than what
    follows damages every member behind it.
    """
    seen = 0
    for chunk in member.chunks():
        seen += len(chunk)
        if seen > member.size:
            raise changed_while_packing(member.path, f"it holds more than the {member.size} bytes that were scanned")
        yield chunk
    if seen < member.size:
        raise changed_while_packing(member.path, f"it holds {seen} of the {member.size} bytes that were scanned")


def changed_while_packing(path: bytes, how: str) -> EnvironmentUnfit:
    """Return the error of a file that is not what was seen of it before."""
    return EnvironmentUnfit(
        f"{os.fsdecode(path)}: changed while packing: {how}.",
        "Let whatever writes to the environment finish, then pack again.",
    )


class Format(Enum):
    """An output format. The value is its ``--format`` name, and its suffix."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    TAR_ZST = "tar.zst"
    ZIP = "zip"
    SQUASHFS = "squashfs"
    PARCEL = "parcel"
    INSTALLER = "sh"
    DIRECTORY = "no-archive"


_SHORT = {
    "tgz": Format.TAR_GZ,
    "tbz2": Format.TAR_BZ2,
    "txz": Format.TAR_XZ,
    "tzst": Format.TAR_ZST,
}
_SUFFIXES = {f".{format.value}": format for format in Format} | {f".{name}": format for name, format in _SHORT.items()}

INFER = "infer"
NAMES = (INFER, *(format.value for format in Format), *_SHORT)
"""All that ``--format`` takes."""


def infer(output: str | os.PathLike[str]) -> Format:
    """Return the format that the name of an output asks for.

    A slash at the end asks for a directory; ``pathlib`` drops it, so pass the name as it was typed.
    Raises `UsageError` for a name with no suffix or an unknown one.
    """
    name = os.fspath(output)
    if name.endswith("/"):
        return Format.DIRECTORY
    for suffix, format in _SUFFIXES.items():
        # ".tar.gz" alone is a hidden file without a suffix.
        if name.lower().endswith(suffix) and os.path.basename(name).lower() != suffix:
            return format
    raise UsageError(
        f"{name}: the name does not say which format to write. Known suffixes: {' '.join(_SUFFIXES)}",
        tip="End the name with one of these, or name the format with --format"
        f" (for a directory: --format {Format.DIRECTORY.value}).",
    )


def stem(name: str) -> str | None:
    """Return the name of an archive without its suffix; None where it has none that is known."""
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None


def parse(name: str) -> Format | None:
    """Return the format that a ``--format`` name stands for; None for ``infer``.

    Raises `UsageError` for an unknown name.
    """
    if name == INFER:
        return None
    if name in _SHORT:
        return _SHORT[name]
    try:
        return Format(name)
    except ValueError:
        raise UsageError(f"--format {name}: unknown. Choose one of: {' '.join(NAMES)}") from None
