"""What an environment brings along that is done on no target."""

from __future__ import annotations

import pytest

from pack.brought import MENU, POST_LINK, PRE_UNLINK, brought


@pytest.mark.parametrize(
    ("path", "what", "detail"),
    [
        (b"Menu/tool.json", MENU, ""),
        (b"bin/.ncurses-post-link.sh", POST_LINK, "ncurses"),
        (b"bin/.a-b-pre-link.sh", POST_LINK, "a-b"),
        (b"bin/.a-pre-unlink.sh", PRE_UNLINK, "a"),
    ],
)
def test_it_is_told(path: bytes, what: str, detail: str) -> None:
    (note,) = brought([path])
    assert (note.path, note.what, note.detail) == (path, what, detail)


@pytest.mark.parametrize(
    "path", [b"Menu/deep/tool.json", b"Menu/tool.png", b"share/Menu/x.json", b"bin/x-post-link.sh"]
)
def test_other_paths_are_none(path: bytes) -> None:
    assert brought([path]) == []
