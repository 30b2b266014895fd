"""A real QEMU under QMP: started, asked, ended. A missing one fails, with what to install."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PACKAGES = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm", "arm": "qemu-system-arm"}

SPINNING_BIOS = (b"\xf4\xeb\xfd" + bytes(13)).rjust(65536, b"\0")
"""`hlt; jmp .-1` at the reset vector."""

WRITING_BIOS = (
    # 16-bit: ds = 0x1000; di = 0; loop: inc word [di]; add di, 2; jmp loop
    (b"\xb8\x00\x10\x8e\xd8\x31\xff\xff\x05\x83\xc7\x02\xeb\xf9".ljust(0xFFF0, b"\0") + b"\xe9\x0d\x00").ljust(65536, b"\0")
)
"""Writes to 64 KiB of memory without end; the reset vector jumps to the start of the last 64 KiB."""


COUNTING_BIOS = (
    bytes.fromhex(
        "b800108ed8baf80c66b81028008066efbafc0c66b800c0000066efbaf80c66b80428008066efbafc0cb80500efba12c0b003eeba0ec031c0"
        "efba0cc0ed89c3c1e3048dbf051001c701c781e700f0ba08c066b81000000066efba12c0b007ee66c70600000080010066c7060800100000"
        "0066c7060c000100010066c70610000082010066c70618000002000066c7061c000100020066c70620000081010066c70628000100000066"
        "c7062c0002000000c606008001c60608800166ff060082ff4702ba10c031c0ef8b45023b470275f8ebe8"
    ).ljust(0xFFF0, b"\0")
    + b"\xe9\x0d\x00"
).ljust(65536, b"\0")
"""data/counting.s: counts on a virtio disk in PCI slot 5 without end."""


class Machine:
    """`with Machine("x86_64", "-M", "pc") as machine: machine("query-status")`; an architecture, or the path of a QEMU."""

    def __init__(self, architecture: str, folder: Path, *arguments: object, nodefaults: bool = True) -> None:
        program = shutil.which(architecture if "/" in architecture else f"qemu-system-{architecture}")
        assert program, (
            f"qemu-system-{architecture} is not installed: `apt-get install {PACKAGES.get(architecture, 'qemu-system')}`"
        )
        self._socket = folder / "qmp.sock"
        self.second = folder / "second.sock"
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        plain = [*(["-nodefaults"] if nodefaults else []), "-display", "none", "-serial", "none", "-accel", "tcg"]
        qmp = ["-qmp", f"unix:{self._socket},server=on,wait=off", "-qmp", f"unix:{self.second},server=on,wait=off"]
        qmp += ["-qmp", f"tcp:127.0.0.1:{self.port},server=on,wait=off"]
        self._process = subprocess.Popen([program, *plain, *qmp, *map(str, arguments)], stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._connect(stack)
            self("qmp_capabilities")
            self._open = stack.pop_all()
        return self

    def _connect(self, stack: contextlib.ExitStack) -> None:
        self._connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._connection.settimeout(30)
        while True:
            try:
                self._connection.connect(str(self._socket))
            except OSError:
                assert self._process.poll() is None, self._process.communicate()[1].decode()
                time.sleep(0.02)
            else:
                break
        self._lines = stack.enter_context(self._connection.makefile("rb"))
        greeting = self._lines.readline()
        assert b"QMP" in greeting, self._process.communicate()[1].decode()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def __call__(self, command: str, **arguments: object) -> Any:
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (answer := json.loads(self._lines.readline())):
            assert "error" not in answer, f"{command}: {answer}"
        return answer["return"]

    def monitor(self, line: str) -> str:
        """What the human monitor answers."""
        return str(self("human-monitor-command", **{"command-line": line}))

    def kill(self) -> None:
        """As the machine room's fuse does."""
        self._process.kill()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def registers(self) -> str:
        """The first processor's, once the incoming stream is there."""
        for _ in range(500):
            if self("query-status")["status"] != "inmigrate":
                break
            time.sleep(0.02)
        assert self("query-status")["status"] in {"paused", "prelaunch", "postmigrate"}
        return self.monitor("info registers")

    def migrate(self, uri: str) -> None:
        """Migrates, and waits until it is done."""
        self("migrate", uri=uri)
        while (found := self("query-migrate")).get("status") != "completed":
            assert found.get("status") not in {"failed", "cancelled"}, found
            time.sleep(0.02)

    def load(self, stream: Path) -> str:
        """Loads a stream, for a machine started with `-incoming defer`; QEMU's words where it refuses, else nothing."""
        with contextlib.suppress(OSError, ValueError):  # QEMU ends when a load fails
            self("migrate-incoming", uri=f"exec:cat {shlex.quote(str(stream))}")
            while self("query-status")["status"] == "inmigrate":
                time.sleep(0.02)
            return ""
        assert self._process.stderr
        return self._process.stderr.read().decode()
