"""From a tar stream to a tree that stands relocated: one pass, every byte hashed as it goes by.

What may come is decided in ``admission``. Files with references get their new form on the way, but for those
that hold digests of others: these come last, in the order file, RECORD, conda-meta.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import stat
from contextlib import suppress
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from installer_stub import activation, audit, durable, manifest, relocate, rewrite, staging, state, target
from installer_stub.admission import Archive, Guard, Read
from installer_stub.fit import misfits
from installer_stub.model import Field, Finding, Kind, Reference, Relocatable
from installer_stub.rewrite import Digest, Form
from installer_stub.scribe import Scribe
from installer_stub.sink import NEW, Sink
from installer_stub.state import Stand, State
from installer_stub.tarstream import ArchiveDamaged, Bytes, Member, Privileges, damaged

ReadAll = Callable[[int], bytes]

NOT_HERE = "leads to what is not on this machine"


class Extracted(NamedTuple):
    """What was unpacked: how many members, how many files with references changed or stayed as archived."""

    members: int
    written: int
    right: int
    findings: Tuple[Finding, ...]


class Belonging(NamedTuple):
    """Whose the new files are, and who may use them."""

    umask: bool = False  # whether root's files are subject to the umask, too, as everybody else's are
    gid: int = -1  # the group of everything, which directories hand on; -1: of whoever unpacks


_PLAINLY = Belonging()


def extract(
    archive: Archive,
    tree: bytes,
    prefix: Optional[bytes],
    progress: Callable[[int], object] = lambda count: None,
    belonging: Belonging = _PLAINLY,
    jobs: int = 1,
) -> Extracted:
    """Fill the empty directory ``tree`` from an archive, relocated to ``prefix``; None leaves it as archived.

    For the prefix there must be room (``target.check_room``). Files that are not to stay are put beside
    ``tree``. ``progress`` is told the bytes of content. The files of an archive that is checked as a whole are not
    hashed one by one, but for those with references. With ``jobs`` of more than 1 a second process makes the files
    that stay as archived. Raises ArchiveDamaged, and
    OSError where something cannot be written; then the tree is not to be used.
    """
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    scribe = None
    if jobs > 1:
        with suppress(OSError):  # there may be no more processes, or no memory to share
            scribe = Scribe(root, belonging.gid)
    try:
        extraction = _Extraction(archive, tree, root, prefix, belonging, scribe)
        for member, content in archive.head:
            read = io.BytesIO(content).read
            extraction.take(member, read, read)
            progress(member.size)
        while True:
            following = archive.stream.next()
            if following is None:
                break
            extraction.take(following, archive.stream.read, archive.stream.view)
            progress(following.size)
        if scribe is not None:
            scribe.finish()
        return extraction.finish()
    finally:
        if scribe is not None:
            scribe.close()
        os.close(root)


class _Extraction:
    """The tree as it grows. Names are opened relative to ``root``, a descriptor: the longest fit as they do later."""

    def __init__(
        self,
        archive: Archive,
        tree: bytes,
        root: int,
        prefix: Optional[bytes],
        belonging: Belonging,
        scribe: Optional[Scribe],
    ) -> None:
        self._listed = archive.manifest
        self._tree = tree
        self._root = root
        self._digests: Dict[bytes, Digest] = {}
        self._relocating = prefix is not None
        self._old = Form(None)  # in which the archive's files are
        self._new = Form(prefix, self._digests)
        self._is_checked = archive.is_checked
        self._entries = archive.entries
        rewritten = [file for file in archive.manifest.files if file.is_rewritten]
        self._rewritten = {file.path: file for file in rewritten}
        self._files = self._rewritten if prefix is not None else {}
        self._digested = {r.of for file in rewritten for r in file.references if r.of}
        self._holders = {file.path for file in rewritten if any(r.field is Field.DIGEST for r in file.references)}
        self._guard = Guard(archive)
        self._directories: List[Member] = []
        self._late: Dict[bytes, Tuple[Member, bytes]] = {}  # -> with its archived bytes, beside the tree
        self._links: List[Member] = []
        self._leaving: List[Member] = []  # symlinks to what is no part of the archive
        self._changed: Set[bytes] = set()
        self._findings: List[Finding] = []
        self._privileged = os.geteuid() == 0
        self._gid = belonging.gid
        self._scribe = scribe
        mask = os.umask(0o077)
        os.umask(mask)
        self._allowed = 0o7777 & ~mask if belonging.umask or not self._privileged else 0o7777

    def take(self, member: Member, read: ReadAll, view: Read) -> None:
        """Put one member into the tree, if it may be there.

        Of its content, ``read`` gives as many bytes as it is asked for, ``view`` at least one, until the next call.
        """
        self._guard.admit(member)
        if member.path == state.STATE:
            read = view = self._take_state(member, read)
        if member.kind is Kind.DIRECTORY:
            os.mkdir(member.path, 0o700, dir_fd=self._root)
            self._directories.append(member)
        elif member.kind is Kind.SYMLINK:
            os.symlink(member.target, member.path, dir_fd=self._root)
            if member.target.startswith(b"/"):
                self._leaving.append(member)
            times = (member.mtime * 10**9, member.mtime * 10**9)
            os.utime(member.path, ns=times, dir_fd=self._root, follow_symlinks=False)
            if self._gid >= 0:
                os.chown(member.path, -1, self._gid, dir_fd=self._root, follow_symlinks=False)
        elif member.kind is Kind.HARD_LINK:
            self._links.append(member)
        elif member.path in self._holders and member.path in self._files:
            staged = os.path.join(os.path.dirname(self._tree), b"late-%d" % len(self._late))
            with open(staged, "wb") as out:
                digest = self._copied(view, member.size, out.write)
                self._compare(member, digest if self._old.prefix is None else None)
            self._late[member.path] = (member, staged)
        else:
            self._file(member, read, view)

    def _take_state(self, member: Member, read: ReadAll) -> ReadAll:
        """Learn in which form the files are, of which none may have come yet; return what gives the state again.

        Left as archived, the tree stays in that form, and files are held against the hashes of what they undo to.
        """
        content = read(member.size)
        self._old = audit.packed_for(member, content)
        self._guard.relocated()
        self._files = self._rewritten
        if not self._relocating:
            self._new = self._old
        return io.BytesIO(content).read

    def _references(self, path: bytes) -> Tuple[Reference, ...]:
        file = self._files.get(path)
        return file.references if file is not None else ()

    def _file(self, member: Member, read: ReadAll, view: Read) -> None:
        """Make a file, in its new form if it has one."""
        file = self._files.get(member.path)
        if file is None and self._scribe is not None and member.privileges is None:
            self._scribe.begin(member.path, self._bits(member), member.mtime)
            self._compare(member, self._copied(view, member.size, self._scribe.write))
            self._scribe.end()
            return
        descriptor = os.open(member.path, NEW, 0o600, dir_fd=self._root)
        try:
            sink = Sink(descriptor, hashed=file is not None and member.path in self._digested)
            same = True
            if file is None:
                self._compare(member, self._copied(view, member.size, sink.write))
            else:
                same = self._transform(member, file, read, sink)
            sink.end()
            self._dress(member, descriptor)
            if same or not self._relocating:
                os.utime(descriptor, ns=(member.mtime * 10**9, member.mtime * 10**9))
            else:
                self._changed.add(member.path)
            if file is not None and member.path in self._digested:
                self._digests[member.path] = sink.digest
        finally:
            os.close(descriptor)

    def _transform(self, member: Member, file: Relocatable, read: ReadAll, sink: Sink) -> bool:
        """Write the new form of a file, which must be archived as the manifest says; return whether that is the old."""
        parts = rewrite.regions(file.references)
        try:
            done = rewrite.transform(read, sink.write, parts, self._old, self._new, hashed=not self._is_checked)
        except ArchiveDamaged:
            raise
        except ValueError as error:  # Unlike or Misfit: there was room, so the bytes are not what was recorded
            raise damaged(f"{os.fsdecode(file.path)!r}: {error}") from error
        self._compare(member, done.archived)
        return done.same

    def _copied(self, view: Read, size: int, write: Callable[[Bytes], object]) -> Optional[Digest]:
        """Copy content; return its digest, or None where somebody else answers for it."""
        if not self._is_checked:
            return audit.copied(view, size, write)
        audit.hand_on(view, size, write)
        return None

    def _compare(self, member: Member, digest: Optional[Digest]) -> None:
        if digest is not None:
            audit.require(member, self._entries.get(member.path), digest)

    def _dress(self, member: Member, descriptor: int) -> None:
        """Give a file its mode; to a privileged one, if this user can, its owner and capability, too."""
        privileges = member.privileges
        if self._gid >= 0:
            os.fchown(descriptor, -1, self._gid)
        handed_on = stat.S_ISGID if self._gid >= 0 and member.kind is Kind.DIRECTORY else 0
        if not self._privileged:
            # As tars do: what a user other than root gets is subject to the umask.
            os.fchmod(descriptor, self._bits(member) | handed_on)
            if privileges is not None:
                self._findings.append(Finding(member.path, -1, staging.DROPPED, "privileges"))
            return
        if privileges is not None:
            os.fchown(descriptor, _uid(privileges), _gid(privileges))
        # Behind the owner, whose change takes these bits away.
        os.fchmod(descriptor, self._bits(member) | handed_on)
        if privileges is not None and privileges.capability:
            try:
                os.setxattr(descriptor, "security.capability", privileges.capability)
            except OSError:
                self._findings.append(Finding(member.path, -1, staging.DROPPED, "file capability"))

    def _bits(self, member: Member) -> int:
        """Tell the permission bits that something gets here."""
        return member.mode & self._allowed & (0o7777 if self._privileged else 0o777)

    def finish(self) -> Extracted:
        """Do what needs all files: digests, links, the state, the scripts; directories get their modes and times."""
        self._guard.require_all()
        try:
            for path in self._late:
                self._finish_late(path)
        except RecursionError as error:
            raise damaged("the digests in its files are of each other") from error
        for link in self._links:
            first, name = (os.path.join(self._tree, path) for path in (link.target, link.path))
            durable.link(first, name, os.path.dirname(self._tree))
            if link.target in self._changed:
                self._changed.add(link.path)
        for path in self._changed:
            if path.endswith(b".py"):
                staging.drop_byte_code(os.path.join(self._tree, path))
        if self._relocating and self._new.prefix is not None:
            self._settle(self._new.prefix)
        self._finish_directories()
        for link in self._leaving:
            if not os.path.exists(link.target) and not link.target.startswith((self._new.prefix or b"\0") + b"/"):
                self._findings.append(Finding(link.path, -1, NOT_HERE, manifest.encode(link.target)))
        names = {name for file in self._files.values() for name in (file.path, *file.names)}
        right = sum(path not in self._changed for path in self._files)
        return Extracted(self._guard.count, len(names & self._changed), right, tuple(self._findings))

    def _finish_late(self, path: bytes) -> None:
        """Write a file that holds digests, after those that it holds the digests of: file, RECORD, conda-meta."""
        member, staged = self._late[path]
        if not os.path.exists(staged):
            return  # it was done for one that holds its digest
        with open(staged, "rb") as reading:
            os.unlink(staged)
            for reference in self._references(path):
                if reference.of in self._late:
                    self._finish_late(reference.of)
            self._file(member, reading.read, reading.read)

    def _settle(self, prefix: bytes) -> None:
        """Write the state and the scripts as a relocation does."""
        for file in self._files.values():
            for reference, misfit in misfits(file, self._new):
                self._findings.append(Finding(file.path, reference.offset, staging.NO_ROOM, str(misfit)))
        self._findings += target.needing_quotes(self._listed, prefix)
        done = State((Stand(self._new),), state.host_name(), (prefix,))
        self._write(state.STATE, state.dump(done), 0o644)
        scripts, findings = relocate.activation_scripts(self._tree, prefix, self._listed)
        for path, content in scripts.items():
            self._write(path, content, activation.MODE)
        self._findings += findings

    def _write(self, path: bytes, content: bytes, mode: int) -> None:
        full = os.path.join(self._tree, path)
        if os.path.lexists(full):
            with open(full, "rb") as written:
                if written.read() == content:
                    return
            os.unlink(full)
        descriptor = os.open(path, NEW, 0o600, dir_fd=self._root)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if self._gid >= 0:
            os.chown(path, -1, self._gid, dir_fd=self._root)
        os.chmod(path, mode & self._allowed, dir_fd=self._root)

    def _finish_directories(self) -> None:
        for member in reversed(self._directories):
            descriptor = os.open(member.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
            try:
                self._dress(member, descriptor)
                os.utime(descriptor, ns=(member.mtime * 10**9, member.mtime * 10**9))
            finally:
                os.close(descriptor)


def _uid(privileges: Privileges) -> int:
    """Tell the owner, by name where this machine knows it, as tars do."""
    try:
        return pwd.getpwnam(os.fsdecode(privileges.user)).pw_uid
    except (KeyError, ValueError):
        return privileges.uid


def _gid(privileges: Privileges) -> int:
    try:
        return grp.getgrnam(os.fsdecode(privileges.group)).gr_gid
    except (KeyError, ValueError):
        return privileges.gid
