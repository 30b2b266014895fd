"""Streams made by hand: every shape that QEMU writes, and everything that can be wrong with one."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hostile import ACCEPTED, REFUSED, capabilities, numbered
from hypothesis import given
from hypothesis import strategies as st
from qemu_streams import (
    EOF,
    MAGIC,
    blocks,
    configuration,
    description,
    device,
    field,
    footer,
    full,
    head,
    page,
    ram,
    rebuilt,
    short,
    word,
)

from tagged_vmstate.errors import FormatError, LimitError, VMStateError
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, write
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque

DATA_PAGE = bytes(range(256)) * 16
DEV = device("dev", field("a", "uint32", 4), field("b", "uint8", 1))
SMALL = b"".join(
    [
        MAGIC,
        configuration("pc"),
        ram(blocks(mem=8192), page(0, DATA_PAGE, "mem") + page(4096, b"\0"), b""),
        full(3, "dev", b"\0\0\0\x07\x09"),
        EOF,
        description(DEV),
    ]
)


def load(data: bytes) -> tuple[dict[str, list[Section]], list[str]]:
    found = import_stream(io.BytesIO(data))
    sections: dict[str, list[Section]] = {}
    for section in found:
        sections.setdefault(section.label, []).append(section)
    return sections, found.notes


def fields(
    data: bytes, fields_bytes: bytes, *described: object, subsections: object = None
) -> tuple[tuple[Record, ...], list[str]]:
    """The records of one device, and the notes."""
    stream = MAGIC + full(1, "dev", fields_bytes) + EOF + description(device("dev", *described, subsections=subsections)) + data
    sections, notes = load(stream)
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream)), file)
    assert rebuilt(file.getvalue()) == stream, "whatever the shape, the same bytes come out again"
    return sections["dev#0"][0].records(), notes


def values(records: tuple[Record, ...]) -> list[tuple[str, str, Any]]:
    return [
        (each.name, each.describe(), each.value.tolist() if isinstance(each.value, memoryview) else each.value)
        for each in records
    ]


class TestShapes:
    """How the description tells a device's fields."""

    def test_numbers(self) -> None:
        data = struct.pack(">bBhHiIqQ?q", -1, 255, -2, 3, -4, 5, -6, 7, True, -1) + struct.pack(">iIB", 8, 9, 10)
        names = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "timer"]
        sizes = [1, 1, 2, 2, 4, 4, 8, 8, 1, 8]
        described = [field(name, name, size) for name, size in zip(names, sizes, strict=True)]
        odd = [field("le", "int32 le", 4), field("eq", "uint32 equal", 4), field("eq8", "uint8 equal", 1)]
        records, notes = fields(b"", data, *described, *odd)
        assert [record.value for record in records] == [-1, 255, -2, 3, -4, 5, -6, 7, True, -1, 8, 9, 10]
        assert [record.type for record in records] == [*names, "int32", "uint32", "uint8"]
        assert notes == []

    def test_an_array_by_its_length(self) -> None:
        records, _ = fields(b"", b"\0\x01\0\x02", field("a", "uint16", 2, array_len=2))
        assert values(records) == [("a", "uint16[2]", [1, 2])]

    @pytest.mark.parametrize("last", [{"index": 2}, {}], ids=["7.2", "10"])
    def test_an_array_by_its_indexes(self, last: dict[str, int]) -> None:
        entries = [field("a", "uint16", 2, index=0), field("a", "uint16", 2, index=1), field("a", "uint16", 2, **last)]
        records, _ = fields(b"", b"\0\x01\0\x02\0\x03", *entries)
        assert values(records) == [("a", "uint16[3]", [1, 2, 3])]

    def test_structs_whose_elements_differ(self) -> None:
        one = {"vmsd_name": "one", "version": 1, "fields": [field("x", "uint8", 1)]}
        two = {**one, "fields": [field("x", "uint8", 1), field("y", "uint8", 1)]}
        entries = [field("s", "struct", 1, index=0, struct=one), field("s", "struct", 2, struct=two)]
        [record], _ = fields(b"", b"\x01\x02\x03", *entries)
        elements: Any = record.value
        assert record.describe() == "struct[2]"
        assert [[(each.name, each.value) for each in element] for element in elements] == [[("x", 1)], [("x", 2), ("y", 3)]]

    def test_pointers_with_nulls_in_runs(self) -> None:
        inside = {"vmsd_name": "p", "version": 1, "fields": [field("x", "uint8", 1)]}
        entries = [
            field("p", "struct", 1, array_len=2, struct=inside),
            field("p", "nullptr", 1, array_len=2),
            field("p", "struct", 1, struct=inside),
        ]
        [record], notes = fields(b"", b"\x01\x0200\x03", *entries)
        elements: Any = record.value
        assert [element and element[0].value for element in elements] == [1, 2, None, None, 3]
        assert notes == []

    def test_pointers_to_numbers_with_nulls(self) -> None:
        [record], _ = fields(b"", b"\0\x010", field("p", "uint16", 2, index=0), field("p", "nullptr", 1))
        elements: Any = record.value
        assert record.describe() == "struct[2]"
        assert [element and element[0].value for element in elements] == [1, None]

    def test_inline_structs(self) -> None:
        inside = {"vmsd_name": "t", "version": 1, "fields": [field("x", "uint8", 1)]}
        records, _ = fields(b"", b"\x01\x02", field("t", "tmp", 1, **inside), field("v", "vstruct", 1, **inside))
        inner: Any = [record.value for record in records]
        assert [[each.value for each in value] for value in inner] == [[1], [2]]

    def test_what_only_qemu_reads(self) -> None:
        inside = {"vmsd_name": "q", "version": 1, "fields": [field("x", "uint8", 1)]}
        records, notes = fields(b"", b"\x01\x02\0", field("list", "qtailq", 3, **inside))
        assert [(record.type, record.length) for record in records] == [("qtailq", 3)]
        assert notes == []

    def test_buffers_and_bitmaps(self) -> None:
        records, _ = fields(b"", b"ab" + b"\0" * 7 + b"\x05", field("b", "buffer", 2), field("m", "bitmap", 8))
        assert values(records) == [("b", "buffer[2]", b"ab"), ("m", "bitmap[64]", b"\x05" + b"\0" * 7)]

    def test_subsections(self) -> None:
        sub = {"vmsd_name": "dev/sub", "version": 2, "fields": [field("x", "uint8", 1)]}
        data = b"\x01" + b"\x05" + short("dev/sub") + b"\0\0\0\x02" + b"\x09"
        records, notes = fields(b"", data, field("a", "uint8", 1), subsections=[sub])
        inner: Any = records[1].value
        assert (records[1].name, inner[0].value) == ("dev/sub", 9)
        assert notes == []

    def test_two_fields_of_one_name_are_kept_apart(self) -> None:
        records, _ = fields(b"", b"\x01\x02\x03", field("a", "uint8", 1), field("b", "uint8", 1), field("a", "uint8", 1))
        assert [(record.name, record.value) for record in records] == [("a", 1), ("b", 2), ("a#2", 3)]

    def test_numbers_pass_the_names_that_are_there(self) -> None:
        long = "a" * 255
        names = ["a", "a#2", "b", "a", "b", "a#2", long, "b", long, "b", long]
        records, _ = fields(b"", bytes(len(names)), *(field(name, "uint8", 1) for name in names))
        free = ["a", "a#2", "b", "a#3", "b#2", "a#2#2", long, "b#3", "field@8", "b#4", "field@10"]
        assert [record.name for record in records] == free

    @pytest.mark.parametrize("numbers", [1, 2])
    def test_an_array_makes_no_more_fields_than_its_bytes_can_hold(self, numbers: int) -> None:
        inside = {"vmsd_name": "s", "version": 1}
        for extra, is_read in ((0, True), (40, False)):
            described = [field(f"x{number}", "uint8", 1) for number in range(numbers)]
            described += [field(f"none{number}", "buffer", 0) for number in range(extra)]
            entry = field("s", "struct", numbers, array_len=300, struct={**inside, "fields": described})
            data = b"\1" * 300 * numbers + b"\2"
            records, notes = fields(b"", data, entry, field("b", "uint8", 1))
            made = 1 + 300 * (1 + numbers + extra)
            assert notes == ([] if is_read else [f"dev#0: `s`: {made} fields from {300 * numbers} bytes; kept as bytes"])
            assert [record.describe() for record in records] == [
                "struct[300]" if is_read else f"buffer[{300 * numbers}]",
                "uint8",
            ]

    def test_what_the_description_spells_out_is_not_bounded(self) -> None:
        described = [field("x", "uint8", 1), *(field(f"none{number}", "buffer", 0) for number in range(400))]
        inside = {"vmsd_name": "s", "version": 1, "fields": described}
        records, notes = fields(b"", b"\1\2", *(field("s", "struct", 1, index=index, struct=inside) for index in range(2)))
        assert ([record.describe() for record in records], notes) == (["struct[2]"], [])

    def test_arrays_in_arrays_are_counted_once(self) -> None:
        inner = {"vmsd_name": "i", "version": 1, "fields": [field("x", "uint8", 1)]}
        middle = {"vmsd_name": "m", "version": 1, "fields": [field("i", "struct", 1, array_len=8, struct=inner)]}
        records, notes = fields(b"", bytes(400), field("m", "struct", 8, array_len=50, struct=middle))
        elements: Any = records[0].value
        assert (len(elements), elements[0][0].describe(), notes) == (50, "struct[8]", [])

    def test_many_misfits_are_counted(self) -> None:
        inside = {"vmsd_name": "s", "version": 1, "fields": [field("b", "bool", 1)]}
        _, notes = fields(b"", b"\2" * 100, field("s", "struct", 1, array_len=100, struct=inside))
        assert notes[:32] == ["dev#0: `b`: a bool of neither 0 nor 1; kept as bytes"] * 32
        assert notes[32:] == ["dev#0: 68 more that could not be read as described; kept as bytes"]


