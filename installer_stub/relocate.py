"""Relocate a tree: stage every file that is to change, then put them in place.

Nothing in the tree changes before every edit has proved possible. The state names every form that may be
on disk before the first rename, so whoever comes after an interruption, wherever the tree is by then, can
tell in which form each file is: the one whose undoing gives the recorded hash.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from installer_stub import activation, durable, manifest, staging, state, target
from installer_stub.errors import EnvironmentUnfit, ManifestError, Stale
from installer_stub.model import Finding, Listing, Manifest
from installer_stub.rewrite import Form
from installer_stub.staging import Plan
from installer_stub.state import Stand, State
from installer_stub.target import Demand


class Tree(NamedTuple):
    """An unpacked archive at ``root``, a physical path."""

    root: bytes
    manifest: Manifest
    state: State


class Outcome(NamedTuple):
    """What a relocation did: how many files it wrote, how many were right already, and what it found."""

    target: bytes
    written: int
    right: int
    findings: Tuple[Finding, ...]


def open_tree(root: bytes) -> Tree:
    """Read what the tree at ``root`` knows of itself. Raises ManifestError where it is none of ours."""
    root = os.path.realpath(root)
    return Tree(root, manifest.load(_read(root, manifest.REFERENCES)), state.load(root))


def require_complete(tree: Tree) -> None:
    """Raise Stale for a tree that an installer has not completed, or that is what a delta holds."""
    if os.path.lexists(os.path.join(tree.root, manifest.INSTALLING)):
        raise Stale(
            f"{os.fsdecode(tree.root)}: an installation here was not completed.",
            "Run the installer again, or unpack the delta with its base.",
        )


def listing_of(tree: Tree) -> Listing:
    """Read the full list of the tree's files. Raises ManifestError where it is missing or damaged."""
    return manifest.load_listing(_read(tree.root, manifest.FILES))


def _read(root: bytes, name: bytes) -> bytes:
    try:
        with open(os.path.join(root, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise ManifestError(
            f"{os.fsdecode(root)} holds no readable {name.decode()}: {error.strerror}.",
            "Name the directory into which an archive of pack was unpacked.",
        ) from error


def is_current(tree: Tree) -> bool:
    """Whether the tree is relocated, completely, to the directory where it stands, under whatever name."""
    prefix = tree.state.prefix
    try:
        return prefix is not None and os.path.samefile(prefix, tree.root)
    except OSError:
        return False


def may_by_itself(tree: Tree) -> bool:
    """Whether an activation may relocate the tree without being told to.

    It may if the tree was never relocated, if a relocation to this very place was interrupted, or if
    everything that the state names is on this host and gone. Else somebody may be using it elsewhere.
    """
    stands = tree.state.stands
    if stands[0].form.prefix is None or stands[-1].form.prefix == tree.root:
        return True
    named = [stand.form.prefix for stand in stands if stand.form.prefix is not None]
    return tree.state.host == state.host_name() and not any(os.path.lexists(prefix) for prefix in named)


def relocate(tree: Tree, demand: Demand = Demand.IN_FORCE, rescan: bool = True) -> Outcome:
    """Rewrite every recorded reference of the tree for the place where it stands.

    With ``rescan``, files that the manifest does not know are searched for the prefixes where the tree
    stood before. Raises TargetRefused, NoRoom or TreeReadOnly before anything is written.
    """
    target.check_room(tree.manifest, tree.root, demand)
    own = os.path.join(tree.root, manifest.DIRECTORY)
    with durable.lock(own):
        while True:
            fresh = Tree(tree.root, tree.manifest, state.load(tree.root))
            if fresh.state != tree.state and is_current(fresh):
                return Outcome(tree.root, 0, 0, ())  # somebody else did it while this process waited
            with durable.staging(tree.root, own) as directory:
                known = listing_of(fresh) if rescan and staging.was_relocated(fresh.state) else None
                plan = staging.plan(fresh.root, fresh.manifest, fresh.state, directory, known)
                for path in (*plan.staged, *plan.links, *plan.symlinks, *fresh.manifest.added):
                    durable.require_replaceable(fresh.root, path, directory)
                # Where locks do not hold, another process may have begun: then what was read means another thing.
                if state.load(fresh.root) == fresh.state:
                    plan.findings += target.needing_quotes(fresh.manifest, fresh.root)
                    plan.findings += _carry_out(fresh, plan, directory)
                    written = len(plan.staged) + len(plan.links) + len(plan.symlinks)
                    return Outcome(fresh.root, written, plan.right, tuple(plan.findings))


def _carry_out(tree: Tree, plan: Plan, directory: bytes) -> List[Finding]:
    """Put a plan in place. Whatever interrupts this, running it again comes to the same end."""
    new = Stand(Form(tree.root, plan.digests), plan.others)
    history = tuple(dict.fromkeys((*tree.state.history, tree.root)))
    if plan.staged or plan.links or plan.symlinks:
        during = State(_with(tree.state.stands, new), state.host_name(), history)
        durable.flush(directory)  # the staged files must be whole before any of them has a name
        _record(tree, during, directory)
        staging.put_in_place(tree.root, plan, directory)
        durable.flush(directory)
    _record(tree, State((Stand(new.form),), state.host_name(), history), directory)
    return _write_scripts(tree, directory)


def _with(stands: Tuple[Stand, ...], new: Stand) -> Tuple[Stand, ...]:
    """Add a form to those that may be on disk; a run that repeats an interrupted one adds nothing but files."""
    others = dict(new.others)
    for stand in stands:
        if stand.form == new.form:
            others = {**stand.others, **others}
    return (*(stand for stand in stands if stand.form != new.form), Stand(new.form, others))


def _record(tree: Tree, current: State, directory: bytes) -> None:
    durable.write(os.path.join(tree.root, state.STATE), state.dump(current), 0o644, directory)


def refresh(tree: Tree) -> None:
    """Write the activation scripts of a relocated tree again."""
    own = os.path.join(tree.root, manifest.DIRECTORY)
    with durable.lock(own), durable.staging(tree.root, own) as directory:
        for path in tree.manifest.added:
            durable.require_replaceable(tree.root, path, directory)
        _write_scripts(tree, directory)


def _write_scripts(tree: Tree, directory: bytes) -> List[Finding]:
    """Write the activation scripts for where the tree stands, with the variables that the tree wants set."""
    written, findings = activation_scripts(tree.root, tree.root, tree.manifest)
    for path, content in written.items():
        full = os.path.join(tree.root, path)
        try:
            with open(full, "rb") as file:
                if file.read() == content:
                    continue
        except OSError:
            pass  # missing or unreadable: it is made anew
        durable.write(full, content, activation.MODE, directory)
    return findings


def activation_scripts(root: bytes, prefix: bytes, listed: Manifest) -> Tuple[Dict[bytes, bytes], List[Finding]]:
    """Render the activation scripts of the tree at ``root`` for the place ``prefix``: path -> content.

    Variables that cannot be read are a finding: somebody's later edit of their files refuses nothing.
    """
    findings: List[Finding] = []
    try:
        variables = activation.read_variables(Path(os.fsdecode(root)))
    except EnvironmentUnfit as error:
        variables = []
        findings.append(Finding(b"conda-meta/state", -1, "variables not set", str(error)))
    return activation.scripts(listed.stem, prefix, state.host_name(), variables), findings
