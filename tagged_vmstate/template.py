"""Templates: bytes that are the same each time but for some holes, as those of a struct of fixed-size fields are.

A `Packer` puts a row of values into the holes, each with the flag of its field; an `Unpacker` takes them out again. Anything
odd raises: a boolean where a number should be, another length, a byte that is not as it was. What to do then is for others.

Both are here in plain Python, and compiled in `_template.c`, which is used where it was built.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from tagged_vmstate.straight import PART, compiled

Row: TypeAlias = Sequence[Any]
"""The values of a template's holes."""
Flags: TypeAlias = "tuple[int, tuple[int, ...]]"
"""The flag of a struct, and those of its fields."""
Pack: TypeAlias = "Callable[[tuple[Any, ...]], bytes]"
"""The bytes of a row. Raises for an odd one."""
Unpack: TypeAlias = "Callable[[bytes | memoryview, int], Row]"
"""The row of the bytes at a place. Raises for other bytes."""

MASKED: Final = 128
"""Bytes of a buffer that Python compares under the mask, though it need not; to do so with more costs more than to skip them."""
TRUE: Final = 0xC3
"""The byte that is true in MessagePack; the one before it is false."""


class MisfitError(ValueError):
    """What does not fit."""


class Hole(NamedTuple):
    """A place for the value of a field.

    Attributes:
        code: What goes there: a number, by its code in `struct`; `?`, a boolean; `s`, bytes; `-`, nothing: the value is the flag.
        at: Where.
        size: How many bytes.
        flag: Where the field's flag is.
        kind: The class that the value is of. One of another class is refused, or packed as the number that it is.
        default: At which value the flag is set; None if at none.
    """

    code: str
    at: int
    size: int
    flag: int
    kind: type
    default: Any


class Place(NamedTuple):
    """A place to take a value from: `code`, `at` and `size` as of a Hole."""

    code: str
    at: int
    size: int


class StraightPacker:
    """Makes the bytes of rows: packs constants and values, thirty at a time.

    An argument of a pack that would be None raises, so what is odd is told by the same expression that chooses a constant.

    Args:
        data: The template, with flags that are not set.
        holes: Its holes, in the order of a row.
        structs: Of each struct in it, the inner before the outer, its flag and those of its fields: set when all of them are.
    """

    def __init__(self, data: bytes, holes: tuple[Hole, ...], structs: tuple[Flags, ...]) -> None:
        self._data = data
        self._start = 0
        self._codes: list[str] = []
        self._arguments: list[str] = []
        self._packs: list[str] = []
        self._names: dict[str, Any] = {"t": type}
        is_set = {hole.flag: _is_set(f"v{number}", hole) for number, hole in enumerate(holes)}
        for flag, members in structs:
            parts = [is_set[each] for each in members]
            is_set[flag] = "False" if "False" in parts else f"({' and '.join(parts) or 'True'})"
        numbers = {hole.flag: number for number, hole in enumerate(holes)}
        for flag in sorted(is_set):
            if flag in numbers:
                self._hole(numbers[flag], holes[numbers[flag]], is_set[flag])
            else:
                self._flag(flag, flag + 1, is_set[flag])
        self._place(len(data), self._constant(len(data), {}))
        self._pack()
        row = [f"{''.join(f'v{number}, ' for number in range(len(holes)))} = row"] if holes else []
        self.pack: Pack = compiled("pack(row)", ["zero = 0", *row, f"return {' + '.join(self._packs)}"], self._names)

    def _hole(self, number: int, hole: Hole, is_set: str) -> None:
        value = f"v{number}"
        if hole.code == "-":
            self._flag(hole.flag, hole.flag + 1, is_set)
        elif hole.code == "?":
            end = hole.at + 1
            true, false = (
                self._constant(end, {hole.flag: hole.default is each, hole.at: byte})
                for each, byte in ((True, TRUE), (False, TRUE - 1))
            )
            self._place(end, f"{true} if {value} is True else {false} if {value} is False else None")
        elif hole.code == "s":
            self._names[f"D{number}"] = hole.default
            self._flag(hole.flag, hole.at, is_set)
            self._value(hole, f"{value} if t({value}) is bytes and len({value}) == {hole.size} else None")
        else:
            self._names[f"K{number}"] = hole.kind
            is_at, unset = (self._constant(hole.at, {hole.flag: bit}) for bit in (1, 0))
            self._place(hole.at, _flagged(number, hole, is_at, unset))
            self._value(hole, value)

    def _constant(self, end: int, changed: Mapping[int, int]) -> str:
        """The template from where the last argument ended, as Python, with some of its bytes changed."""
        data = bytearray(self._data[self._start : end])
        for place, byte in changed.items():
            data[place - self._start] = byte
        return repr(bytes(data))

    def _flag(self, flag: int, end: int, is_set: str) -> None:
        if is_set != "False":
            self._place(end, f"{self._constant(end, {flag: 1})} if {is_set} else {self._constant(end, {})}")
        elif end > flag + 1:
            self._place(end, self._constant(end, {}))

    def _value(self, hole: Hole, expression: str) -> None:
        self._codes.append(f"{hole.size}s" if hole.code == "s" else hole.code)
        self._arguments.append(expression)
        self._start = hole.at + hole.size

    def _place(self, end: int, expression: str) -> None:
        if len(self._codes) > PART - 2:  # a constant, and a value behind it
            self._pack()
        self._codes.append(f"{end - self._start}s")
        self._arguments.append(expression)
        self._start = end

    def _pack(self) -> None:
        name = f"pack{len(self._packs)}"
        self._names[name] = struct.Struct(">" + "".join(self._codes)).pack
        self._packs.append(f"{name}({', '.join(self._arguments)})")
        self._codes, self._arguments = [], []


