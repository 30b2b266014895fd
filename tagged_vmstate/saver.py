"""What saves the states of a shape: a row of their values, gathered by straight code, packed into one template.

What varies (text, lists, structs that may be absent) is put between the parts of that. Whatever is odd about a state raises,
and `codec` saves it field by field or tells what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index
from typing import Any, Final, cast

from tagged_vmstate.blocks import IntType
from tagged_vmstate.codec import image, save_value
from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.records import encode_name
from tagged_vmstate.shape import Leaf, Shape, Struct, is_bool, is_number, is_short_buffer, tests
from tagged_vmstate.straight import compiled, tuple_of
from tagged_vmstate.table import NO_DEFAULT, Field, Table, elements_of
from tagged_vmstate.template import TRUE, Flags, Hole, Packer
from tagged_vmstate.wire import APART, NIL, Piece, gathered, pack_array_head, pack_bin_head, pack_uint

MANY: Final = 1024
"""Structs of an array that may be big together."""

UNSET: Final = b"\0"
"""The flag of a field that is not at its default."""

Saver = Callable[[Any], Sequence[Piece]]
"""The fields of a state as bytes in pieces, most often one. Raises what is odd about the state."""


def may_be_big(table: Table) -> bool:
    """Whether a value of a table may be worth a piece of its own."""
    return any(_may_be_big(each.type) for each in table.fields)


def _may_be_big(kind: FieldType) -> bool:
    count = (kind.length if kind.capacity is None else kind.capacity) or 1
    if isinstance(kind.table, Table):
        return count >= MANY or may_be_big(kind.table)
    return count * getattr(kind.wire, "width", 1) >= APART


class SaverMaker:
    """Writes the Python that saves states of a shape: it gathers a row, and has that packed.

    What varies is saved on its own. In the row stands whether it is at its default, which goes into a hole for its flag; its
    length and its value are put around that.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._names: dict[str, Any] = {**shape.names(), "gathered": gathered}
        self._lines = [*shape.reading()]
        self._tests: list[str] = []
        self._data = bytearray()
        self._holes: list[Hole] = []
        self._structs: list[Flags] = []
        self._varying: list[tuple[int, int]] = []
        self._row: list[str] = []

    def made(self, *, tells: bool) -> Callable[[Any], Any]:
        """The saver; one that also tells whether all fields are at their defaults."""
        [root, *_] = self._shape.structs
        if tells:
            self._data += UNSET
        flags = self._members(root)
        if tells:
            self._structs.append((0, flags))
        self._names["pack"] = Packer(bytes(self._data), tuple(self._holes), tuple(self._structs)).pack
        self._lines.append(f"row = {tuple_of(self._row)}")
        if self._tests:
            self._lines.append(f"if not ({' and '.join(self._tests)}): raise Misfit")
        if tells or self._varying:
            self._lines.append("data = pack(row)")
        data = self._pieces(1 if tells else 0)
        self._lines.append(f"return {data}, data[0] == 1" if tells else f"return {data}")
        return compiled("save(o0)", self._lines, self._names)

    def _pieces(self, start: int) -> str:
        if not (start or self._varying):
            return "(pack(row),)"
        pieces = []
        for number, flag in self._varying:
            pieces += [f"data[{start}:{flag}]", f"h{number}", f"data[{flag}:{flag + 1}]", f"*b{number}"]
            start = flag + 1
        data = f"({', '.join([*pieces, f'data[{start}:]'])},)"
        if may_be_big(self._shape.table):
            return f"gathered({data})"
        return f"(b''.join({data}),)"

    def _members(self, inside: Struct) -> tuple[int, ...]:
        """All fields of a struct; the places of their flags."""
        return tuple(
            self._struct(each) if isinstance(each, Struct) else self._leaf(each, each.field.type) for each in inside.members
        )

    def _struct(self, struct: Struct) -> int:
        field = cast("tuple[Struct, Field]", struct.outer)[1]
        flag = self._field(_head(field) + NIL, pack_array_head(len(struct.members)))
        self._structs.append((flag, self._members(struct)))
        return flag

    def _field(self, head: bytes, behind: bytes) -> int:
        """A field up to its value; where its flag is."""
        self._data += head + UNSET + behind
        return len(self._data) - len(behind) - 1

    def _leaf(self, leaf: Leaf, kind: FieldType) -> int:
        head = _head(leaf.field)
        if is_bool(kind):
            flag = self._field(head + NIL, b"")
            self._hole(leaf, "?", 1, flag, bool)
        elif is_number(kind):
            wire = cast("IntType", kind.wire)
            flag = self._field(head + NIL, wire.first)
            self._tests += tests(kind.constraints, f"row[{leaf.number}]", self._names)
            self._hole(leaf, wire.code, wire.width, flag, kind.enum or int)
        elif is_short_buffer(kind):
            size = kind.length or 0
            flag = self._field(head + pack_uint(size), pack_bin_head(size))
            self._hole(leaf, "s", size, flag, bytes)
        else:
            flag = self._field(head, b"")
            self._holes.append(Hole("-", flag, 0, flag, bool, None))
            self._vary(leaf, flag)
        return flag

    def _hole(self, leaf: Leaf, code: str, size: int, flag: int, kind: type) -> None:
        default = None if leaf.default is NO_DEFAULT else _plain(leaf.default, code)
        self._holes.append(Hole(code, len(self._data), size, flag, kind, default))
        self._data += bytes((TRUE - 1,)) if code == "?" else bytes(size)
        self._row.append(leaf.place)

    def _vary(self, leaf: Leaf, flag: int) -> None:
        number = leaf.number
        self._names[f"s{number}"] = _structs_saver(leaf) if leaf.field.table else _value_saver(leaf)
        self._lines.append(f"h{number}, b{number}, d{number} = s{number}({leaf.place})")
        self._varying.append((number, flag))
        self._row.append(f"d{number}")


