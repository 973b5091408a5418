"""A compressed stream is read to its last byte, in bounded memory, or is called damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable, Mapping

import pytest
import zstandard

from installer_stub import expand
from installer_stub.expand import Make
from installer_stub.tarstream import ArchiveDamaged
from pack.expand import Unzstd

ENGINES: Mapping[bytes, Make] = {
    expand.GZIP: lambda: expand.Gunzip(zlib.decompressobj(31)),
    expand.ZSTD: lambda: Unzstd(zstandard.ZstdDecompressor(max_window_size=expand.ZSTD_WINDOW).decompressobj()),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}
ERRORS = (zlib.error, zstandard.ZstdError, lzma.LZMAError)
FORMATS: Mapping[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1),
    "zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
TEXT = b"".join(b"line %d\n" % number for number in range(10_000))
CONTENTS = {
    "nothing": b"",
    "a byte": b"x",
    "text": TEXT,
    "noise": random.Random(1).randbytes(100_000),
    "zeros": bytes(2 << 20),
}


def read_all(data: bytes, most: int = 1 << 20, pieces: int = 1 << 20) -> bytes:
    """Expand a stream that comes in pieces of at most ``pieces`` bytes, asking for ``most`` each time."""
    source = io.BytesIO(data)
    take = expand.expanded(lambda count: source.read(min(count, pieces)), ENGINES, ERRORS)
    found: list[bytes] = []
    while piece := take(most):
        assert len(piece) <= most
        found.append(piece)
    assert take(1) == b"", "the end stays the end"
    return b"".join(found)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(("most", "pieces"), [(1 << 20, 1 << 20), (7777, 1 << 20), (1 << 20, 10_009), (1 << 20, 4)])
def test_what_was_compressed_comes_back(form: str, content: str, most: int, pieces: int) -> None:
    assert read_all(FORMATS[form](CONTENTS[content]), most, pieces) == CONTENTS[content]


def test_what_is_not_compressed_comes_as_it_is() -> None:
    assert read_all(TEXT, most=100) == TEXT
    assert read_all(TEXT, pieces=1) == TEXT
    assert read_all(b"") == b""


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_cut_or_goes_on_is_damaged(form: str) -> None:
    data = FORMATS[form](TEXT)
    for cut in (7, len(data) // 2, len(data) - 1):
        with pytest.raises(ArchiveDamaged, match="cut"):
            read_all(data[:cut])
    for more in (b"\0", b"x", data, bytes(1 << 20)):
        for pieces in (1 << 20, len(data)):
            with pytest.raises(ArchiveDamaged, match="goes on behind"):
                read_all(data + more, pieces=pieces)


@pytest.mark.parametrize("form", FORMATS)
def test_a_flipped_byte_is_noticed(form: str) -> None:
    """Each of these formats has a checksum; a few bytes of their headers mean nothing."""
    data = FORMATS[form](TEXT)
    for at in range(30, len(data) - 30, len(data) // 40):
        flipped = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            assert read_all(flipped) == TEXT
        except ArchiveDamaged as error:
            assert error.code == 11


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_a_little_that_stands_for_a_lot_is_given_piece_by_piece(form: str) -> None:
    source = io.BytesIO(FORMATS[form](bytes(64 << 20)))
    take = expand.expanded(source.read, ENGINES, ERRORS)
    total = 0
    while piece := take(1 << 30):
        assert len(piece) <= 128 << 20
        total += len(piece)
    assert total == 64 << 20


def test_a_frame_that_wants_more_memory_than_there_is_to_give() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    sink = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = sink.compress(TEXT) + sink.flush()  # of unknown size, so the window stands in its head
    with pytest.raises(ArchiveDamaged, match="damaged"):
        read_all(data)


def test_an_error_of_reading_is_not_one_of_the_stream() -> None:
    def fail(count: int) -> bytes:
        raise PermissionError(13, "no")

    with pytest.raises(PermissionError):
        expand.expanded(fail, ENGINES, ERRORS)
    pieces = iter([FORMATS["gz"](TEXT)[:1000]])
    take = expand.expanded(lambda count: next(pieces, None) or fail(count), ENGINES, ERRORS)
    with pytest.raises(PermissionError):
        while take(1 << 20):
            pass
