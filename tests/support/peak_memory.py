"""Compresses a random Llama of 36 blocks in memory or from disk; prints the rise of this process's peak memory."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
import transformers

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import WEIGHTS
from nash_swarm.models.offload import offloaded
from nash_swarm.models.source import Source, load_source
from nash_swarm.suite.memory import forget_peak, peak_memory
from support.bench import make_bench


def make(folder: Path) -> None:
    bench = make_bench(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=500, hidden_size=384, intermediate_size=1024, num_hidden_layers=36, num_attention_heads=6,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).half()
    model.save_pretrained(folder / "large", max_shard_size="10MB")
    transformers.AutoTokenizer.from_pretrained(bench.model).save_pretrained(folder / "large")


def compress(folder: Path, kind: str) -> dict[str, object]:
    common = {
        "bits": 4, "damage": "activation", "quantizer": "rtn", "strategies": (3, 8), "text": str(folder / "text.txt"),
        "windows": 2, "eval_windows": 0, "contest": False, "overwrite": True, "quiet": True,
    }  # fmt: skip
    # libraries, and compiled kernels
    ns.compress(str(folder / "model"), out=folder / f"small-{kind}", **common)  # type: ignore[arg-type]
    forget_peak()
    before = peak_memory()
    large = folder / "large"
    if kind == "memory":
        source = load_source(str(large))
    else:
        model = offloaded(large, transformers.AutoConfig.from_pretrained(large), folder)
        source = Source(model, transformers.AutoTokenizer.from_pretrained(large), "large")
    ns.compress(source, out=folder / "out", **common)  # type: ignore[arg-type]
    return {
        "peak": peak_memory() - before,
        "parameters": sum(parameter.numel() for parameter in source.model.parameters()),
        "digest": hashlib.blake2b((folder / "out" / WEIGHTS).read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if not (Path(sys.argv[1]) / "large").exists():
        make(Path(sys.argv[1]))
    print(json.dumps(compress(Path(sys.argv[1]), sys.argv[2])))
