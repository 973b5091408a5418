"""What an installation says of itself while it is not complete, and what the next one makes of that.

``.installing`` stands at the root of the target from the first change that can be seen there to the last. The
activation scripts refuse while it does. Whoever comes next and finds that nobody works there any more takes
everything back to what it was before.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from enum import Enum
from typing import List, NamedTuple, Optional

from installer_stub import durable, manifest, swap, workplace
from installer_stub.errors import OutputError
from installer_stub.manifest import INSTALLING, decode, encode
from installer_stub.workplace import OLD, STAGING

OURS = (INSTALLING, STAGING, b"lost+found")  # at the root of a target, and no part of any tree
_LONGEST = 1 << 16  # bytes of a marker


class Phase(Enum):
    """How far an installation is."""

    HERE = "here"  # the tree is there as a whole; its hook may run
    OUT = "out"  # the entries of an old tree are being moved out
    IN = "in"  # the entries of the new tree are being moved in
    REMOVAL = "removal"  # the tree is being uninstalled


class Before(Enum):
    """What was at a target before."""

    NOTHING = "nothing"
    EMPTY = "an empty directory"
    TREE = "a tree"  # which the workplace holds


class Marker(NamedTuple):
    """What ``.installing`` says: how far somebody is, in which workplace, and what is to be put back.

    No path: a tree may be moved, and one file system is seen under many names.
    """

    phase: Phase
    name: bytes
    inside: bool
    before: Before = Before.NOTHING

    def around(self, target: bytes) -> bytes:
        """Return the path of the workplace for a target."""
        parent = os.path.join(target, STAGING) if self.inside else os.path.dirname(target)
        return os.path.join(parent, self.name)


def marker(phase: Phase, target: bytes, work: bytes, before: Before = Before.NOTHING) -> Marker:
    """Make the marker of who works on ``target`` in the workplace ``work``."""
    return Marker(phase, os.path.basename(work), os.path.dirname(work) != os.path.dirname(target), before)


def dump(marker: Marker) -> bytes:
    """Write a marker."""
    facts = {"phase": marker.phase.value, "workplace": encode(marker.name)}
    more = {"inside": marker.inside, "before": marker.before.value}
    return (json.dumps({**facts, **more}, ensure_ascii=False) + "\n").encode()


def load(target: bytes) -> Optional[Marker]:
    """Read the marker of a target; None where there is none.

    Raises OutputError for one that is damaged, and for one that this user has not written: what it says is done.
    """
    path = os.path.join(target, INSTALLING)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            data = os.read(descriptor, _LONGEST) if stat.S_ISREG(status.st_mode) else b""
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EACCES):  # a symlink, a socket, unreadable
            raise
        status, data = os.lstat(path), b""
    if status.st_uid != os.geteuid():
        raise OutputError(
            f"{os.fsdecode(target)}: the user with the number {status.st_uid} is installing there, or was interrupted.",
            f"Let that user run the installer again, or look at what is there and remove {os.fsdecode(path)}.",
        )
    try:
        facts = json.loads(data.decode())
        name = decode(facts["workplace"])
        if b"/" in name or name in (b"", b".", b".."):
            raise ValueError(f"{name!r} is no workplace")
        return Marker(Phase(facts["phase"]), name, facts["inside"] is True, Before(facts["before"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(
            f"{os.fsdecode(path)}: an installation here was not completed, and this file that should say how far it "
            f"went is damaged: {error}.",
            f"Look at what is in {os.fsdecode(target)}; remove the file if it is good, or the directory.",
        ) from error


def write(target: bytes, marker: Marker, staging: bytes) -> None:
    """Write or replace the marker of a target, durably, by way of ``staging``."""
    durable.write(os.path.join(target, INSTALLING), dump(marker), 0o644, staging)


def claim(target: bytes, marker: Marker, staging: bytes) -> None:
    """Write the first marker of a target, by way of ``staging``. Raises FileExistsError where somebody was faster."""
    staged = os.path.join(staging, b"claim")
    durable.write(staged, dump(marker), 0o644, staging)
    path = os.path.join(target, INSTALLING)
    try:
        os.link(staged, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        # Without hard links it may be found empty for a moment.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        write(target, marker, staging)
    os.unlink(staged)
    durable.flush_directory(target)


def clear(target: bytes) -> None:
    """Remove the marker, durably: from here on the installation is complete."""
    durable.remove(os.path.join(target, INSTALLING))
    durable.flush_directory(target)


def entries(target: bytes) -> List[bytes]:
    """List the names at the root of a target that are not ours, sorted."""
    return sorted(name for name in os.listdir(target) if name not in OURS)


def recover(target: bytes, own: bytes) -> None:
    """Take back what an interrupted installation did to ``target``; ``own`` is a workplace on its file system.

    Raises OutputError where somebody is at work there, and where only a person can decide.
    """
    marker = load(target)
    while marker is not None:
        with workplace.seized(marker.around(target)) as is_left:
            if not is_left:
                raise at_work(target)
            again = load(target)
            if again == marker:  # nobody has completed it in the meantime
                _recover(target, marker, own)
                return
            marker = again


def _recover(target: bytes, marker: Marker, own: bytes) -> None:
    if marker.phase is Phase.REMOVAL:
        if os.path.lexists(os.path.join(target, manifest.REFERENCES)):
            raise OutputError(
                f"{os.fsdecode(target)}: it was being uninstalled, and that was interrupted.",
                "Run the uninstallation again: it goes on.",
            )
        clear(target)
    elif marker.phase is Phase.HERE:
        back(target, marker, own)
    else:
        restore(target, marker, own)


def back(target: bytes, marker: Marker, own: bytes) -> None:
    """Remove a tree that was put in place as a whole, and put back what it replaced, if anything."""
    old = workplace.old_in(marker.around(target))
    if old is None and marker.before is Before.EMPTY:
        old = os.path.join(own, OLD)
        os.mkdir(old)
        durable.dress(old, target)  # which had its mode and its ACL from what was there
    if old is not None:
        swap.put_back(old, target, _free(own))
    elif marker.before is Before.NOTHING:
        swap.move(target, _free(own))
    else:
        raise _lost(target, marker)
    durable.flush_directory(os.path.dirname(target))


def restore(target: bytes, marker: Marker, own: bytes) -> None:
    """Put a target back whose entries were being exchanged one by one."""
    old = os.path.join(marker.around(target), OLD)
    if marker.phase is Phase.IN:
        if marker.before is Before.TREE and not os.path.isdir(old):
            raise _lost(target, marker)
        wreck = _free(own)
        os.mkdir(wreck, 0o700)
        for name in entries(target):
            swap.move(os.path.join(target, name), os.path.join(wreck, name))
        # Whoever has to go on from here must not take what is put back for the new entries.
        write(target, marker._replace(phase=Phase.OUT), own)
    if os.path.isdir(old):
        for name in sorted(os.listdir(old)):
            swap.move(os.path.join(old, name), os.path.join(target, name))
        os.rmdir(old)
    clear(target)


def _free(own: bytes) -> bytes:
    """Return a path in a workplace where nothing is: more than one thing may have to go in one run."""
    number = 0
    while os.path.lexists(os.path.join(own, b"wreck-%d" % number)):
        number += 1
    return os.path.join(own, b"wreck-%d" % number)


def _lost(target: bytes, marker: Marker) -> OutputError:
    return OutputError(
        f"{os.fsdecode(target)}: an installation here was not completed, and what it replaced is no longer in "
        f"{os.fsdecode(marker.around(target))}.",
        f"Look at what is there; remove {os.fsdecode(os.path.join(target, INSTALLING))} if it is good.",
    )


def at_work(target: bytes) -> OutputError:
    """Return the error for a target where another installation is under way."""
    return OutputError(
        f"{os.fsdecode(target)}: another installation is at work there.",
        "Wait for its end, or choose another directory. Nothing was changed.",
    )
