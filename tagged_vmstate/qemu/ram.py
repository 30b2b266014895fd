"""Guest memory in a QEMU stream: page records of the `ram` section, version 4 (QEMU's migration/ram.c).

A record is a big-endian u64, an address whose low bits are flags, and what the flags say follows. Page after
page is gathered into chunks: the runs of bytes that are not zero, block by block, and beside them the exact
sequence of page records, run-length encoded, from which the same bytes can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tagged_vmstate.errors import FormatError, StateError
from tagged_vmstate.files import Input
from tagged_vmstate.wiretype import brief

ZERO: Final = 0x02
MEM_SIZE: Final = 0x04
PAGE: Final = 0x08
EOS: Final = 0x10
CONTINUE: Final = 0x20
_UNSUPPORTED: Final = {
    0x40: "XBZRLE pages (capability xbzrle)",
    0x80: "pages sent by RDMA",
    0x100: "compressed pages (capability compress)",
    0x200: "pages on other channels (capability multifd)",
}
CHUNK_BYTES: Final = 4 << 20
CHUNK_RUNS: Final = 1 << 15
"""Page runs in one chunk at most: their list goes into a frame's attributes, which are limited."""
_SPAN: Final = 1 << 12
"""Pages in one piece of the record of which pages have been written."""


def stream_error(expected: str, found: str, offset: int) -> FormatError:
    """An error in a stream."""
    return FormatError(expected, found, offset=offset, source="stream")


def take(source: Input, size: int, what: str) -> bytes:
    """The next bytes of a stream. Raises FormatError where it ends before."""
    start = source.position
    data = source.read(size)
    if len(data) < size:
        raise stream_error(f"{size} bytes of {what}", f"only {len(data)} before its end (truncated)", start)
    return data


