"""An array of numbers in what holds it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from benchmarks.cases.states import DECODE, ENCODE, timed
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.lineup import absent, verified
from benchmarks.measure import Effort
from benchmarks.results import Row, Table, Unit
from benchmarks.workload import HOLDERS, block

LENGTH: Final = 1 << 18
_TITLES: Final = {"list": "a list", "array": "an array.array", "numpy": "an array of numpy"}
_SLOWER: Final = 4
"""Milliseconds instead of microseconds: so many times fewer rounds."""


def arrays(effort: Effort) -> list[Table]:
    """1 MiB of uint32 in each holder, in ms."""
    holders = [holder for holder in HOLDERS if holder != "numpy" or find_spec(holder)]
    found = [_array(holder, effort) for holder in holders]
    if len(holders) < len(HOLDERS):
        found[-1] = replace(found[-1], notes=(*found[-1].notes, "Not measured: arrays of numpy, because numpy is not installed."))
    return found


def _array(holder: str, effort: Effort) -> Table:
    contestants = [each for each in CONTESTANTS.values() if holder in each.holders]
    workload = block(holder, LENGTH)
    entrants = [*verified(contestants, workload)]
    samples = timed(entrants, workload, replace(effort, rounds=max(2, effort.rounds // _SLOWER)))
    rows = [
        Row(
            each.contestant.name,
            {column: samples[each.contestant.name, column] for column in (ENCODE, DECODE)},
            {"bytes": len(each.data)},
        )
        for each in entrants
    ]
    notes = () if holder == "list" else ("Generated code hands over its bytes, and loads them into memory of their own.",)
    title = f"1 MiB of uint32 as {_TITLES[holder]}"
    return Table("array", title, Unit("ms", 1e-3), tuple(rows), OURS, (*notes, *absent(contestants)))
