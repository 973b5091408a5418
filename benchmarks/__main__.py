"""``python -m benchmarks``: ours and the peers, doing the same work in turn on the same environments.

Writes ``results.md``, ``results.json`` and ``results.svg`` beside this file. ``make bench`` installs what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote

from benchmarks import inputs
from benchmarks.contest import Contest, Contestant, Figures, Wrong, growth, plot, run, table
from fixtures import channel, peers, stub
from fixtures.prepare import PEERS
from installer_stub.errors import PackError

PACK = Path(sys.executable).with_name("pack")
HERE = Path(__file__).parent
TMPFS = Path("/dev/shm")


# Every packing begins with an empty cache, which is in the directory of the contestant, as with default options.
OURS = f"{PACK} --cache cache"
UNKEPT = f"{PACK} --no-cache -q"
GROWTH = "pack tar.gz, by size"


def contests(prefix: Path, work: Path, fast: Path) -> dict[str, Callable[[], Sequence[Contestant]]]:
    """Return what makes the contestants of each contest on one environment, by its name.

    ``work`` lies on a disk, ``fast`` on a tmpfs, where the contests are held whose names end with it.
    """
    return {
        "scan": lambda: _scan(prefix),
        "pack tar.gz": lambda: _packing_gzip(prefix),
        "pack tar.gz again": lambda: _packing_again(inputs.environment(inputs.CHANGING)),
        GROWTH: _growing,
        "pack tar.gz, native environment": lambda: _packers(inputs.native()),
        "pack tar.gz, venv": lambda: _gzipped(inputs.venv(), {"venv-pack": f"{peers.program('venv-pack')}"}),
        "pack tar.zst": lambda: _packing_zstd(prefix),
        "relocate after tar -xf": lambda: _relocation(prefix, work),
        f"unpack tar.gz {_FAST}": lambda: _unpacking(prefix, fast),
        f"install {_FAST}": lambda: _installing(prefix, fast),
        "install on disk": lambda: _installing(prefix, work, " && sync -f env"),
        "activate, 100 times": lambda: _activation(work),
        "--help": _help,
    }


_FAST = "on tmpfs"


def _scan(prefix: Path) -> Sequence[Contestant]:
    def named(_: Path, out: str) -> None:
        _require(len(out.splitlines()) > 50, "hardly anything found")

    def enough(_: Path, out: str) -> None:
        _require(int(out) > 10_000, "hardly anything found")

    command = f"{PACK} scan --json -p {prefix} > found.json; wc -c < found.json"
    read = f"find {prefix} -type f -exec cat {{}} + > /dev/null"  # else the first would wait for the disk
    return [
        Contestant("pack scan", command, enough, before=read),
        Contestant("grep -rlF PREFIX", f"grep -rlF {prefix} {prefix}", named, before=read),
    ]


def _packing_gzip(prefix: Path) -> Sequence[Contestant]:
    check = _archive(prefix, "tar -tzf env.tar.gz")
    tar = f"tar -C {prefix} -cf - ."
    return [
        *_packers(prefix),
        Contestant("tar | pigz -4", f"{tar} | pigz -4 > env.tar.gz", check, "env.tar.gz"),
        Contestant("tar -czf", f"tar -C {prefix} -czf env.tar.gz .", check, "env.tar.gz"),
    ]


def _packing_again(prefix: Path) -> Sequence[Contestant]:
    """Pack a second time, when one package has changed, beside the first time."""
    arguments = f"-q -p {prefix} -o"
    package = prefix / inputs.SITE / "networkx"

    def same(at: Path, _: str) -> None:
        compared = f"{UNKEPT} {arguments} without.tar.gz && cmp env.tar.gz without.tar.gz"
        status = os.system(f"cd {quote(str(at))} && {compared}")
        _require(status == 0, "it is not what is packed without a cache")

    # A new file in the place of each: the old one is one with that of another environment.
    change = f"find {package} -name '*.py' -exec sh -c 'for f; do cp $f new; echo >> new; mv new $f; done' sh {{}} +"
    ours = f"{OURS} {arguments}"
    before = f"{ours} before.tar.gz && {change}"
    return [
        Contestant("pack, a package changed", f"{ours} env.tar.gz", same, "env.tar.gz", before),
        Contestant("pack, the first time", f"{ours} env.tar.gz", same, "env.tar.gz"),
    ]


def _growing() -> Sequence[Contestant]:
    """Pack environments of three sizes: the figures are those of the smallest, and how often that the others take."""
    contestants = []
    for size in inputs.SIZES:
        prefix = inputs.environment(size)
        [ours] = _gzipped(prefix, {})
        size_in_bytes = _bytes(prefix)
        name = f"pack: {_count(prefix):,} files, {size_in_bytes / 1e6:,.0f} MB"
        contestants.append(replace(ours, name=name, input=size_in_bytes))
    return contestants


def _packers(prefix: Path) -> list[Contestant]:
    """Return the programs that pack a conda environment into a tar.gz, as they do without being told how."""
    conda_pack = peers.program("conda-pack")
    return _gzipped(prefix, {"conda-pack": f"{conda_pack}", "conda-pack -j 2": f"{conda_pack} -j 2"})


def _gzipped(prefix: Path, others: Mapping[str, str]) -> list[Contestant]:
    """Return ours and others, programs by their names, that all take the same arguments to write a tar.gz."""
    check = _archive(prefix, "tar -tzf env.tar.gz")
    arguments = f"-q -p {prefix} -o env.tar.gz"
    programs = {"pack": OURS, **others}
    return [Contestant(name, f"{program} {arguments}", check, "env.tar.gz") for name, program in programs.items()]


def _activation(work: Path) -> Sequence[Contestant]:
    """Measure the activation of a relocated tree, a hundred times, beside a shell that sources nothing."""
    prefix = inputs.environment("small")
    archive = _prepared(prefix, work, "small.tar", f"{UNKEPT} -p {prefix} -o")
    before = f": > nothing && mkdir env && tar -xf {archive} -C env && env/bin/conda-unpack"

    def contestant(name: str, script: str, check: Callable[[Path, str], object]) -> Contestant:
        command = f"for n in $(seq 100); do bash --norc -c '. {script}; echo $CONDA_PREFIX'; done"
        return Contestant(name, command, check, before=before)

    def activated(at: Path, out: str) -> None:
        _require(out.count(f"{at}/env\n") == 100, "it is not active")

    return [
        contestant("bin/activate", "env/bin/activate", activated),
        contestant("an empty script", "./nothing", lambda _, out: _require(out.count("\n") == 100, "it stopped")),
    ]


def _help() -> Sequence[Contestant]:
    def shown(_: Path, out: str) -> None:
        _require("usage" in out.lower(), "it shows no usage")

    programs = {"pack": PACK, "conda-pack": peers.program("conda-pack")}
    return [Contestant(name, f"{each} --help", shown) for name, each in programs.items()]


def _packing_zstd(prefix: Path) -> Sequence[Contestant]:
    check = _archive(prefix, "zstd -dqc env.tar.zst | tar -tf -")
    tar = f"tar -C {prefix} -cf - . | zstd -q -3 -T2 -o env.tar.zst"
    return [
        Contestant("pack", f"{OURS} -q -p {prefix} -o env.tar.zst", check, "env.tar.zst"),
        Contestant("tar | zstd -3 -T2", tar, check, "env.tar.zst"),
        Contestant("cp -a", f"cp -a {prefix} env", _tree(prefix)),
        Contestant(
            "mksquashfs",
            f"mksquashfs {prefix} env.img -quiet -no-progress -comp zstd -Xcompression-level 3 -processors 2",
            lambda at, _: _require((at / "env.img").stat().st_size > 1 << 20, "the image is empty"),
            "env.img",
        ),
    ]


def _relocation(prefix: Path, work: Path) -> Sequence[Contestant]:
    def runs(at: Path, _: str) -> None:
        head = (at / "env/bin/f2py").read_bytes()[:4096]
        _require(bytes(prefix) not in head, "bin/f2py still names the old prefix")

    packages, conda_pack = quote(str(_package_cache(prefix))), peers.program("conda-pack")
    # Without the packages it finds the references itself, and searches more files when it unpacks.
    uncached = f"trap 'mv {packages}.away {packages}' EXIT; mv {packages} {packages}.away; {conda_pack}"
    packers = {
        "conda-unpack of pack": ("ours.tar", UNKEPT),
        "conda-unpack of conda-pack": ("theirs.tar", f"{conda_pack} -q"),
        "the same, packed without the package cache": ("bare.tar", f"{uncached} -q"),
    }
    archives = {
        name: _prepared(prefix, work, archive, f"{packer} -p {prefix} -o")
        for name, (archive, packer) in packers.items()
    }
    return [
        Contestant(name, "env/bin/conda-unpack", runs, before=f"mkdir env && tar -xf {archive} -C env")
        for name, archive in archives.items()
    ]


def _package_cache(prefix: Path) -> Path:
    """Return the directory with the unpacked packages of an environment, as its records have it."""
    record = json.loads(next((prefix / "conda-meta").glob("*.json")).read_text())
    return Path(record["link"]["source"]).parent


def _unpacking(prefix: Path, work: Path) -> Sequence[Contestant]:
    archive = _prepared(prefix, work, "env.tar.gz", f"{UNKEPT} -p {prefix} -o")
    return [
        Contestant("pack unpack", f"{PACK} unpack {archive} env", _tree(prefix)),
        Contestant("tar -xzf", f"mkdir env && tar -xzf {archive} -C env", _tree(prefix)),
    ]


def _installing(prefix: Path, work: Path, sync: str = "") -> Sequence[Contestant]:
    environ = " ".join(f"{name}={quote(value)}" for name, value in stub.surroundings().items())
    installer = _prepared(prefix, work, "env.sh", f"{environ} {UNKEPT} -p {prefix} -o")
    archive = _prepared(prefix, work, "env.tar.zst", f"{UNKEPT} -p {prefix} -o")
    synced = " && sync -f" if sync else ""
    client = f"PYTHONPATH={quote(str(HERE.parent))} {quote(sys.executable)} -m benchmarks.client {prefix.name} $PWD"
    packages = f"$(find {' '.join(quote(str(channel)) for channel in inputs.channels())} -name '*.conda')"
    works = {
        "env.sh": (f"sh {installer} --prefix $PWD/env", installer),
        f"tar --zstd -xf{synced}": (f"mkdir env && tar --zstd -xf {archive} -C env{sync}", archive),
        "py-rattler, empty cache": (client, packages),
        f"py-rattler, empty cache{synced}": (client + sync, packages),  # on a tmpfs, the same
    }
    return [
        Contestant(name, command, _tree(prefix), before=f"cat {read} > /dev/null")
        for name, (command, read) in works.items()
    ]


def _prepared(prefix: Path, work: Path, name: str, command: str) -> Path:
    """Make what a contest starts from, once."""
    path = work / name
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        if os.waitstatus_to_exitcode(os.system(f"{command} {quote(str(path))}")):
            raise Wrong(f"{command} {path} failed")
    return path


def _archive(prefix: Path, listing: str) -> Callable[[Path, str], None]:
    """Return a check that an archive is whole and holds the files of the prefix."""
    expected = _count(prefix)

    def check(at: Path, _: str) -> None:
        listed = at / ".listed"
        status = os.system(f"cd {quote(str(at))} && {listing} | grep -vc '/$' > .listed")
        _require(status == 0, "its archive cannot be read")
        _require(int(listed.read_text()) > expected * 0.95, f"its archive holds {listed.read_text()} of {expected}")

    return check


def _tree(prefix: Path) -> Callable[[Path, str], None]:
    """Return a check that a tree holds the files of the prefix, and that its Python runs."""
    expected = _count(prefix)

    def check(at: Path, _: str) -> None:
        count = _count(at / "env")
        _require(count > expected * 0.95, f"the tree holds {count} of {expected} files")
        python = quote(str(at / "env/bin/python"))
        _require(os.system(f"{python} -I -c 'import numpy' > /dev/null") == 0, "its Python does not import numpy")

    return check


def _count(prefix: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(prefix))


def _require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise AssertionError(otherwise)


def _machine() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    processor = model[1] if model else platform.machine()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, {python}"


def _bytes(prefix: Path) -> int:
    return sum(path.stat().st_size for path in prefix.rglob("*") if path.is_file() and not path.is_symlink())


def _earlier(about: str) -> dict[str, dict[str, Figures]]:
    """Read the results of another run, if they are of the same environment on the same machine."""
    try:
        document = json.loads((HERE / "results.json").read_text())
        if document["about"] != about:
            return {}
        contests = document["contests"].items()
        return {work: {name: Figures.of(each) for name, each in them.items()} for work, them in contests}
    except (OSError, ValueError, KeyError):
        return {}


def _written(about: str, figures: dict[str, dict[str, Figures]]) -> str:
    """Write the results so far, and return them as text."""
    text = f"{about}\n\n{table(figures)}"
    (HERE / "results.md").write_text(text)
    (HERE / "results.svg").write_text(plot({name: each for name, each in figures.items() if name != GROWTH}))
    if GROWTH in figures:
        (HERE / "growth.svg").write_text(growth(figures[GROWTH]))
    as_json = {work: {name: each.as_json() for name, each in them.items()} for work, them in figures.items()}
    (HERE / "results.json").write_text(json.dumps({"about": about, "contests": as_json}, indent=1) + "\n")
    return text


def main() -> int:
    """Run what the command line asks for, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="the contests whose name holds this; the others' results stay")
    parser.add_argument("--size", choices=inputs.SIZES, default="large")
    options = parser.parse_args()
    work = channel.CACHE / "benchmarks/work"
    fast = TMPFS / f"pack-benchmarks-{os.getpid()}"
    missing = [name for name in (*PEERS, "bash", "grep") if shutil.which(name) is None]
    if missing:
        print(f"Not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    try:
        stub.build()
        prefix = inputs.environment(options.size)
        shutil.rmtree(work, ignore_errors=True)
        chosen = [
            Contest(name, make(), fast if name.endswith(_FAST) else work)
            for name, make in contests(prefix, work, fast).items()
            if options.only in name
        ]
        about = f"{options.size} environment: {_count(prefix)} files, {_bytes(prefix) / 1e6:.0f} MB; {_machine()}"
        earlier = _earlier(about) if options.only else {}
        say = partial(print, file=sys.stderr, flush=True)
        for figures in run(chosen, options.rounds, say):
            text = _written(about, {**earlier, **figures})
    except (PackError, Wrong) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(fast, ignore_errors=True)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
