"""An installer: a script, the frozen relocator and the environment in one file, which any POSIX shell runs.

``docs/installer.md`` shows how the file is laid out, and how to open it without running it.
"""

from __future__ import annotations

import os
import platform
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from installer_stub import hooks, target, trailer
from installer_stub.errors import TargetRefused, UsageError
from installer_stub.manifest import encode
from installer_stub.model import Field, Force, Kind
from installer_stub.trailer import Trailer
from pack import signature
from pack.archive import Format, Member, Writable
from pack.header import Facts, render, template
from pack.scan import Scan
from pack.signature import Hashed
from pack.stub import freeze, toolchain
from pack.stub.section import Section
from pack.stub.store import Stub, StubUnavailable

PAYLOADS = {"zst": Format.TAR_ZST, "gz": Format.TAR_GZ}
_SYSTEM = "Linux"
# What uname -m calls by one name wherever it runs; of 32-bit systems it has several names.
_MACHINES = ("x86_64", "aarch64", "loongarch64", "ppc64", "ppc64le", "riscv64", "s390x")
_CONDA = {"x86_64": "64", "i686": "32"}  # it names the others as uname does
_HOME = ("~/", "$HOME/", "${HOME}/")


class Installer(NamedTuple):
    """What is asked for of an installer, beside the environment in it."""

    name: str
    version: str
    default_prefix: str  # absolute, or "~/" and what follows
    payload: Format
    licence: bytes = b""
    welcome: bytes = b""
    conclusion: bytes = b""
    hooks: tuple[tuple[str, bytes], ...] = ()  # name and content
    key: Path | None = None  # to sign it with


def asked(environment: str, given: Mapping[str, str | None], stub: bool = True) -> Installer:
    """Read what the options of the command line ask for; ``given`` are their values by their names without dashes.

    ``environment`` is the base name of the prefix. Without a stub the payload is one that every machine can open.
    Raises UsageError for a file that cannot be read or is not what it should be, and for names that hold what no
    name should.
    """

    def file(option: str) -> bytes:
        path = given.get(option)
        return b"" if path is None else _read(f"--{option}", path)

    named = _plain("the name of the environment", environment, "Pack it by a symlink with another name: -p LINK.")
    default = given.get("default-prefix")
    key = given.get("sign-with")
    name = given.get("installer-name")
    return Installer(
        name=named if name is None else _named("--installer-name", name),
        version=_plain("--installer-version", given.get("installer-version") or ""),
        default_prefix=f"~/{named}" if default is None else _default_prefix(default),
        payload=PAYLOADS[given.get("payload") or ("zst" if stub else "gz")],
        licence=file("license-file"),
        welcome=file("welcome"),
        conclusion=file("conclusion"),
        hooks=tuple((hook, _hook(f"--{hook}", file(hook))) for hook in hooks.NAMES if given.get(hook) is not None),
        key=None if key is None else signature.checked_key(key),
    )


