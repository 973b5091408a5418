"""What packing keeps is never wrong: damaged, foreign or missing, it is made again."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pwd
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

import pytest

from installer_stub.errors import UsageError
from installer_stub.model import Kind
from pack import cache as caches
from pack import recall, scan, workers
from pack.archive import Format, Member, Privileges, pieces
from pack.archive.pieces import write_compressed
from pack.archive.tar import write_tar
from pack.cache import Cache
from pack.compress import Block, compressor
from pack.environment import find
from pack.examine import Job
from pack.stub import store

KEY = hashlib.sha256(b"a piece").digest()
BLOCKS = [Block(b"x" * 100_000, b"note 1"), Block(b"", b"note 2"), Block(b"z", b"n")]
BLOCKED = [Format.TAR_GZ, Format.TAR_BZ2, Format.TAR_XZ]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def keep(cache: Cache, key: bytes = KEY, blocks: Sequence[Block] = BLOCKS) -> None:
    piece = cache.keep(key)
    assert piece is not None
    for block in blocks:
        piece.add(block)
    piece.done()


def files(cache: Cache) -> list[Path]:
    return sorted(path for path in cache.directory.rglob("*") if path.is_file())


# The store


def test_a_piece_comes_back(cache: Cache) -> None:
    assert cache.find(KEY) is None
    keep(cache)
    found = Cache(cache.directory).find(KEY)
    assert found is not None
    assert list(found) == BLOCKS
    assert cache.find(hashlib.sha256(b"another").digest()) is None


def test_every_damage_is_found(cache: Cache) -> None:
    """Whatever byte is another, and wherever it is cut."""
    keep(cache, blocks=[Block(b"abc", b"12"), Block(b"de", b"3")])
    [path] = files(cache)
    sound = path.read_bytes()
    for at in range(len(sound)):
        path.write_bytes(sound[:at])
        assert cache.find(KEY) is None, f"cut at {at}"
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        assert cache.find(KEY) is None, f"changed at {at}"
    path.write_bytes(sound)
    assert cache.find(KEY) is not None


def test_a_piece_that_is_not_finished_is_none(cache: Cache) -> None:
    piece = cache.keep(KEY)
    assert piece is not None
    piece.add(BLOCKS[0])
    assert cache.find(KEY) is None
    del piece
    assert files(cache) == []


def test_a_scan_comes_back_unless_it_is_damaged(cache: Cache) -> None:
    assert cache.load("name") is None
    cache.save("name", b"what was found")
    assert cache.load("name") == b"what was found"
    [path] = files(cache)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert cache.load("name") is None


def test_what_was_not_used_for_longest_goes_first(cache: Cache) -> None:
    keys = [hashlib.sha256(b"%d" % number).digest() for number in range(4)]
    for number, key in enumerate(keys):
        keep(cache, key, [Block(bytes(1000), b"n")])
        os.utime(files(cache)[0].parent.parent / key.hex()[:2] / key.hex(), (number, number))
    assert cache.find(keys[0]) is not None  # used again
    cache.set_limit(2500)
    assert [cache.find(key) is not None for key in keys] == [True, False, False, True]
    assert Cache(cache.directory).limit == 2500
    assert cache.contents().pieces == 2


def test_nothing_is_kept_beyond_the_limit(cache: Cache) -> None:
    cache.set_limit(1000)
    keep(cache)  # which is larger by itself
    assert cache.keep(hashlib.sha256(b"another").digest()) is None
    cache.tidy()
    assert files(cache) == [cache.directory / "limit"]
    cache.set_limit(0)
    cache.save("name", b"found")
    assert cache.keep(KEY) is None
    assert files(cache) == [cache.directory / "limit"]


def test_what_a_killed_run_left_goes_after_a_day(cache: Cache) -> None:
    keep(cache)
    young, old = (files(cache)[0].with_name(f"{name}.partial") for name in ("young", "old"))
    young.touch()
    old.touch()
    os.utime(old, (0, time.time() - 25 * 3600))
    cache.tidy()
    assert young.exists()
    assert not old.exists()
    assert cache.find(KEY) is not None


def test_all_is_removed_but_what_is_not_ours(cache: Cache) -> None:
    keep(cache)
    cache.save("name", b"found")
    (cache.directory / "mine").touch()
    cache.clear()
    assert files(cache) == [cache.directory / "mine"]


def test_others_may_not_write_to_it(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    for mode in (0o777, 0o775, 0o702):
        (tmp_path / "shared").chmod(mode)
        with pytest.raises(UsageError, match="others may write to it"):
            Cache(tmp_path / "shared")
    (tmp_path / "shared").chmod(0o755)
    Cache(tmp_path / "shared")
    assert Cache(tmp_path / "new").directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory to somebody else")
def test_it_belongs_to_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(UsageError, match="belongs to somebody else"):
        Cache(tmp_path / "theirs")


def test_a_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be the cache"):
        Cache(tmp_path / "file")


def test_without_space_no_more_is_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_SPARE", 1 << 62)
    assert cache.keep(KEY) is None
    assert "are free there" in cache.trouble


def test_an_error_while_keeping_ends_the_keeping_alone(cache: Cache) -> None:
    piece = cache.keep(KEY)
    assert piece is not None
    os.close(piece._file.fileno())  # as if the disk were gone
    piece.add(Block(bytes(1 << 20), b"n"))
    piece.done()
    assert "no more is kept there" in cache.trouble
    assert cache.keep(KEY) is None
    assert cache.find(KEY) is None


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ({"HOME": "{home}", "XDG_CACHE_HOME": ""}, "{home}/.cache/relopack/packing"),
        ({"HOME": "/nonexistent", "XDG_CACHE_HOME": "{home}/cache"}, "{home}/cache/relopack/packing"),
        ({"HOME": "/nonexistent/home", "XDG_CACHE_HOME": ""}, None),
    ],
)
def test_where_it_is(
    surroundings: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a home nothing is made, and nothing is kept."""
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    assert caches.default() == (Path(expected.format(home=tmp_path)) if expected is not None else None)


