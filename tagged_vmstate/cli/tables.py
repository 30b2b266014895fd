"""`check`, `compat` and `tables`: told before anyone loads."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tagged_vmstate import compat
from tagged_vmstate.changes import FINE, REFUSED, WHILE, Change
from tagged_vmstate.cli import ci, complete
from tagged_vmstate.cli.files import STANDARD, Trouble, lines, opened, print_json, trouble
from tagged_vmstate.cli.main import TROUBLE
from tagged_vmstate.cli.messages import clean
from tagged_vmstate.cli.modules import any_tables, tables
from tagged_vmstate.cli.paths import alias, not_found
from tagged_vmstate.cli.render import BAD, DIM, NAME, PLAIN, VALUE, Line, show_lines
from tagged_vmstate.codec import Unknown
from tagged_vmstate.errors import Finding, LimitError, StateError
from tagged_vmstate.machine import Report, check_by_loading
from tagged_vmstate.paths import Aliases, format_name, format_path
from tagged_vmstate.qemu import against, dumpstate
from tagged_vmstate.qemu.differences import FIELD_MISSING
from tagged_vmstate.rules import RULES
from tagged_vmstate.sections import Sections
from tagged_vmstate.table import Table
from tagged_vmstate.tablejson import NotCarried, not_carried, tables_to_json
from tagged_vmstate.text import counted

INCOMPATIBLE = 1
DIRECTIONS = {"upgrade": "NEW loads what OLD saved", "downgrade": "OLD loads what NEW saves"}
FORMAT_OPTION = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", *ci.FORMATS]),
    default="text",
    show_default=True,
    help="For a person, a program, or continuous integration.",
)


@click.command(short_help="Can these tables load this snapshot?")
@click.argument("file")
@click.option(
    "--against",
    "spec",
    required=True,
    metavar="TABLES",
    shell_complete=complete.tables,
    help="module:MACHINE, tables exported as JSON, or what -dump-vmstate of another QEMU wrote.",
)
@click.option(
    "--unknown",
    type=click.Choice(["error", "ignore", "keep"]),
    help="What the load does with what no table knows; error unless given. QEMU refuses it.",
)
@FORMAT_OPTION
def check_command(file: str, spec: str, unknown: Unknown | None, form: str) -> int:
    """Can these tables load this snapshot? Everything that a load would meet, at once.

    Against module:MACHINE, all hooks are run, on a machine of this process: what they reach outside is the module's. Exported
    tables have no hooks and predicates; where there were any, the last line names how many.

    Against what another QEMU wrote with -M MACHINE -dump-vmstate FILE, the question is whether that QEMU loads this stream:
    the devices in it are compared, as the stream describes them. Sections that no dump has are listed.

    \b
    Examples:
      tagged-vmstate check vm.tvm --against board:MACHINE
      tagged-vmstate check vm.mig --against release-1.2.json --unknown ignore
      tagged-vmstate check vm.mig --against qemu7.2.json
      tagged-vmstate check vm.tvm --against board:MACHINE --format json | jq '.findings[] | select(.refuses)'

    Exit status: 0 it can, 1 it cannot, 2 unreadable, or a stream that does not describe its devices.
    """
    entries = any_tables(spec)
    if isinstance(entries, dumpstate.Dump):
        if unknown is not None:
            raise click.UsageError("--unknown is for tables: QEMU refuses what it does not know.")
        return _check_stream(file, entries, form)
    with opened(file) as sections:
        report = check_by_loading(entries, sections, unknown or "error")
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
    elif form in ci.FORMATS:
        tests = [format_path(entry.label, ()) for entry in entries]
        ci.show(form, "check", [ci.Suite(Path(file).name, tests, list(_check_notes(report, lacking)))])
    else:
        show_lines(_check_lines(report, lacking))
    return INCOMPATIBLE if report.problems else 0


def _check_stream(file: str, reader: dumpstate.Dump, form: str) -> int:
    """Report whether another QEMU loads a stream."""
    with _from_qemu(file) as sections:
        verdict = against.judge(sections, reader)
    if form == "json":
        left = [{"section": each.section, "reason": each.reason} for each in verdict.unjudged]
        judged = [{"section": section, "device": device} for section, device in verdict.sections.items()]
        found = {"report": "check-stream", "loads": verdict.loads, **_compat_json(verdict.changes)}
        print_json({**found, "sections": judged, "not_compared": left})
    elif form in ci.FORMATS:
        tests = {section: format_path(section, ()) for section in verdict.sections}
        tests |= {change.section: format_path(change.section, ()) for change in verdict.changes}
        notes = [_note(change, tests[change.section], {REFUSED}) for change in verdict.changes]
        notes += (ci.Note("not compared", "warning", "not-compared", line) for line in _left(verdict))
        ci.show(form, "check", [ci.Suite(Path(file).name, tests.values(), notes)])
    else:
        show_lines(_verdict_lines(verdict))
    return {True: 0, False: INCOMPATIBLE, None: TROUBLE}[verdict.loads]


@contextlib.contextmanager
def _from_qemu(file: str) -> Iterator[Sections]:
    """The sections of a stream; what did not come from one ends the command."""
    with opened(file) as sections:
        try:
            yield sections
        except StateError as error:
            raise trouble(file, error) from None


def _verdict_lines(verdict: against.Verdict) -> Iterator[Line]:
    """What differs; of what only the reader has, on a condition, a line for all of it."""
    absent: dict[str, dict[str, None]] = {}
    others = []
    for change in verdict.changes:
        if change.rule.id == FIELD_MISSING.id and change.effect == WHILE:
            absent.setdefault(change.outcome, {})[change.place] = None
        else:
            others.append(change)
    yield from _change_lines(others, "")
    for outcome, places in absent.items():
        yield [(clean(f"not in the stream, {outcome}: {', '.join(places)}"), DIM)]
    for line in _left(verdict):
        yield [(clean(line), DIM)]
    if verdict.is_described:
        words = "can be loaded as far as the dump says" if verdict.loads else "cannot be loaded"
    else:
        words = "cannot be loaded" if verdict.loads is False else "cannot be judged: the stream does not describe its devices"
    compared = f"{counted(len(verdict.sections), 'section')} compared, {_counts(verdict.changes)}"
    yield [(words, VALUE if verdict.loads else BAD), (f": {compared}", PLAIN)]


def _left(verdict: against.Verdict) -> Iterator[str]:
    """What was not compared, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for each in verdict.unjudged:
        reasons.setdefault(each.reason, []).append(format_path(each.section, ()))
    yield from (f"{reason}: {', '.join(sections)}" for reason, sections in reasons.items())


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


