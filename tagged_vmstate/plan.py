"""Machines that are saved and loaded again and again: what their snapshots look like.

`snapshot`, `incoming` and `codec` are what saving and loading mean. A plan gives the same sooner or gives nothing, and learns
from what went the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import call
from typing import Any, Final

from tagged_vmstate.assign import New
from tagged_vmstate.devices import is_instance
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.frames import VERSION, Header, Lead, label
from tagged_vmstate.prepared import TABLES, Patience, prepared
from tagged_vmstate.sections import NO_ATTRIBUTES
from tagged_vmstate.skeleton import Skeleton
from tagged_vmstate.snapshot import PART_BYTES, Snapshot
from tagged_vmstate.table import Field, Table
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import Opaque

SMALL: Final = 1 << 20
"""Bytes of a snapshot that is handled as a whole; a larger one is streamed."""
PLAIN: Final = Opaque.of({"producer": PRODUCER})
"""What stands in a header of which nobody said anything."""
_PLAIN_HEADER: Final = Header(VERSION, PLAIN).encode()
SKELETONS: Final = 4
"""Writers whose snapshots of one machine are remembered."""


class Plan:
    """What snapshots of a machine look like by now.

    Args:
        places: The table and the instance of each device.
    """

    def __init__(self, places: tuple[tuple[Table, int], ...]) -> None:
        self._places = places
        self._prepared = [prepared(table) for table, _ in places]
        self._savers = [each.save for each in self._prepared]
        self._sizes: Sequence[int] = ()
        self._saved: Skeleton | None = None
        self._has_parts = any(large_memory(table) for table, _ in places)
        self._saves = Patience()
        self._loaded: list[tuple[bytes, Skeleton, Sequence[int]]] = []
        self._loads = Patience()

    def save(self, attributes: Opaque, states: Sequence[Any]) -> bytes | None:
        """A snapshot of states, in the order of the devices; None where their sizes are not as before, or one does not fit."""
        if self._saved is None:
            return None
        try:
            payloads = [*map(call, self._savers, states)]
        except StateError:
            return None
        if [*map(len, payloads)] == self._sizes:
            return self._saved.pack(header_of(attributes), payloads)
        self._saved = None
        return None

    def saved(self, sizes: Sequence[int]) -> None:
        """Learn from the sizes of each device's fields, which were saved."""
        if not self._has_parts and sum(sizes) <= SMALL and self._saves.is_over():
            leads = [Lead.of("section", table.name, instance, NO_ATTRIBUTES) for table, instance in self._places]
            self._sizes = sizes
            self._saved = Skeleton(leads, sizes)

    def load(self, data: bytes) -> list[New] | None:
        """New states of the devices; None where the snapshot is not as earlier ones were."""
        for header, skeleton, order in self._loaded:
            payloads = skeleton.unpack(header, data)
            if payloads is not None:
                return self._new(payloads, order)
        return None

    def _new(self, payloads: Sequence[bytes], order: Sequence[int]) -> list[New] | None:
        found: list[New] = []
        for each, place in zip(self._prepared, order, strict=True):
            new = each.load(payloads[place], whole=False)
            if new is None:
                return None
            found.append(new)
        return found

    def loaded(self, data: bytes) -> None:
        """Learn from a snapshot that was loaded."""
        if len(data) <= SMALL and self._loads.is_over():
            try:
                self._learn(Snapshot.read(data))
            except FormatError:
                return  # of another format

    def _learn(self, snapshot: Snapshot) -> None:
        sections = list(snapshot)
        found = {section.label: place for place, section in enumerate(sections) if section.kind == "section"}
        names = [[label(name, number) for name in (table.name, *table.aliases)] for table, number in self._places]
        order = [found[name] for each in names for name in each if name in found]
        if len(order) == len(self._places) == len(sections):
            header = Header(snapshot.version, snapshot.raw_attributes).encode()
            skeleton = Skeleton([section.lead for section in sections], [section.size for section in sections])
            self._loaded = [(header, skeleton, order), *self._loaded[: SKELETONS - 1]]


@lru_cache(TABLES)
def large_memory(table: Table) -> tuple[Field, ...]:
    """The memory of a device that goes into parts of its section."""
    return tuple(each for each in table.fields if each.type.wire.name == "sparse" and (each.type.length or 0) > PART_BYTES)


def header_of(attributes: Opaque) -> bytes:
    """The bytes of a header."""
    return _PLAIN_HEADER if attributes is PLAIN else Header(VERSION, attributes).encode()


@lru_cache(TABLES)
def plan(places: tuple[tuple[Table, int], ...]) -> Plan:
    """What snapshots of a machine look like by now."""
    return Plan(places)


def _plan_of(kind: type, instance: int) -> Plan | None:
    table = vars(kind).get("__vmstate__")
    if not isinstance(table, Table) or table.is_hooked or not is_instance(instance):
        return None
    return plan(((table, instance),))


plan_of: Final[Callable[[type, int], Plan | None]] = lru_cache(TABLES, typed=True)(_plan_of)
"""The plan of one device whose class is under `@vmstate` and has no hooks; None for anything else."""
