"""Inputs that nobody writes by accident, in any size: what a reader may do for them grows as they do, and no faster.

`tests/reliability.py` measures the time that they take, `tests/test_qemu_streams.py` the memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, Final

from qemu_streams import EOF, MAGIC, blocks, configuration, description, device, field, footer, full, head, page, ram

Shape = Callable[[int], bytes]


_PAIR: Final = field("x", "uint16", 2), field("y", "uint16", 2)


def array(count: int, size: int, *fields: object, data: bytes | None = None) -> bytes:
    """A device of an array of structs, which the description has in one entry."""
    data = b"\1" * count * size if data is None else data
    inside = {"vmsd_name": "s", "version": 1, "fields": list(fields)}
    entry = field("s", "struct", size, array_len=count, struct=inside)
    return MAGIC + full(0, "d", data) + EOF + description(device("d", entry))


def numbered(count: int, make: Callable[[int], bytes]) -> bytes:
    """A stream of so many sections."""
    return MAGIC + b"".join(map(make, range(count))) + EOF


def pages(count: int, distance: int, *bits: tuple[str, bytes]) -> bytes:
    """Pages of one byte each, no two that follow each other the same."""
    size = 1 << (int.from_bytes(bits[0][1], "big") if bits else 12)
    places = [number * distance * size for number in range(count)]
    records = [page(at, bytes((1 + number % 2,)), None if number else "m") for number, at in enumerate(places)]
    memory = ram(blocks(m=count * distance * size) + b"".join(records), b"")
    return MAGIC + (configuration("pc", *bits) if bits else b"") + memory + EOF


def capabilities(count: int, stated: int | None = None) -> bytes:
    """A configuration of capabilities without names."""
    names = struct.pack(">I", count if stated is None else stated) + bytes(count)
    return MAGIC + configuration("pc", ("configuration/capabilities", names)) + (EOF if stated is None else b"")


def described(count: int, make: Callable[[int], dict[str, object]]) -> bytes:
    """A device without bytes, with so many fields."""
    return MAGIC + full(0, "d", b"") + EOF + description(device("d", *map(make, range(count))))


ACCEPTED: Final[dict[str, Shape]] = {
    "capabilities": lambda count: capabilities(32 * count),
    "siblings of one name": lambda count: described(count, lambda number: field("ab"[number % 2], "buffer", 0)),
    "siblings of one long name": lambda count: described(count, lambda number: field("ab"[number % 2] * 255, "buffer", 0)),
    "one device often": lambda count: numbered(count, lambda number: full(number, "d", b"")),
    "instances twice": lambda count: numbered(count, lambda number: full(number, "d", b"", instance=number % (count // 2))),
    "odd names": lambda count: numbered(count, lambda number: full(number, "\x01x", b"zz", instance=number)),
    "no footers": lambda count: numbered(count, lambda number: full(9, "d", b"z", instance=number, has_footer=False)),
    "sizes that are not there": lambda count: (
        numbered(count, lambda number: full(number, "d", b"")) + description(device("d", field("b", "buffer", 1 << 40)))
    ),
    "sizes that lie": lambda count: (
        MAGIC
        + b"".join(full(number, "d", b"", instance=number) for number in range(count))
        + full(count, "last", bytes(40 * count))
        + EOF
        + description(*(device("d", field("b", "buffer", 30 * count), instance=number) for number in range(count)))
    ),
    "turns": lambda count: numbered(count, lambda number: head(2 if number else 1, 1, "x", 0, 1) + b"q" + footer(1)),
    "commands": lambda count: numbered(count, lambda _: b"\x08\0\0\0\0"),
    "blocks": lambda count: MAGIC + ram(blocks(**{f"m{number}": 4096 for number in range(count)}), b"") + EOF,
    "pages of one byte": lambda count: pages(count, 1),
    "pages far apart": lambda count: pages(count, 4096),
    "structs": lambda count: array(count, 4, field("x", "uint16", 2), field("y", "uint16", 2)),
    "nulls among pointers": lambda count: array(2 * count, 4, *_PAIR, data=b"\1\1\1\0010" * count),
    "all like nulls": lambda count: array(2 * count, 4, *_PAIR, data=b"0" * 5 * count),
    "fields of no bytes": lambda count: array(count, 1, *(field(f"f{each}", "buffer", 0) for each in range(count))),
    "bools that are none": lambda count: array(count, 8, field("b", "bool", 1, array_len=4), field("x", "uint32", 4)),
    "elements that only QEMU reads": lambda count: (
        MAGIC + full(0, "d", bytes(40 * count)) + EOF + description(device("d", field("f", "fpr", 1, array_len=40 * count)))
    ),
}
"""What `import` takes."""

REFUSED: Final[dict[str, Shape]] = {
    "capabilities that end": lambda count: capabilities(32 * count, stated=0xFFFF_FFFF),
    "settings": lambda count: MAGIC + configuration("pc", *[("x", b"")] * count) + EOF,
    "odd names, cut": lambda count: ACCEPTED["odd names"](count)[:-3],
    "pages of 64 KiB, cut": lambda count: pages(count // 4, 1, ("configuration/target-page-bits", struct.pack(">I", 16)))[:-20],
}
"""What `import` refuses."""


def keys(count: int) -> bytes:
    """A JSON form with a key twice."""
    members = [f'"k{number}": 0' for number in (*range(count), count - 1)]
    return b'{"format": "tagged-vmstate", "version": 1, "attributes": {' + ", ".join(members).encode() + b'}, "sections": []}'


def sections(count: int) -> bytes:
    """A JSON form with a big section ahead of many small ones."""
    big = {"name": "b", "type": "buffer", "length": 20 * count, "value": "00" * 20 * count}
    found: list[Any] = [{"device": "b", "instance": 0, "fields": [big]}]
    found += ({"device": "d", "instance": number, "fields": []} for number in range(count))
    return json.dumps({"format": "tagged-vmstate", "version": 1, "attributes": {}, "sections": found}).encode()


def dump(names: list[str]) -> Any:
    """What QEMU's -dump-vmstate writes of a device with some fields."""
    fields = [{"field": name, "version_id": 0, "field_exists": False, "size": 4} for name in names]
    found = {"name": "d", "version_id": 1, "minimum_version_id": 1, "Fields": fields}
    return {"vmschkmachine": {"Name": "pc"}, "d": {"Description": found}}
