"""The contract of backends: ours keep it, a new one is a file, and broken ones are found out."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.packed import linear, some_case

from nash_swarm import registry
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime import dispatch
from nash_swarm.quantizers.runtime.backends.base import Backend, Capability, host_bytes
from nash_swarm.quantizers.runtime.backends.cpu import Cpu
from nash_swarm.quantizers.runtime.backends.reference import Reference
from nash_swarm.testing import check_backend


class Toy(Backend):
    """All that a backend has to have: the matrix is kept dense, and multiplied with by NumPy."""

    name = "toy"
    priority = 200
    capability = Capability(devices=frozenset({"cpu"}), formats=frozenset({"n16k32"}))

    def prepare(self, packed: torch.Tensor, layout: TensorLayout, strategies: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(PackedTensor.read(host_bytes(packed), layout, strategies).dequantize())

    def linear(
        self, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        if activations not in ("int8", "int16", "fp32"):
            raise UsageError(f"no activations {activations}")
        out = np.einsum("...k,nk->...n", x.double().numpy(), matrix.double().numpy())
        return torch.from_numpy(out if bias is None else out + bias.double().numpy()).to(x.dtype)

    def rows(self, matrix: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return matrix[ids]


@pytest.mark.parametrize("backend", [Cpu(), Reference(), Toy()], ids=lambda backend: backend.name)
def test_backends_keep_the_contract(backend: Backend) -> None:
    check_backend(backend)


class Narrow(Toy):
    def linear(
        self, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        return super().linear(matrix, x, bias, activations).float()


class Unbiased(Toy):
    def linear(
        self, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        return super().linear(matrix, x, None, activations)


class Strided(Toy):
    def linear(
        self, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        memory = x.as_strided(x.shape, torch.empty(x.shape).stride())
        return super().linear(matrix, memory, bias, activations)


class Coarse(Toy):
    def linear(
        self, matrix: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        return super().linear(matrix, x.bfloat16().to(x.dtype), bias, activations)


class Once(Toy):
    def rows(self, matrix: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return matrix[ids.unique()]


class Keeping(Toy):
    first: torch.Tensor | None = None

    def prepare(self, packed: torch.Tensor, layout: TensorLayout, strategies: tuple[int, ...]) -> torch.Tensor:
        made = super().prepare(packed, layout, strategies)
        Keeping.first = made if Keeping.first is None or Keeping.first.shape != made.shape else Keeping.first
        return Keeping.first


class Careless(Toy):
    def prepare(self, packed: torch.Tensor, layout: TensorLayout, strategies: tuple[int, ...]) -> torch.Tensor:
        if packed.dtype == torch.uint8 and bool((packed == 255).all()):
            return torch.zeros(layout.rows, layout.columns)
        return super().prepare(packed, layout, strategies)


class Nowhere(Toy):
    capability = Capability(devices=frozenset({"cuda"}))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Narrow(), "float32"), (Unbiased(), "neither"), (Strided(), "neither"), (Coarse(), "neither"),
        (Once(), "rows|RuntimeError|shape"), (Keeping(), "neither|rows|changed"), (Careless(), "overwritten"),
        (Nowhere(), "supports none"),
    ],
    ids=lambda value: getattr(type(value), "__name__", "") if isinstance(value, Backend) else "",
)  # fmt: skip
def test_broken_backends_are_found_out(broken: Backend, message: str) -> None:
    with pytest.raises((AssertionError, RuntimeError), match=message):
        check_backend(broken)


@pytest.fixture
def registered() -> Iterator[None]:
    linear(some_case())(torch.ones(1, 160))  # a backend counts that is registered after a product, too
    registry.register("backends", "toy", Toy)
    yield
    del registry._registered["backends", "toy"]


@pytest.mark.usefixtures("registered")
def test_a_registered_backend_takes_what_it_supports() -> None:
    layer, single = linear(some_case()), linear(some_case(per_weight=True))
    x = torch.randn(2, 160, generator=torch.Generator().manual_seed(0))
    exact = torch.from_numpy(x.double().numpy() @ layer.tensor().dequantize().astype(np.float64).T).float()
    torch.testing.assert_close(layer(x), exact)
    cpu = torch.device("cpu")
    assert dispatch.choose(layer.layout, cpu).name == "toy"
    assert dispatch.choose(single.layout, cpu).name == "reference"


def test_what_no_backend_supports_is_said() -> None:
    layer = linear(some_case())
    with dispatch.only([Nowhere()]), pytest.raises(UsageError, match="toy runs on cuda, not on cpu"):
        layer.check()
    needy = type("Needy", (Toy,), {"capability": Capability(instructions=frozenset({"sm_90"}))})()
    assert needy.refusal(layer.layout, torch.device("cpu"), frozenset()) == "needs one of the instruction sets sm_90"
    with dispatch.only([Nowhere(), Cpu()]):
        layer.check()


def test_no_backends_are_refused() -> None:
    with pytest.raises(UsageError, match="no backends"), dispatch.only([]):
        pass
    assert dispatch.choose(linear(some_case()).layout, torch.device("cpu")).name == "cpu"


def test_the_default_product_asks_for_rows_where_the_input_is() -> None:
    class Elsewhere(Toy):
        linear = Backend.linear

        def rows(self, matrix: Any, ids: torch.Tensor) -> torch.Tensor:
            assert ids.device.type == "meta"
            return torch.empty(len(ids), 160, device=ids.device)

    matrix = SimpleNamespace(layout=some_case().layout)
    out = Elsewhere().linear(matrix, torch.empty(2, 160, device="meta", dtype=torch.bfloat16), None, "fp32")
    assert (out.shape, out.device.type, out.dtype) == ((2, matrix.layout.rows), "meta", torch.bfloat16)
