"""What conda-pack's users suffer from, a test for each pain, named after it.

Where the pain can be shown here, conda-pack's failure stands beside our success, on the same environment.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures import channel as channels
from fixtures.channel import locked
from tests.conformance.peer import conda_pack, conda_unpacked, hidden
from tests.conftest import need
from tests.integration.moving import (
    PACK,
    SURROUNDINGS,
    activated,
    clone,
    digest,
    move,
    pack,
    pack_env,
    run,
    sh,
    snapshot,
    unpack,
    wheel,
)

Own = Callable[..., Path]


def site(prefix: Path) -> Path:
    """Return where the packages of an environment's Python are."""
    return next(prefix.glob("lib/python3.*/site-packages"))


def stands_at(prefix: Path) -> str:
    """Tell where a file for compilers says that the environment is."""
    (line,) = (prefix / "lib/pkgconfig/python-3.11.pc").read_text().splitlines()[1:2]
    return line.removeprefix("prefix=")


def rewrite(path: Path, content: str) -> None:
    """Give a file of a package other content, and leave the package cache as it is."""
    path.unlink()
    path.write_text(content)


def test_refuses_a_working_environment(own: Own, tmp_path: Path) -> None:
    """CP#78 #98 #145 #197 #243 #244 #273: files that pip overwrote and somebody deleted."""
    prefix = own()
    (site(prefix) / "pip/py.typed").unlink()
    run([prefix / "bin/python", "-m", "pip", "install", "-q", "--no-index", "--force-reinstall", wheel(tmp_path)])
    refused = conda_pack(prefix, tmp_path / "theirs.tar", code=1)
    assert "deleted/overwritten" in refused.stderr

    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    target = unpack(tmp_path / "ours.tar", tmp_path / "apps/env")
    assert activated(target, "python -m pip list && tinyroot").stdout.endswith(f"{target}\n")


def test_managed_files_are_taken_from_the_package_cache(own: Own, tmp_path: Path) -> None:
    """CP#98: an edited file is packed with its old content, silently."""
    prefix = own()
    rewrite(site(prefix) / "six.py", "EDITED = True\n")
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    theirs = conda_unpacked(tmp_path / "theirs.tar", tmp_path / "theirs")
    ours = unpack(tmp_path / "ours.tar", tmp_path / "ours")
    asked = "import six; print(getattr(six, 'EDITED', 'lost'))"
    assert run([theirs / "bin/python", "-c", asked]).stdout == "lost\n"
    assert activated(ours, f'python -c "{asked}"').stdout == "True\n"


def test_cannot_be_moved_twice_or_repacked(own: Own, tmp_path: Path) -> None:
    """CP#106 #216 #386: conda-unpack after a second move exits with 0 and mends nothing."""
    prefix = own()
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    theirs = move(conda_unpacked(tmp_path / "theirs.tar", tmp_path / "theirs"), tmp_path / "moved/theirs")
    run([theirs / "bin/python", theirs / "bin/conda-unpack"])
    assert stands_at(theirs) == str(tmp_path / "theirs")

    ours = unpack(tmp_path / "ours.tar", tmp_path / "ours")
    run([ours / "bin/conda-unpack"])
    for place in ("moved/ours", "ours"):
        ours = move(ours, tmp_path / place)
        run([ours / "bin/conda-unpack"])
        assert json.loads(pack("status", ours, "--json").stdout)["current"] is True
        assert stands_at(ours) == str(ours)
        assert "are right" in pack("verify", ours).stdout
    assert digest(pack_env(ours, tmp_path / "again.tar")) == digest(tmp_path / "ours.tar")


def test_the_step_after_unpacking_is_forgotten(lean: Path, tmp_path: Path) -> None:
    """CP#89 #69 #246 #261: activating is all there is to do, and before it console scripts run."""
    target = unpack(pack_env(lean, tmp_path / "env.tar"), tmp_path / "apps/env")
    assert run([target / "bin/pip", "--version"]).stdout.startswith("pip ")
    activated(target, "true")
    assert stands_at(target) == str(target)


