"""Entries that break packers, moved by real tars; docs/entries.md says what to expect."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fixtures.selection import need
from installer_stub import relocate
from installer_stub.errors import OutputError
from installer_stub.model import Finding
from pack import scan
from pack.archive import Format
from pack.environment import find
from pack.write import Options, write
from tests.integration.moving import as_another_user, pack, pack_env, run, short_directory, unpack
from tests.unit.other_user import NOBODY, nobody, open_directory

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and make devices")

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep
MIB = 1 << 20


def with_tar(archive: Path, target: Path) -> None:
    run(["tar", "-xf", archive, "-C", target])


def with_bsdtar(archive: Path, target: Path) -> None:
    run([need("bsdtar"), "-xf", archive, "-C", target])


def with_tarfile(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as file:
        if hasattr(tarfile, "data_filter"):
            file.extractall(target, filter="tar")
        else:
            file.extractall(target)


extractors = pytest.mark.parametrize("extract", [with_tar, with_bsdtar, with_tarfile], ids=lambda e: e.__name__)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    directory = tmp_path / "source" / "env"
    (directory / "bin").mkdir(parents=True)
    (directory / "lib").mkdir()
    names(directory, directory / "bin" / "tool")
    return directory


def names(prefix: Path, path: Path) -> None:
    """Write a script that names the prefix."""
    path.write_text(f"#!/bin/sh\necho {prefix}/lib\n")


def relocated(tree: Path) -> Path:
    """Relocate a tree, which then must be as its manifest says."""
    pack("relocate", tree)
    pack("verify", tree)
    return tree


# --- names ---------------------------------------------------------------------------------------------------

ODD = {
    "255 bytes": b"n" * 255,
    "a newline": b"new\nline",
    "no UTF-8": b"\xff\xfe",
    "control characters": b"\x01\x1b[31m\x7f",
    "a space at the end": b"trailing ",
    "a space in front": b" leading",
    "a dash in front": b"-rf",
    "a percent sign": b"%41",
    "a backslash": b"back\\slash",
    "a pattern": b"*?[a]",
    "quotes": b"'\"`$(x)",
    "UTF-8": "é\N{SNOWMAN}".encode(),
    "three dots": b"...",
}


@extractors
def test_odd_names(prefix: Path, tmp_path: Path, extract: Callable[[Path, Path], None]) -> None:
    """A file, a directory, a symlink and a hard link under every name that file systems take."""
    for name in ODD.values():
        for below in (b"files", b"directories", b"links", b"second"):
            os.makedirs(os.path.join(bytes(prefix), below), exist_ok=True)
        with open(os.path.join(bytes(prefix), b"files", name), "wb") as file:
            file.write(b"%s/lib of %s\n" % (bytes(prefix), name))
        os.mkdir(os.path.join(bytes(prefix), b"directories", name))
        os.symlink(os.path.join(bytes(prefix), b"files", name), os.path.join(bytes(prefix), b"links", name))
        os.link(os.path.join(bytes(prefix), b"files", name), os.path.join(bytes(prefix), b"second", name))
    archive = pack_env(prefix, tmp_path / "env.tar")
    direct = pack_env(prefix, tmp_path / "direct", "--format", "no-archive")
    shutil.rmtree(prefix)
    tree = tmp_path / "elsewhere" / "env"
    tree.mkdir(parents=True)
    extract(archive, tree)
    for each in (tree, direct):
        relocated(each)
        top = bytes(each)
        for name in ODD.values():
            with open(os.path.join(top, b"links", name), "rb") as file:
                assert file.read() == b"%s/lib of %s\n" % (top, name)
            assert os.path.isdir(os.path.join(top, b"directories", name))
            assert os.path.samefile(os.path.join(top, b"files", name), os.path.join(top, b"second", name))


def deep(prefix: Path, count: int, name: str, content: str = "deep") -> str:
    """Make a file below ``count`` directories of 250 bytes each, further down than a path can name; return its path."""
    program = "import os, sys\nfor _ in range(int(sys.argv[1])):\n    os.mkdir('d' * 250); os.chdir('d' * 250)\n"
    program += "open(sys.argv[2], 'w').write(sys.argv[3])"
    run([sys.executable, "-c", program, str(count), name, content], cwd=prefix)
    return "/".join(["d" * 250] * count + [name])


@pytest.fixture
def short() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory
        subprocess.run(["rm", "-rf", directory], check=True)  # rmtree of old Pythons cannot go so deep


def test_paths_that_nobody_can_open_are_named(short: Path) -> None:
    """The system takes no path of more than 4,095 bytes; what is deeper stops packing, or is left out on demand."""
    prefix = short / "env"
    (prefix / "bin").mkdir(parents=True)
    names(prefix, prefix / "bin" / "tool")
    deep(prefix, 20, "x")
    refused = pack("-p", prefix, "-o", short / "env.tar", code=4)
    assert "/".join(["d" * 250] * 15) in refused.stderr
    assert "File name too long" in refused.stderr
    assert "no path of more than 4,095 bytes" in refused.stderr
    assert not (short / "env.tar").exists()
    done = pack("-p", prefix, "-o", short / "env.tar", "--ignore-unreadable")
    assert "1 paths are not archived" in done.stderr
    (short / "tree").mkdir()
    relocated(unpack(short / "env.tar", short / "tree" / "env"))


@pytest.mark.parametrize("extract", [with_tar, with_bsdtar], ids=lambda e: e.__name__)
def test_a_target_where_paths_become_too_long_is_refused(short: Path, extract: Callable[[Path, Path], None]) -> None:
    """Tars go from directory to directory and unpack it all the same; nothing is rewritten by halves."""
    prefix = short / "env"
    (prefix / "bin").mkdir(parents=True)
    path = deep(prefix, 15, "x" * 200, f"{prefix}/lib\n")
    archive = pack_env(prefix, short / "env.tar")
    for length, code in ((40, 0), (200, 7)):
        tree = short / ("t" * length)
        tree.mkdir()
        extract(archive, tree)
        done = pack("relocate", tree, code=code)
        if code:
            most = 4095 - 1 - len(path)
            assert f"Choose a directory of at most {most} bytes. Nothing was changed." in done.stderr
            assert "File name too long" in pack("verify", tree, code=11).stdout
        else:
            pack("verify", tree)
            with open(os.path.join(tree, path)) as file:
                assert file.read() == f"{tree}/lib\n"
    long = short / ("o" * 200)
    long.mkdir()
    done = pack("-p", prefix, "-o", long / "out", "--format", "no-archive", code=5)
    assert "File name too long" in done.stderr
    assert list(long.iterdir()) == []


def test_names_that_differ_only_by_case(prefix: Path, tmp_path: Path) -> None:
    """Both are archived; the report says that one file system of two holds only one of them."""
    for name in ("README", "readme"):
        names(prefix, prefix / "lib" / name)
    scanned = pack("scan", "-p", prefix).stdout
    assert "archived: 1 differs only by case\n  lib/readme: from lib/README" in scanned
    done = pack("-p", prefix, "-o", tmp_path / "env.tar")
    assert done.stderr == ""
    tree = relocated(unpack(tmp_path / "env.tar", tmp_path / "tree"))
    for name in ("README", "readme"):
        assert str(tree) in (tree / "lib" / name).read_text()


# --- symlinks ------------------------------------------------------------------------------------------------


def test_symlinks_lead_to_the_same_after_a_move(prefix: Path, tmp_path: Path) -> None:
    """realpath before and after agree, whatever the link looks like; tests/unit/test_links.py has every kind."""
    (prefix / "lib" / "sub").mkdir()
    for path in ("lib/x", "lib/sub/x"):
        names(prefix, prefix / path)
    texts = {
        "absolute": f"{prefix}/lib/x",
        "directory": f"{prefix}/lib/sub/",
        "chain": f"{prefix}/absolute",
        "chained": f"{prefix}/directory/x",
        "dangling": f"{prefix}/no/such",
        "loop": f"{prefix}/loop",
        "prefix": f"{prefix}",
        "up": f"{prefix}/directory/../x",
        "by name": "../env/lib/x",
        "slashes": f"/{prefix}//lib///x",
        "bytes": f"{prefix}/lib/\udcff",
    }
    for name, text in texts.items():
        (prefix / name).symlink_to(text)
    leaves = {"out": "/usr/share", "relative out": "../../elsewhere", "gone": "/no/such/place"}
    for name, text in leaves.items():
        (prefix / name).symlink_to(text)
    before = {name: os.path.realpath(prefix / name) for name in texts}
    scanned = pack("scan", "-p", prefix).stdout
    assert "not rewritten: 3 leaves the prefix" in scanned
    assert "  relative out: ../../elsewhere" in scanned
    archive = pack_env(prefix, tmp_path / "env.tar")
    direct = pack_env(prefix, tmp_path / "direct", "--format", "no-archive")
    shutil.rmtree(prefix)
    moved = unpack(archive, tmp_path / "one" / "other").rename(tmp_path / "two")
    for tree in (moved, direct):
        assert {name: os.path.realpath(tree / name) for name in texts} == {
            name: path.replace(str(prefix), str(tree)) for name, path in before.items()
        }
        assert {name: os.readlink(tree / name) for name in leaves} == leaves
        relocated(tree)


# --- hard links ----------------------------------------------------------------------------------------------


@extractors
def test_hard_links_stay_links(prefix: Path, tmp_path: Path, extract: Callable[[Path, Path], None]) -> None:
    """One inode, archived once, with a reference or without: linked after unpacking, relocating and moving."""
    (prefix / "lib" / "plain").write_bytes(b"x" * MIB)
    (prefix / "lib" / "below").mkdir()
    groups: dict[str, tuple[str, ...]] = {
        "bin/tool": ("bin/second", "lib/below/third"),
        "lib/plain": ("bin/plain", "lib/below/plain"),
    }
    for first, others in groups.items():
        for other in others:
            (prefix / other).hardlink_to(prefix / first)
    (tmp_path / "cache").hardlink_to(prefix / "bin" / "tool")  # a name outside: clients link to their caches
    (prefix / "lib" / "alone").hardlink_to(tmp_path / "cache")
    groups["bin/tool"] = (*groups["bin/tool"], "lib/alone")
    (prefix / "symlink").symlink_to("bin/tool")
    os.link(prefix / "symlink", prefix / "symlink too", follow_symlinks=False)
    archive = pack_env(prefix, tmp_path / "env.tar")
    assert archive.stat().st_size < 2 * MIB
    direct = pack_env(prefix, tmp_path / "direct", "--format", "no-archive")
    tree = tmp_path / "elsewhere" / "env"
    tree.mkdir(parents=True)
    extract(archive, tree)
    moved = tmp_path / "moved"

    def check(root: Path) -> None:
        for first, others in groups.items():
            assert (root / first).stat().st_nlink == 1 + len(others)
            assert all((root / other).samefile(root / first) for other in others)
        assert [os.readlink(root / name) for name in ("symlink", "symlink too")] == ["bin/tool"] * 2

    check(tree)
    check(relocated(tree))
    check(relocated(direct))
    check(relocated(tree.rename(moved)))
    assert str(moved) in (moved / "lib" / "alone").read_text()
    assert str(prefix) in (tmp_path / "cache").read_text()
    assert (tmp_path / "cache").stat().st_nlink == 5


# --- sparse files --------------------------------------------------------------------------------------------


def test_sparse_files_are_stored_dense(prefix: Path, tmp_path: Path) -> None:
    """The content is equal; a directory output has holes again, tars make none."""
    data = prefix / "lib" / "data"
    with data.open("wb") as file:
        file.write(b"head")
        file.seek(64 * MIB)
        file.write(b"tail")
    assert data.stat().st_blocks * 512 < MIB
    archive = pack_env(prefix, tmp_path / "env.tar")
    assert archive.stat().st_size > 64 * MIB
    direct = pack_env(prefix, tmp_path / "direct", "--format", "no-archive")
    for tree in (direct, unpack(archive, tmp_path / "tree")):
        run(["cmp", data, relocated(tree) / "lib" / "data"])
    assert (direct / "lib" / "data").stat().st_blocks * 512 < 4 * MIB


# --- what is neither a file, a directory nor a link ----------------------------------------------------------


def test_special_files_are_reported_and_left_out(prefix: Path, tmp_path: Path) -> None:
    kinds = {"a FIFO": stat.S_IFIFO, "a socket": stat.S_IFSOCK}
    if os.geteuid() == 0:
        kinds |= {"a character device": stat.S_IFCHR, "a block device": stat.S_IFBLK}
    for words, kind in kinds.items():
        try:
            os.mknod(prefix / words, kind | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("no devices may be made here")
    scanned = pack("scan", "-p", prefix).stdout
    for words in kinds:
        assert f"  {words}: {words}\n" in f"{scanned}\n"
    done = pack("-p", prefix, "-o", tmp_path / "env.tar")
    assert f"{len(kinds)} paths are not archived" in done.stderr
    tree = relocated(unpack(tmp_path / "env.tar", tmp_path / "tree"))
    assert not {path.name for path in tree.iterdir()} & set(kinds)


# --- setuid, setgid, capabilities ----------------------------------------------------------------------------


def privileged(prefix: Path) -> None:
    """Make one file of every kind of privilege, of users that are not the one who packs where root packs."""
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2755), ("named", 0o4755)):
        (prefix / name).write_bytes(b"\x7fELF")
        if name == "named":
            names(prefix, prefix / name)
        if os.geteuid() == 0:
            os.chown(prefix / name, 4001, 4002)
        (prefix / name).chmod(mode)
    (prefix / "second").hardlink_to(prefix / "setuid")
    (prefix / "shared").mkdir()
    (prefix / "shared").chmod(0o2775)


def modes(tree: Path) -> dict[str, int]:
    paths = ("setuid", "second", "setgid", "named", "shared")
    return {name: stat.S_IMODE((tree / name).stat().st_mode) for name in paths}


BARE = {"setuid": 0o755, "second": 0o755, "setgid": 0o755, "named": 0o755, "shared": 0o775}


def test_bits_are_dropped_and_reported(prefix: Path, tmp_path: Path) -> None:
    """Archived as root's and extracted by root, a setuid file of anybody would be root's."""
    privileged(prefix)
    done = pack("-p", prefix, "-o", tmp_path / "env.tar")
    assert "5 paths lose bits or attributes; pack scan lists them" in done.stderr
    scanned = pack("scan", "-p", prefix).stdout
    assert "not archived: 4 setuid or setgid bit dropped" in scanned
    assert "not archived: 1 setgid bit of a directory dropped\n  shared: 2775" in scanned
    tree = tmp_path / "tree"
    tree.mkdir()
    run(["tar", "-xpf", tmp_path / "env.tar", "-C", tree])
    direct = pack_env(prefix, tmp_path / "direct", "--format", "no-archive")
    assert modes(tree) == modes(direct) == BARE
    assert {(tree / name).stat().st_uid for name in BARE} == {os.geteuid()}


@needs_root
@pytest.mark.parametrize(
    "extract",
    [["tar", "--xattrs", "--xattrs-include=security.capability", "-xpf"], ["bsdtar", "-xpf"], []],
    ids=["GNU tar", "bsdtar", "no archive"],
)
def test_bits_are_kept_on_demand_with_their_owner(prefix: Path, tmp_path: Path, extract: list[str]) -> None:
    """Only a file that names the prefix loses its bits: until it is relocated it names somebody else's place."""
    privileged(prefix)
    (prefix / "ping").write_bytes(b"\x7fELF")
    try:
        os.setxattr(prefix / "ping", "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"no capabilities on this file system: {error.strerror}")
    tree = tmp_path / "tree"
    if extract:
        archive = pack_env(prefix, tmp_path / "env.tar", "--keep-setuid")
        tree.mkdir()
        run([need(extract[0]), *extract[1:], archive, "-C", tree])
    else:
        pack_env(prefix, tree, "--keep-setuid", "--format", "no-archive")
    relocated(tree)
    kept = BARE | {"setuid": 0o4755, "second": 0o4755, "setgid": 0o2755, "shared": 0o2775}
    assert modes(tree) == kept
    owners = {name: ((tree / name).stat().st_uid, (tree / name).stat().st_gid) for name in kept}
    assert owners == {name: (4001, 4002) if name in ("setuid", "second", "setgid") else (0, 0) for name in kept}
    assert (tree / "second").samefile(tree / "setuid")
    assert os.getxattr(tree / "ping", "security.capability") == CAPABILITY


@needs_root
def test_extracted_by_somebody_else_the_bits_are_gone_and_nothing_is_damaged(prefix: Path) -> None:
    privileged(prefix)
    with open_directory() as room:
        room.chmod(0o777)
        tree = unpacked_by_nobody(pack_env(prefix, room / "env.tar", "--keep-setuid"), room / "tree")
        relocated_by_nobody(tree)
        pack("verify", tree)
        assert {mode & 0o6000 for name, mode in modes(tree).items() if name != "shared"} == {0}


@needs_root
def test_a_directory_output_with_owners_that_cannot_be_given_is_refused(prefix: Path) -> None:
    privileged(prefix)
    with open_directory() as room:
        room.chmod(0o777)
        shutil.copytree(prefix, room / "env")
        os.chown(room / "env" / "setuid", 4001, 4002)
        (room / "env" / "setuid").chmod(0o4755)
        options = Options(room / "out", Format.DIRECTORY, threads=1, scan=scan.Options(keep_setuid=True))
        write(find(None, room / "env"), options, "1", Silent())
        assert (room / "out" / "setuid").stat().st_uid == 4001
        shutil.rmtree(room / "out")
        with nobody(), pytest.raises(OutputError, match="only root can give it to user"):
            write(find(None, room / "env"), options, "1", Silent())
        assert [path.name for path in room.iterdir()] == ["env"]


@needs_root
def test_bits_set_after_unpacking_outlive_a_relocation_by_root_alone(prefix: Path) -> None:
    """A program that names the prefix gets its bits where it stands. Another's relocation takes them, and says so."""
    with open_directory() as room:
        room.chmod(0o777)
        archive = pack_env(prefix, room / "env.tar")
        for user in ("root", "nobody"):
            tree = relocated(unpack(archive, room / user))
            tool = tree / "bin" / "tool"
            os.chown(tool, 4001, 4002)
            tool.chmod(0o4755)
            tree = tree.rename(room / f"{user}-moved")
            tool = tree / "bin" / "tool"
            if user == "root":
                assert "dropped" not in pack("relocate", tree).stdout
                status = tool.stat()
                assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4001, 4002, 0o4755)
            else:
                for path in (tree, *tree.rglob("*")):
                    if path != tool:
                        os.chown(path, NOBODY, NOBODY)
                findings = relocated_by_nobody(tree)
                assert Finding(b"bin/tool", -1, "dropped", "setuid or setgid bit") in findings
                assert (tool.stat().st_uid, stat.S_IMODE(tool.stat().st_mode)) == (NOBODY, 0o755)
            assert str(tree) in tool.read_text()


