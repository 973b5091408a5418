"""Hostile documents and first lines: each is read as what it says, or refused with an error of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installer_stub import activation, manifest, shebang, state
from installer_stub.errors import EnvironmentUnfit, ManifestError, PackError
from installer_stub.rewrite import Digest, Form
from installer_stub.shebang import Unwritable
from installer_stub.state import Stand, State
from pack import condarc
from pack.layouts import conda

HASH = "0123456789abcdef" * 4
FUZZ = settings(deadline=None, max_examples=300)

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["/", "", "\0", "%FF", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


def changed(document: Any, draw: st.DataObject) -> Any:
    """Put anything anywhere into a document, once or a few times."""
    document = copy.deepcopy(document)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = document
        while True:
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            key = draw.draw(st.sampled_from(keys))
            if not (isinstance(at[key], (dict, list)) and at[key] and draw.draw(st.booleans())):
                break
            at = at[key]
        if draw.draw(st.booleans()):
            at[key] = draw.draw(ANYTHING)
        else:
            del at[key]
        if not document:
            break
    return document


def written(document: Any, draw: st.DataObject) -> bytes:
    """Write a document as JSON, whole or cut somewhere."""
    content = json.dumps(document).encode()
    return content[: draw.draw(st.just(len(content)) | st.integers(0, len(content)))]


STATE = State(
    (Stand(Form(None)), Stand(Form(b"/a/env", {b"bin/x": Digest(HASH, 12)}), {b"new": HASH})), b"host", (b"/a/env",)
)
RECORD = {
    "name": "a",
    "version": "1",
    "build": "0",
    "files": ["bin/a", "lib/b.pyc"],
    "url": "https://user:secret@host/t/token/x",
    "link": {"source": "/x", "type": 1},
    "paths_data": {
        "paths": [
            {
                "_path": "bin/a",
                "path_type": "hardlink",
                "sha256": HASH,
                "prefix_placeholder": "/p",
                "file_mode": "text",
            },
            {"_path": "site-packages/c.py", "path_type": "unix_python_entry_point"},
        ]
    },
}
VARIABLES = {"env_vars": {"A": "1", "B": 2, "C": "***unset***"}}


@FUZZ
@given(st.data())
def test_state(draw: st.DataObject) -> None:
    """A state is read or refused, never half of both: what is read can be written and read again."""
    document = changed(json.loads(state.dump(STATE)), draw)
    with TemporaryDirectory() as folder:
        root = bytes(Path(folder))
        path = Path(folder, ".pack", "state.json")
        path.parent.mkdir()
        path.write_bytes(written(document, draw))
        try:
            read = state.load(root)
        except ManifestError:
            return
        path.write_bytes(state.dump(read))
        assert state.load(root) == read


@FUZZ
@given(st.data())
def test_record_of_a_package(draw: st.DataObject) -> None:
    """A record of conda is read or refused by its name; one that is read can be written as it is archived."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "conda-meta", "a-1-0.json")
        path.parent.mkdir()
        path.write_bytes(written(changed(RECORD, draw), draw))
        try:
            records = conda.read(Path(folder))
        except EnvironmentUnfit as error:
            assert str(path) in str(error)
            return
        document, _ = conda.document(path)
        digests = {conda.recorded(path): Digest(HASH, 1) for path in records.owners}
        made = conda.filled(*conda.canonical_text(document, records.site, ["bin/a"], digests), digests)
        assert all(made.content[offset:][:64] == HASH.encode() for offset, _ in made.digests)


@FUZZ
@given(st.data())
def test_variables(draw: st.DataObject) -> None:
    """Variables that the environment wants set are names and values that every shell can hold, or refused."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "conda-meta", "state")
        path.parent.mkdir()
        path.write_bytes(written(changed(VARIABLES, draw), draw))
        try:
            found = activation.read_variables(Path(folder))
        except EnvironmentUnfit as error:
            assert str(path) in str(error)
            return
        assert all(name.replace(b"_", b"a").isalnum() and b"\0" not in value for name, value in found)
        activation.scripts("activate", b"/t/env", b"host", found)


@FUZZ
@given(st.binary(max_size=60) | st.text(alphabet="envs_dir:[]{}-&*!#|>% \n\t'\"\\0", max_size=60).map(str.encode))
def test_condarc(content: bytes) -> None:
    """Whatever somebody's configuration holds, it names directories or is refused."""
    with TemporaryDirectory() as folder:
        path = Path(folder, ".condarc")
        path.write_bytes(content)
        try:
            assert all(isinstance(each, str) for each in condarc.environment_directories(path))
        except condarc.CondarcError:
            return


PIECES = [b"#!", b"/opt/env", b"/bin/", b"python3.11", b"perl", b"sh", b"env", b"-S", b" ", b"\t", b"\r", b"\n", b"-w"]
PIECES += [
    b"'''exec' ",
    b'"$0"',
    b'"$@"',
    b"' '''",
    b"# -*- coding: latin-1 -*-",
    b"\xe9",
    b"\0",
    b"x" * 130,
    b"\\",
    b'"',
]
HEADS = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)
TARGETS = st.sampled_from([b"/t", b"/opt/env/env", b"/a b/env", b"/" + b"l" * 200, b"/\xe9", b"/opt"])


@FUZZ
@given(st.binary(max_size=80) | HEADS, st.booleans(), TARGETS)
def test_shebang(rest: bytes, marked: bool, target: bytes) -> None:
    """A first line is none, is written so that the kernel takes it, or is refused."""
    head = b"#!/opt/env" + rest if marked else rest
    through = shebang.parse_through_sh(head)
    assert through is None or 0 < through[1] <= len(head)
    line = shebang.parse(head)
    if line is None or not line.interpreter.startswith(b"/"):  # a relative one stays what it is
        return
    length = shebang.length(line, head)
    assert 2 < length <= len(head)
    limit = shebang.longest(head[:length], b"/opt/env")
    assert limit is None or 0 <= limit <= shebang.LIMIT
    for write in (lambda: shebang.beside(line), lambda: shebang.written(head[:length], b"/opt/env", target)):
        _is_a_head(write)


def _is_a_head(write: Callable[[], bytes]) -> None:
    try:
        head = write()
    except Unwritable:
        return
    first = head.partition(b"\n")[0]
    assert first.startswith(b"#!/")
    assert len(first) < shebang.LIMIT
    assert shebang.parse(head) is not None


def test_slot_without_measure() -> None:
    """A slot longer than any string is damage: nothing of its length may be held in memory."""
    row = ["bin/x", [], 1 << 50, HASH, [[0, 1 << 50, 0, "C_STRING", "PLAIN", "NULS", "ALWAYS"]]]
    document = {"format": 1, "prefixes": ["/opt/env"], "added": [], "stem": "activate", "files": [row]}
    with pytest.raises(ManifestError, match="slot at byte 0"):
        manifest.load(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b'"\\ud800"', b"\xff", b"NaN"])
def test_deep_and_long(content: bytes, tmp_path: Path) -> None:
    """Nesting without end, numbers without end, and what is no text are refused by every reader of JSON."""
    for name in ("conda-meta/a.json", "conda-meta/state", ".pack/state.json", ".pack/references.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for read in (
        lambda: conda.read(tmp_path),
        lambda: activation.read_variables(tmp_path),
        lambda: state.load(bytes(tmp_path)),
        lambda: manifest.load(content),
        lambda: manifest.load_listing(content),
    ):
        with pytest.raises(PackError):
            read()
