"""Will this stream load there? A stream's own description against the tables of another QEMU (`-dump-vmstate`).

A stream is a section's table in which everything is decided: its fields were written, its arrays have their elements, its
subsections were sent. So the comparison is that of `differences`, with what only a stream decides:

- a field that the reader has on a condition may be there or not, and one of several of a name is enough;
- a subsection that the reader lacks ends the load, because it was sent;
- what QEMU writes by code of its own delimits itself: its size in the stream says nothing of the reader;
- an array without elements is not in the description at all: a struct that is missing may be one. One of plain values looks like
  a field that is missing, and is reported as that.

A dump lists device types. What QEMU registers beside them, and what the stream does not describe, cannot be judged.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, TypeAlias

from tagged_vmstate.changes import REFUSED, Change
from tagged_vmstate.errors import StateError
from tagged_vmstate.qemu import stream
from tagged_vmstate.qemu.differences import FIELD_MISSING, Budget, Description, Leaf, differences
from tagged_vmstate.qemu.dumpstate import DEVICE_UNKNOWN, Dump, machine_changes, unknown_section
from tagged_vmstate.qemu.export import Origin
from tagged_vmstate.qemu.vmdesc import NULL, UNUSED, Field, Struct, is_null, number_type
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.wiretype import brief

CANDIDATES: Final = 16
"""Device types of one section name that are tried; in QEMU 7.2 to 11.1 at most two differ."""
OUTSIDE: Final = frozenset(
    (
        *("acpi_build", "ads7846", "apic", "arm_timer", "audio", "cpu", "cpu_common", "designware-pcie-host", "eeprom"),
        *("globalstate", "i2c_bus", "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b", "i82559a"),
        *("i82559b", "i82559c", "i82559er", "i82562", "i82801", "ide", "ipmi-bmc-sim", "ipmi-interface", "isa-ide", "onenand"),
        *("PCIBUS", "pxa2xx_cm", "pxa2xx_i2s", "pxa2xx_keypad", "pxa2xx_lcdc", "pxa2xx_mm", "pxa2xx_pm", "s390-skeys"),
        *("s390_css", "slirp", "timer", "todclock", "tsc2301", "vga", "virt_acpi_build"),
    )
)
"""Sections that QEMU 7.2, 10.0 or 11.1 registers beside its device types, so that no dump has them."""
PCI: Final = "PCIDevice"
"""What describes a PCI device inside: the name of its section has its place on the bus."""
_BYTES: Final = frozenset({"buffer", UNUSED})
_NUMBERED: Final = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A section that was not compared, or only by its name and version.

    Attributes:
        section: Its label.
        reason: Why not.
    """

    section: str
    reason: str