def _check_notes(report: Report, lacking: Sequence[NotCarried]) -> Iterator[ci.Note]:
    for finding in report.findings:
        rule = RULES[finding.rule]
        test = format_path(finding.section, ())
        text = f"{format_path(finding.section, finding.path)}: {finding.sentence}"
        if rule.refuses:
            yield ci.Note(test, "error", rule.id, f"{text}; fix: {rule.remedy}")
        else:
            yield ci.Note(test, "notice", rule.id, text)
    more = report.more_problems + report.more
    if more:
        yield ci.Note("the rest", "error" if report.more_problems else "notice", "more", f"{more} more findings")
    if lacking:
        yield ci.Note("what is not in the tables", "warning", "not-in-tables", _lacking(lacking))


def _check_lines(report: Report, lacking: Sequence[NotCarried]) -> Iterator[Line]:
    findings = report.findings
    for finding in sorted(findings, key=lambda each: not RULES[each.rule].refuses):
        rule = RULES[finding.rule]
        mark, style = ("refused", BAD) if rule.refuses else ("fine   ", DIM)
        yield [(mark, style), ("  ", PLAIN), (format_path(finding.section, finding.path), NAME), (f"  {rule.id}", DIM)]
        yield [("         ", PLAIN), (clean(finding.sentence), VALUE)]
        if rule.refuses:
            yield [("         ", PLAIN), (f"fix: {rule.remedy}", DIM)]
    more = report.more_problems + report.more
    if more:
        yield [(f"and {more} more", DIM)]
    refusing = len(report.problems) + report.more_problems
    others = len(findings) + more - refusing
    told = f", {others} {'note' if others == 1 else 'notes'}" if others else ""
    verdict = "cannot be loaded" if refusing else "can be loaded as far as these tables say" if lacking else "can be loaded"
    found = counted(refusing, "problem") if refusing or not lacking else _lacking(lacking)
    yield [(verdict, BAD if refusing else VALUE), (f": {found}{told}", PLAIN)]


