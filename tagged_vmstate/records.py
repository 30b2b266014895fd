"""Field records: name, type, length, flags and value, to and from bytes, to and from JSON.

    field = [ name, type, length, flags, value ]

A record read keeps the bytes it was read from: written again it is the same to the byte, whatever
encodings its writer chose. A record made here is written in the one form that the format prescribes.
No tables are known in this room: what a field may hold is what its own type says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from typing_extensions import override

from tagged_vmstate.errors import FormatError, LimitError, StateError, VMStateError
from tagged_vmstate.paths import PathPart
from tagged_vmstate.types import LEAF_TYPES, OpaqueType, Runs, elements_in_pieces, unpack_elements
from tagged_vmstate.wire import (
    APART,
    NESTING,
    NIL,
    Bytes,
    Cursor,
    Json,
    Opaque,
    Piece,
    gathered,
    joined,
    pack_array_head,
    pack_str,
    pack_uint,
)
from tagged_vmstate.wiretype import BulkType, WireType, brief, indexed

Value: TypeAlias = "bool | int | float | str | bytes | memoryview | Runs | Opaque | Sequence[Value] | Records | None"
"""What a record holds: see `types` for each type; for a struct its records, or None where it is absent."""

IS_DEFAULT: Final = 0x01
"""The one flag there is: the stored value equals the writer's default."""

AT_DEFAULT: Final = "only fields at their default in a struct that is flagged is_default"
IN_USE: Final = "one that is not flagged"

NAME_BYTES: Final = 255
"""The length of a name in UTF-8: what a QEMU idstr can hold."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a reader takes from bytes that it cannot trust. Each has a reason; a caller can change each.

    Attributes:
        nesting: Structs within structs; real devices have three or four, a stack overflows at about a thousand.
        attributes: Bytes of the attributes of a header or frame: they are read before any sum is checked.
        frame: Bytes of one frame's fields: CRC-32 and a 32-bit machine carry no more.
        filled: Bytes of memory that the elements of lists with a MaxLength may take for what a section does not have: their
            defaults, `sparse` memory, the elements themselves. For each byte of the section it is 24 more. An element that is
            saved with all its fields never counts for more than that.
    """

    nesting: int = NESTING
    attributes: int = 1 << 20
    frame: int = 1 << 32
    filled: int = 1 << 22


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Record:
    """One field of a snapshot.

    Attributes:
        name: Up to 255 bytes of UTF-8; no character has a meaning.
        type: The name of its wire type, which this build need not know.
        length: None for a single value, else elements, bytes or bits, as the type counts.
        value: As its type has it.
        is_default: The value equals the default that the writer declared.
        offset: Byte offset in the snapshot it was read from; -1 for one made here.
        encoded: The bytes it was read from; None for one made here, for a big one that has the prescribed form anyway, or
            once nested in a struct.
    """

    name: str
    type: str
    length: int | None
    value: Value
    is_default: bool = False
    offset: int = field(default=-1, compare=False, repr=False)
    encoded: bytes | None = field(default=None, compare=False, repr=False)

    def replace(self, **changes: object) -> Record:
        """A copy with other values; it is then written in the prescribed form."""
        old = {"name": self.name, "type": self.type, "length": self.length, "value": self.value, "is_default": self.is_default}
        return Record(**{**old, **changes})  # type: ignore[arg-type]  # the constructor's own names

    def describe(self) -> str:
        """Its type as people write it: ``uint32[4]``."""
        return wire_type(self.type).describe(self.length)


Records: TypeAlias = tuple[Record, ...]


