"""The CPU backend: Numba kernels. Every kernel has a NumPy twin that the tests hold it against."""

# listens to Numba from the first kernel on
from nash_swarm.quantizers.runtime.cpu import first_use as first_use
