"""Start the program: as ``pack``, and as ``python -m pack``."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it. While that is loaded, an interrupt ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from pack.cli import main as run

    run()


if __name__ == "__main__":
    main()
