"""libvirt's save image: a header and the domain's XML before the stream (libvirt's qemu_saveimage.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tagged_vmstate.compression import HEAD, decompressed, is_compressed, other_compression
from tagged_vmstate.files import BLOCK, Input
from tagged_vmstate.qemu.ram import stream_error, take

MAGIC: Final = b"LibvirtQemudSave"
PARTIAL: Final = b"LibvirtQemudPart"
"""In place of the magic while libvirt is still writing, so also after it died."""
_NUMBERS: Final = 19
"""uint32 behind the magic, in the byte order of the host that wrote them."""
XML_BYTES: Final = 64 << 20
"""More than any domain has; it is held in memory."""


@dataclass(frozen=True, slots=True)
class SaveImage:
    """What stands before the stream.

    Attributes:
        header: The magic and the numbers behind it, as they came.
        xml: The domain's description, and libvirt's cookie, as they came.
        stream: The stream, decompressed.
    """

    header: bytes
    xml: bytes
    stream: Input


def open_image(source: Input) -> SaveImage | None:
    """Read what stands before the stream; None where this is no save image.

    Raises:
        FormatError: The header is cut or odd, or the stream compressed in a way that is not undone here.
    """
    magic = source.peek(len(MAGIC))
    if magic == PARTIAL:
        raise stream_error("a finished save image", "one that libvirt never finished", source.position)
    if magic != MAGIC:
        return None
    header = take(source, len(MAGIC) + 4 * _NUMBERS, "the header of a libvirt save image")
    order: Literal["little", "big"] = "little" if header[len(MAGIC)] else "big"
    size = int.from_bytes(header[len(MAGIC) + 4 :][:4], order)
    if size > XML_BYTES:
        raise stream_error(f"at most {XML_BYTES} bytes of XML", str(size), len(MAGIC) + 4)
    xml = take(source, size, "XML")
    head = source.peek(HEAD)
    compression = other_compression(head)
    if compression:
        found = f"{compression}: decompress what follows these bytes first"
        raise stream_error("a stream, plain or in gzip, bzip2 or xz", found, source.position)
    if is_compressed(head):
        return SaveImage(header, xml, Input(decompressed(source.as_file(), head), BLOCK))
    return SaveImage(header, xml, source)
