"""What differs between texts, line by line, as a unified diff has it.

difflib takes time that grows with the product of the lines, and worse. So what is equal at both ends is left out first, and all
texts of one command share a budget: beyond it the lines between are one change, which is right, if not short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Final, Literal, TypeAlias

CONTEXT: Final = 3
"""Equal lines that are shown around a change."""
BUDGET: Final = 1 << 22
"""Lines of the one text times lines of the other that are compared, over all texts: two texts of 2,048 lines, or 40 of 320."""

Sign: TypeAlias = Literal["@", " ", "-", "+"]
"""``@`` for the head of a hunk."""
Signed: TypeAlias = tuple[Sign, str]
_Opcode: TypeAlias = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """How one text becomes another.

    Attributes:
        lines: Those of a unified diff, each with its sign ahead of it.
    """

    lines: tuple[Signed, ...]

    def count(self, sign: Sign) -> int:
        """How many lines have a sign."""
        return sum(found == sign for found, _ in self.lines)


class TextDiff:
    """Compares texts, as many as there are.

    Args:
        budget: For all of them together; see `BUDGET`.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self._left = budget

    def changes(self, old: str, new: str) -> Changes:
        """What differs between two texts."""
        sides = old.split("\n"), new.split("\n")
        start = _equal(*sides)
        end = _equal(*(side[start:][::-1] for side in sides))
        first, last = max(start - CONTEXT, 0), max(end - CONTEXT, 0)
        ours, theirs = (side[first : len(side) - last] for side in sides)
        groups = self._groups(ours, theirs, start - first, end - last)
        return Changes(tuple(line for group in groups for line in _hunk(group, ours, theirs, first)))

    def _groups(self, old: Sequence[str], new: Sequence[str], before: int, after: int) -> Iterator[Sequence[_Opcode]]:
        """The hunks of two texts of which some lines are known to be equal at the beginning and at the end."""
        work = len(old) * len(new)
        if work <= self._left:
            self._left -= work
            yield from SequenceMatcher(None, old, new).get_grouped_opcodes(CONTEXT)
            return
        ends = len(old) - after, len(new) - after
        yield (
            ("equal", 0, before, 0, before),
            ("replace", before, ends[0], before, ends[1]),
            ("equal", ends[0], len(old), ends[1], len(new)),
        )


def _equal(old: Sequence[str], new: Sequence[str]) -> int:
    """How many lines are equal from the beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _hunk(group: Sequence[_Opcode], old: Sequence[str], new: Sequence[str], offset: int) -> Iterator[Signed]:
    _, low, _, new_low, _ = group[0]
    _, _, high, _, new_high = group[-1]
    yield "@", f"@@ -{offset + low + 1},{high - low} +{offset + new_low + 1},{new_high - new_low} @@"
    for tag, start, end, new_start, new_end in group:
        if tag == "equal":
            yield from _signed(" ", old[start:end])
        else:
            yield from _signed("-", old[start:end])
            yield from _signed("+", new[new_start:new_end])


def _signed(sign: Sign, lines: Sequence[str]) -> Iterator[Signed]:
    return ((sign, line) for line in lines)
