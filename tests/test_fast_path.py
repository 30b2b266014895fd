"""The templates themselves: that they are used, fit what they should, and leave everything else to the loops.

That both paths give the same results is what the suites of loader, machine and tables show: they run over each.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import io
import pickle
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import numpy as np
import pytest
import table_strategies
from annotated_types import Le, Predicate
from hypothesis import given

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, LoadError, Machine, MaxLength, StateError, Table, codec, prepared
from tagged_vmstate.frames import Lead
from tagged_vmstate.fuzz.mutate import changed_bytes, changed_snapshot
from tagged_vmstate.plan import plan
from tagged_vmstate.prepared import USES, Prepared
from tagged_vmstate.records import decode_all
from tagged_vmstate.saver import saver
from tagged_vmstate.sections import NO_ATTRIBUTES, EncodedSection
from tagged_vmstate.shape import Shape
from tagged_vmstate.snapshot import SnapshotWriter
from tagged_vmstate.wire import Cursor, joined

pytestmark = pytest.mark.usefixtures("templates")


class Mode(enum.IntEnum):
    OFF = 0
    ON = 3


@tv.vmstate
class Queue:
    data: Annotated[bytes, Length(8)] = bytes(8)
    count: Annotated[tv.int32, Le(8)] = 0


@tv.vmstate("board")
class Board:
    enabled: tv.boolean = True
    level: tv.uint8 = 0
    rate: tv.uint32 = 9600
    deadline: tv.timer = -1
    mode: Annotated[Mode, tv.uint8] = Mode.OFF
    queue: Queue = tv.field(default_factory=Queue)
    serial: tv.uint64
    queues: Annotated[list[Queue], MaxLength(3)] = tv.field(default_factory=list)
    extra: Queue | None = None
    name: str = ""
    words: Annotated[array, tv.uint16, Length(3)] = tv.field(default_factory=lambda: array("H", (0, 0, 0)))  # type: ignore[type-arg]  # Python 3.11 has no array[int]
    real: tv.float64 = 0.0
    seen: int = tv.transient(default=7)


def board(**values: Any) -> Board:
    return Board(**{"serial": 5, "rate": 1, "queue": Queue(count=2), "mode": Mode.ON, **values})


BOARDS: Final = [
    board(),
    Board(serial=0),
    board(enabled=False, queues=[Queue(), Queue(data=b"12345678", count=8)], extra=Queue(), name="ä", real=-0.0),
    board(deadline=1 << 62, level=255, serial=(1 << 64) - 1, words=array("H", (1, 2, 3)), queues=[Queue()]),
]


def saved(state: Any) -> bytes:
    return joined(codec.save(type(state).__vmstate__, state))


def loaded(table: Table, data: bytes) -> Any:
    loader = codec.Loader("board#0")
    state = loader.load(table, decode_all(data))
    assert not loader.findings
    return state


@pytest.mark.parametrize("state", BOARDS)
def test_a_template_saves_what_the_loops_save(state: Board) -> None:
    assert joined(saver(Shape(Board.__vmstate__))(state)) == saved(state)  # type: ignore[attr-defined]


@pytest.mark.parametrize("learnt", BOARDS)
@pytest.mark.parametrize("state", BOARDS)
def test_a_layout_reads_what_the_loops_read_or_nothing(learnt: Board, state: Board) -> None:
    each = Prepared(Board.__vmstate__)  # type: ignore[attr-defined]
    each.learn(Cursor(saved(learnt)), None)
    found = each.load(saved(state), whole=False)
    needs_more = (state.queues or state.extra) and not (learnt.queues or learnt.extra)
    assert found is not None or needs_more
    assert found is None or found.state == state
    assert found is None or (found.state.seen, type(found.state.mode)) == (7, Mode)


@given(table_strategies.field_plans())
def test_any_table_saves_and_loads_by_templates_as_by_loops(plans: tuple[table_strategies.Plan, ...]) -> None:
    table = Table("any", [each.declare() for each in plans])
    state = {each.name: each.value for each in plans}
    data = joined(codec.save(table, copy.deepcopy(state)))
    assert joined(saver(Shape(table))(copy.deepcopy(state))) == data
    each = Prepared(table)
    each.learn(Cursor(data), None)
    found = each.load(data, whole=False)
    assert found is not None
    assert found.state == loaded(table, data) == state


@given(table_strategies.growths())
def test_bytes_of_another_release_load_by_templates_as_by_loops(growth: table_strategies.Growth) -> None:
    old, new = (Table("any", [each.declare() for each in plans]) for plans in (growth.old, growth.new))
    data = joined(codec.save(old, {each.name: each.value for each in growth.old}))
    loader = codec.Loader("any#0")
    state = loader.load(new, decode_all(data))
    each = Prepared(new)
    if state is not None and not loader.findings:
        each.missed(data)
        for _ in range(USES):
            each.missed(data)
        found = each.load(data, whole=False)
        assert found is None or found.state == state


ODD: Final[dict[str, Callable[[Board], None]]] = {
    "a boolean is no number": lambda state: setattr(state, "level", True),
    "a number is no boolean": lambda state: setattr(state, "enabled", 1),
    "beyond its type": lambda state: setattr(state, "level", 256),
    "below its type": lambda state: setattr(state, "rate", -1),
    "out of bounds": lambda state: setattr(state.queue, "count", 9),
    "bytes too short": lambda state: setattr(state.queue, "data", b"1234567"),
    "another class": lambda state: setattr(state, "queue", board()),
    "no member": lambda state: setattr(state, "mode", 2),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_odd_state_is_left_to_the_loops_which_tell_what_it_is(change: Callable[[Board], None]) -> None:
    for _ in range(USES + 1):
        tv.dumps(board())
    state = board()
    change(state)
    with pytest.raises((ValueError, OverflowError, struct.error)):  # what a packer raises; a StateError is none of these
        saver(Shape(Board.__vmstate__))(state)  # type: ignore[attr-defined]
    with pytest.raises(StateError) as told:
        tv.dumps(state)
    with pytest.raises(StateError) as by_loops:
        codec.save(Board.__vmstate__, state)  # type: ignore[attr-defined]
    assert (told.value.path, told.value.expected, told.value.found) == (
        by_loops.value.path,
        by_loops.value.expected,
        by_loops.value.found,
    )


def test_a_number_that_is_no_int_is_saved_all_the_same() -> None:
    for _ in range(USES + 1):
        tv.dumps(board())
    assert tv.dumps(board(level=Mode.ON)) == tv.dumps(board(level=3))
    assert tv.dumps(board(level=Mode.OFF)) == tv.dumps(board(level=0))


def two_boards() -> Machine:
    return Machine([board(), (board(serial=9), 1)])


def bytes_of(machine: Machine) -> bytes:
    file = io.BytesIO()
    machine.save(file)
    return file.getvalue()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the loops were asked for."""
    found: list[str] = []
    real_save, real_load = codec.save, codec.Loader.load

    def save(table: Table, *rest: Any) -> Any:
        found.append(f"save {table.name}")
        return real_save(table, *rest)

    def load(self: codec.Loader, table: Table, *rest: Any) -> Any:
        found.append(f"load {table.name}")
        return real_load(self, table, *rest)

    monkeypatch.setattr(codec, "save", save)
    monkeypatch.setattr(codec.Loader, "load", load)
    return found


