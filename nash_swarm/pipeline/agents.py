"""Who plays, and what each width costs them: known from a model's shapes, before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments
from nash_swarm.artifacts.accounting import fixed_bytes
from nash_swarm.damage.base import DamageEstimator
from nash_swarm.errors import BudgetError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.rules import Rules
from nash_swarm.game.strategies import DEFAULT_STRATEGIES
from nash_swarm.models.experts import prepare
from nash_swarm.models.walk import Matrix, count_parameters, find_matrices
from nash_swarm.names import (
    DEFAULT_GRANULARITY,
    DEFAULT_GROUP_SIZE,
    SCOPES,
    Granularity,
    Levels,
    Scope,
    default_levels,
)
from nash_swarm.quantizers.formats.base import Format, Layout
from nash_swarm.quantizers.formats.known import check_strategies, format_for


@dataclass(frozen=True, eq=False)
class Agents:
    """The agents of a model; all of a game but the damage.

    Attributes:
        strategies: bit-widths, ascending.
        matrices: the model's matrices in scope.
        tensors: their layouts, in the same order.
        memory: int64 (agents, strategies), exact bits on disk; a broadcast view where all agents cost the same.
        fixed_bits: bits on disk that no strategy changes.
        parameters: unique parameters in scope.
    """

    strategies: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    tensors: tuple[Layout, ...]
    memory: npt.NDArray[np.int64]
    fixed_bits: int
    parameters: int

    def check(self, budget: Budget, rules: Rules | None = None) -> None:
        """Refuse rules that do not fit the model, and a budget that no choice of widths meets.

        Raises:
            BudgetError: not even the narrowest permitted width of every agent fits; names the smallest feasible budget.
            UsageError: the rules name what the model does not have, or leave an agent no width.
        """
        if not rules:
            budget.require(self.fixed_bits + int(self.memory[:, 0].sum()), self.parameters, self.strategies)
            return
        harmless = np.broadcast_to(np.zeros(1, np.float32), self.memory.shape)
        orders = {tensor.name: np.arange(tensor.columns) for tensor in self.tensors if tensor.ordered}
        game = BitGame(
            self.strategies, harmless, self.memory, self.fixed_bits, self.parameters, self.tensors, orders
        )  # fmt: skip
        reduced, _ = rules.apply(game)
        try:
            reduced.capacity(budget)
        except BudgetError as error:
            raise BudgetError(f"{error} under the rules ({rules})") from None


def find_agents(
    model: Any,
    estimator: DamageEstimator,
    *,
    granularity: Granularity = DEFAULT_GRANULARITY,
    strategies: tuple[int, ...] = DEFAULT_STRATEGIES,
    scope: Scope = "model",
    group_size: int = DEFAULT_GROUP_SIZE,
    levels: Levels | None = None,
    format: Format[Any] | None = None,
) -> Agents:
    """Cut a model's matrices into agents.

    Args:
        model: a transformers causal language model.
        estimator: says which matrices have an order of columns, which is stored if the format permits.
        granularity, strategies, scope, group_size, levels, format: see `measure`.

    Raises:
        UsageError: unknown strategies, granularity or levels, or a model that cannot be walked.
    """
    levels = default_levels(granularity) if levels is None else levels
    chosen = format_for(granularity, levels, group_size) if format is None else format
    arguments.choice("scope", scope, SCOPES)
    strategies = check_strategies(strategies, granularity, chosen)
    model = prepare(model)
    matrices = find_matrices(model, scope)
    tensors: list[Layout] = []
    for matrix in matrices:
        start = tensors[-1].span.stop if tensors else 0
        ordered = chosen.permutes and estimator.orders(matrix.kind)
        tensors.append(chosen.cut(matrix.name, matrix.kind, matrix.shape, granularity, ordered=ordered, start=start))
    tables = [tensor.memory(strategies) for tensor in tensors]
    if all(table.strides[0] == 0 and np.array_equal(table[0], tables[0][0]) for table in tables):
        memory = np.broadcast_to(tables[0][:1], (tensors[-1].span.stop, len(strategies)))
    else:
        memory = np.concatenate(tables)
    users = {path: matrix.name for matrix in matrices for path in matrix.users}
    fixed = fixed_bytes(model, tensors, users, strategies, scope) * 8
    parameters = count_parameters(model, matrices, scope)
    return Agents(strategies, tuple(matrices), tuple(tensors), memory, fixed, parameters)
