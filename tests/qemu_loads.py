"""The tables of docs/qemu-loads.md: recorded loads of real QEMUs, and beside them what `compat` reports of the two now."""

from __future__ import annotations

import json
import lzma
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import Any, Final

from conftest import DATA

from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change
from tagged_vmstate.paths import Path, format_path
from tagged_vmstate.qemu import dumpstate

PAGE: Final = pathlib.Path(__file__).parent.parent / "docs" / "qemu-loads.md"
RECORDS: Final = DATA / "qemu-loads.json.xz"
_MADE: Final = re.compile(r"^<!-- .* -->\n.*", re.MULTILINE | re.DOTALL)
DIRECTIONS: Final = ("upgrade", "downgrade")


@dataclass(frozen=True)
class Section:
    """A section of a stream.

    Attributes:
        name: What the stream finds it by, and QEMU's messages name.
        instance: Its instance id.
        kind: The name of its description, which a dump has too.
        size: Bytes of what the stream describes of it.
        parts: The names of all fields and subsections in it.
    """

    name: str
    instance: int
    kind: str
    size: int
    parts: Sequence[str]


@dataclass(frozen=True)
class Load:
    """A stream, and what the other QEMU did with it.

    Attributes:
        machine: The machine type that the stream names.
        types: The types of all devices that the saved machine has.
        sections: What the row's options add to it, or for a machine without any what it has.
        refusal: The words of the QEMU that refused it; empty where it loaded.
        loads_own: Whether that QEMU loads what it saves itself.
    """

    machine: str
    types: Sequence[str]
    sections: Sequence[Section]
    refusal: str
    loads_own: bool


@dataclass(frozen=True)
class Row:
    """A machine and its options, loaded both ways."""

    machine: str
    options: str
    loads: Mapping[str, Load]


@dataclass(frozen=True)
class Qemu:
    """A QEMU's version and its dump, without the devices that are in no row."""

    version: str
    dump: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A change that `compat` reports, in a stream.

    Attributes:
        change: The change.
        sections: The sections that it is about; none where it is about the machine type.
        is_met: Whether the load works as far as this change goes: its condition is looked up in the streams of both QEMUs. None: it
            cannot be seen there.
    """

    change: Change
    sections: Sequence[Section]
    is_met: bool | None

    def is_in(self, message: str) -> bool:
        """Whether QEMU's message is about the same."""
        return any(_names(message, each) for each in self.sections) or (not self.sections and _MACHINE in message)


@dataclass(frozen=True)
class Answer:
    """What `compat` reports of a load that was recorded.

    Attributes:
        load: The load.
        findings: What differs in its sections.
        listed: Those of its sections that are in both dumps.
    """

    load: Load
    findings: Sequence[Finding]
    listed: Sequence[Section]

    @property
    def effect(self) -> str:
        """The worst."""
        found = {each.change.effect for each in self.findings}
        return next((effect for effect in (REFUSED, WHILE) if effect in found), FINE)

    @property
    def reasons(self) -> Sequence[Finding]:
        """Why QEMU refuses the load, of the findings in the section that its message names."""
        return [each for each in self.findings if not each.is_met and each.is_in(self.load.refusal)]

    @property
    def outcome(self) -> str:
        """How it compares with the load."""
        message = self.load.refusal
        if not message:
            is_right = all(each.is_met is not False for each in self.findings)
            return DIFFERS if not is_right else AGREES if self.effect == FINE else CONDITION
        if not self.load.loads_own:
            return BROKEN
        if self.reasons:
            return AGREES if any(each.change.effect == REFUSED for each in self.reasons) else CONDITION
        is_listed = _MACHINE in message or any(_names(message, each) for each in self.listed)
        return DIFFERS if is_listed else UNLISTED


_MACHINE: Final = "Machine type received is"
AGREES: Final = "agrees"
CONDITION: Final = "agrees on its condition"
UNLISTED: Final = "not in a dump"
BROKEN: Final = "refuses its own"
DIFFERS: Final = "differs"
OUTCOMES: Final = (AGREES, CONDITION, UNLISTED, BROKEN, DIFFERS)


@dataclass(frozen=True)
class Record:
    """Two QEMUs.

    Attributes:
        architecture: Of the machines.
        qemus: The older and the newer.
        rows: Machines that both have.
    """

    architecture: str
    qemus: Sequence[Qemu]
    rows: Sequence[Row]

    @property
    def title(self) -> str:
        """Which they are."""
        return f"{self.architecture}: QEMU {self.qemus[0].version} and {self.qemus[1].version}"

    @cached_property
    def answers(self) -> Sequence[tuple[Row, str, Answer]]:
        """What `compat` reports of every load: its row, its direction, the answer."""
        old, new = (dumpstate.parse(qemu.dump) for qemu in self.qemus)
        sides = dict(zip(DIRECTIONS, ((old, new), (new, old)), strict=True))
        return [(row, way, _answer(row, way, *sides[way])) for row in self.rows for way in DIRECTIONS]


def _answer(row: Row, direction: str, writer: dumpstate.Dump, reader: dumpstate.Dump) -> Answer:
    ours = row.loads[direction]
    [theirs] = (row.loads[each] for each in DIRECTIONS if each != direction)
    kinds = {section.kind for section in ours.sections}
    devices = {name: each for name, each in writer.devices.items() if name in ours.types and each.name in kinds}
    changes = dumpstate.compare(replace(writer, machine=ours.machine, devices=devices), replace(reader, machine=theirs.machine))
    findings = {}
    for change in changes:
        kind = devices[change.device].name if change.device in devices else None
        sections = [each for each in ours.sections if each.kind == kind]
        if sections or change.effect == REFUSED:
            findings[kind, change.path, change.rule.id] = Finding(change, sections, _is_met(change, sections, theirs.sections))
    listed = {each.name for each in devices.values()} & {each.name for each in reader.devices.values()}
    return Answer(ours, list(findings.values()), [each for each in ours.sections if each.kind in listed])


