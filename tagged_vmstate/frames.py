"""Header, frames and end: their bytes, the sums over them, and what they must be among themselves.

    snapshot = header frame* end
    header   = [ "tagged-vmstate", 1, attributes, crc ]
    frame    = [ kind, device, instance, attributes, size, crc ]   then `size` bytes: its fields
    end      = [ "end", frames, crc ]

A head has one form to the byte; only the names and values of its attributes may be encoded as their writer liked. A
checksum is CRC-32 as in zlib: the header's over its own bytes ahead of it; a frame's over those and its fields; the end's
over the checksums of header and frames, four bytes each, and its own bytes ahead of it.

In a later version a frame may be of any kind, and the end may have more items ahead of its checksum. So its frames can be
listed and their checksums checked; what they mean among themselves is not known here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

from tagged_vmstate.errors import FormatError, LimitError, StateError
from tagged_vmstate.records import LIMITS, Limits, encode_name, read_name
from tagged_vmstate.sums import crc32_of_few
from tagged_vmstate.wire import Cursor, Opaque, TruncatedError, pack_array_head, pack_map_head, pack_str, pack_uint
from tagged_vmstate.wiretype import brief

Kind: TypeAlias = Literal["section", "part"]

VERSION: Final = 1
MAGIC: Final = b"\x94" + pack_str("tagged-vmstate")
"""The first 16 bytes of every snapshot; the version follows."""
KINDS: Final = frozenset({"section", "part"})
"""What frames there are in this version."""
END: Final = "end"
"""What an end has in the place of a kind."""
END_ITEMS: Final = 3
_END: Final = pack_str(END)
_END_FIRST: Final = 0x90 | END_ITEMS
LEADS: Final = 1 << 12
"""Sections whose leads are remembered."""
LEAD_BYTES: Final = 320
"""Longer leads are not: those whose attributes say more than a few words."""
_U64: Final = 0xCF
_U32: Final = 0xCE
_SIZE: Final = struct.Struct(">BQ")
_TAIL: Final = struct.Struct(">BQBI")
_SIZE_FOLLOWS: Final = b"\xcf\0\0\0"
"""How the size of a frame below a TiB begins: a guess where a lead ends, which only its bytes confirm."""


def label(device: str, instance: int) -> str:
    """A section as it stands in paths: ``rtl8139#0``."""
    return f"{device}#{instance}"


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a snapshot."""

    version: int
    attributes: Opaque

    @property
    def crc(self) -> int:
        """The checksum over its bytes before it."""
        return crc32_of_few(self._summed())

    def encode(self) -> bytes:
        """Its bytes, the checksum last."""
        head = self._summed()
        return head + _packed_sum(crc32_of_few(head))

    def _summed(self) -> bytes:
        return MAGIC + pack_uint(self.version) + self.attributes.raw

    @classmethod
    def decode(cls, cursor: Cursor, limits: Limits) -> Header:
        """Read it. Raises FormatError, TruncatedError where more bytes may help, LimitError."""
        given = cursor.data[: len(MAGIC)]
        if given != MAGIC:
            found = f"the bytes {given.hex(' ')}" if given else "nothing at all (an empty file)"
            if given and MAGIC.startswith(given):
                found = f"only {len(given)} bytes (truncated)"
            raise FormatError('a snapshot, which begins with "tagged-vmstate"', found, offset=0)
        cursor.pos = len(MAGIC)
        version = cursor.read_int("a version")
        if version < 1:
            raise cursor.error("a version of 1 or more", str(version), len(MAGIC))
        attributes = _read_attributes(cursor, limits)
        total = crc32_of_few(cursor.data[: cursor.pos])
        crc = _read_sum(cursor)
        if crc != total:
            raise FormatError(f"the checksum 0x{crc:08x} of the header", f"0x{total:08x} (damaged)", offset=0)
        return _exact(cls(version, attributes), cursor)


@dataclass(frozen=True, slots=True)
class Lead:
    """What a frame begins with: which section it is of. A machine that is saved often writes and reads the same ones.

    Attributes:
        kind: ``section``, or ``part`` where more of the same section follows; in a file of a later version any other name.
        device: The name of the device, 1 to 255 bytes of UTF-8.
        instance: Which of several of that name, a uint32.
        attributes: What the writer added.
        raw: Its bytes.
        crc: The checksum of them.
        label: The section as it stands in paths.
    """

    kind: Kind
    device: str
    instance: int
    attributes: Opaque
    raw: bytes
    crc: int
    label: str

    @classmethod
    def of(cls, kind: Kind, device: str, instance: int, attributes: Opaque) -> Lead:
        """The lead of a section. Raises StateError for one that no reader would take."""
        made = _lead_again if len(attributes.raw) < LEAD_BYTES else _lead
        return made(kind, device, instance, attributes.raw)

    @classmethod
    def decode(cls, cursor: Cursor, limits: Limits, version: int = VERSION) -> Lead:
        """Read it. Raises FormatError, TruncatedError where more bytes may help, LimitError."""
        if cursor.read_array("a frame (an array of 6 items)") != 6:
            raise cursor.error("a frame (an array of 6 items) or the end (of 3)", at=0)
        if version == VERSION:
            kind = cursor.read_str("`section` or `part`")
            if kind not in KINDS:
                raise cursor.error("`section` or `part`", f"`{kind}`", 1)
        else:
            kind = read_name(cursor, "the kind of a frame")
        device = read_name(cursor, "the name of a device")
        at = cursor.pos
        instance = cursor.read_int("the instance of a device")
        if not 0 <= instance < 1 << 32:
            raise cursor.error("an instance of 0 to 2**32-1", str(instance), at)
        attributes = _read_attributes(cursor, limits)
        raw = cursor.data[: cursor.pos]
        found = cls(cast("Kind", kind), device, instance, attributes, raw, crc32_of_few(raw), label(device, instance))
        if raw != _encoded(kind, device, instance, attributes.raw):
            raise cursor.error("a head in MessagePack's shortest form", "another", 0)
        if len(raw) < LEAD_BYTES and kind in KINDS:
            if len(_seen) >= LEADS:
                _seen.clear()
            _seen[raw] = found
        return found


_seen: Final[dict[bytes, Lead]] = {}
"""Leads of this version's kinds that were read, by their bytes: what begins with the same bytes is the same lead."""


