"""Moving real environments: pack, delete the source, unpack, run. Shared by the integration tests.

Sources are deleted, not just left: a program that still reads its old place would work by chance.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures import channel as channels

Run = subprocess.CompletedProcess[str]

# What a login on a bare machine has; nothing of whoever runs the tests.
SURROUNDINGS = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
PACK = Path(sys.executable).with_name("pack")


def run(
    command: Sequence[str | bytes | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    code: int | None = 0,
    stdin: str = "",
) -> Run:
    """Run a program with ``SURROUNDINGS``, or with just ``env``; fail unless it ends with ``code`` (None: any)."""
    done = subprocess.run(
        command,
        env=SURROUNDINGS if env is None else env,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    if code is not None and done.returncode != code:
        pytest.fail(f"{command!r} ended with {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}")
    return done


def sh(script: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None, code: int | None = 0) -> Run:
    """Run a script in bash without start-up files."""
    return run(["bash", "--norc", "--noprofile", "-c", script], env=env, cwd=cwd, code=code)


def activated(
    tree: Path, script: str, *, env: Mapping[str, str] | None = None, cwd: Path | None = None, code: int | None = 0
) -> Run:
    """Source ``bin/activate`` of a tree in bash and run a script there."""
    return sh(f". {shlex.quote(str(tree / 'bin' / 'activate'))} || exit\n{script}", env=env, cwd=cwd, code=code)


def pack(*arguments: str | Path, env: Mapping[str, str] | None = None, code: int | None = 0) -> Run:
    """Run the installed ``pack``."""
    return run([PACK, *arguments], env=env, code=code)


def pack_env(prefix: Path, output: Path, *options: str) -> Path:
    """Pack an environment into a file or directory, and return that."""
    pack("-q", "-p", prefix, "-o", output, *options)
    return output


def unpack(archive: Path, target: Path) -> Path:
    """Unpack an archive with tar into a new directory, and return that."""
    target.mkdir(parents=True)
    run(["tar", "-xf", archive, "-C", target])
    return target


def clone(archive: Path, target: Path) -> Path:
    """Lay an archive out in a new directory by hard links: quick, and nobody may write through them.

    The pristine tree beside the archive is unpacked once, with tar, and must stay as it is.
    """
    pristine = archive.parent / "pristine"
    with channels.locked(pristine):
        if not pristine.exists():
            partial = archive.parent / f"partial-{os.getpid()}"
            unpack(archive, partial).rename(pristine)
    target.parent.mkdir(parents=True, exist_ok=True)
    if run(["cp", "-al", "-T", pristine, target], code=None).returncode:  # another file system
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "-a", "-T", pristine, target])
    return target


def move(tree: Path, target: Path) -> Path:
    """Rename a tree, and return where it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return tree.rename(target)


def packed_and_deleted(
    directory: Path,
    specs: Sequence[str],
    sources: Sequence[Path],
    cache: Path,
    before: Callable[[Path], None] = lambda prefix: None,
) -> Path:
    """Install an environment, pack it as ``directory/env.tar``, delete it; once for all that share the directory.

    ``before`` runs between installing and packing. The prefix was ``directory/source/env``.
    """
    archive = directory / "env.tar"
    with channels.locked(directory):
        if not archive.exists():
            prefix = source_of(archive)
            shutil.rmtree(prefix, ignore_errors=True)
            # Copies: ``before`` may run programs that write.
            channels.install(prefix, specs, sources, cache=cache, hard_links=False)
            before(prefix)
            pack_env(prefix, archive)
            shutil.rmtree(prefix)
    return archive


def source_of(archive: Path) -> Path:
    """Tell the path of the deleted environment that ``packed_and_deleted`` packed."""
    return archive.parent / "source" / "env"


def snapshot(root: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Describe every path below a root: kind, mode, content, link structure, and modification times."""
    first: dict[tuple[int, int], str] = {}
    described: dict[str, tuple[object, ...]] = {}
    for directory, directories, names in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *names]):
            path = Path(directory, name)
            relative = str(path.relative_to(root))
            status = path.lstat()
            mtime = status.st_mtime_ns if times else 0
            content: object = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                same = first.setdefault((status.st_dev, status.st_ino), relative)
                content = (same, digest(path))
            described[relative] = (stat.filemode(status.st_mode), mtime, content)
    return described


def stamps(root: Path) -> dict[str, tuple[int, ...]]:
    """Describe every path below a root by what changes when anything writes there, without reading it."""
    found: dict[str, tuple[int, ...]] = {}
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def digest(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wheel(directory: Path, version: str = "1.0") -> Path:
    """Write the wheel of a tiny distribution, whose script ``tinyroot`` prints its interpreter's prefix."""
    info = f"tinyroot-{version}.dist-info"
    contents = {
        "tinyroot/__init__.py": "import sys\n\n\ndef main():\n    print(sys.prefix)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tinyroot\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntinyroot = tinyroot:main\n",
    }
    rows = [f"{name},sha256={_base64(content.encode())},{len(content)}" for name, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = directory / f"tinyroot-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def wrong_rows(tree: Path, distribution: str) -> list[str]:
    """List the rows of a distribution's ``RECORD`` that do not hold: their file is missing or hashes otherwise."""
    (record,) = tree.glob(f"lib/python*/site-packages/{distribution}-*.dist-info/RECORD")
    site = record.parent.parent
    wrong = []
    with record.open(newline="") as file:
        for row in csv.reader(file):
            path, hashed, size = row
            content = (site / path).read_bytes() if (site / path).is_file() else None
            right = content is not None and (not hashed or hashed == f"sha256={_base64(content)}")
            if not right or content is None or (size and int(size) != len(content)):
                wrong.append(",".join(row))
    return wrong


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@contextmanager
def short_directory(parent: str = "/tmp") -> Iterator[Path]:
    """Lend a directory with a short name that every user may enter; pytest's own are long and private."""
    directory = Path(tempfile.mkdtemp(dir=parent, prefix="x"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def as_another_user(command: Sequence[str | bytes | Path]) -> list[str | bytes | Path]:
    """Give the command that runs ``command`` as a user who owns nothing; anybody else runs it as themselves."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
