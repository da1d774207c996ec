"""Stage four, optional: a packed model is trained, on its grid, to say what the original says."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm import arguments
from nash_swarm.artifacts.accounting import half_dtype
from nash_swarm.calibration.streaming import check_tokens, token_windows
from nash_swarm.caveats import counted
from nash_swarm.errors import DataError
from nash_swarm.models.memory import return_unused_memory
from nash_swarm.models.reference import ReferenceModel
from nash_swarm.progress import Work, working
from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.formats.native.layout import TILE_ROWS, TensorLayout
from nash_swarm.quantizers.runtime.modules import PackedWeight
from nash_swarm.recipe import Tuning
from nash_swarm.tuning.divergence import divergence
from nash_swarm.tuning.latent import Adam
from nash_swarm.tuning.precision import compute_dtype
from nash_swarm.tuning.student import Student


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned model and how it came about.

    Attributes:
        packed: the tuned model; of the same layout, widths and bytes as the one it came from.
        history: held-out KL to the original, nats per token, by step; computed in the precision of tuning.
        step: the one that was kept.
        precision: what was computed in, "bfloat16" or "float32".
        tokens: held-out tokens that `history` is a mean over.
    """

    packed: Any
    history: dict[int, float]
    step: int
    precision: str
    tokens: int


def tune(
    model: Any,
    packed: Any,
    tokens: npt.NDArray[np.int32],
    settings: Tuning | None = None,
    *,
    seed: int = 0,
    quiet: bool = False,
) -> Tuned:
    """Train a packed model's scales, zero-points, norm gains and biases against KL to the original.

    Distillation on the grid: what the model multiplies with is what the packed file can hold at every step. Widths,
    agents and bytes stay. The state with the least KL on held-out windows is kept, the first one included, so that on
    those windows tuning never makes a model worse.

    Args:
        model: the original model, float32, or its `ReferenceModel`; not changed.
        packed: a packed model of it, from `pack` or `load`; not changed.
        tokens: calibration token ids (windows, length).
        settings: how; `Tuning()` if not given.
        seed: of the order of windows.
        quiet: no progress bar.

    Raises:
        UsageError: the model is not in memory, its output head is not a plain one, or every weight has a width of its
            own.
        DataError: fewer than two windows, or tokens outside the vocabulary.
    """
    reference = ReferenceModel.of(model)
    arguments.model(packed)
    arguments.whole("seed", seed, 0)
    tokens = token_windows(tokens)
    settings = settings or Tuning()
    reference.require_in_memory("tuning")
    return_unused_memory()
    check_tokens(tokens, reference.model)
    if len(tokens) < 2:
        raise DataError("tuning needs at least two calibration windows: one to train on, one to judge by")
    rng = np.random.default_rng(seed)
    windows = torch.from_numpy(tokens.astype(np.int64))[torch.from_numpy(rng.permutation(len(tokens)))]
    aside = max(1, round(settings.held_out * len(windows)))
    with working(settings.steps, label="tune", unit="step", quiet=quiet) as work:
        run = _Run(reference.model, packed, windows[aside:], windows[:aside], settings, rng)
        run.train(work)
    precision = str(run.student.dtype).removeprefix("torch.")
    return Tuned(run.result(packed), run.history, run.kept, precision, run.held_out.numel())


class _Run:
    def __init__(
        self,
        model: Any,
        packed: Any,
        train: torch.Tensor,
        held_out: torch.Tensor,
        settings: Tuning,
        rng: np.random.Generator,
    ) -> None:
        self.settings, self.rng, self.train_windows, self.held_out = settings, rng, train, held_out
        self.student = Student(model, compute_dtype(settings.precision))
        self._taught = [self._hidden(part) for part in (train, held_out)]
        self.student.become(packed, model)
        self._dense = self.student.masters
        groups = [{"params": [m], "size": float(m.square().mean().sqrt())} for m in self._dense.values()]
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95)) if groups else None
        self._whole_from = round(settings.between * settings.steps)
        self.history: dict[int, float] = {}
        self.kept = 0

    def train(self, work: Work) -> None:
        """All steps, with a look at the held-out windows every now and then."""
        settings = self.settings
        order: list[int] = []
        self._look(0, work)
        for step in range(settings.steps):
            if len(order) < settings.batch:
                order += self.rng.permutation(len(self.train_windows)).tolist()
            chosen, order = order[: settings.batch], order[settings.batch :]
            if step == self._whole_from:
                self.student.round_scales(True)
            self._step(chosen, settings.rate(step))
            work.update()
            if (step + 1) % settings.check == 0 or step + 1 == settings.steps:
                self._look(step + 1, work)

    def result(self, packed: Any) -> Any:
        """The packed model with the state that was kept."""
        tuned = copy.deepcopy(packed)
        for name, rounded in self._best.items():
            module = tuned.get_submodule(name)
            assert isinstance(module, PackedWeight)
            layout, before = module.layout, module.tensor()
            assert isinstance(layout, TensorLayout)
            corners = before.widths[:: layout.rows_per_agent // TILE_ROWS, :: layout.groups_per_agent]
            tensor = layout.format.pack(rounded, corners.ravel(), layout, before.permutation, module.strategies)
            module.packed = torch.from_numpy(tensor.buffer)
        state = tuned.state_dict()
        for name, values in self._best_dense.items():
            state[name].copy_(values.to(half_dtype(state[name])))
        return tuned

    def _step(self, chosen: list[int], rate: float) -> None:
        student, settings = self.student, self.settings
        # one after the other: activations of a batch are most of the memory that tuning takes
        for window in chosen:
            hidden = student.hidden(self.train_windows[window : window + 1])
            found = divergence(
                hidden, student.head, self._taught[0][window : window + 1], student.original,
                gradient=True, train_head=student.trains_head,
            )  # fmt: skip
            assert found.hidden is not None
            hidden.backward(found.hidden / len(chosen))
            if found.weight is not None:
                student.add_head_gradient(found.weight / len(chosen))
        student.step(Adam(settings.scales * rate, settings.zeros * rate))
        if self._optimizer is not None:
            parameters = dict(student.model.named_parameters())
            for name, master in self._dense.items():
                gradient = parameters[name].grad
                master.grad = None if gradient is None else gradient.float()
                parameters[name].grad = None
            for group in self._optimizer.param_groups:
                group["lr"] = settings.dense * rate * group["size"]
            self._optimizer.step()
        student.refresh()

    @torch.no_grad()
    def _look(self, step: int, work: Work) -> None:
        self.student.round_scales(True)
        total = 0.0
        for window, taught in zip(self.held_out, self._taught[1], strict=True):
            hidden = self.student.hidden(window[None])[0]
            total += divergence(hidden, self.student.head, taught, self.student.original, gradient=False).kl
        kl = total / len(self.held_out)
        self.history[step] = kl
        work.note(f"held-out KL {kl:.4f} on {counted(self.held_out.numel())}")
        if step < self._whole_from:
            self.student.round_scales(False)
        if kl <= min(self.history.values()):
            self.kept = step
            self._best: dict[str, Rounded] = {name: m.rounded() for name, m in self.student.matrices.items()}
            self._best_dense = {name: master.clone() for name, master in self._dense.items()}

    @torch.no_grad()
    def _hidden(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.student.hidden(part) for part in windows.split(2)])
