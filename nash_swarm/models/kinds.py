"""Which of transformers' Auto classes loads a model, from its configuration alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from nash_swarm.compat.hf import class_names
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

    if getattr(config, "is_encoder_decoder", False):
        return transformers.AutoModelForSeq2SeqLM
    saved = (getattr(config, "architectures", None) or [""])[0]
    if saved.endswith(_ANSWERS):
        raise UsageError(f"a {saved} neither writes text nor is an encoder alone")
    if saved.endswith("ForPreTraining") and saved not in _classes(class_names("CAUSAL_LM")):
        return transformers.AutoModel
    encoders = _classes(class_names("")) | _classes(class_names("MASKED_LM"))
    if saved in encoders - _classes(class_names("CAUSAL_LM")):
        return transformers.AutoModel
    return transformers.AutoModelForCausalLM


def text_part(config: Any) -> Any:
    """The configuration of the language model inside a multimodal one, `None` for all others.

    Text reaches nothing else of such a model. Those whose causal class in transformers is that of their language model
    already, or that transformers has no class of a language model alone for, are among the others.
    """
    causal = class_names("CAUSAL_LM")
    try:
        text = config.get_text_config()
    except (AttributeError, ValueError):  # it has several
        return None
    if text is config or getattr(config, "is_encoder_decoder", False) or text.model_type not in causal:
        return None
    whole = causal.get(config.model_type, "ForConditionalGeneration")
    if not (isinstance(whole, str) and whole.endswith("ForConditionalGeneration")):
        return None
    text = copy.deepcopy(text)
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", text.tie_word_embeddings)
    return text


def _classes(mapping: Mapping[str, Any]) -> set[str]:
    names: set[str] = set()
    for value in mapping.values():
        names |= {value} if isinstance(value, str) else set(value)
    return names
