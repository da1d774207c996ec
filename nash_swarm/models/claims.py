"""What the configuration in a model directory claims, held against the files beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from nash_swarm.errors import DataError
from nash_swarm.models.bounds import bounded_modules, check_counts, check_weights_stored
from nash_swarm.models.decoding import DECODED, decoded_shapes, quantized_by
from nash_swarm.models.folders import stored_tensors
from nash_swarm.models.kinds import text_part
from nash_swarm.models.skeletons import outline


def check_claims(folder: Path) -> None:
    """Hold a model directory's configuration against its safetensors files, before memory is taken for what it claims.

    Raises:
        DataError: it asks for more layers, weights or buffers than the files can fill, or cannot be read.
    """
    from transformers import AutoConfig

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{folder / 'config.json'} cannot be read: {error}") from error
    check_counts(values)
    method = quantized_by(values)
    if not isinstance(values, dict) or "auto_map" in values or (method and method not in DECODED):
        return  # not ours to judge: refused later, or code of its own
    files = stored_tensors(folder)
    size = sum(file.stat().st_size for file in {file for file, _ in files.values()})
    stored = decoded_shapes(files, values)
    with bounded_modules(len(stored)):
        config = AutoConfig.from_pretrained(folder)
        text = text_part(config)
        model = outline(config if text is None else text, size)
    check_weights_stored(model, sum(math.prod(shape) for _, shape in stored.values()), stored)
