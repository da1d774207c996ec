"""Folders that look like those that are written, as far as replacing them looks at them."""

from __future__ import annotations

import json
from pathlib import Path


def packed_folder(path: Path, **files: str) -> Path:
    """A folder that says it holds a packed model, with further files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "nash_swarm"}}))
    (path / "model.safetensors").write_bytes(b"weights")
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Everything below a folder, links not followed."""
    return {
        str(file.relative_to(path)): str(file.readlink()).encode() if file.is_symlink() else file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_symlink() or file.is_file()
    }
