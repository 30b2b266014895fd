"""The description at the end of a QEMU stream (vmdesc JSON), and device bytes read by it.

For each device it lists the fields in their order: name, type, size, and for arrays ``array_len`` (one entry
for all) or ``index`` (an entry for each element; since QEMU 10 the last one without). So successive entries of
one name are one array. Under a struct lie its fields, and behind those its subsections. QEMU writes it in
migration/vmstate.c. A few types are no more than a size, because QEMU writes them with code of its own: their
bytes are kept under QEMU's type name.

A description is not trusted: what does not fit the bytes is noted and the bytes are kept as a buffer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Final

from tagged_vmstate.blocks import BlockType, from_big_endian, word_swapped
from tagged_vmstate.errors import StateError
from tagged_vmstate.qemu.ram import pack_name
from tagged_vmstate.qemu.stream import SUBSECTION
from tagged_vmstate.records import NAME_BYTES, Record, Records, is_known_type
from tagged_vmstate.types import LEAF_TYPES
from tagged_vmstate.wire import NESTING, Json, Opaque, pack_bin
from tagged_vmstate.wiretype import is_text

NULL: Final = b"0"
"""A null in an array of pointers: VMS_NULLPTR_MARKER of QEMU's include/migration/vmstate.h."""
KEPT: Final = "bytes@"
"""What a buffer of bytes that nothing describes is called, before the place where they stood."""
_INLINE: Final = frozenset({"vstruct", "tmp"})
"""Types whose fields lie in the entry itself; of others that look so (qtailq) only the size is to be believed."""


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a description.

    Attributes:
        name: QEMU's name.
        type: QEMU's name of the type.
        size: Bytes of one element.
        count: How many elements the entry stands for.
        is_array: It says that it belongs to an array.
        struct: What lies inside, or None.
    """

    name: str
    type: str
    size: int
    count: int
    is_array: bool
    struct: Struct | None


@dataclass(frozen=True, slots=True)
class Struct:
    """A device, a struct or a subsection: fields, then subsections."""

    name: str
    version: int
    fields: tuple[Field, ...]
    subsections: tuple[Struct, ...]

    @property
    def size(self) -> int:
        """Bytes that it describes."""
        own = sum(field.size * field.count for field in self.fields)
        return own + sum(6 + len(each.name.encode()) + each.size for each in self.subsections)


@dataclass(frozen=True, slots=True)
class Device:
    """The description of one section."""

    name: str
    instance: int
    struct: Struct


@dataclass(frozen=True, slots=True)
class Description:
    """All of it.

    Attributes:
        page_size: Bytes of a page of the guest; None where it does not say.
        devices: Its devices in the order of their sections.
    """

    page_size: int | None
    devices: tuple[Device, ...]


def parse(data: bytes) -> Description:
    """Parse the JSON. Raises ValueError, with a sentence, where it is no description."""
    try:
        found = json.loads(data)
        page_size = found.get("page_size")
        if page_size is not None and (
            not isinstance(page_size, int) or page_size & (page_size - 1) or not 256 <= page_size <= 1 << 30
        ):
            raise ValueError(f"a page size of {page_size!r}")
        return Description(page_size, tuple(map(_parse_device, found["devices"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a description of another shape ({error})") from None
    except RecursionError:
        raise ValueError("a description nested too deep") from None


def _parse_device(found: Json) -> Device:
    return Device(_text(found["name"]), _number(found["instance_id"]), _parse_struct(found, NESTING - 1))


def _parse_struct(found: Json, nesting: int) -> Struct:
    if not nesting:
        raise ValueError("a description nested too deep")
    return Struct(
        _text(found.get("vmsd_name", "")),
        _number(found.get("version", 0)),
        tuple(_parse_field(each, nesting) for each in found.get("fields", ())),
        tuple(_parse_struct(each, nesting - 1) for each in found.get("subsections", ())),
    )


def _parse_field(found: Json, nesting: int) -> Field:
    kind = _text(found["type"])
    inside = found.get("struct", found if kind in _INLINE and "fields" in found else None)
    return Field(
        _text(found["name"]),
        kind,
        _number(found["size"]),
        _number(found.get("array_len", 1)),
        "array_len" in found or "index" in found,
        None if inside is None else _parse_struct(inside, nesting - 1),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str) or not is_text(value):
        raise TypeError(f"{value!r} where a name should be")
    return value


def _number(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise TypeError(f"{value!r} where a number should be")
    return value


class _MisfitError(Exception):
    """The bytes are not as described."""


class DeviceReader:
    """Reads the bytes of one device.

    Attributes:
        notes: What could not be interpreted, a sentence each.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.notes: list[str] = []

    def read(self, struct: Struct | None) -> Records:
        """All of its bytes as records; without a description, one buffer."""
        if struct is None:
            return (self._buffer(f"{KEPT}0", 0, len(self._data)),)
        return self._read_struct(struct, 0, len(self._data))

    def _read_struct(self, struct: Struct, start: int, end: int) -> Records:
        """The fields and subsections in a stretch of the bytes; what they leave over is a buffer."""
        found: list[Record] = []
        at = start
        try:
            for slot in slots(struct):
                if slot.subsection:
                    head = self._head(slot.subsection)
                    if not self._data.startswith(head, at, end) or len(head) + slot.size > end - at:
                        raise _MisfitError(f"the subsection `{slot.subsection.name}` is not where it should be")
                    inside = at + len(head)
                    at = inside + slot.size
                    found.append(Record(slot.name, "struct", None, self._read_struct(slot.subsection, inside, at)))
                    continue
                if slot.size > end - at:
                    raise _MisfitError(f"`{slot.entries[0].name}` should have {slot.size} bytes, {end - at} are left")
                found.append(self._read_field(slot, at))
                at += slot.size
        except _MisfitError as error:
            self.notes.append(f"{error}; kept as bytes from there")
        else:
            if at == end:
                return tuple(found)
            self.notes.append(f"{end - at} bytes at {at} are not described; kept as bytes")
        found.append(self._buffer(f"{KEPT}{at}", at, end))
        return tuple(found)

    @staticmethod
    def _head(struct: Struct) -> bytes:
        try:
            return subsection_head(struct.name, struct.version)
        except (StateError, OverflowError):
            raise _MisfitError("a subsection whose name or version no stream can hold") from None

    def _read_field(self, slot: Slot, at: int) -> Record:
        """A single value, or all entries of one name as an array."""
        try:
            if slot.is_array:
                return self._read_array(slot, at)
            return self._read_one(slot.name, slot.entries[0], at)
        except _MisfitError as error:
            self.notes.append(f"`{slot.name}`: {error}; kept as bytes")
            return self._buffer(slot.name, at, at + slot.size)

    def _read_one(self, name: str, field: Field, at: int) -> Record:
        if is_null(field, self._data[at : at + 1]):
            return Record(name, "struct", None, None)
        if field.struct:
            return Record(name, "struct", None, self._read_struct(field.struct, at, at + field.size))
        number = number_type(field)
        if number is None:
            return self._opaque(name, field.type, at, field.size)
        return Record(name, number.name, None, self._numbers(number, field, at, 1)[0])

    def _read_array(self, slot: Slot, at: int) -> Record:
        name, entries, size = slot.name, slot.entries, slot.size
        first = entries[0]
        number = number_type(first)
        if any(field.struct or is_null(field, NULL) for field in entries):
            elements = tuple(self._elements(slot, at))
            return Record(name, "struct", len(elements), elements)
        if number and all(number_type(field) is number and field.type == first.type for field in entries):
            count = sum(field.count for field in entries)
            return Record(name, number.name, count, self._numbers(number, first, at, count))
        return self._opaque(name, first.type if len({field.type for field in entries}) == 1 else "buffer", at, size)

    def _elements(self, slot: Slot, at: int) -> Iterator[Records | None]:
        """Structs, and null pointers among them. A pointer to a plain value is a struct of one field."""
        if sum(field.count for field in slot.entries) > max(slot.size, 1):
            raise _MisfitError(f"more elements than its {slot.size} bytes")
        for field in slot.elements():
            value = self._read_one("value", field, at)
            yield value.value if value.type == "struct" else (value,)  # type: ignore[misc]  # a struct's records
            at += field.size

    def _numbers(self, kind: BlockType, field: Field, at: int, count: int) -> memoryview:
        data = self._data[at : at + field.size * count]
        if kind.name == "bool" and data.strip(b"\x00\x01"):
            raise _MisfitError("a bool of neither 0 nor 1")
        return from_big_endian(kind, data)

    def _opaque(self, name: str, kind: str, at: int, size: int) -> Record:
        data = self._data[at : at + size]
        if kind == "bitmap" and size % 8 == 0:
            return Record(name, "bitmap", 8 * size, word_swapped(data))
        if is_known_type(kind) or not 0 < len(kind.encode()) <= NAME_BYTES:
            return self._buffer(name, at, at + size)
        return Record(name, kind, size, Opaque(pack_bin(data)))

    def _buffer(self, name: str, start: int, end: int) -> Record:
        return Record(name, "buffer", end - start, self._data[start:end])


