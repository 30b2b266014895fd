"""A snapshot read for some devices: new states of them, and all that was noticed; nothing is touched.

The rules of the loader, one level up: a section of a device that nobody registered is ignored if all its fields
are at their defaults, else it is a problem; a registered device without a section gets its defaults, or is a
problem where a field is required.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias, cast, get_args

from tagged_vmstate.assign import Made, New
from tagged_vmstate.codec import Filling, Loader, Unknown
from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import Finding, LoadError
from tagged_vmstate.files import Readable, as_file, bytes_of
from tagged_vmstate.frames import label
from tagged_vmstate.interpreted import read_section
from tagged_vmstate.prepared import prepared
from tagged_vmstate.qemu.savevm import untagged
from tagged_vmstate.records import LIMITS, Limits, Record, Records
from tagged_vmstate.rules import DROPPED, FILLED_DEVICE, IGNORED_DEVICE, KEPT, TWICE, UNKNOWN_DEVICE, Findings, Rule, problems
from tagged_vmstate.sections import Section, Sections, entries
from tagged_vmstate.snapshot import HELD_BYTES, Snapshot, StoredSection
from tagged_vmstate.sources import open_sections
from tagged_vmstate.table import Table
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque

Source: TypeAlias = "str | os.PathLike[str] | Readable | Sections | Section"
"""What is loaded: a path, the bytes themselves, a file open for reading, or sections from anywhere."""
_TAKEN: Final = "a path, bytes, a file open for reading in binary mode, or sections"


@dataclass(slots=True)
class _Found:
    """What a snapshot has of one device.

    Attributes:
        section: The first frame of its section.
        attributes: Those of the last one.
        offset: Where the first one is in a file.
        data: Its fields as bytes, where it is all in one frame of a file.
        new: A new state, where that was made without looking at each field.
        records: All of its fields, where it was not.
        stored: Bytes of those that come from a file.
        others: The frames that come from elsewhere.
        findings: What its loader noticed.
    """

    section: Section
    attributes: Opaque
    offset: int | None
    data: bytes | None = None
    new: New | None = None
    records: list[Record] = field(default_factory=list)
    stored: int = 0
    others: list[Section] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    def add(self, section: Section, records: Iterable[Record]) -> None:
        """Take in the fields of one more frame."""
        self.records += records
        if isinstance(section, StoredSection):
            self.stored += section.size
        else:
            self.others.append(section)

    def size(self) -> int:
        """Bytes of its fields."""
        return self.stored + sum(len(piece) for section in self.others for piece in section.pieces())


@dataclass(slots=True)
class Carried:
    """What no table knows, where it is to be kept for the next save.

    Attributes:
        sections: Those of unknown devices.
        attributes: What stands in the header, the value of each as its bytes.
        raw_attributes: What stands in each device's section, by its label.
    """

    sections: list[Section] = field(default_factory=list)
    attributes: dict[str, Opaque] = field(default_factory=dict)
    raw_attributes: dict[str, Opaque] = field(default_factory=dict)


class Incoming:
    """A snapshot read for some devices: new states of them, and what was noticed. Nothing is touched.

    Attributes:
        findings: What was noticed, the problems at least.
        states: A new state for each device; None where it does not fit.
        carried: What no table knows.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        source: Source,
        unknown: Unknown,
        *,
        tells: bool = False,
        keeps_devices: bool = True,
        limits: Limits = LIMITS,
    ) -> None:
        if unknown not in get_args(Unknown):
            raise ValueError(f"unknown is one of {', '.join(get_args(Unknown))}, not {unknown!r}")
        self.findings = Findings()
        self._limits = limits
        self.carried = Carried()
        self._unknown: Unknown = unknown
        self._unknown_devices: Unknown = "error" if unknown == "keep" and not keeps_devices else unknown
        self._tells = tells
        self._found: dict[str, _Found] = {}
        self._strange: dict[str, tuple[Section, int | None, str | None]] = {}
        self._labels = {
            label(name, entry.instance): entry.label for entry in entries for name in (entry.table.name, *entry.table.aliases)
        }
        self._tables = {entry.label: entry.table for entry in entries}
        self._entries = {entry.label: entry for entry in entries}
        self._taken: set[int] = set()
        self._keeps_states = not tells or any("post_load" in entry.table.hooks for entry in entries)
        self._read(source)
        self._tell_strange()
        self.states = [self._load(entry) for entry in entries]

    def accepted(self) -> list[New]:
        """The new states. Raises LoadError where there is a problem."""
        refusing = problems(self.findings)
        if refusing:
            raise LoadError(refusing, self.findings.more_problems)
        return cast("list[New]", self.states)

    def _read(self, source: Source) -> None:
        if isinstance(source, Snapshot):
            source.check_version()
        with _sections(source, self._limits) as sections:
            for section in sections:
                if not isinstance(section, Section):
                    raise TypeError(f"expected {_TAKEN}, got a `{type(section).__name__}` among the sections")
                self._take(section)
            attributes: Opaque | None = getattr(sections, "raw_attributes", None)
            if self._unknown == "keep" and attributes is not None:
                self.carried.attributes = entries(attributes)
                self.carried.attributes.pop("producer", None)

    def _take(self, section: Section) -> None:
        known = self._labels.get(section.label)
        offset = section.offset if isinstance(section, StoredSection) else None
        if known is None:
            self._strange_section(section, offset)
            return
        found = self._found.get(known)
        if found is None:
            found = self._found[known] = self._first(section, known, offset)
            if found.new:
                return
        elif found.section.device != section.device:
            both = f"`{found.section.device}` or `{section.device}`, which are one device"
            self._note(TWICE, section, both, "both", offset)
        found.attributes = section.raw_attributes
        if found.new and not self._keeps_states:
            self._note(TWICE, section, "each section once", "it twice", offset)
            return
        if found.new:
            found.new = None
            found.add(found.section, self._records(found.section, known))
        records = self._records(section, known)
        found.add(section, records if self._is_seen(self._tables[known]) else map(_without_memory, records))
        if section.kind == "section" and not self._keeps_states:
            found.new = self._made(self._entries[known], found)
            found.records, found.others = [], []

    def _is_seen(self, table: Table) -> bool:
        """Whether anybody looks at the new state of a device: a load, a hook, a class that makes its own states."""
        return self._keeps_states or _looks(table)

    def _first(self, section: Section, known: str, offset: int | None) -> _Found:
        """What a snapshot has of a device, by its first frame: at once all of it, where a template fits."""
        found = _Found(section, section.raw_attributes, offset)
        is_usual = not self._tells and self._limits == LIMITS
        if not is_usual or not isinstance(section, StoredSection) or section.kind != "section" or untagged(section) is not None:
            return found
        if section.size <= HELD_BYTES:
            found.data = section.payload()
            found.new = prepared(self._tables[known]).load(found.data, whole=self._unknown == "keep")
        return found

    def _records(self, section: Section, known: str) -> Records:
        """The fields of a section; what nothing describes is read by the table."""
        raw = untagged(section)
        if raw is None:
            return section.records()
        version, data, offset = raw
        return read_section(section.label, self._tables[known], data, version, offset)

    def _strange_section(self, section: Section, offset: int | None) -> None:
        """A section of a device that nobody registered, or a part of one."""
        records = section.records()
        if self._unknown_devices == "keep":
            self.carried.sections.append(section if not isinstance(section, StoredSection) else _copy(section, records))
        in_use = next((record.name for record in records if not record.is_default), None)
        self._strange.setdefault(section.label, (section, offset, in_use))
        if in_use is not None and self._strange[section.label][2] is None:
            self._strange[section.label] = section, offset, in_use

    def _tell_strange(self) -> None:
        for section, offset, in_use in self._strange.values():
            if self._unknown_devices == "keep":
                rule, found = KEPT, "it, unknown here"
            elif in_use is None:
                rule, found = IGNORED_DEVICE, "it, unknown here, at its defaults"
            else:
                rule = DROPPED if self._unknown_devices == "ignore" else UNKNOWN_DEVICE
                found = f"it, unknown here, `{in_use}` in use"
            self._note(rule, section, "only known devices, or ones at their defaults", found, offset)

    def _note(self, rule: Rule, section: Section, expected: str, found: str, offset: int | None) -> None:
        if rule.refuses or self._tells:
            self.findings.note(Finding(rule.id, section.label, (), expected, found, offset))

    def _load(self, entry: Entry) -> New | None:
        found = self._found.get(entry.label)
        if found and self._unknown == "keep":
            self.carried.raw_attributes[entry.label] = found.attributes
        if found is None:
            is_seen = self._is_seen(entry.table)
            loader = Loader(entry.label, self._unknown, taken=self._taken, findings=self.findings, is_seen=is_seen)
            state = loader.load(entry.table, None, None, entry.state)
            if self._tells:
                self.findings.note(Finding(FILLED_DEVICE.id, entry.label, (), "a section", "none", None))
            return Made(entry.table, state)
        new = found.new or self._made(entry, found)
        self.findings.take(found.findings)
        return new

    def _made(self, entry: Entry, found: _Found) -> New:
        """The new state of a device all of whose fields have come; of one that nobody will see, only what was noticed."""
        loader = Loader(
            entry.label,
            self._unknown,
            tells=self._tells,
            taken=self._taken,
            findings=found.findings,
            filling=Filling(self._limits, found.size),
            is_seen=self._is_seen(entry.table),
        )
        state = loader.load(entry.table, merged(found.records), found.offset, entry.state)
        if found.data and state is not None:
            prepared(entry.table).missed(found.data)
        return Made(entry.table, state if self._keeps_states else None)


