"""Models that are no causal language models, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.architectures import ARCHITECTURES
from support.bench import Bench

from nash_swarm.models.source import load_source


def stored(name: str, bench: Bench, folder: Path) -> Path:
    """A model and a tokenizer in one folder."""
    ARCHITECTURES[name].make().save_pretrained(folder)
    load_source(str(bench.model)).tokenizer.save_pretrained(folder)
    return folder


SHORT = ("--group-size", 32, "--windows", 4, "--eval-windows", 8, "--bits", 3.5)


@pytest.mark.filterwarnings("default::nash_swarm.errors.CalibrationWarning")
def test_an_encoder_is_judged_by_its_embeddings(bench: Bench, command: Any, tmp_path: Path) -> None:
    model, out = stored("bert", bench, tmp_path / "model"), tmp_path / "out"
    ran = command("compress", model, "-o", out, "--text", bench.text, *SHORT, "--json", "-q")
    told = ran.values
    assert 0.5 < told["packed"]["cosine"] < 0.9999 and told["reference"]["cosine"] == pytest.approx(1)
    assert told["packed"]["perplexity"] is None and told["packed"]["kl"] is None
    trial = list(told["trial_kl"].values())
    assert len(trial) == 3 and trial == sorted(trial) and 1e-4 < trial[0] < trial[-1]
    assert told["bytes"] * 8 <= told["certificate"]["budget_bits"]
    # a warning is one line, and names what it is about
    warned = [line for line in ran.err.splitlines() if "pooler" in line]
    assert len(warned) == 1 and warned[0].startswith("nash-swarm: no calibration token reaches pooler.dense")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "or AutoModel.from_pretrained" in card and "1 - cosine on held-out" in card

    again = command("eval", out, "--reference", model, "--text", bench.text, "--tokens", 1024, "--json", "-q").values
    assert again["packed"]["cosine"] == pytest.approx(told["packed"]["cosine"], rel=0.05)
    shown = command("compress", model, "-o", tmp_path / "shown", "--text", bench.text, *SHORT, "-q")
    assert "trial 1 - cosine of nash-swarm" in shown.out and "cosine to the original" in shown.out
    for arguments, said in (
        (("generate", out, "Python"), "writes no text"),
        (("eval", out, "--text", bench.text), "judged by its original"),
        (("eval", out, "--text", bench.text, "--tasks", "cloze"), "needs a causal language model"),
        (("bench", model, "--text", bench.text, "-o", tmp_path / "report"), "needs a language model"),
        (("compress", model, "-o", tmp_path / "x", "--bits", 3.5, "--effort", "best"), "cannot be tuned"),
    ):
        refused = command(*arguments)
        assert refused.code == 2 and said in refused.err and refused.err.count("\n") == 1, refused


def test_an_encoder_decoder_writes(bench: Bench, command: Any, tmp_path: Path) -> None:
    model, out = stored("t5", bench, tmp_path / "model"), tmp_path / "out"
    told = command("compress", model, "-o", out, "--text", bench.text, *SHORT, "--json", "-q").values
    assert told["packed"]["kl"] is not None and told["bytes"] * 8 <= told["certificate"]["budget_bits"]
    assert "or AutoModelForSeq2SeqLM.from_pretrained" in (out / "README.md").read_text(encoding="utf-8")
    first = command("generate", out, "Python is", "--tokens", 5, "--json").values
    assert isinstance(first["text"], str)


def test_windows_are_no_longer_than_the_model_reads(bench: Bench, command: Any, tmp_path: Path) -> None:
    model, report = stored("gpt2", bench, tmp_path / "model"), tmp_path / "report"
    told = command("eval", model, "--text", bench.text, "--tokens", 640, "--json", "-q").values
    assert told["packed"]["tokens"] == 10 * 63
    done = command(
        "bench", model, "--text", bench.text, "-o", report, "--solvers", "uniform", "--bits", 4, "--windows", 2,
        "--eval-windows", 2, "--granularity", "layer", "-q",
    )  # fmt: skip
    assert done.code == 0, done.err
