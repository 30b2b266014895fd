"""The description at the end of a QEMU stream (vmdesc JSON).

For each device it lists the fields in their order: name, type, size, and for arrays ``array_len`` (one entry
for all) or ``index`` (an entry for each element; since QEMU 10 the last one without). So successive entries of
one name are one array. Under a struct lie its fields, and after those its subsections. QEMU writes it in
migration/vmstate.c. A few types are no more than a size, because QEMU writes them with code of its own: their
bytes are kept under QEMU's type name. `decode` reads the bytes of a device by it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, repeat
from typing import Any, Final

from tagged_vmstate.blocks import BlockType
from tagged_vmstate.frames import label
from tagged_vmstate.qemu.ram import pack_name
from tagged_vmstate.qemu.stream import SUBSECTION
from tagged_vmstate.records import NAME_BYTES, Record, Records
from tagged_vmstate.types import LEAF_TYPES
from tagged_vmstate.wire import NESTING, Json
from tagged_vmstate.wiretype import brief, is_text

NULL: Final = b"0"
"""A null in an array of pointers: VMS_NULLPTR_MARKER of QEMU's include/migration/vmstate.h."""
NULL_TYPE: Final = "nullptr"
"""Its type since QEMU 10."""
KEPT: Final = "bytes@"
"""What a buffer of bytes that nothing describes is called, before their place in the section."""
UNUSED: Final = "unused_buffer"
"""QEMU's type of bytes that it writes as zeros and never reads (VMSTATE_UNUSED)."""
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


@dataclass(frozen=True)
class Struct:
    """A device, a struct or a subsection: fields, then subsections."""

    name: str
    version: int
    fields: tuple[Field, ...]
    subsections: tuple[Struct, ...]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The records of one that was read as it is described, in their order."""
        names = Siblings()
        fields = groupby(self.fields, lambda field: field.name)
        found = [Slot(names.name(name), tuple(group)) for name, group in fields]
        return (*found, *(Slot(names.name(each.name), (), each) for each in self.subsections))

    @cached_property
    def size(self) -> int:
        """Bytes that it describes."""
        return sum(slot.extent for slot in self.slots)

    @cached_property
    def arrays(self) -> tuple[Field, ...]:
        """Entries for whole arrays, those of subsections included: nothing else can have another size than described."""
        own = tuple(field for field in self.fields if field.count > 1 and field.type != NULL_TYPE)
        return own + tuple(field for each in self.subsections for field in each.arrays)

    @cached_property
    def may_grow(self) -> bool:
        """Whether an array begins with a null pointer, which says nothing of the others."""
        return any(is_null(field, NULL) for field in self.arrays)

    @cached_property
    def records(self) -> int:
        """Records that it is read as, those inside included; an element of an array of structs counts as one."""
        return sum(slot.records for slot in self.slots)

    @cached_property
    def repeated(self) -> int:
        """Those of them that it does not spell out: an entry for an array stands for all of its elements."""
        return sum(slot.repeated for slot in self.slots)


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
        found = _loaded(data)
        page_size = found.get("page_size")
        if page_size is not None and (not isinstance(page_size, int) or page_size < 1 or page_size & (page_size - 1)):
            raise ValueError(f"a page size of {brief(page_size)}")
        return Description(page_size, tuple(map(_parse_device, found["devices"])))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a description of another shape ({error})") from None
    except RecursionError:
        raise ValueError("a description nested too deep") from None


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8: the byte 0x{data[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON from byte {error.pos} on") from None
    except ValueError:  # what Python does not convert, as that would take long
        raise ValueError(f"an integer of more than {sys.get_int_max_str_digits()} digits") from None


def structs_by_section(devices: Iterable[Device]) -> dict[str, list[Struct]]:
    """``idstr#instance`` -> what describes each section of that name, the first one last: to be popped in their order."""
    found: dict[str, list[Struct]] = {}
    for device in devices:
        found.setdefault(label(device.name, device.instance), []).append(device.struct)
    for structs in found.values():
        structs.reverse()
    return found


def _parse_device(found: Json) -> Device:
    return Device(_text(found["name"]), _count(found["instance_id"]), _parse_struct(found, NESTING - 1))


def _parse_struct(found: Json, nesting: int) -> Struct:
    if not nesting:
        raise ValueError("a description nested too deep")
    return Struct(
        _text(found.get("vmsd_name", "")),
        _count(found.get("version", 0)),
        tuple(_parse_field(each, nesting) for each in found.get("fields", ())),
        tuple(_parse_subsection(each, nesting - 1) for each in found.get("subsections", ())),
    )


def _parse_subsection(found: Json, nesting: int) -> Struct:
    if "vmsd_name" not in found:  # it is what a stream finds it by
        raise KeyError("vmsd_name")
    return _parse_struct(found, nesting)


def _parse_field(found: Json, nesting: int) -> Field:
    kind = _text(found["type"])
    inside = found.get("struct", found if kind in _INLINE and "fields" in found else None)
    return Field(
        _text(found["name"]),
        kind,
        _count(found["size"]),
        _count(found.get("array_len", 1)),
        "array_len" in found or "index" in found,
        None if inside is None else _parse_struct(inside, nesting - 1),
    )


def _text(value: Json) -> str:
    if not isinstance(value, str) or not is_text(value):
        raise TypeError(f"{brief(value)} where a name should be")
    return value


