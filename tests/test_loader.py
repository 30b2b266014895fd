"""The rules of the loader, row by row; all problems at once; nothing touched when there is one."""

from __future__ import annotations

import copy
import io
import os
import re
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Interval, Le
from conftest import stream_bytes
from typing_example import Everything, Mode, Queue

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, LimitError, Limits, LoadError, MaxLength, Record, Section, Table, sparse
from tagged_vmstate.devices import Entry
from tagged_vmstate.incoming import Incoming
from tagged_vmstate.machine import check_by_loading
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.records import encode
from tagged_vmstate.rules import RULES
from tagged_vmstate.tablejson import tables_from_json, tables_to_json
from tagged_vmstate.wire import Piece

pytestmark = pytest.mark.usefixtures("path")


@tv.vmstate
class Inner:
    a: tv.uint8 = 1
    b: Annotated[tv.int32, Interval(ge=0, le=9)] = 0


@tv.vmstate("dev", aliases=("old-dev",))
class Device:
    need: tv.uint32
    wide: tv.uint32 = tv.field(default=5, aliases=("narrow", "thin"), widens_from=(tv.uint8, tv.uint16))
    real: tv.float64 = tv.field(default=0.0, widens_from=(tv.float32, tv.uint32))
    fixed: Annotated[list[tv.uint16], Length(2)] = tv.field(default_factory=lambda: [0, 0], widens_from=(tv.uint8,))
    few: Annotated[list[tv.uint8], MaxLength(3)] = tv.field(default_factory=list)
    mode: Annotated[Mode, tv.uint8] = Mode.IDLE
    inner: Inner = tv.field(default_factory=Inner)
    maybe: Inner | None = None
    many: Annotated[list[Inner], Length(2)] = tv.field(default_factory=lambda: [Inner(), Inner()])


NEED = Record("need", "uint32", None, 7)


def section(*records: Record, device: str = "dev", instance: int = 0) -> Section:
    return Section(device, instance, records)


def snapshot(*sections: Section) -> bytes:
    file = io.BytesIO()
    with tv.SnapshotWriter(file) as writer:
        for each in sections:
            writer.write(each)
    return file.getvalue()


def loaded(*records: Record, need: bool = True) -> Device:
    return tv.loads(snapshot(section(*([NEED] if need else []), *records)), Device)


def problems(*records: Record, need: bool = True, unknown: Any = "error") -> list[str]:
    """What is wrong, without the byte offsets, each of which must point into the snapshot."""
    data = snapshot(section(*([NEED] if need else []), *records))
    with pytest.raises(LoadError) as caught:
        tv.load(data, Device, unknown=unknown)
    for problem in caught.value.problems:
        assert problem.offset is not None
        assert 30 < problem.offset < len(data)
        assert RULES[problem.rule].refuses
    return [re.sub(r" \(byte \d+\)$", "", str(problem)) for problem in caught.value.problems]


def struct(name: str, *records: Record, **more: Any) -> Record:
    return Record(name, "struct", None, records, **more)


