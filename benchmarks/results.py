"""What a case found, before anyone prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from benchmarks.measure import Figure, Samples

Word: TypeAlias = "str | int | float"


@dataclass(frozen=True, slots=True)
class Unit:
    """What samples are told in: its name, and how much of what was measured one is."""

    name: str
    size: float


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant.

    Attributes:
        name: Its name.
        samples: Column -> what was measured in each round.
        words: Further columns.
    """

    name: str
    samples: Mapping[str, Samples]
    words: Mapping[str, Word] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """What a case found.

    Attributes:
        case: The name of the case.
        title: What was measured.
        unit: What the figures are in.
        rows: The contestants.
        reference: The row that all are compared with.
        notes: Sentences to stand below: who is missing, what to know.
    """

    case: str
    title: str
    unit: Unit
    rows: tuple[Row, ...]
    reference: str
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What was measured."""
        return tuple(self.rows[0].samples)

    def figure(self, row: Row, column: str) -> Figure:
        """A figure of a row, in the table's unit."""
        return Figure.of(tuple(each / self.unit.size for each in row.samples[column]))

    def ratio(self, row: Row, column: str) -> Figure:
        """How many times the reference that is."""
        reference = next(each for each in self.rows if each.name == self.reference)
        return Figure.ratio(row.samples[column], reference.samples[column])
