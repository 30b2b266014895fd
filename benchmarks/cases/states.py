"""A machine, and a single device: states to bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.lineup import Entrant, absent, verified
from benchmarks.measure import Effort, Samples, Task, interleaved
from benchmarks.results import Row, Table, Unit, Word
from benchmarks.workload import Workload, machine
from benchmarks.workload import device as one_device

ENCODE: Final = "encode"
DECODE: Final = "decode"


def snapshot(effort: Effort) -> list[Table]:
    """All devices of a machine, in ns a field."""
    workload = machine()
    fields = workload.shape.count()
    buffers = sum(field.length or 0 for field in workload.shape.leaves())
    entrants = [*verified(CONTESTANTS.values(), workload)]
    samples = timed(entrants, workload, effort)
    rows = [
        Row(
            each.contestant.name,
            _of(samples, each),
            {"bytes a field": round((len(each.data) - buffers) / fields, 1), **_said(each)},
        )
        for each in entrants
    ]
    title = f"A machine: {len(workload.shape.fields)} devices, {fields} fields"
    notes = ("Bytes a field are without the contents of the buffers.", *absent(CONTESTANTS.values()))
    return [Table("snapshot", title, Unit("ns a field", 1e-9 * fields), tuple(rows), OURS, notes)]


def device(effort: Effort) -> list[Table]:
    """One device, in µs; both ways in one figure too."""
    workload = one_device()
    entrants = [*verified(CONTESTANTS.values(), workload)]
    samples = timed(entrants, workload, effort)
    rows = []
    for each in entrants:
        found = _of(samples, each)
        both = tuple(map(sum, zip(found[ENCODE], found[DECODE], strict=True)))
        rows.append(Row(each.contestant.name, {**found, "both": both}, {"bytes": len(each.data), **_said(each)}))
    title = f"One device of {workload.shape.count()} fields"
    return [Table("device", title, Unit("µs", 1e-6), tuple(rows), OURS, absent(CONTESTANTS.values()))]


def timed(entrants: list[Entrant], workload: Workload, effort: Effort) -> dict[tuple[str, str], Samples]:
    """Seconds that each contestant takes to encode and to decode, in each round."""
    tasks = {}
    for each in entrants:
        tasks[each.contestant.name, ENCODE] = Task(each.codec.encode, each.codec.make(workload.values))
        tasks[each.contestant.name, DECODE] = Task(each.codec.decode, each.data)
    return interleaved(tasks, effort)


def _of(samples: Mapping[tuple[str, str], Samples], entrant: Entrant) -> dict[str, Samples]:
    return {column: samples[entrant.contestant.name, column] for column in (ENCODE, DECODE)}


def _said(entrant: Entrant) -> dict[str, Word]:
    return {"in the bytes": entrant.contestant.names, "checked by a load": entrant.contestant.checks}
