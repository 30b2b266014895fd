"""What a field holds in Python, said by an annotation, and what that is on the wire.

    int32                                    a number of 32 bits, in Python an `int`
    Annotated[Mode, uint8]                   an `enum.IntEnum` of a width
    Annotated[int32, Le(256)]                bounded, by the constraints of annotated-types or a `Mask`
    Annotated[bytes, Length(256)]            a buffer; a `bytearray` where it is to be changed in place
    Annotated[bitmap, Length(40)]            bits; `Annotated[sparse, Length(1 << 20)]`: guest memory
    Annotated[list[uint32], MaxLength(8)]    an array of up to eight; numpy's `NDArray[numpy.uint32]` too
    Annotated[array, uint32, Length(8)]      the same as an `array.array`, whose type has to be said
    Queue, Queue | None                      a struct: a class under `@vmstate`
    Annotated[dict, table]                   a struct that a hand-built `Table` describes

At run time all of them are plain Python values: nothing is wrapped.
"""

from __future__ import annotations

import enum
import operator
import types
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol, TypeAlias, Union, cast, get_args, get_origin

import annotated_types

from tagged_vmstate.blocks import BlockType, FloatType, IntType
from tagged_vmstate.errors import StateError, TableError
from tagged_vmstate.records import wire_type
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import NIL, pack_uint
from tagged_vmstate.wiretype import WireType, brief

PAGE: Final = 4096
"""Memory that is zero is left out a page at a time."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Marks an annotation with its wire type."""

    name: str


@dataclass(frozen=True, slots=True)
class Length:
    """As many elements, bytes (of a buffer or memory) or bits (of a bitmap): no more and no fewer."""

    value: int


@dataclass(frozen=True, slots=True)
class MaxLength:
    """At most as many; the snapshot says how many there are."""

    value: int


@dataclass(frozen=True, slots=True)
class Mask:
    """No bits but these."""

    value: int


boolean: TypeAlias = Annotated[bool, Wire("bool")]
int8: TypeAlias = Annotated[int, Wire("int8")]
int16: TypeAlias = Annotated[int, Wire("int16")]
int32: TypeAlias = Annotated[int, Wire("int32")]
int64: TypeAlias = Annotated[int, Wire("int64")]
uint8: TypeAlias = Annotated[int, Wire("uint8")]
uint16: TypeAlias = Annotated[int, Wire("uint16")]
uint32: TypeAlias = Annotated[int, Wire("uint32")]
uint64: TypeAlias = Annotated[int, Wire("uint64")]
float32: TypeAlias = Annotated[float, Wire("float32")]
float64: TypeAlias = Annotated[float, Wire("float64")]
timer: TypeAlias = Annotated[int, Wire("timer")]
"""A deadline in ns; -1 is not armed."""
bitmap: TypeAlias = Annotated[bytes, Wire("bitmap")]
"""Bit i is bit i%8 of byte i//8; its length counts bits, spare ones are 0."""
sparse: TypeAlias = Annotated[bytearray, Wire("sparse")]
"""Memory, mostly zero: pages of zeros cost nothing."""


class StructTable(Protocol):
    """What is known here of a struct's table."""

    @property
    def name(self) -> str:
        """The name of the struct."""
        ...


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a single value.

    Attributes:
        words: What fits, for an error: ``at most 256``.
        holds: Whether a value fits.
    """

    words: str
    holds: Callable[[Any], bool]

    def is_met(self, value: object) -> bool:
        """Whether a value fits; one that cannot even be asked does not."""
        try:
            return self.holds(value)
        except (TypeError, ValueError):
            return False


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
    """

    wire: WireType
    length: int | None = None
    capacity: int | None = None
    holder: Any = None
    enum: type[enum.IntEnum] | None = None
    table: StructTable | None = None
    is_optional: bool = False
    constraints: tuple[Constraint, ...] = ()

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
        try:
            length = len(value)
        except TypeError:
            raise StateError(f"`{self.describe()}`", brief(value)) from None
        if length > self.capacity:
            raise StateError(f"`{self.describe()}`", f"{length} of them")
        return length

    def takes_length(self, length: int | None) -> bool:
        """Whether a length in a snapshot fits."""
        if self.capacity is None:
            return length == self.length
        return length is not None and length <= self.capacity

    def pack(self, value: Any) -> tuple[bytes, bytes]:
        """Length and value of a field that is no struct, as MessagePack objects. Raises StateError."""
        length = self.length_of(value)
        problem = self.violation(value)
        if problem:
            raise StateError(*problem[1:], path=problem[0])
        if self.wire.name == "sparse":
            value = nonzero_runs(self.memory(value))
        elif self.is_array:
            value = _contiguous(value)
        return NIL if length is None else pack_uint(length), self.wire.pack(value, length)

    def memory(self, value: object) -> memoryview:
        """The bytes of a `sparse` field. Raises StateError where they are none, or not as many."""
        try:
            view = memoryview(cast("bytes", value)).cast("B")
        except TypeError:
            raise StateError(f"`{self.describe()}`", brief(value)) from None
        if len(view) != self.length:
            raise StateError(f"`{self.describe()}`", f"{len(view)} bytes")
        return view

    def from_wire(self, value: Any, wire: WireType) -> Any:
        """The Python value of what a record holds, as `wire` unpacked it.

        Raises:
            ValueError: A number that is no member of its enum.
        """
        if wire.name == "sparse":
            return self._filled(value)
        if not self.is_array:
            return self.enum(value) if self.enum else value if self.holder is bytes else self.holder(value)
        if self.holder is list or self.holder is tuple:
            elements = value.tolist() if isinstance(value, memoryview) else value
            return self.holder(map(self.enum, elements) if self.enum else elements)
        return self._block(value, is_same=wire is self.wire)

    def _filled(self, runs: Runs) -> Any:
        memory = bytearray(self.length or 0)
        for offset, data in runs:
            memory[offset : offset + len(data)] = data
        return memory if self.holder is bytearray else self.holder(memory)

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

        return numpy.frombuffer(found, dtype=cast("BlockType", self.wire).code)

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
        plain = [value.tolist() if hasattr(value, "tolist") else value for value in (first, second)]
        return bool(plain[0] == plain[1])


