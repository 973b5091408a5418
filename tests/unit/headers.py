"""Installers with the real script and nothing real behind it: their program is a shell script that keeps a record."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shlex
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installer_stub.trailer import SIZE, Section, Trailer, dump
from pack.header import Facts, render, template

# As sh may be one. What starts each, without its user's own start-up files.
SHELLS: Mapping[str, tuple[str, ...]] = {
    "dash": ("dash",),
    "bash": ("bash",),
    "bash --posix": ("bash", "--posix"),
    "zsh": ("zsh", "-f"),
    "ksh93": ("ksh93",),
    "mksh": ("mksh",),
    "yash": ("yash", "--norcfile", "--noprofile"),
    "busybox sh": ("busybox", "sh"),
}

OPENER = b'#!/bin/sh\nPATH=/usr/bin:/bin\ncd "$1" && exec tar -xzf -\n'

# What it is called with and what it finds is written into files; "behave" in the same directory is run in it.
_PROGRAM = """#!/bin/sh
record={record}
PATH=/usr/bin:/bin
if [ "$1" = --version ]; then echo "frozen for a test"; exit; fi
cat "/proc/$$/environ" >"$record/environ"
cat "/proc/$$/status" >"$record/status"
readlink "/proc/$$/fd/0" >"$record/stdin"
for each; do printf '%s\\0' "$each"; done >"$record/arguments"
command=$1
while [ $# -gt 0 ]; do
    case $1 in
    --target) target=$2 ;;
    --staging) staging=$2 ;;
    esac
    shift
done
ls -ldn "$staging" >"$record/stage"
ls -A "$staging" >>"$record/stage"
cat "$staging/owner" >"$record/owner"
if [ -f "$record/behave" ]; then . "$record/behave"; fi
case $command in
install | extract) mkdir -p "$target/.pack" && echo '{{}}' >"$target/.pack/references.json" ;;
list) echo listed ;;
uninstall) rm -rf "$target" ;;
esac
"""

_PYTHON = """#!/bin/sh
exec {python} "$@"
"""

_RELOCATOR = """import os, sys
record = {record!r}
with open(record + "/arguments", "w") as file:
    file.write("".join(each + chr(0) for each in sys.argv[1:]))
with open(record + "/environ", "wb") as file:
    file.write(b"".join(name + b"=" + value + bytes(1) for name, value in os.environb.items()))
with open(record + "/stream", "wb") as file:
    file.write(sys.stdin.buffer.read())
os.makedirs(sys.argv[sys.argv.index("--target") + 1])
"""

FACTS = Facts(
    installer_name="Fake",
    installer_version="1.2",
    pack_version="0.1",
    environment="fake",
    platform="linux-64",
    system="Linux",
    machine=os.uname().machine,
    glibc="2.3",
    glibc_file="lib/libfake.so",
    limit="",
    limit_file="",
    limit_allowed="",
    limit_allowed_file="",
    longest_path=40,
    has_text=True,
    entries=12,
    unpacked=10_000,
    stub_unpacked=2_000,
    opener_size=0,
    payload="gz",
    default_prefix="~/fake",
    licence_size=0,
    welcome_size=0,
    conclusion_size=0,
    hooks="",
)


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command, with nothing to read; ``more`` goes to subprocess.run."""
    if "input" not in more:
        more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **more)


@dataclass(frozen=True)
class Record:
    """What the program of an installer wrote about its run."""

    directory: Path

    @property
    def exists(self) -> bool:
        return (self.directory / "arguments").exists()

    @property
    def arguments(self) -> list[str]:
        return [os.fsdecode(word) for word in (self.directory / "arguments").read_bytes().split(b"\0")[:-1]]

    @property
    def environ(self) -> dict[bytes, bytes]:
        lines = (self.directory / "environ").read_bytes().split(b"\0")[:-1]
        return dict(line.partition(b"=")[::2] for line in lines)

    def value(self, option: str) -> str:
        """Return what follows an option that the program was called with."""
        return self.arguments[self.arguments.index(option) + 1]

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def behave(self, commands: str) -> None:
        """Have the program run shell commands before it does its work; ``$target``, ``$staging``, ``$record``."""
        (self.directory / "behave").write_text(commands)


