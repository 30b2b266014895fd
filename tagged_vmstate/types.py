"""The wire types, one object each: its values to and from bytes, to and from JSON.

A type packs a value into the MessagePack object that the format prescribes for it, always at full
width, and unpacks what any MessagePack writer may have made of it (the shortest integer, a str of
any width). Values are plain Python: int, bool, float, str, bytes. An array of numbers is a read-only
typed memoryview over the bytes as they stand, never an element at a time; `struct` lives with the
records that it is made of (`records`). Format, section "field".
"""

from __future__ import annotations

import math
import operator
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from typing_extensions import override

from tagged_vmstate.errors import StateError, VMStateError
from tagged_vmstate.wire import (
    Cursor,
    Json,
    Opaque,
    float_bits,
    float_from_bits,
    pack_array_head,
    pack_bin,
    pack_bin_head,
    pack_str,
    pack_uint,
)

T = TypeVar("T")

Runs: TypeAlias = tuple[tuple[int, bytes], ...]
"""The value of a `sparse` field: (offset, bytes), ascending."""

SWAPPED: Final = sys.byteorder == "big"
"""Blocks of numbers are little-endian in the file."""


def brief(value: object) -> str:
    """A value for an error message, cut where it is long."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def indexed(function: Callable[[Any], T], values: Iterable[object]) -> list[T]:
    """`function` of each value; an error gets the index of its value into its path."""
    found = []
    for index, value in enumerate(values):
        try:
            found.append(function(value))
        except VMStateError as error:
            error.under(index)
            raise
    return found


class WireType(ABC):
    """One wire type.

    Attributes:
        name: The name in the file.
        counted: What `length` counts where a single value has one (``bytes`` or ``bits``); None where it is nil.
        arrays: Whether there are arrays of it.
    """

    name: str
    counted: str | None = None
    arrays: bool = True

    def __repr__(self) -> str:
        return f"<wire type {self.name}>"

    def describe(self, length: int | None) -> str:
        """The type as people write it: ``uint32[4]``."""
        return self.name if length is None else f"{self.name}[{length}]"

    def misfit(self, length: int | None) -> str | None:
        """What is wrong with a length for this type; None where nothing is."""
        if length is None:
            return f"a length in {self.counted} for `{self.name}`" if self.counted else None
        return None if self.counted or self.arrays else f"no length for `{self.name}`"

    @abstractmethod
    def pack(self, value: object, length: int | None) -> bytes:
        """A value as a MessagePack object. Raises StateError where it does not fit."""

    @abstractmethod
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        """The value of a MessagePack object. Raises FormatError where it is none of this type and length."""

    @abstractmethod
    def to_json(self, value: object, length: int | None) -> Json:
        """The JSON form of a value that fits."""

    @abstractmethod
    def from_json(self, value: Json, length: int | None) -> object:
        """The other way; `pack` then decides whether the value fits. Raises StateError for what is no such form."""

    def _wrong(self, value: object, length: int | None, detail: str = "") -> StateError:
        return StateError(f"`{self.describe(length)}`{detail}", brief(value))


class BlockType(WireType):
    """A type of fixed width, whose arrays are one bin of little-endian elements."""

    width: int
    code: str

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        return self.pack_one(value) if length is None else self._pack_block(value, length)

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        return self.unpack_one(cursor) if length is None else self._unpack_block(cursor, length)

    @override
    def to_json(self, value: object, length: int | None) -> Json:
        if length is None:
            return self.one_to_json(value)
        return self.block_to_json(self._view(value, length))

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if length is None:
            return self.one_from_json(value)
        if not isinstance(value, list):
            raise self._wrong(value, length, " as a list")
        return value

    @abstractmethod
    def pack_one(self, value: object) -> bytes:
        """A single value as a MessagePack object."""

    @abstractmethod
    def unpack_one(self, cursor: Cursor) -> object:
        """A single value from a MessagePack object."""

    def one_to_json(self, value: object) -> Json:
        """A single value in JSON."""
        return value

    def one_from_json(self, value: Json) -> object:
        """A single value from JSON."""
        return value

    def block_to_json(self, view: memoryview) -> Json:
        """An array in JSON."""
        return view.tolist()

    def elements(self, values: Sequence[object]) -> bytes:
        """The native bytes of a sequence of values, each checked."""
        try:
            return array(self.code, values).tobytes()  # type: ignore[arg-type]  # the check is the point
        except (TypeError, OverflowError, ValueError):
            return self.one_by_one(values)

    def one_by_one(self, values: Sequence[object]) -> bytes:
        """The same, the slow way, which tells the culprit's index."""
        order = 1 if SWAPPED else -1
        return b"".join(indexed(lambda value: self.pack_one(value)[-self.width :][::order], values))

    def _view(self, value: object, length: int) -> memoryview:
        """Any sequence of fitting values as native elements in one block."""
        try:
            view = memoryview(value)  # type: ignore[arg-type]  # a buffer or not is what we ask
            if view.format.lstrip("@=<") != self.code or view.itemsize != self.width or not view.c_contiguous:
                raise TypeError
            view = view.cast("B").cast(self.code)
        except TypeError:
            if not isinstance(value, Sequence) or isinstance(value, str | bytes):
                raise self._wrong(value, length) from None
            view = memoryview(self.elements(value)).cast(self.code)
        if len(view) != length:
            raise StateError(f"`{self.describe(length)}`", f"{len(view)} elements")
        return view

    def _pack_block(self, value: object, length: int) -> bytes:
        view = self._view(value, length)
        self.check_block(view)
        return pack_bin_head(view.nbytes) + (swapped(view) if SWAPPED else view)

    def check_block(self, view: memoryview) -> None:
        """Raise StateError where a block holds what is no value of the type."""

    def _unpack_block(self, cursor: Cursor, length: int) -> memoryview:
        start = cursor.pos
        data = cursor.read_bin(f"bytes for `{self.describe(length)}`")
        if len(data) != length * self.width:
            raise cursor.error(f"{length * self.width} bytes for `{self.describe(length)}`", f"{len(data)}", start)
        view = memoryview(data).cast(self.code)
        try:
            self.check_block(view)
        except StateError as error:
            raise cursor.error(error.expected, error.found, start) from None
        return memoryview(swapped(view)).cast(self.code) if SWAPPED else view


