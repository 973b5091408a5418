"""What recreates an environment: its packages by address and hash, and what pip installed beside them.

The form is that of explicit specifications, which conda, mamba and micromamba read, and of pip's requirements. See
``docs/lock.md``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from email.parser import BytesHeaderParser
from typing import Any, NamedTuple

from installer_stub import manifest
from installer_stub.errors import EnvironmentUnfit, ManifestError
from installer_stub.walk import Found
from pack.layouts import conda
from pack.layouts.conda import Records

PATH = manifest.DIRECTORY + b"/lock.txt"
REQUIREMENTS = manifest.DIRECTORY + b"/requirements.txt"

EXPLICIT = "@EXPLICIT"
_METADATA = re.compile(rb".*/site-packages/[^/]+\.(?:dist|egg)-info/(?:METADATA|PKG-INFO)\Z")
_NAMES = (b"/METADATA", b"/PKG-INFO")  # with which it ends
_EDITABLE = "# editable: "


class Package(NamedTuple):
    """A package of conda's kind. ``url`` is empty where its record does not tell; hashes are hexadecimal, or empty."""

    name: str
    version: str
    build: str
    url: str
    md5: str
    sha256: str


class Lock(NamedTuple):
    """All packages by name, and the lines of requirements for what pip installed."""

    platform: str
    packages: tuple[Package, ...]
    requirements: tuple[str, ...]


def of(prefix: bytes, recorded: Records, found: Iterable[Found], sources: Mapping[bytes, bytes]) -> Lock:
    """Gather what the records of packages and the metadata of distributions say.

    ``sources`` are the absolute paths of files from outside of the prefix.
    """
    packages = tuple(
        sorted((_package(document) for document in recorded.documents.values()), key=lambda each: each.name)
    )
    subdirs = sorted({str(document.get("subdir") or "noarch") for document in recorded.documents.values()})
    platform = next((subdir for subdir in subdirs if subdir != "noarch"), "noarch")
    return Lock(platform, packages, tuple(sorted(_requirements(prefix, recorded, found, sources), key=str.casefold)))


def _package(document: Mapping[str, Any]) -> Package:
    def text(key: str) -> str:
        value = document.get(key)
        return value if isinstance(value, str) else ""

    url = conda.without_secrets(text("url"))
    return Package(text("name"), text("version"), text("build"), url, text("md5"), text("sha256"))


def _requirements(
    prefix: bytes, recorded: Records, found: Iterable[Found], sources: Mapping[bytes, bytes]
) -> Iterator[str]:
    """Yield a line for each distribution that no package owns."""
    for each in found:
        is_metadata = each.path.endswith(_NAMES) and _METADATA.match(each.path)
        if not is_metadata or each.path in recorded.owners:
            continue
        path = os.path.join(prefix, sources.get(each.path, each.path))
        try:
            with open(path, "rb") as file:
                headers = BytesHeaderParser().parse(file)
        except OSError:
            continue  # which the scan tells
        name, version = headers["Name"], headers["Version"]
        if name and version:
            yield _requirement(str(name), str(version), _direct_url(os.path.dirname(path)))


def _direct_url(info: bytes) -> Mapping[str, Any]:
    try:
        with open(os.path.join(info, b"direct_url.json"), "rb") as file:
            document = json.load(file)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and isinstance(document.get("url"), str) else {}


def _requirement(name: str, version: str, direct: Mapping[str, Any]) -> str:
    """Write a requirement as pip reads it; where it came from no index, with its address."""
    if not direct:
        return f"{name}=={version}"
    url = conda.without_secrets(direct["url"])
    if (direct.get("dir_info") or {}).get("editable"):
        return f"{_EDITABLE}{name}=={version}"  # its source was on one machine
    vcs = direct.get("vcs_info") or {}
    if vcs:
        return f"{name} @ {vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
    hashes = (direct.get("archive_info") or {}).get("hashes") or {}
    fragment = f"#sha256={hashes['sha256']}" if "sha256" in hashes else ""
    return f"{name} @ {url}{fragment}"


def explicit(lock: Lock, sha256: bool = False) -> str:
    """Write the explicit specification, with MD5 as the hash, or SHA-256; packages without an address are comments."""
    lines = [
        "# The packages of this environment. To make it again:",
        "#   conda create --name NAME --file THIS_FILE",
        f"# platform: {lock.platform}",
        EXPLICIT,
    ]
    for each in lock.packages:
        if not each.url:
            lines.append(f"# no address is recorded of {each.name}={each.version}={each.build}")
            continue
        md5, sha = each.md5, f"sha256:{each.sha256}" if each.sha256 else ""
        digest = (sha or md5) if sha256 else (md5 or sha)
        lines.append(f"{each.url}#{digest}" if digest else each.url)
    return "\n".join(lines) + "\n"


def requirements(lock: Lock) -> str:
    """Write the requirements of pip, or nothing."""
    return "".join(f"{line}\n" for line in lock.requirements)


def as_text(specification: str, required: str) -> str:
    """Put both into one file that stays an explicit specification: the requirements are comments in it."""
    if not required:
        return specification
    lines = ["# Installed by pip beside them:", *(f"#   {line}" for line in required.splitlines())]
    return specification + "\n".join(lines) + "\n"


def as_json(specification: str, required: str) -> dict[str, Any]:
    """Describe both in plain JSON types."""
    lines = specification.splitlines()
    platform = next((line.partition(": ")[2] for line in lines if line.startswith("# platform: ")), "")
    entries = [line for line in lines if line and not line.startswith(("#", "@"))]
    packages = [dict(zip(("url", "hash"), (*line.split("#", 1), ""), strict=False)) for line in entries]
    return {"platform": platform, "explicit": packages, "pip": required.splitlines()}


def files(lock: Lock) -> list[tuple[bytes, bytes]]:
    """Return what an archive keeps: paths and content; nothing for an environment of which nothing is known."""
    kept = [(PATH, explicit(lock).encode())] if lock.packages else []
    return [*kept, *([(REQUIREMENTS, requirements(lock).encode())] if lock.requirements else [])]


def require_known(lock: Lock, prefix: bytes) -> None:
    """Raise EnvironmentUnfit where there is nothing to list."""
    if not lock.packages and not lock.requirements:
        raise EnvironmentUnfit(
            f"{manifest.encode(prefix)}: no package manager has left records in it: nothing tells what it is made of.",
            "It can be packed all the same.",
        )


def of_archive(contents: Mapping[bytes, bytes], archive: str) -> tuple[str, str]:
    """Return what an archive keeps, of its files by path. Raises ManifestError where it keeps nothing."""
    if not contents:
        raise ManifestError(
            f"{archive} holds no list of packages: the environment in it had none, or an older version packed it.",
            "Unpack it, and ask for the list of the environment: pack lock -p DIR.",
        )
    return contents.get(PATH, b"").decode(), contents.get(REQUIREMENTS, b"").decode()
