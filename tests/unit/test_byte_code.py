"""Byte code is archived where it will be valid and belongs to the environment; else Python makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from installer_stub.bytecode import Header
from installer_stub.model import (
    HARMLESS,
    NOT_REWRITABLE,
    Entry,
    Field,
    Fill,
    Finding,
    Force,
    Kind,
    Reference,
    Spelling,
    Standing,
)
from installer_stub.rewrite import Digest
from installer_stub.walk import Found
from pack import byte_code
from pack.environment import find
from pack.examine import Examined, Job
from pack.layouts.conda import Owned
from pack.scan import LEFT_OUT, Options, scan
from pack.splice import Splice

PY, PYC = b"lib/m.py", b"lib/__pycache__/m.cpython-311.pyc"
OWNED = Owned("x-1-0", "0" * 64, b"", False, False, False)
COMPILED = Owned("x-1-0", "", b"", False, False, True)
SLOT = Reference(0, 8, b"/opt/env", Field.TEXT, Spelling.PLAIN, Fill.GROW, Force.ALWAYS)
NOTHING = Digest("", 0)
KNOWN = Entry(PY, Kind.FILE, 0o644, 0, 0, b"", "0" * 64, Standing.ADDED, "")


def verdict(path: bytes, owned: Owned | None = None, **facts: Any) -> Examined:
    job = Job(path, 100, 1_600_000_000_999_999_999, owned, facts.pop("known", None))
    standing = facts.pop("standing", Standing.ADDED if owned is None else Standing.INTACT)
    return Examined(job, NOTHING, NOTHING, standing, **facts)


NAMED = (Finding(PYC, 0, NOT_REWRITABLE),)
NAMES = (Finding(PYC, 0, HARMLESS),)


@pytest.mark.parametrize(
    ("source", "pyc", "pip", "left", "why"),
    [
        (verdict(PY, OWNED), verdict(PYC, OWNED), (), False, "shipped with its source"),
        (verdict(PY, OWNED), verdict(PYC, OWNED, findings=NAMES), (), False, "names its source, which is harmless"),
        (verdict(PY, OWNED), verdict(PYC, COMPILED), (), True, "compiled by the client"),
        (None, verdict(PYC, COMPILED), (), True, "compiled by the client, without its source"),
        (None, verdict(PYC, OWNED), (), False, "shipped without its source"),
        (None, verdict(PYC), (), False, "somebody's own, without its source"),
        (verdict(PY), verdict(PYC), (), False, "somebody's own, with its source"),
        (verdict(PY, OWNED), verdict(PYC), (), True, "appeared beside a package's source"),
        (verdict(PY, OWNED, standing=Standing.MODIFIED), verdict(PYC), (), True, "appeared beside an edited source"),
        (verdict(PY), verdict(PYC), (PY,), True, "appeared beside pip's source"),
        (verdict(PY), verdict(PYC), (PY, PYC), False, "installed by pip with its source"),
        (verdict(PY, known=KNOWN), verdict(PYC), (), True, "appeared after unpacking"),
        (verdict(PY, known=KNOWN), verdict(PYC, known=KNOWN), (), False, "was in the archive"),
        (verdict(PY, references=(SLOT,)), verdict(PYC, OWNED), (PYC,), True, "its source is rewritten there"),
        (verdict(PY, layers=((Splice(0, 1, b"x"),),)), verdict(PYC), (PYC,), True, "its source is archived otherwise"),
        (verdict(PY, OWNED), verdict(PYC, OWNED, findings=NAMED), (), True, "it names the prefix, its source does not"),
        (None, verdict(PYC, OWNED, findings=NAMED), (), False, "it names the prefix, and nothing can replace it"),
    ],
)
def test_left_out(source: Examined | None, pyc: Examined, pip: tuple[bytes, ...], left: bool, why: str) -> None:
    examined = {PYC: pyc, **({PY: source} if source else {})}
    reasons = byte_code.left_out(examined, lambda: pip)
    assert (list(reasons) == [PYC]) is left, why
    assert all(reasons.values())


def test_byte_code_outside_a_cache_is_kept() -> None:
    """Python 3 runs it only where there is no source: it never runs stale."""
    examined = {PY: verdict(PY, references=(SLOT,)), b"lib/m.pyc": verdict(b"lib/m.pyc")}
    assert byte_code.left_out(examined, tuple) == {}


def header(mtime: int = 1_600_000_000, size: int = 100) -> Header:
    return Header(3495, 0, mtime, size, 16)


@pytest.mark.parametrize(
    ("source", "pyc", "expected", "why"),
    [
        (verdict(PY, OWNED), verdict(PYC, OWNED, compiled=header()), {PY: 1_600_000_000}, "valid"),
        (verdict(PY, OWNED), verdict(PYC, OWNED, compiled=header(mtime=5)), {}, "another time"),
        (verdict(PY, OWNED), verdict(PYC, OWNED, compiled=header(size=5)), {}, "another size"),
        (verdict(PY, OWNED), verdict(PYC, OWNED, compiled=Header(3495, 1, None, None, 16)), {}, "by hash"),
        (verdict(PY, OWNED), verdict(PYC, OWNED), {}, "no byte code after all"),
        (verdict(PY), verdict(PYC, OWNED, compiled=header()), {}, "a source that nobody owns"),
        (verdict(PY, OWNED), verdict(PYC, compiled=header()), {}, "byte code that nobody owns"),
    ],
)
def test_source_mtimes(source: Examined, pyc: Examined, expected: dict[bytes, int], why: str) -> None:
    assert byte_code.source_mtimes({PY: source, PYC: pyc}) == expected, why


def test_another_name_of_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Distributions link the equal byte code of two levels of optimization."""
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "__pycache__").mkdir()
    (prefix / "m.py").write_bytes(b"x = '" + bytes(prefix) + b"'\n")
    (prefix / "__pycache__/m.cpython-311.opt-1.pyc").write_bytes(b"byte code")
    (prefix / "__pycache__/m.cpython-311.pyc").hardlink_to(prefix / "__pycache__/m.cpython-311.opt-1.pyc")
    found = scan(find(None, str(prefix)), Options(1))
    assert [(note.path, note.what, note.detail) for note in found.notes] == [
        (b"__pycache__/m.cpython-311.opt-1.pyc", LEFT_OUT, "byte code of a source that names the prefix"),
        (b"__pycache__/m.cpython-311.pyc", LEFT_OUT, "another name of __pycache__/m.cpython-311.opt-1.pyc"),
    ]


def test_empty_caches() -> None:
    def found(path: bytes, kind: Kind = Kind.FILE) -> Found:
        return Found(path, kind, 0o755, 0, 0)

    tree = [
        found(b"a/__pycache__", Kind.DIRECTORY),
        found(b"a/__pycache__/x.pyc"),
        found(b"b/__pycache__", Kind.DIRECTORY),
        found(b"b/__pycache__/y.pyc"),
        found(b"c/__pycache__", Kind.DIRECTORY),
        found(b"c/__pycache__/link", Kind.SYMLINK),
        found(b"d/__pycache__", Kind.DIRECTORY),
        found(b"e/cache", Kind.DIRECTORY),
    ]
    kept = {b"b/__pycache__/y.pyc": verdict(b"b/__pycache__/y.pyc")}
    assert byte_code.empty_caches(tree, kept) == {b"a/__pycache__", b"d/__pycache__"}
