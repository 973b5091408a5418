"""What a tree knows of where it stands: every form that may be on disk.

``.pack/state.json`` is written, whole, before the first file of a relocation changes and after the last
one has. While a relocation is under way it names the forms that were there before and the one that is
being written; when it completes, that one alone. A tree without the file stands as archived.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from installer_stub.errors import ManifestError
from installer_stub.manifest import DIRECTORY, count, decode, encode, prefix_of, sha256_of
from installer_stub.rewrite import Digest, Form

STATE = DIRECTORY + b"/state.json"
_FORMAT = 1


class Stand(NamedTuple):
    """A form that may be on disk.

    ``others`` are the SHA-256 of files that the manifest cannot vouch for (added or edited after
    unpacking), as that relocation left them: their bytes alone do not tell in which form they are.
    """

    form: Form
    others: Mapping[bytes, str] = {}


class State(NamedTuple):
    """All forms that may be on disk, the newest last; more than one while a relocation is under way."""

    stands: Tuple[Stand, ...]
    host: bytes = b""
    history: Tuple[bytes, ...] = ()  # every prefix at which the tree ever stood, the newest last

    @property
    def newest(self) -> Stand:
        """The form that was written last, completely or not."""
        return self.stands[-1]

    @property
    def complete(self) -> bool:
        """Whether no relocation is under way or was interrupted."""
        return len(self.stands) == 1

    @property
    def prefix(self) -> Optional[bytes]:
        """Where the tree stands, if it is relocated and complete."""
        return self.newest.form.prefix if self.complete else None


ARCHIVED = State((Stand(Form(None)),))


def host_name() -> bytes:
    """Name this machine, as the kernel does."""
    return os.fsencode(os.uname().nodename)


def load(root: bytes) -> State:
    """Read the state of the tree at ``root``. Raises ManifestError where it is damaged."""
    path = os.path.join(root, STATE)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return ARCHIVED
    return parse(content, path)


def parse(content: bytes, path: bytes) -> State:
    """Read a state; ``path`` is what an error names. Raises ManifestError."""
    try:
        document = json.loads(content.decode())
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}, and this version reads {_FORMAT}")
        stands = tuple(_stand(row) for row in document["stands"])
        if not stands:
            raise ValueError("it names no form")
        history = tuple(_place(prefix) for prefix in document["history"])
        return State(stands, decode(document["host"]), history)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f"{os.fsdecode(path)} is damaged: {error}.",
            "Unpack the archive again: without its state nobody can tell in which form each file is.",
        ) from error


def dump(state: State) -> bytes:
    """Write a state as JSON."""
    rows = []
    for stand in state.stands:
        prefix = stand.form.prefix
        rows.append(
            {
                "prefix": None if prefix is None else encode(prefix),
                "digests": {encode(p): list(d) for p, d in sorted(stand.form.digests.items())},
                "others": {encode(p): sha256 for p, sha256 in sorted(stand.others.items())},
            }
        )
    history = [encode(prefix) for prefix in state.history]
    document = {"format": _FORMAT, "host": encode(state.host), "history": history, "stands": rows}
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def _place(text: str) -> bytes:
    """Read where a tree stood: at an absolute path, or, if it was packed for one, at one that begins with "./"."""
    prefix = decode(text)
    if prefix.startswith(b"./") and b".." not in prefix.split(b"/"):
        return prefix
    return prefix_of(text)


def _stand(row: Dict[str, Any]) -> Stand:
    prefix = None if row["prefix"] is None else _place(row["prefix"])
    digests = {decode(path): Digest(sha256_of(sha256), count(size)) for path, (sha256, size) in row["digests"].items()}
    return Stand(Form(prefix, digests), {decode(path): sha256_of(sha256) for path, sha256 in row["others"].items()})
