"""The bytes of a section in one build of QEMU, and what each difference from another build does to a migration.

QEMU's streams carry no names: a section's bytes are read by position. So what counts is whether the reader takes
the same sizes in the same order (migration/vmstate.c, vmstate_load_state):

- a section's version must lie between the reader's minimum_version_id and version_id;
- a field is there if its version_id is not above the section's version, for the writer and for the reader;
- inside a struct the struct's own version_id counts instead, on each side its own: the stream does not carry it;
- a field with a condition (`field_exists`) is there or not as the device's own code decides, with all that lies in it;
- unused bytes are written as zeros, and what is read for them is dropped: only how many there are counts;
- a subsection is sent where it is needed, by name; one that the reader lacks ends the migration.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, pairwise
from typing import Final, TypeAlias

from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change, ChangeRule, Effect
from tagged_vmstate.errors import LimitError
from tagged_vmstate.paths import format_path
from tagged_vmstate.text import counted

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
IN_STRUCT: Final = (
    "inside a struct the struct's own version counts, and the stream does not carry it: move the field into a subsection, "
    "or raise the section's version_id together with the version of a VMSTATE_VSTRUCT"
)
"""The remedy for a field that only one side has in a struct that both have."""
FIELD_RESIZED: Final = ChangeRule("qemu-field-resized", "a field of another size", "give it its old size on the wire")
FIELD_RENAMED: Final = ChangeRule(
    "qemu-field-renamed", "another name for the same bytes", "nothing for QEMU; `export --like` takes it as --alias"
)
CONDITIONS: Final = "compare the two conditions in QEMU's source"
"""The remedy where two fields are conditional, and the same bytes."""
FIELD_MOVED: Final = ChangeRule("qemu-field-moved", "a field in another place", "give it its old place")
FIELD_UNUSED: Final = ChangeRule(
    "qemu-field-unused", "unused bytes in place of fields", "nothing has to be done: as many bytes are read as are written"
)
LENGTH_UNKNOWN: Final = ChangeRule(
    "qemu-length-unknown",
    "a field whose length the dump does not contain",
    "compare dumps of QEMU 8.1 or later, or look into QEMU's source",
)
STRUCT_MOVED: Final = ChangeRule(
    "qemu-struct-moved", "the same fields inside a struct, or out of one", "nothing has to be done: the bytes are the same"
)
STRUCT_VERSION: Final = ChangeRule(
    "qemu-struct-version",
    "a struct of another version, which the stream does not carry",
    "see in QEMU's source which conditions of its fields ask for the version",
)
CONDITION_CHANGED: Final = ChangeRule(
    "qemu-condition-changed", "a condition on one side only", "see that the condition holds for this machine"
)
SUBSECTION_UNKNOWN: Final = ChangeRule(
    "qemu-subsection-unknown", "a subsection that the reader lacks", "leave unused what needs it"
)


FIELDS: Final = 1 << 18
"""Fields and subsections of the reader that are compared at most, those of a type again for each section: a PC has 4,000."""

_Words: TypeAlias = tuple[str, str]
"""What the writer has, and the reader."""
_Verdict: TypeAlias = tuple[Effect, str]
"""The effect, and for `while` its condition."""
_REFUSED: Final[_Verdict] = REFUSED, ""
_FINE: Final[_Verdict] = FINE, ""
_UNLESS_NEEDED: Final[_Verdict] = WHILE, "it is not needed, and so not sent"
"""Of a subsection, and of what lies in it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that is bytes of its own.

    Attributes:
        path: The structs that it lies in, and its name.
        key: Its name, and its ordinal among all fields of that name, in any struct.
        size: Bytes of an element; None where they vary, or QEMU's own code delimits them.
        counts: For each level of the path, how many elements there are. 0: one, or as many as another field holds. None: unknown.
        version: The first version of the section that has it; 0 where a condition decides alone.
        conditions: For each level of the path, whether the device's own code decides that it is there.
        is_unused: Its bytes mean nothing.
        owner: The description that it stands in, as QEMU's messages name it.
    """

    path: tuple[str, ...]
    key: tuple[str, int]
    size: int | None
    counts: tuple[int | None, ...]
    version: int = 0
    conditions: tuple[bool, ...] = ()
    is_unused: bool = False
    owner: str = ""

    @property
    def is_conditional(self) -> bool:
        """Whether it may be there or not, or what it lies in."""
        return any(self.conditions)

    @property
    def count(self) -> int:
        """How many elements there are in all, as far as it is known."""
        return math.prod(each or 1 for each in self.counts)

    @property
    def length(self) -> int:
        """Bytes on the wire, as far as it is known."""
        return (self.size or 0) * self.count

    @property
    def is_known(self) -> bool:
        """Whether `length` is all there is to it."""
        return self.size is not None and None not in self.counts

    @property
    def words(self) -> str:
        """Its length in words."""
        if self.size is None:
            return "bytes of unknown length"
        times = f"{self.count} x " if self.count != 1 else ""
        return f"{times}{counted(self.size, 'byte')}"


@dataclass(frozen=True, slots=True)
class Description:
    """A device, a subsection or what lies in one.

    Attributes:
        name: Of the section in the stream.
        version: What is written.
        minimum: What is still read.
        leaves: Its fields in their order.
        subsections: Structs and name -> what it is, those of structs inside included. The second of a name has a number,
            `name[1]`: QEMU always reads the first.
        holder: For a subsection, the description that it belongs to.
        structs: Structs that it holds -> the version of each.
    """

    name: str
    version: int
    minimum: int
    leaves: tuple[Leaf, ...]
    subsections: Mapping[tuple[str, ...], Description]
    holder: str = ""
    structs: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    @property
    def extent(self) -> int:
        """How many fields and subsections it has, those inside included."""
        return len(self.leaves) + sum(1 + each.extent for each in self.subsections.values())

    def at(self, version: int) -> list[Leaf]:
        """The fields that a section of a version has."""
        return [leaf for leaf in self.leaves if leaf.version <= version]


class Budget:
    """What is left of `FIELDS`: sections of one name may all be compared with one description."""

    def __init__(self) -> None:
        self._left = FIELDS

    def take(self, theirs: Description) -> None:
        """Count what the reader has as compared. Raises LimitError where that is too much."""
        self._left -= theirs.extent
        if self._left < 0:
            raise LimitError(f"at most {FIELDS} fields and subsections to compare", "more", offset=0, source="dump")


def differences(
    device: str, ours: Description, theirs: Description, section: str = "", *, is_sent: bool = False
) -> Iterator[Change]:
    """What differs for a build that reads a section that another writes.

    Args:
        device: The device's type.
        ours: What is written.
        theirs: What is read.
        section: The name of the section in the stream, with the device's bus path; that of the description unless given.
        is_sent: What is written is what a stream holds, its subsections too, and not what a stream may hold.
    """
    yield from _sections(_Site(device, section or ours.name, is_sent), ours, theirs)


@dataclass(frozen=True, slots=True)
class _Site:
    """A section, or a subsection of one."""

    device: str
    section: str
    is_sent: bool
    above: tuple[str, ...] = ()

    def inside(self, path: tuple[str, ...]) -> _Site:
        """A subsection."""
        return _Site(self.device, self.section, self.is_sent, (*self.above, *path))

    def change(
        self, rule: ChangeRule, path: tuple[str, ...], words: _Words, verdict: _Verdict, phrases: tuple[str, ...] = ()
    ) -> Change:
        """A difference at a place in it."""
        if self.above and not self.is_sent and verdict == _REFUSED:
            verdict = _UNLESS_NEEDED
        return Change(rule, self.device, (*self.above, *path), *words, *verdict, self.section, phrases)

    def misfit(self, leaf: Leaf) -> tuple[str, ...]:
        """QEMU's messages for a section of which it reads too much or too little, from a field on."""
        return f"Missing section footer for {self.section}", f"Failed to load {leaf.owner}:{leaf.path[-1]}"