def _read(option: str, path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    if not content.strip():
        raise UsageError(f"{option} {path}: there is nothing in it", "Leave the option out, or name another file.")
    if b"\0" in content:
        raise UsageError(f"{option} {path}: holds a NUL: it is not text", "Name a file with text, in UTF-8.")
    return content


def _hook(option: str, content: bytes) -> bytes:
    if content.partition(b"\n")[0].endswith(b"\r"):
        raise UsageError(f"{option}: its lines end as on Windows: no shell runs that", "End them with newlines alone.")
    return content


def _named(what: str, value: str) -> str:
    if not value.strip():
        raise UsageError(f"{what} is empty", "Leave it out, or give a name.")
    return _plain(what, value)


def _plain(what: str, value: str, tip: str = "") -> str:
    """Return text of one line. A terminal shows it, and a shell holds it in a variable."""
    try:
        text = os.fsencode(value).decode()  # whatever the locale made of it
    except UnicodeError as error:
        raise UsageError(f"{what}, {value!a}, is not text in UTF-8", tip) from error
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise UsageError(f"{what}, {text!a}, holds a newline or another control character", tip)
    return text


def _default_prefix(value: str) -> str:
    """Write a default target in its one way. Raises UsageError for what can be none."""
    what = "--default-prefix"
    text = _plain(what, value)
    home = next((home for home in _HOME if text.startswith(home)), "")
    if not home and not text.startswith("/"):
        raise UsageError(f"{what} {text}: is relative", 'Give an absolute path, or one that begins with "~/".')
    parts = [part for part in text[len(home) :].split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f'{what} {text}: leads up by ".."', "Give the path without it.")
    path = "/" + "/".join(parts)
    try:
        target.check(path.encode(), has_text=False)
    except TargetRefused as error:
        raise UsageError(f"{what} {text}: {error}", error.tip) from error
    return f"~{path}" if home else path


def stub_for(scan: Scan, say: Callable[[str], None]) -> Stub:
    """Return the stub that an installer of the environment runs, built if need be; ``say`` is told what takes long.

    It is the one for the environment's architecture; where nothing is compiled, for this machine's. Raises
    StubUnavailable.
    """
    machine = scan.architecture or platform.machine()
    without = "or leave it out with --no-stub: the environment's own Python does its work then, where there is one."
    if machine not in toolchain.ARCHITECTURES:
        known = " and ".join(toolchain.ARCHITECTURES)
        raise StubUnavailable(
            f"There is no frozen relocator for {machine}, and an installer runs one.",
            f'"pack stub build" makes it for {known}. Pack for one of these, {without}',
        )
    try:
        return freeze.build(machine, None, say)
    except StubUnavailable as error:
        tip = f'Build it once with "pack stub build --arch {machine} --sources DIR", {without}'
        raise StubUnavailable(
            f"An installer runs a frozen relocator, and there is none: {error}", f"{error.tip}\n{tip}".strip()
        ) from error


def write_installer(
    out: Writable,
    scan: Scan,
    installer: Installer,
    version: str,
    contents: Sequence[Member],
    frozen: Section | None,
    write_payload: Callable[[Sequence[Member], Writable], None],
) -> None:
    """Write an installer of ``contents``, the members of an archive of the scanned environment.

    ``version`` is that of pack; ``write_payload`` writes the members as a compressed tar. Raises UsageError for a
    default target at which the environment cannot stand, and what writing a tar raises.
    """
    told = facts(scan, installer, version, contents, frozen)
    _check_default_prefix(told)
    header, stub, payload = Hashed(out), Hashed(out), Hashed(out)
    for part in (render(template(), told), installer.licence, installer.welcome, installer.conclusion):
        header.write(part)
    if frozen is not None:
        stub.write(frozen.opener)
        stub.write(frozen.archive)
    write_payload(contents, payload)
    out.write(trailer.dump(_trailer(header, stub, payload)))


def _trailer(*written: Hashed) -> Trailer:
    sections: list[trailer.Section] = []
    at = 0
    for part in written:
        sections.append(trailer.Section(at, part.length, part.sha256))
        at += part.length
    return Trailer(*sections)


def facts(scan: Scan, installer: Installer, version: str, contents: Sequence[Member], frozen: Section | None) -> Facts:
    """Gather what the script is told of an environment and of what lies behind the script."""
    limit, limit_file = _limit(scan, (Force.ALWAYS, Force.UNLESS_ALLOWED))
    limit_allowed, limit_allowed_file = _limit(scan, (Force.ALWAYS,))
    return Facts(
        installer_name=installer.name,
        installer_version=installer.version,
        pack_version=version,
        environment=os.fsencode(scan.environment.name).decode(),
        platform=platform_name(scan.architecture),
        system=_SYSTEM,
        machine=scan.architecture if scan.architecture in _MACHINES else "",
        glibc=scan.floor.glibc if scan.floor is not None else "",
        glibc_file=encode(scan.floor.path) if scan.floor is not None else "",
        limit=limit,
        limit_file=limit_file,
        limit_allowed=limit_allowed,
        limit_allowed_file=limit_allowed_file,
        longest_path=max(len(member.path) for member in contents),
        has_text=any(r.field is Field.TEXT for file in scan.manifest.files for r in file.references),
        entries=sum(member.kind is not Kind.HARD_LINK for member in contents),
        unpacked=sum(member.size for member in contents if member.kind is Kind.FILE),
        stub_unpacked=frozen.unpacked if frozen is not None else 0,
        opener_size=len(frozen.opener) if frozen is not None else 0,
        payload=next(name for name, format in PAYLOADS.items() if format is installer.payload),
        default_prefix=installer.default_prefix,
        licence_size=len(installer.licence),
        welcome_size=len(installer.welcome),
        conclusion_size=len(installer.conclusion),
        hooks=" ".join(name for name, _ in installer.hooks),
    )


def platform_name(machine: str) -> str:
    """Name a platform as conda does; ``noarch`` where nothing is compiled."""
    return f"{_SYSTEM.lower()}-{_CONDA.get(machine, machine)}" if machine else "noarch"


def _limit(scan: Scan, forces: Sequence[Force]) -> tuple[str, str]:
    """Tell how many bytes a target may have, and the first of the files that set this; nothing where none does."""
    longest = target.longest(scan.manifest, forces)
    return ("", "") if longest is None else (str(longest[0]), encode(longest[1][0]))


def _check_default_prefix(told: Facts) -> None:
    """Raise UsageError for a default target that the installer itself would refuse."""
    prefix = told.default_prefix.encode()
    if not prefix.startswith(b"/"):
        return  # nobody knows what will stand before it
    try:
        target.check(prefix, told.has_text)
    except TargetRefused as error:
        raise UsageError(f"--default-prefix {told.default_prefix}: {error}", error.tip) from error
    if told.limit and len(prefix) > int(told.limit):
        raise UsageError(
            f"--default-prefix {told.default_prefix}: has {len(prefix)} bytes, and {told.limit_file} has room for "
            f"{told.limit}",
            "Choose a shorter one; pack scan --limits tells how long it may be.",
        )
