"""States to fields and back, by a table: the rules of a loader, all of them, and nowhere else.

Loading never touches a state: it makes new ones, and tells everything that is wrong. `assign` then puts the new
values into the states that are there, and can take them back.

What the loader does with one struct (format, section "what a loader does"):

    in the snapshot                        in the table            then
    -------------------------------------  ----------------------  ------------------------------------------------
    the name or an alias, type and         yes                     the value, if it meets the constraints; that
    length fit                                                     it was its writer's default changes nothing
    another type                           yes                     the value, if that widening is declared
    another length                         yes                     a problem
    nothing                                with a default          the default
    nothing                                required                a problem
    a field at its default                 no                      ignored
    a field in use                         no                      a problem, unless unknown fields are ignored or kept
    one field twice, or also by an alias   yes                     a problem
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

from tagged_vmstate.errors import Finding, LimitError, PathPart, StateError
from tagged_vmstate.fieldtype import FieldType, SparseMemory, nonzero_runs
from tagged_vmstate.records import LIMITS, Limits, Record, Records, encode, encode_name, wire_type
from tagged_vmstate.rules import (
    ABSENT_STRUCT,
    BY_ALIAS,
    CHECK,
    DROPPED,
    FILLED,
    IGNORED_FIELD,
    KEPT,
    MISSING_FIELD,
    OUT_OF_RANGE,
    TWICE,
    UNKNOWN_FIELD,
    WIDENED,
    WRONG_LENGTH,
    WRONG_TYPE,
    Findings,
    Rule,
)
from tagged_vmstate.table import Field, Hook, Table, elements_of
from tagged_vmstate.wire import NIL, Cursor, Piece, equal, gathered, pack_array_head, pack_uint

Unknown: TypeAlias = Literal["error", "ignore", "keep"]
"""What to do with fields in use that no table knows: refuse them, drop them, or carry them to the next save."""
Image: TypeAlias = "tuple[bytes, Sequence[Piece]] | tuple[Images | None, ...]"
"""A value as it is compared: length and value as bytes; of structs, each one's images, None where it is absent."""
Images: TypeAlias = "tuple[Image | None, ...]"
"""The images of a struct's fields; None for one that no value equals."""
_TABLES: Final = 1 << 12
"""Tables whose constant bytes are remembered."""
FILLED_PER_BYTE: Final = 24
"""What `Limits.filled` allows for each byte of the section."""
SLOT: Final = 40
"""Bytes of memory that a field takes in a state, its value not counted: in a dict, more than in slots."""
SHARED: Final = range(-5, 257)
"""Numbers that Python has only once."""
ELEMENT: Final = 100
"""Bytes of memory that a state takes, its fields not counted."""


def prepare(table: Table, state: Any) -> None:
    """Call the hooks before a save: `pre_save` of a state and all structs in it, then every `check`.

    Raises:
        StateError: A hook raised, or a check refuses the state.
    """
    if table.is_hooked:
        for inner, each, path in structs(table, state):
            call(inner.pre_save, each, f"`pre_save` of `{inner.owner}` to return", path)
        for inner, each, path in structs(table, state):
            call(inner.check, each, f"what `check` of `{inner.owner}` takes", path)


def save(table: Table, state: Any, without: Container[str] = ()) -> Sequence[Piece]:
    """The fields of a state as bytes in pieces, those of the table in its order, then what an earlier load kept.

    Args:
        table: The table.
        state: The state, once `prepare` has seen it.
        without: Names of fields that are written elsewhere.

    Raises:
        StateError: A value does not fit its field.
    """
    return gathered(piece for pieces, _ in _save_struct(table, state, _defaults(table), without) for piece in pieces)


def memory_records(table: Table, field: Field, state: Any, most: int) -> Iterator[Record]:
    """A `sparse` field in records of at most `most` bytes of memory each; one at least. Raises StateError."""
    value = table.get(state, field)
    try:
        view = field.type.memory(value)
    except StateError as error:
        error.under(field.name)
        raise
    is_default = not field.is_required and view == field.type.memory(field.make_default())
    is_empty = True
    for start in range(0, len(view), most):
        runs = tuple((start + offset, data) for offset, data in nonzero_runs(view[start : start + most]))
        if runs or (is_empty and start + most >= len(view)):
            is_empty = False
            yield Record(field.name, "sparse", field.type.length, runs, is_default)