def _sections(site: _Site, ours: Description, theirs: Description) -> Iterator[Change]:
    words: _Words = f"version {ours.version}", f"{theirs.minimum} to {theirs.version}"
    incoming = f"{theirs.name}: incoming version_id {ours.version} is too"
    if ours.version > theirs.version:
        unsupported = f"savevm: unsupported version {ours.version} for '{site.section}' v{theirs.version}"
        too_new = f"{incoming} new for local version_id {theirs.version}" if site.above else unsupported
        yield site.change(VERSION_NEW, (), words, _REFUSED, (too_new,))
    elif ours.version < theirs.minimum:
        yield site.change(VERSION_OLD, (), words, _REFUSED, (f"{incoming} old for local minimum version_id",))
    version = min(ours.version, theirs.version)
    yield from _Fields(site, ours.at(ours.version), theirs.at(version)).changes()
    yield from _struct_versions(site, ours, theirs)
    names: dict[str, Description] = {}
    for each in theirs.subsections.values():
        names.setdefault(each.name, each)
    for path, inner in ours.subsections.items():
        other = theirs.subsections.get((*path[:-1], inner.name)) or names.get(inner.name)
        if other is not None:
            yield from _sections(site.inside(path), inner, other)
            continue
        phrases = (
            f"VM subsection '{inner.name}' in '{inner.holder}' does not exist",
            f"error while loading state for instance 0x0 of device '{site.section}'",
        )
        verdict = _REFUSED if site.is_sent else _UNLESS_NEEDED
        yield site.change(SUBSECTION_UNKNOWN, path, ("a subsection", "nothing"), verdict, phrases)


