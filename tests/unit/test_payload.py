"""An installer is read as it was made, or is called damaged, whoever hashes it and however it is compressed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer_stub import payload, trailer
from installer_stub.errors import NoRelocator, PackError
from installer_stub.payload import opened
from installer_stub.tarstream import ArchiveDamaged
from tests.unit.installers import HEADER, packed, sections, whole

SMALL = b"".join(b"line %d\n" % number for number in range(5_000))
LARGE = random.Random(2).randbytes(5 << 20)  # so much that another process hashes it


def read_all(path: Path, jobs: int = 1) -> bytes:
    with opened(bytes(path), jobs) as source:
        found = b"".join(iter(lambda: source.read(1 << 20), b""))
        source.finish()
        return found


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "env.sh"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory that is all of PATH."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    yield directory


@pytest.mark.parametrize("form", ["gz", "zst", "tar"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_payload_comes_back(form: str, content: bytes, jobs: int, path: Path) -> None:
    write(path, whole(packed(content, form), stub=b"a stub"))
    assert read_all(path, jobs) == content


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_flipped_byte_is_damage(form: str, jobs: int, path: Path) -> None:
    """Whether the stream itself notices or not."""
    good = whole(packed(LARGE, form))
    start, end = len(HEADER), len(good) - trailer.SIZE
    places = [start, start + 4, start + 9, (start + end) // 2, end - 1]
    for at in [*(random.Random(3).sample(range(start, end), 3)), *places]:
        write(path, good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(ArchiveDamaged):
            read_all(path, jobs)


def test_every_byte_of_the_script_counts(path: Path) -> None:
    good = whole(packed(SMALL))
    for at in range(len(HEADER)):
        write(path, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ArchiveDamaged, match="its first part, the script"), opened(bytes(path), 1):
            pass


def test_a_stub_is_not_read(path: Path) -> None:
    """The script has compared it with its hash: it ran it."""
    good = whole(packed(SMALL), stub=b"stub")
    write(path, good.replace(b"stub", b"STUB", 1))
    assert read_all(path) == SMALL


@pytest.mark.parametrize("cut", [1, trailer.SIZE, trailer.SIZE + 1, 10_000, 10**9])
def test_a_file_that_is_cut_is_damaged(cut: int, path: Path) -> None:
    good = whole(packed(SMALL))
    write(path, good[: max(0, len(good) - cut)])
    with pytest.raises(ArchiveDamaged, match="do not end as they should"):
        read_all(path)


@pytest.mark.parametrize("form", ["gz", "zst"])
@pytest.mark.parametrize("more", [b"\0", b"x" * 1000, bytes(1 << 20)], ids=["a byte", "a thousand", "a million"])
def test_bytes_behind_the_stream_are_damage_even_with_the_right_hash(form: str, more: bytes, path: Path) -> None:
    write(path, whole(packed(SMALL, form) + more))
    with pytest.raises(ArchiveDamaged, match="goes on behind its compressed stream"):
        read_all(path)


def test_a_section_that_ends_before_its_stream_is_damage(path: Path) -> None:
    write(path, whole(packed(SMALL)[:-3]))
    with pytest.raises(ArchiveDamaged, match="cut"):
        read_all(path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_right_bytes_with_another_hash_are_refused_at_the_end(jobs: int, path: Path) -> None:
    body = packed(LARGE)
    parts = sections(HEADER, b"", body)
    wrong = trailer.Trailer(parts.header, parts.stub, trailer.Section(len(HEADER), len(body), "0" * 64))
    write(path, HEADER + body + trailer.dump(wrong))
    with opened(bytes(path), jobs) as source:
        assert b"".join(iter(lambda: source.read(1 << 20), b"")) == LARGE
        with pytest.raises(ArchiveDamaged, match="its payload has other bytes"):
            source.finish()


def test_what_was_not_read_to_its_end_is_not_called_right(path: Path) -> None:
    write(path, whole(packed(LARGE)))
    with opened(bytes(path), 1) as source:
        source.read(1 << 20)
        with pytest.raises(ArchiveDamaged):
            source.finish()


@pytest.mark.parametrize("jobs", [1, 2])
def test_it_can_be_asked_for_before_the_end(jobs: int, path: Path) -> None:
    """Of what cannot be understood it is worth knowing whether it was damaged."""
    good = whole(packed(LARGE))
    write(path, good)
    with opened(bytes(path), jobs) as source:
        source.read(100)
        source.require_whole()
    write(path, good[:-1000] + b"x" + good[-999:])
    with opened(bytes(path), jobs) as source, pytest.raises(ArchiveDamaged, match="its payload"):
        source.require_whole()


# Who hashes


def test_without_sha256sum_python_hashes(path: Path, programs: Path) -> None:
    write(path, whole(packed(LARGE)))
    assert read_all(path, 2) == LARGE


LIARS = {
    "it is killed": ("kill -9 $$", PackError, "sha256sum failed"),
    "it fails": ("exec 0<&-; exit 3", PackError, "sha256sum failed"),
    "it fails behind the right answer": ("/usr/bin/sha256sum; exit 3", PackError, "sha256sum failed"),
    "it reads all and says nothing": ("/bin/cat >/dev/null", PackError, "sha256sum failed"),
    "it says something else": ("/bin/cat >/dev/null; echo hello", PackError, "sha256sum failed"),
    "it says too few digits": (f"/bin/cat >/dev/null; echo {'0' * 63}", PackError, "sha256sum failed"),
    "it says another hash": (f"/bin/cat >/dev/null; echo {'0' * 64}", ArchiveDamaged, "its payload has other"),
    "it answers before it has read": (f"echo {'0' * 64}", PackError, "sha256sum failed"),
}


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("how", LIARS)
def test_a_sha256sum_that_fails_is_told_from_damage(how: str, path: Path, programs: Path) -> None:
    text, error, words = LIARS[how]
    # Asked for the hash of nothing it is right: otherwise nobody would take it.
    program(programs / "sha256sum", f'[ -e "$0.asked" ] || {{ : >"$0.asked"; exec /usr/bin/sha256sum; }}\n{text}')
    write(path, whole(packed(LARGE)))
    with pytest.raises(error, match=words) as caught:
        read_all(path, 2)
    assert caught.value.code == (11 if error is ArchiveDamaged else 1)
    assert read_all(path, 1) == LARGE, "which needs none"


@pytest.mark.parametrize("how", LIARS)
def test_a_program_that_cannot_hash_nothing_hashes_nothing(how: str, path: Path, programs: Path) -> None:
    for name in ("openssl", "sha256sum"):
        program(programs / name, LIARS[how][0] if "right" not in how else "exit 1")
    write(path, whole(packed(LARGE)))
    assert read_all(path, 2) == LARGE


def test_openssl_is_asked_first(path: Path, programs: Path) -> None:
    program(programs / "openssl", f'echo "$@" >>"$0.asked"; exec {shutil.which("openssl", path="/usr/bin")} "$@"')
    program(programs / "sha256sum", 'echo >>"$0.asked"; exec /usr/bin/sha256sum')
    write(path, whole(packed(LARGE)))
    assert read_all(path, 2) == LARGE
    assert sorted(os.listdir(programs)) == ["openssl", "openssl.asked", "sha256sum"]
    assert (programs / "openssl.asked").read_text() == "dgst -sha256 -r\n" * 2


def test_programs_that_cannot_be_started_are_done_without(path: Path, programs: Path) -> None:
    for name in ("openssl", "sha256sum"):
        (programs / name).write_bytes(b"\x7fELF, but not really")
        (programs / name).chmod(0o755)
    write(path, whole(packed(LARGE)))
    assert read_all(path, 2) == LARGE


def test_no_process_and_no_file_stays(path: Path) -> None:
    write(path, whole(packed(LARGE)))
    before = os.listdir("/proc/self/fd"), children()
    for jobs in (1, 2):
        with pytest.raises(RuntimeError), opened(bytes(path), jobs) as source:
            source.read(100)
            raise RuntimeError
        read_all(path, jobs)
    for data in (b"", whole(packed(SMALL))[:-1]):
        with pytest.raises(ArchiveDamaged), opened(bytes(write(path, data)), 1):
            pass
    assert (os.listdir("/proc/self/fd"), children()) == before


def children() -> set[str]:
    """Return the numbers of the processes that this one started and has not waited for; pytest may have some."""
    found = set[str]()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update((task / "children").read_text().split())
    return found


# Errors of reading


def test_a_file_that_becomes_shorter_is_damaged(path: Path) -> None:
    write(path, whole(packed(LARGE)))
    with opened(bytes(path), 1) as source:
        source.read(1)
        os.truncate(path, 1 << 20)
        with pytest.raises(ArchiveDamaged, match="became shorter while it was read"):
            while source.read(1 << 20):
                pass


def test_what_cannot_be_opened_is_no_error_of_writing(tmp_path: Path) -> None:
    for bad in (tmp_path / "missing", tmp_path):
        with pytest.raises(PackError, match=f"{bad}: cannot be read") as caught, opened(bytes(bad), 1):
            pass
        assert type(caught.value) is PackError


def test_an_error_while_reading_is_no_error_of_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    write(path, whole(packed(LARGE)))
    with opened(bytes(path), 1) as source:
        monkeypatch.setattr(os, "read", fail)
        with pytest.raises(PackError, match=r"env\.sh: cannot be read: Input/output error") as caught:
            while source.read(1 << 20):
                pass
        assert type(caught.value) is PackError
    monkeypatch.undo()
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(PackError, match=r"env\.sh: cannot be read: Input/output error"), opened(bytes(path), 1):
        pass


# What the host expands


def test_what_the_host_expands_is_read_as_it_comes(path: Path) -> None:
    write(path, whole(packed(SMALL)))
    end, start = os.pipe()
    os.write(start, SMALL[:1000])
    os.close(start)
    with opened(bytes(path), 1, end) as source:
        assert not source.is_checked, "so each file is held against its hash"
        assert bytes(source.read(10)) + source.read(10_000) == SMALL[:1000]
        assert source.read(1) == b""
        source.finish()
        source.require_whole()
    os.close(end)


def test_a_stream_of_the_host_that_cannot_be_read_is_no_error_of_writing(path: Path) -> None:
    write(path, whole(packed(SMALL)))
    directory = os.open(path.parent, os.O_RDONLY)
    for bad in (directory, 999):
        with opened(bytes(path), 1, bad) as source, pytest.raises(PackError, match="cannot be read") as caught:
            source.read(1)
        assert type(caught.value) is PackError
    os.close(directory)


def test_without_zstandard_a_zst_is_refused_in_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    write(path, whole(packed(SMALL, "zst")))
    for jobs in (1, 2):
        with pytest.raises(NoRelocator, match="cannot expand zstd"):
            read_all(path, jobs)
    write(path, whole(packed(SMALL, "gz")))
    assert read_all(path) == SMALL


def test_damage_is_told_with_what_to_do(path: Path) -> None:
    write(path, b"")
    with pytest.raises(ArchiveDamaged) as caught, payload.opened(bytes(path), 1):
        pass
    assert (caught.value.code, "Copy or download it again" in caught.value.tip) == (11, True)
