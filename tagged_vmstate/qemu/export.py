"""A snapshot that came from a QEMU stream, or a file of savevm version 2, made that again.

The way back of `bridge`: the attributes under ``qemu`` say what a stream needs beside the state. Unchanged, the
same bytes come out; a changed field changes its own bytes and no others. Memory is written part by part. What only a
table describes, a caller who has that table turns into bytes: nothing here knows tables.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, TypeAlias, cast

from tagged_vmstate.compression import compressed
from tagged_vmstate.errors import StateError, naming
from tagged_vmstate.files import BLOCK
from tagged_vmstate.frames import label
from tagged_vmstate.qemu import libvirt, padding, savevm, stream, vmdesc
from tagged_vmstate.qemu.encode import encode_device, is_kept
from tagged_vmstate.qemu.ram import CHUNK_RUNS, CONTINUE, EOS, HEAD, MEM_SIZE, PAGE, ZERO, Block, heads, pack_name
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section, Sections, decoded
from tagged_vmstate.snapshot import StoredSection
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque
from tagged_vmstate.wiretype import brief

NO_SIZES: Final[Mapping[str, int | None]] = {}
"""All blocks in the sizes that they have."""
PAGES_BYTES: Final = 5 + 36 * CHUNK_RUNS
"""The longest list of the pages of one part: four numbers of at most nine bytes for each run."""

Place: TypeAlias = tuple[int, int]
"""Index of a block, number of a page."""
Span: TypeAlias = tuple[int, memoryview]
"""Number of a page, the bytes of it and of those that follow."""


Said: TypeAlias = dict[str, Any]
"""What the attributes of a section say of it under ``qemu``."""
Encode: TypeAlias = Callable[[Section, Said], bytes | None]
"""What turns a section that only a table describes into bytes: those of the device; None where it has no such table."""
Item: TypeAlias = tuple[Section, Said, vmdesc.Struct | None]
"""A section, what its attributes say, and how QEMU describes it."""
_NAMED: Final = 8
"""Sections that are named where tables are missing."""


class OriginError(StateError):
    """This snapshot cannot be exported with any values: it is from elsewhere, or needs tables or another reference."""


def export(sections: Sections, target: BinaryIO, encode: Encode | None = None, *, bare: bool = False) -> bool:
    """Write the stream, or the file of savevm version 2, that a snapshot came from, with the values that it has now.

    Args:
        sections: The snapshot; one that can be read from any place.
        target: Where to. Nothing is written before what only tables describe is there as bytes.
        encode: What writes sections that a table read when they were imported.
        bare: Of libvirt's save image only the stream in it, as ``-incoming`` takes it.

    Returns:
        Whether it is libvirt's save image that was written.

    Raises:
        OriginError: It did not come from QEMU, or a table is missing.
        StateError: A field does not fit what QEMU has for it.
        FormatError: It is damaged.
        OSError: The target does not take it.
    """
    if _said(sections).get("stream") == savevm.VERSION:
        _export_v2(sections, target, encode)
        return False
    source = Origin(sections)
    items = list(source.items())
    bodies = _by_tables(items, encode)
    is_image = source.is_image and not bare
    compression, header = source.wrapper() if is_image else (None, b"")
    target.write(header)
    memory = MemoryWriter(source.page_size)
    with compressed(target, compression) as inner:
        inner.write(stream.BEGIN)
        for place, (section, said, layout) in enumerate(items):
            inner.writelines(_item(section, said, layout, memory, bodies.get(place)))
        inner.write(source.tail(source.description()))
        inner.writelines(padding.written(source.trailing))
    return is_image


def _export_v2(sections: Sections, target: BinaryIO, encode: Encode | None) -> None:
    items: list[Item] = [(section, said_of(section), None) for section in sections]
    items.sort(key=lambda each: each[1]["offset"])
    bodies = _by_tables(items, encode)
    found = []
    for place, (section, said, _) in enumerate(items):
        version = said.get("version")
        if not isinstance(version, int) or not 0 <= version < 1 << 32:
            raise _not_from_qemu(section.label, f"version {brief(version)}")
        data = bodies[place] if place in bodies else encode_device(None, section.records())
        found.append(savevm.RawSection(section.device, section.instance, version, data))
    savevm.write_v2(found, target)


def _by_tables(items: Iterable[Item], encode: Encode | None) -> dict[int, bytes]:
    """Place -> the bytes of a device that neither QEMU describes nor was kept as bytes."""
    found: dict[int, bytes] = {}
    lacking = []
    for place, (section, said, layout) in enumerate(items):
        if layout or said.get("type", stream.SECTION_FULL) != stream.SECTION_FULL or section.device == stream.RAM:
            continue
        records = section.records()
        if not records or (len(records) == 1 and is_kept(records[0])):
            continue
        data = encode(section, said) if encode else None
        if data is None:
            lacking.append(section.label)
        else:
            found[place] = data
    if lacking:
        names = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
        expected = f"tables that write {names}, which only tables could read: say --tables module:MACHINE, as for import"
        raise OriginError(expected, "none")
    return found


def _item(
    section: Section, said: Said, layout: vmdesc.Struct | None, memory: MemoryWriter, body: bytes | None
) -> Iterator[bytes]:
    with in_section(section):
        if said["type"] not in stream.SECTIONS:
            yield plain_item(section, said)
            return
        head = Head.of(section, said)
        if section.device == stream.RAM:
            yield from memory.part(head, section, said)
            return
        data = encode_device(layout, section.records(), said.get("size")) if body is None else body
        yield head.around(data, said.get("turns", ()))


@contextlib.contextmanager
def in_section(section: Section) -> Iterator[None]:
    """Put the errors inside at a section; what its attributes lack, or hold of another type, is an OriginError."""
    try:
        yield
    except StateError as error:
        error.section = section.label
        raise
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, struct.error, zlib.error) as error:
        with naming(section.snapshot.name if isinstance(section, StoredSection) else None):
            raise _not_from_qemu(section.label, repr(error)) from None


def plain_item(section: Section, said: Mapping[str, Any]) -> bytes:
    """What is no section in the stream: the configuration, or a command."""
    if said["type"] == stream.CONFIGURATION:
        return configuration(section.records(), said["versions"], said.get("names"))
    return struct.pack(">BHH", stream.COMMAND, said["command"], len(said["data"])) + bytes(said["data"])


def _said(sections: Sections) -> Said:
    """What the header says of the stream. Raises OriginError where the snapshot is from elsewhere."""
    said: Any = decoded(sections.raw_attributes).get("qemu")
    is_ours = isinstance(said, dict) and (said.get("stream") == savevm.VERSION or isinstance(said.get("page_size"), int))
    if not is_ours:
        raise OriginError("a snapshot that `import` made of a QEMU stream", "one from elsewhere")
    return cast("Said", said)


def said_of(section: Section) -> Said:
    """What an import says of a section. Raises OriginError where it says nothing."""
    said = section.attributes.get("qemu")
    if not isinstance(said, dict) or not isinstance(said.get("offset"), int):
        raise _not_from_qemu(section.label, "nothing")
    return said


def _kept(section: Section) -> list[bytes]:
    """The bytes of a section that holds nothing else. Raises OriginError where it does."""
    found = [record.value for record in section.records()]
    if not all(isinstance(each, bytes) for each in found):
        raise _not_from_qemu(section.label, "no bytes")
    return cast("list[bytes]", found)


def _not_from_qemu(label: str, found: str) -> OriginError:
    error = OriginError("what `import` notes of a QEMU stream, in the attributes", found)
    error.section = label
    return error


class Origin:
    """What a snapshot's attributes say of the stream that it came from.

    Attributes:
        page_size: Bytes of a page of the guest.
        sections: The sections of the stream and their ``qemu`` attributes, in its order.
        trailing: What followed the stream.

    Raises:
        OriginError: It did not come from a QEMU stream.
    """

    def __init__(self, sections: Sections) -> None:
        said = _said(sections)
        if said.get("stream") != stream.VERSION:
            raise OriginError(f"one that came from a stream of savevm version {stream.VERSION}", f"version {said.get('stream')}")
        self.page_size: int = said["page_size"]
        if self.page_size not in stream.PAGE_SIZES:
            raise OriginError("a page size that is a power of two from 256 to 65536", str(self.page_size))
        self.sections: list[tuple[Section, Said]] = []
        self.trailing: list[Section] = []
        self._image: Section | None = None
        self._packed: list[bytes] = []
        for section in sections:
            self._take(section)
        self.sections.sort(key=lambda each: each[1]["offset"])

    def _take(self, section: Section) -> None:
        if not section.attributes and not section.records():
            return  # it only ends a section that the stream never ended
        said = said_of(section)
        kind = said.get("type")
        if kind == "libvirt":
            self._image = section
        elif kind == padding.TYPE:
            self.trailing.append(section)
        elif kind == stream.VMDESCRIPTION:
            self._packed.append(said.get("json", b""))
        elif kind in (stream.CONFIGURATION, stream.COMMAND, *stream.SECTIONS):
            self.sections.append((section, said))
        else:
            raise _not_from_qemu(section.label, f"type {brief(kind)}")

    @property
    def is_image(self) -> bool:
        """Whether the stream came in libvirt's save image."""
        return self._image is not None

    def wrapper(self) -> tuple[str | None, bytes]:
        """What stands ahead of the stream, where that came from libvirt, and the module for the compression that it names."""
        if self._image is None:
            return None, b""
        with in_section(self._image):
            return libvirt.wrapper(self._image.records(), said_of(self._image))

    def items(self) -> Iterator[Item]:
        """The sections with the description that QEMU has of each."""
        structs = self.structs()
        for section, said in self.sections:
            name = label(section.device, said.get("instance", section.instance))
            known = structs.get(name) if said["type"] == stream.SECTION_FULL else None
            yield section, said, known.pop() if known else None

    def of_type(self, *types: int) -> Iterator[tuple[Section, dict[str, Any]]]:
        """The sections that some bytes announced."""
        return (each for each in self.sections if each[1]["type"] in types)

    def memory(self) -> Iterator[tuple[Section, dict[str, Any]]]:
        """The parts of the memory."""
        return (each for each in self.sections if each[0].device == stream.RAM)

    def tail(self, description: bytes | None) -> bytes:
        """What ends the stream: its end mark, and the description of the devices."""
        found = [bytes((stream.EOF,))]
        if description is not None:
            found.append(struct.pack(">BI", stream.VMDESCRIPTION, len(description)) + description)
        return b"".join(found)

    def description(self) -> bytes | None:
        """The JSON that describes the devices; None where the stream had none."""
        if not self._packed:
            return None
        try:
            return unpacked(b"".join(self._packed), stream.DESCRIPTION_BYTES)
        except (zlib.error, TypeError) as error:
            raise _not_from_qemu("vmdescription#0", str(error)) from None

    def structs(self) -> dict[str, list[vmdesc.Struct]]:
        """As `vmdesc.structs_by_section`; empty where the stream had no description."""
        data = self.description()
        try:
            return vmdesc.structs_by_section(vmdesc.parse(data).devices) if data is not None else {}
        except ValueError:
            return {}  # it could not be read on the way in either: all devices are bytes


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

    def ahead(self) -> bytes:
        """What stands ahead of the bytes of the device."""
        found = struct.pack(">BI", self.type, self.id)
        if self.type in {stream.SECTION_START, stream.SECTION_FULL}:
            found += pack_name(self.name) + struct.pack(">II", self.instance, self.version)
        return found

    def after(self) -> bytes:
        """What stands after them."""
        return struct.pack(">BI", stream.FOOTER, self.id) if self.has_footer else b""

    def around(self, data: bytes, turns: Sequence[int] = ()) -> bytes:
        """The whole section, or the turns of it that `bridge` has joined. Raises StateError where these have other bytes."""
        if not turns:
            return self.ahead() + data + self.after()
        if sum(turns[1::3]) != len(data):
            raise StateError(f"{sum(turns[1::3])} bytes, as its turns in the stream have", str(len(data)))
        found, at = [], 0
        for kind, size, has_footer in zip(turns[::3], turns[1::3], turns[2::3], strict=True):
            turn = replace(self, type=kind, has_footer=bool(has_footer))
            found.append(turn.around(data[at : at + size]))
            at += size
        return b"".join(found)


