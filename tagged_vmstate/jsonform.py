"""The JSON form of a snapshot: lossless both ways, a section at a time.

Sizes and sums are not in it: they follow from the rest, so an edit by hand cannot make them lie. Where a writer
chose other encodings than the prescribed ones, a field carries its own bytes under ``msgpack``; they count
only as long as they still mean what the field says. `snapshot.schema.json` describes the form.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from binascii import hexlify
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from tagged_vmstate.errors import GATHERED, FormatError, StateError, VMStateError
from tagged_vmstate.files import Readable, as_file, read_some
from tagged_vmstate.frames import VERSION, Kind, Lead, check_attributes, label
from tagged_vmstate.memory import MEMORY, Images, is_plain_name, restored
from tagged_vmstate.overview import Whole, overview
from tagged_vmstate.paths import PathPart
from tagged_vmstate.records import Record, head_to_json, is_foreign, wire_type
from tagged_vmstate.records import to_json as record_to_json
from tagged_vmstate.sections import Section, Sections
from tagged_vmstate.snapshot import Snapshot
from tagged_vmstate.text import MARK_BYTES, encoding
from tagged_vmstate.wire import Json, Opaque
from tagged_vmstate.wiretype import brief

FORMAT: Final = "tagged-vmstate"
_CHUNK: Final = 1 << 16
_dump: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def to_json(sections: Sections, file: BinaryIO, images: Images | None = None) -> None:
    """Write sections as JSON, a line for each field; with `images`, memory into files.

    Raises:
        FormatError: The sections come from bytes that are damaged, or of a later version of the format.
        OSError: A file cannot be written.
    """
    if isinstance(sections, Snapshot):
        sections.check_version()  # ahead of the first byte
    head = f'"format": "{FORMAT}", "version": {VERSION}, "attributes": {_dump(sections.raw_attributes.to_json())}'
    if images and images.name:
        head = f'{head}, "{MEMORY}": {_dump(images.name)}'
    file.write(f'{{{head},\n"sections": ['.encode())
    for number, section in enumerate(sections):
        file.write(b",\n" if number else b"\n")
        file.writelines(_section_text(section, images))
    file.write(b"\n]}\n")


def _section_head(section: Section) -> dict[str, Json]:
    found: dict[str, Json] = {} if section.kind == "section" else {"kind": section.kind}
    lead = section.lead  # an odd name of a device in a stream would not come back
    return {**found, "device": lead.device, "instance": lead.instance, "attributes": section.raw_attributes.to_json()}


def _section_text(section: Section, images: Images | None) -> Iterator[bytes]:
    records = section.records()
    yield f'{_dump(_section_head(section))[:-1]}, "fields": ['.encode()
    for number, record in enumerate(records):
        yield b",\n " if number else b"\n "
        if record.type == "sparse" and images:
            yield _dump(images.to_json(section.label, record)).encode()
        else:
            yield from _record_text(record)
    yield b"]}"


def whole_text(whole: Whole) -> Iterator[bytes]:
    """A section with all its parts as JSON: its memory is what is not zero in the end."""
    attributes = whole.raw_attributes.to_json()
    head = {"device": whole.device, "instance": whole.instance, "parts": whole.parts, "attributes": attributes}
    head |= {"incomplete": True} if whole.is_incomplete and whole.memory else {}
    texts = [_field_text(memory.record(name), _sparse_text(memory.pieces())) for name, memory in whole.memory.items()]
    yield f'{_dump(head)[:-1]}, "fields": ['.encode()
    for number, text in enumerate(chain(texts, map(_record_text, whole.records))):
        yield b", " if number else b""
        yield from text
    yield b"]}"


def _record_text(record: Record) -> Iterator[bytes]:
    if record.type not in _HEXED or is_foreign(record):
        return iter((_dump(record_to_json(record)).encode(),))
    return _field_text(record, _HEXED[record.type](record.value))


def _field_text(record: Record, value: Iterator[bytes]) -> Iterator[bytes]:
    yield f'{_dump(head_to_json(record))[:-1]}, "value": '.encode()
    yield from value
    yield b"}"


def _sparse_text(pieces: Iterable[tuple[int, bytes, bool]]) -> Iterator[bytes]:
    """Runs from their pieces: offset, bytes, whether a run begins with it."""
    before = "{"
    for offset, data, begins in pieces:
        if begins:
            yield f'{before}"0x{offset:x}": "'.encode()
            before = '", '
        for at in range(0, len(data), _CHUNK):
            yield hexlify(data[at : at + _CHUNK])
    yield b"{}" if before == "{" else b'"}'


def _buffer_text(data: bytes) -> Iterator[bytes]:
    yield b'"'
    for at in range(0, len(data), _CHUNK):
        yield b" " * (at > 0) + hexlify(data[at : at + _CHUNK], " ")
    yield b'"'


_HEXED: Final[dict[str, Callable[[Any], Iterator[bytes]]]] = {
    "sparse": lambda runs: _sparse_text((offset, data, True) for offset, data in runs),
    "buffer": _buffer_text,
    "bitmap": _buffer_text,
}
"""Types whose values may be many bytes: their hex is written as it is made, a JSON encoder would look at every digit of it."""


def to_values(sections: Sections, file: BinaryIO) -> None:
    """Write the short form: ``{device: {field: value}}``. Not lossless: memory is its length, and how much is not zero.

    Instance 0 goes by the name of its device, others as ``device#instance``.
    """
    file.write(b"{")
    for number, whole in enumerate(overview(sections)):
        name = label(whole.device, whole.instance) if whole.instance else whole.device
        values = _values(whole.records)
        for field, memory in whole.memory.items():
            values[field] = {"length": memory.length, "stored": memory.use().count}
        file.write(f"{',' if number else ''}\n{_dump(name)}: {_dump(values)}".encode())
    file.write(b"\n}\n")


def _values(records: Iterable[Record]) -> dict[str, Json]:
    return {record.name: _value(record) for record in records}


def _value(record: Record) -> Json:
    value = cast("Any", record.value)
    if record.type != "struct":
        return _without_marks(wire_type(record.type).to_json(value, record.length))
    elements = [None if each is None else _values(each) for each in ((value,) if record.length is None else value)]
    return elements[0] if record.length is None else elements


def _without_marks(found: Json) -> Json:
    """The hex of bytes alone, where those are the value or elements of it."""
    if isinstance(found, dict) and found.keys() == {"$hex"}:
        return found["$hex"]
    return [_without_marks(each) for each in found] if isinstance(found, list) else found


def from_json(source: Readable, memory: Path | None = None, *, beside: Path | None = None, salvage: bool = False) -> JsonForm:
    """Open a JSON form: its sections can then be iterated, once.

    Args:
        source: The text: its bytes, or a file open for reading in binary mode.
        memory: The folder of the files that hold its memory, unless it is the one that the text names.
        beside: The folder in which that one lies; no file is read unless one of the two is given.
        salvage: Go on after a section that is none, and report.

    Raises:
        FormatError: This is no JSON form of a snapshot; says where, also while iterating.
    """
    return JsonForm(as_file(source), memory, beside, salvage=salvage)


_KEYS: Final = frozenset({"format", "version", "attributes", MEMORY})
"""Of the outermost object, ahead of "sections"; the first two may stand behind them."""


class JsonForm:
    """The sections of a JSON form, read one at a time.

    Attributes:
        raw_attributes: What stands in the header.
        has_images: Whether memory that was read so far lies in files beside it.
        damage: With `salvage`, after iterating: what was wrong with sections that are left out. At most 1,000 entries.
        more_damage: How many more there were.
    """

    def __init__(self, file: BinaryIO, memory: Path | None, beside: Path | None, *, salvage: bool) -> None:
        self.has_images = False
        self.damage: list[FormatError] = []
        self.more_damage = 0
        self._salvage = salvage
        self._text = _Text(file)
        self._members: dict[str, Json] = {}
        self._text.expect("{", "a JSON object")
        more = self._read_members()
        if not more:
            raise self._text.error('"sections"', "none")
        self.raw_attributes = self._attributes()
        named = self._named_folder(beside)
        self._memory = memory or named

    def __iter__(self) -> Iterator[Section]:
        text = self._text
        text.expect("[", "a list of sections")
        number = 0
        while text.peek() != "]":
            if number:
                text.expect(",", "a comma or the end of the sections")
            section = self._read_section(number)
            if section:
                yield section
            number += 1
        text.expect("]", "the end of the sections")
        if text.peek() == ",":
            text.expect(",", "")
            if self._read_members(_KEYS - {MEMORY}):
                raise text.error('"sections" once', "it again")
        else:
            text.expect("}", "a comma or the end of the object")
        self._check_members()
        if text.peek():
            raise text.error("nothing after the object", brief(text.peek()))

    def _read_members(self, keys: frozenset[str] = _KEYS) -> bool:
        """Read members of the outermost object; True at the value of "sections", False behind the object."""
        text = self._text
        while text.peek() != "}":
            key = text.value("a key")
            text.expect(":", "a colon")
            if key == "sections":
                return True
            if not isinstance(key, str) or key not in keys or key in self._members:
                found = "a dump of QEMU's (-dump-vmstate), no stream" if key == "vmschkmachine" else brief(key)
                raise text.error('"format", "version", "attributes" and "sections", each once', found)
            self._members[key] = text.value("a value")
            if text.peek() != "}":
                text.expect(",", "a comma or the end of the object")
        text.expect("}", "the end of the object")
        return False

    def _attributes(self) -> Opaque:
        if "attributes" not in self._members:
            raise self._text.error('"attributes" before "sections"', "none")
        try:
            return _attributes(self._members["attributes"])
        except StateError as error:
            raise self._text.error(error.expected, error.found) from None

    def _named_folder(self, beside: Path | None) -> Path | None:
        """The folder of its memory's files."""
        name = self._members.get(MEMORY)
        if MEMORY not in self._members:
            return None
        expected = '"memory" as the name of a folder that lies beside it'
        if not is_plain_name(name):
            raise self._text.error(expected, brief(name))
        if beside and os.path.islink(beside / name):  # noqa: PTH114
            raise self._text.error(expected, f"{brief(name)}, a symbolic link, which is not followed")
        return beside and beside / name

    def _check_members(self) -> None:
        if self._members.get("format") != FORMAT:
            raise self._text.error(f'"format": "{FORMAT}"', brief(self._members.get("format")))
        version = self._members.get("version")
        if type(version) is not int or version != VERSION:  # nor true, nor 1.0
            raise self._text.error(f'"version": {VERSION}', brief(version))

    def _read_section(self, number: int) -> Section | None:
        """The next section; None for one that is noted as damaged."""
        text = self._text
        start = text.mark()
        found = text.value("a section")
        section = None
        try:
            section = _section(found, self._memory)
            self.has_images = self.has_images or _has_images(found)
        except StateError as error:
            error.section = error.section or f"section {number}"
            misfit = text.misfit(error, start)
            if not self._salvage:
                raise misfit from None
            if len(self.damage) < GATHERED:
                self.damage.append(misfit)
            else:
                self.more_damage += 1
        text.forget()
        return section


