"""Backends: who multiplies with packed matrices, on which devices, with which instructions.

Ours are registered here and not in the package's metadata, so that packed models run wherever the code can be imported.
Other packages add theirs with an entry point in the group `nash_swarm.backends`.
"""

from nash_swarm import registry
from nash_swarm.quantizers.runtime.backends.cpu import Cpu
from nash_swarm.quantizers.runtime.backends.reference import Reference

for _kind in (Cpu, Reference):
    registry.register("backends", _kind.name, _kind)
