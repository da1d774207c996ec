"""Quantizers: rounding methods, formats on disk, and packed matrices at work."""

from nash_swarm.quantizers.rounding.base import Quantizer, Rounded

__all__ = ["Quantizer", "Rounded"]
