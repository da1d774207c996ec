"""Every registered quantizer keeps the contract, and the contract notices those that do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from nash_swarm import registry
from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.formats.per_weight.layout import WeightLayout
from nash_swarm.quantizers.rounding.gptq import Gptq
from nash_swarm.quantizers.rounding.rtn import RoundToNearest
from nash_swarm.testing import check_quantizer


@pytest.mark.parametrize("name", registry.names("quantizers"))
def test_registered_quantizers_keep_the_contract(name: str) -> None:
    check_quantizer(registry.create("quantizers", name), examples=60)


@pytest.mark.parametrize("quantizer", [Gptq(damping=0.0), Gptq(shrinks=(1.0,)), RoundToNearest(shrinks=(0.9, 1.0))])
def test_other_hyperparameters_keep_it_too(quantizer: Any) -> None:
    check_quantizer(quantizer, examples=20, seed=1)


@dataclass(frozen=True)
class Broken(RoundToNearest):
    fault: str = ""

    def round(self, weight: Any, widths: Any, layout: Any, hessian: Any = None) -> Rounded:
        if self.fault == "changes the weights":
            weight[0, 0] += 1
        if self.fault == "believes everything":
            weight = np.nan_to_num(np.resize(weight, (layout.rows, layout.columns)).astype(np.float32))
            widths = np.resize(np.where(np.isin(widths, (2, 3, 4, 5, 6, 8, 16)), widths, 8), self.shape(layout))
            hessian = None
        rounded = super().round(weight, widths.astype(np.uint8), layout, hessian)
        match self.fault:
            case "too many bits":
                return replace(rounded, codes=np.full_like(rounded.codes, 255))
            case "random":
                return replace(rounded, base=rounded.base * float(np.random.default_rng().uniform(0.5, 1)))
            case "scales of anywhere":
                return replace(
                    rounded, scale_codes=np.random.default_rng(0).integers(0, 256, rounded.zeros.shape, "u1")
                )
            case "wrong zeros":
                return replace(rounded, zeros=rounded.zeros * 0)
            case "no halves":
                return replace(rounded, halves=None)
        return rounded

    def shape(self, layout: Any) -> tuple[int, int]:
        return (layout.rows, layout.columns) if isinstance(layout, WeightLayout) else (layout.row_tiles, layout.groups)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("changes the weights", "changed an argument"),
        ("believes everything", "did not raise DataError"),
        ("too many bits", "codes do not fit"),
        ("random", "another result"),
        ("scales of anywhere", "do not fit a range"),
        ("wrong zeros", "rows of zeros|3 % of the range"),
        ("no halves", "no half-precision values"),
    ],
)
def test_the_contract_notices_a_quantizer_that(fault: str, complaint: str) -> None:
    check_quantizer(Broken(), examples=3)
    with pytest.raises(AssertionError, match=f"Broken, matrix .* Hessian.*{complaint}"):
        check_quantizer(Broken(fault=fault), examples=50)
