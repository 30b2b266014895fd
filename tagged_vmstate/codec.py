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
    nothing                                with a default          the default; of a section that is there, the first of
                                                                   all that the field has had
    nothing                                required                a problem
    a field at its default                 no                      ignored
    a field in use                         no                      a problem, unless unknown fields are ignored or kept
    one field twice, or also by an alias   yes                     a problem
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator, Sequence, Sized
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, cast

from tagged_vmstate.errors import Finding, LimitError, StateError
from tagged_vmstate.fieldtype import FieldType, SparseMemory, nonzero_runs
from tagged_vmstate.paths import PathPart
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
    NOT_MADE,
    OUT_OF_RANGE,
    TWICE,
    UNKNOWN_FIELD,
    WIDENED,
    WRONG_LENGTH,
    WRONG_TYPE,
    Findings,
    Rule,
)
from tagged_vmstate.table import Field, Hook, Table, elements_held, elements_of
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import NIL, Cursor, Piece, equal, gathered, pack_array_head, pack_uint
from tagged_vmstate.wiretype import brief

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
ELEMENT: Final = 160
"""Bytes of memory that a state takes, its fields not counted."""


def prepare(table: Table, state: Any) -> Any:
    """Call the hooks before a save: `pre_save` of a state and all structs in it, then every `check`.

    Returns:
        What to save: where there is a check, a copy, so that what it saw is what is saved, even if the state changes meanwhile.

    Raises:
        StateError: A hook raised, or a check refuses the state.
    """
    if "pre_save" in table.hooks:
        for inner, each, path in structs(table, state):
            call(inner.pre_save, each, f"`pre_save` of `{inner.owner}` to return", path)
    if "check" not in table.hooks:
        return state
    state = copied(table, state)
    for inner, each, path in structs(table, state):
        call(inner.check, each, f"what `check` of `{inner.owner}` takes", path)
    return state


def copied(table: Table, state: Any) -> Any:
    """A copy of a state, all that its table has with it but memory; the state itself where its class allows no copy.

    Raises:
        StateError: It is no state of its table.
    """
    values: dict[str, Any] = {}
    for field in table.fields:
        try:
            values[field.attribute] = _copied_value(field, table.get(state, field))
        except StateError as error:
            error.under(field.name)
            raise
    made = table.remade(state, values)
    if made is None:
        return state
    if kept := table.kept(state):
        table.set_kept(made, kept)
    return made


def _copied_value(field: Field, value: Any) -> Any:
    if field.table is None:
        return value if field.type.wire.name == "sparse" else field.type.copied(value)
    found = [None if each is None else copied(field.table, each) for each in elements_of(field.type, value)]
    return field.type.holder(found) if field.type.is_array else found[0]


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
    defaults = None if field.is_required else _default_parts(field, most, len(view))
    is_empty = True
    for number, start in enumerate(range(0, max(len(view), 1), most)):
        runs = _runs(view, start, most)
        is_default = defaults is not None and runs == defaults[number]
        if runs or (defaults and not is_default) or (is_empty and start + most >= len(view)):
            is_empty = False
            yield Record(field.name, "sparse", len(view), runs, is_default)


@lru_cache(_TABLES)
def _default_parts(field: Field, most: int, size: int) -> Sequence[Runs | None] | None:
    """The runs of the parts of a default of a size, None where the defaults differ: what is zero takes no room."""
    found: Sequence[Runs | None] | None = None
    for default in (field.known_default(), *field.previous_defaults):
        if len(default) != size:
            return None
        starts = range(0, max(size, 1), most)
        if isinstance(default, SparseMemory) and not default.runs:
            parts: list[Runs] = [()] * len(starts)
        else:
            view = field.type.memory(default)
            parts = [_runs(view, start, most) for start in starts]
        found = parts if found is None else [each if each == part else None for each, part in zip(found, parts, strict=True)]
    return found


def _runs(memory: memoryview, start: int, most: int) -> Runs:
    """The runs of a part, taken at once: their flag has to be theirs though the memory may change."""
    return tuple((start + offset, data) for offset, data in nonzero_runs(bytes(memory[start : start + most])))


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
    return tuple(None if field.is_required else _image(field, field.known_default()) for field in table.fields)


def _image(field: Field, default: Any) -> Image | None:
    """The image of a default of a field; where it is not what each earlier one was, no value is to be flagged."""
    found: Image | None = image(field.type, default)
    for previous in field.previous_defaults:
        found = _agreed(field.type, found, image(field.type, previous))
    return found


def _agreed(kind: FieldType, first: Image | None, second: Image | None) -> Image | None:
    """The image that values are flagged by where they are to equal two defaults."""
    if first is None or second is None or len(first) != len(second):
        return None
    table = cast("Table | None", kind.table)
    if table is None:
        ours, theirs = cast("tuple[bytes, Sequence[Piece]]", first), cast("tuple[bytes, Sequence[Piece]]", second)
        return ours if ours[0] == theirs[0] and equal(ours[1], theirs[1]) else None
    pairs = zip(cast("tuple[Images | None, ...]", first), cast("tuple[Images | None, ...]", second), strict=True)
    return tuple(None if ours is None and theirs is None else _agreed_struct(table, ours, theirs) for ours, theirs in pairs)


