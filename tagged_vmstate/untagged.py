"""QEMU's own bytes of a section, which carry neither names nor lengths, read and written by a table.

The walk of migration/vmstate.c: the fields that a section version has, in the order of declaration, big-endian;
arrays element by element; structs inline; behind the fields of a struct its subsections, each a byte 5, a name, a
version and its own fields. A null in an array of pointers is the byte '0'; which elements are null the bytes do not
say: the field's default does, as in QEMU the object that is loaded into. What a version lacks gets its default
when the fields are loaded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from tagged_vmstate.blocks import BlockType, from_big_endian, to_big_endian, word_swapped
from tagged_vmstate.codec import raised, save
from tagged_vmstate.errors import FormatError, StateError, TableError
from tagged_vmstate.legacy import Legacy, Reader, read_by_function, record_of
from tagged_vmstate.qemu.stream import SUBSECTION
from tagged_vmstate.qemu.vmdesc import NULL, subsection_head
from tagged_vmstate.records import Record, Records, decode_all
from tagged_vmstate.table import Field, Table
from tagged_vmstate.wire import joined

WORD: Final = 64
"""A bitmap is written in big-endian words of so many bits."""


def read(table: Table, data: bytes, version: int, *, base: int = 0, subsections: list[int] | None = None) -> Records:
    """The fields of a section of a version.

    Args:
        table: The table.
        data: The bytes of the section.
        version: Its version.
        base: Byte offset of the bytes in the file, for errors.
        subsections: Takes the version of each subsection, in the order of the bytes: `write_records` needs them.

    Raises:
        FormatError: The version is none that the table reads, or the bytes do not fit.
    """
    reader = _Reader(data, base)
    legacy = _legacy(table, version)
    if legacy is not None:
        found = read_by_function(table, legacy, reader, version)
    elif not table.minimum_version <= version <= table.version:
        readable = f"version {table.minimum_version} to {table.version} of `{table.name}`"
        raise FormatError(readable, f"version {version}", offset=base, source="section")
    else:
        found = _read_struct(table, reader, version)
    reader.end()
    if subsections is not None:
        subsections += reader.subsections
    return found


class _Reader(Reader):
    """A reader that notes the version of each subsection."""

    def __init__(self, data: bytes, base: int) -> None:
        super().__init__(data, base)
        self.subsections: list[int] = []


def _legacy(table: Table, version: int) -> Legacy | None:
    """The function that reads a version, which no fields describe then."""
    return next((cast("Legacy", each) for each in table.legacy if version in each.versions), None)


def _read_struct(table: Table, reader: _Reader, version: int) -> Records:
    found: list[Record] = []
    values: dict[str, Any] = {}
    for field in _fields(table, version):
        if field.untagged.when and not _is_there(field, reader, values):
            continue
        try:
            record = _read_field(field, reader, values)
        except FormatError as error:
            error.under(field.name)
            raise
        values[field.name] = record.value
        found.append(record)
    return (*found, *_read_subsections(table, reader, version))


def _is_there(field: Field, reader: Reader, values: Mapping[str, Any]) -> bool:
    """What the field's `when` says of the values before it. Raises FormatError where that raises."""
    try:
        return bool(field.untagged.when and field.untagged.when(values))
    except Exception as error:
        raise FormatError(
            f"`when` of `{field.name}` to return", raised(error), offset=reader.offset, path=(field.name,), source="section"
        ) from error


def _fields(table: Table, version: int) -> Iterator[Field]:
    return (field for field in table.fields if field.is_in(version) and not field.untagged.subsection)


