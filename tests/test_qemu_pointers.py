"""Arrays of pointers with nulls as QEMU before 10 describes them: the right value, or bytes; never a wrong value."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from conftest import stream_bytes
from hypothesis import given
from hypothesis import strategies as st
from qemu_streams import EOF, MAGIC, description, device, field, full, short
from test_command import refused, run
from test_qemu_streams import fields

from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.decode import DeviceReader
from tagged_vmstate.qemu.encode import encode_device
from tagged_vmstate.qemu.vmdesc import parse
from tagged_vmstate.records import Record
from tagged_vmstate.wire import Opaque

A, B = field("a", "uint8", 1), field("b", "uint8", 1)
INSIDE = {"vmsd_name": "s", "version": 1, "fields": [field("x", "uint16", 2), field("y", "uint8", 1)]}
VARYING = {"vmsd_name": "s", "version": 1, "fields": [field("x", "uint16", 2), field("y", "qtailq", 1)]}
UNKNOWN = field("obj", "struct", 1, array_len=3, struct={})


def known(count: int, inside: object = INSIDE) -> dict[str, object]:
    return field("obj", "struct", 3, array_len=count, struct=inside)


def numbers(count: int, size: int) -> dict[str, object]:
    return field("obj", "uint32", size, array_len=count)


def plain(records: tuple[Record, ...] | None) -> Any:
    """Names and values, without types."""

    def value(found: Any) -> Any:
        if isinstance(found, Opaque):
            return found.decode()
        return plain(found) if isinstance(found, tuple) and found and isinstance(found[0], Record) else found

    return (
        records
        if records is None
        else {
            each.name: [value(element) for element in each.value]  # type: ignore[union-attr]
            if each.type == "struct" and each.length is not None
            else value(each.value)
            for each in records
        }
    )


N, ELEMENT, SEVEN = b"0", b"\1\2\3", b"\0\0\0\7"
X, VARIED = {"x": 0x0102, "y": 3}, {"x": 0x0102, "y": b"\3"}


@pytest.mark.parametrize(
    ("entry", "data", "elements"),
    [
        (UNKNOWN, b"000", [None, None, None]),
        (UNKNOWN, N + N + ELEMENT, [None, None, {"bytes@3": ELEMENT}]),
        (UNKNOWN, N + ELEMENT + N, [None, {"bytes@2": ELEMENT}, None]),
        (known(3), ELEMENT * 3, [X, X, X]),
        (known(3), ELEMENT + N + N, [X, None, None]),
        (known(3), ELEMENT + N + ELEMENT, [X, None, X]),
        (known(4), ELEMENT + ELEMENT + N + N, [X, X, None, None]),
        (known(3, VARYING), ELEMENT + N + ELEMENT, [VARIED, None, VARIED]),
        (numbers(3, 1), N + N + N, [None, None, None]),
        (numbers(3, 1), N + SEVEN + N, [None, {"value": 7}, None]),
        (numbers(3, 1), N + SEVEN + SEVEN, [None, {"value": 7}, {"value": 7}]),
        (numbers(3, 4), SEVEN + N + SEVEN, [{"value": 7}, None, {"value": 7}]),
    ],
)
def test_elements_and_what_follows_them(entry: dict[str, object], data: bytes, elements: list[Any]) -> None:
    records, notes = fields(b"", b"\5" + data + b"\xfe", A, entry, B)
    found = plain(records)
    assert found == {"a": 5, "obj": elements, "b": 254}
    assert bool(notes) == (b"bytes@" in repr(elements).encode())


@pytest.mark.parametrize(
    ("entries", "data", "kept"),
    [
        ((UNKNOWN, UNKNOWN), N + N + ELEMENT + N + N + N, "bytes@1"),
        ((UNKNOWN, known(3)), N + N + SEVEN + ELEMENT + N + ELEMENT, "bytes@1"),
        ((known(4), known(2, VARYING)), ELEMENT + N * 3 + ELEMENT * 2, "bytes@1"),
        ((known(3, VARYING),), ELEMENT * 4, "bytes@1"),
        ((known(3),), ELEMENT * 2, "bytes@1"),
        ((numbers(3, 4),), SEVEN + N * 4, "bytes@1"),
        ((UNKNOWN,), b"000more", "bytes@1"),
    ],
    ids=["two", "a second that may have nulls", "elements that vary", "no nulls", "a hole", "no division", "more behind"],
)
def test_what_is_not_certain_is_bytes_to_the_end(entries: tuple[dict[str, object], ...], data: bytes, kept: str) -> None:
    named = [{**each, "name": f"obj{number}"} for number, each in enumerate(entries)]
    records, notes = fields(b"", b"\5" + data + b"\xfe", A, *named, B)
    assert [record.name for record in records] == ["a", kept]
    assert "kept as bytes" in notes[0]


@pytest.mark.parametrize("data", [b"00\1\x020", b"0\1\2\3\4"], ids=["two ways", "no way"])
def test_elements_that_cannot_be_told_apart_are_one_buffer(data: bytes) -> None:
    """Yet the length of the section shows where the array ends."""
    records, notes = fields(b"", b"\5" + data + b"\xfe", A, UNKNOWN, B)
    assert plain(records) == {"a": 5, "obj": data, "b": 254}
    assert notes == ["dev#0: `obj`: QEMU describes only its first element; kept as bytes"]


@pytest.mark.parametrize("entry", [UNKNOWN, numbers(1, 1), field("obj", "nullptr", 1)])
@pytest.mark.parametrize("count", [1 << 40, 1 << 63])
def test_more_elements_than_memory_has_are_bytes(entry: dict[str, object], count: int) -> None:
    [struct] = [
        each.struct for each in parse(json.dumps({"devices": [device("dev", entry | {"array_len": count})]}).encode()).devices
    ]
    assert plain(DeviceReader(b"000").read(struct)) == {"bytes@0": b"000"}


def test_in_structs_and_subsections() -> None:
    """A struct has the length that is described; a subsection has none."""
    inner = {"vmsd_name": "p", "version": 1, "fields": [UNKNOWN, B]}
    data = b"\x05" + N + N + ELEMENT + b"\7" + b"\x05" + short("dev/s") + struct.pack(">I", 1) + N + N + ELEMENT + b"\x09"
    sub = {"vmsd_name": "dev/s", "version": 1, "fields": [UNKNOWN, B]}
    records, _ = fields(b"", data, A, field("p", "struct", 6, struct=inner), subsections=[sub])
    found = plain(records)
    assert (found["a"], found["p"]["b"], found["dev/s"]["b"]) == (5, 7, 9)
    assert found["dev/s"]["obj"][2] == {"bytes@20": ELEMENT}


def test_many_elements() -> None:
    data = (ELEMENT + N) * 2000
    records, notes = fields(b"", data + b"\xfe", known(4000), B)
    assert plain(records) == {"obj": [X, None] * 2000, "b": 254}
    assert notes == []


def test_more_ways_than_are_tried() -> None:
    """All bytes look like nulls."""
    data = ELEMENT + N * (2000 + 3 * 1999)
    records, notes = fields(b"", data + b"\xfe", known(4000), B)
    assert (records[0].describe(), records[1].value) == (f"buffer[{len(data)}]", 254)
    assert len(notes) == 1


BYTE = st.sampled_from([0, 1, 0x30, 0x31])
ELEMENTS = st.lists(st.none() | st.tuples(BYTE, BYTE, BYTE), min_size=2, max_size=4)


@given(values=st.lists(BYTE | ELEMENTS, max_size=5), is_number=st.booleans())
def test_right_or_bytes(values: list[Any], *, is_number: bool) -> None:
    """As QEMU 7.2 writes and describes single values and arrays of pointers: none is read as what it is not."""
    described: list[object] = []
    data, truth = b"", dict[str, Any]()
    for number, each in enumerate(values):
        name = f"f{number}"
        if isinstance(each, int):
            described.append(field(name, "uint8", 1))
            data += bytes((each,))
            truth[name] = each
            continue
        written = [N if one is None else bytes((0, *one) if is_number else one) for one in each]
        more: dict[str, object] = {} if is_number else {"struct": {} if each[0] is None else INSIDE}
        described.append(field(name, "uint32" if is_number else "struct", len(written[0]), array_len=len(each), **more))
        data += b"".join(written)
        truth[name] = [None if one is None else _fields(one, is_number=is_number) for one in each]
    [dev] = parse(json.dumps({"devices": [device("dev", *described)]}).encode()).devices
    reader = DeviceReader(data)
    records = reader.read(dev.struct)
    assert encode_device(dev.struct, records, None if reader.is_described else len(data)) == data
    found = plain(tuple(record for record in records if record.type != "buffer"))
    for name, value in found.items():
        if isinstance(value, int):
            assert value == truth[name]
        elif isinstance(value, memoryview):
            assert [{"value": one} for one in value] == truth[name]
        elif is_number or truth[name][0]:  # else nothing says what an element is
            assert value == truth[name]


def _fields(element: tuple[int, int, int], *, is_number: bool) -> dict[str, int]:
    number = int.from_bytes(bytes(element), "big")
    return {"value": number} if is_number else {"x": number >> 8, "y": number & 255}


def test_a_real_array_of_254_nulls_and_a_pointer() -> None:
    """The channel subsystem of QEMU 7.2: by the description alone `default_cssid` would be 0."""
    [css] = [each for each in import_stream(stream_bytes("s390x-qemu7.2")) if each.device == "s390_css"]
    found = plain(tuple(css.records()))
    assert found["default_cssid"] == 254
    assert [place for place, each in enumerate(found["css"]) if each] == [254]
    assert len(found["css"]) == 256


class TestCommands:
    STREAM = MAGIC + full(1, "pads", b"\x05" + N + N + SEVEN + b"\xfe") + EOF + description(device("pads", A, UNKNOWN, B))
    UNCLEAR = (
        MAGIC
        + full(1, "pads", b"\x05" + (N + N + ELEMENT) * 2 + b"\xfe")
        + EOF
        + description(device("pads", A, UNKNOWN, {**UNKNOWN, "name": "two"}, B))
    )

    def test_set_changes_the_byte_of_the_field(self, tmp_path: Path) -> None:
        (tmp_path / "a.mig").write_bytes(self.STREAM)
        for source, target in (("a.mig", "a.mig"), ("a.mig", "b.mig")):
            assert run("set", tmp_path / source, "pads", "b", "7", "-o", tmp_path / target).returncode == 0
        assert (tmp_path / "b.mig").read_bytes() == self.STREAM.replace(b"\xfe", b"\7")
        for length, words in ((b"\1\2", "buffer"), (b"\1\2\3\4\5", "buffer")):
            assert words in refused("set", tmp_path / "a.mig", "pads", "obj[2]/bytes@3", length.hex(), "-o", tmp_path / "c.mig")

    def test_set_refuses_what_lies_in_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.mig").write_bytes(self.UNCLEAR)
        run("import", tmp_path / "a.mig", "-o", tmp_path / "a.tvm")
        for source in ("a.mig", "a.tvm"):
            for path in ("b", "two", "obj[2]"):
                said = refused("set", tmp_path / source, "pads", path, "7", "-o", tmp_path / "out")
                assert f"no field `pads/{path}`: what could not be interpreted is kept as bytes, pads#0/bytes@1" in said
        assert not (tmp_path / "out").exists()
