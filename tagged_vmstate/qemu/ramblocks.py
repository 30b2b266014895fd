"""The memory blocks of a snapshot beside those of another machine: which go over, and in which size.

QEMU lists the blocks of its memory, and their sizes, ahead of all pages. It refuses a block that its machine lacks ("Unknown
ramblock"), and one of another size than its machine's ("Size mismatch: NAME: 0x... != 0x...") unless it can resize it
itself. A block that is not in the stream stays as the machine starts with it. So a block can go over in the size of the
other machine: what is cut off must be zeros, and what is added is written as zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final

from tagged_vmstate.frames import label
from tagged_vmstate.overview import overview
from tagged_vmstate.paths import Pattern
from tagged_vmstate.qemu import stream
from tagged_vmstate.qemu.export import Origin
from tagged_vmstate.sections import Section

LABEL: Final = label(stream.RAM, 0)
"""The section that all blocks are in."""
_RESIZABLE: Final = "/rom@"
"""Blocks of tables for the firmware, which QEMU takes in any size."""


@dataclass(frozen=True, slots=True)
class Change:
    """A block that does not go over as it is.

    Attributes:
        name: Its name.
        said: What it is about, in words.
        size: Bytes that it has in the new stream; None where it is not in it.
        is_loss: It cannot go over, unless `--drop` names it.
        way: What would let it.
    """

    name: str
    said: str
    size: int | None
    is_loss: bool = False
    way: str = ""


def listed(origin: Origin) -> dict[str, int]:
    """Name -> bytes of each block that a stream lists."""
    firsts = (section for section, said in origin.memory() if "total" in said)
    return {record.name: record.length or 0 for section in firsts for record in section.records()}


def resizable(name: str) -> bool:
    """Whether QEMU takes a block in any size."""
    return name.startswith(_RESIZABLE)


def changes(ours: Origin, like: Origin, resized: Sequence[Pattern]) -> Iterator[Change]:
    """What happens to the blocks that are not the same in both.

    Args:
        ours: The snapshot.
        like: The reference.
        resized: The blocks that are to have the sizes of the reference.
    """
    given, wanted = listed(ours), listed(like)
    shorter = {name: other for name, other in wanted.items() if other < given.get(name, 0) and not resizable(name)}
    in_use = _first_used((section for section, _ in ours.memory()), shorter)
    for name, size in given.items():
        other = wanted.get(name)
        if other is None:
            yield Change(name, f"{size} bytes of memory", None, is_loss=True)
        elif other != size and resizable(name):
            yield Change(name, f"the reference has {other} bytes, this one {size}", size)
        elif other != size:
            is_asked = any(pattern.covers(LABEL, (name,)) for pattern in resized)
            yield _resized(name, size, other, in_use.get(name), is_asked=is_asked)


def _resized(name: str, size: int, other: int, in_use: int | None, *, is_asked: bool) -> Change:
    """A block of another size."""
    mismatch = f"Size mismatch: {name}: {size:#x} != {other:#x}"
    if in_use is not None:
        return Change(name, f"{mismatch}; it cannot be cut: the byte at {in_use:#x} is not zero", None, is_loss=True)
    if not is_asked:
        does = f"cuts off its last {size - other:#x} bytes, which are zeros" if other < size else "fills it up with zeros"
        return Change(name, mismatch, None, is_loss=True, way=f"--resize-block {quote(name)} {does}")
    does = "the rest is zeros" if other > size else "only zeros are cut off"
    return Change(name, f"{size} bytes to {other}: {does}", other)


def _first_used(memory: Iterable[Section], cut: Mapping[str, int]) -> dict[str, int]:
    """Name -> the first byte that is not zero from some place of a block on; none where all are."""
    found = {}
    for whole in overview(memory) if cut else ():
        for name, start in cut.items():
            place = whole.memory[name].first_used(start) if name in whole.memory else None
            if place is not None:
                found[name] = place
    return found
