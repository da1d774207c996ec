"""Quantizers: rounding methods, the packed format, packed modules and their kernels."""

from nash_swarm.quantizers.base import Quantizer, Rounded

__all__ = ["Quantizer", "Rounded"]
