"""A table flattened: a state of it as one row of values.

Structs that are always there are taken apart, those in them too. What is left are leaves, in the order in which they are
saved: numbers, buffers, and whatever varies (text, lists, structs that may be absent), each as one value. `layout` turns
rows into bytes and back.

What makes states of rows and rows of states is written as straight Python for each table: an attribute is then read in
10 ns, and by a loop over the table in 150 (benchmarks, case `snapshot`). What a shape cannot do, the loops of `codec` and
`assign` do; the results are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Any, Final, cast

from tagged_vmstate.assign import Undo, filled
from tagged_vmstate.blocks import BoolType, IntType
from tagged_vmstate.fieldtype import Constraint, FieldType
from tagged_vmstate.straight import compiled, tuple_of
from tagged_vmstate.table import KEPT, NO_DEFAULT, Field, Table
from tagged_vmstate.template import MisfitError, Row

MOST_LEAVES: Final = 4096
"""Straight code for a table larger than this would take longer to compile than its loops ever take."""

BUFFER: Final = 4096
"""Bytes of a buffer that is packed with other values; to copy more costs more than to cut the template."""
_COMPARED: Final = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of a row.

    Attributes:
        number: Its place in the row.
        struct: The struct that holds it.
        field: Its field.
        default: The default that it is compared with when saved; NO_DEFAULT where it has none.
    """

    number: int
    struct: Struct
    field: Field
    default: Any

    @property
    def place(self) -> str:
        """It as Python that reads or sets it."""
        return self.struct.member(self.field.attribute)


@dataclass(slots=True, eq=False)
class Struct:
    """A struct that is taken apart.

    Attributes:
        number: Which one, the outermost being 0.
        table: Its table.
        outer: The struct that holds it, and by which field.
        default: The state that it is compared with when saved; NO_DEFAULT where its table's own defaults are.
        members: Its fields in order.
    """

    number: int
    table: Table
    outer: tuple[Struct, Field] | None
    default: Any
    members: list[Leaf | Struct] = field(default_factory=list)

    @property
    def is_dict(self) -> bool:
        """Whether its states are dicts."""
        return self.table.state is dict

    def member(self, attribute: str) -> str:
        """What one of its fields holds, as Python."""
        return f"o{self.number}[{attribute!r}]" if self.is_dict else f"o{self.number}.{attribute}"

    def defaults(self) -> Iterator[tuple[Field, Any]]:
        """Each field and its default here."""
        for each in self.table.fields:
            if self.default is not NO_DEFAULT:
                yield each, self.table.get(self.default, each)
            else:
                yield each, NO_DEFAULT if each.is_required else each.make_default()


