"""Small packed models whose modules are fused, the same with their own code, and what both compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

import nash_swarm as ns
from nash_swarm.engine.decoder import FusedDecoder
from nash_swarm.engine.fused import Fused
from support.models import allocate

LAYERS, HIDDEN, HEAD, KEY_HEADS = 2, 96, 32, 2
DECODER = FusedDecoder
Config = type[transformers.PreTrainedConfig]


def pack(model: Any) -> Any:
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    return ns.pack(model, allocate(game), quantizer="rtn", quiet=True)


def build(config: Config = transformers.LlamaConfig, **settings: Any) -> Any:
    """A model whose sizes are the kernels', with biases where its kind has them."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 101, "hidden_size": HIDDEN, "intermediate_size": 160, "num_hidden_layers": LAYERS,
        "num_attention_heads": 3 * KEY_HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD,
        "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": None,
        "pad_token_id": 0,
    }  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config(**(sizes | settings))).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return model


def fused(model: Any) -> list[Fused]:
    return [module for module in model.modules() if isinstance(module, Fused)]


@contextmanager
def unfused(model: Any, kind: type[Fused] = Fused) -> Iterator[None]:
    """Every module of a kind with its own `forward` alone."""
    kinds = [(module, type(module)) for module in fused(model) if isinstance(module, kind)]
    for module, kind in kinds:
        module.__class__ = kind.__bases__[1]
    yield
    for module, kind in kinds:
        module.__class__ = kind


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(2, 101, shape, generator=torch.Generator().manual_seed(1))


def steps(model: Any, cache: Any, tokens: int = 6) -> torch.Tensor:
    """Logits of tokens read one by one after a prompt of five."""
    text = ids(1, 5 + tokens)
    with torch.no_grad():
        model(text[:, :5], past_key_values=cache)
        return torch.cat([model(text[:, 5 + t : 6 + t], past_key_values=cache).logits for t in range(tokens)])


def close(found: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=share * float(expected.abs().max()))


def after(model: Any, cache: Any, **options: Any) -> torch.Tensor:
    """Logits of one more token."""
    with torch.no_grad():
        logits: torch.Tensor = model(ids(1, 1), past_key_values=cache, **options).logits
    return logits


def states(cache: Any) -> list[torch.Tensor]:
    return [each.clone() for layer in cache.layers for each in (layer.keys, layer.values)]


def equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))