def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the root directory."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    assert store.cache() == Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache", "relopack")


# Streams put together from pieces


def members(changed: bytes = b"") -> Iterator[Member]:
    """Yield members of many sizes, of which one may be changed, and one is not known beforehand."""
    for number in range(400):
        path = b"lib/%03d/%s" % (number // 7, b"long" * (number % 40))
        noise = hashlib.shake_128(b"%d%s" % (number, changed if number == 250 else b""))
        content = noise.digest(1 + number * number // 10) + b"text, and more of it\n" * number
        digest = hashlib.sha256(content).hexdigest() if number != 30 else ""

        def chunks(content: bytes = content) -> Iterator[bytes]:
            yield content

        yield Member(path, Kind.FILE, 0o644, 7, len(content), b"", chunks, None, digest)
        yield Member(path + b".link", Kind.SYMLINK, 0o777, 7, 0, b"target", lambda: iter(()))


def stream(format: Format, cache: Cache | None, changed: bytes = b"", threads: int = 2) -> bytes:
    out = io.BytesIO()
    with compressor(out, format, 1, threads) as packed:
        write_compressed(members(changed), packed, cache, b"seed")
    return out.getvalue()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("format", BLOCKED)
def test_a_stream_from_pieces_has_the_same_bytes(format: Format, threads: int, cache: Cache) -> None:
    for changed in (b"", b"", b"other", b"other", b""):
        assert stream(format, cache, changed, threads) == stream(format, None, changed, 1)
    assert cache.contents().pieces > 0


@pytest.mark.parametrize("format", [*BLOCKED, Format.TAR, Format.TAR_ZST])
def test_it_holds_the_tar(format: Format, cache: Cache, tmp_path: Path) -> None:
    plain = io.BytesIO()
    write_tar(members(), plain)
    program = {Format.TAR_GZ: "gzip", Format.TAR_BZ2: "bzip2", Format.TAR_XZ: "xz", Format.TAR_ZST: "zstd"}
    for _ in range(2):
        packed = stream(format, cache)
        if format in program:
            command = [program[format], "-dc"]
            packed = subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True).stdout
        assert packed == plain.getvalue()


def test_one_change_changes_few_pieces(cache: Cache) -> None:
    """Beside the piece in which it is, no other is another."""
    stream(Format.TAR_GZ, cache)
    before = {path.name for path in files(cache)}
    stream(Format.TAR_GZ, cache, b"other")
    after = {path.name for path in files(cache)}
    assert len(before) > 3
    assert len(after - before) == 1


FACTS = Member(b"lib/a", Kind.FILE, 0o644, 7, 3, b"", lambda: iter((b"abc",)), None, "0" * 64)
OWNER = Privileges(0, 0, b"root", b"root")


@pytest.mark.parametrize(
    "other",
    [
        FACTS._replace(path=b"lib/b"),
        FACTS._replace(kind=Kind.SYMLINK, target=b"a", size=0),
        FACTS._replace(mode=0o755),
        FACTS._replace(mtime=8),
        FACTS._replace(sha256="1" * 64),
        FACTS._replace(privileges=OWNER),
        FACTS._replace(privileges=OWNER._replace(capability=b"c")),
    ],
)
def test_another_member_is_another_piece(other: Member, cache: Cache) -> None:
    for number, member in enumerate((FACTS, other, FACTS)):
        with compressor(io.BytesIO(), Format.TAR_GZ, 1, 1) as packed:
            write_compressed([member], packed, cache, b"seed")
        assert cache.contents().pieces == min(number + 1, 2)


def test_another_program_makes_other_pieces(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(Format.TAR_GZ, cache)
    count = cache.contents().pieces
    monkeypatch.setattr(pieces, "_program", lambda: b"another")
    stream(Format.TAR_GZ, cache)
    assert cache.contents().pieces == 2 * count


def test_a_damaged_piece_is_made_again(cache: Cache) -> None:
    right = stream(Format.TAR_GZ, cache)
    for path in files(cache):
        path.write_bytes(path.read_bytes()[:-3])
    assert stream(Format.TAR_GZ, cache) == right
    kept = [path.read_bytes() for path in files(cache)]
    assert stream(Format.TAR_GZ, cache) == right
    assert [path.read_bytes() for path in files(cache)] == kept


def test_crcs_are_joined() -> None:
    """The checksum of a gzip member is computed from those of its blocks, of whatever length."""
    for length in (0, 1, 2, 7, 255, 262_143, 262_144, 300_001):
        out = io.BytesIO()
        data = os.urandom(length) + b"end"
        with compressor(out, Format.TAR_GZ, 1) as packed:
            for start in range(0, len(data), 100_003):
                packed.begin(None)
                packed.write(data[start : start + 100_003])
        assert int.from_bytes(out.getvalue()[-8:-4], "little") == zlib.crc32(data)


# Verdicts


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "opt" / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib/python3.11/site-packages/tool").mkdir(parents=True)
    (prefix / "bin" / "tool").write_bytes(b"#!" + os.fsencode(prefix) + b"/bin/sh\n")
    (prefix / "lib" / "plain").write_bytes(b"plain\n")
    (prefix / "lib" / "data.bin").write_bytes(b"\0" + os.fsencode(prefix) + b"/share\0")
    (prefix / "lib/python3.11/site-packages/tool/a.py").write_bytes(b"import os\n")
    return prefix


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect the paths of the files that are examined, and let every file count as settled."""
    paths: list[bytes] = []
    real = workers.examined

    def noted(jobs: Sequence[Job], *rest: object) -> Iterator[object]:
        paths.extend(job.path for job in jobs)
        return real(jobs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(workers, "examined", noted)
    monkeypatch.setattr(recall, "_UNSETTLED", -(10**12))
    return paths


def scanned(prefix: Path, cache: Cache | None, **options: bool) -> scan.Scan:
    return scan.scan(find(None, str(prefix)), scan.Options(1, cache=cache, **options))  # type: ignore[arg-type]


def test_only_what_changed_is_examined_again(prefix: Path, cache: Cache, examined: list[bytes]) -> None:
    first = scanned(prefix, cache)
    assert len(examined) == 4
    examined.clear()
    assert scanned(prefix, cache) == first == scanned(prefix, None)
    assert sorted(examined) == sorted(item.entry.path for item in first.items if item.entry.kind is Kind.FILE)
    examined.clear()
    (prefix / "lib" / "plain").write_bytes(b"other\n")
    changed = scanned(prefix, cache)
    assert examined == [b"lib/plain"]
    assert changed == scanned(prefix, None)


def test_a_python_that_writes_enums_by_name_remembers_too(
    prefix: Path, cache: Cache, examined: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CPython 3.11.2 does, Debian 12's."""
    monkeypatch.setattr(Enum, "__reduce_ex__", lambda self, protocol: (getattr, (type(self), self.name)))
    first = scanned(prefix, cache)
    examined.clear()
    assert scanned(prefix, cache) == first
    assert examined == []


def test_size_and_time_do_not_hide_a_change(prefix: Path, cache: Cache, examined: list[bytes]) -> None:
    """Whoever restores both cannot restore the time of the change."""
    scanned(prefix, cache)
    status = (prefix / "lib" / "plain").stat()
    (prefix / "lib" / "plain").write_bytes(b"PLAIN\n")
    os.utime(prefix / "lib" / "plain", ns=(status.st_atime_ns, status.st_mtime_ns))
    examined.clear()
    again = scanned(prefix, cache)
    assert examined == [b"lib/plain"]
    assert again == scanned(prefix, None)


def test_what_changed_just_now_is_not_trusted(
    prefix: Path, cache: Cache, examined: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_UNSETTLED", 10**11)
    scanned(prefix, cache)
    scanned(prefix, cache)
    assert len(examined) == 8


def test_untrusted_times_have_all_read(prefix: Path, cache: Cache, examined: list[bytes]) -> None:
    scanned(prefix, cache)
    scanned(prefix, cache, trust_mtime=False)
    assert len(examined) == 8
    scanned(prefix, cache)
    assert len(examined) == 8


def test_other_options_and_other_names_are_not_confused(prefix: Path, cache: Cache, examined: list[bytes]) -> None:
    scanned(prefix, cache)
    scanned(prefix, cache, grow_run_paths=True)
    assert len(examined) == 8
    moved = prefix.rename(prefix.with_name("env2"))
    scanned(moved, cache)
    assert len(examined) == 12


def test_nothing_but_verdicts_is_loaded(prefix: Path, cache: Cache, examined: list[bytes], tmp_path: Path) -> None:
    """A file in the cache that is no list of verdicts does nothing, even one that its checksum fits."""
    first = scanned(prefix, cache)
    [path] = (cache.directory / "scans").iterdir()

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "evil"),)

    for content in (pickle.dumps(Evil()), pickle.dumps([1]), pickle.dumps({b"x": pickle.dumps(Evil())}), b"", b"\x80"):
        cache.save(path.name, content)
        assert scanned(prefix, cache) == first
    assert not (tmp_path / "evil").exists()


def test_a_common_prefix_is_not_remembered(
    prefix: Path, cache: Cache, examined: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a path counts if it is in the tree, so that a verdict depends on other files."""
    monkeypatch.setattr(scan, "is_common", lambda name: True)
    scanned(prefix, cache)
    scanned(prefix, cache)
    assert len(examined) == 8
