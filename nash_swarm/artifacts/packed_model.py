"""Saving and loading packed models: safetensors, config.json, a report and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nash_swarm import arguments
from nash_swarm.artifacts.accounting import REPORT_BYTES, config_text, dense_tensors, generation_text, half_dtype
from nash_swarm.artifacts.facts import PackedModel
from nash_swarm.artifacts.packed_config import PackedConfig, PackedEntry, check_digest, checksum
from nash_swarm.artifacts.report import card_text, report_text
from nash_swarm.compat.versions import check_api
from nash_swarm.errors import BudgetError, DataError, UsageError
from nash_swarm.files.atomic import new_folder
from nash_swarm.files.companions import copy_companions, tokenizer_files
from nash_swarm.files.folders import Kind
from nash_swarm.files.known import REPORT
from nash_swarm.files.named import look, require_packed
from nash_swarm.files.places import source_places
from nash_swarm.game.allocation import Allocation
from nash_swarm.models.bounds import bounded_modules, check_counts
from nash_swarm.models.kinds import auto_class

WEIGHTS = "model.safetensors"
CARD = "README.md"
COUNTED = (WEIGHTS, "config.json", "generation_config.json", REPORT, CARD)
"""Files whose size the budget covers: all that is written for the model; tokenizer files are not among them."""


def save(
    model: Any,
    path: str | Path,
    *,
    tokenizer: Any = None,
    allocation: Allocation | None = None,
    measured: Mapping[str, Any] | None = None,
    files: Sequence[Path] = (),
    left_out: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Path:
    """Write a packed model; the folder appears complete or not at all.

    Args:
        model: from `pack` or `load`.
        path: new folder.
        tokenizer: saved beside the model if given, unless its files are among `files`; what is saved of it does not
            count towards the budget.
        allocation: taken from the model if `pack` made it in this process.
        measured: figures on held-out text for the report and the model card, JSON values.
        left_out: what was given or asked for and is not in the model, a sentence each, for both too.
        files: small files of the original that are copied as they are (`Source.files`): a tokenizer's, a processor's,
            licences. They do not count towards the budget.
        overwrite: replace a folder that holds a packed model and nothing that nash-swarm does not write.

    Raises:
        UsageError: the model is not packed, the folder may not be replaced, see `check_new_folder`, or one of `files`
            is none that may be copied.
        DataError: the folder cannot be written.
        BudgetError: the files would be larger than the allocation's budget.
    """
    arguments.model(model)
    path = arguments.place("path", path)
    if tokenizer is not None and not callable(getattr(tokenizer, "save_pretrained", None)):
        raise UsageError(f"the tokenizer must be a loaded one that can be saved, not {arguments.shown(tokenizer)}")
    config = describe(model)
    return write(
        model, config, path, tokenizer=tokenizer, allocation=allocation, measured=measured, files=files,
        left_out=left_out, overwrite=overwrite,
    )  # fmt: skip


def write(
    model: Any,
    config: PackedConfig,
    path: Path,
    *,
    tokenizer: Any,
    allocation: Allocation | None,
    measured: Mapping[str, Any] | None,
    files: Sequence[Path],
    left_out: tuple[str, ...],
    overwrite: bool,
) -> Path:
    """Write a packed model whose tensors `describe` has just hashed; see `save`."""
    known: PackedModel = model.nash_swarm_packed
    allocation = allocation or known.allocation
    tensors = stored_tensors(model, config)
    report = report_text(allocation, measured, known.report, REPORT_BYTES, left_out)
    with new_folder(path, overwrite=overwrite, sources=source_places(model)) as folder:
        _write_tensors(tensors, folder / WEIGHTS)
        (folder / "config.json").write_text(config_text(model, config), encoding="utf-8")
        if generation := generation_text(model):
            (folder / "generation_config.json").write_text(generation, encoding="utf-8")
        (folder / REPORT).write_text(report, encoding="utf-8")
        room = REPORT_BYTES - len(report.encode())
        card = card_text(report, config, path.name, auto_class(model.config).__name__, room)
        (folder / CARD).write_text(card, encoding="utf-8")
        if allocation is not None and config.scope == "model":
            used = counted_bytes(folder) * 8
            if used > allocation.budget.total_bits:
                raise BudgetError(f"the files take {used // 8} bytes, more than {allocation.budget.label} allows")
        copy_companions(files, folder)
        if tokenizer is not None and not tokenizer_files(files):
            _save_tokenizer(tokenizer, folder)
    return path


def load(path: str | Path, *, activations: str = "int8") -> Any:
    """A packed model, ready to run, after its files have been checked to the byte.

    The packed matrices are copied into memory once, as they are; nothing is unpacked.

    Args:
        path: folder of a packed model.
        activations: `int8` or `fp32`, see `set_activations`.

    Raises:
        DataError: the folder is no packed model, or a file in it is missing, cut short or changed.
        UsageError: there is no such choice of activations.
    """
    import transformers

    from nash_swarm.models.quiet import quiet_transformers
    from nash_swarm.quantizers.runtime.modules import check_activations, set_activations

    check_activations(activations)
    folder = require_packed(path)
    config = read_config(folder)
    if (folder / "adapter_config.json").exists():
        # transformers would follow it to another model
        raise DataError(f"{folder} holds an adapter_config.json, which belongs to no packed model")
    try:
        with quiet_transformers(), bounded_modules(len(config.tensors) + len(config.dense)):
            plain = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            model = auto_class(plain).from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
    except DataError:
        raise
    except Exception as error:  # the files passed our own checks: whatever transformers trips over is data too
        check_api(error)
        raise DataError(f"cannot load {folder}: {str(error).strip().splitlines()[:1]}") from error
    model.nash_swarm_packed = replace(model.nash_swarm_packed, report=read_report(folder))
    set_activations(model, activations)
    return model.eval()


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer saved beside a packed model, or `None`.

    Raises:
        DataError: its files are damaged.
    """
    from nash_swarm.models.tokenizing import folder_tokenizer

    return folder_tokenizer(Path(path).expanduser())


