"""Solvers compared on synthetic games of every size: `nash-swarm bench-solvers`."""
