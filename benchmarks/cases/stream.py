"""A big QEMU stream imported, beside a copy of the same file."""

from __future__ import annotations

import filecmp
import json
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.measure import Effort, Figure, in_rounds
from benchmarks.processes import MIB, job, run, seconds
from benchmarks.qemu import write_stream
from benchmarks.results import Row, Table, Unit

MEMORY: Final = 1024 * MIB
_COPY: Final = "cp"
_IMPORTS: Final = {"import_stream into a file": "import", "the command `import`, synced": "command"}
_SLOWER: Final = 2


def stream(effort: Effort) -> list[Table]:
    """Seconds of whole processes, and their peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "vm.mig", Path(folder) / "vm.tvm"
        write_stream(source, int(MEMORY * effort.scale))
        lines = _lines(str(source), str(target))
        memory = {name: _verified(lines[name], source, target) for name in _IMPORTS}

        def once(name: str) -> float:
            target.unlink(missing_ok=True)
            return seconds(lambda: run(lines[name]))

        samples = in_rounds(once, list(lines), max(2, effort.runs // _SLOWER))
        size = source.stat().st_size
    rows = []
    for name, found in samples.items():
        peak = f"{memory[name] / MIB:.0f}" if name in memory else "-"
        rows.append(Row(name, {"process": found}, {"MB/s": round(size / 1e6 / Figure.of(found).median), "peak MiB": peak}))
    title = f"A QEMU stream of {size / MIB:.0f} MiB imported, a PC's with {MEMORY * effort.scale / MIB:.0f} MiB of memory"
    return [Table("stream", title, Unit("s", 1), tuple(rows), _COPY)]


def _lines(source: str, target: str) -> dict[str, list[str]]:
    copy = ["cp", "--reflink=never", source, target]
    return {
        _COPY: copy,
        "cp, then sync": ["sh", "-c", '"$@" && sync "$4"', "sh", *copy],
        **dict(zip(_IMPORTS, (job("import", source, target), job("command", "import", source, "-o", target)), strict=True)),
    }


def _verified(line: list[str], source: Path, target: Path) -> int:
    """Import once, and export again: the peak memory of the import. Raises BenchmarkError where another stream comes out."""
    peak: int = json.loads(run(line))["memory"]
    again = source.with_suffix(".again")
    run(job("command", "export", target, "-o", again))
    if not filecmp.cmp(source, again, shallow=False):
        raise BenchmarkError("the stream that was imported comes out as another one")
    again.unlink()
    return peak
