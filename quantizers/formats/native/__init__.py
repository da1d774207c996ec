"""N16K32, the native format: one byte buffer per matrix, readable from its layout alone."""

from nash_swarm.quantizers.formats.native import format as format  # which makes itself known to its layouts
