"""The packed format: one byte buffer per matrix, readable from its layout alone."""

from nash_swarm.quantizers.packing.tensor import PackedTensor

__all__ = ["PackedTensor"]
