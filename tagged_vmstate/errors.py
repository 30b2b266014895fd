"""Everything that this package raises, split by who must mend it.

    VMStateError
      StateError      a value does not fit its field (when it is written)
      FormatError     these bytes are no snapshot, JSON form or stream (when they are read)
        LimitError    they go beyond a stated limit

One form of words for all: what was expected, what was found, where. The data are attributes; the
sentence is made only when somebody reads it.
"""

from __future__ import annotations

from typing import TypeAlias

PathPart: TypeAlias = str | int


def format_path(section: str | None, path: tuple[PathPart, ...]) -> str:
    """A path as people read it: ``rtl8139#0 regs / tx_status[3]``."""
    names = ""
    for part in path:
        if isinstance(part, int):
            names += f"[{part}]"
        else:
            names += f" / {part}" if names else part
    return " ".join(filter(None, (section, names)))


class VMStateError(Exception):
    """The base of all errors of this package.

    Attributes:
        expected: What should have been there.
        found: What was there.
        path: Field names and array indexes, from the section's top to the culprit.
        section: The section, as ``device#instance``, where known.
    """

    def __init__(self, expected: str, found: str, *, path: tuple[PathPart, ...] = ()) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found
        self.path = path
        self.section: str | None = None

    def under(self, *parts: PathPart) -> None:
        """Put the path of the error below the given names or indexes."""
        self.path = (*parts, *self.path)

    def _subject(self) -> str:
        return "got"

    def where(self) -> str:
        """The place of the error, in words; empty where nothing is known."""
        return format_path(self.section, self.path)

    def __str__(self) -> str:
        sentence = f"expected {self.expected}, {self._subject()} {self.found}"
        place = self.where()
        return f"{sentence} - at {place}" if place else sentence


class StateError(VMStateError):
    """A value does not fit the type and length of its field."""


class FormatError(VMStateError):
    """Bytes that cannot be read as what they should be.

    Attributes:
        offset: Byte offset of the culprit, from the start of the input.
        source: What the bytes should have been: ``snapshot``, ``JSON`` or ``stream``.
        line: The line of a text, from 1; None for what is no text.
    """

    def __init__(
        self,
        expected: str,
        found: str,
        *,
        offset: int,
        path: tuple[PathPart, ...] = (),
        source: str = "snapshot",
        line: int | None = None,
    ) -> None:
        super().__init__(expected, found, path=path)
        self.offset = offset
        self.source = source
        self.line = line

    def _subject(self) -> str:
        return f"{self.source} has"

    def where(self) -> str:
        """The place of the error, in words, always with its byte offset."""
        place = super().where()
        spot = f"byte {self.offset}" if self.line is None else f"line {self.line}, byte {self.offset}"
        return f"{place} ({spot})" if place else spot


class LimitError(FormatError):
    """Input beyond a stated limit, which a caller can raise (`records.Limits`)."""