NOT_IN_DUMP: Final = "not in the dump"
NOT_DESCRIBED: Final = "compared only by name and version, because the stream does not describe it"
IN_TURNS: Final = "sent in turns, which nothing describes"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a stream loads.

    Attributes:
        changes: What differs, in the order of the sections; `Change.section` has the name of each in the stream.
        sections: Label of each section that was compared -> the device type that it was compared with.
        unjudged: Those that were not compared.
        is_described: The stream describes its devices.
    """

    changes: list[Change]
    sections: dict[str, str]
    unjudged: list[Unjudged]
    is_described: bool

    @property
    def loads(self) -> bool | None:
        """Whether it loads as far as the two say; None where the stream does not describe its devices."""
        if any(change.effect == REFUSED for change in self.changes):
            return False
        return True if self.is_described else None


def judge(sections: Sections, reader: Dump) -> Verdict:
    """Compare a stream with what the dump of another QEMU contains.

    Args:
        sections: The stream, or what an import made of it.
        reader: The dump.

    Raises:
        StateError: It did not come from a QEMU stream of savevm version 3.
        FormatError: It is damaged.
        LimitError: There is more to compare than `differences.FIELDS`.
    """
    items = list(Origin(_WithoutMemory(sections)).items())
    judging = _Judging(reader, is_described=any(struct for _, _, struct in items))
    for section, said, struct in items:
        judging.take(section, said, struct)
    return judging.verdict


def names(sections: Sections) -> frozenset[str]:
    """The section names of a stream's devices, as a dump has them: without bus paths.

    Args:
        sections: The stream, or what an import made of it.

    Raises:
        StateError: It did not come from a QEMU stream of savevm version 3, or does not describe its devices.
        FormatError: It is damaged.
    """
    found = [struct.name for _, _, struct in Origin(_WithoutMemory(sections)).items() if struct]
    if not found:
        raise StateError("a stream that describes its devices", "one without a description")
    return frozenset(found)


class _WithoutMemory:
    """The sections of a stream that a dump may have: memory is not, and would stay in memory."""

    def __init__(self, sections: Sections) -> None:
        self.raw_attributes = sections.raw_attributes
        self._sections = sections

    def __iter__(self) -> Iterator[Section]:
        return (section for section in self._sections if section.device != stream.RAM)


class _Judging:
    """One stream."""

    def __init__(self, reader: Dump, *, is_described: bool) -> None:
        self.verdict = Verdict([], {}, [], is_described)
        self._reader = reader
        self._budget = Budget()
        on_pci = {name for name, each in reader.devices.items() if any(leaf.owner == PCI for leaf in each.leaves)}
        self._off_bus = reader.only(reader.devices.keys() - on_pci)

    def take(self, section: Section, said: Mapping[str, Any], struct: Struct | None) -> None:
        """One more section, or what stands between them."""
        if said["type"] == stream.CONFIGURATION:
            machine = next((record.value for record in section.records() if record.name == "name"), None)
            if isinstance(machine, str):
                self.verdict.changes.extend(machine_changes(machine, self._reader.machine))
        elif said["type"] == stream.SECTION_FULL:
            self._device(section, said, struct)
        elif said["type"] == stream.COMMAND:
            self._leave(
                section, f"command 0x{_number(section, said, 'command'):x} of the migration, which only a later QEMU may know"
            )
        else:
            self._leave(section, IN_TURNS)

    def _leave(self, section: Section, reason: str) -> None:
        self.verdict.unjudged.append(Unjudged(section.label, reason))

    def _device(self, section: Section, said: Mapping[str, Any], struct: Struct | None) -> None:
        version = _number(section, said, "version")
        name = struct.name if struct and struct.name else self._name(section.device)
        fitting = self._reader if "/" in section.device else self._off_bus
        types = fitting.types.get(name, ())[:CANDIDATES]
        if not types:
            if name in OUTSIDE:
                self._leave(section, NOT_IN_DUMP)
            else:
                instance = _number(section, {"instance": section.instance, **said}, "instance")
                phrases = unknown_section(section.device, instance)
                words = "it", "no device type"
                self.verdict.changes.append(Change(DEVICE_UNKNOWN, name, (), *words, REFUSED, "", section.label, phrases))
            return
        if struct is None or not struct.name:
            struct = None
            self._leave(section, NOT_DESCRIBED)
        best: list[Change] | None = None
        for device in types:
            theirs = self._reader.devices[device]
            if struct is None:  # what is left is its version
                theirs = replace(theirs, leaves=(), subsections={})
            written = struct or Struct(name, version, (), ())
            found = list(dict.fromkeys(_Comparison(device, section, self._budget).changes(written, version, theirs)))
            if best is None or _badness(found) < _badness(best):
                best, self.verdict.sections[section.label] = found, device
        self.verdict.changes.extend(best or ())

    def _name(self, idstr: str) -> str:
        """The section's name without the device's bus path, which ends with a slash."""
        ends = [idstr, *(idstr[match.end() :] for match in re.finditer("/", idstr))]
        return next((end for end in ends if end in self._reader.types), ends[-1])


def _number(section: Section, said: Mapping[str, Any], key: str) -> int:
    """A number that the import noted. Raises StateError where it did not."""
    value = said.get(key)
    if isinstance(value, int) and 0 <= value < 1 << 32:
        return value
    error = StateError("what `import` notes of a QEMU stream, in the attributes", f"{key} {brief(value)}")
    error.section = section.label
    raise error


def _badness(changes: Sequence[Change]) -> tuple[int, int]:
    return sum(change.effect == REFUSED for change in changes), len(changes)


@dataclass(frozen=True, slots=True)
class _Written:
    """A field in the stream that is bytes of its own.

    Attributes:
        path: As in `Leaf`.
        ordinal: Which of those of the path it is, where the stream says it of the field or of a struct that it lies in.
        size: Bytes of an element; None where QEMU's own code delimits them.
        counts: For each level of the path, how many elements there are.
        is_unused: As in `Leaf`.
        owner: As in `Leaf`.
    """

    path: Path
    ordinal: int | None
    size: int | None
    counts: tuple[int, ...]
    is_unused: bool
    owner: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """A description of the stream, or the struct in one that an element of an array is, and the reader's.

    Attributes:
        above: The subsections that it lies in.
        inside: The structs of the description that it lies in.
        counts: How many there are of each of these.
        struct: The stream's.
        version: The section's version.
        theirs: The reader's, of the same place.
        holder: As in `Description`.
    """

    above: Path
    inside: Path
    counts: tuple[int, ...]
    struct: Struct
    version: int
    theirs: Description
    holder: str = ""


class _Comparison:
    """One section with one device type."""

    def __init__(self, device: str, section: Section, budget: Budget) -> None:
        self._budget = budget
        self._device = device
        self._section = section
        self._maybe_empty: set[Path] = set()
        self._waiting: list[_Pair] = []

    def changes(self, struct: Struct, version: int, theirs: Description) -> Iterator[Change]:
        """What differs, once for all elements of an array."""
        self._waiting.append(_Pair((), (), (), struct, version, theirs))
        while self._waiting:
            pair = self._waiting.pop()
            for change in differences(self._device, *self._fitted(pair), self._section.device, is_sent=True):
                path = (*pair.above, *change.path)
                is_empty = change.rule.id == FIELD_MISSING.id and path in self._maybe_empty
                condition = "it is an array without elements there" if is_empty else change.condition
                yield replace(change, path=path, condition=condition, section=self._section.label)

    def _fitted(self, pair: _Pair) -> tuple[Description, Description]:
        """The stream's description as `differences` takes it, and the reader's as the stream decides it."""
        self._budget.take(pair.theirs)
        opened = _Opened(pair, self._budget)
        self._waiting += opened.others
        fit = _Fit(opened, pair.theirs)
        self._maybe_empty.update((*pair.above, *path) for path in fit.maybe_empty)
        ours: dict[Path, Description] = {}
        theirs: dict[Path, Description] = {}
        names = {each.name: each for each in pair.theirs.subsections.values()}
        for path, holder, inner in opened.subsections:
            other = pair.theirs.subsections.get(path) or names.get(inner.name)
            if other is None:
                ours[path] = Description(inner.name, inner.version, 0, (), {}, holder)
            else:
                below = _Pair((*pair.above, *path), (), (), inner, inner.version, other, holder)
                ours[path], theirs[path] = self._fitted(below)
        mine = Description(pair.struct.name, pair.version, 0, tuple(fit.ours), ours, pair.holder, opened.structs)
        return mine, replace(pair.theirs, leaves=tuple(fit.theirs), subsections=theirs)


class _Opened:
    """Opens the structs of a description of the stream, as `dumpstate` opens those of a dump: one element of each array.

    Attributes:
        leaves: Its fields in their order.
        structs: The structs in it -> the version of each.
        subsections: (structs and name, the description that it belongs to, what it is), those of structs inside included.
        others: The other elements of its arrays that are described otherwise.
    """

    def __init__(self, pair: _Pair, budget: Budget) -> None:
        self._budget = budget
        self.leaves: list[_Written] = []
        self.structs: dict[Path, int] = {}
        self.subsections: list[tuple[Path, str, Struct]] = []
        self.others: list[_Pair] = []
        self._pair = pair
        self._known = {part for leaf in pair.theirs.leaves for part in leaf.path}
        self._open(pair.struct, pair.inside, pair.counts)

    def _open(self, struct: Struct, path: Path, counts: tuple[int, ...], outer: int | None = None) -> None:
        self.structs[path] = struct.version
        for numbered, group in groupby(struct.fields, lambda field: field.name):
            entries = list(group)
            name, ordinal = self._name(numbered, outer)
            here, there = (*path, name), (*counts, sum(field.count for field in entries))
            shapes = dict.fromkeys(field.struct for field in entries if field.struct and not is_null(field, NULL))
            if shapes:
                first, *others = shapes
                self._open(first, here, there, ordinal)
                self.others += (self._part(other, here, there) for other in others)
            else:
                is_unused = all(field.type == UNUSED for field in entries)
                self.leaves.append(_Written(here, ordinal, _size(entries), there, is_unused, struct.name))
        self.subsections += (((*path, each.name), struct.name, each) for each in struct.subsections)

    def _name(self, numbered: str, outer: int | None) -> tuple[str, int | None]:
        """The name of a field in QEMU's source, where several in a description may have it: the stream numbers them."""
        match = _NUMBERED.fullmatch(numbered)
        is_number = match and numbered not in self._known and match[1] in self._known
        return (match[1], int(match[2])) if match and is_number else (numbered, outer)

    def _part(self, struct: Struct, path: Path, counts: tuple[int, ...]) -> _Pair:
        theirs = self._pair.theirs
        self._budget.take(theirs)
        leaves = tuple(leaf for leaf in theirs.leaves if leaf.path[: len(path)] == path)
        subsections = {key: each for key, each in theirs.subsections.items() if key[: len(path)] == path}
        part = replace(theirs, leaves=leaves, subsections=subsections)
        return _Pair(self._pair.above, path, counts, struct, theirs.version, part, self._pair.holder)


