"""A QEMU migration stream as sections of a snapshot.

Each device becomes a section with its fields under QEMU's own names, memory one with a sparse field for each
block, the configuration one of its own. What a stream needs beside the state (numbers, versions, footers, the
sequence of page records, the description) goes into the attributes under the key ``qemu``, so that the same
stream can be made from the snapshot again. Memory is passed on as it comes; the devices, which are small,
wait for the description after them. Their place in the stream is the attribute ``offset``.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from tagged_vmstate.errors import FormatError
from tagged_vmstate.files import BLOCK, Input, Readable, as_file
from tagged_vmstate.frames import Kind, label
from tagged_vmstate.qemu import libvirt, stream, vmdesc
from tagged_vmstate.qemu.decode import DeviceReader
from tagged_vmstate.qemu.padding import Padding
from tagged_vmstate.qemu.ram import Chunk
from tagged_vmstate.qemu.savevm import MAGIC_2, ImportV2, nowhere
from tagged_vmstate.qemu.turns import Joined, joined
from tagged_vmstate.qemu.vmdesc import Siblings
from tagged_vmstate.records import Record, Records
from tagged_vmstate.sections import Section
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import Opaque

MAGICS: Final = (stream.MAGIC, libvirt.MAGIC, libvirt.PARTIAL)
"""What a stream begins with, bare or in libvirt's wrapper."""
HEAD: Final = 16
"""So many bytes tell."""
_PIECE: Final = 1 << 19
"""Bytes of the compressed description in the attributes of one frame, which are limited."""


def import_stream(source: Readable, *, salvage: bool = False) -> Import | ImportV2:
    """Open a QEMU migration stream, bare or in libvirt's save image, or a savevm file of version 2.

    Args:
        source: The stream: its bytes, or a file open for reading in binary mode. One that can seek is read from its
            description on; a pipe works where there are footers.
        salvage: It may be damaged: while iterating, all that is intact before the damage comes before the error.

    Raises:
        FormatError: This is no stream of savevm version 2 or 3.
        OSError: The file cannot be read.
    """
    whole = Input(as_file(source))
    is_old = whole.peek(len(MAGIC_2)) == MAGIC_2
    start = whole.as_file()
    return (ImportV2 if is_old else Import)(start, salvage=salvage)


