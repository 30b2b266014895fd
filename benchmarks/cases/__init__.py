"""What is measured, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import arrays, buffer, command, instructions, layouts, preparing, states, stream
from benchmarks.measure import Effort
from benchmarks.results import Table


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        name: What `--only` calls it.
        about: What it measures, in a few words.
        run: Measures it.
        is_usual: Whether it runs unless asked for.
    """

    name: str
    about: str
    run: Callable[[Effort], list[Table]]
    is_usual: bool = True


CASES: Final = {
    case.name: case
    for case in (
        Case("snapshot", "a machine of 32 devices and 1289 fields, to bytes and back", states.snapshot),
        Case("device", "one device of 50 fields, to bytes and back", states.device),
        Case("foreign", "one device from another release's layout", layouts.foreign),
        Case("prepare", "what the templates of the fast path cost, and when they are earned back", preparing.prepare),
        Case("array", "1 MiB of uint32 as list, array.array and numpy array", arrays.arrays),
        Case("buffer", "a buffer of 256 MiB to a file and back, with peak memory", buffer.buffer),
        Case("command", "whole processes of the command", command.command),
        Case("stream", "import of a QEMU stream of 1 GiB, beside cp", stream.stream),
        Case(
            "instructions", "instructions of the snapshot case, counted by callgrind", instructions.instructions, is_usual=False
        ),
    )
}
