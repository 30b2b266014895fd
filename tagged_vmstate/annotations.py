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

At run time all of them are plain Python values: nothing is wrapped. A numpy array may have several dimensions: those of its
default, `Annotated[NDArray[numpy.uint8], Length(12)] = field(default_factory=lambda: numpy.zeros((3, 4), numpy.uint8))`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import operator
import types
import typing
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    ForwardRef,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import annotated_types
import typing_extensions

from tagged_vmstate.blocks import BlockType, FloatType, IntType
from tagged_vmstate.errors import TableError
from tagged_vmstate.fieldtype import Constraint, FieldType, StructTable
from tagged_vmstate.records import wire_type
from tagged_vmstate.wiretype import brief


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
    """At most as many; the snapshot says how many there are: for a bitmap 8 a byte of its value, up to this."""

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


MOST: Final = (1 << 63) - 1
"""A longer value has no place in any memory."""
_MARKS: Final = (Wire, Length, MaxLength, Mask)
# What annotated-types bounds with: class -> (kind of constraint, attribute).
_BOUNDS: Final[dict[type, tuple[str, str]]] = {
    annotated_types.Ge: ("ge", "ge"),
    annotated_types.Gt: ("gt", "gt"),
    annotated_types.Le: ("le", "le"),
    annotated_types.Lt: ("lt", "lt"),
    annotated_types.MultipleOf: ("multiple_of", "multiple_of"),
    Mask: ("mask", "value"),
}


_ALIASES: Final = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType))
"""Python's own from 3.12 on, and its backport, which may be a class of its own there too."""


def parse(annotation: Any) -> FieldType:
    """What an annotation says.

    Raises:
        TableError: It is no field type; without the names of class and field, which its caller adds.
    """
    if isinstance(annotation, FieldType):
        return annotation
    base, marks = _unwrap(annotation)
    if get_origin(base) in {Union, types.UnionType}:
        return _parse_optional(base, marks)
    found = _parse_base(base, marks)
    found = _with_length(found, marks)
    return _bounded(found, _constraints(marks))


def is_marked(annotation: Any) -> bool:
    """Whether an annotation can only be meant as a field's: it carries a mark of this module, or is a struct."""
    base, marks = _unwrap(annotation)
    return any(isinstance(mark, _MARKS) for mark in marks) or (isinstance(base, type) and "__vmstate__" in vars(base))


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """What stands in `Annotated`, and its marks; a mark that is itself annotated (`uint8`) stands for its own."""
    annotation = _without_alias(annotation)
    if get_origin(annotation) is not Annotated:
        return annotation, []
    inner, *marks = get_args(annotation)
    base, found = _unwrap(inner)
    for mark in marks:
        if isinstance(mark, annotated_types.GroupedMetadata):
            found += mark
        else:
            found += _unwrap(mark)[1] or [mark]
    return base, found


def _without_alias(annotation: Any) -> Any:
    """What a type alias stands for: ``type Reg = uint8``, a `TypeAliasType`, with type parameters too."""
    while isinstance(alias := get_origin(annotation) or annotation, _ALIASES):
        name = f"`{alias.__name__}`"
        try:
            if _is_recursive(alias):
                raise TableError("a type alias that does not stand for itself", name)
            value = alias.__value__
        except NameError as error:
            raise TableError(f"the names in the type alias {name} to be defined", f"`{error.name}`, which is not") from None
        parameters, arguments = alias.__type_params__, get_args(annotation)
        if len(arguments) > len(parameters):
            raise TableError(f"no more types in brackets than {name} has parameters, {len(parameters)}", f"{len(arguments)}")
        given = {each: getattr(each, "__default__", typing_extensions.NoDefault) for each in parameters}
        given |= dict(zip(parameters, arguments, strict=False))
        try:
            annotation = _filled(value, {each: to for each, to in given.items() if to is not typing_extensions.NoDefault})
        except TypeError as error:
            raise TableError(f"types that fit {name}", str(error)) from None
    return annotation


def _filled(value: Any, given: dict[Any, Any]) -> Any:
    """The value of an alias, with arguments in place of its parameters."""
    if isinstance(value, TypeVar):
        return given.get(value, value)
    if get_origin(value) is Annotated:  # `typing` leaves the marks as they are
        return Annotated[tuple(_filled(each, given) for each in get_args(value))]
    parameters = getattr(value, "__parameters__", ())
    if given.keys().isdisjoint(parameters):
        return value
    return value[tuple(given.get(each, each) for each in parameters)]


def _is_recursive(alias: Any) -> bool:
    seen: list[Any] = []
    waiting = [alias.__value__]
    while waiting:
        each = waiting.pop()
        if each is alias:
            return True
        if isinstance(each, _ALIASES) and each not in seen:
            seen.append(each)
            waiting.append(each.__value__)
        waiting += filter(None, (get_origin(each), *get_args(each)))
    return False


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
    if origin is array or is_numpy(origin):
        return _parse_block(base, origin, wire)
    if not isinstance(origin, type) or origin is dataclasses.InitVar:
        cure = next((words for special, words in _SPECIAL.items() if special in (origin, type(base), base)), "")
        raise TableError(f"a type that a field can have{cure}", f"`{_name(base)}`")
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


_SPECIAL: Final[dict[Any, str]] = {
    Final: " (a load assigns every field, so none is Final; a constant is a ClassVar)",
    ClassVar: " (ClassVar stands outside of Annotated)",
    dataclasses.InitVar: " (what only the constructor needs is no state)",
    dataclasses.KW_ONLY: " (KW_ONLY is not needed: all fields are keyword-only)",
    TypeVar: " (it stands for one: name that in the brackets of the alias)",
    str: " (a name in quotes is not looked up here)",
    ForwardRef: " (a name in quotes is not looked up here)",
}
"""What dataclasses understand and a field cannot be, and why."""


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