class TestNotDescribed:
    """What cannot be interpreted is kept as bytes, named, and never ends the import."""

    def test_bytes_behind_the_described_ones(self) -> None:
        records, notes = fields(b"", b"\x01more", field("a", "uint8", 1))
        assert values(records) == [("a", "uint8", 1), ("bytes@1", "buffer[4]", b"more")]
        assert notes == ["dev#0: 4 bytes at 1 are not described; kept as bytes"]

    def test_a_description_that_wants_more(self) -> None:
        records, notes = fields(b"", b"\x01\x02", field("a", "uint8", 1), field("b", "uint32", 4))
        assert values(records) == [("a", "uint8", 1), ("bytes@1", "buffer[1]", b"\x02")]
        assert notes == ["dev#0: `b` should have 4 bytes, 1 are left; kept as bytes from there"]

    def test_a_bool_of_another_value(self) -> None:
        records, notes = fields(b"", b"\x02", field("a", "bool", 1))
        assert values(records) == [("a", "buffer[1]", b"\x02")]
        assert notes == ["dev#0: `a`: a bool of neither 0 nor 1; kept as bytes"]

    def test_a_subsection_that_is_not_there(self) -> None:
        sub = {"vmsd_name": "dev/sub", "version": 2, "fields": []}
        records, notes = fields(b"", b"\x01other bytes here", field("a", "uint8", 1), subsections=[sub])
        assert records[1].name == "bytes@1"
        assert notes == ["dev#0: the subsection `dev/sub` is not where it should be; kept as bytes from there"]

    def test_more_elements_than_bytes(self) -> None:
        records, notes = fields(b"", b"", field("a", "struct", 0, array_len=1 << 60, struct={"fields": []}))
        assert values(records) == [("a", "buffer[0]", b"")]
        assert "more elements than its 0 bytes" in notes[0]

    def test_a_device_that_is_not_described(self) -> None:
        sections, notes = load(MAGIC + full(1, "mine", b"abc") + full(2, "dev", b"\0\0\0\x07\x09") + EOF + description(DEV))
        assert values(sections["mine#0"][0].records()) == [("bytes@0", "buffer[3]", b"abc")]
        assert len(sections["dev#0"][0].records()) == 2
        assert notes == ["mine#0: 3 bytes are not described; kept as bytes"]

    @pytest.mark.parametrize("has_footer", [True, False])
    def test_no_description_at_all(self, *, has_footer: bool) -> None:
        stream = MAGIC + full(1, "one", b"a\0\x04b", has_footer=has_footer) + full(2, "two", b"\0", has_footer=has_footer) + EOF
        sections, _ = load(stream)
        assert [each[0].records()[0].value for each in sections.values()] == [b"a\0\x04b", b"\0"]

    def test_a_description_but_no_footers(self) -> None:
        """Machine types 2.3: the description alone tells where a device ends, whatever its bytes look like."""
        trap = full(9, "trap", b"", has_footer=False)
        described = device("dev", field("a", "buffer", len(trap)))
        stream = MAGIC + full(1, "dev", trap, has_footer=False) + full(2, "end", b"x", has_footer=False)
        sections, _ = load(stream + EOF + description(described, device("end", field("x", "uint8", 1))))
        assert [(name, each[0].records()[0].value) for name, each in sections.items() if "vm" not in name] == [
            ("dev#0", trap),
            ("end#0", 120),
        ]

    def test_bytes_that_look_like_a_footer(self) -> None:
        trap = footer(1) + b"rest"
        stream = MAGIC + full(1, "dev", trap) + EOF + description(device("dev", field("a", "buffer", len(trap))))
        assert load(stream)[0]["dev#0"][0].records()[0].value == trap

    def test_a_broken_description(self) -> None:
        for broken in (
            b"{",
            b"[]",
            b'{"devices": [{}]}',
            b'{"devices": 5}',
            b"\xff",
            b"[" * 100_000,
            b'{"page_size": 3, "devices": []}',
            b'{"page_size": %s, "devices": []}' % (b"9" * 5000),
            b'{"devices": [{"name": "\\ud800", "instance_id": 0}]}',
            b'{"devices": [{"name": "dev", "instance_id": 0, "fields": [{"name": "\\udc80", "type": "uint8", "size": 1}]}]}',
            b'{"devices": [{"name": "dev", "instance_id": 0, "fields": [{"name": "a", "type": "b", "size": 1%s}]}]}'
            % (b"0" * 64),
        ):
            stream = MAGIC + full(1, "dev", b"abc") + EOF + b"\x06" + struct.pack(">I", len(broken)) + broken
            sections, notes = load(stream)
            assert sections["dev#0"][0].records()[0].value == b"abc"
            [note] = [note for note in notes if note.startswith("the description cannot be read: ")]
            assert len(note) < 200
            assert "Exceeds" not in note

    def test_bytes_behind_everything(self) -> None:
        sections, notes = load(MAGIC + full(1, "dev", b"abc") + EOF + b"trailing")
        assert sections["trailing#0"][0].records()[0].value == ((0, b"trailing"),)
        assert "8 bytes follow the stream; kept as bytes" in notes

    def test_commands_are_kept(self) -> None:
        sections, _ = load(MAGIC + b"\x08\0\x0b\0\x02hi" + full(1, "dev", b"abc") + EOF)
        command = sections["command#0"][0].attributes["qemu"]
        assert (command["command"], command["data"]) == (11, b"hi")
        assert sections["command#0"][0].records() == ()

    def test_one_device_twice(self) -> None:
        sections, _ = load(MAGIC + full(1, "d", b"a") + full(2, "d", b"b") + full(3, "d", b"c", instance=1) + EOF)
        assert {name: each[0].records()[0].value for name, each in sections.items()} == {"d#0": b"a", "d#2": b"b", "d#1": b"c"}
        assert sections["d#2"][0].attributes["qemu"]["instance"] == 0

    def test_one_device_often(self) -> None:
        instances = [0, 1, 0, 1, 0xFFFF_FFFF, 0xFFFF_FFFF, 7, 1]
        found = import_stream(io.BytesIO(numbered(len(instances), lambda n: full(n, "d", b"", instance=instances[n]))))
        assert [section.instance for section in found] == [0, 1, 2, 3, 0xFFFF_FFFF, 4, 7, 5]

    def test_a_footer_with_an_item_after_it_is_preferred_to_one_with_its_first_byte(self) -> None:
        trap = b"x" + footer(2) + b"\x04\0"
        stream = MAGIC + full(1, "dev", b"a") + full(2, "dev", trap, instance=1) + full(3, "dev", b"b", instance=2) + EOF
        sections, _ = load(stream)
        assert [each[0].records()[0].value for each in sections.values()] == [b"a", trap, b"b"]

    def test_a_description_of_more_bytes_than_there_are(self) -> None:
        for size in (1 << 20, 1 << 63):
            stream = MAGIC + full(1, "dev", b"abc") + EOF + description(device("dev", field("b", "buffer", size)))
            sections, notes = load(stream)
            assert [record.value for record in sections["dev#0"][0].records()] == [b"abc"]
            assert notes == [f"dev#0: `b` should have {size} bytes, 3 are left; kept as bytes from there"]


