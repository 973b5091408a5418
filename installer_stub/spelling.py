"""How a prefix is written in a file: plain, in a URL, in JSON, for a shell, in XML, in UTF-16."""

from __future__ import annotations

import json
from typing import Dict
from urllib.parse import quote_from_bytes

from installer_stub.model import Spelling

# What a path keeps unescaped in a URL (RFC 3986, pchar and "/").
_URL_SAFE = b"/:@!$&'()*+,;=-._~"
# What POSIX sh leaves alone in an unquoted word.
_SHELL_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=")


# The five entities that XML knows by itself; quotes only matter in attributes, and are right everywhere.
_XML = {0x26: b"&amp;", 0x3C: b"&lt;", 0x3E: b"&gt;", 0x22: b"&quot;", 0x27: b"&apos;"}


_TEXT = (
    Spelling.PLAIN,
    Spelling.URL,
    Spelling.URL_STRICT,
    Spelling.JSON,
    Spelling.JSON_ASCII,
    Spelling.JSON_ASCII_SLASHES,
    Spelling.SHELL,
    Spelling.XML,
)


class Unspellable(ValueError):
    """The prefix cannot be written in the slot's spelling."""


def spelled(prefix: bytes, spelling: Spelling) -> bytes:
    """Write ``prefix`` as ``spelling`` does.

    Raises Unspellable where the spelling cannot hold it: UTF-16 and JSON are text, and a path need not be.
    """
    if spelling is Spelling.PLAIN:
        return prefix
    if spelling is Spelling.URL:
        return quote_from_bytes(prefix, safe=_URL_SAFE).encode()
    if spelling is Spelling.URL_STRICT:
        return quote_from_bytes(prefix, safe=b"/").encode()
    if spelling is Spelling.SHELL:
        return b"".join(
            bytes([byte]) if byte in _SHELL_SAFE or byte >= 0x80 else b"\\" + bytes([byte]) for byte in prefix
        )
    if spelling is Spelling.XML:
        return b"".join(_XML.get(byte, bytes([byte])) for byte in prefix)
    try:
        text = prefix.decode()
    except UnicodeDecodeError as error:
        raise Unspellable(f"{prefix!r} is not UTF-8 and cannot be written as {spelling.value}") from error
    if spelling is Spelling.JSON:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/").encode()
    if spelling is Spelling.JSON_ASCII:
        return json.dumps(text)[1:-1].encode()
    if spelling is Spelling.JSON_ASCII_SLASHES:
        return json.dumps(text)[1:-1].replace("/", "\\/").encode()
    if spelling is Spelling.UTF16LE:
        return text.encode("utf-16-le")
    if spelling is Spelling.UTF16BE:
        return text.encode("utf-16-be")
    raise Unspellable(f"a digest ({spelling.value}) holds no prefix")


def spellings(prefix: bytes, utf16: Spelling = Spelling.PLAIN) -> Dict[bytes, Spelling]:
    """List the ways to look for ``prefix``: the written bytes and what they are.

    ``utf16`` is the file's UTF-16 spelling by its BOM, which then is the only one. A spelling that
    writes the prefix like an earlier one is left out: what stands before a hit tells a URL then.
    """
    kinds = _TEXT if utf16 is Spelling.PLAIN else (utf16,)
    found: Dict[bytes, Spelling] = {}
    for kind in kinds:
        try:
            found.setdefault(spelled(prefix, kind), kind)
        except Unspellable:
            continue
    return found
