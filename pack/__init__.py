"""Make an installed software environment relocatable: pack it, move it, activate it, run it.

As a library: ``pack.pack(...)``, ``pack.CondaEnv``, ``pack.File`` and ``pack.CondaPackException``; see ``docs/api.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pack.api import CondaEnv, CondaPackException, File, pack

__all__ = ["CondaEnv", "CondaPackException", "File", "pack"]


def __getattr__(name: str) -> Any:
    """Import the library when it is asked for: the program needs none of it, and starts sooner."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("relopack")
    if name in __all__:
        from pack import api

        return getattr(api, name)
    raise AttributeError(f"module 'pack' has no attribute {name!r}")
