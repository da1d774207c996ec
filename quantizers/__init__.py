"""Quantizers: rounding methods, formats on disk, and packed matrices at work."""

from nash_swarm.quantizers.formats.native.grid import Rounded
from nash_swarm.quantizers.rounding.base import Quantizer

__all__ = ["Quantizer", "Rounded"]
