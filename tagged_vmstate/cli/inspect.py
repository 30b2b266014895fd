"""`info` and `show`: what a snapshot holds, for a person."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import click
from msgpack import ExtType, Timestamp

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import STANDARD, opened, output, print_json, salvaged
from tagged_vmstate.cli.looks import TABLES_OPTION, looks
from tagged_vmstate.cli.messages import clean, say
from tagged_vmstate.cli.paths import CANDIDATES, not_found, pattern
from tagged_vmstate.cli.render import (
    BAD,
    DEVICE,
    DIM,
    OMITTED,
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
from tagged_vmstate.jsonform import whole_text
from tagged_vmstate.overview import Whole, overview
from tagged_vmstate.paths import Path, Pattern, format_path
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section, Sections, decoded
from tagged_vmstate.snapshot import Snapshot, StoredSection
from tagged_vmstate.sources import Salvaged
from tagged_vmstate.wire import Opaque

DAMAGED = 1
FORMATS = click.Choice(["text", "json"])


class _Entry:
    """What `info` shows of a section; in a file of a later version, of all its frames of one kind."""

    __slots__ = ("checksums", "damage", "device", "instance", "is_damaged", "kind", "names", "parts", "size")

    def __init__(self, section: Section, kind: str) -> None:
        self.kind = kind
        self.device = section.device
        self.instance = section.instance
        self.parts = 0
        self.checksums: list[tuple[int, bool]] = []
        self.size = 0
        self.names: set[str] | None = set()
        self.is_damaged = False
        self.damage: Sequence[str] = ()

    def add(self, section: Section, *, is_readable: bool) -> FormatError | None:
        """Count one more part; what is wrong with it."""
        self.parts += 1
        self.size += section.size if isinstance(section, StoredSection) else sum(map(len, section.pieces()))
        damage = section.damage if isinstance(section, StoredSection) else None
        if isinstance(section, StoredSection):
            self.checksums.append((section.crc, section.computed == section.crc))
        try:
            if not is_readable or damage is not None:
                self.names = None
            if self.names is not None:
                self.names.update(record.name for record in section.records())
        except FormatError as error:
            self.names = None
            damage = error
        self.is_damaged = self.is_damaged or damage is not None
        return damage

    @property
    def fields(self) -> int | None:
        """How many there are over all parts; None where not all can be read."""
        return None if self.names is None else len(self.names)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "device": self.device,
            "instance": self.instance,
            "parts": self.parts,
            "fields": self.fields,
            "size": self.size,
            "checksums": [{"crc32": _hex(crc), "intact": is_intact} for crc, is_intact in self.checksums],
            "damage": self.damage,
        }

    def crc_text(self) -> str:
        """For a person: the one checksum, or how many there were."""
        if self.parts == 1:
            return f"{self.checksums[0][0]:08x}"
        return _counted(sum(is_intact for _, is_intact in self.checksums), self.parts, "intact")


def _hex(crc: int | None) -> str | None:
    return None if crc is None else f"0x{crc:08x}"


def _counted(count: int, total: int, word: str) -> str:
    return f"{count} {word}" if count == total else f"{count} of {total} {word}"


@click.command(short_help="Header, sections, sizes and checksums; damage.")
@click.argument("file")
@click.option("--format", "form", type=FORMATS, default="text", show_default=True, help="For a person or a program.")
def info_command(file: str, form: str) -> int:
    """Header, sections, sizes and checksums; damage.

    Works on a damaged FILE and on one of a later version, whose frames are listed by kind: every section that is intact is
    listed, and what is wrong comes after the list. A snapshot is searched to its end, a JSON form is read past a section that
    is wrong; a stream, and what is compressed, are read up to the damage.

    \b
    Examples:
      tagged-vmstate info vm.tvm
      tagged-vmstate info vm.mig.xz --format json | jq '.sections[].device'

    Exit status: 0 intact, 1 damaged, 2 unreadable.
    """
    with salvaged(file) as sections:
        entries: dict[tuple[str, str], _Entry] = {}
        version = sections.version
        left = GATHERED
        for section in sections:
            kind = "section" if version == VERSION else section.kind
            entry = entries.setdefault((section.label, kind), _Entry(section, kind))
            error = entry.add(section, is_readable=version == VERSION)
            left -= error is not None
            if error and left >= 0:
                entry.damage = (*entry.damage, str(error))
        damage = [str(error) for error in sections.damage]
        more = max(-left, 0) + sections.more_damage
        attributes = sections.raw_attributes
        checksums = _checksums(sections.sections)
    damage += [sentence for entry in entries.values() for sentence in entry.damage]
    damage += [f"{more} more"] if more else []
    if form == "json":
        rows = [entry.as_json() for entry in entries.values()]
        found = {"report": "info", "version": version, "attributes": attributes.to_json(), "checksums": checksums}
        print_json({**found, "sections": rows, "damage": damage})
    else:
        show_lines(_info_lines(version, decoded(attributes), checksums, list(entries.values()), damage))
    return DAMAGED if damage else 0


def _checksums(sections: Sections) -> dict[str, str | None] | None:
    """Those of header and end, where they are intact; None for what has no checksums."""
    return {"header": _hex(sections.header_crc), "end": _hex(sections.end_crc)} if isinstance(sections, Snapshot) else None


def _info_lines(
    version: int,
    attributes: dict[str, Any],
    checksums: dict[str, str | None] | None,
    entries: Sequence[_Entry],
    damage: Sequence[str],
) -> Iterator[Line]:
    later = "" if version == VERSION else ": a later build reads its fields"
    yield [("format  ", DIM), (f"{version}{later}", VALUE)]
    for key, value in attributes.items():
        yield [(f"{clean(key)}  ", DIM), (clean(value if isinstance(value, str) else _attribute_text(value)), VALUE)]
    yield []
    rows = [["section", "parts", "fields", "size", "state"]]
    for entry in entries:
        fields = "?" if entry.fields is None else str(entry.fields)
        state = "damaged" if entry.is_damaged else "ok"
        name = format_path(label(entry.device, entry.instance), ())
        rows.append([name, str(entry.parts), fields, size_text(entry.size), state])
    styles = [DEVICE, PLAIN, PLAIN, VALUE, DIM]
    right = {1, 2, 3}
    if checksums:
        for row, text in zip(rows, ["crc32", *(entry.crc_text() for entry in entries)], strict=True):
            row.insert(-1, text)
        styles.insert(-1, PLAIN)
    if later:
        for row, text in zip(rows, ["kind", *(clean(entry.kind) for entry in entries)], strict=True):
            row.insert(1, text)
        styles.insert(1, PLAIN)
        right = {2, 3, 4}
    for line in table(rows, styles, right=frozenset(right)):
        yield [(text, BAD if text.startswith("damaged") else style) for text, style in line]
    yield []
    total = sum(entry.size for entry in entries)
    count = "1 section" if len(entries) == 1 else f"{len(entries)} sections"
    yield [(f"{count}, {size_text(total)} of fields", DIM)]
    if checksums:
        yield _checksum_line(checksums, entries)
    for sentence in damage:
        yield [("damaged: ", BAD), (clean(sentence), PLAIN)]


def _attribute_text(value: Any) -> str:
    """An attribute for a person."""
    if isinstance(value, Opaque | bytes):
        return (value if isinstance(value, bytes) else value.raw).hex(" ")
    if isinstance(value, ExtType):
        return f"ext {value.code}: {value.data.hex(' ')}"
    if isinstance(value, Timestamp):
        return _time_text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_attribute_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_attribute_text(key)}: {_attribute_text(each)}' for key, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _time_text(time: Timestamp) -> str:
    try:
        return str(time.to_datetime().isoformat())
    except OverflowError:  # a year beyond 9999
        return f"{time.seconds} s since 1970"


def _checksum_line(checksums: dict[str, str | None], entries: Sequence[_Entry]) -> Line:
    header, end = checksums["header"], checksums["end"]
    parts = [is_intact for entry in entries for _, is_intact in entry.checksums]
    word = "section" if len(parts) == len(entries) else "part"
    counted = _counted(sum(parts), len(parts), word if len(parts) == 1 else f"{word}s")
    shown = f"header {header}" if header else "no intact header", counted, f"end {end}" if end else "no intact end"
    is_right = bool(header and end) and all(parts)
    return [("checksums  ", DIM), (f"{', '.join(shown)}: ", PLAIN), ("all right", VALUE) if is_right else ("damaged", BAD)]


@click.command(short_help="The values, as a tree.")
@click.argument("file")
@click.argument("words", metavar="[PATH]", nargs=-1, shell_complete=complete.place)
@click.option("--non-default", is_flag=True, help="Only what differs from the defaults of its writer.")
@click.option("--full", is_flag=True, help="Arrays, buffers and memory to the last byte. Implied by FIELD.")
@click.option("--salvage", is_flag=True, help="Show all that is intact of a damaged FILE; name the damage on standard error.")
@TABLES_OPTION
@click.option("--format", "form", type=FORMATS, default="text", show_default=True, help="For a person or a program.")
def show_command(
    file: str,
    words: tuple[str, ...],
    *,
    non_default: bool,
    full: bool,
    salvage: bool,
    spec: str | None,
    form: str,
) -> int:
    """The values, as a tree.

    PATH is DEVICE or DEVICE/FIELD (or the two as two words), with globs: dma#1, hpet/timer[1]/cmp, 'cpu/env.*',
    '**/count' at any depth. See docs/paths.md.

    \b
    Examples:
      tagged-vmstate show vm.tvm
      tagged-vmstate show vm.mig ps2kbd
      tagged-vmstate show vm.mig '0000:00:0*/**/config*'
      tagged-vmstate show vm.tvm --non-default
      tagged-vmstate show board.tvm --tables board:MACHINE

    Exit status: 0 shown, 1 damaged (with --salvage), 2 unreadable, or nothing of that name.
    """
    chosen = _Choice(pattern(words), non_default=non_default)
    known = looks(spec)
    with (salvaged if salvage else opened)(file) as sections:
        sound = _Sound(sections)
        wholes = chosen.wholes(sound.marked(overview(chosen.sections(sound))))
        if form == "json":
            _print_json(wholes)
        else:
            show_lines(
                line
                for whole in wholes
                for line in section_lines(
                    whole, known.get(whole.device, PLAINLY), is_full=full or chosen.names_field(whole.device, whole.instance)
                )
            )
    is_damaged = sound.is_damaged()
    chosen.check()
    return DAMAGED if is_damaged else 0


class _Sound:
    """Sections without the damaged ones, which are reported on standard error."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._damaged: set[str] = set()
        self.raw_attributes = sections.raw_attributes

    def __iter__(self) -> Iterator[Section]:
        for section in self._sections:
            if isinstance(section, StoredSection) and section.damage:
                self._damaged.add(section.label)
                say(f"left out: {section.damage}")
            else:
                yield section

    def marked(self, wholes: Iterable[Whole]) -> Iterator[Whole]:
        """Sections with all their parts, marked where some of them are lost, or may be."""
        for whole in wholes:
            lost = isinstance(self._sections, Salvaged) and self._sections.has_gaps
            whole.is_incomplete = whole.is_incomplete or lost or label(whole.device, whole.instance) in self._damaged
            yield whole

    def is_damaged(self) -> bool:
        """Whether anything was wrong. What no section told is told now."""
        if not isinstance(self._sections, Salvaged):
            return False
        for error in self._sections.damage:
            say(f"damaged: {error}")
        if self._sections.more_damage:
            say(f"damaged: {self._sections.more_damage} more")
        return bool(self._damaged or self._sections.damage)


