"""The licence, the welcome and the conclusion of an installer: shown as they are, never run; and what is asked."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.installed import converse, install, tiny_prefix, tool
from tests.integration.moving import SURROUNDINGS, run

Make = Callable[..., Path]

QUESTION = "\nDo you accept the licence? [yes|no] "
SHELL = b"""EOF
`touch ran` $(touch ran) ${HOME} \\$(touch ran) '"' "'" ' " \\ \\n %s %d %%
EOF
@FACTS@
exit 1; }
'
touch ran
"
touch ran
!history *?[a-z] ~ # comment &
"""
LETTERS = "Lizenz für é, 日本語, 😀 und \u202eandersherum\n\n\tEnde ohne Zeilenende".encode()
LINES = b"one\r\ntwo\r\n\r\n\x0c\x1b[1mbold\x1b[0m\x07\r\nlone \r and \xff\xfe not UTF-8\r\n"
LONG = random.Random(0).randbytes(1 << 20).hex().encode()  # 2 MB without a line end


@dataclass(frozen=True)
class Texts:
    """An installer, and what it shows."""

    installer: Path
    licence: bytes
    welcome: bytes
    conclusion: bytes


CASES: Mapping[str, tuple[bytes, bytes, bytes]] = {
    "words of the shell, lines from elsewhere": (SHELL, LETTERS, LINES),
    "lines from elsewhere, words of the shell": (LINES, SHELL, LETTERS),
    "very long": (LONG, LINES, SHELL + LONG),
}


@pytest.fixture(scope="module", params=CASES)
def texts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Texts:
    directory = tmp_path_factory.mktemp("texts")
    return written(directory, make_installer, *CASES[request.param])


@pytest.fixture(scope="module")
def licensed(tmp_path_factory: pytest.TempPathFactory, make_installer: Make) -> Texts:
    return written(tmp_path_factory.mktemp("licensed"), make_installer, b"You may.\n", b"Welcome.\n", b"Bye.\n")


def written(directory: Path, make_installer: Make, *parts: bytes) -> Texts:
    options: list[str | Path] = ["--default-prefix", "~/apps/tiny"]
    for name, content in zip(("license-file", "welcome", "conclusion"), parts, strict=True):
        (directory / name).write_bytes(content)
        options += [f"--{name}", directory / name]
    installer = make_installer(tiny_prefix(directory / "env"), directory / "env.sh", *options)
    return Texts(installer, *parts)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of who installs, and the directory from which it is done; nothing is there."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def talk(texts: Texts, home: Path, dialogue: list[tuple[str, str]], *options: str) -> tuple[int, bytes, bytes]:
    """Run an installer at a terminal, from the home."""
    env = {**SURROUNDINGS, "HOME": str(home)}
    return converse(["/bin/sh", texts.installer, *options], dialogue, env, home)


def test_they_are_shown_byte_for_byte(texts: Texts, home: Path) -> None:
    """At a terminal, each in its turn, and nothing that they hold is run."""
    target = home / "apps/tiny"
    asked = f"Install to [{target}]: "
    code, printed, errors = talk(texts, home, [(QUESTION, "yes\n"), (asked, "\n")])
    assert (code, errors) == (0, b"")
    members = sum(1 for path in target.rglob("*") if path.name not in ("state.json", "lock"))
    result = f"{target}: installed: {members} members; 2 files rewritten, 0 right already\n"
    head = texts.welcome + b"\n" + texts.licence + QUESTION.encode() + asked.encode()
    assert printed == head + result.encode() + texts.conclusion
    assert sorted(path.name for path in home.rglob("ran")) == []
    assert os.listdir(home) == ["apps"]
    tool(target)


def test_the_licence_can_be_read_without_installing(texts: Texts, home: Path) -> None:
    printed = run(["sh", "-c", 'sh "$1" --info | tail -c "$2" | cmp - "$3"', "sh", *map(str, facts(texts))]).stdout
    assert printed == ""
    assert os.listdir(home) == []


def facts(texts: Texts) -> tuple[Path, int, Path]:
    return texts.installer, len(texts.licence), texts.installer.with_name("license-file")


@pytest.mark.parametrize("answers", ["no\n", "NO\n", "maybe\nn\n", "\x04"], ids=repr)
def test_refused(answers: str, licensed: Texts, home: Path) -> None:
    """By an answer, or by the end of input: nothing is done, and nothing is left."""
    *before, last = answers.splitlines(keepends=True)
    code, printed, errors = talk(licensed, home, [(QUESTION, each) for each in (*before, last)])
    assert code == 14
    assert b"the licence was not accepted, so nothing was installed" in errors
    assert (licensed.conclusion in printed, b"Install to" in printed) == (False, False)
    assert os.listdir(home) == []


def test_interrupted_at_the_question(licensed: Texts, home: Path) -> None:
    code, _, _ = talk(licensed, home, [(QUESTION, "\x03")])
    assert code in (-signal.SIGINT, 130)
    assert os.listdir(home) == []


def test_accepted_without_a_question(licensed: Texts, home: Path) -> None:
    """Without a terminal it has to be said; with -b it counts as said."""
    env = {**SURROUNDINGS, "HOME": str(home)}
    refused = install(licensed.installer, home / "env", env=env, code=14)
    assert "--accept-license" in refused.stderr
    assert os.listdir(home) == []
    for number, option in enumerate(("-b", "--accept-license")):
        target = home / f"env{number}"
        said = install(licensed.installer, target, option, env=env)
        assert (said.stdout.count("\n"), said.stderr) == (1, "")
        tool(target)
    code, printed, _ = talk(licensed, home, [(f"Install to [{home}/apps/tiny]: ", "~/a b\n")], "--accept-license")
    assert (code, licensed.licence in printed) == (0, False)
    tool(home / "a b")


def test_the_target_is_asked_for_until_it_is_good(licensed: Texts, home: Path) -> None:
    """Each bad answer is told what is wrong with it, with the words that -p would get."""
    (home / "full").mkdir()
    (home / "full/mine").touch()
    (home / "file").touch()
    asked = f"Install to [{home}/apps/tiny]: "
    answers = {
        "~/full": "not an empty directory: mine",
        "file": "exists, and is no directory",
        "a:b": "a colon separates",
        "$(touch ran)": "end a string",
        f"~/{'long/' * 805}": "more than the system's 4095",
    }
    dialogue = [(QUESTION, "YES\n"), *((asked, f"{answer}\n") for answer in answers), (asked, "~/apps/ä b\n")]
    code, printed, errors = talk(licensed, home, dialogue)
    assert code == 0
    assert [words for words in answers.values() if words not in errors.decode()] == [], errors.decode()[:3000]
    assert errors.count(b": error: ") == len(answers)
    assert printed.endswith(licensed.conclusion)
    assert sorted(os.listdir(home)) == ["apps", "file", "full"]
    tool(home / "apps/ä b")


def test_no_target(licensed: Texts, home: Path) -> None:
    code, _, errors = talk(licensed, home, [(QUESTION, "y\n"), ("]: ", "\x04")])
    assert (code, b"no target was chosen" in errors) == (2, True)
    assert os.listdir(home) == []
