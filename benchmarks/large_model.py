"""A model larger than memory: a random Llama is written to disk and compressed block by block.

    python benchmarks/large_model.py work             # 13.5 GB in float16, as large as Llama-2-7B; within 6 GB
    python benchmarks/large_model.py work --hidden 256 --intermediate 688 --layers 4 --max-memory 1.1GB

Writes ``work/model`` and ``work/packed``, 16.4 GB together (the second line some MB, to see that it works), and says
what compressing and reloading took, each in a process of its own so that its peak memory is its own. It is about
memory, not quality: weights are random, widths 3 and 4, one window of text, damage `activation` and rounding to
nearest, which are the cheapest. `--json FILE` writes the same figures under the same names.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import torch
from reporting import new_file, new_folder, origin, write_json
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

SHARD = 1_800_000_000
_MEASURED = """
import json, sys, time
from nash_swarm.suite.memory import peak_memory
{code}
print(json.dumps(values | {{"peak_bytes": peak_memory(), "processor_seconds": time.process_time()}}))
"""
_COMPRESS = """
import nash_swarm as ns
done = ns.compress(sys.argv[1], out=sys.argv[2], bits=3.5, damage="activation", quantizer="rtn", strategies=(3, 4),
                   windows=1, eval_windows=0, contest=False, max_memory=sys.argv[3], overwrite=True)
values = {"file_bytes": done.file_bytes, "bits_per_parameter": done.bits_per_parameter}
"""
_RELOAD = """
import torch
import nash_swarm as ns
with torch.no_grad():
    logits = ns.load(sys.argv[1])(torch.arange(3, 19)[None]).logits
values = {"logits_finite": bool(torch.isfinite(logits).all())}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """Of a few hundred tokens, trained on CPython's documentation."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator((topics.topics[name] for name in sorted(topics.topics)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="<unk>", eos_token="<eos>")


def tensors(config: LlamaConfig, rng: np.random.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and weights in float16: normal with deviation 0.02, gains of norms 1."""
    hidden, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size

    def random(*shape: int) -> torch.Tensor:
        return torch.from_numpy((rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)).astype(np.float16))

    yield "model.embed_tokens.weight", random(vocabulary, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            yield f"{prefix}self_attn.{name}_proj.weight", random(hidden, hidden)
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            yield f"{prefix}mlp.{name}_proj.weight", random(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", torch.ones(hidden, dtype=torch.float16)
    yield "model.norm.weight", torch.ones(hidden, dtype=torch.float16)
    yield "lm_head.weight", random(vocabulary, hidden)


def write_model(config: LlamaConfig, folder: Path) -> int:
    """The model in shards; returns bytes of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    shard: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}
    total = 0

    def flush() -> None:
        file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in tensors(config, np.random.default_rng(0)):
        shard[name] = tensor
        total += tensor.nbytes
        if sum(part.nbytes for part in shard.values()) > SHARD:
            flush()
    if shard:
        flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return total


def measured(code: str, *arguments: object) -> dict[str, Any]:
    """What the code calls `values`, with its peak memory, seconds and processor seconds, in a process of its own."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED.format(code=code), *map(str, arguments)], stdout=subprocess.PIPE, check=True
    )
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values | {"seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=new_folder)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--max-memory", default="6GB")
    parser.add_argument("--json", metavar="FILE", type=new_file)
    chosen = parser.parse_args()
    config = LlamaConfig(
        vocab_size=chosen.vocabulary, hidden_size=chosen.hidden, intermediate_size=chosen.intermediate,
        num_hidden_layers=chosen.layers, num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=2048,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=1, dtype="float16",
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    model, packed = chosen.folder / "model", chosen.folder / "packed"
    values = {
        "weight_bytes": write_model(config, model),
        "compress": measured(_COMPRESS, model, packed, chosen.max_memory),
        "reload": measured(_RELOAD, packed),
    }
    print(f"weights: {values['weight_bytes']:,} bytes")
    for stage in ("compress", "reload"):
        print(f"{stage}: {json.dumps(values[stage])}")
    write_json(chosen.json, {**origin("torch", "transformers"), **values})


if __name__ == "__main__":
    main()
