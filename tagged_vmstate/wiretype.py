"""What a wire type is: one object that turns its values into bytes and JSON, and back.

A type packs a value into the MessagePack object that the format prescribes for it, always at full width, and
unpacks what any MessagePack writer may have made of it (the shortest integer, a str of any width). See
`blocks` for the types of fixed width, `types` for the others and the list of all, `records` for `struct`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from typing_extensions import override

from tagged_vmstate.errors import StateError, VMStateError
from tagged_vmstate.wire import Cursor, Json, Piece, joined

T = TypeVar("T")


def brief(value: object) -> str:
    """A value for an error message, in one line, cut where it is long."""
    if value is None:
        return "nothing"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # what is odd about a value may be its repr
        text = hex(value) if isinstance(value, int) else f"a {type(value).__name__} that has no repr"
    text = re.sub(r"\n\s*", " ", text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold a string: a JSON escape may be half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def indexed(function: Callable[[Any], T], values: Iterable[object]) -> Iterator[T]:
    """`function` of each value; an error gets the index of its value into its path."""
    for index, value in enumerate(values):
        try:
            yield function(value)
        except VMStateError as error:
            error.under(index)
            raise


class WireType(ABC):
    """One wire type.

    Attributes:
        name: The name in the file.
        counted: What `length` counts where a single value has one (``bytes`` or ``bits``); None where it is nil.
        arrays: Whether there are arrays of it.
    """

    name: str
    counted: str | None = None
    arrays: bool = True

    def __repr__(self) -> str:
        return f"<wire type {self.name}>"

    def describe(self, length: int | None) -> str:
        """The type as people write it: ``uint32[4]``."""
        return self.name if length is None else f"{self.name}[{length}]"

    def misfit(self, length: int | None) -> str | None:
        """What is wrong with a length for this type; None where nothing is."""
        return f"a length in {self.counted} for `{self.name}`" if length is None and self.counted else None

    @abstractmethod
    def pack(self, value: object, length: int | None) -> bytes:
        """A value as a MessagePack object. Raises StateError where it does not fit."""

    def pieces(self, value: object, length: int | None) -> Sequence[Piece]:
        """The same in pieces, what is big as it lies in memory. Raises StateError as `pack` does."""
        return (self.pack(value, length),)

    @abstractmethod
    def unpack(self, cursor: Cursor, length: int | None) -> object:
        """The value of a MessagePack object. Raises FormatError where it is none of this type and length."""

    @abstractmethod
    def to_json(self, value: Any, length: int | None) -> Json:
        """The JSON form of a value that fits."""

    @abstractmethod
    def from_json(self, value: Json, length: int | None) -> object:
        """The other way; `pack` then decides whether the value fits. Raises StateError for what is no such form."""

    def _wrong(self, value: object, length: int | None, detail: str = "") -> StateError:
        return StateError(f"`{self.describe(length)}`{detail}", brief(value))


class BulkType(WireType):
    """A wire type whose values may be big: `pieces` is what it is made of."""

    @abstractmethod
    @override
    def pieces(self, value: object, length: int | None) -> Sequence[Piece]: ...

    @override
    def pack(self, value: object, length: int | None) -> bytes:
        return joined(self.pieces(value, length))
