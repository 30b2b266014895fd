"""States that change while they are saved: what is written can be loaded, or the save names the field and leaves the old file."""

from __future__ import annotations

import io
import mmap
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from annotated_types import Le, Predicate
from numpy.typing import NDArray

import tagged_vmstate as tv
from tagged_vmstate import Device, Field, Length, MaxLength, Record, Section, SnapshotWriter, StateError, Table
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.wiretype import brief

pytestmark = pytest.mark.usefixtures("path")

COUNT = 1 << 17
"""Elements: enough for a piece of its own."""


class Changing(io.BytesIO):
    """A file at whose every write the state changes, as a thread may change it."""

    def __init__(self, change: Callable[[], None]) -> None:
        super().__init__()
        self.change = change

    def write(self, data: Any) -> int:
        self.change()
        found = super().write(data)
        self.change()
        return found


def _set(held: Any, value: Any) -> Callable[[], None]:
    def change() -> None:
        held[0] = held[len(held) // 2] = held[-1] = value

    return change


def _fields() -> dict[str, tuple[Any, Any, Callable[[], None]]]:
    buffer, bits, memory, large = bytearray(COUNT), bytearray(COUNT // 8), bytearray(COUNT), bytearray(9 << 20)
    view, numbers, floats, flags = memoryview(bytearray(COUNT)), array("I", bytes(4 * COUNT)), np.zeros(COUNT), [False] * COUNT
    booleans, bounded, listed, grown = np.zeros(COUNT, np.bool_), np.zeros(COUNT, np.uint8), [0] * COUNT, [0] * 5
    words, strided = [""] * COUNT, np.zeros((COUNT, 2), np.uint16)
    return {
        "bytearray": (Annotated[bytearray, Length(COUNT)], buffer, _set(buffer, 7)),
        "view": (Annotated[bytearray, Length(COUNT)], view, _set(view, 7)),
        "resized": (Annotated[bytearray, MaxLength(2 * COUNT)], (held := bytearray(COUNT)), lambda: held.append(1)),
        "bitmap": (Annotated[tv.bitmap, Length(COUNT - 3)], bits, _set(bits, 0xFF)),
        "sparse": (Annotated[tv.sparse, Length(COUNT)], memory, _set(memory, 7)),
        "parts": (Annotated[tv.sparse, Length(9 << 20)], large, _set(large, 7)),
        "array": (Annotated[array, tv.uint32, Length(COUNT)], numbers, _set(numbers, 7)),
        "numpy": (Annotated[NDArray[np.float64], Length(COUNT)], floats, _set(floats, np.nan)),
        "booleans": (Annotated[NDArray[np.bool_], Length(COUNT)], booleans, _set(booleans.view(np.uint8), 2)),
        "bounded": (Annotated[NDArray[np.uint8], Length(COUNT), Le(6)], bounded, _set(bounded, 7)),
        "strided": (Annotated[NDArray[np.uint16], Length(COUNT)], strided[:, 0], _set(strided, 7)),
        "list": (Annotated[list[tv.uint8], Length(COUNT)], listed, _set(listed, 999)),
        "flags": (Annotated[list[bool], Length(COUNT)], flags, _set(flags, None)),
        "grown": (Annotated[list[tv.uint8], MaxLength(9)], grown, lambda: grown.append(1)),
        "words": (Annotated[list[str], MaxLength(COUNT)], words, words.clear),
    }


@pytest.mark.parametrize("name", [*_fields()])
def test_what_is_written_is_what_was_checked(name: str) -> None:
    annotation, value, change = _fields()[name]
    table = Table("d", [Field("before", tv.uint8, default=1), Field("f", annotation), Field("after", tv.uint8, default=1)])
    state = {"before": 1, "f": value, "after": 1}
    for _ in range(2):
        file = Changing(change)
        try:
            tv.Machine([Device(state, table=table)]).save(file)
        except StateError as error:
            assert "f" in error.path  # noqa: PT017  # from the second save on, the state is wrong before it is saved
            continue
        assert set(tv.load(file.getvalue(), table)) == {"before", "f", "after"}


@pytest.mark.parametrize("kind", ["uint8", "bool"])
def test_what_a_constraint_sees_is_what_is_written(kind: str) -> None:
    """A predicate stands for a thread here: it changes what it has been asked about."""
    held: list[Any] = [0] * 9 if kind == "uint8" else [False] * 9

    def is_fine(value: Any) -> bool:
        held[:] = [3] * 20
        return bool(value == 0)

    element: Any = tv.uint8 if kind == "uint8" else bool
    table = Table("d", [Field("f", Annotated[list[element], MaxLength(9), Predicate(is_fine)], default_factory=list)])
    data = tv.dumps({"f": held}, table=table)
    assert list(tv.load(data, table)["f"]) == [0] * 9


@tv.vmstate("fifo")
class Fifo:
    data: Annotated[list[tv.uint8], MaxLength(9)] = tv.field(default_factory=list)
    raw: Annotated[bytearray, Length(4)] = tv.field(default_factory=lambda: bytearray(4))
    count: tv.uint8 = 0
    others: list[Any] = tv.transient(default_factory=list)

    def check(self) -> None:
        if self.count != len(self.data) or self.raw[0] != self.count:
            raise ValueError("a count that is not that of the data")
        for other in self.others:
            other.count, other.raw[0] = 9, 1
            other.data.append(1)


@tv.vmstate("board")
class Board:
    fifos: Annotated[list[Fifo], MaxLength(2)] = tv.field(default_factory=list)
    inner: Fifo = tv.field(default_factory=Fifo)


def test_what_check_sees_is_what_is_written() -> None:
    fifo = Fifo(data=[5], raw=bytearray(b"\1abc"), count=1)
    fifo.others.append(fifo)
    data = tv.dumps(Board(fifos=[fifo], inner=fifo))
    assert fifo.count == 9
    found = tv.loads(data, Board)
    assert [each.data for each in (*found.fifos, found.inner)] == [[5], [5]]


def test_a_section_is_written_as_it_was_checked() -> None:
    buffer, numbers, flags = bytearray(COUNT), array("H", bytes(2 * COUNT)), bytearray(COUNT)
    runs: Any = [(0, bytearray(b"abc")), (9, b"x")]
    inner: Any = [Record("x", "buffer", COUNT, buffer)]
    records = [
        Record("buffer", "buffer", COUNT, buffer),
        Record("numbers", "uint16", COUNT, numbers),
        Record("flags", "bool", COUNT, memoryview(flags).cast("?")),
        Record("memory", "sparse", 99, runs),
        Record("inner", "struct", None, inner),
    ]

    def change() -> None:
        buffer[5], numbers[5], flags[5] = 7, 7, 2
        runs.reverse()
        inner.clear()

    file = Changing(lambda: None)
    with SnapshotWriter(file) as writer:
        file.change = change
        writer.write(Section("d", 0, records))
        file.change = lambda: None
    assert [len(section.records()) for section in Snapshot.read(file.getvalue())] == [5]


def test_the_flag_of_memory_in_parts_is_that_of_the_bytes_that_are_written() -> None:
    memory = bytearray(9 << 20)
    table = Table("d", [Field("f", Annotated[tv.sparse, Length(9 << 20)], default_factory=lambda: bytearray(9 << 20))])
    file = Changing(lambda: memory.__setitem__(-1, 7))
    memory[0] = 1  # so that there is a part to write before the last changes
    tv.Machine([Device({"f": memory}, table=table)]).save(file)
    flags = [record.is_default for section in Snapshot.read(file.getvalue()) for record in section.records()]
    assert flags == [False, False]
    assert tv.load(file.getvalue(), table)["f"][-1] == 7


def test_memory_that_is_zero_where_its_default_is_not_is_written() -> None:
    default = b"\1" * (9 << 20)
    table = Table("d", [Field("f", Annotated[tv.sparse, Length(9 << 20)], default_factory=lambda: bytearray(default))])
    for state in (bytearray(9 << 20), bytearray(default[:-1] + b"\2")):
        data = tv.dumps({"f": state}, table=table)
        assert tv.load(data, table)["f"] == state
        assert not all(record.is_default for section in Snapshot.read(data) for record in section.records())


def test_a_refused_state_leaves_the_old_file(tmp_path: Path) -> None:
    table = Table("d", [Field("f", Annotated[list[tv.uint8], Length(3)])])
    state = {"f": [1, 2, 3]}
    machine = tv.Machine([Device(state, table=table)])
    machine.save(tmp_path / "vm.tvm")
    state["f"].append(4)
    with pytest.raises(StateError, match=r"expected `uint8\[3\]`, got 4 elements - at d#0/f"):
        machine.save(tmp_path / "vm.tvm")
    assert [path.name for path in tmp_path.iterdir()] == ["vm.tvm"]
    assert tv.load(tmp_path / "vm.tvm", table) == {"f": [1, 2, 3]}


def test_a_released_view_is_named() -> None:
    table = Table("d", [Field("f", Annotated[bytearray, Length(3)]), Field("m", Annotated[tv.sparse, Length(3)])])
    gone = memoryview(bytearray(3))
    gone.release()
    for state, path in (({"f": gone, "m": bytearray(3)}, "f"), ({"f": bytearray(3), "m": gone}, "m")):
        with pytest.raises(StateError, match=f"at d#0/{path}"):
            tv.dumps(state, table=table)


def test_memory_that_is_mapped_is_saved() -> None:
    table = Table("d", [Field("m", Annotated[tv.sparse, Length(mmap.PAGESIZE)])])
    with mmap.mmap(-1, mmap.PAGESIZE) as mapped:
        mapped[5] = 7
        assert tv.load(tv.dumps({"m": mapped}, table=table), table)["m"][5] == 7


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else 0


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"when": object()}, r"an attribute 'when' that MessagePack can hold"),
        ({"fine": 1, "wide": 1 << 64}, r"an attribute 'wide' that MessagePack can hold, got 18446744073709551616"),
        ({"name": "\ud800"}, r"an attribute 'name' that MessagePack can hold"),
        ({"\ud800": 1}, r"an attribute '\\ud800' that MessagePack can hold"),
        ({1: "one"}, r"attributes with strings as names, got 1"),
        ({"deep": _deep(600)}, r"an attribute 'deep' that MessagePack can hold|at most 64 levels of nesting"),
        ({"deep": _deep(65)}, r"at most 64 levels of nesting"),
        ({"long": bytes(1 << 20)}, r"at most 1048576 bytes of attributes"),
    ],
    ids=lambda value: brief(value)[:20],
)
def test_attributes_that_no_reader_takes_are_named(attributes: Any, words: str, tmp_path: Path) -> None:
    @tv.vmstate("d")
    class Device:
        a: tv.uint8 = 0

    machine = tv.Machine([Device()])
    machine.save(tmp_path / "vm.tvm")
    before = (tmp_path / "vm.tvm").read_bytes()
    for _ in range(40):  # a machine that is often saved, too
        machine.save(io.BytesIO())
    with pytest.raises(StateError, match=words):
        machine.save(tmp_path / "vm.tvm", attributes=attributes)
    assert (tmp_path / "vm.tvm").read_bytes() == before
    with pytest.raises(StateError, match=words):
        SnapshotWriter(io.BytesIO(), attributes)
    with pytest.raises(StateError, match=words):
        SnapshotWriter(io.BytesIO()).write(Section("d", 0, [], attributes=attributes))


