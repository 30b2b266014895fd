"""Tables against tables: can this build load what that one saves, and on which condition.

The rules are rows: what is only on one side, and for a field on both sides one row for each thing that can differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from tagged_vmstate.blocks import IntType
from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change, ChangeRule, Effect
from tagged_vmstate.codec import can_be_flagged
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import StateError
from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.paths import PathPart
from tagged_vmstate.table import Field, Table, check_value, is_same

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
    "default-changed",
    "another default, and the newer table names the earlier one",
    "nothing has to be done: what is stored is taken as it stands",
)
DEFAULT_UNNAMED: Final = ChangeRule(
    "default-unnamed",
    "another default, and the newer table does not name the earlier one: where a release lacks the field, its value is lost",
    "declare the earlier defaults as previous_defaults, oldest first",
)
TYPE_CHANGED: Final = ChangeRule(
    "type-changed", "another type", "declare the narrower type in widens_from, or a new field beside the old one"
)
LENGTH_CHANGED: Final = ChangeRule("length-changed", "another length", "declare a MaxLength that holds both")
RANGE_CHANGED: Final = ChangeRule("range-changed", "other bounds", "widen the bounds of the reader if such values are right")
MEMBERS_CHANGED: Final = ChangeRule("members-changed", "other members of an enum", "add the members to the reader's enum")
CHECK_ADDED: Final = ChangeRule(
    "check-added", "a check that the writer lacks", "make sure that the check takes what the writer saves"
)
OPTIONAL_CHANGED: Final = ChangeRule("optional-changed", "a struct that may be absent", "declare it as `Struct | None`")


def compare(writer: Sequence[Entry], reader: Sequence[Entry], *, is_downgrade: bool = False) -> list[Change]:
    """What differs for a build that reads what another writes.

    Args:
        writer: The devices of the build that saves.
        reader: The devices of the build that loads.
        is_downgrade: The writer is the newer build, not the reader.
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
        found += _Compared(entry.label, is_downgrade).fields((), (entry.table, None), (other.table, None))
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
    if field.has_previous_defaults:
        return can_be_flagged(field)
    if not field.is_required:
        return True
    return field.table is not None and not field.type.is_array and all(map(_can_be_default, field.table.fields))


_Defaults: TypeAlias = tuple[Field, Sequence[Any]]
"""A field, and the defaults that it has had, oldest first."""
_Side: TypeAlias = "tuple[Table, Sequence[Any] | None]"
"""The table of a struct in one build, and its states in the defaults of what holds it, oldest first, where there are any."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """A device of two builds."""

    device: str
    is_downgrade: bool

    def fields(self, path: tuple[PathPart, ...], ours: _Side, theirs: _Side) -> Iterator[Change]:
        """What differs in one struct."""
        (writer, _), (reader, _) = ours, theirs
        if reader.check and not writer.check:
            yield Change(CHECK_ADDED, self.device, path, "no check", "a check", WHILE, "the check takes it")
        taken = set()
        for field in writer.fields:
            here = (*path, field.name)
            other = reader.by_name.get(field.name)
            if other is None:
                effect, condition = _unused(_can_be_default(field))
                yield Change(FIELD_UNKNOWN, self.device, here, f"`{field.type.describe()}`", "nothing", effect, condition)
                continue
            taken.add(other.name)
            if other.name != field.name:
                yield Change(FIELD_RENAMED, self.device, here, f"`{field.name}`", f"`{other.name}`", FINE)
            for rule, handler in _FIELD_RULES:
                verdict = handler(field, other)
                if verdict:
                    effect, condition, written, read = verdict
                    yield Change(rule, self.device, here, written, read, effect, condition)
            defaults = _history(ours, field), _history(theirs, other)
            yield from self._default(here, (field, defaults[0]), (other, defaults[1]))
            if field.table and other.table:
                inner = _states(field, defaults[0]), _states(other, defaults[1])
                yield from self.fields(here, (field.table, inner[0]), (other.table, inner[1]))
        for field in reader.fields:
            if field.name not in taken:
                needs = f"`{field.type.describe()}`, {'required' if field.is_required else 'with a default'}"
                effect = REFUSED if field.is_required else FINE
                yield Change(FIELD_MISSING, self.device, (*path, field.name), "nothing", needs, effect)

    def _default(self, path: tuple[PathPart, ...], ours: _Defaults, theirs: _Defaults) -> Iterator[Change]:
        """A default that has changed: a value at the newer one is safe only where the newer table names the earlier ones."""
        (_, old), (field, new) = (theirs, ours) if self.is_downgrade else (ours, theirs)
        if not (old and new) or bool(ours[0].table) != bool(theirs[0].table) or not all(_fits(field, each) for each in old):
            return
        is_named = _holds(field, new, old)
        if is_named and _is_same(field, old[-1], new[-1]):
            return
        written, read = (f"default {_brief(each[-1])}" + _earlier(each[:-1]) for _, each in (ours, theirs))
        if is_named:
            yield Change(DEFAULT_CHANGED, self.device, path, written, read, FINE)
            return
        first, last = _brief(old[0]), _brief(new[-1])
        condition = (
            f"every release has it: one that lacks it silently drops {last} and goes on with {first}"
            if self.is_downgrade
            else f"every snapshot has it: one of a release that lacks it silently gets {_brief(new[0])} for {first}"
        )
        missing = ", ".join(map(_brief, old))
        where = " of the struct or of the field in it" if len(path) > 1 else ""
        rule = replace(DEFAULT_UNNAMED, remedy=f"declare previous_defaults=({missing}{',' if len(old) == 1 else ''}){where}")
        yield Change(rule, self.device, path, written, read, WHILE, condition)


def _history(side: _Side, field: Field) -> tuple[Any, ...]:
    """The defaults that a field has had, oldest first: those that what holds it has given it, or its own."""
    own = () if field.is_required else (*field.previous_defaults, field.known_default())
    table, states = side
    if states is None:
        return own
    found: list[Any] = []
    for state in states:
        value = table.get(state, field)
        found += own if own and is_same(field.type, value, own[-1]) else (value,)
    return tuple(found)


def _states(field: Field, defaults: Sequence[Any]) -> Sequence[Any] | None:
    """The states that a struct's defaults are; None where there are none, or several in each."""
    return None if field.type.is_array else [each for each in defaults if each is not None] or None


