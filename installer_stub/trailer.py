"""The last bytes of an installer: where its three parts lie, and what they hash to.

An installer is a script with its texts, the stub that the script unpacks, the payload, and these bytes. They
are text, so that a shell reads them too, and strict: whoever reads them writes them again and compares.
"""

from __future__ import annotations

import hashlib
import re
from typing import List, NamedTuple

from installer_stub.tarstream import ArchiveDamaged

_MAGIC = b"pack-installer 1\n"
_NAMES = (b"header", b"stub", b"payload")
_LINE = b"%-7s %15d %s\n"
_FIELDS = re.compile(rb"(header|stub|payload) +([0-9]+) ([0-9a-f]{64})\n")

_NOTHING = hashlib.sha256().hexdigest()

SIZE = 284  # bytes


class Section(NamedTuple):
    """A part of an installer: ``length`` bytes at ``offset`` with this SHA-256 in hexadecimal digits."""

    offset: int
    length: int
    sha256: str


class Trailer(NamedTuple):
    """The three parts, one directly behind the other from the first byte of the file."""

    header: Section
    stub: Section
    payload: Section


def dump(trailer: Trailer) -> bytes:
    """Write a trailer: ``SIZE`` bytes."""
    parts = (trailer.header, trailer.stub, trailer.payload)
    lines = [_LINE % (name, part.length, part.sha256.encode()) for name, part in zip(_NAMES, parts)]
    return _MAGIC + b"".join(lines)


def load(data: bytes, size: int) -> Trailer:
    """Read a trailer: the last bytes of a file of ``size`` bytes. Raises ArchiveDamaged for anything else."""
    parts: List[Section] = []
    at = 0
    for _, length, sha256 in _FIELDS.findall(data):
        parts.append(Section(at, int(length), sha256.decode()))
        at += parts[-1].length
    # Nobody hashes what is not there: its hash is held against that of nothing here.
    whole = all(part.length or part.sha256 == _NOTHING for part in parts)
    if (
        len(data) != SIZE
        or len(parts) != len(_NAMES)
        or at + SIZE != size
        or dump(Trailer(*parts)) != data
        or not whole
    ):
        raise ArchiveDamaged(
            f"the installer is damaged: its {size} bytes do not end as they should: it was cut, something was "
            "appended, or a byte of its end is another.",
            "Copy or download it again, and compare its SHA-256. Nothing was installed.",
        )
    return Trailer(*parts)
