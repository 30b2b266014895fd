"""A snapshot for another QEMU: the layout of a reference stream, the values of the snapshot, matched by name.

The reference was taken of the other QEMU at its reset, so what it holds are that machine's defaults: they fill what the
snapshot lacks. Of a machine that has run they are another guest's state, and are refused unless that is asked
for. What the reference has no place for is lost; each loss is listed, and refused unless it is at its default or named.

Some things do not go by the sizes of the reference. What QEMU reads by code of its own delimits itself and goes over whole.
An array is as long as the field that counts it says. Pairs of keys and values are matched by key. A field that holds the
version of a struct decides which fields QEMU reads (`mig_version_id` of hw/scsi/esp.c), so it is the reference's.
"""

from __future__ import annotations

import operator
from collections import ChainMap, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast

from tagged_vmstate.blocks import BlockType
from tagged_vmstate.errors import StateError, naming
from tagged_vmstate.frames import label
from tagged_vmstate.paths import Aliases, Path, Pattern, format_path
from tagged_vmstate.qemu import ramblocks, stream
from tagged_vmstate.qemu.describe import Slots, described, extended, fitted, versions
from tagged_vmstate.qemu.encode import encode_device, is_kept
from tagged_vmstate.qemu.export import Head, MemoryWriter, Origin, OriginError, in_section, plain_item, said_of
from tagged_vmstate.qemu.keyed import PAIRS, matched, numbers
from tagged_vmstate.qemu.reset import has_run
from tagged_vmstate.qemu.subsections import KnownSubsections
from tagged_vmstate.qemu.vmdesc import UNUSED, Slot, Struct
from tagged_vmstate.records import Record, Records, is_known_type, wire_type
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot

What: TypeAlias = Literal["renamed", "resized", "kept", "carried", "filled", "dropped", "lost", "taken"]
Counts: TypeAlias = ChainMap[tuple[int, int], None]
"""Integers that differ, in the reference and in the snapshot: each may be the length of an array that follows it, or of one in
a struct that follows it."""
ASK_FOR_TABLES: Final = "--tables with that QEMU's -dump-vmstate may know it"
_FIXED: Final = frozenset({"buffer", UNUSED, "bitmap"})
"""Types without names inside whose size stands in QEMU's tables."""
_COMPARED: Final = {" equal": operator.eq, " le": operator.ge}
"""Endings of QEMU's types: what its own value must be to the one that it loads (migration/vmstate-types.c)."""
_KEYS: Final = 8
"""Keys that a note names."""