def _is_set(value: str, hole: Hole) -> str:
    """Python that is true where a value sets its flag; wrong, perhaps, of an odd one."""
    if hole.code == "-":
        return value
    if hole.default is None:
        return "False"
    if hole.code == "s":
        return f"{value} == D{value[1:]}"
    if hole.code == "?":
        return f"{value} is {hole.default}"
    # Most numbers are at zero, and then the very object: that is told sooner than that they are equal.
    return f"{value} is zero" if hole.default == 0 and hole.kind is int else f"{value} == {hole.default}"


def _flagged(number: int, hole: Hole, is_at: str, unset: str) -> str:
    """Python that is one of two constants, by whether a number sets its flag; None where it is odd."""
    value, is_set = f"v{number}", _is_set(f"v{number}", hole)
    if hole.kind is not int:
        return f"({is_at} if {is_set} else {unset}) if t({value}) is K{number} else None"
    if hole.default == 1:
        return f"None if t({value}) is not int else {is_at} if {is_set} else {unset}"
    # What is above 1 is no boolean; to ask that first is faster than to ask for the type.
    plain = f"{unset} if {value} > 1 else {unset} if {f'{value} and ' if hole.default == 0 else ''}t({value}) is int else None"
    return plain if hole.default is None else f"{is_at} if {is_set} else {plain}"


class StraightUnpacker:
    """Takes rows out of bytes: compares all that is constant under a mask, and unpacks all values at once.

    Args:
        data: The template, as it came.
        places: Where its values are, in order.
        flags: Where flags are, which may be set or not.
    """

    def __init__(self, data: bytes, places: tuple[Place, ...], flags: tuple[int, ...]) -> None:
        mask, codes, end = bytearray(b"\xff" * len(data)), [], 0
        starts, ends = [0], []
        for code, at, size in places:
            mask[at : at + size] = b"\xfe" if code == "?" else bytes(size)
            codes.append(f"{at - end}x{f'{size}s' if code == 's' else 'B' if code == '?' else code}")
            end = at + size
            if size > MASKED:
                starts.append(end)
                ends.append(at)
        for flag in flags:
            mask[flag] = 0xFE
        names: dict[str, Any] = {"Misfit": MisfitError, "from_bytes": int.from_bytes}
        names["values"] = struct.Struct(f">{''.join(codes)}{len(data) - end}x").unpack_from
        is_odd = []
        for number, (first, last) in enumerate(zip(starts, [*ends, len(data)], strict=True)):
            known = int.from_bytes(mask[first:last], "little")
            names |= {f"mask{number}": known, f"known{number}": int.from_bytes(data[first:last], "little") & known}
            is_odd.append(f"from_bytes(data[at + {first} : at + {last}], 'little') & mask{number} != known{number}")
        booleans = [number for number, place in enumerate(places) if place.code == "?"]
        lines = (
            f"if {' or '.join(is_odd)}: raise Misfit",
            f"row = {'list(values(data, at))' if booleans else 'values(data, at)'}",  # raises where the data ends before
            *(f"row[{number}] = row[{number}] == {TRUE}" for number in booleans),
            "return row",
        )
        self.unpack: Unpack = compiled("unpack(data, at)", lines, names)


try:
    from tagged_vmstate._template import Packer as _Packer
    from tagged_vmstate._template import Unpacker as _Unpacker
except ModuleNotFoundError:  # there was no compiler where it was installed
    _Packer, _Unpacker = StraightPacker, StraightUnpacker  # type: ignore[misc,assignment]  # the same, in Python

Packer: Final = _Packer
"""What packs here: the compiled one, or StraightPacker."""
Unpacker: Final = _Unpacker
"""What unpacks here: the compiled one, or StraightUnpacker."""
IS_COMPILED: Final = Packer.__module__ != StraightPacker.__module__
"""Whether these are the compiled ones."""