class Import:
    """The sections of a stream, once.

    Args:
        file: The stream.
        salvage: See `import_stream`.

    Attributes:
        raw_attributes: For the header: producer, machine.
        notes: What could not be interpreted and was kept as bytes, a sentence each; complete after iterating.
    """

    def __init__(self, file: BinaryIO, *, salvage: bool = False) -> None:
        self.notes: list[str] = []
        self._salvage = salvage
        self._undescribed: str | None = None
        self._pieces: dict[str, int] = {}
        source = Input(file, BLOCK)
        self._image = libvirt.open_image(source, salvage=salvage)
        if self._image:
            source = self._image.stream
        self._devices: dict[str, list[vmdesc.Struct]] = {}
        self._description = stream.find_description(source)
        self._source, self._start = source, source.position
        self._page_size = self._take_description(self._description)
        self._reader = self._opened(salvage=salvage and (self._image is not None or source.peek(8) == stream.BEGIN))
        attributes: dict[str, object] = {"producer": PRODUCER}
        if self._reader.configuration:
            attributes["machine"] = self._reader.configuration.machine
        self.raw_attributes = Opaque.of({**attributes, "qemu": {"stream": stream.VERSION, "page_size": self._reader.page_size}})

    def _opened(self, *, salvage: bool = False) -> stream.StreamReader:
        """A reader of the stream from its beginning, with what is known of its devices so far."""
        self._source.seek(self._start)
        sizes = {name: structs[-1].size for name, structs in self._devices.items()}
        return stream.StreamReader(self._source, sizes, self._page_size, salvage=salvage)

    @property
    def attributes(self) -> dict[str, Any]:
        """What goes into the header."""
        return dict(self.raw_attributes.decode())

    def __iter__(self) -> Iterator[Section]:
        if self._image:
            yield _libvirt_section(self._image)
        if self._reader.configuration:
            yield self._configuration_section(self._reader.configuration)
        waiting: list[stream.Event] = []
        started: set[str] = set()
        unfinished: set[str] = set()
        damage = None
        try:
            for event in joined(self._reader.events()):
                if isinstance(event, Joined) or (isinstance(event, stream.Turn) and event.head.type != stream.SECTION_FULL):
                    section = self._turn_section(event)
                    (unfinished.add if section.kind == "part" else unfinished.discard)(section.label)
                    started.add(section.label)
                    yield section
                else:
                    waiting.append(event)
        except FormatError as error:
            if not self._salvage:
                raise
            damage = error
        self.notes += (nowhere(name, size) for name, size in self._pieces.items())
        told = next((event.data for event in waiting if isinstance(event, stream.Description)), None)
        if told != self._description and not damage:  # what looked like one from the end is none: only this one counts
            self._devices = {}
            self._undescribed = None
            self._page_size = self._take_description(told)
            waiting = self._again(waiting)
        yield from self._waiting_sections(waiting, started, is_whole=not damage)
        damage = (self._image and self._image.damage()) or damage
        if self._salvage and not damage:
            damage = self._doubt(waiting, unfinished)
        if damage:
            raise damage
        for name in sorted(unfinished):
            self.notes.append(f"{name}: the stream never ends this section")
            device, _, instance = name.rpartition("#")
            yield Section(device, int(instance), ())

    def _again(self, events: list[stream.Event]) -> list[stream.Event]:
        """The events anew, where a description that was met late shows that a device has another size."""
        turns = (event for event in events if isinstance(event, stream.Turn))
        found = {(turn.head.label, len(turn.body)) for turn in turns if isinstance(turn.body, bytes)}
        if self._source.size is None or found <= {
            (name, each.size) for name, structs in self._devices.items() for each in structs
        }:
            return events
        with contextlib.suppress(FormatError):
            anew = self._opened().events()
            return [each for each in anew if not isinstance(each, stream.Turn) or each.head.type == stream.SECTION_FULL]
        return events

    def _doubt(self, events: list[stream.Event], unfinished: set[str]) -> FormatError | None:
        """What is wrong with a stream that can be read to its end."""
        if self._undescribed:
            found = f"{self._undescribed}: the fields of devices are kept as bytes"
            place = next(event.offset for event in events if isinstance(event, stream.Description))
            return FormatError("a description that can be read", found, offset=place, source="stream")
        if unfinished:
            error = FormatError("the last turn of the section", "the end of all", offset=self._reader.end or 0, source="stream")
            error.section = min(unfinished)
            return error
        return None

    def _waiting_sections(self, events: list[stream.Event], started: set[str], *, is_whole: bool) -> Iterator[Section]:
        counts: Counter[str] = Counter()
        heads = [event.head for event in events if isinstance(event, stream.Turn)]
        numbers = _Instances({head.label for head in heads}, started)
        rest: Padding | None = None
        for event in events:
            if isinstance(event, stream.Turn):
                yield self._device_section(event, numbers)
            elif isinstance(event, stream.Command):
                attributes = {"type": stream.COMMAND, "offset": event.offset, "command": event.command, "data": event.data}
                yield _numbered("command", counts, (), attributes)
            elif isinstance(event, stream.Description):
                packed = zlib.compress(event.data)
                for start in range(0, len(packed), _PIECE):
                    attributes = {"type": stream.VMDESCRIPTION, "offset": event.offset, "json": packed[start : start + _PIECE]}
                    yield _numbered("vmdescription", counts, (), attributes)
            elif isinstance(event, stream.Rest):
                self._source.seek(event.offset)
                with Padding(self._source) as rest:
                    yield from rest.sections()
        if is_whole:
            is_described = any(isinstance(event, stream.Description) for event in events)
            self.notes[:0] = _end_notes(self._reader, rest, is_described=is_described)  # it matters more than any device

    def _take_description(self, data: bytes | None) -> int | None:
        """Take the description of the devices; return the size of a page, where it tells."""
        if data is None:
            return None
        try:
            description = vmdesc.parse(data)
        except ValueError as error:
            self._undescribed = str(error)
            self.notes.append(f"the description cannot be read: {error}")
            return None
        self._devices = vmdesc.structs_by_section(description.devices)
        return description.page_size

    def _configuration_section(self, configuration: stream.Configuration) -> Section:
        found = Siblings()
        found.add(Record("name", "string", None, configuration.machine))
        for name, _, data in configuration.subsections:
            found.add(Record(name, "struct", None, (self._subsection_record(name, data),)))
        records = found.records()
        names = [name for name, _, _ in configuration.subsections]
        versions = [version for _, version, _ in configuration.subsections]
        attributes = {"type": stream.CONFIGURATION, "offset": configuration.offset, "versions": versions}
        if names != [record.name for record in records[1:]]:
            attributes["names"] = names  # empty, or there twice: no names of fields
        return Section("configuration", 0, records, attributes={"qemu": attributes})

    def _subsection_record(self, name: str, data: bytes) -> Record:
        if name == "configuration/target-page-bits":
            return Record("target_page_bits", "uint32", None, int.from_bytes(data, "big"))
        if name == "configuration/uuid":
            return Record("uuid", "buffer", len(data), data)
        if name == "configuration/capabilities":
            try:
                names = tuple(each.decode() for each in stream.split_strings(data[4:]))
            except UnicodeDecodeError:
                names = ()
            if names:
                return Record("capabilities", "string", len(names), names)
        self.notes.append(f"configuration#0: `{name}` is not known; kept as bytes")
        return _bytes_record(data)

    def _turn_section(self, turn: stream.Turn | Joined) -> Section:
        """One more turn, or a chunk of one, of a device that comes in several."""
        chunk = turn.body
        if isinstance(chunk, bytes):
            place = self._pieces.get(turn.head.label, 0)
            self._pieces[turn.head.label] = place + len(chunk)
            more: dict[str, object] = {"turns": list(turn.turns)} if isinstance(turn, Joined) else {}
            return _section(turn, (_bytes_record(chunk, place),) if chunk else (), more)
        pages = [number for run in chunk.pages for number in (run.block, run.page, run.count, run.flag | run.named)]
        attributes: dict[str, object] = {"pages": zlib.compress(Opaque.of(pages).raw), "last": chunk.last}
        if chunk.total is not None:
            attributes |= {"total": chunk.total, "blocks": len(chunk.blocks)}
        if any(block.address is not None for block in chunk.blocks):
            attributes["addresses"] = [block.address for block in chunk.blocks]
        return _section(turn, self._memory(chunk), attributes)

    def _memory(self, chunk: Chunk) -> Records:
        """A sparse field for each block that is listed here or has bytes here."""
        listed = {block.name: block for block in chunk.blocks}
        runs = {self._reader.blocks[index].name: found for index, found in chunk.data.items()}
        blocks = listed | {block.name: block for block in self._reader.blocks if block.name in runs}
        return tuple(
            Record(name, "sparse", block.length, tuple((offset, b"".join(pieces)) for offset, pieces in runs.get(name, ())))
            for name, block in blocks.items()
        )

    def _device_section(self, turn: stream.Turn, numbers: _Instances) -> Section:
        if isinstance(turn.body, Chunk):
            return self._turn_section(turn)
        name = turn.head.label
        structs = self._devices.get(name)
        reader = DeviceReader(turn.body)
        records = reader.read(structs.pop() if structs else None)
        if structs is None:
            self.notes.append(nowhere(name, len(turn.body)))
        self.notes += (f"{name}: {note}" for note in reader.notes)
        more: dict[str, object] = {} if structs is not None else {"described": False}
        if not reader.is_described:
            more["size"] = len(turn.body)
        instance = numbers.take(turn.head)
        if instance == turn.head.instance:
            return _section(turn, records, more)
        section = _section(turn, records, {**more, "instance": turn.head.instance})
        section.instance = instance
        return section


