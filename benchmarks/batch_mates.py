"""Whether a sequence's logits depend on what else is computed: batch mates, padding, gradients, threads.

    nash-swarm compress smollm2 --bits 4.0 --solver lagrangian --damage magnitude --quantizer rtn --effort fast \
        --no-baselines -o smollm2-normal
    python benchmarks/batch_mates.py smollm2-normal --json benchmarks/results/batch_mates.json

Sequences of held-out text are read as a prompt and then token by token, first each alone on one thread without
gradients, and then in every other way. For each way: the largest difference of a logit, the mean KL, and the seconds
that it took. All is done with the modules of a loaded model and once more with transformers' own code in their place,
which is how models go whose code is not known; `int8 against fp32` is what rounding itself does to a sequence alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reporting import origin, own_file, write_json
from transformers import AutoTokenizer, DynamicCache

import nash_swarm as ns
from nash_swarm.calibration.text import cut_windows, load_text
from nash_swarm.engine.fused import Fused, take_away
from nash_swarm.quantizers.runtime.modules import PackedLinear

PADDING = (13, 30, 1)
"""Tokens by which the longest mate is longer, sequence after sequence."""
Row = dict[str, Any]


@dataclass
class Difference:
    """Of logits from those of the sequences alone."""

    largest: float = 0.0
    divergences: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, found: torch.Tensor, expected: torch.Tensor) -> None:
        """Logits (tokens, vocabulary) of one sequence."""
        self.largest = max(self.largest, float((found - expected).abs().max()))
        p, q = expected.double().log_softmax(-1), found.double().log_softmax(-1)
        self.divergences += (p.exp() * (p - q)).sum(-1).tolist()


def read(model: Any, rows: list[torch.Tensor], new: int, side: str = "left", gradients: bool = False) -> torch.Tensor:
    """Logits of the first sequence, (tokens, vocabulary); its last `new` are read one by one unless padding follows."""
    longest, own = max(map(len, rows)), len(rows[0])
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.int64), torch.zeros(len(rows), longest, dtype=torch.int64)
    for k, row in enumerate(rows):
        place = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        ids[k, place], mask[k, place] = row, 1
    places, cache = (mask.cumsum(1) - 1).clamp(min=0), DynamicCache(config=model.config)
    prompt = longest - (new if side == "left" else 0)
    found, first = [], 0
    with torch.set_grad_enabled(gradients):
        for past in (prompt, *range(prompt + 1, longest + 1)):
            out = model(
                ids[:, first:past], attention_mask=mask[:, :past], position_ids=places[:, first:past],
                past_key_values=cache,
            )  # fmt: skip
            found.append(out.logits[0].detach().clone())
            first = past
    logits = torch.cat(found)
    return logits[longest - own :] if side == "left" else logits[:own]


@contextmanager
def own_code(model: Any, wanted: bool) -> Iterator[None]:
    """Transformers' own modules, if they are wanted, as long as the context lasts."""
    kinds = [(module, type(module)) for module in model.modules() if wanted and isinstance(module, Fused)]
    for module, _ in kinds:
        take_away(module)
    try:
        yield
    finally:
        for module, kind in kinds:
            module.__class__ = kind


def ways(
    model: Any, sequence: torch.Tensor, mates: list[torch.Tensor], padding: int, new: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Logits of the sequence in every way, by name."""
    tokens = len(sequence)
    equal, longer = [mate[:tokens] for mate in mates], [mate[: tokens + padding - k] for k, mate in enumerate(mates)]
    yield "batch, equal lengths", read(model, [sequence, *equal], new)
    yield "batch, padded on the left", read(model, [sequence, *longer], new)
    # where padding follows, nothing can be read after it
    prompt = tokens - new
    alone = read(model, [sequence[:prompt]], 0)
    right = read(model, [sequence[:prompt], *longer], 0, side="right")
    yield "batch, prompt padded on the right", torch.cat([right - alone, torch.zeros(new, alone.shape[-1])])
    yield "gradients recorded", read(model, [sequence], new, gradients=True)
    torch.set_num_threads(2)
    yield "two threads", read(model, [sequence], new)
    torch.set_num_threads(1)


def measure(model: Any, sequences: list[torch.Tensor], mates: list[list[torch.Tensor]], new: int) -> list[Row]:
    """A row for each kind of activations, each code, and each way."""
    rows, exact = [], []
    for activations in ("fp32", "int8", "int16"):
        ns.set_activations(model, "int8" if activations == "int16" else activations)
        if activations == "int16":
            for module in model.modules():
                if isinstance(module, PackedLinear):
                    module.activations = "int16"
        for own in (False, True):
            found: dict[str, Difference] = {}
            with own_code(model, own):
                for k, sequence in enumerate(sequences):
                    alone = read(model, [sequence], new)
                    if activations == "fp32" and not own:
                        exact.append(alone)
                    elif not own:
                        found.setdefault(f"{activations} against fp32", Difference()).add(alone, exact[k])
                    begun = time.perf_counter()
                    for name, logits in ways(model, sequence, mates[k], PADDING[k % len(PADDING)], new):
                        shift = alone if "right" in name else 0
                        difference = found.setdefault(name, Difference())
                        difference.seconds += time.perf_counter() - begun
                        difference.add(logits + shift, alone)
                        begun = time.perf_counter()
            for name, difference in found.items():
                kl = sum(difference.divergences) / len(difference.divergences)
                row = {
                    "activations": activations, "code": "transformers" if own else "nash-swarm", "way": name,
                    "largest": difference.largest, "kl": max(kl, 0.0), "seconds": difference.seconds,
                }  # fmt: skip
                rows.append(row)
                print(
                    " | ".join(f"{value:.2e}" if isinstance(value, float) else value for value in row.values()),
                    flush=True,
                )
    return rows


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    model = ns.load(arguments.model)
    text = load_text(arguments.text)
    longest = arguments.tokens + max(PADDING)
    windows = cut_windows(text, AutoTokenizer.from_pretrained(arguments.model), length=longest, part="held-out")
    rows = [torch.from_numpy(window.astype("int64")) for window in windows]
    count, others = arguments.sequences, arguments.batch - 1
    if len(rows) < count + others:
        raise SystemExit(f"the text has {len(rows)} windows of {longest} tokens; {count + others} are needed")
    sequences = [row[: arguments.tokens] for row in rows[:count]]
    mates = [(rows[count:] + rows[count:])[k : k + others] for k in range(count)]
    values = {
        **origin("torch", "transformers", "numba"),
        "model": str(arguments.model), "bits": _bits(model), "text": text.source, "sequences": count,
        "tokens": arguments.tokens, "one by one": arguments.new, "batch": arguments.batch,
        "rows": measure(model, sequences, mates, arguments.new),
    }  # fmt: skip
    write_json(arguments.json, values)


def _bits(model: Any) -> float:
    layouts = [(module.layout.weights, len(module.packed)) for module in model.modules() if hasattr(module, "packed")]
    return 8 * sum(size for _, size in layouts) / sum(weights for weights, _ in layouts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="of a sequence")
    parser.add_argument("--new", type=int, default=4, help="of its tokens that are read one by one")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=own_file("benchmarks/batch_mates.py"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
