"""QEMU streams made by hand, and a snapshot of one turned into its bytes again by the shortest way."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import msgpack

from tagged_vmstate.records import Record, wire_type
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.wire import Opaque

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
    """The stream that a snapshot came from, made from its fields and attributes alone."""
    return _Rebuilder(data).stream()


class _Rebuilder:
    def __init__(self, data: bytes) -> None:
        self._page = Snapshot.read(data).attributes["qemu"]["page_size"]
        self._sections = sorted(Snapshot.read(data), key=lambda section: section.attributes["qemu"]["offset"])
        packed = b"".join(section.attributes["qemu"].get("json", b"") for section in self._sections)
        self._json = zlib.decompress(packed) if packed else b""
        self._versions: dict[str, int] = {}
        for each in json.loads(self._json)["devices"] if packed else ():
            self._collect(each)
        self._memory: dict[str, bytearray] = {}
        self._names: list[str] = []
        self._turn_open = False

    def _collect(self, found: Any) -> None:
        for each in found.get("subsections", ()):
            self._versions[each["vmsd_name"]] = each["version"]
            self._collect(each)
        for each in found.get("fields", ()):
            self._collect(each.get("struct", each))

    def stream(self) -> bytes:
        found = MAGIC
        tail = EOF
        for section in self._sections:
            qemu = section.attributes["qemu"]
            records = section.records()
            if qemu["type"] == 7:
                found += self._configuration(records, qemu)
            elif qemu["type"] == 8:
                found += struct.pack(">BHH", 8, qemu["command"], len(qemu["data"])) + qemu["data"]
            elif qemu["type"] == 6:
                tail = EOF + b"\x06" + struct.pack(">I", len(self._json)) + self._json
            elif "pages" in qemu:
                found += self._pages(section.device, records, qemu)
            else:
                instance = qemu.get("instance", section.instance)
                found += head(qemu["type"], qemu["id"], section.device, instance, qemu["version"]) + self._fields(records)
                found += footer(qemu["id"]) if qemu["footer"] else b""
        return found + tail

    def _configuration(self, records: tuple[Record, ...], qemu: Any) -> bytes:
        name: Any = records[0].value
        found = configuration(name)
        for record, version in zip(records[1:], qemu["versions"], strict=True):
            value: Any = record.value
            found += b"\x05" + short(record.name) + struct.pack(">I", version)
            if value[0].name == "capabilities":
                found += struct.pack(">I", value[0].length) + b"".join(map(short, value[0].value))
            else:
                found += self._fields(value)
        return found

    def _pages(self, name: str, records: tuple[Record, ...], qemu: Any) -> bytes:
        found = b"" if self._turn_open else head(qemu["type"], qemu["id"], name, 0, qemu["version"])
        for record in records:
            memory = self._memory.setdefault(record.name, bytearray(record.length or 0))
            runs: Any = record.value
            for offset, data in runs:
                memory[offset : offset + len(data)] = data
        if "total" in qemu:
            listed = records[: qemu["blocks"]]
            self._names += [record.name for record in listed]
            found += blocks(**{record.name: record.length or 0 for record in listed})
        numbers = iter(msgpack.unpackb(zlib.decompress(qemu["pages"])))
        for block, first, count, flags in zip(numbers, numbers, numbers, numbers, strict=True):
            memory = self._memory[self._names[block]]
            for index in range(count):
                address = (first + index) * self._page
                data = bytes(memory[address : address + self._page])
                data = data[:1] if flags & 2 else data
                found += page(address, data, self._names[block] if flags & 1 and not index else None)
        self._turn_open = not qemu["last"]
        return found + (word(0, 0x10) + (footer(qemu["id"]) if qemu["footer"] else b"") if qemu["last"] else b"")

    def _fields(self, records: Any) -> bytes:
        return b"".join(map(self._field, records))

    def _field(self, record: Record) -> bytes:
        value: Any = record.value
        if record.type == "struct":
            elements = (value,) if record.length is None else value
            inside = b"".join(b"0" if each is None else self._fields(each) for each in elements)
            if record.name in self._versions and record.length is None:
                return b"\x05" + short(record.name) + struct.pack(">I", self._versions[record.name]) + inside
            return inside
        if isinstance(value, Opaque):
            return bytes(value.decode())
        if isinstance(value, memoryview):
            return b"".join(map(self._number, [record.type] * len(value), value.tolist()))
        if record.type == "bitmap":
            return b"".join(value[word : word + 8][::-1] for word in range(0, len(value), 8))
        return bytes(value) if isinstance(value, bytes) else self._number(record.type, value)

    @staticmethod
    def _number(kind: str, value: int) -> bytes:
        width = {"bool": 1, "timer": 8}.get(kind) or int(kind.lstrip("uint")) // 8
        assert wire_type(kind).name == kind
        return (value % (1 << 8 * width)).to_bytes(width, "big")
