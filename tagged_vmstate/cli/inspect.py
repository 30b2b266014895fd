"""`info` and `show`: what a snapshot holds, for a person."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import click

from tagged_vmstate.cli.files import STANDARD, opened, output, print_json
from tagged_vmstate.cli.globs import fits, not_found
from tagged_vmstate.cli.looks import TABLES_OPTION, looks
from tagged_vmstate.cli.messages import clean, say
from tagged_vmstate.cli.render import (
    BAD,
    DEVICE,
    DIM,
    PLAIN,
    PLAINLY,
    VALUE,
    Line,
    section_lines,
    show_lines,
    size_text,
    table,
)
from tagged_vmstate.errors import GATHERED, FormatError
from tagged_vmstate.frames import VERSION, label
from tagged_vmstate.jsonform import section_to_json
from tagged_vmstate.overview import Whole, overview
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.snapshot import Snapshot, StoredSection

DAMAGED = 1
FORMATS = click.Choice(["text", "json"])


class _Entry:
    """What `info` says of a section."""

    __slots__ = ("damage", "device", "fields", "instance", "is_damaged", "parts", "size")

    def __init__(self, section: Section) -> None:
        self.device = section.device
        self.instance = section.instance
        self.parts = 0
        self.size = 0
        self.fields: int | None = 0
        self.is_damaged = False
        self.damage: Sequence[str] = ()

    def add(self, section: Section, *, is_readable: bool) -> FormatError | None:
        """Count one more part; what is wrong with it."""
        self.parts += 1
        self.size += section.size if isinstance(section, StoredSection) else sum(map(len, section.pieces()))
        damage = section.damage if isinstance(section, StoredSection) else None
        try:
            is_countable = is_readable and self.fields is not None and damage is None
            self.fields = cast("int", self.fields) + len(section.records()) if is_countable else None
        except FormatError as error:
            self.fields = None
            damage = error
        self.is_damaged = self.is_damaged or damage is not None
        return damage

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        found = {"device": self.device, "instance": self.instance, "parts": self.parts, "fields": self.fields}
        return {**found, "size": self.size, "damage": self.damage}


@click.command(short_help="Header, sections, sizes and sums; damage.")
@click.argument("file")
@click.option("--format", "form", type=FORMATS, default="text", show_default=True, help="For a person or a program.")
def info_command(file: str, form: str) -> int:
    """Header, sections, sizes and sums; damage.

    Works on a damaged FILE and on one of a later version: every section that can be found is listed, and what is
    wrong is said behind the list.

    \b
    Examples:
      tagged-vmstate info vm.tvm
      tagged-vmstate info vm.mig.xz --format json | jq '.sections[].device'

    Exit status: 0 whole, 1 damaged, 2 unreadable.
    """
    with opened(file, salvage=True) as sections:
        entries: dict[str, _Entry] = {}
        version = sections.version if isinstance(sections, Snapshot) else VERSION
        left = GATHERED
        for section in sections:
            entry = entries.setdefault(section.label, _Entry(section))
            error = entry.add(section, is_readable=version == VERSION)
            left -= error is not None
            if error and left >= 0:
                entry.damage = (*entry.damage, str(error))
        damage = [str(error) for error in sections.damage] if isinstance(sections, Snapshot) else []
        more = max(-left, 0) + (sections.more_damage if isinstance(sections, Snapshot) else 0)
        attributes = sections.raw_attributes.to_json()
    damage += [sentence for entry in entries.values() for sentence in entry.damage]
    damage += [f"{more} more"] if more else []
    if form == "json":
        rows = [entry.as_json() for entry in entries.values()]
        print_json({"version": version, "attributes": attributes, "sections": rows, "damage": damage})
    else:
        show_lines(_info_lines(version, attributes, list(entries.values()), damage))
    return DAMAGED if damage else 0


def _info_lines(version: int, attributes: dict[str, Any], entries: Sequence[_Entry], damage: Sequence[str]) -> Iterator[Line]:
    later = "" if version == VERSION else ": a later build reads its fields"
    yield [("format  ", DIM), (f"{version}{later}", VALUE)]
    for key, value in attributes.items():
        yield [(f"{clean(key)}  ", DIM), (clean(value if isinstance(value, str) else json.dumps(value)), VALUE)]
    yield []
    rows = [("section", "parts", "fields", "size", "state")]
    for entry in entries:
        fields = "?" if entry.fields is None else str(entry.fields)
        state = "damaged" if entry.is_damaged else "ok"
        rows.append((clean(label(entry.device, entry.instance)), str(entry.parts), fields, size_text(entry.size), state))
    styles = (DEVICE, PLAIN, PLAIN, VALUE, DIM)
    for line in table(rows, styles, right=frozenset({1, 2, 3})):
        yield [(text, BAD if text.startswith("damaged") else style) for text, style in line]
    yield []
    total = sum(entry.size for entry in entries)
    yield [(f"{len(entries)} sections, {size_text(total)} of fields", DIM)]
    for sentence in damage:
        yield [("damaged: ", BAD), (clean(sentence), PLAIN)]


@click.command(short_help="The values, as a tree.")
@click.argument("file")
@click.argument("device", required=False)
@click.argument("field", required=False)
@click.option("--non-default", is_flag=True, help="Only what differs from the defaults of its writer.")
@click.option("--full", is_flag=True, help="Arrays and buffers to the last byte. Implied by FIELD.")
@click.option("--salvage", is_flag=True, help="Go on after damage, and tell it on standard error.")
@TABLES_OPTION
@click.option("--format", "form", type=FORMATS, default="text", show_default=True, help="For a person or a program.")
def show_command(
    file: str,
    device: str | None,
    field: str | None,
    *,
    non_default: bool,
    full: bool,
    salvage: bool,
    spec: str | None,
    form: str,
) -> int:
    """The values, as a tree.

    DEVICE and FIELD are names or globs (quote them). DEVICE may name an instance, as in "dma#1"; FIELD is the name of a
    field at any depth, or a path such as "queue/count". Brackets in a name stand for themselves.

    \b
    Examples:
      tagged-vmstate show vm.tvm
      tagged-vmstate show vm.mig ps2kbd
      tagged-vmstate show vm.mig '0000:00:0*' config*
      tagged-vmstate show vm.tvm --non-default
      tagged-vmstate show board.tvm --tables board:MACHINE

    Exit status: 0 shown, 1 damaged (with --salvage), 2 unreadable, or nothing of that name.
    """
    chosen = _Choice(device, field, non_default=non_default)
    known = looks(spec)
    with opened(file, salvage=salvage) as sections:
        sound = _Sound(sections)
        if form == "json":
            _print_sections(chosen.sections(sound))
        else:
            is_full = full or field is not None
            wholes = chosen.wholes(overview(sound))
            show_lines(
                line for whole in wholes for line in section_lines(whole, known.get(whole.device, PLAINLY), is_full=is_full)
            )
    chosen.check()
    return DAMAGED if sound.is_damaged() else 0


class _Sound:
    """Sections without the damaged ones, which are told on standard error."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._damaged = 0
        self.raw_attributes = sections.raw_attributes

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            if isinstance(section, StoredSection) and section.damage:
                self._damaged += 1
                say(f"left out: {section.damage}")
            else:
                yield section

    def is_damaged(self) -> bool:
        """Whether anything was wrong. What no section told is told now."""
        lost = self._sections.damage if isinstance(self._sections, Snapshot) else []
        for error in lost:
            say(f"damaged: {error}")
        if isinstance(self._sections, Snapshot) and self._sections.more_damage:
            say(f"damaged: {self._sections.more_damage} more")
        return bool(self._damaged or lost)