def _contiguous(value: Any) -> Any:
    """A strided buffer, such as a slice of a numpy array, as one block."""
    try:
        view = memoryview(value)
    except TypeError:
        return value
    return value if view.c_contiguous else memoryview(view.tobytes()).cast("B").cast(view.format)  # type: ignore[call-overload]


def nonzero_runs(memory: memoryview) -> Runs:
    """The runs of pages that are not all zero."""
    return tuple((start, bytes(memory[start:end])) for start, end in _spans(memory))


def _spans(memory: memoryview) -> Iterator[tuple[int, int]]:
    zero = bytes(PAGE)
    start = None
    for offset in range(0, len(memory), PAGE):
        page = memory[offset : offset + PAGE]
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


# What annotated-types bounds with: class -> (attribute, test, words).
_BOUNDS: Final[dict[type, tuple[str, Callable[[Any, Any], bool], str]]] = {
    annotated_types.Ge: ("ge", operator.ge, "of at least {}"),
    annotated_types.Gt: ("gt", operator.gt, "above {}"),
    annotated_types.Le: ("le", operator.le, "of at most {}"),
    annotated_types.Lt: ("lt", operator.lt, "below {}"),
    annotated_types.MultipleOf: ("multiple_of", lambda value, step: value % step == 0, "as a multiple of {}"),
    Mask: ("value", lambda value, mask: value & ~mask == 0, "with no bits but 0x{:x}"),
}


def parse(annotation: Any) -> FieldType:
    """What an annotation says.

    Raises:
        TableError: It is no field type; without the names of class and field, which its caller adds.
    """
    base, marks = _unwrap(annotation)
    if get_origin(base) in {Union, types.UnionType}:
        return _parse_optional(base, marks)
    found = _parse_base(base, marks)
    found = _with_length(found, marks)
    constraints = tuple(_constraints(marks, found))
    return replace(found, constraints=found.constraints + constraints)


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """What stands in `Annotated`, and its marks; a mark that is itself annotated (`uint8`) stands for its own."""
    if get_origin(annotation) is not Annotated:
        return annotation, []
    base, *marks = get_args(annotation)
    found: list[Any] = []
    for mark in marks:
        if isinstance(mark, annotated_types.GroupedMetadata):
            found += mark
        else:
            found += _unwrap(mark)[1] or [mark]
    return base, found


def _parse_optional(base: Any, marks: list[Any]) -> FieldType:
    inner = [each for each in get_args(base) if each is not types.NoneType]
    if len(inner) != 1 or len(inner) == len(get_args(base)):
        raise TableError("one type, or a struct or None", f"`{_name(base)}`")
    found = parse(Annotated[inner[0], *marks] if marks else inner[0])
    if found.table is None or found.is_array:
        raise TableError("None only beside a struct", f"`{_name(base)}`")
    return replace(found, is_optional=True)


def _parse_base(base: Any, marks: list[Any]) -> FieldType:
    wire = _last(marks, Wire)
    table = _table_of(base, marks)
    origin = get_origin(base) or base
    if origin in {list, tuple}:
        return _parse_elements(base, origin, marks)
    if table is not None:
        return FieldType(wire=wire_type("struct"), holder=base, table=table)
    if origin is array or _is_numpy(origin):
        return _parse_block(base, origin, wire)
    if not isinstance(origin, type):
        raise TableError("a type that a field can have", f"`{_name(base)}`")
    if issubclass(origin, enum.IntEnum):
        if not wire or not isinstance(wire_type(wire.name), IntType):
            raise TableError(f"a width beside the enum: Annotated[{origin.__name__}, uint8]", "none")
        return FieldType(wire=wire_type(wire.name), holder=origin, enum=origin)
    name = wire.name if wire else {bool: "bool", bytes: "buffer", bytearray: "buffer", str: "string"}.get(origin)
    if name is None:
        raise TableError(_HINTS.get(origin, "a type that a field can have, or a class under @vmstate"), f"`{_name(base)}`")
    return FieldType(wire=wire_type(name), holder=origin)