class Document:
    """A whole JSON text that is no form of a snapshot.

    Args:
        source: The text: its bytes, or a file open for reading in binary mode.
        what: What it should be, for the error.

    Attributes:
        value: What it says.

    Raises:
        FormatError: This is no JSON: no UTF-8, cut, a key twice in one object, a number that JSON lacks, nested too deep.
    """

    def __init__(self, source: Readable, what: str) -> None:
        self._text = _Text(as_file(source))
        self._start = self._text.mark()
        self.value = self._text.value(what)
        if self._text.peek():
            raise self._text.error("nothing after the value", brief(self._text.peek()))

    def misfit(self, problem: VMStateError, place: Iterable[str | tuple[str, object]]) -> FormatError:
        """What is wrong with the value as an error that has a place in the text.

        Args:
            problem: What is wrong.
            place: The way to it: the key of a member, or the key and value by which an object is found in an array.
                What is not there is passed over.
        """
        at = self._start
        for part in place:
            found = self._text.child(at, part) if isinstance(part, str) else self._text.named(at, *part)
            at = at if found is None else found
        error = self._text.error(problem.expected, problem.found, at)
        error.path, error.section = problem.path, problem.section
        return error


def _attributes(found: Json) -> Opaque:
    if not isinstance(found, dict):
        raise StateError('"attributes" as an object', brief(found))
    try:
        attributes = Opaque.from_json(found)
    except ValueError as error:
        raise StateError('"attributes" that MessagePack can hold', str(error)) from None
    check_attributes(attributes.raw)
    return attributes


