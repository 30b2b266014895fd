"""Told before anyone loads: a before/after pair for each rule, and that what compat says is what a load does."""

from __future__ import annotations

import copy
import enum
import itertools
import json
import lzma
import math
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from annotated_types import Interval, Le, Predicate
from conftest import DATA
from hostile import dump
from hypothesis import given
from schemas import validator
from table_strategies import Growth, growths
from test_machine import state_of, table_of
from typing_example import Everything, Mode, More

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table
from tagged_vmstate.changes import Change
from tagged_vmstate.compat import compare
from tagged_vmstate.devices import Entry, entry_of
from tagged_vmstate.incoming import Incoming
from tagged_vmstate.jsonform import Document
from tagged_vmstate.paths import Aliases, parse_alias
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.tablejson import not_carried, read_tables, tables_from_json, tables_to_json


def is_even(number: int) -> bool:
    return number % 2 == 0


EVEN = Annotated[tv.uint8, Predicate(is_even)]


SCHEMA = validator("tables")


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
MOVED = Annotated[dict, Table("inner", [f(tv.uint8, 2, previous_defaults=(0,))])]
MEMORY = Annotated[tv.sparse, Length(64)], Annotated[tv.sparse, MaxLength(128)], Annotated[tv.sparse, MaxLength(256)]
NEEDY = Table("inner", [Field("x", tv.uint8)])
CHECKED = Table("inner", [f(tv.uint8)], check=id)
STRUCT = Annotated[dict, INNER]
LIST = Annotated[list[dict[str, int]], INNER, MaxLength(2)]

PAIRS: list[tuple[list[Entry], list[Entry], list[tuple[str, str]], list[tuple[str, str]]]] = [
    # old, new, upgrade, downgrade
    (entries(f(tv.uint8)), entries(f(tv.uint8)), [], []),
    (entries(f(tv.uint8)), entries(f(EVEN)), [("range-changed", "loads while it is one that meets is_even")], []),
    ([Entry(Table("dev", [f(STRUCT, {"x": 0})]), 0, None)], [Entry(Table("dev", [f(Annotated[dict, CHECKED], {"x": 0})]), 0, None)],
     [("check-added", "loads while the check takes it")], []),
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
     [("length-changed", "refused")], [("length-changed", "refused")]),
    (entries(f(Annotated[bytes, MaxLength(2)], b"")), entries(f(Annotated[bytes, MaxLength(3)], b"")), [],
     [("length-changed", "loads while it has at most 2")]),
    (entries(f(Annotated[bytes, Length(2)], b"ab")), entries(f(Annotated[bytes, MaxLength(3)], b"ab")), [],
     [("length-changed", "loads while it has just 2")]),
    (entries(f(MEMORY[0], bytearray(64))), entries(f(MEMORY[1], bytearray(64))), [], [("length-changed", "loads while it has just 64")]),
    (entries(f(MEMORY[1], bytearray(64))), entries(f(MEMORY[2], bytearray(64))), [], [("length-changed", "loads while it has at most 128")]),
    (entries(f(Annotated[tv.bitmap, Length(16)], bytes(2))), entries(f(Annotated[tv.bitmap, MaxLength(20)], bytes(2))), [],
     [("length-changed", "loads while it has just 16")]),
    (entries(f(Annotated[tv.bitmap, Length(13)], bytes(2))), entries(f(Annotated[tv.bitmap, MaxLength(20)], bytes(2))),
     [], [("length-changed", "refused")]),
    (entries(f(tv.uint8)), entries(f(Annotated[list[tv.uint8], Length(2)], [0, 0])), [("length-changed", "refused")],
     [("length-changed", "refused")]),
    (entries(f(tv.int8)), entries(f(Annotated[tv.int8, Interval(ge=0, lt=9)])), [("range-changed", "loads while it is 0 to 8")], []),
    (entries(f(tv.uint8)), entries(f(Annotated[tv.uint8, tv.Mask(3)])), [("range-changed", "loads while it is one with no bits but 0x3")], []),
    (entries(f(Annotated[Mode, tv.uint8])), entries(f(Annotated[Smaller, tv.uint8])), [("members-changed", "loads while it is not BUSY (1)")], []),
    (entries(f(tv.uint8)), entries(f(Annotated[Smaller, tv.uint8])), [("members-changed", "loads while it is one of 0")], []),
    (entries(f(STRUCT, {"x": 0})), entries(f(Annotated[dict | None, INNER], {"x": 0})), [], [("optional-changed", "loads while it is present")]),
    (entries(f(tv.uint8, 1)), entries(f(tv.uint8, 2)),
     [("default-unnamed", "loads while every snapshot has it: one of a release that lacks it silently gets 2 for 1")],
     [("default-unnamed", "loads while every release has it: one that lacks it silently drops 2 and goes on with 1")]),
    (entries(f(tv.uint8, 1)), entries(f(tv.uint8, 2, previous_defaults=(1,))), [("default-changed", "fine")], [("default-changed", "fine")]),
    (entries(f(tv.uint8, 1)), entries(f(tv.uint8, 1, previous_defaults=(1,))), [], []),
    (entries(), entries(f(tv.uint8, 2, previous_defaults=(1,))), [("field-missing", "fine")], [("field-unknown", "refused")]),
    (entries(), entries(f(tv.uint8, 2, previous_defaults=(2,))), [("field-missing", "fine")],
     [("field-unknown", "loads while all of it is at its default")]),
    ([], entries(f(MOVED, {"x": 2})), [("device-missing", "fine")], [("device-unknown", "refused")]),
    (entries(f(STRUCT, {"x": 0})), entries(f(Annotated[dict, NEEDY], {"x": 0})), [], []),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_each_rule_has_a_pair(pair: Any) -> None:
    old, new, upgrade, downgrade = pair
    assert told(compare(old, new)) == upgrade
    assert told(compare(new, old, is_downgrade=True)) == downgrade