def test_a_machine_used_often_no_longer_asks_the_loops(asked: list[str], tmp_path: Path) -> None:
    prepared.prepared.cache_clear()
    plan.cache_clear()
    machine = two_boards()
    path = tmp_path / "vm.tvm"
    for _ in range(3 * USES):
        machine.save(path)
        machine.load(path)
    assert asked
    asked.clear()
    first = machine.entries[0].state
    first.level = 200
    data = bytes_of(machine)
    first.level = 1
    machine.load(data)
    machine.save(path)
    assert first.level == 200
    assert path.read_bytes() == data
    assert tv.dumps(first) == tv.dumps(copy.deepcopy(first))
    assert asked == []


@pytest.mark.parametrize("size", [1, 128, 129, 4096, 4097, 1 << 16])
@pytest.mark.parametrize("place", [0, 1])
def test_a_buffer_of_any_size_is_part_of_what_is_known(size: int, place: int, asked: list[str]) -> None:
    fields = [Field("x", tv.uint16, default=0)]
    fields.insert(place, Field("data", Annotated[bytes, Length(size)], default=bytes(size)))
    table = Table("card", fields)
    states: list[dict[str, Any]] = [
        {"data": bytes(size), "x": 0},
        {"data": b"\1" * size, "x": 7},
        {"data": bytes(size - 1) + b"\1", "x": 0},
    ]
    for _ in range(3 * USES):
        for state in states:
            assert tv.load(tv.dumps(state, table=table), table) == state
    asked.clear()
    each, data = prepared.prepared(table), joined(codec.save(table, states[1]))
    asked.clear()
    assert [tv.load(tv.dumps(state, table=table), table) for state in states] == states
    assert asked == []
    assert joined(each.save(states[1])) == data
    assert each.load(data, whole=True) is not None
    assert {each.load(data[:end], whole=True) for end in range(max(0, len(data) - 200), len(data))} == {None}
    assert each.load(data + b"\0", whole=True) is None
    assert tv.dumps({"data": bytearray(states[1]["data"]), "x": 7}, table=table) == tv.dumps(states[1], table=table)
    for wrong in (bytes(size - 1), bytes(size + 1)):
        with pytest.raises(StateError):
            tv.dumps({"data": wrong, "x": 0}, table=table)