def test_binaries_are_not_relocated(own: Own, tmp_path: Path, package_cache: Path) -> None:
    """CP#117: a program compiled into the environment, whose run path nobody recorded."""
    prefix = own()
    (prefix / "src").mkdir()
    (prefix / "src/lib.c").write_text('const char *told(void) { return "told"; }\n')
    (prefix / "src/main.c").write_text(
        "#include <stdio.h>\nconst char *told(void);\nint main(void) { puts(told()); return 0; }\n"
    )
    gcc = need("gcc")
    run([gcc, "-shared", "-fPIC", "-o", prefix / "lib/libtold.so", prefix / "src/lib.c"])
    options = [f"-L{prefix}/lib", "-ltold", f"-Wl,-rpath,{prefix}/lib"]
    run([gcc, "-o", prefix / "bin/told", prefix / "src/main.c", *options])
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    theirs = conda_unpacked(tmp_path / "theirs.tar", tmp_path / "theirs")
    assert "libtold.so" in run([theirs / "bin/told"], code=127).stderr
    ours = unpack(tmp_path / "ours.tar", tmp_path / "ours")
    assert run([ours / "bin/told"]).stdout == "told\n"


def test_no_archive_rewrites_the_package_cache(channel: Path, tmp_path: Path) -> None:
    """CP#407 #422 #478: conda-unpack in such a directory writes into the user's packages; ours is linked to nothing."""
    cache = tmp_path / "cache"
    prefix = channels.install(tmp_path / "source/env", ("python",), [channel], cache=cache)

    def cached() -> dict[str, tuple[object, ...]]:
        return snapshot(cache / "pkgs", times=False)

    before = cached()
    target = tmp_path / "apps/env"
    pack("-q", "-p", prefix, "-o", target, "--format", "no-archive", "--force")
    inodes = {path.lstat().st_ino for path in prefix.rglob("*") if path.is_file() and not path.is_symlink()}
    assert not [path for path in target.rglob("*") if path.lstat().st_ino in inodes]
    run([target / "bin/conda-unpack"])
    assert stands_at(target) == str(target)
    assert cached() == before

    conda_pack(prefix, tmp_path / "theirs", "--format", "no-archive", "--force")
    env = {**SURROUNDINGS, "PATH": f"{tmp_path}/theirs/bin:/usr/bin:/bin"}
    run([tmp_path / "theirs/bin/python", tmp_path / "theirs/bin/conda-unpack"], env=env)
    assert cached() != before


def test_scripts_need_activation(own: Own, tmp_path: Path) -> None:
    """CP#44 #111 #307: a shebang with an option, which ``env`` cannot run."""
    prefix = own()
    script = prefix / "bin/tool"
    script.write_text(f"#!{prefix}/bin/python -I\nimport sys\nprint(sys.prefix, sys.flags.isolated)\n")
    script.chmod(0o755)
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    theirs = conda_unpacked(tmp_path / "theirs.tar", tmp_path / "theirs")
    env = {**SURROUNDINGS, "PATH": f"{theirs}/bin:/usr/bin:/bin"}
    assert run([theirs / "bin/tool"], env=env, code=None).returncode != 0
    ours = unpack(tmp_path / "ours.tar", tmp_path / "ours")
    run([ours / "bin/conda-unpack"])
    assert run([ours / "bin/tool"], env={}).stdout == f"{ours} 1\n"


