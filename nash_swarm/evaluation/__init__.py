"""Evaluation: text, windows, perplexity, KL divergence and top-1 agreement."""

from nash_swarm.evaluation.measures import Evaluation, evaluate
from nash_swarm.evaluation.text import Text, load_text

__all__ = ["Evaluation", "Text", "evaluate", "load_text"]
