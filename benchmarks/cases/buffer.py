"""A big buffer to a file and from it, each in a process of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.files import WAYS
from benchmarks.lineup import absent
from benchmarks.measure import Effort, Samples, in_rounds
from benchmarks.processes import MIB, told
from benchmarks.results import Row, Table, Unit

Key: TypeAlias = tuple[str, str]
"""A contestant, and one of `_WAYS`."""
SIZE: Final = 256 * MIB
_WAYS: Final = ("save", "load")
_SLOWER: Final = 2


def buffer(effort: Effort) -> list[Table]:
    """Milliseconds and extra memory of a save and of a load."""
    size = int(SIZE * effort.scale)
    unable = [CONTESTANTS[name] for name in WAYS if name in CONTESTANTS and CONTESTANTS[name].missing()]
    names = [name for name in WAYS if name not in {each.name for each in unable}]
    samples, memory = _measured(names, size, max(2, effort.runs // _SLOWER))
    rows = [
        Row(
            name,
            {way: samples[name, way] for way in _WAYS},
            {f"{way}, extra MiB": f"{max(memory[name, way]) / MIB:.1f}" for way in _WAYS},
        )
        for name in names
    ]
    title = f"A buffer of {size // MIB} MiB to a file, synced to the disk, and from it"
    notes = ("Extra memory is the peak of the process beside the buffer itself.", *absent(unable))
    return [Table("buffer", title, Unit("ms", 1e-3), tuple(rows), OURS, notes)]


def _measured(names: list[str], size: int, rounds: int) -> tuple[dict[Key, Samples], dict[Key, list[int]]]:
    """Seconds and extra bytes of each way, once every buffer came back as it was."""
    memory: dict[Key, list[int]] = {(name, way): [] for name in names for way in _WAYS}
    with tempfile.TemporaryDirectory() as folder:

        def measure(key: Key) -> float:
            name, way = key
            found = told(way, name, size, Path(folder) / str(names.index(name)))
            memory[key].append(found["memory"])
            return float(found["seconds"])

        for key in memory:
            measure(key)
        return in_rounds(measure, list(memory), rounds), memory
