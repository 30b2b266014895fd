"""Inputs made from others: bytes changed anywhere, or fields of a snapshot with all sums mended behind it.

A mutation of the structure reaches the loader, and the devices behind it; one of the bytes reaches the decoder.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, cast

from tagged_vmstate.blocks import BlockType, IntType
from tagged_vmstate.errors import VMStateError
from tagged_vmstate.frames import Lead
from tagged_vmstate.records import Record, Records, encode, wire_type
from tagged_vmstate.sections import EncodedSection, Section
from tagged_vmstate.snapshot import Snapshot, SnapshotWriter
from tagged_vmstate.types import LEAF_TYPES, Runs

EDGES: Final = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 4096, 65535, 65536)
LENGTHS: Final = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, (1 << 64) - 1)
_TYPES: Final = (*sorted(LEAF_TYPES), "struct", "never-heard-of")
MOST_BYTES: Final = 1 << 20
"""Inputs grow no further: what is slow to run finds little."""


def changed_bytes(data: bytes, random: Random) -> bytes:
    """Some bytes changed, cut out, doubled, or made an edge of a number."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(found) + 1)
        size = random.choice((1, 1, 2, 4, 8, random.randrange(1, 65)))
        kind = random.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = random.randrange(256)
        elif kind == 2:
            width = random.choice((1, 2, 4, 8))
            found[at : at + width] = (random.choice(LENGTHS) % (1 << 8 * width)).to_bytes(width, random.choice(("big", "little")))
        elif kind == 3:
            del found[at : at + size]
        elif kind == 4 and len(found) < MOST_BYTES:
            found[at:at] = found[at : at + size]
        else:
            other = random.randrange(len(found) + 1)
            found[at : at + size] = found[other : other + size]
    return bytes(found)


def changed_snapshot(data: bytes, random: Random) -> bytes:
    """A snapshot with fields, sections, or the bytes of either changed; most often with its sums mended."""
    if random.random() < 0.05:
        return changed_bytes(data, random)
    try:
        snapshot = Snapshot.read(data)
        sections: list[Section] = list(snapshot)
        for _ in range(random.choice((1, 1, 2, 3))):
            _change_sections(sections, random)
        return written(sections, snapshot)
    except (VMStateError, UnicodeError):
        return changed_bytes(data, random)


def written(sections: Sequence[Section], like: Snapshot) -> bytes:
    """Sections as a snapshot, with the attributes of another. Raises VMStateError."""
    file = io.BytesIO()
    with SnapshotWriter(file, like.raw_attributes) as writer:
        for section in sections:
            writer.write(section)
    return file.getvalue()


def _change_sections(sections: list[Section], random: Random) -> None:
    if not sections:
        return
    place = random.randrange(len(sections))
    section = sections[place]
    kind = random.random()
    if kind < 0.02:
        del sections[place]
    elif kind < 0.04:
        sections.insert(random.randrange(len(sections) + 1), _with(section, instance=random.choice((0, 1, 2, 0xFFFF_FFFF))))
    elif kind < 0.06:
        sections[place] = _with(section, device=random.choice((f"{section.device}x", "ram", section.device[1:] or "y")))
    elif kind < 0.15:
        sections[place] = _with(section, payload=changed_bytes(section.payload(), random))
    else:
        payload = b"".join(map(encode, _changed(section.records(), random)))
        sections[place] = _with(section, payload=payload)


def _with(section: Section, *, device: str | None = None, instance: int | None = None, payload: bytes | None = None) -> Section:
    device = section.device if device is None else device
    instance = section.instance if instance is None else instance
    lead = Lead.of(section.kind, device, instance, section.raw_attributes)
    return EncodedSection(lead, section.payload() if payload is None else payload)


def _changed(records: Records, random: Random) -> Records:
    """Fields with one of them changed, at any depth."""
    if not records:
        return records
    place = random.randrange(len(records))
    return (*records[:place], *_others(records[place], records, random), *records[place + 1 :])


def _others(record: Record, siblings: Records, random: Random) -> Records:
    """What stands in place of a field: nothing, itself twice, or it with one thing changed."""
    name = random.choice((f"{record.name}x", random.choice(siblings).name, record.name[1:] or "y"))
    choices: tuple[tuple[float, Callable[[], Records]], ...] = (
        (0.05, lambda: ()),
        (0.03, lambda: (record, record)),
        (0.04, lambda: (record.replace(name=name),)),
        (0.04, lambda: (record.replace(type=random.choice(_TYPES)),)),
        (0.06, lambda: (record.replace(is_default=False) if record.is_default else _flagged(record),)),
        (0.78, lambda: (_changed_value(record, random),)),
    )
    [chosen] = random.choices([each for _, each in choices], [weight for weight, _ in choices])
    return chosen()


def _flagged(record: Record) -> Record:
    """A field at its default, and all fields in it."""
    if record.type != "struct":
        return record.replace(is_default=True)
    if record.length is None:
        return record.replace(is_default=True, value=_all_flagged(cast("Records | None", record.value)))
    elements = cast("Sequence[Records | None]", record.value)
    return record.replace(is_default=True, value=tuple(map(_all_flagged, elements)))


