"""The configuration files of conda and mamba, as far as they say where environments are.

Only the setting ``envs_dirs`` is read. Which files there are and how a path in them is expanded follows
conda's documentation ("Searching for .condarc"), with mamba's own files beside them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SYSTEM_DIRECTORIES = (Path("/etc/conda"), Path("/var/lib/conda"))

_SETTINGS = ("envs_dirs", "envs_path")  # conda takes the second as another name of the first
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")


class CondarcError(Exception):
    """A configuration file cannot be read. ``str(error)`` is the reason, in one line."""


def expand(text: str, environ: Mapping[str, str], cwd: Path) -> Path:
    """Make an absolute path of a path as configured: variables, then ``~``, then relative to ``cwd``.

    An unset variable is left as it is written, as conda does.
    """
    text = _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), text)
    if text == "~" or text.startswith("~/"):
        text = environ.get("HOME", "~") + text[1:]
    elif text.startswith("~"):
        text = os.path.expanduser(text)
    return Path(os.path.normpath(cwd / text))


def files(roots: Sequence[Path], environ: Mapping[str, str], cwd: Path) -> list[Path]:
    """Return the configuration files that exist, for installations of conda at ``roots``."""
    found: dict[Path, None] = {}
    for directory in _directories(roots, environ, cwd):
        for program in ("conda", "mamba"):
            for path in (directory / f".{program}rc", directory / f"{program}rc"):
                if os.path.isfile(path):
                    found[path] = None
            found.update(dict.fromkeys(_yaml_files(directory / f"{program}rc.d")))
    for variable in ("CONDARC", "MAMBARC"):
        if value := environ.get(variable):
            path = expand(value, environ, cwd)
            if os.path.isfile(path):
                found[path] = None
    return list(found)


def environment_directories(file: Path) -> list[str]:
    """Return the directories that a configuration file names, as written there.

    Raises CondarcError if the file is unreadable, is not YAML, or holds something else where a
    mapping or the list is due.
    """
    # Imported here because it costs tens of milliseconds, and most calls find no configuration file.
    import yaml

    try:
        # BaseLoader makes only strings, lists and mappings: no dates that raise ValueError, no objects.
        settings = yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CondarcError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise CondarcError(f"not YAML: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise CondarcError(str(error.strerror)) from error
    except RecursionError as error:
        raise CondarcError("nested too deeply") from error

    if not settings:
        return []
    if not isinstance(settings, dict):
        raise CondarcError("not a mapping of settings")
    directories: list[str] = []
    for setting in _SETTINGS:
        value = settings.get(setting) or []
        if isinstance(value, str):
            value = value.split(os.pathsep)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CondarcError(f"{setting} is not a list of directories")
        directories += [item for item in value if item]
    return directories


def _directories(roots: Sequence[Path], environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    """Yield the directories that may hold configuration files of conda and mamba."""
    yield from SYSTEM_DIRECTORIES
    yield from roots
    if config := environ.get("XDG_CONFIG_HOME"):
        yield from (expand(config, environ, cwd) / program for program in ("conda", "mamba"))
    if text := environ.get("HOME"):
        home = expand(text, environ, cwd)
        yield from (home / ".config" / program for program in ("conda", "mamba"))
        yield from (home / ".conda", home / ".mamba", home)
    if prefix := environ.get("CONDA_PREFIX"):
        yield expand(prefix, environ, cwd)


def _yaml_files(directory: Path) -> list[Path]:
    """Return the files of a ``condarc.d`` that count: those with one of YAML's two suffixes."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    paths = (directory / name for name in names if name.endswith((".yml", ".yaml")))
    return [path for path in paths if os.path.isfile(path)]
