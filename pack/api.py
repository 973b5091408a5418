"""The library: what ``import pack`` offers. The names, keywords, meanings and defaults are those of conda-pack.

What differs is listed in ``docs/api.md``. Nothing is printed unless ``verbose`` asks for it.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from installer_stub.errors import PackError, UsageError
from installer_stub.model import Kind
from pack import bake, parcel, scan, selection
from pack import write as writing
from pack.archive import Format, infer, parse
from pack.editables import Editables
from pack.environment import Environment, find
from pack.selection import Rule

CondaPackException = PackError
"""What everything here raises, with ``code``, the exit code of the program, and ``tip``, what to do."""


@dataclass(frozen=True, order=True)
class File:
    """One path of an environment: a file, a symlink, or a directory that is empty.

    ``source`` is its absolute path, and ``target`` the one relative to the prefix. ``is_conda`` tells whether a
    package owns it. ``file_mode`` is "text" or "binary" where its package says that it names a prefix, ``None`` where
    it says that it does not, and "unknown" where no package owns it; ``prefix_placeholder`` is the prefix that it was
    built with.
    """

    source: str = field(compare=False)
    target: str
    is_conda: bool = field(default=True, compare=False)
    file_mode: str | None = field(default=None, compare=False)
    prefix_placeholder: str | None = field(default=None, compare=False)


class CondaEnv:
    """An environment, and which of its files are packed. It never changes: a filter makes another."""

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        files: Iterable[File],
        excluded_files: Iterable[File] | None = None,
        *,
        ignore_editable_packages: bool = False,
    ) -> None:
        """Take an environment at ``prefix``, and those of its ``files`` that are packed.

        ``excluded_files`` are others, which `include` can add. Raises CondaPackException where there is none.
        """
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

        ``on_missing_cache`` and ``ignore_missing_files`` are accepted and change nothing: no package cache is read, and
        missing files are reported. Raises CondaPackException, also for editable packages unless these are ignored.
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
        """Return the environment at this prefix; all else is as for `from_name`."""
        return cls._of(find(None, os.fspath(prefix)), ignore_editable_packages)

    @classmethod
    def from_default(
        cls,
        *,
        on_missing_cache: str = "warn",
        ignore_editable_packages: bool = False,
        ignore_missing_files: bool = False,
    ) -> CondaEnv:
        """Return the active environment; all else is as for `from_name`."""
        return cls._of(find(None, None), ignore_editable_packages)

    @classmethod
    def _of(cls, environment: Environment, ignore_editable_packages: bool) -> CondaEnv:
        if not ignore_editable_packages:
            scan.require_no_editables(environment)
        files = _files(environment)
        return cls(environment.prefix, files, ignore_editable_packages=ignore_editable_packages)

    def exclude(self, pattern: str) -> CondaEnv:
        """Return one without the files that match a pattern of ``fnmatch``, or lie in a directory that does."""
        rule = selection.rule("exclude", pattern)
        kept = [each for each in self.files if not _matches(each, rule)]
        return self._with(kept, [*self._excluded, *(each for each in self.files if _matches(each, rule))])

    def include(self, pattern: str) -> CondaEnv:
        """Return one that has those of the excluded files again that match."""
        rule = selection.rule("include", pattern)
        back = [each for each in self._excluded if _matches(each, rule)]
        return self._with([*self.files, *back], [each for each in self._excluded if not _matches(each, rule)])

    def _with(self, files: Iterable[File], excluded: Iterable[File]) -> CondaEnv:
        ignored = self._editables is Editables.SKIP
        return CondaEnv(self.prefix, files, excluded, ignore_editable_packages=ignored)

    def pack(
        self,
        output: str | os.PathLike[str] | None = None,
        format: str = "infer",
        arcroot: str = "",
        dest_prefix: str | None = None,
        parcel_root: str | None = None,
        parcel_name: str | None = None,
        parcel_version: str | None = None,
        parcel_distro: str | None = None,
        verbose: bool = False,
        force: bool = False,
        compress_level: int | None = 4,
        n_threads: int = 1,
        zip_symlinks: bool = False,
        zip_64: bool = True,
    ) -> str:
        """Write the environment into one output, which appears whole or not at all; return the path of that.

        ``format`` is "infer", by the suffix of ``output``, or one of those that ``pack --help`` lists, but no
        installer; without an output it is tar.gz, and the output is called like the environment. ``compress_level``
        None stands for the format's default, ``n_threads`` -1 for all cores. Raises CondaPackException.
        """
        given = os.fspath(output) if output is not None else None
        kind = parse(format) or (infer(given) if given is not None else Format.TAR_GZ)
        if kind is Format.INSTALLER:
            raise UsageError("an installer is not written by this function", "Use the program: pack -o NAME.sh")
        made = None
        if kind is Format.PARCEL:
            if dest_prefix or arcroot:
                raise UsageError("dest_prefix and arcroot contradict a parcel, which has its own", "Leave them out.")
            made = parcel.parcel(self.name, parcel_root, parcel_name, parcel_version, parcel_distro)
            dest_prefix, arcroot = made.prefix, made.directory
        path = given or (made.file_name if made is not None else f"{self.name}.{format if parse(format) else 'tar.gz'}")
        options = writing.Options(
            path=Path(path),
            format=kind,
            force=force,
            level=compress_level,
            threads=_threads(n_threads),
            scan=scan.Options(rules=self._rules(), editables=self._editables),
            parcel=made,
            dest_prefix=bake.destination(dest_prefix) if dest_prefix else None,
            arcroot=os.fsencode(arcroot),
            zip_symlinks=zip_symlinks,
            zip64=zip_64,
        )
        from pack.cli.terminal import Bar

        with Bar(quiet=not verbose) as bar:
            writing.write(self._environment, options, metadata.version("relopack"), bar, bar.say)
        return path

    def _rules(self) -> tuple[Rule, ...]:
        """Say which of all files are not among those that are packed, each by its own path."""
        packed = {each.target for each in self.files}
        gone = [each.target for each in _files(self._environment) if each.target not in packed]
        return tuple(Rule(glob.escape(target)) for target in gone)


def pack(
    name: str | None = None,
    prefix: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    format: str = "infer",
    arcroot: str = "",
    dest_prefix: str | None = None,
    parcel_root: str | None = None,
    parcel_name: str | None = None,
    parcel_version: str | None = None,
    parcel_distro: str | None = None,
    verbose: bool = False,
    force: bool = False,
    compress_level: int | None = 4,
    n_threads: int = 1,
    zip_symlinks: bool = False,
    zip_64: bool = True,
    filters: Sequence[tuple[str, str]] | None = None,
    ignore_editable_packages: bool = False,
    ignore_missing_files: bool = False,
) -> str:
    """Pack an environment, by its name, its prefix, or the active one; return the path of the output.

    ``ignore_missing_files`` changes nothing: they are reported. ``filters`` are pairs of "exclude" or "include" and a
    pattern, applied in their order; the rest is as for
    `CondaEnv.pack` and `CondaEnv.from_name`. Raises CondaPackException.
    """
    if name and prefix:
        raise UsageError("both a name and a prefix are given", "Give one of them.")
    if prefix:
        environment = CondaEnv.from_prefix(prefix, ignore_editable_packages=ignore_editable_packages)
    elif name:
        environment = CondaEnv.from_name(name, ignore_editable_packages=ignore_editable_packages)
    else:
        environment = CondaEnv.from_default(ignore_editable_packages=ignore_editable_packages)
    for kind, pattern in filters or ():
        selection.rule(kind, pattern)  # which refuses another kind
        environment = environment.exclude(pattern) if kind == "exclude" else environment.include(pattern)
    return environment.pack(
        output=output,
        format=format,
        arcroot=arcroot,
        dest_prefix=dest_prefix,
        parcel_root=parcel_root,
        parcel_name=parcel_name,
        parcel_version=parcel_version,
        parcel_distro=parcel_distro,
        verbose=verbose,
        force=force,
        compress_level=compress_level,
        n_threads=n_threads,
        zip_symlinks=zip_symlinks,
        zip_64=zip_64,
    )


def _files(environment: Environment) -> list[File]:
    """List what a walk finds, in the order of their paths."""
    recorded, found = scan.listed(environment)
    filled = {each.path.rpartition(b"/")[0] for each in found}
    files = []
    for each in found:
        if each.kind is Kind.DIRECTORY and each.path in filled:
            continue
        owned = recorded.owners.get(each.path)
        mode = "unknown" if owned is None else ("text" if owned.text else "binary") if owned.placeholder else None
        placeholder = os.fsdecode(owned.placeholder) if owned is not None and owned.placeholder else None
        target = os.fsdecode(each.path)
        files.append(File(str(environment.prefix / target), target, owned is not None, mode, placeholder))
    return sorted(files)


def _matches(file: File, rule: Rule) -> bool:
    """Whether a pattern matches a path, or a directory that it lies in."""
    pattern = re.compile(fnmatch.translate(rule.pattern))
    parts = file.target.split("/")
    return any(pattern.match("/".join(parts[:count])) for count in range(1, len(parts) + 1))


def _threads(given: int) -> int:
    if given == -1:
        return 0
    if given < 1:
        raise UsageError(f"n_threads={given}: there is no such number of cores", "Give 1 or more, or -1 for all.")
    return given
