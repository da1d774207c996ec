from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.models import MODELS, ByteTokenizer, tiny_gpt2, tiny_llama
from support.statistics import watch

import nash_swarm as ns
from nash_swarm import registry
from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.fisher import Fisher
from nash_swarm.damage.table import damage_table
from nash_swarm.errors import DataError, UsageError
from nash_swarm.game import Calibration
from nash_swarm.models.walk import Matrix, count_parameters, find_blocks, find_matrices
from nash_swarm.pipeline.gathering import gather
from nash_swarm.quantizers.rounding.hessian import inverse_factor, reordered

Ids = npt.NDArray[np.int32]
ESTIMATORS = registry.names("damage")


def collected(
    model: Any, tokens: Ids, estimator: str, **settings: Any
) -> tuple[dict[str, Statistics], list[Matrix], list[float]]:
    """What the streaming walk finds, by matrix name."""
    loss: list[float] = []
    matrices = list(find_matrices(model))
    walk = gather(model, matrices, Calibration(tokens, "ids"), registry.create("damage", estimator, **settings), loss)
    return {matrix.name: statistics for matrix, statistics in walk}, matrices, loss


@pytest.mark.parametrize("estimator", ["fisher", "activation"])
def test_walking_block_by_block_sees_what_the_whole_model_sees(model: Any, tokens: Ids, estimator: str) -> None:
    settings = {"labels": "text"} if estimator == "fisher" else {}
    found, matrices, loss = collected(model, tokens, estimator, **settings)
    uses = [matrix.name for matrix in matrices] + [matrix.head for matrix in matrices if matrix.head]
    seen, expected_loss = watch(model, uses, tokens)
    assert set(found) == {matrix.name for matrix in matrices}
    if estimator == "fisher":
        assert loss == pytest.approx([expected_loss], rel=1e-5)
    for matrix in matrices:
        statistics = found[matrix.name]
        if matrix.kind in ("embedding", "tied"):
            looked = seen[matrix.name]
            counts = looked.counts(matrix.shape[0])
            assert statistics.lookups is not None
            # positions are looked up once a batch when there is no backward pass: only their shares matter
            np.testing.assert_allclose(statistics.lookups / statistics.lookups.sum(), counts / counts.sum(), rtol=1e-12)
            if estimator == "fisher":
                assert statistics.gradients is not None
                np.testing.assert_allclose(statistics.gradients, looked.squares(), rtol=1e-3)
                assert float(statistics.lookups.sum()) == counts.sum()
        if matrix.kind != "embedding":
            multiplied = seen[matrix.head or matrix.name]
            hessian = statistics.hessian()
            assert hessian is not None and statistics.tokens == tokens.size
            expected = multiplied.hessian()
            np.testing.assert_allclose(hessian, expected, rtol=1e-3, atol=1e-5 * expected.max())
            if estimator == "fisher":
                assert statistics.outputs is not None
                np.testing.assert_allclose(statistics.outputs, multiplied.squares(), rtol=1e-3)


def test_whole_windows_gradients_in_the_basis_of_compensation(model: Any, tokens: Ids) -> None:
    fisher = Fisher(labels="text", whole_windows=True)
    found, matrices, _ = collected(model, tokens, "fisher", labels="text", whole_windows=True)
    apart, _, _ = collected(model, tokens, "fisher", labels="text", whole_windows=False)
    blocks = find_blocks(model)[0]
    seen, _ = watch(model, [matrix.name for matrix in matrices], tokens)
    for matrix in matrices:
        statistics = found[matrix.name]
        assert (statistics.projected is not None) == matrix.name.startswith(blocks)
        if statistics.projected is None:
            continue
        order = statistics.activation_order()
        factor = inverse_factor(reordered(statistics.hessian(), order), fisher.damping).astype(np.float64)
        expected = np.zeros(matrix.shape)
        for x, gradient in zip(seen[matrix.name].inputs, seen[matrix.name].gradients, strict=True):
            whole = (gradient.T.double() @ x.double()).numpy()
            expected += (whole[:, order] @ factor.T) ** 2
        np.testing.assert_allclose(statistics.projected, expected, rtol=0.02, atol=1e-4 * expected.max())
        np.testing.assert_allclose(statistics.outputs, apart[matrix.name].outputs, rtol=1e-3)
        made = fisher.sensitivity(matrix.weight().numpy(), statistics, matrix.kind)
        cost = made.rows.T.astype(np.float64) @ made.columns * factor.diagonal() ** 2
        np.testing.assert_allclose(cost.mean(1), 0.5 * expected.mean(1) / tokens.size, rtol=0.02)
        np.testing.assert_allclose(cost.mean(0), 0.5 * expected.mean(0) / tokens.size, rtol=0.02)