class StructType(BulkType):
    """``struct``: an array of fields, or nil where it is absent."""

    name = "struct"

    @override
    def pieces(self, value: object, length: int | None, nesting: int = NESTING) -> list[Piece]:
        """The value, where structs may lie `nesting` levels deep from here."""
        if not nesting:
            raise StateError(f"at most {NESTING} levels of structs", "more")
        if length is None:
            return self._one_in_pieces(value, nesting)
        if not isinstance(value, Sequence):
            raise StateError(f"`{self.describe(length)}`", brief(value))
        elements = elements_in_pieces(self, value, length, lambda each: self._one_in_pieces(each, nesting))
        return gathered(elements)

    @staticmethod
    def _one_in_pieces(value: object, nesting: int) -> list[Piece]:
        if value is None:
            return [NIL]
        value = tuple(value) if isinstance(value, Sequence) else value
        if not isinstance(value, tuple) or not all(isinstance(record, Record) for record in value):
            raise StateError("`struct` as a sequence of records", brief(value))
        return gathered((pack_array_head(len(value)), *all_pieces(value, nesting - 1)))

    @override
    def unpack(self, cursor: Cursor, length: int | None, nesting: int = NESTING) -> object:
        """The value, where structs may lie `nesting` levels deep from here."""
        if not nesting:
            raise LimitError(f"at most {NESTING} levels of structs", "more", offset=cursor.base + cursor.pos)
        if length is None:
            return self._unpack_one(cursor, nesting)
        return unpack_elements(self, cursor, length, lambda _: self._unpack_one(cursor, nesting))

    def _unpack_one(self, cursor: Cursor, nesting: int) -> Records | None:
        if cursor.read_nil():
            return None
        count = cursor.read_array("`struct` (an array of fields, or nil)")
        return _unique(tuple(_decode_one(cursor, nesting - 1) for _ in range(count)))

    @override
    def to_json(self, value: Any, length: int | None) -> Json:
        if length is None:
            return self._one_to_json(value)
        return [self._one_to_json(each) for each in value]

    @staticmethod
    def _one_to_json(value: Any) -> Json:
        return None if value is None else [to_json(record) for record in value]

    @override
    def from_json(self, value: Json, length: int | None) -> object:
        if length is None or not isinstance(value, list):
            return self._one_from_json(value)
        return tuple(indexed(self._one_from_json, value))

    @staticmethod
    def _one_from_json(value: Json) -> Records | None:
        if value is None:
            return None
        if not isinstance(value, list):
            raise StateError("`struct` as a list of fields, or null", brief(value))
        return tuple(map(from_json, value))


_STRUCT: Final = StructType()
_TYPES: Final[dict[str, WireType]] = {**LEAF_TYPES, _STRUCT.name: _STRUCT}


def wire_type(name: str) -> WireType:
    """The wire type of a name; one that keeps values as they stand for a name that this build does not know."""
    return _TYPES.get(name) or OpaqueType(name)


def is_known_type(name: str) -> bool:
    """Whether this build knows what a wire type means."""
    return name in _TYPES


def bytes_of(record: Record) -> bytes | None:
    """The bytes that a record holds: of a `buffer`, a `bitmap` or a type that only its writer knows; None where it holds none."""
    value = record.value.data() if isinstance(record.value, Opaque) else record.value
    return value if isinstance(value, bytes) else None


def elements_of(record: Record) -> Sequence[Value] | None:
    """The elements of an array that are values of their own, as structs and strings are; None for any other record."""
    if isinstance(record.value, Opaque):
        return record.value.elements()
    has_elements = record.length is not None and record.type in {"struct", "string"}
    return cast("Sequence[Value]", record.value) if has_elements else None


def encode(record: Record) -> bytes:
    """The bytes of a record: those it was read from, else the prescribed form.

    Raises:
        StateError: Its name, length or value is none that the format can hold.
    """
    return joined(pieces(record))


def encode_plain(record: Record) -> bytes:
    """The bytes of a record in the prescribed form, whatever it was read from. Raises StateError as `encode` does."""
    return joined(plain_pieces(record))


def pieces(record: Record, nesting: int = NESTING) -> Sequence[Piece]:
    """The bytes that `encode` gives in pieces, what is big in its value as it lies in memory.

    Args:
        record: The record.
        nesting: How deep structs may lie in it.

    Raises:
        StateError: As `encode` does.
    """
    return plain_pieces(record, nesting) if record.encoded is None else (record.encoded,)


def plain_pieces(record: Record, nesting: int = NESTING) -> Sequence[Piece]:
    """The bytes that `encode_plain` gives in pieces. Raises StateError as `encode` does."""
    kind = wire_type(record.type)
    try:
        head = encode_name(record.name) + encode_name(record.type, "a type")
        length, misfit = record.length, kind.misfit(record.length)
        if misfit or (length is not None and not 0 <= length < 1 << 64):
            raise StateError(misfit or "a length of 0 to 2**64-1", brief(length))
        middle = (NIL if length is None else pack_uint(length)) + (b"\x01" if record.is_default else b"\x00")
        nested = kind is _STRUCT
        value = _STRUCT.pieces(record.value, length, nesting) if nested else kind.pieces(record.value, length)
        in_use = _in_use(record)
        if in_use:
            raise StateError(AT_DEFAULT, IN_USE, path=in_use[0])
        return gathered((b"\x95" + head + middle, *value))
    except OverflowError:
        raise StateError(
            f"`{kind.describe(record.length)}` that MessagePack can hold (below 4 GiB)", "more", path=(record.name,)
        ) from None
    except StateError as error:
        error.under(record.name)
        raise


