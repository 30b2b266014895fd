"""Declarations: what a table can say, and that what is wrong is said when it is made, with the names of class and field."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import enum
import functools
import pickle
import re
import sys
import weakref
from array import array
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import annotated_types
import attrs
import numpy as np
import pytest
import typing_example
from numpy.typing import NDArray
from typing_example import Everything, Mode, More, Queue
from typing_extensions import ParamSpec, TypeAliasType, TypeVar

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table, TableError
from tagged_vmstate.devices import Entry
from tagged_vmstate.fieldtype import SparseMemory
from tagged_vmstate.paths import format_name
from tagged_vmstate.tablejson import tables_to_json

pytestmark = pytest.mark.usefixtures("path")


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
        with pytest.raises(tv.StateError, match=r"uint32.* - at everything#0/numbers"):
            tv.dumps(state)


# Aliases made at run time, as a type checker would not have them.
_alias: Any = TypeAliasType
_variable: Any = TypeVar
_parameters: Any = ParamSpec
_annotated: Any = Annotated
_list: Any = list
_callable: Any = Callable
_ndarray: Any = np.ndarray
_dtype: Any = np.dtype
_T = _variable("_T")
_ALIAS = _alias("_ALIAS", tv.uint16)
_FOUR = _alias("_FOUR", _annotated[_list[_T], Length(4)], type_params=(_T,))
_S = _variable("_S", bound=np.generic)
_NUMPY = _alias("_NUMPY", _ndarray[tuple[int, ...], _dtype[_S]], type_params=(_S,))  # as numpy 2.5 has it
_SAME = _alias("_SAME", _T, type_params=(_T,))
_MARKED = _alias("_MARKED", _annotated[array, _T, Length(4)], type_params=(_T,))
_U = _variable("_U", default=tv.uint8)
_USUAL = _alias("_USUAL", _annotated[_list[_U], Length(2)], type_params=(_U,))
_P = _parameters("_P")
_CALL = _alias("_CALL", _callable[_P, _T], type_params=(_P, _T))
_QUOTED = _alias("_QUOTED", "tv.uint8")
_RING = _alias("_RING", _annotated[_list["_RING"], Length(2)])
_BYTE = _alias("_BYTE", tv.uint8)
_TWICE = _alias("_TWICE", _FOUR[_ALIAS])
_MAYBE = _alias("_MAYBE", Queue | None)
_TABLE = _alias("_TABLE", _annotated[dict[str, Any], Table("t", [Field("x", tv.uint8, default=0)])])


@pytest.mark.parametrize(
    ("annotation", "written"),
    [
        (_ALIAS, "uint16"),
        (_annotated[_ALIAS, annotated_types.Le(5)], "uint16"),
        (_annotated[_ALIAS, Length(4)], None),
        (_annotated[_list[_ALIAS], Length(2)], "uint16[2]"),
        (_annotated[Mode, _BYTE], "uint8"),
        (_FOUR[tv.uint8], "uint8[4]"),
        (_FOUR[_ALIAS], "uint16[4]"),
        (_TWICE, "uint16[4]"),
        (_annotated[_NUMPY[np.uint32], MaxLength(3)], "uint32[up to 3]"),
        (_MAYBE, "struct"),
        (_FOUR[_SAME[_SAME[_ALIAS]]], "uint16[4]"),
        (_MARKED[_ALIAS], "uint16[4]"),
        (_USUAL, "uint8[2]"),
        (_USUAL[_ALIAS], "uint16[2]"),
        (_TABLE, "struct"),
        (_TABLE | None, "struct"),
        (_annotated[_list[_TABLE], MaxLength(3)], "struct[up to 3]"),
    ],
)
def test_a_type_alias_is_what_it_stands_for(annotation: Any, written: str | None) -> None:
    if written is None:
        with pytest.raises(TableError, match="no length for a single `uint16`"):
            Field("f", annotation)
    else:
        assert Field("f", annotation).type.describe() == written


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (_FOUR, r"a type that a field can have \(it stands for one: name that in the brackets of the alias\), got `~_T`"),
        (_SAME.__getitem__((tv.uint8, tv.uint8)), "expected no more types in brackets than `_SAME` has parameters, 1, got 2"),
        (_CALL.__getitem__((tv.uint8, tv.uint8)), "expected types that fit `_CALL`, got"),
        (_QUOTED, r"\(a name in quotes is not looked up here\), got `tv.uint8`"),
        (_RING, r"\(a name in quotes is not looked up here\), got `_RING`"),
    ],
)
def test_what_an_alias_leaves_open_is_refused_in_words(annotation: Any, words: str) -> None:
    with pytest.raises(TableError, match=words):
        Field("f", annotation)


def test_a_class_may_come_from_exec_without_a_module() -> None:
    names: dict[str, Any] = {"tv": tv}
    source = "@tv.vmstate\nclass Uart:\n    divisor: tv.uint16 = 1"
    exec(compile(source, "uart", "exec", dont_inherit=True), names)  # annotations that are no strings
    assert tv.loads(tv.dumps(names["Uart"](divisor=7)), names["Uart"]).divisor == 7


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before Python 3.14, Python itself refuses the name")
@pytest.mark.parametrize(("hint", "name"), [("Ring | None", "Ring"), ("Annotated[list[Later], Length(2)]", "Later")])
def test_an_annotation_that_waits_for_its_names_is_refused_in_words(hint: str, name: str) -> None:
    names = {"tv": tv, "Annotated": Annotated, "Length": Length}
    source = f"@tv.vmstate\nclass Ring:\n    at: tv.uint8 = 0\n    next: {hint} = None"
    with pytest.raises(TableError, match=f"`{name}`, unknown so far: .* - at Ring/next"):
        exec(compile(source, "waits", "exec", dont_inherit=True), names)  # annotations that are no strings


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the `type` statement came with Python 3.12")
def test_a_type_statement_is_a_type_alias() -> None:
    names = {"tv": tv, "Annotated": Annotated, "Length": Length}
    source = """
