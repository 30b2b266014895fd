"""Files of savevm whose sections nothing describes: version 2 read, versions 2 and 3 written.

Version 2 (QEMU before 0.10) is a magic, a length, and records: name, instance, version, length, that many bytes. So
a device that nobody knows can be passed. Version 3 has no lengths: what writes it here is for a reader that knows
every device in it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.files import Input
from tagged_vmstate.frames import label
from tagged_vmstate.qemu.ram import pack_name, stream_error, take, take_name
from tagged_vmstate.qemu.stream import EOF, FOOTER, MAGIC, SECTION_FULL
from tagged_vmstate.records import Record
from tagged_vmstate.sections import Section
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import Opaque

VERSION: Final = 2
UNDESCRIBED: Final = "bytes@0"
"""The field of an imported section that nothing describes."""
MAGIC_2: Final = MAGIC + struct.pack(">I", VERSION)


@dataclass(frozen=True, slots=True)
class RawSection:
    """A section whose bytes carry no names.

    Attributes:
        device: The name of the device.
        instance: Which of several of that name.
        version: Its section version.
        data: Its bytes.
    """

    device: str
    instance: int
    version: int
    data: bytes


def nowhere(section: str, size: int) -> str:
    """The note that nothing describes a section."""
    return f"{section}: {size} bytes are not described; kept as bytes"


def untagged(section: Section) -> tuple[int, bytes, int] | None:
    """Version, bytes and their offset of an imported section that nothing describes; None for any other.

    Such a section has one field, which an import names `UNDESCRIBED`; what has fields of other names is described by them.
    """
    said: Any = section.attributes.get("qemu")
    if not isinstance(said, dict) or said.get("described") is not False or section.kind != "section":
        return None
    version, offset = said.get("version"), said.get("offset")
    records = section.records()
    if not isinstance(version, int) or not isinstance(offset, int) or len(records) != 1:
        return None
    [record] = records
    if record.name != UNDESCRIBED or record.type != "buffer" or not isinstance(record.value, bytes):
        return None
    return version, record.value, offset


class ImportV2:
    """The sections of a savevm file of version 2, once. Each is a buffer: nothing in the file describes it.

    Args:
        file: The file, at its magic.
        salvage: It may be cut: whole records come before the error.

    Attributes:
        raw_attributes: For the header.
        notes: What was odd, a sentence each; complete after iterating.

    Raises:
        FormatError: While iterating: a length lies, or a name is none.
    """

    def __init__(self, file: BinaryIO, *, salvage: bool = False) -> None:
        self.notes: list[str] = []
        self.raw_attributes = Opaque.of({"producer": PRODUCER, "qemu": {"stream": VERSION}})
        self._source = Input(file)
        self._source.read(len(MAGIC_2))
        at = self._source.position
        self._size = int.from_bytes(take(self._source, 8, "the length of all records"), "big")
        if not salvage and self._source.size is not None and self._size > self._source.size - self._source.position:
            left = self._source.size - self._source.position
            raise stream_error("records of the length that is told", f"{self._size} bytes told, {left} there", at)

    def __iter__(self) -> Iterator[Section]:
        end = self._source.position + self._size
        seen: set[str] = set()
        while self._source.position < end:
            section = self._record(end)
            if section.label in seen:
                raise stream_error(
                    "each device and instance once", f"{section.label} again", section.attributes["qemu"]["offset"]
                )
            seen.add(section.label)
            self.notes.append(nowhere(section.label, section.records()[0].length or 0))
            yield section
        rest = self._source.read(1)
        if rest:
            raise stream_error("the end of the file", "more bytes than the length that is told", end)

    def _record(self, end: int) -> Section:
        offset = self._source.position
        name = take_name(self._source, "the name of a device")
        head = take(self._source, 12, "a record's instance, version and length")
        instance, version, size = struct.unpack(">III", head)
        start = self._source.position
        try:
            if size > end - start:
                raise stream_error(f"a record within the {self._size} bytes declared", f"{size} bytes", start - 4)
            data = take(self._source, size, "a record")
        except FormatError as error:
            error.section = label(name, instance)
            raise
        attributes = {"version": version, "offset": start, "described": False, "record": offset}
        return Section(name, instance, [Record(UNDESCRIBED, "buffer", len(data), data)], attributes={"qemu": attributes})


def write_v2(sections: Iterable[RawSection], target: BinaryIO) -> None:
    """Write a savevm file of version 2. Raises StateError where a name is too long."""
    records = b"".join(_head(each) + struct.pack(">I", len(each.data)) + each.data for each in sections)
    target.write(MAGIC_2 + struct.pack(">Q", len(records)) + records)


def write_v3(sections: Iterable[RawSection], target: BinaryIO, *, has_footers: bool = True) -> None:
    """Write a savevm stream of version 3, without a description. Raises StateError where a name is too long.

    Args:
        sections: The sections; their numbers in the stream are their places here.
        target: Where to.
        has_footers: Machine types since QEMU 2.4 close each section with one.
    """
    target.write(MAGIC + struct.pack(">I", 3))
    for number, each in enumerate(sections):
        footer = struct.pack(">BI", FOOTER, number) if has_footers else b""
        target.write(struct.pack(">BI", SECTION_FULL, number) + _head(each) + each.data + footer)
    target.write(bytes((EOF,)))


def _head(section: RawSection) -> bytes:
    if not section.device:
        raise StateError("a device with a name", "an empty one")
    return pack_name(section.device) + struct.pack(">II", section.instance, section.version)
