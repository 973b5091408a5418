"""Parcels: what Cloudera Manager distributes to the hosts of a cluster.

A parcel is a tar.gz whose one directory is ``NAME-VERSION``, with ``meta/parcel.json``, which describes it, and
``meta/conda_env.sh``, which services source. It is activated at ROOT/NAME-VERSION, so its files name that place. The
fields are those that the parcel format of Cloudera's ``cm_ext`` demands.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from installer_stub.errors import UsageError
from installer_stub.model import Kind
from pack.archive import FIXED_MTIME, Member
from pack.scan import Scan

ROOT = "/opt/cloudera/parcels"
DISTRO = "el7"
_META = b"meta"
_SCRIPT = "conda_env.sh"
PATHS = (_META + b"/" + _SCRIPT.encode(), _META + b"/parcel.json")
# Cloudera Manager sets both variables for each activated parcel. Whoever has set the other meant it.
_DEFINES = """\
: "${CDH_PYTHON:=$PARCELS_ROOT/$PARCEL_DIRNAME/bin/python}"
export CDH_PYTHON
for _pack_script in "$PARCELS_ROOT/$PARCEL_DIRNAME/etc/conda/activate.d"/*.sh; do
    if [ -f "$_pack_script" ]; then
        . "$_pack_script"
    fi
done
unset _pack_script
"""


class Parcel(NamedTuple):
    """What a parcel is called, and where it goes."""

    root: str
    name: str
    version: str
    distro: str

    @property
    def directory(self) -> str:
        """The directory in the archive, and below the root."""
        return f"{self.name}-{self.version}"

    @property
    def file_name(self) -> str:
        """What the file has to be called."""
        return f"{self.directory}-{self.distro}.parcel"

    @property
    def prefix(self) -> str:
        """Where its files are used."""
        return os.path.join(self.root, self.directory)


def parcel(
    environment: str,
    root: str | None,
    name: str | None,
    version: str | None,
    distro: str | None,
    environ: Mapping[str, str] = os.environ,
) -> Parcel:
    """Fill in what is not given: the environment's name, the date, that of ``SOURCE_DATE_EPOCH`` if it is set.

    Raises UsageError for what no parcel may be called.
    """
    made = Parcel(root or ROOT, name or environment, version or _today(environ), distro or DISTRO)
    for option, value in (("name", made.name), ("distro", made.distro)):
        if "-" in value:
            raise UsageError(
                f"--parcel-{option} {value}: may hold no dash: dashes separate name, version and distribution",
                f"Give another with --parcel-{option}, such as {value.replace('-', '_')}.",
            )
    for option, value in (("name", made.name), ("version", made.version), ("distro", made.distro)):
        if not value.strip() or "/" in value or not value.isprintable():
            raise UsageError(f"--parcel-{option} {value!r}: is no part of a file's name")
    if not made.root.startswith("/"):
        raise UsageError(f"--parcel-root {made.root}: is relative", "Give the absolute path where parcels lie.")
    return made


def _today(environ: Mapping[str, str]) -> str:
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    return time.strftime("%Y.%m.%d", time.gmtime(int(epoch)) if epoch.isdigit() else time.localtime())


def meta(made: Parcel, scan: Scan) -> Iterator[Member]:
    """Yield the directory ``meta`` of a parcel: what it is, and the script that services source."""
    yield Member(_META, Kind.DIRECTORY, 0o755, FIXED_MTIME, 0, b"", lambda: iter(()))
    described = json.dumps(_description(made, scan), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    for name, content in ((_SCRIPT, _DEFINES), ("parcel.json", described)):
        data = content.encode()
        path = _META + b"/" + name.encode()
        yield Member(path, Kind.FILE, 0o644, FIXED_MTIME, len(data), b"", lambda data=data: iter((data,)))  # type: ignore[misc]


def _description(made: Parcel, scan: Scan) -> dict[str, Any]:
    packages = {item.entry.package for item in scan.items if item.entry.package}
    listed = [package.rsplit("-", 2) for package in sorted(packages)]
    return {
        "schema_version": 1,
        "name": made.name,
        "version": made.version,
        "setActiveSymlink": True,
        "extraVersionInfo": {
            "baseVersion": made.version,
            "fullVersion": f"{made.version}-{made.distro}",
            "patchCount": "0",
        },
        "scripts": {"defines": _SCRIPT},
        "packages": [{"name": each[0], "version": "-".join(each[1:])} for each in listed],
        "components": [{"name": made.name, "version": made.version, "pkg_version": made.version}],
        "provides": ["spark-plugin"],
        "users": {},
        "groups": [],
    }