@pytest.mark.parametrize(
    ("old", "new", "found", "remedy"),
    [
        (f(tv.uint8, 1), f(tv.uint16, 2, widens_from=(tv.uint8,)), ["x"], "previous_defaults=(1,)"),
        (f(tv.uint8, 2, previous_defaults=(1,)), f(tv.uint8, 2), ["x"], "previous_defaults=(1, 2)"),
        (f(tv.uint8, 2, previous_defaults=(1,)), f(tv.uint8, 3, previous_defaults=(2,)), ["x"], "previous_defaults=(1, 2)"),
        (f(tv.uint8, 2, previous_defaults=(1,)), f(tv.uint8, 3, previous_defaults=(2, 1)), ["x"], "previous_defaults=(1, 2)"),
        (f(STRUCT, {"x": 0}), f(STRUCT, {"x": 1}), ["x/x"], "previous_defaults=(0,) of the struct or of the field in it"),
        (f(STRUCT, {"x": 0}), f(Annotated[dict | None, INNER], None), ["x"], "previous_defaults=({'x': 0},)"),
        (f(MEMORY[0], bytearray(64)), f(MEMORY[1], bytearray(128)), ["x"], "previous_defaults=(bytearray(64),)"),
        (f(LIST, [{"x": 0}]), f(LIST, []), ["x"], "previous_defaults=([{'x': 0}],)"),
        (f(tv.uint8, 2), f(tv.uint8, 2, previous_defaults=(1,)), [], ""),
        (f(tv.uint8, 1, previous_defaults=(1,)), f(tv.uint8, 1), [], ""),
        (f(tv.float64, math.nan), f(tv.float64, math.nan), [], ""),
        (f(tv.float64, 0.0), f(tv.float64, -0.0), ["x"], "previous_defaults=(0.0,)"),
        (f(STRUCT, {"x": 0}), f(STRUCT, {"x": 1}, previous_defaults=({"x": 0},)), [], ""),
        (f(STRUCT, {"x": 0}), f(MOVED, {"x": 2}), [], ""),
        (f(LIST, []), f(LIST, [{"x": 1}], previous_defaults=([],)), [], ""),
    ],
)
def test_a_default_that_has_changed_is_named(old: Field, new: Field, found: list[str], remedy: str) -> None:
    for changes in (compare(entries(old), entries(new)), compare(entries(new), entries(old), is_downgrade=True)):
        unnamed = [change for change in changes if change.rule.id == "default-unnamed"]
        assert [change.place.removeprefix("dev#0/") for change in unnamed] == found
        assert [change.rule.remedy for change in unnamed] == [f"declare {remedy}"] * len(found)


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
        ("dev#0/s/x", "type-changed"),
        ("dev#0/s/y", "field-missing"),
        ("dev#0/l", "type-changed"),
        ("dev#0/l", "length-changed"),
    ]
    assert str(changes[0]) == "dev#0/s/x: refused (type-changed: written `uint8`, read `uint16`)"


