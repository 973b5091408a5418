"""Installers of real environments, whose source is gone: what they make is right, works, moves, and is all of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fixtures import channel as channels
from fixtures.channel import ROOT
from tests.conftest import NATIVE_SPECS, need
from tests.integration.installed import OURS, install, lean_python, uninstall
from tests.integration.moving import (
    SURROUNDINGS,
    activated,
    digest,
    pack,
    run,
    sh,
    short_directory,
    snapshot,
    unpack,
)

Make = Callable[..., Path]
Snapshot = Mapping[str, tuple[object, ...]]

# Runs on the Python of the environment, and tells what it found, where it is told where to.
HOOK = """#!/usr/bin/env -S python -B
import json, os, sys
if "RECORD" in os.environ:
    with open(os.environ["RECORD"], "w") as file:
        json.dump([sys.prefix, sys.executable, dict(os.environ)], file)
"""
USE = """
import json, sqlite3, ssl, sys
import numpy
paths, context = ssl.get_default_verify_paths(), ssl.create_default_context()
(answer,) = sqlite3.connect(":memory:").execute("select 6 * 7").fetchone()
loaded = {line.split(maxsplit=5)[-1].strip() for line in open("/proc/self/maps") if ".so" in line}
total = float(numpy.linalg.norm(numpy.fft.fft(numpy.arange(8.0))))
certificates = len(context.get_ca_certs())
print(json.dumps([sys.prefix, paths.cafile, certificates > 50, answer, round(total, 6), sorted(loaded)]))
"""


# What conda-unpack writes, also where there is nothing to do.
OWN_RECORDS = {".pack", ".pack/lock", ".pack/state.json"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def documented(page: str, heading: str, installer: Path, target: Path) -> str:
    """Return the first commands below a heading of our documentation, with the names and numbers of an installer."""
    text = (ROOT / "docs" / page).read_text().partition(f"{heading}\n")[2]
    found = re.search(r"^```sh\n((?:.*\n)+?)```$|((?:^    .*\n)+)", text, re.MULTILINE)
    assert found is not None
    facts = told(run(["sh", installer, "--info"]).stdout)
    commands = found[1] or found[2]
    for word, value in (
        ("OFFSET", facts["payload-first-byte"]),
        ("LENGTH", facts["payload-bytes"]),
        ("env.sh", shlex.quote(str(installer))),
        ("/apps/env", shlex.quote(str(target))),
    ):
        assert word in commands or word in ("OFFSET", "LENGTH")
        commands = commands.replace(word, value)
    return f"set -e\n{commands}"


def told(lines: str) -> dict[str, str]:
    """Read lines of a key and a value."""
    return dict(line.split(": ", 1) for line in lines.splitlines() if ": " in line)


def compare(found: Snapshot, expected: Snapshot, began: float) -> None:
    """Fail unless a tree is as another: content, links, modes, times; what is rewritten has the time of that."""
    assert found.keys() - set(OURS) == expected.keys() - {*OURS, ".pack/lock"}
    for path, (mode, mtime, content) in expected.items():
        if path in (*OURS, ".pack/lock"):
            continue
        assert (found[path][0], found[path][2]) == (mode, content), path
        if found[path][1] != mtime and not str(mode).startswith("d"):
            assert int(str(found[path][1])) > (began - 1) * 1e9, path


# An environment with Python


def test_with_python(place: Path, channel: Path, package_cache: Path, make_installer: Make) -> None:
    """Packed and deleted; opened by hand, then installed where that was: the same tree, which works, and moves."""
    source = lean_python(place / "source" / "env", channel, package_cache, ("python", "numpy", "pip"))
    hook, record = place / "hook", place / "record"
    hook.write_text(HOOK)
    installer = make_installer(source, place / "env.sh", "--post-install", hook)
    shutil.rmtree(source.parent)
    hook.unlink()

    target = place / "apps" / "env"
    target.mkdir(parents=True)
    sh(documented("installing.md", "## By hand", installer, target), cwd=place)
    by_hand = snapshot(target)
    shutil.rmtree(target.parent)

    began = time.time()
    # Nothing else is set, not even PATH.
    done = run(["/bin/sh", installer.name, "-p", "apps/env"], env={"RECORD": str(record)}, cwd=place)
    assert (done.stderr, done.stdout.startswith(f"{target}: installed: ")) == ("", True)
    made = snapshot(target)
    compare(made, by_hand, began)
    assert {".pack/installer.json", ".pack/hooks/post-install"} <= made.keys()
    assert os.listdir(target.parent) == ["env"]

    assert "are right" in pack("verify", target).stdout
    is_current(target)
    run([target / "bin/conda-unpack"])
    assert_ran_on_its_own_python(record, target)

    # By its full path in an empty environment, and activated.
    assert_works(run([target / "bin/python", "-B", "-c", USE], env={}).stdout, target)
    version = run([target / "bin/pip", "--version"], env={"PYTHONDONTWRITEBYTECODE": "1"}).stdout
    assert f" from {target}/lib/python3.11/site-packages/pip " in version
    for shell in ("bash", "dash"):
        script = '. "$1/bin/activate" && python -B -c "$2" && PYTHONDONTWRITEBYTECODE=1 pip --version'
        works, version = run([need(shell), "-c", script, shell, target, USE]).stdout.splitlines()
        assert_works(works, target)
        assert f" from {target}/lib/" in version
    assert {name for name, facts in snapshot(target).items() if facts != made.get(name)} <= OWN_RECORDS

    # As any tree of ours it needs no installer to be moved.
    moved = target.rename(place / "moved and renamed")
    assert_works(activated(moved, f"python -B -c {shlex.quote(USE)}").stdout, moved)


def assert_works(output: str, target: Path) -> None:
    """Read what USE printed."""
    prefix, cafile, certificates, answer, total, loaded = json.loads(output)
    assert (prefix, cafile) == (str(target), f"{target}/ssl/cert.pem")
    assert (certificates, answer, total) == (True, 42, 33.466401)
    assert [path for path in loaded if not path.startswith((f"{target}/", "/usr/lib", "/lib"))] == []


def assert_ran_on_its_own_python(record: Path, target: Path) -> None:
    """Read what HOOK wrote: it saw what the caller had, of activation, and what constructor's hooks get, no more."""
    prefix, executable, variables = json.loads(record.read_text())
    assert (prefix, executable) == (str(target), f"{target}/bin/python")
    assert variables["CONDA_PREFIX"] == variables["PREFIX"] == str(target)
    others = [n for n in variables if not n.startswith(("CONDA_", "_PACK_", "INSTALLER_", "PACK_PREFIX"))]
    # "LC_CTYPE" is Python's own.
    assert sorted({*others} - {"LC_CTYPE"}) == ["FORCE", "PATH", "PREFIX", "PWD", "RECORD"]


