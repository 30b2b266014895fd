"""A snapshot that came from a QEMU stream made a stream again (savevm version 3).

The way back of `bridge`: the attributes under ``qemu`` say what a stream needs beside the state. Unchanged, the
same bytes come out; a changed field changes its own bytes and no others. Memory is written part by part.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from tagged_vmstate.errors import StateError
from tagged_vmstate.frames import label
from tagged_vmstate.qemu import stream, vmdesc
from tagged_vmstate.qemu.encode import encode_device
from tagged_vmstate.qemu.ram import CONTINUE, EOS, MEM_SIZE, PAGE, ZERO, Block, pack_name
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque
from tagged_vmstate.wiretype import brief

HEAD: Final = stream.MAGIC + struct.pack(">I", stream.VERSION)
DESCRIPTION_BYTES: Final = 64 << 20
"""More than any machine's description has; a bomb would have more."""
PAGES_BYTES: Final = 16 << 20
"""The same for the list of the pages of one part."""


def export(snapshot: Snapshot, target: BinaryIO) -> None:
    """Write the stream that a snapshot came from, with the values that it has now.

    Args:
        snapshot: The snapshot; one that can be read from any place.
        target: Where to.

    Raises:
        StateError: It did not come from a QEMU stream, or a field does not fit what QEMU has for it.
        FormatError: It is damaged.
        OSError: The target does not take it.
    """
    source = Origin(snapshot)
    target.write(source.wrapper() + HEAD)
    memory = MemoryWriter(source.page_size)
    structs = source.structs()
    target.writelines(_item(section, said, memory, structs) for section, said in source.sections)
    target.write(source.tail())


def _item(section: Section, said: dict[str, Any], memory: MemoryWriter, structs: dict[str, list[vmdesc.Struct]]) -> bytes:
    try:
        if said["type"] not in stream.SECTIONS:
            return plain_item(section, said)
        head = Head.of(section, said)
        if section.device == stream.RAM:
            return memory.part(head, section, said)
        known = structs.get(head.label) if head.type == stream.SECTION_FULL else None
        return head.around(encode_device(known.pop(0) if known else None, section.records()))
    except StateError as error:
        error.section = section.label
        raise
    except (KeyError, TypeError, ValueError, AttributeError, struct.error, zlib.error) as error:
        raise _not_from_qemu(section.label, repr(error)) from None


def plain_item(section: Section, said: Mapping[str, Any]) -> bytes:
    """What is no section in the stream: the configuration, or a command."""
    if said["type"] == stream.CONFIGURATION:
        return configuration(section.records(), said["versions"], said.get("names"))
    return struct.pack(">BHH", stream.COMMAND, said["command"], len(said["data"])) + bytes(said["data"])


def _not_from_qemu(label: str, found: str) -> StateError:
    error = StateError("what `import` notes of a QEMU stream, in the attributes", found)
    error.section = label
    return error


