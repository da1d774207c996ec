"""The methods of the document that nash-swarm started from: as they were, and the same weights when everything counts.

    python benchmarks/original/run.py MODEL -o REPORT [--text TEXT] [--length 512] [--windows 16] [--eval-windows 16]
        [--solvers nash,quantile,uniform] [--bits 3,4] [--seed 0] [--jobs 1] [--backend loky] [-q]

MODEL is anything `nash-swarm bench` takes. Writes the same report as that command, with a protocol of rows for each
accounting, then packed models of the solvers and budgets. A run that was killed goes on in its folder.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from methods import METHODS, Method, Rounding, linears, round_linears
from padding import LENGTH, Padded, pad_passages, padded_gradients, padded_loss

from nash_swarm.errors import DataError, NashSwarmError, UsageError
from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.files.values import record
from nash_swarm.models.source import Source
from nash_swarm.models.tasks import NextToken, task_of
from nash_swarm.suite.folder import ReportFolder, check_report_folder, key_of
from nash_swarm.suite.record import library_versions, versions_text
from nash_swarm.suite.results import Results
from nash_swarm.suite.rows import Row, loss_figures, size_figures
from nash_swarm.suite.running import run
from nash_swarm.suite.settings import Settings
from nash_swarm.suite.sources import Texts, identity_of, source_of
from nash_swarm.suite.writing import write_report

ORIGINAL, COUNTED = "original", "original, all counted"
"""Protocols of rows: as the document counted and measured, and the same weights as this project does."""


def run_original(settings: Settings, out: Path, **sharing: Any) -> Results:
    """Rows of the document's methods under both accountings, then packed models of `settings`.

    Each method has two rows. In the first, size is that of the rounded matrices' codes alone, and the loss is over
    passages padded to 64 tokens, padding included. In the second, the same rounded weights: size is the least that a
    file with all of it can take (codes, the widths' entropy, scales, everything else in 16 bits), and the loss is that
    of the suite, over windows without padding. A method that an earlier run has finished is not run again.

    Args:
        settings: models, texts, seed, and the budgets and solvers of the packed models.
        out: folder of the report.
        sharing: see `nash_swarm.suite.running.run`.

    Raises:
        UsageError, BudgetError, DataError: see there; or a model is no causal language model, has no `nn.Linear`, no
            tokenizer, or does not fit into memory.
    """
    started = time.perf_counter()
    check_report_folder(out)
    settings.check()
    texts = Texts.of(settings)
    folder = ReportFolder(out)
    rows: list[Row] = []
    for name in settings.models:
        source, reference = source_of(name, settings.trust_remote_code)
        _check(source)
        rows += _Protocol(settings, folder, source, reference, texts).rows()
    ours = run(settings, out, **sharing)
    return replace(ours, rows=(*rows, *ours.rows), facts={**ours.facts, "seconds": time.perf_counter() - started})


def _check(source: Source) -> None:
    if not isinstance(task_of(source.model), NextToken):
        raise UsageError(f"{source.name} is no causal language model; the original protocol predicts the next token")
    if any(parameter.is_meta for parameter in source.model.parameters()):
        raise UsageError(f"{source.name} does not fit into memory, and the original protocol needs it there")


class _Protocol:
    """The document's methods on one model."""

    def __init__(self, settings: Settings, folder: ReportFolder, source: Source, reference: Any, texts: Texts) -> None:
        self.settings, self.folder, self.source = settings, folder, source
        self.reference, self.text = reference, texts.evaluation
        self.padded = pad_passages(self.text, source.tokenizer, settings.seed)
        self.windows = texts.evaluation_windows(settings, source)
        self._before: tuple[float, Evaluation] | None = None
        self._gradients: dict[str, torch.Tensor] | None = None

    def rows(self) -> Iterator[Row]:
        """Two rows for each method."""
        identity = identity_of(self.source.model)
        for method in METHODS:
            key = key_of([
                ORIGINAL, self.source.name, identity, method.name, self.settings.seed, self.text.source,
                self.text.digest, self.padded.ids.tolist(), self.windows.tolist(), library_versions(),
            ])  # fmt: skip
            kept = self._kept(key)
            if kept is None:
                kept = self._run(method, key)
                self.folder.keep("cells", key, {"rows": [asdict(row) for row in kept]})
            yield from kept

    def _kept(self, key: str) -> list[Row] | None:
        try:
            return [record(Row, values) for values in (self.folder.find("cells", key) or {})["rows"]]
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


def main() -> None:
    arguments = _arguments()
    settings = Settings(
        tuple(arguments.models), text=arguments.text, length=arguments.length, windows=arguments.windows,
        eval_windows=arguments.eval_windows, seed=arguments.seed,
        quantizers=(arguments.quantizer,), group_size=arguments.group_size,
        solvers=tuple(arguments.solvers.split(",")), bits=tuple(float(bits) for bits in arguments.bits.split(",")),
    )  # fmt: skip
    command = shlex.join(["python", "benchmarks/original/run.py", *sys.argv[1:]])
    try:
        results = run_original(
            settings, arguments.output, jobs=arguments.jobs, backend=arguments.backend, command=command,
            quiet=arguments.quiet,
        )  # fmt: skip
        write_report(results, arguments.output, overwrite=True)
    except NashSwarmError as error:
        raise SystemExit(f"{error}") from None
    print(f"{len(results.rows)} rows; open {arguments.output / 'report.html'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the report")
    parser.add_argument(
        "--text", default=Settings.text, help="text that losses are of, and packed models calibrated on"
    )
    parser.add_argument("--length", type=int, default=Settings.length, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=Settings.windows, help="of calibration")
    parser.add_argument("--eval-windows", type=int, default=Settings.eval_windows, help="that losses are of")
    parser.add_argument("--solvers", default="nash,quantile,uniform", help="of the packed models")
    parser.add_argument("--bits", default="3,4", help="of the packed models")
    parser.add_argument("--quantizer", default=Settings.quantizers[0], help="of the packed models")
    parser.add_argument("--group-size", type=int, default=Settings.group_size, help="of the packed models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--backend", default="loky")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    return parser.parse_args()


if __name__ == "__main__":
    main()
