"""A snapshot for another QEMU: the layout of a reference stream, the values of the snapshot, matched by name.

The reference was taken of the other QEMU at its reset, so what it holds are that machine's defaults: they fill what the
snapshot lacks. What the reference has no place for is lost; each loss is listed, and refused unless it is at its default
or somebody has named it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast

from tagged_vmstate.blocks import BlockType
from tagged_vmstate.errors import StateError, naming
from tagged_vmstate.frames import label
from tagged_vmstate.paths import Aliases, Path, Pattern, format_path
from tagged_vmstate.qemu import stream
from tagged_vmstate.qemu.encode import encode_device
from tagged_vmstate.qemu.export import BEGIN, Head, MemoryWriter, Origin, plain_item
from tagged_vmstate.records import Record, Records, wire_type
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot

What: TypeAlias = Literal["renamed", "resized", "filled", "dropped", "lost"]
RAM_LABEL: Final = label(stream.RAM, 0)
RESIZABLE: Final = "/rom@"
"""Blocks of tables for the firmware, which QEMU takes in any size."""


@dataclass(frozen=True, slots=True)
class Move:
    """Something that is not in the new stream as it was in the snapshot.

    Attributes:
        what: ``renamed``, ``resized``, ``filled`` from the reference, ``dropped``, or ``lost``: in use and not named.
        section: ``device#instance``.
        path: Names and indexes.
        said: What it is about, in words.
    """

    what: What
    section: str
    path: Path
    said: str

    @property
    def place(self) -> str:
        """Where it is: ``device#instance/field/field``."""
        return format_path(self.section, self.path)