def encode_name(name: str, what: str = "a name") -> bytes:
    """A name as MessagePack. Raises StateError for what can be none."""
    try:
        size = len(name.encode())
    except (UnicodeEncodeError, AttributeError):
        size = 0
    if not 1 <= size <= NAME_BYTES:
        raise StateError(f"{what} of 1 to {NAME_BYTES} bytes of UTF-8", brief(name))
    return pack_str(name)


def all_pieces(records: Iterable[Record], nesting: int = NESTING) -> list[Piece]:
    """The bytes of sibling records in pieces. Raises StateError as `encode` does, also for two of one name."""
    siblings = tuple(records)
    twice = _first_twice(siblings)
    if twice:
        raise StateError("a name once among its siblings", "it twice", path=(twice.name,))
    return gathered(piece for record in siblings for piece in pieces(record, nesting))


def decode_all(data: Bytes, base: int = 0, limits: Limits = LIMITS) -> Records:
    """All records of a frame's payload.

    Args:
        data: The payload.
        base: Its byte offset in the snapshot, for errors.
        limits: How deep structs may lie in each other.

    Raises:
        FormatError: They are no records, or two share a name.
        LimitError: They nest too deep.
    """
    cursor = Cursor(data, base)
    found = []
    while cursor.pos < len(data):
        start = cursor.pos
        try:
            record = _decode_one(cursor, limits.nesting)
            encoded = _as_it_stands(data, start, cursor.pos, record, limits.nesting)
        except RecursionError:
            raise LimitError("structs as deep as the caller leaves room for", "more", offset=base + start) from None
        object.__setattr__(record, "encoded", encoded)
        found.append(record)
    return _unique(tuple(found))


def run_places(cursor: Cursor, runs: Runs) -> Iterator[int]:
    """Where in the snapshot the bytes of each run of a sparse field begin.

    Args:
        cursor: At the beginning of its record.
        runs: Its value, decoded from there.
    """
    cursor.read_array("a field")
    for what in ("a name", "a type", "a length", "flags"):
        cursor.skip(what)
    cursor.read_array("runs")
    for _ in runs:
        cursor.read_int("an offset")
        size = cursor.read_bin_head("bytes")
        yield cursor.base + cursor.pos
        cursor.pos += size


def _as_it_stands(data: Bytes, start: int, end: int, record: Record, nesting: int) -> bytes | None:
    """The bytes of a record; None for many, left in the file, that are in the prescribed form: they need no room."""
    if end - start < APART or isinstance(data, bytes):
        return data[start:end]
    at = start
    for piece in plain_pieces(record, nesting):
        if not data.startswith(piece, at):
            return data[start:end]
        at += len(piece)
    return None if at == end else data[start:end]


def _decode_one(cursor: Cursor, nesting: int) -> Record:
    start = cursor.pos
    if cursor.read_array("a field (an array of 5 items)") != 5:
        raise cursor.error("a field (an array of 5 items)", "an array of another length", start)
    name = read_name(cursor, "the name of a field")
    try:
        kind = wire_type(read_name(cursor, "the type of a field"))
        length = read_length(cursor, kind)
        at = cursor.pos
        flags = cursor.read_int("flags")
        if flags not in {0, IS_DEFAULT}:
            raise cursor.error("flags 0 or 1 (is_default); all other bits are reserved", f"0x{flags:x}", at)
        value = _STRUCT.unpack(cursor, length, nesting) if kind is _STRUCT else kind.unpack(cursor, length)
    except FormatError as error:
        error.under(name)
        raise
    record = Record(name, kind.name, length, value, flags == IS_DEFAULT, cursor.base + start)  # type: ignore[arg-type]  # what its type unpacks
    in_use = _in_use(record)
    if in_use:
        raise FormatError(AT_DEFAULT, IN_USE, offset=in_use[1].offset, path=(name, *in_use[0]))
    return record


