"""The frozen relocator's small parts: what it takes back, what it needs, where it is kept, who carries it."""

from __future__ import annotations

import ast
import gzip
import io
import os
import tarfile
from importlib import resources
from pathlib import Path

import pytest

import installer_stub
from fixtures import stub as stubs
from installer_stub.model import Entry, Kind, Listing, Manifest, Standing
from installer_stub.stub_main import restored, version
from pack.archive import Member
from pack.cli.stubs import ARCHITECTURES
from pack.environment import Environment, Layout
from pack.scan import Item, Scan
from pack.stub import carry, cpython, freeze, section, store, toolchain
from pack.stub.store import Record, Stub, StubUnavailable


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({"A": "1", "LD_LIBRARY_PATH": "/s/_internal"}, {"A": "1"}, id="the caller had none"),
        pytest.param(
            {"LD_LIBRARY_PATH": "/s/_internal:/lib/x", "LD_LIBRARY_PATH_ORIG": "/lib/x"},
            {"LD_LIBRARY_PATH": "/lib/x"},
            id="the caller had one",
        ),
        pytest.param(
            {"LD_LIBRARY_PATH": "/s/_internal", "LD_LIBRARY_PATH_ORIG": ""},
            {"LD_LIBRARY_PATH": ""},
            id="the caller's was empty, which is not absent",
        ),
        pytest.param(
            {"LD_LIBRARY_PATH": "/s/_internal", "LD_LIBRARY_PATH_ORIG": "/lib/x", "LD_PRELOAD_ORIG": "y.so"},
            {"LD_LIBRARY_PATH": "/lib/x", "LD_PRELOAD": "y.so"},
            id="the installer's script has put both aside",
        ),
        pytest.param(
            {"_PYI_ARCHIVE_FILE": "/s/x", "_PYI_PARENT_PROCESS_LEVEL": "1", "_MEIPASS2": "/s", "MEI": "kept"},
            {"MEI": "kept"},
            id="the loader's own go",
        ),
        pytest.param({}, {}, id="nothing"),
    ],
)
def test_the_caller_environment_comes_back(environ: dict[str, str], expected: dict[str, str]) -> None:
    assert restored(environ) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(b'{"sha256": "0123456789abcdef"}', "frozen 0123456789ab", id="named by its hash"),
        pytest.param(b"{}", "frozen", id="without a hash"),
        pytest.param(b"[]", "frozen", id="something else"),
        pytest.param(b"\xff", "frozen", id="damaged"),
        pytest.param(None, "frozen", id="missing"),
    ],
)
def test_its_version(record: bytes | None, expected: str, tmp_path: Path) -> None:
    if record is not None:
        (tmp_path / "stub.json").write_bytes(record)
    assert version(str(tmp_path / "relocator")) == expected


def kept(folder: Path, recipe: str, content: bytes = b"program", opener: bytes = b"opener") -> Stub:
    """Put a stub into the cache of the test."""
    files = folder / "made"
    (files / "_internal").mkdir(parents=True)
    (files / "relocator").write_bytes(content)
    (files / "relocator").chmod(0o700)
    (files / "_internal" / "library").write_bytes(b"library")
    (folder / "opener").write_bytes(opener)
    sha256, size = store.measure(files)
    record = Record("x86_64", "2.17", "3.11", recipe, sha256, size, store.sha256(folder / "opener"))
    return store.keep(files, record)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_one_is_found_by_architecture_and_recipe(cache: Path, tmp_path: Path) -> None:
    """A stub of another version of pack is listed, and not carried."""
    assert store.stubs() == [] and store.find("x86_64") is None
    other = kept(tmp_path / "1", "another recipe", b"old")
    assert store.stubs() == [other] and not other.is_current
    assert store.find("x86_64") is None
    ours = kept(tmp_path / "2", store.recipe())
    assert store.find("x86_64") == ours and ours.program.read_bytes() == b"program"
    assert store.find("aarch64") is None
    assert len(store.stubs()) == 2


def test_keeping_the_same_again(cache: Path, tmp_path: Path) -> None:
    """Where another recipe makes the same files, the record is that of the last one."""
    assert kept(tmp_path / "1", "r") == kept(tmp_path / "2", "r")
    again = kept(tmp_path / "3", store.recipe(), opener=b"another")
    assert store.stubs() == [again] and again.is_current
    assert again.opener.read_bytes() == b"another"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"sha256": "x"}'])
