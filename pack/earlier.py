"""What an earlier packing says of a prefix that was unpacked from an archive of ours."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from installer_stub import manifest, relocate, state
from installer_stub.model import Entry, Finding, Relocatable
from installer_stub.rewrite import Form


class Earlier(NamedTuple):
    """The manifest, the full list, and the forms that may be on disk; all empty in any other prefix.

    A file that is in one of the forms takes its archived bytes and its standing from here, so that
    packing again after a move gives the same archive.
    """

    entries: Mapping[bytes, Entry]
    relocatables: Mapping[bytes, Relocatable]
    forms: tuple[Form, ...]
    added: frozenset[bytes]  # what packing put there: it is no part of the environment
    findings: Mapping[bytes, tuple[Finding, ...]]  # by path
    digest: bytes = b""  # of all of this

    @classmethod
    def of(cls, prefix: bytes) -> Earlier:
        """Read what the prefix holds. Raises ManifestError where it is damaged."""
        if not os.path.lexists(os.path.join(prefix, manifest.REFERENCES)):
            return cls({}, {}, (), frozenset(), {})
        tree = relocate.open_tree(prefix)
        listing = relocate.listing_of(tree)
        findings: dict[bytes, tuple[Finding, ...]] = {}
        for finding in listing.findings:
            findings[finding.path] = (*findings.get(finding.path, ()), finding)
        return cls(
            {entry.path: entry for entry in listing.entries},
            {file.path: file for file in tree.manifest.files},
            tuple(stand.form for stand in reversed(tree.state.stands)),
            frozenset((*tree.manifest.added, manifest.DIRECTORY)),
            findings,
            _digest(prefix),
        )


def _digest(prefix: bytes) -> bytes:
    """Hash the files that an earlier packing, and what relocated it, left."""
    hasher = hashlib.sha256()
    for path in (manifest.REFERENCES, manifest.FILES, state.STATE):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(prefix, path), "rb") as file:
            hasher.update(hashlib.sha256(file.read()).digest())
        hasher.update(path)
    return hasher.digest()
