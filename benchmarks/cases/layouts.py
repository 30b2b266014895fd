"""A device that another release saved: its fields in another order, two of them missing, one more at its default."""

from __future__ import annotations

from typing import Final

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.errors import BenchmarkError
from benchmarks.lineup import Entrant, absent, verified
from benchmarks.measure import Effort, Figure, Task, interleaved
from benchmarks.results import Row, Table, Unit
from benchmarks.shapes import Shape
from benchmarks.workload import Workload, device
from benchmarks.workload import foreign as foreign_shape

_OWN: Final = "own layout"
_FOREIGN: Final = "foreign layout"


def foreign(effort: Effort) -> list[Table]:
    """Decoding the own layout and a foreign one, in µs."""
    workload = device()
    shape, missing = foreign_shape(workload.shape)
    contestants = [each for each in CONTESTANTS.values() if each.evolves]
    entrants = [*verified(contestants, workload)]
    tasks = {}
    for each in entrants:
        tasks[each.contestant.name, _OWN] = Task(each.codec.decode, each.data)
        tasks[each.contestant.name, _FOREIGN] = Task(each.codec.decode, _foreign_bytes(each, workload, shape, missing))
    samples = interleaved(tasks, effort)
    rows = []
    for each in entrants:
        found = {column: samples[each.contestant.name, column] for column in (_OWN, _FOREIGN)}
        rows.append(
            Row(each.contestant.name, found, {"foreign / own": f"{Figure.ratio(found[_FOREIGN], found[_OWN]).median:.2f}"})
        )
    title = "Decoding one device from a foreign layout: reordered, two fields missing, one more at its default"
    return [Table("foreign", title, Unit("µs", 1e-6), tuple(rows), OURS, absent(contestants))]


def _foreign_bytes(entrant: Entrant, workload: Workload, shape: Shape, missing: set[str]) -> bytes:
    """What another release writes, once it has been loaded by this one: the same values, defaults where there are none."""
    other = entrant.contestant.codec(shape)
    values = {field.name: workload.values.get(field.name, field.default) for field in shape.fields}
    data = other.encode(other.make(values))
    expected = {
        field.name: field.default if field.name in missing else workload.values[field.name] for field in workload.shape.fields
    }
    if entrant.codec.plain(entrant.codec.decode(data)) != expected:
        raise BenchmarkError(f"{entrant.contestant.name} loads another release's layout as something else")
    return data
