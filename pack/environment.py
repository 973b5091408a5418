"""From a name or a path to the environment that is meant, without running conda.

Where names are looked for is the subject of ``pack.places``. Each directory counts once, however many
names it has; a name that several directories answer to is an error that lists them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from installer_stub.errors import EnvironmentNotFound, EnvironmentUnfit, PackError, UsageError
from installer_stub.manifest import INSTALLING
from pack import places

_GIVE_ONE = "Give an environment by its name with -n or by its directory with -p."


class Layout(Enum):
    """What a prefix knows of itself."""

    CONDA = "conda"
    VENV = "venv"
    PLAIN = "plain"


class Environment(NamedTuple):
    """An installed prefix.

    ``prefix`` is absolute and normal, and its symlinks are not resolved. ``names`` are all spellings
    under which the files of the environment may name it, longest first.
    """

    prefix: Path
    layout: Layout
    names: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """The base name of the prefix."""
        return self.prefix.name


def find(
    name: str | None,
    prefix: str | Path | None,
    environ: Mapping[str, str] = os.environ,
    cwd: Path | None = None,
) -> Environment:
    """Return the environment with this name, the one at this prefix, or else the active one.

    Raises UsageError for arguments that make no sense, EnvironmentNotFound if none or several answer,
    EnvironmentUnfit for a directory that cannot be packed.
    """
    if name is not None and prefix is not None:
        raise UsageError("both a name and a prefix are given", _GIVE_ONE)
    cwd = cwd or _working_directory(environ)
    if name is not None:
        return _by_name(name, environ, cwd)
    if prefix is not None:
        if not str(prefix):
            raise UsageError("the prefix given is empty", _GIVE_ONE)
        return _at(_absolute(str(prefix), environ, cwd), environ, cwd)

    variable = _active(environ, cwd)
    try:
        return _at(_absolute(environ[variable], environ, cwd), environ, cwd)
    except PackError as error:
        raise type(error)(f"the active environment ({variable}): {error}", error.tip) from error


def list_environments(environ: Mapping[str, str], cwd: Path) -> list[tuple[str, Path]]:
    """Return the name and prefix of each conda environment in the known places, sorted."""
    return [(each.name, each.paths[0]) for each in places.known(places.gather(environ, cwd))]


def _active(environ: Mapping[str, str], cwd: Path) -> str:
    """Return the variable that names the active environment, of the two that may.

    A venv activated inside a conda environment sets its own variable and leaves the other, and the
    other way round: the one whose programs are found first is meant.
    """
    variables = [variable for variable in ("CONDA_PREFIX", "VIRTUAL_ENV") if environ.get(variable)]
    if not variables:
        raise EnvironmentNotFound("no environment is active, and none is given", _GIVE_ONE)
    bins = {variable: os.path.realpath(cwd / environ[variable] / "bin") for variable in variables}
    for entry in places.split(environ.get("PATH")):
        for variable in variables:
            if os.path.realpath(cwd / entry) == bins[variable]:
                return variable
    return variables[0]


def _by_name(name: str, environ: Mapping[str, str], cwd: Path) -> Environment:
    """Return the one environment with this name."""
    if "/" in name:
        tip = f"Give the directory of an environment with -p: -p {_shown(name)}"
        raise UsageError(f"{name!r} is not a name: it holds a slash", tip)
    if name in ("", ".", "..") or "\0" in name:
        raise UsageError(f"{name!r} is not the name of an environment", _GIVE_ONE)
    gathered = places.gather(environ, cwd)
    # "root" is conda's old name of its own environment, and still accepted by it.
    candidates = places.named("base" if name == "root" else name, gathered)
    if not candidates:
        raise _unknown(name, gathered)
    first = candidates[0].paths
    if len(candidates) > 1:
        listed = "".join(f"\n  {_shown(each.paths[0])}" for each in candidates)
        tip = f"Choose one by its directory: -p {_shown(first[0])}"
        raise EnvironmentNotFound(f"{len(candidates)} environments are named {name!r}:{listed}", tip)
    return _at(first[0], environ, cwd, first)


def _unknown(name: str, gathered: places.Places) -> EnvironmentNotFound:
    """Say that there is no such name, and what there is or where was looked."""
    known = places.known(gathered)
    if known:
        width = max(len(_shown(each.name)) for each in known)
        listed = "".join(f"\n  {_shown(each.name):{width}}  {_shown(each.paths[0])}" for each in known)
        message = f"no environment is named {name!r}. There are:{listed}"
        tip = "Give one of these names with -n, or the directory of any other with -p."
    elif gathered.directories:
        listed = "".join(f"\n  {_shown(path)}" for path in gathered.directories)
        message = f"no environment is named {name!r}, and none at all was found in:{listed}"
        tip = "Give the directory of the environment with -p."
    else:
        message = f"no environment is named {name!r}, and nothing says where environments are"
        tip = "Give the directory of the environment with -p, or set CONDA_ENVS_DIRS."
    passed_over = [f"Passed over, since it cannot be read: {_shown(line)}" for line in gathered.broken]
    return EnvironmentNotFound(message, "\n".join([tip, *passed_over]))


def _at(prefix: Path, environ: Mapping[str, str], cwd: Path, spellings: Iterable[Path] = ()) -> Environment:
    """Return the environment at a prefix, or say why there is none or why it cannot be packed."""
    shown = _shown(prefix)
    try:
        os.stat(prefix)
    except PermissionError as error:
        tip = "Run as a user who may read the environment."
        raise EnvironmentUnfit(f"{shown} cannot be reached: {error.strerror}", tip) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        tip = "Check the spelling, or give the environment by its name with -n."
        raise EnvironmentNotFound(f"there is no environment at {shown}: {reason}", tip) from error
    if not os.path.isdir(prefix):
        raise EnvironmentNotFound(f"{shown} is not a directory", _inside_tip(prefix))
    if os.path.realpath(prefix) in ("/", "/usr"):
        raise EnvironmentUnfit(
            f"{shown} belongs to the operating system: its references cannot be told from everybody's",
            "Install what you want to pack into a prefix of its own.",
        )
    try:
        os.listdir(prefix)
    except OSError as error:
        tip = "Run as a user who may read the environment."
        raise EnvironmentUnfit(f"{shown} cannot be read: {error.strerror}", tip) from error
    if os.path.lexists(prefix / os.fsdecode(INSTALLING)):
        raise EnvironmentUnfit(
            f"{shown} cannot be packed: an installation there was not completed.",
            "Run the installer again, or unpack the delta with its base, and pack it then.",
        )
    layout = _layout(prefix)
    if layout is None:
        lacks = "no records in conda-meta, no pyvenv.cfg, and neither bin nor lib"
        raise EnvironmentNotFound(f"{shown} is not an environment: it has {lacks}", _inside_tip(prefix))
    return Environment(prefix, layout, _names(prefix, spellings, environ, cwd))


def _names(prefix: Path, spellings: Iterable[Path], environ: Mapping[str, str], cwd: Path) -> tuple[bytes, ...]:
    """Return the spellings of a prefix, longest first.

    Its files hold the one under which it was installed. Where that is not the one given, it may be the
    physical path, the one under which it is active, or the one under which it was registered.
    """
    active = [environ[name] for name in ("CONDA_PREFIX", "VIRTUAL_ENV") if environ.get(name)]
    others = [_absolute(text, environ, cwd) for text in active]
    others += [path for path in places.registered(environ, cwd) if path.name == prefix.name]
    here = places.identity(prefix)
    paths = [prefix, Path(os.path.realpath(prefix)), *spellings]
    paths += [path for path in others if places.identity(path) == here]
    names = {os.fsencode(path) for path in paths}
    return tuple(sorted(names, key=lambda spelling: (-len(spelling), spelling)))


def _layout(prefix: Path) -> Layout | None:
    """Tell what kind of environment a directory is; None if it is none, or cannot be read.

    conda wins over venv: its records say more, and they cover the files of a venv made in its prefix.
    """
    if places.has_records(prefix):
        return Layout.CONDA
    if os.path.isfile(prefix / "pyvenv.cfg"):
        return Layout.VENV
    if os.path.isdir(prefix / "bin") or os.path.isdir(prefix / "lib"):
        return Layout.PLAIN
    return None


def _inside_tip(path: Path) -> str:
    """Name the environment that a path lies in, if there is one."""
    for parent in path.parents:
        if _layout(parent) in (Layout.CONDA, Layout.VENV):
            return f"It lies inside an environment: -p {_shown(parent)}"
    return "Give the directory that holds the environment's bin and lib."


def _absolute(text: str, environ: Mapping[str, str], cwd: Path) -> Path:
    """Make a path absolute and normal without changing the directory that it names."""
    if text == "~" or text.startswith("~/"):
        text = environ.get("HOME", "~") + text[1:]
    path = cwd / text
    # POSIX keeps exactly two leading slashes apart, and normpath with it; here they mean the root.
    normal = Path("/" + os.path.normpath(path).lstrip("/"))
    # "link/.." is the directory above the link's target, which normpath does not know.
    return normal if places.identity(normal) == places.identity(path) else Path(os.path.realpath(path))


def _working_directory(environ: Mapping[str, str]) -> Path:
    """Return the working directory under the name that the shell shows, if that is still its name."""
    try:
        physical = Path.cwd()
    except OSError as error:
        tip = "Change to a directory that does."
        raise EnvironmentNotFound("the working directory no longer exists", tip) from error
    logical = Path(environ.get("PWD", ""))
    same = logical.is_absolute() and places.identity(logical) == places.identity(physical)
    return logical if same else physical


def _shown(path: Path | str) -> str:
    """Return a path as text that any terminal takes: bytes that are not UTF-8 as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
