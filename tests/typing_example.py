"""Every kind of field, as mypy --strict and pyright see it: `test_typing` runs both over this file, and `test_tables` runs it.

A line that must not pass carries an ignore; both tools complain about one that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias, assert_type

import numpy as np
from annotated_types import Ge, Interval, Le, MultipleOf
from numpy.typing import NDArray

import tagged_vmstate as tv
from tagged_vmstate import Length, Mask, MaxLength

if TYPE_CHECKING:
    IntArray: TypeAlias = array[int]
else:
    IntArray = array  # before Python 3.12 it takes no subscript


class Mode(enum.IntEnum):
    IDLE = 0
    BUSY = 1


@tv.vmstate
class Queue:
    data: Annotated[bytes, Length(16)] = bytes(16)
    rptr: Annotated[tv.int32, Interval(ge=0, lt=16)] = 0
    count: Annotated[tv.int32, Ge(0), Le(16)] = 0

    def check(self) -> None:
        if self.rptr > len(self.data):
            raise ValueError("rptr lies beyond the data")


@tv.vmstate("everything", aliases=("all-of-it",), version=4, minimum_version=2, description="One field of each kind.")
class Everything:
    required: tv.uint32
    flag: tv.boolean = True
    plain_flag: bool = False
    i8: tv.int8 = -1
    i16: tv.int16 = -1
    i32: tv.int32 = -1
    i64: tv.int64 = -1
    u8: tv.uint8 = 1
    u16: tv.uint16 = 1
    u32: tv.uint32 = tv.field(default=1, widens_from=(tv.uint8, tv.uint16), display="hex")
    u64: tv.uint64 = 1
    f32: tv.float32 = 0.5
    f64: tv.float64 = 0.5
    deadline: tv.timer = -1
    mode: Annotated[Mode, tv.uint8] = Mode.IDLE
    masked: Annotated[tv.uint8, Mask(0x0F)] = 0
    step: Annotated[tv.uint16, MultipleOf(4)] = tv.field(default=0, display=Mode, since=3, until=4)
    text: str = ""
    buffer: Annotated[bytes, Length(4)] = bytes(4)
    writable: Annotated[bytearray, Length(4)] = tv.field(default_factory=lambda: bytearray(4))
    packet: Annotated[bytes, MaxLength(64)] = b""
    bits: Annotated[tv.bitmap, Length(12)] = bytes(2)
    memory: Annotated[tv.sparse, Length(1 << 16)] = tv.field(default_factory=lambda: bytearray(1 << 16))
    numbers: Annotated[list[tv.uint32], Length(3)] = tv.field(default_factory=lambda: [0, 0, 0])
    few: Annotated[list[tv.int16], MaxLength(8)] = tv.field(default_factory=list)
    fixed: Annotated[tuple[tv.uint8, ...], Length(2)] = (0, 0)
    modes: Annotated[list[Annotated[Mode, tv.uint8]], Length(2)] = tv.field(default_factory=lambda: [Mode.IDLE] * 2)
    flags: Annotated[list[bool], Length(2)] = tv.field(default_factory=lambda: [False, False])
    words: Annotated[list[str], MaxLength(4)] = tv.field(default_factory=list)
    packed: Annotated[IntArray, tv.uint16, Length(4)] = tv.field(default_factory=lambda: array("H", bytes(8)))
    floats: Annotated[NDArray[np.float32], Length(4)] = tv.field(default_factory=lambda: np.zeros(4, np.float32))
    registers: Annotated[NDArray[np.uint32], MaxLength(8)] = tv.field(default_factory=lambda: np.zeros(0, np.uint32))
    queue: Queue = tv.field(name="parent.queue", default_factory=Queue, aliases=("q",))
    msix: Queue | None = None
    queues: Annotated[list[Queue], Length(2)] = tv.field(default_factory=lambda: [Queue(), Queue()])
    slots: Annotated[list[Queue | None], MaxLength(4)] = tv.field(default_factory=list)
    raise_irq: Callable[[int], None] | None = tv.transient(default=None)


@tv.vmstate("everything-more")
class More(Everything):
    extra: tv.uint8 = tv.field(default=0, versions=0b10)

    def post_load(self) -> None:
        self.extra |= 0x80


def revealed() -> Everything:
    """What the type checkers know."""
    state = Everything(required=7)
    assert_type(state.required, int)
    assert_type(state.flag, bool)
    assert_type(state.f32, float)
    assert_type(state.mode, Mode)
    assert_type(state.buffer, bytes)
    assert_type(state.memory, bytearray)
    assert_type(state.numbers, list[int])
    assert_type(state.fixed, tuple[int, ...])
    assert_type(state.modes, list[Mode])
    assert_type(state.words, list[str])
    assert_type(state.packed, IntArray)
    assert_type(state.floats, NDArray[np.float32])
    assert_type(state.queue, Queue)
    assert_type(state.msix, Queue | None)
    assert_type(state.slots, list[Queue | None])
    assert_type(tv.loads(tv.dumps(state), Everything), Everything)
    assert_type(tv.load(tv.dumps(state), into=state), Everything)
    assert_type(More(required=1).extra, int)
    assert_type(tv.Machine([state]).check(tv.dumps(state)).problems, tuple[tv.Finding, ...])
    return state


def refused() -> None:
    """What the type checkers refuse."""
    Everything()  # type: ignore[call-arg]  # required
    Everything(7)  # type: ignore[call-arg]  # keyword-only
    Everything(required="7")  # type: ignore[arg-type]
    Everything(required=1, mode=1)  # type: ignore[arg-type]
    Everything(required=1).scan_enabled = 1  # type: ignore[attr-defined]
    tv.field(defualt=1)  # type: ignore[call-overload]
    tv.transient(defualt=1)  # type: ignore[call-overload]
    tv.Field("x", tv.uint8, defualt=1)  # type: ignore[arg-type]
    tv.Table("x", [], verison=1)  # type: ignore[arg-type]
