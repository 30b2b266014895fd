"""What the templates of this library's fast path cost: made once for a table, after how many uses are they earned back?"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.classes import tagged
from benchmarks.measure import Effort, Figure, Task, interleaved
from benchmarks.results import Row, Table, Unit
from benchmarks.shapes import make
from benchmarks.workload import machine
from tagged_vmstate import codec
from tagged_vmstate.prepared import Prepared
from tagged_vmstate.records import decode_all
from tagged_vmstate.saver import saver
from tagged_vmstate.shape import Shape
from tagged_vmstate.wire import Cursor, joined

_SAVE: Final = "save"
_LOAD: Final = "load"
_FIELD_BY_FIELD: Final = "field by field, once"
_PREPARE: Final = "templates, made once"
_BY_TEMPLATE: Final = "by template, once"


def prepare(effort: Effort) -> list[Table]:
    """Saving and loading the devices of the machine: by the loops, making the templates, by the templates. ns a field."""
    workload = machine()
    classes = tagged(workload.shape)
    devices = [(each.name, each.struct) for each in workload.shape.fields if each.struct]
    states = [make(classes, shape, workload.values[name]) for name, shape in devices]
    pairs: list[tuple[Any, Any]] = [(type(state).__vmstate__, state) for state in states]
    data = [joined(codec.save(*pair)) for pair in pairs]
    ready = [Prepared(table) for table, _ in pairs]
    for each, fields in zip(ready, data, strict=True):
        each.learn(Cursor(fields), None)
    savers = [saver(Shape(table)) for table, _ in pairs]

    def learn(tables: list[Any]) -> None:
        for table, fields in zip(tables, data, strict=True):
            Prepared(table).learn(Cursor(fields), None)

    tables = [table for table, _ in pairs]
    loader = codec.Loader("benchmark")
    tasks = {
        (_FIELD_BY_FIELD, _SAVE): Task(lambda pairs: [codec.save(*pair) for pair in pairs], pairs),
        (_PREPARE, _SAVE): Task(lambda tables: [saver(Shape(table)) for table in tables], tables),
        (_BY_TEMPLATE, _SAVE): Task(lambda savers: [save(state) for save, (_, state) in zip(savers, pairs, strict=True)], savers),
        (_FIELD_BY_FIELD, _LOAD): Task(
            lambda data: [loader.load(table, decode_all(fields)) for table, fields in zip(tables, data, strict=True)], data
        ),
        (_PREPARE, _LOAD): Task(learn, tables),
        (_BY_TEMPLATE, _LOAD): Task(
            lambda ready: [each.load(fields, whole=False) for each, fields in zip(ready, data, strict=True)], ready
        ),
    }
    samples = interleaved(tasks, effort)
    names = (_FIELD_BY_FIELD, _PREPARE, _BY_TEMPLATE)
    rows = tuple(Row(name, {column: samples[name, column] for column in (_SAVE, _LOAD)}) for name in names)
    title = "What the templates of the fast path cost: 32 devices and 53 structs"
    unit = Unit("ns a field", 1e-9 * workload.shape.count())
    earned = {column: _earned(*(samples[name, column] for name in names)) for column in (_SAVE, _LOAD)}
    note = f"Earned back after {earned[_SAVE]:.0f} saves and {earned[_LOAD]:.0f} loads."
    return [Table("prepare", title, unit, rows, _FIELD_BY_FIELD, (note,))]


def _earned(loops: tuple[float, ...], made: tuple[float, ...], templates: tuple[float, ...]) -> float:
    slow, once, fast = (Figure.of(each).median for each in (loops, made, templates))
    return once / (slow - fast)