class TestTheRules:
    """Format, the table "what a loader does with one struct", a row each."""

    def test_the_name_or_an_alias_with_fitting_type(self) -> None:
        assert loaded(Record("wide", "uint32", None, 9)).wide == 9
        assert loaded(Record("narrow", "uint32", None, 9)).wide == 9
        assert loaded(Record("thin", "uint32", None, 9)).wide == 9

    def test_at_its_writers_default_its_value_is_taken_whatever_ours_is(self) -> None:
        assert loaded(Record("wide", "uint32", None, 1, is_default=True)).wide == 1

    @pytest.mark.parametrize(
        ("record", "attribute", "value"),
        [
            (Record("wide", "uint8", None, 9), "wide", 9),
            (Record("wide", "uint16", None, 65535), "wide", 65535),
            (Record("real", "float32", None, 0.5), "real", 0.5),
            (Record("real", "uint32", None, 1 << 31), "real", float(1 << 31)),
            (Record("fixed", "uint8", 2, [1, 255]), "fixed", [1, 255]),
        ],
    )
    def test_a_declared_widening_is_taken(self, record: Record, attribute: str, value: object) -> None:
        found = getattr(loaded(record), attribute)
        assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize(
        ("record", "words"),
        [
            (Record("wide", "uint64", None, 9), "expected `uint32`, snapshot has `uint64`"),
            (Record("wide", "int8", None, 9), "expected `uint32`, snapshot has `int8`"),
            (Record("wide", "string", None, "9"), "expected `uint32`, snapshot has `string`"),
            (
                Record("wide", "pci config", None, tv.Opaque.of(9), is_default=True),
                "expected `uint32`, snapshot has `pci config`",
            ),
            (Record("wide", "uint32", 1, [9]), "expected `uint32`, snapshot has `uint32[1]`"),
            (Record("fixed", "uint16", None, 9), "expected `uint16[2]`, snapshot has `uint16`"),
            (Record("fixed", "uint16", 3, [1, 2, 3]), "expected `uint16[2]`, snapshot has `uint16[3]`"),
            (Record("few", "uint8", 4, [1, 2, 3, 4]), "expected `uint8[up to 3]`, snapshot has `uint8[4]`"),
            (Record("few", "uint8", None, 4), "expected `uint8[up to 3]`, snapshot has `uint8`"),
            (Record("mode", "uint8", None, 2), "expected a Mode: IDLE (0), BUSY (1), snapshot has 2"),
            (Record("inner", "struct", None, None), "expected `struct`, snapshot has nil (an absent one)"),
            (Record("inner", "uint8", None, 1), "expected `struct`, snapshot has `uint8`"),
            (Record("many", "struct", 1, [()]), "expected `struct[2]`, snapshot has `struct[1]`"),
        ],
    )
    def test_another_type_or_length_is_a_problem(self, record: Record, words: str) -> None:
        assert problems(record) == [f"{words} - at dev#0/{record.name}"]

    def test_a_value_beyond_its_bounds_is_a_problem_at_any_depth(self) -> None:
        wrong = Record("b", "int32", None, 10)
        words = "expected `int32` of at most 9, snapshot has 10 - at dev#0/"
        assert problems(struct("inner", wrong)) == [f"{words}inner/b"]
        assert problems(struct("maybe", wrong)) == [f"{words}maybe/b"]
        assert problems(Record("many", "struct", 2, [(), (wrong,)])) == [f"{words}many[1]/b"]
        assert problems(struct("inner", Record("b", "int32", None, -1)))[0].startswith(
            "expected `int32` of at least 0, snapshot has -1"
        )

    def test_nothing_is_the_default(self) -> None:
        assert loaded() == Device(need=7)
        assert loaded(struct("inner")).inner == Inner()

    def test_nothing_for_a_required_field_is_a_problem(self) -> None:
        assert problems(need=False) == ["expected `uint32` (required), snapshot has no such field - at dev#0/need"]

    def test_an_unknown_field_at_its_default_is_ignored(self) -> None:
        assert loaded(Record("new", "uint8", None, 3, is_default=True)) == Device(need=7)
        assert loaded(Record("new", "unheard of", 3, tv.Opaque.of({"a": 1}), is_default=True)) == Device(need=7)
        assert loaded(struct("inner", Record("new", "uint8", None, 3, is_default=True))) == Device(need=7)

    def test_an_unknown_field_in_use_is_a_problem_unless_ignored(self) -> None:
        new = Record("new", "uint8", None, 3)
        words = "expected only known fields, or ones at their default, snapshot has `uint8`, which"
        assert problems(new) == [f"{words} `Device` does not know, in use - at dev#0/new"]
        assert problems(struct("inner", new)) == [f"{words} `Inner` does not know, in use - at dev#0/inner/new"]
        data = snapshot(section(NEED, new, struct("inner", new)))
        assert tv.load(data, Device, unknown="ignore") == Device(need=7)

    def test_a_name_and_its_alias_are_a_problem_even_at_their_defaults(self) -> None:
        pair = [Record(name, "uint32", None, 5, is_default=True) for name in ("wide", "narrow")]
        words = "expected `wide` or `narrow`, which are one field, snapshot has both - at dev#0/narrow"
        assert problems(*pair) == [words]
        aliases = [Record(name, "uint32", None, 5) for name in ("narrow", "thin")]
        assert problems(*aliases) == ["expected `narrow` or `thin`, which are one field, snapshot has both - at dev#0/thin"]

    def test_two_of_one_name_are_no_snapshot_at_all(self) -> None:
        twice = encode(Record("wide", "uint32", None, 5)) * 2

        class Doubled(Section):
            def pieces(self) -> list[Piece]:
                return [twice]

        with pytest.raises(tv.FormatError, match="a name once among its siblings, snapshot has it twice - at dev#0/wide"):
            tv.loads(snapshot(Doubled("dev", 0, ())), Device)

    def test_sections_from_elsewhere_are_held_to_it_too(self) -> None:
        with pytest.raises(LoadError, match="expected `wide` once, snapshot has it twice - at dev#0/wide"):
            tv.load(section(NEED, *[Record("wide", "uint32", None, 5)] * 2), Device)

    def test_all_problems_are_told_at_once(self) -> None:
        found = problems(
            Record("new", "uint8", None, 3),
            Record("wide", "string", None, ""),
            struct("inner", Record("b", "int32", None, 10), Record("c", "bool", None, True)),
            need=False,
        )
        assert [each.partition(" - at dev#0/")[2] for each in found] == ["new", "need", "wide", "inner/c", "inner/b"]

    def test_the_sentence_of_several(self) -> None:
        with pytest.raises(
            LoadError, match=r"^2 problems:\n  expected `uint32`.*need.*\n  expected `uint32`, snapshot has `string`"
        ):
            loaded(Record("wide", "string", None, ""), need=False)


class TestOneLevelUp:
    def test_an_unknown_device_at_its_defaults_is_ignored(self) -> None:
        other = section(Record("x", "uint8", None, 0, is_default=True), device="other")
        assert tv.loads(snapshot(section(NEED), other), Device) == Device(need=7)

    def test_an_unknown_device_in_use_is_a_problem_told_once(self) -> None:
        other = [
            Section("other", 3, [Record("x", "uint8", None, 0)], kind="part"),
            Section("other", 3, [Record("y", "uint8", None, 0)]),
        ]
        words = "expected only known devices, or ones at their defaults, snapshot has it, unknown here, `x` in use - at other#3"
        with pytest.raises(LoadError, match=words) as caught:
            tv.loads(snapshot(section(NEED), *other), Device)
        assert len(caught.value.problems) == 1
        assert tv.load(snapshot(section(NEED), *other), Device, unknown="ignore") == Device(need=7)

    def test_another_instance_is_another_device(self) -> None:
        with pytest.raises(LoadError, match="dev#1"):
            tv.loads(snapshot(section(NEED), section(NEED, instance=1)), Device)
        assert tv.loads(snapshot(section(NEED, instance=1)), Device, instance=1).need == 7

    def test_a_device_without_a_section_gets_its_defaults_or_is_a_problem(self) -> None:
        assert tv.loads(snapshot(), Inner) == Inner()
        with pytest.raises(LoadError, match=r"`uint32` \(required\), snapshot has no such field - at dev#0/need$"):
            tv.loads(snapshot(), Device)

    def test_aliases_of_devices(self) -> None:
        assert tv.loads(snapshot(section(NEED, device="old-dev")), Device).need == 7
        with pytest.raises(LoadError, match="expected `old-dev` or `dev`, which are one device, snapshot has both - at dev#0"):
            tv.loads(snapshot(section(NEED, device="old-dev"), section(device="dev")), Device)

    def test_parts_are_one_section(self) -> None:
        parts = [Section("dev", 0, [NEED], kind="part"), Section("dev", 0, [Record("wide", "uint32", None, 1)])]
        assert tv.loads(snapshot(*parts), Device) == Device(need=7, wide=1)

    def test_memory_of_several_parts_is_laid_over(self) -> None:
        def memory(*runs: tuple[int, bytes], kind: Any = "part") -> Section:
            return Section("everything", 0, [Record("memory", "sparse", 1 << 16, runs)], kind=kind)

        need = Section("everything", 0, [Record("required", "uint32", None, 1)])
        found = tv.loads(snapshot(memory((0, b"aaaa"), (9, b"b")), memory((2, b"cc")), need), Everything)
        assert found.memory[:10] == b"aacc\0\0\0\0\0b"
        assert len(found.memory) == 1 << 16