def swapped(view: memoryview) -> bytes:
    """The elements of a block with their bytes in reverse order."""
    block = array({1: "B", 2: "H", 4: "I", 8: "Q"}[view.itemsize], view.tobytes())
    block.byteswap()
    return block.tobytes()


class BoolType(BlockType):
    """``bool``: true or false."""

    name = "bool"
    width = 1
    code = "?"

    @override
    def pack_one(self, value: object) -> bytes:
        if value is True or value is False:
            return b"\xc3" if value else b"\xc2"
        raise self._wrong(value, None)

    @override
    def unpack_one(self, cursor: Cursor) -> bool:
        return cursor.read_bool("`bool`")

    @override
    def elements(self, values: Sequence[object]) -> bytes:
        for index, value in enumerate(values):
            if value is not True and value is not False:
                raise StateError("`bool`", brief(value), path=(index,))
        return bytes(values)  # type: ignore[arg-type]  # checked above

    @override
    def check_block(self, view: memoryview) -> None:
        other = view.tobytes().translate(None, b"\x00\x01")
        if other:
            raise StateError(f"bytes 0 and 1 for `bool[{len(view)}]`", str(other[0]))


class IntType(BlockType):
    """An integer of a width, signed or not. ``timer`` is one too: a deadline in ns, -1 when not armed."""

    def __init__(self, name: str, width: int, *, signed: bool) -> None:
        self.name = name
        self.width = width
        self.code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
        if signed:
            self.code = self.code.lower()
        self.low = -(1 << 8 * width - 1) if signed else 0
        self.high = (1 << 8 * width - signed) - 1
        level = (1, 2, 4, 8).index(width)
        self._first = bytes(((0xD0 if signed else 0xCC) + level,))
        self._signed = signed

    @override
    def pack_one(self, value: object) -> bytes:
        number = self._number(value)
        if not self.low <= number <= self.high:
            raise self._wrong(value, None, f" ({self.low} to {self.high})")
        return self._first + number.to_bytes(self.width, "big", signed=self._signed)

    def _number(self, value: object) -> int:
        try:
            if isinstance(value, bool):
                raise TypeError
            return operator.index(value)  # type: ignore[arg-type]  # raises TypeError, which is what we ask
        except TypeError:
            raise self._wrong(value, None) from None

    @override
    def unpack_one(self, cursor: Cursor) -> int:
        start = cursor.pos
        number = cursor.read_int(f"`{self.name}`")
        if not self.low <= number <= self.high:
            raise cursor.error(f"`{self.name}` ({self.low} to {self.high})", str(number), start)
        return number

    @override
    def elements(self, values: Sequence[object]) -> bytes:
        if any(isinstance(value, bool) for value in values):
            return self.one_by_one(values)
        return super().elements(values)