def _agreed_struct(table: Table, first: Images | None, second: Images | None) -> Images:
    """The same of structs; what is absent in one of the two is flagged by its table's defaults."""
    known = _defaults(table)
    triples = zip(table.fields, known if first is None else first, known if second is None else second, strict=True)
    return tuple(_agreed(field.type, ours, theirs) for field, ours, theirs in triples)


def can_be_flagged(field: Field) -> bool:
    """Whether a field has a value that is flagged as being at its default."""
    return _is_met(field.type, None if field.is_required else _image(field, field.known_default()))


def _is_met(kind: FieldType, default: Image | None) -> bool:
    """Whether a value has an image as its default's."""
    table = cast("Table | None", kind.table)
    if table is None:
        return default is not None
    if default is None:
        return not kind.is_array and _are_met(table, _defaults(table))
    return all(each is None or _are_met(table, each) for each in cast("tuple[Images | None, ...]", default))


def _are_met(table: Table, defaults: Images) -> bool:
    return all(_is_met(field.type, default) for field, default in zip(table.fields, defaults, strict=True))


def image(kind: FieldType, value: Any) -> Image:
    """A value as it is compared with others."""
    table = cast("Table | None", kind.table)
    if table is None:
        return kind.pieces(value)
    return tuple(None if element is None else _images(table, element) for element in elements_of(kind, value))


def _images(table: Table, state: Any) -> Images:
    return tuple(_image(field, table.get(state, field)) for field in table.fields)


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


def _own_size(value: Any) -> int:
    """Bytes of memory of an object without what it refers to; in PyPy, which does not measure objects, an estimate."""
    try:
        held = memoryview(value).nbytes
    except TypeError:
        held = 8 * len(value) if isinstance(value, Sized) else 0
    return sys.getsizeof(value, SLOT + held)


def _size(kind: FieldType, value: Any) -> int:
    """About how many bytes of memory a value takes."""
    table = cast("Table | None", kind.table)
    if table is None:
        if isinstance(value, SparseMemory):
            return value.length
        items = value if isinstance(value, list | tuple) else ()
        return _own_size(value) + sum(_own_size(each) for each in items if type(each) is not int or each not in SHARED)
    elements = elements_of(kind, value)
    fields = sum(SLOT + _size(field.type, table.get(each, field)) for each in elements if each for field in table.fields)
    return fields + ELEMENT * len(elements)


