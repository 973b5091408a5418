"""What an archive may hold is extracted as listed, in its new form; everything else is refused, and nothing stays."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.selection import cases
from installer_stub import activation, admission, durable, extract, landing, manifest, relocate, verify, workplace
from installer_stub.errors import ManifestError, OutputError, PackError
from installer_stub.model import (
    Entry,
    Field,
    Fill,
    Finding,
    Force,
    Kind,
    Listing,
    Manifest,
    Reference,
    Relocatable,
    Spelling,
    Standing,
)
from installer_stub.tarstream import ArchiveDamaged
from pack import archive
from pack.archive.tar import write_tar
from tests.unit.other_user import nobody, open_directory

OLD = b"/opt/placeholder"
TIME = 1_000_000_000
SCRIPTS = activation.scripts("activate", None, b"", ())


@dataclass(frozen=True)
class Part:
    """A path of a small archive: as the manifest lists it, unless ``listed`` is False."""

    path: bytes
    kind: Kind = Kind.FILE
    content: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    references: tuple[Reference, ...] = ()
    names: tuple[bytes, ...] = ()
    listed: bool = True
    mtime: int = TIME

    @property
    def entry(self) -> Entry:
        sha256 = hashlib.sha256(self.content).hexdigest() if self.kind is Kind.FILE else ""
        facts = (self.mode, len(self.content), self.mtime, self.target, sha256)
        return Entry(self.path, self.kind, *facts, Standing.ADDED, "")

    @property
    def member(self) -> archive.Member:
        facts = (self.mode, self.mtime, len(self.content), self.target)
        return archive.Member(self.path, self.kind, *facts, lambda: iter([self.content] if self.content else []))


def directory(path: bytes, mode: int = 0o755, listed: bool = True) -> Part:
    return Part(path, Kind.DIRECTORY, mode=mode, listed=listed)


def names_prefix(path: bytes, before: bytes, behind: bytes, **more: object) -> Part:
    """A text that names the old prefix once."""
    reference = Reference(len(before), len(OLD), OLD, Field.TEXT, Spelling.PLAIN, Fill.GROW, Force.ALWAYS)
    return Part(path, content=before + OLD + behind, references=(reference,), **more)  # type: ignore[arg-type]


def holds_digest(path: bytes, of: Part) -> Part:
    """A file that holds the digest of another."""
    digest = of.entry.sha256.encode()
    before = b"sha256: "
    reference = Reference(
        len(before), 64, b"", Field.DIGEST, Spelling.HEX, Fill.GROW, Force.NEVER, archived=digest, of=of.path
    )
    return Part(path, content=before + digest + b"\n", references=(reference,))


TEXT = names_prefix(b"lib/text.py", b"#", b"/share\n", names=(b"lib/twin.py",))
RECORD = holds_digest(b"lib/RECORD", TEXT)
META = holds_digest(b"conda-meta/a.json", RECORD)
ADDED = [Part(path, content=content, mode=0o755, listed=False) for path, content in sorted(SCRIPTS.items())]
GOOD = [
    directory(b"bin"),
    Part(b"bin/tool", content=b"\x7fELF" + b"x" * 3000, mode=0o755),
    *ADDED,
    directory(b"conda-meta"),
    META,  # before what it holds the digest of
    directory(b"lib", 0o555),
    RECORD,
    Part(b"lib/\xff\n " + b"n" * 200, content=b"odd"),
    directory(b"lib/empty"),
    Part(b"lib/large", content=b"a" * (1 << 20) + bytes(3 << 20) + b"b"),
    Part(b"lib/link", Kind.SYMLINK, target=b"/etc/passwd", mode=0o777),
    TEXT,
    Part(b"lib/twin.py", Kind.HARD_LINK, target=TEXT.path),
]


Change = Callable[[Manifest, Listing], tuple[Manifest, Listing]]


def archive_of(parts: Sequence[Part], change: Change = lambda one, other: (one, other)) -> bytes:
    """Write an archive of parts, with a manifest that lists them."""
    return tar_of([*own(parts, change), *parts])


def own(parts: Sequence[Part], change: Change = lambda one, other: (one, other)) -> list[Part]:
    """Make what packing adds to an archive of parts."""
    files = [
        Relocatable(part.path, part.names, len(part.content), part.entry.sha256, part.references)
        for part in parts
        if part.references
    ]
    listed = Manifest((OLD,), tuple(files), tuple(part.path for part in ADDED), "activate")
    listed, listing = change(listed, Listing(tuple(part.entry for part in parts if part.listed), ()))
    return [
        directory(b".pack"),
        Part(b".pack/references.json", content=manifest.dump(listed)),
        Part(b".pack/files.json", content=manifest.dump_listing(listing)),
        directory(b".pack/relocator"),
        Part(b".pack/relocator/__main__.py", content=b"pass\n"),
    ]


def tar_of(parts: Sequence[Part]) -> bytes:
    out = io.BytesIO()
    write_tar([part.member for part in parts], out)
    return out.getvalue()


def unpack(data: bytes, target: Path, relocated: bool = True) -> extract.Extracted:
    place = landing.place(bytes(target))
    opened = admission.open_archive(io.BytesIO(data).read)
    with landing.staged(place) as tree:
        return extract.extract(opened, tree, place if relocated else None)


def refused(data: bytes, target: Path, error: type[PackError], *words: str) -> None:
    """Expect an error, and that nothing stays."""
    with pytest.raises(error) as caught:
        unpack(data, target)
    for word in words:
        assert word in str(caught.value)
    assert os.listdir(target.parent) == []


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def test_a_tree_stands_relocated(tmp_path: Path) -> None:
    done = unpack(archive_of(GOOD), tmp_path / "env")
    root = tmp_path / "env"
    text = b"#" + bytes(root) + b"/share\n"
    record = b"sha256: " + digest(text) + b"\n"
    assert (root / "lib/text.py").read_bytes() == text
    assert (root / "lib/RECORD").read_bytes() == record
    assert (root / "conda-meta/a.json").read_bytes() == b"sha256: " + digest(record) + b"\n"
    assert (root / "lib/twin.py").samefile(root / "lib/text.py")
    assert os.readlink(root / "lib/link") == "/etc/passwd"
    assert (root / "bin/tool").read_bytes() == GOOD[1].content
    assert (os.fsencode(root / "lib") + b"/\xff\n " + b"n" * 200) in [bytes(each) for each in (root / "lib").iterdir()]
    assert (done.members, done.written, done.right, done.findings) == (len(GOOD) + 5, 4, 0, ())
    assert verify.verify(relocate.open_tree(bytes(root))) == []
    assert relocate.is_current(relocate.open_tree(bytes(root)))
    assert os.listdir(tmp_path) == ["env"]


def test_a_tree_stands_as_archived_if_that_is_asked(tmp_path: Path) -> None:
    unpack(archive_of(GOOD), tmp_path / "env", relocated=False)
    for part in GOOD:
        path = os.path.join(bytes(tmp_path / "env"), part.path)
        facts = os.lstat(path)
        if part.kind is Kind.FILE:
            assert Path(os.fsdecode(path)).read_bytes() == part.content
        if part.kind is not Kind.HARD_LINK:
            assert facts.st_mtime == TIME
        if part.kind not in (Kind.HARD_LINK, Kind.SYMLINK):
            assert stat.S_IMODE(facts.st_mode) == part.mode
    assert not (tmp_path / "env/.pack/state.json").exists()
    assert verify.verify(relocate.open_tree(bytes(tmp_path / "env"))) == []


def test_a_link_to_what_is_not_on_this_machine_is_told(tmp_path: Path) -> None:
    links = [
        Part(b"bin/python", Kind.SYMLINK, target=b"python3", mode=0o777),
        Part(b"bin/python3", Kind.SYMLINK, target=b"/nowhere/bin/python 3", mode=0o777),
        Part(b"bin/sh", Kind.SYMLINK, target=b"/bin/sh", mode=0o777),
    ]
    done = unpack(archive_of([*GOOD, *links]), tmp_path / "env")
    assert done.findings == (Finding(b"bin/python3", -1, extract.NOT_HERE, "/nowhere/bin/python 3"),)


def test_megabytes_of_zeros_become_holes(tmp_path: Path) -> None:
    zeros = Part(b"zeros", content=bytes(2 << 20))
    unpack(archive_of([*GOOD, zeros]), tmp_path / "env")
    for name, size in (("lib/large", (4 << 20) + 1), ("zeros", 2 << 20)):
        facts = (tmp_path / "env" / name).stat()
        assert facts.st_size == size
        assert facts.st_blocks * 512 < size - (1 << 20)


def test_byte_code_of_a_source_that_changed_is_dropped(tmp_path: Path) -> None:
    cache = directory(b"lib/__pycache__")
    stale = [Part(b"lib/__pycache__/%s.cpython-311.pyc" % name, content=b"x") for name in (b"text", b"twin", b"other")]
    unpack(archive_of([*GOOD, cache, *stale]), tmp_path / "env")
    assert os.listdir(tmp_path / "env/lib/__pycache__") == ["other.cpython-311.pyc"]
    assert (tmp_path / "env/lib/__pycache__").stat().st_mtime == TIME


def test_progress_is_the_bytes_of_content(tmp_path: Path) -> None:
    seen: list[int] = []
    opened = admission.open_archive(io.BytesIO(archive_of(GOOD)).read)
    (tmp_path / "around" / "tree").mkdir(parents=True)
    extract.extract(opened, bytes(tmp_path / "around" / "tree"), None, seen.append)
    manifests = sum(member.size for member, _ in opened.head)
    assert sum(seen) == manifests + sum(len(part.content) for part in GOOD) + len(b"pass\n")


HOSTILE = {
    "an absolute path": ([Part(b"/tmp/x", listed=False)], ArchiveDamaged, "absolute"),
    "a path that leaves": ([Part(b"lib/../../x", listed=False)], ArchiveDamaged, "no plain path"),
    "a file through a symlink": (
        [Part(b"out", Kind.SYMLINK, target=b"/tmp", mode=0o777), Part(b"out/x")],
        ArchiveDamaged,
        "is in a directory that did not come before it",
    ),
    "a directory in the place of a symlink": (
        [Part(b"out", Kind.SYMLINK, target=b"/tmp", mode=0o777), directory(b"out", listed=False)],
        ArchiveDamaged,
        "twice",
    ),
    "a file through a file": ([Part(b"a"), Part(b"a/x")], ArchiveDamaged, "did not come before it"),
    "a directory that comes later": ([Part(b"late/x"), directory(b"late")], ArchiveDamaged, "did not come before it"),
    "a file twice": ([Part(b"a"), Part(b"a", listed=False)], ArchiveDamaged, "twice"),
    "a hard link to what is not listed": (
        [Part(b"a", Kind.HARD_LINK, target=b"nowhere")],
        ManifestError,
        "contradicts itself at 'a'",
    ),
    "a hard link to a symlink": ([Part(b"a", Kind.HARD_LINK, target=b"lib/link")], ManifestError, "contradicts"),
    "a hard link to what comes later": (
        [Part(b"a", Kind.HARD_LINK, target=b"b"), Part(b"b")],
        ArchiveDamaged,
        "did not come before",
    ),
    "a hard link that leaves": ([Part(b"a", Kind.HARD_LINK, target=b"../x", listed=False)], ArchiveDamaged, "plain"),
    "a file that nobody lists": ([Part(b"lib/evil", listed=False)], ArchiveDamaged, "not what the manifest lists"),
    "a directory that nobody lists": ([directory(b"evil", listed=False)], ArchiveDamaged, "not what the manifest"),
    "a state": ([Part(b".pack/state.json", listed=False)], ArchiveDamaged, "not the state of a tree"),
    "a link among ours": (
        [Part(b".pack/x", Kind.SYMLINK, target=b"/tmp", mode=0o777, listed=False)],
        ArchiveDamaged,
        "not what the manifest lists",
    ),
    "setuid among ours": ([Part(b".pack/x", mode=0o4755, listed=False)], ArchiveDamaged, "not what the manifest"),
    "ours in the list": ([Part(b".pack/x")], ManifestError, "contradicts itself at '.pack/x'"),
    "a script of ours in the list": ([Part(b"bin/activate")], ManifestError, "contradicts"),
    "a time that no system holds": ([Part(b"a", mtime=1 << 60)], ManifestError, "contradicts"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_is_refused(what: str, tmp_path: Path) -> None:
    parts, error, word = HOSTILE[what]
    refused(archive_of([*GOOD, *parts]), tmp_path / "env", error, word)


def lying(**facts: Any) -> Change:
    """Let the list say something else about ``bin/tool``."""

    def change(listed: Manifest, listing: Listing) -> tuple[Manifest, Listing]:
        entries = tuple(e._replace(**facts) if e.path == b"bin/tool" else e for e in listing.entries)
        return listed, Listing(entries, ())

    return change


@pytest.mark.parametrize(
    "facts",
    [
        {"size": 3003},
        {"size": 3005},
        {"size": 0},
        {"size": 1 << 40},
        {"mode": 0o4755},
        {"mode": 0o644},
        {"mtime": TIME + 1},
        {"kind": Kind.DIRECTORY, "sha256": ""},
        {"sha256": "0" * 64},
    ],
)
def test_a_list_that_lies_about_a_file_is_noticed(facts: dict[str, object], tmp_path: Path) -> None:
    refused(archive_of(GOOD, lying(**facts)), tmp_path / "env", ArchiveDamaged, "bin/tool", "than the manifest says")


def test_a_setuid_bit_that_the_list_does_not_have_is_refused(tmp_path: Path) -> None:
    parts = [replace(part, mode=0o4755) if part.path == b"bin/tool" else part for part in GOOD]
    refused(archive_of(parts, lying(mode=0o755)), tmp_path / "env", ArchiveDamaged, "bin/tool")


def with_files(change: Callable[[Relocatable], Relocatable]) -> Change:
    return lambda listed, listing: (listed._replace(files=tuple(map(change, listed.files))), listing)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file._replace(path=b"nowhere"),
        lambda file: file._replace(path=TEXT.path),
        lambda file: file._replace(size=file.size + 1),
        lambda file: file._replace(sha256="0" * 64),
        lambda file: file._replace(names=(b"bin/tool",)),
        lambda file: file._replace(names=(b"nowhere",)),
    ],
)
def test_two_files_of_a_manifest_that_contradict_each_other(
    change: Callable[[Relocatable], Relocatable], tmp_path: Path
) -> None:
    refused(archive_of(GOOD, with_files(change)), tmp_path / "env", ManifestError, "contradicts itself")


def test_references_elsewhere_than_in_the_file_are_noticed(tmp_path: Path) -> None:
    def shifted(file: Relocatable) -> Relocatable:
        return file._replace(references=tuple(r._replace(offset=r.offset + 1) for r in file.references))

    refused(archive_of(GOOD, with_files(shifted)), tmp_path / "env", ArchiveDamaged)


def test_digests_of_each_other_end(tmp_path: Path) -> None:
    """Nobody packs such files; they must not keep the extractor busy for ever."""
    a = holds_digest(b"a", Part(b"b"))
    b = holds_digest(b"b", Part(b"a"))
    unpack(archive_of([*GOOD, a, b]), tmp_path / "env")
    assert (tmp_path / "env/a").exists()


def test_a_long_chain_of_digests_ends(tmp_path: Path) -> None:
    chain = [holds_digest(b"f%d" % number, Part(b"f%d" % (number + 1))) for number in range(3000)]
    refused(archive_of([*GOOD, *chain]), tmp_path / "env", ArchiveDamaged, "of each other")


@pytest.mark.parametrize("left_out", [b"bin/tool", b"bin/activate", b"lib/twin.py", b"lib/empty", b"conda-meta/a.json"])
def test_a_member_that_is_missing_is_noticed(left_out: bytes, tmp_path: Path) -> None:
    opened = admission.open_archive(io.BytesIO(archive_of(GOOD)).read)
    head = [Part(member.path, member.kind, content, mode=member.mode) for member, content in opened.head]
    data = tar_of([*head, *(part for part in GOOD if part.path != left_out)])
    refused(data, tmp_path / "env", ArchiveDamaged, repr(os.fsdecode(left_out)), "missing")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (tar_of([]), "its end"),
        (tar_of([directory(b"bin")]), "'bin'"),
        (tar_of([directory(b".pack"), Part(b".pack/files.json")]), "'.pack/files.json'"),
        (tar_of([directory(b".pack"), Part(b".pack/references.json"), Part(b".pack/files.json")]), "damaged"),
    ],
)
def test_an_archive_of_others_is_refused(data: bytes, word: str, tmp_path: Path) -> None:
    refused(data, tmp_path / "env", ManifestError, word)


SMALL = [part for part in GOOD if part.path != b"lib/large"]


def test_an_archive_cut_anywhere_leaves_nothing(tmp_path: Path) -> None:
    data = archive_of(SMALL)
    for number in cases(61, len(data) // 61):
        end = 61 * number
        with pytest.raises(PackError):
            unpack(data[:end], tmp_path / "env")
        assert os.listdir(tmp_path) == []


def contents(root: Path) -> dict[str, bytes]:
    """Return the content of every file of the environment; of packing's own there is no hash."""
    found = {}
    for directory, _, names in os.walk(root):
        for path in (Path(directory, name) for name in names):
            relative = str(path.relative_to(root))
            if not relative.startswith(".pack/"):
                found[relative] = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    return found


