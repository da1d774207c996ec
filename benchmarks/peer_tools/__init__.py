"""Other tools, each in one file that runs in the tool's own environment, and what `benchmarks/peers.py` makes of them.

`exchange` is all that the two sides share: it imports neither nash_swarm nor any of the tools, and it runs the files of
the tools (`gptq`, `hqq`, `llama_cpp`, `auto_round`). The rest is the main process's.
"""
