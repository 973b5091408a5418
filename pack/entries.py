"""What an entry has beside its bytes: bits, capabilities, attributes; what is told of it, and what may be kept."""

from __future__ import annotations

import grp
import os
import pwd
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from installer_stub.manifest import encode
from installer_stub.model import Finding, Kind, Standing
from installer_stub.walk import Found
from pack.archive import Privileges
from pack.examine import Examined, attributes_of

DROPPED = "setuid or setgid bit dropped"
DROPPED_OF_DIRECTORY = "setgid bit of a directory dropped"  # apart: in shared trees every directory has it
CAPABILITY = "file capability dropped"
ACL = "ACL dropped"
ATTRIBUTE = "extended attribute dropped"
CASE = "differs only by case"

_SPECIAL_BITS = 0o6000
_CAPABILITY = "security.capability"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")

# Nobody gave these to a file: the host's security module or the file system shows them on each.
_OF_THE_SYSTEM = (
    "security.selinux",
    "security.SMACK64",
    "security.ima",
    "security.evm",
    "system.nfs4_",
    "system.cifs_",
    "system.smb3_",
    "system.ntfs_",
    "lustre.",
    "trusted.lov",
    "trusted.lma",
    "trusted.link",
    "trusted.overlay.",
    "ceph.",
    "btrfs.",
)


def without_bits(
    prefix: bytes, found: Sequence[Found], examined: Mapping[bytes, Examined], keep: bool
) -> tuple[list[Found], dict[bytes, Privileges], list[Finding]]:
    """Take setuid and setgid bits from what was found, and note what is lost with them.

    With ``keep`` they and file capabilities stay, and are returned by path with their owners: but not those of
    a file that names the prefix. Until it is relocated it would run, with its owner's rights, what anybody puts
    at the old place.
    """
    bare: list[Found] = []
    kept: dict[bytes, Privileges] = {}
    notes: list[Finding] = []
    for each in found:
        first = each.target if each.kind is Kind.HARD_LINK else each.path
        verdict = examined.get(first)
        if verdict is None and each.kind in (Kind.FILE, Kind.HARD_LINK):
            bare.append(each)  # it is left out
            continue
        attributes = attributes_of(_full(prefix, each)) if verdict is None else verdict.attributes
        if attributes:
            notes += _dropped(each.path, attributes)
        if not each.mode & _SPECIAL_BITS and _CAPABILITY not in attributes:
            bare.append(each)
            continue
        why = "" if verdict is None else _unfit(verdict)
        if keep and not why:
            kept[each.path] = _privileges(_full(prefix, each), _CAPABILITY in attributes)
            bare.append(each)
            continue
        detail = f": {why}" if keep else ""
        if _CAPABILITY in attributes:
            notes.append(Finding(each.path, -1, CAPABILITY, detail[2:]))
        if each.mode & _SPECIAL_BITS:
            what = DROPPED_OF_DIRECTORY if each.kind is Kind.DIRECTORY else DROPPED
            notes.append(Finding(each.path, -1, what, f"{each.mode:o}{detail}"))
        bare.append(each._replace(mode=each.mode & ~_SPECIAL_BITS))
    return bare, kept, notes


def is_privileged(prefix: bytes, found: Found) -> bool:
    """Whether a program runs with more rights than its user's: the loader then takes no ``$ORIGIN``."""
    if found.mode & _SPECIAL_BITS:
        return True
    return bool(found.mode & 0o111) and _CAPABILITY in attributes_of(_full(prefix, found))


def _full(prefix: bytes, found: Found) -> bytes:
    return prefix + b"/" + found.path


def _unfit(verdict: Examined) -> str:
    """Say why a file does not keep its privileges although it was asked for, or return nothing."""
    if verdict.references or verdict.findings or verdict.layers:
        return "it names the prefix; set it again when it is relocated"
    return "it is generated" if verdict.standing is Standing.GENERATED else ""


def _dropped(path: bytes, attributes: Sequence[str]) -> Iterator[Finding]:
    """Note the attributes that no archive holds: one for an ACL, one for each other."""
    acls = [name for name in attributes if name in _ACLS]
    if acls:
        yield Finding(path, -1, ACL)
    for name in attributes:
        if name != _CAPABILITY and name not in acls and not name.startswith(_OF_THE_SYSTEM):
            yield Finding(path, -1, ATTRIBUTE, encode(os.fsencode(name)))


def _privileges(path: bytes, capable: bool) -> Privileges:
    status = os.lstat(path)
    capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False) if capable else b""
    return Privileges(status.st_uid, status.st_gid, _user(status.st_uid), _group(status.st_gid), capability)


def _user(uid: int) -> bytes:
    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return b""


def _group(gid: int) -> bytes:
    try:
        return os.fsencode(grp.getgrgid(gid).gr_name)
    except KeyError:
        return b""


def same_but_case(paths: Iterable[bytes]) -> list[Finding]:
    """Note the paths that are one on a file system which tells no case apart, as that of macOS by default.

    Such a file system tells no spellings of an accent apart, either.
    """
    first: dict[bytes | str, bytes] = {}
    notes = []
    for path in paths:
        key = path.lower() if path.isascii() else _folded(path)
        known = first.setdefault(key, path)
        if known != path:
            notes.append(Finding(path, -1, CASE, f"from {encode(known)}"))
    return notes


def _folded(path: bytes) -> bytes:
    text = unicodedata.normalize("NFD", path.decode("utf-8", "surrogateescape"))
    return unicodedata.normalize("NFD", text.casefold()).encode("utf-8", "surrogateescape")