def test_a_flipped_bit_never_gives_other_content(tmp_path: Path) -> None:
    """Of the manifest itself no hash is in the archive: what is flipped lies behind it."""
    data = archive_of(SMALL)
    target = tmp_path / "env"
    unpack(data, target)
    good = contents(target)
    workplace.discard(bytes(target))
    start = data.index(b".pack/relocator/")
    survived = 0
    flips = cases(4, 200)
    for number in flips:
        draw = random.Random(number)
        at = draw.randrange(start, len(data))
        changed = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        try:
            unpack(changed, target)
        except PackError:
            assert os.listdir(tmp_path) == []
        else:
            survived += 1
            assert contents(target) == good
            workplace.discard(bytes(target))
    # The scripts that are written anew, the relocator, owners that nobody asks for.
    assert survived < len(flips)


def test_what_another_user_gets_is_subject_to_the_umask(tmp_path: Path) -> None:
    data = archive_of([*GOOD, Part(b"setuid", content=b"x", mode=0o4777)])
    with open_directory() as place:
        place.chmod(0o777)
        with nobody():
            before = os.umask(0o027)
            try:
                done = unpack(data, place / "env")
            finally:
                os.umask(before)
            names = ("bin/tool", "lib", "setuid", ".", "bin/activate", ".pack/state.json")
            modes = {name: stat.S_IMODE((place / "env" / name).lstat().st_mode) for name in names}
            workplace.discard(bytes(place / "env"))
    assert modes == {
        "bin/tool": 0o750,
        "lib": 0o550,
        "setuid": 0o750,
        ".": 0o750,
        "bin/activate": 0o750,
        ".pack/state.json": 0o640,
    }
    assert done.findings == (Finding(b"setuid", -1, "dropped", "privileges"),)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gets_privileges_with_their_owner(tmp_path: Path) -> None:
    tool = Part(b"setuid", content=b"x", mode=0o4711)
    privileged = tool.member._replace(privileges=archive.Privileges(4_000_000_000, 7, b"", b"lp"))
    out = io.BytesIO()
    parts = [*own([*GOOD, tool]), *GOOD]
    write_tar([*(part.member for part in parts), privileged], out)
    unpack(out.getvalue(), tmp_path / "env")
    facts = (tmp_path / "env/setuid").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o4711, 4_000_000_000, 7)


