"""Everything that this package raises: `VMStateError` is the one to catch, its subclasses say who has to fix what.

    VMStateError
      TableError      a declaration is wrong; raised when it is made, never because of bytes
      StateError      a value does not fit its field; raised when it is written
      FormatError     these bytes are no snapshot, JSON form, stream, tables or dump, or are damaged; raised when they are read
        LimitError    they go beyond a stated limit
      LoadError       intact bytes that do not fit the tables: all that is wrong, at once

A file that cannot be opened, read or written is an `OSError`, and an argument of a wrong type a `TypeError`.
One form of words for all: what was expected, what was found, where. The data are attributes; the
sentence is made only when somebody reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tagged_vmstate.paths import PathPart, format_path

GATHERED: Final = 1_000
"""Problems, or damages, that are gathered one by one; any more are counted."""


class VMStateError(Exception):
    """The base of all errors of this package: the one to catch. It survives `pickle` and `copy` with its attributes.

    Attributes:
        expected: What should have been there; empty where `found` is a sentence of its own.
        found: What was there.
        path: Field names and array indexes, from the section's top to the culprit.
        section: The section, as ``device#instance``, where known.
        file: Which of several inputs it is in, where that one has a name (`Snapshot.name`).
    """

    def __init__(self, expected: str, found: str, *, path: tuple[PathPart, ...] = ()) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found
        self.path = path
        self.section: str | None = None
        self.file: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """What `pickle` and `copy` take: the attributes, so that no subclass has to say how its constructor is called."""
        return _unfilled, (type(self), self.args), self.__dict__

    def under(self, *parts: PathPart) -> None:
        """Put the path of the error below the given names or indexes."""
        self.path = (*parts, *self.path)

    def _subject(self) -> str:
        return "got"

    def where(self) -> str:
        """The place of the error, in words; empty where nothing is known."""
        return format_path(self.section, self.path)

    def __str__(self) -> str:
        sentence = f"expected {self.expected}, {self._subject()} {self.found}" if self.expected else self.found
        place = self.where()
        return f"{sentence} - at {place}" if place else sentence


@contextlib.contextmanager
def naming(file: str | None) -> Iterator[None]:
    """Name the input in every error that is raised inside, unless the error names one already."""
    try:
        yield
    except VMStateError as error:
        error.file = error.file or file
        raise


def _unfilled(kind: type[VMStateError], args: tuple[Any, ...]) -> VMStateError:
    """An error that has yet to get its attributes."""
    return kind.__new__(kind, *args)


class TableError(VMStateError):
    """A declaration is wrong. `section` is the class or table, `path` the field."""


class StateError(VMStateError):
    """A value does not fit the type and length of its field, or an object its table."""


class FormatError(VMStateError):
    """Bytes that cannot be read as what they should be.

    Attributes:
        offset: Byte offset of the culprit, from the start of the input.
        source: What the bytes should have been: ``snapshot``, ``JSON``, ``stream``, ``section`` or ``file``.
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a loader noticed.

    Attributes:
        rule: The id of the loader's rule.
        section: ``device#instance``.
        path: Field names and array indexes, from the section's top.
        expected: What the table has.
        found: What the snapshot has.
        offset: Byte offset in the snapshot; None where nothing is there to point at.

    Where nothing was expected, `expected` is empty and `found` a sentence of its own.
    """

    rule: str
    section: str
    path: tuple[PathPart, ...]
    expected: str
    found: str
    offset: int | None

    @property
    def sentence(self) -> str:
        """It in words, without the place."""
        return f"expected {self.expected}, snapshot has {self.found}" if self.expected else self.found

    def __str__(self) -> str:
        place = format_path(self.section, self.path)
        spot = "" if self.offset is None else f" (byte {self.offset})"
        return f"{self.sentence} - at {place}{spot}"


class LoadError(VMStateError):
    """A snapshot does not fit the tables; nothing at all was changed.

    Attributes:
        problems: The reasons, in the order of the snapshot's sections: at most 1,000 of them.
        more: How many more there are.
    """

    def __init__(self, problems: Sequence[Finding], more: int = 0) -> None:
        first = problems[0]
        super().__init__(first.expected, first.found, path=first.path)
        self.section = first.section
        self.problems = tuple(problems)
        self.more = more

    def __str__(self) -> str:
        if len(self.problems) == 1 and not self.more:
            return str(self.problems[0])
        lines = [f"{len(self.problems) + self.more} problems:", *(f"  {problem}" for problem in self.problems)]
        return "\n".join([*lines, f"  and {self.more} more"] if self.more else lines)
