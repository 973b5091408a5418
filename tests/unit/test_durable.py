"""A file changes as a whole or not at all, under the permissions that trees really have."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from installer_stub import durable
from installer_stub.errors import TreeReadOnly
from tests.unit.other_user import NOBODY, nobody, open_directory

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

ANY = 2**32 - 1
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    directory = tmp_path / "staging"
    directory.mkdir()
    return directory


def staged(directory: Path, content: bytes = b"new") -> bytes:
    (directory / "0").write_bytes(content)
    return bytes(directory / "0")


def test_replace_keeps_the_mode_and_leaves_the_old_inode_alone(tmp_path: Path, staging: Path) -> None:
    """Whoever runs or maps the old file keeps it; so does another name of it, in a package cache."""
    path, cache = tmp_path / "file", tmp_path / "cache"
    path.write_bytes(b"old")
    path.chmod(0o751)
    cache.hardlink_to(path)
    with path.open("rb") as reader:
        durable.replace(staged(staging), bytes(path))
        assert reader.read() == b"old"
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o751)
    assert cache.read_bytes() == b"old"
    assert os.listdir(staging) == []


def test_a_running_program_is_replaced(tmp_path: Path, staging: Path) -> None:
    """Opening it for writing would fail: text file busy."""
    path = tmp_path / "sleep"
    path.write_bytes(Path("/bin/sleep").read_bytes())
    path.chmod(0o755)
    with subprocess.Popen([path, "60"]) as running:
        try:
            with pytest.raises(OSError, match="busy"):
                path.open("r+b").close()
            durable.replace(staged(staging), bytes(path))
            assert running.poll() is None
        finally:
            running.kill()
    assert path.read_bytes() == b"new"


@needs_root
def test_replace_keeps_the_owner(tmp_path: Path, staging: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o640)
    os.chown(path, NOBODY, NOBODY)
    durable.replace(staged(staging), bytes(path))
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY, NOBODY, 0o640)


def test_a_directory_that_its_owner_may_not_write_is_opened_for_a_moment() -> None:
    """Packages hold such directories."""
    with open_directory() as room, nobody_owns(room):
        (room / "tree").mkdir()
        (room / "tree/file").write_bytes(b"old")
        (room / "tree").chmod(0o555)
        (room / "staging").mkdir()
        durable.replace(staged(room / "staging"), bytes(room / "tree/file"))
        assert (room / "tree/file").read_bytes() == b"new"
        assert (room / "tree").stat().st_mode & 0o777 == 0o555


class nobody_owns:  # noqa: N801 - reads as the statement that it is
    """Give a directory to nobody, and be nobody in the block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._nobody = nobody()

    def __enter__(self) -> None:
        if os.geteuid() == 0:
            os.chown(self._directory, NOBODY, NOBODY)
        self._nobody.__enter__()

    def __exit__(self, *error: object) -> None:
        self._nobody.__exit__(None, None, None)


def test_write_makes_and_replaces(tmp_path: Path, staging: Path) -> None:
    path = bytes(tmp_path / "file")
    for content, mode in ((b"one", 0o644), (b"two", 0o755)):
        durable.write(path, content, mode, bytes(staging))
        assert (Path(os.fsdecode(path)).read_bytes(), os.stat(path).st_mode & 0o7777) == (content, mode)
    assert os.listdir(staging) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, staging: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(TypeError):
        durable.write(bytes(tmp_path / "file"), None, 0o644, bytes(staging))  # type: ignore[arg-type]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(staging) == []


def attribute(path: Path, name: str, value: bytes) -> None:
    if sys.platform != "linux":
        pytest.skip("Python sets no extended attributes here")
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"{name} on this file system: {error.strerror}")


