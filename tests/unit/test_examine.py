"""A file is archived as its package shipped it if its hash proves that, and else as it stands."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from installer_stub import references
from installer_stub.model import (
    UNCERTAIN,
    Entry,
    Field,
    Fill,
    Finding,
    Force,
    Kind,
    Reference,
    Relocatable,
    Spelling,
    Standing,
)
from installer_stub.rewrite import Digest, Form
from pack.examine import Context, Examined, Job, examine
from pack.layouts.conda import Owned
from pack.splice import pieces, stacked
from tests.unit.other_user import nobody, open_directory

PLACEHOLDER = b"/".ljust(255, b"p")
HELPER = b'#!/bin/sh\n\'\'\'exec\' "$(dirname "$(readlink -f "$0")")"/python3.11 '


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Prefix:
    """A directory that stands for an environment, whose files call it by other names."""

    root: Path
    names: tuple[bytes, ...]
    forms: tuple[Form, ...] = ()
    contents: dict[str, bytes] = field(default_factory=dict)

    def examine(self, path: str, data: bytes, owned: Owned | None = None, **known: Any) -> Examined:
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(data)
        self.contents[path] = data
        job = Job(path.encode(), len(data), 0, owned, **known)
        verdict = examine(job, Context(bytes(self.root), self.names, self.forms))
        assert verdict.disk == Digest(sha256(data), len(data))
        archived = self.archived(verdict)
        assert verdict.archived == Digest(sha256(archived), len(archived))
        return verdict

    def archived(self, verdict: Examined) -> bytes:
        """The bytes to which the layers of a verdict lead."""
        with references.Opened(os.path.join(bytes(self.root), verdict.job.path)) as below:
            view, _ = stacked(below, verdict.job.size, verdict.layers)
            return b"".join(pieces(view))


@pytest.fixture
def prefix(tmp_path: Path) -> Prefix:
    return Prefix(tmp_path, (b"/home/me/env",))


ME = b"/home/me/env"


def owned(shipped: bytes, **facts: Any) -> Owned:
    default: dict[str, Any] = {
        "package": "x-1-0",
        "sha256": sha256(shipped),
        "placeholder": PLACEHOLDER,
        "text": True,
        "entry_point": False,
        "byte_code": False,
    }
    return Owned(**{**default, **facts})


def by_conda(shipped: bytes, name: bytes) -> bytes:
    """Replace the placeholder in C strings as the clients do: NULs behind each string make up the length."""
    out = b""
    while PLACEHOLDER in shipped:
        at = shipped.index(PLACEHOLDER)
        end = shipped.index(b"\0", at)
        string = shipped[at:end].replace(PLACEHOLDER, name)
        out += shipped[:at] + string.ljust(end - at, b"\0")
        shipped = shipped[end:]
    return out + shipped


def fields(verdict: Examined) -> list[tuple[int, Field, Fill]]:
    return [(r.offset, r.field, r.fill) for r in verdict.references]


# Files of packages


@pytest.mark.parametrize(
    ("shipped", "why"),
    [
        (b"prefix=" + PLACEHOLDER + b"\n", "one"),
        (PLACEHOLDER + b":" + PLACEHOLDER + b"/x\n" + PLACEHOLDER, "three"),
        (b"#!" + PLACEHOLDER + b"/bin/sh\necho " + PLACEHOLDER + b"\n", "a shebang"),
        (b"caf\xe9 " + PLACEHOLDER + b"\r\n", "Latin-1"),
        (b"no placeholder after all\n", "none"),
    ],
)
def test_text_is_restored(prefix: Prefix, shipped: bytes, why: str) -> None:
    verdict = prefix.examine("share/x", shipped.replace(PLACEHOLDER, ME), owned(shipped))
    assert (prefix.archived(verdict), verdict.standing) == (shipped, Standing.INTACT), why
    assert {r.prefix for r in verdict.references} <= {PLACEHOLDER}
    assert len(verdict.references) == shipped.count(PLACEHOLDER)


@pytest.mark.parametrize(
    ("shipped", "why"),
    [
        (b"\x7fX\0" + PLACEHOLDER + b"/lib\0rest\0", "one"),
        (b"\0" + PLACEHOLDER + b"\0" + PLACEHOLDER + b"/y\0z", "two strings"),
        (b"\0" + PLACEHOLDER + b"/a:" + PLACEHOLDER + b"/b\0" + b"\0" * 600 + b"z", "two in one string, zeros behind"),
        (b"a" + PLACEHOLDER + b"b\0c", "letters on both sides"),
        (b"\0" * 300, "none"),
    ],
)
def test_binary_is_restored_with_its_room(prefix: Prefix, shipped: bytes, why: str) -> None:
    data = by_conda(shipped, ME)
    assert len(data) == len(shipped)
    verdict = prefix.examine("lib/x.so", data, owned(shipped, text=False))
    assert (prefix.archived(verdict), verdict.standing) == (shipped, Standing.INTACT), why
    assert len(verdict.references) == shipped.count(PLACEHOLDER)
    assert all(r.fill is Fill.NULS and r.force is Force.ALWAYS for r in verdict.references)


@pytest.mark.parametrize(
    ("shipped", "text", "why"),
    [
        (b"\0/proc/self/environ\0" + PLACEHOLDER + b"/x\0", False, "another string"),
        (b"\0/environ\0" + b"\0" * 400 + b"x" + PLACEHOLDER + b"\0", False, "another string with zeros behind it"),
        (b"\0" + PLACEHOLDER + b"/a:/environ\0x", False, "in the same string"),
        (b"/environ " + PLACEHOLDER + b"/x\n", True, "text"),
        (b"#!/usr/bin/env perl\n'" + PLACEHOLDER + b"/x'\n", True, "a shebang"),
    ],
)
def test_a_short_prefix_is_told_from_the_package_s_own_names(
    prefix: Prefix, shipped: bytes, text: bool, why: str
) -> None:
    """In an environment at /env nobody replaced the /environ of libpython."""
    prefix.names = (b"/env",)
    data = shipped.replace(PLACEHOLDER, b"/env") if text else by_conda(shipped, b"/env")
    verdict = prefix.examine("lib/x", data, owned(shipped, text=text))
    assert (prefix.archived(verdict), verdict.standing) == (shipped, Standing.INTACT), why


def test_any_name_of_the_prefix_may_have_been_written(prefix: Prefix) -> None:
    """The client was given another name than the one that is packed."""
    prefix.names = (b"/mnt/home/me/env", ME)
    shipped = b"\0" + PLACEHOLDER + b"/x\0"
    for name in prefix.names:
        verdict = prefix.examine("lib/x", by_conda(shipped, name), owned(shipped, text=False))
        assert verdict.standing is Standing.INTACT


@pytest.mark.parametrize(
    ("head", "shipped", "why"),
    [
        (b"#!/bin/sh\n'''exec' \"%s/bin/python3.11\" \"$0\" \"$@\" #'''\n", b"/bin/python3.11", "by rattler"),
        (b"#!/bin/sh\n'''exec' %s/bin/python3.11 \"$0\" \"$@\"\n' '''\n", b"/bin/python3.11", "by conda"),
        (b"#!/usr/bin/env python3.11\n", b"/bin/python3.11", "by conda, through env"),
        (b"#!/usr/bin/env perl -w\n", b"/bin/perl -w", "by conda, with an option"),
    ],
)
def test_a_shebang_that_was_too_long_is_restored(prefix: Prefix, head: bytes, shipped: bytes, why: str) -> None:
    long = b"/home/me/" + b"d" * 140
    prefix.names = (long,)
    body = b"import x\nprint('" + PLACEHOLDER + b"')\n"
    whole = b"#!" + PLACEHOLDER + shipped + b"\n" + body
    installed = (head.replace(b"%s", long)) + body.replace(PLACEHOLDER, long)
    verdict = prefix.examine("sbin/x", installed, owned(whole))
    assert (prefix.archived(verdict), verdict.standing) == (whole, Standing.INTACT), why
    assert [r.field for r in verdict.references] == [Field.SHEBANG, Field.TEXT]


def test_without_a_placeholder_the_hash_tells(prefix: Prefix) -> None:
    """What such a file says of any prefix is its own business: it was there when it was built."""
    data = b"mentions " + ME + b"\n"
    intact = prefix.examine("share/x", data, owned(data, placeholder=b""))
    assert (intact.standing, intact.references, intact.layers) == (Standing.INTACT, (), ())


@pytest.mark.parametrize("text", [True, False])
def test_an_edited_file_is_archived_as_it_stands(prefix: Prefix, text: bool) -> None:
    shipped = b"\0" * (not text) + PLACEHOLDER + b"/x\0" * (not text)
    data = b"edited " + (shipped.replace(PLACEHOLDER, ME) if text else by_conda(shipped, ME))
    verdict = prefix.examine("share/x", data, owned(shipped, text=text))
    assert (verdict.standing, prefix.archived(verdict), verdict.layers) == (Standing.MODIFIED, data, ())
    assert [r.prefix for r in verdict.references] == [ME]
    assert [r.fill for r in verdict.references] == [Fill.GROW if text else Fill.SLASHES]


@pytest.mark.parametrize("placeholder", [PLACEHOLDER, b""])
def test_one_byte_makes_a_file_modified(prefix: Prefix, placeholder: bytes) -> None:
    shipped = b"data\n"
    verdict = prefix.examine("share/x", b"datA\n", owned(shipped, placeholder=placeholder))
    assert verdict.standing is Standing.MODIFIED


def test_a_prefix_longer_than_the_placeholder_restores_nothing(prefix: Prefix) -> None:
    shipped = b"\0/p/x\0"
    verdict = prefix.examine("x", b"\0" + ME + b"/x\0", owned(shipped, placeholder=b"/p", text=False))
    assert verdict.standing is Standing.MODIFIED


def test_a_record_without_a_hash_proves_nothing(prefix: Prefix) -> None:
    verdict = prefix.examine("x", b"data\n", owned(b"data\n", sha256=""))
    assert verdict.standing is Standing.MODIFIED


def test_what_nobody_owns_is_added(prefix: Prefix) -> None:
    verdict = prefix.examine("share/x", b"a " + ME + b"/y\n")
    assert (verdict.standing, fields(verdict)) == (Standing.ADDED, [(2, Field.TEXT, Fill.GROW)])


# Entry points

BODY = b"""# -*- coding: utf-8 -*-
import re
import sys

