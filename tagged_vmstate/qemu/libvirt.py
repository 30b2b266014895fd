"""libvirt's save image: a header and the domain's XML before the stream (libvirt's qemu_saveimage.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

from tagged_vmstate.compression import HEAD, damage_of, decompressed, is_compressed
from tagged_vmstate.errors import FormatError
from tagged_vmstate.files import BLOCK, Input
from tagged_vmstate.foreign import foreign
from tagged_vmstate.qemu.ram import stream_error, take

MAGIC: Final = b"LibvirtQemudSave"
PARTIAL: Final = b"LibvirtQemudPart"
"""In place of the magic while libvirt is still writing, so also after it died."""
_NUMBERS: Final = 19
"""uint32 behind the magic, in the byte order of the host that wrote them."""
_ORDER: Final = len(MAGIC)
"""Where a byte of the header that is not zero says that its numbers are little-endian."""
_COMPRESSED: Final = len(MAGIC) + 3 * 4
"""Where the header has the number of the stream's compression: behind version, data_len and was_running."""
_COMPRESSIONS: Final = {1: "gzip", 2: "bz2", 3: "lzma"}
"""virQEMUSaveFormat -> the module for what is undone here."""
XML_BYTES: Final = 64 << 20
"""More than any domain has; it is held in memory."""


@dataclass(frozen=True, slots=True)
class SaveImage:
    """What stands before the stream.

    Attributes:
        header: The magic and the numbers behind it, as they came.
        xml: The domain's description, and libvirt's cookie, as they came.
        stream: The stream, decompressed.
        unpacked: What undoes its compression, if any.
    """

    header: bytes
    xml: bytes
    stream: Input
    unpacked: BinaryIO | None

    def damage(self) -> FormatError | None:
        """What is wrong with it, once the stream has been read."""
        if self.header.startswith(PARTIAL):
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
    header = take(source, len(MAGIC) + 4 * _NUMBERS, "the header of a libvirt save image")
    size = int.from_bytes(header[len(MAGIC) + 4 :][:4], _order(header))
    if size > XML_BYTES:
        raise stream_error(f"at most {XML_BYTES} bytes of XML", str(size), len(MAGIC) + 4)
    xml = take(source, size, "XML")
    head = source.peek(HEAD)
    kind = foreign(head)
    if kind and kind.filter:
        found = f"{kind.name}: decompress what follows these bytes, with tail -c +{source.position + 1} FILE | {kind.filter}"
        raise stream_error("a stream, plain or in gzip, bzip2 or xz", found, source.position)
    if is_compressed(head):
        unpacked = decompressed(source.as_file(), head, salvage=salvage)
        return SaveImage(header, xml, Input(unpacked, BLOCK), unpacked)
    return SaveImage(header, xml, source, None)


def _unfinished() -> FormatError:
    return stream_error("a finished save image", "one that libvirt never finished", 0)


def compression_said(header: bytes) -> tuple[str | None, bytes]:
    """The module for the compression that a header names, and the header for a stream that is compressed so.

    One that is not done here is none in the header that is returned.
    """
    number = int.from_bytes(header[_COMPRESSED:][:4], _order(header))
    name = _COMPRESSIONS.get(number)
    return name, header if name else header[:_COMPRESSED] + bytes(4) + header[_COMPRESSED + 4 :]


def _order(header: bytes) -> Literal["little", "big"]:
    return "little" if header[_ORDER : _ORDER + 1].strip(b"\0") else "big"
