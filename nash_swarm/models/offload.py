"""Models whose weights stay on disk: built without memory, each module's weights are read when it runs, then dropped.

Such a model does whatever one in memory does, only slower; who runs a block more than once holds its weights with
`resident`. What must outlive a block (hidden states, packed buffers) can be moved to disk with `mapped`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nash_swarm.compat.hf import renamer
from nash_swarm.compat.torch_names import tables
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.decoding import Coded, find_coded, forget_quantization, read_plain
from nash_swarm.models.folders import stored_tensors
from nash_swarm.models.kinds import text_part
from nash_swarm.models.leftovers import text_name
from nash_swarm.models.skeletons import skeleton
from nash_swarm.models.walk import find_blocks

_ATTRIBUTE = "nash_swarm_checkpoint"
_LARGE = 1 << 24


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where on disk the weights of a model are.

    Attributes:
        places: by the model's name of a tensor: the file, and the tensor's name in it.
        scratch: folder for what is moved to disk on the way.
        coded: by the tensor's name in its file: how it is decoded, where it is stored as codes.
    """

    places: Mapping[str, tuple[Path, str]]
    scratch: Path
    coded: Mapping[str, Coded] = field(default_factory=dict)

    def __deepcopy__(self, _: object) -> Checkpoint:
        return self

    def read(self, name: str) -> torch.Tensor:
        """A tensor as a model in float32 has it.

        Raises:
            DataError: it cannot be read, or holds NaN or infinite values.
        """
        file, stored = self.places[name]
        if stored in self.coded:
            tensor = self.coded[stored].read()
        else:
            tensor = read_plain(file, stored)
            tensor = (tensor.float() if tensor.is_floating_point() else tensor).clone()
        if not torch.isfinite(tensor).all():
            raise DataError(f"{name.removesuffix('.weight')} holds NaN or infinite weights; the checkpoint is damaged")
        return tensor

    def sample(self, name: str, rows: list[int] | None) -> torch.Tensor:
        """Some rows of a tensor (all of it for `None`), of which no more is read where it is stored as it is."""
        file, stored = self.places[name]
        if rows is None or stored in self.coded:
            whole = self.read(name)
            return whole if rows is None else whole[rows]
        return read_plain(file, stored, rows)


def checkpoint_of(model: nn.Module) -> Checkpoint | None:
    """The checkpoint of a model whose weights stay on disk, `None` for one in memory."""
    return getattr(model, _ATTRIBUTE, None)


def require_in_memory(model: nn.Module, what: str) -> None:
    """Refuse what changes a model's weights, if they are on disk.

    Raises:
        UsageError: they are.
    """
    if checkpoint_of(model) is not None:
        raise UsageError(f"{what} cannot be had of a model that is read block by block: it must fit into memory")


@contextmanager
def resident(model: nn.Module, path: str) -> Iterator[None]:
    """The weights of the module at `path` and of all below it in memory; nothing is done where they are already."""
    checkpoint = checkpoint_of(model)
    if checkpoint is None:
        yield
        return
    absent = _materialize(checkpoint, model.get_submodule(path), path)
    try:
        yield
    finally:
        _restore(absent)


def load_for_good(model: nn.Module, names: Iterable[str]) -> None:
    """Read the tensors of these names if they are still on disk; large ones stay there in float32."""
    checkpoint = checkpoint_of(model)
    if checkpoint is None:
        return
    wanted = set(names)
    absent = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items() if name in wanted}
    made: dict[int, torch.Tensor] = {}
    for table, key, tensor in _without_memory(model):
        if (name := absent.get(id(tensor))) is None:
            continue
        if id(tensor) not in made:
            value = checkpoint.read(name)
            value = mapped(value, checkpoint.scratch) if value.nbytes >= _LARGE else value
            made[id(tensor)] = _like(tensor, value)
        table[key] = made[id(tensor)]


