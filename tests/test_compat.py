"""Told before anyone loads: a before/after pair for each rule, and that what compat says is what a load does."""

from __future__ import annotations

import copy
import enum
import itertools
import json
import lzma
import tracemalloc
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from annotated_types import Interval, Le
from conftest import DATA
from hypothesis import given
from table_strategies import Growth, growths
from test_machine import state_of, table_of
from typing_example import Everything, Mode, More

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table
from tagged_vmstate.changes import Change
from tagged_vmstate.compat import compare
from tagged_vmstate.devices import Entry, entry_of
from tagged_vmstate.fieldtype import SparseMemory
from tagged_vmstate.incoming import Incoming
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.tablejson import tables_from_json, tables_to_json


class Smaller(enum.IntEnum):
    IDLE = 0


SIZE = 1 << 44


def told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.rule.id, change.outcome) for change in changes]


def entries(*fields: Field, name: str = "dev", aliases: tuple[str, ...] = ()) -> list[Entry]:
    return [Entry(Table(name, fields, aliases=aliases), 0, None)]


def f(annotation: Any, default: Any = 0, **more: Any) -> Field:
    return Field(more.pop("name", "x"), annotation, default_factory=lambda: copy.deepcopy(default), **more)


INNER = Table("inner", [f(tv.uint8)])
NEEDY = Table("inner", [Field("x", tv.uint8)])
STRUCT = Annotated[dict, INNER]