class MemoryWriter:
    """Writes the parts of the `ram` section, a run of pages at a time.

    Of the parts before, it holds which pages had bytes; it reads them again for the rest of a page where a part has
    only a piece, as after `set`.

    Args:
        page_size: Bytes of a page of the guest.
        sizes: Name -> bytes of the blocks that are written in another size, zeros where they are longer; None where they
            are not written at all.
    """

    def __init__(self, page_size: int, sizes: Mapping[str, int | None] = NO_SIZES) -> None:
        self._page_size = page_size
        self._sizes = sizes
        self._blocks: list[Block] = []
        self._index: dict[str, int] = {}
        self._written: list[Section] = []
        self._current = -1
        self._is_open = False

    def part(self, head: Head, section: Section, said: Mapping[str, Any]) -> Iterator[bytes]:
        """One part: a turn of the section, or the next piece of one."""
        records = section.records()
        if not self._is_open:
            yield head.ahead()
        if "total" in said:
            first = len(self._blocks)
            yield self._list(records[: said["blocks"]], said["total"], said.get("addresses"))
            for index in range(first, len(self._blocks)):
                yield from self._added(index)
        pages = self._pages(records)
        numbers = iter(cast("list[int]", Opaque(unpacked(said["pages"], PAGES_BYTES)).decode()))
        runs = [_Run(*each) for each in zip(numbers, numbers, numbers, numbers, strict=True)]
        for run in runs:
            self._check(run)
        # A page that is there twice was zero before, so its last run has the bytes.
        taken = [pages.take(run.block, run.first, run.count) for run in reversed(runs)]
        for run in runs:
            yield from self._run(run, taken.pop())
        for index, (first, data) in pages.left():
            yield from self._run(_Run(index, first, len(data) // self._page_size, PAGE), [(first, data)])
        self._written.append(section)
        self._is_open = not said["last"]
        if said["last"]:
            yield EOS.to_bytes(8, "big") + head.after()

    def _check(self, run: _Run) -> None:
        if not 0 <= run.block < len(self._blocks):
            raise OriginError(f"pages of one of {len(self._blocks)} blocks", f"of block {run.block}")
        block = self._blocks[run.block]
        if run.first < 0 or run.count < 0 or (run.first + run.count) * self._page_size > block.length:
            what = f"{run.count} at {run.first * self._page_size}"
            raise OriginError(f"pages inside {block.length} bytes", what, path=(block.name,))

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
        before = {place: bytearray(self._page_size) for place in pages.cut()}
        if any(self._blocks[index].is_marked(page) for index, page in before):
            for section in self._written:
                for record in section.records():
                    lay(self._index[record.name], cast("Runs", record.value), before, self._page_size)
        pages.complete(before)
        return pages

    def _list(self, records: Records, total: int, addresses: Sequence[int] | None) -> bytes:
        found = []
        if sum(record.length or 0 for record in records) != total:
            raise StateError(f"blocks of {total} bytes in all", str(sum(record.length or 0 for record in records)))
        for place, record in enumerate(records):
            self._index[record.name] = len(self._blocks)
            self._blocks.append(Block(record.name, record.length or 0))
            size = self._size(self._blocks[-1])
            total += (size or 0) - (record.length or 0)
            if size is None:
                continue
            found.append(pack_name(record.name) + struct.pack(">Q", size))
            if addresses is not None:
                found.append(struct.pack(">Q", addresses[place]))
        return (total | MEM_SIZE).to_bytes(8, "big") + b"".join(found)

    def _size(self, block: Block) -> int | None:
        """Bytes that a block has in the stream; None where it is not in it."""
        return self._sizes.get(block.name, block.length)

    def _pages_of(self, block: Block) -> int:
        """Pages that it has there."""
        return -(-(self._size(block) or 0) // self._page_size)

    def _added(self, index: int) -> Iterator[bytes]:
        """The pages that a block has in the stream beyond its own, all zero."""
        block = self._blocks[index]
        first = -(-block.length // self._page_size)
        yield from self._records(_Run(index, first, 0, ZERO), first, self._pages_of(block) - first, None)

    def _run(self, run: _Run, spans: Iterable[Span]) -> Iterator[bytes]:
        """Successive page records, with the bytes that there are for them."""
        block = self._blocks[run.block]
        page, end = run.first, run.first + run.count
        for first, data in spans:
            count = len(data) // self._page_size
            yield from self._without_bytes(run, page, first)
            yield from self._records(run, first, count, data)
            block.mark(first, count)
            page = first + count
        yield from self._without_bytes(run, page, end)

    def _without_bytes(self, run: _Run, page: int, end: int) -> Iterator[bytes]:
        """Records of pages that are zero; one that a part before has given bytes, as after `set`, keeps them."""
        while page < end:
            has_bytes, count = self._blocks[run.block].alike(page, end - page)
            if not has_bytes:
                yield from self._records(run, page, count, None)
            page += count

    def _records(self, run: _Run, page: int, count: int, data: memoryview | None) -> Iterator[bytes]:
        """Records of some pages of a run."""
        count = min(count, self._pages_of(self._blocks[run.block]) - page)
        if count < 1:
            return
        kind, size = run.flags & (PAGE | ZERO), self._page_size
        if run.block != self._current or (page == run.first and run.flags & 1):
            self._current = run.block
            [record] = self._continued(kind, page, 1, data and data[:size])
            head = int.from_bytes(record[:HEAD], "big") & ~CONTINUE
            yield head.to_bytes(HEAD, "big") + pack_name(self._blocks[run.block].name) + record[HEAD:]
            page, count, data = page + 1, count - 1, data and data[size:]
        batch = max(BLOCK // size, 1)
        for at in range(0, count, batch):
            part = data and data[at * size : (at + batch) * size]
            yield from self._continued(kind, page + at, min(batch, count - at), part)

    def _continued(self, kind: int, page: int, count: int, data: memoryview | None) -> Iterator[bytes]:
        """Records of pages of the block of the one before."""
        size = self._page_size
        marks = heads(page * size | kind | CONTINUE, size, count)
        if kind == PAGE:
            bodies = data or memoryview(bytes(count * size))
            each = range(count)
            yield b"".join(
                [b for at in each for b in (marks[at * HEAD : at * HEAD + HEAD], bodies[at * size : at * size + size])]
            )
        elif not data:
            found = bytearray((HEAD + 1) * count)
            for at in range(HEAD):
                found[at :: HEAD + 1] = marks[at::HEAD]
            yield bytes(found)
        else:
            for at in range(count):
                body = bytes(data[at * size : at * size + size])
                if body.strip(body[:1]):
                    yield from self._continued(PAGE, page + at, 1, data[at * size : at * size + size])
                else:
                    yield marks[at * HEAD : at * HEAD + HEAD] + body[:1]


@dataclass(frozen=True, slots=True)
class _Run:
    """Successive page records of one kind, as `bridge` lists them; ``flags & 1``: the first names its block."""

    block: int
    first: int
    count: int
    flags: int


class Pages:
    """The bytes of a part of memory in whole pages.

    Args:
        page_size: Bytes of a page of the guest.
    """

    def __init__(self, page_size: int) -> None:
        self._size = page_size
        self._spans: dict[int, list[Span]] = {}
        self._pieces: dict[Place, list[tuple[int, memoryview]]] = {}

    def add(self, index: int, runs: Runs) -> None:
        """Take the runs of a block."""
        size = self._size
        spans = self._spans.setdefault(index, [])
        for offset, data in runs:
            view = memoryview(data)
            page, inside = divmod(offset, size)
            if inside:
                self._pieces.setdefault((index, page), []).append((inside, view[: size - inside]))
                page, view = page + 1, view[size - inside :]
            whole = len(view) // size
            if whole:
                spans.append((page, view[: whole * size]))
            if len(view) > whole * size:
                self._pieces.setdefault((index, page + whole), []).append((0, view[whole * size :]))

    def cut(self) -> Iterable[Place]:
        """Block and number of the pages of which there are only pieces."""
        return self._pieces

    def complete(self, before: Mapping[Place, bytearray]) -> None:
        """Fill up the pages of which there are only pieces with what was there before."""
        for (index, page), pieces in self._pieces.items():
            whole = before[index, page]
            for inside, piece in pieces:
                whole[inside : inside + len(piece)] = piece
            self._spans[index].append((page, memoryview(whole)))
        for spans in self._spans.values():
            spans.sort(key=_first)
        self._pieces.clear()

    def take(self, index: int, page: int, count: int) -> list[Span]:
        """Take out what there is of some pages of a block."""
        spans, size, end = self._spans.get(index, []), self._size, page + count
        low = bisect_right(spans, page, key=_first)
        if low and spans[low - 1][0] + len(spans[low - 1][1]) // size > page:
            low -= 1
        high = bisect_left(spans, end, low, key=_first)
        found, rest = [], []
        for first, data in spans[low:high]:
            head, tail = max(page - first, 0) * size, max(end - first, 0) * size
            found.append((max(first, page), data[head:tail]))
            rest += [(first, data[:head]), (end, data[tail:])]
        spans[low:high] = [span for span in rest if span[1]]
        return found

    def left(self) -> Iterator[tuple[int, Span]]:
        """Block, first page and bytes of what was not taken."""
        return ((index, span) for index, spans in sorted(self._spans.items()) for span in spans)


def _first(span: Span) -> int:
    return span[0]


def lay(index: int, runs: Runs, pages: Mapping[Place, bytearray], page_size: int) -> None:
    """Write the runs of a block over those pages that they meet."""
    wanted = sorted(page for block, page in pages if block == index)
    for offset, data in runs:
        end = offset + len(data)
        for page in wanted[bisect_left(wanted, offset // page_size) : bisect_left(wanted, -(-end // page_size))]:
            start = page * page_size
            low, high = max(start, offset), min(start + page_size, end)
            pages[index, page][low - start : high - start] = data[low - offset : high - offset]


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
