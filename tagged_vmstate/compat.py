"""Tables against tables: can this build load what that one saves, and on which condition.

The rules are rows: what is only on one side, and for a field on both sides one row for each thing that can differ.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from tagged_vmstate.blocks import IntType
from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change, ChangeRule, Effect
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import PathPart
from tagged_vmstate.fieldtype import FieldType, SparseMemory
from tagged_vmstate.table import Field, Table

Verdict: TypeAlias = tuple[Effect, str, str, str]
"""Effect, condition, what the writer has, what the reader has."""

DEVICE_UNKNOWN: Final = ChangeRule(
    "device-unknown", "a device that the reader lacks", "register it there, or leave it unused when saving"
)
DEVICE_MISSING: Final = ChangeRule("device-missing", "a device that the writer lacks", "give its fields defaults")
DEVICE_RENAMED: Final = ChangeRule("device-renamed", "a device found by an alias", "nothing has to be done")
FIELD_UNKNOWN: Final = ChangeRule(
    "field-unknown", "a field that the reader lacks", "leave the feature unused when saving, or declare an alias there"
)
FIELD_MISSING: Final = ChangeRule("field-missing", "a field that the writer lacks", "declare a default")
FIELD_RENAMED: Final = ChangeRule("field-renamed", "a field found by an alias", "nothing has to be done")
DEFAULT_CHANGED: Final = ChangeRule(
    "default-changed", "another default", "nothing has to be done: what is stored is taken as it stands"
)
TYPE_CHANGED: Final = ChangeRule(
    "type-changed", "another type", "declare the narrower type in widens_from, or a new field beside the old one"
)
LENGTH_CHANGED: Final = ChangeRule("length-changed", "another length", "declare a MaxLength that holds both")
RANGE_CHANGED: Final = ChangeRule("range-changed", "other bounds", "widen the bounds of the reader if such values are right")
MEMBERS_CHANGED: Final = ChangeRule("members-changed", "other members of an enum", "add the members to the reader's enum")
OPTIONAL_CHANGED: Final = ChangeRule("optional-changed", "a struct that may be absent", "declare it as `Struct | None`")


def compare(writer: Sequence[Entry], reader: Sequence[Entry]) -> list[Change]:
    """What differs for a build that reads what another writes.

    Args:
        writer: The devices of the build that saves.
        reader: The devices of the build that loads.
    """
    found: list[Change] = []
    taken = set()
    names = {(name, entry.instance): entry for entry in reader for name in (entry.table.name, *entry.table.aliases)}
    seen: set[tuple[int, int]] = set()
    for entry in writer:
        other = names.get((entry.table.name, entry.instance))
        if other is None:
            effect, condition = _unused(all(map(_can_be_default, entry.table.fields)))
            found.append(Change(DEVICE_UNKNOWN, entry.label, (), "it", "nothing", effect, condition))
            continue
        taken.add(other.label)
        if (id(entry.table), id(other.table)) in seen:
            continue  # one more instance of what has been compared
        seen.add((id(entry.table), id(other.table)))
        if other.table.name != entry.table.name:
            found.append(Change(DEVICE_RENAMED, entry.label, (), f"`{entry.table.name}`", f"`{other.table.name}`", FINE))
        found += _fields(entry.label, (), entry.table, other.table)
    for entry in reader:
        if entry.label not in taken:
            required = [field.name for field in entry.table.fields if field.is_required]
            needs = f"it, with {', '.join(f'`{name}`' for name in required)} required" if required else "it, with its defaults"
            found.append(Change(DEVICE_MISSING, entry.label, (), "nothing", needs, REFUSED if required else FINE))
    return found


def _unused(can_be: bool) -> tuple[Effect, str]:  # noqa: FBT001  # its only meaning
    return (WHILE, "all of it is at its default") if can_be else (REFUSED, "")


def _can_be_default(field: Field) -> bool:
    """Whether a writer can flag a field as being at its default."""
    if not field.is_required:
        return True
    return field.table is not None and not field.type.is_array and all(map(_can_be_default, field.table.fields))


def _fields(device: str, path: tuple[PathPart, ...], writer: Table, reader: Table) -> Iterator[Change]:
    """What differs in one struct."""
    taken = set()
    for field in writer.fields:
        here = (*path, field.name)
        other = reader.by_name.get(field.name)
        if other is None:
            effect, condition = _unused(_can_be_default(field))
            yield Change(FIELD_UNKNOWN, device, here, f"`{field.type.describe()}`", "nothing", effect, condition)
            continue
        taken.add(other.name)
        if other.name != field.name:
            yield Change(FIELD_RENAMED, device, here, f"`{field.name}`", f"`{other.name}`", FINE)
        for rule, handler in _FIELD_RULES:
            verdict = handler(field, other)
            if verdict:
                effect, condition, ours, theirs = verdict
                yield Change(rule, device, here, ours, theirs, effect, condition)
        if field.table and other.table:
            yield from _fields(device, here, field.table, other.table)
    for field in reader.fields:
        if field.name not in taken:
            needs = f"`{field.type.describe()}`, {'required' if field.is_required else 'with a default'}"
            yield Change(FIELD_MISSING, device, (*path, field.name), "nothing", needs, REFUSED if field.is_required else FINE)


def _type(writer: Field, reader: Field) -> Verdict | None:
    ours, theirs = writer.type.wire.name, reader.type.wire.name
    if ours == theirs or ours in reader.widens_from:
        return None
    return REFUSED, "", f"`{ours}`", f"`{theirs}`"


def _length(writer: Field, reader: Field) -> Verdict | None:
    ours, theirs = writer.type, reader.type
    words = f"`{ours.describe()}`", f"`{theirs.describe()}`"
    if ours.capacity is None and theirs.takes_length(ours.length):
        return None
    if ours.capacity is None:
        return REFUSED, "", *words
    if theirs.capacity is not None:
        return None if ours.capacity <= theirs.capacity else (WHILE, f"it has at most {theirs.capacity}", *words)
    if theirs.length is None or theirs.length > ours.capacity:
        return REFUSED, "", *words
    return WHILE, f"it has just {theirs.length}", *words


def _default(writer: Field, reader: Field) -> Verdict | None:
    if writer.is_required or reader.is_required or writer.table or reader.table:
        return None
    if (writer.type.wire, writer.type.is_array) != (reader.type.wire, reader.type.is_array):
        return None
    ours, theirs = (_default_of(field) for field in (writer, reader))
    if writer.type.same(ours, theirs):
        return None
    return FINE, "", f"default {_brief(ours)}", f"default {_brief(theirs)}"


def _default_of(field: Field) -> Any:
    """A default as it is compared; of memory only what is not zero."""
    value = field.known_default()
    if field.type.wire.name != "sparse" or isinstance(value, SparseMemory):
        return value
    return SparseMemory(field.type.length or 0, field.type.runs(value))


def _brief(value: Any) -> str:
    text = repr(value[:30] if isinstance(value, bytes | bytearray | list | tuple | str | array) else value)
    return text if len(text) <= 30 else f"{text[:27]}..."


def _range(writer: Field, reader: Field) -> Verdict | None:
    ours, theirs = _interval(writer.type), _interval(reader.type)
    if writer.type.wire is reader.type.wire and not theirs[0] <= ours[0] <= ours[1] <= theirs[1]:
        return WHILE, f"it is {theirs[0]} to {theirs[1]}", f"{ours[0]} to {ours[1]}", f"{theirs[0]} to {theirs[1]}"
    said = {(each.kind, str(each.bound)) for each in writer.type.constraints}
    for each in reader.type.constraints:
        if each.kind in {"mask", "multiple_of", "predicate"} and (each.kind, str(each.bound)) not in said:
            return WHILE, f"it is one {each.words}", "no such bound", f"one {each.words}"
    return None


def _interval(kind: FieldType) -> tuple[float, float]:
    """The least and the greatest value that a number may have."""
    low, high = (kind.wire.low, kind.wire.high) if isinstance(kind.wire, IntType) else (-math.inf, math.inf)
    step = 1 if isinstance(kind.wire, IntType) else 0
    for each in kind.constraints:
        if each.kind in {"ge", "gt"}:
            low = max(low, each.bound + step * (each.kind == "gt"))
        elif each.kind in {"le", "lt"}:
            high = min(high, each.bound - step * (each.kind == "lt"))
    return low, high


def _members(writer: Field, reader: Field) -> Verdict | None:
    if reader.type.enum is None:
        return None
    theirs = set(map(int, reader.type.enum))
    if writer.type.enum is None:
        return WHILE, f"it is one of {', '.join(map(str, sorted(theirs)))}", "any value", f"{len(theirs)} members"
    lost = [f"{member.name} ({int(member)})" for member in writer.type.enum if int(member) not in theirs]
    return (
        (WHILE, f"it is not {' or '.join(lost)}", f"{len(writer.type.enum)} members", f"no {', '.join(lost)}") if lost else None
    )


def _optional(writer: Field, reader: Field) -> Verdict | None:
    if not writer.type.is_optional or reader.type.is_optional or reader.table is None:
        return None
    return WHILE, "it is present", "a struct or None", "a struct"


_FIELD_RULES: Final[tuple[tuple[ChangeRule, Callable[[Field, Field], Verdict | None]], ...]] = (
    (TYPE_CHANGED, _type),
    (LENGTH_CHANGED, _length),
    (RANGE_CHANGED, _range),
    (MEMBERS_CHANGED, _members),
    (OPTIONAL_CHANGED, _optional),
    (DEFAULT_CHANGED, _default),
)
"""What can differ in a field that is on both sides."""


def refused(changes: Iterable[Change]) -> list[Change]:
    """Those that end a load whatever the state is."""
    return [change for change in changes if change.effect == REFUSED]
