"""MessagePack, as far as the format needs it: heads and scalars, with byte offsets in every error.

Writing is a handful of `struct` calls, because the format asks for full widths where libraries choose
the shortest form. Reading is a `Cursor`, because libraries tell no offsets, quiet signalling NaNs and
trust declared lengths. Whole objects that may be anything (attributes, values of unknown types) stay
as their bytes in an `Opaque`; the msgpack library decodes those. Source of all rules: the MessagePack
specification.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, cast, overload

import msgpack

from tagged_vmstate.errors import FormatError, LimitError

NESTING: Final = 64
"""How deep arrays, maps and structs may lie in each other: deeper input only serves to exhaust a stack."""

Json: TypeAlias = Any
"""What the json module reads and writes."""

Piece: TypeAlias = "bytes | memoryview"
"""Some of the bytes of a longer whole; a view is of somebody's own memory, as it is until it has been written."""
APART: Final = 1 << 16
"""Pieces of at least so many bytes are not copied to be joined with others."""
TOGETHER: Final = 1 << 12
"""Pieces that are joined at once: Python takes 80 bytes for each while it does."""

NIL: Final = b"\xc0"

_SCALAR_SIZES: Final = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_SIZED: Final = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
"""First byte of bin, ext and str -> width of the length, bytes of an ext's type."""
_COUNTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""First byte of array and map -> width of the count, objects an item."""
_BIN: Final = frozenset({0xC4, 0xC5, 0xC6})
_ARRAY: Final = frozenset({0xDC, 0xDD})
_MAP: Final = frozenset({0xDE, 0xDF})
_INTEGERS: Final = {
    0xCC: struct.Struct(">B"), 0xCD: struct.Struct(">H"), 0xCE: struct.Struct(">I"), 0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"), 0xD1: struct.Struct(">h"), 0xD2: struct.Struct(">i"), 0xD3: struct.Struct(">q"),
}  # fmt: skip
_F64: Final = struct.Struct(">d")


def gathered(pieces: Iterable[Piece]) -> list[Piece]:
    """The same bytes in as few pieces as there are without copying a big one, or holding very many small ones."""
    found: list[Piece] = []
    small: list[Piece] = []
    for piece in pieces:
        is_small = len(piece) < APART
        if is_small:
            small.append(piece)
        if small and (not is_small or len(small) == TOGETHER):
            found.append(joined(small))
            small.clear()
        if not is_small:
            found.append(piece)
    if small:
        found.append(joined(small))
    return found


def equal(pieces: Sequence[Piece], others: Sequence[Piece]) -> bool:
    """Whether pieces are the same bytes as others that are cut alike."""
    return len(pieces) == len(others) and all(map(_same, pieces, others))


def _same(piece: Piece, other: Piece) -> bool:
    # A view is compared element by element, bytes at once: a view is worth copying in parts.
    if isinstance(piece, bytes) and isinstance(other, bytes):
        return piece == other
    ranges = range(0, len(piece), APART)
    return len(piece) == len(other) and all(bytes(piece[low : low + APART]) == bytes(other[low : low + APART]) for low in ranges)


def joined(pieces: Sequence[Piece]) -> bytes:
    """All bytes of some pieces."""
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    return b"".join(pieces)


def pack_uint(number: int) -> bytes:
    """A non-negative integer in the shortest form. Raises OverflowError beyond 64 bits."""
    if number < 0x80:
        return number.to_bytes(1, "big")
    if number < 1 << 8:
        return b"\xcc" + number.to_bytes(1, "big")
    if number < 1 << 16:
        return b"\xcd" + number.to_bytes(2, "big")
    if number < 1 << 32:
        return b"\xce" + number.to_bytes(4, "big")
    return b"\xcf" + number.to_bytes(8, "big")


def _head(size: int, fix: tuple[int, int] | None, firsts: tuple[int | None, int, int]) -> bytes:
    if fix and size <= fix[1]:
        return bytes((fix[0] | size,))
    if firsts[0] is not None and size < 1 << 8:
        return bytes((firsts[0], size))
    if size < 1 << 16:
        return bytes((firsts[1],)) + size.to_bytes(2, "big")
    return bytes((firsts[2],)) + size.to_bytes(4, "big")


def pack_str(text: str) -> bytes:
    """A string, its head in the shortest form. Raises UnicodeEncodeError for lone surrogates."""
    data = text.encode()
    return _head(len(data), (0xA0, 31), (0xD9, 0xDA, 0xDB)) + data


def pack_bin_head(size: int) -> bytes:
    """The head of `size` bytes that the caller writes after it. Raises OverflowError beyond 32 bits."""
    return _head(size, None, (0xC4, 0xC5, 0xC6))


def pack_bin(data: bytes | memoryview) -> bytes:
    """Bytes, their head in the shortest form."""
    return pack_bin_head(len(data)) + data


def pack_array_head(count: int) -> bytes:
    """The head of an array of `count` objects. Raises OverflowError beyond 32 bits."""
    return _head(count, (0x90, 15), (None, 0xDC, 0xDD))


def pack_map_head(count: int) -> bytes:
    """The head of a map of `count` pairs. Raises OverflowError beyond 32 bits."""
    return _head(count, (0x80, 15), (None, 0xDE, 0xDF))


def float_bits(value: float, size: int) -> int:
    """The IEEE 754 bits of a float in 4 or 8 bytes, NaN payloads kept.

    C's conversion between the two widths quiets signalling NaNs, so those go by their bits.
    Raises OverflowError for a finite value, or a NaN's payload, that the width cannot hold.
    """
    wide = int.from_bytes(_F64.pack(value), "big")
    if size == 8:
        return wide
    if not math.isnan(value):
        return int.from_bytes(struct.pack(">f", value), "big")
    if wide & ((1 << 29) - 1):
        raise OverflowError("a NaN whose payload needs 64 bits")
    return (wide >> 32 & 0x80000000) | 0x7F800000 | (wide >> 29 & 0x7FFFFF)


def float_from_bits(bits: int, size: int) -> float:
    """The float of IEEE 754 bits in 4 or 8 bytes, NaN payloads kept."""
    if size == 4:
        if bits & 0x7F800000 != 0x7F800000:
            return float(struct.unpack(">f", bits.to_bytes(4, "big"))[0])
        bits = (bits & 0x80000000) << 32 | 0x7FF0000000000000 | (bits & 0x7FFFFF) << 29
    return float(_F64.unpack(bits.to_bytes(8, "big"))[0])


class TruncatedError(FormatError):
    """The input ends before the object does."""


class Bytes(Protocol):
    """What a `Cursor` reads: `bytes`, or what is taken like them."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def startswith(self, prefix: Piece, start: int, /) -> bool:
        """Whether some bytes stand at a place."""
        ...