def test_windows_without_a_dimension_of_their_own_count_as_one() -> None:
    rng = np.random.default_rng(0)
    x, gradient = (torch.from_numpy(rng.standard_normal((2, 5, n))).float() for n in (4, 3))
    apart, together = Statistics(factor=np.eye(4, dtype=np.float32)), Statistics(factor=np.eye(4, dtype=np.float32))
    for statistics in (apart, together):
        statistics.add_inputs(x)
    apart.add_projected(gradient, apart.project(x))
    together.add_projected(gradient.flatten(0, 1), together.project(x.flatten(0, 1)))
    order, windows = apart.activation_order(), [(g.T @ p).numpy() for g, p in zip(gradient, x, strict=True)]
    np.testing.assert_allclose(apart.projected, sum(w**2 for w in windows)[:, order], rtol=1e-5)
    np.testing.assert_allclose(together.projected, (sum(windows) ** 2)[:, order], rtol=1e-5)


def test_the_size_of_a_batch_does_not_matter(tokens: Ids) -> None:
    model = tiny_gpt2()
    found, _, _ = collected(model, tokens, "fisher")
    alone = {}
    for window in tokens:
        part, _, _ = collected(model, window[None], "fisher")
        for name, statistics in part.items():
            gradients = statistics.gradients if statistics.gradients is not None else statistics.outputs
            alone[name] = alone.get(name, 0) + gradients
    for name, statistics in found.items():
        gradients = statistics.gradients if statistics.gradients is not None else statistics.outputs
        np.testing.assert_allclose(gradients, alone[name], rtol=1e-3)


@pytest.mark.parametrize("granularity", ["layer", "block", "tile", "parameter"])
@pytest.mark.parametrize("damage", ESTIMATORS)
def test_games_of_every_kind(damage: str, granularity: str, tokens: Ids) -> None:
    for name, make in MODELS.items():
        model = make()
        strategies = (2, 3, 4, 8) if granularity == "parameter" else (2, 3, 4, 8, 16)
        wanted = {"damage": damage, "granularity": granularity, "strategies": strategies}
        game = ns.measure(model, tokens=tokens, **wanted, group_size=32, quiet=True)
        matrices = find_matrices(model)
        assert [tensor.name for tensor in game.tensors] == [matrix.name for matrix in matrices]
        assert game.agents == sum(tensor.agents for tensor in game.tensors)
        assert game.parameters == sum(parameter.numel() for parameter in model.parameters()), name
        assert (game.damage >= 0).all() and game.damage.dtype == np.float32
        # wider is better for nearly every agent, and always in total
        assert (np.diff(game.damage, axis=1) <= 0).mean() > (0.6 if granularity == "parameter" else 0.99)
        totals = game.damage.sum(axis=0, dtype=np.float64)
        assert (np.diff(totals) < 0).all() and totals[3] < 0.01 * totals[0]
        if granularity != "parameter":
            assert totals[4] == 0
        assert set(game.permutations) == {tensor.name for tensor in game.tensors if tensor.ordered}
        assert bool(game.permutations) == (damage != "magnitude")
        assert game.provenance["damage"] == damage and game.provenance["granularity"] == granularity


def test_coarser_agents_suffer_what_their_tiles_suffer(tokens: Ids) -> None:
    model = tiny_llama(tied=True)
    games = {
        granularity: ns.measure(model, tokens=tokens, granularity=granularity, group_size=32, quiet=True)
        for granularity in ("layer", "block", "tile")
    }
    for coarse, fine in zip(games["layer"].tensors, games["tile"].tensors, strict=True):
        expected = games["tile"].damage[fine.span].sum(axis=0)
        for granularity, tensor in (
            ("layer", coarse),
            ("block", next(t for t in games["block"].tensors if t.name == fine.name)),
        ):
            np.testing.assert_allclose(games[granularity].damage[tensor.span].sum(axis=0), expected, rtol=1e-4)
        tiles = games["tile"].memory[fine.span].sum(axis=0)
        np.testing.assert_array_equal(games["layer"].memory[coarse.span].sum(axis=0), tiles)


def test_fisher_damage_of_the_whole_chain(model: Any, tokens: Ids) -> None:
    fisher = Fisher(labels="text", whole_windows=False)
    game = ns.measure(model, tokens=tokens, damage=fisher, granularity="layer", group_size=32, quiet=True)
    matrices = find_matrices(model)
    seen, _ = watch(model, [matrix.name for matrix in matrices] + [m.head for m in matrices if m.head], tokens)
    for layout, matrix in zip(game.tensors, matrices, strict=True):
        statistics = Statistics()
        if matrix.kind != "embedding":
            use = seen[matrix.head or matrix.name]
            statistics.add_inputs(torch.cat(use.inputs))
            statistics.add_output_gradients(torch.cat(use.gradients))
        if matrix.kind in ("embedding", "tied"):
            statistics.add_lookups(torch.cat(seen[matrix.name].index), matrix.shape[0])
            statistics.add_lookup_gradients(torch.cat(seen[matrix.name].gradients))
        weight = matrix.weight().contiguous().numpy()
        expected = damage_table(weight, fisher.sensitivity(weight, statistics, matrix.kind), layout, game.strategies)
        np.testing.assert_allclose(game.damage[layout.span], expected, rtol=0.02)


