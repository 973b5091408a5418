"""Tell the format of a file from its first bytes."""

from __future__ import annotations

import re
from enum import Enum

HEAD = 512  # bytes that `classify` wants; fewer are right only for a file that has no more


class Format(Enum):
    """What a file is, as far as that decides how references in it are found and rewritten."""

    ELF = "elf"
    MACHO = "mach-o"
    PE = "pe"
    BYTECODE = "byte code"
    ZIP = "zip"  # egg, wheel, jar, npz too
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    SQLITE = "sqlite"  # its journals, too
    TAR = "tar"
    STATIC_ARCHIVE = "static archive"
    PICKLE = "pickle"
    UTF16LE = "utf-16-le"
    UTF16BE = "utf-16-be"
    OTHER = "other"


_MAGIC = (
    (b"\x7fELF", Format.ELF),
    (b"\xfe\xed\xfa\xce", Format.MACHO),
    (b"\xfe\xed\xfa\xcf", Format.MACHO),
    (b"\xce\xfa\xed\xfe", Format.MACHO),
    (b"\xcf\xfa\xed\xfe", Format.MACHO),
    (b"PK\x03\x04", Format.ZIP),
    (b"PK\x05\x06", Format.ZIP),  # without members
    (b"PK\x07\x08", Format.ZIP),  # split into volumes
    (b"\x1f\x8b\x08", Format.GZIP),
    (b"\xfd7zXZ\x00", Format.XZ),
    (b"\x28\xb5\x2f\xfd", Format.ZSTD),
    (b"SQLite format 3\x00", Format.SQLITE),
    (b"\x37\x7f\x06\x82", Format.SQLITE),  # a write-ahead log, with checksums, in either byte order
    (b"\x37\x7f\x06\x83", Format.SQLITE),
    (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", Format.SQLITE),  # a rollback journal, with checksums
    (b"!<arch>\n", Format.STATIC_ARCHIVE),
    (b"!<thin>\n", Format.STATIC_ARCHIVE),
)

# What no file of a known format begins with: of most files, which are text, one look tells it.
_FIRST = frozenset({magic[0] for magic, _ in _MAGIC} | set(b"\xcaMB\x80\xff\xfe") | set(range(0x50, 0x60)))

_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")  # a first block, or the end of an empty stream
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # RFC 8878, 3.1.2: what pzstd and others begin with

# Only protocols 4 and 5 have a frame (\x95), and the shortest of them none: the second opcode must be one
# that pushes something. Protocols 0 and 1 have no mark to tell them by.
_PICKLE = re.compile(rb"\x80(?:[\x02\x03][])(}cXUTKMJNGBC\x88-\x8b]|[\x04\x05][])}\x95\x88-\x8b\x8fKMJN])")


def classify(head: bytes, path: bytes = b"") -> Format:
    """Return the format that the first `HEAD` bytes of the file at `path` show.

    Byte code is believed only under the suffixes .pyc and .pyo: its mark is two bytes. OTHER does not say
    whether the file is text: that takes every byte. A shebang before a zip hides the zip.
    """
    if head[2:4] == b"\r\n" and path.endswith((b".pyc", b".pyo")) and _begins_code(head):
        return Format.BYTECODE
    if not head or (head[0] not in _FIRST and head[257:262] != b"ustar"):
        return Format.OTHER
    for magic, known in _MAGIC:
        if head.startswith(magic):
            return known
    if head.startswith((b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")):
        return Format.MACHO if _is_fat(head) else Format.OTHER
    if head.startswith(b"MZ"):
        return Format.PE if _is_pe(head) else Format.OTHER
    if _BZIP2.match(head):
        return Format.BZIP2
    if _ZSTD_SKIPPABLE.match(head):
        return Format.ZSTD
    if _PICKLE.match(head):
        return Format.PICKLE
    if head[257:262] == b"ustar":
        return Format.TAR
    if head.startswith(b"\xff\xfe") and head[2:4] != b"\x00\x00":  # with the zeros it is UTF-32
        return Format.UTF16LE
    if head.startswith(b"\xfe\xff"):
        return Format.UTF16BE
    return Format.OTHER


def _is_fat(head: bytes) -> bool:
    """Tell a Mach-O fat binary from a Java class file, which has the same magic.

    Next comes the number of architectures, or the class file's version, of which none is below 45.
    """
    return 0 < int.from_bytes(head[4:8], "big") < 45


def _is_pe(head: bytes) -> bool:
    """Tell a PE file from text that begins with MZ by the offset of its PE header at byte 60."""
    offset = int.from_bytes(head[60:64], "little")
    if len(head) < 64 or not 64 <= offset < 1 << 16:
        return False
    return len(head) < offset + 4 or head[offset : offset + 4] == b"PE\x00\x00"


def _begins_code(head: bytes) -> bool:
    """Whether a marshalled code object begins where a .pyc of any Python has one.

    The header has 16 bytes since Python 3.7 (PEP 552), 12 since 3.3, and 8 before.
    """
    return any(head[at : at + 1] in (b"c", b"\xe3") for at in (16, 12, 8))