@given(growths())
def test_what_compat_says_is_what_a_load_does(growth: Growth) -> None:
    old, new = table_of(growth.old), table_of(growth.new)
    for writer, reader, plans in ((old, new, growth.old), (new, old, growth.new)):
        changes = compare([Entry(writer, 0, None)], [Entry(reader, 0, None)], is_downgrade=writer is new)
        in_use = {plan.name for plan in plans if not plan.is_default}
        expected = any(
            change.effect == "refused" or (change.effect == "while" and change.path[0] in in_use) for change in changes
        )
        report = tv.Machine([tv.Device({plan.name: plan.default for plan in _plans(reader, growth)}, table=reader)])
        problems = report.check(tv.dumps(state_of(plans), table=writer)).problems
        assert bool(problems) == expected


def _plans(reader: Table, growth: Growth) -> Any:
    return growth.old if [field.name for field in reader.fields] == [plan.name for plan in growth.old] else growth.new


def _set(found: Any, key: str, value: Any, **more: Any) -> Any:
    found["devices"][0]["fields"][0] |= {key: value, **more}
    return found


def _device(found: Any, key: str, value: Any) -> Any:
    found["devices"][0][key] = value
    return found


def _nested(levels: int) -> Any:
    found: Any = {"device": "d", "fields": []}
    for _ in range(levels):
        found = {"device": "d", "fields": [{"name": "x", "type": "struct", "struct": found}]}
    return found


