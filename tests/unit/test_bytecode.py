"""The strings of byte code are those that CPython's own marshal finds; damaged files are refused."""

from __future__ import annotations

import importlib.util
import marshal
import os
import py_compile
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from installer_stub.bytecode import (
    Constant,
    OddBytecode,
    Role,
    UnknownBytecode,
    header,
    source_path,
    strings,
    with_mtime,
)
from installer_stub.errors import PackError

HEADER = importlib.util.MAGIC_NUMBER + bytes(12)
SLICES = (3627).to_bytes(2, "little") + b"\r\n" + bytes(12)  # Python 3.14

# Runs under any Python 3.6 and newer: compiles each source and prints, one a line, what marshal finds in it.
WALK = """
import marshal, os, py_compile, sys
target, sources = sys.argv[1], sys.argv[2:]
def walk(code):
    todo = [code]
    while todo:
        value = todo.pop()
        if hasattr(value, "co_code"):
            yield "F", value.co_filename
            todo += [value.co_name, value.co_names, value.co_consts, value.co_varnames]
            todo += [value.co_freevars, value.co_cellvars]
        elif isinstance(value, (tuple, frozenset)):
            todo += list(value)
        elif isinstance(value, (str, bytes)):
            yield "O", value
for number, source in enumerate(sources):
    path = py_compile.compile(source, os.path.join(target, "%d.pyc" % number), doraise=True)
    with open(path, "rb") as file:
        data = file.read()
    code = marshal.loads(data[16 if sys.version_info >= (3, 7) else 12:])
    for role, value in sorted(set(walk(code)), key=repr):
        if not isinstance(value, bytes):
            value = value.encode("utf-8", "surrogatepass")
        print(number, role, value.hex())
"""


def pythons() -> list[Path]:
    """Every Python 3.6 to 3.14 that is on PATH or installed by pyenv, one for each minor version."""
    found = {sys.version_info[1]: Path(sys.executable)}
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(6, 15):
        candidates = [shutil.which(f"python3.{minor}"), *sorted(root.glob(f"3.{minor}.*/bin/python"))]
        for path in (Path(candidate) for candidate in candidates if candidate):
            ask = [str(path), "-c", "import sys; print(sys.version_info[1])"]
            done = subprocess.run(ask, capture_output=True, text=True)
            if done.stdout.strip() == str(minor):  # a shim may name a Python that is not chosen
                found.setdefault(minor, path)
    return [found[minor] for minor in sorted(found)]


def contents(data: bytes, role: Role) -> set[bytes]:
    return {data[c.offset : c.offset + c.length] for c in strings(data) if c.role is role}


