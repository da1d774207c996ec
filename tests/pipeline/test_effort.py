"""Efforts: named, overridable, refused early where they cannot be had, and what they did is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.bench import Bench

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import read_report
from nash_swarm.calibration.text import choose_windows, cut_windows, load_text
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import Calibration
from nash_swarm.models.source import load_source
from nash_swarm.names import GRANULARITIES, Granularity
from nash_swarm.pipeline.candidates import trial_windows
from nash_swarm.quantizers.formats.base import layouts_of
from nash_swarm.quantizers.formats.native.format import N16K32
from nash_swarm.quantizers.formats.per_weight.format import PerWeight
from nash_swarm.recipe import EFFORTS, Cut, Measuring, Recipe, Rounding, Solving, Tuning, find_effort

QUICK = Recipe(
    Cut(group_size=96), Measuring(windows=2), Solving(baselines=False),
    tuning=Tuning(steps=4, batch=1, check=2, windows=4),
)  # fmt: skip


def test_each_effort_asks_for_no_less_than_the_one_before() -> None:
    efforts = list(EFFORTS.values())
    windows = [effort.measuring.windows for effort in efforts]
    assert windows == sorted(windows)
    assert efforts[-1].tuning is not None and efforts[-1].tuning.windows >= windows[-1]
    assert find_effort("best") is EFFORTS["best"]
    with pytest.raises(UsageError, match="choose one of fast, default, best"):
        find_effort("extreme")


def test_a_tuned_model_is_saved_with_what_tuning_did(bench: Bench, tmp_path: Path) -> None:
    done = ns.compress(
        str(bench.model), bits=5.0, text=str(bench.text), out=tmp_path / "out", recipe=QUICK, eval_windows=1, quiet=True
    )
    assert list(done.tuning) == [0, 2, 4]
    assert {tensor.group_size for tensor in done.allocation.tensors} == {96}
    told = read_report(done.path)["measured"]
    assert told["tuning_kept"] in done.tuning
    assert 0.99 * 5.0 <= done.bits_per_parameter <= 5.0
    plain = ns.compress(
        str(bench.model), bits=5.0, text=str(bench.text), out=tmp_path / "plain",
        recipe=replace(QUICK, tuning=None), eval_windows=0, quiet=True,
    )  # fmt: skip
    assert not plain.tuning
    assert done.allocation.choices.tolist() == plain.allocation.choices.tolist()


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity_can_be_had(granularity: Granularity, bench: Bench, tmp_path: Path) -> None:
    done = ns.compress(
        str(bench.model), bits=6.0, text=str(bench.text), out=tmp_path / "out", effort="fast", windows=2,
        granularity=granularity, eval_windows=1, quiet=True,
    )  # fmt: skip
    known = {layout.format for layout in layouts_of(done.allocation.tensors)}
    group_size = find_effort("fast").cut.group_size
    assert known == {PerWeight(group_size) if granularity == "parameter" else N16K32(group_size, "normal")}


def test_tuning_is_refused_before_anything_is_measured(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="parameter granularity"):
        ns.compress(
            str(bench.model), bits=8.0, text=str(bench.text), out=tmp_path / "out", recipe=QUICK,
            granularity="parameter", quiet=True,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_rounding_takes_more_text_than_the_damage(bench: Bench, tmp_path: Path) -> None:
    few = replace(QUICK, tuning=None)
    more = replace(few, rounding=Rounding(windows=6))
    made = {
        name: ns.compress(
            str(bench.model), bits=5.0, text=str(bench.text), out=tmp_path / name, recipe=recipe, baselines=baselines,
            eval_windows=1, quiet=True,
        )
        for name, recipe, baselines in (
            ("few", few, False),
            ("more", more, False),
            ("tried", more, True),
        )
    }  # fmt: skip
    choices = {name: done.allocation.choices.tolist() for name, done in made.items()}
    tokens = {name: read_report(done.path)["measured"]["rounding_tokens"] for name, done in made.items()}
    codes = {name: (done.path / "model.safetensors").read_bytes() for name, done in made.items()}
    assert tokens["more"] == tokens["tried"] == 3 * tokens["few"]
    # the game is the same, what is made of its allocation is not
    assert choices["few"] == choices["more"]
    assert codes["few"] != codes["more"]
    # the winner of the baseline check is rounded with the same text as an allocation without one
    assert (codes["tried"] == codes["more"]) == (choices["tried"] == choices["more"])


def test_candidates_are_tried_on_text_that_nothing_was_rounded_with(bench: Bench) -> None:
    source, text = load_source(str(bench.model)), load_text(str(bench.text))
    cut = cut_windows(text, source.tokenizer, part="calibration")
    assert len(cut) > 6
    game = ns.measure(source.model, tokens=cut[:2], quiet=True)
    rounding = Calibration(choose_windows(cut, len(cut) - 1, np.random.default_rng(0)), "text")
    seen = {window.tobytes() for window in [*cut[:2], *rounding.tokens]}
    tried = trial_windows(source.model, game, text, source.tokenizer, np.random.default_rng(0), rounding=rounding)
    fresh = [window for window in cut if window.tobytes() not in seen]
    assert len(seen) < len(cut) and [window.tobytes() for window in tried] == [window.tobytes() for window in fresh]