def is_numpy(origin: Any) -> bool:
    """Whether a type is numpy's array, which is not imported for that."""
    return getattr(origin, "__name__", "") == "ndarray" and getattr(origin, "__module__", "") == "numpy"


def _with_length(found: FieldType, marks: list[Any]) -> FieldType:
    length, capacity = _last(marks, Length), _last(marks, MaxLength)
    counted = found.wire.counted is not None or found.holder in {list, tuple, array} or is_numpy(found.holder)
    for mark in (length, capacity):
        if mark and (isinstance(mark.value, bool) or not isinstance(mark.value, int) or not 0 <= mark.value <= MOST):
            raise TableError("a length of 0 to 2**63-1", brief(mark.value))
    if not counted:
        if length or capacity:
            raise TableError(f"no length for a single `{found.wire.name}`", brief(length or capacity))
        return found
    if length and capacity:
        raise TableError("Length or MaxLength", "both")
    if not length and not capacity:
        raise TableError("its Length, or for one that varies its MaxLength", "neither")
    return replace(found, length=length.value if length else None, capacity=capacity.value if capacity else None)


def _constraints(marks: Iterable[Any]) -> Iterator[Constraint]:
    for mark in marks:
        if isinstance(mark, type) and issubclass(mark, (*_MARKS, annotated_types.BaseMetadata)):
            raise TableError(f"{mark.__name__}(...) with what it bounds by", f"the class `{mark.__name__}`")
        if isinstance(mark, annotated_types.Predicate):
            yield Constraint("predicate", mark.func)
        elif type(mark) in _BOUNDS:
            kind, attribute = _BOUNDS[type(mark)]
            yield Constraint(kind, getattr(mark, attribute))
        elif isinstance(mark, annotated_types.BaseMetadata):
            raise TableError(
                "a constraint that is known here (Ge, Gt, Le, Lt, Interval, MultipleOf, Predicate, Mask)", brief(mark)
            )


def _bounded(found: FieldType, constraints: Iterable[Constraint]) -> FieldType:
    """A type with more constraints. Raises TableError for what can bound no value of it."""
    every = (*found.constraints, *(Constraint(each.kind, _bound(each, found)) for each in constraints))
    whole = isinstance(found.wire, IntType)
    low, high = (found.wire.low, found.wire.high) if isinstance(found.wire, IntType) else (-math.inf, math.inf)
    for each in every:
        if each.kind in {"ge", "gt"}:
            low = max(low, each.bound + (whole and each.kind == "gt"))
        elif each.kind in {"le", "lt"}:
            high = min(high, each.bound - (whole and each.kind == "lt"))
    if low > high:
        raise TableError(f"bounds that some `{found.wire.name}` meets", "none that does")
    return replace(found, constraints=every)


def _bound(constraint: Constraint, found: FieldType) -> Any:
    """What a type is bounded by: a function, or a number that can be compared with its values."""
    wire, bound = found.wire, constraint.bound
    if constraint.kind == "predicate":
        if not callable(bound):
            raise TableError("a function of a value in Predicate", brief(bound))
        return bound
    name = next(mark.__name__ for mark, (kind, _) in _BOUNDS.items() if kind == constraint.kind)
    if not isinstance(wire, IntType | FloatType) or (name == "Mask" and isinstance(wire, FloatType)):
        raise TableError(f"no {name} on `{found.describe()}`", brief(bound))
    number = _whole(bound) if isinstance(wire, IntType) else _number(bound)
    if number is None:
        kind = "a whole number" if isinstance(wire, IntType) else "a number"
        raise TableError(f"{kind} in {name} on `{wire.name}`", brief(bound))
    if name == "MultipleOf" and number <= 0:
        raise TableError("a number above 0 in MultipleOf", brief(bound))
    if name == "Mask" and not 0 <= number < 1 << 8 * wire.width:
        raise TableError(f"bits of `{wire.name}` in Mask", brief(bound))
    return number


def _whole(value: Any) -> int | None:
    return operator.index(value) if isinstance(value, SupportsIndex) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) else None


def _last(marks: list[Any], kind: type[Any]) -> Any:
    return next((mark for mark in reversed(marks) if isinstance(mark, kind)), None)


def _last_table(marks: list[Any]) -> Any:
    return next((mark for mark in reversed(marks) if not isinstance(mark, type) and hasattr(mark, "__vmstate__")), None)


def _table_of(base: Any, marks: list[Any]) -> StructTable | None:
    """The table beside a type, or of a class that was declared itself."""
    found = _last_table(marks)
    if found is not None or not isinstance(base, type):
        return cast("StructTable | None", found)
    return declared_table(base)


def declared_table(kind: type) -> StructTable | None:
    """The table of a class that was declared itself (one inherited says nothing of the subclass).

    Raises:
        TableError: A @dataclass above @vmstate has changed the class.
    """
    if "__vmstate__" in vars(kind) and getattr(vars(kind).get("__dataclass_params__"), "eq", False):
        raise made_again(kind)
    return cast("StructTable | None", vars(kind).get("__vmstate__"))


def made_again(kind: type) -> TableError:
    """The error for a class that a decorator above @vmstate has changed or copied."""
    found = "another decorator above it (dataclass, attrs, pydantic): leave that out"
    return TableError(f"@vmstate as what makes `{kind.__name__}`", found)


def _name(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )
