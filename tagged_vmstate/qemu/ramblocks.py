"""The memory blocks of a snapshot beside those of another machine: which go over, and in which size.

QEMU lists the blocks of its memory, and their sizes, ahead of all pages. It refuses a block that its machine lacks ("Unknown
ramblock"), and one of another size than its machine's ("Size mismatch: NAME: 0x... != 0x...") unless it can resize it
itself. A block that is not in the stream stays as the machine starts with it. So a block can go over in the size of the
other machine: what is cut off must be zeros, and what is added is written as zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        is_loss: It cannot go over unless somebody says so.
    """

    name: str
    said: str
    size: int | None
    is_loss: bool = False


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
    asked = {name for name in given if any(pattern.covers(LABEL, (name,)) for pattern in resized)}
    cut = {name: wanted[name] for name in asked & wanted.keys() if wanted[name] < given[name]}
    in_use = _first_used((section for section, _ in ours.memory()), cut)
    for name, size in given.items():
        other = wanted.get(name)
        if other is None:
            yield Change(name, f"{size} bytes of memory", None, is_loss=True)
        elif other != size and resizable(name):
            yield Change(name, f"the reference has {other} bytes, this one {size}", size)
        elif other != size:
            mismatch = f"Size mismatch: {name}: {size:#x} != {other:#x}"
            if name not in asked:
                does = f"cuts it, where it ends with {size - other:#x} zeros" if other < size else "fills it up with zeros"
                yield Change(name, f"{mismatch}; --resize-block '{name}' {does}", None, is_loss=True)
            elif name in in_use:
                yield Change(name, f"{mismatch}; it cannot be cut: the byte at {in_use[name]:#x} is not zero", None, is_loss=True)
            else:
                does = "the rest is zeros" if other > size else "only zeros are cut off"
                yield Change(name, f"{size} bytes to {other}: {does}", other)


def _first_used(memory: Iterable[Section], cut: Mapping[str, int]) -> dict[str, int]:
    """Name -> the first byte that is not zero from some place of a block on; none where all are."""
    found = {}
    for whole in overview(memory) if cut else ():
        for name, start in cut.items():
            place = whole.memory[name].first_used(start) if name in whole.memory else None
            if place is not None:
                found[name] = place
    return found