class Shape:
    """A table flattened. Raises MisfitError for one that cannot be.

    Attributes:
        table: The table.
        structs: The structs that are taken apart, the outermost first.
        leaves: What a row holds.
        make: A new state of a row; raises what a check raises.
        has_checks: Whether a table in it checks its states.
        sees_more: Whether a check looks at states that hold more than fields: it has to see the rest of the state that is there.
        is_plain: Whether no state in it is a dict.
        is_simple: Whether it is plain, unchecked, and has no structs in arrays and no attributes that are no fields.
        look: The structs and the row of a state; raises where it is no plain one.
        put: Puts a row into such structs.
    """

    def __init__(self, table: Table) -> None:
        if not _is_flat(table) or table.has_previous_defaults:
            raise MisfitError(table.owner)
        self.table = table
        self.structs: list[Struct] = []
        self.leaves: list[Leaf] = []
        self._flatten(table, None, NO_DEFAULT)
        self.has_checks = any(each.table.check for each in self.structs)
        self._others = [(each.number, name) for each in self.structs for name, _, _ in _transients(each)]
        self.sees_more = any(each.table.check and (each.is_dict or any(_transients(each))) for each in self.structs)
        self._nested = [leaf for leaf in self.leaves if leaf.field.table]
        everything = members(self.structs[0])
        behind = dropwhile(lambda each: isinstance(each, Struct) or not each.field.table, everything)
        self._is_ordered = all(isinstance(each, Leaf) for each in behind)
        self.is_plain = not any(each.is_dict for each in self.structs)
        self.is_simple = self.is_plain and not (self.has_checks or self._nested or self._others)
        self.make: Callable[[Row], Any] = self._compiled("make(row)", self._making())
        self.look: Callable[[Any], tuple[Sequence[Any], Row]] = self._compiled("look(o0)", self._looking())
        self.put: Callable[[Sequence[Any], Row], None] = self._compiled("put(structs, row)", self._putting())

    def _flatten(self, table: Table, outer: tuple[Struct, Field] | None, default: Any) -> Struct:
        struct = Struct(len(self.structs), table, outer, default)
        self.structs.append(struct)
        for each, value in struct.defaults():
            member: Leaf | Struct
            if is_inline(each):
                member = self._flatten(cast("Table", each.table), (struct, each), value)
            else:
                member = Leaf(len(self.leaves), struct, each, value)
                self.leaves.append(member)
            struct.members.append(member)
        if len(self.leaves) > MOST_LEAVES:
            raise MisfitError(table.owner)
        return struct

    def fill(self, target: Any, row: Row, undo: Undo) -> bool:
        """Put a row into a state that is there, as `assign` puts one state into another; False where only that can."""
        if not (self.is_plain and self._is_ordered):
            return False
        try:
            structs, before = self.look(target)
            others = [(structs[number], name, getattr(structs[number], name)) for number, name in self._others]
        except Exception:  # noqa: BLE001  # whatever is odd about the state
            return False
        if not undo.take(structs, lambda: self._restore(structs, before, others)):
            return False
        if self._nested:
            values = list(row)
            for leaf in self._nested:
                values[leaf.number] = filled(leaf.field.type, before[leaf.number], values[leaf.number], undo)
            row = values
        self.put(structs, row)
        return True

    def _restore(self, structs: Sequence[Any], row: Row, others: Sequence[tuple[Any, str, Any]]) -> None:
        self.put(structs, row)
        for struct, name, value in others:
            setattr(struct, name, value)

    def reading(self) -> Iterator[str]:
        """Python that names the structs of a state `o0`, and raises for one that is no plain state."""
        for struct in self.structs[1:]:
            yield f"o{struct.number} = {_link(struct)}"
        yield f"if {' or '.join(map(_is_odd, self.structs))}: raise Misfit"

    def names(self) -> dict[str, Any]:
        """What the Python of `reading` needs."""
        return {"Misfit": MisfitError, "KEPT": KEPT, **{f"C{each.number}": each.table.state for each in self.structs}}

    def _compiled(self, head: str, lines: Iterator[str]) -> Callable[..., Any]:
        checks = {f"check{each.number}": each.table.check for each in self.structs}
        made = {f"t{each.number}_{name}": value for each in self.structs for name, value, _ in _transients(each)}
        return compiled(head, lines, {**self.names(), **checks, **made, "new": object.__new__})

    def _making(self) -> Iterator[str]:
        yield from (f"o{each.number} = new(C{each.number})" for each in self.structs if not each.is_dict)
        targets = [f"v{leaf.number}" if leaf.struct.is_dict else leaf.place for leaf in self.leaves]
        if targets:
            yield f"{', '.join(targets)}, = row"
        for struct in _inside_out(self.structs[0]):
            yield from _finishing(struct)
        yield "return o0"

    def _looking(self) -> Iterator[str]:
        yield from self.reading()
        structs = ", ".join(f"o{each.number}" for each in self.structs)
        yield f"return ({structs},), {tuple_of([leaf.place for leaf in self.leaves])}"

    def _putting(self) -> Iterator[str]:
        yield f"{''.join(f'o{each.number}, ' for each in self.structs)} = structs"
        if self.leaves:
            yield f"{''.join(f'{leaf.place}, ' for leaf in self.leaves)} = row"
        yield from (f"{_link(each)} = o{each.number}" for each in self.structs[1:])
        yield from (f"o{each.number}.{KEPT} = ()" for each in self.structs if not each.is_dict)