@tv.vmstate("frame")
class Frame:
    name: str = ""
    pixels: Annotated[array, tv.uint32, Length(20_000)] = tv.field(default_factory=lambda: array("I", bytes(80_000)))  # type: ignore[type-arg]  # Python 3.11 has no array[int]
    blob: Annotated[bytes, Length(70_000)] = bytes(70_000)
    notes: Annotated[bytes, MaxLength(9_000)] = b""
    queues: Annotated[list[Queue], MaxLength(3)] = tv.field(default_factory=list)
    on: tv.boolean = False


def test_a_big_device_beside_small_ones_is_the_same_each_time_and_its_values_are_its_own(
    asked: list[str], tmp_path: Path
) -> None:
    frame = Frame(name="a", pixels=array("I", range(20_000)), blob=b"x" * 70_000, notes=b"n" * 8_000, queues=[Queue(count=3)])
    machine, path = Machine([board(), frame, (board(serial=9), 1)]), tmp_path / "vm.tvm"
    first = bytes_of(machine)
    for _ in range(4 * USES):
        machine.save(path)
        machine.load(path)
        one = tv.loads(tv.dumps(frame), Frame)
    asked.clear()
    frame.on, frame.pixels[0] = True, 77
    data = bytes_of(machine)
    machine.save(path)
    frame.on, frame.pixels[0] = False, 0
    assert bytes_of(machine) == first
    assert path.read_bytes() == data
    machine.load(data)
    one = tv.loads(tv.dumps(frame), Frame)
    assert asked == []
    assert one == frame
    assert (frame.on, frame.pixels[0], frame.name, frame.queues) == (True, 77, "a", [Queue(count=3)])
    assert [type(each) for each in (one.name, one.pixels, one.blob, one.notes)] == [str, array, bytes, bytes]
    one.pixels[1] = 5
    assert tv.loads(tv.dumps(frame), Frame).pixels[1] == frame.pixels[1] == 1
    for place in (100, len(data) // 3, len(data) - 20):
        with pytest.raises(tv.FormatError):
            machine.load(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    frame.name = "longer"
    machine.load(bytes_of(machine))
    assert frame.name == "longer"


def test_two_writers_with_sections_of_the_same_sizes_are_both_known(asked: list[str]) -> None:
    @tv.vmstate("pair")
    class Pair:
        first: tv.uint8 = 0
        other: tv.uint8 = 0

    @tv.vmstate("pair")
    class Swapped:
        other: tv.uint8 = 0
        first: tv.uint8 = 0

    machine = Machine([Pair()])
    ours, theirs = tv.dumps(Pair(first=1, other=2)), tv.dumps(Swapped(first=3, other=4))
    assert len(ours) == len(theirs)
    for _ in range(5 * USES):
        for data in (ours, theirs):
            machine.load(data)
            tv.loads(data, Pair)
    asked.clear()
    for data, expected in ((ours, Pair(first=1, other=2)), (theirs, Pair(first=3, other=4))):
        machine.load(data)
        assert machine.entries[0].state == tv.loads(data, Pair) == expected
    assert asked == []


class Index:
    """A number that only says which it is."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


class Flag(enum.IntFlag):
    A = 1
    B = 2


class Always(enum.IntEnum):
    ZERO = 0

    def __bool__(self) -> bool:
        return True


@tv.vmstate("numbers")
class Numbers:
    zero: tv.uint32 = 0
    one: tv.uint32 = 1
    rate: tv.uint32 = 9600
    flag: Annotated[Flag, tv.uint8] = Flag.A
    some: Annotated[bool, tv.boolean, Predicate(lambda value: value)] = True
    word: Annotated[bytes, Length(2), Predicate(lambda value: value != b"no")] = b"ok"


@pytest.mark.parametrize("value", [0, 1, 9600, 7])
@pytest.mark.parametrize("kind", [Index, np.uint32, np.int64, int])
def test_whatever_says_that_it_is_a_number_is_saved_as_one(kind: Callable[[int], Any], value: int) -> None:
    state = Numbers(zero=kind(value), one=kind(value), rate=kind(value))
    by_loops = saved(state)
    assert by_loops == saved(Numbers(zero=value, one=value, rate=value))
    for _ in range(USES + 1):
        tv.dumps(Numbers())
    assert joined(prepared.prepared(Numbers.__vmstate__).save(state)) == by_loops  # type: ignore[attr-defined]
    odd = Numbers(zero=Always.ZERO)
    assert joined(prepared.prepared(Numbers.__vmstate__).save(odd)) == saved(odd)  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [{"some": False}, {"word": b"no"}])
def test_what_a_predicate_refuses_is_refused_on_both_paths(change: dict[str, Any]) -> None:
    @tv.vmstate("numbers")
    class Free:
        some: tv.boolean = True
        word: Annotated[bytes, Length(2)] = b"ok"

    for _ in range(2 * USES):
        assert tv.loads(tv.dumps(Numbers()), Numbers) == Numbers()
        tv.loads(tv.dumps(Free()), Numbers)
    with pytest.raises(StateError):
        tv.dumps(Numbers(**change))
    with pytest.raises(LoadError):
        tv.loads(tv.dumps(Free(**change)), Numbers)


def test_a_flag_is_loaded_as_one_each_time() -> None:
    data = tv.dumps(Numbers(flag=Flag.A | Flag.B))
    for _ in range(3 * USES):
        assert repr(tv.loads(data, Numbers).flag) == repr(Flag.A | Flag.B)


def test_a_long_text_is_saved_whole_whatever_the_sizes_were_before() -> None:
    @tv.vmstate("texts")
    class Texts:
        a: str = ""
        b: str = ""

        def __post_init__(self) -> None:
            """It goes field by field."""

    for _ in range(3 * USES):
        tv.dumps(Texts(a="x" * 100))
    long = Texts(a="x" * 101, b="y" * 70_000)
    assert tv.loads(tv.dumps(long), Texts) == long


def test_a_default_that_is_a_view_is_compared_by_its_bytes() -> None:
    view = memoryview(array("H", [1, 2]))
    table = Table("view", [Field("a", Annotated[bytes, Length(4)], default_factory=lambda: view)])
    state = {"a": bytes(view)}
    assert joined(saver(Shape(table))(state)) == joined(codec.save(table, state))


@tv.vmstate
class Inner:
    queue: Queue | None


@tv.vmstate("outer")
class Outer:
    inner: Inner


def test_a_struct_with_a_required_one_that_may_be_absent_has_the_same_flag_each_time() -> None:
    for state in (Outer(inner=Inner(queue=Queue())), Outer(inner=Inner(queue=None)), Outer(inner=Inner(queue=Queue(count=1)))):
        assert joined(saver(Shape(Outer.__vmstate__))(state)) == saved(state)  # type: ignore[attr-defined]


@tv.vmstate
class More:
    count: tv.int32 = 0
    gone: tv.uint8 = 3


@tv.vmstate
class Less:
    count: tv.int32 = 0


@tv.vmstate("board")
class Newer:
    queues: Annotated[list[More], MaxLength(3)] = tv.field(default_factory=list)
    extra: More | None = None


@tv.vmstate("board")
class Older:
    queues: Annotated[list[Less], MaxLength(3)] = tv.field(default_factory=list)
    extra: Less | None = None


def test_what_is_kept_in_arrays_of_structs_is_kept_each_time() -> None:
    data = tv.dumps(Newer(queues=[More(count=1)], extra=More()))
    first = tv.dumps(tv.load(data, Older, unknown="keep"))
    assert first.count(b"gone") == 2
    for _ in range(3 * USES):
        tv.loads(data, Older)
    assert tv.dumps(tv.load(data, Older, unknown="keep")) == first


def test_what_no_load_takes_is_refused_each_time() -> None:
    data, machine = tv.dumps(Queue()), Machine([Queue()])
    for _ in range(3 * USES):
        tv.loads(data, Queue)
        machine.load(data)
    with pytest.raises(ValueError, match="unknown is one of"):
        tv.loads(data, Queue, unknown="bogus")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="unknown is one of"):
        machine.load(data, unknown="bogus")  # type: ignore[arg-type]  # what is tested
    for instance in (0.0, False, -1, 1 << 32):
        with pytest.raises(tv.TableError, match="an instance of 0"):
            tv.loads(data, Queue, instance=instance)  # type: ignore[arg-type]  # what is tested


class Mixin:
    """Its objects have a `__dict__`."""


@tv.vmstate("caches")
class Caches(Mixin):
    x: tv.uint8 = 0

    def post_load(self) -> None:
        self.cache = self.x


@tv.vmstate("fussy")
class Fussy:
    x: tv.uint8 = 0

    def post_load(self) -> None:
        if self.x == 9:
            raise ValueError(self.x)


def test_what_a_hook_set_beside_the_fields_is_put_back_each_time() -> None:
    first = Caches()
    machine = Machine([first, Fussy()])
    for _ in range(3 * USES):
        machine.load(bytes_of(machine))
    first.cache = 77
    with pytest.raises(LoadError):
        machine.load(bytes_of(Machine([Caches(x=5), Fussy(x=9)])))
    assert (first.x, first.cache) == (0, 77)


@tv.vmstate
class Level:
    level: tv.uint8 = 0


@tv.vmstate("dial")
class Dial(Level):
    y: tv.uint8 = 0

    @property  # type: ignore[misc]  # what is tested
    def level(self) -> int:
        return Level.level.__get__(self)  # type: ignore[attr-defined,no-any-return]  # the slot

    @level.setter
    def level(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # what is tested
        if value > 10:
            raise ValueError(value)
        Level.level.__set__(self, value)  # type: ignore[attr-defined]  # the slot


@tv.vmstate("dial")
class Wide:
    level: tv.uint8 = 0
    y: tv.uint8 = 0


def test_what_a_property_raises_refuses_the_load_each_time() -> None:
    machine = Machine([Dial()])
    for _ in range(3 * USES):
        tv.loads(tv.dumps(Wide(level=3)), Dial)
        machine.load(tv.dumps(Wide(level=3)))
    with pytest.raises(LoadError):
        tv.loads(tv.dumps(Wide(level=200)), Dial)
    with pytest.raises(LoadError):
        machine.load(tv.dumps(Wide(level=200)))
    assert machine.entries[0].state.level == 3


@dataclasses.dataclass
class Later:
    later: int = dataclasses.field(init=False)


@tv.vmstate("later")
class HasLater(Later):
    x: tv.uint8 = 0


def test_an_attribute_that_is_set_later_hinders_no_load() -> None:
    machine = Machine([HasLater()])
    for _ in range(3 * USES):
        machine.load(tv.dumps(HasLater(x=1)))
        assert tv.loads(tv.dumps(HasLater(x=1)), HasLater).x == 1


@tv.vmstate
class Marked:
    v: tv.uint8 = 0
    mark: int = tv.transient(default=1)


@tv.vmstate("marks")
class Unmarked:
    y: tv.uint8 = 0


@tv.vmstate("marks")
class Marks:
    y: tv.uint8 = 0
    inner: Marked = tv.field(default_factory=lambda: Marked(mark=5))


def test_an_absent_struct_is_what_its_field_makes_each_time() -> None:
    for _ in range(5 * USES):
        assert tv.loads(tv.dumps(Unmarked(y=1)), Marks).inner.mark == 5


@tv.vmstate("twice")
class Twice:
    extra: Level | None = None
    main: Level = tv.field(default_factory=Level)


def test_one_struct_in_two_places_stays_in_the_first_each_time() -> None:
    state = Twice(extra=Level())
    machine = Machine([state])
    for _ in range(3 * USES):
        machine.load(bytes_of(machine))
    shared = state.extra = state.main
    machine.load(tv.dumps(Twice(extra=Level(level=1), main=Level(level=2))))
    assert state.extra is shared
    assert (state.extra.level, state.main.level) == (1, 2)


def test_a_machine_that_knows_its_snapshots_can_be_pickled_and_copied() -> None:
    machine = Machine([Level(level=3)])
    data = bytes_of(machine)
    for _ in range(3 * USES):
        machine.load(bytes_of(machine))
    for other in (pickle.loads(pickle.dumps(machine)), copy.deepcopy(machine)):
        assert bytes_of(other) == data
        other.entries[0].state.level = 4
    assert bytes_of(machine) == data


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_a_state_that_lacks_an_attribute_or_has_no_repr_is_a_state_error() -> None:
    state = board()
    del state.level
    with pytest.raises(StateError):
        tv.dumps(state)
    with pytest.raises(StateError, match="a Unspeakable that has no repr"):
        tv.dumps(board(level=Unspeakable()))


@pytest.mark.long
@pytest.mark.parametrize("devices", [0, 1, 40, 1025])
def test_a_machine_of_few_or_many_devices_is_the_same_each_time(devices: int) -> None:
    machine = Machine([(Queue(count=number % 9), number) for number in range(devices)])
    first = bytes_of(machine)
    for _ in range(2 * USES if devices < 1000 else USES + 2):
        machine.reset()
        machine.load(first)
        assert bytes_of(machine) == first


def test_a_tool_that_loads_once_makes_no_template(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes_of(two_boards())
    prepared.prepared.cache_clear()
    plan.cache_clear()
    monkeypatch.setattr(prepared, "Shape", lambda _table: pytest.fail("a table was prepared"))
    two_boards().load(data)
    assert "load board" in asked


@pytest.mark.parametrize("kind", ["bit", "cut", "more"])
def test_damage_is_found_by_a_machine_that_knows_its_snapshots(kind: str) -> None:
    machine = two_boards()
    for _ in range(3 * USES):
        machine.load(bytes_of(machine))
    data = bytes_of(machine)
    before = copy.deepcopy([entry.state for entry in machine.entries])
    if kind == "bit":
        for bit in range(0, 8 * len(data), 7):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(tv.FormatError):
                machine.load(bytes(changed))
    elif kind == "cut":
        for size in range(0, len(data), 5):
            with pytest.raises(tv.FormatError):
                machine.load(data[:size])
    else:
        with pytest.raises(tv.FormatError, match="extra"):
            machine.load(data + b"\0")
    assert [entry.state for entry in machine.entries] == before


def test_a_value_out_of_bounds_is_refused_by_a_machine_that_knows_its_snapshots() -> None:
    @tv.vmstate("board")
    class Wider:
        count: tv.int32 = 0

    @tv.vmstate("board")
    class Bounded:
        count: Annotated[tv.int32, Le(8)] = 0

    machine = Machine([Bounded()])
    for count in range(3 * USES):
        machine.load(tv.dumps(Wider(count=count % 8)))
    with pytest.raises(LoadError, match="expected `int32` of at most 8, snapshot has 9 - at board#0/count"):
        machine.load(tv.dumps(Wider(count=9)))
    assert machine.entries[0].state.count == (3 * USES - 1) % 8


def test_a_field_in_use_that_was_known_at_its_default_is_refused() -> None:
    @tv.vmstate("board")
    class Newer:
        level: tv.uint8 = 0
        leds: tv.uint8 = 0

    @tv.vmstate("board")
    class Older:
        level: tv.uint8 = 0

    for level in range(3 * USES):
        assert tv.loads(tv.dumps(Newer(level=level)), Older).level == level
    with pytest.raises(LoadError, match="`uint8`, which `Older` does not know, in use"):
        tv.loads(tv.dumps(Newer(leds=1)), Older)
    state = Older()
    tv.load(tv.dumps(Newer(level=3)), into=state, unknown="keep")
    assert tv.loads(tv.dumps(state), Newer).level == 3
    assert b"leds" in tv.dumps(state)


def test_one_struct_in_two_places_becomes_two() -> None:
    shared = Queue()

    @tv.vmstate("pair")
    class Pair:
        first: Queue = tv.field(default_factory=Queue)
        second: Queue = tv.field(default_factory=Queue)

    data = tv.dumps(Pair(first=Queue(count=1), second=Queue(count=2)))
    pair = Pair(first=shared, second=shared)
    machine = Machine([pair])
    for _ in range(3 * USES):
        machine.load(data)
        assert (pair.first.count, pair.second.count) == (1, 2)
    assert shared in (pair.first, pair.second)


@tv.vmstate
class Labelled:
    x: tv.uint8 = 0
    label: str = tv.transient(default="new")


@pytest.mark.parametrize("times", [1, 3 * USES])
def test_the_second_of_one_struct_in_two_places_is_new_each_time(times: int) -> None:
    @tv.vmstate("pair")
    class Pair:
        first: Labelled = tv.field(default_factory=Labelled)
        second: Labelled = tv.field(default_factory=Labelled)

    data = tv.dumps(Pair(first=Labelled(x=1), second=Labelled(x=2)))
    for _ in range(times):
        shared = Labelled(label="old")
        pair = Pair(first=shared, second=shared)
        tv.load(data, into=pair)
        assert [(each.x, each.label) for each in (pair.first, pair.second)] == [(1, "old"), (2, "new")]


def test_what_holds_a_struct_sees_its_new_values() -> None:
    state = board()
    queue, data = state.queue, tv.dumps(board(queue=Queue(count=7)))
    for _ in range(3 * USES):
        queue.count = 0
        tv.load(data, into=state)
        assert state.queue is queue
        assert queue.count == 7


def test_a_table_of_dicts_is_prepared_too(asked: list[str]) -> None:
    inner = Table("inner", [Field("a b", tv.uint16, default=1)])
    table = Table("dicts", [Field("in/1", Annotated[dict, inner], default_factory=lambda: {"a b": 1}), Field("x", tv.uint8)])
    state = {"in/1": {"a b": 7}, "x": 9}
    for _ in range(3 * USES):
        data = tv.dumps(state, table=table)
        assert tv.load(data, table) == state
    asked.clear()
    assert tv.load(tv.dumps(state, table=table), table) == state
    assert asked == []


def mutated(data: bytes, random: Random) -> bytes:
    """Fields changed by their structure, or any of their bytes."""
    if random.random() < 0.5:
        return changed_bytes(data, random)
    with SnapshotWriter(file := io.BytesIO()) as writer:
        writer.write(EncodedSection(Lead.of("section", "board", 0, NO_ATTRIBUTES), data))
    try:
        return next(iter(tv.Snapshot.read(changed_snapshot(file.getvalue(), random)))).payload()
    except (tv.FormatError, StopIteration):
        return data


@pytest.mark.parametrize("state", BOARDS)
def test_every_flag_counts_for_a_template_as_for_the_loops(state: Board) -> None:
    """The flag of a struct may not contradict those in it, whichever is changed."""
    table = Board.__vmstate__  # type: ignore[attr-defined]
    each, data = Prepared(table), saved(state)
    for learnt in (*BOARDS, state):
        each.learn(Cursor(saved(learnt)), None)
    assert each.load(data, whole=False) is not None
    changed = 0
    for place in range(len(data)):
        other = data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]
        found = each.load(other, whole=False) if data[place] in {0, 1} else None
        changed += found is not None
        assert found is None or verdict(table, other) is not None, place
    assert changed


def verdict(table: Table, data: bytes) -> Any:
    """What the loops say of some bytes: the state, or None."""
    loader = codec.Loader("board#0")
    try:
        return loader.load(table, decode_all(data))
    except tv.FormatError:
        return None


@pytest.mark.parametrize("runs", [2_000, pytest.param(30_000, marks=pytest.mark.long)])
def test_whatever_a_template_takes_the_loops_take_as_the_same(runs: int) -> None:
    random, table = Random(runs), Board.__vmstate__  # type: ignore[attr-defined]
    each = Prepared(table)
    taken = refused = 0
    for number in range(runs):
        data = mutated(saved(random.choice(BOARDS)), random)
        if number % 100 == 0 and verdict(table, data) is not None:
            each.missed(data)
            for _ in range(USES):
                each.missed(data)
        found = each.load(data, whole=False)
        if found is None:
            refused += 1
            continue
        taken += 1
        expected = verdict(table, data)
        assert expected is not None, data
        assert saved(found.state) == saved(expected), data
    assert taken > runs // 50
    assert refused > runs // 50
