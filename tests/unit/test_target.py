"""A prefix that cannot work is refused before anything is written, with all the reasons."""

from __future__ import annotations

from typing import Any

import pytest

from installer_stub import target
from installer_stub.errors import NoRoom, TargetRefused
from installer_stub.model import Field, Fill, Fit, Force, Manifest, Reference, Relocatable, Spelling

OLD = b"/opt/old/env"


def reference(**facts: Any) -> Reference:
    default: dict[str, Any] = {
        "offset": 0,
        "room": 20,
        "prefix": OLD,
        "field": Field.C_STRING,
        "spelling": Spelling.PLAIN,
        "fill": Fill.NULS,
        "force": Force.ALWAYS,
    }
    return Reference(**{**default, **facts})


def manifest(**files: Reference) -> Manifest:
    listed = tuple(Relocatable(name.encode(), (), 100, "0" * 64, (slot,)) for name, slot in files.items())
    return Manifest((OLD,), listed, (), "activate")


TEXT = reference(room=len(OLD), field=Field.TEXT, fill=Fill.GROW)


@pytest.mark.parametrize(
    "prefix",
    [b"/env", b"/my env", "/é ü".encode(), b"/\xff", b"/a/(b)&;*?[x]#~!", b"/" + b"d" * 4000, b"/-rf", b"/50%"],
)
def test_accepted(prefix: bytes) -> None:
    target.check(prefix, has_text=True)


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        (b"/", "below the root"),
        (b"", "absolute"),
        (b"relative/env", "absolute"),
        (b"/a\nb", "control character 0x0a"),
        (b"/a\tb", "control character 0x09"),
        (b"/a\x1b[31m", "control character 0x1b"),
        (b"/a\x7f", "control character 0x7f"),
        (b"/a:b", "colon"),
    ],
)
def test_refused_by_every_environment(prefix: bytes, why: str) -> None:
    with pytest.raises(TargetRefused, match=why) as caught:
        target.check(prefix, has_text=False)
    assert caught.value.code == 7


@pytest.mark.parametrize("prefix", [b'/a"b', b"/a'b", b"/$(touch x)", b"/a\\b", b"/`x`"])
def test_refused_where_it_would_be_written_into_scripts(prefix: bytes) -> None:
    with pytest.raises(TargetRefused, match="written into scripts"):
        target.check(prefix, has_text=True)
    target.check(prefix, has_text=False)
    with pytest.raises(TargetRefused):
        target.check_room(manifest(a=reference(), b=TEXT), prefix)
    target.check_room(manifest(a=reference(prefix=b"/".ljust(40, b"p"), room=60)), prefix)


def test_every_refusal_is_told_with_its_place_and_its_room() -> None:
    listed = manifest(
        a=reference(offset=17), b=TEXT, c=reference(field=Field.RUN_PATH, fill=Fill.TERMINATE, prefix=b"/o/env")
    )
    with pytest.raises(NoRoom) as caught:
        target.check_room(listed, b"/a/longer/place/env")
    assert caught.value.refusals == (
        "a: the C string at byte 17 has room for 12 bytes, '/a/longer/place/env' needs 19.",
        "c: the run path at byte 0 has room for 6 bytes, '/a/longer/place/env' needs 19.",
    )
    assert caught.value.tip == "Choose a directory of at most 6 bytes. Nothing was changed."
    assert str(caught.value).startswith("/a/longer/place/env cannot be the prefix of this environment: 2 references")


def test_what_may_stay_refuses_only_where_it_must_not() -> None:
    listed = manifest(
        a=reference(force=Force.UNLESS_ALLOWED, fill=Fill.SLASHES, room=len(OLD)), b=reference(force=Force.NEVER)
    )
    with pytest.raises(NoRoom, match="1 reference does not fit") as caught:
        target.check_room(listed, b"/a/longer/place")
    assert "--allow-unrelocated" in caught.value.tip
    target.check_room(listed, b"/a/longer/place", target.Demand.ALLOW_UNRELOCATED)