class Loader:
    """Loads one section, and gathers what it notices.

    Args:
        section: The section, as ``device#instance``.
        unknown: What to do with fields in use that the table does not know.
        tells: Gather what does not refuse the load, too.
        taken: The ids of states that take values, over all sections: one in two places takes only those of the first.
        findings: Where to gather it.
        filling: How much the elements of lists may take.
        is_seen: Whether somebody looks at the new state.

    Attributes:
        findings: What was noticed.
    """

    def __init__(
        self,
        section: str,
        unknown: Unknown = "error",
        *,
        tells: bool = False,
        taken: set[int] | None = None,
        findings: Findings | None = None,
        filling: Filling | None = None,
        is_seen: bool = True,
    ) -> None:
        self._is_seen = is_seen
        self._taken = set() if taken is None else taken
        self.findings = Findings() if findings is None else findings
        self._filling = filling or Filling(LIMITS, lambda: 0)
        self._lists = 0
        self._section = section
        self._unknown = unknown
        self._tells = tells
        self._path: list[PathPart] = []
        self._top: Record | None = None
        self._refused = 0

    def load(self, table: Table, records: Sequence[Record] | None, offset: int | None = None, old: Any = None) -> Any | None:
        """A new state of the fields; None where one does not fit.

        Args:
            table: The table.
            records: The fields, those of all parts of the section; None where there is no section.
            offset: Where the section begins, for what is missing in it.
            old: The state that will take the values, where there is one: the new one is a copy of it.
        """
        refused = self._refused
        is_second = id(old) in self._taken
        self._taken.add(id(old))
        matched, kept = self._match(table, records or ())
        values = {}
        for field in table.fields:
            record = matched.get(field.name)
            if record is None:
                values[field.attribute] = self._absent(field, offset, is_new=records is None)
                continue
            if not self._path:
                self._top = record
            self._path.append(record.name)
            values[field.attribute] = self._field(field, record, None if old is None else table.present(old, field.attribute))
            self._path.pop()
        if self._refused != refused:
            return None
        return self._made(table, values, kept, offset, None if is_second and table.can_make else old)

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

    def _absent(self, field: Field, offset: int | None, *, is_new: bool) -> Any:
        self._fill(_default_size(field), offset, field.name)
        if field.is_required:
            self._note(MISSING_FIELD, f"`{field.type.describe()}` (required)", "no such field", offset, field.name)
            return None
        if is_new or not field.has_previous_defaults:
            value = field.make_default() if self._is_seen else field.known_default()
        else:
            value = field.first_default()
        first = f", filled with its first default, {brief(value)}" if field.has_previous_defaults and not is_new else ""
        self._note(FILLED, f"`{field.type.describe()}`", f"no such field{first}", offset, field.name)
        return value

    def _field(self, field: Field, record: Record, old: Any) -> Any:
        """The value of a record in Python; what does not fit is noted."""
        kind = field.type
        if record.type != kind.wire.name:
            if record.type not in field.widens_from:
                return self._note(WRONG_TYPE, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
            self._note(WIDENED, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
        if not kind.takes_length(record.length):
            return self._note(WRONG_LENGTH, f"`{kind.describe()}`", f"`{record.describe()}`", record.offset)
        if kind.table is not None:
            if old is None and field.table and not (field.table.can_make or field.is_required):
                old = field.make_default()
            return self._structs(kind, record, old)
        if kind.wire.name == "sparse":
            self._fill(record.length or 0, record.offset)
        problem = kind.violation(record.value)
        if problem:
            return self._note(OUT_OF_RANGE, problem[1], problem[2], record.offset, *problem[0])
        return kind.from_wire(record.value, wire_type(record.type), record.length)

    def _structs(self, kind: FieldType, record: Record, old: Any) -> Any:
        if not kind.is_array:
            return self._one_struct(kind, cast("Records | None", record.value), record.offset, *elements_held(kind, old, 1))
        found = []
        self._lists += kind.capacity is not None
        elements = cast("Sequence[Records | None]", record.value)
        for index, (element, held) in enumerate(zip(elements, elements_held(kind, old, len(elements)), strict=True)):
            self._path.append(index)
            self._fill(ELEMENT if element is not None else 0, record.offset)
            found.append(self._one_struct(kind, element, record.offset, held))
            self._path.pop()
        self._lists -= kind.capacity is not None
        return kind.holder(found)

    def _one_struct(self, kind: FieldType, records: Records | None, offset: int, old: Any) -> Any:
        if records is not None:
            return self.load(cast("Table", kind.table), records, offset, old)
        if not kind.is_optional:
            self._note(ABSENT_STRUCT, "`struct`", "nil (an absent one)", offset)
        return None

    def _made(
        self, table: Table, values: dict[str, Any], kept: list[tuple[bytes, bool]], offset: int | None, old: Any
    ) -> Any | None:
        """A new state, checked by its own check."""
        expected = f"values that a `{table.owner}` can be made of"
        try:
            state = None if old is None else table.remade(old, values)
            if state is None and not table.can_make:
                self._note(NOT_MADE, f"a `{table.owner}` to load into", "one, where there is none", offset)
                return None
            state = table.make(values) if state is None else state
            expected = f"what `check` of `{table.owner}` takes"
            if table.check:
                table.check(state)
        except Exception as error:  # noqa: BLE001  # whatever a class says of its own values refuses them
            self._note(CHECK, expected, raised(error), offset)
            return None
        try:
            if kept:
                table.set_kept(state, tuple(kept))
        except StateError as error:
            self._note(UNKNOWN_FIELD, error.expected, error.found, offset)
            return None
        return state


def restored(table: Table, state: Any) -> Any:
    """A state as a reset makes it of one that is there; what is required stays, the structs in it are reset.

    Raises:
        StateError: The state lacks something that its table has, cannot be copied, or a check refuses it.
    """
    found = _restored(table, state, None)
    if "check" in table.hooks:
        for inner, each, path in structs(table, found):
            call(inner.check, each, f"what `check` of `{inner.owner}` takes", path)
    return found


def _restored(table: Table, state: Any, default: Any) -> Any:
    """A state with the values of another, or with its table's defaults."""
    values: dict[str, Any] = {}
    for field in table.fields:
        try:
            values[field.attribute] = _restored_value(table, field, state, default)
        except StateError as error:
            error.under(field.name)
            raise
    made = table.remade(state, values)
    if made is None and not table.can_make:
        raise StateError(f"a `{table.owner}` that can be copied, or make= in its table", "neither")
    return table.make(values) if made is None else made


def _restored_value(table: Table, field: Field, state: Any, default: Any) -> Any:
    kind, stays = field.type, default is None and field.is_required
    value = table.get(state if stays else default, field) if stays or default is not None else field.make_default()
    if field.table is None:
        return value
    news = elements_of(kind, value)
    olds = elements_held(kind, table.present(state, field.attribute), len(news))
    found = [
        new if new is None or old is None else _restored(field.table, old, None if stays else new)
        for old, new in zip(olds, news, strict=True)
    ]
    return kind.holder(found) if kind.is_array else found[0]
