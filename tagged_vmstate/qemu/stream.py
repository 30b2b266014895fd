"""A QEMU migration stream (savevm version 3) as a sequence of events, offsets in every one of them.

A stream is a magic, then items that one byte announces (QEMU's migration/savevm.c). A device's bytes carry no
length. Where they end is told by the description at the end of the stream, if the caller knows it; else by the
footer that QEMU writes behind each section since machine types 2.4; else by what must follow. Nothing here
knows fields or snapshots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from tagged_vmstate.errors import FormatError, LimitError
from tagged_vmstate.files import BLOCK, Input
from tagged_vmstate.qemu.ram import Block, Chunk, RamReader, stream_error, take, take_name, text

MAGIC: Final = b"QEVM"
VERSION: Final = 3
BEGIN: Final = MAGIC + VERSION.to_bytes(4, "big")
"""What a stream begins with."""

EOF: Final = 0x00
SECTION_START: Final = 0x01
SECTION_PART: Final = 0x02
SECTION_END: Final = 0x03
SECTION_FULL: Final = 0x04
SUBSECTION: Final = 0x05
VMDESCRIPTION: Final = 0x06
CONFIGURATION: Final = 0x07
COMMAND: Final = 0x08
FOOTER: Final = 0x7E
SECTIONS: Final = (SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL)
"""What announces a section, or one more turn of it."""

RAM: Final = "ram"
RAM_VERSION: Final = 4
PAGE_SIZE: Final = 4096
"""Where neither description nor configuration tells: what QEMU's most used targets have."""
PAGE_SIZES: Final = tuple(1 << bits for bits in range(8, 17))
"""TARGET_PAGE_BITS in QEMU's target/*/cpu-param.h: 8 (AVR before QEMU 10.0) to 14 (TriCore), and room up to 64 KiB."""
_ITEM_HEAD: Final = 300
"""More bytes than the head of any item has."""
_LOOK: Final = 1 << 16
"""Bytes that are first looked at where the end of a section has to be searched for."""
_NEAR: Final = 1 << 12
"""Bytes, and as many as were passed, in which a better end of a section is looked for."""
_SETTINGS: Final = 64
"""Subsections of the configuration at most; QEMU has three."""
DESCRIPTION_BYTES: Final = 64 << 20
"""More than any machine's description has; so far back from the end of a file it is looked for."""
_WINDOW: Final = 4 << 20
"""Bytes in which the end of a section is searched for at once."""
_HELD: Final = 1 << 30
"""Bytes of a pipe that are held while the end of a section is searched for."""
_PADDING: Final = 1 << 10
"""Zeros at the end of a file from which on they are more than a device and the byte that ends a stream would have."""
_ITEM: Final = rb"\x00(?:\x06.{4}\{|\Z)|[\x01\x04].{4}[^\x00]|[\x02\x03]"
"""What may be the beginning of an item."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What machine it is.

    Attributes:
        offset: Byte offset in the stream.
        machine: The name of the machine type.
        subsections: [(name, version, bytes)], as they came.
    """

    offset: int
    machine: str
    subsections: tuple[tuple[str, int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a section, or of one more turn of it.

    Attributes:
        offset: Byte offset in the stream.
        type: The byte that announced it.
        id: Its number in this stream.
        name: QEMU's idstr.
        instance: Its instance id.
        version: Its version id.
    """

    offset: int
    type: int
    id: int
    name: str
    instance: int
    version: int

    @property
    def label(self) -> str:
        """``idstr#instance``."""
        return f"{self.name}#{self.instance}"


@dataclass(frozen=True, slots=True)
class Turn:
    """A section, or one more turn of it.

    Attributes:
        head: Its head.
        body: The device's bytes, or for memory a chunk of its pages; the turn goes on unless `Chunk.last`.
        has_footer: Whether a footer closes it.
    """

    head: Head
    body: bytes | Chunk
    has_footer: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command from one QEMU to the other."""

    offset: int
    command: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Description:
    """The JSON at the end, as its bytes."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Rest:
    """Bytes after everything that a stream should have: they are still to be read."""

    offset: int


_ITEMS: Final = frozenset((b"", *(bytes((each,)) for each in (EOF, *SECTIONS, COMMAND))))
"""What may follow a footer; nothing, where the stream is cut there."""
_COMMAND: Final = bytes((COMMAND,))

Event: TypeAlias = Configuration | Turn | Command | Description | Rest
_Search: TypeAlias = Callable[[bytes, int], int]
_Test: TypeAlias = Callable[[bytes, int], bool]


def find_description(source: Input) -> bytes | None:
    """The JSON at the end of a stream that can seek, or ahead of the zeros that end it, found from there."""
    if source.size is None:
        return None
    end = max(source.position, source.content_end)
    least = max(source.position, end - DESCRIPTION_BYTES)
    at, high, step = -1, end, _LOOK
    while at < 0 and high > least:
        low = max(least, high - step)
        at = _last_description(source, low, high)
        high, step = low, 4 * step  # what is compressed is read anew for each step
    if at < 0 or int.from_bytes(source.at(at + 2, 4), "big") != end - at - 6:
        return None
    return source.at(at + 6, end - at - 6)


def _last_description(source: Input, low: int, high: int) -> int:
    """The last place in a range where a description may be announced; -1 where there is none."""
    found = -1
    for start in range(low, high, BLOCK):
        hit = source.at(start, min(BLOCK, high - start) + 1).rfind(bytes((EOF, VMDESCRIPTION)))
        found = found if hit < 0 else start + hit
    return found


class StreamReader:
    """Reads the events of one stream.

    Args:
        source: The stream, at its magic.
        sizes: ``idstr#instance`` -> bytes of that device, as the description has it; empty where it is not known.
        page_size: Bytes of a page of the guest, where the description tells.
        salvage: It may be damaged from its beginning on: then only `events` raises.

    Attributes:
        end: Where the byte stands that ends the sections, once it has been read.
        last: The head that was read last.

    Raises:
        FormatError: This is no stream of version 3.
    """

    def __init__(self, source: Input, sizes: Mapping[str, int], page_size: int | None = None, *, salvage: bool = False) -> None:
        self._source = source
        self._sizes = sizes
        self._heads: dict[int, Head] = {}
        self._started: set[str] = set()
        self._seen = 0
        self._has_footers: bool | None = None
        self.end: int | None = None
        self.last: Head | None = None
        self.configuration: Configuration | None = None
        self._damage: FormatError | None = None
        try:
            self._read_magic()
            self.configuration = self._read_configuration()
        except FormatError as error:
            if not salvage:
                raise
            self._damage = error
        if self.configuration and b"mapped-ram" in self.capabilities():
            found = "memory mapped into the file (capability mapped-ram): migrate again without it"
            raise stream_error("memory in the stream", found, self.configuration.offset)
        size = page_size or self._configured_page_size()
        if size not in PAGE_SIZES:
            expected = f"pages of {PAGE_SIZES[0]} to {PAGE_SIZES[-1]} bytes, as QEMU's targets have"
            raise LimitError(expected, f"{size} bytes", offset=self._source.position, source="stream")
        self._ram = RamReader(size, has_addresses=b"x-ignore-shared" in self.capabilities())

    @property
    def page_size(self) -> int:
        """Bytes of a page of the guest."""
        return self._ram.page_size

    @property
    def blocks(self) -> list[Block]:
        """The blocks of memory that were listed so far."""
        return self._ram.blocks

    def capabilities(self) -> tuple[bytes, ...]:
        """The migration capabilities that the configuration names."""
        for name, _, data in self.configuration.subsections if self.configuration else ():
            if name == "configuration/capabilities":
                return tuple(split_strings(data[4:]))
        return ()

    def events(self) -> Iterator[Event]:
        """Everything after the configuration. Raises FormatError with the offset, and the section where in one."""
        if self._damage:
            raise self._damage
        source = self._source
        while True:
            offset = source.position
            announced = self._take(1, "a section, a command or the end")[0]
            if announced == EOF:
                self.end = offset
                yield from self._read_tail()
                return
            if announced == COMMAND:
                number = int.from_bytes(self._take(2, "a command"), "big")
                yield Command(offset, number, self._take(int.from_bytes(self._take(2, "a command"), "big"), "a command"))
            elif announced in SECTIONS:
                self.last = head = self._read_head(offset, announced)
                try:
                    yield from self._read_turn(head)
                except FormatError as error:
                    error.section = error.section or head.label
                    raise
            else:
                raise stream_error("a section, a command or the end of the stream", f"the byte 0x{announced:02x}", offset)

    def _read_magic(self) -> None:
        start = self._source.position
        found = self._source.read(8)
        if MAGIC.startswith(found[:4]) and 0 < len(found) < 8:
            raise stream_error("8 bytes of magic and version", f"only {len(found)} before its end (truncated)", start)
        if found[:4] != MAGIC:
            raise stream_error("a QEMU migration stream, which begins with QEVM", found.hex(" ") or "nothing at all", start)
        version = int.from_bytes(found[4:], "big")
        if version != VERSION:
            raise stream_error("savevm version 3", f"version {version}", start + 4)

    def _read_configuration(self) -> Configuration | None:
        offset = self._source.position
        if self._source.peek(1) != bytes((CONFIGURATION,)):
            return None
        self._take(1, "")
        size = self._u32("the length of the machine's name")
        machine = text(self._take(size, "the machine's name"), "the machine's name", offset)
        if "\0" in machine:
            raise stream_error("the machine's name", "zeros in it, as where a stream is cut and padded", offset)
        subsections: list[tuple[str, int, bytes]] = []
        while self._source.peek(1) == bytes((SUBSECTION,)):
            if len(subsections) == _SETTINGS:
                expected = f"at most {_SETTINGS} subsections of the configuration"
                raise LimitError(expected, "more", offset=self._source.position, source="stream")
            self._take(1, "")
            name = take_name(self._source, "a subsection's name")
            version = self._u32("a subsection's version")
            subsections.append((name, version, self._take(self._subsection_size(name), "a subsection")))
        return Configuration(offset, machine, tuple(subsections))

    def _subsection_size(self, name: str) -> int:
        if name == "configuration/target-page-bits":
            return 4
        if name == "configuration/uuid":
            return 16
        if name == "configuration/capabilities":
            return self._capabilities_size()
        size = self._find(_items(rb"|\x05"), lambda data, at: self._begins_item(data, at) or data[at] == SUBSECTION)
        if size is None:
            raise self._missing("what follows the configuration")
        return size

    def _capabilities_size(self) -> int:
        size, ahead = 4, self._source.look(4)
        for _ in range(int.from_bytes(ahead[:4], "big")):
            if len(ahead) <= size:
                ahead = self._source.look(2 * size)
            if len(ahead) <= size:
                raise stream_error("the name of a capability", "nothing more (truncated)", self._source.position + size)
            size += 1 + ahead[size]
        return size

    def _configured_page_size(self) -> int:
        for name, _, data in self.configuration.subsections if self.configuration else ():
            if name == "configuration/target-page-bits":
                return 1 << min(int.from_bytes(data, "big"), 63)
        return PAGE_SIZE

    def _read_tail(self) -> Iterator[Event]:
        """What follows the end of the sections."""
        offset = self._source.position
        if self._source.peek(1) == bytes((VMDESCRIPTION,)):
            self._take(1, "")
            size = self._u32("the length of the description")
            if size > DESCRIPTION_BYTES:
                expected = f"a description of at most {DESCRIPTION_BYTES} bytes"
                raise LimitError(expected, f"{size} bytes", offset=offset, source="stream")
            yield Description(offset, self._take(size, "the description"))
        if self._source.peek(1):
            yield Rest(self._source.position)

    def _u32(self, what: str) -> int:
        return int.from_bytes(self._take(4, what), "big")

    def _take(self, size: int, what: str) -> bytes:
        return take(self._source, size, what)

    def _read_head(self, offset: int, announced: int) -> Head:
        number = self._u32("the number of a section")
        if announced in {SECTION_PART, SECTION_END}:
            known = self._heads.get(number)
            if known is None:
                raise stream_error("one more turn of a section that was started", f"section {number}", offset)
            if announced == SECTION_END:
                del self._heads[number]
            return Head(offset, announced, number, known.name, known.instance, known.version)
        name = take_name(self._source, "the name of a section")
        head = Head(offset, announced, number, name, self._u32("an instance"), self._u32("a version"))
        if announced == SECTION_START and head.label in self._started:
            raise stream_error("each section started once", f"{head.label} again", offset)
        if announced == SECTION_START:
            self._heads[number] = head
            self._started.add(head.label)
        return head

    def _read_turn(self, head: Head) -> Iterator[Turn]:
        if head.name != RAM:
            body = self._take(self._body_size(head), "a section")
            yield Turn(head, body, self._read_footer(head))
            return
        if head.version != RAM_VERSION:
            raise stream_error(f"`{RAM}` of version {RAM_VERSION}", f"version {head.version}", head.offset)
        for chunk in self._ram.turn(self._source):
            yield Turn(head, chunk, chunk.last and self._read_footer(head))

    def _read_footer(self, head: Head) -> bool:
        here = self._source.peek(5)
        footer = _footer(head)
        found = here == footer
        is_cut = len(here) < len(footer) and footer.startswith(here)
        if not found and (self._has_footers or (is_cut and here)):
            words = f"{here.hex(' ') or 'nothing more'} (truncated)" if is_cut else here.hex(" ")
            raise stream_error(f"the footer of section {head.id}", words, self._source.position)
        self._has_footers = found
        if found:
            self._source.read(5)
        return found

    def _body_size(self, head: Head) -> int:
        """How many bytes of a device come next."""
        footer = _footer(head)
        size = self._sizes.get(head.label) if head.type == SECTION_FULL else None
        if size is not None and self._fits(size, footer):
            return size
        found = self._find_footer(footer) if self._has_footers is not False else None
        if found is None and not self._has_footers:
            found = self._find(_items(), self._begins_item, zeros=1)  # the first one ends the stream
        if found is None:
            raise self._missing(f"the footer of section {head.id}" if self._has_footers else "what follows the section")
        return found

    def _fits(self, size: int, footer: bytes) -> bool:
        """Whether a device can have as many bytes as the description says, by what follows them."""
        if self._source.size is not None and size > self._source.size - self._source.position:
            return False
        after = bytes(self._source.look(size + _ITEM_HEAD)[size : size + _ITEM_HEAD])
        return after.startswith(footer) or (not self._has_footers and self._begins_item(after, 0))

    def _find_footer(self, footer: bytes) -> int | None:
        """How many bytes come before a footer that an item follows.

        One that is followed by all that makes an item is preferred to one that is followed by its first byte. But it is
        looked for only about as far again: to look at all that is left for each section would take the square of the time.
        """
        width = len(footer)

        def search(data: bytes, at: int) -> int:
            return data.find(footer, at)

        found = self._find(search, lambda data, at: data[at + width : at + width + 1] in _ITEMS)
        if found is None:
            return None
        better = self._find(
            search,
            lambda data, at: self._begins_item(data, at + width) or data.startswith(_COMMAND, at + width),
            None if self._has_footers is None else 2 * found + _NEAR,
        )
        return found if better is None else better

    def _missing(self, what: str) -> FormatError:
        end = self._source.position + self._seen
        if self._padding is not None:
            return stream_error(what, "nothing but zeros from there on (cut and padded)", self._padding)
        return stream_error(what, "nothing more (truncated)", end)

    @cached_property
    def _padding(self) -> int | None:
        """Where zeros begin that are more than the end of a stream; None where it does not end in such, or is a pipe."""
        if self._source.size is None:
            return None
        end = self._source.content_end
        return end if self._source.size - end >= _PADDING else None

    def _find(self, search: _Search, test: _Test, most: int | None = None, zeros: int = _ITEM_HEAD) -> int | None:
        """How many bytes come before the first place that passes a test.

        Args:
            search: What finds the next place to test.
            test: The test. What it is given ends where the stream does, or well after what there is to see.
            most: Look no further; None for the whole stream.
            zeros: How much of the padding to look at.

        Returns:
            Their number; None where there is no such place.
        """
        size, base, at = _LOOK if most is None else min(_LOOK, most + _ITEM_HEAD), 0, 0
        while True:
            data = self._ahead(base, size)
            if self._padding is not None:
                data = data[: max(self._padding + zeros - self._source.position - base, 0)]
            is_all = len(data) < size
            stop = len(data) if is_all else len(data) - _ITEM_HEAD
            if most is not None and most - base < stop:
                is_all, stop = True, most - base
            while 0 <= (hit := search(data, at)) < stop:
                if test(data, hit):
                    return base + hit
                at = hit + 1
            if is_all:
                self._seen = base + len(data)
                return None
            at = max(at, stop)
            if size < _WINDOW:
                size *= 4
            else:
                base, at = base + at, 0

    def _ahead(self, base: int, size: int) -> bytes:
        """Some of the bytes that come next."""
        if not base:
            return self._source.peek(size)
        if self._source.size is not None:
            return self._source.at(self._source.position + base, size)
        if base + size > _HELD:
            expected = f"the end of a section within {_HELD} bytes, through a pipe"
            raise LimitError(expected, "none", offset=self._source.position, source="stream")
        return self._source.peek(base + size)[base:]

    def _begins_item(self, data: bytes, at: int) -> bool:
        """Whether what is at a place looks like the next item of a stream. Commands are younger than footers."""
        announced = data[at : at + 1]
        if announced == bytes((EOF,)):
            after = data[at + 1 : at + 7]
            return not after or (after[0] == VMDESCRIPTION and after[5:] == b"{")
        if announced in {bytes((SECTION_START,)), bytes((SECTION_FULL,))}:
            name = data[at + 6 : at + 6 + data[at + 5]] if len(data) > at + 5 else b""
            return name != b"" and len(data) >= at + 14 + len(name) and name.isascii() and name.decode().isprintable()
        if announced in {bytes((SECTION_PART,)), bytes((SECTION_END,))}:
            return int.from_bytes(data[at + 1 : at + 5], "big") in self._heads
        return False


def _items(more: bytes = b"") -> _Search:
    """What finds the next place at which an item may begin."""
    pattern = re.compile(_ITEM + more, re.DOTALL)

    def search(data: bytes, at: int) -> int:
        found = pattern.search(data, at)
        return found.start() if found else -1

    return search


def split_strings(data: bytes) -> Iterator[bytes]:
    """Strings one after the other, each behind a byte with its length."""
    at = 0
    while at < len(data):
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]


def _footer(head: Head) -> bytes:
    return bytes((FOOTER,)) + head.id.to_bytes(4, "big")
