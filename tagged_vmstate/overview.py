"""Sections put together from their parts, memory counted instead of held: what a person looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque

FIRST_BYTES = 16
"""How much of a memory is kept to be shown."""


@dataclass(slots=True)
class Memory:
    """A sparse field over all parts of its section.

    Attributes:
        length: Bytes in all.
        stored: Bytes that were written, those written again counted again.
        runs: Runs that were written.
        first: Offset and first bytes of the first run.
        is_default: Every part of it is as its writer's table has it.
    """

    length: int
    is_default: bool = True
    stored: int = 0
    runs: int = 0
    first: tuple[int, bytes] | None = None

    def add(self, runs: Runs) -> None:
        """Count the runs of one more part."""
        self.runs += len(runs)
        self.stored += sum(len(data) for _, data in runs)
        if runs and self.first is None:
            self.first = runs[0][0], runs[0][1][:FIRST_BYTES]


@dataclass(slots=True)
class Whole:
    """A section with all its parts.

    Attributes:
        device: The name of the device.
        instance: Which of several of that name.
        raw_attributes: Those of its first part.
        records: Its fields but the sparse ones.
        memory: Name -> its sparse fields.
        parts: How many frames it came in.
    """

    device: str
    instance: int
    raw_attributes: Opaque
    records: list[Record] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    parts: int = 0

    def add(self, section: Section) -> None:
        """Take in one more part."""
        self.parts += 1
        for record in section.records():
            if record.type == "sparse":
                memory = self.memory.setdefault(record.name, Memory(record.length or 0))
                memory.is_default = memory.is_default and record.is_default
                memory.add(cast("Runs", record.value))
            else:
                self.records.append(record)


def overview(sections: Iterable[Section]) -> Iterator[Whole]:
    """Each section when its last part has come. Raises FormatError where the bytes are damaged."""
    growing: dict[str, Whole] = {}
    for section in sections:
        whole = growing.setdefault(section.label, Whole(section.device, section.instance, section.raw_attributes))
        whole.add(section)
        if section.kind == "section":
            yield growing.pop(section.label)