class TestKeep:
    NEW = (
        Record("new", "uint8", None, 3),
        Record("odd", "pci config", 3, tv.Opaque(b"\xc4\x03abc")),
        Record("quiet", "uint8", None, 3, is_default=True),
    )

    def kept(self, data: bytes) -> bytes:
        devices = [Device(need=0), (Device(need=0), 1)]
        machine = tv.Machine(devices)
        machine.load(data, unknown="keep")
        file = io.BytesIO()
        machine.save(file)
        return file.getvalue()

    def test_it_survives_the_next_save_byte_for_byte(self) -> None:
        first = Device(need=1)
        plain = tv.Machine([first, (Device(need=2), 1)])
        file = io.BytesIO()
        plain.save(file)
        sections = list(tv.Snapshot.read(file.getvalue()))
        inner: Any = sections[0].records()[6]
        assert inner.name == "inner"
        more = struct("inner", *inner.value, *self.NEW)
        records = [*sections[0].records()]
        records[6] = more
        other = Section("other", 7, self.NEW, attributes={"for": "others"})
        data = snapshot(Section("dev", 0, [*records, *self.NEW], attributes={"x": 1}), sections[1], other)
        assert self.kept(data) == data

    def test_odd_encodings_survive_too(self) -> None:
        """A writer in another language chose the shortest integers, inside a struct."""
        odd = b"\x95\xa3new\xa5uint8\xc0\x00\x03"
        inside = b"\x95\xa5inner\xa6struct\xc0\x00\x91" + odd

        class Foreign(Section):
            def pieces(self) -> list[Piece]:
                return [encode(NEED), inside, odd]

        again = list(tv.Snapshot.read(self.kept(snapshot(Foreign("dev", 0, ()), section(NEED, instance=1)))))
        assert again[0].payload().count(odd) == 2

    def test_a_load_without_it_forgets(self) -> None:
        data = snapshot(section(NEED, *self.NEW, struct("inner", *self.NEW)))
        device = Device(need=0)
        tv.load(data, into=device, unknown="keep")
        assert b"odd" in tv.dumps(device)
        assert copy.deepcopy(device) == device
        tv.load(data, into=device, unknown="ignore")
        assert b"odd" not in tv.dumps(device)
        tv.load(data, into=device, unknown="keep")
        tv.reset(device)
        assert b"odd" not in tv.dumps(device)

    def test_kept_fields_in_use_keep_their_struct_in_use(self) -> None:
        device = tv.load(snapshot(section(NEED, struct("inner", self.NEW[0]))), Device, unknown="keep")
        [saved] = tv.Snapshot.read(tv.dumps(device))
        flags = {record.name: record.is_default for record in saved.records()}
        assert flags == {**dict.fromkeys(flags, True), "need": False, "inner": False}

    def test_a_device_that_only_a_machine_could_carry_is_refused(self) -> None:
        data = snapshot(section(NEED), section(NEED, device="other"))
        with pytest.raises(LoadError, match="other#0"):
            tv.load(data, Device, unknown="keep")

    def test_dicts_and_plain_objects_carry_it(self) -> None:
        data = snapshot(section(NEED, self.NEW[0]))
        table = Table("dev", [Field("need", tv.uint32)])
        state = tv.load(data, table, unknown="keep")
        assert tv.dumps(state, table=table) == data
        slotted = Table("dev", [Field("need", tv.uint32)], state=Slotted)
        with pytest.raises(
            LoadError, match="a slot `_vmstate_kept` in `Slotted` for what a load keeps, snapshot has none - at dev#0"
        ):
            tv.load(data, slotted, unknown="keep")


class Slotted:
    __slots__ = ("need",)

    def __init__(self, need: int) -> None:
        self.need = need


@tv.vmstate("hooked")
class Hooked:
    x: tv.uint8 = 0
    limit: tv.uint8 = 255
    log: list[str] = tv.transient(default_factory=list)

    def check(self) -> None:
        if self.x > self.limit:
            raise ValueError("x is beyond its limit")

    def pre_save(self) -> None:
        self.log.append(f"pre_save {self.x}")
        if self.x == 66:
            raise RuntimeError("not now")

    def post_load(self) -> None:
        self.log.append(f"post_load {self.x}")
        if self.x == 77:
            self.x = 1
            raise RuntimeError("not now")


@tv.vmstate("outer")
class Outer:
    inner: Hooked = tv.field(default_factory=Hooked)
    more: Annotated[list[Hooked], MaxLength(4)] = tv.field(default_factory=list)
    log: list[str] = tv.transient(default_factory=list)

    def post_load(self) -> None:
        self.log.append(f"post_load {[each.log[-1] for each in (self.inner, *self.more)]}")


