"""Does coupling weights with their neighbours pay on real weights?

    python benchmarks/stencil.py --model smollm2 --json stencil.json

Every weight of a few matrices is an agent. Damage is its share of the squared output error over calibration text, the
stencil the correlation of neighbouring inputs. The same bits are allocated without coupling, by best response and by
the best profile at every price; then the real squared output error of the rounded matrix, with all of its input
correlations and not only the nearest, says what the prediction was worth. Columns stand in the model's order, in
activation order, or in a chain that puts correlated inputs beside one another.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from reporting import new_file, origin, write_json

from nash_swarm.calibration.collect import collecting
from nash_swarm.calibration.text import BUILT_IN_TEXT, choose_windows, cut_windows, load_text
from nash_swarm.damage.neighbours import chain_order, neighbour_correlation
from nash_swarm.game import BitGame, Budget, Stencil
from nash_swarm.game.certificate import certify
from nash_swarm.game.rows import Rows
from nash_swarm.models.modes import inference
from nash_swarm.models.source import load_source
from nash_swarm.models.walk import Matrix, find_matrices
from nash_swarm.quantizers.formats.native.grid import scale_base, scale_table
from nash_swarm.quantizers.formats.per_weight.kernels import fit_range
from nash_swarm.solvers._row_market import play_rows
from nash_swarm.solvers.lagrangian import Lagrangian
from solvers import show

WIDTHS = (2, 3, 4, 5, 6, 8)
GROUP = 64
ORDERS = ("model", "activation", "chain")
Floats = npt.NDArray[np.float32]


def hessians(model: Any, tokens: npt.NDArray[np.int32], matrices: list[Matrix]) -> dict[str, Floats]:
    """Mean of x x^T of each matrix's inputs over all tokens."""
    with inference(model), torch.no_grad(), collecting(model, matrices) as found:
        for window in torch.from_numpy(tokens.astype(np.int64)):
            model(window[None], use_cache=False)
    everything = {name: statistics.hessian() for name, statistics in found.items()}
    return {name: hessian for name, hessian in everything.items() if hessian is not None}


def order_of(kind: str, hessian: Floats) -> npt.NDArray[np.int64]:
    """The order of columns: as they are, by falling energy, or each beside the most correlated one still free."""
    energy = hessian.diagonal().astype(np.float64)
    if kind == "model":
        return np.arange(len(energy))
    if kind == "activation":
        return np.argsort(-energy, kind="stable")
    return chain_order(hessian)


def rounding_errors(weight: Floats) -> Floats:
    """Error of every weight with every width on its group's range, float32 (widths, rows, columns)."""
    rows, columns = weight.shape
    base = scale_base(weight, 255)
    table = scale_table(base)
    scale, zero = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.float32)
    for row in range(rows):
        for start in range(0, columns, GROUP):
            part = slice(start, start + GROUP)
            code, offset = fit_range(np.ascontiguousarray(weight[row, part]), np.float32(base), table)
            scale[row, part], zero[row, part] = table[code], offset
    shift = scale * zero
    errors = []
    for bits in WIDTHS:
        levels = np.float32(2**bits - 1)
        step = scale * np.float32(255) / levels
        errors.append(np.clip(np.floor((weight + shift) / step + np.float32(0.5)), 0, levels) * step - shift - weight)
    return np.array(errors, np.float32)


