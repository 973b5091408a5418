"""Install the packages of an environment with py-rattler into ``DIRECTORY/env``, with an empty cache beside it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import inputs
from fixtures import channel

if __name__ == "__main__":
    directory = Path(sys.argv[2])
    channel.install(directory / "env", inputs.specs(sys.argv[1]), inputs.channels(), cache=directory / "cache")