def mapped(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """The tensor in a nameless file in `folder`, read page by page when used and gone from memory until then.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    plain = tensor.detach().contiguous()
    try:
        handle, name = tempfile.mkstemp(prefix=".nash-swarm-", suffix=".tmp", dir=folder)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(plain.flatten().view(torch.uint8).numpy().data)
        made = torch.from_file(name, shared=False, size=plain.numel(), dtype=plain.dtype)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    finally:
        Path(name).unlink()
    return made.reshape(plain.shape)


def offloaded(folder: Path, config: Any, scratch: Path) -> Any:
    """A language model in eval mode whose weights stay in `folder`.

    Args:
        folder: a directory with safetensors weights, each of them one of the model's.
        config: its transformers configuration; what it says of quantization that is decoded is taken out of it. Of a
            multimodal one only the language model is built, see `text_part`.
        scratch: see `Checkpoint`.

    Raises:
        DataError: weights are missing, misshapen or unreadable.
        UsageError: transformers would have to make the model's weights of those that are stored.
    """
    coded, plain = find_coded(stored_tensors(folder), config)
    forget_quantization(config)
    text = text_part(config)
    model = skeleton(config if text is None else text)
    shapes = {**plain, **{name: (one.codes[0], one.shape) for name, one in coded.items()}}
    stored = _under_their_names(model, shapes, text is not None)
    places: dict[str, tuple[Path, str]] = {}
    prefix = f"{model.base_model_prefix}."
    tensors = dict(model.state_dict(keep_vars=True))
    by_tensor: dict[int, str] = {}
    for name, tensor in tensors.items():
        found = next((n for n in (name, name.removeprefix(prefix), prefix + name) if n in stored), None)
        if found is None:
            continue
        file, shape, key = stored[found]
        if shape != tuple(tensor.shape):
            raise DataError(f"{file}: {key!r} is {shape} where the model has {tuple(tensor.shape)}")
        places[name] = (file, key)
        by_tensor[id(tensor)] = name
    for name, tensor in tensors.items():
        if name not in places and id(tensor) in by_tensor:  # tied
            places[name] = places[by_tensor[id(tensor)]]
    if missing := sorted(set(tensors) - set(places)):
        raise UsageError(
            f"{folder.name} has no weights {missing[0]!r} as the model has them: what is read block by block must be "
            "stored so (fused experts are not); it must fit into memory (--max-memory)"
        )
    checkpoint = Checkpoint(places, scratch, coded)
    setattr(model, _ATTRIBUTE, checkpoint)
    for path, module in model.named_modules():
        if any(tensor.is_meta for tensor in _own(module)):
            on_demand = _OnDemand(checkpoint, path)
            module.register_forward_pre_hook(on_demand.before)
            module.register_forward_hook(on_demand.after, always_call=True)
    return model


def _under_their_names(
    model: Any, stored: Mapping[str, tuple[Path, tuple[int, ...]]], text_only: bool
) -> dict[str, tuple[Path, tuple[int, ...], str]]:
    """File, shape and stored name of tensors, by what transformers calls them; without those that it would compute."""
    renamed = renamer(model)
    found = {}
    for key, (file, shape) in stored.items():
        name, converted = renamed(text_name(key) if text_only else key)
        if not converted:
            found[name] = (file, shape, key)
    return found


def largest_part(model: nn.Module) -> int:
    """Bytes, in float32, of the largest thing that is in memory at once: a block, or a module outside the blocks."""
    name, blocks = find_blocks(model)
    sizes = [sum(parameter.nbytes for parameter in block.parameters()) for block in blocks]
    sizes += [
        sum(parameter.nbytes for parameter in module.parameters(recurse=False))
        for path, module in model.named_modules()
        if not path.startswith(f"{name}.")
    ]
    return max(sizes)


_Absent = list[tuple[dict[str, Any], str, torch.Tensor]]


class _OnDemand:
    """Forward hooks of one module that has weights of its own."""

    def __init__(self, checkpoint: Checkpoint, path: str) -> None:
        self._checkpoint, self._path = checkpoint, path
        self._absent: _Absent = []

    def before(self, module: nn.Module, _: object) -> None:
        if any(tensor.is_meta for tensor in _own(module)):
            self._absent += _materialize(self._checkpoint, module, self._path)

    def after(self, *_: object) -> None:
        _restore(self._absent)
        self._absent = []


def _own(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _without_memory(top: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    """Table and key of every tensor at `top` and below it that has no memory."""
    for module in top.modules():
        parameters, buffers, _ = tables(module)
        for table in (parameters, buffers):
            for key, tensor in list(table.items()):
                if tensor is not None and tensor.is_meta:
                    yield table, key, tensor


def _materialize(checkpoint: Checkpoint, top: nn.Module, path: str) -> _Absent:
    """Put weights from disk where there are none at `top`, which is at `path`, and below it; returns what was there."""
    names = {
        id(tensor): name for name, tensor in top.state_dict(prefix=f"{path}." * bool(path), keep_vars=True).items()
    }
    absent: _Absent = []
    made: dict[int, torch.Tensor] = {}
    try:
        for table, key, tensor in _without_memory(top):
            if id(tensor) not in made:
                made[id(tensor)] = _like(tensor, checkpoint.read(names[id(tensor)]))
            table[key] = made[id(tensor)]
            absent.append((table, key, tensor))
    except BaseException:
        _restore(absent)
        raise
    return absent


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value


def _restore(absent: _Absent) -> None:
    for table, key, tensor in absent:
        table[key] = tensor