@dataclass(frozen=True, slots=True)
class Move:
    """Something that is not in the new stream as it was in the snapshot.

    Attributes:
        what: ``renamed``, ``resized``, ``kept`` in a size that the reference does not have, ``carried``: a subsection or a field
            on a condition that the reference lacks, ``filled`` from the reference, ``dropped``, ``lost``: in use and not named,
            or ``taken``: it would be filled from a reference that has run.
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
        takes: The state of a reference that has run may be written.
        resized: The blocks of memory that are to have the sizes of the reference.
        known: What the other QEMU knows: subsections and fields that are written although the reference lacks them.

    Attributes:
        moves: Everything that does not go over as it is.
        dropped: Those of `drops` that named something that would be lost.
        has_run: What says that the machine of the reference has run; None where it is at its reset.

    Raises:
        OriginError: One of the two did not come from a QEMU stream, or they are of different architectures.
        StateError: A value does not fit.
        FormatError: One of them is damaged.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        reference: Snapshot,
        aliases: Aliases,
        drops: Sequence[Pattern] = (),
        *,
        takes: bool = False,
        resized: Sequence[Pattern] = (),
        known: KnownSubsections | None = None,
    ) -> None:
        self.moves: list[Move] = []
        self._from = Origin(snapshot)
        self._reference = reference.name
        with naming(reference.name):
            self._like = Origin(reference)
            self._like_structs = self._like.structs()
            self.has_run = has_run(self._like)
        self._aliases = aliases
        self._drops = drops
        self._takes = takes
        self._known = known
        self._slots: Slots | None = None
        self._our_slots: Slots | None = None
        self._device: tuple[str, int] = "", 0
        self._added: dict[Path, list[tuple[int, Slot]]] = {}
        self._ours: dict[str, str] = {}
        self._written: dict[str, list[Struct]] = {}
        self.dropped: list[Pattern] = []
        self._aliased: dict[str, str] = {}
        self._found: set[str] = set()
        self._blocks = dict(self._memory(resized))
        self._sections = dict(self._merged())
        self._note_commands()

    @property
    def lost(self) -> list[Move]:
        """What is in use and would be lost."""
        return [move for move in self.moves if move.what == "lost"]

    @property
    def taken(self) -> list[Move]:
        """What would be the state of the reference's machine."""
        return [move for move in self.moves if move.what == "taken"]

    @property
    def unnamed(self) -> dict[str, str]:
        """Names that the aliases give and the snapshot has nowhere -> the place in the reference of the first."""
        return {name: place for name, place in self._aliased.items() if name not in self._found}

    def write(self, target: BinaryIO) -> None:
        """Write the stream. Raises StateError where a value does not fit, FormatError and OSError."""
        memory = MemoryWriter(self._from.page_size, self._blocks)
        parts = self._from.memory()  # all of it where the reference lists its blocks first
        target.write(stream.BEGIN)
        for place, (section, said) in enumerate(self._like.sections):
            with in_section(section):
                if place in self._sections:
                    target.write(self._sections[place])
                elif section.device != stream.RAM:
                    target.write(plain_item(section, said))
                elif "total" in said:
                    for part, told in parts:
                        head = Head.of(part, {**told, "id": said["id"], "footer": said["footer"]})
                        target.writelines(memory.part(head, part, told))
        target.write(self._like.tail(self._description()))

    def _description(self) -> bytes | None:
        """That of the reference, with the sizes that go over."""
        data = self._like.description()
        return described(data, self._written) if data is not None and self._written else data

    def _memory(self, resized: Sequence[Pattern]) -> Iterator[tuple[str, int | None]]:
        """Name -> size of the blocks of memory that are written in another size, or None: not at all, by permission."""
        ours, wanted = ramblocks.listed(self._from), ramblocks.listed(self._like)
        common = {name for name in ours.keys() & wanted.keys() if not ramblocks.resizable(name)}
        if not common or self._from.page_size != self._like.page_size:
            found = f"memory {', '.join(wanted) or 'nowhere'}, in pages of {self._like.page_size} bytes"
            mine = f"memory {', '.join(ours) or 'nowhere'}, in pages of {self._from.page_size} bytes"
            with naming(self._reference):
                raise OriginError(f"a reference of the same architecture ({mine})", found)
        for change in ramblocks.changes(self._from, self._like, resized):
            if change.is_loss:
                self._lose(ramblocks.LABEL, (change.name,), change.said, is_default=False, way=change.way)
            else:
                self._note("resized", ramblocks.LABEL, (change.name,), change.said)
            yield change.name, change.size
        for name in wanted:
            if name not in ours:
                self._note("filled", ramblocks.LABEL, (name,), "memory as the machine starts with it")

    def _note_commands(self) -> None:
        known = {command for _, command in _commands(self._like)}
        for section, command in _commands(self._from):
            if command not in known:
                self._note("dropped", section.label, (), f"the command 0x{command:02x} to the other QEMU, which is no state")

    def _merged(self) -> Iterator[tuple[int, bytes]]:
        """Place in the reference -> the bytes of a device, with the values of the snapshot."""
        ours: dict[str, deque[tuple[Section, Head, Struct | None]]] = {}
        for section, said, our_struct in self._from.items():
            if said["type"] in stream.SECTIONS and section.device != stream.RAM:
                with in_section(section):
                    head = Head.of(section, said)
                ours.setdefault(head.label, deque()).append((section, head, our_struct))
        structs = self._like_structs
        for place, (section, said) in enumerate(self._like.sections):
            if said["type"] not in stream.SECTIONS or section.device == stream.RAM:
                continue
            with in_section(section):
                head = Head.of(section, said)
            known = structs.get(head.label) if head.type == stream.SECTION_FULL else None
            struct = known.pop() if known else None
            self._slots = Slots(struct) if struct else None
            self._device, self._added = (struct.name if struct else "", head.version), {}
            records = section.records()
            alias = self._aliases.get(head.label, ())
            candidates = ours.get(label(alias or head.name, head.instance))
            self._note_alias(alias, head.label, (), is_found=bool(candidates))
            if candidates:
                if alias:
                    self._ours[head.label] = label(alias, head.instance)
                    self._note("renamed", head.label, (), f"`{alias}` in the snapshot")
                given, other, our_struct = candidates.popleft()
                self._our_slots = Slots(our_struct) if our_struct else None
                if struct or head.version == other.version:
                    records = self._struct(head.label, (), records, given.records(), ChainMap())
                else:
                    text = f"version {other.version} of what nothing describes; the reference has version {head.version}"
                    self._replace(head.label, (), text, "the whole device", is_default=False)
                    given = section
            else:
                given = section
                self._fill(head.label, (), "the whole device")
            with in_section(section):
                data = self._encoded(head.label, struct, records, said.get("size"))
                yield place, head.around(data, said_of(given).get("turns", ()))
        for name, left in ours.items():
            for section, _, _ in left:
                is_default = all(record.is_default for record in section.records())
                self._lose(name, (), "the whole device", is_default=is_default)

    def _encoded(self, section: str, struct: Struct | None, records: Records, size: int | None) -> bytes:
        """The bytes of a device, by the reference's description fitted to them, where that is all that leads to them."""
        if struct and size is None:
            struct = fitted(extended(struct, self._added), records)
            self._written.setdefault(section, []).append(struct)
        return encode_device(struct, records, size)

    def _struct(self, section: str, path: Path, like: Records, ours: Records, outer: Counts) -> Records:
        """The fields of the reference with our values."""
        counts = outer.new_child()
        found_versions = versions(self._slots, self._our_slots, path)
        left = {record.name: record for record in self._keyed(section, path, like, ours) if record.type != UNUSED}
        found = []
        for wanted in like:
            if wanted.type == UNUSED:
                found.append(wanted)
                continue
            here = (*path, wanted.name)
            alias = self._aliases.get(section, here)
            record = left.pop(alias or wanted.name, None)
            self._note_alias(alias, section, here, is_found=record is not None)
            if record and alias:
                self._note("renamed", section, here, f"`{alias}` in the snapshot")
            if record and (count := _count(wanted, record)) and count in found_versions:
                self._note("filled", section, here, f"{count[0]}, the version of a struct beside it, from the reference")
                found.append(wanted)
            elif record:
                found.append(self._field(section, here, wanted, record, counts))
            else:
                found.append(self._lacking(section, here, wanted, counts))
            if count := _count(wanted, found[-1]):
                counts[count] = None
        has_room = self._slots is not None and not (like and is_kept(like[-1]))
        carried = list(self._leftover(section, path, left.values(), has_room=has_room))
        gone = {(0, left[name].length) for name in left.keys() - {each.name for _, each in carried}}
        # QEMU does not describe an array without elements
        fields = [wanted if _count(wanted, each) in gone else each for wanted, each in zip(like, found, strict=True)]
        for place, record in carried:
            fields.insert(place, record)
        return tuple(fields)

    def _leftover(self, section: str, path: Path, left: Iterable[Record], *, has_room: bool) -> Iterator[tuple[int, Record]]:
        """Of what the reference lacks what its QEMU knows, which goes over, with its place; all else is lost."""
        beside = list(self._slots.inside(path).items()) if self._slots else []
        for record in left:
            here = (*path, record.name)
            slot = self._our_slots.get(here) if has_room and self._our_slots else None
            place = self._place(here, slot, beside) if slot else ""
            if slot and isinstance(place, int):
                beside.insert(place, (record.name, slot))
                self._added.setdefault(path, []).append((place, slot))
                what = "a subsection" if slot.subsection else "a field on a condition"
                self._note("carried", section, here, f"{what} that the reference lacks and its QEMU knows")
                yield place, record
            else:
                self._lose(section, here, f"`{record.describe()}`", is_default=record.is_default, way=str(place))

    def _place(self, path: Path, slot: Slot, beside: Sequence[tuple[str, Slot]]) -> int | str:
        """Where something that the reference lacks is written; or why it cannot be."""
        names = tuple(part for part in path if isinstance(part, str))
        if not self._known:
            return ASK_FOR_TABLES
        if slot.subsection:
            misfit = self._known.misfit(*self._device, names, slot.subsection)
            return len(beside) if misfit is None else misfit
        fields = [name for name, each in beside if not each.subsection]
        return self._known.place(*self._device, names, slot.entries, fields)

    def _lacking(self, section: str, path: Path, like: Record, counts: Counts) -> Record:
        """A field that the snapshot lacks: one from the reference, or an array that has no elements in the snapshot."""
        if like.length is None or (like.length, 0) not in counts:
            self._fill(section, path, f"`{like.describe()}`")
            return like
        self._note("kept", section, path, f"without elements, as they are counted; the reference has `{like.describe()}`")
        return like.replace(value=b"" if isinstance(like.value, bytes) else (), length=0)

    def _keyed(self, section: str, path: Path, like: Records, ours: Records) -> Records:
        """Our fields, with the keys of the reference where they hold keys and values."""
        for pairs in PAIRS:
            found = matched(like, ours, pairs)
            if found is None:
                continue
            ours = found.records
            for place, key, value in found.lost:
                said = f"the key {key:#x} with the value {value:#x}, which the reference does not have"
                self._lose(section, (*path, pairs.keys, place), said, is_default=False)
            for place, key, value, other in found.constant:
                said = f"{value:#x} of the constant {key:#x}, where the other QEMU loads only {other:#x}"
                self._lose(section, (*path, pairs.values, place), said, is_default=False)
            if found.filled:
                keys = ", ".join(f"{key:#x}" for key in found.filled[:_KEYS])
                more = f" and {len(found.filled) - _KEYS} more" if len(found.filled) > _KEYS else ""
                self._fill(section, (*path, pairs.keys), f"the values of {keys}{more}")
        return ours

    def _field(self, section: str, path: Path, like: Record, ours: Record, counts: Counts) -> Record:
        """Our value in the type and length of the reference; that of the reference where ours has no place."""
        slot = self._slots.get(path) if self._slots else None
        if refused := _refused(slot, like, ours):
            self._lose(section, path, refused, is_default=False)
            return like
        is_counted = (_length(like), _length(ours)) in counts
        is_whole = like.type == ours.type and (is_counted or self._delimits_itself(slot, ours))
        if is_whole and like.length != ours.length:
            self._note("kept", section, path, f"`{ours.describe()}`, whole; the reference has `{like.describe()}`")
        if like.type == ours.type == "struct" and (is_counted or (like.length is None) == (ours.length is None)):
            return self._structs(section, path, like, ours, counts, is_counted=is_counted)
        if is_whole or (like.type, like.length) == (ours.type, ours.length):
            return like.replace(value=ours.value, length=ours.length)
        return self._resize(section, path, like, ours, is_counted=is_counted)

    def _resize(self, section: str, path: Path, like: Record, ours: Record, *, is_counted: bool) -> Record:
        """Our value in another width or length, as far as it fits."""
        found, is_whole = _resized(like, ours, is_counted=is_counted)
        if found is None:
            said = f"`{ours.describe()}` does not fit `{like.describe()}`"
            self._replace(section, path, said, f"`{like.describe()}`", is_default=ours.is_default)
            return like
        if is_whole:
            self._note("resized", section, path, f"`{ours.describe()}` to `{found.describe()}`")
        else:
            self._lose(section, path, f"`{ours.describe()}` does not fit `{like.describe()}`", is_default=ours.is_default)
        if _is_longer(found, ours):
            self._take(section, path, f"elements from {_length(ours)} on")
        return found

    def _delimits_itself(self, slot: Slot | None, record: Record) -> bool:
        """Whether QEMU reads a value by code of its own, and ignores the size that is described.

        So it is with what only QEMU can read, unless its table has an array of it, and with the devices that nothing describes
        in a stream that describes others.
        """
        if is_kept(record):
            return not self._slots and bool(self._like_structs)
        return record.type not in _FIXED and not is_known_type(record.type) and not (slot and slot.is_array)

    def _structs(self, section: str, path: Path, like: Record, ours: Record, counts: Counts, *, is_counted: bool) -> Record:
        """A struct, or an array of them; what is beyond either end is filled or lost, unless a field counts the elements."""
        if like.length is None and not is_counted:
            return like.replace(
                value=self._element(section, path, cast("Records | None", like.value), cast("Records | None", ours.value), counts)
            )
        wanted, given = _structs_of(like), _structs_of(ours)
        if is_counted:
            wanted = (*wanted, *wanted[-1:] * (len(given) - len(wanted)))[: len(given)]
        pairs = enumerate(zip(wanted, given, strict=False))
        found = [self._element(section, (*path, index), first, second, counts) for index, (first, second) in pairs]
        if len(given) > len(wanted):
            self._lose(section, path, f"elements from {len(wanted)} on", is_default=ours.is_default)
        elif len(wanted) > len(given):
            self._fill(section, path, f"elements from {len(given)} on")
        if is_counted and ours.length is None and found:
            return like.replace(value=found[0], length=None)
        return like.replace(value=(*found, *wanted[len(given) :]), length=len(wanted))

    def _element(self, section: str, path: Path, like: Records | None, ours: Records | None, counts: Counts) -> Records | None:
        """The fields of one struct; None is a null pointer, and what is null in QEMU its machine decides."""
        if ours is None and like is not None:
            self._fill(section, path, "a struct that is null in the snapshot")
        elif like is None and ours is not None:
            self._lose(section, path, "a struct that is null in the reference", is_default=False)
        elif like is not None and ours is not None:
            return self._struct(section, path, like, ours, counts)
        return like

    def _fill(self, section: str, path: Path, said: str) -> None:
        """Note that the snapshot lacks something, and that it comes from the reference."""
        if self.has_run:
            self._take(section, path, said)
        else:
            self._note("filled", section, path, f"{said}, from the reference")

    def _replace(self, section: str, path: Path, said: str, by: str, *, is_default: bool) -> None:
        """Note that something has no place, and that what is there is the reference's."""
        if self._lose(section, path, said, is_default=is_default):
            self._take(section, path, by)

    def _take(self, section: str, path: Path, said: str) -> None:
        """Note what comes from the reference, where this is more than its reset."""
        if self.has_run and self._takes:
            self._note("filled", section, path, f"{said}: the reference machine's own state was written")
        elif self.has_run:
            self._note("taken", section, path, f"{said}, the state of another guest")

    def _note_alias(self, alias: str | None, section: str, path: Path, *, is_found: bool) -> None:
        """Note whether the snapshot has what an alias names."""
        if alias and is_found:
            self._found.add(alias)
        elif alias:
            self._aliased.setdefault(alias, format_path(section, path))

    def _note(self, what: What, section: str, path: Path, said: str) -> None:
        self.moves.append(Move(what, section, path, said))

    def _lose(self, section: str, path: Path, said: str, *, is_default: bool, way: str = "") -> bool:
        """Note that something has no place, and the way to one; return whether it may go."""
        places = [section, self._ours[section]] if section in self._ours else [section]
        named = [pattern for pattern in self._drops if any(pattern.covers(place, path) for place in places)]
        self.dropped += (pattern for pattern in named if pattern not in self.dropped)
        may_go = is_default or bool(named)
        more = ", at its default" if is_default else f"; {way}" if way and not may_go else ""
        self._note("dropped" if may_go else "lost", section, path, said + more)
        return may_go