def test_text_file_busy(lean: Path, tmp_path: Path) -> None:
    """CP#33 #40 #47 #168: the environment is moved while its Python runs."""
    target = unpack(pack_env(lean, tmp_path / "env.tar"), tmp_path / "first/env")
    run([target / "bin/conda-unpack"])
    command = [str(target / "bin/python"), "-c", "print('runs', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=SURROUNDINGS) as running:
        assert running.stdout and running.stdout.readline() == b"runs\n"
        target = move(target, tmp_path / "second/env")
        run([target / "bin/conda-unpack"])
        running.communicate(b"\n")
    assert running.returncode == 0
    assert stands_at(target) == str(target)


def test_not_reproducible(own: Own, tmp_path: Path) -> None:
    """CP#345 #349: the same packages, installed at two places, are packed into the same bytes."""
    first, second = own(name="env"), own(name="another name of it")
    for number, prefix in enumerate((first, second)):
        conda_pack(prefix, tmp_path / f"theirs{number}.tar")
        pack_env(prefix, tmp_path / f"ours{number}.tar")
    assert digest(tmp_path / "theirs0.tar") != digest(tmp_path / "theirs1.tar")
    assert digest(tmp_path / "ours0.tar") == digest(tmp_path / "ours1.tar")


def test_a_large_file_costs_its_size_in_memory(tmp_path: Path) -> None:
    """CP#53 #62 #95 #192 #430."""
    prefix = tmp_path / "env"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/history").touch()
    with (prefix / "lib/large").open("wb") as file:
        for number in range(400):
            file.write(number.to_bytes(4, "big") * (1 << 18))
    done = run([need("python3"), "-c", _PEAK, PACK, "-q", "-p", prefix, "-o", tmp_path / "env.tar.zst"])
    assert int(done.stdout) < 250_000  # KiB


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


LEVELS = {"tar.zst": ("1", "19"), "tar.xz": ("0", "9"), "tar.gz": ("1", "9")}


@pytest.mark.parametrize("suffix", LEVELS)
def test_level_and_threads_are_ignored(suffix: str, lean: Path, tmp_path: Path) -> None:
    """CP#53 #298 #351: what is asked for is done, or refused."""
    prefix = tmp_path / "env"
    shutil.copytree("/usr/share/doc", prefix / "share", symlinks=True, ignore=lambda at, names: names[40:])
    (prefix / "bin").mkdir()
    sizes = []
    for level in LEVELS[suffix]:
        outputs = [tmp_path / f"{level}-{threads}.{suffix}" for threads in ("1", "2")]
        for output, threads in zip(outputs, ("1", "2"), strict=True):
            pack_env(prefix, output, "--compress-level", level, "-j", threads)
        assert digest(outputs[0]) == digest(outputs[1])
        sizes.append(outputs[0].stat().st_size)
    assert sizes[0] > sizes[1]
    if suffix == "tar.zst":
        theirs = [tmp_path / f"theirs-{level}.{suffix}" for level in LEVELS[suffix]]
        for output, level in zip(theirs, LEVELS[suffix], strict=True):
            conda_pack(lean, output, "--compress-level", level, "--ignore-missing-files")
        low, high = (output.stat().st_size for output in theirs)
        assert abs(low - high) < 1000  # of 15 million; names of temporary files are in them
    for options in (("--compress-level", "99"), ("--compress-level", "-3"), ("-j", "0"), ("-j", "-2")):
        pack("-p", prefix, "-o", tmp_path / f"no.{suffix}", *options, code=2)
    assert not (tmp_path / f"no.{suffix}").exists()


@pytest.mark.parametrize(
    "shell",
    ["bash -eu", "dash -eu", "zsh -eu", "ksh93 -eu", "mksh -eu", "yash -eu", "busybox sh -eu", "fish", "tcsh -e"],
)
def test_activation_fails_in_a_shell(shell: str, lean: Path, session_directory: Path, tmp_path: Path) -> None:
    """CP#72 #170 #270 #488: every shell, with ``set -eu``, and back again."""
    archive = session_directory / "conformance" / "lean.tar"
    with locked(archive.parent):
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            pack_env(lean, archive)
    target = clone(archive, tmp_path / "apps/my env")
    name, *options = shell.split()
    suffix = {"fish": ".fish", "tcsh": ".csh"}.get(name, "")
    source = "source" if suffix else "."
    lines = (
        f"{source} '{target}/bin/activate{suffix}'",
        "python -c 'import sys; print(sys.prefix)'",
        'echo "$CONDA_PREFIX" "$CONDA_SHLVL"',
        f"{source} '{target}/bin/deactivate{suffix}'",
        "sh -c 'echo $PATH'",
    )
    done = run([need(name), *options, "-c", "\n".join(lines)], env={**SURROUNDINGS, "HOME": str(tmp_path)})
    assert done.stdout == f"{target}\n{target} 1\n{SURROUNDINGS['PATH']}\n"


def test_its_activation_fails_where_ours_does_not(lean: Path, tmp_path: Path) -> None:
    """CP#72 #170: with ``set -u``, and in ksh93; in the shells above ours works."""
    conda_pack(lean, tmp_path / "theirs.tar", "--ignore-missing-files")
    theirs = unpack(tmp_path / "theirs.tar", tmp_path / "theirs")
    for shell, words in (("dash -eu", "parameter not set"), ("bash -eu", "unbound variable"), ("ksh93", "not found")):
        done = run([*shell.split(), "-c", f". '{theirs}/bin/activate'"], code=None)
        assert words in done.stderr, shell


def test_variables_of_the_environment_are_lost(own: Own, tmp_path: Path) -> None:
    """CP#397: ``conda env config vars set``, and what a package brings in ``env_vars.d``."""
    prefix = own()
    (prefix / "conda-meta/state").write_text(json.dumps({"version": 1, "env_vars": {"MINE": "a 'b' $c"}}))
    (prefix / "etc/conda/env_vars.d").mkdir(parents=True)
    (prefix / "etc/conda/env_vars.d/some.json").write_text(json.dumps({"THEIRS": "1", "MINE": "no"}))
    pack_env(prefix, tmp_path / "env.tar")
    hidden(prefix)
    target = unpack(tmp_path / "env.tar", tmp_path / "apps/env")
    script = 'echo "$MINE|$THEIRS"\n. deactivate\necho "${MINE-none}|${THEIRS-none}"'
    assert activated(target, script).stdout == "a 'b' $c|1\nnone|none\n"


def test_target_too_long(own: Own, tmp_path: Path) -> None:
    """conda#4088: half of the files are rewritten, and a traceback; ours refuses before the first, with its code."""
    prefix = own("python")
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    limits = json.loads(pack("scan", "-p", prefix, "--limits", "--json").stdout)
    hidden(prefix)
    long = tmp_path / ("d" * 200) / ("e" * 100)
    assert len(str(long)) > limits["accepted"]["bytes"]
    theirs = unpack(tmp_path / "theirs.tar", long / "theirs")
    failed = run([theirs / "bin/python", theirs / "bin/conda-unpack"], code=1)
    assert "Traceback" in failed.stderr
    ours = unpack(tmp_path / "ours.tar", long / "ours")
    before = snapshot(ours)
    refused = run([ours / "bin/conda-unpack"], code=8)
    assert "has room for" in refused.stderr
    assert snapshot(ours) == before
    assert len(str(tmp_path / "apps/env")) < limits["complete"]["bytes"], "which was known when it was packed"


def test_no_dry_run(lean: Path, tmp_path: Path) -> None:
    """CP#175: what would be packed, as text and as JSON."""
    found = json.loads(pack("scan", "-p", lean, "--json").stdout)
    assert found["entries"]["file"] > 1000 and found["references"] and found["limits"]["complete"]
    assert "references" in pack("scan", "-p", lean).stdout


def test_fills_tmp_and_leaves_files(lean: Path, tmp_path: Path) -> None:
    """CP#191 #355: nothing in TMPDIR, nothing after Ctrl-C, and the mode that the umask wants."""
    (tmp_path / "tmp").mkdir(mode=0o500)
    output = tmp_path / "out/env.tar.xz"
    output.parent.mkdir()
    env = {**SURROUNDINGS, "TMPDIR": str(tmp_path / "tmp")}
    command = [str(PACK), "-q", "-p", str(lean), "-o", str(output), "--compress-level", "9", "-j", "1"]
    with subprocess.Popen(command, env=env, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as packing:
        end = time.monotonic() + 60
        while not os.listdir(output.parent) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.5)
        (partial,) = os.listdir(output.parent)
        assert partial.startswith("env.tar.xz.") and partial.endswith(".partial")
        packing.send_signal(signal.SIGINT)
    assert packing.returncode == 130
    conda_pack(lean, tmp_path / "theirs.tar", "--ignore-missing-files")
    assert (tmp_path / "theirs.tar").stat().st_mode & 0o777 == 0o600
    assert os.listdir(output.parent) == [] == os.listdir(tmp_path / "tmp")
    sh(f"umask 027; {PACK} -q -p {lean} -o {output.with_suffix('')}", env=env)
    assert output.with_suffix("").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "tmp") == []