class Cursor:
    """A place in bytes of which every object read moves on.

    Args:
        data: The bytes.
        base: Byte offset of `data` in the whole input, for errors.
    """

    __slots__ = ("base", "data", "pos")

    def __init__(self, data: Bytes, base: int = 0, pos: int = 0) -> None:
        self.data = cast(
            "bytes", data
        )  # what reads heads from a file has bytes; what reads fields takes no more than `Bytes` has
        self.base = base
        self.pos = pos

    def error(self, expected: str, found: str | None = None, at: int | None = None) -> FormatError:
        """A `FormatError` that tells what is at a position (default: here)."""
        at = self.pos if at is None else at
        if found is None:
            found = describe(self.data, at)
        return FormatError(expected, found, offset=self.base + at)

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes. Raises TruncatedError where fewer are left."""
        start, end = self.pos, self.pos + size
        if end > len(self.data):
            left = len(self.data) - start
            raise TruncatedError(
                f"{size} bytes of {what}", f"only {left} bytes before its end (truncated)", offset=self.base + start
            )
        self.pos = end
        return self.data[start:end]

    def _first(self, what: str) -> int:
        try:
            return self.data[self.pos]
        except IndexError:
            raise TruncatedError(what, "nothing more (truncated)", offset=self.base + self.pos) from None

    def _sized(self, width: int, what: str) -> int:
        start = self.pos
        self.pos = start + 1
        size = int.from_bytes(self.take(width, what), "big")
        return self._within(size, start, what)

    def _within(self, count: int, start: int, what: str) -> int:
        """A count of objects or bytes, each of which takes a byte at least. Raises TruncatedError where fewer are left."""
        left = len(self.data) - self.pos
        if count > left:
            raise TruncatedError(what, f"a length of {count} with {left} bytes left (truncated)", offset=self.base + start)
        return count

    def read_array(self, what: str) -> int:
        """The count of an array; its objects follow. A count beyond the bytes left is refused."""
        first = self._first(what)
        if first & 0xF0 == 0x90:
            self.pos += 1
            return self._within(first & 0x0F, self.pos - 1, what)
        if first in _ARRAY:
            return self._sized(_COUNTED[first][0], what)
        raise self.error(what)

    def read_map(self, what: str) -> int:
        """The count of a map; so many keys and values follow in turn. A count beyond the bytes left is refused."""
        first = self._first(what)
        if first & 0xF0 == 0x80:
            self.pos += 1
            return self._within(first & 0x0F, self.pos - 1, what)
        if first in _MAP:
            return self._sized(_COUNTED[first][0], what)
        raise self.error(what)

    def read_str(self, what: str) -> str:
        """A string, strict UTF-8, whatever the width of its length."""
        first = self._first(what)
        if first & 0xE0 == 0xA0:
            self.pos += 1
            data = self.take(first & 0x1F, what)
        elif first in {0xD9, 0xDA, 0xDB}:
            data = self.take(self._sized(_SIZED[first][0], what), what)
        else:
            raise self.error(what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.error("UTF-8", f"byte 0x{data[error.start]:02x}", at=self.pos - len(data) + error.start) from None

    def read_bin(self, what: str) -> bytes:
        """Bytes, whatever the width of their length."""
        return self.take(self.read_bin_head(what), what)

    def read_bin_head(self, what: str) -> int:
        """How many bytes follow, whatever the width of that number."""
        first = self._first(what)
        if first not in _BIN:
            raise self.error(what)
        return self._sized(_SIZED[first][0], what)

    def read_int(self, what: str) -> int:
        """An integer in any of MessagePack's encodings."""
        first = self._first(what)
        if first < 0x80:
            self.pos += 1
            return first
        if first >= 0xE0:
            self.pos += 1
            return first - 0x100
        codec = _INTEGERS.get(first)
        if codec is None:
            raise self.error(what)
        self.pos += 1
        return int(codec.unpack(self.take(codec.size, what))[0])

    def is_int(self) -> bool:
        """Whether an integer is next."""
        first = self._first("an object")
        return first < 0x80 or first >= 0xE0 or first in _INTEGERS

    def read_bool(self, what: str) -> bool:
        """True or false."""
        first = self._first(what)
        if first not in {0xC2, 0xC3}:
            raise self.error(what)
        self.pos += 1
        return first == 0xC3

    def read_float_bits(self, what: str) -> tuple[int, int]:
        """The bits of a float, and its size in bytes."""
        first = self._first(what)
        if first not in {0xCA, 0xCB}:
            raise self.error(what)
        size = _SCALAR_SIZES[first]
        self.pos += 1
        return int.from_bytes(self.take(size, what), "big"), size

    def read_nil(self) -> bool:
        """Whether nil is next; if so, it is passed."""
        if self._first("an object") != 0xC0:
            return False
        self.pos += 1
        return True

    def skip(self, what: str, around: int = 0) -> bytes:
        """The bytes of one object of any kind, checked for structure, not decoded.

        Args:
            what: What it is, for errors.
            around: Arrays and maps that it lies in, which count as levels of nesting.

        Raises:
            FormatError: Not MessagePack, or cut short.
            LimitError: Nested deeper than `NESTING`: an empty array or map is a level, too.
        """
        start = self.pos
        pending: list[int] = []
        inside = self._skip_head(what)
        while True:
            if inside is not None:
                if around + len(pending) >= NESTING:
                    raise LimitError(f"at most {NESTING} levels of nesting", "more", offset=self.base + self.pos)
                pending.append(inside)
            while pending and not pending[-1]:
                pending.pop()
            if not pending:
                return self.data[start : self.pos]
            pending[-1] -= 1
            inside = self._skip_head(what)

    def _skip_head(self, what: str) -> int | None:
        """Pass one scalar or one head; return how many objects lie inside it, None for a scalar."""
        first = self._first(what)
        if first < 0x80 or first >= 0xE0:
            self.pos += 1
        elif first < 0x90:
            self.pos += 1
            return 2 * (first & 0x0F)
        elif first < 0xA0:
            return self.read_array(what)
        elif first < 0xC0:
            self.pos += 1
            self.take(first & 0x1F, what)
        elif first in _SCALAR_SIZES:
            self.pos += 1
            self.take(_SCALAR_SIZES[first], what)
        elif first in _SIZED:
            width, extra = _SIZED[first]
            self.take(self._sized(width, what) + extra, what)
        elif first in _COUNTED:
            width, objects = _COUNTED[first]
            return self._sized(width, what) * objects
        else:
            raise self.error(what)
        return None


