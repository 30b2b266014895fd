"""Sections from a file of any kind: a snapshot, its JSON form, or a QEMU stream, told apart by the first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal, overload

from tagged_vmstate.errors import FormatError, VMStateError
from tagged_vmstate.files import Input, can_seek, read_some
from tagged_vmstate.foreign import foreign
from tagged_vmstate.frames import MAGIC, VERSION
from tagged_vmstate.records import LIMITS, Limits
from tagged_vmstate.sections import Reporting, Section, Sections
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.text import is_json_object

HEAD: Final = 1 << 12
"""Bytes that show what a file is: enough to pass blanks before a brace."""


class Salvaged:
    """What is intact of a file of any kind.

    A snapshot is searched for intact sections behind the damage, too, and its sections have a `damage` of their own. A JSON
    form is read on after a section that is none, a stream up to the damage.

    Args:
        sections: The sections, opened so that all that is intact comes before an error.
        around: What is wrong with what is around them, such as a compression.

    Attributes:
        sections: As given.
        raw_attributes: What stands in the header, as its bytes.
        version: The version of the format.
        damage: After iterating: what was wrong that no section's own `damage` tells.
        more_damage: How much more there was.
    """

    def __init__(self, sections: Sections, around: VMStateError | None = None) -> None:
        self.sections = sections
        self.raw_attributes = sections.raw_attributes
        self.version = sections.version if isinstance(sections, Snapshot) else VERSION
        self.damage: Sequence[VMStateError] = ()
        self.more_damage = 0
        self._around = () if around is None else (around,)

    @property
    def has_gaps(self) -> bool:
        """Whether bytes were lost so far, of whatever section."""
        return isinstance(self.sections, Reporting) and bool(self.sections.damage)

    def __iter__(self) -> Iterator[Section]:
        last: Sequence[VMStateError] = ()
        try:
            yield from self.sections
        except VMStateError as error:
            last = (error.with_traceback(None),)
        first: Sequence[VMStateError] = ()
        if isinstance(self.sections, Reporting):
            first, self.more_damage = self.sections.damage, self.sections.more_damage
        self.damage = (*first, *last, *self._around)


@overload
def open_sections(
    file: BinaryIO,
    *,
    salvage: Literal[True],
    limits: Limits = LIMITS,
    beside: Path | None = None,
    around: VMStateError | None = None,
) -> Salvaged: ...
@overload
def open_sections(
    file: BinaryIO, *, salvage: Literal[False] = False, limits: Limits = LIMITS, beside: Path | None = None
) -> Sections: ...
def open_sections(
    file: BinaryIO,
    *,
    salvage: bool = False,
    limits: Limits = LIMITS,
    beside: Path | None = None,
    around: VMStateError | None = None,
) -> Sections:
    """The sections of a file.

    Args:
        file: The file, at its start.
        salvage: Read one that may be damaged, and report; a snapshot must then be able to seek.
        limits: How much to take from a snapshot that is not trusted.
        beside: The folder that the file lies in, for the memory of a JSON form that lies in files there.
        around: To salvage, what is wrong with what is around the file, such as a compression.

    Raises:
        FormatError: It is none of these, or damaged in its first bytes, or a snapshot of a later version that is not to be
            salvaged: that can be listed only.
    """
    head, start = looked(file)
    check_head(head)
    sections: Sections
    if is_json_object(head):
        from tagged_vmstate.jsonform import from_json  # noqa: PLC0415  # only what the input needs

        sections = from_json(start, beside=beside, salvage=salvage)
    elif is_snapshot(head):
        sections = snapshot = Snapshot.read(start, damaged="report" if salvage else "error", limits=limits)
        if not salvage:
            snapshot.check_version()
    else:
        from tagged_vmstate.qemu.bridge import import_stream  # noqa: PLC0415  # only what the input needs

        sections = import_stream(start, salvage=salvage)
    return Salvaged(sections, around) if salvage else sections


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


def is_stream(head: bytes) -> bool:
    """Whether a file that begins so is a QEMU stream, bare or in libvirt's save image."""
    from tagged_vmstate.qemu.bridge import MAGICS  # noqa: PLC0415  # only what the input needs

    return head.startswith(MAGICS)


def check_head(head: bytes) -> None:
    """Raise FormatError where a file that begins so is none of ours."""
    if _is_ours(head):
        return
    check_foreign(head)
    found = f"the bytes {head[:8].hex(' ')}" if head else "nothing at all (an empty file)"
    raise FormatError("a snapshot, its JSON form or a QEMU migration stream", found, offset=0, source="file")


def check_foreign(head: bytes) -> None:
    """Raise FormatError where a file that begins so is of another kind that is known, with the way from there."""
    kind = foreign(head)
    if kind and not _is_ours(head):
        raise FormatError(
            "a snapshot, its JSON form or a QEMU migration stream", f"{kind.name}: {kind.way}", offset=0, source="file"
        )


def _is_ours(head: bytes) -> bool:
    return is_snapshot(head) or is_json_object(head) or is_stream(head)