def is_current(tree: Path) -> None:
    status = json.loads(pack("status", tree, "--json").stdout)
    assert (status["current"], status["prefixes"]) == (True, [str(tree)])


# An environment without Python


@pytest.fixture(scope="module")
def native(session_directory: Path, channel: Path, package_cache: Path, make_installer: Make) -> Path:
    """A directory with an installer, native.sh, and an archive, native.tar, of an environment that is gone."""
    directory = session_directory / "installed-native"
    with channels.locked(directory):
        if not (directory / "native.tar").exists():
            source = channels.install(directory / "source" / "native", NATIVE_SPECS, [channel], cache=package_cache)
            make_installer(source, directory / "native.sh", "--force")
            make_installer(source, directory / "native.tar")
            shutil.rmtree(source.parent)
    return directory


def programs(tree: Path, shell: str = "bash") -> None:
    """Run what has its data at the new place."""
    script = '. "$1/bin/activate" && openssl version -d && infocmp xterm && echo packed | xz | xz -d'
    done = run([need(shell), "-c", script, shell, tree])
    assert done.stderr == ""
    assert f'OPENSSLDIR: "{tree}/ssl"' in done.stdout
    assert f"from file: {tree}/share/terminfo/" in done.stdout
    assert done.stdout.endswith("packed\n")