def _all_flagged(records: Records | None) -> Records | None:
    return None if records is None else tuple(map(_flagged, records))


def _consistent(record: Record) -> Record:
    """A struct whose flag does not contradict those of the fields in it."""
    elements = cast("Sequence[Records | None]", (record.value,) if record.length is None else record.value)
    is_default = all(each.is_default for element in elements for each in element or ())
    return record.replace(is_default=record.is_default and is_default)


def _changed_value(record: Record, random: Random) -> Record:
    value: Any = record.value
    kind = wire_type(record.type)
    if record.type == "struct":
        return _changed_struct(record, random)
    if record.type == "sparse":
        return record.replace(value=_changed_runs(value, record.length or 0, random))
    if isinstance(kind, BlockType):
        return _changed_number(record, kind, random)
    if isinstance(value, bytes):
        found = changed_bytes(value, random)
        return record.replace(value=found, length=len(found) if record.type != "bitmap" else 8 * len(found))
    if isinstance(value, str):
        return record.replace(value=random.choice((value + "x", "", value * 2, "é\0")))
    return record.replace(length=random.choice((None, 0, 1, *LENGTHS)))


def _changed_number(record: Record, kind: BlockType, random: Random) -> Record:
    """A number, or one in an array, at an edge or a little beside what it was; an array of another length."""
    value: Any = record.value
    number: Any = _edge(kind, random) if isinstance(kind, IntType) else random.choice((0, 1))
    number = bool(number) if record.type == "bool" else number
    if record.length is not None:
        elements = _resized(list(value), number, random)
        return record.replace(value=elements, length=len(elements))
    if isinstance(kind, IntType) and random.random() < 0.3:
        number = min(max(value + random.choice((-1, 1)), kind.low), kind.high)
    return record.replace(value=number)


def _changed_struct(record: Record, random: Random) -> Record:
    if record.length is None:
        inner = cast("Records | None", record.value)
        return _consistent(record.replace(value=_changed(inner, random) if inner and random.random() < 0.97 else None))
    elements = list(cast("Sequence[Records | None]", record.value))
    places = [place for place, element in enumerate(elements) if element]
    if places and random.random() < 0.9:
        place = random.choice(places)
        elements[place] = _changed(cast("Records", elements[place]), random)
    else:
        elements = _resized(elements, random.choice(elements) if elements else None, random)
    return _consistent(record.replace(value=tuple(elements), length=len(elements)))


def _resized(elements: list[Any], other: Any, random: Random) -> list[Any]:
    """Elements with one replaced, or one more, or fewer, or many more."""
    kind = random.random()
    if elements and kind < 0.7:
        elements[random.randrange(len(elements))] = other
    elif kind < 0.8:
        elements.append(other)
    elif kind < 0.9:
        del elements[random.randrange(len(elements) + 1) :]
    elif len(elements) < 1 << 12:
        elements += [other] * random.choice(EDGES[:15])
    return elements


def _edge(kind: IntType, random: Random) -> int:
    near = random.choice((*EDGES, kind.low, kind.high, kind.low + 1, kind.high - 1, random.randint(kind.low, kind.high)))
    found = -near if kind.low and random.random() < 0.3 else near
    return min(max(found, kind.low), kind.high)


def _changed_runs(runs: Runs, length: int, random: Random) -> Runs:
    found = list(runs)
    if found and random.random() < 0.5:
        del found[random.randrange(len(found))]
        return tuple(found)
    start = random.choice((0, length, max(length - 1, 0), random.randrange(length + 1)))
    return tuple(sorted([*found, (start, b"\xff" * random.choice((1, 2, 4096)))], key=lambda run: run[0]))


def smaller_snapshots(data: bytes) -> Iterator[bytes]:
    """The same snapshot with a section or field less, or a field at its default value; for a finding to be made small."""
    try:
        snapshot = Snapshot.read(data)
        sections: list[Section] = list(snapshot)
        for place, section in enumerate(sections):
            rest = sections[:place], sections[place + 1 :]
            yield written([*rest[0], *rest[1]], snapshot)
            for fewer in _smaller(section.records()):
                payload = b"".join(map(encode, fewer))
                yield written([*rest[0], _with(section, payload=payload), *rest[1]], snapshot)
    except VMStateError:
        return


def _smaller(records: Records) -> Iterator[Records]:
    for place, record in enumerate(records):
        before, behind = records[:place], records[place + 1 :]
        yield (*before, *behind)
        if record.type == "struct" and record.length is None and record.value:
            for inner in _smaller(cast("Records", record.value)):
                yield (*before, record.replace(value=inner), *behind)


def smaller_bytes(data: bytes) -> Iterator[bytes]:
    """The same bytes with a piece less, large pieces first."""
    size = len(data) // 2
    while size:
        for at in range(0, len(data), size):
            yield data[:at] + data[at + size :]
        size //= 2