def _size(entries: Sequence[Field]) -> int | None:
    """Bytes of an element; None where they vary, or are others than in memory (a timer), or QEMU's own code delimits them."""
    is_plain = all((number_type(field) and field.type != "timer") or field.type in _BYTES for field in entries)
    sizes = {field.size for field in entries}
    return sizes.pop() if is_plain and len(sizes) == 1 else None


class _Fit:
    """The fields of a description in the stream and in the reader, with what only one of them knows taken from the other.

    Attributes:
        ours: The stream's.
        theirs: The reader's; those that the stream has are on no condition any more.
        maybe_empty: Structs of the reader's that the stream lacks, and that may be arrays without elements.
    """

    def __init__(self, opened: _Opened, theirs: Description) -> None:
        self.maybe_empty: set[Path] = set()
        self._structs = opened.structs
        leaves = _delimited(theirs.leaves, {leaf.path for leaf in opened.leaves if leaf.size is None})
        partners = _partners(opened.leaves, leaves)
        self._paths = {leaves[place].path for place in partners.values()}
        self.ours = []
        decided: dict[int, Leaf] = {}
        for number, mine in enumerate(opened.leaves):
            place = partners.get(number)
            if place is None:
                key = (mine.path[-1], len(leaves) + number)
                self.ours.append(Leaf(mine.path, key, mine.size, mine.counts, is_unused=mine.is_unused, owner=mine.owner))
            else:
                ours, decided[place] = _paired(mine, leaves[place])
                self.ours.append(ours)
        rest = (decided.get(place) or self._absent(leaf) for place, leaf in enumerate(leaves))
        self.theirs = [leaf for leaf in rest if leaf is not None]

    def _absent(self, leaf: Leaf) -> Leaf | None:
        """A field of the reader's that the stream lacks; None where it has another of the name in its place."""
        if leaf.is_conditional:
            return None if leaf.path in self._paths else leaf
        level = next((level for level in range(len(leaf.path) - 1) if leaf.path[: level + 1] not in self._structs), None)
        if level is None or leaf.counts[level]:
            return leaf
        self.maybe_empty.add(leaf.path[: level + 1])
        return replace(leaf, conditions=tuple(place == level for place in range(len(leaf.path))))


