"""Standard streams that take whatever is written: closed ones, and those that cannot say every character."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def mend_streams() -> None:
    """Open what was closed before the process started to nowhere, and write escapes for what an encoding cannot say.

    A closed stream's number would be given to the next file that is opened, and what a library then writes to the
    stream would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _mended(sys.stdout)
    sys.stderr = _mended(sys.stderr)


def _mended(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for as long as the process lives
    # `PYTHONIOENCODING=ascii`, a C locale, or file names that are no text
    if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
        reconfigure(errors="backslashreplace")
    return stream


def give_up_output() -> None:
    """Send what is still to be written to standard output nowhere: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # a stream that is none of the system's
        return
    finally:
        os.close(nowhere)
