"""What an installer does: the stories of installing, extracting, listing and uninstalling.

The installer's script has made the workplace, and refused what could be refused before there was a program.
"""

from __future__ import annotations

import grp
import json
import os
from contextlib import contextmanager
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

from installer_stub import (
    admission,
    carry_over,
    durable,
    extract,
    hooks,
    incomplete,
    kernels,
    landing,
    manifest,
    payload,
    register,
    relocate,
    uninstall,
    workplace,
)
from installer_stub import target as targets
from installer_stub.admission import Archive
from installer_stub.carry_over import Added
from installer_stub.errors import ManifestError, PackError, TreeReadOnly, UsageError, VerifyFailed
from installer_stub.extract import Belonging
from installer_stub.incomplete import Phase
from installer_stub.landing import Landing, Replace
from installer_stub.model import Finding, Listing
from installer_stub.payload import Payload
from installer_stub.relocate import Tree
from installer_stub.target import Demand
from installer_stub.uninstall import Removed
from installer_stub.writing import writing

FACTS = manifest.DIRECTORY + b"/installer.json"

_LONGEST_FACTS = 1 << 16  # bytes; the system takes twice as much in one variable
_LARGEST_GID = (1 << 32) - 2


class Talk:
    """Is told how the work goes, and says nothing. ``out`` is the descriptor for what hooks print."""

    out: int = 2

    def start(self, what: str, total: int) -> None:
        """Begin a stage of ``total`` bytes."""

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes of the stage."""

    def settled(self) -> None:
        """Know that the work is done: whatever interrupts what is left, the clearing up, changes nothing of that."""


class Order(NamedTuple):
    """What an installer is to do, as its script has understood it."""

    installer: bytes
    staging: bytes  # a workplace that the script made
    target: bytes = b""
    size: int = 0  # bytes of content that the payload holds
    replace: Replace = Replace.NO
    scripts: bool = True
    unattended: bool = False
    demand: Demand = Demand.IN_FORCE
    jobs: int = os.cpu_count() or 1
    group: str = ""
    register: bool = False
    added: Added = Added.CARRY
    expanded: Optional[int] = None  # the descriptor of a stream that the host's tools expand


class Installed(NamedTuple):
    """What was installed: members of the archive, files in a new form or right as archived, what is to be known."""

    prefix: bytes
    members: int
    written: int
    right: int
    replaced: bool
    findings: Tuple[Finding, ...]


def install(order: Order, talk: Talk) -> Installed:
    """Install the payload at the target, relocated, whole or not at all.

    Raises PackError with the code that says why not; then the target is as it was.
    """
    return _install(order, talk, relocated=True)


def extract_only(order: Order, talk: Talk) -> Installed:
    """Put the payload at the target as archived: its first activation relocates it. No hooks run."""
    return _install(order, talk, relocated=False)


def _install(order: Order, talk: Talk, relocated: bool) -> Installed:
    belonging = Belonging(umask=True, gid=_gid(order.group))
    with payload.opened(order.installer, order.jobs, order.expanded) as source:
        archive = _admitted(order, source, relocated, source.is_checked)
        with _landing(order) as way:
            talk.start("installing", order.size)
            prefix = way.target if relocated else None
            done = extract.extract(archive, way.tree, prefix, talk.advance, belonging, order.jobs)
            source.finish()
            findings = list(done.findings)
            if way.replacing:
                findings += carry_over.carry_over(relocate.open_tree(way.target), way.tree, order.added)
            if relocated:
                _appear(order, way, talk, belonging.gid)
            else:
                way.appear(gid=belonging.gid)
            with workplace.uninterrupted():
                way.settle()
                talk.settled()
    return Installed(order.target, done.members, done.written, done.right, way.replacing, tuple(findings))


def _admitted(order: Order, source: Payload, relocated: bool, is_checked: bool) -> Archive:
    """Read the manifest of the payload, and refuse the target if the environment cannot stand there."""
    try:
        archive = admission.open_archive(source.read, is_checked)
        if relocated:
            targets.check_room(archive.manifest, order.target, order.demand)
    except PackError:
        source.require_whole()  # a damaged manifest may say anything
        raise
    return archive


def _appear(order: Order, way: Landing, talk: Talk, gid: int) -> None:
    """Put the tree in its place, and do what needs that: check what replaced another, run the hook, register."""
    _hook(order, way.tree, hooks.PRE_INSTALL, order.target, talk)
    follows = order.register or (order.scripts and hooks.path(way.tree, hooks.POST_INSTALL) is not None)
    way.appear(bool(follows) or way.replacing, gid)
    if way.replacing:
        _require_sound(way.target)
    _hook(order, way.target, hooks.POST_INSTALL, order.target, talk)
    if order.register:
        register.register(way.target)
        kernels.register(way.target, relocate.open_tree(way.target).manifest.stem)


def listed(order: Order) -> Listing:
    """Return the full list of what the payload holds. Its bytes are not checked: the list alone is read."""
    with payload.opened(order.installer, order.jobs, order.expanded) as source:
        return _admitted(order, source, relocated=False, is_checked=False).listing


def remove(order: Order, talk: Talk) -> Removed:
    """Uninstall the tree at the target: all that its manifest lists. Raises PackError; a second run goes on."""
    inside = os.path.dirname(order.staging) != os.path.dirname(order.target)
    with writing(order.target), workplace.workplace(order.target, inside, order.staging) as work:
        with landing.held(order.target):
            going_on = _is_begun(order.target, work)
            landing.clear(order.target, inside, work)
        with landing.held(order.target):  # by now it may be another directory
            done = _removed(order, talk, work, going_on)
            talk.settled()
            return done


def _removed(order: Order, talk: Talk, work: bytes, going_on: Optional[bool]) -> Removed:
    if going_on is not None and not os.path.lexists(os.path.join(order.target, manifest.REFERENCES)):
        if not going_on:
            return Removed(0, ())  # an installation was not complete, and was taken back
        incomplete.clear(order.target)
        return Removed(0, uninstall.finish(order.target))
    tree = relocate.open_tree(order.target)
    listing = relocate.listing_of(tree)
    _require_removable(tree, work)
    if not going_on:
        _hook(order, tree.root, hooks.PRE_UNINSTALL, tree.root, talk)
    with durable.lock(os.path.join(tree.root, manifest.DIRECTORY)):
        return uninstall.uninstall(tree, listing, work)


def _is_begun(target: bytes, work: bytes) -> Optional[bool]:
    """Whether an uninstallation was interrupted there; None where nothing was. What else was, is taken back."""
    marker = incomplete.load(target)
    if marker is None:
        return None
    if marker.phase is not Phase.REMOVAL:
        incomplete.recover(target, work)
        return False
    with workplace.seized(marker.around(target)) as is_left:
        if not is_left:
            raise incomplete.at_work(target)
    return True


def _require_removable(tree: Tree, work: bytes) -> None:
    try:
        durable.require_replaceable(tree.root, manifest.REFERENCES, work)
    except TreeReadOnly as error:
        raise TreeReadOnly(
            f"{os.fsdecode(tree.root)}: it is somebody else's, or on another file system, and cannot be removed.",
            "Let its owner uninstall it. Nothing was changed.",
        ) from error


@contextmanager
def _landing(order: Order) -> Iterator[Landing]:
    with writing(order.target), landing.opened(order.target, order.staging, order.replace) as way:
        yield way


def _gid(group: str) -> int:
    if not group:
        return -1
    try:
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise UsageError(f"--group {group}: this machine knows no such group.", 'See "getent group".') from error
    if gid > _LARGEST_GID or (os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups())):
        raise UsageError(f"--group {group}: this user cannot give files to that group.", 'See "id".')
    return gid


def _require_sound(root: bytes) -> None:
    """Raise VerifyFailed unless everything is there that the manifest lists; what somebody added does not count."""
    from installer_stub import verify  # which is a quarter of all modules, and only updates need it

    kinds = (verify.CHANGED, verify.MISSING, verify.UNREADABLE)
    damage = [finding for finding in verify.verify(relocate.open_tree(root)) if finding.what in kinds]
    if damage:
        raise VerifyFailed(
            f"{os.fsdecode(root)}: the new version is not as its manifest says, at {os.fsdecode(damage[0].path)!r}: "
            f"{damage[0].what}.",
            "The disk may be failing. The version before was put back.",
        )


def _hook(order: Order, tree: bytes, name: str, prefix: bytes, talk: Talk) -> None:
    """Run a hook, if the tree has it and hooks are wanted; all but the first run in the activated environment."""
    script = hooks.path(tree, name)
    if script is None or not order.scripts:
        return
    facts = _facts(tree)
    variables: Dict[str, str] = {
        "PREFIX": os.fsdecode(prefix),
        "INSTALLER_NAME": facts["name"],
        "INSTALLER_VER": facts["version"],
        "INSTALLER_PLAT": facts["platform"],
        "INSTALLER_TYPE": "SH",
        "INSTALLER_PATH": os.fsdecode(order.installer),
        "INSTALLER_UNATTENDED": "1" if order.unattended else "0",
        "FORCE": "0" if order.replace is Replace.NO else "1",
    }
    if name == hooks.PRE_INSTALL:
        hooks.run(script, variables, order.staging, None, talk.out)
        return
    stem = relocate.open_tree(tree).manifest.stem
    more = {"_PACK_INSTALLING": "1", "PACK_PREFIX": os.fsdecode(tree)}
    hooks.run(script, {**variables, **more}, tree, os.path.join(tree, b"bin", stem.encode()), talk.out)


def _facts(tree: bytes) -> Dict[str, str]:
    """Read what the installer was called, as it can stand in a variable of the environment."""
    path = os.path.join(tree, FACTS)
    try:
        with open(path, "rb") as file:
            facts = json.loads(file.read(_LONGEST_FACTS).decode())
        told = {name: str(facts.get(name, "")) for name in ("name", "version", "platform")}
        if b"\0" in "".join(told.values()).encode():
            raise ValueError("a NUL in it")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f"{os.fsdecode(path)} is damaged: {error}.",
            "Hooks are told what it says: leave them out with --skip-scripts.",
        ) from error
    return told
