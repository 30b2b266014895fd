"""What a reference stream lacks although its QEMU knows it, by what that QEMU's `-dump-vmstate` writes.

QEMU sends a subsection only while it is needed, and a machine at its reset needs few; the dump has them all. A subsection goes
over where its bytes are sure to be what that QEMU reads: it takes that version, and its fields are the same in the same order,
of the same sizes, none of them on a condition or of a length that only QEMU's own code knows.

A field on a condition (`field_exists`) is like that: `identify_data` of hw/ide/core.c is sent once a guest has asked for it.
QEMU reads it by position, so it goes over at its place in the dump. That its condition holds there too is taken from the
snapshot, whose QEMU wrote it: the values that the condition asks for go over as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, TypeAlias

from tagged_vmstate.paths import format_path
from tagged_vmstate.qemu.differences import Description, Leaf
from tagged_vmstate.qemu.dumpstate import Dump
from tagged_vmstate.qemu.export import OriginError
from tagged_vmstate.qemu.vmdesc import NULL, UNUSED, Field, Struct, is_null, number_type

_STRUCTS: Final = frozenset({"struct", "tmp"})
"""Types whose fields are those of their struct, in the version that the reader has of it."""
_VERSIONS: Final = range(1 << 32)

Names: TypeAlias = tuple[str, ...]


class _MisfitError(Exception):
    """Why a subsection cannot go over."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the snapshot that is bytes of its own; attributes as in `Leaf`."""

    path: Names
    size: int
    counts: tuple[int | None, ...]
    is_unused: bool


class KnownSubsections:
    """The subsections of another QEMU.

    Args:
        dump: What its `-dump-vmstate` writes.
        machine: The machine type of the stream that is written; None where it has none.

    Raises:
        OriginError: The dump is of another machine type.
    """

    def __init__(self, dump: Dump, machine: str | None) -> None:
        if machine is not None and machine != dump.machine:
            raise OriginError(
                f"what -dump-vmstate writes with -M {machine}, the machine of the reference", f"that of {dump.machine}"
            )
        self._dump = dump

    def misfit(self, device: str, version: int, place: Names, subsection: Struct) -> str | None:
        """Why that QEMU would not read a subsection; None where it would.

        Args:
            device: The name of the section's description (vmsd_name).
            version: The version of the section, as that QEMU writes it.
            place: The names of the structs that it lies in, and its own.
            subsection: How the snapshot describes it.
        """
        try:
            for each in self._alike(device, version):
                _check(subsection, _found(each, place))
        except _MisfitError as error:
            return str(error)
        return None

    def place(self, device: str, version: int, path: Names, entries: Sequence[Field], beside: Sequence[str]) -> int | str:
        """Where that QEMU reads a field on a condition; or why it would not read it as it is.

        Args:
            device: The name of the section's description (vmsd_name).
            version: The version of the section, as that QEMU writes it.
            path: The names of the structs and subsections that it lies in, and its own.
            entries: How the snapshot describes it.
            beside: The names of the fields of its struct that the new stream has, in their order; the place is one among them.
        """
        try:
            places = {_place(each, path, entries, beside) for each in self._alike(device, version)}
        except _MisfitError as error:
            return str(error)
        return places.pop() if len(places) == 1 else "the device types of that section have it in different places"

    def _alike(self, device: str, version: int) -> Sequence[Description]:
        """The device types of a section in that version."""
        types = [self._dump.devices[each] for each in self._dump.types.get(device, ())]
        if not types:
            raise _MisfitError(f"the dump has no device of the section `{device}`")
        alike = [each for each in types if each.version == version]
        if not alike:
            raise _MisfitError(f"the dump has version {types[0].version} of `{device}`, the reference {version}")
        return alike


def _found(description: Description, place: Names) -> Description:
    """The subsection at a place."""
    while place:
        end = next((end for end in range(1, len(place) + 1) if place[:end] in description.subsections), None)
        if end is None:
            raise _MisfitError("that QEMU does not know it")
        description, place = description.subsections[place[:end]], place[end:]
    return description


