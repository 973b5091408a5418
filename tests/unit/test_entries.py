"""Bits, capabilities and attributes: told one by one, dropped, and kept where that was asked for and is safe."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from installer_stub import walk
from installer_stub.model import Finding, Kind
from pack import entries
from pack.archive import Privileges
from pack.environment import Environment, Layout
from pack.scan import Item, Options, Scan, scan

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set capabilities and give files away")

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
ACL = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 6, 12345, 4, 4, 2**32 - 1, 16, 6, 2**32 - 1, 32, 4, 2**32 - 1
)


def scanned(prefix: Path, keep: bool = False) -> Scan:
    return scan(Environment(prefix, Layout.PLAIN, (bytes(prefix),)), Options(1, keep_setuid=keep))


def item(found: Scan, path: str) -> Item:
    (found_there,) = [each for each in found.items if each.entry.path == path.encode()]
    return found_there


def attribute(path: Path, name: str, value: bytes) -> None:
    if sys.platform != "linux":
        pytest.skip("Python sets no extended attributes here")
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        pytest.skip(f"{name} on this file system: {error.strerror}")


def test_bits_are_dropped_and_told(tmp_path: Path) -> None:
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2750), ("both", 0o6711), ("sticky", 0o1755), ("plain", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "second name").hardlink_to(tmp_path / "setuid")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o3775)
    found = scanned(tmp_path)
    assert {each.entry.path: each.entry.mode for each in found.items} == {
        b"setuid": 0o755,
        b"second name": 0o755,
        b"setgid": 0o750,
        b"both": 0o711,
        b"sticky": 0o1755,
        b"plain": 0o644,
        b"shared": 0o1775,
    }
    assert {each.privileges for each in found.items} == {None}
    assert list(found.notes) == [
        Finding(b"shared", -1, entries.DROPPED_OF_DIRECTORY, "3775"),
        Finding(b"both", -1, entries.DROPPED, "6711"),
        Finding(b"second name", -1, entries.DROPPED, "4755"),
        Finding(b"setgid", -1, entries.DROPPED, "2750"),
        Finding(b"setuid", -1, entries.DROPPED, "4755"),
    ]


def test_bits_are_kept_on_demand_with_their_owner(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(0o4755)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o2775)
    (tmp_path / "plain").touch()
    found = scanned(tmp_path, keep=True)
    owner = (tmp_path / "a").stat()
    for name, mode in (("a", 0o4755), ("b", 0o4755), ("d", 0o2775)):
        privileges = item(found, name).privileges
        assert privileges is not None
        assert (privileges.uid, privileges.gid, item(found, name).entry.mode) == (owner.st_uid, owner.st_gid, mode)
        assert os.fsdecode(privileges.user) == (tmp_path / "a").owner()
        assert os.fsdecode(privileges.group) == (tmp_path / "a").group()
    assert item(found, "b").entry.kind is Kind.HARD_LINK
    assert item(found, "plain").privileges is None
    assert found.notes == ()


@needs_root
def test_an_owner_without_a_name_is_kept_by_number(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.chown(tmp_path / "a", 3_000_000_001, 3_000_000_002)
    (tmp_path / "a").chmod(0o6755)
    privileges = item(scanned(tmp_path, keep=True), "a").privileges
    assert privileges == Privileges(3_000_000_001, 3_000_000_002, b"", b"")


def test_a_file_that_names_the_prefix_keeps_no_bits(tmp_path: Path) -> None:
    """Before it is relocated it would run, with its owner's rights, what anybody puts at the old place."""
    (tmp_path / "a").write_bytes(b"\x7fELF\0 %s/lib/x\0" % bytes(tmp_path))
    (tmp_path / "a").chmod(0o4755)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    found = scanned(tmp_path, keep=True)
    assert found.manifest.files[0].names == (b"b",)
    for name in ("a", "b"):
        assert (item(found, name).entry.mode, item(found, name).privileges) == (0o755, None)
    detail = "4755: it names the prefix; set it again when it is relocated"
    assert list(found.notes) == [Finding(name, -1, entries.DROPPED, detail) for name in (b"a", b"b")]


@needs_root
def test_capabilities_are_told_and_kept_on_demand(tmp_path: Path) -> None:
    (tmp_path / "ping").touch()
    attribute(tmp_path / "ping", "security.capability", CAPABILITY)
    found = scanned(tmp_path)
    assert list(found.notes) == [Finding(b"ping", -1, entries.CAPABILITY)]
    assert item(found, "ping").privileges is None
    found = scanned(tmp_path, keep=True)
    assert found.notes == ()
    privileges = item(found, "ping").privileges
    assert privileges is not None
    assert (privileges.uid, privileges.capability) == (0, CAPABILITY)


