"""Tables, states and the ways in which tables grow, as Hypothesis strategies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from hypothesis import strategies as st

import tagged_vmstate as tv
from tagged_vmstate import Field, Length, MaxLength, Table

INTEGERS: Final = {
    "int8": tv.int8, "int16": tv.int16, "int32": tv.int32, "int64": tv.int64,
    "uint8": tv.uint8, "uint16": tv.uint16, "uint32": tv.uint32, "uint64": tv.uint64,
}  # fmt: skip
NARROWER: Final = {"uint8": "uint16", "uint16": "int32", "int8": "int16", "int16": "int64", "uint32": "uint64", "int32": "int64"}
"""An integer type -> one that holds all its values."""


@dataclass(frozen=True)
class Plan:
    """A field to be declared: what it is called, holds, and is in two states."""

    name: str
    annotation: Any
    default: Any
    value: Any
    wire: str = ""
    aliases: tuple[str, ...] = ()
    widens_from: tuple[Any, ...] = ()
    inner: tuple[Plan, ...] = field(default=())
    previous: tuple[Any, ...] = ()

    def declare(self) -> Field:
        return Field(
            self.name,
            self.annotation,
            default_factory=lambda: copy.deepcopy(self.default),
            previous_defaults=self.previous,
            aliases=self.aliases,
            widens_from=self.widens_from,
        )

    @property
    def is_default(self) -> bool:
        return all(self.value == each for each in (self.default, *self.previous))

    @property
    def first(self) -> Any:
        """The default that it began with."""
        return (*self.previous, self.default)[0]

    def moved(self) -> Plan:
        """The same with another default, if its value is one."""
        return replace(self, default=self.value, previous=(*self.previous, self.default))


NAMES: Final = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: len(name.encode()) <= 255)


def numbers(name: str) -> st.SearchStrategy[int]:
    low, high = (0, 1 << int(name[4:])) if name.startswith("u") else (-(1 << int(name[3:]) - 1), 1 << int(name[3:]) - 1)
    return st.integers(low, high - 1)


@st.composite
def plans(draw: st.DrawFn, name: str, depth: int = 2) -> Plan:
    """A field of any kind."""
    kind = draw(
        st.sampled_from(
            ["integer", "bool", "float", "string", "buffer", "packet", "array", "few", "sparse", "memory", "bits", "struct"]
        )
    )
    wire = ""
    annotation: Any
    values: st.SearchStrategy[Any]
    if kind == "struct" and depth:
        inner = draw(field_plans(depth=depth - 1))
        table = Table("struct", [each.declare() for each in inner])
        states = [{each.name: getattr(each, side) for each in inner} for side in ("default", "value")]
        return Plan(name, Annotated[dict, table], states[0], draw(st.sampled_from(states)), inner=inner)
    if kind == "bool":
        annotation, values = bool, st.booleans()
    elif kind == "float":
        annotation, values = tv.float64, st.floats(allow_nan=False).map(lambda value: value + 0.0)
    elif kind == "string":
        annotation, values = str, st.text(st.characters(codec="utf-8"), max_size=9)
    elif kind == "buffer":
        annotation, values = Annotated[bytes, Length(5)], st.binary(min_size=5, max_size=5)
    elif kind == "packet":
        annotation, values = Annotated[bytes, MaxLength(5)], st.binary(max_size=5)
    elif kind == "sparse":
        places = st.dictionaries(st.integers(0, 9999), st.integers(0, 255), max_size=3)
        annotation, values = Annotated[tv.sparse, Length(10_000)], places.map(_memory)
    elif kind == "memory":
        annotation, values = Annotated[tv.sparse, MaxLength(10_000)], st.binary(max_size=9).map(bytearray)
    elif kind == "bits":
        annotation = Annotated[tv.bitmap, MaxLength(20)]
        values = st.integers(0, (1 << 20) - 1).map(lambda bits: bits.to_bytes(-(-bits.bit_length() // 8), "little"))
    else:
        wire = draw(st.sampled_from(sorted(INTEGERS)))
        annotation, values = INTEGERS[wire], numbers(wire)
        if kind in {"array", "few"}:
            lists = st.lists(values, min_size=3 * (kind == "array"), max_size=3)
            annotation, values = Annotated[list[annotation], Length(3) if kind == "array" else MaxLength(3)], lists
            wire = ""
    default = draw(values)
    return Plan(name, annotation, default, draw(st.one_of(st.just(default), values)), wire)


def _memory(places: dict[int, int]) -> bytearray:
    found = bytearray(10_000)
    for place, value in places.items():
        found[place] = value
    return found


@st.composite
def field_plans(draw: st.DrawFn, depth: int = 2) -> tuple[Plan, ...]:
    """The fields of a table."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    return tuple(draw(plans(name, depth)) for name in names)


@dataclass(frozen=True)
class Growth:
    """How a table grew, by the names of the fields.

    Attributes:
        old: The fields of the older table, with the values of its state.
        new: Those of the newer.
        renamed: New name -> old name.
    """

    old: tuple[Plan, ...]
    new: tuple[Plan, ...]
    added: frozenset[str]
    dropped: frozenset[str]
    widened: frozenset[str]
    renamed: dict[str, str]


@st.composite
def growths(draw: st.DrawFn) -> Growth:
    """A table, and one that it has grown into: fields added, dropped, renamed and widened, and defaults changed."""
    old = draw(field_plans())
    new: list[Plan] = []
    dropped, widened, renamed = set(), set(), {}
    taken = {plan.name for plan in old}
    for plan in old:
        change = draw(st.sampled_from(["same", "same", "drop", "rename", "widen", "move"]))
        if change == "drop":
            dropped.add(plan.name)
        elif change == "rename":
            name = draw(NAMES.filter(lambda name: name not in taken))
            taken.add(name)
            renamed[name] = plan.name
            new.append(replace(plan, name=name, aliases=(plan.name,)))
        elif change == "widen" and plan.wire in NARROWER:
            widened.add(plan.name)
            wide = NARROWER[plan.wire]
            new.append(replace(plan, annotation=INTEGERS[wide], wire=wide, widens_from=(INTEGERS[plan.wire],)))
        else:
            new.append(plan.moved() if change == "move" else plan)
    added = draw(st.lists(NAMES.filter(lambda name: name not in taken), unique=True, max_size=3))
    new += [draw(plans(name)) for name in added]
    new = [plan.moved() if plan.name in added and draw(st.booleans()) else plan for plan in new]
    order = draw(st.permutations(new))
    return Growth(old, tuple(order), frozenset(added), frozenset(dropped), frozenset(widened), renamed)