def _place(description: Description, path: Names, entries: Sequence[Field], beside: Sequence[str]) -> int:
    """The place of a conditional field among those beside it."""
    ends = [end for end in range(1, len(path)) if path[:end] in description.subsections]
    if ends:
        return _place(description.subsections[path[: ends[0]]], path[ends[0] :], entries, beside)
    level = len(path) - 1
    leaves = [leaf for leaf in description.at(description.version) if leaf.path[:level] == path[:-1]]
    own = [leaf for leaf in leaves if leaf.path[: level + 1] == path]
    if not own:
        raise _MisfitError("that QEMU does not know it")
    if not all(leaf.conditions[level] for leaf in own):
        raise _MisfitError("that QEMU reads it on no condition, but the reference lacks it")
    below = [
        replace(each, path=each.path[level:], counts=each.counts[level:], conditions=each.conditions[level + 1 :]) for each in own
    ]
    _check_fields(list(_fields(Struct("", 0, tuple(entries), ()), (), ())), below)
    order = [name for name, _ in groupby(leaf.path[level] for leaf in leaves)]
    at = order.index(path[-1])
    before, after = set(order[:at]), set(order[at + 1 :])
    place = max((index + 1 for index, name in enumerate(beside) if name in before), default=0)
    if place != min((index for index, name in enumerate(beside) if name in after), default=len(beside)):
        raise _MisfitError("the fields beside it are others, or in another order, than in the dump")
    return place


def _check_fields(fields: Sequence[_Field], leaves: Sequence[Leaf]) -> None:
    """Raise _MisfitError unless the reader takes the fields as they are."""
    for field, leaf in zip(fields, leaves, strict=False):
        _check_field(field, leaf)
    if len(fields) != len(leaves):
        raise _MisfitError(f"that QEMU reads {len(leaves)} fields in it, not {len(fields)}")


def _check(ours: Struct, theirs: Description) -> None:
    """Raise _MisfitError unless the reader takes the bytes of a subsection as the snapshot has them."""
    if ours.name != theirs.name or ours.version not in _VERSIONS or not theirs.minimum <= ours.version <= theirs.version:
        versions = f"versions {theirs.minimum} to" if theirs.minimum < theirs.version else "version"
        raise _MisfitError(f"that QEMU reads {versions} {theirs.version} of it, not {ours.version}")
    _check_fields(list(_fields(ours, (), ())), theirs.at(ours.version))
    for place, inner in _inside(ours, ()):
        _check(inner, _found(theirs, place))


def _check_field(field: _Field, leaf: Leaf) -> None:
    name, other = (f"`{format_path(None, path)}`" for path in (field.path, leaf.path))
    if leaf.is_conditional:
        raise _MisfitError(f"that QEMU reads {other} in it on a condition that only its own code knows")
    if field.path != leaf.path and not (field.is_unused and leaf.is_unused):
        raise _MisfitError(f"that QEMU reads {other} in the place of {name}")
    if field.is_unused != leaf.is_unused or field.size != leaf.size:
        raise _MisfitError(f"that QEMU reads {leaf.words} for {name}, not {field.size}")
    for mine, count in zip(field.counts, leaf.counts, strict=False):
        if mine is not None and not count:
            raise _MisfitError(f"the dump does not have how many elements {name} has there; those of QEMU 8.1 and later may")
        if (mine or 1) != (count or 1):
            raise _MisfitError(f"that QEMU reads {count or 1} elements for {name}, not {mine or 1}")


def _fields(struct: Struct, path: Names, counts: tuple[int | None, ...]) -> Iterator[_Field]:
    """The fields of a subsection in their order, those of structs in their place."""
    for name, group in groupby(struct.fields, lambda field: field.name):
        entries = list(group)
        here = (*path, name)
        count = sum(field.count for field in entries) if len(entries) > 1 or entries[0].is_array else None
        insides = [_of_entry(field, here, (*counts, count)) for field in entries]
        if any(inside != insides[0] for inside in insides):
            raise _MisfitError(f"the elements of `{format_path(None, here)}` differ")
        yield from insides[0]


def _of_entry(field: Field, path: Names, counts: tuple[int | None, ...]) -> Sequence[_Field]:
    if field.struct and field.type in _STRUCTS and not is_null(field, NULL):
        return list(_fields(field.struct, path, counts))
    is_plain = number_type(field) or field.type in {"buffer", UNUSED}
    if not is_plain:
        raise _MisfitError(f"QEMU writes `{format_path(None, path)}` (`{field.type}`) by code of its own")
    return [_Field(path, field.size, counts, field.type == UNUSED)]


def _inside(struct: Struct, path: Names) -> Iterator[tuple[Names, Struct]]:
    """The subsections in a subsection."""
    for field in struct.fields:
        if field.struct:
            yield from _inside(field.struct, (*path, field.name))
    for each in struct.subsections:
        yield (*path, each.name), each
