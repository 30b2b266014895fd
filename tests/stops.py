"""A save that is killed at a system call of one's choice, or meets an error there: rows 20 and 22 of docs/reliability.md.

strace does both, to real calls. Between two calls nothing reaches the disk, so a stop before each one is a stop after each too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tagged_vmstate import Record, Section
from tagged_vmstate.snapshot import SnapshotWriter

SAVE: Final = """
import os, sys
from pathlib import Path
from tagged_vmstate.snapshot import Snapshot, write
snapshot = Snapshot.read(Path(sys.argv[1]).read_bytes())
os.access("begin", 0)
write(snapshot, sys.argv[2])
os.access("end", 0)
"""
NEEDED: Final = ("write", "fchmod", "fsync", "rename")
"""Calls that a save cannot do without."""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call of a save.

    Attributes:
        name: Such as ``write``.
        number: The how manieth of this name it is in the whole process.
    """

    name: str
    number: int


class Saves:
    """Saves over a file in a folder, each in a process under strace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "strace.log"
        self.path = folder / "place" / "vm.tvm"
        self.path.parent.mkdir()
        for name in ("old", "new"):
            with (folder / name).open("wb") as file, SnapshotWriter(file) as writer:
                for number in range(3):
                    writer.write(Section("d", number, (Record("b", "buffer", 20_000, name.encode() * 6_666 + b"xy"),)))
        self.renew()
        assert self._save() == 0, "strace is needed here"
        self.calls = [*self._calls()]
        assert {call.name for call in self.calls} > {*NEEDED, "openat", "close"}

    def renew(self) -> None:
        """Put the old file there."""
        self.path.write_bytes((self._folder / "old").read_bytes())

    def holds(self) -> str:
        """Which file is there: a whole one."""
        data = self.path.read_bytes()
        [found] = [name for name in ("old", "new") if data == (self._folder / name).read_bytes()]
        return found

    def names(self) -> list[str]:
        """What is in the folder of the file."""
        return os.listdir(self.path.parent)

    def stopped(self, call: Call) -> None:
        """Kill a save before a call."""
        assert self._save(f"{call.name}:signal=SIGKILL:when={call.number}") != 0
        assert [*self._calls()][-1] == call, "it was another call"

    def failing(self, call: Call, error: str, *, ever: bool) -> int:
        """Let a call fail, and all of its name after it, if for ever; the exit status."""
        return self._save(f"{call.name}:error={error}:when={call.number}{'+' if ever else ''}")

    def _save(self, injected: str = "") -> int:
        strace = ["strace", "-o", str(self._log), *(["-e", f"inject={injected}"] if injected else [])]
        line = [*strace, sys.executable, "-c", SAVE, str(self._folder / "new"), str(self.path)]
        return subprocess.run(line, capture_output=True, check=False, env={**os.environ, "PYTHONHASHSEED": "0"}).returncode

    def _calls(self) -> Iterator[Call]:
        """The calls of the save in the log."""
        counts: Counter[str] = Counter()
        is_saving = False
        for line in self._log.read_text(errors="replace").splitlines():
            found = re.match(r"(\w+)\(", line)
            if not found:
                continue
            counts[found[1]] += 1
            if '("end"' in line or line.startswith("exit_group"):
                return
            if is_saving:
                yield Call(found[1], counts[found[1]])
            is_saving = is_saving or '("begin"' in line


def stop_everywhere(folder: Path) -> str:
    """Kill a save before each of its calls, and save again."""
    saves = Saves(folder)
    held: Counter[str] = Counter()
    left = 0
    for call in saves.calls:
        saves.renew()
        saves.stopped(call)
        held[saves.holds()] += 1
        left += len(saves.names()) - 1
    assert set(held) == {"old", "new"}
    assert left, "a draft was left, for the next save to take away"
    saves.renew()
    assert saves.failing(Call("getppid", 1), "EIO", ever=False) == 0
    assert saves.names() == ["vm.tvm"]
    return (
        f"{len(saves.calls)} stops, before and after each system call: {held['old']} old files, {held['new']} new ones, all whole"
    )


def fail_everywhere(folder: Path) -> str:
    """Let each call of a save fail, once and for ever."""
    saves = Saves(folder)
    count = raised = 0
    renamed = [call.name for call in saves.calls].index("rename")
    for place, call in enumerate(saves.calls):
        for error, ever in (("ENOSPC", False), ("ENOSPC", True), ("EIO", False), ("EIO", True)):
            saves.renew()
            status, held, what = saves.failing(call, error, ever=ever), saves.holds(), (call, error, ever)
            assert status or held == "new", what
            if call.name in NEEDED:
                assert status, what
                assert held == ("old" if place <= renamed else "new"), what
            assert saves.names() == ["vm.tvm"], what
            count += 1
            raised += status != 0
    return f"{count} failing calls, {raised} of them errors of the save, every file whole, no draft left"
