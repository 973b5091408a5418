"""The verdicts of an earlier scan, for the files that did not change since.

A file is the same as it was if its size, its two times and its inode are: no program can set the time of the last
change. ``docs/cache.md`` says where that does not hold.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from importlib import resources
from operator import attrgetter
from pathlib import Path
from typing import Any

import installer_stub
import pack
from installer_stub import bytecode, model, rewrite
from installer_stub.walk import Found
from pack import floor, splice
from pack.cache import Cache
from pack.examine import Context, Examined, Job

_UNSETTLED = 2 * 10**9  # nanoseconds: a file that changed so shortly before may change again within one tick

# What verdicts are made of. Nothing else is loaded, whoever wrote the file.
_KNOWN = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (
        bytecode.Header,
        floor.Binary,
        model.Field,
        model.Fill,
        model.Finding,
        model.Force,
        model.Reference,
        model.Spelling,
        model.Standing,
        rewrite.Digest,
        splice.Splice,
    )
}

_verdict = attrgetter(*(each.name for each in fields(Examined) if each.name != "job"))


class Recall:
    """What is known of an environment's files from an earlier scan; of ``cache`` None, nothing."""

    def __init__(
        self, cache: Cache | None, context: Context, decisive: Iterable[bytes], started_ns: int, trusted: bool
    ) -> None:
        """Load what the cache has of scans with this context, where nothing ``decisive`` was otherwise.

        ``started_ns`` is when the walk of the prefix began. Without ``trusted`` nothing is loaded, and all is kept.
        """
        self._cache = cache
        self._started_ns = started_ns
        self._name = _name(context, decisive) if cache is not None else ""
        loaded = cache.load(self._name) if cache is not None and trusted else None
        self._seen: dict[bytes, tuple[Any, Any]] = _loads(loaded) if loaded is not None else {}

    def __call__(self, job: Job, found: Found, digests: Mapping[str, str]) -> Examined | None:
        """Return the verdict on a file, if it is known; ``digests`` are those of the records of packages."""
        seen = self._seen.get(job.path)
        if seen is None or seen[0] != _state(job, found, digests):
            return None
        return Examined(job, *seen[1])

    def keep(self, verdicts: Sequence[Examined], files: Sequence[Found], digests: Mapping[str, str]) -> None:
        """Keep the verdicts on files for the next time, unless that is what is kept already."""
        if self._cache is None:
            return
        seen: dict[bytes, tuple[Any, Any]] = {}
        changed = False
        for each, stands in zip(verdicts, files, strict=True):
            job = each.job
            if each.error or stands.ctime_ns > self._started_ns - _UNSETTLED:
                continue
            before = self._seen.get(job.path)
            state = _state(job, stands, digests)
            if before is None or before[0] != state:
                changed = True
                before = (state, _verdict(each))
            seen[job.path] = before
        if changed or len(seen) != len(self._seen):
            self._cache.save(self._name, pickle.dumps(seen, 5))


def _state(job: Job, found: Found, digests: Mapping[str, str]) -> tuple[Any, ...]:
    """Gather what decides a verdict, beside the context."""
    recorded = digests.get(job.owned.package, "") if job.owned is not None else ""
    stands = (found.size, found.mtime_ns, found.ctime_ns, found.inode)
    return (*stands, recorded, job.elsewhere, job.privileged, job.source)


def _name(context: Context, decisive: Iterable[bytes]) -> str:
    hasher = hashlib.sha256(_program())
    for each in (context.prefix, *context.names, b"%d" % context.grow, *decisive):
        hasher.update(b"%d " % len(each) + each)
    return hasher.hexdigest()


@lru_cache(maxsize=1)
def _program() -> bytes:
    """Hash the program: another version may judge otherwise."""
    hasher = hashlib.sha256(sys.version.encode())
    for package in (pack, installer_stub):
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*.py")):
            hasher.update(path.read_bytes())
    return hasher.digest()


def _loads(content: bytes) -> dict[bytes, tuple[Any, Any]]:
    """Read what `Recall.keep` wrote; nothing, where that is not what it should be."""
    try:
        loaded = _Unpickler(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a class that verdicts are made of. Raises UnpicklingError for all others."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a verdict") from None
