"""All wire types but `struct` by name, and those that are no numbers: buffer, bitmap, string, sparse, unknown ones.

Format, section "field": the list of types there is the list here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from typing_extensions import override

from tagged_vmstate.blocks import BoolType, FloatType, IntType, taken
from tagged_vmstate.errors import StateError, VMStateError
from tagged_vmstate.text import integer
from tagged_vmstate.wire import Cursor, Json, Opaque, Piece, pack_array_head, pack_bin_head, pack_str, pack_uint
from tagged_vmstate.wiretype import BulkType, WireType, brief, indexed

Runs: TypeAlias = tuple[tuple[int, bytes], ...]
"""The value of a `sparse` field: (offset, bytes), ascending."""


def to_hex(data: bytes) -> str:
    """Bytes as JSON holds them: hex, a blank between two."""
    return data.hex(" ")


def from_hex(text: Json) -> bytes:
    """Bytes from hex with any blanks. Raises StateError for anything else."""
    if not isinstance(text, str):
        raise StateError("bytes as a string of hex digits", brief(text))
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise StateError("bytes as a string of hex digits", brief(text)) from None


class BufferType(BulkType):
    """``buffer``: `length` bytes."""

    name = "buffer"
    counted: str | None = "bytes"
    arrays = False

    def size(self, length: int | None) -> int:
        """How many bytes a value of a length takes."""
        return length or 0

    @override
    def pieces(self, value: object, length: int | None) -> tuple[Piece, ...]:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise self._wrong(value, length)
        try:
            data = taken(value)
        except TypeError as error:
            raise self._wrong(value, length, f" ({error})") from None
        if len(data) != self.size(length):
            raise StateError(f"`{self.describe(length)}`", f"{len(data)} bytes")
        return pack_bin_head(len(data)), data

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> bytes:
        start = cursor.pos
        data = cursor.read_bin(f"`{self.describe(length)}`")
        if len(data) != self.size(length):
            raise cursor.error(f"{self.size(length)} bytes for `{self.describe(length)}`", str(len(data)), start)
        return data

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        return to_hex(bytes(value))

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        return from_hex(value)


class BitmapType(BufferType):
    """``bitmap``: `length` bits, bit i is bit i%8 of byte i//8, spare bits 0."""

    name = "bitmap"
    counted = "bits"

    @override
    def size(self, length: int | None) -> int:
        return ((length or 0) + 7) // 8

    @override
    def pieces(self, value: object, length: int | None) -> tuple[Piece, ...]:
        head, data = super().pieces(value, length)
        if self._spare(data, length):
            raise StateError(f"spare bits 0 in `{self.describe(length)}`", f"0x{data[-1]:02x} in the last byte")
        return head, data

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> bytes:
        data = super().unpack(cursor, length)
        if self._spare(data, length):
            raise cursor.error(f"spare bits 0 in `{self.describe(length)}`", f"0x{data[-1]:02x}", cursor.pos - 1)
        return data

    @staticmethod
    def _spare(data: Piece, length: int | None) -> bool:
        used = (length or 0) % 8
        return used != 0 and data[-1] >> used != 0


class StringType(WireType):
    """``string``: UTF-8 text."""

    name = "string"

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        if length is None:
            return self._pack_one(value)[0]
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self._wrong(value, length)
        return b"".join(elements_in_pieces(self, value, length, self._pack_one))

    def _pack_one(self, value: object) -> tuple[bytes]:
        if not isinstance(value, str):
            raise self._wrong(value, None)
        try:
            return (pack_str(value),)
        except UnicodeEncodeError:
            raise self._wrong(value, None, " that UTF-8 can hold") from None

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        if length is None:
            return cursor.read_str("`string`")
        return unpack_elements(self, cursor, length, lambda _: cursor.read_str("`string`"))

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        return value if length is None else list(value)

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        return value


def elements_in_pieces(
    kind: WireType, values: Sequence[object], length: int, pieces: Callable[[object], Sequence[Piece]]
) -> Iterator[Piece]:
    """An array whose elements are MessagePack objects of their own."""
    head = pack_array_head(length)
    values = tuple(values)
    if len(values) != length:
        raise StateError(f"`{kind.describe(length)}`", f"{len(values)} elements")
    yield head
    for element in indexed(pieces, values):
        yield from element


