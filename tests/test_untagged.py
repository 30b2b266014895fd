"""QEMU's own bytes, without names and lengths, by a table: read, written, cut at every byte.

The cases of QEMU's tests/unit/test-vmstate.c are here as tables of ours, with its expected bytes: simple/primitive,
simple/array, test/versioned, test/skip, arrays of pointers to structs and to primitives with and without nulls, QTAILQ,
QLIST. Not covered: GTree (a sorted tree of keys and values, which only device code makes) and VMSTATE_WITH_TMP (fields that
device code computes): for both a legacy function is the way.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from pathlib import Path
from typing import Annotated, Any

import pytest
from conftest import stream_bytes
from qemu_streams import MAGIC, description, device, field, full
from test_command import refused, run, shown

import tagged_vmstate as tv
from tagged_vmstate import Field, FormatError, Length, MaxLength, Table, TableError, Untagged
from tagged_vmstate.codec import save
from tagged_vmstate.defaults import Flagged
from tagged_vmstate.devices import Entry
from tagged_vmstate.files import Input
from tagged_vmstate.interpreted import Encoder, Interpreted
from tagged_vmstate.jsonform import from_json, to_json, to_values
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.export import export
from tagged_vmstate.qemu.savevm import RawSection, write_v2, write_v3
from tagged_vmstate.qemu.stream import StreamReader, Turn, find_description
from tagged_vmstate.qemu.vmdesc import parse
from tagged_vmstate.records import decode_all
from tagged_vmstate.snapshot import write as write_snapshot
from tagged_vmstate.untagged import read, write, write_records
from tagged_vmstate.wire import joined


def f(name: str, annotation: Any, default: Any = 0, **more: Any) -> Field:
    return Field(name, annotation, default_factory=lambda: default, **more)


NUMBERS = {
    "u8": tv.uint8, "u16": tv.uint16, "u32": tv.uint32, "u64": tv.uint64,
    "i8": tv.int8, "i16": tv.int16, "i32": tv.int32, "i64": tv.int64,
}  # fmt: skip
PRIMITIVE = Table(
    "simple/primitive",
    [
        *(f(name, bool, default=False) for name in ("b_1", "b_2")),
        *(f(f"{kind}_1", NUMBERS[kind]) for kind in ("u8", "u16", "u32", "u64")),
        *(f(f"{kind}_{number}", NUMBERS[kind]) for kind in ("i8", "i16", "i32", "i64") for number in (1, 2)),
    ],
)
ARRAY = Table("simple/array", [f("u16_1", Annotated[list[tv.uint16], Length(3)], [0, 0, 0])])
VERSIONED = Table(
    "test/versioned",
    [
        f("a", tv.uint32),
        f("b", tv.uint32, 200, since=2),
        f("c", tv.uint32),
        f("d", tv.uint64),
        f("e", tv.uint32, 500, since=2),
        f("f", tv.uint64, 600, since=2),
    ],
    version=2,
    minimum_version=1,
)


def skipping(skip: bool) -> Table:  # noqa: FBT001  # its only meaning
    """QEMU's condition looks at a member that is not in the bytes; here it is known when the table is made."""
    is_there = Untagged(when=lambda _values: not skip)
    fields = [
        f("a", tv.uint32),
        f("b", tv.uint32),
        f("c", tv.uint32, 300, untagged=is_there),
        f("d", tv.uint64),
        f("e", tv.uint32, 500, untagged=is_there),
        f("f", tv.uint64, since=2),
    ]
    return Table("test/skip", fields, version=2, minimum_version=1)


TRIV = Table("test/tst", [f("i", tv.int32)])
POINTERS = Annotated[list[dict[str, int] | None], TRIV, Length(4)]
FULL = Table("test/arr_ptr", [f("ar", POINTERS, [{"i": 9} for _ in range(4)])])
HOLED = Table("test/arr_ptr", [f("ar", POINTERS, [{"i": 9}, None, {"i": 9}, {"i": 9}])])
ELEMENT = Table("test/queue-element", [f("b", bool, default=False), f("u8", tv.uint8)])
QUEUE = Table(
    "test/queue",
    [
        f("i16", tv.int16),
        f("q", Annotated[list[dict[str, Any]], ELEMENT, MaxLength(3)], [], untagged=Untagged(linked=True)),
        f("i32", tv.int32),
    ],
)
LIST = Table(
    "test/container",
    [f("id", tv.uint32), f("list", Annotated[list[dict[str, int]], TRIV, MaxLength(9)], [], untagged=Untagged(linked=True))],
)
INNER = Table("inner", [f("x", tv.uint16)], version=3, minimum_version=2)
COUNTED = Table(
    "counted",
    [
        f("n", tv.uint8),
        f("data", Annotated[bytes, MaxLength(4)], b"", untagged=Untagged(counted_by="n")),
        f("words", Annotated[list[tv.uint16], MaxLength(4)], [], untagged=Untagged(counted_by="n")),
        f("inner", Annotated[list[dict[str, int]], INNER, MaxLength(4)], [], untagged=Untagged(counted_by="n")),
    ],
)
SUB = Table("dev/sub", [f("y", tv.uint8)], version=7, minimum_version=5)
DEEP = Table(
    "dev",
    [
        f("s", Annotated[dict[str, int], INNER], {"x": 0}),
        f("dev/sub", Annotated[dict[str, int] | None, SUB], None, untagged=Untagged(subsection=True)),
        f("dev/more", Annotated[dict[str, int], SUB], {"y": 1}, untagged=Untagged(subsection=True)),
        f("last", tv.uint8),
    ],
)
TIMES = Table(
    "times",
    [
        f("t", tv.timer, -1),
        f("bits", Annotated[tv.bitmap, Length(70)], bytes(9)),
        f("f32", tv.float32, 0.0),
        f("f64", tv.float64, 0.0),
        f("raw", Annotated[bytes, Length(3)], bytes(3)),
        f("flags", Annotated[list[bool], Length(2)], [False, False]),
    ],
)

