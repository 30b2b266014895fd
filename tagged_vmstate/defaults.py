"""Which fields of a snapshot are at their defaults, told by a snapshot of the same machine at its reset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from tagged_vmstate.records import Record, Records, encode_plain
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque

MEMORY_BYTES = 64 << 20
"""Memory of the reset machine that is held for comparison, a block at a time; what is more counts as changed."""


class Flagged:
    """Sections whose fields are flagged where they hold what a reset machine holds.

    A part of memory is at its default only where it alone has all that the reset machine has in that block: what other
    parts hold it cannot know.

    Args:
        sections: The sections.
        reset: Those of the machine at its reset; read once, at the start.
    """

    def __init__(self, sections: Sections, reset: Sections) -> None:
        self._sections = sections
        self._reset: dict[str, dict[str, Record]] = {}
        self._memory: dict[tuple[str, str], list[tuple[int, bytes]] | None] = {}
        for section in reset:
            known = self._reset.setdefault(section.label, {})
            for record in section.records():
                known[record.name] = record.replace(value=()) if record.type == "sparse" else record
                if record.type == "sparse":
                    self._hold(section.label, record)

    @property
    def raw_attributes(self) -> Opaque:
        """What stands in the header, as its bytes."""
        return self._sections.raw_attributes

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            known = self._reset.get(section.label, {})
            records = tuple(self._flagged(section.label, record, known.get(record.name)) for record in section.records())
            flagged = Section(section.device, section.instance, records, kind=section.kind, attributes=section.raw_attributes)
            yield flagged

    def _hold(self, label: str, record: Record) -> None:
        held = self._memory.setdefault((label, record.name), [])
        if held is None:
            return
        held += cast("Runs", record.value)
        if sum(len(data) for _, data in held) > MEMORY_BYTES:
            self._memory[label, record.name] = None

    def _flagged(self, label: str, record: Record, reset: Record | None) -> Record:
        if reset is None or (record.type, record.length) != (reset.type, reset.length):
            return record.replace(is_default=False)
        if record.type == "sparse":
            return record.replace(is_default=list(cast("Runs", record.value)) == self._memory[label, record.name])
        if record.type != "struct":
            return record.replace(is_default=_value(record) == _value(reset))
        if record.length is None:
            value, same = self._struct(label, cast("Records | None", record.value), cast("Records | None", reset.value))
            return record.replace(value=value, is_default=same)
        ours = cast("Sequence[Records | None]", record.value)
        theirs = cast("Sequence[Records | None]", reset.value)
        pairs = [self._struct(label, first, second) for first, second in zip(ours, theirs, strict=True)]
        return record.replace(value=tuple(value for value, _ in pairs), is_default=all(same for _, same in pairs))

    def _struct(self, label: str, ours: Records | None, theirs: Records | None) -> tuple[Records | None, bool]:
        """The fields of a struct, flagged, and whether all of it is as in the other."""
        if ours is None or theirs is None:
            return ours, ours is theirs
        known = {record.name: record for record in theirs}
        found = tuple(self._flagged(label, record, known.get(record.name)) for record in ours)
        return found, all(record.is_default for record in found) and len(found) == len(theirs)


def _value(record: Record) -> bytes:
    """A value in a form that is the same wherever it came from."""
    return encode_plain(record.replace(is_default=False))
