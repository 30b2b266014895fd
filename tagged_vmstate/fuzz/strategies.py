"""Hypothesis strategies: tables, states of a table, and snapshots of a machine (the package hypothesis, extra ``fuzz``)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, cast

from hypothesis import strategies as st

from tagged_vmstate.annotations import (
    Length,
    MaxLength,
    bitmap,
    float64,
    int8,
    int16,
    int32,
    int64,
    sparse,
    uint8,
    uint16,
    uint32,
    uint64,
)
from tagged_vmstate.blocks import FloatType, IntType
from tagged_vmstate.devices import Device, entry_of
from tagged_vmstate.errors import StateError
from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.machine import Machine
from tagged_vmstate.table import Field, Table, check_value

MOST_ELEMENTS: Final = 8
"""Of an array that varies: more say no more."""
_NAMES: Final = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: len(name.encode()) <= 255)
_INTEGERS: Final = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)


@st.composite
def tables(draw: st.DrawFn, depth: int = 2) -> Table:
    """Tables of fields of any kind, each with a default; structs lie so deep within each other."""
    names = draw(st.lists(_NAMES, unique=True, max_size=6))
    return Table(draw(_NAMES), [draw(_fields(name, depth)) for name in names])


@st.composite
def _fields(draw: st.DrawFn, name: str, depth: int) -> Field:
    integer = draw(st.sampled_from(_INTEGERS))
    numbers: Any = list[integer]  # type: ignore[valid-type]  # a value
    kinds: list[Any] = [
        *(integer, bool, float64, str, Annotated[numbers, Length(3)], Annotated[numbers, MaxLength(3)]),
        *(Annotated[bytes, Length(5)], Annotated[bytes, MaxLength(5)], Annotated[sparse, Length(5000)]),
        *(Annotated[bitmap, Length(13)], Annotated[bitmap, MaxLength(13)], Annotated[sparse, MaxLength(5000)]),
    ]
    if depth:
        inner = draw(tables(depth - 1))
        kinds += [Annotated[dict, inner], Annotated[list[dict], inner, Length(2)], Annotated[dict | None, inner]]  # type: ignore[type-arg]
    annotation = draw(st.sampled_from(kinds))
    bare = Field(name, annotation)
    default = draw(_values(bare.type))
    return Field(name, annotation, default_factory=lambda: _copied(default))


def states(table: Table) -> st.SearchStrategy[Any]:
    """States that fit a table: every field within its type and bounds, at its default more often than by chance."""

    def field(each: Field) -> st.SearchStrategy[Any]:
        fitting = _values(each.type).filter(lambda value: _fits(each, value))
        return fitting if each.is_required else st.one_of(st.builds(each.make_default), fitting)

    return st.fixed_dictionaries({each.attribute: field(each) for each in table.fields}).map(table.make)


def snapshots(devices: Iterable[Any]) -> st.SearchStrategy[bytes]:
    """Snapshots of a machine, as bytes, with any state in each of its devices.

    Args:
        devices: As `Machine` takes them; their own states are left alone.
    """
    entries = tuple(map(entry_of, devices))

    def saved(drawn: Sequence[Any]) -> bytes:
        file = io.BytesIO()
        pairs = zip(entries, drawn, strict=True)
        Machine(Device(state, entry.instance, entry.table) for entry, state in pairs).save(file)
        return file.getvalue()

    return st.tuples(*(states(entry.table) for entry in entries)).map(saved)


def _fits(field: Field, value: Any) -> bool:
    try:
        check_value(field.type, value)
    except StateError:
        return False
    return True


def _values(kind: FieldType) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    if kind.table is not None:
        one = states(cast("Table", kind.table))
        one = st.one_of(st.none(), one) if kind.is_optional else one
        return _lists(one, kind) if kind.is_array else one
    if kind.wire.name == "sparse":
        low, high = _sizes(kind)
        return st.binary(max_size=min(high, 16)).map(lambda data: bytearray(data.ljust(low, b"\0")))
    if kind.wire.name == "buffer":
        low, high = _sizes(kind)
        return st.binary(min_size=low, max_size=high).map(kind.holder or bytes)
    if kind.wire.name == "bitmap":
        least, most = kind.length or 0, kind.length or kind.capacity or 0
        return st.integers(0, (1 << most) - 1).map(lambda bits: bits.to_bytes(-(-max(bits.bit_length(), least) // 8), "little"))
    if not kind.is_array:
        return _one(kind)
    listed = _lists(_one(kind), kind)
    return listed if kind.holder in {None, list} else listed.map(kind.holder)


def _one(kind: FieldType) -> st.SearchStrategy[Any]:
    if kind.enum:
        return st.sampled_from(list(kind.enum))
    if isinstance(kind.wire, IntType):
        bounds = {each.kind: each.bound for each in kind.constraints}
        low = max(kind.wire.low, bounds.get("ge", kind.wire.low), bounds.get("gt", kind.wire.low - 1) + 1)
        high = min(kind.wire.high, bounds.get("le", kind.wire.high), bounds.get("lt", kind.wire.high + 1) - 1)
        return st.one_of(st.sampled_from([low, high]), st.integers(low, high))
    if isinstance(kind.wire, FloatType):
        return st.floats(width=32 if kind.wire.width == 4 else 64)
    return st.booleans() if kind.wire.name == "bool" else st.text(st.characters(codec="utf-8"), max_size=MOST_ELEMENTS)


def _lists(one: st.SearchStrategy[Any], kind: FieldType) -> st.SearchStrategy[list[Any]]:
    low, high = _sizes(kind)
    return st.lists(one, min_size=low, max_size=high)


def _sizes(kind: FieldType) -> tuple[int, int]:
    """How many at least and at most."""
    if kind.length is not None:
        return kind.length, kind.length
    return 0, min(kind.capacity or 0, MOST_ELEMENTS)


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return bytearray(value) if isinstance(value, bytearray) else value
