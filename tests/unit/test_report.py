"""A report says what a scan found: all of it in JSON, the most of it in lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from installer_stub.model import HARMLESS, Finding
from pack import report
from pack.environment import find
from pack.floor import Floor, Outside
from pack.scan import Options, Scan, scan

LIBRARY = b"\x7fX\0%s/share\0%s/src/x.c\0"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A plain prefix that names itself in a few ways."""
    prefix = tmp_path / "opt" / "my-env"
    for directory in ("bin", "lib", "share"):
        (prefix / directory).mkdir(parents=True)
    name = bytes(prefix)
    (prefix / "bin/tool").write_bytes(b"#!" + name + b"/bin/awk\n# " + name + b"\n")
    (prefix / "lib/x.bin").write_bytes(LIBRARY.replace(b"%s", name))
    (prefix / "share/plain").write_bytes(b"plain\n")
    (prefix / "share/\udcff").write_bytes(b"x")
    (prefix / "share/away").symlink_to("/usr/\udcff")
    return prefix


def scanned(prefix: Path) -> Scan:
    return scan(find(None, str(prefix)), Options(1))


def test_json_has_all_and_is_json(prefix: Path) -> None:
    facts: dict[str, Any] = json.loads(json.dumps(report.as_json(scanned(prefix))))
    assert facts["prefix"] == str(prefix)
    assert facts["layout"] == "plain"
    assert facts["entries"] == {"directory": 3, "file": 4, "symlink": 1}
    assert facts["standing"] == {"added": 4}
    assert facts["references"] == {"C string": 2, "shebang": 1, "text": 1}
    assert facts["files_with_references"] == 2
    assert facts["prefixes"] == [str(prefix)]
    assert facts["findings"] == [
        {"path": "share/away", "offset": None, "what": "leaves the prefix", "detail": "/usr/%FF"}
    ]


def test_limits_tell_what_sets_them(prefix: Path) -> None:
    """The shebang is that of awk, which nothing can start from a longer line than the kernel takes."""
    length = len(bytes(prefix))
    found = scanned(prefix)
    assert report.limits(found) == {
        "complete": {"bytes": length, "files": ["lib/x.bin"]},
        "accepted": {"bytes": length, "files": ["lib/x.bin"]},
    }
    (prefix / "lib/x.bin").unlink()
    line = 127 - len(b"#!/bin/awk\n")
    assert report.limits(scanned(prefix))["accepted"] == {"bytes": line, "files": ["bin/tool"]}
    (prefix / "bin/tool").unlink()
    assert report.limits(scanned(prefix)) == {"complete": None, "accepted": None}


def test_the_name_of_a_source_limits_only_what_is_complete(prefix: Path) -> None:
    (prefix / "bin/tool").unlink()
    (prefix / "lib/x.bin").write_bytes(b"\0" + bytes(prefix) + b"/src/x.c\0")
    limits = report.limits(scanned(prefix))
    assert limits["complete"]["bytes"] == len(bytes(prefix))
    assert limits["accepted"] is None
    assert "limit       none: nothing is refused at a target of any length" in report.limits_text(scanned(prefix))


def test_lines_for_a_person(prefix: Path) -> None:
    lines = report.as_text(scanned(prefix)).splitlines()
    length = len(bytes(prefix))
    assert lines[0].startswith(f"{prefix}: a plain environment, 8 entries, 4 files, 0.0 MB")
    assert lines[1:7] == [
        "files       4 added",
        "references  4 in 2 files: 2 C string, 1 shebang, 1 text",
        "harmless    1 of them: debug information, static archives, names of sources",
        f"limit       {length} bytes: everything is rewritten up to there (lib/x.bin)",
        f"limit       {length} bytes: nothing is refused up to there (lib/x.bin)",
        "target      any directory named 'my-env' is best: strings that keep their length keep their ends, too",
    ]
    assert lines[7:] == ["not rewritten: 1 leaves the prefix", "  share/away: /usr/%FF"]


def test_the_glibc_that_is_needed(prefix: Path) -> None:
    found = scanned(prefix)
    facts = report.as_json(found)
    assert (facts["architecture"], facts["glibc"], facts["glibc_file"], facts["not_measured"]) == ("", None, None, [])
    assert not any(line.startswith("glibc") for line in report.as_text(found).splitlines())
    odd = (Finding(b"lib/odd", -1, "not measured", "why"),)
    found = found._replace(architecture="x86_64", floor=Floor("2.17", b"lib/lib\xff.so"), not_measured=odd)
    facts = json.loads(json.dumps(report.as_json(found)))
    assert (facts["architecture"], facts["glibc"], facts["glibc_file"]) == ("x86_64", "2.17", "lib/lib%FF.so")
    assert facts["not_measured"] == [{"path": "lib/odd", "offset": None, "what": "not measured", "detail": "why"}]
    lines = report.as_text(found).splitlines()
    assert "glibc       2.17 or newer (lib/lib%FF.so)" in lines
    assert lines[lines.index("glibc: 1 not measured") + 1] == "  lib/odd: why"


def test_the_libraries_that_come_from_the_machine(prefix: Path) -> None:
    found = scanned(prefix)
    assert report.as_json(found)["libraries_outside"] == []
    assert not any(line.startswith("libraries") for line in report.as_text(found).splitlines())
    found = found._replace(
        outside=(Outside(b"libx\xff.so.1", (b"bin/a", b"lib/\xfe")), Outside(b"liby.so", (b"bin/a",)))
    )
    facts = json.loads(json.dumps(report.as_json(found)))
    assert facts["libraries_outside"] == [
        {"name": "libx%FF.so.1", "files": ["bin/a", "lib/%FE"]},
        {"name": "liby.so", "files": ["bin/a"]},
    ]
    line = "libraries   from the machine, beside glibc's: libx%FF.so.1, liby.so"
    assert line in report.as_text(found).splitlines()
    many = tuple(Outside(b"lib%d.so" % number, (b"bin/a",)) for number in range(11))
    shown = ", ".join(f"lib{number}.so" for number in range(8))
    line = f"libraries   from the machine, beside glibc's: {shown} and 3 more; --json lists all"
    assert line in report.as_text(found._replace(outside=many)).splitlines()


def test_an_empty_prefix_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/x").touch()
    assert "references  0 in 0 files: none" in report.as_text(scanned(tmp_path / "env"))


def test_a_long_list_is_cut_in_text_only(prefix: Path) -> None:
    for number in range(30):
        (prefix / f"share/{number:02}").symlink_to("/usr")
    found = scanned(prefix)
    text = report.as_text(found)
    assert "not rewritten: 31 leaves the prefix" in text
    assert "  and 11 more; --json lists all" in text
    assert len(report.as_json(found)["findings"]) == 31


def test_what_is_harmless_is_counted_and_not_listed(prefix: Path) -> None:
    found = scanned(prefix)
    listing = found.listing
    harmless = Finding(b"x.pyc", 5, HARMLESS, "2 names of sources")
    changed = type(found)(
        found.environment,
        found.items,
        found.manifest,
        type(listing)(listing.entries, (*listing.findings, harmless)),
        found.notes,
    )
    lines = report.as_text(changed).splitlines()
    assert "harmless    1 files of byte code name their sources, which Python mends" in lines
    assert not any("x.pyc" in line for line in lines)
