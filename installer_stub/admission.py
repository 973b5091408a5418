"""What may be in an archive: what its manifest lists, and what packing adds to every one.

A member's directory must be one that came before it in the same archive. Who makes all of them in a
directory of their own, in which nobody else writes, needs to ask no more: no name leads through a symlink,
and none out of the tree.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Callable, Dict, List, Set, Tuple

from installer_stub import manifest
from installer_stub.errors import ManifestError
from installer_stub.model import Entry, Kind, Listing, Manifest
from installer_stub.tarstream import ArchiveDamaged, Bytes, Member, TarStream, damaged

_MOST_MANIFEST = 256 << 20  # bytes; 60,000 entries are 12 MB
_MOST_UNLISTED = 256 << 20  # bytes of what packing added; the largest part is a frozen relocator
_MOST_GROWN = 64 << 20  # bytes by which text may be longer in the form for one target
_MOST_MODE = 0o7777
_LATEST = 1 << 55  # seconds; no file system holds more
_MADE_THERE = (manifest.DIRECTORY + b"/lock",)  # by what runs on the target

Read = Callable[[int], Bytes]


class Archive:
    """An archive of which the manifest was read, and nothing else yet.

    Where it ``is_checked``, somebody holds its bytes as a whole against a hash before what comes of them is used: the
    list of files, one of its members, tells nothing of the others that this does not, and is read only when asked for.
    """

    def __init__(
        self, manifest: Manifest, head: Tuple[Tuple[Member, bytes], ...], stream: TarStream, is_checked: bool = False
    ) -> None:
        """``head`` are the members that were read, with their content, and ``stream`` has those behind them."""
        self.manifest = manifest
        self.head = head
        self.stream = stream
        self.is_checked = is_checked

    @cached_property
    def listing(self) -> Listing:
        """The full list of files. Raises ManifestError where it is damaged, or contradicts the references."""
        listing = manifest.load_listing(self.head[-1][1])
        _check(self.manifest, listing)
        return listing

    @cached_property
    def entries(self) -> Dict[bytes, Entry]:
        """What the members are held against, by path: what is listed; of one that is checked as a whole, nothing."""
        return {} if self.is_checked else {entry.path: entry for entry in self.listing.entries}


def open_archive(read: Read, is_checked: bool = False) -> Archive:
    """Read the manifest of an archive; ``read(n)`` gives 1 to ``n`` bytes of its tar stream, none at the end.

    Unless it ``is_checked``, as `Archive` has it, its list of files is read, too. Raises ManifestError for an archive
    that is none of ours or lists what cannot be, ArchiveDamaged.
    """
    stream = TarStream(read)
    head: List[Tuple[Member, bytes]] = []
    for path in (manifest.DIRECTORY, manifest.REFERENCES, manifest.FILES):
        member = first = stream.next()
        while not head and member is not None and member.kind is Kind.DIRECTORY and member.path != path:
            stream.enter(member.path)  # packed into a directory of the archive
            member = stream.next()
        if member is None or member.path != path or member.size > _MOST_MANIFEST:
            raise ManifestError(
                f"this is no archive of pack: where {path.decode()} should be is "
                f"{'its end' if first is None else repr(os.fsdecode(first.path))}.",
                "Unpack other archives with tar.",
            )
        head.append((member, stream.read(member.size)))
    archive = Archive(manifest.load(head[1][1]), tuple(head), stream, is_checked)
    if not is_checked:
        _ = archive.listing
    return archive


def _check(listed: Manifest, listing: Listing) -> None:
    """Raise ManifestError where the two files of a manifest contradict themselves or each other."""
    entries = {entry.path: entry for entry in listing.entries}
    wrong = [b"" for _ in range(len(entries) < len(listing.entries))]
    for entry in listing.entries:
        to = entries.get(entry.target)
        if (
            (entry.path + b"/").startswith(manifest.DIRECTORY + b"/")
            or entry.path in listed.added
            or entry.mode > _MOST_MODE
            or abs(entry.mtime) > _LATEST
            or (entry.kind is Kind.FILE) != bool(entry.sha256 and entry.kind is not Kind.HARD_LINK)
            or (entry.kind is Kind.HARD_LINK and (to is None or to.kind is not Kind.FILE))
        ):
            wrong.append(entry.path)
    for file in listed.files:
        first = entries.get(file.path)
        names = [entries.get(name) for name in file.names]
        if first is None or (first.kind, first.size, first.sha256) != (Kind.FILE, file.size, file.sha256):
            wrong.append(file.path)
        wrong += [file.path for name in names if name is None or name.target != file.path]
    if wrong or len({file.path for file in listed.files}) < len(listed.files):
        where = f" at {os.fsdecode(wrong[0])!r}" if wrong and wrong[0] else ""
        raise ManifestError(f"the archive's manifest contradicts itself{where}.", "Pack or copy the archive again.")


class Guard:
    """Lets the members of one archive pass, each once, or raises ArchiveDamaged.

    Those of one that is checked as a whole need only be such as can be in a tree.
    """

    def __init__(self, archive: Archive) -> None:
        self._listed = archive.manifest
        self._is_checked = archive.is_checked
        self._entries = archive.entries
        self._directories = {b""}
        self._unlisted = 0
        self._seen: Set[bytes] = set()
        self._relocatable = {file.path for file in archive.manifest.files}
        self._sizes: Set[bytes] = set()  # whose size is not that of the archived form

    @property
    def count(self) -> int:
        """The number of members that passed."""
        return len(self._seen)

    def admit(self, member: Member) -> None:
        """Raise ArchiveDamaged unless a member is what the manifest lists, or what packing adds, and comes in order."""
        if member.path in self._seen:
            raise refused(member, "is there twice")
        if member.path.rpartition(b"/")[0] not in self._directories:
            raise refused(member, "is in a directory that did not come before it, or is none")
        if not self._is_checked:
            self._admit_by_list(member)
        elif member.mode > _MOST_MODE or abs(member.mtime) > _LATEST:
            raise refused(member, "has a mode or a time that no file can have")
        if member.kind is Kind.HARD_LINK and member.target not in self._seen:
            raise refused(member, "is a hard link to what did not come before it")
        if member.kind is Kind.DIRECTORY:
            self._directories.add(member.path)
        self._seen.add(member.path)

    def _admit_by_list(self, member: Member) -> None:
        entry = self._entries.get(member.path)
        if entry is None:
            self._admit_unlisted(member)
        elif (member.kind, member.size, member.target) != (
            entry.kind,
            self._size(member, entry) if entry.kind is Kind.FILE else 0,
            entry.target,
        ) or (member.mode, member.mtime) != (entry.mode, entry.mtime):
            raise refused(member, "has another kind, size, mode, time or target than the manifest says")

    def relocated(self) -> None:
        """Take note that files with references are in another form: their hashes tell, when that is undone."""
        self._sizes = self._relocatable

    def _size(self, member: Member, entry: Entry) -> int:
        return member.size if member.path in self._sizes and member.size <= entry.size + _MOST_GROWN else entry.size

    def _admit_unlisted(self, member: Member) -> None:
        self._unlisted += member.size
        if member.path in self._listed.added:
            known = member.kind is Kind.FILE
        elif (member.path + b"/").startswith(manifest.DIRECTORY + b"/"):
            known = member.kind in (Kind.FILE, Kind.DIRECTORY) and not _is_made_there(member.path)
        else:
            known = member.kind is Kind.DIRECTORY and any(p.startswith(member.path + b"/") for p in self._listed.added)
        harmless = member.mode <= 0o777 and member.privileges is None and abs(member.mtime) <= _LATEST
        if not known or not harmless or self._unlisted > _MOST_UNLISTED:
            raise refused(member, "is not what the manifest lists, nor what packing adds")

    def require_all(self) -> None:
        """Raise ArchiveDamaged unless all that is listed was there."""
        missing = [path for path in (*self._entries, *self._listed.added) if path not in self._seen]
        if missing:
            raise damaged(f"{os.fsdecode(missing[0])!r} is missing in it")


def _is_made_there(path: bytes) -> bool:
    return path in _MADE_THERE or path.startswith(manifest.DIRECTORY + b"/staging-")


def refused(member: Member, why: str) -> ArchiveDamaged:
    """Return the error that says what is wrong with a member."""
    return damaged(f"{os.fsdecode(member.path)!r} {why}")
