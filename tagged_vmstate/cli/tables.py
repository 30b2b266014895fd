"""`check`, `compat` and `tables`: told before anyone loads."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tagged_vmstate import compat
from tagged_vmstate.changes import FINE, REFUSED, Change
from tagged_vmstate.cli.files import STANDARD, Trouble, opened, print_json
from tagged_vmstate.cli.messages import clean
from tagged_vmstate.cli.modules import any_tables, tables
from tagged_vmstate.cli.render import BAD, DIM, NAME, PLAIN, VALUE, Line, show_lines
from tagged_vmstate.codec import Unknown
from tagged_vmstate.errors import Finding, format_path
from tagged_vmstate.machine import Report, check_by_loading
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.rules import RULES
from tagged_vmstate.tablejson import NotCarried, not_carried, tables_to_json

INCOMPATIBLE = 1
DIRECTIONS = {"upgrade": "NEW loads what OLD saved", "downgrade": "OLD loads what NEW saves"}


@click.command(short_help="Can these tables load this snapshot?")
@click.argument("file")
@click.option("--against", "spec", required=True, metavar="TABLES", help="module:MACHINE, or tables exported as JSON.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "ignore", "keep"]),
    default="error",
    show_default=True,
    help="What the load does with what no table knows.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to tell it.")
def check_command(file: str, spec: str, unknown: Unknown, form: str) -> int:
    """Can these tables load this snapshot? Everything that a load would meet, at once.

    Against module:MACHINE, all hooks are run, on a machine of this process: what they reach outside is the module's. Exported
    tables have no hooks and predicates; where there were any, the last line names how many.

    \b
    Examples:
      tagged-vmstate check vm.tvm --against board:MACHINE
      tagged-vmstate check vm.mig --against release-1.2.json --unknown ignore
      tagged-vmstate check vm.tvm --against board:MACHINE --format json | jq '.findings[] | select(.refuses)'

    Exit status: 0 it can, 1 it cannot, 2 unreadable.
    """
    entries = tables(spec)
    with opened(file) as sections:
        report = check_by_loading(entries, sections, unknown)
    lacking = not_carried(entries)
    if form == "json":
        missing = [{"kind": each.kind, "class": each.owner, "name": each.name, "field": each.field} for each in lacking]
        result = {
            "report": "check",
            "loads": not report.problems,
            "not_in_tables": missing,
            "findings": [_finding_json(finding) for finding in report.findings],
            "more": report.more_problems + report.more,
        }
        print_json(result)
    else:
        show_lines(_check_lines(report, lacking))
    return INCOMPATIBLE if report.problems else 0


def _finding_json(finding: Finding) -> dict[str, Any]:
    rule = RULES[finding.rule]
    return {
        "rule": finding.rule,
        "refuses": rule.refuses,
        "section": finding.section,
        "path": list(finding.path),
        "expected": finding.expected,
        "found": finding.found,
        "offset": finding.offset,
        "purpose": rule.purpose,
        "remedy": rule.remedy,
    }


def _check_lines(report: Report, lacking: Sequence[NotCarried]) -> Iterator[Line]:
    findings = report.findings
    for finding in sorted(findings, key=lambda each: not RULES[each.rule].refuses):
        rule = RULES[finding.rule]
        mark, style = ("refused", BAD) if rule.refuses else ("fine   ", DIM)
        yield [(mark, style), ("  ", PLAIN), (clean(format_path(finding.section, finding.path)), NAME), (f"  {rule.id}", DIM)]
        yield [("         ", PLAIN), (clean(finding.sentence), VALUE)]
        if rule.refuses:
            yield [("         ", PLAIN), (f"to mend it: {rule.remedy}", DIM)]
    more = report.more_problems + report.more
    if more:
        yield [(f"and {more} more", DIM)]
    refusing = len(report.problems) + report.more_problems
    others = len(findings) + more - refusing
    told = f", {others} more to know" if others else ""
    verdict = "cannot be loaded" if refusing else "can be loaded as far as these tables say" if lacking else "can be loaded"
    counted = f"{refusing} {'problem' if refusing == 1 else 'problems'}" if refusing or not lacking else _lacking(lacking)
    yield [(verdict, BAD if refusing else VALUE), (f": {counted}{told}", PLAIN)]


def _lacking(functions: Sequence[NotCarried]) -> str:
    """What exported tables lack, counted."""
    counts = Counter(each.kind for each in functions)
    if counts.pop("unknown", 0):
        return "an earlier release exported them, without its checks and predicates"
    said = [f"{counts[kind]} {word if counts[kind] == 1 else words}" for kind, word, words in _LACKING if kind in counts]
    return f"{', '.join(said)} {'is' if sum(counts.values()) == 1 else 'are'} not in them"


_LACKING = (("check", "check", "checks"), ("predicate", "predicate", "predicates"), ("post_load", "post_load", "post_loads"))


@click.command(short_help="Export tables as JSON.")
@click.argument("spec", metavar="MODULE:MACHINE")
@click.option("-o", "--output", "out", default=STANDARD, metavar="OUT", help="Where to; standard output unless given.")
def tables_command(spec: str, out: str) -> None:
    """Export the tables of a machine as JSON, to keep beside every release.

    \b
    Examples:
      tagged-vmstate tables board:MACHINE -o release-1.2.json
      tagged-vmstate compat release-1.2.json board:MACHINE
    """
    print_json(tables_to_json(tables(spec)), out)


@click.command(short_help="What an upgrade and a downgrade would meet.")
@click.argument("old")
@click.argument("new")
@click.option(
    "--direction", type=click.Choice(["both", *DIRECTIONS]), default="both", show_default=True, help="Which to look at."
)
@click.option("--strict", is_flag=True, help="Exit with 1 for what loads only on a condition, too.")
@click.option("--alias", "aliases", multiple=True, metavar="[DEVICE.]OLD=NEW", help="A name that changed, in dumps of QEMU's.")
@click.option("--aliases", "alias_file", type=click.Path(path_type=Path), metavar="FILE", help="The same, one in a line.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "junit", "github"]),
    default="text",
    show_default=True,
    help="How to tell it.",
)
def compat_command(
    old: str, new: str, *, direction: str, aliases: tuple[str, ...], alias_file: Path | None, form: str, strict: bool
) -> int:
    """Compare tables with tables: can NEW load what OLD saved, can OLD load what NEW saves, and on which condition.

    OLD and NEW are module:MACHINE or tables exported as JSON; or both are what QEMU's -dump-vmstate wrote, and
    what is told is what each difference does to a migration between the two.

    \b
    Examples:
      tagged-vmstate compat release-1.2.json board:MACHINE
      tagged-vmstate compat release-1.2.json release-1.3.json --direction downgrade --format junit > compat.xml
      tagged-vmstate compat qemu7.2.json qemu10.0.json --alias hpet.num_timers=num_timers_save

    Exit status: 0 compatible, 1 not, 2 unreadable.
    """
    renamed = dict(_alias(each) for each in (*_alias_lines(alias_file), *aliases))
    before, after = any_tables(old, renamed), any_tables(new, {})
    if isinstance(before, dumpstate.Dump) != isinstance(after, dumpstate.Dump):
        raise Trouble("one of the two is a dump of QEMU's, the other is not: compare two of one kind")
    changes = {name: _changes(before, after, name) for name in DIRECTIONS if direction in {"both", name}}
    if form == "json":
        print_json({"report": "compat", **{name: _compat_json(found) for name, found in changes.items()}})
    elif form == "junit":
        print(_junit(changes))
    elif form == "github":
        for name, found in changes.items():
            for change in found:
                _print_github(name, change)
    else:
        show_lines(line for name, found in changes.items() for line in _compat_lines(name, found))
    bad = {REFUSED} if not strict else {REFUSED, "while"}
    return INCOMPATIBLE if any(change.effect in bad for found in changes.values() for change in found) else 0


def _changes(old: Any, new: Any, direction: str) -> list[Change]:
    writer, reader = (old, new) if direction == "upgrade" else (new, old)
    if isinstance(old, dumpstate.Dump):
        return dumpstate.compare(writer, reader)
    return compat.compare(writer, reader, is_downgrade=direction == "downgrade")


def _alias_lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{path}: {error.strerror if isinstance(error, OSError) else 'no text'}") from None
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def _alias(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise click.UsageError(f"an alias is OLD=NEW, not `{text}`.")
    return old.strip(), new.strip()


def _compat_json(changes: Sequence[Change]) -> dict[str, Any]:
    counts = {effect: sum(change.effect == effect for change in changes) for effect in (REFUSED, "while", FINE)}
    rows = [
        {
            "rule": change.rule.id,
            "device": change.device,
            "path": list(change.path),
            "effect": change.effect,
            "condition": change.condition or None,
            "written": change.writer,
            "read": change.reader,
            "purpose": change.rule.purpose,
            "remedy": change.rule.remedy,
        }
        for change in changes
    ]
    return {**counts, "changes": rows}


def _compat_lines(direction: str, changes: Sequence[Change]) -> Iterator[Line]:
    yield [(f"{direction}: {DIRECTIONS[direction]}", PLAIN)]
    for change in sorted(changes, key=lambda each: (REFUSED, "while", FINE).index(each.effect)):
        style = BAD if change.effect == REFUSED else DIM if change.effect == FINE else VALUE
        yield [("  ", PLAIN), (clean(change.place), NAME), (f"  {change.rule.id}", DIM)]
        yield [
            ("    ", PLAIN),
            (clean(change.outcome), style),
            (clean(f": written {change.writer}, read {change.reader}"), PLAIN),
        ]
        if change.effect != FINE:
            yield [(f"    to mend it: {change.rule.remedy}", DIM)]
    counts = [sum(change.effect == effect for change in changes) for effect in (REFUSED, "while", FINE)]
    yield [(f"  {counts[0]} refused, {counts[1]} on a condition, {counts[2]} fine", DIM)]


def _junit(changes: dict[str, list[Change]]) -> str:
    """A suite a direction, a case a change: one that is refused failed, one on a condition was skipped."""
    suites = ET.Element("testsuites", name="tagged-vmstate compat")
    for direction, found in changes.items():
        counts = {effect: str(sum(change.effect == effect for change in found)) for effect in (REFUSED, "while")}
        suite = ET.SubElement(
            suites, "testsuite", name=direction, tests=str(len(found)), failures=counts[REFUSED], skipped=counts["while"]
        )
        for change in found:
            case = ET.SubElement(suite, "testcase", classname=change.rule.id, name=clean(change.place))
            if change.effect != FINE:
                tag = "failure" if change.effect == REFUSED else "skipped"
                ET.SubElement(case, tag, message=clean(str(change))).text = change.rule.remedy
    ET.indent(suites)
    return ET.tostring(suites).decode()  # ASCII, which is the same in whatever encoding it is printed


def _print_github(direction: str, change: Change) -> None:
    kind = {REFUSED: "error", FINE: "notice"}.get(change.effect, "warning")
    remedy = "" if change.effect == FINE else f"; to mend it: {change.rule.remedy}"
    text = clean(f"{change}{remedy}").replace("%", "%25")
    print(f"::{kind} title={direction} {change.rule.id}::{text}")
