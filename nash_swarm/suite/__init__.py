"""The benchmark suite: models x budgets x solvers, every cell measured for real, kept on disk, and shown.

Whatever makes rows (`running.py`: our solvers; other protocols may join) keeps finished cells in a `ReportFolder` and
hands its `Row`s to `write_results`.
"""
