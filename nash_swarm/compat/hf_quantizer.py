"""transformers' protocol of quantizers, under names that do not change with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nash_swarm.compat.versions import using

with using("transformers"):
    # not from transformers.quantizers: that package is still being imported when this module is
    from transformers.quantizers.auto import register_quantization_config as register_quantization_config
    from transformers.quantizers.auto import register_quantizer as register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin as QuantizationConfigMixin


class ModelQuantizer(HfQuantizer):
    """Base of a quantizer: subclasses say what happens before and after the weights are read, and what is written."""

    def before_weights(self, model: Any, files: Sequence[Path]) -> None:
        """Change a model without memory, in place, into one that the tensors in `files` fit."""
        raise NotImplementedError

    def after_weights(self, model: Any) -> None:
        """Check and finish a model whose weights have been read; in place."""
        raise NotImplementedError

    def tensors(self, model: Any) -> dict[str, torch.Tensor]:
        """What `save_pretrained` writes, by name."""
        raise NotImplementedError

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """See `tensors`."""
        return self.tensors(model), {}

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        self.before_weights(model, [Path(file) for file in kwargs.get("checkpoint_files") or ()])
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        self.after_weights(model)
        return model
