"""One value of a snapshot changed, every other byte as it was.

A changed field is no longer at its writer's default, and neither are the structs that it lies in; whether the new
value happens to be the default only the writer's table could tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from tagged_vmstate.errors import PathPart, StateError
from tagged_vmstate.records import Record, Records, encode_plain
from tagged_vmstate.sections import EncodedSection, Section
from tagged_vmstate.snapshot import StoredSection
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Cursor

_INDEX: Final = re.compile(r"\[(0[xX][0-9a-fA-F]+|[0-9]+)\]")


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
    path: tuple[PathPart, ...]


def locate(records: Records, path: str) -> Target | None:
    """The field of a path such as ``queue/count`` or ``regs[3]``; None where there is none.

    Names are taken as they stand, slashes and brackets included: the longest that fits counts.
    """
    return next(iter(_locate(records, path.replace(" / ", "/"), (), ())), None)


def _locate(records: Records, path: str, above: tuple[Record, ...], before: tuple[PathPart, ...]) -> Iterator[Target]:
    for record in sorted(records, key=lambda each: -len(each.name)):
        if not path.startswith(record.name):
            continue
        rest = path[len(record.name) :]
        here = (*before, record.name)
        index = None
        match = _INDEX.match(rest)
        if match:
            index, rest = int(match[1], 0), rest[match.end() :]
            here = (*here, index)
        if not rest:
            yield Target(above, record, index, here)
        elif rest.startswith("/") and record.type == "struct":
            inner = _element(record, index)
            if inner is not None:
                yield from _locate(inner, rest[1:], (*above, record), here)


def _element(record: Record, index: int | None) -> Records | None:
    """The fields of a struct, or of one in an array."""
    if (record.length is None) != (index is None):
        return None
    if index is None:
        return cast("Records | None", record.value)
    elements = cast("Sequence[Records | None]", record.value)
    return elements[index] if index < len(elements) else None


def paths(records: Iterable[Record], before: str = "") -> Iterator[str]:
    """The path of every field, at any depth."""
    for record in records:
        yield before + record.name
        if record.type == "struct" and record.value is not None:
            elements = cast("Sequence[Records | None]", (record.value,) if record.length is None else record.value)
            for index, element in enumerate(elements):
                place = before + record.name + ("" if record.length is None else f"[{index}]")
                yield from paths(element or (), f"{place}/")


def changed(section: StoredSection, target: Target, value: Any) -> Section:
    """The section with one value changed.

    Args:
        section: The section, as it is.
        target: A field of it, as `locate` found it.
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
    """Runs of memory with some bytes written over."""
    end = offset + len(data)
    found = [(start, piece[: max(offset - start, 0)]) for start, piece in runs if start < offset]
    found.append((offset, data))
    found += [(max(start, end), piece[max(end - start, 0) :]) for start, piece in runs if start + len(piece) > end]
    return tuple((start, piece) for start, piece in found if piece)