@needs_root
def test_capabilities_of_a_file_that_names_the_prefix_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "ping").write_bytes(b"\x7fELF\0 %s/lib/x\0" % bytes(tmp_path))
    attribute(tmp_path / "ping", "security.capability", CAPABILITY)
    found = scanned(tmp_path, keep=True)
    detail = "it names the prefix; set it again when it is relocated"
    assert list(found.notes) == [Finding(b"ping", -1, entries.CAPABILITY, detail)]
    assert item(found, "ping").privileges is None


@pytest.mark.parametrize("keep", [False, True])
def test_attributes_are_told_by_name(tmp_path: Path, keep: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").touch()
    attribute(tmp_path / "file", "user.origin", b"https://example.org")
    attribute(tmp_path / "file", "user.\udcff\n", b"")
    attribute(tmp_path / "directory", "user.origin", b"")
    assert list(scanned(tmp_path, keep).notes) == [
        Finding(b"directory", -1, entries.ATTRIBUTE, "user.origin"),
        Finding(b"file", -1, entries.ATTRIBUTE, "user.origin"),
        Finding(b"file", -1, entries.ATTRIBUTE, "user.%FF%0A"),
    ]


def test_acls_are_told_once_for_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    attribute(tmp_path / "file", "system.posix_acl_access", ACL)
    attribute(tmp_path / "directory", "system.posix_acl_access", ACL)
    attribute(tmp_path / "directory", "system.posix_acl_default", ACL)
    assert list(scanned(tmp_path).notes) == [
        Finding(b"directory", -1, entries.ACL),
        Finding(b"file", -1, entries.ACL),
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["security.selinux", "lustre.lov", "system.nfs4_acl", "trusted.overlay.opaque"], []),
        (["trusted.mine", "security.mine"], ["trusted.mine", "security.mine"]),
    ],
    ids=["those that the system gives to each file are not told", "those that somebody gave are"],
)
def test_whose_attribute_it_is(names: Sequence[str], expected: Sequence[str]) -> None:
    """No file system here shows them: what it would show is made up."""
    assert [note.detail for note in entries._dropped(b"x", names)] == expected


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([b"README", b"a", b"readme", b"ReadMe"], [(b"readme", "README"), (b"ReadMe", "README")]),
        ([b"E", b"E/x", b"e", b"e/x"], [(b"e", "E"), (b"e/x", "E/x")]),
        (["É".encode(), "é".encode()], [("é".encode(), "É")]),
        (["\u00e9".encode(), "e\u0301".encode()], [("e\u0301".encode(), "\u00e9")]),  # one accent, two spellings
        (["straße".encode(), b"STRASSE"], [(b"STRASSE", "straße")]),
        ([b"\xe9", b"\xc9", b"a", b"b"], []),  # Latin-1 is no UTF-8 and has no case
        ([b"a", b"A/b", b"a b", b"a_b"], []),
    ],
)
def test_paths_that_differ_only_by_case(paths: Sequence[bytes], expected: Sequence[tuple[bytes, str]]) -> None:
    notes = [Finding(path, -1, entries.CASE, f"from {other}") for path, other in expected]
    assert entries.same_but_case(paths) == notes


def test_our_own_scripts_may_be_the_other(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/Activate").touch()
    assert list(scanned(tmp_path).notes) == [Finding(b"bin/Activate", -1, entries.CASE, "from bin/activate")]


@needs_root
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("character", "a character device"),
        ("block", "a block device"),
    ],
)
def test_what_no_archive_holds_is_left_out_by_its_name(tmp_path: Path, kind: str, words: str) -> None:
    make_special(tmp_path / "special", kind)
    found = scanned(tmp_path)
    assert found.items == ()
    assert list(found.notes) == [Finding(b"special", -1, "left out", words)]


def make_special(path: Path, kind: str) -> None:
    types = {"fifo": 0o010000, "socket": 0o140000, "character": 0o020000, "block": 0o060000}
    try:
        os.mknod(path, types[kind] | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices may be made here")


@needs_root
def test_a_program_with_capabilities_is_privileged(tmp_path: Path) -> None:
    """The loader takes no $ORIGIN for it, as for one that is setuid."""
    for name, mode in (("plain", 0o755), ("setuid", 0o4755), ("capable", 0o755)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    attribute(tmp_path / "capable", "security.capability", CAPABILITY)
    looked = {name: walk.look(bytes(tmp_path), name.encode()) for name in ("plain", "setuid", "capable")}
    privileged = {name: entries.is_privileged(bytes(tmp_path), found) for name, found in looked.items()}
    assert privileged == {"plain": False, "setuid": True, "capable": True}
