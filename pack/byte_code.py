"""Which byte code is archived, and with what times its sources must be, so that none is compiled twice.

Python takes a ``.pyc`` for current if it records the time and size of its source. A source whose bytes
packing or relocation changes may keep its size, and its time is restored: its byte code would run stale,
so it is left out, and the first import compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from installer_stub import bytecode
from installer_stub.model import NOT_REWRITABLE, Kind, Standing
from installer_stub.walk import Found
from pack.examine import Examined


def left_out(examined: Mapping[bytes, Examined], pip_owned: Callable[[], Collection[bytes]]) -> dict[bytes, str]:
    """Find the byte code that is not archived, with the reason for each path.

    ``pip_owned`` gives the paths that pip distributions list as their own, where that decides.
    """
    reasons: dict[bytes, str] = {}
    for path, pyc in examined.items():
        if not path.endswith(b".pyc"):
            continue
        source = examined.get(bytecode.source_path(path) or b"")
        reason = _reason(pyc, source, pip_owned)
        if reason:
            reasons[path] = reason
    return reasons


def _reason(pyc: Examined, source: Examined | None, pip_owned: Callable[[], Collection[bytes]]) -> str:
    owned = pyc.job.owned
    if owned is not None and owned.byte_code:
        return "byte code that the installing client compiled"
    if source is None:
        return ""
    if source.references or source.layers:
        return "byte code of a source that names the prefix"
    if any(finding.what == NOT_REWRITABLE for finding in pyc.findings):
        return "byte code that names the prefix; its source does not"
    if owned is not None or pyc.job.known is not None or pyc.job.path in pip_owned():
        return ""
    parent = source.standing is not Standing.ADDED or source.job.known or source.job.path in pip_owned()
    return "byte code that appeared beside an owned source" if parent else ""


def empty_caches(found: Sequence[Found], examined: Mapping[bytes, Examined]) -> frozenset[bytes]:
    """Find the ``__pycache__`` directories of which nothing is archived: Python makes them as it needs them."""
    caches = {each.path for each in found if each.path.endswith(b"/__pycache__") or each.path == b"__pycache__"}
    filled = {
        each.path.rpartition(b"/")[0]
        for each in found
        if b"__pycache__/" in each.path and (each.kind is not Kind.FILE or each.path in examined)
    }
    return frozenset(caches - filled)


def source_mtimes(examined: Mapping[bytes, Examined]) -> dict[bytes, int]:
    """Find the time in seconds that the byte code shipped with each intact source records.

    Only byte code that is valid on disk counts: the package's builder compiled it from this very source.
    """
    times: dict[bytes, int] = {}
    for path, pyc in examined.items():
        if pyc.compiled is None or pyc.standing is not Standing.INTACT:
            continue
        name = bytecode.source_path(path)
        source = examined.get(name) if name else None
        if source is None or name is None or source.standing is not Standing.INTACT:
            continue
        mtime = source.job.mtime_ns // 10**9
        if (pyc.compiled.mtime, pyc.compiled.source_size) == (mtime, source.job.size):
            times[name] = mtime
    return times
