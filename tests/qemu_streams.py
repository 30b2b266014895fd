"""QEMU streams made by hand, and a snapshot of one turned into its bytes again."""

from __future__ import annotations

import io
import json
import struct

from tagged_vmstate.qemu.export import export
from tagged_vmstate.snapshot import Snapshot

MAGIC = b"QEVM\0\0\0\x03"
EOF = b"\0"
PAGE = 4096


def short(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return bytes((len(data),)) + data


def configuration(machine: str, *subsections: tuple[str, bytes]) -> bytes:
    found = b"\x07" + struct.pack(">I", len(machine)) + machine.encode()
    return found + b"".join(b"\x05" + short(name) + b"\0\0\0\x01" + data for name, data in subsections)


def head(kind: int, number: int, name: str = "", instance: int = 0, version: int = 1) -> bytes:
    found = struct.pack(">BI", kind, number)
    return found + (short(name) + struct.pack(">II", instance, version) if kind in {1, 4} else b"")


def footer(number: int) -> bytes:
    return struct.pack(">BI", 0x7E, number)


def full(number: int, name: str, data: bytes, *, instance: int = 0, version: int = 1, has_footer: bool = True) -> bytes:
    return head(4, number, name, instance, version) + data + (footer(number) if has_footer else b"")


def field(name: str, kind: str, size: int, **more: object) -> dict[str, object]:
    return {"name": name, "type": kind, **more, "size": size}


def device(name: str, *fields: object, instance: int = 0, subsections: object = None) -> dict[str, object]:
    found: dict[str, object] = {"name": name, "instance_id": instance, "vmsd_name": name, "version": 1, "fields": list(fields)}
    return found if subsections is None else {**found, "subsections": subsections}


def description(*devices: object, **more: object) -> bytes:
    data = json.dumps({"page_size": PAGE, "devices": devices, **more}).encode()
    return b"\x06" + struct.pack(">I", len(data)) + data


def word(address: int, flags: int) -> bytes:
    return struct.pack(">Q", address | flags)


def blocks(**lengths: int) -> bytes:
    return word(sum(lengths.values()), 4) + b"".join(short(name) + struct.pack(">Q", size) for name, size in lengths.items())


def page(address: int, data: bytes, block: str | None = None) -> bytes:
    """A page of data, or of one byte."""
    flags = (2 if len(data) == 1 else 8) | (0x20 if block is None else 0)
    return word(address, flags) + (b"" if block is None else short(block)) + data


def ram(*turns: bytes, number: int = 2) -> bytes:
    """The `ram` section in its turns: the first starts it, the last ends it."""
    found = b""
    for index, turn in enumerate(turns):
        kind = 1 if not index else 3 if index == len(turns) - 1 else 2
        found += head(kind, number, "ram", 0, 4) + turn + word(0, 0x10) + footer(number)
    return found


def rebuilt(data: bytes) -> bytes:
    """The stream that a snapshot came from, made from it again."""
    stream = io.BytesIO()
    export(Snapshot.read(data), stream)
    return stream.getvalue()
