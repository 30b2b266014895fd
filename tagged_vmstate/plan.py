"""Machines that are saved and loaded again and again: what their snapshots look like.

`snapshot`, `incoming` and `codec` are what saving and loading mean. A plan gives the same sooner or gives nothing, and learns
from what went the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Final, cast

from tagged_vmstate.annotations import declared_table
from tagged_vmstate.assign import New, Undo
from tagged_vmstate.devices import is_instance
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.frames import VERSION, Header, Lead, label
from tagged_vmstate.prepared import TABLES, Loaded, Patience, Prepared, prepared
from tagged_vmstate.qemu.savevm import untagged
from tagged_vmstate.saver import may_be_big
from tagged_vmstate.sections import NO_ATTRIBUTES
from tagged_vmstate.shape import Shape
from tagged_vmstate.skeleton import SECTIONS, Pack, Skeleton, Unpack
from tagged_vmstate.snapshot import HELD_BYTES, PART_BYTES, Snapshot
from tagged_vmstate.straight import compiled
from tagged_vmstate.table import Field, Table
from tagged_vmstate.template import Row
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import APART, Opaque, Piece, joined

PLAIN: Final = Opaque.of({"producer": PRODUCER})
"""What stands in a header of which nobody said anything."""
_PLAIN_HEADER: Final = Header(VERSION, PLAIN).encode()
SKELETONS: Final = 4
"""Writers whose snapshots of one machine are remembered."""


class Rows:
    """New states of several devices, whose structs can all be filled at once.

    Args:
        shapes: The shape of each device.
        rows: Its row.
    """

    def __init__(self, shapes: Sequence[Shape], rows: Sequence[Row]) -> None:
        self._shapes = shapes
        self._rows = rows

    def __iter__(self) -> Iterator[New]:
        return map(Loaded, self._shapes, self._rows)

    def fill(self, targets: Sequence[Any], undo: Undo) -> bool:
        """Put all of them into states that are there; False where they have to be filled one by one."""
        try:
            looks = [shape.look(target) for shape, target in zip(self._shapes, targets, strict=True)]
        except Exception:  # noqa: BLE001  # whatever is odd about a state
            return False

        def back() -> None:
            for shape, (structs, row) in zip(self._shapes, looks, strict=True):
                shape.put(structs, row)

        if not undo.take([*chain.from_iterable(structs for structs, _ in looks)], back):
            return False
        for shape, (structs, _), row in zip(self._shapes, looks, self._rows, strict=True):
            shape.put(structs, row)
        return True


@dataclass(frozen=True, slots=True)
class _Known:
    """Snapshots of one writer.

    Attributes:
        unpack: The fields of each section.
        order: The place of each device in it.
        rows: The rows of the devices of the fields of all sections; None where not all devices are simple.
    """

    unpack: Unpack
    order: Sequence[int]
    rows: Callable[[Sequence[Piece]], Sequence[Row]] | None


class Plan:
    """What snapshots of a machine look like by now.

    Args:
        places: The table and the instance of each device.
    """

    def __init__(self, places: tuple[tuple[Table, int], ...]) -> None:
        self._places = places
        self._prepared = [prepared(table) for table, _ in places]
        self._has_parts = any(large_memory(table) for table, _ in places)
        self._saves = Patience()
        self._saved: tuple[Pack, Callable[[Sequence[Any]], Sequence[Any]], Sequence[bool]] | None = None
        self._loads = Patience()
        self._loaded: list[_Known] = []

    @cached_property
    def shapes(self) -> Sequence[Shape]:
        """Those of the devices, if all of them are simple."""
        found = [each.shape for each in self._prepared if each.shape and each.shape.is_simple]
        return found if len(found) == len(self._places) else ()

    def save(self, attributes: Opaque, states: Sequence[Any]) -> Sequence[Piece] | None:
        """The pieces of a snapshot of states, in the order of the devices; None where the sizes are others, or one is odd."""
        if self._saved is None:
            return None
        pack, fields_of, are_big = self._saved
        try:
            fields = fields_of(states)
        except Exception:  # noqa: BLE001  # whatever is odd about a state
            try:
                saved = [each.save(state) for each, state in zip(self._prepared, states, strict=True)]
            except StateError:
                return None
            fields = [each if is_big else joined(each) for each, is_big in zip(saved, are_big, strict=True)]
        data = pack(_PLAIN_HEADER if attributes is PLAIN else Header(VERSION, attributes).encode(), fields)
        if data is None:
            self._saved = None
        return data

    def saved(self, sizes: Sequence[int]) -> None:
        """Learn from the sizes of each device's fields, which were saved."""
        if not self._has_parts and 0 < len(sizes) <= SECTIONS and self._saves.is_over():
            leads = [Lead.of("section", table.name, instance, NO_ATTRIBUTES) for table, instance in self._places]
            are_big = [size >= APART for size in sizes]
            calls = [
                _fields_of(number, each, is_big)
                for number, (each, is_big) in enumerate(zip(self._prepared, are_big, strict=True))
            ]
            fields_of = _all_of(calls, [each.saver or each.save for each in self._prepared])
            self._saved = Skeleton(leads, sizes).packer(), fields_of, are_big

    def rows(self, data: bytes) -> Sequence[Row] | None:
        """The rows of the devices; None where the snapshot is not as earlier ones were, or not all devices are simple."""
        for known in self._loaded:
            if known.rows and (fields := known.unpack(data)):
                try:
                    return known.rows(fields)
                except Exception:  # noqa: BLE001, S112  # fields of another writer may have the same sizes
                    continue
        return None

    def load(self, data: bytes) -> Sequence[New] | Rows | None:
        """New states of the devices; None where the snapshot is not as earlier ones were, or one does not fit."""
        rows = self.rows(data)
        if rows is not None:
            return Rows(self.shapes, rows)
        for known in self._loaded:
            if not known.rows and (fields := known.unpack(data)):
                found = [each.load(fields[place], whole=False) for each, place in zip(self._prepared, known.order, strict=True)]
                return None if None in found else cast("list[New]", found)
        return None

    def loaded(self, data: bytes) -> None:
        """Learn from a snapshot that was loaded."""
        if len(data) <= HELD_BYTES and self._loads.is_over():
            try:
                self._learn(Snapshot.read(data))
            except FormatError:
                return  # of another format

    def _learn(self, snapshot: Snapshot) -> None:
        sections = list(snapshot)
        if any(untagged(section) for section in sections):
            return  # a table reads their bytes, not their fields
        found = {section.label: place for place, section in enumerate(sections) if section.kind == "section"}
        order: list[int] = []
        for table, number in self._places:
            order += (found[name] for each in (table.name, *table.aliases) if (name := label(each, number)) in found)
        if not 0 < len(order) == len(set(order)) == len(self._places) == len(sections) <= SECTIONS:
            return
        header = Header(snapshot.version, snapshot.raw_attributes).encode()
        skeleton = Skeleton([section.lead for section in sections], [section.size for section in sections])
        readers = [each.reader(sections[place].payload()) for each, place in zip(self._prepared, order, strict=True)]
        rows = None
        if self.shapes and None not in readers:
            rows = _all_of([f"f{number}(a{place})" for number, place in enumerate(order)], readers)
        self._loaded = [_Known(skeleton.unpacker(header), order, rows), *self._loaded[: SKELETONS - 1]]


