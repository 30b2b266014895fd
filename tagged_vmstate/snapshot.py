"""The snapshot file: sections read lazily, written as a stream.

A `Snapshot` walks the heads and passes over the fields by their size; a section's fields are read, their sum
checked, and then decoded, when somebody asks for its records. So a file of any size is listed in no time and
never held whole. A section in several frames stays what it is in the file: several `Section` objects of one device
and instance, all but the last of the kind "part".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self, TypeAlias, TypeVar

from typing_extensions import override

from tagged_vmstate.compression import seeks_cheaply
from tagged_vmstate.errors import GATHERED, FormatError, LimitError, StateError, naming
from tagged_vmstate.files import BLOCK, Input, Readable, Stretch, as_file, replacing, write_all
from tagged_vmstate.frames import (
    MAGIC,
    VERSION,
    End,
    Frame,
    Header,
    Lead,
    Order,
    check_attributes,
    decode_head,
    known_frame,
    placed,
    sum_of_head,
)
from tagged_vmstate.records import LIMITS, Limits, Records, decode_all
from tagged_vmstate.salvage import Search
from tagged_vmstate.sections import NO_ATTRIBUTES, ONCE, REPEATED, PartNames, Section, Sections, decoded, packed
from tagged_vmstate.sums import crc32
from tagged_vmstate.version import PRODUCER
from tagged_vmstate.wire import Cursor, Opaque, Piece, TruncatedError, joined

Source: TypeAlias = "str | os.PathLike[str] | Readable"
"""What a snapshot is read from: a path, the bytes themselves, or a file open for reading."""
_TAKEN: Final = "a path, bytes, or a file open for reading in binary mode"
T = TypeVar("T")

HEAD_BYTES: Final = 1 << 12
"""Bytes that nearly every head fits in."""
HELD_BYTES: Final = 8 << 20
"""Fields of one frame that are held while they are decoded; of more, only what is being decoded."""
PART_BYTES: Final = 4 << 20
"""Memory that a writer puts into one frame: enough for the head not to matter, little to hold."""


class StoredSection(Section):
    """A section as it lies in a file: its fields are read when they are asked for.

    Attributes:
        offset: Byte offset of its frame.
        size: Bytes of its fields.
        crc: The checksum that is stored for it.
        computed: The checksum that it has, where the snapshot is read with ``damaged="report"``.
        snapshot: What it is a section of.
        damage: What is wrong with it, where the snapshot is read with ``damaged="report"``.
    """

    def __init__(self, frame: Frame, offset: int, snapshot: Snapshot) -> None:
        lead = frame.lead
        super().__init__(lead.device, lead.instance, (), kind=lead.kind, attributes=lead.attributes)
        self._lead = lead
        self.offset = offset
        self.size = frame.size
        self.crc = frame.crc
        self.computed: int | None = None
        self.damage: FormatError | None = None
        self._sum = frame.sum_of_head
        self._start = offset + frame.head_bytes
        self.snapshot = snapshot
        self._held: bytes | None = None

    @property
    @override
    def lead(self) -> Lead:
        return self._lead

    @property
    @override
    def label(self) -> str:
        return self._lead.label

    @property
    def end(self) -> int:
        """Byte offset of what follows it."""
        return self._start + self.size

    def records(self) -> Records:
        """Its fields, checked by their sum and then decoded.

        Raises:
            FormatError: They are damaged, or no fields, or of a later version of the format.
        """
        self.snapshot.check_version()
        try:
            records = decode_all(self._stretch(), self._start, self.snapshot.limits)
        except FormatError as error:
            raise self._placed(error) from None
        again = self.snapshot.names.check(self, self.offset, records)
        if again:
            raise self._placed(FormatError(ONCE, REPEATED, offset=again.offset, path=(again.name,)))
        return records

    def _stretch(self) -> bytes | Stretch:
        """Its fields, of which much is left in the file where that is read twice without pain."""
        if self.size <= HELD_BYTES or not self.snapshot.input.rereads:
            return self.payload()
        self.verify()
        return Stretch(self.snapshot.input, self._start, self.size)

    @override
    def pieces(self) -> Sequence[Piece]:
        """Its fields as bytes, in one piece. Raises FormatError where they are damaged, or of a later version of the format."""
        self.snapshot.check_version()
        if self._held is not None:
            return (self._held,)
        payload = joined(tuple(self._blocks(self.size)))
        if self.snapshot.input.size is None:
            self._held = payload  # a pipe gives it once
        return (payload,)

    def verify(self) -> None:
        """Check its sum, a block at a time. Raises FormatError."""
        for _ in self._blocks(BLOCK):
            pass

    def _blocks(self, most: int) -> Iterator[bytes]:
        source = self.snapshot.input
        source.seek(self._start)
        left, total = self.size, self._sum
        while left:
            piece = source.read(min(left, most))
            if not piece:
                found = f"only {self.size - left} (truncated)"
                raise self._placed(TruncatedError(f"{self.size} bytes of fields", found, offset=source.position))
            left -= len(piece)
            total = crc32(piece, total)
            yield piece
        if total != self.crc:
            raise self.mismatch(total)

    def mismatch(self, total: int) -> FormatError:
        """What is wrong where the checksum is another than the one that is stored."""
        return self._placed(FormatError(f"the checksum 0x{self.crc:08x}", f"0x{total:08x} (damaged)", offset=self.offset))

    def _placed(self, error: FormatError) -> FormatError:
        error.file = self.snapshot.name
        return placed(error, self.label)


class Snapshot:
    """A snapshot opened for reading: an iterable of its sections, in the order of the file.

    Iterating checks the order and number of frames, and the sums of header and end; a section's own sum is checked
    when its records are asked for. What can seek can be iterated many times; a pipe once. As a context manager it
    closes the file that it opened.

    Attributes:
        version: The version of the format. The sections of a later one can be listed, not decoded; they may be of other kinds.
        name: What errors that are raised while it is read call it (`VMStateError.file`): set it where several are open.
        names: The names that its sections in parts have shown so far.
        raw_attributes: What stands in the header, as its bytes.
        end_crc: After iterating, the checksum of the end; None where that is missing or damaged.
        damage: With ``damaged="report"``, after iterating: what was wrong that no section's own `damage` tells, an entry for all
            that is lost between two sections. At most 1,000 entries.
        more_damage: How many more there were.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        damaged: Literal["error", "report"] = "error",
        limits: Limits = LIMITS,
        owned: bool = False,
    ) -> None:
        self.limits = limits
        self.input = Input(file, rereads=seeks_cheaply(file))
        self.damage: list[FormatError] = []
        self.more_damage = 0
        self.name: str | None = None
        self.names = PartNames()
        self.end_crc: int | None = None
        self._report = damaged == "report"
        if self._report and self.input.size is None:
            raise ValueError('damaged="report" looks for what follows the damage: it needs input that can seek')
        self._owned = file if owned else None
        self._header_damage: FormatError | None = None
        self._header = self._read_header()
        self._first = self.input.position
        self.version = self._header.version
        self.raw_attributes = self._header.attributes

    @classmethod
    def read(cls, source: Source, *, damaged: Literal["error", "report"] = "error", limits: Limits = LIMITS) -> Snapshot:
        """Open a snapshot.

        Args:
            source: A path, the bytes themselves, or a file open for reading (a pipe will do).
            damaged: ``error`` raises at the first damage. ``report`` checks every section while iterating, notes what
                is wrong on it, finds the next intact frame after lost bytes, and goes on; that needs input that can seek.
            limits: How much to take from bytes that are not trusted.

        Raises:
            FormatError: This is no snapshot.
            OSError: The file cannot be read.
            ValueError: ``report`` is asked of a pipe.
        """
        if not isinstance(source, str | os.PathLike):
            return cls(as_file(source, _TAKEN), damaged=damaged, limits=limits)
        file = Path(source).open("rb")  # noqa: SIM115  # it lives as long as the snapshot
        try:
            return cls(file, damaged=damaged, limits=limits, owned=True)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if `read` opened it."""
        if self._owned:
            self._owned.close()

    @property
    def attributes(self) -> dict[str, Any]:
        """What stands in the header: ``producer``, ``machine`` and what its writer added. See `Section.attributes`."""
        return decoded(self.raw_attributes)

    @property
    def header_crc(self) -> int | None:
        """The checksum of the header; None where that is damaged."""
        return None if self._header_damage else self._header.crc

    def __iter__(self) -> Iterator[StoredSection]:
        with naming(self.name):
            yield from self._salvage() if self._report else self._walk()

    def check_version(self) -> None:
        """Raise FormatError where this is a later version of the format, whose fields may mean anything."""
        if self.version != VERSION:
            found = f"version {self.version}: a later build of this package reads it"
            error = FormatError(f"version {VERSION} of the format", found, offset=len(MAGIC))
            error.file = self.name
            raise error

    def at(self, position: int, size: int) -> bytes:
        """Some of its bytes, where it can seek. Raises FormatError where the file has become shorter."""
        data = self.input.at(position, size)
        if len(data) < size:
            error = TruncatedError(f"{size} bytes", f"only {len(data)} (truncated)", offset=position)
            error.file = self.name
            raise error
        return data

    def _read_header(self) -> Header:
        try:
            return self._head(lambda cursor: Header.decode(cursor, self.limits))
        except FormatError as error:
            if not self._report or self.input.peek(len(MAGIC)) != MAGIC:
                raise
            version = self._damaged_version()
            first = Search(self.input, self.limits, version).next(len(MAGIC), lambda _: False)
            if first is None:
                raise
            self.input.seek(first)
            self._header_damage = error
            return Header(version, NO_ATTRIBUTES)

    def _damaged_version(self) -> int:
        """The version of a snapshot whose header is damaged: what it has, unless nothing but that is wrong."""
        data = self.input.peek(HEAD_BYTES)
        with contextlib.suppress(FormatError):
            Header.decode(Cursor(MAGIC + bytes((VERSION,)) + data[len(MAGIC) + 1 :]), self.limits)
            return VERSION
        with contextlib.suppress(FormatError):
            return max(Cursor(data, pos=len(MAGIC)).read_int("a version"), VERSION)
        return VERSION

    def _walk(self) -> Iterator[StoredSection]:
        order = Order(self._header)
        self.input.seek(self._first)
        while True:
            offset = self.input.position
            head: Frame | End | None = known_frame(self.input.peek(HEAD_BYTES), self.limits)
            if head is None:
                head = self._head(lambda cursor: decode_head(cursor, self.limits, self.version))
            if isinstance(head, End):
                self._check_end(order, head, offset)
                return
            order.add(head, offset)
            section = self._section(head, offset)
            yield section
            self.input.seek(section.end)

    def _salvage(self) -> Iterator[StoredSection]:
        """The same, going on after any damage."""
        order = Order(self._header)
        self.damage, self.more_damage = [], 0
        if self._header_damage:
            self._lost(self._header_damage, 0, self._first)
        search = Search(self.input, self.limits, self.version)
        offset = self._first
        while True:
            start = offset
            try:
                head = search.head(offset)
                if isinstance(head, End):
                    start += len(head.encode())
                    self._check_end(order, head, offset)
                    return
                section = self._section(head, offset)
                section.computed = search.checksum(head, offset)
                section.damage = section.mismatch(section.computed) if section.computed != head.crc else None
                if section.damage and (not search.begins(section.end) or search.has_wrong_size(head, offset, order.fits)):
                    raise section.damage
            except FormatError as error:
                found = search.next(offset + 1, order.fits)
                self._lost(error, start, self.input.size if found is None else found)
                if found is None:
                    return
                offset = found
                continue
            if section.damage:
                order.count(head)  # not even its name is to be trusted
            else:
                section.damage = self._misplaced(order, head, offset)
            yield section
            offset = section.end

    def _lost(self, error: FormatError, start: int, end: int | None) -> None:
        """Note what is wrong, and which bytes are lost by it."""
        if len(self.damage) == GATHERED:
            self.more_damage += 1
            return
        if end is not None and start < end:
            error.found += f"; bytes {start} to {end - 1} are lost"
        self.damage.append(_kept(error))

    def _section(self, frame: Frame, offset: int) -> StoredSection:
        section = StoredSection(frame, offset, self)
        if self.input.size is not None and section.end > self.input.size:
            left = self.input.size - (section.end - section.size)
            raise placed(
                TruncatedError(f"{frame.size} bytes of fields", f"only {left} (truncated)", offset=self.input.size), frame.label
            )
        return section

    @staticmethod
    def _misplaced(order: Order, frame: Frame, offset: int) -> FormatError | None:
        try:
            order.add(frame, offset)
        except FormatError as error:
            return _kept(error)
        return None

    def _check_end(self, order: Order, end: End, offset: int) -> None:
        self.end_crc = end.crc if order.fits(end) else None
        order.check(end, offset)
        self.input.seek(offset + len(end.encode()))
        if self.input.peek(1):
            raise FormatError("nothing after the end", "extra bytes", offset=self.input.position)

    def _head(self, decode: Callable[[Cursor], T]) -> T:
        """Decode a head from no more bytes than it needs, and pass it."""
        size = HEAD_BYTES
        most = self.limits.attributes + size
        while True:
            data = self.input.peek(size)
            cursor = Cursor(data, self.input.position)
            try:
                found = decode(cursor)
            except TruncatedError:
                if len(data) < size:
                    raise
                if size >= most:
                    raise LimitError(f"a head of at most {most} bytes", "more", offset=self.input.position) from None
                size = min(size * 8, most)
                continue
            self.input.seek(self.input.position + cursor.pos)
            return found


class SnapshotWriter:
    """Writes a snapshot to anything with `write`, a pipe or socket included, section after section.

    As a context manager it writes the end when its block ends well.

    Args:
        file: Where to. It gets whole frames, and is neither flushed nor closed.
        attributes: What stands in the header. A mapping is put behind ``producer``; bytes stand as they are.

    Raises:
        StateError: The attributes are none that MessagePack, or the format, can hold.
    """

    def __init__(self, file: BinaryIO, attributes: Mapping[str, object] | Opaque = NO_ATTRIBUTES) -> None:
        if not isinstance(attributes, Opaque) or attributes is NO_ATTRIBUTES:
            mapping = {} if isinstance(attributes, Opaque) else attributes
            attributes = packed({"producer": PRODUCER, **mapping})
        check_attributes(attributes.raw)
        header = Header(VERSION, attributes)
        self._file = file
        self._order = Order(header)
        self._names = PartNames()
        self._frames = 0
        write_all(file, header.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def write(self, section: Section) -> None:
        """Write one section, or a part of one.

        Raises:
            StateError: A field, or the section among its siblings, is none that the format can hold.
            FormatError: It comes from a file and is damaged.
            OSError: The file did not take it.
        """
        pieces, lead = section.pieces(), section.lead
        size = sum(map(len, pieces))
        if size > LIMITS.frame:
            error = StateError(f"at most {LIMITS.frame} bytes of fields in one frame", str(size))
            error.section = lead.label
            raise error
        if lead.kind == "part" or lead.label in self._names:
            self._check_names(section)
        crc = sum_of_head(lead, size)
        for piece in pieces:
            crc = crc32(piece, crc)
        frame = Frame(lead, size, crc)
        try:
            self._order.add(frame, 0)
        except FormatError as error:
            raise _unplaced(error) from None
        write_all(self._file, frame.encode())
        for piece in pieces:
            write_all(self._file, piece)

    def _check_names(self, section: Section) -> None:
        self._frames += 1  # the fields of one frame were checked against each other when they became bytes
        again = self._names.check(section, self._frames, section.records())
        if again:
            error = StateError(ONCE, REPEATED, path=(again.name,))
            error.section = section.label
            raise error

    def close(self) -> None:
        """Write the end. Raises StateError where a section has parts but no last one."""
        try:
            self._order.check_complete()
        except FormatError as error:
            raise _unplaced(error) from None
        write_all(self._file, self._order.end().encode())


def _kept(error: FormatError) -> FormatError:
    """An error to be kept, without what was being read when it was raised."""
    error.__context__ = None
    return error.with_traceback(None)


def _unplaced(error: FormatError) -> StateError:
    """What is wrong with the order of sections, where there is no file that it is wrong in."""
    found = StateError(error.expected, error.found)
    found.section = error.section
    return found


def write(sections: Sections, target: str | os.PathLike[str] | BinaryIO) -> None:
    """Write all sections as one snapshot; a path is replaced as a whole, or stays as it was.

    Raises:
        StateError: See `SnapshotWriter.write`.
        FormatError: The sections come from bytes that are damaged, or of a later version of the format.
        OSError: The file cannot be written.
    """
    if isinstance(sections, Snapshot):
        sections.check_version()  # one without sections has none that refuses
    if isinstance(target, str | os.PathLike):
        with replacing(target) as file:
            write(sections, file)
        return
    with SnapshotWriter(target, sections.raw_attributes) as writer:
        for section in sections:
            writer.write(section)
