"""Folders in FP8 and MXFP4, written with encoders of the tests' own, and what they decode to by NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

Array = npt.NDArray[Any]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3(codes: Array) -> Array:
    """Values of 8-bit codes with 4 bits of exponent and 3 of mantissa, uint8 to float32."""
    sign = np.where(codes >> 7, -1.0, 1.0)
    exponent, mantissa = (codes >> 3 & 15).astype(np.float64), (codes & 7).astype(np.float64)
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return (sign * np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)).astype(np.float32)


def encode_fp8(weight: Array, block: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Codes, uint8 (rows, columns), scales of blocks, float32, and what both decode to."""
    rows, columns = weight.shape
    down, across = -(-rows // block[0]), -(-columns // block[1])
    values = e4m3(np.arange(256).astype(np.uint8))
    legal = np.flatnonzero((np.arange(256) & 127) != 127)
    ordered = legal[np.argsort(values[legal], kind="stable")]
    codes, scales, decoded = np.zeros((rows, columns), np.uint8), np.zeros((down, across), np.float32), weight.copy()
    for i in range(down):
        for j in range(across):
            part = np.s_[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
            scale = scales[i, j] = np.float32(max(np.abs(weight[part]).max(), 1e-9) / 448)
            places = np.searchsorted(values[ordered], weight[part] / scale).clip(0, len(ordered) - 1)
            codes[part] = ordered[places]
            decoded[part] = values[codes[part]] * scale
    return codes, scales, decoded


def encode_mxfp4(weight: Array) -> tuple[Array, Array, Array]:
    """Blocks, uint8 (..., columns / 32, 16), exponents, uint8, and what both decode to, of weights (..., columns)."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    exponents = np.ceil(np.log2(np.abs(groups).max(-1, keepdims=True) / 6)).clip(-127, 127)
    codes = np.abs(groups[..., None] / 2.0 ** exponents[..., None] - E2M1).argmin(-1).astype(np.uint8)
    decoded = (E2M1[codes] * 2.0**exponents).astype(np.float32).reshape(weight.shape)
    return codes[..., 0::2] | codes[..., 1::2] << 4, (exponents[..., 0] + 127).astype(np.uint8), decoded


def write_fp8(
    model: Any, folder: Path, block: tuple[int, int] | None, *, ending: str = "_scale_inv"
) -> dict[str, Array]:
    """Save a model with its blocks' matrices in FP8, whole ones with one scale if there is no block."""
    decoded, tensors = {}, {}
    for name, tensor in _saved(model, folder).items():
        if tensor.ndim < 2 or "layers" not in name:
            tensors[name] = tensor
            continue
        weight = tensor.numpy()
        codes, scales, decoded[name] = encode_fp8(weight, block or weight.shape)
        tensors[name] = torch.from_numpy(codes).view(torch.float8_e4m3fn)
        tensors[name + ending] = torch.from_numpy(scales if block else scales.reshape(()))
    _write(tensors, folder, {"quant_method": "fp8", "weight_block_size": block, "activation_scheme": "dynamic"})
    return decoded


def write_mxfp4(model: Any, folder: Path) -> dict[str, Array]:
    """Save a gpt-oss with its experts in MXFP4."""
    decoded, tensors = {}, {}
    for name, tensor in _saved(model, folder).items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            tensors[name] = tensor
            continue
        # stored with the inputs of a product last
        blocks, scales, values = encode_mxfp4(tensor.numpy().swapaxes(1, 2))
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = torch.from_numpy(blocks), torch.from_numpy(scales)
        decoded[name] = values.swapaxes(1, 2)
    _write(tensors, folder, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]})
    return decoded


def add_tensors(folder: Path, more: dict[str, torch.Tensor]) -> None:
    """Put tensors beside those of a saved model."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, {"format": "pt"})


def set_quantization(folder: Path, values: dict[str, Any]) -> None:
    """Have a folder's configuration say how it is quantized."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": values}), encoding="utf-8")


def _saved(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


def _write(tensors: dict[str, torch.Tensor], folder: Path, quantization: dict[str, Any]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    set_quantization(folder, quantization)