class TestHooks:
    def test_check_sees_a_new_state_before_anything_is_assigned(self) -> None:
        data = tv.dumps(Hooked(x=9, limit=10)).replace(b"limit\xa5uint8\xc0\x00\xcc\x0a", b"limit\xa5uint8\xc0\x00\xcc\x08")
        broken = snapshot(Section("hooked", 0, [Record("x", "uint8", None, 9), Record("limit", "uint8", None, 8)]))
        assert data != broken
        target = Hooked(x=3)
        words = (
            r"expected what `check` of `Hooked` takes, snapshot has ValueError: x is beyond its limit - at hooked#0 \(byte \d+\)"
        )
        with pytest.raises(LoadError, match=words):
            tv.load(broken, into=target)
        assert target == Hooked(x=3)
        assert target.log == []

    def test_check_refuses_a_save(self) -> None:
        with pytest.raises(tv.StateError, match=r"`check` of `Hooked` takes, got ValueError: x is .* - at outer#0/more\[1\]$"):
            tv.dumps(Outer(more=[Hooked(), Hooked(x=3, limit=2)]))

    def test_a_pre_save_that_raises_refuses_the_save(self) -> None:
        with pytest.raises(
            tv.StateError, match=r"`pre_save` of `Hooked` to return, got RuntimeError: not now - at outer#0/inner$"
        ):
            tv.dumps(Outer(inner=Hooked(x=66)))

    def test_post_load_goes_from_the_inside_out_on_the_real_objects(self) -> None:
        inner = Hooked()
        target = Outer(inner=inner)
        tv.load(tv.dumps(Outer(inner=Hooked(x=4), more=[Hooked(x=5)])), into=target)
        assert target.inner is inner
        assert inner.log == ["pre_save 0", "post_load 4"], "what is there is fetched first, to be able to return"
        assert target.log == ["post_load ['post_load 4', 'post_load 5']"]
        assert tv.loads(tv.dumps(target), Outer).log == ["post_load ['post_load 4', 'post_load 5']"]

    def test_a_post_load_that_raises_undoes_everything(self) -> None:
        other, target = Hooked(x=1), Outer(inner=Hooked(x=2), more=[Hooked(x=3)])
        machine = tv.Machine([other, target])
        file = io.BytesIO()
        tv.Machine([Hooked(x=10), Outer(inner=Hooked(x=77), more=[])]).save(file)
        more = target.more
        words = "expected `post_load` of `Hooked` to return, snapshot has RuntimeError: not now - at outer#0/inner"
        with pytest.raises(LoadError, match=words):
            machine.load(file.getvalue())
        assert (other.x, target.inner.x, target.more, target.more[0].x) == (1, 2, more, 3)
        assert target.more is more
        with pytest.raises(LoadError, match=words):
            tv.load(file.getvalue(), Outer, unknown="ignore")

    def test_an_interrupt_undoes_everything_too(self) -> None:
        table = Table("t", [Field("x", tv.uint8, default=0)], post_load=_interrupt)
        state = {"x": 1}
        with pytest.raises(KeyboardInterrupt):
            tv.load(tv.dumps({"x": 2}, table=table), into=state, table=table)
        assert state == {"x": 1}

    def test_an_object_that_takes_no_value_undoes_everything(self) -> None:
        table = Table("t", [Field("x", tv.uint8, default=0), Field("y", tv.uint8, default=0)], state=Stubborn)
        state = Stubborn(1, 1)
        with pytest.raises(LoadError, match=r"`Stubborn` to take its values, snapshot has AttributeError.* - at t#0"):
            tv.load(tv.dumps(Stubborn(2, 2), table=table), into=state, table=table)
        assert state.x == 1

    def test_what_a_class_with_a_constructor_of_its_own_holds_is_seen_by_its_check(self) -> None:
        bus = object()
        checked: list[object] = []
        table = Table("uart", [Field("ier", tv.uint8, default=0)], state=Wired, check=lambda state: checked.append(state.bus))
        wired = Wired(bus)
        tv.load(tv.dumps(wired, table=table), into=wired, table=table)
        assert checked == [bus, bus]

    @pytest.mark.parametrize("times", [1, 100])
    def test_a_check_sees_what_else_the_state_that_is_there_holds(self, times: int) -> None:
        target, table = Fitted(room=4), Table("d", [Field("x", tv.uint8, default=0)], check=lambda state: state["room"])
        for _ in range(times):
            tv.load(tv.dumps(Fitted(x=4, room=9)), into=target)
            with pytest.raises(LoadError, match="no room for 5"):
                tv.load(tv.dumps(Fitted(x=5, room=9)), into=target)
            tv.load(tv.dumps({"x": 1, "room": 2}, table=table), into={"x": 3, "room": 2}, table=table)
        assert (target.x, target.room) == (4, 4)


def _interrupt(_state: object) -> None:
    raise KeyboardInterrupt


@tv.vmstate("fitted")
class Fitted:
    x: tv.uint8 = 0
    room: int = tv.transient(default=0)

    def check(self) -> None:
        if self.x > self.room:
            raise ValueError(f"no room for {self.x}")


class Wired:
    """Somebody else's class: its constructor wants what is no state."""

    def __init__(self, bus: object) -> None:
        self.bus = bus
        self.ier = 0


WIRED = Table("wired", [Field("ier", tv.uint8, default=0)], state=Wired)


@tv.vmstate("own")
class Own:
    ier: tv.uint8 = 0
    bus: object = tv.transient(default=None)

    def __init__(self, bus: object) -> None:
        self.bus = bus
        self.ier = 0


@tv.vmstate("holder")
class Holder:
    one: Own | None = None
    many: Annotated[list[Own], MaxLength(3)] = tv.field(default_factory=list)
    fixed: Own = tv.field(default_factory=lambda: Own("default"))


def own(ier: int, bus: object = "bus") -> Own:
    state = Own(bus)
    state.ier = ier
    return state


class TestConstructors:
    """None is called for an object that is there; a new one needs a constructor that takes the fields, or `make`."""

    def test_a_class_with_one_of_its_own_loads_into_what_is_there(self) -> None:
        first, second = own(5), Wired("bus")
        second.ier = 7
        machine = tv.Machine([first, tv.Device(second, table=WIRED)])
        file = io.BytesIO()
        machine.save(file)
        first.ier = second.ier = 1
        assert machine.check(file.getvalue()).problems == ()
        machine.load(file.getvalue())
        assert (first.ier, first.bus, second.ier, second.bus) == (5, "bus", 7, "bus")
        machine.reset()
        assert (first.ier, first.bus, second.ier, second.bus) == (0, "bus", 0, "bus")

    def test_a_new_one_is_refused_before_anything_is_read(self) -> None:
        words = r"`{}`, which takes others: load into one that is there \(into=\), or give its table make= - at {}$"
        with pytest.raises(tv.TableError, match=words.format("Own", "Own")):
            tv.loads(b"no snapshot at all", Own)
        with pytest.raises(tv.TableError, match=words.format("Wired", "Wired")):
            tv.load("/nowhere", WIRED)
        with pytest.raises(tv.TableError, match=words.format("Own", "Own")):
            tv.load("/nowhere", Table("holder", [Field("own", Own)]))

    def test_structs_of_such_a_class(self) -> None:
        data = tv.dumps(Holder(one=own(1), many=[own(2), own(3)], fixed=own(4)))
        target = Holder(one=own(0, "a"), many=[own(0, "b"), own(0, "c")], fixed=own(0, "d"))
        assert target.one
        before = [target.one, *target.many, target.fixed]
        tv.load(data, into=target)
        found = [target.one, *target.many, target.fixed]
        assert all(new is old for new, old in zip(found, before, strict=True))
        assert [(each.ier, each.bus) for each in found] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        with pytest.raises(LoadError) as caught:
            tv.load(data, into=Holder(many=[own(0)]))
        assert [(each.rule, each.path) for each in caught.value.problems] == [("not-made", ("one",)), ("not-made", ("many", 1))]
        assert "expected a `Own` to load into, snapshot has one, where there is none - at holder#0/one" in str(caught.value)
        data = tv.dumps(Holder(fixed=own(9)))
        assert (tv.loads(data, Holder).fixed.ier, tv.loads(data, Holder).fixed.bus) == (9, "default")

    def test_make_makes_new_ones(self) -> None:
        table = Table("wired", WIRED.fields, state=Wired, make=lambda: Wired("made"))
        wired = Wired("bus")
        wired.ier = 3
        found = tv.load(tv.dumps(wired, table=table), table)
        assert (found.ier, found.bus) == (3, "made")

        @tv.vmstate("own", make=lambda: Made("made"))
        class Made:
            ier: tv.uint8 = 0
            bus: object = tv.transient(default=None)

            def __init__(self, bus: object) -> None:
                self.bus = bus

        made = Made("bus")
        made.ier = 3
        again = tv.loads(tv.dumps(made), Made)
        assert (again.ier, again.bus) == (3, "made")

    def test_properties_that_reach_outside_are_set_only_when_all_is_checked(self) -> None:
        table = Table("ported", [Field("ier", tv.uint8, default=0), Field("x", tv.uint8)], state=Ported)
        ported = Ported([1])
        with pytest.raises(LoadError) as caught:
            tv.load(tv.dumps(Ported([5]), table=table), into=ported, table=table)
        assert ([each.rule for each in caught.value.problems], ported.port) == (["not-made"], [1])
        making = Table("ported", table.fields, state=Ported, make=lambda: Ported([0]))
        tv.load(tv.dumps(Ported([5]), table=making), into=ported, table=making)
        assert ported.port == [5]


