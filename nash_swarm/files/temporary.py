"""The system's folder for temporary files."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from nash_swarm.errors import DataError

_IN_MEMORY = "/dev/shm"


def temporary_folder() -> Path:
    """The folder that `TMPDIR` names, or one of the usual ones.

    Raises:
        DataError: none of them can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise DataError("no folder for temporary files can be written; set TMPDIR to one that can be") from error


def settle_temporary_folder() -> None:
    """Have this process and its children use shared memory where no folder for temporary files can be written.

    That is so in a container whose file system is read-only, where torch cannot be imported for want of one. For
    programs, not for libraries: it sets `TMPDIR`.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        with suppress(OSError):
            tempfile.TemporaryFile(dir=_IN_MEMORY).close()
            os.environ["TMPDIR"] = tempfile.tempdir = _IN_MEMORY
