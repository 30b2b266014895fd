"""`set`: one value of a snapshot changed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import click

from tagged_vmstate.cli import complete
from tagged_vmstate.cli.files import Trouble, opened_in_its_form, output_at_once
from tagged_vmstate.cli.paths import not_found, pattern
from tagged_vmstate.edit import Target, changed, fields, laid_over, located
from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.jsonform import Document
from tagged_vmstate.paths import Pattern, format_path
from tagged_vmstate.records import bytes_of, elements_of, wire_type
from tagged_vmstate.sections import Section
from tagged_vmstate.snapshot import Snapshot, StoredSection
from tagged_vmstate.text import integer
from tagged_vmstate.types import Runs
from tagged_vmstate.wire import Opaque
from tagged_vmstate.wiretype import brief


@click.command(short_help="Change a value.")
@click.argument("file")
@click.argument("words", metavar="PATH", nargs=-1, required=True, shell_complete=complete.place)
@click.argument("value")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="Where to; FILE itself is replaced as a whole.")
def set_command(file: str, words: tuple[str, ...], value: str, out: str) -> None:
    """Change one value; it is checked against the type of its field, and every other byte stays as it was.

    OUT is of the kind that FILE is: a snapshot, its JSON form or a QEMU stream (bare or in libvirt's save image), compressed
    as FILE is. JSON whose memory lies in image files is refused.

    PATH is DEVICE/FIELD, or DEVICE and FIELD as two words: hpet/timer[1]/cmp, dma#1/regs[3], ram/pc.ram[0x1000]. VALUE is
    a number (10, 0xa), true or false, text, bytes in hex or @FILE for buffers and memory, a JSON list for a whole array. A
    negative number stands after --.

    \b
    Examples:
      tagged-vmstate set vm.tvm ps2kbd scancode_set 3 -o changed.tvm
      tagged-vmstate set vm.tvm 'ps2kbd/parent_obj/queue.data[4]' '1c f0' -o changed.tvm
      tagged-vmstate set vm.tvm 'ram/pc.ram[0x7c00]' @boot.bin -o vm.tvm
      tagged-vmstate set vm.mig.xz cpu/env.eip 0xfff0 -o changed.mig.xz
    """
    with opened_in_its_form(file) as (snapshot, form):
        section, target = _find(snapshot, cast("Pattern", pattern(words)))
        try:
            new = changed(section, target, _value(target, value))
        except StateError as error:
            error.section = section.label
            error.path = error.path or target.path
            raise Trouble(str(error)) from None
        with output_at_once(out, is_text=form.is_text) as file_out:
            form.write(_Changed(snapshot, section.offset, new), file_out)


@dataclass(frozen=True, slots=True)
class _Changed:
    """A snapshot with one section replaced."""

    snapshot: Snapshot
    offset: int
    new: Section

    @property
    def raw_attributes(self) -> Opaque:
        return self.snapshot.raw_attributes

    def __iter__(self) -> Iterator[Section]:
        for section in self.snapshot:
            yield self.new if section.offset == self.offset else section


def _find(snapshot: Snapshot, wanted: Pattern) -> tuple[StoredSection, Target]:
    """The field; of memory in parts the last part that has it: what comes later counts."""
    sections = list(snapshot)
    chosen = [section for section in sections if wanted.may_lie_in(section.label)]
    found = {format_path(section.label, each.path): (section, each) for section in chosen for each in located(section, wanted)}
    if wanted.text in found:
        return found[wanted.text]
    if len(found) > 1:
        few = ", ".join(islice(found, 3)) + (", ..." if len(found) > 3 else "")
        raise Trouble(f"`{wanted.text}` names {len(found)} fields: name one of {few}")
    if not found:
        inside = ((section.label, each.path) for section in chosen for each in fields(section.records()))
        raise not_found(wanted, inside if chosen else ((section.label, ()) for section in sections))
    return next(iter(found.values()))


def _value(target: Target, text: str) -> Any:
    """The whole new value of a field, from what a person wrote."""
    record, index = target.record, target.index
    if record.type == "struct":
        raise StateError("a field of the struct, such as FIELD/name", f"`{record.describe()}`", path=target.path)
    if record.type == "sparse":
        data = _bytes(text)
        start = index or 0
        if start + len(data) > (record.length or 0):
            raise StateError(f"bytes inside `{record.describe()}`", f"{len(data)} at {start}", path=target.path)
        return laid_over(cast("Runs", record.value), start, data)
    if bytes_of(record) is not None:
        return _in_place(target, _bytes(text))
    return _whole(target, text) if index is None else _with_element(target, index, text)


def _whole(target: Target, text: str) -> Any:
    """The whole value of what holds no bytes."""
    record = target.record
    if record.length is None and not isinstance(record.value, Opaque):
        return _one(record.type, text)
    return wire_type(record.type).from_json(_json(text), record.length)


def _with_element(target: Target, index: int, text: str) -> Any:
    """The value with one element changed."""
    record = target.record
    is_opaque = isinstance(record.value, Opaque)
    opaque = elements_of(record) if is_opaque else None
    if opaque is None and (record.length is None or is_opaque):
        raise StateError("no index: it is a single value", f"[{index}]", path=target.path)
    elements = list(cast("Sequence[Any]", record.value if opaque is None else opaque))
    if index >= len(elements):
        raise StateError(f"an index of `{record.describe()}`", f"[{index}]", path=target.path)
    if opaque is None:
        elements[index] = _one(record.type, text)
        return elements
    inside = Target((), record.replace(value=elements[index], length=None), None, target.path)
    elements[index] = _value(inside, text)
    return Opaque.array(elements)


def _in_place(target: Target, data: bytes) -> Any:
    """Bytes of a buffer; with an index, written over it from there."""
    old = cast("bytes", bytes_of(target.record))
    start = target.index or 0
    if target.index is not None and start + len(data) > len(old):
        raise StateError(f"bytes inside `{target.record.describe()}`", f"{len(data)} at {start}", path=target.path)
    new = data if target.index is None else old[:start] + data + old[start + len(data) :]
    return Opaque.of(new) if isinstance(target.record.value, Opaque) else new


def _one(kind: str, text: str) -> Any:
    """A single value of a type."""
    if kind == "string":
        return text
    if kind == "bool":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind.startswith("float"):
        return _float(kind, text)
    try:
        return integer(text)
    except ValueError:
        return text


def _float(kind: str, text: str) -> object:
    try:
        number = float(text)
    except ValueError:
        return wire_type(kind).from_json(text, None)
    if math.isinf(number) and "inf" not in text.lower():
        raise StateError(f"`{kind}` (in its range)", brief(text))
    return number


def _json(text: str) -> Any:
    try:
        return Document(os.fsencode(text), "a value").value
    except FormatError as error:
        raise StateError("a JSON list, such as [1, 2, 3]", f"{brief(text)} with {error.found}") from None


def _bytes(text: str) -> bytes:
    """Bytes from hex, or from a file."""
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise Trouble(f"{text[1:]}: {error.strerror}") from None
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise StateError("bytes in hex, or @FILE", brief(text)) from None