class Ported:
    """Its register lies in a list that others hold."""

    def __init__(self, port: list[int]) -> None:
        self.port = port
        self.x = 0

    @property
    def ier(self) -> int:
        return self.port[0]

    @ier.setter
    def ier(self, value: int) -> None:
        self.port[0] = value


class Stubborn:
    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self._y = y

    @property
    def y(self) -> int:
        return self._y


def test_one_object_in_two_places_becomes_two() -> None:
    shared = Inner()
    target = Device(need=0, many=[shared, shared])
    tv.load(tv.dumps(Device(need=0, many=[Inner(a=2), Inner(a=3)])), into=target)
    assert [each.a for each in target.many] == [2, 3]
    assert target.many[0] is shared


def test_what_was_reported_as_fine_says_so() -> None:
    other = section(Record("x", "uint8", None, 0, is_default=True), device="other")
    records = [NEED, Record("narrow", "uint8", None, 3), Record("new", "uint8", None, 3, is_default=True)]
    target = Device(need=0)
    report = tv.Machine([target, Inner()]).check(snapshot(section(*records), other))
    assert report.problems == ()
    found = [(finding.rule, finding.section, finding.path) for finding in report.findings]
    assert found[:4] == [
        ("ignored-device", "other#0", ()),
        ("by-alias", "dev#0", ("narrow",)),
        ("ignored-field", "dev#0", ("new",)),
        ("widened", "dev#0", ("narrow",)),
    ]
    assert {rule for rule, _, _ in found[4:-1]} == {"filled"}
    assert found[-1] == ("filled-device", "Inner#0", ())
    assert target == Device(need=0)


# --- the cases of the 2009 thread, on real bytes


@tv.vmstate
class PS2State:
    write_cmd: tv.int32 = 0
    rptr: tv.int32 = tv.field(default=0, name="queue.rptr")
    wptr: tv.int32 = tv.field(default=0, name="queue.wptr")
    count: Annotated[tv.int32, Interval(ge=0, le=256)] = tv.field(default=0, name="queue.count")
    data: Annotated[bytes, Length(256)] = tv.field(default=bytes(256), name="queue.data")


@tv.vmstate("ps2kbd")
class PS2Keyboard:
    queue: PS2State = tv.field(default_factory=PS2State, name="parent_obj")
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0
    scancode_set: tv.int32 = 0


def ps2kbd() -> Section:
    [found] = [each for each in import_stream(io.BytesIO(stream_bytes("pc-qemu7.2"))) if each.device == "ps2kbd"]
    return found


class TestARealKeyboard:
    def test_it_loads_with_its_queue(self) -> None:
        found = tv.load(ps2kbd(), PS2Keyboard)
        assert found == PS2Keyboard(queue=PS2State(write_cmd=-1), scan_enabled=1, scancode_set=2)

    def test_with_an_alias_for_a_renamed_field(self) -> None:
        assert tv.load(ps2kbd(), Renamed).codes == 2

    def test_with_a_field_that_the_class_lacks(self) -> None:
        words = "`int32`, which `Older` does not know, in use - at ps2kbd#0/scancode_set"
        with pytest.raises(LoadError, match=words):
            tv.load(ps2kbd(), Older)

    def test_with_that_field_at_its_default(self) -> None:
        flagged = [r.replace(is_default=True) if r.name == "scancode_set" else r for r in ps2kbd().records()]
        assert tv.load(Section("ps2kbd", 0, flagged), Older).scan_enabled == 1

    def test_a_hostile_queue_ends_in_the_table(self) -> None:
        [queue, *rest] = ps2kbd().records()
        values: Any = queue.value
        hostile = queue.replace(value=tuple(r.replace(value=-1) if r.name == "queue.count" else r for r in values))
        with pytest.raises(LoadError, match=r"`int32` of at least 0, snapshot has -1 - at ps2kbd#0/parent_obj/queue.count"):
            tv.load(Section("ps2kbd", 0, [hostile, *rest]), PS2Keyboard)


@tv.vmstate("ps2kbd")
class Renamed:
    queue: PS2State = tv.field(default_factory=PS2State, name="parent_obj")
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0
    codes: tv.int32 = tv.field(default=0, aliases=("scancode_set",))


@tv.vmstate("ps2kbd")
class Older:
    queue: PS2State = tv.field(default_factory=PS2State, name="parent_obj")
    scan_enabled: tv.int32 = 0
    translate: tv.int32 = 0


@tv.vmstate
class Msix:
    vectors: Annotated[list[tv.uint32], Length(4)] = tv.field(default_factory=lambda: [0] * 4)
    enabled: tv.boolean = False


