"""The findings of `check` and `compat` for continuous integration: JUnit XML, and the annotations of GitHub Actions."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tagged_vmstate.cli.messages import clean

Level: TypeAlias = Literal["error", "warning", "notice"]
"""Refused, on a condition, fine: as GitHub names them."""
FORMATS: Final = ("junit", "github")


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was found.

    Attributes:
        test: The test that it belongs to: a device.
        level: A test with an error failed; one with a warning was skipped.
        rule: The id of its rule.
        text: It in words.
    """

    test: str
    level: Level
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Suite:
    """One question, asked of each device.

    Attributes:
        name: What was asked.
        tests: The devices. One that only a note names is a test too.
        notes: What was found.
    """

    name: str
    tests: Iterable[str]
    notes: Sequence[Note]


def show(form: str, command: str, suites: Sequence[Suite]) -> None:
    """Print what a command found in one of `FORMATS`."""
    if form == "junit":
        print(_junit(command, suites))
        return
    for suite in suites:
        for note in suite.notes:
            title = _github(f"{suite.name} {note.rule}").replace(":", "%3A").replace(",", "%2C")
            print(f"::{note.level} title={title}::{_github(note.text)}")


def _github(text: str) -> str:
    return clean(text).replace("%", "%25")


def _junit(command: str, suites: Sequence[Suite]) -> str:
    """ASCII, so that it can be printed anywhere."""
    root = ET.Element("testsuites", name=f"tagged-vmstate {command}")
    for suite in suites:
        tests: dict[str, list[Note]] = {test: [] for test in suite.tests}
        for note in suite.notes:
            tests.setdefault(note.test, []).append(note)
        group = f"{command}.{suite.name.replace('.', '_')}"  # Jenkins takes the last dot for the end of a package
        cases = [_case(group, test, notes) for test, notes in (tests or {"no devices": []}).items()]
        counts = {key: str(sum(case.find(tag) is not None for case in cases)) for key, tag in _COUNTED}
        attributes = {"name": clean(suite.name), "tests": str(len(cases)), "errors": "0", **counts}
        ET.SubElement(root, "testsuite", attributes).extend(cases)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=True)
    return text.decode()


_COUNTED: Final = (("failures", "failure"), ("skipped", "skipped"))
_TAGS: Final[dict[Level, str]] = {"error": "failure", "warning": "skipped", "notice": "system-out"}
"""Level -> the element that says what came of a test, the worst level first."""


def _case(group: str, test: str, notes: Sequence[Note]) -> ET.Element:
    """A test with its notes, the worst first, all of them in the text: Jenkins shows message and text, GitLab only the text."""
    case = ET.Element("testcase", classname=clean(group), name=clean(test))
    worst = sorted(notes, key=lambda note: list(_TAGS).index(note.level))
    if worst:
        outcome = ET.SubElement(case, _TAGS[worst[0].level])
        lines = [clean(note.text) for note in worst]
        outcome.text = "\n".join(lines)
        if outcome.tag != "system-out":
            outcome.set("type", worst[0].rule)
            outcome.set("message", lines[0] + (f", and {len(lines) - 1} more" if len(lines) > 1 else ""))
    return case
