"""The wire types of fixed width: bool, integers, floats, timer.

Single values are plain Python. An array is one bin of little-endian elements: read, it is a read-only typed
memoryview over the bytes as they stand; written, anything with the buffer protocol and the right elements is taken
as a block. Elements are looked at one by one only to name the one that does not fit.
"""

from __future__ import annotations

import math
import operator
import sys
from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import Any, Final

from typing_extensions import override

from tagged_vmstate.errors import StateError
from tagged_vmstate.wire import Cursor, Json, Piece, float_bits, float_from_bits, joined, pack_bin_head
from tagged_vmstate.wiretype import BulkType, brief, indexed

SWAPPED: Final = sys.byteorder == "big"
"""Blocks of numbers are little-endian in the file."""
_NATIVE: Final = "@=>" if SWAPPED else "@=<"
_ALIKE: Final = {code: codes for codes in ("bhilqn", "BHILQN", "fd", "?") for code in codes}
"""Struct code -> those of its kind; the width tells them apart (C's long is `l`, and as wide as `i` or as `q`)."""


class BlockType(BulkType):
    """A type of fixed width, whose arrays are one bin of little-endian elements."""

    width: int
    code: str

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        return self.pack_one(value) if length is None else joined(self.pieces(value, length))

    @override
    def pieces(self, value: object, length: int | None) -> tuple[Piece, ...]:
        if length is None:
            return (self.pack_one(value),)
        view = self.row(value, length)
        self.check_block(view)
        return pack_bin_head(view.nbytes), swapped(view) if SWAPPED else view.cast("B")

    @override
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        return self.unpack_one(cursor) if length is None else self._unpack_block(cursor, length)

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        if length is None:
            return self.one_to_json(value)
        return self.block_to_json(self.row(value, length))

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

    def one_to_json(self, value: Any) -> Json:
        """A single value in JSON."""
        return value

    def one_from_json(self, value: Json) -> object:
        """A single value from JSON."""
        return value

    def block_to_json(self, view: memoryview) -> Json:
        """An array in JSON."""
        return view.tolist()

    def elements(self, values: Sequence[Any]) -> bytes:
        """The native bytes of a sequence of values, each checked."""
        try:
            return array(self.code, values).tobytes()
        except (TypeError, OverflowError, ValueError):
            return self.one_by_one(values)

    def one_by_one(self, values: Sequence[Any]) -> bytes:
        """The same, the slow way, which tells the culprit's index."""
        order = 1 if SWAPPED else -1
        return b"".join(indexed(lambda value: self.pack_one(value)[-self.width :][::order], values))

    def row(self, value: Any, length: int) -> memoryview:
        """Any sequence of fitting values as native elements in one block, row by row where it has several dimensions."""
        try:
            view = memoryview(value)
            if not self.is_alike(view):
                raise TypeError
            view = typed(taken(view), self.code)
        except (TypeError, ValueError):
            if not isinstance(value, Sequence) or isinstance(value, str | bytes):
                raise self._wrong(value, length) from None
            view = typed(self.elements(value), self.code)
        if len(view) != length:
            raise StateError(f"`{self.describe(length)}`", f"{len(view)} elements")
        return view

    def is_alike(self, view: memoryview) -> bool:
        """Whether a buffer holds native elements of the type."""
        code = view.format.lstrip(_NATIVE)
        return view.itemsize == self.width and len(code) == 1 and code in _ALIKE[self.code]

    def check_block(self, view: memoryview) -> None:
        """Raise StateError where a block holds what is no value of the type."""

    def _unpack_block(self, cursor: Cursor, length: int) -> memoryview:
        start = cursor.pos
        data = cursor.read_bin(f"bytes for `{self.describe(length)}`")
        if len(data) != length * self.width:
            raise cursor.error(f"{length * self.width} bytes for `{self.describe(length)}`", f"{len(data)}", start)
        view = typed(data, self.code)
        try:
            self.check_block(view)
        except StateError as error:
            raise cursor.error(error.expected, error.found, start) from None
        return typed(swapped(view), self.code) if SWAPPED else view


def taken(value: Any) -> Piece:
    """Anything with the buffer protocol as bytes that nobody can change any more. Raises TypeError.

    What is checked, summed and written has to be the same, and another thread may write into a buffer meanwhile.
    """
    if isinstance(value, bytes):
        return value
    try:
        view = memoryview(value)
    except ValueError as error:  # it was released
        raise TypeError(str(error)) from None
    return view.cast("B") if view.c_contiguous and type(view.obj) is bytes else view.tobytes()