def _struct_versions(site: _Site, ours: Description, theirs: Description) -> Iterator[Change]:
    """Structs of other versions: no stream has those, and QEMU compares none, but a field's condition may ask for it."""
    asked = {path for side in (ours, theirs) for leaf in side.leaves for path in _conditional(leaf)}
    for path, version in ours.structs.items():
        other = theirs.structs.get(path, version)
        if version != other:
            words = f"version {version}", f"version {other}"
            may_ask: _Verdict = WHILE, "no condition of its fields asks for the version"
            verdict = may_ask if path in asked else _FINE
            yield site.change(STRUCT_VERSION, path, words, verdict)


def _conditional(leaf: Leaf) -> Iterator[tuple[str, ...]]:
    """The structs inside which it has a condition."""
    last = max((level for level, is_so in enumerate(leaf.conditions) if is_so), default=0)
    return (leaf.path[:end] for end in range(1, last + 1))


class _Fields:
    """The fields of a section in two builds: by name and place, each difference once, none hiding the next."""

    def __init__(self, site: _Site, ours: list[Leaf], theirs: list[Leaf]) -> None:
        self._site = site
        self._ours, self._theirs = ours, theirs
        self._names = {leaf.key for leaf in ours} & {leaf.key for leaf in theirs if not leaf.is_unused}
        self._reported: set[tuple[ChangeRule, tuple[str, ...]]] = set()

    def changes(self) -> Iterator[Change]:
        """What differs."""
        lost: list[Leaf] = []
        new: list[Leaf] = []
        i = k = 0
        for j, m in [*_in_order(self._ours, self._theirs, self._names), (len(self._ours), len(self._theirs))]:
            left, right = self._ours[i:j], self._theirs[k:m]
            i, k = j + 1, m + 1
            runs = _aligned(*([leaf for leaf in side if leaf.key not in self._names] for side in (left, right)))
            for run in runs:
                yield from self._replaced(*run)
            known = {id(leaf) for run in runs for side in run for leaf in side}
            rest = [[leaf for leaf in side if id(leaf) not in known] for side in (left, right)]
            if all(rest) and _may_fit(*rest):
                yield self._unknown(*rest)
            else:
                lost += rest[0]
                new += rest[1]
            if j < len(self._ours):
                yield from self._pair(self._ours[j], self._theirs[m])
        yield from self._unpaired(lost, new)

    def _unpaired(self, lost: list[Leaf], new: list[Leaf]) -> Iterator[Change]:
        places = {leaf.key: leaf for leaf in new}
        gone = {leaf.key for leaf in lost}
        for leaf in lost:
            if leaf.key in places:
                words = "it", "it, in another place"
                verdict = _unless(leaf, places[leaf.key])
                yield self._site.change(FIELD_MOVED, leaf.path, words, verdict, self._site.misfit(leaf))
        yield from self._one_sided(FIELD_UNKNOWN, [leaf for leaf in lost if leaf.key not in places], self._theirs)
        yield from self._one_sided(FIELD_MISSING, [leaf for leaf in new if leaf.key not in gone], self._ours)

    def _one_sided(self, rule: ChangeRule, leaves: list[Leaf], others: list[Leaf]) -> Iterator[Change]:
        """Fields that only one side has, a struct at a time where the other side has none of it."""
        known = {leaf.path[:end] for leaf in others for end in range(1, len(leaf.path))}
        in_struct = replace(rule, remedy=IN_STRUCT)

        def top(leaf: Leaf) -> tuple[str, ...]:
            return next((leaf.path[:end] for end in range(1, len(leaf.path)) if leaf.path[:end] not in known), leaf.path)

        for path, group in groupby(leaves, top):
            inside = list(group)
            length = inside[0].words if inside[0].path == path else f"a struct of {_length(inside)}"
            words = (length, "nothing") if rule is FIELD_UNKNOWN else ("nothing", length)
            is_sure = not all(leaf.is_conditional for leaf in inside)
            verdict = _REFUSED if is_sure else (WHILE, "its condition does not hold")
            found = in_struct if len(path) > 1 else rule
            yield self._site.change(found, path, words, verdict, self._site.misfit(inside[0]))

    def _pair(self, ours: Leaf, theirs: Leaf) -> Iterator[Change]:
        yield from self._sized(ours, theirs)
        if len(ours.path) != len(theirs.path):
            yield self._site.change(STRUCT_MOVED, ours.path, (_quoted(ours), _quoted(theirs)), _FINE)
        yield from self._condition(ours, theirs)

    def _condition(self, ours: Leaf, theirs: Leaf) -> Iterator[Change]:
        if ours.is_conditional == theirs.is_conditional:
            return
        words = ("a condition", "no condition") if ours.is_conditional else ("no condition", "a condition")
        level = (ours.conditions if ours.is_conditional else theirs.conditions).index(True) + 1
        path = ours.path[:level] if len(ours.path) == len(theirs.path) else ours.path
        if self._is_new(CONDITION_CHANGED, path):
            phrases = self._site.misfit(theirs)
            yield self._site.change(CONDITION_CHANGED, path, words, (WHILE, "the condition holds"), phrases)

    def _is_new(self, rule: ChangeRule, path: tuple[str, ...]) -> bool:
        """Whether a struct has not been reported yet."""
        is_new = (rule, path) not in self._reported
        self._reported.add((rule, path))
        return is_new

    def _sized(self, ours: Leaf, theirs: Leaf) -> Iterator[Change]:
        if ours.size is None or theirs.size is None:
            if ours.size != theirs.size:
                yield self._unknown([ours], [theirs])
            return
        counts = list(zip(ours.counts, theirs.counts, strict=False))
        if ours.size == theirs.size and None in (*ours.counts, *theirs.counts):
            return  # one finding for all arrays says that their lengths are unknown
        if ours.length == theirs.length:
            return
        level = next((level for level, (mine, other) in enumerate(counts) if (mine or 1) != (other or 1)), len(counts) - 1)
        is_array = ours.size == theirs.size and len(ours.path) == len(theirs.path)
        path = ours.path[: level + 1] if is_array else ours.path
        if not self._is_new(FIELD_RESIZED, path):
            return
        verdict = _unless(ours, theirs)
        if is_array and 0 in counts[level] and verdict is _REFUSED:
            verdict = WHILE, "another field holds its length, and that is the same"
        words = (_elements(ours, level), _elements(theirs, level)) if is_array else (ours.words, theirs.words)
        yield self._site.change(FIELD_RESIZED, path, words, verdict, self._site.misfit(theirs))

    def _replaced(self, before: Sequence[Leaf], after: Sequence[Leaf]) -> Iterator[Change]:
        """Fields that are the same bytes as others."""
        if _is_unused(before) and _is_unused(after):
            return
        if _is_unused(before) or _is_unused(after):
            named = before if _is_unused(after) else after
            unused = counted(sum(leaf.length for leaf in named), "unused byte")
            words = (_named(before), f"{unused} (dropped)") if named is before else (f"{unused} (zeros)", _named(after))
            is_sure = not any(leaf.is_conditional for leaf in (*before, *after))
            verdict: _Verdict = _FINE if is_sure else (WHILE, "the conditions agree")
            rule = FIELD_UNUSED if is_sure else replace(FIELD_UNUSED, remedy=CONDITIONS)
            yield self._site.change(rule, named[0].path, words, verdict)
        elif len(before) == len(after) == 1:
            [ours], [theirs] = before, after
            words = _quoted(ours), _quoted(theirs)
            is_both = ours.is_conditional and theirs.is_conditional
            verdict = (WHILE, "the two conditions agree") if is_both else _FINE
            rule = replace(FIELD_RENAMED, remedy=CONDITIONS) if is_both else FIELD_RENAMED
            yield self._site.change(rule, ours.path, words, verdict)
            yield from self._condition(ours, theirs)
        else:
            words = _named(before), _named(after)
            rule = replace(FIELD_RENAMED, remedy="see in QEMU's source that they do")
            yield self._site.change(rule, before[0].path, words, (WHILE, "the bytes mean the same"))

    def _unknown(self, before: Sequence[Leaf], after: Sequence[Leaf]) -> Change:
        unknown = [("" if all(leaf.is_known for leaf in side) else "length unknown") for side in (before, after)]
        words = _named(before, unknown[0]), _named(after, unknown[1])
        phrases = self._site.misfit(after[0])
        return self._site.change(LENGTH_UNKNOWN, before[0].path, words, (WHILE, "they are as many bytes"), phrases)