def _commands(origin: Origin) -> Iterator[tuple[Section, int]]:
    for section, said in origin.of_type(stream.COMMAND):
        with in_section(section):
            yield section, operator.index(said["command"])


def _resized(like: Record, ours: Record, *, is_counted: bool) -> tuple[Record | None, bool]:
    """Our value in another width or length, as far as it fits, and whether all of it does; None where nothing does.

    Numbers change their width, arrays and buffers their length: what is cut off must be zeros, what is longer ends as in
    the reference, unless a field counts the elements. QEMU describes an array of one as a single value.
    """
    if all(isinstance(wire_type(record.type), BlockType) for record in (like, ours)):
        values, wanted = list(numbers(ours)), list(numbers(like))
        size = len(values) if is_counted else len(wanted)
        cut = values[size:]
        values = [*values[:size], *wanted[len(values) :]][:size]
        is_single = (ours if is_counted else like).length is None
        found = like.replace(value=values[0] if is_single else values, length=None if is_single else size)
        try:
            wire_type(like.type).pack(found.value, found.length)
        except StateError:
            return None, False
        return found, not any(cut)
    first, second = like.value, ours.value
    if like.type == ours.type and isinstance(first, bytes) and isinstance(second, bytes):
        size = len(first)
        return like.replace(value=second[:size] + first[len(second) :]), not any(second[size:])
    return None, False


