"""What Hypothesis makes: records of every type and array form, sections, whole snapshots.

`records()`, `sections()` and `snapshots()` are what a writer of ours would write. A `spelling` of a record means
the same in the encodings that another language's library may choose.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

import msgpack
from hypothesis import strategies as st
from typing_extensions import override

from tagged_vmstate.frames import Kind
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import SnapshotWriter
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque, Piece, float_bits, float_from_bits

RANGES: Final = {
    **{f"int{width}": (-(1 << width - 1), (1 << width - 1) - 1) for width in (8, 16, 32, 64)},
    **{f"uint{width}": (0, (1 << width) - 1) for width in (8, 16, 32, 64)},
    "timer": (-(1 << 63), (1 << 63) - 1),
}
KNOWN: Final = frozenset({*RANGES, "bool", "float32", "float64", "buffer", "bitmap", "string", "sparse", "struct"})
MOST: Final = 4
"""Elements of an array, fields of a struct: every form is there with few."""


def names(longest: int = 12) -> st.SearchStrategy[str]:
    """Names of fields and types: any characters, controls and blanks included."""
    return st.one_of(
        st.sampled_from(["a", "env.regs[0]", "0000:00:02.0/vga", "queue/count", "_q_[1]", "é\n", "x" * 255]),
        st.text(min_size=1, max_size=longest),
    )


def integers(kind: str) -> st.SearchStrategy[int]:
    """Integers of a type, its edges often."""
    low, high = RANGES[kind]
    return st.one_of(st.sampled_from([low, high, 0, max(low, -1), 1, 127, min(high, 128)]), st.integers(low, high))


def floats(width: int) -> st.SearchStrategy[float]:
    """Floats of 4 or 8 bytes with any bits, signalling NaNs included."""
    bits = st.one_of(
        st.sampled_from([0, 1, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFC12345, 0x80000000, 0x3FC00000]),
        st.integers(0, (1 << 8 * width) - 1),
    )
    high = st.sampled_from([0, 0x7FF0000000000001, 0xFFF0000000000000, 0x7FF8000000000000, 1 << 63])
    return (bits if width == 4 else bits | high).map(lambda found: float_from_bits(found, width))


def plain_values() -> st.SearchStrategy[Any]:
    """Anything that the msgpack library can pack, extension objects and keys that are no strings included."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=8),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    )
    keys = st.one_of(st.text(max_size=6), st.sampled_from(["$hex", "$msgpack", "$"]), st.integers(-9, 9), st.binary(max_size=4))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=MOST), st.dictionaries(keys, inner, max_size=MOST)),
        max_leaves=6,
    )


ODD_VALUES: Final = tuple(
    Opaque(bytes.fromhex(raw))
    for raw in (
        "cd0001",  # 1, wider than need be
        "ca7f800001",  # a signalling NaN of 32 bits
        "82a16101a16102",  # a key twice
        "81800a",  # a map as a key
        "8191c00a",  # an array as a key
        "d9026162",  # a string with a longer head
        "dc000101",  # an array with a longer head
        "d6ff00000000",  # a date
        "c70cff3b9aca007fffffffffffffff",  # a date beyond reach
        "a2c328",  # a string that is no UTF-8
        "c7017f2a",  # an extension object
        "91" * 64 + "c0",  # as deep as may be
    )
)


def opaques() -> st.SearchStrategy[Opaque]:
    """MessagePack objects of any kind, in the shortest form and in others."""
    return st.one_of(plain_values().map(Opaque.of), st.sampled_from(ODD_VALUES))


def attributes() -> st.SearchStrategy[Opaque]:
    """Maps of strings to anything, in the shortest form and in others."""
    return st.one_of(
        st.just(Opaque(b"\x80")),
        st.dictionaries(st.text(max_size=6), plain_values(), max_size=MOST).map(Opaque.of),
        st.sampled_from(ODD_VALUES[:-1]).map(lambda odd: Opaque(b"\x81\xa1k" + odd.raw)),
        st.just(Opaque(b"\x82\xd9\x01k\x01\xda\x00\x01j" + b"\x91" * 62 + b"\x80")),  # names with longer heads, as deep as may be
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, Runs]:
    """The length of a sparse field, and its runs: apart, side by side, up to the last byte."""
    end = 0
    found = []
    for data in draw(st.lists(st.binary(min_size=1, max_size=8), max_size=MOST)):
        start = end + draw(st.sampled_from([0, 1, 9, 200, 4096, 1 << 33]))
        found.append((start, data))
        end = start + len(data)
    return end + draw(st.sampled_from([0, 1, 1 << 20])), tuple(found)