class TestConfiguration:
    def test_its_subsections(self) -> None:
        capabilities = struct.pack(">I", 2) + short("xbzrle") + short("events")
        stream = MAGIC + configuration(
            "virt",
            ("configuration/target-page-bits", struct.pack(">I", 14)),
            ("configuration/capabilities", capabilities),
            ("configuration/uuid", bytes(range(16))),
            ("configuration/vendor", b"unknown"),
        )
        sections, notes = load(stream + full(1, "dev", b"abc") + EOF)
        records = sections["configuration#0"][0].records()
        inner: list[Any] = [record.value for record in records[1:]]
        assert [each[0].value for each in inner] == [14, ("xbzrle", "events"), bytes(range(16)), b"unknown"]
        assert "configuration#0: `configuration/vendor` is not known; kept as bytes" in notes

    def test_subsections_without_a_name_or_of_one_name_come_back(self) -> None:
        bits = ("configuration/target-page-bits", struct.pack(">I", 14))
        stream = MAGIC + configuration("pc", ("", b"unnamed"), ("name", b"x"), bits, bits) + full(1, "dev", b"abc") + EOF
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        names = [record.name for record in next(iter(Snapshot.read(file.getvalue()))).records()]
        assert names == ["name", "field@1", "name#2", bits[0], f"{bits[0]}#2"]
        assert rebuilt(file.getvalue()) == stream

    @pytest.mark.parametrize("count", [0, 1, 300])
    def test_capabilities_without_names_come_back(self, count: int) -> None:
        stream = capabilities(count)
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        assert rebuilt(file.getvalue()) == stream

    def test_capabilities_that_end_are_said(self) -> None:
        with pytest.raises(FormatError, match=r"the name of a capability, stream has nothing more \(truncated\) - at byte 351"):
            import_stream(io.BytesIO(capabilities(300, stated=301)))

    def test_more_subsections_than_qemu_has(self) -> None:
        assert len(load(MAGIC + configuration("pc", *[("x", b"")] * 64) + EOF)[0]) == 1
        with pytest.raises(LimitError, match="at most 64 subsections of the configuration"):
            load(MAGIC + configuration("pc", *[("x", b"")] * 65) + EOF)

    @pytest.mark.parametrize("bits", [0, 7, 17, 30, 31, 0xFFFF_FFFF])
    def test_pages_that_no_target_has(self, bits: int) -> None:
        stream = MAGIC + configuration("pc", ("configuration/target-page-bits", struct.pack(">I", bits))) + EOF
        with pytest.raises(LimitError, match=r"pages of 256 to 65536 bytes, as QEMU's targets have, stream has \d+ bytes"):
            load(stream)

    @pytest.mark.parametrize("size", [1, 128, 1 << 17, 1 << 30, 1 << 40])
    def test_pages_that_no_target_has_by_the_description(self, size: int) -> None:
        with pytest.raises(LimitError, match=f"pages of 256 to 65536 bytes, as QEMU's targets have, stream has {size} bytes"):
            load(MAGIC + EOF + description(page_size=size))

    @pytest.mark.parametrize("bits", range(8, 17))
    def test_pages_of_every_size(self, bits: int) -> None:
        pages = ram(blocks(mem=2 << bits) + page(0, b"\1", "mem") + page(1 << bits, b"\2"), b"")
        stream = MAGIC + configuration("pc", ("configuration/target-page-bits", struct.pack(">I", bits))) + pages + EOF
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        assert rebuilt(file.getvalue()) == stream

    def test_a_stream_without_one(self) -> None:
        found = import_stream(io.BytesIO(MAGIC + EOF))
        assert list(found) == []
        assert "machine" not in found.raw_attributes.decode()


