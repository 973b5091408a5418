"""The compressed streams: what real readers make of them, and that threads do not change a byte."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fixtures.selection import need
from installer_stub.errors import UsageError
from pack.archive import Format
from pack.compress import LEVELS, checked_level, compressor, library

MIB = 1 << 20
COMPRESSED = [Format.TAR_GZ, Format.TAR_BZ2, Format.TAR_XZ, Format.TAR_ZST]
# At its lowest level each format has its smallest blocks.
FAST = {format: LEVELS[format][0] for format in COMPRESSED} | {Format.TAR_GZ: 1}
PROGRAMS = {
    Format.TAR_GZ: "gzip",
    Format.TAR_BZ2: "bzip2",
    Format.TAR_XZ: "xz",
    Format.TAR_ZST: "zstd",
}


def packed(data: bytes, format: Format, level: int | None, threads: int = 1, step: int = 65_536) -> bytes:
    out = io.BytesIO()
    with compressor(out, format, level, threads) as stream:
        for start in range(0, len(data), step):
            stream.write(data[start : start + step])
    return out.getvalue()


def mixed(size: int) -> bytes:
    """Text, noise, runs and zeros: what an environment holds."""
    source = random.Random(7)
    words = [source.randbytes(source.randrange(2, 12)) for _ in range(500)]
    data = bytearray()
    while len(data) < size:
        data += b" ".join(source.choices(words, k=2_000))
        data += source.randbytes(5_000) + bytes(9_000) + b"abcd" * 700 + b"x" * source.randrange(300)
    return bytes(data[:size])


DATA = mixed(3 * MIB + 4_321)


@pytest.mark.parametrize("format", COMPRESSED)
def test_the_bytes_are_the_same_for_every_number_of_threads_and_every_size_of_write(format: Format) -> None:
    one = packed(DATA, format, FAST[format], threads=1, step=len(DATA))
    for threads, step in [(1, 10_007), (2, 65_536), (3, 1_000_003), (8, 512)]:
        assert packed(DATA, format, FAST[format], threads, step) == one


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("format", COMPRESSED)
def test_the_system_s_own_program_reads_it_and_finds_nothing_to_complain_of(format: Format, threads: int) -> None:
    stream = packed(DATA, format, FAST[format], threads)
    program = need(PROGRAMS[format])
    assert subprocess.run([program, "-dc"], input=stream, stdout=subprocess.PIPE, check=True).stdout == DATA
    tested = subprocess.run([program, "-qt"], input=stream, stderr=subprocess.PIPE, check=True)
    assert tested.stderr == b""


@pytest.mark.parametrize("format", COMPRESSED)
@pytest.mark.parametrize("size", [0, 1, 79_983, 79_984, 262_143, 262_144, 262_145, MIB - 1, MIB, 2 * MIB])
def test_one_decoder_takes_the_whole_stream_also_where_it_ends_with_a_block(format: Format, size: int) -> None:
    """Readers that stop at the end of the first member or stream lose nothing: there is no second."""
    data = DATA[:size]
    stream = packed(data, format, FAST[format], threads=2)
    if format is Format.TAR_ZST:
        frame = zstandard.ZstdDecompressor().decompressobj()
        assert frame.decompress(stream) == data
        assert frame.eof and frame.unused_data == b""
        return
    decoders: dict[Format, Callable[[], Any]] = {
        Format.TAR_GZ: lambda: zlib.decompressobj(31),
        Format.TAR_BZ2: bz2.BZ2Decompressor,
        Format.TAR_XZ: lzma.LZMADecompressor,
    }
    decoder = decoders[format]()
    assert decoder.decompress(stream) == data
    assert decoder.eof and decoder.unused_data == b""


@pytest.mark.parametrize("level", range(1, 10))
def test_bzip2_blocks_of_every_level_hold_the_worst_that_runs_can_make_of_the_input(level: int) -> None:
    """A run of exactly four bytes becomes five: were the blocks any larger, bzip2 would cut one into two."""
    runs = b"".join(bytes([value % 251]) * 4 for value in range(60_000 * level))
    stream = packed(runs, Format.TAR_BZ2, level, threads=2)
    assert stream.startswith(b"BZh%d" % level)
    assert bz2.decompress(stream) == runs


def test_an_empty_bzip2_stream_is_the_one_that_bzip2_writes() -> None:
    assert packed(b"", Format.TAR_BZ2, 9) == bz2.compress(b"")


def test_an_empty_xz_stream_is_the_one_that_xz_writes() -> None:
    assert packed(b"", Format.TAR_XZ, 6) == lzma.compress(b"")


def test_xz_counts_one_stream_with_four_blocks_and_all_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.xz"
    file.write_bytes(packed(DATA, Format.TAR_XZ, 0, threads=2))
    listed = subprocess.run([need("xz"), "--robot", "--list", file], stdout=subprocess.PIPE, check=True).stdout
    totals = listed.splitlines()[1].split(b"\t")
    assert totals[:5] == [b"file", b"1", b"4", b"%d" % file.stat().st_size, b"%d" % len(DATA)]


def test_a_damaged_byte_is_noticed_by_every_format() -> None:
    for format in COMPRESSED:
        stream = bytearray(packed(DATA, format, FAST[format]))
        stream[len(stream) // 2] ^= 0x10
        done = subprocess.run([need(PROGRAMS[format]), "-t"], input=bytes(stream), capture_output=True, check=False)
        assert done.returncode != 0, format


def test_the_gzip_header_names_no_file_no_time_and_no_system() -> None:
    assert packed(b"a", Format.TAR_GZ, 6)[:10] == bytes.fromhex("1f8b08000000000000ff")


def test_gzip_blocks_cost_next_to_nothing_against_one_long_stream() -> None:
    """Each is primed with the window before it: without that, a repeat across a cut is stored anew."""
    noise = random.Random(1).randbytes(30_000)
    data = noise * 60
    assert len(data) > 6 * 256 * 1024  # seven blocks: unprimed, each would hold the noise
    assert len(packed(data, Format.TAR_GZ, 6)) < len(noise) * 2


@pytest.mark.parametrize("format", [Format.TAR_GZ, Format.TAR_BZ2, Format.TAR_XZ])
def test_tarfile_streams_it_and_sees_the_last_member(format: Format) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in ("first", "last"):
            member = tarfile.TarInfo(name)
            member.size = len(DATA)
            archive.addfile(member, io.BytesIO(DATA))
    stream = io.BytesIO(packed(plain.getvalue(), format, FAST[format], threads=2))
    mode = f"r|{format.value[4:]}"
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        assert [(member.name, member.size) for member in archive] == [("first", len(DATA)), ("last", len(DATA))]


@pytest.mark.parametrize("format", [Format.TAR_GZ, Format.TAR_BZ2, Format.TAR_XZ])
def test_busybox_reads_it(format: Format) -> None:
    stream = packed(DATA, format, FAST[format], threads=2)
    program = PROGRAMS[format].replace("gzip", "gunzip").replace("bzip2", "bunzip2").replace("xz", "unxz")
    done = subprocess.run([need("busybox"), program, "-c"], input=stream, stdout=subprocess.PIPE, check=True)
    assert done.stdout == DATA


JAVA = """
import java.io.*; import java.util.zip.*;
public class Count {
    public static void main(String[] a) throws IOException {
        InputStream in = new GZIPInputStream(System.in);
        long n = 0; byte[] b = new byte[8192];
        for (int r; (r = in.read(b)) >= 0; ) n += r;
        System.out.println(n);
    }
}
"""


def test_java_reads_the_whole_gzip_from_a_pipe(tmp_path: Path) -> None:
    """Its GZIPInputStream takes the end of what is available for the end of the file, between two members."""
    (tmp_path / "Count.java").write_text(JAVA)
    stream = packed(DATA, Format.TAR_GZ, 6, threads=2)
    counted = subprocess.run(
        [need("java"), tmp_path / "Count.java"], input=stream, stdout=subprocess.PIPE, check=True
    ).stdout
    assert int(counted) == len(DATA)


@pytest.mark.parametrize(
    ("format", "level", "words"),
    [
        (Format.TAR_GZ, -1, "levels 0 to 9"),
        (Format.TAR_GZ, 10, "levels 0 to 9"),
        (Format.TAR_BZ2, 0, "levels 1 to 9"),
        (Format.TAR_XZ, 10, "levels 0 to 9"),
        (Format.TAR_ZST, -1, "levels 0 to 22"),
        (Format.TAR_ZST, 23, "levels 0 to 22"),
        (Format.TAR, 10, "levels 0 to 9"),
        (Format.ZIP, 10, "levels 0 to 9"),
    ],
)
def test_a_level_that_the_format_does_not_have_is_refused_with_those_that_it_has(
    format: Format, level: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        checked_level(format, level)
    with pytest.raises(UsageError, match=words):
        compressor(io.BytesIO(), format, level)


@pytest.mark.parametrize("format", COMPRESSED)
def test_the_lowest_and_the_highest_level_are_honoured(format: Format) -> None:
    lowest, default, highest = LEVELS[format]
    data = DATA[:200_000]
    sizes = [len(packed(data, format, level)) for level in (lowest, highest)]
    assert sizes[0] > sizes[1]
    assert packed(data, format, None) == packed(data, format, default)


def test_gzip_level_0_stores() -> None:
    stream = packed(DATA, Format.TAR_GZ, 0, threads=2)
    assert len(DATA) < len(stream) < len(DATA) * 1.001
    assert gzip.decompress(stream) == DATA


def test_a_tar_without_compression_passes_as_it_is() -> None:
    assert packed(DATA, Format.TAR, None) == DATA


class Full(io.BytesIO):
    """An output whose disk is full after some bytes."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.tell() > 100_000:
            raise OSError(28, "full")
        return super().write(data)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("format", COMPRESSED)