def _bitmap(bits: list[bool]) -> bytes:
    number = sum(bit << index for index, bit in enumerate(bits))
    return number.to_bytes((len(bits) + 7) // 8, "little")


def _one(kind: str, depth: int) -> st.SearchStrategy[Any]:
    if kind in RANGES:
        return integers(kind)
    if kind == "struct":
        return st.one_of(st.none(), siblings(depth - 1) if depth else st.just(()))
    found: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "float32": floats(4),
        "float64": floats(8),
        "string": st.text(max_size=40),
    }
    return found[kind]


@st.composite
def records(draw: st.DrawFn, kind: str | None = None, depth: int = 3) -> Record:
    """A field of any type, or of one: single, as an array (an empty one too), nested, absent, unknown.

    Args:
        draw: Hypothesis's.
        kind: The type; any unless given.
        depth: How deep structs may lie in it.
    """
    name = draw(names())
    if kind is None:
        kind = draw(st.one_of(st.sampled_from(sorted(KNOWN)), names().filter(lambda each: each not in KNOWN)))
    length: int | None
    value: Any
    if kind == "buffer":
        value = draw(st.binary(max_size=40))
        length = len(value)
    elif kind == "bitmap":
        bits = draw(st.lists(st.booleans(), max_size=20))
        length, value = len(bits), _bitmap(bits)
    elif kind == "sparse":
        length, value = draw(runs())
    elif kind not in KNOWN:
        length, value = draw(st.one_of(st.none(), st.integers(0, (1 << 64) - 1))), draw(opaques())
    elif draw(st.booleans()):
        value = draw(st.lists(_one(kind, depth), max_size=MOST))
        length = len(value)
    else:
        length, value = None, draw(_one(kind, depth))
    return flagged(Record(name, kind, length, value), is_default=draw(st.booleans()))


def flagged(record: Record, *, is_default: bool) -> Record:
    """A field with a flag, which it has only if all fields in it have theirs."""
    elements: Any = (record.value if record.length is not None else (record.value,)) if record.type == "struct" else ()
    inner = all(each.is_default for element in elements for each in element or ())
    return record.replace(is_default=is_default and inner)


def siblings(depth: int = 3) -> st.SearchStrategy[Records]:
    """Fields of which no two share a name."""
    return st.lists(records(depth=depth), max_size=MOST, unique_by=lambda record: record.name).map(tuple)


@st.composite
def sections(draw: st.DrawFn) -> list[Section]:
    """The sections of one snapshot: some whole, some in parts that lie between those of others."""
    labels = draw(
        st.lists(
            st.tuples(st.text(min_size=1, max_size=12), st.sampled_from([0, 1, 127, 128, (1 << 32) - 1])), max_size=4, unique=True
        )
    )
    turns = [label for label in labels for _ in range(draw(st.integers(1, 3)))]
    turns = draw(st.permutations(turns))
    # Only a sparse field repeats under one name over the parts of its section, and with one length.
    memory = {label: draw(st.tuples(names(), runs())) for label in labels}
    taken = {label: {memory[label][0]} for label in labels}
    found = []
    for place, label in enumerate(turns):
        kind: Kind = "part" if label in turns[place + 1 :] else "section"
        fields = draw(siblings())
        if turns.count(label) > 1:
            name, (length, value) = memory[label]
            fields = tuple(field for field in fields if field.name not in taken[label])
            taken[label] |= {field.name for field in fields}
            fields = (*fields, Record(name, "sparse", length, value))
        found.append(Section(*label, fields, kind=kind, attributes=draw(attributes())))
    return found


def snapshot_bytes(found: list[Section], header: Opaque = Opaque(b"\x80")) -> bytes:  # noqa: B008  # frozen
    """Sections as one snapshot."""
    file = io.BytesIO()
    with SnapshotWriter(file, header) as writer:
        for section in found:
            writer.write(section)
    return file.getvalue()


def snapshots() -> st.SearchStrategy[bytes]:
    """Whole snapshots as bytes."""
    return st.builds(snapshot_bytes, sections(), attributes())


class RawSection(Section):
    """A section whose fields are bytes that a foreign writer made."""

    def __init__(self, device: str, raw: bytes) -> None:
        super().__init__(device, 0, ())
        self._raw = raw

    @override
    def pieces(self) -> list[Piece]:
        return [self._raw]


