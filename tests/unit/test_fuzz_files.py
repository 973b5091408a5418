"""Damaged and hostile files of every format, read as a scan reads them: nothing is raised, nothing is damaged.

The parsers have such tests of their own. Here they work together: what is found in a file must be a manifest that can
be read back, and writing the file for another prefix and back must give the bytes that were there.
"""

from __future__ import annotations

import gzip
import io
import marshal
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import macos
from installer_stub import manifest, references, rewrite
from installer_stub.activation import STEM
from installer_stub.fit import misfits
from installer_stub.model import Fill, Manifest, Relocatable
from installer_stub.references import Mode, Reading
from installer_stub.rewrite import Form, Misfit
from pack import binaries, run_paths
from pack.splice import Spliced
from tests.conftest import need

PREFIX = b"/opt/environment"
TARGETS = (b"/t/environment", b"/opt/environment2/x", b"/n", b"/opt")
LONGEST = 64 << 20  # of what may be read at once

C = r"""
static const char *const whole = PREFIX "/share/data", *const tail = "share/data", *const end = "environment";
const char exact[] = PREFIX, *pointer = PREFIX, both[] = PREFIX "/lib:" PREFIX "/bin";
const char *lib(int i) { return i == 0 ? whole : i == 1 ? tail : i == 2 ? end : exact; }
"""