from tool.cli import main

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
LONG = b"/home/me/" + b"d" * 140
HEADS = [
    (ME, b"#!" + ME + b"/bin/python3.11\n"),
    (LONG, b"#!/bin/sh\n'''exec' \"" + LONG + b'/bin/python3.11" "$0" "$@" #\'\'\'\n'),
    (LONG, b"#!/bin/sh\n'''exec' " + LONG + b"/bin/python3.11 \"$0\" \"$@\"\n' '''\n"),
]
SCRIPT = owned(b"", entry_point=True, placeholder=b"")


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_an_entry_point_is_generated_again(prefix: Prefix, name: bytes, head: bytes) -> None:
    """By whatever client, in however long a prefix: it comes out the same and finds its interpreter."""
    prefix.names = (name,)
    verdict = prefix.examine("bin/tool", head + BODY, SCRIPT)
    assert (verdict.standing, verdict.references) == (Standing.GENERATED, ())
    archived = prefix.archived(verdict)
    assert archived.startswith(HELPER)
    assert archived.endswith(
        b"' '''\nimport sys\n\nfrom tool.cli import main\n\nif __name__ == \"__main__\":\n    sys.exit(main())\n"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"#!" + ME + b"/bin/python3.11\nimport os\n" + BODY, "a line in front"),
        (b"#!" + ME + b"/bin/python3.11\n" + BODY + b"x = 1\n", "a line behind"),
        (b"#!/usr/bin/python3.11\n" + BODY, "another interpreter"),
        (b"#!/elsewhere/bin/python3.11\n" + BODY, "the interpreter of another environment"),
        (BODY, "no shebang"),
        (b"#!/bin/sh", "a line alone"),
        (b"#!/bin/sh\n", "a shell script"),
        (b"", "nothing"),
        (b"#!" + ME + b"/bin/python3.11\n" + b"#" * 5000 + BODY, "a long one"),
    ],
)
def test_an_edited_entry_point_is_kept(prefix: Prefix, data: bytes, why: str) -> None:
    verdict = prefix.examine("bin/tool", data, SCRIPT)
    assert verdict.standing is Standing.MODIFIED, why
    body = data.partition(b"\n")[2]
    assert prefix.archived(verdict).endswith(body), why


