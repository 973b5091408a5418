"""Stage what a relocation changes: every new file is written beside the tree before any is put in place."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from installer_stub import durable, manifest, match, rewrite, walk
from installer_stub.fit import misfits
from installer_stub.model import HARMLESS, NOT_REWRITABLE, Entry, Finding, Kind, Listing, Manifest, Relocatable
from installer_stub.rewrite import Digest, Form, Misfit, Unlike
from installer_stub.state import State

CHANGED = "changed since it was unpacked"
MISSING = "missing"
NO_ROOM = "keeps the old path"
DROPPED = "dropped"


class Plan:
    """What is going to be put in place, by path; ``digests`` and ``others`` go into the state."""

    def __init__(self) -> None:
        """Plan nothing yet."""
        self.staged: Dict[bytes, bytes] = {}  # -> the staged file
        self.links: Dict[bytes, bytes] = {}  # -> the first name of its inode
        self.symlinks: Dict[bytes, bytes] = {}  # -> the new target
        self.digests: Dict[bytes, Digest] = {}
        self.others: Dict[bytes, str] = {}
        self.findings: List[Finding] = []
        self.right = 0


def was_relocated(current: State) -> bool:
    """Whether files may name a prefix at which the tree stood after it was unpacked."""
    return any(stand.form.prefix is not None for stand in current.stands)


def plan(root: bytes, listed: Manifest, current: State, directory: bytes, known: Optional[Listing]) -> Plan:
    """Stage in ``directory`` all that relocating the tree at ``root`` to ``root`` changes.

    With ``known``, the full list, every file that it does not vouch for is searched, too.
    """
    stage = _Stage(root, listed, current, directory)
    for file in stage.files:
        stage.file(file)
    if known is not None:
        stage.unknown(known)
    return stage.plan


def put_in_place(root: bytes, made: Plan, directory: bytes) -> None:
    """Rename every staged file to its path, mend hard links and symlinks, drop stale byte code."""
    for path in (*made.staged, *made.links):
        if path.endswith(b".py"):
            # Before the source: whoever comes after an interruption sees a source that is right, and passes it by.
            drop_byte_code(os.path.join(root, path))
    for path, staged in made.staged.items():
        lost = durable.replace(staged, os.path.join(root, path))
        made.findings += [Finding(path, -1, DROPPED, what) for what in lost]
    for path, first in made.links.items():
        durable.link(os.path.join(root, first), os.path.join(root, path), directory)
    for path, target in made.symlinks.items():
        durable.symlink(target, os.path.join(root, path), directory)


def drop_byte_code(source: bytes) -> None:
    """Remove the byte code of a source that was rewritten: one of the same size may look fresh."""
    cache = os.path.join(os.path.dirname(source), b"__pycache__")
    stem = os.path.basename(source)[: -len(b"py")]
    try:
        names = os.listdir(cache)
    except OSError:
        return
    for name in names:
        if name.startswith(stem) and name.endswith(b".pyc"):
            durable.remove(os.path.join(cache, name))


class _Stage:
    """The plan as it grows."""

    def __init__(self, root: bytes, listed: Manifest, current: State, directory: bytes) -> None:
        self.root = root
        self.listed = listed
        self.current = current
        self.directory = directory
        self.plan = Plan()
        self.new = Form(root, self.plan.digests)
        self.files = [file for file in listed.files if file.is_rewritten]
        self._files = {file.path: file for file in self.files}
        self._digested = {r.of for file in self.files for r in file.references if r.of}
        self._visited: Set[bytes] = set()
        self._behind: Dict[bytes, bool] = {b"": False}  # directory -> whether a symlink leads there

    def file(self, file: Relocatable) -> None:
        """Stage a file of the manifest, after those whose digests it holds: file, RECORD, conda-meta."""
        if file.path in self._visited:
            return
        self._visited.add(file.path)
        for reference in file.references:
            if reference.of in self._files:
                self.file(self._files[reference.of])
        first: Optional[bytes] = None  # the first name under which the file still is itself
        for name in (file.path, *file.names):
            found = self._look(name)
            if found.kind is Kind.FILE and (
                self._restage(file, name) if first is None else self._link(file, name, first)
            ):
                first = first or name
            else:
                self.plan.findings.append(Finding(name, -1, MISSING if found.kind is None else CHANGED, found.error))
                self.other(found)
        if first != file.path:
            self._keep_digest(file)
        if first is not None:
            for reference, misfit in misfits(file, self.new):
                self.plan.findings.append(Finding(first, reference.offset, NO_ROOM, str(misfit)))

    def _look(self, path: bytes) -> walk.Found:
        """Describe a path; what a symlink leads to is no part of the tree, wherever that is."""
        if self._behind_link(os.path.dirname(path)):
            return walk.Found(path, None, 0, 0, 0, error="behind a symlink")
        return walk.look(self.root, path)

    def _behind_link(self, directory: bytes) -> bool:
        if directory not in self._behind:
            above = self._behind_link(os.path.dirname(directory))
            self._behind[directory] = above or os.path.islink(os.path.join(self.root, directory))
        return self._behind[directory]

    def _restage(self, file: Relocatable, name: bytes) -> bool:
        """Stage a file of the manifest if it is in one of the forms that may be on disk."""
        full = os.path.join(self.root, name)
        staged = self._new_path()
        made = None
        for form in self._forms():
            made = _transformed(full, staged, file, form, self.new, file.path in self._digested)
            if made is not None:
                break
        if made is None:
            return False
        if file.path in self._digested and name == file.path:
            self.plan.digests[name] = made.digest
        if made.same:
            os.unlink(staged)
            self.plan.right += 1
        else:
            self.plan.staged[name] = staged
        return True

    def _forms(self) -> Iterator[Form]:
        """Yield the forms in which a file may be, the likeliest first."""
        for stand in reversed(self.current.stands):
            yield stand.form
        # For another process, which may put the same files in place where no lock holds it back.
        yield self.new

    def _link(self, file: Relocatable, name: bytes, first: bytes) -> bool:
        """Link another name of a file to the inode of its first, if it still is that file."""
        full = os.path.join(self.root, name)
        same = os.path.samefile(full, os.path.join(self.root, first))
        if not same and not any(is_in_form(full, file, form) for form in self._forms()):
            return False
        if not same or first in self.plan.staged:
            self.plan.links[name] = first
        return True

    def _keep_digest(self, file: Relocatable) -> None:
        """Leave the digest of a file that is not the environment's any more as it stands."""
        for stand in self.current.stands:
            if file.path in stand.form.digests:
                self.plan.digests[file.path] = stand.form.digests[file.path]
                return
        self.plan.digests[file.path] = Digest(file.sha256, file.size)

    def unknown(self, known: Listing) -> None:
        """Stage every file that the full list does not vouch for and that names an earlier prefix."""
        entries = {entry.path: entry for entry in known.entries}
        names = {name for file in self.files for name in file.names}
        for found in walk.walk(self.root, lambda path: manifest.is_ours(path, self.listed)):
            if found.path in self._files or found.path in names or found.error:
                continue
            if found.kind is Kind.HARD_LINK and found.target in self.plan.staged:
                self.plan.links[found.path] = found.target
            elif found.kind in (Kind.FILE, Kind.SYMLINK) and not _vouched(entries.get(found.path), found):
                self.other(found)

    def other(self, found: walk.Found) -> None:
        """Search a file that the manifest cannot vouch for, and stage it where it is text."""
        if found.kind is Kind.SYMLINK:
            self._other_symlink(found)
        if found.kind is not Kind.FILE:
            return
        from installer_stub import references  # which is a third of all modules, and mostly not needed

        full = os.path.join(self.root, found.path)
        try:
            with references.Opened(full) as read_at:
                sha256 = references.read(read_at, found.size, found.path, ()).sha256
                prefixes = self._prefixes_named(found.path, sha256)
                reading = references.read(read_at, found.size, found.path, prefixes, root=self.root)
        except OSError as error:
            self.plan.findings.append(Finding(found.path, -1, "unreadable", error.strerror or ""))
            return
        self.plan.findings += [f for f in reading.findings if f.what != HARMLESS]
        stale = tuple(each for each in reading.references if each.prefix not in (b"", self.root))
        if not reading.text:
            self.plan.findings += [
                Finding(found.path, r.offset, NOT_REWRITABLE, "a binary that packing did not see") for r in stale
            ]
            return
        if not stale:
            return
        as_it_is = Relocatable(found.path, (), reading.size, reading.sha256, stale)
        staged = self._new_path()
        try:
            made = _transformed(full, staged, as_it_is, Form(None), self.new, digested=True)
        except Misfit as error:
            self.plan.findings.append(Finding(found.path, -1, NOT_REWRITABLE, str(error)))
            return
        if made is None:
            self.plan.findings.append(Finding(found.path, -1, CHANGED, "while this ran"))
            return
        self.plan.others[found.path] = made.digest.sha256
        self.plan.staged[found.path] = staged

    def _other_symlink(self, found: walk.Found) -> None:
        sha256 = hashlib.sha256(found.target).hexdigest()
        for prefix in self._prefixes_named(found.path, sha256):
            if prefix != self.root and match.within(found.target, prefix):
                target = self.root + found.target[len(prefix) :]
                self.plan.symlinks[found.path] = target
                self.plan.others[found.path] = hashlib.sha256(target).hexdigest()
                return

    def _prefixes_named(self, path: bytes, sha256: str) -> Tuple[bytes, ...]:
        """Tell which prefixes a file may name that no manifest vouches for.

        It is as an interrupted relocation left it, or as it was before all; or it was edited since, and may
        name any place. There a prefix inside an older one cannot be told from a path in that, and is not looked for.
        """
        for stand in reversed(self.current.stands[1:]):
            if stand.others.get(path) == sha256 and stand.form.prefix is not None:
                return (stand.form.prefix,)
        oldest = self.current.stands[0].form.prefix
        named = list(self.listed.prefixes) if oldest is None else [oldest]
        for stand in self.current.stands[1:]:
            prefix = stand.form.prefix
            if prefix is not None and not any(match.within(prefix, older) for older in named):
                named.append(prefix)
        return tuple(sorted(named, key=len, reverse=True))

    def _new_path(self) -> bytes:
        return os.path.join(self.directory, b"%d" % len(self.plan.staged))