def describe(data: bytes, at: int) -> str:
    """What MessagePack object begins at a position, in a word or two."""
    first = data[at]
    if first < 0x80 or first >= 0xE0 or first in _INTEGERS:
        return "an integer"
    if first < 0x90 or first in {0xDE, 0xDF}:
        return "a map"
    if first < 0xA0 or first in {0xDC, 0xDD}:
        return "an array"
    if first < 0xC0 or first in {0xD9, 0xDA, 0xDB}:
        return "a string"
    names = {
        0xC0: "nil",
        0xC1: "the byte 0xc1, which MessagePack never uses",
        0xC2: "false",
        0xC3: "true",
        0xCA: "a float",
        0xCB: "a float",
    }
    return names.get(first, "bytes" if first <= 0xC6 else "an extension object")


def _unique(pairs: list[tuple[Hashable, object]]) -> dict[Hashable, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice in one map")
    return found


@dataclass(frozen=True, slots=True)
class Opaque:
    """A MessagePack object of any kind, kept as its bytes: it goes back as it came."""

    raw: bytes

    @classmethod
    def of(cls, value: object) -> Opaque:
        """Pack a value, everything in MessagePack's shortest form.

        Raises ValueError, TypeError or OverflowError for what MessagePack cannot hold.
        """
        packed: Any = msgpack.packb(value, use_bin_type=True)
        return cls(bytes(packed))

    def decode(self) -> Any:
        """The value, as the msgpack library decodes it.

        Raises FormatError for what has no Python form: a key twice in one map, a map as a key, a date beyond reach.
        """
        try:
            return msgpack.unpackb(self.raw, strict_map_key=False, object_pairs_hook=_unique)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise FormatError("an object with a Python form", str(error) or type(error).__name__, offset=0) from None

    def data(self) -> bytes | None:
        """The bytes that it is; None for an object of another kind."""
        return Cursor(self.raw).read_bin("bytes") if self.raw[0] in _BIN else None

    def elements(self) -> list[Opaque] | None:
        """The objects of the array that it is; None for an object of another kind."""
        if self.raw[0] & 0xF0 != 0x90 and self.raw[0] not in _ARRAY:
            return None
        cursor = Cursor(self.raw)
        return [Opaque(cursor.skip("an object")) for _ in range(cursor.read_array("an array"))]

    @classmethod
    def array(cls, elements: Iterable[Opaque]) -> Opaque:
        """The array of some objects."""
        count, found = 0, bytearray()
        for count, each in enumerate(elements, 1):  # noqa: B007  # how many there were
            found += each.raw
        return cls(pack_array_head(count) + found)

    def to_json(self) -> Json:
        """The JSON form, value by value: plain; ``{"$hex": ...}`` for bytes; ``{"$msgpack": ...}`` for what JSON would change."""
        return _to_json(Cursor(self.raw))

    @classmethod
    def from_json(cls, value: Json) -> Opaque:
        """The other way. Raises ValueError where this is no such form."""
        try:
            return cls(_from_json(value))
        except RecursionError:
            raise ValueError("values nested too deep") from None
        except (OverflowError, UnicodeEncodeError) as error:
            raise ValueError(str(error)) from None


def _checked(raw: bytes) -> bytes:
    cursor = Cursor(raw)
    try:
        cursor.skip("an object")
    except FormatError as error:
        raise ValueError(f"no MessagePack object: expected {error.expected}, got {error.found}") from None
    if cursor.pos != len(raw):
        raise ValueError("bytes after the MessagePack object")
    return raw


def _from_hex(text: Json) -> bytes:
    if not isinstance(text, str):
        raise ValueError("hex digits should be a string")  # noqa: TRY004  # one error for every odd form
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError("no pairs of hex digits") from None


def _to_json(cursor: Cursor) -> Json:
    """The JSON form of the object at a place."""
    start = cursor.pos
    first = cursor.data[start]
    if first & 0xF0 == 0x90 or first in _ARRAY:
        count = cursor.read_array("an array")
        is_exact = cursor.data[start : cursor.pos] == pack_array_head(count)
        found: Json = [_to_json(cursor) for _ in range(count)]
    elif first & 0xF0 == 0x80 or first in _MAP:
        count = cursor.read_map("a map")
        is_exact = cursor.data[start : cursor.pos] == pack_map_head(count)
        found = {}
        for _ in range(count):
            key = _scalar_to_json(cursor.skip("a key"))
            is_exact = is_exact and isinstance(key, str) and not key.startswith("$") and key not in found
            found[key if isinstance(key, str) else ""] = _to_json(cursor)
    else:
        return _scalar_to_json(cursor.skip("an object"))
    return found if is_exact else _as_msgpack(cursor.data[start : cursor.pos])


def _scalar_to_json(raw: bytes) -> Json:
    value = None
    try:
        value = Opaque(raw).decode()
        is_exact = Opaque.of(value).raw == raw
    except (FormatError, ValueError, TypeError, OverflowError):
        is_exact = False
    if isinstance(value, bytes) and is_exact:
        return {"$hex": value.hex(" ")}
    is_plain = value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain and is_exact else _as_msgpack(raw)


def _as_msgpack(raw: bytes) -> Json:
    return {"$msgpack": raw.hex()}


def _from_json(value: Json) -> bytes:
    """The bytes of the object that a JSON form stands for. Raises ValueError for what is none."""
    if isinstance(value, list):
        return pack_array_head(len(value)) + b"".join(map(_from_json, value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number beyond the range of a float64")
    if not isinstance(value, dict):
        return Opaque.of(value).raw
    if value.keys() == {"$msgpack"}:
        return _checked(_from_hex(value["$msgpack"]))
    if value.keys() == {"$hex"}:
        return pack_bin(_from_hex(value["$hex"]))
    if any(key.startswith("$") for key in value):
        raise ValueError("a key that begins with $ means $hex or $msgpack, alone")
    return pack_map_head(len(value)) + b"".join(pack_str(key) + _from_json(each) for key, each in value.items())