def _delimited(leaves: Sequence[Leaf], opaque: set[Path]) -> list[Leaf]:
    """The reader's fields, those that QEMU's own code writes as one each: a dump has what lies in a list, too."""
    found: list[Leaf] = []
    for leaf in leaves:
        level = next((level for level in range(1, len(leaf.path)) if leaf.path[:level] in opaque), None)
        if level is None:
            found.append(leaf)
        elif not found or found[-1].path != leaf.path[:level]:
            path, key = leaf.path[:level], (leaf.path[level - 1], -len(found) - 1)
            counts, conditions = leaf.counts[:level], leaf.conditions[:level]
            found.append(replace(leaf, path=path, key=key, size=None, counts=counts, conditions=conditions))
    return found


def _partners(ours: Sequence[_Written], theirs: Sequence[Leaf]) -> dict[int, int]:
    """Place of a field in the stream -> place in the reader of the one with its path, else of one with its name."""
    found: dict[int, int] = {}
    places: dict[Path, list[int]] = defaultdict(list)
    for place, leaf in enumerate(theirs):
        places[leaf.path].append(place)
    seen: Counter[Path] = Counter()
    taken: set[int] = set()
    for number, mine in enumerate(ours):
        here = places[mine.path]
        place = min(seen[mine.path] if mine.ordinal is None else mine.ordinal, len(here) - 1)
        seen[mine.path] += 1
        if here and here[place] not in taken:
            found[number] = here[place]
            taken.add(here[place])
    names: dict[str, list[int]] = defaultdict(list)
    for place in reversed(range(len(theirs))):
        if place not in taken:
            names[theirs[place].path[-1]].append(place)
    for number, mine in enumerate(ours):
        if number not in found and names[mine.path[-1]]:
            found[number] = names[mine.path[-1]].pop()
    return found


def _paired(mine: _Written, other: Leaf) -> tuple[Leaf, Leaf]:
    """The same field on both sides: what one of them leaves open is as the other has it."""
    size = other.size if mine.size is None else mine.size
    counts = other.counts
    if len(mine.path) == len(other.path):
        counts = tuple(theirs or ours for ours, theirs in zip(mine.counts, other.counts, strict=True))
    ours = Leaf(mine.path, other.key, size, mine.counts, is_unused=mine.is_unused, owner=mine.owner)
    return ours, replace(other, size=size if other.size is None else other.size, counts=counts, conditions=())