@tv.vmstate("virtio-net")
class OldNet:
    status: tv.uint16 = 0


@tv.vmstate("virtio-net")
class Net(OldNet):
    msix: Msix = tv.field(default_factory=Msix)


@tv.vmstate("virtio-net-msix")
class NetMsix(OldNet):
    msix: Msix = tv.field(default_factory=Msix)


class TestVirtioNet:
    def test_unused_it_loads_where_msix_is_unknown(self) -> None:
        assert tv.loads(tv.dumps(Net(status=3)), OldNet) == OldNet(status=3)

    def test_in_use_it_is_refused_by_name(self) -> None:
        with pytest.raises(
            LoadError, match=r"`struct`, which `OldNet` does not know, in use - at virtio-net#0/msix \(byte \d+\)"
        ):
            tv.loads(tv.dumps(Net(msix=Msix(enabled=True))), OldNet)

    def test_a_newer_build_fills_in_what_an_older_one_lacks(self) -> None:
        assert tv.loads(tv.dumps(OldNet(status=3)), Net) == Net(status=3)

    def test_as_a_device_of_its_own(self) -> None:
        machine = tv.Machine([OldNet(), (NetMsix(msix=Msix(enabled=True)), 1)])
        file = io.BytesIO()
        machine.save(file)
        again = [OldNet(status=9), (NetMsix(), 1)]
        tv.Machine(again).load(file.getvalue())
        assert again == [OldNet(), (NetMsix(msix=Msix(enabled=True)), 1)]
        with pytest.raises(LoadError, match="virtio-net-msix#1"):
            tv.loads(file.getvalue(), OldNet)


def test_a_reset_restores_every_default() -> None:
    used = Everything(required=9, i8=5, mode=Mode.BUSY, numbers=[1, 2, 3], words=["x"])
    queue = used.queue
    used.queue.count = 3
    used.queues[0].rptr = 1
    used.memory[7] = 1
    tv.reset(used)
    assert used == Everything(required=9)
    assert used.queue is queue


@tv.vmstate("ticker")
class Ticker:
    period: tv.uint32 = 0
    least: tv.uint32
    running: bool = tv.transient(default=False)
    refuses: bool = tv.transient(default=False)

    def check(self) -> None:
        if self.period < self.least:
            raise ValueError("too fast")

    def post_load(self) -> None:
        self.running = self.period > 0
        if self.refuses:
            raise ValueError("not now")


def test_a_reset_ends_as_a_load_of_the_reset_state_does() -> None:
    ticker = Ticker(least=0)
    tv.load(tv.dumps(Ticker(period=5, least=0)), into=ticker)
    assert ticker.running
    tv.reset(ticker)
    loaded = Ticker(least=0, running=True)
    tv.load(tv.dumps(Ticker(least=0)), into=loaded)
    assert ticker.running is loaded.running is False


@pytest.mark.parametrize(
    ("ticker", "words"),
    [
        (Ticker(period=5, least=2, running=True), "what `check` of `Ticker` takes, got ValueError: too fast - at ticker#0"),
        (Ticker(period=5, least=0, running=True, refuses=True), "`post_load` of `Ticker` to return, got ValueError: not now"),
    ],
)
def test_a_reset_that_a_hook_refuses_changes_nothing(ticker: Ticker, words: str) -> None:
    other = Ticker(period=3, least=0, running=True)
    with pytest.raises(tv.StateError, match=words):
        tv.Machine([(other, 1), ticker]).reset()
    assert [(each.period, each.running) for each in (ticker, other)] == [(5, True), (3, True)]


def test_a_reset_goes_into_structs_that_are_required() -> None:
    table = Table("t", [Field("inner", Inner), Field("many", Annotated[list[Inner], MaxLength(2)]), Field("x", tv.uint8)])
    state: dict[str, Any] = {"inner": Inner(a=9), "many": [Inner(b=3)], "x": 5}
    tv.reset(state, table=table)
    assert state == {"inner": Inner(), "many": [Inner()], "x": 5}


class TestIsDefault:
    """Computed for every field, struct and array, against what the writer declared."""

    def flags(self, state: object) -> dict[str, bool]:
        [found] = tv.Snapshot.read(tv.dumps(state))
        return {name: flag for names in map(_flags, found.records()) for name, flag in names.items()}

    def test_at_rest_only_what_is_required_is_not(self) -> None:
        found = self.flags(Everything(required=0))
        assert [name for name, flag in found.items() if not flag] == ["required"]

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"i8": 0}, ["i8"]),
            ({"f64": -0.0}, ["f64"]),
            ({"numbers": [0, 0, 1]}, ["numbers"]),
            ({"few": [0]}, ["few"]),
            ({"slots": [None]}, ["slots"]),
            ({"slots": [Queue()]}, ["slots"]),
            ({"queues": (Queue(), Queue())}, []),
            ({"words": [""]}, ["words"]),
            ({"memory": bytearray(65535) + b"\1"}, ["memory"]),
        ],
    )
    def test_what_differs_is_not(self, changes: dict[str, Any], names: list[str]) -> None:
        found = self.flags(Everything(required=0, **changes))
        assert [name for name, flag in found.items() if not flag] == ["required", *names]

    def test_a_struct_is_while_all_in_it_is(self) -> None:
        state = Everything(required=0)
        state.queue.count = 1
        state.queues[1].rptr = 1
        found = [name for name, flag in self.flags(state).items() if not flag]
        assert found == ["required", "parent.queue", "parent.queue/count", "queues", "queues/1/rptr"]

    def test_a_struct_is_compared_with_the_default_of_its_field(self) -> None:
        table = Table("t", [Field("inner", Inner, default_factory=lambda: Inner(a=9))])
        for value, flag in ((Inner(a=9), True), (Inner(), False)):
            [saved] = tv.Snapshot.read(tv.dumps({"inner": value}, table=table))
            assert saved.records()[0].is_default is flag


def _flags(record: Record) -> dict[str, bool]:
    found = {record.name: record.is_default}
    if record.type == "struct" and record.value is not None:
        values: Any = record.value
        elements: Iterable[Any] = (values,) if record.length is None else values
        for index, element in enumerate(elements):
            for inner in element or ():
                prefix = record.name if record.length is None else f"{record.name}/{index}"
                found |= {f"{prefix}/{name}": flag for name, flag in _flags(inner).items()}
    return found


