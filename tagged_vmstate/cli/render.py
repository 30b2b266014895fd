"""All printing: lines of styled pieces, with colours on a terminal and without elsewhere."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias, cast

from tagged_vmstate.cli.messages import clean
from tagged_vmstate.overview import LINE, Memory, Use, Whole, windows
from tagged_vmstate.paths import format_name
from tagged_vmstate.records import Record, Records, bytes_of, elements_of, wire_type
from tagged_vmstate.text import counted
from tagged_vmstate.wire import Opaque

Piece: TypeAlias = tuple[str, str]
"""Text and its style."""
Line: TypeAlias = list[Piece]

DEVICE, NAME, TYPE, VALUE, DIM, GUIDE, BAD, PLAIN = (
    "bold cyan",
    "default",
    "blue",
    "green",
    "bright_black",
    "bright_black",
    "red",
    "",
)
PREVIEW_BYTES: Final = 16
PREVIEW_RUNS: Final = 8
WIDEST_NAME: Final = 36
_SHOWN: Final = bytes(byte if 32 <= byte < 127 else ord(".") for byte in range(256))
"""Byte -> how it stands in a hex dump."""
UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Look:
    """How something is printed: what its integers are displayed as (see `Field`), and how the fields in it are."""

    display: Any = None
    below: Mapping[str, Look] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Any, display: Any = None) -> Look:
        """As a table has it; None for what is no struct."""
        below: dict[str, Look] = {}
        for each in table.fields if table else ():
            look = cls.of(each.table, each.display or each.type.enum)
            below |= dict.fromkeys((each.name, *each.aliases), look)
        return cls(display, below)


PLAINLY: Final = Look()


class _Omitted(tuple[Record, ...]):
    """An element of an array that is left out of what is shown."""

    __slots__ = ()


OMITTED: Final = _Omitted()


def show_lines(lines: Iterable[Line]) -> None:
    """Print lines, with colours where standard output is a terminal that has them."""
    if not sys.stdout.isatty():
        for line in lines:
            print("".join(clean(text) for text, _ in line).rstrip())
        return
    from rich.console import Console  # noqa: PLC0415  # only for a terminal
    from rich.text import Text  # noqa: PLC0415  # only for a terminal

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text.assemble(*((clean(text), style) for text, style in line)))


def size_text(size: int) -> str:
    """A number of bytes as people say it."""
    power = min(max(size.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    if not power:
        return counted(size, "byte")
    return f"{size / (1 << 10 * power):.1f} {UNITS[power]}"


def table(rows: Sequence[Sequence[str]], styles: Sequence[str], right: frozenset[int] = frozenset()) -> Iterator[Line]:
    """Rows in columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line: Line = []
        for index, (text, width, style) in enumerate(zip(row, widths, styles, strict=True)):
            padded = text.rjust(width) if index in right else text.ljust(width)
            line += [(padded, DIM if not number else style), ("  ", PLAIN)]
        yield line


def section_lines(whole: Whole, look: Look = PLAINLY, *, is_full: bool) -> Iterator[Line]:
    """A section as a tree."""
    yield [
        (format_name(whole.device), DEVICE),
        (f"#{whole.instance}", DIM),
        (f"  {whole.parts} parts" if whole.parts > 1 else "", DIM),
        ("  incomplete" if whole.is_incomplete and whole.memory else "", BAD),
    ]
    zeros = "nothing intact" if whole.is_incomplete else "all zero"
    nodes = [_memory_node(format_name(name), memory, zeros, is_full=is_full) for name, memory in whole.memory.items()]
    yield from _tree([*nodes, *(_node(record, look, is_full=is_full) for record in whole.records)], "")
    yield []


