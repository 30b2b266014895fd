"""How many instructions the snapshot case takes: figures that no other process disturbs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Final

from benchmarks.cases.states import DECODE, ENCODE
from benchmarks.contestants import CONTESTANTS, FIELD_BY_FIELD, MSGSPEC, OURS, STRAIGHT, STRUCT, YARDSTICK
from benchmarks.errors import BenchmarkError
from benchmarks.lineup import absent
from benchmarks.measure import Effort
from benchmarks.processes import ROOT, job
from benchmarks.results import Row, Table, Unit
from benchmarks.workload import machine

COUNT: Final = 10
"""Calls; one run without any is subtracted, with all that Python does to start."""
_COUNTED: Final = (OURS, STRAIGHT, FIELD_BY_FIELD, MSGSPEC, STRUCT, YARDSTICK)
_VALGRIND: Final = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def instructions(_effort: Effort) -> list[Table]:
    """Instructions a field. Raises BenchmarkError without valgrind."""
    if shutil.which(_VALGRIND[0]) is None:
        raise BenchmarkError("valgrind is not installed: the case `instructions` needs it")
    contestants = [CONTESTANTS[name] for name in _COUNTED if name in CONTESTANTS]
    rows = [Row(each.name, _of(each.name)) for each in contestants if each.missing() is None]
    unit = Unit("instructions a field", machine().shape.count())
    return [Table("instructions", "A machine of 1289 fields", unit, tuple(rows), OURS, absent(contestants))]


def _of(name: str) -> dict[str, tuple[float, ...]]:
    start = _counted(name, ENCODE, 0)
    return {way: ((_counted(name, way, COUNT) - start) / COUNT,) for way in (ENCODE, DECODE)}


def _counted(name: str, way: str, count: int) -> int:
    """Instructions of a process that calls so many times."""
    line = [*_VALGRIND, *job("repeat", name, way, count)]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, check=True)
    return int(re.findall(r"Collected : (\d+)", done.stderr.decode())[0])
