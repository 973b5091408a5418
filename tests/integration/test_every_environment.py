"""Relocating an environment changes what the manifest records, and not one byte beside it."""

from __future__ import annotations

import os
import re
import stat
import sys
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest

from fixtures.selection import all_run, cases
from installer_stub import manifest, references, rewrite, state, walk
from installer_stub.fit import misfits
from installer_stub.model import Field, Fill, Force, Kind, Manifest, Reference, Relocatable, Spelling
from installer_stub.rewrite import Form
from pack.examine import Context, Examined, Job, examine
from pack.splice import stacked
from tests.integration.moving import pack, pack_env, short_directory, unpack

INTERPRETER = os.fsencode(os.path.realpath(sys.base_prefix))
# Most files of an interpreter do not name its prefix; these do.
_NAMING = re.compile(rb"^bin/|/pkgconfig/|/config-|/_sysconfigdata")
# The interpreter's own prefix is large; a part of it is read in test_files_of_the_interpreter.
WHOLE = ["interpreter"] if all_run() and INTERPRETER not in (b"/usr", b"/usr/local") else []


def outside(
    archived: bytes, written: bytes, slots: Sequence[Reference], form: Form
) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each run of bytes between slots that differs: its offset in the archived bytes, and both."""
    at = shift = 0
    for region in rewrite.regions(slots):
        if archived[at : region.start] != written[at + shift : region.start + shift]:
            yield at, archived[at : region.start], written[at + shift : region.start + shift]
        shift += rewrite.length(region, form) - (region.end - region.start)
        at = region.end
    if archived[at:] != written[at + shift :]:
        yield at, archived[at:], written[at + shift :]


@pytest.mark.parametrize("name", ["native", "python", "references", *WHOLE])
def test_only_recorded_slots_change(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """After a relocation under the same name each file is as archived outside of its slots, and none is new or gone."""
    prefix = Path(sys.base_prefix).resolve() if name in WHOLE else request.getfixturevalue(f"{name}_env")
    archive = pack_env(prefix, tmp_path / "env.tar")
    with short_directory() as base:
        tree = unpack(archive, base / prefix.name)
        before = described(tree)
        pack("relocate", tree)
        after = described(tree)
        recorded = manifest.load((tree / ".pack" / "references.json").read_bytes())
        ours = {os.fsdecode(path) for path in recorded.added}
        assert {path for path in after.keys() - before.keys() if not path.startswith(".pack")} <= ours
        assert {path: each for path, each in after.items() if path in before} == before
        changed = compared(archive, tree, recorded)
        # Each file with a slot was rewritten, but for those whose references need none any more.
        assert changed <= {os.fsdecode(file.path) for file in recorded.files}
        assert {os.fsdecode(file.path) for file in recorded.files if is_in_force(file)} <= changed


def is_in_force(file: Relocatable) -> bool:
    """Whether a relocation must change a file."""
    derived = (Field.DIGEST, Field.PAGE_HASH)
    return any(r.force is Force.ALWAYS and r.field not in derived and not r.archived for r in file.references)


def described(tree: Path) -> dict[str, tuple[object, ...]]:
    """Describe each path of a tree but for our own: its mode, the target of a symlink, the first name of its inode."""
    found: dict[str, tuple[object, ...]] = {}
    for each in walk.walk(os.fsencode(tree), lambda path: path.startswith(b".pack/")):
        mode = stat.S_IMODE(os.lstat(os.path.join(os.fsencode(tree), each.path)).st_mode)
        found[os.fsdecode(each.path)] = (each.kind, mode, each.target)
    return found


def compared(archive: Path, tree: Path, recorded: Manifest) -> set[str]:
    """Require that each file of an archive is on disk as archived, outside of its slots; return those that changed."""
    form = state.load(os.fsencode(tree)).newest.form
    assert form.prefix == os.fsencode(tree)
    slots = {os.fsdecode(file.path): file.references for file in recorded.files}
    ours = {os.fsdecode(path) for path in recorded.added}
    changed = set()
    count = 0
    with tarfile.open(archive) as members:
        for member in members:
            path = member.name.removeprefix("./").rstrip("/")
            if not member.isreg() or path in ours:
                continue
            content = members.extractfile(member)
            assert content is not None
            archived, written = content.read(), (tree / path).read_bytes()
            count += 1
            assert [(path, *each) for each in outside(archived, written, slots.get(path, ()), form)] == []
            if archived != written:
                changed.add(path)
    assert count > 50
    return changed


def test_a_byte_outside_is_seen() -> None:
    """The comparison finds a byte that changed before, between or behind slots, and nothing else."""
    slot = Reference(2, 4, b"/old", Field.TEXT, Spelling.PLAIN, Fill.GROW, Force.ALWAYS)
    form = Form(b"/longer")
    assert list(outside(b"a /old b", b"a /longer b", [slot], form)) == []
    assert list(outside(b"a /old b", b"x /longer b", [slot], form)) == [(0, b"a ", b"x ")]
    assert list(outside(b"a /old b", b"a /longer c", [slot], form)) == [(6, b" b", b" c")]
    assert list(outside(b"a /old b", b"a /longer b+", [slot], form)) == [(6, b" b", b" b+")]
    assert list(outside(b"a /old b", b"a /longer", [slot], form)) == [(6, b" b", b"")]


def test_files_of_the_interpreter() -> None:
    """Files of the Python that runs the tests are written for another prefix, and back again."""
    found = [each for each in walk.walk(INTERPRETER) if each.kind is Kind.FILE and not each.error]
    found.sort(key=lambda each: each.path)
    numbers = {number for number, each in enumerate(found) if _NAMING.search(each.path)} | {*cases(3, len(found))}
    name = os.path.basename(INTERPRETER)
    form = Form(b"/t/" + name if len(name) + 3 < len(INTERPRETER) else b"/" + name)
    changed = 0
    for number in sorted(numbers):
        path, size = found[number].path, found[number].size
        verdict = examine(Job(path, size, 0), Context(INTERPRETER, (INTERPRETER,)))
        assert not verdict.error
        archived = _archived(path, verdict)
        file = Relocatable(path, (), len(archived), verdict.archived.sha256, verdict.references)
        if any(reference.force is Force.ALWAYS for reference, _ in misfits(file, form)):
            continue  # that target is refused
        written = _transformed(archived, file, Form(None), form)
        assert [(path, *run) for run in outside(archived, written, file.references, form)] == []
        assert _transformed(written, file, form, Form(None)) == archived
        changed += written != archived
    assert changed > 0 or INTERPRETER in (b"/usr", b"/usr/local")


def _archived(path: bytes, verdict: Examined) -> bytes:
    with references.Opened(os.path.join(INTERPRETER, path)) as read_at:
        view, size = stacked(read_at, verdict.disk.size, verdict.layers)
        return view(0, size)


def _transformed(content: bytes, file: Relocatable, old: Form, new: Form) -> bytes:
    """Copy a file from one form to another."""
    out: list[bytes] = []
    digest, _ = rewrite.transform(BytesIO(content).read, out.append, rewrite.regions(file.references), old, new)
    assert digest == (file.sha256, file.size)
    return b"".join(out)
