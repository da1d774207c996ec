"""Digests of games, allocations and packed files: whether a change of the code has changed any byte of them.

    python benchmarks/golden.py [--model smollm2] --json benchmarks/results/golden.json
    python benchmarks/golden.py [--model smollm2] --check benchmarks/results/golden.json
    python benchmarks/golden.py --only gpt2 --check benchmarks/results/golden.json

Tiny random models are measured, solved, packed, saved and loaded by each damage estimator at several granularities,
through the public functions of nash_swarm alone. The SHA-256 of the damage table, the memory table, the choices of
the allocation, `model.safetensors` and the loaded model's logits of 16 tokens are printed. `--model smollm2` compresses
SmolLM2 to 3.5 bits per parameter, too. `--only` leaves out the other tiny models; without names, all of them.

`--check` compares with the file of an earlier run: exit code 1 if a digest differs, 2 if the processor or the versions
are others, whose digests need not agree: sums of floating-point numbers are taken in another order there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
import transformers
from reporting import origin, own_file, write_json

import nash_swarm as ns

VOCABULARY = 101
PACKAGES = ("torch", "transformers", "numpy", "numba")
ESTIMATORS = ("fisher", "activation")
BITS = 7.5
"""Per parameter, of tiny models: report, configuration and padding take about half of that."""
Digests = dict[str, str]


class Bytes:
    """As much of a tokenizer as cutting windows needs: one token a byte."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [byte % VOCABULARY for byte in text.encode()]}


_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_PLAIN: dict[str, Any] = {
    **_COMMON, "hidden_size": 72, "intermediate_size": 136, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
_LLAMA: dict[str, Any] = {**_PLAIN, "num_key_value_heads": 2, "head_dim": 18}
_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "shared_expert_intermediate_size": 56,
    "decoder_sparse_step": 1,
}  # fmt: skip
_GPT2: dict[str, Any] = {**_COMMON, "n_positions": 64, "n_embd": 72, "n_layer": 2, "n_head": 4}
TINY: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_LLAMA, tie_word_embeddings=False)),
    "llama-tied": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT2)),
    "gpt-neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**_PLAIN)),
    "qwen2-moe": lambda: transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**_LLAMA, **_EXPERTS)),
}
"""Untied and tied heads, Conv1D, matrices with biases, fused experts; sizes are no multiples of 16 or 32."""


def tiny_model(name: str) -> Any:
    """The model of that name in eval mode, its weights and biases random but the same each time."""
    torch.manual_seed(0)
    model = TINY[name]().eval()
    for parameter_name, parameter in model.named_parameters():
        # transformers starts biases at zero, where a lost one would not be noticed
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def documents() -> list[str]:
    """Texts of words that are some letters long, the same each time."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(1, 9))) for _ in range(200)]
    return [" ".join(rng.choice(words, 120)) for _ in range(8)]


def digest(values: Any) -> str:
    """SHA-256 of an array: its kind, its shape and its numbers."""
    array = np.ascontiguousarray(values)
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    found.update(array.tobytes())
    return found.hexdigest()


def of_folder(folder: Path) -> Digests:
    """Digests of a saved model: of its weights' file, and of its logits once it is loaded."""
    with warnings.catch_warnings():
        # how quickly it generates does not matter here
        warnings.filterwarnings("ignore", message=".* generates text module by module")
        model = ns.load(folder)
    tokens = np.random.default_rng(1).integers(0, model.config.vocab_size, (1, 16))
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens), use_cache=False).logits
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"model.safetensors": weights, "logits": digest(logits.float().numpy())}


def granularities(name: str) -> tuple[str, ...]:
    """What agents of the tiny model of that name are."""
    return ("tile", "block", "layer", "parameter") if name == "llama" else ("tile", "block")