PAIRS: list[tuple[list[Entry], list[Entry], list[tuple[str, str]], list[tuple[str, str]]]] = [
    # old, new, upgrade, downgrade
    (entries(f(tv.uint8)), entries(f(tv.uint8)), [], []),
    (entries(), [], [("device-unknown", "loads while all of it is at its default")], [("device-missing", "fine")]),
    (entries(Field("x", tv.uint8)), [], [("device-unknown", "refused")], [("device-missing", "refused")]),
    (entries(), entries(name="new", aliases=("dev",)), [("device-renamed", "fine")],
     [("device-unknown", "loads while all of it is at its default"), ("device-missing", "fine")]),
    (entries(), entries(f(tv.uint8)), [("field-missing", "fine")], [("field-unknown", "loads while all of it is at its default")]),
    (entries(), entries(Field("x", tv.uint8)), [("field-missing", "refused")], [("field-unknown", "refused")]),
    (entries(), entries(f(STRUCT, {"x": 0})), [("field-missing", "fine")], [("field-unknown", "loads while all of it is at its default")]),
    (entries(), entries(Field("x", Annotated[dict, NEEDY])), [("field-missing", "refused")], [("field-unknown", "refused")]),
    (entries(f(tv.uint8)), entries(f(tv.uint8, name="y", aliases=("x",))), [("field-renamed", "fine")],
     [("field-unknown", "loads while all of it is at its default"), ("field-missing", "fine")]),
    (entries(f(tv.uint8)), entries(f(tv.uint16, widens_from=(tv.uint8,))), [], [("type-changed", "refused")]),
    (entries(f(tv.uint8)), entries(f(tv.uint16)), [("type-changed", "refused")], [("type-changed", "refused")]),
    (entries(f(Annotated[bytes, Length(2)], b"ab")), entries(f(Annotated[bytes, Length(3)], b"abc")),
     [("length-changed", "refused"), ("default-changed", "fine")], [("length-changed", "refused"), ("default-changed", "fine")]),
    (entries(f(Annotated[bytes, MaxLength(2)], b"")), entries(f(Annotated[bytes, MaxLength(3)], b"")), [],
     [("length-changed", "loads while it has at most 2")]),
    (entries(f(Annotated[bytes, Length(2)], b"ab")), entries(f(Annotated[bytes, MaxLength(3)], b"ab")), [],
     [("length-changed", "loads while it has just 2")]),
    (entries(f(tv.uint8)), entries(f(Annotated[list[tv.uint8], Length(2)], [0, 0])), [("length-changed", "refused")],
     [("length-changed", "refused")]),
    (entries(f(tv.int8)), entries(f(Annotated[tv.int8, Interval(ge=0, lt=9)])), [("range-changed", "loads while it is 0 to 8")], []),
    (entries(f(tv.uint8)), entries(f(Annotated[tv.uint8, tv.Mask(3)])), [("range-changed", "loads while it is one with no bits but 0x3")], []),
    (entries(f(Annotated[Mode, tv.uint8])), entries(f(Annotated[Smaller, tv.uint8])), [("members-changed", "loads while it is not BUSY (1)")], []),
    (entries(f(tv.uint8)), entries(f(Annotated[Smaller, tv.uint8])), [("members-changed", "loads while it is one of 0")], []),
    (entries(f(STRUCT, {"x": 0})), entries(f(Annotated[dict | None, INNER], None)), [], [("optional-changed", "loads while it is present")]),
    (entries(f(tv.uint8, 1)), entries(f(tv.uint8, 2)), [("default-changed", "fine")], [("default-changed", "fine")]),
    (entries(f(STRUCT, {"x": 0})), entries(f(Annotated[dict, NEEDY], {"x": 0})), [], []),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_each_rule_has_a_pair(pair: Any) -> None:
    old, new, upgrade, downgrade = pair
    assert told(compare(old, new)) == upgrade
    assert told(compare(new, old)) == downgrade


def test_what_lies_in_structs_has_its_path_and_all_is_told() -> None:
    new = Table("inner", [f(tv.uint16), f(tv.uint8, name="y")])
    old_table = Table(
        "dev", [f(STRUCT, {"x": 0}, name="s"), f(Annotated[list[dict[str, int]], INNER, MaxLength(2)], [], name="l")]
    )
    new_table = Table("dev", [f(Annotated[dict, new], {"x": 0, "y": 0}, name="s"), f(tv.uint8, name="l")])
    changes = compare(
        [Entry(old_table, 0, None), Entry(old_table, 1, None)], [Entry(new_table, 0, None), Entry(new_table, 1, None)]
    )
    assert [(change.place, change.rule.id) for change in changes] == [
        ("dev#0 s / x", "type-changed"),
        ("dev#0 s / y", "field-missing"),
        ("dev#0 l", "type-changed"),
        ("dev#0 l", "length-changed"),
    ]
    assert str(changes[0]) == "dev#0 s / x: refused (type-changed: written `uint8`, read `uint16`)"


@given(growths())
def test_what_compat_says_is_what_a_load_does(growth: Growth) -> None:
    old, new = table_of(growth.old), table_of(growth.new)
    for writer, reader, plans in ((old, new, growth.old), (new, old, growth.new)):
        changes = compare([Entry(writer, 0, None)], [Entry(reader, 0, None)])
        in_use = {plan.name for plan in plans if not plan.is_default}
        expected = any(
            change.effect == "refused" or (change.effect == "while" and change.path[0] in in_use) for change in changes
        )
        report = tv.Machine([tv.Device({plan.name: plan.default for plan in _plans(reader, growth)}, table=reader)])
        problems = report.check(tv.dumps(state_of(plans), table=writer)).problems
        assert bool(problems) == expected


def _plans(reader: Table, growth: Growth) -> Any:
    return growth.old if [field.name for field in reader.fields] == [plan.name for plan in growth.old] else growth.new


class TestTablesAsJson:
    def roundtrip(self, found: list[Entry]) -> list[Entry]:
        return tables_from_json(json.loads(json.dumps(tables_to_json(found))))

    def test_they_decide_the_same(self) -> None:
        machine = tv.Machine([Everything(required=1), (More(required=2), 3)])
        again = self.roundtrip(list(machine.entries))
        assert [entry.label for entry in again] == ["everything#0", "everything-more#3"]
        assert compare(machine.entries, again) == compare(again, machine.entries) == []
        assert json.dumps(tables_to_json(again)) == json.dumps(tables_to_json(machine.entries))
        data = tv.dumps(Everything(required=7, numbers=[1, 2, 3]))
        state = tv.load(data, again[0].table)
        assert state["numbers"] == [1, 2, 3]
        assert tv.dumps(state, table=again[0].table) == data

    @given(growths())
    def test_any_table_comes_back(self, growth: Growth) -> None:
        table = table_of(growth.new)
        [again] = self.roundtrip([Entry(table, 0, None)])
        assert compare([again], [Entry(table, 0, None)]) == []
        data = tv.dumps(state_of(growth.new), table=table)
        assert tv.load(data, again.table) == tv.load(data, table)

    def test_large_defaults_of_zeros_take_no_room(self) -> None:
        """More memory than any machine has: none of it may be made, wherever the tables come from."""
        memory = Field("x", Annotated[tv.sparse, Length(SIZE)], default_factory=lambda: bytearray(SIZE))
        declared = entries(
            memory,
            Field("y", Annotated[bytes, Length(1 << 24)], default=bytes(1 << 24)),
            Field("z", Annotated[tv.bitmap, Length(1 << 27)], default=bytes(1 << 24)),
        )
        tracemalloc.start()
        text = json.dumps(tables_to_json(declared))
        again = tables_from_json(json.loads(text))
        for writer, reader in itertools.product((declared, again), repeat=2):
            assert compare(writer, reader) == []
        for found in (declared, again):
            report = Incoming(found, tv.Section("dev", 0, []), "error", tells=True)
            assert {finding.rule for finding in report.findings} == {"filled"}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(text) < 1_000
        assert peak < 40 << 20  # the two buffers, once

    def test_defaults_of_memory_are_compared_by_their_bytes(self) -> None:
        [zeros, first, cut, other] = (
            self.roundtrip(entries(f(Annotated[tv.sparse, Length(8192)], bytearray(data))))
            for data in (bytes(8192), b"\1" + bytes(8190) + b"\2", bytes(8192), b"\1" + bytes(8191))
        )
        cut[0].table.fields[0].default = SparseMemory(8192, ((0, b"\1"), (8000, bytes(191) + b"\2")))
        assert compare(first, cut) == compare(cut, first) == []
        [change] = compare(zeros, first)
        assert (change.rule.id, change.writer) == ("default-changed", "default <8192 zero bytes>")
        assert told(compare(first, other)) == [("default-changed", "fine")]

    @pytest.mark.parametrize("length", [1 << 40, -1, "8", []])
    def test_a_buffer_of_zeros_that_cannot_be(self, length: Any) -> None:
        found = tables_to_json(entries(f(Annotated[bytes, Length(8192)], bytes(8192))))
        assert found["devices"][0]["fields"][0]["default"] == {}
        with pytest.raises(tv.TableError):
            tables_from_json(_set(found, "length", length))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda _: [], 'tables as an object with "format"'),
            (lambda found: {**found, "format": "x"}, 'tables as an object with "format": "tagged-vmstate tables", got \'x\''),
            (lambda found: {**found, "version": 2}, "tables of version 1, got version 2: a later build"),
            (lambda found: {**found, "devices": 3}, '"devices" as a JSON array, got 3'),
            (lambda found: _set(found, "type", "int7"), "a type that this build knows, got 'int7' - at dev x"),
            (lambda found: _set(found, "default", 300), r"a default: `uint8` \(0 to 255\), got 300 - at dev x"),
            (lambda found: _set(found, "bounds", {"odd": 1}), "bounds that this build knows"),
            (lambda found: _set(found, "aliases", 3), "a field as tables are exported"),
            (lambda found: _set(found, "name", None), '"name" as a JSON string'),
        ],
    )
    def test_what_is_no_table_is_said(self, change: Callable[[Any], Any], words: str) -> None:
        found = json.loads(json.dumps(tables_to_json(entries(f(tv.uint8)))))
        with pytest.raises(tv.TableError, match=words):
            tables_from_json(change(found))


