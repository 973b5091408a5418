"""The manual page and the completion of shells are made from the commands themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from installer_stub.errors import PackError
from tests.conftest import need
from tests.integration.moving import PACK, SURROUNDINGS, pack, run


def test_the_page_has_every_option_of_every_command(tmp_path: Path) -> None:
    page = pack("man").stdout
    (tmp_path / "pack.1").write_text(page)
    groff = [str(need("groff")), "-ww", "-man", "-Tutf8", "-Kutf8", str(tmp_path / "pack.1")]
    done = subprocess.run(groff, capture_output=True, text=True)
    assert done.stderr == ""
    text = " ".join(
        re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout).replace("\u2010", "-").replace("\u2212", "-").split()
    )
    commands = ["", "scan", "unpack", "relocate", "status", "verify", "lock", "stub build", "stub list", "man"]
    for command in commands:
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]\b", pack(*command.split(), "--help").stdout))
        missing = {each for each in options if each not in text and each.replace("-", "- ") not in text}
        assert not missing, command
        assert not command or f"pack {command}" in text
    codes = {kind.code for kind in PackError.__subclasses__()}
    assert len(codes) > 10 and all(re.search(rf"^\.B {code}$", page, re.MULTILINE) for code in codes)


def test_text_is_never_a_request() -> None:
    from pack.cli.manual import _text

    assert _text(".TH a-b \\x") == "\\&.TH a\\-b \\ex"


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    for name in ("alpha", "beta"):
        (tmp_path / name / "conda-meta").mkdir(parents=True)
        (tmp_path / name / "conda-meta/history").touch()
    return {
        **SURROUNDINGS,
        "CONDA_ENVS_DIRS": str(tmp_path),
        "PATH": f"{PACK.parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
    }


BASH = """
eval "$(pack completion bash)"
complete() {{ :; }}
COMP_WORDS=(pack {words}); COMP_CWORD={at}; _pack_completion pack; printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [("unp", 1, ["unpack"]), ("-n al", 2, ["alpha"]), ("-n ''", 2, ["alpha", "beta"]), ("--sli", 1, ["--slim"])],
)
def test_bash_completes(words: str, at: int, offered: list[str], places: dict[str, str]) -> None:
    done = run(["bash", "--norc", "-c", BASH.format(words=words, at=at)], env=places)
    assert done.stdout.split() == offered


@pytest.mark.parametrize(("shell", "check"), [("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])])
def test_other_shells_take_the_script(shell: str, check: list[str], places: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(pack("completion", shell).stdout)
    assert "_PACK_COMPLETE" in script.read_text()
    run([need(check[0]), *check[1:], script], env=places)


def test_fish_completes(places: dict[str, str]) -> None:
    script = "pack completion fish | source; complete --do-complete 'pack -n al'"
    assert run([need("fish"), "-c", script], env=places).stdout.split()[0] == "alpha"
