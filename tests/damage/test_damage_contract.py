"""The contract of estimators: ours and a toy one with observers fulfil it, and broken ones are detected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.models import tiny_llama
from support.statistics import watch

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.calibration.statistics import Observer, Statistics, array
from nash_swarm.damage import DamageEstimator, Sensitivity
from nash_swarm.damage.activation import Activation
from nash_swarm.damage.base import Needs
from nash_swarm.damage.fisher import Fisher
from nash_swarm.damage.magnitude import Magnitude
from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.testing import check_damage

SEEN: dict[str, torch.Tensor] = {}


@dataclass(frozen=True)
class Fourth(DamageEstimator):
    """Weighs columns by the root of the fourth moment of their inputs, rows by the sum of absolute gradients."""

    name: ClassVar[str] = "fourth"
    summary: ClassVar[str] = "for tests"
    needs: ClassVar[Needs] = "gradients"
    observers: ClassVar[tuple[Observer, ...]] = (
        Observer("fourth", "inputs", lambda x: x.pow(4).sum(0)),
        Observer("absolute", "gradients", lambda g: g.abs().sum(0)),
    )
    unit: ClassVar[str] = "nothing"

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        order = None if kind == "embedding" else statistics.activation_order()
        if order is None:
            return Sensitivity.of((np.ones(weight.shape[0]), np.ones(weight.shape[1])))
        SEEN.update({f"{weight.shape} {key}": value for key, value in statistics.observed.items()})
        columns = array(statistics.observed["fourth"].sqrt())[order]
        return Sensitivity.of((array(statistics.observed["absolute"]), columns), order=order)


@pytest.mark.parametrize(
    "estimator",
    [Fisher(), Fisher(whole_windows=False), Fisher(labels="text"), Activation(), Magnitude(), Fourth()],
    ids=str,
)
def test_estimators_keep_the_contract(estimator: DamageEstimator) -> None:
    check_damage(estimator)


def test_the_contract_runs_over_every_registered_estimator() -> None:
    assert set(registry.names("damage")) == {"fisher", "activation", "magnitude"}


def _negative(found: Sensitivity) -> Sensitivity:
    return replace(found, rows=-found.rows)


def _of_another_shape(found: Sensitivity) -> Sensitivity:
    return replace(found, columns=found.columns[:, :-1])


def _in_double_precision(found: Sensitivity) -> Sensitivity:
    return replace(found, rows=found.rows.astype(np.float64))  # type: ignore[arg-type]


def _not_finite(found: Sensitivity) -> Sensitivity:
    return replace(found, columns=found.columns * np.float32(np.inf))


def _of_no_order(found: Sensitivity) -> Sensitivity:
    return replace(found, order=None)


def _of_one_column(found: Sensitivity) -> Sensitivity:
    return replace(found, order=None if found.order is None else np.zeros_like(found.order))


def _of_random_rows(found: Sensitivity) -> Sensitivity:
    return replace(found, rows=found.rows * np.random.default_rng().random(found.rows.shape).astype(np.float32))


def _of_first_rows(found: Sensitivity) -> Sensitivity:
    return replace(found, rows=found.rows * np.linspace(1, 2, found.rows.shape[1], dtype=np.float32))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (_negative, AssertionError, "negative"), (_not_finite, AssertionError, "finite"),
        (_of_another_shape, DataError, "shape or type"), (_in_double_precision, DataError, "shape or type"),
        (_of_no_order, DataError, "disagree"), (_of_one_column, DataError, "shape or type"),
        (_of_random_rows, AssertionError, "same call"), (_of_first_rows, AssertionError, "another order"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_estimator_is_detected(
    change: Callable[[Sensitivity], Sensitivity], error: type[Exception], message: str
) -> None:
    class Broken(Activation):
        def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
            return change(super().sensitivity(weight, statistics, kind))

    with pytest.raises(error, match=message):
        check_damage(Broken())


def test_observed_sums_are_those_of_the_whole_model(tokens: npt.NDArray[np.int32]) -> None:
    model = tiny_llama(tied=False)
    names = ["model.layers.0.mlp.down_proj", "lm_head"]
    seen, _ = watch(model, names, tokens)
    SEEN.clear()
    ns.measure(model, tokens=tokens, damage=Fourth(), quiet=True)
    for name in names:
        shape = tuple(model.get_submodule(name).weight.shape)
        inputs, gradients = torch.cat(seen[name].inputs), torch.cat(seen[name].gradients)
        # of several matrices of one shape the last one measured: blocks are walked from the last to the first
        assert torch.allclose(SEEN[f"{shape} fourth"], inputs.pow(4).sum(0), rtol=1e-3)
        assert torch.allclose(SEEN[f"{shape} absolute"], gradients.abs().sum(0), rtol=1e-3, atol=1e-6)


def test_sums_are_on_the_device_of_what_is_added() -> None:
    def on_meta(*shape: int) -> Any:
        return torch.empty(shape, device="meta")

    class Ordered(Statistics):
        def activation_order(self) -> npt.NDArray[np.int64]:
            return np.arange(8)  # sums on `meta` have no values to sort by

    statistics = Ordered(factor=np.eye(8, dtype=np.float32))
    statistics.add_inputs(on_meta(2, 5, 8))
    statistics.add_output_gradients(on_meta(2, 5, 4))
    statistics.add_projected(on_meta(2, 5, 4), statistics.project(on_meta(2, 5, 8)))
    statistics.add_lookup_gradients(on_meta(2, 5, 8))
    statistics.observe(Observer("sum", "inputs", lambda x: x.sum(0)), on_meta(2, 5, 8))
    sums = [statistics.inputs, statistics.outputs, statistics.projected, statistics.gradients]
    assert all(values is not None and values.is_meta for values in [*sums, statistics.observed["sum"]])


def test_nan_in_an_observed_sum_is_named() -> None:
    layout = cut("m", "linear", (16, 32), granularity="tile", group_size=32, ordered=True)
    statistics = Statistics(inputs=torch.eye(32), outputs=torch.ones(16), tokens=1)
    statistics.observed["absolute"] = torch.full((16,), torch.nan)
    with pytest.raises(DataError, match=r"^m: the sums of 'absolute' leave the range"):
        Fourth().checked(np.ones((16, 32), np.float32), statistics, layout)
