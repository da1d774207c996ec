"""docs/architectures.md says what works with which architecture: every row is held against what happens."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.architectures import ARCHITECTURES, VOCABULARY, Small

import nash_swarm as ns
from nash_swarm.engine.attention import FusedAttention
from nash_swarm.engine.decoder import FusedDecoder
from nash_swarm.engine.gated import FusedMlp
from nash_swarm.engine.norm import FusedNorm
from nash_swarm.errors import CalibrationWarning, UsageError
from nash_swarm.models.offload import offloaded
from nash_swarm.models.tasks import task_of
from nash_swarm.tuning.student import check_head

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
QUICK_TESTS = {"llama", "gpt2", "mamba", "mixtral", "bert", "t5"}
# multiples of what kernels work on, so that what can be quick is
_EVEN = {
    "hidden_size": 128, "head_dim": 32, "intermediate_size": 256, "ffn_dim": 256, "d_model": 128, "d_kv": 32,
    "d_ff": 256, "n_embd": 128, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64,
    "query_pre_attn_scalar": 32,
}  # fmt: skip
_KINDS = {"norms": FusedNorm, "gated MLP": FusedMlp, "attention": FusedAttention, "decoder": FusedDecoder}


def rows() -> dict[str, list[str]]:
    """Cells of the page's table by class, without the family's name."""
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    lines = re.findall(r"^\| [^|]+ \| `(\w+)` \|(.+)\|$", table, re.MULTILINE)
    assert len({name for name, _ in lines}) == len(lines)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}


def test_the_page_has_every_class_that_is_tried() -> None:
    assert set(rows()) == {small.model for small in ARCHITECTURES.values()}


def answers(model: Any, ids: torch.Tensor) -> torch.Tensor:
    task = task_of(model)
    with torch.no_grad():
        return task.answer(model(**task.inputs(ids)))


def works(attempt: Any) -> str:
    """`yes`, or `no` if it is refused as everything that cannot be is."""
    try:
        attempt()
    except UsageError as refused:
        assert "\n" not in str(refused)
        return "no"
    return "yes"


@pytest.mark.filterwarnings("ignore:.*reference PyTorch implementation.*")
@pytest.mark.parametrize(
    "small",
    [
        pytest.param(small, id=name, marks=[] if name in QUICK_TESTS else [pytest.mark.slow])
        for name, small in ARCHITECTURES.items()
    ],
)
def test_a_row_is_true(small: Small, tmp_path: Path) -> None:
    model = small.make(**{name: size for name, size in _EVEN.items() if name in small.settings})
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCABULARY, (4, 32)).astype(np.int32)
    unseen = torch.from_numpy(rng.integers(3, VOCABULARY, (2, 24)))

    def measured(one: Any, **settings: Any) -> ns.BitGame:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)
            return ns.measure(one, tokens=tokens, group_size=32, quiet=True, **settings)

    linear = measured(model, scope="linear", damage="activation")
    assert all(tensor.kind in ("linear", "conv1d") for tensor in linear.tensors)
    packed = ns.pack(model, ns.solve(linear, bits=3.5), quiet=True)
    ns.save(packed, tmp_path / "linear")
    assert torch.equal(answers(ns.load(tmp_path / "linear"), unseen), answers(packed, unseen))

    coupled = measured(model, coupling=True)
    assert coupled.coupling is not None
    allocation = ns.solve(coupled, bits=3.5)
    packed = ns.pack(model, allocation, quiet=True)
    ns.save(packed, tmp_path / "packed")
    loaded = ns.load(tmp_path / "packed")
    loaded.save_pretrained(tmp_path / "again")
    again = getattr(transformers, small.model).from_pretrained(tmp_path / "again", dtype=torch.float32).eval()
    assert torch.equal(answers(again, unseen), answers(packed, unseen))

    model.save_pretrained(tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")

    def from_disk() -> None:
        disk = measured(offloaded(tmp_path / "model", config, tmp_path), damage="activation", scope="linear")
        np.testing.assert_array_equal(disk.damage, linear.damage)

    left = {re.sub(r"\.\d+\.", ".", name) for name, p in loaded.named_parameters() if p.ndim >= 2}
    kinds = [kind for kind, quick in _KINDS.items() if any(isinstance(module, quick) for module in loaded.modules())]
    found = [
        ", ".join(sorted({f"`{name.removesuffix('.weight').split('.')[-1]}`" for name in left})) or "none",
        "yes" if model.can_generate() else "no",
        works(lambda: check_head(model)),
        works(from_disk),
        ", ".join(kinds) or "none",
    ]
    assert rows()[small.model] == found