class TestTablesAsJson:
    def roundtrip(self, found: list[Entry]) -> list[Entry]:
        exported = json.loads(json.dumps(tables_to_json(found)))
        SCHEMA.validate(exported)
        return tables_from_json(exported)

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

    def test_they_name_what_they_cannot_carry(self) -> None:
        inner = Table("inner", [Field("even", EVEN, default=0)], post_load=print, pre_save=print)
        fields = [Field("one", Annotated[dict, inner]), Field("two", Annotated[dict, inner])]
        machine = [Entry(Table("device", fields, check=print), 0, None), Entry(Table("other", fields), 0, None)]
        found = not_carried(self.roundtrip(machine))
        assert [(each.kind, each.owner, each.name, each.field) for each in found] == [
            ("check", "device", "check", None),
            ("post_load", "inner", "post_load", None),
            ("predicate", "inner", "is_even", "even"),
        ]
        again = self.roundtrip(machine)
        assert tables_to_json(again) == tables_to_json(machine)
        assert compare(machine, again) == compare(again, machine) == []
        assert not_carried(machine) == []

    def test_those_of_earlier_releases_do_not_say_what_they_lack(self) -> None:
        [entry] = self.roundtrip([Entry(Table("t", [Field("x", tv.uint8)]), 0, None)])
        assert not_carried([entry]) == []
        found: Any = tables_to_json([entry])
        del found["devices"][0]["hooks"]
        again = tables_from_json(found)
        assert [each.kind for each in not_carried(again)] == ["unknown"]
        assert "hooks" not in json.dumps(tables_to_json(again))

    @given(growths())
    def test_any_table_comes_back(self, growth: Growth) -> None:
        table = table_of(growth.new)
        [again] = self.roundtrip([Entry(table, 0, None)])
        assert compare([again], [Entry(table, 0, None)]) == []
        data = tv.dumps(state_of(growth.new), table=table)
        assert tv.load(data, again.table) == tv.load(data, table)

    def test_memory_and_bitmaps_that_vary_go_along(self) -> None:
        found = entries(f(MEMORY[1], bytearray(b"a") * 65), f(Annotated[tv.bitmap, MaxLength(13)], b"\1", name="b"))
        exported = json.loads(json.dumps(tables_to_json(found)))
        memory, bits = exported["devices"][0]["fields"]
        assert memory["default"] == {"length": 65, "runs": {"0x0": "61" * 65}}
        assert (memory["capacity"], bits["capacity"], bits["default"]) == (128, 13, "01")
        [again] = tables_from_json(exported)
        assert compare(found, [again]) == []
        assert tv.load(tv.Section("dev", 0, []), again.table) == {"x": bytearray(b"a") * 65, "b": b"\1"}
        with pytest.raises(tv.TableError, match=r"`sparse\[up to 128\]`, got 129 bytes - at dev/x"):
            tables_from_json(_set(exported, "default", {"length": 129, "runs": {}}))

    def test_earlier_defaults_go_along_and_may_be_absent(self) -> None:
        found = entries(f(tv.uint8, 3, previous_defaults=(1, 2)), f(STRUCT, {"x": 2}, name="s", previous_defaults=({"x": 1},)))
        exported = json.loads(json.dumps(tables_to_json(found)))
        assert [each["previous_defaults"] for each in exported["devices"][0]["fields"]] == [[1, 2], [{"x": 1}]]
        [again] = tables_from_json(exported)
        assert compare(found, [again]) == compare([again], found, is_downgrade=True) == []
        assert tv.load(tv.Section("dev", 0, []), again.table) == {"x": 1, "s": {"x": 1}}
        for field in exported["devices"][0]["fields"]:
            del field["previous_defaults"]
        assert [change.rule.id for change in compare(found, tables_from_json(exported))] == ["default-unnamed"] * 2

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
        report = Incoming(again, tv.Section("dev", 0, []), "error", tells=True)
        assert {finding.rule for finding in report.findings} == {"filled"}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(text) < 1_000
        assert peak < 40 << 20  # the two buffers, once

    def test_defaults_of_memory_are_compared_by_their_bytes(self) -> None:
        [zeros, first, other] = (
            self.roundtrip(entries(f(Annotated[tv.sparse, Length(8192)], bytearray(data))))
            for data in (bytes(8192), b"\1" + bytes(8190) + b"\2", b"\1" + bytes(8191))
        )
        [change] = compare(zeros, first)
        assert (change.rule.id, change.writer) == ("default-unnamed", "default <8192 zero bytes>")
        assert [each.rule.id for each in compare(first, other)] == ["default-unnamed"]

    @pytest.mark.parametrize("length", [1 << 40, -1, "8", []])
    def test_a_buffer_of_zeros_that_cannot_be(self, length: Any) -> None:
        found = tables_to_json(entries(f(Annotated[bytes, Length(8192)], bytes(8192))))
        assert found["devices"][0]["fields"][0]["default"] == {}
        with pytest.raises(tv.TableError):
            tables_from_json(_set(found, "length", length))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda found: _set(found, "previous_defaults", [300]), r"previous_defaults of `uint8`: .* got 300 - at dev/x"),
            (lambda _: [], 'tables as an object with "format"'),
            (lambda found: {**found, "format": "x"}, 'tables as an object with "format": "tagged-vmstate tables", got \'x\''),
            (lambda found: {**found, "version": 2}, "tables of version 1, got version 2: a later build"),
            (lambda found: {**found, "devices": 3}, '"devices" as a JSON array, got 3'),
            (lambda found: _set(found, "type", "int7"), "a type that this build knows, got 'int7' - at dev/x"),
            (lambda found: _set(found, "default", 300), r"a default: `uint8` \(0 to 255\), got 300 - at dev/x"),
            (lambda found: _set(found, "bounds", {"odd": 1}), "bounds that this build knows"),
            (lambda found: _set(found, "predicates", 3), '"predicates" as a JSON array, got 3'),
            (lambda found: _set(found, "predicates", [3]), '"predicates" as a JSON array of strings, got '),
            (lambda found: {**found, "devices": [{**found["devices"][0], "hooks": ["x"]}]}, "hooks among check, post_load, got"),
            (lambda found: _set(found, "aliases", 3), '"aliases" as a JSON array, got 3 - at dev/x'),
            (lambda found: {**found, "devices": [{**found["devices"][0], "hooks": [[]]}]}, '"hooks" as a JSON array of strings'),
            *(
                (partial(_set, key="display", value=display), "- at dev/x")
                for display in ({"enum": 3}, {"odd": {"A": 1}}, {}, {"enum": {"A": "x"}}, {"flags": {"A": None}}, "octal", 3)
            ),
            (lambda found: _set(found, "bounds", {"mask": -1}), "bits of `uint8` in Mask, got -1 - at dev/x"),
            (lambda found: _set(found, "bounds", {"ge": 300}), "bounds that some `uint8` meets, got none that does - at dev/x"),
            (lambda found: _set(found, "name", None), '"name" as a JSON string'),
            (lambda found: _set(found, "name", "\ud800"), "\"name\" as a JSON string, got '.ud800' - at dev"),
            (lambda found: _set(found, "description", ["text"]), '"description" as a JSON string'),
            (lambda found: _set(found, "aliases", ["a", 3]), '"aliases" as a JSON array of strings, got .* - at dev/x'),
            (lambda found: _set(found, "widens_from", [[]]), '"widens_from" as a JSON array of strings'),
            (lambda found: _set(found, "since", True), '"since" as a JSON integer, got True'),
            (lambda found: _set(found, "since", 1.0), '"since" as a JSON integer, got 1.0'),
            (lambda found: _set(found, "length", -1, type="buffer"), r"a length of 0 to 2\*\*63-1, got -1 - at dev/x"),
            (lambda found: _set(found, "length", 1 << 63, type="buffer"), r"a length of 0 to 2\*\*63-1"),
            (lambda found: _set(found, "length", False), '"length" as a JSON integer, got False'),
            (lambda found: _set(found, "type", "buffer"), "its Length, or for one that varies its MaxLength"),
            (lambda found: _set(found, "optional", 1), '"optional" as a JSON boolean'),
            (lambda found: _set(found, "optional", True), "None only beside a struct"),
            (lambda found: _set(found, "default", {}, length=2), r"`uint8\[2\]` as a JSON array, got {} - at dev/x"),
            (
                lambda found: _set(found, "default", {"0x2": "00"}, type="sparse", length=2),
                "ascending, not overlapping and inside it",
            ),
            (
                lambda found: _set(found, "default", {"-1": "00"}, type="sparse", length=2),
                "ascending, not overlapping and inside it",
            ),
            (lambda found: _set(found, "enum", ["A", "B"]), '"enum" as a JSON object'),
            (lambda found: _set(found, "enum", {"A": True}), '"enum" as an object of names and integers'),
            (lambda found: _set(found, "enum", {"__str__": 1}), '"enum" as an object of names and integers'),
            (lambda found: _set(found, "enum", {"mro": 1}), '"enum" as an object of names and integers'),
            (lambda found: _set(found, "bounds", []), '"bounds" as a JSON object'),
            (lambda found: _set(found, "bounds", {"le": "9"}), "\"le\" as a number that can bound a value, got '9' - at dev/x"),
            (lambda found: _set(found, "bounds", {"le": True}), '"le" as a number'),
            (lambda found: _set(found, "bounds", {"mask": 0.5}), '"mask" as a number'),
            (lambda found: _set(found, "bounds", {"multiple_of": 0}), '"multiple_of" as a number'),
            (lambda found: _set(found, "bounds", {"multiple_of": 10**400}, type="float64"), '"multiple_of" as a number'),
            (lambda found: _set(found, "struct", [], type="struct"), "a JSON object, got .* - at dev/x"),
            (lambda found: _set(found, "struct", _nested(64), type="struct"), "at most 64 structs within each other"),
            (lambda found: _set(found, "struct", _nested(5000), type="struct"), "at most 64 structs within each other"),
            (lambda found: _device(found, "instances", [[]]), '"instances" as a JSON array of integers'),
            (lambda found: _device(found, "instances", [True]), '"instances" as a JSON array of integers'),
            (lambda found: _device(found, "instances", [1 << 32]), r"an instance of 0 to 2\*\*32-1 .* - at dev"),
            (lambda found: _device(found, "version", None), '"version" as a JSON integer, got nothing - at dev'),
            (lambda found: {**found, "version": True}, '"version" as a JSON integer, got True'),
            (lambda found: {**found, "devices": [[]]}, "a JSON object"),
        ],
    )
    def test_what_is_no_table_is_said(self, change: Callable[[Any], Any], words: str) -> None:
        found = json.loads(json.dumps(tables_to_json(entries(f(tv.uint8)))))
        with pytest.raises(tv.TableError, match=words):
            tables_from_json(change(found))

    def test_the_byte_of_what_is_wrong_is_told(self) -> None:
        table = Table("dev", [Field("s", Annotated[dict, Table("in", [f(tv.uint8, name="deep")])]), f(tv.uint16)])
        text = json.dumps(
            tables_to_json([Entry(Table("other", [f(tv.uint16)]), 0, None), Entry(table, 0, None)]), indent=1
        ).encode()
        assert tables_to_json(read_tables(Document(text, "tables"))) == json.loads(text)
        for right, wrong, path, place in (
            (b'"type": "uint8"', b'"type": "int7"', ("s", "deep"), b'"deep"'),
            (b'"uint16"', b'"int7"', ("x",), b'"x"'),
        ):
            before, _, after = text.rpartition(right)
            broken = before + wrong + after
            with pytest.raises(tv.FormatError, match="a type that this build knows, JSON has 'int7'") as caught:
                read_tables(Document(broken, "tables"))
            error = caught.value
            start = broken.rindex(b"{", 0, broken.rindex(place))
            assert (error.section, error.path, error.offset) == ("dev", path, start)
            assert error.line == broken[:start].count(b"\n") + 1


