"""Every format is held to the contract: ours, and one of a few lines that is measured, solved and packed like them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from support.models import allocate, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.game import BitGame
from nash_swarm.quantizers.formats import known
from nash_swarm.quantizers.formats.base import Format, Grid, Layout, Packed, alone
from nash_swarm.quantizers.formats.native.format import N16K32
from nash_swarm.quantizers.formats.per_weight.format import PerWeight
from nash_swarm.quantizers.formats.sections import End
from nash_swarm.testing import check_format

_LINE = re.compile(r"(\w+) (\d+)x(\d+) rows(b?)")


@dataclass(frozen=True)
class Rows(Layout):
    """Every row is an agent: 4 or 8 bits a weight and a scale in half precision."""

    words: ClassVar[int] = 3
    unit = cast(Any, property(lambda self: (1, self.columns)))
    grid = cast(Any, property(lambda self: (self.rows, 1)))

    def expand(self, cells: Any) -> Any:
        return cells.reshape(self.grid)

    def memory(self, strategies: tuple[int, ...]) -> Any:
        each = [8 * (2 + (self.columns * bits + 7) // 8) for bits in strategies]
        return np.broadcast_to(np.array(each, np.int64), (self.agents, len(each)))

    def fixed_bytes(self, strategies: int) -> int:
        return self.rows

    def text(self, bias: bool = False) -> str:
        return f"{self.kind} {self.rows}x{self.columns} rows{'b' * bias}"

    @classmethod
    def parse(cls, name: str, text: str) -> tuple[Rows, bool]:
        if (match := _LINE.fullmatch(text)) is None:
            raise DataError(f"{text!r} is no line of {name}")
        return cls(name, cast(Any, match[1]), int(match[2]), int(match[3])), match[4] == "b"


@dataclass(frozen=True)
class AbsMax(Format[Rows]):
    name: ClassVar[str] = "absmax"
    strategies: ClassVar[tuple[int, ...]] = (4, 8)
    permutes: ClassVar[bool] = False
    layout: ClassVar[type[Layout]] = Rows

    def cut(self, name: str, kind: Any, shape: Any, granularity: Any, *, ordered: bool = False, start: int = 0) -> Rows:
        return Rows(name, kind, *shape, ordered=ordered, start=start)

    def errors(
        self, weight: Any, rows: Any, columns: Any, layout: Rows, strategies: tuple[int, ...], share: Any = alone
    ) -> Any:
        table = np.empty((layout.agents, len(strategies)), np.float32)
        for column, bits in enumerate(strategies):
            grid = RowGrid(weight, np.full(layout.units, bits, np.uint8))
            squares = np.square(grid.codes * grid.scales.astype(np.float32) - weight)
            table[:, column] = ((rows.T @ columns) * squares).sum(axis=1)
        return table

    def grid(self, weight: Any, widths: Any, layout: Rows, costs: Any, shrinks: Any, share: Any = alone) -> RowGrid:
        return RowGrid(weight, widths)

    def pack(self, rounded: Any, agent_widths: Any, layout: Rows, permutation: Any, strategies: tuple[int, ...]) -> Any:
        codes, scales = rounded
        parts = [scales.astype("<f2").view(np.uint8).ravel()]
        for row, bits in zip(codes.astype(np.int16), agent_widths, strict=True):
            plain = (row + (1 << (bits - 1))).astype(np.uint8)
            parts.append(plain if bits == 8 else np.packbits(np.unpackbits(plain[:, None], axis=1)[:, 4:].ravel()))
        return self.read(np.concatenate([*parts, agent_widths]), layout, strategies)

    def read(self, buffer: Any, layout: Rows, strategies: tuple[int, ...]) -> PackedRows:
        end = End(buffer, layout)
        widths = end.take(layout.rows)
        sizes = (layout.columns * widths.astype(np.int64) + 7) // 8
        if not np.isin(widths, strategies).all() or end.left != 2 * layout.rows + sizes.sum():
            raise DataError(f"{layout.name}: these are not its bytes")
        return PackedRows(layout, buffer, widths[:, None], np.arange(layout.columns))


class RowGrid(Grid):
    def __init__(self, weight: Any, widths: Any) -> None:
        self.group_size, tops = weight.shape[1], 2.0 ** (widths.astype(int) - 1) - 1
        self.scales = (np.abs(weight).max(axis=1, keepdims=True) / tops).astype(np.float16)
        steps = np.maximum(self.scales.astype(np.float32), np.float32(1e-30))
        self.codes = np.clip(np.round(weight / steps), -tops, tops).astype(np.float32)

    def round_group(self, work: Any, start: int, stop: int, factor: Any, errors: Any) -> None:
        work[:] = self.codes * self.scales.astype(np.float32)

    def rounded(self, work: Any) -> Any:
        return self.codes, self.scales


@dataclass(frozen=True, eq=False)
class PackedRows(Packed):
    layout: Rows
    buffer: Any
    widths: Any
    permutation: Any

    def dequantize(self) -> Any:
        rows, columns = self.layout.rows, self.layout.columns
        scales, at = self.buffer[: 2 * rows].view("<f2").astype(np.float32), 2 * rows
        out = np.empty((rows, columns), np.float32)
        for n, bits in enumerate(self.widths[:, 0].astype(int)):
            size = (columns * bits + 7) // 8
            each = np.unpackbits(self.buffer[at : at + size])[: columns * bits].reshape(columns, bits)
            out[n] = (each @ (1 << np.arange(bits)[::-1]) - (1 << (bits - 1))) * scales[n]
            at += size
        return out


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "LAYOUTS", [*known.LAYOUTS])
    monkeypatch.setattr("nash_swarm.quantizers.formats.description.LAYOUTS", known.LAYOUTS)
    known.register(Rows)


@pytest.mark.parametrize("granularity", ["tile", "block", "layer"])
@pytest.mark.parametrize("levels", ["uniform", "normal"])
def test_the_native_format_keeps_the_contract(granularity: Any, levels: Any) -> None:
    check_format(N16K32(32, levels), granularity=granularity, examples=8)


def test_single_weights_keep_the_contract() -> None:
    check_format(PerWeight(32), granularity="parameter", examples=8, slack=1e-4)


def test_a_new_format_keeps_the_contract(registered: None) -> None:
    check_format(AbsMax(), slack=1e-3)


def test_a_new_format_is_measured_solved_packed_and_saved(registered: None, tmp_path: Any) -> None:
    model = tiny_llama(tied=False)
    tokens = np.random.default_rng(0).integers(2, 100, (3, 24)).astype(np.int32)
    game: BitGame = ns.measure(model, tokens=tokens, damage="fisher", strategies=(4, 8), format=AbsMax(), quiet=True)
    assert not game.permutations
    packed = ns.pack(model, allocate(game), quantizer="rtn", quiet=True)
    ns.save(packed, tmp_path / "out")
    loaded = ns.load(tmp_path / "out")
    layer, plain = loaded.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.up_proj
    x = np.random.default_rng(1).standard_normal((2, plain.in_features)).astype(np.float32)
    with torch.no_grad():
        got, wanted = layer(torch.from_numpy(x)), plain(torch.from_numpy(x))
    assert (got - wanted).abs().max() < 0.2 * wanted.abs().max()


def test_what_breaks_the_contract_is_named(registered: None) -> None:
    @dataclass(frozen=True)
    class Cheap(Rows):
        def memory(self, strategies: tuple[int, ...]) -> Any:
            return super().memory(strategies) - 8

    @dataclass(frozen=True)
    class TooSmall(AbsMax):
        layout: ClassVar[type[Layout]] = Cheap

        def cut(self, *args: Any, **more: Any) -> Any:
            return Cheap(**dataclasses.asdict(super().cut(*args, **more)))

    known.LAYOUTS.remove(Rows)
    known.register(Cheap)
    with pytest.raises(AssertionError, match=r"absmax.*predicted"):
        check_format(TooSmall())
