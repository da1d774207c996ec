"""Packed modules against their own dense matrix: types, shapes, changes, damage, threads."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.layouts import Case, cases
from support.models import allocate, tiny_llama
from support.packed import embedding, linear, pack, some_case
from torch.nn import functional

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.runtime import dispatch
from nash_swarm.quantizers.runtime.backends.reference import Reference
from nash_swarm.quantizers.runtime.modules import PackedLinear, TiedHead, set_activations

HALF_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact_bound(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How far sums of float32 products may be apart."""
    return 1e-5 * functional.linear(x.abs().double(), weight.abs().double()) + 1e-30


def rounding_bound(case: Case, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """How far rounding x to 8 bits, by group of stored columns, may move the product."""
    layout = case.layout
    order = torch.arange(layout.columns) if case.permutation is None else torch.from_numpy(case.permutation)
    bound = exact_bound(x, weight)
    for start in range(0, layout.columns, layout.group_size):
        group = order[start : start + layout.group_size]
        step = x[..., group].abs().amax(-1, keepdim=True) / 127
        bound += (step * 0.5001) * weight[:, group].abs().sum(1)
    return bound


@given(cases(), st.booleans(), st.sampled_from([(), (1,), (1, 1), (5,), (2, 9), (0, 3)]), st.integers(0, 9))
def test_linear_layers_multiply_with_the_dequantized_matrix(
    case: Case, bias: bool, leading: tuple[int, ...], seed: int
) -> None:
    layer, weight = linear(case, bias), torch.from_numpy(pack(case).dequantize())
    assert torch.equal(layer.weight, weight)
    x = random(*leading, case.layout.columns, seed=seed)
    added = 0 if layer.bias is None else layer.bias.detach()
    expected = functional.linear(x.double(), weight.double()) + added
    rounded = layer(x)
    assert rounded.shape == (*leading, case.layout.rows) and rounded.dtype == torch.float32
    assert ((rounded - expected).abs() <= rounding_bound(case, x, weight) + 1e-6 * expected.abs()).all()
    exact, close = exact_bound(x, weight), 1e-6 * expected.abs()
    layer.activations = "int16"
    assert ((layer(x) - expected).abs() <= rounding_bound(case, x, weight) / 100 + 2 * exact + close).all()
    layer.activations = "fp32"
    assert ((layer(x) - expected).abs() <= exact + close).all()


@given(cases(most=80), st.integers(0, 9))
def test_heads_and_tables_share_one_matrix(case: Case, seed: int) -> None:
    table, weight = embedding(case), torch.from_numpy(pack(case).dequantize())
    wanted = torch.from_numpy(np.random.default_rng(seed).integers(0, case.layout.rows, (2, 3)))
    assert torch.equal(table(wanted), weight[wanted])
    head, x = TiedHead(table), random(2, 3, case.layout.columns, seed=seed)
    set_activations(head, "fp32")
    assert ((head(x) - functional.linear(x.double(), weight.double())).abs() <= exact_bound(x, weight)).all()
    assert torch.equal(head.weight, weight)
    assert not list(head.parameters()) and not list(head.buffers())


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("activations", ["int8", "int16", "fp32"])
def test_the_output_has_the_type_of_the_input(dtype: torch.dtype, tokens: int, activations: str) -> None:
    layer = linear(some_case(), bias=True)
    layer.activations = activations
    x = random(tokens, 160).to(dtype)
    expected = layer(x.float())
    layer.to(dtype)
    assert layer.packed.dtype == torch.uint8 and layer.bias is not None and layer.bias.dtype == dtype
    assert torch.equal(layer(x), expected.to(dtype))


def test_other_types_take_the_dense_matrix() -> None:
    layer = linear(some_case(), bias=True)
    assert layer.bias is not None
    x = random(3, 160).double()
    assert torch.equal(layer(x), functional.linear(x, layer.weight.double(), layer.bias.double()))


@pytest.mark.parametrize("tokens", [1, 6])
def test_inputs_need_not_be_contiguous(tokens: int) -> None:
    layer = linear(some_case())
    wide = random(160, 2, tokens)
    for x in (wide[:, 0].T, wide.permute(1, 2, 0), wide[:, :1].permute(1, 2, 0)):
        assert not x.is_contiguous()
        assert torch.equal(layer(x), layer(x.contiguous()))
        assert layer(x).is_contiguous()


@pytest.mark.parametrize("kind", [linear, lambda case: TiedHead(embedding(case))])
@pytest.mark.parametrize("x", [torch.zeros(3, 159), torch.zeros(()), torch.zeros(2, 160, 161)])
def test_inputs_of_another_width_are_refused(kind: object, x: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="m takes inputs of 160 columns"):
        kind(some_case())(x)  # type: ignore[operator]


def test_only_the_output_head_is_rounded_more_finely() -> None:
    model = tiny_llama(tied=False)
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    packed = ns.pack(model, allocate(game), quantizer="rtn", quiet=True)
    modes = {name: module.activations for name, module in packed.named_modules() if isinstance(module, PackedLinear)}
    assert [name for name, mode in modes.items() if mode == "int16"] == ["lm_head"]
    assert set(modes.values()) == {"int8", "int16"}
    ns.set_activations(packed, "fp32")
    assert {module.activations for module in packed.modules() if isinstance(module, PackedLinear)} == {"fp32"}


def test_unknown_activations_are_refused() -> None:
    layer = linear(some_case())
    with pytest.raises(UsageError, match="int8, fp32, not 'int4'"):
        set_activations(layer, "int4")
    layer.activations = "bf16"
    with pytest.raises(UsageError, match="'bf16'"):
        layer(torch.zeros(2, 160))


@pytest.mark.parametrize("per_weight", [False, True])
@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_rows_have_the_type_of_the_table(per_weight: bool, dtype: torch.dtype) -> None:
    case = some_case(kind="embedding", per_weight=per_weight)
    table = embedding(case).to(dtype)
    expected = torch.from_numpy(pack(case).dequantize()).to(dtype)
    index = torch.tensor([[47, 0, 5]], dtype=torch.int32)
    assert torch.equal(table(index), expected[index])
    assert table(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 160)
    assert table(torch.tensor(3)).shape == (160,)


@pytest.mark.parametrize("per_weight", [False, True])
@pytest.mark.parametrize("index", [-1, 48])
def test_rows_outside_the_matrix_are_refused(index: int, per_weight: bool) -> None:
    with pytest.raises(IndexError, match=r"m: index outside 0\.\.47"):
        embedding(some_case(kind="embedding", per_weight=per_weight))(torch.tensor([3, index]))


@pytest.mark.parametrize("per_weight", [False, True])
def test_gradients_flow_through_the_dense_matrix(per_weight: bool) -> None:
    layer = linear(some_case(per_weight=per_weight), bias=True)
    assert layer.bias is not None
    layer.bias.requires_grad_(True)
    x = random(2, 3, 160).requires_grad_(True)
    weights = random(2, 3, 48, seed=1)
    (layer(x) * weights).sum().backward()
    assert x.grad is not None and layer.bias.grad is not None
    torch.testing.assert_close(x.grad, weights @ layer.weight)
    torch.testing.assert_close(layer.bias.grad, weights.sum((0, 1)))
    half = random(4, 160).bfloat16().requires_grad_(True)
    layer(half).sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("per_weight", [False, True])
def test_a_changed_buffer_is_read_again(per_weight: bool) -> None:
    case, other = some_case(per_weight=per_weight), some_case(per_weight=per_weight, seed=5)
    layer, x = linear(case), random(2, 160)
    first = layer(x)
    layer.packed = torch.from_numpy(pack(other).buffer.copy())
    assert torch.equal(layer(x), linear(other)(x)) and not torch.equal(layer(x), first)
    assert torch.equal(layer.dense(), torch.from_numpy(pack(other).dequantize()))
    layer.packed[0] ^= 3
    assert not torch.equal(layer(x), linear(other)(x))
    layer.packed[-1] = 255
    for use in (layer, lambda x: layer.check(), lambda x: layer.dense(), lambda x: layer.tensor()):
        with pytest.raises(DataError, match="m: the scale base"):
            use(x)


@pytest.mark.parametrize(
    "damaged", [lambda b: b[:-1], lambda b: b[1:], lambda b: b[:0], lambda b: b.float(), lambda b: b.repeat(2)[::2]]
)
def test_damaged_buffers_are_refused(damaged: object) -> None:
    for module, x in (
        (linear(some_case()), torch.zeros(2, 160)),
        (linear(some_case(per_weight=True)), torch.zeros(2, 160)),
        (embedding(some_case(kind="tied")), torch.tensor([1])),
    ):
        module.packed = damaged(module.packed)  # type: ignore[operator]
        with pytest.raises(DataError, match="m: "):
            module(x)


def test_copies_are_independent() -> None:
    layer, x = linear(some_case(), bias=True), random(3, 160)
    expected = layer(x)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    del layer
    gc.collect()
    for twin in twins:
        assert torch.equal(twin(x), expected)
        twin.packed.zero_()
        with pytest.raises(DataError):
            twin(x)


def test_what_is_known_of_a_buffer_goes_with_it() -> None:
    for seed in range(20):
        linear(some_case(seed=seed)).check()
    gc.collect()
    kept = linear(some_case())
    kept.check()
    # the memory of the others is free, so their entries went when this one came
    alive = [entry for entry in dispatch._found.values() if not entry.storage.expired()]
    assert len(dispatch._found) == len(alive)
    assert dispatch.find(kept.packed, kept.matrix) in alive


def test_other_devices_multiply_densely() -> None:
    """What CUDA tensors take, here on the CPU."""
    layer, x, table = linear(some_case(), bias=True), random(2, 160), embedding(some_case(kind="tied"))
    for device, name in (("cpu", "cpu"), ("cuda", "reference"), ("mps", "reference")):
        assert dispatch.choose(layer.layout, torch.device(device)).name == name
    with dispatch.only([Reference()]):
        assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))
        assert torch.equal(table(torch.tensor([5]))[0], table.weight[5])


