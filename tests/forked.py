"""The command, in processes forked from one that has imported it: a tenth of the time that a new interpreter takes.

    python forked.py DESCRIPTOR

The server is for one socket: of each message it gets, with descriptors 0 to 2, it makes a process, and answers with its number and
in the end its exit status.
"""

from __future__ import annotations

import atexit
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_READ = ("PYTHON", "LC_", "LANG", "COVERAGE")
"""How the variables begin that an interpreter reads as it starts."""


class Server:
    """`Server().run(["show", "vm.tvm"], given=None)`, one command at a time."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            line = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(line, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._environment = _read()
        self._lock = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def run(self, arguments: list[str], given: bytes | None, cwd: object = None) -> subprocess.CompletedProcess[bytes] | None:
        """As `subprocess.run` does; None where only a new interpreter can."""
        if _read() != self._environment or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(arguments, given, str(Path(str(cwd or ".")).resolve()))
        finally:
            self._lock.release()

    def _run(self, arguments: list[str], given: bytes | None, cwd: str) -> subprocess.CompletedProcess[bytes]:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        request = json.dumps({"arguments": arguments, "cwd": cwd, "environment": dict(os.environ)}).encode()
        socket.send_fds(self._socket, [len(request).to_bytes(4, "big")], theirs)
        self._socket.sendall(request)
        for each in theirs:
            os.close(each)
        process = self._number()
        with ThreadPoolExecutor(3) as pool:
            pool.submit(_write, pipes[0][1], given or b"")
            readers = [pool.submit(_read_all, pipe[0]) for pipe in pipes[1:]]
            timer = threading.Timer(60, os.kill, (process, signal.SIGKILL))
            timer.start()
            out, err = (each.result() for each in readers)
            timer.cancel()
        return subprocess.CompletedProcess(arguments, self._number(), out, err)

    def _number(self) -> int:
        data = b""
        while len(data) < 4:
            more = self._socket.recv(4 - len(data))
            assert more, "the server has gone"
            data += more
        return int.from_bytes(data, "big", signed=True)


def _read() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ)}


def _write(descriptor: int, data: bytes) -> None:
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass  # it did not want all of it


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the process that is to carry it out, and None at the end."""
    while True:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        if not head:
            return None
        request: dict[str, Any] = json.loads(_exactly(connection, int.from_bytes(head, "big")))
        process = os.fork()
        if not process:
            connection.close()
            for place, each in enumerate(descriptors):
                os.dup2(each, place)
                os.close(each)
            return request
        for each in descriptors:
            os.close(each)
        connection.sendall(process.to_bytes(4, "big"))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(status.to_bytes(4, "big", signed=True))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def _become(request: dict[str, Any]) -> None:
    """Be as an interpreter that was started so."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    command = importlib.import_module("tagged_vmstate.__main__")
    sys.argv = [str(command.__file__), *request["arguments"]]
    sys.path[0] = request["cwd"]
    for name, place, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        old = getattr(sys, name)
        assert isinstance(old, io.TextIOWrapper)
        raw = io.FileIO(place, mode, closefd=False)
        buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        new = io.TextIOWrapper(buffer, encoding=old.encoding, errors=old.errors, line_buffering=name == "stderr")
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def main() -> None:
    for name in ("main", "inspect", "convert", "qemu", "diff", "set", "tables", "fuzz", "shell", "modules", "paths", "ci"):
        importlib.import_module(f"tagged_vmstate.cli.{name}")
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if request:
        _become(request)
        importlib.import_module("tagged_vmstate.__main__").main()


if __name__ == "__main__":
    main()
