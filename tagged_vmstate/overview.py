"""Sections put together from their parts: what a machine holds in the end, its memory a window at a time.

Memory may be written many times over, by the parts of its section. What is known of it is where the bytes of each run lie;
they are read when they are looked at. So no more of it is held than a window, and the order of the runs costs no more than
sorting them.
"""

from __future__ import annotations

import re
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from typing import Final, Protocol, Self, TypeAlias, cast

from tagged_vmstate.files import Stretch
from tagged_vmstate.records import Record, run_places
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import StoredSection
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Cursor, Opaque

LINE: Final = 16
"""So many zeros, a line of a hex dump, separate two ranges; fewer are part of one. How much of a range is kept to be shown."""
WINDOW: Final = 4 << 20
"""Bytes of a memory that are looked at at once."""
HELD_BYTES: Final = 32 << 20
"""Memory that is kept to be read again: what is more goes to a temporary file."""
_NEAR: Final = 1 << 12
"""Zeros between two runs that are looked at in one window."""
_USED: Final = re.compile(rb"[^\0]")
_GAP: Final = bytes(LINE)

Extent: TypeAlias = tuple[int, int, int]
"""From where to where in a memory, and where its bytes lie."""


class _Source(Protocol):
    """Where bytes can be read again."""

    def at(self, position: int, size: int) -> bytes: ...


class Kept:
    """Memory that cannot be read again where it came from: a copy."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115  # closed as a context manager
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, data: bytes) -> int:
        """Keep some bytes; where they lie."""
        place = self._file.seek(self._end)
        self._file.write(data)
        self._end += len(data)
        return place

    def at(self, position: int, size: int) -> bytes:
        """The bytes of a place."""
        self._file.seek(position)
        return self._file.read(size)


@dataclass(frozen=True, slots=True)
class Use:
    """What of a memory is not zero. It is the same however the memory came.

    Attributes:
        count: Bytes, zeros between them that separate no ranges included.
        ranges: How many ranges they are.
        start: The first that is not zero.
        first: The first bytes of the first range.
    """

    count: int = 0
    ranges: int = 0
    start: int = 0
    first: bytes = b""


class Memory:
    """A sparse field over all parts of its section.

    Attributes:
        length: Bytes in all.
        is_default: All of its parts that write something are flagged as the default.
        source: Where its bytes lie.
    """

    def __init__(self, length: int, source: _Source) -> None:
        self.length = length
        self.is_default = True
        self.source = source
        self._starts, self._ends, self._places = array("Q"), array("Q"), array("Q")

    def record(self, name: str) -> Record:
        """Its record, without any bytes."""
        return Record(name, "sparse", self.length, (), self.is_default)

    def flag(self, *, is_default: bool, is_written: bool) -> None:
        """Take in the flag of one more part, before its runs. A part that writes nothing says nothing, if another part writes."""
        if self._starts:
            self.is_default = self.is_default and (is_default or not is_written)
        else:
            self.is_default = is_default and (is_written or self.is_default)

    def write(self, start: int, size: int, place: int) -> None:
        """Take in one more run, later than all others. Its bytes lie at a place of the source."""
        if size:
            self._starts.append(start)
            self._ends.append(start + size)
            self._places.append(place)

    def extents(self) -> Iterator[Extent]:
        """What was written, ascending and apart; what was written later counts."""
        starts, ends, places = self._starts, self._ends, self._places
        latest: list[int] = []  # the runs that have begun, negative: the last one is the first of the heap
        at = 0
        for number in (*sorted(range(len(starts)), key=starts.__getitem__), None):
            limit = self.length if number is None else starts[number]
            while latest and at < limit:
                run = -latest[0]
                end = min(ends[run], limit)
                if end <= at:
                    heappop(latest)
                    continue
                yield at, end, places[run] + at - starts[run]
                at = end
            if number is not None:
                at = limit
                heappush(latest, -number)

    def first_used(self, start: int) -> int | None:
        """The first byte that is not zero from a place on; None where all are."""
        for low, high, place in self.extents():
            for at in range(max(low, start), high, WINDOW):
                found = _USED.search(self.source.at(place + at - low, min(WINDOW, high - at)))
                if found:
                    return at + found.start()
        return None

    def use(self) -> Use:
        """What of it is not zero."""
        count = ranges = place = 0
        first = b""
        for start, data, begins in self.pieces():
            count += len(data)
            ranges += begins
            if ranges == 1 and len(first) < LINE:
                place = start if begins else place
                first += data[: LINE - len(first)]
        return Use(count, ranges, place, first)

    def pieces(self) -> Iterator[tuple[int, bytes, bool]]:
        """What of it is not zero: where each piece begins, its bytes, and whether a range begins with it."""
        before = -LINE
        for low, [data] in windows(self):
            for start, end in used(data):
                gap = low + start - before
                if gap < LINE:
                    yield before, bytes(gap) + data[start:end], False
                else:
                    yield low + start, bytes(data[start:end]), True
                before = low + end


class _Reader:
    """Reads a memory from its beginning on."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._extents = memory.extents()
        self._next = next(self._extents, None)

    def read(self, low: int, high: int) -> bytearray:
        """The bytes of a window behind all that were read before."""
        found = bytearray(high - low)
        while self._next and self._next[0] < high:
            start, end, place = self._next
            first, last = max(start, low), min(end, high)
            if first < last:
                found[first - low : last - low] = self._memory.source.at(place + first - start, last - first)
            if end > high:
                break
            self._next = next(self._extents, None)
        return found


