"""JSON made from other JSON by its structure, to reach what looks at values that have been decoded.

A value becomes one of another type, members go, come twice or get another name; numbers are beyond every width, strings hold
half of a surrogate pair, and what nests does so too deep.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from tagged_vmstate.fuzz.mutate import EDGES, LENGTHS, MOST_BYTES, changed_bytes, smaller_bytes


class _Members(list[tuple[str, Any]]):
    """The members of an object in their order; a key may come twice."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A value as it is to be written, which no Python value stands for."""

    text: str


_Place: TypeAlias = tuple["list[Any]", int]
"""An array, or the members of an object, and which of them."""

_ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, "", "x", "0", "0x10", "00", "\0", "\ud800", "x" * 300, "__class__"),
    *(1 << 31, 1 << 32, 1 << 63, 1 << 64, -(1 << 63), 1 << 1030, -(1 << 1030)),
    *([], [[]], [None], [0], ["x"], _Members(), _Members([("", None)]), _Members([("x", 1)]), _Members([("\ud800", 1)])),
    *(_Written("NaN"), _Written("-Infinity"), _Written("1e999"), _Written("1.0"), _Written("-0")),
    *(_Written("9" * 5000), _Written('"\\udc80"'), _Written("[" * 100 + "]" * 100), _Written('{"a":' * 2000 + "0" + "}" * 2000)),
)
_NAMES: Final = ("", "x", "\ud800", "__init__", "mro", "name", "x" * 300)


def changed_json(data: bytes, random: Random) -> bytes:
    """JSON with some values changed; one time in five only its bytes, as are bytes that are no JSON."""
    if random.random() < 0.2:
        return changed_bytes(data, random)
    try:
        root = [json.loads(data, object_pairs_hook=_Members)]
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            _change(root, random)
        found = _written(root[0]).encode() if root else b""
        return found if len(found) <= MOST_BYTES else changed_bytes(data, random)
    except (ValueError, RecursionError):
        return changed_bytes(data, random)


def smaller_json(data: bytes) -> Iterator[bytes]:
    """The same JSON with a value less, from the outside in; then the same bytes with a piece less."""
    try:
        root = [json.loads(data, object_pairs_hook=_Members)]
        for values, at in list(_places(root))[1:]:
            gone = values.pop(at)
            yield _written(root[0]).encode()
            values.insert(at, gone)
    except (ValueError, RecursionError):
        pass
    yield from smaller_bytes(data)


def _places(root: list[Any]) -> Iterator[_Place]:
    """Where a value stands, those outside first."""
    waiting = [root]
    while waiting:
        values = waiting.pop()
        for at in range(len(values)):
            yield values, at
            inner = _value((values, at))
            if isinstance(inner, list):
                waiting.append(inner)


def _value(place: _Place) -> Any:
    values, at = place
    return values[at][1] if isinstance(values, _Members) else values[at]


def _put(place: _Place, value: Any) -> None:
    values, at = place
    values[at] = (values[at][0], value) if isinstance(values, _Members) else value


def _change(root: list[Any], random: Random) -> None:
    """Change one value, or the name that it has."""
    places = list(_places(root))
    if not places:
        return
    place = values, at = random.choice(places)
    kind = random.random()
    if kind < 0.35:
        _put(place, copy.deepcopy(random.choice(_ODD)))
    elif kind < 0.5:
        _put(place, copy.deepcopy(_value(random.choice(places))))
    elif kind < 0.6:
        del values[at]
    elif kind < 0.65:
        values.insert(at, copy.deepcopy(values[at]))
    elif kind < 0.75 and isinstance(values, _Members):
        others = [each[number][0] for each, number in places if isinstance(each, _Members)]
        values[at] = (random.choice((*_NAMES, random.choice(others))), values[at][1])
    else:
        _put(place, copy.deepcopy(_near(_value(place), random)))


def _near(value: Any, random: Random) -> Any:
    """A value that is a little different."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((value - 1, value + 1, -value, random.choice(EDGES), random.choice(LENGTHS), float(value % 1000)))
    if isinstance(value, str):
        return random.choice((value + "x", value[:-1], value * 2, value + "\ud800", f"{value} 00", "-" + value))
    if isinstance(value, _Members):
        return random.choice((_Members(value[:1]), _Members(value[::-1]), [value]))
    return random.choice((value[:1], value + copy.deepcopy(value), [value])) if isinstance(value, list) else [value]


def _written(value: Any) -> str:
    if isinstance(value, _Written):
        return value.text
    if isinstance(value, _Members):
        return f"{{{', '.join(f'{json.dumps(key)}: {_written(each)}' for key, each in value)}}}"
    return f"[{', '.join(map(_written, value))}]" if isinstance(value, list) else json.dumps(value)
