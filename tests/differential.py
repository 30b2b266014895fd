"""Two readers of one format: the library, and docs/reader.mjs, which was written from the specification.

    python tests/differential.py [--runs N] [--seed S]

Vectors are changed at random, and each file is read by both: they take and refuse the same ones, and print the same JSON.
Checksums and sizes are made anew after a change, so that it reaches what reads fields.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Self
from zlib import crc32

from arguments import Arguments

from tagged_vmstate import jsonform
from tagged_vmstate.errors import VMStateError
from tagged_vmstate.frames import MAGIC
from tagged_vmstate.fuzz.mutate import changed_bytes, changed_snapshot
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.types import LEAF_TYPES
from tagged_vmstate.wire import pack_str, pack_uint

VECTORS: Final = Path(__file__).parent / "vectors"
MOST_BYTES: Final = 4_000
"""Vectors that are larger are left out: what is slow to read finds little."""
BATCH: Final = 500
HEADS: Final = {
    0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4),
    0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
FIRSTS: Final = {head: first for first, head in HEADS.items()}
FIX: Final = {"str": (0xA0, 31), "array": (0x90, 15), "map": (0x80, 15)}
SCALARS: Final = {0xCA: 4, 0xCB: 8, **{0xCC + n: 1 << n % 4 for n in range(8)}, **{0xD4 + n: 1 + (1 << n) for n in range(5)}}


@dataclass
class Node:
    """A MessagePack object. `width`: the bytes of its size, where that fits; `off`: by how much its size lies."""

    kind: str
    data: bytes = b""
    items: list[Node] = field(default_factory=list)
    width: int = 0
    off: int = 0

    def encode(self) -> bytes:
        if self.kind == "scalar":
            return self.data
        data = self.data + b"".join(item.encode() for item in self.items)
        size = {"array": len(self.items), "map": len(self.items) // 2, "ext": len(self.data) - 1}.get(self.kind, len(self.data))
        size = max(size + self.off, 0)
        if not self.width and self.kind in FIX and size <= FIX[self.kind][1]:
            return bytes((FIX[self.kind][0] | size,)) + data
        width = next(n for n in (1, 2, 4) if n >= self.width and (self.kind, n) in FIRSTS and size < 1 << 8 * n)
        return bytes((FIRSTS[self.kind, width],)) + size.to_bytes(width, "big") + data


def parsed(data: bytes, at: int) -> tuple[Node, int]:
    """The object at a place, and where it ends. Raises IndexError where there is none."""
    first = data[at]
    at += 1
    width = 0
    if first < 0x80 or first >= 0xE0:
        return Node("scalar", bytes((first,))), at
    if first < 0xC0:
        kind = "map" if first < 0x90 else "array" if first < 0xA0 else "str"
        size = first - FIX[kind][0]
    elif first in HEADS:
        kind, width = HEADS[first]
        size = int.from_bytes(data[at : at + width], "big")
        at += width
    else:
        end = at + SCALARS.get(first, 0)
        return Node("scalar", data[at - 1 : end]), end
    if kind in {"str", "bin", "ext"}:
        end = at + size + (kind == "ext")
        return Node(kind, data[at:end], width=width), end
    items = []
    for _ in range(size * (1 + (kind == "map"))):
        item, at = parsed(data, at)
        items.append(item)
    return Node(kind, items=items, width=width), at


def text(value: str | bytes) -> Node:
    return Node("str", value.encode() if isinstance(value, str) else value)


def scalar(value: bytes) -> Node:
    return Node("scalar", value)


@dataclass
class File:
    """A snapshot in pieces that can be changed; what follows from them is made anew."""

    version: Node
    attributes: Node
    frames: list[tuple[list[Node], list[Node]]]
    """Kind, device, instance and attributes; the fields."""
    items: int = 3
    count: int = 0

    def encode(self) -> bytes:
        header = MAGIC + self.version.encode() + self.attributes.encode()
        header += b"\xce" + crc32(header).to_bytes(4, "big")
        found, total = header, crc32(header[-4:])
        for head, fields in self.frames:
            payload = b"".join(each.encode() for each in fields)
            lead = b"\x96" + b"".join(each.encode() for each in head) + b"\xcf" + len(payload).to_bytes(8, "big")
            crc = crc32(payload, crc32(lead)).to_bytes(4, "big")
            found += lead + b"\xce" + crc + payload
            total = crc32(crc, total)
        end = bytes((0x90 + self.items,)) + pack_str("end") + pack_uint(max(len(self.frames) + self.count, 0))
        return found + end + b"\xce" + crc32(end, total).to_bytes(4, "big")


def opened(data: bytes) -> File:
    """A snapshot in pieces. Raises IndexError, RecursionError or ValueError for what has no such form."""
    if not data.startswith(MAGIC):
        raise ValueError("no snapshot")
    version, at = parsed(data, len(MAGIC))
    attributes, at = parsed(data, at)
    frames = []
    at += 5
    while data[at] == 0x96:
        at += 1
        head = []
        for _ in range(4):
            node, at = parsed(data, at)
            head.append(node)
        size = int.from_bytes(data[at + 1 : at + 9], "big")
        at += 14
        end = at + size
        if end > len(data):
            raise ValueError("a cut frame")
        fields = []
        while at < end:
            node, at = parsed(data[:end], at)
            fields.append(node)
        frames.append((head, fields))
    return File(version, attributes, frames)


_INTEGERS: Final = (0, 1, 2, 7, 8, 31, 32, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 16777216, 16777217, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
_NEGATIVE: Final = (-1, -2, -32, -33, -128, -129, -32768, -32769, -16777217, -(2**31), -(2**31) - 1, -(2**53) - 1, -(2**63))
_FLOATS: Final = (
    0.0,
    -0.0,
    1.0,
    0.1,
    1e15,
    1e16,
    1e-4,
    1e-5,
    5e-324,
    1.7976931348623157e308,
    16777217.0,
    3.4028234663852886e38,
    1e39,
    1e-45,
    123456789.125,
)
_BITS: Final = (0x7FF8 << 48, 0xFFF8 << 48, (0x7FF << 52) + 1, (0x7FF << 52) + (1 << 29), 0xFFF4 << 48, 0x7FF << 52, 0xFFF << 52)
_TYPES: Final = (*LEAF_TYPES, "struct", "mystery")
_STRINGS: Final[tuple[str | bytes, ...]] = (
    *_TYPES,
    "a",
    "b",
    "",
    "$hex",
    "$",
    "é",
    "\ufeff",
    "__proto__",
    "\0",
    "x" * 255,
    "x" * 256,
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc0\x80",
)


def _integer(random: Random) -> Node:
    number = random.choice(_INTEGERS) if random.random() < 0.7 else random.choice(_NEGATIVE)
    forms = [bytes((number % 256,))] if -32 <= number < 128 else []
    for size in (1, 2, 4, 8):
        level = size.bit_length() - 1
        if 0 <= number < 1 << 8 * size:
            forms.append(bytes((0xCC + level,)) + number.to_bytes(size, "big"))
        if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
            forms.append(bytes((0xD0 + level,)) + number.to_bytes(size, "big", signed=True))
    return scalar(random.choice(forms))


def _made(random: Random) -> Node:
    """An object of any kind, at an edge of what something may be."""
    kind = random.randrange(10)
    if kind < 3:
        return _integer(random)
    if kind == 3:
        if random.random() < 0.5:
            return scalar(struct.pack(">BQ", 0xCB, random.choice(_BITS)))
        return scalar(struct.pack(">BI", 0xCA, random.choice((*_BITS, *(0x7F800001 << 32, 0xFFC00000 << 32))) >> 32))
    if kind == 4:
        value = random.choice(_FLOATS)
        wide = random.random() < 0.5 or value in {1.7976931348623157e308, 1e39}
        return scalar(struct.pack(">Bd" if wide else ">Bf", 0xCB if wide else 0xCA, value))
    if kind == 5:
        return text(random.choice(_STRINGS))
    if kind == 6:
        return Node("bin", bytes(random.choice((0, 0, 1, 1, 255, 7)) for _ in range(random.choice((0, 1, 2, 4, 8, 16)))))
    if kind == 7:
        return scalar(bytes((random.choice((0xC0, 0xC0, 0xC2, 0xC3, 0xC1)),)))
    if kind == 8:
        return Node("array", items=[_made(random) for _ in range(random.choice((0, 0, 1, 2)))])
    return random.choice((Node("map"), Node("ext", b"\x05ab"), Node("map", items=[text(random.choice(_STRINGS)), _made(random)])))


def _field(random: Random) -> Node:
    name, kind = text(random.choice(("a", "b", "c", "m"))), random.choice(_TYPES)
    length = scalar(b"\xc0") if random.random() < 0.6 else _integer(random)
    return Node("array", items=[name, text(kind), length, scalar(random.choice((b"\0", b"\1"))), _made(random)])


def _lists(nodes: list[Node]) -> Iterator[list[Node]]:
    """The list itself, and all lists of items within it."""
    yield nodes
    for node in nodes:
        if node.items:
            yield from _lists(node.items)


def _change(nodes: list[Node], random: Random, others: Sequence[bytes]) -> None:  # noqa: PLR0912  # a line for each kind of change
    """One change in a list of objects, at any depth."""
    found = [each for each in _lists(nodes) if each]
    if not found:
        nodes.append(_field(random))
        return
    items = random.choice(found)
    at = random.randrange(len(items))
    node = items[at]
    kind = random.randrange(14)
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.insert(random.randrange(len(items) + 1), node)
    elif kind == 2:
        other = random.randrange(len(items))
        items[at], items[other] = items[other], items[at]
    elif kind in {3, 4, 5}:
        items[at] = _made(random)
    elif kind == 6:
        items[at], _ = parsed(random.choice(others), 0)
    elif kind == 7:
        node.width = random.choice((0, 1, 2, 4))
    elif kind == 8:
        node.off = random.choice((-1, 1))
    elif kind == 9 and node.data:
        node.data = changed_bytes(node.data, random)
    elif kind == 10:
        items.insert(at, _field(random))
    elif kind == 11 and len(items) == 5:
        place = random.choice((1, 2, 3, 3))
        items[place] = (text(random.choice(_TYPES)), _integer(random), scalar(random.choice((b"\0", b"\1", b"\2"))))[place - 1]
    elif kind == 12:
        items[at] = Node("array", items=[node] * random.choice((1, 1, 2)))
    else:
        for _ in range(random.choice((1, 60, 63, 64))):
            items[at] = Node(random.choice(("array", "array", "map")), items=[items[at]])
            if items[at].kind == "map":
                items[at].items.append(scalar(b"\xc0"))


def _change_frames(file: File, random: Random) -> None:
    frames = file.frames
    at = random.randrange(len(frames))
    head, fields = frames[at]
    kind = random.randrange(7)
    if kind == 0:
        del frames[at]
    elif kind == 1:
        frames.insert(random.randrange(len(frames) + 1), (list(head), list(fields)))
    elif kind == 2:
        other = random.randrange(len(frames))
        frames[at], frames[other] = frames[other], frames[at]
    elif kind == 3:
        head[0] = text(random.choice(("part", "section", "part", "section", "end", "x")))
    elif kind == 4:
        frames.insert(at, ([text("part"), *head[1:]], [each for each in fields if random.random() < 0.4]))
    else:
        place = random.randrange(4)
        head[place] = random.choice((text("dev"), _integer(random), _made(random), Node("map"), head[place]))
        head[place].width = random.choice((0, 0, 0, 1, 2))


def changed(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A file made from another."""
    kind = random.random()
    if kind < 0.04:
        return changed_bytes(data, random)
    if kind < 0.12:
        return changed_snapshot(data, random)
    try:
        file = opened(data)
    except (IndexError, ValueError, RecursionError):
        return changed_bytes(data, random)
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        kind = random.random()
        if kind < 0.06 and file.frames:
            _change_frames(file, random)
        elif kind < 0.2:
            around = [file.attributes]
            if file.frames and random.random() < 0.5:
                around = file.frames[random.randrange(len(file.frames))][0][3:]
            _change(around[0].items if random.random() < 0.9 else around, random, others)
            if len(around) == 1 and not file.frames:
                file.attributes = around[0]
        elif kind < 0.22:
            file.version = random.choice((_integer(random), scalar(b"\1"), scalar(b"\2")))
        elif kind < 0.23:
            file.count, file.items = random.choice(((1, 3), (-1, 3), (0, 4)))
        elif file.frames:
            _change(random.choice(file.frames)[1], random, others)
    try:
        return file.encode()
    except RecursionError:  # deep already, and put into something deep
        return changed_bytes(data, random)