def _fields_of(number: int, device: Prepared, is_big: bool) -> str:  # noqa: FBT001  # of one section
    """Python that saves the fields of one device: in pieces where they are big, else as bytes."""
    call = f"f{number}(a{number})"
    if is_big:
        return call
    return f"{call}[0]" if device.saver and not may_be_big(device.table) else f"joined({call})"


def _all_of(calls: Sequence[str], functions: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Calls of functions `f0` .. with some of as many arguments, `a0` .., and what they return."""
    arguments = "".join(f"a{number}, " for number in range(len(calls)))
    names = {"joined": joined, **{f"f{number}": each for number, each in enumerate(functions)}}
    return compiled("all_of(arguments)", [f"{arguments}= arguments", f"return [{', '.join(calls)}]"], names)


@lru_cache(TABLES)
def large_memory(table: Table) -> tuple[Field, ...]:
    """The memory of a device that goes into parts of its section."""
    return tuple(
        each
        for each in table.fields
        if each.type.wire.name == "sparse" and (each.type.length or each.type.capacity or 0) > PART_BYTES
    )


@lru_cache(TABLES)
def plan(places: tuple[tuple[Table, int], ...]) -> Plan:
    """What snapshots of a machine look like by now."""
    return Plan(places)


def _plan_of(kind: type, instance: int) -> Plan | None:
    table = declared_table(kind)
    if not isinstance(table, Table) or table.is_hooked or not is_instance(instance):
        return None
    return plan(((table, instance),))


plan_of: Final[Callable[[type, int], Plan | None]] = lru_cache(TABLES, typed=True)(_plan_of)
"""The plan of one device whose class is under `@vmstate` and has no hooks; None for anything else."""
