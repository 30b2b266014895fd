"""One value of a snapshot changed, every other byte as it was.

A changed field is no longer at its writer's default, and neither are the structs that it lies in; whether the new
value happens to be the default only the writer's table could tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tagged_vmstate.errors import StateError
from tagged_vmstate.paths import Path, Pattern
from tagged_vmstate.records import Record, Records, encode_plain
from tagged_vmstate.sections import EncodedSection, Section
from tagged_vmstate.snapshot import StoredSection
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Cursor


@dataclass(frozen=True, slots=True)
class Target:
    """A field, or an element of it.

    Attributes:
        above: The structs that it lies in, from the outside in.
        record: The field.
        index: Which element; of a buffer or memory, which byte; None for the whole.
        path: Names and indexes.
    """

    above: tuple[Record, ...]
    record: Record
    index: int | None
    path: Path


def fields(records: Iterable[Record], above: tuple[Record, ...] = (), before: Path = ()) -> Iterator[Target]:
    """Every field, at any depth."""
    for record in records:
        path = (*before, record.name)
        yield Target(above, record, None, path)
        if record.type != "struct" or record.value is None:
            continue
        if record.length is None:
            yield from fields(cast("Records", record.value), (*above, record), path)
            continue
        for index, element in enumerate(cast("Sequence[Records | None]", record.value)):
            yield from fields(element or (), (*above, record), (*path, index))


def located(section: Section, pattern: Pattern) -> Iterator[Target]:
    """The fields of a section that a path names, or an element of such a field, or a byte of it."""
    for target in fields(section.records()):
        if pattern.fits(section.label, target.path):
            yield target
        elif pattern.indexed and pattern.indexed[0].fits(section.label, target.path):
            index = pattern.indexed[1]
            yield Target(target.above, target.record, index, (*target.path, index))


def changed(section: StoredSection, target: Target, value: Any) -> Section:
    """The section with one value changed.

    Args:
        section: The section, as it is.
        target: A field of it, as `located` found it.
        value: The whole new value of the field, as its type has it.

    Raises:
        StateError: The value does not fit the field.
    """
    old = target.record
    payload = section.payload()
    base = section.end - section.size
    try:
        new = encode_plain(old.replace(value=value, is_default=False))
    except StateError as error:
        error.section = section.label
        error.under(*(part for part in target.path[: len(target.path) - len(error.path)]))
        raise
    if encode_plain(old.replace(is_default=False)) == new:
        return section
    splices = [(old.offset - base, _end(payload, old.offset - base), new)]
    splices += [(*_flags(payload, each.offset - base), b"\0") for each in target.above if each.is_default]
    for start, end, piece in sorted(splices, reverse=True):
        payload = payload[:start] + piece + payload[end:]
    return EncodedSection(section.lead, payload)


def _end(payload: bytes, start: int) -> int:
    cursor = Cursor(payload, pos=start)
    cursor.skip("a field")
    return cursor.pos


def _flags(payload: bytes, start: int) -> tuple[int, int]:
    """Where the flags of a record stand: behind the head of its array, its name, type and length."""
    cursor = Cursor(payload, pos=start)
    cursor.read_array("a field")
    for what in ("a name", "a type", "a length"):
        cursor.skip(what)
    first = cursor.pos
    cursor.skip("flags")
    return first, cursor.pos


def laid_over(runs: Runs, offset: int, data: bytes) -> Runs:
    """Runs of memory with some bytes written over, as one run with those that they touch."""
    if not data:
        return runs
    end = offset + len(data)
    before = [(start, piece[: offset - start]) for start, piece in runs if start < offset]
    after = [(max(start, end), piece[max(end - start, 0) :]) for start, piece in runs if start + len(piece) > end]
    if before and before[-1][0] + len(before[-1][1]) == offset:
        offset, piece = before.pop()
        data = piece + data
    if after and after[0][0] == end:
        data += after.pop(0)[1]
    return (*before, (offset, data), *after)
