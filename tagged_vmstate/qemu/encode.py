"""The bytes of a device, from its fields and QEMU's description of them: the way back of `DeviceReader`.

Fields are found by name; each must fill just the bytes that the description gives it, since nothing in the bytes
would tell a reader that they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from tagged_vmstate.blocks import BlockType, to_big_endian, word_swapped
from tagged_vmstate.errors import StateError
from tagged_vmstate.qemu.vmdesc import KEPT, NULL, Field, Slot, Struct, number_type, subsection_head
from tagged_vmstate.records import Record, Records, bytes_of, wire_type
from tagged_vmstate.text import counted
from tagged_vmstate.wire import Opaque
from tagged_vmstate.wiretype import brief


def encode_device(struct: Struct | None, records: Records, size: int | None = None) -> bytes:
    """The bytes of a device.

    Args:
        struct: What QEMU says about them; None where nothing is said: then all of them are one buffer.
        records: The fields.
        size: How many bytes there were, where arrays in it have other sizes than described (`DeviceReader.is_described`).

    Raises:
        StateError: A field is missing, or none that the description has, or of another type or size.
    """
    found = b"".join(_struct(struct or Struct("", 0, (), ()), records, is_exact=size is None))
    return found if size is None else _sized(found, size)


def _struct(struct: Struct, records: Records, *, is_exact: bool) -> Iterator[bytes]:
    left = {record.name: record for record in records}
    kept = left.pop(records[-1].name) if records and is_kept(records[-1]) else None
    for slot in struct.slots:
        record = left.pop(slot.name, None)
        if record is None and kept:
            break  # from here on QEMU's bytes were not as it described them
        if record is None:
            raise StateError("the field, as QEMU describes this device", "none", path=(slot.name,))
        try:
            yield _slot(slot, record, is_exact=is_exact)
        except StateError as error:
            error.under(slot.name)
            raise
    if left:
        raise StateError("only fields that QEMU describes", "one more", path=(next(iter(left)),))
    if kept:
        yield _bytes(kept)


def is_kept(record: Record) -> bool:
    """Whether it holds bytes that nothing describes."""
    return record.name.startswith(KEPT) and record.type == "buffer"


def _slot(slot: Slot, record: Record, *, is_exact: bool) -> bytes:
    if slot.subsection:
        if not isinstance(record.value, tuple) or record.length is not None:
            raise StateError("`struct`", f"`{record.describe()}`")
        found = b"".join(_struct(slot.subsection, cast("Records", record.value), is_exact=is_exact))
        head = subsection_head(slot.subsection.name, slot.subsection.version)
        return head + (_sized(found, slot.size) if is_exact else found)
    opaques = record.value.elements() if isinstance(record.value, Opaque) else None
    if record.type == "struct":
        found = b"".join(_structs(slot, record, is_exact=is_exact))
    elif opaques is not None:
        found = b"".join(_opaques(slot, record, opaques))
    else:
        found = plain(slot.entries[0], record)
    return _sized(found, slot.size) if is_exact or all(field.count == 1 for field in slot.entries) else found


def _structs(slot: Slot, record: Record, *, is_exact: bool) -> Iterator[bytes]:
    if (record.length is not None) != slot.is_array:
        raise StateError("`struct[]`" if slot.is_array else "`struct`", f"`{record.describe()}`")
    elements = cast("Sequence[Records | None]", record.value if slot.is_array else (record.value,))
    if len(elements) != slot.count:
        raise StateError(f"{slot.count} elements", str(len(elements)))
    for index, (field, element) in enumerate(zip(slot.elements(), elements, strict=True)):
        try:
            data = _element(field, element, is_exact=is_exact)
            yield data if field.count > 1 and not is_exact else _sized(data, field.size)
        except StateError as error:
            if slot.is_array:
                error.under(index)
            raise


def _opaques(slot: Slot, record: Record, elements: Sequence[Opaque]) -> Iterator[bytes]:
    """The elements of an array that only QEMU can read."""
    if len(elements) != slot.count:
        raise StateError(f"{slot.count} elements", str(len(elements)))
    for index, (field, element) in enumerate(zip(slot.elements(), elements, strict=True)):
        try:
            yield _sized(_bytes(record.replace(length=field.size, value=element)), field.size)
        except StateError as error:
            error.under(index)
            raise


def _element(field: Field, element: Records | None, *, is_exact: bool) -> bytes:
    if element is None:
        return NULL
    if field.struct:
        return b"".join(_struct(field.struct, element, is_exact=is_exact))
    if len(element) != 1:
        raise StateError("one value, as QEMU describes it", f"{len(element)} fields")
    return plain(field, element[0])


def plain(field: Field, record: Record) -> bytes:
    """Anything but structs."""
    kind = wire_type(record.type)
    if not isinstance(kind, BlockType):
        return _bytes(record)
    described = number_type(field)
    if described is None or described.name == kind.name:
        return to_big_endian(kind, record.value, record.length)
    values = [record.value] if record.length is None else list(cast("Sequence[Any]", record.value))
    try:
        return to_big_endian(described, values, len(values))
    except StateError:
        raise StateError(f"what fits QEMU's `{field.type}`", f"`{record.describe()}` {brief(values)}") from None


def _bytes(record: Record) -> bytes:
    value = bytes_of(record)
    if value is None:
        raise StateError("bytes, as only QEMU can read them", f"`{record.describe()}`")
    if record.type == "bitmap":
        return word_swapped(value.ljust(-(-len(value) // 8) * 8, b"\0"))
    return value


def _sized(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise StateError(f"{counted(size, 'byte')}, as QEMU describes it", str(len(data)))
    return data