def structs(table: Table, state: Any, path: tuple[PathPart, ...] = ()) -> Iterator[tuple[Table, Any, tuple[PathPart, ...]]]:
    """A state and all structs in it with their paths, from the outside in. Raises StateError where one is none of its table."""
    yield table, state, path
    for field in table.fields:
        if field.table is None:
            continue
        here = (*path, field.name)
        try:
            elements = elements_of(field.type, table.get(state, field))
        except StateError as error:
            error.under(*here)
            raise
        for index, element in enumerate(elements):
            if element is not None:
                yield from structs(field.table, element, (*here, index) if field.type.is_array else here)


def call(hook: Hook | None, state: Any, expected: str, path: tuple[PathPart, ...] = ()) -> None:
    """Call a hook, if there is one. Raises StateError from what it raises."""
    if hook:
        try:
            hook(state)
        except Exception as error:
            raise StateError(expected, raised(error), path=path) from error


def raised(error: Exception) -> str:
    """What was raised, in words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _save_struct(table: Table, state: Any, defaults: Images, without: Container[str] = ()) -> list[tuple[Sequence[Piece], bool]]:
    """The bytes of each field, and whether it is at its default."""
    found: list[tuple[Sequence[Piece], bool]] = []
    for field, head, default in zip(table.fields, _heads(table), defaults, strict=True):
        if field.name in without:
            continue
        try:
            length, body, is_default = save_value(field.type, table.get(state, field), default)
        except StateError as error:
            error.under(field.name)
            raise
        found.append(((head, length, b"\x01" if is_default else b"\x00", *body), is_default))
    return [*found, *(((raw,), is_default) for raw, is_default in table.kept(state))]


def save_value(kind: FieldType, value: Any, default: Image | None) -> tuple[bytes, Sequence[Piece], bool]:
    """Length and value as bytes, the value in pieces, and whether they are the default's. Raises StateError."""
    table = cast("Table | None", kind.table)
    if table is None:
        length, body = kind.pieces(value)
        expected_length, expected_body = cast("tuple[bytes, Sequence[Piece]]", default or (b"", ()))
        return length, body, length == expected_length and equal(body, expected_body)
    elements = elements_of(kind, value)
    known = default if default is not None and len(default) == len(elements) else None
    is_default = known is not None or not kind.is_array
    found: list[Piece] = []
    for index, element in enumerate(elements):
        expected = cast("Images | None", known[index]) if known is not None else None
        if element is None:
            found.append(NIL)
            is_default = is_default and known is not None and expected is None
            continue
        try:
            fields = _save_struct(table, element, _defaults(table) if expected is None else expected)
        except StateError as error:
            if kind.is_array:
                error.under(index)
            raise
        found += (pack_array_head(len(fields)), *(piece for pieces, _ in fields for piece in pieces))
        is_default = is_default and all(each for _, each in fields)
    if not kind.is_array:
        return NIL, gathered(found), is_default
    return pack_uint(len(elements)), gathered((pack_array_head(len(elements)), *found)), is_default


@lru_cache(_TABLES)
def _heads(table: Table) -> tuple[bytes, ...]:
    """What each field's record begins with: array head, name, type."""
    return tuple(b"\x95" + encode_name(field.name) + encode_name(field.type.wire.name) for field in table.fields)


@lru_cache(_TABLES)
def _defaults(table: Table) -> Images:
    """The images of the defaults of a table."""
    return tuple(None if field.is_required else image(field.type, field.known_default()) for field in table.fields)


def image(kind: FieldType, value: Any) -> Image:
    """A value as it is compared with others."""
    table = cast("Table | None", kind.table)
    if table is None:
        return kind.pieces(value)
    return tuple(None if element is None else _images(table, element) for element in elements_of(kind, value))


def _images(table: Table, state: Any) -> Images:
    return tuple(image(field.type, table.get(state, field)) for field in table.fields)