class Node:
    """A line of the tree and what lies below it."""

    def __init__(
        self, name: str, kind: str, value: str, *, marks: str = "", below: Sequence[Node] = (), dump: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.kind = clean(kind)
        self.value = value
        self.marks = marks
        self.below = below
        self.dump = dump

    def lines_below(self, indent: str) -> Iterator[Line]:
        """What lies below it."""
        for text in self.dump:
            yield [(indent, GUIDE), (text, VALUE)]
        yield from _tree(self.below, indent)


def _tree(nodes: Sequence[Node], indent: str) -> Iterator[Line]:
    name_width = min(max((len(node.name) for node in nodes), default=0), WIDEST_NAME)
    kind_width = max((len(node.kind) for node in nodes if node.value), default=0)
    for number, node in enumerate(nodes):
        is_last = number == len(nodes) - 1
        line: Line = [(indent + ("└─ " if is_last else "├─ "), GUIDE), (node.name.ljust(name_width), NAME), ("  ", PLAIN)]
        line += [(node.kind.ljust(kind_width if node.value else 0), TYPE), ("  ", PLAIN), (node.value, VALUE), (node.marks, DIM)]
        yield line
        yield from node.lines_below(indent + ("   " if is_last else "│  "))


def _memory_node(name: str, memory: Memory, zeros: str, *, is_full: bool) -> Node:
    use = memory.use()
    value = use_text(use, zeros, with_start=not is_full)
    dump: Iterable[str] = ()
    if use.count and is_full:
        dump = hex_dump(((low, data) for low, [data] in windows(memory)), memory.length)
    marks = "  default" if memory.is_default else ""
    return Node(name, f"sparse[{memory.length}]", value, marks=marks, dump=dump)


def use_text(use: Use, zeros: str = "all zero", *, with_start: bool = True) -> str:
    """What of a memory is not zero, in one line."""
    if not use.count:
        return zeros
    text = f"{size_text(use.count)} in {counted(use.ranges, 'run')}"
    return f"{text}, at 0x{use.start:x}: {hex_preview(use.first, len(use.first) + 1)}" if with_start else text


def _node(record: Record, above: Look, *, is_full: bool) -> Node:
    return node(format_name(record.name), record, above.below.get(record.name, PLAINLY), is_full=is_full)


def node(name: str, record: Record, look: Look, *, is_full: bool) -> Node:
    """A field or an element as a part of the tree."""
    marks = "  default" if record.is_default else ""
    kind = record.describe()
    elements = elements_of(record)
    if elements and (record.type != "string" or any(map(is_block, elements))):
        return Node(name, kind, "", marks=marks, below=_elements(record, elements, look, is_full=is_full))
    if record.type == "struct" and record.value:
        records = cast("Records", record.value)
        return Node(name, kind, "", marks=marks, below=[_node(each, look, is_full=is_full) for each in records])
    data = bytes_of(record)
    if data is not None and is_full and len(data) > PREVIEW_BYTES:
        return Node(name, kind, "", marks=marks, dump=hex_dump([(0, data)], len(data)))
    if is_block(record.value):
        return Node(name, kind, "", marks=marks, dump=text_lines(cast("str", record.value)))
    return Node(name, kind, value_text(record, look, is_full=is_full), marks=marks)


def _elements(record: Record, elements: Sequence[Any], look: Look, *, is_full: bool) -> list[Node]:
    """The elements of an array; successive ones that are alike are one line."""
    found = []
    index = 0
    for (is_omitted, element), group in groupby(elements, lambda each: (each is OMITTED, each)):
        count = sum(1 for _ in group)
        if is_omitted:
            index += count
            continue
        first = node(f"[{index}]", Record(record.name, record.type, None, element), look, is_full=is_full)
        first.kind = ""
        found.append(first)
        if count > 1:
            last = index + count - 1
            found.append(Node(f"[{index + 1}]" if count == 2 else f"[{index + 1}..{last}]", "", f"like [{index}]"))
        index += count
    return found


def is_block(value: object) -> bool:
    """Whether a value is text of several lines."""
    return isinstance(value, str) and "\n" in value


def text_lines(text: str) -> Iterator[str]:
    """The lines of a text, indented as they are."""
    return (line.expandtabs() for line in text.removesuffix("\n").split("\n"))


def value_text(record: Record, look: Look = PLAINLY, *, is_full: bool = False, with_hex: bool = True) -> str:
    """The value of a record in one line; of a struct or an array of them, what there is of it.

    Args:
        record: The record.
        look: How its integers are displayed.
        is_full: All elements of an array, not the first few.
        with_hex: Integers in hex, too.
    """
    data = bytes_of(record)
    if data is not None:
        return hex_preview(data, len(data))
    if record.type == "struct":
        return _struct_text(record)
    found = wire_type(record.type).to_json(record.value, record.length)
    if isinstance(record.value, Opaque):
        return _opaque_text(found)
    if record.length is None:
        return one_text(found, look, with_hex=with_hex, is_string=record.type == "string")
    return elements_text(found, record.length, look, record.type, is_full=is_full, with_hex=with_hex)


def _struct_text(record: Record) -> str:
    value = cast("Sequence[Any] | None", record.value)
    if not value:
        return "absent" if value is None else "empty"
    return "present" if record.length is None else counted(len(value), "element")


def _opaque_text(found: Any) -> str:
    """An object of a kind that only its writer knows, and that is no bytes."""
    if isinstance(found, dict) and found.keys() == {"$msgpack"}:
        data = bytes.fromhex(found["$msgpack"])
        return f"MessagePack {hex_preview(data, len(data))}"
    return one_text(found, PLAINLY) if isinstance(found, int) else clean(json.dumps(found, ensure_ascii=False))


def elements_text(
    values: Sequence[Any], length: int, look: Look, kind: str, *, is_full: bool = False, with_hex: bool = True
) -> str:
    """The first elements of an array, of `length` in all."""
    if not length:
        return "empty"
    texts = (one_text(value, look, with_hex=with_hex, is_string=kind == "string") for value in values)
    runs = [(text, sum(1 for _ in group)) for text, group in groupby(texts)]
    shown = runs if is_full else runs[:PREVIEW_RUNS]
    text = ", ".join(value if count == 1 else f"{value} x{count}" for value, count in shown)
    left = length - sum(count for _, count in shown)
    return f"{text}, … {left} more" if left else text


def one_text(value: object, look: Look, *, with_hex: bool = True, is_string: bool = True) -> str:
    """A number, a truth value or a string."""
    if value is True or value is False:
        return str(value).lower()
    if isinstance(value, str):
        return f'"{clean(value)}"' if is_string else clean(value)
    displayed = displayed_text(value, look)
    if displayed is not None:
        return displayed
    if with_hex and isinstance(value, int) and value > 9:
        return f"{value} (0x{value:x})"
    return clean(str(value))


def displayed_text(value: object, look: Look) -> str | None:
    """An integer as its field displays it; None where that says nothing of it."""
    display = look.display
    if not display or not isinstance(value, int) or isinstance(value, bool):
        return None
    if display == "hex":
        return f"{value:#x}"
    if display == "flags":
        return f"{value:#x} ({_bits(value)})" if value >= 0 else f"{value:#x}"
    if issubclass(display, enum.Flag):
        return f"{_flag_names(value, display)} ({value:#x})" if value >= 0 else f"{value:#x}"
    names = [clean(member.name) for member in display if member.value == value]
    return f"{names[0]} ({value})" if names else None


def _bits(value: int) -> str:
    """The numbers of the bits that are set."""
    bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
    if not bits:
        return "no bits"
    return f"{'bit' if len(bits) == 1 else 'bits'} {', '.join(map(str, bits))}"


def _flag_names(value: int, display: type[enum.Flag]) -> str:
    """The members that are set, and what none of them names."""
    members = [member for member in display if member.value & value == member.value]
    left = value
    for member in members:
        left &= ~member.value
    return " | ".join([*(clean(str(member.name)) for member in members), *([f"{left:#x}"] if left else [])]) or "none"


def hex_preview(data: bytes, size: int) -> str:
    """The first of some bytes in hex; where all are the same, that one."""
    if not data:
        return "empty"
    if size == len(data) > 1 and data.count(data[:1]) == size:
        return f"{data[0]:02x} x{size}"
    shown = data[:PREVIEW_BYTES].hex(" ")
    return f"{shown} …" if size > PREVIEW_BYTES else shown


def hex_dump(pieces: Iterable[tuple[int, bytes | bytearray]], length: int) -> Iterator[str]:
    """Bytes as offset, hex and ASCII, 16 in a line; lines like the one before are a star.

    Args:
        pieces: Offset and bytes, ascending, from multiples of 16 to multiples of 16 or the end; all else is zero.
        length: Bytes in all.
    """
    before, is_folded = None, False
    for offset, row, count in _rows(pieces, length):
        left = count
        if row != before:
            yield f"{offset:08x}  {row.hex(' '):<47}  {row.translate(_SHOWN).decode()}"
            before, is_folded, left = row, False, count - 1
        if left and not is_folded:
            yield "*"
            is_folded = True


def _rows(pieces: Iterable[tuple[int, bytes | bytearray]], length: int) -> Iterator[tuple[int, bytes, int]]:
    """Offset and bytes of a line, and how many there are of it."""
    at = 0
    for low, data in pieces:
        if at < low:
            yield at, bytes(LINE), (low - at) // LINE
        at = min(low + len(data), length)
        for offset in range(low, at, LINE):
            yield offset, bytes(data[offset - low : min(offset + LINE, at) - low]), 1
    if at + LINE <= length:
        yield at, bytes(LINE), (length - at) // LINE
    if at < length and length % LINE:
        yield length - length % LINE, bytes(length % LINE), 1
