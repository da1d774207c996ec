"""AutoRound and AutoScheme (Cheng et al. 2024, arXiv 2309.05516), from PyPI: tuned rounding, widths per layer.

Settings: `width` for one width, or `bits` for AutoScheme's choice among `options` (W2A16,W3A16,W4A16,W8A16) at that
average; `iters` of tuning (0: round to nearest); `samples` of calibration. Bits count half-precision scales and
zero-points of the codes' width per row and group of 128.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from auto_round import AutoRound, AutoScheme
from transformers import AutoTokenizer

from peer_tools.exchange import Job, scaled_bits, tool_main

_GROUP = 128
_LENGTH = 512


def _texts(job: Job, tokenizer: Any) -> Path:
    """Calibration text in the form AutoRound reads; two windows a line, because it drops what comes out too short."""
    path = job.folder / "calibration.jsonl"
    tokens = job.calibration()
    lines = [tokenizer.decode(pair.reshape(-1)) for pair in tokens.split(2)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def _work(job: Job) -> None:
    settings, tokenizer = job.settings, AutoTokenizer.from_pretrained(job.model)
    samples, iters = int(settings.get("samples", 16)), int(settings.get("iters", 0))
    scheme: Any = f"W{settings.get('width', 4)}A16"
    if "bits" in settings:
        options = settings.get("options", "W2A16+W3A16+W4A16+W8A16").replace("+", ",")
        scheme = AutoScheme(
            avg_bits=float(settings["bits"]), options=options, nsamples=samples, seqlen=_LENGTH, batch_size=4,
            device_map="cpu",
        )  # fmt: skip
    rounding = AutoRound(
        job.load_model(), tokenizer=tokenizer, scheme=scheme, iters=iters, nsamples=samples, seqlen=_LENGTH,
        batch_size=4, dataset=str(_texts(job, tokenizer)), device_map="cpu", enable_torch_compile=False,
    )  # fmt: skip
    model, layers = rounding.quantize()
    weights = job.weights()
    widths = {name: int(layers[name]["bits"]) if name in layers else int(settings["width"]) for name in weights}
    # layers whose shape it does not take stay in half precision
    bits = sum(
        16 * w.numel() if widths[name] >= 16 else scaled_bits(tuple(w.shape), widths[name], _GROUP, 16 + widths[name])
        for name, w in weights.items()
    )
    done = {name: model.get_submodule(name).weight.detach() for name in weights}
    job.finish(done, bits, ["auto-round", "torch", "transformers"], widths=widths)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tool_main(_work)
