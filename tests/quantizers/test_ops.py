"""Custom ops: what torch checks of an op, compilation and export."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import allocate, tiny_llama
from support.packed import embedding, linear, some_case
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.runtime import ops
from nash_swarm.quantizers.runtime.modules import TiedHead, set_activations

OPS = torch.ops.nash_swarm


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("op", [OPS.linear, OPS.multiply])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_weight", [False, True])
@pytest.mark.parametrize("activations", ["int8", "int16", "fp32"])
def test_products_are_proper_ops(op: Any, bias: bool, per_weight: bool, activations: str) -> None:
    layer = linear(some_case(per_weight=per_weight), bias)
    rest = (layer.packed, layer.bias, layer.matrix, activations)
    for x in (random(160), random(2, 3, 160), random(0, 160), random(160, 4).T, random(3, 160).bfloat16()):
        torch.library.opcheck(op.default, (x, *rest))
    if op is OPS.linear:
        if layer.bias is not None:
            layer.bias.requires_grad_(True)
        torch.library.opcheck(op.default, (random(2, 3, 160).requires_grad_(True), *rest))


@pytest.mark.parametrize("per_weight", [False, True])
def test_unpacking_is_a_proper_op(per_weight: bool) -> None:
    table = embedding(some_case(kind="tied", per_weight=per_weight))
    torch.library.opcheck(OPS.dense.default, (table.packed, table.matrix))
    for index in (torch.tensor(3), torch.tensor([[1, 2], [47, 0]]), torch.zeros(0, dtype=torch.int32)):
        for dtype in (torch.float32, torch.float16):
            torch.library.opcheck(OPS.rows.default, (index, table.packed, table.matrix, dtype))


class Seen(TorchDispatchMode):
    """Collects the ops that the dispatcher is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_differentiable_op_is_taken_only_where_gradients_are_recorded() -> None:
    layer, x = linear(some_case()), random(1, 160)
    for context, op in ((torch.enable_grad, "linear"), (torch.no_grad, "multiply"), (torch.inference_mode, "multiply")):
        with context(), Seen() as seen:
            layer(x)
        assert f"nash_swarm.{op}.default" in seen.names


def test_the_dispatcher_is_asked_wherever_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, asked = linear(some_case()), random(2, 160), []
    monkeypatch.setattr(ops, "_multiply", lambda x, *rest: (asked.append(type(x)), x.new_empty(2, 48))[1])
    with torch.no_grad():
        layer(x)
        assert not asked
        layer(torch.nn.Parameter(x))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            layer(mode.from_tensor(x))
        torch.jit.trace(layer, x, check_trace=False)
        torch.func.vmap(layer)(x[None])
        with torch.profiler.profile():
            layer(x)
        assert len(asked) == 5


@pytest.mark.parametrize("text", ["", "linear 3x4", "linear 16x32 g64 a16x1 - 7 m", "tied 16x32 g63 a16x1 - 2 m"])
def test_lines_that_describe_no_matrix_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        OPS.dense(torch.zeros(100, dtype=torch.uint8), text)


def test_a_line_reads_as_it_was_written() -> None:
    for case in (some_case(), some_case(kind="tied", per_weight=True)):
        assert description.read(description.describe(case.layout, case.strategies)) == (case.layout, case.strategies)


class Small(torch.nn.Module):
    """Every packed module in one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = embedding(some_case(kind="tied"))
        self.layer = linear(some_case(rows=160), bias=True)
        self.head = TiedHead(self.table)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.layer(self.table(index))))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("grad", [False, True])
def test_compiled_modules_give_what_they_give_uncompiled(backend: str, grad: bool) -> None:
    model = Small()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.set_grad_enabled(grad):
        for index in (torch.arange(6).reshape(2, 3), torch.arange(40).reshape(4, 10)):
            assert torch.equal(compiled(index), model(index))


def test_gradients_of_compiled_modules() -> None:
    layer = linear(some_case(), bias=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    grads = []
    for module in (layer, compiled):
        x = random(3, 160).requires_grad_(True)
        module(x).square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


LOAD = """
import sys, torch
import nash_swarm.quantizers.runtime.ops
program = torch.export.load(sys.argv[1])
torch.save(program.module()(torch.tensor([[5, 9]])), sys.argv[2])
"""


def test_exported_programs_run_in_another_process(tmp_path: Path) -> None:
    model = Small()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.arange(6).reshape(3, 2),), dynamic_shapes=({0: batch},))
    assert any("nash_swarm" in str(node.target) for node in program.graph.nodes)
    index = torch.tensor([[5, 9]])
    assert torch.equal(program.module()(index), model(index))
    torch.export.save(program, tmp_path / "program.pt2")
    script = [sys.executable, "-W", "ignore", "-c", LOAD, str(tmp_path / "program.pt2"), str(tmp_path / "out.pt")]
    subprocess.run(script, check=True, timeout=120)
    assert torch.equal(torch.load(io.BytesIO((tmp_path / "out.pt").read_bytes())), model(index))


def test_whole_models_compile() -> None:
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    packed = ns.pack(model, allocate(game), quantizer="rtn", quiet=True)
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        expected = packed(ids, use_cache=False).logits
        compiled = torch.compile(packed, backend="aot_eager")(ids, use_cache=False).logits
        # one last bit of a norm moves a rounded activation
        torch.testing.assert_close(compiled, expected, rtol=0, atol=0.05 * float(expected.abs().max()))
        set_activations(packed, "fp32")
        exact = torch.compile(packed, backend="aot_eager")(ids, use_cache=False).logits
        torch.testing.assert_close(exact, packed(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)
