"""Evaluation: text, windows, perplexity, KL divergence and top-1 agreement."""

from nash_swarm.calibration.text import Text, load_text
from nash_swarm.evaluation.measures import Evaluation, evaluate

__all__ = ["Evaluation", "Text", "evaluate", "load_text"]