class Origin:
    """What a snapshot's attributes say of the stream that it came from.

    Attributes:
        snapshot: The snapshot.
        page_size: Bytes of a page of the guest.
        sections: The sections of the stream and their ``qemu`` attributes, in its order.
        trailing: What followed the stream.

    Raises:
        StateError: It did not come from a QEMU stream.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        said = snapshot.attributes.get("qemu")
        if not isinstance(said, dict) or not isinstance(said.get("page_size"), int):
            raise StateError("a snapshot that `import` made of a QEMU stream", "one from elsewhere")
        if said.get("stream") != stream.VERSION:
            raise StateError(f"one that came from a stream of savevm version {stream.VERSION}", f"version {said.get('stream')}")
        self.page_size: int = said["page_size"]
        if not 256 <= self.page_size <= 1 << 30 or self.page_size & (self.page_size - 1):
            raise StateError("a page size that is a power of two", str(self.page_size))
        self.sections: list[tuple[Section, dict[str, Any]]] = []
        self.trailing: list[Section] = []
        self._image: Section | None = None
        self._packed: list[bytes] = []
        for section in snapshot:
            self._take(section)
        self.sections.sort(key=lambda each: each[1]["offset"])

    def _take(self, section: Section) -> None:
        attributes = section.attributes
        if not attributes and not section.records():
            return  # it only ends a section that the stream never ended
        said = attributes.get("qemu")
        if not isinstance(said, dict) or not isinstance(said.get("offset"), int):
            raise _not_from_qemu(section.label, "nothing")
        kind = said.get("type")
        if kind == "libvirt":
            self._image = section
        elif kind == "trailing":
            self.trailing.append(section)
        elif kind == stream.VMDESCRIPTION:
            self._packed.append(said.get("json", b""))
        elif kind in (stream.CONFIGURATION, stream.COMMAND, *stream.SECTIONS):
            self.sections.append((section, said))
        else:
            raise _not_from_qemu(section.label, f"type {brief(kind)}")

    def wrapper(self) -> bytes:
        """Libvirt's header, where there was one; the stream behind it is not compressed."""
        if self._image is None:
            return b""
        header, xml = (cast("bytes", record.value) for record in self._image.records())
        place = 16 + 3 * 4  # magic, version, data_len, was_running, compressed: libvirt's qemu_saveimage.h
        return header[:place] + bytes(4) + header[place + 4 :] + xml

    def of_type(self, *types: int) -> Iterator[tuple[Section, dict[str, Any]]]:
        """The sections that some bytes announced."""
        return (each for each in self.sections if each[1]["type"] in types)

    def memory(self) -> Iterator[tuple[Section, dict[str, Any]]]:
        """The parts of the memory."""
        return (each for each in self.sections if each[0].device == stream.RAM)

    def tail(self) -> bytes:
        """What follows the sections."""
        data = self.description()
        found = [bytes((stream.EOF,))]
        if data is not None:
            found.append(struct.pack(">BI", stream.VMDESCRIPTION, len(data)) + data)
        for rest in self.trailing:
            found += (cast("bytes", record.value) for record in rest.records())
        return b"".join(found)

    def description(self) -> bytes | None:
        """The JSON that describes the devices; None where the stream had none."""
        if not self._packed:
            return None
        try:
            return unpacked(b"".join(self._packed), DESCRIPTION_BYTES)
        except (zlib.error, TypeError) as error:
            raise _not_from_qemu("vmdescription#0", str(error)) from None

    def structs(self) -> dict[str, list[vmdesc.Struct]]:
        """``idstr#instance`` -> what QEMU says about each section of that name, in their order."""
        data = self.description()
        found: dict[str, list[vmdesc.Struct]] = {}
        if data is None:
            return found
        try:
            description = vmdesc.parse(data)
        except ValueError:
            return found  # it could not be read on the way in either: all devices are bytes
        for device in description.devices:
            found.setdefault(label(device.name, device.instance), []).append(device.struct)
        return found


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a section that is written.

    Attributes:
        type: The byte that announces it.
        id: Its number in the stream.
        name: QEMU's idstr.
        instance: Its instance id.
        version: Its version id.
        has_footer: Whether a footer closes it.
    """

    type: int
    id: int
    name: str
    instance: int
    version: int
    has_footer: bool

    @classmethod
    def of(cls, section: Section, said: Mapping[str, Any]) -> Head:
        """The head of a section, from its attributes. Raises KeyError where they say too little."""
        instance = said.get("instance", section.instance)
        return cls(said["type"], said["id"], section.device, instance, said["version"], bool(said["footer"]))

    @property
    def label(self) -> str:
        """``idstr#instance``."""
        return label(self.name, self.instance)

    def before(self) -> bytes:
        """What stands before the bytes of the device."""
        found = struct.pack(">BI", self.type, self.id)
        if self.type in {stream.SECTION_START, stream.SECTION_FULL}:
            found += pack_name(self.name) + struct.pack(">II", self.instance, self.version)
        return found

    def behind(self) -> bytes:
        """What stands behind them."""
        return struct.pack(">BI", stream.FOOTER, self.id) if self.has_footer else b""

    def around(self, data: bytes) -> bytes:
        """The whole section."""
        return self.before() + data + self.behind()


