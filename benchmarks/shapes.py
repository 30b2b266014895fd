"""What devices hold, described once: every contestant's classes, schemas and code are made from a `Shape`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Values: TypeAlias = "dict[str, Any]"
"""A state as plain values: a struct as a dict, a number as an `int`, a buffer as `bytes`."""
WIDTHS: Final[Mapping[str, tuple[int, int]]] = {
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
    **{f"int{bits}": (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (16, 32, 64)},
}
"""The kinds of integers: least and greatest."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: Its name.
        kind: A key of `WIDTHS`, ``bool``, ``buffer`` or ``struct``.
        number: What tells it from its siblings where a peer has no names in its bytes.
        default: Its default; None where it is required, or a struct.
        length: Bytes of a buffer, elements of an array; None for a single value.
        holder: What holds an array, always of uint32: ``list``, ``array`` or ``numpy``; a buffer: ``bytearray``, or `bytes`.
        struct: The shape of a struct.
    """

    name: str
    kind: str
    number: int
    default: int | bool | bytes | None = None
    length: int | None = None
    holder: str = ""
    struct: Shape | None = None

    @property
    def range(self) -> tuple[int, int] | None:
        """Least and greatest of an integer."""
        return WIDTHS.get(self.kind)


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a device or struct; or, of a machine, its devices.

    Attributes:
        name: Its name.
        fields: Its fields.
        is_machine: Whether its fields are devices.
    """

    name: str
    fields: tuple[Field, ...]
    is_machine: bool = False

    def shapes(self) -> dict[str, Shape]:
        """Itself and all shapes in it, by name, what is held before what holds it."""
        found: dict[str, Shape] = {}
        for field in self.fields:
            if field.struct:
                found |= field.struct.shapes()
        return found | {self.name: self}

    def leaves(self) -> Iterator[Field]:
        """The fields of a state at any depth, structs themselves included."""
        for field in self.fields:
            yield field
            if field.struct:
                yield from field.struct.leaves()

    def count(self) -> int:
        """How many fields a state has; a machine's devices are none."""
        return sum(1 for _ in self.leaves()) - (len(self.fields) if self.is_machine else 0)


def make(classes: Mapping[str, Callable[..., Any]], shape: Shape, values: Values) -> Any:
    """An object of plain values. `classes` makes each shape's, by its name, from keywords."""
    found = {
        field.name: make(classes, field.struct, values[field.name]) if field.struct else values[field.name]
        for field in shape.fields
    }
    return classes[shape.name](**found)


def plain(shape: Shape, state: Any) -> Values:
    """The plain values of an object, or of a dict; an array as a list."""
    take = state.__getitem__ if isinstance(state, Mapping) else lambda name: getattr(state, name)
    return {field.name: _plain(field, take(field.name)) for field in shape.fields}


def _plain(field: Field, value: Any) -> Any:
    if field.struct:
        return plain(field.struct, value)
    if not field.holder:
        return value
    return value.tolist() if hasattr(value, "tolist") else list(value)