class Likeness:
    """A snapshot in the layout of a reference.

    Args:
        snapshot: The snapshot.
        reference: A stream of the other QEMU, imported.
        aliases: What the snapshot calls the devices and fields of the reference that have another name in it.
        drops: What may be lost.

    Attributes:
        moves: Everything that does not go over as it is.
        dropped: Those of `drops` that named something that would be lost.

    Raises:
        StateError: One of the two did not come from a QEMU stream, or they are of different architectures.
        FormatError: One of them is damaged.
    """

    def __init__(self, snapshot: Snapshot, reference: Snapshot, aliases: Aliases, drops: Sequence[Pattern] = ()) -> None:
        self.moves: list[Move] = []
        self._from = Origin(snapshot)
        with naming(reference.name):
            self._like = Origin(reference)
            self._like_structs = self._like.structs()
        self._aliases = aliases
        self._drops = drops
        self._ours: dict[str, str] = {}
        self.dropped: list[Pattern] = []
        self._left_out = set(self._memory_left_out())
        self._sections = dict(self._merged())
        commands = {said["command"] for _, said in self._like.of_type(stream.COMMAND)}
        for section, said in self._from.of_type(stream.COMMAND):
            if said["command"] not in commands:
                text = f"the command 0x{said['command']:02x} to the other QEMU, which is no state"
                self._note("dropped", section.label, (), text)

    @property
    def lost(self) -> list[Move]:
        """What is in use and would be lost."""
        return [move for move in self.moves if move.what == "lost"]

    def write(self, target: BinaryIO) -> None:
        """Write the stream. Raises StateError where a value does not fit, FormatError and OSError."""
        memory = MemoryWriter(self._from.page_size, self._left_out)
        parts = self._from.memory()  # all of it where the reference lists its blocks first
        target.write(BEGIN)
        for place, (section, said) in enumerate(self._like.sections):
            if place in self._sections:
                target.write(self._sections[place])
            elif section.device != stream.RAM:
                target.write(plain_item(section, said))
            elif "total" in said:
                for part, told in parts:
                    head = Head.of(part, {**told, "id": said["id"], "footer": said["footer"]})
                    target.writelines(memory.part(head, part, told))
        target.write(self._like.tail())

    def _memory_left_out(self) -> Iterator[str]:
        """The blocks of memory that are lost by permission."""
        ours, wanted = (
            {record.name: record.length for section, said in origin.memory() if "total" in said for record in section.records()}
            for origin in (self._from, self._like)
        )
        common = {name for name in ours.keys() & wanted.keys() if not name.startswith(RESIZABLE)}
        if not common or self._from.page_size != self._like.page_size:
            found = f"memory {', '.join(wanted) or 'nowhere'}, in pages of {self._like.page_size} bytes"
            mine = f"memory {', '.join(ours) or 'nowhere'}, in pages of {self._from.page_size} bytes"
            raise StateError(f"a reference of the same architecture ({mine})", found)
        for name, length in ours.items():
            other = wanted.get(name)
            if other is None:
                if self._lose(RAM_LABEL, (name,), f"{length} bytes of memory", is_default=False):
                    yield name
            elif other != length and not name.startswith(RESIZABLE):
                error = StateError(
                    f"{other} bytes, as in the reference: take that of a machine with as much memory", str(length), path=(name,)
                )
                error.section = RAM_LABEL
                raise error
            elif other != length:
                self._note("resized", RAM_LABEL, (name,), f"the reference has {other} bytes, this one {length}")
        for name in wanted:
            if name not in ours:
                self._note("filled", RAM_LABEL, (name,), "memory as the machine starts with it")

    def _merged(self) -> Iterator[tuple[int, bytes]]:
        """Place in the reference -> the bytes of a device, with the values of the snapshot."""
        ours: dict[str, deque[Section]] = {}
        for section, said in self._from.of_type(*stream.SECTIONS):
            if section.device != stream.RAM:
                ours.setdefault(Head.of(section, said).label, deque()).append(section)
        structs = self._like_structs
        for place, (section, said) in enumerate(self._like.sections):
            if said["type"] not in stream.SECTIONS or section.device == stream.RAM:
                continue
            head = Head.of(section, said)
            known = structs.get(head.label) if head.type == stream.SECTION_FULL else None
            records = section.records()
            alias = self._aliases.get(head.label, ())
            candidates = ours.get(label(alias or head.name, head.instance))
            if candidates:
                if alias:
                    self._ours[head.label] = label(alias, head.instance)
                    self._note("renamed", head.label, (), f"`{alias}` in the snapshot")
                records = self._struct(head.label, (), records, candidates.popleft().records())
            else:
                self._note("filled", head.label, (), "the whole device, from the reference")
            try:
                data = encode_device(known.pop() if known else None, records, said.get("size"))
                yield place, head.around(data, said.get("turns", ()))
            except StateError as error:
                error.section = head.label
                raise
        for name, left in ours.items():
            for section in left:
                is_default = all(record.is_default for record in section.records())
                self._lose(name, (), "the whole device", is_default=is_default)

    def _struct(self, section: str, path: Path, like: Records, ours: Records) -> Records:
        """The fields of the reference with our values."""
        left = {record.name: record for record in ours}
        found = []
        for wanted in like:
            here = (*path, wanted.name)
            alias = self._aliases.get(section, here)
            record = left.pop(alias or wanted.name, None)
            if record and alias:
                self._note("renamed", section, here, f"`{alias}` in the snapshot")
            if record is None:
                self._note("filled", section, here, f"`{wanted.describe()}`, from the reference")
            found.append(wanted if record is None else self._field(section, here, wanted, record))
        for record in left.values():
            self._lose(section, (*path, record.name), f"`{record.describe()}`", is_default=record.is_default)
        return tuple(found)

    def _field(self, section: str, path: Path, like: Record, ours: Record) -> Record:
        """Our value in the type and length of the reference; that of the reference where ours has no place."""
        if like.type == ours.type == "struct" and (like.length is None) == (ours.length is None):
            return self._structs(section, path, like, ours)
        if (like.type, like.length) == (ours.type, ours.length):
            return like.replace(value=ours.value)
        found, is_whole = _resized(like, ours)
        if found is not None and is_whole:
            self._note("resized", section, path, f"`{ours.describe()}` to `{like.describe()}`")
            return found
        self._lose(section, path, f"`{ours.describe()}` does not fit `{like.describe()}`", is_default=ours.is_default)
        return found or like

    def _structs(self, section: str, path: Path, like: Record, ours: Record) -> Record:
        """A struct, or an array of them; what is beyond either end is filled or lost."""
        if like.length is None:
            return like.replace(
                value=self._element(section, path, cast("Records | None", like.value), cast("Records | None", ours.value))
            )
        wanted = cast("Sequence[Records | None]", like.value)
        given = cast("Sequence[Records | None]", ours.value)
        pairs = enumerate(zip(wanted, given, strict=False))
        found = [self._element(section, (*path, index), first, second) for index, (first, second) in pairs]
        if len(given) > len(wanted):
            self._lose(section, path, f"elements from {len(wanted)} on", is_default=ours.is_default)
        elif len(wanted) > len(given):
            self._note("filled", section, path, f"elements from {len(given)} on, from the reference")
        return like.replace(value=(*found, *wanted[len(given) :]))

    def _element(self, section: str, path: Path, like: Records | None, ours: Records | None) -> Records | None:
        """The fields of one struct; None is a null pointer, and what is null in QEMU its machine decides."""
        if ours is None and like is not None:
            self._note("filled", section, path, "a struct that is null in the snapshot, from the reference")
        elif like is None and ours is not None:
            self._lose(section, path, "a struct that is null in the reference", is_default=False)
        elif like is not None and ours is not None:
            return self._struct(section, path, like, ours)
        return like

    def _note(self, what: What, section: str, path: Path, said: str) -> None:
        self.moves.append(Move(what, section, path, said))

    def _lose(self, section: str, path: Path, said: str, *, is_default: bool) -> bool:
        """Note that something has no place; return whether it may go."""
        places = [section, self._ours[section]] if section in self._ours else [section]
        named = [pattern for pattern in self._drops if any(pattern.covers(place, path) for place in places)]
        self.dropped += (pattern for pattern in named if pattern not in self.dropped)
        may_go = is_default or bool(named)
        self._note("dropped" if may_go else "lost", section, path, said + (", at its default" if is_default else ""))
        return may_go


def _resized(like: Record, ours: Record) -> tuple[Record | None, bool]:
    """Our value in another width or length, as far as it fits, and whether all of it does; None where nothing does.

    Numbers change their width, arrays and buffers their length: what is cut off must be zeros, what is longer ends as in
    the reference. An array of one is a single value in QEMU's description.
    """
    kinds = wire_type(like.type), wire_type(ours.type)
    if all(isinstance(kind, BlockType) for kind in kinds):
        values = _listed(ours)
        wanted = _listed(like)
        cut = values[len(wanted) :]
        values = [*values[: len(wanted)], *wanted[len(values) :]]
        found = like.replace(value=values[0] if like.length is None else values)
        try:
            kinds[0].pack(found.value, found.length)
        except StateError:
            return None, False
        return found, not any(cut)
    first, second = like.value, ours.value
    if like.type == ours.type and isinstance(first, bytes) and isinstance(second, bytes):
        size = len(first)
        return like.replace(value=second[:size] + first[len(second) :]), not any(second[size:])
    return None, False


def _listed(record: Record) -> list[Any]:
    return [record.value] if record.length is None else list(cast("Sequence[Any]", record.value))