class MemoryWriter:
    """Writes the parts of the `ram` section, page by page.

    Of the parts before, it holds which pages had bytes; it reads them again for the rest of a page where a part has
    only a piece, as after `set`.

    Args:
        page_size: Bytes of a page of the guest.
        left_out: Names of blocks that are not written.
    """

    def __init__(self, page_size: int, left_out: Container[str] = ()) -> None:
        self._page_size = page_size
        self._left_out = left_out
        self._blocks: list[Block] = []
        self._index: dict[str, int] = {}
        self._written: list[Section] = []
        self._current = -1
        self._is_open = False

    def part(self, head: Head, section: Section, said: Mapping[str, Any]) -> bytes:
        """One part: a turn of the section, or the next piece of one."""
        records = section.records()
        found = [] if self._is_open else [head.before()]
        if "total" in said:
            found.append(self._list(records[: said["blocks"]], said["total"], said.get("addresses")))
        pages = self._pages(records)
        listed: list[int] = Opaque(unpacked(said["pages"], PAGES_BYTES)).decode()
        numbers = iter(listed)
        runs = [_Run(*each) for each in zip(numbers, numbers, numbers, numbers, strict=True)]
        for run in runs:
            block = self._blocks[run.block]
            if run.first < 0 or run.count < 0 or (run.first + run.count) * self._page_size > block.length:
                what = f"{run.count} at {run.first * self._page_size}"
                raise StateError(f"pages inside {block.length} bytes", what, path=(block.name,))
        for run, data in pages.distributed(runs):
            found += self._run(run, data)
        for index, page, alone in pages.left():
            found += self._run(_Run(index, page, 1, PAGE | (index != self._current)), {page: alone})
        self._written.append(section)
        self._is_open = not said["last"]
        if said["last"]:
            found += (EOS.to_bytes(8, "big"), head.behind())
        return b"".join(found)

    def _pages(self, records: Records) -> Pages:
        """The pages of a part, whole."""
        pages = Pages(self._page_size)
        for record in records:
            if record.type != "sparse" or record.name not in self._index:
                raise StateError("memory of a block that was listed", f"`{record.describe()}`", path=(record.name,))
            index = self._index[record.name]
            if record.length != self._blocks[index].length:
                raise StateError(f"{self._blocks[index].length} bytes", str(record.length), path=(record.name,))
            pages.add(index, cast("Runs", record.value))
        before = Pages(self._page_size, {each for each in pages.cut() if self._blocks[each[0]].is_marked(each[1])})
        if before.wanted:
            for section in self._written:
                for record in section.records():
                    before.add(self._index[record.name], cast("Runs", record.value))
        pages.complete(before)
        return pages

    def _list(self, records: Records, total: int, addresses: Sequence[int] | None) -> bytes:
        found = []
        if sum(record.length or 0 for record in records) != total:
            raise StateError(f"blocks of {total} bytes in all", str(sum(record.length or 0 for record in records)))
        for place, record in enumerate(records):
            self._index[record.name] = len(self._blocks)
            self._blocks.append(Block(record.name, record.length or 0))
            if record.name in self._left_out:
                total -= record.length or 0
                continue
            found.append(pack_name(record.name) + struct.pack(">Q", record.length or 0))
            if addresses is not None:
                found.append(struct.pack(">Q", addresses[place]))
        return (total | MEM_SIZE).to_bytes(8, "big") + b"".join(found)

    def _run(self, run: _Run, data: Mapping[int, bytes]) -> Iterator[bytes]:
        """Successive page records."""
        block = self._blocks[run.block]
        named = run.flags & 1
        for page in range(run.first, run.first + run.count):
            found = data.get(page, b"")
            if found:
                block.mark(page)
            if block.name in self._left_out:
                continue
            kind = run.flags & (PAGE | ZERO)
            if kind == ZERO and found.strip(found[:1]):
                kind = PAGE
            yield (page * self._page_size | kind | (0 if named else CONTINUE)).to_bytes(8, "big")
            if named:
                yield pack_name(block.name)
            yield (found[:1] or b"\0") if kind == ZERO else found or bytes(self._page_size)
            named = 0
            self._current = run.block