def test_absolute_symlinks_stale_byte_code_and_spaces(own: Own, tmp_path: Path) -> None:
    """conda-build#470, CP#311."""
    prefix = own()
    (prefix / "bin/absolute").symlink_to(prefix / "bin/python")
    module = site(prefix) / "placed.py"
    module.write_text(f"WHERE = {str(prefix)!r}\n")
    run([prefix / "bin/python", "-c", "import placed"])
    conda_pack(prefix, tmp_path / "theirs.tar")
    pack_env(prefix, tmp_path / "ours.tar")
    hidden(prefix)
    theirs = conda_unpacked(tmp_path / "theirs.tar", tmp_path / "theirs")
    assert not (theirs / "bin/absolute").exists(), "it leads to the old place"
    ours = unpack(tmp_path / "ours.tar", tmp_path / "with a space/my env")
    said = activated(ours, "absolute -c 'import placed; print(placed.WHERE)'; pip --version")
    assert said.stdout.startswith(f"{ours}\n") and re.search(rf"\npip .* {re.escape(str(ours))}/", said.stdout)


def test_editable_installs_are_refused_or_not_seen(own: Own, tmp_path: Path) -> None:
    """CP#1 #66 #75 #420: those that leave no direct_url.json are not seen; ours finds them, and takes them along."""
    prefix = own()
    for name, line in (("mine.egg-link", "{}\n."), ("easy-install.pth", "{}\n"), ("conda.pth", "{}\n")):
        source = tmp_path / "sources" / name
        (source / "mine").mkdir(parents=True)
        (source / "mine/__init__.py").write_text(f"KIND = {name!r}\n")
        (site(prefix) / name).write_text(line.format(source))
        conda_pack(prefix, tmp_path / f"theirs-{name}.tar")
        assert name in pack("-p", prefix, "-o", tmp_path / "no.tar", code=4).stderr
        pack_env(prefix, tmp_path / f"{name}.tar", "--editables", "vendor")
        (site(prefix) / name).unlink()
    hidden(prefix)
    hidden(tmp_path / "sources")
    linked = unpack(tmp_path / "mine.egg-link.tar", tmp_path / "linked")
    run([linked / "bin/conda-unpack"])
    copy = Path((site(linked) / "mine.egg-link").read_text().splitlines()[0])
    assert linked in copy.parents and (copy / "mine/__init__.py").is_file()
    for name in ("easy-install.pth", "conda.pth"):
        theirs = conda_unpacked(tmp_path / f"theirs-{name}.tar", tmp_path / f"theirs {name}")
        assert "No module named 'mine'" in run([theirs / "bin/python", "-c", "import mine"], code=1).stderr
        ours = unpack(tmp_path / f"{name}.tar", tmp_path / f"ours {name}")
        assert activated(ours, "python -c 'import mine; print(mine.KIND)'").stdout == f"{name}\n"