def _lead(kind: Kind, device: str, instance: int, attributes: bytes) -> Lead:
    try:
        if kind not in KINDS:
            raise StateError("a kind of `section` or `part`", brief(kind))
        encode_name(device, "a device")
        if not 0 <= instance < 1 << 32:
            raise StateError("an instance of 0 to 2**32-1", str(instance))
        check_attributes(attributes)
    except StateError as error:
        error.section = label(device, instance)
        raise
    raw = _encoded(kind, device, instance, attributes)
    return Lead(kind, device, instance, Opaque(attributes), raw, crc32_of_few(raw), label(device, instance))


def check_attributes(raw: bytes) -> None:
    """Raise StateError for what no reader takes as the attributes of a header or section."""
    cursor = Cursor(raw)
    try:
        _read_attributes(cursor, LIMITS)
    except FormatError as error:
        raise StateError(error.expected, error.found) from None
    if cursor.pos != len(raw):
        raise StateError("one map of attributes", "bytes after it")


_lead_again: Final = lru_cache(LEADS)(_lead)


def _encoded(kind: str, device: str, instance: int, attributes: bytes) -> bytes:
    return b"\x96" + pack_str(kind) + pack_str(device) + pack_uint(instance) + attributes


class Frame(NamedTuple):
    """The head of a frame.

    Attributes:
        lead: Which section it is of.
        size: Bytes of the fields that follow.
        crc: The sum over this head and them.
    """

    lead: Lead
    size: int
    crc: int

    @property
    def label(self) -> str:
        """The section as it stands in paths."""
        return self.lead.label

    @property
    def head_bytes(self) -> int:
        """How many bytes it takes."""
        return len(self.lead.raw) + _TAIL.size

    @property
    def sum_of_head(self) -> int:
        """The sum over its own bytes, which goes on over the fields."""
        return sum_of_head(self.lead, self.size)

    def encode(self) -> bytes:
        """Its bytes."""
        return self.lead.raw + _TAIL.pack(_U64, self.size, _U32, self.crc)

    @classmethod
    def decode(cls, cursor: Cursor, limits: Limits, version: int = VERSION) -> Frame:
        """Read it. Raises FormatError, TruncatedError where more bytes may help, LimitError."""
        lead = Lead.decode(cursor, limits, version)
        at = cursor.pos
        size = _read_fixed(cursor, _U64, 8, "the size of a frame")
        if size > limits.frame:
            raise LimitError(f"a frame of at most {limits.frame} bytes", str(size), offset=cursor.base + at)
        return cls(lead, size, _read_sum(cursor))


