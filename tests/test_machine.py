"""Many devices: all or none, whatever goes wrong and wherever; and tables that grow, in both directions."""

from __future__ import annotations

import copy
import io
import os
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import event, given
from table_strategies import INTEGERS, Growth, Plan, field_plans, growths

import tagged_vmstate as tv
from tagged_vmstate import Device, Field, Length, LoadError, Machine, Record, Section, Table, TableError
from tagged_vmstate.sections import packed
from tagged_vmstate.snapshot import SnapshotWriter

pytestmark = pytest.mark.usefixtures("path")

PER_DEVICE = 40
DEVICES = 25


def state_of(plans: tuple[Plan, ...]) -> dict[str, Any]:
    return {plan.name: copy.deepcopy(plan.value) for plan in plans}


def table_of(plans: tuple[Plan, ...]) -> Table:
    return Table("dev", [plan.declare() for plan in plans])


@given(field_plans())
def test_any_state_of_any_table_comes_back(plans: tuple[Plan, ...]) -> None:
    table, state = table_of(plans), state_of(plans)
    data = tv.dumps(state, table=table)
    assert tv.load(data, table) == state
    [section] = tv.Snapshot.read(data)
    assert {record.name: record.is_default for record in section.records()} == {plan.name: plan.is_default for plan in plans}
    tv.reset(state, table=table)
    assert state == {plan.name: plan.default for plan in plans}


@given(growths())
def test_an_old_snapshot_loads_into_a_grown_table(growth: Growth) -> None:
    data = tv.dumps(state_of(growth.old), table=table_of(growth.old))
    old = {plan.name: plan for plan in growth.old}
    expected = {plan.name: plan.first for plan in growth.new if plan.name in growth.added}
    expected |= {
        plan.name: old[growth.renamed.get(plan.name, plan.name)].value for plan in growth.new if plan.name not in growth.added
    }
    lost = {name for name in growth.dropped if not old[name].is_default}
    event("refused" if lost else "loaded")
    if lost:
        with pytest.raises(LoadError) as caught:
            tv.load(data, table_of(growth.new))
        assert {(problem.rule, problem.path) for problem in caught.value.problems} == {
            ("unknown-field", (name,)) for name in lost
        }
    assert tv.load(data, table_of(growth.new), unknown="ignore") == expected


@given(growths())
def test_a_new_snapshot_loads_into_the_old_table_while_what_is_new_is_unused(growth: Growth) -> None:
    data = tv.dumps(state_of(growth.new), table=table_of(growth.new))
    new = {plan.name: plan for plan in growth.new}
    strange = growth.added | growth.renamed.keys()
    expected_problems = {("unknown-field", (name,)) for name in strange if not new[name].is_default}
    expected_problems |= {("wrong-type", (name,)) for name in growth.widened}
    event("refused" if expected_problems else "loaded")
    if expected_problems:
        with pytest.raises(LoadError) as caught:
            tv.load(data, table_of(growth.old))
        assert {(problem.rule, problem.path) for problem in caught.value.problems} == expected_problems
        return
    expected = {plan.name: new[plan.name].value if plan.name in new else plan.default for plan in growth.old}
    assert tv.load(data, table_of(growth.old)) == expected


@given(growths())
def test_what_is_kept_comes_back_to_the_newer_build(growth: Growth) -> None:
    """New to old to new: an old build that keeps what it does not know loses nothing."""
    if growth.widened or growth.renamed or growth.dropped:
        return
    data = tv.dumps(state_of(growth.new), table=table_of(growth.new))
    carried = tv.load(data, table_of(growth.old), unknown="keep")
    again = tv.dumps(carried, table=table_of(growth.old))
    assert tv.load(again, table_of(growth.new)) == state_of(growth.new)


# --- a machine of a thousand fields


INNER = Table("inner", [Field(f"i{number}", tv.uint8, default=0) for number in range(3)])


def big_table(device: int) -> Table:
    """40 fields, those of a struct counted."""
    kinds = list(INTEGERS.values())
    fields = [Field(f"f{number}", kinds[(device + number) % 8], default=0) for number in range(34)]
    fields += [
        Field("buffer", Annotated[bytes, Length(64)], default=bytes(64)),
        Field("inner", Annotated[dict, INNER], default_factory=lambda: dict.fromkeys(("i0", "i1", "i2"), 0)),
        Field("array", Annotated[list[tv.uint32], Length(4)], default_factory=lambda: [0] * 4),
    ]
    return Table(f"dev{device}", fields)