class TestMemory:
    def runs(self, stream: bytes) -> list[list[tuple[str, Any]]]:
        sections, _ = load(stream)
        return [[(record.name, record.value) for record in each.records()] for each in sections["ram#0"]]

    def test_pages_and_zeros(self) -> None:
        turns = self.runs(SMALL)
        assert turns == [[("mem", ())], [("mem", ((0, DATA_PAGE),))], []]

    def test_a_page_dirtied_again_comes_again(self) -> None:
        other = bytes(4096)[:-1] + b"\x01"
        stream = (
            MAGIC + ram(blocks(mem=8192), page(0, DATA_PAGE, "mem"), page(0, other), page(0, b"\0") + page(4096, b"\0")) + EOF
        )
        assert self.runs(stream)[1:] == [[("mem", ((0, DATA_PAGE),))], [("mem", ((0, other),))], [("mem", ((0, bytes(4096)),))]]

    def test_pages_out_of_order_come_in_parts(self) -> None:
        stream = MAGIC + ram(blocks(mem=8192), page(4096, DATA_PAGE, "mem") + page(0, DATA_PAGE), b"") + EOF
        assert self.runs(stream)[1:3] == [[("mem", ((4096, DATA_PAGE),))], [("mem", ((0, DATA_PAGE),))]]
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        assert rebuilt(file.getvalue()) == stream

    def test_a_page_filled_with_a_byte(self) -> None:
        stream = MAGIC + ram(blocks(mem=4096), page(0, b"\xaa", "mem"), b"") + EOF
        assert self.runs(stream)[1] == [("mem", ((0, b"\xaa" * 4096),))]
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        assert rebuilt(file.getvalue()) == stream

    def test_much_memory_comes_in_parts_of_4_mib(self) -> None:
        pages = page(0, DATA_PAGE, "mem") + b"".join(page(number * 4096, DATA_PAGE) for number in range(1, 2500))
        stream = MAGIC + ram(blocks(mem=2500 * 4096), pages, b"") + EOF
        sizes = [sum(len(data) for _, data in runs) for part in self.runs(stream) for _, runs in part]
        assert sizes == [0, 4 << 20, 4 << 20, 2500 * 4096 - (8 << 20)]
        file = io.BytesIO()
        write(import_stream(io.BytesIO(stream)), file)
        assert rebuilt(file.getvalue()) == stream

    def test_shared_memory_is_listed_with_its_address(self) -> None:
        capability = ("configuration/capabilities", struct.pack(">I", 1) + short("x-ignore-shared"))
        listed = word(4096, 4) + short("mem") + struct.pack(">QQ", 4096, 0xFEE0)
        sections, _ = load(MAGIC + configuration("pc", capability) + ram(listed, b"") + EOF)
        assert sections["ram#0"][0].attributes["qemu"]["addresses"] == [0xFEE0]

    def test_another_page_size(self) -> None:
        bits = ("configuration/target-page-bits", struct.pack(">I", 13))
        stream = MAGIC + configuration("sun4u", bits) + ram(blocks(mem=8192), page(0, DATA_PAGE * 2, "mem"), b"") + EOF
        assert self.runs(stream)[1] == [("mem", ((0, DATA_PAGE * 2),))]

    @pytest.mark.parametrize(
        ("turn", "words"),
        [
            (page(8192, DATA_PAGE, "mem"), r"a page inside `mem` \(8192 bytes\), stream has one at 8192"),
            (page((1 << 64) - 4096, DATA_PAGE, "mem"), "a page inside `mem`"),
            (page(0, DATA_PAGE, "other"), "a block that was listed, stream has `other`"),
            (page(0, DATA_PAGE), "a page that names its block, stream has one that continues none"),
            (word(0, 0x40) + short("mem"), "XBZRLE pages .*: migrate again without it"),
            (word(0, 0x100) + short("mem"), "compressed pages"),
            (word(0, 0x200), "multifd"),
            (word(0, 0x80), "RDMA"),
            (word(0, 0x0A) + short("mem"), "flags 0xa; pages of another size than 4096"),
            (word(4096, 0x10), "a page record"),
            (blocks(mem=4096), "each block once, stream has `mem` again"),
            (word(10, 4) + short("x") + struct.pack(">Q", 11), "blocks of 0 bytes in all|a page record"),
        ],
    )
    def test_what_cannot_be_followed_is_refused(self, turn: bytes, words: str) -> None:
        with pytest.raises(FormatError, match=words) as caught:
            load(MAGIC + ram(blocks(mem=8192), turn, b"") + EOF)
        assert caught.value.section == "ram#0"
        assert caught.value.offset > 40

    def test_memory_mapped_into_the_file_is_refused_by_name(self) -> None:
        """QEMU 9 and later name the capability in the configuration; without this its blocks would read as odd names."""
        capability = ("configuration/capabilities", struct.pack(">I", 1) + short("mapped-ram"))
        with pytest.raises(FormatError, match=r"capability mapped-ram.*: migrate again without it"):
            load(MAGIC + configuration("pc", capability) + ram(blocks(mem=8192), b"") + EOF)

    def test_a_block_longer_than_all_is_refused(self) -> None:
        listed = word(4096, 4) + short("mem") + struct.pack(">Q", 8192)
        with pytest.raises(FormatError, match="blocks of 4096 bytes in all, stream has 8192 more where 4096 are left"):
            load(MAGIC + ram(listed, b"") + EOF)

    def test_other_versions_of_memory_are_refused(self) -> None:
        with pytest.raises(FormatError, match="`ram` of version 4, stream has version 3 - at ram#0"):
            load(MAGIC + head(1, 2, "ram", 0, 3) + EOF)


