"""What a section is, wherever it comes from: the fields of one device's instance, or a part of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from typing_extensions import override

from tagged_vmstate.errors import FormatError, StateError, VMStateError
from tagged_vmstate.frames import Kind, Lead, check_attributes, label
from tagged_vmstate.records import Record, Records, all_pieces, decode_all
from tagged_vmstate.wire import Cursor, Opaque, Piece, joined, pack_map_head, pack_str
from tagged_vmstate.wiretype import brief

NO_ATTRIBUTES: Final = Opaque.of({})
ONCE: Final = "each name once over the parts of a section, unless it is `sparse` of one length"
REPEATED: Final = "it again"


def packed(attributes: Mapping[str, object]) -> Opaque:
    """The attributes of a header or section as bytes; an `Opaque` among them as it stands.

    Raises:
        StateError: MessagePack, or the format, has no place for one; names it.
    """
    raw = bytearray(pack_map_head(len(attributes)))
    for name, value in attributes.items():
        if not isinstance(name, str):
            raise StateError("attributes with strings as names", brief(name))
        try:
            raw += pack_str(name) + (value if isinstance(value, Opaque) else Opaque.of(value)).raw
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StateError(f"an attribute {brief(name)} that MessagePack can hold", f"{brief(value)} ({error})") from None
    found = Opaque(bytes(raw))
    check_attributes(found.raw)
    return found


def entries(attributes: Opaque) -> dict[str, Opaque]:
    """The attributes of a header or section, the value of each as its bytes."""
    cursor = Cursor(attributes.raw)
    count = cursor.read_map("a map of attributes")
    return {cursor.read_str("the name of an attribute"): Opaque(cursor.skip("its value")) for _ in range(count)}


def decoded(attributes: Opaque) -> dict[str, Any]:
    """The attributes of a header or section; one that has no Python form is an `Opaque`."""
    try:
        return dict(attributes.decode())
    except FormatError:
        return {name: _decoded(value) for name, value in entries(attributes).items()}


def _decoded(value: Opaque) -> Any:
    try:
        return value.decode()
    except FormatError:
        return value


class Section:
    """One frame of a snapshot: the fields of a device's instance, or a part of them.

    Attributes:
        device: The name of the device.
        instance: Which of several of that name, a uint32.
        kind: ``section``, or ``part`` where more of the same section follows.
        raw_attributes: What the writer added, as its bytes.

    Raises:
        StateError: MessagePack cannot hold an attribute.
    """

    def __init__(
        self,
        device: str,
        instance: int,
        records: Iterable[Record],
        *,
        kind: Kind = "section",
        attributes: Mapping[str, object] | Opaque = NO_ATTRIBUTES,
    ) -> None:
        self.device = device
        self.instance = instance
        self.kind: Kind = kind
        self.raw_attributes = attributes if isinstance(attributes, Opaque) else packed(attributes)
        self._records = tuple(records)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label}>"

    @property
    def label(self) -> str:
        """``device#instance``, as it stands in paths."""
        return label(self.device, self.instance)

    @property
    def lead(self) -> Lead:
        """What its frame begins with. Raises StateError where no reader would take that."""
        return Lead.of(self.kind, self.device, self.instance, self.raw_attributes)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the writer added. A value that has no Python form is an `Opaque`: a key twice in one map, a date beyond reach."""
        return decoded(self.raw_attributes)

    def records(self) -> Records:
        """Its fields."""
        return self._records

    def pieces(self) -> Sequence[Piece]:
        """Its fields as bytes in pieces, what is big in them as it lies in memory. Raises StateError where one does not fit."""
        try:
            return all_pieces(self.records())
        except StateError as error:
            error.section = self.label
            raise

    def payload(self) -> bytes:
        """Its fields as bytes. Raises StateError as `pieces` does."""
        return joined(self.pieces())


class EncodedSection(Section):
    """A section whose fields are bytes already, in one piece or several."""

    def __init__(self, lead: Lead, *pieces: Piece) -> None:
        super().__init__(lead.device, lead.instance, (), kind=lead.kind, attributes=lead.attributes)
        self._lead = lead
        self._pieces = pieces

    @property
    @override
    def lead(self) -> Lead:
        return self._lead

    @override
    def records(self) -> Records:
        return decode_all(self.payload())

    @override
    def pieces(self) -> Sequence[Piece]:
        return self._pieces


class Sections(Protocol):
    """What every source of sections is: a snapshot file, a JSON form, a stream being imported."""

    @property
    def raw_attributes(self) -> Opaque:
        """What stands in the header, as its bytes."""
        ...

    def __iter__(self) -> Iterator[Section]:
        """The sections in their order."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """Sections that can be read on after damage.

    Attributes:
        damage: After iterating: what was wrong that no section's own `damage` tells; at most 1,000 entries.
        more_damage: How many more there were.
    """

    damage: Sequence[VMStateError]
    more_damage: int


class PartNames:
    """The names over the parts of each section: only a sparse field may come again, and only with its length."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, tuple[int, Record]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._seen

    def check(self, section: Section, place: int, records: Records) -> Record | None:
        """The first field that should not be there again; None where all is well.

        Args:
            section: One frame of a section.
            place: What tells this frame from others: it may be looked at twice.
            records: The fields of the frame.
        """
        if section.kind == "section" and section.label not in self:
            return None
        seen = self._seen.setdefault(section.label, {})
        for record in records:
            first, other = seen.setdefault(record.name, (place, record.replace(value=None)))
            same = record.type == other.type == "sparse" and record.length == other.length
            if first != place and not same:
                return record
        return None
