from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.models import MODELS, allocate, logits, tiny_gpt2, tiny_llama
from support.statistics import watch

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game import Allocation, BitGame, Calibration
from nash_swarm.models.walk import find_matrices
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.rounding.gptq import Gptq
from nash_swarm.quantizers.runtime.modules import PackedWeight

Ids = npt.NDArray[np.int32]


def packed_modules(model: Any) -> dict[str, PackedWeight]:
    return {name: module for name, module in model.named_modules() if isinstance(module, PackedWeight)}


@pytest.mark.parametrize("quantizer", registry.names("quantizers"))
def test_every_matrix_gets_its_allocated_widths(
    model: Any, allocation: Allocation, tokens: Ids, quantizer: str
) -> None:
    packed = ns.pack(model, allocation, quantizer=quantizer, quiet=True)
    modules = packed_modules(packed)
    assert sorted(modules) == sorted(tensor.name for tensor in allocation.tensors)
    original = {matrix.name: matrix.weight() for matrix in find_matrices(model)}
    for layout in allocation.tensors:
        parsed = modules[layout.name].tensor()
        np.testing.assert_array_equal(parsed.widths, allocation.widths(layout))
        np.testing.assert_array_equal(
            parsed.permutation, allocation.permutations.get(layout.name, np.arange(layout.columns))
        )
        error = (modules[layout.name].dense() - original[layout.name]).norm() / original[layout.name].norm()
        assert error < 0.6
    assert not packed.training


def test_plain_rounding_packs_what_the_quantizer_returns(model: Any, allocation: Allocation) -> None:
    packed = packed_modules(ns.pack(model, allocation, quantizer="rtn", quiet=True))
    rtn = registry.create("quantizers", "rtn")
    for matrix, layout in zip(find_matrices(model), allocation.tensors, strict=True):
        order = allocation.permutations.get(matrix.name, np.arange(layout.columns))
        weight = np.ascontiguousarray(matrix.weight().numpy()[:, order])
        widths = np.array(allocation.strategies, np.uint8)[allocation.choices[layout.span]]
        expected = PackedTensor.pack(
            rtn.round(weight, layout.expand(widths), layout), widths, layout, order, allocation.strategies
        )
        np.testing.assert_array_equal(packed[matrix.name].packed.numpy(), expected.buffer)


def test_what_is_not_packed_is_rounded_to_half_precision(model: Any, packed: Any) -> None:
    original = dict(model.named_parameters())
    kept = dict(packed.named_parameters())
    assert all(torch.equal(parameter, original[name].half().float()) for name, parameter in kept.items())
    assert len(kept) == sum(parameter.ndim == 1 for parameter in original.values())


@dataclass(frozen=True)
class Recorder(Gptq):
    seen: Any = None

    def round(self, weight: Any, widths: Any, layout: Any, hessian: Any = None) -> Any:
        self.seen[layout.name] = hessian
        return super().round(weight, widths, layout, hessian)


def test_later_matrices_are_rounded_for_what_packed_ones_give_them(
    model: Any, allocation: Allocation, tokens: Ids
) -> None:
    seen: dict[str, Any] = {}
    packed = ns.pack(model, allocation, quantizer=Recorder(seen=seen), quiet=True)
    assert sorted(seen) == sorted(layout.name for layout in allocation.tensors)
    tied = {layout.name for layout in allocation.tensors if layout.kind == "tied"}
    if tied:
        # its look-ups are rounded only after everything else
        packed.set_input_embeddings(model.get_input_embeddings())
    # the first matrix of a block, and the head, read nothing that is rounded after them
    watched = {name: name for name in seen if name.endswith(("1.self_attn.q_proj", "1.attn.c_attn"))}
    watched["lm_head"] = tied.pop() if tied else "lm_head"
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in watched}

    def watch_inputs(name: str) -> Any:
        return lambda module, args: inputs[name].append(args[0].flatten(0, -2))

    for name in watched:
        packed.get_submodule(name).register_forward_pre_hook(watch_inputs(name))
    logits(packed, tokens)
    assert len(watched) == 2
    for name, layout in watched.items():
        x = torch.cat(inputs[name]).double()
        order = allocation.permutations[layout]
        expected = (x.T @ x / len(x)).numpy()[np.ix_(order, order)]
        np.testing.assert_allclose(seen[layout], expected, rtol=2e-3, atol=2e-5 * expected.max())


