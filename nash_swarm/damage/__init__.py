"""Damage estimators: what each agent's rounding would cost the model."""

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Sensitivity

__all__ = ["DamageEstimator", "Sensitivity", "Statistics"]
