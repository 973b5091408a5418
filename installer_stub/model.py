"""The facts that flow from the scan of a prefix to its relocation.

Paths are bytes, relative to the prefix, without a leading slash. Offsets and lengths are in bytes and
speak of a file *as archived*. Everything is frozen: a stage makes new facts, it does not change old ones.
"""

from __future__ import annotations

from enum import Enum
from typing import Dict, Iterable, NamedTuple, Optional, Tuple


class Kind(Enum):
    """What an entry is on disk. A second name of an inode already seen is a HARD_LINK to its first."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard-link"


class Standing(Enum):
    """How a path stands to the package that owns it."""

    INTACT = "intact"  # the bytes are the package's, or were restored to them
    GENERATED = "generated"  # made by the installing client, and made again in canonical form
    MODIFIED = "modified"  # owned, and changed since it was installed
    ADDED = "added"  # no package knows it


class Field(Enum):
    """What a reference is part of: this decides who reads it, and so what may be done to it."""

    SHEBANG = "shebang"
    TEXT = "text"
    C_STRING = "C string"
    COUNTED = "counted string"
    RUN_PATH = "run path"
    INTERPRETER = "interpreter"
    LOAD_COMMAND = "load command"  # a library's name, or a Mach-O run path
    DIGEST = "digest"
    PAGE_HASH = "page hash"  # in the code signature of a Mach-O file


class Spelling(Enum):
    """How the prefix is written at a reference; for a digest, how the digest is written."""

    PLAIN = "plain"
    URL = "url"  # percent-encoded where RFC 3986 wants it, behind file://
    URL_STRICT = "url, strict"  # percent-encoded, all but unreserved characters, as Python does
    JSON = "json"  # slashes written \/
    JSON_ASCII = "json, ascii"  # other characters than ASCII written \u00e9, slashes as they are
    JSON_ASCII_SLASHES = "json, ascii, slashes"  # both
    SHELL = "shell"  # spaces and other special characters behind a backslash
    XML = "xml"  # & and < and quotes as entities
    UTF16LE = "utf-16-le"
    UTF16BE = "utf-16-be"
    HEX = "hex"  # a SHA-256 in hexadecimal digits
    RECORD = "record"  # "sha256=<base64>,<size>", as in a wheel's RECORD
    SHA1 = "sha-1"  # a page hash, in bytes
    SHA256 = "sha-256"  # a page hash, in bytes; perhaps only the first 20
    SHA384 = "sha-384"  # a page hash, in bytes


class Fill(Enum):
    """What is done with the bytes that a shorter prefix leaves over."""

    GROW = "grow"  # nothing is left over: the file changes its length
    NULS = "nuls"  # NULs behind the string, as conda does
    SLASHES = "slashes"  # slashes inside the prefix, so that the string keeps its length
    TERMINATE = "terminate"  # one NUL, and the old tail is left behind it
    KEEP = "keep"  # nothing is written: packing made it relative, and ``archived`` is what stood there


class Force(Enum):
    """Whether a reference that cannot be rewritten for a target refuses that target."""

    ALWAYS = "always"
    UNLESS_ALLOWED = "unless allowed"
    NEVER = "never"


class Fit(Enum):
    """What becomes of a reference at a given target. The worst comes last."""

    LOSSLESS = "lossless"  # whoever reads it reads the right path
    C_READERS = "safe for C readers"  # who stops at a NUL does; who counts bytes, or shares the tail, may not
    NO_ROOM = "no room"
    NOT_REWRITABLE = "not rewritable"


class Reference(NamedTuple):
    """One place in a file that names the prefix, or the digest of bytes that do.

    ``offset`` and ``room`` bound the slot: the bytes ``[offset, offset + room)`` of the archived file.
    A slot begins with ``prefix`` as written under ``spelling`` and reaches to the end of the string that
    holds it (of the line for a shebang), or just to the end of the prefix where the file may grow.
    Several references of one string have the same end.
    """

    offset: int
    room: int
    prefix: bytes  # the prefix named in the archived bytes, in plain spelling; a digest's: b""
    field: Field
    spelling: Spelling
    fill: Fill
    force: Force
    archived: bytes = b""  # the archived bytes of a slot that cannot be derived: a shebang's line
    of: bytes = b""  # for a digest: the path of the file that it is of
    keep: Optional[int] = 0  # bytes at the slot's end that another string shares; None: nobody can tell
    page: Tuple[int, int] = (0, 0)  # for a page hash: begin and end of the bytes that it is of
    bare: bool = False  # a word without quotes, in a syntax where white space ends words

    @property
    def end(self) -> int:
        """The offset behind the slot's last byte."""
        return self.offset + self.room


class Relocatable(NamedTuple):
    """A file that holds references: one inode, all its names, its bytes as archived."""

    path: bytes
    names: Tuple[bytes, ...]  # the other names of the same inode
    size: int
    sha256: str
    references: Tuple[Reference, ...]  # by offset

    @property
    def is_rewritten(self) -> bool:
        """Whether relocation writes anything into it: not if packing made all that it names relative."""
        return any(reference.fill is not Fill.KEEP for reference in self.references)


class Entry(NamedTuple):
    """One path of the environment as it is archived."""

    path: bytes
    kind: Kind
    mode: int  # permission bits
    size: int  # of the archived bytes; 0 for what has none
    mtime: int  # whole seconds, as archived
    target: bytes  # of a symlink as archived; of a hard link, the path of its first name
    sha256: str  # of the archived bytes; empty for what has none
    standing: Standing
    package: str  # "name-version-build" of the owner, or empty


# What a finding may be. Other modules have words of their own.
NOT_REWRITABLE = "not rewritable"
UNCERTAIN = "uncertain"
ODD = "odd file"
HARMLESS = "harmless"
HIDDEN = "possible hidden reference"


class Finding(NamedTuple):
    """Something that the reader of a report must know: not rewritten, left out, or changed."""

    path: bytes
    offset: int  # -1 where it is about the whole file
    what: str  # one of a few fixed words, for counting
    detail: str = ""


def counts(findings: Iterable[Finding]) -> Dict[str, int]:
    """Count findings by what they are, the most frequent first."""
    totals: Dict[str, int] = {}
    for finding in findings:
        totals[finding.what] = totals.get(finding.what, 0) + 1
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


class Manifest(NamedTuple):
    """All that relocation needs to know."""

    prefixes: Tuple[bytes, ...]  # every prefix that archived bytes name, longest first
    files: Tuple[Relocatable, ...]  # by path
    added: Tuple[bytes, ...]  # paths that packing added, which are no part of the environment
    stem: str  # of the names of the activation scripts: "activate", or "pack-activate"


class Listing(NamedTuple):
    """The full list: what verifying and packing again read, and relocation does not."""

    entries: Tuple[Entry, ...]  # by path
    findings: Tuple[Finding, ...]
