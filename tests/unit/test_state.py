"""The state of a tree is read back as it was written; a damaged one is refused, never guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installer_stub import state
from installer_stub.errors import ManifestError
from installer_stub.rewrite import Digest, Form
from installer_stub.state import ARCHIVED, Stand, State

HASH = "0123456789abcdef" * 4
STATE = State(
    (
        Stand(Form(None)),
        Stand(Form(b"/a/\xff", {b"bin/x": Digest(HASH, 12)}), {b"new\n": HASH}),
        Stand(Form(b"/b")),
    ),
    b"host",
    (b"/a/\xff", b"/b"),
)


def put(tree: Path, data: bytes) -> bytes:
    (tree / ".pack").mkdir(exist_ok=True)
    (tree / ".pack" / "state.json").write_bytes(data)
    return bytes(tree)


def test_it_is_read_back(tmp_path: Path) -> None:
    assert state.load(put(tmp_path, state.dump(STATE))) == STATE
    assert state.load(put(tmp_path, state.dump(ARCHIVED))) == ARCHIVED


PREFIXES = st.binary(min_size=1).filter(lambda path: b"\0" not in path).map(lambda path: b"/" + path)
DIGESTS = st.builds(Digest, st.just(HASH), st.integers(0))
STANDS = st.builds(
    Stand,
    st.builds(Form, st.none() | PREFIXES, st.dictionaries(st.binary(min_size=1), DIGESTS, max_size=3)),
    st.dictionaries(st.binary(min_size=1), st.just(HASH), max_size=3),
)


@given(
    st.builds(State, st.lists(STANDS, min_size=1, max_size=3).map(tuple), st.binary(), st.lists(PREFIXES).map(tuple))
)
def test_any_bytes_are_read_back(written: State) -> None:
    with TemporaryDirectory() as tree:
        assert state.load(put(Path(tree), state.dump(written))) == written


def test_a_tree_without_one_stands_as_archived(tmp_path: Path) -> None:
    assert state.load(bytes(tmp_path)) == ARCHIVED
    assert ARCHIVED.complete
    assert ARCHIVED.prefix is None


def test_a_relocation_under_way_has_no_prefix() -> None:
    assert not STATE.complete
    assert STATE.prefix is None
    assert STATE.newest.form.prefix == b"/b"
    assert State(STATE.stands[2:]).prefix == b"/b"


def test_the_host_is_named_as_the_kernel_does() -> None:
    assert state.host_name() == os.uname().nodename.encode()


GOOD: dict[str, Any] = json.loads(state.dump(STATE))


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {**GOOD, "format": 2},
        {**GOOD, "format": None},
        {**GOOD, "stands": []},
        {**GOOD, "stands": 5},
        {**GOOD, "stands": [{}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "prefix": ""}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "prefix": "relative"}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "prefix": "/a%00"}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "prefix": 5}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": []}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": {"x": HASH}}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": {"x": [HASH]}}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": {"x": [HASH, -1]}}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": {"x": [HASH, float("inf")]}}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "digests": {"x": ["", 1]}}]},
        {**GOOD, "stands": [{**GOOD["stands"][0], "others": {"x": 5}}]},
        {**GOOD, "history": None},
        {**GOOD, "history": [""]},
        {**GOOD, "host": 5},
        {key: value for key, value in GOOD.items() if key != "host"},
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(ManifestError, match=r"state\.json is damaged"):
        state.load(put(tmp_path, json.dumps(document).encode()))


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"{", b"[" * 200_000])
def test_what_is_no_state_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ManifestError):
        state.load(put(tmp_path, data))


def test_one_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = state.dump(STATE)
    for end in range(len(data) - 2):
        with pytest.raises(ManifestError):
            state.load(put(tmp_path, data[:end]))
