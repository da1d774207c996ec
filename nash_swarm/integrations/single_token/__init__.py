"""Generating one token at a time, without the dozens of small torch calls a layer that stand between the products.

Norms, gated MLPs, attentions and decoder layers of the Llama kind stay transformers' own modules, with a second
`forward` in front of their own. It takes one token of one sequence on the CPU where nobody looks inside (no gradients,
compilation, export, tracing, profiling, hooks on the inner layers); anything else goes to the module's own code. A
layer all of whose parts may be quick is two compiled calls; any other leaves its parts to themselves.
"""