Pick: TypeAlias = Callable[[list[bytes]], bytes]
"""Chooses one of several encodings of the same."""

_INTEGERS: Final = [
    (0xCC, ">B"),
    (0xCD, ">H"),
    (0xCE, ">I"),
    (0xCF, ">Q"),
    (0xD0, ">b"),
    (0xD1, ">h"),
    (0xD2, ">i"),
    (0xD3, ">q"),
]


def _integer(number: int, pick: Pick) -> bytes:
    found = [Opaque.of(number).raw]
    for first, code in _INTEGERS:
        try:
            found.append(bytes((first,)) + struct.pack(code, number))
        except (struct.error, ValueError):  # PyPy's for a negative number as `Q`
            continue
    return pick(found)


def _headed(data: bytes, firsts: tuple[int, ...], pick: Pick) -> bytes:
    widths = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    fitting = [first for first in firsts if len(data) < 1 << 8 * widths[first]]
    return pick([bytes((first,)) + len(data).to_bytes(widths[first], "big") for first in fitting]) + data


def _text(text: str, pick: Pick) -> bytes:
    return _headed(text.encode(), (0xD9, 0xDA, 0xDB), pick)


def _array(items: list[bytes], pick: Pick) -> bytes:
    size = len(items)
    return pick([b"\xdc" + size.to_bytes(2, "big"), b"\xdd" + size.to_bytes(4, "big")]) + b"".join(items)


def _float(value: float, pick: Pick) -> bytes:
    bits = float_bits(value, 8)
    found = [b"\xcb" + bits.to_bytes(8, "big")]
    try:
        narrow = float_bits(value, 4)
    except OverflowError:
        return found[0]
    if float_bits(float_from_bits(narrow, 4), 8) == bits:
        found.append(b"\xca" + narrow.to_bytes(4, "big"))
    return pick(found)


def _value(record: Record, pick: Pick) -> bytes:
    def struct_value(fields: Records | None) -> bytes:
        return b"\xc0" if fields is None else _array([spell(field, pick) for field in fields], pick)

    value: Any = record.value
    if record.type == "sparse":
        pairs = [(_integer(offset, pick), _headed(data, (0xC4, 0xC5, 0xC6), pick)) for offset, data in value]
        return _array([item for pair in pairs for item in pair], pick)
    if record.type in {"buffer", "bitmap"}:
        return _headed(value, (0xC4, 0xC5, 0xC6), pick)
    if record.type == "string":
        return _text(value, pick) if record.length is None else _array([_text(each, pick) for each in value], pick)
    if record.type == "struct":
        return struct_value(value) if record.length is None else _array([struct_value(each) for each in value], pick)
    if record.length is not None:
        head, block = _block(record)
        return _headed(block, (0xC4, 0xC5, 0xC6), pick) if head else block
    if record.type == "bool":
        return b"\xc3" if value else b"\xc2"
    return _float(value, pick) if record.type.startswith("float") else _integer(value, pick)


def _block(record: Record) -> tuple[bool, bytes]:
    """An array of numbers as its elements, little-endian."""
    values = cast("list[Any]", record.value)
    if record.type.startswith("float"):
        width = int(record.type[5:]) // 8
        return True, b"".join(float_bits(each, width).to_bytes(width, "little") for each in values)
    if record.type == "bool":
        return True, bytes(values)
    low, high = RANGES[record.type]
    width = (high - low).bit_length() // 8
    return True, b"".join(each.to_bytes(width, "little", signed=low < 0) for each in values)


def spell(record: Record, pick: Pick) -> bytes:
    """A record in encodings that `pick` chooses; it means the same whichever."""
    length = b"\xc0" if record.length is None else _integer(record.length, pick)
    value = cast("Opaque", record.value).raw if record.type not in KNOWN else _value(record, pick)
    items = [_text(record.name, pick), _text(record.type, pick), length, _integer(int(record.is_default), pick), value]
    return _array(items, pick)


@st.composite
def foreign_snapshots(draw: st.DrawFn) -> bytes:
    """Snapshots of one section whose fields came from a library that chose other encodings."""
    fields = draw(st.lists(records(), min_size=1, max_size=MOST, unique_by=lambda record: record.name))
    return snapshot_bytes(
        [RawSection("foreign", b"".join(spell(field, lambda found: draw(st.sampled_from(found))) for field in fields))]
    )