def is_in_form(full: bytes, file: Relocatable, form: Form) -> bool:
    """Whether undoing ``form`` in the file at ``full`` gives the recorded bytes."""
    try:
        with open(full, "rb") as source:
            parts = rewrite.regions(file.references)
            undone = rewrite.transform(source.read, _nowhere, parts, form, Form(None))
    except (OSError, Unlike):
        return False
    return undone.archived == (file.sha256, file.size)


class _Made(NamedTuple):
    same: bool  # whether the new form is, byte for byte, what was there
    digest: Digest  # of the new form; its hash is "" where nobody asks for it


def _transformed(
    full: bytes, staged: bytes, file: Relocatable, old: Form, new: Form, digested: bool
) -> Optional[_Made]:
    """Write a file in its new form to ``staged``; return None, and leave nothing, if it is not in the old form.

    Raises Misfit where the file is in that form, and has no room for the new one.
    """
    hasher = hashlib.sha256() if digested else None
    size = 0
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open(full, "rb"))
        except OSError:
            return None
        out = stack.enter_context(open(staged, "wb"))

        def emit(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            out.write(piece)
            if hasher is not None:
                hasher.update(piece)

        try:
            done = rewrite.transform(source.read, emit, rewrite.regions(file.references), old, new)
        except Unlike:
            done = None
        except Misfit:
            if is_in_form(full, file, old):
                raise
            done = None
    if done is None or done.archived != (file.sha256, file.size):
        os.unlink(staged)
        return None
    return _Made(done.same, Digest(hasher.hexdigest() if hasher is not None else "", size))


def _vouched(entry: Optional[Entry], found: walk.Found) -> bool:
    """Whether a file is as it was unpacked: the list knows its size and time, or its target."""
    if entry is None or entry.kind is not found.kind:
        return False
    if found.kind is Kind.SYMLINK:
        return entry.target == found.target
    return entry.size == found.size and entry.mtime == found.mtime_ns // 10**9


def _nowhere(piece: bytes) -> None:
    """Drop what a transformation emits."""
