"""The fields of a device, from its bytes and QEMU's description of them.

A description is not trusted: what does not fit the bytes is noted and the bytes are kept as a buffer.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Final, cast

from tagged_vmstate.blocks import BlockType, from_big_endian, word_swapped
from tagged_vmstate.errors import StateError
from tagged_vmstate.qemu.pointers import laid_out
from tagged_vmstate.qemu.vmdesc import KEPT, Field, Layout, Slot, Struct, is_null, number_type, subsection_head
from tagged_vmstate.records import NAME_BYTES, Record, Records, is_known_type
from tagged_vmstate.wire import Opaque, pack_bin

NOTES: Final = 32
"""Notes on one section at most; more are counted."""


def _most_repeated(size: int) -> int:
    """Fields that array elements may add to those that a description spells out, in a section of `size` bytes.

    An entry for a whole array takes a line however many elements it has, and fields of no bytes take none. So the bytes
    bound what is made of them: two fields a byte, which an array of one-byte structs needs, and in big sections one field
    for two bytes, so that memory stays a multiple of the stream.
    """
    return min(2 * size + 256, size // 2 + (1 << 15))


class _MisfitError(Exception):
    """The bytes are not as described."""


class DeviceReader:
    """Reads the bytes of one device.

    Attributes:
        notes: What could not be interpreted, a sentence each, at most `NOTES` and one that counts the others.
        is_described: Arrays have the sizes that QEMU describes: its description alone leads from the fields to the bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.notes: list[str] = []
        self.is_described = True
        self._more_notes = 0
        self._left = _most_repeated(len(data))

    def read(self, struct: Struct | None) -> Records:
        """All of its bytes as records; without a description, one buffer."""
        if struct is None:
            return (self._buffer(f"{KEPT}0", 0, len(self._data)),)
        records = self._read_struct(struct, 0, len(self._data))
        if self._more_notes:
            self.notes.append(f"{self._more_notes} more that could not be read as described; kept as bytes")
        return records

    def _note(self, sentence: str) -> None:
        if len(self.notes) < NOTES:
            self.notes.append(sentence)
        else:
            self._more_notes += 1

    def _read_struct(self, struct: Struct, start: int, end: int, layout: Layout | None = None) -> Records:
        """The fields and subsections in a stretch of the bytes; what they leave over is a buffer."""
        layout = layout or laid_out(struct, self._data, start, end)
        self.is_described = self.is_described and layout.is_described
        for note in layout.notes:
            self._note(note)
        found: list[Record] = []
        at = start
        try:
            for slot in layout.slots:
                if slot.subsection:
                    head = self._head(slot.subsection)
                    if not self._data.startswith(head, at, end) or len(head) + slot.size > end - at:
                        raise _MisfitError(f"the subsection `{slot.subsection.name}` is not where it should be")
                    inside = at + len(head)
                    at = inside + slot.size
                    found.append(Record(slot.name, "struct", None, self._read_struct(slot.subsection, inside, at, slot.layout)))
                    continue
                if slot.size > end - at:
                    raise _MisfitError(f"`{slot.entries[0].name}` should have {slot.size} bytes, {end - at} are left")
                found.append(self._read_field(slot, at))
                at += slot.size
            if layout.unclear:
                raise _MisfitError(f"`{layout.unclear.name}` does not have the size that QEMU describes")
        except _MisfitError as error:
            self._note(f"{error}; kept as bytes from there")
        else:
            if at == end:
                return tuple(found)
            self._note(f"{end - at} bytes at {at} are not described; kept as bytes")
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
            self._note(f"`{slot.name}`: {error}; kept as bytes")
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
        if slot.has_structs:
            elements = self._elements(slot, at)
            return Record(slot.name, "struct", len(elements), elements)
        if slot.number:
            return Record(slot.name, slot.number.name, slot.count, self._numbers(slot.number, slot.entries[0], at, slot.count))
        found = self._opaque(slot.name, slot.type, at, slot.size)
        if not isinstance(found.value, Opaque) or slot.count > slot.size:
            return found
        ends = accumulate((field.size for field in slot.elements()), initial=at)
        value = Opaque.array(Opaque(pack_bin(self._data[start:end])) for start, end in pairwise(ends))
        return found.replace(length=slot.count, value=value)

    def _elements(self, slot: Slot, at: int) -> tuple[Records | None, ...]:
        """Structs, and null pointers among them. A pointer to a plain value is a struct of one field."""
        if slot.count > max(slot.size, 1):
            raise _MisfitError(f"more elements than its {slot.size} bytes")
        left = self._left - slot.repeated
        if left < 0:
            raise _MisfitError(f"{slot.records} fields from {slot.size} bytes")
        self._left = slot.repeated  # arrays inside are among them
        elements = []
        for field in slot.elements():
            value = self._read_one("value", field, at)
            elements.append(cast("Records | None", value.value) if value.type == "struct" else (value,))
            at += field.size
        self._left = left
        return tuple(elements)

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
