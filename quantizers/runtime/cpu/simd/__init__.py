"""Vector instructions for Numba: `@intrinsic` functions that emit LLVM vector code, no compiler needed.

A vector has sixteen 32-bit lanes, one for each row of a tile. What one instruction set does with one instruction and
another with five is decided where the code is emitted (`paths`), so the kernels are written once.
"""