class _Pages:
    """Page records as QEMU would write them, one at a time: the reader takes them by runs.

    Each is (block, number of the page, its body: a byte where one fills it).
    """

    BLOCKS: Final = {"one": 40, "two": 9}
    SIZE: Final = 256

    def __init__(self, records: list[tuple[str, int, bytes]]) -> None:
        self.records = records
        self.memory = {name: bytearray(count * self.SIZE) for name, count in self.BLOCKS.items()}
        self.sequence = []
        current, turn = None, b""
        for name, number, body in records:
            turn += page(number * self.SIZE, body, None if name == current else name)
            self.memory[name][number * self.SIZE : (number + 1) * self.SIZE] = body * (self.SIZE // len(body))
            flag = 8 if len(body) > 1 else 2
            self.sequence.append((name, number, flag, name != current))
            current = name
        listed = blocks(**{name: count * self.SIZE for name, count in self.BLOCKS.items()})
        bits = ("configuration/target-page-bits", struct.pack(">I", 8))
        self.stream = MAGIC + configuration("pc", bits) + ram(listed, turn, b"") + EOF

    def check(self) -> None:
        file = io.BytesIO()
        write(import_stream(io.BytesIO(self.stream)), file)
        assert rebuilt(file.getvalue()) == self.stream
        memory = {name: bytearray(len(data)) for name, data in self.memory.items()}
        sequence = []
        for section in Snapshot.read(file.getvalue()):
            for record in section.records() if section.device == "ram" else ():
                for offset, data in cast("Runs", record.value):
                    memory[record.name][offset : offset + len(data)] = data
            if section.device == "ram":
                numbers = iter(Opaque(zlib.decompress(section.attributes["qemu"]["pages"])).decode())
                for block, first, count, flag in zip(numbers, numbers, numbers, numbers, strict=True):
                    each = range(first, first + count)
                    sequence += [([*memory][block], at, flag & ~1, bool(flag & 1) and at == first) for at in each]
        assert memory == self.memory
        assert sequence == self.sequence


def _data(number: int) -> bytes:
    return bytes((number, 1)) * 128


RUN = [("one", number, _data(number)) for number in range(30)]


@pytest.fixture(scope="class", params=[(20, 4000, 2), (3, 700, 1), (1000, 1 << 20, 16)], ids=["some", "few", "all"])
def sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pages in a chunk, bytes read at once, records first looked at: their edges lie elsewhere each time."""
    pages, ahead, first = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagged_vmstate.qemu.ram.CHUNK_BYTES", pages * _Pages.SIZE)
        patch.setattr("tagged_vmstate.qemu.bridge.BLOCK", ahead)
        patch.setattr("tagged_vmstate.qemu.ram._FIRST_LOOK", first)
        yield


@pytest.mark.usefixtures("sizes")
class TestRunsOfPages:
    @pytest.mark.parametrize(
        "records",
        [
            RUN,
            RUN[::-1],
            RUN[:7] + RUN[9:],
            [*RUN[:7], ("two", 3, _data(3)), *RUN[7:]],
            [*RUN[:7], ("two", 7, _data(7)), ("two", 8, _data(8)), *RUN[9:]],
            [*RUN[:7], ("one", 7, b"\x00"), *RUN[8:]],
            [*RUN[:7], ("one", 7, b"\xaa"), ("one", 8, b"\xaa"), ("one", 9, b"\xab"), *RUN[10:]],
            [("one", number, b"\0") for number in range(40)],
            RUN[:7] + [("one", number, b"\0") for number in range(40)] + RUN[7:],
            [("one", 3, b"\0"), *RUN, *RUN[:5]],
            [("one", 39, _data(1)), ("two", 0, _data(2))],
        ],
        ids=[
            *("in order", "backwards", "a hole", "another block for one page", "another block that goes on where this would"),
            *("a zero page", "filled pages", "all zero", "zero over written", "again", "at both ends"),
        ],
    )
    def test_whatever_breaks_a_run(self, records: list[tuple[str, int, bytes]]) -> None:
        _Pages(records).check()

    @given(st.data())
    def test_any_sequence(self, data: st.DataObject) -> None:
        records: list[tuple[str, int, bytes]] = []
        for _ in range(data.draw(st.integers(0, 6))):
            name = data.draw(st.sampled_from(sorted(_Pages.BLOCKS)))
            first = data.draw(st.integers(0, _Pages.BLOCKS[name] - 1))
            count = data.draw(st.integers(1, _Pages.BLOCKS[name] - first))
            body = data.draw(st.sampled_from([b"\0", b"\xaa", bytes(256), _data(1), _data(2)]))
            records += [(name, number, body) for number in range(first, first + count)]
        _Pages(records).check()

    def test_the_page_that_is_wrong_is_named(self) -> None:
        whole = _Pages(RUN).stream
        odd = word(40 * 256, 0x28)
        broken = whole.replace(word(20 * 256, 0x28), odd)
        with pytest.raises(FormatError, match=r"a page inside `one` \(10240 bytes\), stream has one at 10240") as caught:
            load(broken)
        assert caught.value.offset == broken.index(odd)
        cut = whole.index(word(20 * 256, 0x28)) + 100
        with pytest.raises(FormatError, match="256 bytes of a page, stream has only 92") as caught:
            load(whole[:cut])
        assert caught.value.offset == cut - 92


class TestWrong:
    """What is cut or inconsistent is an error with offset and section."""

    def test_every_cut_is_refused(self) -> None:
        load(SMALL)
        end = len(SMALL) - len(description(DEV))
        for size in range(len(SMALL)):
            if size == end:
                continue  # whole, without its description: an older QEMU's stream
            with pytest.raises(FormatError, match="byte") as caught:
                load(SMALL[:size])
            assert caught.value.offset <= size

    def test_a_wrong_footer(self) -> None:
        with pytest.raises(FormatError, match=r"the footer of section 3.* - at dev#0 \(byte"):
            load(SMALL.replace(footer(3), footer(4)))

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"QEVM\0\0\0\x04", "savevm version 3, stream has version 4 - at byte 4"),
            (b"QEVM\0", "8 bytes of magic and version, stream has only 5"),
            (b"QEMU\0\0\0\3", "a QEMU migration stream"),
            (b"", "nothing at all"),
            (MAGIC + b"\x7d", "a section, a command or the end of the stream, stream has the byte 0x7d - at byte 8"),
            (MAGIC + head(2, 77), "one more turn of a section that was started, stream has section 77"),
            (MAGIC + ram(blocks(mem=4096), b"") + head(3, 2) + EOF, "one more turn of a section that was started"),
            (MAGIC + ram(blocks(mem=4096), b"") + ram(b"", b"", number=9), "each section started once, stream has ram#0 again"),
            (MAGIC + b"\x07\xff\xff\xff\xffpc", "bytes of the machine's name, stream has only 2"),
            (MAGIC + b"\x07\0\0\0\x01\xff", "the machine's name in UTF-8"),
            (MAGIC + head(4, 1, "x").replace(b"x", b"\xff"), "the name of a section in UTF-8"),
        ],
    )
    def test_what_is_no_stream_is_refused_in_words(self, data: bytes, words: str) -> None:
        with pytest.raises(FormatError, match=words):
            load(data)

    @given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=20))
    def test_any_change_is_read_or_refused_with_our_error(self, at: int, junk: bytes) -> None:
        changed = SMALL[:at] + junk + SMALL[at + len(junk) :]
        try:
            write(import_stream(io.BytesIO(changed)), io.BytesIO())
        except VMStateError as error:
            assert str(error)  # noqa: PT017  # either way is right

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_any_description_is_read_or_noted(self, found: object) -> None:
        data = json.dumps(found).encode()
        devices = json.dumps({"devices": [{"name": "dev", "instance_id": 0, "fields": [found]}]}).encode()
        for each in (data, devices):
            stream = MAGIC + full(3, "dev", b"\0\0\0\x07\x09") + EOF + b"\x06" + struct.pack(">I", len(each)) + each
            assert load(stream)[0]["dev#0"][0].records()


class TestLibvirt:
    XML = b"<domain/>\0"

    def image(self, stream: bytes, order: str = "<") -> bytes:
        return b"LibvirtQemudSave" + struct.pack(f"{order}19I", 2, len(self.XML), 1, 0, 0, *[0] * 14) + self.XML + stream

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
    def test_a_save_image_is_opened(self, compress: Any, order: str) -> None:
        sections, _ = load(self.image(compress(SMALL), order))
        assert {record.name: record.value for record in sections["libvirt#0"][0].records()}["xml"] == "<domain/>"
        assert len(sections["dev#0"][0].records()) == 2

    def test_what_is_not_undone_is_named(self) -> None:
        with pytest.raises(FormatError, match=r"zstd data: .*tail -c \+103 FILE \| zstd -dc - at byte 102"):
            load(self.image(b"\x28\xb5\x2f\xfd" + SMALL))

    def test_an_unfinished_one_is_refused(self) -> None:
        with pytest.raises(FormatError, match="one that libvirt never finished"):
            load(self.image(SMALL).replace(b"QemudSave", b"QemudPart"))

    def test_a_cut_one_is_refused(self) -> None:
        whole = self.image(SMALL)
        for size in (20, 95, 100):
            with pytest.raises(FormatError, match="truncated"):
                load(whole[:size])
        with pytest.raises(FormatError, match="whole gzip data"):
            load(self.image(gzip.compress(SMALL)[:-20]))


SIZED: Final = {**ACCEPTED, **REFUSED}


@pytest.mark.long
@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("count", [500, 2000])
def test_memory_is_a_multiple_of_the_stream(name: str, count: int) -> None:
    data = SIZED[name](count)
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError), Path(os.devnull).open("wb") as nowhere:
            write(import_stream(io.BytesIO(data)), nowhere)
        assert tracemalloc.get_traced_memory()[1] <= 64 * len(data) + (8 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_nobody_writes_comes_back(name: str) -> None:
    stream = ACCEPTED[name](200)
    file = io.BytesIO()
    write(import_stream(io.BytesIO(stream)), file)
    assert rebuilt(file.getvalue()) == stream


def test_the_page_size_and_version_of_the_stream_stand_in_the_header() -> None:
    file = io.BytesIO()
    write(import_stream(io.BytesIO(SMALL)), file)
    assert Snapshot.read(file.getvalue()).attributes["qemu"] == {"stream": 3, "page_size": 4096}
