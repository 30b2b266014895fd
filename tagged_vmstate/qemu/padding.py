"""What follows a stream in a volume of fixed size, zeros or old bytes: one section of sparse memory, however much it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

from tagged_vmstate.errors import StateError
from tagged_vmstate.files import BLOCK, Input, is_zero
from tagged_vmstate.overview import Kept, Whole
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import PART_BYTES

TYPE: Final = "trailing"
"""The name of the section, and its type in the attributes."""
_FIELD: Final = "bytes@0"
_PAGE: Final = 1 << 12
"""Zeros are left out in pieces of this size."""


class Padding:
    """The rest of an input. That of a pipe, which has to be read to its end for its size, is kept until the context ends.

    Args:
        source: The input, at the end of the stream.

    Attributes:
        size: Its bytes.
        is_zero: All of them are zero.
    """

    def __init__(self, source: Input) -> None:
        self._source = source
        self._start = source.position
        self._copy = Kept()
        self._kept: list[tuple[int, int, int]] | None = None
        if source.size is None:
            self._kept = [(at, len(data), self._copy.add(data)) for at, data in self._read()]
            self.is_zero = not self._kept
            self.size = source.position - self._start
        else:
            self.is_zero = source.content_end <= source.position
            self.size = source.size - source.position

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._copy.__exit__()

    def sections(self) -> Iterator[Section]:
        """It as a section in parts of bounded size."""
        waiting: list[tuple[int, bytes]] = []
        held = 0
        for run in self._runs():
            if held + len(run[1]) > PART_BYTES:
                yield self._section(waiting, is_last=False)
                waiting, held = [], 0
            waiting.append(run)
            held += len(run[1])
        yield self._section(waiting, is_last=True)

    def _section(self, runs: Iterable[tuple[int, bytes]], *, is_last: bool) -> Section:
        record = Record(_FIELD, "sparse", self.size, tuple(runs))
        attributes = {"qemu": {"type": TYPE, "offset": self._start}}
        return Section(TYPE, 0, (record,), kind="section" if is_last else "part", attributes=attributes)

    def _runs(self) -> Iterator[tuple[int, bytes]]:
        if self._kept is None:
            return iter(()) if self.is_zero else self._read()
        return ((at, self._copy.at(place, size)) for at, size, place in self._kept)

    def _read(self) -> Iterator[tuple[int, bytes]]:
        """Where it is not zero, and the bytes."""
        while data := self._source.read(BLOCK):
            if not is_zero(data):
                start = self._source.position - len(data) - self._start
                yield from ((start + at, run) for at, run in _used(data))


def _used(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The runs of pages that are not zero."""
    start = None
    for at in range(0, len(data), _PAGE):
        is_used = not is_zero(data[at : at + _PAGE])
        if is_used and start is None:
            start = at
        elif not is_used and start is not None:
            yield start, data[start:at]
            start = None
    if start is not None:
        yield start, data[start:]


def written(sections: Sequence[Section]) -> Iterator[bytes]:
    """The bytes that such a section, or the buffers of earlier builds, stand for.

    Raises:
        StateError: A field is none of these.
        FormatError: They are damaged.
    """
    if not sections:
        return
    with Kept() as kept:
        whole = Whole(sections[0], kept)
        for section in sections:
            whole.add(section)
            yield from (_bytes(section, record) for record in whole.records)
            whole.records.clear()
        for memory in whole.memory.values():
            end = 0
            for start, data, _ in memory.pieces():
                yield from _zeros(start - end)
                yield data
                end = start + len(data)
            yield from _zeros(memory.length - end)


def _bytes(section: Section, record: Record) -> bytes:
    if not isinstance(record.value, bytes):
        error = StateError("bytes that follow the stream", f"`{record.describe()}`", path=(record.name,))
        error.section = section.label
        raise error
    return record.value


def _zeros(count: int) -> Iterator[bytes]:
    for at in range(0, count, BLOCK):
        yield bytes(min(BLOCK, count - at))