def test_many_threads_get_what_one_gets() -> None:
    shapes = [(48, 160), (300, 96), (1024, 512)]
    layers = [linear(some_case(*shape), bias=True) for shape in shapes]
    table = embedding(some_case(700, 96, kind="tied"))

    def run(seed: int) -> list[torch.Tensor]:
        results = [table(torch.arange(seed, 600))]
        for tokens in (1, 5, 64):
            for layer in layers:
                x = random(tokens, layer.in_features, seed=seed)
                results += [layer(x), layer(x)]
        return results

    before = torch.get_num_threads()
    expected = [run(seed) for seed in range(8)]
    try:
        torch.set_num_threads(3)
        with ThreadPoolExecutor(8) as callers:
            for _ in range(5):
                found = list(callers.map(run, range(8), timeout=120))
                for got, wanted in zip(found, expected, strict=True):
                    assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))
    finally:
        torch.set_num_threads(before)


def siblings() -> list[PackedLinear]:
    """Two matrices that take their inputs alike, and one that does not."""
    return [linear(some_case(*shape, half=False)) for shape in ((48, 160), (32, 160), (48, 96))]


@pytest.mark.parametrize("change", ["add", "data", "copy", "view", "inference"])
def test_siblings_share_inputs_only_while_they_are_the_same(change: str) -> None:
    first, second, _ = siblings()
    x = random(5, 160)
    first(x)
    if change == "add":
        x.add_(1)
    elif change == "data":
        x.data = random(5, 160, seed=4)
    elif change == "copy":
        x[2].copy_(random(160, seed=4))
    elif change == "inference":
        with torch.inference_mode():
            x = random(5, 160)
            first(x)
            x.mul_(-2)
    else:
        x.view(-1)[7] = 100.0
    assert torch.equal(second(x), second(x.clone()))