def test_a_damaged_record_is_no_stub(content: bytes, cache: Path, tmp_path: Path) -> None:
    stub = kept(tmp_path / "1", "r")
    (stub.path.parent / "stub.json").write_bytes(content)
    assert store.stubs() == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x/cache", "HOME": "/h"}, "/x/cache/relopack"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/relopack"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/relopack"),
    ],
)
def test_where_the_cache_is(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(store.cache()) == expected


def test_the_hash_is_of_names_modes_and_contents(tmp_path: Path) -> None:
    """Anything that an archive holds of a file changes it; what a umask or a clock does changes nothing."""
    file = tmp_path / "a" / "relocator"
    file.parent.mkdir()
    file.write_bytes(b"x")
    file.chmod(0o600)
    before = store.measure(file.parent)
    assert before[1] == 1
    file.chmod(0o664)
    os.utime(file, (1, 1))
    assert store.measure(file.parent) == before
    file.chmod(0o744)
    assert store.measure(file.parent) != before
    file.chmod(0o644)
    renamed = file.rename(file.with_name("other"))
    assert store.measure(file.parent) != before
    renamed.rename(file).write_bytes(b"y")
    assert store.measure(file.parent) != before


def scan_of(prefix: Path, *paths: str, architecture: str = "x86_64") -> Scan:
    """Make the scan of an environment that holds just these files and links."""
    items = []
    for path in paths:
        name = os.fsencode(path)
        items.append(Item(Entry(name, Kind.FILE, 0o755, 1, 0, b"", "0", Standing.ADDED, "")))
    environment = Environment(prefix, Layout.PLAIN, (os.fsencode(prefix),))
    return Scan(environment, tuple(items), Manifest((), (), (), "activate"), Listing((), ()), (), architecture)


@pytest.mark.parametrize(
    ("paths", "needed"),
    [
        pytest.param(["bin/tool"], True, id="no Python"),
        pytest.param(["bin/python3.11", "bin/python3"], False, id="a Python"),
        pytest.param(["bin/python3.8"], False, id="the oldest that will do"),
        pytest.param(["bin/python3.7", "bin/python3"], True, id="one that is too old"),
        pytest.param(["bin/python2.7", "bin/python"], True, id="Python 2"),
        pytest.param(["bin/python3.7", "bin/python3.12"], False, id="one of two"),
        pytest.param(["bin/python3"], False, id="without a number in its name"),
        pytest.param(["bin/python3.11-config", "lib/python3.11/os.py", "x/bin/python3"], True, id="only names like it"),
    ],
)
def test_who_needs_a_stub(paths: list[str], needed: bool, tmp_path: Path) -> None:
    assert carry.is_needed(scan_of(tmp_path, *paths)) is needed


def test_what_is_said_where_none_was_built(cache: Path, tmp_path: Path) -> None:
    """It names the command; nothing is said where none is needed, where one is there, or where nothing is compiled."""
    scan = scan_of(tmp_path, "bin/tool")
    assert carry.chosen(scan) is None
    assert "pack stub build --arch x86_64" in carry.advice(scan)
    assert carry.advice(scan_of(tmp_path, "bin/tool", "bin/python3.11")) == ""
    stub = kept(tmp_path / "1", store.recipe())
    assert carry.chosen(scan) == stub and carry.advice(scan) == ""
    other = scan_of(tmp_path, "bin/tool", architecture="riscv64")
    assert carry.chosen(other) is None
    assert "no frozen relocator for riscv64" in carry.advice(other)
    assert carry.advice(scan_of(tmp_path, "bin/tool", architecture="")) == ""


def contents(member: Member) -> bytes:
    return b"".join(member.chunks())


def test_what_an_archive_holds_of_it(cache: Path, tmp_path: Path) -> None:
    """Its record, its files, in one run for each directory; with modes of their own and one time."""
    stub = kept(tmp_path / "1", "r")
    members = list(carry.members(stub))
    assert [(member.path, member.kind, member.mode) for member in members] == [
        (b".pack/stub", Kind.DIRECTORY, 0o755),
        (b".pack/stub/stub.json", Kind.FILE, 0o644),
        (b".pack/stub/relocator", Kind.FILE, 0o755),
        (b".pack/stub/_internal", Kind.DIRECTORY, 0o755),
        (b".pack/stub/_internal/library", Kind.FILE, 0o644),
    ]
    assert contents(members[1]) == store.dump(stub.record)
    assert [contents(member) for member in members[2:]] == [b"program", b"", b"library"]
    assert {member.size for member in members if member.kind is Kind.DIRECTORY} == {0}


def test_a_changed_file_is_refused(cache: Path, tmp_path: Path) -> None:
    stub = kept(tmp_path / "1", "r")
    stub.program.write_bytes(b"changed")
    for carried in (lambda: list(carry.members(stub)), lambda: section.section(stub)):
        with pytest.raises(StubUnavailable, match="was changed since it was built"):
            carried()


def test_a_changed_opener_is_refused(cache: Path, tmp_path: Path) -> None:
    """An installer's alone: an archive does not hold it."""
    stub = kept(tmp_path / "1", "r")
    for change in (lambda: stub.opener.write_bytes(b"changed"), stub.opener.unlink):
        change()
        with pytest.raises(StubUnavailable, match="was changed since it was built"):
            section.section(stub)
    assert list(carry.members(stub))


def test_what_an_installer_holds_of_it(cache: Path, tmp_path: Path) -> None:
    """The opener, and a gzip-compressed tar of the directory, with the record; the same bytes each time."""
    stub = kept(tmp_path / "1", "r")
    made = section.section(stub)
    assert made.opener == b"opener"
    assert made == section.section(stub)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(made.archive))) as archive:
        members = archive.getmembers()
        assert [(member.name, member.isdir(), member.mode) for member in members] == [
            ("stub.json", False, 0o644),
            ("relocator", False, 0o755),
            ("_internal", True, 0o755),
            ("_internal/library", False, 0o644),
        ]
        assert sum(member.size for member in members) == made.unpacked
        record = archive.extractfile("stub.json")
        assert record is not None and record.read() == store.dump(stub.record)


