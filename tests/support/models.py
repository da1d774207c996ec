"""Tiny random models that have every kind of matrix: GQA Llamas, tied and untied, and GPT-2 with its Conv1D."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from nash_swarm.game import Allocation, BitGame
from nash_swarm.pipeline.solving import solve

VOCABULARY = 101
"""Odd on purpose, as are the other sizes: padding must work everywhere."""


class ByteTokenizer:
    """As much of a tokenizer as cutting windows needs: one token a byte."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [byte % VOCABULARY for byte in text.encode()]}


def tiny_llama(*, tied: bool, seed: int = 0) -> Any:
    """Two blocks of grouped-query attention; hidden size 40, no multiple of 16 or 32."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=10, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def tiny_gpt2(seed: int = 0) -> Any:
    """Two blocks whose matrices are all Conv1D, with biases, learned positions and a tied head."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=40, n_layer=2, n_head=4, initializer_range=0.2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        # transformers starts biases at zero, where a lost one would not be noticed
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: tiny_llama(tied=False),
    "tied llama": lambda: tiny_llama(tied=True),
    "gpt2": tiny_gpt2,
}


def allocate(game: BitGame, share: float = 0.5, solver: str = "greedy") -> Allocation:
    """The allocation of a budget `share` of the way from the smallest size of `game` to the largest."""
    smallest, largest = game.smallest_bits(), game.largest_bits()
    return solve(game, size=-(-int(smallest + share * (largest - smallest)) // 8), solver=solver)


def logits(model: Any, ids: npt.NDArray[np.int32]) -> torch.Tensor:
    """The model's logits for token ids (windows, length)."""
    with torch.no_grad():
        result: torch.Tensor = model(torch.from_numpy(ids.astype(np.int64)), use_cache=False).logits
    return result
