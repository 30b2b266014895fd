"""`diff`: what differs between two snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

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
    Node,
    Piece,
    elements_text,
    hex_preview,
    is_block,
    node,
    show_lines,
    use_text,
    value_text,
)
from tagged_vmstate.cli.textdiff import Changes, TextDiff
from tagged_vmstate.diff import Difference, Range, Side, diff
from tagged_vmstate.paths import Path, Pattern, format_path
from tagged_vmstate.records import Record
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.text import counted

SHORT: Final = 60
"""Characters of a string that stands in one line with the other one; longer ones are compared line by line."""
SHOWN_RANGES: Final = 8
_LINE_STYLES: Final = {"@": DIM, " ": PLAIN, "-": BAD, "+": VALUE}
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
@click.option("--max", "most", type=Integer(min=0), metavar="N", help="Show at most N differences, and count the rest.")
@TABLES_OPTION
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For a person or a program."
)
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
    texts = TextDiff()
    for number, difference in enumerate(differences):
        before = differences[number - 1].section if number else None
        after = differences[number + 1].section if number + 1 < len(differences) else None
        if not difference.path:
            words = "only in the first" if difference.kind == "removed" else "only in the second"
            yield [_sign(difference), (format_path(difference.section, ()), DEVICE), (f"  {words}", PLAIN)]
            continue
        if difference.section != before:
            yield [("  ", PLAIN), (format_path(difference.section, ()), DEVICE)]
        is_last = difference.section != after
        look = known.get(difference.section.rpartition("#")[0], PLAINLY)
        for part in difference.path:
            look = look if isinstance(part, int) else look.below.get(part, PLAINLY)
        head, *below = _shown(difference, look, texts, "   " if is_last else "│  ")
        guide = "└─ " if is_last else "├─ "
        yield [_sign(difference), (guide, GUIDE), (format_path(None, difference.path), NAME), ("  ", PLAIN), *head]
        yield from ([_sign(difference), *line] for line in below)
    if cut:
        yield [(f"… {cut} more differences", DIM)]


def _sign(difference: Difference) -> Piece:
    return {"changed": ("  ", PLAIN), "removed": ("- ", BAD), "added": ("+ ", VALUE)}[difference.kind]


def _shown(difference: Difference, look: Look, texts: TextDiff, indent: str) -> Iterator[Line]:
    """What differs: the rest of its line, and the lines below."""
    left, right = difference.left, difference.right
    if difference.kind != "changed":
        there = _node(left or right, look)
        yield [(there.kind, TYPE), ("  ", PLAIN), (there.value, VALUE)]
        yield from there.lines_below(indent)
        return
    types = (
        difference.old_type if difference.old_type == difference.new_type else f"{difference.old_type} → {difference.new_type}"
    )
    head: Line = [(clean(types), TYPE), ("  ", PLAIN)]
    if difference.ranges:
        yield from _ranges(difference, look, head, indent)
    elif (lines := _texts(left, right)) is not None:
        yield from _changes(texts.changes(*lines), head, indent)
    elif left and right:
        yield [*head, (_text(left, look), BAD), (" → ", DIM), (_text(right, look), VALUE)]
        if difference.old_type == difference.new_type == "struct":  # one is absent
            yield from _node(left if isinstance(left, Record) and left.value else right, look).lines_below(indent)
    else:
        yield head


def _node(side: Side, look: Look) -> Node:
    """What only one of the two has, as `show` has it."""
    if isinstance(side, Record):
        return node("", side, look, is_full=False)
    return Node("", side.describe(), use_text(side.use)) if side else Node("", "", "")


def _text(side: Side, look: Look) -> str:
    return value_text(side, look, with_hex=False) if isinstance(side, Record) else _node(side, look).value


def _texts(left: Side, right: Side) -> tuple[str, str] | None:
    """Two strings that are compared line by line; None for short ones, and for anything else."""
    if not isinstance(left, Record) or not isinstance(right, Record):
        return None
    old, new = left.value, right.value
    if not isinstance(old, str) or not isinstance(new, str):
        return None
    is_long = len(old) > SHORT or len(new) > SHORT or is_block(old) or is_block(new)
    return (old, new) if is_long else None


def _changes(changes: Changes, head: Line, indent: str) -> Iterator[Line]:
    told = f"{counted(changes.count('-'), 'line')} removed, {changes.count('+')} added"
    yield [*head, (told, PLAIN)]
    for sign, text in changes.lines:
        shown = text if sign == "@" else f"{sign}{text.expandtabs()}"
        yield [(indent, GUIDE), (shown, _LINE_STYLES[sign])]


def _ranges(difference: Difference, look: Look, head: Line, indent: str) -> Iterator[Line]:
    unit = "byte" if isinstance(difference.ranges[0].old, str) else "element"
    told = f"{counted(len(difference.ranges) + difference.more, 'range')}, {counted(difference.count, unit)}"
    yield [*head, (told, PLAIN)]
    kind = difference.old_type.partition("[")[0]
    for each in difference.ranges[:SHOWN_RANGES]:
        yield [(indent, GUIDE), *_range(each, look, kind)]
    more = max(len(difference.ranges) - SHOWN_RANGES, 0) + difference.more
    if more:
        yield [(indent, GUIDE), (f"… {more} more ranges", DIM)]


def _range(each: Range, look: Look, kind: str) -> Line:
    last = each.start + each.count - 1
    if isinstance(each.old, str):
        place = f"0x{each.start:x}" + (f"..0x{last:x}" if each.count > 1 else "")
    else:
        place = f"[{each.start}]" + (f"..[{last}]" if each.count > 1 else "")
    old, new = (_few(values, each.count, look, kind) for values in (each.old, each.new))
    return [(f"{place}  ", DIM), (old, BAD), (" → ", DIM), (new, VALUE)]


def _few(values: Any, count: int, look: Look, kind: str) -> str:
    if not values:
        return "nothing"
    if isinstance(values, str):
        return hex_preview(bytes.fromhex(values), count)
    return elements_text(values, count, look, kind, with_hex=False)