class _Choice:
    """Which devices and fields to show."""

    def __init__(self, pattern: Pattern | None, *, non_default: bool) -> None:
        self._pattern = pattern
        self._non_default = non_default
        self._labels: dict[str, None] = {}
        self._fields: list[tuple[str, Path]] = []
        self._is_there = False
        self._is_shown = False

    def sections(self, sections: Iterable[Section]) -> Iterator[Section]:
        """The sections that are named, or that something named may lie in."""
        for section in sections:
            self._labels[section.label] = None
            if self._pattern is None or self._pattern.may_lie_in(section.label):
                self._is_there = self._is_there or self._names_whole(section.label)
                yield section

    def wholes(self, wholes: Iterable[Whole]) -> Iterator[Whole]:
        """The chosen sections, with only the chosen fields in them."""
        for whole in wholes:
            name = label(whole.device, whole.instance)
            whole.records = list(self._records(name, whole.records, ()))
            whole.memory = {
                each: memory
                for each, memory in whole.memory.items()
                if (self._is_chosen(name, (each,)) or self._is_inside(name, (each,)))
                and not (self._non_default and memory.is_default)
            }
            if whole.records or whole.memory or (self._names_whole(name) and not self._non_default):
                self._is_shown = True
                yield whole

    def names_field(self, device: str, instance: int) -> bool:
        """Whether only some fields of a section were asked for."""
        return not self._names_whole(label(device, instance))

    def check(self) -> None:
        """Raise Trouble where a path was given and named nothing."""
        if self._pattern is None or self._is_shown:
            return
        if not self._is_there:
            raise not_found(self._pattern, self._fields or ((name, ()) for name in self._labels))
        say(f"{self._pattern.text} is at its default")

    def _names_whole(self, name: str) -> bool:
        return self._pattern is None or self._pattern.covers(name, ())

    def _is_chosen(self, name: str, path: Path) -> bool:
        if self._pattern is None or self._pattern.covers(name, path):
            self._is_there = True
            return True
        if len(self._fields) < CANDIDATES:
            self._fields.append((name, path))
        return False

    def _is_inside(self, name: str, path: Path) -> bool:
        """Whether an element of a field is named, or a byte of it: the field is shown."""
        found = self._pattern is not None and self._pattern.indexed is not None and self._pattern.indexed[0].fits(name, path)
        self._is_there = self._is_there or found
        return found

    def _records(self, name: str, records: Iterable[Record], above: Path) -> Iterator[Record]:
        for record in records:
            path = (*above, record.name)
            is_chosen = self._is_chosen(name, path) or (record.type != "struct" and self._is_inside(name, path))
            if self._non_default and record.is_default:
                continue
            if record.type == "struct" and record.value is not None and (self._non_default or not is_chosen):
                yield from self._inside(name, record, path)
            elif is_chosen:
                yield record

    def _inside(self, name: str, record: Record, path: Path) -> Iterator[Record]:
        """A struct with only what is chosen of it; nothing where that is nothing."""
        if record.length is None:
            chosen = tuple(self._records(name, cast("Records", record.value), path))
            if chosen:
                yield record.replace(value=chosen)
            return
        elements = []
        for index, element in enumerate(cast("Sequence[Records | None]", record.value)):
            is_whole = element is None and self._is_chosen(name, (*path, index)) and not self._non_default
            elements.append(element if is_whole else tuple(self._records(name, element or (), (*path, index))) or OMITTED)
        if any(element is not OMITTED for element in elements):
            yield record.replace(value=tuple(elements))


def _print_json(wholes: Iterable[Whole]) -> None:
    with output(STANDARD, is_text=True) as target:
        target.write(b'{"report": "show", "sections": [')
        for number, whole in enumerate(wholes):
            target.write(b",\n" if number else b"\n")
            target.writelines(whole_text(whole))
        target.write(b"\n]}\n")