@dataclass(frozen=True)
class Installer:
    """An installer that was built, and where its program keeps its record."""

    path: Path
    record: Record
    header: bytes
    stub: bytes
    payload: bytes

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        return self.header, self.stub, self.payload

    def run(self, *options: str | Path, shell: str = "dash", **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run it in a shell; see `run`."""
        return run(*SHELLS[shell], self.path, *options, **more)

    def write(self, data: bytes) -> Installer:
        """Put other bytes in the place of the file."""
        self.path.write_bytes(data)
        return self


def build(
    path: Path,
    *,
    opener: bytes | None = OPENER,
    program: bytes | None = None,
    files: Iterable[tuple[str, bytes]] | None = None,
    payload: str = "gz",
    compress: Sequence[str] | None = None,
    facts: Mapping[str, object] | None = None,
    licence: bytes = b"",
    welcome: bytes = b"",
    conclusion: bytes = b"",
) -> Installer:
    """Write an installer to ``path`` and make a directory for the record beside it.

    Without an ``opener`` it has no stub. ``program`` is the stub's instead of the one that keeps a record, ``files``
    are the names and bytes of what is in the payload, ``compress`` is the command that packs it; ``facts`` change
    those of ``FACTS``.
    """
    record = Record(path.parent / f"{path.name}.record")
    record.directory.mkdir(exist_ok=True)
    told = FACTS._replace(
        payload=payload,
        opener_size=len(opener or b""),
        licence_size=len(licence),
        welcome_size=len(welcome),
        conclusion_size=len(conclusion),
        **(facts or {}),  # type: ignore[arg-type]
    )
    header = render(template(), told) + licence + welcome + conclusion
    stub = (
        b"" if opener is None else opener + gzip.compress(_tar([("relocator", program or _program(record))]), mtime=0)
    )
    tar = _tar(payload_with_python(record) if files is None else files)
    if compress is None:
        content = gzip.compress(tar, mtime=0)
    else:
        content = subprocess.run(compress, input=tar, stdout=subprocess.PIPE, check=True).stdout
    path.write_bytes(assembled(header, stub, content))
    return Installer(path, record, header, stub, content)


def assembled(header: bytes, stub: bytes, payload: bytes) -> bytes:
    """Put the parts of an installer together, and the trailer that belongs to them."""
    offset, sections = 0, []
    for part in (header, stub, payload):
        sections.append(Section(offset, len(part), hashlib.sha256(part).hexdigest()))
        offset += len(part)
    trailer = dump(Trailer(*sections))
    assert len(trailer) == SIZE
    return header + stub + payload + trailer


def payload_with_python(record: Record) -> list[tuple[str, bytes]]:
    """Return the files of an environment with a Python, for an installer that has to do without its stub."""
    return [
        ("bin/python3", _PYTHON.format(python="/usr/bin/python3").encode()),
        (".pack/relocator", _RELOCATOR.format(record=str(record.directory)).encode()),
    ]


def _program(record: Record) -> bytes:
    return os.fsencode(_PROGRAM.format(record=shlex.quote(str(record.directory))))


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def snapshot(directory: Path) -> Sequence[str]:
    """List all that is in a directory, to see that nothing was left."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def refused(run: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    """Assert that a run ended with a code, and said why in one error with these words."""
    said = run.stderr.decode(errors="replace")
    assert run.returncode == code, run
    assert said.count(": error: ") == 1, said
    for each in words:
        assert each in said, (each, said)


def tools(directory: Path, **scripts: str) -> Mapping[str, str]:
    """Return variables with which programs of our own are found first."""
    directory.mkdir()
    for name, script in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
