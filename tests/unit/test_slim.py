"""What running needs not, by profile."""

from __future__ import annotations

import pytest

from installer_stub.errors import UsageError
from pack import slim
from pack.cli.options import SLIM

SITE = "lib/python3.11/site-packages"


@pytest.mark.parametrize(
    ("path", "profile"),
    [
        ("share/doc/x/index.html", "docs"),
        ("share/man/man1/x.1", "docs"),
        ("share/doc/x/LICENSE", ""),
        ("share/doc/x/LICENSES/MIT.txt", ""),
        ("share/doc/x/copyright", ""),
        (f"{SITE}/numpy/core/tests/test_x.py", "tests"),
        (f"{SITE}/numpy/testing/tests/test_x.py", ""),
        (f"{SITE}/numpy/testing/_private.py", ""),
        (f"{SITE}/tests.py", ""),
        ("lib/python3.11/test/test_x.py", "tests"),
        ("lib/libz.a", "static"),
        ("lib/libz.la", "static"),
        ("lib/libz.so", ""),
        ("include/zlib.h", "headers"),
        ("lib/pkgconfig/zlib.pc", "headers"),
        (f"{SITE}/x/__pycache__/y.cpython-311.pyc", "pyc"),
        (f"{SITE}/x/__pycache__/gone.cpython-311.pyc", ""),
        (f"{SITE}/x/y.pyc", ""),
        ("share/locale/de/LC_MESSAGES/x.mo", "locales"),
        ("bin/python", ""),
    ],
)
def test_what_goes_with_which_profile(path: str, profile: str) -> None:
    slimmed = slim.slimming(slim.PROFILES, {f"{SITE}/x/y.py".encode(), path.encode()})
    assert slimmed(path.encode()) == (f"--slim {profile}" if profile else "")
    assert slim.slimming((), set())(path.encode()) == ""


@pytest.mark.parametrize(
    ("text", "names"),
    [("docs", ("docs",)), ("pyc, docs", ("docs", "pyc")), ("all", slim.PROFILES), ("all,docs", slim.PROFILES)],
)
def test_profiles_are_named(text: str, names: tuple[str, ...]) -> None:
    assert slim.profiles(text) == names


@pytest.mark.parametrize("text", ["", ",", "doc", "docs,x"])
def test_unknown_profiles_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--slim") as refused:
        slim.profiles(text)
    assert "docs, tests, static" in refused.value.tip


def test_the_command_line_offers_them() -> None:
    assert SLIM == slim.PROFILES
