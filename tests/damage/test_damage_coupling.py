"""Coupling measured from sequence gradients, against plain autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import MODELS, VOCABULARY, tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.damage.coupling import choose_shrinkage, couple
from nash_swarm.damage.neighbourhood import Neighbourhood, neighbourhood
from nash_swarm.damage.sequence_deltas import sequence_deltas
from nash_swarm.errors import UsageError
from nash_swarm.models.walk import find_matrices
from nash_swarm.quantizers.formats.native.grid import dequantize, row_widths
from nash_swarm.quantizers.rounding.rtn import RoundToNearest

TOKENS = np.random.default_rng(5).integers(0, VOCABULARY, (6, 32)).astype(np.int32)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("granularity", ["layer", "tile"])
def test_deltas_are_gradients_times_rounding_errors(name: str, granularity: Any) -> None:
    model = MODELS[name]()
    game = ns.measure(model, tokens=TOKENS, granularity=granularity, strategies=(2, 4, 16), quiet=True)
    deltas = sequence_deltas(model, game, quiet=True)
    expected = np.zeros_like(deltas)
    matrices = {matrix.name: matrix for matrix in find_matrices(model)}
    for window, row in enumerate(TOKENS):
        ids = torch.from_numpy(row.astype(np.int64))[None]
        model.zero_grad()
        (model(ids, labels=ids).loss * (ids.shape[1] - 1)).backward()
        for tensor in game.tensors:
            matrix, order = matrices[tensor.name], game.permutations.get(tensor.name, np.arange(tensor.columns))
            gradient = matrix.parameter.grad
            assert gradient is not None
            stored = (gradient.T if matrix.kind == "conv1d" else gradient).numpy()[:, order]
            weight = np.ascontiguousarray(matrix.weight().numpy()[:, order])
            for place, bits in enumerate((2, 4)):
                widths = np.full((tensor.row_tiles, tensor.groups), bits, np.uint8)
                got = RoundToNearest().round(weight, widths, tensor)
                by_row = row_widths(widths, tensor)
                rounded = dequantize(got.codes, got.scale_codes, got.zeros, got.base, by_row, tensor)
                product = (stored * (rounded - weight)).astype(np.float64)
                tiles = np.zeros((tensor.row_tiles, tensor.groups))
                cells = np.add.reduceat(product, np.arange(0, tensor.columns, tensor.group_size), axis=1)
                np.add.at(tiles, np.arange(tensor.rows) // 16, cells)
                expected[window, tensor.span, place] = tensor.gather(tiles)
    np.testing.assert_allclose(deltas, expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max())
    assert not deltas[:, :, 2].any()


def test_a_coupled_game_keeps_own_damage_and_shares_communities() -> None:
    model = tiny_llama(tied=True)
    game = ns.measure(model, tokens=TOKENS, quiet=True)
    coupled, shrinkage = couple(model, game, rank=4, quiet=True)
    assert coupled.coupling is not None
    lengths = np.square(coupled.coupling.vectors).sum(-1)
    np.testing.assert_allclose(lengths, 2 * game.damage, rtol=1e-3, atol=1e-12)
    assert 0 <= shrinkage.strength <= 1
    of = {tensor.name.split(".", 2)[-1]: coupled.coupling.community[tensor.start] for tensor in game.tensors}
    assert of["0.self_attn.q_proj"] == of["0.self_attn.v_proj"] != of["0.self_attn.o_proj"]
    assert of["0.mlp.gate_proj"] == of["0.mlp.up_proj"] != of["1.mlp.gate_proj"]
    assert np.array_equal(coupled.damage, game.damage)


def test_scope_linear_and_a_model_in_train_mode_are_measured_alike() -> None:
    model = tiny_gpt2()
    game = ns.measure(model, tokens=TOKENS, scope="linear", quiet=True)
    expected = sequence_deltas(model, game, quiet=True)
    model.train()
    assert np.array_equal(sequence_deltas(model, game, quiet=True), expected)
    assert model.training


def test_the_graph_is_positive_semi_definite_and_fades_with_distance() -> None:
    near = neighbourhood(ns.measure(tiny_gpt2(), tokens=TOKENS, quiet=True).tensors)
    graph = near.graph(2.0, 0.5)
    assert np.linalg.eigvalsh(graph).min() > -1e-12
    assert graph.max() == pytest.approx(0.5)
    blocks = np.flatnonzero((near.position == 0) | (near.position == 1))
    first, second = blocks[near.position[blocks] == 0][0], blocks[near.position[blocks] == 1][0]
    assert graph[first, second] == pytest.approx(0.5 * np.exp(-0.5))


def test_shrinkage_finds_planted_coupling_and_refuses_noise() -> None:
    game = ns.measure(tiny_llama(tied=True), tokens=TOKENS, quiet=True)
    near = neighbourhood(game.tensors)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(24, game.agents, 6)).astype(np.float32) * np.sqrt(game.damage)
    common = rng.normal(size=(24, 1, 1)).astype(np.float32) * np.sqrt(game.damage)
    assert choose_shrinkage(game, common + 0.1 * noise, near, rng).strength > 0.5
    assert choose_shrinkage(game, noise, near, rng).strength < 0.3
    few = Neighbourhood(near.community, near.position)
    assert choose_shrinkage(game, noise[:2], few, rng).strength == 0


def test_games_without_text_or_of_single_weights_are_refused() -> None:
    model = tiny_llama(tied=True)
    with pytest.raises(UsageError, match="calibration text"):
        couple(model, ns.measure(model, text=None, damage="magnitude", quiet=True))
    with pytest.raises(UsageError, match="single weights"):
        couple(model, ns.measure(model, tokens=TOKENS, granularity="parameter", quiet=True))