def by_library(data: bytes) -> str:
    """What the library makes of a file: the SHA-256 of its JSON, or "refused"."""
    out = io.BytesIO()
    try:
        jsonform.to_json(Snapshot.read(data), out)
    except VMStateError:
        return "refused"
    return hashlib.sha256(out.getvalue()).hexdigest()


class Reader:
    """docs/reader.mjs in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", Path(__file__).parent / "batch.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def send(self, files: Sequence[bytes]) -> None:
        assert self._process.stdin
        for data in files:
            self._process.stdin.write(len(data).to_bytes(4, "big") + data)
        self._process.stdin.flush()

    def answers(self, count: int) -> list[str]:
        assert self._process.stdout
        return [self._process.stdout.readline().decode().rstrip("\n") for _ in range(count)]


def seeds() -> list[bytes]:
    """All vectors of version 1 that are small, the good ones more than once: what is bad already hides what a change does."""
    found = [path.read_bytes() for folder in (*["good"] * 8, "bad") for path in sorted((VECTORS / folder).glob("*.tvm"))]
    return [data for data in found if len(data) <= MOST_BYTES]


@dataclass
class Outcome:
    taken: int = 0
    refused: int = 0
    differ: list[tuple[bytes, str, str]] = field(default_factory=list)
    """Files that are not read alike: what the library made of each, and what the other reader did."""


def run(runs: int, seed: int) -> Outcome:
    """Read many files with both."""
    random = Random(seed)
    vectors = seeds()
    others: list[bytes] = []
    for data in vectors:
        with suppress(IndexError, ValueError, RecursionError):
            others += [node.encode() for _, fields in opened(data).frames for each in _lists(fields) for node in each][:50]
    outcome = Outcome()
    with Reader() as reader:
        for start in range(0, runs, BATCH):
            files = [changed(random.choice(vectors), random, others) for _ in range(min(BATCH, runs - start))]
            reader.send(files)
            for data, mine, other in zip(files, list(map(by_library, files)), reader.answers(len(files)), strict=True):
                outcome.refused += mine == "refused"
                outcome.taken += mine != "refused"
                if mine != other:
                    outcome.differ.append((data, mine, other))
    return outcome


def _main() -> int:
    arguments = Arguments(__doc__)
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    outcome = run(given.runs, given.seed)
    for data, mine, other in sorted(outcome.differ, key=lambda each: len(each[0]))[:20]:
        print(json.dumps({"library": mine, "reader.mjs": other, "file": data.hex()}))
    print(f"{outcome.taken} taken, {outcome.refused} refused, {len(outcome.differ)} read differently")
    return bool(outcome.differ)


if __name__ == "__main__":
    sys.exit(_main())
