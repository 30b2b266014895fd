"""The bytes of a table's fields as templates: constant names and types, and places for flags and values.

A struct of fixed-size fields is loaded by one comparison of everything that is constant, under a mask, and one unpack of all
values. What varies (text, lists, structs that may be absent) cuts the template.

What a writer's bytes look like is learnt from bytes that `codec` has loaded, its own or another's: fields in another order,
absent, unknown at their default. Whatever a template does not fit, `codec` reads field by field, and tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, Protocol, cast

from tagged_vmstate.blocks import BlockType, IntType
from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.records import read_length, read_name, wire_type
from tagged_vmstate.shape import Leaf, Shape, Struct, is_bool, is_number, is_short_buffer, members, tests
from tagged_vmstate.straight import compiled
from tagged_vmstate.table import Field, Table
from tagged_vmstate.template import MisfitError, Place, Row, Unpacker
from tagged_vmstate.wire import Cursor, Piece

Reader = Callable[[Piece, int], tuple[Any, int]]
"""Reads what stands at a place: the value, and the place behind it. Raises MisfitError or an error of ours."""
ReaderOfAll = Callable[[Piece], Row]
"""Reads the row of fields after which nothing comes. Raises in the same way."""


class Elements(Protocol):
    """What reads structs that stand in arrays, or may be absent."""

    def read(self, cursor: Cursor) -> Any:
        """The state of the struct at a place. Raises MisfitError."""
        ...

    def learn(self, cursor: Cursor) -> Any:
        """The same, learning its layout where it is new."""
        ...


class Layout:
    """Where the values of a shape are in the bytes of one writer.

    Attributes:
        count: How many fields there are, those unknown to the table among them.
        is_whole: Whether the table certainly knows them all.
        is_full: Whether every field of the table stands in them, and takes memory in proportion: what is read for the elements
            of lists (see `Limits.filled`).
    """

    def __init__(self, count: int, lines: Sequence[str], names: dict[str, Any], *, is_whole: bool, is_full: bool) -> None:
        self.count = count
        self.is_full = is_full and count > 0
        self.is_whole = is_whole
        self._lines = lines
        self._names = names

    @cached_property
    def read(self) -> Reader:
        """Reads the row of the fields at a place."""
        found: Reader = compiled("read(data, at)", [*self._lines, "return row, at"], self._names)
        return found

    @cached_property
    def read_all(self) -> ReaderOfAll:
        """Reads the row of fields after which nothing comes."""
        lines = ["at = 0", *self._lines, "if at != len(data): raise Misfit", "return row"]
        found: ReaderOfAll = compiled("read_all(data)", lines, self._names)
        return found


class Learner:
    """Learns the layout of some bytes, which `codec` has loaded. Raises MisfitError where it is none to be learnt.

    The Python that reads such bytes gathers a list of values in their order, then puts it into the order of the row.

    Args:
        shape: What they hold.
        elements: Knows the layouts of structs in arrays, and learns them.
        cursor: Where the fields begin; it is moved behind them.
    """

    def __init__(self, shape: Shape, elements: Callable[[Table], Elements], cursor: Cursor) -> None:
        self._shape = shape
        self._elements = elements
        self._cursor = cursor
        self._names: dict[str, Any] = {"Misfit": MisfitError}
        self._lines: list[str] = []
        self._gathered: list[str] = []
        self._order: list[int] = []
        """The leaf that each gathered value is of."""
        self._changes: list[str] = []
        self._tests: list[str] = []
        self._is_whole = True
        self._is_full = True
        self._start = cursor.pos
        self._places: list[Place] = []
        self._leaves: list[Leaf] = []
        self._flags: list[int] = []
        self._is_flagged = False
        """Whether a struct around is flagged, and its flag is constant: then so is that of each field in it."""
        self._siblings: list[int] = []
        """The flags that may be set or not, of the fields of one struct."""
        self._contradictions: list[tuple[int, list[int]]] = []
        """The flag of a struct, and those of its fields, which are then set too."""
        self._cuts = 0

    def learnt(self, count: int | None) -> Layout:
        """The layout of so many fields, or of all up to the end."""
        fields = self._fields(self._shape.structs[0], count)
        self._cut()
        self._finish()
        return Layout(fields, self._lines, self._names, is_whole=self._is_whole, is_full=self._is_full)

    def _finish(self) -> None:
        """The lines that make one row of all that was gathered."""
        gathered = ", ".join(self._gathered)
        is_row = gathered == "*row0" and not self._changes
        self._lines.append("row = row0" if is_row else f"row = [{gathered}]")
        if self._tests:
            self._lines.append(f"if not ({' and '.join(self._tests)}): raise Misfit")
        self._lines += self._changes
        places = [place for place, _ in sorted(enumerate(self._order), key=lambda each: each[1])]
        if places != [*range(len(places))]:
            self._names["ordered"] = itemgetter(*places)
            self._lines.append("row = ordered(row)")

    def _fields(self, inside: Struct, count: int | None) -> int:
        cursor = self._cursor
        members = {_field(each).name: each for each in inside.members}
        number = 0
        while number != count and (count is not None or cursor.pos < len(cursor.data)):
            start = cursor.pos
            cursor.read_array("a field")
            name = read_name(cursor, "a name")
            field = inside.table.by_name.get(name)
            if field is None:
                cursor.pos = start
                self._unknown(start)
            else:
                self._known(members.pop(field.name), field)
            number += 1
        for member in members.values():
            self._absent(member)
        return number

    def _unknown(self, start: int) -> None:
        """A field that the table does not know: constant as a whole, and at its default."""
        cursor = self._cursor
        cursor.skip("a field")
        end, cursor.pos = cursor.pos, start
        cursor.read_array("a field")
        cursor.skip("a name")
        cursor.skip("a type")
        cursor.skip("a length")
        if cursor.read_int("flags") != 1:
            raise MisfitError
        cursor.pos = end
        self._is_whole = False

    def _known(self, member: Leaf | Struct, field: Field) -> None:
        cursor = self._cursor
        wire = wire_type(read_name(cursor, "a type"))
        kind = field.type
        if isinstance(member, Leaf) and _varies(kind):
            if wire is not kind.wire:
                raise MisfitError
            self._varying(member)
            return
        cursor.skip("a length")
        flag = cursor.pos - self._start
        flags = cursor.skip("flags")
        if flags not in {b"\0", b"\1"}:
            raise MisfitError
        is_free = not self._is_flagged and not (isinstance(member, Struct) and _is_cut(member))
        if is_free:
            self._flags.append(flag)
            self._siblings.append(flag)
        if isinstance(member, Struct):
            outer = self._is_flagged, self._siblings
            self._is_flagged, self._siblings = not is_free and flags == b"\1", []
            self._fields(member, cursor.read_array("a struct"))
            if is_free and self._siblings:
                self._contradictions.append((flag, self._siblings))
            self._is_flagged, self._siblings = outer
        elif is_short_buffer(kind):
            self._place(member, "s", len(cursor.read_bin("a buffer")))
        elif is_bool(kind):
            cursor.read_bool("a boolean")
            self._place(member, "?", 1)
        else:
            self._number(member, wire)

    def _number(self, leaf: Leaf, wire: object) -> None:
        data = self._cursor.skip("a number")
        if not isinstance(wire, IntType) or data[:1] != wire.first or len(data) != 1 + wire.width:
            raise MisfitError  # a writer that takes the shortest form has no template
        self._place(leaf, wire.code, wire.width)

    def _place(self, leaf: Leaf, code: str, size: int) -> None:
        """The value of a leaf, which ends where the cursor is."""
        self._places.append(Place(code, self._cursor.pos - size - self._start, size))
        self._leaves.append(leaf)

    def _gather(self, expression: str, *leaves: Leaf) -> None:
        self._gathered.append(expression)
        self._order += (leaf.number for leaf in leaves)

    def _varying(self, leaf: Leaf) -> None:
        self._cut()
        kind = leaf.field.type
        if kind.wire.name == "sparse":
            self._is_full = False
        if leaf.field.table:
            self._is_whole = False  # what is unknown in such a struct, its own layout knows
            elements = self._elements(leaf.field.table)
            learn = _structs_reader(kind, elements.learn, self._due())
            read = _structs_reader(kind, elements.read, self._due())
        else:
            learn = read = _value_reader(kind, self._due())
        _, self._cursor.pos = learn(self._cursor.data, self._cursor.pos)
        self._names[f"r{leaf.number}"] = read
        self._gather(f"v{leaf.number}", leaf)
        self._lines.append(f"v{leaf.number}, at = r{leaf.number}(data, at)")
        self._start = self._cursor.pos

    def _due(self) -> frozenset[int]:
        """The flags that a field may have here."""
        return frozenset({1} if self._is_flagged else {0, 1})

    def _absent(self, member: Leaf | Struct) -> None:
        """A field that is not there: its default, a new one each time where it can be changed in place."""
        self._is_full = False
        field = _field(member)
        if field.is_required:
            raise MisfitError
        if isinstance(member, Leaf):
            self._names[f"D{member.number}"] = field.default_factory or field.default
            self._gather(f"D{member.number}{'()' if field.default_factory else ''}", member)
            return
        table = cast("Table", field.table)
        shape = Shape(table)
        if field.default_factory is not table.state or shape.has_checks:
            raise MisfitError  # a default that may hold more than fields, or that nobody checks
        look, make_default = shape.look, field.make_default
        self._names[f"D{member.number}s"] = lambda: look(make_default())[1]
        self._gather(f"*D{member.number}s()", *(each for each in members(member) if isinstance(each, Leaf)))

    def _cut(self) -> None:
        """End a template: everything since the last one, but for its holes, is constant."""
        data = self._cursor.data[self._start : self._cursor.pos]
        if not data:
            return
        key = self._cuts
        self._cuts += 1
        self._names[f"unpack{key}"] = Unpacker(bytes(data), tuple(self._places), tuple(self._flags)).unpack
        self._lines.append(f"row{key} = unpack{key}(data, at)")
        for flag, inner in self._contradictions:
            is_set = " & ".join(f"data[at + {each}]" for each in inner)
            self._lines.append(f"if data[at + {flag}] and not {is_set}: raise Misfit")
        self._lines.append(f"at += {len(data)}")
        for number, leaf in enumerate(self._leaves, len(self._order)):
            self._change(leaf, f"row[{number}]")
        if self._leaves:
            self._gather(f"*row{key}", *self._leaves)
        self._places, self._leaves, self._flags, self._contradictions = [], [], [], []
        self._start = self._cursor.pos

    def _change(self, leaf: Leaf, value: str) -> None:
        """What an unpacked value has to meet, and what it becomes."""
        kind = leaf.field.type
        self._tests += tests(kind.constraints, value, self._names) if is_number(kind) else ()
        if kind.enum:
            self._names[f"E{leaf.number}"] = {int(each): each for each in kind.enum}
            self._changes.append(f"{value} = E{leaf.number}[{value}]")


def _varies(kind: FieldType) -> bool:
    """Whether the bytes of a field are not of the same size each time, and cut the template."""
    return not (is_number(kind) or is_bool(kind) or is_short_buffer(kind))


def _is_cut(struct: Struct) -> bool:
    """Whether something in a struct cuts the template."""
    return any(_is_cut(each) if isinstance(each, Struct) else _varies(each.field.type) for each in struct.members)


def _field(member: Leaf | Struct) -> Field:
    return member.field if isinstance(member, Leaf) else cast("tuple[Struct, Field]", member.outer)[1]


def _value_reader(kind: FieldType, flags: frozenset[int]) -> Reader:
    """What reads length, flags and value of a field that varies."""
    wire = kind.wire
    is_block = isinstance(wire, BlockType)

    def read(data: Piece, at: int) -> tuple[Any, int]:
        source: Any = data
        start = at
        if is_block:
            source = memoryview(data)  # an array is copied once, by what holds it
        elif not isinstance(data, bytes):
            source, start = _own(data, at), 0
        cursor = Cursor(source, pos=start)
        length = read_length(cursor, wire)
        is_flag = cursor.read_int("flags") in flags
        value = wire.unpack(cursor, length)
        if not is_flag or not kind.takes_length(length) or kind.violation(value):
            raise MisfitError
        return kind.from_wire(value, wire, length), at + cursor.pos - start

    return read


def _own(data: Piece, at: int) -> bytes:
    """The length, flags and value at a place, in bytes of their own."""
    cursor = Cursor(cast("bytes", data), pos=at)
    for _ in range(3):
        cursor.skip("length, flags and value")
    return bytes(data[at : cursor.pos])


def _structs_reader(kind: FieldType, read_one: Callable[[Cursor], Any], flags: frozenset[int]) -> Reader:
    """What reads length, flags and value of an array of structs, or of one that may be absent."""

    def read_element(cursor: Cursor) -> Any:
        if not cursor.read_nil():
            return read_one(cursor)
        if not kind.is_optional:
            raise MisfitError
        return None

    def read(data: Piece, at: int) -> tuple[Any, int]:
        cursor = Cursor(cast("bytes", data), pos=at)
        length = read_length(cursor, kind.wire)
        flag = cursor.read_int("flags")
        if flag not in flags or not kind.takes_length(length):
            raise MisfitError
        if flag:
            _check_flags(Cursor(cursor.data, pos=cursor.pos), length)
        if length is None:
            return read_element(cursor), cursor.pos
        if cursor.read_array("structs") != length:
            raise MisfitError
        return kind.holder([read_element(cursor) for _ in range(length)]), cursor.pos

    return read


def _check_flags(cursor: Cursor, length: int | None) -> None:
    """Raise MisfitError where a field in structs that are flagged as being at their default is not flagged."""
    for _ in range(1 if length is None else cursor.read_array("structs")):
        if cursor.read_nil():
            continue
        for _ in range(cursor.read_array("a struct")):
            cursor.read_array("a field")
            for what in ("a name", "a type", "a length"):
                cursor.skip(what)
            if cursor.read_int("flags") != 1:
                raise MisfitError
            cursor.skip("a value")
