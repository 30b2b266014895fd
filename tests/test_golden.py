"""Files of released versions of the format, never edited, load for ever; tests/data/README.md tells what they are."""

from __future__ import annotations

import lzma
import struct
from typing import Annotated, Any

from conftest import DATA

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, Machine, Record, Snapshot, Table
from tagged_vmstate.blocks import IntType
from tagged_vmstate.records import wire_type
from tagged_vmstate.types import LEAF_TYPES
from tagged_vmstate.wire import Opaque, float_from_bits

V1 = lzma.decompress((DATA / "format-v1.tvm.xz").read_bytes())
INTEGERS = {name: kind for name in LEAF_TYPES if isinstance(kind := wire_type(name), IntType)}
INNER = Table("inner", [Field("level", tv.uint8, default=0), Field("pair", Annotated[list[tv.uint16], Length(2)])])
NAN = float_from_bits(0x7FF8_0000_0000_1234, 8)


def _every_field() -> dict[str, tuple[Any, Any]]:
    """Each type of the format, alone and as an array, at its edges: name -> annotation and value."""
    found: dict[str, tuple[Any, Any]] = {
        "bool": (tv.boolean, True),
        "bools": (Annotated[list[tv.boolean], Length(3)], [True, False, True]),
    }
    for name, kind in INTEGERS.items():
        annotation = getattr(tv, name)
        found[f"{name} low"] = annotation, kind.low
        found[f"{name} high"] = annotation, kind.high
        found[f"{name}s"] = Annotated[list[annotation], Length(4)], [kind.low, 0, 1, kind.high]  # type: ignore[valid-type]  # one of ours
    found |= {
        "float32": (tv.float32, 0.1015625),
        "float32s": (Annotated[list[tv.float32], Length(2)], [-0.0, float("inf")]),
        "float64": (tv.float64, 0.1),
        "float64s": (Annotated[list[tv.float64], Length(2)], [5e-324, float("-inf")]),
        "string": (str, "Ünïcödé\n\0"),
        "strings": (Annotated[list[str], Length(2)], ["", "x" * 300]),
        "buffer": (Annotated[bytes, Length(300)], bytes(range(256)) + bytes(44)),
        "bitmap": (Annotated[tv.bitmap, Length(9)], b"\xff\x01"),
        "sparse": (Annotated[tv.sparse, Length(1 << 17)], bytearray(b"\1" + bytes(69_999) + b"\2\3" + bytes(61_070))),
        "struct": (Annotated[dict[str, Any], INNER], {"level": 7, "pair": [1, 0xFFFF]}),
        "absent": (Annotated[dict[str, Any] | None, INNER], None),
        "structs": (
            Annotated[list[Annotated[dict[str, Any], INNER]], Length(2)],
            [{"level": 1, "pair": [2, 3]}, {"level": 0, "pair": [4, 5]}],
        ),
    }
    return found


EVERY = Table("every", [Field(name, annotation) for name, (annotation, _) in _every_field().items()])
STATE = {name: value for name, (_, value) in _every_field().items()}
DEFAULTS = Table("defaults", [Field("unused", tv.uint8, default=3), Field("in use", tv.uint8, default=3)])
UNKNOWN = [
    Record("nan", "float64", None, NAN),
    Record("odd", "never-heard-of", 3, Opaque.of({"a": [1, None, -1, "s", b"b", 0.5]})),
    Record("nulls", "struct", 2, (None, (Record("x", "uint8", None, 1, is_default=True),))),
]


def test_a_file_of_format_version_1_loads_with_every_type_in_it() -> None:
    every, defaults = tv.Device({}, 0xFFFF_FFFF, EVERY), tv.Device({"unused": 9, "in use": 9}, table=DEFAULTS)
    Machine([every, defaults]).load(V1, unknown="ignore")
    assert every.state == STATE
    assert defaults.state == {"unused": 3, "in use": 4}


def test_a_file_of_format_version_1_reads_without_tables() -> None:
    snapshot = Snapshot.read(V1)
    assert snapshot.attributes == {"producer": "tagged-vmstate 0.1.0", "machine": "golden", "more": [1, {"a": None}]}
    found = [(section.label, section.kind, section.attributes) for section in snapshot]
    assert found == [
        ("every#4294967295", "section", {}),
        ("defaults#0", "section", {}),
        ("memory#1", "part", {"note": "first"}),
        ("unknown#0", "section", {}),
        ("memory#1", "section", {}),
    ]
    [_, defaults, first, unknown, last] = [section.records() for section in snapshot]
    assert [record.is_default for record in defaults] == [True, False]
    nan: Any = unknown[0].value
    assert struct.pack(">d", nan) == bytes.fromhex("7ff8000000001234")
    assert unknown[1:] == tuple(UNKNOWN[1:])
    assert first == (Record("ram", "sparse", 1 << 33, ((0, b"\1"), ((1 << 33) - 1, b"\2"))),)
    assert last == (Record("ram", "sparse", 1 << 33, ((4096, b"\3"),)), Record("size", "uint64", None, 1 << 33))


def test_a_file_of_format_version_1_has_every_type() -> None:
    assert {field.type.wire.name for field in EVERY.fields} == {*LEAF_TYPES, "struct"}