class FloatType(BlockType):
    """An IEEE 754 float of 4 or 8 bytes, every bit of it kept: NaN payloads, signalling NaNs, -0.0.

    In JSON a NaN or an infinity is a string of its name and its bits: ``nan:7fc00000``.
    """

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self.width = width
        self.code = "f" if width == 4 else "d"
        self._first = b"\xca" if width == 4 else b"\xcb"
        self._bits_code = "I" if width == 4 else "Q"

    @override
    def pack_one(self, value: object) -> bytes:
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise self._wrong(value, None)
        try:
            return self._first + float_bits(float(value), self.width).to_bytes(self.width, "big")
        except OverflowError:
            raise self._wrong(value, None, " (in its range)") from None

    @override
    def unpack_one(self, cursor: Cursor) -> float:
        start = cursor.pos
        bits, size = cursor.read_float_bits(f"`{self.name}`")
        value = float_from_bits(bits, size)
        if size > self.width and not self._fits(value, bits):
            raise cursor.error(f"`{self.name}`", "a float that needs 64 bits", start)
        return value

    def _fits(self, value: float, bits: int) -> bool:
        try:
            narrow = float_bits(value, self.width)
        except OverflowError:
            return False
        return float_bits(float_from_bits(narrow, self.width), 8) == bits

    @override
    def elements(self, values: Sequence[object]) -> bytes:
        return self.one_by_one(values)

    @override
    def one_to_json(self, value: object) -> Json:
        number = float(value)  # type: ignore[arg-type]  # a value that fits is a number
        if math.isfinite(number):
            return number
        return f"{number}:{float_bits(number, self.width):0{2 * self.width}x}"

    @override
    def one_from_json(self, value: Json) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(value, None, " (in its range)")
        if not isinstance(value, str):
            return value
        name, _, digits = value.partition(":")
        try:
            if len(digits) != 2 * self.width:
                raise ValueError
            number = float_from_bits(int(digits, 16), self.width)
        except ValueError:
            number = 0.0
        if str(number) != name or math.isfinite(number):
            raise self._wrong(value, None, f' or a string such as "{self.one_to_json(math.nan)}"')
        return number

    @override
    def block_to_json(self, view: memoryview) -> Json:
        numbers = view.tolist()
        if all(map(math.isfinite, numbers)):
            return numbers
        bits = view.cast("B").cast(self._bits_code).tolist()
        return [self.one_to_json(float_from_bits(each, self.width)) for each in bits]

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if length is None or not isinstance(value, list):
            return super().from_json(value, length)
        return indexed(self.one_from_json, value)


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


class BufferType(WireType):
    """``buffer``: `length` bytes."""

    name = "buffer"
    counted: str | None = "bytes"
    arrays = False

    def size(self, length: int | None) -> int:
        """How many bytes a value of a length takes."""
        return length or 0

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise self._wrong(value, length)
        data = bytes(value)
        if len(data) != self.size(length):
            raise StateError(f"`{self.describe(length)}`", f"{len(data)} bytes")
        return pack_bin(data)

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> bytes:
        start = cursor.pos
        data = cursor.read_bin(f"`{self.describe(length)}`")
        if len(data) != self.size(length):
            raise cursor.error(f"{self.size(length)} bytes for `{self.describe(length)}`", str(len(data)), start)
        return data

    @override
    def to_json(self, value: object, length: int | None) -> Json:
        return to_hex(bytes(value))  # type: ignore[call-overload]  # a value that fits is bytes

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
    def pack(self, value: object, length: int | None) -> bytes:
        packed = super().pack(value, length)
        if self._spare(packed, length):
            raise StateError(f"spare bits 0 in `{self.describe(length)}`", f"0x{packed[-1]:02x} in the last byte")
        return packed

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> bytes:
        data = super().unpack(cursor, length)
        if self._spare(data, length):
            raise cursor.error(f"spare bits 0 in `{self.describe(length)}`", f"0x{data[-1]:02x}", cursor.pos - 1)
        return data

    @staticmethod
    def _spare(data: bytes, length: int | None) -> bool:
        used = (length or 0) % 8
        return used != 0 and data[-1] >> used != 0