def test_replace_keeps_attributes_and_acls(tmp_path: Path, staging: Path) -> None:
    """Without its ACL the mask in the mode would become what the group may do."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    acl = struct.pack("<I" + "HHI" * 5, 2, 1, 6, ANY, 2, 6, 12345, 4, 4, ANY, 16, 6, ANY, 32, 4, ANY)
    attribute(path, "user.origin", b"here")
    attribute(path, "system.posix_acl_access", acl)
    assert durable.replace(staged(staging), bytes(path)) == []
    assert (path.read_bytes(), os.getxattr(path, "user.origin")) == (b"new", b"here")
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert path.stat().st_mode & 0o7777 == 0o664


@needs_root
def test_replace_by_root_keeps_privileges_with_their_owner(tmp_path: Path, staging: Path) -> None:
    path = tmp_path / "tool"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, 7)
    path.chmod(0o6711)
    attribute(path, "security.capability", CAPABILITY)
    assert durable.replace(staged(staging), bytes(path)) == []
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o6711, NOBODY, 7)
    assert os.getxattr(path, "security.capability") == CAPABILITY


@needs_root
@pytest.mark.parametrize("owner", [(0, 23456), (NOBODY, 23456), (0, 0)], ids=["both", "its group", "its user"])
def test_replace_makes_no_setuid_file_of_another_owner(owner: tuple[int, int]) -> None:
    """Whoever may write the tree replaces root's file by one of their own: which gets none of root's bits."""
    with open_directory() as room:
        for name in ("tree", "staging"):
            (room / name).mkdir()
            os.chown(room / name, NOBODY, NOBODY)
        path = room / "tree/tool"
        path.write_bytes(b"old")
        attribute(path, "user.origin", b"here")
        os.chown(path, *owner)
        path.chmod(0o6755)
        capable = owner[0] == 0
        if capable:
            attribute(path, "security.capability", CAPABILITY)
        with nobody():
            lost = durable.replace(staged(room / "staging"), bytes(path))
            status = path.stat()
            assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (NOBODY, 0, 0o755)
            assert path.read_bytes() == b"new"
        assert set(lost) == {"setuid or setgid bit", *(["file capability"] if capable else [])}
        assert "security.capability" not in os.listxattr(path)


@needs_root
def test_replace_keeps_one_s_own_setuid_file(tmp_path: Path) -> None:
    with open_directory() as room:
        os.chown(room, NOBODY, NOBODY)
        with nobody():
            (room / "tool").write_bytes(b"old")
            (room / "tool").chmod(0o4755)
            (room / "staging").mkdir()
            assert durable.replace(staged(room / "staging"), bytes(room / "tool")) == []
            assert (room / "tool").stat().st_mode & 0o7777 == 0o4755


@needs_root
def test_replace_keeps_the_group_where_it_cannot_keep_the_user() -> None:
    """In a tree that a group shares, its other members must go on reading the file."""
    with open_directory() as room:
        room.chmod(0o777)
        (room / "file").touch()
        os.chown(room / "file", 12345, 23456)
        program = (
            "import sys; from pathlib import Path; from installer_stub import durable\n"
            "room = Path(sys.argv[1]); (room / 'new').touch()\n"
            "print(durable.replace(bytes(room / 'new'), bytes(room / 'file')))"
        )
        member = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=23456"]
        where = Path(durable.__file__).parents[1]
        done = subprocess.run([*member, sys.executable, "-c", program, room], cwd=where, stdout=subprocess.PIPE)
        assert done.stdout == b"[]\n"
        status = (room / "file").stat()
        assert (status.st_uid, status.st_gid) == (NOBODY, 23456)


@needs_root
def test_a_copy_in_place_of_a_link_makes_no_setuid_file_of_another_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without hard links are rare, and one that has setuid bits is not here: os.link refuses instead."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    with open_directory() as room:
        os.chown(room, NOBODY, NOBODY)
        (room / "first").write_bytes(b"data")
        (room / "first").chmod(0o4755)
        (room / "second").touch()
        monkeypatch.setattr(os, "link", refuse)
        with nobody():
            (room / "staging").mkdir()
            durable.link(bytes(room / "first"), bytes(room / "second"), bytes(room / "staging"))
            status = (room / "second").stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (NOBODY, 0o755)
        assert (room / "second").read_bytes() == b"data"


def test_links_replace_what_was_there(tmp_path: Path, staging: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"data")
    second.write_bytes(b"other")
    for _ in range(2):  # the second time they are one inode already
        durable.link(bytes(first), bytes(second), bytes(staging))
        assert second.samefile(first)
        durable.symlink(b"first", bytes(tmp_path / "link"), bytes(staging))
        assert (tmp_path / "link").readlink() == Path("first")
        assert os.listdir(staging) == []


def test_remove_is_content_with_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        durable.remove(bytes(tmp_path / "file"))
        assert not (tmp_path / "file").exists()


def test_flush_takes_a_directory(tmp_path: Path) -> None:
    durable.flush(bytes(tmp_path))
    with pytest.raises(FileNotFoundError):
        durable.flush(bytes(tmp_path / "missing"))


def dead() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_staging_is_one_s_own_and_goes_away(tmp_path: Path) -> None:
    with durable.staging(bytes(tmp_path), bytes(tmp_path)) as directory:
        assert os.stat(directory).st_mode & 0o777 == 0o700
        Path(os.fsdecode(directory), "file").touch()
        name = os.path.basename(directory)
        assert name.startswith(b"staging-" + os.uname().nodename.encode() + b"-%d-" % os.getpid())
    assert os.listdir(tmp_path) == []


def test_staging_removes_what_a_killed_process_of_this_host_left(tmp_path: Path) -> None:
    host = os.uname().nodename
    left = [f"staging-{host}-{dead()}-1"]
    kept = [
        f"staging-{host}-{os.getppid()}-1",
        f"staging-elsewhere-{dead()}-1",
        f"staging-{host}-x-1",
        f"staging-{host}",
        "staging-",
        "other",
    ]
    for name in (*left, *kept):
        (tmp_path / name / "below").mkdir(parents=True)
    with durable.staging(bytes(tmp_path), bytes(tmp_path)):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_staging_of_another_host_is_removed_when_it_is_a_week_old(tmp_path: Path) -> None:
    """Nobody here can ask whether that process lives; containers leave one for each run that was killed."""
    now = time.time()
    for name, age in (("old", 8), ("new", 6)):
        (tmp_path / f"staging-{name}-1-1" / "below").mkdir(parents=True)
        os.utime(tmp_path / f"staging-{name}-1-1", (now - age * 86_400, now - age * 86_400))
    with durable.staging(bytes(tmp_path), bytes(tmp_path)):
        pass
    assert os.listdir(tmp_path) == ["staging-new-1-1"]


def test_litter_that_is_a_symlink_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / f"tree/staging-{os.uname().nodename}-{dead()}-1").symlink_to(tmp_path / "outside")
    with durable.staging(bytes(tmp_path / "tree"), bytes(tmp_path / "tree")):
        pass
    assert (tmp_path / "outside/file").exists()


def test_a_tree_of_somebody_else_is_read_only() -> None:
    with open_directory() as room:
        (room / "tree").mkdir()
        (room / "tree/file").touch()
        (room / "tree").chmod(0o555)
        with nobody(), pytest.raises(TreeReadOnly, match=r"cannot be written \(Permission denied\)") as caught:  # noqa: SIM117
            with durable.staging(bytes(room), bytes(room / "tree")):
                pass
        assert caught.value.code == 9


@needs_root
def test_a_directory_of_somebody_else_in_the_tree_is_told_before_the_start() -> None:
    with open_directory() as room:
        (room / "tree").mkdir()
        (room / "staging").mkdir()
        with nobody(), pytest.raises(TreeReadOnly, match="belongs to somebody else"):
            durable.require_replaceable(bytes(room), b"tree/file", bytes(room / "staging"))
        os.chown(room / "tree", NOBODY, NOBODY)
        (room / "tree").chmod(0o555)
        with nobody():
            durable.require_replaceable(bytes(room), b"tree/file", bytes(room / "staging"))


def test_a_directory_on_another_file_system_is_told_before_the_start(tmp_path: Path, staging: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == staging.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    with pytest.raises(TreeReadOnly, match="another file system"):
        durable.require_replaceable(bytes(other), b"file", bytes(staging))


def test_a_symlink_out_of_the_tree_is_told_before_the_start(tmp_path: Path, staging: Path) -> None:
    """Nothing outside of the tree is written; a symlink that stays inside it is a directory like any other."""
    root, outside = tmp_path / "tree", tmp_path / "outside"
    for directory in (root / "usr" / "bin", outside):
        directory.mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    durable.require_replaceable(bytes(root), b"bin/activate", bytes(staging))
    (root / "bin").unlink()
    (root / "bin").symlink_to(outside)
    with pytest.raises(TreeReadOnly, match=r"leads out of it through a symlink\. Nothing was changed\."):
        durable.require_replaceable(bytes(root), b"bin/activate", bytes(staging))


HOLD = """
import sys
from installer_stub import durable
with durable.lock(sys.argv[1].encode()):
    print("held", flush=True)
    sys.stdin.read()
print("free", flush=True)
"""


def test_two_processes_do_not_hold_the_lock_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start() as first, start() as second:
        assert first.stdin and first.stdout and second.stdin and second.stdout
        try:
            # Whichever was first holds it; the other has said nothing when the first ends.
            import select

            ready, _, _ = select.select([first.stdout, second.stdout], [], [], 60)
            holder, waiter = (first, second) if first.stdout in ready else (second, first)
            assert holder.stdout and holder.stdin and waiter.stdout and waiter.stdin
            assert holder.stdout.readline() == "held\n"
            assert select.select([waiter.stdout], [], [], 0.3)[0] == []
            holder.stdin.close()
            assert holder.stdout.readline() == "free\n"
            assert waiter.stdout.readline() == "held\n"
            waiter.stdin.close()
            assert waiter.stdout.readline() == "free\n"
        finally:
            first.kill()
            second.kill()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.kill()
    with durable.lock(bytes(tmp_path)):
        pass


def test_without_a_place_for_the_lock_the_work_goes_on(tmp_path: Path) -> None:
    done = False
    with durable.lock(bytes(tmp_path / "missing")):
        done = True
    assert done


def test_an_error_under_the_lock_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(KeyError), durable.lock(bytes(tmp_path)):
        raise KeyError
