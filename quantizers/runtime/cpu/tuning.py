"""Constants that were measured, not derived: another value is as right, and slower or faster.

All were found with `benchmarks/kernels.py` (the case is named for each) on x86-64 servers with two and more cores, with
AVX-512 VNNI and with AVX2; measure there before and after a change.
"""

from __future__ import annotations

from nash_swarm.quantizers.runtime.cpu.simd.paths import AVX2, AVX512VNNI, GENERIC

TOKENS_AT_ONCE = {AVX512VNNI: 16, AVX2: 4, GENERIC: 2}
"""Tokens whose integer sums fit the registers of a path (`batch`)."""
FLOAT_TOKENS_AT_ONCE = {AVX512VNNI: 4, AVX2: 1, GENERIC: 1}
"""The same for sums in float32 (`batch`, activations fp32)."""

ENTRIES_AHEAD = 512
"""Bytes of entries that prefetches run ahead (`vector`)."""
TILES_AHEAD = 8
"""How many tiles' tables fill two cache lines; every few tiles one of them would be waited for (`vector`)."""
STREAM = 6144
"""Bytes of codes after which an activation is looked at again: a fraction of the first cache, from which codes drive
out what has not been touched. What is missing there seems to wait behind all the codes that have been asked for
(`vector`)."""
TOUCHED = 4096
"""Bytes of activations up to which that pays; 32 kB of them took 1.4 times as long with it as without (`vector`)."""
UPCOMING = 16
"""Bytes that come from memory, and fit the second cache, while one input is rounded (`vector`)."""
CACHED = 1 << 19
"""Bytes of activations that stay in the second cache while a range of tiles passes over them (`batch`)."""

SHARE_SECONDS = 30e-6
"""What a share of the rows must take to be worth handing over to another thread (`threads`)."""
SECONDS_PER_WEIGHT, SECONDS_PER_PRODUCT, SECONDS_PER_INPUT = 2e-11, 8e-12, 1e-10
"""Of one core, in order of magnitude: to read a packed weight, to multiply it with a token, and to round an input."""
SPIN_SHARE = 1 << 16
"""Weights of one token's product that are worth handing over to a thread that is waiting for them
(`benchmarks/decode.py`)."""