# The place


@pytest.mark.parametrize("kind", ["a file", "full", "no parent", "a link to a full one"])
def test_a_place_that_is_taken_is_refused_before_anything_is_read(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "env"
    if kind == "a file":
        target.touch()
    elif kind == "no parent":
        target = tmp_path / "none" / "env"
    else:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        target = tmp_path / "full"
        if kind == "a link to a full one":
            target = tmp_path / "link"
            target.symlink_to("full")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="exist"):
        unpack(b"", target)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_directory_is_filled_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("env")
    unpack(archive_of(GOOD), tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o750
    assert verify.verify(relocate.open_tree(bytes(tmp_path / "env"))) == []


def test_who_comes_second_loses_and_leaves_nothing(tmp_path: Path) -> None:
    opened = admission.open_archive(io.BytesIO(archive_of(GOOD)).read)
    place = landing.place(bytes(tmp_path / "env"))
    with pytest.raises(OutputError, match="not an empty directory"), landing.staged(place) as tree:
        unpack(archive_of(GOOD), tmp_path / "env")
        extract.extract(opened, tree, place)
    assert os.listdir(tmp_path) == ["env"]
    assert verify.verify(relocate.open_tree(place)) == []


def test_what_a_killed_run_left_is_cleared_and_what_lives_is_not(tmp_path: Path) -> None:
    place = landing.place(bytes(tmp_path / "env"))
    pid = os.fork()
    if pid == 0:
        with landing.staged(place):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (killed,) = os.listdir(tmp_path)
    others = tmp_path / ".env.pack-not-one-of-ours"
    others.mkdir()
    with pytest.raises(KeyboardInterrupt), landing.staged(place) as living:
        assert not (tmp_path / killed).exists()
        unpack(archive_of(GOOD), tmp_path / "env2")
        with pytest.raises(OutputError), landing.staged(place) as tree:
            Path(os.fsdecode(place)).mkdir()
            Path(os.fsdecode(place), "x").touch()
            assert os.path.isdir(living)
            assert os.path.isdir(tree)
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path)) == [others.name, "env", "env2"]


def test_a_failed_run_leaves_nothing_below_directories_without_write_permission() -> None:
    with open_directory() as place:
        place.chmod(0o777)
        target = landing.place(bytes(place / "env"))
        with nobody(), pytest.raises(RuntimeError), landing.staged(target) as tree:
            unpack(archive_of(GOOD), place / "inner")
            os.rename(place / "inner", tree + b"/inner")
            raise RuntimeError
        assert os.listdir(place) == []


def test_a_disk_that_fails_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for function in ("flush", "flush_directory"):
        with monkeypatch.context() as patch:
            patch.setattr(durable, function, fail)
            with pytest.raises(OSError, match="Input/output"):
                unpack(archive_of(GOOD), tmp_path / "env")
        assert os.listdir(tmp_path) == []
