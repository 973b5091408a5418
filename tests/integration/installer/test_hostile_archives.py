"""Archives made to write elsewhere, in each format that is read, alone and in an installer that is whole: refused.

How each single lie is told from the truth is for the tests of the extractor; here nothing may come of any.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import zstandard

from fixtures.selection import cases
from installer_stub import trailer
from installer_stub.model import Kind
from pack import cli
from tests.integration.moving import short_directory, snapshot
from tests.integration.outcomes import complaint, install
from tests.unit.installers import TIME, Part, directory, environment, payload, whole

REFUSED = frozenset({6, 11})  # the manifest contradicts itself; the archive is not what its manifest says
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, 1),
    "tar.bz2": lambda data: bz2.compress(data, 1),
    "tar.xz": lambda data: lzma.compress(data, preset=0),
    "tar.zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
PAYLOADS = ("tar.gz", "tar.zst")
OUT = "/tmp/outside"  # stands for a directory that is not the target's


@dataclass(frozen=True)
class Raw:
    """A member as it is in the tar, whatever the manifest says."""

    name: str
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    content: bytes = b""
    extra: dict[str, str] = field(default_factory=dict)  # of its extended header

    def write(self, tar: tarfile.TarFile, outside: Path) -> None:
        info = tarfile.TarInfo(self.name.replace(OUT, str(outside)))
        info.type, info.mode, info.mtime, info.size = self.type, self.mode, TIME, len(self.content)
        info.linkname = self.link.replace(OUT, str(outside))
        info.pax_headers = {key: value.replace(OUT, str(outside)) for key, value in self.extra.items()}
        tar.addfile(info, io.BytesIO(self.content))


@dataclass(frozen=True)
class Hostile:
    """What is in an archive beside a good environment: what the manifest lists, and the members."""

    listed: tuple[Part, ...]
    members: tuple[Raw, ...]


def file(path: bytes, mode: int = 0o644) -> Part:
    return Part(path, content=b"evil", mode=mode)


def link(path: bytes, target: bytes, kind: Kind = Kind.SYMLINK) -> Part:
    return Part(path, kind, target=target, mode=0o777 if kind is Kind.SYMLINK else 0o644)


AWAY = Raw("away", tarfile.SYMTYPE, OUT, 0o777)
LISTED_AWAY = link(b"away", OUT.encode())

# Whatever the manifest can say of it, it says: that a member is listed is not to be what saves.
HOSTILE = {
    "an absolute path": Hostile((file(f"{OUT}/evil".encode()),), (Raw(f"{OUT}/evil", content=b"evil"),)),
    "an absolute path that nobody lists": Hostile((), (Raw(f"{OUT}/evil", content=b"evil"),)),
    "an absolute path in an extended header": Hostile((), (Raw("a", content=b"evil", extra={"path": f"{OUT}/evil"}),)),
    "a path that leads up": Hostile((file(b"../outside/evil"),), (Raw("../outside/evil", content=b"evil"),)),
    "a path that leads down and up": Hostile((), (Raw("lib/../../../outside/evil", content=b"evil"),)),
    "a file through a symlink": Hostile((LISTED_AWAY, file(b"away/evil")), (AWAY, Raw("away/evil", content=b"evil"))),
    "a file onto a symlink": Hostile(
        (link(b"away", f"{OUT}/kept".encode()),),
        (Raw("away", tarfile.SYMTYPE, f"{OUT}/kept", 0o777), Raw("away", content=b"evil")),
    ),
    "a directory onto a symlink, and a file in it": Hostile(
        (LISTED_AWAY,), (AWAY, Raw("away", tarfile.DIRTYPE, mode=0o755), Raw("away/evil", content=b"evil"))
    ),
    "a symlink in the place of a directory, and a file in it": Hostile(
        (directory(b"away"), file(b"away/evil")),
        (Raw("away", tarfile.DIRTYPE, mode=0o755), AWAY, Raw("away/evil", content=b"evil")),
    ),
    "a hard link out": Hostile(
        (link(b"a", f"{OUT}/kept".encode(), Kind.HARD_LINK),), (Raw("a", tarfile.LNKTYPE, f"{OUT}/kept"),)
    ),
    "a hard link up and out for a file": Hostile((file(b"a"),), (Raw("a", tarfile.LNKTYPE, "../../outside/kept"),)),
    "a hard link up and out that nobody lists": Hostile((), (Raw("a", tarfile.LNKTYPE, "../../outside/kept"),)),
    "a hard link through a symlink": Hostile(
        (LISTED_AWAY, link(b"a", b"away/kept", Kind.HARD_LINK)), (AWAY, Raw("a", tarfile.LNKTYPE, "away/kept"))
    ),
    "a hard link to a symlink, and a file onto it": Hostile(
        (link(b"away", f"{OUT}/kept".encode()), link(b"a", b"away", Kind.HARD_LINK)),
        (
            Raw("away", tarfile.SYMTYPE, f"{OUT}/kept", 0o777),
            Raw("a", tarfile.LNKTYPE, "away"),
            Raw("a", content=b"evil"),
        ),
    ),
    "a character device": Hostile((Part(b"null"),), (Raw("null", tarfile.CHRTYPE),)),
    "a block device that nobody lists": Hostile((), (Raw("disk", tarfile.BLKTYPE),)),
    "a FIFO": Hostile((Part(b"fifo"),), (Raw("fifo", tarfile.FIFOTYPE),)),
    "setuid that the manifest does not have": Hostile(
        (file(b"bin/evil", 0o755),), (Raw("bin/evil", mode=0o4755, content=b"evil"),)
    ),
    "setuid among what packing adds": Hostile((), (Raw(".pack/evil", mode=0o4755, content=b"evil"),)),
    "a file twice": Hostile((), (Raw("lib/mod.py", content=b"evil"),)),
    "a listed file twice": Hostile((file(b"a"),), (Raw("a", content=b"evil"), Raw("a", content=b"evil"))),
    "a file where a directory was": Hostile((), (Raw("lib/empty", content=b"evil"),)),
    "a file where a full directory was": Hostile((), (Raw("lib", content=b"evil"),)),
    "a manifest once more": Hostile((), (Raw(".pack/references.json", content=b"{}"),)),
}  # fmt: skip


def archive(hostile: Hostile, outside: Path) -> bytes:
    """Write the tar of a good environment with a manifest that lists more, and members that are something else."""
    out = io.BytesIO()
    old, new = OUT.encode(), os.fsencode(outside)
    lists = [
        replace(part, path=part.path.replace(old, new), target=part.target.replace(old, new)) for part in hostile.listed
    ]
    good = environment(b"1")
    manifest = _members(payload([*good, *lists]), lambda name: name in (".pack/references.json", ".pack/files.json"))
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (info, content) in _members(payload(good), lambda name: True).items():
            if name in manifest:
                info, content = manifest[name]
            tar.addfile(info, io.BytesIO(content))
        for member in hostile.members:
            member.write(tar, outside)
    return out.getvalue()


def _members(data: bytes, wanted: Callable[[str], bool]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            info.name: (info, opened.read() if info.isreg() and (opened := tar.extractfile(info)) else b"")
            for info in tar
            if wanted(info.name)
        }


@dataclass(frozen=True)
class Place:
    """Where an archive is unpacked, what stands beside it, and how that all was before."""

    root: Path

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def target(self) -> Path:
        return self.root / "parent" / "env"


@pytest.fixture
def place() -> Iterator[Place]:
    with short_directory() as root:
        (root / "parent").mkdir()
        (root / "outside").mkdir()
        (root / "outside" / "kept").write_text("kept\n")
        yield Place(root)


def unpacked(path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run ``pack unpack`` in this process; return its code."""
    monkeypatch.setattr(sys, "argv", ["pack", "unpack", str(path), "-p", str(target)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def untouched(place: Place, before: dict[str, tuple[object, ...]]) -> list[str]:
    """List what is another than before; that something was for a while in the target's directory is nothing."""
    now = snapshot(place.root)
    for each in (now, before):
        each.pop("parent")
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


NOTHING = Hostile((), ())


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_without_anything_hostile_it_is_unpacked(suffix: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others would be refused for another reason."""
    path = place.root / f"env.{suffix}"
    path.write_bytes(COMPRESSED[suffix](archive(NOTHING, place.outside)))
    assert unpacked(path, place.target, monkeypatch) == 0
    assert (place.target / "lib" / "mod.py").read_text() == "version = '1'\n"


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("what", HOSTILE)
def test_unpacking_is_refused(
    what: str, suffix: str, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.root / f"env.{suffix}"
    path.write_bytes(COMPRESSED[suffix](archive(HOSTILE[what], place.outside)))
    before = snapshot(place.root)
    code = unpacked(path, place.target, monkeypatch)
    said = capsys.readouterr().err
    assert not complaint(code, said, REFUSED), (code, said)
    assert untouched(place, before) == []


# In an installer whose hashes are right


@pytest.fixture(scope="module")
def parts(small_sh: Path) -> tuple[bytes, bytes]:
    """The script and the stub of an installer; its facts are of another payload, and do not matter."""
    data = small_sh.read_bytes()
    found = trailer.load(data[-trailer.SIZE :], len(data))
    return data[: found.header.length], data[found.stub.offset : found.stub.offset + found.stub.length]


def sealed(path: Path, parts: tuple[bytes, bytes], body: bytes) -> Path:
    """Write an installer with another payload, and a trailer that says so."""
    path.write_bytes(whole(body, *parts))
    return path


@pytest.mark.parametrize("suffix", PAYLOADS)
def test_an_installer_sealed_again_installs(suffix: str, parts: tuple[bytes, bytes], place: Place) -> None:
    path = sealed(place.root / "env.sh", parts, COMPRESSED[suffix](archive(NOTHING, place.outside)))
    done = install(path, place.target)
    assert done.returncode == 0, done
    assert os.listdir(place.target.parent) == ["env"]


@pytest.mark.parametrize("what", [list(HOSTILE)[number] for number in cases(54, len(HOSTILE))])
def test_an_installer_with_it_is_refused(what: str, parts: tuple[bytes, bytes], place: Place) -> None:
    suffix = PAYLOADS[list(HOSTILE).index(what) % 2]
    path = sealed(place.root / "env.sh", parts, COMPRESSED[suffix](archive(HOSTILE[what], place.outside)))
    before = snapshot(place.root)
    done = install(path, place.target)
    assert not complaint(done.returncode, done.stderr, REFUSED), done
    assert untouched(place, before) == []
