"""One engine with one model, timed whenever a line comes in: `decode.py` starts a process of it for each contestant.

    python benchmarks/speed/worker.py '["packed", "smollm2-4bit", 1, 128, 64]'

Nothing is imported before it is known which engine it is: an interpreter with llama-cpp-python needs nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def worker(kind: str, path: str, threads: int, prompt: int, new: int) -> None:
    """Say the model's bytes, then time one prompt and the tokens after it for every line that comes in."""
    size, run = (_llama if kind == "llama" else _transformers)(kind, path, threads, prompt, new)
    run(2)
    print(json.dumps({"bytes": size}), flush=True)
    for _ in sys.stdin:
        read, decode = run(new)
        print(json.dumps({"prompt": read, "decode": decode}), flush=True)


class FirstToken:
    """A streamer of transformers' that notes when the first token after the prompt is there."""

    def __init__(self) -> None:
        self._calls, self.came = 0, 0.0

    def put(self, tokens: object) -> None:
        self._calls += 1  # the prompt comes first
        if self._calls == 2:
            self.came = time.perf_counter()

    def end(self) -> None: ...


def _transformers(kind: str, path: str, threads: int, prompt: int, new: int) -> tuple[int, Any]:
    import torch

    import nash_swarm
    from nash_swarm.artifacts.packed_model import counted_bytes
    from nash_swarm.models.source import load_source

    torch.set_num_threads(threads)
    if kind == "packed":
        model, size = nash_swarm.load(path), counted_bytes(path)
    else:
        model = load_source(path).model.to(getattr(torch, kind))
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    ids = torch.arange(1000, 1000 + prompt)[None]
    # no token ends the text early: `min_new_tokens` would add a pass over the vocabulary to every step
    model.generation_config.eos_token_id = None

    def run(tokens: int) -> tuple[float, float]:
        first, start = FirstToken(), time.perf_counter()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=1 + tokens, do_sample=False, pad_token_id=0,
            streamer=first,
        )  # fmt: skip
        return first.came - start, time.perf_counter() - first.came

    return size, run


def _llama(kind: str, path: str, threads: int, prompt: int, new: int) -> tuple[int, Any]:
    import ctypes

    import llama_cpp
    import numpy as np

    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = 2 * (prompt + new), prompt, min(prompt, 512)
    settings.n_threads = settings.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, settings)
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(tokens: list[int]) -> int:
        memory = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(memory, len(tokens))):
            raise RuntimeError("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (words,)).argmax())

    def run(tokens: int) -> tuple[float, float]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        token = decode(list(range(1000, 1000 + prompt)))
        read = time.perf_counter()
        for _ in range(tokens):
            token = decode([token])
        return read - start, time.perf_counter() - read

    return Path(path).stat().st_size, run


if __name__ == "__main__":
    worker(*json.loads(sys.argv[1]))