class Reader:
    """Bytes as ``read_at``, which no header may make read without measure."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < 1 << 63 and 0 <= length <= LONGEST
        self.count += 1
        assert self.count < 20000
        return self.data[offset : offset + length]


def elf() -> bytes:
    """Link a library whose strings name the prefix, without any other code."""
    need("gcc")
    prefix = PREFIX.decode()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "x.so")
        options = ["-shared", "-nostdlib", "-fPIC", "-Os", f"-Wl,-rpath,{prefix}/lib,-soname,{prefix}/lib/x.so"]
        command = ["gcc", "-x", "c", f'-DPREFIX="{prefix}"', *options, "-o", str(output), "-"]
        subprocess.run(command, input=C.encode(), check=True, capture_output=True)
        return output.read_bytes()


def mach_o(path: str) -> Callable[[], bytes]:
    return lambda: (macos.or_skip(macos.programs_of_llvm) / path).read_bytes()


def byte_code() -> bytes:
    name = PREFIX.decode()
    source = f"A = {name + '/share'!r}\ndef f(x={name!r}): return (x, {name + '/a'!r}, 1.5)\n"
    code = compile(source, f"{name}/x.py", "exec")
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("__main__.py", b"print('%s/x')\n" % PREFIX)
    return b"#!%s/bin/python\n" % PREFIX + out.getvalue()


SAMPLES: dict[str, Callable[[], bytes]] = {
    "elf": elf,
    "Mach-O, signed": mach_o("arm64/library.dylib"),
    "Mach-O, fat": mach_o("fat/program"),
    "byte code": byte_code,
    "zip": zipped,
    "gzip": lambda: gzip.compress(PREFIX * 20, 0, mtime=0),
    "static archive": lambda: b"!<arch>\n%-48s%-10d`\n\0%s/x.c\0" % (b"x/", 22, PREFIX),
    "script": lambda: b"#!%s/bin/python -W %s/x\r\n# coding: latin-1\nPATH=%s/bin:/opt\n" % (PREFIX, PREFIX, PREFIX),
    "self-extractor": lambda: b"#!%s/bin/sh\nexit\n\0\1%s/share\0" % (PREFIX, PREFIX),
    "JSON": lambda: b'{"a": "\\/opt\\/environment\\/x", "b": "file:///opt/environment", "c": ["/opt/environment"]}',
    "XML": lambda: b"<?xml version='1.0'?><a href='file:///opt/environment/%41'>/opt/environment &amp;</a>",
    "UTF-16": lambda: "\ufeff/opt/environment/x\n".encode("utf-16-le"),
}


@pytest.fixture(scope="module", params=SAMPLES)
def real(request: pytest.FixtureRequest) -> bytes:
    return SAMPLES[request.param]()


def read(data: bytes, size: int, mode: Mode = Mode.SEARCH) -> Reading:
    """Read a file that claims ``size`` bytes as a scan does."""
    reading = references.read(Reader(data), size, b"lib/file", (PREFIX,), mode)
    return binaries.refined(Reader(data), reading)


def is_sound(data: bytes, mode: Mode) -> None:
    """Require that what is found in a file is a manifest, and that the file survives every target."""
    reading = read(data, len(data), mode)
    assert reading.size == len(data)
    for finding in reading.findings:
        assert -1 <= finding.offset < len(data)
    made = run_paths.made_relative(Reader(data), b"lib/file", (), reading.references)
    if made is not None:
        view = Spliced(Reader(data), len(data), made.splices)
        data = view.read_at(0, view.size)
        digest = references.read(Reader(data), len(data), b"lib/file", ()).sha256
        survives(data, Relocatable(b"lib/file", (), len(data), digest, made.references))
    else:
        survives(data, Relocatable(b"lib/file", (), len(data), reading.sha256, reading.references))


def survives(data: bytes, file: Relocatable) -> None:
    recorded = Manifest((PREFIX,), (file,), (), STEM)
    assert manifest.load(manifest.dump(recorded)) == recorded
    parts = rewrite.regions(file.references)
    for target in TARGETS:
        form = Form(target)
        out: list[bytes] = []
        try:
            rewrite.transform(io.BytesIO(data).read, out.append, parts, Form(None), form)
        except Misfit:
            assert any(misfits(file, form))
            continue
        written = b"".join(out)
        back: list[bytes] = []
        digest, _ = rewrite.transform(io.BytesIO(written).read, back.append, parts, form, Form(None))
        assert (b"".join(back), digest.sha256) == (data, file.sha256)
        if all(each.fill is not Fill.GROW for each in file.references):
            assert len(written) == len(data)


FUZZ = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
MODES = st.sampled_from(Mode)


def edited(data: bytes, draw: st.DataObject) -> bytes:
    """Change a few bytes, of the headers or anywhere, to values that lengths and offsets are often wrong by."""
    out = bytearray(data)
    places = st.integers(0, min(len(out), 1024) - 1) | st.integers(0, len(out) - 1)
    values = st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"\1", bytes(4), b"\xff" * 4, b"\xff" * 8, PREFIX])
    for place, value in draw.draw(st.lists(st.tuples(places, values), min_size=1, max_size=8)):
        out[place : place + len(value)] = value
    return bytes(out[: len(data)])


def test_as_they_are(real: bytes) -> None:
    """Files without damage hold references, or are reported; else the tests below tried nothing."""
    reading = read(real, len(real))
    assert reading.references or reading.findings
    for mode in Mode:
        is_sound(real, mode)


@FUZZ
@given(st.data(), MODES)
def test_edited(real: bytes, draw: st.DataObject, mode: Mode) -> None:
    is_sound(edited(real, draw), mode)


@FUZZ
@given(st.data(), MODES)
def test_truncated(real: bytes, draw: st.DataObject, mode: Mode) -> None:
    is_sound(real[: draw.draw(st.integers(0, len(real)))], mode)


@FUZZ
@given(st.data(), MODES, st.integers(1, 1 << 40))
def test_shorter_than_it_was(real: bytes, draw: st.DataObject, mode: Mode, more: int) -> None:
    """A file that somebody cuts while it is read is no error here: the packer sees that it changed."""
    data = real[: draw.draw(st.integers(0, len(real)))]
    assert read(data, len(data) + more, mode).size == len(data)


@FUZZ
@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=200), st.integers(0, 64), MODES)
def test_any_bytes_behind_a_head(kind: str, rest: bytes, length: int, mode: Mode) -> None:
    head = HEADS[kind][:length]
    is_sound(head + rest[:100] + PREFIX + rest[100:], mode)


HEADS: dict[str, bytes] = {
    **{kind: make() for kind, make in SAMPLES.items() if kind not in ("elf", "Mach-O, signed", "Mach-O, fat")},
    "elf": b"\x7fELF\2\1\1".ljust(16, b"\0") + b"\3\0\x3e\0\1\0\0\0",
    "Mach-O, signed": b"\xcf\xfa\xed\xfe\x0c\0\0\1\0\0\0\0\6\0\0\0",
    "Mach-O, fat": b"\xca\xfe\xba\xbe\0\0\0\2\1\0\0\7\0\0\0\3",
}


def fields(reading: Reading) -> Sequence[str]:
    return sorted({each.field.value for each in reading.references})


def test_samples_hold_every_field() -> None:
    """The compiled sample has what the loader and programs read."""
    assert fields(read(elf(), len(elf()))) == ["C string", "load command", "run path"]
