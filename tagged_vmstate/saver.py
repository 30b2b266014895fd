"""What saves the states of a shape: packing constants and values, as straight code.

A struct of fixed-size fields has the same bytes but for its flags and values. What varies (text, lists, structs that may be
absent) cuts it into pieces. Whatever is odd about a state raises, and `codec` saves it field by field or tells what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import index
from typing import Any, Final, cast

from tagged_vmstate.blocks import IntType
from tagged_vmstate.codec import image, save_value
from tagged_vmstate.fieldtype import FieldType
from tagged_vmstate.records import encode_name
from tagged_vmstate.shape import TRUE, Leaf, Shape, Struct, is_bool, is_number, is_short_buffer, tests
from tagged_vmstate.straight import PART, compiled
from tagged_vmstate.table import NO_DEFAULT, Field, Table, elements_of
from tagged_vmstate.wire import APART, NIL, Piece, gathered, pack_array_head, pack_bin_head, pack_uint

MANY: Final = 1024
"""Structs of an array that may be big together."""

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
    """Writes the Python that saves states of a shape.

    The arguments of one pack are collected: constants up to and with the flag of a field, once as it is at its default and
    once as it is not, then its value. None in the place of either raises, so that an odd value is left to `codec`: a boolean
    is no number here, though it is one in Python.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._names: dict[str, Any] = {**shape.names(), "t": type, "gathered": gathered}
        self._lines = ["zero = 0", *shape.reading()]
        self._tests: list[str] = []
        self._constant = b""
        self._codes: list[str] = []
        self._arguments: list[str] = []
        self._pieces: list[str] = []

    def made(self, *, tells: bool) -> Callable[[Any], Any]:
        """The saver; one that also tells whether all fields are at their defaults."""
        self._lines += [f"v{leaf.number} = {leaf.place}" for leaf in self._shape.leaves]
        [root, *_] = self._shape.structs
        self._members(root)
        self._cut()
        if self._tests:
            self._lines.append(f"if not ({' and '.join(self._tests)}): raise Misfit")
        data = f"({', '.join(self._pieces)},)"
        if may_be_big(self._shape.table):
            data = f"gathered({data})"
        elif len(self._pieces) > 1:
            data = f"(b''.join({data}),)"
        self._lines.append(f"return {data}, {_all_default(root)}" if tells else f"return {data}")
        return compiled("save(o0)", self._lines, self._names)

    def _members(self, inside: Struct) -> None:
        for member in inside.members:
            if isinstance(member, Struct):
                field = cast("tuple[Struct, Field]", member.outer)[1]
                self._constant += _head(field) + NIL
                self._flag(_all_default(member), pack_array_head(len(member.members)))
                self._members(member)
            else:
                self._leaf(member, member.field.type, f"v{member.number}")

    def _leaf(self, leaf: Leaf, kind: FieldType, value: str) -> None:
        self._constant += _head(leaf.field)
        if is_bool(kind):
            self._bool(leaf, value)
        elif is_number(kind):
            self._number(leaf, kind, value)
        elif is_short_buffer(kind):
            self._constant += pack_uint(kind.length or 0)
            self._flag(_is_default(leaf), pack_bin_head(kind.length or 0))
            self._place(f"{kind.length}s", f"{value} if t({value}) is bytes and len({value}) == {kind.length} else None")
            self._names[f"default{leaf.number}"] = None if leaf.default is NO_DEFAULT else bytes(leaf.default)
        else:
            self._varying(leaf, value)

    def _bool(self, leaf: Leaf, value: str) -> None:
        head = self._constant + NIL
        self._constant = b""
        default = leaf.default if isinstance(leaf.default, bool) else None
        true, false = (head + bytes((default is each, TRUE if each else TRUE - 1)) for each in (True, False))
        self._place(f"{len(true)}s", f"{true!r} if {value} is True else {false!r} if {value} is False else None")

    def _number(self, leaf: Leaf, kind: FieldType, value: str) -> None:
        wire = cast("IntType", kind.wire)
        head = self._constant + NIL
        self._constant = b""
        is_at, unset = (repr(head + flag + wire.first) for flag in (b"\1", b"\0"))
        self._names[f"E{leaf.number}"] = kind.enum
        self._tests += tests(kind.constraints, value, self._names)
        self._place(f"{len(head) + 2}s", _flagged(leaf, is_at, unset))
        self._place(wire.code, value)

    def _varying(self, leaf: Leaf, value: str) -> None:
        number = leaf.number
        self._names[f"s{number}"] = _structs_saver(leaf) if leaf.field.table else _value_saver(leaf)
        self._lines.append(f"h{number}, b{number}, d{number} = s{number}({value})")
        self._cut()
        self._pieces += [f"h{number}", f"b'\\1' if d{number} else b'\\0'", f"*b{number}"]

    def _flag(self, is_default: str, behind: bytes) -> None:
        """The flag of a field, and constants behind it."""
        head = self._constant
        self._constant = b""
        if is_default == "False":
            self._constant = head + b"\0" + behind
        else:
            self._place(f"{len(head) + 1}s", f"{head + bytes((1,))!r} if {is_default} else {head + bytes((0,))!r}")
            self._constant = behind

    def _place(self, code: str, expression: str) -> None:
        if len(self._codes) > PART - 3:  # two more here, and one at the end
            self._pack()
        self._place_constant()
        self._codes.append(code)
        self._arguments.append(expression)

    def _place_constant(self) -> None:
        if self._constant:
            self._codes.append(f"{len(self._constant)}s")
            self._arguments.append(repr(self._constant))
            self._constant = b""

    def _cut(self) -> None:
        """End a piece, constants behind the last flag or value with it."""
        if self._codes:
            self._place_constant()
            self._pack()
        elif self._constant or not self._pieces:
            self._pieces.append(repr(self._constant))
            self._constant = b""

    def _pack(self) -> None:
        """End a piece, so that what comes is packed by another call."""
        name = f"pack{len(self._pieces)}"
        self._names[name] = struct.Struct(">" + "".join(self._codes)).pack
        self._pieces.append(f"{name}({', '.join(self._arguments)})")
        self._codes, self._arguments = [], []