def test_a_variable_array_ends_at_its_capacity() -> None:
    assert tv.loads(snapshot(section(NEED, Record("few", "uint8", 3, [1, 2, 3]))), Device).few == [1, 2, 3]
    with pytest.raises(tv.StateError, match=r"`uint8\[up to 3\]`, got 4 of them - at dev#0/few"):
        tv.dumps(Device(need=1, few=[1, 2, 3, 4]))


class TestMemoryAndBitmapsThatVary:
    RAM = Table("ram", [Field("d", Annotated[tv.sparse, MaxLength(9 << 20)], default_factory=lambda: bytearray(4096))])
    BITS = Table("bits", [Field("b", Annotated[tv.bitmap, MaxLength(20)], default=b"")])

    @pytest.mark.parametrize("size", [0, 1, 4096, 5 << 20, 9 << 20])
    def test_memory_comes_back_with_its_length(self, size: int) -> None:
        state = {"d": bytearray(size)}
        state["d"][-1:] = b"x"[:size]
        file = io.BytesIO()
        tv.Machine([tv.Device(state, table=self.RAM)]).save(file)
        other = {"d": bytearray(8)}
        tv.Machine([tv.Device(other, table=self.RAM)]).load(file.getvalue())
        assert other == state == tv.load(tv.dumps(state, table=self.RAM), self.RAM)
        assert {record.length for each in tv.Snapshot.read(file.getvalue()) for record in each.records()} == {size}

    def test_memory_of_another_length_than_its_default_is_in_use(self) -> None:
        def flags(size: int) -> set[bool]:
            file = io.BytesIO()
            tv.Machine([tv.Device({"d": bytearray(size)}, table=self.RAM)]).save(file)
            return {record.is_default for each in tv.Snapshot.read(file.getvalue()) for record in each.records()}

        assert [flags(size) for size in (0, 4095, 4096, 9 << 20)] == [{False}, {False}, {True}, {False}]

    def test_memory_that_grew_takes_the_old_one(self) -> None:
        old = Table("ram", [Field("d", Annotated[tv.sparse, Length(65536)])])
        new = Table("ram", [Field("d", Annotated[tv.sparse, MaxLength(131072)])])
        state = {"d": bytearray(b"x" * 65536)}
        assert tv.load(tv.dumps(state, table=old), new) == state
        assert tv.load(tv.dumps(state, table=new), old) == state

    def test_more_than_the_capacity_is_refused(self) -> None:
        for table, record in (
            (self.RAM, Record("d", "sparse", 1 << 62, ())),
            (self.RAM, Record("d", "sparse", (9 << 20) + 1, ())),
            (self.BITS, Record("b", "bitmap", 21, bytes(3))),
        ):
            with pytest.raises(LoadError, match=r"expected `\w+\[up to \d+\]`, snapshot has"):
                tv.load(Section(table.name, 0, [record]), table)
        with pytest.raises(tv.StateError, match=r"`sparse\[up to 9437184\]`, got 9437185 bytes - at ram#0/d"):
            tv.dumps({"d": bytearray((9 << 20) + 1)}, table=self.RAM)

    @pytest.mark.parametrize(("value", "length"), [(b"", 0), (b"\xff", 8), (b"\xff\xff", 16), (b"\xff\xff\x0f", 20)])
    def test_bitmaps_have_8_bits_a_byte_up_to_the_capacity(self, value: bytes, length: int) -> None:
        data = tv.dumps({"b": value}, table=self.BITS)
        assert tv.load(data, self.BITS) == {"b": value}
        [section] = tv.Snapshot.read(data)
        assert [record.length for record in section.records()] == [length]

    def test_bitmaps_of_other_lengths_load_too(self) -> None:
        assert tv.load(Section("bits", 0, [Record("b", "bitmap", 13, b"\xff\x1f")]), self.BITS) == {"b": b"\xff\x1f"}
        for value, words in ((b"\0" * 4, "`bitmap.up to 20.`, got 32 of them"), (b"\0\0\x10", "spare bits 0")):
            with pytest.raises(tv.StateError, match=words):
                tv.dumps({"b": value}, table=self.BITS)


def test_constraints_hold_for_each_element() -> None:
    table = Table("t", [Field("n", Annotated[list[Annotated[tv.uint8, Le(3)]], Length(3)], default_factory=lambda: [0] * 3)])
    with pytest.raises(tv.StateError, match=r"`uint8` of at most 3, got 4 - at t#0/n\[1\]"):
        tv.dumps({"n": [3, 4, 5]}, table=table)
    with pytest.raises(LoadError, match=r"`uint8` of at most 3, snapshot has 4 - at t#0/n\[2\]"):
        tv.load(Section("t", 0, [Record("n", "uint8", 3, [1, 2, 4])]), table)


# --- limits


@tv.vmstate
class Page:
    first: tv.uint8 = 1
    second: tv.uint8 = 2
    text: Annotated[list[tv.uint8], MaxLength(64)] = tv.field(default_factory=lambda: [7] * 32)


@tv.vmstate
class Frame:
    memory: Annotated[sparse, Length(1 << 16)] = tv.field(default_factory=lambda: bytearray(1 << 16))


@tv.vmstate
class Lists:
    pages: Annotated[list[Page], MaxLength(1 << 16)] = tv.field(default_factory=list)
    frames: Annotated[list[Frame], MaxLength(1 << 16)] = tv.field(default_factory=list)


def lists(name: str, count: int, *fields: Record) -> bytes:
    """A snapshot of a list of structs of the same fields."""
    return snapshot(section(Record(name, "struct", count, (fields,) * count), device="Lists"))


HUGE = 1 << 44
"""Bytes that no machine has."""


@tv.vmstate
class Huge:
    memory: Annotated[sparse, Length(HUGE)] = tv.field(default_factory=lambda: bytearray(HUGE))


@tv.vmstate
class HoldsHuge:
    inner: Huge = tv.field(default_factory=Huge)


@tv.vmstate("Looks")
class LooksByCheck:
    memory: Annotated[sparse, Length(8192)] = tv.field(default_factory=lambda: bytearray(b"\1" * 8192))

    def check(self) -> None:
        if self.memory[0] != 1 or self.memory[4096] != 1:
            raise ValueError("no ones in it")