def test_bounds_and_enums_go_along() -> None:
    table = Table("d", [f(Annotated[tv.uint8, Le(3)]), f(Annotated[Mode, tv.uint8], Mode.IDLE, name="m")])
    [again] = tables_from_json(json.loads(json.dumps(tables_to_json([Entry(table, 0, None)]))))
    for record in (tv.Record("x", "uint8", None, 4), tv.Record("m", "uint8", None, 2)):
        with pytest.raises(tv.LoadError):
            tv.load(tv.Section("d", 0, [record]), again.table)
    assert entry_of(Everything(required=1)).label == "everything#0"


# --- QEMU's own descriptions


DUMP: dict[str, Any] = json.loads(lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes()))


def compared(change: Callable[[Any], None], *aliases: str) -> tuple[list[str], list[str]]:
    """What an upgrade and a downgrade meet between QEMU 7.2 and a copy that was changed by hand."""
    new = copy.deepcopy(DUMP)
    change(new)
    old, changed = dumpstate.parse(DUMP, Aliases(map(parse_alias, aliases))), dumpstate.parse(new)
    return [str(each) for each in dumpstate.compare(old, changed)], [str(each) for each in dumpstate.compare(changed, old)]


def fields(dump: Any, device: str) -> list[Any]:
    found: list[Any] = dump[device]["Description"]["Fields"]
    return found