def unpack_elements(kind: WireType, cursor: Cursor, length: int, unpack: Callable[[object], object]) -> tuple[object, ...]:
    """The elements of such an array."""
    start = cursor.pos
    count = cursor.read_array(f"an array for `{kind.describe(length)}`")
    if count != length:
        raise cursor.error(f"{length} elements for `{kind.describe(length)}`", str(count), start)
    return tuple(indexed(unpack, range(count)))


class SparseType(BulkType):
    """``sparse``: `length` bytes of which only some runs are there; all other bytes are zero."""

    name = "sparse"
    counted = "bytes"
    arrays = False

    @override
    def pieces(self, value: object, length: int | None) -> list[Piece]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self._wrong(value, length, " as (offset, bytes) runs")
        found: list[Piece] = [pack_array_head(2 * len(value))]
        end = 0
        for run in value:
            try:
                offset, data = run
                data = taken(data)
                fits = data and operator.index(offset) >= end and offset + len(data) <= (length or 0)
            except (TypeError, ValueError):
                raise self._wrong(run, length, " as (offset, bytes) runs") from None
            if not fits:
                raise StateError(self._expected(length), f"{len(data)} bytes at {brief(offset)}")
            found += (pack_uint(offset) + pack_bin_head(len(data)), data)
            end = offset + len(data)
        return found

    def _expected(self, length: int | None) -> str:
        return f"runs of `{self.describe(length)}`, none of them empty, ascending, not overlapping and inside it"

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> Runs:
        what = f"runs of `{self.describe(length)}`"
        start = cursor.pos
        count = cursor.read_array(what)
        if count % 2:
            raise cursor.error(f"{what}: offsets and bytes in turn", f"an odd number of items ({count})", start)
        found = []
        end = 0
        for _ in range(count // 2):
            at = cursor.pos
            offset = cursor.read_int("the offset of a run")
            data = cursor.read_bin("the bytes of a run")
            if not data or offset < end or offset + len(data) > (length or 0):
                raise cursor.error(self._expected(length), f"{len(data)} bytes at {offset}", at)
            found.append((offset, data))
            end = offset + len(data)
        return tuple(found)

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        return {f"0x{offset:x}": data.hex() for offset, data in value}

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if not isinstance(value, dict):
            raise self._wrong(value, length, " as {offset: hex}")
        found = []
        for offset, text in value.items():
            try:
                found.append((integer(offset), from_hex(text)))
            except (ValueError, StateError):
                raise StateError("{offset: hex}", brief({offset: text})) from None
        return tuple(sorted(found))  # a tool that sorts the keys of its JSON does so as text


class OpaqueType(WireType):
    """A type that this build does not know. Its value is any object, kept as it stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        if not isinstance(value, Opaque):
            raise self._wrong(value, length, " (a type that this build does not know, so an `Opaque` value)")
        cursor = Cursor(value.raw)
        try:
            cursor.skip("an object")
        except VMStateError as error:
            raise StateError(error.expected, error.found) from None
        if cursor.pos != len(value.raw):
            raise self._wrong(value, length, ": one MessagePack object")
        return value.raw

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> Opaque:
        return Opaque(cursor.skip(f"a value of `{self.describe(length)}`"))

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        if not isinstance(value, Opaque):
            raise self._wrong(value, length)
        return value.to_json()

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        try:
            return Opaque.from_json(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._wrong(value, length, f" ({error})") from None


LEAF_TYPES: Final[dict[str, WireType]] = {
    kind.name: kind
    for kind in (
        BoolType(),
        *(IntType(f"int{8 * width}", width, signed=True) for width in (1, 2, 4, 8)),
        *(IntType(f"uint{8 * width}", width, signed=False) for width in (1, 2, 4, 8)),
        FloatType("float32", 4),
        FloatType("float64", 8),
        IntType("timer", 8, signed=True),
        BufferType(),
        BitmapType(),
        StringType(),
        SparseType(),
    )
}
"""All types but `struct`, by name."""