def _is_met(change: Change, ours: Sequence[Section], theirs: Sequence[Section]) -> bool | None:
    """Whether a load works as far as a change goes; None where the streams that the two QEMUs write do not show it."""
    if change.effect != WHILE:
        return change.effect == FINE
    names = {(each.name, each.instance) for each in ours}
    other = [each for each in theirs if (each.name, each.instance) in names]
    if not change.path:
        return bool(other)
    if change.rule.id == "qemu-length-unknown":
        return [each.size for each in ours] == [each.size for each in other] or None
    is_same = _has(ours, change.writer, change.path) == _has(other, change.reader, change.path)
    # of what only the reader has on a condition, the condition may look at what has been read
    return is_same or (False if change.rule.id in _WRITTEN else None)


_WRITTEN: Final = {"qemu-subsection-unknown", "qemu-field-unknown"}


def _has(sections: Sequence[Section], words: str, path: Path) -> bool:
    """Whether one of them has a field or subsection: that which the words name, or the path."""
    renamed = re.search("`([^`]*)`", words)
    name = renamed[1] if renamed else str(path[-1])
    return any(name == each or name.endswith(f"/{each}") for section in sections for each in section.parts)


def _names(message: str, section: Section) -> bool:
    """Whether a message of QEMU's names a section."""
    return re.search(rf"(?<![\w/.-]){re.escape(section.name)}(?![\w/.-])", message) is not None


@cache
def read_records() -> list[Record]:
    """What was recorded."""
    found = json.loads(lzma.decompress(RECORDS.read_bytes())) if RECORDS.exists() else []
    return [
        Record(each["architecture"], [Qemu(**qemu) for qemu in each["qemus"]], list(map(_row, each["rows"]))) for each in found
    ]


def _row(value: dict[str, Any]) -> Row:
    loads = {
        direction: Load(**{**load, "sections": [Section(**each) for each in load["sections"]]})
        for direction, load in value["loads"].items()
    }
    return Row(value["machine"], value["options"], loads)


def add_record(record: Record) -> None:
    """Keep what was recorded, in place of what there is of the same QEMUs."""
    found = {each.title: each for each in [*read_records(), record]}
    text = json.dumps([asdict(found[title]) for title in sorted(found, reverse=True)], separators=(",", ":"))
    read_records.cache_clear()
    RECORDS.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def renewed(page: str) -> str:
    """The page with what was recorded, and what `compat` reports of it now."""
    made = "\n".join(line for record in read_records() for line in _chapter(record))
    return _MADE.sub(lambda found: f"{found[0].splitlines()[0]}\n\n{made}", page)


def _chapter(record: Record) -> Iterator[str]:
    answers = record.answers
    counts = Counter((answer.outcome, direction) for _, direction, answer in answers)
    right = sum(count for (outcome, _), count in counts.items() if outcome in {AGREES, CONDITION})
    yield from (f"## {record.title}", "", f"`compat` reports what QEMU does in {right} of {len(answers)} loads.", "")
    yield from _table(["outcome", *DIRECTIONS], ([each, *(counts[each, way] for way in DIRECTIONS)] for each in OUTCOMES))
    differing = [each for each in answers if each[2].findings or each[2].load.refusal]
    yield from (f"### {record.title}: where something differs", "")
    yield from _table(["machine", "direction", "`compat`", "QEMU", "outcome"], (_cells(*each) for each in differing))
    rows = [row for row in record.rows if not any(row is each for each, *_ in differing)]
    yield from (f"### {record.title}: no difference, and both load", "")
    yield from _table(["machine", "sections"], ([_title(row), _sections(row.loads["upgrade"].sections)] for row in rows))


def _table(titles: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield from (f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}")
    yield from (f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in row)} |" for row in rows)
    yield ""


def _title(row: Row) -> str:
    return f"`{f'{row.machine} {row.options}'.strip()}`"


def _cells(row: Row, direction: str, answer: Answer) -> Sequence[str]:
    findings = [_finding(each) for each in answer.findings] or [FINE]
    more = [f"and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else []
    message = f"`{answer.load.refusal.replace('`', chr(39))}`" if answer.load.refusal else "loads"
    return _title(row), direction, "<br>".join([*findings[:_SHOWN], *more]), message, answer.outcome


_SHOWN: Final = 6


def _finding(finding: Finding) -> str:
    change = finding.change
    place = f"`{format_path(change.device, change.path)}`"
    names = "" if not finding.sections or finding.sections[0].name == change.device else f" ({_sections(finding.sections)})"
    condition = "" if change.effect != WHILE else _TRUTHS[finding.is_met]
    return f"{place}{names}: {change.outcome}{condition} [{change.rule.id}]"


_TRUTHS: Final = {True: " (so here)", False: " (not so here)", None: " (cannot be seen here)"}


def _sections(sections: Sequence[Section]) -> str:
    """Their names, each once."""
    names = list(dict.fromkeys(f"`{each.name}`" for each in sections))
    return ", ".join(names) if len(names) <= _SHOWN else f"{len(names)} of the machine"