class Filling:
    """How much memory the elements of lists may take for what their section does not have.

    Args:
        limits: See `Limits.filled`.
        size: How many bytes the section has; asked only when much was made.
    """

    def __init__(self, limits: Limits, size: Callable[[], int]) -> None:
        self.limit = limits.filled
        self.section_bytes = 0
        self._size: Callable[[], int] | None = size
        self._taken = 0

    def takes(self, size: int) -> bool:
        """Count some more; whether there was room."""
        self._taken += size
        if self._taken > self.limit and self._size:
            self.section_bytes = self._size()
            self.limit += FILLED_PER_BYTE * self.section_bytes
            self._size = None
        return self._taken <= self.limit


@lru_cache(_TABLES)
def _default_size(field: Field) -> int:
    """Bytes of memory that a field which is absent takes in a new state."""
    return SLOT + (_size(field.type, field.known_default()) if field.default_factory else 0)


def _size(kind: FieldType, value: Any) -> int:
    """About how many bytes of memory a value takes."""
    table = cast("Table | None", kind.table)
    if table is None:
        if isinstance(value, SparseMemory):
            return value.length
        items = value if isinstance(value, list | tuple) else ()
        return sys.getsizeof(value) + sum(sys.getsizeof(each) for each in items if type(each) is not int or each not in SHARED)
    elements = elements_of(kind, value)
    fields = sum(SLOT + _size(field.type, table.get(each, field)) for each in elements if each for field in table.fields)
    return fields + ELEMENT * len(elements)


