"""What every file of figures says of itself: the command, the commit, the machine, the versions; and how it is written.

A record is one JSON object: the keys of `origin`, settings of the measurement, and tables, which are lists of rows. The
reports of `nash-swarm bench` and `bench-solvers` and the files of `benchmarks/results/` are records.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError
from nash_swarm.files.atomic import new_file
from nash_swarm.files.values import finite, table

_LIBRARIES = ("nash-swarm", "torch", "transformers", "numpy", "numba", "scipy")
_ROOT = Path(__file__).resolve().parents[2]


def origin(command: str, *packages: str) -> dict[str, Any]:
    """Where figures come from, as JSON values.

    Args:
        command: the command line that makes them again.
        packages: whose versions matter beside those of the libraries that nash-swarm computes with.
    """
    return {"command": command, "commit": commit(), "machine": dict(machine()), "versions": library_versions(*packages)}


def save_record(path: str | Path, values: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write the values as JSON in one step; NaN and infinities become null.

    Raises:
        UsageError: there is a file of that name and `overwrite` is not set.
        DataError: the file cannot be written.
    """
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(finite(values), indent=1) + "\n", encoding="utf-8")


def load_record(path: str | Path) -> dict[str, Any]:
    """What `save_record` wrote.

    Raises:
        DataError: no such file, or it holds no JSON object.
    """
    try:
        return table(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the record {path}: {error}") from error


@cache
def machine() -> Mapping[str, Any]:
    """The machine in words."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
    }


def library_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, of what computes the figures, and of other `packages` that are installed."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*_LIBRARIES, *packages)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def versions_text() -> str:
    """The versions in one cell of a table."""
    return ", ".join(f"{name} {number}" for name, number in library_versions().items())


@cache
def commit() -> str | None:
    """The commit of the checkout that runs, with `-dirty` where files differ from it; `None` without a checkout."""
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
