"""Something that speaks QMP, well or badly, in a process of its own: `python qmp_peer.py ADDRESS SCRIPT`, a path or a port.

The script, JSON, has a list of behaviours for "greeting" and any command, one for each time it comes and the last for
all times after it: {"return": ...}, {"error": ...}, {"raw": text}, {"endless": text}, "silence", "close" or "usual". What it does not mention is
done as QEMU does it. "stream" says what `migrate` sends: {"path", "step": bytes at once, "pause": seconds between, "holds": open
for ever}; "capabilities" which are on. It prints where it listens, "connected", each command that it gets, and in the end the
capabilities that were on in the migration and are on now, and how the guest is.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STAMP = {"seconds": 1_700_000_000, "microseconds": 0}


class Peer:
    def __init__(self, connection: socket.socket, script: dict[str, Any]) -> None:
        self.connection = connection
        self.script = script
        self.guest = script.get("guest", "running")
        self.migration: dict[str, Any] = {}
        self.capabilities: dict[str, bool] = {"events": True, **script.get("capabilities", {})}
        self.sent: dict[str, bool] = {}
        self._lock = threading.Lock()
        self._descriptors: list[int] = []

    def run(self) -> None:
        self.act("greeting", {"QMP": {"version": {}, "capabilities": []}}, None)
        for command in self.requests():
            name = command["execute"]
            print(name, flush=True)
            if name == "query-status":
                result: object = {"status": self.guest, "running": self.guest == "running"}
            elif name == "query-migrate":
                result = self.migration
            elif name == "query-migrate-capabilities":
                result = [{"capability": each, "state": state} for each, state in self.capabilities.items()]
            elif name == "query-version":
                result = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian"}
            else:
                result = {}
            if self.act(name, {"return": result}, command["id"]):
                self.done(name, command.get("arguments", {}))

    def requests(self) -> Iterator[dict[str, Any]]:
        unread = b""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.connection, 1 << 16, 1)
            self._descriptors += descriptors
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            yield from map(json.loads, lines)

    def act(self, name: str, usual: dict[str, Any], number: int | None) -> bool:
        """Whether it is done as QEMU does it."""
        behaviours = self.script.get(name, [])
        behaviour: Any = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0] if behaviours else "usual"
        if behaviour == "usual":
            behaviour = usual
        if behaviour == "silence":
            return False
        if behaviour == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        while "endless" in behaviour:
            self.connection.sendall(behaviour["endless"].encode() * 1000)
        if "raw" in behaviour:
            self.say(behaviour["raw"].replace("ID", str(number)).encode("latin-1"))
        elif name == "greeting":
            self.say(json.dumps(behaviour).encode())
        else:
            self.say(json.dumps({"id": number, **behaviour}).encode())
        return behaviour is usual

    def say(self, line: bytes) -> None:
        with self._lock:
            self.connection.sendall(line + b"\r\n")

    def done(self, name: str, arguments: dict[str, Any]) -> None:
        if name in {"stop", "cont"}:
            self.guest, event = ("paused", "STOP") if name == "stop" else ("running", "RESUME")
            self.event(event)
        elif name == "migrate-set-capabilities":
            self.capabilities |= {each["capability"]: each["state"] for each in arguments["capabilities"]}
        elif name == "migrate":
            self.sent = dict(self.capabilities)
            threading.Thread(target=self.migrate, args=(arguments["uri"],), daemon=True).start()
        elif name == "migrate_cancel" and self.migration.get("status") == "active":
            self.migration = {"status": "cancelled"}

    def event(self, name: str) -> None:
        self.say(json.dumps({"event": name, "data": {}, **self.script.get("stamp", {"timestamp": STAMP})}).encode())

    def migrate(self, uri: str) -> None:
        stream = self.script.get("stream", {})
        data = Path(stream["path"]).read_bytes() if "path" in stream else b""
        self.migration = {"status": "active", "ram": {"total": len(data), "remaining": len(data), "transferred": 0}}
        if uri.startswith("fd:"):
            channel = socket.socket(fileno=self._descriptors.pop())
        else:
            host, _, port = uri.removeprefix("tcp:").rpartition(":")
            channel = socket.create_connection((host, int(port)))
        try:
            step = stream.get("step") or len(data) or 1
            for start in range(0, len(data), step):
                channel.sendall(data[start : start + step])
                self.migration["ram"]["remaining"] = max(len(data) - start - step, 0)
                time.sleep(stream.get("pause", 0))
            for _ in range(stream.get("ticks", 0)):
                self.migration["ram"]["transferred"] += 1
                time.sleep(stream["pause"])
            while stream.get("holds"):
                time.sleep(1)
            self.guest = "postmigrate"
            self.migration = {"status": "completed"}
        except OSError:
            self.migration = {"status": "failed", "error-desc": "the reader has gone"}
        channel.close()


def main(address: str, script: dict[str, Any]) -> None:
    is_port = address.isdecimal()
    family, name = (socket.AF_INET, ("127.0.0.1", int(address))) if is_port else (socket.AF_UNIX, address)
    with socket.socket(family) as server:
        server.bind(name)
        server.listen()
        print(server.getsockname()[1] if is_port else address, flush=True)
        connection, _ = server.accept()
    print("connected", flush=True)
    peer = Peer(connection, script)
    with connection, contextlib.suppress(OSError):
        peer.run()
    print(
        *(",".join(name for name, state in each.items() if state) for each in (peer.sent, peer.capabilities)), peer.guest, sep=">"
    )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
