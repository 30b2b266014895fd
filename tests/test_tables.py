"""Declarations: what a table can say, and that what is wrong is said when it is made, with the names of class and field."""

from __future__ import annotations

import copy
import enum
import functools
import pickle
import subprocess
import sys
import weakref
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import annotated_types
import numpy as np
import pytest
import typing_example
from typing_example import Everything, Mode, More, Queue

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table, TableError
from tagged_vmstate.fieldtype import SparseMemory

pytestmark = pytest.mark.usefixtures("path")

ROOT = Path(__file__).parent.parent


@pytest.mark.long
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_type_checkers_understand_the_classes(checker: str) -> None:
    """What they reveal is asserted in the example; what they must refuse carries an ignore that both insist on."""
    options = {"mypy": ["--strict"], "pyright": ["--pythonpath", sys.executable]}[checker]
    command = [sys.executable, "-m", checker, *options, "tests/typing_example.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_kind_of_field_comes_back() -> None:
    state = typing_example.revealed()
    state.queues[1].count = 3
    state.slots = [None, Queue(rptr=4)]
    state.msix = Queue(count=2)
    state.memory[5000] = 9
    state.floats[2] = np.float32(np.nan)
    state.registers = np.array([1, 2, 0xFFFFFFFF], np.uint32)
    state.packed = array("H", [1, 2, 3, 65535])
    state.few = [-1, 2]
    state.words = ["a", "zwölf"]
    state.flags = [True, False]
    state.modes = [Mode.BUSY, Mode.IDLE]
    state.packet = b"packet"
    state.bits = b"\xff\x0f"
    found = tv.loads(tv.dumps(state), Everything)
    assert isinstance(found.mode, Mode)
    assert found.modes == [Mode.BUSY, Mode.IDLE]
    assert type(found.modes[0]) is Mode
    assert isinstance(found.packed, array)
    assert isinstance(found.floats, np.ndarray)
    assert found.floats.tobytes() == state.floats.tobytes()
    assert found.floats.dtype == np.float32
    found.floats[2] = state.floats[2] = 0
    assert found == state
    assert found.slots[0] is None
    assert tv.dumps(found) == tv.dumps(state)


def test_arrays_are_saved_from_anything_with_their_elements() -> None:
    state = Everything(required=1)
    expected = tv.dumps(Everything(required=1, numbers=[1, 2, 3]))
    wide = np.arange(12, dtype=np.uint32).reshape(3, 4)
    spread = wide.T[1:2, :].copy()
    for value in (
        array("I", [1, 2, 3]),
        np.array([1, 2, 3], np.uint32),
        (1, 2, 3),
        wide[0, 1:],
        np.array([1, 9, 2, 9, 3], np.uint32)[::2],
    ):
        state.numbers = value  # type: ignore[assignment]  # what the buffer protocol allows
        assert tv.dumps(state) == expected
    assert spread.shape == (1, 3)
    for wrong in (np.array([1, 2, 3], np.int32), np.array([1, 2, 3], np.uint64), [1, 2], [1, 2, -3], "abc", None):
        state.numbers = wrong  # type: ignore[assignment]
        with pytest.raises(tv.StateError, match=r"uint32.* - at everything#0 numbers"):
            tv.dumps(state)


def test_loaded_arrays_can_be_written() -> None:
    found = tv.loads(tv.dumps(Everything(required=1)), Everything)
    found.floats[0] = 1
    found.packed[0] = 1
    found.memory[0] = 1
    found.writable[0] = 1
    assert found != Everything(required=1)
    assert tv.loads(tv.dumps(found), Everything) == found


class TestClasses:
    def test_they_are_keyword_only_and_slotted(self) -> None:
        with pytest.raises(TypeError):
            Queue(bytes(16))  # type: ignore[call-arg]
        with pytest.raises(AttributeError):
            Queue().wptr = 1  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="required"):
            Everything()  # type: ignore[call-arg]
        assert repr(Queue(data=b"x" * 16)) == "Queue(data=b'xxxxxxxxxxxxxxxx', rptr=0, count=0)"
        assert "memory" not in repr(Everything(required=1))

    def test_what_python_does_with_objects_works(self) -> None:
        queue = Queue(rptr=3)
        assert copy.deepcopy(queue) == queue == pickle.loads(pickle.dumps(queue))
        assert weakref.ref(queue)() is queue
        assert queue != Queue()
        assert queue != (bytes(16), 3, 0)  # type: ignore[comparison-overlap]

    def test_methods_see_the_class_that_was_made(self) -> None:
        assert Counter().doubled() == (6, Counter)
        assert Counter(count=1).half == 0

    def test_a_subclass_is_a_device_of_its_own(self) -> None:
        table: Table = vars(More)["__vmstate__"]
        assert table.name == "everything-more"
        assert [field.name for field in table.fields][-1] == "extra"
        assert table.version == 4
        state = tv.loads(tv.dumps(More(required=3)), More)
        assert state.extra == 0x80
        with pytest.raises(tv.LoadError, match="everything-more#0"):
            tv.loads(tv.dumps(More(required=3)), Everything)

    def test_transient_attributes_are_no_state(self) -> None:
        state = Everything(required=1, raise_irq=print)
        tv.load(tv.dumps(Everything(required=2)), into=state)
        tv.reset(state)
        assert (state.required, state.raise_irq) == (2, print)
        assert state == Everything(required=2)
        assert b"raise_irq" not in tv.dumps(state)


