"""`nash-swarm generate`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nash_swarm.cli import options
from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.named import require_packed
from nash_swarm.sampling import GREEDY, Sampling

_PROMPT = "Prompt"
_SAMPLING = "Choosing tokens"


def generate(
    model: options.Packed,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; - for what is piped in, which is also read without one.")
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="New tokens at most.", rich_help_panel=_SAMPLING)
    ] = 40,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the model's chat template.", rich_help_panel=_PROMPT)
    ] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="System message; goes with --chat.", rich_help_panel=_PROMPT),
    ] = None,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample",
            help="Sample as the model's own settings say, instead of taking the likeliest token.",
            rich_help_panel=_SAMPLING,
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            metavar="T",
            help="Sample at this temperature; 0 takes the likeliest token.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="N",
            help="Sample among the N likeliest tokens; 0 for all.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p",
            metavar="P",
            help="Sample among the likeliest tokens that have the probability P together.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop",
            metavar="TEXT",
            help="End before this text; may be repeated.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Continue a text with a packed model, printing it as it is written.

    The likeliest token is taken unless --sample, --temperature, --top-k or --top-p is given; what is not given is then
    as the model's generation_config.json says.
    """
    sampling = _sampling(sample, temperature, top_k, top_p)
    stops = tuple(stop or ())
    if not all(stops):
        raise UsageError("--stop takes a text that is not empty")
    if system is not None and not chat:
        raise UsageError("--system goes with --chat: a system message stands in a chat template")
    model = require_packed(model)
    asked = _piped() if prompt is None or prompt == "-" else prompt

    from nash_swarm.artifacts.packed_model import load, load_tokenizer
    from nash_swarm.cli import show
    from nash_swarm.evaluation.continuation import continue_text

    subject, tokenizer = load(model), load_tokenizer(model)
    text = continue_text(
        subject, tokenizer, asked, tokens=tokens, chat=chat, system=system, sampling=sampling, stop=stops, seed=seed,
        write=None if json else _print_piece,
    )  # fmt: skip
    if json:
        show.print_json({"model": str(model), "prompt": asked, "text": text})
    else:
        print()


def _sampling(sample: bool, temperature: float | None, top_k: int | None, top_p: float | None) -> Sampling:
    """How tokens are chosen.

    Raises:
        UsageError: a value is out of range, or the options contradict one another.
    """
    if sample and temperature == 0:
        raise UsageError("--temperature 0 takes the likeliest token: leave out --sample")
    sampled = sample or temperature is not None or top_k is not None or top_p is not None
    return Sampling(temperature, top_k, top_p) if sampled else GREEDY


def _piped() -> str:
    """Standard input, without the line break that ends it.

    Raises:
        UsageError: it is a terminal, where nobody knows that a prompt is waited for.
        DataError: it is not UTF-8.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError('give a prompt, like "Once upon a time", or pipe one in')
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise DataError("the prompt from standard input is no UTF-8 text") from None


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)
