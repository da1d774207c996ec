from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nash_swarm.errors import BudgetError, UsageError
from nash_swarm.game import BitGame, Budget
from nash_swarm.game.reduction import reduce_game
from nash_swarm.game.rules import VLLM_FUSION, Rules
from nash_swarm.quantizers.formats.known import cut
from nash_swarm.solvers.base import Callback, Play
from nash_swarm.solvers.dp import Dp
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.testing import check_solver, oracles
from nash_swarm.testing.games import sample_game, sample_model_game


@pytest.fixture
def model() -> BitGame:
    rng = np.random.default_rng(0)
    while (game := sample_model_game(rng)).provenance["kind"] != "block" or game.strategies[0] == 16:
        pass
    return game


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_the_reduced_game_has_the_optimum_over_what_is_permitted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    game = sample_game(rng, most_agents=5)
    agents, count = game.damage.shape
    if count**agents > 4**6:
        return
    allowed = rng.random((agents, count)) < 0.6
    allowed[np.arange(agents), rng.integers(0, count, agents)] = True
    fusion = rng.integers(-1, 2, agents).astype(np.int32)
    for label in (0, 1):
        allowed[fusion == label, rng.integers(count)] = True  # something that the whole group may play
    tables = game.damage.copy(), game.memory.copy()
    reduced, expand = reduce_game(game, allowed, fusion)
    everything = oracles.profiles(game)
    permitted = allowed[np.arange(agents), everything].all(axis=1)
    for label in (0, 1):
        together = everything[:, fusion == label]
        permitted &= (together == together[:, :1]).all(axis=1) if together.shape[1] else True
    everything = everything[permitted]
    bits = game.memory[np.arange(agents), everything].sum(axis=1)
    damage = game.damage[np.arange(agents), everything].sum(axis=1, dtype=np.float64)
    assert reduced.smallest_bits() == bits.min() + game.fixed_bits
    assert reduced.largest_bits() == bits.max() + game.fixed_bits
    capacity = int(rng.integers(bits.min(), bits.max() + 1))
    found = Dp().solve(reduced, Budget(capacity + game.fixed_bits, "")).choices
    choices = expand(found)
    assert choices.dtype == np.uint8
    assert (everything == choices).all(axis=1).any()
    assert game.used_bits(choices) == reduced.used_bits(found)
    assert game.total_damage(choices) == pytest.approx(damage[bits <= capacity].min(), rel=1e-6)
    assert np.array_equal(tables[0], game.damage)
    assert np.array_equal(tables[1], game.memory)


def test_a_game_without_restrictions_shares_its_tables(game: BitGame) -> None:
    for allowed in (None, np.ones(game.damage.shape, np.bool_)):
        reduced, expand = reduce_game(game, allowed)
        assert reduced.damage is game.damage
        assert reduced.memory is game.memory
        choices = np.full(game.agents, 3, np.uint8)
        assert np.array_equal(expand(choices), choices)


def test_restrictions_of_the_wrong_shape_are_refused(game: BitGame) -> None:
    with pytest.raises(UsageError, match="shape"):
        reduce_game(game, np.ones((2, 2), np.bool_))
    with pytest.raises(UsageError, match="shape"):
        reduce_game(game, fusion=np.zeros(2, np.int32))
    with pytest.raises(UsageError, match="no strategy left"):
        reduce_game(game, np.zeros(game.damage.shape, np.bool_))
    many = BitGame(tuple(range(2, 11)), np.ones((1, 9), np.float32), np.arange(1, 10)[None, :])
    with pytest.raises(UsageError, match="more than 8"):
        reduce_game(many, np.ones((1, 9), np.bool_))