def _head(field: Field) -> bytes:
    """What a field begins with: array head, name, type."""
    return b"\x95" + encode_name(field.name) + encode_name(field.type.wire.name)


def _plain(default: Any, code: str) -> Any:
    return bytes(default) if code == "s" else bool(default) if code == "?" else index(default)


def _value_saver(leaf: Leaf) -> Callable[[Any], tuple[bytes, Sequence[Piece], bool]]:
    kind = leaf.field.type
    default = None if leaf.default is NO_DEFAULT else image(kind, leaf.default)
    return lambda value: save_value(kind, value, default)


def _structs_saver(leaf: Leaf) -> Callable[[Any], tuple[bytes, Sequence[Piece], bool]]:
    """What saves an array of structs, or one that may be absent."""
    kind, table = leaf.field.type, cast("Table", leaf.field.table)
    default = None if leaf.default is NO_DEFAULT else elements_of(kind, leaf.default)
    if default and any(each is not None for each in default):
        return _value_saver(leaf)
    save_one = SaverMaker(Shape(table)).made(tells=True)
    element_head = pack_array_head(len(table.fields))

    def save(value: Any) -> tuple[bytes, Sequence[Piece], bool]:
        elements = elements_of(kind, value)
        is_known = default is not None and len(default) == len(elements)
        is_default = is_known or not kind.is_array
        found: list[Piece] = []
        for element in elements:
            if element is None:
                found.append(NIL)
                is_default = is_default and is_known
            else:
                data, is_all = save_one(element)
                found += (element_head, *data)
                is_default = is_default and is_all
        if not kind.is_array:
            return NIL, found, is_default
        return pack_uint(len(elements)), (pack_array_head(len(elements)), *found), is_default

    return save


def saver(shape: Shape) -> Saver:
    """What saves states of a shape."""
    found: Saver = SaverMaker(shape).made(tells=False)
    return found
