"""What a field holds: its wire type, how many, what holds it in Python, and within which bounds."""

from __future__ import annotations

import copy
import enum
import operator
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap, zip_longest
from typing import Any, Final, Protocol, cast

from tagged_vmstate.blocks import BlockType, FloatType, IntType, typed
from tagged_vmstate.errors import StateError
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import NIL, Piece, pack_uint
from tagged_vmstate.wiretype import WireType, brief

PAGE: Final = 4096
"""Memory that is zero is left out a page at a time."""


class StructTable(Protocol):
    """What is known here of a struct's table."""

    @property
    def name(self) -> str:
        """The name of the struct."""
        ...


BOUNDS: Final[dict[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "ge": (operator.ge, "of at least {}"),
    "gt": (operator.gt, "above {}"),
    "le": (operator.le, "of at most {}"),
    "lt": (operator.lt, "below {}"),
    "multiple_of": (lambda value, step: value % step == 0, "as a multiple of {}"),
    "mask": (lambda value, mask: value & ~mask == 0, "with no bits but 0x{:x}"),
    "predicate": (lambda value, function: bool(function(value)), "that meets {0}"),
}
"""What can bound a value: test, and what fits in words."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a single value.

    Attributes:
        kind: One of `BOUNDS`.
        bound: What it bounds with: a number, or a function.
    """

    kind: str
    bound: Any

    @property
    def words(self) -> str:
        """What fits, for an error: ``of at most 256``."""
        return BOUNDS[self.kind][1].format(self.name if self.kind == "predicate" else self.bound)

    @property
    def name(self) -> str:
        """What it bounds with, as text that is the same in another process."""
        return str(getattr(self.bound, "__name__", type(self.bound).__name__)) if self.kind == "predicate" else str(self.bound)

    def is_met(self, value: object) -> bool:
        """Whether a value fits; one that cannot even be asked does not."""
        try:
            return BOUNDS[self.kind][0](value, self.bound)
        except Exception:  # noqa: BLE001  # a predicate is somebody's code
            return False


class SparseMemory:
    """The value of a `sparse` field by its runs, so that what is zero takes no room: what exported tables hold it in.

    Args:
        length: Bytes in all.
        runs: As `sparse` has them; where they overlap, the later one counts.
    """

    __slots__ = ("length", "runs")

    def __init__(self, length: int, runs: Runs) -> None:
        self.length = length
        self.runs = runs

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        size = sum(len(data) for _, data in self.runs)
        return f"<{size} of {self.length} bytes from 0x{self.runs[0][0]:x} on>" if size else f"<{self.length} zero bytes>"

    def __eq__(self, other: object) -> bool:
        try:
            runs = other.runs if isinstance(other, SparseMemory) else nonzero_runs(memoryview(cast("bytes", other)).cast("B"))
        except TypeError:
            return NotImplemented
        if self.length != (other.length if isinstance(other, SparseMemory) else len(cast("bytes", other))):
            return False
        return self.runs == runs or all(starmap(operator.eq, zip_longest(_bytes_in_use(self.runs), _bytes_in_use(runs))))

    def __hash__(self) -> int:
        return hash(self.length)

    def filled(self) -> bytearray:
        """All of it."""
        memory = bytearray(self.length)
        for offset, data in self.runs:
            memory[offset : offset + len(data)] = data
        return memory


def _bytes_in_use(runs: Runs) -> Iterator[tuple[int, int]]:
    """Each byte that is not zero, and where: the same however runs are cut."""
    return ((offset + place, byte) for offset, data in runs for place, byte in enumerate(data) if byte)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """What a field holds.

    Attributes:
        wire: The type in the file.
        length: How many, where that is fixed; None for a single value, or where it varies.
        capacity: How many at most, where that varies.
        holder: What holds the value in Python: `int`, an enum, `bytes`, `list`, `array`, numpy's array type ...
        enum: What each number is a member of.
        table: The table of a struct.
        is_optional: A struct that may be None.
        constraints: What each single value must meet.
        shape: The dimensions of a numpy array, where they are not just one. In the file it is one row, the last dimension
            running fastest.
    """

    wire: WireType
    length: int | None = None
    capacity: int | None = None
    holder: Any = None
    enum: type[enum.IntEnum] | None = None
    table: StructTable | None = None
    is_optional: bool = False
    constraints: tuple[Constraint, ...] = ()
    shape: tuple[int, ...] | None = None

    def describe(self) -> str:
        """The type as people write it: ``uint32[4]``, ``uint32[up to 4]``."""
        return f"{self.wire.name}[up to {self.capacity}]" if self.capacity is not None else self.wire.describe(self.length)

    @property
    def is_array(self) -> bool:
        """Whether it holds several values of its wire type."""
        return self.wire.counted is None and (self.length is not None or self.capacity is not None)

    def length_of(self, value: Any) -> int | None:
        """The length that a value is written with. Raises StateError where there are too many."""
        if self.capacity is None:
            return self.length
        if self.wire.name == "sparse":
            return len(self.memory(value))
        try:
            length = len(value)
        except TypeError:
            raise StateError(f"`{self.describe()}`", brief(value)) from None
        if self.wire.name == "bitmap":
            length = self.capacity if length == -(-self.capacity // 8) else 8 * length
        if length > self.capacity:
            raise StateError(f"`{self.describe()}`", f"{length} of them")
        return length

    def takes_length(self, length: int | None) -> bool:
        """Whether a length in a snapshot fits."""
        if self.capacity is None:
            return length == self.length
        return length is not None and length <= self.capacity

    def pieces(self, value: Any) -> tuple[bytes, Sequence[Piece]]:
        """Length and value of a field that is no struct, as MessagePack objects, the value in pieces. Raises StateError."""
        value = self._taken(value)
        length = self.length_of(value)
        problem = self.violation(value)
        if problem:
            raise StateError(*problem[1:], path=problem[0])
        if self.wire.name == "sparse":
            value = self.runs(value)
        return NIL if length is None else pack_uint(length), self.wire.pieces(value, length)

    def _taken(self, value: Any) -> Any:
        """A value as it is now: what is checked has to be what is written, even if the state changes meanwhile."""
        if not (self.is_array or self.wire.counted) or self.wire.name == "sparse" or isinstance(value, bytes | str):
            return value  # memory is looked at a page at a time: any bytes will do
        try:
            view = memoryview(value)
        except (TypeError, ValueError):
            return tuple(value) if self.is_array and isinstance(value, Sequence) else value
        return self._row(value, view) if self.is_array else view.tobytes()

    def _row(self, value: Any, view: memoryview) -> Any:
        """The elements of a buffer in one row. Raises StateError for dimensions that the field does not have."""
        shape = view.shape or ()
        if len(shape) != 1 and shape != self.shape:
            dimensions = f"the dimensions {self.shape}" if self.shape is not None else "one dimension"
            raise StateError(f"`{self.describe()}` in {dimensions}", f"the dimensions {shape}")
        if isinstance(self.wire, BlockType) and self.wire.is_alike(view):
            return typed(view.tobytes(), self.wire.code)
        if len(shape) != 1:
            raise StateError(f"`{self.describe()}`", brief(value))
        return tuple(value) if isinstance(value, Sequence) else value  # elements of another type, for the wire type to judge

    def copied(self, value: Any) -> Any:
        """A copy of a value, of the same type where that can be copied."""
        try:
            return copy.copy(value)
        except TypeError:  # a view
            return self._taken(value)

    def runs(self, value: object) -> Runs:
        """What is not zero in a `sparse` field. Raises StateError as `memory` does."""
        if not isinstance(value, SparseMemory) or not self.takes_length(value.length):
            return nonzero_runs(self.memory(value))
        are_apart = all(low + len(data) <= high for (low, data), (high, _) in pairwise(value.runs))
        return value.runs if are_apart else nonzero_runs(memoryview(value.filled()))

    def check_memory(self, value: object) -> None:
        """Raise StateError as `memory` does, and where the runs do not fit; whatever bytes are in it do."""
        if not isinstance(value, SparseMemory):
            self.memory(value)
        elif not self.takes_length(value.length):
            raise StateError(f"`{self.describe()}`", f"{value.length} bytes")
        else:
            self.wire.pieces(value.runs, value.length)

    def memory(self, value: object) -> memoryview:
        """The bytes of a `sparse` field. Raises StateError where they are none, or not as many."""
        try:
            view = memoryview(value.filled() if isinstance(value, SparseMemory) else cast("bytes", value)).cast("B")
        except (TypeError, ValueError):
            raise StateError(f"`{self.describe()}`", brief(value)) from None
        if not self.takes_length(len(view)):
            raise StateError(f"`{self.describe()}`", f"{len(view)} bytes")
        return view

    def from_wire(self, value: Any, wire: WireType, length: int | None) -> Any:
        """The Python value of what a record of a length holds, as `wire` unpacked it.

        Raises:
            ValueError: A number that is no member of its enum.
        """
        if wire.name == "sparse":
            return self._filled(value, length or 0)
        if not self.is_array:
            return self.enum(value) if self.enum else value if self.holder is bytes else self.holder(value)
        if self.holder is list or self.holder is tuple:
            elements = value.tolist() if isinstance(value, memoryview) else value
            return self.holder(map(self.enum, elements) if self.enum else elements)
        return self._block(value, is_same=wire is self.wire)

    def _filled(self, runs: Runs, length: int) -> Any:
        memory = SparseMemory(length, runs)
        if self.holder is SparseMemory:
            return memory
        return memory.filled() if self.holder is bytearray else self.holder(memory.filled())

    def _block(self, view: memoryview, *, is_same: bool) -> Any:
        """Numbers in an `array` or a numpy array, in memory of their own: devices write into it."""
        found = array(cast("BlockType", self.wire).code.replace("?", "B"))
        if is_same:
            found.frombytes(view.cast("B"))
        else:
            found.extend(view.tolist())
        if self.holder is array:
            return found
        import numpy  # noqa: ICN001, PLC0415  # only who declares numpy arrays needs it

        row = numpy.frombuffer(found, dtype=cast("BlockType", self.wire).code)
        return row if self.shape is None else row.reshape(self.shape)

    def violation(self, value: Any) -> tuple[tuple[int, ...], str, str] | None:
        """Index, expected and found of the first value that does not meet a constraint; None where all do."""
        if not self.constraints and not self.enum:
            return None
        single = not self.is_array
        for index, each in enumerate((value,) if single else value):
            for constraint in self.constraints:
                if not constraint.is_met(each):
                    return () if single else (index,), f"`{self.wire.name}` {constraint.words}", brief(each)
            if self.enum and not _is_member(self.enum, each):
                return () if single else (index,), members(self.enum), brief(each)
        return None

    def same(self, first: Any, second: Any) -> bool:
        """Whether two values are equal, whatever holds their elements."""
        if self.is_array and self.table is None:
            first, second = (value.tolist() if hasattr(value, "tolist") else list(value) for value in (first, second))
        return bool(first == second)


def nonzero_runs(memory: Piece) -> Runs:
    """The runs of pages that are not all zero."""
    return tuple((start, bytes(memory[start:end])) for start, end in _spans(memory))


def _spans(memory: Piece) -> Iterator[tuple[int, int]]:
    zero = bytes(PAGE)
    start = None
    for offset in range(0, len(memory), PAGE):
        page = bytes(memory[offset : offset + PAGE])  # a view is compared byte by byte
        if page != zero[: len(page)]:
            start = offset if start is None else start
        elif start is not None:
            yield start, offset
            start = None
    if start is not None:
        yield start, len(memory)


def _is_member(kind: type[enum.IntEnum], value: object) -> bool:
    try:
        kind(value)  # type: ignore[arg-type]  # what is no number is no member
    except ValueError:
        return False
    return True


def members(kind: type[enum.IntEnum]) -> str:
    """The members of an enum, for an error."""
    names = [f"{member.name} ({int(member)})" for member in kind]
    return f"a {kind.__name__}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"


def widening_misfit(source: FieldType, target: FieldType) -> str | None:
    """Why a value of one type does not always fit another without loss; None where it does."""
    first, second = source.wire, target.wire
    if isinstance(first, IntType) and isinstance(second, IntType):
        fits = second.low <= first.low and first.high <= second.high
    elif isinstance(first, FloatType) and isinstance(second, FloatType):
        fits = first.width <= second.width
    elif isinstance(first, IntType) and isinstance(second, FloatType):
        fits = first.high < 1 << (24 if second.width == 4 else 53)
    else:
        fits = False
    return None if fits and first is not second else f"`{first.name}`"