@dataclass(frozen=True, slots=True)
class _Run:
    """Successive page records of one kind, as `bridge` lists them; ``flags & 1``: the first names its block."""

    block: int
    first: int
    count: int
    flags: int


class Pages:
    """The bytes of a part of memory, page by page.

    Args:
        page_size: Bytes of a page of the guest.
        wanted: Block and number of the only pages to be taken; None for all.
    """

    def __init__(self, page_size: int, wanted: Container[tuple[int, int]] | None = None) -> None:
        self._size = page_size
        self._whole: dict[tuple[int, int], bytes] = {}
        self._pieces: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self.wanted = wanted

    def add(self, index: int, runs: Runs) -> None:
        """Take the runs of a block."""
        size = self._size
        for offset, data in runs:
            at = 0
            while at < len(data):
                page, inside = divmod(offset + at, size)
                piece = bytes(data[at : at + size - inside])
                at += len(piece)
                if self.wanted is not None and (index, page) not in self.wanted:
                    continue
                if len(piece) == size:
                    self._whole[index, page] = piece
                elif (index, page) in self._whole:
                    old = self._whole[index, page]
                    self._whole[index, page] = old[:inside] + piece + old[inside + len(piece) :]
                else:
                    self._pieces.setdefault((index, page), []).append((inside, piece))

    def cut(self) -> list[tuple[int, int]]:
        """Block and number of the pages of which there are only pieces."""
        return list(self._pieces)

    def complete(self, before: Pages) -> None:
        """Fill up the pages of which there are only pieces: with what was there before, else zeros."""
        if before.cut():
            before.complete(Pages(self._size))
        for key, pieces in self._pieces.items():
            found = bytearray(before._whole.get(key, bytes(self._size)))
            for inside, piece in pieces:
                found[inside : inside + len(piece)] = piece
            self._whole[key] = bytes(found)
        self._pieces.clear()

    def distributed(self, runs: Sequence[_Run]) -> Iterator[tuple[_Run, dict[int, bytes]]]:
        """Each run with the bytes of its pages; a page that is there twice was zero before, so the last one has them."""
        last = {
            (run.block, page): number
            for number, run in enumerate(runs)
            for page in range(run.first, run.first + run.count)
            if (run.block, page) in self._whole
        }
        for number, run in enumerate(runs):
            keys = ((run.block, page) for page in range(run.first, run.first + run.count))
            yield run, {key[1]: self._whole.pop(key) for key in keys if last.get(key) == number}

    def left(self) -> Iterator[tuple[int, int, bytes]]:
        """Block, number and bytes of the pages that no run had."""
        for (index, page), data in sorted(self._whole.items()):
            yield index, page, data


def configuration(records: Records, versions: Iterable[int], names: Iterable[str] | None = None) -> bytes:
    """What machine it is; `names` are its subsections', where their fields have others. Raises StateError for no such field."""
    name, *subsections = records
    names = [record.name for record in subsections] if names is None else names
    machine = cast("str", name.value).encode()
    found = [struct.pack(">BI", stream.CONFIGURATION, len(machine)), machine]
    for record, each, version in zip(subsections, names, versions, strict=True):
        try:
            [inside] = cast("Records", record.value)
            found.append(vmdesc.subsection_head(each, version) + _setting(inside))
        except StateError as error:
            error.under(record.name)
            raise
    return b"".join(found)


def _setting(record: Record) -> bytes:
    value: Any = record.value
    if record.name == "target_page_bits":
        return struct.pack(">I", value)
    if record.name == "capabilities":
        return struct.pack(">I", len(value)) + b"".join(map(pack_name, value))
    if not isinstance(value, bytes):
        raise StateError("bytes", f"`{record.describe()}`", path=(record.name,))
    return value


def unpacked(data: bytes, most: int) -> bytes:
    """Decompressed bytes, not more than so many. Raises zlib.error."""
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(data, most)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise zlib.error(f"cut, or more than {most} bytes")
    return found