def test_the_model_is_left_as_it_was(tokens: Ids) -> None:
    model = tiny_gpt2()
    model.train()
    model.transformer.h[0].eval()
    next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    first = ns.measure(model, tokens=tokens, group_size=32, quiet=True)
    # dropout would make the second game differ from the first
    np.testing.assert_array_equal(first.damage, ns.measure(model, tokens=tokens, group_size=32, quiet=True).damage)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all("forward" not in vars(module) for module in model.modules())


def test_the_seed_chooses_the_windows(tmp_path: Any) -> None:
    model = tiny_llama(tied=True)
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(32 + i * i % 90) for i in range(4000)))

    def game(seed: int) -> Any:
        return ns.measure(
            model, ByteTokenizer(), text=str(path), seed=seed, windows=3, length=32, damage="activation", quiet=True
        )

    one, same, other = game(0), game(0), game(1)
    np.testing.assert_array_equal(one.damage, same.damage)
    assert one.calibration.tokens.shape == (3, 32) and one.calibration.source == "text.txt"
    assert not np.array_equal(one.calibration.tokens, other.calibration.tokens)
    assert one.provenance["text"] == "text.txt" and one.provenance["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damage": "guess"}, "no damage named 'guess'"),
        ({"granularity": "row"}, "granularity"),
        ({"strategies": (2, 7)}, r"\[7\]"),
        ({"strategies": ()}, "strategies"),
        ({"strategies": (2, 16), "granularity": "parameter"}, r"\[16\]"),
        ({"scope": "half"}, "scope"),
        ({"group_size": 33}, "multiple of 32"),
        ({"tokens": None}, "needs text and a tokenizer"),
    ],
)
def test_what_cannot_be_measured_is_a_usage_error(arguments: dict[str, Any], message: str, tokens: Ids) -> None:
    with pytest.raises(UsageError, match=message):
        ns.measure(tiny_llama(tied=True), **{"tokens": tokens, "quiet": True} | arguments)


def test_no_windows_are_a_usage_error(tmp_path: Any) -> None:
    path = tmp_path / "text.txt"
    path.write_text("x" * 4000)
    with pytest.raises(UsageError, match="number of windows"):
        ns.measure(tiny_llama(tied=True), ByteTokenizer(), text=str(path), windows=0, quiet=True)


@pytest.mark.parametrize(
    "tokens", [np.full((2, 8), 101), np.full((2, 8), -1), np.zeros((0, 8)), np.zeros((8, 1)), np.zeros(8)]
)
def test_tokens_that_are_none_of_the_model(tokens: npt.NDArray[Any]) -> None:
    with pytest.raises(DataError, match="calibration tokens"):
        ns.measure(tiny_llama(tied=True), tokens=tokens.astype(np.int32), quiet=True)


@pytest.mark.parametrize("damage", ESTIMATORS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_weights_are_named(damage: str, value: float, tokens: Ids) -> None:
    model = tiny_llama(tied=True)
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = value
    with pytest.raises(DataError, match=r"layers\.1\.mlp\.up_proj"):
        ns.measure(model, tokens=tokens, damage=damage, quiet=True)


def test_which_matrices_play() -> None:
    kinds = {name: [matrix.kind for matrix in find_matrices(make())] for name, make in MODELS.items()}
    assert kinds["llama"] == ["embedding"] + ["linear"] * 15
    assert kinds["tied llama"] == ["tied"] + ["linear"] * 14
    assert kinds["gpt2"] == ["tied", "embedding"] + ["conv1d"] * 8
    for make in MODELS.values():
        model = make()
        inside = find_matrices(model, "linear")
        assert all(".0." in matrix.name or ".1." in matrix.name for matrix in inside) and len(inside) in (14, 8)
        assert count_parameters(model, inside, "linear") == sum(matrix.weight().numel() for matrix in inside)
        everything = find_matrices(model)
        assert count_parameters(model, everything, "model") == model.num_parameters()
    with pytest.raises(UsageError, match="no list of transformer blocks"):
        find_matrices(torch.nn.Linear(3, 3))


def test_shares_of_look_ups_leave_something_for_unseen_rows() -> None:
    statistics = Statistics()
    statistics.add_lookups(torch.tensor([0, 0, 0, 1, 5]), 10)
    shares = statistics.lookup_shares()
    assert shares.sum() == pytest.approx(1) and (shares > 0).all()
    assert shares[0] == max(shares) and shares[2] > shares[9] and shares[1] > shares[2]


def test_single_weights_are_not_coupled(tokens: Ids) -> None:
    with pytest.raises(UsageError, match="not of single weights"):
        ns.measure(tiny_llama(tied=False), tokens=tokens, granularity="parameter", coupling=True, quiet=True)
