"""Tables as JSON, to keep beside a release: what a build can load is then known without the build.

Hooks, predicates and classes stay behind; everything that decides on names, types, lengths, bounds and defaults
goes along. Tables read back hold their states in dicts, and name the checks, `post_load` hooks and predicates that they
lack: see `not_carried`.
"""

from __future__ import annotations

import copy
import enum
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar, cast

import annotated_types

from tagged_vmstate.annotations import Length, Mask, MaxLength, Wire, parse
from tagged_vmstate.devices import Entry, check_instance
from tagged_vmstate.errors import StateError, TableError
from tagged_vmstate.fieldtype import FieldType, SparseMemory
from tagged_vmstate.jsonform import Document
from tagged_vmstate.records import LIMITS, is_known_type, wire_type
from tagged_vmstate.table import Field, Hook, Table, elements_of
from tagged_vmstate.types import BufferType
from tagged_vmstate.wire import APART, NESTING, Json
from tagged_vmstate.wiretype import brief, is_text

FORMAT: Final = "tagged-vmstate tables"
VERSION: Final = 1
PLAIN_BYTES: Final = 1 << 12
"""A buffer or bitmap of at most so many bytes is written out; of a larger one, zeros as ``{}``."""
T = TypeVar("T")


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
    if not field.is_required:
        found["default"] = _value_to_json(kind, field.known_default())
    if field.previous_defaults:
        found["previous_defaults"] = [_value_to_json(kind, each) for each in field.previous_defaults]
    return found


def _display_to_json(display: Any) -> Json:
    """``hex`` and ``flags`` as they are; an enum as its members, under the key that says what they name."""
    if display is None or isinstance(display, str):
        return display
    members: dict[str, Json] = {name: int(member.value) for name, member in display.__members__.items()}
    return {"flags" if issubclass(display, enum.Flag) else "enum": members}


def _display_from_json(value: Json) -> Any:
    if not isinstance(value, dict):
        return value  # for the field to check
    [(kind, members)] = value.items() if len(value) == 1 else [("", None)]
    if kind not in _DISPLAYS or not isinstance(members, dict):
        raise TableError('"display" as hex, flags, or an object with the members of one "enum" or of "flags"', brief(value))
    return _enum("display", members, _DISPLAYS[kind])


_DISPLAYS: Final[dict[str, type[enum.IntEnum | enum.IntFlag]]] = {"enum": enum.IntEnum, "flags": enum.IntFlag}


def _value_to_json(kind: FieldType, value: Any) -> Json:
    """A value as JSON: a struct as an object of its fields."""
    table = cast("Table | None", kind.table)
    if table is None:
        length = kind.length_of(value)
        if kind.wire.name in _BYTES and kind.capacity is None and _is_zero(value):
            return {}
        if kind.wire.name != "sparse":
            return kind.wire.to_json(value, length)
        runs = kind.wire.to_json(kind.runs(value), length)
        return runs if kind.capacity is None else {"length": length, "runs": runs}
    found: list[Json] = [
        None if each is None else {field.name: _value_to_json(field.type, table.get(each, field)) for field in table.fields}
        for each in elements_of(kind, value)
    ]
    return found if kind.is_array else found[0]


def read_tables(document: Document) -> list[Entry]:
    """The devices of tables that were exported; their states are dicts.

    Raises:
        FormatError: These are no tables, of another version, or wrong in themselves.
    """
    try:
        return tables_from_json(document.value)
    except TableError as error:
        fields = [part for name in error.path for part in ("struct", "fields", ("name", name))]
        device: list[str | tuple[str, object]] = ["devices", ("device", error.section)] if error.section else []
        raise document.misfit(error, [*device, *fields]) from None


