"""Snapshot against snapshot: what differs in the state of two machines, by device, field and element.

Fields are matched by name. Flags and attributes are what writers say about a state and are not compared. Memory is
compared as it is in the end, a window at a time. Ranges with less than a line of a hex dump between them are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal, TypeAlias, cast

from tagged_vmstate.overview import LINE, Kept, Memory, Whole, used, windows
from tagged_vmstate.paths import Path, format_path
from tagged_vmstate.records import Record, Records, wire_type
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.wire import Json, Opaque

RANGES: Final = 1 << 10
"""Ranges that are kept of one field; the others are counted."""
_BLOCK: Final = 1 << 16

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
        with Kept() as kept:
            yield from _devices(label, _whole(sides[0], kept), _whole(sides[1], kept), ignore)


def _labels(snapshot: Snapshot) -> dict[str, list[Section]]:
    found: dict[str, list[Section]] = {}
    for section in snapshot:
        found.setdefault(section.label, []).append(section)
    return found


def _whole(parts: Sequence[Section], kept: Kept) -> Whole:
    found = Whole(parts[0], kept)
    for part in parts:
        found.add(part)
    return found


def _types(whole: Whole) -> dict[str, str]:
    """Name -> type, of every field, in the order of the file."""
    types = {record.name: record.describe() for record in whole.records}
    return {**types, **{name: f"sparse[{memory.length}]" for name, memory in whole.memory.items()}}


def _devices(label: str, left: Whole, right: Whole, ignore: Ignore) -> Iterator[Difference]:
    for name in {**left.memory, **right.memory}:
        if name in left.memory and name in right.memory and not ignore(label, (name,)):
            yield from _memories(label, (name,), left.memory[name], right.memory[name])
    both = _types(left), _types(right)
    for name in (name for name in {**both[0], **both[1]} if (name in left.memory) != (name in right.memory)):
        if not ignore(label, (name,)):
            kind: Kind = "removed" if name not in both[1] else "added" if name not in both[0] else "changed"
            yield Difference(kind, label, (name,), both[0].get(name, ""), both[1].get(name, ""))
    ours = tuple(record for record in left.records if record.name not in right.memory)
    theirs = tuple(record for record in right.records if record.name not in left.memory)
    yield from _structs(label, (), ours, theirs, ignore)


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
    values = cast("memoryview", record.value)[low : min(high, low + LINE)]
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
            for low, high in used(mixed):
                yield start + low, start + high


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
            goes_on = self._count > 0 and gap < LINE
            self._count += end - start + gap * goes_on
            if goes_on and not self._more:
                last = self._found[-1]
                self._found[-1] = Range(last.start, last.count + gap + end - start, last.old, last.new)
            elif not goes_on and len(self._found) == RANGES:
                self._more += 1
            elif len(self._found) < RANGES:
                few = [side[start : min(end, start + LINE)].hex(" ") for side in (left, right)]
                self._found.append(Range(base + start, end - start, *few))
            self._end = base + end

    def result(self) -> tuple[tuple[Range, ...], int, int]:
        """The ranges, how many more there were, and the bytes in all of them."""
        return tuple(self._found), self._more, self._count


def _memories(label: str, path: tuple[str], left: Memory, right: Memory) -> Iterator[Difference]:
    found = _Ranges()
    for low, sides in windows(left, right):
        found.add(low, *sides)
    ranges, more, count = found.result()
    if ranges or left.length != right.length:
        kinds = f"sparse[{left.length}]", f"sparse[{right.length}]"
        yield Difference("changed", label, path, *kinds, None, None, ranges, more, count)