def head_before_sum(lead: Lead, size: int) -> bytes:
    """The head of a frame up to its sum, the first byte of which is there."""
    return lead.raw + _SIZE.pack(_U64, size) + bytes((_U32,))


def known_frame(data: bytes, limits: Limits) -> Frame | None:
    """The head of a frame whose lead was read before; None where `decode_head` is needed."""
    end = data.find(_SIZE_FOLLOWS, 0, LEAD_BYTES)
    lead = _seen.get(data[:end]) if end > 0 else None
    if lead is None or len(data) < end + _TAIL.size:
        return None
    _, size, mark, crc = _TAIL.unpack_from(data, end)
    is_usual = mark == _U32 and size <= limits.frame and len(lead.attributes.raw) <= limits.attributes
    return Frame(lead, size, crc) if is_usual else None


def sum_of_head(lead: Lead, size: int) -> int:
    """The sum over the head of a frame, before its fields."""
    return crc32_of_few(_SIZE.pack(_U64, size), lead.crc)


class End(NamedTuple):
    """The end of a snapshot.

    Attributes:
        frames: How many there were.
        crc: The checksum of the checksums.
        items: Items of its array: more in a later version.
        more: Those that a later version has, as their bytes.
    """

    frames: int
    crc: int
    items: int = END_ITEMS
    more: bytes = b""

    def summed(self) -> bytes:
        """Its bytes ahead of the checksum."""
        return pack_array_head(self.items) + _END + pack_uint(self.frames) + self.more

    def encode(self) -> bytes:
        """Its bytes."""
        return self.summed() + _packed_sum(self.crc)

    @classmethod
    def decode(cls, cursor: Cursor, limits: Limits) -> End:
        """Read it. Raises FormatError, TruncatedError where more bytes may help, LimitError."""
        items = cursor.read_array("the end")
        if items < END_ITEMS:
            raise cursor.error(f"the end (an array of {END_ITEMS} items or more)", f"one of {items}", 0)
        cursor.read_str("the end")
        at = cursor.pos
        frames = cursor.read_int("the number of frames")
        if frames < 0:
            raise cursor.error("the number of frames", str(frames), at)
        at = cursor.pos
        for _ in range(items - END_ITEMS):
            cursor.skip("an item of the end")
        more = cursor.data[at : cursor.pos]
        if len(more) > limits.attributes:
            raise LimitError(f"at most {limits.attributes} bytes of items of the end", str(len(more)), offset=cursor.base + at)
        return _exact(cls(frames, _read_sum(cursor), items, more), cursor)


def decode_head(cursor: Cursor, limits: Limits, version: int = VERSION) -> Frame | End:
    """Read what follows a header or a frame. Raises as `Frame.decode` does."""
    if not cursor.data:
        raise TruncatedError("a frame, or the end", "nothing more (truncated)", offset=cursor.base)
    if version == VERSION and cursor.data[0] != _END_FIRST:
        return Frame.decode(cursor, limits)
    kind = Cursor(cursor.data, cursor.base)
    kind.read_array("a frame (an array of 6 items) or the end (of 3)")
    is_end = kind.read_str("the kind of a frame, or the end") == END
    return End.decode(cursor, limits) if is_end else Frame.decode(cursor, limits, version)


