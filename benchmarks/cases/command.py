"""Whole processes of the command, from the start of Python to its end."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.measure import Effort, in_rounds
from benchmarks.processes import run, seconds
from benchmarks.qemu import PC, pc
from benchmarks.results import Row, Table, Unit

_EMPTY: Final = "python -c pass"
_COMMAND: Final = str(Path(sys.executable).parent / "tagged-vmstate")
_FASTER: Final = 2


@dataclass(frozen=True, slots=True)
class _Process:
    """A process: its command line, what its output must have, and what is more in its environment."""

    line: list[str]
    shows: bytes
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Run it. Raises BenchmarkError where it does not print what it should."""
        if self.shows not in run(self.line, self.env):
            raise BenchmarkError(f"`{' '.join(self.line)}` does not print {self.shows!r}")


def _processes(stream: str) -> dict[str, _Process]:
    completion = {"_TAGGED_VMSTATE_COMPLETE": "bash_complete"}
    return {
        _EMPTY: _Process([sys.executable, "-c", "pass"], b""),
        "--help": _Process([_COMMAND, "--help"], b"to-json"),
        "completion of `sh`": _Process([_COMMAND, "tagged-vmstate sh", ":="], b"show", completion),
        "info": _Process([_COMMAND, "info", stream], b"ps2kbd#0"),
        "show, one field": _Process([_COMMAND, "show", stream, "ps2kbd", "scancode_set"], b"int32"),
        "to-json": _Process([_COMMAND, "to-json", stream], b"ps2kbd"),
        "to-json of the .xz": _Process([_COMMAND, "to-json", str(PC)], b"ps2kbd"),
    }


def command(effort: Effort) -> list[Table]:
    """Milliseconds of each command."""
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "vm.mig"
        stream.write_bytes(pc())
        processes = _processes(str(stream))
        for each in processes.values():
            each.run()
        samples = in_rounds(lambda name: seconds(processes[name].run), list(processes), effort.runs * _FASTER)
    rows = tuple(Row(name, {"process": samples[name]}) for name in processes)
    title = f"The command on the stream of a PC ({PC.name}), a whole process each time"
    return [Table("command", title, Unit("ms", 1e-3), rows, _EMPTY)]
