"""GPTQ as in the literature (Frantar et al. 2023, arXiv 2210.17323): the recipe, on its own grid.

One pass of the original model gives every Hessian (no sequential re-calibration), columns go in order of falling
diagonal with the groups and scales of the original order ("act-order with static groups"), asymmetric grid over the
whole range of a group, half-precision scale and a zero-point of the codes' width per row and group. Static groups need
no stored permutation. Settings: `width`, `group` (128), `damp` (0.01), `windows`.
"""

from __future__ import annotations

from typing import Any

import torch

from peer_tools.exchange import Job, scaled_bits, tool_main

_BLOCK = 128


def second_moments(model: Any, names: list[str], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean of x x^T over the tokens, of every named module's input; modules that read the same tensor share it."""
    found: dict[str, torch.Tensor] = {}
    last: list[Any] = [None, None]

    def watch(name: str) -> Any:
        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            if args[0] is last[0]:
                found[name] = last[1]
                return
            x = args[0].reshape(-1, args[0].shape[-1]).float()
            if name not in found:
                found[name] = torch.zeros(x.shape[1], x.shape[1])
            found[name].addmm_(x.T, x, alpha=1 / tokens.numel())
            last[:] = [args[0], found[name]]

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    with torch.no_grad():
        for window in tokens:
            model(window[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def grid(weight: torch.Tensor, width: int, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Half-precision scales and integer zero-points (rows, groups) that span each group's range, zero included."""
    parts = weight.split(group, dim=1)
    low = torch.stack([part.amin(1) for part in parts], 1).clamp_max(0)
    high = torch.stack([part.amax(1) for part in parts], 1).clamp_min(0)
    scale = ((high - low) / (2**width - 1)).clamp_min(6e-8).half().float()
    return scale, (-low / scale).round().clamp(0, 2**width - 1)


def gptq(weight: torch.Tensor, hessian: torch.Tensor, width: int, group: int, damp: float) -> torch.Tensor:
    """The dequantized matrix (outputs, inputs)."""
    scale, zero = grid(weight, width, group)
    hessian = hessian.double().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    order = hessian.diagonal().argsort(descending=True, stable=True)
    hessian = hessian[order][:, order]
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True).float()
    left, out = weight[:, order].clone(), torch.empty_like(weight)
    left[:, dead[order]] = 0
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = torch.zeros(len(left), end - start)
        for column in range(start, end):
            place = int(order[column]) // group
            steps = (left[:, column] / scale[:, place]).round() + zero[:, place]
            out[:, order[column]] = (steps.clamp(0, 2**width - 1) - zero[:, place]) * scale[:, place]
            error = (left[:, column] - out[:, order[column]]) / factor[column, column]
            left[:, column:end].addr_(error, factor[column, column:end], alpha=-1)
            errors[:, column - start] = error
        left[:, end:].addmm_(errors, factor[start:end, end:], alpha=-1)
    return out


def _work(job: Job) -> None:
    width, group = int(job.settings["width"]), int(job.settings.get("group", 128))
    weights = job.weights()
    hessians = second_moments(job.load_model(), list(weights), job.calibration())
    damp = float(job.settings.get("damp", 0.01))
    done = {name: gptq(weight, hessians[name], width, group, damp) for name, weight in weights.items()}
    bits = sum(scaled_bits((len(w), w.shape[1]), width, group, 16 + width) for w in weights.values())
    job.finish(done, bits, ["torch", "transformers"])


if __name__ == "__main__":
    tool_main(_work)
