"""Damage estimators: what each agent's rounding would cost the model."""

from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.damage.statistics import Statistics

__all__ = ["DamageEstimator", "Sensitivity", "Statistics"]