def test_hard_links_with_a_destination(own: Own, tmp_path: Path) -> None:
    """CP#70 #105: a damaged tar, and exit code 0."""
    prefix = own("python")
    (prefix / "share/first").write_text(f"{prefix}\n")
    (prefix / "share/second").hardlink_to(prefix / "share/first")
    target = tmp_path / "apps/env"
    conda_pack(prefix, tmp_path / "theirs.tar", "--dest-prefix", f"{target}/longer")
    assert "Skipping to next header" in run(["tar", "-tf", tmp_path / "theirs.tar"], code=2).stderr
    pack_env(prefix, tmp_path / "ours.tar", "--dest-prefix", str(target))
    hidden(prefix)
    unpack(tmp_path / "ours.tar", target)
    assert (target / "share/first").samefile(target / "share/second")
    assert (target / "share/second").read_text() == f"{target}\n"
    assert stands_at(target) == str(target)
    assert json.loads(pack("status", target, "--json").stdout)["current"] is True


def test_unpacking_needs_a_python(own: Own, tmp_path: Path) -> None:
    """CP#33 #40: an environment without one is relocated by the program that is carried, or by pack itself."""
    prefix = own("openssl", "ncurses")
    pack_env(prefix, tmp_path / "ours.tar.zst")
    hidden(prefix)
    target = tmp_path / "apps/env"
    target.parent.mkdir()
    pack("unpack", tmp_path / "ours.tar.zst", target)
    assert f'"{target}/ssl"' in run([target / "bin/openssl", "version", "-d"]).stdout
    assert run([target / "bin/infocmp", "xterm"], env={"PATH": "/nonexistent"}).stdout.startswith("#")


def test_the_unpacked_environment_is_unknown(lean: Path, tmp_path: Path) -> None:
    """CP#73: conda, and with it VS Code, finds what is in its list; Jupyter finds kernels."""
    home = tmp_path / "home"
    home.mkdir()
    pack_env(lean, tmp_path / "env.tar")
    target = tmp_path / "apps/env"
    target.parent.mkdir()
    pack("unpack", tmp_path / "env.tar", target, "--register", env={**SURROUNDINGS, "HOME": str(home)})
    assert (home / ".conda/environments.txt").read_text() == f"{target}\n"


