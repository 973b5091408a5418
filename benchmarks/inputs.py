"""The environments that are measured, made from wheels as packages of a conda channel and installed by a client.

A wheel becomes a package as the channels' builders make one: its files below ``lib/python3.11/site-packages`` with
their byte code, its scripts with a placeholder of 255 bytes. All is cached under a hash of this file
and of the list of wheels.
"""

from __future__ import annotations

import configparser
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import zstandard

from fixtures import channel
from fixtures.build_sources import wheels

LIST = Path(__file__).with_name("wheels.txt")
BASE = ("python", "numpy", "pip", "setuptools", "requests", "rich", "jupyter-core", "pyyaml", "openssl", "sqlite")
SIZES = ("small", "quarter", "large")  # about 1/16, 1/4 and 1 of the files
CHANGING = "changing"  # the large one once more, of which a package is changed
_NATIVE = ("openssl", "sqlite", "ncurses", "xz")
_VENV = ("scipy", "pandas", "matplotlib", "sympy")
_QUARTER = ("scipy", "pandas", "matplotlib", "scikit-learn", "sympy", "plotly", "bokeh", "networkx")
SMALL = ("python", "numpy", "pip", "requests", "rich")
PLACEHOLDER = "/benchmark_placeholder".ljust(255, "_")
SITE = "lib/python3.11/site-packages"
TIME = 946_684_800
_SCRIPT = """#!{interpreter}
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({function}())
"""


