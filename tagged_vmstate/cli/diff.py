"""`diff`: what differs between two snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import STANDARD, opened_snapshot, print_json
from tagged_vmstate.cli.looks import TABLES_OPTION, looks
from tagged_vmstate.cli.messages import clean
from tagged_vmstate.cli.numbers import Integer
from tagged_vmstate.cli.paths import check_names, usage
from tagged_vmstate.cli.render import (
    BAD,
    DEVICE,
    DIM,
    GUIDE,
    NAME,
    PLAIN,
    PLAINLY,
    TYPE,
    VALUE,
    Line,
    Look,
    displayed_text,
    hex_preview,
    show_lines,
)
from tagged_vmstate.diff import Difference, Range, diff
from tagged_vmstate.paths import Path, Pattern, format_path
from tagged_vmstate.snapshot import Snapshot

DIFFERENT = 1


@click.command(short_help="What differs between two snapshots.")
@click.argument("old")
@click.argument("new")
@click.option(
    "--ignore",
    "paths",
    multiple=True,
    metavar="PATH",
    shell_complete=complete.path,
    help="Leave out a device, or DEVICE/FIELD; several.",
)
@click.option("--max", "most", type=Integer(min=0), metavar="N", help="Tell at most N differences, and how many more there are.")
@TABLES_OPTION
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to tell it.")
def diff_command(old: str, new: str, *, paths: tuple[str, ...], most: int | None, spec: str | None, form: str) -> int:
    """What differs between the state of OLD and NEW, by device, instance and field; of buffers and memory the ranges.

    PATH is DEVICE or DEVICE/FIELD, with globs: 'timer*', ram/pc.ram, '*/last_update'. What lies in a field that is left
    out is left out too. See docs/paths.md.

    \b
    Examples:
      tagged-vmstate diff before.tvm after.tvm
      tagged-vmstate diff vm.mig vm.json --ignore 'timer*' --ignore ram
      tagged-vmstate diff a.tvm b.tvm --max 20 --format json | jq '.differences[].path'

    Exit status: 0 the same, 1 different, 2 unreadable.
    """
    if old == new == STANDARD:
        raise click.UsageError("only one of the two can be standard input.")
    known = looks(spec)
    shown: list[Difference] = []
    count = 0
    with opened_snapshot(old, is_one_of=True) as left, opened_snapshot(new, is_one_of=True) as right:
        ignored = _Ignored([usage(Pattern, path) for path in paths])
        for difference in diff(left, right, ignored):
            count += 1
            if most is None or count <= most:
                shown.append(difference)
        ignored.check(left, right)
    cut = count - len(shown)
    if form == "json":
        rows = [_as_json(difference) for difference in shown]
        print_json({"report": "diff", "same": not count, "differences": rows, "cut": cut})
    else:
        show_lines(_lines(shown, cut, known))
    return DIFFERENT if count else 0


class _Ignored:
    """What is left out of a comparison."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self._used: set[Pattern] = set()

    def __call__(self, section: str, path: Path) -> bool:
        found = [pattern for pattern in self._patterns if pattern.covers(section, path)]
        self._used.update(found)
        return bool(found)

    def check(self, *snapshots: Snapshot) -> None:
        """Raise Trouble where a pattern has left out nothing, and names nothing that lies in what was left out."""
        for pattern in self._patterns:
            if pattern not in self._used:
                check_names(pattern, *snapshots)


def _as_json(difference: Difference) -> dict[str, Any]:
    device, _, instance = difference.section.rpartition("#")
    found: dict[str, Any] = {"kind": difference.kind, "device": device, "instance": int(instance), "path": list(difference.path)}
    found |= {"old_type": difference.old_type or None, "new_type": difference.new_type or None}
    if difference.ranges:
        ranges = [{"start": each.start, "count": each.count, "old": each.old, "new": each.new} for each in difference.ranges]
        return {**found, "ranges": ranges, "more": difference.more, "count": difference.count}
    return {**found, "old": difference.old, "new": difference.new}