# Scripts of Python


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"#!%s/bin/python3.11\n", "a shebang"),
        (b"#!/bin/sh\n'''exec' \"%s/bin/python3.11\" \"$0\" \"$@\"\n' '''\n", "as pip writes it"),
    ],
)
def test_a_script_finds_the_interpreter_beside_it(prefix: Prefix, head: bytes, why: str) -> None:
    body = b"import sys\nprint('" + ME + b"')\n"
    verdict = prefix.examine("bin/tool", head.replace(b"%s", ME) + body)
    archived = prefix.archived(verdict)
    assert archived.startswith(HELPER), why
    assert archived.endswith(b"' '''\n" + body)
    assert fields(verdict) == [(archived.index(ME), Field.TEXT, Fill.GROW)]


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("sbin/tool", b"#!" + ME + b"/bin/python3\nx = 1\n", "its interpreter is not beside it"),
        ("bin/tool", b"#!" + ME + b"/bin/perl\n1;\n", "another language"),
        ("bin/tool", b"#!" + ME + b"/bin/python3 -I" + ME + b"/x\nx = 1\n", "an option names the prefix"),
        ("bin/tool", b"#!" + ME + b"/bin/python3\n# coding: latin-1\nx = '\xe9'\n", "its coding line"),
        ("bin/tool", b"#!" + ME + b"/bin/python3\r\nx = 1\r\n", "CR LF"),
        (
            "bin/tool",
            b"#!" + ME + b'/bin/python3\n"""Usage: tool X"""\nprint(__doc__)\n',
            "its help is its first string",
        ),
        ("bin/tool", b"#!" + ME + b"/bin/python3\n# (c)\n\n'Usage'\n", "a string after a comment"),
        ("bin/tool", b"#!" + ME + b"/bin/python3\nr'''Usage'''\n", "a raw string"),
    ],
)
def test_a_script_keeps_its_shebang(prefix: Prefix, path: str, data: bytes, why: str) -> None:
    verdict = prefix.examine(path, data)
    assert (verdict.layers, verdict.references[0].field) == ((), Field.SHEBANG), why