def _refused(slot: Slot | None, like: Record, ours: Record) -> str | None:
    """What QEMU refuses, since it has a value of its own to compare with."""
    kind = slot.entries[0].type if slot and slot.entries else ""
    first, second = like.value, ours.value
    if not isinstance(first, int) or not isinstance(second, int):
        return None
    for ending, passes in _COMPARED.items():
        if kind.endswith(ending) and not passes(first, second):
            most = "only" if passes is operator.eq else "at most"
            return f"{second} in the snapshot, where the other QEMU loads {most} {first}"
    return None


def _count(like: Record, ours: Record) -> tuple[int, int] | None:
    """What may be the length of an array, there and here."""
    first, second = like.value, ours.value
    if not isinstance(first, int) or not isinstance(second, int) or isinstance(first, bool) or first == second:
        return None
    return first, second


def _length(record: Record) -> int:
    return 1 if record.length is None else record.length


def _is_longer(found: Record, ours: Record) -> bool:
    """Whether there are elements beyond ours, and not only zeros."""
    value = found.value if isinstance(found.value, bytes) else numbers(found)
    return any(value[_length(ours) :])


def _structs_of(record: Record) -> tuple[Records | None, ...]:
    value = cast("Any", record.value)
    return (value,) if record.length is None else tuple(value)
