"""Where the command starts: nothing is imported before an interrupt is taken for what it is."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
HALTED = "nash-swarm: interrupted; no half-written output is left"


def main() -> None:
    """Entry point: exit code 0 done, 1 bad data or a failure, 2 bad usage, 130 interrupted."""
    try:
        from nash_swarm.cli.main import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print(HALTED, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