class Base:
    def doubled(self) -> tuple[int, type]:
        return 3, Base


@tv.vmstate
class Counter(Base):
    constant: ClassVar[int] = 5
    count: tv.uint8 = 0

    def doubled(self) -> tuple[int, type]:
        return super().doubled()[0] * 2, __class__  # type: ignore[name-defined]  # the compiler makes it

    @property
    def half(self) -> int:
        return self.count // 2


def test_versions_say_where_a_field_was() -> None:
    step = Field("step", tv.uint8, default=0, since=3, until=4)
    mask = Field("mask", tv.uint8, default=0, versions=0b1010)
    assert [version for version in range(6) if step.is_in(version)] == [3, 4]
    assert [version for version in range(6) if mask.is_in(version)] == [1, 3]


class TestByHand:
    QUEUE = Table("queue", [Field("count", tv.uint8, default=0)])
    DEVICE = Table(
        "dev",
        [
            Field("queue.a", Annotated[dict, QUEUE], attribute="a", default_factory=lambda: {"count": 0}),
            Field("more", Annotated[list[dict], QUEUE, MaxLength(3)], default_factory=list),  # type: ignore[type-arg]
            Field("none", Annotated[dict | None, QUEUE], default=None),
            Field("n", tv.uint32),
        ],
    )

    def test_dicts(self) -> None:
        state = {"a": {"count": 3}, "more": [{"count": 1}, {"count": 2}], "none": None, "n": 7, "other": object()}
        data = tv.dumps(state, table=self.DEVICE)
        found = tv.load(data, self.DEVICE)
        assert found == {key: value for key, value in state.items() if key != "other"}
        tv.reset(state, table=self.DEVICE)
        assert state == {"a": {"count": 0}, "more": [], "none": None, "n": 7, "other": state["other"]}
        tv.load(data, into=state, table=self.DEVICE)
        assert state["more"] == [{"count": 1}, {"count": 2}]

    def test_what_a_dict_lacks_is_said(self) -> None:
        with pytest.raises(tv.StateError, match=r"a `n` in `dev`, got none in .* - at dev#0 n"):
            tv.dumps({"a": {"count": 3}, "more": [], "none": None}, table=self.DEVICE)
        with pytest.raises(tv.StateError, match=r"a `count` in `queue`.* - at dev#0 more\[1\] / count"):
            tv.dumps({"a": {"count": 3}, "more": [{"count": 1}, {}], "none": None, "n": 1}, table=self.DEVICE)

    def test_a_class_that_cannot_be_decorated(self) -> None:
        table = Table("plain", [Field("x", tv.int32, default=0), Field("y", tv.int32)], state=Plain)
        state = Plain(3, 4)
        found = tv.load(tv.dumps(state, table=table), table)
        assert vars(found) == {"x": 3, "y": 4}
        with pytest.raises(TableError, match=r"a class under @vmstate, or a table beside the state"):
            tv.dumps(state)


class Plain:
    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self.y = y


def declared(annotation: Any, **more: Any) -> Callable[[], object]:
    """A class `Broken` whose field `culprit` is declared so."""

    def make() -> object:
        body = {"__annotations__": {"culprit": annotation}, "culprit": tv.field(**more), "__module__": __name__}
        return tv.vmstate(type("Broken", (), body))

    return make


def listed(*fields: Field, **more: Any) -> Callable[[], object]:
    return lambda: Table("Broken", fields, **more)


class Color(enum.IntEnum):
    RED = 1


ANY: Any = None

