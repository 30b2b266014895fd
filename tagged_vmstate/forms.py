"""The forms of a snapshot, each with its writer: what was read by `sources` is written as it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from tagged_vmstate.compression import compressed
from tagged_vmstate.errors import StateError
from tagged_vmstate.sections import Sections
from tagged_vmstate.snapshot import Snapshot, write

Write: TypeAlias = Callable[[Sections, BinaryIO], object]


@dataclass(frozen=True, slots=True)
class Form:
    """What a file is.

    Attributes:
        is_text: Whether a person can read it.
    """

    _write: Write
    _compression: str | None
    is_text: bool = False

    def write(self, sections: Sections, target: BinaryIO) -> None:
        """Write sections in this form.

        Args:
            sections: The sections; they can be read from any place.
            target: Where to.

        Raises:
            StateError: They do not fit the form.
            FormatError: They come from bytes that are damaged.
            OSError: The target does not take it.
        """
        with compressed(target, self._compression) as inner:
            self._write(sections, inner)


def form_of(sections: Sections, compression: str | None = None) -> Form:
    """The form that sections came in, by which they can be written again.

    Args:
        sections: What `open_sections` returned; read to its end, where it is no snapshot.
        compression: What was around it, as `compression_of` returned it.

    Raises:
        StateError: One file cannot hold it again: its memory lies in files of its own.
    """
    if isinstance(sections, Snapshot):
        return Form(write, compression)
    from tagged_vmstate.jsonform import JsonForm, to_json  # noqa: PLC0415  # only what the input needs

    if not isinstance(sections, JsonForm):
        from tagged_vmstate.qemu.export import export  # noqa: PLC0415  # the same

        return Form(export, compression)
    if sections.has_images:
        raise StateError("memory in the JSON itself", "image files: make a snapshot of it first, with from-json --memory DIR")
    return Form(to_json, compression, is_text=compression is None)