def typed(data: bytes | memoryview, code: str) -> memoryview:
    """Bytes as native elements of a struct code."""
    as_any: Any = memoryview(data).cast("B")
    found: memoryview = as_any.cast(code)
    return found


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
    def elements(self, values: Sequence[Any]) -> bytes:
        for index, value in enumerate(values):
            if value is not True and value is not False:
                raise StateError("`bool`", brief(value), path=(index,))
        return bytes(values)

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
        self.first = bytes(((0xD0 if signed else 0xCC) + level,))
        self._signed = signed

    @override
    def pack_one(self, value: object) -> bytes:
        number = self._number(value)
        if not self.low <= number <= self.high:
            raise self._wrong(value, None, f" ({self.low} to {self.high})")
        return self.first + number.to_bytes(self.width, "big", signed=self._signed)

    def _number(self, value: Any) -> int:
        try:
            if isinstance(value, bool):
                raise TypeError
            return operator.index(value)
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
    def elements(self, values: Sequence[Any]) -> bytes:
        if bool in set(map(type, values)):
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
        self.first = b"\xca" if width == 4 else b"\xcb"
        self._bits_code = "I" if width == 4 else "Q"

    @override
    def pack_one(self, value: object) -> bytes:
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise self._wrong(value, None)
        try:
            return self.first + float_bits(float(value), self.width).to_bytes(self.width, "big")
        except OverflowError:
            raise self._wrong(value, None, " (in its range)") from None

    @override
    def unpack_one(self, cursor: Cursor) -> float:
        start = cursor.pos
        if cursor.is_int():
            return self._from_int(cursor.read_int(f"`{self.name}`"), cursor, start)
        bits, size = cursor.read_float_bits(f"`{self.name}`")
        value = float_from_bits(bits, size)
        if size > self.width and not self._fits(value, bits):
            raise cursor.error(f"`{self.name}`", "a float that needs 64 bits", start)
        return value

    def _from_int(self, number: int, cursor: Cursor, start: int) -> float:
        """The float that an integer is: encoders of languages with one kind of number write 1.0 as 1."""
        value = float_from_bits(float_bits(float(number), self.width), self.width)
        if value != number:
            raise cursor.error(f"`{self.name}`", f"the integer {number}, which it cannot hold exactly", start)
        return value

    def _fits(self, value: float, bits: int) -> bool:
        try:
            narrow = float_bits(value, self.width)
        except OverflowError:
            return False
        return float_bits(float_from_bits(narrow, self.width), 8) == bits

    @override
    def elements(self, values: Sequence[Any]) -> bytes:
        return self.one_by_one(values)

    @override
    def one_to_json(self, value: Any) -> Json:
        number = float(value)
        if math.isfinite(number):
            return number
        return f"{number}:{float_bits(number, self.width):x}"  # the first digit is 7 or f

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
            number = float_from_bits(int.from_bytes(bytes.fromhex(digits), "big"), self.width)
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
        bits = typed(view, self._bits_code).tolist()
        return [self.one_to_json(float_from_bits(each, self.width)) for each in bits]

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if length is None or not isinstance(value, list):
            return super().from_json(value, length)
        return list(indexed(self.one_from_json, value))


def from_big_endian(kind: BlockType, data: bytes) -> memoryview:
    """Big-endian elements as an array of the type has them."""
    view = typed(data, kind.code)
    if SWAPPED or kind.width == 1:
        return view
    return typed(swapped(view), kind.code)


def to_big_endian(kind: BlockType, value: Any, length: int | None) -> bytes:
    """A number, or an array of them, as big-endian bytes. Raises StateError where one does not fit the type."""
    packed = kind.pack(value, length)
    if kind.name == "bool" and length is None:
        return b"\1" if value else b"\0"
    data = packed[len(packed) - kind.width * (1 if length is None else length) :]
    return data if length is None or kind.width == 1 else swapped(typed(data, kind.code))


def word_swapped(data: bytes) -> bytes:
    """The bits of a bitmap: big-endian words of 64 from little-endian ones, and the other way."""
    return swapped(typed(data, "Q"))
