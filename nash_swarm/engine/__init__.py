"""Generating one token at a time, without the dozens of small torch calls a layer that stand between the products.

Norms, gated MLPs, attentions, decoder layers and decoders of known kinds (as in Llama, Mistral, Qwen2 and Qwen3), which
pass a trial against their own `forward`, stay transformers' own modules, with a second `forward` in front of their own.
It takes one token of one sequence on the CPU where nobody looks inside (no gradients, compilation, export, tracing,
profiling, hooks on the inner layers); anything else goes to the module's own code. All layers are one compiled call if
the cache is one that grows, a layer all of whose parts may be quick is two, and any other leaves its parts to
themselves.

Sequences of a batch come to the bits that they come to alone, padded or not, with gradients or without: norms, and the
gates of one token each, are the same kernels then (`norm.py`, `gated.py`), and attention goes sequence by sequence
where it would not be torch's without a mask (`rows.py`, by what `padding.py` reads off the mask).
"""