def _in_order(ours: list[Leaf], theirs: list[Leaf], names: set[tuple[str, int]]) -> Iterator[tuple[int, int]]:
    """The places, on both sides, of as many fields as there are in the same order: the others moved.

    The longest run of rising places, found from the end in n log n steps.
    """
    places = {leaf.key: place for place, leaf in enumerate(theirs) if leaf.key in names}
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


def _aligned(left: list[Leaf], right: list[Leaf]) -> list[tuple[Sequence[Leaf], Sequence[Leaf]]]:
    """Fields that are the same bytes under other names: all, all that have no condition, or those that are unused on one side."""
    without = [[leaf for leaf in side if not leaf.is_conditional] for side in (left, right)]
    for ours, theirs in ((left, right), without):
        if sum(leaf.length for leaf in ours) == sum(leaf.length for leaf in theirs):
            runs = _runs(ours, theirs)
            if all(ours and theirs for ours, theirs in runs):
                return runs
    return [run for run in _runs(left, right) if all(run) and any(map(_is_unused, run))]


def _runs(left: list[Leaf], right: list[Leaf]) -> list[tuple[Sequence[Leaf], Sequence[Leaf]]]:
    """Fields from one place to the next at which one begins on either side."""
    ends = [{end: at for at, end in enumerate(accumulate(leaf.length for leaf in side), 1)} for side in (left, right)]
    cuts = [(0, 0), *((at, ends[1][end]) for end, at in ends[0].items() if end in ends[1])]
    return [(left[i:j], right[k:m]) for (i, k), (j, m) in pairwise(cuts)]