def members(inside: Struct) -> Iterator[Leaf | Struct]:
    """Everything in a struct, in order."""
    for each in inside.members:
        yield each
        if isinstance(each, Struct):
            yield from members(each)


def _inside_out(struct: Struct) -> Iterator[Struct]:
    """A struct and all in it, in the order in which they are whole."""
    for each in struct.members:
        if isinstance(each, Struct):
            yield from _inside_out(each)
    yield struct


def is_number(kind: FieldType) -> bool:
    """Whether a field is one integer, plain or of an enumeration."""
    return isinstance(kind.wire, IntType) and not kind.is_array and bool(kind.enum or kind.holder is int)


def is_bool(kind: FieldType) -> bool:
    """Whether a field is one boolean, and either will do."""
    return isinstance(kind.wire, BoolType) and not kind.is_array and kind.holder is bool and not kind.constraints


def is_short_buffer(kind: FieldType) -> bool:
    """Whether a field is bytes, any at all, of a length that a template holds."""
    is_fixed = kind.wire.name == "buffer" and kind.holder is bytes and kind.capacity is None and not kind.constraints
    return is_fixed and (kind.length or 0) <= BUFFER


def tests(constraints: tuple[Constraint, ...], value: str, names: dict[str, Any]) -> Iterator[str]:
    """Python that is true where a number meets its constraints."""
    for each in constraints:
        if each.kind in _COMPARED and type(each.bound) is int:
            yield f"{value} {_COMPARED[each.kind]} {each.bound}"
        else:
            name = f"k{len(names)}"
            names[name] = each.is_met
            yield f"{name}({value})"


def is_inline(each: Field) -> bool:
    """Whether a field is a struct that is always there."""
    return each.table is not None and not each.type.is_array and not each.type.is_optional


def _is_flat(table: Table) -> bool:
    """Whether states of a table, and of those in it, are dicts or made by nothing but setting their attributes."""
    inner = (each.table for each in table.fields if each.table)
    return (table.state is dict or table.is_plain) and all(map(_is_flat, inner))


def _link(struct: Struct) -> str:
    outer, by = cast("tuple[Struct, Field]", struct.outer)
    return outer.member(by.attribute)


def _is_odd(struct: Struct) -> str:
    name = f"o{struct.number}"
    if struct.is_dict:
        return f"not isinstance({name}, dict) or KEPT in {name}"
    return f"{name}.__class__ is not C{struct.number} or {name}.{KEPT}"


def _finishing(struct: Struct) -> Iterator[str]:
    """What is left to do for a struct once the structs in it are whole."""
    name = f"o{struct.number}"
    if struct.is_dict:
        parts = (f"{_key(each)!r}: {'v' if isinstance(each, Leaf) else 'o'}{each.number}" for each in struct.members)
        yield f"{name} = {{{', '.join(parts)}}}"
    else:
        yield f"{name}.{KEPT} = ()"
        yield from (f"{_link(each)} = o{each.number}" for each in struct.members if isinstance(each, Struct))
        for attribute, _, is_factory in _transients(struct):
            yield f"{name}.{attribute} = t{struct.number}_{attribute}{'()' if is_factory else ''}"
    if struct.table.check:
        yield f"check{struct.number}({name})"


def _key(member: Leaf | Struct) -> str:
    by = member.field if isinstance(member, Leaf) else cast("tuple[Struct, Field]", member.outer)[1]
    return by.attribute


def _transients(struct: Struct) -> Iterator[tuple[str, Any, bool]]:
    """The attributes of a class that are no fields: name, default or what makes it, and which of the two."""
    if struct.is_dict:
        return
    fields = {each.attribute for each in struct.table.fields}
    for each in dataclasses.fields(struct.table.state):
        if each.name not in fields:
            is_factory = each.default is dataclasses.MISSING
            yield each.name, each.default_factory if is_factory else each.default, is_factory
