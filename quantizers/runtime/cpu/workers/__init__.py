"""Workers: threads that share out the rows of one compiled function, each share with a workspace of its own.

All three take a function, its first arguments, workspaces, rows and the number of shares, see `job.write_job`:

- `openmp`: the threads that torch's own operations run on, which are awake already. `threads.share_compiled` takes them
  wherever torch runs on an OpenMP runtime with GNU's interface, that is in its builds for Linux.
- `threads.pool`: plain Python threads, for `share_compiled` everywhere else, and in forked children, where those of the
  runtime are gone. Waking one takes about ten microseconds.
- `spinning`: threads that are called together once, by one of the two above, and then share out many small jobs from
  within compiled code, in less than a microsecond each: a whole decode step.

Python functions that release the GIL for most of their time have `nash_swarm.sharing.share_rows`.
"""