def test_size(own: Own, tmp_path: Path) -> None:
    """CP#74 #163: what matches nothing in conda-pack leaves out a directory here; profiles print what they save."""
    prefix = own("python")
    (prefix / "share/doc/x").mkdir(parents=True)
    (prefix / "share/doc/x/large.html").write_bytes(bytes(1_000_000))
    conda_pack(prefix, tmp_path / "theirs.tar", "--exclude", "share/doc")
    pack_env(prefix, tmp_path / "ours.tar", "--exclude", "share/doc")
    with tarfile.open(tmp_path / "theirs.tar") as theirs, tarfile.open(tmp_path / "ours.tar") as ours:
        assert "share/doc/x/large.html" in theirs.getnames()
        assert not [name for name in ours.getnames() if name.startswith("share/doc")]
    done = pack("-p", prefix, "-o", tmp_path / "slim.tar", "--slim", "all")
    for profile in ("docs", "tests", "static", "headers", "pyc"):
        assert f"left out by --slim {profile}: " in done.stdout, done.stdout
    assert (tmp_path / "slim.tar").stat().st_size < 0.7 * (tmp_path / "ours.tar").stat().st_size
    rows = json.loads(pack("scan", "-p", prefix, "--slim", "all", "--sizes", "--json").stdout)
    assert any(row["before"]["bytes"] > row["after"]["bytes"] for row in rows if row["package"].startswith("python-"))
    hidden(prefix)
    target = unpack(tmp_path / "slim.tar", tmp_path / "apps/env")
    assert activated(target, "python -c 'import ssl, sqlite3, curses, unittest; print(1)'").stdout == "1\n"
    assert "are right" in pack("verify", target).stdout


def test_the_package_that_overwrote_a_file_is_named(own: Own, tmp_path: Path) -> None:
    """CP#78: told, and refused only where that is wanted."""
    prefix = own()
    version = "9.9"
    old = wheel(tmp_path, version)
    six = site(prefix) / "six.py"
    run([prefix / "bin/python", "-m", "pip", "install", "-q", "--no-index", old])
    record = next(site(prefix).glob(f"tinyroot-{version}.dist-info/RECORD"))
    rewrite(six, "BY_PIP = 1\n")
    hashed = base64.urlsafe_b64encode(hashlib.sha256(six.read_bytes()).digest()).rstrip(b"=").decode()
    record.write_text(record.read_text() + f"six.py,sha256={hashed},{six.stat().st_size}\n")
    (clobbered,) = json.loads(pack("scan", "-p", prefix, "--json").stdout)["clobbered"]
    assert clobbered["detail"].startswith(f"tinyroot-{version} by pip, which overwrote that of six-1.17.0")
    assert "six.py" in pack("-p", prefix, "-o", tmp_path / "no.tar", "--strict", code=4).stderr
    assert not (tmp_path / "no.tar").exists()
    assert "paths are packed as they are" in pack("-p", prefix, "-o", tmp_path / "yes.tar").stderr


def test_a_destination_for_spark(own: Own, tmp_path: Path) -> None:
    """CP#89 #69: ``--archives env.tar.gz#environment``: found from the working directory, nothing to run."""
    prefix = own()
    pack_env(prefix, tmp_path / "env.tar.gz", "--dest-prefix", "./environment")
    hidden(prefix)
    work = tmp_path / "container"
    unpack(tmp_path / "env.tar.gz", work / "environment")
    done = run(["./environment/bin/python", "-c", "import six, sys; print(sys.prefix)"], cwd=work)
    assert done.stdout == f"{work}/environment\n"
    assert run(["./environment/bin/pip", "--version"], cwd=work).stdout.startswith("pip ")
    assert stands_at(work / "environment") == "./environment"
    moved = move(work / "environment", tmp_path / "elsewhere")
    run([moved / "bin/conda-unpack"])
    assert stands_at(moved) == str(moved)


def test_ten_gigabytes_are_shipped_again(own: Own, tmp_path: Path) -> None:
    """CP#292: what changed is shipped, and the rest comes from the tree that is there."""
    prefix = own()
    first = pack_env(prefix, tmp_path / "first.tar.zst")
    rewrite(site(prefix) / "six.py", "EDITED = True\n")
    delta = pack_env(prefix, tmp_path / "delta.tar.zst", "--base", str(first))
    hidden(prefix)
    assert delta.stat().st_size < first.stat().st_size / 20
    there = unpack(first, tmp_path / "first")
    pack("unpack", delta, tmp_path / "second", "--base", there)
    assert activated(tmp_path / "second", "python -c 'import six; print(six.EDITED)'").stdout == "True\n"
