"""Snapshot against snapshot: what differs in the state of two machines, by device, field and element.

Fields are matched by name. Flags and attributes are what writers say about a state and are not compared. Memory is
compared a window at a time, so that no more of it is held than that, however many parts it came in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, zip_longest
from typing import Any, Final, Literal, TypeAlias, cast

from tagged_vmstate.paths import Path, format_path
from tagged_vmstate.records import Record, Records, wire_type
from tagged_vmstate.snapshot import Snapshot, StoredSection
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Json, Opaque

WINDOW: Final = 4 << 20
"""Bytes of a memory that are compared at once."""
RANGES: Final = 1 << 10
"""Ranges that are kept of one field; the others are counted."""
PREVIEW: Final = 16
"""Bytes or elements of a range that are kept to be shown."""
_BLOCK: Final = 1 << 16
_DIFFERENT: Final = re.compile(rb"[^\0]")
_GAP: Final = bytes(PREVIEW)
"""So much is the same between two ranges; with less, a line of a hex dump, they are one."""
_PARTS: Final = 4
"""Decoded parts that are kept: memory that was sent again lies in several."""

Kind: TypeAlias = Literal["changed", "removed", "added"]
Ignore: TypeAlias = Callable[[str, Path], bool]
"""Whether a section's field, or all below it, is to be left out."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where bytes or elements differ.

    Attributes:
        start: The first that differs.
        count: How many, up to the last that differs.
        old: The first of them on the left, as JSON: bytes in hex, elements as a list.
        new: Those on the right.
    """

    start: int
    count: int
    old: Json
    new: Json


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: ``changed``, ``removed`` (only on the left) or ``added`` (only on the right).
        section: ``device#instance``.
        path: Field names and indexes; empty for a whole device.
        old_type: The type on the left, as ``uint32[4]``; empty where there is none.
        new_type: The type on the right.
        old: The value on the left, as JSON; None where `ranges` tell.
        new: The value on the right.
        ranges: Of bytes and arrays: where they differ, the first `RANGES`.
        more: Ranges beyond these.
        count: Bytes or elements that lie in all ranges.
    """

    kind: Kind
    section: str
    path: Path = ()
    old_type: str = ""
    new_type: str = ""
    old: Json = None
    new: Json = None
    ranges: tuple[Range, ...] = ()
    more: int = 0
    count: int = 0

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return format_path(self.section, self.path)


Part: TypeAlias = tuple[StoredSection, int, int]
"""A part of a section, and from where to where it has runs of some memory."""
Parts: TypeAlias = list[Part]
_Read: TypeAlias = Callable[[StoredSection], Mapping[str, Runs]]


@dataclass(slots=True)
class _Memory:
    """A sparse field over all parts of its section."""

    length: int
    parts: Parts = field(default_factory=list)


@dataclass(slots=True)
class _Device:
    """A section with all its parts; the values of memory are left in the file."""

    records: dict[str, Record] = field(default_factory=dict)
    memory: dict[str, _Memory] = field(default_factory=dict)

    def add(self, section: StoredSection) -> None:
        for record in section.records():
            if record.type != "sparse":
                self.records[record.name] = record.replace(is_default=False)
                continue
            memory = self.memory.setdefault(record.name, _Memory(record.length or 0))
            runs = cast("Runs", record.value)
            if runs:
                memory.parts.append((section, runs[0][0], runs[-1][0] + len(runs[-1][1])))

    def types(self) -> dict[str, str]:
        """Name -> type, of every field, in the order of the file."""
        types = {name: record.describe() for name, record in self.records.items()}
        return {**types, **{name: f"sparse[{memory.length}]" for name, memory in self.memory.items()}}


def diff(left: Snapshot, right: Snapshot, ignore: Ignore = lambda _section, _path: False) -> Iterator[Difference]:
    """What differs, device by device in the order of the left; what only the right has comes last.

    Args:
        left: A snapshot that can seek.
        right: The other.
        ignore: What to leave out.

    Raises:
        FormatError: One of the two is damaged.
    """
    ours, theirs = _labels(left), _labels(right)
    for label in [*ours, *(label for label in theirs if label not in ours)]:
        if ignore(label, ()):
            continue
        sides = ours.get(label), theirs.get(label)
        if sides[0] is None or sides[1] is None:
            yield Difference("removed" if sides[0] else "added", label)
            continue
        yield from _devices(label, _device(sides[0]), _device(sides[1]), ignore)


def _labels(snapshot: Snapshot) -> dict[str, list[StoredSection]]:
    found: dict[str, list[StoredSection]] = {}
    for section in snapshot:
        found.setdefault(section.label, []).append(section)
    return found