SIMPLE = {
    "b_1": True, "b_2": False, "u8_1": 130, "u16_1": 512, "u32_1": 70000, "u64_1": 12121212, "i8_1": 65, "i8_2": -65,
    "i16_1": 512, "i16_2": -512, "i32_1": 70000, "i32_2": -70000, "i64_1": 12121212, "i64_2": -12121212,
}  # fmt: skip
SIX = {"a": 10, "b": 20, "c": 30, "d": 40, "e": 50, "f": 60}
CASES: dict[str, tuple[Table, int, dict[str, Any], str]] = {
    "primitive": (
        PRIMITIVE, 1, SIMPLE,
        "01 00 82 0200 00011170 0000000000b8f47c 41 bf 0200 fe00 00011170 fffeee90 0000000000b8f47c ffffffffff470b84",
    ),
    "array": (ARRAY, 1, {"u16_1": [0x42, 0x43, 0x44]}, "0042 0043 0044"),
    "version 1": (VERSIONED, 1, {"a": 10, "b": 200, "c": 30, "d": 40, "e": 500, "f": 600}, "0000000a 0000001e 0000000000000028"),
    "version 2": (VERSIONED, 2, SIX, "0000000a 00000014 0000001e 0000000000000028 00000032 000000000000003c"),
    "no skip": (skipping(skip=False), 2, SIX, "0000000a 00000014 0000001e 0000000000000028 00000032 000000000000003c"),
    "skip": (skipping(skip=True), 2, {**SIX, "c": 300, "e": 500}, "0000000a 00000014 0000000000000028 000000000000003c"),
    "pointers": (FULL, 1, {"ar": [{"i": number} for number in range(4)]}, "00000000 00000001 00000002 00000003"),
    "pointers with a null": (HOLED, 1, {"ar": [{"i": 0}, None, {"i": 2}, {"i": 3}]}, "00000000 30 00000002 00000003"),
    "QTAILQ": (
        QUEUE, 1, {"i16": -512, "q": [{"b": True, "u8": 130}, {"b": False, "u8": 65}], "i32": 70000},
        "fe00 01 01 82 01 00 41 00 00011170",
    ),
    "QLIST": (
        LIST, 1, {"id": 1, "list": [{"i": 0x0A}, {"i": 0x0B00}, {"i": 0x0C0000}, {"i": 0x0D000000}]},
        "00000001 01 0000000a 01 00000b00 01 000c0000 01 0d000000 00",
    ),
    "counted": (
        COUNTED, 1, {"n": 2, "data": b"ab", "words": [1, 0x0203], "inner": [{"x": 1}, {"x": 2}]},
        "02 6162 0001 0203 0001 0002",
    ),
    "nothing counted": (COUNTED, 1, {"n": 0, "data": b"", "words": [], "inner": []}, "00"),
    "subsections": (
        DEEP, 1, {"s": {"x": 5}, "dev/sub": {"y": 6}, "dev/more": {"y": 7}, "last": 5},
        "0005 05 05 07 6465762f737562 00000007 06 05 08 6465762f6d6f7265 00000007 07",
    ),
    "no subsections": (DEEP, 1, {"s": {"x": 5}, "dev/sub": None, "dev/more": {"y": 1}, "last": 9}, "0005 09"),
    "timers and bits": (
        TIMES, 1, {"t": -1, "bits": bytes(range(1, 9)) + b"\x2a", "f32": 0.5, "f64": -0.0, "raw": b"abc", "flags": [True, False]},
        "ffffffffffffffff 0807060504030201 000000000000002a 3f000000 8000000000000000 616263 0100",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
class TestCases:
    def test_read_and_written(self, name: str) -> None:
        table, version, state, hexed = CASES[name]
        data = bytes.fromhex(hexed)
        assert write(table, state, version) == data
        section = tv.Section(table.name, 0, read(table, data, version))
        assert tv.load(section, table) == state

    def test_each_cut_is_refused(self, name: str) -> None:
        table, version, _, hexed = CASES[name]
        data = bytes.fromhex(hexed)
        whole = {
            data,
            bytes.fromhex("0005 05"),
            bytes.fromhex("0005 05 05 07 6465762f737562 00000007 06"),
        }  # whole without subsections
        for size in range(len(data)):
            if data[:size] not in whole:
                with pytest.raises(FormatError) as caught:
                    read(table, data[:size], version, base=1000)
                assert 1000 <= caught.value.offset <= 1000 + size
        with pytest.raises(
            FormatError, match=r"the end of the section, section has 1 more bytes - at byte|a subsection|subsections"
        ):
            read(table, data + b"\xff", version)


class TestWrong:
    def test_versions_beyond_the_tables(self) -> None:
        for version in (0, 3):
            with pytest.raises(
                FormatError, match=f"expected version 1 to 2 of `test/versioned`, section has version {version} - at byte 7"
            ):
                read(VERSIONED, bytes(14), version, base=7)
            with pytest.raises(tv.StateError, match=f"version 1 to 2 of `test/versioned`, got version {version}"):
                write(VERSIONED, SIX, version)

    @pytest.mark.parametrize(
        ("table", "data", "words"),
        [
            (COUNTED, "05 6162", r"a count of 0 to 4 in `n`, section has 5 - at data \(byte 1\)"),
            (QUEUE, "fe00 02", r"1 before an element of a list, or 0 behind the last, section has 2 - at q \(byte 2\)"),
            (QUEUE, "fe00 010000 010000 010000 010000", r"at most 3 elements, section has one more - at q"),
            (QUEUE, "fe00 01 02 00 00", r"bytes 0 and 1 for `bool`, section has 02 - at q\[0\]/b"),
            (HOLED, "00000000 31", r"the mark of a null \('0'\), section has 0x31 - at ar\[1\] \(byte 4\)"),
            (
                DEEP,
                "0005 05 05 07 6465762f737562 00000008 06",
                r"version 5 to 7 of `dev/sub`, section has version 8 - at \"dev/sub\"",
            ),
            (
                DEEP,
                "0005 05 05 07 6465762f6e6577 00000007 06",
                r"subsections of `dev` that its table knows, each once, section has `dev/new`",
            ),
            (TIMES, f"{'00' * 8} {'00' * 14} 0040 {'00' * 17}", r"spare bits 0 in `bitmap\[70\]`, section has others - at bits"),
            (DEEP, "0005 05" + " 05 07 6465762f737562 00000007 06" * 2, r"each once, section has `dev/sub`"),
            (PRIMITIVE, "01", r"1 bytes of `bool`, section has only 0 left - at b_2 \(byte 1\)"),
        ],
    )
    def test_bytes_that_do_not_fit(self, table: Table, data: str, words: str) -> None:
        with pytest.raises(FormatError, match=words):
            read(table, bytes.fromhex(data), 1)

    def test_what_a_version_has_no_place_for(self) -> None:
        words = "`b` at its default: version 1 of `test/versioned` has no place for it, got it in use - at b"
        with pytest.raises(tv.StateError, match=words):
            write(VERSIONED, {**SIX, "e": 500, "f": 600}, 1)
        assert len(write(VERSIONED, SIX, 1, drop={"b", "e", "f"})) == 16

    def test_a_version_without_a_field_did_what_its_first_default_says(self) -> None:
        table = Table("t", [f("a", tv.uint8), f("b", tv.uint8, 3, since=2, previous_defaults=(2,))], version=2)
        assert write(table, {"a": 1, "b": 2}, 1) == b"\1"
        with pytest.raises(tv.StateError, match="version 1 of `t` has no place for it, got it in use - at b"):
            write(table, {"a": 1, "b": 3}, 1)
        assert write(table, {"a": 1, "b": 3}, 1, drop={"b"}) == b"\1"
        assert tv.load(tv.Section("t", 0, read(table, b"\1", 1)), table) == {"a": 1, "b": 2}
        assert write_records(table, read(table, b"\1", 1), 2, ()) == b"\1\2"

    def test_counts_and_nulls_that_do_not_fit(self) -> None:
        with pytest.raises(tv.StateError, match=r"as many as `n` says \(3\), got 2 elements - at data"):
            write(COUNTED, {"n": 3, "data": b"ab", "words": [1, 2], "inner": []}, 1)
        with pytest.raises(tv.StateError, match="nulls where the default has them, got element 0 null - at ar"):
            write(HOLED, {"ar": [None] * 4}, 1)

    def test_declarations(self) -> None:
        with pytest.raises(TableError, match="a number before it that it is counted by, got `n` - at t/x"):
            Table("t", [f("x", Annotated[bytes, MaxLength(4)], b"", untagged=Untagged(counted_by="n"))])
        with pytest.raises(TableError, match="a list of structs with a MaxLength, where it is linked"):
            f("x", tv.uint8, untagged=Untagged(linked=True))
        for memory in (tv.bitmap, tv.sparse):
            with pytest.raises(TableError, match=r"a fixed Length for a `(bitmap|sparse)` in bytes that carry no names"):
                f("x", Annotated[memory, MaxLength(9)], b"", untagged=Untagged(counted_by="n"))
        with pytest.raises(TableError, match="a struct, where it is a subsection"):
            f("x", tv.uint8, untagged=Untagged(subsection=True))
        for kind, default in ((str, ""), (Annotated[tv.sparse, Length(4)], bytearray(4)), (Annotated[bytes, MaxLength(4)], b"")):
            with pytest.raises(TableError, match=r"that QEMU writes untagged|a sibling that counts it"):
                read(Table("t", [f("x", kind, default)]), bytes(4), 1)


@tv.vmstate("dev", version=2)
class Since2:
    data: Annotated[bytes, Length(4)] = tv.field(default=bytes(4), since=2)


@tv.vmstate("dev")
class Named:
    name: str = ""


def undescribed(name: str, version: int) -> bytes:
    """A snapshot with one section, of which its attributes say that nothing describes it."""
    file = io.BytesIO()
    attributes = {"qemu": {"described": False, "version": version, "offset": 7}}
    with tv.SnapshotWriter(file) as writer:
        writer.write(tv.Section("dev", 0, [tv.Record(name, "buffer", 4, b"ABCD")], attributes=attributes))
    return file.getvalue()


class TestWhatIsUntagged:
    """One rule says so, whether templates have been learned or not: the one field is what an import keeps bytes as."""

    @pytest.mark.parametrize("times", [0, 400])
    def test_fields_with_names_are_fields_whatever_the_attributes_say(self, times: int) -> None:
        good, described = tv.dumps(Since2(data=b"good")), undescribed("data", 1)
        machine = tv.Machine([Since2()])
        for _ in range(times):
            tv.loads(good, Since2)
            machine.load(good)
        assert machine.check(described).problems == ()
        assert tv.loads(described, Since2) == Since2(data=b"ABCD")
        machine.load(described)
        assert machine.entries[0].state == Since2(data=b"ABCD")
        assert tv.loads(undescribed("bytes@0", 2), Since2) == Since2(data=b"ABCD")
        for read_by in (machine.check, machine.load, lambda data: tv.loads(data, Since2)):
            with pytest.raises(FormatError, match="the end of the section, section has 4 more bytes - at dev#0"):
                read_by(undescribed("bytes@0", 1))

    @pytest.mark.parametrize("times", [1, 200])
    def test_a_field_of_that_name_hides_nothing(self, times: int) -> None:
        table = Table("dev", [f("bytes@0", Annotated[bytes, Length(4)], bytes(4)), f("x", tv.uint8, since=2)], version=2)
        machine = tv.Machine([tv.Device({"bytes@0": bytes(4), "x": 3}, table=table)])
        plain, untagged = tv.dumps({"bytes@0": b"good", "x": 1}, table=table), undescribed("bytes@0", 2)
        for _ in range(times):
            machine.load(plain)
            with pytest.raises(FormatError, match="x"):
                machine.load(untagged)

    def test_a_table_that_cannot_read_bytes_is_no_error_of_the_table(self) -> None:
        words = "section has untagged bytes, which `Named` cannot read .* - at dev#0"
        for read_by in (tv.Machine([Named()]).check, tv.Machine([Named()]).load, lambda data: tv.loads(data, Named)):
            with pytest.raises(FormatError, match=words):
                read_by(undescribed("bytes@0", 1))

    def test_a_condition_that_raises_is_named(self) -> None:
        table = Table("dev", [f("x", tv.uint8, untagged=Untagged(when=lambda values: bool(values["y"])))])
        with pytest.raises(FormatError, match="`when` of `x` to return, section has KeyError: 'y' - at x"):
            read(table, b"\1", 1)


# --- the cases of the 2009 thread


@tv.vmstate("ps2kbd", version=3, minimum_version=2)
class Keyboard:
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0
    scancode_set: tv.int32 = tv.field(default=2, since=3)


@tv.vmstate("I440FX", version=3, minimum_version=2)
class Bridge:
    dev: Annotated[bytes, Length(4)] = bytes(4)
    pci_irq_levels: Annotated[list[tv.int32], Length(4)] = tv.field(default_factory=lambda: [0] * 4, until=2)
    smm_enabled: tv.uint8 = 0


V2 = struct.pack(">ii", 1, 1)
V3 = struct.pack(">iii", 1, 1, 1)


def file_v2(*sections: RawSection) -> bytes:
    file = io.BytesIO()
    write_v2(sections, file)
    return file.getvalue()


class Test2009:
    def test_ps2_kbd_from_version_2_has_the_default_and_from_3_its_own(self) -> None:
        for data, version, expected in ((V2, 2, 2), (V3, 3, 1)):
            found = tv.load(file_v2(RawSection("ps2kbd", 0, version, data)), Keyboard)
            assert found == Keyboard(scan_enabled=1, translate=1, scancode_set=expected)
            stream = io.BytesIO()
            write_v3([RawSection("ps2kbd", 0, version, data)], stream)
            assert tv.load(stream.getvalue(), Keyboard) == found

    def test_i440fx_version_2_into_version_3_with_its_levels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = b"pci!" + struct.pack(">4i", 1, 2, 3, 4) + b"\1"
        file = file_v2(RawSection("I440FX", 0, 2, data))
        assert tv.load(file, Bridge) == Bridge(dev=b"pci!", pci_irq_levels=[1, 2, 3, 4], smm_enabled=1)
        assert tv.load(file_v2(RawSection("I440FX", 0, 3, b"pci!\1")), Bridge).pci_irq_levels == [0] * 4
        (tmp_path / "old.vm").write_bytes(file)
        (tmp_path / "board.py").write_text("from test_untagged import Bridge\nMACHINE = [Bridge]\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        assert run("import", "old.vm", "-o", "plain.tvm").returncode == 0
        for source in ("old.vm", "plain.tvm"):
            done = run("import", source, "--tables", "board:MACHINE", "-o", "new.tvm")
            said = done.stderr.decode()
            assert said == "tagged-vmstate: note: I440FX#0/pci_irq_levels: read from version 2; version 3 has no place for it\n"
        assert "pci_irq_levels  int32[4]   1, 2, 3, 4" in shown("show", "new.tvm")

    def test_a_mask_that_has_a_field_in_version_2_but_not_in_3(self) -> None:
        table = Table("t", [f("a", tv.uint8), f("b", tv.uint8, 7, versions=0b100)], version=3, minimum_version=2)
        assert tv.load(file_v2(RawSection("t", 0, 2, b"\1\2")), table) == {"a": 1, "b": 2}
        assert tv.load(file_v2(RawSection("t", 0, 3, b"\1")), table) == {"a": 1, "b": 7}

    def test_an_old_build_is_fed(self, tmp_path: Path) -> None:
        machine = tv.Machine([Keyboard(scan_enabled=1, translate=1), (Bridge(smm_enabled=1), 1)])
        machine.save_untagged(tmp_path / "old.vm", stream=2, versions={"ps2kbd": 2})
        data = (tmp_path / "old.vm").read_bytes()
        assert data == file_v2(RawSection("ps2kbd", 0, 2, V2), RawSection("I440FX", 1, 3, bytes(4) + b"\1"))
        again = tv.Machine([Keyboard(), (Bridge(), 1)])
        again.load(tmp_path / "old.vm")
        file = io.BytesIO()
        again.save_untagged(file)
        assert tv.load(file.getvalue(), Keyboard, unknown="ignore") == Keyboard(scan_enabled=1, translate=1)
        with pytest.raises(
            tv.StateError, match="version 2 of `ps2kbd` has no place for it, got it in use - at ps2kbd#0/scancode_set"
        ):
            tv.Machine([Keyboard(scancode_set=3)]).save_untagged(file, versions={"ps2kbd": 2})

    def test_an_old_build_has_no_place_for_what_a_load_kept(self) -> None:
        newer = Table("ps2kbd", [f("scan_enabled", tv.int32), f("leds", tv.uint8)])
        for leds in (0, 7):
            machine = tv.Machine([Keyboard()])
            machine.load(tv.dumps({"scan_enabled": 1, "leds": leds}, table=newer), unknown="keep")
            if leds:
                with pytest.raises(tv.StateError, match="only fields that `ps2kbd` has, got one more, in use - at ps2kbd#0/leds"):
                    machine.save_untagged(io.BytesIO())
                machine.save_untagged(io.BytesIO(), drop={"leds"})
            else:
                machine.save_untagged(io.BytesIO())


class TestVersion2Files:
    THREE = file_v2(
        RawSection("ps2kbd", 0, 3, V3), RawSection("stranger", 1, 9, b"\1\2\3"), RawSection("I440FX", 0, 3, b"pci!\1")
    )

    def test_three_devices_one_unknown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "old.vm").write_bytes(self.THREE)
        (tmp_path / "board.py").write_text("from test_untagged import Bridge, Keyboard\nMACHINE = [Bridge, Keyboard]\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        done = run("import", "old.vm", "--tables", "board:MACHINE", "-o", "new.tvm")
        said = done.stderr.decode()
        assert said == "tagged-vmstate: note: stranger#1: 3 bytes are not described; kept as bytes\n"
        tree = shown("show", "new.tvm")
        assert "scancode_set  int32  1" in tree
        assert "stranger#1\n└─ bytes@0  buffer[3]  01 02 03\n" in tree
        values = json.loads(shown("to-json", "new.tvm", "--values"))
        assert values["ps2kbd"] == {"scan_enabled": 1, "translate": 1, "scancode_set": 1}
        assert run("show", "old.vm", "stranger").stdout.decode() == "stranger#1\n└─ bytes@0  buffer[3]  01 02 03\n\n"
        with pytest.raises(tv.LoadError, match="stranger#1"):
            tv.load(self.THREE, Keyboard)

    def test_every_cut_and_lying_length_is_refused(self) -> None:
        target = Keyboard(scan_enabled=9)
        for size in range(len(self.THREE)):
            with pytest.raises(FormatError):
                tv.load(self.THREE[:size], into=target)
        for place in (12, 15):
            lie = bytearray(self.THREE)
            lie[place] ^= 1
            with pytest.raises(FormatError):
                tv.load(bytes(lie), into=target)
        assert target == Keyboard(scan_enabled=9)

    def test_a_record_whose_length_lies(self, tmp_path: Path) -> None:
        lie = self.THREE.replace(struct.pack(">I", 12) + V3, struct.pack(">I", 99999) + V3)
        (tmp_path / "old.vm").write_bytes(lie)
        assert "expected a record within the 79 bytes declared, stream has 99999 bytes - at ps2kbd#0 (byte 31)" in refused(
            "import", tmp_path / "old.vm", "-o", tmp_path / "new.tvm"
        )

    def test_bytes_left_over_in_a_section(self) -> None:
        with pytest.raises(FormatError, match=r"the end of the section, section has 4 more bytes - at ps2kbd#0 \(byte 43\)"):
            tv.load(file_v2(RawSection("ps2kbd", 0, 2, V3)), Keyboard)


# --- what a table read, exported


def imported(data: bytes, *tables: Table) -> bytes:
    stream, file = import_stream(data), io.BytesIO()
    write_snapshot(Interpreted(stream, [Entry(table, 0, None) for table in tables], stream.notes), file)
    return file.getvalue()


def with_values(snapshot: bytes) -> bytes:
    file = io.BytesIO()
    to_values(tv.Snapshot.read(snapshot), file)
    return file.getvalue()


def exported(snapshot: bytes, *tables: Table) -> bytes:
    file = io.BytesIO()
    export(tv.Snapshot.read(snapshot), file, Encoder(Entry(table, 0, None) for table in tables))
    return file.getvalue()


def file_v3(*sections: RawSection, has_footers: bool = True) -> bytes:
    file = io.BytesIO()
    write_v3(sections, file, has_footers=has_footers)
    return file.getvalue()


MORE = "05 08 6465762f6d6f7265"
DEEP_STATE = {"s": {"x": 0}, "dev/sub": None, "dev/more": {"y": 1}, "last": 0}
PAIR = Table("pair", [f("both", Annotated[list[dict[str, Any]], DEEP, Length(2)], [DEEP_STATE, DEEP_STATE])])
ODD: dict[str, tuple[Table, int, str]] = {
    "subsections of older versions in another order": (
        DEEP, 1, f"0005 05 {MORE} 00000005 07 05 07 6465762f737562 00000006 06",
    ),
    "a subsection at its default": (DEEP, 1, f"0005 09 {MORE} 00000007 01"),
    "structs with different subsections": (PAIR, 1, f"0005 09 {MORE} 00000006 01 0006 0a {MORE} 00000007 02"),
    "not a number, with its bits": (TIMES, 1, f"{'00' * 24} 7fc12345 fff0000000000001 616263 0100"),
}  # fmt: skip


class TestExported:
    @pytest.mark.parametrize(
        ("table", "version", "hexed"), [(each[0], each[1], each[-1]) for each in (*CASES.values(), *ODD.values())]
    )
    def test_it_is_the_same_file(self, table: Table, version: int, hexed: str) -> None:
        section = RawSection(table.name, 0, version, bytes.fromhex(hexed))
        for data in (file_v2(section), file_v3(section), file_v3(section, has_footers=False)):
            snapshot = imported(data, table)
            assert exported(snapshot, table) == data
            text, back, flagged = io.BytesIO(), io.BytesIO(), io.BytesIO()
            to_json(tv.Snapshot.read(snapshot), text)
            write_snapshot(from_json(text.getvalue()), back)
            write_snapshot(Flagged(tv.Snapshot.read(snapshot), tv.Snapshot.read(snapshot)), flagged)
            assert exported(back.getvalue(), table) == exported(flagged.getvalue(), table) == data
            assert exported(imported(data)) == data, "kept as bytes, it needs no tables"

    def test_order_aliases_and_what_no_table_knows(self) -> None:
        table = Table("new", [f("x", tv.uint8)], aliases=("old",))
        data = file_v2(RawSection("old", 0, 1, b"\1"), RawSection("a", 1, 7, b"abc"), RawSection("old", 3, 1, b"\2"))
        assert exported(imported(data, table), table) == data

    def test_beside_devices_that_qemu_describes(self) -> None:
        described = MAGIC + full(1, "dev", b"\5") + full(2, "ps2kbd", V2, version=2) + b"\0"
        data = described + description(device("dev", field("x", "uint8", 1)))
        table = vars(Keyboard)["__vmstate__"]
        snapshot = imported(data, table)
        values = json.loads(with_values(snapshot))
        assert (values["dev"], values["ps2kbd"]) == ({"x": 5}, {"scan_enabled": 1, "translate": 1})
        assert exported(snapshot, table, Table("dev", [f("y", tv.uint16)])) == data

    def test_a_field_of_another_type_or_none_of_the_table(self) -> None:
        snapshot = imported(file_v2(RawSection("t", 0, 1, b"\1\2")), Table("t", [f("a", tv.uint8), f("b", tv.uint8)]))
        for fields, words in (
            ([f("a", tv.uint8), f("b", tv.uint16)], "expected `uint16`, got `uint8` - at t#0/b"),
            ([f("a", tv.uint8)], "expected only fields that `t` has, got one more, in use - at t#0/b"),
        ):
            with pytest.raises(tv.StateError, match=words):
                exported(snapshot, Table("t", fields))
        assert exported(snapshot, Table("t", [f("a", tv.uint8), f("c", tv.uint8, aliases=("b",))]))[-2:] == b"\1\2"

    def test_versions_that_the_fields_do_not_describe(self) -> None:
        file = file_v2(RawSection("ps2kbd", 0, 1, b"\3"))
        table = declared("1.9")
        with pytest.warns(tv.LegacyWarning):
            snapshot = imported(file, table)
        with pytest.raises(tv.StateError, match="version 3 to 3 of `ps2kbd`, got version 1 - at ps2kbd#0"):
            exported(snapshot, table)
        covered = Table("ps2kbd", table.fields, version=3, minimum_version=1, legacy=table.legacy)
        with pytest.raises(
            tv.StateError, match="that the fields of `ps2kbd` describe, got version 1, which only `load_v1` reads - at ps2kbd#0"
        ):
            exported(snapshot, covered)

    def test_a_condition_that_raises_and_a_type_that_is_none(self) -> None:
        snapshot = imported(file_v2(RawSection("t", 0, 1, b"\1")), Table("t", [f("a", tv.uint8)]))
        raising = f("b", tv.uint8, untagged=Untagged(when=lambda values: bool(values["nothing"])))
        with pytest.raises(tv.StateError, match="`when` of `b` to return, got KeyError: 'nothing' - at t#0/b"):
            exported(snapshot, Table("t", [f("a", tv.uint8), raising]))
        with pytest.raises(tv.StateError, match=r"expected a type that QEMU writes untagged .* got `string`"):
            exported(snapshot, Table("t", [f("a", tv.uint8), f("b", str, "")]))

    def test_attributes_that_lie_are_refused(self) -> None:
        """Each of them in turn: a file comes out, or one of our errors."""
        table, version, _, hexed = CASES["subsections"]
        lies: tuple[object, ...] = (None, -1, 1 << 40, "x", [], {}, [7], [7, 7, 7], [7, "x"], [7, 9])
        section = RawSection(table.name, 0, version, bytes.fromhex(hexed))
        for data in (file_v2(section), file_v3(section)):
            snapshot = imported(data, table)
            text = io.BytesIO()
            to_json(tv.Snapshot.read(snapshot), text)
            found = json.loads(text.getvalue())
            [lying] = found["sections"]
            said = lying["attributes"]["qemu"]
            assert said["subsections"] == [7, 7]
            refusals = 0
            for key in list(said):
                kept = said[key]
                for lie in lies:
                    said[key] = lie
                    back = io.BytesIO()
                    write_snapshot(from_json(json.dumps(found).encode()), back)
                    try:
                        exported(back.getvalue(), table)
                    except tv.StateError:
                        refusals += 1
                said[key] = kept
            assert refusals > 2 * len(lies)

    @pytest.fixture
    def old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
        (tmp_path / "old.vm").write_bytes(
            data := file_v2(RawSection("ps2kbd", 0, 2, V2), RawSection("stranger", 1, 9, b"\1\2\3"))
        )
        (tmp_path / "board.py").write_text("from test_untagged import Keyboard\nMACHINE = [Keyboard]\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        assert run("import", "old.vm", "--tables", "board:MACHINE", "-o", "new.tvm").returncode == 0
        return data

    def test_by_the_command(self, old: bytes, tmp_path: Path) -> None:
        assert run("export", "new.tvm", "--tables", "board:MACHINE").stdout == old
        shown("tables", "board:MACHINE", "-o", "board.json")
        shown("export", "new.tvm", "--tables", "board.json", "-o", "again.vm")
        assert (tmp_path / "again.vm").read_bytes() == old
        shown("set", "new.tvm", "ps2kbd", "translate", "7", "-o", "changed.tvm")
        assert run("export", "changed.tvm", "--tables", "board:MACHINE").stdout == old.replace(V2, struct.pack(">ii", 1, 7))
        assert run("export", "old.vm").stdout == old
        assert run("set", "old.vm", "stranger", "bytes@0[1]", "7f", "-o", "-").stdout == old.replace(b"\1\2\3", b"\1\x7f\3")

    def test_without_tables_it_says_which_it_needs(self, old: bytes, tmp_path: Path) -> None:  # noqa: ARG002  # its files
        (tmp_path / "other.py").write_text("import tagged_vmstate as tv\n\n@tv.vmstate\nclass Other:\n    x: tv.uint8 = 0\n")
        for more in ((), ("--tables", "other:Other")):
            said = refused("export", "new.tvm", *more, "-o", "out.vm")
            assert "expected tables that write ps2kbd#0, which only tables could read: say --tables module:MACHINE" in said
        assert not (tmp_path / "out.vm").exists()
        said = refused("export", "new.tvm", "--like", "new.tvm", "--tables", "other:Other")
        assert "expected what QEMU's -dump-vmstate writes, got `other:Other`" in said

    def test_a_value_without_a_place_is_refused(self, old: bytes, tmp_path: Path) -> None:  # noqa: ARG002  # its files
        text = json.loads(shown("to-json", "new.tvm"))
        text["sections"][0]["fields"].append({"name": "scancode_set", "type": "int32", "value": 3})
        (tmp_path / "new.json").write_text(json.dumps(text))
        words = "version 2 of `ps2kbd` has no place for it, got it in use - at ps2kbd#0"
        for out in ("out.vm", "-"):
            assert words in refused("export", "new.json", "--tables", "board:MACHINE", "-o", out, status=1)
        assert run("export", "new.json", "--tables", "board:MACHINE").stdout == b""
        assert not (tmp_path / "out.vm").exists()


# --- legacy functions


def load_v1(reader: tv.Reader) -> dict[str, Any]:
    """Version 1 had both flags in one byte, in a form that no table describes."""
    both = reader.number("B", "the flags")
    if both == 0xFF:
        raise RuntimeError("flags of another keyboard")
    return {"scan_enabled": both & 1, "translate": both if both > 3 else both >> 1}


def declared(current: str) -> Table:
    fields = [
        Field("scan_enabled", tv.int32),
        Field("translate", Annotated[tv.int32, tv.Mask(0x0F)]),
        f("scancode_set", tv.int32, 2),
    ]
    return Table("ps2kbd", fields, version=3, minimum_version=3, legacy=[tv.Legacy(load_v1, [1], release="2.0", current=current)])


class TestLegacy:
    def test_it_reads_what_no_table_can_and_warns(self) -> None:
        file = file_v2(RawSection("ps2kbd", 0, 1, b"\3"))
        with pytest.warns(
            tv.LegacyWarning, match="`load_v1` reads version 1 of `ps2kbd`; it goes with release 2.0: save the state anew"
        ):
            found = tv.load(file, declared("1.9"))
        assert found == {"scan_enabled": 1, "translate": 1, "scancode_set": 2}

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", r"1 bytes of the flags, section has only 0 left - at ps2kbd#0 \(byte \d+\)"),
            (b"\3\3", r"the end of the section, section has 1 more bytes - at ps2kbd#0"),
            (b"\xff", r"`load_v1` to return, section has RuntimeError: flags of another keyboard - at ps2kbd#0"),
            (b"\x1f", r"`int32` with no bits but 0xf, section has 31 - at ps2kbd#0/translate"),
        ],
    )
    def test_what_it_reads_is_checked(self, data: bytes, words: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tv.LegacyWarning)
            with pytest.raises(FormatError, match=words):
                tv.load(file_v2(RawSection("ps2kbd", 0, 1, data)), declared("1.9"))

    @pytest.mark.parametrize("version", ["2.0", "2", "2.0.1", "3.1", "10.0"])
    def test_it_is_refused_once_its_release_has_come(self, version: str) -> None:
        with pytest.raises(TableError, match=f"`load_v1` gone since release 2.0, got it in {version}: remove it"):
            declared(version)

    def test_the_version_may_be_that_of_a_distribution(self) -> None:
        assert declared("tagged-vmstate").legacy[0].versions == (1,)

    def test_one_function_for_a_version(self) -> None:
        twice = [tv.Legacy(load_v1, [1, 2], release="9", current="1"), tv.Legacy(load_v1, [2], release="9", current="1")]
        with pytest.raises(TableError, match="one legacy function for a version"):
            Table("t", [], legacy=twice)


# --- real devices: the walk and the vmdesc import agree


@tv.vmstate
class PS2:
    write_cmd: tv.int32 = 0
    rptr: tv.int32 = tv.field(default=0, name="queue.rptr")
    wptr: tv.int32 = tv.field(default=0, name="queue.wptr")
    count: tv.int32 = tv.field(default=0, name="queue.count")
    data: Annotated[bytes, Length(256)] = tv.field(default=bytes(256), name="queue.data")


@tv.vmstate("ps2kbd", version=3, minimum_version=2)
class RealKeyboard:
    parent: PS2 = tv.field(default_factory=PS2, name="parent_obj")
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0
    scancode_set: tv.int32 = tv.field(default=2, since=3)


@tv.vmstate("mc146818rtc", version=3, minimum_version=1)
class Clock:
    cmos_data: Annotated[bytes, Length(128)] = bytes(128)
    cmos_index: tv.uint8 = 0
    unused_0: Annotated[bytes, Length(28)] = tv.field(default=bytes(28), name="unused[0]")
    periodic_timer: tv.timer = -1
    next_periodic_time: tv.int64 = 0
    unused_1: Annotated[bytes, Length(24)] = tv.field(default=bytes(24), name="unused[1]")
    irq_coalesced: tv.uint32 = 0
    period: tv.uint32 = 0
    base_rtc: tv.uint64 = tv.field(default=0, since=3)
    last_update: tv.uint64 = tv.field(default=0, since=3)
    offset: tv.int64 = tv.field(default=0, since=3)
    update_timer: tv.timer = tv.field(default=-1, since=3)
    next_alarm_time: tv.uint64 = tv.field(default=0, since=3)


@tv.vmstate
class Channel:
    count: tv.int32 = 0
    latched_count: tv.uint16 = 0
    count_latched: tv.uint8 = 0
    status_latched: tv.uint8 = 0
    status: tv.uint8 = 0
    read_state: tv.uint8 = 0
    write_state: tv.uint8 = 0
    write_latch: tv.uint8 = 0
    rw_mode: tv.uint8 = 0
    mode: tv.uint8 = 0
    bcd: tv.uint8 = 0
    gate: tv.uint8 = 0
    count_load_time: tv.int64 = 0
    next_transition_time: tv.int64 = 0


@tv.vmstate("i8254", version=3, minimum_version=2)
class Timer:
    irq_disabled: tv.uint32 = tv.field(default=0, name="channels[0].irq_disabled", since=3)
    channels: Annotated[list[Channel], Length(3)] = tv.field(default_factory=lambda: [Channel() for _ in range(3)])
    next_transition_time: tv.int64 = tv.field(default=0, name="channels[0].next_transition_time")


PIC = Table(
    "i8259",
    [
        f(name, tv.uint8)
        for name in (
            *(
                "last_irr",
                "irr",
                "imr",
                "isr",
                "priority_add",
                "irq_base",
                "read_reg_select",
                "poll",
                "special_mask",
                "init_state",
            ),
            *("auto_eoi", "rotate_on_auto_eoi", "special_fully_nested_mode", "init4", "single_mode", "elcr"),
        )
    ],
)


@pytest.mark.parametrize(
    ("device", "table"),
    [("ps2kbd#0", RealKeyboard), ("mc146818rtc#0", Clock), ("i8254#0", Timer), ("i8259#0", PIC), ("i8259#1", PIC)],
)
def test_a_real_device_by_the_walk_and_by_its_description(device: str, table: Any) -> None:
    table = table if isinstance(table, Table) else vars(table)["__vmstate__"]
    data = stream_bytes("pc-qemu7.2")
    source = Input(io.BytesIO(data))
    description = parse(find_description(source) or b"")
    sizes = {f"{each.name}#{each.instance}": each.struct.size for each in description.devices}
    [turn] = [each for each in StreamReader(source, sizes).events() if isinstance(each, Turn) and each.head.label == device]
    assert isinstance(turn.body, bytes)
    [section] = [each for each in import_stream(io.BytesIO(data)) if each.label == device]
    walked = read(table, turn.body, turn.head.version)
    described = tv.Section(table.name, 0, map(_as_buffer, section.records()))
    state = tv.load(described, table)
    assert tv.load(tv.Section(table.name, 0, walked), table) == state
    assert write_records(table, walked, turn.head.version, ()) == turn.body
    assert write(table, state, turn.head.version) == turn.body
    assert decode_all(joined(save(table, state)))


def _as_buffer(record: tv.Record) -> tv.Record:
    """What QEMU calls unused has a type of its own in an import."""
    if record.type != "unused_buffer":
        return record
    value: Any = record.value
    return record.replace(type="buffer", value=value.decode())
