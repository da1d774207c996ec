"""What a backend of packed matrices is: what it supports, bytes to matrix, products, rows.

A new one is a subclass of `Backend` and an entry point in the group `nash_swarm.backends`;
`nash_swarm.testing.check_backend` is its contract.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nash_swarm.errors import UsageError
from nash_swarm.names import Mode
from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.sharing import share_rows

Read = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], int, int], None]


@dataclass(frozen=True)
class Capability:
    """What a backend supports.

    Attributes:
        devices: types of devices, as `torch.device.type`; `None` for all.
        formats: names of storage formats; `None` for all.
        instructions: sets of instructions of which the device has to have one, see `instructions_of`; `None` if any do.
    """

    devices: frozenset[str] | None = None
    formats: frozenset[str] | None = None
    instructions: frozenset[str] | None = None


class Backend(ABC):
    """Multiplies with packed matrices. Has no state; what it knows of a matrix is in what `prepare` returns.

    The callers (`nash_swarm.quantizers.runtime.dispatch`) have checked the arguments: inputs have the matrix' number of
    columns, ids are inside it.

    Attributes:
        name: as users read it.
        priority: of the backends that support a matrix the one with the highest is taken; the reference has 0, our CPU
            kernels 100.
        capability: what is supported.
    """

    name: ClassVar[str]
    priority: ClassVar[int]
    capability: ClassVar[Capability] = Capability()

    def refusal(self, layout: Layout, device: torch.device, instructions: frozenset[str]) -> str | None:
        """Why matrices of this layout on this device are not supported; `None` if they are."""
        able = self.capability
        if able.devices is not None and device.type not in able.devices:
            return f"runs on {', '.join(sorted(able.devices))}, not on {device.type}"
        if able.formats is not None and layout.format.name not in able.formats:
            return f"has no kernels for the format {layout.format.name}"
        if able.instructions is not None and not able.instructions & instructions:
            return f"needs one of the instruction sets {', '.join(sorted(able.instructions))}"
        return None

    def supports(self, layout: Layout, device: torch.device, instructions: frozenset[str]) -> bool:
        """Whether `prepare` may be called."""
        return self.refusal(layout, device, instructions) is None

    @abstractmethod
    def prepare(self, packed: torch.Tensor, layout: Layout, strategies: tuple[int, ...]) -> Any:
        """What the other methods are given as `matrix`, made once for each buffer.

        Args:
            packed: uint8 (bytes,), contiguous. The matrix must not keep it alive, and is dropped when it is freed or
                changed.
            layout: shape and agent grid.
            strategies: widths that there may be.

        Raises:
            DataError: the bytes are not what the layout says.
        """

    @abstractmethod
    def rows(self, matrix: Any, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the matrix, float32 (len(ids), columns), on the device of ids, int64 (any number,)."""

    def linear(self, matrix: Any, x: torch.Tensor, bias: torch.Tensor | None, activations: str) -> torch.Tensor:
        """`x W^T + b`, (..., rows) of the type of x; here with the dense matrix, exactly, whatever the mode.

        Args:
            matrix: from `prepare`; has `layout`.
            x: floating point (..., columns), of any strides and number of tokens, none included.
            bias: (rows,) or `None`.
            activations: see `names.Mode`.

        Raises:
            UsageError: there is no such choice of activations.
        """
        check_mode(activations)
        weight = self.rows(matrix, torch.arange(matrix.layout.rows, device=x.device)).to(x.dtype)
        return functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


def check_mode(activations: str) -> None:
    """Refuse what is no `names.Mode`.

    Raises:
        UsageError: it is none.
    """
    if activations not in get_args(Mode):
        raise UsageError(f"activations must be one of {', '.join(get_args(Mode))}, not {activations!r}")


def host_bytes(packed: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The bytes where NumPy reads them: in place, without keeping them alive, on the CPU, and else a copy."""
    if packed.device.type != "cpu":
        copied: npt.NDArray[np.uint8] = packed.detach().cpu().numpy()
        return copied
    # an array over the bare address: torch's own view of the tensor would keep its memory alive
    return np.ctypeslib.as_array((ctypes.c_uint8 * packed.numel()).from_address(packed.data_ptr()))


def read_rows(read: Read, ids: torch.Tensor, columns: int) -> torch.Tensor:
    """`Backend.rows` of a matrix that is unpacked on the CPU, by as many threads as torch has.

    read: `read(wanted, out, first, past)` unpacks rows `wanted[first:past]` into the same rows of out, float32.
    """
    out = torch.empty(len(ids), columns)
    share_rows(len(ids), partial(read, (ids if ids.is_cpu else ids.cpu()).numpy(), out.numpy()))
    return out if ids.is_cpu else out.to(ids.device)


@cache
def instructions_of(device: torch.device) -> frozenset[str]:
    """Sets of instructions that a device has: `simd.paths` of a CPU, `sm_90` and the like of a CUDA device."""
    if device.type == "cpu":
        from nash_swarm.quantizers.runtime.cpu.simd.paths import available

        return frozenset(available())
    if device.type == "cuda" and torch.cuda.is_available():
        return frozenset({"sm_{}{}".format(*torch.cuda.get_device_capability(device))})
    return frozenset()
