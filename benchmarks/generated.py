"""Straight-line code made of a shape, as a user in a hurry would write it by hand: the fair yardstick for any codec."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from benchmarks.classes import Classes
from benchmarks.shapes import Field, Shape

Adapt: TypeAlias = Mapping[str, tuple[str, str]]
"""How a kind of field (or a holder of arrays) becomes what a codec takes, and the way back: expressions with a ``{}``."""
_AS_IT_IS: Final = ("{}", "{}")
BLOCKS: Final[Adapt] = {"array": ("{}.tobytes()", "array_of({})"), "numpy": ("{}.tobytes()", "numpy_of({})")}
"""Arrays of numbers as bytes; loaded into memory of their own."""
_CODES: Final = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "bool": "?",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two functions: an object to what a codec takes, and back."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def array_of(data: bytes) -> array[int]:
    """An array of uint32 from its bytes."""
    found = array("I")
    found.frombytes(data)
    return found


def numpy_of(data: bytes) -> Any:
    """The same as an array of numpy."""
    import numpy as np

    return np.frombuffer(data, "<u4").copy()


def dicts(shape: Shape, classes: Classes, adapt: Adapt | None = None) -> Pair:
    """Objects to dicts and back: one dict literal and one call of a class for each struct."""
    how = {**BLOCKS, **(adapt or {})}
    lines = []
    for each in shape.shapes().values():
        dumped = ", ".join(f"{field.name!r}: {_dumped(field, how)}" for field in each.fields)
        loaded = ", ".join(_loaded(field, f"d[{field.name!r}]", how) for field in each.fields)
        lines.append(f"def dump_{each.name}(o): return {{{dumped}}}")
        lines.append(f"def load_{each.name}(d): return {each.name}({loaded})")
    return _pair(lines, shape, classes)


def messages(shape: Shape, classes: Classes, message: Callable[[], Any]) -> Pair:
    """Objects to messages of protobuf and back, by copying field by field."""
    lines = []
    for each in shape.shapes().values():
        lines.append(f"def fill_{each.name}(o, m):")
        lines += (f"    {_filled(field)}" for field in each.fields)
        loaded = ", ".join(_loaded(field, f"m.{field.name}", {**BLOCKS, "list": ("", "list({})")}) for field in each.fields)
        lines.append(f"def load_{each.name}(m): return {each.name}({loaded})")
    lines += (f"def dump_{shape.name}(o):", "    m = message()", f"    fill_{shape.name}(o, m)", "    return m")
    return _pair(lines, shape, classes, message=message)


def positional(shape: Shape, classes: Classes) -> Pair:
    """Objects to bytes and back by one `struct.Struct`: values in their order, nothing else."""
    walk = _Positional()
    made = walk.struct(shape, "o")
    lines = [f"def dump_{shape.name}(o):", *walk.lines, f"    return pack({', '.join(walk.taken)})"]
    lines += (f"def load_{shape.name}(data):", "    v = unpack(data)", f"    return {made}")
    layout = struct.Struct("<" + "".join(walk.codes))
    return _pair(lines, shape, classes, pack=layout.pack, unpack=layout.unpack)


class _Positional:
    """What stands where, gathered field by field.

    Attributes:
        codes: The codes of the layout.
        taken: The expression of each value that is packed.
        lines: Statements that put each struct into a variable.
    """

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.taken: list[str] = []
        self.lines: list[str] = []
        self._count = 0

    def struct(self, shape: Shape, local: str) -> str:
        """Take a struct that is in a variable; return the expression that makes it of the values ``v``."""
        return f"{shape.name}({', '.join(self._field(field, local) for field in shape.fields)})"

    def _field(self, field: Field, local: str) -> str:
        value, inner = f"{local}.{field.name}", f"{local}_{field.number}"
        if field.struct:
            self.lines.append(f"    {inner} = {value}")
            return self.struct(field.struct, inner)
        start = self._count
        if field.holder == "list":
            self._take(f"{field.length}{_CODES[field.kind]}", f"*{value}", field.length or 0)
            return f"list(v[{start}:{self._count}])"
        dump, load = BLOCKS.get(field.holder, _AS_IT_IS)
        size = (field.length or 0) * (4 if field.holder else 1)
        self._take(f"{size}s" if size else _CODES[field.kind], dump.format(value), 1)
        return load.format(f"v[{start}]")

    def _take(self, code: str, value: str, count: int) -> None:
        self.codes.append(code)
        self.taken.append(value)
        self._count += count


def _pair(lines: list[str], shape: Shape, classes: Classes, **names: Any) -> Pair:
    found: dict[str, Any] = {**classes, "array_of": array_of, "numpy_of": numpy_of, **names}
    exec("\n".join(lines), found)
    return Pair(found[f"dump_{shape.name}"], found[f"load_{shape.name}"])


def _dumped(field: Field, how: Adapt) -> str:
    if field.struct:
        return f"dump_{field.struct.name}(o.{field.name})"
    return how.get(field.holder or field.kind, _AS_IT_IS)[0].format(f"o.{field.name}")


def _loaded(field: Field, value: str, how: Adapt) -> str:
    if field.struct:
        return f"load_{field.struct.name}({value})"
    return how.get(field.holder or field.kind, _AS_IT_IS)[1].format(value)


def _filled(field: Field) -> str:
    if field.struct:
        return f"fill_{field.struct.name}(o.{field.name}, m.{field.name})"
    if field.holder == "list":
        return f"m.{field.name}.extend(o.{field.name})"
    return f"m.{field.name} = {BLOCKS.get(field.holder, _AS_IT_IS)[0].format(f'o.{field.name}')}"