def _head(field: Field) -> bytes:
    """What a field begins with: array head, name, type."""
    return b"\x95" + encode_name(field.name) + encode_name(field.type.wire.name)


def _is_default(leaf: Leaf) -> str:
    """Python that is true where a leaf is at its default; wrong, perhaps, of a number that is no `int`: `_flagged` refuses it."""
    kind = leaf.field.type
    if not (is_bool(kind) or is_number(kind) or is_short_buffer(kind)):
        return f"d{leaf.number}"
    if leaf.default is NO_DEFAULT:
        return "False"
    if is_short_buffer(kind):
        return f"v{leaf.number} == default{leaf.number}"
    number = index(leaf.default)
    if is_bool(kind):
        return f"v{leaf.number} is {bool(number)}"
    # Most numbers are at zero, and then the very object: that is told sooner than that they are equal.
    return f"v{leaf.number} is zero" if number == 0 and not kind.enum else f"v{leaf.number} == {number}"


def _flagged(leaf: Leaf, is_at: str, unset: str) -> str:
    """Python that is one of two constants, by whether a number is at its default; None where `codec` is to look at it."""
    value, kind = f"v{leaf.number}", leaf.field.type
    if kind.enum:
        return f"({is_at} if {_is_default(leaf)} else {unset}) if t({value}) is E{leaf.number} else None"
    default = None if leaf.default is NO_DEFAULT else index(leaf.default)
    if default == 1:
        return f"None if t({value}) is not int else {is_at} if {_is_default(leaf)} else {unset}"
    # What is above 1 is no boolean; to ask that first is faster than to ask for the type.
    plain = f"{unset} if {value} > 1 else {unset} if {f'{value} and ' if default == 0 else ''}t({value}) is int else None"
    return plain if default is None else f"{is_at} if {_is_default(leaf)} else {plain}"


def _all_default(inside: Struct) -> str:
    parts = [_all_default(each) if isinstance(each, Struct) else _is_default(each) for each in inside.members]
    return "False" if "False" in parts else f"({' and '.join(parts) or 'True'})"


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
