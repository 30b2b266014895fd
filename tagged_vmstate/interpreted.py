"""Imported sections, of which a table reads what nothing in the stream describes, and writes it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tagged_vmstate.devices import Entry
from tagged_vmstate.errors import FormatError, StateError, TableError
from tagged_vmstate.frames import label
from tagged_vmstate.paths import format_path
from tagged_vmstate.qemu.savevm import nowhere, untagged
from tagged_vmstate.records import Records
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.table import Table
from tagged_vmstate.untagged import read, write_records
from tagged_vmstate.wiretype import brief

_SUBSECTIONS: Final = "subsections"
"""The attribute of a section that a table read: the version of each subsection, in their order."""


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
        self._tables = _by_label(entries)

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            raw, table = untagged(section), self._tables.get(section.label)
            yield section if raw is None or table is None else self._read(section, table, *raw)

    def _read(self, section: Section, table: Table, version: int, data: bytes, offset: int) -> Section:
        subsections: list[int] = []
        records = read_section(section.label, table, data, version, offset, subsections=subsections)
        note = nowhere(section.label, len(data))
        if note in self._notes:
            self._notes.remove(note)
        for record in records:
            if not table.by_name[record.name].is_in(table.version):
                gone = f"version {table.version} has no place for it"
                self._notes.append(f"{format_path(section.label, (record.name,))}: read from version {version}; {gone}")
        attributes = dict(section.attributes)
        attributes["qemu"] = {key: value for key, value in attributes["qemu"].items() if key != "described"}
        if subsections:
            attributes["qemu"][_SUBSECTIONS] = subsections
        return Section(section.device, section.instance, records, kind=section.kind, attributes=attributes)


class Encoder:
    """Writes what `Interpreted` has read: the way back, for `export`.

    Args:
        entries: The devices whose tables are known.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._tables = _by_label(entries)

    def __call__(self, section: Section, said: dict[str, Any]) -> bytes | None:
        """The bytes of a section; None where no table is known.

        Args:
            section: The section.
            said: What its attributes say under ``qemu``.

        Raises:
            StateError: The table does not write that version, a field in use has no place in it, or a field is not as the
                table has it.
        """
        table = self._tables.get(section.label)
        if table is None:
            return None
        try:
            return _written(section, table, said)
        except StateError as error:
            error.section = section.label
            raise


def _written(section: Section, table: Table, said: dict[str, Any]) -> bytes:
    version, subsections = said.get("version"), said.get(_SUBSECTIONS, [])
    numbers = [version, *subsections] if isinstance(subsections, list) else []
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise StateError("the versions of the section and its subsections in the attributes", brief(said))
    try:
        return write_records(table, section.records(), numbers[0], numbers[1:])
    except TableError as error:
        raise StateError(error.expected, error.found, path=error.path) from None


def _by_label(entries: Iterable[Entry]) -> dict[str, Table]:
    """The tables by the label of each section that they read."""
    return {label(name, entry.instance): entry.table for entry in entries for name in (entry.table.name, *entry.table.aliases)}


def read_section(
    section: str, table: Table, data: bytes, version: int, offset: int, *, subsections: list[int] | None = None
) -> Records:
    """The fields of a section, its name in every error. Raises FormatError as `read` does."""
    try:
        return read(table, data, version, base=offset, subsections=subsections)
    except FormatError as error:
        error.section = section
        raise
    except TableError as error:  # the table is good for snapshots; it is these bytes that ask for what it does not say
        found = f"untagged bytes, which `{table.owner}` cannot read (expected {error.expected}, got {error.found})"
        refused = FormatError("a section whose fields are described", found, offset=offset, path=error.path, source="section")
        refused.section = section
        raise refused from error