def of_tiny(name: str) -> Iterator[tuple[str, str]]:
    """The digests of a tiny model, by what they are of."""
    model = tiny_model(name)
    for damage in ESTIMATORS:
        for granularity in granularities(name):
            game = ns.measure(
                model, Bytes(), text=documents(), damage=damage, granularity=granularity, windows=4, length=48,
                levels="uniform" if granularity == "parameter" else None, quiet=True,
            )  # fmt: skip
            allocation = ns.solve(game, bits=BITS, quiet=True)
            found = {
                "damage": digest(game.damage), "memory": digest(game.memory), "choices": digest(allocation.choices),
            }  # fmt: skip
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place) / "packed"
                ns.save(ns.pack(model, allocation, quiet=True), folder)
                found |= of_folder(folder)
            yield from ((f"{name}/{damage}/{granularity}/{part}", value) for part, value in found.items())


def of_smollm2() -> Iterator[tuple[str, str]]:
    """The digests of SmolLM2, compressed in little time."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "packed"
        made = ns.compress("smollm2", out=folder, bits=3.5, effort="fast", windows=4, eval_windows=0, quiet=True)
        found = {"choices": digest(made.allocation.choices), **of_folder(folder)}
    yield from ((f"smollm2/fisher/tile/{part}", value) for part, value in found.items())


def digests(names: Sequence[str]) -> Digests:
    """The digests of these models, on one thread, printed as they come."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: Digests = {}
    try:
        for name in names:
            begun = time.perf_counter()
            for part, value in of_smollm2() if name == "smollm2" else of_tiny(name):
                found[part] = value
                print(value, part, flush=True)
            print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        torch.set_num_threads(threads)
    return found


def conditions() -> dict[str, Any]:
    """What the digests depend on beside the code, and which code it was."""
    values = origin(*PACKAGES)
    processor = values["machine"]["processor"] or values["machine"]["architecture"]
    values["machine"] |= {
        "processor": f"{processor} ({llvm.get_host_cpu_name()})", "instructions": _instructions(),
    }  # fmt: skip
    return values


def strangers(kept: dict[str, Any]) -> list[str]:
    """How the processor and the versions of another run's `conditions` differ from those here, a sentence each."""
    here = conditions()
    keys = [("machine", "processor"), ("machine", "instructions"), *(("versions", name) for name in PACKAGES)]
    return [
        f"{key}: {kept[kind].get(key)} there, {here[kind][key]} here"
        for kind, key in keys
        if kept[kind].get(key) != here[kind][key]
    ]


def differences(found: Digests, kept: Digests) -> list[str]:
    """What the digests that differ or are missing on one side are of; models that did not run now are left out."""
    models = {part.split("/")[0] for part in found}
    wanted = {part: value for part, value in kept.items() if part.split("/")[0] in models}
    return [part for part in {**wanted, **found} if found.get(part) != wanted.get(part)]


def _instructions() -> str:
    """Those of the kernels and of torch."""
    features = llvm.get_host_cpu_features()
    best = "avx512vnni" if features.get("avx512vnni") else "avx2" if features.get("avx2") else "generic"
    kernels = os.environ.get("NASH_SWARM_KERNELS") or best
    return f"kernels {kernels}, torch {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    arguments = _arguments()
    kept = None if arguments.check is None else json.loads(arguments.check.read_text(encoding="utf-8"))
    if kept is not None and (lines := strangers(kept)):
        print(f"{arguments.check} cannot be compared with: digests of other processors and versions need not agree")
        print("\n".join(lines))
        sys.exit(2)
    names = list(TINY) if arguments.only is None else arguments.only
    found = digests([*names, *([arguments.model] if arguments.model else [])])
    write_json(arguments.json, {**conditions(), "digests": found})
    if kept is None:
        return
    differing = differences(found, kept["digests"])
    print("\n".join(f"differs: {part}" for part in differing) or f"all {len(found)} digests agree")
    sys.exit(1 if differing else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2"], help="in addition to tiny ones; takes minutes")
    parser.add_argument("--only", nargs="*", choices=list(TINY), metavar="NAME", help=f"of {', '.join(TINY)}")
    parser.add_argument("--json", type=own_file("benchmarks/golden.py"))
    parser.add_argument("--check", type=Path, metavar="FILE", help="written by --json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
