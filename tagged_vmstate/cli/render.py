"""All printing: lines of styled pieces, with colours on a terminal and without elsewhere."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias, cast

from tagged_vmstate.cli.messages import clean
from tagged_vmstate.overview import LINE, Memory, Whole, windows
from tagged_vmstate.paths import format_name
from tagged_vmstate.records import Record, Records, wire_type
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
        return "1 byte" if size == 1 else f"{size} bytes"
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


class _Node:
    """A line of the tree and what lies below it."""

    def __init__(
        self, name: str, kind: str, value: str, *, marks: str = "", below: Sequence[_Node] = (), dump: Iterable[str] = ()
    ) -> None:
        self.name = name
        self.kind = clean(kind)
        self.value = value
        self.marks = marks
        self.below = below
        self.dump = dump


def _tree(nodes: Sequence[_Node], indent: str) -> Iterator[Line]:
    name_width = min(max((len(node.name) for node in nodes), default=0), WIDEST_NAME)
    kind_width = max((len(node.kind) for node in nodes if node.value), default=0)
    for number, node in enumerate(nodes):
        is_last = number == len(nodes) - 1
        line: Line = [(indent + ("└─ " if is_last else "├─ "), GUIDE), (node.name.ljust(name_width), NAME), ("  ", PLAIN)]
        line += [(node.kind.ljust(kind_width if node.value else 0), TYPE), ("  ", PLAIN), (node.value, VALUE), (node.marks, DIM)]
        yield line
        below = indent + ("   " if is_last else "│  ")
        for text in node.dump:
            yield [(below, GUIDE), (text, VALUE)]
        yield from _tree(node.below, below)


def _memory_node(name: str, memory: Memory, zeros: str, *, is_full: bool) -> _Node:
    use = memory.use()
    value = zeros
    dump: Iterable[str] = ()
    if use.count:
        value = f"{size_text(use.count)} in {use.ranges} {'run' if use.ranges == 1 else 'runs'}"
        if is_full:
            dump = hex_dump(((low, data) for low, [data] in windows(memory)), memory.length)
        else:
            value += f", at 0x{use.start:x}: {hex_preview(use.first, len(use.first) + 1)}"
    marks = "  default" if memory.is_default else ""
    return _Node(name, f"sparse[{memory.length}]", value, marks=marks, dump=dump)


def _node(record: Record, above: Look, *, is_full: bool) -> _Node:
    look = above.below.get(record.name, PLAINLY)
    name = format_name(record.name)
    marks = "  default" if record.is_default else ""
    kind = record.describe()
    if record.type == "struct":
        if record.length is None:
            return _struct_node(name, kind, cast("Records | None", record.value), marks, look, is_full=is_full)
        below = _elements(record, look, is_full=is_full)
        return _Node(name, kind, "" if record.length else "empty", marks=marks, below=below)
    data = _bytes_of(record)
    if data is not None and is_full and len(data) > PREVIEW_BYTES:
        return _Node(name, kind, "", marks=marks, dump=hex_dump([(0, data)], len(data)))
    if data is not None:
        return _Node(name, kind, hex_preview(data, len(data)), marks=marks)
    return _Node(name, kind, value_text(record, look, is_full=is_full), marks=marks)


def _struct_node(name: str, kind: str, records: Records | None, marks: str, look: Look, *, is_full: bool) -> _Node:
    if not records:
        return _Node(name, kind, "absent" if records is None else "empty", marks=marks)
    return _Node(name, kind, "", marks=marks, below=[_node(record, look, is_full=is_full) for record in records])


def _elements(record: Record, look: Look, *, is_full: bool) -> list[_Node]:
    """The elements of an array of structs; successive ones that are alike are one line."""
    found = []
    index = 0
    elements = cast("Sequence[Records | None]", record.value)
    for (is_omitted, element), group in groupby(elements, lambda each: (each is OMITTED, each)):
        count = sum(1 for _ in group)
        if is_omitted:
            index += count
            continue
        found.append(_struct_node(f"[{index}]", "", element, "", look, is_full=is_full))
        if count > 1:
            last = index + count - 1
            found.append(_Node(f"[{index + 1}]" if count == 2 else f"[{index + 1}..{last}]", "", f"like [{index}]"))
        index += count
    return found


def _bytes_of(record: Record) -> bytes | None:
    if isinstance(record.value, bytes):
        return record.value
    if isinstance(record.value, Opaque):
        found = record.value.to_json()
        if isinstance(found, dict) and found.keys() == {"$hex"}:
            return bytes.fromhex(found["$hex"])
    return None


def value_text(record: Record, look: Look = PLAINLY, *, is_full: bool) -> str:
    """The value of a record in one line."""
    found = wire_type(record.type).to_json(record.value, record.length)
    if record.length is None:
        return _one_text(found, look)
    if not isinstance(found, list):
        return clean(str(found))
    if not found:
        return "empty"
    runs = [(_one_text(value, look), sum(1 for _ in group)) for value, group in groupby(found)]
    shown = runs if is_full else runs[:PREVIEW_RUNS]
    text = ", ".join(value if count == 1 else f"{value} x{count}" for value, count in shown)
    left = record.length - sum(count for _, count in shown)
    return f"{text}, … {left} more" if left else text


def _one_text(value: object, look: Look) -> str:
    if value is True or value is False:
        return str(value).lower()
    if isinstance(value, str):
        return f'"{clean(value)}"'
    displayed = displayed_text(value, look)
    if displayed is not None:
        return displayed
    if isinstance(value, int) and value > 9:
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