class _Instances:
    """Instance numbers, each once: QEMU gives both IDE controllers of an ISA PC the same."""

    def __init__(self, wanted: set[str], taken: set[str]) -> None:
        self._wanted = wanted | taken
        self._taken = set(taken)
        self._after: dict[str, int] = {}

    def take(self, head: stream.Head) -> int:
        """The instance of a section, or a free one where it is taken."""
        instance = head.instance
        if head.label in self._taken:
            instance = self._free(head.name, instance)
            self._wanted.add(label(head.name, instance))
        self._taken.add(head.label)
        return instance

    def _free(self, name: str, instance: int) -> int:
        """The next instance that is free. A later search that meets one of those passed goes on from there."""
        passed = []
        while (place := label(name, instance)) in self._wanted:
            passed.append(place)
            instance = self._after.get(place, (instance + 1) % (1 << 32))
        self._after.update(dict.fromkeys(passed, instance))
        return instance


def _end_notes(reader: stream.StreamReader, rest: Padding | None, *, is_described: bool) -> Iterator[str]:
    """What is odd after the last section: a byte that ends a stream may as well be a zero where it was cut."""
    last = f"the last section, {reader.last.label}" if reader.last else "the head of the stream"
    is_zero = rest is not None and rest.is_zero
    if rest and is_zero and is_described:
        yield f"{rest.size} bytes of zeros follow the stream, as in a volume of fixed size"
    elif rest and is_zero:
        yield f"no description and nothing but zeros ({rest.size} bytes) follow {last}: the stream may be cut there"
    elif rest:
        yield f"{rest.size} bytes follow the stream; kept as bytes"
    if reader.configuration and not is_described and not is_zero:
        said = "QEMU writes one, unless the machine has suppress-vmdesc=on"
        yield f"no description follows {last}, and {said}: the stream may be cut there"


def _section(turn: stream.Turn | Joined, records: Records, more: dict[str, object]) -> Section:
    head, is_last = turn.head, isinstance(turn.body, bytes) or turn.body.last
    last = turn.last if isinstance(turn, Joined) else head.type
    attributes = {
        "type": head.type,
        "id": head.id,
        "version": head.version,
        "offset": head.offset,
        "footer": turn.has_footer,
        **more,
    }
    kind: Kind = "section" if is_last and last in {stream.SECTION_END, stream.SECTION_FULL} else "part"
    return Section(head.name, head.instance, records, kind=kind, attributes={"qemu": attributes})


def _numbered(device: str, counts: Counter[str], records: Records, attributes: dict[str, object]) -> Section:
    counts[device] += 1
    return Section(device, counts[device] - 1, records, attributes={"qemu": attributes})


def _libvirt_section(image: libvirt.SaveImage) -> Section:
    return Section("libvirt", 0, image.records, attributes={"qemu": {"type": "libvirt", "offset": 0, **image.said}})


def _bytes_record(data: bytes, place: int = 0) -> Record:
    return Record(f"{vmdesc.KEPT}{place}", "buffer", len(data), data)