def _fits(field: Field, value: Any) -> bool:
    """Whether a field could name a default; one of another struct is compared field by field."""
    if field.table is not None:
        return field.type.is_array == isinstance(value, list | tuple)
    try:
        check_value(field.type, value)
    except StateError:
        return False
    return True


def _holds(field: Field, defaults: Sequence[Any], earlier: Sequence[Any]) -> bool:
    """Whether a list of defaults has all those of an earlier release, in their order."""
    at = 0
    for each in earlier:
        while at < len(defaults) and not _is_same(field, each, defaults[at]):
            at += 1
    return at < len(defaults)


def _is_same(field: Field, first: Any, second: Any) -> bool:
    """Whether two defaults are the same; of structs, whether as many are there."""
    if field.table is None:
        return is_same(field.type, first, second)
    return [each is None for each in _several(first)] == [each is None for each in _several(second)]


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _earlier(defaults: Sequence[Any]) -> str:
    return f", earlier {', '.join(map(_brief, defaults))}" if defaults else ""


def _brief(value: object) -> str:
    if isinstance(value, bytes | bytearray) and len(value) > 8 and not value.strip(b"\0"):
        return f"{type(value).__name__}({len(value)})"
    text = repr(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


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
    is_partial = ours.wire.name == "bitmap" and theirs.length != ours.capacity and (theirs.length or 0) % 8
    if theirs.length is None or theirs.length > ours.capacity or is_partial:
        return REFUSED, "", *words
    return WHILE, f"it has just {theirs.length}", *words


def _range(writer: Field, reader: Field) -> Verdict | None:
    ours, theirs = _interval(writer.type), _interval(reader.type)
    if writer.type.wire is reader.type.wire and not theirs[0] <= ours[0] <= ours[1] <= theirs[1]:
        return WHILE, f"it is {theirs[0]} to {theirs[1]}", f"{ours[0]} to {ours[1]}", f"{theirs[0]} to {theirs[1]}"
    said = {(each.kind, each.name) for each in writer.type.constraints}
    for each in reader.type.constraints:
        if each.kind in {"mask", "multiple_of", "predicate"} and (each.kind, each.name) not in said:
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
)
"""What can differ in a field that is on both sides."""


def refused(changes: Iterable[Change]) -> list[Change]:
    """Those that end a load whatever the state is."""
    return [change for change in changes if change.effect == REFUSED]
