"""Fused decoding: one token at a time, without the dozens of small torch calls a layer that stand between the products.

A family of models declares in one file (`families/`) where the parts of its decoder are (`family.py`). Norms, gated
MLPs, attentions and decoders that are as declared, and pass a trial against their own `forward` (`probe.py`), stay
transformers' own modules, with a second `forward` in front of their own (`swap.py`). A decoder all of whose parts are
fused is one compiled call for a token of one sequence on the CPU (`stack.py`), in a preallocated cache, where nothing
looks inside (no gradients, compilation, export, tracing, profiling, hooks on the inner layers); anything else goes to
the modules' own code.

Sequences of a batch come to the bits that they come to alone, padded or not, with gradients or without: norms, and the
gates of one token each, are the same kernels then (`norm.py`, `gated.py`), and attention goes sequence by sequence
where it would not be torch's without a mask (`rows.py`, by what `padding.py` reads off the mask).
"""