def _device(parts: Iterable[StoredSection]) -> _Device:
    found = _Device()
    for part in parts:
        found.add(part)
    return found


def _devices(label: str, left: _Device, right: _Device, ignore: Ignore) -> Iterator[Difference]:
    reads = lru_cache(_PARTS)(_part), lru_cache(_PARTS)(_part)
    for name in {**left.memory, **right.memory}:
        if name in left.memory and name in right.memory and not ignore(label, (name,)):
            yield from _memories(label, (name,), left.memory[name], right.memory[name], reads)
    both = left.types(), right.types()
    for name in (name for name in {**both[0], **both[1]} if (name in left.memory) != (name in right.memory)):
        if not ignore(label, (name,)):
            kind: Kind = "removed" if name not in both[1] else "added" if name not in both[0] else "changed"
            yield Difference(kind, label, (name,), both[0].get(name, ""), both[1].get(name, ""))
    plain = [
        {name: record for name, record in side.records.items() if name not in other.memory}
        for side, other in ((left, right), (right, left))
    ]
    yield from _structs(label, (), tuple(plain[0].values()), tuple(plain[1].values()), ignore)


def _structs(label: str, path: Path, left: Records, right: Records, ignore: Ignore) -> Iterator[Difference]:
    ours, theirs = ({record.name: record for record in side} for side in (left, right))
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        here = (*path, name)
        if not ignore(label, here):
            yield from _fields(label, here, ours.get(name), theirs.get(name), ignore)


def _fields(label: str, path: Path, left: Record | None, right: Record | None, ignore: Ignore) -> Iterator[Difference]:
    if left is None or right is None:
        there = cast("Record", left or right)
        value, kind = _json(there), there.describe()
        if left:
            yield Difference("removed", label, path, old_type=kind, old=value)
        else:
            yield Difference("added", label, path, new_type=kind, new=value)
    elif left.type == right.type == "struct":
        yield from _elements(label, path, left, right, ignore)
    elif (left.type, left.length) != (right.type, right.length):
        yield Difference("changed", label, path, left.describe(), right.describe(), _json(left), _json(right))
    elif _packed(left) != _packed(right):
        kind = left.describe()
        found = _ranges_of(left, right)
        if found:
            yield Difference("changed", label, path, kind, kind, None, None, *found)
        else:
            yield Difference("changed", label, path, kind, kind, _json(left), _json(right))


def _packed(record: Record) -> bytes:
    """The value as bytes: floats are compared bit by bit."""
    return wire_type(record.type).pack(record.value, record.length)


def _elements(label: str, path: Path, left: Record, right: Record, ignore: Ignore) -> Iterator[Difference]:
    """Structs, one or several; of arrays of other lengths, what only one side has."""
    if (left.length is None) != (right.length is None):
        yield Difference("changed", label, path, left.describe(), right.describe())
        return
    missing: Any = object()
    values = [(record.value,) if record.length is None else cast("Sequence[Any]", record.value) for record in (left, right)]
    for index, (ours, theirs) in enumerate(zip_longest(*values, fillvalue=missing)):
        here = path if left.length is None else (*path, index)
        if ignore(label, here):
            continue
        if ours is missing or theirs is missing:
            yield Difference("removed" if theirs is missing else "added", label, here)
        elif ours is None or theirs is None:
            if ours is not theirs:
                words = ["absent" if each is None else "present" for each in (ours, theirs)]
                yield Difference("changed", label, here, "struct", "struct", words[0], words[1])
        else:
            yield from _structs(label, here, ours, theirs, ignore)


def _json(record: Record) -> Json:
    return wire_type(record.type).to_json(record.value, record.length)


def _ranges_of(left: Record, right: Record) -> tuple[tuple[Range, ...], int, int] | None:
    """Where two values of one type and length differ; None for what has no places in it."""
    sides = [_bytes(record) for record in (left, right)]
    if sides[0] is not None and sides[1] is not None and len(sides[0]) == len(sides[1]):
        found = _Ranges()
        found.add(0, sides[0], sides[1])
        return found.result()
    if not isinstance(left.value, memoryview) or not isinstance(right.value, memoryview):
        return None
    width = left.value.itemsize
    views = left.value, right.value
    spans: list[list[int]] = []
    for start, end in _spans(views[0].tobytes(), views[1].tobytes()):
        low, high = start // width, -(-end // width)
        if spans and low <= spans[-1][1]:
            spans[-1][1] = high
        else:
            spans.append([low, high])
    ranges = [Range(low, high - low, *(_few(record, low, high) for record in (left, right))) for low, high in spans[:RANGES]]
    return tuple(ranges), max(len(spans) - RANGES, 0), sum(high - low for low, high in spans)


