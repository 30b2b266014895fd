"""Tables as JSON, to keep beside a release: what a build can load is then known without the build.

Hooks, predicates and classes stay behind; everything that decides on names, types, lengths, bounds and defaults
goes along. Tables read back hold their states in dicts, and name the checks, `post_load` hooks and predicates that they
lack: see `not_carried`.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from tagged_vmstate.annotations import bounded
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import StateError, TableError, VMStateError
from tagged_vmstate.fieldtype import BOUNDS, Constraint, FieldType, nonzero_runs
from tagged_vmstate.records import is_known_type, wire_type
from tagged_vmstate.table import Field, Hook, Table, elements_of
from tagged_vmstate.wire import Json
from tagged_vmstate.wiretype import brief

FORMAT: Final = "tagged-vmstate tables"
VERSION: Final = 1


HOOKS: Final = ("check", "post_load")
"""The hooks that can refuse a load."""


@dataclass(frozen=True, slots=True)
class NotCarried:
    """A function that tables had before they were exported; in its place, everything passes.

    Attributes:
        kind: ``check``, ``post_load`` or ``predicate``; ``unknown`` in tables whose release did not say whether there were any.
        owner: The class of the states, or the name of the table.
        name: The name of the function.
        field: The field that a predicate bounds.
    """

    kind: str
    owner: str
    name: str
    field: str | None = None

    @property
    def __name__(self) -> str:
        """The name of the function, as functions have it."""
        return self.name

    def __call__(self, _value: Any) -> bool:
        """Let everything pass."""
        return True


def not_carried(entries: Iterable[Entry]) -> list[NotCarried]:
    """The functions that exported tables of devices lack, each once."""
    found: dict[NotCarried, None] = {}
    for entry in entries:
        found |= dict.fromkeys(_lacking(entry.table))
    return list(found)


def _lacking(table: Table) -> Iterator[NotCarried]:
    functions = [table.check, table.post_load]
    functions += [each.bound for field in table.fields for each in field.type.constraints]
    yield from (each for each in functions if isinstance(each, NotCarried))
    for field in table.fields:
        if field.table:
            yield from _lacking(field.table)


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
    if not (isinstance(table.check, NotCarried) and table.check.kind == "unknown"):
        found |= {"class": table.owner, "hooks": [name for name in HOOKS if getattr(table, name)]}
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
        "predicates": [each.name for each in kind.constraints if each.kind == "predicate"] or None,
        "enum": {member.name: int(member) for member in kind.enum} if kind.enum else None,
        "aliases": list(field.aliases) or None,
        "widens_from": cast("Json", sorted(field.widens_from)) or None,
        "description": field.description or None,
        "display": _display_to_json(field.display),
        "since": field.since or None,
        "until": field.until,
        "versions": field.versions,
    }
    found |= {key: value for key, value in said.items() if value is not None}
    return found if field.is_required else {**found, "default": _value_to_json(kind, field.make_default())}


def _display_to_json(display: Any) -> Json:
    """``hex`` and ``flags`` as they are; an enum as its members, under the key that says what they name."""
    if display is None or isinstance(display, str):
        return display
    members: dict[str, Json] = {name: int(member.value) for name, member in display.__members__.items()}
    return {"flags" if issubclass(display, enum.Flag) else "enum": members}


def _display_from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, members)] = value.items()
    made: Any = {"enum": enum.IntEnum, "flags": enum.IntFlag}[kind]
    return made("display", members)


def _value_to_json(kind: FieldType, value: Any) -> Json:
    """A value as JSON: a struct as an object of its fields."""
    table = cast("Table | None", kind.table)
    if table is None:
        plain = nonzero_runs(kind.memory(value)) if kind.wire.name == "sparse" else value
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
    owner = _typed(value, "class", str, name)
    try:
        fields = [_field_from_json(each, owner) for each in _typed(value, "fields", list)]
        hooks = _hooks_from_json(value, owner)
    except TableError as error:
        error.section = error.section or name
        raise
    table = Table(
        name,
        fields,
        aliases=_typed(value, "aliases", list, []),
        version=_typed(value, "version", int, 1),
        minimum_version=_typed(value, "minimum_version", int, 0),
        description=_typed(value, "description", str, ""),
        check=hooks.get("check"),
        post_load=hooks.get("post_load"),
    )
    table.owner = owner  # its states are dicts, but messages name the class that is known
    return table


def _hooks_from_json(value: Json, owner: str) -> dict[str, Hook]:
    if isinstance(value, dict) and "hooks" not in value:
        return {"check": NotCarried("unknown", owner, "")}
    hooks = _typed(value, "hooks", list)
    if not all(each in HOOKS for each in hooks):
        raise TableError(f"hooks among {', '.join(HOOKS)}", brief(hooks))
    return {each: NotCarried(each, owner, each) for each in hooks}


def _field_from_json(value: Json, owner: str) -> Field:
    name = _typed(value, "name", str)
    said = cast("dict[str, Any]", value)
    try:
        kind = _type_from_json(said, owner)
        more: dict[str, Any] = {key: said[key] for key in ("description", "since", "until", "versions", "aliases") if key in said}
        more["display"] = _display_from_json(said.get("display"))
        if "default" in said:
            default = _value_from_json(kind, said["default"])
            more["default_factory"] = lambda: copy.deepcopy(default)
        narrower = [FieldType(wire=wire_type(each)) for each in said.get("widens_from", ())]
        return Field(name, kind, widens_from=narrower, **more)
    except TableError as error:
        if not error.path:
            error.under(name)
        raise
    except (VMStateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise TableError("a field as tables are exported", str(error), path=(name,)) from None


def _type_from_json(said: dict[str, Any], owner: str) -> FieldType:
    name = said.get("type")
    if not isinstance(name, str) or not is_known_type(name):
        raise TableError("a type that this build knows", brief(name))
    wire = wire_type(name)
    length, capacity = said.get("length"), said.get("capacity")
    is_array = wire.counted is None and (length is not None or capacity is not None)
    bounds: dict[str, Any] = said.get("bounds", {})
    if not bounds.keys() <= BOUNDS.keys() - {"predicate"}:
        raise TableError("bounds that this build knows", brief(bounds))
    predicates = _typed(said, "predicates", list, [])
    if not all(isinstance(each, str) for each in predicates):
        raise TableError("predicates as names", brief(predicates))
    lacking = [NotCarried("predicate", owner, each, said["name"]) for each in predicates]
    members = said.get("enum")
    kind = FieldType(
        wire=wire,
        length=length,
        capacity=capacity,
        holder=list if is_array else dict if name == "struct" else _HOLDERS.get(name, int),
        enum=cast("type[enum.IntEnum]", enum.IntEnum("enum", members)) if members else None,
        table=_table_from_json(said.get("struct")) if name == "struct" else None,
        is_optional=bool(said.get("optional")),
    )
    every = [*bounds.items(), *(("predicate", each) for each in lacking)]
    return bounded(kind, (Constraint(each, bound) for each, bound in every))


_HOLDERS: Final[dict[str, type]] = {
    "bool": bool,
    "float32": float,
    "float64": float,
    "string": str,
    "buffer": bytes,
    "bitmap": bytes,
    "sparse": bytearray,
}


def _value_from_json(kind: FieldType, value: Any) -> Any:
    table = cast("Table | None", kind.table)
    if table is not None:
        elements = [None if each is None else _state_from_json(table, each) for each in (value if kind.is_array else [value])]
        return elements if kind.is_array else elements[0]
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