class Loader:
    """Loads one section, and gathers what it notices.

    Args:
        section: The section, as ``device#instance``.
        unknown: What to do with fields in use that the table does not know.
        tells: Gather what does not refuse the load, too.
        findings: Where to gather it.
        filling: How much the elements of lists may take.

    Attributes:
        findings: What was noticed.
    """

    def __init__(
        self,
        section: str,
        unknown: Unknown = "error",
        *,
        tells: bool = False,
        findings: Findings | None = None,
        filling: Filling | None = None,
    ) -> None:
        self.findings = Findings() if findings is None else findings
        self._filling = filling or Filling(LIMITS, lambda: 0)
        self._lists = 0
        self._section = section
        self._unknown = unknown
        self._tells = tells
        self._path: list[PathPart] = []
        self._top: Record | None = None
        self._refused = 0
        self._is_seen = True

    def load(self, table: Table, records: Sequence[Record], offset: int | None = None) -> Any | None:
        """A new state of the fields; None where one does not fit.

        Args:
            table: The table.
            records: The fields, those of all parts of the section.
            offset: Where the section begins, for what is missing in it.
        """
        refused = self._refused
        if not self._path:
            self._is_seen = table.is_hooked or not self._tells
        matched, kept = self._match(table, records)
        values = {}
        for field in table.fields:
            record = matched.get(field.name)
            if record is None:
                values[field.attribute] = self._absent(field, offset)
                continue
            if not self._path:
                self._top = record
            self._path.append(record.name)
            values[field.attribute] = self._field(field, record)
            self._path.pop()
        return self._made(table, values, kept, offset) if self._refused == refused else None

    def _note(self, rule: Rule, expected: str, found: str, offset: int | None, *path: PathPart) -> None:
        self._refused += rule.refuses
        if rule.refuses or self._tells:
            place = None if offset is None or offset < 0 else offset
            self.findings.note(Finding(rule.id, self._section, (*self._path, *path), expected, found, place))

    def _match(self, table: Table, records: Sequence[Record]) -> tuple[dict[str, Record], list[tuple[bytes, bool]]]:
        """The record of each field that is there, by the field's name; and what is to be kept."""
        matched: dict[str, Record] = {}
        kept: list[tuple[bytes, bool]] = []
        for record in records:
            field = table.by_name.get(record.name)
            if field is None:
                self._unknown_field(table, record, kept)
            elif field.name in matched:
                other = matched[field.name].name
                once = f"`{field.name}` once" if other == record.name else f"`{other}` or `{record.name}`, which are one field"
                self._note(TWICE, once, "both" if other != record.name else "it twice", record.offset, record.name)
            else:
                matched[field.name] = record
                if record.name != field.name:
                    self._note(BY_ALIAS, f"`{field.name}`", f"its alias `{record.name}`", record.offset, record.name)
        return matched, kept

    def _unknown_field(self, table: Table, record: Record, kept: list[tuple[bytes, bool]]) -> None:
        found = f"`{record.describe()}`, which `{table.owner}` does not know"
        if self._unknown == "keep":
            self._note(KEPT, "a known field", found, record.offset, record.name)
            kept.append((self._encoded(record), record.is_default))
        elif record.is_default:
            self._note(IGNORED_FIELD, "a known field", found + ", at its default", record.offset, record.name)
        elif self._unknown == "ignore":
            self._note(DROPPED, "a known field", found + ", in use", record.offset, record.name)
        else:
            self._note(
                UNKNOWN_FIELD, "only known fields, or ones at their default", found + ", in use", record.offset, record.name
            )

    def _encoded(self, record: Record) -> bytes:
        """The bytes of a record as they came, at any depth."""
        top = self._top if self._path else record
        if top is None or top is record or top.encoded is None or record.offset < 0:
            return encode(record)
        return Cursor(top.encoded, pos=record.offset - top.offset).skip("a field")

    def _fill(self, size: int, offset: int | None, *path: PathPart) -> None:
        """Count what is made for an element of a list and is not in the section. Raises LimitError beyond the limit."""
        if self._lists and not self._filling.takes(size):
            most = f"at most {self._filling.limit} bytes of memory for defaults, `sparse` memory and elements of lists"
            found = f"more ({self._filling.section_bytes} bytes of fields)"
            error = LimitError(most, found, offset=max(offset or 0, 0), path=(*self._path, *path))
            error.section = self._section
            raise error

    def _absent(self, field: Field, offset: int | None) -> Any:
        self._fill(_default_size(field), offset, field.name)
        if field.is_required:
            self._note(MISSING_FIELD, f"`{field.type.describe()}` (required)", "no such field", offset, field.name)
            return None
        self._note(FILLED, f"`{field.type.describe()}`", "no such field", offset, field.name)
        return field.make_default() if self._is_seen else field.known_default()

    def _field(self, field: Field, record: Record) -> Any:
        """The value of a record in Python; what does not fit is noted."""
        kind = field.type
        if record.type != kind.wire.name:
            if record.type not in field.widens_from:
                return self._note(WRONG_TYPE, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
            self._note(WIDENED, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
        if not kind.takes_length(record.length):
            return self._note(WRONG_LENGTH, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
        if kind.table is not None:
            return self._structs(kind, record)
        if kind.wire.name == "sparse":
            self._fill(kind.length or 0, record.offset)
        problem = kind.violation(record.value)
        if problem:
            return self._note(OUT_OF_RANGE, problem[1], problem[2], record.offset, *problem[0])
        return kind.from_wire(record.value, wire_type(record.type))

    def _structs(self, kind: FieldType, record: Record) -> Any:
        if not kind.is_array:
            return self._one_struct(kind, cast("Records | None", record.value), record.offset)
        found = []
        self._lists += kind.capacity is not None
        for index, element in enumerate(cast("Sequence[Records | None]", record.value)):
            self._path.append(index)
            self._fill(ELEMENT if element is not None else 0, record.offset)
            found.append(self._one_struct(kind, element, record.offset))
            self._path.pop()
        self._lists -= kind.capacity is not None
        return kind.holder(found)

    def _one_struct(self, kind: FieldType, records: Records | None, offset: int) -> Any:
        if records is not None:
            return self.load(cast("Table", kind.table), records, offset)
        if not kind.is_optional:
            self._note(ABSENT_STRUCT, "`struct`", "nil (an absent one)", offset)
        return None

    def _made(self, table: Table, values: dict[str, Any], kept: list[tuple[bytes, bool]], offset: int | None) -> Any | None:
        """A new state, checked by its own check."""
        try:
            state = table.make(values)
            if table.check:
                table.check(state)
        except Exception as error:  # noqa: BLE001  # whatever a class says of its own values refuses them
            self._note(CHECK, f"what `check` of `{table.owner}` takes", raised(error), offset)
            return None
        if kept:
            table.set_kept(state, tuple(kept))
        return state