def _is_unused(leaves: Sequence[Leaf]) -> bool:
    return all(leaf.is_unused for leaf in leaves)


def _may_fit(left: Sequence[Leaf], right: Sequence[Leaf]) -> bool:
    """Whether fields may be as many bytes as others, for all that the dumps contain."""
    both = *left, *right
    is_any_size = any(leaf.size is None for leaf in both)
    return is_any_size or ((_is_unused(left) or _is_unused(right)) and not all(leaf.is_known for leaf in both))


def _unless(ours: Leaf, theirs: Leaf) -> _Verdict:
    """What comes of a field that the other side cannot read."""
    return (WHILE, "neither side's condition holds") if ours.is_conditional and theirs.is_conditional else _REFUSED


def _elements(leaf: Leaf, level: int) -> str:
    """How many there are of the field or struct at a level."""
    count = leaf.counts[level] or 1
    if level == len(leaf.path) - 1:
        return f"{count} x {counted(leaf.size or 0, 'byte')}"
    return counted(count, "element")


def _quoted(leaf: Leaf) -> str:
    return f"`{format_path(None, leaf.path)}`"


def _length(leaves: Sequence[Leaf]) -> str:
    return counted(sum(leaf.length for leaf in leaves), "byte")


def _named(leaves: Sequence[Leaf], length: str = "", most: int = 5) -> str:
    """Fields in a row, and their length."""
    names = ", ".join(map(_quoted, leaves[:most])) + (f" and {len(leaves) - most} more" if len(leaves) > most else "")
    return f"{names} ({length or _length(leaves)})"
