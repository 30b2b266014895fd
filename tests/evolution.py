"""The table of docs/evolution.md: every change is made, and both builds load what the other saves.

`python tests/evolution.py --write` writes the table into the page.
"""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from annotated_types import Le
from arguments import Arguments

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table

PAGE: Final = Path(__file__).parent.parent / "docs" / "evolution.md"
_TABLE: Final = re.compile(r"^\| change \| upgrade \| downgrade \|\n(?:\|.*\n)+", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """What one build has.

    Attributes:
        tables: Its devices.
        idle: Their states where what changed is not in use.
        used: Their states where it is.
        means: What the state of the machine says of what changed; for a build that lacks it, what that build does.
    """

    tables: Sequence[Table]
    idle: Sequence[dict[str, Any]]
    used: Sequence[dict[str, Any]]
    means: Callable[[Sequence[dict[str, Any]]], Any]

    def machine(self, states: Sequence[dict[str, Any]]) -> tuple[tv.Machine, Sequence[dict[str, Any]]]:
        """A machine in some states, and the states that it holds."""
        held = copy.deepcopy(states)
        return tv.Machine([tv.Device(state, table=table) for state, table in zip(held, self.tables, strict=True)]), held


@dataclass(frozen=True)
class Change:
    """A change between two releases.

    Attributes:
        words: What is changed.
        old: The release before it.
        new: The release after it.
        idle: What holds while it is not in use.
    """

    words: str
    old: Release
    new: Release
    idle: str = "it is at its default"


def outcome(writer: Release, states: Sequence[dict[str, Any]], reader: Release) -> str:
    """What a load does: it is refused, it loads, or it loads and means something else."""
    file = io.BytesIO()
    machine, held = writer.machine(states)
    machine.save(file)
    loading, found = reader.machine(reader.idle)
    try:
        loading.load(file.getvalue())
    except tv.LoadError:
        return "refused"
    return "loads" if writer.means(held) == reader.means(found) else "lost"


def cell(writer: Release, reader: Release, idle: str) -> str:
    """What loads do, with what changed at rest and in use."""
    return {
        ("loads", "loads"): "always",
        ("loads", "refused"): f"while {idle}",
        ("refused", "refused"): "never",
        ("lost", "refused"): f"**silently lost** while {idle}, else refused",
        ("lost", "lost"): "**silently another value**",
    }[outcome(writer, writer.idle, reader), outcome(writer, writer.used, reader)]


def device(*fields: Field, name: str = "dev", aliases: tuple[str, ...] = ()) -> Table:
    return Table(name, fields, aliases=aliases)


def one(table: Table, idle: Any, used: Any, attribute: str = "f") -> Release:
    """A release of one device, of which one field is looked at."""
    return Release([table], [{attribute: idle}], [{attribute: used}], lambda states: states[0][attribute])


def without(*tables: Table, means: Any) -> Release:
    """A release that lacks what is looked at, and does something all the same."""
    states: list[dict[str, Any]] = [{} for _ in tables]
    return Release(tables, states, states, lambda _: means)


def field(annotation: Any = tv.uint8, default: Any = 1, name: str = "f", **more: Any) -> Field:
    return Field(name, annotation, default_factory=lambda: copy.deepcopy(default), attribute="f", **more)


def required(name: str = "f") -> Field:
    return Field(name, tv.uint8, attribute="f")


def array(length: Length | MaxLength, default: list[int]) -> Field:
    return field(Annotated[list[tv.uint8], length], default)


def memory(length: Length | MaxLength, size: int) -> Field:
    return field(Annotated[tv.sparse, length], bytearray(size))


STRUCT: Final = Table("struct", [field()])
MOVED: Final = Release(
    [device(Field("s", Annotated[dict, STRUCT], default_factory=lambda: {"f": 1}))],
    [{"s": {"f": 1}}],
    [{"s": {"f": 7}}],
    lambda states: states[0]["s"]["f"],
)
PRESENT: Final = one(device(field(Annotated[dict, STRUCT], {"f": 1})), {"f": 1}, {"f": 7})
ADDED: Final = one(device(field()), 1, 7)
NEEDED: Final = one(device(required()), 1, 7)
LACKING: Final = without(device(), means=1)
CHANGED: Final = one(device(field(default=3)), 3, 7)
NAMED: Final = one(device(field(default=3, previous_defaults=(1,))), 3, 7)
OTHER: Final = device(name="other")


def beside(table: Table) -> Release:
    """A release with one more device."""
    return Release([OTHER, table], [{}, {"f": 1}], [{}, {"f": 7}], lambda states: states[1]["f"])


CHANGES: Final = (
    Change("add a field with a default", LACKING, ADDED),
    Change("add a required field", LACKING, NEEDED),
    Change("remove a field that had a default", ADDED, LACKING),
    Change("remove a required field", NEEDED, LACKING),
    Change("rename a field, with an alias", ADDED, one(device(field(name="g", aliases=("f",))), 1, 7)),
    Change("the same, and the old build requires it", NEEDED, one(device(field(name="g", aliases=("f",))), 1, 7)),
    Change("rename the attribute only", ADDED, one(device(Field("f", tv.uint8, default=1, attribute="g")), 1, 7, "g")),
    Change("change a default and name the earlier one; both builds have the field", ADDED, NAMED),
    Change("the same, and the old build lacks the field", LACKING, NAMED),
    Change("change a default without naming the earlier one; both builds have the field", ADDED, CHANGED),
    Change("the same, and the old build lacks the field", LACKING, CHANGED),
    Change("widen a number, declared", ADDED, one(device(field(tv.uint16, widens_from=(tv.uint8,))), 1, 7)),
    Change("widen a number, not declared", ADDED, one(device(field(tv.uint16)), 1, 7)),
    Change(
        "make a `Length` longer",
        one(device(array(Length(2), [0, 0])), [0, 0], [7, 7]),
        one(device(array(Length(4), [0] * 4)), [0] * 4, [7] * 4),
    ),
    Change(
        "`Length` to `MaxLength`",
        one(device(array(Length(2), [0, 0])), [0, 0], [7, 7]),
        one(device(array(MaxLength(4), [0, 0])), [7, 7], [7, 7, 7]),
        "it has the old length",
    ),
    Change(
        "`Length` of memory to `MaxLength`",
        one(device(memory(Length(2), 2)), bytearray(2), bytearray(b"ab")),
        one(device(memory(MaxLength(4), 2)), bytearray(b"ab"), bytearray(b"abc")),
        "it has the old length",
    ),
    Change(
        "raise a `MaxLength`",
        one(device(array(MaxLength(2), [])), [], [7, 7]),
        one(device(array(MaxLength(4), [])), [7, 7], [7, 7, 7]),
        "it has no more than the old one",
    ),
    Change("tighten a bound", ADDED, one(device(field(Annotated[tv.uint8, Le(5)])), 1, 5), "it is within the new one"),
    Change("loosen a bound", one(device(field(Annotated[tv.uint8, Le(5)])), 1, 5), ADDED, "it is within the old one"),
    Change("let a struct be absent", PRESENT, one(device(field(Annotated[dict | None, STRUCT], {"f": 1})), {"f": 7}, None),
           "it is there"),
    Change("move a field into a struct", ADDED, MOVED),
    Change("add a device", without(OTHER, means=1), beside(device(field())), "all of it is at its default"),
    Change("add a device with a required field", without(OTHER, means=1), beside(device(required()))),
    Change("remove a device", beside(device(field())), without(OTHER, means=1), "all of it is at its default"),
    Change("rename a device, with an alias", ADDED, one(device(field(), name="new", aliases=("dev",)), 1, 7),
           "all of it is at its default"),
    Change("the same, and the old build requires a field", NEEDED, one(device(field(), name="new", aliases=("dev",)), 1, 7)),
)  # fmt: skip


def renewed(page: str) -> str:
    """The page with its table as the runs are now."""
    rows = ["| change | upgrade | downgrade |", "| --- | --- | --- |"]
    for change in CHANGES:
        upgrade, downgrade = cell(change.old, change.new, change.idle), cell(change.new, change.old, change.idle)
        rows.append(f"| {change.words} | {upgrade} | {downgrade} |")
    table = "".join(f"{row}\n" for row in rows)
    return _TABLE.sub(lambda _: table, page)


if __name__ == "__main__":
    arguments = Arguments(__doc__)
    arguments.add_argument("--write", action="store_true", help="into the page, instead of printing it")
    given = arguments.parse_args()
    new = renewed(PAGE.read_text())
    if given.write:
        PAGE.write_text(new)
    else:
        print(next(_TABLE.finditer(new))[0], end="")