class _Choice:
    """Which devices and fields to show."""

    def __init__(self, device: str | None, field: str | None, *, non_default: bool) -> None:
        self._device = device
        self._field = field
        self._non_default = non_default
        self._seen: set[str] = set()
        self._matched = False
        self._shown = False

    def wholes(self, wholes: Iterable[Whole]) -> Iterator[Whole]:
        """The chosen sections, with only the chosen fields in them."""
        for whole in wholes:
            if self._has_device(whole.device, whole.instance):
                whole.records = list(self._records(whole.records, ""))
                if self._field is not None:
                    whole.memory = {name: memory for name, memory in whole.memory.items() if self._has_field(name, name)}
                if whole.records or whole.memory or (self._field is None and not self._non_default):
                    self._shown = True
                    yield whole

    def sections(self, sections: Iterable[Section]) -> Iterator[Section]:
        """The same, part by part."""
        for section in sections:
            if self._has_device(section.device, section.instance):
                records = tuple(self._records(section.records(), ""))
                self._shown = self._shown or bool(records)
                yield Section(section.device, section.instance, records, kind=section.kind, attributes=section.raw_attributes)

    def check(self) -> None:
        """Raise Trouble where a name was given and nothing had it."""
        if self._device is not None and not self._matched:
            raise not_found("device", self._device, self._seen)
        if self._field is not None and not self._shown:
            raise not_found("field", self._field, self._seen)

    def _has_device(self, device: str, instance: int) -> bool:
        if self._device is None or fits(device, self._device) or fits(label(device, instance), self._device):
            self._matched = True
            return True
        self._seen.add(device)
        return False

    def _has_field(self, name: str, path: str) -> bool:
        self._seen.add(name)
        return self._field is None or fits(name, self._field) or fits(path, self._field)

    def _records(self, records: Iterable[Record], above: str) -> Iterator[Record]:
        for record in records:
            if self._non_default and record.is_default:
                continue
            path = f"{above}{record.name}"
            if self._has_field(record.name, path) and not (self._non_default and record.type == "struct"):
                yield record
            elif record.type == "struct" and record.value is not None:
                yield from self._inside(record, path)

    def _inside(self, record: Record, path: str) -> Iterator[Record]:
        """A struct with only what is chosen of it; nothing where that is nothing."""
        elements = cast("Sequence[Records | None]", (record.value,) if record.length is None else record.value)
        chosen = tuple(element and tuple(self._records(element, f"{path}/")) for element in elements)
        if any(chosen):
            yield record.replace(value=chosen[0] if record.length is None else chosen)


def _print_sections(sections: Iterable[Section]) -> None:
    with output(STANDARD, is_text=True) as target:
        target.write(b"[")
        for number, section in enumerate(sections):
            text = json.dumps(section_to_json(section), ensure_ascii=False)
            target.write(f"{',' if number else ''}\n{text}".encode())
        target.write(b"\n]\n")
