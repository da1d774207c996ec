"""The comparison with other tools: what is counted, what is compared with what, and how a tool is run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.benchmarks import script
from support.models import VOCABULARY, tiny_llama

from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.runtime.modules import PackedWeight
from nash_swarm.recipe import Cut, Measuring, Recipe

script("peers")  # its tools can be imported from here on

from peer_tools.contest import packed_bits, parse_spec, words  # noqa: E402
from peer_tools.exchange import ToolError, run_tool, scaled_bits, spread  # noqa: E402
from peer_tools.gptq import gptq, grid, second_moments  # noqa: E402
from peer_tools.ours import Ours, measured_game  # noqa: E402
from peer_tools.picture import best_by_bits, draw  # noqa: E402
from peer_tools.table import (  # noqa: E402
    Row,
    compare,
    markdown,
    markdown_comparisons,
    read_rows,
    write_rows,
)


def row(method: str, bits: float, kl: float) -> Row:
    return Row(method, "settings", bits, 3.5, 33.0, kl, 0.75, 12.0)


def test_bits_of_a_matrix_count_short_groups_like_long_ones() -> None:
    assert scaled_bits((3, 130), 4, 64, 20) == 3 * (130 * 4 + 3 * 20)
    # the block of SmolLM2-135M with 3 bits, group 128, half-precision scale and 3-bit zero-point
    shapes = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]
    bits = sum(scaled_bits(shape, 3, 128, 19) for shape in shapes)
    assert round(bits / sum(rows * columns for rows, columns in shapes), 4) == 3.1608


def test_windows_are_spread() -> None:
    assert spread(np.arange(128), 32).tolist() == list(range(0, 128, 4))
    assert spread(np.arange(5), 9).tolist() == list(range(5))
    assert spread(torch.arange(10), 3).tolist() == [0, 3, 6]


def test_gptq_is_rounding_where_columns_do_not_interact() -> None:
    weight = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    scale, zero = (part.repeat_interleave(16, dim=1)[:, :40] for part in grid(weight, 3, 16))
    nearest = ((weight / scale).round() + zero).clamp(0, 7)
    torch.testing.assert_close(gptq(weight, torch.eye(40), 3, 16, 0.01), (nearest - zero) * scale)
    assert ((weight - (nearest - zero) * scale).abs() <= scale * 0.51 + 1e-3).all()


@pytest.mark.parametrize("width", [2, 4])
def test_gptq_loses_less_of_the_outputs_than_rounding(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(24, 150, generator=generator)  # two blocks of columns
    inputs = torch.randn(400, 150, generator=generator) @ torch.randn(150, 150, generator=generator)
    hessian = inputs.T @ inputs / 400
    hessian[:, 3] = hessian[3] = 0  # a column that is never used
    scale, zero = (part.repeat_interleave(32, dim=1)[:, :150] for part in grid(weight, width, 32))
    nearest = (((weight / scale).round() + zero).clamp(0, 2**width - 1) - zero) * scale
    found = gptq(weight, hessian, width, 32, 0.01)
    steps = found / scale + zero
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.min() >= 0 and steps.max() <= 2**width - 1 + 1e-3

    def lost(other: torch.Tensor) -> float:
        return float(((other - weight) @ hessian * (other - weight)).sum())

    assert lost(found) < 0.6 * lost(nearest)


def test_second_moments_are_those_of_the_inputs() -> None:
    model, tokens = tiny_llama(tied=True), torch.arange(96).reshape(3, 32) % VOCABULARY
    names = ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.0.mlp.down_proj"]
    found = second_moments(model, names, tokens)
    assert found[names[0]] is found[names[1]]  # they read the same
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(names[2]).register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    with torch.no_grad():
        model(tokens)
    handle.remove()
    x = seen[0].reshape(-1, seen[0].shape[-1])
    torch.testing.assert_close(found[names[2]], x.T @ x / len(x), rtol=1e-4, atol=1e-6)


def test_a_peer_is_held_against_the_best_near_it_and_ours_at_no_more_bits() -> None:
    rows = [
        row("A", 3.00, 0.9), row("B", 3.08, 0.5), row("C", 3.20, 0.4), row("baseline: D", 3.0, 0.1),
        row("nash-swarm", 2.99, 0.3), row("nash-swarm", 3.01, 0.2), row("nash-swarm", 3.20003, 0.19),
    ]  # fmt: skip
    at_a, at_b, at_c = compare(rows)
    assert (at_a.bits, at_a.best.method, at_a.ours) == (3.0, "B", rows[4])  # D is no peer, C is too far
    assert at_a.ratio == pytest.approx(0.6) and not at_a.halved
    assert (at_b.best.method, at_b.ours) == ("B", rows[5]) and at_b.halved
    assert (at_c.best.method, at_c.ours) == ("C", rows[6])  # bits of tables are rounded
    text = markdown_comparisons(compare([*rows, row("E", 2.0, 3.0), row("F", 4.0, 0.1)]))
    assert [line.split("|")[-2].strip() for line in text.splitlines()[2:]] == [
        "no row", "no", "yes", "yes", "no, not even lower",
    ]  # fmt: skip
    assert "**nash-swarm**" in markdown(rows) and "**A**" not in markdown(rows)


def test_rows_survive_a_table_and_bad_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [row("A, with a comma", 3.25, 0.5), Row("B", "", 4.0, 1.0, 2.72, 0.25, 0.5)]
    write_rows([*rows, row("original", 32.0, 0.0), row("lab: C", 3.0, 0.1)], path)
    assert read_rows(path, ["lab:"]) == rows
    path.write_text(path.read_text().replace("0.25000", "little"))
    with pytest.raises(DataError, match=r"line 4: .*little"):
        read_rows(path)
    path.write_text("method,kl\nA,1\n")
    with pytest.raises(DataError, match="settings"):
        read_rows(path)


def test_rows_are_written_name_and_settings() -> None:
    assert parse_spec("gptq:width=3,group=64") == ("gptq", {"width": "3", "group": "64"})
    for text in ("gtpq:width=3", "gptq:width", "gptq:=3"):
        with pytest.raises(UsageError, match="NAME:KEY=VALUE"):
            parse_spec(text)
    facts = {"formats": ["Q4_K", "Q6_K"], "widths": {"a": 2, "b": 4, "c": 4}}
    assert words({"bits": "3"}, facts) == "bits 3, Q4_K+Q6_K, matrices 1 x 2 bits, 2 x 4 bits"


def test_a_tool_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"nothing ended with 1 .*No module named peer_tools\.nothing"):
        run_tool(sys.executable, "nothing", tmp_path / "job", "model", tmp_path / "m", np.zeros((1, 2), np.int32), {})


def test_the_picture_is_written_and_the_same_every_time(tmp_path: Path) -> None:
    rows = [row("nash-swarm", 3.0, 0.2), row("nash-swarm", 4.0, 0.1), row("A", 3.0, 0.9)]
    first, second = draw(rows, tmp_path / "one", "title"), draw(rows, tmp_path / "two", "title")
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_line_joins_what_nothing_smaller_beats() -> None:
    rows = [row("nash-swarm", bits, kl) for bits, kl in [(4.0, 0.3), (3.0, 0.5), (3.0, 0.4), (3.5, 0.45), (5.0, 0.3)]]
    assert best_by_bits(rows) == [rows[2], rows[0]]


def test_widths_of_others_are_rounded_by_us_and_counted(tmp_path: Path) -> None:
    model, rng = tiny_llama(tied=True), np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, (4, 32)).astype(np.int32)
    effort, path = Recipe(measuring=Measuring(windows=2)), tmp_path / "game.npz"
    game = measured_game(model, tokens, path, "tiny", effort)
    assert np.array_equal(measured_game(model, tokens, path, "tiny", effort).damage, game.damage)
    with pytest.raises(DataError, match="other windows"):
        measured_game(model, tokens[:2], path, "tiny", effort)
    with pytest.raises(DataError, match="other agents"):
        measured_game(model, tokens, path, "tiny", Recipe(Cut(granularity="block")))
    with pytest.raises(DataError, match="other levels"):
        measured_game(model, tokens, path, "tiny", Recipe(Cut(levels="uniform")))
    ours = Ours(model, game, tokens, effort, "greedy")
    widths = {tensor.name: (2, 3, 4)[number % 3] for number, tensor in enumerate(game.tensors)}
    packed, bits, said = ours.pack({}, widths)
    expected = sum(
        int(tensor.memory((widths[tensor.name],)).sum()) + 8 * tensor.fixed_bytes(len(game.strategies))
        for tensor in game.tensors
    )
    assert bits == expected == packed_bits(packed) and said.startswith("their widths, descent")
    for name, module in packed.named_modules():
        if isinstance(module, PackedWeight):
            scales = [len(np.unique(line)) for line in module.dense().numpy()]
            assert max(scales) <= 2 ** widths[name] * module.layout.groups
    _, at_most, _ = ours.pack({"total": str(bits)})
    assert at_most <= bits
    with pytest.raises(UsageError, match=r"no grid of \[7\] bits"):
        ours.pack({}, dict.fromkeys(widths, 7))
    with pytest.raises(UsageError, match="does not tune"):
        ours.pack({"total": str(bits), "tune": "3"})
