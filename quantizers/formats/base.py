"""What a format is: how a matrix is cut into cells, what each strategy costs and errs, and the bytes on disk.

A `Format` holds the choices (group size, codebook, ...); `Format.cut` applies it to one matrix and gives a `Layout`,
which is what games, allocations and files know of the matrix. A new format is one folder: its `Layout`, `Format`,
`Packed` and `Grid`, held to `nash_swarm.testing.check_format`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.files.values import record
from nash_swarm.names import Granularity
from nash_swarm.quantizers.formats.packed import Bytes as Bytes
from nash_swarm.quantizers.formats.packed import Floats as Floats
from nash_swarm.quantizers.formats.packed import Grid as Grid
from nash_swarm.quantizers.formats.packed import Longs as Longs
from nash_swarm.quantizers.formats.packed import Packed as Packed
from nash_swarm.quantizers.formats.packed import Share as Share
from nash_swarm.quantizers.formats.packed import alone as alone

Kind = Literal["linear", "conv1d", "embedding", "tied"]


@dataclass(frozen=True)
class Layout(ABC):
    """One matrix of the model and the cells it is cut into, the agents of a game.

    Columns are counted in stored order (activation order where `ordered`). Agents are the cells of a grid, numbered
    row-major from `start`. Subclasses are frozen dataclasses of plain values.

    Attributes:
        name: path of the module in the model, e.g. ``model.layers.0.mlp.up_proj``.
        kind: what the module is; ``tied`` is an embedding that is the output head too.
        rows: outputs (tokens for an embedding).
        columns: inputs.
        ordered: columns are stored permuted; the permutation is on disk and paid for.
        start: index of the first agent in the game.
    """

    words: ClassVar[int] = 5
    """Words of `text`."""

    name: str
    kind: Kind
    rows: int
    columns: int
    ordered: bool = field(default=False, kw_only=True)
    start: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) <= 0 or self.start < 0 or self.kind not in get_args(Kind):
            self.refuse()

    def refuse(self) -> None:
        """Raise the error of a layout that cannot be.

        Raises:
            DataError: always.
        """
        raise DataError(f"tensor {self.name!r} has an impossible layout: {self.values()}")

    @property
    def weights(self) -> int:
        """Number of weights, without padding."""
        return self.rows * self.columns

    @property
    def format(self) -> Format[Any]:
        """The format that the matrix is stored in; its choices are fields of its layouts, too, by the same names."""
        kind = _formats[type(self)]
        return kind(**{choice.name: getattr(self, choice.name) for choice in fields(kind)})

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Agents along rows and along columns."""

    @property
    def agents(self) -> int:
        """Number of agents of this tensor."""
        return self.grid[0] * self.grid[1]

    @property
    def span(self) -> slice:
        """Where this tensor's agents stand in the game's arrays."""
        return slice(self.start, self.start + self.agents)

    @property
    @abstractmethod
    def unit(self) -> tuple[int, int]:
        """Rows and columns of the smallest block that has one width."""

    @property
    def units(self) -> tuple[int, int]:
        """Shape of the array of widths that the format rounds and packs with, see `expand`."""
        return -(-self.rows // self.unit[0]), -(-self.columns // self.unit[1])

    @abstractmethod
    def expand(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Agent values, shape (agents,), spread over the format's `units`.

        Raises:
            DataError: they are not one value an agent.
        """

    @abstractmethod
    def memory(self, strategies: tuple[int, ...]) -> Longs:
        """Exact bits on disk of each agent with each strategy, shape (agents, strategies).

        Where all agents cost the same the array is a broadcast view of one row.
        """

    @abstractmethod
    def fixed_bytes(self, strategies: int) -> int:
        """Bytes on disk that no choice among so many strategies changes."""

    def check(self, strategies: tuple[int, ...]) -> None:
        """Refuse strategies that the format does not hold.

        Raises:
            DataError: there are some.
        """
        if not set(strategies) <= set(self.format.strategies):
            raise DataError(f"the packed format holds the widths {self.format.strategies}, not {strategies}")

    def order_bytes(self) -> int:
        """Bytes of the permutation, if there is one."""
        return self.columns * self.order_type.itemsize if self.ordered else 0

    @property
    def order_type(self) -> np.dtype[Any]:
        """Type of a permutation's entries on disk."""
        return np.dtype("<u2" if self.columns <= 2**16 else "<u4")

    @abstractmethod
    def text(self, bias: bool = False) -> str:
        """The layout, without name and start, as a line in files; `bias`: the module has one."""

    @classmethod
    @abstractmethod
    def parse(cls, name: str, text: str) -> tuple[Self, bool]:
        """Inverse of `text`.

        Raises:
            DataError: the text is of another form, or there is no such layout.
        """

    def values(self) -> dict[str, Any]:
        """Plain values, as games and allocations have them in their files."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Inverse of `values`; fields may be missing that have a default.

        Raises:
            DataError: the record is of another kind of layout, says what is not so, or there is no such layout.
        """
        own = {each.name for each in fields(cls)}
        found = record(cls, {name: value for name, value in values.items() if name in own})
        known = found.values().items()
        if wrong := dict(item for item in values.items() if item not in known):
            raise DataError(f"{cls.__name__}: tensor {found.name!r} is not one of {wrong}")
        return found


L = TypeVar("L", bound=Layout)


@dataclass(frozen=True)
class Format(ABC, Generic[L]):
    """Base of every storage format. Subclasses are frozen dataclasses of the choices a format leaves."""

    name: ClassVar[str]
    strategies: ClassVar[tuple[int, ...]]
    """Bit-widths that a cell may have, ascending."""
    permutes: ClassVar[bool]
    """Whether columns may be stored in an order of their own, which is on disk and paid for."""
    layout: ClassVar[type[Layout]]
    """What `cut` returns; of no other format."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "layout" in vars(cls):
            _formats[cls.layout] = cls

    @abstractmethod
    def cut(
        self, name: str, kind: Kind, shape: tuple[int, int], granularity: Granularity, *, ordered: bool = False,
        start: int = 0,
    ) -> L:  # fmt: skip
        """The cells of a matrix of `shape` (rows, columns); `ordered` only where the format `permutes`.

        Raises:
            UsageError: the format has no such cells.
        """

    @abstractmethod
    def errors(
        self,
        weight: Floats,
        rows: Floats,
        columns: Floats,
        layout: L,
        strategies: tuple[int, ...],
        share: Share = alone,
    ) -> Floats:
        """Cost of rounding each agent to nearest with each strategy, float32 (agents, strategies).

        Args:
            weight: float32 (rows, columns), in stored order.
            rows: float32 (terms, rows).
            columns: float32 (terms, columns); an error in weight (i, j) costs its square times
                `sum_t rows[t, i] * columns[t, j]`.
            layout: cells.
            strategies: bit-widths.
            share: of the rows.
        """

    @abstractmethod
    def grid(
        self, weight: Floats, widths: Bytes, layout: L, costs: Floats, shrinks: tuple[float, ...], share: Share = alone
    ) -> Grid:
        """The grid that a matrix is rounded onto.

        Args:
            weight: float32 (rows, columns), in stored order.
            widths: uint8, one for each of the layout's `units`.
            layout: cells.
            costs: of a squared error in each column, float32 (columns,), for the search of scales.
            shrinks: shares of a group's range that the search of scales tries.
            share: of the rows.
        """

    @abstractmethod
    def pack(
        self, rounded: Any, agent_widths: Bytes, layout: L, permutation: Longs | None, strategies: tuple[int, ...]
    ) -> Packed:
        """Pack what a grid has rounded; `agent_widths` is uint8 (agents,), the width of each agent in bits."""

    @abstractmethod
    def read(self, buffer: Bytes, layout: L, strategies: tuple[int, ...]) -> Packed:
        """Parse a buffer.

        Raises:
            DataError: the buffer is not what the layout says, to the byte.
        """


_formats: dict[type[Layout], type[Format[Any]]] = {}


def layouts_of(tensors: Sequence[Any]) -> tuple[Layout, ...]:
    """The tensors of a game, where they are those of a model's matrices in a format.

    Raises:
        DataError: they are not: there is nothing to store.
    """
    if not all(isinstance(tensor, Layout) for tensor in tensors):
        raise DataError("the game's tensors have no format to be stored in")
    return tuple(tensors)
