"""A stub as an installer carries it: a program that unpacks an archive, and the archive of the stub's directory."""

from __future__ import annotations

import io
from typing import NamedTuple

from installer_stub.model import Kind
from pack.archive import Format
from pack.archive.tar import write_tar
from pack.compress import LEVELS, compressor
from pack.stub import carry, store
from pack.stub.store import Stub, StubUnavailable

_LONGEST_NAME = 100  # the opener takes no longer one


class Section(NamedTuple):
    """The two parts, the same bytes for the same stub."""

    opener: bytes  # a native program: opener DIRECTORY < archive
    archive: bytes  # .tar.gz
    unpacked: int  # bytes of content that the archive holds


def section(stub: Stub) -> Section:
    """Make the section of an installer that holds a stub.

    Raises StubUnavailable where the files of the stub are not those that its record speaks of.
    """
    if not stub.opener.is_file() or store.sha256(stub.opener) != stub.record.opener:
        raise carry.changed(stub)
    contents = list(carry.members(stub, b""))
    for member in contents:
        if len(member.path) + (member.kind is Kind.DIRECTORY) > _LONGEST_NAME:  # a directory's has a slash behind it
            raise StubUnavailable(f"{stub.path}: the path {member.path!r} is too long for the opener.")
    out = io.BytesIO()
    with compressor(out, Format.TAR_GZ, LEVELS[Format.TAR_GZ][-1]) as stream:
        write_tar(contents, stream)
    return Section(stub.opener.read_bytes(), out.getvalue(), sum(member.size for member in contents))
