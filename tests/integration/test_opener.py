"""The program that unpacks a stub where there is no tar: what it takes, what it refuses, and that nothing harms it."""

from __future__ import annotations

import gzip
import io
import os
import random
import resource
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from fixtures.selection import cases, need
from pack.stub import parts

DAMAGED = 1
SANITIZER = 99


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The opener by this machine's compiler, with checks that end it at any access or sum that C leaves undefined."""
    compiler = need("gcc")
    made = tmp_path_factory.mktemp("opener") / "opener"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    warnings = ["-std=c99", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    command: list[str | Path] = [compiler, *warnings, *checks, parts.OPENER_SOURCE, "-lz", "-o", made]
    done = subprocess.run(command, capture_output=True, text=True)
    if "zlib.h" in done.stderr:
        pytest.skip("there is no zlib.h: apt-get install zlib1g-dev")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory beside which nothing else lies."""
    path = tmp_path / "room" / "into"
    path.mkdir(parents=True)
    return path


def opened(opener: Path, folder: Path, archive: bytes) -> subprocess.CompletedProcess[bytes]:
    """Unpack an archive; what happened is for the test to judge, but no sanitizer may have complained."""
    env = {"ASAN_OPTIONS": f"exitcode={SANITIZER}", "UBSAN_OPTIONS": f"exitcode={SANITIZER}"}
    done = subprocess.run([opener, folder], input=archive, capture_output=True, env=env)
    assert done.returncode in (0, DAMAGED), done.stderr.decode(errors="replace")
    assert done.stdout == b""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return done


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, size: int = 0, link: str = ""
) -> tarfile.TarInfo:
    """Describe a member."""
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.size, made.linkname = kind, mode, size, link
    return made


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """Write a tar archive by Python's own writer, which writes whatever it is told."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def one(name: str = "file", content: bytes = b"content", **facts: object) -> bytes:
    """Write a tar archive of one member."""
    return tar((entry(name, size=len(content), **facts), content))  # type: ignore[arg-type]  # the table's facts


def patched(archive: bytes, at: int, field: bytes) -> bytes:
    """Put bytes into the first header, whose sum is right again then."""
    header = bytearray(archive[:512])
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


GOOD = tar(
    (entry("program", mode=0o755, size=3), b"run"),
    (entry("inner", tarfile.DIRTYPE, 0o755), b""),
    (entry("inner/empty", mode=0o600), b""),
    (entry("inner/deep", tarfile.DIRTYPE, 0o700), b""),
    (entry("inner/deep/" + "n" * 89, size=200_000), bytes(range(250)) * 800),
)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_what_it_unpacks(format: int, opener: Path, folder: Path) -> None:
    """Files and directories with their content and permissions, whatever the umask; names of up to 100 bytes."""
    members = [
        (entry("program", mode=0o755, size=3), b"run"),
        (entry("inner", tarfile.DIRTYPE, 0o755), b""),
        (entry("inner/empty", mode=0o666), b""),
        (entry("inner/deep", tarfile.DIRTYPE, 0o777), b""),
        (entry("inner/deep/" + "n" * 89, size=200_000), bytes(range(250)) * 800),
    ]
    before = os.umask(0o077)
    try:
        done = opened(opener, folder, gzip.compress(tar(*members, format=format)))
    finally:
        os.umask(before)
    assert (done.returncode, done.stderr) == (0, b"")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    assert sorted(found) == sorted(member.name for member, _ in members)
    for member, content in members:
        path = found[member.name]
        assert path.stat().st_mode & 0o7777 == member.mode
        assert path.is_dir() if member.isdir() else path.read_bytes() == content


def test_an_empty_archive(opener: Path, folder: Path) -> None:
    assert opened(opener, folder, gzip.compress(tar())).returncode == 0


def test_what_other_writers_write(opener: Path, folder: Path, tmp_path: Path) -> None:
    """GNU tar and gzip, at the largest block size and without a full last record."""
    need("tar")
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "file").write_bytes(b"x" * 511)
    for options in (["--format=ustar"], ["--format=gnu", "-b1"]):
        command: list[str | Path] = ["tar", *options, "--owner=0", "--group=0", "-czf", "-", "-C", source, "a"]
        archive = subprocess.run(command, capture_output=True, check=True).stdout
        into = folder / options[0][2:]
        into.mkdir()
        subprocess.run([opener, into], input=archive, check=True)
        assert (into / "a" / "file").read_bytes() == b"x" * 511