def tables_from_json(value: Json) -> list[Entry]:
    """The same from JSON that was read.

    Raises:
        TableError: These are no tables, of another version, or wrong in themselves.
    """
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        got = brief(value.get("format") if isinstance(value, dict) else value)
        raise TableError(f'tables as an object with "format": "{FORMAT}"', got)
    version = _member(value, "version", int)
    if version != VERSION:
        raise TableError(f"tables of version {VERSION}", f"version {brief(version)}: a later build of this package reads it")
    found = []
    for each in _member(value, "devices", list):
        name = _member(each, "device", str)
        try:
            table = _table_from_json(each, NESTING)
            for instance in _elements(each, "instances", int):
                check_instance(instance)
                found.append(Entry(table, instance, None))
        except TableError as error:
            error.section = name
            raise
        except MemoryError:
            refused = TableError("defaults that fit into memory", "larger ones")
            refused.section = name
            raise refused from None
    return found


def _member(value: Json, key: str, kind: type[T], default: T | None = None) -> T:
    """A member of an object, of the kind that it must have; where there is none, the default, if that is one."""
    if not isinstance(value, dict):
        raise TableError("a JSON object", brief(value))
    found = value.get(key, default)
    if not _is_a(kind, found):
        raise TableError(f'"{key}" as a JSON {_KINDS[kind]}', brief(found))
    return cast("T", found)


def _optional(value: dict[str, Json], key: str, kind: type[T]) -> T | None:
    """The same for a member that need not be there."""
    return _member(value, key, kind) if key in value else None


def _elements(value: Json, key: str, kind: type[T]) -> list[T]:
    """A member that is an array of one kind; empty where there is none."""
    found = _member(value, key, list, [])
    if not all(_is_a(kind, each) for each in found):
        raise TableError(f'"{key}" as a JSON array of {_KINDS[kind]}s', brief(found))
    return found