_SECTION_KEYS: Final = frozenset({"kind", "device", "instance", "attributes", "fields"})


def _section(found: Json, memory: Path | None) -> Section:
    if not isinstance(found, dict):
        raise StateError("a section as an object", brief(found))
    device, instance, kind, fields = found.get("device"), found.get("instance"), found.get("kind", "section"), found.get("fields")
    if not isinstance(device, str):
        raise StateError('"device" as a string', brief(device))
    if not isinstance(instance, int) or isinstance(instance, bool) or not 0 <= instance < 1 << 32:
        raise StateError('"instance" as an integer of 0 to 2**32-1', brief(instance))
    if not isinstance(kind, str) or kind not in {"section", "part"}:
        raise StateError('"kind" as "section" or "part"', brief(kind))
    if not isinstance(fields, list):
        raise StateError('"fields" as a list', brief(fields))
    odd = found.keys() - _SECTION_KEYS
    if odd:
        raise StateError(f"no keys but {', '.join(sorted(_SECTION_KEYS))}", brief(min(odd)))
    try:
        lead = Lead.of(cast("Kind", kind), device, instance, _attributes(found.get("attributes", {})))
        records = (restored(field, memory) for field in fields)
        section = Section(device, instance, records, kind=lead.kind, attributes=lead.attributes)
        section.pieces()
    except StateError as error:
        error.section = label(device, instance)
        raise
    return section