def text(data: bytes, what: str, offset: int) -> str:
    """A name of a stream. Raises FormatError where it is not UTF-8: QEMU's names are ASCII."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise stream_error(f"{what} in UTF-8", data.hex(" "), offset) from None


def take_name(source: Input, what: str) -> str:
    """A name behind a byte with its length. Raises FormatError."""
    size = take(source, 1, what)[0]
    start = source.position
    return text(take(source, size, what), what, start)


def pack_name(name: str) -> bytes:
    """A name behind a byte with its length. Raises StateError where that byte cannot hold it."""
    data = name.encode()
    if len(data) > 0xFF:
        raise StateError("a name of at most 255 bytes", brief(name))
    return bytes((len(data),)) + data


@dataclass(slots=True)
class Block:
    """A block of guest memory.

    Attributes:
        name: QEMU's name for it.
        length: Bytes.
        address: Its address in the guest, with capability x-ignore-shared; else None.
    """

    name: str
    length: int
    address: int | None = None
    _written: dict[int, bytearray] = field(default_factory=dict, repr=False)

    def mark(self, page: int) -> None:
        """Note that a page has had bytes."""
        span = self._written.setdefault(page // _SPAN, bytearray())
        if not span:
            span.extend(bytes(_SPAN))
        span[page % _SPAN] = 1

    def is_marked(self, page: int) -> bool:
        """Whether a page has had bytes."""
        span = self._written.get(page // _SPAN)
        return span is not None and span[page % _SPAN] == 1


@dataclass(slots=True)
class PageRun:
    """Successive page records of one kind.

    Attributes:
        block: Index of the block.
        page: Number of the first page.
        count: How many.
        flag: ``PAGE`` or ``ZERO``.
        named: The first of them names its block; all others continue.
    """

    block: int
    page: int
    count: int
    flag: int
    named: bool


@dataclass(slots=True)
class Chunk:
    """Some page records of one turn of the `ram` section.

    Attributes:
        total: The sum of all blocks as the stream states it, where the blocks are listed here.
        blocks: The blocks that are listed here.
        pages: The page records in their order.
        data: Block index -> [(offset, pieces of bytes)], ascending; what is not there is zero or as it was.
        last: The turn ends here.
    """

    total: int | None = None
    blocks: list[Block] = field(default_factory=list)
    pages: list[PageRun] = field(default_factory=list)
    data: dict[int, list[tuple[int, list[bytes]]]] = field(default_factory=dict)
    last: bool = False
    size: int = 0

    def is_full(self) -> bool:
        """Whether it is time for another one."""
        return self.size >= CHUNK_BYTES or len(self.pages) >= CHUNK_RUNS


class RamReader:
    """The state of the `ram` section over all its turns.

    Args:
        page_size: Bytes of a page of the guest.
        has_addresses: Capability x-ignore-shared: each block is listed with its address.
    """

    def __init__(self, page_size: int, *, has_addresses: bool) -> None:
        self.blocks: list[Block] = []
        self.page_size = page_size
        self._has_addresses = has_addresses
        self._index: dict[str, int] = {}
        self._current: int | None = None
        self._ends: dict[int, int] = {}

    def turn(self, source: Input) -> Iterator[Chunk]:
        """The chunks of one turn, up to its end. Raises FormatError for what cannot be followed."""
        chunk = self._next_chunk()
        while not chunk.last:
            start = source.position
            word = int.from_bytes(take(source, 8, "a page record"), "big")
            flags = word & (self.page_size - 1)
            address = word - flags
            kind = flags & ~CONTINUE
            if kind in {PAGE, ZERO}:
                index = self._block(source, flags)
                piece = self._page(source, index, address, kind, start)
                if chunk.is_full() or (piece and address < self._ends.get(index, 0)):
                    yield chunk
                    chunk = self._next_chunk()
                self._add(chunk, index, address, flags, piece)
            elif flags == MEM_SIZE:
                if chunk.total is not None or chunk.pages:
                    yield chunk  # a chunk lists blocks once, before its pages
                    chunk = self._next_chunk()
                chunk.total = address
                chunk.blocks += self._list_blocks(source, address)
            elif word == EOS:
                chunk.last = True
            else:
                raise self._unknown(flags, start)
        yield chunk

    def _next_chunk(self) -> Chunk:
        self._ends = {}
        return Chunk()

    def _block(self, source: Input, flags: int) -> int:
        """The block of a page, by its name or the same as before."""
        start = source.position
        if not flags & CONTINUE:
            name = take_name(source, "the name of a block")
            self._current = self._index.get(name)
            if self._current is None:
                raise stream_error("a block that was listed", f"`{name}`", start)
        if self._current is None:
            raise stream_error("a page that names its block", "one that continues none", start)
        return self._current

    def _page(self, source: Input, index: int, address: int, kind: int, start: int) -> bytes:
        """The bytes of a page; none where it is zero and always was."""
        block = self.blocks[index]
        if address + self.page_size > block.length:
            raise stream_error(f"a page inside `{block.name}` ({block.length} bytes)", f"one at {address}", start)
        if kind == PAGE:
            return take(source, self.page_size, "a page")
        fill = take(source, 1, "a page")
        if fill == b"\0" and not block.is_marked(address // self.page_size):
            return b""
        return fill * self.page_size

    def _add(self, chunk: Chunk, index: int, address: int, flags: int, piece: bytes) -> None:
        page = address // self.page_size
        run = chunk.pages[-1] if chunk.pages else None
        if run and flags == run.flag | CONTINUE and run.block == index and run.page + run.count == page:
            run.count += 1
        else:
            chunk.pages.append(PageRun(index, page, 1, flags & ~CONTINUE, not flags & CONTINUE))
        if not piece:
            return
        self.blocks[index].mark(page)
        runs = chunk.data.setdefault(index, [])
        if runs and self._ends[index] == address:
            runs[-1][1].append(piece)
        else:
            runs.append((address, [piece]))
        self._ends[index] = address + len(piece)
        chunk.size += len(piece)

    def _list_blocks(self, source: Input, total: int) -> list[Block]:
        found = []
        left = total
        while left:
            start = source.position
            name = take_name(source, "the name of a block")
            length = int.from_bytes(take(source, 8, "the length of a block"), "big")
            address = int.from_bytes(take(source, 8, "the address of a block"), "big") if self._has_addresses else None
            if not name:
                raise stream_error("the name of a block", "an empty one", start)
            if not 0 < length <= left:
                raise stream_error(f"blocks of {total} bytes in all", f"{length} more where {left} are left", start)
            if name in self._index:
                raise stream_error("each block once", f"`{name}` again", start)
            block = Block(name, length, address)
            self._index[name] = len(self.blocks)
            self.blocks.append(block)
            found.append(block)
            left -= length
        return found

    def _unknown(self, flags: int, offset: int) -> FormatError:
        names = [name for bit, name in _UNSUPPORTED.items() if flags & bit]
        if names:
            return stream_error("pages or zero pages", f"{names[0]}: migrate again without it", offset)
        hint = f"flags 0x{flags:x}; pages of another size than {self.page_size} bytes look like this"
        return stream_error("a page record", hint, offset)
