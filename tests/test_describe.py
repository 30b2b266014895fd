"""The description of what is written for another QEMU: the other one's own, fitted to the values."""

from __future__ import annotations

import json

import pytest
from conftest import stream_bytes
from qemu_streams import description, device, field
from test_qemu_export import ALL, imported

from tagged_vmstate.frames import label
from tagged_vmstate.qemu.decode import DeviceReader
from tagged_vmstate.qemu.describe import described, fitted
from tagged_vmstate.qemu.encode import encode_device
from tagged_vmstate.qemu.export import Origin
from tagged_vmstate.qemu.vmdesc import Struct, parse, structs_by_section
from tagged_vmstate.records import Records
from tagged_vmstate.snapshot import Snapshot


def struct_of(*fields: object, subsections: object = None) -> Struct:
    return parse(description(device("dev", *fields, subsections=subsections))[5:]).devices[0].struct


def again(struct: Struct, data: bytes) -> Records:
    """What the description says of some bytes, after it was written as JSON and read again."""
    other = description(device("dev"))[5:]
    [found] = structs_by_section(parse(described(other, {"dev#0": [struct]})).devices)["dev#0"]
    assert found == struct
    reader = DeviceReader(data)
    records = reader.read(found)
    assert reader.notes == []
    return records


@pytest.mark.parametrize("name", [name for name in ALL if "pc2.2" not in name])
def test_what_fits_stays_as_it_is_and_every_struct_can_be_written(name: str) -> None:
    origin = Origin(Snapshot.read(imported(stream_bytes(name))))
    data = origin.description()
    assert data
    written: dict[str, list[Struct]] = {}
    for section, said, struct in origin.items():
        if struct and "size" not in said:  # where the description alone does not lead to the bytes, it is not fitted
            assert fitted(struct, section.records()) == struct
            assert again(struct, encode_device(struct, section.records())) == section.records()
            written.setdefault(label(section.device, said.get("instance", section.instance)), []).append(struct)
    assert written
    assert described(data, written) == data


def inner(*fields: object) -> dict[str, object]:
    return {"vmsd_name": "s", "version": 1, "fields": list(fields)}


VIRTIO, WIDER = field("v", "virtio", 2), field("v", "virtio", 4)
NUMBERS = [field("a", "uint16", 2, array_len=count) for count in (2, 3)]
SINGLE = field("a", "uint16", 2)
TABLES = [field("t", "struct", 1, array_len=count, struct=inner(field("x", "uint8", 1))) for count in (2, 3)]


@pytest.mark.parametrize(
    ("before", "after", "data"),
    [
        (VIRTIO, WIDER, b"abcd"),
        (WIDER, VIRTIO, b"ab"),
        (NUMBERS[0], NUMBERS[1], b"\0\1\0\2\0\3"),
        (NUMBERS[1], NUMBERS[0], b"\0\1\0\2"),
        (SINGLE, NUMBERS[1], b"\0\1\0\2\0\3"),
        (NUMBERS[0], field("a", "uint16", 2, array_len=0), b""),
        (TABLES[0], TABLES[1], b"abc"),
        (TABLES[1], TABLES[0], b"ab"),
        (TABLES[0], field("t", "struct", 1, array_len=0, struct=inner(field("x", "uint8", 1))), b""),
    ],
)
def test_sizes_and_lengths_follow_the_values(before: object, after: object, data: bytes) -> None:
    """In a device, in a struct of it, in a subsection of that."""

    def nested(each: object, size: int) -> Struct:
        subsection = {"vmsd_name": "dev/more", "version": 1, "fields": [each]}
        whole = {**inner(each), "subsections": [subsection]}
        return struct_of(each, field("s", "struct", size, struct=whole))

    size = len(data)
    inside = data + b"\5\x08dev/more\0\0\0\1" + data
    records = DeviceReader(data + inside).read(nested(after, 2 * size + 14))
    assert isinstance(records[-1].value, tuple), "the case itself is right"
    found = fitted(nested(before, 2 * (struct_of(before).size) + 14), records)
    assert encode_device(found, records) == data + inside
    assert again(found, data + inside) == records


def test_elements_that_differ_in_size_get_an_entry_each() -> None:
    def entry(index: int, size: int) -> dict[str, object]:
        return field("t", "struct", size, index=index, struct=inner(field("v", "virtio", size)))

    records = DeviceReader(b"aabbbc").read(struct_of(entry(0, 2), entry(1, 3), entry(2, 1)))
    found = fitted(struct_of(field("t", "struct", 1, array_len=2, struct=inner(field("v", "virtio", 1)))), records)
    assert [each.size for each in found.fields] == [2, 3, 1]
    assert again(found, b"aabbbc") == records


def test_the_json_keeps_what_else_it_holds() -> None:
    data = description(device("dev", VIRTIO), device("other", VIRTIO), configuration={"x": 1})[5:]
    found = json.loads(described(data, {"dev#0": [struct_of(WIDER)]}))
    assert found["configuration"] == {"x": 1}
    assert [each["fields"][0]["size"] for each in found["devices"]] == [4, 2]


def test_an_array_that_only_qemu_can_read_keeps_its_entries() -> None:
    struct = struct_of(field("fpr", "cpudouble", 2, array_len=3), field("x", "uint8", 1))
    records = DeviceReader(b"aabbccx").read(struct)
    assert records[0].length == 3
    assert fitted(struct, records) == struct
    assert encode_device(struct, records) == b"aabbccx"
