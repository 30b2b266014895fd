"""The devices of a machine: states, each with its table and instance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tagged_vmstate.annotations import declared_table
from tagged_vmstate.errors import TableError
from tagged_vmstate.frames import label
from tagged_vmstate.table import Table
from tagged_vmstate.wiretype import brief


def table_of(state: object) -> Table:
    """The table of a state, or of its class. Raises TableError where it has none."""
    kind = state if isinstance(state, type) else type(state)
    found = state if isinstance(state, Table) else declared_table(kind)
    if not isinstance(found, Table):
        raise TableError("a class under @vmstate, or a table beside the state", brief(state))
    return found


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a machine.

    Attributes:
        state: What is saved and loaded.
        instance: Which of several of one name.
        table: Its table, where its class has none.
    """

    state: Any
    instance: int = 0
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A device whose table is known; a state of None is one to be made."""

    table: Table
    instance: int
    state: Any

    @property
    def label(self) -> str:
        """``device#instance``."""
        return label(self.table.name, self.instance)


def entry_of(device: Any) -> Entry:
    """What a caller named: a state, (state, instance) or a `Device`. Raises TableError."""
    if isinstance(device, tuple) and len(device) == 2:
        device = Device(*device)
    elif not isinstance(device, Device):
        device = Device(device)
    check_instance(device.instance)
    table = device.table or table_of(device.state)
    if not table.is_state(device.state):
        raise TableError(f"a state of `{table.owner}`", brief(device.state))
    return Entry(table, device.instance, device.state)


def is_instance(number: object) -> bool:
    """Whether it can tell several devices of one name apart."""
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 32


def check_instance(number: object) -> None:
    """Raise TableError where it cannot."""
    if not is_instance(number):
        raise TableError("an instance of 0 to 2**32-1 beside the state", brief(number))


def check_apart(entries: Iterable[Entry]) -> None:
    """Raise TableError where two devices could be taken for each other."""
    names: dict[str, Table] = {}
    labels: set[str] = set()
    states: set[int] = set()
    for entry in entries:
        for name in (entry.table.name, *entry.table.aliases):
            if names.setdefault(name, entry.table) is not entry.table:
                raise TableError("each name and alias of a device once over all tables", f"`{name}` again")
        if entry.label in labels:
            raise TableError("each device with an instance of its own: (state, instance)", f"{entry.label} again")
        if id(entry.state) in states:
            raise TableError("each state once", f"one again, as {entry.label}")
        labels.add(entry.label)
        states.add(id(entry.state))
