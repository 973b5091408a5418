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
from enum import Enum
from functools import lru_cache
from importlib import resources
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


_Row = tuple[Any, Any]  # the state that a file was in, and all of the verdict on it but the job
_Group = dict[bytes, _Row]  # by path


class Recall:
    """What is known of an environment's files from an earlier scan; of ``cache`` None, nothing.

    Files are kept in groups, those of a package below a directory, so that only what changed is written again. A
    group is read when the first of its files is asked for: all of them take more memory than the scan itself.
    """

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
        self._written: dict[bytes, bytes] = _loads(loaded) if loaded is not None else {}
        self._groups: dict[bytes, _Group] = {}
        self._sizes: dict[bytes, int] = {}

    def __call__(self, job: Job, found: Found, digests: Mapping[str, str]) -> Examined | None:
        """Return the verdict on a file, if it is known; ``digests`` are those of the records of packages.

        It is told once: what is told is held no longer.
        """
        if not self._written:
            return None
        row = self._known(_group(job)).pop(job.path, None)
        if row is None or row[0] != _state(job, found, digests):
            return None
        return Examined.again(job, row[1])

    def _known(self, name: bytes) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _loads(self._written.get(name, b""))
            self._sizes[name] = len(group)
        return group

    def keep(
        self, files: Sequence[Found], verdicts: Sequence[Examined], known: Sequence[bool], digests: Mapping[str, str]
    ) -> None:
        """Keep the verdicts on files for the next time; ``known`` are those that were there already."""
        if self._cache is None:
            return
        self._groups.clear()
        members: dict[bytes, list[int]] = {}
        for number, verdict in enumerate(verdicts):
            members.setdefault(_group(verdict.job), []).append(number)
        written: dict[bytes, bytes] = {}
        for name, numbers in members.items():
            if all(known[number] for number in numbers) and len(numbers) == self._sizes.get(name):
                written[name] = self._written[name]
                continue
            group: _Group = {}
            for number in numbers:
                found, verdict = files[number], verdicts[number]
                settled = found.ctime_ns < self._started_ns - _UNSETTLED
                if known[number] or (settled and not verdict.error):
                    group[verdict.job.path] = (_state(verdict.job, found, digests), tuple(verdict[1:]))
            written[name] = _dumps(group)
        if written != self._written:
            self._cache.save(self._name, _dumps(written))


def _group(job: Job) -> bytes:
    return _group_of(job.owned.package if job.owned is not None else "", job.path.rpartition(b"/")[0])


@lru_cache(maxsize=256)  # the files of a directory come one behind the other
def _group_of(package: str, directory: bytes) -> bytes:
    """Name the group of files: their package, and their directory or what that lies in, at most five down."""
    return b"/".join([package.encode(), *directory.split(b"/")[:5]])


def _state(job: Job, found: Found, digests: Mapping[str, str]) -> tuple[Any, ...]:
    """Gather what decides a verdict, beside the context."""
    recorded = digests.get(job.owned.package, "") if job.owned is not None else ""
    stands = (found.size, found.mtime_ns, found.ctime_ns, found.inode)
    return (*stands, recorded, job.elsewhere, job.privileged, job.source, job.layers)


def _name(context: Context, decisive: Iterable[bytes]) -> str:
    hasher = hashlib.sha256(_program())
    for each in (context.prefix, *context.names, b"%d %d" % (context.grow, context.venv), *decisive):
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


def _by_value(each: Enum) -> tuple[Any, ...]:
    return type(each), (each.value,)


# By itself an enum is written as CPython likes: 3.11.2 has its name looked up with getattr, which is never loaded.
_ENUMS: dict[type, Any] = {kind: _by_value for kind in _KNOWN.values() if issubclass(kind, Enum)}


def _dumps(known: Mapping[bytes, Any]) -> bytes:
    """Write what `_loads` reads."""
    written = io.BytesIO()
    pickler = pickle.Pickler(written, 5)
    pickler.dispatch_table = _ENUMS
    pickler.dump(known)
    return written.getvalue()


def _loads(content: bytes) -> dict[bytes, Any]:
    """Read what `_dumps` wrote; nothing, where that is not what it should be."""
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
