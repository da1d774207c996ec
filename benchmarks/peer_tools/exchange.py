"""What is handed to a tool's own environment and comes back: a folder of safetensors, arrays and JSON."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

_HERE = Path(__file__).parent
_START = """
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2] + "/__init__.py")
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
runpy.run_module(spec.name + "." + sys.argv[3], run_name="__main__")
"""
"""Not `python -m`: a benchmark beside this folder has the name of a package that transformers looks for (`kernels`)."""


class ToolError(RuntimeError):
    """A tool could not do what it was asked for; the message is the last line it said."""


@dataclass(frozen=True)
class Job:
    """One row's work.

    Attributes:
        folder: where everything is: `calibration.npy`, `job.json`, and what comes back.
        model: directory of the original model, safetensors.
        matrices: file of the matrices in scope, float32 (outputs, inputs) by name.
        settings: the row's settings, text.
    """

    folder: Path
    model: str
    matrices: Path
    settings: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job in a folder."""
        values = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        return cls(folder, values["model"], Path(values["matrices"]), values["settings"])

    def weights(self) -> dict[str, torch.Tensor]:
        """The matrices in scope."""
        return load_file(self.matrices)

    def calibration(self) -> torch.Tensor:
        """Token ids (windows, length); as many windows as the setting `windows` says, spread over all."""
        tokens = torch.from_numpy(np.load(self.folder / "calibration.npy").astype(np.int64))
        return spread(tokens, int(self.settings.get("windows", len(tokens))))

    def load_model(self) -> Any:
        """The original model, float32."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32).eval()

    def finish(self, weights: Mapping[str, torch.Tensor], bits: int, packages: Iterable[str], **facts: Any) -> None:
        """Hand back dequantized weights (outputs, inputs), what they take in bits, and the versions of `packages`."""
        save_file(
            {name: value.float().contiguous() for name, value in weights.items()}, self.folder / "out.safetensors"
        )
        versions = {name: importlib.metadata.version(name) for name in packages}
        values = {"bits": bits, "versions": versions, **facts}
        (self.folder / "out.json").write_text(json.dumps(values), encoding="utf-8")


def spread(tokens: Any, count: int) -> Any:
    """`count` of the windows, evenly spread; all if there are no more."""
    return tokens if count >= len(tokens) else tokens[np.arange(count) * len(tokens) // count]


def scaled_bits(shape: tuple[int, int], width: int, group: int, overhead: int) -> int:
    """Bits of a matrix of `width`-bit codes, `overhead` bits for every row's every group, a short last one included."""
    rows, columns = shape
    return rows * (columns * width + -(-columns // group) * overhead)


def run_tool(
    python: str, tool: str, folder: Path, model: str, matrices: Path, tokens: Any, settings: Mapping[str, str]
) -> dict[str, Any]:
    """Do a job in a tool's environment; returns the facts that came back, among them `bits` and `seconds`.

    Raises:
        ToolError: it failed; what it said is in `log.txt` in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "calibration.npy", tokens)
    values = {"model": str(Path(model).resolve()), "matrices": str(matrices.resolve()), "settings": dict(settings)}
    (folder / "job.json").write_text(json.dumps(values), encoding="utf-8")
    started = time.perf_counter()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        command = [python, "-c", _START, str(__package__), str(_HERE), tool]
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, check=False).returncode
    if code:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise ToolError(f"{tool} ended with {code} and said: {lines[-1]}")
    facts: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return facts | {"seconds": time.perf_counter() - started}


def tool_main(work: Callable[[Job], None]) -> None:
    """The main function of a tool's file."""
    work(Job.read(Path.cwd()))
