"""Functions that read old bytes which no table describes, each with the release in which it goes.

A function gets a `Reader`, whose every read is checked, and returns plain values, which are checked as well.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from tagged_vmstate.codec import raised, save
from tagged_vmstate.errors import FormatError, StateError, TableError
from tagged_vmstate.records import Record, Records, decode_all
from tagged_vmstate.table import Field, Table, check_value
from tagged_vmstate.wire import joined
from tagged_vmstate.wiretype import brief


class LegacyWarning(UserWarning):
    """A legacy function was used, which goes with a release."""


class Reader:
    """Untagged bytes read one value after another; every read is checked.

    Args:
        data: The bytes of a section.
        base: Their byte offset in the file, for errors.
    """

    def __init__(self, data: bytes, base: int = 0) -> None:
        self._data = data
        self._base = base
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return len(self._data) - self._at

    @property
    def offset(self) -> int:
        """Byte offset in the file."""
        return self._base + self._at

    def error(self, expected: str, found: str, back: int = 0) -> FormatError:
        """An error at this place, or some bytes before it."""
        return FormatError(expected, found, offset=self.offset - back, source="section")

    def take(self, size: int, what: str = "bytes") -> bytes:
        """So many bytes. Raises FormatError where there are fewer."""
        if size > self.left:
            raise self.error(f"{size} bytes of {what}", f"only {self.left} left")
        self._at += size
        return self._data[self._at - size : self._at]

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        return self._data[self._at : self._at + size]

    def number(self, code: str, what: str = "a number") -> Any:
        """A big-endian number of a `struct` code. Raises FormatError where it is cut."""
        return struct.unpack(f">{code}", self.take(struct.calcsize(f">{code}"), what))[0]

    def end(self) -> None:
        """Raise FormatError where bytes are left over."""
        if self.left:
            raise self.error("the end of the section", f"{self.left} more bytes")


@dataclass(frozen=True, slots=True, init=False)
class Legacy:
    """A function that reads old bytes which no table describes, until a release.

    Args:
        function: Gets a `Reader`, returns the values of fields by their names.
        versions: The section versions that it reads.
        release: The release in which it goes: in that one and later, it is refused when it is declared.
        current: The version of the program, or the name of its distribution.

    Raises:
        TableError: The release has come.
    """

    function: Callable[[Reader], Mapping[str, Any]]
    versions: tuple[int, ...]
    release: str

    def __init__(
        self, function: Callable[[Reader], Mapping[str, Any]], versions: Iterable[int], *, release: str, current: str
    ) -> None:
        version = current if current[:1].isdigit() else metadata.version(current)
        if _numbers(version) >= _numbers(release):
            raise TableError(f"`{function.__name__}` gone since release {release}", f"it in {version}: remove it")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "versions", tuple(versions))
        object.__setattr__(self, "release", release)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    if not match:
        raise TableError("a version such as 1.4", brief(version))
    found = [int(part) for part in match[0].split(".")]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def read_by_function(table: Table, legacy: Legacy, reader: Reader, version: int) -> Records:
    """The fields of a section, as a function reads them. Warns, and raises FormatError; TableError for a field unknown."""
    gone = f"`{legacy.function.__name__}` reads version {version} of `{table.name}`; it goes with release {legacy.release}"
    warnings.warn(LegacyWarning(f"{gone}: save the state anew before"), stacklevel=2)
    start = reader.offset
    try:
        values = dict(legacy.function(reader))
    except FormatError:
        raise
    except Exception as error:
        name = legacy.function.__name__
        raise FormatError(f"`{name}` to return", raised(error), offset=reader.offset, source="section") from error
    found = []
    for name, value in values.items():
        field = table.by_name.get(name)
        if field is None:
            raise TableError(f"fields of `{table.name}` from `{legacy.function.__name__}`", f"`{name}`")
        try:
            check_value(field.type, value)
        except StateError as error:
            path = (name, *error.path)
            raise FormatError(error.expected, error.found, offset=start, path=path, source="section") from error
        found.append(record_of(field, value))
    return tuple(found)


def record_of(field: Field, value: Any) -> Record:
    """A value that fits a field, as a record."""
    if field.table is None:
        return Record(field.name, field.type.wire.name, field.type.length_of(value), value)
    made = Table("made", [Field(field.name, field.type)])
    [record] = decode_all(joined(save(made, {field.name: value})))
    return record