def test_a_directory_with_the_setgid_bit_hands_it_down(prefix: Path) -> None:
    """Shared trees are made so: unpacked there, directories have a bit that the archive has not. It is no damage."""
    (prefix / "lib" / "below").mkdir()
    with open_directory() as room:
        archive = pack_env(prefix, room / "env.tar")
        room.chmod(0o2777)
        tree = unpacked_by_nobody(archive, room / "tree")
        if not (tree / "lib" / "below").stat().st_mode & stat.S_ISGID:
            pytest.skip("this tar takes the bit away")
        relocated_by_nobody(tree)
        pack("verify", tree)


class Silent:
    def start(self, what: str, total: int | None) -> None:
        """Say nothing."""

    def advance(self, count: int) -> None:
        """Say nothing."""


def unpacked_by_nobody(archive: Path, tree: Path) -> Path:
    run(as_another_user(["sh", "-c", 'mkdir "$1" && tar -xf "$0" -C "$1"', archive, tree]))
    return tree


def relocated_by_nobody(tree: Path) -> Sequence[Finding]:
    """Relocate a tree as a user who owns nothing else; in this process: that user may not be able to run a ``pack``."""
    with nobody():
        return relocate.relocate(relocate.open_tree(bytes(tree))).findings


# --- extended attributes -------------------------------------------------------------------------------------


def test_attributes_are_dropped_and_counted(prefix: Path, tmp_path: Path) -> None:
    try:
        for name in ("user.one", "user.two"):
            os.setxattr(prefix / "bin" / "tool", name, b"x")
    except (AttributeError, OSError) as error:
        pytest.skip(f"no extended attributes here: {error}")
    done = pack("-p", prefix, "-o", tmp_path / "env.tar")
    assert "1 paths lose bits or attributes" in done.stderr
    scanned = pack("scan", "-p", prefix).stdout
    assert "not archived: 2 extended attribute dropped\n  bin/tool: user.one\n  bin/tool: user.two" in scanned
    tree = relocated(unpack(tmp_path / "env.tar", tmp_path / "tree"))
    assert os.listxattr(tree / "bin" / "tool") == []
    os.setxattr(tree / "bin" / "tool", "user.mine", b"x")
    assert os.getxattr(relocated(tree.rename(tmp_path / "moved")) / "bin" / "tool", "user.mine") == b"x"