def _lines(differences: Sequence[Difference], cut: int, known: Mapping[str, Look]) -> Iterator[Line]:
    """A tree: each device with its differences."""
    for number, difference in enumerate(differences):
        before = differences[number - 1].section if number else None
        after = differences[number + 1].section if number + 1 < len(differences) else None
        if not difference.path:
            sign, words = ("- ", "only in the first") if difference.kind == "removed" else ("+ ", "only in the second")
            yield [(sign, _style(difference)), (format_path(difference.section, ()), DEVICE), (f"  {words}", PLAIN)]
            continue
        if difference.section != before:
            yield [("  ", PLAIN), (format_path(difference.section, ()), DEVICE)]
        is_last = difference.section != after
        sign = {"changed": "  ", "removed": "- ", "added": "+ "}[difference.kind]
        guide = "└─ " if is_last else "├─ "
        line: Line = [
            (sign, _style(difference)),
            (guide, GUIDE),
            (format_path(None, difference.path), NAME),
            ("  ", PLAIN),
        ]
        look = known.get(difference.section.rpartition("#")[0], PLAINLY)
        for part in difference.path:
            look = look if isinstance(part, int) else look.below.get(part, PLAINLY)
        yield [*line, *_values(difference, look)]
        for each in difference.ranges[:8]:
            yield [("  " + ("   " if is_last else "│  "), GUIDE), *_range(each, look)]
        more = max(len(difference.ranges) - 8, 0) + difference.more
        if more:
            yield [("  " + ("   " if is_last else "│  "), GUIDE), (f"… {more} more ranges", DIM)]
    if cut:
        yield [(f"… {cut} more differences", DIM)]


def _style(difference: Difference) -> str:
    return {"changed": PLAIN, "removed": BAD, "added": VALUE}[difference.kind]


def _values(difference: Difference, look: Look) -> Line:
    if difference.kind != "changed":
        kind = difference.old_type or difference.new_type
        value = difference.old if difference.kind == "removed" else difference.new
        return [(clean(kind), TYPE), ("  ", PLAIN), (_text(value, look), VALUE)]
    types = (
        difference.old_type if difference.old_type == difference.new_type else f"{difference.old_type} → {difference.new_type}"
    )
    if difference.ranges:
        unit = "byte" if isinstance(difference.ranges[0].old, str) else "element"
        told = f"{_counted(len(difference.ranges) + difference.more, 'range')}, {_counted(difference.count, unit)}"
        return [(clean(types), TYPE), ("  ", PLAIN), (told, PLAIN)]
    if difference.old is None and difference.new is None:
        return [(clean(types), TYPE)]
    old, new = _text(difference.old, look), _text(difference.new, look)
    return [(clean(types), TYPE), ("  ", PLAIN), (old, BAD), (" → ", DIM), (new, VALUE)]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _range(each: Range, look: Look) -> Line:
    last = each.start + each.count - 1
    if isinstance(each.old, str):
        place = f"0x{each.start:x}" + (f"..0x{last:x}" if each.count > 1 else "")
    else:
        place = f"[{each.start}]" + (f"..[{last}]" if each.count > 1 else "")
    old, new = (_few(values, each.count, look) for values in (each.old, each.new))
    return [(f"{place}  ", DIM), (old, BAD), (" → ", DIM), (new, VALUE)]


def _few(values: Any, count: int, look: Look) -> str:
    if isinstance(values, str):
        return hex_preview(bytes.fromhex(values), count)
    text = ", ".join(_text(each, look) for each in values)
    return text if len(values) == count else f"{text}, …"


def _text(value: Any, look: Look) -> str:
    displayed = displayed_text(value, look)
    if displayed is not None:
        return displayed
    if isinstance(value, str):
        return clean(value if len(value) <= 60 else f"{value[:57]}…")
    if value is None:
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return clean(text if len(text) <= 60 else f"{text[:57]}…")
