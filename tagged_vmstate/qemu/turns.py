"""Turns of a device that nothing describes, joined where no other item of the stream comes between them.

How many turns a device takes depends on how fast a migration went; its state does not. So what it wrote in one go is one
value. Its turns are listed beside it, from which the same stream can be made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tagged_vmstate.errors import FormatError
from tagged_vmstate.qemu.ram import CHUNK_BYTES
from tagged_vmstate.qemu.stream import SECTION_FULL, Event, Head, Turn

_TURNS: Final = 1 << 12
"""Turns that are joined at most: their list goes into a frame's attributes, which are limited."""


@dataclass(frozen=True, slots=True)
class Joined:
    """Several turns of one device.

    Attributes:
        head: That of the first.
        body: The bytes of all.
        has_footer: Whether a footer closes the first.
        turns: For each turn the byte that announced it, how many bytes it has, and whether a footer closes it.
        last: The byte that announced the last.
    """

    head: Head
    body: bytes
    has_footer: bool
    turns: tuple[int, ...]
    last: int


def joined(events: Iterable[Event]) -> Iterator[Event | Joined]:
    """The events, with the turns of undescribed devices joined: no more bytes than a chunk of memory has, or one turn."""
    turns: list[tuple[Turn, bytes]] = []
    size = 0
    damage = None
    try:
        for event in events:
            body = event.body if isinstance(event, Turn) and event.head.type != SECTION_FULL else None
            goes_on = isinstance(body, bytes) and size + len(body) <= CHUNK_BYTES and len(turns) < _TURNS
            if turns and not (goes_on and isinstance(event, Turn) and event.head.label == turns[0][0].head.label):
                yield _joined(turns)
                turns, size = [], 0
            if isinstance(event, Turn) and isinstance(body, bytes):
                turns.append((event, body))
                size += len(body)
            else:
                yield event
    except FormatError as error:
        damage = error
    if turns:
        yield _joined(turns)
    if damage:
        raise damage


def _joined(turns: list[tuple[Turn, bytes]]) -> Turn | Joined:
    first = turns[0][0]
    if len(turns) == 1:
        return first
    numbers = tuple(each for turn, body in turns for each in (turn.head.type, len(body), int(turn.has_footer)))
    return Joined(first.head, b"".join(body for _, body in turns), first.has_footer, numbers, turns[-1][0].head.type)