@tv.vmstate("Looks")
class LooksWhenMade:
    memory: Annotated[sparse, Length(8192)] = tv.field(default_factory=lambda: bytearray(b"\1" * 8192))

    def __post_init__(self) -> None:
        if self.memory[0] != 1 or self.memory[4096] != 1:
            raise ValueError("no ones in it")


class TestLimits:
    """A few bytes of a list cannot make an element of any size."""

    @pytest.mark.parametrize(
        ("name", "fields"),
        [("pages", ()), ("frames", ()), ("frames", (Record("memory", "sparse", 1 << 16, ()),))],
        ids=["defaults", "memory as default", "memory"],
    )
    def test_elements_that_are_not_there(self, name: str, fields: tuple[Record, ...]) -> None:
        loaded = tv.loads(lists(name, 9, *fields), Lists)
        assert getattr(loaded, name) == [Page() if name == "pages" else Frame()] * 9
        data = lists(name, 10_000, *fields)
        for load in (lambda: tv.loads(data, Lists), lambda: tv.Machine([Lists()]).check(data)):
            with pytest.raises(
                LimitError, match=r"at most [0-9]+ bytes of memory for defaults, .* more \([0-9]+ bytes of fields"
            ):
                load()
        assert len(getattr(tv.loads(data, Lists, limits=Limits(filled=1 << 30)), name)) == 10_000

    def test_elements_where_python_does_not_measure_objects(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def of_pypy(_value: object, *default: int) -> int:
            if not default:
                raise TypeError("getsizeof(object, default) will always return default on PyPy")
            return default[0]

        word = Table("word", [Field("text", Annotated[bytes, MaxLength(4096)], default_factory=lambda: bytes(4096))])
        table = Table("Lists", [Field("words", Annotated[list[Annotated[dict[str, Any], word]], MaxLength(1 << 16)])])
        monkeypatch.setattr(sys, "getsizeof", of_pypy)
        assert tv.load(lists("words", 9), table) == {"words": [{"text": bytes(4096)}] * 9}
        with pytest.raises(LimitError, match="bytes of memory for defaults"):
            tv.load(lists("words", 10_000), table)

    def test_elements_that_are_there_in_any_number(self) -> None:
        state = Lists(pages=[Page() for _ in range(10_000)])
        assert tv.loads(tv.dumps(state), Lists, limits=Limits(filled=0)) == state

    def test_elements_that_an_earlier_release_saved(self) -> None:
        data = lists("pages", 10_000, Record("first", "uint8", None, 9), Record("second", "uint8", None, 9))
        assert tv.loads(data, Lists).pages[-1] == Page(first=9, second=9)

    def test_the_limits_of_a_caller_hold_however_it_loads(self, tmp_path: Path) -> None:
        state = Device(need=1)
        data = tv.dumps(state)
        (tmp_path / "vm.tvm").write_bytes(data)
        machine, limits = tv.Machine([state]), Limits(nesting=0)
        for source in (data, io.BytesIO(data), tmp_path / "vm.tvm"):
            for load in (
                lambda: tv.load(source, Device, limits=limits),  # noqa: B023  # called at once
                lambda: tv.load(source, into=state, limits=limits),  # noqa: B023  # called at once
                lambda: machine.load(source, limits=limits),  # noqa: B023  # called at once
                lambda: machine.check(source, limits=limits),  # noqa: B023  # called at once
            ):
                with pytest.raises(LimitError, match="levels of structs"):
                    load()
                if isinstance(source, io.BytesIO):
                    source.seek(0)
        with pytest.raises(LimitError, match="levels of structs"):
            tv.loads(data, Device, limits=limits)
        assert tv.loads(data, Device, limits=Limits(nesting=1)) == state

    def test_a_check_holds_a_section_at_a_time(self, tmp_path: Path) -> None:
        size, count = 1 << 20, 12
        fields = {f"d{number}": Field("x", Annotated[bytes, Length(size)]) for number in range(count)}
        fields["ram"] = Field("x", Annotated[sparse, Length(count * size)])
        exported = tables_to_json(Entry(Table(name, [field]), 0, None) for name, field in fields.items())
        parts = [Record("x", "sparse", count * size, ((number * size, os.urandom(size)),)) for number in range(count)]
        with (tmp_path / "vm.tvm").open("wb") as file, tv.SnapshotWriter(file) as writer:
            for number in range(count):
                writer.write(Section(f"d{number}", 0, [Record("x", "buffer", size, os.urandom(size))]))
            for number, record in enumerate(parts):
                writer.write(Section("ram", 0, [record], kind="section" if number == count - 1 else "part"))
        tracemalloc.start()
        assert not Incoming(tables_from_json(exported), tmp_path / "vm.tvm", "error", tells=True).findings
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 * size

    @pytest.mark.parametrize("made", [LooksByCheck, LooksWhenMade])
    def test_a_check_shows_memory_to_what_looks_at_it(self, made: type[LooksByCheck | LooksWhenMade]) -> None:
        for byte, problems in ((1, 0), (2, 1)):
            parts = [Record("memory", "sparse", 8192, ((place, bytes((byte,))),)) for place in (0, 4096)]
            data = snapshot(Section("Looks", 0, parts[:1], kind="part"), Section("Looks", 0, parts[1:]))
            assert len(check_by_loading([Entry(vars(made)["__vmstate__"], 0, None)], data).problems) == problems

    def test_a_check_makes_no_memory_that_nobody_looks_at(self) -> None:
        entries = [Entry(vars(kind)["__vmstate__"], 0, None) for kind in (Huge, HoldsHuge)]
        for data in (snapshot(), snapshot(section(device="Huge"), section(device="HoldsHuge"))):
            assert check_by_loading(entries, data).problems == ()

    def test_a_thousand_problems_are_gathered_and_the_rest_counted(self) -> None:
        data = snapshot(section(NEED, *(Record(f"x{number}", "uint8", None, 1) for number in range(1_200))))
        with pytest.raises(LoadError) as caught:
            tv.loads(data, Device)
        assert (len(caught.value.problems), caught.value.more) == (1_000, 200)
        lines = str(caught.value).splitlines()
        assert (len(lines), lines[0], lines[-1]) == (1_002, "1200 problems:", "  and 200 more")
        report = tv.Machine([Device(need=1)]).check(data)
        assert (len(report.problems), report.more_problems, report.more) == (1_000, 200, 0)
