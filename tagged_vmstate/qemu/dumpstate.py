"""What QEMU's `-dump-vmstate` writes of two builds, compared: what each difference does to a migration.

A dump has every type of device that a build knows, whether a machine has it or not, but not what registers its section by itself,
as CPUs and some old devices do. The size of a struct in it is that of its memory, not of its bytes: its fields count. How many
elements an array has is in the dumps of QEMU 8.1 and later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, TypeVar, cast

from tagged_vmstate.changes import REFUSED, WHILE, Change, ChangeRule, Effect
from tagged_vmstate.errors import FormatError
from tagged_vmstate.jsonform import Document
from tagged_vmstate.paths import Aliases
from tagged_vmstate.qemu.differences import Budget, Description, Leaf, differences
from tagged_vmstate.wire import NESTING
from tagged_vmstate.wiretype import brief, is_text

T = TypeVar("T")

NO_ALIASES: Final = Aliases()
MACHINE: Final = "vmschkmachine"
"""The key of the machine's name, beside the devices."""

UNUSED: Final = "unused"
"""What VMSTATE_UNUSED names its bytes."""

DEVICE_UNKNOWN: Final = ChangeRule(
    "qemu-device-unknown", "a device that the reader lacks", "use a machine without it, or name its new name with --alias"
)
DEVICE_RENAMED: Final = ChangeRule(
    "qemu-section-renamed", "a section under another name", "the name is what the stream finds it by: give it back its old one"
)
MACHINE_CHANGED: Final = ChangeRule(
    "qemu-machine-changed", "another machine type", "start the reader with the machine type of the writer (-M)"
)
LENGTHS_UNKNOWN: Final = ChangeRule(
    "qemu-lengths-unknown",
    "a dump without the lengths of arrays",
    "compare dumps of QEMU 8.1 or later, or look into QEMU's source",
)


@dataclass(frozen=True)
class Dump:
    """What one QEMU writes of one machine type.

    Attributes:
        machine: The machine type.
        devices: Type of device -> its description.
        has_counts: It contains how many elements arrays have, as of QEMU 8.1.
    """

    machine: str
    devices: Mapping[str, Description]
    has_counts: bool

    @cached_property
    def types(self) -> Mapping[str, Sequence[str]]:
        """Name of a section -> the types of device that have it."""
        found: dict[str, list[str]] = {}
        for device, each in self.devices.items():
            found.setdefault(each.name, []).append(device)
        return found

    def only(self, types: Container[str]) -> Dump:
        """The same with some types of device."""
        return replace(self, devices={name: each for name, each in self.devices.items() if name in types})


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
    has_counts = _has_counts([each for name, each in value.items() if name != MACHINE])
    devices = {}
    for name, each in value.items():
        if name == MACHINE:
            continue
        try:
            _check(name, str, "a device")
            if "Description" in _check(each, dict, "a device"):
                renamed = aliases.get(name, ()) or name
                devices[renamed] = _description(_member(each, "Description", dict), _Place(aliases, name, has_counts))
        except FormatError as error:
            error.section = name
            raise
    return Dump(machine, devices, has_counts)


def _has_counts(value: object) -> bool:
    """Whether any array in a dump has its length."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "num" in each:
                return True
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return False


def _member(value: Any, key: str, kind: type[T]) -> T:
    """A member of an object, of the kind that it must have."""
    return _check(_check(value, dict, "a description").get(key), kind, f'"{key}"')


def _check(value: Any, kind: type[T], what: str) -> T:
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_right or (isinstance(value, str) and not is_text(value)):
        expected = f"{what} as a JSON {_KINDS[kind]}, as -dump-vmstate writes it"
        raise FormatError(expected, brief(value), offset=0, source="JSON")
    return cast("T", value)


def _length(value: Mapping[str, Any], key: str, bits: int) -> int:
    """How long something is."""
    found = _member(value, key, int)
    if found not in range(1 << bits):
        raise FormatError(f'"{key}" of 0 to 2**{bits}-1', str(found), offset=0, source="JSON")
    return found


_KINDS: Final[dict[type, str]] = {list: "array", dict: "object", str: "string", int: "integer", bool: "boolean"}


def places(dump: Dump) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every device and field, as aliases name them."""
    for device, description in dump.devices.items():
        yield device, ()
        yield from ((device, path) for path in _paths(description))


def _paths(description: Description) -> Iterator[tuple[str, ...]]:
    yield from (leaf.path for leaf in description.leaves)
    for name, each in description.subsections.items():
        yield from ((*name, *path) for path in _paths(each))


def is_dump(value: object) -> bool:
    """Whether some JSON looks like a dump."""
    return isinstance(value, dict) and MACHINE in value