def _is_a(kind: type, value: Json) -> bool:
    """Whether JSON means what Python would: true is no number, and half of a surrogate pair no text."""
    if kind is str:
        return isinstance(value, str) and is_text(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


_KINDS: Final[dict[type, str]] = {list: "array", dict: "object", str: "string", int: "integer", bool: "boolean"}


def _table_from_json(value: Json, nesting: int) -> Table:
    name = _member(value, "device", str)
    owner = _member(value, "class", str, name)
    hooks = _hooks_from_json(value, owner)
    if not nesting:
        raise TableError(f"at most {NESTING} structs within each other", "more")
    table = Table(
        name,
        [_field_from_json(each, owner, nesting) for each in _member(value, "fields", list)],
        aliases=_elements(value, "aliases", str),
        version=_member(value, "version", int, 1),
        minimum_version=_member(value, "minimum_version", int, 0),
        description=_member(value, "description", str, ""),
        check=hooks.get("check"),
        post_load=hooks.get("post_load"),
    )
    table.owner = owner  # its states are dicts, but messages name the class that is known
    return table


def _hooks_from_json(value: dict[str, Json], owner: str) -> dict[str, Hook]:
    if "hooks" not in value:
        return {"check": NotCarried("unknown", owner, "")}
    hooks = _elements(value, "hooks", str)
    if not all(each in HOOKS for each in hooks):
        raise TableError(f"hooks among {', '.join(HOOKS)}", brief(hooks))
    return {each: NotCarried(each, owner, each) for each in hooks}


def _field_from_json(value: Json, owner: str, nesting: int) -> Field:
    name = _member(value, "name", str)
    try:
        kind = _type_from_json(value, owner, nesting)
        factory = None
        if "default" in value:
            default = _value_from_json(kind, value["default"])
            factory = functools.partial(copy.deepcopy, default)
        narrower = [FieldType(wire=wire_type(each)) for each in _elements(value, "widens_from", str)]
        more: dict[str, Any] = {
            "aliases": _elements(value, "aliases", str),
            "description": _member(value, "description", str, ""),
            "display": _display_from_json(value.get("display")),
            "since": _member(value, "since", int, 0),
            "until": _optional(value, "until", int),
            "versions": _optional(value, "versions", int),
            "previous_defaults": [_value_from_json(kind, each) for each in _member(value, "previous_defaults", list, [])],
        }
    except (TableError, StateError) as error:
        raise TableError(error.expected, error.found, path=(name, *error.path)) from None
    return Field(name, kind, default_factory=factory, widens_from=narrower, **more)


def _type_from_json(value: Json, owner: str, nesting: int) -> FieldType:
    """The type of a field, as an annotation would say it."""
    name = _member(value, "type", str)
    if not is_known_type(name):
        raise TableError("a type that this build knows", brief(name))
    length, capacity = _optional(value, "length", int), _optional(value, "capacity", int)
    marks: list[Any] = [] if length is None else [Length(length)]
    marks += [] if capacity is None else [MaxLength(capacity)]
    members = _member(value, "enum", dict, {})
    base: Any = Annotated[_enum("enum", members, enum.IntEnum) if members else _HOLDERS.get(name, int), Wire(name)]
    if name == "struct":
        base = Annotated[dict, _table_from_json(value.get("struct"), nesting - 1)]
    if _member(value, "optional", bool, False):  # noqa: FBT003  # what JSON has
        base = base | None
    if wire_type(name).counted is None and marks:
        base = list[base]
    marks += [_bound(*each) for each in _member(value, "bounds", dict, {}).items()]
    lacking = (NotCarried("predicate", owner, each, value["name"]) for each in _elements(value, "predicates", str))
    marks += map(annotated_types.Predicate, lacking)
    return parse(Annotated[base, *marks] if marks else base)


def _enum(key: str, members: Any, kind: Any) -> Any:
    """An enumeration of a kind, by the names and numbers that stand under a key."""
    expected = f'"{key}" as an object of names and integers'
    if not all(_is_a(str, name) and _is_a(int, number) for name, number in members.items()):
        raise TableError(expected, brief(members))
    try:
        found = kind(key, members)
    except (TypeError, ValueError) as error:
        raise TableError(expected, str(error)) from None
    if list(found.__members__) != list(members):  # such as `__str__`, which would be a method
        raise TableError(expected, brief(members))
    return found


def _bound(kind: str, bound: Json) -> Any:
    """A bound as an annotation has it."""
    if kind not in _BOUNDS:
        raise TableError("bounds that this build knows", brief(kind))
    is_number = _is_a(int, bound) or (isinstance(bound, float) and kind != "mask" and math.isfinite(bound))
    if not is_number or (kind == "multiple_of" and not bound) or (isinstance(bound, int) and bound.bit_length() > BITS):
        raise TableError(f'"{kind}" as a number that can bound a value', brief(bound))
    return _BOUNDS[kind](bound)


_BOUNDS: Final[dict[str, Callable[[Any], Any]]] = {
    "ge": annotated_types.Ge,
    "gt": annotated_types.Gt,
    "le": annotated_types.Le,
    "lt": annotated_types.Lt,
    "multiple_of": annotated_types.MultipleOf,
    "mask": Mask,
}
BITS: Final = 1023
"""A number of more is beyond every float."""

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


def _value_from_json(kind: FieldType, value: Json) -> Any:
    table = cast("Table | None", kind.table)
    if kind.is_array and not isinstance(value, list):
        raise StateError(f"`{kind.describe()}` as a JSON array", brief(value))
    if table is not None:
        elements = [None if each is None else _state_from_json(table, each) for each in (value if kind.is_array else [value])]
        return elements if kind.is_array else elements[0]
    if kind.wire.name in _BYTES and kind.capacity is None and value == {}:
        return _zeros(kind)
    if kind.wire.name == "sparse":
        length = kind.length if kind.capacity is None else _member(value, "length", int)
        if not kind.takes_length(length):
            raise StateError(f"`{kind.describe()}`", f"{length} bytes")
        runs: Any = kind.wire.from_json(value if kind.capacity is None else cast("Json", _member(value, "runs", dict)), length)
        kind.wire.pack(runs, length)  # refuses runs beyond the end
        return kind.from_wire(runs, kind.wire, length)
    length = kind.length if kind.capacity is None else len(value) if kind.is_array else None
    found: Any = kind.wire.from_json(value, length)
    return list(found) if kind.is_array else found


def _state_from_json(table: Table, value: Json) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != {field.name for field in table.fields}:
        raise StateError(f"a value for each field of `{table.name}`", brief(value))
    return {field.name: _value_from_json(field.type, value[field.name]) for field in table.fields}