def big_state(table: Table, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {field.name: (seed + number) % 128 for number, field in enumerate(table.fields)}
    return found | {
        "buffer": bytes([seed] * 64),
        "inner": {"i0": seed, "i1": 1, "i2": 2},
        "array": [seed] * 4,
    }


TABLES = [big_table(number) for number in range(DEVICES)]


def saved(machine: Machine) -> bytes:
    file = io.BytesIO()
    machine.save(file)
    return file.getvalue()


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_a_load_that_fails_at_any_of_a_thousand_fields_leaves_all_as_it_was(every: int) -> None:
    ours = [Device(big_state(table, 3), table=table) for table in TABLES]
    machine = Machine(ours)
    theirs = list(tv.Snapshot.read(saved(Machine([Device(big_state(table, 90), table=table) for table in TABLES]))))
    sections = [Section(each.device, each.instance, each.records()) for each in theirs]
    before = copy.deepcopy([each.state for each in ours])
    failures = 0
    for number, section in enumerate(sections):
        for broken in islice(_broken(section.records()), number % every, None, every):
            hurt = [*sections]
            hurt[number] = Section(section.device, section.instance, broken)
            with pytest.raises(LoadError):
                machine.load(_Sections(hurt))
            failures += 1
            assert [each.state for each in ours] == before
    assert failures == sum(len(range(number % every, PER_DEVICE, every)) for number in range(DEVICES))
    machine.load(_Sections(sections))
    assert [each.state for each in ours] == [big_state(table, 90) for table in TABLES]


class _Sections:
    def __init__(self, sections: list[Section]) -> None:
        self.raw_attributes = tv.Opaque.of({})
        self._sections = sections

    def __iter__(self) -> Any:
        return iter(self._sections)


def _broken(records: tuple[Record, ...]) -> Any:
    """The fields with one after the other of another type, at any depth."""
    for index, record in enumerate(records):
        around = [*records]
        around[index] = Record(record.name, "string", None, "")
        yield around
        if record.type == "struct":
            values: Any = record.value
            for inner in _broken(values):
                around[index] = record.replace(value=tuple(inner))
                yield around


def test_a_post_load_that_raises_in_any_device_leaves_all_as_it_was() -> None:
    data = saved(Machine([Device(big_state(table, 90), table=table) for table in TABLES]))
    for broken in TABLES:
        devices = []
        for table in TABLES:
            hook = _raise if table is broken else None
            hooked = Table(table.name, table.fields, post_load=hook)
            devices.append(Device(big_state(table, 3), table=hooked))
        before = copy.deepcopy([device.state for device in devices])
        inner = [device.state["inner"] for device in devices]
        with pytest.raises(
            LoadError, match=f"`post_load` of `{broken.name}` to return, snapshot has RuntimeError: no - at {broken.name}#0"
        ):
            Machine(devices).load(data)
        assert [device.state for device in devices] == before
        assert all(device.state["inner"] is each for device, each in zip(devices, inner, strict=True))


def _raise(_state: object) -> None:
    raise RuntimeError("no")


@tv.vmstate("timer")
class Timer:
    deadline: tv.uint64 = 0
    armed: bool = tv.transient(default=False)

    def post_load(self) -> None:
        self.armed = self.deadline > 0


def test_what_a_hook_set_beside_the_fields_is_undone_too() -> None:
    timer, later = Timer(), Table("later", [Field("x", tv.uint8, default=0)], post_load=_raise)
    data = saved(Machine([Timer(deadline=5)]))
    with pytest.raises(LoadError, match="`post_load` of `later`"):
        Machine([timer, Device({"x": 1}, table=later)]).load(data)
    assert (timer.deadline, timer.armed) == (0, False)
    Machine([timer]).load(data)
    assert (timer.deadline, timer.armed) == (5, True)


class Chip:
    """What lies outside of all states."""

    v = 0


@tv.vmstate("adapter")
class Adapter:
    v: tv.uint8 = 0
    chip: Chip = tv.transient(default_factory=Chip)
    calls: list[str] = tv.transient(default_factory=list)

    def pre_save(self) -> None:
        self.v = self.chip.v

    def post_load(self) -> None:
        self.chip.v = self.v
        self.calls.append("post_load")


@tv.vmstate("refusing")
class Refusing(Adapter):
    raises: BaseException = tv.transient(default=ValueError("the chip refuses"))

    def post_load(self) -> None:
        self.chip.v = self.v
        raise self.raises


@tv.vmstate("later")
class LaterAdapter(Adapter):
    """Comes after the one that raises."""


@pytest.mark.parametrize("raises", [ValueError("the chip refuses"), KeyboardInterrupt()])
@pytest.mark.parametrize("times", [0, 100])
def test_a_refused_load_leaves_what_adapters_push_to_as_it_was(raises: BaseException, times: int) -> None:
    chips = [Chip(), Chip(), Chip()]
    devices = [Adapter(chip=chips[0]), Refusing(chip=chips[1], raises=raises), LaterAdapter(chip=chips[2])]
    machine = Machine(devices)
    for chip in chips:
        chip.v = 7
    data = saved(machine)
    for _ in range(times):
        saved(machine)
        Machine([devices[0], devices[2]]).load(saved(Machine([devices[0], devices[2]])))
    for number, chip in enumerate(chips):
        chip.v = number + 1
    calls = len(devices[2].calls)
    with pytest.raises(LoadError if isinstance(raises, Exception) else KeyboardInterrupt) as caught:
        machine.load(data)
    assert [chip.v for chip in chips] == [1, 2, 3]
    assert [device.v for device in devices] == [7, 7, 7], "the states are as they were, though older than the chips"
    assert len(devices[2].calls) == calls, "one that had not run is not called"
    if isinstance(raises, Exception):
        assert "the chip refuses - at refusing#0" in str(caught.value)
        [note] = caught.value.__notes__
        assert note.startswith("while everything was restored: ")
        assert "the chip refuses - at refusing#0" in note


def test_a_reset_that_an_adapter_refuses_leaves_the_others_as_they_were() -> None:
    first, second = Chip(), Chip()
    first.v, second.v = 3, 4
    with pytest.raises(tv.StateError, match="the chip refuses - at refusing#0"):
        Machine([Adapter(chip=first), Refusing(chip=second)]).reset()
    assert (first.v, second.v) == (3, 4)


def test_a_device_whose_old_state_cannot_be_fetched_can_still_be_loaded() -> None:
    def absent(state: dict[str, int]) -> None:
        raise ValueError(f"no chip at {state['x']}")

    pushed: list[int] = []
    fields = [Field("x", tv.uint8, default=0)]
    table = Table("odd", fields, pre_save=absent, post_load=lambda state: pushed.append(state["x"]))
    state = {"x": 1}
    data = saved(Machine([Device({"x": 2}, table=Table("odd", fields)), Refusing()]))
    with pytest.raises(LoadError) as caught:
        Machine([Device(state, table=table), Refusing()]).load(data)
    assert (state, pushed) == ({"x": 1}, [2])
    assert "what odd#0 had pushed outward is not restored: expected `pre_save` of `odd`" in caught.value.__notes__[0]
    Machine([Device(state, table=table)]).load(data, unknown="ignore")
    assert (state, pushed) == ({"x": 2}, [2, 2])


def test_check_runs_post_load_on_copies_where_nothing_leads_outside() -> None:
    fussy, adapter = Fussy(), Adapter()
    adapter.calls.append("mine")
    machine = Machine([fussy, adapter])
    good, bad = (saved(Machine([Fussy(x=x), Adapter()])) for x in (3, 9))
    report = machine.check(good)
    assert report.problems == ()
    [note] = [each for each in report.findings if each.rule == "hook-not-run"]
    words = "`post_load` of `Adapter` was not run: `chip` holds a `Chip`, which a copy would share - at adapter#0"
    assert str(note) == words
    assert [str(each) for each in machine.check(bad).problems] == [
        "expected `post_load` of `Fussy` to return, snapshot has ValueError: nine - at fussy#0"
    ]
    assert (fussy.x, fussy.seen, adapter.calls) == (0, [], ["mine"])
    with pytest.raises(LoadError, match="nine"):
        machine.load(bad)


@tv.vmstate("fussy")
class Fussy:
    x: tv.uint8 = 0
    seen: list[int] = tv.transient(default_factory=list)

    def post_load(self) -> None:
        self.seen.append(self.x)
        if self.x == 9:
            raise ValueError("nine")


def test_a_load_that_fails_leaves_what_is_carried_for_the_next_save() -> None:
    table = Table("later", [Field("x", tv.uint8, default=0)], post_load=_raise_at_9)
    device = Device({"x": 1}, table=table)
    machine = Machine([device])
    machine.load(saved(Machine([Timer(deadline=5), Device({"x": 2}, table=table)])), unknown="keep")
    before = saved(machine)
    with pytest.raises(LoadError, match="`post_load` of `later`"):
        machine.load(saved(Machine([Timer(deadline=6), Device({"x": 9}, table=table)])), unknown="keep")
    assert saved(machine) == before


def _raise_at_9(state: dict[str, int]) -> None:
    if state["x"] == 9:
        raise RuntimeError("no")


class Touchy:
    """Interrupts once, when it is put back as it was."""

    x: int

    def __init__(self, x: int) -> None:
        self.__dict__["x"] = x
        self.__dict__["is_calm"] = False

    def __setattr__(self, name: str, value: int) -> None:
        if value == 1 and not self.__dict__["is_calm"]:
            self.__dict__["is_calm"] = True
            raise KeyboardInterrupt
        self.__dict__[name] = value


def test_an_interrupt_while_a_load_is_undone_does_not_stop_that() -> None:
    fields = [Field("x", tv.uint8, default=0)]
    touchy, plain = Touchy(1), {"x": 1}
    table, hooked = Table("touchy", fields, state=Touchy), Table("hooked", fields, post_load=_raise)
    before = Device(plain, table=Table("plain", fields)), Device(touchy, table=table), Device({"x": 1}, table=hooked)
    with pytest.raises(KeyboardInterrupt):
        Machine(before).load(
            saved(
                Machine([Device({"x": 2}, table=before[0].table), Device(Touchy(2), table=table), Device({"x": 2}, table=hooked)])
            )
        )
    assert (touchy.x, plain, before[2].state) == (1, {"x": 1}, {"x": 1})


# --- files


@tv.vmstate("memory")
class Memory:
    ram: Annotated[tv.sparse, Length(10 << 20)] = tv.field(default_factory=lambda: bytearray(10 << 20))
    rom: Annotated[tv.sparse, Length(6 << 20)] = tv.field(default_factory=lambda: bytearray(6 << 20))
    size: tv.uint32 = 10 << 20


@tv.vmstate("uart", aliases=("serial",))
class Uart:
    ier: tv.uint8 = 0

    def check(self) -> None:
        if self.ier == 13:
            raise ValueError("unlucky")


def test_large_memory_goes_in_parts_and_comes_back(tmp_path: Path) -> None:
    memory = Memory()
    memory.ram[0] = memory.ram[5 << 20] = memory.ram[-1] = 1
    path = tmp_path / "vm.tvm"
    machine = Machine([memory])
    machine.save(path)
    assert path.stat().st_size < 20_000
    parts = [
        (each.kind, [(record.name, record.is_default) for record in each.records()])
        for each in tv.Snapshot.read(path.read_bytes())
    ]
    ram = ("part", [("ram", False)])
    assert parts == [ram, ram, ram, ("part", [("rom", True)]), ("section", [("size", True)])]
    before, memory.ram[1], memory.rom[7] = copy.deepcopy(memory), 9, 9
    machine.load(path)
    assert memory == before
    memory.ram[:] = bytes(10 << 20)
    machine.save(path)
    assert {record.is_default for each in tv.Snapshot.read(path.read_bytes()) for record in each.records()} == {True}
    machine.load(path)
    assert memory == Memory()
    memory.ram.pop()
    with pytest.raises(tv.StateError, match=r"`sparse\[10485760\]`, got 10485759 bytes - at memory#0/ram"):
        machine.save(path)
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_a_save_that_fails_leaves_the_file_and_its_folder(tmp_path: Path) -> None:
    path, uart = tmp_path / "vm.tvm", Uart()
    machine = Machine([uart])
    machine.save(path)
    before = path.read_bytes()
    uart.ier = 13
    with pytest.raises(tv.StateError, match=r"ValueError: unlucky - at uart#0"):
        machine.save(path)
    uart.ier = 256
    with pytest.raises(tv.StateError, match=r"`uint8` \(0 to 255\), got 256 - at uart#0/ier"):
        machine.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["vm.tvm"]


def test_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    path, uarts = tmp_path / "vm.tvm", [Uart(ier=1), Uart(ier=2)]
    machine = Machine([uarts[0], (uarts[1], 1)])
    machine.save(path)
    data = bytearray(path.read_bytes())
    uarts[0].ier = uarts[1].ier = 9
    for place in range(len(data)):
        data[place] ^= 0x10
        with pytest.raises(tv.FormatError):
            machine.load(bytes(data))
        data[place] ^= 0x10
    assert [uart.ier for uart in uarts] == [9, 9]
    machine.load(bytes(data))
    assert [uart.ier for uart in uarts] == [1, 2]


def test_the_header_says_who_and_what_was_asked() -> None:
    file = io.BytesIO()
    Machine([Uart()]).save(file, {"machine": "pc"})
    attributes = tv.Snapshot.read(file.getvalue()).attributes
    assert list(attributes) == ["producer", "machine"]
    assert attributes["producer"] == f"tagged-vmstate {tv.__version__}"
    again = Machine([Uart()])
    again.load(file.getvalue(), unknown="keep")
    assert tv.Snapshot.read(saved(again)).attributes["machine"] == "pc"
    again.load(file.getvalue())
    assert "machine" not in tv.Snapshot.read(saved(again)).attributes


def test_attributes_are_kept_to_the_byte_even_without_a_python_form() -> None:
    odd = {"narrow": tv.Opaque(b"\xca\x3f\0\0\0"), "twice": tv.Opaque(b"\x82\xa1a\1\xa1a\2")}
    [section] = tv.Snapshot.read(saved(Machine([Uart(ier=3)])))
    first = Section(section.device, section.instance, (), kind="part", attributes={"part": 1})
    file = io.BytesIO()
    with SnapshotWriter(file, odd) as writer:
        writer.write(first)
        writer.write(Section(section.device, section.instance, section.records(), attributes=odd))
    machine = Machine([Uart()])
    machine.load(file.getvalue(), unknown="keep")
    again = tv.Snapshot.read(saved(machine))
    assert again.raw_attributes == tv.Snapshot.read(file.getvalue()).raw_attributes
    assert [section.raw_attributes for section in again] == [packed(odd)], "those of the last part"


def test_one_state_has_one_encoding() -> None:
    assert saved(Machine([Uart(ier=3)])) == tv.dumps(Uart(ier=3)) == saved(Machine([Uart(ier=3)]))


def test_files_and_pipes_and_open_files(tmp_path: Path) -> None:
    path = tmp_path / "vm.tvm"
    tv.dump(Uart(ier=3), path)
    with path.open("rb") as file:
        assert tv.load(file, Uart).ier == 3
    assert tv.load(path, Uart).ier == tv.load(str(path), Uart).ier == 3
    with tv.Snapshot.read(path) as snapshot:
        assert tv.load(snapshot, Uart).ier == 3
        assert tv.load(next(iter(snapshot)), Uart).ier == 3
        assert tv.load(list(snapshot), Uart, unknown="keep").ier == 3  # type: ignore[call-overload]  # any iterable will do
    with pytest.raises(FileNotFoundError):
        tv.load(tmp_path / "none", Uart)
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reader, os.fdopen(theirs, "wb") as writer:
        tv.dump(Uart(ier=4), writer)
        writer.close()
        assert tv.load(reader, Uart).ier == 4


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ([Uart(), Uart()], r"each device with an instance of its own: \(state, instance\), got uart#0 again"),
        ([(Uart(), 1 << 32)], r"an instance of 0 to 2\*\*32-1 beside the state"),
        ([(Uart(), True)], r"an instance of 0 to 2\*\*32-1 beside the state"),
        ([3], "a class under @vmstate, or a table beside the state, got 3"),
        ([Device({}, table=None)], "a class under @vmstate, or a table beside the state"),
        ([Device(Memory(), table=Table("t", []))], "a state of `t`, got Memory"),
        (
            [Uart(), (Device({}, table=Table("serial", [])))],
            "each name and alias of a device once over all tables, got `serial` again",
        ),
    ],
)
def test_what_is_no_machine_is_said(devices: list[Any], words: str) -> None:
    with pytest.raises(TableError, match=words):
        Machine(devices)


def test_one_state_is_one_device() -> None:
    uart = Uart()
    with pytest.raises(TableError, match="each state once, got one again, as uart#1"):
        Machine([uart, (uart, 1)])


def test_load_wants_a_class_or_a_state() -> None:
    with pytest.raises(TypeError, match="a class or table, or a state with into="):
        tv.load(b"")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a class or table, or a state with into="):
        tv.load(tv.dumps(Uart()), Uart())  # type: ignore[call-overload]


def test_unknown_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="unknown is one of error, ignore, keep, not 'kep'"):
        tv.load(tv.dumps(Uart()), Uart, unknown="kep")  # type: ignore[call-overload]


def test_a_reset_of_a_machine() -> None:
    uart, memory = Uart(ier=3), Memory(size=1)
    machine = Machine([uart, memory])
    machine.load(saved(Machine([Uart(ier=1)])), unknown="keep")
    assert (uart.ier, memory.size) == (1, 10 << 20)
    machine.reset()
    assert (uart, memory) == (Uart(), Memory())