WRONG: list[tuple[Callable[[], object], str]] = [
    # types
    (declared(int, default=0), "expected a width: int8 ... uint64 or timer, got `int`"),
    (declared(float, default=0.0), "expected a width: float32 or float64, got `float`"),
    (declared(complex, default=0), "expected a type that a field can have, or a class under @vmstate, got `complex`"),
    (declared(Plain, default=None), "a class under @vmstate, got `Plain`"),
    (declared(Base | None, default=None), "a class under @vmstate, got `Base`"),
    (declared(dict, default=None), r"a table beside the dict"),
    (declared(tv.uint8 | None, default=None), "expected None only beside a struct"),
    (declared(tv.uint8 | str, default=None), "expected one type, or a struct or None"),
    (declared(Color, default=1), "a width beside the enum: Annotated"),
    (declared(list, default_factory=list), "one type for the elements"),
    (declared(list[list[tv.uint8]], default_factory=list), "its Length, or for one that varies its MaxLength, got neither"),
    (
        declared(Annotated[list[Annotated[bytes, Length(4)]], Length(2)], default_factory=list),
        "elements of a type that arrays can have",
    ),
    (
        declared(Annotated[list[Annotated[tv.sparse, Length(4)]], Length(2)], default_factory=list),
        "elements of a type that arrays can have",
    ),
    (declared(array, default_factory=list), "the type of the elements beside the array"),
    (declared(np.ndarray, default_factory=list), "the type of the elements beside the array"),
    (declared("Nowhere", default=0), "`Nowhere`, unknown so far: a struct cannot hold itself"),
    (declared("Broken | None", default=None), "`Broken`, unknown so far: a struct cannot hold itself"),
    # lengths
    (declared(bytes, default=b""), "its Length, or for one that varies its MaxLength, got neither"),
    (declared(list[tv.uint8], default_factory=list), "its Length, or for one that varies its MaxLength, got neither"),
    (declared(Annotated[bytes, Length(4), MaxLength(4)], default=b""), "Length or MaxLength, got both"),
    (declared(Annotated[tv.uint8, Length(4)], default=0), "no length for a single `uint8`"),
    (declared(Annotated[bytes, Length(-1)], default=b""), "a length of 0 or more, got -1"),
    (declared(Annotated[tv.bitmap, MaxLength(9)], default=b""), "a fixed Length for `bitmap`"),
    # constraints
    (declared(Annotated[str, annotated_types.Ge(1)], default=""), "no Ge on `string`"),
    (declared(Annotated[tv.float32, tv.Mask(1)], default=0.0), "no Mask on `float32`"),
    (declared(Annotated[tv.uint8, annotated_types.MinLen(1)], default=0), "a constraint that is known here"),
    # defaults
    (declared(tv.uint8, default=300), r"a default: `uint8` \(0 to 255\), got 300"),
    (declared(tv.uint8, default="7"), "a default: `uint8`, got '7'"),
    (declared(tv.uint8, default=True), "a default: `uint8`, got True"),
    (declared(tv.boolean, default=1), "a default: `bool`, got 1"),
    (declared(Annotated[tv.uint8, annotated_types.Le(3)], default=4), "a default: `uint8` of at most 3, got 4"),
    (declared(Annotated[tv.uint8, tv.Mask(3)], default=4), "a default: `uint8` with no bits but 0x3, got 4"),
    (declared(Annotated[Color, tv.uint8], default=2), r"a default: a Color: RED \(1\), got 2"),
    (declared(Annotated[bytes, Length(4)], default=b"abc"), r"a default: `buffer\[4\]`, got 3 bytes"),
    (declared(Annotated[bytes, MaxLength(2)], default=b"abc"), r"a default: `buffer\[up to 2\]`, got 3 of them"),
    (declared(Annotated[list[tv.uint8], Length(2)], default=[0, 0]), "a default_factory for what can be changed in place"),
    (
        declared(Annotated[list[tv.uint8], Length(2)], default_factory=lambda: [0, 0, 0]),
        r"a default: `uint8\[2\]`, got 3 elements",
    ),
    (declared(Queue, default=Queue()), "a default_factory for what can be changed in place"),
    (declared(Queue, default=None), "a default: a `Queue`, got nothing"),
    (declared(Queue, default_factory=lambda: Queue(count=99)), "a default: `int32` of at most 16, got 99"),
    (declared(tv.uint8, default=1, default_factory=lambda: 1), "default or default_factory, got both"),
    (declared(tv.uint8, default_factory=lambda: 1 / 0), "a default_factory that needs nothing, got ZeroDivisionError"),
    # the rest
    (declared(tv.uint16, default=0, widens_from=(tv.uint32,)), "types narrower than `uint16` in widens_from, got `uint32`"),
    (declared(tv.uint16, default=0, widens_from=(tv.int8,)), "types narrower than `uint16` in widens_from, got `int8`"),
    (declared(tv.float32, default=0.0, widens_from=(tv.uint32,)), "types narrower than `float32`"),
    (declared(tv.float32, default=0.0, widens_from=(tv.float64,)), "types narrower than `float32` in widens_from, got `float64`"),
    (declared(tv.uint8, default=0, aliases="abc"), "aliases as a tuple of names, got the string 'abc'"),
    (declared(tv.uint8, default=0, aliases=("",)), "a name of 1 to 255 bytes of UTF-8"),
    (declared(tv.uint8, default=0, aliases=("n" * 256,)), "a name of 1 to 255 bytes of UTF-8"),
    (declared(tv.uint8, default=0, display="octal"), "a display of hex, flags or an enum"),
    (declared(tv.uint8, default=0, since=2, until=1), "since before until, got 2 to 1"),
    (declared(tv.uint8, default=0, since=2), r"versions up to the table's own \(1\)"),
    (declared(tv.uint8, default=0, versions=0b100), r"versions up to the table's own \(1\)"),
    (declared(tv.uint8, default=0, versions=1, since=1), "since and until, or a mask of versions, got both"),
    (declared(tv.uint8, default=0, versions=0), "a mask of versions 0 to 63"),
    (listed(Field("culprit", tv.uint8), Field("culprit", tv.uint8)), "each name and alias of a field once, got `culprit` again"),
    (
        listed(Field("a", tv.uint8), Field("culprit", tv.uint8, aliases=("a",))),
        "each name and alias of a field once, got `a` again",
    ),
    (listed(Field("a", tv.uint8), Field("culprit", tv.uint8, attribute="a")), "each attribute once, got `a` again"),
]