def _count(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise TypeError(f"{brief(value)} where a number should be")
    return value


class Siblings:
    """Records whose names QEMU need not have kept apart."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}

    def name(self, wanted: str) -> str:
        """The name of the next one: what QEMU calls it, or one that is free."""
        name = wanted if 0 < len(wanted.encode()) <= NAME_BYTES else f"field@{len(self._names)}"
        if name in self._names:
            name = self._free(name)
        self._names.add(name)
        return name

    def _free(self, stem: str) -> str:
        """A name with a number, counted on from the last one of this stem."""
        number = self._numbers.get(stem, 2)
        while (name := f"{stem}#{number}") in self._names:
            number += 1
        self._numbers[stem] = number + 1
        return name if len(name.encode()) <= NAME_BYTES else self.name("")

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
class Layout:
    """What lies where in the bytes of a struct.

    Attributes:
        size: How many bytes that are.
        slots: Its records, in their order, as far as their places are certain.
        unclear: The first record whose place or size is not.
        notes: What is kept as bytes for that, a sentence each.
        is_described: It is as QEMU describes it.
    """

    size: int
    slots: tuple[Slot, ...]
    unclear: Slot | None = None
    notes: tuple[str, ...] = ()
    is_described: bool = True


@dataclass(frozen=True)
class Slot:
    """What one record of a struct stands for.

    Attributes:
        name: The name of the record.
        entries: The entries of the description, all of an array; none for a subsection.
        subsection: The subsection.
        layout: What lies where in the subsection, where it is not as described.
    """

    name: str
    entries: tuple[Field, ...]
    subsection: Struct | None = None
    layout: Layout | None = None

    @cached_property
    def size(self) -> int:
        """Bytes of the fields; of a subsection without its head."""
        if self.layout:
            return self.layout.size
        return self.subsection.size if self.subsection else sum(field.size * field.count for field in self.entries)

    @property
    def extent(self) -> int:
        """The same, and the head of a subsection."""
        return self.size + (6 + len(self.subsection.name.encode()) if self.subsection else 0)

    @cached_property
    def count(self) -> int:
        """Elements of an array."""
        return sum(field.count for field in self.entries)

    @cached_property
    def is_array(self) -> bool:
        """Whether it is an array."""
        return len(self.entries) > 1 or any(field.is_array for field in self.entries)

    @cached_property
    def has_structs(self) -> bool:
        """Whether an array is one of structs or pointers."""
        return any(field.struct or is_null(field, NULL) for field in self.entries)

    @cached_property
    def number(self) -> BlockType | None:
        """The wire type of all elements of an array, where they are numbers of one type."""
        kinds = {(field.type, number_type(field)) for field in self.entries}
        return next(iter(kinds))[1] if len(kinds) == 1 else None

    @cached_property
    def type(self) -> str:
        """What QEMU calls the type of all elements of an array; `buffer` where they differ."""
        types = {field.type for field in self.entries}
        return types.pop() if len(types) == 1 else "buffer"

    @cached_property
    def records(self) -> int:
        """As `Struct.records`."""
        if not self.is_array:
            return 1 + (self.struct.records if self.struct else 0)
        return 1 + (sum(field.count * _records_of_element(field) for field in self.entries) if self.has_structs else 0)

    @cached_property
    def repeated(self) -> int:
        """As `Struct.repeated`."""
        if not self.is_array:
            return self.struct.repeated if self.struct else 0
        if not self.has_structs:
            return 0
        described = {id(field.struct or field): field for field in self.entries if field.count}.values()
        own = sum(field.count * _records_of_element(field) for field in self.entries)
        own -= sum(map(_records_of_element, described))
        return own + sum(field.struct.repeated for field in described if field.struct)

    @property
    def struct(self) -> Struct | None:
        """What lies inside, of one that is no array."""
        return self.subsection or self.entries[0].struct

    def elements(self) -> Iterator[Field]:
        """The entry of each element."""
        for field in self.entries:
            yield from repeat(field, field.count)


def _records_of_element(field: Field) -> int:
    return 1 + (field.struct.records if field.struct else 1)


def is_null(field: Field, data: bytes) -> bool:
    """Whether an entry is a null pointer: QEMU before 10 gives one the type of what it could point to."""
    if field.size != 1 or data != NULL:
        return False
    number = _number(field)
    return (
        field.type == NULL_TYPE
        or (field.struct is not None and not field.struct.fields)
        or (number is not None and number.width > 1)
    )


_NUMBERS: Final = {name: kind for name, kind in LEAF_TYPES.items() if isinstance(kind, BlockType)}


def _number(field: Field) -> BlockType | None:
    """The wire type of a number of QEMU's type.

    What a loader compares it with stands in QEMU's name of the type: "equal", or "le", which means at most what it has
    itself (vmstate_info_int32_le in QEMU's migration/vmstate-types.c), not little-endian.
    """
    return None if field.struct else _NUMBERS.get(field.type.removesuffix(" equal").removesuffix(" le"))


def number_type(field: Field) -> BlockType | None:
    """The wire type of an entry that is a number of some kind."""
    kind = _number(field)
    return kind if kind and kind.width == field.size else None


def pointed_width(field: Field) -> int | None:
    """How many bytes an element has that is no null pointer, in an array described by its first element; None if unknown."""
    number = _number(field)
    return number.width if number else None if is_null(field, NULL) else field.size