_HINTS: Final = {
    int: "a width: int8 ... uint64 or timer",
    float: "a width: float32 or float64",
    dict: "a table beside the dict: Annotated[dict, table]",
}


def _parse_elements(base: Any, origin: Any, marks: list[Any]) -> FieldType:
    arguments = [each for each in get_args(base) if each is not Ellipsis]
    if len(arguments) != 1:
        raise TableError(f"one type for the elements: {origin.__name__}[uint32{', ...' if origin is tuple else ''}]", _name(base))
    table = _last_table(marks)
    element = parse(Annotated[arguments[0], table] if table else arguments[0])
    if element.is_array or not element.wire.arrays:
        raise TableError("elements of a type that arrays can have (no arrays, buffers, bitmaps, memory)", f"`{_name(base)}`")
    return replace(element, holder=origin)


def _parse_block(base: Any, origin: Any, wire: Wire | None) -> FieldType:
    name = wire.name if wire else _DTYPES.get(getattr(_dtype(base), "__name__", ""))
    if name is None or not isinstance(wire_type(name), BlockType):
        raise TableError(f"the type of the elements beside the array: Annotated[{_name(base)}, uint32, ...]", "none")
    if origin is array and name == "bool":
        raise TableError("numbers in an array.array", "`bool`: take a list or numpy")
    return FieldType(wire=wire_type(name), holder=origin)


_DTYPES: Final = {
    **{name: name for name in ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]},
    "bool": "bool",
    "bool_": "bool",
}
"""numpy's name of a type -> ours."""


def _dtype(base: Any) -> Any:
    """The element type of `NDArray[numpy.uint32]`."""
    arguments = get_args(base)
    return get_args(arguments[1])[0] if len(arguments) == 2 and get_args(arguments[1]) else None


def _is_numpy(origin: Any) -> bool:
    return getattr(origin, "__name__", "") == "ndarray" and getattr(origin, "__module__", "") == "numpy"


def _with_length(found: FieldType, marks: list[Any]) -> FieldType:
    length, capacity = _last(marks, Length), _last(marks, MaxLength)
    counted = found.wire.counted is not None or found.holder in {list, tuple, array} or _is_numpy(found.holder)
    for mark in (length, capacity):
        if mark and (isinstance(mark.value, bool) or not isinstance(mark.value, int) or mark.value < 0):
            raise TableError("a length of 0 or more", brief(mark.value))
    if not counted:
        if length or capacity:
            raise TableError(f"no length for a single `{found.wire.name}`", brief(length or capacity))
        return found
    if length and capacity:
        raise TableError("Length or MaxLength", "both")
    if capacity and found.wire.name in {"bitmap", "sparse"}:
        raise TableError(f"a fixed Length for `{found.wire.name}`", brief(capacity))
    if not length and not capacity:
        raise TableError("its Length, or for one that varies its MaxLength", "neither")
    return replace(found, length=length.value if length else None, capacity=capacity.value if capacity else None)


def _constraints(marks: Iterable[Any], found: FieldType) -> Iterator[Constraint]:
    for mark in marks:
        if isinstance(mark, annotated_types.Predicate):
            yield Constraint(f"that meets {getattr(mark.func, '__name__', 'its predicate')}", mark.func)
        elif type(mark) in _BOUNDS:
            if not isinstance(found.wire, IntType | FloatType) or (isinstance(mark, Mask) and isinstance(found.wire, FloatType)):
                raise TableError(f"no {type(mark).__name__} on `{found.describe()}`", brief(mark))
            attribute, test, words = _BOUNDS[type(mark)]
            bound = getattr(mark, attribute)
            yield Constraint(words.format(bound), lambda value, test=test, bound=bound: test(value, bound))  # type: ignore[misc]
        elif isinstance(mark, annotated_types.BaseMetadata):
            raise TableError(
                "a constraint that is known here (Ge, Gt, Le, Lt, Interval, MultipleOf, Predicate, Mask)", brief(mark)
            )


def _last(marks: list[Any], kind: type[Any]) -> Any:
    return next((mark for mark in reversed(marks) if isinstance(mark, kind)), None)


def _last_table(marks: list[Any]) -> Any:
    return next((mark for mark in reversed(marks) if not isinstance(mark, type) and hasattr(mark, "__vmstate__")), None)


def _table_of(base: Any, marks: list[Any]) -> StructTable | None:
    """The table beside a type, or of a class that was declared itself (one inherited says nothing of the subclass)."""
    found = _last_table(marks)
    if found is not None or not isinstance(base, type):
        return cast("StructTable | None", found)
    return cast("StructTable | None", vars(base).get("__vmstate__"))


def _name(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )


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
