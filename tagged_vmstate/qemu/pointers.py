"""Arrays of pointers with nulls among them, as QEMU before 10 describes them.

An array has one entry, with the type and size of its first element (vmstate_save_state_v in QEMU's migration/vmstate.c).
But a null pointer is one byte, the rest are what they point to: where the first is null, the description says nothing of
the rest, and where another one is, it describes too many bytes. Both show in the length of what the array lies in. If no
other field there can have another size than described, that length yields the size of the array, and with it the place of
every field; otherwise nothing from the first such field on is certain. A guess would be a wrong value.

Where the first is null, the others are bytes: one element, if the bytes allow for just one among nulls, or all of them.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Final

from tagged_vmstate.errors import StateError
from tagged_vmstate.qemu.vmdesc import (
    NULL,
    NULL_TYPE,
    Field,
    Layout,
    Slot,
    Struct,
    is_null,
    number_type,
    pointed_width,
    subsection_head,
)

_UNDESCRIBED: Final = Struct("", 0, (), ())


def laid_out(struct: Struct, data: bytes, start: int, end: int) -> Layout:
    """What lies where in a stretch of the bytes that a struct fills."""
    slots, size = struct.slots, end - start
    if struct.size == size and not struct.may_grow:
        return Layout(size, slots)
    first, at = 0, start
    while first < len(slots) and _is_certain(slots[first], data, at, from_end=False):
        at += slots[first].extent
        first += 1
    if first == len(slots):
        return Layout(size, slots)  # a description that is wrong in another way
    last, edge = len(slots) - 1, end
    while (
        last > first
        and edge - slots[last].extent >= at
        and _is_certain(slots[last], data, edge - slots[last].extent, from_end=True)
    ):
        edge -= slots[last].extent
        last -= 1
    if struct.size == size and (first == last or not any(field.size > len(NULL) for field in struct.arrays)):
        return Layout(size, slots)  # else one array may have as many bytes more as another has less
    found = _resized(slots[first], data, at, edge) if first == last else None
    if found is None:
        return Layout(size, slots[:first], slots[first])
    is_divided = found.subsection is not None or found.is_array
    notes = () if is_divided else (f"`{found.name}`: QEMU describes only its first element; kept as bytes",)
    return Layout(size, (*slots[:first], found, *slots[first + 1 :]), None, notes, is_described=False)


def _is_certain(slot: Slot, data: bytes, start: int, *, from_end: bool) -> bool:
    """Whether what lies there has the size that is described, given that it begins there; `from_end`: that it ends so."""
    at = start
    if slot.subsection:
        if from_end and not data.startswith(_head(slot.subsection) or b"\0", start):
            return False
        at += slot.extent - slot.size
        for inner in slot.subsection.slots:
            if not _is_certain(inner, data, at, from_end=from_end):
                return False
            at += inner.extent
        return True
    for field in slot.entries:
        if field.count > 1 and not _is_array_certain(field, data, at, from_end=from_end):
            return False
        at += field.size * field.count
    return True


def _is_array_certain(field: Field, data: bytes, start: int, *, from_end: bool) -> bool:
    if field.type == NULL_TYPE:
        return True
    if is_null(field, NULL) or not _is_fixed(field):
        return False
    end, size = start + field.size * field.count, field.size
    if size <= len(NULL):
        return True
    # The null that is nearest lies where an element that is none would begin, or end.
    return NULL[0] not in (data[start + 2 * size - 1 : end : size] if from_end else data[start + size : end : size])


def _is_fixed(field: Field) -> bool:
    """Whether all elements of an array have the same size, if they are there."""
    if field.struct is None:
        return number_type(field) is not None
    inside = field.struct
    return not inside.subsections and all(each.count == 1 and _is_fixed(each) for each in inside.fields)


def _resized(slot: Slot, data: bytes, start: int, end: int) -> Slot | None:
    """What fills a stretch of the bytes in which it does not have the size described; None where it does not."""
    if slot.subsection is None:
        return _resized_array(slot, data[start:end])
    head = _head(slot.subsection)
    if head is None or not data.startswith(head, start, end):
        return None
    layout = laid_out(slot.subsection, data, start + len(head), end)
    return None if layout.is_described or layout.unclear else Slot(slot.name, (), slot.subsection, layout)


def _resized_array(slot: Slot, data: bytes) -> Slot | None:
    [field, *more] = slot.entries
    is_first_null, width, count, size = is_null(field, NULL), pointed_width(field), field.count, len(data)
    if more or (is_first_null and count <= size and data.startswith(NULL * count)):
        return None  # QEMU 10 has an entry for each run; nulls as described: what is left over is elsewhere
    if width is None:
        width = size - count + 1  # of the only one that is not null
    nulls, rest = divmod(count * width - size, width - 1) if width > 1 else (0, 1)
    if rest or not is_first_null <= nulls < count:
        return None
    found = _divided(data, count, nulls, width, is_first_null=is_first_null)
    if not found:
        is_wrong = found == [] and pointed_width(field) is not None
        return (
            None
            if is_wrong
            else Slot(slot.name, (replace(field, type="buffer", size=size, count=1, is_array=False, struct=None),))
        )
    null = replace(field, type=NULL_TYPE, size=1, struct=None)
    other = replace(field, size=width, struct=_UNDESCRIBED if field.struct and is_first_null else field.struct)
    return Slot(slot.name, tuple(replace(null if each else other, count=len([*group])) for each, group in groupby(found)))


def _divided(data: bytes, count: int, nulls: int, width: int, *, is_first_null: bool) -> list[bool] | None:
    """Which elements are null, if there is just one way; an empty list for no way, None for several, or too many to try."""
    like_nulls = array("I", accumulate((byte == NULL[0] for byte in data), initial=0))
    ways: list[tuple[int, ...]] = [(0,)]  # after each element, how many nulls there may have been
    most = 4 * len(data)
    for place in range(count):
        found = set()
        for before in ways[-1]:
            at = before + (place - before) * width
            if before < nulls and data[at] == NULL[0] and (place or is_first_null):
                found.add(before + 1)
            is_room = place - before < count - nulls and (place or not is_first_null)
            if is_room and like_nulls[-1] - like_nulls[at + width] >= nulls - before:
                found.add(before)
        most -= len(found)
        if most < 0:
            return None
        ways.append(tuple(found))
    if nulls not in ways[-1]:
        return []
    there, is_null_at = nulls, []
    for place in range(count - 1, -1, -1):
        at = there - 1 + (place - there + 1) * width
        came_by_null = there - 1 in ways[place] and data[at] == NULL[0] and (place or is_first_null)
        came_by_other = there in ways[place] and (place or not is_first_null)
        if came_by_null and came_by_other:
            return None
        is_null_at.append(bool(came_by_null))
        there -= bool(came_by_null)
    return is_null_at[::-1]


def _head(struct: Struct) -> bytes | None:
    try:
        return subsection_head(struct.name, struct.version)
    except (StateError, OverflowError):
        return None
