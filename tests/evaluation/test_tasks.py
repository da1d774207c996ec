"""Questions made from text, their answers against a plain loop, and `nash-swarm eval --tasks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bench import Bench
from typer.testing import CliRunner

from nash_swarm import extras
from nash_swarm.calibration.text import load_text
from nash_swarm.cli.main import app
from nash_swarm.errors import DataError, UsageError
from nash_swarm.evaluation.cloze import CHOICES, CLOZE, LAST_WORD, Question, answer, make_questions, write_task_files
from nash_swarm.integrations import harness
from nash_swarm.models.source import load_source

WORDS = ["garden", "river", "window", "market", "candle"]
SENTENCES = [f"We walked to the old {word} and there at last we all saw the same {word}." for word in WORDS]


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    text = load_text("python-docs").content
    return make_questions([text[:200_000]], 12, np.random.default_rng(0))


def test_a_question_asks_for_a_word_that_was_there() -> None:
    asked = make_questions([" ".join(SENTENCES)], 100, np.random.default_rng(0))
    assert [question.choices[question.answer] for question in asked] == WORDS
    for question in asked:
        assert question.choices[question.answer] in question.context.split()
        assert len(set(question.choices)) == CHOICES and set(question.choices) <= set(WORDS)
    assert len({question.answer for question in asked}) > 1


def test_sentences_that_tell_nothing_are_left_out() -> None:
    plain = "The last word of this one has not been there before, whatever you have read."
    short = "A garden, a garden."
    name = "They went from London by train, and nobody who had lived in it ever saw London."
    assert len(make_questions([" ".join(SENTENCES), plain, short, name], 100, np.random.default_rng(0))) == 5
    with pytest.raises(DataError, match="0 different words"):
        make_questions([plain, short, name], 10, np.random.default_rng(0))


def test_real_text_has_questions(questions: list[Question]) -> None:
    assert len(questions) == 12
    assert all(len(question.context.split()) < 80 for question in questions)
    again = make_questions([load_text("python-docs").content[:200_000]], 12, np.random.default_rng(0))
    assert again == questions


def plainly(model: Any, tokenizer: Any, question: Question) -> tuple[bool, bool]:
    """Last word and cloze, one choice at a time, without padding."""
    scores, greedy = [], []
    start = len(tokenizer(question.context)["input_ids"])
    for word in question.choices:
        ids = tokenizer(question.context + " " + word)["input_ids"]
        with torch.no_grad():
            found = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        scores.append(sum(float(found[place - 1, ids[place]]) for place in range(start, len(ids))))
        greedy.append(all(int(found[place - 1].argmax()) == ids[place] for place in range(start, len(ids))))
    return greedy[question.answer], max(range(CHOICES), key=scores.__getitem__) == question.answer


def test_answers_are_those_of_a_plain_loop(bench: Bench, questions: list[Question]) -> None:
    source = load_source(str(bench.model))
    found = answer(source.model, source.tokenizer, questions, quiet=True)
    told = [plainly(source.model, source.tokenizer, question) for question in questions]
    assert found[LAST_WORD].tolist() == [last for last, _ in told]
    assert found[CLOZE].tolist() == [cloze for _, cloze in told]
    assert 0 < found[CLOZE].sum() < len(questions)


def test_a_model_against_itself(bench: Bench, tmp_path: Path) -> None:
    words = ["eval", str(bench.model), "--reference", str(bench.model), "--tasks", "last-word,cloze", "-q", "--json"]
    saved = tmp_path / "tasks"
    words += ["--questions", "6", "--save-tasks", str(saved)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)["tasks"]
    for task in (LAST_WORD, CLOZE):
        assert told[task]["packed"] == told[task]["reference"] and told[task]["questions"] == 6
        assert told[task]["difference"]["value"] == 0 and told[task]["sign_test"] == 1
    assert {path.name for path in saved.iterdir()} == {"questions.jsonl", "last-word.yaml", "cloze.yaml"}
    shown = CliRunner().invoke(app, [word for word in words[:-2] if word != "--json"], catch_exceptions=False)
    assert shown.exit_code == 0 and "cloze (6" in shown.stdout and "difference" in shown.stdout


def test_other_tasks_name_the_extra(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "lm_eval" else module)
    done = CliRunner().invoke(app, ["eval", str(bench.model), "--tasks", "cloze,hellaswag"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == (
        'the task hellaswag needs lm_eval; run: pip install "nash-swarm[eval]" '
        '(from a checkout: pip install -e ".[eval]")'
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", " , "], "name at least one task"),
        (["--task-path", "."], "go with --tasks"),
    ],
)
def test_clashing_options_are_refused(words: list[str], message: str, bench: Bench) -> None:
    done = CliRunner().invoke(app, ["eval", str(bench.model), *words])
    assert isinstance(done.exception, UsageError) and message in str(done.exception)


@pytest.mark.filterwarnings("ignore")  # lm-eval and what it brings
def test_lm_eval_gets_the_same_from_the_written_files(bench: Bench, questions: list[Question], tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    source = load_source(str(bench.model))
    folder = write_task_files(questions, tmp_path / "tasks")
    told = harness.run_tasks(
        {"model": source.model}, source.tokenizer, [LAST_WORD, CLOZE], task_path=folder, quiet=True
    )["model"]
    found = answer(source.model, source.tokenizer, questions, quiet=True)
    for task in (LAST_WORD, CLOZE):
        assert told[task]["acc"].value == pytest.approx(found[task].mean())
        assert told[task]["acc"].low <= told[task]["acc"].value <= told[task]["acc"].high
    with pytest.raises(UsageError, match=r"knows no task hellaswag; there are: .*cloze"):
        harness.run_tasks({}, source.tokenizer, ["hellaswag"], task_path=folder)
