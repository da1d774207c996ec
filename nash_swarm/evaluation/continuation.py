"""Text that a model writes."""

from __future__ import annotations

from typing import Any

from nash_swarm import arguments
from nash_swarm.errors import DataError, UsageError


def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    tokens: int = 40,
    chat: bool = False,
    sample: bool = False,
    seed: int = 0,
) -> str:
    """The model's continuation of `prompt`, without the prompt.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompt: text to continue.
        tokens: new tokens at most.
        chat: put the prompt into the tokenizer's chat template as a user's message.
        sample: sample at temperature 1 instead of taking the likeliest token.
        seed: of the sampling.

    Raises:
        UsageError: the model is no language model, or there is no tokenizer, or no chat template to use.
        DataError: the prompt has no tokens.
    """
    import torch

    if not model.can_generate():
        raise UsageError(f"a {type(model).__name__} writes no text; use its embeddings")
    arguments.whole("tokens", tokens, 1)
    arguments.whole("seed", seed, 0)
    if tokenizer is None:
        raise UsageError("this model was saved without a tokenizer; it cannot read a prompt")
    if chat:
        if not tokenizer.chat_template:
            raise UsageError("this model's tokenizer has no chat template; leave out --chat")
        message = [{"role": "user", "content": _readable(prompt)}]
        prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(_readable(prompt), return_tensors="pt", add_special_tokens=not chat)
    if not inputs["input_ids"].shape[1]:
        raise DataError("the prompt is empty")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=tokens,
            do_sample=sample,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    # a decoder that stands beside an encoder does not repeat the prompt
    written = ids[0] if model.config.is_encoder_decoder else ids[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(written, skip_special_tokens=True))


def _readable(prompt: Any) -> str:
    """The prompt as text that a tokenizer takes; of a C locale's bytes, what they say in UTF-8.

    Raises:
        UsageError: it is no text.
    """
    if not isinstance(prompt, str):
        raise UsageError(f"the prompt must be text, not {arguments.shown(prompt)}")
    try:
        return prompt.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UsageError("the prompt is no text: it holds bytes that are not UTF-8") from None