class Siblings:
    """Records whose names QEMU need not have kept apart."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._names: dict[str, None] = {}

    def name(self, wanted: str) -> str:
        """The name of the next one: what QEMU calls it, or one that is free."""
        name = stem = wanted if 0 < len(wanted.encode()) <= NAME_BYTES else f"field@{len(self._names)}"
        number = 2
        while name in self._names:
            name = f"{stem}#{number}"
            number += 1
        self._names[name] = None
        return name

    def add(self, record: Record) -> None:
        """One more."""
        name = self.name(record.name)
        self._records.append(record if name == record.name else record.replace(name=name))

    def records(self) -> Records:
        """All of them."""
        return tuple(self._records)


def subsection_head(name: str, version: int) -> bytes:
    """What stands before the fields of a subsection. Raises StateError where the name is too long."""
    return bytes((SUBSECTION,)) + pack_name(name) + version.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Slot:
    """What one record of a struct stands for.

    Attributes:
        name: The name of the record.
        entries: The entries of the description, all of an array; none for a subsection.
        subsection: The subsection.
    """

    name: str
    entries: tuple[Field, ...]
    subsection: Struct | None = None

    @property
    def size(self) -> int:
        """Bytes of the fields; of a subsection without its head."""
        return self.subsection.size if self.subsection else sum(field.size * field.count for field in self.entries)

    @property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return len(self.entries) > 1 or any(field.is_array for field in self.entries)

    @property
    def struct(self) -> Struct | None:
        """What lies inside, of one that is no array."""
        return self.subsection or self.entries[0].struct

    def elements(self) -> Iterator[Field]:
        """The entry of each element."""
        for field in self.entries:
            yield from repeat(field, field.count)


def slots(struct: Struct) -> Iterator[Slot]:
    """The records of a struct that was read as it is described, in their order."""
    names = Siblings()
    for name, group in groupby(struct.fields, lambda field: field.name):
        yield Slot(names.name(name), tuple(group))
    for each in struct.subsections:
        yield Slot(names.name(each.name), (), each)


def is_null(field: Field, data: bytes) -> bool:
    """Whether an entry is a null pointer: QEMU 7.2 describes one as a struct without fields."""
    if field.size != 1 or data != NULL:
        return False
    return field.type == "nullptr" or (field.struct is not None and not field.struct.fields)


_NUMBERS: Final = {name: kind for name, kind in LEAF_TYPES.items() if isinstance(kind, BlockType)}


def number_type(field: Field) -> BlockType | None:
    """The wire type of an entry that is a number of some kind.

    What a loader compares it with stands in QEMU's name of the type: "equal", or "le", which means at most what it has
    itself (vmstate_info_int32_le in QEMU's migration/vmstate-types.c), not little-endian.
    """
    kind = _NUMBERS.get(field.type.removesuffix(" equal").removesuffix(" le"))
    return kind if kind and kind.width == field.size and field.struct is None else None