def compiled(directory: Path, source: str, filename: str = "/opt/env/lib/m.py") -> bytes:
    (directory / "m.py").write_text(source)
    path = py_compile.compile(str(directory / "m.py"), str(directory / "m.pyc"), filename, doraise=True)
    assert path is not None
    return Path(path).read_bytes()


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path.parent.parent.name + "/" + path.name)
def test_standard_library_as_marshal(python: Path, tmp_path: Path) -> None:
    library = subprocess.run(
        [python, "-c", "import os; print(os.path.dirname(os.__file__))"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    sources = [str(path) for folder in ("", "email", "asyncio", "json") for path in Path(library, folder).glob("*.py")]
    sources = random.Random(1).sample(sorted(sources), 200)
    walked = subprocess.run(
        [python, "-c", WALK, tmp_path, *sources], capture_output=True, check=True, text=True
    ).stdout.split("\n")
    expected: dict[int, dict[str, set[bytes]]] = {n: {"F": set(), "O": set()} for n in range(len(sources))}
    for line in filter(None, walked):
        at, role, value = line.split(" ")
        expected[int(at)][role].add(bytes.fromhex(value))
    for number, source in enumerate(sources):
        data = (tmp_path / f"{number}.pyc").read_bytes()
        found = list(strings(data))
        assert [c.offset for c in found] == sorted(c.offset for c in found)
        assert contents(data, Role.FILENAME) == expected[number]["F"] == {source.encode()}, source
        missing = expected[number]["O"] - contents(data, Role.OTHER)
        assert not missing - {b""}, source


def test_filename(tmp_path: Path) -> None:
    """The file name is stored once, in the innermost first code object; all others refer to it."""
    source = "a = '/opt/env/share'\ndef f():\n    def g(): return b'/opt/env/b'\n    return g\nclass C: x = 1\n"
    data = compiled(tmp_path, source)
    names = [c for c in strings(data) if c.role is Role.FILENAME]
    assert names == [Constant(data.index(b"/opt/env/lib/m.py"), 17, Role.FILENAME, True)]
    assert {b"/opt/env/share", b"/opt/env/b"} <= contents(data, Role.OTHER)


@pytest.mark.parametrize("seed", range(20))
def test_only_the_strings_that_hold_an_offset(seed: int, tmp_path: Path) -> None:
    """Those that hold one of the offsets are the same as of all strings; of the others few come with them."""
    chance = random.Random(seed)
    source = "\n".join(f"def f{n}(a='{'x' * n}', *, b=b'{n}'): return f{n}, '{n} /opt/env/{n}'" for n in range(30))
    data = compiled(tmp_path, source)
    every = list(strings(data))
    offsets = sorted(chance.sample(range(len(data)), chance.randrange(1, 6)))
    found = list(strings(data, offsets))
    wanted = [c for c in every if any(c.offset <= at < c.offset + c.length for at in offsets)]
    assert [c for c in found if c in wanted] == wanted
    assert set(found) <= set(every)
    assert len(found) <= 2 * len(offsets)


def short(text: bytes, flag: int = 0) -> bytes:
    return bytes([ord("z") | flag, len(text)]) + text


def reference(number: int) -> bytes:
    return b"r" + number.to_bytes(4, "little")


def code(filename: bytes, name: bytes, consts: bytes = b")\0") -> bytes:
    """Write a code object of Python 3.11 to 3.14."""
    empty = b"s\0\0\0\0"
    fields = empty + consts + b")\0" + b")\0" + empty + filename + name + name
    return b"c" + bytes(20) + fields + bytes(4) + empty + empty


PATH = b"/opt/env/m.py"


@pytest.mark.parametrize(
    ("filename", "name", "consts", "role", "why"),
    [
        (short(PATH), short(b"f"), b")\0", Role.FILENAME, "nothing else refers to it"),
        (short(PATH, 128), short(b"f"), b")\0", Role.FILENAME, "it could be referred to, and is not"),
        (short(PATH, 128), reference(0), b")\0", Role.OTHER, "stored as file name, then a name refers to it"),
        (
            reference(0),
            short(b"f"),
            b")\x01" + short(PATH, 128),
            Role.OTHER,
            "stored as constant, then file name",
        ),
        (
            reference(0),
            short(b"f"),
            b")\x01" + code(short(PATH, 128), short(b"g")),
            Role.FILENAME,
            "the file name of two code objects",
        ),
        (
            reference(0),
            short(b"f"),
            b")\x02" + code(short(PATH, 128), short(b"g")) + reference(0),
            Role.OTHER,
            "the file name of two code objects, and a constant of one",
        ),
        (
            reference(1),
            short(b"f"),
            b")\x02" + short(b"x", 128) + code(short(PATH, 128), reference(0)),
            Role.FILENAME,
            "a reference to another string does not matter",
        ),
        (
            short(PATH),
            reference(0),
            b")\x01" + short(b"x", 128),
            Role.FILENAME,
            "stored without a number, beside a string that has the first",
        ),
        (
            reference(2),
            short(b"f"),
            b"\xa9\x03" + b"\xe9" + bytes(4) + b"N" + short(PATH, 128),
            Role.OTHER,
            "tuples and numbers are counted, None is not",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_role(filename: bytes, name: bytes, consts: bytes, role: Role, why: str) -> None:
    data = (3495).to_bytes(2, "little") + b"\r\n" + bytes(12) + code(filename, name, consts)
    (found,) = (c for c in strings(data) if data[c.offset : c.offset + c.length] == PATH)
    assert found.role is role, why


def wrapped(value: bytes, head: bytes = HEADER) -> bytes:
    """Write a file that holds a value and a string: what is read of the value decides where the string is."""
    return head + b")\x02" + value + short(b"end")


@pytest.mark.parametrize(
    "value",
    [
        None, True, ..., StopIteration, 0, -1, 2**31, -(2**70), 2**400, 1.5, -0.0, 1j, "", "a" * 255,
        "a" * 256, "é", "é" * 300, "\ud800", b"", b"x" * 300, (), (1, 2), tuple(range(300)), {"k": ("v",), 1: 2},
        [1, "b"], {}, {1, 2}, set(), frozenset(), frozenset({"x", b"y"}), (("shared",) * 2,) * 2,
    ],
    ids=lambda value: type(value).__name__,  # the order in a set differs from process to process
)  # fmt: skip
@pytest.mark.parametrize("version", range(5))
def test_every_type_of_value(value: Any, version: int) -> None:
    dumped = marshal.dumps(value, version)
    expected = set(walk(value))
    data = wrapped(dumped)
    assert {data[c.offset : c.offset + c.length] for c in strings(data)} == expected | {b"end"}


def walk(value: object) -> Iterator[bytes]:
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from walk([*value.keys(), *value.values()])
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from walk(item)


def test_slice_of_3_14() -> None:
    """Since 3.14 a slice of constants is a constant: start, stop and step."""
    data = wrapped(b"\xba" + b"N" + short(b"stop", 128) + b"N" + reference(1), SLICES)[:-5]
    assert contents(data, Role.OTHER) == {b"stop"}
    data = wrapped(b":" + short(b"a") + b"N" + short(b"c"), SLICES)
    assert contents(data, Role.OTHER) == {b"a", b"c", b"end"}


def test_ascii(tmp_path: Path) -> None:
    """Bytes written into an ASCII string are not decoded: where it matters, the constant says so."""
    data = compiled(tmp_path, f"a = '/opt/env/plain'\nb = '/opt/env/é'\nc = b'/opt/env/bytes'\nd = '{'x' * 300}'\n")
    kinds = {data[c.offset : c.offset + c.length]: c.ascii for c in strings(data)}
    assert kinds[b"/opt/env/plain"] is True
    assert kinds[b"x" * 300] is True
    assert kinds["/opt/env/é".encode()] is False
    assert kinds[b"/opt/env/bytes"] is False
    changed = marshal.loads(data.replace(b"/opt/env/plain", "/opt/é/plain!".encode())[16:])
    assert "/opt/\xc3\xa9/plain!" in changed.co_consts


def test_rewritten_in_place(tmp_path: Path) -> None:
    """Offsets and lengths are those of the contents: writing there changes the value, and nothing else."""
    data = compiled(tmp_path, "x = '/opt/env/share'\n")
    (found,) = (c for c in strings(data) if data[c.offset : c.offset + c.length] == b"/opt/env/share")
    changed = data[: found.offset] + b"/x///env/share" + data[found.offset + found.length :]
    assert marshal.loads(changed[16:]).co_consts[0] == "/x///env/share"


def nested(levels: int) -> bytes:
    return HEADER + b")\x01" * levels + b"N"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (HEADER, "is cut"),
        (HEADER + b")\xff", "is cut"),
        (HEADER + b"s\xff\xff\xff\x7f", "is cut"),
        (HEADER + b"s\xff\xff\xff\xff", "is cut"),
        (HEADER + b"(\xff\xff\xff\xff" + b"N" * 50, "is cut"),
        (HEADER + b"l\x00\x00\x00\x80", "is cut"),
        (HEADER + b"z\x05abcd", "is cut"),
        (HEADER + b"g1234567", "is cut"),
        (HEADER + b"{" + b"N" * 50, "is cut"),
        (HEADER + b"i", "is cut"),
        (HEADER + b"r", "is cut"),
        (HEADER + reference(0), "a value that was not yet there"),
        (HEADER + b")\x02\xce" + reference(0), "a value that was not yet there"),
        (HEADER + b"0", "no value where one must be"),
        (HEADER + b")\x010", "no value where one must be"),
        (HEADER + b"?", "unknown type 0x3f"),
        (HEADER + b"R\0\0\0\0", "unknown type 0x52"),
        (HEADER[:15], "header is cut"),
        (HEADER[:4] + b"\x04\0\0\0" + HEADER[8:] + b"N", "flags are 0x4"),
        (nested(10_000), "nested too deep"),
        (nested(1_000_000), "nested too deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(data: bytes, what: str) -> None:
    with pytest.raises(OddBytecode, match=what) as raised:
        strings(data)
    assert not isinstance(raised.value, UnknownBytecode)
    assert issubclass(OddBytecode, PackError) and issubclass(OddBytecode, ValueError)
    assert raised.value.offset <= len(data)


def test_nested_as_deep_as_marshal_reads() -> None:
    data = nested(1_900)
    assert marshal.loads(data[16:])
    assert list(strings(data)) == []


def test_bytes_behind_the_code(tmp_path: Path) -> None:
    """The importer ignores them."""
    data = compiled(tmp_path, "x = 1\n")
    assert list(strings(data + b"/opt/env/behind")) == list(strings(data))


@pytest.mark.parametrize(
    ("data", "magic", "why"),
    [
        (b"\x03\xf3\r\n" + bytes(4) + b"c" + bytes(40), 62211, "Python 2.7"),
        (b"\x0d\x0c\r\n" + bytes(60), 3085, "Python 3.0"),
        (b"\x50\x01\r\n" + bytes(60), 336, "PyPy 3.9"),
        (b"\x7c\x0d\r\n" + bytes(60), 3452, "an alpha of 3.11, whose code objects were like no release's"),
        (b"\x60\xea\r\n" + bytes(60), 60000, "a Python to come"),
        (
            HEADER[:2] + b"\n\n" + bytes(60),
            int.from_bytes(HEADER[:2], "little"),
            "text mode has damaged the mark",
        ),
        (b"", 0, "an empty file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unknown(data: bytes, magic: int, why: str) -> None:
    with pytest.raises(UnknownBytecode, match=str(magic)) as raised:
        header(data)
    assert raised.value.magic == magic, why
    with pytest.raises(UnknownBytecode):
        strings(data)
    with pytest.raises(UnknownBytecode):
        with_mtime(data, 1)


def test_header_with_time(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text("x = 1\n")
    os.utime(source, (1_700_000_000, 1_700_000_000))
    data = compiled(tmp_path, "x = 1\n")
    source.write_text("x = 1\n")
    known = header(data)
    assert (known.flags, known.source_size, known.size) == (0, 6, 16)
    changed = with_mtime(data, 1_234_567_890)
    assert header(changed).mtime == 1_234_567_890
    assert with_mtime(changed, known.mtime or 0) == data, "nothing else changes"
    assert header(with_mtime(data, 2**32 + 5)).mtime == 5, "the importer compares the lower 32 bits"


def test_time_decides_for_the_importer(tmp_path: Path) -> None:
    """A .pyc whose time was set to its source's is imported; the source is not even read."""
    source = tmp_path / "m.py"
    source.write_text("x = 'compiled'\n")
    cached = Path(str(py_compile.compile(str(source))))
    source.write_text("x = 'edited!!'\n")
    os.utime(source, (1_500_000_000, 1_500_000_000))
    for seconds, expected in ((1_500_000_000, "compiled"), (1_500_000_001, "edited!!")):
        cached.write_bytes(with_mtime(cached.read_bytes(), seconds))
        command = [sys.executable, "-B", "-c", "import m; print(m.x)"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True)
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("mode", ["CHECKED_HASH", "UNCHECKED_HASH"])
def test_header_with_hash(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "m.py"
    source.write_text("x = '/opt/env'\n")
    path = py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode[mode])
    data = Path(str(path)).read_bytes()
    assert (header(data).mtime, header(data).source_size) == (None, None)
    assert header(data).flags == (3 if mode == "CHECKED_HASH" else 1)
    assert b"/opt/env" in contents(data, Role.OTHER)
    with pytest.raises(OddBytecode, match="hash of its source"):
        with_mtime(data, 1)


def test_header_of_3_6() -> None:
    """Before PEP 552 there were no flags: what stands there is the time, whatever its bits."""
    data = b"\x33\x0d\r\n" + b"\xff\xff\xff\x7f" + b"\x07\0\0\0" + b"N"
    assert (header(data).mtime, header(data).source_size, header(data).size) == (0x7FFFFFFF, 7, 12)
    assert with_mtime(data, 1) == b"\x33\x0d\r\n" + b"\x01\0\0\0" + b"\x07\0\0\0" + b"N"
    assert list(strings(data)) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (b"a/__pycache__/m.cpython-311.pyc", b"a/m.py"),
        (b"a/__pycache__/m.cpython-311.opt-1.pyc", b"a/m.py"),
        (b"/a/__pycache__/__init__.cpython-36.opt-2.pyc", b"/a/__init__.py"),
        (b"/__pycache__/m.cpython-36.pyc", b"/m.py"),
        (b"__pycache__/m.pypy39.pyc", b"m.py"),
        (b"__pycache__/m.cpython-313t.pyc", b"m.py"),
        (b"__pycache__/a.b.cpython-311.pyc", b"a.b.py"),
        (b"__pycache__/a.opt-1.cpython-311.pyc", b"a.opt-1.py"),
        (b"__pycache__/\xff.cpython-311.pyc", b"\xff.py"),
        (b"a/m.pyc", None),
        (b"m.pyc", None),
        (b"a/__pycache__/m.pyc", None),
        (b"a/__pycache__/m.opt-1.pyc", None),
        (b"a/__pycache__/.cpython-311.pyc", None),
        (b"a/__pycache__/m.cpython-311.pyc.140234", None),
        (b"a/__pycache__/m.cpython-311.opt-.pyc", None),
        (b"a/x__pycache__/m.cpython-311.pyc", None),
        (b"a/m.cpython-311.pyc", None),
        (b"a/__pycache__/d/m.cpython-311.pyc", None),
        (b"", None),
    ],
)
def test_source_path(path: bytes, source: bytes | None) -> None:
    assert source_path(path) == source


@pytest.mark.parametrize("optimization", ["", "1", "2"])
@pytest.mark.parametrize("source", ["m.py", "a/m.py", "/x/a.b.py"])
def test_source_path_undoes_importlib(source: str, optimization: str) -> None:
    cached = importlib.util.cache_from_source(source, optimization=optimization)
    assert source_path(cached.encode()) == source.encode()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    module = importlib.util.find_spec("argparse")
    assert module is not None and module.origin is not None
    return compiled(tmp_path_factory.mktemp("real"), Path(module.origin).read_text())


HYPOTHESIS = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_damaged(data: bytes) -> None:
    """Read what may be anything: only one exception is allowed, and every string lies in the file."""
    try:
        found = list(strings(data))
    except OddBytecode as error:
        assert error.offset <= len(data)
    else:
        assert all(c.offset > 16 and c.offset + c.length <= len(data) for c in found)
        assert len(found) <= len(data)


@HYPOTHESIS
@given(st.data())
def test_truncated(real: bytes, draw: st.DataObject) -> None:
    end = draw.draw(st.integers(0, len(real) - 1))
    with pytest.raises(OddBytecode):
        strings(real[:end])


@HYPOTHESIS
@given(st.data())
def test_flipped_bits(real: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(real)
    places = st.one_of(st.integers(4, 200), st.integers(4, len(real) - 1))
    for place, value in draw.draw(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=6)):
        damaged[place] ^= value
    read_damaged(bytes(damaged))


@HYPOTHESIS
@given(st.lists(st.sampled_from([b"c", b")", b"(", b"{", b"0", b"N", b"r", b"z", b"\xe3", b"\xa9", bytes(4), b"\x02"])))
def test_any_values(values: list[bytes]) -> None:
    read_damaged(HEADER + b"".join(values))


def test_walks_real_code(real: bytes) -> None:
    """The file that the damaged ones come from is sound, and large enough to matter."""
    assert isinstance(marshal.loads(real[16:]), CodeType)
    assert len(list(strings(real))) > 500
