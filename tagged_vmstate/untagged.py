"""QEMU's own bytes of a section, which carry neither names nor lengths, read and written by a table.

The walk of migration/vmstate.c: the fields that a section version has, in the order of declaration, big-endian;
arrays element by element; structs inline; behind the fields of a struct its subsections, each a byte 5, a name, a
version and its own fields. A null in an array of pointers is the byte '0'; which elements are null the bytes do not
say: the field's default does, as in QEMU the object that is loaded into. What a version lacks gets its default
when the fields are loaded.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, cast

from tagged_vmstate.blocks import BlockType, from_big_endian, to_big_endian, word_swapped
from tagged_vmstate.codec import raised, save
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import FormatError, StateError, TableError
from tagged_vmstate.frames import label
from tagged_vmstate.qemu.savevm import nowhere, untagged
from tagged_vmstate.records import Record, Records, decode_all
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.table import Field, Table, check_value
from tagged_vmstate.wiretype import brief

SUBSECTION: Final = 5
NULL: Final = 0x30
"""VMS_NULLPTR_MARKER: the character 0."""
WORD: Final = 64
"""A bitmap is written in big-endian words of so many bits."""


class LegacyWarning(UserWarning):
    """A legacy function was used, which goes with a release."""


class Reader:
    """Untagged bytes read one value after another; every read is checked.

    Args:
        data: The bytes of a section.
        base: Their byte offset in the file, for errors.
    """

    def __init__(self, data: bytes, base: int = 0) -> None:
        self._data = data
        self._base = base
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return len(self._data) - self._at

    @property
    def offset(self) -> int:
        """Byte offset in the file."""
        return self._base + self._at

    def error(self, expected: str, found: str, back: int = 0) -> FormatError:
        """An error at this place, or some bytes before it."""
        return FormatError(expected, found, offset=self.offset - back, source="section")

    def take(self, size: int, what: str = "bytes") -> bytes:
        """So many bytes. Raises FormatError where there are fewer."""
        if size > self.left:
            raise self.error(f"{size} bytes of {what}", f"only {self.left} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        return self._data[self._at : self._at + size]

    def number(self, code: str, what: str = "a number") -> Any:
        """A big-endian number of a `struct` code. Raises FormatError where it is cut."""
        return struct.unpack(f">{code}", self.take(struct.calcsize(f">{code}"), what))[0]

    def end(self) -> None:
        """Raise FormatError where bytes are left over."""
        if self.left:
            raise self.error("the end of the section", f"{self.left} more bytes")


@dataclass(frozen=True, slots=True, init=False)
class Legacy:
    """A function that reads old bytes which no table describes, until a release.

    Args:
        function: Gets a `Reader`, returns the values of fields by their names.
        versions: The section versions that it reads.
        release: The release in which it goes: in that one and later, it is refused when it is declared.
        current: The version of the program, or the name of its distribution.

    Raises:
        TableError: The release has come.
    """

    function: Callable[[Reader], Mapping[str, Any]]
    versions: tuple[int, ...]
    release: str

    def __init__(
        self, function: Callable[[Reader], Mapping[str, Any]], versions: Iterable[int], *, release: str, current: str
    ) -> None:
        version = current if current[:1].isdigit() else metadata.version(current)
        if _numbers(version) >= _numbers(release):
            raise TableError(f"`{function.__name__}` gone since release {release}", f"it in {version}: remove it")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "versions", tuple(versions))
        object.__setattr__(self, "release", release)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    if not match:
        raise TableError("a version such as 1.4", brief(version))
    found = [int(part) for part in match[0].split(".")]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def read(table: Table, data: bytes, version: int, *, base: int = 0) -> Records:
    """The fields of a section of a version.

    Args:
        table: The table.
        data: The bytes of the section.
        version: Its version.
        base: Byte offset of the bytes in the file, for errors.

    Raises:
        FormatError: The version is none that the table reads, or the bytes do not fit.
    """
    reader = Reader(data, base)
    legacy = next((each for each in table.legacy if version in each.versions), None)
    if legacy is not None:
        found = _by_function(table, cast("Legacy", legacy), reader, version)
    elif not table.minimum_version <= version <= table.version:
        readable = f"version {table.minimum_version} to {table.version} of `{table.name}`"
        raise FormatError(readable, f"version {version}", offset=base, source="section")
    else:
        found = _read_struct(table, reader, version)
    reader.end()
    return found


def _by_function(table: Table, legacy: Legacy, reader: Reader, version: int) -> Records:
    gone = f"`{legacy.function.__name__}` reads version {version} of `{table.name}`; it goes with release {legacy.release}"
    warnings.warn(LegacyWarning(f"{gone}: save the state anew before"), stacklevel=2)
    start = reader.offset
    try:
        values = dict(legacy.function(reader))
    except FormatError:
        raise
    except Exception as error:
        name = legacy.function.__name__
        raise FormatError(f"`{name}` to return", raised(error), offset=reader.offset, source="section") from error
    found = []
    for name, value in values.items():
        field = table.by_name.get(name)
        if field is None:
            raise TableError(f"fields of `{table.name}` from `{legacy.function.__name__}`", f"`{name}`")
        try:
            check_value(field.type, value)
        except StateError as error:
            path = (name, *error.path)
            raise FormatError(error.expected, error.found, offset=start, path=path, source="section") from error
        found.append(_record(field, value))
    return tuple(found)


def _record(field: Field, value: Any) -> Record:
    if field.table is None:
        return Record(field.name, field.type.wire.name, field.type.length_of(value), value)
    made = Table("made", [Field(field.name, field.type)])
    [record] = decode_all(save(made, {field.name: value}))
    return record


def _read_struct(table: Table, reader: Reader, version: int) -> Records:
    found: list[Record] = []
    values: dict[str, Any] = {}
    for field in _fields(table, version):
        if field.untagged.when and not field.untagged.when(values):
            continue
        try:
            record = _read_field(field, reader, values)
        except FormatError as error:
            error.under(field.name)
            raise
        values[field.name] = record.value
        found.append(record)
    return (*found, *_read_subsections(table, reader, version))


def _fields(table: Table, version: int) -> Iterator[Field]:
    return (field for field in table.fields if field.is_in(version) and not field.untagged.subsection)


def _read_field(field: Field, reader: Reader, values: Mapping[str, Any]) -> Record:
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
        words = reader.take(-(-(length or 0) // WORD) * 8, f"`{kind.describe()}`")
        bits = b"".join(words[at : at + 8][::-1] for at in range(0, len(words), 8))
        return Record(field.name, name, length, bits[: -(-(length or 0) // 8)], offset=offset)
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


def _read_structs(field: Field, reader: Reader, length: int | None) -> list[Any]:
    found: list[Any] = []
    for index, is_null in enumerate(_elements(field, reader, length)):
        try:
            if is_null:
                if reader.take(1, "the mark of a null") != bytes((NULL,)):
                    raise reader.error("the mark of a null ('0')", f"0x{reader._data[reader._at - 1]:02x}", 1)  # noqa: SLF001  # its own room
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


def _read_subsections(table: Table, reader: Reader, version: int) -> Records:
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
    return write_records(table, decode_all(save(table, state)), version, drop=drop)


def write_records(table: Table, records: Records, version: int, *, drop: Container[str] = ()) -> bytes:
    """The same from fields, those that are missing at their defaults. Raises StateError."""
    if not table.minimum_version <= version <= table.version:
        raise StateError(f"version {table.minimum_version} to {table.version} of `{table.name}`", f"version {version}")
    return b"".join(_write_struct(table, records, version, drop))


def _write_struct(table: Table, records: Records, version: int, drop: Container[str]) -> Iterator[bytes]:
    given = {field.name: record for record in records if (field := table.by_name.get(record.name))}
    given |= {
        field.name: _record(field, field.make_default())
        for field in table.fields
        if field.name not in given and not field.is_required
    }
    written: set[str] = set()
    values: dict[str, Any] = {}
    for field in _fields(table, version):
        if field.untagged.when and not field.untagged.when(values):
            continue
        if field.name not in given:
            raise StateError(f"`{field.type.describe()}`", "nothing", path=(field.name,))
        try:
            yield from _write_field(field, given[field.name], values, drop)
        except StateError as error:
            error.under(field.name)
            raise
        values[field.name] = given[field.name].value
        written.add(field.name)
    for field in table.fields:
        record = given.get(field.name)
        if record is None or field.name in written:
            continue
        if field.untagged.subsection and field.is_in(version):
            yield from _write_subsection(field, record, drop)
        elif not record.is_default and record.value != _record(field, field.make_default()).value and field.name not in drop:
            expected = f"`{field.name}` at its default: version {version} of `{table.name}` has no place for it"
            raise StateError(expected, "it in use", path=(field.name,))


def _write_subsection(field: Field, record: Record, drop: Container[str]) -> Iterator[bytes]:
    if record.value is None or (record.is_default and not field.type.is_optional):
        return
    table = cast("Table", field.table)
    name = field.name.encode()
    yield bytes((SUBSECTION, len(name))) + name + struct.pack(">I", table.version)
    yield from _write_struct(table, cast("Records", record.value), table.version, drop)


def _write_field(field: Field, record: Record, values: Mapping[str, Any], drop: Container[str]) -> Iterator[bytes]:
    kind = field.type
    value: Any = record.value
    if kind.capacity is not None and not field.untagged.linked:
        count = values.get(field.untagged.counted_by or "")
        if count != record.length:
            raise StateError(f"as many as `{field.untagged.counted_by}` says ({count})", f"{record.length} elements")
    if field.table is not None:
        yield from _write_structs(field, value if kind.is_array else (value,), drop)
    elif isinstance(kind.wire, BlockType):
        yield to_big_endian(kind.wire, value, record.length)
    elif kind.wire.name == "bitmap":
        yield word_swapped(value.ljust(-(-(record.length or 0) // WORD) * 8, b"\0"))
    elif kind.wire.name == "buffer":
        yield value
    else:
        raise TableError("a type that QEMU writes untagged (no string, no sparse memory)", f"`{kind.describe()}`")


def _write_structs(field: Field, elements: Sequence[Any], drop: Container[str]) -> Iterator[bytes]:
    table = cast("Table", field.table)
    nulls = [False] * len(elements) if field.untagged.linked else _nulls(field, len(elements))
    for index, (element, is_null) in enumerate(zip(elements, nulls, strict=True)):
        if (element is None) != is_null:
            raise StateError("nulls where the default has them", f"element {index} {'null' if element is None else 'not null'}")
        if is_null:
            yield bytes((NULL,))
            continue
        if field.untagged.linked:
            yield b"\1"
        try:
            yield from _write_struct(table, element, table.version, drop)
        except StateError as error:
            if field.type.is_array:
                error.under(index)
            raise
    if field.untagged.linked:
        yield b"\0"


class Interpreted:
    """Imported sections, of which a table reads what nothing in the stream describes.

    Args:
        sections: What was imported.
        entries: The devices whose tables are known.
        notes: What the import said; complete after iterating. What a table reads is struck out, and what it read of
            fields that the table's own version lacks is added.

    Raises:
        FormatError: While iterating: a section does not fit its table.
    """

    def __init__(self, sections: Sections, entries: Iterable[Entry], notes: list[str]) -> None:
        self.raw_attributes = sections.raw_attributes
        self._sections = sections
        self._notes = notes
        self._tables = {
            label(name, entry.instance): entry.table for entry in entries for name in (entry.table.name, *entry.table.aliases)
        }

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            raw, table = untagged(section), self._tables.get(section.label)
            yield section if raw is None or table is None else self._read(section, table, *raw)

    def _read(self, section: Section, table: Table, version: int, data: bytes, offset: int) -> Section:
        records = read_section(section.label, table, data, version, offset)
        note = nowhere(section.label, len(data))
        if note in self._notes:
            self._notes.remove(note)
        for record in records:
            if not table.by_name[record.name].is_in(table.version):
                gone = f"version {table.version} has no place for it"
                self._notes.append(f"{section.label} {record.name}: read from version {version}; {gone}")
        attributes = dict(section.attributes)
        attributes["qemu"] = {key: value for key, value in attributes["qemu"].items() if key != "described"}
        return Section(section.device, section.instance, records, kind=section.kind, attributes=attributes)


def read_section(section: str, table: Table, data: bytes, version: int, offset: int) -> Records:
    """The fields of a section, its name in every error. Raises FormatError as `read` does."""
    try:
        return read(table, data, version, base=offset)
    except FormatError as error:
        error.section = section
        raise