@dataclass(frozen=True, slots=True)
class _Place:
    """A device, or a subsection of one, in which some names have changed."""

    aliases: Aliases
    device: str
    has_counts: bool
    above: tuple[str, ...] = ()

    def names(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a field and the structs that it lies in, as the other dump has them."""
        ends = range(1, len(path) + 1)
        return tuple(self.aliases.get(self.device, (*self.above, *path[:end])) or path[end - 1] for end in ends)

    def inside(self, path: tuple[str, ...]) -> _Place:
        """What lies in a subsection."""
        return _Place(self.aliases, self.device, self.has_counts, (*self.above, *path))


def _description(value: Any, place: _Place, nesting: int = NESTING, holder: str = "") -> Description:
    if not nesting:
        raise FormatError(f"at most {NESTING} descriptions within each other", "more", offset=0, source="JSON")
    name, version = _member(value, "name", str), _member(value, "version_id", int)
    opening = _Opening(place, nesting)
    leaves = tuple(opening.leaves(value, _Level()))
    minimum = _member(value, "minimum_version_id", int)
    name = place.aliases.get(name, ()) or name
    return Description(name, version, minimum, leaves, opening.subsections, holder, opening.structs)


@dataclass(frozen=True, slots=True)
class _Level:
    """A field, and the structs that it lies in: the attributes of `Leaf`."""

    path: tuple[str, ...] = ()
    counts: tuple[int | None, ...] = ()
    version: int = 0
    conditions: tuple[bool, ...] = ()


class _Opening:
    """Opens the structs of a description."""

    def __init__(self, place: _Place, nesting: int) -> None:
        self.subsections: dict[tuple[str, ...], Description] = {}
        self.structs: dict[tuple[str, ...], int] = {}
        self._place = place
        self._nesting = nesting
        self._names: Counter[str] = Counter()
        self._subsections: Counter[tuple[str, ...]] = Counter()

    def leaves(self, value: Mapping[str, Any], outer: _Level) -> Iterator[Leaf]:
        """The fields in their order."""
        if len(outer.path) >= self._nesting:
            raise FormatError(f"at most {NESTING} descriptions within each other", "more", offset=0, source="JSON")
        owner = _member(value, "name", str)
        version = _member(value, "version_id", int)
        if outer.path:
            self.structs[self._place.names(outer.path)] = version
        for each in _check(value.get("Fields", []), list, '"Fields"'):
            name = _member(each, "field", str)
            try:
                level = self._level(each, name, outer, version)
                if level is not None:
                    yield from self._field(each, level, owner)
            except FormatError as error:
                error.under(name)
                raise
        for each in _check(value.get("Subsections", []), list, '"Subsections"'):
            name = _member(each, "name", str)
            path = (*outer.path, name)
            try:
                inner = _description(each, self._place.inside(path), self._nesting - 1, owner)
                *structs, name = self._place.names(path)
                again = self._subsections[*structs, name]
                key = *structs, f"{name}[{again}]" if again else name
                self.subsections[key] = replace(inner, name=name)
                self._subsections[*structs, name] += 1
            except FormatError as error:
                error.under(name)
                raise

    def _level(self, value: Mapping[str, Any], name: str, outer: _Level, version: int) -> _Level | None:
        """A field of a description of some version; None for one that is never on the wire."""
        since, is_conditional = _member(value, "version_id", int), _member(value, "field_exists", bool)
        count = _length(value, "num", 31) if "num" in value else 0 if self._place.has_counts else None
        is_inside = bool(outer.path)
        if value.get("num") == 0 or (is_inside and since > version and not is_conditional):
            return None
        since = outer.version if is_inside else 0 if is_conditional else since
        return _Level((*outer.path, name), (*outer.counts, count), since, (*outer.conditions, is_conditional))

    def _field(self, value: Mapping[str, Any], level: _Level, owner: str) -> Iterator[Leaf]:
        if "Description" in value:
            yield from self.leaves(_member(value, "Description", dict), level)
            return
        path = self._place.names(level.path)
        name = path[-1]
        size = _length(value, "size", 63) or None
        is_unused = level.path[-1] == UNUSED
        yield Leaf(path, (name, self._names[name]), size, level.counts, level.version, level.conditions, is_unused, owner)
        self._names[name] += 1


def compare(writer: Dump, reader: Dump) -> list[Change]:
    """What differs for a QEMU that reads what another writes. Raises LimitError where that is too much to compare."""
    budget = Budget()
    found = [*machine_changes(writer.machine, reader.machine), *_lengths(writer, reader)]
    for device, ours in writer.devices.items():
        name = device if device in reader.devices else next(reversed(reader.types.get(ours.name, ())), None)
        theirs = reader.devices[name] if name is not None else None
        unknown = unknown_section(ours.name)
        if theirs is None:
            condition = f"the machine has none, or the reader registers `{ours.name}` outside of its dump"
            phrases = (*unknown, f"'{device}' is not a valid device model name")
            found.append(Change(DEVICE_UNKNOWN, device, (), "it", "nothing", WHILE, condition, ours.name, phrases))
            continue
        if theirs.name != ours.name:
            words = f"`{ours.name}`", f"`{theirs.name}`"
            found.append(Change(DEVICE_RENAMED, device, (), *words, REFUSED, "", ours.name, unknown))
        budget.take(theirs)
        found += differences(device, ours, theirs)
    return found


def unknown_section(name: str, instance: int = 0) -> tuple[str, ...]:
    """QEMU's messages for a section that it does not know."""
    return tuple(f"Unknown {kind}section or instance '{name}' {instance}" for kind in ("savevm ", ""))


def machine_changes(ours: str, theirs: str) -> Iterator[Change]:
    """Another machine type, of which QEMU compares only as many letters as the stream has (configuration_post_load)."""
    if ours != theirs:
        is_prefix = theirs.startswith(ours)
        condition = f"the two machines have the same devices: QEMU compares only `{ours}` of the name" if is_prefix else ""
        phrase = f"Machine type received is '{ours}' and local is '{theirs}'"
        effect: Effect = WHILE if is_prefix else REFUSED
        words = f"`{ours}`", f"`{theirs}`"
        yield Change(MACHINE_CHANGED, MACHINE, (), *words, effect, condition, "configuration", () if is_prefix else (phrase,))


def _lengths(writer: Dump, reader: Dump) -> Iterator[Change]:
    if writer.has_counts != reader.has_counts:
        ours, theirs = (f"arrays, length {'known' if each.has_counts else 'unknown'}" for each in (writer, reader))
        yield Change(LENGTHS_UNKNOWN, MACHINE, (), ours, theirs, WHILE, "each array has as many elements on both sides")
