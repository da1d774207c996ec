"""Evaluation: perplexity, KL divergence, top-1 agreement, questions made from text, and generation."""

from nash_swarm.calibration.text import Text, load_text
from nash_swarm.evaluation.measures import Evaluation, evaluate

__all__ = ["Evaluation", "Text", "evaluate", "load_text"]