def test_siblings_round_their_input_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from nash_swarm.quantizers.runtime.cpu.product import Product

    calls = []
    quantize = Product.quantize
    monkeypatch.setattr(Product, "quantize", lambda self, *args: (calls.append(self), quantize(self, *args))[1])
    first, second, other = siblings()
    x = random(5, 160)
    first(x), second(x), second(x)
    assert len(calls) == 1
    second(x.clone()), other(random(5, 96))
    assert len(calls) == 3
    set_activations(second, "fp32")
    second(x)
    assert len(calls) == 4


def test_shared_inputs_die_with_the_tensor() -> None:
    from nash_swarm.quantizers.runtime.cpu.rounded_inputs import latest

    first = siblings()[0]
    x = random(5, 160)
    first(x)
    assert latest.inputs._data is not None
    del x
    assert latest.inputs._data is None


FORK = """
import os
import numpy as np, torch
from support.packed import linear, some_case
from torch.utils.data import DataLoader

layer, x = linear(some_case(1024, 512)), torch.ones(64, 512)

class Products(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return layer(x)

torch.set_num_threads(3)
with torch.no_grad():
    expected = layer(x)
    child = os.fork()
    if child == 0:
        # torch's own OpenMP threads do not survive a fork, so NumPy compares
        os._exit(7 if np.array_equal(layer(x).numpy(), expected.numpy()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for batch in DataLoader(Products(), num_workers=1, multiprocessing_context="fork"):
        assert torch.equal(batch[0], expected)
    assert torch.equal(layer(x), expected)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_forked_processes_multiply_too() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], env=environment, check=True, timeout=120)