def read_name(cursor: Cursor, what: str) -> str:
    """A name of 1 to 255 bytes. Raises FormatError, LimitError for a longer one."""
    start = cursor.pos
    name = cursor.read_str(what)
    if not name or (cursor.pos - start > NAME_BYTES and len(name.encode()) > NAME_BYTES):
        refusal = LimitError if name else FormatError
        raise refusal(f"{what}, of 1 to {NAME_BYTES} bytes", f"one of {len(name.encode())}", offset=cursor.base + start)
    return name


def read_length(cursor: Cursor, kind: WireType) -> int | None:
    """A length that a type can have. Raises FormatError."""
    start = cursor.pos
    length = None if cursor.read_nil() else cursor.read_int("a length, or nil")
    misfit = kind.misfit(length)
    if misfit or (length is not None and length < 0):
        raise cursor.error(misfit or "a length of 0 or more", "nil" if length is None else str(length), start)
    return length


def _in_use(record: Record) -> tuple[tuple[PathPart, ...], Record] | None:
    """The first field that contradicts the flag of its struct, and the way to it from there; None where all is well.

    A loader that does not know the struct goes by its flag, and would lose what is in use. Structs further in have their own.
    """
    if not record.is_default or record.type != _STRUCT.name:
        return None
    structs = (record.value,) if record.length is None else record.value
    for index, fields in enumerate(cast("Sequence[Records | None]", structs)):
        for each in fields or ():
            if not each.is_default:
                return (each.name,) if record.length is None else (index, each.name), each
    return None


def _first_twice(records: Records) -> Record | None:
    names: set[str] = set()
    for record in records:
        if record.name in names:
            return record
        names.add(record.name)
    return None


def _unique(records: Records) -> Records:
    twice = _first_twice(records)
    if twice:
        raise FormatError("a name once among its siblings", "it twice", offset=twice.offset, path=(twice.name,))
    return records


_KEYS: Final = frozenset({"name", "type", "length", "is_default", "value", "msgpack"})


def to_json(record: Record) -> Json:
    """A record as JSON holds it.

    One whose writer chose other encodings than the prescribed ones carries its bytes under ``msgpack``,
    so that it goes back as it came.
    """
    found = {**head_to_json(record), "value": wire_type(record.type).to_json(record.value, record.length)}
    if is_foreign(record):
        found["msgpack"] = cast("bytes", record.encoded).hex()
    return found


def head_to_json(record: Record) -> dict[str, Json]:
    """A record as JSON holds it, without its value."""
    found: dict[str, Json] = {"name": record.name, "type": record.type}
    if record.length is not None:
        found["length"] = record.length
    if record.is_default:
        found["is_default"] = True
    return found


def is_foreign(record: Record) -> bool:
    """Whether a record was read from other bytes than the prescribed form of it."""
    return record.encoded is not None and record.encoded != encode_plain(record)


def from_json(value: Json) -> Record:
    """The other way. Where ``msgpack`` is there and still means the same, its bytes are the record's.

    Raises:
        StateError: This is no field; the path says where.
    """
    if not isinstance(value, dict):
        raise StateError("a field as an object", brief(value))
    name = value.get("name")
    if not isinstance(name, str):
        raise StateError('a field with "name" as a string', brief(name))
    try:
        record = _from_json(name, value)
        came = _as_it_came(value["msgpack"]) if "msgpack" in value else None
    except StateError as error:
        error.under(name)
        raise
    return came if came and encode_plain(came) == encode_plain(record) else record


def _from_json(name: str, value: dict[str, Json]) -> Record:
    kind, length, is_default = value.get("type"), value.get("length"), value.get("is_default", False)
    if not isinstance(kind, str):
        raise StateError('"type" as a string', brief(kind))
    if "length" in value and (isinstance(length, bool) or not isinstance(length, int)):
        raise StateError('"length" as an integer', brief(length))
    if not isinstance(is_default, bool):
        raise StateError('"is_default" as true or false', brief(is_default))
    if "value" not in value:
        raise StateError('"value"', "none")
    odd = value.keys() - _KEYS
    if odd:
        raise StateError(f"no keys but {', '.join(sorted(_KEYS))}", brief(min(odd)))
    return Record(name, kind, length, wire_type(kind).from_json(value["value"], length), is_default)  # type: ignore[arg-type]


def _as_it_came(hint: Json) -> Record:
    try:
        [came] = decode_all(bytes.fromhex(hint))
    except (ValueError, TypeError, VMStateError):
        raise StateError('"msgpack" as the bytes of one field in hex', brief(hint)) from None
    return came