def test_the_first_block_is_rounded_for_the_original_inputs(tokens: Ids) -> None:
    model = tiny_llama(tied=True)
    allocation = allocate(ns.measure(model, tokens=tokens, group_size=32, quiet=True))
    seen: dict[str, Any] = {}
    ns.pack(model, allocation, quantizer=Recorder(seen=seen), quiet=True)
    names = [
        f"model.layers.0.{part}" for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    expected, _ = watch(model, names, tokens)
    for name in names:
        order = allocation.permutations[name]
        hessian = expected[name].hessian()[np.ix_(order, order)]
        np.testing.assert_allclose(seen[name], hessian, rtol=2e-3, atol=2e-5 * hessian.max())


def test_compensated_rounding_is_closer_to_the_original(tokens: Ids) -> None:
    model = tiny_llama(tied=False)
    # correlated inputs, as text has them: few different tokens
    few = tokens % 12
    allocation = allocate(ns.measure(model, tokens=few, group_size=32, quiet=True), 0.3)
    models = {name: ns.pack(model, allocation, quantizer=name, quiet=True) for name in ("rtn", "gptq")}
    found = ns.evaluate(models, few, reference=model, quiet=True)
    assert found["gptq"].kl < 0.7 * found["rtn"].kl


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, tokens: Ids) -> None:
    for name, make in MODELS.items():
        written = []
        for attempt in ("a", "b"):
            model = make()
            allocation = allocate(ns.measure(model, tokens=tokens, group_size=32, quiet=True), solver="nash")
            (tmp_path / attempt).mkdir(exist_ok=True)
            folder = ns.save(ns.pack(model, allocation, quiet=True), tmp_path / attempt / name)
            written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert written[0] == written[1]


def test_the_original_is_left_alone(tokens: Ids) -> None:
    model = tiny_gpt2()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    allocation = allocate(ns.measure(model, tokens=tokens, quiet=True))
    packed = ns.pack(model, allocation, quiet=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.config.tie_word_embeddings and not hasattr(model.config, "quantization_config")
    assert model.training and not packed.training
    # dropout would leave its mark on the Hessians
    model.eval()
    assert torch.equal(logits(ns.pack(model, allocation, quiet=True), tokens), logits(packed, tokens))


def test_allocations_that_do_not_belong_to_the_model(model: Any, allocation: Allocation, tokens: Ids) -> None:
    other = next(make() for make in MODELS.values() if type(make()) is not type(model))
    with pytest.raises(DataError, match="for another model"):
        ns.pack(other, allocation, quiet=True)
    foreign = Calibration(np.full((2, 8), 10**6, np.int32), "other")
    with pytest.raises(DataError, match="vocabulary"):
        ns.pack(model, allocation, calibration=foreign, quiet=True)
    with pytest.raises(UsageError, match="no quantizer named 'none'"):
        ns.pack(model, allocation, quantizer="none", quiet=True)
    game = BitGame((2, 4), np.ones((3, 2), np.float32), np.tile(np.array([2, 4]), (3, 1)), parameters=3)
    with pytest.raises(UsageError, match="synthetic"):
        ns.pack(model, ns.solve(game, bits=3.0, solver="greedy"), quiet=True)


def test_damaged_weights_are_refused(tokens: Ids) -> None:
    model = tiny_llama(tied=True)
    allocation = allocate(ns.measure(model, tokens=tokens, quiet=True))
    model.model.layers[0].self_attn.k_proj.weight.data[0, 0] = np.nan
    for quantizer in registry.names("quantizers"):
        with pytest.raises(DataError, match=r"layers\.0\.self_attn\.k_proj holds NaN"):
            ns.pack(model, allocation, quantizer=quantizer, quiet=True)


def test_bfloat16_range_survives(tokens: Ids, tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    model.model.norm.weight.data[3] = 1e5
    game = ns.measure(model, damage="magnitude", text=None, quiet=True)
    packed = ns.pack(model, allocate(game), quantizer="rtn", quiet=True)
    loaded = ns.load(ns.save(packed, tmp_path / "out"))
    assert loaded.model.norm.weight[3].item() == pytest.approx(1e5, rel=0.01)
    assert torch.equal(logits(loaded, tokens), logits(packed, tokens))
