"""Tables as JSON, to keep beside a release: what a build can load is then known without the build.

Hooks, predicates and classes stay behind; everything that decides on names, types, lengths, bounds and defaults
goes along. Tables read back hold their states in dicts.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable
from typing import Any, Final, cast

from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import StateError, TableError, VMStateError
from tagged_vmstate.fieldtype import BOUNDS, Constraint, FieldType, SparseMemory
from tagged_vmstate.records import LIMITS, is_known_type, wire_type
from tagged_vmstate.table import Field, Table, elements_of
from tagged_vmstate.types import BufferType
from tagged_vmstate.wire import APART, Json
from tagged_vmstate.wiretype import brief

FORMAT: Final = "tagged-vmstate tables"
VERSION: Final = 1
PLAIN_BYTES: Final = 1 << 12
"""A buffer or bitmap of at most so many bytes is written out; of a larger one, zeros as ``{}``."""


def tables_to_json(entries: Iterable[Entry]) -> Json:
    """The tables of devices, each once with its instances."""
    instances: dict[int, tuple[Table, list[int]]] = {}
    for entry in entries:
        instances.setdefault(id(entry.table), (entry.table, []))[1].append(entry.instance)
    devices: list[Json] = [{**_table_to_json(table), "instances": cast("Json", numbers)} for table, numbers in instances.values()]
    return {"format": FORMAT, "version": VERSION, "devices": devices}


def _table_to_json(table: Table) -> dict[str, Json]:
    found: dict[str, Json] = {"device": table.name, "version": table.version, "minimum_version": table.minimum_version}
    found |= {"aliases": list(table.aliases)} if table.aliases else {}
    found |= {"description": table.description} if table.description else {}
    return {**found, "fields": [_field_to_json(field) for field in table.fields]}


def _field_to_json(field: Field) -> dict[str, Json]:
    kind = field.type
    found: dict[str, Json] = {"name": field.name, "type": kind.wire.name}
    said: dict[str, Json] = {
        "length": kind.length,
        "capacity": kind.capacity,
        "optional": kind.is_optional or None,
        "struct": _table_to_json(field.table) if field.table else None,
        "bounds": {each.kind: each.bound for each in kind.constraints if each.kind != "predicate"} or None,
        "enum": {member.name: int(member) for member in kind.enum} if kind.enum else None,
        "aliases": list(field.aliases) or None,
        "widens_from": cast("Json", sorted(field.widens_from)) or None,
        "description": field.description or None,
        "display": field.display if isinstance(field.display, str) else None,
        "since": field.since or None,
        "until": field.until,
        "versions": field.versions,
    }
    found |= {key: value for key, value in said.items() if value is not None}
    return found if field.is_required else {**found, "default": _value_to_json(kind, field.known_default())}


def _value_to_json(kind: FieldType, value: Any) -> Json:
    """A value as JSON: a struct as an object of its fields."""
    table = cast("Table | None", kind.table)
    if table is None:
        plain = kind.runs(value) if kind.wire.name == "sparse" else value
        if kind.wire.name in _BYTES and kind.capacity is None and _is_zero(cast("bytes", plain)):
            return {}
        return kind.wire.to_json(plain, kind.length_of(value))
    found: list[Json] = [
        None if each is None else {field.name: _value_to_json(field.type, table.get(each, field)) for field in table.fields}
        for each in elements_of(kind, value)
    ]
    return found if kind.is_array else found[0]


def tables_from_json(value: Json) -> list[Entry]:
    """The devices of tables that were exported; their states are dicts.

    Raises:
        TableError: These are no tables, of another version, or wrong in themselves.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        got = brief(value.get("format") if isinstance(value, dict) else value)
        raise TableError(f'tables as an object with "format": "{FORMAT}"', got)
    if value.get("version") != VERSION:
        later = "a later build of this package reads it"
        raise TableError(f"tables of version {VERSION}", f"version {brief(value.get('version'))}: {later}")
    found = []
    for each in _typed(value, "devices", list):
        table = _table_from_json(each)
        found += [Entry(table, instance, None) for instance in _typed(each, "instances", list)]
    return found


def _typed(value: Json, key: str, kind: type, default: Any = None) -> Any:
    """A member of an object, of the kind that it must have."""
    found = value.get(key, default) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise TableError(f'"{key}" as a JSON {_KINDS[kind]}', brief(found))
    return found


_KINDS: Final = {list: "array", dict: "object", str: "string", int: "integer"}


