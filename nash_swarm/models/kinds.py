"""Which of transformers' Auto classes loads a model, from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nash_swarm.errors import UsageError

_ANSWERS = ("Classification", "QuestionAnswering", "MultipleChoice", "NextSentencePrediction")
"""How names of classes end that make something else of text than text or embeddings."""


def auto_class(config: Any) -> Any:
    """`AutoModelForCausalLM`, `AutoModelForSeq2SeqLM`, or `AutoModel` for an encoder.

    What was saved with a head for masked tokens is loaded without it. A configuration that names no class that
    transformers knows is taken for a causal language model's.

    Raises:
        UsageError: it was saved with a head that answers questions of its own.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    saved = (getattr(config, "architectures", None) or [""])[0]
    if saved.endswith(_ANSWERS):
        raise UsageError(f"a {saved} neither writes text nor is an encoder alone")
    if saved.endswith("ForPreTraining") and saved not in _classes(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return transformers.AutoModel
    encoders = _classes(auto.MODEL_MAPPING_NAMES) | _classes(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    if saved in encoders - _classes(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return transformers.AutoModel
    return transformers.AutoModelForCausalLM


def _classes(mapping: Mapping[str, Any]) -> set[str]:
    names: set[str] = set()
    for value in mapping.values():
        names |= {value} if isinstance(value, str) else set(value)
    return names
