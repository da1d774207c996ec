"""Questions made from any text: predict the last word of a sentence, freely or among four choices.

As in LAMBADA (D. Paperno et al., "The LAMBADA dataset", ACL 2016) and the Children's Book Test (F. Hill et al., "The
Goldilocks principle", ICLR 2016), the answer occurs earlier in the passage, so that the context determines it; the
three wrong choices are last words of other sentences of the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError
from nash_swarm.files.atomic import new_folder
from nash_swarm.files.known import QUESTIONS, TASK_FILES
from nash_swarm.models.modes import inference
from nash_swarm.progress import over

LAST_WORD, CLOZE = "last-word", "cloze"
TASKS = (LAST_WORD, CLOZE)
"""`last-word`: correct if all tokens of the word are the likeliest. `cloze`: if it is likelier than three others."""
CHOICES = 4
_FEWEST_WORDS, _MOST_WORDS = 12, 80
_WORD = re.compile(r"[a-z]{3,}")
_SENTENCE_END = re.compile(r"(?<=[a-z])[.!?](?=\s|$)")


@dataclass(frozen=True)
class Question:
    """A passage without its last word.

    Attributes:
        context: the passage up to the space before the word.
        choices: candidate words, the correct one among them.
        answer: index of the correct one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int


def make_questions(passages: Sequence[str], count: int, rng: np.random.Generator) -> list[Question]:
    """At most `count` questions from pieces of a text.

    Every sentence whose last word (three lower-case letters or more) occurs among the up to 80 words before it is a
    candidate; questions are drawn from all candidates at random.

    Args:
        passages: pieces of consecutive text; a context does not cross their ends.
        count: number of questions at most.
        rng: chooses sentences, wrong words and the order of the choices.

    Raises:
        DataError: the text has too few such sentences.
    """
    found = [question for passage in passages for question in _candidates(passage)]
    words = sorted({word for _, word in found})
    if len(words) < CHOICES:
        raise DataError(
            f"the text has {len(words)} different words that end a sentence and occurred before; "
            f"at least {CHOICES} are needed to ask for one"
        )
    if count < len(found):
        found = [found[place] for place in np.sort(rng.choice(len(found), count, replace=False))]
    questions = []
    for context, word in found:
        others = [other for other in words if other != word]
        choices = [word, *(others[place] for place in rng.choice(len(others), CHOICES - 1, replace=False))]
        order = rng.permutation(CHOICES)
        questions.append(Question(context, tuple(choices[place] for place in order), int(np.argmin(order))))
    return questions


def _candidates(passage: str) -> list[tuple[str, str]]:
    """(context, last word) of every candidate sentence."""
    found = []
    for end in _SENTENCE_END.finditer(passage):
        words = passage[: end.start()].split()[-_MOST_WORDS:]
        context, word = " ".join(words[:-1]), words[-1]
        if len(words) >= _FEWEST_WORDS and _WORD.fullmatch(word) and word in context.split():
            found.append((context, word))
    return found


@torch.no_grad()
def answer(model: Any, tokenizer: Any, questions: Sequence[Question], *, quiet: bool = False) -> dict[str, Any]:
    """Which questions a model answers correctly.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        questions: the questions.
        quiet: no progress bar.

    Returns:
        For each of `TASKS` bool (questions,).
    """
    right: dict[str, npt.NDArray[np.bool_]] = {task: np.zeros(len(questions), np.bool_) for task in TASKS}
    with inference(model):
        for place, question in enumerate(over(questions, label="questions", unit="question", quiet=quiet)):
            likelihood, greedy = _score(model, tokenizer, question)
            right[LAST_WORD][place] = greedy[question.answer]
            right[CLOZE][place] = int(np.argmax(likelihood)) == question.answer
    return right


def _score(model: Any, tokenizer: Any, question: Question) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Log-likelihood of each choice, and whether each of its tokens is the likeliest, in one batch."""
    context = tokenizer(question.context)["input_ids"]
    rows = [tokenizer(f"{question.context} {word}")["input_ids"] for word in question.choices]
    longest = max(map(len, rows))
    # padding on the right, which causal attention does not see
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    logits = model(ids, use_cache=False).logits[:, len(context) - 1 : -1].float()
    scores = torch.log_softmax(logits, -1)
    targets = ids[:, len(context) :]
    own = torch.tensor([[len(context) + k < len(row) for k in range(targets.shape[1])] for row in rows])
    likelihood = (scores.gather(-1, targets[..., None])[..., 0] * own).sum(1)
    greedy = ((scores.argmax(-1) == targets) | ~own).all(1)
    return likelihood.double().numpy(), greedy.numpy()


def write_task_files(questions: Sequence[Question], folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write both tasks as local task files of lm-eval, with their questions beside them.

    Args:
        questions: the questions.
        folder: new folder.
        overwrite: replace a folder of such task files.

    Raises:
        UsageError: the folder is not empty, or holds anything but such task files, or those without `overwrite`.
        DataError: it cannot be written.
    """
    with new_folder(folder, overwrite=overwrite, kind=TASK_FILES) as new:
        lines = [
            json.dumps({"context": question.context, "choices": question.choices, "answer": question.answer})
            for question in questions
        ]
        (new / QUESTIONS).write_text("\n".join([*lines, ""]), encoding="utf-8")
        data = json.dumps({"test": str((Path(folder) / QUESTIONS).resolve())})
        for task, kind, target in (
            (LAST_WORD, "loglikelihood", "\"{{' ' + choices[answer]}}\""),
            (CLOZE, "multiple_choice", "answer"),
        ):
            (new / f"{task}.yaml").write_text(
                f"task: {task}\ndataset_path: json\ndataset_kwargs:\n  data_files: {data}\n"
                f'test_split: test\noutput_type: {kind}\ndoc_to_text: "{{{{context}}}}"\ndoc_to_target: {target}\n'
                + ("doc_to_choice: choices\n" if task == CLOZE else "")
                + "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n",
                encoding="utf-8",
            )
    return Path(folder)
