"""Where the command starts: nothing that takes time is imported before interrupts are caught."""

from __future__ import annotations

import sys

from nash_swarm.cli.interrupted import HALTED, INTERRUPTED


def main() -> None:
    """Entry point: exit code 0 done, 1 bad data or a failure, 2 bad usage, 130 interrupted."""
    try:
        from nash_swarm.cli.main import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print(HALTED, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
