"""Mach-O programs of a plain prefix keep signatures that hold, through packing and two moves. Nothing is run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from fixtures import macos
from installer_stub import codesign, macho, references
from installer_stub.rewrite import Form, regions, transform
from tests.integration.moving import move, pack, pack_env, short_directory, unpack


def linked_for(data: bytes, prefix: bytes) -> bytes:
    """Make a program as if it had been linked for another prefix, no longer than its own."""
    reading = references.read(lambda at, n: data[at : at + n], len(data), b"x", [macos.PREFIX.encode()])
    out = io.BytesIO()
    transform(io.BytesIO(data).read, out.write, regions(reading.references), Form(None), Form(prefix))
    return out.getvalue()


def check(path: Path, prefix: Path) -> int:
    """Count the pages whose hash the signature holds; each must hold. Every load command names ``prefix``."""
    data = path.read_bytes()

    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    parsed = macho.parse(read_at, len(data))
    assert parsed is not None
    named = [
        string.text for string in parsed.strings if b"/lib" in string.text and not string.text.startswith(b"/usr/")
    ]
    assert named
    for text in named:
        assert text.startswith(bytes(prefix) + b"/"), text
    hashes = [each for signature in codesign.signatures(read_at, parsed) for each in signature.hashes()]
    for each in hashes:
        assert each.of(data[each.start : each.end]) == data[each.offset : each.offset + each.length]
    return len(hashes)


def test_signatures_hold_after_moves(tmp_path: Path) -> None:
    programs = macos.mach_o_files(macos.or_skip(macos.programs_of_llvm))
    with short_directory() as base, short_directory() as other:
        prefix = base / "e"
        (prefix / "bin").mkdir(parents=True)
        pages = {}
        for number, program in enumerate(programs):
            path = prefix / "bin" / f"{number}-{program.name}"
            path.write_bytes(linked_for(program.read_bytes(), bytes(prefix)))
            pages[path.name] = check(path, prefix)
        assert all(pages.values())
        archive = pack_env(prefix, tmp_path / "env.tar")
        shutil.rmtree(prefix)
        tree = unpack(archive, other / "e")
        for target in (tree, other / "f", base / "e"):
            tree = move(tree, target) if target != tree else tree
            pack("relocate", tree)
            assert {name: check(tree / "bin" / name, tree) for name in pages} == pages
            pack("verify", tree)