def _set(found: Any, key: str, value: Any) -> Any:
    found["devices"][0]["fields"][0][key] = value
    return found


def test_bounds_and_enums_go_along() -> None:
    table = Table("d", [f(Annotated[tv.uint8, Le(3)]), f(Annotated[Mode, tv.uint8], Mode.IDLE, name="m")])
    [again] = tables_from_json(json.loads(json.dumps(tables_to_json([Entry(table, 0, None)]))))
    for record in (tv.Record("x", "uint8", None, 4), tv.Record("m", "uint8", None, 2)):
        with pytest.raises(tv.LoadError):
            tv.load(tv.Section("d", 0, [record]), again.table)
    assert entry_of(Everything(required=1)).label == "everything#0"


# --- QEMU's own descriptions


DUMP: dict[str, Any] = json.loads(lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes()))


def compared(change: Callable[[Any], None], aliases: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """What an upgrade and a downgrade meet between QEMU 7.2 and a copy that was changed by hand."""
    new = copy.deepcopy(DUMP)
    change(new)
    old, changed = dumpstate.parse(DUMP, aliases), dumpstate.parse(new)
    return [str(each) for each in dumpstate.compare(old, changed)], [str(each) for each in dumpstate.compare(changed, old)]


def fields(dump: Any, device: str) -> list[Any]:
    found: list[Any] = dump[device]["Description"]["Fields"]
    return found


class TestQemu:
    def test_it_is_compatible_with_itself(self) -> None:
        assert compared(lambda _: None) == ([], [])

    def test_a_field_removed(self) -> None:
        upgrade, downgrade = compared(lambda dump: fields(dump, "hpet").pop(1))
        assert upgrade == ["hpet isr: refused (qemu-field-unknown: written 8 bytes, read nothing)"]
        assert downgrade == ["hpet isr: refused (qemu-field-missing: written nothing, read 8 bytes)"]

    def test_a_field_renamed_is_the_same_bytes(self) -> None:
        def rename(dump: Any) -> None:
            fields(dump, "hpet")[1]["field"] = "status"

        upgrade, downgrade = compared(rename)
        assert upgrade == ["hpet isr: fine (qemu-field-renamed: written `isr`, read `status`)"]
        assert downgrade == ["hpet status: fine (qemu-field-renamed: written `status`, read `isr`)"]
        assert compared(rename, {"hpet.isr": "status"})[0] == []

    def test_a_field_resized(self) -> None:
        def resize(dump: Any) -> None:
            fields(dump, "hpet")[1]["size"] = 4

        assert compared(resize) == (
            ["hpet isr: refused (qemu-field-resized: written 8 bytes, read 4 bytes)"],
            ["hpet isr: refused (qemu-field-resized: written 4 bytes, read 8 bytes)"],
        )

    def test_a_version_raised(self) -> None:
        def change(dump: Any) -> None:
            dump["hpet"]["Description"]["version_id"] = 3

        assert compared(change) == ([], ["hpet: refused (qemu-version-too-new: written version 3, read 1 to 2)"])

    def test_a_minimum_version_raised(self) -> None:
        def change(dump: Any) -> None:
            dump["hpet"]["Description"].update(version_id=3, minimum_version_id=3)

        upgrade, downgrade = compared(change)
        assert upgrade == ["hpet: refused (qemu-version-too-old: written version 2, read 3 to 3)"]
        assert len(downgrade) == 1

    def test_a_field_of_a_later_version(self) -> None:
        def change(dump: Any) -> None:
            dump["hpet"]["Description"]["version_id"] = 3
            fields(dump, "hpet").append({"field": "new", "version_id": 3, "field_exists": False, "size": 1})

        upgrade, downgrade = compared(change)
        assert upgrade == []
        assert [line.partition(" (")[0] for line in downgrade] == ["hpet: refused", "hpet new: refused"]

    def test_a_subsection_gone_and_one_added(self) -> None:
        def remove(dump: Any) -> None:
            dump["fw_cfg"]["Description"]["Subsections"].pop(0)

        words = ": loads while it is not needed, and so not sent (qemu-subsection-unknown: written a subsection, read nothing)"
        assert compared(remove) == ([f"fw_cfg fw_cfg/dma{words}"], [])

        def add(dump: Any) -> None:
            new = {"name": "fw_cfg/new", "version_id": 1, "minimum_version_id": 1, "Fields": []}
            dump["fw_cfg"]["Description"]["Subsections"].append(new)

        assert compared(add) == ([], [f"fw_cfg fw_cfg/new{words}"])

    def test_what_differs_in_a_subsection(self) -> None:
        def change(dump: Any) -> None:
            dump["fw_cfg"]["Description"]["Subsections"][1]["Fields"][2]["size"] = 4

        assert compared(change)[0] == [
            "fw_cfg fw_cfg/acpi_mr / rsdp_mr_size: refused (qemu-field-resized: written 8 bytes, read 4 bytes)"
        ]

    def test_a_description_that_moved_into_a_struct(self) -> None:
        def change(dump: Any) -> None:
            found = fields(dump, "hpet")
            inner = {"name": "regs", "version_id": 1, "minimum_version_id": 1, "Fields": found[:2]}
            found[:2] = [{"field": "regs", "version_id": 0, "field_exists": False, "size": 99, "Description": inner}]

        upgrade, downgrade = compared(change)
        assert upgrade == [
            "hpet config: fine (qemu-struct-moved: written `config`, read `regs.config`)",
            "hpet isr: fine (qemu-struct-moved: written `isr`, read `regs.isr`)",
        ]
        assert len(downgrade) == 2

    def test_fields_in_another_order(self) -> None:
        def change(dump: Any) -> None:
            found = fields(dump, "hpet")
            found.insert(0, found.pop(1))

        assert compared(change)[0] == ["hpet isr: refused (qemu-field-moved: written it, read it, in another place)"]

    def test_a_condition_on_one_side(self) -> None:
        def change(dump: Any) -> None:
            fields(dump, "hpet")[1]["field_exists"] = True

        words = "hpet isr: loads while the condition holds (qemu-condition-changed: written "
        assert compared(change) == ([f"{words}no condition, read a condition)"], [f"{words}a condition, read no condition)"])

        def conditional(dump: Any) -> None:
            fields(dump, "hpet").append({"field": "new", "version_id": 0, "field_exists": True, "size": 1})

        assert compared(conditional)[0] == [
            "hpet new: loads while its condition does not hold (qemu-field-missing: written nothing, read 1 bytes)"
        ]

    def test_a_device_gone_renamed_and_its_section_renamed(self) -> None:
        upgrade, downgrade = compared(lambda dump: dump.pop("hpet"))
        assert upgrade == ["hpet: loads while the machine has none (qemu-device-unknown: written it, read nothing)"]
        assert downgrade == []

        def rename(dump: Any) -> None:
            dump["hpet2"] = dump.pop("hpet")

        assert compared(rename) == ([], []), "the stream names the section, not the type"

        def section(dump: Any) -> None:
            dump["hpet"]["Description"]["name"] = "hpet2"

        assert compared(section)[0] == ["hpet: refused (qemu-section-renamed: written `hpet`, read `hpet2`)"]

    def test_fifty_devices_changed_are_fifty_findings(self) -> None:
        changed: list[str] = []

        def change(dump: Any) -> None:
            for device in dump:
                found = dump[device].get("Description", {}).get("Fields", [])
                if found and "Description" not in found[-1] and len(changed) < 50:
                    found[-1]["size"] += 1
                    changed.append(device)

        upgrade, downgrade = compared(change)
        assert [line.partition(" ")[0] for line in upgrade] == [line.partition(" ")[0] for line in downgrade] == changed
        assert len(changed) == 50

    def test_what_is_no_dump_is_said(self) -> None:
        with pytest.raises(tv.FormatError, match="what QEMU's -dump-vmstate writes"):
            dumpstate.parse({"vmschkmachine": {"Name": "x"}, "dev": {"Description": {"name": "dev"}}})