def test_a_strict_demand_refuses_what_only_c_readers_can_read() -> None:
    padded = reference(fill=Fill.NULS, room=20)
    listed = manifest(a=padded, b=TEXT, c=padded._replace(force=Force.NEVER))
    target.check_room(listed, b"/my/env")
    with pytest.raises(NoRoom, match="1 reference does not fit") as caught:
        target.check_room(listed, b"/my/env", target.Demand.STRICT)
    assert caught.value.refusals == (
        "a: the C string at byte 0 would be right only for readers that stop at its first NUL.",
    )
    assert "without --strict" in caught.value.tip
    target.check_room(listed, b"/new/old/env", target.Demand.STRICT)


def test_a_shared_end_refuses_another_name() -> None:
    shared = reference(fill=Fill.SLASHES, room=len(OLD), keep=3)
    target.check_room(manifest(a=shared), b"/my/env")
    with pytest.raises(NoRoom, match=r"a: the C string at byte 0 cannot be written: .* at a directory named 'env'"):
        target.check_room(manifest(a=shared), b"/my/own")


def test_words_without_quotes_are_listed_where_a_target_would_split_them() -> None:
    bare = TEXT._replace(bare=True)
    listed = manifest(a=bare, b=TEXT)
    assert target.needing_quotes(listed, b"/my/env") == []
    [finding] = target.needing_quotes(listed, b"/my env")
    assert (finding.path, finding.what, finding.detail) == (b"a", target.QUOTING, "1 word without quotes")


def test_fits_are_told_for_every_string_of_a_prefix() -> None:
    digest = reference(prefix=b"", field=Field.DIGEST, fill=Fill.GROW, spelling=Spelling.HEX, force=Force.NEVER)
    listed = manifest(a=reference(fill=Fill.NULS, room=20), b=TEXT, c=digest, d=reference(fill=Fill.SLASHES, room=12))
    fits = [(each.path, each.fit, each.need, each.room) for each in target.fits(listed, b"/a/longer/old/env")]
    assert fits == [(b"a", Fit.NO_ROOM, 17, 12), (b"b", Fit.LOSSLESS, 0, 0), (b"d", Fit.NO_ROOM, 17, 12)]
    assert [each.fit for each in target.fits(listed, b"/env")] == [Fit.C_READERS, Fit.LOSSLESS, Fit.LOSSLESS]


def test_a_reason_other_than_room_is_told() -> None:
    listed = manifest(a=reference(spelling=Spelling.JSON, fill=Fill.GROW, field=Field.TEXT, room=15))
    with pytest.raises(NoRoom, match=r"the text at byte 0 cannot be written: .*not UTF-8") as caught:
        target.check_room(listed, b"/\xff")
    assert "Choose another directory" in caught.value.tip


def test_a_script_that_no_line_can_start_is_told() -> None:
    line = b"#!/opt/old/env/bin/gawk\n"
    slot = reference(field=Field.SHEBANG, fill=Fill.GROW, room=len(line), archived=line)
    with pytest.raises(NoRoom, match="the shebang at byte 0 cannot be written"):
        target.check_room(manifest(a=slot), b"/my env")
    target.check_room(manifest(a=slot), b"/env")


def test_the_longest_target_and_who_sets_it() -> None:
    line = b"#!/opt/old/env/bin/gawk\n"
    listed = manifest(
        a=reference(prefix=b"/".ljust(255, b"p"), room=300),
        b=TEXT,
        c=reference(force=Force.NEVER),
        d=reference(force=Force.NEVER),
        e=reference(field=Field.SHEBANG, fill=Fill.GROW, room=len(line), archived=line),
    )
    assert target.longest(listed, [Force.ALWAYS]) == (115, [b"e"])
    assert target.longest(listed, list(Force)) == (12, [b"c", b"d"])
    assert target.longest(manifest(b=TEXT), list(Force)) is None
    target.check_room(listed, b"/".ljust(115, b"x"))
    with pytest.raises(NoRoom):
        target.check_room(listed, b"/".ljust(116, b"x"))
