"""Work done in a process of its own: ``python -m benchmarks.jobs JOB ARGUMENT...``; it prints what it found as JSON.

Memory is what the kernel saw at most of this process, nothing of its parent.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.contestants import CONTESTANTS
from benchmarks.errors import BenchmarkError
from benchmarks.files import WAYS
from benchmarks.workload import buffer, buffer_shape, machine

_SELF: Final = Path("/proc/self")


def save(name: str, size: str, path: str) -> dict[str, Any]:
    """Save a big buffer: seconds, and the bytes of memory that it took beside the buffer."""
    workload = buffer(int(size))
    way = WAYS[name](workload.shape)
    state = way.make(workload.values)
    _, seconds, memory = _cost(lambda: way.save(state, Path(path)))
    return {"seconds": seconds, "memory": memory}


def load(name: str, size: str, path: str) -> dict[str, Any]:
    """Load it: the same. Raises BenchmarkError where it is another."""
    way = WAYS[name](buffer_shape(int(size)))
    state, seconds, memory = _cost(lambda: way.load(Path(path)))
    if way.plain(state) != buffer(int(size)).values:
        raise BenchmarkError(f"{name} loads another buffer than it saved")
    return {"seconds": seconds, "memory": memory - way.is_new * int(size)}


def import_stream(stream: str, path: str) -> dict[str, Any]:
    """Import a QEMU stream into a file: bytes of memory in all."""
    from tagged_vmstate import SnapshotWriter
    from tagged_vmstate.qemu import bridge

    with Path(stream).open("rb") as source, Path(path).open("wb") as target:
        sections = bridge.import_stream(source)
        with SnapshotWriter(target, sections.raw_attributes) as writer:
            for section in sections:
                writer.write(section)
    return {"memory": _memory("VmHWM")}


def command(*arguments: str) -> dict[str, Any]:
    """Run the command: bytes of memory in all."""
    from tagged_vmstate.__main__ import main

    sys.argv = ["tagged-vmstate", *arguments]
    try:
        main()
    except SystemExit as done:
        if done.code:
            raise
    return {"memory": _memory("VmHWM")}


def repeat(name: str, way: str, count: str) -> dict[str, Any]:
    """Encode or decode a machine so many times, under a program that counts instructions."""
    workload = machine()
    codec = CONTESTANTS[name].codec(workload.shape)
    state = codec.make(workload.values)
    data = codec.encode(state)
    gc.disable()
    for _ in range(int(count)):
        codec.encode(state) if way == "encode" else codec.decode(data)
    return {}


def _cost(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What some work returns, its seconds, and the bytes of memory at most beyond what was there before."""
    (_SELF / "clear_refs").write_text("5")  # the peak so far is forgotten
    before = _memory("VmHWM")
    start = perf_counter()
    found = work()
    seconds = perf_counter() - start
    return found, seconds, _memory("VmHWM") - before


def _memory(key: str) -> int:
    """A figure of this process's memory, in bytes."""
    return int(re.findall(rf"^{key}:\s*(\d+) kB$", (_SELF / "status").read_text(), re.MULTILINE)[0]) * 1024


JOBS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "save": save,
    "load": load,
    "import": import_stream,
    "command": command,
    "repeat": repeat,
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
