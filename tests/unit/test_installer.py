"""An installer says of the environment what is true, holds names that mean something to a shell, and adds up."""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from installer_stub import hooks, trailer
from installer_stub.errors import UsageError
from installer_stub.trailer import Trailer
from pack import compress, header
from pack.archive import Format, Member, Writable, infer, parse
from pack.archive.tar import write_tar
from pack.environment import find
from pack.floor import Floor
from pack.header import Facts, render
from pack.installer import Installer, asked, facts, platform_name, stub_for, write_installer
from pack.members import members
from pack.scan import Options, Scan, scan
from pack.stub import freeze, store
from pack.stub.section import Section
from pack.stub.store import StubUnavailable

TEMPLATE = b"""#!/bin/sh
# What whoever changes this has to know.
@FACTS@
# shellcheck disable=SC2154
main() {
    # So is this.
    printf '%s\\n' "${text#*# }" # and this is not
}
"""
PLAIN = Installer("env", "", "~/env", Format.TAR_GZ)
FROZEN = Section(b"\x7fELF the opener", b"\x1f\x8b its archive", 1234)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A plain prefix that names itself in a shebang, in text and in a string of a program."""
    prefix = tmp_path / "opt" / "my-env"
    for directory in ("bin", "lib", "share"):
        (prefix / directory).mkdir(parents=True)
    name = bytes(prefix)
    (prefix / "bin/tool").write_bytes(b"#!/bin/sh\necho " + name + b"\n")
    (prefix / "lib/x.bin").write_bytes(b"\x7fX\0" + name + b"/share\0")
    (prefix / "lib/y.bin").hardlink_to(prefix / "lib/x.bin")
    (prefix / "share" / ("long" * 60)).write_bytes(b"plain\n")
    return prefix


@pytest.fixture
def scanned(prefix: Path) -> Scan:
    return scan(find(None, str(prefix)), Options(1))


def told(found: Scan, installer: Installer = PLAIN, frozen: Section | None = None) -> Facts:
    return facts(found, installer, "1.0", tuple(members(found, "1.0", None, installer)), frozen)


def written(found: Scan, installer: Installer = PLAIN, frozen: Section | None = None) -> bytes:
    """Write an installer into memory."""
    out = io.BytesIO()
    contents = tuple(members(found, "1.0", None, installer))

    def write_payload(contents: Iterable[Member], out: Writable) -> None:
        with compress.compressor(out, installer.payload) as stream:
            write_tar(contents, stream)

    write_installer(out, found, installer, "1.0", contents, frozen, write_payload)
    return out.getvalue()


def parts(data: bytes) -> tuple[Trailer, list[bytes]]:
    """Take an installer apart by what its trailer says."""
    read = trailer.load(data[-trailer.SIZE :], len(data))
    sections = (read.header, read.stub, read.payload)
    return read, [data[each.offset : each.offset + each.length] for each in sections]


# The script


def test_facts_take_the_place_of_their_line(scanned: Scan) -> None:
    """Comments that fill a line are left out but for the first line, which says what runs the script."""
    lines = render(TEMPLATE, told(scanned)).decode().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert lines[1] == "installer_name='env'"
    names = list(Facts._fields)
    assert [line.partition("=")[0] for line in lines[1 : 1 + len(names)]] == names
    assert lines[1 + len(names) :] == [
        "main() {",
        "    printf '%s\\n' \"${text#*# }\" # and this is not",
        "}",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "it's",
        "'",
        "''; touch here; '",
        "$(touch here)",
        "`touch here`",
        '"; touch here; "',
        "\\",
        "\\'",
        "EOF",
        "@FACTS@",
        "# no comment",
        "-n",
        "*",
        "~/env",
        "a  b ",
        "Ünïcödé 環境 \U0001f40d",
        "!history",
        "%s%n",
        "$HOME",
        "",
    ],
)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_values_are_data(value: str, shell: str, scanned: Scan, tmp_path: Path) -> None:
    """A shell that runs the script holds exactly what was meant."""
    hostile = told(scanned)._replace(installer_name=value, default_prefix=value)
    script = render(b'#!/bin/sh\n@FACTS@\nprintf "%s|%s|%s" "$installer_name" "$default_prefix" "$payload"\n', hostile)
    (tmp_path / "script").write_bytes(script)
    done = subprocess.run([shell, tmp_path / "script"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode() == f"{value}|{value}|gz"
    assert done.stderr == b""
    assert not (tmp_path / "here").exists()


def test_the_script_of_this_version_takes_the_facts(scanned: Scan) -> None:
    script = render(header.template(), told(scanned))
    assert script.startswith(b"#!/bin/sh\n")
    assert b"@FACTS@" not in script
    assert b"\npayload='gz'\n" in script
    assert not re.search(rb"\n[ \t]*#", script)
    subprocess.run(["sh", "-n"], input=script, check=True)


# What it is told


def test_facts_are_those_of_the_environment(prefix: Path, scanned: Scan) -> None:
    length = str(len(bytes(prefix)))
    found = told(scanned)
    assert (found.installer_name, found.installer_version, found.pack_version) == ("env", "", "1.0")
    assert found.environment == "my-env"
    assert (found.limit, found.limit_file) == (length, "lib/x.bin")
    assert (found.limit_allowed, found.limit_allowed_file) == ("", "")
    assert found.has_text
    assert found.longest_path == len("share/") + 240
    assert (found.stub_unpacked, found.opener_size, found.hooks) == (0, 0, "")
    assert (found.payload, found.default_prefix) == ("gz", "~/env")


def test_sizes_and_inodes_are_what_the_payload_unpacks_to(scanned: Scan) -> None:
    """Directories, and what packing adds, count; the second name of a file does not."""
    data = written(scanned)
    with tarfile.open(fileobj=io.BytesIO(parts(data)[1][2])) as archive:
        listed = archive.getmembers()
    assert sum(each.islnk() for each in listed) == 1
    found = told(scanned)
    assert found.entries == sum(not each.islnk() for each in listed)
    assert found.unpacked == sum(each.size for each in listed if each.isreg())


def test_platforms(scanned: Scan) -> None:
    """Named as conda does; where nothing is compiled, any machine will do."""
    assert (told(scanned).platform, told(scanned).system, told(scanned).machine) == ("noarch", "Linux", "")
    for machine, name in (("x86_64", "linux-64"), ("aarch64", "linux-aarch64"), ("ppc64le", "linux-ppc64le")):
        compiled = told(scanned._replace(architecture=machine, floor=Floor("2.28", b"lib/\xffx.so")))
        assert (compiled.platform, compiled.machine) == (name, machine)
        assert (compiled.glibc, compiled.glibc_file) == ("2.28", "lib/%FFx.so")
    # Of these uname -m has another name on each machine: the script could compare nothing.
    for machine, name in (("i686", "linux-32"), ("arm", "linux-arm"), ("258", "linux-258")):
        compiled = told(scanned._replace(architecture=machine))
        assert (compiled.platform, compiled.machine) == (name, "")
    assert platform_name("") == "noarch"


# The file


def test_the_sections_add_up(scanned: Scan) -> None:
    """The trailer tells where each part is and what it hashes to; the script stands before its texts."""
    installer = PLAIN._replace(licence=b"Yes.\nEOF\n", welcome=b"Hello \xff\n", conclusion=b"'`$(x)\n")
    data = written(scanned, installer, FROZEN)
    read, (head, stub, payload) = parts(data)
    assert (read.header.offset, read.stub.offset) == (0, len(head))
    assert read.payload.offset + len(payload) + trailer.SIZE == len(data)
    for section, content in zip((read.header, read.stub, read.payload), (head, stub, payload), strict=True):
        assert section.sha256 == hashlib.sha256(content).hexdigest()
    facts_told = told(scanned, installer, FROZEN)
    assert head == render(header.template(), facts_told) + b"Yes.\nEOF\nHello \xff\n'`$(x)\n"
    assert (facts_told.licence_size, facts_told.welcome_size, facts_told.conclusion_size) == (9, 8, 7)
    assert stub == FROZEN.opener + FROZEN.archive
    assert (facts_told.opener_size, facts_told.stub_unpacked) == (len(FROZEN.opener), FROZEN.unpacked)
    assert gzip.decompress(payload)


def test_without_a_stub_its_section_is_empty(scanned: Scan) -> None:
    read, _ = parts(written(scanned))
    assert (read.stub.length, read.stub.sha256) == (0, hashlib.sha256().hexdigest())


def test_the_payload_holds_the_archive_and_what_the_installer_leaves(scanned: Scan) -> None:
    hook = b"#!/bin/sh\nexit 0\n"
    installer = PLAIN._replace(name="Ünïcode", version="2", hooks=(("post-install", hook),))
    with tarfile.open(fileobj=io.BytesIO(parts(written(scanned, installer))[1][2])) as archive:
        names = archive.getnames()
        about = archive.extractfile(".pack/installer.json")
        script = archive.extractfile(".pack/hooks/post-install")
        assert about is not None and script is not None
        assert about.read().decode() == (
            '{\n "name": "Ünïcode",\n "pack": "1.0",\n "platform": "noarch",\n "version": "2"\n}\n'
        )
        assert script.read() == hook
        assert archive.getmember(".pack/hooks/post-install").mode == 0o755
    added = [name for name in names if name == ".pack/installer.json" or name.startswith(".pack/hooks")]
    assert added == [".pack/installer.json", ".pack/hooks", ".pack/hooks/post-install"]
    assert [name for name in names if name not in added] == [member.path.decode() for member in members(scanned, "1.0")]


def test_a_default_target_where_it_cannot_stand(prefix: Path, scanned: Scan) -> None:
    room = len(bytes(prefix))
    fits = PLAIN._replace(default_prefix="/" + "t" * (room - 1))
    assert written(scanned, fits)
    with pytest.raises(UsageError, match=rf"has {room + 1} bytes, and lib/x\.bin has room for {room}"):
        written(scanned, fits._replace(default_prefix="/" + "t" * room))
    with pytest.raises(UsageError, match=r"--default-prefix /a'b: .* holds '"):
        written(scanned, fits._replace(default_prefix="/a'b"))


def test_the_name_of_the_output_asks_for_it() -> None:
    assert infer("dir/env.sh") is infer("ENV.SH") is parse("sh") is Format.INSTALLER
    with pytest.raises(UsageError, match="does not say which format"):
        infer(".sh")


# What is asked for


def test_what_nobody_asks_for() -> None:
    assert asked("env", {}) == Installer("env", "", "~/env", Format.TAR_ZST)
    assert asked("env", {}, stub=False).payload is Format.TAR_GZ
    assert asked("env", {"payload": "zst"}, stub=False).payload is Format.TAR_ZST
    assert asked("env", {"payload": "gz"}).payload is Format.TAR_GZ
    assert asked("env", {"installer-name": "My Tool"}).default_prefix == "~/env"


def test_files_are_read(tmp_path: Path) -> None:
    given: dict[str, str | None] = {}
    for name in ("license-file", "welcome", "conclusion", *hooks.NAMES):
        (tmp_path / name).write_text(f"echo {name}\n")
        given[name] = str(tmp_path / name)
    installer = asked("env", given)
    assert (installer.licence, installer.welcome) == (b"echo license-file\n", b"echo welcome\n")
    assert installer.conclusion == b"echo conclusion\n"
    assert installer.hooks == tuple((name, f"echo {name}\n".encode()) for name in hooks.NAMES)


@pytest.mark.parametrize("option", ["license-file", "welcome", "conclusion", *hooks.NAMES])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "there is nothing in it"),
        (b" \n\t\n", "there is nothing in it"),
        (b"\x7fELF\0\0", "holds a NUL"),
        (b"l\0i\0c\0", "holds a NUL"),
    ],
)
def test_files_that_are_no_text(option: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"--{option} .*{reason}"):
        asked("env", {option: str(path)})


def test_a_hook_from_windows(tmp_path: Path) -> None:
    """The kernel would look for an interpreter whose name ends with a carriage return."""
    (tmp_path / "hook").write_bytes(b"#!/bin/sh\r\nexit 0\r\n")
    with pytest.raises(UsageError, match="--post-install: its lines end as on Windows"):
        asked("env", {"post-install": str(tmp_path / "hook")})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/opt/env", "/opt/env"),
        ("/opt//x/./env/", "/opt/x/env"),
        ("~/env", "~/env"),
        ("~//a/./env/", "~/a/env"),
        ("$HOME/env", "~/env"),
        ("${HOME}/env", "~/env"),
        ("/opt/$HOME", "/opt/$HOME"),
        ("/opt/with space/é", "/opt/with space/é"),
    ],
)
def test_default_targets(given: str, kept: str) -> None:
    assert asked("env", {"default-prefix": given}).default_prefix == kept


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("env", "is relative"),
        ("", "is relative"),
        ("~", "is relative"),
        ("~other/env", "is relative"),
        ("$HOME", "is relative"),
        ("/", "absolute path below the root"),
        ("~/", "absolute path below the root"),
        ("/opt/../env", 'leads up by ".."'),
        ("/a:b", "colon"),
        ("~/a:b", "colon"),
        ("/a\nb", "control character"),
        ("/a\udcff", "UTF-8"),
    ],
)
def test_default_targets_that_are_none(given: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"--default-prefix.*{reason}"):
        asked("env", {"default-prefix": given})


@pytest.mark.parametrize(
    ("environment", "given", "reason"),
    [
        ("env", {"installer-name": ""}, "--installer-name is empty"),
        ("env", {"installer-name": "  "}, "--installer-name is empty"),
        ("env", {"installer-name": "a\nb"}, "newline"),
        ("env", {"installer-name": "a\x1b[2J"}, "control character"),
        ("env", {"installer-name": "a\x9bJ"}, "control character"),
        ("env", {"installer-name": "a\u2028b"}, "newline"),
        ("env", {"installer-name": "\udcff"}, "not text in UTF-8"),
        ("env", {"installer-version": "1\r0"}, "--installer-version.*control character"),
        ("a\nb", {}, "name of the environment.*newline"),
        ("\udcff", {}, "name of the environment.*not text in UTF-8"),
    ],
)
def test_names_that_are_none(environment: str, given: Mapping[str, str | None], reason: str) -> None:
    """A terminal shows them, and a line ends with them."""
    with pytest.raises(UsageError, match=reason):
        asked(environment, given)


# The stub


@pytest.mark.parametrize(
    ("architecture", "wanted"), [("x86_64", "x86_64"), ("aarch64", "aarch64"), ("", platform.machine())]
)
def test_the_stub_is_that_of_the_environment(
    architecture: str, wanted: str, scanned: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is compiled it is this machine's: nobody knows which others there will be."""
    record = store.Record(wanted, "2.17", "3.11", "recipe", "0" * 64, 1, "0" * 64)
    built = store.Stub(tmp_path, record)
    monkeypatch.setattr(freeze, "build", lambda machine, sources, say: built if machine == wanted else None)
    assert stub_for(scanned._replace(architecture=architecture), lambda line: None) is built


def test_without_a_stub_both_ways_out_are_named(scanned: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: object) -> None:
        raise StubUnavailable("make is missing.", "Install it.")

    monkeypatch.setattr(freeze, "build", build)
    with pytest.raises(StubUnavailable, match="make is missing") as caught:
        stub_for(scanned._replace(architecture="aarch64"), lambda line: None)
    for words in ("Install it.", "pack stub build --arch aarch64", "--no-stub"):
        assert words in caught.value.tip
    with pytest.raises(StubUnavailable, match="no frozen relocator for riscv64") as caught:
        stub_for(scanned._replace(architecture="riscv64"), lambda line: None)
    for words in ("pack stub build", "--no-stub"):
        assert words in caught.value.tip