def test_names_match_whole_last_parts_and_the_tied_head(model: BitGame) -> None:
    width = model.strategies[-1]
    budget = Budget(model.largest_bits(), "all")
    tensors = {tensor.name: tensor for tensor in model.tensors}
    for pattern, expected in [
        ("lm_head", {"model.embed_tokens"}),
        ("embed_tokens", {"model.embed_tokens"}),
        ("mlp.down_proj", {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}),
        ("model.layers.0.*_proj", {name for name in tensors if ".0." in name}),
        ("q_proj", {name for name in tensors if name.endswith("q_proj")}),
    ]:
        found = Lagrangian().solve(model, budget, rules=Rules(keep={pattern: model.strategies[0]}))
        pinned = {name for name, tensor in tensors.items() if (found.widths(tensor) == model.strategies[0]).all()}
        assert pinned == expected
        found = Lagrangian().solve(model, budget, rules=Rules(forbid={pattern: (width,)}))
        assert {name for name, tensor in tensors.items() if (found.widths(tensor) != width).all()} == expected


def test_regret_is_over_what_is_permitted(model: BitGame) -> None:
    rules = Rules(keep={"q_proj": model.strategies[0], "down_proj": model.strategies[-1]})
    budget = Budget((model.smallest_bits() + model.largest_bits()) // 2, "half")
    found = Lagrangian().solve(model, budget, rules=rules)
    told = found.certificate
    assert told.unilateral_regret < oracles.unilateral_regret(model, found.choices, told.price)
    assert told.lower_bound <= told.predicted_damage == pytest.approx(model.total_damage(found.choices))
    assert told.lower_bound > Lagrangian().solve(model, budget).certificate.predicted_damage


def test_rules_that_do_not_fit_the_game_are_refused(model: BitGame, game: BitGame) -> None:
    budget = Budget(model.largest_bits(), "all")
    wide, narrow = model.strategies[-1], model.strategies[0]
    for rules, message in [
        (Rules(keep={"nothing": wide}), "no tensor matches 'nothing'; there are model.embed_tokens"),
        (Rules(keep={"lm_head": 7}), "widths are"),
        (Rules(keep={"lm_head": wide, "embed_*": narrow}), "no width is left for model.embed_tokens"),
        (Rules(forbid={"q_proj": model.strategies}), "no width is left for .*q_proj"),
        (Rules(fuse=(("a", "b"),)), "fuse a,b: no tensor"),
        (Rules(keep={"q_proj": wide, "k_proj": narrow}, fuse=VLLM_FUSION), "no strategy left"),
    ]:
        with pytest.raises(UsageError, match=message):
            Lagrangian().solve(model, budget, rules=rules)
    with pytest.raises(UsageError, match="tensor names"):
        Lagrangian().solve(game, Budget(game.largest_bits(), ""), rules=Rules(keep={"x": 8}))
    with pytest.raises(UsageError, match="each name once"):
        Rules(fuse=(("a", "b"), ("b", "c")))


def test_pins_that_do_not_fit_the_budget_are_named(model: BitGame) -> None:
    budget = Budget(model.smallest_bits(), "smallest")
    rules = Rules(keep={"lm_head": model.strategies[-1]})
    with pytest.raises(BudgetError, match=r"smallest feasible budget .* bytes .* under the rules \(keep lm_head="):
        Lagrangian().solve(model, budget, rules=rules)


def test_conflicts_name_the_tensor_its_agents_and_the_options(model: BitGame) -> None:
    narrow, wide = model.strategies[0], model.strategies[-1]
    tensor = next(one for one in model.tensors if one.name.endswith("layers.0.self_attn.q_proj"))
    others = ",".join(map(str, model.strategies[1:]))
    for rules, words in [
        (
            Rules(keep={"q_proj": narrow}, forbid={"*.0.*": (narrow,)}),
            [f"no width is left for {tensor.name}", f"{tensor.agents:,} agent", f"widths {list(model.strategies)}",
             f"--keep q_proj={narrow} and --forbid *.0.*={narrow} rule out all"],
        ),
        (
            Rules(keep={"q_proj": narrow, "layers.0.*": wide}),
            [tensor.name, f"--keep q_proj={narrow} and --keep layers.0.*={wide}"],
        ),
        (
            Rules(keep={"q_proj": wide}, forbid={"k_proj": (wide,)}, fuse=VLLM_FUSION),
            ["--fuse q_proj,k_proj,v_proj", f"{tensor.name} (", f"is left [{wide}] by --keep q_proj={wide}",
             "k_proj (", f"is left {list(model.strategies[:-1])} by --forbid k_proj={wide}",
             "v_proj (", f"{list(model.strategies)} by no other rule"],
        ),
        (
            Rules(forbid={"gate_proj": model.strategies[1:], "up_proj": (narrow,)}, fuse=VLLM_FUSION),
            ["--fuse gate_proj,up_proj", f"[{narrow}] by --forbid gate_proj={others}"],
        ),
    ]:  # fmt: skip
        with pytest.raises(UsageError) as raised:
            rules.apply(model)
        message = str(raised.value)
        assert all(word in message for word in words) and "\n" not in message, message


def siblings(key_columns: int) -> tuple[BitGame, Rules]:
    """A layer whose keys have fewer rows than its queries, and the rule that fuses the two."""
    query = cut("a.q_proj", "linear", (64, 192), "tile", group_size=64)
    key = cut("a.k_proj", "linear", (32, key_columns), "tile", group_size=64, start=query.agents)
    memory = np.concatenate([query.memory((2, 4)), key.memory((2, 4))])
    damage = np.random.default_rng(0).exponential(size=memory.shape).astype(np.float32)
    return BitGame((2, 4), damage, memory, tensors=(query, key)), Rules(fuse=(("q_proj", "k_proj"),))


def test_siblings_of_unequal_heights_are_fused_by_column() -> None:
    game, rules = siblings(192)
    reduced, expand = rules.apply(game)
    assert reduced.agents == 3
    rows = [np.arange(12).reshape(4, 3), 12 + np.arange(6).reshape(2, 3)]
    for column in range(3):
        members = np.concatenate([each[:, column] for each in rows])
        np.testing.assert_allclose(reduced.damage[column], game.damage[members].sum(0), rtol=1e-6)
        assert np.array_equal(reduced.memory[column], game.memory[members].sum(0))
        assert np.flatnonzero(expand((np.arange(3) == column).astype(np.uint8))).tolist() == members.tolist()


def test_fusing_grids_of_unequal_widths_is_refused() -> None:
    game, rules = siblings(128)
    with pytest.raises(UsageError, match="unequal numbers of columns"):
        Lagrangian().solve(game, Budget(game.largest_bits(), ""), rules=rules)


def test_rules_are_read_from_text_and_kept_as_json() -> None:
    rules = Rules.parse(["lm_head=8", "layers.0.*=6"], ["down_proj=2, 3"], ["q_proj, k_proj"])
    assert rules == Rules({"lm_head": 8, "layers.0.*": 6}, {"down_proj": (2, 3)}, (("q_proj", "k_proj"),))
    assert Rules.from_json(rules.to_json()) == rules
    assert str(rules) == "keep lm_head=8; keep layers.0.*=6; forbid down_proj=2,3; fuse q_proj,k_proj"
    assert not Rules.parse()
    for keep in (["lm_head"], ["lm_head=x"], ["=8"], ["lm_head=4,8"], ["a=4", "a=8"]):
        with pytest.raises(UsageError):
            Rules.parse(keep)


def test_the_contract_suite_notices_a_solver_that_ignores_rules() -> None:
    class Deaf(Lagrangian):
        def solve(self, *args: object, rules: object = None, **more: object) -> object:
            return super().solve(*args, **more)

    with pytest.raises(AssertionError, match=r"pinned|forbidden|alike|provenance"):
        check_solver(Deaf(), examples=5)


def test_solvers_play_the_reduced_game(model: BitGame) -> None:
    agents = []

    class Spy(Lagrangian):
        def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
            agents.append(game.agents)
            return super().play(game, capacity, rng=rng, callback=callback)

    Spy().solve(model, Budget(model.largest_bits(), ""), rules=Rules(fuse=VLLM_FUSION))
    groups = model.tensors[-1].agents  # of each layer's tensors; five of six are fused into two
    assert agents == [model.agents - 2 * 3 * groups]


def test_widths_that_are_forbidden_twice_add_up() -> None:
    rules = Rules.parse(forbid=["down_proj=2", "down_proj=3,2", "up_proj=8"])
    assert rules.forbid == {"down_proj": (2, 3), "up_proj": (8,)}