@pytest.mark.parametrize(("make", "words"), WRONG, ids=[words[:60] for _, words in WRONG])
def test_what_is_wrong_is_said_when_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(TableError, match=f"{words}.* - at Broken culprit"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Table("", []), r"a name of 1 to 255 bytes"),
        (lambda: Table("d", [], aliases=("d",)), "each name and alias of a device once.* - at d"),
        (lambda: Table("d", [], version=1, minimum_version=2), "minimum_version and version of 0 to 63"),
        (lambda: Table("d", [ANY]), "a `Field`, got nothing - at d"),
        (lambda: tv.vmstate(type("T", (), {"__annotations__": {"x": Any}, "x": tv.transient()})), "a default for a transient"),  # type: ignore[call-overload]
    ],
)
def test_what_is_wrong_with_a_table_is_said_too(make: Callable[[], object], words: str) -> None:
    with pytest.raises(TableError, match=words):
        make()


def test_structs_nest_no_deeper_than_the_format() -> None:
    def outer(table: Table) -> Table:
        return Table("deep", [Field("inner", Annotated[dict | None, table], default=None)])

    table = Table("deepest", [Field("x", tv.uint8, default=0)])
    for _ in range(63):
        table = outer(table)
    assert tv.load(tv.dumps({"inner": None}, table=table), table) == {"inner": None}
    with pytest.raises(TableError, match="at most 64 structs within each other, got 65 - at deep"):
        outer(table)


# --- defaults of memory

SIZE = 1 << 44


def _memory(factory: Callable[[], Any], length: int = SIZE) -> Field:
    return Field("ram", Annotated[tv.sparse, Length(length)], default_factory=factory)


def _more_than_zeros(size: int) -> bytearray:
    return bytearray(size)


def test_a_default_of_zeros_is_not_made_to_be_known() -> None:
    local = SIZE >> 4
    for factory in (lambda: bytearray(SIZE), lambda: bytearray(16 * local), lambda: bytearray(1 << 44)):
        assert _memory(factory).known_default() == SparseMemory(SIZE, ())
    with pytest.raises(TableError, match=r"expected a default: `sparse\[17592186044416\]`, got 17592186044415 bytes - at ram"):
        _memory(lambda: bytearray(SIZE - 1))


@pytest.mark.parametrize(
    "factory",
    [
        lambda: bytearray(b"abcd"),
        lambda: bytearray([1, 2, 3, 4]),
        lambda: bytearray(4)[::-1],
        lambda size=4: bytearray(size),
        lambda: _more_than_zeros(4),
        lambda: bytearray(max(4, SIZE >> 50)),
        functools.partial(bytearray, 4),
    ],
)
def test_any_other_default_is_made(factory: Callable[[], bytearray]) -> None:
    found = _memory(factory, 4).known_default()
    assert (type(found), found) == (bytearray, factory())


def test_a_large_default_is_not_written_into_the_docstring() -> None:
    made: Any = declared(Annotated[bytes, Length(1 << 16)], default=bytes(1 << 16))()
    assert len(made.__doc__) < 1_000
    assert made().culprit == bytes(1 << 16)