@pytest.mark.parametrize(
    ("name", "is_refused"),
    [("f" * 90, False), ("f" * 91, True), ("d" * 87 + "/f", False), ("d" * 90 + "/f", True)],
    ids=["a file of 100 bytes", "a file of 101", "a directory of 98 with its slash", "a directory of 101"],
)
def test_the_longest_name_that_the_opener_takes(name: str, is_refused: bool, cache: Path, tmp_path: Path) -> None:
    """What it would refuse where an installer runs is refused where it is made."""
    stub = kept(tmp_path / "1", "r")
    (stub.path / "_internal" / name).parent.mkdir(exist_ok=True)
    (stub.path / "_internal" / name).write_bytes(b"")
    stub = Stub(stub.path, stub.record._replace(sha256=store.measure(stub.path)[0]))
    if is_refused:
        with pytest.raises(StubUnavailable, match="too long for the opener"):
            section.section(stub)
    else:
        section.section(stub)


def test_sources_are_found_by_their_names(tmp_path: Path) -> None:
    """Debian's names and the projects' own; one level down counts; Debian's patches do not."""
    debian = (
        "python3.11/python3.11_3.11.2.orig.tar.gz",
        "zlib/zlib_1.2.13.dfsg.orig.tar.bz2",
        "libffi_3.4.4.orig.tar.gz",
    )
    own = ("Python-3.11.9.tar.xz", "zlib-1.3.1.tar.gz", "libffi-3.4.6.tar.gz")
    for number, names in enumerate((debian, own)):
        folder = tmp_path / str(number)
        for name in (*names, "zlib/zlib_1.2.13.dfsg-1.debian.tar.xz", "Python-3.12.0.tar.xz"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        found = cpython.find_sources(folder)
        assert {path.relative_to(folder).as_posix() for path in found.values()} == set(names)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "Python-3.11.9.tar.xz").write_bytes(b"")
    with pytest.raises(StubUnavailable) as refused:
        cpython.find_sources(tmp_path)
    assert "zlib-1" in str(refused.value) and "libffi-3" in str(refused.value)
    assert "Python-3" not in str(refused.value)
    with pytest.raises(StubUnavailable, match=r"CPython 3\.11"):
        cpython.find_sources(tmp_path / "nowhere")


def test_the_command_line_offers_what_can_be_built() -> None:
    assert ARCHITECTURES == toolchain.ARCHITECTURES


def test_nothing_that_the_relocator_imports_is_left_out() -> None:
    """PyInstaller leaves out what the recipe says, whoever imports it: that would show where it runs, and when."""
    left_out = set(stubs.left_out())
    assert {"zipfile", "encodings.cp1252"} < left_out
    for path in Path(str(resources.files(installer_stub))).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
            assert not names & left_out, path.name


def test_editing_the_relocator_compiles_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled, in minutes, lies under a hash of what decides it; freezing takes seconds."""
    archive = tmp_path / "zlib.tar.gz"
    archive.write_bytes(b"")
    read: list[str] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    freeze.workplace({"zlib": archive})
    assert sorted(read) == ["cpython.py", "opener.c", "parts.py", "toolchain.py", "zlib.tar.gz"]
    del read[:]
    store.recipe()
    assert {"cpython.py", "opener.c", "stub.spec", "relocate.py", "freeze.py", "activate.sh"} < set(read)
