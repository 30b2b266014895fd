"""The description (vmdesc JSON) of what is written for another QEMU.

QEMU ignores it when it loads a stream; `import` and `check` read the stream by it. It is the other QEMU's own, `fitted` to
the values that go over: those of another size, and the arrays that are longer or shorter.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby
from typing import Any, TypeAlias, cast

from tagged_vmstate.frames import label
from tagged_vmstate.paths import Path, PathPart
from tagged_vmstate.qemu.encode import plain
from tagged_vmstate.qemu.vmdesc import Field, Slot, Struct, parse
from tagged_vmstate.records import Record, Records, elements_of

Form: TypeAlias = dict[str, Any]


def fitted(struct: Struct, records: Records) -> Struct:
    """The description of a device with the sizes and lengths that its fields have in `records`.

    Args:
        struct: How QEMU describes the device.
        records: Its fields. Those that the description lacks are not added, those that only it has stay as they are.

    Raises:
        StateError: A field is of another type than QEMU describes.
    """
    found = {record.name: record for record in records}
    fields: list[Field] = []
    subsections = []
    for slot in struct.slots:
        record = found.get(slot.name)
        if slot.subsection:
            subsections.append(_inside(slot.subsection, record.value) if record else slot.subsection)
        else:
            fields += _entries(slot, record) if record else slot.entries
    return replace(struct, fields=tuple(fields), subsections=tuple(subsections))


class Slots:
    """The slots of a device and of all structs inside, by their paths.

    Args:
        struct: How QEMU describes the device.
    """

    def __init__(self, struct: Struct) -> None:
        self._struct = struct
        self._by_name: dict[Path, dict[str, Slot]] = {}
        self._ends: dict[Path, list[int]] = {}

    def get(self, path: Path) -> Slot | None:
        """The slot at a path; None where there is none. Elements beyond the end of an array are as its last one."""
        above, name = path[:-1], path[-1]
        return self.get(above) if isinstance(name, int) else self.inside(above).get(name)

    def inside(self, path: Path) -> Mapping[str, Slot]:
        """The slots of the struct at a path, by name."""
        if path not in self._by_name:
            struct = self._at(path)
            self._by_name[path] = {slot.name: slot for slot in struct.slots} if struct else {}
        return self._by_name[path]

    def _at(self, path: Path) -> Struct | None:
        """The struct at a path."""
        if not path:
            return self._struct
        slot = self.get(path)
        if slot is None or not slot.entries or not isinstance(path[-1], int):
            return slot.struct if slot else None
        if path[:-1] not in self._ends:
            self._ends[path[:-1]] = list(accumulate(field.count for field in slot.entries[:-1]))
        return slot.entries[bisect_right(self._ends[path[:-1]], path[-1])].struct


def versions(like: Slots | None, ours: Slots | None, path: Path) -> set[tuple[int, int]]:
    """The versions of the structs that the struct at a path holds, there and here, where they differ."""
    if like is None or ours is None:
        return set()
    here = ours.inside(path)
    pairs = ((slot.struct, here[name].struct) for name, slot in like.inside(path).items() if name in here)
    return {(first.version, second.version) for first, second in pairs if first and second and first.version != second.version}


def extended(struct: Struct, added: Mapping[Path, Sequence[tuple[int, Slot]]]) -> Struct:
    """The description of a device with more fields and subsections.

    Args:
        struct: How QEMU describes the device.
        added: Path of a struct, with the indexes of elements of arrays -> what is added to it, one after another: the place
            among what it has by then, and what describes it.
    """
    ways: dict[Path, dict[PathPart, None]] = {(): {}}
    for path in added:
        for end, part in enumerate(path):
            ways.setdefault(path[:end], {})[part] = None
            ways.setdefault(path[: end + 1], {})
    return _Extension(ways, added).struct(struct, ())


@dataclass(frozen=True, slots=True)
class _Extension:
    """What is added to a description.

    Attributes:
        ways: Path -> the names or indexes that lead on to where something is added.
        added: As for `extended`.
    """

    ways: Mapping[Path, Collection[PathPart]]
    added: Mapping[Path, Sequence[tuple[int, Slot]]]

    def struct(self, struct: Struct, path: Path) -> Struct:
        """The struct at a path."""
        slots = [self._slot(slot, (*path, slot.name)) for slot in struct.slots]
        for place, slot in self.added.get(path, ()):
            slots.insert(place, slot)
        fields = chain.from_iterable(slot.entries for slot in slots)
        return replace(struct, fields=tuple(fields), subsections=tuple(slot.subsection for slot in slots if slot.subsection))

    def _slot(self, slot: Slot, path: Path) -> Slot:
        if path not in self.ways:
            return slot
        if slot.subsection:
            return Slot(slot.name, (), self.struct(slot.subsection, path))
        return Slot(slot.name, tuple(self._elements(slot, path)) if slot.is_array else (self._entry(slot.entries[0], path),))

    def _elements(self, slot: Slot, path: Path) -> Iterator[Field]:
        """The entries of an array, those of the elements on the way apart."""
        indexes = sorted(cast("Collection[int]", self.ways[path]), reverse=True)
        start = end = 0
        for place, field in enumerate(slot.entries, 1):
            end += field.count
            if place == len(slot.entries) and indexes:
                end = max(end, indexes[0] + 1)  # elements beyond its end are as the last one
            while indexes and indexes[-1] < end:
                index = indexes.pop()
                if start < index:
                    yield _repeated(field, index - start)
                yield self._entry(_repeated(field, 1), (*path, index))
                start = index + 1
            if start < end:
                yield _repeated(field, end - start)
            start = end

    def _entry(self, field: Field, path: Path) -> Field:
        if field.struct is None:
            return field
        inside = self.struct(field.struct, path)
        return replace(field, struct=inside, size=field.size + inside.size - field.struct.size)


def described(data: bytes, written: Mapping[str, Sequence[Struct]]) -> bytes:
    """The description with other structs, as JSON; the same bytes where they are its own.

    Args:
        data: The description, one that can be parsed.
        written: The structs that describe each section of a name (``idstr#instance``), in their order.
    """
    devices = parse(data).devices
    found = json.loads(data)
    left = {name: iter(structs) for name, structs in written.items()}
    is_changed = False
    for device, form in zip(devices, found["devices"], strict=True):
        struct = next(left.get(label(device.name, device.instance), iter(())), device.struct)
        if struct != device.struct:
            form.pop("subsections", None)
            form.update(_form(struct))
            is_changed = True
    return json.dumps(found).encode() if is_changed else data


def _inside(struct: Struct, value: object) -> Struct:
    return fitted(struct, cast("Records", value)) if isinstance(value, tuple) else struct


def _entries(slot: Slot, record: Record) -> Sequence[Field]:
    """The entries of one field."""
    first = slot.entries[0]
    if record.type == "struct" and record.length is not None:
        return _elements(slot, cast("Sequence[Records | None]", record.value))
    if record.type == "struct":
        return (_element(_single(first), record.value),)
    if elements_of(record) is not None:
        return slot.entries  # of an array that only QEMU can read, whose elements have the sizes that QEMU's table gives them
    size = len(plain(first, record))
    if size == slot.size:
        return slot.entries
    if slot.number and record.length is not None:
        return (_repeated(first, size // first.size),)
    return (_single(replace(first, size=size)),)


def _elements(slot: Slot, values: Sequence[Records | None]) -> Sequence[Field]:
    """The entries of an array of structs; elements beyond its end are as the last one."""
    before = [_repeated(field, 1) for field, _ in zip(slot.elements(), values, strict=False)]
    longer = before + [_repeated(slot.entries[-1], 1)] * (len(values) - len(before))
    after = [_element(field, value) for field, value in zip(longer, values, strict=False)]
    if after == before and len(values) == slot.count:
        return slot.entries
    return [_repeated(field, len(list(group))) for field, group in groupby(after)] or (_repeated(slot.entries[0], 0),)


def _element(field: Field, value: object) -> Field:
    """The entry of one struct; `size` counts what lies inside, and what the description does not say of it."""
    if field.struct is None:
        return field
    struct = _inside(field.struct, value)
    return replace(field, struct=struct, size=field.size + struct.size - field.struct.size)


def _single(field: Field) -> Field:
    return replace(field, count=1, is_array=False)


def _repeated(field: Field, count: int) -> Field:
    return replace(field, count=count, is_array=True)


def _form(struct: Struct) -> Form:
    """A struct as QEMU writes it."""
    found: Form = {"vmsd_name": struct.name, "version": struct.version, "fields": list(_forms(struct.fields))}
    return {**found, "subsections": [_form(each) for each in struct.subsections]} if struct.subsections else found


def _forms(fields: Sequence[Field]) -> Iterator[Form]:
    """The entries; successive ones of one name are one array, numbered through."""
    for name, group in groupby(fields, lambda field: field.name):
        index = 0
        for field in group:
            form: Form = {"name": name}
            if field.is_array:
                form |= {"index": index} if field.count == 1 else {"array_len": field.count}
            form["type"] = field.type
            if field.struct:
                form["struct"] = _form(field.struct)
            yield {**form, "size": field.size}
            index += field.count
