"""What is timed by `kernels.py` and `decode.py`."""
