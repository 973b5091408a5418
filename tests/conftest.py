"""Real channels and environments for every test, and the rules for skipping.

Environment variables:

``PACK_TEST_CHANNEL``  a channel to install from, instead of building one (see ``fixtures/channel.py``)
``PACK_TEST_CACHE``    where what is built once is kept, instead of ``.cache``
``PACK_TEST_NO_SKIP``  ``1``: a test that would be skipped fails, and says why
``PACK_TEST_ALL``      ``1``: long series run in full, not a seeded tenth of them (see
                       ``fixtures/selection.py``), and properties are tried with other examples each time
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from fixtures import channel as channels
from fixtures import references
from fixtures.selection import all_run, cases, need

__all__ = ["MakeEnvironment", "cases", "lend", "need"]

PYTHON_SPECS = ("python", "numpy", "requests", "rich", "pip", "jupyter-core", "setuptools", "wheel")
NATIVE_SPECS = ("ncurses", "openssl", "sqlite", "xz")

# A property is tried with the same examples each time; where long series run in full, with others, by chance.
settings.register_profile("chance", settings.get_profile("ci"), derandomize=False)
settings.load_profile("chance" if all_run() else "ci")


class MakeEnvironment(Protocol):
    """Install a fresh environment that the test owns and may change."""

    def __call__(self, specs: Sequence[str], path: Path | None = None) -> Path: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure with PACK_TEST_NO_SKIP=1: a run that skips proves less than it says."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("PACK_TEST_NO_SKIP") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was to be skipped, and PACK_TEST_NO_SKIP=1 forbids it: {reason}"
    return report


@pytest.fixture(scope="session")
def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary directory that all processes of one test run share."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return shared / "environments"


@pytest.fixture(scope="session")
def channel() -> Path:
    """The channel of real packages."""
    return channels.find_channel()


@pytest.fixture(scope="session")
def references_channel() -> Path:
    """The channel of packages made for the tests, one for each way to name a prefix."""
    return channels.references_channel()


@pytest.fixture(scope="session")
def package_cache(session_directory: Path) -> Path:
    """The package cache that this run's environments are installed from and hard-linked with."""
    return session_directory / "cache"


@pytest.fixture(scope="session")
def python_env(session_directory: Path, channel: Path, package_cache: Path) -> Iterator[Path]:
    """A pristine environment with CPython, NumPy, OpenSSL and pip, which no test may change.

    Running its Python without ``-B`` writes byte code: that is a change. Take ``make_env`` for it.
    """
    yield from lend(session_directory / "python", PYTHON_SPECS, [channel], package_cache)


@pytest.fixture(scope="session")
def native_env(session_directory: Path, channel: Path, package_cache: Path) -> Iterator[Path]:
    """A pristine environment without Python, which no test may change."""
    yield from lend(session_directory / "native", NATIVE_SPECS, [channel], package_cache)


@pytest.fixture(scope="session")
def references_env(
    session_directory: Path, channel: Path, references_channel: Path, package_cache: Path
) -> Iterator[Path]:
    """A pristine environment with every package made for the tests, which no test may change.

    ``fixtures/references.py`` says what they hold. Their programs run by ``run_programs`` change nothing.
    """
    specs = ("python", *references.available())
    yield from lend(session_directory / "references", specs, [channel, references_channel], package_cache)


@pytest.fixture
def hang_up() -> Iterator[None]:
    """Let a program that the test starts be ended by SIGHUP and SIGQUIT.

    Under nohup it would ignore the one, as it should, and in the background of a script the other.
    """
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGQUIT)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def make_env(tmp_path: Path, request: pytest.FixtureRequest, channel: Path, package_cache: Path) -> MakeEnvironment:
    """Install environments that belong to the test.

    Their files are copies, never links into the package cache: the test may write into them in place. Specs
    that name a package made for the tests are looked for in both channels.
    """
    made = 0

    def make(specs: Sequence[str], path: Path | None = None) -> Path:
        nonlocal made
        made += 1
        sources = [channel]
        if any(spec.startswith("ref-") for spec in specs):
            sources.append(request.getfixturevalue("references_channel"))
        prefix = path or tmp_path / f"env{made}"
        return channels.install(prefix, specs, sources, cache=package_cache, hard_links=False)

    return make


def lend(prefix: Path, specs: Sequence[str], sources: Sequence[Path], cache: Path) -> Iterator[Path]:
    """Install a shared environment once, lend it, and fail if a test of this process changed it."""
    listing = prefix.with_suffix(".listing")
    with channels.locked(prefix):
        if not listing.is_file():
            shutil.rmtree(prefix, ignore_errors=True)
            channels.install(prefix, specs, sources, cache=cache)
            listing.write_text("\n".join(_listing(prefix)))
    yield prefix
    changed = sorted(set(listing.read_text().splitlines()) ^ set(_listing(prefix)))
    if changed:
        pytest.fail(f"a test changed the shared environment {prefix}:\n" + "\n".join(changed[:20]))


def _listing(prefix: Path) -> list[str]:
    """List every file with what changes when it is written: its size, its time, its inode."""
    lines: list[str] = []
    for directory, directories, names in os.walk(prefix):
        for path in (Path(directory, name) for name in (*directories, *names)):
            if path.is_dir() and not path.is_symlink():
                continue
            facts = path.lstat()
            lines.append(f"{str(path.relative_to(prefix))!r} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino}")
    return sorted(lines)
