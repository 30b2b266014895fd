"""Imported sections, of which a table reads what nothing in the stream describes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import FormatError, TableError
from tagged_vmstate.frames import label
from tagged_vmstate.paths import format_path
from tagged_vmstate.qemu.savevm import nowhere, untagged
from tagged_vmstate.records import Records
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.table import Table
from tagged_vmstate.untagged import read


class Interpreted:
    """Imported sections, of which a table reads what nothing in the stream describes.

    Args:
        sections: What was imported.
        entries: The devices whose tables are known.
        notes: What the import said; complete after iterating. What a table reads is struck out, and what it read of
            fields that the table's own version lacks is added.

    Raises:
        FormatError: While iterating: a section does not fit its table.
    """

    def __init__(self, sections: Sections, entries: Iterable[Entry], notes: list[str]) -> None:
        self.raw_attributes = sections.raw_attributes
        self._sections = sections
        self._notes = notes
        self._tables = {
            label(name, entry.instance): entry.table for entry in entries for name in (entry.table.name, *entry.table.aliases)
        }

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            raw, table = untagged(section), self._tables.get(section.label)
            yield section if raw is None or table is None else self._read(section, table, *raw)

    def _read(self, section: Section, table: Table, version: int, data: bytes, offset: int) -> Section:
        records = read_section(section.label, table, data, version, offset)
        note = nowhere(section.label, len(data))
        if note in self._notes:
            self._notes.remove(note)
        for record in records:
            if not table.by_name[record.name].is_in(table.version):
                gone = f"version {table.version} has no place for it"
                self._notes.append(f"{format_path(section.label, (record.name,))}: read from version {version}; {gone}")
        attributes = dict(section.attributes)
        attributes["qemu"] = {key: value for key, value in attributes["qemu"].items() if key != "described"}
        return Section(section.device, section.instance, records, kind=section.kind, attributes=attributes)


def read_section(section: str, table: Table, data: bytes, version: int, offset: int) -> Records:
    """The fields of a section, its name in every error. Raises FormatError as `read` does."""
    try:
        return read(table, data, version, base=offset)
    except FormatError as error:
        error.section = section
        raise
    except TableError as error:  # the table is good for snapshots; it is these bytes that ask for what it does not say
        found = f"untagged bytes, which `{table.owner}` cannot read (expected {error.expected}, got {error.found})"
        refused = FormatError("a section whose fields are described", found, offset=offset, path=error.path, source="section")
        refused.section = section
        raise refused from error
