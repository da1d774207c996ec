"""HQQ (Badri and Shaji 2023), from PyPI: half-quadratic search of zero-points, no calibration text.

Settings: `width`, `group` (64), `axis` (1). Scales and zero-points are half precision. Codes are counted at their
width, though HQQ's own container for 3 bits takes 3.2.
"""

from __future__ import annotations

import torch
from hqq.core.quantize import Quantizer

from peer_tools.exchange import Job, scaled_bits, tool_main


def _work(job: Job) -> None:
    width, group = int(job.settings["width"]), int(job.settings.get("group", 64))
    done, bits = {}, 0
    for name, weight in job.weights().items():
        codes, meta = Quantizer.quantize(
            weight, nbits=width, group_size=group, axis=int(job.settings.get("axis", 1)), device="cpu",
            compute_dtype=torch.float32, bitpack=False,
        )  # fmt: skip
        # what is stored is half precision
        meta |= {
            "compute_dtype": torch.float32,
            "scale": meta["scale"].half().float(),
            "zero": meta["zero"].half().float(),
        }
        done[name] = Quantizer.dequantize(codes.float(), meta)
        bits += scaled_bits((1, weight.numel()), width, group, 32)
    job.finish(done, bits, ["hqq", "torch"])


if __name__ == "__main__":
    tool_main(_work)
