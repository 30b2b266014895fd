"""A load interrupted at a bytecode of one's choice, as ^C may do: row 18 of docs/reliability.md."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Annotated, Any

import test_machine

import tagged_vmstate as tv
from tagged_vmstate import Device, Field, Length, Machine, Table
from tagged_vmstate.assign import all_or_none
from tagged_vmstate.prepared import USES


@tv.vmstate
class Line:
    level: tv.uint8 = 0
    loads: int = tv.transient(default=0)

    def post_load(self) -> None:
        self.loads += 1


@tv.vmstate("pic")
class Pic:
    first: Line = tv.field(default_factory=Line)
    lines: Annotated[list[Line], Length(4)] = tv.field(default_factory=lambda: [Line() for _ in range(4)])
    mask: tv.uint16 = 0
    pending: int = tv.transient(default=0)

    def post_load(self) -> None:
        self.pending = self.mask


UNKNOWN = Table("unknown", [Field("x", tv.uint8)])


def _devices(level: int) -> list[Any]:
    """Objects with slots, structs, an array of structs, hooks; and a dict."""
    table = test_machine.TABLES[0]
    pics = [
        Pic(first=Line(level=level), lines=[Line(level=level + each) for each in range(4)], mask=level + number)
        for number in range(2)
    ]
    return [pics[0], (pics[1], 1), Device(test_machine.big_state(table, level), table=table)]


def _saved(machine: Machine) -> bytes:
    file = io.BytesIO()
    machine.save(file)
    return file.getvalue()


def _whole(state: Any) -> Any:
    """All that a state holds, and what only hooks set."""
    if isinstance(state, list):
        return [_whole(each) for each in state]
    if isinstance(state, Line | Pic):
        table: Table = vars(type(state))["__vmstate__"]
        return [_whole(getattr(state, name, None)) for name in table.attributes]
    return copy.deepcopy(state)


def _everything(machine: Machine) -> Any:
    return [_whole(entry.state) for entry in machine.entries], _saved(machine)


def interrupted(work: Callable[[], object], at: int) -> tuple[bool, int, int]:
    """Do some work, with KeyboardInterrupt raised at its bytecode of a number.

    Returns:
        Whether it was, how many bytecodes ran, and the number of the first one that changes a state.
    """
    count = first = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count, first
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "call" and not first and frame.f_code is all_or_none.__code__:
            first = count
        if event == "opcode":
            count += 1
            if count == at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True, count, first
    finally:
        sys.settrace(before)
    return False, count, first


def interrupt_loads(many: int, step: int) -> str:
    """Interrupt loads at random places, and from where states are changed at every nth bytecode; say how many there were."""
    data = io.BytesIO()
    Machine([*_devices(7), Device({"x": 1}, table=UNKNOWN)]).save(data, {"machine": "theirs"})

    def load(machine: Machine) -> None:
        machine.load(data.getvalue(), unknown="keep")

    for _ in range(4 * USES):
        load(Machine(_devices(3)))  # what is prepared late is there: all loads below run the same bytecodes
    whole = Machine(_devices(3))
    _, last, first = interrupted(lambda: load(whole), 0)
    before, after = _everything(Machine(_devices(3))), _everything(whole)
    assert before != after
    random, loaded = Random(18), 0
    assigning = range(first, last + 1, step)
    places = [random.randrange(1, last + 1) for _ in range(many)] + [*assigning]
    for place in places:
        machine = Machine(_devices(3))
        assert interrupted(lambda machine=machine: load(machine), place)[0], place  # type: ignore[misc]  # bound now
        found = _everything(machine)
        assert found in (before, after), f"half loaded at bytecode {place} of {last}"
        loaded += found == after
    each = "each bytecode" if step == 1 else f"every {step}th bytecode"
    return f"{many} interrupts at random, {len(assigning)} at {each} of the assignment, {loaded} of them after it"