def windows(*memories: Memory) -> Iterator[tuple[int, list[bytearray]]]:
    """The bytes of memories side by side: the place of each window, a multiple of `LINE`, and those of each memory.

    What lies in no window is zero in all of them.
    """
    readers = [_Reader(memory) for memory in memories]
    for low, high in _bounds(merge(*(memory.extents() for memory in memories))):
        yield low, [reader.read(low, high) for reader in readers]


def _bounds(extents: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    """From where to where some extents are looked at at once; they may overlap."""
    low = high = 0
    for start, end, _ in extents:
        if start > high + _NEAR:
            if low < high:
                yield low, high
            low = start - start % LINE
        high = max(high, end + -end % LINE)
        while high - low > WINDOW:
            yield low, low + WINDOW
            low += WINDOW
    if low < high:
        yield low, high


def used(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """The ranges of what is not zero."""
    last = len(data.rstrip(b"\0"))
    at = 0
    while match := _USED.search(data, at):
        gap = data.find(_GAP, match.start())
        at = gap if gap >= 0 else last
        yield match.start(), at


class Whole:
    """A section with all its parts.

    Args:
        first: Its first part, still to be added.
        kept: For memory that cannot be read again.

    Attributes:
        device: The name of the device.
        instance: Which of several of that name.
        raw_attributes: Those of its last part.
        records: Its fields but the sparse ones.
        memory: Name -> its sparse fields.
        parts: How many frames it came in.
        is_incomplete: Parts of it are lost: what it says of memory may not be all.
    """

    def __init__(self, first: Section, kept: Kept) -> None:
        self.device = first.device
        self.instance = first.instance
        self.raw_attributes: Opaque = first.raw_attributes
        self.records: list[Record] = []
        self.memory: dict[str, Memory] = {}
        self.parts = 0
        self.is_incomplete = False
        self._kept = kept

    def add(self, section: Section) -> None:
        """Take in one more part."""
        self.raw_attributes = section.raw_attributes
        self.parts += 1
        for record in section.records():
            if record.type == "sparse":
                self._add_memory(section, record)
            else:
                self.records.append(record)

    def _add_memory(self, section: Section, record: Record) -> None:
        stored = section if isinstance(section, StoredSection) and section.snapshot.input.rereads else None
        memory = self.memory.get(record.name)
        if memory is None:
            memory = self.memory[record.name] = Memory(record.length or 0, stored.snapshot if stored else self._kept)
        runs = cast("Runs", record.value)
        memory.flag(is_default=record.is_default, is_written=bool(runs))
        places = _places(stored, record) if stored else (self._kept.add(data) for _, data in runs)
        for (offset, data), place in zip(runs, places, strict=True):
            memory.write(offset, len(data), place)


def _places(section: StoredSection, record: Record) -> Iterator[int]:
    """Where the bytes of its runs lie in the input."""
    data = record.encoded or Stretch(section.snapshot.input, record.offset, section.end - record.offset)
    return run_places(Cursor(data, record.offset), cast("Runs", record.value))


def overview(sections: Iterable[Section]) -> Iterator[Whole]:
    """Each section when its last part has come; at the end, those whose last part is lost.

    Its memory can be looked at until the next is asked for.

    Raises:
        FormatError: The bytes are damaged.
    """
    growing: dict[str, Whole] = {}
    with Kept() as kept:
        for section in sections:
            whole = growing.setdefault(section.label, Whole(section, kept))
            whole.add(section)
            if section.kind == "section":
                yield growing.pop(section.label)
        for whole in growing.values():
            whole.is_incomplete = True
            yield whole
