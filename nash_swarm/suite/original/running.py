"""`nash-swarm bench --protocol original`: the document's table as it was made, and the same when everything counts."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.text import Text, load_text, sample_windows, shortage, warn_left_out
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.models.source import Source
from nash_swarm.models.tasks import NextToken, task_of
from nash_swarm.suite.folder import ReportFolder, check_report_folder, key_of
from nash_swarm.suite.original.method import METHODS, Method, Rounding, linears, round_linears
from nash_swarm.suite.original.padding import LENGTH, Padded, pad_passages, padded_gradients, padded_loss
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, library_versions, loss_figures, size_figures, versions_text
from nash_swarm.suite.running import run
from nash_swarm.suite.settings import Settings
from nash_swarm.suite.sources import source_of, weights_digest

ORIGINAL, COUNTED = "original", "original, all counted"
"""Protocols of rows: as the document counted and measured, and the same weights as this project does."""


def run_original(
    settings: Settings,
    out: str | Path,
    *,
    jobs: int = 1,
    backend: str = "loky",
    command: str = "",
    quiet: bool = False,
) -> Results:
    """Rows of the document's methods under both accountings, then packed models of `settings`.

    Each method has two rows. In the first, size is that of the rounded matrices' codes alone, and the loss is over
    passages padded to 64 tokens, padding included. In the second, the same rounded weights: size is the least that a
    file with all of it can take (codes, the widths' entropy, scales, everything else in 16 bits), and the loss is that
    of the suite, over windows without padding. A method that an earlier run has finished is not run again.

    Args:
        settings: models, texts, seed, and the budgets and solvers of the packed models.
        out, jobs, backend, command, quiet: see `running.run`.

    Raises:
        UsageError, BudgetError, DataError: see `running.run`; or a model is no causal language model, has no
            `nn.Linear`, no tokenizer, or does not fit into memory.
    """
    started = time.perf_counter()
    check_report_folder(out)
    settings.check()
    text = load_text(settings.text, chat_template=settings.chat_template)
    eval_text = load_text(settings.eval_text, chat_template=settings.chat_template) if settings.eval_text else text
    folder = ReportFolder(out)
    rows: list[Row] = []
    for name in settings.models:
        source, reference = source_of(name, settings.trust_remote_code)
        _check(source)
        held_out = eval_text.digest == text.digest
        rows += list(_Protocol(settings, folder, source, reference, eval_text, held_out, quiet).rows())
    ours = run(settings, out, jobs=jobs, backend=backend, command=command, quiet=quiet)
    facts = {**ours.facts, "seconds": time.perf_counter() - started}
    return replace(ours, rows=(*rows, *ours.rows), facts=facts)


def _check(source: Source) -> None:
    if not isinstance(task_of(source.model), NextToken):
        raise UsageError(f"{source.name} is no causal language model; the original protocol predicts the next token")
    if any(parameter.is_meta for parameter in source.model.parameters()):
        raise UsageError(f"{source.name} does not fit into memory, and the original protocol needs it there")


class _Protocol:
    """The document's methods on one model."""

    def __init__(
        self, settings: Settings, folder: ReportFolder, source: Source, reference: Any, text: Text, held_out: bool,
        quiet: bool,
    ) -> None:  # fmt: skip
        self.settings, self.folder, self.source, self.quiet = settings, folder, source, quiet
        self.reference, self.text = reference, text
        self.padded = pad_passages(text, source.tokenizer, settings.seed)
        asked: Any = {
            "count": settings.eval_windows, "length": settings.length, "part": "held-out" if held_out else "all",
            "model": source.model,
        }  # fmt: skip
        self.windows: npt.NDArray[np.int32] = sample_windows(
            text, source.tokenizer, np.random.default_rng(settings.seed), **asked
        )
        warn_left_out(shortage(self.windows, text, **asked))
        self.weights = weights_digest(source.model)
        self._before: tuple[float, Evaluation] | None = None
        self._gradients: dict[str, torch.Tensor] | None = None

    def rows(self) -> Iterator[Row]:
        """Two rows for each method."""
        for method in METHODS:
            key = key_of([
                ORIGINAL, self.source.name, self.weights, method.name, self.settings.seed, self.text.source,
                self.text.digest, self.padded.ids.tolist(), self.windows.tolist(), dict(library_versions()),
            ])  # fmt: skip
            kept = self._kept(key)
            if kept is None:
                kept = self._run(method, key)
                self.folder.keep("cells", key, {"rows": [asdict(row) for row in kept]})
            yield from kept

    def _kept(self, key: str) -> list[Row] | None:
        try:
            return [Row.from_dict(values) for values in (self.folder.find("cells", key) or {})["rows"]]
        except (DataError, KeyError, TypeError):  # run again
            return None

    def _run(self, method: Method, key: str) -> list[Row]:
        loss, whole = self._originals()
        model = copy.deepcopy(self.source.model)
        rounding = round_linears(model, method, self._needed(method))
        padded = padded_loss(model, self.padded)
        measured = evaluate({"rounded": model}, self.windows, reference=self.reference, quiet=True)["rounded"]
        assert whole.loss is not None and measured.loss is not None  # only encoders have none
        published = {
            **size_figures(rounding.weights, rounding.theoretical_bytes), **loss_figures(padded, loss),
            "bits": round(rounding.theoretical_bits, 2), "tokens": self.padded.tokens,
            "note": _joined(self.source.note, _about(self.padded, rounding)),
        }  # fmt: skip
        counted = {
            **size_figures(rounding.parameters, rounding.least_bytes), **loss_figures(measured.loss, whole.loss),
            "bits": round(rounding.least_bytes * 8 / rounding.parameters, 2), "tokens": measured.tokens,
            "kl": measured.kl, "top1": measured.top1,
            "note": _joined(
                self.source.note,
                "the same weights; sizes are no files but the least that one could take, with the map of the widths at "
                f"its entropy; {rounding.others / rounding.parameters:.1%} of the parameters stay in 16 bits",
            ),
        }  # fmt: skip
        return [
            self._row(ORIGINAL, method, f"{key}-0", published),
            self._row(COUNTED, method, f"{key}-1", counted),
        ]

    def _originals(self) -> tuple[float, Evaluation]:
        """Loss of the padded passages, and what is measured on windows, of the model as it came."""
        if self._before is None:
            whole = evaluate({"original": self.reference}, self.windows, quiet=True)["original"]
            self._before = padded_loss(self.source.model, self.padded), whole
        return self._before

    def _needed(self, method: Method) -> Mapping[str, torch.Tensor] | None:
        if method.needs_gradient and self._gradients is None:
            self._gradients = padded_gradients(self.source.model, linears(self.source.model), self.padded)
        return self._gradients if method.needs_gradient else None

    def _row(self, protocol: str, method: Method, key: str, figures: Mapping[str, Any]) -> Row:
        return Row(
            protocol=protocol, model=self.source.name, method=method.name, scope="nn.Linear", quantizer="rtn",
            activations="fp32", seed=self.settings.seed, text=self.text.source, text_digest=self.text.digest,
            eval_text=self.text.source, eval_text_digest=self.text.digest, versions=versions_text(), key=key, **figures,
        )  # fmt: skip


def _about(padded: Padded, rounding: Rounding) -> str:
    return (
        f"sizes are of the codes of nn.Linear only, {rounding.weights / rounding.parameters:.1%} of the parameters; "
        f"{padded.padding:.1%} of the tokens in the loss are padding to {LENGTH}"
    )


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