@pytest.mark.parametrize("raw", [b"\xc0", b"\x80\x80", b"", b"\x81\xa1a"])
def test_attributes_as_bytes_are_one_map(raw: bytes) -> None:
    with pytest.raises(StateError, match="attribute"):
        SnapshotWriter(io.BytesIO(), tv.Opaque(raw))
    with pytest.raises(StateError, match="attribute"):
        SnapshotWriter(io.BytesIO()).write(Section("d", 0, [], attributes=tv.Opaque(raw)))


@tv.vmstate("ram")
class Ram:
    data: Annotated[bytearray, Length(8 * COUNT)] = tv.field(default_factory=lambda: bytearray(8 * COUNT))


def test_a_thread_that_writes_without_pause_spoils_no_file(tmp_path: Path) -> None:
    ram, stop = Ram(), threading.Event()

    def emulate() -> None:
        at = 0
        while not stop.is_set():
            at = (at * 1103515245 + 12345) % len(ram.data)
            ram.data[at] ^= 1

    thread = threading.Thread(target=emulate)
    thread.start()
    try:
        for _ in range(10):
            tv.dump(ram, tmp_path / "ram.tvm")
            assert len(tv.load(tmp_path / "ram.tvm", Ram).data) == len(ram.data)
    finally:
        stop.set()
        thread.join()
