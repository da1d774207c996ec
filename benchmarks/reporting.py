"""What all benchmarks say of themselves in their JSON, and how it gets to disk."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any


def origin(*packages: str) -> dict[str, Any]:
    """The command line, the machine, and the versions of nash-swarm and of other packages that matter."""
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "machine": {
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "architecture": platform.machine(),
        },
        "versions": {name: version(name) for name in ("nash-swarm", *packages)},
    }


def take_up(path: Path | None, values: dict[str, Any]) -> None:
    """Put the rows of an earlier run that wrote the file among the values, and the loss of its original model.

    Raises:
        SystemExit: its damage was another one.
    """
    if path is None or not path.exists():
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    if (damage := kept.get("damage", values["damage"])) != values["damage"]:
        raise SystemExit(f"{path} has figures of damage {damage}; name another file")
    values |= {"rows": kept["rows"], "reference_loss": kept["reference_loss"]}


def write_json(path: str | Path | None, values: Mapping[str, Any]) -> None:
    """Write or replace the file in one step; nothing without a path."""
    if path:
        waiting = Path(f"{path}.part")
        waiting.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        waiting.replace(path)