def test_an_error_of_the_output_stops_it_with_that_error(format: Format, threads: int) -> None:
    with pytest.raises(OSError, match="full"), compressor(Full(), format, FAST[format], threads) as stream:
        for _ in range(10):
            stream.write(DATA)


@pytest.mark.parametrize("format", COMPRESSED)
def test_an_exception_in_the_block_leaves_a_stream_that_no_reader_takes_for_whole(format: Format) -> None:
    out = io.BytesIO()
    with pytest.raises(KeyboardInterrupt), compressor(out, format, FAST[format], 2) as stream:
        stream.write(DATA)
        raise KeyboardInterrupt
    done = subprocess.run([need(PROGRAMS[format]), "-t"], input=out.getvalue(), capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("format", "block"), [(Format.TAR_GZ, 256 * 1024), (Format.TAR_BZ2, 79_983), (Format.TAR_XZ, MIB)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_stays_bounded_however_much_is_written(format: Format, block: int, threads: int) -> None:
    """Noise does not shrink: what is not written yet is held in memory."""
    noise = random.Random(1).randbytes(MIB // 2)
    out = io.BytesIO()
    with compressor(out, format, FAST[format], threads) as stream:
        for count in range(1, 41):
            stream.write(noise)
            assert count * len(noise) - out.tell() <= (threads + 2) * block + 4 * MIB


@pytest.mark.parametrize("format", COMPRESSED)
def test_the_library_that_decides_the_bytes_is_named(format: Format) -> None:
    assert library(format)
    assert library(Format.TAR) == ""