def _few(record: Record, low: int, high: int) -> Json:
    values = cast("memoryview", record.value)[low : min(high, low + PREVIEW)]
    return wire_type(record.type).to_json(values, len(values))


def _bytes(record: Record) -> bytes | None:
    if isinstance(record.value, Opaque):
        found = record.value.to_json()
        return bytes.fromhex(str(found["$hex"])) if isinstance(found, dict) and found.keys() == {"$hex"} else None
    return record.value if isinstance(record.value, bytes) else None


def _spans(left: bytes | bytearray, right: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where bytes of one length differ."""
    for start in range(0, len(left), _BLOCK):
        ours, theirs = left[start : start + _BLOCK], right[start : start + _BLOCK]
        if ours != theirs:
            mixed = (int.from_bytes(ours, "big") ^ int.from_bytes(theirs, "big")).to_bytes(len(ours), "big")
            last = len(mixed.rstrip(b"\0"))
            at = 0
            while match := _DIFFERENT.search(mixed, at):
                gap = mixed.find(_GAP, match.start())
                at = gap if gap >= 0 else last
                yield start + match.start(), start + at


class _Ranges:
    """The ranges of bytes that differ, found piece by piece."""

    def __init__(self) -> None:
        self._found: list[Range] = []
        self._more = 0
        self._count = 0
        self._end = -1

    def add(self, base: int, left: bytes | bytearray, right: bytes | bytearray) -> None:
        """Take in the bytes from a place on."""
        for start, end in _spans(left, right):
            gap = base + start - self._end
            goes_on = self._count > 0 and gap < PREVIEW
            self._count += end - start + gap * goes_on
            if goes_on and not self._more:
                last = self._found[-1]
                self._found[-1] = Range(last.start, last.count + gap + end - start, last.old, last.new)
            elif not goes_on and len(self._found) == RANGES:
                self._more += 1
            elif len(self._found) < RANGES:
                few = [side[start : min(end, start + PREVIEW)].hex(" ") for side in (left, right)]
                self._found.append(Range(base + start, end - start, *few))
            self._end = base + end

    def result(self) -> tuple[tuple[Range, ...], int, int]:
        """The ranges, how many more there were, and the bytes in all of them."""
        return tuple(self._found), self._more, self._count


def _memories(label: str, path: tuple[str], left: _Memory, right: _Memory, reads: tuple[_Read, _Read]) -> Iterator[Difference]:
    kinds = f"sparse[{left.length}]", f"sparse[{right.length}]"
    found = _Ranges()
    for start, end, *parts in _stretches(left.parts, right.parts):
        sides = [[read(section)[path[0]] for section, _, _ in each] for each, read in zip(parts, reads, strict=True)]
        if sides[0] == sides[1]:
            continue
        for low, high in _windows(start, end, [run for side in sides for runs in side for run in runs]):
            found.add(low, *(_window(side, low, high) for side in sides))
    ranges, more, count = found.result()
    if ranges or left.length != right.length:
        yield Difference("changed", label, path, *kinds, None, None, ranges, more, count)


def _stretches(left: Parts, right: Parts) -> Iterator[tuple[int, int, Parts, Parts]]:
    """From where to where which parts of both sides may have runs, in their order; elsewhere both are zero."""
    waiting = [sorted(enumerate(parts), key=lambda each: each[1][1], reverse=True) for parts in (left, right)]
    active: list[dict[int, Part]] = [{}, {}]
    for start, end in pairwise(sorted({place for _, *places in (*left, *right) for place in places})):
        for parts, later in zip(active, waiting, strict=True):
            for number in [number for number, (_, _, high) in parts.items() if high <= start]:
                del parts[number]
            while later and later[-1][1][1] <= start:
                parts.update([later.pop()])
        if any(active):
            ours, theirs = ([parts[number] for number in sorted(parts)] for parts in active)
            yield start, end, ours, theirs


def _part(section: StoredSection) -> dict[str, Runs]:
    """The runs of each memory in one part."""
    return {record.name: cast("Runs", record.value) for record in section.records() if record.type == "sparse"}


def _windows(start: int, end: int, runs: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    """From where to where bytes are compared at once, so that every byte of a run between two places is."""
    low = start
    for offset, data in sorted(runs, key=lambda run: run[0]):
        low = max(low, offset)
        while low < min(offset + len(data), end):
            yield low, min(low + WINDOW, end)
            low += WINDOW


def _window(side: Sequence[Runs], start: int, end: int) -> bytearray:
    """The bytes of a memory from one place to another; what comes later overwrites."""
    found = bytearray(end - start)
    for runs in side:
        for offset, data in runs:
            first, last = max(offset, start), min(offset + len(data), end)
            if first < last:
                found[first - start : last - start] = data[first - offset : last - offset]
    return found