def test_without_python(native: Path, make_installer: Make, place: Path) -> None:
    """Installed, it is what `pack unpack` makes of the archive; packed again, it is the same installer."""
    installer, target = native / "native.sh", place / "apps" / "native"
    target.parent.mkdir(exist_ok=True)
    pack("unpack", native / "native.tar", "-p", target)
    expected = snapshot(target)
    shutil.rmtree(target)
    dry = json.loads(install(installer, target, "--dry-run", "--json").stdout)
    began = time.time()
    done = json.loads(install(installer, target, "--json", env={}).stdout)
    found = snapshot(target)
    compare(found, expected, began)
    # What was foretold is what came.
    sizes = {s.st_ino: s.st_size for p in target.rglob("*") if not p.is_symlink() and p.is_file() for s in [p.stat()]}
    made_there = {".pack/state.json", ".pack/lock"}
    entries = len({f[2] if isinstance(f[2], tuple) else name for name, f in found.items() if name not in made_there})
    assert (dry["entries"], dry["target"], dry["update"]) == (entries, str(target), False)
    assert abs(dry["bytes"] - sum(sizes.values())) < 100_000  # text has grown or shrunk, and the state was written
    assert (done["prefix"], done["replaced"], done["findings"]) == (str(target), False, [])
    assert "are right" in pack("verify", target).stdout
    is_current(target)
    for shell in ("bash", "dash"):
        programs(target, shell)
    assert digest(make_installer(target, place / "again.sh")) == digest(installer)
    moved = target.rename(place / "apps" / "moved")
    programs(moved)
    assert uninstall(installer, moved, env={}) == []
    assert not moved.exists()


def test_extracted_and_then_activated(native: Path, place: Path) -> None:
    """--extract gives what tar gives, and --list has told each path and hash; the first activation relocates.

    Tar is given the payload as docs/installer.md says, with nothing but the trailer.
    """
    installer, target = native / "native.sh", place / "extracted"
    listed = json.loads(run(["sh", installer, "--list", "--json"], cwd=place).stdout)["entries"]
    done = run(["sh", installer, "--extract", target], cwd=place)
    assert done.stdout.startswith(f"{target}: installed: ") and done.stdout.endswith("; as archived\n")
    found = snapshot(target)
    by_hand = place / "hand"
    by_hand.mkdir()
    sh(documented("installer.md", "or, for any of them (`--gzip` for a gz payload):", installer, by_hand))
    assert snapshot(by_hand) == found
    shutil.rmtree(by_hand)
    archived = snapshot(unpack(native / "native.tar", by_hand))
    assert {name: facts for name, facts in found.items() if name not in OURS} == archived
    for entry in listed:
        mode, _, content = found[entry["path"]]
        kind = {"d": "directory", "l": "symlink", "-": "file"}[str(mode)[0]]
        assert entry["kind"] == kind or (kind, entry["kind"]) == ("file", "hard link")
        if entry["sha256"]:
            assert isinstance(content, tuple) and content[1] == entry["sha256"]
    programs(target)
    assert "are right" in pack("verify", target).stdout


def test_what_it_says_of_itself(native: Path) -> None:
    """--info, --version and --check, in words and in JSON, agree with the file."""
    installer = native / "native.sh"
    facts = json.loads(run(["sh", installer, "--info", "--json"]).stdout)
    lines = told(run(["sh", installer, "--info"]).stdout)
    assert {key: "-" if value == "" else str(value) for key, value in facts.items() if key != "licence"} == lines
    assert (facts["name"], facts["environment"], facts["payload-format"]) == ("native", "native", "tar.zst")
    assert facts["file-bytes"] == installer.stat().st_size
    assert facts["file-bytes"] == sum(facts[f"{part}-bytes"] for part in ("header", "stub", "payload")) + 284
    assert (facts["longest-target"], facts["platform"][:6]) == (255, "linux-")
    assert re.fullmatch(r"2\.[0-9]+", facts["glibc"])
    version = run([*["sh"], installer, "--version"]).stdout
    assert version == f"native (packed by pack {facts['pack']})\n"
    checked = json.loads(run(["sh", installer, "--check", "--json"]).stdout)
    assert (checked["ok"], checked["sha256"], checked["payload"]) == (True, digest(installer), facts["payload-sha256"])
    assert run(["sh", installer, "--check"]).stdout.endswith(".sha256 says the same.\nOK\n")


# What else it writes: nothing


def test_the_default_is_in_the_home(small_sh: Path, tmp_path: Path) -> None:
    """-b asks nothing and installs there; the home has nothing else afterwards, and nothing at all in the end."""
    env = {**SURROUNDINGS, "HOME": str(tmp_path)}
    run(["sh", small_sh, "-b"], env=env, cwd=Path("/"))
    assert os.listdir(tmp_path) == ["env"]
    assert run([tmp_path / "env/bin/tool"]).stdout == f"{tmp_path}/env\n"
    run(["sh", small_sh, "-b", "--uninstall"], env=env, cwd=Path("/"))
    assert os.listdir(tmp_path) == []


