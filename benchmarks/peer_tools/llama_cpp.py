"""llama.cpp's own quantization (`llama_model_quantize` of llama-cpp-python), read back with the package `gguf`.

Settings: `type`, a llama.cpp mix such as `Q4_K_M` or `IQ3_XXS`; `imatrix=1`, the importance matrix, that is, the mean
squared input of every channel on the calibration text; `pure=1`, one format for all matrices; `flat=1`, rows joined
until their length is a multiple of 256, which llama.cpp cannot run but which spares its K- and I-formats their fallback
on narrow models: their best case. Bits are the bytes of the matrices in the file.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import torch
from transformers import AutoConfig

from peer_tools.exchange import Job, tool_main

_SUPERBLOCK = 256


def joined_rows(shape: tuple[int, int]) -> int:
    """How many rows to join, so that they fill whole superblocks; 1 if that cannot be."""
    rows, columns = shape
    count = _SUPERBLOCK // int(np.gcd(columns, _SUPERBLOCK))
    return 1 if rows % count else count


def mean_squares(model: Any, names: list[str], tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """Mean squared input of every channel of the named modules, float32."""
    found: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            found[name] = found.get(name, 0) + args[0].float().square().sum((0, 1)) / tokens.numel()

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in names]
    with torch.no_grad():
        for window in tokens:
            model(window[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: value.numpy().astype(np.float32) for name, value in found.items()}


def _write(path: Path, config: Any, matrices: dict[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, matrix in matrices.items():
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantize(source: Path, target: Path, settings: Any, importance: dict[str, np.ndarray]) -> None:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = 1
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{settings['type']}")
    parameters.pure = settings.get("pure") == "1"
    table = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()  # the last one stays empty: the end
    for entry, (name, values) in zip(table, importance.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if importance:
        parameters.imatrix = table
    llama_cpp.llama_backend_init()
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise RuntimeError("llama.cpp refused to quantize; see above")


def _work(job: Job) -> None:
    config = AutoConfig.from_pretrained(job.model)
    weights = job.weights()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    theirs = {name: f"{names.get_name(name)}.weight" for name in weights}
    flat = job.settings.get("flat") == "1"
    joined = {name: joined_rows(tuple(weight.shape)) if flat else 1 for name, weight in weights.items()}
    importance = {}
    if job.settings.get("imatrix") == "1":
        found = mean_squares(job.load_model(), list(weights), job.calibration())
        importance = {theirs[name]: np.tile(values, joined[name]) for name, values in found.items()}
    source, target = job.folder / "in.gguf", job.folder / "out.gguf"
    matrices = {theirs[name]: w.reshape(len(w) // joined[name], -1).numpy() for name, w in weights.items()}
    _write(source, config, matrices)
    _quantize(source, target, job.settings, importance)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(target).tensors}
    done, bits, formats = {}, 0, set()
    for name, weight in weights.items():
        tensor = tensors[theirs[name]]
        bits += int(tensor.n_bytes) * 8
        formats.add(tensor.tensor_type.name)
        done[name] = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape).copy())
    job.finish(done, bits, ["gguf"], formats=sorted(formats), llama_cpp_python=llama_cpp.__version__)
    source.unlink()
    target.unlink()


if __name__ == "__main__":
    tool_main(_work)