@contextlib.contextmanager
def _sections(source: Source, limits: Limits) -> Iterator[Iterable[Section]]:
    """The sections of a source; a file that is opened for them is closed."""
    if isinstance(source, Section):
        yield (source,)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield open_sections(file, limits=limits, beside=Path(source).parent)
    elif hasattr(source, "raw_attributes") or _is_plain(source):
        yield cast("Iterable[Section]", source)
    else:
        yield open_sections(as_file(source, _TAKEN), limits=limits)


def _is_plain(source: object) -> bool:
    """Whether a source is a list of sections, or what else gives them without a header."""
    return isinstance(source, Iterable) and not hasattr(source, "read") and bytes_of(source) is None


def _looks(table: Table) -> bool:
    """Whether code of the table's own sees its new states: hooks, what makes them, predicates of memory."""
    if table.hooks or not (table.state is dict or table.is_plain):
        return True
    memory = (field for field in table.fields if field.type.wire.name == "sparse")
    return any(field.type.constraints for field in memory) or any(_looks(field.table) for field in table.fields if field.table)


def _without_memory(record: Record) -> Record:
    """A record of memory without the memory, which no rule looks into."""
    return record.replace(value=()) if record.type == "sparse" else record


def _copy(section: StoredSection, records: Records) -> Section:
    return Section(section.device, section.instance, records, kind=section.kind, attributes=section.raw_attributes)


def merged(records: Iterable[Record]) -> list[Record]:
    """The fields of all parts of a section, memory that comes several times as one."""
    found: dict[str, list[Record]] = {}
    others = []
    for record in records:
        if record.type == "sparse":
            found.setdefault(f"{record.name}\0{record.length}", []).append(record)
        else:
            others.append(record)
    for first, *more in found.values():
        runs = tuple(run for record in (first, *more) for run in cast("Runs", record.value))
        others.append(first if not more else first.replace(value=runs, is_default=all(r.is_default for r in (first, *more))))
    return others
