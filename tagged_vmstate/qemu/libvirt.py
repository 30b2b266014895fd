"""libvirt's save image: a header and the domain's XML ahead of the stream (libvirt's qemu_saveimage.h).

Both are a section of the snapshot, with the header's numbers and the texts as fields. A text that is not UTF-8, or does not end
as libvirt ends one, is kept as bytes. On the way back each stands where it stood, as far as there is room: libvirt leaves 64 KiB
after the texts, for longer ones.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias

from tagged_vmstate.compression import HEAD, damage_of, decompressed, is_compressed
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.files import BLOCK, Input
from tagged_vmstate.foreign import foreign
from tagged_vmstate.qemu.ram import stream_error, take
from tagged_vmstate.records import Record, Records
from tagged_vmstate.wiretype import brief

Order: TypeAlias = Literal["little", "big"]
MAGIC: Final = b"LibvirtQemudSave"
PARTIAL: Final = b"LibvirtQemudPart"
"""In place of the magic while libvirt is still writing, so also after it died."""
_NUMBERS: Final = ("version", "size", "was_running", "format", "cookie_offset")
"""uint32 after the magic, in the byte order of the host that wrote them; the size is that of the texts."""
_UNUSED: Final = 4 * 14
_HEADER: Final = len(MAGIC) + 4 * len(_NUMBERS) + _UNUSED


class Format(enum.IntEnum):
    """How a stream is compressed: libvirt's virQEMUSaveFormat."""

    raw = 0
    gzip = 1
    bzip2 = 2
    xz = 3
    lzop = 4
    zstd = 5
    sparse = 6


_COMPRESSIONS: Final[Mapping[int, str]] = {Format.gzip: "gzip", Format.bzip2: "bz2", Format.xz: "lzma"}
"""Format -> the module for what is undone here."""
XML_BYTES: Final = 64 << 20
"""More than any domain has; it is held in memory."""


@dataclass(frozen=True, slots=True)
class SaveImage:
    """What stands before the stream.

    Attributes:
        said: For the attributes of its section: byte order, size of the texts, what stands in the unused part of the header.
        records: The fields of its section.
        is_partial: libvirt never finished it.
        stream: The stream, decompressed.
        unpacked: What undoes its compression, if any.
    """

    said: dict[str, object]
    records: Records
    is_partial: bool
    stream: Input
    unpacked: BinaryIO | None

    def damage(self) -> FormatError | None:
        """What is wrong with it, once the stream has been read."""
        if self.is_partial:
            return _unfinished()
        return damage_of(self.unpacked) if self.unpacked else None


def open_image(source: Input, *, salvage: bool = False) -> SaveImage | None:
    """Read what stands before the stream; None where this is no save image.

    Args:
        source: The file.
        salvage: Read one that may be damaged or unfinished; `SaveImage.damage` tells.

    Raises:
        FormatError: The header is cut or odd, or the stream compressed in a way that is not undone here.
    """
    magic = source.peek(len(MAGIC))
    if magic == PARTIAL and not salvage:
        raise _unfinished()
    if magic not in {MAGIC, PARTIAL}:
        return None
    header = take(source, _HEADER, "the header of a libvirt save image")
    order, numbers = _numbers(header)
    if numbers["size"] > XML_BYTES:
        raise stream_error(f"at most {XML_BYTES} bytes of XML", str(numbers["size"]), len(MAGIC) + 4)
    said: dict[str, object] = {"order": order, "size": numbers["size"]}
    unused = header[-_UNUSED:]
    if unused.strip(b"\0"):
        said["unused"] = unused
    records = _records(numbers, take(source, numbers["size"], "XML"))
    head = source.peek(HEAD)
    kind = foreign(head)
    if kind and kind.filter:
        found = f"{kind.name}: decompress what follows these bytes, with tail -c +{source.position + 1} FILE | {kind.filter}"
        raise stream_error("a stream, plain or in gzip, bzip2 or xz", found, source.position)
    unpacked = decompressed(source.as_file(), head, salvage=salvage) if is_compressed(head) else None
    return SaveImage(said, records, magic == PARTIAL, Input(unpacked, BLOCK) if unpacked else source, unpacked)


