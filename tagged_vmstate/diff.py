"""Snapshot against snapshot: what differs in the state of two machines, by device, field and element.

Fields are matched by name. Flags and attributes are what writers say about a state and are not compared. Memory is
compared as it is in the end, a window at a time. Ranges with less than a line of a hex dump between them are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal, TypeAlias, cast

from typing_extensions import override

from tagged_vmstate.overview import LINE, Kept, Memory, Use, Whole, used, windows
from tagged_vmstate.paths import Path, format_path
from tagged_vmstate.records import Record, Records, bytes_of, elements_of, wire_type
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.wire import Json

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
        old: The first of them on the left, as JSON: bytes in hex, elements as a list; empty where the left ends ahead of them.
        new: Those on the right.
    """

    start: int
    count: int
    old: Json
    new: Json


@dataclass(frozen=True, slots=True)
class Held:
    """A memory that has none on the other side to be compared with.

    Attributes:
        length: Bytes in all.
        use: What of it is not zero.
    """

    length: int
    use: Use

    def describe(self) -> str:
        """Its type as people write it: ``sparse[4096]``."""
        return f"sparse[{self.length}]"


Side: TypeAlias = "Record | Held | None"
"""What one of the two has; None for nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: ``changed``, ``removed`` (only on the left) or ``added`` (only on the right).
        section: ``device#instance``.
        path: Field names and indexes; empty for a whole device.
        old_type: The type on the left, as ``uint32[4]``; empty where there is none.
        new_type: The type on the right.
        left: The field or element on the left; None where there is none, and where `ranges` say what differs.
        right: That on the right.
        ranges: Of bytes and arrays: where they differ, the first `RANGES`.
        more: Ranges beyond these.
        count: Bytes or elements that lie in all ranges.
    """

    kind: Kind
    section: str
    path: Path = ()
    old_type: str = ""
    new_type: str = ""
    left: Side = None
    right: Side = None
    ranges: tuple[Range, ...] = ()
    more: int = 0
    count: int = 0

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return format_path(self.section, self.path)

    @property
    def old(self) -> Json:
        """The value on the left, as JSON; None where there is none, and where `ranges` say what differs."""
        return _json(self.left)

    @property
    def new(self) -> Json:
        """The value on the right."""
        return _json(self.right)


def _json(side: Side) -> Json:
    return wire_type(side.type).to_json(side.value, side.length) if isinstance(side, Record) else None


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


def _devices(label: str, left: Whole, right: Whole, ignore: Ignore) -> Iterator[Difference]:
    for name in {**left.memory, **right.memory}:
        if ignore(label, (name,)):
            continue
        memory, other = left.memory.get(name), right.memory.get(name)
        if memory and other:
            yield from _memories(label, (name,), memory, other)
        else:
            yield _difference(label, (name,), *(_side(each, name) for each in (left, right)))
    ours, theirs = (
        tuple(record for record in each.records if record.name not in other.memory)
        for each, other in ((left, right), (right, left))
    )
    yield from _structs(label, (), ours, theirs, ignore)


def _side(whole: Whole, name: str) -> Side:
    """What a section has of a name that is a memory in another."""
    memory = whole.memory.get(name)
    if memory:
        return Held(memory.length, memory.use())
    return next((record for record in whole.records if record.name == name), None)


def _difference(label: str, path: Path, left: Side, right: Side) -> Difference:
    """A difference with all that either side has there."""
    kind: Kind = "added" if left is None else "removed" if right is None else "changed"
    old_type, new_type = (side.describe() if side else "" for side in (left, right))
    return Difference(kind, label, path, old_type, new_type, left, right)


def _structs(label: str, path: Path, left: Records, right: Records, ignore: Ignore) -> Iterator[Difference]:
    ours, theirs = ({record.name: record for record in side} for side in (left, right))
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        here = (*path, name)
        if not ignore(label, here):
            yield from _fields(label, here, ours.get(name), theirs.get(name), ignore)


def _fields(label: str, path: Path, left: Record | None, right: Record | None, ignore: Ignore) -> Iterator[Difference]:
    """A field or an element, as either side has it."""
    if left is None or right is None or left.type != right.type or (left.length is None) != (right.length is None):
        yield _difference(label, path, left, right)
        return
    ours, theirs = (_elements(record) for record in (left, right))
    if ours is not None and theirs is not None:
        for index, pair in enumerate(zip_longest(ours, theirs)):
            here = (*path, index)
            if not ignore(label, here):
                yield from _fields(label, here, *pair, ignore)
    elif left.type != "struct":
        yield from _values(label, path, left, right)
    elif left.value is not None and right.value is not None:
        yield from _structs(label, path, cast("Records", left.value), cast("Records", right.value), ignore)
    elif left.value is not right.value:
        yield _difference(label, path, left, right)