# What an earlier packing says


def known(data: bytes, path: bytes, standing: Standing = Standing.INTACT) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(data), 7, b"", sha256(data), standing, "x-1-0")


def test_a_file_in_an_earlier_form_is_as_it_was(prefix: Prefix) -> None:
    archived = b"\0" + PLACEHOLDER + b"/x\0"
    slot = Reference(1, 257, PLACEHOLDER, Field.C_STRING, Spelling.PLAIN, Fill.NULS, Force.ALWAYS)
    file = Relocatable(b"lib/x", (), len(archived), sha256(archived), (slot,))
    prefix.forms = (Form(b"/now/env"), Form(None))
    for name in (b"/now/env", PLACEHOLDER):
        verdict = prefix.examine("lib/x", by_conda(archived, name), known=known(archived, b"lib/x"), relocatable=file)
        assert (verdict.standing, verdict.from_manifest, verdict.references) == (Standing.INTACT, True, (slot,))
        assert prefix.archived(verdict) == archived


def test_what_was_told_of_a_file_is_told_again(prefix: Prefix) -> None:
    """Packing again gives the same archive, its list of findings included."""
    told = (Finding(b"x", 3, UNCERTAIN, "an old place"),)
    verdict = prefix.examine("x", b"data", known=known(b"data", b"x"), findings=told)
    assert (verdict.findings, verdict.from_manifest) == (told, True)


def test_a_file_that_changed_since_is_examined_anew(prefix: Prefix) -> None:
    archived = b"a " + PLACEHOLDER + b"/x\n"
    slot = Reference(2, 255, PLACEHOLDER, Field.TEXT, Spelling.PLAIN, Fill.GROW, Force.ALWAYS)
    file = Relocatable(b"x", (), len(archived), sha256(archived), (slot,))
    prefix.forms = (Form(ME),)
    data = b"mine " + ME + b"/x\n"
    verdict = prefix.examine("x", data, known=known(archived, b"x"), relocatable=file)
    assert (verdict.standing, verdict.from_manifest) == (Standing.ADDED, False)
    assert prefix.archived(verdict) == data
    changed = prefix.examine("y", b"other", known=known(b"data", b"y"))
    assert (changed.standing, changed.from_manifest) == (Standing.ADDED, False)


# What cannot be read


def unreadable(paths: Iterable[str], root: Path) -> list[str]:
    context = Context(bytes(root), (ME,))
    return [examine(Job(path.encode(), 4, 0), context).error for path in paths]


def test_a_file_that_cannot_be_read_is_a_verdict() -> None:
    with open_directory() as root:
        (root / "closed").write_text("data")
        (root / "closed").chmod(0o000)
        (root / "link").symlink_to("closed")
        with nobody():
            assert unreadable(["closed", "missing", "link"], root) == [
                "Permission denied",
                "No such file or directory",
                "Too many levels of symbolic links",
            ]
