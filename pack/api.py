"""The library: what ``import pack`` offers. The names, keywords, meanings and defaults are those of conda-pack.

What differs is listed in ``docs/api.md``. Nothing is printed unless ``verbose`` asks for it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from installer_stub.errors import PackError, UsageError
from pack import scan as scanning
from pack.editables import Editables
from pack.environment import Environment, find
from pack.layouts import conda
from pack.selection import Rule, selected

CondaPackException = PackError
"""What everything here raises: an error of any kind, with ``code``, its exit code, and ``tip``, what to do."""


@dataclass(frozen=True, order=True)
class File:
    """One path of an environment.

    ``source`` is its absolute path and ``target`` the one relative to the prefix. ``is_conda`` tells whether a
    package owns it; ``file_mode`` is what its package says of it, "text" or "binary", None where that says nothing
    of a prefix in it, and "unknown" where no package owns it; ``prefix_placeholder`` is the prefix that it was
    built with.
    """

    source: str = field(compare=False)
    target: str
    is_conda: bool = field(default=True, compare=False)
    file_mode: str | None = field(default=None, compare=False)
    prefix_placeholder: str | None = field(default=None, compare=False)


class CondaEnv:
    """An environment, and which of its files are packed. It never changes: a filter makes a new one.

    ``prefix`` is a directory; ``files`` are those that are packed and ``excluded_files`` others that
    `include` can add again.
    """

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        files: Iterable[File],
        excluded_files: Iterable[File] | None = None,
        *,
        ignore_editable_packages: bool = False,
    ) -> None:
        self._environment = find(None, os.fspath(prefix))
        self.prefix = str(self._environment.prefix)
        self.files = sorted(files)
        self._excluded = list(excluded_files or ())
        self._editables = Editables.SKIP if ignore_editable_packages else Editables.ERROR

    def __repr__(self) -> str:
        return f"CondaEnv<{self.prefix!r}, {len(self)} files>"

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[File]:
        return iter(self.files)

    @property
    def name(self) -> str:
        """The base name of the prefix."""
        return self._environment.name

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        on_missing_cache: str = "warn",
        ignore_editable_packages: bool = False,
        ignore_missing_files: bool = False,
    ) -> CondaEnv:
        """Return the environment with this name.

        ``on_missing_cache`` and ``ignore_missing_files`` are accepted, and change nothing: no package cache is read,
        and missing files are reported. Raises CondaPackException, also for editable packages unless these are
        ignored.
        """
        return cls._of(find(name, None), ignore_editable_packages)

    @classmethod
    def from_prefix(
        cls,
        prefix: str | os.PathLike[str],
        *,
        on_missing_cache: str = "warn",
        ignore_editable_packages: bool = False,
        ignore_missing_files: bool = False,
    ) -> CondaEnv:
        """Return the environment at this prefix; the rest is as for `from_name`."""
        return cls._of(find(None, os.fspath(prefix)), ignore_editable_packages)

    @classmethod
    def from_default(
        cls,
        *,
        on_missing_cache: str = "warn",
        ignore_editable_packages: bool = False,
        ignore_missing_files: bool = False,
    ) -> CondaEnv:
        """Return the active environment; the rest is as for `from_name`."""
        return cls._of(find(None, None), ignore_editable_packages)

    @classmethod
    def _of(cls, environment: Environment, ignore_editable_packages: bool) -> CondaEnv:
        files = _files(environment)
        return cls(environment.prefix, files, ignore_editable_packages=ignore_editable_packages)

    def exclude(self, pattern: str) -> CondaEnv:
        """Return one without the files that match a pattern of ``fnmatch``, or lie below a directory of that name."""
        gone = _matching(self.files, pattern)
        kept = [each for each in self.files if each.target not in gone]
        return self._with(kept, [*self._excluded, *(each for each in self.files if each.target in gone)])

    def include(self, pattern: str) -> CondaEnv:
        """Return one with those of the excluded files again that match."""
        back = _matching(self._excluded, pattern)
        kept = [*self.files, *(each for each in self._excluded if each.target in back)]
        return self._with(kept, [each for each in self._excluded if each.target not in back])

    def _with(self, files: Iterable[File], excluded: Iterable[File]) -> CondaEnv:
        ignored = self._editables is Editables.SKIP
        return CondaEnv(self.prefix, files, excluded, ignore_editable_packages=ignored)
