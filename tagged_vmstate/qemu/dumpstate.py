"""What QEMU's `-dump-vmstate` says of two builds, compared: what each difference does to a migration.

QEMU's streams carry no names: a section's bytes are read by position. So what counts is whether the reader takes
the same sizes in the same order (migration/vmstate.c, vmstate_load_state):

- a section's version must lie between the reader's minimum_version_id and version_id;
- a field is there if its version_id is not above the section's version, for the writer and for the reader;
- a field with a condition (`field_exists`) is there or not as the device's own code says;
- a subsection is sent where it is needed, by name; one that the reader lacks ends the migration.

The size of a struct is that of its memory, not of its bytes: its fields count. How many elements an array has is
not in the dump.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change, ChangeRule
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import Document
from tagged_vmstate.paths import Aliases, format_path
from tagged_vmstate.wire import NESTING
from tagged_vmstate.wiretype import brief, is_text

T = TypeVar("T")

NO_ALIASES: Final = Aliases()
MACHINE: Final = "vmschkmachine"
"""The key of the machine's name, beside the devices."""

DEVICE_UNKNOWN: Final = ChangeRule(
    "qemu-device-unknown", "a device that the reader lacks", "use a machine without it, or name its new name with --alias"
)
DEVICE_RENAMED: Final = ChangeRule(
    "qemu-section-renamed", "a section under another name", "the name is what the stream finds it by: give it back its old one"
)
VERSION_NEW: Final = ChangeRule("qemu-version-too-new", "a section version above the reader's", "save with an older machine type")
VERSION_OLD: Final = ChangeRule(
    "qemu-version-too-old", "a section version below the reader's minimum", "migrate by a QEMU in between"
)
FIELD_UNKNOWN: Final = ChangeRule(
    "qemu-field-unknown", "bytes that the reader does not take", "raise version_id, or move the field into a subsection"
)
FIELD_MISSING: Final = ChangeRule(
    "qemu-field-missing", "bytes that the reader waits for", "give the field a later version_id, or move it into a subsection"
)
FIELD_RESIZED: Final = ChangeRule("qemu-field-resized", "a field of another size", "give it its old size on the wire")
FIELD_RENAMED: Final = ChangeRule(
    "qemu-field-renamed", "another name for the same bytes", "nothing for QEMU; `export --like` takes it as --alias"
)
FIELD_MOVED: Final = ChangeRule("qemu-field-moved", "a field in another place", "give it its old place")
STRUCT_MOVED: Final = ChangeRule(
    "qemu-struct-moved", "the same fields inside a struct, or out of one", "nothing has to be done: the bytes are the same"
)
CONDITION_CHANGED: Final = ChangeRule(
    "qemu-condition-changed", "a condition on one side only", "see that the condition holds for this machine"
)
SUBSECTION_UNKNOWN: Final = ChangeRule(
    "qemu-subsection-unknown", "a subsection that the reader lacks", "leave unused what needs it"
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that is bytes of its own.

    Attributes:
        path: The structs that it lies in, and its name.
        key: Its name, and which of those that have it, whatever structs it lies in.
        size: Bytes of an element.
        version: The first version that has it.
        is_conditional: The device's own code decides whether it is there.
    """

    path: tuple[str, ...]
    key: tuple[str, int]
    size: int
    version: int
    is_conditional: bool


@dataclass(frozen=True, slots=True)
class Description:
    """A device, a subsection or what lies in one.

    Attributes:
        name: Of the section in the stream.
        version: What is written.
        minimum: What is still read.
        leaves: Its fields in their order.
        subsections: Name -> what it is, those of structs inside included.
    """

    name: str
    version: int
    minimum: int
    leaves: tuple[Leaf, ...]
    subsections: Mapping[str, Description]

    def at(self, version: int) -> list[Leaf]:
        """The fields that a section of a version has."""
        return [leaf for leaf in self.leaves if leaf.is_conditional or leaf.version <= version]


@dataclass(frozen=True, slots=True)
class Dump:
    """What one QEMU says of one machine type.

    Attributes:
        machine: The machine type.
        devices: Type of device -> its description.
    """

    machine: str
    devices: Mapping[str, Description]


def read(document: Document, aliases: Aliases = NO_ALIASES) -> Dump:
    """Read a dump.

    Args:
        document: The JSON.
        aliases: As for `parse`.

    Raises:
        FormatError: This is no dump of QEMU's.
    """
    try:
        return parse(document.value, aliases)
    except FormatError as error:
        fields = [
            part for name in error.path for part in ("Description", "Fields", ("field", name), "Subsections", ("name", name))
        ]
        raise document.misfit(error, [error.section or "", *fields]) from None


def parse(value: Any, aliases: Aliases = NO_ALIASES) -> Dump:
    """The same from JSON that was read.

    Args:
        value: The JSON.
        aliases: What the other dump calls its devices and fields that have another name there.

    Raises:
        FormatError: This is no dump of QEMU's.
    """
    machine = _member(_member(value, MACHINE, dict), "Name", str)
    devices = {}
    for name, each in value.items():
        if name == MACHINE:
            continue
        try:
            _check(name, str, "a device")
            if "Description" in _check(each, dict, "a device"):
                renamed = aliases.get(name, ()) or name
                devices[renamed] = _description(_member(each, "Description", dict), _Place(aliases, name))
        except FormatError as error:
            error.section = name
            raise
    return Dump(machine, devices)


def _member(value: Any, key: str, kind: type[T]) -> T:
    """A member of an object, of the kind that it must have."""
    return _check(_check(value, dict, "a description").get(key), kind, f'"{key}"')


def _check(value: Any, kind: type[T], what: str) -> T:
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_right or (isinstance(value, str) and not is_text(value)):
        expected = f"{what} as a JSON {_KINDS[kind]}, as -dump-vmstate writes it"
        raise FormatError(expected, brief(value), offset=0, source="JSON")
    return cast("T", value)


_KINDS: Final[dict[type, str]] = {list: "array", dict: "object", str: "string", int: "integer", bool: "boolean"}


def places(dump: Dump) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every device and field, as aliases name them."""
    for device, description in dump.devices.items():
        yield device, ()
        yield from ((device, path) for path in _paths(description))


def _paths(description: Description) -> Iterator[tuple[str, ...]]:
    yield from (leaf.path for leaf in description.leaves)
    for name, each in description.subsections.items():
        yield from ((name, *path) for path in _paths(each))


def is_dump(value: object) -> bool:
    """Whether some JSON looks like a dump."""
    return isinstance(value, dict) and MACHINE in value


@dataclass(frozen=True, slots=True)
class _Place:
    """A device, or a subsection of one, in which some names have changed."""

    aliases: Aliases
    device: str
    above: tuple[str, ...] = ()

    def names(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a field and the structs that it lies in, as the other dump has them."""
        ends = range(1, len(path) + 1)
        return tuple(self.aliases.get(self.device, (*self.above, *path[:end])) or path[end - 1] for end in ends)

    def inside(self, path: tuple[str, ...]) -> _Place:
        """What lies in a subsection."""
        return _Place(self.aliases, self.device, (*self.above, *path))


def _description(value: Any, place: _Place, nesting: int = NESTING) -> Description:
    if not nesting:
        raise FormatError(f"at most {NESTING} descriptions within each other", "more", offset=0, source="JSON")
    name = _member(value, "name", str)
    opening = _Opening(place, nesting)
    leaves = tuple(opening.leaves(value, ()))
    version, minimum = _member(value, "version_id", int), _member(value, "minimum_version_id", int)
    return Description(place.aliases.get(name, ()) or name, version, minimum, leaves, opening.subsections)


class _Opening:
    """Opens the structs of a description."""

    def __init__(self, place: _Place, nesting: int) -> None:
        self.subsections: dict[str, Description] = {}
        self._place = place
        self._nesting = nesting
        self._counts: Counter[str] = Counter()

    def leaves(self, value: Mapping[str, Any], path: tuple[str, ...], outer: int | None = None) -> Iterator[Leaf]:
        """The fields in their order; what lies in a struct is there since the struct is."""
        if len(path) >= self._nesting:
            raise FormatError(f"at most {NESTING} descriptions within each other", "more", offset=0, source="JSON")
        for each in _check(value.get("Fields", []), list, '"Fields"'):
            told = _member(each, "field", str)
            try:
                yield from self._field(each, (*path, told), outer)
            except FormatError as error:
                error.under(told)
                raise
        for each in _check(value.get("Subsections", []), list, '"Subsections"'):
            name = _member(each, "name", str)
            try:
                inner = _description(each, self._place.inside((*path, name)), self._nesting - 1)
                self.subsections["/".join(self._place.names((*path, name)))] = inner
            except FormatError as error:
                error.under(name)
                raise

    def _field(self, value: Mapping[str, Any], path: tuple[str, ...], outer: int | None) -> Iterator[Leaf]:
        since = _member(value, "version_id", int)
        since = since if outer is None else outer
        if "Description" in value:
            yield from self.leaves(_member(value, "Description", dict), path, since)
            return
        path = self._place.names(path)
        name = path[-1]
        yield Leaf(path, (name, self._counts[name]), _member(value, "size", int), since, _member(value, "field_exists", bool))
        self._counts[name] += 1


def compare(writer: Dump, reader: Dump) -> list[Change]:
    """What differs for a QEMU that reads what another writes."""
    found: list[Change] = []
    sections = {each.name: name for name, each in reader.devices.items()}
    for device, ours in writer.devices.items():
        theirs = reader.devices.get(device) or reader.devices.get(sections.get(ours.name, ""))
        if theirs is None:
            found.append(Change(DEVICE_UNKNOWN, device, (), "it", "nothing", WHILE, "the machine has none"))
            continue
        if theirs.name != ours.name:
            found.append(Change(DEVICE_RENAMED, device, (), f"`{ours.name}`", f"`{theirs.name}`", REFUSED))
        found += _sections(device, (), ours, theirs)
    return found


def _sections(device: str, path: tuple[str, ...], ours: Description, theirs: Description) -> Iterator[Change]:
    readable = f"{theirs.minimum} to {theirs.version}"
    if ours.version > theirs.version:
        yield Change(VERSION_NEW, device, path, f"version {ours.version}", readable, REFUSED)
    elif ours.version < theirs.minimum:
        yield Change(VERSION_OLD, device, path, f"version {ours.version}", readable, REFUSED)
    version = min(ours.version, theirs.version)
    yield from _fields(device, path, ours.at(ours.version), theirs.at(version))
    inside: dict[str, Description] = {}
    moved = ours.subsections.keys() - theirs.subsections.keys()
    for key, each in theirs.subsections.items():
        for slash in re.finditer("/", key):
            if key[slash.end() :] in moved:
                inside.setdefault(key[slash.end() :], each)
    for name, inner in ours.subsections.items():
        other = theirs.subsections.get(name) or theirs.subsections.get(name.rpartition("/")[2])
        other = other or inside.get(name)
        if other is None:
            condition = "it is not needed, and so not sent"
            yield Change(SUBSECTION_UNKNOWN, device, (*path, name), "a subsection", "nothing", WHILE, condition)
        else:
            yield from _sections(device, (*path, name), inner, other)


def _fields(device: str, path: tuple[str, ...], ours: list[Leaf], theirs: list[Leaf]) -> Iterator[Change]:
    """What differs in the bytes of a section, by name and place: each difference once, none hiding the next."""
    lost: list[Leaf] = []
    new: list[Leaf] = []
    names = {leaf.key for leaf in ours} & {leaf.key for leaf in theirs}
    i = k = 0
    for j, m in [*_in_order(ours, theirs), (len(ours), len(theirs))]:
        left, right = ours[i:j], theirs[k:m]
        i, k = j + 1, m + 1
        free = [leaf for leaf in left if leaf.key not in names], [leaf for leaf in right if leaf.key not in names]
        renamed = [pair for pair in zip(*free, strict=False) if len(free[0]) == len(free[1]) and pair[0].size == pair[1].size]
        for before, after in renamed:
            name = _quoted(before), _quoted(after)
            yield Change(FIELD_RENAMED, device, (*path, *before.path), *name, FINE)
        known = {leaf.key for pair in renamed for leaf in pair}
        lost += [leaf for leaf in left if leaf.key not in known]
        new += [leaf for leaf in right if leaf.key not in known]
        if j < len(ours):
            yield from _pair(device, path, ours[j], theirs[m])
    places = {leaf.key: leaf for leaf in new}
    for leaf in lost:
        if leaf.key in places:
            yield Change(FIELD_MOVED, device, (*path, *leaf.path), "it", "it, in another place", REFUSED)
            continue
        yield _one_sided(FIELD_UNKNOWN, device, path, leaf)
    gone = {leaf.key for leaf in lost}
    for leaf in new:
        if leaf.key not in gone:
            yield _one_sided(FIELD_MISSING, device, path, leaf)


def _in_order(ours: list[Leaf], theirs: list[Leaf]) -> Iterator[tuple[int, int]]:
    """The places, on both sides, of as many fields as there are in the same order: the others moved.

    The longest run of rising places, found from the end in n log n steps.
    """
    places = {leaf.key: place for place, leaf in enumerate(theirs)}
    begins: list[int] = []  # the highest place, negated, at which 1, 2, 3... fields in order can begin
    firsts: list[int] = []  # the pair that does
    pairs: list[tuple[int, int, int]] = []  # with the number of the pair that follows
    for mine in reversed(range(len(ours))):
        place = places.get(ours[mine].key)
        if place is not None:
            more = bisect_left(begins, -place)
            begins[more : more + 1], firsts[more : more + 1] = [-place], [len(pairs)]
            pairs.append((mine, place, firsts[more - 1] if more else -1))
    at = firsts[-1] if firsts else -1
    while at >= 0:
        mine, place, at = pairs[at]
        yield mine, place


def _pair(device: str, path: tuple[str, ...], ours: Leaf, theirs: Leaf) -> Iterator[Change]:
    here = (*path, *ours.path)
    if ours.size != theirs.size:
        yield Change(FIELD_RESIZED, device, here, f"{ours.size} bytes", f"{theirs.size} bytes", REFUSED)
    if len(ours.path) != len(theirs.path):
        words = _quoted(ours), _quoted(theirs)
        yield Change(STRUCT_MOVED, device, here, *words, FINE)
    if ours.is_conditional != theirs.is_conditional:
        words = (
            "a condition" if ours.is_conditional else "no condition",
            "a condition" if theirs.is_conditional else "no condition",
        )
        yield Change(CONDITION_CHANGED, device, here, *words, WHILE, "the condition holds")


def _quoted(leaf: Leaf) -> str:
    return f"`{format_path(None, leaf.path)}`"


def _one_sided(rule: ChangeRule, device: str, path: tuple[str, ...], leaf: Leaf) -> Change:
    size = f"{leaf.size} bytes"
    words = (size, "nothing") if rule is FIELD_UNKNOWN else ("nothing", size)
    if leaf.is_conditional:
        return Change(rule, device, (*path, *leaf.path), *words, WHILE, "its condition does not hold")
    return Change(rule, device, (*path, *leaf.path), *words, REFUSED)
