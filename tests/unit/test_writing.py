"""What the system says of a write that failed reads as a sentence, with what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from installer_stub.errors import ManifestError, OutputError
from installer_stub.writing import output_error, writing

WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EFBIG: "the file is larger than",
    errno.EIO: "the disk reports an input/output error",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EPIPE: "the program that reads the output has stopped reading",
    errno.EEXIST: "something of this name appeared or exists already",
    errno.EBUSY: "something is mounted there, or it is in use",
    errno.EXDEV: "something there is on another file system, or in a lower layer of an overlay",
    errno.EMLINK: os.strerror(errno.EMLINK),
}


@pytest.mark.parametrize("number", WORDS, ids=errno.errorcode.get)
def test_every_error_in_words(number: int) -> None:
    with pytest.raises(OutputError, match=f"^/x: cannot be written: {WORDS[number]}") as caught, writing(b"/x"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == 5
    assert bool(caught.value.tip) == (number not in (errno.EPIPE, errno.EMLINK))


@pytest.mark.parametrize("path", ["/x", b"/x", Path("/x")])
def test_a_path_of_any_kind(path: str | bytes | Path) -> None:
    assert str(output_error(OSError("odd"), path)) == "/x: cannot be written: odd"
    assert "\udcff" in str(output_error(OSError(errno.EIO, "x"), b"/\xff"))


def test_what_is_no_error_of_writing_passes() -> None:
    for error in (ManifestError("x"), ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), writing("/x"):
            raise error
