"""Single weights as cells: every weight has a width of its own on the shared range of its group."""

from nash_swarm.quantizers.formats.per_weight import format as format  # which makes itself known to its layouts