def _lacking(functions: Sequence[NotCarried]) -> str:
    """What exported tables lack, counted."""
    counts = Counter(each.kind for each in functions)
    if counts.pop("unknown", 0):
        return "an earlier release exported them, without its checks and predicates"
    said = [f"{counts[kind]} {word if counts[kind] == 1 else words}" for kind, word, words in _LACKING if kind in counts]
    return f"{', '.join(said)} {'is' if sum(counts.values()) == 1 else 'are'} not in them"


_LACKING = (("check", "check", "checks"), ("predicate", "predicate", "predicates"), ("post_load", "post_load", "post_loads"))


@click.command(short_help="Export tables as JSON.")
@click.argument("spec", metavar="MODULE:MACHINE", shell_complete=complete.tables)
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
@click.argument("old", shell_complete=complete.tables)
@click.argument("new", shell_complete=complete.tables)
@click.option(
    "--direction", type=click.Choice(["both", *DIRECTIONS]), default="both", show_default=True, help="Which to look at."
)
@click.option("--strict", is_flag=True, help="Exit with 1 for what loads only on a condition, too.")
@click.option("--alias", "aliases", multiple=True, metavar="PATH=NAME", help="A name of OLD that changed, in dumps of QEMU's.")
@click.option("--aliases", "alias_file", metavar="FILE", help="The same, one in a line.")
@click.option("--machine", metavar="STREAM", help="Compare dumps of QEMU's only for the devices that this stream describes.")
@FORMAT_OPTION
def compat_command(
    old: str,
    new: str,
    *,
    direction: str,
    aliases: tuple[str, ...],
    alias_file: str | None,
    machine: str | None,
    form: str,
    strict: bool,
) -> int:
    """Compare tables with tables: can NEW load what OLD saved, can OLD load what NEW saves, and on which condition.

    OLD and NEW are module:MACHINE or tables exported as JSON; or both are what QEMU's -dump-vmstate wrote, and
    the question is what each difference does to a migration between the two.

    \b
    Examples:
      tagged-vmstate compat release-1.2.json board:MACHINE
      tagged-vmstate compat release-1.2.json release-1.3.json --direction downgrade --format junit > compat.xml
      tagged-vmstate compat qemu7.2.json qemu10.0.json --alias hpet/num_timers=num_timers_save
      tagged-vmstate compat qemu7.2.json qemu10.0.json --machine vm.mig

    Exit status: 0 compatible, 1 not, 2 unreadable.
    """
    renamed = Aliases(map(alias, (*(lines(alias_file) if alias_file else ()), *aliases)))
    before, after = any_tables(old, renamed), any_tables(new)
    if isinstance(before, dumpstate.Dump) != isinstance(after, dumpstate.Dump):
        raise Trouble("one of the two is a dump of QEMU's, the other is not: compare two of one kind")
    if renamed.unused:
        raise not_found(renamed.unused[0], dumpstate.places(before) if isinstance(before, dumpstate.Dump) else ())
    if machine is not None:
        before, after = _of_machine(machine, before, after)
    bad = {REFUSED, WHILE} if strict else {REFUSED}
    try:
        changes = {name: _changes(before, after, name) for name in DIRECTIONS if direction in {"both", name}}
    except LimitError as error:
        raise Trouble(f"{old}, {new}: {error}") from None
    if form == "json":
        print_json({"report": "compat", **{name: _compat_json(found) for name, found in changes.items()}})
    elif form in ci.FORMATS:
        tests = _tests(before, after)
        suites = [
            ci.Suite(name, tests.values(), [_note(change, tests[change.device], bad) for change in found])
            for name, found in changes.items()
        ]
        ci.show(form, "compat", suites)
    else:
        show_lines(line for name, found in changes.items() for line in _compat_lines(name, found))
    return INCOMPATIBLE if any(change.effect in bad for found in changes.values() for change in found) else 0