def _unfinished() -> FormatError:
    return stream_error("a finished save image", "one that libvirt never finished", 0)


def _numbers(header: bytes) -> tuple[Order, dict[str, int]]:
    """The byte order of a header and its numbers: as libvirt finds it, by the version, which is small."""
    places = {name: header[len(MAGIC) + 4 * place :][:4] for place, name in enumerate(_NUMBERS)}
    order: Order = "big" if int.from_bytes(places["version"], "big") < int.from_bytes(places["version"], "little") else "little"
    return order, {name: int.from_bytes(data, order) for name, data in places.items()}


def _records(numbers: Mapping[str, int], data: bytes) -> Records:
    """The fields of the section."""
    found = [Record(name, "uint32", None, number) for name, number in numbers.items() if name != "size"]
    offset = numbers["cookie_offset"]
    has_cookie = 0 < offset <= len(data)
    found.append(_text("xml", data[:offset] if has_cookie else data))
    if has_cookie:
        found.append(_text("cookie", data[offset:]))
    return tuple(found)


def _text(name: str, data: bytes) -> Record:
    """A text that zeros end; anything else stays bytes."""
    text = data.rstrip(b"\0")
    if len(text) < len(data) and b"\0" not in text:
        try:
            return Record(name, "string", None, text.decode())
        except UnicodeDecodeError:
            pass
    return Record(name, "buffer", len(data), data)


def wrapper(records: Records, said: Mapping[str, Any]) -> tuple[str | None, bytes]:
    """What stands ahead of the stream, from the section, and the module for the compression of the stream.

    A text that has grown takes from the room after it; where that is not enough, what follows moves. A format that is not
    written here becomes that of a plain stream, which then follows.

    Raises:
        StateError: The fields or attributes are none of a save image.
    """
    values: dict[str, Any] = {record.name: record.value for record in records}
    if values.keys() == {"header", "xml"}:
        values, said = _of_earlier_release(values)
    numbers = {name: _number({**values, "size": said.get("size")}, name) for name in _NUMBERS}
    data = _ended(values, "xml")
    if "cookie" in values:
        data = _padded(data, numbers["cookie_offset"])
        numbers["cookie_offset"] = len(data)
        data += _ended(values, "cookie")
    data = _padded(data, numbers["size"])
    numbers["size"] = len(data)
    compression = _COMPRESSIONS.get(numbers["format"])
    if not compression and numbers["format"] in set(Format):
        numbers["format"] = Format.raw
    order, unused = said.get("order"), said.get("unused", bytes(_UNUSED))
    if order not in {"little", "big"} or not isinstance(unused, bytes) or len(unused) != _UNUSED:
        raise StateError("the byte order and unused part of a save image's header, in the attributes", brief((order, unused)))
    header = b"".join(number.to_bytes(4, order) for number in numbers.values())
    return compression, b"".join((MAGIC, header, unused, data))


def _of_earlier_release(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields and attributes of a section that is the header and the texts as bytes."""
    header, data = values["header"], values["xml"]
    if not isinstance(header, bytes) or len(header) != _HEADER:
        raise StateError(f"{_HEADER} bytes of a save image's header", brief(header))
    order, numbers = _numbers(header)
    return {**numbers, "xml": data}, {"order": order, "size": numbers["size"], "unused": header[-_UNUSED:]}


def _number(values: Mapping[str, Any], name: str) -> int:
    found = values.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 32:
        raise StateError("a number of a save image's header, of 0 to 2**32-1", brief(found), path=(name,))
    return found


def _ended(values: Mapping[str, Any], name: str) -> bytes:
    """A text with the zero that ends it; bytes as they are."""
    found = values.get(name)
    if isinstance(found, bytes):
        return found
    if not isinstance(found, str):
        raise StateError("a text of a save image, or its bytes", brief(found), path=(name,))
    return found.encode() + b"\0"


def _padded(data: bytes, size: int) -> bytes:
    if size > max(XML_BYTES, len(data)):
        raise StateError(f"at most {XML_BYTES} bytes of XML", str(size))
    return data.ljust(size, b"\0")
