"""Relocation as others do it: the prefix is replaced, and NULs are put behind the string that held it.

It is here to be compared with: tests that pass over what this does to a program would prove nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path


def padded(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace each C string that names ``old`` by one that names ``new``, with NULs up to the old one's end."""

    def replace(match: re.Match[bytes]) -> bytes:
        return match.group().replace(old, new).ljust(len(match.group()), b"\0")

    assert len(new) <= len(old), "NULs make nothing longer"
    return re.sub(re.escape(old) + rb"[^\0]*\0", replace, data)


def relocate(tree: Path, old: Path, new: Path) -> list[Path]:
    """Write every file of a tree for another prefix; return those that changed."""
    changed = []
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        data = path.read_bytes()
        if os.fsencode(old) in data:
            text = b"\0" not in data
            before, after = os.fsencode(old), os.fsencode(new)
            path.write_bytes(data.replace(before, after) if text else padded(data, before, after))
            changed.append(path)
    return changed


def install(built: Path, prefix: Path, name: str = "made") -> None:
    """Install what was built into a placeholder's directory as a client of conda installs a package, record and all."""
    shutil.copytree(built, prefix, symlinks=True)
    files = [path for path in sorted(prefix.rglob("*")) if path.is_symlink() or path.is_file()]
    for path in files:
        if path.is_symlink() and str(built) in os.readlink(path):
            target = Path(os.readlink(path)).relative_to(built)
            path.unlink()
            path.symlink_to(os.path.relpath(prefix / target, path.parent))
    shipped = {path: _sha256(path) for path in files}
    replaced = set(relocate(prefix, built, prefix))
    rows = []
    for path in files:
        row = {"_path": str(path.relative_to(prefix)), "path_type": "softlink" if path.is_symlink() else "hardlink"}
        row |= {"sha256": shipped[path], "sha256_in_prefix": _sha256(path)}
        if path in replaced:
            mode = "binary" if b"\0" in path.read_bytes() else "text"
            row |= {"prefix_placeholder": str(built), "file_mode": mode}
        rows.append(row)
    record = {"name": name, "version": "1.0", "build": "0", "build_number": 0, "channel": "local", "subdir": "linux-64"}
    record |= {"files": [row["_path"] for row in rows], "paths_data": {"paths_version": 1, "paths": rows}}
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / f"{name}-1.0-0.json").write_text(json.dumps(record))
    (prefix / "conda-meta" / "history").touch()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