class Order:
    """What the frames of one snapshot must be among themselves, and the checksum of their checksums.

    Of the sections of a later version nothing is known: only the checksums and the number of frames are checked.
    """

    def __init__(self, header: Header) -> None:
        self._is_known = header.version == VERSION
        self._sum = crc32_of_few(header.encode()[-4:])
        self._frames = 0
        self._open: dict[str, int] = {}
        self._done: set[str] = set()

    def count(self, frame: Frame) -> None:
        """Take the checksum of the next frame, and nothing that its head has."""
        self._frames += 1
        self._sum = crc32_of_few(frame.crc.to_bytes(4, "big"), self._sum)

    def add(self, frame: Frame, offset: int) -> None:
        """Take the next frame. Raises FormatError where its section is complete already."""
        self.count(frame)
        lead = frame.lead
        if not self._is_known:
            return
        if lead.label in self._done:
            raise placed(FormatError("each section once", "one more after its last part", offset=offset), lead.label)
        if lead.kind == "part":
            self._open.setdefault(lead.label, offset)
        else:
            self._open.pop(lead.label, None)
            self._done.add(lead.label)

    def end(self, items: int = END_ITEMS, more: bytes = b"") -> End:
        """The end that belongs to the frames so far, with these items of a later version."""
        summed = End(self._frames, 0, items, more).summed()
        return End(self._frames, crc32_of_few(summed, self._sum), items, more)

    def fits(self, end: End) -> bool:
        """Whether an end belongs to the frames so far."""
        return end == self.end(end.items, end.more)

    def check(self, end: End, offset: int) -> None:
        """Raise FormatError where an end does not belong to the frames ahead of it."""
        due = self.end(end.items, end.more)
        if end.frames != due.frames:
            raise FormatError(f"{end.frames} frames before the end", str(due.frames), offset=offset)
        if end.crc != due.crc:
            raise FormatError(f"the checksum 0x{end.crc:08x} over all frames", f"0x{due.crc:08x} (damaged)", offset=offset)
        self.check_complete()

    def check_complete(self) -> None:
        """Raise FormatError where a section has parts but no last one."""
        for name, start in self._open.items():
            raise placed(FormatError("the last part of a section", "only earlier ones", offset=start), name)


def placed(error: FormatError, section: str) -> FormatError:
    """The error, with the section that it is in."""
    error.section = section
    return error


_Head = TypeVar("_Head", Header, End)


def _exact(head: _Head, cursor: Cursor) -> _Head:
    if cursor.data[: cursor.pos] != head.encode():
        raise cursor.error("a head in MessagePack's shortest form", "another", 0)
    return head


def _packed_sum(crc: int) -> bytes:
    return b"\xce" + crc.to_bytes(4, "big")


def _read_sum(cursor: Cursor) -> int:
    return _read_fixed(cursor, 0xCE, 4, "a checksum")


def _read_fixed(cursor: Cursor, first: int, size: int, what: str) -> int:
    at = cursor.pos
    data = cursor.take(1 + size, what)
    if data[0] != first:
        raise cursor.error(f"{what} (0x{first:02x} and {size} bytes)", f"0x{data[0]:02x}", at)
    return int.from_bytes(data[1:], "big")


def _read_attributes(cursor: Cursor, limits: Limits) -> Opaque:
    at = cursor.pos
    if cursor.data.startswith(b"\x80", at):  # nearly always
        cursor.pos += 1
        return Opaque(b"\x80")
    count = cursor.read_map("a map of attributes")
    if cursor.data[at : cursor.pos] != pack_map_head(count):
        raise cursor.error("the head of a map of attributes in MessagePack's shortest form", "another", at)
    names: set[str] = set()
    for _ in range(count):
        start = cursor.pos
        name = cursor.read_str("the name of an attribute (a string)")
        if name in names:
            raise cursor.error("", f"duplicate attribute `{name}`", start)
        names.add(name)
        cursor.skip("the value of an attribute", around=1)
    raw = cursor.data[at : cursor.pos]
    if len(raw) > limits.attributes:
        raise LimitError(f"at most {limits.attributes} bytes of attributes", str(len(raw)), offset=cursor.base + at)
    return Opaque(raw)