class StringType(WireType):
    """``string``: UTF-8 text."""

    name = "string"

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        if length is None:
            return self._pack_one(value)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self._wrong(value, length)
        return pack_elements(self, value, length, self._pack_one)

    def _pack_one(self, value: object) -> bytes:
        if not isinstance(value, str):
            raise self._wrong(value, None)
        try:
            return pack_str(value)
        except UnicodeEncodeError:
            raise self._wrong(value, None, " that UTF-8 can hold") from None

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        if length is None:
            return cursor.read_str("`string`")
        return unpack_elements(self, cursor, length, lambda _: cursor.read_str("`string`"))

    @override
    def to_json(self, value: object, length: int | None) -> Json:
        return value if length is None else list(value)  # type: ignore[call-overload]  # a value that fits is a sequence

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        return value


def pack_elements(kind: WireType, values: Sequence[object], length: int, pack: Callable[[object], bytes]) -> bytes:
    """An array whose elements are MessagePack objects of their own."""
    if len(values) != length:
        raise StateError(f"`{kind.describe(length)}`", f"{len(values)} elements")
    return pack_array_head(length) + b"".join(indexed(pack, values))


def unpack_elements(kind: WireType, cursor: Cursor, length: int, unpack: Callable[[object], object]) -> tuple[object, ...]:
    """The elements of such an array."""
    start = cursor.pos
    count = cursor.read_array(f"an array for `{kind.describe(length)}`")
    if count != length:
        raise cursor.error(f"{length} elements for `{kind.describe(length)}`", str(count), start)
    return tuple(indexed(unpack, range(count)))


class SparseType(WireType):
    """``sparse``: `length` bytes of which only some runs are there; all other bytes are zero."""

    name = "sparse"
    counted = "bytes"
    arrays = False

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise self._wrong(value, length, " as (offset, bytes) runs")
        found = [pack_array_head(2 * len(value))]
        end = 0
        for run in value:
            try:
                offset, data = run
                data = bytes(data)
                fits = end <= operator.index(offset) and offset + len(data) <= (length or 0)
            except (TypeError, ValueError):
                raise self._wrong(run, length, " as (offset, bytes) runs") from None
            if not fits:
                raise StateError(
                    f"runs of `{self.describe(length)}`, ascending, apart and inside it", f"{len(data)} bytes at {offset}"
                )
            found += (pack_uint(offset), pack_bin_head(len(data)), data)
            end = offset + len(data)
        return b"".join(found)

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
            if offset < end or offset + len(data) > (length or 0):
                raise cursor.error(f"{what}, ascending, apart and inside it", f"{len(data)} bytes at {offset}", at)
            found.append((offset, data))
            end = offset + len(data)
        return tuple(found)

    @override
    def to_json(self, value: object, length: int | None) -> Json:
        return {f"0x{offset:x}": data.hex() for offset, data in value}  # type: ignore[attr-defined]  # a value that fits

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if not isinstance(value, dict):
            raise self._wrong(value, length, " as {offset: hex}")
        found = []
        for offset, text in value.items():
            try:
                found.append((int(offset, 0), from_hex(text)))
            except (ValueError, StateError):
                raise StateError("{offset: hex}", brief({offset: text})) from None
        return tuple(found)


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
            raise self._wrong(value, length, f": {error}") from None
        if cursor.pos != len(value.raw):
            raise self._wrong(value, length, ": one MessagePack object")
        return value.raw

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> Opaque:
        return Opaque(cursor.skip(f"a value of `{self.describe(length)}`"))

    @override
    def to_json(self, value: object, length: int | None) -> Json:
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


def read_block(name: str, data: bytes, *, big_endian: bool) -> memoryview:
    """The elements of a block that came from elsewhere, as the named type has them."""
    kind = LEAF_TYPES[name]
    if not isinstance(kind, BlockType):
        raise TypeError(f"{name} has no blocks")
    view = memoryview(data).cast(kind.code)
    if big_endian == SWAPPED or kind.width == 1:
        return view
    return memoryview(swapped(view)).cast(kind.code)
