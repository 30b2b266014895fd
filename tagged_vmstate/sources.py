"""Sections from a file of any kind: a snapshot, its JSON form, or a QEMU stream, told apart by the first bytes."""

from __future__ import annotations

from typing import BinaryIO, Final

from tagged_vmstate.compression import other_compression
from tagged_vmstate.errors import FormatError
from tagged_vmstate.files import Input, can_seek, read_some
from tagged_vmstate.frames import MAGIC
from tagged_vmstate.records import LIMITS, Limits
from tagged_vmstate.sections import Sections
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.text import is_json_object

HEAD: Final = 1 << 12
"""Bytes that show what a file is: enough to pass blanks before a brace."""


def open_sections(file: BinaryIO, *, salvage: bool = False, limits: Limits = LIMITS) -> Sections:
    """The sections of a file.

    Args:
        file: The file, at its start.
        salvage: Read a snapshot that may be damaged, and report: see `Snapshot.read`.
        limits: How much to take from a snapshot that is not trusted.

    Raises:
        FormatError: It is none of these, or damaged in its first bytes.
    """
    head, start = looked(file)
    check_head(head)
    if is_json_object(head):
        from tagged_vmstate.jsonform import from_json  # noqa: PLC0415  # only what the input needs

        return from_json(start)
    if is_snapshot(head):
        return Snapshot.read(start, damaged="report" if salvage else "error", limits=limits)
    from tagged_vmstate.qemu.bridge import import_stream  # noqa: PLC0415  # only what the input needs

    return import_stream(start)


def looked(file: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first bytes of a file, and the file as it was; no more than these are read."""
    if can_seek(file) and not file.tell():
        head = read_some(file, HEAD)
        file.seek(0)
        return head, file
    source = Input(file)
    return source.peek(HEAD), source.as_file()


def is_snapshot(head: bytes) -> bool:
    """Whether a file that begins so is a snapshot, or the beginning of one."""
    return head != b"" and MAGIC.startswith(head[: len(MAGIC)])


def check_head(head: bytes) -> None:
    """Raise FormatError where a file that begins so is none of ours."""
    if is_snapshot(head) or is_json_object(head):
        return
    from tagged_vmstate.qemu.bridge import MAGICS  # noqa: PLC0415  # only what the input needs

    if head.startswith(MAGICS):
        return
    compression = other_compression(head)
    found = f"the bytes {head[:8].hex(' ')}" if head else "nothing at all (an empty file)"
    found = f"{compression} data: decompress it first" if compression else found
    raise FormatError("a snapshot, its JSON form or a QEMU migration stream", found, offset=0, source="file")