def _elements(record: Record) -> Iterator[Record] | None:
    """The elements of an array as records of their own."""
    values = elements_of(record)
    return None if values is None else (Record(record.name, record.type, None, value) for value in values)


def _values(label: str, path: Path, left: Record, right: Record) -> Iterator[Difference]:
    """Two values of one type that have no fields in them."""
    if left.length == right.length and _packed(left) == _packed(right):
        return
    found = _ranges_of(left, right)
    if found and found[0]:
        yield Difference("changed", label, path, left.describe(), right.describe(), None, None, *found)
    elif found is None or left.length != right.length:  # else the same bytes in another encoding of MessagePack
        yield _difference(label, path, left, right)


def _packed(record: Record) -> bytes:
    """The value as bytes: floats are compared bit by bit."""
    return wire_type(record.type).pack(record.value, record.length)


def _ranges_of(left: Record, right: Record) -> tuple[tuple[Range, ...], int, int] | None:
    """Where two values of one type differ; None for what has no places in it, and for short ones of different lengths."""
    sides: list[Any] = [bytes_of(record) for record in (left, right)]
    if None in sides:
        sides = [record.value for record in (left, right)]
    if not all(isinstance(side, bytes | memoryview) for side in sides):
        return None
    if left.length != right.length and max(map(len, sides)) <= LINE:
        return None
    found = _Ranges() if isinstance(sides[0], bytes) else _ElementRanges(left.type)
    common = min(map(len, sides))
    found.add(0, *(side[:common] for side in sides))
    found.add_rest(common, *(side[common:] for side in sides))
    return found.result()


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

    near = LINE
    """Two ranges with less than that between them are one."""

    def __init__(self) -> None:
        self._found: list[Range] = []
        self._more = 0
        self._count = 0
        self._end = -1

    def add(self, base: int, left: Any, right: Any) -> None:
        """Take in what the two have from a place on, the same length of it."""
        for start, end in self.spans(left, right):
            gap = base + start - self._end
            if self._count and gap < self.near:
                self._count += gap
                self._go_on(base + end - self._end)
            else:
                self._begin(base + start, end - start, left[start : start + LINE], right[start : start + LINE])
            self._count += end - start
            self._end = base + end

    def add_rest(self, base: int, left: Any, right: Any) -> None:
        """Take in what one of the two has beyond the end of the other."""
        size = max(len(left), len(right))
        if size:
            self._begin(base, size, left[:LINE], right[:LINE])
            self._count += size

    def _begin(self, start: int, count: int, left: Any, right: Any) -> None:
        if len(self._found) < RANGES:
            few = (self.as_json(side[:count]) for side in (left, right))
            self._found.append(Range(start, count, *few))
        else:
            self._more += 1

    def _go_on(self, count: int) -> None:
        if not self._more:
            last = self._found[-1]
            self._found[-1] = Range(last.start, last.count + count, last.old, last.new)

    def spans(self, left: Any, right: Any) -> Iterator[tuple[int, int]]:
        """Where two stretches of one length differ."""
        return _spans(left, right)

    def as_json(self, side: Any) -> Json:
        """What one of them has in a range."""
        return side.hex(" ")

    def result(self) -> tuple[tuple[Range, ...], int, int]:
        """The ranges, how many more there were, and how much lies in all of them."""
        return tuple(self._found), self._more, self._count


class _ElementRanges(_Ranges):
    """The ranges of the elements of an array that differ."""

    near = 1

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = wire_type(kind)

    @override
    def spans(self, left: Any, right: Any) -> Iterator[tuple[int, int]]:
        for start, end in _spans(left.tobytes(), right.tobytes()):
            yield start // left.itemsize, -(-end // left.itemsize)

    @override
    def as_json(self, side: Any) -> Json:
        return self._kind.to_json(side, len(side))


def _memories(label: str, path: tuple[str], left: Memory, right: Memory) -> Iterator[Difference]:
    found = _Ranges()
    for low, sides in windows(left, right):
        found.add(low, *sides)
    ranges, more, count = found.result()
    if ranges or left.length != right.length:
        kinds = f"sparse[{left.length}]", f"sparse[{right.length}]"
        yield Difference("changed", label, path, *kinds, None, None, ranges, more, count)