def _table_from_json(value: Json) -> Table:
    name = _typed(value, "device", str)
    try:
        fields = [_field_from_json(each) for each in _typed(value, "fields", list)]
    except TableError as error:
        error.section = error.section or name
        raise
    return Table(
        name,
        fields,
        aliases=_typed(value, "aliases", list, []),
        version=_typed(value, "version", int, 1),
        minimum_version=_typed(value, "minimum_version", int, 0),
        description=_typed(value, "description", str, ""),
    )


_PLAIN: Final = ("aliases", "description", "display", "since", "until", "versions")
"""What stands in JSON as a `Field` takes it."""


def _field_from_json(value: Json) -> Field:
    name = _typed(value, "name", str)
    said = cast("dict[str, Any]", value)
    try:
        kind = _type_from_json(said)
        more: dict[str, Any] = {
            key: said[key] for key in ("description", "display", "since", "until", "versions", "aliases") if key in said
        }
        if "default" in said:
            default = _value_from_json(kind, said["default"])
            is_shared = isinstance(default, SparseMemory)
            more |= {"default": default} if is_shared else {"default_factory": lambda: copy.deepcopy(default)}
        narrower = [FieldType(wire=wire_type(each)) for each in said.get("widens_from", ())]
        return Field(name, kind, widens_from=narrower, **more)
    except TableError as error:
        if not error.path:
            error.under(name)
        raise
    except (VMStateError, TypeError, ValueError, AttributeError) as error:
        raise TableError("a field as tables are exported", str(error), path=(name,)) from None


def _type_from_json(said: dict[str, Any]) -> FieldType:
    name = said.get("type")
    if not isinstance(name, str) or not is_known_type(name):
        raise TableError("a type that this build knows", brief(name))
    wire = wire_type(name)
    length, capacity = said.get("length"), said.get("capacity")
    is_array = wire.counted is None and (length is not None or capacity is not None)
    bounds: dict[str, Any] = said.get("bounds", {})
    if not bounds.keys() <= BOUNDS.keys() - {"predicate"}:
        raise TableError("bounds that this build knows", brief(bounds))
    members = said.get("enum")
    return FieldType(
        wire=wire,
        length=length,
        capacity=capacity,
        holder=list if is_array else dict if name == "struct" else _HOLDERS.get(name, int),
        enum=cast("type[enum.IntEnum]", enum.IntEnum("enum", members)) if members else None,
        table=_table_from_json(said.get("struct")) if name == "struct" else None,
        is_optional=bool(said.get("optional")),
        constraints=tuple(Constraint(kind, bound) for kind, bound in bounds.items()),
    )


_HOLDERS: Final[dict[str, type]] = {
    "bool": bool,
    "float32": float,
    "float64": float,
    "string": str,
    "buffer": bytes,
    "bitmap": bytes,
    "sparse": SparseMemory,
}
_BYTES: Final = ("buffer", "bitmap")


def _is_zero(value: bytes) -> bool:
    """Whether some bytes are zeros, and too many to be written out."""
    if len(value) <= PLAIN_BYTES:
        return False
    zero = bytes(APART)
    view = memoryview(value).cast("B")
    blocks = (bytes(view[start : start + APART]) for start in range(0, len(view), APART))
    return all(block == zero[: len(block)] for block in blocks)


def _zeros(kind: FieldType) -> bytes:
    """As many zeros as a field has bytes; none of them is in memory before somebody looks at it."""
    size = cast("BufferType", kind.wire).size(kind.length)
    if not 0 <= size <= LIMITS.frame:
        raise StateError(f"a length of at most {LIMITS.frame} bytes", str(kind.length))
    return bytes(size)


def _value_from_json(kind: FieldType, value: Any) -> Any:
    table = cast("Table | None", kind.table)
    if table is not None:
        elements = [None if each is None else _state_from_json(table, each) for each in (value if kind.is_array else [value])]
        return elements if kind.is_array else elements[0]
    if kind.wire.name in _BYTES and kind.capacity is None and value == {}:
        return _zeros(kind)
    if kind.wire.name == "buffer" and kind.capacity is not None:
        return kind.wire.from_json(value, None)
    found: Any = kind.wire.from_json(value, kind.length if kind.capacity is None else len(value))
    if kind.wire.name == "sparse":
        return kind.from_wire(found, kind.wire)
    return list(found) if kind.is_array else found


def _state_from_json(table: Table, value: Json) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != {field.name for field in table.fields}:
        raise StateError(f"a value for each field of `{table.name}`", brief(value))
    return {field.name: _value_from_json(field.type, value[field.name]) for field in table.fields}