class TestQemu:
    def test_it_is_compatible_with_itself(self) -> None:
        assert compared(lambda _: None) == ([], [])

    def test_a_field_removed(self) -> None:
        upgrade, downgrade = compared(lambda dump: fields(dump, "hpet").pop(1))
        assert upgrade == ["hpet/isr: refused (qemu-field-unknown: written 8 bytes, read nothing)"]
        assert downgrade == ["hpet/isr: refused (qemu-field-missing: written nothing, read 8 bytes)"]

    def test_a_field_renamed_is_the_same_bytes(self) -> None:
        def rename(dump: Any) -> None:
            fields(dump, "hpet")[1]["field"] = "status"

        upgrade, downgrade = compared(rename)
        assert upgrade == ["hpet/isr: fine (qemu-field-renamed: written `isr`, read `status`)"]
        assert downgrade == ["hpet/status: fine (qemu-field-renamed: written `status`, read `isr`)"]
        assert compared(rename, "hpet/isr=status")[0] == []

    def test_a_field_resized(self) -> None:
        def resize(dump: Any) -> None:
            fields(dump, "hpet")[1]["size"] = 4

        assert compared(resize) == (
            ["hpet/isr: refused (qemu-field-resized: written 8 bytes, read 4 bytes)"],
            ["hpet/isr: refused (qemu-field-resized: written 4 bytes, read 8 bytes)"],
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
        assert [line.partition(" (")[0] for line in downgrade] == ["hpet: refused", "hpet/new: refused"]

    def test_a_subsection_gone_and_one_added(self) -> None:
        def remove(dump: Any) -> None:
            dump["fw_cfg"]["Description"]["Subsections"].pop(0)

        words = ": loads while it is not needed, and so not sent (qemu-subsection-unknown: written a subsection, read nothing)"
        assert compared(remove) == ([f'fw_cfg/"fw_cfg/dma"{words}'], [])

        def add(dump: Any) -> None:
            new = {"name": "fw_cfg/new", "version_id": 1, "minimum_version_id": 1, "Fields": []}
            dump["fw_cfg"]["Description"]["Subsections"].append(new)

        assert compared(add) == ([], [f'fw_cfg/"fw_cfg/new"{words}'])

    def test_what_differs_in_a_subsection(self) -> None:
        def change(dump: Any) -> None:
            dump["fw_cfg"]["Description"]["Subsections"][1]["Fields"][2]["size"] = 4

        [found] = compared(change)[0]
        outcome, _, words = found.partition(" (")
        assert outcome == 'fw_cfg/"fw_cfg/acpi_mr"/rsdp_mr_size: loads while it is not needed, and so not sent'
        assert words == "qemu-field-resized: written 8 bytes, read 4 bytes)"

    def test_a_description_that_moved_into_a_struct(self) -> None:
        def change(dump: Any) -> None:
            found = fields(dump, "hpet")
            inner = {"name": "regs", "version_id": 1, "minimum_version_id": 1, "Fields": found[:2]}
            found[:2] = [{"field": "regs", "version_id": 0, "field_exists": False, "size": 99, "Description": inner}]

        upgrade, downgrade = compared(change)
        assert upgrade == [
            "hpet/config: fine (qemu-struct-moved: written `config`, read `regs/config`)",
            "hpet/isr: fine (qemu-struct-moved: written `isr`, read `regs/isr`)",
        ]
        assert len(downgrade) == 2

    def test_fields_in_another_order(self) -> None:
        def change(dump: Any) -> None:
            found = fields(dump, "hpet")
            found.insert(0, found.pop(1))

        assert compared(change)[0] == ["hpet/isr: refused (qemu-field-moved: written it, read it, in another place)"]

    def test_as_few_fields_as_possible_moved(self) -> None:
        def moved(ours: str, theirs: str) -> list[str]:
            changes = dumpstate.compare(*(dumpstate.parse(dump(list(names))) for names in (ours, theirs)))
            assert all("another place" in str(each) for each in changes)
            return [each.path[0] for each in changes if isinstance(each.path[0], str)]

        assert moved("abcdefgh", "bcdaefgh") == ["a"]
        assert moved("abcdefgh", "aebfcgdh") == ["e", "f", "g"]
        assert moved("abcdefgh", "hgfedcba") == list("bcdefgh")

    def test_a_subsection_that_moved_into_a_struct(self) -> None:
        def change(dump: Any) -> None:
            device = dump["fw_cfg"]["Description"]
            inner = {"name": "x", "version_id": 1, "minimum_version_id": 1, "Fields": [], "Subsections": device["Subsections"]}
            device["Fields"].append({"field": "x", "version_id": 0, "field_exists": False, "size": 0, "Description": inner})
            device["Subsections"] = []

        assert compared(change)[0] == []

    def test_a_condition_on_one_side(self) -> None:
        def change(dump: Any) -> None:
            fields(dump, "hpet")[1]["field_exists"] = True

        words = "hpet/isr: loads while the condition holds (qemu-condition-changed: written "
        assert compared(change) == ([f"{words}no condition, read a condition)"], [f"{words}a condition, read no condition)"])

        def conditional(dump: Any) -> None:
            fields(dump, "hpet").append({"field": "new", "version_id": 0, "field_exists": True, "size": 1})

        assert compared(conditional)[0] == [
            "hpet/new: loads while its condition does not hold (qemu-field-missing: written nothing, read 1 byte)"
        ]

    def test_a_device_gone_renamed_and_its_section_renamed(self) -> None:
        upgrade, downgrade = compared(lambda dump: dump.pop("hpet"))
        condition = "the machine has none, or the reader registers `hpet` outside of its dump"
        assert upgrade == [f"hpet: loads while {condition} (qemu-device-unknown: written it, read nothing)"]
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
        assert [line.partition("/")[0] for line in upgrade] == [line.partition("/")[0] for line in downgrade] == changed
        assert len(changed) == 50

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda _: None, "a description as a JSON object, as -dump-vmstate writes it, JSON has nothing"),
            (lambda found: {**found, "vmschkmachine": []}, r'"vmschkmachine" as a JSON object, .* JSON has \[\]'),
            (lambda found: {**found, "hpet": []}, r"a device as a JSON object, .* JSON has \[\] - at hpet"),
            (lambda found: {**found, "\ud800": {}}, "a device as a JSON string"),
            (lambda found: _described(found, version_id=None), '"version_id" as a JSON integer, .* JSON has nothing - at hpet'),
            (
                lambda found: _described(found, minimum_version_id=True),
                '"minimum_version_id" as a JSON integer, .* JSON has True',
            ),
            (lambda found: _described(found, Fields={}), '"Fields" as a JSON array'),
            (lambda found: _described(found, Fields=[3]), "a description as a JSON object, .* JSON has 3"),
            (lambda found: _described(found, Subsections=[{"name": []}]), '"name" as a JSON string'),
            (lambda found: _described(found, Fields=[{"field": "x", "version_id": "1"}]), '"version_id" .* - at hpet/x'),
            (
                lambda found: _described(found, Fields=[{"field": "x", "version_id": 1, "size": 1.5, "field_exists": False}]),
                '"size" as a JSON integer, .* JSON has 1.5 - at hpet/x',
            ),
            (lambda found: _described(found, Fields=[_described_deep(70)]), "at most 64 descriptions within each other"),
            (lambda found: _described(found, Fields=[_described_deep(5000)]), "at most 64 descriptions within each other"),
            (lambda found: _described(found, Subsections=[_subsections_deep(70)]), "at most 64 descriptions within each other"),
        ],
    )
    def test_what_is_no_dump_is_said(self, change: Callable[[Any], Any], words: str) -> None:
        found = {name: copy.deepcopy(DUMP[name]) for name in ("vmschkmachine", "hpet")}
        with pytest.raises(tv.FormatError, match=words):
            dumpstate.parse(change(found))

    def test_the_byte_of_what_is_wrong_is_told(self) -> None:
        text = json.dumps({name: DUMP[name] for name in ("vmschkmachine", "i8042", "hpet")}, indent=1)
        assert dumpstate.read(Document(text.encode(), "a dump")) == dumpstate.parse(json.loads(text))
        at = text.rindex('"size"')
        broken = (text[:at] + text[at:].replace('"size": ', '"size": -0.', 1)).encode()
        with pytest.raises(tv.FormatError, match='"size" as a JSON integer') as caught:
            dumpstate.read(Document(broken, "a dump"))
        assert caught.value.section == "hpet"
        culprit = json.loads(broken[broken.rindex(b"{", 0, broken.rindex(b'"size"')) :].partition(b"}")[0] + b"}")["field"]
        assert caught.value.path[-1] == culprit
        assert caught.value.offset in range(broken.index(b'"hpet"'), broken.rindex(b'"size"'))


def _described(found: Any, **members: Any) -> Any:
    found["hpet"]["Description"] |= members
    return found


def _described_deep(levels: int) -> Any:
    found: Any = {"field": "x", "version_id": 1, "size": 1, "field_exists": False}
    for _ in range(levels):
        inner = {"name": "x", "version_id": 1, "minimum_version_id": 1, "Fields": [found]}
        found = {"field": "x", "version_id": 1, "field_exists": False, "Description": inner}
    return found


def _subsections_deep(levels: int) -> Any:
    found: Any = {"name": "d", "version_id": 1, "minimum_version_id": 1}
    for _ in range(levels):
        found = {"name": "d", "version_id": 1, "minimum_version_id": 1, "Subsections": [found]}
    return found