def _has_images(section: Any) -> bool:
    return any(isinstance(field, dict) and MEMORY in field for field in section["fields"])


class _Refused(ValueError):  # noqa: N818  # ends up as a FormatError
    """JSON that Python takes."""


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = iter(found)
        twice = next(key for key, _ in pairs if next(keys, None) != key)
        raise _Refused(f"the key {brief(twice)} twice in one object")
    return found


def _no_constant(name: str) -> Json:
    raise _Refused(f"{name}, which JSON lacks")


class _Text:
    """JSON text read as far as it is needed, and forgotten behind; its first bytes tell its encoding."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._scan = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).raw_decode
        self._text = ""
        self._at = 0
        self._start = 0
        self._line = 1
        self._is_all = False
        self._usual = 0
        self._odd: int | None = None
        head = b""
        while len(head) < MARK_BYTES and (data := read_some(file, MARK_BYTES - len(head))):
            head += data
        self._encoding, self._offset = encoding(head)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._decode(head[self._offset :])

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            match = _BLANKS.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def expect(self, char: str, what: str) -> None:
        """Pass a character. Raises FormatError where another is next."""
        found = self.peek()
        if found != char:
            raise self.error(what, brief(found) if found else "nothing more (truncated)")
        self._at += 1

    def value(self, what: str) -> Json:
        """Pass a value. Raises FormatError where there is none."""
        if not self.peek():
            raise self.error(what, "nothing more (truncated)")
        if len(self._text) - self._at < self._usual and self._odd is None:
            self._fill()
        while True:
            try:
                found, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._fill():
                    continue
                self._at = error.pos
                is_cut = error.pos >= len(self._text) or error.msg.startswith("Unterminated")
                raise self.error(what, "nothing more (truncated)" if is_cut else error.msg) from None
            except RecursionError:
                raise self.error(what, "values nested too deep") from None
            except _Refused as error:
                raise self.error(what, str(error)) from None
            except ValueError:  # what Python does not convert, as that would take long
                raise self.error(what, f"an integer of more than {sys.get_int_max_str_digits()} digits") from None
            # A number that ends where the text does so far may go on.
            if end < len(self._text) or not self._fill():
                self._at = end
                return found

    def mark(self) -> int:
        """The place of the next value, until `forget`."""
        self.peek()
        self._start = self._at
        return self._at

    def forget(self) -> None:
        """Let go of the text before this place, once it is more than what stays and has to be copied."""
        self._usual = self._at - self._start
        if 2 * self._at < len(self._text):
            return
        self._offset += self._size(self._at)
        at = -1
        while (at := self._text.find("\n", at + 1, self._at)) >= 0:  # lines are few, and counting looks at every digit
            self._line += 1
        self._text = self._text[self._at :]
        self._at = 0

    def error(self, expected: str, found: str, at: int | None = None) -> FormatError:
        """An error at a place (default: here)."""
        at = self._at if at is None else at
        line = self._line + self._text.count("\n", 0, at)
        return FormatError(expected, found, offset=self._offset + self._size(at), line=line, source="JSON")

    def _size(self, end: int) -> int:
        """How many bytes the text was, up to a place."""
        if self._encoding == "utf-8" and self._text.isascii():
            return end
        return len(self._text[:end].encode(self._encoding))

    def misfit(self, problem: StateError, start: int) -> FormatError:
        """The error of a section that begins at `start`, at the place that its path tells."""
        error = self.error(problem.expected, problem.found, self._locate(start, problem.path))
        error.path, error.section = problem.path, problem.section
        return error

    def _locate(self, at: int, path: tuple[PathPart, ...]) -> int:
        """The place of a field, by names and indexes, as near as the text has it."""
        at = self.child(at, "fields") or at
        for part in path:
            if isinstance(part, int):
                found = self.child(at, part)
            else:
                found = self.named(at, "name", part)
                found = found and (self.child(found, "value") or found)
            if found is None:
                break
            at = found
        return at

    def child(self, at: int, key: str | int) -> int | None:
        """The place of a member of an object, or an element of a list; None where there is none."""
        return next((place for found, place in self._children(at) if found == key), None)

    def named(self, at: int, key: str, name: object) -> int | None:
        """The place of the first object in a list whose member of a key is `name`."""
        return next((place for _, place in self._children(at) if self._member(place, key) == name), None)

    def _member(self, at: int, key: str) -> Json:
        found, _ = self._scan(self._text, at)
        return found.get(key) if isinstance(found, dict) else None

    def _children(self, at: int) -> Iterator[tuple[str | int, int]]:
        """Keys or indexes of an object or a list, and where their values begin. The text has been scanned before."""
        opened = self._text[at]
        if opened not in "[{":
            return
        at = self._skip(at + 1)
        index = 0
        while self._text[at] not in "]}":
            key: str | int = index
            if opened == "{":
                key, at = self._scan(self._text, at)
                at = self._skip(self._skip(at) + 1)
            yield key, at
            at = self._skip(self._scan(self._text, at)[1])
            at = self._skip(at + 1) if self._text[at] == "," else at
            index += 1

    def _skip(self, at: int) -> int:
        match = _BLANKS.match(self._text, at)
        return match.end() if match else at

    def _fill(self) -> bool:
        """Read on; False at the end.

        As much as the section before took, or the more the more there is, so that long values stay linear.
        """
        if self._odd is not None:
            self._at = len(self._text)
            raise self.error(self._encoding.upper(), f"the byte 0x{self._odd:02x}")
        if self._is_all:
            return False
        data = read_some(self._file, max(_CHUNK, self._usual, len(self._text)))
        self._is_all = not data
        self._decode(data)
        return True

    def _decode(self, data: bytes) -> None:
        try:
            self._text += self._decoder.decode(data, final=self._is_all)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode(self._encoding)
            self._odd = error.object[error.start]  # an error once the text before it is used up


_BLANKS: Final = re.compile(r"[ \t\n\r]*")