def read_config(folder: Path) -> PackedConfig:
    """What a packed model's `config.json` says of it.

    Raises:
        DataError: there is no such file, or it is no packed model's.
    """
    values = _read_json(folder / "config.json")
    packed = values.get("quantization_config")
    config = PackedConfig.from_dict(packed if isinstance(packed, dict) else {})
    check_digest(values)
    check_counts(values)
    return config


def read_report(folder: Path) -> dict[str, Any]:
    """The report beside a packed model; empty if there is none.

    Raises:
        DataError: it is damaged.
    """
    return _read_json(folder / REPORT) if (folder / REPORT).is_file() else {}


def is_packed(path: str | Path) -> bool:
    """Whether a folder says it holds a packed model."""
    return look(path).kind is Kind.PACKED


def counted_bytes(path: str | Path) -> int:
    """Bytes on disk that the budget covers: everything but the tokenizer's files."""
    return sum((Path(path) / name).stat().st_size for name in COUNTED if (Path(path) / name).is_file())


def describe(model: Any) -> PackedConfig:
    """The packed configuration of a model in memory.

    Raises:
        UsageError: the model is not packed.
    """
    from nash_swarm.quantizers.runtime.modules import PackedWeight

    modules = {name: module for name, module in model.named_modules() if isinstance(module, PackedWeight)}
    facts = getattr(model, "nash_swarm_packed", None)
    if not modules or facts is None:
        raise UsageError("this model is not packed; use nash_swarm.pack first")
    entries = {
        name: PackedEntry(
            module.layout,
            getattr(module, "bias", None) is not None,
            len(module.packed),
            checksum(module.packed),
        )
        for name, module in modules.items()
    }
    dense = dense_tensors(model, modules, facts.heads)
    sums = {name: checksum(_to_half(tensor)) for name, tensor in dense.items()}
    strategies = next(iter(modules.values())).strategies
    return PackedConfig(strategies, facts.scope, facts.parameters, entries, sums, facts.heads)


def stored_tensors(model: Any, config: PackedConfig) -> dict[str, torch.Tensor]:
    """The tensors of a packed model as they are written: packed buffers and 16-bit tensors."""
    state = model.state_dict()
    tensors = {f"{name}.packed": state[f"{name}.packed"].contiguous() for name in config.tensors}
    return tensors | {name: _to_half(state[name]).contiguous() for name in config.dense}


def _write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except Exception as error:  # safetensors raises its own kind for a full disk
        check_api(error)
        raise DataError(f"cannot write {path.name}: {error}") from error
    path.chmod(0o644)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers raises its own kinds, plain Exception among them, for a full disk
        check_api(error)
        raise DataError(f"cannot write the tokenizer: {error}") from error


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(half_dtype(tensor)) if tensor.is_floating_point() else tensor


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path.parent} is no packed model: there is no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} cannot be read: it holds no JSON object")
    return values