type Register = tv.uint32
type Bank[T] = Annotated[list[T], Length(2)]
type Ring = Annotated[Ring, Length(1)]
type Gone = tv.uint8 | missing
@tv.vmstate
class Cpu:
    pc: Register = 0
    bank: Bank[Register] = tv.field(default_factory=lambda: [0, 0])
"""
    exec(compile(source, "aliases", "exec", dont_inherit=True), names)  # annotations that are no strings
    made: Any = names["Cpu"]
    assert tv.loads(tv.dumps(made(pc=7, bank=[1, 2])), made).bank == [1, 2]
    assert [field.type.describe() for field in made.__vmstate__.fields] == ["uint32", "uint32[2]"]
    with pytest.raises(TableError, match="does not stand for itself, got `Ring` - at f"):
        Field("f", names["Ring"])
    with pytest.raises(TableError, match="the names in the type alias `Gone` to be defined, got `missing`"):
        Field("f", names["Gone"])


@tv.vmstate("fb")
class FrameBuffer:
    pixels: Annotated[NDArray[np.uint16], Length(12)] = tv.field(default_factory=lambda: np.zeros((3, 4), np.uint16))
    planes: Annotated[NDArray[np.float64], Length(8), annotated_types.Ge(0)] = tv.field(
        default_factory=lambda: np.ones((2, 2, 2))
    )
    level: Annotated[NDArray[np.int8], Length(1)] = tv.field(default_factory=lambda: np.array(3, np.int8))


class TestSeveralDimensions:
    """The default of a numpy array says its dimensions; in the file it is one row, the last dimension running fastest."""

    FLAT: Final = np.arange(12, dtype=np.uint16)

    @pytest.mark.parametrize(
        "pixels",
        [
            FLAT.reshape(3, 4),
            np.asfortranarray(FLAT.reshape(3, 4)),
            np.arange(24, dtype=np.uint16).reshape(3, 8)[:, ::2] // 2,
            np.repeat(FLAT, 2).reshape(3, 8)[:, ::2],
            np.repeat(FLAT, 2).reshape(3, 8).T[::2].T,
            FLAT,
            FLAT.tolist(),
            memoryview(FLAT.tobytes()).cast("B").cast("H", (3, 4)),
        ],
    )
    def test_they_come_back(self, pixels: Any) -> None:
        frame = FrameBuffer(pixels=pixels)
        data = tv.dumps(frame)
        [section] = tv.Snapshot.read(data)
        assert section.records()[0].describe() == "uint16[12]"
        row: Any = section.records()[0].value
        assert row.tolist() == self.FLAT.tolist()
        found = tv.loads(data, FrameBuffer)
        assert (found.pixels.shape, found.planes.shape, found.level.shape) == ((3, 4), (2, 2, 2), ())
        assert found.pixels.dtype == np.uint16
        assert found.pixels.tolist() == self.FLAT.reshape(3, 4).tolist()
        found.pixels[1, 2] = 99
        assert tv.load(data, into=found).pixels.tolist() == self.FLAT.reshape(3, 4).tolist()
        tv.reset(found)
        assert found == FrameBuffer()
        assert found.pixels.shape == (3, 4)

    def test_a_field_at_its_default_is_flagged(self) -> None:
        [section] = tv.Snapshot.read(tv.dumps(FrameBuffer(planes=np.asfortranarray(np.ones((2, 2, 2))))))
        assert [record.is_default for record in section.records()] == [True, True, True]

    def test_other_dimensions_are_refused(self) -> None:
        words = r"`uint16\[12\]` in the dimensions \(3, 4\), got the dimensions \(4, 3\) - at fb#0/pixels"
        with pytest.raises(tv.StateError, match=words):
            tv.dumps(FrameBuffer(pixels=np.zeros((4, 3), np.uint16)))
        flat = Table("flat", [Field("x", Annotated[list[tv.uint8], Length(4)])])
        for value in (np.zeros((2, 2), np.uint8), memoryview(bytes(4)).cast("B", (2, 2)), ((ctypes.c_uint8 * 2) * 2)()):
            with pytest.raises(tv.StateError, match=r"`uint8\[4\]` in one dimension, got the dimensions \(2, 2\) - at flat#0/x"):
                tv.dumps({"x": value}, table=flat)

    def test_each_element_is_checked(self) -> None:
        planes = np.ones((2, 2, 2))
        planes[1, 0, 1] = -1
        with pytest.raises(tv.StateError, match=r"`float64` of at least 0, got -1.0 - at fb#0/planes\[5\]"):
            tv.dumps(FrameBuffer(planes=planes))

    def test_tables_are_exported_with_the_row(self) -> None:
        [pixels, *_] = tables_to_json([Entry(table_of(FrameBuffer), 0, None)])["devices"][0]["fields"]
        assert pixels == {"name": "pixels", "type": "uint16", "length": 12, "default": [0] * 12}


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"])
def test_every_type_of_numpy_is_taken_and_comes_back(name: str) -> None:
    dtype: Any = getattr(np, name)
    table = Table("d", [Field("x", Annotated[NDArray[dtype], Length(4)], default_factory=lambda: np.zeros(4, dtype))])
    for value in (np.arange(4).astype(dtype), np.arange(8).astype(dtype)[::2] // 2):
        found = tv.load(tv.dumps({"x": value}, table=table), table)["x"]
        assert (found.dtype, found.tolist()) == (dtype, [0, 1, 2, 3])
    if name.endswith("8"):
        return
    for swapped in (np.arange(4).astype(dtype), np.arange(8).astype(dtype)[::2]):
        with pytest.raises(tv.StateError, match=rf"`{name}\[4\]`, got array.* - at d#0/x"):
            tv.dumps({"x": swapped.astype(np.dtype(dtype).newbyteorder())}, table=table)


def test_a_block_of_anything_else_is_refused() -> None:
    table = Table("d", [Field("x", Annotated[list[tv.int64], Length(2)])])
    assert tv.load(tv.dumps({"x": array("l", [1, -2])}, table=table), table) == {"x": [1, -2]}
    for value in (
        np.zeros(2, "M8[s]"),
        np.zeros(2, object),
        np.zeros(2, "c8"),
        np.zeros(2, [("a", "i4"), ("b", "i4")]),
        np.zeros(2),
    ):
        with pytest.raises(tv.StateError, match=r"`int64\[2\]`, got .* - at d#0/x"):
            tv.dumps({"x": value}, table=table)


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

    def test_a_class_of_no_module_works(self) -> None:
        chip: Any = tv.vmstate(type("Chip", (), {"__annotations__": {"x": tv.uint8}, "__module__": "builtins", "x": 0}))
        assert tv.loads(tv.dumps(chip(x=3)), chip).x == 3

    def test_its_own_slots_are_kept(self) -> None:
        uart: Any = Slotted()
        uart.bus = uart.late = 5
        uart.ier = 3
        found = tv.load(tv.dumps(uart), into=uart)
        assert (found.ier, found.bus, found.late) == (3, 5, 5)
        assert not hasattr(tv.loads(tv.dumps(uart), Slotted), "bus")
        assert copy.deepcopy(uart).bus == 5
        with pytest.raises(AttributeError):
            uart.other = 1

    def test_a_subclass_overrides_a_field_with_its_annotation(self) -> None:
        @tv.vmstate
        class Faster(Overridden):
            divisor: tv.uint16 = 13

        @tv.vmstate
        class Fixed(Overridden):
            divisor: int = tv.transient(default=1)

        @tv.vmstate
        class Computed(Overridden):
            @property  # type: ignore[misc]  # mypy knows only attributes
            def divisor(self) -> int:
                return self.ier * 2

            @divisor.setter
            def divisor(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # what is tested
                self.ier = value // 2

        assert [field.name for field in table_of(Faster).fields] == ["divisor", "ier"]
        assert tv.loads(tv.dumps(Faster()), Faster).divisor == 13
        assert [field.name for field in table_of(Fixed).fields] == ["ier"]
        assert tv.loads(tv.dumps(Fixed(divisor=9)), Fixed).divisor == 1
        assert tv.loads(tv.dumps(Computed(divisor=8, ier=4)), Computed).divisor == 8

    def test_a_field_takes_the_place_of_what_a_plain_base_has(self) -> None:
        @tv.vmstate
        class Chip(Base):
            doubled: tv.uint8 = 0  # type: ignore[assignment]

        assert tv.loads(tv.dumps(Chip(doubled=3)), Chip).doubled == 3

    def test_a_class_is_told_from_a_class_variable_by_what_it_is(self) -> None:
        named: type = tv.vmstate(
            type("Named", (), {"__annotations__": {"mode": "ClassVarious"}, "__module__": __name__, "mode": 0})
        )
        assert [field.name for field in table_of(named).fields] == ["mode"]


ClassVarious = tv.uint8


def table_of(cls: type) -> Table:
    table: Table = vars(cls)["__vmstate__"]
    return table


@tv.vmstate
class Slotted:
    __slots__ = ("bus", "late")
    ier: tv.uint8 = 0


@tv.vmstate
class Overridden:
    divisor: tv.uint16 = 12
    ier: tv.uint8 = 0


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
        with pytest.raises(tv.StateError, match=r"a `n` in `dev`, got none in .* - at dev#0/n"):
            tv.dumps({"a": {"count": 3}, "more": [], "none": None}, table=self.DEVICE)
        with pytest.raises(tv.StateError, match=r"a `count` in `queue`.* - at dev#0/more\[1\]/count"):
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


def made(annotations: dict[str, Any], *bases: type, slots: Any = None, **members: Any) -> Callable[[], object]:
    """A class `Broken` of annotations, members and bases, under @vmstate."""
    body = {"__annotations__": annotations, "__module__": __name__, **members}
    if slots is not None:
        body["__slots__"] = slots
    return lambda: tv.vmstate(type("Broken", bases, dict(body)))


class Mixin:
    culprit: tv.uint8 = 0


class Specified:
    culprit = tv.field(default=0)


@tv.vmstate
class Declared:
    culprit: tv.uint8 = 0
    irq: int = tv.transient(default=0)


class Between(Declared):
    culprit = 3


def listed(*fields: Field, **more: Any) -> Callable[[], object]:
    return lambda: Table("Broken", fields, **more)


class Asking:
    def __init_subclass__(cls, *, wanted: int = 0) -> None:
        if "__slots__" in vars(cls):
            raise TypeError("missing 'wanted'")


class Pair(NamedTuple):
    x: tv.uint8


async def waits(_state: object) -> None:
    """A hook that nobody awaits."""


class Color(enum.IntEnum):
    RED = 1


ANY: Any = None
ANY_TEXT: Any = "x"
ANY_TRANSIENT: Any = tv.transient
ANY_VMSTATE: Any = tv.vmstate


def renamed(make: Callable[[], object], culprit: str) -> Callable[[], object]:
    """The same, where the culprit has to be called otherwise."""
    make.culprit = culprit  # type: ignore[attr-defined]
    return make


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
    (declared(Annotated[bytes, Length(-1)], default=b""), "a length of 0 to 2\\*\\*63-1, got -1"),
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
    # what has no annotation, or one that is no field's
    (made({}, culprit=tv.field(default=12)), r"an annotation beside it: `culprit: uint32 = tv.field\(...\)`, got none"),
    (made({}, culprit=tv.transient(default=12)), r"an annotation beside it: `culprit: uint32 = tv.field\(...\)`, got none"),
    (made({}, culprit=dataclasses.field(default=12)), "an annotation beside it: `culprit: uint32 = tv.field"),
    (made({}, culprit=attrs.field(default=12)), "an annotation beside it: `culprit: uint32 = tv.field"),
    (made({"culprit": ClassVar[int]}, culprit=tv.field(default=12)), "an annotation beside it: .*, got a ClassVar"),
    (made({}, Declared, culprit=tv.field(default=12)), "an annotation beside it: .*, got none"),
    (made({"culprit": tv.uint8}, culprit=dataclasses.field(default=12)), "`tv.field` or `tv.transient`, got `dataclasses.field`"),
    (made({"culprit": tv.uint8}, culprit=(tv.field(default=1),)), r"a default: `uint8`, got \(tv.field\(...\),\)"),
    (made({"culprit": tv.uint8}, culprit=lambda: 1), "a default: `uint8`, got <function"),
    (declared(dataclasses.InitVar[tv.uint8], default=0), "what only the constructor needs is no state"),
    (declared(dataclasses.KW_ONLY, default=0), "KW_ONLY is not needed"),
    (declared(Final[tv.uint8], default=0), "a load assigns every field, so none is Final"),
    (declared(Annotated[ClassVar[int], 1], default=0), "ClassVar stands outside of Annotated"),
    # what a base has
    (made({}, Mixin), "@vmstate on `Mixin` too, which has a field, got none"),
    (made({}, Specified), "@vmstate on `Specified` too, which has a field, got none"),
    (made({}, Declared, culprit=13), "an annotation beside `culprit`, as it is a field of a base, got 13 in its place"),
    (made({"x": tv.uint8}, Between, x=1), "an annotation beside `culprit`, as it is a field of a base, got 3 in its place"),
    (made({}, Declared, culprit=lambda _: 13), "as it is a field of a base, got <function .* in its place"),
    (made({}, Declared, culprit=property(lambda _: 13)), "as it is a field of a base, got <property .* in its place"),
    (made({"culprit": ClassVar[int]}, Declared, culprit=13), "as it is a field of a base, got 13 in its place"),
    (made({"culprit": ClassVar[int]}, Declared), "as it is a field of a base, got <member .* in its place"),
    # attributes
    *(
        (renamed(made({hook: tv.uint8}, **{hook: 0}), hook), f"another attribute for it .*, got `{hook}`, which is a hook")
        for hook in ("check", "pre_save", "post_load")
    ),
    (renamed(made({"check": Any}, check=tv.transient(default=None)), "check"), "another attribute for it .*, got `check`"),
    (renamed(made({"_Broken__x": tv.uint8}), "_Broken__x"), "one underscore, or a name= for the snapshot"),
    (renamed(made({"__class__": tv.uint8}), "__class__"), "an attribute that can be assigned, got `__class__`"),
    (renamed(made({"__x": tv.uint8}), "__x"), "an attribute that can be assigned, got `__x`"),
    (renamed(made({"__weakref__": tv.uint8}), "__weakref__"), "an attribute that can be assigned, got `__weakref__`"),
    (renamed(made({"def": tv.uint8}), "def"), "an attribute that can be assigned, got `def`"),
    (renamed(made({"a b": tv.uint8}), "a b"), "an attribute that can be assigned, got `a b`"),
    # keywords
    (declared(tv.uint8, defualt=1), r"a keyword of tv.field, got `defualt` \(did you mean `default`\?\)"),
    (declared(tv.uint8, attribute="x"), "a keyword of tv.field, got `attribute`"),
    (made({"culprit": int}, culprit=ANY_TRANSIENT(defualt=1)), r"a keyword of tv.transient, got `defualt` \(did you mean"),
    (made({"culprit": int}, culprit=ANY_TRANSIENT(default=1, default_factory=int)), "default or default_factory, got both"),
    (made({"culprit": Any}, culprit=tv.transient(default=[])), "a default_factory for what can be changed in place"),
    # names
    (declared(tv.uint8, default=0, name=""), "a name of 1 to 255 bytes of UTF-8, got ''"),
    (declared(tv.uint8, default=0, name="é" * 128), "a name of 1 to 255 bytes of UTF-8, got"),
    (declared(tv.uint8, default=0, name="\ud800"), r"a name of 1 to 255 bytes of UTF-8, got '\\ud800'"),
    (declared(tv.uint8, default=0, name=3), "a name of 1 to 255 bytes of UTF-8, got 3"),
    # bounds
    *(
        (declared(Annotated[kind, mark]), words)
        for kind, mark, words in [
            (tv.uint8, annotated_types.Ge(ANY), "a whole number in Ge on `uint8`, got nothing"),
            (tv.uint8, annotated_types.Ge(ANY_TEXT), "a whole number in Ge on `uint8`, got 'x'"),
            (tv.uint8, annotated_types.Ge(True), "a whole number in Ge on `uint8`, got True"),
            (tv.uint8, annotated_types.Le(1.5), "a whole number in Le on `uint8`, got 1.5"),
            (tv.float32, annotated_types.Le(float("nan")), "a number in Le on `float32`, got nan"),
            (tv.float32, annotated_types.Le(ANY_TEXT), "a number in Le on `float32`, got 'x'"),
            (tv.uint8, annotated_types.MultipleOf(0), "a number above 0 in MultipleOf, got 0"),
            (tv.float64, annotated_types.MultipleOf(-1.5), "a number above 0 in MultipleOf, got -1.5"),
            (tv.uint8, tv.Mask(-1), "bits of `uint8` in Mask, got -1"),
            (tv.int8, tv.Mask(256), "bits of `int8` in Mask, got 256"),
            (tv.uint8, tv.Mask(ANY_TEXT), "a whole number in Mask on `uint8`, got 'x'"),
            (tv.uint8, annotated_types.Ge(256), "bounds that some `uint8` meets, got none that does"),
            (tv.int8, annotated_types.Lt(-128), "bounds that some `int8` meets, got none that does"),
            (tv.float32, annotated_types.Interval(ge=2.5, le=2), "bounds that some `float32` meets, got none that does"),
            (tv.uint8, annotated_types.Interval(gt=3, lt=4), "bounds that some `uint8` meets, got none that does"),
            (tv.uint8, annotated_types.Predicate(ANY), "a function of a value in Predicate, got nothing"),
            (tv.uint8, annotated_types.Ge, r"Ge\(...\) with what it bounds by, got the class `Ge`"),
        ]
    ),
    # dimensions
    (
        declared(Annotated[NDArray[np.uint8], MaxLength(8)], default_factory=lambda: np.zeros((2, 2), np.uint8)),
        r"a default: `uint8\[up to 8\]` in one dimension, got the dimensions \(2, 2\)",
    ),
    (
        declared(Annotated[list[tv.uint8], Length(4)], default_factory=lambda: np.zeros((2, 2), np.uint8)),
        r"a default: `uint8\[4\]` in one dimension, got the dimensions \(2, 2\)",
    ),
    (
        declared(Annotated[NDArray[np.uint8], Length(5)], default_factory=lambda: np.zeros((2, 2), np.uint8)),
        r"a default: `uint8\[5\]`, got 4 elements",
    ),
    (
        declared(Annotated[NDArray[np.uint16], Length(4)], default_factory=lambda: np.zeros(4, ">u2")),
        r"a default: `uint16\[4\]`, got array\(\[0, 0, 0, 0\], dtype='>u2'\)",
    ),
    # the rest
    (declared(tv.uint8, default=0, since=ANY_TEXT), "a number as `since`, got 'x'"),
    (declared(tv.uint8, default=0, until=ANY_TEXT), "a number as `until`, got 'x'"),
    (declared(tv.uint8, default=0, versions=ANY_TEXT), "a mask of versions as `versions`, got 'x'"),
    (declared(tv.uint8, default=0, description=3), "text as `description`, got 3"),
    (declared(tv.uint8, default=0, untagged=3), "an `Untagged` as `untagged`, got 3"),
    (declared(tv.uint8, default=0, aliases=None), "a tuple of names as `aliases`, got nothing"),
    (declared(tv.uint16, default=0, widens_from=tv.uint8), "a tuple of types as `widens_from`, got typing.Annotated"),
    (declared(tv.uint8, default=0, aliases=("\ud800",)), "a name of 1 to 255 bytes of UTF-8"),
    (declared(tv.uint16, default=0, widens_from=(tv.uint32,)), "types narrower than `uint16` in widens_from, got `uint32`"),
    (declared(tv.uint16, default=0, widens_from=(tv.int8,)), "types narrower than `uint16` in widens_from, got `int8`"),
    (declared(tv.float32, default=0.0, widens_from=(tv.uint32,)), "types narrower than `float32`"),
    (declared(tv.float32, default=0.0, widens_from=(tv.float64,)), "types narrower than `float32` in widens_from, got `float64`"),
    (declared(tv.uint8, default=0, aliases="abc"), "aliases as a tuple of names, got the string 'abc'"),
    (declared(tv.uint8, default=0, aliases=("",)), "a name of 1 to 255 bytes of UTF-8"),
    (declared(tv.uint8, default=0, aliases=("n" * 256,)), "a name of 1 to 255 bytes of UTF-8"),
    (declared(tv.uint8, default=0, display="octal"), "a display of hex, flags or an enum, got 'octal'"),
    (declared(tv.uint8, default=0, display=[]), "a display of hex, flags or an enum, got "),
    (declared(str, default="", display="hex"), "a display of integers only, got `string`"),
    (declared(tv.uint8, default=0, display=enum.Enum("Words", {"A": "a"})), "an enum of whole numbers as display, got `Words`"),
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
    with pytest.raises(TableError, match=f"({words}).* - at Broken/{format_name(getattr(make, 'culprit', 'culprit'))}"):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Table("", []), r"a name of 1 to 255 bytes"),
        (lambda: Table("d", [], aliases=("d",)), "each name and alias of a device once.* - at d"),
        (lambda: Table("d", [], version=1, minimum_version=2), "minimum_version and version of 0 to 63"),
        (lambda: Table("d", [ANY]), "a `Field`, got nothing - at d"),
        (lambda: Table("\ud800", []), r"a name of 1 to 255 bytes of UTF-8, got '\\ud800'$"),
        (lambda: Table("d", [], aliases=("\ud800",)), r"a name of 1 to 255 bytes of UTF-8, got '\\ud800' - at d$"),
        (lambda: Field("", tv.uint8), "a name of 1 to 255 bytes of UTF-8, got ''$"),
        (lambda: Field("x", tv.uint8, defualt=1), r"a keyword of Field, got `defualt` \(did you mean `default`\?\) - at x$"),  # type: ignore[arg-type]
        (lambda: Table("d", [], verison=1), r"a keyword of Table, got `verison` \(did you mean `version`\?\) - at d$"),  # type: ignore[arg-type]
        (lambda: Table("d", ANY), "a list of `Field` as `fields`, got nothing - at d"),
        (lambda: Table("d", [], state=ANY), "a class as `state`, got nothing - at d"),
        (lambda: Table("d", [], version=ANY), "a number as `version`, got nothing - at d"),
        (lambda: Table("d", [], make=ANY_TEXT), "a function or method as `make`, got 'x' - at d"),
        (lambda: Table("d", [], check=ANY_TEXT), "a function or method as `check`, got 'x' - at d"),
        (
            lambda: Table("d", [], post_load=waits),
            "a plain function as `post_load`.*, got one that is async or has a yield - at d",
        ),
        (made({}, check=3), "a function or method as `check`, got 3 - at Broken"),
        (made({}, post_load=waits), "a plain function as `post_load`.* - at Broken"),
        (
            lambda: ANY_VMSTATE("d", verison=1)(Plain),
            r"a keyword of @vmstate, got `verison` \(did you mean `version`\?\) - at Plain",
        ),
        (lambda: tv.vmstate("")(type("Plain", (), {})), "a name of 1 to 255 bytes of UTF-8, got '' - at Plain"),
        (lambda: tv.vmstate("d")(ANY), "a class under @vmstate, got nothing"),
        (made({"x": tv.uint8}, int), "a class that holds nothing but its attributes, got a subclass of `int` - at Broken"),
        (made({"x": tv.uint8}, dict), "a class that holds nothing but its attributes, got a subclass of `dict` - at Broken"),
        (lambda: tv.vmstate(Color), "a class that holds nothing but its attributes, got a subclass of `enum` - at Color"),
        (lambda: tv.vmstate(Pair), "a class that holds nothing but its attributes, got a subclass of `tuple` - at Pair"),
        (lambda: tv.vmstate(Declared), "@vmstate once, got it twice - at Declared"),
        (made({"x": tv.uint8}, Asking, x=0), "a class that can be made again with slots, got .*'wanted' - at Broken"),
        (lambda: tv.vmstate(type("T", (), {"__annotations__": {"x": Any}, "x": tv.transient()})), "a default for a transient"),  # type: ignore[call-overload]
    ],
)
def test_what_is_wrong_with_a_table_is_said_too(make: Callable[[], object], words: str) -> None:
    with pytest.raises(TableError, match=words):
        make()


class TestOtherTools:
    """Classes that dataclasses, attrs or pydantic have made, before and after @vmstate."""

    @pytest.mark.parametrize(
        ("decorate", "words"),
        [
            (attrs.define, "an attrs class"),
            (lambda cls: type(cls.__name__, (), {**vars(cls), "__pydantic_core_schema__": {}}), "a pydantic model"),
        ],
    )
    def test_below_it_and_in_a_base(self, decorate: Callable[[type], type], words: str) -> None:
        chip = decorate(type("Chip", (), {"__annotations__": {"x": int}, "x": 0}))
        found = (
            rf"plain classes, of which @vmstate makes dataclasses, got `Chip`, {words}: leave that out and annotate its fields"
        )
        with pytest.raises(TableError, match=f"{found} for @vmstate - at Chip"):
            tv.vmstate(chip)
        with pytest.raises(TableError, match=f"{found} for @vmstate - at Broken"):
            made({"y": tv.uint8}, chip, y=0)()

    def test_dataclasses(self) -> None:
        plain: type = dataclasses.dataclass(type("Chip", (), {"__annotations__": {"bus": int}, "bus": 3}))
        with pytest.raises(TableError, match="got `Chip`, a dataclass: leave that out and annotate its fields for @vmstate"):
            tv.vmstate(plain)
        chip: Any = made({"y": tv.uint8}, plain, y=0)()
        assert (tv.loads(tv.dumps(chip(y=2, bus=4)), chip).y, chip(y=2).bus) == (2, 3)
        marked: type = dataclasses.dataclass(type("Marked", (), {"__annotations__": {"x": tv.uint8}, "x": 3}))
        with pytest.raises(TableError, match="@vmstate on `Marked` too, which has a field, got none - at Broken/x"):
            made({"y": tv.uint8}, marked, y=0)()

    def test_above_it(self) -> None:
        def declared_first() -> type:
            return tv.vmstate(type("Chip", (), {"__annotations__": {"x": tv.uint8}, "__module__": __name__, "x": 0}))

        words = r"@vmstate as what makes `Chip`, got another decorator above it \(dataclass, attrs, pydantic\): leave that out"
        with pytest.raises((TableError, RuntimeError)) as caught:
            attrs.define(declared_first())
        error = caught.value.__cause__ or caught.value  # before Python 3.12 what __set_name__ raises is wrapped
        assert isinstance(error, TableError)
        assert re.search(words, str(error))
        Chip: Any = dataclasses.dataclass(declared_first())  # noqa: N806  # a class
        with pytest.raises(TableError, match=words):
            tv.dumps(Chip(x=1))
        with pytest.raises(TableError, match=words):
            tv.Machine([Chip(x=1)])
        with pytest.raises(TableError, match=f"{words} - at Broken/chip"):
            made({"chip": Chip}, chip=tv.field(default_factory=Chip))()


@pytest.mark.parametrize("predicate", [functools.partial(max, -1), lambda value: value < 5, bool, lambda value: 1 / value])
def test_a_predicate_needs_no_name_and_may_raise(predicate: Callable[[Any], Any]) -> None:
    table = Table("d", [Field("x", Annotated[tv.uint8, annotated_types.Predicate(predicate)])])
    for value in (3, 0, 9):
        try:
            is_met = bool(predicate(value))
        except ZeroDivisionError:
            is_met = False
        if is_met:
            assert tv.load(tv.dumps({"x": value}, table=table), table) == {"x": value}
        else:
            with pytest.raises(tv.StateError, match=f"`uint8` that meets .*, got {value} - at d#0/x"):
                tv.dumps({"x": value}, table=table)


def test_a_bound_may_be_any_whole_number() -> None:
    [bound] = Field("x", Annotated[tv.uint8, annotated_types.Le(np.int64(3))]).type.constraints  # type: ignore[arg-type]
    assert type(bound.bound) is int


def test_a_name_with_two_underscores_may_be_given_another() -> None:
    @tv.vmstate
    class Hidden:
        __x: tv.uint8 = tv.field(default=1, name="x")  # pyright: ignore[reportGeneralTypeIssues]  # what is tested

    assert [field.name for field in table_of(Hidden).fields] == ["x"]


def test_a_table_by_hand_has_its_hooks_beside_the_fields() -> None:
    table = Table("d", [Field("check", tv.uint8, default=0), Field("post_load", tv.uint8, default=0)])
    assert tv.load(tv.dumps({"check": 3, "post_load": 4}, table=table), table) == {"check": 3, "post_load": 4}


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
