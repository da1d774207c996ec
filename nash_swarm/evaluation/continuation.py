"""Text generation from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nash_swarm import arguments
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.text_stream import TextStream
from nash_swarm.sampling import GREEDY, Sampling


def continue_text(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    tokens: int = 40,
    chat: bool = False,
    system: str | None = None,
    sample: bool = False,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    seed: int = 0,
    write: Callable[[str], object] | None = None,
) -> str:
    """The model's continuation of `prompt`, without the prompt.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompt: text to continue.
        tokens: new tokens at most.
        chat: put the prompt into the tokenizer's chat template as a user's message.
        system: a system message before it; only with `chat`.
        sample: sample with the model's own settings instead of taking the likeliest token.
        sampling: sample with these settings.
        stop: strings that end the text; it is cut before the first of them.
        seed: of the sampling.
        write: called with every piece of the text as it is generated; the pieces add up to the returned text.

    Raises:
        UsageError: the model is not a language model, the tokenizer or its chat template is missing, the template takes
            no system message, a stop string is empty, or `system` is given without `chat`.
        DataError: the prompt has no tokens.
    """
    import torch

    if isinstance(stop, str) or not all(stop):
        raise UsageError("stop takes a list of strings that are not empty")
    if not model.can_generate():
        raise UsageError(f"a {type(model).__name__} writes no text; use its embeddings")
    arguments.whole("tokens", tokens, 1)
    arguments.whole("seed", seed, 0)
    if tokenizer is None:
        raise UsageError("this model was saved without a tokenizer; it cannot read a prompt")
    if chat:
        prompt = _dialogue(tokenizer, system, _readable(prompt))
    elif system is not None:
        raise UsageError("a system message stands in a chat template: add --chat, or write it into the prompt")
    inputs = tokenizer(_readable(prompt), return_tensors="pt", add_special_tokens=not chat)
    if not inputs["input_ids"].shape[1]:
        raise DataError("the prompt is empty")
    # the decoder of an encoder-decoder does not repeat the prompt
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    stream = TextStream(tokenizer, start, stop, write)
    chosen = sampling if sampling is not None else Sampling() if sample else GREEDY
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=tokens,
            stopping_criteria=[stream] if stop or write is not None else None,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            **chosen.options(),
        )
    return stream.finish(ids[0])


def _dialogue(tokenizer: Any, system: str | None, prompt: str) -> str:
    """The prompt as a user's message in the tokenizer's chat template, after the system message if there is one."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise UsageError("this model's tokenizer has no chat template; leave out --chat")
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": prompt})
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        hint = "" if system is None else " (many templates take no system message: leave out --system)"
        raise UsageError(f"the model's chat template refuses the messages: {error}{hint}") from None


def _readable(prompt: Any) -> str:
    """The prompt as text for a tokenizer; bytes that a C locale passed through are decoded as UTF-8.

    Raises:
        UsageError: it is not text.
    """
    if not isinstance(prompt, str):
        raise UsageError(f"the prompt must be text, not {arguments.shown(prompt)}")
    try:
        return prompt.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise UsageError("the prompt is no text: it holds bytes that are not UTF-8") from None