def folder() -> Path:
    """Return the folder that holds all inputs, named after what makes them."""
    digest = hashlib.sha256(LIST.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
    return channel.CACHE / "benchmarks" / digest


def specs(size: str) -> tuple[str, ...]:
    """Return what the environment of a size is installed from."""
    if size == "small":
        return SMALL
    return (*BASE, *(_QUARTER if size == "quarter" else (name.replace("_", "-") for name in _wanted())))


def environment(size: str) -> Path:
    """Return the prefix of an environment, one of `SIZES`, and make it if it is not there.

    The small one has some 10 packages; the large one over 1.5 GB and 50,000 files; one lies between them. Beside them
    there is `CHANGING`.
    """
    return _made(size, lambda prefix: _install(prefix, specs(size)))


def native() -> Path:
    """Return the prefix of an environment without Python, of some 100 MB, and make it if it is not there.

    It holds programs of the test channel, and the libraries and headers of Arrow.
    """

    def make(prefix: Path) -> None:
        _install(prefix, _NATIVE)
        name = "pyarrow"
        [wheel] = wheels([(name, _wanted()[name])], channel.CACHE / "sources" / "wheels").values()
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                directory, _, rest = member.partition("/")
                if directory != name or not rest.startswith(("include/", "lib")) or not Path(rest).suffix:
                    continue
                target = prefix / (rest if rest.startswith("include/") else f"lib/{Path(rest).name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))

    return _made("native", make)


def venv() -> Path:
    """Return the prefix of a venv of this Python with some of the wheels, and make it if it is not there.

    Raises CalledProcessError where an index has none for this Python.
    """

    def make(prefix: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
        wanted = [f"{name}=={_wanted()[name]}" for name in _VENV]
        subprocess.run([str(prefix / "bin/python"), "-m", "pip", "--quiet", "install", *wanted], check=True)

    return _made("venv", make)


def _made(name: str, make: Callable[[Path], object]) -> Path:
    """Return the prefix with this name, and have it made if it is not there whole."""
    prefix = folder() / "envs" / name
    complete = folder() / f"{name}.complete"
    with channel.locked(folder() / name):
        if not complete.exists():
            shutil.rmtree(prefix, ignore_errors=True)
            make(prefix)
            complete.touch()
    return prefix


def _install(prefix: Path, wanted: Sequence[str]) -> None:
    channel.install(prefix, wanted, channels(), cache=folder() / "cache")


def channels() -> list[Path]:
    """Return the channels that the environments come from, the larger first."""
    return [_science(), channel.find_channel()]


@functools.cache
def _wanted() -> dict[str, str]:
    return dict(line.split("==") for line in LIST.read_text().split())


def _science() -> Path:
    made = folder() / "channel"
    with channel.locked(made):
        if not made.is_dir():
            partial = made.with_name("channel.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _build(partial)
            partial.rename(made)
    return made


def _build(into: Path) -> None:
    compiler = channel.install(folder() / "compiler", ("python",), channel.find_channel(), cache=folder() / "cache")
    downloaded = wheels(list(_wanted().items()), channel.CACHE / "sources" / "wheels")
    packages = {}
    (into / "linux-64").mkdir(parents=True)
    (into / "noarch").mkdir()
    for name, wheel in downloaded.items():
        stage = into / "stage"
        _unpack(wheel, stage)
        for path in stage.rglob("*"):
            os.utime(path, (TIME, TIME))
        command = [str(compiler / "bin/python"), "-m", "compileall", "-q", "-j2", f"-s{stage}", str(stage / SITE)]
        subprocess.run(command, capture_output=True)  # templates and tests of wrong syntax stay without byte code
        index = {
            "name": name.replace("_", "-"),
            "version": _wanted()[name],
            "build": "0",
            "build_number": 0,
            "depends": ["python 3.11.*"],
            "subdir": "linux-64",
        }
        file = into / "linux-64" / f"{index['name']}-{index['version']}-0.conda"
        _package(stage, index, file)
        content = file.read_bytes()
        digests = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
        packages[file.name] = {**index, **digests, "size": len(content)}
        shutil.rmtree(stage)
    for subdir, there in (("linux-64", packages), ("noarch", {})):
        repodata = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": there, "repodata_version": 1}
        (into / subdir / "repodata.json").write_text(json.dumps(repodata))


def _unpack(wheel: Path, stage: Path) -> None:
    """Lay a wheel's files out as an installation has them, with its scripts."""
    places = {"purelib": SITE, "platlib": SITE, "scripts": "bin", "data": "."}
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            path, content = Path(SITE) / info.filename, archive.read(info)
            parts = Path(info.filename).parts
            if parts[0].endswith(".data"):
                path = Path(places.get(parts[1], "include"), *parts[2:])
            if path.parts[0] == "bin" and content.startswith(b"#!python"):
                content = f"#!{PLACEHOLDER}/bin/python".encode() + content[len("#!python") :]
            target = stage / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if path.parts[0] == "bin" or info.external_attr >> 16 & 0o100 else 0o644)
            if path.name == "entry_points.txt" and path.parent.name.endswith(".dist-info"):
                _entry_points(content.decode(), stage / "bin")


def _entry_points(content: str, bin_: Path) -> None:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    parser.read_string(content)
    for name, target in parser.items("console_scripts") if parser.has_section("console_scripts") else ():
        module, _, function = target.partition("[")[0].strip().partition(":")
        interpreter = f"{PLACEHOLDER}/bin/python"
        bin_.mkdir(exist_ok=True)
        first = function.partition(".")[0]
        (bin_ / name).write_text(_SCRIPT.format(interpreter=interpreter, module=module, first=first, function=function))
        (bin_ / name).chmod(0o755)


def _package(stage: Path, index: dict[str, object], into: Path) -> None:
    """Write a package of the format ``.conda``: a zip of two compressed archives."""
    paths = []
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(each for each in stage.rglob("*") if each.is_file()):
            data = path.read_bytes()
            name = path.relative_to(stage).as_posix()
            digest = hashlib.sha256(data).hexdigest()
            row: dict[str, object] = {"_path": name, "path_type": "hardlink", "sha256": digest}
            row["size_in_bytes"] = len(data)
            if PLACEHOLDER.encode() in data:
                row |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
            paths.append(row)
            archive.add(path, name)
    metadata: dict[str, dict[str, object]] = {
        "info/index.json": index,
        "info/paths.json": {"paths_version": 1, "paths": paths},
        "info/about.json": {"summary": "made from a wheel, to measure with"},
    }
    about = io.BytesIO()
    with tarfile.open(fileobj=about, mode="w") as archive:
        for name, value in _texts(metadata, paths):
            info = tarfile.TarInfo(name)
            info.size = len(value)
            archive.addfile(info, io.BytesIO(value))
    engine = zstandard.ZstdCompressor(level=3, threads=2)
    with zipfile.ZipFile(into, "w") as package:
        package.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        package.writestr(f"pkg-{into.stem}.tar.zst", engine.compress(content.getvalue()))
        package.writestr(f"info-{into.stem}.tar.zst", engine.compress(about.getvalue()))


def _texts(metadata: dict[str, dict[str, object]], paths: list[dict[str, object]]) -> Iterator[tuple[str, bytes]]:
    for name, value in metadata.items():
        yield name, json.dumps(value).encode()
    yield "info/files", "".join(f"{row['_path']}\n" for row in paths).encode()
