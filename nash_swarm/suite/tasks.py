"""The two pieces of work that a benchmark shares out: solving one cell, and packing and trying one allocation.

Tasks are plain data that any joblib backend can send anywhere; what they make, they write to the report's folder, so a
worker on another machine must see that folder, the model and nothing else under the same paths.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.artifacts.allocation import load_allocation, save_allocation
from nash_swarm.artifacts.game import load_game
from nash_swarm.errors import BudgetError, UsageError
from nash_swarm.game.allocation import Allocation
from nash_swarm.game.budget import Budget
from nash_swarm.quantizers.rounding.base import Quantizer
from nash_swarm.solvers.base import Solver
from nash_swarm.suite.folder import ReportFolder, key_of
from nash_swarm.suite.sources import source_of

_TRACE = 400


@dataclass(frozen=True, eq=False)
class Solving:
    """One cell to be solved.

    Attributes:
        folder: the report's.
        key: of the cell.
        game: key of the game.
        solver: who allocates.
        bits: budget, bits per parameter.
        seed: of the solver.
    """

    folder: str
    key: str
    game: str
    solver: Solver
    bits: float
    seed: int

    def run(self) -> None:
        """Solve, and keep the cell and its allocation."""
        folder = ReportFolder(self.folder, clean=False)
        game = load_game(folder.file("games", self.game, ".npz"))
        budget = Budget.of_bits(self.bits, game.parameters)
        try:
            trace: list[Mapping[str, float]] = []
            started = time.perf_counter()
            allocation = self.solver.solve(game, budget, rng=np.random.default_rng(self.seed), callback=trace.append)
            seconds = time.perf_counter() - started
        except (UsageError, BudgetError) as error:  # a solver may say that a game is not for it
            folder.keep("cells", self.key, {"error": str(error)})
            return
        proof = allocation.certificate
        name = allocation_key(self.game, allocation)
        if not folder.file("allocations", name).exists():
            save_allocation(allocation, folder.file("allocations", name), overwrite=True)
        values = {
            "allocation": name,
            "agents": game.agents,
            "solve_seconds": seconds,
            "certificate": {**asdict(proof), "gap": proof.gap, "fill": proof.fill},
            "trace": _thinned(trace),
        }
        folder.keep("cells", self.key, values)


@dataclass(frozen=True, eq=False)
class Trying:
    """One allocation to be packed and tried on real text.

    Attributes:
        folder: the report's.
        key: of the packing.
        allocation: key of the allocation.
        model: what the user typed.
        trust_remote_code: see `load_source`.
        quantizer: how weights are rounded.
        activations: see `set_activations`.
        windows: token ids that losses are of, int32 (windows, length).
        text: where they came from.
        threads: of torch; 0 leaves them as they are.
    """

    folder: str
    key: str
    allocation: str
    model: str
    trust_remote_code: bool
    quantizer: Quantizer
    activations: str
    windows: npt.NDArray[np.int32]
    text: str
    threads: int = 0

    def run(self) -> None:
        """Pack, evaluate, save to see how large it is, and keep the figures."""
        import torch

        from nash_swarm.artifacts.packed_model import counted_bytes, save
        from nash_swarm.evaluation.measures import evaluate
        from nash_swarm.pipeline.compressing import figures
        from nash_swarm.pipeline.packing import pack
        from nash_swarm.quantizers.runtime.modules import set_activations

        if self.threads:
            torch.set_num_threads(self.threads)
        folder = ReportFolder(self.folder, clean=False)
        allocation = load_allocation(folder.file("allocations", self.allocation))
        source, reference = source_of(self.model, self.trust_remote_code)
        started = time.perf_counter()
        packed = pack(source.model, allocation, quantizer=self.quantizer, quiet=True)
        pack_seconds = time.perf_counter() - started
        set_activations(packed, self.activations)
        started = time.perf_counter()
        models = {"packed": packed, "reference": reference}
        found = evaluate(models, self.windows, reference=reference, quiet=True)
        evaluate_seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.path / "packings") as place:
            measured = figures(found["packed"], found["reference"], self.text)
            size = counted_bytes(save(packed, Path(place) / "model", allocation=allocation, measured=measured))
        values: dict[str, Any] = {
            **asdict(found["packed"]),
            "reference_loss": found["reference"].loss,
            "bytes": size if allocation.provenance["scope"] == "model" else -(-allocation.certificate.used_bits // 8),
            "file_bytes": size,
            "pack_seconds": pack_seconds,
            "evaluate_seconds": evaluate_seconds,
            "solver": allocation.solver,
        }
        folder.keep("packings", self.key, values)


def allocation_key(game: str, allocation: Allocation) -> str:
    """A name that all equal allocations of one game share, whoever found them."""
    choices = hashlib.blake2b(allocation.choices.tobytes(), digest_size=8).hexdigest()
    return key_of([game, list(allocation.strategies), choices])


def _thinned(trace: list[Mapping[str, float]]) -> list[dict[str, float]]:
    """At most so many records of a trace, the last one among them, each with its number."""
    step = -(-len(trace) // _TRACE) or 1
    kept = sorted({*range(0, len(trace), step), *([len(trace) - 1] if trace else [])})
    return [{"iteration": number, **trace[number]} for number in kept]