HOSTILE: list[tuple[str, bytes, str]] = [
    ("a name that begins at the root", one("/tmp/x"), "not a plain relative path"),
    ("a name that leads up", one("../x"), "not a plain relative path"),
    ("a name that leads up from below", one("a/../../x"), "not a plain relative path"),
    ("a name that ends above", one("a/.."), "not a plain relative path"),
    ("a name with an empty part", one("a//x"), "not a plain relative path"),
    ("the directory itself", one("."), "not a plain relative path"),
    ("a name that begins with a dot", one("./x"), "not a plain relative path"),
    ("no name", patched(one(), 0, bytes(4)), "not a plain relative path"),
    ("a file with a slash behind it", patched(one(), 0, b"file/"), "not a plain relative path"),
    ("a slash alone", patched(one(kind=tarfile.DIRTYPE, content=b""), 0, b"/\0\0\0\0"), "not a plain relative path"),
    ("bytes behind the zero that ends a name", patched(one(), 6, b"x"), "bytes stand behind its name"),
    ("a symlink", one(content=b"", kind=tarfile.SYMTYPE, link="/etc"), "neither a file nor a directory"),
    ("a hard link", one(content=b"", kind=tarfile.LNKTYPE, link="x"), "neither a file nor a directory"),
    ("a character device", one(content=b"", kind=tarfile.CHRTYPE), "neither a file nor a directory"),
    ("a block device", one(content=b"", kind=tarfile.BLKTYPE), "neither a file nor a directory"),
    ("a FIFO", one(content=b"", kind=tarfile.FIFOTYPE), "neither a file nor a directory"),
    ("a type that nobody knows", patched(one(), 156, b"Z"), "neither a file nor a directory"),
    ("a file of a format before ustar", patched(one(), 156, b"\0"), "neither a file nor a directory"),
    ("a file with the target of a link", one(link="x"), "neither a file nor a directory"),
    ("a name of 101 bytes in ustar", one("d" * 50 + "/" + "n" * 50), "more than 100 bytes"),
    ("a name of 101 bytes in GNU's format", tar((entry("n" * 101), b""), format=tarfile.GNU_FORMAT), "100 bytes"),
    ("a name of 101 bytes in pax", tar((entry("n" * 101), b""), format=tarfile.PAX_FORMAT), "100 bytes"),
    ("a name that comes twice", tar((entry("x"), b""), (entry("x"), b"")), "cannot be made: File exists"),
    ("a directory that comes twice", tar(*[(entry("x", tarfile.DIRTYPE), b"")] * 2), "cannot be made: File exists"),
    ("a file in a directory that did not come", one("a/x"), "its directory cannot be opened"),
    ("a file in a file", tar((entry("a"), b""), (entry("a/x"), b"")), "its directory cannot be opened"),
    ("a directory with content", one(kind=tarfile.DIRTYPE), "a directory has content"),
    ("a setuid bit", one(mode=0o4755), "its mode has more than permissions"),
    ("a size in base 256", patched(one(), 124, b"\x80" + bytes(10) + b"\7"), "a number in its header is none"),
    ("a size with another digit", patched(one(), 124, b"00000000008"), "a number in its header is none"),
    ("a size that nothing ends", patched(one(), 124, b"000000000007"), "a number in its header is none"),
    ("no size", patched(one(), 124, bytes(12)), "a number in its header is none"),
    ("a size beyond the archive", patched(one(), 124, b"77777777777\0"), "the archive is cut"),
    ("a wrong sum", one()[:200] + b"x" + one()[201:], "a header is damaged"),
    ("a header without its mark", patched(one(), 257, b"USTAR"), "a header is damaged"),
    ("bytes where padding belongs", one()[:600] + b"x" + one()[601:], "bytes stand behind its content"),
    ("no end", one()[:1024], "the archive is cut"),
    ("half of the end", one()[:1536], "the archive is cut"),
    ("part of a block of the end", one()[:1600], "the archive is cut"),
    ("a member behind the end", one()[:2048] + one(), "bytes stand behind its end"),
    ("a byte behind the end", one() + b"\0", "bytes stand behind the archive"),
    ("nothing", b"", "the archive is cut"),
]


@pytest.mark.parametrize(("archive", "why"), [pytest.param(*rest, id=name) for name, *rest in HOSTILE])
def test_what_it_refuses_of_a_tar(archive: bytes, why: str, opener: Path, folder: Path) -> None:
    """One line that says what is wrong, and an exit code."""
    done = opened(opener, folder, gzip.compress(archive))
    assert done.returncode == DAMAGED
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("opener: ") and why in line


PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        pytest.param(b"", "the archive is cut", id="nothing"),
        pytest.param(GOOD, "the archive is damaged: incorrect header check", id="a tar that is not compressed"),
        pytest.param(PACKED[:-1], "the archive is cut", id="a byte less"),
        pytest.param(PACKED[:-8], "the archive is cut", id="without its checksum"),
        pytest.param(PACKED[:100], "the archive is cut", id="the begin alone"),
        pytest.param(PACKED + b"\0", "bytes stand behind the archive", id="a byte more"),
        pytest.param(PACKED + PACKED, "bytes stand behind the archive", id="a second member"),
        pytest.param(PACKED[:-5] + b"\0\0\0\0\0", "damaged: incorrect data check", id="another checksum"),
        pytest.param(PACKED[:-4] + struct.pack("<I", 1), "damaged: incorrect length check", id="another length"),
    ],
)
def test_what_it_refuses_of_gzip(packed: bytes, why: str, opener: Path, folder: Path) -> None:
    done = opened(opener, folder, packed)
    assert done.returncode == DAMAGED
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("opener: ") and why in line


def test_a_hostile_name_is_no_sequence_for_a_terminal(opener: Path, folder: Path) -> None:
    done = opened(opener, folder, gzip.compress(one("a/\x1b]0;x\x07\xff")))
    assert done.stderr.startswith(b"opener: a/?]0;x??")


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_wrong_arguments(arguments: list[str], opener: Path) -> None:
    done = subprocess.run([opener, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: opener DIRECTORY < archive.tar.gz\n")


def test_it_follows_no_link(opener: Path, folder: Path, tmp_path: Path) -> None:
    """Not as a directory, and not as a file: not even where somebody put them there before."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "a").symlink_to(elsewhere)
    (folder / "x").symlink_to(elsewhere / "x")
    assert b"directory cannot be opened" in opened(opener, folder, gzip.compress(one("a/x"))).stderr
    assert b"File exists" in opened(opener, folder, gzip.compress(one("x"))).stderr
    assert list(elsewhere.iterdir()) == []


def test_what_it_is_given_cannot_be_used(opener: Path, folder: Path, tmp_path: Path) -> None:
    """A directory that is none, and an input that cannot be read."""
    for argument in (tmp_path / "missing", opener):
        done = subprocess.run([opener, argument], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == DAMAGED and done.stderr.startswith("opener: the directory cannot be opened: ")
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run([opener, folder], stdin=directory, capture_output=True, text=True)
    finally:
        os.close(directory)
    assert (done.returncode, done.stderr) == (DAMAGED, "opener: the archive cannot be read: Is a directory\n")


def test_what_cannot_be_written(opener: Path, folder: Path) -> None:
    """A write that the system does in part, and the one behind it, which it refuses."""

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    archive = gzip.compress(one(content=bytes(200_000)))
    # Python ignores the signal that would end the program instead, and hands that on.
    done = subprocess.run(
        [opener, folder], input=archive, capture_output=True, preexec_fn=little_room, restore_signals=False
    )
    assert (done.returncode, done.stderr) == (DAMAGED, b"opener: file: it cannot be written: File too large\n")


@pytest.mark.parametrize("seed", cases(7, 2000))
def test_flipped_bytes(seed: int, opener: Path, folder: Path) -> None:
    """Whatever the bytes are: an exit code, one line or none, and nothing outside of the directory.

    Bytes are flipped before compression, with the sum of the header made right again or not, or behind it.
    """
    dice = random.Random(seed)
    archive = bytearray(GOOD)
    headers = [0, 1024, 1536, 2048, 2560]
    for _ in range(dice.randint(1, 4)):
        at = dice.choice(headers)
        archive[at + dice.randrange(512)] = dice.choice((0, 0x2E, 0x2F, 0x37, 0xFF, dice.randrange(256)))
        if dice.random() < 0.8:
            archive[at : at + 512] = patched(bytes(archive[at : at + 512]), 0, b"")
    packed = bytearray(gzip.compress(bytes(archive), mtime=0))
    if dice.random() < 0.3:
        packed[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
    if dice.random() < 0.1:
        del packed[dice.randrange(len(packed)) :]
    done = opened(opener, folder, bytes(packed))
    assert len(done.stderr.splitlines()) == (1 if done.returncode else 0)