def play(weight: Floats, hessian: Floats, kind: str, bits: float) -> list[dict[str, Any]]:
    order = order_of(kind, hessian)
    weight, hessian = np.ascontiguousarray(weight[:, order]), np.ascontiguousarray(hessian[np.ix_(order, order)])
    errors = rounding_errors(weight)
    damage = np.square(errors) * hessian.diagonal()
    damage = np.ascontiguousarray(damage.reshape(len(WIDTHS), -1).T)
    signs = np.packbits(errors.reshape(len(WIDTHS), -1).T < 0, axis=1, bitorder="little")[:, 0]
    correlation = neighbour_correlation(hessian)
    plain = BitGame(WIDTHS, damage, np.broadcast_to(np.array(WIDTHS), damage.shape), 0, damage.shape[0])
    game = replace(plain, coupling=Stencil(np.ascontiguousarray(signs), (weight.shape,), correlation))
    budget = Budget.of_bits(bits, plain.agents)
    rows = []
    for dynamics in ("not coupled", "response", "best"):
        if dynamics == "not coupled":
            choices, regret = Lagrangian().solve(plain, budget).choices, None
        else:
            found = play_rows(Rows.of(game), game.capacity(budget), dynamics, 0, lambda point, more: None)  # type: ignore[arg-type]
            choices = found.choices
            regret = certify(game, budget, choices, found.price).unilateral_regret
        played = np.take_along_axis(errors, choices.reshape(1, *weight.shape).astype(np.intp), axis=0)[0]
        rows.append(
            {"order": kind, "dynamics": dynamics, "agents": plain.agents, "bits per weight": bits,
             "mean |correlation|": float(np.abs(correlation[:-1]).mean()), "unilateral regret": regret,
             "own damage": plain.total_damage(choices), "predicted": game.total_damage(choices),
             "real": float(np.sum(played @ hessian.astype(np.float64) * played))}
        )  # fmt: skip
    for row in rows:
        row["predicted gain"] = 1 - row["predicted"] / rows[0]["predicted"]
        row["real gain"] = 1 - row["real"] / rows[0]["real"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--matrix", action="append", help="part of a matrix's name (default: seven of three blocks)")
    parser.add_argument("--bits", type=float, default=3.0, help="bits per weight, codes alone")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--json", metavar="FILE", type=new_file, help="write all figures here")
    arguments = parser.parse_args()
    source = load_source(arguments.model)
    text = load_text(BUILT_IN_TEXT)
    tokens = choose_windows(
        cut_windows(text, source.tokenizer, length=512, part="calibration"), arguments.windows, np.random.default_rng(0)
    )
    wanted = arguments.matrix or [
        "layers.2.self_attn.q_proj", "layers.2.self_attn.o_proj", "layers.2.mlp.up_proj", "layers.2.mlp.down_proj",
        "layers.15.self_attn.q_proj", "layers.15.mlp.up_proj", "layers.27.mlp.down_proj",
    ]  # fmt: skip
    matrices = [m for m in find_matrices(source.model, "linear") if any(part in m.name for part in wanted)]
    found = hessians(source.model, tokens, matrices)
    rows = []
    for matrix in matrices:
        weight = matrix.weight().contiguous().numpy()
        for kind in ORDERS:
            rows += [{"matrix": matrix.name, **row} for row in play(weight, found[matrix.name], kind, arguments.bits)]
    results = {
        **origin("numpy", "numba", "torch"),
        "model": source.name, "note": source.note, "text": text.source, "tokens": int(tokens.size),
        "matrices": rows, "summary": summary(rows),
    }  # fmt: skip
    print(f"`{results['command']}`; {results['versions']}; {source.note}")
    show(
        "matrices", rows,
        {"matrix": "", "order": "", "dynamics": "", "mean |correlation|": ".3f", "own damage": ".4g",
         "predicted": ".4g", "real": ".4g", "predicted gain": ".1%", "real gain": ".1%"},
    )  # fmt: skip
    show("summary", summary(rows), {"order": "", "dynamics": "", "predicted gain": ".1%", "real gain": ".1%",
                                    "least real gain": ".1%", "predicted over real": ".2f"})  # fmt: skip
    write_json(arguments.json, results)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the matrices."""
    out = []
    for kind in ORDERS:
        for dynamics in ("not coupled", "response", "best"):
            some = [row for row in rows if (row["order"], row["dynamics"]) == (kind, dynamics)]
            out.append(
                {"order": kind, "dynamics": dynamics,
                 "predicted gain": float(np.mean([row["predicted gain"] for row in some])),
                 "real gain": float(np.mean([row["real gain"] for row in some])),
                 "least real gain": min(row["real gain"] for row in some),
                 "predicted over real": float(np.mean([row["predicted"] / row["real"] for row in some]))}
            )  # fmt: skip
    return out


if __name__ == "__main__":
    main()
