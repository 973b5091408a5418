"""How each path stands to the package that owns it, told in words: what was changed, by whom, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from installer_stub import bytecode
from installer_stub.errors import EnvironmentUnfit
from installer_stub.manifest import encode
from installer_stub.model import Finding, Standing
from pack.examine import Examined
from pack.layouts.conda import Owned, Records
from pack.records import Claim

MODIFIED = "modified since it was installed"
MISSING = "missing"
CLOBBERED = "overwritten"

_SHOWN = 20


class Standings(NamedTuple):
    """The paths that do not stand as they were installed, and those restored to what their package shipped."""

    restored: tuple[bytes, ...] = ()
    modified: tuple[Finding, ...] = ()
    missing: tuple[Finding, ...] = ()
    clobbered: tuple[Finding, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """All that makes the environment another than its packages: what ``--strict`` refuses."""
        return (*self.clobbered, *self.modified, *self.missing)


def of(
    examined: Mapping[bytes, Examined],
    recorded: Records,
    claims: Mapping[bytes, Claim],
    missing: tuple[Finding, ...],
) -> Standings:
    """Tell the paths apart. ``claims`` are what the RECORD of each distribution says that pip installed."""
    restored, modified, clobbered = [], [], []
    for path, verdict in examined.items():
        owned = verdict.job.owned
        if owned is None or verdict.from_manifest:
            continue
        rivals, claim = recorded.rivals.get(path, ()), claims.get(path)
        if verdict.standing is Standing.INTACT and not (rivals or claim or verdict.layers):
            continue  # as nearly all are
        if bytecode.source_path(path):
            continue  # Python makes its byte code anew where it is stale
        others = list(_others(path, verdict, rivals, claim))
        if others:
            clobbered += others
        elif verdict.standing is Standing.MODIFIED:
            modified.append(Finding(path, -1, MODIFIED, owned.package))
        elif verdict.standing is Standing.INTACT and verdict.layers:
            restored.append(path)
    return Standings(tuple(restored), tuple(modified), missing, tuple(clobbered))


def _others(path: bytes, verdict: Examined, rivals: tuple[Owned, ...], claim: Claim | None) -> Iterator[Finding]:
    owned = verdict.job.owned
    assert owned is not None
    intact = verdict.standing is not Standing.MODIFIED
    for rival in rivals:
        if rival.sha256 and rival.sha256 == owned.sha256:
            continue  # the same file in both packages
        if intact:
            whose = f"{owned.package}, which overwrote that of {rival.package}"
        elif rival.sha256 == verdict.disk.sha256:
            whose = f"{rival.package}, which overwrote that of {owned.package}"
        else:
            whose = f"{owned.package} and {rival.package} both claim it, and it is neither's"
        yield Finding(path, -1, CLOBBERED, whose)
    if claim is not None and not intact:
        if claim.holds(verdict.disk):
            whose = f"{claim.distribution} by pip, which overwrote that of {owned.package}"
        else:
            whose = f"{owned.package} and {claim.distribution} by pip both claim it, and it is neither's"
        yield Finding(path, -1, CLOBBERED, whose)


def require_as_installed(standings: Standings) -> None:
    """Raise EnvironmentUnfit, with the paths, unless all stands as its packages were installed."""
    faults = standings.faults
    if not faults:
        return
    lines = [f"  {encode(each.path)}: {each.what}: {each.detail}" for each in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        lines.append(f"  and {len(faults) - _SHOWN:,} more; pack scan --json lists all")
    raise EnvironmentUnfit(
        "\n".join([f"--strict: {len(faults):,} paths are not as their packages were installed:", *lines]),
        "Install these packages again, or pack without --strict: what is there is packed as it is.",
    )