def test_condas_list(small_sh: Path, tmp_path: Path) -> None:
    """--register adds a line that --uninstall takes away; an update adds no second one, and others stay."""
    home = tmp_path / "home"
    listing = home / ".conda/environments.txt"
    env = {**SURROUNDINGS, "HOME": str(home)}
    targets = [tmp_path / "one", tmp_path / "two"]
    home.mkdir()
    install(small_sh, targets[0], "--register", env=env)
    assert listing.read_text() == f"{targets[0]}\n"
    listing.write_text(f"/opt/conda\n{targets[0]}")
    install(small_sh, targets[1], "--register", env=env)
    install(small_sh, targets[1], "--register", "-u", env=env)
    assert listing.read_text() == f"/opt/conda\n{targets[0]}\n{targets[1]}\n"
    assert uninstall(small_sh, targets[0], env=env) == []
    assert listing.read_text() == f"/opt/conda\n{targets[1]}\n"
    listing.chmod(0o444)
    assert snapshot(home, times=False).keys() == {".conda", ".conda/environments.txt"}


# Calls that make, change or remove something at a path.
MAKING = (
    "?open,openat,?creat,?mkdir,mkdirat,?rmdir,?unlink,unlinkat,?rename,renameat,renameat2,?link,linkat,?symlink,symlinkat,"
    "?chmod,fchmodat,?chown,?lchown,fchownat,utimensat,?mknod,mknodat,truncate"
)
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')


def changed_paths(log: Path, cwd: Path) -> list[tuple[str, Path]]:
    """List the calls that changed something, and where."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            continue
        if match[1] in ("open", "openat") and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", match[2]):
            continue
        for directory, path in _PATH.findall(match[2]):
            if match[1].startswith("symlink") and path == _PATH.findall(match[2])[0][1]:
                continue  # what the link says
            found.append((match[1], Path(os.path.normpath(Path(directory or cwd, path)))))
    return found


def test_nothing_is_written_elsewhere_and_all_is_on_the_disk_first(small_sh: Path, tmp_path: Path) -> None:
    """Every path that is written is the target's, of the directory beside it, or the log; the name comes last."""
    home, place = tmp_path / "home", tmp_path / "place"
    for each in (home, place, tmp_path / "tmp"):
        each.mkdir()
    target, log, trace = place / "above" / "env", tmp_path / "log", tmp_path / "trace"
    env = {**SURROUNDINGS, "HOME": str(home), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(home / "cache")}
    calls = f"trace={MAKING},syncfs,fsync,fdatasync"
    strace: list[str | Path] = [need("strace"), "-f", "-y", "-s", "4096", "-o", trace, "-e", calls]
    install(small_sh, target, "--log", log, env=env, cwd=home, before=strace)
    tool_says = run([target / "bin/tool"]).stdout
    assert tool_says == f"{target}\n"
    beside = re.compile(rf"{re.escape(str(target.parent))}/\.env\.pack-\w{{8}}(/.*)?")
    odd = {
        (call, path)
        for call, path in changed_paths(trace, home)
        if not (path in (log, target, target.parent) or target in path.parents or beside.fullmatch(str(path)))
        and str(path) not in ("/dev/null", "/dev/tty")
    }
    assert odd == set()
    assert snapshot(home) == snapshot(tmp_path / "tmp") == {}
    assert os.listdir(target.parent) == ["env"]
    lines = trace.read_text(errors="replace").splitlines()
    arrivals = [number for number, line in enumerate(lines) if "rename" in line and f'"{target}"' in line]
    synced = [number for number, line in enumerate(lines) if re.search(r" syncfs\(", line)]
    assert len(arrivals) == 1 and synced and synced[-1] < arrivals[0]
    between = [lines[number] for number in range(synced[-1] + 1, arrivals[0])]
    assert [line for line in between if "O_CREAT" in line or "rename" in line] == []
    assert re.search(rf" fsync\(\d+<{re.escape(str(target.parent))}>\)", "\n".join(lines[arrivals[0] :]))


def test_nothing_to_uninstall(small_sh: Path, tmp_path: Path) -> None:
    """What is no tree of ours is left alone."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    before = snapshot(tmp_path)
    for target in (tmp_path / "mine", tmp_path / "nothing"):
        install(small_sh, target, "--uninstall", code=6)
    assert snapshot(tmp_path) == before
