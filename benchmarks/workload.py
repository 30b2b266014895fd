"""The states that are saved and loaded: shapes and values, from a fixed seed, the same every time.

The machine has the numbers of a real one (a PC of QEMU): 32 devices of 32 classes, 1289 fields, 46 % uint32, 17 % uint8,
5 % of each other kind; 143 structs of 53 types, some of them in others; 11 buffers; short names; half of all values at
their defaults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from benchmarks.generated import array_of, numpy_of
from benchmarks.shapes import WIDTHS, Field, Shape, Values

SEED: Final = 2009
DEVICES: Final = 32
FIELDS: Final = 1289
TYPES: Final = 53
OUTER: Final = 10
"""Struct types that hold another; each is there twice, the inner types share the rest of the places."""
STRUCTS: Final = 143
BUFFERS: Final = 11
_RARE: Final = ("uint64", "int32", "uint16", "int64", "bool")
KINDS: Final[Counter[str]] = Counter(
    {"uint32": 593, "uint8": 219, **dict(zip(_RARE, (65, 65, 65, 64, 64), strict=True)), "buffer": BUFFERS}
)
"""How many fields of each kind, structs aside."""
_WORDS: Final = (
    *("addr", "base", "ctrl", "count", "data", "delay", "edge", "enable", "error", "fifo", "flags", "frame", "gpio", "head"),
    *("index", "intr", "irq", "latch", "level", "limit", "line", "lock", "mask", "mode", "page", "period", "phase", "port"),
    *("queue", "ready", "reg", "reset", "ring", "seq", "shift", "size", "stat", "status", "tail", "timer", "vector", "xfer"),
)
_NAME: Final = range(4, 22)


HOLDERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "list": lambda data: memoryview(data).cast("I").tolist(),
    "array": array_of,
    "numpy": numpy_of,
}
"""What holds an array of uint32 in Python, made of its bytes."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A shape, and a state of it as plain values."""

    shape: Shape
    values: Values


def machine() -> Workload:
    """All devices of a machine."""
    random = Random(SEED)
    shape = _machine(random)
    return Workload(shape, _values(shape, random))


def device() -> Workload:
    """One device of 50 fields, two structs among them."""
    random = Random(SEED + 1)
    inner = _shape("Queue", _dealt(random, 6), random)
    structs = [_struct(inner) for _ in range(2)]
    shape = _shape("Uart", [*_dealt(random, 50 - 2 * 7), *structs], random)
    return Workload(shape, _values(shape, random))


def block(holder: str, length: int) -> Workload:
    """One array of random uint32; `holder` is a key of `HOLDERS`."""
    random = Random(SEED + 2)
    shape = Shape("Block", (Field("data", "uint32", 1, length=length, holder=holder),))
    return Workload(shape, {"data": HOLDERS[holder](random.randbytes(4 * length))})


def buffer(length: int) -> Workload:
    """One big buffer of whole MiB, all of its memory touched."""
    piece = Random(SEED + 3).randbytes(1 << 20)
    return Workload(buffer_shape(length), {"data": piece * (length // len(piece))})


def buffer_shape(length: int) -> Shape:
    """What holds it."""
    return Shape("Frame", (Field("data", "buffer", 1, length=length),))


def foreign(shape: Shape) -> tuple[Shape, set[str]]:
    """A device as another release has it: its fields in another order, two of them missing, one more; and which are missing."""
    random = Random(SEED + 4)
    zero = [field for field in shape.fields if field.kind in WIDTHS and field.default == 0]
    missing = {field.name for field in random.sample(zero, 2)}
    more = Field("newer_feature", "uint32", len(shape.fields) + 1, default=0)
    fields = [*(field for field in shape.fields if field.name not in missing), more]
    random.shuffle(fields)
    return replace(shape, fields=tuple(fields)), missing


def _machine(random: Random) -> Shape:
    inner = [_shape(f"Struct{number}", _dealt(random, random.randint(2, 5)), random) for number in range(TYPES - OUTER)]
    outer = [
        _shape(f"Outer{number}", [*_dealt(random, random.randint(2, 5)), _struct(inner[number])], random)
        for number in range(OUTER)
    ]
    left = STRUCTS - 4 * OUTER
    placed = [*outer * 2, *(inner * (left // len(inner) + 1))[:left]]
    used = Counter(leaf.kind for shape in placed for leaf in shape.leaves())
    rest = [_leaf(kind, random) for kind in (KINDS - used).elements()]
    return Shape("Machine", _devices([*rest, *map(_struct, placed)], random), is_machine=True)


def _devices(fields: list[Field], random: Random) -> tuple[Field, ...]:
    """The fields dealt to the devices like cards, so that each has some of every kind."""
    shapes = [_shape(f"Device{number}", fields[number::DEVICES], random) for number in range(DEVICES)]
    return tuple(Field(f"device{number}", "struct", number + 1, struct=shape) for number, shape in enumerate(shapes))


def _dealt(random: Random, count: int) -> list[Field]:
    """Fields of kinds as the machine has them; no buffers."""
    kinds = [kind for kind in KINDS if kind != "buffer"]
    return [_leaf(kind, random) for kind in random.choices(kinds, [KINDS[kind] for kind in kinds], k=count)]


def _leaf(kind: str, random: Random) -> Field:
    if kind == "buffer":
        length = 1 << random.randint(6, 12)
        return Field("", kind, 0, default=bytes(length), length=length)
    if kind == "bool":
        return Field("", kind, 0, default=False)
    return Field("", kind, 0, default=random.randint(1, 100) if random.random() < 0.1 else 0)


def _struct(shape: Shape) -> Field:
    return Field("", "struct", 0, struct=shape)


def _shape(name: str, fields: list[Field], random: Random) -> Shape:
    """The fields in any order, each with a name of its own."""
    random.shuffle(fields)
    names: dict[str, None] = {}
    while len(names) < len(fields):
        found = "_".join(random.sample(_WORDS, random.choice((1, 2, 2, 2, 3))))
        if len(found) in _NAME:
            names[found] = None
    named = zip(fields, names, strict=True)
    return Shape(name, tuple(replace(field, name=each, number=number) for number, (field, each) in enumerate(named, 1)))


def _values(shape: Shape, random: Random) -> Values:
    return {field.name: _values(field.struct, random) if field.struct else _value(field, random) for field in shape.fields}


def _value(field: Field, random: Random) -> Any:
    """Half are at their defaults, most others small; a buffer is full."""
    if field.kind == "buffer":
        return random.randbytes(field.length or 0)
    if random.random() < 0.5:
        return field.default
    if field.kind == "bool":
        return True
    least, greatest = WIDTHS[field.kind]
    return random.randint(least, greatest) if random.random() < 0.3 else random.randint(max(least, -100), 100)
