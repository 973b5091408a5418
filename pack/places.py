"""The places where conda, mamba and pixi keep environments, and what is there.

Nothing is run: variables, configuration files and the file in which environments are registered tell all.
The places are listed, with their order, in ``docs/finding-environments.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pack import condarc


class Places(NamedTuple):
    """Where environments may be, each list in the order in which conda looks."""

    roots: tuple[Path, ...]  # root prefixes: environments themselves, all named "base"
    directories: tuple[Path, ...]  # hold environments under their names
    registered: tuple[Path, ...]  # environments, from ~/.conda/environments.txt
    broken: tuple[str, ...]  # configuration files that could not be read, with the reason


class Known(NamedTuple):
    """One environment: its name, and all the paths found that lead to it, the first found first."""

    name: str
    paths: tuple[Path, ...]


def gather(environ: Mapping[str, str], cwd: Path) -> Places:
    """Find out where environments may be. What is absent or unreadable is passed over."""
    roots = _roots(environ, cwd)
    directories: list[Path] = []
    for variable in ("CONDA_ENVS_DIRS", "CONDA_ENVS_PATH"):
        directories += [condarc.expand(entry, environ, cwd) for entry in split(environ.get(variable))]
    broken: list[str] = []
    for file in condarc.files(roots, environ, cwd):
        try:
            written = condarc.environment_directories(file)
        except condarc.CondarcError as error:
            broken.append(f"{file}: {error}")
            continue
        directories += [condarc.expand(entry, environ, cwd) for entry in written]
    directories += [root / "envs" for root in roots]
    if home := _path("HOME", environ, cwd):
        directories.append(home / ".conda" / "envs")
    directories += _pixi(environ, cwd)
    return Places(tuple(roots), tuple(dict.fromkeys(directories)), registered(environ, cwd), tuple(broken))


def named(name: str, places: Places) -> list[Known]:
    """Return the conda environments with this name.

    Asks each directory for the name and does not list it: some forbid to be listed.
    """
    paths = [*places.roots] if name == "base" else []
    paths += [directory / name for directory in places.directories]
    paths += [path for path in places.registered if path.name == name]
    return _distinct((name, path) for path in paths)


def known(places: Places) -> list[Known]:
    """Return every conda environment in the places, sorted by name and path."""
    found = [("base", root) for root in places.roots]
    for directory in places.directories:
        try:
            found += [(name, directory / name) for name in sorted(os.listdir(directory))]
        except OSError:
            continue
    found += [(path.name, path) for path in places.registered]
    return sorted(_distinct(found), key=lambda each: (each.name, each.paths))


def registered(environ: Mapping[str, str], cwd: Path) -> tuple[Path, ...]:
    """Return the prefixes in the file where conda and mamba write down each that they make."""
    home = _path("HOME", environ, cwd)
    if home is None:
        return ()
    try:
        lines = (home / ".conda" / "environments.txt").read_bytes().splitlines()
    except OSError:
        return ()
    return tuple(Path(os.path.normpath(os.fsdecode(line.strip()))) for line in lines if line.startswith(b"/"))


def has_records(prefix: Path) -> bool:
    """Tell whether a package manager of conda's kind installed this prefix. pixi writes no history."""
    try:
        return any(name == "history" or name.endswith(".json") for name in os.listdir(prefix / "conda-meta"))
    except OSError:
        return False


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells two directories apart, whatever their names; None if there is no such path."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def split(value: str | None) -> list[str]:
    """Return the parts of a search path that are not empty."""
    return [entry for entry in (value or "").split(os.pathsep) if entry]


def _distinct(found: Iterable[tuple[str, Path]]) -> list[Known]:
    """Keep the conda environments, each once: the name first found, and every path."""
    kept: dict[tuple[int, int], tuple[str, dict[Path, None]]] = {}
    for name, path in found:
        key = identity(path)
        if key is not None and has_records(path):
            kept.setdefault(key, (name, {}))[1][path] = None
    return [Known(name, tuple(paths)) for name, paths in kept.values()]


def _roots(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """Return the root prefixes of conda and mamba.

    Those that variables name; if there are none, those whose program is in PATH; else mamba's defaults.
    """
    roots = [_path(name, environ, cwd) for name in ("CONDA_ROOT", "_CONDA_ROOT", "MAMBA_ROOT_PREFIX")]
    programs = [_path(name, environ, cwd) for name in ("CONDA_EXE", "_CONDA_EXE", "MAMBA_EXE")]
    roots += [_of_program(program) for program in programs if program]
    active = _path("CONDA_PREFIX", environ, cwd)
    if active and (_above(active) != active or os.path.isdir(active / "condabin")):
        roots.append(_above(active))
    if not any(roots):
        entries = [cwd / entry for entry in split(environ.get("PATH"))]
        on_path = (entry / name for entry in entries for name in ("conda", "mamba"))
        roots += [_of_program(program) for program in on_path if os.path.isfile(program)]
    if not any(roots) and (home := _path("HOME", environ, cwd)):
        data = _path("XDG_DATA_HOME", environ, cwd) or home / ".local" / "share"
        roots += [path for path in (home / "micromamba", data / "mamba") if os.path.isdir(path)]
    return list(dict.fromkeys(root for root in roots if root))


def _of_program(program: Path) -> Path | None:
    """Return the root prefix that a conda or mamba program belongs to; micromamba may belong to none."""
    for path in (program, Path(os.path.realpath(program))):
        prefix = path.parent.parent
        if has_records(prefix):
            return _above(prefix)
    return None


def _above(prefix: Path) -> Path:
    """Return the root prefix whose ``envs`` a prefix lies in, or else the prefix itself."""
    root = prefix.parent.parent
    return root if prefix.parent.name == "envs" and has_records(root) else prefix


def _pixi(environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    """Yield pixi's directories: of the active project, of the project around ``cwd``, the global one.

    Detached environments are found through the symlink that pixi leaves at ``.pixi/envs``.
    """
    if project := _path("PIXI_PROJECT_ROOT", environ, cwd):
        yield project / ".pixi" / "envs"
    for directory in (cwd, *cwd.parents):
        if os.path.isdir(directory / ".pixi" / "envs"):
            yield directory / ".pixi" / "envs"
            break
    if pixi_home := _path("PIXI_HOME", environ, cwd):
        yield pixi_home / "envs"
    if home := _path("HOME", environ, cwd):
        yield home / ".pixi" / "envs"


def _path(variable: str, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the path that a variable holds; None if it is unset or empty."""
    value = environ.get(variable)
    return condarc.expand(value, environ, cwd) if value else None