def _read_field(field: Field, reader: _Reader, values: Mapping[str, Any]) -> Record:
    kind = field.type
    offset = reader.offset
    length = _count(field, reader, values)
    if field.table is not None:
        value: Any = _read_structs(field, reader, length)
        count = len(value) if kind.is_array else None
        return Record(field.name, "struct", count, value if kind.is_array else value[0], offset=offset)
    name = kind.wire.name
    if isinstance(kind.wire, BlockType):
        data = reader.take(kind.wire.width * (1 if length is None else length), f"`{kind.describe()}`")
        if name == "bool" and data.strip(b"\0\1"):
            raise reader.error("bytes 0 and 1 for `bool`", data.strip(b"\0\1")[:1].hex(), len(data))
        view = from_big_endian(kind.wire, data)
        return Record(field.name, name, length, view[0] if length is None else view, offset=offset)
    if name == "buffer":
        return Record(field.name, name, length, reader.take(length or 0, f"`{kind.describe()}`"), offset=offset)
    if name == "bitmap":
        bits = length or 0
        data = word_swapped(reader.take(-(-bits // WORD) * 8, f"`{kind.describe()}`"))
        if int.from_bytes(data, "little") >> bits:
            raise reader.error(f"spare bits 0 in `{kind.describe()}`", "others", len(data))
        return Record(field.name, name, length, data[: -(-bits // 8)], offset=offset)
    raise TableError("a type that QEMU writes untagged (no string, no sparse memory)", f"`{kind.describe()}`")


def _count(field: Field, reader: Reader, values: Mapping[str, Any]) -> int | None:
    """How many elements are there; of a linked list that is told element by element."""
    kind = field.type
    if kind.capacity is None or field.untagged.linked:
        return kind.length
    if field.untagged.counted_by is None:
        raise TableError("a sibling that counts it, or a linked list", f"`{kind.describe()}`", path=(field.name,))
    count: int = values.get(field.untagged.counted_by, 0)
    if not 0 <= count <= kind.capacity:
        raise reader.error(f"a count of 0 to {kind.capacity} in `{field.untagged.counted_by}`", str(count))
    return count


def _read_structs(field: Field, reader: _Reader, length: int | None) -> list[Any]:
    found: list[Any] = []
    for index, is_null in enumerate(_elements(field, reader, length)):
        try:
            if is_null:
                mark = reader.take(1, "the mark of a null")
                if mark != NULL:
                    raise reader.error("the mark of a null ('0')", f"0x{mark.hex()}", 1)
                found.append(None)
            else:
                table = cast("Table", field.table)
                found.append(_read_struct(table, reader, table.version))
        except FormatError as error:
            if field.type.is_array:
                error.under(index)
            raise
    return found


def _elements(field: Field, reader: Reader, length: int | None) -> Iterator[bool]:
    """For each element that is to be read, whether it is a null."""
    if field.untagged.linked:
        for _ in range((field.type.capacity or 0) + 1):
            mark = reader.number("B", "the mark before an element")
            if mark == 0:
                return
            if mark != 1:
                raise reader.error("1 before an element of a list, or 0 behind the last", str(mark), 1)
            yield False
        raise reader.error(f"at most {field.type.capacity} elements", "one more")
    yield from _nulls(field, 1 if length is None else length)


def _nulls(field: Field, count: int) -> list[bool]:
    """Which elements of an array of pointers are null: those of its default."""
    if not field.type.is_optional:
        return [False] * count
    if not field.type.is_array or field.is_required:
        raise TableError("a subsection, or an array with a default that tells its nulls", "a struct or None", path=(field.name,))
    pattern = [element is None for element in field.make_default()]
    return (pattern + [False] * count)[:count]


def _read_subsections(table: Table, reader: _Reader, version: int) -> Records:
    known = {field.name: field for field in table.fields if field.untagged.subsection and field.is_in(version)}
    found: dict[str, Record] = {}
    while reader.peek(1) == bytes((SUBSECTION,)):
        size = reader.peek(2)[1:]
        raw = reader.peek(2 + size[0])[2:] if size else b""
        name = raw.decode(errors="replace")
        if name not in known and not name.startswith(f"{table.name}/"):
            break  # a field of what this struct lies in begins with a 5
        if name not in known or name in found:
            raise reader.error(f"subsections of `{table.name}` that its table knows, each once", f"`{name}`")
        offset = reader.offset
        reader.take(2 + len(raw), "a subsection's name")
        inner = cast("Table", known[name].table)
        number = reader.number("I", "a subsection's version")
        reader.subsections.append(number)
        try:
            if not inner.minimum_version <= number <= inner.version:
                readable = f"version {inner.minimum_version} to {inner.version} of `{inner.name}`"
                raise reader.error(readable, f"version {number}", 4)
            found[name] = Record(name, "struct", None, _read_struct(inner, reader, number), offset=offset)
        except FormatError as error:
            error.under(name)
            raise
    return tuple(found.values())


def write(table: Table, state: Any, version: int, *, drop: Container[str] = ()) -> bytes:
    """The bytes of a section of a version, from a state.

    Args:
        table: The table.
        state: The state.
        version: The section version.
        drop: Names of fields that may be lost though they are in use.

    Raises:
        StateError: The version is none that the table writes, or has no place for a field that is in use.
    """
    return _write(table, decode_all(joined(save(table, state))), version, _Writing(drop))


def write_records(table: Table, records: Records, version: int, subsections: Iterable[int]) -> bytes:
    """The bytes of a section that `read` has read, from its fields.

    Args:
        table: The table.
        records: The fields; those that are missing are at their defaults.
        version: The section version.
        subsections: The version of each subsection, as `read` gave them.

    Raises:
        StateError: As for `write`; or the fields are not those of the table, or other subsections than were read.
    """
    way = _Writing((), iter(subsections))
    data = _write(table, records, version, way)
    if next(way.subsections or iter(()), None) is not None:
        raise StateError("all subsections that were read", "fewer")
    return data


@dataclass(frozen=True, slots=True)
class _Writing:
    """How fields become bytes.

    Attributes:
        drop: Names of fields that may be lost though they are in use.
        subsections: The versions of those subsections that are there; None for a state: what is not at its default is written,
            as its table is now.
    """

    drop: Container[str]
    subsections: Iterator[int] | None = None


def _write(table: Table, records: Records, version: int, way: _Writing) -> bytes:
    if not table.minimum_version <= version <= table.version:
        raise StateError(f"version {table.minimum_version} to {table.version} of `{table.name}`", f"version {version}")
    legacy = _legacy(table, version)
    if legacy:
        found = f"version {version}, which only `{legacy.function.__name__}` reads"
        raise StateError(f"a version that the fields of `{table.name}` describe", found)
    return b"".join(_write_struct(table, records, version, way))


def _write_struct(table: Table, records: Records, version: int, way: _Writing) -> Iterator[bytes]:
    given: dict[str, Record] = {}
    for record in records:
        known = table.by_name.get(record.name)
        if known:
            given[known.name] = record
        elif not record.is_default and record.name not in way.drop:
            raise StateError(f"only fields that `{table.name}` has", "one more, in use", path=(record.name,))
    given |= {
        field.name: record_of(field, field.first_default())
        for field in table.fields
        if field.name not in given and not field.is_required and not field.untagged.subsection
    }
    written: set[str] = set()
    values: dict[str, Any] = {}
    for field in _fields(table, version):
        if field.untagged.when and not _is_written(field, values):
            continue
        if field.name not in given:
            raise StateError(f"`{field.type.describe()}`", "nothing", path=(field.name,))
        try:
            yield from _write_field(field, given[field.name], values, way)
        except StateError as error:
            error.under(field.name)
            raise
        values[field.name] = given[field.name].value
        written.add(field.name)
    for name, record in given.items():
        field = table.by_name[name]
        if name in written:
            continue
        if field.untagged.subsection and field.is_in(version):
            try:
                yield from _write_subsection(field, record, way)
            except StateError as error:
                error.under(name)
                raise
        elif not record.is_default and record.value != record_of(field, field.first_default()).value and name not in way.drop:
            expected = f"`{name}` at its default: version {version} of `{table.name}` has no place for it"
            raise StateError(expected, "it in use", path=(name,))


def _is_written(field: Field, values: Mapping[str, Any]) -> bool:
    """What the field's `when` says of the values before it. Raises StateError where that raises."""
    try:
        return bool(field.untagged.when and field.untagged.when(values))
    except Exception as error:
        raise StateError(f"`when` of `{field.name}` to return", raised(error), path=(field.name,)) from error


def _write_subsection(field: Field, record: Record, way: _Writing) -> Iterator[bytes]:
    table = cast("Table", field.table)
    _check_type(field, record)
    if record.value is None:
        return
    if way.subsections is None:
        if record.is_default and not field.type.is_optional:
            return
        version = table.version
    else:
        noted = next(way.subsections, None)
        if noted is None:
            raise StateError("only subsections that were read", "one more")
        version = noted
        if not table.minimum_version <= version <= table.version:
            raise StateError(f"version {table.minimum_version} to {table.version} of `{table.name}`", f"version {version}")
    yield subsection_head(field.name, version)
    yield from _write_struct(table, cast("Records", record.value), version, way)


def _check_type(field: Field, record: Record) -> None:
    """Raise StateError for a field that is not as its table has it: nothing in the bytes would show that."""
    if record.type != field.type.wire.name or not field.type.takes_length(record.length):
        raise StateError(f"`{field.type.describe()}`", f"`{record.describe()}`")


def _write_field(field: Field, record: Record, values: Mapping[str, Any], way: _Writing) -> Iterator[bytes]:
    kind = field.type
    value: Any = record.value
    _check_type(field, record)
    if kind.capacity is not None and not field.untagged.linked:
        count = values.get(field.untagged.counted_by or "", 0)
        if count != record.length:
            raise StateError(f"as many as `{field.untagged.counted_by}` says ({count})", f"{record.length} elements")
    if field.table is not None:
        yield from _write_structs(field, value if kind.is_array else (value,), way)
    elif isinstance(kind.wire, BlockType):
        yield to_big_endian(kind.wire, value, record.length)
    elif kind.wire.name == "bitmap":
        yield word_swapped(value.ljust(-(-(record.length or 0) // WORD) * 8, b"\0"))
    elif kind.wire.name == "buffer":
        yield value
    else:
        raise TableError("a type that QEMU writes untagged (no string, no sparse memory)", f"`{kind.describe()}`")


def _write_structs(field: Field, elements: Sequence[Any], way: _Writing) -> Iterator[bytes]:
    table = cast("Table", field.table)
    nulls = [False] * len(elements) if field.untagged.linked else _nulls(field, len(elements))
    for index, (element, is_null) in enumerate(zip(elements, nulls, strict=True)):
        if (element is None) != is_null:
            raise StateError("nulls where the default has them", f"element {index} {'null' if element is None else 'not null'}")
        if is_null:
            yield NULL
            continue
        if field.untagged.linked:
            yield b"\1"
        try:
            yield from _write_struct(table, element, table.version, way)
        except StateError as error:
            if field.type.is_array:
                error.under(index)
            raise
    if field.untagged.linked:
        yield b"\0"
