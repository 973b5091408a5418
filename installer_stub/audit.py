"""An archive held against its manifest: every member, and the bytes of every file that it lists."""

from __future__ import annotations

import hashlib
import os
from typing import Callable, Optional

from installer_stub import rewrite, state
from installer_stub.admission import Archive, Guard, Read, refused
from installer_stub.errors import ManifestError
from installer_stub.model import Entry, Kind
from installer_stub.rewrite import Digest, Form
from installer_stub.sink import PIECE
from installer_stub.tarstream import ArchiveDamaged, Bytes, Member, damaged


def check(archive: Archive, progress: Callable[[int], object] = lambda count: None) -> int:
    """Hold every member against the manifest, and write nothing; return how many there are. Raises ArchiveDamaged."""
    guard = Guard(archive)
    entries = archive.entries
    files = {file.path: file for file in archive.manifest.files if file.is_rewritten}
    form = Form(None)
    for member, _ in archive.head:
        guard.admit(member)
    while True:
        following = archive.stream.next()
        if following is None:
            guard.require_all()
            return guard.count
        member = following
        guard.admit(member)
        entry, file = entries.get(member.path), files.get(member.path)
        if member.path == state.STATE:
            form = packed_for(member, archive.stream.read(member.size))
            guard.relocated()
        elif file is not None and form.prefix is not None:
            parts = rewrite.regions(file.references)
            try:
                done = rewrite.transform(archive.stream.read, lambda piece: None, parts, form, form)
            except ArchiveDamaged:
                raise
            except ValueError as error:
                raise damaged(f"{os.fsdecode(file.path)!r}: {error}") from error
            require(member, entry, done.archived)
        else:
            require(member, entry, copied(archive.stream.read, member.size, lambda piece: None))
        progress(member.size)


def require(member: Member, entry: Optional[Entry], digest: Digest) -> None:
    """Raise ArchiveDamaged where a file has other bytes than the manifest says; links have none."""
    if entry is not None and entry.kind is Kind.FILE and digest != (entry.sha256, entry.size):
        raise refused(member, "has other bytes than the manifest says")


def packed_for(member: Member, content: bytes) -> Form:
    """Return the form in which an archive's files are, by the state in it."""
    try:
        known = state.parse(content, member.path)
    except ManifestError as error:
        raise refused(member, "is not the state of a tree") from error
    if not known.complete or known.newest.form.prefix is None or known.newest.others:
        raise refused(member, "is not the state of a tree that was packed for one place")
    return known.newest.form


def copied(read: Read, size: int, write: Callable[[Bytes], object]) -> Digest:
    """Copy ``size`` bytes, and return their digest."""
    hasher = hashlib.sha256()
    hand_on(read, size, hasher.update, write)
    return Digest(hasher.hexdigest(), size)


def hand_on(read: Read, size: int, *takers: Callable[[Bytes], object]) -> None:
    """Give the next ``size`` bytes to each that takes some, at most `PIECE` at once."""
    left = size
    while left:
        piece = read(min(left, PIECE))
        for take in takers:
            take(piece)
        left -= len(piece)
