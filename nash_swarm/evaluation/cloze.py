"""Questions made from any text: the last word of a sentence, asked for outright or among four.

In the manner of LAMBADA (D. Paperno et al., "The LAMBADA dataset", ACL 2016) and of the Children's Book Test (F. Hill
et al., "The Goldilocks principle", ICLR 2016): the word asked for has occurred before in the passage, so that it can be
found by whoever followed it; the three wrong words are last words of other sentences of the same text.
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
"""`last-word`: every token of the word is the likeliest one. `cloze`: the word is likelier than three others."""
CHOICES = 4
_FEWEST_WORDS, _MOST_WORDS = 12, 80
_WORD = re.compile(r"[a-z]{3,}")
_SENTENCE_END = re.compile(r"(?<=[a-z])[.!?](?=\s|$)")


@dataclass(frozen=True)
class Question:
    """A passage without its last word.

    Attributes:
        context: the passage up to the space before the word.
        choices: words that might follow, the right one among them.
        answer: index of the right one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int


def make_questions(passages: Sequence[str], count: int, rng: np.random.Generator) -> list[Question]:
    """At most `count` questions from pieces of a text.

    A question is asked at the end of a sentence whose last word (three lower-case letters or more) has occurred before,
    and shows up to 80 words before it. Every piece is used as evenly as possible.

    Args:
        passages: consecutive text each; no question reaches over their ends.
        count: questions at most.
        rng: chooses sentences, wrong words and the order of the choices.

    Raises:
        DataError: the text has too few such sentences to make a question of.
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
    """Contexts and the words that end them, one for every sentence that qualifies."""
    found = []
    for end in _SENTENCE_END.finditer(passage):
        words = passage[: end.start()].split()[-_MOST_WORDS:]
        context, word = " ".join(words[:-1]), words[-1]
        if len(words) >= _FEWEST_WORDS and _WORD.fullmatch(word) and word in context.split():
            found.append((context, word))
    return found


@torch.no_grad()
def answer(model: Any, tokenizer: Any, questions: Sequence[Question], *, quiet: bool = False) -> dict[str, Any]:
    """What a model gets right.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        questions: what is asked.
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
    # padding stands on the right, where no token of a causal model looks
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
        questions: what is asked.
        folder: new folder.
        overwrite: replace a folder of such task files.

    Raises:
        UsageError: the folder is not empty, or holds something else.
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
