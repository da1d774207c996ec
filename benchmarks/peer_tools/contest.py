"""Makes the rows of the comparison, one after the other, and keeps them in a folder."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import write_json
from safetensors.torch import load_file, save_file

import nash_swarm as ns
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.errors import NashSwarmError, UsageError
from nash_swarm.models.source import load_source
from nash_swarm.models.walk import find_matrices
from nash_swarm.quantizers.runtime.modules import PackedWeight
from nash_swarm.recipe import find_effort
from peer_tools.exchange import ToolError, run_tool, spread
from peer_tools.ours import Ours, measured_game
from peer_tools.table import Row

TOOLS = {"gptq": "GPTQ (literature)", "hqq": "HQQ", "llama-cpp": "llama.cpp", "auto-round": "AutoRound"}
OURS = {
    "ours": "nash-swarm",
    "uniform": "baseline: uniform width, our rounding",
    "rtn": "baseline: uniform width, RTN on our grid",
}
DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "ours": {},
    "uniform": {"solver": "uniform", "tune": "0"},
    "rtn": {"solver": "uniform", "tune": "0", "quantizer": "rtn"},
}
NAMES = (*TOOLS, *OURS, "packed", "widths")


def parse_spec(text: str) -> tuple[str, dict[str, str]]:
    """Name and settings of a row.

    Raises:
        UsageError: it is not written NAME:KEY=VALUE,...
    """
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    if name not in NAMES or not all(key and value for key, _, value in pairs):
        raise UsageError(f"{text!r} is no row; write NAME:KEY=VALUE,... with one of {', '.join(NAMES)}")
    return name, {key: value for key, _, value in pairs}


class Contest:
    """One model, one protocol; rows that are done are not repeated."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work = arguments, arguments.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.source = load_source(arguments.model)
        self.matrices = {matrix.name: matrix for matrix in find_matrices(self.source.model, "linear")}
        self.weights = sum(matrix.parameter.numel() for matrix in self.matrices.values())
        calibration = cut_windows(load_text(arguments.calibration), self.source.tokenizer, model=self.source.model)
        self.tokens = choose_windows(calibration, arguments.calibration_windows, np.random.default_rng(arguments.seed))
        test = cut_windows(load_text(arguments.test), self.source.tokenizer, model=self.source.model)
        self.windows = test[: arguments.windows]
        self.quantized = copy.deepcopy(self.source.model)
        self.protocol = {
            "model": self.source.name, "seed": arguments.seed, "effort": arguments.effort,
            "test_tokens": int(self.windows.size), "solver": arguments.solver,
            "damage_windows": arguments.damage_windows, "game": arguments.game and arguments.game.name,
            "calibration_tokens": int(self.tokens.size),
            "calibration": Path(arguments.calibration).name, "test": Path(arguments.test).name,
        }  # fmt: skip
        self.path = self.work / "rows.json"
        self.values: dict[str, Any] = {"protocol": self.protocol, "rows": {}, "reference": None, "failures": {}}
        if self.path.exists():
            self.values = json.loads(self.path.read_text(encoding="utf-8"))
            if self.values["protocol"] != self.protocol:
                raise UsageError(f"{self.work} holds rows of another protocol; give another --work folder")
        self.pythons = dict(each.split("=", 1) for each in arguments.python)
        self._ours: Ours | None = None

    @property
    def ours(self) -> Ours:
        """Our pipeline; its game is measured when it is first needed."""
        if self._ours is None:
            effort = find_effort(self.arguments.effort)
            count = self.arguments.damage_windows or effort.measuring.windows
            if self.arguments.game:
                game = ns.load_game(self.arguments.game)
            else:
                windows, path = spread(self.tokens, count), self.work / "game.npz"
                game = measured_game(self.source.model, windows, path, self.source.name, effort)
            self._ours = Ours(self.source.model, game, self.tokens, effort, self.arguments.solver)
        return self._ours

    def run(self, spec: str) -> None:
        """Make a row, unless it is there."""
        name, settings = parse_spec(spec)
        if spec in self.values["rows"] and name != "widths":
            return
        print(f"{spec} ...", flush=True)
        try:
            if name == "widths":
                self._contest_of_widths(spec, settings)
            elif name == "packed":
                packed = ns.load(settings["path"])
                done = settings.get("note", f"saved as {Path(settings['path']).name}")
                self._take(spec, OURS["ours"], done, packed_bits(packed), packed, None)
            elif name in OURS:
                self._pack(spec, OURS[name], {**DEFAULTS[name], **settings})
            else:
                self._run_tool(spec, name, settings)
        except (ToolError, NashSwarmError) as error:
            print(f"  not done: {error}", flush=True)
            self.values["failures"][spec] = str(error)
            self._keep()

    def _run_tool(self, spec: str, name: str, settings: Mapping[str, str]) -> dict[str, Any]:
        model, matrices = Path(self.arguments.model), self.work / "matrices.safetensors"
        if not matrices.exists():
            save_file({name: matrix.weight().contiguous() for name, matrix in self.matrices.items()}, matrices)
        if not (model / "config.json").exists():  # not a directory: tools get one
            model = self.work / "model"
            if not model.exists():
                self.source.model.save_pretrained(model)
                self.source.tokenizer.save_pretrained(model)
        folder, python = self.work / f"job-{name}", self.pythons.get(name, sys.executable)
        facts = run_tool(python, name.replace("-", "_"), folder, str(model), matrices, self.tokens, settings)
        weights = load_file(folder / "out.safetensors")
        self._evaluate(spec, TOOLS[name], words(settings, facts), facts["bits"], weights, facts["seconds"], facts)
        del weights
        (folder / "out.safetensors").unlink()
        return facts

    def _contest_of_widths(self, spec: str, settings: Mapping[str, str]) -> None:
        """Their widths per layer and ours, both rounded by us, at the same bytes."""
        theirs = f"auto-round:{spec.partition(':')[2]}"
        if theirs not in self.values["rows"]:
            self._run_tool(theirs, "auto-round", settings)
        widths = self.values["rows"][theirs]["facts"]["widths"]
        plain = {"tune": "0"}
        if spec not in self.values["rows"]:
            self._pack(spec, "baseline: AutoScheme's widths, our rounding", plain, widths)
        if (own := f"{spec}, our widths") not in self.values["rows"]:
            self._pack(own, OURS["ours"], plain | {"total": str(self.values["rows"][spec]["bits"])})

    def _pack(
        self, spec: str, method: str, settings: Mapping[str, str], widths: Mapping[str, int] | None = None
    ) -> None:
        started = time.perf_counter()
        packed, bits, done = self.ours.pack(settings, widths)
        seconds = time.perf_counter() - started
        self._take(spec, method, done, bits, packed, seconds)

    def _take(self, spec: str, method: str, done: str, bits: int, packed: Any, seconds: float | None) -> None:
        weights = {name: module.dense() for name, module in packed.named_modules() if isinstance(module, PackedWeight)}
        # norms and biases are what a file of ours holds: 16 bits, perhaps tuned
        rest = {name: value for name, value in packed.state_dict().items() if name in self.quantized.state_dict()}
        self._evaluate(spec, method, done, bits, weights, seconds, {}, rest)

    def _evaluate(
        self, spec: str, method: str, settings: str, bits: int, weights: Mapping[str, torch.Tensor],
        seconds: float | None, facts: Mapping[str, Any], rest: Mapping[str, torch.Tensor] | None = None,
    ) -> None:  # fmt: skip
        if set(weights) != set(self.matrices):
            raise ToolError(f"{method} returned {len(weights)} matrices instead of {len(self.matrices)}")
        self.quantized.load_state_dict(self.source.model.state_dict())
        self.quantized.load_state_dict(dict(rest or {}), strict=False)
        with torch.no_grad():
            for name, matrix in self.matrices.items():
                weight = weights[name].T if matrix.kind == "conv1d" else weights[name]
                self.quantized.get_submodule(name).weight.copy_(weight)
        models = {"quantized": self.quantized, "reference": self.source.model}
        found = ns.evaluate(models, self.windows, reference=self.source.model, quiet=True)
        one = found["quantized"]
        assert one.loss is not None and one.kl is not None and one.top1 is not None and one.perplexity is not None
        row = Row(method, settings, bits / self.weights, one.loss, one.perplexity, one.kl, one.top1, seconds)
        self.values["reference"] = {"loss": found["reference"].loss, "perplexity": found["reference"].perplexity}
        self.values["rows"][spec] = asdict(row) | {"bits": bits, "facts": dict(facts)}
        self.values["failures"].pop(spec, None)
        print(
            f"  {row.bits_incl_overhead:.4f} bits, KL {row.kl:.4f}, loss {row.loss:.4f}, {seconds or 0:.0f} s",
            flush=True,
        )
        self._keep()

    def _keep(self) -> None:
        write_json(self.path, self.values)

    def rows(self) -> list[Row]:
        """All rows that are done."""
        return [Row(**{key: row[key] for key in Row.__dataclass_fields__}) for row in self.values["rows"].values()]


def packed_bits(packed: Any) -> int:
    """Bits of a packed model's matrices, everything that belongs to them included."""
    return sum(8 * module.packed.numel() for module in packed.modules() if isinstance(module, PackedWeight))


def words(settings: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """A tool's settings and what it made of them."""
    parts = [f"{key} {value}" for key, value in settings.items()]
    if "formats" in facts:
        parts.append("+".join(facts["formats"]))
    if len(set(facts.get("widths", {}).values())) > 1:
        chosen = list(facts["widths"].values())
        parts.append("matrices " + ", ".join(f"{chosen.count(width)} x {width} bits" for width in sorted(set(chosen))))
    return ", ".join(parts)