def _of_machine(stream: str, old: Any, new: Any) -> tuple[dumpstate.Dump, dumpstate.Dump]:
    """Of two dumps, the devices of one machine: those that either dump calls as the stream does."""
    if not isinstance(old, dumpstate.Dump):
        raise click.UsageError("--machine is for dumps of QEMU's: compare two of them.")
    with _from_qemu(stream) as sections:
        names = against.names(sections)
        machine = sections.raw_attributes.to_json().get("machine")
    if machine is not None and machine not in (old.machine, new.machine):
        of = " and ".join(dict.fromkeys((old.machine, new.machine)))
        raise Trouble(f"{stream}: expected a stream of the machine type of the dumps ({of}), got one of {machine}")
    types = {device for dump in (old, new) for device, each in dump.devices.items() if each.name in names}
    if not types:
        raise Trouble(f"{stream}: neither dump has a device that the stream describes")
    return old.only(types), new.only(types)


def _changes(old: Any, new: Any, direction: str) -> list[Change]:
    writer, reader = (old, new) if direction == "upgrade" else (new, old)
    if isinstance(old, dumpstate.Dump):
        return dumpstate.compare(writer, reader)
    return compat.compare(writer, reader, is_downgrade=direction == "downgrade")


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
            "section": change.section or None,
            "qemu_messages": list(change.phrases),
            "purpose": change.rule.purpose,
            "remedy": change.rule.remedy,
        }
        for change in changes
    ]
    return {**counts, "changes": rows}


def _compat_lines(direction: str, changes: Sequence[Change]) -> Iterator[Line]:
    yield [(f"{direction}: {DIRECTIONS[direction]}", PLAIN)]
    yield from _change_lines(changes, "  ")
    yield [(f"  {_counts(changes)}", DIM)]


def _change_lines(changes: Sequence[Change], indent: str) -> Iterator[Line]:
    """What differs, the worst first."""
    for change in sorted(changes, key=lambda each: (REFUSED, "while", FINE).index(each.effect)):
        style = BAD if change.effect == REFUSED else DIM if change.effect == FINE else VALUE
        section = f"  section {format_path(change.section, ())}" if change.section not in {"", change.device} else ""
        yield [(indent, PLAIN), (change.place, NAME), (f"  {change.rule.id}", DIM), (section, PLAIN)]
        yield [
            (f"{indent}  ", PLAIN),
            (clean(change.outcome), style),
            (clean(f": written {change.writer}, read {change.reader}"), PLAIN),
        ]
        if change.phrases:
            yield [(clean(f"{indent}  {_messages(change)}"), PLAIN)]
        if change.effect != FINE:
            yield [(f"{indent}  fix: {change.rule.remedy}", DIM)]


def _counts(changes: Sequence[Change]) -> str:
    """How many have which effect."""
    counts = [sum(change.effect == effect for change in changes) for effect in (REFUSED, "while", FINE)]
    return f"{counts[0]} refused, {counts[1]} on a condition, {counts[2]} fine"


def _messages(change: Change) -> str:
    """What QEMU prints where a load ends."""
    return f"QEMU's message: {' | '.join(change.phrases)}"


def _tests(old: Any, new: Any) -> dict[str, str]:
    """A device as changes name it -> its test: one for all instances, of which those with one table are compared once."""
    if isinstance(old, dumpstate.Dump):
        return {name: format_name(name) for name in (dumpstate.MACHINE, *old.devices, *new.devices)}
    names = {entry.table.name for entry in old}
    return {entry.label: format_name(_old_name(entry.table, names)) for entry in (*old, *new)}


def _old_name(table: Table, old: Container[str]) -> str:
    """The name of a device in the older tables, if it is there."""
    return next((name for name in (table.name, *table.aliases) if name in old), table.name)


def _note(change: Change, test: str, bad: Container[str]) -> ci.Note:
    level: ci.Level = "error" if change.effect in bad else "notice" if change.effect == FINE else "warning"
    remedy = "" if change.effect == FINE else f"; fix: {change.rule.remedy}"
    section = f"; section {format_path(change.section, ())}" if change.section else ""
    messages = f"; {_messages(change)}" if change.phrases else ""
    return ci.Note(test, level, change.rule.id, f"{change}{section}{messages}{remedy}")
